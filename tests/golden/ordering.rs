//! Plays the one order: servers that are nominated, lead, follow, crash and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use goldenscript::{Command, Context, Runner};
use roundtable::domain::content::{Member, Members, MembersContent, Place, SeqChat, SeqChatKind};
use roundtable::domain::{Incarnation, Message, MessageType, NodeId, Term};
use roundtable::network::transport::Outbox;
use roundtable::server::membership::MembershipManager;
use roundtable::server::ordering::{
    AckRule, BATCH_BYTES, OrderingConfig, OrderingManager, OrderingTiming, TAIL_BYTES,
    UNCOMMITTED_MAX,
};
use roundtable::server::total_order::{EntryLog, TotalOrder};
use roundtable::server::{ServerState, Step};
use roundtable::storage::{LogEvent, MemoryLog, Storage};

use crate::ordering_words::{describe, is_routine, name};
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
    /// The first finds out that its connection to the second is gone.
    Miss(String, String),
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
    /// Servers that start from now on keep so many bytes of their logs in memory.
    Memory(usize),
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
    tail_bytes: usize,
}

/// Servers that know nothing but the order.
pub(crate) struct Play {
    start: Instant,
    ms: u64,
    servers: BTreeMap<NodeId, Server>,
    cut: BTreeSet<(NodeId, NodeId)>,
    wires: Wires,
    quiet: bool,
    /// How much of its log a server that starts keeps in memory.
    tail_bytes: usize,
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
            tail_bytes: TAIL_BYTES,
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
            let written = server.disk.appended();
            if server.slow || written == server.synced {
                break;
            }
            server.synced = written;
            server.disk.synced(written);
            manager.on_synced(written);
            manager.settle(&step);
        }
        for event in server.disk.take_events() {
            if let LogEvent::Read { token, from, records } = event {
                let _ = writeln!(self.output, "{id} reads {} from its disk", records.len());
                manager.on_read(token, from, records);
                manager.settle(&step);
            }
        }
        let after = describe_state(manager);
        if before != after {
            _ = writeln!(self.output, "{id} {before} => {after}");
        }
        if let Some((seq, state)) = manager.take_snapshot() {
            let state = String::from_utf8(state.get(0, usize::MAX)).unwrap();
            _ = writeln!(self.output, "{id} starts after {seq} with {state:?}");
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
            disk: MemoryLog::that_syncs(),
            synced: 0,
            slow: false,
            disk_number: 1,
            starts: 0,
            expect,
            ack_rule,
            tail_bytes: self.tail_bytes,
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
            tail_bytes: server.tail_bytes,
            piece_bytes: 8,
            batch_bytes: BATCH_BYTES,
            uncommitted_max: UNCOMMITTED_MAX,
        });
        let disk = MemoryLog::that_syncs();
        for record in server.disk.kept() {
            disk.append(&record);
            manager.recover(record);
        }
        (server.synced, server.disk) = (disk.appended(), disk);
        server.manager = Some(manager);
        self.step(id, TotalOrder::tick);
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
        for name in names {
            self.boot(&name.as_str().into());
        }
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
        let disk = MemoryLog::that_syncs();
        let lost = (server.disk.appended() - server.synced) as usize;
        let kept = server.disk.kept();
        for record in &kept[..kept.len() - lost] {
            disk.append(record);
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
            let beat = self.ms.is_multiple_of(2 * TICK);
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
                if record.seq > Some(log.last() + 1) {
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

    fn sync(&mut self, name: &str, records: Option<u64>) -> Result<(), Box<dyn Error>> {
        let id = name.into();
        let server = self.servers.get_mut(&id).ok_or("no such server")?;
        server.slow = records.is_some();
        server.synced += records.unwrap_or_default();
        let synced = server.synced;
        server.disk.synced(synced);
        self.step(&id, |manager, _| manager.on_synced(synced));
        Ok(())
    }

    fn elections(&mut self, names: &[String]) -> Result<(), Box<dyn Error>> {
        let now = self.now();
        for name in names {
            let server = self.servers.get(&NodeId::from(name.as_str()));
            let manager = server.and_then(|server| server.manager.as_ref());
            let manager = manager.ok_or("no such server")?;
            let (wants, answers) = (manager.wants_election(now), manager.may_answer_election(now));
            _ = writeln!(self.output, "{name} wants={wants} answers={answers}");
        }
        Ok(())
    }

    fn forget(&mut self, name: &str, seq: u64) {
        let mut done = false;
        self.step(&name.into(), |manager, step| {
            done = manager.forget(seq, format!("all up to {seq}").into(), step);
        });
        if !done {
            _ = writeln!(self.output, "{name} must not forget {seq}");
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
            state: None,
            members: None,
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
                self.step(&name.as_str().into(), TotalOrder::nominate);
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
            Verb::Sync { name, records } => self.sync(name, *records)?,
            Verb::Cut(a, b) => {
                let (a, b) = (NodeId::from(a.as_str()), NodeId::from(b.as_str()));
                let lost = |f: &Flight| pair(&f.from, &f.to) == pair(&a, &b);
                self.wires.lose(lost);
                self.cut.insert(pair(&a, &b));
            }
            Verb::Miss(name, other) => {
                let other = other.as_str().into();
                self.step(&name.as_str().into(), |manager, step| manager.node_failed(&other, step));
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
                (server.disk, server.synced) = (MemoryLog::that_syncs(), 0);
                server.disk_number += 1;
                self.boot(&id);
            }
            Verb::Resign(name) => {
                self.step(&name.as_str().into(), TotalOrder::resign);
            }
            Verb::Memory(bytes) => self.tail_bytes = *bytes,
            Verb::Forget(name, seq) => self.forget(name, *seq),
            Verb::Wait(ms) => self.wait(*ms),
            Verb::Show => self.show(),
            Verb::Elections(names) => self.elections(names)?,
        }
        Ok(std::mem::take(&mut self.output))
    }
}
