//! The messages of all rooms, in order: raft-messaging.txt's `MessageStorage`.
//!
//! ```text
//!   lobby:  12 said   15 said   16 gone   20 deletion of 16   21 said
//!                               └─ a tombstone: the place stays, who said it stays, the text is gone
//! ```
//!
//! A place goes away only with all that stand before it, so positions that clients were given hold. A deletion has a place of
//! its own: a client that comes back learns what was deleted while it was away, like what was said.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::content::RoomStatistics;
use crate::domain::{Content, MessageType};
use crate::server::total_order::{Entry, Seq};

/// What stands at a place of a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// A message.
    Said(Entry),
    /// The tombstone of one.
    Gone {
        /// Who said it when: its type is DELETE, and it has no content.
        entry: Entry,
        /// The place of the deletion.
        by: Seq,
    },
    /// The deletion of another place's message.
    Deletion {
        /// This place.
        seq: Seq,
        /// The place whose message is gone.
        of: Seq,
    },
}

impl Place {
    /// Which place it is.
    pub fn seq(&self) -> Seq {
        match self {
            Self::Said(entry) | Self::Gone { entry, .. } => entry.seq.unwrap_or_default(),
            Self::Deletion { seq, .. } => *seq,
        }
    }

    /// The place of the message that it is about: this one, or the one that is deleted.
    pub fn about(&self) -> Seq {
        match self {
            Self::Deletion { of, .. } => *of,
            _ => self.seq(),
        }
    }

    /// The message, unless it is deleted.
    pub fn message(&self) -> Option<&Entry> {
        match self {
            Self::Said(entry) => Some(entry),
            _ => None,
        }
    }
}

/// One room.
#[derive(Clone, Debug, Default)]
struct Room {
    places: Vec<Place>,
    messages: u64,
    /// Of their texts.
    bytes: u64,
    /// Who said how many of them.
    senders: BTreeMap<String, u64>,
    last_ms: Option<u64>,
    /// Its last place that is not kept any more; 0 when all are.
    forgotten: Seq,
}

impl Room {
    /// A message of `entry`'s text and sender is not counted any more.
    fn uncount(&mut self, entry: &Entry) {
        self.messages -= 1;
        self.bytes -= entry.content.text().len() as u64;
        if let Some(count) = self.senders.get_mut(&entry.sender_id) {
            *count -= 1;
            if *count == 0 {
                self.senders.remove(&entry.sender_id);
            }
        }
    }
}

/// Every message, by room, by place and by id.
#[derive(Clone, Debug, Default)]
pub struct MessageStorage {
    /// The `ReplicatedDict`: id to places. Two sessions may use one id.
    messages: BTreeMap<String, Vec<Seq>>,
    /// The `ReplicatedList`: in order. A message that is deleted stays as its tombstone.
    message_index: Vec<Entry>,
    rooms: BTreeMap<String, Room>,
    deleted: u64,
}

impl MessageStorage {
    /// Keeps `entry`, a CHAT, at the end of its room.
    pub(super) fn store(&mut self, seq: Seq, entry: Entry) {
        let room = self.rooms.entry(entry.room_id.clone()).or_default();
        room.messages += 1;
        room.bytes += entry.content.text().len() as u64;
        room.last_ms = entry.timestamp;
        *room.senders.entry(entry.sender_id.clone()).or_default() += 1;
        room.places.push(Place::Said(entry.clone()));
        self.messages.entry(entry.message_id.clone()).or_default().push(seq);
        self.message_index.push(entry);
    }

    /// Deletes the message at `place`; the deletion stands at `seq`. False when it is gone already.
    pub(super) fn delete(&mut self, place: Seq, seq: Seq) -> bool {
        let Ok(at) = self.index_of(place) else { return false };
        let entry = self.message_index[at].clone();
        let Some(room) = self.rooms.get_mut(&entry.room_id) else { return false };
        let Ok(in_room) = room.places.binary_search_by_key(&place, Place::seq) else {
            return false;
        };
        if entry.message_type == MessageType::Delete {
            return false;
        }
        room.uncount(&entry);
        let mut tombstone = (*entry).clone();
        (tombstone.message_type, tombstone.content) = (MessageType::Delete, Content::Empty);
        let tombstone: Entry = Arc::new(tombstone);
        room.places[in_room] = Place::Gone { entry: tombstone.clone(), by: seq };
        room.places.push(Place::Deletion { seq, of: place });
        self.message_index[at] = tombstone;
        self.deleted += 1;
        true
    }

    /// Forgets the places up to `seq`, and later deletions of what stood there.
    pub(super) fn forget_up_to(&mut self, seq: Seq) {
        let kept = self.message_index.partition_point(|entry| entry.seq <= Some(seq));
        for entry in self.message_index.drain(..kept) {
            if let Some(places) = self.messages.get_mut(&entry.message_id) {
                places.retain(|place| *place > seq);
                if places.is_empty() {
                    self.messages.remove(&entry.message_id);
                }
            }
        }
        for room in self.rooms.values_mut() {
            let kept = room.places.partition_point(|place| place.seq() <= seq);
            for place in room.places.drain(..kept).collect::<Vec<_>>() {
                room.forgotten = place.seq();
                match place {
                    Place::Said(entry) => room.uncount(&entry),
                    Place::Gone { .. } => self.deleted -= 1,
                    Place::Deletion { .. } => {}
                }
            }
            if kept > 0 {
                room.places.retain(|place| place.about() > seq);
            }
        }
    }

