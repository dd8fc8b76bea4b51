//! `roundtable torture`, as somebody at a terminal runs it. `make torture` goes on for longer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use support::interrupt::{interrupt, three_servers_of};
use support::program;

fn torture(args: &[&str]) -> Output {
    program().arg("torture").args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn survives(design: &str) {
    let output = torture(&["--design", design, "--for", "8s", "--clients", "4", "--seed", "5"]);
    let said = text(&output);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("No promise was broken (seed 5)."), "{said}");
    assert!(said.lines().any(|line| line.contains("silence")), "no fault was done:\n{said}");
}

#[test]
fn a_ring_survives() {
    survives("ring");
}

#[test]
fn a_sequencer_survives() {
    survives("sequencer");
}

#[test]
fn raft_survives() {
    survives("raft");
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let table = [
        (&["--design", "paxos"][..], "ring, sequencer, raft"),
        (&["--faults", "meteor"], "possible values: kill, pause"),
        (&["--for", "soon"], "is no time, such as 90s or 5m"),
        (&["--for", "é"], "is no time"),
        (&["--nodes", "0"], "0 is not in 1..=9"),
        (&["--faults", "partition", "--nodes", "1"], "one server"),
    ];
    for (args, wanted) in table {
        let output = torture(args);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {complaint}");
        assert!(complaint.contains(wanted), "{args:?}: {complaint}");
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = program()
        .args(["torture", "--design", "raft", "--for", "5m", "--clients", "2"])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.any(|line| line.contains("people talk")), "it does not start");
    let servers = three_servers_of(&child);
    interrupt(&mut child, &servers);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files are left");
}

/// Only a program with faults planted in it can show that silence means something:
/// `cargo test --features planted-faults --test torture`.
#[cfg(feature = "planted-faults")]
#[test]
fn a_planted_fault_is_found_and_drawn() {
    for (design, fault, promise) in
        [("ring", "NoHoldBack", "causal"), ("sequencer", "NoDuplicateCheck", "twice")]
    {
        let folder = tempfile::tempdir().unwrap();
        let output = program()
            .args(["torture", "--design", design, "--plant", fault, "--for", "90s"])
            .env("TMPDIR", folder.path())
            .output()
            .unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("A promise was broken: {promise}: ")), "{said}");
        let address = said.lines().find_map(|line| line.trim().strip_prefix("file://")).unwrap();
        let (page, key) = address.split_once("#follow=").unwrap();
        assert!(page.starts_with(&folder.path().display().to_string()), "{address}");
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(&format!("\"{key}\"")), "{key} is not in the diagram");
    }
}
