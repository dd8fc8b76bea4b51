//! What the machine can do at all: the same work by the shortest program that does it.
//!
//! ```text
//!   sender ──▶ ┐                           ┌ ──▶ member
//!   sender ──▶ ┤ relay: frames, as they are ├ ──▶ member      no parsing, no order, no log, no acknowledgement
//!   sender ──▶ ┘   one thread, one write    └ ──▶ member
//!                  a member and a round
//! ```
//!
//! The relay is measured by the same load as the servers, in the same run, with texts so much longer that as many bytes
//! are delivered for each message. [`syncs`] does nothing but append and `fdatasync`.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use hdrhistogram::Histogram;

use super::figures::new_histogram;
use super::poller::{Poller, Ready};
use super::speech::{PREFIX_BYTES, first_frame};
use super::watch::PATIENCE;
use crate::domain::Message;
use crate::network::framing::Framing;
use crate::threads::Threads;

/// The key of the listener; those of connections follow it.
const LISTENER: usize = 0;
/// At most so much is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How long a record is that is appended and synced.
const RECORD_BYTES: usize = 200;
/// How long ending waits for the threads.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A program that passes on what members of a room say, and does nothing else.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    threads: Threads,
}

impl Relay {
    /// Listens on loopback and passes on, until it is dropped.
    pub(super) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER)?;
        let over = Arc::new(AtomicBool::new(false));
        let threads = Threads::new("relay");
        let mut relaying = Relaying {
            listener,
            poller,
            people: Vec::new(),
            rooms: BTreeMap::new(),
            members: Vec::new(),
            pending: Vec::new(),
            buffer: vec![0; READ_BYTES],
        };
        let ends = Arc::clone(&over);
        threads.spawn("passes-on", move || {
            // It cannot go on without its sockets; the load side notices that it is gone.
            while !ends.load(Ordering::Relaxed) && relaying.turn().is_ok() {}
        })?;
        Ok(Self { address, over, threads })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.join(END_LIMIT);
    }
}

struct Person {
    stream: TcpStream,
    partial: Vec<u8>,
    room: Option<usize>,
}

