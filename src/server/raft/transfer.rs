//! Handing leadership over, so that a clean stop costs one round trip and not an election timeout (thesis 3.10).
//!
//! ```text
//!   leader: takes no more proposals ─▶ brings n2 up to date ─▶ TIMEOUT_NOW ─▶ n2 stands at once, in earnest,
//!   and its requests say so, so that the others vote although they heard a leader a moment ago
//! ```

use std::time::Instant;

use super::{RaftNode, Role, Step};
use crate::domain::raft_content::TimeoutNow;
use crate::domain::{MessageType, NodeId};

/// A handing over that is under way.
#[derive(Debug)]
pub(super) struct Transfer {
    to: NodeId,
    /// When it is given up: the leader then takes proposals again.
    deadline: Instant,
    /// Whether the other one was told to stand.
    told: bool,
}

impl super::leader::Leading {
    /// Thesis 3.10: given up after an election timeout.
    pub(super) fn give_up_transfer(&mut self, now: Instant) {
        self.transfer.take_if(|transfer| now >= transfer.deadline);
    }
}

impl RaftNode {
    /// Leader: begins to hand over to `node_id`. False when this server does not lead, hands over already, or the other
    /// is no voter.
    pub fn transfer_leadership(&mut self, node_id: &NodeId, step: &Step) -> bool {
        let is_voter = self.configuration().voters.contains_key(node_id) && *node_id != self.id;
        let deadline = step.now + self.timing.election_timeout;
        let Role::Leader(leading) = &mut self.role else { return false };
        if !is_voter || leading.transfer.is_some() {
            return false;
        }
        leading.transfer = Some(Transfer { to: node_id.clone(), deadline, told: false });
        true
    }

    /// The voter that has most of the log, among those that were heard lately.
    fn best_successor(&self, now: Instant) -> Option<NodeId> {
        let Role::Leader(leading) = &self.role else { return None };
        let timeout = self.timing.election_timeout;
        let voters = self.configuration().voters.keys();
        let others = voters.filter(|node_id| leading.hears(node_id, timeout, now));
        others
            .max_by_key(|node_id| leading.progress.get(*node_id).map(|to| to.match_index))
            .cloned()
    }

    /// Before a clean stop.
    pub(super) fn transfer_to_best(&mut self, step: &Step) {
        if let Some(node_id) = self.best_successor(step.now) {
            self.transfer_leadership(&node_id, step);
            self.advance_transfer(step);
        }
    }

    /// Tells the other one to stand, once it has everything.
    pub(super) fn advance_transfer(&mut self, step: &Step) {
        let last = self.log.last();
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(transfer) = leading.transfer.as_mut().filter(|transfer| !transfer.told) else {
            return;
        };
        let has_all = leading.progress.get(&transfer.to).is_some_and(|to| to.match_index == last);
        if has_all {
            transfer.told = true;
            let to = transfer.to.clone();
            self.tell_to_stand(&to, step);
        }
    }

    fn tell_to_stand(&self, to: &NodeId, step: &Step) {
        let content = TimeoutNow { term: self.current_term };
        step.cm.send_to_node(to, &self.message(MessageType::TimeoutNow, &content));
    }

    /// A leader that is no voter any more, and whose removal is committed: another one shall stand at once (thesis 4.2.2).
    pub(super) fn hand_over_removed(&mut self, step: &Step) {
        // Everybody learns of the commitment first: links keep order.
        self.send_entries(step);
        if let Some(to) = self.best_successor(step.now) {
            self.tell_to_stand(&to, step);
        }
        self.become_follower(step.now);
    }

    pub(super) fn handle_timeout_now(&mut self, term: u64, step: &Step) {
        if self.is_current(term, step) && !self.is_leader() && self.is_own_voter() {
            self.stand(true, step);
        }
    }
}
