use std::collections::BTreeSet;

use super::*;
use crate::domain::MessageType;
use crate::threads::Threads;

const LONG: Duration = Duration::from_secs(30);

fn discovery(message_id: &str) -> Message {
    Message::new(MessageType::Discovery, "n1").with_id(message_id)
}

/// Several handlers that share one port which nobody else has.
fn sharing<const N: usize>() -> ([UDPHandler; N], u16) {
    loop {
        let port = UDPHandler::bind(0).unwrap().port().unwrap();
        // Another test may have drawn the same port meanwhile.
        let handlers: Vec<_> = (0..N).map_while(|_| UDPHandler::bind(port).ok()).collect();
        if let Ok(handlers) = handlers.try_into() {
            return (handlers, port);
        }
    }
}

/// Waits for a message with `message_id`, skipping others.
fn receive(handler: &UDPHandler, message_id: &str) -> SocketAddr {
    loop {
        let received = handler.receive(LONG).unwrap().expect("a message comes");
        if received.0.message_id == message_id {
            return received.1;
        }
    }
}

#[test]
fn every_socket_that_shares_the_port_gets_each_broadcast() {
    let (handlers, port) = sharing::<3>();
    handlers[0].broadcast(&discovery("q"), port);
    for handler in &handlers {
        receive(handler, "q");
    }
}

#[test]
fn an_answer_comes_to_the_port_of_the_asker_only() {
    let (handlers, port) = sharing::<2>();
    let asker = UDPHandler::bind(0).unwrap();
    asker.broadcast(&discovery("q"), port);
    for (handler, id) in handlers.iter().zip(["a0", "a1"]) {
        let from = receive(handler, "q");
        assert_eq!(from.port(), asker.port().unwrap());
        handler.send_to(&discovery(id), from).unwrap();
    }
    let mut missing = BTreeSet::from(["a0".to_string(), "a1".to_string()]);
    while !missing.is_empty() {
        let (answer, _) = asker.receive(LONG).unwrap().expect("an answer comes");
        missing.remove(&answer.message_id);
    }
}

#[test]
fn what_is_not_a_message_is_ignored_and_what_follows_is_not() {
    let handler = UDPHandler::bind(0).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, handler.port().unwrap()));
    let sender = UDPHandler::bind(0).unwrap();
    let long = vec![b' '; DATAGRAM_BYTES_MAX + 1];
    for junk in [&b""[..], b"nonsense", b"{}", b"\xff\xfe", &long] {
        sender.socket.send_to(junk, to).unwrap();
        assert_eq!(handler.receive(LONG).unwrap(), None);
    }
    sender.send_to(&discovery("q"), to).unwrap();
    receive(&handler, "q");
}

#[test]
fn a_message_of_the_greatest_length_passes_and_a_longer_one_is_refused() {
    let handler = UDPHandler::bind(0).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, handler.port().unwrap()));
    let room = DATAGRAM_BYTES_MAX - discovery("").in_room("x").to_frame().len() + 1;
    let longest = discovery("").in_room("x".repeat(room));
    handler.send_to(&longest, to).unwrap();
    assert_eq!(handler.receive(LONG).unwrap().unwrap().0, longest);
    let error = handler.send_to(&discovery("").in_room("x".repeat(room + 1)), to).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_listener_hands_messages_on_until_it_is_stopped() {
    let threads = Threads::new("n1");
    let handler = UDPHandler::bind(0).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, handler.port().unwrap()));
    let (heard, messages) = crossbeam_channel::unbounded();
    let stop = threads.stopped().clone();
    let listen = move || {
        handler.listen(&stop, |msg, _| {
            heard.send(msg.message_id).unwrap();
            ControlFlow::Continue(())
        });
    };
    threads.spawn("udp-listener", listen).unwrap();
    for id in ["a", "b"] {
        UDPHandler::bind(0).unwrap().send_to(&discovery(id), to).unwrap();
        assert_eq!(messages.recv_timeout(LONG).unwrap(), id);
    }
    threads.stop();
    assert!(threads.join(LONG));
}

#[test]
fn a_listener_ends_when_its_callback_has_heard_enough() {
    let handler = UDPHandler::bind(0).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, handler.port().unwrap()));
    handler.send_to(&discovery("a"), to).unwrap();
    let mut calls = 0;
    let (_stop, stopped) = crossbeam_channel::bounded(0);
    handler.listen(&stopped, |_, _| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert_eq!(calls, 1);
}
