//! The follower: takes the leader's log in order, says what it has, asks for what it lacks.

use std::collections::BTreeMap;

use super::{BUFFER_MAX, COUNTER_MAX, OrderingManager, Role};
use crate::domain::content::{LeaderHeartbeat, OrderingAck, Place, SeqChat, SeqChatKind};
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::server::membership::content_of;
use crate::server::planted::{Planted, is_planted};
use crate::server::step::Step;
use crate::server::total_order::{Entry, Seq};

/// What a follower knows of the leader of its highest term. Empty while there is none.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// It was heard and leads actively.
    pub(super) active: bool,
    /// The own log is the leader's up to here.
    verified: Seq,
    /// Entries that came ahead of their turn.
    pub(super) buffer: BTreeMap<Seq, Entry>,
    /// The last place that was acknowledged.
    acked: Seq,
    /// A heartbeat wants an answer, whether there is news or not.
    ack_due: bool,
}

impl OrderingManager {
    /// HEARTBEAT or SEQ_CHAT of a leader: whether it is the one to follow. It is refused when its term is stale.
    fn follow(&mut self, from: &NodeId, term: &Term, step: &Step) -> bool {
        if self.is_stale(term) && !is_planted(Planted::StaleTerm) {
            self.refuse(from, term, step);
            // It is alive, and will come again in a higher term.
            self.heard_at = Some(step.now);
            return false;
        }
        if self.promised.as_ref() != Some(term) {
            self.note_term(term);
            self.role = Role::default();
            self.promise_leader(term, step);
        }
        let follows = matches!(self.role, Role::Follower(_));
        if follows {
            self.heard_at = Some(step.now);
        }
        follows
    }

    /// HEARTBEAT from `from`. One without a term is no leader's.
    pub(super) fn handle_heartbeat(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        let Some(term) = msg.term.as_ref().filter(|term| term.leader.node_id() == *from) else {
            return Ok(());
        };
        let beat: LeaderHeartbeat = content_of(msg)?;
        if self.follow(from, term, step) {
            let batch = SeqChat {
                kind: SeqChatKind::Order,
                prev: beat.prev,
                entries: Vec::new(),
                committed: beat.committed,
                active: beat.active,
                history_starts: false,
                state: None,
                members: None,
            };
            self.held = beat.held;
            self.take_batch(from, term, batch, step);
            if let Role::Follower(following) = &mut self.role {
                following.ack_due = true;
            }
        }
        Ok(())
    }

    /// SEQ_CHAT from `from`.
    pub(super) fn handle_seq_chat(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        let batch: SeqChat = content_of(msg)?;
        let in_row = (batch.prev.seq + 1..).zip(&batch.entries);
        let is_sound = |term: &Term| term.counter <= COUNTER_MAX;
        if !{ in_row }
            .all(|(seq, entry)| entry.seq == Some(seq) && entry.term.as_ref().is_some_and(is_sound))
        {
            let reason = "the entries do not follow each other, or name no possible term".into();
            return Err(RequestError::InvalidField { message_id: msg.message_id.clone(), reason });
        }
        match (batch.kind, &msg.term) {
            (SeqChatKind::Order, Some(term)) if term.leader.node_id() == *from => {
                if self.follow(from, term, step) {
                    self.take_batch(from, term, batch, step);
                }
            }
            (SeqChatKind::Adoption, term) => self.adopt(from, term.as_ref(), batch, step),
            (SeqChatKind::Committed, _) => self.take_committed_batch(from, batch, step),
            (SeqChatKind::Base, term) => self.handle_base(from, term.as_ref(), batch, step),
            (SeqChatKind::Order, _) => {}
        }
        Ok(())
    }

