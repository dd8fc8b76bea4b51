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
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::messages::Place;
use super::sessions::Session;
use super::{Account, ReplicatedStorage};
use crate::server::total_order::Seq;

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
    Session(String, Session),
    Place(String, Place),
    Forgotten(String, Seq),
}

/// A [`Line`] to be written.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum LineRef<'a> {
    Session(&'a str, &'a Session),
    Place(&'a str, &'a Place),
    Forgotten(&'a str, Seq),
}

/// A state that does not change any more, to be written down beside the one that goes on. It shares messages and
/// sessions with that one, so it is made in a moment.
#[derive(Debug)]
pub struct FrozenStorage {
    sessions: Vec<(String, Arc<Session>)>,
    rooms: Vec<(String, Vec<Place>)>,
    forgotten: Vec<(String, Seq)>,
    accounts: BTreeMap<String, Account>,
    applied: Seq,
    log_time_ms: u64,
    digest: u32,
}

impl FrozenStorage {
    /// Everything that was applied, as JSON lines. Equal states give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        let mut count = 0;
        for (id, session) in &self.sessions {
            write(&mut lines, &LineRef::Session(id, session));
            count += 1;
        }
        for (room_id, seq) in &self.forgotten {
            write(&mut lines, &LineRef::Forgotten(room_id, *seq));
            count += 1;
        }
        for (room_id, places) in &self.rooms {
            for place in places {
                write(&mut lines, &LineRef::Place(room_id, place));
                count += 1;
            }
        }
        let head = Head {
            version: VERSION,
            applied: self.applied,
            log_time_ms: self.log_time_ms,
            digest: self.digest,
            accounts: self.accounts.clone(),
            lines: count,
        };
        let mut snapshot = Vec::with_capacity(lines.len() + 256);
        write(&mut snapshot, &head);
        snapshot.extend(lines);
        snapshot
    }
}

impl ReplicatedStorage {
    /// The state as it is now, for good.
    pub fn freeze(&self) -> FrozenStorage {
        let sessions = self.sessions.iter().map(|(id, session)| (id.clone(), session.clone()));
        let rooms = self.messages.rooms();
        let rooms = rooms.map(|room_id| (room_id.clone(), self.messages.places(room_id).to_vec()));
        let forgotten = self.messages.all_forgotten();
        let forgotten = forgotten.map(|(room_id, seq)| (room_id.clone(), seq));
        FrozenStorage {
            sessions: sessions.collect(),
            rooms: rooms.collect(),
            forgotten: forgotten.collect(),
            accounts: self.accounts.clone(),
            applied: self.applied,
            log_time_ms: self.log_time_ms,
            digest: self.digest,
        }
    }

    /// Everything that was applied, as JSON lines. Equal states give equal bytes.
    pub fn to_snapshot(&self) -> Vec<u8> {
        self.freeze().to_bytes()
    }

    /// The state that [`to_snapshot`](Self::to_snapshot) gave these bytes for.
    pub fn from_snapshot(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let head: Head = read(1, lines.next().unwrap_or_default())?;
        if head.version != VERSION {
            let reason = format!("version {}; this program reads {VERSION}", head.version);
            return Err(SnapshotError { line: 1, reason });
        }
        let mut storage = Self {
            applied: head.applied,
            log_time_ms: head.log_time_ms,
            digest: head.digest,
            accounts: head.accounts,
            ..Self::default()
        };
        let mut count = 0;
        for (number, line) in (2..).zip(lines) {
            match read(number, line)? {
                Line::Session(id, session) => storage.sessions.restore(id, session),
                Line::Forgotten(room_id, seq) => {
                    storage.messages.restore_forgotten(room_id, seq);
                }
                Line::Place(room_id, place) => storage.messages.restore(&room_id, place),
            }
            count += 1;
        }
        if count != head.lines {
            let reason = format!("{count} lines follow, {} should", head.lines);
            return Err(SnapshotError { line: 1, reason });
        }
        storage.messages.sort();
        Ok(storage)
    }
}

fn write<T: Serialize>(to: &mut Vec<u8>, value: &T) {
    // Only string keys and infallible serialisers.
    to.extend(serde_json::to_vec(value).expect("a snapshot serialises"));
    to.push(b'\n');
}

fn read<T: serde::de::DeserializeOwned>(number: usize, line: &[u8]) -> Result<T, SnapshotError> {
    let fault = |reason: String| SnapshotError { line: number, reason };
    let text = line.strip_suffix(b"\n").ok_or_else(|| fault("it has no end".into()))?;
    serde_json::from_slice(text).map_err(|error| fault(error.to_string()))
}
