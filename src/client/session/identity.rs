//! Who a session is to the servers: its name, its password or token, and since when it speaks.
//!
//! ```text
//!   password ──▶ CLIENT_JOIN ──▶ Welcome: token, log_time
//!   token, since ◀──────────────────┘   said at every later connection instead
//! ```
//!
//! Servers remember a session for a day after its last message. One that was forgotten begins again under another name
//! (`5f1c0a9e`, then `5f1c0a9e.1`), by itself; a message that may have been taken before is not sent again then.

use std::fmt;

use super::{Session, Step};
use crate::client::event::Event;
use crate::domain::content::{ClientJoin, ErrorContent, Welcome};

/// What proves who the user is. Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What a session has to survive its program with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// How many connections it had.
    pub connections: u64,
    /// The log time of its first welcome, in milliseconds; see [`ClientJoin::since`].
    pub since: Option<u64>,
    /// How often it began again.
    pub renewals: u64,
}

/// Who the session is to the servers.
#[derive(Default)]
pub(super) struct Identity {
    pub(super) life: Life,
    pub(super) password: Option<Password>,
    /// A server wants one.
    pub(super) password_wanted: bool,
    token: Option<String>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Identity {
    /// What the next connection says; `id` is the session's first name.
    pub(super) fn introduce(&mut self, id: &str) -> ClientJoin {
        self.life.connections += 1;
        let password = self.password.as_ref().filter(|_| self.token.is_none());
        ClientJoin {
            session: match self.life.renewals {
                0 => id.into(),
                renewals => format!("{id}.{renewals}"),
            },
            password: password.map(|password| password.0.clone()),
            token: self.token.clone(),
            since: self.life.since,
            connection: Some(self.life.connections),
        }
    }

    /// A server welcomed the session.
    pub(super) fn welcomed(&mut self, welcome: &Welcome) {
        self.life.since = self.life.since.or(welcome.log_time);
        if welcome.token.is_some() {
            self.token.clone_from(&welcome.token);
        }
    }

    /// Whether `welcome` shows that nobody looked at the password that was given.
    pub(super) fn is_unproved_by(&self, welcome: &Welcome) -> bool {
        self.password.is_some() && welcome.token.is_none()
    }

    /// The token is refused. Whether the password can help.
    pub(super) fn forget_token(&mut self) -> bool {
        self.token.take().is_some() && self.password.is_some()
    }

    /// The session begins again.
    fn renew(&mut self) {
        self.token = None;
        (self.life.since, self.life.renewals) = (None, self.life.renewals + 1);
    }
}

impl Session {
    /// Proves who the user is with `password`, from the next connection on.
    pub fn set_password(&mut self, password: Option<Password>) {
        self.identity.password = password;
    }

    /// Whether a server wants a password for the name, and none was given.
    pub fn wants_password(&self) -> bool {
        self.identity.password_wanted
    }

    /// What has to survive the program.
    pub fn life(&self) -> Life {
        self.identity.life
    }

    /// Nobody remembers the session: it begins again. Messages that were sent before the present connection may have been
    /// taken, and are given up; the others go out under the new name.
    pub(super) fn expired(&mut self, error: &ErrorContent) -> Step {
        self.identity.renew();
        let doubtful = self.outstanding.take_doubtful();
        let mut step = self.move_on(&error.reason);
        step.events.extend(
            doubtful.into_iter().map(|chat| Event::Refused {
                message_id: chat.message_id,
                code: error.code.clone(),
                reason:
                    "it is not known whether this was said before; look, and say it again if not"
                        .into(),
                retryable: false,
            }),
        );
        step
    }
}
