//! The log of a server on a disk, and the thread that writes it.
//!
//! ```text
//!   threads that step ── append ──▶ queue ──▶ log-writer ──▶ write, fdatasync ──▶ Synced(7)
//!        5, 6, 7        (never waits)         takes all that waits    once for 5, 6 and 7
//! ```
//!
//! *Group commit*: while one `fdatasync` runs, records gather in the queue; the next one covers them all. A
//! slow disk makes the groups larger rather than the queue longer.
//!
//! Promise: [`LogEvent::Synced`] names an index only when every record up to it survives a power cut, and names
//! them in order. Price: an answer waits for up to two syncs. The queue has no limit of its own; who appends
//! looks at [`FileLog::pending_bytes`].
//!
//! Full disk: nothing is dropped. The writer says so once, tries again every
//! [`retry_interval`](LogOptions::retry_interval), and says when it can write again. A failed `fdatasync` is
//! final: the system may have dropped what it could not write, so a second one that succeeds proves nothing.
//!
//! Leaves out: several logs, removing old segments, and disks that lie about having written.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::recovery::{self, Recovery};
use super::segment::{self, Disk, SystemDisk, Tail, WriteError};
use super::{LogIndex, Storage, record};
use crate::domain::Message;
use crate::error::StartError;

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A segment that would grow beyond this size is followed by a new one. In bytes.
    pub segment_bytes: u64,
    /// At most this much, and the rest of a record, goes into one write and one sync. In bytes.
    pub batch_bytes: usize,
    /// How long to wait between two tries to write to a full disk.
    pub retry_interval: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            // Some 50 ms on a slow disk: an ACK never waits long behind a burst.
            batch_bytes: 8 << 20,
            retry_interval: Duration::from_millis(500),
        }
    }
}

/// What the log writer has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// Every record up to this index is durable.
    Synced(LogIndex),
    /// The disk is full, in the operating system's words; records wait in memory.
    Full(String),
    /// The disk takes records again; all that waited will be written.
    Writable,
}

/// An append-only log in a folder. Shared by the threads that append and the one that writes.
#[derive(Debug)]
pub struct FileLog {
    /// A leaf lock: under it nothing is locked, written or waited for.
    queue: Mutex<Queue>,
    /// Wakes the writer, together with `queue`.
    woken: Condvar,
    /// Whether the writer waits for `woken`. Changed only under `queue`.
    asleep: AtomicBool,
    syncs: AtomicU64,
    /// Taken by the writer when it starts, so that it writes under no lock.
    tail: Mutex<Option<Tail>>,
    options: LogOptions,
}

#[derive(Debug, Default)]
struct Queue {
    /// What waits to be written; all but the last have their full size.
    batches: VecDeque<Batch>,
    /// An empty buffer to use again.
    spare: Vec<u8>,
    appended: LogIndex,
    synced: LogIndex,
    /// What was appended and is not yet synced, in bytes.
    pending_bytes: usize,
    fault: Option<String>,
    closed: bool,
}

/// Lines that are written and synced at once.
#[derive(Debug)]
struct Batch {
    lines: Vec<u8>,
    /// The index of the last line.
    last: LogIndex,
}

impl FileLog {
    /// Opens the log in `folder`, creating the folder when it is missing, and hands every record to `visit`
    /// in the order of writing. All of them are durable when it returns; the indices of new records
    /// continue after them. Nothing is written before [`run_writer`](Self::run_writer) runs.
    ///
    /// A damaged log is refused with [`StartError::DamagedLog`], after the records before the damage
    /// were visited. With `repair` those are kept and the rest is set aside. The
    /// server must count as wiped then; see [`DataFolder::new_disk_id`](super::DataFolder::new_disk_id).
    pub fn open(
        folder: &Path,
        options: LogOptions,
        repair: bool,
        visit: impl FnMut(Message),
    ) -> Result<(Self, Recovery), StartError> {
        Self::open_on(Box::new(SystemDisk), folder, options, repair, visit)
    }

    /// [`open`](Self::open) on another disk.
    pub(super) fn open_on(
        disk: Box<dyn Disk>,
        folder: &Path,
        options: LogOptions,
        repair: bool,
        mut visit: impl FnMut(Message),
    ) -> Result<(Self, Recovery), StartError> {
        segment::create_folder(folder)
            .map_err(|error| recovery::unusable(folder, "create", error))?;
        let recovery = recovery::recover(folder, repair, &mut visit)?;
        let number = recovery.segments.max(1);
        let tail = Tail::open(disk, folder, number, options.segment_bytes).map_err(|error| {
            recovery::unusable(&folder.join(segment::file_name(number)), "write to", error)
        })?;
        let queue =
            Queue { appended: recovery.records, synced: recovery.records, ..Queue::default() };
        let log = Self {
            queue: queue.into(),
            woken: Condvar::new(),
            asleep: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            tail: Some(tail).into(),
            options,
        };
        Ok((log, recovery))
    }

