//! The Bully election (Garcia-Molina, 1982).
//!
//! ```text
//!   n1 ── ELECTION ──▶ n2, n3       who stands asks every higher id whether it is alive
//!   n1 ◀─ ELECTION_OK ── n2         whoever is says so, and stands itself
//!         n2 ── ELECTION ──▶ n3     (n3 is dead: no answer)
//!   all ◀─ COORDINATOR ── n2        who gets no answer in time leads, and tells everyone
//! ```
//!
//! Promise: at most one leader in a term, and in the end the highest id among the live servers. Price: with n
//! live servers `n - 1` messages when the highest one stands, the others having noticed nothing; at most `n^2 - 1`
//! when the lowest one starts a round: a question and an answer for each pair, then `n - 1` announcements. Needs: unique
//! ids, a link between any two servers, links that keep order, an answer within a known time.
//!
//! Counted (`cargo run --release --example election_counts`), and beside it the averages of the other election. Both
//! with their announcements:
//!
//! ```text
//! servers    best   worst   Hirschberg and Sinclair: one starts   all start
//!       2       1       3                                    11          12
//!       3       2       8                                    23          26
//!       4       3      15                                    28          33
//!       5       4      24                                    50          57
//!       8       7      63                                    69          87
//!      16      15     255                                   154         221
//!      32      31    1023                                   333         541
//!     100      99    9999                                  1201        2309
//!     512     511  262143                                  5766       14950
//! ```
//!
//! The paper has no terms and trusts its timeouts. We do not:
//!
//! * **Rounds.** Each election has a `counter`, as with [Hirschberg and Sinclair](super::hirschberg_sinclair): a
//!   higher one is adopted, and who is asked in it stands in it, too. Whoever asks in an old one is told that a higher
//!   id lives, and, if that is the leader, who leads. A [`Term`] is the counter with the winner's incarnation.
//! * **Lost answers.** A timeout is no proof of death, so two servers may lead for a moment. They do so in
//!   different terms, and the higher term wins. A higher id that stands meanwhile is not stopped by a lower one's
//!   announcement: it counts on, and wins the higher term. One that follows a lower one stands again; its caller
//!   sees to that.
//! * **Restarts.** A candidate whose live servers change starts a higher round. So does one that was told to wait and
//!   waited in vain: the higher one may have died in mid-election. It waits twice as long as that one waits for
//!   its own answers, so that it does not cut a round short that would end.
//!
//! Leaves out: who is alive and when to elect, which [`ServerNode`](crate::server) decides, and the paper's
//! second algorithm (Invitation). A lost announcement is not sent again: heartbeats carry the term.
//!
//! Source: Garcia-Molina, Elections in a Distributed Computing System (1982), section 4; total-order-chat.txt,
//! section 4.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Instant;

use serde::Serialize;

use super::{COUNTER_MAX, Election, ElectionTiming};
use crate::domain::content::{Coordinator, ElectionOk, Question};
use crate::domain::ids::name_fault;
use crate::domain::{Incarnation, Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::network::Transport;
use crate::server::ServerState;
use crate::server::planted::{Planted, is_planted};

/// How far a candidate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has asked the higher ids; no answer until then: it leads.
    Asking(Instant),
    /// A higher id lives; no outcome until then: it asks again.
    Waiting(Instant),
}

/// What one server says to another in an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BullyMessage {
    /// ELECTION.
    Question(Question),
    /// ELECTION_OK.
    Ok(ElectionOk),
    /// COORDINATOR.
    Coordinator(Coordinator),
}

/// The Bully, beside the diagram's `ElectionModule`.
#[derive(Debug)]
pub struct BullyElection {
    node: NodeId,
    incarnation: Incarnation,
    address: String,
    timing: ElectionTiming,
    /// The other live servers.
    others: BTreeSet<NodeId>,
    /// The highest round heard of.
    counter: u64,
    /// How far this server is when it stands in that round.
    stage: Option<Stage>,
    /// The last outcome heard of.
    term: Option<Term>,
    /// Whether its winner is followed.
    following: bool,
    /// Rounds given up since the last outcome.
    given_up: u32,
}

impl BullyElection {
    /// A server that knows of no election and of no other server yet. Others are told that it can be dialled at
    /// `address`, `host:port`.
    pub fn new(
        node: NodeId,
        incarnation: Incarnation,
        address: String,
        timing: ElectionTiming,
    ) -> Self {
        Self {
            node,
            incarnation,
            address,
            timing,
            others: BTreeSet::new(),
            counter: 0,
            stage: None,
            term: None,
            following: false,
            given_up: 0,
        }
    }

    /// How far its candidacy is, if it stands.
    pub fn stage(&self) -> Option<Stage> {
        self.stage
    }

    /// The highest round heard of, 0 before the first.
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// What `msg` says, if it is one of the Bully's messages.
    pub fn parse_message(msg: &Message) -> Result<BullyMessage, RequestError> {
        let invalid = |reason: String| RequestError::InvalidField {
            message_id: msg.message_id.clone(),
            reason,
        };
        let unreadable = |error: serde_json::Error| invalid(error.to_string());
        let parsed = match msg.message_type {
            MessageType::Election => {
                BullyMessage::Question(msg.content.parse().map_err(unreadable)?)
            }
            MessageType::ElectionOk => BullyMessage::Ok(msg.content.parse().map_err(unreadable)?),
            MessageType::Coordinator => {
                BullyMessage::Coordinator(msg.content.parse().map_err(unreadable)?)
            }
            other => return Err(invalid(format!("{other} is of no election"))),
        };
        let (id, counter) = match &parsed {
            BullyMessage::Question(question) => (question.candidate.clone(), question.counter),
            BullyMessage::Ok(ok) => (ok.id.clone(), ok.counter),
            BullyMessage::Coordinator(news) => (news.term.leader.node_id(), news.term.counter),
        };
        if let Some(fault) = name_fault(id.as_str()) {
            return Err(invalid(format!("the server's id {fault}")));
        }
        if !(1..=COUNTER_MAX).contains(&counter) {
            return Err(invalid(format!("rounds count from 1 to {COUNTER_MAX}, not {counter}")));
        }
        Ok(parsed)
    }

