//! Votes: who may lead (5.2, 5.4.1; thesis 9.6, 6.2).
//!
//! ```text
//!   n1 ── pre-vote, term 5? ──▶ n2, n3      nobody's term changes
//!   n1 ◀── I would ──────────── n2          a majority with n1's own: now in earnest
//!   n1 ── vote, term 5 ───────▶ n2, n3      n1 has its vote for itself on disk
//!   n1 ◀── granted ──────────── n2          n2 has it on disk: a majority, n1 leads in term 5
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::leader::Leading;
use super::{RaftNode, Role, Step};
use crate::domain::raft_content::RequestVote;
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::server::planted::{Planted, is_planted};

/// When the leader is known to be gone, the first one stands within this part of an election timeout.
const SOON: u32 = 8;
/// So many times an election that decided nothing is tried again after a short wait: each is twice as long as the one before.
const SHORT_WAITS: u32 = 4;

/// Who answered a candidate.
#[derive(Debug, Default)]
pub(super) struct Votes {
    granted: BTreeSet<NodeId>,
    refused: BTreeSet<NodeId>,
}

impl RaftNode {
    /// Journals `current_term` and `voted_for`. What is said in this term waits for it.
    pub(super) fn write_vote(&mut self, step: &Step) {
        self.journal.wrote_vote(step.log.append(&self.vote_record()));
    }

    /// The present term and vote.
    pub(super) fn vote_record(&self) -> Message {
        let content =
            RequestVote::Voted { term: self.current_term, voted_for: self.voted_for.clone() };
        self.message(MessageType::RequestVote, &content)
    }

    /// Randomised, so that rarely two stand at once and split the votes (5.2).
    pub(super) fn reset_election_timer(&mut self, now: Instant) {
        let timeout = self.timing.election_timeout;
        self.election_deadline = Some(now + timeout + timeout.mul_f64(self.rng.f64()));
        self.short_waits = 0;
    }

    /// The connection to the leader, heard last at `heard`, is gone. One that was heard a moment ago has died: somebody stands
    /// at once, only not all together. One that fell silent before may be busy, and has some time to come back.
    pub(super) fn stand_soon(&mut self, heard: Option<Instant>, now: Instant) {
        let timeout = self.timing.election_timeout;
        let died = heard.is_some_and(|heard| now.duration_since(heard) < timeout / 2);
        let most = if died { self.soon() } else { timeout };
        self.election_deadline = Some(now + most.mul_f64(self.rng.f64()));
        self.short_waits = SHORT_WAITS;
    }

    /// Within this time somebody stands when the leader died.
    fn soon(&self) -> Duration {
        self.timing.election_timeout / SOON
    }

    /// This server stands: when it does so again if nothing comes of that. Soon, since the leader is gone: votes that were
    /// split, or a voter that had yet to find out, cost no whole timeout. Later each time, for slow networks and disks.
    fn expect_answers(&mut self, now: Instant) {
        if self.short_waits == 0 {
            return self.reset_election_timer(now);
        }
        let wait = self.soon() * 2u32.pow(SHORT_WAITS - self.short_waits) / 2;
        self.short_waits -= 1;
        self.election_deadline = Some(now + wait + wait.mul_f64(self.rng.f64()));
    }

    /// This server would vote for `from`: it does not stand against it at the same moment. Of two that ask each other the higher id
    /// goes on.
    fn give_way(&mut self, from: &NodeId, now: Instant) {
        if matches!(self.role, Role::PreCandidate(_)) && *from > self.id {
            self.role = Role::Follower;
        }
        let until = now + self.soon();
        self.election_deadline = self.election_deadline.map(|deadline| deadline.max(until));
    }

    /// This server slept: the silence is its own.
    pub(super) fn restart_timers(&mut self, now: Instant) {
        self.reset_election_timer(now);
        if let Role::Leader(leading) = &mut self.role {
            leading.forgive_silence(now);
        }
    }

    /// Whether this server votes and counts itself: its id and its disk are in the configuration.
    pub(super) fn is_own_voter(&self) -> bool {
        self.configuration().voters.get(&self.id) == Some(&self.disk)
    }

    /// Whether this server may stand. One that is being removed still may, since only it may have the entry that
    /// says so (thesis 4.2.2, Figure 4.6). It does not count its own vote then.
    fn may_stand(&self) -> bool {
        let mut possible = self.configurations.possible(self.commit_index);
        possible.any(|configuration| configuration.voters.get(&self.id) == Some(&self.disk))
    }

    pub(super) fn check_election_timeout(&mut self, step: &Step) {
        match self.election_deadline {
            None => self.reset_election_timer(step.now),
            Some(deadline) if step.now >= deadline => {
                self.campaign(step);
            }
            Some(_) => {}
        }
    }

    /// Begins an election: first the question whether it could be won (thesis 9.6). A server that is no voter only
    /// goes on waiting.
    pub fn campaign(&mut self, step: &Step) {
        self.expect_answers(step.now);
        if self.is_leader() {
            return;
        }
        self.role = Role::Follower;
        self.leader_id = None;
        if self.may_stand() {
            self.role = Role::PreCandidate(Votes::default());
            self.request_votes(true, false);
            self.count_vote(&self.id.clone(), true, step);
        }
    }

    /// Stands in a new term (5.2). `transfer`: because the leader asked for it.
    pub(super) fn stand(&mut self, transfer: bool, step: &Step) {
        self.adopt_term(self.current_term + 1, step);
        self.voted_for = Some(self.id.clone());
        self.write_vote(step);
        if transfer || self.short_waits == 0 {
            self.reset_election_timer(step.now);
        }
        self.role = Role::Candidate(Votes::default());
        self.request_votes(false, transfer);
    }

