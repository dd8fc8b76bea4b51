//! A disk for tests that loses power at a chosen call, and then has only what was promised, or anything more.
//!
//! Each call of [`Disk`] is counted. From the chosen one on all fail, which of itself is done by half. After that
//! [`CrashDisk::lose_power`] makes the files what a disk may hold that keeps no more than it must: bytes that were not
//! synced are gone, and of the creations, renames and removals since the last sync of the folder only those
//! remain that the test chooses.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::segment::{Disk, SystemDisk};

/// See the module.
#[derive(Debug)]
pub(super) struct CrashDisk {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// How many calls succeed yet.
    calls_left: usize,
    calls: usize,
    /// How much of a file is synced, by its inode.
    synced: BTreeMap<u64, u64>,
    /// What happened in the folder since its last sync, and how to undo it.
    changes: Vec<Change>,
}

/// The names that a call changed, and what they named before: `None` is nothing.
#[derive(Debug)]
struct Change(Vec<(PathBuf, Option<Vec<u8>>)>);

/// What the disk keeps of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keeps {
    /// All of it.
    Everything,
    /// Nothing.
    Nothing,
    /// Of the changes in the folder every second one, the last one first.
    EverySecondChange,
}

impl CrashDisk {
    /// A disk on which `calls` calls succeed.
    pub(super) fn after(calls: usize) -> Self {
        Self { inner: Mutex::new(Inner { calls_left: calls, ..Inner::default() }) }
    }

    /// How many calls there were.
    pub(super) fn calls(&self) -> usize {
        self.inner.lock().calls
    }

    /// Takes from `folder` what is not kept.
    pub(super) fn lose_power(&self, folder: &Path, keeps: Keeps) {
        let mut inner = self.inner.lock();
        let changes = std::mem::take(&mut inner.changes);
        if matches!(keeps, Keeps::Everything) {
            return;
        }
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            let inode = file.metadata().unwrap().ino();
            if let Some(bytes) = inner.synced.get(&inode) {
                file.set_len(*bytes).unwrap();
            }
        }
        for (at, Change(names)) in changes.into_iter().rev().enumerate() {
            if matches!(keeps, Keeps::EverySecondChange) && at % 2 == 0 {
                continue;
            }
            for (path, before) in names.into_iter().rev() {
                match before {
                    Some(bytes) => fs::write(&path, bytes).unwrap(),
                    None => drop(fs::remove_file(&path)),
                }
            }
        }
    }

    /// Counts a call. An error when the power is gone.
    fn call(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.calls += 1;
        match inner.calls_left.checked_sub(1) {
            Some(left) => inner.calls_left = left,
            None => return Err(io::Error::other("the power is gone")),
        }
        Ok(())
    }

    fn changed(&self, paths: &[&Path]) {
        let before = paths.iter().map(|path| (path.to_path_buf(), fs::read(path).ok())).collect();
        self.inner.lock().changes.push(Change(before));
    }
}

impl Disk for CrashDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.call()?;
        self.changed(&[path]);
        let file = SystemDisk.create(path)?;
        self.inner.lock().synced.insert(file.metadata()?.ino(), 0);
        Ok(file)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let metadata = file.metadata()?;
        // One that was there before is durable so far.
        self.inner.lock().synced.entry(metadata.ino()).or_insert(metadata.len());
        if let Err(error) = self.call() {
            SystemDisk.write(file, &bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        SystemDisk.write(file, bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        // The machine of the test keeps its power: noting is enough, and fast.
        self.call()?;
        let metadata = file.metadata()?;
        self.inner.lock().synced.insert(metadata.ino(), metadata.len());
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        self.changed(&[path]);
        SystemDisk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call()?;
        self.changed(&[to, from]);
        SystemDisk.rename(from, to)
    }

    fn sync_folder(&self, _folder: &Path) -> io::Result<()> {
        self.call()?;
        self.inner.lock().changes.clear();
        Ok(())
    }
}
