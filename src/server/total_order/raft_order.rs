//! Raft as a server runs it: [`RaftNode`], and before it knows its cluster, the [`MembershipManager`].
//!
//! ```text
//!   nobody knows the members     JOIN, MEMBERS ──▶ MembershipManager ──▶ valid: set_first_members
//!   from then on                 the log says who votes; JOIN of a stranger makes it a learner
//! ```
//!
//! The first voters come together as in the design `sequencer`; after that Raft's own configuration counts, which only
//! entries of the log change. A stranger that says JOIN to the leader becomes a learner, without a vote until
//! an operator [adds](TotalOrder::add_member) it. A server that was removed is told so when it says JOIN, and asks no more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Entry, MakeState, MemberView, Seq, TotalOrder};
use crate::domain::content::{Join, MemberRole, OrderStatus, OrderingAck, ServerAddress};
use crate::domain::raft_content::Configuration;
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::server::ServerState;
use crate::server::membership::{LOST_ITS_LOG, MembershipManager, lacks_majority};
use crate::server::peers::parse;
use crate::server::raft::{ChangeRefused, MembershipChange, RaftNode};
use crate::server::step::Step;
use crate::storage::snapshot::Contents;
use crate::storage::{LogEvent, LogIndex, PackedBytes};

/// The order of the design `raft`.
#[derive(Debug)]
pub(super) struct RaftOrder {
    node: RaftNode,
    membership: MembershipManager,
    /// Another server said that this one was removed.
    told_removed: bool,
}

impl RaftOrder {
    /// `node`, which learns its first members from `membership`.
    pub(super) fn new(node: RaftNode, membership: MembershipManager) -> Self {
        Self { node, membership, told_removed: false }
    }

    /// Whether the log names this server with the disk that it has.
    fn is_settled(&self) -> bool {
        let me = self.membership.me();
        self.node.configuration().disk_of(self.membership.node_id()) == Some(me.disk_id.as_str())
    }

    /// The members became known: they are the first entry of the log, unless the log has one already.
    fn begin(&mut self, step: &Step) {
        if self.node.last() > 0 {
            return;
        }
        let Some(members) = self.membership.members() else { return };
        let disks = members.voters.iter().map(|(id, member)| (id.clone(), member.disk_id.clone()));
        let voters: BTreeMap<NodeId, String> = disks.collect();
        self.node.set_first_members(&voters, step);
    }

    /// After a snapshot was saved: what it replaces goes from the disk when all that must survive stands behind it.
    fn forget_replaced(&mut self, step: &Step) {
        if let Some(first) = self.node.renew_journal(step) {
            self.membership.write_again(step);
            step.log.forget_before(first);
        }
    }

    /// Where `node_id` can be dialled, as far as it has said so.
    fn address_of(&self, node_id: &NodeId) -> Option<&str> {
        let member = self.membership.peers().get(node_id);
        let member = member.or_else(|| self.membership.members()?.get(node_id));
        let me = (node_id == self.membership.node_id()).then(|| self.membership.me());
        me.or(member).map(|member| member.address.as_str())
    }

    /// Whether the voter `node_id` is known to have another disk than the one that votes. Whoever lost its disk says JOIN.
    fn is_wiped(&self, node_id: &NodeId) -> bool {
        let voters = &self.node.configuration().voters;
        let me = (node_id == self.membership.node_id()).then(|| self.membership.me());
        let found = me.or_else(|| self.membership.peers().get(node_id));
        found.zip(voters.get(node_id)).is_some_and(|(found, disk)| found.disk_id != *disk)
    }

