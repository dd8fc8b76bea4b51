//! Why can I not write? What the answers of several servers mean, in sentences.
//!
//! ```text
//!   STATUS of n1 ─┐
//!   STATUS of n2 ─┼─▶ explain ─▶  Nobody can write: no majority. …      the verdict, first
//!   n3: refused  ─┘               n3 does not answer: …                 then what else is odd,
//!                                   → Start it again, …                 each with its remedy
//! ```
//!
//! One server's status tells how the cluster looks from there. Several, side by side, tell what no single one can: that
//! two halves do not hear each other, that one lags, that two copies differ.
//!
//! Promise: every sentence follows from what the servers said, and names who said it. Leaves out: causes that no
//! server can know, such as which cable is out.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::domain::NodeId;
use crate::domain::content::Status;

mod copies;
mod servers;
mod verdict;

/// What one server said, or why it said nothing.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whom was asked, `host:port`.
    pub address: String,
    /// Its status, or what went wrong, in words.
    pub status: Result<Status, String>,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// As it should be.
    Fine,
    /// Worth knowing; writing goes on.
    Note,
    /// Somebody has to do something.
    Trouble,
}

/// A sentence about the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub weight: Weight,
    /// What is the case.
    pub what: String,
    /// What to do about it; `None` where nothing is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn fine(what: String) -> Self {
        Self { weight: Weight::Fine, what, remedy: None }
    }

    fn note(what: String, remedy: &str) -> Self {
        Self { weight: Weight::Note, what, remedy: Some(remedy.into()) }
    }

    fn trouble(what: String, remedy: impl Into<String>) -> Self {
        Self { weight: Weight::Trouble, what, remedy: Some(remedy.into()) }
    }
}

/// What `answers` mean: first whether one can write, then what else is odd, the worst first.
pub fn explain(answers: &[Answer]) -> Vec<Finding> {
    let said: Vec<&Status> =
        answers.iter().filter_map(|answer| answer.status.as_ref().ok()).collect();
    let Some(first) = said.first() else { return vec![verdict::nobody_answers(answers)] };
    if let Some(mixed) = verdict::of_different_clusters(&said) {
        return vec![mixed];
    }
    let one_order = first.order.is_some();
    let verdict = if one_order { verdict::of_one_order(&said) } else { verdict::of_ring(&said) };
    let mut rest = servers::findings(answers, &said);
    rest.extend(copies::findings(&said));
    rest.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    std::iter::once(verdict).chain(rest).collect()
}

/// Every server that anyone names and that was not asked yet, as (id, address): whom to ask next.
pub fn not_asked(answers: &[Answer]) -> Vec<String> {
    let said = answers.iter().filter_map(|answer| answer.status.as_ref().ok());
    let asked: BTreeSet<&str> = answers.iter().map(|answer| answer.address.as_str()).collect();
    let answered: BTreeSet<&NodeId> = said.clone().map(|status| &status.node).collect();
    let named = said.flat_map(|status| &status.servers);
    let more = named.filter(|server| {
        !answered.contains(&server.id) && !asked.contains(server.address.as_str())
    });
    more.map(|server| server.address.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// `n1`, `n1 and n2`, `n1, n2 and n3`; `nobody` for none.
fn names<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> String {
    let ids: Vec<&str> = ids.into_iter().map(NodeId::as_str).collect();
    match ids.split_last() {
        None => "nobody".into(),
        Some((last, [])) => (*last).into(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests;
