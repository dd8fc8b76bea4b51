//! Servers are killed, paused, wiped and restarted under people who talk. What they saw is checked: nothing
//! acknowledged is lost, nothing is shown twice, causes come before effects.
//!
//! One kill and one pause run with all tests. The rest is for `make soak`, which prints how long the longest wait for an
//! acknowledgement was; `ROUNDS=5 make soak` is shorter than the 20 rounds of each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use roundtable::domain::content::RoomStatus;
use support::cluster::{Cluster, Server};
use support::talk::{ROOM, Talk, assert_nothing_lost};
use support::wait_until;

/// How often each person writes.
const PAUSE: Duration = Duration::from_millis(10);

/// How long people talk between faults.
const QUIET: Duration = Duration::from_millis(1500);

/// With [`QUIET`] twice, a pause of 10 s.
const LONG_PAUSE: Duration = Duration::from_secs(7);

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// A cluster with the timing that users have.
fn cluster() -> Cluster {
    Cluster::start(3, &["--server-timeout-ms", "800", "--rooms", ROOM])
}

/// The index of the server that leads.
fn leader(cluster: &Cluster) -> usize {
    wait_until("a leader is known", || {
        let running = cluster.servers.iter().find(|server| server.runs())?;
        let leader = running.status()?.leader?;
        cluster.servers.iter().position(|server| server.id == leader.as_str())
    })
}

/// Waits until every replica of the room holds as many messages as any server holds now: the wiped server is
/// whole again, or others have taken its place, and another one may fail.
fn wait_repaired(cluster: &Cluster, _index: usize) {
    let room_on = |server: &Server| {
        let rooms = server.status()?.rooms;
        rooms.into_iter().find(|room| room.room_id == ROOM)
    };
    let held = cluster.servers.iter().filter_map(room_on).map(|room| room.messages);
    let wanted = held.max().unwrap_or_default();
    wait_until("all replicas hold what one of them holds", || {
        let rooms: Option<Vec<_>> = cluster.servers.iter().map(room_on).collect();
        let rooms = rooms?;
        let is_whole = |(server, room): (&Server, &RoomStatus)| {
            let replicates = room.replicas.iter().any(|id| id.as_str() == server.id);
            !replicates || room.messages >= wanted
        };
        cluster.servers.iter().zip(&rooms).all(is_whole).then_some(())
    });
}

/// Prints the median and the longest of the silences.
fn report(what: &str, mut silences: Vec<Duration>) {
    silences.sort();
    let ms = |at: usize| silences[at].as_millis();
    println!(
        "{what}: longest wait for an ACK in {} rounds: median {} ms, longest {} ms",
        silences.len(),
        ms(silences.len() / 2),
        ms(silences.len() - 1)
    );
}

/// Does `fault` again and again under four people, mends it with `mend`, and measures the silence after it.
fn soak(
    what: &str,
    rounds: usize,
    fault: impl Fn(&mut Cluster, usize) -> usize,
    mend: impl Fn(&mut Cluster, usize),
) {
    let mut cluster = cluster();
    let talk = Talk::start(&cluster, 4, PAUSE);
    let mut silences = Vec::new();
    for round in 0..rounds {
        sleep(QUIET);
        let since = Instant::now();
        let index = fault(&mut cluster, round);
        sleep(QUIET * 2);
        silences.push(talk.longest_silence(since));
        mend(&mut cluster, index);
        cluster.wait_ready();
    }
    report(what, silences);
    assert_nothing_lost(&cluster, talk);
}

fn kill(cluster: &mut Cluster, index: usize) -> usize {
    cluster.servers[index].kill();
    index
}

fn kill_leader(cluster: &mut Cluster, _round: usize) -> usize {
    let index = leader(cluster);
    kill(cluster, index)
}

fn start_again(cluster: &mut Cluster, index: usize) {
    cluster.restart(index);
}

/// Stops the leader in its tracks; it wakes up believing that it leads.
fn pause_leader(cluster: &mut Cluster, _round: usize) -> usize {
    let index = leader(cluster);
    cluster.servers[index].signal("STOP");
    index
}

fn wake(cluster: &mut Cluster, index: usize) {
    cluster.servers[index].signal("CONT");
}

#[test]
fn people_talk_on_when_the_leader_is_killed() {
    soak("leader killed", 1, kill_leader, start_again);
}

#[test]
fn people_talk_on_when_the_leader_sleeps_and_wakes() {
    soak("leader paused", 1, pause_leader, wake);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_kill_the_leader() {
    soak("leader killed", rounds(), kill_leader, start_again);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_kill_any_server() {
    let any = |cluster: &mut Cluster, round: usize| kill(cluster, round % 3);
    soak("any server killed", rounds(), any, start_again);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_kill_two_servers_in_turn() {
    let two = |cluster: &mut Cluster, round: usize| {
        let first = kill(cluster, round % 3);
        sleep(QUIET);
        cluster.restart(first);
        cluster.wait_ready();
        // Time to repair between the two.
        sleep(QUIET);
        kill(cluster, (round + 1) % 3)
    };
    soak("two servers killed in turn", rounds(), two, start_again);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_pause_the_leader_for_ten_seconds() {
    let long = |cluster: &mut Cluster, round: usize| {
        let index = pause_leader(cluster, round);
        sleep(LONG_PAUSE);
        index
    };
    soak("leader paused for 10 s", rounds(), long, wake);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_pause_any_server_for_ten_seconds() {
    // Those who had left the leader are on another one, and have to leave that one.
    let long = |cluster: &mut Cluster, round: usize| {
        cluster.servers[round % 3].signal("STOP");
        sleep(LONG_PAUSE);
        round % 3
    };
    soak("any server paused for 10 s", rounds(), long, wake);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_wipe_a_server() {
    let any = |cluster: &mut Cluster, round: usize| kill(cluster, round % 3);
    let wiped = |cluster: &mut Cluster, index: usize| {
        fs::remove_dir_all(&cluster.servers[index].data).unwrap();
        cluster.restart(index);
        wait_repaired(cluster, index);
    };
    soak("a server killed and wiped", rounds(), any, wiped);
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_rolling_restart() {
    let mut cluster = cluster();
    let talk = Talk::start(&cluster, 4, PAUSE);
    let mut silences = Vec::new();
    // How often a person was told so many lines about one restart.
    let mut lines = BTreeMap::new();
    for round in 0..rounds() {
        let index = round % 3;
        sleep(QUIET);
        let before = talk.told_each();
        let since = Instant::now();
        cluster.servers[index].signal("INT");
        let status = cluster.servers[index].wait_exit(support::DEADLINE);
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        cluster.restart(index);
        cluster.wait_ready();
        sleep(QUIET);
        silences.push(talk.longest_silence(since));
        for (now, before) in talk.told_each().iter().zip(before) {
            *lines.entry(now - before).or_insert(0) += 1;
        }
    }
    report("rolling restart", silences);
    println!("lines that a person was told about a restart, and how often: {lines:?}");
    println!("news: {:#?}", talk.news().iter().take(12).collect::<Vec<_>>());
    assert_nothing_lost(&cluster, talk);
}
