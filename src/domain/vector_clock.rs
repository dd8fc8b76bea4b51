//! Causal time: how many messages of each server incarnation someone has seen in one room.
//!
//! ```text
//!   n1  ──m1──────────●──────────    m1 = {n1:1}
//!              ╲                      m2 = {n1:1, n2:1}   m1 happened before m2
//!   n2  ────────●──m2────────────    m3 = {n3:1}         concurrent with both
//!   n3  ──m3────────────────●────
//! ```
//!
//! Entries are server *incarnations* ([`Incarnation`]), not clients, so a clock stays small, and an
//! entry is never used twice. An entry that is absent counts as 0.
//!
//! Source: class-diagram.txt, `VectorClock`; Fidge (1988), Mattern (1989). The readiness rule is that of
//! causal broadcast by Birman, Schiper and Stephenson (1991).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::Incarnation;

/// A map from incarnation to the number of its messages in one room. `copy` of the diagram is [`Clone`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VectorClock {
    /// Messages counted per incarnation; absent means 0.
    pub timestamps: BTreeMap<Incarnation, u64>,
}

impl VectorClock {
    /// The clock of someone who has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The diagram's `copy`: an independent clock with the same entries.
    #[must_use]
    pub fn copy(&self) -> Self {
        self.clone()
    }

    /// The entry of `node_id`, 0 when absent.
    pub fn get(&self, node_id: &Incarnation) -> u64 {
        self.timestamps.get(node_id).copied().unwrap_or(0)
    }

    /// Raises the entry of `node_id` to `count`; a lower count changes nothing.
    pub fn raise(&mut self, node_id: &Incarnation, count: u64) {
        match self.timestamps.get_mut(node_id) {
            Some(entry) => *entry = count.max(*entry),
            None if count > 0 => {
                self.timestamps.insert(node_id.clone(), count);
            }
            None => {}
        }
    }

    /// Counts one more message of `node_id` and returns the new entry.
    pub fn increment(&mut self, node_id: &Incarnation) -> u64 {
        let count = self.get(node_id) + 1;
        self.raise(node_id, count);
        count
    }

    /// Takes the greater of both entries, everywhere.
    pub fn merge(&mut self, other: &Self) {
        for (node_id, count) in &other.timestamps {
            self.raise(node_id, *count);
        }
    }

    /// The diagram's `compare`; `None` when the clocks are concurrent. The same as [`PartialOrd`].
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }

    /// Whether everything counted by `other` is counted here too.
    pub fn covers(&self, other: &Self) -> bool {
        other.timestamps.iter().all(|(node_id, count)| self.get(node_id) >= *count)
    }

    /// Whether a message stamped `other` by `sender_id` may be delivered by someone at `self`: it is the
    /// sender's next one, and everything that the sender had seen is here.
    ///
    /// `other` may leave out entries that did not change since the sender's message before it: that one
    /// must be here already, and what it needed with it.
    ///
    /// ```
    /// use roundtable::domain::{Incarnation, VectorClock};
    /// let (n1, n2) = (Incarnation::from("n1.1-0000"), Incarnation::from("n2.1-0000"));
    /// let mut here = VectorClock::new();
    /// let mut stamp = VectorClock::new();
    /// stamp.raise(&n1, 1);
    /// stamp.raise(&n2, 1); // n2 had seen n1's first message when it wrote its own first
    /// assert!(!here.is_causally_ready(&stamp, &n2));
    /// here.increment(&n1);
    /// assert!(here.is_causally_ready(&stamp, &n2));
    /// ```
    pub fn is_causally_ready(&self, other: &Self, sender_id: &Incarnation) -> bool {
        other.timestamps.iter().all(|(node_id, count)| {
            if node_id == sender_id {
                *count == self.get(sender_id) + 1
            } else {
                self.get(node_id) >= *count
            }
        }) && other.get(sender_id) > 0
    }

    /// The entries of `self` that `base` does not reach: what someone at `base` lacks.
    #[must_use]
    pub fn beyond(&self, base: &Self) -> Self {
        let news = self.timestamps.iter().filter(|(node_id, count)| **count > base.get(node_id));
        Self { timestamps: news.map(|(node_id, count)| (node_id.clone(), *count)).collect() }
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }
}

impl PartialOrd for VectorClock {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.compare(other)
    }
}

impl fmt::Display for VectorClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries: Vec<String> =
            self.timestamps.iter().map(|(node_id, count)| format!("{node_id}:{count}")).collect();
        write!(f, "{{{}}}", entries.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `clock("a1 b2")` counts 1 for `a` and 2 for `b`.
    fn clock(text: &str) -> VectorClock {
        let mut clock = VectorClock::new();
        for word in text.split_whitespace() {
            clock.raise(&word[..1].into(), word[1..].parse().unwrap());
        }
        clock
    }

    #[test]
    fn clocks_compare_as_the_textbook_says() {
        let table = [
            ("a1", "a1", Some(Ordering::Equal)),
            ("", "a1", Some(Ordering::Less)),
            ("a2 b1", "a1 b1", Some(Ordering::Greater)),
            ("a1", "b1", None),
            ("a2 b1", "a1 b2", None),
        ];
        for (left, right, expected) in table {
            assert_eq!(clock(left).partial_cmp(&clock(right)), expected, "{left} ? {right}");
        }
    }

    #[test]
    fn a_message_is_ready_when_its_past_is_here_and_it_is_the_next_one() {
        let table = [
            ("", "a1", true),
            ("a1", "a2", true),
            ("a1", "a3", false),   // a2 is missing
            ("a1", "a1", false),   // seen already
            ("", "a1 b1", false),  // b1 happened before and is missing
            ("b1", "a1 b1", true), // b1 is here
            ("b7", "a1", true),    // more than needed
            ("a4 b1", "a5", true), // unchanged entries are left out
            ("a1", "b1", false),   // not stamped by its sender at all
        ];
        for (here, stamp, expected) in table {
            let ready = clock(here).is_causally_ready(&clock(stamp), &"a".into());
            assert_eq!(ready, expected, "at {here:?}: {stamp:?}");
        }
    }

    #[test]
    fn beyond_names_what_the_other_lacks() {
        assert_eq!(clock("a3 b1 c2").beyond(&clock("a1 b1")), clock("a3 c2"));
    }

    #[test]
    fn the_wire_form_is_a_plain_object() {
        assert_eq!(serde_json::to_string(&clock("b2 a1")).unwrap(), r#"{"a":1,"b":2}"#);
    }

    fn any_clock() -> impl Strategy<Value = VectorClock> {
        proptest::collection::btree_map("[a-d]", 1..4u64, 0..4).prop_map(|entries| VectorClock {
            timestamps: entries.into_iter().map(|(k, v)| (k.into(), v)).collect(),
        })
    }

    proptest! {
        #[test]
        fn merge_is_the_least_clock_that_covers_both(a in any_clock(), b in any_clock()) {
            let mut both = a.copy();
            both.merge(&b);
            prop_assert!(both.covers(&a) && both.covers(&b));
            for (node_id, count) in &both.timestamps {
                prop_assert_eq!(*count, a.get(node_id).max(b.get(node_id)));
            }
        }

        #[test]
        fn compare_is_antisymmetric(a in any_clock(), b in any_clock()) {
            prop_assert_eq!(a.compare(&b), b.compare(&a).map(Ordering::reverse));
        }
    }
}
