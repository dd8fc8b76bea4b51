//! Everything under `--data`: whose folder it is, and that only one process uses it.
//!
//! ```text
//!   data/
//!     lock        held while a server runs, empty
//!     node.json   {"node_id":"n1","cluster":…,"design":…,"disk_id":…,"starts":3}
//!     log/        00000001.jsonl, 00000002.jsonl, …
//! ```
//!
//! The number of starts and a random part name the [`Incarnation`] of this start. The number is synced before
//! it is used, so two starts share it only if the disk lost what it had confirmed or the folder was wiped;
//! the random part tells even those apart.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::segment;
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

    /// Draws another [`disk_id`](Self::disk_id), durably: a server whose log is repaired counts as wiped. To be
    /// called *before* the repair, since after a crash between the two nobody would know of the loss.
    pub fn new_disk_id(&mut self, rng: &mut fastrand::Rng) -> Result<(), StartError> {
        let identity = Identity { disk_id: draw_disk_id(rng), ..self.identity.clone() };
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
mod tests {
    use super::*;

    fn open(path: &Path, node: &str, cluster: &str, design: &str) -> Result<DataFolder, String> {
        let mut rng = fastrand::Rng::with_seed(7);
        DataFolder::open(path, &node.into(), cluster, design, &mut rng)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_start_is_another_incarnation_on_the_same_disk() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deep/data");
        let mut rng = fastrand::Rng::with_seed(7);
        let mut incarnations = Vec::new();
        let mut disk_ids = Vec::new();
        for start in 1..=3 {
            let folder = DataFolder::open(&path, &"n1".into(), "c", "ring", &mut rng).unwrap();
            assert_eq!(folder.starts(), start);
            assert!(folder.incarnation().as_str().starts_with(&format!("n1.{start}-")));
            incarnations.push(folder.incarnation().clone());
            disk_ids.push(folder.disk_id().to_string());
        }
        incarnations.dedup();
        assert_eq!(incarnations.len(), 3);
        assert_eq!(disk_ids[0].len(), 16);
        assert!(disk_ids.iter().all(|id| *id == disk_ids[0]));
        let text = fs::read_to_string(path.join("node.json")).unwrap();
        assert!(text.contains("\n  \"starts\": 3\n"), "{text}");
    }

    #[test]
    fn a_second_process_is_refused_while_the_first_one_lives() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path(), "n1", "c", "ring").unwrap();
        let refusal = open(folder.path(), "n1", "c", "ring").unwrap_err();
        let wanted = "is already open in another process; stop it, or use another --data";
        assert_eq!(refusal, format!("{}: {wanted}", folder.path().display()));
        drop(first);
        assert_eq!(open(folder.path(), "n1", "c", "ring").unwrap().starts(), 2);
    }

    #[test]
    fn a_folder_of_another_node_cluster_or_design_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), "n1", "c", "ring").unwrap());
        let table = [
            (["n2", "c", "ring"], "belongs to node \"n1\", not \"n2\"; start with --id n1, or"),
            (["n1", "d", "ring"], "to cluster \"c\", not \"d\"; start with --cluster c, or"),
            (["n1", "c", "raft"], "to design \"ring\", not \"raft\"; start with --design ring, or"),
        ];
        for ([node, cluster, design], wanted) in table {
            let refusal = open(folder.path(), node, cluster, design).unwrap_err();
            assert!(refusal.contains(wanted), "{refusal}");
            assert!(refusal.starts_with(&folder.path().display().to_string()), "{refusal}");
        }
        let starts = open(folder.path(), "n1", "c", "ring").unwrap().starts();
        assert_eq!(starts, 2, "a refused start does not count");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named_with_the_remedy() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let refusal = open(&file.join("data"), "n1", "c", "ring").unwrap_err();
        assert!(refusal.contains("file/data: cannot write to this data folder"), "{refusal}");
        assert!(refusal.contains("choose another --data"), "{refusal}");
    }

    #[test]
    fn a_repaired_disk_has_another_name() {
        let path = tempfile::tempdir().unwrap();
        let mut folder = open(path.path(), "n1", "c", "ring").unwrap();
        let before = folder.disk_id().to_string();
        folder.new_disk_id(&mut fastrand::Rng::with_seed(8)).unwrap();
        let after = folder.disk_id().to_string();
        assert_ne!(before, after);
        drop(folder);
        assert_eq!(open(path.path(), "n1", "c", "ring").unwrap().disk_id(), after);
    }

    #[test]
    fn a_lost_or_broken_node_file_is_refused_rather_than_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.json");
        drop(open(folder.path(), "n1", "c", "ring").unwrap());
        fs::write(&file, "{\"node_id\":").unwrap();
        let refusal = open(folder.path(), "n1", "c", "ring").unwrap_err();
        assert!(refusal.contains("node.json: says no longer whose folder this is"), "{refusal}");
        fs::remove_file(&file).unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        let refusal = open(folder.path(), "n1", "c", "ring").unwrap_err();
        assert!(refusal.contains("node.json: is missing beside a log"), "{refusal}");
    }
}
