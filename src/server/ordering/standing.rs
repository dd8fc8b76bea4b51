//! Where a server stands: whom it follows, which terms are stale, what it is told by those who join.

use std::time::Instant;

use super::{OrderingManager, Role};
use crate::domain::content::{Join, Member, MemberRole, OrderingAck, ServerAddress};
use crate::domain::{Message, NodeId, Term};
use crate::error::RequestError;
use crate::server::membership::content_of;
use crate::server::step::Step;
use crate::server::total_order::MemberView;

impl OrderingManager {
    /// Who leads actively, as far as is known here.
    pub(super) fn leader_id(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(following) if following.active => {
                self.promised.as_ref().map(|term| term.leader.node_id())
            }
            Role::Leader(leading) if leading.active => Some(self.membership.node_id().clone()),
            Role::Follower(_) | Role::Leader(_) | Role::Nominee(_) => None,
        }
    }

    /// Whether there is a leader that is to stay: an active one that was heard lately, or this server with a majority.
    pub(super) fn is_led(&self, now: Instant) -> bool {
        match &self.role {
            Role::Follower(following) => {
                let loyalty = self.timing.loyalty();
                following.active && self.heard_at.is_some_and(|at| now < at + loyalty)
            }
            Role::Leader(leading) => leading.active && self.hears_majority(now),
            Role::Nominee(_) => false,
        }
    }

    pub(super) fn is_stale(&self, term: &Term) -> bool {
        self.promised.as_ref().is_some_and(|promised| term < promised)
    }

    pub(super) fn note_term(&mut self, term: &Term) {
        self.counter = self.counter.max(term.counter);
    }

    /// A leader of a higher term was heard: lower ones are stale from now on, also after a crash.
    pub(super) fn promise_leader(&mut self, term: &Term, step: &Step) {
        self.promised = Some(term.clone());
        self.write_promise(term, step);
    }

    pub(super) fn handle_ack(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        match content_of(msg)? {
            OrderingAck::Synced { seq, disk_id } => {
                self.acknowledge(from, msg.term.as_ref(), seq, &disk_id, step);
                Ok(())
            }
            OrderingAck::Joined { members, .. } => {
                self.membership.handle_joined(from, members, step)
            }
        }
    }

    /// Who votes and who learns, and on a leader how far each is behind.
    pub(super) fn member_views(&self) -> Vec<MemberView> {
        let Some(members) = self.membership.members() else { return Vec::new() };
        let last = self.journal.last();
        let behind = |id: &NodeId| match &self.role {
            Role::Leader(_) if id == self.membership.node_id() => Some(0),
            Role::Leader(leading) => {
                leading.followers.get(id).map(|known| last.saturating_sub(known.matched))
            }
            _ => None,
        };
        let view = |(id, member): (&NodeId, &Member)| MemberView {
            id: id.clone(),
            disk: member.disk_id.clone(),
            address: Some(member.address.clone()),
            role: if members.voters.contains_key(id) {
                MemberRole::Voter
            } else {
                MemberRole::Learner
            },
            behind: behind(id),
        };
        members.all().map(view).collect()
    }

    /// JOIN: whoever is asked answers; the leader also writes down what is new about the sender.
    pub(super) fn handle_join(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        let leader = self.leader_id().and_then(|id| {
            let address = self.membership.members()?.get(&id)?.address.clone();
            Some(ServerAddress { id, address })
        });
        self.membership.handle_join(from, msg, leader, false, step)?;
        let Join { member, .. } = content_of(msg)?;
        self.note_disk(from, &member.disk_id);
        if self.takes_messages()
            && let Some(members) = self.membership.with_member(from, &member)
        {
            self.place_members(members, step);
        }
        Ok(())
    }

    /// A tick that came late: this server slept, and the silence was its own.
    pub(super) fn notice_sleep(&mut self, now: Instant) {
        let last = self.last_tick.replace(now);
        let slept = last.is_none_or(|last| now > last + self.timing.asleep_after());
        if slept {
            self.heard_at = Some(now);
            if let Role::Leader(leading) = &mut self.role {
                leading.restart_timers(now);
            }
        }
    }

    pub(super) fn tick_follower(&mut self, step: &Step) {
        let silent = self.heard_at.is_none_or(|at| step.now >= at + self.timing.leader_timeout);
        let Role::Follower(following) = &mut self.role else { return };
        if silent {
            following.active = false;
        }
    }
}
