//! Servers come and go, one at a time (thesis 4).
//!
//! ```text
//!   {n1 n2 n3}  ──▶  {n1 n2 n3} + n4 learns  ──▶  {n1 n2 n3 n4}      each arrow is one entry of the log,
//!                                                                   and waits until the one before is committed
//!   n1 wiped:  {n1/a n2 n3}  ──▶  {n2 n3} + n1/b learns  ──▶  {n1/b n2 n3}
//! ```
//!
//! Majorities of two configurations that differ by one voter overlap, so no two leaders can be elected in one term. A
//! configuration counts as soon as it is appended. A leader that removed itself leads on until that is committed, without
//! counting itself (4.2.2).

use std::fmt;

use super::{RaftNode, Role, Step};
use crate::domain::raft_content::{Configuration, Learner};
use crate::domain::{Message, MessageType, NodeId};
use crate::server::planted::{Planted, is_planted};
use crate::server::total_order::Seq;

/// One change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// `node_id` with this disk gets the log. A voter or learner of this id with another disk ends with it.
    AddLearner {
        /// Who.
        node_id: NodeId,
        /// The random name of its data folder.
        disk: String,
        /// Whether it becomes a voter as soon as it has caught up.
        promote: bool,
    },
    /// A learner that has caught up becomes a voter.
    Promote {
        /// Who.
        node_id: NodeId,
    },
    /// A voter or learner leaves.
    Remove {
        /// Who.
        node_id: NodeId,
    },
}

/// Why a leader does not change the configuration now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    /// Ask the leader.
    NotLeader,
    /// Another change is not committed, or nothing of this term is, or leadership is handed over: try again.
    NotYet,
    /// The learner has not caught up: try again.
    NotCaughtUp,
    /// The configuration says so already, or no voter would be left.
    NoChange,
}

impl fmt::Display for ChangeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotLeader => "this server does not lead; ask the leader",
            Self::NotYet => "another change is under way; try again",
            Self::NotCaughtUp => "the learner has not caught up; try again",
            Self::NoChange => "the configuration says so already, or would be left without voters",
        })
    }
}

impl std::error::Error for ChangeRefused {}

impl RaftNode {
    /// Leader: changes the configuration, from this moment on. The change holds when the returned place is committed.
    pub fn change_membership(
        &mut self,
        change: &MembershipChange,
        step: &Step,
    ) -> Result<Seq, ChangeRefused> {
        let Role::Leader(leading) = &self.role else { return Err(ChangeRefused::NotLeader) };
        // The second half closes the hole that one-at-a-time changes had at first (Ongaro, 2015).
        let settled = self.configurations.latest_seq() <= self.commit_index
            && leading.first <= self.commit_index;
        if leading.transfer.is_some() || !(settled || is_planted(Planted::ChangeWhileUncommitted)) {
            return Err(ChangeRefused::NotYet);
        }
        if let MembershipChange::Promote { node_id } = change
            && !(leading.progress.get(node_id).is_some_and(|known| known.caught_up)
                && leading.hears(node_id, self.timing.election_timeout, step.now))
        {
            return Err(ChangeRefused::NotCaughtUp);
        }
        let next = changed(self.configuration(), change).ok_or(ChangeRefused::NoChange)?;
        let members = Message::new(MessageType::Members, self.id.as_str()).saying(&next);
        let seq = self.append_own(members, step);
        self.follow_configuration(step.now);
        Ok(seq)
    }

    /// What a leader does of itself: it replaces wiped members, lets learners in that have caught up, and steps
    /// down when it was removed.
    pub(super) fn advance_membership(&mut self, step: &Step) {
        if self.configurations.latest_seq() > self.commit_index {
            return;
        }
        // Who was removed is told so before it is forgotten.
        self.send_entries(step);
        self.follow_configuration(step.now);
        if !self.is_own_voter() {
            self.hand_over_removed(step);
            return;
        }
        if let Some(change) = self.due_change() {
            _ = self.change_membership(&change, step);
        }
    }

    fn due_change(&self) -> Option<MembershipChange> {
        let Role::Leader(leading) = &self.role else { return None };
        let configuration = self.configurations.latest();
        leading.progress.iter().find_map(|(node_id, progress)| {
            let learner = configuration.learners.get(node_id);
            let promote = learner.is_none_or(|learner| learner.promote);
            let node_id = node_id.clone();
            if let Some(disk) = progress.other_disk.clone() {
                return Some(MembershipChange::AddLearner { node_id, disk, promote });
            }
            (learner.is_some() && promote && progress.caught_up)
                .then_some(MembershipChange::Promote { node_id })
        })
    }
}

/// `configuration` after `change`; `None` when that is no change, or leaves no voter.
fn changed(configuration: &Configuration, change: &MembershipChange) -> Option<Configuration> {
    let mut next = configuration.clone();
    match change {
        MembershipChange::AddLearner { node_id, disk, promote } => {
            if configuration.disk_of(node_id) == Some(disk) {
                return None;
            }
            next.voters.remove(node_id);
            let learner = Learner { disk: disk.clone(), promote: *promote };
            next.learners.insert(node_id.clone(), learner);
        }
        MembershipChange::Promote { node_id } => {
            let learner = next.learners.remove(node_id)?;
            next.voters.insert(node_id.clone(), learner.disk);
        }
        MembershipChange::Remove { node_id } => {
            next.voters.remove(node_id);
            next.learners.remove(node_id);
        }
    }
    (next != *configuration && !next.voters.is_empty()).then_some(next)
}
