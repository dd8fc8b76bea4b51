//! One TCP connection: messages in, messages out.
//!
//! A [`TCPConnection`] is shared as an `Arc`. Any thread may send; one thread at a time receives. Sending never waits
//! for the other side ([`outgoing`](super::outgoing) says how); receiving blocks, and holds no lock while it does.
//!
//! Source: class-diagram.txt, `TCPConnection`. Its `_recv_exact` is [`recv_exact`](TCPConnection::recv_exact). `receive`
//! does not call it: with a call for the prefix and one for the body a message would cost two system calls, while
//! [`Decoder`] takes all the frames that one read brings, of either framing. Both read through the same buffer.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::batch::Batch;
use super::frames::Blocks;
use super::framing::{Decoder, Framing, SMALL_READ_BYTES};
use super::outgoing::{Outgoing, Overflow, is_timeout};
use super::transport::ConnId;
use crate::domain::Message;
use crate::domain::message::without_secrets;
use crate::error::RequestError;
use crate::threads::Threads;

/// For so many messages of one read there is room at once.
const BATCH_MAX: usize = 512;

/// Why [`TCPConnection::receive`] brings no message.
#[derive(Debug)]
pub enum ReceiveError {
    /// The connection is broken ([`ErrorKind::UnexpectedEof`] inside a frame), or nothing came within the read timeout
    /// ([`ErrorKind::TimedOut`]; nothing is lost, receive again).
    Io(io::Error),
    /// The other side sent something that is not a message. Go on unless it [closes](RequestError::closes).
    Request(RequestError),
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Request(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReceiveError {}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a connection needs to know besides its socket. One for all connections of a program.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// Longest frame that is taken in, in bytes.
    pub frame_bytes_max: usize,
    /// How much may wait for a client, in bytes; over it the client is closed with SLOW_CONSUMER.
    pub client_queue_bytes_max: usize,
    /// How much may wait for another server, in bytes; over it the link is reset.
    pub peer_queue_bytes_max: usize,
    /// The `sender_id` of a SLOW_CONSUMER error: the id of this server.
    pub sender_id: Arc<str>,
}

impl ConnectionSettings {
    /// The defaults: frames of 1 MiB, 8 MiB waiting for a client, 64 MiB for a server.
    pub fn new(sender_id: &str) -> Self {
        Self {
            frame_bytes_max: super::framing::FRAME_BYTES_MAX,
            client_queue_bytes_max: 8 * 1024 * 1024,
            peer_queue_bytes_max: 64 * 1024 * 1024,
            sender_id: sender_id.into(),
        }
    }
}

/// One TCP connection.
#[derive(Debug)]
pub struct TCPConnection {
    id: ConnId,
    socket: Arc<TcpStream>,
    peer: SocketAddr,
    /// What is sent: 0 not known yet (JSON lines until then), 1 lines, 2 length-prefixed.
    framing: AtomicU8,
    outgoing: Arc<Outgoing>,
    /// Away while a thread reads with it, so that nobody waits on this lock for the network.
    decoder: Mutex<Option<Decoder>>,
    /// Longest frame that is taken in, in bytes; the decoder is told before each use.
    frame_bytes_max: AtomicUsize,
    /// In the list of those that the manager flushes next.
    dirty: AtomicBool,
    /// In its list of those for which there is news.
    news: AtomicBool,
}

impl TCPConnection {
    /// Wraps a connected socket. `framing` is what a dialling side chooses; `None` takes on what the other side speaks.
    pub fn new(
        id: ConnId,
        socket: TcpStream,
        framing: Option<Framing>,
        settings: &ConnectionSettings,
        threads: &Threads,
    ) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        let peer = socket.peer_addr()?;
        let socket = Arc::new(socket);
        let outgoing = Outgoing::new(
            Arc::clone(&socket),
            peer,
            settings.client_queue_bytes_max,
            Arc::clone(&settings.sender_id),
            threads.clone(),
        );
        let connection = Self {
            id,
            socket,
            peer,
            framing: AtomicU8::new(0),
            outgoing: outgoing.into(),
            decoder: Mutex::new(Some(Decoder::new(settings.frame_bytes_max))),
            frame_bytes_max: AtomicUsize::new(settings.frame_bytes_max),
            dirty: AtomicBool::new(false),
            news: AtomicBool::new(false),
        };
        if let Some(framing) = framing {
            connection.choose_framing(framing);
        }
        Ok(connection)
    }

