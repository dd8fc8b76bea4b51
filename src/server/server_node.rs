//! `ServerNode`: one server, whole, as a state machine.
//!
//! ```text
//!   reader threads ─┐                            ┌─▶ cm (Network): frames to connections, dials
//!   election        ├─ lock ─▶ ServerNode ───────┤
//!   heartbeat-mon.  │          process_message   └─▶ log (Storage): records to sync
//!   timeout-checker │          on_…, tick_…
//!   log-writer     ─┘          settle            (all of them only queue; the thread
//!                                                 unlocks, then flushes)
//! ```
//!
//! It owns the parts of the class diagram and decides nothing that a part can decide. It does no I/O: a
//! thread (or the simulator) locks it, hands in a message, a tick or the end of a sync, calls
//! [`settle`](ServerNode::settle) once for the batch, unlocks, and only then lets the queued bytes go.
//!
//! The methods that concern one matter stand together: [`super::ring`] (membership and neighbours),
//! [`super::peers`] (links between servers), [`super::discovery`] (UDP), [`super::leadership`] (elections
//! and room locations), [`super::clients`] (requests), [`super::rooms`] (replicas, members,
//! delivery), [`super::sync`] (anti-entropy), [`super::recovery`] (the log at a start), [`super::snapshot`] (STATUS).
//!
//! Source: class-diagram.txt, `ServerNode`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use indexmap::IndexMap;

use super::ServerState;
use super::connections::{Conn, LocalClient, Role};
use super::dials::Dials;
use super::election::{Election, ElectionKind, ElectionTiming};
use super::failover::Failover;
use super::failure_detector::{DetectorTiming, FailureDetector};
use super::metadata::MetadataStore;
use super::multicast::CausalMulticastHandler;
use super::ordering::OrderingTiming;
use super::presence::Presence;
use super::pulse::Pulse;
use super::raft::RaftTiming;
use super::read_back::ReadBack;
use super::replay::{Replay, ReplayKey, Turns};
use super::ring::{RingNeighbor, ServerInfo};
use super::step::Step;
use super::time_sync::TimeSync;
use super::total_order::logins::Admission;
use super::total_order::{Ordered, Seq, order_of};
use crate::config::{AckRule, Retain};
use crate::domain::{Incarnation, NodeId, Room, Term, VectorClock};
use crate::error::RequestError;
use crate::network::ConnId;
use crate::storage::{LogEvent, LogIndex};

/// How long silence may last, in all parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// Of servers and clients.
    pub detector: DetectorTiming,
    /// Of an election without an outcome.
    pub election: ElectionTiming,
    /// Of a leader that gives messages their places (design `sequencer`).
    pub ordering: OrderingTiming,
    /// Of a leader by votes (design `raft`).
    pub raft: RaftTiming,
}

/// What a server is told about itself when it is made. Addresses are `host:port`.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its id.
    pub server_id: NodeId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// The random name of its data folder.
    pub disk_id: String,
    /// What others are told to dial.
    pub address: String,
    /// The cluster that it belongs to.
    pub cluster: String,
    /// The design that it runs, such as `ring`.
    pub design: String,
    /// How it finds a leader.
    pub election: ElectionKind,
    /// Servers to dial at the start, besides those that discovery finds.
    pub peers: Vec<String>,
    /// Rooms that exist from the start.
    pub rooms: Vec<String>,
    /// Whether it broadcasts on the discovery port.
    pub discovery: bool,
    /// Whom it lets in (designs `sequencer` and `raft`).
    pub admission: Admission,
    /// Heartbeats and timeouts.
    pub timing: Timing,
    /// How many servers found the cluster, in the designs that have voters.
    pub bootstrap_expect: usize,
    /// Whose disk an acknowledgement stands on (design `sequencer`).
    pub ack: AckRule,
    /// Entries that are applied before a snapshot replaces them (design `raft`).
    pub compact_after: u64,
    /// How much of the log is kept (design `sequencer`).
    pub retain: Retain,
    /// How much of the log's end stays in memory, in bytes; see
    /// [`TAIL_BYTES`](super::ordering::TAIL_BYTES) (designs `ring` and `sequencer`).
    pub log_tail_bytes: usize,
    /// How many messages are placed and not committed at most; see
    /// [`UNCOMMITTED_MAX`](super::ordering::UNCOMMITTED_MAX) (design `sequencer`).
    pub uncommitted_max: Seq,
    /// Where this life's chance comes from.
    pub seed: u64,
}

