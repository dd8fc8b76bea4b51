//! Clusters of nothing but [`OrderingManager`]s under every fault, seed by seed, with checks after every event.
//!
//! Messages are delayed, lost with their link, in some seeds doubled and overtaken; servers crash and lose what was not
//! synced, alone or all at once; disks are wiped, one at a time; servers are nominated at random. Then all is
//! healed, and the cluster has a minute of virtual time to be as good as new.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::content::Member;
use crate::network::transport::Outbox;
use crate::server::planted::{Planted, plant};
use crate::storage::{MemoryLog, Storage};

/// A disk that forgets what was not synced.
#[derive(Debug, Default)]
struct Disk {
    log: MemoryLog,
    written: Cell<LogIndex>,
}

impl Disk {
    fn of(records: impl IntoIterator<Item = Message>) -> Self {
        let disk = Self::default();
        records.into_iter().for_each(|record| _ = disk.append(&record));
        disk
    }
}

impl Storage for Disk {
    fn append(&self, msg: &Message) -> LogIndex {
        self.written.set(self.log.append(msg));
        self.written.get()
    }
    fn fault(&self) -> Option<String> {
        self.log.fault()
    }
    fn forget_before(&self, index: LogIndex) {
        self.log.forget_before(index);
    }
    fn first_within(&self, bytes: u64) -> LogIndex {
        self.log.first_within(bytes)
    }
    fn request_read(&self, token: u64, from: LogIndex, bytes_max: usize) {
        self.log.request_read(token, from, bytes_max);
    }
    fn save_snapshot(&self, seq: u64, bytes: Arc<[u8]>) {
        self.log.save_snapshot(seq, bytes);
    }
}

#[derive(Debug)]
enum Event {
    Deliver { from: usize, to: usize, epoch: u64, text: String },
    LinkUp { a: usize, b: usize, epoch: u64 },
    Tick { node: usize, life: u64 },
    Synced { node: usize, life: u64, index: LogIndex },
    Chat,
    Fault,
    Restart { node: usize },
    Heal,
}

struct Server {
    id: NodeId,
    manager: Option<OrderingManager>,
    disk: Disk,
    synced: LogIndex,
    sync_asked: LogIndex,
    disk_number: u32,
    life: u64,
    beat: bool,
    led_in: Option<Term>,
}

/// What a seed draws once.
struct Habits {
    delay_ms: u64,
    sync_ms: u64,
    disorder: bool,
    fault_every_ms: u64,
    nominate: f64,
    wipes: bool,
}

struct World {
    rng: fastrand::Rng,
    start: Instant,
    ms: u64,
    agenda: BTreeMap<(u64, u64), Event>,
    counted: u64,
    servers: Vec<Server>,
    voters: usize,
    habits: Habits,
    epochs: BTreeMap<(usize, usize), u64>,
    cut: BTreeSet<(usize, usize)>,
    arrives: BTreeMap<(usize, usize), u64>,
    calm: bool,
    chats: u64,
    /// The one order, as far as anyone took it.
    agreed: Vec<Entry>,
    leaders: BTreeMap<Term, usize>,
    pub(super) happened: BTreeMap<&'static str, u64>,
}

