//! Messages without connections: who is there?
//!
//! ```text
//!    asker, any port ──"DISCOVERY"──▶ broadcast, discovery port ──▶ every server of every host
//!         ▲                                                            │
//!         └────────────────── answer, to the asker's own port ─────────┘
//! ```
//!
//! All servers of a host share the discovery port: with `SO_REUSEADDR` each of their sockets gets a copy of every
//! broadcast. A datagram to one address would reach one of them only, hence answers go to the port that the asker
//! sent from, which is its own. `SO_REUSEPORT` is not set: it makes the system choose one of the sockets.
//!
//! A datagram holds one message as JSON, at most [`DATAGRAM_BYTES_MAX`] long; an answer that would be longer leaves out
//! rooms, which is the server's business. Datagrams may be lost, doubled, and come from oneself: the same question goes out
//! on the network and on the loopback, and its sender hears it too.
//!
//! Source: class-diagram.txt, `UDPHandler`.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::ops::ControlFlow;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use log::{debug, warn};
use socket2::{Domain, Socket, Type};

use super::outgoing::is_timeout;
use crate::domain::Message;

/// Longest message in a datagram, in bytes. UDP carries 65,507 at most.
pub const DATAGRAM_BYTES_MAX: usize = 60 * 1024;

/// How often a listener looks whether it should stop. A datagram to wake it could reach another server's socket.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long a listener pauses when its socket fails.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Every host of the network.
const BROADCAST: Ipv4Addr = Ipv4Addr::BROADCAST;

/// Every server of this host, network or not.
const BROADCAST_LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// A UDP socket that speaks messages.
#[derive(Debug)]
pub struct UDPHandler {
    pub(crate) socket: UdpSocket,
}

impl UDPHandler {
    /// Opens the discovery port `port`, which other servers of this host may have open too. Port 0 opens one that is
    /// nobody else's, for asking.
    pub fn bind(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        if port != 0 {
            socket.set_reuse_address(true)?;
        }
        socket.set_broadcast(true)?;
        // The wildcard: a socket bound to one address hears no broadcast.
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
        Ok(Self { socket: socket.into() })
    }

    /// The port that answers to this socket's questions come to.
    pub fn port(&self) -> io::Result<u16> {
        self.socket.local_addr().map(|address| address.port())
    }

    /// Hands each message that comes to `callback`, with the address to answer to, until `stop` is given or the
    /// callback breaks off. What is not a message is ignored.
    pub fn listen(
        &self,
        stop: &Receiver<()>,
        mut callback: impl FnMut(Message, SocketAddr) -> ControlFlow<()>,
    ) {
        while stop.try_recv() != Err(TryRecvError::Disconnected) {
            match self.receive(STOP_CHECK_INTERVAL) {
                Ok(Some((msg, from))) => {
                    if callback(msg, from).is_break() {
                        break;
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    warn!("cannot receive datagrams for the moment: {error}");
                    let _ = stop.recv_timeout(FAILURE_PAUSE);
                }
            }
        }
    }

    /// Waits at most `timeout` for one datagram. `None` when none came or it was not a message.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<(Message, SocketAddr)>> {
        // Zero would mean for ever.
        self.socket.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        // One more than allowed: a datagram that fills it is too long.
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
        let (count, from) = match self.socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if count > DATAGRAM_BYTES_MAX {
            debug!("ignoring a datagram of more than {DATAGRAM_BYTES_MAX} bytes from {from}");
            return Ok(None);
        }
        match Message::decode(&buffer[..count]) {
            Ok(msg) => Ok(Some((msg, from))),
            Err(error) => {
                debug!("ignoring a datagram from {from}: {error}");
                Ok(None)
            }
        }
    }

    /// Sends `msg` to everyone who listens on `port`, on the network and on this host. What cannot be reached is
    /// ignored: a host without a network still has its loopback.
    pub fn broadcast(&self, msg: &Message, port: u16) {
        for ip in [BROADCAST, BROADCAST_LOOPBACK] {
            let to = SocketAddrV4::new(ip, port).into();
            if let Err(error) = self.send_to(msg, to) {
                debug!("cannot broadcast to {to}: {error}");
            }
        }
    }

    /// Sends `msg` to `to`. Fails when it is longer than [`DATAGRAM_BYTES_MAX`].
    pub fn send_to(&self, msg: &Message, to: SocketAddr) -> io::Result<()> {
        let frame = msg.to_frame();
        if frame.len() > DATAGRAM_BYTES_MAX {
            let text = format!("{} bytes, a datagram holds {DATAGRAM_BYTES_MAX}", frame.len());
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        self.socket.send_to(&frame, to).map(drop)
    }
}

#[cfg(test)]
mod tests;
