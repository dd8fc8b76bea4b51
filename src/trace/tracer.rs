//! The trace of one life of one server, as its steps see it.
//!
//! ```text
//!   begin(time) ─▶ received, timer, … ─▶ what the step sends ─▶ taken(standing) ─▶ end(standing) ─▶ sink
//!                  the cause             through `Traced`        what changed
//! ```
//!
//! All of it happens under the server's lock, so that the order of the trace is the order of what happened. A change of
//! state is written behind what caused it and before what the step sent because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::Mutex;

use super::entry::{Entry, What, Who};
use super::event::Run;
use super::network::Traced;
use crate::domain::{Frame, Incarnation, Message, MessageType, NodeId, Term};
use crate::network::{ConnId, Network};
use crate::server::{Flow, ServerState};
use crate::storage::LogIndex;

/// Names of frames that are longer are nobody's.
const FRAME_NAME_BYTES_MAX: usize = 120;

/// Takes what steps did. It must not block.
pub trait Sink: Debug + Send + Sync {
    /// Takes what one step did, in order.
    fn put(&self, entries: Vec<Entry>);
}

/// Where a server stands, as far as others care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// In the election of a leader.
    pub state: ServerState,
    /// Whom it follows, perhaps itself.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: Option<Term>,
    /// Whether it takes clients.
    pub ready: bool,
    /// Who else is alive, as far as it knows.
    pub live: BTreeSet<NodeId>,
    /// The random id of its cluster, if it has one.
    pub cluster_id: Option<String>,
}

impl Default for Standing {
    /// A server that knows nobody.
    fn default() -> Self {
        Self {
            state: ServerState::Looking,
            leader: None,
            term: None,
            ready: false,
            live: BTreeSet::new(),
            cluster_id: None,
        }
    }
}

impl Standing {
    /// What is different since `before`, in words.
    fn changes_since(&self, before: &Self) -> String {
        let mut said = Vec::new();
        let role =
            |standing: &Self| (standing.state, standing.leader.clone(), standing.term.clone());
        if role(self) != role(before) {
            said.push(self.role());
        }
        said.extend(before.live.difference(&self.live).map(|id| format!("calls {id} dead")));
        said.extend(self.live.difference(&before.live).map(|id| format!("finds {id} alive")));
        if self.ready && !before.ready {
            said.push("takes clients".into());
        }
        if self.cluster_id != before.cluster_id {
            let id = self.cluster_id.as_deref().unwrap_or("none");
            said.push(format!("belongs to the cluster with id {id}"));
        }
        said.join("; ")
    }

    fn role(&self) -> String {
        let term = self.term.as_ref().map(|term| format!(" in term {term}")).unwrap_or_default();
        match (self.state, &self.leader) {
            (ServerState::Leader, _) => format!("leads{term}"),
            (ServerState::ElectionInProgress, _) => "stands for election".into(),
            (_, Some(leader)) => format!("follows {leader}{term}"),
            (_, None) => "knows no leader".into(),
        }
    }
}

/// Writes down what one server does.
#[derive(Debug)]
pub struct Tracer {
    node: NodeId,
    /// The life's name as JSON, without the closing quote: frames are named for it.
    name: String,
    sink: Box<dyn Sink>,
    /// A leaf: nothing else is locked under it.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    now_us: u64,
    /// What the step under way did.
    entries: Vec<Entry>,
    /// Behind the last cause in them: where a change of state belongs.
    cause: usize,
    /// A timer that fired, and of which nothing came yet.
    timer: Option<&'static str>,
    who: BTreeMap<ConnId, Who>,
    links: BTreeMap<NodeId, ConnId>,
    /// What comes next from them came before, and had to wait.
    waiting: BTreeSet<ConnId>,
    frames: u64,
    standing: Standing,
}

impl Tracer {
    /// Begins a trace: `run` is its first line.
    pub fn new(
        node: &NodeId,
        life: &Incarnation,
        run: Run,
        time_us: u64,
        sink: Box<dyn Sink>,
    ) -> Self {
        let entry = Entry { node: node.clone(), time_us, what: What::Start(run) };
        sink.put(vec![entry]);
        // A string always serialises.
        let mut name = serde_json::to_string(life).expect("a name serialises");
        name.pop();
        let state = Mutex::new(State { now_us: time_us, ..State::default() });
        Self { node: node.clone(), name, sink, state }
    }

    /// A step begins, at `time_us`.
    pub fn begin(&self, time_us: u64) {
        let mut state = self.state.lock();
        state.now_us = time_us;
        state.cause = 0;
        state.timer = None;
    }

    /// The network during a step: `cm`, and everything that is sent is written down.
    pub fn around<'a>(&'a self, cm: &'a dyn Network) -> Traced<'a> {
        Traced { tracer: self, cm }
    }

    /// The step is over.
    pub fn end(&self, standing: &Standing) {
        self.stand(standing);
        // Under the lock only taken out: the sink has a lock of its own.
        let entries = std::mem::take(&mut self.state.lock().entries);
        if !entries.is_empty() {
            self.sink.put(entries);
        }
    }

    /// The server stopped, as it was told to, at `time_us`.
    pub fn stopped(&self, time_us: u64) {
        self.sink.put(vec![Entry { node: self.node.clone(), time_us, what: What::Stop }]);
    }

