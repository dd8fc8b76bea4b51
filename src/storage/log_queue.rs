//! What waits for the writer of a log.
//!
//! ```text
//!   append ──▶ ‥ [Write: lines 3 to 90, full] [Write: 91 to 95] [Forget 40] [Write: 96]  ──▶ the writer takes one at a time
//!                                                                             └ the next line goes here
//! ```

use std::collections::VecDeque;

use super::LogIndex;
use super::places::Place;
use super::snapshot::Contents;

/// What the log was asked to do and has not done yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// What waits to be done. Of batches that follow each other all but the last have their full size.
    pub(super) tasks: VecDeque<Task>,
    /// An empty buffer to use again.
    pub(super) spare: Vec<u8>,
    pub(super) appended: LogIndex,
    pub(super) synced: LogIndex,
    /// What was appended and is not yet synced, in bytes.
    pub(super) pending_bytes: usize,
    pub(super) fault: Option<String>,
    pub(super) closed: bool,
}

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Task {
    Write(Batch),
    /// See [`Storage::forget_before`](super::Storage::forget_before).
    Forget(LogIndex),
    /// See [`Storage::save_snapshot`](super::Storage::save_snapshot).
    Save(u64, Contents),
}

/// Lines that are written and synced at once.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) lines: Vec<u8>,
    /// Where some of the lines begin, the first one included.
    pub(super) marks: Vec<Place>,
    /// The index of the last line.
    pub(super) last: LogIndex,
}

impl Queue {
    /// Appends the line that `encode` makes, to a batch of `batch_bytes` bytes at most before it.
    pub(super) fn append(
        &mut self,
        batch_bytes: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> LogIndex {
        self.appended += 1;
        let index = self.appended;
        let batch = self.open_batch(batch_bytes, index);
        let before = batch.lines.len();
        let place = Place { index, offset: before as u64 };
        if batch.marks.last().is_some_and(|last| last.is_far_from(&place)) {
            batch.marks.push(place);
        }
        encode(&mut batch.lines);
        batch.last = index;
        let bytes = batch.lines.len() - before;
        self.pending_bytes += bytes;
        index
    }

    /// The batch that the next record, `index`, goes into.
    fn open_batch(&mut self, batch_bytes: usize, index: LogIndex) -> &mut Batch {
        let has_room = match self.tasks.back() {
            Some(Task::Write(batch)) => batch.lines.len() < batch_bytes,
            _ => false,
        };
        if !has_room {
            let lines = std::mem::take(&mut self.spare);
            let marks = vec![Place { index, offset: 0 }];
            self.tasks.push_back(Task::Write(Batch { lines, marks, last: 0 }));
        }
        match self.tasks.back_mut() {
            Some(Task::Write(batch)) => batch,
            _ => unreachable!("one was pushed when there was none"),
        }
    }
}
