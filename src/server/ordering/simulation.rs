//! Clusters of nothing but [`OrderingManager`]s under every fault, seed by seed, with checks after every event.
//!
//! Messages are delayed, lost with their link, in some seeds doubled and overtaken; servers crash and lose what was not
//! synced, alone or all at once; disks are wiped, one at a time; servers are nominated at random. In *storms* there is an ambush
//! now and then:
//!
//! ```text
//!   n1 and n3 stand and do not hear each other     n2 promises the higher one, crashes before that is on its disk,
//!                                                  comes back, and hears the lower one only
//! ```
//!
//! or a see-saw, which brings about Figure 8 of the Raft paper: two lead in turn, each heard by the third one only, cut off as soon as they
//! lead, or crashed as soon as they commit.
//!
//! Then all is healed, and the cluster has a minute of virtual time to be as good as new.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::domain::content::Member;
use crate::network::transport::Outbox;
use crate::server::planted::{Planted, plant};
use crate::storage::LogEvent;

mod checks;
mod disk;
mod faults;

use disk::Disk;

#[derive(Debug)]
enum Event {
    Deliver { from: usize, to: usize, epoch: u64, text: String },
    LinkUp { a: usize, b: usize, epoch: u64 },
    Tick { node: usize, life: u64 },
    Synced { node: usize, life: u64, index: LogIndex },
    Read { node: usize, life: u64, token: u64, from: LogIndex, records: Vec<Message> },
    Chat,
    Fault,
    Crash { node: usize, life: u64 },
    Stand { node: usize },
    Mend,
    Seesaw { up: usize, down: usize, left: u32 },
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
    /// The last entry that it took in this life, or that the base stands for.
    taken: Seq,
}

/// What a seed draws once.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
struct Habits {
    delay_ms: u64,
    sync_ms: u64,
    disorder: bool,
    fault_every_ms: u64,
    nominate: f64,
    wipes: bool,
    /// Servers forget old entries.
    forgets: bool,
    /// How much of its log a server keeps in memory.
    tail_bytes: usize,
    /// Three servers that stand whenever they like, leader or not, slow disks, and many short crashes.
    stormy: bool,
}

struct World {
    rng: fastrand::Rng,
    /// The luck of reads, of which there are more or less with the memory that servers have.
    reads_rng: fastrand::Rng,
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
    /// This server crashes when it has promised the other one something that its disk does not have.
    doomed: Option<(usize, usize)>,
    /// Who is up on the see-saw.
    up: Option<usize>,
    calm: bool,
    chats: u64,
    /// The one order, as far as anyone took it.
    agreed: Vec<Entry>,
    leaders: BTreeMap<Term, usize>,
    happened: BTreeMap<&'static str, u64>,
}

const FAULTS_MS: u64 = 8_000;
const HEALED_MS: u64 = 60_000;

