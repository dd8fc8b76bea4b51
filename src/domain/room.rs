//! A room as one replica keeps it: what was delivered, in order, and what waits for its causal past.
//!
//! ```text
//!                      ready?            delivered, in a causal order
//!   CHAT ──▶ hold_back_queue ──▶ message_history: m1 m2 m3 …   clock = {n1:2, n2:1}
//!                                 by origin:  n1 → [0, 2]  n2 → [1]
//! ```
//!
//! Two replicas may keep concurrent messages in different orders; each order is causal, and equal clocks
//! mean equal sets. A message that a client sent again through another server may carry two stamps: both
//! advance the clock, and the second one is kept as a *repeat*, which is never shown.
//!
//! Memory: the history keeps about 20 bytes a message, and the last messages themselves ([`super::history`]).
//!
//! Source: class-diagram.txt, `Room`.

use std::sync::Arc;

use super::history::{Absent, History, Outlines};
use super::hold_back::HoldBackQueue;
use super::ids::{Incarnation, NodeId};
use super::message::Message;
use super::stamped_chat::{StampedChat, WrittenChat};
use super::vector_clock::VectorClock;

/// A room: its members here, its messages, and its causal time.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// The room's name.
    pub room_id: String,
    /// The sessions in the room that are connected to this server, sorted: each CHAT asks whether its session is one.
    pub client_ids: Vec<String>,
    /// Every delivered message, repeats included, in the order of delivery.
    pub message_history: History,
    /// Messages whose causal past is not here yet.
    pub hold_back_queue: HoldBackQueue,
    /// The server named in `room_locations`, once known.
    pub host: Option<NodeId>,
    /// What was delivered: everything stamped 1..n by each incarnation.
    pub clock: VectorClock,
    /// The latest timestamp of a delivered message, in milliseconds since 1970; 0 before the first.
    pub latest_timestamp_ms: u64,
}

impl Room {
    /// An empty room.
    pub fn new(room_id: impl Into<String>) -> Self {
        Self { room_id: room_id.into(), ..Self::default() }
    }

    /// The diagram's `copy`: an independent room with the same content.
    #[must_use]
    pub fn copy(&self) -> Self {
        self.clone()
    }

    /// Makes the session `client_id` a member here; false when it was one already.
    pub fn add_client(&mut self, client_id: &str) -> bool {
        let place = self.client_ids.binary_search_by(|id| id.as_str().cmp(client_id));
        if let Err(place) = place {
            self.client_ids.insert(place, client_id.into());
        }
        place.is_err()
    }

    /// Whether the session `client_id` is a member here.
    pub fn has_client(&self, client_id: &str) -> bool {
        self.client_ids.binary_search_by(|id| id.as_str().cmp(client_id)).is_ok()
    }

    /// Ends the membership of the session `client_id`; false when it was none.
    pub fn remove_client(&mut self, client_id: &str) -> bool {
        let place = self.client_ids.binary_search_by(|id| id.as_str().cmp(client_id));
        place.map(|place| self.client_ids.remove(place)).is_ok()
    }

    /// Delivers `msg`: it enters the history and the clock counts it. Returns its place, or `None` when it
    /// is not the next message of its origin, which the caller's readiness check rules out.
    pub fn add_message(&mut self, msg: Arc<Message>) -> Option<usize> {
        let (chat, mut json) = (StampedChat::of(&msg)?, Vec::new());
        self.add_written(&chat, &chat.write(&mut json), None)
    }

    /// [`add_message`](Self::add_message) of `chat`, which was `written` already. `absent` says that it is no repeat, if that is known.
    pub fn add_written(
        &mut self,
        chat: &StampedChat,
        written: &WrittenChat,
        absent: Option<Absent>,
    ) -> Option<usize> {
        let place = match absent {
            Some(absent) => self.message_history.push_absent(written, absent)?,
            None => self.message_history.push(written)?,
        };
        self.clock.raise(chat.origin, chat.count);
        self.latest_timestamp_ms = self.latest_timestamp_ms.max(chat.timestamp.unwrap_or_default());
        Some(place)
    }

