//! A whole client against fake servers on real sockets.

use super::*;
use crate::client::event::Delivery;
use crate::client::fake_server::{FakeCluster, FakeServer};

/// Longer than anything should take.
const SOON: Duration = Duration::from_secs(20);

fn client(name: &str) -> ChatClient {
    ChatClient::new(ClientSettings::new(name)).unwrap()
}

/// A client of the server at `address`, in `lobby`, with what led there already told.
fn in_lobby(name: &str, address: &str) -> ChatClient {
    let client = client(name);
    client.start_any(&[address.to_string()]).unwrap();
    client.join_room_with_history("lobby", Some(0));
    until(&client, |event| matches!(event, Event::Joined { .. }));
    client
}

/// Waits for an event for which `wanted` holds, and returns it with those before it.
fn until(client: &ChatClient, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        let event = client.events().recv_timeout(SOON);
        let event = event.unwrap_or_else(|_| panic!("only {events:?}"));
        let found = wanted(&event);
        events.push(event);
        if found {
            return events;
        }
    }
}

fn texts(events: &[Event]) -> Vec<&str> {
    let deliveries = events.iter().filter_map(|event| match event {
        Event::Delivered(Delivery { text, .. }) => Some(text.as_str()),
        _ => None,
    });
    deliveries.collect()
}

#[test]
fn two_clients_read_what_each_other_says_and_are_acknowledged_after_their_own_delivery() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let (alice, bob) = (in_lobby("alice", &server.address), in_lobby("bob", &server.address));
    let id = alice.send_message("hello", "lobby").unwrap();
    assert_eq!(id, format!("{}-1", alice.client_id()));
    let told = until(&alice, |event| matches!(event, Event::Acked { .. }));
    assert_eq!(texts(&told), ["hello"]);
    assert_eq!(told.last(), Some(&Event::Acked { message_id: id }));
    let told = until(&bob, |event| matches!(event, Event::Delivered(_)));
    let Some(Event::Delivered(delivery)) = told.last() else { unreachable!() };
    assert_eq!((delivery.sender.as_str(), delivery.own), ("alice", false));
    assert!(alice.wait_acknowledged(Some(SOON)));
}

#[test]
fn start_takes_a_host_and_a_port_and_says_where_it_is() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let (ip, port) = server.address.rsplit_once(':').unwrap();
    let client = client("alice");
    client.start(ip, port.parse().unwrap()).unwrap();
    let told = until(&client, |event| matches!(event, Event::Connected { .. }));
    assert_eq!(told, [Event::Connected { server: server.address.clone() }]);
    assert_eq!(client.server_connection().unwrap().peer().to_string(), server.address);
}

#[test]
fn addresses_are_tried_in_turn_until_one_answers() {
    let cluster = FakeCluster::new();
    let (dead, alive) = (FakeServer::start(&cluster), FakeServer::start(&cluster));
    dead.kill();
    let client = client("alice");
    client.start_any(&[dead.address.clone(), alive.address.clone()]).unwrap();
    until(&client, |event| *event == Event::Connected { server: alive.address.clone() });
}

#[test]
fn when_nobody_answers_the_error_names_every_address() {
    let server = FakeServer::start(&FakeCluster::new());
    server.kill();
    let error =
        client("alice").start_any(std::slice::from_ref(&server.address)).unwrap_err().to_string();
    assert!(error.contains(&server.address), "{error}");
    assert!(client("alice").start_any(&[]).unwrap_err().to_string().contains("no address"));
}

#[test]
fn a_name_in_use_is_an_error_at_the_start_and_nothing_is_tried_again() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    cluster.refuse_once(MessageType::ClientJoin, "NAME_IN_USE", false);
    let error = client("alice").start_any(std::slice::from_ref(&server.address)).unwrap_err();
    assert_eq!(error.to_string(), "NAME_IN_USE for a test");
    assert_eq!(cluster.heard.lock().len(), 1);
}

#[test]
fn a_server_that_is_not_ready_is_asked_again() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    cluster.refuse_once(MessageType::ClientJoin, "NOT_READY", true);
    client("alice").start_any(std::slice::from_ref(&server.address)).unwrap();
}

/// The client has another connection. Whether the loss of the former one was told first depends on how long it took.
fn is_back(event: &Event) -> bool {
    matches!(event, Event::Moved { .. } | Event::Reconnected { .. })
}

/// Whether `event` says that it is at `address`, in the lobby, and that `count` messages were sent again.
fn is_back_at(event: Option<&Event>, address: &str, count: usize) -> bool {
    let Some(
        Event::Moved { server, rooms, resent, .. } | Event::Reconnected { server, rooms, resent },
    ) = event
    else {
        return false;
    };
    server == address && *rooms == ["lobby"] && *resent == count
}

#[test]
fn when_its_server_dies_a_client_moves_on_and_nothing_is_lost_or_doubled() {
    let cluster = FakeCluster::new();
    let (first, second) = (FakeServer::start(&cluster), FakeServer::start(&cluster));
    // It knows the second one from the welcome alone.
    let alice = in_lobby("alice", &first.address);
    alice.send_message("one", "lobby").unwrap();
    until(&alice, |event| matches!(event, Event::Acked { .. }));
    *cluster.chats_answered.lock() = Some(1);
    for text in ["two", "three", "four"] {
        alice.send_message(text, "lobby").unwrap();
    }
    until(&alice, |event| matches!(event, Event::Acked { .. }));
    first.kill();
    cluster.say("bob", "meanwhile", "lobby");
    *cluster.chats_answered.lock() = None;
    let told = until(&alice, is_back);
    assert!(is_back_at(told.last(), &second.address, 2), "{told:?}");
    assert!(alice.wait_acknowledged(Some(SOON)));
    assert_eq!(cluster.texts("lobby"), ["one", "two", "meanwhile", "three", "four"]);
    let last = format!("{}-4", alice.client_id());
    let told = until(&alice, |event| *event == Event::Acked { message_id: last.clone() });
    assert_eq!(texts(&told), ["meanwhile", "three", "four"], "each once, in order");
}

