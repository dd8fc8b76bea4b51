//! One simulated machine: a disk that forgets what was not synced, and perhaps a server that runs.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use super::*;
use crate::domain::Frame;
use crate::storage::snapshot::Contents;
use crate::storage::{LogEvent, PackedBytes, Storage};

/// So many records are forgotten together, as a segment is.
const SEGMENT_RECORDS: LogIndex = 4;

/// Where the records and snapshots of a server go.
#[derive(Debug, Default)]
pub(super) struct Disk {
    pub(super) name: String,
    /// Those that are not forgotten.
    records: RefCell<Vec<Frame>>,
    /// How many were forgotten in this life of the server.
    forgotten: Cell<LogIndex>,
    synced: LogIndex,
    syncing: Option<LogIndex>,
    /// What is done when everything up to an index is synced.
    tasks: RefCell<VecDeque<(LogIndex, Task)>>,
    /// The newest two, the newest one last.
    pub(super) snapshots: Vec<(Seq, Contents)>,
    events: Vec<LogEvent>,
}

#[derive(Debug)]
enum Task {
    Forget(LogIndex),
    Save(Seq, Contents),
}

impl Disk {
    pub(super) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    pub(super) fn records(&self) -> Vec<Message> {
        let decode = |frame: &Frame| Message::decode(frame).expect("what was written");
        self.records.borrow().iter().map(decode).collect()
    }

    fn appended(&self) -> LogIndex {
        self.forgotten.get() + self.records.borrow().len() as LogIndex
    }

    pub(super) fn begin_sync(&mut self) -> Option<LogIndex> {
        let appended = self.appended();
        let is_idle = appended == self.synced && self.tasks.borrow().is_empty();
        if self.syncing.is_some() || is_idle {
            return None;
        }
        self.syncing = Some(appended);
        self.syncing
    }

    /// The last record of what is on its way to the disk.
    pub(super) fn syncing(&self) -> Option<LogIndex> {
        self.syncing.map(|index| index as LogIndex)
    }

    /// The sync is done. What was to be done behind it may take longer, and later records overtake it then. A snapshot may find
    /// no room.
    pub(super) fn end_sync(&mut self, index: LogIndex, rng: &mut fastrand::Rng) -> Vec<LogEvent> {
        self.syncing = None;
        self.synced = index;
        while !self.tasks.borrow().is_empty()
            && rng.bool()
            && let Some(task) = self.next_task(index)
        {
            match task {
                Task::Save(seq, _) if rng.u8(0..8) == 0 => {
                    let reason = "no room".into();
                    self.events.push(LogEvent::SnapshotNotSaved { seq, reason });
                }
                task => self.run(task),
            }
        }
        std::mem::take(&mut self.events)
    }

    fn next_task(&self, synced: LogIndex) -> Option<Task> {
        let mut tasks = self.tasks.borrow_mut();
        let is_due = tasks.front().is_some_and(|(behind, _)| *behind <= synced);
        if is_due { tasks.pop_front().map(|(_, task)| task) } else { None }
    }

    fn run(&mut self, task: Task) {
        match task {
            Task::Forget(index) => {
                let forgotten = self.forgotten.get();
                let last = index.saturating_sub(1).min(self.synced);
                let count = last.saturating_sub(forgotten) / SEGMENT_RECORDS * SEGMENT_RECORDS;
                self.records.get_mut().drain(..usize::try_from(count).expect("small"));
                self.forgotten.set(forgotten + count);
            }
            Task::Save(seq, contents) => {
                self.snapshots.push((seq, contents));
                let old = self.snapshots.len().saturating_sub(2);
                self.snapshots.drain(..old);
                self.events.push(LogEvent::SnapshotSaved(seq));
            }
        }
    }

    /// Of what was not synced any part from the start may have reached the disk, and what was to be done behind that part may be done.
    /// Returns how many records are lost.
    pub(super) fn crash(&mut self, rng: &mut fastrand::Rng) -> usize {
        let synced = usize::try_from(self.synced - self.forgotten.get()).expect("small");
        let records = self.records.get_mut();
        let before = records.len();
        let kept = if rng.bool() { synced } else { rng.usize(synced..=before) };
        records.truncate(kept);
        self.synced = self.appended();
        while !self.tasks.borrow().is_empty()
            && rng.bool()
            && let Some(task) = self.next_task(self.synced)
        {
            self.run(task);
        }
        self.tasks.get_mut().clear();
        self.events.clear();
        // The next start numbers anew what it finds.
        self.forgotten.set(0);
        (self.synced, self.syncing) = (self.appended(), None);
        before - kept
    }
}

impl Storage for Disk {
    fn append(&self, msg: &Message) -> LogIndex {
        self.records.borrow_mut().push(msg.to_frame());
        self.appended()
    }

    fn fault(&self) -> Option<String> {
        None
    }
    fn forget_before(&self, index: LogIndex) {
        self.tasks.borrow_mut().push_back((self.appended(), Task::Forget(index)));
    }
    fn first_within(&self, _bytes: u64) -> LogIndex {
        1
    }
    fn request_read(&self, _token: u64, _from: LogIndex, _bytes_max: usize) {}
    fn request_records(&self, _token: u64, _records: Vec<LogIndex>, _bytes_max: usize) {}
    fn save_snapshot(&self, seq: u64, contents: Contents) {
        self.tasks.borrow_mut().push_back((self.appended(), Task::Save(seq, contents)));
    }
}

/// How many entries stay behind a snapshot.
const ENTRIES_KEPT: u64 = 10;

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
    pub(super) fn to_bytes(self) -> PackedBytes {
        let mut bytes = [self.seq.to_le_bytes(), self.hash.to_le_bytes()].concat();
        bytes.resize(200, 7);
        PackedBytes::new(&bytes)
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
    /// Where its log ends, also while it does not run.
    pub(super) end: (Option<Term>, Seq),
}

impl Machine {
    /// Starts a server on what the disk holds. The newest `damaged` snapshots are not what was written. The error says what
    /// is lost by that, and nothing was started.
    pub(super) fn start(
        &mut self,
        rng: &mut fastrand::Rng,
        timing: RaftTiming,
        damaged: usize,
    ) -> Result<(), String> {
        let incarnation = Incarnation::new(&self.id, self.life + 1, rng.u16(..));
        let rng = rng.fork();
        let mut node = RaftNode::new(self.id.clone(), incarnation, &*self.disk.name, rng, timing)
            .keeping_entries(ENTRIES_KEPT);
        if let Some((_, file)) = self.disk.snapshots.iter().rev().nth(damaged) {
            node.recover_snapshot(file)?;
        }
        for record in self.disk.records() {
            node.recover(record);
        }
        node.recovered()?;
        let left = self.disk.snapshots.len().saturating_sub(damaged);
        self.disk.snapshots.truncate(left);
        self.life += 1;
        self.state = State::default();
        self.node = Some(node);
        Ok(())
    }
}
