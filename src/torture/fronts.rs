//! A network between servers that can be cut, slowed and broken while they run.
//!
//! ```text
//!   n1 ── dials ──▶ [front of n2] ──▶ n2        n2 advertises the front, so everyone dials that
//!                    reads the HELLO, so it knows that n1 is at the other end
//! ```
//!
//! A cut direction is a black hole: what is sent there is neither delivered nor refused, ends of connections
//! included; a new connection needs both directions. On healing the connections that were cut go on where they
//! stopped, or they are reset. A slow network holds up every piece of up to 64 KiB for the delay. Clients are never touched.
//!
//! The front of a server that was killed refuses connections, as the server's own port does, when it is told
//! ([`Fronts::set_up`]). Otherwise it takes and closes them, and a dead server is found out by its silence only.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;
use parking_lot::{Condvar, Mutex};
use socket2::{Domain, Socket, Type};

use super::hello::read_first;
use super::traffic::FrameCounter;
pub use super::traffic::Traffic;
use crate::threads::Threads;

/// How long a front waits for the server behind it to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How much is passed on at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// How many connections may wait for their threads.
const BACKLOG: i32 = 128;
/// How long a front may take to open or to close.
const TURN_LIMIT: Duration = Duration::from_secs(2);
/// How long dropping the fronts waits for their threads.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What becomes of the connections that a cut stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Healing {
    /// They go on: what waited arrives late.
    GoOn,
    /// They are closed: what waited is lost.
    Reset,
}

/// The fronts of some servers, by place from 0, and what is cut between them.
#[derive(Debug)]
pub struct Fronts {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    threads: Threads,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was healed, or broken.
    changed: Condvar,
    threads: Threads,
}

#[derive(Debug, Default)]
struct State {
    /// Where the server behind each front listens.
    targets: BTreeMap<usize, SocketAddr>,
    /// The fronts that are to refuse connections.
    down: BTreeSet<usize>,
    /// Those that do.
    refusing: BTreeSet<usize>,
    /// The directions in which nothing passes: from, to.
    cuts: BTreeSet<(usize, usize)>,
    /// How long everything between servers takes.
    delay: Duration,
    /// What the servers said to each other.
    traffic: Traffic,
    lines: BTreeMap<u64, Line>,
    count: u64,
    over: bool,
}

/// A connection through a front.
#[derive(Debug)]
struct Line {
    /// The server that dialled; `None` for a client.
    from: Option<usize>,
    to: usize,
    /// The sockets on both sides, as far as they stand.
    ends: Vec<TcpStream>,
}

impl Fronts {
    /// Fronts for `count` servers `n1`, `n2`, … Fails when the machine has no ports or threads left.
    pub fn open(count: usize) -> io::Result<Self> {
        let threads = Threads::new("fronts");
        let shared =
            Shared { state: Mutex::default(), changed: Condvar::new(), threads: threads.clone() };
        let mut fronts = Self { addresses: Vec::new(), shared: shared.into(), threads };
        for to in 0..count {
            // It never listens: the port stays ours while the front refuses connections.
            let held = bound(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            // It was bound to an address of this kind.
            let address = held.local_addr()?.as_socket().ok_or(ErrorKind::AddrNotAvailable)?;
            let listener = listen(address)?;
            fronts.addresses.push(address);
            let shared = fronts.shared.clone();
            let turns = move || {
                take_turns(listener, to, &shared);
                drop(held);
            };
            fronts.threads.spawn("accepts", turns)?;
        }
        Ok(fronts)
    }

    /// From now on the front of the server at `place` takes connections, or refuses them.
    pub fn set_up(&self, place: usize, up: bool) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        let changes = if up { state.down.remove(&place) } else { state.down.insert(place) };
        drop(state);
        self.shared.changed.notify_all();
        if changes && !up {
            // Wakes the thread that accepts.
            drop(TcpStream::connect(self.addresses[place]));
        }
        let mut state = self.shared.state.lock();
        while state.refusing.contains(&place) == up {
            if self.shared.changed.wait_for(&mut state, TURN_LIMIT).timed_out() {
                return Err(io::Error::other("the port of a front cannot be opened or closed"));
            }
        }
        Ok(())
    }

    /// Where the fronts listen.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The server at `place` listens at `address`.
    pub fn set_target(&self, place: usize, address: SocketAddr) {
        self.shared.state.lock().targets.insert(place, address);
    }

    /// The flags that make the server at `place` and the others reach each other through the fronts only.
    pub fn flags(&self, place: usize) -> Vec<String> {
        let fronts: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let flags = ["--no-discovery", "--peers", &fronts.join(","), "--advertise", &fronts[place]];
        flags.map(str::to_string).to_vec()
    }