    /// The name of this connection in this process.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The socket, for options and addresses. Reading or writing it directly breaks the framing.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Who is at the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Sets how much may wait to be sent, in bytes, and what happens over it.
    pub fn set_bound(&self, bytes_max: usize, overflow: Overflow) {
        self.outgoing.set_bound(bytes_max, overflow);
    }

    /// Sends `msg`: what the socket does not take at once leaves later, in order. Never blocks.
    pub fn send(&self, msg: &Message) {
        self.queue(&msg.to_frame());
        self.flush();
    }

    /// Lets `frame` wait for the next [`flush`](Self::flush); lost when the connection is closing.
    pub fn queue(&self, frame: &[u8]) {
        if log::log_enabled!(log::Level::Trace) {
            let text = String::from_utf8_lossy(frame);
            log::trace!("{} to {}: {}", self.id, self.peer, without_secrets(&text));
        }
        self.outgoing.queue(frame, self.framing());
    }

    /// [`queue`](Self::queue) for several frames that go to others too.
    pub fn queue_block(&self, blocks: &mut Blocks) {
        if log::log_enabled!(log::Level::Trace) {
            return blocks.bodies().for_each(|frame| self.queue(frame));
        }
        let framing = self.framing();
        if !self.outgoing.queue_block(blocks.framed(framing)) {
            blocks.bodies().for_each(|frame| self.queue(frame));
        }
    }

    /// Sends what waits, as far as the socket takes it at once; a thread does the rest. Never blocks.
    pub fn flush(&self) {
        self.outgoing.flush();
    }

    /// How many bytes wait to be sent.
    pub fn waiting(&self) -> usize {
        self.outgoing.waiting()
    }

    /// Sends what waits, then closes, at the latest after
    /// [`CLOSE_FLUSH_TIMEOUT`](super::outgoing::CLOSE_FLUSH_TIMEOUT). Nothing more can be queued. Never blocks.
    pub fn close_after_flush(&self) {
        self.outgoing.close_after_flush();
    }

    /// The first half of [`close_after_flush`](Self::close_after_flush): the next [`flush`](Self::flush) closes.
    pub(super) fn stop_queueing(&self) {
        self.outgoing.stop_queueing();
    }

    /// Closes at once, both ways. A blocked reader or writer wakes up; what waits is lost.
    pub fn close(&self) {
        self.outgoing.close();
    }

    /// Whether it is closed or about to be: nothing is sent any more.
    pub fn is_closing(&self) -> bool {
        self.outgoing.is_closing()
    }

    /// How long [`receive`](Self::receive) and [`recv_exact`](Self::recv_exact) wait; `None` for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    /// Waits for the next message. `None` when the other side closed.
    pub fn receive(&self) -> Result<Option<Message>, ReceiveError> {
        self.with_decoder(|decoder| {
            loop {
                if let Some(item) = decoder.next_message() {
                    return item.map(Some).map_err(ReceiveError::Request);
                }
                if !self.fill(decoder)? {
                    return match decoder.buffered() {
                        0 => Ok(None),
                        _ => Err(ReceiveError::Io(ErrorKind::UnexpectedEof.into())),
                    };
                }
            }
        })?
    }

    /// Waits until at least one frame is whole and gives all the frames that are. Empty when the other side closed.
    pub fn receive_batch(&self) -> io::Result<Batch> {
        self.with_decoder(|decoder| {
            let mut batch = Batch::default();
            loop {
                let before = decoder.buffered();
                if decoder.next_into(&mut batch) {
                    let rest = decoder.buffered();
                    // The others are about as long. A list that grows was the dearest of all that is allocated.
                    let others = rest / (before - rest).max(1);
                    batch.reserve(others.min(BATCH_MAX), rest);
                    while decoder.next_into(&mut batch) {}
                    return Ok(batch);
                }
                if !self.fill(decoder)? {
                    return Ok(batch);
                }
            }
        })?
    }

