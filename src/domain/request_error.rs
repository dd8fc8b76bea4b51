//! What a request can be refused for. Every refusal is the other side's to mend, and becomes an ERROR message.

use std::fmt;

use super::content::ErrorContent;
use super::message::{Message, MessageType};

/// Why a request was refused. Each variant is one `content.code` and one thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// `INVALID_JSON`: send one JSON object a frame. The connection is closed.
    InvalidJson {
        /// What the parser says.
        reason: String,
    },
    /// `INVALID_FRAMING`: start with `{` or with a 4-byte length. The connection is closed.
    InvalidFraming {
        /// The byte that fits neither.
        first_byte: u8,
    },
    /// `FRAME_TOO_LONG`: send smaller messages. The connection is closed.
    FrameTooLong {
        /// How long it is, or at least is, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// `UNKNOWN_TYPE`: see the list of types in the documentation of the protocol.
    UnknownType {
        /// Which message.
        message_id: String,
        /// What stood there.
        name: String,
    },
    /// `MISSING_FIELD`: add it.
    MissingField {
        /// Which message.
        message_id: String,
        /// What is missing.
        field: &'static str,
    },
    /// `INVALID_FIELD`: a field has the wrong type or shape.
    InvalidField {
        /// Which message.
        message_id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `INVALID_NAME`: choose another name for the user or the room.
    InvalidName {
        /// Which message.
        message_id: String,
        /// `user name`, `room name` or `session`.
        what: &'static str,
        /// Why it cannot be.
        fault: String,
    },
    /// `JOIN_FIRST`: only STATUS, DISCOVERY, MEMBER and HELLO are answered before CLIENT_JOIN.
    JoinFirst {
        /// Which message.
        message_id: String,
        /// What was asked.
        message_type: MessageType,
    },
    /// `UNEXPECTED_TYPE`: a type that is not for clients to send.
    UnexpectedType {
        /// Which message.
        message_id: String,
        /// What was sent.
        message_type: MessageType,
    },
    /// `HELLO_TIMEOUT`: say CLIENT_JOIN, or as a server HELLO, within the limit. The connection is closed.
    HelloTimeout {
        /// The limit, in seconds.
        seconds: u64,
        /// The address that the one that waited had dialled: then a HELLO was not answered.
        dialled: Option<String>,
    },
    /// `CLIENT_TIMEOUT`: answer HEARTBEAT. The connection is closed.
    ClientTimeout {
        /// The limit, in seconds.
        seconds: u64,
    },
    /// `NAME_IN_USE`: choose another user name. The connection is closed.
    NameInUse {
        /// Which message.
        message_id: String,
        /// The name.
        name: String,
        /// Where its owner is connected.
        node: String,
    },
    /// `SESSION_MOVED`: the same session connected again; this connection is closed.
    SessionMoved {
        /// Where it is now.
        node: String,
    },
    /// `NOT_A_MEMBER`: join the room first.
    NotAMember {
        /// Which message.
        message_id: String,
        /// The room.
        room_id: String,
    },
    /// `NOT_FOUND`: there is no such message in the room, or it was deleted.
    NotFound {
        /// Which message asks.
        message_id: String,
        /// The message that it names.
        target: String,
    },
    /// `NOT_YOURS`: only who said a message may delete it.
    NotYours {
        /// Which message asks.
        message_id: String,
        /// The message that it names.
        target: String,
    },
    /// `UNSUPPORTED`: the design of this cluster does not have it.
    Unsupported {
        /// Which message.
        message_id: String,
        /// What it does not have.
        what: &'static str,
        /// The design.
        design: String,
    },
    /// `CHANGE_REFUSED`: the members stay as they are; the reason says what to do first.
    ChangeRefused {
        /// Which message.
        message_id: String,
        /// Why, and what to do.
        reason: String,
        /// Whether the same can succeed a moment later.
        later: bool,
    },
    /// `SESSION_EXPIRED`: nobody remembers what this session said, so a message could be said twice; begin a new
    /// session. The connection is closed.
    SessionExpired {
        /// Which message.
        message_id: String,
    },
    /// `PASSWORD_NEEDED`: say who you are with a password. The connection is closed.
    PasswordNeeded {
        /// Which message.
        message_id: String,
        /// The user name.
        name: String,
    },
    /// `WRONG_PASSWORD`: the user name or the password is wrong. The connection is closed.
    WrongPassword {
        /// Which message.
        message_id: String,
    },
    /// `WRONG_TOKEN`: the token is not this session's; say the password again. The connection is closed.
    WrongToken {
        /// Which message.
        message_id: String,
    },
    /// `NOT_READY`: no leader or no answer for too long; try another server. The connection is closed.
    NotReady {
        /// Which message.
        message_id: String,
        /// What was waited for.
        reason: String,
    },
    /// `BEHIND`: this server lacks what the client has seen; try another, or set `accept_gap`.
    Behind {
        /// Which message.
        message_id: String,
        /// The clock entries that are missing.
        missing: String,
    },
    /// `STORAGE_FULL`: this server cannot write; free space there, or use another server.
    StorageFull {
        /// Which message.
        message_id: String,
        /// What the operating system says.
        reason: String,
    },
    /// `SLOW_CONSUMER`: read faster. The connection is closed.
    SlowConsumer {
        /// The limit of what may wait to be sent, in bytes.
        bytes_max: usize,
    },
    /// `SERVER_STOPPING`: connect to another server. The connection is closed.
    ServerStopping,
    /// `WRONG_CLUSTER`: a peer of another cluster, design or election. The connection is closed.
    WrongCluster {
        /// What differs, in a sentence.
        reason: String,
    },
    /// `NODE_ID_IN_USE`: another server has this id; choose another `--id`. The connection is closed.
    NodeIdInUse {
        /// The id.
        id: String,
        /// Where its owner is, `host:port`.
        address: String,
    },
}

impl RequestError {
    /// The stable `content.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidJson { .. } => "INVALID_JSON",
            Self::InvalidFraming { .. } => "INVALID_FRAMING",
            Self::FrameTooLong { .. } => "FRAME_TOO_LONG",
            Self::UnknownType { .. } => "UNKNOWN_TYPE",
            Self::MissingField { .. } => "MISSING_FIELD",
            Self::InvalidField { .. } => "INVALID_FIELD",
            Self::InvalidName { .. } => "INVALID_NAME",
            Self::JoinFirst { .. } => "JOIN_FIRST",
            Self::UnexpectedType { .. } => "UNEXPECTED_TYPE",
            Self::HelloTimeout { .. } => "HELLO_TIMEOUT",
            Self::ClientTimeout { .. } => "CLIENT_TIMEOUT",
            Self::NameInUse { .. } => "NAME_IN_USE",
            Self::SessionMoved { .. } => "SESSION_MOVED",
            Self::NotAMember { .. } => "NOT_A_MEMBER",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::NotYours { .. } => "NOT_YOURS",
            Self::Unsupported { .. } => "UNSUPPORTED",
            Self::ChangeRefused { .. } => "CHANGE_REFUSED",
            Self::SessionExpired { .. } => "SESSION_EXPIRED",
            Self::PasswordNeeded { .. } => "PASSWORD_NEEDED",
            Self::WrongPassword { .. } => "WRONG_PASSWORD",
            Self::WrongToken { .. } => "WRONG_TOKEN",
            Self::NotReady { .. } => "NOT_READY",
            Self::Behind { .. } => "BEHIND",
            Self::StorageFull { .. } => "STORAGE_FULL",
            Self::SlowConsumer { .. } => "SLOW_CONSUMER",
            Self::ServerStopping => "SERVER_STOPPING",
            Self::WrongCluster { .. } => "WRONG_CLUSTER",
            Self::NodeIdInUse { .. } => "NODE_ID_IN_USE",
        }
    }

    /// Whether the same request can succeed elsewhere or later.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::NotReady { .. }
                | Self::Behind { .. }
                | Self::StorageFull { .. }
                | Self::SlowConsumer { .. }
                | Self::ClientTimeout { .. }
                | Self::ServerStopping
                | Self::ChangeRefused { later: true, .. }
        )
    }

    /// Whether the connection ends with it: what follows could not be understood or must not be taken.
    pub fn closes(&self) -> bool {
        !matches!(
            self,
            Self::UnknownType { .. }
                | Self::MissingField { .. }
                | Self::InvalidField { .. }
                | Self::InvalidName { .. }
                | Self::JoinFirst { .. }
                | Self::UnexpectedType { .. }
                | Self::NotAMember { .. }
                | Self::NotFound { .. }
                | Self::NotYours { .. }
                | Self::Unsupported { .. }
                | Self::ChangeRefused { .. }
                | Self::Behind { .. }
                | Self::StorageFull { .. }
        )
    }

    /// The `message_id` that it answers, empty when it answers none.
    pub fn message_id(&self) -> &str {
        match self {
            Self::UnknownType { message_id, .. }
            | Self::MissingField { message_id, .. }
            | Self::InvalidField { message_id, .. }
            | Self::InvalidName { message_id, .. }
            | Self::JoinFirst { message_id, .. }
            | Self::UnexpectedType { message_id, .. }
            | Self::NameInUse { message_id, .. }
            | Self::NotAMember { message_id, .. }
            | Self::NotFound { message_id, .. }
            | Self::NotYours { message_id, .. }
            | Self::Unsupported { message_id, .. }
            | Self::ChangeRefused { message_id, .. }
            | Self::SessionExpired { message_id }
            | Self::PasswordNeeded { message_id, .. }
            | Self::WrongPassword { message_id }
            | Self::WrongToken { message_id }
            | Self::NotReady { message_id, .. }
            | Self::Behind { message_id, .. }
            | Self::StorageFull { message_id, .. } => message_id,
            _ => "",
        }
    }

    /// The ERROR message that tells the other side, sent by `sender_id`.
    pub fn to_message(&self, sender_id: &str) -> Message {
        Message::new(MessageType::Error, sender_id).with_id(self.message_id()).saying(
            &ErrorContent {
                code: self.code().into(),
                reason: self.to_string(),
                retryable: self.retryable(),
            },
        )
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidJson { reason } => write!(f, "not a JSON message: {reason}"),
            Self::InvalidFraming { first_byte } => write!(
                f,
                "the first byte 0x{first_byte:02x} starts no known framing; \
                 send JSON lines, or a 4-byte big-endian length before each JSON object"
            ),
            Self::FrameTooLong { bytes, bytes_max } => {
                write!(f, "frame of {bytes} bytes exceeds the limit of {bytes_max}")
            }
            Self::UnknownType { name, .. } => write!(f, "unknown type {name:?}"),
            Self::MissingField { field, .. } => write!(f, "the field {field:?} is missing"),
            Self::InvalidField { reason, .. } => {
                write!(f, "a field is not as it should be: {reason}")
            }
            Self::InvalidName { what, fault, .. } => write!(f, "the {what} {fault}"),
            Self::JoinFirst { message_type, .. } => {
                write!(f, "{message_type} before CLIENT_JOIN; say who you are first")
            }
            Self::UnexpectedType { message_type, .. } => {
                write!(f, "{message_type} is not for clients to send")
            }
            Self::HelloTimeout { seconds, dialled: None } => write!(
                f,
                "the side that connected said neither CLIENT_JOIN, as a client, nor HELLO, as a server, within {seconds} s; \
                 see whether it hangs, and what stands between that keeps its bytes back, then connect again"
            ),
            Self::HelloTimeout { seconds, dialled: Some(address) } => write!(
                f,
                "{address} took the connection and did not answer HELLO within {seconds} s; see whether a roundtable \
                 server runs there and does not hang, and what stands between that keeps its bytes back"
            ),
            Self::ClientTimeout { seconds } => {
                write!(f, "nothing heard for {seconds} s; answer HEARTBEAT to stay connected")
            }
            Self::NameInUse { name, node, .. } => {
                write!(f, "the name {name:?} is in use on {node}; choose another")
            }
            Self::SessionMoved { node } => write!(f, "this session connected again, to {node}"),
            Self::NotAMember { room_id, .. } => {
                write!(f, "not a member of {room_id:?}; join it first")
            }
            Self::NotReady { reason, .. } => write!(f, "{reason}; try another server"),
            Self::Behind { missing, .. } => write!(
                f,
                "this server lacks messages that you have seen ({missing}); \
                 try another server, or join with accept_gap"
            ),
            Self::StorageFull { reason, .. } => write!(
                f,
                "this server cannot store messages ({reason}); free space there, or use another server"
            ),
            Self::SlowConsumer { bytes_max } => {
                write!(f, "more than {bytes_max} bytes wait to be read; read faster")
            }
            Self::ServerStopping => write!(f, "this server is stopping; connect to another"),
            Self::WrongCluster { reason } | Self::ChangeRefused { reason, .. } => {
                write!(f, "{reason}")
            }
            Self::NodeIdInUse { id, address } => {
                write!(
                    f,
                    "another server with the id {id} is connected ({address}); choose another --id"
                )
            }
            _ => self.fmt_of_kept(f),
        }
    }
}

