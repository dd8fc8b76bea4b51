//! All of a [`ReplicatedStorage`] as bytes, and back.
//!
//! ```text
//!   {"version":1,"applied":42,"log_time_ms":…,"digest":…,"accounts":{…}}       the first line
//!   {"session":["5f1c0a9e",{…}]}                                                 a line for each session,
//!   {"forgotten":["lobby",12]}                                                   for each room that is not kept whole,
//!   {"place":["lobby",{"said":{…}}]}                                             and for each place of a room, in order
//! ```
//!
//! JSON lines, so that a snapshot can be looked at with the tools of every day, and be cut into pieces that fit a
//! frame. What follows from the rest (indexes, counts) is not in it but made again.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Write};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::messages::{Place, RoomHistory};
use super::sessions::{SavedSession, Session};
use super::{Account, ReplicatedStorage};
use crate::domain::Message;
use crate::server::total_order::Seq;
use crate::storage::PackedBytes;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// What is wrong with a snapshot: it was cut, changed, or is of another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotError {
    /// Its line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the snapshot: {}; fetch it again", self.line, self.reason)
    }
}

impl std::error::Error for SnapshotError {}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    applied: Seq,
    log_time_ms: u64,
    digest: u32,
    accounts: BTreeMap<String, Account>,
    /// How many lines follow: a snapshot that was cut between two lines does not pass for a whole one.
    lines: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Session(String, SavedSession),
    Place(String, SavedPlace),
    Forgotten(String, Seq),
}