    /// Delivers what a part of the log held, behind `before` records: as [`add_message`](Self::add_message), but the
    /// messages themselves stay on disk, and are found by their keys after [`recovered`](Self::recovered).
    pub fn recover(&mut self, outlines: &Outlines, before: u64) {
        let latest_ms = self.message_history.push_outlines(outlines, before);
        for origin in outlines.origins() {
            self.clock.raise(origin, self.message_history.count_of(origin));
        }
        self.latest_timestamp_ms = self.latest_timestamp_ms.max(latest_ms);
    }

    /// Everything that the log held was handed to [`recover`](Self::recover).
    pub fn recovered(&mut self) {
        self.message_history.index();
    }

    /// The place that is shown of the message with this key; `None` when it was never delivered here.
    pub fn place_of(&self, session: &str, message_id: &str) -> Option<usize> {
        self.message_history.place_of(session, message_id)
    }

    /// Whether the message at `place` repeats an earlier one under another stamp: it is never shown.
    pub fn is_repeat(&self, place: usize) -> bool {
        self.message_history.is_repeat(place)
    }

    /// The stamp of the message at `place`.
    pub fn stamp_at(&self, place: usize) -> (&Incarnation, u64) {
        self.message_history.stamp_at(place)
    }

    /// The places of at most `limit` messages that someone at `have` lacks, in delivery order; together
    /// with `have` they leave no causal gap.
    pub fn lacking(&self, have: &VectorClock, limit: usize) -> Vec<usize> {
        self.message_history.lacking(have, limit)
    }

    /// How many messages people see: those delivered, repeats not counted.
    pub fn message_count(&self) -> u64 {
        self.message_history.shown_count() as u64
    }

    /// Whether nothing would be lost with the room: no member, no message, nothing waiting.
    pub fn is_empty(&self) -> bool {
        self.client_ids.is_empty()
            && self.message_history.is_empty()
            && self.hold_back_queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    /// A CHAT `id` of session `s`, the `count`-th of `origin`.
    fn chat(origin: &str, count: u64, id: &str) -> Arc<Message> {
        let mut chat = Message::new(MessageType::Chat, "alice").with_id(id).in_room("lobby");
        chat.session = Some("s".into());
        chat.origin = Some(origin.into());
        let mut clock = VectorClock::new();
        clock.raise(&origin.into(), count);
        chat.vector_clock = Some(clock);
        chat.into()
    }

    #[test]
    fn members_come_once_and_go() {
        let mut room = Room::new("lobby");
        assert!(room.add_client("s1"));
        assert!(!room.add_client("s1"));
        assert!(room.remove_client("s1"));
        assert!(!room.remove_client("s1"));
        assert!(room.is_empty());
    }

    #[test]
    fn only_the_next_message_of_an_origin_is_taken() {
        let mut room = Room::new("lobby");
        assert_eq!(room.add_message(chat("a", 2, "x")), None);
        assert_eq!(room.add_message(chat("a", 1, "x")), Some(0));
        assert_eq!(room.add_message(chat("a", 1, "x")), None);
        assert_eq!(room.clock.get(&"a".into()), 1);
    }

    #[test]
    fn a_second_stamp_is_a_repeat_and_both_are_found() {
        let mut room = Room::new("lobby");
        room.add_message(chat("a", 1, "x"));
        room.add_message(chat("b", 1, "x"));
        room.add_message(chat("b", 2, "y"));
        assert_eq!(room.place_of("s", "x"), Some(0));
        assert!(!room.is_repeat(0) && room.is_repeat(1) && !room.is_repeat(2));
        assert_eq!(room.message_count(), 2);
    }

    #[test]
    fn what_a_clock_lacks_comes_in_delivery_order_and_no_more_than_asked() {
        let mut room = Room::new("lobby");
        for (origin, count, id) in [("a", 1, "1"), ("b", 1, "2"), ("a", 2, "3"), ("b", 2, "4")] {
            room.add_message(chat(origin, count, id));
        }
        let mut have = VectorClock::new();
        assert_eq!(room.lacking(&have, 10), [0, 1, 2, 3]);
        assert_eq!(room.lacking(&have, 3), [0, 1, 2]);
        have.raise(&"a".into(), 1);
        have.raise(&"b".into(), 9);
        assert_eq!(room.lacking(&have, 10), [2]);
    }

    #[test]
    fn a_copy_is_independent() {
        let mut room = Room::new("lobby");
        let copy = room.copy();
        room.add_message(chat("a", 1, "x"));
        assert_eq!((room.message_count(), copy.message_count()), (1, 0));
    }
}
