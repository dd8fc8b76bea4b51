//! What a step did, as it is handed from the step to whoever writes it down.
//!
//! A step copies what it did and goes on. Taking frames apart and finding words for them is the reader's of the channel.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::event::{Kind, Run, TraceEvent};
use super::tracer::Standing;
use super::words::words;
use crate::domain::{Content, Frame, Message, MessageType, NodeId};
use crate::storage::LogIndex;

/// Who is at the other end of a connection, as far as the trace knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Who {
    /// Nothing was said yet.
    #[default]
    Unknown,
    /// Another server.
    Server(NodeId),
    /// A client: the user's name, and the session once it is known.
    Client(Arc<str>, Arc<str>),
}

/// One thing that a server did.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which server.
    pub node: NodeId,
    /// When, in microseconds.
    pub time_us: u64,
    /// What.
    pub what: What,
}

/// What a server did.
#[derive(Clone, Debug)]
pub enum What {
    /// It started.
    Start(Run),
    /// It stopped, as it was told to.
    Stop,
    /// It sent `frame`, under `name` when another server can receive it.
    Sent {
        /// To whom.
        to: Vec<Who>,
        /// The frame's name in the trace.
        name: Option<String>,
        /// The frame as it was before it got a name.
        frame: Frame,
    },
    /// It received `msg`.
    Received {
        /// From whom.
        from: Who,
        /// The message; its trace field is the name that the sender gave it.
        msg: Box<Message>,
    },
    /// It stands elsewhere now: what changed, in words.
    Stands(Standing, String),
    /// A timer fired.
    Timer(String),
    /// Its log is on disk up to here.
    Synced(LogIndex),
    /// Something was done to it, by the simulator: to the way to another server, if one is named.
    Suffered(Kind, Option<NodeId>, String),
    /// So many events are missing here.
    Lost(u64),
}

impl Entry {
    /// About how much memory it holds, in bytes.
    pub fn weight(&self) -> usize {
        let content = |content: &Content| match content {
            Content::Empty => 0,
            Content::Text(text) => text.len(),
            Content::Object(raw) => raw.get().len(),
        };
        256 + match &self.what {
            What::Sent { frame, .. } => frame.len(),
            What::Received { msg, .. } => content(&msg.content),
            _ => 0,
        }
    }

    /// Puts it into words. It has no number yet.
    pub fn into_event(self) -> TraceEvent {
        let Self { node, time_us, what } = self;
        let event = |kind| TraceEvent::new(time_us, node.as_str(), kind);
        match what {
            What::Start(run) => {
                let how = if run.continues { "goes on" } else { "starts" };
                let say = format!("{how} as {}", run.life);
                TraceEvent { run: Some(run), say, ..event(Kind::Start) }
            }
            What::Stop => TraceEvent { say: "stops".into(), ..event(Kind::Stop) },
            What::Sent { to, name, frame } => sent(event(Kind::Send), &to, name, &frame),
            What::Received { from, msg } => received(event(Kind::Receive), from, &msg),
            What::Stands(standing, say) => stands(event(Kind::State), &standing, say),
            What::Timer(say) => TraceEvent { say, ..event(Kind::Timer) },
            What::Synced(index) => {
                TraceEvent { say: format!("synced up to {index}"), ..event(Kind::Sync) }
            }
            What::Suffered(kind, peer, say) => {
                let peers = peer.iter().map(NodeId::to_string).collect();
                TraceEvent { peers, say, ..event(kind) }
            }
            What::Lost(lost) => {
                TraceEvent { lost, say: format!("{lost} events were lost"), ..event(Kind::Lost) }
            }
        }
    }
}

fn sent(mut event: TraceEvent, to: &[Who], name: Option<String>, frame: &Frame) -> TraceEvent {
    for who in to {
        meet(&mut event, who);
    }
    event.frame = name;
    // What a server sends is a message.
    let Ok(msg) = Message::decode(frame) else { return event };
    if !event.clients.is_empty() {
        event.kind = match msg.message_type {
            MessageType::Chat => Kind::Deliver,
            MessageType::Ack => Kind::Ack,
            _ => Kind::Send,
        };
    }
    // An acknowledgement is its addressee's; what is shown has its author's name in it.
    let user = event.clients.first().cloned();
    describe(event, &msg, user.as_deref())
}

fn received(mut event: TraceEvent, from: Who, msg: &Message) -> TraceEvent {
    meet(&mut event, &from);
    let mut user = None;
    match from {
        Who::Server(_) => event.frame = msg.trace.as_deref().map(str::to_string),
        Who::Client(name, session) => {
            user = Some(name);
            event.session = session.to_string();
        }
        Who::Unknown => {}
    }
    describe(event, msg, user.as_deref())
}

fn meet(event: &mut TraceEvent, who: &Who) {
    match who {
        Who::Unknown => {}
        Who::Server(node_id) => event.peers.push(node_id.to_string()),
        Who::Client(user, _) => event.clients.push(user.to_string()),
    }
}

fn describe(mut event: TraceEvent, msg: &Message, user: Option<&str>) -> TraceEvent {
    let said = words(msg, user);
    (event.say, event.about) = (said.say, said.about);
    event.message_type = Some(msg.message_type.as_str().into());
    event.id.clone_from(&msg.message_id);
    event.room.clone_from(&msg.room_id);
    event.term = msg.term.as_ref().map(ToString::to_string).unwrap_or_default();
    event
}

fn stands(event: TraceEvent, standing: &Standing, say: String) -> TraceEvent {
    TraceEvent {
        state: standing.state.to_string(),
        leader: standing.leader.as_ref().map(ToString::to_string).unwrap_or_default(),
        term: standing.term.as_ref().map(ToString::to_string).unwrap_or_default(),
        cluster_id: standing.cluster_id.clone().unwrap_or_default(),
        say,
        ..event
    }
}

/// Gives events their numbers: 1, 2, 3, … in each life of each server.
#[derive(Clone, Debug, Default)]
pub struct Numbering {
    counts: BTreeMap<String, u64>,
}

impl Numbering {
    /// The event of `entry`, with the next number.
    pub fn event(&mut self, entry: Entry) -> TraceEvent {
        let mut event = entry.into_event();
        let count = self.counts.entry(event.node.clone()).or_default();
        *count = match &event.run {
            Some(run) if run.continues => *count,
            Some(_) => 1,
            None => *count + 1,
        };
        event.n = *count;
        event
    }
}
