//! A part of a segment, read and checked for itself: a line belongs to the block in which it begins.
//!
//! ```text
//!   segment   {…}\n{…}\n{…  …}\n{…}\n{…  …  …  …}\n{…}\n
//!             ├── block 1 ──┼── block 2 ──┼─ block 3 ─┤
//!   lines      1    2    3      4    5                6       the third and the fifth go on in the next block
//! ```
//!
//! Where lines begin can be seen anywhere in a file: behind a newline, which no record has in it. So blocks can be read
//! in any order, by several threads; what they give is put together in the order of the log.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::path::Path;

use super::places::Place;
use super::{Line, Part};

/// Behind a block its last line is looked for in pieces of this size, in bytes.
const MORE_BYTES: u64 = 16 * 1024;

/// How the reading of a block or a segment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// After a complete line, or with nothing.
    Whole,
    /// In the middle of the segment's last line.
    Torn {
        /// How much of that line there is, in bytes.
        bytes: u64,
    },
    /// At a complete line that is not as it was written.
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
}

/// What was found in a block, up to its end or the first fault.
#[derive(Debug)]
pub struct Scan<P> {
    /// What its sound records say.
    pub part: P,
    /// How many they are.
    pub records: u64,
    /// How long they are together, in bytes.
    pub good_bytes: u64,
    /// Where some of them begin, the first one included; indices count from 0 here, and offsets from the first one.
    pub places: Vec<Place>,
    /// What came after them.
    pub end: End,
}

/// Reads the lines of the segment at `path` that begin at `start` or later and before `end`, offsets in bytes. `buffer` is
/// there to be used again.
pub fn read<P: Part>(
    path: &Path,
    start: u64,
    end: u64,
    buffer: &mut Vec<u8>,
) -> io::Result<Scan<P>> {
    let mut file = File::open(path)?;
    // A line begins at `start` if the byte before says so.
    let from = start.saturating_sub(1);
    file.seek(SeekFrom::Start(from))?;
    buffer.clear();
    (&mut file).take(end - from).read_to_end(buffer)?;
    let first = if start == 0 { Some(0) } else { first_line(buffer) };
    // Without one, all of it belongs to a line of an earlier block.
    let Some(first) = first else { return Ok(scan(&[])) };
    complete(&mut file, buffer)?;
    Ok(scan(&buffer[first..]))
}

/// Appends what `file` holds of the last line in `buffer`.
fn complete(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<()> {
    while buffer.last().is_some_and(|last| *last != b'\n') {
        let known = buffer.len();
        if file.take(MORE_BYTES).read_to_end(buffer)? == 0 {
            break;
        }
        if let Some(length) = first_line(&buffer[known..]) {
            buffer.truncate(known + length);
        }
    }
    Ok(())
}

/// How long the first line of `bytes` is, its newline included; `None` when it has none.
fn first_line(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let length = rest.skip_until(b'\n').ok()?;
    bytes[..length].ends_with(b"\n").then_some(length)
}

/// Checks and reads `lines`, of which the last one may lack its end.
pub(super) fn scan<P: Part>(lines: &[u8]) -> Scan<P> {
    let (part, places) = (P::default(), Vec::new());
    let mut scan = Scan { part, records: 0, good_bytes: 0, places, end: End::Whole };
    let mut rest = lines;
    while !rest.is_empty() {
        let Some(length) = first_line(rest) else {
            scan.end = End::Torn { bytes: rest.len() as u64 };
            break;
        };
        let line = Line::check(&rest[..length - 1]);
        if let Err(reason) = line.and_then(|line| scan.part.read(&line)) {
            scan.end = End::Damaged { reason };
            break;
        }
        let place = Place { index: scan.records, offset: scan.good_bytes };
        if scan.places.last().is_none_or(|last| last.is_far_from(&place)) {
            scan.places.push(place);
        }
        scan.records += 1;
        scan.good_bytes += length as u64;
        rest = &rest[length..];
    }
    scan
}
