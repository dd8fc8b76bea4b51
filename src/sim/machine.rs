//! One simulated server machine: a disk, a clock, and perhaps a [`ServerNode`] that runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::agenda::{Event, Micros};
use crate::domain::{Frame, Incarnation, Message, NodeId, Term};
use crate::network::ConnId;
use crate::network::transport::{Network, Transport};
use crate::server::ServerNode;
use crate::server::planted::{Planted, is_planted};
use crate::storage::{LogIndex, Storage};

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
        self.push(Effect::ToNode(node_id.clone(), msg.to_frame()));
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

/// A disk: records, of which the first `synced` survive a crash for certain.
#[derive(Debug, Default)]
pub(super) struct Disk {
    records: RefCell<Vec<Frame>>,
    synced: usize,
    /// Up to where the sync under way will have synced.
    pub(super) syncing: Option<LogIndex>,
    /// How often a server was started on it.
    pub(super) starts: u64,
    /// Its random name.
    pub(super) id: String,
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

    /// The records, to recover from.
    pub(super) fn records(&self) -> Vec<Frame> {
        self.records.borrow().clone()
    }

    /// Begins a sync of everything that is appended, unless one runs or nothing is to do. Returns up to where.
    pub(super) fn begin_sync(&mut self) -> Option<LogIndex> {
        let appended = self.records.borrow().len();
        if self.syncing.is_some() || appended == self.synced {
            return None;
        }
        self.syncing = Some(appended as LogIndex);
        self.syncing
    }

    /// The sync under way is done up to `index`.
    pub(super) fn end_sync(&mut self, index: LogIndex) {
        self.syncing = None;
        self.synced = usize::try_from(index).unwrap_or(usize::MAX);
    }

    /// The machine loses power: of what was not synced only a part from the start may have reached the disk, and the last
    /// write may be torn, which is the same as lost. Returns how many records are lost.
    pub(super) fn crash(&mut self, rng: &mut fastrand::Rng) -> usize {
        let records = self.records.get_mut();
        let before = records.len();
        let kept = match rng.u32(0..3) {
            0 => self.synced,
            1 => before,
            _ => rng.usize(self.synced..=before),
        };
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
