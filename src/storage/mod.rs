//! The log: what a server must still know after a crash.
//!
//! Must not know: what the messages mean. It appends lines, syncs them, and reads them back.
//!
//! Reading order: [`record`] (a line), [`segment`] (a file), [`recovery`] (what a crash leaves),
//! [`file_log`] (the log and its writer), [`data_folder`] (everything under `--data`).

use std::fmt::Debug;

use crate::domain::Message;

pub mod record;

pub mod segment;

pub mod recovery;

pub mod file_log;

pub mod data_folder;

pub use data_folder::DataFolder;
pub use file_log::{FileLog, LogEvent, LogOptions};
pub use recovery::Recovery;

/// Counts appended records, from 1; a record is durable when the log has synced up to its index.
pub type LogIndex = u64;

/// An append-only log of delivered messages. Implemented by [`FileLog`] and by the simulator's disk,
/// which forgets what was not synced.
pub trait Storage: Debug {
    /// Queues `msg` to be written and returns its index. Never blocks: the log writer syncs in the
    /// background, everything that waits at once, and then reports the index up to which all is durable
    /// (see [`ServerNode::on_synced`](crate::server::ServerNode::on_synced)).
    fn append(&self, msg: &Message) -> LogIndex;

    /// Why the log cannot be written now (a full disk), in the operating system's words; `None` when it
    /// can. What was appended meanwhile is kept and written as soon as there is space.
    fn fault(&self) -> Option<String>;
}

/// A [`Storage`] that keeps records in memory and counts them: for unit tests and plays.
#[derive(Debug, Default)]
pub struct MemoryLog {
    records: parking_lot::Mutex<Vec<Message>>,
    fault: parking_lot::Mutex<Option<String>>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything that was appended, in order.
    pub fn records(&self) -> Vec<Message> {
        self.records.lock().clone()
    }

    /// Makes the log answer `fault` from now on.
    pub fn set_fault(&self, fault: Option<&str>) {
        *self.fault.lock() = fault.map(str::to_string);
    }
}

impl Storage for MemoryLog {
    fn append(&self, msg: &Message) -> LogIndex {
        let mut records = self.records.lock();
        records.push(msg.clone());
        records.len() as LogIndex
    }

    fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }
}
