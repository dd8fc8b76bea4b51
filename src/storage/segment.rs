//! The files of the log: `00000001.jsonl`, `00000002.jsonl`, … in one folder.
//!
//! ```text
//!   00000001.jsonl   00000002.jsonl   00000003.jsonl
//!   full, synced     full, synced     the tail: the writer appends here
//! ```
//!
//! Numbers count from 1 without a gap. Only the tail is ever written. A new tail begins only when the
//! one before it is synced, and its entry in the folder is synced before anything is written to it, so
//! a crash can leave an unfinished line only at the end of the last segment.
//!
//! The oldest segments go when nobody needs them. Then an empty file, such as `00000003.first`, says where the
//! log begins. It is durable before the first removal: a crash in between leaves segments before it, which the next
//! start removes, and a segment that is missing behind it is a loss that nobody asked for.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of segment `number`, such as `00000001.jsonl`.
pub fn file_name(number: u64) -> String {
    format!("{number:08}.jsonl")
}

/// The name of the file that says that the log begins with segment `number`, such as `00000003.first`.
pub fn first_name(number: u64) -> String {
    format!("{number:08}.first")
}

/// The numbers of the segments in `folder`, from the lowest. Files of other names are left alone.
pub fn list(folder: &Path) -> io::Result<Vec<u64>> {
    numbered(folder, file_name)
}

/// The segments that `folder` was said to begin with, from the lowest: the highest counts.
pub fn list_firsts(folder: &Path) -> io::Result<Vec<u64>> {
    numbered(folder, first_name)
}

/// The numbers of the files in `folder` that are called what `name` makes of their number, from the lowest.
pub(super) fn numbered(folder: &Path, name: fn(u64) -> String) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let found = entry?.file_name();
        let digits = found.to_str().and_then(|found| found.split('.').next());
        let number = digits.and_then(|digits| digits.parse().ok());
        numbers.extend(number.filter(|number| *found == *name(*number)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Makes the entries of `folder` durable: files that were created, renamed or removed in it.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates `folder` and those above it that are missing, and syncs each new entry.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        result => result?,
    }
    sync_folder(parent)
}

/// Gives the file at `path` a second name, `<name>.damaged-<n>` with the first `n` that is free, and
/// returns it. Nothing is overwritten, and a crash leaves the file under at least one of its names.
pub fn link_aside(path: &Path) -> io::Result<PathBuf> {
    let mut count = 1u64;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{count}"));
        let aside = PathBuf::from(name);
        match fs::hard_link(path, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => count += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The calls that can fail on a real disk; tests put a failing disk in their place.
pub(super) trait Disk: Debug + Send + Sync {
    /// Creates the file at `path`, which must not exist.
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).create_new(true).open(path)
    }

    /// Writes a beginning of `bytes` and returns its length, as [`Write::write`] does.
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    /// Makes what was written durable.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// Removes the file at `path`.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Calls the file at `from` `to` from now on, in place of what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Makes the entries of `folder` durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)
    }
}

/// Writes all of `rest` to `file`.
pub(super) fn write_all(disk: &dyn Disk, file: &File, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match disk.write(file, rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether `error` says that there is no space, or no right to more of it.
pub(super) fn is_full(error: &io::Error) -> bool {
    use ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// `error`, with what was tried and where.
pub(super) fn explain(tried: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {tried} {}: {error}", path.display()))
}

/// The disk of the operating system.
#[derive(Debug)]
pub(super) struct SystemDisk;

impl Disk for SystemDisk {}

/// Why a batch was not written.
#[derive(Debug)]
pub(super) enum WriteError {
    /// There is no space, or no right to more of it. The segment is as before; the same call can succeed later.
    Full(io::Error),
    /// Anything else. What the file holds is not known any more.
    Broken(io::Error),
}

/// The last segment, open for appending.
#[derive(Debug)]
pub(super) struct Tail {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    number: u64,
    file: File,
    /// How much of the file holds complete batches, in bytes.
    good_bytes: u64,
    segment_bytes: u64,
}

impl Tail {
    /// Opens segment `number` of `folder`, or creates it, to append to it. What it holds is durable then, even
    /// if the process that wrote it died before its sync.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        number: u64,
        segment_bytes: u64,
    ) -> io::Result<Self> {
        let file =
            OpenOptions::new().append(true).create(true).open(folder.join(file_name(number)))?;
        file.sync_data()?;
        sync_folder(folder)?;
        let good_bytes = file.metadata()?.len();
        Ok(Self { disk, folder: folder.into(), number, file, good_bytes, segment_bytes })
    }

    /// The number of the segment that is written.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Writes `batch`, which holds whole lines, to this segment or, when it would grow beyond its size, to a new one.
    /// It is durable after [`sync`](Self::sync).
    pub(super) fn write(&mut self, batch: &[u8]) -> Result<(), WriteError> {
        let bytes = batch.len() as u64;
        if self.good_bytes > 0 && self.good_bytes + bytes > self.segment_bytes {
            self.rotate()?;
        }
        if let Err(error) = write_all(&*self.disk, &self.file, batch) {
            // A part of the batch may be there. Without this cut, the next try would write after it.
            self.file.set_len(self.good_bytes).map_err(|error| self.broken("cut back", &error))?;
            return Err(self.full_or_broken("write", error));
        }
        self.good_bytes += bytes;
        Ok(())
    }

    /// Makes everything durable that was written. After an error nothing is known about what is on the disk: the
    /// system may have dropped what it could not write, and a second call may succeed all the same.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.file).map_err(|error| self.explain("sync", &error))
    }

    /// Begins the next segment. The present one is synced: each batch is, before the next one is written.
    fn rotate(&mut self) -> Result<(), WriteError> {
        let next = self.folder.join(file_name(self.number + 1));
        self.file =
            self.disk.create(&next).map_err(|error| self.full_or_broken("follow", error))?;
        self.number += 1;
        self.good_bytes = 0;
        self.disk
            .sync_folder(&self.folder)
            .map_err(|error| self.broken("enter into the folder", &error))
    }

    fn full_or_broken(&self, tried: &str, error: io::Error) -> WriteError {
        if is_full(&error) { WriteError::Full(error) } else { self.broken(tried, &error) }
    }

    fn broken(&self, tried: &str, error: &io::Error) -> WriteError {
        WriteError::Broken(self.explain(tried, error))
    }

    fn explain(&self, tried: &str, error: &io::Error) -> io::Error {
        explain(tried, &self.folder.join(file_name(self.number)), error)
    }
}
