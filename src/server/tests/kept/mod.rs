//! What clients can do with what is kept, in the designs with one order: delete, look back, count; and who may.

mod accounts;
pub(in crate::server) mod alone;
mod forgotten;
mod raft;
mod three;

use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::content::{
    ClientJoin, Deletion, HistoryPage, HistoryRequest, JoinRoom, Position, Statistics, Welcome,
};
use crate::domain::{Message, MessageType};
use crate::server::test_cluster::{End, TestCluster, codes, config, got};
use crate::server::total_order::Ordered;
use crate::server::total_order::logins::Admission;
use crate::server::total_order::replicated::SESSION_KEPT_MS;
use alone::{Alone, Controls};

/// A server that is the whole cluster, and what turns its order.
fn server(admission: Admission) -> (TestCluster, Arc<Mutex<Controls>>) {
    let mut cluster = TestCluster::default();
    let (order, controls) = Alone::new("n1");
    let mut config = config("n1", &[], 1);
    (config.design, config.admission) = ("alone".into(), admission);
    cluster.start(config);
    let ordered = Some(Ordered::new(Box::new(order)));
    cluster.step(&"n1".into(), |node, _| node.ordered = ordered);
    cluster.advance(1500);
    (cluster, controls)
}

fn open() -> (TestCluster, Arc<Mutex<Controls>>) {
    server(Admission::default())
}

fn delete(cluster: &mut TestCluster, client: &End, id: &str, target: &str) {
    let deletion = Deletion { target: target.into(), session: None };
    let msg = Message::new(MessageType::Delete, "").with_id(id).in_room("lobby");
    cluster.say(client, msg.saying(&deletion));
}

fn hello(cluster: &mut TestCluster, name: &str, join: &ClientJoin) -> End {
    let client = cluster.connect("n1");
    let msg = Message::new(MessageType::ClientJoin, name).with_id("hello").saying(join);
    cluster.say(&client, msg);
    client
}

fn joining(session: &str) -> ClientJoin {
    ClientJoin { session: session.into(), ..ClientJoin::default() }
}

#[test]
fn a_sessions_first_message_brings_its_registration_along() {
    let (mut cluster, controls) = open();
    let alice = cluster.member("n1", "alice", "lobby");
    assert_eq!(controls.lock().tell(0), [""; 0], "who only reads is not registered");
    cluster.chat(&alice, "lobby", "a");
    cluster.chat(&alice, "lobby", "b");
    assert_eq!(got(&mut cluster, &alice), ["CHAT a", "ACK a", "CHAT b", "ACK b"]);
    assert_eq!(controls.lock().tell(0), ["CLIENT_JOIN", "CHAT a", "CHAT b"]);
}

#[test]
fn a_registration_is_first_in_every_re_forwarding_until_it_is_committed() {
    let (mut cluster, controls) = open();
    let alice = cluster.member("n1", "alice", "lobby");
    controls.lock().commits = false;
    cluster.chat(&alice, "lobby", "a");
    cluster.chat(&alice, "lobby", "b");
    for _ in 0..3 {
        controls.lock().next_term();
        cluster.advance(100);
        assert_eq!(controls.lock().tell(0), ["CLIENT_JOIN", "CHAT a", "CHAT b"]);
    }
    assert_eq!(got(&mut cluster, &alice), [""; 0]);
    controls.lock().commits = true;
    cluster.advance(100);
    assert_eq!(got(&mut cluster, &alice), ["CHAT a", "ACK a", "CHAT b", "ACK b"]);
    controls.lock().next_term();
    cluster.chat(&alice, "lobby", "c");
    cluster.advance(100);
    assert_eq!(controls.lock().tell(3), ["CHAT c"]);
}

#[test]
fn a_session_that_was_forgotten_is_told_so_and_its_message_is_not_applied_twice() {
    let (mut cluster, controls) = open();
    let alice = cluster.client("n1", "alice");
    let welcome: Welcome = cluster.take(&alice)[0].content.parse().unwrap();
    cluster.join(&alice, "lobby", JoinRoom::default());
    cluster.chat(&alice, "lobby", "a");
    cluster.hang_up(&alice);
    // A day later; somebody else speaks meanwhile.
    controls.lock().ahead_ms = SESSION_KEPT_MS + 1000;
    let bob = cluster.client("n1", "bob");
    cluster.join(&bob, "lobby", JoinRoom::default());
    cluster.advance(100);
    cluster.chat(&bob, "lobby", "x");
    cluster.chat(&bob, "lobby", "y");
    let since = welcome.log_time;
    assert!(since.is_some());
    let alice = hello(&mut cluster, "alice", &ClientJoin { since, ..joining("alice") });
    cluster.join(&alice, "lobby", JoinRoom { history: Some(0), ..JoinRoom::default() });
    cluster.advance(100);
    cluster.chat(&alice, "lobby", "a");
    assert_eq!(got(&mut cluster, &alice), ["ACK", "ACK", "ERROR SESSION_EXPIRED"]);
    assert!(cluster.is_closed(&alice));
    let storage = &cluster.node("n1").ordered.as_ref().unwrap().storage;
    let ids: Vec<_> = storage.messages("lobby").iter().map(|msg| msg.message_id.clone()).collect();
    assert_eq!(ids, ["a", "x", "y"]);
    // Under a new session she can speak.
    let alice = cluster.client("n1", "alice");
    cluster.join(&alice, "lobby", JoinRoom { history: Some(0), ..JoinRoom::default() });
    cluster.advance(100);
    cluster.chat(&alice, "lobby", "b");
    assert_eq!(got(&mut cluster, &alice), ["ACK", "ACK", "CHAT b", "ACK b"]);
}

