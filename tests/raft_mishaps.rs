//! What production systems got wrong, with the design `raft` as processes: lost and damaged disks, messages that hurt.
//!
//! The guide's page of the design says which test stands for which mishap.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::fs;
use std::thread::sleep;

use roundtable::domain::MessageType;
use roundtable::domain::content::StorageStatus;
use support::cluster::{Cluster, Server};
use support::disks::{flip_a_bit, room_on, write_some};
use support::faults::QUIET;
use support::talk::ROOM;
use support::wait_until;
use support::wire::RawClient;

const FLAGS: [&str; 6] = ["--design", "raft", "--server-timeout-ms", "800", "--rooms", ROOM];

/// Waits until all servers have applied the same.
fn wait_equal(cluster: &Cluster) {
    wait_until("all copies are equal", || {
        let copies: Option<Vec<StorageStatus>> =
            cluster.servers.iter().map(|server| server.status()?.storage).collect();
        let copies = copies?;
        copies.iter().all(|copy| *copy == copies[0]).then_some(())
    });
}

/// Waits until the disks that the servers have now are the voters' again.
fn wait_voters(cluster: &Cluster) {
    wait_until("three servers vote", || {
        let order = cluster.servers[cluster.leader_index()].status()?.order?;
        (order.voters.len() == 3).then_some(())
    });
    wait_equal(cluster);
}

#[test]
fn an_empty_majority_elects_nobody() {
    let mut cluster = Cluster::start(3, &FLAGS);
    write_some(&cluster, 0, "before", 20);
    let set_aside = |index: usize| cluster.folder.path().join(format!("aside-{index}"));
    let aside = [1, 2].map(set_aside);
    for index in 0..3 {
        cluster.servers[index].kill();
    }
    for (index, aside) in (1..).zip(&aside) {
        fs::rename(&cluster.servers[index].data, aside).unwrap();
        cluster.servers[index].start();
    }
    let nobody_leads = |cluster: &Cluster| {
        // Long enough for anybody to stand, and to win if that could be.
        sleep(QUIET * 2);
        let running = cluster.servers.iter().filter(|server| server.runs());
        for status in running.filter_map(Server::status) {
            assert_eq!(status.leader, None, "{} knows a leader", status.node);
        }
    };
    nobody_leads(&cluster);
    // Neither with the only one that remembers.
    cluster.servers[0].start();
    nobody_leads(&cluster);
    // The disks are found again.
    for (index, aside) in (1..).zip(&aside) {
        cluster.servers[index].kill();
        fs::remove_dir_all(&cluster.servers[index].data).unwrap();
        fs::rename(aside, &cluster.servers[index].data).unwrap();
        cluster.servers[index].start();
    }
    cluster.wait_ready();
    assert_eq!(room_on(&cluster, 0).len(), 20);
    wait_equal(&cluster);
}

#[test]
fn a_flipped_bit_or_a_lost_vote_is_repaired_from_the_others() {
    let mut cluster = Cluster::start(3, &FLAGS);
    // The vote stands in the log: without it the server does not know whom it voted for.
    for (round, lost) in [(1, false), (2, true), (3, false)] {
        let index =
            if round == 3 { cluster.leader_index() } else { (cluster.leader_index() + 1) % 3 };
        write_some(&cluster, index, &format!("round-{round}"), 20);
        cluster.servers[index].kill();
        let name = |cluster: &Cluster| {
            fs::read_to_string(cluster.servers[index].data.join("node.json")).unwrap()
        };
        let before = name(&cluster);
        if lost {
            fs::remove_dir_all(cluster.servers[index].data.join("log")).unwrap();
        } else {
            flip_a_bit(&cluster, index);
        }
        cluster.restart(index);
        let log = cluster.servers[index].log();
        let told = if lost { "is gone, so this server counts as wiped" } else { "is damaged" };
        assert!(log.contains(told), "{log}");
        let disk =
            |text: &str| text.lines().find(|line| line.contains("disk_id")).map(String::from);
        assert_ne!(disk(&before), disk(&name(&cluster)), "it has another disk");
        wait_voters(&cluster);
        cluster.wait_ready();
        assert_eq!(room_on(&cluster, index).len(), 20 * round);
    }
}

/// Texts that have hurt somebody's parser, terminal or log; none that may not be said.
const UGLY: [&str; 6] = [
    "\0\u{1}\u{1b}[2J\u{7f}\u{85}",
    "\u{202e}\u{2028}\u{feff}\u{fffd}\u{10ffff}",
    "\"}\n{\"type\":\"NOOP\",\"seq\":1,\"term\":{\"counter\":99,\"leader\":\"n9.1-0000\"}}\n",
    "{\"voters\":{}}",
    "💣💣💣\r\n\r\n",
    "\\u0000\\ud800",
];

#[test]
fn no_message_stops_the_servers() {
    let mut cluster = Cluster::start(3, &FLAGS);
    let mut writer = RawClient::join(cluster.address(0), "writer");
    writer.join_room(ROOM, 0);
    for (number, text) in UGLY.iter().enumerate() {
        writer.chat_acked(ROOM, &format!("ugly-{number}"), text);
    }
    // The longest frame that is taken, once as it is and once of letters that take six bytes each on the wire.
    let room_for = 1024 * 1024 - writer.chat_message(ROOM, "long-0", "").serialize().len();
    writer.chat_acked(ROOM, "long-0", &"x".repeat(room_for));
    writer.chat_acked(ROOM, "long-1", &"\u{1}".repeat(room_for / 6));
    writer.chat_acked(ROOM, &"i".repeat(1000), "a long id");
    writer.chat_acked(ROOM, "two\nlines\0", "an ugly id");
    // Whatever would not be understood where it is applied is refused where it comes in.
    writer.chat(ROOM, "", "no id");
    writer.wait_for("the ERROR", |msg| msg.message_type == MessageType::Error);
    for content in ["[[[[]]]]", "{\"target\":7}", "{}", "null"] {
        let delete = format!(
            "{{\"type\":\"DELETE\",\"message_id\":\"d\",\"sender_id\":\"writer\",\"room_id\":\"{ROOM}\",\"content\":{content}}}"
        );
        writer.send_frame(&delete);
        writer.wait_for("the ERROR", |msg| msg.message_type == MessageType::Error);
    }
    wait_equal(&cluster);
    // What is in the log now is applied again by whoever starts.
    cluster.restart_all();
    cluster.wait_ready();
    assert_eq!(room_on(&cluster, 1).len(), UGLY.len() + 4);
    wait_equal(&cluster);
}

#[test]
fn who_was_away_is_sent_all_it_lacks_however_short_the_clients_frames_are() {
    let flags = [&FLAGS[..], &["--frame-bytes-max", "4096"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let away = (cluster.leader_index() + 1) % 3;
    cluster.servers[away].kill();
    let mut writer = RawClient::join(cluster.address(cluster.leader_index()), "writer");
    writer.join_room(ROOM, 0);
    for number in 0..100 {
        writer.chat_acked(ROOM, &format!("m{number}"), &"x".repeat(3000));
    }
    cluster.restart(away);
    cluster.wait_ready();
    wait_equal(&cluster);
    assert_eq!(room_on(&cluster, away).len(), 100);
}
