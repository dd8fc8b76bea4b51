//! Counts the messages of elections, announcements aside: `cargo run --release --example election_counts`.
//!
//! Hirschberg and Sinclair against their bound `8n(1 + ceil(log2 n))`. For each size of the ring: ids anywhere on it, 200 elections each with one server that starts, all at once,
//! and some at any moments; messages in any order that keeps the order of each link. Every election must
//! end with the highest id within the bound, or the program panics. It draws from one seed, so the table is
//! the same each time. The three columns in the middle are averages.
//!
//! The Bully beside it, announcements included (n - 1, one for each other server): the best case, when the highest
//! id of n live servers starts alone, and the worst one, when all start at once: n - 1 and n^2 - 1, or the program
//! panics. When the leader has died and was counted, n is one less.
#![expect(clippy::disallowed_methods, reason = "one fixed start for virtual time")]

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Instant;

use fastrand::Rng;
use roundtable::domain::{Incarnation, Message, NodeId};
use roundtable::network::transport::Outbox;
use roundtable::server::election::{BullyElection, Election, ElectionModule, ElectionTiming};

const SEED: u64 = 1980;
const RUNS: u64 = 200;

/// Who starts an election.
#[derive(Clone, Copy)]
enum Starters {
    One,
    Some,
    All,
}

fn main() {
    let mut rng = Rng::with_seed(SEED);
    println!(
        "servers   bound  one starts  some start  all start    most  of bound   bully: best    worst"
    );
    for n in [1_usize, 2, 3, 4, 5, 8, 16, 32, 64, 100, 128, 256, 512, 1000, 1024] {
        let bound = 8 * n as u64 * (1 + u64::from(n.next_power_of_two().trailing_zeros()));
        let mut most = 0;
        print!("{n:7} {bound:7} ");
        for starters in [Starters::One, Starters::Some, Starters::All] {
            let counts: Vec<u64> = (0..RUNS).map(|_| elect(n, starters, &mut rng)).collect();
            most = counts.iter().copied().fold(most, u64::max);
            print!(" {:10.0}", counts.iter().sum::<u64>() as f64 / RUNS as f64);
        }
        print!(" {most:7} {:8.0}%", 100.0 * most as f64 / bound as f64);
        println!(" {:13} {:8}", bully(n, n - 1..n), bully(n, 0..n));
        assert!(most <= bound, "{most} messages among {n} servers, the bound is {bound}");
    }
}

/// A Bully election among `n` servers of which `starters` stand at the same time; returns the number of messages.
fn bully(n: usize, starters: Range<usize>) -> u64 {
    let ids: Vec<NodeId> = (0..n).map(id).collect();
    let module = |id: &NodeId| {
        let incarnation = Incarnation::new(id, 1, 0);
        BullyElection::new(id.clone(), incarnation, String::new(), ElectionTiming::default())
    };
    let mut nodes: BTreeMap<NodeId, BullyElection> =
        ids.iter().map(|id| (id.clone(), module(id))).collect();
    let (outbox, now, mut sent) = (Outbox::new(), Instant::now(), 0);
    for node in nodes.values_mut() {
        node.members_changed(&ids, now, &outbox);
    }
    for starter in &ids[starters] {
        nodes.get_mut(starter).expect("one of them").start_election(now, &outbox);
    }
    let mut queue = VecDeque::from(outbox.take_to_nodes());
    while let Some((to, msg)) = queue.pop_front() {
        sent += 1;
        let to = to.expect("each message has one receiver");
        nodes.get_mut(&to).expect("one of them").handle_message(&msg, now, &outbox);
        queue.extend(outbox.take_to_nodes());
    }
    for node in nodes.values() {
        assert_eq!((node.leader(), node.counter()), (ids.last().cloned(), 1), "{n} servers agree");
    }
    let n = n as u64;
    assert!((n - 1..n * n).contains(&sent), "{sent} messages among {n} servers");
    sent
}

