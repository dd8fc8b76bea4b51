//! Connections as the server logic sees them: what they turned out to be, what they wait for, how they end.
//!
//! A request that cannot be taken yet is not queued: its connection is read no further, and the same request
//! is handed in again when something changed. After [`WAIT_MAX`] it is refused, and the client tries elsewhere. Until
//! then the client hears a HEARTBEAT every [`WAIT_BEAT`]: whatever it asks meanwhile is not read, and its silence would
//! look like that of a server that is gone ([`silence`](crate::client::session::silence)).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ServerNode;
use super::step::{Flow, Step};
use super::total_order::Ordered;
use crate::domain::{Message, MessageType, NodeId, VectorClock};
use crate::error::RequestError;
use crate::network::ConnId;

/// How long a connection may be silent before it says CLIENT_JOIN or HELLO.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client waits for something temporary before it is told to try elsewhere.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);

/// The same for a password that is being checked: its turn comes nearer, and elsewhere it would wait at the end of the line. When 256
/// people logged in at once, three servers on two processors took longer than [`WAIT_MAX`] for the last of them.
const HASH_WAIT_MAX: Duration = Duration::from_secs(30);

/// How often a client hears something while its request waits. Well below the 1.5 s that it gives an answer.
pub(super) const WAIT_BEAT: Duration = Duration::from_millis(500);

/// What a connection has turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing was said yet.
    New,
    /// Another server.
    Peer(NodeId),
    /// A client's session.
    Client(Arc<str>),
}

/// A connection as the server logic sees it.
#[derive(Clone, Debug)]
pub(super) struct Conn {
    /// Who is at the other end.
    pub(super) role: Role,
    /// The remote address, for the log.
    pub(super) addr: SocketAddr,
    /// The address that was dialled when this server opened it.
    pub(super) dialled: Option<String>,
    /// When it was opened.
    pub(super) opened_at: Instant,
    /// The last step that took a message of it.
    pub(super) heard_at: Option<Instant>,
    /// The request that cannot be taken yet. In a box, since most wait for nothing.
    pub(super) waiting: Option<Box<Waiting>>,
}

/// Why a connection is not read further for a while.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Since when.
    pub(super) since: Instant,
    /// When the client is told next that the server is there.
    pub(super) beat_at: Instant,
    /// What the client is told when it lasts longer than [`WAIT_MAX`].
    pub(super) error: RequestError,
}

/// Why a request is not done: it has to wait, or it is refused.
#[derive(Clone, Debug)]
pub(super) enum Hindrance {
    /// Not yet; the error is for a client that waited too long.
    Wait(RequestError),
    /// No.
    Refuse(RequestError),
}

impl From<RequestError> for Hindrance {
    fn from(error: RequestError) -> Self {
        Self::Refuse(error)
    }
}

/// A local client: its connection, and the user behind it.
#[derive(Clone, Debug)]
pub(super) struct LocalClient {
    /// The way to it.
    pub(super) conn: ConnId,
    /// The user's name.
    pub(super) user: Arc<str>,
    /// Per room that it entered with a gap: what it has been shown elsewhere, until that can be shown here too.
    pub(super) gaps: BTreeMap<String, VectorClock>,
}

impl ServerNode {
    /// Answers what came of a request: nothing more, a wait, or an error.
    pub(super) fn conclude(
        &mut self,
        id: ConnId,
        done: Result<(), Hindrance>,
        step: &Step,
    ) -> Flow {
        let error = match done {
            Ok(()) => {
                let Some(conn) = self.conns.get_mut(&id) else { return Flow::Close };
                conn.waiting = None;
                return Flow::Done;
            }
            Err(Hindrance::Refuse(error)) => error,
            Err(Hindrance::Wait(error)) => {
                let limit = wait_limit(self.ordered.as_ref(), id);
                let Some(conn) = self.conns.get_mut(&id) else { return Flow::Close };
                let (since, beat_at) = (step.now, step.now + WAIT_BEAT);
                let begin = || Waiting { since, beat_at, error: error.clone() }.into();
                let waiting = conn.waiting.get_or_insert_with(begin);
                if step.now < waiting.since + limit {
                    waiting.error = error;
                    self.unsettled.insert(id);
                    return Flow::Wait;
                }
                error
            }
        };
        self.refuse(id, &error, step)
    }

    /// Sends `error` to `conn`, and closes it where the error says so.
    pub(super) fn refuse(&mut self, conn: ConnId, error: &RequestError, step: &Step) -> Flow {
        let Some(known) = self.conns.get_mut(&conn) else { return Flow::Close };
        known.waiting = None;
        let level = if error.closes() { log::Level::Info } else { log::Level::Debug };
        log::log!(level, "refused {} {}: {error}", known.addr, error.code());
        let frame = error.to_message(self.server_id.as_str()).to_frame();
        step.cm.send_to_conn(conn, &frame);
        if !error.closes() {
            return Flow::Done;
        }
        self.close(conn, "refused", step);
        Flow::Close
    }

    /// Ends a connection from this side.
    pub(super) fn close(&mut self, conn: ConnId, reason: &str, step: &Step) {
        step.cm.close(conn);
        // A reader that waits has to wake to see the end.
        step.cm.resume(conn);
        self.handle_closed(conn, reason, step);
    }

    /// Connections that said nothing for too long, and requests that waited too long.
    pub(super) fn check_connections(&mut self, step: &Step) {
        let mut silent = Vec::new();
        let conns = &mut self.conns;
        let is_unsettled = |conn: &Conn| conn.role == Role::New || conn.waiting.is_some();
        self.unsettled.retain(|id| conns.get(id).is_some_and(is_unsettled));
        for id in &self.unsettled {
            let Some(conn) = conns.get_mut(id) else { continue };
            if conn.role == Role::New && step.now >= conn.opened_at + HELLO_TIMEOUT {
                silent.push(*id);
            }
            let Some(waiting) = &mut conn.waiting else { continue };
            if step.now >= waiting.since + wait_limit(self.ordered.as_ref(), *id) {
                // Handed in once more, the request is refused.
                step.cm.resume(*id);
            } else if step.now >= waiting.beat_at {
                waiting.beat_at = step.now + WAIT_BEAT;
                let beat = Message::new(MessageType::Heartbeat, self.server_id.as_str());
                step.cm.send_to_conn(*id, &beat.to_frame());
            }
        }
        for conn in silent {
            if self.conns.get(&conn).is_some_and(|conn| conn.waiting.is_none()) {
                let seconds = HELLO_TIMEOUT.as_secs();
                let dialled = self.conns.get(&conn).and_then(|conn| conn.dialled.clone());
                self.refuse(conn, &RequestError::HelloTimeout { seconds, dialled }, step);
            }
        }
    }
}

/// How long the request of `conn` may wait.
fn wait_limit(ordered: Option<&Ordered>, conn: ConnId) -> Duration {
    let is_hashing = ordered.is_some_and(|ordered| ordered.is_hashing(conn));
    if is_hashing { HASH_WAIT_MAX } else { WAIT_MAX }
}
