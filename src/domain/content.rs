//! What messages say: one type per kind of `content`, so that nothing is parsed by hand.
//!
//! Clients use [`ClientJoin`], [`Welcome`], [`JoinRoom`], [`Joined`], [`ErrorContent`], [`Status`] and
//! [`DiscoveryContent`]; the rest travels between servers. Examples of each stand in
//! [`crate::wire`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::{Incarnation, NodeId, Term};
use super::message::Message;
use super::vector_clock::VectorClock;

mod chat_store;
mod election;
mod held_back;
mod member;
mod ordering;

pub use chat_store::{
    Deletion, HistoryPage, HistoryRequest, HistoryStart, Registration, RoomStatistics, Statistics,
    StorageStatus,
};
pub use election::{Coordinator, ElectionContent, ElectionOk, Question, Side};
pub use held_back::HeldBack;
pub use member::{MemberContent, MemberList, MemberRole, MemberStatus};
pub use ordering::{
    CatchupReq, Join, LeaderHeartbeat, Member, Members, MembersContent, OrderStatus, OrderingAck,
    Place, PromiseContent, SeqChat, SeqChatKind, StateHere, StatePiece, TimeoutNow,
};

/// What a session has been shown of a room. Opaque to clients: they hand it back as `content.after`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Position {
    /// Design `ring`: an entry stands at n only when everything stamped 1..n was shown.
    Clock(VectorClock),
    /// Designs with one order: the sequence number of the last message shown.
    Sequence(u64),
}

// ---------------------------------------------------------------- clients

/// CLIENT_JOIN from a client. `sender_id` is the user name.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientJoin {
    /// Chosen by the client, names its session across reconnects; a random text of 1 to 64 characters.
    /// Empty when it was left out, which the server refuses by the field's name.
    #[serde(default)]
    pub session: String,
    /// Where a design authenticates: the first one under a user name registers it, later ones must be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Instead of the password: what the last [`Welcome`] gave this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// `log_time` of the first [`Welcome`] that the session got. A server that does not know the session, a day
    /// of log time later, answers SESSION_EXPIRED rather than take a message twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Counts the connections that the client makes for the session, from 1: an earlier one that a server finds late
    /// does not replace a later one. When it is left out, the one that a server finds last counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<u64>,
}

/// Shows that there is a password or a token, and never which.
impl fmt::Debug for ClientJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientJoin")
            .field("session", &self.session)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("since", &self.since)
            .field("connection", &self.connection)
            .finish()
    }
}

/// ACK of CLIENT_JOIN: where the client is, and where else it could be.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's design, such as `ring`.
    pub design: String,
    /// All servers that this one knows alive, itself first.
    pub servers: Vec<ServerAddress>,
    /// In the designs with one order: how far time has come in it, in milliseconds; for [`ClientJoin::since`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_time: Option<u64>,
    /// After a password: what to say instead of it when this session connects again, to any server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// Shows that there is a token, and never which.
impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Welcome")
            .field("cluster", &self.cluster)
            .field("design", &self.design)
            .field("servers", &self.servers)
            .field("log_time", &self.log_time)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .finish()
    }
}

/// JOIN_ROOM from a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JoinRoom {
    /// How many recent messages to send first; 50 when left out, 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<u32>,
    /// Resume from this position instead: everything since, no gap, no repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
    /// With `after`: rather than wait for what no live server has, go on without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accept_gap: bool,
}

/// ACK of JOIN_ROOM.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    /// How many messages of the past follow before the live ones.
    pub history: u32,
    /// How many members the room has now, on all servers.
    pub members: u32,
    /// With `accept_gap`: what the client has seen and this server has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Position>,
    /// The client asked for messages that are not kept any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<HistoryStart>,
}

/// ERROR: why not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorContent {
    /// Stable, SCREAMING_SNAKE_CASE; see [`crate::error::RequestError`].
    pub code: String,
    /// A sentence that names what was wrong and what to do.
    pub reason: String,
    /// Whether the same request can succeed elsewhere or later.
    #[serde(default)]
    pub retryable: bool,
}

/// A server and where it can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAddress {
    /// Its id.
    pub id: NodeId,
    /// `host:port`, as it advertises it.
    pub address: String,
}

/// DISCOVERY, asked and answered over UDP and TCP. Servers also tell each other whom they are connected to
/// with it: membership spreads from one peer to all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DiscoveryContent {
    /// A client looks for servers of a cluster.
    Client {
        /// The cluster's name; servers of others stay silent.
        cluster: String,
    },
    /// A server says that it exists, or that another one does.
    Server {
        /// The cluster's name.
        cluster: String,
        /// The design that it runs.
        design: String,
        /// Which life of it this is.
        incarnation: Incarnation,
        /// Where to dial it, `host:port`.
        address: String,
    },
    /// The answer to a client: the live servers, the leader, the rooms.
    Found {
        /// The cluster's name.
        cluster: String,
        /// Live servers, the one that answers first.
        servers: Vec<ServerAddress>,
        /// Who leads, if anyone does.
        leader: Option<NodeId>,
        /// Every room, by name.
        rooms: Vec<String>,
    },
}

