//! What clients and servers say about the messages that are kept, and about who may say more of them.

use serde::{Deserialize, Serialize};

use crate::domain::message::Message;

/// DELETE: of a client, which of its own messages is to go; in the order, the same; to members, which one went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The `message_id` of the message.
    pub target: String,
    /// The session that said it. When it is left out, the asker's own; with an account, any of its user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// HISTORY from a client: the messages of a room since a time, a page at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRequest {
    /// From this time on, in milliseconds since 1970, by the clocks of the servers.
    #[serde(default)]
    pub since: u64,
    /// Only what comes after this place: `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// HISTORY, the answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// CHATs in order, as members see them.
    pub messages: Vec<Message>,
    /// There is more: ask again with this as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// There was more before these messages, which is not kept any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<HistoryStart>,
}

/// Where the history of a room starts, when its beginning is not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStart {
    /// The last place of the room that is gone.
    pub after: u64,
    /// What is gone was said until then at the latest, in milliseconds since 1970.
    pub until: u64,
}

/// STATS, the answer: what is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Messages in all rooms, deleted ones not counted.
    pub messages: u64,
    /// How long their texts are together, in bytes.
    pub bytes: u64,
    /// Messages that were deleted.
    pub deleted: u64,
    /// Sessions whose messages are remembered, against saying one twice.
    pub sessions: u64,
    /// User names that have a password.
    pub accounts: u64,
    /// The rooms with messages or members, by name.
    pub rooms: Vec<RoomStatistics>,
}

/// One room in [`Statistics`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomStatistics {
    /// The room's name.
    pub room_id: String,
    /// Its messages, deleted ones not counted.
    pub messages: u64,
    /// How long their texts are together, in bytes.
    pub bytes: u64,
    /// How many users have said something that is kept.
    pub senders: u64,
    /// How many users are in it now, on all servers.
    #[serde(default)]
    pub members: u64,
    /// When its last message was said, in milliseconds since 1970; deleted ones count, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ms: Option<u64>,
}

/// How far the answering server's copy of everything is, in a STATUS. Equal where the same was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    /// The place of the last entry that it applied.
    pub applied: u64,
    /// Stands for everything that it applied: eight hexadecimal digits.
    pub digest: String,
}

/// CLIENT_JOIN in the order: a session exists from here on, or goes on to. Never a password, and never a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The log time before which the session said nothing, in milliseconds: see [`ClientJoin::since`](super::ClientJoin::since).
    pub since: u64,
    /// The first with a password under this user name: what a password is checked against from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifier: Option<String>,
    /// The password was right: what the session's token is checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<String>,
}
