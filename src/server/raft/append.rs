//! The follower's half of replication (5.3; Figure 2, the receiver's half of `AppendEntries`).
//!
//! ```text
//!   leader  … 4 4 5 5 6        request: after place 7, of term 5, comes [6]
//!   n2      … 4 4 5            too short: rejected, my log ends at 6
//!   n3      … 4 4 4 4          place 7 is of term 4: rejected, that term begins at 5
//!   n4      … 4 4 5 5 ⟵ 6     agreed: appended, acknowledged when it is synced
//! ```

use super::{RaftNode, Role, Step};
use crate::domain::raft_content::AppendEntries;
use crate::domain::{Incarnation, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::server::planted::{Planted, is_planted};
use crate::server::total_order::{Entry, Seq};

impl RaftNode {
    pub(super) fn handle_append_entries(
        &mut self,
        from: &NodeId,
        content: AppendEntries,
        step: &Step,
    ) -> Result<(), RequestError> {
        match content {
            AppendEntries::Request {
                term,
                leader,
                prev_log_index,
                prev_log_term,
                entries,
                leader_commit,
                round,
            } => {
                check_entries(prev_log_index, term, &entries)?;
                if !self.hear_leader(from, term, &leader, step) {
                    self.reject(from, prev_log_index, None);
                } else if self.matches(prev_log_index, prev_log_term) {
                    self.answer_round(round, entries.is_empty());
                    self.accept(prev_log_index, entries, leader_commit, step)?;
                } else {
                    self.following.round = self.following.round.max(round);
                    let conflict_term = self.term_number(prev_log_index);
                    self.reject(from, prev_log_index, conflict_term);
                }
            }
            AppendEntries::Accepted { term, match_index, round, disk } => {
                if self.is_current(term, step) {
                    self.handle_accepted(from, (match_index, round), &disk, step);
                }
            }
            AppendEntries::Rejected {
                term,
                prev_log_index,
                conflict_term,
                conflict_index,
                round,
                disk,
            } => {
                if self.is_current(term, step) {
                    let (about, hint) = ((prev_log_index, round), (conflict_term, conflict_index));
                    self.handle_rejected(from, about, hint, &disk, step);
                }
            }
        }
        Ok(())
    }

    /// Whether `from` leads in the present term, as its request says. Then it is followed, and heard.
    pub(super) fn hear_leader(
        &mut self,
        from: &NodeId,
        term: u64,
        leader: &Incarnation,
        step: &Step,
    ) -> bool {
        if !self.is_current(term, step) || self.is_leader() {
            return false;
        }
        // 5.2: a candidate that hears of the term's leader follows it.
        self.role = Role::Follower;
        if self.leader_id.as_ref() != Some(from) {
            self.leader_id = Some(from.clone());
            self.leader_term = Some(Term { counter: term, leader: leader.clone() });
            self.reads.ask_all_again();
        }
        self.heard_leader = Some(step.now);
        self.reset_election_timer(step.now);
        true
    }

    /// Whether this log has the leader's entry at `seq`. What was forgotten is committed, so the leader has it.
    fn matches(&self, seq: Seq, term: u64) -> bool {
        let has = seq <= self.commit_index || self.term_number(seq) == Some(term);
        // Without a hole: that one would not even look right.
        has || (is_planted(Planted::AppendsWithoutMatch) && seq <= self.log.last())
    }

    /// An answer to a new round is owed at once. One to entries waits until they are synced.
    fn answer_round(&mut self, round: u64, empty: bool) {
        self.following.answer_due |= empty || round > self.following.round;
        self.following.round = self.following.round.max(round);
    }

    fn accept(
        &mut self,
        prev_log_index: Seq,
        entries: Vec<Entry>,
        leader_commit: Seq,
        step: &Step,
    ) -> Result<(), RequestError> {
        let end = prev_log_index + entries.len() as Seq;
        if is_planted(Planted::CutWithoutConflict) && self.log.last() > prev_log_index {
            self.log.cut_after(prev_log_index);
            self.journal.cut_after(prev_log_index);
            self.configurations.cut_after(prev_log_index);
        }
        for entry in entries {
            let seq = entry.seq.unwrap_or(0);
            let known = self.log.term_at(seq).filter(|_| seq > self.log.base());
            if seq <= self.commit_index && known.is_some_and(|known| known != entry.term.as_ref()) {
                // Never with a true leader: refuse rather than take back what was shown to people.
                let reason = format!("the entry at {seq} conflicts with a committed one");
                return Err(RequestError::InvalidField { message_id: String::new(), reason });
            }
            self.insert(entry, step);
        }
        self.following.matched = self.following.matched.max(end);
        // "Index of last new entry": what follows it in this log may be another leader's.
        self.commit_index = self.commit_index.max(leader_commit.min(self.following.matched));
        Ok(())
    }

    fn reject(&mut self, to: &NodeId, prev_log_index: Seq, term: Option<u64>) {
        let first_of = |term: u64| {
            let places = (self.commit_index + 1..=prev_log_index).rev();
            places.take_while(|seq| self.term_number(*seq) == Some(term)).last()
        };
        let content = AppendEntries::Rejected {
            term: self.current_term,
            prev_log_index,
            conflict_term: term,
            conflict_index: term.and_then(first_of).unwrap_or(self.log.last() + 1),
            round: self.following.round,
            disk: self.disk.clone(),
        };
        let msg = self.message(MessageType::AppendEntries, &content);
        self.journal.say_when_durable(to, msg);
    }

    /// Tells the leader how far the log is its own and on disk, once for all that came since the last time.
    pub(super) fn answer_leader(&mut self, step: &Step) {
        let Some(leader) = self.leader_id.clone() else { return };
        let durable = if is_planted(Planted::AppendAckBeforeSync) {
            self.log.last()
        } else {
            self.journal.durable()
        };
        let match_index = self.following.matched.min(durable);
        let news = match_index > self.following.answered || self.following.answer_due;
        if !news || !self.journal.vote_is_durable() {
            return;
        }
        self.following.answered = match_index;
        self.following.answer_due = false;
        let content = AppendEntries::Accepted {
            term: self.current_term,
            match_index,
            round: self.following.round,
            disk: self.disk.clone(),
        };
        step.cm.send_to_node(&leader, &self.message(MessageType::AppendEntries, &content));
    }
}

/// Whether `entries` can follow `prev`, from a leader of `term`.
fn check_entries(prev: Seq, term: u64, entries: &[Entry]) -> Result<(), RequestError> {
    for (seq, entry) in (prev + 1..).zip(entries) {
        let of_term = entry.term.as_ref().map_or(0, |term| term.counter);
        if entry.seq != Some(seq) || of_term > term {
            let reason = format!(
                "place {seq} of a leader's log in term {term} cannot hold an entry of place {:?} and term {of_term}",
                entry.seq
            );
            return Err(RequestError::InvalidField { message_id: String::new(), reason });
        }
    }
    Ok(())
}
