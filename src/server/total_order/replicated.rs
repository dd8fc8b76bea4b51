//! What the one order drives: messages and rooms, sessions and who sent what already, accounts.
//!
//! ```text
//!   entries in order ─▶ apply ─┬─ CHAT ────────▶ MessageStorage: rooms, their messages in order and by id
//!                              ├─ DELETE ──────▶ the place of a message stays, its text goes
//!                              ├─ CLIENT_JOIN ─▶ Sessions: the last 1,024 ids of each, for a day of log time
//!                              └─ CLIENT_JOIN ─▶ Accounts: what a user's password is checked against
//! ```
//!
//! It is a function of the entries alone: no clock, no chance, nothing of the server that it runs on. So servers
//! that applied the same entries are in the same state, which [`ReplicatedStorage::digest`] shows. A
//! [snapshot](ReplicatedStorage::to_snapshot) is all of it, and stands for the entries up to
//! [`applied`](ReplicatedStorage::applied).
//!
//! | raft-messaging.txt | here |
//! |---|---|
//! | `MessageStorage` | [`MessageStorage`] |
//! | `ReplicatedDict(name="messages")` | [`MessageStorage::get`]: by id, through a table of hashes for each room |
//! | `ReplicatedList(name="message_index")` | [`MessageStorage::all`]: every message in order, kept room by room |
//! | store, get, delete | a CHAT or DELETE that is applied; [`MessageStorage::get`] |
//! | all, since a time, count | [`MessageStorage::all`], [`visit_since`](MessageStorage::visit_since), [`count`](MessageStorage::count) |
//! | statistics | [`ReplicatedStorage::statistics`] |
//! | rooms and their members | [`MessageStorage::rooms`]; who has spoken in them is in the statistics, who is there now is [`presence`](crate::server::presence), which is not replicated |
//! | atomic operations | one entry is applied at a time, whole |
//!
//! **Exactly once.** A message that a client sent again, because it did not hear that it was taken, may
//! stand twice in the order. Its second entry changes nothing. *Log time* is the timestamps that leaders gave, never
//! a local clock, or servers would forget at different places. What is forgotten is refused, see [`sessions`].
//!
//! Source: raft-messaging.txt, "Data Replication" (`MessageStorage`: a `ReplicatedDict`
//! of messages, a `ReplicatedList` as their index); Ongaro (2014), section 6.3.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Entry, Seq};
use crate::domain::content::{Deletion, Registration, Statistics};
use crate::domain::{Content, Message, MessageType};
use crate::server::planted::{Planted, is_planted};

pub mod messages;
pub mod sessions;
mod snapshot;

pub use messages::{MessageStorage, Place, Room};
pub use sessions::{SESSION_IDS_MAX, SESSION_KEPT_MS, Session, Sessions};
pub use snapshot::{FrozenStorage, SnapshotError};

/// What an entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is a new message: the room's last one.
    Stored,
    /// It repeats what an earlier entry did.
    Duplicate,
    /// The message at this place is deleted.
    Deleted(Seq),
    /// The session is known, from here on or still.
    Registered,
    /// It did nothing, because.
    Refused(Refusal),
    /// It says nothing to a chat.
    Nothing,
}

/// Why an entry did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The session, or this id of it, was forgotten: it may have been applied before.
    Expired,
    /// The user name has an account, and the session has not shown its password.
    NotAuthenticated,
    /// The message that is to be deleted is not in the room.
    NotFound,
    /// It is another user's.
    NotYours,
}

/// A user name with a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What a password is checked against.
    pub verifier: String,
    /// The place of the entry that made it: messages after it are the account's.
    pub since: Seq,
}

