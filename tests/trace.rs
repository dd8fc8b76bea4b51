//! Real servers write down what they do, and their leader is killed meanwhile: the traces merge, the diagram tells the
//! story, and a real browser shows it.
//!
//! The browser is `ROUNDTABLE_BROWSER`, or a Chromium or Chrome that is installed; without one that test says so and is
//! skipped.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use roundtable::trace::merge::{Merged, merge};
use roundtable::trace::read::read_files;
use roundtable::trace::{Kind, TraceEvent};
use support::cluster::Cluster;
use support::wire::RawClient;
use support::{PROGRAM, clean, wait_until};

/// A text that must stay one.
const HOSTILE: &str = "</script><img src=x onerror=document.title='broken'>";

/// Three servers that trace into `folder`.
fn traced_cluster(folder: &Path, design: &str) -> Cluster {
    Cluster::start_by(3, &["--design", design, "--rooms", "lobby"], |index, addresses| {
        let peers: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let trace = trace_of(folder, index).display().to_string();
        // Another attempt after a lost port begins anew.
        let _ = fs::remove_file(&trace);
        ["--no-discovery", "--peers", &peers.join(","), "--trace", &trace]
            .map(str::to_string)
            .into()
    })
}

fn trace_of(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("n{}.jsonl", index + 1))
}

/// Runs a cluster whose leader is killed and comes back, with someone who writes. Returns the leader.
fn live_through(folder: &Path, design: &str) -> String {
    let mut cluster = traced_cluster(folder, design);
    let leader = cluster.leader_index();
    let other = (leader + 1) % 3;
    let mut alice = RawClient::join(cluster.address(other), "alice");
    alice.join_room("lobby", 0);
    let mut bob = RawClient::join(cluster.address((leader + 2) % 3), "bob");
    bob.join_room("lobby", 0);
    alice.chat_acked("lobby", "a-1", "hello");
    alice.chat_acked("lobby", "a-2", HOSTILE);
    assert_eq!(bob.chats(2).len(), 2);
    let name = cluster.servers[leader].id.clone();
    cluster.servers[leader].kill();
    wait_until("another server leads", || {
        let leader = cluster.servers[other].status()?.leader?;
        (leader.as_str() != name).then_some(())
    });
    alice.chat_acked("lobby", "a-3", "still here");
    assert_eq!(bob.chats(1).len(), 1);
    cluster.restart_all();
    cluster.stop_all();
    name
}

fn traces(folder: &Path) -> Vec<PathBuf> {
    (0..3).map(|index| trace_of(folder, index)).collect()
}

fn roundtable(args: &[&str], files: &[PathBuf]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("trace").args(args).args(files).stdin(Stdio::null());
    clean(command).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether everything that should be in the trace of such a run is.
fn check(merged: &Merged, leader: &str) {
    let of = |kind: Kind| merged.events.iter().filter(move |event| event.kind == kind);
    let crashes: Vec<&TraceEvent> = of(Kind::Crash).collect();
    assert_eq!(crashes.len(), 1, "{crashes:?}");
    assert_eq!(crashes[0].node, leader);
    assert_eq!(of(Kind::Start).count(), 4);
    assert_eq!(of(Kind::Stop).count(), 3);
    assert_eq!(of(Kind::Lost).count(), 0);
    let acked: BTreeSet<&str> =
        of(Kind::Ack).flat_map(|ack| ack.about.iter().map(String::as_str)).collect();
    let shown: BTreeSet<&str> =
        of(Kind::Deliver).flat_map(|ack| ack.about.iter().map(String::as_str)).collect();
    for key in ["alice/a-1", "alice/a-2", "alice/a-3"] {
        assert!(acked.contains(key) && shown.contains(key), "{key}: {acked:?}, {shown:?}");
    }
    let read_by: BTreeSet<&String> = of(Kind::Deliver).flat_map(|event| &event.clients).collect();
    assert_eq!(read_by.len(), 2, "alice and bob");
    assert!(merged.pairs.len() > 50, "{}", merged.pairs.len());
    let unpaired =
        of(Kind::Receive).filter(|event| event.frame.is_some()).count() - merged.pairs.len();
    // What was sent in the last moments of the killed one may not be in its trace.
    assert!(unpaired < 20, "{unpaired} frames arrived of which nobody knows who sent them");
    let leads = of(Kind::State).filter(|event| event.say.starts_with("leads"));
    assert!(leads.map(|event| &event.node).collect::<BTreeSet<_>>().len() > 1, "two servers led");
    assert!(of(Kind::Sync).count() > 3);
}

#[test]
fn a_cluster_whose_leader_is_killed_leaves_one_story() {
    for design in ["ring", "sequencer", "raft"] {
        let folder = tempfile::tempdir().unwrap();
        let leader = live_through(folder.path(), design);
        let merged = merge(read_files(&traces(folder.path())).unwrap()).unwrap();
        check(&merged, &leader);
        let out = roundtable(&["merge"], &traces(folder.path()));
        assert!(out.status.success(), "{}", text(&out.stderr));
        assert_eq!(text(&out.stdout).lines().count(), merged.events.len(), "{design}");
        if design == "ring" {
            look_at_it(folder.path(), &leader);
            refuse_bad_input(folder.path());
        }
    }
}

/// Cuts, mixes and hides what the run left.
fn refuse_bad_input(folder: &Path) {
    let [one, two] = [trace_of(folder, 0), trace_of(folder, 1)];
    let whole = fs::read(&one).unwrap();
    let cut = folder.join("cut.jsonl");
    fs::write(&cut, &whole[..whole.len() - 5]).unwrap();
    let out = roundtable(&["merge"], &[cut, two.clone()]);
    assert!(out.status.success() && text(&out.stderr).contains("is cut short and was dropped"));
    let other = folder.join("other.jsonl");
    let sim =
        ["sim", "--nodes", "3", "--faults", "none", "--seed", "1", "--lasts-ms", "3000", "--trace"];
    let mut command = Command::new(PROGRAM);
    command.args(sim).arg(&other);
    let simulated = clean(command).output().unwrap();
    assert!(simulated.status.success(), "{}", text(&simulated.stdout));
    for (files, says) in [
        (vec![one.clone(), other], "traces of different runs"),
        (vec![one.clone(), folder.join("none.jsonl")], "none.jsonl: cannot read the trace"),
        (vec![one.clone(), one], "name each trace once"),
        (vec![PathBuf::from("Cargo.toml")], "Cargo.toml: is no trace"),
    ] {
        let out = roundtable(&["draw", "--out", "/dev/null"], &files);
        assert_eq!(out.status.code(), Some(1), "{says}");
        let said = text(&out.stderr);
        assert!(said.starts_with("roundtable: ") && said.contains(says), "{said}");
    }
}

// ---------------------------------------------------------------- the page, in a browser

fn browser() -> Option<String> {
    let named = std::env::var("ROUNDTABLE_BROWSER").ok();
    let known = ["chromium", "chromium-browser", "google-chrome", "chrome"].map(str::to_string);
    named.into_iter().chain(known).find(|name| {
        let asked = Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        asked.is_ok_and(|status| status.success())
    })
}

/// The page as the browser has it after its script ran, opened at `#hash`.
fn dump(browser: &str, page: &Path, hash: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let out = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,800",
        ])
        .args(["--virtual-time-budget=4000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}#{hash}", page.display()))
        .output()
        .unwrap();
    let dom = text(&out.stdout);
    assert!(dom.contains("data-ready=\"yes\""), "the page was not drawn:\n{}", text(&out.stderr));
    dom
}

