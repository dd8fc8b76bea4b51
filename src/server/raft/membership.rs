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
//!
//! A learner becomes a voter by itself, when it keeps up, if it was added to become one: by an operator, or because it is a voter that
//! was wiped. A removed server is remembered with its disk, so that it does not come back by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use super::{RaftNode, Role, Step};
use crate::domain::raft_content::{Configuration, Learner};
use crate::domain::{Message, MessageType, NodeId};
use crate::server::planted::{Planted, is_planted};
use crate::server::total_order::Seq;

/// So many removed servers are remembered: each was removed by an operator. One that is forgotten, and still runs, becomes a
/// learner once more, and no voter.
const REMOVED_MAX: usize = 64;

/// One change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipChange {
    /// `node_id` with this disk gets the log. A voter or learner of this id with another disk ends with it; a learner with this
    /// disk only changes by `promote`.
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

/// Why a leader does not change the configuration now, in words for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeRefused {
    /// Ask the leader.
    NotLeader,
    /// The change at this place is not committed.
    Uncommitted(Seq),
    /// Nothing of the leader's own term is committed.
    NewLeader,
    /// Leadership is handed over.
    HandsOver,
    /// This learner has not caught up, or is not heard.
    NotCaughtUp(NodeId),
    /// This one is a voter already.
    IsVoter(NodeId),
    /// This one learns already.
    IsLearner(NodeId),
    /// This one with the same disk was removed, and only an operator lets it in again.
    WasRemoved(NodeId),
    /// This one takes no part.
    NoMember(NodeId),
    /// No voter would be left without this one.
    LastVoter(NodeId),
    /// Those that would be left could not decide anything.
    NoMajority {
        /// Who would vote.
        left: Vec<NodeId>,
        /// Who of them is not heard.
        missing: Vec<NodeId>,
    },
}

impl ChangeRefused {
    /// Whether the same can succeed a moment later, without anybody doing anything.
    pub fn passes(&self) -> bool {
        use ChangeRefused::{HandsOver, NewLeader, NotCaughtUp, NotLeader, Uncommitted};
        matches!(self, NotLeader | Uncommitted(_) | NewLeader | HandsOver | NotCaughtUp(_))
    }
}

impl fmt::Display for ChangeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader => write!(f, "this server does not lead; ask the leader"),
            Self::Uncommitted(seq) => write!(
                f,
                "the change at place {seq} is not committed yet, and only one is made at a time; say it again when it is"
            ),
            Self::NewLeader => write!(
                f,
                "the leader is new and has not committed an entry of its own term yet; say it again in a moment"
            ),
            Self::HandsOver => {
                write!(f, "the leader hands over; say it again when another one leads")
            }
            Self::NotCaughtUp(id) => {
                write!(f, "{id} has not caught up; it becomes a voter by itself when it has")
            }
            Self::IsVoter(id) => write!(f, "{id} is a voter already"),
            Self::IsLearner(id) => write!(f, "{id} learns already"),
            Self::WasRemoved(id) => {
                write!(f, "{id} was removed; an operator can let it in again: member add {id}")
            }
            Self::NoMember(id) => write!(f, "{id} is no member; member list shows who is"),
            Self::LastVoter(id) => write!(f, "{id} is the only voter; add another one first"),
            Self::NoMajority { left, missing } => write!(
                f,
                "of {}, who would be left to vote, {} of {} would have to be there; missing: {}; start what is missing, \
                 or remove that first",
                names(left),
                left.len() / 2 + 1,
                left.len(),
                names(missing)
            ),
        }
    }
}

