//! The past of a room for one client, no faster than the client reads it.
//!
//! ```text
//!   message_history   0 … start ══════════ next ─ ─ ─ ─ shown        next reaches shown:
//!                          └ sent already    └ to be sent            the session is a live member
//! ```
//!
//! A joining session is shown the past before anything new. A long one goes out in portions that fit
//! the connection's queue, or the client would be cut off as slow before it had a chance to read. Until it has all
//! of it the session's own messages wait.
//!
//! All sessions together get one [`Portion`] a step, in turn: whoever waits for the node's lock waits for half a millisecond, and
//! not for the past of everyone who joins. When the portion is used up the shell steps again at once, and lets others in between.
//!
//! A session that entered with a *gap* has been shown messages that this server lacks. They may come later, by SYNC, and
//! are new to everyone here but that session. So what it had been shown is remembered until all of that can be shown here:
//! no message is shown to it of which any stamp is covered, and its positions never fall behind.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use super::ServerNode;
use super::read_back::{READ_MESSAGES, ReadMessages, Reader};
use super::rooms::{count_shown, delivered, is_covered, is_hidden};
use super::step::Step;
use crate::domain::{History, Message, Room, VectorClock};

/// How many messages of the past are looked at in one step. One takes about 2 µs.
const STEP_MESSAGES: usize = 256;
/// How long their frames may be together, in bytes; the last one may exceed it.
const STEP_BYTES: usize = 256 * 1024;

/// What may still be sent of the past in one step.
#[derive(Debug)]
pub(super) struct Portion {
    messages: usize,
    bytes: usize,
}

impl Portion {
    pub(super) fn of_a_step() -> Self {
        Self { messages: STEP_MESSAGES, bytes: STEP_BYTES }
    }

    /// Whether the rest is for another step.
    pub(super) fn is_used(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }

    /// A message was looked at.
    pub(super) fn take_message(&mut self) {
        self.messages = self.messages.saturating_sub(1);
    }

    /// It was sent in a frame of so many bytes.
    pub(super) fn take_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// A session, and the room whose past it is shown.
pub(super) type ReplayKey = (String, String);

/// Whose turn it is to be shown the past.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: ReplayKey,
    /// The last portion was used up, so that there may be more to send.
    is_due: bool,
}

impl Turns {
    /// Takes the replay behind the one that was taken last.
    pub(super) fn take<T>(
        &mut self,
        replays: &mut BTreeMap<ReplayKey, T>,
    ) -> Option<(ReplayKey, T)> {
        let behind = replays.range((Excluded(&self.last), Unbounded)).next();
        let (key, _) = behind.or_else(|| replays.first_key_value())?;
        self.last = key.clone();
        replays.remove_entry(&self.last)
    }

    /// A step has sent what it could of `replays`, and `portion` is left.
    pub(super) fn end<T>(&mut self, replays: &BTreeMap<ReplayKey, T>, portion: &Portion) {
        self.is_due = portion.is_used() && !replays.is_empty();
    }
}

/// What a session is still to be shown of a room's past.
#[derive(Clone, Debug)]
pub(super) struct Replay {
    /// The next place of the history.
    next: usize,
    /// What the messages before `next` count.
    position: VectorClock,
    /// What the session has been shown elsewhere, and is not to be shown again.
    after: Option<VectorClock>,
    /// What the session had been shown when this began: its position never falls behind it.
    base: VectorClock,
    /// Messages from `next` on that were read back.
    pub(super) read: ReadMessages,
}

impl Replay {
    /// The last `limit` messages shown in `room`, or all that `after` does not cover; and how many they are.
    fn new(room: &Room, shown: usize, limit: usize, after: Option<&VectorClock>) -> (Self, usize) {
        let history = &room.message_history;
        let next = match after {
            Some(after) => history.first_beyond(after).min(shown),
            None => history.last_before(shown, limit),
        };
        let none = VectorClock::new();
        let count = history.count_beyond(next, shown, after.unwrap_or(&none));
        (Self::at(next, history.clock_before(next), after), count)
    }

