//! The entries of one server, committed or not.
//!
//! ```text
//!   base                released               last
//!    │  base+1  …         │                     │        an entry that conflicts (same place, other term)
//!    └── e   e   e   e   e ─[ e ][ e ][ e ][ e ]┘         replaces the one that stood there and cuts all after it
//!        on disk alone,        as messages
//!        or packed:
//!        terms are known
//! ```
//!
//! It holds no disk: who accepts an entry appends it to the journal, too. Reading the journal from the start, in
//! order, gives the same log again, cuts included. Who has a journal to read old entries from may
//! [`release`](EntryLog::release) them: of each run of entries with one term only the first place is kept in mind. Who has to have
//! them at hand, for followers that are late, may [`pack`](EntryLog::pack) them: then they take a tenth of the memory.
//!
//! Source: Ongaro and Ousterhout (2014), section 5.3; design rule "tails are cut only where they conflict".

use std::collections::VecDeque;
use std::sync::Arc;

use super::packed::{Packed, Reader};
use super::{Entry, Seq};
use crate::domain::{Message, Term};

/// Entries `base + 1 ..= last`, and the term of the one at `base`.
#[derive(Clone, Debug, Default)]
pub struct EntryLog {
    /// What stands before the first entry kept: 0, or the end of a snapshot or of what was forgotten.
    base: Seq,
    /// `None` for place 0, and at a start for a base whose record was not read yet.
    base_term: Option<Term>,
    /// Entries up to here are not there as messages; `base` when all are.
    released: Seq,
    /// Those of them that are packed: all, or none.
    packed: Packed,
    /// Where runs of one term begin among them.
    released_terms: VecDeque<(Seq, Option<Term>)>,
    /// Those after `released`.
    entries: VecDeque<Entry>,
    /// About how long `entries` are together.
    bytes: usize,
}

impl EntryLog {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// The place before the first entry kept.
    pub fn base(&self) -> Seq {
        self.base
    }

    /// Entries up to here, if any are kept, are not in memory, or packed.
    pub fn released(&self) -> Seq {
        self.released
    }

    /// The last place; `base` when nothing is kept.
    pub fn last(&self) -> Seq {
        self.released + self.entries.len() as Seq
    }

    /// The term of the entry at `last`; `None` for an empty log from the start.
    pub fn last_term(&self) -> Option<&Term> {
        self.term_at(self.last()).flatten()
    }

    /// Where the log ends: (term, place). The greater one is more up to date.
    pub fn end(&self) -> (Option<Term>, Seq) {
        (self.last_term().cloned(), self.last())
    }

    /// The entry at `seq`, if it is kept and in memory, packed or not.
    pub fn read(&self, seq: Seq) -> Option<Entry> {
        let unpacked = || self.packed.get(seq, &mut Reader::default())?.to_message().map(Arc::new);
        self.get(seq).cloned().or_else(unpacked)
    }