    /// A part of the leader's log.
    fn take_batch(&mut self, from: &NodeId, term: &Term, batch: SeqChat, step: &Step) {
        if batch.active && self.active_term.as_ref() < Some(term) {
            self.active_term = Some(term.clone());
            self.failures = 0;
        }
        let Role::Follower(following) = &mut self.role else { return };
        following.active = batch.active;
        let SeqChat { prev, entries, committed, .. } = batch;
        if self.journal.holds(&prev) {
            if is_planted(Planted::CutsByLength) {
                self.journal.cut_after(prev.seq + entries.len() as Seq);
            }
            let end = self.insert_all(&prev, entries, step);
            self.verify(end, step);
            self.commit_up_to(committed);
            return;
        }
        let after = if prev.seq > self.journal.last() {
            for entry in entries {
                let Some(seq) = entry.seq else { continue };
                if following.buffer.len() < BUFFER_MAX {
                    following.buffer.insert(seq, entry);
                }
            }
            Some(self.journal.end())
        } else {
            self.lower_place(&prev)
        };
        if let Some(after) = after {
            self.ask_for(from, Some(term.clone()), after, step);
        }
    }

    /// The log is the leader's up to `end`; entries that waited for that go in.
    fn verify(&mut self, end: Seq, step: &Step) {
        let Role::Follower(following) = &mut self.role else { return };
        following.verified = following.verified.max(end);
        // All of them are the same leader's in the same term, so each follows the one before it.
        while let Some(entry) = following.buffer.remove(&(following.verified + 1)) {
            following.verified += 1;
            if self.journal.insert(entry.clone(), step) {
                self.membership.entry_added(&entry);
            }
        }
        let verified = following.verified;
        following.buffer = following.buffer.split_off(&(verified + 1));
    }

    fn commit_up_to(&mut self, committed: Seq) {
        if let Role::Follower(following) = &self.role {
            self.committed = self.committed.max(committed.min(following.verified));
        }
    }

    /// Puts `entries`, which follow the place `prev` of this log, where they belong; the last place of them.
    pub(super) fn insert_all(&mut self, prev: &Place, entries: Vec<Entry>, step: &Step) -> Seq {
        let mut end = prev.seq;
        for entry in entries {
            end += 1;
            let fits = self.journal.log().term_at(end) == Some(entry.term.as_ref());
            if end <= self.committed && !fits && end > self.journal.log().base() {
                log::error!(
                    "{} names another committed entry {end} than this server has",
                    entry.sender_id
                );
                return end - 1;
            }
            if self.journal.insert(entry.clone(), step) {
                self.membership.entry_added(&entry);
            }
        }
        end
    }

    /// Committed entries from a server that does not lead.
    fn take_committed_batch(&mut self, from: &NodeId, batch: SeqChat, step: &Step) {
        if matches!(self.role, Role::Leader(_)) {
            return;
        }
        if batch.prev.seq > self.journal.last() || !self.journal.holds(&batch.prev) {
            if let Some(after) = self.lower_place(&batch.prev) {
                self.ask_for(from, None, after, step);
            }
            return;
        }
        let highest = batch.entries.last().and_then(|entry| entry.term.clone());
        if let Some(term) = highest.filter(|term| self.promised.as_ref() < Some(term)) {
            // The entry, once on disk, says the same as a record of the promise.
            self.note_term(&term);
            self.promised = Some(term);
            self.role = Role::default();
        }
        let end = self.insert_all(&batch.prev, batch.entries, step);
        self.committed = self.committed.max(batch.committed.min(end));
        if end > batch.prev.seq && batch.committed > end {
            self.ask_for(from, None, self.journal.end(), step);
        }
    }

    /// Follower: tells the leader what is on disk, when there is news or it asked.
    pub(super) fn acknowledge_leader(&mut self, step: &Step) {
        let Some(term) = self.promised.clone() else { return };
        let Role::Follower(following) = &mut self.role else { return };
        let on_disk = if is_planted(Planted::AckBeforeSync) {
            following.verified
        } else {
            following.verified.min(self.journal.durable())
        };
        let news = on_disk > following.acked;
        if !following.ack_due && !news {
            return;
        }
        following.ack_due = false;
        following.acked = on_disk;
        let disk_id = self.membership.me().disk_id.clone();
        let ack = OrderingAck::Synced { seq: on_disk, disk_id };
        let mut msg = self.message(MessageType::Ack).saying(&ack);
        let leader = term.leader.node_id();
        msg.term = Some(term);
        step.cm.send_to_node(&leader, &msg);
    }
}
