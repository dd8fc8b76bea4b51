//! Plays the one order: servers that are nominated, lead, follow, crash and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use goldenscript::{Command, Context, Runner};
use roundtable::domain::content::{
    CatchupReq, LeaderHeartbeat, Member, Members, MembersContent, OrderingAck, Place,
    PromiseContent, SeqChat, SeqChatKind,
};
use roundtable::domain::{Incarnation, Message, MessageType, NodeId, Term};
use roundtable::network::transport::Outbox;
use roundtable::server::membership::MembershipManager;
use roundtable::server::ordering::{AckRule, OrderingConfig, OrderingManager, OrderingTiming};
use roundtable::server::total_order::{EntryLog, TotalOrder};
use roundtable::server::{ServerState, Step};
use roundtable::storage::{MemoryLog, Storage};

use crate::wires::{Flight, Wires};

/// How often servers look at their timers, in ms; every second time is a heartbeat.
const TICK: u64 = 50;

/// What can happen.
#[derive(Command)]
pub(crate) enum Verb {
    /// These are the voters, and they know it; all are connected.
    Cluster(Vec<String>),
    /// These start with empty disks, and expect so many first voters; all are connected.
    Start {
        /// Who.
        names: Vec<String>,
        /// `--bootstrap-expect`.
        #[arg(key)]
        expect: usize,
        /// `--ack leader`.
        #[arg(key)]
        ack: Option<String>,
    },
    /// An election names this server.
    Nominate(String),
    /// The server gets a CHAT for the order.
    Chat(String, String),
    /// Everything on its way arrives, once.
    Deliver,
    /// Everything arrives, and what follows from it, until nothing is on its way.
    DeliverAll,
    /// The server, which follows nobody yet, gets SEQ_CHAT with just this place of term 1@n9, all committed.
    SeqChat(String, u64),
    /// What the first sends the second waits on the link.
    Hold(String, String),
    /// The link works again.
    Release(String, String),
    /// The disks of these keep what they are given only in memory.
    Slow(Vec<String>),
    /// The disk catches up, and syncs at once from now on; with `records` it takes so many more only, and stays slow.
    Sync {
        /// Whose.
        name: String,
        /// How many.
        #[arg(key)]
        records: Option<u64>,
    },
    /// The connection is gone, with what was on its way; it does not come back.
    Cut(String, String),
    /// All connections stand again.
    Heal,
    /// The server is gone, with what it had sent and not synced.
    Crash(String),
    /// It comes back.
    Restart(String),
    /// It comes back on an empty disk.
    Wipe(String),
    /// The server stops cleanly: it hands over first.
    Resign(String),
    /// It forgets entries up to this place.
    Forget(String, u64),
    /// So many ms pass; everything arrives within a tick. Heartbeats and their answers are not told.
    Wait(u64),
    /// Where everyone stands.
    Show,
    /// Whether these want an election, and whether they answer a lower id's.
    Elections(Vec<String>),
}

struct Server {
    manager: Option<OrderingManager>,
    disk: MemoryLog,
    synced: u64,
    slow: bool,
    disk_number: u32,
    starts: u64,
    expect: usize,
    ack_rule: AckRule,
}

/// Servers that know nothing but the order.
pub(crate) struct Play {
    start: Instant,
    ms: u64,
    servers: BTreeMap<NodeId, Server>,
    cut: BTreeSet<(NodeId, NodeId)>,
    wires: Wires,
    quiet: bool,
    output: String,
}

