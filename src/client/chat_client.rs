//! A chat client as a library: threads and sockets around a [`Session`].
//!
//! ```text
//!   your thread ── send_message ──▶ Session ──▶ TCPConnection ──▶ server
//!   reader-<server>  ◀── messages ──────────────────────────────── server
//!        └──▶ Session ──▶ events() ──▶ another thread of yours
//!   keeper: connects, notices silence, reconnects
//! ```
//!
//! Read [`events`](ChatClient::events) on another thread than the one that sends: when nobody reads them the client
//! stops reading from the server, acknowledgements included.
//!
//! Source: class-diagram.txt, `ChatClient`.

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock and hands it on")]

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::{Condvar, MutexGuard};

use super::discovery::discover;
use super::event::Event;
use super::keeper;
use super::outbox::{Outbox, Restored, Said};
use super::session::Session;
use super::session::identity::Password;
use super::session::outstanding::Unacked;
use super::shared::{Inner, State, flush};
use crate::config;
use crate::domain::content::ServerAddress;
use crate::domain::ids::name_fault;
use crate::domain::{Message, MessageType, VectorClock};
use crate::error::StartError;
use crate::network::{ConnectionManager, ConnectionSettings, TCPConnection, UDPHandler};
use crate::threads::Threads;

/// How many messages may await their acknowledgement. [`ChatClient::send_message`] waits for room.
pub const OUTSTANDING_MAX: usize = 1024;
/// How long their texts may be together, in bytes.
pub const OUTSTANDING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many events may wait to be read. When so many wait, the client reads no further from the server.
pub const EVENTS_MAX: usize = 16 * 1024;
/// The longest frame that is taken from a server, in bytes. A delivered message is longer than what its sender sent.
const RECEIVED_FRAME_BYTES_MAX: usize = 8 * config::FRAME_BYTES_MAX;
/// How long discovery waits for an answer.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(2);
/// How long [`ChatClient::stop`] waits for its threads.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Who the user is, and which cluster it wants.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The user's name.
    pub username: String,
    /// The cluster's name.
    pub cluster: String,
    /// The longest message that is sent, in bytes on the wire; what is longer is refused here.
    pub frame_bytes_max: usize,
    /// What proves that the name is the user's (designs `sequencer` and `raft`).
    pub password: Option<Password>,
    /// A file that keeps what is not acknowledged; see [`outbox`](super::outbox).
    pub outbox: Option<PathBuf>,
}

impl ClientSettings {
    /// The defaults for the user `username`.
    pub fn new(username: &str) -> Self {
        Self {
            username: username.into(),
            cluster: config::CLUSTER.into(),
            frame_bytes_max: config::FRAME_BYTES_MAX,
            password: None,
            outbox: None,
        }
    }
}

/// Why a message was not taken. Nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Send something shorter.
    TooLong {
        /// How long it would be on the wire, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The outbox cannot be written; free space for it.
    NotKept {
        /// What the operating system says.
        reason: String,
    },
    /// The session is over; start another client.
    Ended {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, bytes_max } => write!(
                f,
                "the message would take {bytes} bytes, the limit is {bytes_max}; send it in parts"
            ),
            Self::NotKept { reason } => {
                write!(f, "the outbox cannot be written: {reason}; free space for it")
            }
            Self::Ended { reason } => write!(f, "the session is over: {reason}"),
        }
    }
}

impl std::error::Error for SendError {}

/// One user's connection to the cluster, over whichever server. Dropping it stops it.
#[derive(Debug)]
pub struct ChatClient {
    inner: Arc<Inner>,
}

