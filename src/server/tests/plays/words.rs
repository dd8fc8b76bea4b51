//! How a play is told.
//!
//! Without being asked it tells who leads and who stands in the ring, what clients were shown and told, and
//! who holds a message back. `trace` asks for more: `held`, `disks` and `positions`, and messages between
//! servers by their type in lower case, such as `chat` or `sync`; `presence` is who is online where, `election`
//! all that is said in an election.
//! `trace nothing` is how it began.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Play;
use crate::domain::content::{
    ElectionContent, ErrorContent, Heartbeat, Held, Hello, Joined, MetadataContent, Position,
    SyncContent,
};
use crate::domain::{Incarnation, Message, MessageType, NodeId, VectorClock};
use crate::network::ConnId;
use crate::server::election::BullyElection;
use crate::server::election::bully::BullyMessage;
use crate::server::test_cluster::Event;
use crate::server::{ServerNode, ServerState};
use crate::trace::words::words as trace_words;

/// What `trace` knows besides the types of messages.
pub(super) const KINDS: [&str; 5] = ["held", "disks", "positions", "presence", "nothing"];

/// The lives of servers, and how they are written: `n1` is the first life of n1, `n1'` its second.
#[derive(Default)]
pub(super) struct Lives(BTreeMap<Incarnation, String>);

impl Lives {
    /// The number of the next life of `id`, from 1.
    pub(super) fn next(&self, id: &NodeId) -> u64 {
        1 + self.0.keys().filter(|life| life.node_id() == *id).count() as u64
    }

    /// The `life`-th life of a server begins.
    pub(super) fn add(&mut self, incarnation: &Incarnation, life: u64) {
        let marks = "'".repeat(usize::try_from(life - 1).unwrap());
        self.0.insert(incarnation.clone(), format!("{}{marks}", incarnation.node_id()));
    }

    fn name(&self, incarnation: &Incarnation) -> String {
        self.0.get(incarnation).cloned().unwrap_or_else(|| incarnation.to_string())
    }

    fn clock(&self, clock: &VectorClock) -> String {
        let entries: Vec<String> =
            clock.timestamps.iter().map(|(life, n)| format!("{}:{n}", self.name(life))).collect();
        format!("{{{}}}", entries.join(" "))
    }

    /// A text for people, without ports, and with lives written as in the play.
    fn text(&self, text: &str) -> String {
        let mut text = text.replace(":1)", ")");
        for (life, name) in &self.0 {
            text = text.replace(life.as_str(), name);
        }
        text
    }
}

/// How a server sees the cluster.
#[derive(Clone, Default, PartialEq)]
pub(super) struct View {
    ring: String,
    leader: String,
    ready: bool,
    rooms: BTreeMap<String, String>,
}

impl View {
    fn of(node: &ServerNode, lives: &Lives) -> Self {
        let ring: Vec<String> = node.ring().iter().map(NodeId::to_string).collect();
        let rooms = node.metadata_store.room_locations().iter();
        let leader = match (node.state(), node.term()) {
            (ServerState::ElectionInProgress, _) => "stands for election".into(),
            (ServerState::Leader | ServerState::Follower, Some(term)) => {
                format!("leader {} in term {}", lives.name(&term.leader), term.counter)
            }
            _ => "no leader".into(),
        };
        Self {
            ring: ring.join(" "),
            leader,
            ready: node.is_ready(),
            rooms: rooms.map(|(room, host)| (room.clone(), host.to_string())).collect(),
        }
    }

    fn changes(&self, old: &Self) -> String {
        let mut parts = Vec::new();
        if self.ring != old.ring {
            parts.push(format!("ring {}", self.ring));
        }
        if self.leader != old.leader {
            parts.push(self.leader.clone());
        }
        if self.ready && !old.ready {
            parts.push("takes clients".into());
        }
        for (room_id, host) in &self.rooms {
            if old.rooms.get(room_id) != Some(host) {
                parts.push(format!("{room_id} at {host}"));
            }
        }
        parts.join(", ")
    }
}