    /// From the place `next` on, before which `position` is counted.
    fn at(next: usize, position: VectorClock, after: Option<&VectorClock>) -> Self {
        let base = after.cloned().unwrap_or_default();
        Self { next, position, after: after.cloned(), base, read: ReadMessages::new() }
    }

    /// Whether the message at `place` is kept from the session.
    fn skips(&self, room: &Room, place: usize) -> bool {
        is_hidden(room, place) || is_covered(room, place, self.after.as_ref())
    }
}

/// The message at `place`, if it is in memory or among those that were `read` back; of these the ones before it go.
fn message_at<'a>(
    read: &'a mut ReadMessages,
    history: &'a History,
    place: usize,
) -> Option<Cow<'a, Message>> {
    while read.front().is_some_and(|(first, _)| *first < place) {
        read.pop_front();
    }
    let first = read.front().filter(|(first, _)| *first == place);
    first.map(|(_, msg)| Cow::Borrowed(msg)).or_else(|| history.get(place).map(Cow::Owned))
}

impl ServerNode {
    /// Prepares the past of `room_id` for `session`, to be sent when the step is settled. Returns how many
    /// messages that is. The session is a live member when it has them; until then, new messages queue
    /// up behind the past rather than among it.
    pub(super) fn start_replay(
        &mut self,
        session: &str,
        room_id: &str,
        limit: usize,
        after: Option<&VectorClock>,
    ) -> usize {
        let replication = self.causal_multicast_handler.replication_of(room_id);
        let room = self.managed_rooms.get_mut(room_id);
        let (Some(room), Some(replication)) = (room, replication) else { return 0 };
        let shown = replication.shown;
        let (mut replay, count) = Replay::new(room, shown, limit, after);
        if room.remove_client(session) {
            // A member that asks for the past again has been shown all of it.
            replay.base = replication.shown_clock.clone();
        }
        let gap = self.clients.get(session).and_then(|client| client.gaps.get(room_id));
        if let Some(gap) = gap {
            replay.base.merge(gap);
        }
        self.replays.insert((session.into(), room_id.into()), replay);
        count
    }

    /// `session` enters `room_id` without some of what `after` counts.
    pub(super) fn open_gap(&mut self, session: &str, room_id: &str, after: Option<&VectorClock>) {
        let Some(client) = self.clients.get_mut(session) else { return };
        client.gaps.entry(room_id.into()).or_default().merge(&after.cloned().unwrap_or_default());
    }

    /// Ends the gaps of `room_id` that can be shown by now.
    pub(super) fn close_gaps(&mut self, room_id: &str) {
        let replication = self.causal_multicast_handler.replication_of(room_id);
        let Some(shown) = replication.map(|replication| &replication.shown_clock) else { return };
        for client in self.clients.values_mut().filter(|client| !client.gaps.is_empty()) {
            if client.gaps.get(room_id).is_some_and(|gap| shown.covers(gap)) {
                client.gaps.remove(room_id);
            }
        }
    }

    /// Where `session`, which has just joined `room_id`, stands before it is sent the past.
    pub(super) fn position_of(&self, session: &str, room_id: &str) -> Option<VectorClock> {
        let replay = self.replays.get(&(session.to_string(), room_id.to_string()))?;
        let mut position = replay.position.clone();
        position.merge(&replay.base);
        Some(position)
    }

    /// Whether `session` has not been shown the past of `room_id` yet.
    pub(super) fn is_replaying(&self, session: &str, room_id: &str) -> bool {
        // A tuple of borrowed texts cannot be looked up in a map of owned ones; there are few replays.
        let is_it = |(s, r): &(String, String)| s == session && r == room_id;
        self.replays.keys().any(is_it)
            || self.ordered.as_ref().is_some_and(|ordered| ordered.replays.keys().any(is_it))
    }

