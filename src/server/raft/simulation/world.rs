//! The network, the clock and the faults of a simulation.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::checker::Checker;
use super::machine::{Disk, Machine, State};
use super::*;
use crate::domain::Frame;
use crate::network::transport::Outbox;
use crate::testing::start;

mod faults;
mod rivals;

use rivals::Turn;

const MS: u64 = 1_000;
/// How long things go wrong, and by when after that everything has to be well.
const FAULTS_END: u64 = 5_000 * MS;
const DEADLINE: u64 = 25_000 * MS;
/// Parts the luck of storms from that of everything else, and of operators in a storm.
const STORM: u64 = 0x5157_u64 << 32;
const MEDDLERS: u64 = 0x7ed1_u64 << 32;
const TIMING: RaftTiming = RaftTiming { election_timeout: Duration::from_millis(300) };

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Deliver {
        from: usize,
        to: usize,
        epoch: u64,
        frame: Frame,
    },
    Tick {
        host: usize,
        life: u64,
    },
    Heartbeat {
        host: usize,
        life: u64,
    },
    Synced {
        host: usize,
        life: u64,
        index: LogIndex,
    },
    LinkUp {
        host: usize,
        peer: usize,
        epoch: u64,
    },
    /// The server on `host` finds out that its connection broke.
    LinkDown {
        host: usize,
        peer: usize,
        epoch: u64,
    },
    Restart {
        host: usize,
    },
    Stand {
        host: usize,
    },
    /// A new leader is cut off.
    Depose {
        host: usize,
    },
    /// The first stands while the second is cut off; then the other way round.
    Seesaw {
        up: usize,
        down: usize,
        left: u32,
    },
    /// The next leader of a storm.
    Turn,
    /// Operators who do not wait.
    Meddle,
    Client,
    Fault,
    Heal {
        everything: bool,
    },
}

/// How bad the weather is, drawn from the seed.
#[derive(Debug)]
struct Weather {
    delay_max: u64,
    sync_max: u64,
    loss: f64,
    doubling: f64,
    fault_every: u64,
    /// New leaders are often cut off soon, so that logs diverge as in Figure 8.
    short_reigns: bool,
    /// Leader after leader, each heard by few and gone soon.
    storm: bool,
    /// In the storm operators take voters out as soon as somebody leads.
    meddlers: bool,
}

