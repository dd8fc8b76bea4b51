//! Plays who hosts which room.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;

use goldenscript::{Command, Context, Runner};
use roundtable::domain::content::{MetadataContent, MetadataVersion};
use roundtable::domain::{Incarnation, Message, NodeId, Term};
use roundtable::network::transport::Outbox;
use roundtable::server::metadata::{MetadataStore, View};

use crate::wires::{Flight, Wires};

/// What can happen.
#[derive(Command)]
pub(crate) enum Verb {
    /// These servers live, and know each other.
    Servers(Vec<String>),
    /// The server has so many messages of rooms on its disk.
    Disk {
        /// Which server.
        id: String,
        /// Room to messages.
        #[arg(key, many)]
        held: BTreeMap<String, u64>,
    },
    /// This server wins the next election, and everyone alive knows.
    Elect(String),
    /// A client of the server wants the room.
    Want(String, String),
    /// Everything on its way arrives, once.
    Deliver,
    /// Everything arrives, and what follows from it, until nothing is on its way.
    DeliverAll,
    /// What is on its way from the first to the second is lost.
    Lose(String, String),
    /// Whatever the first sends the second waits on the link.
    Hold(String, String),
    /// The link works again.
    Release(String, String),
    /// The server is gone, with what it had sent and nobody had read; everyone notices.
    Crash(String),
    /// Everyone gets the leader's heartbeat, which carries its version.
    Heartbeat,
    /// The leader waits no longer for reports.
    LosePatience,
}

struct Server {
    store: MetadataStore,
    held: BTreeMap<String, u64>,
}

/// Servers that know nothing but where rooms live.
#[derive(Default)]
pub(crate) struct Play {
    servers: BTreeMap<NodeId, Server>,
    term: Option<Term>,
    wires: Wires,
    output: String,
}

impl Play {
    /// An empty stage.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn live(&self) -> BTreeSet<NodeId> {
        self.servers.keys().cloned().collect()
    }

    fn leader(&self) -> Result<NodeId, &'static str> {
        Ok(self.term.as_ref().ok_or("nobody leads")?.leader.node_id())
    }

    /// Lets `id` do something, and writes down what changed and what it sent.
    fn step(
        &mut self,
        id: &NodeId,
        act: impl FnOnce(&mut MetadataStore, View, &Outbox) -> Vec<String>,
    ) {
        let live = self.live();
        let Some(server) = self.servers.get_mut(id) else { return };
        let outbox = Outbox::new();
        let view = View { live: &live, term: self.term.as_ref(), held: &server.held };
        let before = server.store.room_locations().clone();
        let said = act(&mut server.store, view, &outbox);
        let after = server.store.room_locations();
        let rooms: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed: Vec<&String> = rooms
            .into_iter()
            .filter(|room_id| before.get(*room_id) != after.get(*room_id))
            .collect();
        assert_eq!(changed, said.iter().collect::<Vec<_>>(), "what it says it changed");
        for room_id in changed {
            let host = |map: &BTreeMap<String, NodeId>| {
                map.get(room_id).map_or("nobody".to_string(), NodeId::to_string)
            };
            _ = writeln!(self.output, "{id} {room_id}: {} => {}", host(&before), host(after));
        }
        for (to, msg) in outbox.take_to_nodes() {
            let name = to.as_ref().map_or("all", NodeId::as_str);
            _ = writeln!(self.output, "{id} -> {name} {}", describe(&msg));
            for other in live.iter().filter(|other| *other != id) {
                if to.as_ref().is_none_or(|to| to == other) {
                    self.wires.send(id, other, msg.clone());
                }
            }
        }
    }

    fn deliver(&mut self) -> bool {
        let turn = self.wires.take();
        for Flight { to, msg, .. } in &turn {
            self.step(to, |store, view, cm| store.handle_message(msg, view, cm));
        }
        !turn.is_empty()
    }

    fn lose(&mut self, lost: impl Fn(&Flight) -> bool) {
        for Flight { from, to, msg } in self.wires.lose(lost) {
            _ = writeln!(self.output, "{from} -> {to} {} is lost", describe(&msg));
        }
    }

    fn elect(&mut self, name: &str) {
        let winner = NodeId::from(name);
        let counter = self.term.as_ref().map_or(0, |term| term.counter) + 1;
        let term = Term { counter, leader: Incarnation::new(&winner, 1, 0) };
        self.term = Some(term.clone());
        for id in self.live() {
            if id == winner {
                self.step(&id, |store, view, cm| store.become_leader(&term, view, cm));
            } else if let Some(server) = self.servers.get_mut(&id) {
                server.store.step_down();
            }
        }
    }

    fn crash(&mut self, name: &str) -> Result<(), &'static str> {
        let id = NodeId::from(name);
        self.servers.remove(&id);
        self.lose(|flight| flight.from == id || flight.to == id);
        let leader = self.leader()?;
        self.step(&leader, |store, view, cm| store.collect(view, cm));
        Ok(())
    }

    fn heartbeat(&mut self) -> Result<(), &'static str> {
        let leader = self.leader()?;
        let version =
            self.servers.get(&leader).ok_or("the leader is dead")?.store.version().cloned();
        for id in self.live() {
            self.step(&id, |store, view, cm| {
                if store.is_behind(version.as_ref()) {
                    store.sync_with_leader(&leader, view.held, cm);
                }
                Vec::new()
            });
        }
        Ok(())
    }
}