impl Play {
    /// An empty stage.
    pub(crate) fn new() -> Self {
        Self {
            start: crate::start(),
            ms: 0,
            servers: BTreeMap::new(),
            cut: BTreeSet::new(),
            wires: Wires::default(),
            quiet: false,
            output: String::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    /// Lets `id` do something, its disk sync unless it is slow, and writes down what came of it.
    fn step(&mut self, id: &NodeId, act: impl FnOnce(&mut OrderingManager, &Step)) {
        let now = self.now();
        let Some(server) = self.servers.get_mut(id) else { return };
        let Some(manager) = &mut server.manager else { return };
        let outbox = Outbox::new();
        let step = Step { now, wall_ms: self.ms, cm: &outbox, log: &server.disk };
        let before = describe_state(manager);
        act(manager, &step);
        manager.settle(&step);
        loop {
            let written = server.disk.records().len() as u64;
            if server.slow || written == server.synced {
                break;
            }
            server.synced = written;
            manager.on_synced(written);
            manager.settle(&step);
        }
        let after = describe_state(manager);
        if before != after {
            _ = writeln!(self.output, "{id} {before} => {after}");
        }
        for entry in manager.take_committed() {
            _ = writeln!(self.output, "{id} takes {} {}", entry.seq.unwrap(), name(&entry));
        }
        for (to, msg) in outbox.take_to_nodes() {
            let to = to.expect("nothing is broadcast");
            if self.cut.contains(&pair(id, &to)) {
                continue;
            }
            if !(self.quiet && is_routine(&msg)) {
                _ = writeln!(self.output, "{id} -> {to} {}", describe(&msg));
            }
            self.wires.send(id, &to, msg);
        }
    }

    fn add(&mut self, name: &str, expect: usize, ack_rule: AckRule) {
        let server = Server {
            manager: None,
            disk: MemoryLog::new(),
            synced: 0,
            slow: false,
            disk_number: 1,
            starts: 0,
            expect,
            ack_rule,
        };
        self.servers.insert(name.into(), server);
    }

    fn boot(&mut self, id: &NodeId) {
        let Some(server) = self.servers.get_mut(id) else { return };
        server.starts += 1;
        let me = member(id, server.disk_number);
        let rng = fastrand::Rng::with_seed(1);
        let membership = MembershipManager::new(id.clone(), me, server.expect, rng.clone());
        let mut manager = OrderingManager::new(OrderingConfig {
            incarnation: Incarnation::new(id, server.starts, 0),
            timing: OrderingTiming::default(),
            ack_rule: server.ack_rule,
            membership,
            rng,
        });
        server.disk.records().into_iter().for_each(|record| manager.recover(record));
        server.manager = Some(manager);
        self.step(id, |manager, step| manager.tick(step));
        self.connect(|a, b| a == id || b == id);
    }

    /// Connects all that are up, not cut off, and named by `which`.
    fn connect(&mut self, which: impl Fn(&NodeId, &NodeId) -> bool) {
        let up = self.servers.iter().filter(|(_, server)| server.manager.is_some());
        let up: Vec<NodeId> = up.map(|(id, _)| id.clone()).collect();
        for (at, a) in up.iter().enumerate() {
            for b in &up[at + 1..] {
                if !which(a, b) || self.cut.contains(&pair(a, b)) {
                    continue;
                }
                self.step(a, |manager, step| manager.link_up(b, step));
                self.step(b, |manager, step| manager.link_up(a, step));
            }
        }
    }

    fn cluster(&mut self, names: &[String]) {
        let voters =
            names.iter().map(|name| (name.as_str().into(), member(&name.as_str().into(), 1)));
        let (cluster_id, learners) = ("c1".into(), BTreeMap::new());
        let members = Members { cluster_id, version: 1, voters: voters.collect(), learners };
        let valid =
            Message::new(MessageType::Members, "").saying(&MembersContent::Valid { members });
        for name in names {
            self.add(name, names.len(), AckRule::Majority);
            let server = self.servers.get_mut(&NodeId::from(name.as_str())).unwrap();
            server.synced = server.disk.append(&valid);
        }
        self.quiet = true;
        names.iter().for_each(|name| self.boot(&name.as_str().into()));
        while self.deliver() {}
        self.quiet = false;
        self.output.clear();
    }

    fn deliver(&mut self) -> bool {
        let turn = self.wires.take();
        for Flight { from, to, msg } in &turn {
            self.step(to, |manager, step| {
                let refused = manager.handle_message(from, msg, step);
                assert!(refused.is_ok(), "{refused:?}");
            });
        }
        !turn.is_empty()
    }

    fn crash(&mut self, id: &NodeId) {
        let Some(server) = self.servers.get_mut(id) else { return };
        server.manager = None;
        let disk = MemoryLog::new();
        for record in server.disk.records().into_iter().take(server.synced as usize) {
            disk.append(&record);
        }
        server.disk = disk;
        server.slow = false;
        for Flight { from, to, msg } in self.wires.lose(|f| f.from == *id || f.to == *id) {
            if !is_routine(&msg) {
                _ = writeln!(self.output, "{from} -> {to} {} is lost", describe(&msg));
            }
        }
    }

    fn wait(&mut self, ms: u64) {
        self.quiet = true;
        let ids: Vec<NodeId> = self.servers.keys().cloned().collect();
        for _ in 0..ms / TICK {
            self.ms += TICK;
            let beat = self.ms % (2 * TICK) == 0;
            for id in &ids {
                self.step(id, |manager, step| {
                    manager.tick(step);
                    if beat {
                        manager.heartbeat(step);
                    }
                });
            }
            while self.deliver() {}
        }
        self.quiet = false;
    }

    fn show(&mut self) {
        for (id, server) in &self.servers {
            let Some(manager) = &server.manager else {
                _ = writeln!(self.output, "{id} is down");
                continue;
            };
            let mut log = EntryLog::new();
            for record in server.disk.records().into_iter().filter(|record| record.seq.is_some()) {
                if log.last() == 0 && record.seq > Some(1) {
                    log.reset_to(record.seq.unwrap() - 1, None);
                }
                log.insert(record.into());
            }
            _ = write!(
                self.output,
                "{id} {} committed={}",
                describe_state(manager),
                manager.committed()
            );
            let starts = manager.history_starts_at();
            let entries =
                (starts.max(log.base()) + 1..=manager.last()).filter_map(|seq| log.get(seq));
            let entries: Vec<String> = entries.map(|entry| name(entry)).collect();
            let buffered = manager.buffered();
            _ = write!(self.output, " log=[{}]", entries.join(" "));
            if !buffered.is_empty() {
                _ = write!(self.output, " buffered={buffered:?}");
            }
            self.output += "\n";
        }
    }

    fn seq_chat(&mut self, name: &str, seq: u64) {
        let term = |seq| (seq > 0).then(|| Term { counter: 1, leader: "n9.1-0000".into() });
        let mut entry = Message::new(MessageType::Chat, "alice").with_id(format!("m{seq}"));
        (entry.seq, entry.term) = (Some(seq), term(seq));
        let batch = SeqChat {
            kind: SeqChatKind::Order,
            prev: Place { term: term(seq - 1), seq: seq - 1 },
            entries: vec![entry.into()],
            committed: u64::MAX,
            active: true,
            history_starts: false,
        };
        let mut msg = Message::new(MessageType::SeqChat, "n9").saying(&batch);
        msg.term = term(1);
        self.step(&name.into(), |manager, step| {
            manager.handle_message(&"n9".into(), &msg, step).unwrap();
        });
    }
}

fn pair(a: &NodeId, b: &NodeId) -> (NodeId, NodeId) {
    (a.min(b).clone(), a.max(b).clone())
}

fn member(id: &NodeId, disk_number: u32) -> Member {
    Member { address: format!("{id}:7000"), disk_id: format!("disk{disk_number}") }
}

fn describe_state(manager: &OrderingManager) -> String {
    match (manager.state(), manager.leader(), manager.term()) {
        (ServerState::Follower, Some(leader), _) => format!("FOLLOWER of {leader}"),
        (ServerState::Leader, _, Some(term)) => format!("LEADER term={}", term.counter),
        (state, _, _) => state.to_string(),
    }
}

/// An entry in a few letters: the counter of its term, and what it is.
fn name(entry: &Message) -> String {
    let counter = entry.term.as_ref().map_or(0, |term| term.counter);
    match entry.message_type {
        MessageType::Chat => format!("{counter}:{}", entry.message_id),
        other => format!("{counter}:{other}"),
    }
}

fn place(place: &Place) -> String {
    let counter = place.term.as_ref().map_or(0, |term| term.counter);
    if place.seq == 0 { "0".into() } else { format!("{}({counter})", place.seq) }
}

/// Heartbeats and their answers, and empty batches.
fn is_routine(msg: &Message) -> bool {
    matches!(msg.message_type, MessageType::Heartbeat | MessageType::Ack | MessageType::Join)
}

fn describe(msg: &Message) -> String {
    let term = msg.term.as_ref().map_or_else(String::new, |term| format!(" {term}"));
    let what = match msg.message_type {
        MessageType::Promise => match msg.content.parse().unwrap() {
            PromiseContent::Request { handover: true } => "asks, handed over".into(),
            PromiseContent::Request { handover: false } => "asks".into(),
            PromiseContent::Granted { end, .. } => format!("granted, log ends at {}", place(&end)),
            PromiseContent::Refused { promised, led } => {
                format!("refused, promised {promised}{}", if led { ", led" } else { "" })
            }
            PromiseContent::Kept { .. } => "kept".into(),
        },
        MessageType::SeqChat => {
            let batch: SeqChat = msg.content.parse().unwrap();
            let names: Vec<String> = batch.entries.iter().map(|entry| name(entry)).collect();
            let kind = match batch.kind {
                SeqChatKind::Order => "",
                SeqChatKind::Adoption => " for adoption",
                SeqChatKind::Committed => " committed ones",
                SeqChatKind::Base => " base",
            };
            let starts = if batch.history_starts { ", history starts" } else { "" };
            let prev = place(&batch.prev);
            format!("prev={prev} [{}] committed={}{kind}{starts}", names.join(" "), batch.committed)
        }
        MessageType::Heartbeat => {
            let beat: LeaderHeartbeat = msg.content.parse().unwrap();
            format!("prev={} committed={}", place(&beat.prev), beat.committed)
        }
        MessageType::CatchupReq => {
            format!("after {}", place(&msg.content.parse::<CatchupReq>().unwrap().after))
        }
        MessageType::Ack => match msg.content.parse().unwrap() {
            OrderingAck::Synced { seq, disk_id } if disk_id == "disk1" => format!("synced={seq}"),
            OrderingAck::Synced { seq, disk_id } => format!("synced={seq} on {disk_id}"),
            OrderingAck::Joined { members, leader } => {
                let leader = leader.map_or("nobody".into(), |leader| leader.id.to_string());
                format!("{}, {leader} leads", list(members.as_ref()))
            }
        },
        MessageType::Members => match msg.content.parse().unwrap() {
            MembersContent::Proposed { members, .. } => {
                format!("proposed {}", list(Some(&members)))
            }
            MembersContent::Taken { .. } => "taken".into(),
            MembersContent::Valid { members } => format!("valid {}", list(Some(&members))),
        },
        _ => String::new(),
    };
    format!("{}{term} {what}", msg.message_type).trim_end().into()
}

fn list(members: Option<&Members>) -> String {
    let Some(members) = members else { return "no members yet".into() };
    let names = |map: &BTreeMap<NodeId, Member>| {
        map.keys().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
    };
    format!("voters [{}] learners [{}]", names(&members.voters), names(&members.learners))
}

impl Runner for Play {
    type Command = Verb;

    fn run(&mut self, verb: &Verb, _: &Context) -> Result<String, Box<dyn Error>> {
        match verb {
            Verb::Cluster(names) => self.cluster(names),
            Verb::Start { names, expect, ack } => {
                let rule = if ack.is_some() { AckRule::Leader } else { AckRule::Majority };
                for name in names {
                    self.add(name, *expect, rule);
                    self.boot(&name.as_str().into());
                }
            }
            Verb::Nominate(name) => {
                self.step(&name.as_str().into(), |manager, step| manager.nominate(step));
            }
            Verb::Chat(name, text) => {
                let mut placed = None;
                self.step(&name.as_str().into(), |manager, step| {
                    let chat = Message::new(MessageType::Chat, "alice").with_id(text.as_str());
                    placed = manager.propose(chat, step);
                });
                if placed.is_none() {
                    _ = writeln!(self.output, "{name} does not take {text}");
                }
            }
            Verb::Deliver => _ = self.deliver(),
            Verb::DeliverAll => while self.deliver() {},
            Verb::SeqChat(name, seq) => self.seq_chat(name, *seq),
            Verb::Hold(from, to) => self.wires.hold(from, to),
            Verb::Release(from, to) => self.wires.release(from, to),
            Verb::Slow(names) => {
                for name in names {
                    let server = self.servers.get_mut(&NodeId::from(name.as_str()));
                    server.ok_or("no such server")?.slow = true;
                }
            }
            Verb::Sync { name, records } => {
                let id = name.as_str().into();
                let server = self.servers.get_mut(&id).ok_or("no such server")?;
                server.slow = records.is_some();
                server.synced += records.unwrap_or_default();
                let synced = server.synced;
                self.step(&id, |manager, _| manager.on_synced(synced));
            }
            Verb::Cut(a, b) => {
                let (a, b) = (NodeId::from(a.as_str()), NodeId::from(b.as_str()));
                let lost = |f: &Flight| pair(&f.from, &f.to) == pair(&a, &b);
                self.wires.lose(lost);
                self.cut.insert(pair(&a, &b));
            }
            Verb::Heal => {
                let cut = std::mem::take(&mut self.cut);
                self.connect(|a, b| cut.contains(&pair(a, b)));
            }
            Verb::Crash(name) => self.crash(&name.as_str().into()),
            Verb::Restart(name) => self.boot(&name.as_str().into()),
            Verb::Wipe(name) => {
                let id = name.as_str().into();
                self.crash(&id);
                let server = self.servers.get_mut(&id).ok_or("no such server")?;
                (server.disk, server.synced) = (MemoryLog::new(), 0);
                server.disk_number += 1;
                self.boot(&id);
            }
            Verb::Resign(name) => {
                self.step(&name.as_str().into(), |manager, step| manager.resign(step));
            }
            Verb::Forget(name, seq) => {
                self.step(&name.as_str().into(), |manager, step| manager.forget_up_to(*seq, step));
            }
            Verb::Wait(ms) => self.wait(*ms),
            Verb::Show => self.show(),
            Verb::Elections(names) => {
                for name in names {
                    let server = self.servers.get(&NodeId::from(name.as_str()));
                    let manager = server.and_then(|server| server.manager.as_ref());
                    let manager = manager.ok_or("no such server")?;
                    let (wants, answers) = (
                        manager.wants_election(self.now()),
                        manager.may_answer_election(self.now()),
                    );
                    _ = writeln!(self.output, "{name} wants={wants} answers={answers}");
                }
            }
        }
        Ok(std::mem::take(&mut self.output))
    }
}
