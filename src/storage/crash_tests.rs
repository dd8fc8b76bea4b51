//! A crash at every call to the disk, while records are written, forgotten, and snapshots saved.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::crash_disk::{CrashDisk, Keeps};
use super::file_log::tests::{chat, chats, contents, fill, reopen, small};
use super::snapshot::{self, Contents, Snapshot};
use super::{FileLog, LogEvent, LogIndex, LogOptions, OnDamage, Storage, segment};
use crate::domain::Message;

/// What the server was told before the crash.
#[derive(Debug, Default)]
struct Told {
    synced: LogIndex,
    saved: u64,
    /// Whether everything was done.
    finished: bool,
}

fn state(seq: u64) -> Contents {
    Contents::new(&format!("{seq}"), format!("the state after {seq}").as_bytes())
}

/// What record `seq` was told to be forgotten behind: `(after which record, before which)`.
const FORGETS: [(u64, u64); 3] = [(17, 9), (20, 15), (22, 22)];
const SNAPSHOTS: [u64; 3] = [10, 15, 21];

/// A log of 10 records in 3 segments, and a snapshot.
fn before() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    log.save_snapshot(3, state(3));
    log.close();
    log.run_writer(|_| ()).unwrap();
    fill(folder.path(), small(), &chats(1..=10));
    folder
}

fn copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// Goes on to 25 records, with three snapshots, and forgets three times.
fn live(disk: &Arc<CrashDisk>, folder: &Path) -> Told {
    let (log, _) =
        FileLog::open_on(disk.clone(), folder, small(), OnDamage::Refuse, |_: Vec<Message>| ())
            .unwrap();
    for seq in 11..=25 {
        assert_eq!(log.append(&chat(seq)), seq);
        if SNAPSHOTS.contains(&seq) {
            log.save_snapshot(seq, state(seq));
        }
        for (_, before) in FORGETS.iter().filter(|(after, _)| *after == seq) {
            log.forget_before(*before);
        }
    }
    log.close();
    let mut told = Told::default();
    let written = log.run_writer(|event| match event {
        LogEvent::Synced(index) => told.synced = index,
        LogEvent::SnapshotSaved(seq) => told.saved = seq,
        other => panic!("{other:?}"),
    });
    told.finished = written.is_ok();
    told
}

/// Checks what a start finds in `folder`, and that it goes on from there.
fn check(folder: &Path, told: &Told, context: &str) {
    let found = snapshot::load(folder).unwrap();
    assert!(found.set_aside.is_empty(), "{context}: {found:?}");
    let Snapshot { seq, contents: saved } = found.newest.expect("there was one before");
    assert!(seq >= told.saved, "{context}: {seq} is older than {told:?}");
    assert_eq!(saved, state(seq), "{context}");

    let read = match reopen(folder, OnDamage::Refuse) {
        Ok((_, read, _)) => read,
        Err(error) => panic!("{context}: {error}"),
    };
    let number =
        |message: &Message| message.message_id.trim_start_matches("a-").parse::<u64>().unwrap();
    let (first, last) = (number(&read[0]), number(read.last().unwrap()));
    assert_eq!(read, chats(first..=last), "{context}");
    assert!(last >= told.synced, "{context}: {last} is not {told:?}");
    // Forgotten is only what was said, and only when everything before that call was durable.
    let allowed = FORGETS.iter().filter(|(after, _)| *after <= last).map(|(_, before)| *before);
    assert!(first <= allowed.max().unwrap_or(1), "{context}: {first}, {told:?}");
    let firsts = segment::list_firsts(folder).unwrap();
    let segments = segment::list(folder).unwrap();
    assert_eq!(segments[0], firsts.last().copied().unwrap_or(1), "{context}: nothing is left");

    fill(folder, LogOptions { batch_bytes: 300, ..small() }, &chats(100..=105));
    let read = contents(folder);
    assert_eq!(read, chats((first..=last).chain(100..=105)), "{context}");
}

#[test]
fn a_crash_at_any_call_leaves_what_was_synced_and_forgets_nothing_else() {
    let before = before();
    for keeps in [Keeps::Everything, Keeps::Nothing, Keeps::EverySecondChange] {
        let mut finished = 0;
        for calls in 0.. {
            let folder = copy(before.path());
            let disk = Arc::new(CrashDisk::after(calls));
            let told = live(&disk, folder.path());
            disk.lose_power(folder.path(), keeps);
            check(folder.path(), &told, &format!("{keeps:?} after {calls} calls"));
            if told.finished {
                finished = disk.calls();
                assert_eq!((told.synced, told.saved, finished), (25, 21, calls));
                break;
            }
        }
        assert!(finished > 60, "{finished} calls are not all that was asked for");
    }
}

#[test]
fn without_a_crash_what_is_forgotten_is_gone() {
    let folder = before();
    let told = live(&Arc::new(CrashDisk::after(usize::MAX)), folder.path());
    check(folder.path(), &told, "no crash");
    // Segments hold up to four records; 22 is the second of its own.
    assert_eq!(contents(folder.path())[0], chat(21));
    let found = snapshot::load(folder.path()).unwrap();
    assert_eq!(found.newest.map(|snapshot| snapshot.seq), Some(21));
    assert!(folder.path().join(snapshot::file_name(15)).exists());
    assert!(!folder.path().join(snapshot::file_name(10)).exists());
}
