//! The log of a server on a disk, and the thread that writes it.
//!
//! ```text
//!   threads that step ── append ──▶ queue ──▶ log-writer ──▶ write, fdatasync ──▶ Synced(7)
//!        5, 6, 7        (never waits)         takes all that waits    once for 5, 6 and 7
//!                     ── forget_before(3) ──────▶ then removes the segments with nothing from 3 on
//!                     ── save_snapshot ─────────▶ then writes it, a piece between two batches
//! ```
//!
//! *Group commit*: while one `fdatasync` runs, records gather in the queue; the next one covers them all. A
//! slow disk makes the groups larger rather than the queue longer.
//!
//! Promise: [`LogEvent::Synced`] names an index only when every record up to it survives a power cut, and names
//! them in order. Price: an answer waits for up to two syncs. The queue has no limit of its own; who appends
//! looks at [`FileLog::pending_bytes`].
//!
//! Full disk: nothing is dropped but snapshots, which are asked for again. The writer says so once, tries again
//! every [`retry_interval`](LogOptions::retry_interval), and says when it can write again. A failed `fdatasync` is
//! final: the system may have dropped what it could not write, so a second one that succeeds proves nothing. A
//! segment that cannot be removed stays, with a warning; the next start tries again.
//!
//! Leaves out: several logs, and disks that lie about having written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::log_queue::{Batch, Queue, Task};
use super::log_reader::ReadQueue;
use super::places::Places;
use super::read_ahead::Reading;
use super::recovery::{self, OnDamage, Recovery};
use super::segment::{self, Disk, SystemDisk, Tail, WriteError};
use super::snapshot::{self, Contents, Saving};
use super::{LogEvent, LogIndex, MakeSnapshot, Part, Storage, record};
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
    /// How it is read when it is opened.
    pub reading: Reading,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            // Some 50 ms on a slow disk: an ACK never waits long behind a burst.
            batch_bytes: 8 << 20,
            retry_interval: Duration::from_millis(500),
            reading: Reading::here(),
        }
    }
}

/// An append-only log in a folder. Shared by the threads that append, the one that writes and the one that reads.
#[derive(Debug)]
pub struct FileLog {
    /// A leaf lock: under it nothing is locked, written or waited for.
    queue: Mutex<Queue>,
    /// Wakes the writer, together with `queue`.
    woken: Condvar,
    /// Whether the writer waits for `woken`. Changed only under `queue`.
    asleep: AtomicBool,
    /// Whether there is a `fault`. Changed only under `queue`.
    faulty: AtomicBool,
    syncs: AtomicU64,
    /// Where the durable records stand. A leaf lock. Changed by the writer alone.
    pub(super) places: Mutex<Places>,
    pub(super) reads: ReadQueue,
    pub(super) folder: PathBuf,
    /// Taken by the writer when it starts, so that it writes under no lock.
    tail: Mutex<Option<Tail>>,
    disk: Arc<dyn Disk>,
    options: LogOptions,
}

/// What the writer does next.
enum Turn {
    Do(Task),
    /// Nothing but the snapshot that it is writing.
    GoOn,
    End,
}

impl FileLog {
    /// Opens the log in `folder`, creating the folder when it is missing, and hands every record to `visit`
    /// in the order of writing. All of them are durable when it returns: the nth one has index n, and those of new
    /// records continue after them. Nothing is written before [`run_writer`](Self::run_writer) runs.
    ///
    /// A damaged log is refused with [`StartError::DamagedLog`], after the records before the damage
    /// were visited. With [`OnDamage::SetAside`] those are kept and the rest is set aside. The
    /// server must count as wiped then; [`DataFolder::open_log`](super::DataFolder::open_log) sees to that.
    pub fn open(
        folder: &Path,
        options: LogOptions,
        on_damage: OnDamage,
        mut visit: impl FnMut(Message),
    ) -> Result<(Self, Recovery), StartError> {
        let take = |messages: Vec<Message>| messages.into_iter().for_each(&mut visit);
        Self::open_parts(folder, options, on_damage, take)
    }

    /// [`open`](Self::open) for who does not want whole messages, or not one by one. What a [`Part`] refuses is damage, as
    /// what fails its checksum is.
    pub fn open_parts<P: Part>(
        folder: &Path,
        options: LogOptions,
        on_damage: OnDamage,
        take: impl FnMut(P),
    ) -> Result<(Self, Recovery), StartError> {
        Self::open_on(Arc::new(SystemDisk), folder, options, on_damage, take)
    }

