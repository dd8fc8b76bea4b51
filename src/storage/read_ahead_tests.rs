//! Tests of the blocks of a log: however it is cut, and whoever reads, the same is found.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::domain::Message;
use crate::storage::block::End;
use crate::storage::file_log::tests::{chat, filled, segment_path};
use crate::storage::{Line, record};

/// What is found in each segment: the messages, their length in bytes, and the end.
fn found(folder: &Path, reading: Reading) -> Vec<(Vec<Message>, u64, End)> {
    let numbers = segment::list(folder).unwrap();
    reading.ahead(folder, &numbers, |blocks: &mut Blocks<Vec<Message>>| {
        let mut all = vec![(Vec::new(), 0, End::Whole)];
        while let Some((is_last, scan)) = blocks.take_next() {
            let scan = scan.unwrap();
            let (messages, bytes, end) = all.last_mut().unwrap();
            assert_eq!(scan.records, scan.part.len() as u64);
            // Behind a fault its segment is not wanted.
            if *end == End::Whole {
                messages.extend(scan.part);
                *bytes += scan.good_bytes;
                *end = scan.end;
            }
            if is_last {
                all.push((Vec::new(), 0, End::Whole));
            }
        }
        all.pop();
        all
    })
}

/// Lengths of blocks for a log of lines of 108 bytes.
const LENGTHS: [u64; 7] = [1, 2, 50, 107, 108, 109, BLOCK_BYTES];
/// Behind a block its last line is looked for in pieces of this length.
const MORE_BYTES: usize = 16 * 1024;

/// Expects that the log is the same in blocks of these `lengths` as in one block, which is returned.
#[track_caller]
fn expect_the_same(folder: &Path, lengths: &[u64]) -> Vec<(Vec<Message>, u64, End)> {
    let whole = found(folder, Reading { workers: 0, block_bytes: u64::MAX / 2 });
    for block_bytes in lengths.iter().copied() {
        for workers in [0, 1, 3] {
            let cut = found(folder, Reading { workers, block_bytes });
            assert_eq!(cut, whole, "{workers} workers, blocks of {block_bytes} bytes");
        }
    }
    whole
}

#[test]
fn a_log_may_be_cut_anywhere() {
    let folder = filled();
    expect_the_same(folder.path(), &LENGTHS);
    let mut long = chat(11);
    long.content = "x".repeat(3 * MORE_BYTES).as_str().into();
    let mut lines = Vec::new();
    for chat in [chat(10), long, chat(12)] {
        record::encode(&chat, &mut lines);
    }
    fs::write(segment_path(folder.path(), 4), &lines).unwrap();
    fs::write(segment_path(folder.path(), 5), "").unwrap();
    let all = expect_the_same(folder.path(), &[60, 108, 400, 20_000, BLOCK_BYTES]);
    let counts: Vec<usize> = all.iter().map(|(messages, ..)| messages.len()).collect();
    assert_eq!(counts, [4, 4, 2, 3, 0]);
    assert_eq!(all[3].1, lines.len() as u64);
    assert!(all.iter().all(|(.., end)| *end == End::Whole));
}

#[test]
fn a_fault_is_found_in_the_block_where_its_line_begins() {
    let folder = filled();
    let path = segment_path(folder.path(), 2);
    let text = fs::read(&path).unwrap();
    let line = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    // The newline that is missing makes one line of two.
    let mut joined = text.clone();
    joined[line - 1] = b' ';
    let mut flipped = text.clone();
    flipped[line + 40] ^= 1;
    for (damaged, records) in [(joined, 0), (flipped, 1)] {
        fs::write(&path, damaged).unwrap();
        let (messages, bytes, end) = expect_the_same(folder.path(), &LENGTHS).swap_remove(1);
        assert_eq!((messages.len(), bytes), (records, (records * line) as u64));
        assert!(matches!(end, End::Damaged { .. }), "{end:?}");
    }
    for left in [1, 17, line - 1] {
        let torn = [&text[..2 * line], &text[..left]].concat();
        fs::write(&path, torn).unwrap();
        let (messages, bytes, end) = expect_the_same(folder.path(), &LENGTHS).swap_remove(1);
        assert_eq!((messages.len(), bytes), (2, 2 * line as u64));
        assert_eq!(end, End::Torn { bytes: left as u64 });
    }
}

#[test]
fn what_cannot_be_read_comes_in_its_turn() {
    let folder = filled();
    let blocks_before = |workers| {
        let reading = Reading { workers, block_bytes: 100 };
        reading.ahead(folder.path(), &[1, 2, 7], |blocks: &mut Blocks<Vec<Message>>| {
            let mut messages = 0;
            loop {
                match blocks.take_next().unwrap().1 {
                    Ok(scan) => messages += scan.part.len(),
                    Err(error) => return (messages, error.kind()),
                }
            }
        })
    };
    for workers in [0, 1, 3] {
        assert_eq!(blocks_before(workers), (8, io::ErrorKind::NotFound));
    }
}

static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// Counts the blocks that were begun.
struct Counted;

impl Default for Counted {
    fn default() -> Self {
        BEGUN.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Part for Counted {
    fn read(&mut self, _: &Line) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn no_more_is_read_ahead_than_was_said() {
    let folder = filled();
    let reading = Reading { workers: 2, block_bytes: 10 };
    let taken = reading.ahead(folder.path(), &[1, 2, 3], |blocks: &mut Blocks<Counted>| {
        let mut taken = 0;
        while let Some((_, scan)) = blocks.take_next() {
            scan.unwrap();
            taken += 1;
            let begun = BEGUN.load(Ordering::Relaxed);
            assert!(begun < taken + 2 * AHEAD_PER_WORKER, "{begun} begun, {taken} taken");
            thread::yield_now();
        }
        taken
    });
    assert_eq!(BEGUN.load(Ordering::Relaxed), taken);
    assert!(taken > 100, "{taken}");
}

/// Panics in whichever thread reads it.
#[derive(Default)]
struct Fragile;

impl Part for Fragile {
    fn read(&mut self, _: &Line) -> Result<(), String> {
        panic!("glass")
    }
}

#[test]
fn a_panic_of_a_worker_is_not_taken_for_a_short_log() {
    let folder = filled();
    let reading = Reading { workers: 2, block_bytes: 100 };
    let mut seen = None;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        reading.ahead(folder.path(), &[1, 2, 3], |blocks: &mut Blocks<Fragile>| {
            seen = blocks.take_next().map(|(_, scan)| scan.is_err());
        });
    }));
    assert_eq!((ended.is_err(), seen), (true, Some(true)));
}