impl RequestError {
    /// What concerns messages that are kept, sessions and accounts.
    fn fmt_of_kept(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { target, .. } => {
                write!(f, "there is no message {target:?} in this room, or it was deleted")
            }
            Self::NotYours { target, .. } => {
                write!(f, "the message {target:?} is not yours; only who said it may delete it")
            }
            Self::Unsupported { what, design, .. } => {
                write!(f, "the design {design:?} of this cluster has no {what}")
            }
            Self::SessionExpired { .. } => {
                write!(f, "nobody remembers what this session said before; begin a new session")
            }
            Self::PasswordNeeded { name, .. } => {
                write!(
                    f,
                    "the name {name:?} needs a password here; give it, or choose another name"
                )
            }
            Self::WrongPassword { .. } => write!(f, "the user name or the password is wrong"),
            Self::WrongToken { .. } => {
                write!(f, "the token is not this session's; say the password again")
            }
            // All others have their words above.
            _ => Ok(()),
        }
    }
}

impl std::error::Error for RequestError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_message_carries_code_reason_and_the_id_that_it_answers() {
        let error = RequestError::NotAMember { message_id: "m1".into(), room_id: "lobby".into() };
        let message = error.to_message("n1");
        let content: ErrorContent = message.content.parse().unwrap();
        assert_eq!(message.message_id, "m1");
        assert_eq!(content.code, "NOT_A_MEMBER");
        assert_eq!(content.reason, "not a member of \"lobby\"; join it first");
        assert!(!content.retryable);
    }
}
