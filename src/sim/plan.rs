//! What a seed decides before anything runs: how big the cluster is, how bad the network and the disks are,
//! which faults come when.

use std::time::Duration;

use super::Options;
use super::agenda::{Host, MS, Micros, SECOND};
use super::checker::{Order, order_of};
use crate::config::{Design, Retain};
use crate::server::ordering::{TAIL_BYTES, UNCOMMITTED_MAX};
use crate::server::total_order::Seq;

/// What is promised under the faults of a run, and so what is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Servers fail one at a time, with time to repair between: everything is checked.
    OneAtATime,
    /// The network falls apart, and servers crash meanwhile: order, convergence, and that nothing acknowledged is lost
    /// for good.
    Partitions,
}

/// One fault of the schedule.
#[derive(Clone, Debug)]
pub struct Fault {
    /// How long to wait before it: since the cluster was repaired ([`Class::OneAtATime`]), or since the fault before it.
    pub pause: Micros,
    /// How long it lasts.
    pub lasts: Micros,
    /// What happens.
    pub kind: FaultKind,
}

/// What can happen to the machines.
#[derive(Clone, Debug)]
pub enum FaultKind {
    /// The server dies; it is started again at the end.
    Crash(Host),
    /// The same, and its disk is gone.
    Wipe(Host),
    /// The server does nothing, then goes on as if nothing had been.
    Sleep(Host),
    /// Nothing gets from the first of each pair to the second.
    Cut {
        /// What kind of cut it is, for the counters.
        shape: &'static str,
        /// The directions that are cut.
        pairs: Vec<(Host, Host)>,
        /// Whether it is healed and cut again all the time, and how often.
        flaps: Option<Micros>,
    },
}

/// How a network behaves when nothing is cut.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The shortest way from machine to machine.
    pub delay: Micros,
    /// How much longer a message may take, usually.
    pub jitter: Micros,
    /// How many of a thousand messages take much longer, and up to how much.
    pub late: (u32, Micros),
    /// How many of a thousand datagrams are lost.
    pub udp_lost: u32,
    /// How many of a thousand datagrams arrive twice.
    pub udp_twice: u32,
    /// The mean time between two connections that break for no reason; 0 for never.
    pub resets: Micros,
    /// How many of a thousand clients that come into a room lose their connection while they are sent its past.
    pub join_resets: u32,
    /// How much may be on its way to a client before a server is told to be patient, in bytes.
    pub client_window: usize,
}

/// How disks behave.
#[derive(Clone, Copy, Debug)]
pub struct Disks {
    /// The shortest and the longest time of a sync.
    pub sync: (Micros, Micros),
    /// How many of a thousand syncs take up to a second.
    pub late: u32,
}

/// How the users of clients behave.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// The mean time between two things that a user does.
    pub pause: Micros,
    /// How many of a thousand of these are comings to and goings from rooms.
    pub wander: u32,
    /// How many of a thousand are ends of sessions, in order or by a crash.
    pub quit: u32,
    /// How many of a thousand messages are sent twice at once by an impatient program.
    pub repeats: u32,
    /// How many of a thousand are readings of a room's past, here again or at another server, where reads are
    /// linearizable.
    pub reads: u32,
}

/// Everything that a seed decides in advance.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is checked.
    pub class: Class,
    /// How many servers.
    pub nodes: usize,
    /// How many clients.
    pub clients: usize,
    /// The rooms, by name.
    pub rooms: Vec<String>,
    /// How many of the servers each server is told of at the start; with 0 they find each other over UDP.
    pub known_peers: usize,
    /// Whether servers broadcast.
    pub discovery: bool,
    /// How long things may go wrong.
    pub lasts: Micros,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// The network.
    pub weather: Weather,
    /// The disks.
    pub disks: Disks,
    /// The users.
    pub habits: Habits,
    /// How far each server's clock runs too fast, in millionths.
    pub drift: Vec<i64>,
    /// Entries that are applied before a snapshot replaces them.
    pub compact_after: u64,
    /// How much of its log the sequencer keeps.
    pub retain: Retain,
    /// How much of the log's end the sequencer keeps in memory, in bytes.
    pub log_tail_bytes: usize,
    /// How many messages the sequencer's leader places before it takes no more until some are committed.
    pub uncommitted_max: Seq,
}

/// A generator for one purpose of a seed, so that one part can change without changing the luck of the others.
pub fn stream(seed: u64, purpose: &str, number: u64) -> fastrand::Rng {
    // FNV-1a: any mixing will do, it only has to stay the same.
    let bytes = purpose.bytes().chain(seed.to_le_bytes()).chain(number.to_le_bytes());
    let mixed = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    fastrand::Rng::with_seed(mixed)
}

