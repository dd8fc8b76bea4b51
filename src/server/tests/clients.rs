//! What clients ask, and what they are refused (`clients`, `snapshot`, [`crate::server::server_node`]).

use crate::domain::content::{ClientJoin, ErrorContent, JoinRoom, Presence, Status, Welcome};
use crate::domain::{Content, Message, MessageType};
use crate::error::RequestError;
use crate::server::test_cluster::{TestCluster, codes, config, got};

fn chat(id: &str, room_id: &str) -> Message {
    let mut msg = Message::new(MessageType::Chat, "").with_id(id).in_room(room_id);
    msg.content = "text".into();
    msg
}

#[test]
fn a_client_is_welcomed_with_the_servers_that_it_could_use() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let alice = cluster.client("n1", "alice");
    let told = cluster.take(&alice);
    let welcome: Welcome = told[0].content.parse().unwrap();
    assert_eq!(welcome.servers[0].id, "n1".into());
    assert_eq!((welcome.servers.len(), welcome.design.as_str()), (2, "ring"));
}

#[test]
fn a_starting_server_lets_a_client_wait_rather_than_turn_it_away() {
    let mut cluster = TestCluster::default();
    cluster.start(config("n1", &[], 1));
    let alice = cluster.client("n1", "alice");
    assert!(got(&mut cluster, &alice).is_empty());
    cluster.advance(1500);
    assert_eq!(got(&mut cluster, &alice), ["HEARTBEAT", "ACK"]);
}

#[test]
fn each_wrong_request_has_its_code_and_the_connection_stays() {
    let mut cluster = TestCluster::of(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    let mut object = chat("m", "lobby");
    object.content = Content::object(&JoinRoom::default());
    let table = [
        (chat("m", "elsewhere"), "NOT_A_MEMBER"),
        (chat("m", ""), "MISSING_FIELD"),
        (chat("", "lobby"), "MISSING_FIELD"),
        (chat("m", "a\tb"), "INVALID_NAME"),
        (object, "MISSING_FIELD"),
        (Message::new(MessageType::JoinRoom, "").in_room("x".repeat(65)), "INVALID_NAME"),
        (Message::new(MessageType::JoinRoom, ""), "MISSING_FIELD"),
        (Message::new(MessageType::LeaveRoom, "").in_room("elsewhere"), "NOT_A_MEMBER"),
        (Message::new(MessageType::Election, ""), "UNEXPECTED_TYPE"),
    ];
    for (msg, code) in table {
        cluster.say(&alice, msg.clone());
        assert_eq!(got(&mut cluster, &alice), [format!("ERROR {code}")], "{msg:?}");
    }
    cluster.chat(&alice, "lobby", "fine");
    assert_eq!(got(&mut cluster, &alice), ["CHAT fine", "ACK fine"]);
}

#[test]
fn before_client_join_only_questions_are_answered() {
    let mut cluster = TestCluster::of(&["n1"]);
    let stranger = cluster.connect("n1");
    cluster.say(&stranger, chat("m", "lobby"));
    assert_eq!(got(&mut cluster, &stranger), ["ERROR JOIN_FIRST"]);
    cluster.say(&stranger, Message::new(MessageType::Status, "").with_id("s"));
    assert_eq!(got(&mut cluster, &stranger), ["STATUS"]);
    cluster.advance(11_000);
    assert_eq!(got(&mut cluster, &stranger), ["ERROR HELLO_TIMEOUT"]);
    assert!(cluster.is_closed(&stranger));
}

#[test]
fn who_says_nothing_is_told_which_side_that_was() {
    let mut cluster = TestCluster::of(&["n1"]);
    let (caller, called) = (cluster.connect("n1"), cluster.connect("n1"));
    // The second connection is one that n1 dialled.
    cluster.step(&"n1".into(), |node, step| {
        let addr = ([127, 0, 0, 1], 7009).into();
        node.handle_join(called.1, addr, Some("n9:7009".into()), step);
    });
    assert_eq!(got(&mut cluster, &called), ["HELLO"]);
    cluster.advance(11_000);
    let mut reason = |end| {
        let told = cluster.take(end);
        let error: ErrorContent = told[0].content.parse().unwrap();
        assert_eq!(error.code, "HELLO_TIMEOUT");
        error.reason
    };
    let said = reason(&caller);
    assert!(said.starts_with("the side that connected said neither CLIENT_JOIN"), "{said}");
    let said = reason(&called);
    assert!(said.starts_with("n9:7009 took the connection and did not answer HELLO"), "{said}");
}

#[test]
fn a_frame_that_could_not_be_read_closes_the_connection_when_its_error_says_so() {
    let mut cluster = TestCluster::of(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    for (error, closed) in [
        (RequestError::UnknownType { message_id: "m".into(), name: "X".into() }, false),
        (RequestError::InvalidJson { reason: "x".into() }, true),
    ] {
        let mut batch = crate::network::Batch::default();
        batch.push(Err(error.clone()));
        cluster.step(&alice.0, |node, step| node.process_next(alice.1, &batch, 0, step));
        assert_eq!(got(&mut cluster, &alice), [format!("ERROR {}", error.code())]);
        assert_eq!(cluster.is_closed(&alice), closed);
    }
}

#[test]
fn a_name_in_use_is_refused_on_every_server() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let _alice = cluster.member("n1", "alice", "lobby");
    for id in ["n1", "n2"] {
        let other = cluster.connect(id);
        let join = ClientJoin { session: "other".into(), ..Default::default() };
        cluster.say(&other, Message::new(MessageType::ClientJoin, "alice").saying(&join));
        assert_eq!(got(&mut cluster, &other), ["ERROR NAME_IN_USE"], "on {id}");
    }
}

#[test]
fn the_same_session_replaces_its_former_connection_anywhere() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let first = cluster.member("n1", "alice", "lobby");
    let second = cluster.client("n1", "alice");
    assert_eq!(got(&mut cluster, &second), ["ACK"]);
    assert_eq!(got(&mut cluster, &first), ["ERROR SESSION_MOVED"]);
    assert!(cluster.is_closed(&first));
    let third = cluster.client("n2", "alice");
    assert_eq!(got(&mut cluster, &third), ["ACK"]);
    assert_eq!(got(&mut cluster, &second), ["ERROR SESSION_MOVED"]);
}

