//! Causal multicast among the replicas of a room: nobody sees an answer before its question.
//!
//! ```text
//!   n1 ──(1) stamp {n1:1} ─┬──▶ n2   ready: deliver, log, confirm to n1
//!      client's CHAT       └──▶ n3   not ready: hold back, ask for what is missing
//!   n1 ◀──(2) held 1 ──────── n2     two servers hold it: n1 shows it to its members
//!   n1 ◀──(3) synced 1 ────── n2     on two disks: n1 acknowledges it
//! ```
//!
//! The server that a client is connected to stamps its message with the room's vector clock and sends it
//! to the other replicas. A stamp names only the entries that changed since that server's message
//! before it, which has to be delivered first anyway. A replica delivers a message when everything
//! that its sender had seen is here ([`VectorClock::is_causally_ready`]) and holds it back until then.
//!
//! **Held, shown, acknowledged.** A replica *holds* a message when it has delivered it, so that its causal
//! past is there too. What a client has seen must survive the crash of the server that showed it: a message
//! is *shown* when min(2, live) servers hold it, in the order of delivery; *acknowledged* when it is on
//! min(2, live) disks, after it was shown.
//!
//! **Repair.** SYNC compares clocks and sends what the other lacks ([`super::sync`]).
//!
//! Promise: causal order per room; no acknowledged message is lost while servers fail one at a time.
//! Price: r - 1 messages and two small confirmations each among r replicas; a clock entry per incarnation.
//! Leaves out: one order for concurrent messages; two replicas may show them differently.
//!
//! Source: class-diagram.txt, `CausalMulticastHandler`; Birman, Schiper and Stephenson (1991).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::planted::{Planted, is_planted};
use super::step::Step;
use super::tail::{Run, Tail};
use crate::domain::content::Held;
use crate::domain::{Incarnation, Message, MessageType, NodeId, Room, VectorClock};
use crate::network::{ConnId, Transport};
use crate::storage::LogIndex;

/// Messages that one room holds back at most. More are dropped; SYNC brings them again.
pub const HOLD_BACK_MAX: usize = 10_000;

/// Above so many places that may be due they are not looked at one by one.
const MANY_PLACES: usize = 64;

/// An acknowledgement that is owed to a client; they sort by the place of their message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PendingAck {
    /// Where the message stands in the room's history.
    pub place: usize,
    /// Whose message it is.
    pub session: Arc<str>,
    /// The connection that brought it. A session that connects again sends it again, after it was shown the past.
    pub conn: ConnId,
    /// Its id.
    pub message_id: String,
}

/// What became of a stamped message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Delivered, perhaps with others that had waited for it.
    Delivered,
    /// It waits in the hold-back queue for its causal past.
    HeldBack,
    /// It was here already, or is no stamped message at all.
    Ignored,
}

/// What [`CausalMulticastHandler::settle`] found to be due.
#[derive(Debug, Default, PartialEq)]
pub struct Settled {
    /// The places to show now, repeats among them.
    pub shown: Range<usize>,
    /// The acknowledgements to send now, after what is shown.
    pub acked: Vec<PendingAck>,
}

/// What a replica knows of a room besides its messages: who else holds what.
#[derive(Clone, Debug, Default)]
pub struct Replication {
    /// The servers that get this room's messages.
    pub replicas: BTreeSet<NodeId>,
    /// What others have delivered, as far as is known.
    pub held: BTreeMap<NodeId, VectorClock>,
    /// What others have on disk, as far as is known.
    pub synced_by: BTreeMap<NodeId, VectorClock>,
    /// What is on this server's disk.
    pub synced: VectorClock,
    /// How many places of the history were shown.
    pub shown: usize,
    /// What the messages before `shown` count: the position of every member here.
    pub shown_clock: VectorClock,
    /// What was sent to others on their present connections, or had been there before: a link keeps order, so
    /// it arrives, or all of it is forgotten with the link.
    pub sent: BTreeMap<NodeId, VectorClock>,
    /// Whether this copy has everything that another replica had when they were first compared.
    pub caught_up: bool,
    /// What that was, until it is here.
    pub target: Option<VectorClock>,
    /// The room's clock at this server's last stamp: later stamps name what changed since.
    last_stamp: VectorClock,
    /// Acknowledgements owed.
    acks: BTreeSet<PendingAck>,
}

impl Replication {
    /// Whether one of the servers `live` is known to hold what `origin` stamped with `count`.
    fn held_elsewhere(&self, live: &BTreeSet<NodeId>, origin: &Incarnation, count: u64) -> bool {
        live.is_empty() || covered(&self.held, live, origin, count)
    }

    /// The same for their disks.
    fn synced_elsewhere(&self, live: &BTreeSet<NodeId>, origin: &Incarnation, count: u64) -> bool {
        live.is_empty() || covered(&self.synced_by, live, origin, count)
    }

