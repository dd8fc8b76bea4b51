//! The last message ids of one session, in the order in which they came.
//!
//! ```text
//!   s-1 s-2 s-3 s-4 s-7 s-8 "9f2c…" s-9    ⇒    1..5 │ 7..9 │ "9f2c…" │ 9..10      runs of numbers, and other ids as they are
//! ```
//!
//! Ids are `<session>-<n>` with n growing, as this project's clients make them: then all 1,024 are one run, of 24 bytes, and to
//! look one up is to compare two numbers. Whoever leaves numbers out has more runs, 1,024 at most, of which each is looked
//! at: a microsecond. Other ids are in a hash table besides.

#![expect(clippy::disallowed_types, reason = "asked for one id at a time, never gone through")]

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::SESSION_IDS_MAX;

/// A message id, seen from its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Id<'a> {
    /// The n of `<session>-<n>`, where no other text has this n.
    Number(u64),
    /// Any other id.
    Text(&'a str),
}

impl<'a> Id<'a> {
    /// What `message_id` is to `session`.
    pub(super) fn of(session: &str, message_id: &'a str) -> Self {
        match number(session, message_id) {
            // With a zero in front it is another text than the one that the number stands for.
            Some((n, digits)) if n < u64::MAX && is_plain(digits) => Self::Number(n),
            _ => Self::Text(message_id),
        }
    }
}

/// Whether a number is written in one way only.
fn is_plain(digits: &str) -> bool {
    digits == "0" || digits.starts_with(|first: char| ('1'..='9').contains(&first))
}

/// The n of `<session>-<n>`, and as it is written.
fn number<'a>(session: &str, message_id: &'a str) -> Option<(u64, &'a str)> {
    let digits = message_id.strip_prefix(session)?.strip_prefix('-')?;
    Some((digits.parse().ok()?, digits))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Run {
    Numbers(Range<u64>),
    Text(Arc<str>),
}

/// The last message ids of a session; see the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Oldest first.
    runs: VecDeque<Run>,
    /// Those among them that are texts.
    texts: HashSet<Arc<str>>,
    /// How many ids they are.
    len: usize,
    /// Ids with a number below this may have been forgotten.
    pub(super) forgotten: u64,
}

impl Seen {
    /// Whether it is one of them.
    pub(super) fn contains(&self, id: Id) -> bool {
        match id {
            Id::Number(n) => {
                // What is asked for is most often the last one, or new.
                self.runs
                    .iter()
                    .rev()
                    .any(|run| matches!(run, Run::Numbers(run) if run.contains(&n)))
            }
            Id::Text(text) => self.texts.contains(text),
        }
    }

    /// Whether it may have been one of them.
    pub(super) fn has_forgotten(&self, session: &str, id: Id) -> bool {
        let n = match id {
            Id::Number(n) => Some(n),
            Id::Text(text) => number(session, text).map(|(n, _)| n),
        };
        n.is_some_and(|n| n < self.forgotten)
    }

    /// Adds one, if it is new. The oldest goes when they are too many.
    pub(super) fn push(&mut self, session: &str, id: Id) {
        if self.contains(id) {
            return;
        }
        match (id, self.runs.back_mut()) {
            (Id::Number(n), Some(Run::Numbers(run))) if run.end == n => run.end += 1,
            (Id::Number(n), _) => self.runs.push_back(Run::Numbers(n..n + 1)),
            (Id::Text(text), _) => {
                let text: Arc<str> = text.into();
                self.texts.insert(text.clone());
                self.runs.push_back(Run::Text(text));
            }
        }
        self.len += 1;
        if self.len > SESSION_IDS_MAX {
            self.forget_oldest(session);
        }
    }

