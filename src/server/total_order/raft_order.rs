//! Raft as a server runs it: [`RaftNode`], and before it knows its cluster, the [`MembershipManager`].
//!
//! ```text
//!   nobody knows the members     JOIN, MEMBERS ──▶ MembershipManager ──▶ valid: set_first_members
//!   from then on                 the log says who votes; JOIN of a stranger makes it a learner
//! ```
//!
//! The first voters come together as in the design `sequencer`; after that Raft's own configuration counts, which only
//! entries of the log change. A stranger that says JOIN to the leader becomes a learner, without a vote until
//! somebody promotes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Entry, Seq, TotalOrder};
use crate::domain::content::{Join, OrderStatus, OrderingAck, ServerAddress};
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::server::ServerState;
use crate::server::membership::MembershipManager;
use crate::server::peers::parse;
use crate::server::raft::{MembershipChange, RaftNode};
use crate::server::step::Step;
use crate::storage::LogIndex;

/// The order of the design `raft`.
#[derive(Debug)]
pub(super) struct RaftOrder {
    node: RaftNode,
    membership: MembershipManager,
}

impl RaftOrder {
    /// `node`, which learns its first members from `membership`.
    pub(super) fn new(node: RaftNode, membership: MembershipManager) -> Self {
        Self { node, membership }
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
        if let Some(snapshot) = self.node.renew_journal(step) {
            self.membership.write_again(step);
            step.log.forget_before(snapshot);
        }
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
        self.membership.handle_join(from, msg, leader, step)?;
        let Join { member, .. } = parse(msg)?;
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
        } else {
            self.node.recover(record);
        }
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
                if let OrderingAck::Joined { members, .. } = parse(msg)? {
                    self.membership.handle_joined(from, members, step)?;
                }
            }
            _ => self.node.handle_message(from, msg, step)?,
        }
        self.begin(step);
        Ok(())
    }

    fn tick(&mut self, step: &Step) {
        if !self.is_settled() {
            self.membership.tick(self.node.leader().as_ref(), step);
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

    fn settle(&mut self, step: &Step) {
        self.membership.settle(step);
        self.begin(step);
        self.node.settle(step);
        self.forget_replaced(step);
    }

    fn takes_snapshots(&self) -> bool {
        true
    }

    fn compact(&mut self, seq: Seq, state: Arc<[u8]>, step: &Step) -> bool {
        let done = self.node.compact(seq, state, step);
        self.forget_replaced(step);
        done
    }

    fn take_snapshot(&mut self) -> Option<(Seq, Arc<[u8]>)> {
        self.node.take_snapshot().map(|(seq, _, state)| (seq, state))
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

    fn status(&self) -> OrderStatus {
        let waits_for = match self.node.last() {
            0 => self.membership.waits_for(self.node.leader().as_ref()),
            _ => None,
        };
        OrderStatus {
            committed: self.node.committed(),
            last: self.node.last(),
            starts_after: self.node.log().base(),
            voters: self.node.configuration().voters.keys().cloned().collect(),
            waits_for,
        }
    }
}
