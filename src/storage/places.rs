//! Where each record stands: a sparse index of the log, kept in memory.
//!
//! ```text
//!   segment 3, records 9001 …            segment 4, records 21007 …
//!   ├──────────┬──────────┬─────────┤    ├──────────┬────────┤
//!   9001       12300      15444          21007      24100         a place every 1 MiB or 4096 records,
//!                                                                 and never further than twice that
//! ```
//!
//! To read record 13000, go to segment 3, to the place of 12300, and skip 700 lines. 16 bytes a MiB: a log of
//! 100 GiB costs less than 2 MiB. Only durable records are in it, so a reader never meets a line that is
//! being written.

use std::collections::VecDeque;

use super::LogIndex;

/// A place follows the one before it after so many bytes,
const PLACE_BYTES: u64 = 1 << 20;
/// or after so many records.
const PLACE_RECORDS: u64 = 4096;

/// A record, and where its line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The record.
    pub index: LogIndex,
    /// How much stands before it, in bytes: in its segment, or in its batch.
    pub offset: u64,
}

impl Place {
    /// Whether `next` is far enough behind this one to be remembered.
    pub fn is_far_from(&self, next: &Self) -> bool {
        next.offset - self.offset >= PLACE_BYTES || next.index - self.index >= PLACE_RECORDS
    }
}

/// What is known of one segment.
#[derive(Clone, Debug)]
struct SegmentPlaces {
    number: u64,
    /// Never empty: its first record, also while there is none yet; then some of those behind it.
    places: Vec<Place>,
    /// The index after its last record.
    end: LogIndex,
    /// How long its records are together.
    bytes: u64,
}

impl SegmentPlaces {
    fn first(&self) -> LogIndex {
        self.places.first().map_or(self.end, |place| place.index)
    }
}

/// A part of a segment to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The segment.
    pub(super) number: u64,
    /// Its first record.
    pub(super) first: LogIndex,
    /// Where to begin reading, at `from` or before it.
    pub(super) place: Place,
    /// The record that was looked for, or the first one kept when that is later.
    pub(super) from: LogIndex,
    /// The index after the segment's last durable record.
    pub(super) end: LogIndex,
}

/// The places of a whole log.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// In the order of their numbers, without a gap.
    segments: VecDeque<SegmentPlaces>,
}

impl Places {
    /// Notes that segment `number` holds the records from `first` up to, not including, `end` behind those already
    /// noted, `bytes` of them. `marks` are some of their places: the first of them, then some behind it, with
    /// offsets from it.
    pub(super) fn extend(&mut self, number: u64, marks: &[Place], end: LogIndex, bytes: u64) {
        let is_new = self.segments.back().is_none_or(|last| last.number != number);
        if is_new {
            let index = marks.first().map_or(end, |first| first.index);
            let places = vec![Place { index, offset: 0 }];
            self.segments.push_back(SegmentPlaces { number, places, end: index, bytes: 0 });
        }
        let Some(segment) = self.segments.back_mut() else { return };
        let before = segment.bytes;
        for mark in marks {
            let place = Place { index: mark.index, offset: before + mark.offset };
            if segment.places.last().is_some_and(|last| last.is_far_from(&place)) {
                segment.places.push(place);
            }
        }
        segment.end = end;
        segment.bytes += bytes;
    }

    /// Where to read record `index`, or the first one kept when that is later. `None` when it is not durable yet.
    pub(super) fn find(&self, index: LogIndex) -> Option<Span> {
        let from = self.segments.front()?.first().max(index);
        let at = self.segments.partition_point(|segment| segment.end <= from);
        let segment = self.segments.get(at)?;
        let behind = segment.places.partition_point(|place| place.index <= from);
        let place = *segment.places.get(behind.checked_sub(1)?)?;
        let first = segment.first();
        Some(Span { number: segment.number, first, place, from, end: segment.end })
    }