/// True `parts` times in a thousand.
pub fn chance(rng: &mut fastrand::Rng, parts: u32) -> bool {
    rng.u32(0..1000) < parts
}

impl Plan {
    /// The plan of `seed`.
    pub fn draw(seed: u64, options: &Options) -> Self {
        let mut rng = stream(seed, "plan", 0);
        let faults = options.faults;
        let class = match rng.u32(0..10) {
            0..3 if faults.cut => Class::Partitions,
            _ => Class::OneAtATime,
        };
        let drawn = [1, 2, 3, 3, 4, 5, 5, 5][rng.usize(0..8)];
        let nodes = options.nodes.unwrap_or(drawn);
        let clients = rng.usize(2..=3 + 2 * nodes);
        let lasts = rng.u64(15..=45) * SECOND;
        let discovery = rng.bool();
        let known_peers = if discovery { rng.usize(0..=nodes) } else { rng.usize(1..=nodes) };
        let mut plan = Self {
            class,
            nodes,
            clients,
            rooms: (1..=rng.usize(2..=3)).map(|n| format!("room{n}")).collect(),
            known_peers,
            discovery,
            lasts,
            faults: Vec::new(),
            weather: Self::weather(&mut rng, options),
            disks: Self::disks(&mut rng, options),
            habits: Self::habits(&mut rng, options),
            drift: (0..nodes).map(|_| rng.i64(-10_000..=10_000)).collect(),
            compact_after: [1, 10, 50, 20_000][stream(seed, "compaction", 0).usize(0..4)],
            retain: Self::retain(seed, options),
            log_tail_bytes: [0, 2_000, 20_000, TAIL_BYTES][stream(seed, "log tail", 0).usize(0..4)],
            uncommitted_max: [2, 10, UNCOMMITTED_MAX][stream(seed, "full", 0).usize(0..3)],
        };
        plan.habits.repeats = Self::repeats(seed, options);
        plan.habits.reads = Self::reads(seed, options);
        let mut rng = stream(seed, "faults", 0);
        plan.faults = match class {
            Class::OneAtATime => plan.failures(&mut rng, options),
            Class::Partitions => plan.partitions(&mut rng, options),
        };
        plan.cut_down(options);
        plan
    }

    fn weather(rng: &mut fastrand::Rng, options: &Options) -> Weather {
        let rough = |rng: &mut fastrand::Rng| rng.u32(0..3) > 0;
        Weather {
            delay: rng.u64(20..2 * MS),
            jitter: [10, MS, 10 * MS, 40 * MS][rng.usize(0..4)],
            late: if rough(rng) { (rng.u32(0..30), rng.u64(1..200) * MS) } else { (0, 1) },
            udp_lost: if options.faults.udp && rough(rng) { rng.u32(0..500) } else { 0 },
            udp_twice: if options.faults.udp && rough(rng) { rng.u32(0..200) } else { 0 },
            resets: if options.faults.reset && rough(rng) { rng.u64(300..5000) * MS } else { 0 },
            join_resets: if options.faults.reset && rng.bool() { rng.u32(0..800) } else { 0 },
            client_window: [500, 2_000, 1 << 20][rng.usize(0..3)],
        }
    }

    fn disks(rng: &mut fastrand::Rng, options: &Options) -> Disks {
        let fast = rng.u64(50..3 * MS);
        let late = if options.faults.disk && rng.bool() { rng.u32(0..50) } else { 0 };
        Disks { sync: (fast, fast * rng.u64(1..10)), late }
    }

    fn habits(rng: &mut fastrand::Rng, options: &Options) -> Habits {
        let quit = if options.faults.client && rng.bool() { rng.u32(0..20) } else { 0 };
        Habits {
            pause: rng.u64(100..1500) * MS,
            wander: if rng.bool() { rng.u32(0..150) } else { 0 },
            quit,
            repeats: 0,
            reads: 0,
        }
    }

    /// How often programs send a message twice; of its own luck.
    fn repeats(seed: u64, options: &Options) -> u32 {
        let mut rng = stream(seed, "repeats", 0);
        if options.faults.client && rng.u32(0..4) == 0 { rng.u32(50..300) } else { 0 }
    }

    /// How often users read a room's past; of its own luck.
    fn reads(seed: u64, options: &Options) -> u32 {
        let mut rng = stream(seed, "reads", 0);
        if options.design == Design::Raft && rng.bool() { rng.u32(50..400) } else { 0 }
    }