impl ChatClient {
    /// A client that knows no server yet. Its session's name is random, or that of the outbox.
    pub fn new(settings: ClientSettings) -> Result<Self, StartError> {
        if let Some(fault) = name_fault(&settings.username) {
            return Err(StartError::Usage(format!("the user name {fault}; choose another")));
        }
        let threads = Threads::new("client");
        let mut connection_settings = ConnectionSettings::new(&settings.username);
        connection_settings.frame_bytes_max = RECEIVED_FRAME_BYTES_MAX;
        let udp_handler = UDPHandler::bind(0)
            .map_err(|error| StartError::Other(format!("cannot open a UDP socket: {error}")))?;
        let (outbox, session) = open_session(&settings)?;
        let state =
            State { session, server_connection: None, reading: false, last_reason: String::new() };
        let inner = Inner {
            settings,
            outbox: outbox.into(),
            state: state.into(),
            settled: Condvar::new(),
            manager: ConnectionManager::new(connection_settings, threads.clone()).into(),
            udp_handler,
            threads,
            events: bounded(EVENTS_MAX),
            telling: AtomicBool::new(false),
            wake: bounded(1),
        };
        Ok(Self { inner: inner.into() })
    }

    /// The session's name: 16 hexadecimal digits.
    pub fn client_id(&self) -> String {
        self.inner.state.lock().session.id().into()
    }

    /// The user's name.
    pub fn username(&self) -> &str {
        &self.inner.settings.username
    }

    /// The connection to the present server, if there is one.
    pub fn server_connection(&self) -> Option<Arc<TCPConnection>> {
        self.inner.state.lock().server_connection.clone()
    }

    /// The servers that it knows, `host:port`.
    pub fn known_servers(&self) -> Vec<String> {
        self.inner.state.lock().session.addresses().iter().map(Into::into).collect()
    }

    /// Its connections: the diagram's `ChatClient *-- ConnectionManager`.
    pub fn connection_manager(&self) -> &ConnectionManager {
        &self.inner.manager
    }

    /// What it asks for servers with: the diagram's `ChatClient *-- UDPHandler`.
    pub fn udp_handler(&self) -> &UDPHandler {
        &self.inner.udp_handler
    }

    /// Everything that was shown in any room, counted per server incarnation. For display.
    pub fn vector_clock(&self) -> VectorClock {
        self.inner.state.lock().session.vector_clock().clone()
    }

    /// Connects to the server at `ip` and `port` and says who we are. See [`start_any`](Self::start_any).
    pub fn start(&self, ip: &str, port: u16) -> Result<(), StartError> {
        let address =
            if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
        self.start_any(&[address])
    }

    /// Connects to the first of `addresses` (`host:port`) that welcomes us. Blocks. From then on the client reconnects by
    /// itself, also to servers that it hears of. Fails when none can be connected to, or one refuses us for good.
    pub fn start_any(&self, addresses: &[String]) -> Result<(), StartError> {
        self.inner.state.lock().session.addresses().learn(addresses.iter().map(String::as_str));
        let (started, answer) = bounded(1);
        let inner = Arc::clone(&self.inner);
        let run = move || keeper::run(&inner, &started);
        let no_thread = |error| StartError::Other(format!("cannot start a thread: {error}"));
        self.inner.threads.spawn("keeper", run).map_err(no_thread)?;
        // The keeper answers, or ends without an answer when the client is stopped.
        let stopped = |_| Err(StartError::Other("the client was stopped".into()));
        match answer.recv().unwrap_or_else(stopped) {
            Err(StartError::Other(reason)) if self.inner.state.lock().session.wants_password() => {
                Err(StartError::PasswordNeeded(reason))
            }
            other => other,
        }
    }

    /// Asks on the UDP port `port` who is there. `callback` gets each answer, the live servers, until it breaks off or two
    /// seconds have passed.
    pub fn discover_server(
        &self,
        port: u16,
        callback: impl FnMut(&[ServerAddress]) -> ControlFlow<()>,
    ) {
        let Inner { udp_handler, settings, .. } = &*self.inner;
        discover(udp_handler, &settings.cluster, port, DISCOVERY_LIMIT, callback);
    }

    /// Enters a room; it is created when it does not exist. The answer is [`Event::Joined`].
    pub fn join_room(&self, room_id: &str) {
        self.join_room_with_history(room_id, None);
    }