    /// [`open_parts`](Self::open_parts) on another disk.
    pub(super) fn open_on<P: Part>(
        disk: Arc<dyn Disk>,
        folder: &Path,
        options: LogOptions,
        on_damage: OnDamage,
        mut take: impl FnMut(P),
    ) -> Result<(Self, Recovery), StartError> {
        segment::create_folder(folder)
            .map_err(|error| recovery::unusable(folder, "create", error))?;
        let (recovery, places) = recovery::recover(folder, on_damage, options.reading, &mut take)?;
        let number = recovery.tail();
        let tail = Tail::open(disk.clone(), folder, number, options.segment_bytes);
        let tail = tail.map_err(|error| {
            recovery::unusable(&folder.join(segment::file_name(number)), "write to", error)
        })?;
        let queue =
            Queue { appended: recovery.records, synced: recovery.records, ..Queue::default() };
        let log = Self {
            queue: queue.into(),
            woken: Condvar::new(),
            asleep: AtomicBool::new(false),
            faulty: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            places: places.into(),
            reads: ReadQueue::new(),
            folder: folder.into(),
            tail: Some(tail).into(),
            disk,
            options,
        };
        Ok((log, recovery))
    }

    /// Whether the writer may have to be woken.
    pub fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// Wakes the writer when something waits to be done. To be called after each step that appended, outside
    /// every lock; costs next to nothing while the writer is awake.
    pub fn wake(&self) {
        // Relaxed is enough: a caller that appended after the writer fell asleep locked `queue` after it,
        // and so sees the flag; one that appended before was seen by the writer.
        if self.is_asleep() {
            let queue = self.queue.lock();
            if !queue.tasks.is_empty() {
                self.asleep.store(false, Ordering::Relaxed);
                self.woken.notify_one();
            }
        }
    }

    /// Lets the writer do what is left and return. To be called when nobody appends any more.
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

    /// The body of the thread `log-writer`: writes and syncs what was appended, removes what was forgotten, saves
    /// snapshots, and reports to `on_event`, until [`close`](Self::close). An error is final, and the server must
    /// stop: what is on the disk is not known any more. Runs once in the life of a log.
    pub fn run_writer(&self, mut on_event: impl FnMut(LogEvent)) -> io::Result<()> {
        let Some(mut tail) = self.tail.lock().take() else {
            return Err(io::Error::other("the log writer runs already, or has ended"));
        };
        let mut saving = None;
        loop {
            match self.next_turn(saving.is_some()) {
                Turn::Do(Task::Write(batch)) => {
                    if !self.write(&mut tail, batch, &mut on_event)? {
                        return Ok(());
                    }
                    self.save_piece(&mut saving, &mut on_event)?;
                }
                Turn::GoOn => self.save_piece(&mut saving, &mut on_event)?,
                Turn::Do(task) => {
                    // Only batches overtake a snapshot.
                    while saving.is_some() {
                        self.save_piece(&mut saving, &mut on_event)?;
                    }
                    match task {
                        Task::Write(_) => {} // Above.
                        Task::Forget(index) => self.forget(index)?,
                        Task::Save(seq, contents) => {
                            saving = self.begin_saving(seq, contents, &mut on_event)?;
                        }
                    }
                }
                Turn::End => return Ok(()),
            }
        }
    }

    /// Waits until there is something to do, unless a snapshot is being saved.
    fn next_turn(&self, is_saving: bool) -> Turn {
        let mut queue = self.queue.lock();
        loop {
            if let Some(task) = queue.tasks.pop_front() {
                return Turn::Do(task);
            }
            if is_saving {
                return Turn::GoOn;
            }
            if queue.closed {
                return Turn::End;
            }
            self.asleep.store(true, Ordering::Relaxed);
            self.woken.wait(&mut queue);
            self.asleep.store(false, Ordering::Relaxed);
        }
    }

    /// Writes `batch` durably and says so. False when that cannot be done before the end.
    fn write(
        &self,
        tail: &mut Tail,
        batch: Batch,
        on_event: &mut impl FnMut(LogEvent),
    ) -> io::Result<bool> {
        if !self.write_with_patience(tail, &batch, on_event)? {
            return Ok(false);
        }
        tail.sync()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let (last, bytes) = (batch.last, batch.lines.len() as u64);
        self.places.lock().extend(tail.number(), &batch.marks, last + 1, bytes);
        if self.done(batch) {
            log::info!("the log can be written again");
            on_event(LogEvent::Writable);
        }
        on_event(LogEvent::Synced(last));
        Ok(true)
    }

    /// Writes `batch`, for as long as it takes while the disk is full. False when the log was closed meanwhile, and
    /// the last try failed too.
    fn write_with_patience(
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
                self.faulty.store(true, Ordering::Relaxed);
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
        self.faulty.store(false, Ordering::Relaxed);
        queue.fault.take().is_some()
    }

