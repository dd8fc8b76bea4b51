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
//! Price: r - 1 messages and two small confirmations each among r replicas, those of a step in one message; a clock entry per incarnation.
//! Leaves out: one order for concurrent messages; two replicas may show them differently.
//!
//! Source: class-diagram.txt, `CausalMulticastHandler`; Birman, Schiper and Stephenson (1991).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use indexmap::IndexMap;

use super::planted::{Planted, is_planted};
use super::replication::{PendingAck, Replication, Settled};
use super::step::Step;
use super::tail::{Run, Tail};
use crate::domain::content::{Held, HeldCount};
use crate::domain::stamped_chat::Said;
use crate::domain::{
    Absent, Chat, Frame, Incarnation, Message, MessageType, NodeId, Room, StampedChat, VectorClock,
};
use crate::network::Transport;
use crate::storage::LogIndex;

/// Messages that one room holds back at most. More are dropped; SYNC brings them again.
pub const HOLD_BACK_MAX: usize = 10_000;

/// Rooms that one confirmation names at most: it has to fit a frame.
const CONFIRMED_MAX: usize = 1_000;

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

/// Stamps, orders and spreads the messages of all rooms of one server.
#[derive(Debug)]
pub struct CausalMulticastHandler {
    /// Who stamps here: this life of this server.
    incarnation: Incarnation,
    /// Per room that has a copy here.
    replication: IndexMap<String, Replication>,
    /// What was appended to the log and is not reported synced yet, in the order of the log.
    unsynced: VecDeque<Run>,
    /// The message that is being delivered, as JSON.
    json: Vec<u8>,
    /// The last stamp that was given here, to be changed into the next one: mostly another count will do.
    stamp: VectorClock,
    /// What is synced and still in memory.
    tail: Tail,
    /// Rooms in which something happened since they were settled last.
    touched: BTreeSet<String>,
    /// Whose messages were delivered or synced since they were confirmed last, and in which rooms.
    to_confirm: RoomsOf,
}

/// Rooms, by who stamped in them.
type RoomsOf = BTreeMap<Incarnation, BTreeSet<String>>;

impl CausalMulticastHandler {
    /// A handler that stamps as `incarnation`, and keeps about `tail_bytes` bytes of synced messages in memory.
    pub fn new(incarnation: Incarnation, tail_bytes: usize) -> Self {
        Self {
            incarnation,
            replication: IndexMap::new(),
            unsynced: VecDeque::new(),
            json: Vec::new(),
            stamp: VectorClock::new(),
            tail: Tail::new(tail_bytes),
            touched: BTreeSet::new(),
            to_confirm: BTreeMap::new(),
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
        self.replication.swap_remove(room_id);
        self.unsynced.retain(|run| run.room_id != room_id);
        self.to_confirm.retain(|_, rooms| {
            rooms.remove(room_id);
            !rooms.is_empty()
        });
    }

    /// Remembers that `room_id` has to be settled.
    pub fn touch(&mut self, room_id: &str) {
        if !self.touched.contains(room_id) {
            self.touched.insert(room_id.into());
        }
    }

    /// Takes out the rooms in which something happened.
    pub fn take_touched(&mut self) -> BTreeSet<String> {
        mem::take(&mut self.touched)
    }

    /// What this server's log held when it started is in `rooms`: no log, no multicast, it is synced.
    pub fn recovered(&mut self, rooms: &mut IndexMap<String, Room>) {
        for (room_id, room) in rooms {
            room.recovered();
            self.replication(room_id).synced = room.clock.clone();
            self.touch(room_id);
        }
    }

    /// Stamps a new message of `session` in `room`, at `timestamp` in milliseconds since 1970, as the next one of this incarnation, and
    /// delivers it. `absent` says that it is no repeat. Returns its place.
    pub fn publish(
        &mut self,
        msg: &Chat,
        session: &str,
        timestamp: u64,
        absent: Option<Absent>,
        room: &mut Room,
        step: &Step,
    ) -> Option<usize> {
        let origin = self.incarnation.clone();
        let count = self.next_stamp(&origin, room);
        let vector_clock = mem::take(&mut self.stamp);
        let stamped = StampedChat {
            message_id: msg.message_id,
            sender_id: msg.sender_id,
            room_id: msg.room_id,
            content: Said::Text(msg.text),
            origin: &origin,
            count,
            vector_clock: &vector_clock,
            session: Some(session),
            timestamp: Some(timestamp),
        };
        // One's own next message is always ready: its past is what was delivered here.
        let place = self.deliver(&stamped, absent, room, step);
        self.stamp = vector_clock;
        self.check_queue_recursively(room, (origin, count), step);
        place
    }

    /// Makes `self.stamp` that of the next message of `origin`, which is this incarnation, in `room`. Returns its count.
    fn next_stamp(&mut self, origin: &Incarnation, room: &Room) -> u64 {
        let count = room.clock.get(origin) + 1;
        let mut stamp = mem::take(&mut self.stamp);
        let replication = self.replication(&room.room_id);
        if room.clock.timestamps.iter().any(|(other, n)| *n > replication.last_stamp.get(other)) {
            stamp = room.clock.beyond(&replication.last_stamp);
            replication.last_stamp.merge(&room.clock);
        } else if stamp.timestamps.len() > 1 {
            stamp = VectorClock::new();
        }
        replication.last_stamp.raise(origin, count);
        stamp.timestamps.insert(origin.clone(), count);
        self.stamp = stamp;
        count
    }

    /// Takes a stamped message: delivers it and what had waited for it, or holds it back.
    pub fn handle_chat_message(&mut self, msg: Message, room: &mut Room, step: &Step) -> Delivery {
        let Some((origin, count)) = msg.stamp() else { return Delivery::Ignored };
        if count <= room.clock.get(origin) {
            return Delivery::Ignored;
        }
        if is_ready(&msg, room) {
            let stamp = (origin.clone(), count);
            self.deliver_and_multicast(&msg, room, step);
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
    pub(super) fn deliver_and_multicast(&mut self, msg: &Message, room: &mut Room, step: &Step) {
        if let Some(chat) = StampedChat::of(msg) {
            self.deliver(&chat, None, room, step);
        }
    }

    /// The same for one that may never have been a [`Message`]. Returns its place.
    fn deliver(
        &mut self,
        chat: &StampedChat,
        absent: Option<Absent>,
        room: &mut Room,
        step: &Step,
    ) -> Option<usize> {
        let mut json = mem::take(&mut self.json);
        let place = room.add_written(chat, &chat.write(&mut json), absent);
        if let Some(place) = place {
            let index = step.log.append_json(&json);
            room.message_history.wrote(index);
            self.note_unsynced(&room.room_id, index, place, json.len());
            self.touch(&room.room_id);
            if *chat.origin == self.incarnation {
                self.multicast(chat, &json, step.cm);
            } else {
                owe_confirmation(&mut self.to_confirm, &room.room_id, chat.origin);
            }
        }
        self.json = json;
        place
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
                    self.deliver_and_multicast(&msg, room, step);
                    delivered.push((origin, count));
                } else if count > room.clock.get(&origin) {
                    room.hold_back_queue.push(msg, &room.clock);
                }
            }
        }
    }

