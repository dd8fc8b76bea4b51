//! Plays Raft: who asks for votes, who sends what, what is committed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use goldenscript::{Command, Context, Runner};
use roundtable::domain::raft_content::{
    AppendEntries, Configuration, InstallSnapshot, ReadIndex, RequestVote, TimeoutNow,
};
use roundtable::domain::{Incarnation, Message, MessageType, NodeId, Term};
use roundtable::network::transport::Outbox;
use roundtable::server::Step;
use roundtable::server::raft::{MembershipChange, RaftNode, RaftTiming};
use roundtable::server::total_order::TotalOrder;
use roundtable::storage::snapshot::Contents;
use roundtable::storage::{LogEvent, LogIndex, PackedBytes, Storage};

use crate::wires::{Flight, Wires};

/// How many entries stay behind a snapshot.
const ENTRIES_KEPT: u64 = 2;

const TIMING: RaftTiming = RaftTiming { election_timeout: Duration::from_millis(500) };

/// Bytes of a message that leaves no room for another one in its request.
const LONG: usize = 256 * 1024;

/// What can happen.
#[derive(Command)]
pub(crate) enum Verb {
    /// These are the first voters; entry 1, of term 0, says so in each log.
    Cluster(Vec<String>),
    /// The first name's server starts again with a log whose entries after entry 1 have these terms. With `-long` it is
    /// a message that fills a request alone.
    Log(Vec<String>),
    /// These time out: they begin an election, with the question of pre-vote.
    Stand(Vec<String>),
    /// Everything on its way arrives, once.
    Deliver,
    /// Everything arrives, and what follows from it, until nothing is on its way.
    DeliverAll,
    /// Whatever the first sends the second waits on the link.
    Hold(String, String),
    /// The link works again.
    Release(String, String),
    /// What the first has sent the second is lost, held or not.
    Lose(String, String),
    /// What the first has sent the second will arrive twice.
    Double(String, String),
    /// In the piece of a snapshot that is on its way from the first to the second one bit changes.
    Damage(String, String),
    /// The connection of the two breaks, with what is on its way, and stands again.
    Reset(String, String),
    /// The server is gone, with what its disk has not synced.
    Crash(String),
    /// The connections to the first broke, and the others named find that out.
    Miss(Vec<String>),
    /// It starts again with what the disk holds.
    Restart(String),
    /// It starts again with an empty disk.
    Wipe(String),
    /// From now on its disk syncs only when told.
    SlowDisk(String),
    /// Its disk syncs everything.
    Sync(String),
    /// The heartbeat monitor of these ticks.
    Heartbeat(Vec<String>),
    /// So many ms pass; everyone looks at its timers every 50 ms.
    Wait(u64),
    /// The server sleeps so many ms, then its timers are looked at; for the others no time passes.
    Sleep(String, u64),
    /// A client's message, to this server.
    Propose(String, String),
    /// A read begins at this server.
    Read(String, u64),
    /// The server replaces what it has applied by a snapshot.
    Compact(String),
    /// The leader adds a server, as a learner that becomes a voter when it has caught up.
    Add(String, String),
    /// The leader takes a stranger for a learner, which stays one.
    Learn(String, String),
    /// The leader removes a server.
    Remove(String, String),
    /// A server with a long log, of which the others never heard, and which takes them for its voters.
    Stranger(String),
    /// The first sends the second its vote in this term, unasked.
    Vote(String, String, u64),
    /// The same, with the answer to pre-vote.
    PreVote(String, String, u64),
    /// The leader hands over to the second.
    Transfer(String, String),
    /// The server is about to stop.
    Resign(String),
    /// Terms of the entries of each log; what is committed stands before `│`.
    Show,
}

/// A disk that syncs at once, or when told.
#[derive(Debug, Default)]
struct Disk {
    records: RefCell<Vec<Message>>,
    synced: Cell<usize>,
    slow: bool,
    /// What waits for the records before it, and is done when they are synced.
    saving: RefCell<Option<(u64, Contents)>>,
    snapshot: Option<Contents>,
}

