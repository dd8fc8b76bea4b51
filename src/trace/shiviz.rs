//! A diagram as a log for [ShiViz](https://bestchai.bitbucket.io/shiviz/): two lines for each event, the second with the
//! host and its vector clock.
//!
//! ```text
//! (?<event>.*)\n(?<host>\S*) (?<clock>{.*})      how ShiViz takes the rest apart
//!                                                an empty line: all that follows is one run
//! sends CHAT to n2: “hello”
//! n1 {"n1":7,"n2":3}                             n1's seventh event; it knows n2's first three
//! ```
//!
//! ShiViz wants a host's own entry to count 1, 2, 3 … without a gap, so only events that are written tick. What is hidden still
//! carries what its sender knew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::diagram::Diagram;

/// The expression that ShiViz parses a log with.
pub const PARSER: &str = r"(?<event>.*)\n(?<host>\S*) (?<clock>{.*})";

/// The log of `diagram`, without the events whose label is in `hidden`.
pub fn shiviz(diagram: &Diagram, hidden: &BTreeSet<String>) -> String {
    let hosts = hosts(diagram);
    let mut log = format!("{PARSER}\n\n");
    let mut clocks = vec![vec![0_u64; hosts.len()]; hosts.len()];
    let mut known: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let mut causes: BTreeMap<usize, usize> = BTreeMap::new();
    let mut last_use: BTreeMap<usize, usize> = BTreeMap::new();
    for (from, to) in &diagram.arrows {
        causes.insert(*to, *from);
        let last = last_use.entry(*from).or_insert(*to);
        *last = (*last).max(*to);
    }
    for (at, dot) in diagram.dots.iter().enumerate() {
        let clock = &mut clocks[dot.process];
        if let Some(from) = causes.get(&at) {
            if let Some(theirs) = known.get(from) {
                for (mine, theirs) in clock.iter_mut().zip(theirs) {
                    *mine = (*mine).max(*theirs);
                }
            }
            if last_use.get(from) == Some(&at) {
                known.remove(from);
            }
        }
        let is_shown = !hidden.contains(&dot.label);
        clock[dot.process] += u64::from(is_shown);
        if last_use.contains_key(&at) {
            known.insert(at, clock.clone());
        }
        if is_shown {
            let entries = hosts.iter().zip(&*clock).filter(|(_, count)| **count > 0);
            let entries: BTreeMap<&String, &u64> = entries.collect();
            // Names and numbers always serialise, and a string takes whatever is written to it.
            let clock = serde_json::to_string(&entries).expect("a clock serialises");
            let _ = writeln!(log, "{}\n{} {clock}", dot.sentence(), hosts[dot.process]);
        }
    }
    log
}

/// A name for each process, without white space.
fn hosts(diagram: &Diagram) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for process in &diagram.processes {
        let plain = |c: char| if c.is_whitespace() { '_' } else { c };
        let mut host: String = process.name.chars().map(plain).collect();
        while hosts.contains(&host) {
            host.push('_');
        }
        hosts.push(host);
    }
    hosts
}
