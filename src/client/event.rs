//! What a client tells its user: one [`Event`] for each thing that happened, in the order it happened.

use serde::Serialize;

use crate::domain::content::{Position, RoomStatus, Statistics, Status};

/// Something that the user of a [`ChatClient`](super::ChatClient) may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The first connection stands; messages flow.
    Connected {
        /// Where to, `host:port`.
        server: String,
    },
    /// The connection was lost a second ago and is not replaced yet. The client looks for another server by itself, and
    /// says [`Reconnected`](Self::Reconnected) when it has one.
    Disconnected {
        /// Why, in a sentence without a full stop that names the server.
        reason: String,
    },
    /// The connection was lost and replaced before it was worth a word: the only news of both.
    Moved {
        /// Where to, `host:port`.
        server: String,
        /// Why, in a sentence without a full stop that names the former server.
        reason: String,
        /// The rooms that the session is in again, by name.
        rooms: Vec<String>,
        /// How many messages were sent a second time.
        resent: usize,
    },
    /// A connection that was said to be lost was replaced, rooms were resumed and unacknowledged messages sent again.
    Reconnected {
        /// Where to, `host:port`.
        server: String,
        /// The rooms that the session is in again, by name.
        rooms: Vec<String>,
        /// How many messages were sent a second time.
        resent: usize,
    },
    /// The session is over; the client does not reconnect. No event follows.
    Ended {
        /// Why, in a sentence without a full stop.
        reason: String,
    },
    /// The session is in a room.
    Joined {
        /// The room.
        room: String,
        /// How many members it has now, on all servers.
        members: u32,
        /// How many messages of the past follow.
        history: u32,
    },
    /// A room was resumed although no live server had all that the session had seen of it.
    Gap {
        /// The room.
        room: String,
        /// What is missing, in words.
        missing: String,
    },
    /// What was said in a room before is not kept any more, though it was asked for.
    HistoryStarts {
        /// The room.
        room: String,
        /// The last place that is gone.
        after: u64,
        /// It was said until then at the latest, in milliseconds since 1970.
        until: u64,
        /// Whether the session was away when some of it was said, so that it was not shown that.
        missed: bool,
    },
    /// The past of a room was asked for again; so many messages follow.
    History {
        /// The room.
        room: String,
        /// How many.
        count: u32,
    },
    /// Messages that were asked for by their time; so many follow.
    Since {
        /// The room.
        room: String,
        /// How many.
        count: usize,
        /// Whether more of them come after these.
        more: bool,
    },
    /// A message is gone: whoever said it deleted it.
    Deleted {
        /// The room.
        room: String,
        /// Which.
        message_id: String,
        /// Who said it.
        name: String,
    },
    /// The session is no longer in a room.
    Left {
        /// The room.
        room: String,
    },
    /// Someone else came into a room.
    MemberJoined {
        /// The room.
        room: String,
        /// The user name.
        name: String,
    },
    /// Someone else left a room.
    MemberLeft {
        /// The room.
        room: String,
        /// The user name.
        name: String,
    },
    /// A message to show.
    Delivered(Delivery),
    /// The promise of the cluster's design holds for a message of this session.
    Acked {
        /// Which.
        message_id: String,
    },
    /// A request was refused for good: it is not tried again.
    Refused {
        /// Which request; for a message, the id that `send_message` returned.
        message_id: String,
        /// The stable code, such as `NOT_A_MEMBER`.
        code: String,
        /// A sentence that says what to do.
        reason: String,
        /// Whether the same can succeed elsewhere or later.
        retryable: bool,
    },
    /// The answer to [`ask_status`](super::ChatClient::ask_status).
    Status(Box<Status>),
    /// The answer to [`ask_statistics`](super::ChatClient::ask_statistics).
    Statistics(Box<Statistics>),
    /// The answer to [`ask_rooms`](super::ChatClient::ask_rooms).
    Rooms(Vec<RoomStatus>),
    /// The answer to [`ask_members`](super::ChatClient::ask_members).
    Members {
        /// The room.
        room: String,
        /// User names on all servers, sorted.
        names: Vec<String>,
    },
}

/// A message as a member of its room sees it. Serialises to the line of `--format json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Delivery {
    /// Chosen by the sender.
    pub message_id: String,
    /// The room.
    #[serde(rename = "room_id")]
    pub room: String,
    /// The sender's user name.
    #[serde(rename = "sender_id")]
    pub sender: String,
    /// What it says.
    #[serde(rename = "content")]
    pub text: String,
    /// When it was stamped, in milliseconds since 1970, by the stamping server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// What the session has been shown of the room, this message included. Opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Whether it was there before the session came, or was asked for again.
    pub history: bool,
    /// Whether this session sent it.
    pub own: bool,
}
