//! Asking a time server what time it is.
//!
//! ```text
//!   query ── socket of its own ──▶ question with a nonce ──▶ server
//!     │                                                        │
//!     ◀── the answer that carries the nonce, within the limit ─┘      anything else is passed over
//! ```
//!
//! One call is one question, on a socket of its own that hears this server only: a late answer to an earlier question
//! comes to a port that is closed. Should it come here all the same, or should somebody lie, it lacks the nonce, and
//! the right answer is waited for. The time on the way is taken from the timers' clock, which no one sets, so that a
//! change of the system clock meanwhile does no harm.
//!
//! It blocks, up to the limit and for as long as the system takes to find the address of a name. Which server is
//! asked when, and what becomes of the answers, decides [`TimeSync`](crate::server::TimeSync).
//!
//! Source: raft-messaging.txt, "NTP protocol implementation"; RFC 5905, section 14.

#![expect(clippy::disallowed_methods, reason = "time is what this asks about")]

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use super::outgoing::is_timeout;

mod packet;

pub use packet::{Answer, Exchange, KissCode, NtpTimestamp, PACKET_BYTES};

/// The longest answer that is looked at, in bytes; what follows the first 48 is not read anyway.
const ANSWER_BYTES_MAX: usize = 1024;

/// Why a server did not tell the time. Displays as what is said about it: "127.0.0.1:123 " goes before.
#[derive(Debug)]
pub enum SntpError {
    /// Nothing came within the limit but `strays`, which answered another question or none.
    NoAnswer {
        /// How many.
        strays: u32,
    },
    /// The name has no address, or the system says that nobody listens there.
    Unreachable(io::Error),
    /// The server does not want to serve: the kiss-o'-death of RFC 5905, section 7.4.
    Kiss(KissCode),
    /// The server does not know the time itself.
    Unsynchronised,
    /// The answer cannot be true.
    Absurd(&'static str),
}

impl fmt::Display for SntpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer { strays: 0 } => f.write_str("does not answer"),
            Self::NoAnswer { strays } => {
                write!(f, "does not answer, but sends what was not asked for ({strays} times)")
            }
            Self::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            Self::Kiss(code) => write!(f, "refuses, with the code {code}"),
            Self::Unsynchronised => f.write_str("is not synchronised itself"),
            Self::Absurd(what) => write!(f, "answers what cannot be: {what}"),
        }
    }
}

impl std::error::Error for SntpError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(error) => Some(error),
            _ => None,
        }
    }
}

/// Asks `server` (`host:port`) and waits for its answer for `limit` at most. `nonce` has to be random, and new each
/// time.
pub fn query(server: &str, nonce: u64, limit: Duration) -> Result<Exchange, SntpError> {
    let socket = connect(server).map_err(SntpError::Unreachable)?;
    let t1 = NtpTimestamp::of(SystemTime::now());
    let sent_at = Instant::now();
    socket.send(&packet::question(nonce)).map_err(SntpError::Unreachable)?;
    let mut strays = 0;
    let mut buffer = [0; ANSWER_BYTES_MAX];
    loop {
        let left = limit.saturating_sub(sent_at.elapsed());
        if left.is_zero() {
            return Err(SntpError::NoAnswer { strays });
        }
        let received = socket.set_read_timeout(Some(left)).and_then(|()| socket.recv(&mut buffer));
        let at = Instant::now();
        match received {
            Ok(count) => match packet::answer(&buffer[..count], nonce) {
                Some(answer) => return Exchange::new(answer?, t1, t1.plus(at - sent_at), at),
                None => strays += 1,
            },
            Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(SntpError::Unreachable(error)),
        }
    }
}

/// A socket on a port of its own, which hears `server` only.
fn connect(server: &str) -> io::Result<UdpSocket> {
    let mut last_error = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in server.to_socket_addrs()? {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        match UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

#[cfg(test)]
mod tests;
