//! One line of a trace.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of the lines. Another number in a start line is refused.
pub const FORMAT: u32 = 1;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A server started; the line says which one of which cluster in [`TraceEvent::run`].
    Start,
    /// It stopped, as it was told to.
    Stop,
    /// A message left, for servers or for clients.
    Send,
    /// A message arrived.
    Receive,
    /// A message was shown to members of its room.
    Deliver,
    /// A client was told that its message is safe, or its request done.
    Ack,
    /// The state, the leader, the term or the list of the dead changed.
    State,
    /// A timer fired, and something came of it.
    Timer,
    /// What was appended to the log is on disk.
    Sync,
    /// The server died. The simulator says so; in a trace of processes it follows from silence.
    Crash,
    /// The server sleeps (simulator).
    Pause,
    /// It goes on (simulator).
    Wake,
    /// Nothing gets through to another server any more (simulator).
    Cut,
    /// It does again (simulator).
    Heal,
    /// Events were lost: the channel or the disk was full.
    Lost,
}

/// Which life of which server a start line begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The version of the lines that follow, [`FORMAT`].
    pub format: u32,
    /// The server's incarnation, such as `n1.3-9f2c`: its frames are named for it.
    pub life: String,
    /// The cluster's name.
    pub cluster: String,
    /// The design.
    pub design: String,
    /// How a leader is found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub election: String,
    /// The version of the program.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The life began before this line: it stands at the beginning of a file that goes on where another one was full. Its
    /// number is that of the event before it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub continues: bool,
}

/// One event of one process. What does not apply is left out of the line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// When: microseconds since 1970 by the server's clock, or virtual microseconds of the simulator.
    pub time_us: u64,
    /// Whose event.
    pub node: String,
    /// Counts the events of this life of the server: 1, 2, 3, …
    pub n: u64,
    /// What.
    pub kind: Kind,
    /// The servers at the other end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// The clients at the other end, by user name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<String>,
    /// The frame's name, the same where it is sent and where it is received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// The message's type, such as `CHAT`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub message_type: Option<String>,
    /// The message's id, chosen by its sender.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The session that sent it, where a client did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// The room.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub room: String,
    /// The term that the message names, or that a state change leads to: `3@n2`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub term: String,
    /// The chat messages that it is about or carries, as `user/id`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub about: Vec<String>,
    /// After a state change: the state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// After a state change: the leader, if one is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub leader: String,
    /// After a state change: the cluster's random id, in the designs that have one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster_id: String,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub say: String,
    /// Of a start line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// How many events were lost here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// The trace's own vector clock: how many events of each process happened before, this one included. Only a merged
    /// trace has it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub clock: BTreeMap<String, u64>,
}

impl TraceEvent {
    /// An event about which nothing else is known yet.
    pub fn new(time_us: u64, node: &str, kind: Kind) -> Self {
        Self {
            time_us,
            node: node.into(),
            n: 0,
            kind,
            peers: Vec::new(),
            clients: Vec::new(),
            frame: None,
            message_type: None,
            id: String::new(),
            session: String::new(),
            room: String::new(),
            term: String::new(),
            about: Vec::new(),
            state: String::new(),
            leader: String::new(),
            cluster_id: String::new(),
            say: String::new(),
            run: None,
            lost: 0,
            clock: BTreeMap::new(),
        }
    }

    /// Its line, without the end of line.
    pub fn to_line(&self) -> String {
        // Strings, numbers and maps with string keys: nothing here can fail.
        serde_json::to_string(self).expect("an event serialises")
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
