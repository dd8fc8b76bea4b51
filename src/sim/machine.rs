//! One simulated server machine: a disk, a clock, and perhaps a [`ServerNode`] that runs.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::agenda::{Event, Micros};
use crate::domain::{Frame, Incarnation, Message, NodeId, Term};
use crate::network::ConnId;
use crate::network::transport::{Network, Transport};
use crate::server::ServerNode;
use crate::server::planted::{Planted, is_planted};
use crate::server::total_order::SnapshotCounts;
use crate::storage::snapshot::Contents;
use crate::storage::{LogEvent, LogIndex, Storage};
use crate::trace::Tracer;

/// What a step asked of the network.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// `send_to_node`.
    ToNode(NodeId, Frame),
    /// `broadcast_to_all`.
    ToAll(Frame),
    /// `send_to_conn`.
    ToConn(ConnId, Frame),
    /// `close`.
    Close(ConnId),
    /// `resume`.
    Resume(ConnId),
    /// `bind_peer`.
    BindPeer(ConnId, NodeId),
    /// `bind_client`.
    BindClient(ConnId, String),
    /// `dial`.
    Dial(String),
    /// `send_udp`.
    Udp(Frame, Option<SocketAddr>),
}

/// A [`Network`] that remembers what a step asked for, serialised.
#[derive(Debug)]
pub(super) struct Wires {
    effects: RefCell<Vec<Effect>>,
    /// Bytes on their way, for connections to clients.
    waiting: RefCell<BTreeMap<ConnId, usize>>,
    window: usize,
}

impl Wires {
    /// Nothing was asked for; `window` bytes may be on their way on one connection.
    pub(super) fn new(window: usize) -> Self {
        Self { effects: RefCell::default(), waiting: RefCell::default(), window }
    }

    /// Takes what was asked for since the last call.
    pub(super) fn take(&self) -> Vec<Effect> {
        std::mem::take(&mut self.effects.borrow_mut())
    }

    /// `bytes` more are on their way on `conn`.
    pub(super) fn sent(&self, conn: ConnId, bytes: usize) {
        *self.waiting.borrow_mut().entry(conn).or_default() += bytes;
    }

    /// `bytes` have arrived.
    pub(super) fn arrived(&self, conn: ConnId, bytes: usize) {
        if let Some(waiting) = self.waiting.borrow_mut().get_mut(&conn) {
            *waiting = waiting.saturating_sub(bytes);
        }
    }

    /// `conn` is over.
    pub(super) fn forget(&self, conn: ConnId) {
        self.waiting.borrow_mut().remove(&conn);
    }

    fn push(&self, effect: Effect) {
        self.effects.borrow_mut().push(effect);
    }
}

impl Transport for Wires {
    fn send_to_node(&self, node_id: &NodeId, msg: &Message) {
        self.send_frame_to_node(node_id, &msg.to_frame());
    }
    fn send_frame_to_node(&self, node_id: &NodeId, frame: &Frame) {
        self.push(Effect::ToNode(node_id.clone(), frame.clone()));
    }
    fn broadcast_to_all(&self, msg: &Message) {
        self.push(Effect::ToAll(msg.to_frame()));
    }
}

impl Network for Wires {
    fn send_to_conn(&self, conn: ConnId, frame: &Frame) {
        self.push(Effect::ToConn(conn, frame.clone()));
    }
    fn spare_bytes(&self, conn: ConnId) -> usize {
        let waiting = self.waiting.borrow().get(&conn).copied().unwrap_or_default();
        self.window.saturating_sub(waiting)
    }
    fn close(&self, conn: ConnId) {
        self.push(Effect::Close(conn));
    }
    fn resume(&self, conn: ConnId) {
        self.push(Effect::Resume(conn));
    }
    fn bind_peer(&self, conn: ConnId, node_id: &NodeId) {
        self.push(Effect::BindPeer(conn, node_id.clone()));
    }
    fn bind_client(&self, conn: ConnId, session: &str) {
        self.push(Effect::BindClient(conn, session.into()));
    }
    fn dial(&self, address: &str) {
        self.push(Effect::Dial(address.into()));
    }
    fn send_udp(&self, msg: &Message, to: Option<SocketAddr>) {
        self.push(Effect::Udp(msg.to_frame(), to));
    }
}

/// So many records are forgotten together, as a segment is.
const SEGMENT_RECORDS: LogIndex = 16;

