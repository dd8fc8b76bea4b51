//! Plays elections on rings.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use goldenscript::{Command, Context, Runner};
use roundtable::domain::content::{ElectionContent, Side};
use roundtable::domain::{Incarnation, Message, NodeId};
use roundtable::network::transport::Outbox;
use roundtable::server::ServerState;
use roundtable::server::election::hirschberg_sinclair::ElectionTiming;
use roundtable::server::election::{Election, ElectionModule};

use crate::wires::{Flight, Wires};

/// What can happen.
#[derive(Command)]
pub(crate) enum Verb {
    /// These servers form a ring now, in this order. A name that is new starts to live.
    Ring(Vec<String>),
    /// These stand for election.
    Elect(Vec<String>),
    /// Everything on its way arrives, once.
    Deliver,
    /// Everything arrives, and what follows from it, until nothing is on its way.
    DeliverAll,
    /// The server is gone, with what it had sent and nobody had read.
    Crash(String),
    /// Whatever the first sends the second waits on the link.
    Hold(String, String),
    /// The link works again.
    Release(String, String),
    /// The second gets the first one's heartbeat, which carries its term.
    Heartbeat(String, String),
    /// So many ms pass; everyone looks at its timers every 50 ms.
    Wait(u64),
}

/// Servers that know nothing but elections.
pub(crate) struct Play {
    now: Instant,
    nodes: BTreeMap<NodeId, ElectionModule>,
    wires: Wires,
    output: String,
}

impl Play {
    /// An empty stage.
    pub(crate) fn new() -> Self {
        Self {
            now: crate::start(),
            nodes: BTreeMap::new(),
            wires: Wires::default(),
            output: String::new(),
        }
    }

    /// Lets `id` do something, and writes down what changed and what it sent.
    fn step(&mut self, id: &NodeId, act: impl FnOnce(&mut ElectionModule, Instant, &Outbox)) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        let (before, old) = (node.state(), details(node));
        let outbox = Outbox::new();
        act(node, self.now, &outbox);
        let new = details(node);
        if node.state() != before {
            let line = format!("{id} {before} => {} {new}", node.state());
            self.output += line.trim_end();
            self.output += "\n";
        } else if new != old {
            _ = writeln!(self.output, "{id} {new}");
        }
        for (to, msg) in outbox.take_to_nodes() {
            let to = to.expect("elections never broadcast");
            _ = writeln!(self.output, "{id} -> {to} {}", describe(&msg));
            self.wires.send(id, &to, msg);
        }
    }

    fn ring(&mut self, names: &[String]) {
        let ids: Vec<NodeId> = names.iter().map(|name| name.as_str().into()).collect();
        let neighbor = |at: usize| (ids.len() > 1).then(|| &ids[at % ids.len()]);
        for (at, id) in ids.iter().enumerate() {
            self.nodes.entry(id.clone()).or_insert_with(|| {
                let incarnation = Incarnation::new(id, 1, 0);
                ElectionModule::new(id.clone(), incarnation, ElectionTiming::default())
            });
            let (left, right) = (neighbor(at + ids.len() - 1), neighbor(at + 1));
            self.step(id, |node, now, cm| {
                // As `ServerNode` does: who is not in the ring does not lead it.
                if node.leader().is_some_and(|leader| !ids.contains(&leader)) {
                    node.forget_leader();
                }
                node.ring_changed(left, right, now, cm);
            });
        }
    }

    fn deliver(&mut self) -> bool {
        let turn = self.wires.take();
        for Flight { from, to, msg } in &turn {
            if self.nodes.contains_key(to) {
                self.step(to, |node, now, cm| node.handle_message(msg, now, cm));
            } else {
                self.write_lost(from, to, msg);
            }
        }
        !turn.is_empty()
    }

    fn crash(&mut self, name: &str) {
        let id = NodeId::from(name);
        self.nodes.remove(&id);
        for Flight { from, to, msg } in self.wires.lose(|flight| flight.from == id) {
            self.write_lost(&from, &to, &msg);
        }
    }

    fn write_lost(&mut self, from: &NodeId, to: &NodeId, msg: &Message) {
        _ = writeln!(self.output, "{from} -> {to} {} is lost", describe(msg));
    }

    fn wait(&mut self, ms: u64) {
        let ids: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for _ in 0..ms / 50 {
            self.now += Duration::from_millis(50);
            for id in &ids {
                self.step(id, |node, now, cm| node.tick(now, cm));
            }
        }
    }
}

/// What stands behind the state: the round and phase of a candidate, the term of the others.
fn details(node: &ElectionModule) -> String {
    if node.state() == ServerState::ElectionInProgress {
        let mut text = format!("round={} k={}", node.counter(), node.k());
        if node.reply_counter() > 0 {
            _ = write!(text, " replies={}", node.reply_counter());
        }
        return text;
    }
    let term = node.term().filter(|_| node.leader().is_some());
    term.map_or_else(String::new, |term| format!("term={term}"))
}

fn describe(msg: &Message) -> String {
    let side = |toward: &Side| format!("{toward:?}").to_lowercase();
    match ElectionModule::parse_message(msg).expect("what servers send can be read") {
        ElectionContent::Probe { id, counter, k, d, toward } => {
            format!("probe id={id} round={counter} k={k} d={d} {}", side(&toward))
        }
        ElectionContent::Reply { id, counter, k, d, toward } => {
            format!("reply id={id} round={counter} k={k} d={d} {}", side(&toward))
        }
        ElectionContent::Announcement { id, term } => {
            format!("announcement id={id} term={term}")
        }
    }
}

impl Runner for Play {
    type Command = Verb;

    fn run(&mut self, verb: &Verb, _: &Context) -> Result<String, Box<dyn Error>> {
        match verb {
            Verb::Ring(names) => self.ring(names),
            Verb::Elect(names) => {
                for name in names {
                    let id = name.as_str().into();
                    self.step(&id, |node, now, cm| node.start_election(now, cm));
                }
            }
            Verb::Deliver => _ = self.deliver(),
            Verb::DeliverAll => while self.deliver() {},
            Verb::Crash(name) => self.crash(name),
            Verb::Hold(from, to) => self.wires.hold(from, to),
            Verb::Release(from, to) => self.wires.release(from, to),
            Verb::Heartbeat(from, to) => {
                let from = self.nodes.get(&NodeId::from(from.as_str())).ok_or("no such server")?;
                if let Some(term) = from.term().cloned() {
                    self.step(&to.as_str().into(), |node, _, _| _ = node.observe_term(&term));
                }
            }
            Verb::Wait(ms) => self.wait(*ms),
        }
        Ok(std::mem::take(&mut self.output))
    }
}