/// One server of the cluster, without its sockets, files and threads.
#[derive(Debug)]
pub struct ServerNode {
    /// Its id.
    pub server_id: NodeId,
    /// The host part of its advertised address.
    pub ip_address: String,
    /// The port of its advertised address.
    pub port: u16,
    /// Everything else that it was told at the start.
    pub config: NodeConfig,
    /// The neighbour with the next lower id, `None` when alone.
    pub left_neighbor: Option<RingNeighbor>,
    /// The neighbour with the next higher id, `None` when alone.
    pub right_neighbor: Option<RingNeighbor>,
    /// Every other server ever heard of.
    pub servers: BTreeMap<NodeId, ServerInfo>,
    /// The rooms that have a copy here, in the order in which they came. A message looks its room up some thirty times: where 256
    /// speak in rooms of their own, three servers make 7 % more writes than with a tree, which compares a dozen names each time.
    pub managed_rooms: IndexMap<String, Room>,
    /// Who leads.
    pub election_module: Box<dyn Election>,
    /// Who is alive.
    pub failure_detector: FailureDetector,
    /// Where rooms live.
    pub metadata_store: MetadataStore,
    /// What rooms say.
    pub causal_multicast_handler: CausalMulticastHandler,
    /// Who is online, on all servers.
    pub presence: Presence,
    /// One order for all, in the designs that have it.
    pub ordered: Option<Ordered>,
    /// What time it is; without `--ntp` the system clock's. Given before the start, as the next one.
    pub time_sync: TimeSync,
    /// Whose port takes connections; `None` where no health checks run.
    pub failover: Option<Failover>,
    /// The connections that are open.
    pub(super) conns: BTreeMap<ConnId, Conn>,
    /// Those of `conns` that said nothing yet or wait, and some that no longer do: at each tick only these are looked at.
    pub(super) unsettled: BTreeSet<ConnId>,
    /// The clients that are connected here, by session.
    pub(super) clients: IndexMap<String, LocalClient>,
    /// Sessions that came back here, and when: rooms of their former connections may still be unclaimed.
    pub(super) resumed: BTreeMap<String, Instant>,
    /// How regular its heartbeats are, and how often the leader changed.
    pub(super) pulse: Pulse,
    /// Addresses to dial, and when.
    pub(super) dials: Dials,
    /// When it was started.
    pub(super) started_at: Instant,
    /// Whether clients are taken: others had time to answer, and a leader is known.
    pub(super) ready: bool,
    /// The clients' rooms that are waited for: this server replicates them before it has a member.
    pub(super) wanted_rooms: BTreeMap<String, Instant>,
    /// When each room was requested from the leader last.
    pub(super) room_requests: BTreeMap<String, Instant>,
    /// When each (server, room) was asked for missing messages last.
    pub(super) sync_requests: BTreeMap<(NodeId, String), Instant>,
    /// Who sent batches of which rooms, and the room's clock with them: to be confirmed when on disk.
    pub(super) sync_sources: BTreeMap<(String, NodeId), VectorClock>,
    /// Rooms that hold messages back, and since when.
    pub(super) holding: BTreeMap<String, Instant>,
    /// When replicas are compared next.
    pub(super) anti_entropy_at: Instant,
    /// Sessions that are still being shown the past of a room.
    pub(super) replays: BTreeMap<ReplayKey, Replay>,
    /// Which of these is next, in each design.
    pub(super) replay_turns: Turns,
    /// Old messages that were asked of the log.
    pub(super) read_back: ReadBack,
    /// How many records the log held at the start, as far as they were handed in.
    pub(super) recovered: LogIndex,
    /// When it said over UDP that it exists last.
    pub(super) discovery_at: Option<Instant>,
    /// The term that was acted upon last.
    pub(super) acted_term: (Option<Term>, Option<NodeId>),
    /// Until when this server, newly leading, waits for reports of rooms.
    pub(super) rehome_at: Option<Instant>,
    /// Something changed that waiting clients may have waited for.
    pub(super) progress: bool,
    /// Why the node must not go on (another node has its id); the shell ends it.
    pub(super) fatal: Option<String>,
}

