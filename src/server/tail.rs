//! Which messages of the rooms are in memory: the last ones, of all rooms together.
//!
//! ```text
//!   delivered ──▶ appended ──▶ synced ──▶ [lobby 7][ops 3][lobby 8] ‥ [lobby 9]
//!                                          └ when these are too many bytes, the oldest goes: its room reads it back when it is wanted
//! ```
//!
//! One bound for all rooms, so that ten thousand of them take no more memory than one. The price: what was said last in
//! a room where little is said may be on disk alone.

use std::collections::VecDeque;
use std::ops::Range;

use indexmap::IndexMap;

use super::replication::Replication;
use crate::domain::Room;
use crate::storage::LogIndex;

/// How many messages are noted together at most as appended, and let go together.
const RUN_MAX: usize = 256;

/// What a message takes besides its JSON, about, in bytes: what the allocator adds.
const MESSAGE_BYTES: usize = 48;

/// Messages of one room that stand side by side in its history and in the log.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The room.
    pub(super) room_id: String,
    /// The record of the first one.
    pub(super) first: LogIndex,
    /// Where they stand.
    pub(super) places: Range<usize>,
    /// How long their JSON is together.
    pub(super) bytes: usize,
}

impl Run {
    /// The message at `place` of `room_id`, which is the record `index` and `bytes` long.
    pub(super) fn of(room_id: &str, index: LogIndex, place: usize, bytes: usize) -> Self {
        Self { room_id: room_id.into(), first: index, places: place..place + 1, bytes }
    }

    /// Whether the record `index`, at `place` of `room_id`, belongs here too.
    pub(super) fn is_followed_by(&self, room_id: &str, index: LogIndex, place: usize) -> bool {
        self.places.end == place
            && self.first + self.places.len() as LogIndex == index
            && self.places.len() < RUN_MAX
            && self.room_id == room_id
    }

    /// Takes out the first `count` of them, which are not all.
    pub(super) fn take(&mut self, count: usize) -> Self {
        let bytes = self.bytes * count / self.places.len();
        let places = self.places.start..self.places.start + count;
        let taken = Self { room_id: self.room_id.clone(), first: self.first, places, bytes };
        self.first += count as LogIndex;
        self.places.start += count;
        self.bytes -= bytes;
        taken
    }
}

/// The synced messages that are still in memory, in the order of the log; see the module.
#[derive(Debug)]
pub(super) struct Tail {
    runs: VecDeque<Run>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    /// None; `bytes_max` bytes of them will be kept, about.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { runs: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// The messages of `run` are synced.
    pub(super) fn push(&mut self, run: Run) {
        self.bytes += memory_of(&run);
        self.runs.push_back(run);
    }

    /// Lets the oldest messages go until the rest fits. One that is not shown stays, and so do those behind it: its members
    /// are shown it soon.
    pub(super) fn release(
        &mut self,
        rooms: &mut IndexMap<String, Room>,
        replication: &IndexMap<String, Replication>,
    ) {
        while self.bytes > self.bytes_max
            && let Some(run) = self.runs.front()
        {
            let shown = replication.get(&run.room_id).map_or(usize::MAX, |known| known.shown);
            if run.places.end > shown {
                return;
            }
            if let Some(room) = rooms.get_mut(&run.room_id) {
                room.message_history.release(run.places.end - 1);
            }
            self.bytes -= memory_of(run);
            self.runs.pop_front();
        }
    }
}

fn memory_of(run: &Run) -> usize {
    run.bytes + MESSAGE_BYTES * run.places.len()
}
