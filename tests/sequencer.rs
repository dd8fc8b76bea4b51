//! The design `sequencer` as processes: one order for all, whoever dies; a minority acknowledges nothing.
//!
//! One kill and one partition run with all tests. The rest is for `make soak`; `ROUNDS=5 make soak` is shorter than the
//! 20 rounds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use support::cluster::Cluster;
use support::proxy::{Healing, Proxies};
use support::talk::{ROOM, Talk, assert_nothing_lost};
use support::wait_until;

/// How often each person writes.
const PAUSE: Duration = Duration::from_millis(10);

/// How long people talk between faults.
const QUIET: Duration = Duration::from_millis(1500);

const FLAGS: [&str; 6] = ["--design", "sequencer", "--server-timeout-ms", "800", "--rooms", ROOM];

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// The index of the server that leads.
fn leader(cluster: &Cluster) -> usize {
    wait_until("a leader is known", || {
        let running = cluster.servers.iter().find(|server| server.runs())?;
        let leader = running.status()?.leader?;
        cluster.servers.iter().position(|server| server.id == leader.as_str())
    })
}

/// Kills the leader under `people` again and again, starts it again each time, and checks everything.
fn kill_the_leader(rounds: usize, people: usize) {
    let mut cluster = Cluster::start(3, &FLAGS);
    let talk = Talk::start(&cluster, people, PAUSE);
    let mut silences = Vec::new();
    for _ in 0..rounds {
        sleep(QUIET);
        let since = Instant::now();
        let index = leader(&cluster);
        cluster.servers[index].kill();
        sleep(QUIET * 2);
        silences.push(talk.longest_silence(since));
        cluster.restart(index);
        cluster.wait_ready();
    }
    silences.sort();
    println!(
        "leader killed: longest wait for an ACK in {rounds} rounds: median {} ms, longest {} ms",
        silences[rounds / 2].as_millis(),
        silences[rounds - 1].as_millis()
    );
    assert_nothing_lost(&cluster, talk);
}

#[test]
fn all_read_one_order_although_the_leader_is_killed() {
    kill_the_leader(1, 6);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_kill_the_leader() {
    kill_the_leader(rounds(), 12);
}

#[test]
fn only_the_side_with_a_majority_acknowledges() {
    let network = Proxies::new(3);
    let cluster = network.start_cluster(&FLAGS);
    let talk = Talk::start(&cluster, 3, PAUSE);
    sleep(QUIET);
    // The leader, n3, is alone.
    network.split(&[vec![0, 1], vec![2]]);
    wait_until("the others elect a leader", || {
        let status = cluster.servers[0].status()?;
        (status.leader?.as_str() == "n2").then_some(())
    });
    wait_until("n3 follows nobody", || cluster.servers[2].status()?.leader.is_none().then_some(()));
    let before = talk.acked_each();
    sleep(QUIET);
    let after = talk.acked_each();
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
    network.heal(Healing::GoOn);
    assert_nothing_lost(&cluster, talk);
}
