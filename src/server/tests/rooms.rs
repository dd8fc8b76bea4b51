//! Rooms on several servers ([`crate::server::multicast`], `rooms`, `sync`).

use std::collections::BTreeMap;

use crate::domain::content::{JoinRoom, Joined, Position, RoomClock, SyncContent};
use crate::domain::{Message, MessageType};
use crate::server::test_cluster::{TestCluster, codes, got};

/// Three servers, alice on n1 and bob on n2, both in the lobby.
fn alice_and_bob() -> (TestCluster, End, End) {
    let mut cluster = TestCluster::of(&["n1", "n2", "n3"]);
    let alice = cluster.member("n1", "alice", "lobby");
    let bob = cluster.member("n2", "bob", "lobby");
    cluster.take(&alice);
    (cluster, alice, bob)
}

type End = (crate::domain::NodeId, crate::network::ConnId);

#[test]
fn a_message_reaches_both_and_its_ack_comes_after_its_own_delivery() {
    let (mut cluster, alice, bob) = alice_and_bob();
    cluster.chat(&alice, "lobby", "m1");
    assert_eq!(got(&mut cluster, &alice), ["CHAT m1", "ACK m1"]);
    let shown = cluster.take(&bob);
    assert_eq!(codes(&shown), ["CHAT m1"]);
    assert_eq!(shown[0].sender_id, "alice");
    assert!(shown[0].position.is_some());
    assert_eq!((&shown[0].session, &shown[0].origin), (&None, &None), "nobody else's business");
}

#[test]
fn what_answers_a_message_is_not_stamped_before_it_though_the_clock_is_slow() {
    let (mut cluster, alice, bob) = alice_and_bob();
    cluster.chat(&alice, "lobby", "m1");
    let asked = cluster.take(&bob)[0].timestamp.unwrap();
    // As if alice's server had a clock that is an hour fast.
    let ahead = asked + 3_600_000;
    cluster.step(&"n2".into(), |node, _| {
        node.managed_rooms.get_mut("lobby").unwrap().latest_timestamp_ms = ahead;
    });
    cluster.chat(&bob, "lobby", "m2");
    assert_eq!(cluster.take(&bob)[0].timestamp, Some(ahead));
    cluster.take(&alice);
    cluster.chat(&alice, "lobby", "m3");
    assert!(cluster.take(&alice)[0].timestamp >= Some(ahead), "she had seen m2");
}

#[test]
fn nothing_is_shown_that_only_one_server_holds() {
    let (mut cluster, alice, _bob) = alice_and_bob();
    for to in ["n2", "n3"] {
        cluster.stall("n1", to, true);
    }
    cluster.chat(&alice, "lobby", "m1");
    assert!(got(&mut cluster, &alice).is_empty(), "two others are live and hold nothing yet");
    for to in ["n2", "n3"] {
        cluster.stall("n1", to, false);
    }
    assert_eq!(got(&mut cluster, &alice), ["CHAT m1", "ACK m1"]);
}

#[test]
fn nothing_is_acknowledged_before_it_is_on_two_disks() {
    let (mut cluster, alice, _bob) = alice_and_bob();
    for id in ["n1", "n2", "n3"] {
        cluster.set_syncing(id, false);
    }
    cluster.chat(&alice, "lobby", "m1");
    assert_eq!(got(&mut cluster, &alice), ["CHAT m1"]);
    cluster.set_syncing("n1", true);
    assert!(got(&mut cluster, &alice).is_empty(), "one disk is not enough");
    cluster.set_syncing("n2", true);
    assert_eq!(got(&mut cluster, &alice), ["ACK m1"]);
}

#[test]
fn when_the_others_are_dead_one_disk_is_enough() {
    let (mut cluster, alice, _bob) = alice_and_bob();
    cluster.crash("n2");
    cluster.crash("n3");
    cluster.advance(2000);
    cluster.take(&alice);
    cluster.chat(&alice, "lobby", "m1");
    assert_eq!(got(&mut cluster, &alice), ["CHAT m1", "ACK m1"]);
}

