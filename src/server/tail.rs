//! Which messages of the rooms are in memory: the last ones, of all rooms together.
//!
//! ```text
//!   delivered ──▶ appended ──▶ synced ──▶ [lobby 7][ops 3][lobby 8] ‥ [lobby 9]
//!                                          └ when these are too many bytes, the oldest goes: its room reads it back when it is wanted
//! ```
//!
//! One bound for all rooms, so that ten thousand of them take no more memory than one. The price: what was said last in
//! a room where little is said may be on disk alone.

use std::collections::{BTreeMap, VecDeque};

use super::multicast::Replication;
use crate::domain::{Message, Room};

/// What a message takes besides its texts, about, in bytes: itself, its stamp, and what the allocator adds.
const MESSAGE_BYTES: usize = 600;

/// The synced messages that are still in memory, in the order of the log; see the module.
#[derive(Debug)]
pub(super) struct Tail {
    messages: VecDeque<Kept>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Kept {
    room_id: String,
    place: usize,
    bytes: usize,
}

impl Tail {
    /// None; `bytes_max` bytes of them will be kept, about.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// The message at `place` of `room` is synced.
    pub(super) fn push(&mut self, room_id: String, place: usize, room: &Room) {
        let bytes = room.message_history.get(place).map_or(0, |msg| memory_of(msg));
        self.bytes += bytes;
        self.messages.push_back(Kept { room_id, place, bytes });
    }

    /// Lets the oldest messages go until the rest fits. One that is not shown stays, and so do those behind it: its members
    /// are shown it soon.
    pub(super) fn release(
        &mut self,
        rooms: &mut BTreeMap<String, Room>,
        replication: &BTreeMap<String, Replication>,
    ) {
        while self.bytes > self.bytes_max
            && let Some(kept) = self.messages.front()
        {
            let shown = replication.get(&kept.room_id).map_or(usize::MAX, |known| known.shown);
            if kept.place >= shown {
                return;
            }
            if let Some(room) = rooms.get_mut(&kept.room_id) {
                room.message_history.release(kept.place);
            }
            self.bytes -= kept.bytes;
            self.messages.pop_front();
        }
    }
}

fn memory_of(msg: &Message) -> usize {
    let texts = [&msg.message_id, &msg.sender_id, &msg.room_id].map(String::len);
    MESSAGE_BYTES + texts.iter().sum::<usize>() + msg.content.text().len()
}