const FAULTS_MS: u64 = 8_000;
const HEALED_MS: u64 = 60_000;

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let voters = if rng.bool() { 3 } else { 5 };
        let habits = Habits {
            delay_ms: rng.u64(1..60),
            sync_ms: rng.u64(0..80),
            disorder: rng.u8(0..4) == 0,
            fault_every_ms: [rng.u64(20..100), rng.u64(100..1500)][rng.usize(0..2)],
            nominate: [0.0, 0.002, 0.02][rng.usize(0..3)],
            wipes: rng.bool(),
        };
        let learners = usize::from(rng.u8(0..4) == 0);
        let server = |number: usize| Server {
            id: format!("n{}", number + 1).into(),
            manager: None,
            disk: Disk::default(),
            synced: 0,
            sync_asked: 0,
            disk_number: 0,
            life: 0,
            beat: false,
            led_in: None,
        };
        let mut world = Self {
            start: crate::testing::start(),
            ms: 0,
            agenda: BTreeMap::new(),
            counted: 0,
            servers: (0..voters + learners).map(server).collect(),
            voters,
            habits,
            epochs: BTreeMap::new(),
            cut: BTreeSet::new(),
            arrives: BTreeMap::new(),
            calm: false,
            chats: 0,
            agreed: Vec::new(),
            leaders: BTreeMap::new(),
            happened: BTreeMap::new(),
            rng,
        };
        for node in 0..world.servers.len() {
            let at = world.rng.u64(0..300) + if node >= voters { 3000 } else { 0 };
            world.at(at, Event::Restart { node });
        }
        world.at(500, Event::Chat);
        let first_fault = world.rng.u64(0..2500);
        world.at(first_fault, Event::Fault);
        world.at(FAULTS_MS, Event::Heal);
        world
    }

    fn at(&mut self, ms: u64, event: Event) {
        self.counted += 1;
        self.agenda.insert((ms.max(self.ms), self.counted), event);
    }

    fn note(&mut self, what: &'static str) {
        *self.happened.entry(what).or_default() += 1;
    }

    fn disk_id(&self, node: usize) -> String {
        format!("{}-disk{}", self.servers[node].id, self.servers[node].disk_number)
    }

    /// Runs everything; an error says which promise broke.
    fn run(&mut self) -> Result<(), String> {
        while let Some(((ms, _), event)) = self.agenda.pop_first() {
            self.ms = ms;
            if ms > FAULTS_MS + HEALED_MS {
                return self.check_healed(true);
            }
            self.happen(event)?;
            if self.calm && self.counted % 64 == 0 && self.check_healed(false).is_ok() {
                return Ok(());
            }
        }
        Err("nothing happens any more".into())
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Deliver { from, to, epoch, text } => {
                if self.epoch(from, to) == epoch {
                    let msg = Message::deserialize(&text).map_err(|error| error.to_string())?;
                    let from = self.servers[from].id.clone();
                    self.step(to, |manager, step| {
                        _ = manager.handle_message(&from, &msg, step);
                    })?;
                }
            }
            Event::LinkUp { a, b, epoch } => {
                if self.epoch(a, b) == epoch && !self.is_cut(a, b) {
                    let (id_a, id_b) = (self.servers[a].id.clone(), self.servers[b].id.clone());
                    self.step(a, |manager, step| manager.link_up(&id_b, step))?;
                    self.step(b, |manager, step| manager.link_up(&id_a, step))?;
                }
            }
            Event::Tick { node, life } => self.tick(node, life)?,
            Event::Synced { node, life, index } => {
                let server = &mut self.servers[node];
                if server.life == life && server.manager.is_some() {
                    server.synced = server.synced.max(index);
                    self.step(node, |manager, _| manager.on_synced(index))?;
                }
            }
            Event::Chat => self.chat()?,
            Event::Fault => self.fault()?,
            Event::Restart { node } => self.restart(node)?,
            Event::Heal => self.heal()?,
        }
        Ok(())
    }

    fn tick(&mut self, node: usize, life: u64) -> Result<(), String> {
        if self.servers[node].life != life || self.servers[node].manager.is_none() {
            return Ok(());
        }
        let sleeps = !self.calm && self.rng.u32(0..2000) == 0;
        let pause = if sleeps { 1500 } else { 40 + self.rng.u64(0..20) };
        self.at(self.ms + pause, Event::Tick { node, life });
        self.servers[node].beat = !self.servers[node].beat;
        let beat = self.servers[node].beat;
        let nominate = self.rng.f64() < self.habits.nominate && !self.calm;
        let elected = self.rng.u8(0..4) == 0;
        let mut handed_over = false;
        self.step(node, |manager, step| {
            manager.tick(step);
            if beat {
                manager.heartbeat(step);
            }
            if nominate || elected && manager.wants_election(step.now) {
                manager.nominate(step);
            }
            handed_over = matches!(&manager.role, Role::Leader(l) if l.handing_over.is_some());
        })?;
        if handed_over {
            self.note("hand over");
        }
        Ok(())
    }

    /// Lets a server do something, carries away what it sent and wrote, and looks whether all is well.
    fn step(
        &mut self,
        node: usize,
        act: impl FnOnce(&mut OrderingManager, &Step),
    ) -> Result<(), String> {
        let now = self.start + Duration::from_millis(self.ms);
        let outbox = Outbox::new();
        let server = &mut self.servers[node];
        let Some(manager) = &mut server.manager else { return Ok(()) };
        let step = Step { now, wall_ms: self.ms, cm: &outbox, log: &server.disk };
        act(manager, &step);
        manager.settle(&step);
        let (written, life) = (server.disk.written.get(), server.life);
        if written > server.sync_asked {
            let part = self.rng.u64(server.sync_asked..=written);
            server.sync_asked = written;
            let half = self.ms + self.rng.u64(0..=self.habits.sync_ms);
            self.at(half, Event::Synced { node, life, index: part });
            let at = half + self.rng.u64(0..=self.habits.sync_ms);
            self.at(at, Event::Synced { node, life, index: written });
        }
        for (to, msg) in outbox.take_to_nodes() {
            let to = to.expect("nothing is broadcast");
            let to = self.servers.iter().position(|server| server.id == to);
            self.send(node, to.expect("a server"), &msg);
        }
        self.check(node)
    }

    fn send(&mut self, from: usize, to: usize, msg: &Message) {
        if self.is_cut(from, to) || self.servers[to].manager.is_none() {
            return;
        }
        let epoch = self.epoch(from, to);
        let copies = if self.habits.disorder && self.rng.u8(0..20) == 0 { 2 } else { 1 };
        for _ in 0..copies {
            let mut at = self.ms + self.rng.u64(1..=self.habits.delay_ms);
            if !self.habits.disorder {
                let last = self.arrives.entry((from, to)).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.at(at, Event::Deliver { from, to, epoch, text: msg.serialize() });
        }
    }

    fn pair(a: usize, b: usize) -> (usize, usize) {
        (a.min(b), a.max(b))
    }

    fn epoch(&self, a: usize, b: usize) -> u64 {
        self.epochs.get(&Self::pair(a, b)).copied().unwrap_or_default()
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&Self::pair(a, b))
    }

    /// What is on the link is lost; it stands again soon.
    fn reset(&mut self, a: usize, b: usize) {
        let epoch = self.epochs.entry(Self::pair(a, b)).or_default();
        *epoch += 1;
        let epoch = *epoch;
        let at = self.ms + self.rng.u64(1..50);
        self.at(at, Event::LinkUp { a, b, epoch });
    }

    fn chat(&mut self) -> Result<(), String> {
        self.chats += 1;
        let text = format!("c{}", self.chats);
        let pause = if self.calm { 400 } else { self.rng.u64(5..120) };
        self.at(self.ms + pause, Event::Chat);
        for node in 0..self.servers.len() {
            let mut chat = Message::new(MessageType::Chat, "alice").with_id(text.as_str());
            chat.content = text.as_str().into();
            let mut placed = false;
            self.step(node, |manager, step| placed = manager.propose(chat, step).is_some())?;
            if placed {
                self.note("chat placed");
            }
        }
        Ok(())
    }

    fn fault(&mut self) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let pause = self.rng.u64(1..=self.habits.fault_every_ms * 2);
        self.at(self.ms + pause, Event::Fault);
        let count = self.servers.len();
        let (node, other) = (self.rng.usize(0..count), self.rng.usize(0..count));
        match self.rng.u8(0..16) {
            0..=2 => self.crash(node),
            3 | 4 => {
                let stands = |server: &Server| {
                    let role = server.manager.as_ref().map(|manager| &manager.role);
                    role.is_some_and(|role| !matches!(role, Role::Follower(_)))
                };
                self.crash(self.servers.iter().position(stands).unwrap_or(node));
            }
            5 => (0..count).for_each(|node| self.crash(node)),
            6..=8 if node != other => self.reset(node, other),
            9 | 10 => {
                let side: BTreeSet<usize> = (0..count).filter(|_| self.rng.bool()).collect();
                for a in 0..count {
                    for b in (a + 1..count).filter(|b| side.contains(&a) != side.contains(b)) {
                        self.cut_link(a, b)?;
                    }
                }
            }
            11 if node != other => self.cut_link(node, other)?,
            12 | 13 => self.mend_links(),
            14 | 15 => self.wipe(node),
            _ => {}
        }
        Ok(())
    }

    fn cut_link(&mut self, a: usize, b: usize) -> Result<(), String> {
        *self.epochs.entry(Self::pair(a, b)).or_default() += 1;
        self.cut.insert(Self::pair(a, b));
        if self.rng.bool() {
            let (id_a, id_b) = (self.servers[a].id.clone(), self.servers[b].id.clone());
            self.step(a, |manager, step| manager.node_failed(&id_b, step))?;
            self.step(b, |manager, step| manager.node_failed(&id_a, step))?;
        }
        Ok(())
    }

    fn mend_links(&mut self) {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.reset(a, b);
        }
    }

    fn crash(&mut self, node: usize) {
        let server = &mut self.servers[node];
        if server.manager.take().is_none() {
            return;
        }
        let kept = self.rng.u64(server.synced..=server.disk.written.get());
        server.disk = Disk::of(server.disk.log.records().into_iter().take(kept as usize));
        server.led_in = None;
        for other in (0..self.servers.len()).filter(|other| *other != node) {
            *self.epochs.entry(Self::pair(node, other)).or_default() += 1;
        }
        let at = self.ms + self.rng.u64(1..2500);
        self.at(at, Event::Restart { node });
        self.note("crash");
    }

    /// A disk is lost for good. Only one at a time: the next one when everybody who took all counts its successor.
    fn wipe(&mut self, node: usize) {
        let latest = self.agreed.iter().rev().find_map(|entry| {
            let valid = entry.message_type == MessageType::Members;
            valid.then(|| entry.content.parse().ok()).flatten()
        });
        let latest = match latest {
            Some(crate::domain::content::MembersContent::Valid { members }) => Some(members),
            _ => {
                self.servers.iter().find_map(|s| s.manager.as_ref()?.membership.members().cloned())
            }
        };
        let Some(latest) = latest else { return };
        let repaired = (0..self.servers.len()).all(|node| {
            let voter = latest.voters.get(&self.servers[node].id);
            voter.is_none_or(|voter| voter.disk_id == self.disk_id(node))
        });
        // The members must be known for good: someone took an entry.
        if !self.habits.wipes || !repaired || self.agreed.is_empty() {
            return;
        }
        self.crash(node);
        let server = &mut self.servers[node];
        if server.manager.is_none() {
            server.disk = Disk::default();
            server.disk_number += 1;
            server.synced = 0;
            self.note("wipe");
        }
    }

    fn restart(&mut self, node: usize) -> Result<(), String> {
        if self.servers[node].manager.is_some() {
            return Ok(());
        }
        let me = Member { address: format!("host:{node}"), disk_id: self.disk_id(node) };
        let (seed_a, seed_b) = (self.rng.u64(..), self.rng.u64(..));
        let server = &mut self.servers[node];
        server.life += 1;
        let rng = fastrand::Rng::with_seed(seed_a);
        let membership = MembershipManager::new(server.id.clone(), me, self.voters, rng);
        let mut manager = OrderingManager::new(OrderingConfig {
            incarnation: Incarnation::new(&server.id, server.life, server.disk_number as u16),
            timing: OrderingTiming::default(),
            ack_rule: AckRule::Majority,
            membership,
            rng: fastrand::Rng::with_seed(seed_b),
        });
        server.disk.log.records().into_iter().for_each(|record| manager.recover(record));
        (server.synced, server.sync_asked) = (server.disk.written.get(), server.disk.written.get());
        server.manager = Some(manager);
        let synced = server.synced;
        let life = server.life;
        self.step(node, |manager, _| manager.on_synced(synced))?;
        self.at(self.ms + 1, Event::Tick { node, life });
        for other in (0..self.servers.len()).filter(|other| *other != node) {
            if self.servers[other].manager.is_some() && !self.is_cut(node, other) {
                self.reset(node, other);
            }
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<(), String> {
        self.calm = true;
        self.mend_links();
        for node in 0..self.servers.len() {
            self.restart(node)?;
        }
        Ok(())
    }

    /// Looks at what the server took and whether it leads.
    fn check(&mut self, node: usize) -> Result<(), String> {
        let server = &mut self.servers[node];
        let Some(manager) = &mut server.manager else { return Ok(()) };
        for entry in manager.take_committed() {
            let seq = entry.seq.unwrap_or_default() as usize;
            match self.agreed.get(seq - 1) {
                Some(known) if *known == entry => {}
                Some(known) => {
                    let (id, mine, theirs) = (&server.id, &entry.message_id, &known.message_id);
                    let terms = (&entry.term, &known.term);
                    return Err(format!("{id} took {mine} as {seq}, {theirs} was: {terms:?}"));
                }
                None if self.agreed.len() + 1 == seq => self.agreed.push(entry),
                None => return Err(format!("{} skips to {seq}", server.id)),
            }
        }
        let Role::Leader(leading) = &manager.role else {
            server.led_in = None;
            return Ok(());
        };
        if !leading.active || server.led_in.as_ref() == Some(&leading.term) {
            return Ok(());
        }
        let term = leading.term.clone();
        server.led_in = Some(term.clone());
        let log = manager.journal.log();
        let lost = self
            .agreed
            .iter()
            .find(|entry| log.term_at(entry.seq.unwrap_or_default()) != Some(entry.term.as_ref()));
        if let Some(lost) = lost {
            return Err(format!("{} leads in {term} without {:?}", server.id, lost.seq));
        }
        if let Some(other) = self.leaders.insert(term.clone(), node).filter(|it| *it != node) {
            return Err(format!("{} and number {other} lead in {term}", server.id));
        }
        self.note("leader");
        Ok(())
    }

    /// One leader, everyone as far as it, every voter counts; and a chat of the calm time was taken by all.
    fn check_healed(&mut self, say_why: bool) -> Result<(), String> {
        let quiet = || Err(String::new());
        let mut leaders = BTreeSet::new();
        let mut committed = BTreeSet::new();
        for node in 0..self.servers.len() {
            let disk_id = self.disk_id(node);
            let Some(manager) = &self.servers[node].manager else { return quiet() };
            leaders.insert(manager.leader());
            committed.insert(manager.committed());
            let own = self.servers.iter().filter_map(|server| server.manager.as_ref());
            let mut own = own.filter(|manager| manager.is_voter(&self.servers[node].id));
            if !own.all(|manager| manager.membership.counts(&self.servers[node].id, &disk_id)) {
                let id = &self.servers[node].id;
                return if say_why { Err(format!("{id} does not count")) } else { quiet() };
            }
        }
        let highest = self.servers[..].iter().rev().find_map(|server| {
            let manager = server.manager.as_ref()?;
            manager.is_voter(&server.id).then(|| Some(server.id.clone()))
        });
        let calm = self.agreed.last().and_then(|entry| entry.message_id.strip_prefix('c'));
        let recent =
            calm.and_then(|text| text.parse().ok()).is_some_and(|n: u64| n + 8 > self.chats);
        if leaders.len() == 1
            && leaders.first() == highest.as_ref()
            && committed.len() == 1
            && recent
        {
            return Ok(());
        }
        if !say_why {
            return quiet();
        }
        let states: Vec<_> = self
            .servers
            .iter()
            .map(|server| {
                let manager = server.manager.as_ref();
                manager.map(|m| {
                    (
                        m.state(),
                        m.promised.clone(),
                        m.committed,
                        m.last(),
                        m.wants_election(self.start + Duration::from_millis(self.ms)),
                    )
                })
            })
            .collect();
        Err(format!("not healed: leaders {leaders:?}, {committed:?}, {recent}, {states:?}"))
    }
}

fn play(seed: u64) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut world = World::new(seed);
    world.run().map_err(|error| format!("seed {seed} at {} ms: {error}", world.ms))?;
    let (agreed, events) = (world.agreed.len() as u64, world.counted);
    world.happened.insert("committed", agreed);
    world.happened.insert("events", events);
    Ok(world.happened)
}