    /// What is missing, in a sentence for the operator: servers to found the cluster, this server's log, or a majority.
    fn waits_for(&self) -> Option<String> {
        let (me, leader) = (self.membership.node_id(), self.node.leader());
        if self.node.last() == 0 {
            return self.membership.waits_for(leader.as_ref());
        }
        if self.is_removed() {
            return Some(format!(
                "this server was removed from the cluster and takes no clients: stop it, or let it in again: roundtable \
                 member add {me}"
            ));
        }
        if leader.is_some() {
            return None;
        }
        if self.is_wiped(me) {
            return Some(LOST_ITS_LOG.into());
        }
        let is_linked =
            |node_id: &NodeId| node_id == me || self.membership.links().contains(node_id);
        let voters = self.node.configuration().voters.keys();
        lacks_majority(voters, |node_id| is_linked(node_id) && !self.is_wiped(node_id))
    }

    /// JOIN: whoever is asked answers; the leader takes a stranger for a learner.
    fn handle_join(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        let leader = self.node.leader().and_then(|id| {
            let members = self.membership.members()?;
            let address = members.get(&id)?.address.clone();
            Some(ServerAddress { id, address })
        });
        let Join { member, .. } = parse(msg)?;
        let removed = self.node.has_removed(from, &member.disk_id);
        self.membership.handle_join(from, msg, leader, removed, step)?;
        if self.node.configuration().disk_of(from).is_none() {
            let change = MembershipChange::AddLearner {
                node_id: from.clone(),
                disk: member.disk_id,
                promote: false,
            };
            // Where it is refused, as by those that do not lead, the stranger asks again.
            let _ = self.node.change_membership(&change, step);
        }
        Ok(())
    }
}

impl TotalOrder for RaftOrder {
    fn recover(&mut self, record: Message) {
        if record.message_type == MessageType::Members && record.seq.is_none() {
            self.membership.recover(&record);
        }
        // It counts all of them.
        self.node.recover(record);
    }

    fn recover_snapshot(&mut self, saved: &Contents) -> Result<(), String> {
        self.node.recover_snapshot(saved)
    }

    fn recovered(&mut self) -> Result<(), String> {
        self.node.recovered()
    }

    fn handle_message(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        match msg.message_type {
            MessageType::Join => self.handle_join(from, msg, step)?,
            MessageType::Members => self.membership.handle_members(from, msg, step)?,
            MessageType::Ack => {
                if let OrderingAck::Joined { members, removed, .. } = parse(msg)? {
                    self.membership.handle_joined(from, members, step)?;
                    self.told_removed |= removed && self.node.leader().is_none();
                }
            }
            _ => self.node.handle_message(from, msg, step)?,
        }
        self.begin(step);
        Ok(())
    }

    fn tick(&mut self, step: &Step) {
        let leader = self.node.leader();
        // Whoever follows a leader takes part.
        self.told_removed &= leader.is_none();
        // One that was removed while it was away knows of no leader, and finds out by asking.
        let knows_its_place = self.is_settled() && leader.is_some();
        if !knows_its_place && !self.is_removed() {
            self.membership.tick(leader.as_ref(), step);
        }
        self.node.tick(step);
    }

    fn heartbeat(&mut self, step: &Step) {
        self.node.heartbeat(step);
    }

    fn on_synced(&mut self, index: LogIndex) {
        self.membership.on_synced(index);
        self.node.on_synced(index);
    }

    fn on_log_event(&mut self, event: &LogEvent) {
        self.node.on_log_event(event);
    }

    fn link_up(&mut self, node_id: &NodeId, step: &Step) {
        self.membership.link_up(node_id, step);
        self.node.link_up(node_id, step);
    }

    fn node_failed(&mut self, node_id: &NodeId, step: &Step) {
        self.membership.link_down(node_id);
        self.node.node_failed(node_id, step);
    }

    fn propose(&mut self, msg: Message, step: &Step) -> Option<Seq> {
        self.node.propose(msg, step)
    }

    fn take_committed(&mut self) -> Vec<Entry> {
        self.node.take_committed()
    }

    fn has_committed(&self) -> bool {
        self.node.has_committed()
    }

    fn settle(&mut self, step: &Step) {
        self.membership.settle(step);
        self.begin(step);
        self.node.settle(step);
        self.forget_replaced(step);
    }

