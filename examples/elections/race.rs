//! One election among servers that all are well. Every message takes the same time, a delay, and steps take none.

#![expect(clippy::disallowed_methods, reason = "one fixed start for virtual time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use roundtable::domain::{Incarnation, Message, NodeId};
use roundtable::network::transport::Outbox;
use roundtable::server::election::{BullyElection, Election, ElectionModule, ElectionTiming};
use roundtable::server::raft::{RaftNode, RaftTiming};
use roundtable::server::step::Step;
use roundtable::server::total_order::TotalOrder;
use roundtable::storage::MemoryLog;

/// The time that a message takes. Only Raft's timeouts are measured by it.
const DELAY: Duration = Duration::from_millis(1);
/// No election takes longer, in delays.
const DELAYS_MAX: u64 = 1_000_000;

/// What an election cost until every server followed the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) messages: u64,
    pub(crate) delays: u64,
}

/// In which order the ids stand on the ring.
pub(crate) enum Ring {
    /// As our clusters make it.
    InOrder,
    /// High ids far from each other, so that many survive each phase: places in the order of their bits read backwards.
    Spread,
    /// Anywhere, by this seed.
    Drawn(u64),
}

impl Ring {
    fn of(&self, ids: &[NodeId]) -> Vec<NodeId> {
        let mut places: Vec<usize> = (0..ids.len()).collect();
        match self {
            Self::InOrder => {}
            Self::Spread => {
                let bits = ids.len().next_power_of_two().trailing_zeros();
                // Place 0 gets the highest id, the place half round the next one.
                let mut by_rank = places.clone();
                by_rank.sort_by_key(|place| place.reverse_bits() >> (usize::BITS - bits));
                for (rank, place) in by_rank.into_iter().enumerate() {
                    places[place] = ids.len() - 1 - rank;
                }
            }
            Self::Drawn(seed) => Rng::with_seed(*seed).shuffle(&mut places),
        }
        places.into_iter().map(|place| ids[place].clone()).collect()
    }
}

fn ids(n: usize) -> Vec<NodeId> {
    (1..=n).map(|number| format!("n{number}").into()).collect()
}

/// All stand at once, or the highest id `alone`.
pub(crate) fn hirschberg_sinclair(n: usize, ring: &Ring, alone: bool) -> Outcome {
    let ring = ring.of(&ids(n));
    let highest = format!("n{n}").into();
    let starters = ring.iter().filter(|id| !alone || **id == highest).cloned().collect();
    elect(&ring, starters, |id| {
        let incarnation = Incarnation::new(id, 1, 0);
        Box::new(ElectionModule::new(id.clone(), incarnation, ElectionTiming::default()))
    })
}

/// The server at place `starter` stands, counted from the lowest id.
pub(crate) fn bully(n: usize, starter: usize) -> Outcome {
    let ids = ids(n);
    elect(&ids, vec![ids[starter].clone()], |id| {
        let (incarnation, timing) = (Incarnation::new(id, 1, 0), ElectionTiming::default());
        Box::new(BullyElection::new(id.clone(), incarnation, String::new(), timing))
    })
}

fn elect(
    ring: &[NodeId],
    starters: Vec<NodeId>,
    make: impl Fn(&NodeId) -> Box<dyn Election>,
) -> Outcome {
    let mut nodes: BTreeMap<&NodeId, Box<dyn Election>> =
        ring.iter().map(|id| (id, make(id))).collect();
    let (outbox, now) = (Outbox::new(), Instant::now());
    for node in nodes.values_mut() {
        node.members_changed(ring, now, &outbox);
    }
    for starter in &starters {
        nodes.get_mut(starter).expect("one of them").start_election(now, &outbox);
    }
    let (mut delays, mut agreed, mut messages) = (0, None, 0);
    let mut under_way = outbox.take_to_nodes();
    while !under_way.is_empty() {
        delays += 1;
        messages += under_way.len() as u64;
        for (to, msg) in under_way {
            let node = to.as_ref().and_then(|to| nodes.get_mut(to)).expect("one receiver");
            node.handle_message(&msg, now, &outbox);
        }
        under_way = outbox.take_to_nodes();
        if agree(nodes.values().map(|node| node.leader())) {
            agreed = agreed.or(Some(delays));
        }
    }
    Outcome { messages, delays: agreed.expect("they agree") }
}

