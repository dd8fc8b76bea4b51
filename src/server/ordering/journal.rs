//! The log of one server, and how much of it the disk has.

use std::collections::VecDeque;

use crate::domain::content::{Place, SeqChat, SeqChatKind};
use crate::domain::{Message, MessageType, Term};
use crate::server::step::Step;
use crate::server::total_order::{Entry, EntryLog, Seq};
use crate::storage::LogIndex;

/// An [`EntryLog`] that writes what it takes to the node's log and knows what of that is synced.
#[derive(Debug, Default)]
pub(super) struct Journal {
    log: EntryLog,
    /// Entries that the disk may not have yet: the record's index, the entry's place.
    unsynced: VecDeque<(LogIndex, Seq)>,
    /// All entries up to here are on disk, as they stand in `log`.
    durable: Seq,
}

impl Journal {
    pub(super) fn log(&self) -> &EntryLog {
        &self.log
    }

    pub(super) fn last(&self) -> Seq {
        self.log.last()
    }

    pub(super) fn durable(&self) -> Seq {
        self.durable
    }

    /// Where the log ends.
    pub(super) fn end(&self) -> Place {
        let (term, seq) = self.log.end();
        Place { term, seq }
    }

    /// The entry's term at `seq`, if `seq` is kept.
    pub(super) fn place_at(&self, seq: Seq) -> Option<Place> {
        self.log.term_at(seq).map(|term| Place { term: term.cloned(), seq })
    }

    /// Whether the log up to `place` is the same as that of whoever named it.
    pub(super) fn holds(&self, place: &Place) -> bool {
        self.log.matches(place.seq, place.term.as_ref())
    }

    /// The first place of the entries in a row that have the term of the one at `seq`, above `floor`.
    pub(super) fn run_start(&self, seq: Seq, floor: Seq) -> Seq {
        let term = self.log.term_at(seq);
        let mut first = seq;
        while first > floor + 1 && self.log.term_at(first - 1) == term {
            first -= 1;
        }
        first
    }

    /// Leader: the next entry.
    pub(super) fn append(&mut self, msg: Message, term: Term, step: &Step) -> Entry {
        let entry = self.log.append(msg, term);
        self.write(&entry, step);
        entry
    }

    /// An entry of another server's log. True when it is new.
    pub(super) fn insert(&mut self, entry: Entry, step: &Step) -> bool {
        let new = self.log.insert(entry.clone());
        if new {
            self.write(&entry, step);
        }
        new
    }

    fn write(&mut self, entry: &Message, step: &Step) {
        let index = step.log.append(entry);
        let Some(seq) = entry.seq else { return };
        self.cut(seq - 1);
        self.unsynced.push_back((index, seq));
    }

    /// The disk's copy of what stood after `seq` counts no more.
    fn cut(&mut self, seq: Seq) {
        while self.unsynced.pop_back_if(|(_, unsynced)| *unsynced > seq).is_some() {}
        self.durable = self.durable.min(seq);
    }

    /// Forgets what stands after `seq`, in memory alone.
    pub(super) fn cut_after(&mut self, seq: Seq) {
        self.log.cut_after(seq);
        self.cut(seq);
    }

    /// An entry of the node's log at a start. A log whose beginning was given away starts with a later one.
    pub(super) fn recover(&mut self, entry: Message) -> bool {
        let seq = entry.seq.unwrap_or_default();
        if self.log.last() == 0 && seq > 1 {
            self.log.reset_to(seq - 1, None);
        }
        let new = self.log.insert(entry.into());
        self.durable = self.log.last();
        new
    }

    /// The base that a record of the node's log names, at a start.
    pub(super) fn recover_base(&mut self, base: Place) {
        self.log.reset_to(base.seq, base.term);
        self.durable = self.log.last();
    }

    /// Forgets entries up to `seq`, which are committed, and writes that down.
    pub(super) fn forget_up_to(&mut self, seq: Seq, node: &str, step: &Step) {
        self.log.forget_up_to(seq);
        if let Some(base) = self.place_at(self.log.base()) {
            step.log.append(&base_record(base, node));
        }
    }

    /// Starts again after `base`, since nobody has what stands before it.
    pub(super) fn restart_after(&mut self, base: Place, node: &str, step: &Step) {
        let index = step.log.append(&base_record(base.clone(), node));
        self.unsynced.clear();
        self.unsynced.push_back((index, base.seq));
        self.durable = 0;
        self.log.reset_to(base.seq, base.term);
    }

    pub(super) fn on_synced(&mut self, index: LogIndex) {
        while let Some((_, seq)) = self.unsynced.pop_front_if(|(waiting, _)| *waiting <= index) {
            self.durable = self.durable.max(seq);
        }
    }
}

fn base_record(prev: Place, node: &str) -> Message {
    let committed = prev.seq;
    Message::new(MessageType::SeqChat, node).saying(&SeqChat {
        kind: SeqChatKind::Base,
        prev,
        entries: Vec::new(),
        committed,
        active: false,
        history_starts: true,
    })
}
