//! What the servers' traces tell an audience: the steps of an election, and the diagram of everything.

use std::path::{Path, PathBuf};

use crate::error::StartError;
use crate::trace::diagram::Diagram;
use crate::trace::event::{Kind, TraceEvent};
use crate::trace::merge::merge;
use crate::trace::page::page;
use crate::trace::read::read_files;

/// The messages by which a leader is found, in all designs.
const ELECTING: [&str; 5] = ["ELECTION", "ELECTION_OK", "COORDINATOR", "PROMISE", "REQUEST_VOTE"];
/// More steps than that do not fit on a screen.
const STEPS_MAX: usize = 12;

/// Draws the traces as one page.
pub(super) fn draw(traces: &[PathBuf], to: &Path) -> Result<(), StartError> {
    let text = page(&Diagram::new(&merge(read_files(traces)?)?));
    std::fs::write(to, text).map_err(|source| StartError::Data {
        path: to.into(),
        problem: "cannot write the diagram".into(),
        source: Some(source),
    })
}

/// What was done to find a leader from `from_us` to `to_us`, both in microseconds since 1970: when, who, what.
pub(super) fn steps(
    traces: &[PathBuf],
    from_us: u64,
    to_us: u64,
) -> Result<Vec<(u64, String)>, StartError> {
    let merged = merge(read_files(traces)?)?;
    let mut told = Vec::new();
    for event in merged.events.iter().filter(|event| (from_us..=to_us).contains(&event.time_us)) {
        let step = in_words(event);
        if is_step(event) && !told.iter().any(|(_, known)| *known == step) {
            told.push((event.time_us, step));
        }
    }
    let more = told.len().saturating_sub(STEPS_MAX);
    if more > 0 {
        // The beginning and the end say most.
        let at = told[STEPS_MAX / 2].0;
        told.splice(STEPS_MAX / 2..STEPS_MAX / 2 + more, [(at, format!("… {more} more steps …"))]);
    }
    Ok(told)
}

/// `n1 → n2: ELECTION, probe, …`, or `n2: leads in term 2`.
fn in_words(event: &TraceEvent) -> String {
    let TraceEvent { node, say, peers, .. } = event;
    match &event.message_type {
        Some(kind) => format!("{node} → {}: {kind}, {say}", peers.join(" ")),
        None => format!("{node}: {say}"),
    }
}

fn is_step(event: &TraceEvent) -> bool {
    match event.kind {
        Kind::State => !event.say.is_empty(),
        Kind::Send => event.message_type.as_deref().is_some_and(|kind| ELECTING.contains(&kind)),
        _ => false,
    }
}
