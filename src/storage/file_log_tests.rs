//! Tests of the writer, on good and bad disks; and what the tests of the recovery share with them.

use std::fs;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::snapshot::PIECE_BYTES;
use super::*;
use crate::domain::MessageType;

/// No test waits longer for anything; most wait for microseconds.
const DEADLINE: Duration = Duration::from_secs(30);

pub(in crate::storage) fn chat(number: u64) -> Message {
    let mut chat =
        Message::new(MessageType::Chat, "alice").with_id(format!("a-{number}")).in_room("lobby");
    chat.content = "hello".into();
    chat
}

pub(in crate::storage) fn chats(numbers: impl IntoIterator<Item = u64>) -> Vec<Message> {
    numbers.into_iter().map(chat).collect()
}

/// Segments of a few records, one record a batch; read by several threads, in blocks that are shorter than some lines.
pub(in crate::storage) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 500,
        batch_bytes: 1,
        retry_interval: Duration::from_millis(1),
        reading: Reading { workers: 3, block_bytes: 100 },
    }
}

pub(in crate::storage) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(segment::file_name(number))
}

pub(in crate::storage) fn reopen(
    folder: &Path,
    on_damage: OnDamage,
) -> Result<(FileLog, Vec<Message>, Recovery), StartError> {
    let mut read = Vec::new();
    let (log, recovery) = FileLog::open(folder, small(), on_damage, |message| read.push(message))?;
    Ok((log, read, recovery))
}

/// What the log in `folder` holds; it must be sound.
pub(in crate::storage) fn contents(folder: &Path) -> Vec<Message> {
    let (_, read, recovery) = reopen(folder, OnDamage::Refuse).unwrap();
    assert_eq!(recovery.records, read.len() as u64);
    read
}

/// Appends `messages` to the log in `folder`, which must be sound, and closes it.
pub(in crate::storage) fn fill(folder: &Path, options: LogOptions, messages: &[Message]) {
    let (log, _) = FileLog::open(folder, options, OnDamage::Refuse, |_| ()).unwrap();
    for message in messages {
        log.append(message);
    }
    log.close();
    log.run_writer(|_| ()).unwrap();
}

/// A folder with messages 1 to 10 in segments of 4, 4 and 2 lines.
pub(in crate::storage) fn filled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), small(), &chats(1..=10));
    assert_eq!(segment::list(folder.path()).unwrap(), [1, 2, 3]);
    folder
}

/// A disk that fails as told.
#[derive(Debug, Default)]
struct BadDisk {
    /// So many writes find no space; a part of the batch is written first.
    full_writes: AtomicUsize,
    /// Each write takes so many bytes at most; 0 means all.
    write_bytes_max: usize,
    /// The kind of a write that fails for another reason.
    broken: Option<ErrorKind>,
    fails_sync: bool,
    /// A sync says that it begins, and waits until it may end.
    gate: Option<(Sender<()>, Receiver<()>)>,
}

impl Disk for BadDisk {
    fn write(&self, file: &fs::File, bytes: &[u8]) -> io::Result<usize> {
        let max = if self.write_bytes_max == 0 { bytes.len() } else { self.write_bytes_max };
        if let Some(kind) = self.broken {
            return Err(kind.into());
        }
        let less = |count: usize| count.checked_sub(1);
        if self.full_writes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            SystemDisk.write(file, &bytes[..bytes.len() / 2])?;
            return Err(io::Error::from_raw_os_error(28));
        }
        SystemDisk.write(file, &bytes[..max.min(bytes.len())])
    }

    fn sync(&self, file: &fs::File) -> io::Result<()> {
        if self.fails_sync {
            return Err(io::Error::from_raw_os_error(5));
        }
        if let Some((begins, may_end)) = &self.gate {
            begins.send(()).unwrap();
            may_end.recv_timeout(DEADLINE).unwrap();
        }
        SystemDisk.sync(file)
    }
}

/// A log whose writer runs in a thread.
struct Running {
    folder: tempfile::TempDir,
    log: Arc<FileLog>,
    events: Receiver<LogEvent>,
    ended: Receiver<io::Result<()>>,
}

impl Running {
    fn on(disk: &Arc<BadDisk>, options: LogOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = disk.clone();
        let (log, _) =
            FileLog::open_on(disk, folder.path(), options, OnDamage::Refuse, |_: Vec<Message>| ())
                .unwrap();
        let log = Arc::new(log);
        let (events_in, events) = unbounded();
        let (ended_in, ended) = unbounded();
        let writer = Arc::clone(&log);
        #[expect(clippy::disallowed_methods, reason = "the end of the thread is awaited below")]
        thread::spawn(move || {
            ended_in.send(writer.run_writer(|event| events_in.send(event).unwrap())).unwrap();
        });
        Self { folder, log, events, ended }
    }

    fn append(&self, number: u64) -> LogIndex {
        let index = self.log.append(&chat(number));
        self.log.wake();
        index
    }

