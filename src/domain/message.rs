//! The one kind of thing that travels: a [`Message`], one JSON object on the wire.
//!
//! ```text
//!   {"message_id":"a-1","type":"CHAT","sender_id":"alice","room_id":"lobby","content":"hello"}
//!    └ chosen by the sender          └ user or node      └ absent = none  └ a text, or an object
//! ```
//!
//! `content` is a string in CHAT and a typed object ([`super::content`]) in every other type. Unknown
//! fields are ignored, so old and new nodes can talk.
//!
//! Source: class-diagram.txt, `Message` and `MessageType`; the types that the diagram lacks (HELLO, ACK,
//! ERROR, STATUS, CLIENT_LEAVE) carry what a running system needs besides. ELECTION_OK, COORDINATOR, JOIN,
//! SEQ_CHAT and CATCHUP_REQ are those of total-order-chat.txt, from NOOP on they are Raft's.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::content::Position;
use super::ids::{Incarnation, Term};
use super::request_error::RequestError;
use super::vector_clock::VectorClock;

/// A message serialised once (JSON, no framing), shared by everyone that it is sent to.
pub type Frame = Arc<[u8]>;

/// What a message is about; on the wire in SCREAMING_SNAKE_CASE. Each says whether it may be lost
/// between servers, and what repairs that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageType {
    /// A client says who it is; between servers: a user came online. Repaired when a link comes up.
    ClientJoin,
    /// Between servers: a user went offline. Repaired when a link comes up.
    ClientLeave,
    /// A client enters a room; to members and between servers: someone did. Repaired like CLIENT_JOIN.
    JoinRoom,
    /// A client leaves a room; to members and between servers: someone did. Repaired like CLIENT_JOIN.
    LeaveRoom,
    /// A chat message. Lost between servers: SYNC brings it.
    Chat,
    /// Who is there? Asked and answered over UDP and TCP. Asked again every second while alone.
    Discovery,
    /// A message of an election: Hirschberg and Sinclair's three, or the Bully's question to higher ids. Lost:
    /// the election restarts in a higher term.
    Election,
    /// The Bully's answer to an ELECTION: a higher id is alive and stands itself. Lost: the asker leads until the
    /// higher one's COORDINATOR, which has the higher term.
    ElectionOk,
    /// The Bully's outcome: who leads, in which term, and where. Lost: the next heartbeat carries the term.
    Coordinator,
    /// I am alive; the next one repairs a lost one.
    Heartbeat,
    /// Anti-entropy between replicas: clocks, and what the other lacks. Sent again by the timeout checker.
    Sync,
    /// Where rooms live. Lost: the version in the next heartbeat shows it, and the leader is asked.
    MetadataUpdate,
    /// The first frame between servers, both ways.
    Hello,
    /// Yes, done; between servers: what the sender holds and has synced. The next one repairs a lost one.
    Ack,
    /// No, and why.
    Error,
    /// How is the cluster? Asked by anyone, answered with a snapshot.
    Status,
    /// A server asks to be a member of the cluster. Asked again until it is one.
    Join,
    /// The members of a cluster, as a record of the log and as a message. Sent again with the next JOIN.
    Members,
    /// A nominee asks for promises, and the answers. Lost: the nominee asks again.
    Promise,
    /// Ordered messages from the leader. Lost: the gap in `seq` shows it, and CATCHUP_REQ brings them.
    SeqChat,
    /// Send me what comes after this one. Asked again while nothing comes.
    CatchupReq,
    /// The first entry of a leader's term, which says nothing. It travels and is repaired like other entries.
    Noop,
    /// A candidate asks for a vote, or whether it would get one, and the answers. Lost: it asks again in a
    /// higher term.
    RequestVote,
    /// The leader's entries, or none as its heartbeat, and the answers. Lost: the next one repeats what is
    /// missing.
    AppendEntries,
    /// What came before the leader's log begins, and the answers. Lost: sent again.
    InstallSnapshot,
    /// The leader hands over: stand for election at once. Lost: the leader gives the handing over up.
    TimeoutNow,
    /// How far must I be to read? Asked of the leader, and its answer. Asked again.
    ReadIndex,
    /// Delete a message: a client asks for it, members are shown it, the log keeps it. Repaired like CHAT.
    Delete,
    /// A client asks for what was said in a room since a time, and the answer.
    History,
    /// A client asks what is kept, and the answer.
    Stats,
    /// An operator lets a server in or out, or asks for the members; passed on to the leader, and the answer. Lost: the
    /// operator is told, and asks again.
    Member,
}

