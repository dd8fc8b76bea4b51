//! Golden scripts: stories about one algorithm each, with what it did written below each turn.
//!
//! A script holds commands and, after `---`, the state changes and messages that followed; nothing
//! else, so no times and no log lines. `UPDATE_GOLDENFILES=1 cargo test --test golden` writes them anew: read
//! the difference, and commit it only if you can explain each line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "golden/election.rs"]
mod election;
#[path = "golden/failure_detector.rs"]
mod failure_detector;
#[path = "golden/metadata.rs"]
mod metadata;
#[path = "golden/ordering.rs"]
mod ordering;
#[path = "golden/raft.rs"]
mod raft;
#[path = "golden/wires.rs"]
mod wires;

use std::path::Path;
use std::time::Instant;

use roundtable::server::election::{BullyElection, ElectionModule};

/// Where virtual time starts.
#[expect(clippy::disallowed_methods, reason = "one fixed start for virtual time")]
fn start() -> Instant {
    Instant::now()
}

/// Runs every script in `tests/scripts/<folder>`, each with a runner of its own.
fn play<R: goldenscript::Runner>(folder: &str, runner: impl Fn() -> R) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(folder);
    let mut scripts: Vec<_> =
        folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "{} holds no scripts", folder.display());
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut runner(), script).unwrap();
    }
}

#[test]
fn elections_go_as_told() {
    play("election", election::Play::<ElectionModule>::new);
}

#[test]
fn bullies_go_as_told() {
    play("bully", election::Play::<BullyElection>::new);
}

#[test]
fn failures_are_detected_as_told() {
    play("failure_detector", failure_detector::Play::new);
}

#[test]
fn room_locations_change_as_told() {
    play("metadata", metadata::Play::new);
}

#[test]
fn messages_are_ordered_as_told() {
    play("ordering", ordering::Play::new);
}

#[test]
fn raft_goes_as_told() {
    play("raft", raft::Play::new);
}
