//! Snapshots: the state after some place of the order, instead of the history that led there.
//!
//! ```text
//!   log/00000420.snapshot
//!   {"snapshot":420,"bytes":1234,"crc":"89abcdef"}\n     the checksum covers the rest of this line, too
//!   … 1234 bytes: a line and the state, whatever the design writes …
//! ```
//!
//! Promise: a crash at any moment leaves the old snapshots or the new one as well, never a half of one under the
//! name of a whole; a file that was cut short or in which one bit differs is found. Price: the state is in
//! memory as a whole, once, [packed](super::packed_bytes).
//!
//! It is written to `00000420.snapshot.new`, a piece at a time between the batches of the log, each piece synced, so
//! that a large one holds up no ACK; then it is renamed, and the folder is synced. The newest and one older are
//! kept. At a start a damaged one is set aside, and the older one is used.
//!
//! Leaves out: how far the log reaches back. Who forgets records must know which snapshot still needs them.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::PackedBytes;
use super::recovery::unusable;
use super::segment::{self, Disk};
use crate::error::StartError;

/// So much of a snapshot is written and synced at once, in bytes. The next batch of the log waits for it: pieces four times as large
/// halved the writes under full load while a snapshot was saved.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// Hex digits of the checksum.
const CRC_DIGITS: usize = 8;
/// The header without its newline is shorter than this, in bytes.
const HEADER_BYTES_MAX: usize = 100;

/// The name of the snapshot of place `seq`, such as `00000420.snapshot`.
pub fn file_name(seq: u64) -> String {
    format!("{seq:08}.snapshot")
}

/// What a design writes into a snapshot. Copies share the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// A line that tells of the state, without its newline.
    pub head: Vec<u8>,
    /// The state.
    pub state: Arc<PackedBytes>,
}

impl Contents {
    /// The line `head`, and behind it `state`.
    pub fn new(head: &str, state: &[u8]) -> Self {
        Self { head: head.into(), state: Arc::new(PackedBytes::new(state)) }
    }

    /// How long all of it is, in bytes.
    fn len(&self) -> usize {
        self.head.len() + 1 + self.state.len()
    }

    /// The checksum of `before` and all of it.
    fn crc_behind(&self, before: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        for bytes in [before, &self.head, b"\n"] {
            crc.update(bytes);
        }
        let state = &self.state;
        crc.combine(&crc32fast::Hasher::new_with_initial_len(state.crc(), state.len() as u64));
        crc.finalize()
    }
}

/// A snapshot that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The place in the order after which this is the state.
    pub seq: u64,
    /// What the design wrote.
    pub contents: Contents,
}

/// What a start found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshots {
    /// The newest one that is sound.
    pub newest: Option<Snapshot>,
    /// Newer ones that are damaged, under the names that they have now. When there are any, what the log no longer holds
    /// may be lost: look whether it reaches back to `newest`.
    pub set_aside: Vec<PathBuf>,
}

/// Reads the newest sound snapshot in the folder of a log, before that is opened. A damaged one is set
/// aside with a warning. One that cannot be read is an error, not damage.
pub fn load(folder: &Path) -> Result<Snapshots, StartError> {
    let mut found = Snapshots::default();
    if !folder.exists() {
        return Ok(found);
    }
    let seqs =
        segment::numbered(folder, file_name).map_err(|error| unusable(folder, "list", error))?;
    for seq in seqs.into_iter().rev() {
        let path = folder.join(file_name(seq));
        let file = File::open(&path).map_err(|error| unusable(&path, "read", error))?;
        let read = decode(BufReader::new(file), seq);
        match read.map_err(|error| unusable(&path, "read", error))? {
            Ok(snapshot) => {
                found.newest = Some(snapshot);
                break;
            }
            Err(reason) => {
                let aside = set_aside(&path, folder)
                    .map_err(|error| unusable(&path, "set aside", error))?;
                let (path, name) = (path.display(), aside.display());
                log::warn!("the snapshot {path} is damaged: {reason}; set aside as {name}");
                found.set_aside.push(aside);
            }
        }
    }
    Ok(found)
}