impl Play {
    /// Tells what happened since the last look, and whose view of the cluster changed.
    pub(super) fn look(&mut self) {
        self.tell();
        let mut changed: Vec<(String, Vec<&NodeId>)> = Vec::new();
        for (id, node) in &self.cluster.nodes {
            let view = View::of(&node.node, &self.lives);
            let first =
                View { leader: "no leader".into(), ring: id.to_string(), ..View::default() };
            let changes = view.changes(self.views.get(id).unwrap_or(&first));
            self.views.insert(id.clone(), view);
            if changes.is_empty() {
                continue;
            }
            match changed.iter_mut().find(|(text, _)| *text == changes) {
                Some((_, ids)) => ids.push(id),
                None => changed.push((changes, vec![id])),
            }
        }
        for (changes, ids) in changed {
            let ids: Vec<&str> = ids.into_iter().map(NodeId::as_str).collect();
            _ = writeln!(self.output, "{}: {changes}", ids.join(" "));
        }
    }

    /// Tells what happened since the last look.
    pub(super) fn tell(&mut self) {
        let events = std::mem::take(self.cluster.story.get_or_insert_default());
        for event in events {
            if let Some(line) = self.line(event) {
                self.output += &line;
                self.output += "\n";
            }
        }
    }

    fn is_traced(&self, kind: &str) -> bool {
        self.traced.contains(kind)
    }

    fn line(&mut self, event: Event) -> Option<String> {
        match event {
            Event::Held(id, msg) => {
                self.is_traced("held").then(|| format!("{id} holds {}", msg.message_id))
            }
            Event::HeldBack(id, msg) => Some(format!("{id} holds back {}", msg.message_id)),
            Event::Synced(id, msg) => self
                .is_traced("disks")
                .then(|| format!("{} is on the disk of {id}", msg.message_id)),
            Event::Sent(from, to, msg) => {
                let (kind, what) = self.sent(&msg)?;
                self.is_traced(&kind).then(|| format!("{from} -> {to} {what}"))
            }
            Event::Told(end, msg) => self.told(&end, &msg),
            Event::Closed(end) => {
                let who = self.who(&end)?;
                let person = self.people.get_mut(&who)?;
                std::mem::take(&mut person.connected)
                    .then(|| format!("{who} is disconnected by {}", end.0))
            }
        }
    }

    fn who(&self, end: &(NodeId, ConnId)) -> Option<String> {
        let person = self.people.iter().find(|(_, person)| person.end == *end);
        person.map(|(who, _)| who.clone())
    }

    fn told(&mut self, end: &(NodeId, ConnId), msg: &Message) -> Option<String> {
        let who = self.who(end)?;
        let mut line = match msg.message_type {
            MessageType::Chat => format!("{who} is shown {}", msg.message_id),
            MessageType::Ack if msg.message_id == "hello" => {
                format!("{who} is welcome at {}", end.0)
            }
            MessageType::Ack if msg.message_id == "join" => {
                let joined: Joined = msg.content.parse().unwrap();
                let mut line = format!("{who} joins {}", msg.room_id);
                if let Some(Position::Clock(gap)) = &joined.gap {
                    _ = write!(line, ", without {}", self.lives.clock(gap));
                }
                line
            }
            MessageType::Ack => format!("{who} gets ACK {}", msg.message_id),
            MessageType::JoinRoom => format!("{who} is told: {} joins", msg.sender_id),
            MessageType::LeaveRoom => format!("{who} is told: {} leaves", msg.sender_id),
            MessageType::Error => {
                let error: ErrorContent = msg.content.parse().unwrap();
                let again = if error.retryable { " (retryable)" } else { "" };
                let reason = self.lives.text(&error.reason);
                format!("{who} is told {}{again}: {reason}", error.code)
            }
            _ => return None,
        };
        if let Some(position) = &msg.position {
            if self.is_traced("positions") {
                _ = match position {
                    Position::Clock(clock) => {
                        write!(line, ", position {}", self.lives.clock(clock))
                    }
                    Position::Sequence(seq) => write!(line, ", position {seq}"),
                };
            }
            self.people.get_mut(&who)?.position = Some(position.clone());
        }
        Some(line)
    }

