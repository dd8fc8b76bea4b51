//! Sessions as everyone remembers them, so that each message counts once.
//!
//! ```text
//!   order:   … CLIENT_JOIN s (since 70) │ CHAT s-1 │ CHAT s-2 │ …  a day of log time …  │ CHAT s-2 again
//!                 s is known ───────────────────────────────────────────▶ forgotten      └─ refused: expired
//! ```
//!
//! The last [`SESSION_IDS_MAX`] ids of a session are kept for [`SESSION_KEPT_MS`] of log time after its last
//! message. What was forgotten may have been applied, so it is refused with `SESSION_EXPIRED` and never applied a second time:
//!
//! - **An old id.** Ids are `<session>-<n>` with n growing, as this project's clients make them. Of the ids that no
//!   longer fit the greatest n is kept, and a smaller one that is not remembered is refused. Clients keep what is
//!   unacknowledged within 1,024 numbers. Other ids have no order; who makes such and resends one after
//!   1,024 others has it applied twice.
//! - **An old session.** A message of a session that is not known is refused. So the first one needs a *registration*
//!   before it: the server that holds the connection puts one in front of the session's first message in the queue of what it
//!   passes on, which costs no round trip. A registration says *since* when the session speaks: it said nothing before that
//!   log time. An unknown session that speaks for longer than the time for which sessions are kept may have been forgotten:
//!   its registration is refused. One that speaks for less is new for certain, and its registration is safe.
//!
//! Why no bare "this session was welcomed before": its first server may have died before it passed anything on. The
//! session would be refused although it is new. With *since* it is taken.
//!
//! Why *since* is never too late: the client keeps the log time of the session's first welcome and says it at every later
//! connection. The first registration is placed after that welcome, and log time does not run backwards, so it
//! is known until at least a day after *since*. A server that is told none takes its own log time when the first message
//! comes; it stays the same for the connection, in each re-forwarding too. Forgetting happens after an entry and before the next,
//! and a registration is compared with the time before its own entry: the entry that ends a quiet week expires nobody who is new.
//!
//! Why the registration is first wherever messages are passed on: it stands in the same queue before them
//! ([`forwarding`](super::super::forwarding)), leaves it only when it is committed, and the leader takes a server's queue in order. A new
//! leader is sent the queue from its first entry; what is missing from it is committed, and so in the new leader's log.
//!
//! A session that stays connected does not expire: its server registers it again every half day. A client whose session did
//! expire begins another one by itself; what it does not know the fate of it does not send again, and says so.
//!
//! **Price.** A message costs a look into a hash table and a few compared numbers, whatever the number of sessions: its ids are runs of
//! numbers (`seen`), and *by age* it is not moved at each message but looked at again when it seems too old:
//!
//! ```text
//!   by age   (70, s) (75, t) …       s spoke at 70, or later: who says 70 now?   s.used_ms = 90
//!            a day later: 70 is too old, 90 is not   ⇒   (75, t) (90, s) …
//! ```
//!
//! What stands there is never later than the session's last use. So all that are too old are found, at the same entry everywhere, and none
//! that is not goes.

use std::collections::BTreeSet;
#[expect(
    clippy::disallowed_types,
    reason = "sorted where its order would show: in a snapshot"
)]
use std::collections::HashMap;
use std::sync::Arc;

use seen::{Id, Seen};
use serde::{Deserialize, Serialize};

mod seen;

/// How many message ids of a session are remembered.
pub const SESSION_IDS_MAX: usize = 1024;
/// How long a session is remembered after its last message, in milliseconds of log time.
pub const SESSION_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// What is remembered of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Which it is.
    id: Arc<str>,
    /// Whose it is.
    pub user: String,
    /// What its token is checked against, once it has shown a password.
    pub token_hash: Option<String>,
    /// Its last messages' ids.
    seen: Seen,
    /// The log time of its last message or registration, in milliseconds.
    pub used_ms: u64,
}

impl Session {
    fn new(id: &Arc<str>) -> Self {
        let (user, token_hash) = (String::new(), None);
        Self { id: id.clone(), user, token_hash, seen: Seen::default(), used_ms: 0 }
    }

    /// Which it is.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Whether the message with this id was applied, as far as that is remembered.
    pub fn contains(&self, message_id: &str) -> bool {
        self.seen.contains(Id::of(&self.id, message_id))
    }

    /// Whether the message with this id may have been applied and forgotten.
    pub(super) fn has_forgotten(&self, message_id: &str) -> bool {
        self.seen.has_forgotten(&self.id, Id::of(&self.id, message_id))
    }

