//! Faults that the tests of more than one design do to their servers.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use super::talk::{Talk, assert_nothing_lost};

/// How often each person writes.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// How long people talk between faults.
pub(crate) const QUIET: Duration = Duration::from_millis(1500);

/// How many rounds a soak has.
pub(crate) fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Kills the leader of three servers with `flags` under `people` again and again, starts it again each time, and checks
/// everything.
pub(crate) fn kill_the_leader(flags: &[&str], rounds: usize, people: usize) {
    let mut cluster = Cluster::start(3, flags);
    let talk = Talk::start(&cluster, people, PAUSE);
    let mut silences = Vec::new();
    for _ in 0..rounds {
        sleep(QUIET);
        let since = Instant::now();
        let index = cluster.leader_index();
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
