//! Plays what happens to the map of rooms.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use roundtable::domain::content::{MetadataContent, MetadataVersion};
use roundtable::domain::{Incarnation, Message, NodeId, Term};
use roundtable::network::transport::Outbox;
use roundtable::server::MetadataStore;
use roundtable::server::metadata::View;

use super::wire::Wire;
use crate::Shown;

/// What a script can say.
#[derive(goldenscript::Command)]
pub(crate) enum Command {
    /// Makes servers: `servers n1 n2 n3`.
    Servers(Vec<String>),
    /// An election ends, and everyone alive hears so: `elect n3`.
    Elect(String),
    /// A client of a server wants a room: `request n1 lobby`.
    Request(String, String),
    /// A server has messages of a room on its disk: `hold n1 lobby 5`.
    Hold(String, String, u64),
    /// What is under way arrives, in the order in which it was sent; with `all` until nothing is.
    Deliver(Option<String>),
    /// A server is gone, with what is under way to it; the leader, if it is alive, asks who holds what.
    Crash(String),
    /// The leader waits no longer for reports.
    Rehome,
    /// The leader's heartbeat tells its version; who is behind asks.
    Heartbeat,
    /// What is sent on this link waits: `stall n1 n2`.
    Stall(String, String),
    /// The link flows again.
    Flow(String, String),
    /// What is under way on this link is lost.
    Lose(String, String),
}

#[derive(Default)]
pub(crate) struct Runner {
    stores: BTreeMap<NodeId, MetadataStore>,
    live: BTreeSet<NodeId>,
    held: BTreeMap<NodeId, BTreeMap<String, u64>>,
    term: Option<Term>,
    wire: Wire,
}

impl Runner {
    /// Lets `id` take a step; writes down its map if that changed, and what it sent.
    fn step(
        &mut self,
        id: &NodeId,
        shown: &mut String,
        act: impl FnOnce(&mut MetadataStore, View, &Outbox),
    ) -> Result<(), String> {
        let outbox = Outbox::new();
        let held = self.held.get(id).cloned().unwrap_or_default();
        let view = View { live: &self.live, term: self.term.as_ref(), held: &held };
        let store = self.stores.get_mut(id).ok_or_else(|| format!("there is no {id}"))?;
        let card = |store: &MetadataStore| {
            format!("version={}{}", version(store.version()), rooms(store.room_locations()))
        };
        let before = card(store);
        act(store, view, &outbox);
        if card(store) != before {
            _ = writeln!(shown, "{id} has {}", card(store));
        }
        for (to, msg) in self.wire.send(id, &outbox, &self.live) {
            let to = to.map_or("all".into(), |to| to.to_string());
            _ = writeln!(shown, "{id} -> {to} {}", text(&msg));
        }
        Ok(())
    }

    fn leader(&self) -> Result<NodeId, String> {
        let leader = self.term.as_ref().map(|term| term.leader.node_id());
        leader.filter(|leader| self.live.contains(leader)).ok_or_else(|| "nobody leads".into())
    }

    fn elect(&mut self, leader: &NodeId, shown: &mut String) -> Result<(), String> {
        let counter = 1 + self.term.as_ref().map_or(0, |term| term.counter);
        let term = Term { counter, leader: Incarnation::new(leader, 1, 0) };
        self.term = Some(term.clone());
        for id in self.live.clone().iter().filter(|id| *id != leader) {
            self.step(id, shown, |store, _, _| store.step_down())?;
        }
        self.step(leader, shown, |store, view, cm| _ = store.become_leader(&term, view, cm))
    }

