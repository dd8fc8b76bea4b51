//! What a log holds after a crash, and what to do when it is damaged.
//!
//! ```text
//!   {"crc":…}\n {"crc":…}\n {"crc":…}\n {"cr        a torn tail: cut off, nobody was told of it
//!   {"crc":…}\n {"cXc":…}\n {"crc":…}\n             damage: refused, or repaired
//!   └ kept ───┘└ set aside, later segments too ┘
//! ```
//!
//! Only the last line of the last segment may lack its newline: a crash in the middle of a write leaves that,
//! and the line was never reported durable. A complete line that is not as it was written is damage wherever it
//! stands. Whoever was told that it is durable relies on it, so nothing is dropped in silence: the start is
//! refused until an operator asks for the repair, or the design has asked for it beforehand because it can do
//! without what is lost: [`OnDamage`].
//!
//! A disk that cannot be read is not damage: it may be read well the next time, or from another machine. The
//! start ends, and nothing is set aside.
//!
//! The repair keeps what stands before the damage. A log is written in the order of delivery, so each of its
//! prefixes is causally closed; what stands after the damage is not, hence it goes aside as a whole. A
//! crash in the middle of a repair leaves the damage in place, or the end of the log where the damage was; never a
//! log with a hole that looks sound.
//!
//! Leaves out: a disk that after a power cut keeps the end of an unsynced write and not its beginning. That looks
//! like damage and is treated so, although nobody was told of those records.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::block::{End, Scan};
use super::places::{Place, Places};
use super::read_ahead::{Blocks, Reading};
use super::{LogIndex, Part, segment};
use crate::error::StartError;

/// What to do with a damaged log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// Do not start: [`StartError::DamagedLog`] names the file, the line and `--repair`. Nothing is changed.
    Refuse,
    /// Keep what stands before the damage, set aside what follows. The server must count as wiped then; see
    /// [`DataFolder::open_log`](super::DataFolder::open_log).
    SetAside,
}

/// What was found in the log, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many records were read.
    pub records: u64,
    /// How many segments they stand in.
    pub segments: u64,
    /// The number of the first segment; those before it are forgotten.
    pub first_segment: u64,
    /// How much of an unfinished last line was cut off, in bytes; 0 when the log ended with a line.
    pub torn_bytes: u64,
    /// Which line was damaged and how, in a sentence, when the log was repaired.
    pub damage: Option<String>,
    /// The files that were set aside by the repair, under their new names.
    pub set_aside: Vec<PathBuf>,
}

