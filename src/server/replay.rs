//! The past of a room for one client, no faster than the client reads it.
//!
//! ```text
//!   message_history   0 … start ══════════ next ─ ─ ─ ─ shown        next reaches shown:
//!                          └ sent already    └ to be sent            the session is a live member
//! ```
//!
//! A joining session is shown the past before anything new. A long one goes out in portions that fit one
//! step and the connection's queue, or the client would be cut off as slow before it had a chance to read. Until it has all
//! of it the session's own messages wait.
//!
//! A session that entered with a *gap* has been shown messages that this server lacks. They may come later, by SYNC, and
//! are new to everyone here but that session. So what it had been shown is remembered until all of that can be shown here:
//! no message is shown to it of which any stamp is covered, and its positions never fall behind.

use super::ServerNode;
use super::rooms::{count_shown, delivered, is_covered, is_hidden};
use super::step::Step;
use crate::domain::{Room, VectorClock};

/// How many messages one session is sent in one step: the server has others to serve meanwhile, and its own
/// heartbeats to send. With a tick every 50 ms these are 40,000 a second.
const PORTION_MESSAGES: usize = 2000;

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
}

impl Replay {
    /// The last `limit` messages shown in `room`, or all that `after` does not cover; and how many they are.
    fn new(
        room: &Room,
        shown: usize,
        shown_clock: &VectorClock,
        limit: usize,
        after: Option<&VectorClock>,
    ) -> (Self, usize) {
        let mut position = shown_clock.clone();
        let (mut next, mut count) = (shown, 0);
        while next > 0 && count < limit && !after.is_some_and(|after| after.covers(&position)) {
            next -= 1;
            let (origin, stamp) = room.stamp_at(next);
            match stamp {
                1 => drop(position.timestamps.remove(origin)),
                _ => drop(position.timestamps.insert(origin.clone(), stamp - 1)),
            }
            count += usize::from(!room.is_repeat(next) && !is_covered(room, next, after));
        }
        let base = after.cloned().unwrap_or_default();
        (Self { next, position, after: after.cloned(), base }, count)
    }
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
        let (mut replay, count) = Replay::new(room, shown, &replication.shown_clock, limit, after);
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

    /// Ends the replays of `session`: of one room, or of all.
    pub(super) fn end_replays(&mut self, session: &str, room_id: Option<&str>) {
        let stays =
            |(s, r): &(String, String)| s != session || room_id.is_some_and(|room_id| r != room_id);
        self.replays.retain(|key, _| stays(key));
        if let Some(ordered) = &mut self.ordered {
            ordered.replays.retain(|key, _| stays(key));
        }
    }

    /// Sends what fits of all replays.
    pub(super) fn pump_replays(&mut self, step: &Step) {
        if self.replays.is_empty() {
            return;
        }
        for (key, mut replay) in std::mem::take(&mut self.replays) {
            if !self.pump(&key.0, &key.1, &mut replay, step) {
                self.replays.insert(key, replay);
            }
        }
    }

    /// Sends what fits of one replay. True when it is over.
    fn pump(&mut self, session: &str, room_id: &str, replay: &mut Replay, step: &Step) -> bool {
        let shown =
            self.causal_multicast_handler.replication_of(room_id).map_or(0, |known| known.shown);
        let Some(room) = self.managed_rooms.get_mut(room_id) else { return true };
        let Some(client) = self.clients.get(session) else { return true };
        let mut spare = step.cm.spare_bytes(client.conn);
        let end = shown.min(replay.next + PORTION_MESSAGES);
        while replay.next < end && spare > 0 {
            let place = replay.next;
            replay.next += 1;
            count_shown(room, place, &mut replay.position);
            if is_hidden(room, place) || is_covered(room, place, replay.after.as_ref()) {
                continue;
            }
            let mut position = replay.position.clone();
            position.merge(&replay.base);
            let frame = delivered(&room.message_history[place], &position);
            spare = spare.saturating_sub(frame.len());
            step.cm.send_to_conn(client.conn, &frame);
        }
        if replay.next < shown {
            return false;
        }
        room.add_client(session);
        // The session's own messages may have waited for this.
        step.cm.resume(client.conn);
        true
    }
}
