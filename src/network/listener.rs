//! Accepting connections.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use log::{debug, warn};
use socket2::{Domain, Socket, Type};

use crate::error::StartError;
use crate::open_files;

/// How many connections may wait to be accepted; ten thousand clients may come back at once.
const BACKLOG: i32 = 4096;

/// How long [`accept_loop`] pauses when the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long [`wake_listener`] tries.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Listens on `address` (`host:port`; port 0 lets the system choose). A port whose former owner has just ended is free
/// at once.
pub fn bind_listener(address: &str) -> Result<TcpListener, StartError> {
    try_bind(address).map_err(|source| StartError::Listen { address: address.to_string(), source })
}

fn try_bind(address: &str) -> io::Result<TcpListener> {
    let mut last_error = io::Error::new(ErrorKind::NotFound, "it has no address");
    for address in address.to_socket_addrs()? {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // On Windows the same option would let two programs share the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Hands each accepted connection to `on_socket` until `stop` is given *and* [`wake_listener`] wakes it. Survives
/// running out of descriptors: whoever wants in waits in the backlog meanwhile.
pub fn accept_loop(
    listener: &TcpListener,
    stop: &Receiver<()>,
    mut on_socket: impl FnMut(TcpStream),
) {
    let mut failing = false;
    while stop.try_recv() != Err(TryRecvError::Disconnected) {
        let accepted = listener.accept();
        // The connection that woke us is nobody's.
        if stop.try_recv() == Err(TryRecvError::Disconnected) {
            break;
        }
        match accepted {
            Ok((socket, _)) => {
                failing = false;
                on_socket(socket);
            }
            Err(error) if is_about_one_connection(&error) => debug!("cannot accept: {error}"),
            Err(error) => {
                // Once is enough in the log; it is tried again many times a second.
                if !failing {
                    let hint = open_files::hint(&error);
                    warn!("cannot accept connections for the moment: {error}{hint}");
                }
                failing = true;
                let _ = stop.recv_timeout(ACCEPT_PAUSE);
            }
        }
    }
}

/// Wakes the [`accept_loop`] of the listener at `address` by connecting to it. Give the stop signal first.
pub fn wake_listener(mut address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    if let Err(error) = TcpStream::connect_timeout(&address, WAKE_TIMEOUT) {
        debug!("cannot wake the listener at {address}: {error}");
    }
}

/// Whether the next connection can be accepted all the same.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::threads::Threads;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_port_in_use_is_refused_with_the_address_and_a_remedy() {
        let first = bind_listener("127.0.0.1:0").unwrap();
        let address = first.local_addr().unwrap().to_string();
        let text = bind_listener(&address).unwrap_err().to_string();
        assert!(text.starts_with(&format!("cannot listen on {address}: ")), "{text}");
        assert!(text.contains("--listen"), "{text}");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for address in ["127.0.0.1", "", "192.0.2.1:0"] {
            assert!(matches!(bind_listener(address), Err(StartError::Listen { .. })), "{address}");
        }
    }

    #[test]
    fn a_port_is_free_again_as_soon_as_its_owner_ends() {
        let listener = bind_listener("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The side that closes first keeps the address in TIME_WAIT.
        let mut client = TcpStream::connect(address).unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop((client, listener));
        bind_listener(&address.to_string()).unwrap();
    }

    #[test]
    fn a_stop_and_a_wake_end_the_accept_loop_whatever_it_listens_on() {
        for address in ["127.0.0.1:0", "0.0.0.0:0"] {
            let threads = Threads::new("n1");
            let listener = bind_listener(address).unwrap();
            let address = listener.local_addr().unwrap();
            let (accepted, sockets) = crossbeam_channel::unbounded();
            let stop = threads.stopped().clone();
            let body =
                move || accept_loop(&listener, &stop, |socket| accepted.send(socket).unwrap());
            threads.spawn("tcp-accept", body).unwrap();
            let _client = TcpStream::connect(("127.0.0.1", address.port())).unwrap();
            assert!(sockets.recv_timeout(LONG).is_ok());
            threads.stop();
            wake_listener(address);
            assert!(threads.join(LONG));
            assert!(sockets.recv().is_err(), "the waking connection is handed to nobody");
        }
    }

    #[test]
    fn waking_a_listener_that_is_gone_does_no_harm() {
        let listener = bind_listener("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        wake_listener(address);
    }
}