    /// The entry at `seq`, if it is kept and in memory as a message.
    pub fn get(&self, seq: Seq) -> Option<&Entry> {
        let at = seq.checked_sub(self.released + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The term of the entry at `seq`. `Some(None)` for place 0, `None` when it is not known.
    pub fn term_at(&self, seq: Seq) -> Option<Option<&Term>> {
        if seq == self.base {
            return Some(self.base_term.as_ref());
        }
        if seq > self.released {
            return self.get(seq).map(|entry| entry.term.as_ref());
        }
        let after = self.released_terms.partition_point(|(first, _)| *first <= seq);
        let (_, term) = self.released_terms.get(after.checked_sub(1)?)?;
        Some(term.as_ref())
    }

    /// Whether this log has an entry of `term` at `seq`; true for place 0 without a term, and for what
    /// stands before `base`, since only committed entries are forgotten.
    pub fn matches(&self, seq: Seq, term: Option<&Term>) -> bool {
        seq < self.base || self.term_at(seq) == Some(term)
    }

    /// The first place of the entries in a row that have the term of the one at `seq`, above `floor`.
    pub fn run_start(&self, seq: Seq, floor: Seq) -> Seq {
        let term = self.term_at(seq);
        let mut first = seq;
        while first > floor + 1 && self.term_at(first - 1) == term {
            let run = self.released_terms.iter().rev().find(|(start, _)| *start < first);
            // Where nothing is in memory the run says at once where it begins.
            let jump = run.filter(|_| first - 1 <= self.released).map(|(start, _)| *start);
            first = jump.unwrap_or(first - 1).max(floor + 1);
        }
        first
    }

    /// Appends `msg` as the next entry of `term` and returns it, to be journalled and sent.
    pub fn append(&mut self, mut msg: Message, term: Term) -> Entry {
        msg.seq = Some(self.last() + 1);
        msg.term = Some(term);
        let entry = Arc::new(msg);
        self.push(entry.clone());
        entry
    }

    /// Takes an entry of another server's log, or of the journal, at its place. True when it is new: then it is
    /// to be journalled. One that stands here already changes nothing; one that conflicts cuts the tail. An
    /// entry beyond the end, or without a place, is refused with false.
    pub fn insert(&mut self, entry: Entry) -> bool {
        let Some(seq) = entry.seq else { return false };
        if seq <= self.base || seq > self.last() + 1 {
            return false;
        }
        if self.term_at(seq) == Some(entry.term.as_ref()) {
            return false;
        }
        self.cut_after(seq - 1);
        self.push(entry);
        true
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += size_of_entry(&entry);
        self.entries.push_back(entry);
    }

    /// Forgets every entry after `seq`.
    pub fn cut_after(&mut self, seq: Seq) {
        let seq = seq.max(self.base);
        while self.last() > seq
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= size_of_entry(&entry);
        }
        if self.released > seq {
            self.released = seq;
            self.packed.cut_after(seq);
        }
        while self.released_terms.back().is_some_and(|(first, _)| *first > seq) {
            self.released_terms.pop_back();
        }
    }

    /// Takes the oldest entries out of memory, none after `up_to`, until no more than about `bytes_max` bytes are left. They
    /// must be committed, or they could be cut, and in a journal, to be read when they are wanted.
    pub fn release(&mut self, up_to: Seq, bytes_max: usize) {
        while self.released < up_to && self.bytes > bytes_max {
            if self.release_first().is_none() {
                break;
            }
        }
    }

    /// Packs the oldest entries, none after `up_to`, until no more than about `bytes_max` bytes are left as messages. They may still
    /// be cut. Not in a log of which some are [released](Self::release).
    pub fn pack(&mut self, up_to: Seq, bytes_max: usize) {
        while self.released < up_to && self.bytes > bytes_max {
            let Some(entry) = self.release_first() else { break };
            self.packed.push(self.released, &entry, entry.timestamp);
        }
    }

    /// The first message goes, and its term stays.
    fn release_first(&mut self) -> Option<Entry> {
        let entry = self.pop_front()?;
        if self.released_terms.back().is_none_or(|(_, term)| *term != entry.term) {
            self.released_terms.push_back((self.released, entry.term.clone()));
        }
        Some(entry)
    }

    /// The first entry in memory goes.
    fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= size_of_entry(&entry);
        self.released += 1;
        Some(entry)
    }

    /// Forgets entries up to `seq`, which are committed and kept elsewhere.
    pub fn forget_up_to(&mut self, seq: Seq) {
        let seq = seq.min(self.last());
        if seq <= self.base {
            return;
        }
        self.base_term = self.term_at(seq).flatten().cloned();
        self.base = seq;
        self.packed.forget_up_to(seq);
        while self.released < seq && self.pop_front().is_some() {}
        while self.released_terms.get(1).is_some_and(|(first, _)| *first <= seq + 1) {
            self.released_terms.pop_front();
        }
        if self.released == seq {
            self.released_terms.clear();
        } else if let Some((first, _)) = self.released_terms.front_mut() {
            *first = seq + 1;
        }
    }

    /// Starts again after `seq`, whose entry has `term`. What follows there stays if it fits.
    pub fn reset_to(&mut self, seq: Seq, term: Option<Term>) {
        let begins_here = seq == self.base && seq > 0 && self.base_term.is_none();
        if !begins_here && self.term_at(seq) == Some(term.as_ref()) {
            self.forget_up_to(seq);
        } else if !begins_here {
            self.entries.clear();
            self.released_terms.clear();
            self.packed = Packed::default();
            (self.released, self.bytes) = (seq, 0);
        }
        (self.base, self.base_term) = (seq, term);
    }

    /// Whether it is not known what stood before the first entry: at a start, until the record of the base is read.
    pub fn base_is_unknown(&self) -> bool {
        self.base > 0 && self.base_term.is_none()
    }