/// A disk: records, of which the first `synced` survive a crash for certain; and snapshots.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Those that are not forgotten.
    records: RefCell<Vec<Frame>>,
    /// How many were forgotten in this life of the server.
    forgotten: Cell<LogIndex>,
    synced: LogIndex,
    /// Up to where the sync under way will have synced.
    pub(super) syncing: Option<LogIndex>,
    /// What is done when everything up to an index is synced.
    tasks: RefCell<VecDeque<(LogIndex, Task)>>,
    /// The newest two, the newest one last.
    snapshots: Vec<(u64, Contents)>,
    /// What the server has yet to be told.
    events: RefCell<Vec<LogEvent>>,
    /// How often a server was started on it.
    pub(super) starts: u64,
    /// Its random name.
    pub(super) id: String,
}

/// What the disk does behind the records.
#[derive(Debug)]
enum Task {
    /// See [`Storage::forget_before`].
    Forget(LogIndex),
    /// See [`Storage::save_snapshot`].
    Save(u64, Contents),
}

impl Disk {
    /// An empty disk.
    pub(super) fn new(rng: &mut fastrand::Rng) -> Self {
        Self { id: format!("{:016x}", rng.u64(..)), ..Self::default() }
    }

    /// The next start: counted durably, and named.
    pub(super) fn start(&mut self, id: &NodeId, rng: &mut fastrand::Rng) -> Incarnation {
        self.starts += 1;
        if is_planted(Planted::SameIncarnation) {
            return Incarnation::new(id, 1, 0);
        }
        Incarnation::new(id, self.starts, rng.u16(..))
    }

    /// The newest snapshot, with its place.
    #[cfg(test)]
    fn snapshot(&self) -> Option<(u64, Contents)> {
        self.snapshots.last().cloned()
    }

    /// Whether the newest of two snapshots is damaged. Draws only when there are two.
    pub(super) fn is_newest_damaged(&self, rng: &mut fastrand::Rng) -> bool {
        self.snapshots.len() == 2 && rng.u8(0..4) == 0
    }

    /// Hands what is on the disk to a server that starts, the newest `damaged` snapshots left out. The error says what is
    /// missing of what the server once had.
    pub(super) fn recover(&self, node: &mut ServerNode, damaged: usize) -> Result<(), String> {
        if let Some((seq, file)) = self.snapshots.iter().rev().nth(damaged) {
            node.recover_snapshot(*seq, file);
        }
        for record in self.records.borrow().iter() {
            // What is on a disk was written there by a server.
            node.recover(Message::decode(record).expect("a record that was written"));
        }
        node.recovered()
    }

    /// The newest `damaged` snapshots are set aside.
    pub(super) fn set_aside(&mut self, damaged: usize) {
        self.snapshots.truncate(self.snapshots.len() - damaged);
    }

    /// How many records there are to recover from.
    pub(super) fn kept(&self) -> usize {
        self.records.borrow().len()
    }

    /// Takes what the server has to be told, in a step of its own.
    pub(super) fn take_events(&self) -> Vec<LogEvent> {
        std::mem::take(&mut self.events.borrow_mut())
    }

    /// Whether the server has to be told something.
    pub(super) fn has_events(&self) -> bool {
        !self.events.borrow().is_empty()
    }

    /// Begins a sync of everything that is appended, unless one runs or nothing is to do. Returns up to where.
    pub(super) fn begin_sync(&mut self) -> Option<LogIndex> {
        let appended = self.appended();
        let is_idle = appended == self.synced && self.tasks.borrow().is_empty();
        if self.syncing.is_some() || is_idle {
            return None;
        }
        self.syncing = Some(appended);
        self.syncing
    }

    /// The sync under way is done up to `index`, and so is what was to be done behind it.
    pub(super) fn end_sync(&mut self, index: LogIndex) {
        self.syncing = None;
        self.synced = index;
        while let Some(task) = self.next_task(index) {
            self.run(task);
        }
    }

    /// The machine loses power: of what was not synced only a part from the start may have reached the disk, and the last
    /// write may be torn, which is the same as lost. What was to be done behind that part may be done or not. Returns
    /// how many records are lost.
    pub(super) fn crash(&mut self, rng: &mut fastrand::Rng) -> usize {
        let synced = (self.synced - self.forgotten.get()) as usize;
        let records = self.records.get_mut();
        let before = records.len();
        let kept = match rng.u32(0..3) {
            0 => synced,
            1 => before,
            _ => rng.usize(synced..=before),
        };
        records.truncate(kept);
        let end = self.appended();
        while still_works(&self.tasks, rng)
            && let Some(task) = self.next_task(end)
        {
            self.run(task);
        }
        self.tasks.get_mut().clear();
        self.events.get_mut().clear();
        // The next start numbers anew what it finds.
        self.forgotten.set(0);
        (self.synced, self.syncing) = (self.appended(), None);
        before - kept
    }