    fn may_compact(&self) -> bool {
        self.node.may_compact()
    }

    fn compact(&mut self, seq: Seq, make: MakeState, step: &Step) -> bool {
        self.node.compact(seq, make, step)
    }

    fn take_snapshot(&mut self) -> Option<(Seq, Arc<PackedBytes>)> {
        self.node.take_snapshot().map(|snapshot| (snapshot.seq(), snapshot.state().clone()))
    }

    fn wants_election(&self, _now: Instant) -> bool {
        false
    }

    fn read_index(&mut self, token: u64, step: &Step) -> bool {
        self.node.read_index(token, step);
        true
    }

    fn take_reads(&mut self) -> Vec<(u64, Seq)> {
        self.node.take_reads()
    }

    fn resign(&mut self, step: &Step) {
        self.node.resign(step);
    }

    fn leader(&self) -> Option<NodeId> {
        self.node.leader()
    }

    fn term(&self) -> Option<&Term> {
        self.node.term()
    }

    fn state(&self) -> ServerState {
        self.node.state()
    }

    fn committed(&self) -> Seq {
        self.node.committed()
    }

    fn last(&self) -> Seq {
        self.node.last()
    }

    fn is_voter(&self, node_id: &NodeId) -> bool {
        self.node.is_voter(node_id)
    }

    fn changes_members(&self) -> bool {
        true
    }

    fn add_member(
        &mut self,
        node_id: &NodeId,
        disk: &str,
        step: &Step,
    ) -> Result<Seq, ChangeRefused> {
        let (node_id, disk) = (node_id.clone(), disk.into());
        let change = MembershipChange::AddLearner { node_id, disk, promote: true };
        self.node.change_membership(&change, step)
    }

    fn remove_member(&mut self, node_id: &NodeId, step: &Step) -> Result<Seq, ChangeRefused> {
        self.node.change_membership(&MembershipChange::Remove { node_id: node_id.clone() }, step)
    }

    fn members(&self) -> (Vec<MemberView>, bool) {
        let Configuration { voters, learners, .. } = self.node.configuration();
        let lags = self.node.lags();
        let leads = self.state() == ServerState::Leader;
        let view = |node_id: &NodeId, disk: &str, role| {
            let own = (leads && node_id == self.membership.node_id()).then_some(0);
            let address = self.address_of(node_id).map(str::to_string);
            let behind = lags.get(node_id).copied().or(own);
            MemberView { id: node_id.clone(), disk: disk.into(), address, role, behind }
        };
        let voters = voters.iter().map(|(id, disk)| view(id, disk, MemberRole::Voter));
        let learners = learners.iter().map(|(id, learner)| {
            let role = if learner.promote { MemberRole::Joining } else { MemberRole::Learner };
            view(id, &learner.disk, role)
        });
        let mut all: Vec<MemberView> = voters.chain(learners).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        (all, self.node.membership_is_settled())
    }

    fn has_removed(&self, node_id: &NodeId, disk: &str) -> bool {
        self.node.has_removed(node_id, disk)
    }

    fn is_removed(&self) -> bool {
        let (node_id, disk) = (self.membership.node_id(), &self.membership.me().disk_id);
        (self.told_removed && self.node.leader().is_none()) || self.node.has_removed(node_id, disk)
    }

    fn cluster_id(&self) -> Option<&str> {
        self.membership.members().map(|members| members.cluster_id.as_str())
    }

    fn status(&self) -> OrderStatus {
        let configuration = self.node.configuration();
        let wiped = configuration.voters.keys().filter(|node_id| self.is_wiped(node_id));
        OrderStatus {
            committed: self.node.committed(),
            last: self.node.last(),
            starts_after: self.node.log().base(),
            voters: configuration.voters.keys().cloned().collect(),
            learners: configuration.learners.keys().cloned().collect(),
            wiped: wiped.cloned().collect(),
            waits_for: self.waits_for(),
        }
    }
}
