//! When what was said: the last place of each millisecond in which somebody said something.
//!
//! ```text
//!   milliseconds    952   953   960  ‥        last_before(960) = 31
//!   last place       17    31    32  ‥
//! ```
//!
//! Three to five bytes for each of them, shared by all that is said in it.

use crate::domain::columns::ascending::Ascending;
use crate::server::total_order::Seq;

/// The places by their time; see the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    ms: Ascending,
    /// As many.
    places: Ascending,
    /// The last millisecond, and its last place so far.
    now: Option<(u64, Seq)>,
}

impl Times {
    /// The message at `seq`, behind all others, was said at `ms`, in milliseconds since 1970, or at an earlier time than the one
    /// before: then it counts as said with that.
    pub(super) fn push(&mut self, ms: u64, seq: Seq) {
        match &mut self.now {
            Some((now, last)) if ms <= *now => *last = seq,
            now => {
                if let Some((ms, last)) = now.replace((ms, seq)) {
                    self.ms.push(ms);
                    self.places.push(last);
                }
            }
        }
    }

    /// The last place with a time before `ms`; 0 when there is none.
    pub(super) fn last_before(&self, ms: u64) -> Seq {
        if let Some((_, seq)) = self.now.filter(|(now, _)| *now < ms) {
            return seq;
        }
        let before = self.ms.rank(ms).checked_sub(1);
        before.and_then(|at| self.places.get(at)).unwrap_or(0)
    }

    /// Forgets the places up to `seq`.
    pub(super) fn forget_up_to(&mut self, seq: Seq) {
        let kept = self.places.rank(seq + 1);
        if kept > 0 {
            let first = self.ms.get(kept).unwrap_or(u64::MAX);
            self.ms.retain(|ms| ms >= first);
            self.places.retain(|place| place > seq);
        }
        self.now = self.now.filter(|(_, last)| *last > seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_before_a_time_is_found() {
        let mut times = Times::default();
        assert_eq!(times.last_before(9), 0);
        for (ms, seq) in [(5, 1), (5, 2), (7, 4), (6, 5), (9, 8)] {
            times.push(ms, seq);
        }
        let found = |times: &Times| [0, 5, 6, 7, 8, 9, 10].map(|ms| times.last_before(ms));
        assert_eq!(found(&times), [0, 0, 2, 2, 5, 5, 8]);
        times.forget_up_to(1);
        assert_eq!(found(&times), [0, 0, 2, 2, 5, 5, 8]);
        times.forget_up_to(3);
        assert_eq!(found(&times), [0, 0, 0, 0, 5, 5, 8]);
        times.forget_up_to(5);
        assert_eq!(found(&times), [0, 0, 0, 0, 0, 0, 8]);
        times.forget_up_to(8);
        assert_eq!(found(&times), [0; 7]);
        times.push(9, 10);
        assert_eq!(times.last_before(10), 10);
    }
}
