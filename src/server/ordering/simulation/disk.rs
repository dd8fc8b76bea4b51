//! A disk that forgets what was not synced, and what it is told to forget.

use std::cell::{Cell, RefCell};

use crate::domain::Message;
use crate::storage::snapshot::Contents;
use crate::storage::{LogIndex, MemoryLog, Storage};

/// A disk that forgets what was not synced.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) log: MemoryLog,
    pub(super) written: Cell<LogIndex>,
    /// Records that are not needed when all up to the first one are synced.
    forgettable: RefCell<Vec<(LogIndex, LogIndex)>>,
    forgotten: Cell<LogIndex>,
}

/// So many records are forgotten together, as a segment is.
const SEGMENT_RECORDS: LogIndex = 4;

impl Disk {
    pub(super) fn of(records: impl IntoIterator<Item = Message>) -> Self {
        let disk = Self::default();
        records.into_iter().for_each(|record| _ = disk.append(&record));
        disk
    }

    /// What was to be forgotten when all up to `index` is synced goes, in whole segments.
    pub(super) fn synced(&self, index: LogIndex) {
        self.forgettable.borrow_mut().retain(|(written, first)| {
            if *written <= index {
                let count = (first - 1) / SEGMENT_RECORDS * SEGMENT_RECORDS;
                self.forgotten.set(self.forgotten.get().max(count));
                self.log.forget_before(count + 1);
            }
            *written > index
        });
    }

    /// What a start finds after a crash that left the records up to `last`.
    pub(super) fn left(&self, last: LogIndex) -> Self {
        let (all, gone) = (self.log.records(), self.forgotten.get() as usize);
        Self::of(all[gone..last as usize].iter().cloned())
    }
}

impl Storage for Disk {
    fn append(&self, msg: &Message) -> LogIndex {
        self.written.set(self.log.append(msg));
        self.written.get()
    }
    fn fault(&self) -> Option<String> {
        self.log.fault()
    }
    fn forget_before(&self, index: LogIndex) {
        self.forgettable.borrow_mut().push((self.written.get(), index));
    }
    fn first_within(&self, bytes: u64) -> LogIndex {
        self.log.first_within(bytes)
    }
    fn request_read(&self, token: u64, from: LogIndex, bytes_max: usize) {
        self.log.request_read(token, from, bytes_max);
    }
    fn request_records(&self, token: u64, records: Vec<LogIndex>, bytes_max: usize) {
        self.log.request_records(token, records, bytes_max);
    }
    fn save_snapshot(&self, seq: u64, contents: Contents) {
        self.log.save_snapshot(seq, contents);
    }
}