fn set_aside(path: &Path, folder: &Path) -> io::Result<PathBuf> {
    let aside = segment::link_aside(path)?;
    segment::sync_folder(folder)?;
    fs::remove_file(path)?;
    segment::sync_folder(folder)?;
    Ok(aside)
}

/// The first line of the snapshot of place `seq`.
fn header(seq: u64, contents: &Contents) -> Vec<u8> {
    let mut line = format!("{{\"snapshot\":{seq},\"bytes\":{},\"crc\":\"", contents.len());
    let digits = format!("{:08x}", contents.crc_behind(line.as_bytes()));
    debug_assert_eq!(digits.len(), CRC_DIGITS);
    line.push_str(&digits);
    line.push_str("\"}\n");
    line.into_bytes()
}

/// Reads the file of the snapshot of place `seq`. The inner error says what is wrong with it.
fn decode(mut file: impl BufRead, seq: u64) -> io::Result<Result<Snapshot, String>> {
    let mut begins = Vec::new();
    file.by_ref().take(HEADER_BYTES_MAX as u64).read_until(b'\n', &mut begins)?;
    if begins.last() != Some(&b'\n') {
        return Ok(Err("its first line has no end".into()));
    }
    let (mut head, mut state) = (Vec::new(), PackedBytes::default());
    file.read_until(b'\n', &mut head)?;
    // Where it has no newline the length is another one than that of what was written.
    head.pop_if(|last| *last == b'\n');
    io::copy(&mut file, &mut state)?;
    let contents = Contents { head, state: Arc::new(state) };
    // The checksum covers the place and the length, too: a header that differs in any byte is another one.
    let wanted = header(seq, &contents);
    if begins == wanted {
        return Ok(Ok(Snapshot { seq, contents }));
    }
    let line = |header: &[u8]| String::from_utf8_lossy(header).trim_end().to_string();
    Ok(Err(format!("it begins with {}, but what it holds gives {}", line(&begins), line(&wanted))))
}

/// A snapshot that is being written.
#[derive(Debug)]
pub(super) struct Saving {
    pub(super) seq: u64,
    state: Arc<PackedBytes>,
    file: File,
    folder: PathBuf,
    /// How much of `state` is written and synced.
    written: usize,
}

impl Saving {
    /// Begins to write the snapshot of place `seq`, over what a crash may have left of another try.
    pub(super) fn begin(
        disk: &dyn Disk,
        folder: &Path,
        seq: u64,
        contents: Contents,
    ) -> io::Result<Self> {
        let path = temporary(folder, seq);
        remove_if_there(disk, &path)?;
        let file = disk.create(&path)?;
        let mut lines = header(seq, &contents);
        lines.extend_from_slice(&contents.head);
        lines.push(b'\n');
        segment::write_all(disk, &file, &lines)?;
        Ok(Self { seq, state: contents.state, file, folder: folder.into(), written: 0 })
    }

    /// Writes the next piece durably. True when the snapshot is complete and has its name.
    pub(super) fn step(&mut self, disk: &dyn Disk) -> io::Result<bool> {
        let piece = self.state.get(self.written, PIECE_BYTES);
        segment::write_all(disk, &self.file, &piece)?;
        disk.sync(&self.file)?;
        self.written += piece.len();
        if self.written < self.state.len() {
            return Ok(false);
        }
        let name = self.folder.join(file_name(self.seq));
        disk.rename(&temporary(&self.folder, self.seq), &name)?;
        disk.sync_folder(&self.folder)?;
        Ok(true)
    }

    /// Removes the snapshots that are older than this one, except the newest of them, and what is left of
    /// tries that a crash has ended.
    pub(super) fn remove_older(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut older = segment::numbered(&self.folder, file_name)?;
        older.retain(|seq| *seq < self.seq);
        older.pop();
        let older = older.into_iter().map(file_name);
        let left = segment::numbered(&self.folder, temporary_name)?;
        for name in older.chain(left.into_iter().map(temporary_name)) {
            disk.remove(&self.folder.join(name))?;
        }
        Ok(())
    }
}

fn temporary_name(seq: u64) -> String {
    format!("{}.new", file_name(seq))
}

/// Where the snapshot of place `seq` is written before it has its name.
pub(super) fn temporary(folder: &Path, seq: u64) -> PathBuf {
    folder.join(temporary_name(seq))
}

