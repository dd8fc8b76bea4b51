//! The bytes that wait to be sent to one connection.
//!
//! ```text
//!    a thread that steps ── queue ──▶ [frame][frame][frame] ◀── flush: send what the socket takes at once
//!      (never blocks)                         │
//!                                             └──▶ writer-<peer>: the rest, with blocking writes;
//!                                                  started when needed, ends when nothing waits
//! ```
//!
//! What waits is a [`SendQueue`]: a message for many connections is in memory once.
//!
//! Promise: frames leave whole and in the order of [`Outgoing::queue`], and queueing never blocks. A thread may write
//! only while no older byte waits for the writer thread, or later bytes would overtake earlier ones.
//!
//! Price: what waits is bounded. Over the bound a link to a server is reset, which the anti-entropy between servers
//! repairs; a client gets ERROR `SLOW_CONSUMER` after the frames that are partly on their way, and is closed.
//!
//! Closing after the last byte is done in two steps: first only the sending half is shut, then both, when the reader
//! has seen the other side close or after [`LINGER`]. Shutting both at once could make the kernel answer a client that
//! is still writing with a reset, which would swallow the ERROR that explains the closing.

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock: closing has a deadline")]

use std::io::{self, ErrorKind, IoSlice, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use parking_lot::{Condvar, Mutex, MutexGuard};
use socket2::SockRef;

use super::frames::Block;
use super::framing::Framing;
use super::send_queue::{SLICES_MAX, SendQueue};
use crate::error::RequestError;
use crate::threads::Threads;

/// How long a connection that is being closed may take to accept what waits for it.
pub const CLOSE_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the other side gets to close its half after ours.
pub const LINGER: Duration = Duration::from_secs(1);

/// How often a blocked writer thread looks whether it should give up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The writer thread takes whole frames of about so many bytes at a time. What it holds can no longer be cut.
const CHUNK_BYTES: usize = 64 * 1024;

/// The flag of `send` for trying without waiting. Each call asks for itself; `set_nonblocking` would reach the reader too.
const MSG_DONTWAIT: i32 =
    if cfg!(any(target_os = "linux", target_os = "android")) { 0x40 } else { 0x80 };

/// What happens when more waits than may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// A client: drop what has not begun to leave, say SLOW_CONSUMER, close.
    SlowConsumer,
    /// A server: close at once. What is lost is repaired when the link is back.
    Reset,
}

/// What the writer thread does next.
enum Next {
    /// Write what it took.
    Write,
    /// All is sent, and the connection is to be closed.
    Close,
    /// All is sent. The next byte that cannot leave at once starts another writer.
    Rest,
}

/// The sending half of one connection.
#[derive(Debug)]
pub struct Outgoing {
    socket: Arc<TcpStream>,
    peer: SocketAddr,
    /// Starts the writer.
    threads: Threads,
    /// Who says SLOW_CONSUMER.
    sender_id: Arc<str>,
    /// Whether [`resume`](Self::resume) was called since somebody last waited for that. A leaf.
    resumed: Mutex<bool>,
    /// Signalled with `resumed`.
    resumes: Condvar,
    /// Held while bytes are sent without blocking, which takes long enough that nobody who queues should wait for it.
    /// `state` is locked under it.
    sending: Mutex<()>,
    /// A leaf: nothing else is locked, and nothing blocks, under it.
    state: Mutex<State>,
    /// Signalled when the reader has ended or the socket is shut, for a writer that lingers.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    queue: SendQueue,
    /// How many bytes the writer thread holds, or whoever sends without blocking; `None` when nobody writes. Nobody else
    /// may write while there is one.
    in_hand: Option<usize>,
    /// What had not begun to leave is to be dropped, also of what one who does not block has in hand.
    is_cut: bool,
    bytes_max: usize,
    overflow: Overflow,
    /// Nothing more is queued; give up at this time.
    closing: Option<Instant>,
    /// Shut down both ways.
    closed: bool,
    /// Nobody reads from the socket any more.
    reader_ended: bool,
}

impl Outgoing {
    /// Nothing waits yet. `bytes_max` bounds what may, `sender_id` signs the ERROR of a slow client.
    pub fn new(
        socket: Arc<TcpStream>,
        peer: SocketAddr,
        bytes_max: usize,
        sender_id: Arc<str>,
        threads: Threads,
    ) -> Self {
        let state = State {
            queue: SendQueue::default(),
            in_hand: None,
            is_cut: false,
            bytes_max,
            overflow: Overflow::SlowConsumer,
            closing: None,
            closed: false,
            reader_ended: false,
        };
        let (sending, state) = (Mutex::default(), Mutex::new(state));
        let (changed, resumed, resumes) = (Condvar::new(), Mutex::new(false), Condvar::new());
        Self { socket, peer, threads, sender_id, resumed, resumes, sending, state, changed }
    }

