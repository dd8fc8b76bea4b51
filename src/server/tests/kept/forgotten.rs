//! What becomes of clients, and of servers that start again, when old messages are forgotten: `--retain`.

use std::time::Duration;

use super::*;
use crate::config::Retain;
use crate::domain::NodeId;
use crate::domain::content::{HistoryStart, Joined, OrderStatus};
use crate::storage::record;

/// Servers of the design `sequencer` with a leader, that keep what `retain` says and nothing in memory.
fn servers(ids: &[&str], retain: Retain) -> TestCluster {
    let mut cluster = TestCluster::default();
    for id in ids {
        let mut config = config(id, ids, 1);
        config.design = "sequencer".into();
        (config.retain, config.log_tail_bytes) = (retain, 0);
        cluster.start(config);
    }
    cluster.advance(4000);
    cluster
}

fn order(cluster: &mut TestCluster, id: &str) -> OrderStatus {
    cluster.step(&NodeId::from(id), |node, step| node.status(None, step)).order.unwrap()
}

/// `client` says `count` messages in the lobby, ten each second.
fn say_many(cluster: &mut TestCluster, client: &End, from: usize, count: usize) {
    for number in from..from + count {
        cluster.chat(client, "lobby", &format!("m{number}"));
        cluster.advance(100);
    }
    cluster.take(client);
}

/// The ids of the messages that a new member is sent, and where it is told that history starts.
fn read(cluster: &mut TestCluster, id: &str, name: &str) -> (Vec<String>, Option<HistoryStart>) {
    let reader = cluster.client(id, name);
    cluster.take(&reader);
    cluster.join(&reader, "lobby", JoinRoom { history: Some(u32::MAX), ..JoinRoom::default() });
    cluster.advance(300);
    let told = cluster.take(&reader);
    let joined: Joined = told[0].content.parse().unwrap();
    let chats = told.iter().filter(|msg| msg.message_type == MessageType::Chat);
    let ids: Vec<String> = chats.map(|msg| msg.message_id.clone()).collect();
    assert_eq!(joined.history as usize, ids.len());
    cluster.hang_up(&reader);
    (ids, joined.starts)
}

/// How long the log is that a start of `id` would find, in bytes.
fn bytes_kept(cluster: &TestCluster, id: &str) -> u64 {
    let mut lines = Vec::new();
    let records = cluster.log_of(id).kept();
    for msg in &records {
        record::encode(msg, &mut lines);
    }
    lines.len() as u64
}

#[test]
fn as_much_is_kept_as_was_asked_for_and_little_more() {
    let mut cluster = servers(&["n1"], Retain::Bytes(20_000));
    let alice = cluster.member("n1", "alice", "lobby");
    say_many(&mut cluster, &alice, 0, 50);
    assert_eq!(order(&mut cluster, "n1").starts_after, 0, "there is room for these");
    for turn in 1..8 {
        say_many(&mut cluster, &alice, turn * 50, 50);
        cluster.advance(3000);
        let kept = bytes_kept(&cluster, "n1");
        assert!(order(&mut cluster, "n1").starts_after == 0 || kept >= 20_000, "{kept}");
        assert!(kept < 50_000, "{kept}");
    }
    let starts_after = order(&mut cluster, "n1").starts_after;
    assert!(starts_after > 100, "{starts_after}");
    let (ids, starts) = read(&mut cluster, "n1", "reader");
    assert!(ids.len() < 300 && ids.last().unwrap() == "m399", "{} are kept", ids.len());
    assert_eq!(starts.map(|starts| starts.after), Some(starts_after));
}

#[test]
fn what_is_forgotten_stays_so_after_a_restart_and_nothing_is_said_twice() {
    let mut cluster = servers(&["n1"], Retain::Bytes(10_000));
    let alice = cluster.member("n1", "alice", "lobby");
    say_many(&mut cluster, &alice, 0, 200);
    cluster.advance(3000);
    let before = (read(&mut cluster, "n1", "reader"), order(&mut cluster, "n1").starts_after);
    assert!(before.1 > 50);
    let state = cluster.node("n1").state_without_messages();
    cluster.restart("n1");
    cluster.advance(4000);
    let after = (read(&mut cluster, "n1", "reader"), order(&mut cluster, "n1").starts_after);
    assert_eq!(before, after);
    let (applied, again) = cluster.node("n1").state_without_messages().unwrap();
    assert!(applied > state.as_ref().unwrap().0, "the NOOP of another term");
    let sessions =
        |state: &[u8]| String::from_utf8(state.to_vec()).unwrap().lines().skip(1).count();
    assert_eq!(sessions(&again), sessions(&state.unwrap().1));
    // The first copy of this one is gone.
    let alice = cluster.client("n1", "alice");
    cluster.join(&alice, "lobby", JoinRoom { history: Some(0), ..JoinRoom::default() });
    cluster.advance(300);
    cluster.take(&alice);
    cluster.chat(&alice, "lobby", "m0");
    cluster.advance(300);
    assert_eq!(got(&mut cluster, &alice), ["ACK m0"]);
}