#[test]
fn a_session_whose_first_server_passed_nothing_on_is_taken_as_new() {
    let (mut cluster, _) = open();
    // It was welcomed elsewhere, sent a message there, and heard no more.
    let alice = hello(&mut cluster, "alice", &ClientJoin { since: Some(0), ..joining("s") });
    cluster.join(&alice, "lobby", JoinRoom::default());
    cluster.advance(100);
    cluster.chat(&alice, "lobby", "a");
    assert_eq!(got(&mut cluster, &alice), ["ACK", "ACK", "CHAT a", "ACK a"]);
}

#[test]
fn a_session_that_stays_connected_does_not_expire() {
    let (mut cluster, _) = open();
    let (alice, bob) =
        (cluster.member("n1", "alice", "lobby"), cluster.member("n1", "bob", "lobby"));
    cluster.chat(&alice, "lobby", "a");
    cluster.take(&alice);
    for hours in [10, 20, 30, 40] {
        let ahead = hours * 60 * 60 * 1000;
        cluster.set_wall_ahead(ahead);
        for _ in 0..4 {
            cluster.advance(20_000);
            for client in [&alice, &bob] {
                // Both answer the server's question whether they are there.
                cluster.say(client, Message::new(MessageType::Heartbeat, ""));
            }
        }
        cluster.chat(&bob, "lobby", &format!("b{hours}"));
    }
    cluster.take(&alice);
    cluster.chat(&alice, "lobby", "later");
    assert_eq!(got(&mut cluster, &alice), ["CHAT later", "ACK later"]);
}

#[test]
fn one_deletes_ones_own_messages_and_members_are_told() {
    let (mut cluster, controls) = open();
    let (alice, bob) =
        (cluster.member("n1", "alice", "lobby"), cluster.member("n1", "bob", "lobby"));
    cluster.chat(&alice, "lobby", "a");
    let chat = cluster.take(&bob).pop().unwrap();
    cluster.take(&alice);
    delete(&mut cluster, &alice, "d", "a");
    assert_eq!(got(&mut cluster, &alice), ["DELETE", "ACK d"]);
    let told = cluster.take(&bob).pop().unwrap();
    assert_eq!((told.message_id.as_str(), told.sender_id.as_str()), ("a", "alice"));
    assert_eq!(told.seq, chat.seq, "it names the place of the message");
    assert_eq!(told.position, Some(Position::Sequence(4)), "and moves its members on");
    let content = told.content.text().len();
    assert_eq!(content, 0);
    // The request again, as after a lost answer: harmless.
    delete(&mut cluster, &alice, "d", "a");
    assert_eq!(got(&mut cluster, &alice), ["ACK d"]);
    assert_eq!(got(&mut cluster, &bob), [""; 0]);
    assert_eq!(controls.lock().tell(1), ["CHAT a", "DELETE d", "DELETE d"]);
}

#[test]
fn what_cannot_be_deleted_is_refused_by_name_and_the_connection_stays() {
    let (mut cluster, _) = open();
    let (alice, bob) =
        (cluster.member("n1", "alice", "lobby"), cluster.member("n1", "bob", "lobby"));
    cluster.chat(&alice, "lobby", "a");
    cluster.take(&alice);
    cluster.take(&bob);
    delete(&mut cluster, &bob, "d1", "a");
    delete(&mut cluster, &bob, "d2", "nothing");
    delete(&mut cluster, &bob, "", "a");
    let told = ["ERROR NOT_YOURS", "ERROR NOT_FOUND", "ERROR MISSING_FIELD"];
    assert_eq!(got(&mut cluster, &bob), told);
    let stranger = cluster.client("n1", "carol");
    delete(&mut cluster, &stranger, "d", "a");
    assert_eq!(got(&mut cluster, &stranger), ["ACK", "ERROR NOT_A_MEMBER"]);
    cluster.chat(&bob, "lobby", "b");
    assert_eq!(got(&mut cluster, &bob), ["CHAT b", "ACK b"]);
}