    /// What the servers have said to each other so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.state.lock().traffic
    }

    /// Between servers everything takes `delay` longer from now on.
    pub fn slow_down(&self, delay: Duration) {
        self.shared.state.lock().delay = delay;
        self.shared.changed.notify_all();
    }

    /// Closes the connections between servers that `chosen` says yes to; what is under way on them is lost.
    pub fn break_lines(&self, mut chosen: impl FnMut() -> bool) {
        let mut state = self.shared.state.lock();
        state.lines.retain(|_, line| {
            let breaks = line.from.is_some() && chosen();
            if breaks {
                line.close();
            }
            !breaks
        });
        drop(state);
        self.shared.changed.notify_all();
    }

    /// From now on nothing gets from `from` to `to`.
    pub fn cut_one_way(&self, from: usize, to: usize) {
        self.shared.state.lock().cuts.insert((from, to));
    }

    /// Cuts everything between servers of different `islands`.
    pub fn split(&self, islands: &[Vec<usize>]) {
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
    pub fn heal(&self, healing: Healing) {
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

impl Drop for Fronts {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.over = true;
        std::mem::take(&mut state.lines).values().for_each(Line::close);
        drop(state);
        self.shared.changed.notify_all();
        self.threads.stop();
        for address in &self.addresses {
            // Wakes the thread that accepts.
            let _ = TcpStream::connect(address);
        }
        self.threads.join(STOP_LIMIT);
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

    /// Waits as long as the network between servers takes. False when all is over.
    fn wait_delay(&self, between_servers: bool) -> bool {
        let delay = self.state.lock().delay;
        if delay.is_zero() || !between_servers {
            return true;
        }
        let stop = self.threads.stopped().recv_timeout(delay);
        stop.is_err_and(|error| error.is_timeout())
    }

    /// Counts what a server says to another one.
    fn note_traffic(&self, counter: &mut FrameCounter, bytes: &[u8]) {
        let messages = counter.count(bytes);
        let mut state = self.state.lock();
        state.traffic.messages += messages;
        state.traffic.bytes += bytes.len() as u64;
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

/// A socket at `address`, which it shares with others of ours, and with nobody else's.
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes connections for the server `to`, or refuses them, until everything is over.
fn take_turns(mut listener: TcpListener, to: usize, shared: &Arc<Shared>) {
    loop {
        accept(&listener, to, shared);
        let Ok(address) = listener.local_addr() else { return };
        drop(listener);
        let mut state = shared.state.lock();
        state.refusing.insert(to);
        shared.changed.notify_all();
        while state.down.contains(&to) && !state.over {
            shared.changed.wait(&mut state);
        }
        if state.over {
            return;
        }
        listener = match listen(address) {
            Ok(listener) => listener,
            // Whoever asked for it waits in vain, and says so.
            Err(error) => return log::warn!("the front at {address} cannot be opened: {error}"),
        };
        state.refusing.remove(&to);
        shared.changed.notify_all();
    }
}

/// Takes connections until it has to refuse them, or everything is over.
fn accept(listener: &TcpListener, to: usize, shared: &Arc<Shared>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let state = shared.state.lock();
        if state.over || state.down.contains(&to) {
            return;
        }
        drop(state);
        let server = shared.clone();
        // It ends when either side closes, and with the fronts. What goes wrong on a connection is for its two
        // ends to deal with; a thread that cannot be had closes it.
        let _ = shared.threads.spawn("serves", move || drop(serve(stream, to, &server)));
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
    let (between_servers, upstream) = (from.is_some(), shared.clone());
    let (done, ended) = bounded::<()>(0);
    let up = move || {
        let mut counter = FrameCounter::default();
        copy(near, far, |bytes| {
            if between_servers {
                upstream.note_traffic(&mut counter, bytes);
            }
            upstream.wait_delay(between_servers) && upstream.wait_open(id, &there)
        });
        drop(done);
    };
    shared.threads.spawn("copies", up)?;
    let mut counter = FrameCounter::default();
    copy(far_again, near_again, |bytes| {
        if between_servers {
            shared.note_traffic(&mut counter, bytes);
        }
        shared.wait_delay(between_servers) && shared.wait_open(id, &back)
    });
    let _ = ended.recv();
    Ok(())
}

/// Passes bytes on, and their end, each when `may_pass` returns true; it may take its time.
fn copy(mut from: TcpStream, mut to: TcpStream, mut may_pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut buffer);
        let count = read.as_ref().copied().unwrap_or(0);
        if !may_pass(&buffer[..count]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_refuses_connections_while_it_is_down_and_keeps_its_port() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let fronts = Fronts::open(2).unwrap();
        let address = fronts.addresses()[1];
        fronts.set_target(1, server.local_addr().unwrap());
        for _ in 0..3 {
            fronts.set_up(1, true).unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"{").unwrap();
            let mut first = [0];
            server.accept().unwrap().0.read_exact(&mut first).unwrap();
            assert_eq!(first, *b"{");
            fronts.set_up(1, false).unwrap();
            let refused = TcpStream::connect(address).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            assert!(TcpListener::bind(address).is_err(), "somebody else gets the port");
            assert!(TcpStream::connect(fronts.addresses()[0]).is_ok());
        }
    }
}
