//! The design `raft` as processes: one order for all, whoever dies; a minority acknowledges nothing; a server that lost
//! its disk learns first and votes later.
//!
//! One kill, one partition and one deleted folder run with all tests. The rest is for `make soak`: `ROUNDS=5 make soak` is
//! shorter than the 20 rounds, `SOAK_SECONDS=30 make soak` shorter than the 5 minutes of faults.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use roundtable::domain::content::StorageStatus;
use serde_json::Value;
use support::cluster::Cluster;
use support::faults::{PAUSE, QUIET, kill_the_leader, rounds};
use support::proxy::{Fronts, Healing, start_cluster};
use support::talk::{ROOM, Talk, assert_nothing_lost};
use support::wait_until;

const FLAGS: [&str; 6] = ["--design", "raft", "--server-timeout-ms", "800", "--rooms", ROOM];

#[test]
fn all_read_one_order_although_the_leader_is_killed() {
    kill_the_leader(&FLAGS, 1, 6);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_kill_the_leader() {
    kill_the_leader(&FLAGS, rounds(), 12);
}

#[test]
fn only_the_side_with_a_majority_acknowledges() {
    let network = Fronts::open(3).unwrap();
    let cluster = start_cluster(&network, &FLAGS);
    let talk = Talk::start(&cluster, 3, PAUSE);
    sleep(QUIET);
    let alone = cluster.leader_index();
    let others: Vec<usize> = (0..3).filter(|index| *index != alone).collect();
    network.split(&[others.clone(), vec![alone]]);
    wait_until("the others elect one of them", || {
        let leader = cluster.servers[others[0]].status()?.leader?;
        others.iter().any(|index| cluster.servers[*index].id == leader.as_str()).then_some(())
    });
    wait_until("the old leader steps down", || {
        cluster.servers[alone].status()?.leader.is_none().then_some(())
    });
    let committed = || cluster.servers[alone].status()?.order.map(|order| order.committed);
    let (before, stuck_at) = (talk.acked(), committed());
    sleep(QUIET);
    assert!(talk.acked() > before, "the majority goes on");
    assert_eq!(committed(), stuck_at, "what is not committed is not acknowledged");
    network.heal(Healing::GoOn);
    assert_nothing_lost(&cluster, talk);
    wait_equal(&cluster);
}

/// Waits until all servers have applied the same, and have the same to show for it.
fn wait_equal(cluster: &Cluster) {
    wait_until("all digests are equal", || {
        let copies: Option<Vec<StorageStatus>> =
            cluster.servers.iter().map(|server| server.status()?.storage).collect();
        let copies = copies?;
        copies.iter().all(|copy| *copy == copies[0]).then_some(())
    });
}

/// The configurations in the log of the server at `index`, each with its place. The last line may be half written.
fn configurations(cluster: &Cluster, index: usize) -> Vec<(u64, Value)> {
    let text = fs::read_to_string(cluster.servers[index].log_file()).unwrap_or_default();
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entries = records.filter(|record| record["type"] == "MEMBERS");
    entries.filter_map(|entry| Some((entry["seq"].as_u64()?, entry["content"].clone()))).collect()
}

/// The name of the disk of the server at `index`.
fn disk(cluster: &Cluster, index: usize) -> Option<String> {
    let text = fs::read_to_string(cluster.servers[index].data.join("node.json")).ok()?;
    Some(serde_json::from_str::<Value>(&text).ok()?["disk_id"].as_str()?.to_string())
}

#[test]
fn a_server_that_lost_its_disk_learns_before_it_votes_again() {
    let mut cluster = Cluster::start(3, &FLAGS);
    let talk = Talk::start(&cluster, 3, PAUSE);
    sleep(QUIET);
    let leader = cluster.leader_index();
    let wiped = (leader + 1) % 3;
    let id = cluster.servers[wiped].id.clone();
    cluster.servers[wiped].kill();
    fs::remove_dir_all(&cluster.servers[wiped].data).unwrap();
    cluster.restart(wiped);
    let disk = disk(&cluster, wiped).unwrap();
    let promoted = wait_until("it votes again, and that is committed", || {
        let history = configurations(&cluster, leader);
        let (seq, _) =
            history.iter().find(|(_, members)| members["voters"][&id] == disk.as_str())?;
        let committed = cluster.servers[leader].status()?.order?.committed;
        (committed >= *seq).then_some(*seq)
    });
    let learned = configurations(&cluster, leader).into_iter().find(|(_, members)| {
        members["learners"][&id]["disk"] == disk.as_str() && members["voters"][&id].is_null()
    });
    assert!(learned.is_some_and(|(seq, _)| seq < promoted), "it learned first");
    cluster.wait_ready();
    // The vote counts: with another server dead, two of three are a majority by it alone.
    let third = (leader + 2) % 3;
    cluster.servers[third].kill();
    sleep(QUIET);
    let before = talk.acked();
    wait_until("two servers acknowledge", || (talk.acked() > before + 10).then_some(()));
    cluster.restart(third);
    assert_nothing_lost(&cluster, talk);
    wait_equal(&cluster);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_random_faults() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(300));
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut cluster = Cluster::start(3, &FLAGS);
    let talk = Talk::start(&cluster, 6, PAUSE);
    let (mut kills, mut pauses, mut stops) = (0, 0, 0);
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.u64(200..1500)));
        let index = rng.usize(0..3);
        let down = Duration::from_millis(rng.u64(50..4000));
        match rng.u8(0..3) {
            0 => {
                kills += 1;
                cluster.servers[index].kill();
                sleep(down);
                cluster.restart(index);
            }
            1 => {
                pauses += 1;
                cluster.servers[index].signal("STOP");
                sleep(down);
                cluster.servers[index].signal("CONT");
            }
            _ => {
                stops += 1;
                cluster.servers[index].signal("INT");
                let status = cluster.servers[index].wait_exit(support::DEADLINE);
                assert!(status.is_some_and(|status| status.success()), "{status:?}");
                cluster.restart(index);
            }
        }
    }
    println!("{kills} kills, {pauses} pauses, {stops} clean restarts");
    assert_nothing_lost(&cluster, talk);
    wait_equal(&cluster);
}