    /// Wakes the writer when something waits to be written. To be called after each step that appended, outside
    /// every lock; costs next to nothing while the writer is awake.
    pub fn wake(&self) {
        // Relaxed is enough: a caller that appended after the writer fell asleep locked `queue` after it,
        // and so sees the flag; one that appended before was seen by the writer.
        if self.asleep.load(Ordering::Relaxed) {
            let queue = self.queue.lock();
            if !queue.batches.is_empty() {
                self.asleep.store(false, Ordering::Relaxed);
                self.woken.notify_one();
            }
        }
    }

    /// Lets the writer write what is left and return. To be called when nobody appends any more.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.woken.notify_one();
    }

    /// What was appended and is not yet synced, in bytes. Nothing else bounds it: who appends refuses
    /// new work while it is too much.
    pub fn pending_bytes(&self) -> usize {
        self.queue.lock().pending_bytes
    }

    /// The index up to which all is durable.
    pub fn synced(&self) -> LogIndex {
        self.queue.lock().synced
    }

    /// How often the writer has synced.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// The body of the thread `log-writer`: writes and syncs what was appended, and reports to `on_event`, until
    /// [`close`](Self::close). An error is final, and the server must stop: what is on the disk is not
    /// known any more. Runs once in the life of a log.
    pub fn run_writer(&self, mut on_event: impl FnMut(LogEvent)) -> io::Result<()> {
        let Some(mut tail) = self.tail.lock().take() else {
            return Err(io::Error::other("the log writer runs already, or has ended"));
        };
        while let Some(batch) = self.next_batch() {
            if !self.write(&mut tail, &batch, &mut on_event)? {
                return Ok(());
            }
            tail.sync()?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            let last = batch.last;
            if self.done(batch) {
                log::info!("the log can be written again");
                on_event(LogEvent::Writable);
            }
            on_event(LogEvent::Synced(last));
        }
        Ok(())
    }

    /// Waits until there is something to write; `None` when nothing will come any more.
    fn next_batch(&self) -> Option<Batch> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(batch) = queue.batches.pop_front() {
                return Some(batch);
            }
            if queue.closed {
                return None;
            }
            self.asleep.store(true, Ordering::Relaxed);
            self.woken.wait(&mut queue);
            self.asleep.store(false, Ordering::Relaxed);
        }
    }

    /// Writes `batch`, for as long as it takes while the disk is full. False when the log was closed meanwhile, and
    /// the last try failed too.
    fn write(
        &self,
        tail: &mut Tail,
        batch: &Batch,
        on_event: &mut impl FnMut(LogEvent),
    ) -> io::Result<bool> {
        // Read before the try, so that there is one more after the close.
        let mut is_last_try = false;
        loop {
            let error = match tail.write(&batch.lines) {
                Ok(()) => return Ok(true),
                Err(WriteError::Broken(error)) => return Err(error),
                Err(WriteError::Full(error)) => error.to_string(),
            };
            let mut queue = self.queue.lock();
            if is_last_try {
                let lost = queue.appended - queue.synced;
                drop(queue);
                log::error!("{lost} records are not in the log, the disk is full: {error}");
                return Ok(false);
            }
            if queue.fault.is_none() {
                queue.fault = Some(error.clone());
                drop(queue);
                log::error!("the log cannot be written, records wait in memory: {error}");
                on_event(LogEvent::Full(error));
                queue = self.queue.lock();
            }
            if !queue.closed {
                self.woken.wait_for(&mut queue, self.options.retry_interval);
            }
            is_last_try = queue.closed;
        }
    }

    /// Notes that `batch` is durable. True when the disk was full before.
    fn done(&self, batch: Batch) -> bool {
        let mut queue = self.queue.lock();
        queue.synced = batch.last;
        queue.pending_bytes -= batch.lines.len();
        queue.spare = batch.lines;
        queue.spare.clear();
        queue.fault.take().is_some()
    }
}

impl Queue {
    /// The batch that the next record goes into.
    fn open_batch(&mut self, batch_bytes: usize) -> &mut Batch {
        let full = self.batches.back().is_none_or(|batch| batch.lines.len() >= batch_bytes);
        if full {
            let lines = std::mem::take(&mut self.spare);
            self.batches.push_back(Batch { lines, last: 0 });
        }
        self.batches.back_mut().expect("one was pushed when there was none")
    }
}

impl Storage for FileLog {
    fn append(&self, msg: &Message) -> LogIndex {
        let mut queue = self.queue.lock();
        queue.appended += 1;
        let index = queue.appended;
        let batch = queue.open_batch(self.options.batch_bytes);
        let before = batch.lines.len();
        record::encode(msg, &mut batch.lines);
        batch.last = index;
        let bytes = batch.lines.len() - before;
        queue.pending_bytes += bytes;
        index
    }

    fn fault(&self) -> Option<String> {
        self.queue.lock().fault.clone()
    }
}

#[cfg(test)]
#[path = "file_log_tests.rs"]
pub(in crate::storage) mod tests;