#[test]
fn the_age_of_a_message_is_told_by_the_log() {
    let hour = Duration::from_secs(3600);
    let mut cluster = servers(&["n1"], Retain::Age(hour));
    let alice = cluster.member("n1", "alice", "lobby");
    say_many(&mut cluster, &alice, 0, 100);
    cluster.set_wall_ahead(2 * 3_600_000);
    cluster.advance(5000);
    assert_eq!(order(&mut cluster, "n1").starts_after, 0, "nobody has said so");
    say_many(&mut cluster, &alice, 100, 30);
    cluster.advance(3000);
    let (ids, starts) = read(&mut cluster, "n1", "reader");
    let wanted: Vec<String> = (100..130).map(|number| format!("m{number}")).collect();
    assert_eq!(ids, wanted);
    assert!(starts.is_some_and(|starts| starts.until < 3_600_000), "{starts:?}");
}

#[test]
fn who_comes_back_is_told_if_it_misses_something_and_only_then() {
    let mut cluster = servers(&["n1"], Retain::Bytes(10_000));
    let quiet = cluster.member("n1", "quiet", "attic");
    cluster.chat(&quiet, "attic", "q");
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.chat(&alice, "lobby", "a");
    cluster.advance(300);
    let position = |told: &[Message]| told.iter().rev().find_map(|msg| msg.position.clone());
    let at_quiet = position(&cluster.take(&quiet));
    let at_alice = position(&cluster.take(&alice));
    cluster.hang_up(&alice);
    cluster.hang_up(&quiet);
    let bob = cluster.client("n1", "bob");
    cluster.join(&bob, "lobby", JoinRoom { history: Some(0), ..JoinRoom::default() });
    cluster.take(&bob);
    say_many(&mut cluster, &bob, 0, 200);
    cluster.advance(3000);
    for (name, room, after, misses) in
        [("alice", "lobby", at_alice, true), ("quiet", "attic", at_quiet, false)]
    {
        let client = cluster.client("n1", name);
        cluster.take(&client);
        cluster.join(&client, room, JoinRoom { after, ..JoinRoom::default() });
        cluster.advance(300);
        let told = cluster.take(&client);
        let joined: Joined = told[0].content.parse().unwrap();
        assert_eq!(joined.starts.is_some(), misses, "{name}: {joined:?}");
    }
    let since = |cluster: &mut TestCluster, since: u64| {
        let asks = HistoryRequest { since, after: None };
        let msg = Message::new(MessageType::History, "").with_id("h").in_room("lobby");
        cluster.say(&bob, msg.saying(&asks));
        let told = cluster.take(&bob);
        let page = told.iter().find(|msg| msg.message_type == MessageType::History);
        page.unwrap().content.parse::<HistoryPage>().unwrap()
    };
    let starts = since(&mut cluster, 0).starts.expect("older ones are gone");
    assert_eq!(since(&mut cluster, starts.until + 1).starts, None);
}

#[test]
fn a_server_that_was_away_for_too_long_starts_anew_and_its_clients_are_moved() {
    let mut cluster = servers(&["n1", "n2", "n3"], Retain::Bytes(10_000));
    let (alice, carol) =
        (cluster.member("n2", "alice", "lobby"), cluster.member("n1", "carol", "lobby"));
    say_many(&mut cluster, &alice, 0, 10);
    // Cut off, it knows nothing of what is said, and its clients are still there.
    cluster.cut("n1", "n2");
    cluster.cut("n1", "n3");
    cluster.advance(5000);
    for number in 10..110 {
        cluster.chat(&alice, "lobby", &format!("m{number}"));
        cluster.advance(20);
    }
    cluster.advance(5000);
    let starts_after = order(&mut cluster, "n2").starts_after;
    assert!(starts_after > 20 && order(&mut cluster, "n3").starts_after > 20, "{starts_after}");
    assert!(order(&mut cluster, "n1").last < starts_after);
    cluster.take(&carol);
    assert!(!cluster.is_closed(&carol));
    cluster.heal();
    cluster.advance(10_000);
    let n1 = order(&mut cluster, "n1");
    assert!(n1.starts_after > 20 && n1.last == order(&mut cluster, "n3").last, "{n1:?}");
    assert!(cluster.is_closed(&carol), "she missed something, and is told when she comes again");
    let states = ["n1", "n2", "n3"].map(|id| cluster.node(id).state_without_messages());
    assert!(states[0] == states[1] && states[1] == states[2]);
    let (ids, _) = read(&mut cluster, "n1", "reader");
    assert_eq!(ids.last().map(String::as_str), Some("m109"));
}

#[test]
fn what_a_connected_server_lacks_is_kept() {
    let mut cluster = servers(&["n1", "n2", "n3"], Retain::Bytes(10_000));
    let alice = cluster.member("n2", "alice", "lobby");
    cluster.set_syncing("n1", false);
    say_many(&mut cluster, &alice, 0, 200);
    cluster.advance(5000);
    for id in ["n1", "n2", "n3"] {
        assert!(order(&mut cluster, id).starts_after < 20, "{id}");
    }
    cluster.set_syncing("n1", true);
    cluster.advance(5000);
    for id in ["n1", "n2", "n3"] {
        let starts_after = order(&mut cluster, id).starts_after;
        assert!(starts_after > 50, "{id}: {starts_after}");
    }
}