    fn event(&self) -> LogEvent {
        self.events.recv_timeout(DEADLINE).unwrap()
    }

    fn end(&self) -> io::Result<()> {
        self.log.close();
        self.ended.recv_timeout(DEADLINE).unwrap()
    }
}

#[test]
fn each_record_is_reported_once_it_is_durable() {
    let running = Running::on(&Arc::default(), small());
    for number in 1..=20 {
        let index = running.append(number);
        assert_eq!(running.event(), LogEvent::Synced(index));
        assert_eq!(running.log.pending_bytes(), 0);
        assert_eq!(running.log.synced(), number);
    }
    assert_eq!(running.log.syncs(), 20);
    running.end().unwrap();
    assert_eq!(contents(running.folder.path()), chats(1..=20));
}

#[test]
fn what_gathers_during_a_slow_sync_shares_the_next_one() {
    let (begins_in, begins) = unbounded();
    let (may_end, may_end_out) = unbounded();
    let disk = Arc::new(BadDisk { gate: Some((begins_in, may_end_out)), ..BadDisk::default() });
    let running = Running::on(&disk, LogOptions::default());
    running.append(0);
    begins.recv_timeout(DEADLINE).unwrap();
    thread::scope(|scope| {
        for appender in 1..=4 {
            let log = &running.log;
            scope.spawn(move || {
                for number in 0..250 {
                    log.append(&chat(appender * 1000 + number));
                    log.wake();
                }
            });
        }
    });
    for _ in 0..2 {
        may_end.send(()).unwrap();
    }
    assert_eq!(running.event(), LogEvent::Synced(1));
    assert_eq!(running.event(), LogEvent::Synced(1001));
    assert_eq!(running.log.syncs(), 2);
    running.end().unwrap();

    let read = contents(running.folder.path());
    assert_eq!(read.len(), 1001);
    for appender in 1..=4 {
        let of_one: Vec<_> = (0..250).map(|number| chat(appender * 1000 + number)).collect();
        let read_of_one = read.iter().filter(|message| of_one.contains(message));
        assert!(read_of_one.eq(&of_one), "each appender's records keep their order");
    }
}

#[test]
fn no_wake_up_is_lost_when_many_threads_append() {
    let running = Running::on(&Arc::default(), LogOptions::default());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..500 {
                    running.append(number);
                }
            });
        }
    });
    let mut last = 0;
    while last < 2000 {
        let LogEvent::Synced(index) = running.event() else { panic!("the disk is fine") };
        assert!(index > last, "indices are reported in order");
        last = index;
    }
    running.end().unwrap();
}

#[test]
fn batches_and_short_writes_lose_nothing() {
    let disk = Arc::new(BadDisk { write_bytes_max: 7, ..BadDisk::default() });
    let running = Running::on(&disk, LogOptions { batch_bytes: 250, ..small() });
    for number in 1..=50 {
        running.append(number);
    }
    running.end().unwrap();
    assert_eq!(contents(running.folder.path()), chats(1..=50));
}

#[test]
fn close_writes_everything_that_waits() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    for number in 1..=30 {
        log.append(&chat(number));
    }
    log.close();
    let mut events = Vec::new();
    log.run_writer(|event| events.push(event)).unwrap();
    assert_eq!(events.last(), Some(&LogEvent::Synced(30)));
    assert_eq!(log.pending_bytes(), 0);
    assert_eq!(contents(folder.path()), chats(1..=30));
    assert!(log.run_writer(|_| ()).is_err(), "a log has one writer");
}

#[test]
fn a_full_disk_is_reported_once_and_everything_is_written_when_there_is_space() {
    let disk = Arc::new(BadDisk { full_writes: usize::MAX.into(), ..BadDisk::default() });
    let running = Running::on(&disk, small());
    running.append(1);
    let words = "No space left on device (os error 28)";
    assert_eq!(running.event(), LogEvent::Full(words.into()));
    assert_eq!(running.log.fault().as_deref(), Some(words));
    for number in 2..=9 {
        running.append(number);
    }
    assert!(running.log.pending_bytes() > 0);
    disk.full_writes.store(2, Ordering::SeqCst);
    assert_eq!(running.event(), LogEvent::Writable);
    for index in 1..=9 {
        assert_eq!(running.event(), LogEvent::Synced(index));
    }
    assert_eq!(running.log.fault(), None);
    running.end().unwrap();
    assert_eq!(contents(running.folder.path()), chats(1..=9));
}

#[test]
fn close_on_a_full_disk_gives_up_and_leaves_a_sound_log() {
    let disk = Arc::new(BadDisk::default());
    let retry_interval = Duration::from_secs(3600); // A close does not wait for the next try.
    let running = Running::on(&disk, LogOptions { retry_interval, ..small() });
    running.append(1);
    assert_eq!(running.event(), LogEvent::Synced(1));
    disk.full_writes.store(usize::MAX, Ordering::SeqCst);
    running.append(2);
    assert!(matches!(running.event(), LogEvent::Full(_)));
    running.end().unwrap();
    assert_eq!(running.log.synced(), 1);
    assert_eq!(contents(running.folder.path()), chats([1]));
}

