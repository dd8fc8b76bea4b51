//! Names of things that must never be confused: nodes, their incarnations, terms.
//!
//! Ids compare in *natural order*: digits by their value (`n2 < n10`), ties (`n1`, `n01`) by bytes, so
//! that the order of a ring is the order that a person expects.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name of a node, a room or a user, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// Says why `name` cannot name a node, a room or a user; `None` when it can.
///
/// ```
/// use roundtable::domain::ids::name_fault;
/// assert_eq!(name_fault("lobby"), None);
/// assert_eq!(name_fault(""), Some("is empty".to_string()));
/// assert!(name_fault("a\nb").is_some());
/// ```
pub fn name_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty".into());
    }
    if name.chars().any(char::is_control) {
        return Some("has control characters".into());
    }
    let chars = name.chars().count();
    (chars > NAME_CHARS_MAX)
        .then(|| format!("is {chars} characters long, the limit is {NAME_CHARS_MAX}"))
}

/// Compares two names in natural order; equal only when they are the same bytes.
pub fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a.as_bytes(), b.as_bytes());
    while let (Some(p), Some(q)) = (x.first(), y.first()) {
        let order = if p.is_ascii_digit() && q.is_ascii_digit() {
            let (left, right) = (take_digits(&mut x), take_digits(&mut y));
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        } else {
            (x, y) = (&x[1..], &y[1..]);
            p.cmp(q)
        };
        if order.is_ne() {
            return order;
        }
    }
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

/// Splits the leading digits off `rest`; they come without leading zeros, so longer means greater.
fn take_digits<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|c| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    *rest = tail;
    let zeros = digits.iter().take_while(|c| **c == b'0').count();
    &digits[zeros..]
}

/// The name of a server, unique in its cluster (`--id`). Sorts naturally; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(Arc<str>);

/// One life of a server: `n1.3-9f2c` is the third start of `n1`, with a random part.
///
/// Vector clocks and terms name incarnations rather than nodes: an entry can then never be used
/// twice, not even by a node whose disk lost its tail or was wiped, since the random part differs.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(Arc<str>);

macro_rules! name_type {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }
        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
    };
}
name_type!(NodeId);
name_type!(Incarnation);

impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        natural_cmp(&self.0, &other.0)
    }
}

impl Ord for Incarnation {
    /// By bytes: people never see this order, and clocks compare incarnations at every step.
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

/// So that a map of incarnations is asked with a text. Both compare by bytes.
impl Borrow<str> for Incarnation {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Incarnation {
    /// The incarnation of `node` at its `start`-th start (1, 2, …), with `random` drawn at that start.
    pub fn new(node: &NodeId, start: u64, random: u16) -> Self {
        Self(format!("{node}.{start}-{random:04x}").into())
    }

    /// The node that lived this life. A node id may hold dots, hence the split at the last one.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.0.rsplit_once('.').map_or(&*self.0, |(node, _)| node).into())
    }
}

/// The number of an election, with the incarnation of its winner.
///
/// Two sides of a partition may each elect in the same round, so the counter alone is not unique; the
/// winner's incarnation makes it so. Terms compare by counter first; the higher one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Term {
    /// Counts election rounds, from 1.
    pub counter: u64,
    /// Who won the round.
    pub leader: Incarnation,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.counter, self.leader.node_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_compare_by_value_and_ties_by_bytes() {
        let mut ids: Vec<NodeId> =
            ["n10", "n2", "n1", "n01", "n", "m9", "n2b10", "n2b9"].map(NodeId::from).into();
        ids.sort();
        let sorted: Vec<&str> = ids.iter().map(NodeId::as_str).collect();
        assert_eq!(sorted, ["m9", "n", "n01", "n1", "n2", "n2b9", "n2b10", "n10"]);
    }

    #[test]
    fn an_incarnation_knows_its_node_even_when_the_id_has_dots() {
        let id = NodeId::from("rack.1");
        let incarnation = Incarnation::new(&id, 3, 0x9f2c);
        assert_eq!(incarnation.as_str(), "rack.1.3-9f2c");
        assert_eq!(incarnation.node_id(), id);
    }

    #[test]
    fn names_are_refused_with_the_reason() {
        assert_eq!(name_fault(&"ü".repeat(64)), None);
        let long = name_fault(&"ü".repeat(65)).unwrap();
        assert_eq!(long, "is 65 characters long, the limit is 64");
        assert_eq!(name_fault("a\u{7}"), Some("has control characters".into()));
    }

    proptest! {
        #[test]
        fn natural_order_is_total(a in "[a-c0-2]{0,6}", b in "[a-c0-2]{0,6}", c in "[a-c0-2]{0,6}") {
            prop_assert_eq!(natural_cmp(&a, &b), natural_cmp(&b, &a).reverse());
            prop_assert_eq!(natural_cmp(&a, &b).is_eq(), a == b);
            if natural_cmp(&a, &b).is_le() && natural_cmp(&b, &c).is_le() {
                prop_assert!(natural_cmp(&a, &c).is_le());
            }
        }
    }
}
