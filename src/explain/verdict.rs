//! Can one write?

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Finding, names};
use crate::domain::NodeId;
use crate::domain::content::{Liveness, Status};

/// Nobody said anything.
pub(super) fn nobody_answers(answers: &[Answer]) -> Finding {
    let failed = answers.iter().filter_map(|answer| {
        let reason = answer.status.as_ref().err()?;
        Some(format!("{}: {reason}", answer.address))
    });
    let failed: Vec<String> = failed.collect();
    let what = match failed.as_slice() {
        [] => "No server is known.".into(),
        failed => format!("No server answers ({}).", failed.join("; ")),
    };
    Finding::trouble(what, "Start a server, or name one that runs: --connect HOST:PORT.")
}

/// The addresses belong to several clusters, or to servers of several designs.
pub(super) fn of_different_clusters(said: &[&Status]) -> Option<Finding> {
    let mut kinds: BTreeMap<(&str, &str), BTreeSet<&NodeId>> = BTreeMap::new();
    for status in said {
        let kind = (status.cluster.as_str(), status.design.as_str());
        kinds.entry(kind).or_default().insert(&status.node);
    }
    if kinds.len() < 2 {
        return None;
    }
    let parts = kinds.into_iter().map(|((cluster, design), nodes)| {
        format!("{}: cluster {cluster}, design {design}", names(nodes))
    });
    let parts: Vec<String> = parts.collect();
    Some(Finding::trouble(
        format!("These servers do not belong together ({}).", parts.join("; ")),
        "Name the servers of one cluster only, or give them the same --cluster and --design.",
    ))
}

/// Whoever answered, and whoever one of those hears.
fn here<'a>(said: &[&'a Status]) -> BTreeSet<&'a NodeId> {
    let heard = said.iter().flat_map(|status| &status.servers);
    let heard = heard.filter(|server| server.state == Liveness::Alive).map(|server| &server.id);
    heard.chain(said.iter().map(|status| &status.node)).collect()
}

/// Designs `sequencer` and `raft`: there must be a leader, hence a majority.
pub(super) fn of_one_order(said: &[&Status]) -> Finding {
    let founded = said.iter().find(|status| !voters(status).is_empty());
    let Some(founded) = founded else {
        let waits_for = said.iter().find_map(|status| status.order.as_ref()?.waits_for.clone());
        let why = waits_for.unwrap_or_else(|| "the cluster is not founded".into());
        return Finding::trouble(
            format!("Nobody can write yet: {why}."),
            "Start the missing servers.",
        );
    };
    // Who knows a later term knows more about the leader.
    let newest = said.iter().filter(|status| status.leader.is_some()).max_by_key(|s| s.term);
    let voters = voters(newest.unwrap_or(founded));
    let (present, missing): (Vec<&NodeId>, Vec<&NodeId>) = {
        let here = here(said);
        voters.iter().partition(|id| here.contains(id))
    };
    let majority = voters.len() / 2 + 1;
    let voters_here = match present.len() {
        here if here == voters.len() => format!("all {} voters are here", voters.len()),
        here => {
            let are = if here == 1 { "is" } else { "are" };
            format!("{here} of {} voters {are} here ({})", voters.len(), names(present.clone()))
        }
    };
    let (Some(newest), true) = (newest, present.len() >= majority) else {
        return nobody_writes(said, &voters_here, majority, present.len(), &missing);
    };
    let leader = names(&newest.leader);
    Finding::fine(format!("You can write: {leader} leads in term {}, {voters_here}.", newest.term))
}

fn nobody_writes(
    said: &[&Status],
    voters_here: &str,
    majority: usize,
    present: usize,
    missing: &[&NodeId],
) -> Finding {
    if present >= majority {
        let term = said.iter().map(|status| status.term).max().unwrap_or_default();
        return Finding::trouble(
            format!(
                "Nobody can write at this moment: no leader is known after term {term}, though {voters_here}."
            ),
            "An election takes less than a second. If this stays, the voters do not hear each other: see below, and \
             in their logs.",
        );
    }
    let needed = majority - present;
    let remedy = match missing {
        [one] => format!("Start {one} again, with its data folder, or mend the network to it."),
        _ => format!(
            "Start {needed} of {} again, with their data folders, or mend the network to them.",
            names(missing.iter().copied())
        ),
    };
    let what = format!(
        "Nobody can write: there is no majority. {voters_here}, {majority} are needed; missing: {}.",
        names(missing.iter().copied())
    );
    Finding::trouble(capitalised(&what), remedy)
}

/// Design `ring`: every server takes messages; what counts is who hears whom.
pub(super) fn of_ring(said: &[&Status]) -> Finding {
    let mut parts: BTreeMap<&NodeId, BTreeSet<&NodeId>> = BTreeMap::new();
    for status in said {
        if let Some(leader) = &status.leader {
            parts.entry(leader).or_default().insert(&status.node);
        }
    }
    let term = said.iter().map(|status| status.term).max().unwrap_or_default();
    let mut leaders = parts.iter();
    match (leaders.next(), leaders.next()) {
        (None, _) => Finding::note(
            "You can write in rooms that exist. No leader is known, so no room can be made.".into(),
            "An election takes less than a second. If this stays, the servers do not hear each other.",
        ),
        (Some((leader, _)), None) => {
            let here = here(said).len();
            let servers = if here == 1 { "one server is" } else { "servers are" };
            let count = if here == 1 { String::new() } else { format!("{here} ") };
            Finding::fine(format!(
                "You can write: {leader} leads in term {term}, {count}{servers} here."
            ))
        }
        _ => {
            let parts: Vec<String> = parts
                .iter()
                .map(|(leader, nodes)| {
                    format!("{} with leader {leader}", names(nodes.iter().copied()))
                })
                .collect();
            Finding::trouble(
                format!(
                    "You can write, but the cluster is in {} parts: {}. Each part talks on for itself.",
                    parts.len(),
                    parts.join("; ")
                ),
                "Mend the network between the parts; they merge by themselves, and nothing is lost.",
            )
        }
    }
}

fn voters(status: &Status) -> &[NodeId] {
    status.order.as_ref().map(|order| order.voters.as_slice()).unwrap_or_default()
}

/// Sentences after a full stop begin with a capital letter, unless a number does.
fn capitalised(text: &str) -> String {
    text.replace(". all ", ". All ")
}