fn pairs<V: std::fmt::Display>(map: &BTreeMap<String, V>) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "nothing".into() } else { pairs.join(" ") }
}

fn number(version: Option<&MetadataVersion>) -> String {
    version.map_or("none".into(), |version| format!("{}.{}", version.term, version.counter))
}

fn describe(msg: &Message) -> String {
    match msg.content.parse().expect("what servers send can be read") {
        MetadataContent::Request { room_id } => format!("request {room_id}"),
        MetadataContent::Collect { term } => format!("collect term={term}"),
        MetadataContent::Report { held, room_locations, version } => format!(
            "report version={} believes {}; holds {}",
            number(version.as_ref()),
            pairs(&room_locations),
            pairs(&held)
        ),
        MetadataContent::Update { version, base: Some(base), room_locations } => format!(
            "update {} to {}: {}",
            number(Some(&base)),
            number(Some(&version)),
            pairs(&room_locations)
        ),
        MetadataContent::Update { version, base: None, room_locations } => {
            format!("update to {}, whole: {}", number(Some(&version)), pairs(&room_locations))
        }
    }
}

impl Runner for Play {
    type Command = Verb;

    fn run(&mut self, verb: &Verb, _: &Context) -> Result<String, Box<dyn Error>> {
        match verb {
            Verb::Servers(names) => {
                for id in names.iter().map(|name| NodeId::from(name.as_str())) {
                    let store = MetadataStore::new(id.clone());
                    self.servers.insert(id, Server { store, held: BTreeMap::new() });
                }
            }
            Verb::Disk { id, held } => {
                let server = self.servers.get_mut(&NodeId::from(id.as_str()));
                server.ok_or("no such server")?.held.clone_from(held);
            }
            Verb::Elect(name) => self.elect(name),
            Verb::Want(id, room_id) => {
                let leader = self.leader()?;
                self.step(&id.as_str().into(), |store, view, cm| {
                    store.request(room_id, &leader, view, cm)
                });
            }
            Verb::Deliver => _ = self.deliver(),
            Verb::DeliverAll => while self.deliver() {},
            Verb::Lose(from, to) => {
                self.lose(|f| f.from.as_str() == from && f.to.as_str() == to);
            }
            Verb::Hold(from, to) => self.wires.hold(from, to),
            Verb::Release(from, to) => self.wires.release(from, to),
            Verb::Crash(name) => self.crash(name)?,
            Verb::Heartbeat => self.heartbeat()?,
            Verb::LosePatience => {
                let leader = self.leader()?;
                self.step(&leader, |store, view, cm| store.rehome(view, cm));
            }
        }
        Ok(std::mem::take(&mut self.output))
    }
}
