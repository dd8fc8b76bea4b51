//! Snapshots of the design `raft` as processes: a server whose folder is gone rejoins by one; damage of one or all of them,
//! or of the log beside them, is found and made good.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::PathBuf;

use roundtable::domain::content::StorageStatus;
use serde_json::Value;
use support::cluster::Cluster;
use support::talk::ROOM;
use support::wait_until;
use support::wire::RawClient;

const FLAGS: [&str; 10] = [
    "--design",
    "raft",
    "--server-timeout-ms",
    "800",
    "--rooms",
    ROOM,
    // A snapshot soon, and a log of many files.
    "--compact-after",
    "40",
    "--segment-bytes",
    "4096",
];

/// Writes `count` messages to the server at `index` and waits for their ACKs.
fn write_some(cluster: &Cluster, index: usize, name: &str, count: usize) {
    let mut writer = RawClient::join(cluster.address(index), name);
    writer.join_room(ROOM, 0);
    for number in 0..count {
        writer.chat(ROOM, &format!("{name}-{number}"), "some words");
    }
    for number in 0..count {
        writer.wait_ack(&format!("{name}-{number}"));
    }
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

/// Three servers that have made some snapshots.
fn cluster() -> Cluster {
    let cluster = Cluster::start(3, &FLAGS);
    for round in 0..3 {
        // Bursts are applied together: it takes some until there are two snapshots.
        for burst in 0..6 {
            write_some(&cluster, round, &format!("writer{round}{burst}"), 30);
        }
    }
    for index in 0..3 {
        wait_until("there are two snapshots", || {
            (snapshots(&cluster, index).len() == 2).then_some(())
        });
        wait_until("the log begins later", || {
            (!cluster.servers[index].log_file().exists()).then_some(())
        });
    }
    cluster
}

/// The snapshots of the server at `index`, the newest one last.
fn snapshots(cluster: &Cluster, index: usize) -> Vec<PathBuf> {
    files(cluster, index, ".snapshot")
}

/// The files in the folder of the log whose names end like this, in order.
fn files(cluster: &Cluster, index: usize, end: &str) -> Vec<PathBuf> {
    let folder = cluster.servers[index].data.join("log");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    files
}

fn flip_a_bit(path: &PathBuf) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The name of the disk of the server at `index`.
fn disk(cluster: &Cluster, index: usize) -> String {
    let text = fs::read_to_string(cluster.servers[index].data.join("node.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["disk_id"].as_str().unwrap().to_string()
}

/// Waits until the server at `index` counts as a voter that has everything, by killing another one and writing.
fn assert_counts(cluster: &mut Cluster, index: usize) {
    wait_equal(cluster);
    let (id, disk) = (cluster.servers[index].id.clone(), disk(cluster, index));
    let leader = cluster.leader_index();
    wait_until("it votes again", || {
        let text: String = files(cluster, leader, ".jsonl")
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .collect();
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut entries =
            records.filter(|record| record["type"] == "MEMBERS" && record["seq"].is_u64());
        let members = entries.next_back()?["content"].clone();
        (members["voters"][&id] == disk.as_str()).then_some(())
    });
    let third = (0..3).find(|other| *other != index && *other != leader);
    let third = third.unwrap_or((index + 1) % 3);
    cluster.servers[third].kill();
    write_some(cluster, index, &format!("after{index}{third}"), 10);
    cluster.restart(third);
    wait_equal(cluster);
}

/// A server that does not lead.
fn follower(cluster: &Cluster) -> usize {
    (cluster.leader_index() + 1) % 3
}

#[test]
fn a_server_without_its_folder_rejoins_by_a_snapshot() {
    let mut cluster = cluster();
    let index = follower(&cluster);
    cluster.servers[index].kill();
    fs::remove_dir_all(&cluster.servers[index].data).unwrap();
    cluster.restart(index);
    wait_until("it has taken over the leader's snapshot", || {
        cluster.servers[index].log().contains("goes on from a snapshot").then_some(())
    });
    assert_counts(&mut cluster, index);
}

#[test]
fn one_flipped_bit_in_the_newest_snapshot_costs_nothing() {
    let mut cluster = cluster();
    let index = follower(&cluster);
    cluster.servers[index].kill();
    let newest = snapshots(&cluster, index).pop().unwrap();
    flip_a_bit(&newest);
    let before = disk(&cluster, index);
    cluster.restart(index);
    let log = cluster.servers[index].log();
    assert!(
        log.contains("snapshot is damaged") && log.contains("goes on from a snapshot"),
        "{log}"
    );
    assert_eq!(disk(&cluster, index), before, "the older snapshot and the log have everything");
    wait_equal(&cluster);
}

#[test]
fn a_server_that_has_lost_all_snapshots_starts_anew_and_learns() {
    let mut cluster = cluster();
    let index = follower(&cluster);
    cluster.servers[index].kill();
    let all = snapshots(&cluster, index);
    flip_a_bit(&all[0]);
    fs::remove_file(&all[1]).unwrap();
    let before = disk(&cluster, index);
    cluster.restart(index);
    let log = cluster.servers[index].log();
    assert!(log.contains("no snapshot of that is sound: this server counts as wiped"), "{log}");
    assert!(cluster.servers[index].data.join("log.incomplete-2").exists());
    assert_ne!(disk(&cluster, index), before);
    assert_counts(&mut cluster, index);
}

#[test]
fn one_flipped_bit_in_the_log_beside_a_snapshot_is_made_good() {
    let mut cluster = cluster();
    let index = follower(&cluster);
    cluster.servers[index].kill();
    let before = disk(&cluster, index);
    let segments = files(&cluster, index, ".jsonl");
    flip_a_bit(segments.iter().rev().find(|path| fs::metadata(path).unwrap().len() > 0).unwrap());
    cluster.restart(index);
    let log = cluster.servers[index].log();
    assert!(log.contains("is damaged") && log.contains("setting it aside"), "{log}");
    assert_ne!(disk(&cluster, index), before);
    assert_counts(&mut cluster, index);
}

#[test]
fn a_server_alone_that_has_lost_all_snapshots_does_not_start_as_if_nothing_had_been() {
    let mut cluster = Cluster::start(1, &FLAGS);
    for burst in 0..8 {
        write_some(&cluster, 0, &format!("writer{burst}"), 30);
    }
    let is_forgotten = || (!cluster.servers[0].log_file().exists()).then_some(());
    wait_until("the log begins later", is_forgotten);
    cluster.servers[0].kill();
    for path in snapshots(&cluster, 0) {
        flip_a_bit(&path);
    }
    let (code, said) = cluster.servers[0].start_in_vain();
    assert_eq!(code, Some(1));
    assert!(said.contains("no other server has it; restore this folder from a copy"), "{said}");
    assert!(cluster.servers[0].data.join("log").exists(), "nothing was moved");
}
