//! The log: what a server must still know after a crash.
//!
//! Must not know: what the messages mean. It appends lines, syncs them, reads them back, and removes the oldest
//! files when it is told that nobody needs them. Beside the log it keeps snapshots, as bytes.
//!
//! Reading order: [`record`] (a line), [`segment`] (a file), [`block`] (a part of one, read), [`read_ahead`] (by several
//! threads), [`recovery`] (what a crash leaves), [`places`] (where each record stands), [`packed_bytes`] (much in little memory), [`snapshot`] (state instead of history), [`file_log`] (the log and its writer),
//! [`log_reader`] (reading back), [`memory_log`] (without a disk), [`data_folder`] (everything under `--data`).

use std::fmt::Debug;

use self::snapshot::Contents;
use crate::domain::Message;

pub mod record;
pub use record::Line;

pub mod segment;

pub mod block;
pub mod read_ahead;

pub mod recovery;

pub mod places;

pub mod packed_bytes;
pub mod snapshot;

pub mod file_log;
mod log_queue;

pub mod log_reader;

pub mod memory_log;

pub mod data_folder;

#[cfg(test)]
mod crash_disk;
#[cfg(test)]
mod crash_tests;

pub use data_folder::DataFolder;
pub use file_log::{FileLog, LogOptions};
pub use memory_log::MemoryLog;
pub use packed_bytes::PackedBytes;
pub use recovery::{OnDamage, Recovery};

/// Makes what goes into a snapshot, when and where that disturbs nobody.
pub type MakeSnapshot = Box<dyn FnOnce() -> Contents + Send>;

/// What is wanted of the records in a part of the log, at a start.
///
/// Parts are read by several threads, in any order, and then taken by one, in the order of the log. So a part says what its records
/// say, and nothing that depends on those before it.
pub trait Part: Default + Send {
    /// Appends what is wanted of `line`, the next record. The error says what is wrong with it; the part is as before then, and
    /// the log counts as damaged there.
    fn read(&mut self, line: &Line) -> Result<(), String>;
}

/// All of it.
impl Part for Vec<Message> {
    fn read(&mut self, line: &Line) -> Result<(), String> {
        line.message().map(|message| self.push(message))
    }
}

/// Counts records, from 1; a record is durable when the log has synced up to its index.
///
/// It holds for one life of the process. At a start the log numbers anew what it finds: the nth record that is
/// taken has index n, and the first one appended has the index after them.
pub type LogIndex = u64;

/// What the log has to say, some time after it was asked. Handed to the node in a step of its own, never from
/// within a call of [`Storage`].
#[derive(Clone, Debug, PartialEq)]
pub enum LogEvent {
    /// Every record up to this index is durable.
    Synced(LogIndex),
    /// The disk is full, in the operating system's words; records wait in memory.
    Full(String),
    /// The disk takes records again; all that waited will be written.
    Writable,
    /// The answer to [`Storage::request_read`].
    Read {
        /// The one of the request.
        token: u64,
        /// The index of the first of `records`. Higher than asked for when what was asked for is forgotten.
        from: LogIndex,
        /// Consecutive records, as they were appended. None when no durable record stands at `from` yet.
        records: Vec<Message>,
    },
    /// The answer to [`Storage::request_records`].
    ReadRecords {
        /// The one of the request.
        token: u64,
        /// The first of those asked for, each with its index. A record that is forgotten or not durable is left out.
        records: Vec<(LogIndex, Message)>,
    },
    /// The snapshot of this place survives a power cut.
    SnapshotSaved(u64),
    /// The snapshot of place `seq` was given up since the disk is full. The ones before it are still there. To
    /// be asked for again, later.
    SnapshotNotSaved {
        /// The one of the request.
        seq: u64,
        /// In the operating system's words.
        reason: String,
    },
}