impl Recovery {
    /// The number of the segment to append to.
    pub(super) fn tail(&self) -> u64 {
        self.first_segment + self.segments.saturating_sub(1)
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records in {} segments", self.records, self.segments)?;
        if self.torn_bytes > 0 {
            write!(f, "; cut off {} bytes of an unfinished last line", self.torn_bytes)?;
        }
        if let Some(damage) = &self.damage {
            let names: Vec<String> =
                self.set_aside.iter().map(|path| path.display().to_string()).collect();
            write!(f, "; repaired ({damage}); set aside: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// Where a log is damaged.
struct Damage {
    /// The segment.
    number: u64,
    /// How much of it is sound, in bytes; `None` when the file is missing.
    good_bytes: Option<u64>,
    line: u64,
    reason: String,
}

/// Reads the log in `folder`, hands its records to `take` in order, part by part, and cuts off a torn tail. Damage
/// is an error, or is repaired when `on_damage` says so. Returns where the records stand, besides.
pub(super) fn recover<P: Part>(
    folder: &Path,
    on_damage: OnDamage,
    reading: Reading,
    take: &mut dyn FnMut(P),
) -> Result<(Recovery, Places), StartError> {
    let (first, numbers) =
        remove_forgotten(folder).map_err(|error| unusable(folder, "tidy", error))?;
    let mut recovery = Recovery { first_segment: first, ..Recovery::default() };
    let mut places = Places::default();
    let damage = reading.ahead(folder, &numbers, |blocks| {
        take_segments(folder, &numbers, blocks, &mut recovery, &mut places, take)
    })?;
    if let Some(damage) = damage {
        recovery = settle(folder, &numbers, damage, on_damage, recovery)?;
    }
    Ok((recovery, places))
}

/// Takes the segments `numbers`, up to the end of the log or the first damage, which it returns.
fn take_segments<P: Part>(
    folder: &Path,
    numbers: &[u64],
    blocks: &mut Blocks<P>,
    recovery: &mut Recovery,
    places: &mut Places,
    take: &mut dyn FnMut(P),
) -> Result<Option<Damage>, StartError> {
    let first = recovery.first_segment;
    // A log that was said to begin somewhere has at least that segment.
    let has_none = first > 1 && numbers.is_empty();
    let expected = numbers.iter().copied().chain(has_none.then_some(0));
    for (number, found) in (first..).zip(expected) {
        let path = folder.join(segment::file_name(number));
        if found != number {
            let reason = "the file is missing".into();
            return Ok(Some(Damage { number, good_bytes: None, line: 1, reason }));
        }
        let taken = take_segment(number, blocks, recovery, places, take)
            .map_err(|error| unusable(&path, "read", error))?;
        recovery.segments += 1;
        let is_last = numbers.last() == Some(&number);
        let reason = match taken.end {
            End::Whole => continue,
            End::Torn { bytes } if is_last => {
                cut(&path, taken.good_bytes).map_err(|error| unusable(&path, "cut", error))?;
                log::warn!("{}: cut off {bytes} bytes of an unfinished last line", path.display());
                recovery.torn_bytes = bytes;
                continue;
            }
            End::Torn { .. } => "it has no end, and a later segment follows".into(),
            End::Damaged { reason } => reason,
        };
        let line = taken.records + 1;
        return Ok(Some(Damage { number, good_bytes: Some(taken.good_bytes), line, reason }));
    }
    Ok(None)
}

/// What was taken of a segment, up to its end or the first fault.
struct Taken {
    records: u64,
    good_bytes: u64,
    end: End,
}

/// Takes the blocks of segment `number`, which are the next ones.
fn take_segment<P: Part>(
    number: u64,
    blocks: &mut Blocks<P>,
    recovery: &mut Recovery,
    places: &mut Places,
    take: &mut dyn FnMut(P),
) -> io::Result<Taken> {
    let mut taken = Taken { records: 0, good_bytes: 0, end: End::Whole };
    while let Some((is_last, scan)) = blocks.take_next() {
        let scan = scan?;
        note_places(places, number, &scan, recovery.records + 1);
        recovery.records += scan.records;
        taken.records += scan.records;
        taken.good_bytes += scan.good_bytes;
        take(scan.part);
        if is_last || scan.end != End::Whole {
            taken.end = scan.end;
            break;
        }
    }
    Ok(taken)
}

/// Removes the segments that a crash has left of those that were forgotten. Returns with which segment the log
/// begins, and the numbers of those that are there from it on.
fn remove_forgotten(folder: &Path) -> io::Result<(u64, Vec<u64>)> {
    let firsts = segment::list_firsts(folder)?;
    let first = firsts.last().copied().unwrap_or(1);
    let numbers = segment::list(folder)?;
    let (old, kept): (Vec<u64>, Vec<u64>) = numbers.into_iter().partition(|n| *n < first);
    let old = old.into_iter().map(segment::file_name);
    let old_firsts = firsts.into_iter().filter(|n| *n < first).map(segment::first_name);
    for name in old.chain(old_firsts) {
        log::info!("removing {name}, which is forgotten");
        fs::remove_file(folder.join(name))?;
    }
    Ok((first, kept))
}

/// Notes where the records of the next block of segment `number` stand, of which the first has index `first`.
fn note_places<P>(places: &mut Places, number: u64, scan: &Scan<P>, first: LogIndex) {
    let shift = |place: &Place| Place { index: place.index + first, ..*place };
    let marks: Vec<Place> = scan.places.iter().map(shift).collect();
    places.extend(number, &marks, first + scan.records, scan.good_bytes);
}

/// Repairs the `damage`, or refuses to start with it.
fn settle(
    folder: &Path,
    numbers: &[u64],
    damage: Damage,
    on_damage: OnDamage,
    mut recovery: Recovery,
) -> Result<Recovery, StartError> {
    let path = folder.join(segment::file_name(damage.number));
    if on_damage == OnDamage::Refuse {
        return Err(StartError::DamagedLog { path, line: damage.line, reason: damage.reason });
    }
    let sentence = format!("{} line {}: {}", path.display(), damage.line, damage.reason);
    recovery.set_aside =
        set_aside(folder, numbers, &damage).map_err(|error| unusable(&path, "set aside", error))?;
    log::warn!("repaired the log: {sentence}");
    for aside in &recovery.set_aside {
        log::warn!("set aside {}", aside.display());
    }
    recovery.damage = Some(sentence);
    Ok(recovery)
}

/// Moves the damaged segment and all after it aside, and writes the sound part of the former anew.
///
/// The damage goes last: until then a crash leaves it in the way of the next start. Each step is durable
/// before the next one, and a file has its new name before it loses the old one.
fn set_aside(folder: &Path, numbers: &[u64], damage: &Damage) -> io::Result<Vec<PathBuf>> {
    let later = numbers.iter().filter(|number| **number > damage.number);
    let later: Vec<PathBuf> =
        later.map(|number| folder.join(segment::file_name(*number))).collect();
    let mut aside = Vec::new();
    for path in &later {
        aside.push(segment::link_aside(path)?);
    }
    segment::sync_folder(folder)?;
    for path in &later {
        fs::remove_file(path)?;
    }
    segment::sync_folder(folder)?;
    if let Some(good_bytes) = damage.good_bytes {
        let path = folder.join(segment::file_name(damage.number));
        let anew = path.with_extension("repaired");
        let mut file = File::create(&anew)?;
        io::copy(&mut File::open(&path)?.take(good_bytes), &mut file)?;
        file.sync_all()?;
        aside.insert(0, segment::link_aside(&path)?);
        segment::sync_folder(folder)?;
        // In one step, so that the sound part is there under this name at every moment.
        fs::rename(&anew, &path)?;
        segment::sync_folder(folder)?;
    }
    Ok(aside)
}

/// Shortens the file at `path` to its first `bytes`, durably.
fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(bytes)?;
    file.sync_all()
}

/// The log cannot be used: `tried` failed at `path`.
pub(super) fn unusable(path: &Path, tried: &str, source: io::Error) -> StartError {
    let problem = format!("cannot {tried} it; check its owner, its rights and the disk");
    StartError::Data { path: path.into(), problem, source: Some(source) }
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
