//! Which record of the journal holds which entry.
//!
//! ```text
//!   records   7   8   9  10  11  12  13        10 is a vote
//!   entries   1   2   3   –   4   5   6    ⇒   runs  1 ⇒ 7 (3 entries)   4 ⇒ 11 (3 entries)
//! ```
//!
//! Records hold entries in order, with a few other records between them, so a handful of runs tells it for millions
//! of entries. An entry that was written again (a tail that was cut, a copy behind a snapshot) has its last record.

use std::collections::VecDeque;

use super::Seq;
use crate::storage::LogIndex;

/// Consecutive entries in consecutive records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    seq: Seq,
    record: LogIndex,
    entries: u64,
}

/// The record of each entry that is kept.
#[derive(Clone, Debug, Default)]
pub struct RecordIndex {
    runs: VecDeque<Run>,
}

impl RecordIndex {
    /// The entry at `seq` is the record at `record`. What was known of it and of all after it is forgotten.
    pub fn wrote(&mut self, seq: Seq, record: LogIndex) {
        self.cut_after(seq.saturating_sub(1));
        match self.runs.back_mut() {
            Some(run) if run.seq + run.entries == seq && run.record + run.entries == record => {
                run.entries += 1;
            }
            _ => self.runs.push_back(Run { seq, record, entries: 1 }),
        }
    }

    /// The record that holds the entry at `seq`.
    pub fn record_of(&self, seq: Seq) -> Option<LogIndex> {
        let after = self.runs.partition_point(|run| run.seq <= seq);
        let run = self.runs.get(after.checked_sub(1)?)?;
        (seq < run.seq + run.entries).then(|| run.record + (seq - run.seq))
    }

    /// The first entry that stands in the record `record` or in a later one; `None` when all stand before it.
    pub fn first_from(&self, record: LogIndex) -> Option<Seq> {
        let before = self.runs.partition_point(|run| run.record + run.entries <= record);
        let run = self.runs.get(before)?;
        Some(run.seq + record.saturating_sub(run.record))
    }

    /// Forgets the entries after `seq`.
    pub fn cut_after(&mut self, seq: Seq) {
        while self.runs.back().is_some_and(|run| run.seq > seq) {
            self.runs.pop_back();
        }
        if let Some(run) = self.runs.back_mut() {
            run.entries = run.entries.min(seq - run.seq + 1);
        }
    }

    /// Forgets the entries up to `seq`.
    pub fn forget_up_to(&mut self, seq: Seq) {
        while self.runs.front().is_some_and(|run| run.seq + run.entries <= seq + 1) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut()
            && run.seq <= seq
        {
            let gone = seq + 1 - run.seq;
            *run = Run { seq: seq + 1, record: run.record + gone, entries: run.entries - gone };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries 1 to 3 in records 7 to 9, 4 to 6 in 11 to 13.
    fn index() -> RecordIndex {
        let mut index = RecordIndex::default();
        for (seq, record) in [(1, 7), (2, 8), (3, 9), (4, 11), (5, 12), (6, 13)] {
            index.wrote(seq, record);
        }
        index
    }

    fn records(index: &RecordIndex) -> Vec<Option<LogIndex>> {
        (0..=7).map(|seq| index.record_of(seq)).collect()
    }

    #[test]
    fn each_entry_has_its_record() {
        let index = index();
        assert_eq!(index.runs.len(), 2);
        let all = [None, Some(7), Some(8), Some(9), Some(11), Some(12), Some(13), None];
        assert_eq!(records(&index), all);
    }

    #[test]
    fn each_record_has_its_next_entry() {
        let index = index();
        let firsts = [0, 7, 9, 10, 11, 13, 14].map(|record| index.first_from(record));
        let wanted = [Some(1), Some(1), Some(3), Some(4), Some(4), Some(6), None];
        assert_eq!(firsts, wanted);
        assert_eq!(RecordIndex::default().first_from(1), None);
    }

    #[test]
    fn an_entry_that_is_written_again_replaces_the_tail() {
        let mut index = index();
        index.wrote(3, 20);
        assert_eq!(records(&index)[1..=4], [Some(7), Some(8), Some(20), None]);
        index.wrote(4, 21);
        assert_eq!(index.record_of(4), Some(21));
    }

    #[test]
    fn what_is_forgotten_has_no_record() {
        let mut index = index();
        index.forget_up_to(4);
        assert_eq!(records(&index)[3..], [None, None, Some(12), Some(13), None]);
        index.forget_up_to(6);
        assert!(index.runs.is_empty());
        index.wrote(7, 30);
        assert_eq!(index.record_of(7), Some(30));
    }

    #[test]
    fn a_cut_before_the_first_entry_leaves_nothing() {
        let mut index = index();
        index.forget_up_to(2);
        index.cut_after(1);
        assert_eq!(records(&index), [None; 8]);
    }
}