    /// [`join_room`](Self::join_room), with `history` messages of the past first. In the room already: shows them again.
    pub fn join_room_with_history(&self, room_id: &str, history: Option<u32>) {
        self.inner.step(|session| session.join_room(room_id, history));
    }

    /// Leaves a room. The answer is [`Event::Left`].
    pub fn leave_room(&self, room_id: &str) {
        self.inner.step(|session| session.leave_room(room_id));
    }

    /// Says `content` in a room and returns the message's id; it is acknowledged by [`Event::Acked`]. Waits while too
    /// many messages are outstanding.
    pub fn send_message(&self, content: &str, room_id: &str) -> Result<String, SendError> {
        self.check_length(content, room_id)?;
        let (message_id, step, mut state) = loop {
            let mut state = self.inner.state.lock();
            while is_full(&state) && !self.inner.is_over(&state) {
                self.inner.settled.wait(&mut state);
            }
            if self.inner.is_over(&state) {
                return Err(SendError::Ended { reason: state.last_reason.clone() });
            }
            // Its holder may wait for the disk. It also keeps others from taking the id that is written down.
            if self.inner.settings.outbox.is_some() {
                drop(state);
                let outbox = self.inner.outbox.lock();
                state = self.inner.state.lock();
                if is_full(&state) {
                    continue;
                }
                state = self.keep_said(outbox, state, content, room_id)?;
            }
            let now = Instant::now();
            let (message_id, step) = state.session.send_message(content, room_id, now);
            break (message_id, step, state);
        };
        let conn = Inner::queue(&mut state, &step);
        drop(state);
        flush(conn);
        Ok(message_id)
    }