impl MessageType {
    /// Every type, in the order of declaration.
    pub const ALL: [Self; 31] = [
        Self::ClientJoin,
        Self::ClientLeave,
        Self::JoinRoom,
        Self::LeaveRoom,
        Self::Chat,
        Self::Discovery,
        Self::Election,
        Self::ElectionOk,
        Self::Coordinator,
        Self::Heartbeat,
        Self::Sync,
        Self::MetadataUpdate,
        Self::Hello,
        Self::Ack,
        Self::Error,
        Self::Status,
        Self::Join,
        Self::Members,
        Self::Promise,
        Self::SeqChat,
        Self::CatchupReq,
        Self::Noop,
        Self::RequestVote,
        Self::AppendEntries,
        Self::InstallSnapshot,
        Self::TimeoutNow,
        Self::ReadIndex,
        Self::Delete,
        Self::History,
        Self::Stats,
        Self::Member,
    ];

    /// The name on the wire, such as `CHAT`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientJoin => "CLIENT_JOIN",
            Self::ClientLeave => "CLIENT_LEAVE",
            Self::JoinRoom => "JOIN_ROOM",
            Self::LeaveRoom => "LEAVE_ROOM",
            Self::Chat => "CHAT",
            Self::Discovery => "DISCOVERY",
            Self::Election => "ELECTION",
            Self::ElectionOk => "ELECTION_OK",
            Self::Coordinator => "COORDINATOR",
            Self::Heartbeat => "HEARTBEAT",
            Self::Sync => "SYNC",
            Self::MetadataUpdate => "METADATA_UPDATE",
            Self::Hello => "HELLO",
            Self::Ack => "ACK",
            Self::Error => "ERROR",
            Self::Status => "STATUS",
            Self::Join => "JOIN",
            Self::Members => "MEMBERS",
            Self::Promise => "PROMISE",
            Self::SeqChat => "SEQ_CHAT",
            Self::CatchupReq => "CATCHUP_REQ",
            Self::Noop => "NOOP",
            Self::RequestVote => "REQUEST_VOTE",
            Self::AppendEntries => "APPEND_ENTRIES",
            Self::InstallSnapshot => "INSTALL_SNAPSHOT",
            Self::TimeoutNow => "TIMEOUT_NOW",
            Self::ReadIndex => "READ_INDEX",
            Self::Delete => "DELETE",
            Self::History => "HISTORY",
            Self::Stats => "STATS",
            Self::Member => "MEMBER",
        }
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a message says. An object is kept as its JSON text until someone asks for it by type, so that
/// what only passes through is neither taken apart nor put together again.
#[derive(Clone, Default)]
pub enum Content {
    /// Nothing (`content` is absent).
    #[default]
    Empty,
    /// The text of a CHAT.
    Text(String),
    /// Everything else; see [`super::content`] for the types.
    Object(Arc<RawValue>),
}

/// Shows what is said, but no password and no token.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Text(text) => write!(f, "Text({text:?})"),
            Self::Object(raw) if has_secret(raw.get()) => f.write_str("Object(…)"),
            Self::Object(raw) => write!(f, "Object({})", raw.get()),
        }
    }
}

/// What may be traced of a frame: all of it, unless it may hold a password or a token.
pub fn without_secrets(frame: &str) -> &str {
    if has_secret(frame) { "(it may hold a password or a token, and is not shown)" } else { frame }
}

/// Whether a JSON object may hold a password or a token. An escaped letter in a name does not hide it.
fn has_secret(object: &str) -> bool {
    object.contains("\"password\"") || object.contains("\"token\"") || object.contains("\\u")
}

impl Content {
    /// The content that says `value`, which must serialise to a JSON object.
    pub fn object<T: Serialize>(value: &T) -> Self {
        // The types of `content.rs` have string keys and no fallible serialisers, so this cannot fail.
        let raw = serde_json::value::to_raw_value(value).expect("typed contents serialise");
        Self::Object(raw.into())
    }

