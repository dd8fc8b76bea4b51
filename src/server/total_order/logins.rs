//! Who may speak, and as whom: sessions are registered, passwords and tokens checked.
//!
//! ```text
//!   CLIENT_JOIN with a password          without one, and the name has no account
//!        │ wait                               │ welcome at once
//!        ▼                                    ▼
//!   HashJob: a thread of its own         the first CHAT: CLIENT_JOIN, then CHAT,
//!        │ right                         into the queue of what is passed on
//!        ▼
//!   CLIENT_JOIN in the order: the session's token hash, a new account's verifier
//!        │ committed
//!        ▼
//!   welcome, with the token: from here on every server takes it instead of the password
//! ```
//!
//! A request that waits is handed in again when something changed ([`Flow::Wait`](crate::server::Flow::Wait)); what
//! is known of it by then stands in [`Logins`].
//!
//! Promise: a name with an account is spoken under by sessions that showed its password alone; with closed registration
//! nobody learns which names have one. Price: one hash for each session that begins, one more entry in the order.
//! Leaves out: changing a password, taking an account back, slowing down who guesses beyond one hash per core.
//! Passwords and tokens travel as they are: run it in a network that you trust.

use std::collections::{BTreeMap, VecDeque};

use super::forwarding::Outgoing;
use super::password::{HashJob, Hashed, Proof, token_hash};
use super::replicated::{Applied, Refusal, SESSION_KEPT_MS};
use crate::domain::content::{ClientJoin, Registration};
use crate::domain::{Message, MessageType};
use crate::error::RequestError;
use crate::network::ConnId;
use crate::server::ServerNode;
use crate::server::connections::Hindrance;
use crate::server::step::Step;

/// A session that stays connected is registered again when it has said nothing for so long, in milliseconds.
const RENEW_AFTER_MS: u64 = SESSION_KEPT_MS / 2;

/// Who is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Nobody without a password.
    pub password_required: bool,
    /// Nobody whose name has no account already.
    pub registration_closed: bool,
}

/// How far the password of a connection's CLIENT_JOIN is.
#[derive(Debug)]
enum Login {
    /// It is hashed.
    Hashing,
    /// It was.
    Hashed(Option<Proof>),
    /// It was right: the session's registration has no place yet.
    Placed { session: String, token: String },
    /// The registration was applied.
    Answered { token: String, applied: Applied },
}

/// The passwords that are being checked here.
#[derive(Debug, Default)]
pub(super) struct Logins {
    by_conn: BTreeMap<ConnId, Login>,
    /// Of connections in `by_conn` alone.
    jobs: VecDeque<HashJob>,
}

impl super::Ordered {
    /// Whether the password of `conn` waits to be checked, or is being.
    pub(in crate::server) fn is_hashing(&self, conn: ConnId) -> bool {
        matches!(self.logins.by_conn.get(&conn), Some(Login::Hashing))
    }
}

impl ServerNode {
    /// Whether a client may join: with a token for it when it said a password or its token, without when it need not.
    pub(in crate::server) fn admit(
        &mut self,
        conn: ConnId,
        msg: &Message,
        join: &ClientJoin,
        step: &Step,
    ) -> Result<Option<String>, Hindrance> {
        // A ring has no accounts. That no token comes back tells the client that nobody looked at its password.
        let Some(ordered) = &mut self.ordered else { return Ok(None) };
        let (message_id, user) = (msg.message_id.clone(), &msg.sender_id);
        if let Some(token) = &join.token {
            let hash = token_hash(&join.session, token);
            let known = ordered.storage.session(&join.session);
            let is_right =
                known.map(|known| known.user == *user && known.token_hash.as_ref() == Some(&hash));
            match is_right {
                Some(true) => return Ok(Some(token.clone())),
                _ if join.password.is_some() => {}
                Some(false) => return Err(RequestError::WrongToken { message_id }.into()),
                // What was committed elsewhere may not be here yet.
                None => return Err(Hindrance::Wait(RequestError::WrongToken { message_id })),
            }
        }
        let Some(password) = &join.password else {
            let Admission { password_required, registration_closed } = self.config.admission;
            let has_account = ordered.storage.account(user).is_some();
            if password_required || registration_closed || has_account {
                let name = user.clone();
                return Err(RequestError::PasswordNeeded { message_id, name }.into());
            }
            return Ok(None);
        };
        self.check_password(conn, msg, join, password, step).map(Some)
    }

    /// One step further with the password of `msg`: the session's token when it is done.
    fn check_password(
        &mut self,
        conn: ConnId,
        msg: &Message,
        join: &ClientJoin,
        password: &str,
        step: &Step,
    ) -> Result<String, Hindrance> {
        let waits = self.not_ready(msg, "the password is not checked yet");
        let wrong = || RequestError::WrongPassword { message_id: msg.message_id.clone() };
        let Some(ordered) = &mut self.ordered else { return Err(waits) };
        let registration_closed = self.config.admission.registration_closed;
        let (next, outcome) = match ordered.logins.by_conn.remove(&conn) {
            Some(Login::Hashed(None)) => return Err(wrong().into()),
            Some(Login::Hashed(Some(proof))) => {
                let session = join.session.clone();
                let token = proof.token.clone();
                ordered.place_login(conn, msg, join, proof, step);
                (Some(Login::Placed { session, token }), Err(waits))
            }
            Some(Login::Answered { token, applied: Applied::Registered }) => (None, Ok(token)),
            Some(Login::Answered { applied: Applied::Refused(Refusal::Expired), .. }) => {
                let message_id = msg.message_id.clone();
                return Err(RequestError::SessionExpired { message_id }.into());
            }
            // Somebody else made the account meanwhile: the password may still be the same.
            None | Some(Login::Answered { .. }) => {
                let account = ordered.storage.account(&msg.sender_id);
                ordered.logins.jobs.push_back(HashJob {
                    conn,
                    password: password.into(),
                    verifier: account.map(|account| account.verifier.clone()),
                    registers: !registration_closed,
                });
                (Some(Login::Hashing), Err(waits))
            }
            under_way => (under_way, Err(waits)),
        };
        if let Some(next) = next {
            ordered.logins.by_conn.insert(conn, next);
        }
        outcome
    }

