//! `roundtable demo` and `roundtable explain`, as somebody at a terminal runs them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::cluster::Cluster;
use support::{PROGRAM, clean};

fn run(args: &[&str]) -> Output {
    run_in(&std::env::temp_dir(), args)
}

fn run_in(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(args).current_dir(folder);
    clean(command).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_demo_keeps_every_promise_in_each_design() {
    for design in ["ring", "sequencer", "raft"] {
        let folder = tempfile::tempdir().unwrap();
        let output = run_in(folder.path(), &["demo", "--design", design]);
        let said = text(&output);
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        for wanted in
            ["is killed (SIGKILL)", " leads in term ", "bob is connected to", "✓ lost          0"]
        {
            assert!(said.contains(wanted), "{wanted:?} in\n{said}");
        }
        assert!(!said.contains('\u{1b}'), "no colours without a terminal");
        let page = folder.path().join(format!("roundtable-demo-{design}.html"));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(
            page.contains("<canvas") && page.contains("is killed") || page.contains("crash"),
            "{design}"
        );
    }
}

#[test]
fn a_design_that_does_not_exist_is_wrong_usage() {
    let output = run(&["demo", "--design", "paxos"]);
    assert_eq!(output.status.code(), Some(2));
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("ring, sequencer, raft"), "{complaint}");
}

#[test]
fn a_dead_server_is_named_with_what_to_do() {
    let mut cluster = Cluster::start(3, &["--design", "raft"]);
    let well = run(&["explain", "--connect", &cluster.connect_list(0)]);
    assert!(text(&well).starts_with("✓ You can write: n"), "{}", text(&well));
    cluster.servers[1].kill();
    cluster.servers[2].kill();
    // One address is enough: it names the others.
    support::wait_until("the majority is missed", || {
        let said = text(&run(&["explain", "--connect", &cluster.address(0).to_string()]));
        let missed = said.starts_with("! Nobody can write: there is no majority.")
            && said.contains("missing: n2 and n3.")
            && said.contains("! n2 (")
            && said.contains("→ Start n2 again");
        missed.then_some(())
    });
    cluster.servers[0].kill();
    let silent = run(&["explain", "--connect", &cluster.connect_list(0), "--format", "json"]);
    assert_eq!(silent.status.code(), Some(1));
    assert!(text(&silent).starts_with(r#"[{"weight":"trouble","what":"No server answers ("#));
}