    /// The text of a CHAT, empty for anything else.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Empty | Self::Object(_) => "",
        }
    }

    /// Reads the object as a `T`; an absent content reads as `{}`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self {
            Self::Empty => serde_json::from_str("{}"),
            Self::Object(raw) => serde_json::from_str(raw.get()),
            Self::Text(_) => Err(serde_json::Error::custom("a text where an object belongs")),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Empty, Self::Empty) => true,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a.get() == b.get(),
            _ => false,
        }
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Empty => serializer.serialize_unit(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Object(raw) => raw.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Borrowed: a text is copied once then, where it is unescaped. All JSON here is read from memory.
        let raw = <&RawValue>::deserialize(deserializer)?;
        match raw.get().as_bytes().first() {
            Some(b'"') => serde_json::from_str(raw.get()).map(Self::Text).map_err(D::Error::custom),
            Some(b'{') => Ok(Self::Object(raw.to_owned().into())),
            Some(b'n') => Ok(Self::Empty),
            _ => Err(D::Error::custom("content must be a string or an object")),
        }
    }
}

/// One message, as clients and servers send it and as the log keeps it.
///
/// The diagram's `String content` is a [`Content`]; its `timestamp` relation (`*-- VectorClock`) is
/// [`vector_clock`](Self::vector_clock).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Chosen by the sender; with the session it is the key of duplicates. Answers repeat it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message_id: String,
    /// What it is about.
    #[serde(rename = "type")]
    pub message_type: MessageType,
    /// The user name of a client, or the id of a server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sender_id: String,
    /// The room that it concerns, empty when none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub room_id: String,
    /// A text in CHAT, a typed object elsewhere.
    #[serde(default, skip_serializing_if = "Content::is_empty")]
    pub content: Content,
    /// Who stamped a CHAT (between servers and in the log).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Incarnation>,
    /// The stamp of a CHAT: the entries that changed since `origin`'s message before it, its own included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector_clock: Option<VectorClock>,
    /// The session that sent a CHAT (between servers and in the log).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The place in the one order of a room (designs `sequencer` and `raft`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The election that the sender acts under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// When it was stamped, in milliseconds since 1970, by the stamping server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// To clients: what the session has been shown of this room, for `content.after`. Opaque to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// Between servers that [trace](crate::trace): the frame's name. Read and never written: it ends where it arrives.
    #[serde(default, skip_serializing)]
    pub trace: Option<Box<str>>,
}

impl Message {
    /// A message of `message_type` from `sender_id` with nothing else in it yet.
    pub fn new(message_type: MessageType, sender_id: impl Into<String>) -> Self {
        Self {
            message_id: String::new(),
            message_type,
            sender_id: sender_id.into(),
            room_id: String::new(),
            content: Content::Empty,
            origin: None,
            vector_clock: None,
            session: None,
            seq: None,
            term: None,
            timestamp: None,
            position: None,
            trace: None,
        }
    }

    /// The same message under `message_id`.
    #[must_use]
    pub fn with_id(mut self, message_id: impl Into<String>) -> Self {
        self.message_id = message_id.into();
        self
    }

    /// The same message about `room_id`.
    #[must_use]
    pub fn in_room(mut self, room_id: impl Into<String>) -> Self {
        self.room_id = room_id.into();
        self
    }

    /// The same message saying `value`, a typed content.
    #[must_use]
    pub fn saying<T: Serialize>(mut self, value: &T) -> Self {
        self.content = Content::object(value);
        self
    }

    /// Appends what [`serialize`](Self::serialize) makes to `out`.
    pub fn serialize_to(&self, out: &mut Vec<u8>) {
        // Only string keys and infallible serialisers, as in `Content::object`.
        serde_json::to_writer(out, self).expect("a message serialises");
    }

    /// The diagram's `serialize`: one line of JSON, no framing.
    pub fn serialize(&self) -> String {
        // Only string keys and infallible serialisers, as in `Content::object`.
        serde_json::to_string(self).expect("a message serialises")
    }

    /// [`serialize`](Self::serialize), ready to be shared by many receivers.
    pub fn to_frame(&self) -> Frame {
        serde_json::to_vec(self).expect("a message serialises").into()
    }

    /// The diagram's `deserialize`: the message that `data` holds, or what is wrong with it.
    pub fn deserialize(data: &str) -> Result<Self, RequestError> {
        Self::decode(data.as_bytes())
    }

    /// Reads one frame. An error names the fault: not JSON, an unknown type, a missing or malformed field.
    pub fn decode(frame: &[u8]) -> Result<Self, RequestError> {
        serde_json::from_slice(frame).map_err(|error| diagnose(frame, &error))
    }