    /// What one server says to another: the kind that `trace` knows, and the words.
    fn sent(&self, msg: &Message) -> Option<(String, String)> {
        let kind = msg.message_type.as_str();
        let words = match msg.message_type {
            MessageType::Chat => {
                let stamp = msg.vector_clock.as_ref().map(|clock| self.lives.clock(clock));
                format!("{kind} {} {}", msg.message_id, stamp.unwrap_or_default())
            }
            MessageType::Ack => {
                let held: Held = msg.content.parse().ok()?;
                let life = self.lives.name(&held.origin);
                let rooms = held.rooms.values();
                let rooms = rooms.map(|count| {
                    format!("{kind} holds {life}:{}, on disk {life}:{}", count.held, count.synced)
                });
                rooms.collect::<Vec<_>>().join("; ")
            }
            MessageType::Sync => return self.sync(msg),
            MessageType::Hello => {
                let hello: Hello = msg.content.parse().ok()?;
                format!(
                    "{kind} {}{}",
                    self.lives.name(&hello.incarnation),
                    self.in_term(hello.term)
                )
            }
            MessageType::Heartbeat => {
                let beat: Heartbeat = msg.content.parse().ok()?;
                format!("{kind}{}", self.in_term(beat.term))
            }
            MessageType::Election | MessageType::ElectionOk | MessageType::Coordinator => {
                return Some(("election".into(), format!("{kind} {}", self.election(msg)?)));
            }
            MessageType::MetadataUpdate => format!("{kind} {}", metadata(msg)?),
            MessageType::RequestVote
            | MessageType::Promise
            | MessageType::CatchupReq
            | MessageType::SeqChat
            | MessageType::AppendEntries => {
                format!("{kind} {}", self.lives.text(&trace_words(msg, None).say))
            }
            MessageType::Error => {
                let error: ErrorContent = msg.content.parse().ok()?;
                format!("{kind} {}", error.code)
            }
            _ => return Some(("presence".into(), format!("{kind} {}", msg.sender_id))),
        };
        Some((kind.to_lowercase(), words))
    }

    fn election(&self, msg: &Message) -> Option<String> {
        match BullyElection::parse_message(msg) {
            Ok(BullyMessage::Question(question)) => {
                return Some(format!("of {}, round {}", question.candidate, question.counter));
            }
            Ok(BullyMessage::Ok(ok)) => return Some(format!("round {}", ok.counter)),
            Ok(BullyMessage::Coordinator(news)) => {
                return Some(self.in_term(Some(news.term)).trim_start().into());
            }
            Err(_) => {}
        }
        Some(match msg.content.parse().ok()? {
            ElectionContent::Probe { id, counter, k, d, .. } => {
                format!("probe of {id}, round {counter}, k={k}, d={d}")
            }
            ElectionContent::Reply { id, counter, k, .. } => {
                format!("reply to {id}, round {counter}, k={k}")
            }
            ElectionContent::Announcement { term, .. } => {
                format!("announcement{}", self.in_term(Some(term)))
            }
        })
    }

    fn in_term(&self, term: Option<crate::domain::Term>) -> String {
        term.map_or_else(String::new, |term| {
            format!(" term {} of {}", term.counter, self.lives.name(&term.leader))
        })
    }

    fn sync(&self, msg: &Message) -> Option<(String, String)> {
        let words = match msg.content.parse().ok()? {
            SyncContent::Clocks { rooms, reply } => {
                let rooms: Vec<String> = rooms
                    .iter()
                    .map(|(room_id, clock)| {
                        let want = if clock.want { " wants" } else { "" };
                        format!("{room_id} {}{want}", self.lives.clock(&clock.held))
                    })
                    .collect();
                format!("SYNC {}{}", rooms.join(", "), if reply { ", asks" } else { "" })
            }
            SyncContent::Messages { messages, more, .. } => {
                let more = if more { ", more" } else { "" };
                let first = messages.first().map_or("", |msg| &msg.message_id);
                let last = messages.last().map_or("", |msg| &msg.message_id);
                let ids: Vec<&str> = messages.iter().map(|msg| msg.message_id.as_str()).collect();
                match messages.len() {
                    0..=8 => format!("SYNC messages {}{more}", ids.join(" ")),
                    n => format!("SYNC {n} messages {first}..{last}{more}"),
                }
            }
            SyncContent::Presence { .. } => {
                return Some(("presence".into(), "SYNC presence".into()));
            }
        };
        Some(("sync".into(), words))
    }