#[test]
fn a_stopping_server_is_left_at_once() {
    let cluster = FakeCluster::new();
    let (first, second) = (FakeServer::start(&cluster), FakeServer::start(&cluster));
    let alice = in_lobby("alice", &first.address);
    cluster.refuse_once(MessageType::Chat, "SERVER_STOPPING", true);
    alice.send_message("hello", "lobby").unwrap();
    let told = until(&alice, is_back);
    assert!(is_back_at(told.last(), &second.address, 1), "{told:?}");
    assert!(alice.wait_acknowledged(Some(SOON)));
    assert_eq!(cluster.texts("lobby"), ["hello"]);
}

#[test]
fn with_one_server_a_broken_connection_is_replaced_by_another_to_it() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let alice = in_lobby("alice", &server.address);
    for round in 0..3 {
        server.drop_connections();
        until(&alice, is_back);
        alice.send_message(&round.to_string(), "lobby").unwrap();
        assert!(alice.wait_acknowledged(Some(SOON)));
    }
    assert_eq!(cluster.texts("lobby"), ["0", "1", "2"]);
}

#[test]
fn when_every_server_is_behind_the_gap_is_accepted_and_told() {
    let cluster = FakeCluster::new();
    let (first, _second) = (FakeServer::start(&cluster), FakeServer::start(&cluster));
    let alice = in_lobby("alice", &first.address);
    alice.send_message("one", "lobby").unwrap();
    until(&alice, |event| matches!(event, Event::Acked { .. }));
    cluster.refuse_once(MessageType::JoinRoom, "BEHIND", true);
    cluster.refuse_once(MessageType::JoinRoom, "BEHIND", true);
    first.drop_connections();
    let told = until(&alice, is_back);
    let gap = told.iter().any(|event| matches!(event, Event::Gap { room, .. } if room == "lobby"));
    assert!(gap, "{told:?}");
}

#[test]
fn sending_waits_for_room_and_goes_on_with_the_acknowledgements() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let alice = in_lobby("alice", &server.address);
    *cluster.chats_answered.lock() = Some(0);
    for n in 0..OUTSTANDING_MAX {
        alice.send_message(&n.to_string(), "lobby").unwrap();
    }
    let (done, sent) = bounded(1);
    let threads = Threads::new("test");
    let alice = Arc::new(alice);
    let sender = Arc::clone(&alice);
    let body = move || {
        let _ = done.send(sender.send_message("one more", "lobby"));
    };
    threads.spawn("sender", body).unwrap();
    assert!(sent.recv_timeout(Duration::from_millis(100)).is_err(), "there is no room for it");
    *cluster.chats_answered.lock() = None;
    server.drop_connections();
    assert!(sent.recv_timeout(SOON).unwrap().is_ok());
    assert!(alice.wait_acknowledged(Some(SOON)));
    assert_eq!(cluster.texts("lobby").len(), OUTSTANDING_MAX + 1);
}

#[test]
fn a_message_over_the_limit_is_refused_here_and_others_go_on() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let alice = in_lobby("alice", &server.address);
    let error = alice.send_message(&"x".repeat(config::FRAME_BYTES_MAX), "lobby").unwrap_err();
    assert!(error.to_string().contains("the limit is 1048576"), "{error}");
    alice.send_message("short", "lobby").unwrap();
    assert!(alice.wait_acknowledged(Some(SOON)));
    assert_eq!(cluster.texts("lobby"), ["short"]);
}

#[test]
fn a_heartbeat_is_answered_over_the_wire_and_questions_too() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let alice = in_lobby("alice", &server.address);
    alice.receive_message(&Message::new(MessageType::Heartbeat, "n1"));
    alice.ask_members("lobby");
    let told = until(&alice, |event| matches!(event, Event::Members { .. }));
    let names = vec!["alice".to_string()];
    assert_eq!(told.last(), Some(&Event::Members { room: "lobby".into(), names }));
    let kinds: Vec<_> = cluster.heard.lock().iter().map(|msg| msg.message_type).collect();
    assert!(kinds.contains(&MessageType::Heartbeat), "{kinds:?}");
}

#[test]
fn stopping_ends_everyone_who_waits() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let alice = Arc::new(in_lobby("alice", &server.address));
    *cluster.chats_answered.lock() = Some(0);
    alice.send_message("never answered", "lobby").unwrap();
    let threads = Threads::new("test");
    let waiter = Arc::clone(&alice);
    threads.spawn("waiter", move || assert!(!waiter.wait_acknowledged(None))).unwrap();
    alice.stop();
    assert!(threads.join(SOON));
    assert!(threads.panics().is_empty());
    assert!(matches!(alice.send_message("late", "lobby"), Err(SendError::Ended { .. })));
    assert_eq!(alice.unacknowledged().len(), 1);
    let heard = cluster.heard.lock().last().map(|msg| msg.message_type);
    assert_eq!(heard, Some(MessageType::ClientLeave));
}

#[test]
fn names_that_cannot_be_are_refused_before_anything_is_sent() {
    let error = ChatClient::new(ClientSettings::new("a\u{1b}")).unwrap_err();
    assert_eq!(error.to_string(), "the user name has control characters; choose another");
}
