//! Reading without writing: the read index (section 8; thesis 6.4).
//!
//! ```text
//!   n2: how far must I be? ──▶ leader: committed up to 41, but do I still lead?
//!                              leader ── round 7 ──▶ all;  ◀── round 7 ── a majority: yes
//!   n2 ◀────────── 41 ──────── leader             n2 answers its client when it has applied 41
//! ```
//!
//! A leader that was replaced and does not know it would answer with what was committed long ago. So it asks a majority in
//! a round that begins after the question; and it answers nothing before an entry of its own term is committed, since
//! until then it does not know how far earlier leaders had come.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{RaftNode, Role, Step};
use crate::domain::raft_content::ReadIndex;
use crate::domain::{Incarnation, MessageType, NodeId};
use crate::server::planted::{Planted, is_planted};
use crate::server::total_order::Seq;

/// A question that waits at the leader.
#[derive(Debug)]
pub(super) struct Read {
    /// Who asked, if not the leader itself.
    from: Option<(NodeId, Incarnation)>,
    token: u64,
    /// Once a majority has answered this round, the leader led when it was asked.
    round: u64,
    /// What was committed when it was asked, or when the term's first entry was.
    index: Option<Seq>,
}

/// The questions of this server.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Not answered yet, and not in the own leader's list.
    open: BTreeSet<u64>,
    /// Of these, those that no leader was asked yet, or in vain.
    to_ask: BTreeSet<u64>,
    answered: Vec<(u64, Seq)>,
    /// When to ask anew what was not answered: a leader that stepped down forgot it.
    retry_at: Option<Instant>,
}

impl Reads {
    /// Asks everything again once in `timeout`.
    pub(super) fn retry(&mut self, now: Instant, timeout: Duration) {
        if self.retry_at.is_none_or(|at| now >= at) {
            self.retry_at = Some(now + timeout);
            self.ask_all_again();
        }
    }

    /// Whom they were asked of leads no longer, or its answers are lost.
    pub(super) fn ask_all_again(&mut self) {
        self.to_ask.clone_from(&self.open);
    }

    /// This server led, and these of its own questions are open.
    pub(super) fn take_over(&mut self, tokens: impl Iterator<Item = u64>) {
        self.open.extend(tokens);
        self.ask_all_again();
    }

    /// This server leads: it answers its own questions.
    pub(super) fn hand_over(&mut self) -> BTreeSet<u64> {
        self.to_ask.clear();
        std::mem::take(&mut self.open)
    }

    fn ask(&mut self, token: u64) {
        self.open.insert(token);
        self.to_ask.insert(token);
    }

    fn answer(&mut self, token: u64, index: Seq) {
        if self.open.remove(&token) {
            self.to_ask.remove(&token);
            self.answered.push((token, index));
        }
    }
}

impl super::leader::Leading {
    /// The open questions of the leader itself. Those of others are asked again by them.
    pub(super) fn into_own_reads(self) -> impl Iterator<Item = u64> {
        self.reads.into_iter().filter(|read| read.from.is_none()).map(|read| read.token)
    }
}

impl RaftNode {
    /// Asks how far this server must have applied the log to answer a read that begins now. `token` names the
    /// question and is used once in a life; [`take_reads`](Self::take_reads) brings the answer, which is asked for
    /// again across changes of leader.
    pub fn read_index(&mut self, token: u64, step: &Step) {
        if self.is_leader() {
            self.take_read(None, token, step);
        } else if is_planted(Planted::ReadFromFollower) {
            self.reads.answered.push((token, self.commit_index));
        } else {
            self.reads.ask(token);
            self.ask_again(step);
        }
    }

    /// The answers since the last call: a question's token, and the place that has to be applied first.
    pub fn take_reads(&mut self) -> Vec<(u64, Seq)> {
        std::mem::take(&mut self.reads.answered)
    }

    fn take_read(&mut self, from: Option<(NodeId, Incarnation)>, token: u64, step: &Step) {
        let Role::Leader(leading) = &mut self.role else { return };
        let round = leading.round + 1;
        // One round serves all that are asked before it begins.
        leading.reads.push_back(Read { from, token, round, index: None });
        self.finish_reads(step);
    }

    /// Sends the questions that are not on their way to the leader.
    pub(super) fn ask_again(&mut self, step: &Step) {
        let Some(leader) = self.leader_id.clone().filter(|leader| *leader != self.id) else {
            return;
        };
        for token in std::mem::take(&mut self.reads.to_ask) {
            let content = ReadIndex::Request { reader: self.incarnation.clone(), token };
            step.cm.send_to_node(&leader, &self.message(MessageType::ReadIndex, &content));
        }
    }

    pub(super) fn handle_read_index(&mut self, from: &NodeId, content: ReadIndex, step: &Step) {
        match content {
            ReadIndex::Request { reader, token } => {
                self.take_read(Some((from.clone(), reader)), token, step);
            }
            ReadIndex::Answer { reader, token, index } if reader == self.incarnation => {
                self.reads.answer(token, index);
            }
            ReadIndex::Answer { .. } => {}
        }
    }

    /// Leader: answers what can be answered, and begins a round for what nobody was asked yet.
    pub(super) fn finish_reads(&mut self, step: &Step) {
        let (configuration, commit_index) = (self.configurations.latest(), self.commit_index);
        let Role::Leader(leading) = &mut self.role else { return };
        let unconfirmed = is_planted(Planted::ReadUnconfirmed);
        if commit_index < leading.first {
            return;
        }
        for read in &mut leading.reads {
            read.index.get_or_insert(commit_index);
        }
        let (progress, id) = (&leading.progress, &self.id);
        let confirmed = |round: u64| {
            configuration.is_majority(|node_id| {
                node_id == id || progress.get(node_id).is_some_and(|known| known.round >= round)
            })
        };
        let mut done = Vec::new();
        while let Some(read) = leading.reads.front() {
            if !unconfirmed && (leading.round < read.round || !confirmed(read.round)) {
                break;
            }
            done.extend(leading.reads.pop_front());
        }
        let ask = leading.reads.back().is_some_and(|read| read.round > leading.round);
        for Read { from, token, index, .. } in done {
            let index = index.unwrap_or(commit_index);
            match from {
                None => self.reads.answered.push((token, index)),
                Some((from, reader)) => {
                    let content = ReadIndex::Answer { reader, token, index };
                    let msg = self.message(MessageType::ReadIndex, &content);
                    step.cm.send_to_node(&from, &msg);
                }
            }
        }
        if ask {
            self.send_round(step);
        }
    }
}
