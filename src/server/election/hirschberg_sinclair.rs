//! Leader election on a ring (Hirschberg and Sinclair, 1980).
//!
//! ```text
//!   n5 <- probe - n1 - probe -> n2     In phase k a candidate probes 2^k hops each way.
//!   |                           |      A higher id swallows the probe; the last hop replies.
//!   n4 ------------------------ n3     Two replies: phase k + 1. Own probe back: leader.
//! ```
//!
//! The winner sends an announcement once round the ring, to the right.
//!
//! Promise: at most one leader in a term, and while the ring stands still the highest id among its
//! members. Price: at most `8n(1 + ceil(log2 n))` messages and n for the announcement. Needs: unique ids,
//! links that keep order, a ring that its members agree on for long enough.
//!
//! Probes and replies counted in 200 elections for each column, with ids anywhere on the ring: averages when
//! one server starts, some do at any moments, or all at once, and the most in any election
//! (`cargo run --release --example election_counts`):
//!
//! ```text
//! servers   bound  one starts  some start  all start    most  of bound
//!       1       8           0          0          0       0        0%
//!       2      32           9          9         10      10       31%
//!       3      72          20         21         23      23       32%
//!       4      96          24         27         29      32       33%
//!       5     160          45         50         52      55       34%
//!       8     256          61         72         79      89       35%
//!      16     640         138        187        205     231       36%
//!      32    1536         301        472        509     578       38%
//!      64    3584         634       1122       1218    1358       38%
//!     100    6400        1101       2051       2209    2451       38%
//!     128    8192        1255       2610       2823    3098       38%
//!     256   18432        2595       6021       6456    7104       39%
//!     512   40960        5254      13658      14438   15588       38%
//!    1000   88000       10604      30184      31394   33642       38%
//!    1024   90112       10414      30697      32243   34738       39%
//! ```
//!
//! The paper's ring never changes; ours does. What we add:
//!
//! * **Rounds.** Each election has a `counter`. Messages of a lower one are ignored; a higher one is adopted,
//!   and what was under way in the old one is dropped. A [`Term`] is the counter with the winner's
//!   incarnation: two sides of a partition may both elect in round 5, and yet no term has two leaders.
//!   A round is over for whoever knows an outcome of it or of a later one.
//! * **Restarts.** When the ring changes under a candidate, or no outcome comes in time, it starts a higher
//!   round. A server that only passed probes on stops following the old leader then, so that its caller elects.
//! * **No endless collisions.** Starting together is harmless: it is the same round, and the highest id wins
//!   it. What hurts is to cut a round short by the next one. Hence the patience starts anew with each
//!   round that is heard of, doubles while no round ends, and differs from server to server. And whoever passes
//!   on the probes of a round waits for its outcome, too, before it stands itself: in a ring of 16, where a round takes
//!   longer than it takes servers to look for a leader, they kept cutting each other short for ever.
//!
//! Leaves out: rings of more than 4,096 servers; who is alive and when to elect, which
//! [`ServerNode`](crate::server) decides. A lost announcement is not sent again: heartbeats carry the term.

use std::cmp::Ordering;
use std::time::Instant;