impl Storage for Disk {
    fn append(&self, msg: &Message) -> LogIndex {
        self.records.borrow_mut().push(msg.clone());
        self.records.borrow().len() as LogIndex
    }

    fn fault(&self) -> Option<String> {
        None
    }

    fn forget_before(&self, _index: LogIndex) {}

    fn first_within(&self, _bytes: u64) -> LogIndex {
        0
    }

    fn request_read(&self, _token: u64, _from: LogIndex, _bytes_max: usize) {}
    fn request_records(&self, _token: u64, _records: Vec<LogIndex>, _bytes_max: usize) {}

    fn save_snapshot(&self, seq: u64, contents: Contents) {
        self.saving.replace(Some((seq, contents)));
    }
}

struct Server {
    node: Option<RaftNode>,
    disk: Disk,
    disk_id: String,
    starts: u64,
    applied: u64,
}

/// Servers that know nothing but Raft.
pub(crate) struct Play {
    now: Instant,
    servers: BTreeMap<NodeId, Server>,
    wires: Wires,
    doubled: BTreeSet<(NodeId, NodeId)>,
    output: String,
}

impl Play {
    /// An empty stage.
    pub(crate) fn new() -> Self {
        Self {
            now: crate::start(),
            servers: BTreeMap::new(),
            wires: Wires::default(),
            doubled: BTreeSet::new(),
            output: String::new(),
        }
    }

    /// Lets `name` do something at `after` from now; writes down what changed and what it sent.
    fn step_at(&mut self, name: &str, after: Duration, act: impl FnOnce(&mut RaftNode, &Step)) {
        let id = NodeId::from(name);
        let server = self.servers.entry(id.clone()).or_insert_with(|| Server::new(&id));
        let Some(node) = &mut server.node else { return };
        let outbox = Outbox::new();
        let step = Step { now: self.now + after, wall_ms: 0, cm: &outbox, log: &server.disk };
        let before = told(node);
        act(node, &step);
        node.settle(&step);
        let mut saved = None;
        loop {
            let appended = server.disk.records.borrow().len();
            let is_idle = server.disk.synced.get() == appended;
            if server.disk.slow || is_idle && server.disk.saving.borrow().is_none() {
                break;
            }
            server.disk.synced.set(appended);
            node.on_synced(appended as LogIndex);
            if let Some((seq, contents)) = server.disk.saving.take() {
                saved = Some((seq, contents));
                node.on_log_event(&LogEvent::SnapshotSaved(seq));
            }
            node.settle(&step);
        }
        if let Some((seq, contents)) = saved {
            _ = writeln!(self.output, "{id} has a snapshot up to {seq} on its disk");
            server.disk.snapshot = Some(contents);
        }
        let after = told(node);
        if before != after {
            _ = writeln!(self.output, "{id} {before} => {after}");
        }
        if let Some(snapshot) = node.take_snapshot() {
            let seq = snapshot.seq();
            server.applied = seq;
            _ = writeln!(self.output, "{id} takes over a snapshot up to {seq}");
        }
        for entry in node.take_committed() {
            server.applied = entry.seq.unwrap_or(0);
            _ = writeln!(self.output, "{id} applies {}", entry_text(&entry));
        }
        for (token, index) in node.take_reads() {
            _ = writeln!(self.output, "{id} may answer read {token} when it has applied {index}");
        }
        for (to, msg) in outbox.take_to_nodes() {
            let to = to.expect("Raft never broadcasts");
            _ = writeln!(self.output, "{id} -> {to} {}", describe(&msg));
            self.wires.send(&id, &to, msg);
        }
    }

    fn step(&mut self, name: &str, act: impl FnOnce(&mut RaftNode, &Step)) {
        self.step_at(name, Duration::ZERO, act);
    }

    fn cluster(&mut self, names: &[String]) {
        for name in names {
            let id = NodeId::from(name.as_str());
            self.servers.insert(id.clone(), Server::new(&id));
        }
        let disks = |(id, server): (&NodeId, &Server)| (id.clone(), server.disk_id.clone());
        let voters: BTreeMap<_, _> = self.servers.iter().map(disks).collect();
        for name in names {
            self.step(name, |node, step| _ = node.set_first_members(&voters, step));
        }
    }