    fn forget_oldest(&mut self, session: &str) {
        let oldest = match self.runs.front_mut() {
            Some(Run::Numbers(run)) => run.next(),
            Some(Run::Text(text)) => {
                self.texts.remove(text);
                number(session, text).map(|(n, _)| n)
            }
            None => None,
        };
        if self.runs.front().is_some_and(|run| !matches!(run, Run::Numbers(run) if !run.is_empty()))
        {
            self.runs.pop_front();
        }
        self.len -= 1;
        let beyond = oldest.map_or(0, |n| n.saturating_add(1));
        self.forgotten = self.forgotten.max(beyond);
    }

    /// All of them as texts, oldest first.
    pub(super) fn to_texts(&self, session: &str) -> Vec<String> {
        let texts = self.runs.iter().flat_map(|run| {
            let (numbers, text) = match run {
                Run::Numbers(run) => (run.clone(), None),
                Run::Text(text) => (0..0, Some(text.to_string())),
            };
            numbers.map(|n| format!("{session}-{n}")).chain(text)
        });
        texts.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    /// As plain as can be.
    #[derive(Default)]
    struct Plain {
        ids: VecDeque<String>,
        known: BTreeSet<String>,
        forgotten: u64,
    }

    impl Plain {
        fn push(&mut self, id: &str) {
            if self.known.insert(id.into()) {
                self.ids.push_back(id.into());
            }
            if self.ids.len() > SESSION_IDS_MAX {
                let oldest = self.ids.pop_front().unwrap();
                self.known.remove(&oldest);
                let beyond = number("s", &oldest).map_or(0, |(n, _)| n.saturating_add(1));
                self.forgotten = self.forgotten.max(beyond);
            }
        }
    }

    fn ids() -> impl Strategy<Value = Vec<String>> {
        let growing = (0..3000u64, 1..1200u64).prop_map(|(first, count)| {
            (first..first + count).map(|n| format!("s-{n}")).collect::<Vec<_>>()
        });
        let other = prop_oneof![
            (0..2000u64).prop_map(|n| format!("s-{n}")),
            (0..50u64).prop_map(|n| format!("s-0{n}")),
            (0..50u64).prop_map(|n| format!("s-+{n}")),
            (0..50u64).prop_map(|n| format!("other-{n}")),
            Just(format!("s-{}", u64::MAX)),
            Just(format!("s-{}", u64::MAX - 1)),
            Just(String::new()),
        ];
        let other = proptest::collection::vec(other, 1..40);
        let parts = proptest::collection::vec(prop_oneof![growing, other], 1..6);
        parts.prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn they_are_what_a_row_of_texts_would_be(ids in ids()) {
            let (mut seen, mut plain) = (Seen::default(), Plain::default());
            for id in &ids {
                prop_assert_eq!(seen.contains(Id::of("s", id)), plain.known.contains(id));
                seen.push("s", Id::of("s", id));
                plain.push(id);
                prop_assert_eq!((seen.len, seen.forgotten), (plain.ids.len(), plain.forgotten));
            }
            prop_assert_eq!(seen.to_texts("s"), Vec::from(plain.ids));
            for id in &ids {
                prop_assert_eq!(seen.contains(Id::of("s", id)), plain.known.contains(id));
            }
        }
    }

    #[test]
    fn numbers_that_grow_are_one_run() {
        let mut seen = Seen::default();
        for n in 1..=5000 {
            seen.push("s", Id::of("s", &format!("s-{n}")));
        }
        assert_eq!(seen.runs, [Run::Numbers(5001 - SESSION_IDS_MAX as u64..5001)]);
        assert!(seen.has_forgotten("s", Id::Number(7)) && !seen.contains(Id::Number(7)));
    }

    #[test]
    fn a_number_that_is_written_in_another_way_is_another_id() {
        assert_eq!(Id::of("s", "s-7"), Id::Number(7));
        assert_eq!(Id::of("s", "s-0"), Id::Number(0));
        for other in ["s-07", "s-+7", "s-", "s7", "t-7", "s-00", "s-18446744073709551615"] {
            assert_eq!(Id::of("s", other), Id::Text(other));
        }
    }
}
