//! A server that was away catches up from the others' disks while they go on: a small run with all tests, a million messages in
//! `make soak`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use roundtable::domain::MessageType;
use roundtable::domain::content::StorageStatus;
use support::cluster::{Cluster, Server};
use support::wait_within;
use support::wire::RawClient;

const FLAGS: [&str; 4] = ["--design", "sequencer", "--server-timeout-ms", "800"];

/// Messages that a writer has on the way at once.
const WINDOW: usize = 256;

/// Somebody alone in a room writes `count` messages, as fast as they are acknowledged.
fn write_many(address: SocketAddr, name: &str, count: usize) {
    let mut writer = RawClient::join(address, name);
    writer.join_room(name, 0);
    let (mut sent, mut acked) = (0, 0);
    while acked < count {
        while sent < count && sent < acked + WINDOW {
            writer.chat(name, &format!("{name}-{sent}"), "a short message");
            sent += 1;
        }
        let msg = writer.expect("an ACK");
        assert_ne!(msg.message_type, MessageType::Error, "{}", msg.serialize());
        acked += usize::from(msg.message_type == MessageType::Ack);
    }
}

/// Somebody writes one message after the other until `stop` is closed: how long each ACK took.
fn write_on(
    address: SocketAddr,
    name: &'static str,
    stop: Receiver<()>,
) -> JoinHandle<Vec<Duration>> {
    spawn(move || {
        let mut writer = RawClient::join(address, name);
        writer.join_room(name, 0);
        let mut waits = Vec::new();
        while stop.try_recv() == Err(TryRecvError::Empty) {
            let since = Instant::now();
            writer.chat_acked(name, &format!("{name}-{}", waits.len()), "meanwhile");
            waits.push(since.elapsed());
        }
        waits
    })
}

/// The median, the 99th of a hundred, and the longest.
fn quantiles(mut waits: Vec<Duration>) -> String {
    waits.sort();
    let at = |part: usize| waits.get(waits.len() * part / 100).copied().unwrap_or_default();
    let longest = waits.last().copied().unwrap_or_default();
    format!("{} ACKs, p50 {:?}, p99 {:?}, longest {longest:?}", waits.len(), at(50), at(99))
}

fn storage(server: &Server) -> Option<StorageStatus> {
    server.status()?.storage
}