    /// The message `count` of `origin` goes to `node_id`, on the present connection.
    pub fn note_sent(&mut self, node_id: &NodeId, origin: &Incarnation, count: u64) {
        if let Some(sent) = self.sent.get_mut(node_id) {
            // After a gap the entry stays: it counts what was sent without one.
            if sent.get(origin) + 1 == count {
                sent.raise(origin, count);
            }
        }
    }

    /// Shows what one of the servers `live` is known to hold: a start finds a whole history to be due at once.
    fn skip_held(&mut self, room: &Room, live: &BTreeSet<NodeId>) {
        let history = &room.message_history;
        let mut held = VectorClock::new();
        for (_, clock) in self.held.iter().filter(|(node_id, _)| live.contains(*node_id)) {
            held.merge(clock);
        }
        let end = if live.is_empty() { history.len() } else { history.first_beyond(&held) };
        if end > self.shown {
            self.shown = end;
            self.shown_clock = history.clock_before(end);
        }
    }

    /// Takes out the acknowledgements that are due, when this server stamps as `mine`.
    fn take_due_acks(
        &mut self,
        room: &Room,
        live: &BTreeSet<NodeId>,
        mine: &Incarnation,
    ) -> Vec<PendingAck> {
        let mut due = Vec::new();
        let mut others = Vec::new();
        while let Some(ack) = self.acks.pop_first() {
            let (origin, count) = room.stamp_at(ack.place);
            let synced = self.synced.get(origin) >= count
                && self.synced_elsewhere(live, origin, count)
                || is_planted(Planted::AckBeforeSync);
            if synced && ack.place < self.shown {
                due.push(ack);
                continue;
            }
            // Its own messages become due in order: the rest of them wait too.
            let is_own = origin == mine;
            others.push(ack);
            if is_own {
                break;
            }
        }
        self.acks.extend(others);
        due
    }

    /// Whether `node_id` is known to hold everything that `room` holds here.
    pub fn is_covered_by(&self, node_id: &NodeId, room: &Room) -> bool {
        self.held.get(node_id).is_some_and(|held| held.covers(&room.clock))
    }
}

fn covered(
    clocks: &BTreeMap<NodeId, VectorClock>,
    live: &BTreeSet<NodeId>,
    origin: &Incarnation,
    count: u64,
) -> bool {
    clocks.iter().any(|(node_id, clock)| live.contains(node_id) && clock.get(origin) >= count)
}

/// Stamps, orders and spreads the messages of all rooms of one server.
#[derive(Debug)]
pub struct CausalMulticastHandler {
    /// Who stamps here: this life of this server.
    incarnation: Incarnation,
    /// Per room that has a copy here.
    replication: BTreeMap<String, Replication>,
    /// What was appended to the log and is not reported synced yet, in the order of the log.
    unsynced: VecDeque<Run>,
    /// The message that is being delivered, as JSON.
    json: Vec<u8>,
    /// What is synced and still in memory.
    tail: Tail,
    /// Rooms in which something happened since they were settled last.
    touched: BTreeSet<String>,
    /// Whose messages were delivered or synced since they were confirmed last.
    to_confirm: BTreeSet<(String, Incarnation)>,
}

impl CausalMulticastHandler {
    /// A handler that stamps as `incarnation`, and keeps about `tail_bytes` bytes of synced messages in memory.
    pub fn new(incarnation: Incarnation, tail_bytes: usize) -> Self {
        Self {
            incarnation,
            replication: BTreeMap::new(),
            unsynced: VecDeque::new(),
            json: Vec::new(),
            tail: Tail::new(tail_bytes),
            touched: BTreeSet::new(),
            to_confirm: BTreeSet::new(),
        }
    }

    /// What is known of the replicas of `room_id`; made empty when the room is new.
    pub fn replication(&mut self, room_id: &str) -> &mut Replication {
        if !self.replication.contains_key(room_id) {
            self.replication.insert(room_id.into(), Replication::default());
        }
        // Inserted above when it was missing.
        self.replication.get_mut(room_id).expect("just made")
    }

    /// What is known of the replicas of `room_id`, if there is a copy of it here.
    pub fn replication_of(&self, room_id: &str) -> Option<&Replication> {
        self.replication.get(room_id)
    }

    /// Forgets everything of `room_id` but its name.
    pub(super) fn drop_room(&mut self, room_id: &str) {
        self.replication.remove(room_id);
        self.unsynced.retain(|run| run.room_id != room_id);
        self.to_confirm.retain(|(of, _)| of != room_id);
    }

    /// Remembers that `room_id` has to be settled.
    pub fn touch(&mut self, room_id: &str) {
        if !self.touched.contains(room_id) {
            self.touched.insert(room_id.into());
        }
    }

