//! What a client's threads share, and what each of them does with it.
//!
//! One lock guards the session and its connection. Under it a step is taken and what it sends is queued, so that the
//! order on the wire is the order of steps; bytes are written, and the user told, after the lock is gone.

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock and hands it on")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, select};
use parking_lot::{Condvar, Mutex};

use super::chat_client::{ClientSettings, OUTSTANDING_BYTES_MAX};
use super::event::Event;
use super::outbox::Outbox;
use super::session::{Next, Session, Step};
use crate::domain::Message;
use crate::network::outgoing::Overflow;
use crate::network::{ConnectionManager, Received, TCPConnection, UDPHandler};
use crate::threads::Threads;

/// How much may wait to be sent, in bytes: all that is outstanding, every byte of it escaped.
const SEND_QUEUE_BYTES_MAX: usize = 8 * OUTSTANDING_BYTES_MAX;

/// What the threads share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: ClientSettings,
    /// The file of what is not acknowledged, if there is one. Its lock is taken before `state` and never while that is held;
    /// who holds it may wait for the disk.
    pub(super) outbox: Mutex<Option<Outbox>>,
    /// The lock of everything else; frames are queued under it, nothing is written or waited for.
    pub(super) state: Mutex<State>,
    /// Signalled when a message was settled, and when the session ends.
    pub(super) settled: Condvar,
    pub(super) manager: Arc<ConnectionManager>,
    pub(super) udp_handler: UDPHandler,
    pub(super) threads: Threads,
    pub(super) events: (Sender<Event>, Receiver<Event>),
    /// Whether a reader waits for the user to read events: then silence is not the server's.
    pub(super) telling: AtomicBool,
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

impl Inner {
    /// Steps the session, sends what it wants sent, tells what it wants told.
    pub(super) fn step(&self, step: impl FnOnce(&mut Session) -> Step) {
        let mut state = self.state.lock();
        let step = step(&mut state.session);
        let conn = Self::queue(&mut state, &step);
        drop(state);
        self.keep(&step.events);
        self.settled.notify_all();
        flush(conn);
        self.tell(step.events);
    }

    /// Whether nothing will be sent any more.
    pub(super) fn is_over(&self, state: &State) -> bool {
        state.session.is_ended() || self.threads.is_stopped()
    }

    /// Queues what `step` sends, so that it leaves in the order of steps, and gives up the connection if the step says
    /// so. Returns the connection that is to be flushed.
    pub(super) fn queue(state: &mut State, step: &Step) -> Option<Arc<TCPConnection>> {
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

    /// Writes down what `events` settled, and how far the session is. Before what was queued is written: a message that goes
    /// out must not be taken for one of a new session later.
    fn keep(&self, events: &[Event]) {
        if self.settings.outbox.is_none() {
            return;
        }
        let mut outbox = self.outbox.lock();
        let Some(outbox) = outbox.as_mut() else { return };
        let life = self.state.lock().session.life();
        let mut kept = outbox.note(life);
        for event in events {
            if let Event::Acked { message_id } | Event::Refused { message_id, .. } = event {
                kept = kept.and_then(|()| outbox.done(message_id));
            }
        }
        if let Err(error) = kept {
            // What is done is sent once more, and counts once.
            log::warn!("cannot write the outbox: {error}");
        }
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
        Self::queue(&mut state, &step);
        drop(state);
        self.keep(&[]);
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
        for msg in batch.iter().filter_map(|frame| frame.to_message().ok()) {
            self.receive_message(conn, &msg)?;
        }
        conn.flush();
        ControlFlow::Continue(())
    }

    /// Takes in `msg` if it came on the present connection. Break when that is over.
    pub(super) fn receive_message(
        &self,
        conn: &Arc<TCPConnection>,
        msg: &Message,
    ) -> ControlFlow<()> {
        let mut state = self.state.lock();
        if !is_present(&state, conn) {
            return ControlFlow::Break(());
        }
        let was_online = state.session.is_online();
        let step = state.session.receive(msg, Instant::now());
        let turned = state.session.is_online() != was_online || step.next != Next::Stay;
        Self::queue(&mut state, &step);
        drop(state);
        let settles = |event: &Event| {
            matches!(event, Event::Acked { .. } | Event::Refused { .. } | Event::Ended { .. })
        };
        let settled = step.events.iter().any(settles);
        if settled || turned {
            self.keep(&step.events);
        }
        if settled {
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

/// Writes what was queued on `conn`.
pub(super) fn flush(conn: Option<Arc<TCPConnection>>) {
    if let Some(conn) = conn {
        conn.flush();
    }
}
