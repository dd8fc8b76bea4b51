//! Everything under `--data`: whose folder it is, and that only one process uses it.
//!
//! ```text
//!   data/
//!     lock        held while a server runs, empty
//!     node.json   {"node_id":"n1","cluster":…,"design":…,"cluster_id":…,"disk_id":…,"starts":3}
//!     log/        00000001.jsonl, 00000002.jsonl, …, 00000420.snapshot
//!     log.incomplete-3/    what the third start set aside, because it did not fit together
//! ```
//!
//! The number of starts and a random part name the [`Incarnation`] of this start. The number is synced before
//! it is used, so two starts share it only if the disk lost what it had confirmed or the folder was wiped;
//! the random part tells even those apart.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{FileLog, LogOptions, OnDamage, Part, Recovery, segment};
use crate::domain::{Incarnation, NodeId};
use crate::error::StartError;

/// An open data folder. It is locked until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    identity: Identity,
    incarnation: Incarnation,
    /// The operating system unlocks it when it is closed, however the process ends.
    _lock: File,
}

/// `node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    node_id: NodeId,
    cluster: String,
    design: String,
    /// Two clusters may have one name; see [`DataFolder::cluster_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    disk_id: String,
    starts: u64,
}

impl DataFolder {
    /// Opens the data folder of the server `node_id` at `path` for its next start, and creates what is missing.
    /// Refuses a folder that cannot be written, is open in another process, or belongs to another node, cluster or
    /// design. Randomness comes from `rng`.
    pub fn open(
        path: &Path,
        node_id: &NodeId,
        cluster: &str,
        design: &str,
        rng: &mut fastrand::Rng,
    ) -> Result<Self, StartError> {
        segment::create_folder(path).map_err(|error| not_writable(path, error))?;
        let lock = lock(path)?;
        let mut identity = match read_identity(path)? {
            Some(identity) => identity,
            None => Identity {
                node_id: node_id.clone(),
                cluster: cluster.into(),
                design: design.into(),
                cluster_id: None,
                disk_id: draw_disk_id(rng),
                starts: 0,
            },
        };
        for (what, option, owner, wanted) in [
            ("node", "--id", identity.node_id.as_str(), node_id.as_str()),
            ("cluster", "--cluster", &identity.cluster, cluster),
            ("design", "--design", &identity.design, design),
        ] {
            if owner != wanted {
                let problem = format!(
                    "this folder belongs to {what} {owner:?}, not {wanted:?}; \
                     start with {option} {owner}, or choose another --data"
                );
                return Err(StartError::Data { path: path.into(), problem, source: None });
            }
        }
        identity.starts = identity.starts.saturating_add(1);
        write_identity(path, &identity)?;
        let incarnation = Incarnation::new(node_id, identity.starts, rng.u16(..));
        Ok(Self { path: path.into(), identity, incarnation, _lock: lock })
    }

    /// Which life of the server this is; never the same twice.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Names what the disk holds: 16 random hex digits, drawn when the folder was created. Another one means
    /// that the server lost what it had stored.
    pub fn disk_id(&self) -> &str {
        &self.identity.disk_id
    }

    /// How often a server was started on this folder, this start included.
    pub fn starts(&self) -> u64 {
        self.identity.starts
    }

    /// The folder of the log.
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The random name of the cluster that this server is a member of, once it is known: designs that count
    /// majorities must not count a member of another cluster, whatever that one is called.
    pub fn cluster_id(&self) -> Option<&str> {
        self.identity.cluster_id.as_deref()
    }

    /// Notes the [`cluster_id`](Self::cluster_id), lower-case hex digits. It is durable when this returns. Refuses
    /// another one than before: the folder would belong to two clusters.
    ///
    /// Writes a file, so it is for the shell, at a start; never in a step.
    pub fn set_cluster_id(&mut self, id: &str) -> Result<(), StartError> {
        let refuse =
            |problem| Err(StartError::Data { path: self.path.clone(), problem, source: None });
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if id.is_empty() || !id.bytes().all(is_hex) {
            return refuse(format!("the cluster id {id:?} is not of lower-case hex digits"));
        }
        match self.cluster_id() {
            Some(owner) if owner == id => Ok(()),
            Some(owner) => refuse(format!(
                "this folder belongs to a cluster with id {owner}, not {id}; connect it to that cluster's \
                 servers with --peers, or choose another --data to join this one"
            )),
            None => self.change(Identity { cluster_id: Some(id.into()), ..self.identity.clone() }),
        }
    }

