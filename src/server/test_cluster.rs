//! A few servers in one test, without threads or sockets: messages are delivered one at a time, in the order
//! sent, until nobody has anything to say. For the rare and the random there is the simulator.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::election::ElectionKind;
use super::ordering::{TAIL_BYTES, UNCOMMITTED_MAX};
use super::server_node::{NodeConfig, Timing};
use super::total_order::logins::Admission;
use super::total_order::password::HashMemory;
use super::{Flow, ServerNode, Step};
use crate::config::{AckRule, Retain};
use crate::domain::content::{ClientJoin, ErrorContent, JoinRoom};
use crate::domain::{Content, Incarnation, Message, MessageType, NodeId};
use crate::network::transport::Sent;
use crate::network::{ConnId, transport::Outbox};
use crate::storage::{MemoryLog, Storage};
use crate::testing::start;

mod story;

pub(super) use story::Event;

/// One end of a connection: the server, and its name for it.
pub(super) type End = (NodeId, ConnId);

pub(super) struct TestNode {
    pub(super) node: ServerNode,
    pub(super) log: MemoryLog,
    net: Outbox,
    peers: BTreeMap<NodeId, ConnId>,
    /// Whether appended records are synced at once.
    pub(super) syncs: bool,
    synced: u64,
}

#[derive(Default)]
pub(super) struct TestCluster {
    pub(super) nodes: BTreeMap<NodeId, TestNode>,
    /// Servers that are down: dials of them are refused.
    down: BTreeSet<NodeId>,
    /// Messages between these are held back, in order, until the pair is whole again.
    stalled: BTreeSet<(NodeId, NodeId)>,
    /// Pairs, the lower id first, between which nothing passes, new connections included.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Servers that get neither ticks nor messages.
    pub(super) asleep: BTreeSet<NodeId>,
    /// Passwords are not checked for the moment: others are, as it were.
    pub(super) is_hashing_slow: bool,
    /// What happened, in order, while somebody listens.
    pub(super) story: Option<Vec<Event>>,
    ends: BTreeMap<End, End>,
    /// What is under way to which end; `None` says that the other side closed.
    queue: VecDeque<(End, Option<Message>)>,
    waiting: BTreeMap<End, VecDeque<Message>>,
    /// Resumed since the last delivery: one that is told to wait in the same step goes on at once.
    resumed: BTreeSet<End>,
    /// How often a server woke a reader.
    pub(super) resumes: u64,
    inboxes: BTreeMap<End, Vec<Message>>,
    closed: BTreeSet<End>,
    next_conn: u64,
    starts: u64,
    elapsed: Duration,
    /// How far the servers' wall clock is ahead of the time that passed, in milliseconds.
    wall_ahead_ms: u64,
}

pub(super) fn config(id: &str, peers: &[&str], start: u64) -> NodeConfig {
    let server_id = NodeId::from(id);
    NodeConfig {
        incarnation: Incarnation::new(&server_id, start, 0),
        server_id,
        disk_id: format!("disk-{id}"),
        address: format!("{id}:1"),
        cluster: "test".into(),
        design: "ring".into(),
        election: ElectionKind::default(),
        peers: peers.iter().map(|id| format!("{id}:1")).collect(),
        rooms: Vec::new(),
        discovery: false,
        admission: Admission::default(),
        timing: Timing::default(),
        bootstrap_expect: 1 + peers.iter().filter(|peer| **peer != id).count(),
        ack: AckRule::default(),
        compact_after: 20_000,
        retain: Retain::Everything,
        log_tail_bytes: TAIL_BYTES,
        uncommitted_max: UNCOMMITTED_MAX,
        seed: start,
    }
}

impl TestCluster {
    /// Servers with these ids that know each other's addresses, running until they have a leader.
    pub(super) fn of(ids: &[&str]) -> Self {
        let mut cluster = Self::default();
        for id in ids {
            cluster.start(config(id, ids, 1));
        }
        cluster.advance(1500);
        cluster
    }