    /// Also a candidate's own promise to itself has to be on disk before it asks: after a crash it might give it to another.
    fn request_votes(&mut self, pre_vote: bool, transfer: bool) {
        let term = self.current_term + u64::from(pre_vote);
        for (node_id, disk) in self.configuration().voters.clone() {
            if node_id == self.id {
                continue;
            }
            let content = RequestVote::Request {
                term,
                last_log_index: self.log.last(),
                last_log_term: self.last_term_number(),
                disk,
                pre_vote,
                transfer,
            };
            let msg = self.message(MessageType::RequestVote, &content);
            self.journal.say_when_durable(&node_id, msg);
        }
    }

    pub(super) fn handle_request_vote(&mut self, from: &NodeId, content: RequestVote, step: &Step) {
        match content {
            RequestVote::Request { .. } => self.answer_candidate(from, &content, step),
            RequestVote::Answer { term, asked, vote_granted, pre_vote } => {
                if term > self.current_term {
                    return self.adopt_term(term, step);
                }
                let meant = match &self.role {
                    Role::PreCandidate(_) => pre_vote && asked == self.current_term + 1,
                    Role::Candidate(_) => !pre_vote && asked == self.current_term,
                    Role::Follower | Role::Leader(_) => false,
                };
                if meant {
                    self.count_vote(from, vote_granted, step);
                }
            }
            // A record of a journal, which nobody sends.
            RequestVote::Voted { .. } => {}
        }
    }

    fn answer_candidate(&mut self, from: &NodeId, request: &RequestVote, step: &Step) {
        let RequestVote::Request { term, pre_vote, transfer, .. } = *request else { return };
        let vote_granted = self.would_hear(request, step.now) && {
            if term > self.current_term && !pre_vote {
                self.adopt_term(term, step);
            }
            self.may_vote(from, request)
        };
        if vote_granted && !pre_vote {
            self.voted_for = Some(from.clone());
            self.write_vote(step);
            self.reset_election_timer(step.now);
        } else if vote_granted {
            self.give_way(from, step.now);
        }
        log::debug!("{from} asks for term {term}: {vote_granted} (transfer: {transfer})");
        // With this server's own term, also when that is lower: see the module documentation, "Pre-vote".
        let content =
            RequestVote::Answer { term: self.current_term, asked: term, vote_granted, pre_vote };
        let msg = self.message(MessageType::RequestVote, &content);
        self.journal.say_when_durable(from, msg);
    }

    /// Whether the request is looked at: it is meant for this disk, and no leader is well (thesis 4.2.3).
    fn would_hear(&self, request: &RequestVote, now: Instant) -> bool {
        let RequestVote::Request { disk, transfer, .. } = request else { return false };
        let timeout = self.timing.election_timeout;
        let hears_leader = self.is_leader()
            || self.heard_leader.is_some_and(|heard| now.duration_since(heard) < timeout);
        let meant = *disk == self.disk || is_planted(Planted::WipedVoterVotes);
        meant && (*transfer || !hears_leader)
    }

    /// The rule of Figure 2, the receiver's half of `RequestVote`.
    fn may_vote(&self, from: &NodeId, request: &RequestVote) -> bool {
        let RequestVote::Request { term, last_log_index, last_log_term, pre_vote, .. } = *request
        else {
            return false;
        };
        let is_free = if pre_vote {
            term > self.current_term
        } else {
            let voted_for = self.voted_for.as_ref().filter(|_| !is_planted(Planted::VoteTwice));
            term == self.current_term && voted_for.is_none_or(|voted_for| voted_for == from)
        };
        // 5.4.1: a log is more up to date by the term of its last entry, then by its length.
        let up_to_date =
            (last_log_term, last_log_index) >= (self.last_term_number(), self.log.last());
        is_free && (up_to_date || is_planted(Planted::VoteWithoutLogCheck))
    }

    /// A candidate's own vote counts like the others': when it is on disk.
    pub(super) fn count_own_vote(&mut self, step: &Step) {
        if matches!(self.role, Role::Candidate(_)) && self.journal.vote_is_durable() {
            self.count_vote(&self.id.clone(), true, step);
        }
    }

    fn count_vote(&mut self, from: &NodeId, granted: bool, step: &Step) {
        let configuration = self.configurations.latest();
        let (Role::PreCandidate(votes) | Role::Candidate(votes)) = &mut self.role else { return };
        let side = if granted { &mut votes.granted } else { &mut votes.refused };
        side.insert(from.clone());
        let won = configuration.is_majority(|node_id| votes.granted.contains(node_id));
        let lost = configuration.is_majority(|node_id| votes.refused.contains(node_id));
        match &self.role {
            Role::PreCandidate(_) if won => self.stand(false, step),
            Role::Candidate(_) if won => self.become_leader(step),
            _ if lost => self.role = Role::Follower,
            _ => {}
        }
    }

    /// A majority voted for this server. Its first entry says nothing: with it, what earlier leaders left
    /// is committed (5.4.2, section 8).
    fn become_leader(&mut self, step: &Step) {
        let first = self.log.last() + 1;
        self.role = Role::Leader(Box::new(Leading::new(first)));
        self.leader_id = Some(self.id.clone());
        self.leader_term =
            Some(Term { counter: self.current_term, leader: self.incarnation.clone() });
        // `nextIndex` begins where the log ended before the noop, so that the first request brings it.
        self.follow_configuration(step.now);
        let mut noop = Message::new(MessageType::Noop, self.id.as_str());
        // The first log time of a cluster is its first leader's.
        noop.timestamp = Some(step.wall_ms);
        self.append_own(noop, step);
        let own = self.reads.hand_over();
        for token in own {
            self.read_index(token, step);
        }
        self.send_round(step);
    }
}