    /// The position of a CHAT in its origin's sequence: `(origin, n)`. `None` when it is not stamped.
    pub fn stamp(&self) -> Option<(&Incarnation, u64)> {
        let origin = self.origin.as_ref()?;
        let count = self.vector_clock.as_ref()?.get(origin);
        (count > 0).then_some((origin, count))
    }

    /// The key of duplicates: `(session, message_id)`.
    pub fn duplicate_key(&self) -> Option<(&str, &str)> {
        Some((self.session.as_deref()?, &self.message_id))
    }
}

/// Looks again at a frame that did not parse, to name what is wrong rather than where.
fn diagnose(frame: &[u8], error: &serde_json::Error) -> RequestError {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(frame) else {
        return RequestError::InvalidJson { reason: error.to_string() };
    };
    let message_id = value["message_id"].as_str().unwrap_or_default().to_string();
    match value.get("type") {
        _ if !value.is_object() => {
            RequestError::InvalidJson { reason: "a message is one JSON object".into() }
        }
        None => RequestError::MissingField { message_id, field: "type" },
        Some(name) if MessageType::deserialize(name).is_err() => {
            let name = name.as_str().map_or_else(|| name.to_string(), str::to_string);
            RequestError::UnknownType { message_id, name: name.chars().take(64).collect() }
        }
        Some(_) => RequestError::InvalidField { message_id, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::ErrorContent;

    fn chat() -> Message {
        let mut chat = Message::new(MessageType::Chat, "alice").with_id("a-1").in_room("lobby");
        chat.content = "hello".into();
        chat
    }

    #[test]
    fn a_chat_is_one_small_line() {
        assert_eq!(
            chat().serialize(),
            r#"{"message_id":"a-1","type":"CHAT","sender_id":"alice","room_id":"lobby","content":"hello"}"#
        );
    }

    #[test]
    fn what_was_serialised_reads_back_the_same() {
        let mut stamped = chat();
        stamped.origin = Some("n1.1-00ff".into());
        stamped.vector_clock = Some(VectorClock::new());
        stamped.vector_clock.as_mut().unwrap().increment(&"n1.1-00ff".into());
        stamped.term = Some(Term { counter: 3, leader: "n3.1-0001".into() });
        let error = Message::new(MessageType::Error, "n1").saying(&ErrorContent {
            code: "X".into(),
            reason: "y".into(),
            retryable: false,
        });
        for message in [chat(), stamped.clone(), error] {
            assert_eq!(Message::deserialize(&message.serialize()).unwrap(), message);
        }
        assert_eq!(stamped.stamp(), Some((&"n1.1-00ff".into(), 1)));
    }

    #[test]
    fn secrets_do_not_show() {
        let lines = [
            r#"{"type":"CLIENT_JOIN","content":{"session":"s","password":"hunter2"}}"#,
            "{\"type\":\"CLIENT_JOIN\",\"content\":{\"pass\\u0077ord\":\"hunter2\"}}",
            r#"{"type":"ACK","content":{"cluster":"c","design":"d","servers":[],"token":"hunter2"}}"#,
        ];
        for line in lines {
            let message = Message::deserialize(line).unwrap();
            assert!(!format!("{message:?}").contains("hunter2"), "{message:?}");
            assert!(!without_secrets(line).contains("hunter2"));
        }
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let message = Message::deserialize(r#"{"type":"STATUS","later":{"x":[1]}}"#).unwrap();
        assert_eq!(message, Message::new(MessageType::Status, ""));
    }

    #[test]
    fn faults_are_named() {
        let table = [
            ("{", "INVALID_JSON"),
            ("[1]", "INVALID_JSON"),
            (r#"{"message_id":"m"}"#, "MISSING_FIELD"),
            (r#"{"type":"SHOUT"}"#, "UNKNOWN_TYPE"),
            (r#"{"type":7}"#, "UNKNOWN_TYPE"),
            (r#"{"type":"CHAT","sender_id":7}"#, "INVALID_FIELD"),
            (r#"{"type":"CHAT","content":[1]}"#, "INVALID_FIELD"),
        ];
        for (text, code) in table {
            assert_eq!(Message::deserialize(text).unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn every_type_has_the_name_that_serde_gives_it() {
        for message_type in MessageType::ALL {
            let quoted = serde_json::to_string(&message_type).unwrap();
            assert_eq!(quoted, format!("\"{message_type}\""));
        }
    }

    proptest::proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Message::decode(&bytes);
        }
    }
}