    fn log(&mut self, words: &[String]) -> Result<(), Box<dyn Error>> {
        let (name, terms) = words.split_first().ok_or("whose log?")?;
        let id = NodeId::from(name.as_str());
        let server = self.servers.get_mut(&id).ok_or("no such server")?;
        let records = server.disk.records.get_mut();
        records.truncate(1);
        for (seq, term) in (2..).zip(terms) {
            let counter = term.trim_end_matches("-long").parse()?;
            let mut entry = Message::new(MessageType::Chat, "alice").with_id(format!("{counter}"));
            if term.ends_with("-long") {
                entry.content = "x".repeat(LONG).as_str().into();
            }
            entry.seq = Some(seq);
            entry.term = Some(Term { counter, leader: format!("leader{counter}.1-0000").into() });
            records.push(entry);
        }
        let term = terms.last().map_or(Ok(0), |term| term.trim_end_matches("-long").parse())?;
        let voted = RequestVote::Voted { term, voted_for: None };
        records.push(Message::new(MessageType::RequestVote, name).saying(&voted));
        server.disk.synced.set(records.len());
        server.start(&id);
        Ok(())
    }

    fn deliver(&mut self) -> bool {
        let turn = self.wires.take();
        for Flight { from, to, msg } in &turn {
            let times = if self.doubled.contains(&(from.clone(), to.clone())) { 2 } else { 1 };
            for _ in 0..times {
                if self.servers.get(to).is_none_or(|server| server.node.is_none()) {
                    _ = writeln!(self.output, "{from} -> {to} {} is lost", describe(msg));
                } else {
                    let handle = |node: &mut RaftNode, step: &Step| {
                        node.handle_message(from, msg, step)
                            .expect("servers send what can be read");
                    };
                    self.step(to.as_str(), handle);
                }
            }
        }
        self.doubled.clear();
        !turn.is_empty()
    }

    fn lose(&mut self, from: &str, to: &str) {
        self.wires.release(from, to);
        let on_link = |f: &Flight| f.from.as_str() == from && f.to.as_str() == to;
        for Flight { from, to, msg } in self.wires.lose(on_link) {
            _ = writeln!(self.output, "{from} -> {to} {} is lost", describe(&msg));
        }
    }

    fn damage(&mut self, from: &str, to: &str) {
        let turn = self.wires.take();
        for Flight { from: sender, to: receiver, mut msg } in turn {
            if sender.as_str() == from && receiver.as_str() == to {
                let content = msg.content.parse().expect("readable");
                if let InstallSnapshot::Request { term, leader, head, offset, mut data } = content {
                    data.0[0] ^= 1;
                    let content = InstallSnapshot::Request { term, leader, head, offset, data };
                    msg = msg.saying(&content);
                }
            }
            self.wires.send(&sender, &receiver, msg);
        }
    }

    fn reset(&mut self, a: &str, b: &str) {
        for (x, y) in [(a, b), (b, a)] {
            self.lose(x, y);
            self.step(x, |node, step| node.link_up(&y.into(), step));
        }
    }

    fn miss(&mut self, names: &[String]) -> Result<(), Box<dyn Error>> {
        let (missing, others) = names.split_first().ok_or("who is missed?")?;
        let missing = NodeId::from(missing.as_str());
        for name in others {
            self.step(name, |node, step| node.node_failed(&missing, step));
        }
        Ok(())
    }

    fn crash(&mut self, name: &str) -> Result<(), Box<dyn Error>> {
        let server = self.servers.get_mut(&NodeId::from(name)).ok_or("no such server")?;
        server.node = None;
        let synced = server.disk.synced.get();
        let lost = server.disk.records.get_mut().split_off(synced);
        if server.disk.saving.take().is_some() {
            _ = writeln!(self.output, "{name} loses the snapshot that it was writing");
        }
        for record in lost {
            let what = record.seq.map_or_else(|| "a vote".into(), |_| entry_text(&record));
            _ = writeln!(self.output, "{name} loses {what}");
        }
        for Flight { from, to, msg } in self.wires.lose(|flight| flight.from.as_str() == name) {
            _ = writeln!(self.output, "{from} -> {to} {} is lost", describe(&msg));
        }
        Ok(())
    }

