//! A merged trace as a space-time diagram: processes, what happened on their lines, arrows, and the story in short.
//!
//! ```text
//!            n1        n2        alice         a server's line shows its state, a gap that it was down
//!   time      │         │◀─ CHAT ──│
//!     │       │◀─ CHAT ─│          │           clients have no trace of their own: each of their events stands beside
//!     ▼       ╳ killed  │─ CHAT ──▶│           the server's that tells of it
//! ```
//!
//! Whoever draws it needs to know nothing about traces: [`page`](super::page), [`svg`](super::svg) and
//! [`shiviz`](super::shiviz) all start here.

use std::collections::{BTreeMap, BTreeSet};

use super::event::{Kind, TraceEvent};
use super::merge::Merged;
use super::words::shortened;
use crate::domain::ids::natural_cmp;

mod story;

/// Clients that are drawn. Those who wrote something come first.
const CLIENTS_MAX: usize = 16;
/// The label of empty `APPEND_ENTRIES` and their answers: the heartbeats of Raft.
pub const EMPTY_APPEND: &str = "APPEND_ENTRIES (empty)";

/// One line of the diagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its name, unique in the diagram.
    pub name: String,
    /// Whether it is a client.
    pub is_client: bool,
    /// How it was, from beginning to end.
    pub stretches: Vec<Stretch>,
}

/// A part of a server's line, or all of a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// When it begins, in microseconds.
    pub from_us: u64,
    /// When it ends.
    pub to_us: u64,
    /// The server's state as STATUS names it, or `DOWN`, `ASLEEP`, or `CLIENT`.
    pub state: String,
}

/// One event on a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dot {
    /// When, in microseconds.
    pub time_us: u64,
    /// Which line, as an index of [`Diagram::processes`].
    pub process: usize,
    /// What happened.
    pub kind: Kind,
    /// What it is filtered by: the message's type, or the kind of event.
    pub label: String,
    /// Who is at the other end of a message.
    pub others: String,
    /// In words, without the type.
    pub say: String,
    /// Room, id and term, as far as it has them.
    pub details: String,
    /// The chat messages that it is about, as indices of [`Diagram::keys`].
    pub about: Vec<usize>,
}

/// What anybody should know about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When, in microseconds.
    pub time_us: u64,
    /// Whose.
    pub process: usize,
    /// What happened: crash, election, leader, start, stop, pause, cut or lost.
    pub what: &'static str,
    /// In a sentence.
    pub text: String,
}

/// A run, ready to be drawn.
#[derive(Clone, Debug, Default)]
pub struct Diagram {
    /// The lines: servers in natural order, then clients.
    pub processes: Vec<Process>,
    /// What happened, in causal order; times never go back.
    pub dots: Vec<Dot>,
    /// `(sent, received)`, as indices of `dots`.
    pub arrows: Vec<(usize, usize)>,
    /// Messages to servers that are drawn, which never arrived there: where they were sent, and to which line.
    pub lost: Vec<(usize, usize)>,
    /// The chat messages, as `user/id`.
    pub keys: Vec<String>,
    /// The story.
    pub moments: Vec<Moment>,
    /// The first and the last moment, in microseconds.
    pub span_us: (u64, u64),
    /// Cluster and design.
    pub title: String,
    /// What people should know about the traces.
    pub notes: Vec<String>,
}

impl Dot {
    /// What happened, in one line.
    pub fn sentence(&self) -> String {
        let say = match (self.say.as_str(), self.details.as_str()) {
            ("", "") => String::new(),
            (say, "") => format!(": {say}"),
            ("", details) => format!(" ({details})"),
            (say, details) => format!(": {say} ({details})"),
        };
        let (label, others) = (&self.label, &self.others);
        let to = if others.is_empty() { String::new() } else { format!(" to {others}") };
        let from = if others.is_empty() { String::new() } else { format!(" from {others}") };
        match self.kind {
            Kind::Send => format!("sends {label}{to}{say}"),
            Kind::Receive => format!("receives {label}{from}{say}"),
            Kind::Deliver => format!("shows {label}{to}{say}"),
            Kind::Ack => format!("acknowledges{to}{say}"),
            Kind::Timer => format!("timer: {}", self.say),
            kind if self.say.is_empty() => format!("{kind:?}").to_lowercase(),
            _ => self.say.clone(),
        }
    }
}

impl Diagram {
    /// The diagram of `merged`.
    pub fn new(merged: &Merged) -> Self {
        let mut drawer = Drawer::new(merged);
        for at in 0..merged.events.len() {
            drawer.take(at);
        }
        drawer.finish()
    }

    /// The name of the line of `dot`.
    pub fn name_of(&self, dot: &Dot) -> &str {
        &self.processes[dot.process].name
    }
}