    /// Removes the segments that hold no record from `index` on. Everything queued before is durable.
    fn forget(&self, index: LogIndex) -> io::Result<()> {
        let needed = self.places.lock().first_needed(index);
        let Some(first) = needed else { return Ok(()) };
        // A start removes what was left before the first one, so what is gone from `places` is gone for good.
        let marker = self.folder.join(segment::first_name(first));
        match self.disk.create(&marker) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if segment::is_full(&error) => {
                log::warn!("cannot remove old segments of the log yet: {error}");
                return Ok(());
            }
            Err(error) => return Err(segment::explain("create", &marker, &error)),
        }
        self.sync_folder()?;
        let old = self.places.lock().forget(first);
        let firsts = segment::list_firsts(&self.folder)?;
        let old_firsts = firsts.into_iter().filter(|number| *number < first);
        let names = old.iter().map(|number| segment::file_name(*number));
        for name in names.chain(old_firsts.map(segment::first_name)) {
            let path = self.folder.join(name);
            if let Err(error) = self.disk.remove(&path) {
                let path = path.display();
                log::warn!("cannot remove {path}, so the next start tries again: {error}");
            }
        }
        log::info!("the log begins with segment {first} now, {} are removed", old.len());
        self.sync_folder()
    }

    /// Appends the line that `encode` makes.
    fn append_line(&self, encode: impl FnOnce(&mut Vec<u8>)) -> LogIndex {
        self.queue.lock().append(self.options.batch_bytes, encode)
    }

    fn sync_folder(&self) -> io::Result<()> {
        let synced = self.disk.sync_folder(&self.folder);
        synced.map_err(|error| segment::explain("sync", &self.folder, &error))
    }

    /// Begins to save a snapshot; `None` when the disk is full.
    fn begin_saving(
        &self,
        seq: u64,
        contents: Contents,
        on_event: &mut impl FnMut(LogEvent),
    ) -> io::Result<Option<Saving>> {
        match Saving::begin(&*self.disk, &self.folder, seq, contents) {
            Ok(saving) => Ok(Some(saving)),
            Err(error) => self.not_saved(seq, error, on_event).map(|()| None),
        }
    }

    /// Writes the next piece of the snapshot that is being saved, if there is one.
    fn save_piece(
        &self,
        saving: &mut Option<Saving>,
        on_event: &mut impl FnMut(LogEvent),
    ) -> io::Result<()> {
        let Some(mut snapshot) = saving.take() else { return Ok(()) };
        match snapshot.step(&*self.disk) {
            Ok(false) => *saving = Some(snapshot),
            Ok(true) => {
                if let Err(error) = snapshot.remove_older(&*self.disk) {
                    log::warn!("cannot remove old snapshots, the next one tries again: {error}");
                }
                on_event(LogEvent::SnapshotSaved(snapshot.seq));
            }
            Err(error) => self.not_saved(snapshot.seq, error, on_event)?,
        }
        Ok(())
    }

    /// The snapshot of place `seq` cannot be saved: on a full disk that is said, anything else is final.
    fn not_saved(
        &self,
        seq: u64,
        error: io::Error,
        on_event: &mut impl FnMut(LogEvent),
    ) -> io::Result<()> {
        let temporary = snapshot::temporary(&self.folder, seq);
        if !segment::is_full(&error) {
            return Err(segment::explain("save", &temporary, &error));
        }
        snapshot::remove_if_there(&*self.disk, &temporary)?;
        let reason = error.to_string();
        log::warn!("the snapshot {seq} is not saved, since the disk is full: {reason}");
        on_event(LogEvent::SnapshotNotSaved { seq, reason });
        Ok(())
    }
}

impl Storage for FileLog {
    fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    fn append(&self, msg: &Message) -> LogIndex {
        self.append_line(|lines| record::encode(msg, lines))
    }

    fn append_json(&self, json: &[u8]) -> LogIndex {
        self.append_line(|lines| record::encode_json(json, lines))
    }

    fn fault(&self) -> Option<String> {
        // Asked for each message; changed by the writer when it has said so.
        if !self.faulty.load(Ordering::Relaxed) {
            return None;
        }
        self.queue.lock().fault.clone()
    }

    fn forget_before(&self, index: LogIndex) {
        self.queue.lock().tasks.push_back(Task::Forget(index));
    }

    fn first_within(&self, bytes: u64) -> LogIndex {
        self.places.lock().first_within(bytes)
    }

    fn request_read(&self, token: u64, from: LogIndex, bytes_max: usize) {
        self.reads.push(token, from, bytes_max);
    }

    fn request_records(&self, token: u64, records: Vec<LogIndex>, bytes_max: usize) {
        self.reads.push_records(token, records, bytes_max);
    }

    fn save_snapshot(&self, seq: u64, contents: Contents) {
        self.queue.lock().tasks.push_back(Task::Save(seq, contents));
    }

    fn make_snapshot(&self, seq: u64, make: MakeSnapshot) {
        self.reads.push_make(seq, make);
    }
}

#[cfg(test)]
#[path = "file_log_tests.rs"]
pub(in crate::storage) mod tests;