    /// Takes out the rooms in which something happened.
    pub fn take_touched(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.touched)
    }

    /// What this server's log held when it started is in `rooms`: no log, no multicast, it is synced.
    pub fn recovered(&mut self, rooms: &mut BTreeMap<String, Room>) {
        for (room_id, room) in rooms {
            room.recovered();
            self.replication(room_id).synced = room.clock.clone();
            self.touch(room_id);
        }
    }

    /// Stamps `msg`, a client's new message in `room`: the room's next one of this incarnation.
    pub fn stamp(&mut self, msg: &mut Message, room: &Room) {
        let incarnation = self.incarnation.clone();
        let replication = self.replication(&room.room_id);
        let mut stamp = room.clock.beyond(&replication.last_stamp);
        let count = room.clock.get(&incarnation) + 1;
        stamp.raise(&incarnation, count);
        replication.last_stamp.merge(&room.clock);
        replication.last_stamp.raise(&incarnation, count);
        msg.origin = Some(incarnation);
        msg.vector_clock = Some(stamp);
    }

    /// Takes a stamped message: delivers it and what had waited for it, or holds it back.
    pub fn handle_chat_message(&mut self, msg: Message, room: &mut Room, step: &Step) -> Delivery {
        let Some((origin, count)) = msg.stamp() else { return Delivery::Ignored };
        if count <= room.clock.get(origin) {
            return Delivery::Ignored;
        }
        if is_ready(&msg, room) {
            let stamp = (origin.clone(), count);
            self.deliver_and_multicast(msg, room, step);
            self.check_queue_recursively(room, stamp, step);
            return Delivery::Delivered;
        }
        if room.hold_back_queue.len() < HOLD_BACK_MAX {
            room.hold_back_queue.push(msg, &room.clock);
        }
        Delivery::HeldBack
    }

    /// Delivers a ready message: history, log; to the other replicas when it was stamped here, else it
    /// is to be confirmed to who stamped it.
    pub(super) fn deliver_and_multicast(&mut self, msg: Message, room: &mut Room, step: &Step) {
        let msg = Arc::new(msg);
        self.json.clear();
        msg.serialize_to(&mut self.json);
        let Some(place) = room.add_serialised(msg.clone(), &self.json) else { return };
        let index = step.log.append_json(&msg, &self.json);
        room.message_history.wrote(index);
        self.note_unsynced(&room.room_id, index, place, self.json.len());
        self.touch(&room.room_id);
        if msg.origin.as_ref() == Some(&self.incarnation) {
            self.multicast(&msg, room, step.cm);
        } else if let Some(origin) = &msg.origin {
            self.to_confirm.insert((room.room_id.clone(), origin.clone()));
        }
    }

    /// The message at `place` of `room_id`, `bytes` long, was appended to the log as `index`.
    fn note_unsynced(&mut self, room_id: &str, index: LogIndex, place: usize, bytes: usize) {
        if let Some(run) = self.unsynced.back_mut()
            && run.is_followed_by(room_id, index, place)
        {
            run.places.end += 1;
            run.bytes += bytes;
            return;
        }
        self.unsynced.push_back(Run::of(room_id, index, place, bytes));
    }

    /// Delivers what became ready in the hold-back queue by the delivery of `stamp`, and by those deliveries in
    /// turn, until nothing does.
    pub(super) fn check_queue_recursively(
        &mut self,
        room: &mut Room,
        stamp: (Incarnation, u64),
        step: &Step,
    ) {
        if room.hold_back_queue.is_empty() {
            return;
        }
        let mut delivered = vec![stamp];
        while let Some((origin, count)) = delivered.pop() {
            for msg in room.hold_back_queue.release(&origin, count) {
                let Some((origin, count)) = msg.stamp().map(|(o, n)| (o.clone(), n)) else {
                    continue;
                };
                if is_ready(&msg, room) {
                    self.deliver_and_multicast(msg, room, step);
                    delivered.push((origin, count));
                } else if count > room.clock.get(&origin) {
                    room.hold_back_queue.push(msg, &room.clock);
                }
            }
        }
    }

    /// Sends a stamped message to the other replicas of `room`.
    pub fn multicast(&mut self, msg: &Message, room: &Room, cm: &dyn Transport) {
        let Some(replication) = self.replication.get_mut(&room.room_id) else { return };
        for node_id in replication.replicas.clone() {
            cm.send_to_node(&node_id, msg);
            if let Some((origin, count)) = msg.stamp() {
                replication.note_sent(&node_id, origin, count);
            }
        }
    }

    /// Owes an acknowledgement for the message at `place` of `room`.
    pub fn owe_ack(&mut self, room_id: &str, ack: PendingAck) {
        self.replication(room_id).acks.insert(ack);
        self.touch(room_id);
    }

    /// Owes an acknowledgement on that was due and could not be sent: its session is being shown the past. The room is settled
    /// again when that is over.
    pub(super) fn keep_ack(&mut self, room_id: &str, ack: PendingAck) {
        self.replication(room_id).acks.insert(ack);
    }

    /// How many acknowledgements `session` waits for in `room_id`.
    pub fn owed_acks(&self, room_id: &str) -> usize {
        self.replication.get(room_id).map_or(0, |replication| replication.acks.len())
    }

    /// Takes out the next messages whose records are among those up to `index`.
    fn take_synced(&mut self, index: LogIndex) -> Option<Run> {
        let run = self.unsynced.front_mut()?;
        let records = (index + 1).checked_sub(run.first).filter(|records| *records > 0)?;
        let count = usize::try_from(records).unwrap_or(usize::MAX);
        if count >= run.places.len() { self.unsynced.pop_front() } else { Some(run.take(count)) }
    }

    /// Everything appended up to `index` is on this server's disk.
    pub fn on_synced(&mut self, index: LogIndex, rooms: &mut BTreeMap<String, Room>) {
        while let Some(run) = self.take_synced(index) {
            let Some(room) = rooms.get(&run.room_id) else { continue };
            let mut replication = self.replication.get_mut(&run.room_id);
            for (origin, count) in room.message_history.last_stamps(run.places.clone()) {
                if let Some(replication) = &mut replication {
                    replication.synced.raise(origin, count);
                }
                if *origin != self.incarnation {
                    self.to_confirm.insert((run.room_id.clone(), origin.clone()));
                }
            }
            self.touch(&run.room_id);
            self.tail.push(run);
        }
        self.tail.release(rooms, &self.replication);
    }

    /// `node_id` has delivered what `clock` counts, in `room_id`.
    pub fn note_held(&mut self, node_id: &NodeId, room_id: &str, clock: &VectorClock) {
        self.replication(room_id).held.entry(node_id.clone()).or_default().merge(clock);
        self.touch(room_id);
    }

    /// `node_id` says how far it is with this server's own messages in `room_id`.
    pub fn handle_held(&mut self, node_id: &NodeId, room_id: &str, held: &Held) {
        let Some(replication) = self.replication.get_mut(room_id) else { return };
        replication.held.entry(node_id.clone()).or_default().raise(&held.origin, held.held);
        replication.synced_by.entry(node_id.clone()).or_default().raise(&held.origin, held.synced);
        self.touch(room_id);
    }

    /// Forgets what `node_id` held: it may come back without it.
    pub fn forget_node(&mut self, node_id: &NodeId) {
        for replication in self.replication.values_mut() {
            replication.held.remove(node_id);
            replication.sent.remove(node_id);
            replication.synced_by.remove(node_id);
        }
    }

    /// What is due in `room`, when `live` are the other live servers: messages that enough servers hold,
    /// acknowledgements of those on enough disks.
    pub fn settle(&mut self, room: &Room, live: &BTreeSet<NodeId>) -> Settled {
        let Some(replication) = self.replication.get_mut(&room.room_id) else {
            return Settled::default();
        };
        let first = replication.shown;
        if room.message_history.len() - first > MANY_PLACES {
            replication.skip_held(room, live);
        }
        while replication.shown < room.message_history.len() {
            let (origin, count) = room.stamp_at(replication.shown);
            if !replication.held_elsewhere(live, origin, count) {
                break;
            }
            replication.shown_clock.raise(origin, count);
            replication.shown += 1;
        }
        if replication.target.as_ref().is_some_and(|target| room.clock.covers(target)) {
            replication.target = None;
            replication.caught_up = true;
        }
        let acked = replication.take_due_acks(room, live, &self.incarnation);
        Settled { shown: first..replication.shown, acked }
    }

    /// Confirms to the servers that stamped them what was delivered and synced since the last call.
    pub fn send_confirmations(&mut self, rooms: &BTreeMap<String, Room>, me: &NodeId, step: &Step) {
        for (room_id, origin) in std::mem::take(&mut self.to_confirm) {
            let (Some(room), Some(replication)) =
                (rooms.get(&room_id), self.replication.get(&room_id))
            else {
                continue;
            };
            let held = Held {
                held: room.clock.get(&origin),
                synced: replication.synced.get(&origin),
                origin: origin.clone(),
            };
            let msg = Message::new(MessageType::Ack, me.as_str()).in_room(room_id).saying(&held);
            step.cm.send_to_node(&origin.node_id(), &msg);
        }
    }
}

fn is_ready(msg: &Message, room: &Room) -> bool {
    match (&msg.origin, &msg.vector_clock) {
        (Some(origin), Some(stamp)) if is_planted(Planted::NoHoldBack) => {
            stamp.get(origin) == room.clock.get(origin) + 1
        }
        (Some(origin), Some(stamp)) => room.clock.is_causally_ready(stamp, origin),
        _ => false,
    }
}