/// `n1, n2`.
fn names(ids: &[NodeId]) -> String {
    ids.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

impl std::error::Error for ChangeRefused {}

impl RaftNode {
    /// Leader: changes the configuration, from this moment on. The change holds when the returned place is committed.
    pub fn change_membership(
        &mut self,
        change: &MembershipChange,
        step: &Step,
    ) -> Result<Seq, ChangeRefused> {
        self.may_change()?;
        let next = changed(self.configuration(), change)?;
        self.can_decide(change, &next, step.now)?;
        let members = Message::new(MessageType::Members, self.id.as_str()).saying(&next);
        let seq = self.append_own(members, step);
        self.follow_configuration(step.now);
        if let MembershipChange::AddLearner { node_id, promote: true, .. } = change {
            self.judge_anew(node_id, step.now);
        }
        Ok(seq)
    }

    /// Whether a change may be made at all now.
    fn may_change(&self) -> Result<(), ChangeRefused> {
        let Role::Leader(leading) = &self.role else { return Err(ChangeRefused::NotLeader) };
        if leading.transfer.is_some() {
            return Err(ChangeRefused::HandsOver);
        }
        if is_planted(Planted::ChangeWhileUncommitted) {
            return Ok(());
        }
        // Closes the hole that one-at-a-time changes had at first (Ongaro, 2015).
        if leading.first > self.commit_index {
            return Err(ChangeRefused::NewLeader);
        }
        let latest = self.configurations.latest_seq();
        if latest > self.commit_index { Err(ChangeRefused::Uncommitted(latest)) } else { Ok(()) }
    }

    /// Whether those that vote in `next` can commit `change`, and more, as far as the leader hears them.
    fn can_decide(
        &self,
        change: &MembershipChange,
        next: &Configuration,
        now: Instant,
    ) -> Result<(), ChangeRefused> {
        let Role::Leader(leading) = &self.role else { return Err(ChangeRefused::NotLeader) };
        let timeout = self.timing.election_timeout;
        let is_there =
            |node_id: &NodeId| *node_id == self.id || leading.hears(node_id, timeout, now);
        match change {
            MembershipChange::AddLearner { .. } => Ok(()),
            MembershipChange::Promote { node_id } => {
                let caught_up = leading.progress.get(node_id).is_some_and(|known| known.caught_up);
                let is_in_time = caught_up && is_there(node_id);
                is_in_time.then_some(()).ok_or_else(|| ChangeRefused::NotCaughtUp(node_id.clone()))
            }
            // A learner's going changes no majority.
            MembershipChange::Remove { .. } if next.voters == self.configuration().voters => Ok(()),
            MembershipChange::Remove { .. } if next.is_majority(is_there) => Ok(()),
            MembershipChange::Remove { .. } => {
                let left: Vec<NodeId> = next.voters.keys().cloned().collect();
                let missing = left.iter().filter(|node_id| !is_there(node_id)).cloned().collect();
                Err(ChangeRefused::NoMajority { left, missing })
            }
        }
    }

    /// A learner that shall vote from now on shows again that it keeps up: that it did once says nothing.
    fn judge_anew(&mut self, node_id: &NodeId, now: Instant) {
        let last = self.log.last();
        if let Role::Leader(leading) = &mut self.role
            && let Some(progress) = leading.progress.get_mut(node_id)
        {
            progress.begin_catch_up(last, now);
        }
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
        // One that cannot be made now, because its server is silent, must not keep the others waiting.
        for change in self.due_changes() {
            if self.change_membership(&change, step).is_ok() {
                return;
            }
        }
    }

    fn due_changes(&self) -> Vec<MembershipChange> {
        let Role::Leader(leading) = &self.role else { return Vec::new() };
        let configuration = self.configurations.latest();
        let due = leading.progress.iter().filter_map(|(node_id, progress)| {
            let learner = configuration.learners.get(node_id);
            let promote = learner.is_none_or(|learner| learner.promote);
            let node_id = node_id.clone();
            if let Some(disk) = progress.other_disk.clone() {
                return Some(MembershipChange::AddLearner { node_id, disk, promote });
            }
            (learner.is_some() && promote && progress.caught_up)
                .then_some(MembershipChange::Promote { node_id })
        });
        due.collect()
    }

    /// How many entries each other member lacks of this leader's log, as far as it has said. None elsewhere.
    pub fn lags(&self) -> BTreeMap<NodeId, Seq> {
        let Role::Leader(leading) = &self.role else { return BTreeMap::new() };
        let lag = |match_index| self.log.last().saturating_sub(match_index);
        leading.progress.iter().map(|(id, known)| (id.clone(), lag(known.match_index))).collect()
    }

    /// Whether `node_id` with `disk` was removed, and that is committed.
    pub fn has_removed(&self, node_id: &NodeId, disk: &str) -> bool {
        let committed = self.configurations.at(self.commit_index);
        committed.removed.get(node_id).is_some_and(|removed| removed == disk)
    }

    /// Whether the latest configuration is committed, as far as is known here.
    pub fn membership_is_settled(&self) -> bool {
        self.configurations.latest_seq() <= self.commit_index
    }
}

/// `configuration` after `change`, which must change it, and leave a voter.
fn changed(
    configuration: &Configuration,
    change: &MembershipChange,
) -> Result<Configuration, ChangeRefused> {
    let mut next = configuration.clone();
    match change {
        MembershipChange::AddLearner { node_id, disk, promote } => {
            let is_removed = configuration.removed.get(node_id) == Some(disk);
            let learner = configuration.learners.get(node_id).filter(|it| it.disk == *disk);
            if configuration.voters.get(node_id) == Some(disk) {
                return Err(ChangeRefused::IsVoter(node_id.clone()));
            }
            if learner.is_some_and(|learner| learner.promote || !promote) {
                return Err(ChangeRefused::IsLearner(node_id.clone()));
            }
            if is_removed && !promote {
                return Err(ChangeRefused::WasRemoved(node_id.clone()));
            }
            next.voters.remove(node_id);
            next.removed.remove(node_id);
            let learner = Learner { disk: disk.clone(), promote: *promote };
            next.learners.insert(node_id.clone(), learner);
        }
        MembershipChange::Promote { node_id } => {
            let no_member = || ChangeRefused::NoMember(node_id.clone());
            let learner = next.learners.remove(node_id).ok_or_else(no_member)?;
            next.voters.insert(node_id.clone(), learner.disk);
        }
        MembershipChange::Remove { node_id } => {
            let no_member = || ChangeRefused::NoMember(node_id.clone());
            let disk = configuration.disk_of(node_id).ok_or_else(no_member)?;
            next.voters.remove(node_id);
            next.learners.remove(node_id);
            if next.removed.len() >= REMOVED_MAX {
                next.removed.pop_first();
            }
            next.removed.insert(node_id.clone(), disk.into());
        }
    }
    if next.voters.is_empty() {
        let last = configuration.voters.keys().next().cloned();
        return Err(last.map_or(ChangeRefused::NotLeader, ChangeRefused::LastVoter));
    }
    Ok(next)
}
