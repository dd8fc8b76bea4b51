//! The network, the clock and the faults of a simulation.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::checker::Checker;
use super::machine::{Disk, Machine, State};
use super::*;
use crate::domain::Frame;
use crate::network::transport::Outbox;
use crate::testing::start;

const MS: u64 = 1_000;
/// How long things go wrong, and by when after that everything has to be well.
const FAULTS_END: u64 = 5_000 * MS;
const DEADLINE: u64 = 25_000 * MS;
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
    /// Bytes of entries in one request.
    batch_bytes: usize,
    happened: BTreeMap<&'static str, u64>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let voters = if rng.bool() { 3 } else { 5 };
        let spares = rng.usize(0..=2);
        let calm = rng.bool();
        let weather = Weather {
            delay_max: [2, 10, 60][rng.usize(0..3)] * MS,
            sync_max: [1, 10, 150][rng.usize(0..3)] * MS,
            loss: if calm { 0.0 } else { rng.f64() * 0.1 },
            doubling: if calm { 0.0 } else { rng.f64() * 0.2 },
            fault_every: [60, 150, 400][rng.usize(0..3)] * MS,
            short_reigns: rng.u8(0..3) == 0,
        };
        let batch_bytes = [1, 700][rng.usize(0..2)];
        let machines = (1..=voters + spares).map(|at| Machine {
            id: format!("n{at}").into(),
            disk: Disk::new(format!("{at}a")),
            node: None,
            state: State::default(),
            life: 0,
            asleep_until: 0,
            configuration: Configuration::default(),
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
                let disk = &mut self.machines[host].disk;
                if let Some(index) = disk.begin_sync() {
                    disk.end_sync(index);
                }
            }
        }
        self.plan(20 * MS, Event::Client);
        self.plan(self.weather.fault_every, Event::Fault);
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
            self.happen(event).map_err(|what| format!("at {} ms: {what}", at / MS))?;
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
            | Event::LinkUp { host, .. } => *host,
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
            Event::Synced { host, life, index } if self.machines[host].life == life => {
                self.machines[host].disk.end_sync(index);
                self.step(host, |node, _| node.on_synced(index))
            }
            Event::LinkUp { host, peer, epoch } if self.epoch(host, peer) == epoch => {
                let peer = self.machines[peer].id.clone();
                self.step(host, |node, step| node.link_up(&peer, step))
            }
            Event::Restart { host } if self.machines[host].node.is_none() => self.start(host),
            Event::Stand { host } => self.stand(host),
            Event::Depose { host } => {
                self.cut_off(host);
                Ok(())
            }
            Event::Seesaw { up, down, left } => self.seesaw(up, down, left),
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
        refused.map_err(|error| format!("{sender} sent what is refused: {error}"))
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
        }
        let cut = node.log.last() < last;
        machine.configuration.clone_from(node.configuration());
        let elected = self.checker.check(node, before)?;
        let sent = outbox.take_to_nodes();
        if let Some(index) = self.machines[host].disk.begin_sync() {
            let life = self.machines[host].life;
            let pause = self.rng.u64(100..=self.weather.sync_max);
            self.plan(pause, Event::Synced { host, life, index });
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
        if self.doomed == Some(host) && self.machines[host].disk.is_syncing() {
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
        if let Some((seq, _, bytes)) = &restored {
            machine.state = State::from_bytes(bytes);
            assert_eq!(machine.state.seq, *seq);
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
                return Err(format!("a read at {index} after {asked} was committed"));
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
        self.machines[host].start(&mut self.rng, TIMING);
        if let Some(node) = &mut self.machines[host].node {
            (node.batch_bytes, node.chunk_bytes) = (self.batch_bytes, 64);
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

    /// What is on its way between the two is lost; both learn of the new connection, if there is one.
    fn connect_anew(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let epoch = self.epoch(a, b) + 1;
        self.epochs.insert((a.min(b), a.max(b)), epoch);
        for (host, peer) in [(a, b), (b, a)] {
            self.last_at.remove(&(host, peer));
            let pause = self.rng.u64(0..=5 * MS);
            self.plan(pause, Event::LinkUp { host, peer, epoch });
        }
    }

    fn client_acts(&mut self) -> Result<(), String> {
        let pause = self.rng.u64(MS..40 * MS);
        self.plan(pause, Event::Client);
        let host = self.rng.usize(0..self.machines.len());
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

    fn fault(&mut self) -> Result<(), String> {
        let host = self.rng.usize(0..self.machines.len());
        let other = self.rng.usize(0..self.machines.len());
        match self.rng.u8(0..18) {
            0 | 1 => self.crash(host),
            2 => {
                let pause = self.rng.u64(50 * MS..800 * MS);
                self.machines[host].asleep_until = self.now + pause;
                self.count("sleep");
            }
            3 => self.wipe(host),
            4 | 5 => self.split(),
            6 => {
                self.cut.insert((host, other));
                self.plan(400 * MS, Event::Heal { everything: false });
                self.count("one-way cut");
            }
            7 => {
                self.connect_anew(host, other);
                self.count("reset");
            }
            8 | 9 => return self.compact(host),
            10 => return self.transfer(host, other),
            11 | 12 => self.doomed = Some(host),
            13 | 14 => return self.ambush(host, other),
            15 if host != other => return self.seesaw(host, other, 8),
            _ => return self.change(other),
        }
        Ok(())
    }

    fn crash(&mut self, host: usize) {
        if self.machines[host].node.take().is_none() {
            return;
        }
        let lost = self.machines[host].disk.crash(&mut self.rng);
        // Its timers end, and no answer reaches this life.
        self.machines[host].life += 1;
        self.count("crash");
        if lost > 0 {
            self.count("lost tail");
        }
        let pause = if self.rng.bool() { 20 * MS } else { 1_000 * MS };
        let pause = self.rng.u64(MS..pause);
        self.plan(pause, Event::Restart { host });
    }

    /// Whether a majority of `configuration` is on the disks that it names, that of `except` not counted.
    fn survives(&self, configuration: &Configuration, except: Option<usize>) -> bool {
        configuration.voters.is_empty()
            || configuration.is_majority(|node_id| {
                let mut machines = self.machines.iter().enumerate();
                machines.any(|(at, machine)| {
                    let disk = configuration.voters.get(node_id);
                    machine.id == *node_id && disk == Some(&machine.disk.name) && Some(at) != except
                })
            })
    }

    /// The machine loses its disk, if Raft can bear that: it promises nothing when majorities are gone.
    fn wipe(&mut self, host: usize) {
        let mut known = self.machines.iter().map(|machine| &machine.configuration);
        let broken = |configuration: &Configuration| {
            // A learner may become a voter before anybody finds out that its disk is gone.
            let mut later = configuration.clone();
            let learners = configuration.learners.iter();
            later.voters.extend(learners.map(|(id, learner)| (id.clone(), learner.disk.clone())));
            !self.survives(configuration, Some(host)) || !self.survives(&later, Some(host))
        };
        if known.any(broken) {
            return;
        }
        self.crash(host);
        let machine = &mut self.machines[host];
        machine.disk = Disk::new(format!("{}-{}", machine.id, machine.life));
        machine.configuration = Configuration::default();
        self.count("wipe");
    }

    fn split(&mut self) {
        let side = self.rng.u64(..);
        let of = |host: usize| side >> host & 1;
        for a in 0..self.machines.len() {
            for b in 0..self.machines.len() {
                if of(a) != of(b) {
                    self.cut.insert((a, b));
                }
            }
        }
        let pause = self.rng.u64(200 * MS..1_500 * MS);
        self.plan(pause, Event::Heal { everything: false });
        self.count("cut");
    }

    fn heal(&mut self, everything: bool) -> Result<(), String> {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.connect_anew(a, b);
        }
        if everything {
            for host in 0..self.machines.len() {
                self.machines[host].asleep_until = 0;
                if self.machines[host].node.is_none() {
                    self.start(host)?;
                }
                for peer in host + 1..self.machines.len() {
                    self.connect_anew(host, peer);
                }
            }
        }
        Ok(())
    }

    /// Stands without asking first, as if the leader had told it to.
    fn stand(&mut self, host: usize) -> Result<(), String> {
        self.step(host, |node, step| {
            if node.is_own_voter() && !node.is_leader() {
                node.stand(true, step);
            }
        })
    }

    /// Two stand that do not hear each other, at once or one after the other, while a voter crashes as it writes.
    fn ambush(&mut self, host: usize, other: usize) -> Result<(), String> {
        self.count("rivals");
        self.cut.extend([(host, other), (other, host)]);
        self.plan(400 * MS, Event::Heal { everything: false });
        let voter = self.rng.usize(0..self.machines.len());
        self.doomed = Some(voter).filter(|voter| *voter != host && *voter != other);
        let pause = self.rng.u64(0..=2 * self.weather.delay_max + 20 * MS);
        self.plan(pause, Event::Stand { host: other });
        self.stand(host)
    }

    /// Two candidates in turn, each with everybody but the other, and hardly time to do anything: Figure 8.
    fn seesaw(&mut self, up: usize, down: usize, left: u32) -> Result<(), String> {
        if left == 0 || self.now >= FAULTS_END {
            return self.heal(false);
        }
        self.count("see-saw");
        self.cut.clear();
        for other in 0..self.machines.len() {
            self.connect_anew(up, other);
            if other != down {
                self.connect_anew(down, other);
                self.cut.extend([(down, other), (other, down)]);
            }
        }
        let pause = self.rng.u64(0..=6 * self.weather.delay_max + 2 * self.weather.sync_max);
        self.plan(pause + MS, Event::Seesaw { up: down, down: up, left: left - 1 });
        self.stand(up)
    }

    fn cut_off(&mut self, host: usize) {
        for other in (0..self.machines.len()).filter(|other| *other != host) {
            self.cut.extend([(host, other), (other, host)]);
        }
        let pause = self.rng.u64(200 * MS..900 * MS);
        self.plan(pause, Event::Heal { everything: false });
        self.count("short reign");
    }

    fn compact(&mut self, host: usize) -> Result<(), String> {
        let state = self.machines[host].state;
        let mut did = false;
        self.step(host, |node, step| did = node.compact(state.seq, state.to_bytes(), step))?;
        if did {
            self.count("compaction");
        }
        Ok(())
    }

    fn transfer(&mut self, host: usize, to: usize) -> Result<(), String> {
        let to = self.machines[to].id.clone();
        let leads = |machine: &Machine| machine.node.as_ref().is_some_and(RaftNode::is_leader);
        if !self.machines.iter().any(leads) {
            return Ok(());
        }
        self.count("transfer");
        for host in 0..self.machines.len() {
            self.step(host, |node, step| _ = node.transfer_leadership(&to, step))?;
        }
        if self.rng.bool() {
            self.step(host, TotalOrder::resign)?;
        }
        Ok(())
    }

    fn change(&mut self, other: usize) -> Result<(), String> {
        let (node_id, disk) =
            (self.machines[other].id.clone(), self.machines[other].disk.name.clone());
        for host in 0..self.machines.len() {
            let configuration = self.machines[host].configuration.clone();
            let (change, what) = if configuration.disk_of(&node_id).is_none() {
                let (node_id, disk) = (node_id.clone(), disk.clone());
                (MembershipChange::AddLearner { node_id, disk, promote: true }, "learner added")
            } else {
                let mut without = configuration;
                without.voters.remove(&node_id);
                // Nobody takes away what a wiped voter's majority still needs.
                if without.voters.len() < 2 || !self.survives(&without, None) {
                    continue;
                }
                (MembershipChange::Remove { node_id: node_id.clone() }, "server removed")
            };
            let mut did = false;
            self.step(host, |node, step| did = node.change_membership(&change, step).is_ok())?;
            if did {
                self.count(what);
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