impl ServerNode {
    /// A server that knows nobody yet, started at `now`.
    pub fn new(config: NodeConfig, now: Instant) -> Self {
        let (ip_address, port) = split_address(&config.address);
        let node = config.server_id.clone();
        let (incarnation, address) = (config.incarnation.clone(), config.address.clone());
        let election =
            config.election.make(node.clone(), incarnation, address, config.timing.election);
        Self {
            ip_address,
            port,
            left_neighbor: None,
            right_neighbor: None,
            servers: BTreeMap::new(),
            managed_rooms: IndexMap::new(),
            election_module: election,
            failure_detector: FailureDetector::new(node.clone(), config.timing.detector),
            metadata_store: MetadataStore::new(node.clone()),
            causal_multicast_handler: CausalMulticastHandler::new(
                config.incarnation.clone(),
                config.log_tail_bytes,
            ),
            presence: Presence::new(),
            ordered: order_of(&config),
            time_sync: TimeSync::default(),
            failover: None,
            conns: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            clients: IndexMap::new(),
            resumed: BTreeMap::new(),
            pulse: Pulse::default(),
            dials: Dials::new(&config.peers, &config.address, now),
            started_at: now,
            ready: false,
            wanted_rooms: BTreeMap::new(),
            room_requests: BTreeMap::new(),
            sync_requests: BTreeMap::new(),
            sync_sources: BTreeMap::new(),
            holding: BTreeMap::new(),
            anti_entropy_at: now,
            replays: BTreeMap::new(),
            replay_turns: Turns::default(),
            read_back: ReadBack::default(),
            recovered: 0,
            discovery_at: None,
            acted_term: (None, None),
            rehome_at: None,
            progress: false,
            fatal: None,
            server_id: node,
            config,
        }
    }

    /// The leader that this server follows, or itself; `None` while none is known.
    pub fn leader_id(&self) -> Option<NodeId> {
        match &self.ordered {
            Some(ordered) => ordered.order.leader(),
            None => self.election_module.leader(),
        }
    }

    /// The highest term in which somebody led, as far as is known here.
    pub fn term(&self) -> Option<&Term> {
        match &self.ordered {
            Some(ordered) => ordered.order.term(),
            None => self.election_module.term(),
        }
    }

    /// Where this server stands in the election of a leader.
    pub fn state(&self) -> ServerState {
        match &self.ordered {
            Some(ordered) => ordered.order.state(),
            None => self.election_module.state(),
        }
    }

    /// How many rooms this server hosts, by `room_locations`.
    pub fn number_of_rooms(&self) -> usize {
        let hosts = self.metadata_store.room_locations().values();
        hosts.filter(|host| **host == self.server_id).count()
    }

