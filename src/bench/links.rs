//! The connections of simulated clients, all in one thread.
//!
//! ```text
//!   say ──▶ out ── flush ──▶ socket        without blocking; what does not fit waits for room
//!   hear ◀── frames ◀── one read ◀── wait  every ready socket once, then back to the load
//! ```

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::poller::{Poller, Ready};
use super::speech::{Ear, Heard, PREFIX_BYTES, first_frame, put_heartbeat};

/// At most so much is read at once.
const READ_BYTES: usize = 256 * 1024;
/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// One connection.
#[derive(Debug)]
struct Link {
    stream: TcpStream,
    /// The beginning of a frame whose rest has not come.
    partial: Vec<u8>,
    /// What is still to be written, from `written` on.
    out: Vec<u8>,
    written: usize,
    /// Whether it waits for room to write.
    waits: bool,
}

/// Many connections, by place in the order of opening.
#[derive(Debug)]
pub(super) struct Links {
    poller: Poller,
    /// `None` once closed.
    open: Vec<Option<Link>>,
    ready: Vec<Ready>,
    buffer: Vec<u8>,
    ear: Ear,
    epoch: Instant,
    bytes_read: u64,
}

impl Links {
    /// None yet.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new()?,
            open: Vec::new(),
            ready: Vec::new(),
            buffer: vec![0; READ_BYTES],
            ear: Ear::default(),
            epoch: Instant::now(),
            bytes_read: 0,
        })
    }

    /// Connects to `address`; blocks for that.
    pub(super) fn open(&mut self, address: SocketAddr) -> io::Result<usize> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let place = self.open.len();
        self.poller.add(&stream, place)?;
        let (partial, out) = (Vec::new(), Vec::new());
        self.open.push(Some(Link { stream, partial, out, written: 0, waits: false }));
        Ok(place)
    }

    /// Closes the connection at `place`; nothing is heard of it any more.
    pub(super) fn close(&mut self, place: usize) {
        self.open[place] = None;
    }

    /// How many were opened.
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Nanoseconds since these links began, the time of all that is measured on them.
    #[inline]
    pub(super) fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// How many bytes were read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// What is said at `place`: `put` adds frames. [`flush`](Self::flush) sends them. On a closed connection nothing is said.
    pub(super) fn say(&mut self, place: usize, put: impl FnOnce(&mut Vec<u8>)) {
        if let Some(link) = &mut self.open[place] {
            put(&mut link.out);
        }
    }

    /// Writes what was said at `place`, as far as there is room. A broken connection is noticed by the next read.
    pub(super) fn flush(&mut self, place: usize) {
        if let Some(link) = &mut self.open[place] {
            link.flush(&self.poller, place);
        }
    }

    /// Whether something that was said at `place` is still to be written.
    pub(super) fn is_blocked(&self, place: usize) -> bool {
        self.open[place].as_ref().is_some_and(|link| !link.out.is_empty())
    }

    /// From now on [`wait`](Self::wait) returns at least once in every `interval`.
    pub(super) fn tick(&self, interval: Duration) -> io::Result<()> {
        self.poller.tick(interval)
    }

    /// Waits for `limit` until something comes, and hands it to `hear`: where, when it was read, and what. Servers that ask
    /// whether a client is there are answered.
    pub(super) fn wait(
        &mut self,
        limit: Duration,
        mut hear: impl FnMut(usize, u64, Heard),
    ) -> io::Result<()> {
        self.poller.wait(limit, &mut self.ready)?;
        for turn in 0..self.ready.len() {
            let Ready { key: place, readable, writable } = self.ready[turn];
            if writable {
                self.flush(place);
            }
            if readable && !self.read(place, &mut hear) {
                self.close(place);
                hear(place, self.now(), Heard::Gone);
            }
        }
        Ok(())
    }

    /// One read at `place`. False at the end of the stream.
    fn read(&mut self, place: usize, hear: &mut impl FnMut(usize, u64, Heard)) -> bool {
        // Closed meanwhile, while its event was on the way.
        let Some(link) = &mut self.open[place] else { return true };
        let kept = link.partial.len();
        if self.buffer.len() < kept + READ_BYTES {
            self.buffer.resize(kept + READ_BYTES, 0);
        }
        self.buffer[..kept].copy_from_slice(&link.partial);
        let count = match link.stream.read(&mut self.buffer[kept..]) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return true;
            }
            Err(_) => return false,
        };
        self.bytes_read += count as u64;
        let now = self.epoch.elapsed().as_nanos() as u64;
        let mut rest = &self.buffer[..kept + count];
        let mut asked = false;
        while let Some(body) = first_frame(rest) {
            rest = &rest[PREFIX_BYTES + body.len()..];
            let heard = self.ear.hear(body);
            asked |= heard == Heard::Asked;
            hear(place, now, heard);
        }
        link.partial.clear();
        link.partial.extend_from_slice(rest);
        if asked {
            put_heartbeat(&mut link.out);
            link.flush(&self.poller, place);
        }
        true
    }
}

