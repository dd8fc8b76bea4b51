//! One simulated machine: a disk that forgets what was not synced, and perhaps a server that runs.

use std::cell::RefCell;

use super::*;
use crate::domain::Frame;
use crate::storage::Storage;

/// Where the records of a server go.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) name: String,
    records: RefCell<Vec<Frame>>,
    synced: usize,
    syncing: Option<usize>,
}

impl Disk {
    pub(super) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    pub(super) fn records(&self) -> Vec<Message> {
        let decode = |frame: &Frame| Message::decode(frame).expect("what was written");
        self.records.borrow().iter().map(decode).collect()
    }

    pub(super) fn begin_sync(&mut self) -> Option<LogIndex> {
        let appended = self.records.borrow().len();
        if self.syncing.is_some() || appended == self.synced {
            return None;
        }
        self.syncing = Some(appended);
        Some(appended as LogIndex)
    }

    pub(super) fn is_syncing(&self) -> bool {
        self.syncing.is_some()
    }

    pub(super) fn end_sync(&mut self, index: LogIndex) {
        self.syncing = None;
        self.synced = usize::try_from(index).expect("small");
    }

    /// Of what was not synced any part from the start may have reached the disk. Returns how many records are lost.
    pub(super) fn crash(&mut self, rng: &mut fastrand::Rng) -> usize {
        let records = self.records.get_mut();
        let before = records.len();
        let kept = if rng.bool() { self.synced } else { rng.usize(self.synced..=before) };
        records.truncate(kept);
        (self.synced, self.syncing) = (kept, None);
        before - kept
    }
}

impl Storage for Disk {
    fn append(&self, msg: &Message) -> LogIndex {
        let mut records = self.records.borrow_mut();
        records.push(msg.to_frame());
        records.len() as LogIndex
    }

    fn fault(&self) -> Option<String> {
        None
    }
    fn forget_before(&self, _index: LogIndex) {}
    fn first_within(&self, _bytes: u64) -> LogIndex {
        1
    }
    fn request_read(&self, _token: u64, _from: LogIndex, _bytes_max: usize) {}
    fn save_snapshot(&self, _seq: u64, _bytes: Arc<[u8]>) {}
}

/// What the layer above makes of the entries: their number, and a hash of all of them in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) seq: Seq,
    pub(super) hash: u64,
}

impl State {
    pub(super) fn apply(&mut self, entry: &Message) {
        let mut bytes = self.hash.to_le_bytes().to_vec();
        bytes.extend_from_slice(&entry.to_frame());
        let low = u64::from(crc32fast::hash(&bytes));
        self.hash = self.hash.rotate_left(32) ^ low;
        self.seq = entry.seq.expect("entries have a place");
    }

    /// With a tail, so that it takes several chunks.
    pub(super) fn to_bytes(self) -> Arc<[u8]> {
        let mut bytes = [self.seq.to_le_bytes(), self.hash.to_le_bytes()].concat();
        bytes.resize(200, 7);
        bytes.into()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        Self { seq: number(0), hash: number(8) }
    }
}

/// A machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) id: NodeId,
    pub(super) disk: Disk,
    pub(super) node: Option<RaftNode>,
    pub(super) state: State,
    pub(super) life: u64,
    pub(super) asleep_until: u64,
    /// The configuration that its log says last, also while it does not run.
    pub(super) configuration: Configuration,
}

impl Machine {
    /// Starts a server on what the disk holds.
    pub(super) fn start(&mut self, rng: &mut fastrand::Rng, timing: RaftTiming) {
        self.life += 1;
        let incarnation = Incarnation::new(&self.id, self.life, rng.u16(..));
        let rng = rng.fork();
        let mut node = RaftNode::new(self.id.clone(), incarnation, &*self.disk.name, rng, timing);
        for record in self.disk.records() {
            node.recover(record);
        }
        self.state = State::default();
        self.node = Some(node);
    }
}
