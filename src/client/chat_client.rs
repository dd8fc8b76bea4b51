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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use parking_lot::{Condvar, Mutex};

use super::discovery::discover;
use super::event::Event;
use super::keeper;
use super::session::outstanding::Unacked;
use super::session::{Next, Session, Step};
use crate::config;
use crate::domain::content::ServerAddress;
use crate::domain::ids::name_fault;
use crate::domain::{Message, MessageType, VectorClock};
use crate::error::StartError;
use crate::network::outgoing::Overflow;
use crate::network::{ConnectionManager, ConnectionSettings, Received, TCPConnection, UDPHandler};
use crate::threads::Threads;

/// How many messages may await their acknowledgement. [`ChatClient::send_message`] waits for room.
pub const OUTSTANDING_MAX: usize = 1024;
/// How long their texts may be together, in bytes.
pub const OUTSTANDING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How many events may wait to be read. When so many wait, the client reads no further from the server.
pub const EVENTS_MAX: usize = 16 * 1024;
/// How much may wait to be sent, in bytes: all that is outstanding, every byte of it escaped.
const SEND_QUEUE_BYTES_MAX: usize = 8 * OUTSTANDING_BYTES_MAX;
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
}

impl ClientSettings {
    /// The defaults for the user `username`.
    pub fn new(username: &str) -> Self {
        Self {
            username: username.into(),
            cluster: config::CLUSTER.into(),
            frame_bytes_max: config::FRAME_BYTES_MAX,
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

/// What the threads share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: ClientSettings,
    /// The only lock; frames are queued under it, nothing is written or waited for.
    pub(super) state: Mutex<State>,
    /// Signalled when a message was settled, and when the session ends.
    settled: Condvar,
    pub(super) manager: Arc<ConnectionManager>,
    udp_handler: UDPHandler,
    pub(super) threads: Threads,
    events: (Sender<Event>, Receiver<Event>),
    /// Whether a reader waits for the user to read events: then silence is not the server's.
    telling: AtomicBool,
    /// Wakes the keeper; one token is enough.
    pub(super) wake: (Sender<()>, Receiver<()>),
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Session,
    /// The connection that the session speaks on, `None` while there is none.
    pub(super) server_connection: Option<Arc<TCPConnection>>,
    /// Whether a reader thread is still at work, on this connection or the one before.
    pub(super) reading: bool,
    /// Why the last connection was given up.
    pub(super) last_reason: String,
}

impl ChatClient {
    /// A client that knows no server yet. Its session's name is random.
    pub fn new(settings: ClientSettings) -> Result<Self, StartError> {
        if let Some(fault) = name_fault(&settings.username) {
            return Err(StartError::Usage(format!("the user name {fault}; choose another")));
        }
        let threads = Threads::new("client");
        let mut connection_settings = ConnectionSettings::new(&settings.username);
        connection_settings.frame_bytes_max = RECEIVED_FRAME_BYTES_MAX;
        let udp_handler = UDPHandler::bind(0)
            .map_err(|error| StartError::Other(format!("cannot open a UDP socket: {error}")))?;
        let session_id = format!("{:016x}", fastrand::Rng::new().u64(..));
        let session = Session::new(&session_id, &settings.username);
        let state =
            State { session, server_connection: None, reading: false, last_reason: String::new() };
        let inner = Inner {
            settings,
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
        answer.recv().unwrap_or_else(|_| Err(StartError::Other("the client was stopped".into())))
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
        let mut state = self.inner.state.lock();
        while state.session.outstanding().is_full(OUTSTANDING_MAX, OUTSTANDING_BYTES_MAX)
            && !self.inner.is_over(&state)
        {
            self.inner.settled.wait(&mut state);
        }
        if self.inner.is_over(&state) {
            return Err(SendError::Ended { reason: state.last_reason.clone() });
        }
        let (message_id, step) = state.session.send_message(content, room_id, Instant::now());
        let conn = self.inner.queue(&mut state, &step);
        drop(state);
        flush(conn);
        Ok(message_id)
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
        while state.session.outstanding().len() > 0 && !self.inner.is_over(&state) {
            match deadline {
                Some(deadline) => {
                    if self.inner.settled.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
                None => self.inner.settled.wait(&mut state),
            }
        }
        state.session.outstanding().len() == 0
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
        let conn = self.inner.queue(&mut state, &goodbye);
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

impl Drop for ChatClient {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    /// Steps the session, sends what it wants sent, tells what it wants told.
    pub(super) fn step(&self, step: impl FnOnce(&mut Session) -> Step) {
        let mut state = self.state.lock();
        let step = step(&mut state.session);
        let conn = self.queue(&mut state, &step);
        drop(state);
        self.settled.notify_all();
        flush(conn);
        self.tell(step.events);
    }

    /// Whether nothing will be sent any more.
    fn is_over(&self, state: &State) -> bool {
        state.session.is_ended() || self.threads.is_stopped()
    }

    /// Queues what `step` sends, so that it leaves in the order of steps, and gives up the connection if the step says
    /// so. Returns the connection that is to be flushed.
    fn queue(&self, state: &mut State, step: &Step) -> Option<Arc<TCPConnection>> {
        let conn = state.server_connection.clone();
        if let Some(conn) = &conn {
            for msg in &step.send {
                conn.queue(&msg.to_frame());
            }
        }
        if let Next::Move { reason } | Next::End { reason } = &step.next {
            state.last_reason.clone_from(reason);
            if let Some(conn) = state.server_connection.take() {
                // Wakes the reader, which tells the keeper at its end.
                conn.close();
            }
        }
        conn.filter(|_| !step.send.is_empty())
    }

    /// Tells the user; waits while too much is untold.
    fn tell(&self, events: Vec<Event>) {
        for event in events {
            let Err(full) = self.events.0.try_send(event) else { continue };
            self.telling.store(true, Ordering::Relaxed);
            select! {
                send(self.events.0, full.into_inner()) -> _ => {}
                recv(self.threads.stopped()) -> _ => {}
            }
            self.telling.store(false, Ordering::Relaxed);
        }
    }

    /// A connection to `address` stands: speaks on it and starts its reader.
    pub(super) fn adopt(self: &Arc<Self>, conn: Arc<TCPConnection>, address: &str) {
        conn.set_bound(SEND_QUEUE_BYTES_MAX, Overflow::Reset);
        let mut state = self.state.lock();
        let step = state.session.connected(address, Instant::now());
        state.server_connection = Some(Arc::clone(&conn));
        state.reading = true;
        self.queue(&mut state, &step);
        drop(state);
        conn.flush();
        let (inner, reader) = (Arc::clone(self), Arc::clone(&conn));
        let callback = move |received| inner.on_received(&reader, received);
        if let Err(error) = self.manager.listen_to_connection(&conn, callback) {
            self.on_closed(&conn, &format!("cannot start a thread: {error}"));
        }
    }

    fn on_received(&self, conn: &Arc<TCPConnection>, received: Received) -> ControlFlow<()> {
        let batch = match received {
            Received::Batch(batch) => batch,
            Received::Closed { reason } => {
                self.on_closed(conn, &reason);
                return ControlFlow::Break(());
            }
        };
        // A frame that makes no sense ends the connection when it must; otherwise the next one may be better.
        for msg in batch.iter().filter_map(|item| item.as_ref().ok()) {
            self.receive_message(conn, msg)?;
        }
        conn.flush();
        ControlFlow::Continue(())
    }

    /// Takes in `msg` if it came on the present connection. Break when that is over.
    fn receive_message(&self, conn: &Arc<TCPConnection>, msg: &Message) -> ControlFlow<()> {
        let mut state = self.state.lock();
        if !is_present(&state, conn) {
            return ControlFlow::Break(());
        }
        let was_online = state.session.is_online();
        let step = state.session.receive(msg, Instant::now());
        let turned = state.session.is_online() != was_online || step.next != Next::Stay;
        self.queue(&mut state, &step);
        drop(state);
        let settles = |event: &Event| {
            matches!(event, Event::Acked { .. } | Event::Refused { .. } | Event::Ended { .. })
        };
        if step.events.iter().any(settles) {
            self.settled.notify_all();
        }
        if turned {
            self.wake_keeper();
        }
        self.tell(step.events);
        if step.next == Next::Stay { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn on_closed(&self, conn: &Arc<TCPConnection>, reason: &str) {
        let mut state = self.state.lock();
        let mut events = Vec::new();
        if is_present(&state, conn) {
            state.server_connection = None;
            state.last_reason = reason.into();
            events = state.session.lost(reason);
        }
        drop(state);
        self.tell(events);
        self.state.lock().reading = false;
        self.wake_keeper();
    }

    fn wake_keeper(&self) {
        // Full means that a token is there already.
        let _ = self.wake.0.try_send(());
    }

    /// Lets the session notice that time has passed.
    pub(super) fn tick(&self) {
        if !self.telling.load(Ordering::Relaxed) {
            self.step(|session| session.tick(Instant::now()));
        }
    }

    /// The callers of `send_message` and `wait_acknowledged` look again.
    pub(super) fn notify_settled(&self) {
        self.settled.notify_all();
    }
}

fn is_present(state: &State, conn: &Arc<TCPConnection>) -> bool {
    state.server_connection.as_ref().is_some_and(|present| present.id() == conn.id())
}

fn flush(conn: Option<Arc<TCPConnection>>) {
    if let Some(conn) = conn {
        conn.flush();
    }
}

#[cfg(test)]
mod tests;