/// A [`Line`] to be written.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LineRef<'a> {
    Session(&'a str, SavedSession),
    Place(&'a str, SavedPlace),
    Forgotten(&'a str, Seq),
}

/// A [`Place`] and what stands there.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedPlace {
    Said(Message),
    Gone { entry: Message, by: Seq },
    Deletion { seq: Seq, of: Seq },
}

impl SavedPlace {
    /// `None` without a message where one belongs.
    fn new(place: Place, msg: Option<Message>) -> Option<Self> {
        Some(match place {
            Place::Said(_) => Self::Said(msg?),
            Place::Gone { by, .. } => Self::Gone { entry: msg?, by },
            Place::Deletion { seq, of } => Self::Deletion { seq, of },
        })
    }

    fn into_parts(self) -> (Place, Option<Message>) {
        match self {
            Self::Said(msg) => (Place::Said(msg.seq.unwrap_or_default()), Some(msg)),
            Self::Gone { entry, by } => {
                (Place::Gone { seq: entry.seq.unwrap_or_default(), by }, Some(entry))
            }
            Self::Deletion { seq, of } => (Place::Deletion { seq, of }, None),
        }
    }
}

/// A state that does not change any more, to be written down beside the one that goes on. It shares messages and
/// sessions with that one, so it is made in a moment.
#[derive(Debug)]
pub struct FrozenStorage {
    /// In no order.
    sessions: Vec<Arc<Session>>,
    rooms: Vec<(String, RoomHistory)>,
    /// How many lines all these are.
    lines: usize,
    forgotten: Vec<(String, Seq)>,
    accounts: BTreeMap<String, Account>,
    applied: Seq,
    log_time_ms: u64,
    digest: u32,
}

impl FrozenStorage {
    /// Everything that was applied, as JSON lines. Equal states give equal bytes.
    pub fn to_bytes(&self) -> PackedBytes {
        let mut bytes = PackedBytes::default();
        self.write_to(&mut bytes);
        bytes
    }

    fn write_to(&self, to: &mut impl Write) {
        let mut lines = LineWriter { to, line: Vec::new() };
        let head = Head {
            version: VERSION,
            applied: self.applied,
            log_time_ms: self.log_time_ms,
            digest: self.digest,
            accounts: self.accounts.clone(),
            lines: self.lines,
        };
        lines.write(&head);
        let mut sessions: Vec<&Session> = self.sessions.iter().map(AsRef::as_ref).collect();
        sessions.sort_unstable_by_key(|session| session.id());
        for session in sessions {
            lines.write(&LineRef::Session(session.id(), session.to_saved()));
        }
        for (room_id, seq) in &self.forgotten {
            lines.write(&LineRef::Forgotten(room_id, *seq));
        }
        for (room_id, history) in &self.rooms {
            history.visit(|place, msg| {
                if let Some(place) = SavedPlace::new(place, msg) {
                    lines.write(&LineRef::Place(room_id, place));
                }
            });
        }
    }
}

impl ReplicatedStorage {
    /// The state as it is now, for good.
    pub fn freeze(&self) -> FrozenStorage {
        let rooms = self.messages.rooms();
        let forgotten = rooms.filter(|(_, room)| room.forgotten() > 0);
        let forgotten: Vec<_> =
            forgotten.map(|(id, room)| (id.clone(), room.forgotten())).collect();
        let places: usize = self.messages.rooms().map(|(_, room)| room.len()).sum();
        let rooms = self.messages.rooms();
        FrozenStorage {
            lines: self.sessions.len() + forgotten.len() + places,
            sessions: self.sessions.iter().cloned().collect(),
            rooms: rooms.map(|(id, room)| (id.clone(), room.history().clone())).collect(),
            forgotten,
            accounts: self.accounts.clone(),
            applied: self.applied,
            log_time_ms: self.log_time_ms,
            digest: self.digest,
        }
    }

    /// Everything that was applied, as JSON lines. Equal states give equal bytes.
    pub fn to_snapshot(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.freeze().write_to(&mut bytes);
        bytes
    }

    /// The state that [`to_snapshot`](Self::to_snapshot) gave these bytes for.
    pub fn from_snapshot(bytes: impl BufRead) -> Result<Self, SnapshotError> {
        let mut lines = LineReader { bytes, line: Vec::new(), number: 0 };
        let head: Head = match lines.read()? {
            Some(head) => head,
            None => return Err(lines.fault("it is empty")),
        };
        if head.version != VERSION {
            let reason = format!("version {}; this program reads {VERSION}", head.version);
            return Err(lines.fault(reason));
        }
        let mut storage = Self {
            applied: head.applied,
            log_time_ms: head.log_time_ms,
            digest: head.digest,
            accounts: head.accounts,
            ..Self::default()
        };
        let (mut count, mut times) = (0, Vec::new());
        while let Some(line) = lines.read()? {
            match line {
                Line::Session(id, session) => storage.sessions.restore(id, session),
                Line::Forgotten(room_id, seq) => {
                    storage.messages.restore_forgotten(&room_id, seq);
                }
                Line::Place(room_id, place) => {
                    let (place, msg) = place.into_parts();
                    times.extend(msg.as_ref().and_then(|msg| msg.seq.zip(msg.timestamp)));
                    let restored = storage.messages.restore(&room_id, place, msg.as_ref());
                    restored.map_err(|reason| lines.fault(reason))?;
                }
            }
            count += 1;
        }
        if count != head.lines {
            let reason = format!("{count} lines follow, {} should", head.lines);
            return Err(SnapshotError { line: 1, reason });
        }
        storage.messages.restore_times(times);
        Ok(storage)
    }
}

/// Writes values as lines into memory.
struct LineWriter<'a, W> {
    to: &'a mut W,
    line: Vec<u8>,
}

impl<W: Write> LineWriter<'_, W> {
    fn write(&mut self, value: &impl Serialize) {
        self.line.clear();
        // Only string keys and infallible serialisers.
        serde_json::to_writer(&mut self.line, value).expect("a snapshot serialises");
        self.line.push(b'\n');
        self.to.write_all(&self.line).expect("memory takes all");
    }
}

/// Reads lines as values.
struct LineReader<R> {
    bytes: R,
    line: Vec<u8>,
    /// The number of `line`; 0 before the first.
    number: usize,
}

impl<R: BufRead> LineReader<R> {
    /// The next line; `None` behind the last one.
    fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, SnapshotError> {
        self.line.clear();
        self.number += 1;
        let read = self.bytes.read_until(b'\n', &mut self.line);
        if read.map_err(|error| self.fault(error))? == 0 {
            return Ok(None);
        }
        let text = self.line.strip_suffix(b"\n").ok_or_else(|| self.fault("it has no end"))?;
        serde_json::from_slice(text).map(Some).map_err(|error| self.fault(error))
    }

    fn fault(&self, reason: impl ToString) -> SnapshotError {
        SnapshotError { line: self.number, reason: reason.to_string() }
    }
}
