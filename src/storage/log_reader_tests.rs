//! Tests of reading back, while the log is written and forgotten.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::super::file_log::tests::{chat, chats, filled, reopen, segment_path, small};
use super::super::snapshot::Contents;
use super::super::{LogOptions, OnDamage, Storage};
use super::*;
use crate::threads::Threads;

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// Reads at once, in the thread of the test.
fn read(log: &FileLog, from: LogIndex, bytes_max: usize) -> (LogIndex, Vec<Message>) {
    match log.answer(Request { token: 7, from, bytes_max }).unwrap() {
        LogEvent::Read { token: 7, from, records } => (from, records),
        other => panic!("{other:?}"),
    }
}

/// Writes everything that waits, and ends the writer.
fn write_all(log: &FileLog) {
    log.close();
    log.run_writer(|_| ()).unwrap();
}

#[test]
fn records_are_read_from_any_place_across_segments() {
    let folder = filled();
    let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    for from in 0..=10 {
        assert_eq!(read(&log, from, usize::MAX), (from.max(1), chats(from.max(1)..=10)));
    }
    for from in [11, 12, u64::MAX] {
        assert_eq!(read(&log, from, usize::MAX), (from, vec![]));
    }
}

#[test]
fn an_answer_keeps_to_its_size_but_has_one_record_at_least() {
    let folder = filled();
    let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    let mut line = Vec::new();
    record::encode(&chat(3), &mut line);
    for (bytes_max, last) in [
        (0, 3),
        (line.len() - 1, 3),
        (line.len(), 3),
        (2 * line.len() - 1, 3),
        (2 * line.len(), 4),
        (3 * line.len(), 5), // In the next segment.
    ] {
        assert_eq!(read(&log, 3, bytes_max), (3, chats(3..=last)), "{bytes_max}");
    }
}

#[test]
fn what_is_appended_is_read_once_it_is_durable() {
    let folder = filled();
    let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    for number in 11..=20 {
        log.append(&chat(number));
    }
    assert_eq!(read(&log, 9, usize::MAX), (9, chats(9..=10)));
    write_all(&log);
    assert_eq!(read(&log, 9, usize::MAX), (9, chats(9..=20)));
}

#[test]
fn what_is_forgotten_is_skipped() {
    let folder = filled();
    let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    log.append(&chat(11));
    log.forget_before(6);
    write_all(&log);
    assert_eq!(read(&log, 2, usize::MAX), (5, chats(5..=11)));
    let (log, found, recovery) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    assert_eq!((found, recovery.first_segment), (chats(5..=11), 2));
    assert_eq!(read(&log, 1, usize::MAX), (1, chats(5..=11)), "a start numbers anew");
}

/// 20,000 records in batches of 5000 at most, in several segments: enough for places in the midst of batches.
fn many() -> (tempfile::TempDir, LogOptions) {
    let folder = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 1_500_000, batch_bytes: 500_000, ..small() };
    (folder, options)
}

#[test]
fn places_lead_to_the_right_record_as_written_and_as_recovered() {
    let (folder, options) = many();
    let open =
        || FileLog::open(folder.path(), options.clone(), OnDamage::Refuse, |_| ()).unwrap().0;
    let log = open();
    for number in 1..=20_000 {
        log.append(&chat(number));
    }
    write_all(&log);
    assert!(segment::list(folder.path()).unwrap().len() > 1);
    for log in [log, open()] {
        let mut skipped_max = 0;
        for from in (1..=20_000).step_by(97) {
            let span = log.find(from).unwrap();
            skipped_max = skipped_max.max(from - span.place.index);
            assert_eq!(read(&log, from, 1), (from, chats([from])));
        }
        // A batch marks its places from its own beginning, hence twice the distance at most.
        assert!((1000..2 * 4096).contains(&skipped_max), "{skipped_max} lines are skipped");
        assert_eq!(read(&log, 19_000, usize::MAX).1.len(), 1001);
    }
}

#[test]
fn a_damaged_line_ends_the_reader_and_is_named() {
    let folder = filled();
    let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    let path = segment_path(folder.path(), 2);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("a-7", "a-8")).unwrap();
    assert_eq!(read(&log, 5, 1), (5, chats([5])));
    let error = log.answer(Request { token: 1, from: 5, bytes_max: usize::MAX }).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("00000002.jsonl: line 3 is damaged: its checksum"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = log.answer(Request { token: 1, from: 5, bytes_max: 1 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn the_reader_answers_in_order_beside_the_writer_until_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    let log = Arc::new(log);
    let threads = Threads::new("t");
    let (events_in, events) = unbounded();
    let (ended_in, ended) = bounded(1);
    let (reader, stop) = (log.clone(), threads.stopped().clone());
    let read_in = events_in.clone();
    threads
        .spawn("reader", move || {
            let end = reader.run_reader(&stop, |event| read_in.send(event).unwrap());
            ended_in.send(end).unwrap();
        })
        .unwrap();
    let writer = log.clone();
    threads
        .spawn("writer", move || {
            writer.run_writer(|event| events_in.send(event).unwrap()).unwrap();
        })
        .unwrap();
    // Each round appends three records, waits for them, reads them, and forgets what is older.
    for round in 0..50 {
        let first = 3 * round + 1;
        for number in first..first + 3 {
            log.append(&chat(number));
        }
        log.wake();
        while events.recv_timeout(DEADLINE).unwrap() != LogEvent::Synced(first + 2) {}
        log.request_read(round, first, usize::MAX);
        log.request_read(round, first + 2, usize::MAX);
        log.forget_before(first);
        for from in [first, first + 2] {
            let records = chats(from..first + 3);
            let wanted = LogEvent::Read { token: round, from, records };
            assert_eq!(events.recv_timeout(DEADLINE).unwrap(), wanted);
        }
    }
    // Whoever asks for a snapshot has returned long before its bytes are made.
    let (go, wait) = bounded::<()>(0);
    let make = move || {
        wait.recv().unwrap();
        Contents::new("head", b"state")
    };
    log.make_snapshot(150, Box::new(make));
    log.append(&chat(151));
    log.wake();
    assert_eq!(events.recv_timeout(DEADLINE).unwrap(), LogEvent::Synced(151));
    go.send(()).unwrap();
    assert_eq!(events.recv_timeout(DEADLINE).unwrap(), LogEvent::SnapshotSaved(150));
    threads.stop();
    ended.recv_timeout(DEADLINE).unwrap().unwrap();
    log.close();
    assert!(threads.join(DEADLINE));
    let saved = super::super::snapshot::load(folder.path()).unwrap().newest.unwrap();
    assert_eq!((saved.seq, saved.contents), (150, Contents::new("head", b"state")));
    let (_, kept, _) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    assert!(kept.len() < 10, "{} are left", kept.len());
}