/// Removes the file at `path`, if there is one.
pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::SystemDisk;
    use super::*;

    /// With the line "head" before `state`.
    fn save(folder: &Path, seq: u64, state: &[u8]) {
        let contents = Contents::new("head", state);
        let mut saving = Saving::begin(&SystemDisk, folder, seq, contents).unwrap();
        while !saving.step(&SystemDisk).unwrap() {}
        saving.remove_older(&SystemDisk).unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn snapshot(seq: u64, state: &[u8]) -> Snapshot {
        Snapshot { seq, contents: Contents::new("head", state) }
    }

    fn is_sound(file: &[u8], seq: u64) -> bool {
        decode(file, seq).unwrap().is_ok()
    }

    #[test]
    fn the_newest_snapshot_is_read_and_one_older_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(load(path).unwrap(), Snapshots::default());
        assert_eq!(load(&path.join("none")).unwrap(), Snapshots::default());
        for (seq, bytes) in [(7, "seven"), (20, ""), (100_000_000, "many\n")] {
            save(path, seq, bytes.as_bytes());
            let wanted =
                Snapshots { newest: Some(snapshot(seq, bytes.as_bytes())), set_aside: vec![] };
            assert_eq!(load(path).unwrap(), wanted);
        }
        assert_eq!(names(path), ["00000020.snapshot", "100000000.snapshot"]);
        let text = fs::read_to_string(path.join("100000000.snapshot")).unwrap();
        let (line, rest) = text.split_once('\n').unwrap();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (line["snapshot"].as_u64(), line["bytes"].as_u64()),
            (Some(100_000_000), Some(10))
        );
        assert_eq!(rest, "head\nmany\n");
    }

    #[test]
    fn a_large_snapshot_is_written_in_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..2 * PIECE_BYTES + 17).map(|at| (at % 251) as u8).collect();
        let contents = Contents::new("head", &bytes);
        let mut saving = Saving::begin(&SystemDisk, folder.path(), 9, contents).unwrap();
        let steps = [(); 3].map(|()| saving.step(&SystemDisk).unwrap());
        assert_eq!(steps, [false, false, true]);
        assert_eq!(load(folder.path()).unwrap().newest, Some(snapshot(9, &bytes)));
    }

    #[test]
    fn one_flipped_bit_anywhere_is_found_and_the_older_one_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        save(path, 3, b"older");
        save(path, 4, b"{\"the\":\"newer\"}");
        let file = path.join("00000004.snapshot");
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                assert!(!is_sound(&flipped, 4), "byte {at} bit {bit}");
            }
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&file, flipped).unwrap();
            let found = load(path).unwrap();
            assert_eq!(found.newest, Some(snapshot(3, b"older")), "byte {at}");
            let aside = path.join(format!("00000004.snapshot.damaged-{}", at + 1));
            assert_eq!(found.set_aside, [aside]);
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(load(path).unwrap().newest, Some(snapshot(4, b"{\"the\":\"newer\"}")));
    }

    #[test]
    fn a_snapshot_that_is_cut_short_or_too_long_is_found() {
        let folder = tempfile::tempdir().unwrap();
        save(folder.path(), 4, b"some state");
        let whole = fs::read(folder.path().join("00000004.snapshot")).unwrap();
        for length in 0..whole.len() {
            assert!(!is_sound(&whole[..length], 4), "{length}");
        }
        assert!(!is_sound(&[&whole[..], b"x"].concat(), 4));
        assert!(is_sound(&whole, 4));
        assert!(!is_sound(&whole, 5), "the name is another place's");
    }

    #[test]
    fn without_a_sound_snapshot_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        for seq in [3, 4] {
            fs::write(folder.path().join(file_name(seq)), "{").unwrap();
        }
        let found = load(folder.path()).unwrap();
        assert_eq!((found.newest, found.set_aside.len()), (None, 2));
        assert_eq!(
            names(folder.path()),
            ["00000003.snapshot.damaged-1", "00000004.snapshot.damaged-1"]
        );
    }

    #[test]
    fn a_snapshot_that_cannot_be_read_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(file_name(4))).unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("00000004.snapshot: cannot read it"), "{error}");
        assert_eq!(names(folder.path()), ["00000004.snapshot"]);
    }
}