#[test]
fn an_answer_waits_for_its_question() {
    let (mut cluster, alice, bob) = alice_and_bob();
    let carol = cluster.member("n3", "carol", "lobby");
    cluster.take(&alice);
    cluster.take(&bob);
    // n3 does not get the question from n1; bob, on n2, answers it.
    cluster.stall("n1", "n3", true);
    cluster.chat(&alice, "lobby", "question");
    cluster.chat(&bob, "lobby", "answer");
    assert!(got(&mut cluster, &carol).is_empty(), "the answer alone would make no sense");
    // The question does not come on its own link, so the others are asked.
    cluster.advance(1200);
    assert_eq!(got(&mut cluster, &carol), ["CHAT question", "CHAT answer"]);
    cluster.stall("n1", "n3", false);
    assert!(got(&mut cluster, &carol).is_empty(), "once is enough");
}

#[test]
fn a_repeated_message_is_acknowledged_again_and_shown_once() {
    let (mut cluster, alice, bob) = alice_and_bob();
    cluster.chat(&alice, "lobby", "m1");
    cluster.chat(&alice, "lobby", "m1");
    assert_eq!(got(&mut cluster, &alice), ["CHAT m1", "ACK m1", "ACK m1"]);
    assert_eq!(got(&mut cluster, &bob), ["CHAT m1"]);
    assert_eq!(cluster.log_of("n1").records().len(), 1);
}

#[test]
fn a_message_with_two_stamps_is_shown_once_everywhere() {
    let (mut cluster, alice, bob) = alice_and_bob();
    // n1 stamps m1 and cannot tell anyone; alice moves to n2 and sends it again.
    for to in ["n2", "n3"] {
        cluster.stall("n1", to, true);
    }
    cluster.chat(&alice, "lobby", "m1");
    cluster.hang_up(&alice);
    let moved = cluster.client("n2", "alice");
    cluster.join(&moved, "lobby", JoinRoom { history: Some(0), ..JoinRoom::default() });
    cluster.chat(&moved, "lobby", "m1");
    cluster.take(&moved);
    for to in ["n2", "n3"] {
        cluster.stall("n1", to, false);
    }
    cluster.advance(3000);
    assert_eq!(got(&mut cluster, &bob).iter().filter(|what| *what == "CHAT m1").count(), 1);
    for id in ["n1", "n2"] {
        let room = &cluster.node(id).managed_rooms["lobby"];
        assert_eq!((room.message_history.len(), room.message_count()), (2, 1), "{id}");
    }
}

#[test]
fn a_new_replica_fetches_the_past_before_its_client_is_told_that_it_joined() {
    let (mut cluster, alice, _bob) = alice_and_bob();
    for n in 0..600 {
        cluster.chat(&alice, "lobby", &format!("m{n}"));
    }
    let carol = cluster.client("n3", "carol");
    cluster.join(&carol, "lobby", JoinRoom { history: Some(1000), ..JoinRoom::default() });
    cluster.advance(500);
    let told = cluster.take(&carol);
    let joined: Joined = told[1].content.parse().unwrap();
    assert_eq!((joined.history, joined.members), (600, 3));
    let expected: Vec<String> = (0..600).map(|n| format!("CHAT m{n}")).collect();
    assert_eq!(codes(&told[2..]), expected);
}

