//! A network between servers that can be cut while they run.
//!
//! ```text
//!   n1 ── dials ──▶ [front of n2] ──▶ n2        n2 advertises the front, so everyone dials that
//!                    reads the HELLO, so it knows that n1 is at the other end
//! ```
//!
//! A cut direction is a black hole: what is sent there is neither delivered nor refused, ends of connections
//! included; a new connection needs both directions. On healing the connections that were cut go on where they
//! stopped, or they are reset. Clients are never cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use roundtable::domain::content::Hello;
use roundtable::domain::{Message, MessageType};

use super::cluster::Cluster;

/// The longest first frame that is taken for a HELLO.
const HELLO_BYTES_MAX: u32 = 1 << 20;
/// How long a front waits for the server behind it to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How much is passed on at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What becomes of the connections that a cut stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Healing {
    /// They go on: what waited arrives late.
    GoOn,
    /// They are closed: what waited is lost.
    Reset,
}

/// The fronts of some servers, by index from 0, and what is cut between them.
pub(crate) struct Proxies {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something was healed, or broken.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where the server behind each front listens.
    targets: BTreeMap<usize, SocketAddr>,
    /// The directions in which nothing passes: from, to.
    cuts: BTreeSet<(usize, usize)>,
    lines: BTreeMap<u64, Line>,
    count: u64,
    over: bool,
}

/// A connection through a front.
struct Line {
    /// The server that dialled; `None` for a client.
    from: Option<usize>,
    to: usize,
    /// The sockets on both sides, as far as they stand.
    ends: Vec<TcpStream>,
}

impl Proxies {
    /// Fronts for `count` servers `n1`, `n2`, …
    pub(crate) fn new(count: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut proxies =
            Self { addresses: Vec::new(), shared: shared.clone(), threads: Vec::new() };
        for to in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            proxies.addresses.push(listener.local_addr().unwrap());
            let shared = shared.clone();
            proxies.threads.push(spawn(move || accept(&listener, to, &shared)));
        }
        proxies
    }

    /// As many servers, who reach each other through these fronts only.
    pub(crate) fn start_cluster(&self, args: &[&str]) -> Cluster {
        let peers: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        Cluster::start_by(self.addresses.len(), args, |index, addresses| {
            self.shared.state.lock().targets.insert(index, addresses[index]);
            let flags =
                ["--no-discovery", "--peers", &peers.join(","), "--advertise", &peers[index]];
            flags.map(str::to_string).to_vec()
        })
    }

    /// From now on nothing gets from `from` to `to`.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) {
        self.shared.state.lock().cuts.insert((from, to));
    }

    /// Cuts everything between servers of different `islands`.
    pub(crate) fn split(&self, islands: &[Vec<usize>]) {
        for (number, island) in islands.iter().enumerate() {
            for other in islands[number + 1..].iter().flatten() {
                for one in island {
                    self.cut_one_way(*one, *other);
                    self.cut_one_way(*other, *one);
                }
            }
        }
    }

    /// Takes all cuts back.
    pub(crate) fn heal(&self, healing: Healing) {
        let mut state = self.shared.state.lock();
        if healing == Healing::Reset {
            let State { lines, cuts, .. } = &mut *state;
            lines.retain(|_, line| {
                let cut = line.is_cut(cuts);
                if cut {
                    line.close();
                }
                !cut
            });
        }
        state.cuts.clear();
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.over = true;
        std::mem::take(&mut state.lines).values().for_each(Line::close);
        drop(state);
        self.shared.changed.notify_all();
        for (address, thread) in self.addresses.iter().zip(self.threads.drain(..)) {
            // Wakes the thread that accepts.
            let _ = TcpStream::connect(address);
            let _ = thread.join();
        }
    }
}

impl Line {
    fn is_cut(&self, cuts: &BTreeSet<(usize, usize)>) -> bool {
        self.from
            .is_some_and(|from| cuts.contains(&(from, self.to)) || cuts.contains(&(self.to, from)))
    }

