//! The messages of a client that are not acknowledged yet, on disk: they survive the program.
//!
//! ```text
//!   {"session":"5f1c0a9e…","user":"alice","cluster":"roundtable"}          whose it is
//!   {"life":{"connections":2,"since":1795236122900,"renewals":0,"last":7}}  how far the session is
//!   {"said":{"id":"5f1c0a9e…-8","room":"lobby","text":"hello"}}             before it is sent
//!   {"done":"5f1c0a9e…-8"}                                                  acknowledged, or refused for good
//! ```
//!
//! A client that is started with the file of an earlier one goes on with its session and sends what has no answer again, in
//! order, under the same ids: the servers take each once.
//!
//! Promise: when [`Outbox::said`] returned, the message is on the disk. A line that says `done` is not synced: without it a message
//! is sent once more, and counts once. Price: one sync for each message. The last line may be torn by a crash and is cut off
//! then; any other that cannot be read is damage, and the file is refused. When nothing is left the file begins anew.
//!
//! Source: raft-messaging.txt, "Client Reconnection": "Message queue preservation".

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::session::identity::Life;
use crate::error::StartError;

/// A file without unacknowledged messages that is longer than this is begun anew, in bytes.
const RESTART_BYTES: u64 = 64 * 1024;

/// A message that was said and has no answer yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its id, `<session>-<n>`.
    pub id: String,
    /// Where it goes.
    pub room: String,
    /// What it says.
    pub text: String,
}

/// What a file held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The session's name.
    pub session: String,
    /// How far the session is.
    pub life: Life,
    /// The number of its last message.
    pub last: u64,
    /// What has no answer, in order.
    pub said: Vec<Said>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Life { connections: u64, since: Option<u64>, renewals: u64, last: u64 },
    Said(Said),
    Done(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    session: String,
    user: String,
    cluster: String,
}

/// An open outbox. No other process can open the file until this is dropped.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    /// Locked; the operating system unlocks it, however the process ends.
    file: File,
    head: Head,
    life: Life,
    last: u64,
    open: BTreeMap<u64, Said>,
    bytes: u64,
}

impl Outbox {
    /// Opens the file at `path`, made when there is none, and says what it held. `session` is the name of a session
    /// that begins with it.
    pub fn open(
        path: &Path,
        session: &str,
        user: &str,
        cluster: &str,
    ) -> Result<(Self, Restored), StartError> {
        let fail = |problem: &str, source: io::Error| {
            StartError::Other(format!("cannot {problem} the outbox {}: {source}", path.display()))
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // What one says is nobody else's business.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(|error| fail("open", error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::Other(format!(
                    "the outbox {} is open in another process; stop it, or give another --outbox",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(fail("lock", error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| fail("read", error))?;
        let head = Head { session: session.into(), user: user.into(), cluster: cluster.into() };
        let mut outbox = Self {
            path: path.into(),
            file,
            head,
            life: Life::default(),
            last: 0,
            open: BTreeMap::new(),
            bytes: 0,
        };
        let whole = outbox.read(&bytes)?;
        let made = if outbox.open.is_empty() { outbox.begin_anew() } else { outbox.go_on(whole) };
        made.map_err(|error| fail("write", error))?;
        let restored = Restored {
            session: outbox.head.session.clone(),
            life: outbox.life,
            last: outbox.last,
            said: outbox.open.values().cloned().collect(),
        };
        Ok((outbox, restored))
    }

    /// Takes in what the file holds. Returns how long it is without a torn last line, in bytes.
    fn read(&mut self, bytes: &[u8]) -> Result<u64, StartError> {
        let damaged = |number: usize, reason: String| {
            StartError::Other(format!(
                "line {number} of the outbox {} is damaged ({reason}); look what of it was said, and remove the file",
                self.path.display()
            ))
        };
        let length = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let mut whole = bytes[..length].split_inclusive(|byte| *byte == b'\n');
        let Some(first) = whole.next() else { return Ok(0) };
        let head: Head =
            serde_json::from_slice(first).map_err(|error| damaged(1, error.to_string()))?;
        if (&head.user, &head.cluster) != (&self.head.user, &self.head.cluster) {
            return Err(StartError::Usage(format!(
                "the outbox {} is {}'s in the cluster {:?}; give another --outbox",
                self.path.display(),
                head.user,
                head.cluster
            )));
        }
        let mut lines = Vec::new();
        for (number, line) in (2..).zip(whole) {
            lines.push(
                serde_json::from_slice(line).map_err(|error| damaged(number, error.to_string()))?,
            );
        }
        self.head = head;
        for line in lines {
            self.take(line);
        }
        Ok(length as u64)
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Life { connections, since, renewals, last } => {
                self.life = Life { connections, since, renewals };
                self.last = self.last.max(last);
            }
            Line::Said(said) => {
                let number = number(&said.id);
                self.last = self.last.max(number);
                self.open.insert(number, said);
            }
            Line::Done(id) => drop(self.open.remove(&number(&id))),
        }
    }

    /// Writes the file anew, when nothing is open: what a crash in the middle of it leaves is a session without a
    /// message.
    fn begin_anew(&mut self) -> io::Result<()> {
        let mut text = line(&self.head);
        text.extend(line(&self.life_line()));
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.bytes = text.len() as u64;
        Ok(())
    }

    /// Goes on after the last whole line, at `length` bytes.
    fn go_on(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        self.bytes = length;
        Ok(())
    }

    fn life_line(&self) -> Line {
        let Life { connections, since, renewals } = self.life;
        Line::Life { connections, since, renewals, last: self.last }
    }

    fn append(&mut self, entry: &Line, sync: bool) -> io::Result<()> {
        let text = line(entry);
        self.file.write_all(&text)?;
        self.bytes += text.len() as u64;
        if sync { self.file.sync_data() } else { Ok(()) }
    }

    /// Keeps a message, synced: it may be sent.
    pub fn said(&mut self, said: Said) -> io::Result<()> {
        self.append(&Line::Said(said.clone()), true)?;
        self.take(Line::Said(said));
        Ok(())
    }

    /// The message `id` was acknowledged, or refused for good.
    pub fn done(&mut self, id: &str) -> io::Result<()> {
        if self.open.get(&number(id)).is_none_or(|said| said.id != id) {
            return Ok(());
        }
        self.take(Line::Done(id.into()));
        if self.open.is_empty() && self.bytes > RESTART_BYTES {
            return self.begin_anew();
        }
        self.append(&Line::Done(id.into()), false)
    }

    /// The session went on to `life`; synced when that is news.
    pub fn note(&mut self, life: Life) -> io::Result<()> {
        if self.life == life {
            return Ok(());
        }
        self.life = life;
        let line = self.life_line();
        self.append(&line, true)
    }
}

/// The n of `<session>-<n>`.
fn number(id: &str) -> u64 {
    id.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
}

fn line<T: Serialize>(value: &T) -> Vec<u8> {
    // Only string keys and infallible serialisers.
    let mut text = serde_json::to_vec(value).expect("a line of an outbox serialises");
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests;
