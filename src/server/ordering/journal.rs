//! The log of one server: how much of it the disk has, and how old entries come back from there.
//!
//! ```text
//!   base          released             durable     last
//!    └── on disk ────┴── in memory, too ──┴─ in memory ┘
//!          ▲
//!          └ read, by record (`RecordIndex`), a batch at a time for each server that wants some
//! ```
//!
//! A record that is read back may be something else than an entry, or one that was cut: only that is an entry which the
//! index says is.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::content::Place;
use crate::domain::{Message, NodeId, Term};
use crate::server::step::Step;
use crate::server::total_order::{Entry, EntryLog, RecordIndex, Seq};
use crate::storage::LogIndex;

/// Whom entries are read from the disk for. One read is under way for each.
pub(super) type Reader = NodeId;

/// An [`EntryLog`] that writes what it takes to the node's log and knows what of that is synced.
#[derive(Debug, Default)]
pub(super) struct Journal {
    log: EntryLog,
    /// Which record of the node's log holds which entry.
    index: RecordIndex,
    /// Reads under way: the request, and the first entry that is wanted.
    reading: BTreeMap<Reader, (u64, Seq)>,
    last_token: u64,
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
        if seq == self.log.base() && self.log.base_is_unknown() {
            return None;
        }
        self.log.term_at(seq).map(|term| Place { term: term.cloned(), seq })
    }

    /// Whether the log up to `place` is the same as that of whoever named it.
    pub(super) fn holds(&self, place: &Place) -> bool {
        self.log.matches(place.seq, place.term.as_ref())
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
        self.index.wrote(seq, index);
        self.unsynced.push_back((index, seq));
    }

    /// The disk's copy of what stood after `seq` counts no more.
    fn cut(&mut self, seq: Seq) {
        while self.unsynced.back().is_some_and(|(_, unsynced)| *unsynced > seq) {
            self.unsynced.pop_back();
        }
        self.durable = self.durable.min(seq);
    }

    /// Forgets what stands after `seq`, in memory alone.
    pub(super) fn cut_after(&mut self, seq: Seq) {
        self.log.cut_after(seq);
        self.index.cut_after(seq);
        self.cut(seq);
    }

    /// Record `index` of the node's log, an entry, at a start. A log whose beginning was given away starts with a later one:
    /// perhaps first with one that was cut, or with an old base. A newer base then follows.
    pub(super) fn recover(&mut self, entry: Message, index: LogIndex) -> bool {
        let seq = entry.seq.unwrap_or_default();
        let is_lower = self.log.base_is_unknown() && seq <= self.log.base();
        if is_lower || seq > self.log.last() + 1 {
            self.log = EntryLog::new();
            self.log.reset_to(seq - 1, None);
        }
        let new = self.log.insert(entry.into());
        if new {
            self.index.wrote(seq, index);
        }
        self.durable = self.log.last();
        new
    }

    /// The base that a record of the node's log names, at a start. False when that is an old one: what it says was forgotten
    /// later, and entries from before that record are kept.
    pub(super) fn recover_base(&mut self, base: Place, starts_anew: bool) -> bool {
        if !starts_anew && base.seq < self.log.base() {
            return false;
        }
        self.reset_to(base);
        self.durable = self.log.last();
        true
    }

    fn reset_to(&mut self, base: Place) {
        self.log.reset_to(base.seq, base.term);
        if self.log.last() == base.seq {
            self.index.cut_after(0);
        }
        self.index.forget_up_to(base.seq);
    }

    /// Forgets entries up to `base`. The records that say so begin with `said`. Returns the first record of the node's
    /// log that is still needed: that one, or that of the next entry.
    pub(super) fn forget_up_to(&mut self, base: Seq, said: LogIndex) -> LogIndex {
        self.log.forget_up_to(base);
        self.index.forget_up_to(base);
        self.index.record_of(base + 1).unwrap_or(said)
    }

    /// Starts again after `base`, which is on disk with the record `said`, since nobody has what stands before it.
    pub(super) fn restart_after(&mut self, base: Place, said: LogIndex) {
        self.unsynced.clear();
        self.unsynced.push_back((said, base.seq));
        self.durable = 0;
        self.reset_to(base);
    }

    /// The last place of which all later entries stand in records from `first` on.
    pub(super) fn last_before(&self, first: LogIndex) -> Seq {
        self.index.first_from(first).map_or(self.log.last(), |seq| seq - 1)
    }

    /// Takes entries out of memory that the disk has, none after `up_to`, until about `bytes_max` bytes are left.
    pub(super) fn release(&mut self, up_to: Seq, bytes_max: usize) {
        self.log.release(up_to.min(self.durable), bytes_max);
    }

    /// The record of the node's log that holds the entry at `seq`.
    #[cfg(test)]
    pub(super) fn record_of(&self, seq: Seq) -> Option<LogIndex> {
        self.index.record_of(seq)
    }

    /// Whether the entry at `seq` is kept on disk alone.
    pub(super) fn is_released(&self, seq: Seq) -> bool {
        self.log.base() < seq && seq <= self.log.released()
    }

    /// Asks the disk for entries from `first` on, about `bytes_max` bytes of them, unless it reads for `reader` already.
    pub(super) fn request_read(
        &mut self,
        reader: &Reader,
        first: Seq,
        bytes_max: usize,
        step: &Step,
    ) {
        let Some(record) = self.index.record_of(first) else { return };
        if self.reading.contains_key(reader) {
            return;
        }
        log::debug!("reads entries from {first} on for {reader}");
        self.last_token += 1;
        self.reading.insert(reader.clone(), (self.last_token, first));
        step.log.request_read(self.last_token, record, bytes_max);
    }

    /// What came of the request `token`: consecutive entries for whom they were read, none when they are forgotten. `from` is
    /// the first record.
    pub(super) fn on_read(
        &mut self,
        token: u64,
        from: LogIndex,
        records: Vec<Message>,
    ) -> Option<(Reader, Vec<Entry>)> {
        let asked = self.reading.iter().find(|(_, (asked, _))| *asked == token);
        let (reader, mut next) = asked.map(|(reader, (_, first))| (reader.clone(), *first))?;
        self.reading.remove(&reader);
        let mut entries = Vec::new();
        for (record, index) in records.into_iter().zip(from..) {
            if record.seq == Some(next) && self.index.record_of(next) == Some(index) {
                entries.push(record.into());
                next += 1;
            }
        }
        Some((reader, entries))
    }

    pub(super) fn on_synced(&mut self, index: LogIndex) {
        while let Some((waiting, seq)) = self.unsynced.front().copied() {
            if waiting > index {
                break;
            }
            self.durable = self.durable.max(seq);
            self.unsynced.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    fn place(seq: Seq) -> Place {
        Place { term: Some(Term { counter: 1, leader: "n1.1-0000".into() }), seq }
    }

    fn entry(seq: Seq) -> Message {
        let Place { term, seq } = place(seq);
        Message { term, seq: Some(seq), ..Message::new(MessageType::Chat, "a") }
    }

    /// Written: 3 4 base(2) 5 6 base(4) 7. Then what stood before the record of 5 was given away, but for base(2), which is in
    /// its segment.
    #[test]
    fn an_old_base_in_front_of_a_gap_gives_way_to_the_newer_one() {
        let mut journal = Journal::default();
        assert!(journal.recover_base(place(2), false));
        assert!(journal.recover(entry(5), 2) && journal.recover(entry(6), 3));
        assert!(journal.recover_base(place(4), false));
        assert!(journal.recover(entry(7), 5));
        assert_eq!((journal.log().base(), journal.last()), (4, 7));
        assert!(journal.holds(&place(4)) && journal.holds(&place(6)));
        assert_eq!([5, 6, 7].map(|seq| journal.record_of(seq)), [Some(2), Some(3), Some(5)]);
    }
}