    /// The last place of `room_id` that is not kept any more; 0 when all are.
    pub fn forgotten(&self, room_id: &str) -> Seq {
        self.rooms.get(room_id).map_or(0, |room| room.forgotten)
    }

    /// The rooms of which not all is kept, with the last place that is not.
    pub(super) fn all_forgotten(&self) -> impl Iterator<Item = (&String, Seq)> {
        let rooms = self.rooms.iter().map(|(room_id, room)| (room_id, room.forgotten));
        rooms.filter(|(_, seq)| *seq > 0)
    }

    /// Takes from a snapshot that the places of `room_id` up to `seq` are not kept any more.
    pub(super) fn restore_forgotten(&mut self, room_id: String, seq: Seq) {
        self.rooms.entry(room_id).or_default().forgotten = seq;
    }

    /// The last place whose message was said before `since_ms`; 0 when none was.
    pub fn last_before(&self, since_ms: u64) -> Seq {
        let before = self.message_index.partition_point(|entry| entry.timestamp < Some(since_ms));
        let last = before.checked_sub(1).and_then(|at| self.message_index.get(at));
        last.and_then(|entry| entry.seq).unwrap_or(0)
    }

    /// Takes a place of a snapshot, the room's next one.
    pub(super) fn restore(&mut self, room_id: &str, place: Place) {
        match place {
            Place::Said(entry) => self.store(entry.seq.unwrap_or_default(), entry),
            Place::Gone { entry, by } => {
                let seq = entry.seq.unwrap_or_default();
                self.messages.entry(entry.message_id.clone()).or_default().push(seq);
                self.deleted += 1;
                let room = self.rooms.entry(room_id.into()).or_default();
                room.last_ms = entry.timestamp;
                room.places.push(Place::Gone { entry: entry.clone(), by });
                self.message_index.push(entry);
            }
            Place::Deletion { .. } => {
                self.rooms.entry(room_id.into()).or_default().places.push(place);
            }
        }
    }

    /// Puts what was restored room by room into the one order.
    pub(super) fn sort(&mut self) {
        self.message_index.sort_by_key(|entry| entry.seq);
        self.messages.values_mut().for_each(|places| places.sort_unstable());
    }

    fn index_of(&self, place: Seq) -> Result<usize, usize> {
        self.message_index.binary_search_by_key(&Some(place), |entry| entry.seq)
    }

    /// The message at `place`, or its tombstone.
    pub fn at(&self, place: Seq) -> Option<&Entry> {
        self.index_of(place).ok().map(|at| &self.message_index[at])
    }

    /// The messages with this id, and the tombstones of such.
    pub fn with_id(&self, message_id: &str) -> impl Iterator<Item = &Entry> {
        let places = self.messages.get(message_id).into_iter().flatten();
        places.filter_map(|place| self.at(*place))
    }

    /// The first message with this id that is not deleted.
    pub fn get(&self, message_id: &str) -> Option<&Entry> {
        self.with_id(message_id).find(|entry| entry.message_type == MessageType::Chat)
    }

    /// Every message, in order, with the tombstones of those that were deleted.
    pub fn all(&self) -> &[Entry] {
        &self.message_index
    }

    /// The places of `room_id`, in order.
    pub fn places(&self, room_id: &str) -> &[Place] {
        self.rooms.get(room_id).map_or(&[], |room| room.places.as_slice())
    }

    /// The messages of `room_id` from `since_ms` on that come after the place `after`, in order.
    pub fn since(&self, room_id: &str, since_ms: u64, after: Seq) -> impl Iterator<Item = &Entry> {
        let places = self.places(room_id);
        let first = places.partition_point(|place| place.seq() <= after);
        // Times never run backwards here, but a deletion has none.
        let messages = places[first..].iter().filter_map(Place::message);
        messages.skip_while(move |entry| entry.timestamp < Some(since_ms))
    }

    /// How many messages `room_id` has, deleted ones not counted.
    pub fn count(&self, room_id: &str) -> u64 {
        self.rooms.get(room_id).map_or(0, |room| room.messages)
    }

    /// How many were deleted.
    pub fn deleted(&self) -> u64 {
        self.deleted
    }

    /// The rooms in which something was said, by name.
    pub fn rooms(&self) -> impl Iterator<Item = &String> {
        self.rooms.keys()
    }

    /// Each room in numbers, by name.
    pub fn room_statistics(&self) -> Vec<RoomStatistics> {
        let rooms = self.rooms.iter().filter(|(_, room)| !room.places.is_empty());
        let rooms = rooms.map(|(room_id, room)| RoomStatistics {
            room_id: room_id.clone(),
            messages: room.messages,
            bytes: room.bytes,
            senders: room.senders.len() as u64,
            members: 0,
            last_ms: room.last_ms,
        });
        rooms.collect()
    }
}
