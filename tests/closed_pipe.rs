//! Whoever reads what a command prints may stop at any time, as `head` does: the command ends as if it had been read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::Stdio;

use support::cluster::Cluster;
use support::program;

/// Runs a command whose outputs nobody reads. Its exit code; a panic would be 101, a signal none.
fn unread(folder: &Path, words: &[&str]) -> Option<i32> {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let mut command = program();
    command.args(words).current_dir(folder).stdin(Stdio::null());
    command.stdout(closed()).stderr(closed()).status().unwrap().code()
}

#[test]
fn commands_without_a_server_end_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let simulated = |more: &[&str]| {
        let words = ["sim", "--seeds", "1", "--nodes", "2", "--lasts-ms", "3000"];
        unread(folder.path(), &[&words[..], more].concat())
    };
    assert_eq!(simulated(&[]), Some(0));
    assert_eq!(simulated(&["--trace"]), Some(0));
    assert_eq!(simulated(&["--trace", "events.jsonl"]), Some(0));
    for (words, code) in [
        (&["trace", "merge", "events.jsonl"][..], 0),
        (&["trace", "draw", "events.jsonl"], 0),
        (&["--help"], 0),
        (&["sim", "--help"], 0),
        (&["--version"], 0),
        (&["no-such-command"], 2),
        (&["sim", "--faults", "fire"], 2),
        (&["status", "--connect", "127.0.0.1:1"], 1),
        (&["torture", "--nodes", "1", "--faults", "pause", "--for", "1s", "--seed", "1"], 0),
    ] {
        assert_eq!(unread(folder.path(), words), Some(code), "{words:?}");
    }
}

#[test]
fn commands_that_ask_a_server_end_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(1, &["--design", "raft"]);
    let connect = cluster.connect_list(0);
    for words in [
        &["status"][..],
        &["status", "--format", "json"],
        &["status", "--check", "ready"],
        &["explain"],
        &["member", "list"],
        &["client", "--name", "alice", "--room", "lobby"],
    ] {
        let words = [words, &["--connect", &connect]].concat();
        assert_eq!(unread(folder.path(), &words), Some(0), "{words:?}");
    }
}