/// A cluster.
#[derive(Debug)]
pub(super) struct World {
    rng: fastrand::Rng,
    now: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Event)>>,
    planned: u64,
    weather: Weather,
    machines: Vec<Machine>,
    /// One number per direction: what was sent under another one is lost.
    epochs: BTreeMap<(usize, usize), u64>,
    cut: BTreeSet<(usize, usize)>,
    last_at: BTreeMap<(usize, usize), u64>,
    checker: Checker,
    /// (machine, life, token) to what was committed when it was asked.
    reads: BTreeMap<(usize, u64, u64), Seq>,
    tokens: u64,
    /// This machine crashes as soon as something is on its way to its disk.
    doomed: Option<usize>,
    /// Who leads next in a storm, or leads.
    turn: Option<Turn>,
    /// Bytes of entries in one request.
    batch_bytes: usize,
    happened: BTreeMap<&'static str, u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        // Of their own luck, so that the other seeds stay what they are.
        let meddlers = fastrand::Rng::with_seed(seed ^ MEDDLERS).u8(0..8) == 0;
        let storm = meddlers || fastrand::Rng::with_seed(seed ^ STORM).u8(0..4) == 0;
        let mut rng = fastrand::Rng::with_seed(seed);
        let voters = if rng.bool() && !storm { 3 } else { 5 };
        let spares = rng.usize(0..=2);
        let calm = rng.bool();
        let mut weather = Weather {
            delay_max: [2, 10, 60][rng.usize(0..3)] * MS,
            sync_max: [1, 10, 150][rng.usize(0..3)] * MS,
            loss: if calm { 0.0 } else { rng.f64() * 0.1 },
            doubling: if calm { 0.0 } else { rng.f64() * 0.2 },
            fault_every: [60, 150, 400][rng.usize(0..3)] * MS,
            short_reigns: rng.u8(0..3) == 0,
            storm,
            meddlers,
        };
        let mut batch_bytes = [1, 700][rng.usize(0..2)];
        if storm {
            // One entry at a time, on a network that is fast beside a turn.
            batch_bytes = 1;
            weather.delay_max = weather.delay_max.min(20 * MS);
            weather.sync_max = weather.sync_max.min(10 * MS);
        }
        let machines = (1..=voters + spares).map(|at| Machine {
            id: format!("n{at}").into(),
            disk: Disk::new(format!("{at}a")),
            node: None,
            state: State::default(),
            life: 0,
            asleep_until: 0,
            configuration: Configuration::default(),
            end: (None, 0),
        });
        let mut world = Self {
            machines: machines.collect(),
            rng,
            now: 0,
            agenda: BinaryHeap::new(),
            planned: 0,
            weather,
            epochs: BTreeMap::new(),
            cut: BTreeSet::new(),
            last_at: BTreeMap::new(),
            checker: Checker::default(),
            reads: BTreeMap::new(),
            tokens: 0,
            doomed: None,
            turn: None,
            batch_bytes,
            happened: BTreeMap::new(),
        };
        world.bootstrap(voters);
        world
    }

    fn bootstrap(&mut self, voters: usize) {
        let first = self.machines.iter().take(voters);
        let first: BTreeMap<NodeId, String> =
            first.map(|m| (m.id.clone(), m.disk.name.clone())).collect();
        for host in 0..self.machines.len() {
            self.start(host).expect("nothing happened yet");
            if host < voters {
                // A bootstrap is done when everybody has synced it.
                let members = |node: &mut RaftNode, step: &Step| {
                    node.set_first_members(&first, step);
                };
                self.step(host, members).expect("nothing happened yet");
                if let Some(index) = self.machines[host].disk.syncing() {
                    self.machines[host].disk.end_sync(index, &mut self.rng);
                    self.step(host, |node, _| node.on_synced(index)).expect("nothing happened yet");
                }
            }
        }
        self.plan(20 * MS, Event::Client);
        self.plan(self.weather.fault_every, Event::Fault);
        if self.weather.storm {
            self.plan(20 * MS, Event::Turn);
        }
        self.plan(FAULTS_END, Event::Heal { everything: true });
    }

    fn count(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    fn plan(&mut self, after: u64, event: Event) {
        self.planned += 1;
        self.agenda.push(Reverse((self.now + after, self.planned, event)));
    }

    pub(super) fn run(mut self) -> Outcome {
        let mut healed_at = None;
        while let Some(Reverse((at, _, event))) = self.agenda.pop() {
            self.now = at;
            self.happen(event).map_err(|what| format!("{what} (at {} ms)", at / MS))?;
            if at >= FAULTS_END && healed_at.is_none() {
                healed_at = Some(self.checker.committed());
            }
            if healed_at.is_some_and(|committed| self.has_converged(committed)) {
                self.count("converged");
                return Ok(self.happened);
            }
            if at > DEADLINE {
                return Err(format!("no agreement: {}", self.describe()));
            }
        }
        Err("nothing more to do".into())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        let host = match &event {
            Event::Deliver { to: host, .. }
            | Event::Tick { host, .. }
            | Event::Heartbeat { host, .. }
            | Event::LinkUp { host, .. }
            | Event::LinkDown { host, .. } => *host,
            _ => usize::MAX,
        };
        if let Some(machine) = self.machines.get(host).filter(|m| m.asleep_until > self.now) {
            self.plan(machine.asleep_until - self.now, event);
            return Ok(());
        }
        match event {
            Event::Deliver { from, to, epoch, frame } => self.deliver(from, to, epoch, &frame),
            Event::Tick { host, life } if self.machines[host].life == life => {
                self.plan(25 * MS, Event::Tick { host, life });
                self.step(host, TotalOrder::tick)
            }
            Event::Heartbeat { host, life } if self.machines[host].life == life => {
                self.plan(60 * MS, Event::Heartbeat { host, life });
                self.step(host, TotalOrder::heartbeat)
            }
            Event::Synced { host, life, index }
                if self.machines[host].life == life
                    && self.machines[host].disk.syncing() == Some(index) =>
            {
                let said = self.machines[host].disk.end_sync(index, &mut self.rng);
                self.step(host, |node, _| node.on_synced(index))?;
                for event in said {
                    let what = match event {
                        LogEvent::SnapshotSaved(_) => "snapshot saved",
                        _ => "snapshot not saved",
                    };
                    self.count(what);
                    if self.machines[host].life == life {
                        self.step(host, |node, _| node.on_log_event(&event))?;
                    }
                }
                Ok(())
            }
            Event::LinkUp { host, peer, epoch } if self.epoch(host, peer) == epoch => {
                let peer = self.machines[peer].id.clone();
                self.step(host, |node, step| node.link_up(&peer, step))
            }
            Event::LinkDown { host, peer, epoch } if self.epoch(host, peer) == epoch => {
                self.count("link down");
                let peer = self.machines[peer].id.clone();
                self.step(host, |node, step| node.node_failed(&peer, step))
            }
            Event::Restart { host } if self.machines[host].node.is_none() => self.start(host),
            Event::Stand { host } => self.stand(host),
            Event::Depose { host } => {
                self.cut_off(host);
                Ok(())
            }
            Event::Seesaw { up, down, left } => self.seesaw(up, down, left),
            Event::Turn => self.next_turn(),
            Event::Meddle => self.meddle(),
            Event::Client => self.client_acts(),
            Event::Fault if self.now < FAULTS_END => {
                let pause = self.rng.u64(MS..=2 * self.weather.fault_every);
                self.plan(pause, Event::Fault);
                self.fault()
            }
            Event::Heal { everything } => self.heal(everything),
            _ => Ok(()),
        }
    }

    fn epoch(&self, a: usize, b: usize) -> u64 {
        self.epochs.get(&(a.min(b), a.max(b))).copied().unwrap_or(0)
    }

    fn deliver(&mut self, from: usize, to: usize, epoch: u64, frame: &Frame) -> Result<(), String> {
        if self.epoch(from, to) != epoch {
            return Ok(());
        }
        let sender = self.machines[from].id.clone();
        let msg = Message::decode(frame).map_err(|error| error.to_string())?;
        let mut refused = Ok(());
        self.step(to, |node, step| refused = node.handle_message(&sender, &msg, step))?;
        refused.map_err(|error| format!("refused: {sender} sent {error}"))
    }

    /// Lets the server on `host` do something, spreads what it says, and checks.
    fn step(&mut self, host: usize, act: impl FnOnce(&mut RaftNode, &Step)) -> Result<(), String> {
        let Self { machines, now, rng, .. } = self;
        let machine = &mut machines[host];
        let Some(node) = &mut machine.node else { return Ok(()) };
        let outbox = Outbox::new();
        let now = start() + Duration::from_micros(*now);
        let step = Step { now, wall_ms: 0, cm: &outbox, log: &machine.disk };
        let (term, last) = node.log.end();
        let before = (term, last, node.commit_index);
        act(node, &step);
        if rng.u8(0..8) > 0 {
            node.settle(&step);
            if let Some(first) = node.renew_journal(&step) {
                step.log.forget_before(first);
            }
        }
        let cut = node.log.last() < last;
        machine.configuration.clone_from(node.configuration());
        machine.end = node.log.end();
        let committed = node.is_leader() && node.commit_index > before.2;
        let elected = self.checker.check(node, before)?;
        let sent = outbox.take_to_nodes();
        if let Some(index) = self.machines[host].disk.begin_sync() {
            let life = self.machines[host].life;
            let pause = self.rng.u64(100..=self.weather.sync_max);
            self.plan(pause, Event::Synced { host, life, index });
        }
        if elected {
            self.few_hear(host);
        }
        if committed && self.ends_a_turn(host) {
            self.take_results(host)?;
            self.crash(host);
            return Ok(());
        }
        for (to, msg) in sent {
            let to = to.expect("Raft never broadcasts");
            self.send(host, &to, &msg);
        }
        for (what, did) in [("leader elected", elected), ("tail cut", cut)] {
            if did {
                self.count(what);
            }
        }
        if elected && self.weather.short_reigns && self.now < FAULTS_END && self.rng.u8(0..4) > 0 {
            let pause = self.rng.u64(0..=3 * self.weather.delay_max);
            self.plan(pause, Event::Depose { host });
        }
        self.take_results(host)?;
        if self.doomed == Some(host) && self.machines[host].disk.syncing().is_some() {
            self.doomed = None;
            self.count("crash in a write");
            self.crash(host);
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: &NodeId, msg: &Message) {
        let Some(to) = self.machines.iter().position(|machine| machine.id == *to) else { return };
        if self.cut.contains(&(from, to)) {
            return;
        }
        let healthy = self.now >= FAULTS_END;
        if !healthy && self.rng.f64() < self.weather.loss {
            return self.count("lost");
        }
        let (epoch, frame) = (self.epoch(from, to), msg.to_frame());
        let event = Event::Deliver { from, to, epoch, frame };
        let arrival = self.now + self.rng.u64(50..=self.weather.delay_max);
        let last_at = self.last_at.entry((from, to)).or_default();
        *last_at = arrival.max(*last_at);
        let pause = *last_at - self.now;
        if !healthy && self.rng.f64() < self.weather.doubling {
            let later = pause + self.rng.u64(0..=10 * self.weather.delay_max);
            self.plan(later, event.clone());
            self.count("doubled");
        }
        self.plan(pause, event);
    }

    /// What the layer above takes from Raft, and whether it is right.
    fn take_results(&mut self, host: usize) -> Result<(), String> {
        let machine = &mut self.machines[host];
        let Some(node) = &mut machine.node else { return Ok(()) };
        let restored = node.take_snapshot();
        if let Some(snapshot) = &restored {
            machine.state = State::from_bytes(&snapshot.state().get(0, usize::MAX));
            assert_eq!(machine.state.seq, snapshot.seq());
            self.checker.applied(&machine.id, machine.state)?;
        }
        let entries = node.take_committed();
        for entry in &entries {
            if entry.seq != Some(machine.state.seq + 1) {
                return Err(format!("{} applies {:?} next", machine.id, entry.seq));
            }
            machine.state.apply(entry);
            self.checker.applied(&machine.id, machine.state)?;
        }
        let (reads, life) = (node.take_reads(), machine.life);
        for (token, index) in reads {
            let asked =
                self.reads.remove(&(host, life, token)).ok_or("an answer to no question")?;
            if index < asked {
                return Err(format!("stale read: at {index} after {asked} was committed"));
            }
            *self.happened.entry("read answered").or_default() += 1;
        }
        *self.happened.entry("applied").or_default() += entries.len() as u64;
        if restored.is_some() {
            self.count("snapshot restored");
        }
        self.happened.insert("committed", self.checker.committed());
        Ok(())
    }

    fn start(&mut self, host: usize) -> Result<(), String> {
        self.start_from_disk(host)?;
        if let Some(node) = &mut self.machines[host].node {
            (node.batch_bytes, node.chunk_bytes) = (self.batch_bytes, 64);
            node.unpacked_bytes = 700;
        }
        let life = self.machines[host].life;
        let pause = self.rng.u64(0..25 * MS);
        self.plan(pause, Event::Tick { host, life });
        self.plan(pause, Event::Heartbeat { host, life });
        for peer in 0..self.machines.len() {
            self.connect_anew(host, peer);
        }
        self.take_results(host)
    }

    /// Starts the server from what the disk holds. Now and then the newest snapshots are damaged: then either nothing is missing
    /// all the same, or that is found, and the server has to start as a wiped one, if Raft can bear that.
    fn start_from_disk(&mut self, host: usize) -> Result<(), String> {
        let machine = &mut self.machines[host];
        let all = machine.disk.snapshots.len();
        let damaged = if self.rng.u8(0..4) == 0 { self.rng.usize(0..=all) } else { 0 };
        let mut trial = self.rng.clone();
        machine.start(&mut trial, TIMING, 0)?;
        // Nobody was told of a snapshot that the journal does not tell of.
        let end = machine.node.take().filter(|node| !node.marker_due).map(|node| node.log.end());
        machine.life -= 1;
        if damaged > 0 && machine.start(&mut self.rng, TIMING, damaged).is_ok() {
            if end.is_some_and(|end| machine.node.as_ref().is_some_and(|n| n.log.end() != end)) {
                return Err(format!("{} lost entries with a snapshot, and went on", machine.id));
            }
            self.count("snapshot damaged");
            return Ok(());
        }
        if damaged > 0 && self.may_wipe(host) {
            self.forget_disk(host);
            self.count("snapshots lost");
        }
        self.machines[host].start(&mut self.rng, TIMING, 0)
    }

    /// What is on its way between the two is lost; both learn of the new connection, if there is one.
    fn connect_anew(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let epoch = self.epoch(a, b) + 1;
        self.epochs.insert((a.min(b), a.max(b)), epoch);
        for (host, peer) in [(a, b), (b, a)] {
            self.last_at.remove(&(host, peer));
            if self.rng.u8(0..4) == 0 {
                self.plan(0, Event::LinkDown { host, peer, epoch });
            }
            let pause = self.rng.u64(0..=5 * MS);
            self.plan(pause, Event::LinkUp { host, peer, epoch });
        }
    }

    fn client_acts(&mut self) -> Result<(), String> {
        let pause = self.rng.u64(MS..40 * MS);
        self.plan(pause, Event::Client);
        let host = self.rng.usize(0..self.machines.len());
        if self.rng.u8(0..8) == 0 {
            self.compact(host)?;
        }
        self.tokens += 1;
        let token = self.tokens;
        if self.rng.u8(0..3) == 0 {
            if self.machines[host].node.is_some() {
                self.reads
                    .insert((host, self.machines[host].life, token), self.checker.committed());
            }
            return self.step(host, |node, step| node.read_index(token, step));
        }
        for host in 0..self.machines.len() {
            let size = self.rng.usize(0..300);
            let mut chat =
                Message::new(MessageType::Chat, "alice").with_id(format!("m{token}.{host}"));
            chat.content = "x".repeat(size).as_str().into();
            // A machine that sleeps takes nothing.
            if self.machines[host].asleep_until <= self.now {
                self.step(host, |node, step| _ = node.propose(chat, step))?;
            }
        }
        Ok(())
    }

    /// Whether all members have applied the same, beyond `committed`, and the configuration is at rest.
    fn has_converged(&mut self, committed: Seq) -> bool {
        let leader = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        let Some(leader) = leader.filter(|node| node.is_leader()).max_by_key(|n| n.current_term)
        else {
            return false;
        };
        let configuration = leader.configuration();
        let rest = configuration.learners.is_empty()
            && configuration.voters.iter().all(|(node_id, disk)| {
                let of = |m: &&Machine| m.id == *node_id && m.disk.name == *disk;
                self.machines.iter().find(of).is_some_and(|m| m.state.seq > committed)
            });
        if rest {
            for (node_id, disk) in &configuration.voters {
                if disk.contains('-') && self.happened.contains_key("wipe") {
                    _ = node_id;
                    *self.happened.entry("voter replaced").or_default() += 1;
                }
            }
        }
        rest
    }

    fn describe(&self) -> String {
        let machines = self.machines.iter().map(|machine| match &machine.node {
            None => format!("{} is down", machine.id),
            Some(node) => format!(
                "{} {} term {} last {} committed {} of {:?}",
                machine.id,
                node.state(),
                node.current_term,
                node.log.last(),
                node.commit_index,
                node.configuration().voters
            ),
        });
        machines.collect::<Vec<_>>().join("; ")
    }
}