/// STATUS: a snapshot of the cluster as one server sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who answers.
    pub node: NodeId,
    /// `LOOKING`, `FOLLOWER`, `LEADER` or `ELECTION_IN_PROGRESS`.
    pub state: String,
    /// Who leads, if anyone does.
    pub leader: Option<NodeId>,
    /// The number of the last election that ended, 0 before the first.
    pub term: u64,
    /// The design, such as `ring`.
    pub design: String,
    /// The cluster's name.
    pub cluster: String,
    /// Every server ever heard of, itself included.
    pub servers: Vec<ServerStatus>,
    /// The ids of the ring's members in order, from the lowest.
    pub ring: Vec<NodeId>,
    /// The rooms (or the one that was asked for by `room_id`), by name.
    pub rooms: Vec<RoomStatus>,
    /// How far its copy of everything is, in the designs with one order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageStatus>,
    /// Where the time of messages comes from; absent where no time server is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<TimeState>,
    /// How far the one order is; absent in designs without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderStatus>,
    /// Why the log cannot be written now, in the operating system's words; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_fault: Option<String>,
    /// How often the log was synced (`fdatasync`) since the server started.
    #[serde(default)]
    pub syncs: u64,
    /// How late its heartbeats were; absent from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_lateness: Option<Lateness>,
    /// How often it followed another leader, or the same one in another term, since its first; absent from older servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_changes: Option<u64>,
    /// Why this server takes no clients now, in a sentence; absent when it takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_ready: Option<String>,
}

/// How much longer than the interval the pause before a heartbeat was, at the worst, in [`Status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lateness {
    /// In the last minute, in milliseconds.
    pub last_minute_ms: u64,
    /// Since the server started, in milliseconds.
    pub since_start_ms: u64,
}

/// Where a server's time comes from, in [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum TimeState {
    /// The system clock serves as it is.
    Unsynchronised {
        /// Why, in words.
        reason: String,
    },
    /// A time server is known.
    Synchronised {
        /// Which, `host:port`.
        server: String,
        /// What is added to the system clock, in milliseconds.
        offset_ms: f64,
        /// How long the answer that counts was on the way, there and back, in milliseconds.
        delay_ms: f64,
        /// Milliseconds since the time server answered last.
        age_ms: u64,
    },
}

impl fmt::Display for TimeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsynchronised { reason } => {
                write!(f, "not synchronised, the system clock serves: {reason}")
            }
            Self::Synchronised { server, offset_ms, delay_ms, age_ms } => {
                write!(f, "{server}, offset {offset_ms:+.3} ms, delay {delay_ms:.3} ms, ")?;
                match age_ms {
                    0..10_000 => write!(f, "heard {age_ms} ms ago"),
                    _ => write!(f, "heard {} s ago", age_ms / 1000),
                }
            }
        }
    }
}

/// A server in [`Status`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its id.
    pub id: NodeId,
    /// Where it can be reached, `host:port`.
    pub address: String,
    /// `alive`, `suspect` or `dead`.
    pub state: Liveness,
    /// Milliseconds since it was last heard; 0 for the one that answers, `null` when never.
    pub last_heartbeat_ms: Option<u64>,
    /// Whether its port took the last connection that the health check made; absent where no health checks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
}

/// What a failure detector thinks of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Heard within half its timeout.
    Alive,
    /// Silent for longer than that, or its connection was lost.
    Suspect,
    /// Silent for the whole timeout; not counted until it is heard again.
    Dead,
}

/// A room in [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoomStatus {
    /// The room's name.
    pub room_id: String,
    /// The server named in `room_locations`.
    pub host: Option<NodeId>,
    /// The servers that keep the room's messages.
    pub replicas: Vec<NodeId>,
    /// User names on all servers, sorted.
    pub members: Vec<String>,
    /// Messages that the answering server holds; 0 when it is no replica.
    pub messages: u64,
    /// The first of the messages that wait there for their causal past (design `ring`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_back: Vec<HeldBack>,
    /// How many messages of that server's clients wait for their acknowledgement; absent for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unacknowledged: Option<u64>,
}

// ---------------------------------------------------------------- servers

/// HELLO: the first frame between servers, from the dialling side, then back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster's name; another one is refused.
    pub cluster: String,
    /// The design; another one is refused.
    pub design: String,
    /// The election that it holds; another one is refused. Not compared when it is left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub election: String,
    /// Who speaks.
    pub id: NodeId,
    /// The random name of its data folder.
    pub disk_id: String,
    /// Which life of it this is.
    pub incarnation: Incarnation,
    /// Where it can be dialled, `host:port`.
    pub address: String,
    /// The program's version, for the log.
    pub version: String,
    /// The last election that it knows.
    pub term: Option<Term>,
    /// The random id of the cluster, in designs that count majorities, once it is founded: two may have one name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// HEARTBEAT between servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The last election that the sender knows.
    pub term: Option<Term>,
    /// The version of the sender's metadata.
    pub metadata: Option<MetadataVersion>,
}

