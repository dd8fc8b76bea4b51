//! What the users of a cluster saw: all that the [`checker`](super::checker) knows.
//!
//! Every message has a text of its own, so that the text names it.

use std::collections::BTreeMap;

use super::agenda::Micros;

/// Something that a session did or saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// The user went into `room`; with `all`, wanting all of its past.
    Entered {
        /// The room.
        room: String,
        /// Whether everything that was ever said there is to be shown.
        all: bool,
    },
    /// The session asked a server to be let into `room`, which shows it the room's past: a read.
    Asked {
        /// The room.
        room: String,
        /// How many of the last messages it wants; `None` when it resumes from what it was shown last.
        history: Option<u32>,
    },
    /// The cluster let the session into `room`.
    Joined {
        /// The room.
        room: String,
        /// How many messages of its past follow.
        history: u32,
    },
    /// The user left `room`.
    Left {
        /// The room.
        room: String,
    },
    /// The user wrote `text` in `room`.
    Wrote {
        /// The room.
        room: String,
        /// The message.
        text: String,
    },
    /// `text` was acknowledged.
    Acked {
        /// The message.
        text: String,
    },
    /// `text` was refused for good.
    Refused {
        /// The message.
        text: String,
        /// Why.
        code: String,
    },
    /// A server sent `text` to the session. The session may know it already.
    Got {
        /// The room.
        room: String,
        /// The message.
        text: String,
    },
    /// The session showed `text` to its user.
    Shown {
        /// The room.
        room: String,
        /// The message.
        text: String,
        /// Who wrote it, as the cluster says.
        sender: String,
    },
    /// The session goes on in `room` although something that it was shown is out of reach.
    Gap {
        /// The room.
        room: String,
    },
    /// The session was told that what stood in `room` up to a place is not kept any more.
    Starts {
        /// The room.
        room: String,
        /// The place.
        after: u64,
    },
    /// The cluster ended the session.
    Ended {
        /// Why.
        reason: String,
    },
    /// The user ended the session, or its program crashed.
    Quit,
}

/// One session, from its first connection to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionHistory {
    /// The session's name.
    pub session: String,
    /// The user's name.
    pub user: String,
    /// What it did and saw, in order, and when.
    pub acts: Vec<(Micros, Act)>,
}

impl SessionHistory {
    /// Whether it went on to the end of the run.
    pub fn stays(&self) -> bool {
        !self.acts.iter().any(|(_, act)| matches!(act, Act::Ended { .. } | Act::Quit))
    }
}

/// All sessions of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The sessions of users.
    pub sessions: Vec<SessionHistory>,
    /// When all was over: one fresh reader at each server, who asked for everything.
    pub readers: Vec<SessionHistory>,
    /// The places of messages in the one order, as servers told them, in designs that have one.
    pub places: BTreeMap<String, u64>,
}
