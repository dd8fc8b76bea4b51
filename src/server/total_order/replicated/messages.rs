//! The messages of all rooms, in order: raft-messaging.txt's `MessageStorage`.
//!
//! ```text
//!   lobby:  12 said   15 said   16 gone   20 deletion of 16   21 said
//!                               └─ a tombstone: the place stays, who said it stays, the text is gone
//! ```
//!
//! A place goes away only with all that stand before it, so positions that clients were given hold. A deletion has a place of
//! its own: a client that comes back learns what was deleted while it was away, like what was said.
//!
//! **Memory.** All of it is kept there, but not as [`Message`]s: a room's messages are rows in blocks, the old ones compressed, beside
//! columns of numbers (`packed`, `room`, `ids`, `times`). A message is made from its row when someone wants to see it.
//! A million messages of 64 letters from 256 sessions in one room take 80 bytes each (words of a language) or 114 (letters drawn by lot),
//! and 87 in 64 rooms; as messages, in B-trees, they took 800. To apply one takes 1.1 to 1.7 µs on two busy cores, half of it for the
//! compression; it took 3.1 to 4.3.
//!
//! Leaves out: messages on disk alone. What is read often (the end of a room) is not compressed; the rest is, a block at a time.

use std::collections::BTreeMap;

use times::Times;

use crate::domain::content::RoomStatistics;
use crate::domain::{Message, MessageType};
use crate::server::total_order::{Entry, Seq};

mod ids;
mod room;
mod times;

pub(super) use room::RoomHistory;
pub use room::{Place, Room};

/// Every message, by room, by place and by id.
#[derive(Clone, Debug, Default)]
pub struct MessageStorage {
    rooms: BTreeMap<String, Room>,
    /// When what was said, in all rooms.
    times: Times,
    /// How many messages and tombstones are kept.
    len: u64,
    deleted: u64,
}

impl MessageStorage {
    /// Keeps `msg`, a CHAT, at the end of its room, with the timestamp `ms`.
    pub(super) fn store(&mut self, seq: Seq, msg: &Message, ms: u64) {
        self.times.push(ms, seq);
        self.len += 1;
        self.room_mut(&msg.room_id).store(seq, msg, Some(ms));
    }

    fn room_mut(&mut self, room_id: &str) -> &mut Room {
        if !self.rooms.contains_key(room_id) {
            self.rooms.insert(room_id.into(), Room::default());
        }
        self.rooms.get_mut(room_id).expect("it is there, since above at the latest")
    }

    /// Deletes the message at `place` of `room_id`; the deletion stands at `seq`. False when it is gone already.
    pub(super) fn delete(&mut self, room_id: &str, place: Seq, seq: Seq) -> bool {
        let deleted = self.rooms.get_mut(room_id).is_some_and(|room| room.delete(place, seq));
        self.deleted += u64::from(deleted);
        deleted
    }

    /// Forgets the places up to `seq`, and later deletions of what stood there.
    pub(super) fn forget_up_to(&mut self, seq: Seq) {
        for room in self.rooms.values_mut() {
            let (messages, tombstones) = room.forget_up_to(seq);
            self.len -= messages + tombstones;
            self.deleted -= tombstones;
        }
        self.times.forget_up_to(seq);
    }

    /// The last place of `room_id` that is not kept any more; 0 when all are.
    pub fn forgotten(&self, room_id: &str) -> Seq {
        self.rooms.get(room_id).map_or(0, Room::forgotten)
    }

    /// Takes from a snapshot that the places of `room_id` up to `seq` are not kept any more.
    pub(super) fn restore_forgotten(&mut self, room_id: &str, seq: Seq) {
        self.room_mut(room_id).restore_forgotten(seq);
    }

    /// The last place whose message was said before `since_ms`; 0 when none was.
    pub fn last_before(&self, since_ms: u64) -> Seq {
        self.times.last_before(since_ms)
    }

    /// Takes a place of a snapshot, the room's next one. `msg` is its message or its tombstone. The error says why it cannot be.
    pub(super) fn restore(
        &mut self,
        room_id: &str,
        place: Place,
        msg: Option<&Message>,
    ) -> Result<(), String> {
        let room = self.room_mut(room_id);
        let (seq, last) = (place.seq(), room.last());
        if seq <= last {
            return Err(format!("the place {seq} of {room_id} stands behind {last}"));
        }
        match (place, msg) {
            (Place::Deletion { of, .. }, _) => room.restore_deletion(seq, of),
            (_, None) => return Err(format!("the place {seq} of {room_id} has no message")),
            (Place::Said(_), Some(msg)) => room.store(seq, msg, msg.timestamp),
            (Place::Gone { by, .. }, Some(tombstone)) => {
                room.restore_gone(seq, by, tombstone);
                self.deleted += 1;
            }
        }
        self.len += u64::from(msg.is_some());
        Ok(())
    }

    /// Takes from a snapshot when the messages at these places were said.
    pub(super) fn restore_times(&mut self, mut places: Vec<(Seq, u64)>) {
        places.sort_unstable();
        for (seq, ms) in places {
            self.times.push(ms, seq);
        }
    }

    /// The first message with this id that is not deleted.
    pub fn get(&self, message_id: &str) -> Option<Message> {
        let found = self.rooms.values().flat_map(|room| room.with_id(message_id));
        let found = found.filter(|msg| msg.message_type == MessageType::Chat);
        found.min_by_key(|msg| msg.seq)
    }

    /// Every message, in order, with the tombstones of those that were deleted. All of them at once: for a history that is small.
    pub fn all(&self) -> Vec<Entry> {
        let mut all = Vec::new();
        for room in self.rooms.values() {
            room.history().visit(|_, msg| all.extend(msg.map(Entry::new)));
        }
        all.sort_by_key(|entry| entry.seq);
        all
    }

    /// How many messages are kept, tombstones counted.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The room `room_id`, if something was said there.
    pub fn room(&self, room_id: &str) -> Option<&Room> {
        self.rooms.get(room_id)
    }

    /// Shows `visit` the messages of `room_id` from `since_ms` on that come after the place `after`, in order, as long as it says so.
    pub fn visit_since(
        &self,
        room_id: &str,
        since_ms: u64,
        after: Seq,
        visit: impl FnMut(Message) -> bool,
    ) {
        if let Some(room) = self.room(room_id) {
            room.visit_after(after.max(self.last_before(since_ms)), visit);
        }
    }

    /// How many messages `room_id` has, deleted ones not counted.
    pub fn count(&self, room_id: &str) -> u64 {
        self.rooms.get(room_id).map_or(0, Room::messages)
    }

    /// How many were deleted.
    pub fn deleted(&self) -> u64 {
        self.deleted
    }

    /// The rooms in which something was said, by name.
    pub fn rooms(&self) -> impl Iterator<Item = (&String, &Room)> {
        self.rooms.iter()
    }

    /// Each room in numbers, by name.
    pub fn room_statistics(&self) -> Vec<RoomStatistics> {
        let rooms = self.rooms.iter().filter(|(_, room)| !room.is_empty());
        rooms.map(|(room_id, room)| room.statistics(room_id)).collect()
    }
}

#[cfg(test)]
mod tests;
