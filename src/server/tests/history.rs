//! Messages of the design `ring` that are on disk alone: after a start, or with no memory for them.

use crate::domain::content::{JoinRoom, Joined, Position};
use crate::domain::{Message, MessageType, NodeId, VectorClock};
use crate::server::test_cluster::{TestCluster, codes, config, got};

type End = (NodeId, crate::network::ConnId);

/// Servers of the design `ring` that keep nothing in memory that is on disk and was shown.
fn forgetful(ids: &[&str]) -> TestCluster {
    let mut cluster = TestCluster::default();
    for id in ids {
        let mut config = config(id, ids, 1);
        config.log_tail_bytes = 0;
        cluster.start(config);
    }
    cluster.advance(1500);
    cluster
}

fn say(cluster: &mut TestCluster, client: &End, numbers: std::ops::Range<usize>) {
    for number in numbers {
        cluster.chat(client, "lobby", &format!("m{number}"));
    }
    cluster.take(client);
}

fn chats(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("CHAT m{number}")).collect()
}

/// What a new member of `id` is told when it asks for `history`, or for what comes `after` a position.
fn read(cluster: &mut TestCluster, id: &str, name: &str, join: JoinRoom) -> Vec<Message> {
    let reader = cluster.client(id, name);
    cluster.take(&reader);
    cluster.join(&reader, "lobby", join);
    cluster.advance(500);
    let mut told = cluster.take(&reader);
    told.retain(|msg| msg.message_type != MessageType::Heartbeat);
    let joined: Joined = told.remove(0).content.parse().unwrap();
    assert_eq!(joined.history as usize, told.len());
    told
}

fn last(count: u32) -> JoinRoom {
    JoinRoom { history: Some(count), ..JoinRoom::default() }
}

fn in_memory(cluster: &TestCluster, id: &str) -> usize {
    cluster.node(id).managed_rooms["lobby"].message_history.iter().count()
}

#[test]
fn what_is_not_in_memory_is_read_back_for_who_joins() {
    let mut cluster = forgetful(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    say(&mut cluster, &alice, 0..1200);
    assert!(in_memory(&cluster, "n1") <= 1);
    let all = read(&mut cluster, "n1", "bob", last(5000));
    assert_eq!(codes(&all), chats(0..1200));
    assert_eq!(codes(&read(&mut cluster, "n1", "carol", last(3))), chats(1197..1200));
    assert_eq!(read(&mut cluster, "n1", "dora", last(0)), []);
    let after = all[699].position.clone();
    let rest = read(&mut cluster, "n1", "eve", JoinRoom { after, ..JoinRoom::default() });
    assert_eq!(codes(&rest), chats(700..1200));
    assert_eq!(rest[0].position, all[700].position);
    assert_eq!(rest[0].content, all[700].content);
}

#[test]
fn after_a_restart_the_past_is_as_it_was_and_duplicates_are_known() {
    let mut cluster = forgetful(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    say(&mut cluster, &alice, 0..100);
    let before = read(&mut cluster, "n1", "bob", last(5000));
    cluster.restart("n1");
    cluster.advance(1500);
    assert_eq!(in_memory(&cluster, "n1"), 0);
    assert_eq!(read(&mut cluster, "n1", "carol", last(5000)), before);
    // alice is back, with her position, and sends her last message again and a new one.
    let alice = cluster.client("n1", "alice");
    let after = before[99].position.clone();
    cluster.join(&alice, "lobby", JoinRoom { after, ..JoinRoom::default() });
    cluster.take(&alice);
    for id in ["m99", "m7", "m100"] {
        cluster.chat(&alice, "lobby", id);
    }
    assert_eq!(got(&mut cluster, &alice), ["ACK m99", "ACK m7", "CHAT m100", "ACK m100"]);
    assert_eq!(cluster.log_of("n1").records().len(), 101);
    assert_eq!(cluster.node("n1").managed_rooms["lobby"].message_count(), 101);
}

#[test]
fn a_replica_is_sent_what_is_on_disk_alone() {
    let mut cluster = forgetful(&["n1", "n2", "n3"]);
    let alice = cluster.member("n1", "alice", "lobby");
    say(&mut cluster, &alice, 0..600);
    assert!(in_memory(&cluster, "n1") <= 1);
    assert_eq!(codes(&read(&mut cluster, "n3", "bob", last(5000))), chats(0..600));
}

#[test]
fn members_are_shown_what_a_start_found_before_anything_new_and_before_acks() {
    let mut cluster = forgetful(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    say(&mut cluster, &alice, 0..5);
    cluster.restart("n1");
    cluster.advance(1500);
    let alice = cluster.client("n1", "alice");
    cluster.join(&alice, "lobby", last(0));
    cluster.take(&alice);
    let mut chat = Message::new(MessageType::Chat, "alice").with_id("m5").in_room("lobby");
    chat.content = "at last".into();
    cluster.step(&alice.0, |node, step| {
        // As if no other server had said yet that it holds the past, and now one does.
        let known = node.causal_multicast_handler.replication("lobby");
        (known.shown, known.shown_clock) = (0, VectorClock::new());
        node.process_message(alice.1, &chat, step)
    });
    cluster.advance(200);
    let mut wanted = chats(0..6);
    wanted.push("ACK m5".into());
    let told = cluster.take(&alice);
    assert_eq!(codes(&told), wanted);
    let position = told.last().and_then(|ack| ack.position.clone());
    let clock = cluster.node("n1").managed_rooms["lobby"].clock.clone();
    assert_eq!(position, Some(Position::Clock(clock)));
}
