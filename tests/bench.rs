//! `roundtable bench`, as somebody at a terminal runs it, with small numbers. `make bench` measures.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use support::cluster::Cluster;
use support::interrupt::{interrupt, three_servers_of};
use support::program;

fn bench(args: &[&str]) -> Output {
    program().arg("bench").args(args).output().unwrap()
}

/// The rows that `args` print as JSON; each kept what it promises.
fn rows(args: &[&str]) -> Vec<Value> {
    let output = bench(&[args, &["--for", "1s", "--format", "json"]].concat());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complaint}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    for row in &rows {
        for broken in ["lost", "twice", "unanswered"] {
            assert_eq!(row[broken], 0, "{broken} in {row}");
        }
    }
    rows
}

/// That the figures named `keys` are there and more than nothing.
fn assert_measured(row: &Value, keys: &[&str]) {
    for key in keys {
        let figure = row.pointer(&format!("/{key}")).and_then(Value::as_f64);
        assert!(figure.is_some_and(|figure| figure > 0.0), "{key} in {row}");
    }
}

const TIMES: [&str; 5] =
    ["times/p50_us", "times/p90_us", "times/p99_us", "times/p999_us", "times/max_us"];

#[test]
fn fan_out_counts_what_everybody_is_shown() {
    let all =
        rows(&["fan-out", "--rooms", "2", "--members", "5", "--senders", "2", "--window", "4"]);
    assert_eq!(all.len(), 1);
    assert_measured(&all[0], &TIMES);
    assert_measured(
        &all[0],
        &[
            "count",
            "per_second",
            "bytes_per_second",
            "share",
            "bare/per_second",
            "resident_kib",
            "load_cores",
        ],
    );
    assert_eq!(all[0]["workload"], "fan-out");
    assert_eq!((&all[0]["design"], &all[0]["servers"]), (&"ring".into(), &1.into()));
}

#[test]
fn latency_keeps_its_rate_in_every_design() {
    for design in ["ring", "sequencer", "raft"] {
        let args =
            ["latency", "--design", design, "--nodes", "3", "--members", "4", "--rate", "50"];
        let all = rows(&args);
        assert_measured(&all[0], &TIMES);
        // 50 messages were due in this second, for 4 members, however late the machine was.
        assert_eq!(all[0]["count"], 200, "{}", all[0]);
        assert_eq!((&all[0]["design"], &all[0]["servers"]), (&design.into(), &3.into()));
    }
}

#[test]
fn writes_are_a_row_for_each_number_of_clients() {
    let all = rows(&["writes", "--design", "raft", "--writes", "1x1,4x8"]);
    let shapes: Vec<&str> = all.iter().filter_map(|row| row["shape"].as_str()).collect();
    assert_eq!(shapes, ["1 × window 1", "4 × window 8"]);
    for row in &all {
        assert_measured(row, &TIMES);
        assert_measured(row, &["per_second", "syncs_per_second", "share", "bare/per_second"]);
    }
}

#[test]
fn idle_connections_say_what_each_costs() {
    let all = rows(&["idle", "--connections", "120"]);
    assert_eq!(all[0]["count"], 120);
    assert_measured(
        &all[0],
        &["seconds", "per_second", "resident_kib_per_connection", "bare/per_second"],
    );
}

#[test]
fn failover_reads_what_was_acknowledged() {
    for design in ["ring", "raft"] {
        let all = rows(&["failover", "--design", design, "--rounds", "1"]);
        assert_measured(&all[0], &["times/p50_us", "times/max_us"]);
        let note = all[0]["notes"][0].as_str().unwrap();
        assert!(note.contains("acknowledged writes were read at each"), "{note}");
        assert!(!note.contains(" 0 acknowledged"), "{note}");
    }
}

