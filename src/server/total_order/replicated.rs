//! What the one order drives: rooms, their messages, and who sent what already.
//!
//! ```text
//!   entries in order ─▶ apply ─┬─▶ rooms: lobby [12 15 16 …]      message_index (ReplicatedList)
//!                              ├─▶ messages: (session, id) ─▶ 15   messages (ReplicatedDict)
//!                              └─▶ sessions: the last 1,024 ids of each, for a day of log time
//! ```
//!
//! It is a function of the entries alone: no clock, no chance, nothing of the server that it runs on. So servers
//! that applied the same entries are in the same state, which [`ReplicatedStorage::digest`] shows.
//!
//! **Exactly once.** A message that a client sent again, because it did not hear that it was taken, may
//! stand twice in the order. Its second entry changes nothing. *Log time* is the timestamps that leaders gave, never
//! a local clock, or servers would forget at different places.
//!
//! Source: raft-messaging.txt, "Data Replication" (`MessageStorage`: a `ReplicatedDict`
//! of messages, a `ReplicatedList` as their index); Ongaro (2014), section 6.3.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Entry, Seq};
use crate::domain::{Content, MessageType};
use crate::server::planted::{Planted, is_planted};

/// How many message ids of a session are remembered.
pub const SESSION_IDS_MAX: usize = 1024;
/// How long a session is remembered after its last message, in milliseconds of log time.
pub const SESSION_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// What an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is a new message: the room's last one.
    Stored,
    /// It repeats a message that stands earlier in the order.
    Duplicate,
    /// It says nothing to a chat.
    Nothing,
}

/// What is remembered of a session.
#[derive(Clone, Debug, Default)]
struct Session {
    /// Its last messages' ids, oldest first.
    order: VecDeque<String>,
    ids: BTreeSet<String>,
    /// The log time of its last message, in milliseconds.
    used_ms: u64,
}

/// The rooms and sessions after the entries that were applied.
#[derive(Clone, Debug, Default)]
pub struct ReplicatedStorage {
    /// Per room its messages in order.
    rooms: BTreeMap<String, Vec<Entry>>,
    sessions: BTreeMap<String, Session>,
    /// Sessions by the log time of their last message, to forget the oldest.
    by_age: BTreeSet<(u64, String)>,
    applied: Seq,
    /// The log time: the greatest timestamp that was applied, in milliseconds since 1970.
    log_time_ms: u64,
    digest: u32,
}

impl ReplicatedStorage {
    /// Nothing applied yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the next entry. One that was applied before changes nothing.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        let Some(seq) = entry.seq.filter(|seq| *seq > self.applied) else {
            return Applied::Nothing;
        };
        self.applied = seq;
        self.log_time_ms = self.log_time_ms.max(entry.timestamp.unwrap_or_default());
        self.stir(entry);
        self.forget_sessions();
        match entry.message_type {
            MessageType::Chat => self.store(entry),
            _ => Applied::Nothing,
        }
    }

    fn store(&mut self, entry: &Entry) -> Applied {
        let Some((session, message_id)) = entry.duplicate_key() else { return Applied::Nothing };
        if self.contains(session, message_id) && !is_planted(Planted::NoDuplicateCheck) {
            return Applied::Duplicate;
        }
        let known = self.sessions.entry(session.into()).or_default();
        self.by_age.remove(&(known.used_ms, session.to_string()));
        known.used_ms = self.log_time_ms;
        self.by_age.insert((known.used_ms, session.into()));
        known.ids.insert(message_id.into());
        known.order.push_back(message_id.into());
        if known.order.len() > SESSION_IDS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.ids.remove(&oldest);
        }
        self.rooms.entry(entry.room_id.clone()).or_default().push(entry.clone());
        Applied::Stored
    }

    fn forget_sessions(&mut self) {
        while let Some((used_ms, session)) = self.by_age.first().cloned() {
            if used_ms + SESSION_KEPT_MS >= self.log_time_ms {
                break;
            }
            self.by_age.remove(&(used_ms, session.clone()));
            self.sessions.remove(&session);
        }
    }

    /// Takes an entry into the digest.
    fn stir(&mut self, entry: &Entry) {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.digest);
        hasher.update(&self.applied.to_le_bytes());
        let Content::Text(text) = &entry.content else {
            hasher.update(entry.message_type.as_str().as_bytes());
            self.digest = hasher.finalize();
            return;
        };
        for part in [entry.session.as_deref().unwrap_or_default(), &entry.message_id, text] {
            hasher.update(part.as_bytes());
            hasher.update(&[0]);
        }
        self.digest = hasher.finalize();
    }

    /// Whether the message `message_id` of `session` was applied, as far as that is remembered.
    pub fn contains(&self, session: &str, message_id: &str) -> bool {
        self.sessions.get(session).is_some_and(|known| known.ids.contains(message_id))
    }

    /// The place of the last entry that was applied.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// The log time, in milliseconds since 1970.
    pub fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    /// The messages of `room_id`, in order.
    pub fn messages(&self, room_id: &str) -> &[Entry] {
        self.rooms.get(room_id).map_or(&[], Vec::as_slice)
    }

    /// The rooms with messages, by name.
    pub fn rooms(&self) -> impl Iterator<Item = &String> {
        self.rooms.keys()
    }

    /// Stands for everything that was applied: equal where the same entries were, in the same order.
    pub fn digest(&self) -> u32 {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Message;

    fn chat(seq: Seq, session: &str, id: &str, at_ms: u64) -> Entry {
        let mut msg = Message::new(MessageType::Chat, "alice").with_id(id).in_room("lobby");
        msg.seq = Some(seq);
        msg.session = Some(session.into());
        msg.timestamp = Some(at_ms);
        msg.content = id.into();
        msg.into()
    }

    #[test]
    fn a_message_counts_once() {
        let mut storage = ReplicatedStorage::new();
        assert_eq!(storage.apply(&chat(1, "s", "a", 5)), Applied::Stored);
        assert_eq!(storage.apply(&chat(2, "s", "a", 6)), Applied::Duplicate);
        assert_eq!(storage.apply(&chat(3, "t", "a", 6)), Applied::Stored, "another session's");
        assert_eq!(storage.apply(&chat(3, "t", "b", 6)), Applied::Nothing, "applied before");
        assert_eq!((storage.messages("lobby").len(), storage.applied()), (2, 3));
    }

    #[test]
    fn sessions_are_forgotten_by_log_time_and_by_number() {
        let mut storage = ReplicatedStorage::new();
        storage.apply(&chat(1, "s", "a", 1000));
        storage.apply(&chat(2, "t", "a", 1000 + SESSION_KEPT_MS));
        assert!(storage.contains("s", "a"));
        storage.apply(&chat(3, "t", "b", 1001 + SESSION_KEPT_MS));
        assert!(!storage.contains("s", "a"));
        for seq in 4..4 + SESSION_IDS_MAX as u64 {
            storage.apply(&chat(seq, "t", &format!("m{seq}"), 0));
        }
        assert!(!storage.contains("t", "b") && storage.contains("t", "m4"));
    }

    #[test]
    fn the_digest_tells_orders_apart() {
        let of = |ids: [&str; 2]| {
            let mut storage = ReplicatedStorage::new();
            for (seq, id) in (1..).zip(ids) {
                storage.apply(&chat(seq, "s", id, 0));
            }
            storage.digest()
        };
        assert_eq!(of(["a", "b"]), of(["a", "b"]));
        assert_ne!(of(["a", "b"]), of(["b", "a"]));
    }
}