#[test]
fn a_session_that_resumes_elsewhere_has_no_gap_and_no_repeat() {
    let (mut cluster, alice, bob) = alice_and_bob();
    for id in ["m1", "m2"] {
        cluster.chat(&alice, "lobby", id);
    }
    let seen = cluster.take(&bob);
    let position = seen.last().unwrap().position.clone();
    cluster.hang_up(&bob);
    for id in ["m3", "m4"] {
        cluster.chat(&alice, "lobby", id);
    }
    let moved = cluster.client("n3", "bob");
    cluster.join(&moved, "lobby", JoinRoom { after: position, ..JoinRoom::default() });
    cluster.advance(500);
    assert_eq!(got(&mut cluster, &moved), ["ACK", "ACK", "CHAT m3", "CHAT m4"]);
    cluster.chat(&alice, "lobby", "m5");
    assert_eq!(got(&mut cluster, &moved), ["CHAT m5"]);
}

#[test]
fn a_server_that_lacks_what_the_client_has_seen_says_behind_or_names_the_gap() {
    let (mut cluster, _alice, bob) = alice_and_bob();
    let ghost: Position = serde_json::from_str(r#"{"n9.1-0000":4}"#).unwrap();
    let mut join = JoinRoom { after: Some(ghost.clone()), ..JoinRoom::default() };
    cluster.join(&bob, "lobby", join.clone());
    assert!(got(&mut cluster, &bob).is_empty(), "it waits for those who may have it");
    cluster.advance(5500);
    // Twice a second it hears that the server is there.
    let beats = ["HEARTBEAT"; 9];
    assert_eq!(got(&mut cluster, &bob), [&beats[..], &["ERROR BEHIND"]].concat());
    join.accept_gap = true;
    cluster.join(&bob, "lobby", join);
    let told = cluster.take(&bob);
    assert_eq!(told[0].content.parse::<Joined>().unwrap().gap, Some(ghost));
}

#[test]
fn a_copy_is_compared_again_before_a_join_when_its_link_was_down() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let alice = cluster.member("n1", "alice", "lobby");
    let bob = cluster.member("n2", "bob", "lobby");
    cluster.chat(&alice, "lobby", "m1");
    assert_eq!(got(&mut cluster, &bob), ["CHAT m1"]);
    // n1 connects again, and takes its time to say how far it is.
    let link = cluster.connect("n2");
    let hello = cluster.node("n1").hello();
    cluster.say(&link, hello);
    let carol = cluster.client("n2", "carol");
    cluster.join(&carol, "lobby", JoinRoom::default());
    assert_eq!(got(&mut cluster, &carol), ["ACK"], "she is welcome and waits for the room");
    let held = cluster.node("n1").managed_rooms["lobby"].clock.clone();
    let clock = RoomClock { synced: held.clone(), held, want: true, again: false };
    let rooms = BTreeMap::from([("lobby".to_string(), clock)]);
    let clocks = SyncContent::Clocks { rooms, reply: false };
    cluster.say(&link, Message::new(MessageType::Sync, "n1").saying(&clocks));
    assert_eq!(got(&mut cluster, &carol), ["ACK", "CHAT m1"]);
}

#[test]
fn a_restarted_server_has_what_it_had_synced_and_fetches_the_rest() {
    let (mut cluster, alice, _bob) = alice_and_bob();
    cluster.chat(&alice, "lobby", "m1");
    cluster.restart("n2");
    cluster.chat(&alice, "lobby", "m2");
    cluster.advance(3000);
    let room = &cluster.node("n2").managed_rooms["lobby"];
    assert_eq!(room.message_count(), 2);
    assert_eq!(room.clock, cluster.node("n1").managed_rooms["lobby"].clock);
    let carol = cluster.client("n2", "carol");
    cluster.join(&carol, "lobby", JoinRoom { history: Some(1), ..JoinRoom::default() });
    cluster.chat(&carol, "lobby", "m3");
    assert_eq!(got(&mut cluster, &carol), ["ACK", "ACK", "CHAT m2", "CHAT m3", "ACK m3"]);
}