    /// Sends a stamped message, `json` in the log, to the other replicas of its room.
    pub fn multicast(&mut self, msg: &StampedChat, json: &[u8], cm: &dyn Transport) {
        let Some(replication) = self.replication.get_mut(msg.room_id) else { return };
        if replication.replicas.is_empty() {
            return;
        }
        let frame = Frame::from(json);
        let replicas = mem::take(&mut replication.replicas);
        for node_id in &replicas {
            cm.send_frame_to_node(node_id, &frame);
            replication.note_sent(node_id, msg.origin, msg.count);
        }
        replication.replicas = replicas;
    }

    /// Owes acknowledgements for messages of `room_id`.
    pub fn owe_acks(&mut self, room_id: &str, acks: impl IntoIterator<Item = PendingAck>) {
        let replication = self.replication(room_id);
        acks.into_iter().for_each(|ack| replication.owe(ack));
        self.touch(room_id);
    }

    /// Owes an acknowledgement on that was due and could not be sent: its session is being shown the past. The room is settled
    /// again when that is over.
    pub(super) fn keep_ack(&mut self, room_id: &str, ack: PendingAck) {
        self.replication(room_id).owe(ack);
    }

    /// How many acknowledgements `session` waits for in `room_id`.
    pub fn owed_acks(&self, room_id: &str) -> usize {
        self.replication.get(room_id).map_or(0, Replication::owed)
    }

    /// Takes out the next messages whose records are among those up to `index`.
    fn take_synced(&mut self, index: LogIndex) -> Option<Run> {
        let run = self.unsynced.front_mut()?;
        let records = (index + 1).checked_sub(run.first).filter(|records| *records > 0)?;
        let count = usize::try_from(records).unwrap_or(usize::MAX);
        if count >= run.places.len() { self.unsynced.pop_front() } else { Some(run.take(count)) }
    }