    // ------------------------------------------------------------ on request

    /// Says `words` of every server that has a copy of the room.
    fn tell_copies(
        &mut self,
        room_id: &str,
        words: impl Fn(&ServerNode, &[Message], &Lives) -> String,
    ) {
        for (id, node) in &self.cluster.nodes {
            if node.node.managed_rooms.contains_key(room_id) {
                _ = writeln!(
                    self.output,
                    "{id}: {}",
                    words(&node.node, &node.log.records(), &self.lives)
                );
            }
        }
    }

    pub(super) fn tell_clocks(&mut self, room_id: &str) {
        self.tell_copies(room_id, |node, _, lives| {
            let room = &node.managed_rooms[room_id];
            let known = node.causal_multicast_handler.replication_of(room_id).unwrap();
            let mut line = lives.clock(&room.clock);
            if known.shown_clock != room.clock {
                _ = write!(line, ", shown {}", lives.clock(&known.shown_clock));
            }
            if known.synced != room.clock {
                _ = write!(line, ", on disk {}", lives.clock(&known.synced));
            }
            line
        });
    }

    pub(super) fn tell_room(&mut self, room_id: &str) {
        self.tell_copies(room_id, |node, log, _| {
            let ids = |messages: &mut dyn Iterator<Item = &Message>| -> String {
                messages.flat_map(|msg| [" ", &msg.message_id]).collect()
            };
            let room = &node.managed_rooms[room_id];
            let host = node.metadata_store.host(room_id).map_or("nobody", NodeId::as_str);
            let replicas: Vec<String> =
                node.replicas_of(room_id).iter().map(NodeId::to_string).collect();
            let mut line = format!("host {host}, replicas {}; holds", replicas.join(" "));
            match room.message_history.len() {
                0 => line += " nothing",
                n @ 1..=8 => {
                    // What a start found is on disk alone.
                    let records = (0..n).filter_map(|place| room.message_history.record_of(place));
                    line += &ids(&mut records.map(|record| &log[record as usize - 1]));
                }
                n => _ = write!(line, " {n} messages"),
            }
            if !room.hold_back_queue.is_empty() {
                _ = write!(line, "; holds back{}", ids(&mut room.hold_back_queue.iter()));
            }
            line
        });
    }

    pub(super) fn tell_status(&mut self) {
        for (id, node) in &self.cluster.nodes {
            let view = View::of(&node.node, &self.lives);
            let ready = if view.ready { "" } else { ", takes no clients" };
            _ = writeln!(self.output, "{id}: ring {}, {}{ready}", view.ring, view.leader);
        }
    }
}

fn metadata(msg: &Message) -> Option<String> {
    Some(match msg.content.parse().ok()? {
        MetadataContent::Request { room_id } => format!("request {room_id}"),
        MetadataContent::Collect { term } => format!("collect in term {}", term.counter),
        MetadataContent::Report { held, room_locations, .. } => {
            let held: Vec<String> = held.into_keys().collect();
            let held = if held.is_empty() { "nothing".into() } else { held.join(" ") };
            format!("report: holds {held}, believes {}", locations(&room_locations))
        }
        MetadataContent::Update { version, room_locations, .. } => {
            let (term, counter) = (version.term.counter, version.counter);
            format!("update to {term}.{counter}: {}", locations(&room_locations))
        }
    })
}

fn locations(rooms: &BTreeMap<String, NodeId>) -> String {
    let rooms: Vec<String> = rooms.iter().map(|(room, host)| format!("{room} at {host}")).collect();
    if rooms.is_empty() { "nothing".into() } else { rooms.join(" ") }
}