    fn send<T: Serialize>(&self, to: &NodeId, kind: MessageType, content: &T, cm: &dyn Transport) {
        cm.send_to_node(to, &Message::new(kind, self.node.as_str()).saying(content));
    }

    fn announce(&self, to: &NodeId, term: &Term, cm: &dyn Transport) {
        let news = Coordinator { term: term.clone(), address: self.address.clone() };
        self.send(to, MessageType::Coordinator, &news, cm);
    }

    /// Stands in the current round: asks the higher ids, or leads when there are none.
    fn stand(&mut self, now: Instant, cm: &dyn Transport) {
        let higher = (Bound::Excluded(&self.node), Bound::Unbounded);
        let question = Question { candidate: self.node.clone(), counter: self.counter };
        let mut asked = false;
        for id in self.others.range::<NodeId, _>(higher) {
            self.send(id, MessageType::Election, &question, cm);
            asked = true;
        }
        if asked {
            let patience = self.timing.patience(&self.node, self.given_up);
            self.stage = Some(Stage::Asking(now + patience));
        } else {
            self.become_leader(cm);
        }
    }

    fn become_leader(&mut self, cm: &dyn Transport) {
        self.stage = None;
        // A lower id may have won this very round meanwhile.
        let least = self.term.as_ref().map_or(1, |term| term.counter + 1);
        self.counter = self.counter.max(least);
        if self.counter > COUNTER_MAX {
            self.counter = COUNTER_MAX;
            return; // All rounds are used up: no term may be won twice.
        }
        let term = Term { counter: self.counter, leader: self.incarnation.clone() };
        for id in &self.others {
            self.announce(id, &term, cm);
        }
        self.conclude(term);
    }

    /// Takes over an outcome. It ends a candidacy of this round or an earlier one, unless this server outranks
    /// the winner.
    fn conclude(&mut self, term: Term) {
        if self.counter <= term.counter {
            self.counter = term.counter;
            if term.leader.node_id() >= self.node {
                self.stage = None;
            }
        }
        self.term = Some(term);
        self.following = true;
        self.given_up = 0;
    }

    fn handle_question(&mut self, question: &Question, now: Instant, cm: &dyn Transport) {
        if question.candidate >= self.node {
            return; // Only higher ids are asked.
        }
        let over = self.term.as_ref().is_some_and(|term| question.counter <= term.counter);
        let is_open = !over && question.counter >= self.counter;
        let stands_in_it = self.stage.is_some() && question.counter <= self.counter;
        self.counter = self.counter.max(question.counter);
        let ok = ElectionOk { id: self.node.clone(), counter: self.counter };
        self.send(&question.candidate, MessageType::ElectionOk, &ok, cm);
        match &self.term {
            _ if stands_in_it => {}
            _ if is_open => self.stand(now, cm),
            // The asker has missed its announcement. One of this very round is on its way.
            Some(term)
                if question.counter < term.counter && self.state() == ServerState::Leader =>
            {
                self.announce(&question.candidate, term, cm);
            }
            _ if self.leader().is_none() => self.start_election(now, cm),
            _ => {} // Heartbeats bring the outcome.
        }
    }

    fn handle_ok(&mut self, ok: &ElectionOk, now: Instant) {
        if let Some(Stage::Asking(_)) = self.stage
            && ok.id > self.node
            && ok.counter >= self.counter
        {
            self.counter = ok.counter;
            let timing = ElectionTiming { election_timeout: 2 * self.timing.election_timeout };
            let patience = timing.patience(&self.node, self.given_up);
            self.stage = Some(Stage::Waiting(now + patience));
        }
    }
}

impl Election for BullyElection {
    fn handle_message(&mut self, msg: &Message, now: Instant, cm: &dyn Transport) {
        match Self::parse_message(msg) {
            Ok(BullyMessage::Question(question)) => self.handle_question(&question, now, cm),
            Ok(BullyMessage::Ok(ok)) => self.handle_ok(&ok, now),
            Ok(BullyMessage::Coordinator(news)) => _ = self.observe_term(&news.term),
            Err(_) => {}
        }
    }

    fn start_election(&mut self, now: Instant, cm: &dyn Transport) {
        self.stage = None;
        if self.counter < COUNTER_MAX {
            self.counter += 1;
            self.stand(now, cm);
        }
    }

    fn members_changed(&mut self, members: &[NodeId], now: Instant, cm: &dyn Transport) {
        let others = members.iter().filter(|id| **id != self.node).cloned().collect();
        let changed = self.others != others;
        self.others = others;
        if changed && self.stage.is_some() {
            self.start_election(now, cm);
        }
    }

    fn tick(&mut self, now: Instant, cm: &dyn Transport) {
        match self.stage {
            Some(Stage::Asking(until)) if now >= until => self.become_leader(cm),
            Some(Stage::Waiting(until)) if now >= until => {
                self.given_up += 1;
                self.start_election(now, cm);
            }
            _ => {}
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
            _ if self.stage.is_some() => ServerState::ElectionInProgress,
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