    /// One turn; false when nothing arrived.
    fn deliver(&mut self, shown: &mut String) -> Result<bool, String> {
        let letters = self.wire.arrive();
        for letter in &letters {
            let mut seen = String::new();
            self.step(&letter.to, &mut seen, |store, view, cm| {
                store.handle_message(&letter.msg, view, cm);
            })?;
            if seen.is_empty() {
                let text = text(&letter.msg);
                let takes = if text.starts_with("report") { "notes" } else { "drops" };
                _ = writeln!(seen, "{} {takes} {text}", letter.to);
            }
            shown.push_str(&seen);
        }
        Ok(!letters.is_empty())
    }

    fn heartbeat(&mut self, shown: &mut String) -> Result<(), String> {
        let leader = self.leader()?;
        let version = self.stores[&leader].version().cloned();
        for id in self.live.clone() {
            if self.stores[&id].is_behind(version.as_ref()) {
                self.step(&id, shown, |store, view, cm| {
                    store.sync_with_leader(&leader, view.held, cm);
                })?;
            }
        }
        Ok(())
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &goldenscript::Context) -> Shown {
        let mut shown = String::new();
        match command {
            Command::Servers(ids) => {
                for id in ids.iter().map(|id| NodeId::from(id.as_str())) {
                    self.live.insert(id.clone());
                    self.stores.insert(id.clone(), MetadataStore::new(id));
                }
            }
            Command::Elect(leader) => self.elect(&leader.as_str().into(), &mut shown)?,
            Command::Request(id, room) => {
                let leader = self.leader()?;
                self.step(&id.as_str().into(), &mut shown, |store, view, cm| {
                    store.request(room, &leader, view, cm);
                })?;
            }
            Command::Hold(id, room, messages) => {
                let held = self.held.entry(id.as_str().into()).or_default();
                held.insert(room.clone(), *messages);
            }
            Command::Deliver(None) => _ = self.deliver(&mut shown)?,
            Command::Deliver(Some(all)) if all == "all" => while self.deliver(&mut shown)? {},
            Command::Deliver(Some(other)) => return Err(format!("deliver {other}?").into()),
            Command::Crash(id) => {
                let id = id.as_str().into();
                self.stores.remove(&id).ok_or("it is gone already")?;
                self.live.remove(&id);
                self.wire.crash(&id);
                if let Ok(leader) = self.leader() {
                    self.step(&leader, &mut shown, |store, view, cm| {
                        store.collect(view, cm);
                    })?;
                }
            }
            Command::Rehome => {
                let leader = self.leader()?;
                self.step(&leader, &mut shown, |store, view, cm| _ = store.rehome(view, cm))?;
            }
            Command::Heartbeat => self.heartbeat(&mut shown)?,
            Command::Stall(from, to) => self.wire.stall(from, to),
            Command::Flow(from, to) => self.wire.flow(from, to),
            Command::Lose(from, to) => self.wire.lose(from, to),
        }
        Ok(shown)
    }
}

fn version(version: Option<&MetadataVersion>) -> String {
    version.map_or("none".into(), |version| format!("{}/{}", version.term, version.counter))
}

fn rooms(locations: &BTreeMap<String, NodeId>) -> String {
    locations.iter().map(|(room, host)| format!(" {room}={host}")).collect()
}

fn text(msg: &Message) -> String {
    match msg.content.parse().expect("a METADATA_UPDATE of ours") {
        MetadataContent::Request { room_id } => format!("request {room_id}"),
        MetadataContent::Collect { term } => format!("collect term={term}"),
        MetadataContent::Report { held, room_locations, version: of } => {
            let mut text =
                format!("report version={}{}", version(of.as_ref()), rooms(&room_locations));
            for (room, messages) in held {
                _ = write!(text, ", holds {messages} of {room}");
            }
            text
        }
        MetadataContent::Update { version: to, base: Some(base), room_locations } => {
            let (base, to) = (version(Some(&base)), version(Some(&to)));
            format!("update {base} => {to}{}", rooms(&room_locations))
        }
        MetadataContent::Update { version: to, base: None, room_locations } => {
            format!("whole map version={}{}", version(Some(&to)), rooms(&room_locations))
        }
    }
}