fn play_all(seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let mut happened = BTreeMap::new();
    for seed in seeds {
        for (what, times) in play(seed).unwrap_or_else(|error| panic!("{error}")) {
            *happened.entry(what).or_default() += times;
        }
    }
    happened
}

#[test]
fn one_order_survives_every_fault() {
    let happened = play_all(0..500);
    for what in ["chat placed", "crash", "wipe", "leader", "hand over", "committed"] {
        assert!(happened.get(what).is_some_and(|times| *times > 100), "{what}: {happened:?}");
    }
}

/// `ORDERING_SEEDS=0..20000 cargo test --release --lib ordering::simulation -- --ignored`
#[test]
#[ignore = "takes minutes; run it in release"]
fn one_order_survives_many_more() {
    let seeds = std::env::var("ORDERING_SEEDS").unwrap_or_else(|_| "0..20000".into());
    let (first, end) = seeds.split_once("..").unwrap();
    println!("{:?}", play_all(first.parse().unwrap()..end.parse().unwrap()));
}

#[test]
fn planted_faults_are_caught() {
    let faults = [
        Planted::CommitsEarlierTerm,
        Planted::PromiseBeforeSync,
        Planted::AckBeforeSync,
        Planted::CutsByLength,
        Planted::StaleTerm,
        Planted::CountsWiped,
    ];
    let missed = faults.into_iter().filter(|fault| {
        plant(Some(*fault));
        let caught = (0..20_000).find_map(|seed| play(seed).err());
        plant(None);
        println!("{fault:?}: {caught:?}");
        caught.is_none()
    });
    assert_eq!(missed.collect::<Vec<_>>(), []);
}