    /// Sets how much may wait, in bytes, and what happens over it.
    pub fn set_bound(&self, bytes_max: usize, overflow: Overflow) {
        let mut state = self.state.lock();
        (state.bytes_max, state.overflow) = (bytes_max, overflow);
    }

    /// Lets `frame` wait for the next [`flush`](Self::flush). Lost when the connection is closing.
    pub fn queue(&self, frame: &[u8], framing: Framing) {
        let mut state = self.state.lock();
        if state.is_closing() {
            return;
        }
        let bytes = framing.framed_bytes(frame.len());
        if state.waiting() + bytes > state.bytes_max {
            // Perhaps nobody has tried yet: a step can queue a lot at once. An error shows again in `flush`.
            drop(state);
            let _sending = self.sending.lock();
            state = self.state.lock();
            let _ = self.send_now(&mut state);
            if state.is_closing() {
                return;
            }
        }
        if state.waiting() + bytes <= state.bytes_max {
            state.queue.push(frame, framing);
            return;
        }
        let bytes_max = state.bytes_max;
        if state.overflow == Overflow::SlowConsumer {
            state.queue.cut();
            state.is_cut = true;
            let error = RequestError::SlowConsumer { bytes_max };
            state.queue.push(&error.to_message(&self.sender_id).to_frame(), framing);
            state.closing = Some(Instant::now() + CLOSE_FLUSH_TIMEOUT);
            drop(state);
            self.resume();
            info!("{} reads too slowly: more than {bytes_max} bytes wait; closing it", self.peer);
        } else {
            drop(state);
            warn!("resetting the link to {}: more than {bytes_max} bytes wait", self.peer);
            self.close();
        }
    }

    /// Lets all frames of `block` wait for the next [`flush`](Self::flush); lost when the connection is closing. False, and
    /// nothing was done, when they do not fit: then [`queue`](Self::queue) says which does not.
    pub fn queue_block(&self, block: &Arc<Block>) -> bool {
        let mut state = self.state.lock();
        if state.is_closing() {
            return true;
        }
        let fits = state.waiting() + block.bytes.len() <= state.bytes_max;
        if fits {
            state.queue.push_block(block);
        }
        fits
    }

    /// Sends what the socket takes at once and leaves the rest to the writer thread. Never blocks.
    pub fn flush(self: &Arc<Self>) {
        let sending = self.sending.lock();
        let mut state = self.state.lock();
        if state.in_hand.is_some() || state.closed {
            return;
        }
        let mut result = self.send_now(&mut state);
        while matches!(result, Ok(true)) && state.closing.is_some() && state.queue.bytes() > 0 {
            // Queued meanwhile, and the last there is.
            result = self.send_now(&mut state);
        }
        drop(sending);
        if state.closed {
            return;
        }
        match result {
            Ok(true) if state.closing.is_none() => return,
            Ok(true) if state.reader_ended => {
                drop(state);
                self.close();
                return;
            }
            Ok(_) => state.in_hand = Some(0),
            Err(error) => {
                drop(state);
                debug!("cannot send to {}: {error}", self.peer);
                self.close();
                return;
            }
        }
        drop(state);
        let writer = Arc::clone(self);
        let name = format!("writer-{}", self.peer);
        if let Err(error) = self.threads.spawn(&name, move || writer.write_rest()) {
            warn!("closing {}: cannot start a thread for what waits for it: {error}", self.peer);
            self.close();
        }
    }

    /// Queues nothing more, sends what waits, then closes; at the latest after [`CLOSE_FLUSH_TIMEOUT`].
    pub fn close_after_flush(self: &Arc<Self>) {
        self.stop_queueing();
        self.flush();
    }

    /// Queues nothing more; the next [`flush`](Self::flush) closes when all is sent.
    pub fn stop_queueing(&self) {
        let deadline = Instant::now() + CLOSE_FLUSH_TIMEOUT;
        self.state.lock().closing.get_or_insert(deadline);
        self.resume();
    }

    /// Shuts the socket down both ways, now. Readers and writers of it wake up.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.in_hand = None;
        state.queue.clear();
        drop(state);
        self.changed.notify_all();
        self.resume();
        // An error means that it is down already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Whether nothing more is sent: it is closing, or closed.
    pub fn is_closing(&self) -> bool {
        self.state.lock().is_closing()
    }