struct Drawer<'a> {
    merged: &'a Merged,
    diagram: Diagram,
    clients: BTreeMap<String, usize>,
    servers: BTreeMap<String, usize>,
    /// Where each event of the trace is among the dots.
    places: Vec<usize>,
    /// Per event that was sent and received: the servers that received it.
    received: BTreeMap<usize, Vec<usize>>,
    cause: BTreeMap<usize, usize>,
    keys: BTreeMap<String, usize>,
    /// Whose session wrote a key last, and how many did.
    authors: BTreeMap<String, (String, usize)>,
    /// How far each server's last answer to APPEND_ENTRIES went.
    matched: BTreeMap<usize, String>,
    /// When the last leader ended, and which it was.
    leaderless: Option<(u64, String)>,
    cuts: Option<usize>,
    /// The servers of the last moment, when more may join them.
    crowd: BTreeSet<String>,
}

impl<'a> Drawer<'a> {
    fn new(merged: &'a Merged) -> Self {
        let (first, last) = (merged.times_us.first(), merged.times_us.last());
        let span_us = (first.copied().unwrap_or_default(), last.copied().unwrap_or_default());
        let mut diagram = Diagram { span_us, notes: merged.notes.clone(), ..Diagram::default() };
        diagram.title = format!("{}, design {}", merged.cluster, merged.design);
        let mut servers = BTreeMap::new();
        for node in &merged.nodes {
            servers.insert(node.clone(), diagram.processes.len());
            let (name, is_client) = (node.clone(), false);
            diagram.processes.push(Process { name, is_client, stretches: Vec::new() });
        }
        let mut drawer = Self {
            merged,
            diagram,
            clients: BTreeMap::new(),
            servers,
            places: Vec::with_capacity(merged.events.len()),
            received: BTreeMap::new(),
            cause: merged.pairs.iter().map(|(from, to)| (*to, *from)).collect(),
            keys: BTreeMap::new(),
            authors: BTreeMap::new(),
            matched: BTreeMap::new(),
            leaderless: None,
            cuts: None,
            crowd: BTreeSet::new(),
        };
        drawer.choose_clients();
        drawer
    }

    fn choose_clients(&mut self) {
        let mut wrote: BTreeMap<&str, usize> = BTreeMap::new();
        let mut met: Vec<&str> = Vec::new();
        for event in &self.merged.events {
            for client in event.clients.iter().map(String::as_str) {
                if !wrote.contains_key(client) {
                    met.push(client);
                }
                let chats =
                    event.kind == Kind::Receive && event.message_type.as_deref() == Some("CHAT");
                *wrote.entry(client).or_default() += usize::from(chats);
            }
        }
        let all = met.len();
        met.sort_by_key(|client| wrote.get(client).is_none_or(|count| *count == 0));
        met.truncate(CLIENTS_MAX);
        met.sort_by(|a, b| natural_cmp(a, b));
        if all > met.len() {
            let hidden = all - met.len();
            self.diagram.notes.push(format!("{hidden} clients more are not drawn"));
        }
        for client in met {
            let taken = self.servers.contains_key(client);
            let name = if taken { format!("{client} (client)") } else { client.to_string() };
            self.clients.insert(client.into(), self.diagram.processes.len());
            self.diagram.processes.push(Process { name, is_client: true, stretches: Vec::new() });
        }
    }

    fn take(&mut self, at: usize) {
        let (event, time_us) = (&self.merged.events[at], self.merged.times_us[at]);
        let Some(process) = self.servers.get(&event.node).copied() else { return };
        self.remember_author(event);
        let dot = self.dot(event, at, time_us, process);
        let from_client = (event.kind == Kind::Receive)
            .then(|| event.clients.first().and_then(|client| self.clients.get(client)).copied())
            .flatten();
        if let Some(client) = from_client {
            let others = event.node.clone();
            let sent = Dot { process: client, kind: Kind::Send, others, ..dot.clone() };
            self.diagram.dots.push(sent);
            self.stretch_client(client, time_us);
        }
        let here = self.diagram.dots.len();
        self.places.push(here);
        self.diagram.dots.push(dot.clone());
        if from_client.is_some() {
            self.diagram.arrows.push((here - 1, here));
        } else {
            let drawn = event.clients.iter().filter_map(|client| self.clients.get(client));
            for client in drawn.copied().collect::<Vec<_>>() {
                self.diagram.arrows.push((here, self.diagram.dots.len()));
                let others = event.node.clone();
                let shown = Dot { process: client, kind: Kind::Receive, others, ..dot.clone() };
                self.diagram.dots.push(shown);
                self.stretch_client(client, time_us);
            }
        }
        if let Some(from) = self.cause.get(&at) {
            self.diagram.arrows.push((self.places[*from], here));
            self.received.entry(*from).or_default().push(process);
        }
        self.tell(event, time_us, process);
        self.live(event, time_us, process);
    }