    /// Whether clients are taken.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether `conn` is the connection of another server.
    pub fn is_peer(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|conn| matches!(conn.role, Role::Peer(_)))
    }

    /// Why the node must end, if it must: the shell looks after every step.
    pub fn fatal(&self) -> Option<&str> {
        self.fatal.as_deref()
    }

    /// A connection was opened: accepted from `addr`, or `dialled` by this server. The diagram's
    /// `handle_join(sock, addr)`; the socket stays outside and is called `conn` here.
    pub fn handle_join(
        &mut self,
        conn: ConnId,
        addr: SocketAddr,
        dialled: Option<String>,
        step: &Step,
    ) {
        let dials_out = dialled.is_some();
        let (role, opened_at) = (Role::New, step.now);
        let opened = Conn { role, addr, dialled, opened_at, heard_at: None, waiting: None };
        self.conns.insert(conn, opened);
        self.unsettled.insert(conn);
        if dials_out {
            step.cm.send_to_conn(conn, &self.hello().to_frame());
        }
    }

    /// A connection ended, for the reason in words.
    pub fn handle_closed(&mut self, conn: ConnId, reason: &str, step: &Step) {
        if let Some(trace) = step.cm.trace() {
            trace.closed(conn);
        }
        let Some(ended) = self.conns.remove(&conn) else { return };
        log::debug!("connection {conn} from {} ended: {reason}", ended.addr);
        if let Some(address) = ended.dialled {
            self.dials.failed(&address, step.now);
        }
        self.forget_login(conn);
        if let Some(ordered) = &mut self.ordered {
            ordered.forget_operator(conn);
        }
        match ended.role {
            Role::New => {}
            Role::Peer(node_id) => self.link_down(&node_id, conn, reason, step),
            Role::Client(session) => self.client_gone(&session, conn, step),
        }
    }

    /// What the log has to say, each event in a step of its own. The ring looks at
    /// [`Storage::fault`](crate::storage::Storage::fault) itself.
    pub fn on_log_event(&mut self, event: LogEvent) {
        if let LogEvent::Synced(index) = event {
            return self.on_synced(index);
        }
        if let LogEvent::ReadRecords { token, records } = event {
            return self.read_back.on_read(token, records);
        }
        if let Some(ordered) = &mut self.ordered {
            ordered.note_log_event(&event);
            match event {
                LogEvent::Read { token, from, records } => {
                    ordered.order.on_read(token, from, records);
                }
                event => ordered.order.on_log_event(&event),
            }
        }
    }

    /// Everything that the log was given up to `index` is on disk.
    pub fn on_synced(&mut self, index: LogIndex) {
        if let Some(ordered) = &mut self.ordered {
            ordered.order.on_synced(index);
        }
        self.causal_multicast_handler.on_synced(index, &mut self.managed_rooms);
    }

    /// The tick of the heartbeat monitor.
    pub fn tick_heartbeat(&mut self, step: &Step) {
        if let Some(trace) = step.cm.trace() {
            trace.timer("heartbeat");
        }
        self.pulse.beat(step.now, self.config.timing.detector.heartbeat_interval);
        let term = self.election_module.term();
        self.failure_detector.send_heartbeat(step.cm, &self.metadata_store, term);
        if let Some(ordered) = &mut self.ordered {
            ordered.order.heartbeat(step);
        }
        self.broadcast_server_discovery(step);
    }

    /// The tick of the timeout checker: silence, elections, dials, anti-entropy, requests that wait.
    pub fn tick_timeouts(&mut self, step: &Step) {
        if let Some(trace) = step.cm.trace() {
            trace.timer("timeouts");
        }
        self.check_silence(step);
        self.election_module.tick(step.now, step.cm);
        self.check_leadership(step);
        self.dial_servers(step);
        if self.ordered.is_none() {
            self.rehome_when_due(step);
            self.anti_entropy(step);
        }
        self.check_connections(step);
        self.expire_presence(step);
    }

    /// Before [`stop`](Self::stop): a leader of the designs with one order asks another server to lead. Whether that is to be
    /// waited for, as [`hands_over`](Self::hands_over) says.
    pub fn resign(&mut self, step: &Step) -> bool {
        if let Some(ordered) = &mut self.ordered {
            ordered.order.resign(step);
        }
        self.hands_over()
    }

    /// Whether this server resigned and its successor does not lead yet.
    pub fn hands_over(&self) -> bool {
        self.ordered.as_ref().is_some_and(|ordered| ordered.order.hands_over())
    }

    /// Says goodbye to everyone: clients go elsewhere, servers close the ring without waiting for silence.
    pub fn stop(&mut self, step: &Step) {
        let frame = RequestError::ServerStopping.to_message(self.server_id.as_str()).to_frame();
        for (id, conn) in std::mem::take(&mut self.conns) {
            if conn.role != Role::New {
                step.cm.send_to_conn(id, &frame);
            }
            step.cm.close(id);
            step.cm.resume(id);
        }
        self.clients.clear();
    }

    /// What a batch of steps owes, once: confirmations, messages to show, acknowledgements, and another
    /// chance for what waits. Call it before unlocking.
    pub fn settle(&mut self, step: &Step) {
        if self.ordered.is_some() {
            self.settle_ordered(step);
        } else {
            self.act_on_leader(step);
            self.confirm_batches(step);
            self.take_read_back(step);
            self.settle_rooms(step);
            self.pump_replays(step);
            let me = self.server_id.clone();
            self.causal_multicast_handler.send_confirmations(&self.managed_rooms, &me, step);
        }
        if std::mem::take(&mut self.progress) {
            // A password that is being checked is not helped by news: whoever has checked it resumes its connection. Of 256 that log in
            // at once, each would be woken for each message of those that were faster.
            let is_hashing = |id| self.ordered.as_ref().is_some_and(|order| order.is_hashing(id));
            let waits = |id: &ConnId| {
                let conn = self.conns.get(id);
                conn.is_some_and(|conn| conn.waiting.is_some()) && !is_hashing(*id)
            };
            for conn in self.unsettled.iter().copied().filter(waits) {
                step.cm.resume(conn);
            }
        }
    }

    /// The other servers that are not dead, connected or not.
    pub(super) fn live_others(&self) -> BTreeSet<NodeId> {
        let live = self.servers.iter().filter(|(_, info)| info.is_live());
        live.map(|(node_id, _)| node_id.clone()).collect()
    }
}

/// Host and port of `host:port`; port 0 when there is none.
fn split_address(address: &str) -> (String, u16) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    (host.trim_matches(['[', ']']).to_string(), port.parse().unwrap_or(0))
}