use super::{COUNTER_MAX, Election, ElectionTiming};
use crate::domain::content::{ElectionContent, Side};
use crate::domain::ids::name_fault;
use crate::domain::{Incarnation, Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::network::Transport;
use crate::server::ServerState;
use crate::server::planted::{Planted, is_planted};

/// Phases above this are refused, which limits a ring to 2^12 servers. Where servers disagree about the
/// ring, probes circle and replies come back, phase after phase; this is what ends it.
const PHASE_MAX: u32 = 12;

/// The diagram's `ElectionModule`.
#[derive(Debug)]
pub struct ElectionModule {
    /// The diagram's `Node`.
    pub(in crate::server) node: NodeId,
    incarnation: Incarnation,
    timing: ElectionTiming,
    left: Option<NodeId>,
    right: Option<NodeId>,
    /// The highest round heard of.
    counter: u64,
    /// Whether this server stands in that round.
    standing: bool,
    /// Its phase.
    k: u32,
    /// Replies to the probes of this phase, 0 to 2.
    reply_counter: u32,
    /// The side that the first of them came from: no side counts twice.
    replied: Option<Side>,
    /// The last outcome heard of.
    term: Option<Term>,
    /// Whether its winner is followed.
    following: bool,
    /// When to give up on the round; `None` while none is open.
    deadline: Option<Instant>,
    /// Rounds given up since the last outcome.
    given_up: u32,
}

impl ElectionModule {
    /// A server that knows of no election and has no neighbours yet.
    pub fn new(node: NodeId, incarnation: Incarnation, timing: ElectionTiming) -> Self {
        Self {
            node,
            incarnation,
            timing,
            left: None,
            right: None,
            counter: 0,
            standing: false,
            k: 0,
            reply_counter: 0,
            replied: None,
            term: None,
            following: false,
            deadline: None,
            given_up: 0,
        }
    }

    /// The phase of its candidacy, from 0.
    pub fn k(&self) -> u32 {
        self.k
    }

    /// How many sides have replied in this phase, 0 to 2.
    pub fn reply_counter(&self) -> u32 {
        self.reply_counter
    }

    /// The highest round heard of, 0 before the first.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// The diagram's `ConstructElectionMessage`: the probe of candidate `id` in phase `k` on its `d`-th hop.
    pub fn construct_election_message(&self, id: &NodeId, k: u32, d: u64, toward: Side) -> Message {
        let (id, counter) = (id.clone(), self.counter);
        self.message(&ElectionContent::Probe { id, counter, k, d, toward })
    }

    /// The diagram's `ConstructReplyMessage`: nobody on this side outranks `id` in phase `k`.
    pub fn construct_reply_message(&self, id: &NodeId, k: u32, d: u64, toward: Side) -> Message {
        let (id, counter) = (id.clone(), self.counter);
        self.message(&ElectionContent::Reply { id, counter, k, d, toward })
    }

    /// The diagram's `ConstructLeaderAnnoucementMessage`: `id` won, and this is its term.
    pub fn construct_leader_announcement_message(&self, id: &NodeId, term: &Term) -> Message {
        self.message(&ElectionContent::Announcement { id: id.clone(), term: term.clone() })
    }

    fn message(&self, content: &ElectionContent) -> Message {
        Message::new(MessageType::Election, self.node.as_str()).saying(content)
    }

    /// The diagram's `ParseMessage`: the content of an ELECTION message, if such a one can be.
    pub fn parse_message(msg: &Message) -> Result<ElectionContent, RequestError> {
        let invalid = |reason: String| RequestError::InvalidField {
            message_id: msg.message_id.clone(),
            reason,
        };
        if msg.message_type != MessageType::Election {
            return Err(invalid(format!("{} is not ELECTION", msg.message_type)));
        }
        let content: ElectionContent =
            msg.content.parse().map_err(|error| invalid(error.to_string()))?;
        let (ElectionContent::Probe { id, .. }
        | ElectionContent::Reply { id, .. }
        | ElectionContent::Announcement { id, .. }) = &content;
        if let Some(fault) = name_fault(id.as_str()) {
            return Err(invalid(format!("the candidate's id {fault}")));
        }
        let counter = match &content {
            ElectionContent::Probe { k, d, .. } | ElectionContent::Reply { k, d, .. }
                if !(1..=hops(*k)).contains(d) =>
            {
                return Err(invalid(format!("a message of phase {k} has no hop {d}")));
            }
            ElectionContent::Probe { counter, .. } | ElectionContent::Reply { counter, .. } => {
                *counter
            }
            ElectionContent::Announcement { id, term } if term.leader.node_id() != *id => {
                return Err(invalid(format!("{id} cannot win the term {term}")));
            }
            ElectionContent::Announcement { term, .. } => term.counter,
        };
        if !(1..=COUNTER_MAX).contains(&counter) {
            return Err(invalid(format!("rounds count from 1 to {COUNTER_MAX}, not {counter}")));
        }
        Ok(content)
    }

    fn neighbor(&self, side: Side) -> Option<&NodeId> {
        match side {
            Side::Left => self.left.as_ref(),
            Side::Right => self.right.as_ref(),
        }
    }

    fn send(&self, side: Side, msg: &Message, cm: &dyn Transport) {
        if let Some(neighbor) = self.neighbor(side) {
            cm.send_to_node(neighbor, msg);
        }
    }

    /// Whether a message of round `counter` still matters; a higher round is adopted on the way.
    fn enter_round(&mut self, counter: u64, now: Instant) -> bool {
        let over = self.term.as_ref().is_some_and(|term| counter <= term.counter);
        if over || counter < self.counter {
            return false;
        }
        if counter > self.counter {
            self.counter = counter;
            self.drop_candidacy();
        }
        if self.deadline.is_none() {
            self.deadline = Some(now + self.timing.patience(&self.node, self.given_up));
        }
        true
    }

    fn drop_candidacy(&mut self) {
        (self.standing, self.k, self.reply_counter, self.replied) = (false, 0, 0, None);
        self.deadline = None;
    }

    /// Stands in the current round, from phase 0.
    fn stand(&mut self, now: Instant, cm: &dyn Transport) {
        self.drop_candidacy();
        self.standing = true;
        self.deadline = Some(now + self.timing.patience(&self.node, self.given_up));
        if self.left.is_none() || self.right.is_none() {
            self.become_leader(cm);
        } else {
            self.probe_both_ways(cm);
        }
    }

    fn probe_both_ways(&self, cm: &dyn Transport) {
        for side in [Side::Left, Side::Right] {
            self.send(side, &self.construct_election_message(&self.node, self.k, 1, side), cm);
        }
    }

    fn become_leader(&mut self, cm: &dyn Transport) {
        let term = Term { counter: self.counter, leader: self.incarnation.clone() };
        let msg = self.construct_leader_announcement_message(&self.node, &term);
        self.conclude(term);
        self.send(Side::Right, &msg, cm);
    }

    /// Takes over an outcome. A candidacy in a later round goes on.
    fn conclude(&mut self, term: Term) {
        if self.counter <= term.counter {
            self.counter = term.counter;
            self.drop_candidacy();
        }
        self.term = Some(term);
        self.following = true;
        self.given_up = 0;
    }

    fn handle_probe(&mut self, probe: Probe, now: Instant, cm: &dyn Transport) {
        let Probe { id, k, d, toward } = probe;
        match id.cmp(&self.node) {
            // Swallow it: this server outranks the candidate.
            Ordering::Less if self.standing => {}
            Ordering::Less => self.stand(now, cm),
            // Our own probe came all the way round: nobody outranks us. An echo from a former life, in
            // a round in which this one does not stand, proves nothing.
            Ordering::Equal if self.standing && k == self.k => self.become_leader(cm),
            Ordering::Equal => {}
            Ordering::Greater if d < hops(k) => {
                let msg = self.construct_election_message(&id, k, d + 1, toward);
                self.send(toward, &msg, cm);
            }
            Ordering::Greater => {
                let back = toward.opposite();
                self.send(back, &self.construct_reply_message(&id, k, 1, back), cm);
            }
        }
    }

    fn handle_reply(&mut self, id: &NodeId, (k, d): (u32, u64), toward: Side, cm: &dyn Transport) {
        if *id != self.node {
            // A reply that has come as far as its probe went has missed the candidate: the ring changed.
            if d < hops(k) {
                self.send(toward, &self.construct_reply_message(id, k, d + 1, toward), cm);
            }
        } else if self.standing && k == self.k && self.replied != Some(toward) {
            self.replied = Some(toward);
            self.reply_counter += 1;
            if self.reply_counter == 2 && self.k < PHASE_MAX {
                (self.k, self.reply_counter, self.replied) = (self.k + 1, 0, None);
                self.probe_both_ways(cm);
            }
        }
    }

    fn handle_announcement(&mut self, id: &NodeId, term: Term, cm: &dyn Transport) {
        if term.counter < self.counter || Some(&term) <= self.term.as_ref() {
            return; // Stale, or once round already: the winner stops its own here.
        }
        let msg = self.construct_leader_announcement_message(id, &term);
        self.conclude(term);
        // Of a former life of this server: it has been everywhere, and nobody leads.
        if *id != self.node {
            self.send(Side::Right, &msg, cm);
        }
    }
}

/// A probe of the current round.
struct Probe {
    id: NodeId,
    k: u32,
    d: u64,
    toward: Side,
}

/// How far a probe of phase `k` travels: 2^k hops, 0 for a phase that no ring needs.
fn hops(k: u32) -> u64 {
    if k <= PHASE_MAX { 1 << k } else { 0 }
}

/// Who stands on either side of `node`: the same server twice in a ring of two, nobody when it is alone.
fn neighbors(node: &NodeId, members: &[NodeId]) -> (Option<NodeId>, Option<NodeId>) {
    let n = members.len();
    match members.iter().position(|id| id == node) {
        Some(at) if n > 1 => {
            (Some(members[(at + n - 1) % n].clone()), Some(members[(at + 1) % n].clone()))
        }
        _ => (None, None),
    }
}

impl Election for ElectionModule {
    fn handle_message(&mut self, msg: &Message, now: Instant, cm: &dyn Transport) {
        match Self::parse_message(msg) {
            Ok(ElectionContent::Probe { id, counter, k, d, toward }) => {
                if self.enter_round(counter, now) {
                    self.handle_probe(Probe { id, k, d, toward }, now, cm);
                }
            }
            Ok(ElectionContent::Reply { id, counter, k, d, toward }) => {
                if self.enter_round(counter, now) {
                    self.handle_reply(&id, (k, d), toward, cm);
                }
            }
            Ok(ElectionContent::Announcement { id, term }) => {
                self.handle_announcement(&id, term, cm);
            }
            Err(_) => {}
        }
    }

    fn start_election(&mut self, now: Instant, cm: &dyn Transport) {
        self.drop_candidacy();
        // When all rounds are used up there is no leader any more: no term may be won twice.
        if self.counter < COUNTER_MAX {
            self.counter += 1;
            self.stand(now, cm);
        }
    }

    fn members_changed(&mut self, members: &[NodeId], now: Instant, cm: &dyn Transport) {
        let (left, right) = neighbors(&self.node, members);
        if (&left, &right) == (&self.left, &self.right) {
            return;
        }
        (self.left, self.right) = (left, right);
        if self.standing {
            self.start_election(now, cm);
        } else {
            // What a round's candidate sent may be lost with the neighbour: whoever looks for a leader elects.
            self.deadline = None;
        }
    }

    fn is_under_way(&self) -> bool {
        self.deadline.is_some()
    }

    fn tick(&mut self, now: Instant, cm: &dyn Transport) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.given_up += 1;
        self.deadline = None;
        if self.standing {
            self.start_election(now, cm);
        } else {
            self.forget_leader(); // The round's candidate is lost; whoever looks for a leader elects.
        }
    }

    fn observe_term(&mut self, term: &Term) -> bool {
        let higher = Some(term) > self.term.as_ref() && term.counter <= COUNTER_MAX
            || is_planted(Planted::StaleTerm) && Some(term) != self.term.as_ref();
        if higher {
            self.conclude(term.clone());
        }
        higher
    }

    fn forget_leader(&mut self) {
        self.following = false;
    }

    fn state(&self) -> ServerState {
        match self.leader() {
            _ if self.standing => ServerState::ElectionInProgress,
            Some(leader) if leader == self.node => ServerState::Leader,
            Some(_) => ServerState::Follower,
            None => ServerState::Looking,
        }
    }

    fn term(&self) -> Option<&Term> {
        self.term.as_ref()
    }

    fn leader(&self) -> Option<NodeId> {
        let term = self.term.as_ref().filter(|_| self.following)?;
        let leader = term.leader.node_id();
        // A former life of this server won that term; this one did not.
        (leader != self.node || term.leader == self.incarnation).then_some(leader)
    }
}

#[cfg(test)]
mod tests;
