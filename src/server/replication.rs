//! What a replica knows of a room besides its messages: which servers hold what, what was shown, whom an answer is owed.
//!
//! ```text
//!   message_history   m1 m2 m3 m4 │ m5 m6 │ m7             m1 to m4: shown, on two disks, acknowledged
//!                              synced    shown               m5, m6: shown; their ACKs are owed
//!                                                            m7: no other server is known to hold it
//! ```
//!
//! [`multicast`](super::multicast) says what *held*, *shown* and *acknowledged* promise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::planted::{Planted, is_planted};
use crate::domain::{Incarnation, NodeId, Room, VectorClock};
use crate::network::ConnId;

/// Above so many places that may be due they are not looked at one by one.
const MANY_PLACES: usize = 64;

/// An acknowledgement that is owed to a client.
#[derive(Clone, Debug)]
pub struct PendingAck {
    /// Where the message stands in the room's history.
    pub place: usize,
    /// Who stamped it.
    pub origin: Incarnation,
    /// Its number among those of `origin`.
    pub count: u64,
    /// Whose message it is.
    pub asker: Arc<Asker>,
    /// Where its id stands in [`Asker::message_ids`].
    pub id: Range<usize>,
}

/// Who waits for acknowledgements of messages that came together. Each with texts of its own took a twentieth of a busy server's time.
#[derive(Debug)]
pub struct Asker {
    /// Whose messages they are.
    pub session: Arc<str>,
    /// The connection that brought them. A session that connects again sends them again, after it was shown the past.
    pub conn: ConnId,
    /// Their ids, one after the other.
    pub message_ids: String,
}

impl Asker {
    /// Who waits for the messages with these ids.
    pub fn new<'a>(
        session: &Arc<str>,
        conn: ConnId,
        message_ids: impl Iterator<Item = &'a str>,
    ) -> Self {
        let message_ids = message_ids.collect::<Vec<_>>().concat();
        Self { session: session.clone(), conn, message_ids }
    }
}

impl PendingAck {
    /// The id of the message.
    pub fn message_id(&self) -> &str {
        &self.asker.message_ids[self.id.clone()]
    }

    /// They are sent in the order of their messages. A message of one place has one key, and so one session.
    fn key(&self) -> (usize, ConnId) {
        (self.place, self.asker.conn)
    }
}

/// What [`Replication::settle`] found to be due.
#[derive(Debug, Default)]
pub struct Settled {
    /// The places to show now, repeats among them.
    pub shown: Range<usize>,
    /// What was shown before them. Means nothing when nothing is shown, which is most often: a clock is not copied for that.
    pub before: VectorClock,
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
    pub(super) last_stamp: VectorClock,
    /// Acknowledgements owed, sorted, each once.
    acks: VecDeque<PendingAck>,
}

impl Replication {
    /// Whether one of the servers `live` is known to hold what `origin` stamped with `count`.
    fn held_elsewhere(&self, live: &BTreeSet<NodeId>, origin: &Incarnation, count: u64) -> bool {
        live.is_empty() || count_of(&self.held, live, origin) >= count
    }

    /// How many messages of `origin` are on this server's disk, and on that of one of the servers `live` if there is any.
    fn count_synced(&self, live: &BTreeSet<NodeId>, origin: &Incarnation) -> u64 {
        let here = self.synced.get(origin);
        if live.is_empty() { here } else { here.min(count_of(&self.synced_by, live, origin)) }
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

    /// Owes `ack` from now on, if it does not already.
    pub(super) fn owe(&mut self, ack: PendingAck) {
        if self.acks.back().is_none_or(|last| last.key() < ack.key()) {
            self.acks.push_back(ack);
        } else if let Err(at) = self.acks.binary_search_by_key(&ack.key(), PendingAck::key) {
            self.acks.insert(at, ack);
        }
    }

    /// How many acknowledgements are owed.
    pub(super) fn owed(&self) -> usize {
        self.acks.len()
    }

    /// What is due in `room`, when `live` are the other live servers and this one stamps as `mine`: messages that enough
    /// servers hold, acknowledgements of those on enough disks.
    pub(super) fn settle(
        &mut self,
        room: &Room,
        live: &BTreeSet<NodeId>,
        mine: &Incarnation,
    ) -> Settled {
        let first = self.shown;
        let mut before = VectorClock::new();
        if room.message_history.len() - first > MANY_PLACES {
            before = self.shown_clock.clone();
            self.skip_held(room, live);
        }
        while self.shown < room.message_history.len() {
            let (origin, count) = room.stamp_at(self.shown);
            if !self.held_elsewhere(live, origin, count) {
                break;
            }
            if self.shown == first {
                before = self.shown_clock.clone();
            }
            self.shown_clock.raise(origin, count);
            self.shown += 1;
        }
        if self.target.as_ref().is_some_and(|target| room.clock.covers(target)) {
            self.target = None;
            self.caught_up = true;
        }
        let acked = self.take_due_acks(live, mine);
        Settled { shown: first..self.shown, before, acked }
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

    /// Takes out the acknowledgements that are due.
    fn take_due_acks(&mut self, live: &BTreeSet<NodeId>, mine: &Incarnation) -> Vec<PendingAck> {
        let mut due = Vec::new();
        let mut others = Vec::new();
        let own_synced = self.count_synced(live, mine);
        while let Some(ack) = self.acks.pop_front() {
            let is_own = ack.origin == *mine;
            let synced = if is_own { own_synced } else { self.count_synced(live, &ack.origin) };
            let is_synced = ack.count <= synced || is_planted(Planted::AckBeforeSync);
            if is_synced && ack.place < self.shown {
                due.push(ack);
                continue;
            }
            // Its own messages become due in order: the rest of them wait too.
            others.push(ack);
            if is_own {
                break;
            }
        }
        others.into_iter().rev().for_each(|ack| self.acks.push_front(ack));
        due
    }

    /// Whether `node_id` is known to hold everything that `room` holds here.
    pub fn is_covered_by(&self, node_id: &NodeId, room: &Room) -> bool {
        self.held.get(node_id).is_some_and(|held| held.covers(&room.clock))
    }
}

/// How many messages of `origin` one of the servers `live` has, by `clocks`.
fn count_of(
    clocks: &BTreeMap<NodeId, VectorClock>,
    live: &BTreeSet<NodeId>,
    origin: &Incarnation,
) -> u64 {
    let theirs = clocks.iter().filter(|(node_id, _)| live.contains(*node_id));
    theirs.map(|(_, clock)| clock.get(origin)).max().unwrap_or(0)
}
