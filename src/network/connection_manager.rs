//! All connections of one program, and the way from a name to one of them.
//!
//! ```text
//!    step under the node's lock          after the lock is gone
//!    ───────────────────────────         ──────────────────────────────
//!    send_to_node, send_to_conn, …  ──▶  flush(): one write per connection
//!    dial                           ──▶  take_dials()
//!    send_udp                       ──▶  take_datagrams()
//! ```
//!
//! As [`Transport`] and [`Network`] it only queues: it takes leaf locks for a moment, never blocks and never calls back. The
//! thread that stepped does the rest after it unlocked the node, once for everything that the step sent.
//!
//! Source: class-diagram.txt, `ConnectionManager`. Servers and clients use the same one.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::flusher::Flusher;
use super::frames::{Blocks, Frames};
use super::framing::Framing;
use super::outgoing::Overflow;
use super::tcp_connection::{ConnectionSettings, TCPConnection};
use super::transport::{ConnId, Network, Transport};
use crate::domain::{Frame, Message, NodeId};
use crate::threads::Threads;

/// How long dialling one address may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Between servers a frame may be this many times as long as a client's: it carries a message with its stamp, or
/// a batch of them.
const PEER_FRAMES: usize = 8;

/// And at least so long, in bytes: what servers gather into one frame does not know how long a client's may be.
const PEER_FRAME_BYTES_LEAST: usize = 8 * 1024 * 1024;

/// So many frames of news go out at once between two calls of [`ConnectionManager::flush_news`]. When more people than
/// that come and go, each member of their rooms is told once for all of them: ten thousand that join rooms of fifty would
/// take a quarter of a million writes.
const PROMPT_NEWS: usize = 250;

/// News that is kept back.
#[derive(Debug, Default)]
struct News {
    /// How much news there was since the last flush of it, in frames.
    prompt: usize,
    /// Who is to be told the rest, each once.
    waiting: Vec<Arc<TCPConnection>>,
}

/// All connections of one program.
#[derive(Debug)]
pub struct ConnectionManager {
    settings: ConnectionSettings,
    pub(super) threads: Threads,
    next_id: AtomicU64,
    /// Every connection until its reader has ended. Under this lock are locked, in this order, the flusher's list and the
    /// queue of a connection. The locks below are leaves: nothing else is locked under them.
    connections: Mutex<BTreeMap<ConnId, Arc<TCPConnection>>>,
    pub(crate) active_connections_peer_to_peer: Mutex<BTreeMap<NodeId, Arc<TCPConnection>>>,
    pub(crate) active_connections_server_to_client: Mutex<BTreeMap<String, Arc<TCPConnection>>>,
    /// Under which name a connection is in one of the two maps above.
    bindings: Mutex<BTreeMap<ConnId, Binding>>,
    /// Those with something to flush.
    flusher: Arc<Flusher>,
    /// Those with nothing but news to flush, and the next [`flush_news`](Self::flush_news) is soon enough.
    news: Mutex<News>,
    dials: Mutex<Vec<String>>,
    datagrams: Mutex<Vec<Datagram>>,
}

/// A message to send over UDP; to everyone on the discovery port when the address is `None`.
pub type Datagram = (Message, Option<SocketAddr>);

#[derive(Debug)]
enum Binding {
    Peer(NodeId),
    Client(String),
}

impl ConnectionManager {
    /// No connections yet. Their threads will be among `threads`.
    pub fn new(settings: ConnectionSettings, threads: Threads) -> Self {
        Self {
            settings,
            flusher: Flusher::new(threads.clone()),
            threads,
            next_id: AtomicU64::new(1),
            connections: Mutex::default(),
            active_connections_peer_to_peer: Mutex::default(),
            active_connections_server_to_client: Mutex::default(),
            bindings: Mutex::default(),
            news: Mutex::default(),
            dials: Mutex::default(),
            datagrams: Mutex::default(),
        }
    }

    /// Dials `ip` (an address or a name), waiting [`CONNECT_TIMEOUT`] for each address that it stands for. What is
    /// sent on the connection is length-prefixed. Blocks.
    pub fn connect_to(&self, ip: &str, port: u16) -> io::Result<Arc<TCPConnection>> {
        self.connect_to_any((ip, port).to_socket_addrs()?)
    }

    /// [`connect_to`](Self::connect_to) for an address in one piece, `host:port`.
    pub fn connect_to_address(&self, address: &str) -> io::Result<Arc<TCPConnection>> {
        self.connect_to_any(address.to_socket_addrs()?)
    }