    fn dot(&mut self, event: &TraceEvent, at: usize, time_us: u64, process: usize) -> Dot {
        let about = event.about.iter().map(|key| self.key(key)).collect();
        let word = |name: &str, value: &str| (!value.is_empty()).then(|| format!("{name} {value}"));
        let details = [word("room", &event.room), word("id", &event.id), word("term", &event.term)];
        let details: Vec<String> = details.into_iter().flatten().collect();
        let label = self.label(event, at, process);
        let (kind, say) = (event.kind, event.say.clone());
        let others: Vec<&str> =
            event.peers.iter().chain(&event.clients).map(String::as_str).collect();
        let (others, details) = (shortened(&others.join(" ")), details.join(", "));
        Dot { time_us, process, kind, label, others, say, details, about }
    }

    /// What an event is filtered by.
    fn label(&mut self, event: &TraceEvent, at: usize, process: usize) -> String {
        if let Some(from) = self.cause.get(&at) {
            return self.diagram.dots[self.places[*from]].label.clone();
        }
        let Some(message_type) = &event.message_type else {
            return match event.kind {
                Kind::Timer => "timer".into(),
                Kind::Sync => "disk sync".into(),
                Kind::State => "state".into(),
                _ => "life".into(),
            };
        };
        if message_type == "APPEND_ENTRIES" {
            let is_empty = if event.say.starts_with("request") {
                !event.say.contains(" entries")
            } else if event.say.starts_with("accepted") {
                // An answer that tells nothing new.
                let far = event.say.split("match_index ").nth(1).unwrap_or_default();
                self.matched.insert(process, far.into()).is_some_and(|before| before == far)
            } else {
                false
            };
            if is_empty {
                return EMPTY_APPEND.into();
            }
        }
        message_type.clone()
    }

    /// A user who comes back with a new session numbers messages from the beginning: the key says which of them.
    fn remember_author(&mut self, event: &TraceEvent) {
        let is_chat = event.kind == Kind::Receive && event.message_type.as_deref() == Some("CHAT");
        if !is_chat || event.session.is_empty() {
            return;
        }
        for key in &event.about {
            let author =
                self.authors.entry(key.clone()).or_insert_with(|| (event.session.clone(), 1));
            if author.0 != event.session {
                *author = (event.session.clone(), author.1 + 1);
            }
        }
    }

    fn key(&mut self, key: &str) -> usize {
        let full = match self.authors.get(key) {
            Some((_, count)) if *count > 1 => format!("{key} ({count})"),
            _ => key.to_string(),
        };
        let keys = &mut self.diagram.keys;
        *self.keys.entry(full).or_insert_with_key(|full| {
            keys.push(full.clone());
            keys.len() - 1
        })
    }

    // ------------------------------------------------------------ lines

    fn stretch_client(&mut self, client: usize, time_us: u64) {
        let stretches = &mut self.diagram.processes[client].stretches;
        match stretches.last_mut() {
            Some(last) => last.to_us = time_us,
            None => stretches.push(stretch(time_us, "CLIENT")),
        }
    }

    /// The line of a server goes on, perhaps in another state.
    fn live(&mut self, event: &TraceEvent, time_us: u64, process: usize) {
        let stretches = &mut self.diagram.processes[process].stretches;
        let before = stretches.len().checked_sub(2).map(|last| stretches[last].state.clone());
        let state = match event.kind {
            Kind::Start => "LOOKING",
            Kind::Stop | Kind::Crash => "DOWN",
            Kind::Pause => "ASLEEP",
            Kind::State => event.state.as_str(),
            Kind::Wake => before.as_deref().unwrap_or("LOOKING"),
            _ => return,
        };
        if let Some(last) = stretches.last_mut() {
            if last.state == state {
                return;
            }
            last.to_us = time_us;
        }
        stretches.push(stretch(time_us, state));
    }

    // ------------------------------------------------------------ the end

    fn finish(mut self) -> Diagram {
        let end = self.diagram.span_us.1;
        for process in self.diagram.processes.iter_mut().filter(|process| !process.is_client) {
            if let Some(last) = process.stretches.last_mut() {
                last.to_us = end;
            }
        }
        self.find_lost();
        self.diagram
    }

    /// Messages between traced servers that did not arrive. What was sent last may have been on its way.
    fn find_lost(&mut self) {
        for (at, event) in self.merged.events.iter().enumerate() {
            if event.kind != Kind::Send || event.frame.is_none() {
                continue;
            }
            let received = self.received.get(&at).map(Vec::as_slice).unwrap_or_default();
            for peer in event.peers.iter().filter_map(|peer| self.servers.get(peer)) {
                if !received.contains(peer) {
                    self.diagram.lost.push((self.places[at], *peer));
                }
            }
        }
    }
}

fn stretch(at_us: u64, state: &str) -> Stretch {
    Stretch { from_us: at_us, to_us: at_us, state: state.into() }
}

/// A span for people.
pub fn milliseconds(us: u64) -> String {
    if us < 10_000 { format!("{:.1} ms", us as f64 / 1000.0) } else { format!("{} ms", us / 1000) }
}