/// The version of `room_locations`: the leader's term, then its changes in that term. The higher wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MetadataVersion {
    /// The term of the leader that made it.
    pub term: Term,
    /// Its changes in that term, from 1.
    pub counter: u64,
}

/// METADATA_UPDATE between servers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MetadataContent {
    /// To the leader: a client wants this room, please give it a host.
    Request {
        /// The room.
        room_id: String,
    },
    /// From the leader, when it is new or a server died: report to me.
    Collect {
        /// The term in which it leads.
        term: Term,
    },
    /// To the leader: these rooms are on my disk, those hosts I know; send me yours.
    Report {
        /// Rooms with messages here, and how many.
        held: BTreeMap<String, u64>,
        /// What the sender believes.
        room_locations: BTreeMap<String, NodeId>,
        /// The version of that belief.
        version: Option<MetadataVersion>,
    },
    /// From the leader: this changed since `base`; the whole map when `base` is absent.
    Update {
        /// The version after the change.
        version: MetadataVersion,
        /// The version that it changes.
        base: Option<MetadataVersion>,
        /// Room to host.
        room_locations: BTreeMap<String, NodeId>,
    },
}

/// CLIENT_JOIN, CLIENT_LEAVE, JOIN_ROOM and LEAVE_ROOM between servers; `sender_id` is the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// The user's session.
    pub session: String,
    /// Grows with each reconnect of the session, so that the latest connection wins everywhere.
    pub epoch: u64,
    /// With CLIENT_LEAVE: only the connection was lost, the user may be back at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
}

/// ACK between servers: how far the sender has come with the receiver's own messages. Of all rooms in one message:
/// where 256 speak in rooms of their own, three servers make 7 % more writes than with a message for each room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// The receiver's incarnation, whose messages are counted.
    pub origin: Incarnation,
    /// The rooms in which there is news.
    pub rooms: BTreeMap<String, HeldCount>,
}

/// How far a server has come with another one's messages in a room.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldCount {
    /// Delivered up to this one.
    pub held: u64,
    /// On disk up to this one.
    pub synced: u64,
}

/// SYNC between servers. Tagged from outside (`{"messages": {…}}`), unlike the others: a batch is then read
/// in one pass, and the contents of its messages stay raw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncContent {
    /// This is how far I am with these rooms.
    Clocks {
        /// The rooms.
        rooms: BTreeMap<String, RoomClock>,
        /// Whether the receiver should answer with its own clocks.
        reply: bool,
    },
    /// These you lack (`room_id` names the room), in an order in which they can be delivered.
    Messages {
        /// Stamped CHATs.
        messages: Vec<Message>,
        /// The sender's clock: what it had delivered when it sent the last of them.
        clock: VectorClock,
        /// Whether the sender has more; the receiver asks for it when it has taken these.
        more: bool,
    },
    /// Who is online here, and in which rooms. Replaces what the receiver knew of the sender.
    Presence {
        /// Session to user and rooms.
        sessions: BTreeMap<String, SessionPresence>,
    },
}

/// How far a replica is with a room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoomClock {
    /// What it has delivered.
    pub held: VectorClock,
    /// What of that is on its disk.
    pub synced: VectorClock,
    /// Whether it wants to be sent what it lacks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub want: bool,
    /// Whether to send again what was sent on this connection before: it waited in vain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// One session in [`SyncContent::Presence`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionPresence {
    /// The user's name.
    pub user: String,
    /// See [`Presence::epoch`].
    pub epoch: u64,
    /// The rooms that it is in.
    pub rooms: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    #[test]
    fn a_batch_of_messages_reads_back_the_same() {
        let mut chat = Message::new(MessageType::Chat, "alice").with_id("a-1").in_room("lobby");
        chat.content = "hello".into();
        let messages =
            vec![chat, Message::new(MessageType::Heartbeat, "n1").saying(&Joined::default())];
        let content = SyncContent::Messages { messages, clock: VectorClock::new(), more: true };
        let sync = Message::new(MessageType::Sync, "n1").saying(&content);
        let read = Message::deserialize(&sync.serialize()).unwrap();
        assert_eq!(read.content.parse::<SyncContent>().unwrap(), content);
    }

    #[test]
    fn a_position_is_a_clock_or_a_number() {
        let clock: Position = serde_json::from_str(r#"{"n1.1-0000":3}"#).unwrap();
        assert!(matches!(clock, Position::Clock(clock) if clock.get(&"n1.1-0000".into()) == 3));
        assert_eq!(serde_json::from_str::<Position>("7").unwrap(), Position::Sequence(7));
    }
}
