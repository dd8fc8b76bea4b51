//! Does its port take connections?
//!
//! ```text
//!   n2  connect ──── taken: alive              all begin at once, without blocking; looked at every
//!   n3  connect ──── refused: not alive        10 ms until each is decided or the time is over
//!   n4  connect ──── · · · nothing · · · ✗     one thread, and n4 delays nobody
//! ```
//!
//! Nothing is sent: the other side sees a connection that closes without a word. The sockets are looked at before the
//! clock is, so that a process that slept does not call others dead for its own sleep. Only a host *name* is waited
//! for, as long as the system takes to look it up, before the connections begin.
//!
//! Source: raft-messaging.txt, `_is_node_alive`.

#![expect(clippy::disallowed_methods, reason = "how long a connection takes is a matter of time")]

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use socket2::{Domain, Socket, Type};

use crate::domain::NodeId;

/// How often connections that are not decided are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// One connection that is being made.
#[derive(Debug)]
pub struct Probe {
    socket: Socket,
}

impl Probe {
    /// Begins to connect to `address` (`host:port`) and does not wait for it. A name with several addresses is tried
    /// at the first.
    pub fn begin(address: &str) -> io::Result<Self> {
        let no_address = || io::Error::new(ErrorKind::NotFound, "the name has no address");
        let address: SocketAddr = address.to_socket_addrs()?.next().ok_or_else(no_address)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        // Nobody else has this socket yet: no reader is surprised.
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if !is_in_progress(&error) => Err(error),
            _ => Ok(Self { socket }),
        }
    }

    /// The document's `_is_node_alive`: `Ok` when the connection was taken, the reason when it was not, `None` as
    /// long as neither is known.
    pub fn is_node_alive(&self) -> Option<io::Result<()>> {
        match self.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return Some(Err(error)),
        }
        // Has another side only once it is connected.
        let peer = self.socket.peer_addr().ok()?;
        let own = self.socket.local_addr().ok()?;
        // Trying a free port of one's own machine can, rarely, end at oneself: the system had chosen that very port
        // for the calling side.
        let is_oneself = peer.as_socket() == own.as_socket();
        Some(if is_oneself { Err(ErrorKind::ConnectionRefused.into()) } else { Ok(()) })
    }
}

/// Whether the connection goes on being made.
fn is_in_progress(error: &io::Error) -> bool {
    // EINPROGRESS has no stable `ErrorKind`.
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(EINPROGRESS)
}

/// Linux's number for "operation now in progress"; macOS and the BSDs have 36.
const EINPROGRESS: i32 = if cfg!(target_os = "linux") { 115 } else { 36 };

/// A node that was tried, where, and what came of it.
pub type Checked = (NodeId, String, io::Result<()>);

/// Tries all `nodes` (id and `host:port`) together for `timeout` at most. When `stop` is given meanwhile, those that
/// are not decided are left out.
pub fn are_nodes_alive(
    nodes: Vec<(NodeId, String)>,
    timeout: Duration,
    stop: &Receiver<()>,
) -> Vec<Checked> {
    let mut checked = Vec::new();
    let mut open = Vec::new();
    for (node, address) in nodes {
        match Probe::begin(&address) {
            Ok(probe) => open.push((node, address, probe)),
            Err(error) => checked.push((node, address, Err(error))),
        }
    }
    let deadline = Instant::now() + timeout;
    loop {
        // Before the sockets: what is not decided now was not in time.
        let is_over = Instant::now() >= deadline;
        let mut undecided = Vec::new();
        for (node, address, probe) in open {
            match probe.is_node_alive() {
                Some(outcome) => checked.push((node, address, outcome)),
                None if is_over => checked.push((node, address, Err(ErrorKind::TimedOut.into()))),
                None => undecided.push((node, address, probe)),
            }
        }
        open = undecided;
        if open.is_empty() || stop.recv_timeout(LOOK_INTERVAL) != Err(RecvTimeoutError::Timeout) {
            return checked;
        }
    }
}

#[cfg(test)]
mod tests;
