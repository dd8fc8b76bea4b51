//! The servers: who is missing, who does not hear whom, whose disk is full.

use std::collections::BTreeMap;

use super::{Answer, Finding, names};
use crate::domain::NodeId;
use crate::domain::content::{Liveness, Status, TimeState};

/// What is odd about the servers.
pub(super) fn findings(answers: &[Answer], said: &[&Status]) -> Vec<Finding> {
    let mut all = silent(answers, said);
    all.extend(deaf(said));
    all.extend(said.iter().filter_map(|status| full_disk(status)));
    all.extend(said.iter().filter_map(|status| waits(status)));
    all.extend(other_leaders(said));
    all.extend(alone(said));
    all.extend(unhealthy(said));
    all.extend(said.iter().filter_map(|status| no_time(status)));
    all
}

/// Servers that are named, and do not answer here.
fn silent(answers: &[Answer], said: &[&Status]) -> Vec<Finding> {
    let mut missing: BTreeMap<&NodeId, (&str, Vec<&NodeId>, Option<u64>)> = BTreeMap::new();
    for status in said {
        for server in &status.servers {
            if said.iter().any(|other| other.node == server.id) {
                continue;
            }
            let entry = missing.entry(&server.id).or_insert((&server.address, Vec::new(), None));
            if server.state == Liveness::Dead {
                entry.1.push(&status.node);
            }
            let heard = [entry.2, server.last_heartbeat_ms];
            entry.2 = heard.into_iter().flatten().min();
        }
    }
    let unnamed = answers.iter().filter_map(|answer| {
        let reason = answer.status.as_ref().err()?;
        let named = missing.values().any(|(address, ..)| *address == answer.address);
        (!named).then(|| {
            Finding::note(
                format!("{} does not answer: {reason}.", answer.address),
                "Start the server there, or leave the address out.",
            )
        })
    });
    let unnamed: Vec<Finding> = unnamed.collect();
    let mut all: Vec<Finding> = missing
        .into_iter()
        .map(|(id, (address, dead_for, heard))| {
            let heard =
                heard.map_or("it was never heard".into(), |ms| format!("last heard {}", ago(ms)));
            if dead_for.is_empty() {
                Finding::note(
                    format!("{id} ({address}) does not answer here, but others hear it: {heard}."),
                    "It may be asleep, or out of reach from this machine only.",
                )
            } else {
                let by = names(dead_for);
                Finding::trouble(
                    format!("{id} ({address}) is dead for {by}: {heard}."),
                    format!("Start {id} again, with its data folder."),
                )
            }
        })
        .collect();
    all.extend(unnamed);
    all
}

/// Servers that answer here, and not each other.
fn deaf(said: &[&Status]) -> Vec<Finding> {
    let mut all = Vec::new();
    for status in said {
        let unheard = status.servers.iter().filter(|server| {
            server.state == Liveness::Dead && said.iter().any(|other| other.node == server.id)
        });
        let unheard: Vec<&NodeId> = unheard.map(|server| &server.id).collect();
        if !unheard.is_empty() {
            let (node, others) = (&status.node, names(unheard.iter().copied()));
            let answer = if unheard.len() == 1 { "answers" } else { "answer" };
            all.push(Finding::trouble(
                format!("{node} does not hear {others}, which {answer} here: the way between them is cut."),
                format!("Mend the network between {node} and {others}; they find each other by themselves."),
            ));
        }
    }
    all
}

fn full_disk(status: &Status) -> Option<Finding> {
    let fault = status.disk_fault.as_ref()?;
    let node = &status.node;
    Some(Finding::trouble(
        format!("{node} cannot write its log ({fault}): it acknowledges nothing."),
        format!("Free space for the data folder of {node}; it goes on by itself."),
    ))
}

/// What a server itself says it waits for.
fn waits(status: &Status) -> Option<Finding> {
    let order = status.order.as_ref()?;
    let waits_for = order.waits_for.as_ref()?;
    if order.voters.is_empty() || waits_for.starts_with("no majority") {
        return None; // the verdict says it
    }
    Some(Finding::note(
        format!("{}: {waits_for}.", status.node),
        "It goes on by itself when a leader is there.",
    ))
}

/// One order: servers that follow somebody else than the newest leader, or nobody.
fn other_leaders(said: &[&Status]) -> Vec<Finding> {
    let ordered = said.iter().filter(|status| status.order.is_some());
    let Some(newest) =
        ordered.clone().filter(|status| status.leader.is_some()).max_by_key(|s| s.term)
    else {
        return Vec::new();
    };
    let (leader, term) = (names(&newest.leader), newest.term);
    ordered
        .filter(|status| status.leader != newest.leader)
        .map(|status| {
            let node = &status.node;
            let what = match &status.leader {
                None => format!("{node} knows no leader, though {leader} leads in term {term}: its clients wait."),
                Some(old) => format!(
                    "{node} still takes {old} for the leader (term {}), though {leader} leads in term {term}.",
                    status.term
                ),
            };
            Finding::note(what, &format!("It learns by itself within a second, unless it is cut off from {leader}."))
        })
        .collect()
}

/// Design `ring`: whoever is alone acknowledges what one disk holds.
fn alone(said: &[&Status]) -> Vec<Finding> {
    let alone = said.iter().filter(|status| {
        status.order.is_none() && status.ring.len() == 1 && status.servers.len() > 1
    });
    alone
        .map(|status| {
            let node = &status.node;
            Finding::note(
                format!(
                    "{node} is alone: what it acknowledges now is on its disk only, and out of reach while it is down."
                ),
                "Start another server.",
            )
        })
        .collect()
}

fn unhealthy(said: &[&Status]) -> Vec<Finding> {
    let mut refused: BTreeMap<&NodeId, Vec<&NodeId>> = BTreeMap::new();
    for status in said {
        for server in &status.servers {
            if server.healthy == Some(false) && server.state != Liveness::Dead {
                refused.entry(&server.id).or_default().push(&status.node);
            }
        }
    }
    refused
        .into_iter()
        .map(|(id, by)| {
            Finding::note(
                format!("The port of {id} takes no new connection from {}.", names(by)),
                "Look whether it has run out of descriptors or connections.",
            )
        })
        .collect()
}

fn no_time(status: &Status) -> Option<Finding> {
    let Some(TimeState::Unsynchronised { reason }) = &status.time else { return None };
    Some(Finding::note(
        format!("{} has the time of its own clock only: {reason}.", status.node),
        "See to the time servers named with --ntp. The order of messages does not depend on them.",
    ))
}

/// `120 ms ago`, `12 s ago`.
fn ago(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{ms} ms ago"),
        _ => format!("{} s ago", ms / 1000),
    }
}