struct Relaying {
    listener: TcpListener,
    poller: Poller,
    /// `None` when gone.
    people: Vec<Option<Person>>,
    rooms: BTreeMap<String, usize>,
    /// By room: who is there, and what they are to be shown.
    members: Vec<Vec<usize>>,
    pending: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Relaying {
    /// Reads everything that is there, then writes to each member once.
    fn turn(&mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        self.poller.wait(PATIENCE, &mut ready)?;
        for Ready { key, .. } in ready {
            if key == LISTENER {
                self.accept()?;
            } else if self.read(key - 1).is_err() {
                self.forget(key - 1);
            }
        }
        for room in 0..self.pending.len() {
            if self.pending[room].is_empty() {
                continue;
            }
            let bytes = std::mem::take(&mut self.pending[room]);
            for place in self.members[room].clone() {
                // The other side always reads, so this blocks for a moment only.
                let stream = self.people[place].as_ref().map(|person| &person.stream);
                if stream.is_some_and(|mut stream| stream.write_all(&bytes).is_err()) {
                    self.forget(place);
                }
            }
            self.pending[room] = bytes;
            self.pending[room].clear();
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(false)?;
            stream.set_nodelay(true)?;
            self.people.push(None);
            self.poller.add(&stream, self.people.len())?;
            let place = self.people.len() - 1;
            self.people[place] = Some(Person { stream, partial: Vec::new(), room: None });
        }
    }

    fn forget(&mut self, place: usize) {
        if let Some(room) = self.people[place].take().and_then(|person| person.room) {
            self.members[room].retain(|member| *member != place);
        }
    }

    /// One read. An error is the end of the connection.
    fn read(&mut self, place: usize) -> io::Result<()> {
        let Some(person) = &mut self.people[place] else { return Ok(()) };
        // Something is there, so this does not block.
        let count = match person.stream.read(&mut self.buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => count,
        };
        person.partial.extend_from_slice(&self.buffer[..count]);
        let bytes = std::mem::take(&mut person.partial);
        let mut rest = &bytes[..];
        while let Some(body) = first_frame(rest) {
            let (frame, next) = rest.split_at(PREFIX_BYTES + body.len());
            rest = next;
            match self.people[place].as_ref().and_then(|person| person.room) {
                Some(room) => self.pending[room].extend_from_slice(frame),
                None => self.enter(place, body)?,
            }
        }
        if let Some(person) = &mut self.people[place] {
            person.partial = rest.to_vec();
        }
        Ok(())
    }

    /// Before they are in a room people say who they are, which does not matter here, and which room they want.
    fn enter(&mut self, place: usize, body: &[u8]) -> io::Result<()> {
        let wish = Message::decode(body).map_err(io::Error::other)?;
        if wish.room_id.is_empty() {
            return Ok(());
        }
        let next = self.members.len();
        let room = *self.rooms.entry(wish.room_id).or_insert(next);
        if room == next {
            self.members.push(Vec::new());
            self.pending.push(Vec::new());
        }
        self.members[room].push(place);
        let mut answer = Vec::new();
        Framing::LengthPrefixed.put(br#"{"message_id":"enter","type":"ACK"}"#, &mut answer);
        if let Some(person) = &mut self.people[place] {
            person.room = Some(room);
            person.stream.write_all(&answer)?;
        }
        Ok(())
    }
}

/// What a disk does at all.
#[derive(Debug)]
pub(super) struct Syncs {
    /// All files together.
    pub(super) per_second: f64,
    /// From the beginning of the write to the end of the sync, in nanoseconds.
    pub(super) times: Histogram<u64>,
}

/// As many threads as `files` append 200 bytes to a file of their own in `folder` and sync it, again and again, for a time.
pub(super) fn syncs(folder: &Path, files: usize, lasts: Duration) -> io::Result<Syncs> {
    let (done, results) = bounded(files);
    let threads = Threads::new("syncs");
    let began = Instant::now();
    for number in 0..files {
        let path = folder.join(format!("bench-syncs-{number}"));
        let done = done.clone();
        threads.spawn(&format!("file-{number}"), move || {
            let synced = sync_again_and_again(&path, began + lasts);
            let _ = std::fs::remove_file(&path);
            let _ = done.send(synced);
        })?;
    }
    drop(done);
    let mut times = new_histogram();
    for result in results {
        // Both have the same bounds.
        times.add(result?).map_err(io::Error::other)?;
    }
    let per_second = times.len() as f64 / began.elapsed().as_secs_f64();
    threads.join(END_LIMIT);
    Ok(Syncs { per_second, times })
}

fn sync_again_and_again(path: &Path, end: Instant) -> io::Result<Histogram<u64>> {
    let mut file = File::create(path)?;
    let mut times = new_histogram();
    let record = [b'x'; RECORD_BYTES];
    let mut began = Instant::now();
    while began < end {
        file.write_all(&record)?;
        file.sync_data()?;
        let now = Instant::now();
        times.saturating_record((now - began).as_nanos() as u64);
        began = now;
    }
    Ok(times)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::bench::links::Links;
    use crate::bench::speech::{Heard, Template, put_joins};

    #[test]
    fn what_a_member_says_goes_to_all_members_of_its_room_and_to_nobody_else() {
        let relay = Relay::start().unwrap();
        let mut links = Links::new().unwrap();
        for (place, room) in ["a", "a", "b"].into_iter().enumerate() {
            assert_eq!(links.open(relay.address()).unwrap(), place);
            links.say(place, |out| put_joins("u", room, 0, out));
            links.flush(place);
        }
        let end = Instant::now() + Duration::from_secs(20);
        let (mut inside, mut heard) = (0, [0; 3]);
        while inside < 3 && Instant::now() < end {
            let enter =
                |_, _, heard: Heard| inside += usize::from(matches!(heard, Heard::Entered(_)));
            links.wait(PATIENCE, enter).unwrap();
        }
        let template = Template::new("a", 0, 100);
        links.say(0, |out| (0..50).for_each(|number| template.put(number, number, out)));
        links.flush(0);
        // What it says last goes to itself alone, and comes after everything that could come.
        let mut last = false;
        while (heard[0] < 50 || heard[1] < 50 || !last) && Instant::now() < end {
            if heard[0] == 50 && heard[1] == 50 && !links.is_blocked(2) {
                links.say(2, |out| Template::new("b", 9, 20).put(0, 0, out));
                links.flush(2);
            }
            let hear = |place: usize, _, said: Heard| match said {
                Heard::Delivery { sender: 9, .. } if place == 2 => last = true,
                Heard::Delivery { sender: 0, number } => {
                    assert_eq!(number, heard[place]);
                    heard[place] += 1;
                }
                other => panic!("{other:?} at {place}"),
            };
            links.wait(PATIENCE, hear).unwrap();
        }
        assert_eq!((heard, last), ([50, 50, 0], true));
    }

    #[test]
    fn a_disk_syncs_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let syncs = syncs(folder.path(), 2, Duration::from_millis(20)).unwrap();
        assert!(syncs.per_second > 0.0 && syncs.times.len() >= 2);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