#[test]
fn growth_tells_what_a_unit_costs() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let axes = "rooms,servers,history";
    let args = ["growth", "--quick", "--only", axes, "--into", into, "--format", "json"];
    let output = bench(&args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&Value> =
        all["axes"].as_array().unwrap().iter().map(|axis| &axis["axis"]).collect();
    assert_eq!(names, ["rooms", "servers", "history"]);
    let last = |axis: usize| all["axes"][axis]["rows"].as_array().unwrap().last().unwrap();
    assert_eq!(last(0)["rooms"], 100.0);
    assert_measured(last(0), &["messages_per_second", "cpu_us_per_delivery"]);
    assert_eq!(last(1)["servers"], 3.0);
    let between = ["frames_per_message_and_other_server", "bytes_per_message_and_other_server"];
    assert_measured(last(1), &between);
    assert_eq!(last(2)["history"], 10_000.0);
    assert_measured(last(2), &["ready_ms", "resident_mib", "join_ms", "cpu_us_per_new_message"]);
    let tables = std::fs::read_to_string(folder.path().join("growth.txt")).unwrap();
    assert!(tables.contains("DELIVERY  GROWTH") && tables.contains(" ×"), "{tables}");
    let picture = std::fs::read_to_string(folder.path().join("growth.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("\nservers\n"));
}

#[test]
fn servers_that_run_are_measured_where_they_are() {
    let cluster = Cluster::start(3, &["--design", "sequencer"]);
    let pids: Vec<String> = cluster.servers.iter().map(|server| server.pid().to_string()).collect();
    let (connect, pids) = (cluster.connect_list(0), pids.join(","));
    let args = ["--connect", &connect, "--pids", &pids, "--members", "3", "--writes", "2x2"];
    let all = rows(&[&args[..], &["--connections", "20", "--rate", "100"]].concat());
    let workloads: Vec<&str> = all.iter().filter_map(|row| row["workload"].as_str()).collect();
    assert_eq!(workloads, ["fan-out", "latency", "writes", "idle"]);
    for row in &all {
        assert_eq!((&row["design"], &row["servers"]), (&"sequencer".into(), &3.into()));
        assert_measured(row, &["resident_kib", "times/p50_us"]);
    }
}

#[test]
fn without_a_terminal_there_are_lines_and_tables() {
    let output = bench(&["writes", "--nodes", "1", "--writes", "1x1", "--for", "1s"]);
    let (said, done) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{done}");
    for wanted in
        ["WORKLOAD", "P99.9", "OF BARE", "1 × window 1", "bare fdatasync, 1 file", "LOAD CPU"]
    {
        assert!(said.contains(wanted), "{wanted} in\n{said}");
    }
    assert!(done.contains("writes    1 × window 1: they talk\n"), "{done}");
    assert!(!said.contains('\u{1b}') && !done.contains('\u{1b}'), "no colours without a terminal");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let table = [
        (&["--design", "paxos"][..], 2, "ring, sequencer, raft"),
        (&["dance"], 2, "fan-out"),
        (&["growth", "--only", "hair"], 2, "members"),
        (&["growth", "--into", "no/such/folder"], 1, "cannot write no/such/folder/growth.txt"),
        (&["--for", "soon"], 2, "is no time"),
        (&["failover", "--connect", &nobody], 2, "are not killed"),
        (&["failover", "--nodes", "1"], 2, "more --nodes"),
        (&["latency", "--connect", &nobody], 1, "no server answers at 127.0.0.1:"),
    ];
    for (args, code, wanted) in table {
        let output = bench(args);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {complaint}");
        assert!(complaint.contains(wanted), "{args:?}: {complaint}");
        assert_eq!(output.stdout, b"", "{args:?}");
    }
}

#[test]
fn too_many_connections_for_the_limit_are_refused_with_what_to_do() {
    // The limit counts for the servers, too, which need some files of their own.
    let limited = "ulimit -n 200; exec \"$0\" bench idle --connections 150";
    let mut command = Command::new("bash");
    command.args(["-c", limited, support::PROGRAM]);
    let output = support::clean(command).output().unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    let wanted =
        "idle: this takes 214 open files, and the limit is 200; raise it (as root: ulimit -Hn 214)";
    assert!(complaint.contains(wanted), "{complaint}");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    // While people talk, and while it is waited for a leader.
    for moment in ["they talk", "servers start"] {
        let folder = tempfile::tempdir().unwrap();
        let mut child = program()
            .args(["bench", "latency", "--nodes", "3", "--for", "5m"])
            .env("TMPDIR", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.contains(moment)), "it does not start");
        let servers = three_servers_of(&child);
        interrupt(&mut child, &servers);
        let last = lines.last().unwrap();
        assert_eq!(last, "roundtable: stopped; nothing is left running");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files are left");
    }
}
