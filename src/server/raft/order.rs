//! What the server above sees of Raft: the trait [`TotalOrder`], which sorts what arrives to the rules.

use super::{RaftNode, Role};
use crate::domain::raft_content::{
    AppendEntries, InstallSnapshot, ReadIndex, RequestVote, TimeoutNow,
};
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::server::ServerState;
use crate::server::step::Step;
use crate::server::total_order::{Entry, Seq, TotalOrder};
use crate::storage::snapshot::Contents;
use crate::storage::{LogEvent, LogIndex};

/// Entries that are applied in one step, in bytes: after a start there can be millions, and others want the node, too.
const APPLIED_BYTES: usize = 4 * 1024 * 1024;
/// Terms above this are refused: a damaged number must not use up all that come after it.
/// 2^53 is also where JSON readers of other languages lose count.
const TERM_MAX: u64 = 1 << 53;

/// Reads `content`, and checks the terms in it.
fn parse<T: serde::de::DeserializeOwned>(
    msg: &Message,
    term_of: impl Fn(&T) -> u64,
) -> Result<T, RequestError> {
    let invalid =
        |reason: String| RequestError::InvalidField { message_id: msg.message_id.clone(), reason };
    let content: T = msg.content.parse().map_err(|error| invalid(error.to_string()))?;
    if term_of(&content) > TERM_MAX {
        return Err(invalid(format!("terms count up to {TERM_MAX}, not {}", term_of(&content))));
    }
    Ok(content)
}

impl TotalOrder for RaftNode {
    fn recover(&mut self, record: Message) {
        self.recover_record(record);
    }

    fn recover_snapshot(&mut self, saved: &Contents) -> Result<(), String> {
        RaftNode::recover_snapshot(self, saved)
    }

    fn recovered(&mut self) -> Result<(), String> {
        RaftNode::recovered(self)
    }

    fn handle_message(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        match msg.message_type {
            MessageType::RequestVote => {
                let content = parse(msg, |content: &RequestVote| match content {
                    RequestVote::Request { term, .. }
                    | RequestVote::Answer { term, .. }
                    | RequestVote::Voted { term, .. } => *term,
                })?;
                self.handle_request_vote(from, content, step);
            }
            MessageType::AppendEntries => {
                let content = parse(msg, |content: &AppendEntries| match content {
                    AppendEntries::Request { term, .. }
                    | AppendEntries::Accepted { term, .. }
                    | AppendEntries::Rejected { term, .. } => *term,
                })?;
                self.handle_append_entries(from, content, step)?;
            }
            MessageType::InstallSnapshot => {
                let content = parse(msg, |content: &InstallSnapshot| match content {
                    InstallSnapshot::Request { term, .. }
                    | InstallSnapshot::Answer { term, .. } => *term,
                    InstallSnapshot::Installed { .. } => 0,
                })?;
                self.handle_install_snapshot(from, content, step);
            }
            MessageType::TimeoutNow => {
                let TimeoutNow { term } = parse(msg, |content: &TimeoutNow| content.term)?;
                self.handle_timeout_now(term, step);
            }
            MessageType::ReadIndex => {
                let content = parse(msg, |_: &ReadIndex| 0)?;
                self.handle_read_index(from, content, step);
            }
            _ => {}
        }
        Ok(())
    }

    fn tick(&mut self, step: &Step) {
        let late = self
            .last_tick
            .replace(step.now)
            .is_some_and(|last| step.now.duration_since(last) > self.timing.election_timeout / 2);
        if late {
            self.restart_timers(step.now);
        }
        match &self.role {
            Role::Leader(_) => self.lead_on(step.now),
            _ => self.check_election_timeout(step),
        }
        self.save_again(step);
        self.reads.retry(step.now, self.timing.election_timeout);
        self.ask_again(step);
    }

    fn heartbeat(&mut self, step: &Step) {
        self.send_round(step);
    }

    fn on_synced(&mut self, index: LogIndex) {
        self.journal.on_synced(index);
    }

    fn on_log_event(&mut self, event: &LogEvent) {
        self.note_log_event(event);
    }

    fn link_up(&mut self, node_id: &NodeId, step: &Step) {
        if let Role::Leader(leading) = &mut self.role {
            leading.link_up(node_id, self.log.last());
        }
        if self.leader_id.as_ref() == Some(node_id) {
            self.following.answer_due = true;
            self.reads.ask_all_again();
            self.ask_again(step);
        }
    }

    fn node_failed(&mut self, node_id: &NodeId, step: &Step) {
        // Only a hint, which may be wrong: it shortens the wait, and pre-vote asks the others first.
        if self.leader_id.as_ref() == Some(node_id) && !self.is_leader() {
            self.leader_id = None;
            let heard = self.heard_leader.take();
            self.stand_soon(heard, step.now);
        }
    }

    fn propose(&mut self, msg: Message, step: &Step) -> Option<Seq> {
        let Role::Leader(leading) = &self.role else { return None };
        if !leading.takes_more() {
            return None;
        }
        Some(self.append_own(msg, step))
    }

    fn take_committed(&mut self) -> Vec<Entry> {
        let first = self.last_applied + 1;
        let committed = self.log.between(first, self.commit_index, APPLIED_BYTES);
        self.last_applied += committed.len() as Seq;
        self.log.pack(self.last_applied, self.unpacked_bytes);
        committed
    }

    fn has_committed(&self) -> bool {
        self.commit_index.min(self.log.last()) > self.last_applied
    }

    fn settle(&mut self, step: &Step) {
        self.write_due_marker(step);
        self.finish_saving(step);
        self.count_own_vote(step);
        if self.is_leader() {
            self.advance_commit_index();
            self.advance_membership(step);
            self.advance_transfer(step);
            self.finish_reads(step);
            self.send_entries(step);
        } else {
            self.answer_leader(step);
        }
        while let Some((to, msg)) = self.journal.pop_ready() {
            step.cm.send_to_node(&to, &msg);
        }
    }

    fn resign(&mut self, step: &Step) {
        self.transfer_to_best(step);
    }

    fn leader(&self) -> Option<NodeId> {
        self.leader_id.clone()
    }

    fn term(&self) -> Option<&Term> {
        self.leader_term.as_ref()
    }

    fn state(&self) -> ServerState {
        match &self.role {
            Role::Follower if self.leader_id.is_none() => ServerState::Looking,
            Role::Follower => ServerState::Follower,
            Role::PreCandidate(_) | Role::Candidate(_) => ServerState::ElectionInProgress,
            Role::Leader(_) => ServerState::Leader,
        }
    }

    fn committed(&self) -> Seq {
        self.commit_index
    }

    fn last(&self) -> Seq {
        self.log.last()
    }

    fn is_voter(&self, node_id: &NodeId) -> bool {
        self.configuration().voters.contains_key(node_id)
    }
}