    fn restart(&mut self, name: &str, wiped: bool) -> Result<(), Box<dyn Error>> {
        let id = NodeId::from(name);
        let server = self.servers.get_mut(&id).ok_or("no such server")?;
        if wiped {
            server.disk = Disk::default();
            server.disk_id.push('\'');
        }
        server.start(&id);
        self.step(name, |_, _| {});
        let others: Vec<NodeId> =
            self.servers.keys().filter(|other| **other != id).cloned().collect();
        for other in others {
            self.step(other.as_str(), |node, step| node.link_up(&id, step));
        }
        Ok(())
    }

    fn wait(&mut self, ms: u64) {
        let names: Vec<NodeId> = self.servers.keys().cloned().collect();
        for _ in 0..ms / 50 {
            self.now += Duration::from_millis(50);
            for name in &names {
                self.step(name.as_str(), TotalOrder::tick);
            }
        }
    }

    fn change(&mut self, leader: &str, change: MembershipChange) {
        let mut refused = Ok(0);
        self.step(leader, |node, step| refused = node.change_membership(&change, step));
        if let Err(why) = refused {
            _ = writeln!(self.output, "{leader} refuses: {why}");
        }
    }

    fn add(&mut self, leader: &str, name: &str, promote: bool) {
        let node_id = NodeId::from(name);
        let server = self.servers.entry(node_id.clone()).or_insert_with(|| Server::new(&node_id));
        let disk = server.disk_id.clone();
        self.change(leader, MembershipChange::AddLearner { node_id, disk, promote });
    }

    fn vote(&mut self, from: &str, to: &str, asked: u64, pre_vote: bool) {
        let term = asked - u64::from(pre_vote);
        let vote = RequestVote::Answer { term, asked, vote_granted: true, pre_vote };
        let msg = Message::new(MessageType::RequestVote, from).saying(&vote);
        _ = writeln!(self.output, "{from} -> {to} {}", describe(&msg));
        self.wires.send(&from.into(), &to.into(), msg);
    }

    fn show(&mut self) {
        for (id, server) in &self.servers {
            let Some(node) = &server.node else {
                _ = writeln!(self.output, "{id} is down");
                continue;
            };
            _ = write!(self.output, "{id} term {}:", node.current_term());
            if node.log().base() > 0 {
                _ = write!(self.output, " [1..{}]", node.log().base());
            }
            for seq in node.log().base()..=node.log().last() {
                let entry = node.log().read(seq);
                let term = |entry: &Message| entry.term.as_ref().map_or(0, |term| term.counter);
                if let Some(entry) = entry {
                    _ = write!(self.output, " {}", term(&entry));
                }
                if seq == node.committed() {
                    self.output += " │";
                }
            }
            self.output += "\n";
        }
    }
}

impl Server {
    fn new(id: &NodeId) -> Self {
        let mut server = Self {
            node: None,
            disk: Disk::default(),
            disk_id: format!("{id}'s disk"),
            starts: 0,
            applied: 0,
        };
        server.start(id);
        server
    }

    fn start(&mut self, id: &NodeId) {
        self.starts += 1;
        let incarnation = Incarnation::new(id, self.starts, 0);
        // Each its own luck, the same in each run.
        let seed = id.as_str().bytes().map(u64::from).sum();
        let rng = fastrand::Rng::with_seed(seed);
        let mut node = RaftNode::new(id.clone(), incarnation, &*self.disk_id, rng, TIMING)
            .keeping_entries(ENTRIES_KEPT);
        if let Some(file) = &self.disk.snapshot {
            node.recover_snapshot(file).expect("it was written like this");
        }
        for record in self.disk.records.borrow().iter() {
            node.recover(record.clone());
        }
        node.recovered().expect("disks lose nothing that they have synced");
        node.on_synced(self.disk.synced.get() as LogIndex);
        self.node = Some(node);
    }
}

