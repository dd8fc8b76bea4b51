//! A log without a disk, for unit tests and plays.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::snapshot::Contents;
use super::{LogEvent, LogIndex, Storage, record};
use crate::domain::Message;

/// A [`Storage`] that keeps records in memory and counts them. What [`FileLog`](super::FileLog) does in its
/// threads is done at once here; the answers wait in [`take_events`](Self::take_events), in the order of the calls.
/// When a record counts as synced is for the test to say: no event says that, and what is read can be newer.
#[derive(Debug, Default)]
pub struct MemoryLog {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Everything that was appended, forgotten or not.
    records: Vec<Message>,
    /// How many of them are forgotten, from the first on.
    forgotten: usize,
    /// What is not needed any more when all records up to the first index are synced; `None` when that is not waited for.
    forgettable: Option<Vec<(LogIndex, LogIndex)>>,
    fault: Option<String>,
    events: VecDeque<LogEvent>,
    snapshots: Vec<(u64, Contents)>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty log that forgets nothing before the test says that it has [`synced`](Self::synced) all that was appended before.
    pub fn that_syncs() -> Self {
        let log = Self::default();
        log.inner.lock().forgettable = Some(Vec::new());
        log
    }

    /// All records up to `index` count as synced: what waited for that is forgotten.
    pub fn synced(&self, index: LogIndex) {
        let inner = &mut *self.inner.lock();
        for (appended, before) in inner.forgettable.iter_mut().flatten() {
            if *appended <= index {
                inner.forgotten = inner.forgotten.max(usize::try_from(*before - 1).unwrap_or(0));
            }
        }
        inner.forgettable.iter_mut().for_each(|all| all.retain(|(appended, _)| *appended > index));
    }

    /// Everything that was appended, in order; also what is forgotten.
    pub fn records(&self) -> Vec<Message> {
        self.inner.lock().records.clone()
    }

    /// How many were appended: the index of the last one.
    pub fn appended(&self) -> LogIndex {
        self.inner.lock().records.len() as LogIndex
    }

    /// What a start would find: everything that is not forgotten, in order.
    pub fn kept(&self) -> Vec<Message> {
        let inner = self.inner.lock();
        inner.records.get(inner.forgotten..).unwrap_or_default().to_vec()
    }

    /// The newest snapshot, with its place.
    pub fn snapshot(&self) -> Option<(u64, Contents)> {
        self.inner.lock().snapshots.last().cloned()
    }

    /// Takes what the log has to say since the last call, to be handed to the node.
    pub fn take_events(&self) -> Vec<LogEvent> {
        self.inner.lock().events.drain(..).collect()
    }

    /// Makes the log answer `fault` from now on.
    pub fn set_fault(&self, fault: Option<&str>) {
        self.inner.lock().fault = fault.map(str::to_string);
    }
}

impl Storage for MemoryLog {
    fn append(&self, msg: &Message) -> LogIndex {
        let mut inner = self.inner.lock();
        inner.records.push(msg.clone());
        inner.records.len() as LogIndex
    }

    fn fault(&self) -> Option<String> {
        self.inner.lock().fault.clone()
    }

    fn forget_before(&self, index: LogIndex) {
        let mut inner = self.inner.lock();
        let appended = inner.records.len() as LogIndex;
        if let Some(forgettable) = &mut inner.forgettable {
            forgettable.push((appended, index.clamp(1, appended + 1)));
            return;
        }
        let before = usize::try_from(index.saturating_sub(1)).unwrap_or(usize::MAX);
        inner.forgotten = inner.forgotten.max(before.min(inner.records.len()));
    }

    fn first_within(&self, bytes: u64) -> LogIndex {
        let inner = self.inner.lock();
        let mut left = bytes;
        let mut first = inner.records.len() + 1;
        for record in inner.records.iter().skip(inner.forgotten).rev() {
            let Some(rest) = left.checked_sub(line_bytes(record)) else { break };
            left = rest;
            first -= 1;
        }
        first as LogIndex
    }

    fn request_read(&self, token: u64, from: LogIndex, bytes_max: usize) {
        let mut inner = self.inner.lock();
        let from = from.max(inner.forgotten as LogIndex + 1);
        let skipped = usize::try_from(from - 1).unwrap_or(usize::MAX);
        let mut records: Vec<Message> = Vec::new();
        let mut left = bytes_max as u64;
        for record in inner.records.iter().skip(skipped) {
            let bytes = line_bytes(record);
            if bytes > left && !records.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes);
            records.push(record.clone());
        }
        inner.events.push_back(LogEvent::Read { token, from, records });
    }

    fn request_records(&self, token: u64, records: Vec<LogIndex>, bytes_max: usize) {
        let mut inner = self.inner.lock();
        let mut found: Vec<(LogIndex, Message)> = Vec::new();
        let mut left = bytes_max as u64;
        for index in records.into_iter().filter(|index| *index > inner.forgotten as LogIndex) {
            let at = usize::try_from(index - 1).unwrap_or(usize::MAX);
            let Some(record) = inner.records.get(at) else { continue };
            let bytes = line_bytes(record);
            if bytes > left && !found.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes);
            found.push((index, record.clone()));
        }
        inner.events.push_back(LogEvent::ReadRecords { token, records: found });
    }

    fn save_snapshot(&self, seq: u64, contents: Contents) {
        let mut inner = self.inner.lock();
        inner.snapshots.push((seq, contents));
        inner.events.push_back(LogEvent::SnapshotSaved(seq));
    }
}

/// How long the line of `record` is, in bytes.
fn line_bytes(record: &Message) -> u64 {
    let mut line = Vec::new();
    record::encode(record, &mut line);
    line.len() as u64
}

#[cfg(test)]
mod tests {
    use super::super::file_log::tests::{chat, chats};
    use super::*;

    #[test]
    fn what_is_forgotten_is_not_read_and_what_is_kept_is() {
        let log = MemoryLog::new();
        for number in 1..=5 {
            log.append(&chat(number));
        }
        log.forget_before(3);
        log.request_read(7, 1, usize::MAX);
        log.request_read(8, 4, 1);
        log.request_read(9, 6, usize::MAX);
        let wanted = [(7, 3, chats(3..=5)), (8, 4, chats([4])), (9, 6, vec![])];
        let wanted = wanted.map(|(token, from, records)| LogEvent::Read { token, from, records });
        assert_eq!(log.take_events(), wanted);
        assert_eq!((log.kept(), log.records()), (chats(3..=5), chats(1..=5)));
        log.request_records(10, vec![2, 4, 5, 6], usize::MAX);
        log.request_records(11, vec![3, 4], 1);
        let all = LogEvent::ReadRecords { token: 10, records: vec![(4, chat(4)), (5, chat(5))] };
        let one = LogEvent::ReadRecords { token: 11, records: vec![(3, chat(3))] };
        assert_eq!(log.take_events(), [all, one]);
        let line = line_bytes(&chat(1));
        let firsts = [0, line, 2 * line - 1, 3 * line, u64::MAX].map(|b| log.first_within(b));
        assert_eq!(firsts, [6, 5, 5, 3, 3]);
    }

    #[test]
    fn a_saved_snapshot_is_reported_and_kept() {
        let log = MemoryLog::new();
        log.save_snapshot(4, Contents::new("head", b"state"));
        assert_eq!(log.take_events(), [LogEvent::SnapshotSaved(4)]);
        assert_eq!(log.snapshot(), Some((4, Contents::new("head", b"state"))));
    }
}