    /// The next password to check, on a thread that may take its time; then [`hashed`](Self::hashed).
    pub fn next_hash_job(&mut self) -> Option<HashJob> {
        self.ordered.as_mut()?.logins.jobs.pop_front()
    }

    /// Whether a password waits to be checked.
    pub fn has_hash_job(&self) -> bool {
        self.ordered.as_ref().is_some_and(|ordered| !ordered.logins.jobs.is_empty())
    }

    /// A password was checked.
    pub fn hashed(&mut self, hashed: Hashed, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        if let Some(login @ Login::Hashing) = ordered.logins.by_conn.get_mut(&hashed.conn) {
            *login = Login::Hashed(hashed.proof);
            // What it waits for now is another matter.
            let conn = self.conns.get_mut(&hashed.conn);
            if let Some(waiting) = conn.and_then(|conn| conn.waiting.as_mut()) {
                waiting.since = step.now;
            }
            step.cm.resume(hashed.conn);
        }
    }

    /// `conn` is over, and what it waited for.
    pub(in crate::server) fn forget_login(&mut self, conn: ConnId) {
        let Some(ordered) = &mut self.ordered else { return };
        let Some(login) = ordered.logins.by_conn.remove(&conn) else { return };
        ordered.logins.jobs.retain(|job| job.conn != conn);
        if let Login::Placed { session, token } = login {
            ordered.forwards.done(&session, &token_hash(&session, &token));
        }
    }

    /// A registration of `conn` was applied. False when it was not that of a login.
    pub(super) fn login_applied(
        &mut self,
        conn: ConnId,
        entry: &Message,
        applied: Applied,
    ) -> bool {
        let Some(ordered) = &mut self.ordered else { return false };
        let Some(login) = ordered.logins.by_conn.get_mut(&conn) else { return false };
        let Login::Placed { session, token } = login else { return false };
        if token_hash(session, token) != entry.message_id {
            return false;
        }
        *login = Login::Answered { token: std::mem::take(token), applied };
        true
    }

    /// `session` is welcome here; `since` is what it said about when it began to speak.
    pub(in crate::server) fn note_welcome(
        &mut self,
        session: &str,
        since: Option<u64>,
    ) -> Option<u64> {
        let ordered = self.ordered.as_mut()?;
        match since {
            Some(since) => ordered.since.insert(session.into(), since),
            None => ordered.since.remove(session),
        };
        Some(ordered.storage.log_time_ms())
    }

    /// `session` is about to speak: its registration goes first, unless it is known.
    pub(super) fn register_before(&mut self, session: &str, user: &str, conn: ConnId, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        if ordered.storage.session(session).is_some() {
            return;
        }
        let now_ms = ordered.storage.log_time_ms();
        let since = *ordered.since.entry(session.into()).or_insert(now_ms);
        let msg =
            registration(session, user, "", &Registration { since, ..Registration::default() });
        ordered.forwards.push(session, Outgoing { conn, since: step.now, msg });
    }

    /// Registers sessions again that are connected here and have been silent for long.
    pub(super) fn renew_sessions(&mut self, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        if ordered.order.leader().is_none() {
            // Nobody is cut off because of it: there is half a day for it.
            return;
        }
        for (session, client) in &self.clients {
            let Some(known) = ordered.storage.session(session) else { continue };
            if step.wall_ms <= known.used_ms.saturating_add(RENEW_AFTER_MS) {
                continue;
            }
            // Should it take a day to be placed: the session was in use until then, and may be forgotten.
            let renewal = Registration { since: known.used_ms, ..Registration::default() };
            let msg = registration(session, &client.user, "", &renewal);
            ordered.forwards.push(session, Outgoing { conn: client.conn, since: step.now, msg });
        }
    }
}

impl super::Ordered {
    /// The password was right: what follows from it goes into the order.
    fn place_login(
        &mut self,
        conn: ConnId,
        msg: &Message,
        join: &ClientJoin,
        proof: Proof,
        step: &Step,
    ) {
        let token_hash = token_hash(&join.session, &proof.token);
        let content = Registration {
            since: join.since.unwrap_or_else(|| self.storage.log_time_ms()),
            verifier: proof.verifier,
            token_hash: Some(token_hash.clone()),
        };
        let msg = registration(&join.session, &msg.sender_id, &token_hash, &content);
        self.forwards.push(&join.session, Outgoing { conn, since: step.now, msg });
    }
}

/// CLIENT_JOIN as it is placed. Its id keeps it apart from the session's messages, whose ids are not empty, and a login from
/// another.
fn registration(session: &str, user: &str, id: &str, content: &Registration) -> Message {
    let mut msg = Message::new(MessageType::ClientJoin, user).with_id(id).saying(content);
    msg.session = Some(session.into());
    msg
}