    fn connect_to_any(
        &self,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> io::Result<Arc<TCPConnection>> {
        let mut last_error = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match dial(address) {
                Ok(socket) => return self.register(socket, Some(Framing::LengthPrefixed)),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// Makes a connection of an accepted socket. It speaks the framing of its first byte. Fails when the other side
    /// is gone already.
    pub fn wrap_socket(&self, socket: TcpStream) -> io::Result<Arc<TCPConnection>> {
        self.register(socket, None)
    }

    /// Drops what is known of a connection. [`read_connection`](Self::read_connection) does it at its end.
    pub fn forget(&self, conn: ConnId) {
        self.connections.lock().remove(&conn);
        self.unbind(conn);
    }

    /// The connection `conn`, while it is not forgotten.
    pub fn connection(&self, conn: ConnId) -> Option<Arc<TCPConnection>> {
        self.connections.lock().get(&conn).cloned()
    }

    /// The connection to `node_id`, if one is bound.
    pub fn peer(&self, node_id: &NodeId) -> Option<Arc<TCPConnection>> {
        self.active_connections_peer_to_peer.lock().get(node_id).cloned()
    }

    /// The connection of the session `session`, if one is bound.
    pub fn client(&self, session: &str) -> Option<Arc<TCPConnection>> {
        self.active_connections_server_to_client.lock().get(session).cloned()
    }

    /// How many connections there are, bound or not.
    pub fn count(&self) -> usize {
        self.connections.lock().len()
    }

    /// Sees to it that what was queued is written: one write per connection, by this thread or by one that is at it and
    /// goes on with this. Never blocks.
    pub fn flush(&self) {
        self.flusher.flush();
    }

    /// Writes the news that was kept back. To be called many times a second; each call lets [`PROMPT_NEWS`] frames of the
    /// time that follows go out at once.
    pub fn flush_news(&self) {
        let kept = std::mem::take(&mut *self.news.lock());
        for conn in kept.waiting {
            conn.unmark_news();
            conn.flush();
        }
    }

    /// Takes the addresses (`host:port`) that are to be dialled.
    pub fn take_dials(&self) -> Vec<String> {
        std::mem::take(&mut self.dials.lock())
    }

    /// Takes the messages that are to be sent over UDP.
    pub fn take_datagrams(&self) -> Vec<Datagram> {
        std::mem::take(&mut self.datagrams.lock())
    }

    /// For shutdown: sends what can be sent at once and closes every connection. Call it after the stop signal: what is
    /// registered later closes itself.
    pub fn close_all(&self) {
        let connections: Vec<_> = self.connections.lock().values().cloned().collect();
        for conn in connections {
            conn.flush();
            conn.close();
        }
    }

    fn register(
        &self,
        socket: TcpStream,
        framing: Option<Framing>,
    ) -> io::Result<Arc<TCPConnection>> {
        let id = ConnId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let conn = TCPConnection::new(id, socket, framing, &self.settings, &self.threads)?;
        let conn = Arc::new(conn);
        self.connections.lock().insert(id, Arc::clone(&conn));
        // `close_all` may have looked before the insertion; then the signal was given before this look.
        if self.threads.is_stopped() {
            conn.close();
            self.forget(id);
            return Err(io::Error::new(ErrorKind::ConnectionAborted, "this program is stopping"));
        }
        Ok(conn)
    }

    fn queue(&self, conn: &Arc<TCPConnection>, frame: &[u8]) {
        conn.queue(frame);
        self.flusher.mark(conn);
    }

    /// Closes `conn` with the next flush. Its name is free at once.
    fn close_later(&self, conn: &Arc<TCPConnection>) {
        self.unbind(conn.id());
        conn.stop_queueing();
        self.flusher.mark(conn);
    }

    /// Takes `conn` out of the map that it is bound in, unless another connection has its place by now.
    pub(super) fn unbind(&self, conn: ConnId) {
        let binding = self.bindings.lock().remove(&conn);
        match binding {
            Some(Binding::Peer(node_id)) => {
                remove_if(&mut self.active_connections_peer_to_peer.lock(), &node_id, conn);
            }
            Some(Binding::Client(session)) => {
                remove_if(&mut self.active_connections_server_to_client.lock(), &session, conn);
            }
            None => {}
        }
    }

    /// What follows a binding: the former connection is closed, and a reader that ended meanwhile is not left behind.
    fn after_bind(&self, conn: &Arc<TCPConnection>, former: Option<Arc<TCPConnection>>) {
        if let Some(former) = former.filter(|former| former.id() != conn.id()) {
            self.close_later(&former);
        }
        if conn.is_closing() || self.connection(conn.id()).is_none() {
            self.unbind(conn.id());
        }
    }
}

impl Transport for ConnectionManager {
    fn send_to_node(&self, node_id: &NodeId, msg: &Message) {
        if let Some(conn) = self.peer(node_id) {
            self.queue(&conn, &msg.to_frame());
        }
    }

    fn send_frame_to_node(&self, node_id: &NodeId, frame: &Frame) {
        if let Some(conn) = self.peer(node_id) {
            self.queue(&conn, frame);
        }
    }

    fn broadcast_to_all(&self, msg: &Message) {
        let peers: Vec<_> = self.active_connections_peer_to_peer.lock().values().cloned().collect();
        let frame = msg.to_frame();
        for conn in peers {
            self.queue(&conn, &frame);
        }
    }
}

impl Network for ConnectionManager {
    fn send_to_conn(&self, conn: ConnId, frame: &Frame) {
        if let Some(conn) = self.connection(conn) {
            self.queue(&conn, frame);
        }
    }

    fn send_to_conns(&self, conns: &[ConnId], frames: Frames) {
        if frames.is_empty() {
            return;
        }
        if let ([conn], 1) = (conns, frames.len()) {
            // Into the buffer of the connection: nobody shares it.
            if let Some(conn) = self.connection(*conn) {
                frames.iter().for_each(|frame| self.queue(&conn, frame));
            }
            return;
        }
        let mut blocks = Blocks::of(frames);
        let connections = self.connections.lock();
        let found = conns.iter().filter_map(|id| connections.get(id));
        // Each is marked after its bytes are queued, or they could be left when it is flushed in between.
        self.flusher.mark_all(found.inspect(|conn| conn.queue_block(&mut blocks)));
    }

    fn send_news(&self, conns: &[ConnId], frame: &Frame) {
        let found: Vec<_> = {
            let connections = self.connections.lock();
            conns.iter().filter_map(|id| connections.get(id).cloned()).collect()
        };
        let is_prompt = {
            let mut news = self.news.lock();
            news.prompt += found.len();
            news.prompt <= PROMPT_NEWS
        };
        for conn in &found {
            conn.queue(frame);
            if is_prompt {
                self.flusher.mark(conn);
            }
        }
        if !is_prompt {
            // After it is queued: whoever takes the mark away flushes then.
            let marked = found.into_iter().filter(|conn| conn.mark_news());
            self.news.lock().waiting.extend(marked);
        }
    }

    fn spare_bytes(&self, conn: ConnId) -> usize {
        let waiting = self.connection(conn).map_or(usize::MAX, |conn| conn.waiting());
        (self.settings.client_queue_bytes_max / 4).saturating_sub(waiting)
    }

    fn close(&self, conn: ConnId) {
        if let Some(conn) = self.connection(conn) {
            self.close_later(&conn);
        }
    }

    fn resume(&self, conn: ConnId) {
        if let Some(conn) = self.connection(conn) {
            conn.resume();
        }
    }

    fn bind_peer(&self, conn: ConnId, node_id: &NodeId) {
        let Some(conn) = self.connection(conn) else { return };
        self.unbind(conn.id());
        conn.set_bound(self.settings.peer_queue_bytes_max, Overflow::Reset);
        let bytes_max = self.settings.frame_bytes_max.saturating_mul(PEER_FRAMES);
        conn.set_frame_bytes_max(bytes_max.max(PEER_FRAME_BYTES_LEAST));
        self.bindings.lock().insert(conn.id(), Binding::Peer(node_id.clone()));
        let former =
            self.active_connections_peer_to_peer.lock().insert(node_id.clone(), Arc::clone(&conn));
        self.after_bind(&conn, former);
    }

    fn bind_client(&self, conn: ConnId, session: &str) {
        let Some(conn) = self.connection(conn) else { return };
        self.unbind(conn.id());
        self.bindings.lock().insert(conn.id(), Binding::Client(session.into()));
        let former = self
            .active_connections_server_to_client
            .lock()
            .insert(session.into(), Arc::clone(&conn));
        self.after_bind(&conn, former);
    }

    fn dial(&self, address: &str) {
        self.dials.lock().push(address.into());
    }

    fn send_udp(&self, msg: &Message, to: Option<SocketAddr>) {
        self.datagrams.lock().push((msg.clone(), to));
    }
}

/// Connects to `address`.
fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    // Dialling a free port of one's own machine can, rarely, end at oneself: the system had chosen that very port for
    // the calling side.
    if socket.local_addr()? == socket.peer_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}

fn remove_if<K: Ord>(map: &mut BTreeMap<K, Arc<TCPConnection>>, key: &K, conn: ConnId) {
    if map.get(key).is_some_and(|bound| bound.id() == conn) {
        map.remove(key);
    }
}

#[cfg(test)]
mod tests;