#[test]
fn who_comes_back_learns_what_was_deleted_and_who_comes_anew_sees_what_is_left() {
    let (mut cluster, _) = open();
    let (alice, bob) =
        (cluster.member("n1", "alice", "lobby"), cluster.member("n1", "bob", "lobby"));
    for id in ["a", "b", "c"] {
        cluster.chat(&alice, "lobby", id);
    }
    let seen = cluster.take(&bob).pop().unwrap().position;
    cluster.hang_up(&bob);
    delete(&mut cluster, &alice, "d", "b");
    cluster.chat(&alice, "lobby", "e");
    cluster.chat(&alice, "lobby", "f");
    delete(&mut cluster, &alice, "g", "f");
    let bob = cluster.client("n1", "bob");
    cluster.join(&bob, "lobby", JoinRoom { after: seen, ..JoinRoom::default() });
    cluster.advance(100);
    let told = cluster.take(&bob);
    assert_eq!(codes(&told), ["ACK", "ACK", "DELETE", "CHAT e"], "f came and went unseen");
    let joined: crate::domain::content::Joined = told[1].content.parse().unwrap();
    assert_eq!((joined.history, told[2].message_id.as_str()), (2, "b"));
    let carol = cluster.client("n1", "carol");
    cluster.join(&carol, "lobby", JoinRoom { history: Some(2), ..JoinRoom::default() });
    cluster.advance(100);
    assert_eq!(got(&mut cluster, &carol)[2..], ["CHAT c", "CHAT e"]);
}

#[test]
fn the_history_since_a_time_comes_in_pages() {
    let (mut cluster, _) = open();
    let alice = cluster.member("n1", "alice", "lobby");
    let long = "x".repeat(50_000);
    let mut at = Vec::new();
    for n in 0..8 {
        let mut msg = Message::new(MessageType::Chat, "").with_id(format!("m{n}")).in_room("lobby");
        msg.content = long.as_str().into();
        cluster.say(&alice, msg);
        cluster.advance(100);
        at.push(cluster.take(&alice)[0].timestamp.unwrap());
    }
    let mut asked = HistoryRequest { since: at[2], after: None };
    let (mut ids, mut pages) = (Vec::new(), 0);
    loop {
        let msg = Message::new(MessageType::History, "").with_id("h").in_room("lobby");
        cluster.say(&alice, msg.saying(&asked));
        let answer = cluster.take(&alice).pop().unwrap();
        assert_eq!(answer.message_type, MessageType::History);
        let page: HistoryPage = answer.content.parse().unwrap();
        assert!(page.messages.iter().all(|msg| msg.position.is_none() && msg.session.is_none()));
        ids.extend(page.messages.into_iter().map(|msg| msg.message_id));
        pages += 1;
        let Some(next) = page.next else { break };
        asked.after = Some(next);
    }
    assert_eq!(ids, ["m2", "m3", "m4", "m5", "m6", "m7"]);
    assert_eq!(pages, 2);
}

#[test]
fn statistics_count_what_is_kept() {
    let (mut cluster, _) = open();
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.join(&alice, "empty", JoinRoom::default());
    for id in ["a", "b"] {
        cluster.chat(&alice, "lobby", id);
    }
    delete(&mut cluster, &alice, "d", "a");
    cluster.take(&alice);
    cluster.say(&alice, Message::new(MessageType::Stats, "").with_id("s"));
    let statistics: Statistics = cluster.take(&alice)[0].content.parse().unwrap();
    let Statistics { messages, bytes, deleted, sessions, .. } = statistics;
    assert_eq!((messages, bytes, deleted, sessions), (1, "text of b".len() as u64, 1, 1));
    let rooms: Vec<_> =
        statistics.rooms.iter().map(|r| (r.room_id.as_str(), r.messages, r.members)).collect();
    assert_eq!(rooms, [("empty", 0, 1), ("lobby", 1, 1)]);
}

#[test]
fn the_status_shows_how_far_the_copy_is() {
    let (mut cluster, _) = open();
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.chat(&alice, "lobby", "a");
    let id = "n1".into();
    let status = cluster.step(&id, |node, step| node.status(None, step));
    let storage = status.storage.unwrap();
    assert_eq!((storage.applied, storage.digest.len()), (3, 8));
}

#[test]
fn a_ring_has_none_of_this_and_says_so() {
    let mut cluster = TestCluster::of(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    delete(&mut cluster, &alice, "d", "a");
    cluster.say(&alice, Message::new(MessageType::History, "").with_id("h").in_room("lobby"));
    cluster.say(&alice, Message::new(MessageType::Stats, "").with_id("s"));
    assert_eq!(got(&mut cluster, &alice), ["ERROR UNSUPPORTED"; 3]);
    let join = ClientJoin { password: Some("p".into()), ..joining("s") };
    let bob = hello(&mut cluster, "bob", &join);
    let told = cluster.take(&bob);
    let welcome: Welcome = told[0].content.parse().unwrap();
    assert_eq!((codes(&told), welcome.token), (vec!["ACK".into()], None));
}