#[test]
fn a_whole_cluster_that_restarts_has_its_history() {
    let (mut cluster, alice, _bob) = alice_and_bob();
    cluster.chat(&alice, "lobby", "m1");
    for id in ["n1", "n2", "n3"] {
        cluster.restart(id);
    }
    cluster.advance(3000);
    let carol = cluster.client("n3", "carol");
    cluster.join(&carol, "lobby", JoinRoom::default());
    cluster.advance(500);
    assert_eq!(got(&mut cluster, &carol), ["ACK", "ACK", "CHAT m1"]);
}

/// A server that does not replicate the lobby: neither its host nor its right neighbour.
fn outsider(cluster: &TestCluster) -> String {
    let replicas = cluster.node("n1").replicas_of("lobby");
    let mut ids = cluster.nodes.keys().filter(|id| !replicas.contains(*id));
    ids.next().expect("a server without a member in the lobby").to_string()
}

#[test]
fn a_copy_that_was_not_kept_up_is_completed_before_a_client_is_told_that_it_joined() {
    let mut cluster = TestCluster::of(&["n1", "n2", "n3"]);
    let first = cluster.member("n1", "first", "lobby");
    cluster.hang_up(&first);
    cluster.advance(5000);
    let id = outsider(&cluster);
    let insider = cluster.node("n1").metadata_store.host("lobby").unwrap().to_string();
    let alice = cluster.member(&insider, "alice", "lobby");
    let bob = cluster.member(&id, "bob", "lobby");
    cluster.chat(&alice, "lobby", "m1");
    cluster.hang_up(&bob);
    cluster.advance(5000);
    for n in 2..=5 {
        cluster.chat(&alice, "lobby", &format!("m{n}"));
    }
    assert_eq!(cluster.node(&id).managed_rooms["lobby"].message_count(), 1, "not kept up");
    let carol = cluster.client(&id, "carol");
    cluster.join(&carol, "lobby", JoinRoom::default());
    cluster.advance(500);
    let told = cluster.take(&carol);
    assert_eq!(told[1].content.parse::<Joined>().unwrap().history, 5);
    assert_eq!(codes(&told[2..]), ["CHAT m1", "CHAT m2", "CHAT m3", "CHAT m4", "CHAT m5"]);
}