/// One election among `n` servers; returns the number of probes and replies.
fn elect(n: usize, starters: Starters, rng: &mut Rng) -> u64 {
    let mut order: Vec<usize> = (0..n).collect();
    rng.shuffle(&mut order);
    let mut ring = Ring::of(&order);
    let mut waiting: Vec<usize> = (0..n).collect();
    rng.shuffle(&mut waiting);
    waiting.truncate(match starters {
        Starters::One => 1,
        Starters::Some => rng.usize(1..=n),
        Starters::All => n,
    });
    while !waiting.is_empty() || !ring.busy.is_empty() {
        let start_next = matches!(starters, Starters::All) || ring.busy.is_empty() || rng.bool();
        if let Some(at) = waiting.pop_if(|_| start_next) {
            // A server that has heard of the election does not start another.
            if ring.nodes[at].counter() == 0 {
                ring.step(at, |node, now, cm| node.start_election(now, cm));
            }
        } else {
            ring.deliver_one(rng);
        }
    }
    let highest = ring.nodes.iter().filter_map(Election::leader).max();
    for node in &ring.nodes {
        assert_eq!((node.leader(), node.counter()), (highest.clone(), 1), "{n} servers agree");
    }
    assert_eq!(highest, Some(id(n - 1)), "the highest id leads");
    ring.sent - if n > 1 { n as u64 } else { 0 } // The announcement, once round.
}

fn id(number: usize) -> NodeId {
    format!("n{number}").into()
}

/// Servers in their order on the ring, and a queue in each direction of each link.
struct Ring {
    ids: Vec<NodeId>,
    nodes: Vec<ElectionModule>,
    /// At `2 * from` to the left neighbour, at `2 * from + 1` to the right one.
    queues: Vec<VecDeque<Message>>,
    /// The queues that are not empty, in no order.
    busy: Vec<usize>,
    now: Instant,
    sent: u64,
}

impl Ring {
    fn of(order: &[usize]) -> Self {
        let ids: Vec<NodeId> = order.iter().map(|number| id(*number)).collect();
        let module = |id: &NodeId| {
            ElectionModule::new(id.clone(), Incarnation::new(id, 1, 0), ElectionTiming::default())
        };
        let mut ring = Self {
            nodes: ids.iter().map(module).collect(),
            queues: vec![VecDeque::new(); 2 * ids.len()],
            busy: Vec::new(),
            now: Instant::now(),
            sent: 0,
            ids,
        };
        let ids = ring.ids.clone();
        for at in 0..ids.len() {
            ring.step(at, |node, now, cm| node.members_changed(&ids, now, cm));
        }
        ring
    }

    /// Lets one server take a step, and queues what it sends.
    fn step(&mut self, at: usize, act: impl FnOnce(&mut ElectionModule, Instant, &Outbox)) {
        let outbox = Outbox::new();
        act(&mut self.nodes[at], self.now, &outbox);
        for (to, msg) in outbox.take_to_nodes() {
            // In a ring of two both neighbours are the same, and so is the link to them.
            let right = to.as_ref() == Some(&self.ids[(at + 1) % self.ids.len()]);
            let queue = 2 * at + usize::from(right);
            if self.queues[queue].is_empty() {
                self.busy.push(queue);
            }
            self.queues[queue].push_back(msg);
            self.sent += 1;
        }
    }

    /// Delivers the next message of any link.
    fn deliver_one(&mut self, rng: &mut Rng) {
        let chosen = rng.usize(..self.busy.len());
        let queue = self.busy[chosen];
        let n = self.ids.len();
        let to = if queue % 2 == 1 { queue / 2 + 1 } else { queue / 2 + n - 1 } % n;
        let msg = self.queues[queue].pop_front().expect("a busy queue");
        if self.queues[queue].is_empty() {
            self.busy.swap_remove(chosen);
        }
        self.step(to, |node, now, cm| node.handle_message(&msg, now, cm));
    }
}