/// What is told of a server: where it stands, and under whom.
fn told(node: &RaftNode) -> String {
    let mut text = format!("{} term={}", node.state(), node.current_term());
    if let Some(leader) = node.leader() {
        _ = write!(text, " leader={leader}");
    }
    text
}

fn entry_text(entry: &Message) -> String {
    let (seq, term) = (entry.seq.unwrap_or(0), entry.term.as_ref().map_or(0, |term| term.counter));
    let what = match entry.message_type {
        MessageType::Members => {
            let Configuration { voters, learners, .. } =
                entry.content.parse().expect("members are written by servers");
            let names =
                |ids: Vec<&NodeId>| ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(" ");
            let voters = names(voters.keys().collect());
            if learners.is_empty() {
                format!("members {voters}")
            } else {
                format!("members {voters}, {} learns", names(learners.keys().collect()))
            }
        }
        MessageType::Noop => "noop".into(),
        _ => entry.message_id.clone(),
    };
    format!("{seq}@{term} {what}")
}

fn describe(msg: &Message) -> String {
    match msg.message_type {
        MessageType::RequestVote => describe_vote(msg),
        MessageType::AppendEntries => describe_append(msg),
        MessageType::InstallSnapshot => match msg.content.parse().expect("readable") {
            InstallSnapshot::Request { head, offset, data, .. } => format!(
                "snapshot up to {}, bytes {offset} to {} of {}",
                head.last_included_index,
                offset + data.0.len() as u64,
                head.total
            ),
            InstallSnapshot::Answer { offset, .. } => format!("has {offset} bytes of the snapshot"),
            InstallSnapshot::Installed { .. } => "a record".into(),
        },
        MessageType::TimeoutNow => {
            let TimeoutNow { term } = msg.content.parse().expect("readable");
            format!("timeout now term={term}")
        }
        MessageType::ReadIndex => match msg.content.parse().expect("readable") {
            ReadIndex::Request { token, .. } => format!("read {token}?"),
            ReadIndex::Answer { token, index, .. } => format!("read {token} at {index}"),
        },
        other => other.to_string(),
    }
}

fn describe_vote(msg: &Message) -> String {
    match msg.content.parse().expect("readable") {
        RequestVote::Request {
            term, last_log_index, last_log_term, pre_vote, transfer, ..
        } => {
            let what = if pre_vote { "would you vote" } else { "vote" };
            let why = if transfer { " (the leader asked me to)" } else { "" };
            format!("{what}? term={term} last={last_log_index}@{last_log_term}{why}")
        }
        RequestVote::Answer { term, asked, vote_granted, pre_vote } => {
            let would = if pre_vote { "would vote" } else { "vote" };
            let answer = if vote_granted { "yes" } else { "no" };
            let own = if term == asked { String::new() } else { format!(" (term {term} here)") };
            format!("{would} in term {asked}: {answer}{own}")
        }
        RequestVote::Voted { .. } => "a record".into(),
    }
}

fn describe_append(msg: &Message) -> String {
    match msg.content.parse().expect("readable") {
        AppendEntries::Request {
            term,
            prev_log_index,
            prev_log_term,
            entries,
            leader_commit,
            ..
        } => {
            let entries: Vec<String> = entries.iter().map(|entry| entry_text(entry)).collect();
            format!(
                "append term={term} after {prev_log_index}@{prev_log_term} [{}] commit={leader_commit}",
                entries.join(", ")
            )
        }
        AppendEntries::Accepted { term, match_index, .. } => {
            format!("accepted term={term} match={match_index}")
        }
        AppendEntries::Rejected { term, prev_log_index, conflict_term, conflict_index, .. } => {
            let why = conflict_term.map_or_else(
                || format!("my log goes on at {conflict_index}"),
                |conflict| format!("term {conflict} begins at {conflict_index}"),
            );
            format!("rejected term={term} at {prev_log_index}: {why}")
        }
    }
}