    /// Waits for exactly `size` bytes and takes them past the framing. When fewer come, none is lost.
    pub fn recv_exact(&self, size: usize) -> io::Result<Vec<u8>> {
        self.with_decoder(|decoder| {
            loop {
                if let Some(bytes) = decoder.take_raw(size) {
                    return Ok(bytes);
                }
                if !self.fill(decoder)? {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
        })?
    }

    /// [`close_after_flush`](Self::close_after_flush) that waits until it is done. Meanwhile it reads and forgets what
    /// comes, so that the kernel does not answer unread bytes with a reset.
    pub(super) fn finish(&self) {
        self.close_after_flush();
        let mut scrap = [0; 4096];
        loop {
            match (&*self.socket).read(&mut scrap) {
                Ok(0) => break,
                Err(error) if error.kind() != ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        self.reader_ended();
        self.outgoing.wait_closed();
    }

    /// Says that nothing more can come: nobody has to wait for the other side when this one is closed.
    fn reader_ended(&self) {
        self.outgoing.reader_ended();
    }

    /// Lets a reader go on that waits in [`wait_resumed`](Self::wait_resumed), or is about to.
    pub fn resume(&self) {
        self.outgoing.resume();
    }

    /// Waits for [`resume`](Self::resume); closing the connection resumes too, and whoever stops the program closes it.
    ///
    /// A resume from earlier counts, so whoever waits looks again whether it may go on.
    pub fn wait_resumed(&self) {
        self.outgoing.wait_resumed();
    }

    /// Notes that the manager is to flush it. True when that is news.
    pub(super) fn mark_dirty(&self) -> bool {
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// Notes that the manager flushes it now. Must come before the flush: what is queued after this marks it again.
    pub(super) fn unmark_dirty(&self) {
        self.dirty.swap(false, Ordering::AcqRel);
    }

    /// [`mark_dirty`](Self::mark_dirty) for news.
    pub(super) fn mark_news(&self) -> bool {
        !self.news.swap(true, Ordering::AcqRel)
    }

    /// [`unmark_dirty`](Self::unmark_dirty) for news.
    pub(super) fn unmark_news(&self) {
        self.news.store(false, Ordering::Release);
    }

    fn framing(&self) -> Framing {
        match self.framing.load(Ordering::Relaxed) {
            2 => Framing::LengthPrefixed,
            _ => Framing::Lines,
        }
    }

    /// The first choice stands.
    fn choose_framing(&self, framing: Framing) {
        let number = match framing {
            Framing::Lines => 1,
            Framing::LengthPrefixed => 2,
        };
        let _ = self.framing.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Changes the longest frame that is taken in, from the next read on.
    pub fn set_frame_bytes_max(&self, bytes_max: usize) {
        self.frame_bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Takes the decoder away for the time of `body`. Fails when another thread has it.
    fn with_decoder<T>(&self, body: impl FnOnce(&mut Decoder) -> T) -> io::Result<T> {
        let taken = self.decoder.lock().take();
        let mut decoder =
            taken.ok_or_else(|| io::Error::other("another thread reads from this connection"))?;
        decoder.set_bytes_max(self.frame_bytes_max.load(Ordering::Relaxed));
        let result = body(&mut decoder);
        *self.decoder.lock() = Some(decoder);
        Ok(result)
    }

    /// Reads once. False at the end of the stream.
    fn fill(&self, decoder: &mut Decoder) -> io::Result<bool> {
        // A connection that waits for its next frame needs no buffer: this one is on a part of the stack that taking
        // the last frame has touched anyhow. It saves 1 KiB each.
        let mut small = [0; SMALL_READ_BYTES];
        let is_at_rest = decoder.is_at_rest();
        loop {
            let space = if is_at_rest { &mut small[..] } else { decoder.space() };
            match (&*self.socket).read(space) {
                Ok(0) => {
                    self.reader_ended();
                    return Ok(false);
                }
                Ok(count) if is_at_rest => {
                    decoder.push(&small[..count]);
                    break;
                }
                Ok(count) => {
                    decoder.filled(count);
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(ErrorKind::TimedOut.into()),
                Err(error) => {
                    self.reader_ended();
                    return Err(error);
                }
            }
        }
        // Before any frame is handed out: its answer must be framed like it.
        if self.framing.load(Ordering::Relaxed) == 0
            && let Some(framing) = decoder.sniff()
        {
            self.choose_framing(framing);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