    /// The first segment that is needed when no record below `index` is. The last one always is. `None` when that
    /// changes nothing.
    pub(super) fn first_needed(&self, index: LogIndex) -> Option<u64> {
        let begun = self.segments.partition_point(|segment| segment.first() <= index);
        let at = begun.checked_sub(1).filter(|at| *at > 0)?;
        self.segments.get(at).map(|segment| segment.number)
    }

    /// Drops the segments before `number`, and returns their numbers.
    pub(super) fn forget(&mut self, number: u64) -> Vec<u64> {
        let kept = self.segments.partition_point(|segment| segment.number < number);
        self.segments.drain(..kept).map(|segment| segment.number).collect()
    }

    /// See [`Storage::first_within`](super::Storage::first_within).
    pub(super) fn first_within(&self, bytes: u64) -> LogIndex {
        let mut left = bytes;
        for segment in self.segments.iter().rev() {
            if left < segment.bytes {
                let cut = segment.bytes - left;
                let behind = segment.places.partition_point(|place| place.offset <= cut);
                let place = segment.places.get(behind.saturating_sub(1));
                return place.map_or(segment.end, |place| place.index);
            }
            left -= segment.bytes;
        }
        self.segments.front().map_or(1, SegmentPlaces::first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(index: LogIndex, offset: u64) -> Place {
        Place { index, offset }
    }

    /// Segment 3 with records 1 to 10000, 100 bytes each, segment 4 with 10001 to 10300, 10,000 bytes each.
    fn filled() -> Places {
        let mut places = Places::default();
        for batch in 0..100 {
            let first = 1 + 100 * batch;
            places.extend(3, &[mark(first, 0)], first + 100, 10_000);
        }
        places.extend(4, &[mark(10_001, 0), mark(10_150, 1_490_000)], 10_301, 3_000_000);
        places
    }

    #[test]
    fn a_record_is_found_from_the_last_place_before_it() {
        let places = filled();
        let table = [
            (0, 3, mark(1, 0), 1),
            (4096, 3, mark(1, 0), 4096),
            // Batches begin at 1, 101, …: the first one that is 4096 records on.
            (4101, 3, mark(4101, 410_000), 4101),
            (10_000, 3, mark(8201, 820_000), 10_000),
            (10_001, 4, mark(10_001, 0), 10_001),
            (10_149, 4, mark(10_001, 0), 10_149),
            (10_300, 4, mark(10_150, 1_490_000), 10_300),
        ];
        for (index, number, place, from) in table {
            let span = places.find(index).unwrap();
            assert_eq!((span.number, span.place, span.from), (number, place, from), "{index}");
        }
        assert_eq!(places.find(10_301), None);
        assert_eq!(Places::default().find(1), None);
    }

    #[test]
    fn only_whole_segments_are_forgotten_and_never_the_last() {
        let places = filled();
        let needed = [0, 1, 10_000, 10_001, 10_300, u64::MAX].map(|i| places.first_needed(i));
        assert_eq!(needed, [None, None, None, Some(4), Some(4), Some(4)]);
        let mut places = filled();
        assert_eq!(places.forget(4), [3]);
        let span = places.find(1).unwrap();
        assert_eq!((span.number, span.from), (4, 10_001));
        assert_eq!(Places::default().first_needed(5), None);
    }

    #[test]
    fn an_empty_tail_counts_as_begun() {
        let mut places = filled();
        places.extend(5, &[], 10_301, 0);
        assert_eq!(places.first_needed(10_301), Some(5));
        assert_eq!(places.find(10_301), None);
        places.extend(5, &[mark(10_301, 0)], 10_302, 100);
        assert_eq!(places.find(10_301).map(|span| span.place), Some(mark(10_301, 0)));
    }

    #[test]
    fn what_fits_into_some_bytes_is_kept_and_no_place_more() {
        let places = filled();
        let table = [
            (0, 10_150), // One place too many rather than one record too few.
            (2_000_000, 10_001),
            (3_000_000, 8201),
            (3_500_000, 4101),
            (4_000_000, 1),
            (u64::MAX, 1),
        ];
        for (bytes, first) in table {
            assert_eq!(places.first_within(bytes), first, "{bytes}");
        }
    }
}