    /// The messages of `room_id` from `first` on are due, and not all in memory: its members here, who have been shown what
    /// `before` counts, are shown them as the past.
    pub(super) fn show_as_past(&mut self, room_id: &str, first: usize, before: &VectorClock) {
        let Some(room) = self.managed_rooms.get_mut(room_id) else { return };
        for session in std::mem::take(&mut room.client_ids) {
            let gap = self.clients.get(&session).and_then(|client| client.gaps.get(room_id));
            let replay = Replay::at(first, before.clone(), gap);
            self.replays.insert((session, room_id.into()), replay);
        }
    }

    /// Ends the replays of `session`: of one room, or of all.
    pub(super) fn end_replays(&mut self, session: &str, room_id: Option<&str>) {
        let stays =
            |(s, r): &(String, String)| s != session || room_id.is_some_and(|room_id| r != room_id);
        for (_, room_id) in self.replays.keys().filter(|key| !stays(key)) {
            // Acknowledgements may have waited for this.
            self.causal_multicast_handler.touch(room_id);
        }
        self.replays.retain(|key, _| stays(key));
        if let Some(ordered) = &mut self.ordered {
            ordered.end_replays(stays);
        }
    }

    /// Whether another step could do more at once: send more of the past, or apply more of what is committed.
    pub fn has_more_to_do(&self) -> bool {
        let has_committed = || self.ordered.as_ref().is_some_and(|it| it.order.has_committed());
        self.replay_turns.is_due || has_committed()
    }

    /// Sends what fits into one step, each replay in turn.
    pub(super) fn pump_replays(&mut self, step: &Step) {
        let mut portion = Portion::of_a_step();
        for _ in 0..self.replays.len() {
            if portion.is_used() {
                break;
            }
            let Some((key, mut replay)) = self.replay_turns.take(&mut self.replays) else { break };
            if !self.pump(&key.0, &key.1, &mut replay, &mut portion, step) {
                self.replays.insert(key, replay);
            }
        }
        self.replay_turns.end(&self.replays, &portion);
    }

    /// Sends what fits of one replay. True when it is over.
    fn pump(
        &mut self,
        session: &str,
        room_id: &str,
        replay: &mut Replay,
        portion: &mut Portion,
        step: &Step,
    ) -> bool {
        let shown =
            self.causal_multicast_handler.replication_of(room_id).map_or(0, |known| known.shown);
        let Some(room) = self.managed_rooms.get_mut(room_id) else { return true };
        let Some(client) = self.clients.get(session) else { return true };
        let mut spare = step.cm.spare_bytes(client.conn);
        let mut read = std::mem::take(&mut replay.read);
        while replay.next < shown && spare > 0 && !portion.is_used() {
            let place = replay.next;
            let skips = replay.skips(room, place);
            let msg = message_at(&mut read, &room.message_history, place);
            if msg.is_none() && !skips {
                let reader = Reader::Session { session: session.into(), room_id: room_id.into() };
                if !self.read_back.is_reading(&reader) {
                    let released = place..shown.min(room.message_history.first_in_memory());
                    let wanted = released.filter(|place| !replay.skips(room, *place));
                    let wanted = wanted.take(READ_MESSAGES);
                    self.read_back.ask(reader, &room.message_history, wanted, step);
                }
                break;
            }
            replay.next += 1;
            portion.take_message();
            count_shown(room, place, &mut replay.position);
            let Some(msg) = msg.filter(|_| !skips) else { continue };
            let mut position = replay.position.clone();
            position.merge(&replay.base);
            let frame = delivered(&msg, &position);
            spare = spare.saturating_sub(frame.len());
            portion.take_bytes(frame.len());
            step.cm.send_to_conn(client.conn, &frame);
        }
        replay.read = read;
        if replay.next < shown {
            return false;
        }
        room.add_client(session);
        // The session's own messages may have waited for this, and its acknowledgements.
        step.cm.resume(client.conn);
        self.causal_multicast_handler.touch(room_id);
        true
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