    /// Writes a message into the outbox before it is sent.
    fn keep_said<'a>(
        &'a self,
        mut outbox: MutexGuard<'a, Option<Outbox>>,
        state: MutexGuard<'a, State>,
        content: &str,
        room_id: &str,
    ) -> Result<MutexGuard<'a, State>, SendError> {
        let id = state.session.next_message_id();
        drop(state);
        let said = Said { id, room: room_id.into(), text: content.into() };
        let kept = outbox.as_mut().map_or(Ok(()), |outbox| outbox.said(said));
        kept.map_err(|error| SendError::NotKept { reason: error.to_string() })?;
        // The id is given before the next one may be written down.
        Ok(self.inner.state.lock())
    }

    fn check_length(&self, content: &str, room_id: &str) -> Result<(), SendError> {
        let bytes_max = self.inner.settings.frame_bytes_max;
        // A byte takes at most six when it is escaped; the rest of the frame is short.
        if content.len() * 6 + 1024 <= bytes_max {
            return Ok(());
        }
        let mut chat = Message::new(MessageType::Chat, self.username()).in_room(room_id);
        chat.message_id = "0".repeat(40);
        chat.content = content.into();
        match chat.serialize().len() {
            bytes if bytes > bytes_max => Err(SendError::TooLong { bytes, bytes_max }),
            _ => Ok(()),
        }
    }

    /// The rooms with messages in the outbox that were not joined yet: those messages wait for it.
    pub fn restored_rooms(&self) -> Vec<String> {
        self.inner.state.lock().session.restored_rooms()
    }

    /// Deletes a message of this user. The answers are [`Event::Deleted`] and [`Event::Refused`].
    pub fn delete_message(&self, message_id: &str, room_id: &str) {
        self.inner.step(|session| session.delete_message(room_id, message_id));
    }

    /// Asks for what was said in a room since a time, in milliseconds since 1970. The answer is [`Event::Since`].
    pub fn ask_history(&self, room_id: &str, since_ms: u64) {
        self.inner.step(|session| session.ask_history(room_id, since_ms));
    }

    /// Asks what is kept. The answer is [`Event::Statistics`].
    pub fn ask_statistics(&self) {
        self.inner.step(Session::ask_statistics);
    }

    /// Takes in one message of the server. The reader thread does this; public for the class diagram's sake and for tests.
    pub fn receive_message(&self, msg: &Message) {
        if let Some(conn) = self.server_connection() {
            let _ = self.inner.receive_message(&conn, msg);
            conn.flush();
        }
    }

    /// What happens, in order. Every receiver takes events away from the others, so have one.
    pub fn events(&self) -> &Receiver<Event> {
        &self.inner.events.1
    }

    /// Asks how the cluster is. The answer is [`Event::Status`].
    pub fn ask_status(&self) {
        self.inner.step(Session::ask_status);
    }

    /// Asks which rooms there are. The answer is [`Event::Rooms`].
    pub fn ask_rooms(&self) {
        self.inner.step(Session::ask_rooms);
    }

    /// Asks who is in a room, on all servers. The answer is [`Event::Members`].
    pub fn ask_members(&self, room_id: &str) {
        self.inner.step(|session| session.ask_members(room_id));
    }

    /// The messages that have waited longer than `limit` for their acknowledgement; each is named once.
    pub fn overdue(&self, limit: Duration) -> Vec<String> {
        self.inner.state.lock().session.overdue(Instant::now(), limit)
    }

    /// The messages that were neither acknowledged nor refused, in order.
    pub fn unacknowledged(&self) -> Vec<Unacked> {
        self.inner.state.lock().session.outstanding().iter().cloned().collect()
    }

    /// Whether `message_id` is that of a message, rather than of another request.
    pub fn is_message_id(&self, message_id: &str) -> bool {
        let number = message_id.rsplit_once('-').map(|(_, number)| number.parse::<u64>());
        number.is_some_and(|number| number.is_ok())
    }

    /// Waits until every message is acknowledged or refused, at most for `limit`; `None` waits for ever. False when
    /// some are not.
    pub fn wait_acknowledged(&self, limit: Option<Duration>) -> bool {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut state = self.inner.state.lock();
        while !state.session.outstanding().is_empty() && !self.inner.is_over(&state) {
            match deadline {
                Some(deadline) => {
                    if self.inner.settled.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
                None => self.inner.settled.wait(&mut state),
            }
        }
        state.session.outstanding().is_empty()
    }

    /// Receives the report of a thread that panicked: our bug, and the end of the client.
    pub fn panics(&self) -> &Receiver<String> {
        self.inner.threads.panics()
    }

    /// Leaves: sends what is queued, says goodbye, closes the connection and ends the threads. Events that nobody read
    /// are lost.
    pub fn stop(&self) {
        self.inner.threads.stop();
        let mut state = self.inner.state.lock();
        if state.last_reason.is_empty() {
            state.last_reason = "the client was stopped".into();
        }
        let goodbye = state.session.leave();
        let conn = Inner::queue(&mut state, &goodbye);
        let conn = state.server_connection.take().or(conn);
        drop(state);
        if let Some(conn) = conn {
            conn.close_after_flush();
        }
        self.inner.settled.notify_all();
        self.inner.threads.join(STOP_LIMIT);
        self.inner.manager.close_all();
    }
}

fn is_full(state: &State) -> bool {
    state.session.outstanding().is_full(OUTSTANDING_MAX, OUTSTANDING_BYTES_MAX)
}

/// A new session, or that of the outbox.
fn open_session(settings: &ClientSettings) -> Result<(Option<Outbox>, Session), StartError> {
    let id = format!("{:016x}", fastrand::Rng::new().u64(..));
    let (user, cluster) = (&settings.username, &settings.cluster);
    let opened = settings.outbox.as_ref().map(|path| Outbox::open(path, &id, user, cluster));
    let (outbox, restored) = opened.transpose()?.unzip();
    let restored = restored.unwrap_or_else(|| Restored { session: id, ..Restored::default() });
    let mut session = Session::new(&restored.session, user);
    session.set_password(settings.password.clone());
    session.restore(restored.life, restored.last);
    for said in &restored.said {
        session.restore_message(&said.id, &said.room, &said.text, Instant::now());
    }
    Ok((outbox, session))
}

impl Drop for ChatClient {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