#[test]
fn others_see_who_comes_and_goes_on_whichever_server() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let alice = cluster.member("n1", "alice", "lobby");
    let bob = cluster.member("n2", "bob", "lobby");
    assert_eq!(got(&mut cluster, &alice), ["JOIN_ROOM bob"]);
    cluster.say(&bob, Message::new(MessageType::LeaveRoom, "").with_id("l").in_room("lobby"));
    assert_eq!(got(&mut cluster, &bob), ["ACK l"]);
    assert_eq!(got(&mut cluster, &alice), ["LEAVE_ROOM bob"]);
}

#[test]
fn a_lost_connection_is_no_news_when_the_client_is_back_soon() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let alice = cluster.member("n1", "alice", "lobby");
    let bob = cluster.member("n2", "bob", "lobby");
    cluster.take(&alice);
    cluster.hang_up(&bob);
    cluster.advance(1000);
    let bob = cluster.client("n1", "bob");
    cluster.join(&bob, "lobby", JoinRoom::default());
    assert_eq!(got(&mut cluster, &bob), ["ACK", "ACK"]);
    cluster.advance(10_000);
    let seen = got(&mut cluster, &alice);
    assert!(seen.iter().all(|what| what == "HEARTBEAT"), "{seen:?}");
    cluster.hang_up(&bob);
    cluster.advance(6000);
    assert!(got(&mut cluster, &alice).contains(&"LEAVE_ROOM bob".to_string()));
}