#[test]
fn close_tries_a_full_disk_once_more() {
    let disk = Arc::new(BadDisk { full_writes: 1.into(), ..BadDisk::default() });
    let retry_interval = Duration::from_secs(3600);
    let running = Running::on(&disk, LogOptions { retry_interval, ..small() });
    running.append(1);
    assert!(matches!(running.event(), LogEvent::Full(_)));
    running.end().unwrap();
    assert_eq!(running.log.synced(), 1);
}

#[test]
fn a_failed_sync_ends_the_writer_at_once() {
    let disk = Arc::new(BadDisk { fails_sync: true, ..BadDisk::default() });
    let running = Running::on(&disk, small());
    running.append(1);
    let error = running.ended.recv_timeout(DEADLINE).unwrap().unwrap_err().to_string();
    assert!(error.contains("cannot sync") && error.contains("00000001.jsonl"), "{error}");
    assert_eq!((running.log.synced(), running.log.syncs()), (0, 0));
    assert!(running.events.is_empty(), "nothing was reported durable");
}

#[test]
fn a_write_that_fails_for_another_reason_ends_the_writer() {
    let disk = Arc::new(BadDisk { broken: Some(ErrorKind::BrokenPipe), ..BadDisk::default() });
    let running = Running::on(&disk, small());
    running.append(1);
    let error = running.ended.recv_timeout(DEADLINE).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    assert!(running.events.is_empty());
}

#[test]
fn whole_segments_are_forgotten_and_the_open_one_stays() {
    let folder = filled();
    let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    log.forget_before(4); // The first segment still holds 4.
    log.close();
    log.run_writer(|event| panic!("{event:?}")).unwrap();
    assert_eq!(contents(folder.path()), chats(1..=10));
    for (index, first, segments) in [(5, 5, vec![2, 3]), (u64::MAX, 9, vec![3])] {
        let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
        log.forget_before(index);
        log.close();
        log.run_writer(|event| panic!("{event:?}")).unwrap();
        assert_eq!(segment::list(folder.path()).unwrap(), segments);
        assert_eq!(segment::list_firsts(folder.path()).unwrap(), segments[..1]);
        assert_eq!(contents(folder.path()), chats(first..=10));
    }
}

#[test]
fn what_was_queued_before_is_durable_before_anything_is_forgotten() {
    let disk = Arc::new(BadDisk { fails_sync: true, ..BadDisk::default() });
    let folder = filled();
    let (log, _) =
        FileLog::open_on(disk, folder.path(), small(), OnDamage::Refuse, |_: Vec<Message>| ())
            .unwrap();
    log.append(&chat(11));
    log.forget_before(11);
    log.close();
    log.run_writer(|event| panic!("{event:?}")).unwrap_err();
    assert_eq!(segment::list(folder.path()).unwrap(), [1, 2, 3]);
}

#[test]
fn a_large_snapshot_lets_records_go_first() {
    let (begins_in, begins) = unbounded();
    let (may_end, may_end_out) = unbounded();
    let disk = Arc::new(BadDisk { gate: Some((begins_in, may_end_out)), ..BadDisk::default() });
    let running = Running::on(&disk, small());
    running.log.save_snapshot(1, Contents::new("head", &vec![7; 2 * PIECE_BYTES + 1]));
    running.log.wake();
    begins.recv_timeout(DEADLINE).unwrap(); // The first of three pieces is being synced.
    running.append(1);
    for _ in 0..4 {
        may_end.send(()).unwrap();
    }
    assert_eq!(running.event(), LogEvent::Synced(1));
    assert_eq!(running.event(), LogEvent::SnapshotSaved(1));
    running.end().unwrap();
}

#[test]
fn a_snapshot_that_finds_no_space_is_given_up_and_the_log_goes_on() {
    let disk = Arc::new(BadDisk { full_writes: 1.into(), ..BadDisk::default() });
    let running = Running::on(&disk, small());
    running.log.save_snapshot(4, Contents::new("head", b"state"));
    running.append(1);
    let reason = "No space left on device (os error 28)".into();
    assert_eq!(running.event(), LogEvent::SnapshotNotSaved { seq: 4, reason });
    assert_eq!(running.event(), LogEvent::Synced(1));
    running.log.save_snapshot(4, Contents::new("head", b"state"));
    running.log.wake();
    assert_eq!(running.event(), LogEvent::SnapshotSaved(4));
    running.end().unwrap();
    let names = fs::read_dir(running.folder.path()).unwrap().count();
    assert_eq!(names, 2, "nothing is left of the first try");
}