impl World {
    fn new(seed: u64, storm: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let voters = if rng.bool() { 3 } else { 5 };
        let mut habits = Habits {
            delay_ms: rng.u64(1..60),
            sync_ms: rng.u64(0..80),
            disorder: rng.u8(0..4) == 0,
            fault_every_ms: [rng.u64(20..100), rng.u64(100..1500)][rng.usize(0..2)],
            nominate: [0.0, 0.002, 0.02][rng.usize(0..3)],
            wipes: rng.bool(),
            forgets: seed % 4 > 1,
            tail_bytes: [0, 1000, TAIL_BYTES][(seed % 3) as usize],
            stormy: false,
        };
        let stormy = storm || rng.u8(0..3) == 0;
        if stormy {
            habits = Habits {
                delay_ms: rng.u64(5..60),
                sync_ms: rng.u64(50..200),
                fault_every_ms: rng.u64(60..300),
                nominate: 0.05,
                wipes: false,
                stormy,
                ..habits
            };
        }
        let voters = if stormy { 3 } else { voters };
        let learners = usize::from(!stormy && rng.u8(0..4) == 0);
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
            taken: 0,
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
            doomed: None,
            up: None,
            calm: false,
            chats: 0,
            agreed: Vec::new(),
            leaders: BTreeMap::new(),
            happened: BTreeMap::new(),
            reads_rng: fastrand::Rng::with_seed(!seed),
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
            if self.calm && self.counted.is_multiple_of(64) && self.check_healed(false).is_ok() {
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
                    server.disk.synced(index);
                    self.step(node, |manager, _| manager.on_synced(index))?;
                }
            }
            Event::Read { node, life, token, from, records } => {
                if self.servers[node].life == life {
                    self.note("read from the disk");
                    self.step(node, |manager, _| manager.on_read(token, from, records))?;
                }
            }
            Event::Chat => self.chat()?,
            Event::Fault => self.fault()?,
            Event::Crash { node, life } if self.servers[node].life == life => {
                self.betray(node)?;
            }
            Event::Crash { .. } => {}
            Event::Stand { node } => self.step(node, |manager, step| manager.stand(true, step))?,
            Event::Mend => self.mend_links(),
            Event::Seesaw { up, down, left } => self.seesaw(up, down, left)?,
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
        let (stormy, handover) = (self.habits.stormy, self.rng.bool());
        let mut handed_over = false;
        self.step(node, |manager, step| {
            manager.tick(step);
            if beat {
                manager.heartbeat(step);
            }
            if nominate && stormy {
                manager.stand(handover, step);
            } else if nominate || elected && manager.wants_election(step.now) {
                manager.nominate(step);
            }
            handed_over = matches!(&manager.role, Role::Leader(l) if l.handing_over.is_some());
        })?;
        if handed_over {
            self.note("hand over");
        }
        if self.habits.forgets && self.reads_rng.u8(0..16) == 0 {
            self.forget(node)
        } else {
            Ok(())
        }
    }

    /// What the entries up to `seq` did.
    fn state_after(&self, seq: Seq) -> String {
        let ids = self.agreed[..seq as usize].iter().map(|entry| entry.message_id.as_str());
        let ids = ids.collect::<Vec<_>>().join(" ");
        format!(
            "{seq}: …{} {:08x}",
            &ids[ids.len().saturating_sub(30)..],
            crc32fast::hash(ids.as_bytes())
        )
    }

    /// A server forgets some of what it may.
    fn forget(&mut self, node: usize) -> Result<(), String> {
        let Some(manager) = &self.servers[node].manager else { return Ok(()) };
        let (base, last) = (manager.history_starts_at(), manager.forgettable());
        if base >= last {
            return Ok(());
        }
        let seq = self.reads_rng.u64(base + 1..=last);
        let state = self.state_after(seq);
        let mut done = false;
        self.step(node, |manager, step| done = manager.forget(seq, state.into(), step))?;
        if done {
            self.note("forgot");
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
        let before = (matches!(manager.role, Role::Leader(_)), manager.committed);
        let step = Step { now, wall_ms: self.ms, cm: &outbox, log: &server.disk };
        act(manager, &step);
        manager.settle(&step);
        let promised = manager.granted_to();
        let elected = !before.0 && matches!(manager.role, Role::Leader(_));
        let commits = manager.committed > before.1;
        let (written, life) = (server.disk.written.get(), server.life);
        if written > server.sync_asked {
            let part = self.rng.u64(server.sync_asked..=written);
            server.sync_asked = written;
            let half = self.ms + self.rng.u64(0..=self.habits.sync_ms);
            self.at(half, Event::Synced { node, life, index: part });
            let at = half + self.rng.u64(0..=self.habits.sync_ms);
            self.at(at, Event::Synced { node, life, index: written });
        }
        for event in self.servers[node].disk.log.take_events() {
            if let LogEvent::Read { token, from, records } = event {
                let at = self.ms + self.reads_rng.u64(0..=self.habits.sync_ms);
                self.at(at, Event::Read { node, life, token, from, records });
            }
        }
        for (to, msg) in outbox.take_to_nodes() {
            let to = to.expect("nothing is broadcast");
            let to = self.servers.iter().position(|server| server.id == to);
            self.send(node, to.expect("a server"), &msg);
        }
        if let Some((_, to)) = self.doomed.filter(|(doomed, _)| *doomed == node)
            && promised.as_ref() == Some(&self.servers[to].id)
        {
            // When what it has said so far has arrived.
            self.at(self.ms + self.habits.delay_ms + 1, Event::Crash { node, life });
        }
        self.check(node)?;
        self.end_a_reign(node, elected, commits)
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
            tail_bytes: self.habits.tail_bytes,
            batch_bytes: if self.habits.stormy { 1 } else { BATCH_BYTES },
            uncommitted_max: UNCOMMITTED_MAX,
            piece_bytes: 16,
        });
        server.disk.log.records().into_iter().for_each(|record| manager.recover(record));
        server.taken = 0;
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
        (self.doomed, self.up) = (None, None);
        self.mend_links();
        for node in 0..self.servers.len() {
            self.restart(node)?;
        }
        Ok(())
    }
}

