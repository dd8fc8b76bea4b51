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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How many message ids of a session are remembered.
pub const SESSION_IDS_MAX: usize = 1024;
/// How long a session is remembered after its last message, in milliseconds of log time.
pub const SESSION_KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// What is remembered of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whose it is.
    pub user: String,
    /// What its token is checked against, once it has shown a password.
    pub token_hash: Option<String>,
    /// Its last messages' ids, oldest first.
    ids: VecDeque<Arc<str>>,
    /// The same, to look up.
    #[serde(skip)]
    known: BTreeSet<Arc<str>>,
    /// Ids with a number below this may have been forgotten.
    forgotten: u64,
    /// The log time of its last message or registration, in milliseconds.
    pub used_ms: u64,
}

impl Session {
    /// Whether the message with this id was applied, as far as that is remembered.
    pub fn contains(&self, message_id: &str) -> bool {
        self.known.contains(message_id)
    }

    fn remember(&mut self, id: &str, message_id: &str) {
        let shared: Arc<str> = message_id.into();
        if self.known.insert(shared.clone()) {
            self.ids.push_back(shared);
        }
        if self.ids.len() > SESSION_IDS_MAX
            && let Some(oldest) = self.ids.pop_front()
        {
            self.known.remove(&oldest);
            let beyond = number(id, &oldest).map_or(0, |number| number.saturating_add(1));
            self.forgotten = self.forgotten.max(beyond);
        }
    }
}

/// The n of `<session>-<n>`.
fn number(session: &str, message_id: &str) -> Option<u64> {
    message_id.strip_prefix(session)?.strip_prefix('-')?.parse().ok()
}

/// The sessions that are remembered.
#[derive(Clone, Debug, Default)]
pub struct Sessions {
    /// Shared with a state that is being written down: the first change after that copies the session.
    by_id: BTreeMap<String, Arc<Session>>,
    /// By the log time of their last use, to forget the oldest.
    by_age: BTreeSet<(u64, String)>,
}

impl Sessions {
    /// What is remembered of the session `id`.
    pub fn get(&self, id: &str) -> Option<&Session> {
        self.by_id.get(id).map(|session| &**session)
    }

    /// Whether the message `message_id` of the session `id` may have been applied and forgotten.
    pub fn has_forgotten(&self, id: &str, message_id: &str) -> bool {
        let number = number(id, message_id);
        self.get(id).is_some_and(|session| number.is_some_and(|n| n < session.forgotten))
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// All of them, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Arc<Session>)> {
        self.by_id.iter()
    }

    /// The session `id` of `user` is known from here on, or goes on. A token replaces the one before.
    pub(super) fn register(
        &mut self,
        id: &str,
        user: &str,
        token_hash: Option<String>,
        now_ms: u64,
    ) {
        let session = Arc::make_mut(self.by_id.entry(id.into()).or_default());
        session.user = user.into();
        session.token_hash = token_hash.or(session.token_hash.take());
        self.touch(id, now_ms);
    }

    /// The message `message_id` of the session `id` was applied.
    pub(super) fn remember(&mut self, id: &str, message_id: &str, now_ms: u64) {
        if let Some(session) = self.by_id.get_mut(id).map(Arc::make_mut) {
            session.remember(id, message_id);
            self.touch(id, now_ms);
        }
    }

    fn touch(&mut self, id: &str, now_ms: u64) {
        let Some(session) = self.by_id.get_mut(id).map(Arc::make_mut) else { return };
        let before = std::mem::replace(&mut session.used_ms, now_ms);
        self.by_age.remove(&(before, id.to_string()));
        self.by_age.insert((now_ms, id.into()));
    }

    /// Forgets who was last heard too long before the log time `now_ms`.
    pub(super) fn forget(&mut self, now_ms: u64) {
        while let Some((used_ms, _)) = self.by_age.first() {
            if used_ms + SESSION_KEPT_MS >= now_ms {
                break;
            }
            if let Some((_, id)) = self.by_age.pop_first() {
                self.by_id.remove(&id);
            }
        }
    }

    /// Takes a session of a snapshot.
    pub(super) fn restore(&mut self, id: String, mut session: Session) {
        session.known = session.ids.iter().cloned().collect();
        self.by_age.insert((session.used_ms, id.clone()));
        self.by_id.insert(id, Arc::new(session));
    }
}
