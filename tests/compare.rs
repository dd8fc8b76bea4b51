//! `roundtable compare`, as somebody at a terminal runs it. `make compare` measures for longer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};

use support::interrupt::{interrupt, three_servers_of};
use support::program;

fn compare(args: &[&str]) -> Output {
    program().arg("compare").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_design_is_measured_printed_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("figures.svg");
    let output = program()
        .args(["compare", "--designs", "ring", "--clients", "3", "--for", "1s", "--rounds", "1"])
        .args(["--format", "json", "--svg"])
        .arg(&picture)
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    let (said, complaint) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{complaint}");
    assert_eq!(complaint, "", "a program that reads the figures reads nothing else");
    let all: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((all["servers"].as_u64(), all["clients"].as_u64()), (Some(3), Some(3)));
    let ring = &all["designs"][0];
    assert_eq!(ring["design"], "ring");
    // A message goes to one other server at least, and is confirmed; it is synced twice at least, or with others.
    for figure in ["throughput", "server_messages", "server_bytes", "syncs", "loaded_syncs"] {
        assert!(ring[figure].as_f64().unwrap() > 0.0, "{figure}: {said}");
    }
    for spread in ["ack", "loaded_ack", "delivery"] {
        let (p50, p99) = (&ring[spread]["p50_ms"], &ring[spread]["p99_ms"]);
        assert!(p50.as_f64().unwrap() > 0.0 && p50.as_f64() <= p99.as_f64(), "{spread}: {said}");
    }
    // Every side of a ring goes on.
    for figure in ["cut_off_acks", "majority_acks", "silence_ms", "return_ms", "heal_ms"] {
        assert!(ring[figure].as_u64().unwrap() > 0, "{figure}: {said}");
    }
    assert_eq!((ring["lost"].as_u64(), ring["twice"].as_u64()), (Some(0), Some(0)));
    let drawn = std::fs::read_to_string(&picture).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("3 servers, 3 clients in one room"));
    assert_eq!(files_in(folder.path()), ["figures.svg"], "nothing else is left");
}

#[test]
fn what_makes_no_sense_is_refused_at_once() {
    let table = [
        (&["--designs", "paxos"][..], 2, "ring, sequencer, raft"),
        (&["--designs", ""], 2, "ring, sequencer, raft"),
        (&["--nodes", "1"], 2, "1 is not in 2..=9"),
        (&["--rounds", "0"], 2, "0 is not in 1..=99"),
        (&["--for", "soon"], 2, "is no time, such as 90s or 5m"),
        (&["--svg", "/no/such/folder/figures.svg"], 1, "cannot write /no/such/folder/figures.svg"),
    ];
    for (args, code, wanted) in table {
        let output = compare(args);
        let complaint = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {complaint}");
        assert!(complaint.contains(wanted), "{args:?}: {complaint}");
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = program()
        .args(["compare", "--designs", "sequencer", "--clients", "2", "--for", "5m", "--svg"])
        .arg(folder.path().join("figures.svg"))
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.any(|line| line.contains("quiet talk")), "it does not start");
    let servers = three_servers_of(&child);
    interrupt(&mut child, &servers);
    assert!(lines.any(|line| line.contains("stopped; nothing is left running")));
    assert!(files_in(folder.path()).is_empty(), "files are left: {:?}", files_in(folder.path()));
}