    pub(super) fn start(&mut self, config: NodeConfig) {
        self.starts += 1;
        self.start_with_log(config, Vec::new());
    }

    pub(super) fn start_with_log(&mut self, config: NodeConfig, records: Vec<Message>) {
        let id = config.server_id.clone();
        let mut node = ServerNode::new(config, self.now());
        let log = MemoryLog::that_syncs();
        for record in records {
            log.append(&record);
            node.recover(record);
        }
        if node.ordered.is_none() {
            node.recovered().expect("a ring misses nothing");
        }
        let synced = log.records().len() as u64;
        let net = Outbox::new();
        let peers = BTreeMap::new();
        self.down.remove(&id);
        self.nodes.insert(id.clone(), TestNode { node, log, net, peers, syncs: true, synced });
        self.step(&id, ServerNode::start_failure_detection);
    }

    /// The server ends without a word; what was not synced is lost. Its connections are reset.
    pub(super) fn crash(&mut self, id: &str) -> Vec<Message> {
        let id = NodeId::from(id);
        let mut dead = self.nodes.remove(&id).expect("a running server");
        self.down.insert(id.clone());
        let mut records = dead.log.kept();
        let lost = usize::try_from(dead.log.appended() - dead.synced).unwrap();
        records.truncate(records.len() - lost);
        dead.peers.clear();
        let ends: Vec<(End, End)> = self
            .ends
            .iter()
            .filter(|((owner, _), _)| *owner == id)
            .map(|(mine, theirs)| (mine.clone(), theirs.clone()))
            .collect();
        for (mine, theirs) in ends {
            self.ends.remove(&mine);
            self.end_closed(&theirs);
        }
        self.queue.retain(|((owner, _), _)| *owner != id);
        self.run();
        records
    }

    /// Crashes `id` and starts it again from what it had synced.
    pub(super) fn restart(&mut self, id: &str) {
        let mut config = self.nodes[&NodeId::from(id)].node.config.clone();
        let records = self.crash(id);
        self.starts += 1;
        config.incarnation = Incarnation::new(&config.server_id, self.starts + 1, 0);
        self.start_with_log(config, records);
    }

    pub(super) fn now(&self) -> Instant {
        start() + self.elapsed
    }

    /// Sets the servers' wall clocks forward, as if they had slept for so long.
    pub(super) fn set_wall_ahead(&mut self, ms: u64) {
        self.wall_ahead_ms = ms;
    }

    pub(super) fn node(&self, id: &str) -> &ServerNode {
        &self.nodes[&NodeId::from(id)].node
    }

    pub(super) fn log_of(&self, id: &str) -> &MemoryLog {
        &self.nodes[&NodeId::from(id)].log
    }

    /// From now on `id` syncs what it appends only when told to.
    pub(super) fn set_syncing(&mut self, id: &str, syncs: bool) {
        self.nodes.get_mut(&NodeId::from(id)).unwrap().syncs = syncs;
        self.run();
    }

    /// Holds back what `from` sends to `to`, or lets it all go.
    pub(super) fn stall(&mut self, from: &str, to: &str, stalled: bool) {
        let pair = (NodeId::from(from), NodeId::from(to));
        if stalled {
            self.stalled.insert(pair);
        } else {
            self.stalled.remove(&pair);
            self.run();
        }
    }

    /// Cuts `a` and `b` off from each other: what is sent waits, dials time out.
    pub(super) fn cut(&mut self, a: &str, b: &str) {
        let (a, b) = (NodeId::from(a), NodeId::from(b));
        self.cut.insert(if a < b { (a, b) } else { (b, a) });
    }