/// Plays one seed; `storm` makes it one of the stormy kind, whatever it draws.
fn play(seed: u64, storm: bool) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut world = World::new(seed, storm);
    world.run().map_err(|error| format!("seed {seed} at {} ms: {error}", world.ms))?;
    let (agreed, events) = (world.agreed.len() as u64, world.counted);
    world.happened.insert("committed", agreed);
    world.happened.insert("events", events);
    Ok(world.happened)
}

fn play_all(seeds: std::ops::Range<u64>) -> BTreeMap<&'static str, u64> {
    let mut happened = BTreeMap::new();
    for seed in seeds {
        for (what, times) in play(seed, false).unwrap_or_else(|error| panic!("{error}")) {
            *happened.entry(what).or_default() += times;
        }
    }
    happened
}

#[test]
fn one_order_survives_every_fault() {
    let happened = play_all(0..100);
    let common = ["chat placed", "crash", "wipe", "leader", "hand over", "committed"];
    let of_disks = ["read from the disk", "forgot", "started from a base"];
    for what in common.into_iter().chain(of_disks) {
        assert!(happened.get(what).is_some_and(|times| *times > 20), "{what}: {happened:?}");
    }
}

/// 5339: a log that begins with an old base, behind which entries were given away, lost all of them at a start. 11431: a leader whose
/// one voter was wiped and whose other one had promised more stayed for ever.
#[test]
fn seeds_that_found_something() {
    for seed in [5339, 11_431] {
        assert_eq!(play(seed, false).err(), None);
    }
}

/// `ORDERING_SEED=7 cargo test --lib ordering::simulation::one_seed -- --ignored`, with `ORDERING_PLANT=CutsByLength`.
#[test]
#[ignore = "for a seed that failed"]
fn one_seed() {
    let seed = std::env::var("ORDERING_SEED").ok().and_then(|text| text.parse().ok());
    let planted = std::env::var("ORDERING_PLANT").unwrap_or_default();
    let all = Planted::ALL.into_iter().chain(Planted::ORDERING);
    plant({ all }.find(|fault| format!("{fault:?}") == planted));
    println!("{:?}", play(seed.unwrap_or_default(), false));
    plant(None);
}

/// `ORDERING_SEEDS=0..20000 cargo test --release --lib ordering::simulation -- --ignored`
#[test]
#[ignore = "takes minutes; run it in release"]
fn one_order_survives_many_more() {
    let seeds = std::env::var("ORDERING_SEEDS").unwrap_or_else(|_| "0..20000".into());
    let (first, end) = seeds.split_once("..").unwrap();
    println!("{:?}", play_all(first.parse().unwrap()..end.parse().unwrap()));
}

/// The fault, and whether storms show it best.
const CAUGHT: [(Planted, bool); 6] = [
    (Planted::CommitsEarlierTerm, true),
    (Planted::PromiseBeforeSync, true),
    (Planted::AckBeforeSync, false),
    (Planted::CutsByLength, false),
    (Planted::StaleTerm, true),
    (Planted::CountsWiped, false),
];

/// A fault is caught within so many seeds, wherever one begins.
const SEEDS_MAX: u64 = 500;
/// From so many places one begins.
const BEGINNINGS: u64 = 9;

/// The first seed from `first` on that shows the fault, and how it breaks the order. Not healing in time is no proof.
fn caught_at(fault: Planted, storm: bool, first: u64) -> Option<(u64, String)> {
    plant(Some(fault));
    let breaks = |error: &String| !error.contains("not healed") && !error.contains("not count");
    let caught = (first..first + SEEDS_MAX)
        .find_map(|seed| Some((seed, play(seed, storm).err().filter(breaks)?)));
    plant(None);
    caught
}

#[test]
#[ignore = "takes minutes: make soak"]
fn planted_faults_are_caught_within_500_seeds() {
    std::thread::scope(|scope| {
        let hunts = CAUGHT.map(|(fault, storm)| {
            let begins = (0..BEGINNINGS).map(|beginning| beginning * SEEDS_MAX);
            let hunt = move || {
                begins.map(|first| (first, caught_at(fault, storm, first))).collect::<Vec<_>>()
            };
            (fault, scope.spawn(hunt))
        });
        let caught = hunts.map(|(fault, hunt)| (fault, hunt.join().unwrap()));
        let mut missed = Vec::new();
        for (fault, caught) in caught {
            let took = caught.iter().map(|(first, caught)| Some(caught.as_ref()?.0 - first + 1));
            println!("{fault:?}: {:?}, such as {:?}", took.collect::<Vec<_>>(), caught[0].1);
            if caught.iter().any(|(_, caught)| caught.is_none()) {
                missed.push(fault);
            }
        }
        assert_eq!(missed, [], "the checks did not see them");
    });
}
