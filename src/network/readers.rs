//! The threads that read connections.
//!
//! ```text
//!   accepted ──▶ reader-<peer>: CLIENT_JOIN, JOIN_ROOM ‥ at rest for 200 ms ──▶ reader-<peer>, a fresh one: until the end
//!                  12 KiB of stack, 6 KiB kept for it by the allocator            8 KiB of stack
//! ```

use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use log::{Level, debug, log_enabled, trace};
use parking_lot::Mutex;

use super::batch::Batch;
use super::connection_manager::ConnectionManager;
use super::tcp_connection::TCPConnection;
use crate::domain::Message;
use crate::domain::message::without_secrets;

/// A connection on which nothing came for so long is at rest. Longer than a client takes between two requests of its join.
const REST: Duration = Duration::from_millis(200);

/// What a reader thread calls.
type Callback = Box<dyn FnMut(Received) -> ControlFlow<()> + Send>;

/// What a reader thread tells its callback.
#[derive(Debug)]
pub enum Received {
    /// All frames that one read completed, in order; never empty. After an error that
    /// [closes](crate::error::RequestError::closes), always the last item, the connection is closed: queue the reply now.
    Batch(Batch),
    /// The last call: nothing more will come, and nothing can be sent.
    Closed {
        /// Why, in words for the log.
        reason: String,
    },
}

impl ConnectionManager {
    /// Starts a thread `reader-<peer>` that does [`read_connection`](Self::read_connection). Fails, and closes the
    /// connection, when the system has no room for another thread; `callback` is not called then.
    ///
    /// When the connection first comes to [rest](REST), another thread of that name goes on and the first one ends. With it goes what
    /// greeting a client takes and reading does not: a page of stack, and what the allocator keeps for the thread. Of ten thousand
    /// idle connections that saves a quarter of the memory: 18 KiB each in place of 24.
    pub fn listen_to_connection(
        self: &Arc<Self>,
        conn: &Arc<TCPConnection>,
        callback: impl FnMut(Received) -> ControlFlow<()> + Send + 'static,
    ) -> io::Result<()> {
        // Without it the first thread stays, that is all.
        let _ = conn.set_read_timeout(Some(REST));
        self.start_reader(conn, Box::new(callback)).map_err(|(error, _)| {
            conn.close();
            self.forget(conn.id());
            error
        })
    }

    /// Gives `callback` back when there is no room for another thread.
    fn start_reader(
        self: &Arc<Self>,
        conn: &Arc<TCPConnection>,
        callback: Callback,
    ) -> Result<(), (io::Error, Option<Callback>)> {
        let callback = Arc::new(Mutex::new(Some(callback)));
        let (manager, reader, handed) = (Arc::clone(self), Arc::clone(conn), Arc::clone(&callback));
        let body = move || {
            let callback = handed.lock().take();
            if let Some(callback) = callback {
                manager.read_until_rest(&reader, callback);
            }
        };
        let started = self.threads.spawn(&format!("reader-{}", conn.peer()), body);
        started.map_err(|error| (error, callback.lock().take()))
    }

    /// [`read_connection`](Self::read_connection) that leaves the connection to another thread when it comes to rest.
    fn read_until_rest(self: &Arc<Self>, conn: &Arc<TCPConnection>, mut callback: Callback) {
        if let Some(reason) = read_until_end(conn, &mut callback) {
            return self.ended(conn, reason, callback);
        }
        let _ = conn.set_read_timeout(None);
        if let Err((_, Some(callback))) = self.start_reader(conn, callback) {
            self.read_connection(conn, callback);
        }
    }

    /// Reads `conn` on this thread until it ends, the callback breaks off, or something comes that cannot be
    /// understood. Then it is unbound, the callback is told [`Received::Closed`], what is queued is sent, and it is closed and
    /// forgotten.
    pub fn read_connection(
        &self,
        conn: &Arc<TCPConnection>,
        mut callback: impl FnMut(Received) -> ControlFlow<()>,
    ) {
        let reason = loop {
            if let Some(reason) = read_until_end(conn, &mut callback) {
                break reason;
            }
        };
        self.ended(conn, reason, callback);
    }

    fn ended(
        &self,
        conn: &Arc<TCPConnection>,
        reason: String,
        mut callback: impl FnMut(Received) -> ControlFlow<()>,
    ) {
        self.unbind(conn.id());
        debug!("{} ({}) ends: {reason}", conn.id(), conn.peer());
        let _ = callback(Received::Closed { reason });
        conn.finish();
        self.forget(conn.id());
    }
}

/// Hands batches to `callback` until the connection ends, and says why it did. `None` when nothing came within the read
/// timeout.
fn read_until_end(
    conn: &TCPConnection,
    callback: &mut impl FnMut(Received) -> ControlFlow<()>,
) -> Option<String> {
    loop {
        let received = conn.receive_batch();
        if conn.is_closing() {
            // Whoever closed it has done with it; what came last is nobody's.
            return Some("closed by this side".into());
        }
        let batch = match received {
            Ok(batch) if batch.is_empty() => return Some("closed by the other side".into()),
            Ok(batch) => batch,
            Err(error) if error.kind() == ErrorKind::TimedOut => return None,
            Err(error) => return Some(error.to_string()),
        };
        let fault = batch.closing_fault().map(ToString::to_string);
        trace_batch(conn, &batch);
        let flow = callback(Received::Batch(batch));
        if fault.is_some() {
            return fault;
        }
        if flow.is_break() {
            return Some("closed by this side".into());
        }
    }
}

fn trace_batch(conn: &TCPConnection, batch: &Batch) {
    if log_enabled!(Level::Trace) {
        for frame in batch.iter() {
            let msg = frame.to_message();
            let text = msg.as_ref().map_or_else(ToString::to_string, Message::serialize);
            trace!("{} from {}: {}", conn.id(), conn.peer(), without_secrets(&text));
        }
    }
}