impl Runner for Play {
    type Command = Verb;

    #[expect(clippy::too_many_lines, reason = "one arm a verb")]
    fn run(&mut self, verb: &Verb, _: &Context) -> Result<String, Box<dyn Error>> {
        match verb {
            Verb::Cluster(names) => self.cluster(names),
            Verb::Log(words) => self.log(words)?,
            Verb::Stand(names) => {
                for name in names {
                    self.step(name, RaftNode::campaign);
                }
            }
            Verb::Deliver => _ = self.deliver(),
            Verb::DeliverAll => while self.deliver() {},
            Verb::Hold(from, to) => self.wires.hold(from, to),
            Verb::Release(from, to) => self.wires.release(from, to),
            Verb::Lose(from, to) => self.lose(from, to),
            Verb::Double(from, to) => {
                self.doubled.insert((from.as_str().into(), to.as_str().into()));
            }
            Verb::Damage(from, to) => self.damage(from, to),
            Verb::Reset(a, b) => self.reset(a, b),
            Verb::Crash(name) => self.crash(name)?,
            Verb::Miss(names) => self.miss(names)?,
            Verb::Restart(name) => self.restart(name, false)?,
            Verb::Wipe(name) => self.restart(name, true)?,
            Verb::SlowDisk(name) => {
                let id = NodeId::from(name.as_str());
                self.servers.get_mut(&id).ok_or("no such server")?.disk.slow = true;
            }
            Verb::Sync(name) => {
                let id = NodeId::from(name.as_str());
                self.servers.get_mut(&id).ok_or("no such server")?.disk.slow = false;
                self.step(name, |_, _| {});
            }
            Verb::Heartbeat(names) => {
                for name in names {
                    self.step(name, TotalOrder::heartbeat);
                }
            }
            Verb::Wait(ms) => self.wait(*ms),
            Verb::Sleep(name, ms) => {
                self.step_at(name, Duration::from_millis(*ms), TotalOrder::tick);
            }
            Verb::Propose(name, text) => {
                let chat = Message::new(MessageType::Chat, "alice").with_id(text);
                let mut placed = None;
                self.step(name, |node, step| placed = node.propose(chat, step));
                if placed.is_none() {
                    _ = writeln!(self.output, "{name} takes no proposal now");
                }
            }
            Verb::Read(name, token) => self.step(name, |node, step| node.read_index(*token, step)),
            Verb::Compact(name) => {
                let id = NodeId::from(name.as_str());
                let seq = self.servers.get(&id).ok_or("no such server")?.applied;
                let make = Box::new(|| PackedBytes::new(&vec![7; 300 * 1024]));
                self.step(name, |node, step| _ = node.compact(seq, make, step));
            }
            Verb::Add(leader, name) => self.add(leader, name, true),
            Verb::Learn(leader, name) => self.add(leader, name, false),
            Verb::Remove(leader, name) => {
                let node_id = name.as_str().into();
                self.change(leader, MembershipChange::Remove { node_id });
            }
            Verb::Stranger(name) => {
                self.servers.insert(name.as_str().into(), Server::new(&name.as_str().into()));
                let disks = |(id, server): (&NodeId, &Server)| (id.clone(), server.disk_id.clone());
                let voters: BTreeMap<_, _> = self.servers.iter().map(disks).collect();
                self.step(name, |node, step| _ = node.set_first_members(&voters, step));
                let terms = ["1", "4", "7", "7", "7"].map(String::from);
                self.log(&[std::slice::from_ref(name), &terms[..]].concat())?;
            }
            Verb::Vote(from, to, term) => self.vote(from, to, *term, false),
            Verb::PreVote(from, to, term) => self.vote(from, to, *term, true),
            Verb::Transfer(from, to) => {
                let to = to.as_str().into();
                self.step(from, |node, step| _ = node.transfer_leadership(&to, step));
            }
            Verb::Resign(name) => self.step(name, TotalOrder::resign),
            Verb::Show => self.show(),
        }
        Ok(std::mem::take(&mut self.output))
    }
}
