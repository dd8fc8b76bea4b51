//! The entries of one server, committed or not.
//!
//! ```text
//!   base                     last
//!    │  base+1  …             │        an entry that conflicts (same place, other term)
//!    └──[ e ][ e ][ e ][ e ][ e ]      replaces the one that stood there and cuts all after it
//! ```
//!
//! It holds no disk: who accepts an entry appends it to the journal, too. Reading the journal from the start, in
//! order, gives the same log again, cuts included.
//!
//! Source: Ongaro and Ousterhout (2014), section 5.3; design rule "tails are cut only where they conflict".

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Entry, Seq};
use crate::domain::{Message, Term};

/// Entries `base + 1 ..= last`, and the term of the one at `base`.
#[derive(Clone, Debug, Default)]
pub struct EntryLog {
    /// What stands before the first entry kept: 0, or the end of a snapshot or of what was forgotten.
    base: Seq,
    base_term: Option<Term>,
    entries: VecDeque<Entry>,
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

    /// The last place; `base` when nothing is kept.
    pub fn last(&self) -> Seq {
        self.base + self.entries.len() as Seq
    }

    /// The term of the entry at `last`; `None` for an empty log from the start.
    pub fn last_term(&self) -> Option<&Term> {
        self.entries.back().map_or(self.base_term.as_ref(), |entry| entry.term.as_ref())
    }

    /// Where the log ends: (term, place). The greater one is more up to date.
    pub fn end(&self) -> (Option<Term>, Seq) {
        (self.last_term().cloned(), self.last())
    }

    /// The entry at `seq`, if it is kept.
    pub fn get(&self, seq: Seq) -> Option<&Entry> {
        let at = seq.checked_sub(self.base + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// The term of the entry at `seq`. `Some(None)` for place 0, `None` when it is not known.
    pub fn term_at(&self, seq: Seq) -> Option<Option<&Term>> {
        if seq == self.base {
            return Some(self.base_term.as_ref());
        }
        self.get(seq).map(|entry| entry.term.as_ref())
    }

    /// Whether this log has an entry of `term` at `seq`; true for place 0 without a term, and for what
    /// stands before `base`, since only committed entries are forgotten.
    pub fn matches(&self, seq: Seq, term: Option<&Term>) -> bool {
        seq < self.base || self.term_at(seq) == Some(term)
    }

    /// Appends `msg` as the next entry of `term` and returns it, to be journalled and sent.
    pub fn append(&mut self, mut msg: Message, term: Term) -> Entry {
        msg.seq = Some(self.last() + 1);
        msg.term = Some(term);
        let entry = Arc::new(msg);
        self.entries.push_back(entry.clone());
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
        if self.get(seq).is_some_and(|known| known.term == entry.term) {
            return false;
        }
        self.cut_after(seq - 1);
        self.entries.push_back(entry);
        true
    }

    /// Forgets every entry after `seq`.
    pub fn cut_after(&mut self, seq: Seq) {
        let kept = seq.saturating_sub(self.base);
        self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// Forgets entries up to `seq`, which are committed and kept elsewhere.
    pub fn forget_up_to(&mut self, seq: Seq) {
        while self.base < seq {
            let Some(entry) = self.entries.pop_front() else { break };
            self.base += 1;
            self.base_term.clone_from(&entry.term);
        }
    }

    /// Starts again after a snapshot that ends at `seq` in `term`. Entries after it stay where they fit.
    pub fn reset_to(&mut self, seq: Seq, term: Option<Term>) {
        if self.term_at(seq) == Some(term.as_ref()) {
            self.forget_up_to(seq);
        } else {
            self.entries.clear();
        }
        (self.base, self.base_term) = (seq, term);
    }

    /// The entries from `first` on, as many as make up `bytes_max` of text at most, but one at least if there is one.
    pub fn from(&self, first: Seq, bytes_max: usize) -> Vec<Entry> {
        let skip = first.saturating_sub(self.base + 1);
        let mut bytes = 0;
        let all = self.entries.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        let fitting = all.take_while(|entry| {
            let first = bytes == 0;
            bytes += size_of_entry(entry);
            first || bytes <= bytes_max
        });
        fitting.cloned().collect()
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
        assert_eq!(log.from(4, 1).len(), 1);
        assert_eq!(log.from(4, usize::MAX).len(), 7);
        assert!(log.from(11, 1000).is_empty());
    }
}