/// How much memory the server takes, in MiB.
fn memory_mib(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    kib.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// n1 is away while `writers` people write `count` messages each, and comes back while others go on.
fn away_for(writers: usize, count: usize, flags: &[&str], limit: Duration) -> Cluster {
    let mut cluster = Cluster::start(3, &[&FLAGS[..], flags].concat());
    cluster.servers[0].kill();
    let since = Instant::now();
    let talkers: Vec<JoinHandle<()>> = (0..writers)
        .map(|number| {
            let address = cluster.address(1 + number % 2);
            spawn(move || write_many(address, &format!("w{number}"), count))
        })
        .collect();
    for talker in talkers {
        talker.join().unwrap();
    }
    let written = since.elapsed();
    println!("{} messages written in {written:.1?}, n1 is away", writers * count);
    let (stop, stopped) = bounded(0);
    let before = write_on(cluster.address(1), "before", stopped);
    sleep(Duration::from_secs(2));
    drop(stop);
    println!("without n1: {}", quantiles(before.join().unwrap()));

    let (stop, stopped) = bounded(0);
    let meanwhile = write_on(cluster.address(1), "meanwhile", stopped);
    let since = Instant::now();
    cluster.servers[0].start();
    let all = (writers * count) as u64;
    let level = wait_within(limit, || {
        let (n1, n3) = (storage(&cluster.servers[0])?, storage(&cluster.servers[2])?);
        (n1.applied >= all && n1.applied + 100 >= n3.applied).then_some(n1.applied)
    });
    let took = since.elapsed();
    drop(stop);
    let waits = quantiles(meanwhile.join().unwrap());
    let level = level.unwrap_or_else(|| panic!("not level after {took:?}"));
    println!("n1 is level at {level} after {took:.1?}; meanwhile: {waits}");
    let memory: Vec<u64> = cluster.servers.iter().map(memory_mib).collect();
    println!("memory of n1, n2, n3: {memory:?} MiB");
    let equal = wait_within(Duration::from_secs(20), || {
        let all: Option<Vec<_>> = cluster.servers.iter().map(storage).collect();
        let all = all?;
        all.iter().all(|one| *one == all[0]).then_some(())
    });
    assert!(equal.is_some(), "all servers applied the same");
    let mut reader = RawClient::join(cluster.address(0), "reader");
    let joined = reader.join_room("w0", 10);
    assert_eq!(joined.history, 10);
    reader.chats(10);
    let log = cluster.servers.iter().map(Server::log).collect::<String>();
    assert!(!log.contains(" ERROR "), "{log}");
    cluster
}

#[test]
fn a_server_that_was_away_is_caught_up_from_the_disks_of_the_others() {
    // 5,000 messages are about a megabyte, of which 16 KiB are in memory.
    let flags = ["--log-tail-bytes", "16384", "--log", "debug"];
    let cluster = away_for(5, 1000, &flags, Duration::from_secs(60));
    let log = cluster.servers.iter().map(Server::log).collect::<String>();
    let reads = log.lines().filter(|line| line.contains("reads entries from")).count();
    assert!(reads > 2, "{reads} reads");
}

/// How long the log of the server is on its disk, in bytes.
fn log_bytes(server: &Server) -> u64 {
    let files = fs::read_dir(server.data.join("log")).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Where the log of the server at `index` starts.
fn starts_after(cluster: &Cluster, index: usize) -> u64 {
    wait_within(Duration::from_secs(20), || {
        Some(cluster.servers[index].status()?.order?.starts_after)
    })
    .unwrap()
}

#[test]
fn old_messages_go_and_a_server_that_was_away_for_longer_starts_anew() {
    let flags = ["--segment-bytes", "65536", "--retain", "128KiB", "--log-tail-bytes", "16384"];
    let mut cluster = Cluster::start(3, &[&FLAGS[..], &flags].concat());
    cluster.servers[0].kill();
    // More than a megabyte.
    write_many(cluster.address(1), "w0", 4000);
    let forgotten = wait_within(Duration::from_secs(30), || {
        let all = [1, 2].map(|index| starts_after(&cluster, index));
        all.iter().all(|starts_after| *starts_after > 2000).then_some(all)
    });
    assert!(forgotten.is_some(), "n2 and n3 forget");
    // The log writer removes the segments a little later.
    let few = wait_within(Duration::from_secs(30), || {
        (100_000..500_000).contains(&log_bytes(&cluster.servers[1])).then_some(())
    });
    assert!(few.is_some(), "{} bytes are kept", log_bytes(&cluster.servers[1]));
    cluster.restart(0);
    cluster.servers[1].kill();
    cluster.servers[1].start();
    let equal = wait_within(Duration::from_secs(30), || {
        let all: Option<Vec<_>> = cluster.servers.iter().map(storage).collect();
        let all = all?;
        (all[0].applied > 4000 && all.iter().all(|one| *one == all[0])).then_some(())
    });
    assert!(equal.is_some(), "all servers applied the same");
    for index in 0..3 {
        let starts_after = starts_after(&cluster, index);
        assert!(starts_after > 2000, "n{} starts after {starts_after}", index + 1);
        let mut reader = RawClient::join(cluster.address(index), &format!("reader{index}"));
        let joined = reader.join_room("w0", u32::MAX);
        let starts = joined.starts.expect("it is told that there was more");
        assert_eq!(starts.after, starts_after);
        let texts = reader.chats(joined.history as usize);
        assert!(texts.len() < 2000, "{}", texts.len());
        assert_eq!(texts.last().unwrap().message_id, "w0-3999");
    }
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_a_million_messages_behind() {
    let messages = std::env::var("MESSAGES").ok().and_then(|text| text.parse().ok());
    away_for(8, messages.unwrap_or(1_000_000) / 8, &[], Duration::from_secs(300));
}