/// The text of the element `id`, with its markup.
fn element<'a>(dom: &'a str, id: &str) -> &'a str {
    let (_, rest) = dom.split_once(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}"));
    let end = rest.find("</output>").or_else(|| rest.find("</section>")).unwrap_or(rest.len());
    &rest[..end]
}

fn in_sight(dom: &str) -> usize {
    let drawn = element(dom, "drawn").split_once('>').unwrap().1;
    drawn.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{drawn}"))
}

fn look_at_it(folder: &Path, leader: &str) {
    let page = folder.join("trace.html");
    let out = roundtable(&["draw", "--out", page.to_str().unwrap()], &traces(folder));
    assert!(out.status.success(), "{}", text(&out.stderr));
    let Some(browser) = browser() else {
        eprintln!(
            "no browser: the page was not opened; install chromium, or name one in ROUNDTABLE_BROWSER"
        );
        return;
    };
    let dom = dump(&browser, &page, "");
    let story = element(&dom, "story-part");
    assert!(story.contains(&format!("{leader}, the leader, is killed")), "{story}");
    assert!(story.contains("leads in term"), "{story}");
    assert!(dom.contains("<title>test-") && !dom.contains("<img"), "a user's text became markup");
    let usual = in_sight(&dom);
    let chats = in_sight(&dump(&browser, &page, "filter=CHAT"));
    let everything = in_sight(&dump(&browser, &page, "hide="));
    assert!(0 < chats && chats < usual && usual < everything, "{chats} {usual} {everything}");
    let followed = dump(&browser, &page, "follow=alice/a-2&filter=CHAT");
    let steps = element(&followed, "followed");
    assert!(
        steps.contains("alice sends CHAT to") && steps.contains("last delivery after"),
        "{steps}"
    );
    let hovered = dump(&browser, &page, "filter=life&hover=0&theme=dark");
    let tip = hovered.split_once("id=\"tip\"").unwrap().1;
    assert!(tip.contains("<b>") && tip.contains("clock {"), "{}", &tip[..300]);
    assert!(hovered.contains("data-theme=\"dark\""));
}

#[test]
fn a_full_disk_costs_the_trace_and_not_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("n1.jsonl").display().to_string();
    let mut cluster = Cluster::start_by(1, &["--no-discovery", "--trace", &trace], |_, _| vec![]);
    // No file may grow beyond 4 KiB: the trace is the first that would.
    cluster.servers[0].kill();
    cluster.servers[0].file_kib_max = Some(4);
    fs::write(&trace, "").unwrap();
    cluster.servers[0].start();
    wait_until("the trace is full", || {
        // A server alone has little to write about but questions.
        let _ = cluster.servers[0].status();
        cluster.servers[0].log().contains("cannot write the trace").then_some(())
    });
    let mut alice = RawClient::join(cluster.address(0), "alice");
    alice.join_room("lobby", 0);
    alice.chat_acked("lobby", "a-1", "hello");
    cluster.stop_all();
    assert_eq!(fs::metadata(&trace).unwrap().len(), 4096);
    let traces = read_files(&[trace.into()]).unwrap();
    assert_eq!(traces.notes.len(), 1, "{:?}", traces.notes);
}

#[test]
fn a_trace_that_cannot_be_written_stops_the_start() {
    let mut cluster = Cluster::start(1, &[]);
    cluster.servers[0].kill();
    cluster.servers[0].args.extend(["--trace".into(), "/no/such/folder/t.jsonl".into()]);
    let (code, said) = cluster.servers[0].start_in_vain();
    assert_eq!(code, Some(1));
    assert!(said.contains("/no/such/folder/t.jsonl: cannot write the trace"), "{said}");
}