#[test]
fn a_client_that_leaves_says_so_and_is_gone_at_once() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let alice = cluster.member("n1", "alice", "lobby");
    let bob = cluster.member("n2", "bob", "lobby");
    cluster.take(&alice);
    cluster.say(&bob, Message::new(MessageType::ClientLeave, "").with_id("bye"));
    assert_eq!(got(&mut cluster, &bob), ["ACK bye"]);
    assert_eq!(got(&mut cluster, &alice), ["LEAVE_ROOM bob"]);
    let again = cluster.member("n1", "bob", "lobby");
    assert!(!cluster.is_closed(&again));
}

#[test]
fn a_silent_client_is_asked_and_then_closed() {
    let mut cluster = TestCluster::of(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.advance(11_000);
    assert_eq!(got(&mut cluster, &alice), ["HEARTBEAT"]);
    cluster.say(&alice, Message::new(MessageType::Heartbeat, ""));
    cluster.advance(25_000);
    assert_eq!(got(&mut cluster, &alice), ["HEARTBEAT"]);
    cluster.advance(10_000);
    assert_eq!(got(&mut cluster, &alice), ["ERROR CLIENT_TIMEOUT"]);
    assert!(cluster.is_closed(&alice));
}

#[test]
fn a_heartbeat_with_an_id_is_a_question_and_one_without_an_answer() {
    let mut cluster = TestCluster::of(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    for (id, answers) in [("there?", &["ACK there?"][..]), ("", &[])] {
        cluster.say(&alice, Message::new(MessageType::Heartbeat, "").with_id(id));
        assert_eq!(got(&mut cluster, &alice), answers, "{id:?}");
    }
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    let mut cluster = TestCluster::of(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.chat(&alice, "lobby", "m1");
    cluster.take(&alice);
    cluster.log_of("n1").set_fault(Some("No space left on device"));
    cluster.chat(&alice, "lobby", "m2");
    let told = cluster.take(&alice);
    let error: ErrorContent = told[0].content.parse().unwrap();
    assert_eq!((error.code.as_str(), error.retryable), ("STORAGE_FULL", true));
    cluster.join(&alice, "lobby", JoinRoom::default());
    assert_eq!(got(&mut cluster, &alice), ["ACK", "CHAT m1"]);
    cluster.log_of("n1").set_fault(None);
    cluster.chat(&alice, "lobby", "m2");
    assert_eq!(got(&mut cluster, &alice), ["CHAT m2", "ACK m2"]);
}

#[test]
fn without_a_leader_a_new_room_is_waited_for_and_then_refused_as_retryable() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let alice = cluster.client("n1", "alice");
    cluster.take(&alice);
    // n2 leads and does not answer, but its heartbeats come.
    cluster.stall("n1", "n2", true);
    cluster.join(&alice, "new", JoinRoom::default());
    cluster.advance(600);
    assert_eq!(got(&mut cluster, &alice), ["HEARTBEAT"]);
    cluster.stall("n1", "n2", false);
    cluster.advance(600);
    assert_eq!(got(&mut cluster, &alice), ["ACK"]);
}

#[test]
fn a_name_clash_after_a_partition_is_settled_for_the_lower_server() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let alice = cluster.member("n2", "alice", "lobby");
    let mut join = Message::new(MessageType::ClientJoin, "alice");
    join = join.saying(&Presence { session: "other".into(), epoch: 1, away: false });
    cluster.step(&"n2".into(), |node, step| {
        let presence: Presence = join.content.parse().unwrap();
        node.handle_presence(&"n1".into(), &join, &presence, step);
    });
    assert_eq!(got(&mut cluster, &alice), ["ERROR NAME_IN_USE"]);
    assert!(cluster.is_closed(&alice));
}

#[test]
fn status_tells_the_cluster_and_one_room_when_asked() {
    let mut cluster = TestCluster::of(&["n1", "n2", "n3"]);
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.chat(&alice, "lobby", "m1");
    cluster.take(&alice);
    cluster.say(&alice, Message::new(MessageType::Status, "").in_room("lobby"));
    let told = cluster.take(&alice);
    assert_eq!(codes(&told), ["STATUS"]);
    let status: Status = told[0].content.parse().unwrap();
    assert_eq!((status.node.as_str(), status.state.as_str()), ("n1", "FOLLOWER"));
    assert_eq!(status.servers.len(), 3);
    assert_eq!(status.rooms.len(), 1);
    assert_eq!(
        (status.rooms[0].members.as_slice(), status.rooms[0].messages),
        (&["alice".into()][..], 1)
    );
    assert!(status.rooms[0].replicas.len() >= 2);
    cluster.say(&alice, Message::new(MessageType::Status, "").in_room("nowhere"));
    let none: Status = cluster.take(&alice)[0].content.parse().unwrap();
    assert!(none.rooms.is_empty());
}

#[test]
fn a_server_that_takes_no_clients_says_why_in_its_status() {
    let mut cluster = TestCluster::default();
    let not_ready = |cluster: &mut TestCluster| {
        let (mut why, id) = (None, "n1".into());
        cluster.step(&id, |node, step| why = node.status(None, step).not_ready);
        why
    };
    cluster.start(config("n1", &["n2"], 1));
    assert_eq!(not_ready(&mut cluster).as_deref(), Some("no leader is elected"));
    cluster.advance(1500);
    assert_eq!(not_ready(&mut cluster), None);
    cluster.nodes[&"n1".into()].log.set_fault(Some("No space left on device"));
    let full = "its log cannot be written: No space left on device";
    assert_eq!(not_ready(&mut cluster).as_deref(), Some(full));
    cluster.nodes[&"n1".into()].log.set_fault(None);
    assert_eq!(not_ready(&mut cluster), None);
}

#[test]
fn a_stopping_server_tells_its_clients() {
    let mut cluster = TestCluster::of(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.step(&"n1".into(), super::super::server_node::ServerNode::stop);
    assert_eq!(got(&mut cluster, &alice), ["ERROR SERVER_STOPPING"]);
    assert!(cluster.is_closed(&alice));
}

#[test]
fn the_name_of_a_lost_client_is_free_on_every_server() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.hang_up(&alice);
    let other = cluster.connect("n2");
    let join = ClientJoin { session: "other".into(), ..Default::default() };
    cluster
        .say(&other, Message::new(MessageType::ClientJoin, "alice").with_id("hello").saying(&join));
    assert_eq!(got(&mut cluster, &other), ["ACK"]);
}

#[test]
fn the_ack_of_a_join_tells_where_a_member_without_history_stands() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.chat(&alice, "lobby", "m1");
    let bob = cluster.client("n2", "bob");
    cluster.join(&bob, "lobby", JoinRoom { history: Some(0), ..JoinRoom::default() });
    let told = cluster.take(&bob);
    let position = told[1].position.clone();
    assert!(position.is_some(), "{told:?}");
    cluster.hang_up(&bob);
    cluster.chat(&alice, "lobby", "m2");
    let bob = cluster.client("n1", "bob");
    cluster.join(&bob, "lobby", JoinRoom { after: position, ..JoinRoom::default() });
    assert_eq!(got(&mut cluster, &bob), ["ACK", "ACK", "CHAT m2"]);
}

#[test]
fn a_connection_that_was_given_up_does_not_replace_a_later_one() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let join = |connection| {
        let join = ClientJoin {
            session: "s".into(),
            connection: Some(connection),
            ..ClientJoin::default()
        };
        Message::new(MessageType::ClientJoin, "alice").with_id("hello").saying(&join)
    };
    let (early, late) = (cluster.connect("n1"), cluster.connect("n2"));
    cluster.say(&late, join(2));
    // n1 slept, and reads what it was sent long ago only now.
    cluster.say(&early, join(1));
    assert_eq!(got(&mut cluster, &early), ["ERROR SESSION_MOVED"]);
    assert_eq!(got(&mut cluster, &late), ["ACK"]);
    assert!(!cluster.is_closed(&late));
}