/// Whether all follow the same one.
fn agree(mut leaders: impl Iterator<Item = Option<NodeId>>) -> bool {
    let first = leaders.next().flatten();
    first.is_some() && leaders.all(|leader| leader == first)
}

/// `n` voters with a timeout of so many delays. So many of them stand at the beginning, or, with `None`, each when its timeout
/// fires. Disks take no time.
pub(crate) fn raft(n: usize, timeout: u32, starters: Option<usize>, seed: u64) -> Outcome {
    let mut cluster = Voters::new(n, timeout, seed);
    for at in 0..n {
        cluster.step(at, |node, step| match starters {
            Some(starters) if at < starters => node.campaign(step),
            _ => node.tick(step), // Draws the first timeout.
        });
    }
    let mut rng = Rng::with_seed(seed);
    let (mut messages, mut delays) = (0, 0);
    // When none stands yet, no timer fires before the timeout: so far it goes in longer steps, none of which looks like sleep.
    let quiet = if starters.is_none() { u64::from(timeout) } else { 0 };
    while delays < DELAYS_MAX {
        let step = u64::from(timeout / 5).min(quiet.saturating_sub(delays + 1)).max(1);
        delays += step;
        cluster.now += DELAY * step as u32;
        for (from, to, msg) in cluster.arriving(&mut rng) {
            messages += 1;
            cluster.step(to, |node, step| {
                node.handle_message(&from, &msg, step).expect("a message of Raft");
            });
        }
        if agree(cluster.nodes.iter().map(|(node, _)| node.leader())) {
            return Outcome { messages, delays };
        }
        for at in 0..n {
            cluster.step(at, TotalOrder::tick);
        }
    }
    panic!("no leader among {n} servers with a timeout of {timeout} delays, seed {seed}");
}

struct Voters {
    ids: Vec<NodeId>,
    nodes: Vec<(RaftNode, MemoryLog)>,
    /// From whom, to whom, what.
    under_way: Vec<(NodeId, usize, Message)>,
    now: Instant,
}

impl Voters {
    fn new(n: usize, timeout: u32, seed: u64) -> Self {
        let ids = ids(n);
        let disks: BTreeMap<NodeId, String> =
            ids.iter().map(|id| (id.clone(), format!("disk-{id}"))).collect();
        let timing = RaftTiming { election_timeout: DELAY * timeout };
        let node = |(at, id): (usize, &NodeId)| {
            let rng = Rng::with_seed(seed * 1000 + at as u64);
            let incarnation = Incarnation::new(id, 1, 0);
            let node = RaftNode::new(id.clone(), incarnation, disks[id].clone(), rng, timing);
            (node, MemoryLog::new())
        };
        let nodes = ids.iter().enumerate().map(node).collect();
        let mut voters = Self { nodes, under_way: Vec::new(), now: Instant::now(), ids };
        for at in 0..n {
            voters.step(at, |node, step| assert!(node.set_first_members(&disks, step)));
        }
        voters
    }

    /// What was under way, in any order that keeps the order of each link: else the same candidate would be first everywhere.
    fn arriving(&mut self, rng: &mut Rng) -> Vec<(NodeId, usize, Message)> {
        let mut arriving = std::mem::take(&mut self.under_way);
        let mut places: BTreeMap<(NodeId, usize), u64> = BTreeMap::new();
        arriving.sort_by_cached_key(|(from, to, _)| {
            *places.entry((from.clone(), *to)).or_insert_with(|| rng.u64(..))
        });
        arriving
    }

    /// Lets one server take a step, syncs its disk, and sends what it says.
    fn step(&mut self, at: usize, act: impl FnOnce(&mut RaftNode, &Step)) {
        let outbox = Outbox::new();
        let (node, log) = &mut self.nodes[at];
        let step = Step { now: self.now, wall_ms: 0, cm: &outbox, log };
        act(node, &step);
        node.settle(&step);
        node.on_synced(log.appended());
        node.settle(&step);
        for (to, msg) in outbox.take_to_nodes() {
            let to = self.ids.iter().position(|id| Some(id) == to.as_ref()).expect("one receiver");
            self.under_way.push((self.ids[at].clone(), to, msg));
        }
    }
}