    fn close(&self) {
        for end in &self.ends {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    /// Waits until the line `id` may pass bytes on: in one direction, or in both. False when it is broken.
    fn wait_open(&self, id: u64, ways: &[(usize, usize)]) -> bool {
        let mut state = self.state.lock();
        loop {
            if !state.lines.contains_key(&id) {
                return false;
            }
            if !ways.iter().any(|way| state.cuts.contains(way)) {
                return true;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Notes a connection. `None` when everything is over.
    fn add(&self, line: Line) -> Option<u64> {
        let mut state = self.state.lock();
        state.count += 1;
        let id = state.count;
        if state.over {
            return None;
        }
        state.lines.insert(id, line);
        Some(id)
    }

    fn remove(&self, id: u64) {
        let line = self.state.lock().lines.remove(&id);
        if let Some(line) = line {
            line.close();
        }
    }
}

/// Takes connections for the server `to` until everything is over.
fn accept(listener: &TcpListener, to: usize, shared: &Arc<Shared>) {
    for stream in listener.incoming().map_while(Result::ok) {
        if shared.state.lock().over {
            return;
        }
        let shared = shared.clone();
        // It ends when either side closes, and with the fronts.
        spawn(move || {
            // What goes wrong on a connection is for its two ends to deal with.
            let _ = serve(stream, to, &shared);
        });
    }
}

/// Reads who dials, connects to the server behind, and passes everything on until the end.
fn serve(mut near: TcpStream, to: usize, shared: &Arc<Shared>) -> io::Result<()> {
    near.set_nodelay(true)?;
    let (first, from) = read_first(&mut near)?;
    let line = Line { from, to, ends: vec![near.try_clone()?] };
    let Some(id) = shared.add(line) else { return Ok(()) };
    let done = pass_on(near, (id, from, to), &first, shared);
    shared.remove(id);
    done
}

fn pass_on(
    near: TcpStream,
    (id, from, to): (u64, Option<usize>, usize),
    first: &[u8],
    shared: &Arc<Shared>,
) -> io::Result<()> {
    let there: Vec<_> = from.map(|from| (from, to)).into_iter().collect();
    let back: Vec<_> = from.map(|from| (to, from)).into_iter().collect();
    // Without both directions there is no connection. Who gave up meanwhile never had one.
    if !shared.wait_open(id, &[there.clone(), back.clone()].concat()) || has_ended(&near)? {
        return Ok(());
    }
    let target = shared.state.lock().targets.get(&to).copied();
    let target = target.ok_or(ErrorKind::ConnectionRefused)?;
    let mut far = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    far.set_nodelay(true)?;
    let (near_again, far_again) = (near.try_clone()?, far.try_clone()?);
    match shared.state.lock().lines.get_mut(&id) {
        Some(line) => line.ends.push(far.try_clone()?),
        None => return Ok(()),
    }
    far.write_all(first)?;
    let upstream = {
        let shared = shared.clone();
        spawn(move || copy(near, far, || shared.wait_open(id, &there)))
    };
    copy(far_again, near_again, || shared.wait_open(id, &back));
    let _ = upstream.join();
    Ok(())
}

/// Passes bytes on, and their end, each when `is_open` returns true; it may take its time.
fn copy(mut from: TcpStream, mut to: TcpStream, is_open: impl Fn() -> bool) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut buffer);
        if !is_open() {
            return;
        }
        let passed = match read {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => to.write_all(&buffer[..count]),
            Err(error) => Err(error),
        };
        if passed.is_err() {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// Reads the first frame as it is, and the index of the server that says HELLO in it; a client says none.
fn read_first(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Option<usize>)> {
    let mut bytes = vec![0; 1];
    stream.read_exact(&mut bytes)?;
    if bytes[0] >= b' ' {
        return Ok((bytes, None));
    }
    bytes.resize(4, 0);
    stream.read_exact(&mut bytes[1..])?;
    let length = bytes.first_chunk().map_or(0, |prefix| u32::from_be_bytes(*prefix));
    if length > HELLO_BYTES_MAX {
        return Ok((bytes, None));
    }
    let start = bytes.len();
    bytes.resize(start + length as usize, 0);
    stream.read_exact(&mut bytes[start..])?;
    let index = Message::decode(&bytes[start..]).ok().as_ref().and_then(dialler);
    Ok((bytes, index))
}

/// The index of the server that says HELLO in `msg`: 0 for `n1`.
fn dialler(msg: &Message) -> Option<usize> {
    if msg.message_type != MessageType::Hello {
        return None;
    }
    let hello: Hello = msg.content.parse().ok()?;
    let number: usize = hello.id.as_str().strip_prefix('n')?.parse().ok()?;
    number.checked_sub(1)
}

/// Whether the other side has closed, and everything that it sent was read.
fn has_ended(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    match peeked {
        Ok(count) => Ok(count == 0),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