    /// Says that nobody reads from the socket any more: nothing is to be waited for when it is closed.
    pub fn reader_ended(&self) {
        self.state.lock().reader_ended = true;
        self.changed.notify_all();
    }

    /// Waits until the socket is shut both ways. Bounded by the two timeouts above once closing began.
    pub fn wait_closed(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            self.changed.wait(&mut state);
        }
    }

    /// Lets whoever waits in [`wait_resumed`](Self::wait_resumed), or is about to, go on. Closing does so too.
    pub fn resume(&self) {
        *self.resumed.lock() = true;
        self.resumes.notify_all();
    }

    /// Waits for [`resume`](Self::resume); one from earlier counts.
    pub fn wait_resumed(&self) {
        let mut resumed = self.resumed.lock();
        while !mem::take(&mut *resumed) {
            self.resumes.wait(&mut resumed);
        }
    }

    /// How many bytes wait, those included that the writer thread holds.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting()
    }

    /// Sends without blocking unless older bytes wait for the writer thread; true when all is sent that was queued before.
    /// Whoever calls holds `sending`. Meanwhile others can queue.
    fn send_now(&self, state: &mut MutexGuard<'_, State>) -> io::Result<bool> {
        if state.in_hand.is_some() {
            return Ok(false);
        }
        let mut queue = mem::take(&mut state.queue);
        (state.in_hand, state.is_cut) = (Some(queue.bytes()), false);
        let result = MutexGuard::unlocked(state, || send_queue(&self.socket, &mut queue));
        state.in_hand = None;
        if state.closed {
            return result;
        }
        if state.is_cut {
            queue.cut();
        }
        let later = mem::replace(&mut state.queue, queue);
        if later.bytes() > 0 {
            state.queue.append(later);
        }
        result
    }

    /// The writer thread.
    fn write_rest(&self) {
        if let Err(error) = self.try_write_rest() {
            debug!("cannot send to {}: {error}", self.peer);
            self.close();
        }
    }

    fn try_write_rest(&self) -> io::Result<()> {
        // Seen by blocking writes only; without it a blocked one would not notice the deadline.
        self.socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let mut chunk = Vec::new();
        loop {
            match self.next_chunk(&mut chunk) {
                Next::Write => self.write_chunk(&chunk)?,
                Next::Close => break self.linger(),
                Next::Rest => break,
            }
        }
        Ok(())
    }

    /// Moves the next whole frames into `chunk`, and decides in the same breath what to do when there are none:
    /// whoever flushes after that finds `in_hand` as it is then.
    fn next_chunk(&self, chunk: &mut Vec<u8>) -> Next {
        let mut state = self.state.lock();
        chunk.clear();
        state.in_hand = Some(0);
        if !state.closed && state.queue.bytes() > 0 {
            state.queue.take_frames(chunk, CHUNK_BYTES);
            state.in_hand = Some(chunk.len());
            return Next::Write;
        }
        if state.closing.is_some() {
            return Next::Close;
        }
        state.in_hand = None;
        Next::Rest
    }

    fn write_chunk(&self, mut chunk: &[u8]) -> io::Result<()> {
        while !chunk.is_empty() {
            match (&*self.socket).write(chunk) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => chunk = &chunk[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
            let state = self.state.lock();
            let overdue = state.closing.is_some_and(|deadline| Instant::now() >= deadline);
            if state.closed || (overdue && !chunk.is_empty()) {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Shuts our half, gives the other side a moment to shut its own, then closes.
    fn linger(&self) {
        let _ = self.socket.shutdown(Shutdown::Write);
        let deadline = Instant::now() + LINGER;
        let mut state = self.state.lock();
        while !state.reader_ended && !state.closed {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        drop(state);
        self.close();
    }
}

impl State {
    fn is_closing(&self) -> bool {
        self.closing.is_some() || self.closed
    }

    fn waiting(&self) -> usize {
        self.queue.bytes() + self.in_hand.unwrap_or(0)
    }
}

/// Sends what `socket` takes at once. True when nothing is left.
fn send_queue(socket: &TcpStream, queue: &mut SendQueue) -> io::Result<bool> {
    while queue.bytes() > 0 {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = queue.slices(&mut slices);
        let socket = SockRef::from(socket);
        match socket.send_vectored_with_flags(&slices[..count], MSG_DONTWAIT) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => queue.advance(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                queue.compact();
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Whether a blocking call gave up waiting; which kind that is differs between systems.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests;