/// Messages, sessions and accounts after the entries that were applied.
#[derive(Clone, Debug, Default)]
pub struct ReplicatedStorage {
    messages: MessageStorage,
    sessions: Sessions,
    /// By user name.
    accounts: BTreeMap<String, Account>,
    applied: Seq,
    /// The log time: the greatest timestamp that was applied, in milliseconds since 1970.
    log_time_ms: u64,
    digest: u32,
    /// What was taken into the digest last: memory to be used again.
    stirred: Vec<u8>,
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
        let before_ms = self.log_time_ms;
        self.log_time_ms = self.log_time_ms.max(entry.timestamp.unwrap_or_default());
        self.stir(entry);
        let applied = match entry.message_type {
            MessageType::Chat => self.say(entry),
            MessageType::Delete => self.delete(entry),
            MessageType::ClientJoin => self.register(entry, before_ms),
            _ => Applied::Nothing,
        };
        // After it: a session that is still known when it speaks again is no risk, however long it was silent.
        self.sessions.forget(self.log_time_ms);
        applied
    }

    fn say(&mut self, entry: &Entry) -> Applied {
        let (Some((id, message_id)), Some(seq)) = (entry.duplicate_key(), entry.seq) else {
            return Applied::Nothing;
        };
        let known = self.sessions.get_mut(id).filter(|known| known.user == entry.sender_id);
        let Some(session) = known else { return Applied::Refused(Refusal::Expired) };
        if session.token_hash.is_none() && self.accounts.contains_key(&entry.sender_id) {
            return Applied::Refused(Refusal::NotAuthenticated);
        }
        if session.contains(message_id) && !is_planted(Planted::NoDuplicateCheck) {
            return Applied::Duplicate;
        }
        if session.has_forgotten(message_id) {
            return Applied::Refused(Refusal::Expired);
        }
        Arc::make_mut(session).remember(message_id, self.log_time_ms);
        // Not the entry's own time: another leader's clock was ahead, and in the history time never runs backwards.
        self.messages.store(seq, entry, self.log_time_ms);
        Applied::Stored
    }

    fn delete(&mut self, entry: &Entry) -> Applied {
        let (Some((id, _)), Some(seq)) = (entry.duplicate_key(), entry.seq) else {
            return Applied::Nothing;
        };
        let Ok(Deletion { target, session }) = entry.content.parse() else {
            return Applied::Nothing;
        };
        let authenticated = self.sessions.get(id).is_some_and(|known| known.token_hash.is_some());
        let account = self.accounts.get(&entry.sender_id);
        // Ids of messages tell the session; with a password it takes more than to know it.
        let is_own = |said: &Message| {
            let same_session = said.session.as_deref() == Some(id);
            let of_user = account.is_some_and(|account| said.seq > Some(account.since));
            said.sender_id == entry.sender_id
                && (account.is_none() || authenticated)
                && (same_session || of_user)
        };
        let room = self.messages.room(&entry.room_id);
        let mut found = room.map(|room| room.with_id(&target)).unwrap_or_default();
        found.retain(|said| session.as_ref().is_none_or(|of| said.session.as_ref() == Some(of)));
        let Some(own) = found.iter().find(|said| is_own(said)) else {
            let alive = found.iter().any(|said| said.message_type == MessageType::Chat);
            let refusal = if alive { Refusal::NotYours } else { Refusal::NotFound };
            return Applied::Refused(refusal);
        };
        let place = own.seq.unwrap_or_default();
        let deleted = self.messages.delete(&entry.room_id, place, seq);
        if deleted { Applied::Deleted(place) } else { Applied::Duplicate }
    }

    /// `before_ms` is the log time before this entry. What was forgotten was so by then; and after a quiet week the
    /// entry that ends it must not be its own undoing.
    fn register(&mut self, entry: &Entry, before_ms: u64) -> Applied {
        let (Some((id, _)), Some(seq)) = (entry.duplicate_key(), entry.seq) else {
            return Applied::Nothing;
        };
        let Ok(Registration { since, verifier, token_hash }) = entry.content.parse() else {
            return Applied::Nothing;
        };
        let user = &entry.sender_id;
        let known = self.sessions.get(id);
        let may_be_forgotten = before_ms > since.saturating_add(SESSION_KEPT_MS);
        if known.map_or(may_be_forgotten, |known| known.user != *user) {
            return Applied::Refused(Refusal::Expired);
        }
        let authenticated =
            token_hash.is_some() || known.is_some_and(|known| known.token_hash.is_some());
        let has_account = self.accounts.contains_key(user);
        // Of two that name a first password at once one is late, and has to say it again.
        if has_account && (!authenticated || verifier.is_some()) {
            return Applied::Refused(Refusal::NotAuthenticated);
        }
        if let Some(verifier) = verifier {
            self.accounts.insert(user.clone(), Account { verifier, since: seq });
        }
        self.sessions.register(id, user, token_hash, self.log_time_ms);
        Applied::Registered
    }

    /// Forgets what was said up to the place `seq`. Sessions and accounts stay, and so does the digest.
    pub fn forget_up_to(&mut self, seq: Seq) {
        self.messages.forget_up_to(seq);
    }

    /// Takes an entry into the digest.
    fn stir(&mut self, entry: &Entry) {
        let content = match &entry.content {
            Content::Empty => "",
            Content::Text(text) => text,
            Content::Object(raw) => raw.get(),
        };
        let session = entry.session.as_deref().unwrap_or_default();
        let texts = [entry.message_type.as_str(), session, &entry.message_id, &entry.sender_id];
        // In one piece: the checksum of many small ones takes several times as long.
        let stirred = &mut self.stirred;
        stirred.clear();
        stirred.extend_from_slice(&self.applied.to_le_bytes());
        stirred.extend_from_slice(&entry.timestamp.unwrap_or_default().to_le_bytes());
        for part in texts.into_iter().chain([entry.room_id.as_str(), content]) {
            stirred.extend_from_slice(part.as_bytes());
            stirred.push(0);
        }
        let mut hasher = crc32fast::Hasher::new_with_initial(self.digest);
        hasher.update(stirred);
        self.digest = hasher.finalize();
    }

    /// Whether the message `message_id` of `session` was applied, as far as that is remembered.
    pub fn contains(&self, session: &str, message_id: &str) -> bool {
        self.sessions.get(session).is_some_and(|known| known.contains(message_id))
    }

    /// What is remembered of `session`.
    pub fn session(&self, session: &str) -> Option<&Session> {
        self.sessions.get(session)
    }

    /// The account of the user `name`.
    pub fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.get(name)
    }

    /// The place of the last entry that was applied.
    pub fn applied(&self) -> Seq {
        self.applied
    }

    /// The log time, in milliseconds since 1970.
    pub fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    /// All messages.
    pub fn message_storage(&self) -> &MessageStorage {
        &self.messages
    }

    /// The room `room_id`, if something was said there.
    pub fn room(&self, room_id: &str) -> Option<&Room> {
        self.messages.room(room_id)
    }

    /// The messages of `room_id`, in order; deleted ones are left out. All of them at once: for a history that is small.
    pub fn messages(&self, room_id: &str) -> Vec<Entry> {
        let mut messages = Vec::new();
        self.messages.visit_since(room_id, 0, 0, |msg| {
            messages.push(Entry::new(msg));
            true
        });
        messages
    }

    /// The rooms with messages, by name.
    pub fn rooms(&self) -> impl Iterator<Item = &String> {
        self.messages.rooms().map(|(room_id, _)| room_id)
    }

    /// What is kept, in numbers. Members are the server's to add.
    pub fn statistics(&self) -> Statistics {
        let rooms = self.messages.room_statistics();
        Statistics {
            messages: rooms.iter().map(|room| room.messages).sum(),
            bytes: rooms.iter().map(|room| room.bytes).sum(),
            deleted: self.messages.deleted(),
            sessions: self.sessions.len() as u64,
            accounts: self.accounts.len() as u64,
            rooms,
        }
    }

    /// Stands for everything that was applied: equal where the same entries were, in the same order.
    pub fn digest(&self) -> u32 {
        self.digest
    }
}

#[cfg(test)]
mod tests;