    /// Everything appended up to `index` is on this server's disk.
    pub fn on_synced(&mut self, index: LogIndex, rooms: &mut IndexMap<String, Room>) {
        while let Some(run) = self.take_synced(index) {
            let Some(room) = rooms.get(&run.room_id) else { continue };
            let mut replication = self.replication.get_mut(&run.room_id);
            for (origin, count) in room.message_history.last_stamps(run.places.clone()) {
                if let Some(replication) = &mut replication {
                    replication.synced.raise(origin, count);
                }
                if *origin != self.incarnation {
                    owe_confirmation(&mut self.to_confirm, &run.room_id, origin);
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

    /// `node_id` says how far it is with this server's own messages.
    pub fn handle_held(&mut self, node_id: &NodeId, Held { origin, rooms }: &Held) {
        for (room_id, count) in rooms {
            let Some(replication) = self.replication.get_mut(room_id) else { continue };
            replication.held.entry(node_id.clone()).or_default().raise(origin, count.held);
            replication.synced_by.entry(node_id.clone()).or_default().raise(origin, count.synced);
            self.touch(room_id);
        }
    }

    /// Forgets what `node_id` held: it may come back without it.
    pub fn forget_node(&mut self, node_id: &NodeId) {
        for replication in self.replication.values_mut() {
            replication.held.remove(node_id);
            replication.sent.remove(node_id);
            replication.synced_by.remove(node_id);
        }
    }

    /// What is due in `room`, when `live` are the other live servers.
    pub fn settle(&mut self, room: &Room, live: &BTreeSet<NodeId>) -> Settled {
        let replication = self.replication.get_mut(&room.room_id);
        replication
            .map_or_else(Settled::default, |known| known.settle(room, live, &self.incarnation))
    }

    /// Confirms to the servers that stamped them what was delivered and synced since the last call.
    pub fn send_confirmations(&mut self, rooms: &IndexMap<String, Room>, me: &NodeId, step: &Step) {
        for (origin, confirmed) in mem::take(&mut self.to_confirm) {
            let count_in = |room_id: &String| {
                let (room, known) = (rooms.get(room_id)?, self.replication.get(room_id)?);
                let (held, synced) = (room.clock.get(&origin), known.synced.get(&origin));
                Some(HeldCount { held, synced })
            };
            let mut counts = confirmed.into_iter().filter_map(|room_id| {
                let count = count_in(&room_id)?;
                Some((room_id, count))
            });
            loop {
                let rooms: BTreeMap<_, _> = counts.by_ref().take(CONFIRMED_MAX).collect();
                if rooms.is_empty() {
                    break;
                }
                let held = Held { origin: origin.clone(), rooms };
                let msg = Message::new(MessageType::Ack, me.as_str()).saying(&held);
                step.cm.send_to_node(&origin.node_id(), &msg);
            }
        }
    }
}

/// The messages of `origin` in `room_id` are to be confirmed.
fn owe_confirmation(to_confirm: &mut RoomsOf, room_id: &str, origin: &Incarnation) {
    let rooms = match to_confirm.get_mut(origin) {
        Some(rooms) => rooms,
        None => to_confirm.entry(origin.clone()).or_default(),
    };
    if !rooms.contains(room_id) {
        rooms.insert(room_id.into());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::transport::Outbox;
    use crate::storage::MemoryLog;
    use crate::testing::start;

    /// The first message of `n2` in `room_id`.
    fn chat(room_id: &str) -> Message {
        let mut msg = Message::new(MessageType::Chat, "alice").with_id("a-1").in_room(room_id);
        msg.content = "hello".into();
        msg.session = Some("s".into());
        msg.origin = Some("n2.1-0000".into());
        let mut clock = VectorClock::new();
        clock.raise(&"n2.1-0000".into(), 1);
        msg.vector_clock = Some(clock);
        msg
    }

    #[test]
    fn rooms_are_confirmed_together_as_many_as_fit_a_frame() {
        let (cm, log) = (Outbox::new(), MemoryLog::default());
        let step = Step { now: start(), wall_ms: 0, cm: &cm, log: &log };
        let mut handler = CausalMulticastHandler::new("n1.1-0000".into(), 1 << 20);
        let mut rooms = IndexMap::new();
        for at in 0..CONFIRMED_MAX + 2 {
            let room_id = format!("room{at:04}");
            let mut room = Room::new(&*room_id);
            let delivery = handler.handle_chat_message(chat(&room_id), &mut room, &step);
            assert_eq!(delivery, Delivery::Delivered);
            handler.replication(&room_id);
            rooms.insert(room_id, room);
        }
        handler.send_confirmations(&rooms, &"n1".into(), &step);
        handler.send_confirmations(&rooms, &"n1".into(), &step);
        let sent = cm.take_to_nodes();
        let held = sent.iter().map(|(to, msg)| {
            assert_eq!(to.as_ref(), Some(&"n2".into()));
            msg.content.parse::<Held>().unwrap()
        });
        let held: Vec<Held> = held.collect();
        let lens: Vec<usize> = held.iter().map(|held| held.rooms.len()).collect();
        assert_eq!(lens, [CONFIRMED_MAX, 2]);
        assert_eq!(held[1].origin, "n2.1-0000".into());
        assert_eq!(held[1].rooms["room1001"], HeldCount { held: 1, synced: 0 });
    }
}
