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

use super::multicast::{Replication, Run};
use crate::domain::Room;

/// What a message takes besides its JSON, about, in bytes: what the allocator adds.
const MESSAGE_BYTES: usize = 48;

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
        rooms: &mut BTreeMap<String, Room>,
        replication: &BTreeMap<String, Replication>,
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
