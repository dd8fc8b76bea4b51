//! The checker: did everyone see what the promise says?
//!
//! Each member of a room keeps a log of what it did and saw, in the order in which it happened to it. From
//! these logs alone follows what must hold:
//!
//! * *exactly once*: each member was shown each message once, and nothing that nobody wrote;
//! * *acknowledged*: each message was, and not before its writer was shown it;
//! * *causal order*: whoever is shown a message was shown before it everything that its writer had written or been
//!   shown before writing it;
//! * *one order*, where a design promises it: all members were shown all messages in the same order.

use std::collections::{BTreeMap, BTreeSet};

/// One thing that happened to a member. Messages are named by a text that is used once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It wrote a message; a second time means that it sent it again.
    Wrote(String),
    /// It was shown a message.
    Shown(String),
    /// Its message was acknowledged.
    Acked(String),
}

/// What happened to one member, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberLog {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

/// Complaints that one kind of fault may raise; after that nobody reads them.
const COMPLAINTS_MAX: usize = 20;

/// What is wrong with the history of members who were all there from the first message to the last; empty when
/// the promise was kept.
pub(crate) fn complaints(members: &[MemberLog]) -> Vec<String> {
    let mut all = not_exactly_once(members);
    all.extend(not_acknowledged(members));
    all.extend(out_of_order(members));
    all
}

fn written(members: &[MemberLog]) -> BTreeSet<&str> {
    let steps = members.iter().flat_map(|member| &member.steps);
    steps
        .filter_map(|step| match step {
            Step::Wrote(id) => Some(id.as_str()),
            _ => None,
        })
        .collect()
}

/// Messages that a member was not shown, or twice, or that nobody wrote.
pub(crate) fn not_exactly_once(members: &[MemberLog]) -> Vec<String> {
    let written = written(members);
    let mut complaints = Vec::new();
    for MemberLog { name, steps } in members {
        let mut times: BTreeMap<&str, u32> = written.iter().map(|id| (*id, 0)).collect();
        for step in steps {
            if let Step::Shown(id) = step {
                *times.entry(id).or_default() += 1;
            }
        }
        for (id, count) in times {
            if !written.contains(id) {
                complaints.push(format!("{name} was shown {id:?}, which nobody wrote"));
            } else if count != 1 {
                complaints.push(format!("{name} was shown {id:?} {count} times"));
            }
        }
    }
    complaints.truncate(COMPLAINTS_MAX);
    complaints
}

/// Messages without an acknowledgement, and acknowledgements that came too early or for nothing.
pub(crate) fn not_acknowledged(members: &[MemberLog]) -> Vec<String> {
    let mut complaints = Vec::new();
    for MemberLog { name, steps } in members {
        let mut open = BTreeSet::new();
        let (mut wrote, mut shown) = (BTreeSet::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Wrote(id) => {
                    if wrote.insert(id) {
                        open.insert(id);
                    }
                }
                Step::Shown(id) => drop(shown.insert(id)),
                Step::Acked(id) => {
                    open.remove(id);
                    if !wrote.contains(id) {
                        complaints.push(format!("{name} got an ACK for {id:?}, never written"));
                    } else if !shown.contains(id) {
                        complaints.push(format!("{name} got the ACK of {id:?} before seeing it"));
                    }
                }
            }
        }
        complaints.extend(open.iter().map(|id| format!("{id:?} of {name} was not acknowledged")));
    }
    complaints.truncate(COMPLAINTS_MAX);
    complaints
}

/// Members who were shown messages in another order than the first member, where one order for all is promised.
pub(crate) fn several_orders(members: &[MemberLog]) -> Vec<String> {
    let orders = members.iter().map(|MemberLog { name, steps }| {
        let shown = steps.iter().filter_map(|step| match step {
            Step::Shown(id) => Some(id.as_str()),
            _ => None,
        });
        (name, shown.collect::<Vec<_>>())
    });
    let orders: Vec<_> = orders.collect();
    let Some((first, order)) = orders.first() else { return Vec::new() };
    let differing = orders.iter().filter_map(|(name, other)| {
        let at = (0..order.len().max(other.len())).find(|at| order.get(*at) != other.get(*at))?;
        let (a, b) = (order.get(at), other.get(at));
        Some(format!("as number {} {first} was shown {a:?}, {name} {b:?}", at + 1))
    });
    differing.take(COMPLAINTS_MAX).collect()
}

/// Effects that were shown before their causes.
pub(crate) fn out_of_order(members: &[MemberLog]) -> Vec<String> {
    let mut complaints = Vec::new();
    for receiver in members {
        // Where the receiver was shown what; of a message that came twice the first time counts.
        let shown = receiver.steps.iter().filter_map(|step| match step {
            Step::Shown(id) => Some(id.as_str()),
            _ => None,
        });
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, id) in shown.enumerate() {
            places.entry(id).or_insert(place);
        }
        for writer in members {
            complaints.extend(effects_before_causes(receiver, &places, writer));
        }
    }
    complaints.truncate(COMPLAINTS_MAX);
    complaints
}

/// Messages of `writer` that the receiver, who saw everything at `places`, was shown before what the writer knew
/// when writing them. A cause that it never saw counts as seen too late.
fn effects_before_causes(
    receiver: &MemberLog,
    places: &BTreeMap<&str, usize>,
    writer: &MemberLog,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut wrote = BTreeSet::new();
    // Of all that the writer knows so far: what the receiver saw last.
    let mut last_cause: Option<(usize, &str)> = None;
    for step in &writer.steps {
        let (Step::Wrote(id) | Step::Shown(id)) = step else { continue };
        let place = places.get(id.as_str()).copied().unwrap_or(usize::MAX);
        if matches!(step, Step::Wrote(_))
            && wrote.insert(id)
            && let Some((_, cause)) = last_cause.filter(|(at, _)| *at > place)
        {
            complaints.push(format!(
                "{} was shown {id:?} before {cause:?}, which {} knew when writing it",
                receiver.name, writer.name
            ));
        }
        if last_cause.is_none_or(|(at, _)| at < place) {
            last_cause = Some((place, id));
        }
    }
    complaints
}
