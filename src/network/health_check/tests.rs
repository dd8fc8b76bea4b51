//! Probes of ports that answer, and of ports that do not.

use std::net::TcpListener;

use super::*;
use crate::network::listener::bind_listener;
use crate::threads::Threads;

/// For what should come: generous.
const LONG: Duration = Duration::from_secs(20);
/// For what should not come.
const SHORT: Duration = Duration::from_millis(100);

fn address(listener: &TcpListener) -> String {
    listener.local_addr().unwrap().to_string()
}

/// Tries these addresses, and says for each whether it is alive.
fn check(addresses: &[&str], timeout: Duration) -> Vec<Result<(), ErrorKind>> {
    let threads = Threads::new("test");
    let nodes = (1..).zip(addresses);
    let nodes = nodes.map(|(n, address)| (format!("n{n}").as_str().into(), (*address).into()));
    let mut checked = are_nodes_alive(nodes.collect(), timeout, threads.stopped());
    assert_eq!(checked.len(), addresses.len());
    checked.sort_by(|a, b| a.0.cmp(&b.0));
    checked.into_iter().map(|(_, _, outcome)| outcome.map_err(|error| error.kind())).collect()
}

/// A listener that takes no more connections: its backlog is full. The connections that fill it are to be kept.
fn full_listener() -> (Socket, String, Vec<Socket>) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let fillers = (0..8).map(|_| {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address.into());
        filler
    });
    let fillers = fillers.collect();
    (socket, address.to_string(), fillers)
}

#[test]
fn a_port_that_takes_connections_is_alive_and_one_that_refuses_is_not() {
    let listener = bind_listener("127.0.0.1:0").unwrap();
    let free = address(&bind_listener("127.0.0.1:0").unwrap());
    let outcomes = check(&[&address(&listener), &free], LONG);
    assert_eq!(outcomes, [Ok(()), Err(ErrorKind::ConnectionRefused)]);
}

#[test]
fn nothing_is_sent_and_the_connection_is_closed() {
    use std::io::Read;
    let listener = bind_listener("127.0.0.1:0").unwrap();
    assert_eq!(check(&[&address(&listener)], LONG), [Ok(())]);
    let (mut socket, _) = listener.accept().unwrap();
    assert_eq!(socket.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn a_listener_that_never_accepts_is_alive_since_the_system_takes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(check(&[address(&listener).as_str(); 3], LONG), [Ok(()); 3]);
}

#[test]
fn a_port_that_does_not_answer_is_given_up_and_delays_no_other() {
    let (_full, full, _fillers) = full_listener();
    let listener = bind_listener("127.0.0.1:0").unwrap();
    let alive = address(&listener);
    let started = Instant::now();
    let outcomes = check(&[&full, &alive, &full, &full], SHORT);
    let late = Err(ErrorKind::TimedOut);
    assert_eq!(outcomes, [late, Ok(()), late, late]);
    // Three that do not answer cost one timeout, not three; the rest is room for a busy machine.
    assert!(started.elapsed() >= SHORT);
}

#[test]
fn a_node_that_is_back_is_alive_again() {
    let listener = bind_listener("127.0.0.1:0").unwrap();
    let address = address(&listener);
    assert_eq!(check(&[&address], LONG), [Ok(())]);
    drop(listener);
    assert_eq!(check(&[&address], LONG), [Err(ErrorKind::ConnectionRefused)]);
    // Another program can have taken the port meanwhile; then there is nothing to see.
    if let Ok(_listener) = bind_listener(&address) {
        assert_eq!(check(&[&address], LONG), [Ok(())]);
    }
}

#[test]
fn what_is_no_address_is_not_alive() {
    for nowhere in ["", "127.0.0.1", "127.0.0.1:x"] {
        assert!(check(&[nowhere], LONG)[0].is_err(), "{nowhere}");
    }
}

#[test]
fn a_stop_ends_the_wait_and_leaves_out_what_is_not_decided() {
    let (_full, full, _fillers) = full_listener();
    let listener = bind_listener("127.0.0.1:0").unwrap();
    let threads = Threads::new("test");
    threads.stop();
    let nodes = vec![("n1".into(), full), ("n2".into(), address(&listener))];
    let checked = are_nodes_alive(nodes, LONG, threads.stopped());
    assert!(checked.iter().all(|(node, _, _)| node.as_str() == "n2"), "{checked:?}");
}

#[test]
fn a_connection_to_oneself_is_no_sign_of_life() {
    // A socket that is bound to a port and connects to it meets itself.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let own = socket.local_addr().unwrap();
    socket.connect(&own).unwrap();
    let outcome = Probe { socket }.is_node_alive().unwrap();
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