    /// Opens the log, and recovers it into what `make` makes of this folder: its records go to `take`, in the order of
    /// writing, part by part; the nth one has index n.
    ///
    /// With [`OnDamage::SetAside`] a damaged log starts all the same: a warning names the file and the line, what stands
    /// before it is kept, the rest is set aside. The folder has another [`disk_id`](Self::disk_id) then, so that
    /// the server counts as wiped; `make` is called again, since the id is for it to tell. A log that is gone altogether
    /// is the same, without anything to set aside. A disk that cannot be read is an error, not damage.
    pub fn open_log<T, P: Part>(
        &mut self,
        options: &LogOptions,
        on_damage: OnDamage,
        rng: &mut fastrand::Rng,
        make: impl Fn(&Self) -> T,
        take: impl Fn(&mut T, P),
    ) -> Result<(FileLog, T, Recovery), StartError> {
        let path = self.log_path();
        if self.starts() > 1 && self.has_no_log() {
            log::warn!("the log in {} is gone, so this server counts as wiped", path.display());
            self.new_disk_id(rng)?;
        }
        let mut made = make(self);
        let opened = FileLog::open_parts(&path, options.clone(), OnDamage::Refuse, |part| {
            take(&mut made, part);
        });
        let (log, recovery) = match opened {
            Err(StartError::DamagedLog { path: file, line, reason })
                if on_damage == OnDamage::SetAside =>
            {
                log::warn!("{} line {line} is damaged: {reason}; setting it aside", file.display());
                // First: a crash from here on must not leave a repaired log under the old disk id.
                self.new_disk_id(rng)?;
                made = make(self);
                FileLog::open_parts(&path, options.clone(), on_damage, |part| {
                    take(&mut made, part);
                })?
            }
            other => other?,
        };
        Ok((log, made, recovery))
    }

    /// Moves the log and its snapshots aside, since together they do not give what this server once had. The next
    /// [`open_log`](Self::open_log) finds nothing, and the server counts as wiped. Returns where they are now.
    pub fn set_log_aside(&mut self, rng: &mut fastrand::Rng) -> Result<PathBuf, StartError> {
        // First: a crash from here on must not leave an empty log under the old disk id.
        self.new_disk_id(rng)?;
        let path = self.log_path();
        let aside = self.path.join(format!("log.incomplete-{}", self.starts()));
        let moved = fs::rename(&path, &aside).and_then(|()| segment::sync_folder(&self.path));
        moved.map_err(|error| not_writable(&self.path, error))?;
        Ok(aside)
    }

    /// Whether there is not one segment. The first one is made before the first record is acknowledged.
    fn has_no_log(&self) -> bool {
        let path = self.log_path();
        !path.exists()
            || segment::list(&path).is_ok_and(|numbers| numbers.is_empty())
                && segment::list_firsts(&path).is_ok_and(|numbers| numbers.is_empty())
    }

    /// Draws another [`disk_id`](Self::disk_id), durably: a server whose log is repaired counts as wiped. To be
    /// called *before* the repair, since after a crash between the two nobody would know of the loss.
    pub fn new_disk_id(&mut self, rng: &mut fastrand::Rng) -> Result<(), StartError> {
        self.change(Identity { disk_id: draw_disk_id(rng), ..self.identity.clone() })
    }

    /// Becomes `identity`, durably.
    fn change(&mut self, identity: Identity) -> Result<(), StartError> {
        write_identity(&self.path, &identity)?;
        self.identity = identity;
        Ok(())
    }
}

fn draw_disk_id(rng: &mut fastrand::Rng) -> String {
    format!("{:016x}", rng.u64(..))
}

/// Locks the folder at `path` for this process.
fn lock(path: &Path) -> Result<File, StartError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join("lock"))
        .map_err(|error| not_writable(path, error))?;
    let (problem, source) = match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            ("is already open in another process; stop it, or use another --data", None)
        }
        Err(TryLockError::Error(error)) => {
            ("cannot be locked; use a --data on a disk that supports file locks", Some(error))
        }
    };
    Err(StartError::Data { path: path.into(), problem: problem.into(), source })
}

/// Reads `node.json`; `None` in a new folder.
fn read_identity(folder: &Path) -> Result<Option<Identity>, StartError> {
    let path = folder.join("node.json");
    let fault = |problem: &str, source| {
        Err(StartError::Data { path: path.clone(), problem: problem.into(), source })
    };
    match fs::read(&path) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(identity) => Ok(Some(identity)),
            Err(error) => fault(
                "says no longer whose folder this is; restore it from a copy, \
                 or choose another --data to start empty",
                Some(error.into()),
            ),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {
            // It is written before the log is, so somebody removed it. Whose log this is nobody knows.
            let has_log = folder.join("log").exists();
            if has_log {
                return fault(
                    "is missing beside a log; restore it from a copy, \
                     or choose another --data to start empty",
                    None,
                );
            }
            Ok(None)
        }
        Err(error) => fault("cannot be read; check its owner and its rights", Some(error)),
    }
}

/// Replaces `node.json` durably: a crash leaves the old or the new one, never a mixture.
fn write_identity(folder: &Path, identity: &Identity) -> Result<(), StartError> {
    let replace = || -> io::Result<()> {
        let new = folder.join("node.json.new");
        let mut text = serde_json::to_vec_pretty(identity)?;
        text.push(b'\n');
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, folder.join("node.json"))?;
        segment::sync_folder(folder)
    };
    replace().map_err(|error| not_writable(folder, error))
}

fn not_writable(path: &Path, source: io::Error) -> StartError {
    let problem = "cannot write to this data folder; make it writable, make room on its disk, \
                   or choose another --data"
        .into();
    StartError::Data { path: path.into(), problem, source: Some(source) }
}

#[cfg(test)]
#[path = "data_folder_tests.rs"]
mod tests;