    /// The message with this id was applied, at the log time `now_ms`.
    pub(super) fn remember(&mut self, message_id: &str, now_ms: u64) {
        self.seen.push(&self.id, Id::of(&self.id, message_id));
        self.used_ms = now_ms;
    }

    /// As it stands in a snapshot.
    pub(super) fn to_saved(&self) -> SavedSession {
        SavedSession {
            user: self.user.clone(),
            token_hash: self.token_hash.clone(),
            ids: self.seen.to_texts(&self.id),
            forgotten: self.seen.forgotten,
            used_ms: self.used_ms,
        }
    }
}

/// A session as it stands in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedSession {
    user: String,
    token_hash: Option<String>,
    /// Oldest first.
    ids: Vec<String>,
    forgotten: u64,
    used_ms: u64,
}

/// The sessions that are remembered.
#[derive(Clone, Debug, Default)]
#[expect(clippy::disallowed_types, reason = "as above")]
pub struct Sessions {
    /// Shared with a state that is being written down: the first change after that copies the session.
    by_id: HashMap<Arc<str>, Arc<Session>>,
    /// Each once, by the log time of its last use or an earlier one; see the module.
    by_age: BTreeSet<(u64, Arc<str>)>,
}

impl Sessions {
    /// What is remembered of the session `id`.
    pub fn get(&self, id: &str) -> Option<&Session> {
        self.by_id.get(id).map(|session| &**session)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Arc<Session>> {
        self.by_id.get_mut(id)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.by_id.values()
    }

    /// The session `id` of `user` is known from here on, or goes on. A token replaces the one before.
    pub(super) fn register(
        &mut self,
        id: &str,
        user: &str,
        token_hash: Option<String>,
        now_ms: u64,
    ) {
        if !self.by_id.contains_key(id) {
            let id: Arc<str> = id.into();
            self.by_age.insert((now_ms, id.clone()));
            self.by_id.insert(id.clone(), Arc::new(Session::new(&id)));
        }
        let Some(session) = self.by_id.get_mut(id).map(Arc::make_mut) else { return };
        session.user = user.into();
        session.token_hash = token_hash.or(session.token_hash.take());
        session.used_ms = now_ms;
    }

    /// Forgets who was last heard too long before the log time `now_ms`.
    pub(super) fn forget(&mut self, now_ms: u64) {
        let is_too_old = |used_ms: u64| used_ms.saturating_add(SESSION_KEPT_MS) < now_ms;
        while self.by_age.first().is_some_and(|(noted_ms, _)| is_too_old(*noted_ms)) {
            let Some((_, id)) = self.by_age.pop_first() else { return };
            match self.by_id.get(&id).map(|session| session.used_ms) {
                Some(used_ms) if !is_too_old(used_ms) => {
                    self.by_age.insert((used_ms, id));
                }
                _ => {
                    self.by_id.remove(&id);
                }
            }
        }
    }

    /// Takes a session of a snapshot.
    pub(super) fn restore(&mut self, id: String, saved: SavedSession) {
        let id: Arc<str> = id.into();
        let mut session = Session::new(&id);
        let SavedSession { user, token_hash, ids, forgotten, used_ms } = saved;
        (session.user, session.token_hash, session.used_ms) = (user, token_hash, used_ms);
        for message_id in &ids {
            session.seen.push(&id, Id::of(&id, message_id));
        }
        session.seen.forgotten = forgotten;
        self.by_age.insert((used_ms, id.clone()));
        self.by_id.insert(id, Arc::new(session));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn those_are_forgotten_whose_last_use_is_too_old_and_no_others(
            uses in proptest::collection::vec((0..6u8, 0..5u64, any::<bool>()), 1..200),
        ) {
            let (mut sessions, mut plain, mut now_ms) = (Sessions::default(), BTreeMap::new(), 0);
            for (name, step, registers) in uses {
                now_ms += [0, 1, SESSION_KEPT_MS / 3, SESSION_KEPT_MS, SESSION_KEPT_MS + 1][step as usize];
                let id = format!("s{name}");
                if registers {
                    sessions.register(&id, "alice", None, now_ms);
                    plain.insert(id, now_ms);
                } else if let Some(session) = sessions.get_mut(&id) {
                    Arc::make_mut(session).remember("x", now_ms);
                    plain.insert(id, now_ms);
                }
                sessions.forget(now_ms);
                plain.retain(|_, used_ms| *used_ms + SESSION_KEPT_MS >= now_ms);
                let mut left: Vec<_> = sessions.iter().map(|s| (s.id().to_string(), s.used_ms)).collect();
                left.sort();
                prop_assert_eq!(left, plain.clone().into_iter().collect::<Vec<_>>());
                prop_assert_eq!(sessions.by_age.len(), plain.len());
            }
        }
    }
}