#[test]
fn a_server_that_fetched_the_room_for_the_client_says_behind_too() {
    let mut cluster = TestCluster::of(&["n1", "n2", "n3"]);
    let first = cluster.member("n1", "first", "lobby");
    cluster.hang_up(&first);
    cluster.advance(5000);
    let carol = cluster.client(&outsider(&cluster), "carol");
    let ghost: Position = serde_json::from_str(r#"{"n9.1-0000":4}"#).unwrap();
    cluster.join(&carol, "lobby", JoinRoom { after: Some(ghost), ..JoinRoom::default() });
    cluster.advance(5500);
    // With NOT_READY she would not know that nobody else has to be asked.
    assert_eq!(got(&mut cluster, &carol).last().unwrap(), "ERROR BEHIND");
}

#[test]
fn the_rooms_of_a_dead_host_move_to_a_server_that_holds_them() {
    let (mut cluster, alice, bob) = alice_and_bob();
    cluster.chat(&alice, "lobby", "m1");
    let host = cluster.node("n1").metadata_store.host("lobby").unwrap().clone();
    let survivor = if host == "n1".into() { &bob } else { &alice };
    cluster.crash(host.as_str());
    cluster.advance(3000);
    let now = cluster.node(survivor.0.as_str()).metadata_store.host("lobby").unwrap().clone();
    assert_ne!(now, host);
    assert!(cluster.node(now.as_str()).managed_rooms["lobby"].message_count() >= 1);
    cluster.take(survivor);
    cluster.chat(survivor, "lobby", "m2");
    assert_eq!(got(&mut cluster, survivor), ["CHAT m2", "ACK m2"]);
}

#[test]
fn two_sides_of_a_partition_go_on_and_hold_the_same_afterwards() {
    let (mut cluster, alice, bob) = alice_and_bob();
    for (a, b) in [("n1", "n2"), ("n1", "n3")] {
        cluster.stall(a, b, true);
        cluster.stall(b, a, true);
    }
    cluster.advance(2000);
    cluster.take(&alice);
    cluster.chat(&alice, "lobby", "left");
    cluster.chat(&bob, "lobby", "right");
    assert_eq!(got(&mut cluster, &alice), ["CHAT left", "ACK left"]);
    assert!(got(&mut cluster, &bob).contains(&"ACK right".to_string()));
    for (a, b) in [("n1", "n2"), ("n1", "n3")] {
        cluster.stall(a, b, false);
        cluster.stall(b, a, false);
    }
    cluster.advance(6000);
    let clocks: Vec<_> =
        cluster.nodes.values().map(|node| &node.node.managed_rooms["lobby"].clock).collect();
    assert!(clocks.iter().all(|clock| *clock == clocks[0]), "{clocks:?}");
    assert!(got(&mut cluster, &alice).contains(&"CHAT right".to_string()));
    assert!(got(&mut cluster, &bob).contains(&"CHAT left".to_string()));
}

#[test]
fn a_quiet_cluster_is_quiet() {
    let (mut cluster, alice, _bob) = alice_and_bob();
    cluster.chat(&alice, "lobby", "m1");
    cluster.advance(3000);
    for node in cluster.nodes.values() {
        let Some(room) = node.node.managed_rooms.get("lobby") else { continue };
        let replication = node.node.causal_multicast_handler.replication_of("lobby").unwrap();
        for replica in &replication.replicas {
            assert!(replication.is_covered_by(replica, room), "nothing is left to compare");
        }
    }
}

#[test]
fn a_chat_from_a_stranger_in_peers_clothes_is_ignored() {
    let (mut cluster, _alice, bob) = alice_and_bob();
    let mut forged = Message::new(MessageType::Chat, "mallory").with_id("x").in_room("lobby");
    forged.content = "boo".into();
    cluster.step(&"n2".into(), |node, step| node.handle_peer_chat(&"n1".into(), &forged, step));
    assert!(got(&mut cluster, &bob).is_empty(), "it carries no stamp");
}

#[test]
fn what_only_a_dead_server_and_one_other_held_is_spread_and_acknowledged_at_once() {
    let mut cluster = TestCluster::of(&["n1", "n2", "n3"]);
    let alice = cluster.member("n3", "alice", "lobby");
    // n3 stamps m1; only n1 gets it, and confirms too late.
    cluster.stall("n3", "n2", true);
    cluster.stall("n1", "n3", true);
    cluster.chat(&alice, "lobby", "m1");
    assert!(got(&mut cluster, &alice).is_empty());
    cluster.crash("n3");
    cluster.stall("n1", "n3", false);
    cluster.advance(1500);
    let moved = cluster.client("n1", "alice");
    cluster.join(&moved, "lobby", JoinRoom { history: Some(0), ..JoinRoom::default() });
    cluster.chat(&moved, "lobby", "m1");
    cluster.advance(300);
    assert_eq!(got(&mut cluster, &moved), ["ACK", "ACK", "ACK m1"]);
    assert_eq!(cluster.node("n2").managed_rooms["lobby"].message_count(), 1);
}

#[test]
fn what_is_on_its_way_anyway_is_not_asked_for() {
    let (mut cluster, alice, bob) = alice_and_bob();
    let carol = cluster.member("n3", "carol", "lobby");
    cluster.take(&alice);
    cluster.stall("n1", "n3", true);
    cluster.chat(&alice, "lobby", "question");
    cluster.chat(&bob, "lobby", "answer");
    assert_eq!(cluster.node("n3").managed_rooms["lobby"].hold_back_queue.len(), 1);
    assert!(got(&mut cluster, &carol).is_empty());
    cluster.stall("n1", "n3", false);
    assert_eq!(got(&mut cluster, &carol), ["CHAT question", "CHAT answer"]);
}