    /// The network is whole again.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.run();
    }

    fn is_cut(&self, a: &NodeId, b: &NodeId) -> bool {
        let pair = if a < b { (a, b) } else { (b, a) };
        self.cut.iter().any(|(a, b)| (a, b) == pair)
    }

    /// The server gets its tick first and then all messages that came while it was asleep.
    pub(super) fn wake(&mut self, id: &str) {
        let id = NodeId::from(id);
        self.asleep.remove(&id);
        self.step(&id, ServerNode::tick_heartbeat);
        self.step(&id, ServerNode::tick_timeouts);
        self.run();
    }

    /// Steps one server, and applies what it asked for.
    pub(super) fn step<R>(
        &mut self,
        id: &NodeId,
        body: impl FnOnce(&mut ServerNode, &Step) -> R,
    ) -> R {
        let now = self.now();
        let wall_ms = u64::try_from(self.elapsed.as_millis()).unwrap() + self.wall_ahead_ms;
        let before = self.rooms_of(id);
        let TestNode { node, log, net, .. } = self.nodes.get_mut(id).expect("a running server");
        let step = Step { now, wall_ms, cm: net, log };
        let result = body(node, &step);
        node.settle(&step);
        while node.has_more_to_do() {
            node.settle(&step);
        }
        let sent = net.take();
        self.note_rooms(id, &before);
        for sent in sent {
            self.apply(id, sent);
        }
        result
    }

    fn apply(&mut self, id: &NodeId, sent: Sent) {
        match sent {
            Sent::ToNode(to, msg) => {
                if let Some(conn) = self.nodes[id].peers.get(&to).copied() {
                    self.send((id.clone(), conn), msg);
                }
            }
            Sent::ToAll(msg) => {
                let conns: Vec<ConnId> = self.nodes[id].peers.values().copied().collect();
                for conn in conns {
                    self.send((id.clone(), conn), msg.clone());
                }
            }
            Sent::ToConn(conn, msg) => self.send((id.clone(), conn), msg),
            Sent::Close(conn) => {
                let end = (id.clone(), conn);
                self.unbind(&end);
                if let Some(other) = self.ends.remove(&end) {
                    self.queue.push_back((other, None));
                } else {
                    self.note(|| Event::Closed(end.clone()));
                    self.closed.insert(end);
                }
            }
            Sent::Resume(conn) => {
                let end = (id.clone(), conn);
                self.resumed.insert(end.clone());
                self.resumes += 1;
                for msg in self.waiting.remove(&end).into_iter().flatten().rev() {
                    self.queue.push_front((end.clone(), Some(msg)));
                }
            }
            Sent::BindPeer(conn, to) => {
                self.nodes.get_mut(id).unwrap().peers.insert(to, conn);
            }
            Sent::BindClient(..) => {}
            Sent::Dial(address) => self.dial(id, &address),
            Sent::Udp(msg, None) => {
                let ids: Vec<NodeId> = self.nodes.keys().cloned().collect();
                let from: SocketAddr = ([127, 0, 0, 1], 1).into();
                for to in ids.iter().filter(|to| *to != id) {
                    self.step(to, |node, step| node.handle_udp_message(&msg, from, step));
                }
            }
            Sent::Udp(msg, Some(_)) => {
                self.inboxes.entry((id.clone(), ConnId(0))).or_default().push(msg);
            }
        }
    }

    fn unbind(&mut self, (id, conn): &End) {
        if let Some(node) = self.nodes.get_mut(id) {
            node.peers.retain(|_, bound| bound != conn);
        }
    }

    /// Tells the owner of `end`, a server, that the other side closed.
    fn end_closed(&mut self, end: &End) {
        self.ends.remove(end);
        self.unbind(end);
        if self.nodes.contains_key(&end.0) {
            self.step(&end.0, |node, step| node.handle_closed(end.1, "reset", step));
        }
    }

    fn send(&mut self, from: End, msg: Message) {
        if let Some(to) = self.ends.get(&from).cloned() {
            self.note(|| Event::Sent(from.0, to.0.clone(), msg.clone()));
            self.queue.push_back((to, Some(msg)));
        } else {
            self.note(|| Event::Told(from.clone(), msg.clone()));
            self.inboxes.entry(from).or_default().push(msg);
        }
    }

    fn new_conn(&mut self) -> ConnId {
        self.next_conn += 1;
        ConnId(self.next_conn)
    }

    fn dial(&mut self, id: &NodeId, address: &str) {
        let to = NodeId::from(address.trim_end_matches(":1"));
        if !self.nodes.contains_key(&to) {
            let refused = self.down.contains(&to);
            self.step(id, |node, step| node.dial_failed(address, refused, step));
            return;
        }
        if self.is_cut(id, &to) {
            self.step(id, |node, step| node.dial_failed(address, false, step));
            return;
        }
        let (here, there) = (self.new_conn(), self.new_conn());
        self.ends.insert((id.clone(), here), (to.clone(), there));
        self.ends.insert((to.clone(), there), (id.clone(), here));
        let addr: SocketAddr = ([127, 0, 0, 1], 1).into();
        self.step(&to, |node, step| node.handle_join(there, addr, None, step));
        let dialled = Some(address.to_string());
        self.step(id, |node, step| node.handle_join(here, addr, dialled, step));
    }

    /// Delivers until nothing is under way.
    pub(super) fn run(&mut self) {
        for _ in 0..1_000_000 {
            self.sync_all();
            if !self.is_hashing_slow {
                self.hash_all();
            }
            let next = self.queue.iter().position(|((to, conn), _)| {
                let from = self.ends.get(&(to.clone(), *conn)).map(|(from, _)| from.clone());
                !self.asleep.contains(to)
                    && from.is_none_or(|from| {
                        !self.is_cut(&from, to) && !self.stalled.contains(&(from, to.clone()))
                    })
            });
            let Some((end, msg)) = next.and_then(|at| self.queue.remove(at)) else { return };
            match msg {
                Some(msg) => self.deliver(&end, msg),
                None => self.end_closed(&end),
            }
        }
        panic!(
            "the servers never fall silent: {:?}",
            self.queue.iter().take(10).collect::<Vec<_>>()
        );
    }

    fn deliver(&mut self, end: &End, msg: Message) {
        if !self.nodes.contains_key(&end.0) {
            return;
        }
        if let Some(waiting) = self.waiting.get_mut(end) {
            waiting.push_back(msg);
            return;
        }
        // Over the wire, as bytes.
        let msg = Message::decode(&msg.to_frame()).expect("servers send what they can read");
        self.resumed.clear();
        let flow = self.step(&end.0, |node, step| node.process_message(end.1, &msg, step));
        if flow == Flow::Wait && self.resumed.contains(end) {
            self.queue.push_front((end.clone(), Some(msg)));
        } else if flow == Flow::Wait {
            self.waiting.entry(end.clone()).or_default().push_front(msg);
        }
    }

    fn sync_all(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for id in ids {
            let node = self.nodes.get_mut(&id).unwrap();
            let appended = node.log.appended();
            if node.syncs && appended > node.synced && !self.asleep.contains(&id) {
                let before = usize::try_from(node.synced).unwrap();
                node.synced = appended;
                node.log.synced(appended);
                if let Some(story) = &mut self.story {
                    let records = node.log.records().into_iter().skip(before);
                    story.extend(records.map(|msg| Event::Synced(id.clone(), msg)));
                }
                self.step(&id, |node, _| node.on_synced(appended));
            }
            for event in self.nodes[&id].log.take_events() {
                self.step(&id, |node, _| node.on_log_event(event));
            }
        }
    }

    /// Checks the passwords that wait.
    fn hash_all(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for id in ids {
            while let Some(job) = self.nodes.get_mut(&id).unwrap().node.next_hash_job() {
                self.starts += 1;
                let token = u128::from(self.starts).to_be_bytes();
                let hashed = job.run(&[1; 16], &token, &mut HashMemory::default());
                self.step(&id, |node, step| node.hashed(hashed, step));
            }
        }
    }

    /// Lets `ms` pass, with all ticks.
    pub(super) fn advance(&mut self, ms: u64) {
        self.run();
        for _ in 0..ms / 50 {
            self.elapsed += Duration::from_millis(50);
            let ids: Vec<NodeId> = self.nodes.keys().cloned().collect();
            for id in ids {
                if self.asleep.contains(&id) {
                    continue;
                }
                self.step(&id, ServerNode::tick_heartbeat);
                self.step(&id, ServerNode::tick_timeouts);
            }
            self.run();
        }
    }

    // ------------------------------------------------------------ clients

    /// A connection from outside to the server `id`.
    pub(super) fn connect(&mut self, id: &str) -> End {
        let end = (NodeId::from(id), self.new_conn());
        let addr: SocketAddr = ([127, 0, 0, 1], 9).into();
        self.step(&end.0, |node, step| node.handle_join(end.1, addr, None, step));
        end
    }

    /// What the client says, and what comes of it.
    pub(super) fn say(&mut self, client: &End, msg: Message) {
        self.queue.push_back((client.clone(), Some(msg)));
        self.run();
    }

    /// Connects to `id` and joins as `name`, whose session has the same name.
    pub(super) fn client(&mut self, id: &str, name: &str) -> End {
        let client = self.connect(id);
        let join = ClientJoin { session: name.into(), ..ClientJoin::default() };
        self.say(
            &client,
            Message::new(MessageType::ClientJoin, name).with_id("hello").saying(&join),
        );
        client
    }

    /// [`client`](Self::client), and a member of `room_id`; what it got so far is dropped.
    pub(super) fn member(&mut self, id: &str, name: &str, room_id: &str) -> End {
        let client = self.client(id, name);
        self.join(&client, room_id, JoinRoom::default());
        self.advance(300);
        let got = self.take(&client);
        assert_eq!(codes(&got), ["ACK", "ACK"], "{name} joins {room_id}: {got:?}");
        client
    }

    pub(super) fn join(&mut self, client: &End, room_id: &str, join: JoinRoom) {
        let msg = Message::new(MessageType::JoinRoom, "").with_id("join").in_room(room_id);
        self.say(client, msg.saying(&join));
    }

    pub(super) fn chat(&mut self, client: &End, room_id: &str, id: &str) {
        let mut msg = Message::new(MessageType::Chat, "").with_id(id).in_room(room_id);
        msg.content = Content::Text(format!("text of {id}"));
        self.say(client, msg);
    }

    /// The client's connection is lost.
    pub(super) fn hang_up(&mut self, client: &End) {
        self.step(&client.0, |node, step| node.handle_closed(client.1, "closed", step));
        self.waiting.remove(client);
        self.run();
    }

    /// Takes what the client got.
    pub(super) fn take(&mut self, client: &End) -> Vec<Message> {
        self.inboxes.remove(client).unwrap_or_default()
    }

    pub(super) fn is_closed(&self, client: &End) -> bool {
        self.closed.contains(client)
    }
}

/// What each message is: the type, `CHAT m1`, `ERROR NOT_A_MEMBER`, `JOIN_ROOM bob`.
pub(super) fn codes(messages: &[Message]) -> Vec<String> {
    let tell = |msg: &Message| match msg.message_type {
        MessageType::Chat => format!("CHAT {}", msg.message_id),
        MessageType::Error => {
            format!("ERROR {}", msg.content.parse::<ErrorContent>().unwrap().code)
        }
        MessageType::JoinRoom | MessageType::LeaveRoom => {
            format!("{} {}", msg.message_type, msg.sender_id)
        }
        MessageType::Ack if !["hello", "join"].contains(&msg.message_id.as_str()) => {
            format!("ACK {}", msg.message_id)
        }
        other => other.to_string(),
    };
    messages.iter().map(tell).collect()
}

/// Takes what the client got, in the words of [`codes`].
pub(super) fn got(cluster: &mut TestCluster, client: &End) -> Vec<String> {
    codes(&cluster.take(client))
}