impl Link {
    fn flush(&mut self, poller: &Poller, place: usize) {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.wait_for_room(poller, place, true);
                }
                // What else is wrong is told by the next read; nobody waits for what was said.
                Err(_) => break,
            }
        }
        self.out.clear();
        self.written = 0;
        self.wait_for_room(poller, place, false);
    }

    fn wait_for_room(&mut self, poller: &Poller, place: usize, waits: bool) {
        if self.waits != waits && poller.watch_writable(&self.stream, place, waits).is_ok() {
            self.waits = waits;
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::bench::speech::Template;

    const LONG: Duration = Duration::from_secs(20);

    fn pair() -> (Links, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut links = Links::new().unwrap();
        assert_eq!(links.open(listener.local_addr().unwrap()).unwrap(), 0);
        (links, listener.accept().unwrap().0)
    }

    /// What is heard until `enough`.
    fn hear(links: &mut Links, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let (mut all, end) = (Vec::new(), Instant::now() + LONG);
        while !enough(&all) && Instant::now() < end {
            links.wait(LONG, |_, _, heard| all.push(format!("{heard:?}"))).unwrap();
        }
        all
    }

    #[test]
    fn frames_are_heard_however_they_are_cut() {
        let (mut links, mut server) = pair();
        let mut bytes = Vec::new();
        let template = Template::new("r", 1, 20);
        (0..3).for_each(|number| template.put(number, number, &mut bytes));
        let heard: Vec<String> =
            (0..3).map(|number| format!("{:?}", Heard::Delivery { sender: 1, number })).collect();
        server.set_nodelay(true).unwrap();
        for cut in [1, 3, 4, 50, bytes.len() - 1] {
            server.write_all(&bytes[..cut]).unwrap();
            links.wait(LONG, |_, _, _| {}).unwrap();
            server.write_all(&bytes[cut..]).unwrap();
            // What was whole at the first cut was heard there.
            let before = cut / template.frame_bytes();
            assert_eq!(hear(&mut links, |all| all.len() + before >= 3), heard[before..], "{cut}");
        }
        assert_eq!(links.bytes_read(), 5 * bytes.len() as u64);
    }

    #[test]
    fn a_server_that_asks_is_answered_and_one_that_leaves_is_gone() {
        let (mut links, mut server) = pair();
        let mut asked = Vec::new();
        put_heartbeat(&mut asked);
        server.write_all(&asked).unwrap();
        assert_eq!(hear(&mut links, |all| !all.is_empty()), ["Asked"]);
        server.set_read_timeout(Some(LONG)).unwrap();
        let mut answer = vec![0; asked.len()];
        server.read_exact(&mut answer).unwrap();
        assert_eq!(answer, asked);
        drop(server);
        assert_eq!(hear(&mut links, |all| !all.is_empty()), ["Gone"]);
        links.say(0, |_| panic!("it is closed"));
    }

    #[test]
    fn what_does_not_fit_is_written_when_there_is_room() {
        let (mut links, mut server) = pair();
        let much = vec![7; 64 << 20];
        links.say(0, |out| out.extend_from_slice(&much));
        links.flush(0);
        assert!(links.is_blocked(0));
        server.set_read_timeout(Some(LONG)).unwrap();
        let mut read = vec![0; much.len()];
        let (mut got, end) = (0, Instant::now() + LONG);
        while got < read.len() && Instant::now() < end {
            got += server.read(&mut read[got..]).unwrap();
            links.wait(Duration::ZERO, |_, _, _| {}).unwrap();
        }
        assert!(!links.is_blocked(0));
        assert_eq!(read, much);
    }
}
