//! Ascending numbers that stand close to each other, in little more than a byte each.
//!
//! ```text
//!   numbers   7   8   9  12   ‥          40  41   ‥
//!   marks    (7, 0)                     (40, 31)         every 32nd number, and where the gaps behind it begin
//!   gaps         1   1   3   ‥               1   ‥       to the number before; a large one takes more bytes
//! ```
//!
//! A lookup goes to the mark before, and adds up to 31 gaps.

use std::iter;

/// A mark stands at every so many numbers: half a byte for each of them.
const MARK_EVERY: usize = 32;
/// What a byte of a gap holds; the highest bit says that another byte follows.
const GAP_BITS: u32 = 7;

/// Ascending numbers; see the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ascending {
    marks: Vec<Mark>,
    gaps: Vec<u8>,
    len: usize,
    last: u64,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    number: u64,
    /// Where the gap to the next number begins.
    gaps_at: usize,
}

impl Ascending {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends `number`, which must be above all others.
    pub(crate) fn push(&mut self, number: u64) {
        debug_assert!(self.len == 0 || number > self.last, "{number} after {}", self.last);
        if self.len.is_multiple_of(MARK_EVERY) {
            self.marks.push(Mark { number, gaps_at: self.gaps.len() });
        } else {
            let mut gap = number - self.last;
            while gap >> GAP_BITS > 0 {
                self.gaps.push(gap as u8 | 1 << GAP_BITS);
                gap >>= GAP_BITS;
            }
            self.gaps.push(gap as u8);
        }
        self.len += 1;
        self.last = number;
    }

    /// Forgets those that are not to be kept; the others move up.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(u64) -> bool) {
        let mut kept = Self::default();
        self.iter_from(0).filter(|number| is_kept(*number)).for_each(|number| kept.push(number));
        *self = kept;
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<u64> {
        (self.len > 0).then_some(self.last)
    }

    /// The one at `index`, from 0.
    pub(crate) fn get(&self, index: usize) -> Option<u64> {
        self.iter_from(index).next()
    }

    /// Those from `index` on.
    pub(crate) fn iter_from(&self, index: usize) -> impl Iterator<Item = u64> {
        let index = index.min(self.len);
        let skipped = index % MARK_EVERY;
        self.iter_from_mark(index / MARK_EVERY).skip(skipped)
    }

    /// How many are below `number`.
    pub(crate) fn rank(&self, number: u64) -> usize {
        if number > self.last {
            return self.len;
        }
        let Some(mark) = self.marks.partition_point(|mark| mark.number < number).checked_sub(1)
        else {
            return 0;
        };
        let below = self.iter_from_mark(mark).take_while(|found| *found < number);
        mark * MARK_EVERY + below.count()
    }

    /// Those from the mark with this index on.
    fn iter_from_mark(&self, mark: usize) -> impl Iterator<Item = u64> {
        let mut index = mark * MARK_EVERY;
        let mut gaps = self.marks.get(mark).map_or(&[][..], |mark| &self.gaps[mark.gaps_at..]);
        let mut number = 0;
        iter::from_fn(move || {
            if index >= self.len {
                return None;
            }
            number = match index % MARK_EVERY {
                0 => self.marks.get(index / MARK_EVERY)?.number,
                _ => number + take_gap(&mut gaps),
            };
            index += 1;
            Some(number)
        })
    }
}

/// Takes a gap from the front of `bytes`.
fn take_gap(bytes: &mut &[u8]) -> u64 {
    let (mut gap, mut shift) = (0, 0);
    while let Some((byte, rest)) = bytes.split_first() {
        *bytes = rest;
        gap |= u64::from(byte & !(1 << GAP_BITS)) << shift;
        if byte >> GAP_BITS == 0 {
            break;
        }
        shift += GAP_BITS;
    }
    gap
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_list(gaps in proptest::collection::vec(prop_oneof![1u64..3, 1u64..300, 1u64..1 << 40], 0..200)) {
            let mut numbers = Vec::new();
            let mut ascending = Ascending::default();
            for gap in gaps {
                numbers.push(numbers.last().unwrap_or(&0) + gap);
                ascending.push(numbers[numbers.len() - 1]);
            }
            prop_assert_eq!(ascending.len(), numbers.len());
            prop_assert_eq!(ascending.get(numbers.len()), None);
            for (index, number) in numbers.iter().enumerate() {
                prop_assert_eq!(ascending.get(index), Some(*number));
                prop_assert_eq!(ascending.iter_from(index).collect::<Vec<_>>(), &numbers[index..]);
                for probe in [number - 1, *number, number + 1] {
                    prop_assert_eq!(ascending.rank(probe), numbers.partition_point(|n| *n < probe));
                }
            }
        }
    }

    #[test]
    fn those_that_are_kept_move_up() {
        let mut ascending = Ascending::default();
        assert_eq!(ascending.last(), None);
        (0..1000).for_each(|number| ascending.push(number));
        ascending.retain(|number| number > 900 && number % 2 == 0);
        assert_eq!(ascending.iter_from(0).collect::<Vec<_>>().len(), 49);
        assert_eq!((ascending.get(0), ascending.last()), (Some(902), Some(998)));
        ascending.push(5000);
        assert_eq!((ascending.get(49), ascending.rank(5000)), (Some(5000), 49));
    }

    #[test]
    fn a_million_neighbours_take_a_byte_and_a_half_each() {
        let mut ascending = Ascending::default();
        (0..1_000_000).for_each(|number| ascending.push(number));
        let bytes = ascending.gaps.len() + ascending.marks.len() * size_of::<Mark>();
        assert!(bytes < 1_500_000, "{bytes}");
    }
}