    /// `msg` came on `conn`.
    pub fn received(&self, conn: ConnId, msg: &Message) {
        let mut state = self.state.lock();
        if state.waiting.contains(&conn) {
            return;
        }
        let from = state.sender(conn, msg);
        let mut msg = Box::new(msg.clone());
        msg.trace = msg.trace.filter(|name| name.len() <= FRAME_NAME_BYTES_MAX);
        state.push(&self.node, What::Received { from, msg });
        state.cause = state.entries.len();
    }

    /// What came on `conn` was taken, or has to come again; then the server stood at `standing`.
    pub fn taken(&self, conn: ConnId, flow: Flow, standing: &Standing) {
        {
            let mut state = self.state.lock();
            if flow == Flow::Wait {
                state.waiting.insert(conn);
            } else {
                state.waiting.remove(&conn);
            }
        }
        self.stand(standing);
    }

    /// The timer `name` fired. That is written down if something comes of it.
    pub fn timer(&self, name: &'static str) {
        self.state.lock().timer = Some(name);
    }

    /// The log is on disk up to `index`.
    pub fn synced(&self, index: LogIndex) {
        let mut state = self.state.lock();
        state.push(&self.node, What::Synced(index));
        state.cause = state.entries.len();
    }

    /// The connection is over.
    pub fn closed(&self, conn: ConnId) {
        let mut state = self.state.lock();
        state.waiting.remove(&conn);
        if let Some(Who::Server(node_id)) = state.who.remove(&conn)
            && state.links.get(&node_id) == Some(&conn)
        {
            state.links.remove(&node_id);
        }
    }

    fn stand(&self, standing: &Standing) {
        let mut state = self.state.lock();
        if state.standing == *standing {
            return;
        }
        let say = standing.changes_since(&state.standing);
        state.standing = standing.clone();
        state.tell_timer(&self.node);
        let entry = state.entry(&self.node, What::Stands(standing.clone(), say));
        let at = state.cause;
        state.entries.insert(at, entry);
        state.cause += 1;
    }

    // ------------------------------------------------------------ what the network is asked for

    /// The connection that stands to `node_id`.
    pub(super) fn link_to(&self, node_id: &NodeId) -> Option<ConnId> {
        self.state.lock().links.get(node_id).copied()
    }

    /// All connections to servers.
    pub(super) fn links(&self) -> Vec<(NodeId, ConnId)> {
        let state = self.state.lock();
        state.links.iter().map(|(node_id, conn)| (node_id.clone(), *conn)).collect()
    }

    /// Who is at the other end of `conn`.
    pub(super) fn who(&self, conn: ConnId) -> Who {
        self.state.lock().who.get(&conn).cloned().unwrap_or_default()
    }

    /// `frame` goes to servers: it is written down, and gets a name.
    pub(super) fn named(&self, to: Vec<Who>, frame: &Frame) -> Frame {
        let mut state = self.state.lock();
        state.tell_timer(&self.node);
        state.frames += 1;
        // A message is an object with a type in it, so there is a brace to cut off and something before the comma.
        let head = &frame[..frame.len() - 1];
        let tail = format!(",\"trace\":{}:{}\"}}", self.name, state.frames);
        // A JSON string reads back; it may have been escaped.
        let name = serde_json::from_str(&tail[9..tail.len() - 1]).unwrap_or_default();
        state.push(&self.node, What::Sent { to, name: Some(name), frame: frame.clone() });
        [head, tail.as_bytes()].concat().into()
    }

    /// `frame` goes to a client. The same frame for several is one event.
    pub(super) fn shown(&self, to: Who, frame: &Frame) {
        let mut state = self.state.lock();
        state.tell_timer(&self.node);
        if let Some(Entry { what: What::Sent { to: others, name: None, frame: last }, .. }) =
            state.entries.last_mut()
            && Arc::ptr_eq(last, frame)
        {
            others.push(to);
            return;
        }
        state.push(&self.node, What::Sent { to: vec![to], name: None, frame: frame.clone() });
    }

    /// `conn` is the way to `node_id` now.
    pub(super) fn bound_peer(&self, conn: ConnId, node_id: &NodeId) {
        let mut state = self.state.lock();
        state.who.insert(conn, Who::Server(node_id.clone()));
        state.links.insert(node_id.clone(), conn);
    }

    /// `conn` is the way to `session` now.
    pub(super) fn bound_client(&self, conn: ConnId, session: &str) {
        let mut state = self.state.lock();
        if let Some(Who::Client(_, known)) = state.who.get_mut(&conn) {
            *known = session.into();
        }
    }
}

impl State {
    /// Who sent `msg`: whoever the connection is bound to, or whoever the message says that it is.
    fn sender(&mut self, conn: ConnId, msg: &Message) -> Who {
        let known = self.who.entry(conn).or_default();
        match msg.message_type {
            MessageType::Hello if *known == Who::Unknown => {
                *known = Who::Server(msg.sender_id.as_str().into());
            }
            MessageType::ClientJoin if *known == Who::Unknown => {
                *known = Who::Client(msg.sender_id.as_str().into(), "".into());
            }
            _ => {}
        }
        known.clone()
    }

    fn entry(&self, node: &NodeId, what: What) -> Entry {
        Entry { node: node.clone(), time_us: self.now_us, what }
    }

    fn push(&mut self, node: &NodeId, what: What) {
        let entry = self.entry(node, what);
        self.entries.push(entry);
    }

    /// Something comes of the timer that fired.
    fn tell_timer(&mut self, node: &NodeId) {
        if let Some(name) = self.timer.take() {
            self.push(node, What::Timer(name.into()));
            self.cause = self.entries.len();
        }
    }
}
