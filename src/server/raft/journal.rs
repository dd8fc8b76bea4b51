//! What of this server's state is on its disk, and what waits to be said until it is.
//!
//! ```text
//!   append ─▶ 17 Voted  18 entry 5  19 entry 6 │ on_synced(18) ─▶ the vote may be told, entry 5 acknowledged
//! ```
//!
//! "Updated on stable storage before responding to RPCs" (Figure 2): here the step goes on, and what it says waits.

use std::collections::VecDeque;

use crate::domain::{Message, NodeId};
use crate::server::planted::{Planted, is_planted};
use crate::server::total_order::{RecordIndex, Seq};
use crate::storage::LogIndex;

/// Where the journal stands.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Records up to this one are on disk.
    synced: LogIndex,
    /// The last record of term and vote.
    vote: LogIndex,
    /// Entries that are written and not synced: record and place.
    unsynced: VecDeque<(LogIndex, Seq)>,
    /// The log is on disk up to this place.
    durable: Seq,
    /// Which record holds which entry, as far as they are kept.
    records: RecordIndex,
    /// How many records were read at the start.
    recovered: LogIndex,
    /// Messages that promise the vote of a record, in the order of records.
    waiting: VecDeque<(LogIndex, NodeId, Message)>,
}

impl Journal {
    /// Everything up to `last` was read from the disk.
    pub(super) fn recovered(&mut self, last: Seq) {
        self.durable = last;
    }

    /// The next record is read.
    pub(super) fn recovers_record(&mut self) {
        self.recovered += 1;
    }

    /// That record holds the entry at `seq`, or a snapshot up to it.
    pub(super) fn recovers_entry(&mut self, seq: Seq) {
        self.records.wrote(seq, self.recovered);
    }

    /// Term and vote were written as record `index`.
    pub(super) fn wrote_vote(&mut self, index: LogIndex) {
        self.vote = index;
    }

    /// The entry at `seq` was written as record `index`.
    pub(super) fn wrote_entry(&mut self, index: LogIndex, seq: Seq) {
        self.unsynced.push_back((index, seq));
        self.records.wrote(seq, index);
    }

    /// A snapshot up to `seq` replaces the log, and record `index` says so. What is on disk beyond `committed` belongs to a log that
    /// is given up.
    pub(super) fn starts_anew(&mut self, index: LogIndex, seq: Seq, committed: Seq) {
        self.cut_after(committed);
        self.wrote_entry(index, seq);
    }

    /// The record that holds the entry at `seq`.
    pub(super) fn record_of(&self, seq: Seq) -> Option<LogIndex> {
        self.records.record_of(seq)
    }

    /// The records of entries before `seq` are needed no more.
    pub(super) fn forget_entries_before(&mut self, seq: Seq) {
        self.records.forget_up_to(seq.saturating_sub(1));
    }

    /// Entries after `seq` are no longer part of the log, whatever the disk holds.
    pub(super) fn cut_after(&mut self, seq: Seq) {
        self.durable = self.durable.min(seq);
        self.unsynced.retain(|(_, place)| *place <= seq);
        self.records.cut_after(seq);
    }

    /// All records up to `index` are on disk.
    pub(super) fn on_synced(&mut self, index: LogIndex) {
        self.synced = self.synced.max(index);
        while let Some((record, seq)) = self.unsynced.front().copied()
            && record <= index
        {
            self.unsynced.pop_front();
            self.durable = self.durable.max(seq);
        }
    }

    /// How far the log is on disk.
    pub(super) fn durable(&self) -> Seq {
        self.durable
    }

    /// Whether the present term and vote are on disk.
    pub(super) fn vote_is_durable(&self) -> bool {
        self.vote <= self.synced || is_planted(Planted::VoteBeforeSync)
    }

    /// Sends `msg` when the present term and vote are on disk.
    pub(super) fn say_when_durable(&mut self, to: &NodeId, msg: Message) {
        self.waiting.push_back((self.vote, to.clone(), msg));
    }

    /// The next message that need not wait any longer.
    pub(super) fn pop_ready(&mut self) -> Option<(NodeId, Message)> {
        let (record, ..) = self.waiting.front()?;
        if *record > self.synced && !is_planted(Planted::VoteBeforeSync) {
            return None;
        }
        self.waiting.pop_front().map(|(_, to, msg)| (to, msg))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_cut_does_not_count_when_its_record_is_synced() {
        let mut journal = Journal::default();
        journal.wrote_entry(1, 1);
        journal.wrote_entry(2, 2);
        journal.cut_after(1);
        journal.wrote_entry(3, 2);
        journal.on_synced(2);
        assert_eq!(journal.durable(), 1, "record 2 held another entry");
        journal.on_synced(3);
        assert_eq!(journal.durable(), 2);
    }

    #[test]
    fn a_promise_waits_for_its_record() {
        let mut journal = Journal::default();
        let msg = Message::new(crate::domain::MessageType::RequestVote, "n1");
        journal.say_when_durable(&"n2".into(), msg.clone());
        assert_eq!(journal.pop_ready(), Some(("n2".into(), msg.clone())), "nothing was promised");
        journal.wrote_vote(1);
        journal.say_when_durable(&"n2".into(), msg.clone());
        assert_eq!(journal.pop_ready(), None);
        assert!(!journal.vote_is_durable());
        journal.on_synced(1);
        assert_eq!(journal.pop_ready(), Some(("n2".into(), msg)));
    }
}