/// An append-only log of messages, and snapshots beside it. Implemented by [`FileLog`], by [`MemoryLog`], and by
/// the simulator's disk, which forgets what was not synced.
///
/// Threads: whoever steps the node calls these, under the node's lock. No call blocks, touches a file or calls back:
/// each one only queues, and takes at most a leaf lock for a moment. What was queued is done by two
/// threads of the shell, in this order:
///
/// ```text
///   append, forget_before, save_snapshot ──▶ log-writer, in the order of the calls ──▶ Synced, SnapshotSaved, …
///   request_read, request_records        ──▶ log-reader, in the order of the calls ──▶ Read, ReadRecords
///   make_snapshot                        ──▶ log-reader makes the bytes ──▶ then as save_snapshot
/// ```
///
/// Both hand their [`LogEvent`]s to the node in a step. Nothing orders the events of one against those of
/// the other.
pub trait Storage: Debug {
    /// Queues `msg` to be written and returns its index. The log writer syncs in the background, everything
    /// that waits at once, and then reports the index up to which all is durable
    /// (see [`ServerNode::on_synced`](crate::server::ServerNode::on_synced)).
    fn append(&self, msg: &Message) -> LogIndex;

    /// [`append`](Self::append) of a message that is serialised already, as `json`.
    fn append_json(&self, json: &[u8]) -> LogIndex {
        // Only what was a message is handed in.
        self.append(&Message::decode(json).expect("a serialised message"))
    }

    /// Why the log cannot be written now (a full disk), in the operating system's words; `None` when it
    /// can. What was appended meanwhile is kept and written as soon as there is space.
    fn fault(&self) -> Option<String>;

    /// How often the disk was made to sync in this life of the process; 0 where there is no disk.
    fn syncs(&self) -> u64 {
        0
    }

    /// Queues that no record below `index` is needed any more. When everything queued before is synced, the log
    /// writer removes the segments that hold nothing else; the open one stays. So some records below
    /// `index` can still be there, and are found by the next start.
    ///
    /// What must survive (a promise, the members) is appended anew *before* this call. On a full disk nothing is
    /// removed as long as something before it waits to be written: forget while there is still space.
    fn forget_before(&self, index: LogIndex);

    /// The first record of which it and all later ones are together at most `bytes` long: what
    /// [`forget_before`](Self::forget_before) is told to keep so much. Exact to about 1 MiB, on the side of
    /// keeping; looks only at what is durable.
    fn first_within(&self, bytes: u64) -> LogIndex;

    /// Queues the reading of the durable records from `from` on: as many as fit into `bytes_max` bytes of the
    /// log, but at least one if there is one. Answered by one [`LogEvent::Read`] with `token`.
    ///
    /// A record that is appended and not yet durable is not returned: the caller still has it. Nothing bounds the queue
    /// but the caller, who has one request under way for each server that catches up.
    fn request_read(&self, token: u64, from: LogIndex, bytes_max: usize);

    /// Queues the reading of these durable `records`, in ascending order: as many of them as fit into `bytes_max` bytes of the
    /// log, but at least one if there is one. Answered by one [`LogEvent::ReadRecords`] with `token`.
    ///
    /// For who knows which of many it wants: those between them are skipped, not read. Nothing bounds the queue but the
    /// caller, as with [`request_read`](Self::request_read).
    fn request_records(&self, token: u64, records: Vec<LogIndex>, bytes_max: usize);

    /// Queues `contents`, the state after place `seq` of the order, to be saved as a snapshot after everything
    /// queued before is synced. Answered by [`LogEvent::SnapshotSaved`] or [`LogEvent::SnapshotNotSaved`].
    ///
    /// The newest two are kept. The older one is of use only while the log still holds what follows it; hence
    /// [`forget_before`](Self::forget_before) is told the place of the older one. Records that are appended later can be
    /// durable earlier: the writer lets them go first, so that a large snapshot holds up no ACK.
    fn save_snapshot(&self, seq: u64, contents: Contents);

    /// The same for a snapshot whose bytes have yet to be made: a large state takes a second, for which the caller's
    /// lock must not be held. `make` owns a copy of the state as of now. Where there are no threads it is called at once.
    fn make_snapshot(&self, seq: u64, make: MakeSnapshot) {
        self.save_snapshot(seq, make());
    }
}