    fn appended(&self) -> LogIndex {
        self.forgotten.get() + self.records.borrow().len() as LogIndex
    }

    /// The next task, if everything before it is synced when the log is up to `synced`.
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
                self.records.get_mut().drain(..count as usize);
                self.forgotten.set(forgotten + count);
            }
            Task::Save(seq, contents) => {
                self.snapshots.push((seq, contents));
                let old = self.snapshots.len().saturating_sub(2);
                self.snapshots.drain(..old);
                self.events.get_mut().push(LogEvent::SnapshotSaved(seq));
            }
        }
    }
}

/// Whether a machine that loses power still does the next of `tasks`. Draws only when there is one.
fn still_works(tasks: &RefCell<VecDeque<(LogIndex, Task)>>, rng: &mut fastrand::Rng) -> bool {
    !tasks.borrow().is_empty() && rng.bool()
}

impl Storage for Disk {
    fn append(&self, msg: &Message) -> LogIndex {
        self.append_json(&msg.to_frame())
    }

    fn append_json(&self, json: &[u8]) -> LogIndex {
        self.records.borrow_mut().push(json.into());
        self.appended()
    }

    fn fault(&self) -> Option<String> {
        None
    }

    fn forget_before(&self, index: LogIndex) {
        self.tasks.borrow_mut().push_back((self.appended(), Task::Forget(index)));
    }

    fn first_within(&self, bytes: u64) -> LogIndex {
        let mut left = bytes;
        let mut first = self.appended() + 1;
        for record in self.records.borrow().iter().rev() {
            let Some(rest) = left.checked_sub(record.len() as u64) else { break };
            left = rest;
            first -= 1;
        }
        first
    }

    fn request_read(&self, token: u64, from: LogIndex, bytes_max: usize) {
        let from = from.max(self.forgotten.get() + 1);
        let mut records: Vec<Message> = Vec::new();
        let mut left = bytes_max;
        let durable = self.synced.saturating_sub(from - 1) as usize;
        let skipped = (from - 1 - self.forgotten.get()) as usize;
        for record in self.records.borrow().iter().skip(skipped).take(durable) {
            if record.len() > left && !records.is_empty() {
                break;
            }
            left = left.saturating_sub(record.len());
            // What is on a disk was written there by a server.
            records.push(Message::decode(record).expect("a record that was written"));
        }
        self.events.borrow_mut().push(LogEvent::Read { token, from, records });
    }

    fn request_records(&self, token: u64, records: Vec<LogIndex>, bytes_max: usize) {
        let all = self.records.borrow();
        let mut found: Vec<(LogIndex, Message)> = Vec::new();
        let mut left = bytes_max;
        let (forgotten, synced) = (self.forgotten.get(), self.synced);
        for index in records.into_iter().filter(|index| (forgotten + 1..=synced).contains(index)) {
            let record = &all[(index - 1 - forgotten) as usize];
            if record.len() > left && !found.is_empty() {
                break;
            }
            left = left.saturating_sub(record.len());
            // What is on a disk was written there by a server.
            let record = Message::decode(record).expect("a record that was written");
            found.push((index, record));
        }
        self.events.borrow_mut().push(LogEvent::ReadRecords { token, records: found });
    }

    fn save_snapshot(&self, seq: u64, contents: Contents) {
        self.tasks.borrow_mut().push_back((self.appended(), Task::Save(seq, contents)));
    }
}

/// A server that runs.
#[derive(Debug)]
pub(super) struct Running {
    /// The logic.
    pub(super) node: ServerNode,
    /// What it asks of the network.
    pub(super) cm: Wires,
    /// The connections that stand to other servers.
    pub(super) peers: BTreeMap<NodeId, ConnId>,
    /// The connections of sessions.
    pub(super) clients: BTreeMap<String, ConnId>,
    /// The highest term that it was in.
    pub(super) term: Option<Term>,
    /// What it said of itself in the trace last.
    pub(super) told: String,
    /// How often snapshots were of use, as far as that was counted.
    pub(super) snapshots: SnapshotCounts,
    /// Its trace, if it has one.
    pub(super) tracer: Option<Tracer>,
}