    /// The entries from `first` to `last`, as many as make up `bytes_max` of text at most, but one at least if there is one; some
    /// less where the packed ones end. None when the first is not in memory.
    pub fn between(&self, first: Seq, last: Seq, bytes_max: usize) -> Vec<Entry> {
        let (mut bytes, mut fitting) = (0, Vec::new());
        if first > last {
            // Asked in every step; a packed entry would be unpacked to see that it is not wanted.
            return fitting;
        }
        let mut take = |entry: Entry| {
            bytes += size_of_entry(&entry);
            let is_in = entry.seq.is_some_and(|seq| seq <= last);
            let fits = is_in && (fitting.is_empty() || bytes <= bytes_max);
            if fits {
                fitting.push(entry);
            }
            fits
        };
        if let Some(skip) = first.checked_sub(self.released + 1) {
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            self.entries.iter().skip(skip).all(|entry| take(entry.clone()));
        } else if first > self.base {
            self.packed
                .visit_from(first, |row| row.to_message().is_some_and(|msg| take(msg.into())));
        }
        fitting
    }
}

/// About how long an entry is on the wire, in bytes.
pub fn size_of_entry(entry: &Message) -> usize {
    let texts = [&entry.message_id, &entry.sender_id, &entry.room_id];
    let content = match &entry.content {
        crate::domain::Content::Empty => 0,
        crate::domain::Content::Text(text) => text.len(),
        crate::domain::Content::Object(raw) => raw.get().len(),
    };
    150 + texts.map(String::len).iter().sum::<usize>() + content
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    fn term(counter: u64) -> Term {
        Term { counter, leader: "n1.1-0000".into() }
    }

    fn log(terms: &[u64]) -> EntryLog {
        let mut log = EntryLog::new();
        for counter in terms {
            log.append(Message::new(MessageType::Chat, "a"), term(*counter));
        }
        log
    }

    fn terms(log: &EntryLog) -> Vec<u64> {
        (log.base() + 1..=log.last())
            .map(|seq| log.get(seq).unwrap().term.as_ref().unwrap().counter)
            .collect()
    }

    #[test]
    fn entries_get_the_next_place() {
        let log = log(&[1, 1, 2]);
        assert_eq!((log.last(), log.last_term()), (3, Some(&term(2))));
        assert_eq!(log.get(3).unwrap().seq, Some(3));
        assert!(log.matches(0, None) && log.matches(2, Some(&term(1))));
        assert!(!log.matches(2, Some(&term(2))) && !log.matches(4, Some(&term(2))));
    }

    #[test]
    fn a_tail_is_cut_only_where_it_conflicts() {
        let mut mine = log(&[1, 1, 1, 1]);
        let theirs = log(&[1, 1, 2]);
        for seq in 1..=2 {
            assert!(!mine.insert(theirs.get(seq).unwrap().clone()), "here already");
        }
        assert_eq!(terms(&mine), [1, 1, 1, 1]);
        assert!(mine.insert(theirs.get(3).unwrap().clone()));
        assert_eq!(terms(&mine), [1, 1, 2]);
    }

    #[test]
    fn an_entry_beyond_the_end_is_refused() {
        let mut mine = log(&[1]);
        assert!(!mine.insert(log(&[1, 1, 1]).get(3).unwrap().clone()));
        assert_eq!(mine.last(), 1);
    }

    #[test]
    fn what_was_forgotten_still_counts() {
        let mut log = log(&[1, 1, 2, 2]);
        log.forget_up_to(3);
        assert_eq!((log.base(), log.last(), terms(&log)), (3, 4, vec![2]));
        assert!(log.matches(3, Some(&term(2))) && !log.matches(3, Some(&term(1))));
        assert!(log.matches(1, Some(&term(9))), "committed, or it would not be forgotten");
        assert_eq!(log.append(Message::new(MessageType::Chat, "a"), term(3)).seq, Some(5));
    }

    #[test]
    fn what_is_not_in_memory_is_known_by_its_term() {
        let mut log = log(&[1, 1, 2, 2, 2, 3, 3]);
        log.release(5, 0);
        assert_eq!((log.base(), log.released(), log.last()), (0, 5, 7));
        assert!(log.get(5).is_none() && log.between(5, 99, usize::MAX).is_empty());
        assert_eq!(log.between(6, 99, usize::MAX).len(), 2);
        let terms = |log: &EntryLog| -> Vec<u64> {
            let terms = (1..=log.last()).filter_map(|seq| log.term_at(seq)?);
            terms.map(|term| term.counter).collect()
        };
        assert_eq!(terms(&log), [1, 1, 2, 2, 2, 3, 3]);
        assert!(log.matches(2, Some(&term(1))) && !log.matches(3, Some(&term(1))));
        assert_eq!([7, 5, 4, 2].map(|seq| log.run_start(seq, 0)), [6, 3, 3, 1]);
        assert_eq!([7, 5].map(|seq| log.run_start(seq, 3)), [6, 4]);
        let known = Arc::new(Message { seq: Some(4), term: Some(term(2)), ..known() });
        assert!(!log.insert(known), "it stands there");
        log.forget_up_to(3);
        assert_eq!((log.base(), terms(&log)), (3, vec![2, 2, 2, 3, 3]));
        assert_eq!(log.term_at(2), None);
        assert_eq!(log.run_start(5, 3), 4);
        log.forget_up_to(6);
        assert_eq!((log.released(), log.last(), terms(&log)), (6, 7, vec![3, 3]));
        log.cut_after(2);
        assert_eq!((log.base(), log.last(), log.last_term()), (6, 6, Some(&term(3))));
    }

    fn known() -> Message {
        Message::new(MessageType::Chat, "a")
    }

    #[test]
    fn what_is_in_memory_is_bounded_but_what_may_be_cut_stays() {
        let mut log = log(&[1; 100]);
        let each = size_of_entry(log.get(1).unwrap());
        log.release(50, 10 * each);
        assert_eq!(log.released(), 50, "the others are not committed");
        log.release(100, 10 * each);
        assert_eq!((log.released(), log.between(91, 100, usize::MAX).len()), (90, 10));
        log.release(100, 10 * each);
        assert_eq!(log.released(), 90);
        log.append(Message::new(MessageType::Chat, "a"), term(2));
        log.release(101, 10 * each);
        assert_eq!(log.released(), 91);
        log.cut_after(60);
        assert_eq!((log.released(), log.last(), log.last_term()), (60, 60, Some(&term(1))));
    }

    #[test]
    fn what_is_packed_is_there_like_the_rest() {
        let mut plain = log(&[1, 1, 2, 2, 2, 3, 3]);
        let mut packed = plain.clone();
        packed.pack(5, 0);
        assert_eq!((packed.released(), packed.last()), (5, 7));
        let all =
            |log: &EntryLog| -> Vec<Option<Entry>> { (0..=9).map(|seq| log.read(seq)).collect() };
        assert_eq!(all(&packed), all(&plain));
        assert!(packed.get(5).is_none() && packed.matches(5, Some(&term(2))));
        assert_eq!(
            packed.between(3, 99, usize::MAX),
            plain.between(3, 99, usize::MAX)[..3],
            "as far as it is packed"
        );
        assert_eq!(packed.between(4, 99, 1), plain.between(4, 99, 1));
        assert_eq!(packed.between(2, 4, usize::MAX), plain.between(2, 4, usize::MAX));
        assert_eq!(packed.between(6, 99, usize::MAX), plain.between(6, 99, usize::MAX));
        for log in [&mut packed, &mut plain] {
            log.forget_up_to(2);
        }
        assert_eq!(all(&packed), all(&plain));
        assert!(packed.between(2, 99, usize::MAX).is_empty());
        let conflict = Arc::new(Message { seq: Some(4), term: Some(term(4)), ..known() });
        for log in [&mut packed, &mut plain] {
            assert!(log.insert(conflict.clone()));
            log.append(Message::new(MessageType::Chat, "b"), term(4));
        }
        packed.pack(5, 0);
        assert_eq!((all(&packed), packed.end()), (all(&plain), plain.end()));
        packed.reset_to(9, Some(term(5)));
        assert_eq!(all(&packed), vec![None; 10]);
    }

    #[test]
    fn a_base_that_is_not_known_is_named_later() {
        let mut log = EntryLog::new();
        log.reset_to(4, None);
        log.insert(Arc::new(Message { seq: Some(5), term: Some(term(2)), ..known() }));
        assert!(log.base_is_unknown());
        log.reset_to(4, Some(term(1)));
        assert!(!log.base_is_unknown());
        assert_eq!((log.base(), log.last(), log.term_at(4)), (4, 5, Some(Some(&term(1)))));
    }

    #[test]
    fn a_snapshot_keeps_what_follows_it() {
        let mut fits = log(&[1, 1, 2]);
        fits.reset_to(2, Some(term(1)));
        assert_eq!((fits.base(), terms(&fits)), (2, vec![2]));
        let mut other = log(&[1, 1, 1]);
        other.reset_to(2, Some(term(2)));
        assert_eq!((other.base(), other.last()), (2, 2));
    }

    #[test]
    fn a_batch_is_bounded_and_never_empty_while_there_is_more() {
        let log = log(&[1; 10]);
        assert_eq!(log.between(4, 99, 1).len(), 1);
        assert_eq!(log.between(4, 99, usize::MAX).len(), 7);
        assert_eq!(log.between(4, 6, usize::MAX).len(), 3);
        assert!(log.between(11, 99, 1000).is_empty() && log.between(4, 3, 1000).is_empty());
    }
}