    /// How much of its log a server keeps; of its own luck.
    fn retain(seed: u64, options: &Options) -> Retain {
        let mut rng = stream(seed, "retention", 0);
        match rng.u32(0..4) {
            _ if options.design != Design::Sequencer => Retain::Everything,
            0 => Retain::Bytes(rng.u64(1_000..40_000)),
            1 => Retain::Age(Duration::from_secs(rng.u64(1..20))),
            _ => Retain::Everything,
        }
    }

    /// Leaves out what `options` leave out.
    fn cut_down(&mut self, options: &Options) {
        if let Some(keep) = &options.keep {
            let faults = std::mem::take(&mut self.faults).into_iter().enumerate();
            let kept = faults.filter(|(number, _)| keep.contains(number));
            self.faults = kept.map(|(_, fault)| fault).collect();
        }
        if let Some(lasts) = options.lasts {
            self.lasts = lasts.min(self.lasts);
        }
    }

    /// Crashes, sleeps and lost disks, one after the other.
    fn failures(&self, rng: &mut fastrand::Rng, options: &Options) -> Vec<Fault> {
        let count = rng.usize(0..=8);
        // Where a majority decides, one of two voters that lost its disk does not count for ever, and the other one is no
        // majority: nothing goes on, and nothing is promised.
        let wipe_from = if order_of(options.design) == Order::Total { 3 } else { 2 };
        let mut faults = Vec::new();
        for _ in 0..count {
            let node = rng.usize(0..self.nodes);
            let pause = rng.u64(0..3 * SECOND);
            let (short, long) = (rng.u64(20..900) * MS, rng.u64(1000..8000) * MS);
            let lasts = if rng.bool() { short } else { long };
            let sleeps = if rng.bool() { short } else { rng.u64(700..10_000) * MS };
            let options = options.faults;
            let fault = match rng.u32(0..10) {
                // A wiped server that is back before its old connections are known to be dead is taken for a namesake.
                0 if options.wipe && self.nodes >= wipe_from => {
                    (FaultKind::Wipe(node), lasts + SECOND)
                }
                1..5 if options.sleep => (FaultKind::Sleep(node), sleeps),
                _ if options.crash => (FaultKind::Crash(node), lasts),
                _ => continue,
            };
            faults.push(Fault { pause, kind: fault.0, lasts: fault.1 });
        }
        faults
    }

    /// Cuts of all shapes, and crashes and sleeps meanwhile.
    fn partitions(&self, rng: &mut fastrand::Rng, options: &Options) -> Vec<Fault> {
        let count = rng.usize(1..=10);
        let mut faults = Vec::new();
        for _ in 0..count {
            let pause = rng.u64(0..4 * SECOND);
            let node = rng.usize(0..self.nodes);
            let lasts = if rng.bool() { rng.u64(50..1500) } else { rng.u64(1500..12_000) } * MS;
            let kind = match rng.u32(0..10) {
                0 if options.faults.crash => FaultKind::Crash(node),
                1 if options.faults.sleep => FaultKind::Sleep(node),
                _ => self.cut(rng, node),
            };
            faults.push(Fault { pause, lasts, kind });
        }
        faults
    }

    fn cut(&self, rng: &mut fastrand::Rng, node: Host) -> FaultKind {
        let hosts = self.nodes + self.clients;
        let with_clients = rng.bool();
        let other = (node + 1 + rng.usize(0..self.nodes.max(2) - 1)) % self.nodes;
        let both = |a: Host, b: Host| [(a, b), (b, a)];
        let flaps = Some(rng.u64(50..2500) * MS);
        let (shape, pairs) = match rng.u32(0..4) {
            0 => {
                let sides: Vec<bool> = (0..hosts).map(|_| rng.bool()).collect();
                let machines = if with_clients { hosts } else { self.nodes };
                let apart = |a: &Host, b: &Host| a != b && sides[*a] != sides[*b];
                let pairs = (0..machines)
                    .flat_map(|a| (0..machines).map(move |b| (a, b)))
                    .filter(|(a, b)| apart(a, b))
                    .collect();
                ("split", pairs)
            }
            1 => ("one-way cut", vec![(node, other)]),
            2 => {
                let machines = if with_clients { hosts } else { self.nodes };
                (
                    "isolation",
                    (0..machines).filter(|b| *b != node).flat_map(|b| both(node, b)).collect(),
                )
            }
            _ => ("flapping link", both(node, other).to_vec()),
        };
        let flaps = flaps.filter(|_| shape == "flapping link");
        FaultKind::Cut { shape, pairs, flaps }
    }
}
