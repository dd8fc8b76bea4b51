//! The first members: who proposes them, who takes that, when it is valid.

use std::collections::BTreeMap;

use super::{MembershipManager, Proposal, WhenSynced};
use crate::domain::content::{Member, Members, MembersContent};
use crate::domain::{MessageType, NodeId};
use crate::server::step::Step;

impl MembershipManager {
    /// Makes a proposal when all expected ones were heard and this server has the lowest id; another one when it would
    /// choose otherwise by now: a lower id was heard of, or a server has another disk. Only the proposer could have found
    /// the former one valid, and it has not.
    pub(super) fn propose(&mut self, step: &Step) {
        let others = self.proposal.as_ref().is_some_and(|it| it.proposer != self.node_id);
        if self.members().is_some() || others {
            return;
        }
        let proposed = self.proposal.iter().flat_map(|proposal| &proposal.members.voters);
        let everyone = proposed.chain(&self.peers).chain([(&self.node_id, &self.me)]);
        let everyone: BTreeMap<NodeId, Member> =
            everyone.map(|(id, member)| (id.clone(), member.clone())).collect();
        let lowest = everyone.keys().next() == Some(&self.node_id);
        if !lowest || everyone.len() < self.bootstrap_expect {
            return;
        }
        let voters = everyone.into_iter().take(self.bootstrap_expect).collect();
        if self.proposal.as_ref().is_some_and(|proposal| proposal.members.voters == voters) {
            return;
        }
        let cluster_id = format!("{:016x}", self.rng.u64(..));
        let members = Members { cluster_id, version: 1, voters, learners: BTreeMap::new() };
        self.take(self.node_id.clone(), members, step);
        self.send_proposal(step);
    }

    pub(super) fn send_proposal(&self, step: &Step) {
        let Some(Proposal { proposer, members }) = &self.proposal else { return };
        if *proposer != self.node_id {
            return;
        }
        let content =
            MembersContent::Proposed { proposer: proposer.clone(), members: members.clone() };
        let msg = self.message(MessageType::Members).saying(&content);
        let others = members.voters.keys().filter(|id| **id != self.node_id);
        let missing = others.filter(|id| !self.taken_by.contains(*id));
        missing.for_each(|id| step.cm.send_to_node(id, &msg));
    }

    /// A proposal of another server.
    pub(super) fn consider(&mut self, proposer: NodeId, members: Members, step: &Step) {
        if let Some(members) = self.committed_members() {
            let valid = MembersContent::Valid { members: members.clone() };
            let msg = self.message(MessageType::Members).saying(&valid);
            step.cm.send_to_node(&proposer, &msg);
            return;
        }
        if members.voters.get(&self.node_id) != Some(&self.me) {
            return;
        }
        if let Some(known) = &self.proposal {
            if known.members.cluster_id == members.cluster_id {
                // Asked again: the answer may have been lost. The disk may not have it yet, so it is written again.
            } else if proposer > known.proposer || !members.voters.contains_key(&known.proposer) {
                return;
            }
        }
        self.take(proposer, members, step);
    }

    /// Writes a proposal down; the answer follows when it is on disk.
    fn take(&mut self, proposer: NodeId, members: Members, step: &Step) {
        let content =
            MembersContent::Proposed { proposer: proposer.clone(), members: members.clone() };
        let index = step.log.append(&self.message(MessageType::Members).saying(&content));
        let cluster_id = members.cluster_id.clone();
        let then = if proposer == self.node_id {
            WhenSynced::CountOwn(cluster_id)
        } else {
            WhenSynced::Answer(proposer.clone(), cluster_id)
        };
        self.waiting.push((index, then));
        self.taken_by.clear();
        self.proposal = Some(Proposal { proposer, members });
    }

    /// Proposer: `from` has the proposal on disk. When all have it, it is valid.
    pub(super) fn count_taken(&mut self, from: &NodeId, cluster_id: &str, step: &Step) {
        let Some(proposal) = &self.proposal else { return };
        if proposal.proposer != self.node_id || proposal.members.cluster_id != cluster_id {
            return;
        }
        self.taken_by.insert(from.clone());
        if !proposal.members.voters.keys().all(|id| self.taken_by.contains(id)) {
            return;
        }
        let members = proposal.members.clone();
        let content = MembersContent::Valid { members: members.clone() };
        let msg = self.message(MessageType::Members).saying(&content);
        step.log.append(&msg);
        let others = members.voters.keys().filter(|id| **id != self.node_id);
        others.for_each(|id| step.cm.send_to_node(id, &msg));
        self.base = Some(members);
        self.proposal = None;
    }
}