/// A machine with a disk.
#[derive(Debug)]
pub(super) struct Machine {
    /// Its server's id.
    pub(super) id: NodeId,
    /// Where it is dialled.
    pub(super) address: String,
    /// The server, while it runs.
    pub(super) running: Option<Box<Running>>,
    /// The disk.
    pub(super) disk: Disk,
    /// Counts the starts, wiped disks or not.
    pub(super) life: u64,
    /// When it woke last.
    pub(super) woke_at: Option<Micros>,
    /// What happened while it slept; `None` when it is awake.
    pub(super) asleep: Option<Vec<Event>>,
    /// It will crash as soon as something is on its way to the disk.
    pub(super) doomed: bool,
    /// That crash is on its way. It does not come when the fault is over before.
    pub(super) fated: bool,
    /// Its luck.
    pub(super) rng: fastrand::Rng,
    /// How far its clock runs too fast, in millionths.
    pub(super) drift: i64,
    /// How far its wall clock is off, in milliseconds.
    pub(super) wall_offset: u64,
}

impl Machine {
    /// The time that its own clock shows at the true time `now`.
    pub(super) fn clock(&self, now: Micros) -> Micros {
        scale(now, 1_000_000 + self.drift)
    }

    /// How long `span` of its own clock truly takes.
    pub(super) fn truly(&self, span: Micros) -> Micros {
        scale(span, 1_000_000 - self.drift).max(1)
    }
}

/// `span` times `millionths`. A span of hours still fits.
fn scale(span: Micros, millionths: i64) -> Micros {
    span * millionths.unsigned_abs() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    fn record(number: u64) -> Message {
        let mut record = Message::new(MessageType::Chat, "alice");
        record.seq = Some(number);
        record
    }

    fn disk_with(records: u64) -> Disk {
        let disk = Disk::default();
        for number in 1..=records {
            assert_eq!(disk.append(&record(number)), number);
        }
        disk
    }

    fn sync(disk: &mut Disk) {
        let index = disk.begin_sync().expect("something to sync");
        disk.end_sync(index);
    }

    fn read(disk: &Disk, from: LogIndex, bytes_max: usize) -> (LogIndex, Vec<u64>) {
        disk.request_read(7, from, bytes_max);
        match disk.take_events().pop() {
            Some(LogEvent::Read { token: 7, from, records }) => {
                (from, records.iter().filter_map(|record| record.seq).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_synced_is_read_and_whole_segments_are_forgotten() {
        let mut disk = disk_with(40);
        assert_eq!(read(&disk, 1, usize::MAX), (1, vec![]));
        sync(&mut disk);
        disk.append(&record(41));
        assert_eq!(read(&disk, 39, usize::MAX), (39, vec![39, 40]));
        assert_eq!(read(&disk, 3, 1), (3, vec![3]));
        assert_eq!(read(&disk, 42, usize::MAX), (42, vec![]));
        disk.forget_before(40);
        assert_eq!(read(&disk, 1, 1), (1, vec![1]), "nothing goes before all is synced");
        sync(&mut disk);
        assert_eq!(read(&disk, 1, 1), (33, vec![33]));
        assert_eq!(disk.append(&record(42)), 42);
        assert_eq!((disk.first_within(0), disk.first_within(u64::MAX)), (43, 33));
    }

    #[test]
    fn a_snapshot_is_saved_behind_the_records_and_may_be_lost_before() {
        let mut disk = disk_with(1);
        disk.save_snapshot(1, Contents::new("head", b"one"));
        assert!(!disk.has_events());
        sync(&mut disk);
        assert_eq!(disk.take_events(), [LogEvent::SnapshotSaved(1)]);
        let mut found = [false; 2];
        for seed in 0..20 {
            let mut disk = disk_with(1);
            sync(&mut disk);
            disk.save_snapshot(1, Contents::new("head", b"one"));
            assert_eq!(disk.crash(&mut fastrand::Rng::with_seed(seed)), 0);
            assert!(!disk.has_events(), "nobody is left to be told");
            found[usize::from(disk.snapshot().is_some())] = true;
        }
        assert_eq!(found, [true, true]);
    }

    #[test]
    fn a_start_after_a_crash_counts_from_one_again() {
        let mut disk = disk_with(40);
        sync(&mut disk);
        disk.forget_before(20);
        sync(&mut disk);
        disk.crash(&mut fastrand::Rng::with_seed(1));
        assert_eq!(disk.kept(), 24);
        assert_eq!(disk.append(&record(41)), 25);
        assert_eq!(read(&disk, 24, usize::MAX), (24, vec![40]));
    }
}
