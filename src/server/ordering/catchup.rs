//! Catching up: what others lack, from memory or from the disk.
//!
//! ```text
//!   follower            leader, or anyone                      log-reader
//!      │─ CATCHUP_REQ 7 ─▶│ 8 is not in memory
//!      │                  │─ request_read, record of 8 ──────────▶│
//!      │                  │◀──────────────────────── 8 … 900 ─────│
//!      │◀─ 8 … 900 ───────│ the next read while these are on their way
//! ```
//!
//! A leader goes on by itself, as far as the follower's window allows; anyone else sends one batch for each request.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::journal::Reader;
use super::{BATCH_BYTES, OrderingManager, Role};
use crate::domain::content::{CatchupReq, Place, SeqChat, SeqChatKind};
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::server::membership::content_of;
use crate::server::step::Step;
use crate::server::total_order::{Entry, Seq};

/// A CATCHUP_REQ that waits for the disk.
#[derive(Debug)]
pub(super) struct Asked {
    after: Place,
    term: Option<Term>,
}

/// Servers that are sent old entries.
#[derive(Debug, Default)]
pub(super) struct Catchup {
    /// The last request of each.
    asked: BTreeMap<NodeId, Asked>,
    /// What the disk has read, and for whom.
    pub(super) read: Vec<(Reader, Vec<Entry>)>,
    /// What the layer above wanted to see once more.
    pub(super) recalled: Vec<Entry>,
}

impl Catchup {
    /// `node_id` is gone: it asks again when it is back.
    pub(super) fn forget(&mut self, node_id: &NodeId) {
        self.asked.remove(node_id);
    }
}

impl OrderingManager {
    /// A place below `place`, where this log differs, that may be common.
    pub(super) fn lower_place(&self, place: &Place) -> Option<Place> {
        let log = self.journal.log();
        let at = place.seq.min(log.last());
        let floor = self.committed.min(at);
        if at == floor {
            return self.journal.place_at(floor);
        }
        self.journal.place_at(log.run_start(at, floor) - 1)
    }

    /// Where this log can go on for a server that holds `after`: there, or before it where the logs differ.
    pub(super) fn common_place(&self, after: &Place) -> Place {
        let log = self.journal.log();
        let (base, last) = (log.base(), log.last());
        if after.seq < base || after.seq <= last && self.journal.holds(after) {
            return after.clone();
        }
        let common = if after.seq > last {
            self.journal.place_at(last)
        } else {
            self.journal.place_at(log.run_start(after.seq, base).max(base + 1) - 1)
        };
        common.unwrap_or_default()
    }

    /// CATCHUP_REQ from `from`: a leader sends its log, the one with the longest log sends that to the nominee, and anyone
    /// else sends what is committed.
    pub(super) fn handle_catchup(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        let asked: CatchupReq = content_of(msg)?;
        let base = self.journal.log().base();
        let is_leader = matches!(self.role, Role::Leader(_));
        if is_leader {
            self.resume(from, &asked.after);
        }
        let after = asked.after.clone();
        if after.seq < base {
            self.send_base(from, &asked, msg.term.clone(), step);
        } else if !is_leader {
            let asked = Asked { after, term: msg.term.clone() };
            self.answer_catchup(from, asked, Vec::new(), step);
        }
        Ok(())
    }

    /// Sends what `from` asked for: `read`, if that is it, or what is in memory. Else the disk is asked first.
    fn answer_catchup(&mut self, from: &NodeId, asked: Asked, read: Vec<Entry>, step: &Step) {
        let Asked { after, term } = &asked;
        let nominee = term.as_ref().filter(|term| term.leader.node_id() == *from);
        let promised = nominee.is_some() && nominee == self.promised.as_ref();
        let kind = if promised { SeqChatKind::Adoption } else { SeqChatKind::Committed };
        let end = if promised { self.journal.last() } else { self.committed };
        let start = self.common_place(after).seq.min(end);
        let Some(prev) = self.journal.place_at(start) else { return };
        let first = start + 1;
        let mut entries = if read.first().is_some_and(|entry| entry.seq == Some(first)) {
            read
        } else if first <= end && self.journal.is_released(first) {
            self.journal.request_read(from, first, BATCH_BYTES, step);
            self.catchup.asked.insert(from.clone(), asked);
            return;
        } else {
            self.entries_from(first, BATCH_BYTES)
        };
        entries.retain(|entry| entry.seq <= Some(end));
        let (committed, active) = (self.committed, false);
        let batch = SeqChat {
            kind,
            prev,
            entries,
            committed,
            active,
            history_starts: false,
            state: None,
            members: None,
        };
        let mut answer = self.message(MessageType::SeqChat).saying(&batch);
        answer.term = asked.term;
        step.cm.send_to_node(from, &answer);
    }

    /// The one place where entries in memory are looked up to be sent.
    pub(super) fn entries_from(&self, first: Seq, bytes_max: usize) -> Vec<Arc<Message>> {
        self.journal.log().between(first, Seq::MAX, bytes_max)
    }

    /// What the disk has read goes to those for whom it was, if they still want it.
    pub(super) fn send_what_was_read(&mut self, step: &Step) {
        for (reader, entries) in std::mem::take(&mut self.catchup.read) {
            if reader == *self.membership.node_id() {
                self.catchup.recalled.extend(entries);
            } else if matches!(self.role, Role::Leader(_)) {
                self.send_read(&reader, entries, step);
            } else if let Some(asked) = self.catchup.asked.remove(&reader) {
                self.answer_catchup(&reader, asked, entries, step);
            }
        }
    }

    /// Committed entries from `first` on are wanted once more by the layer above.
    pub(super) fn recall_entries(&mut self, first: u64, step: &Step) {
        if self.journal.is_released(first) {
            let own = self.membership.node_id().clone();
            self.journal.request_read(&own, first, BATCH_BYTES, step);
        } else {
            let mut entries = self.entries_from(first, BATCH_BYTES);
            entries.retain(|entry| entry.seq <= Some(self.committed));
            self.catchup.recalled.extend(entries);
        }
    }
}
