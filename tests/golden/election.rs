//! Plays elections: the same verbs for every algorithm.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use goldenscript::{Command, Context, Runner};
use roundtable::domain::content::{ElectionContent, Side};
use roundtable::domain::{Incarnation, Message, NodeId};
use roundtable::network::transport::Outbox;
use roundtable::server::ServerState;
use roundtable::server::election::bully::{BullyMessage, Stage};
use roundtable::server::election::{BullyElection, Election, ElectionModule, ElectionTiming};

use crate::wires::{Flight, Wires};

/// What can happen.
#[derive(Command)]
pub(crate) enum Verb {
    /// These servers are alive now and know it, in the order of their ring. A name that is new starts to live.
    Ring(Vec<String>),
    /// These stand for election.
    Elect(Vec<String>),
    /// Everything on its way arrives, once.
    Deliver,
    /// Everything arrives, and what follows from it, until nothing is on its way.
    DeliverAll,
    /// The server is gone, with what it had sent and nobody had read.
    Crash(String),
    /// What is on its way from the first to the second is lost.
    Lose(String, String),
    /// Whatever the first sends the second waits on the link.
    Hold(String, String),
    /// The link works again.
    Release(String, String),
    /// The second gets the first one's heartbeat, which carries its term.
    Heartbeat(String, String),
    /// So many ms pass; everyone looks at its timers every 50 ms.
    Wait(u64),
}

/// An election that can be told as a story.
pub(crate) trait Told: Election {
    /// A server that knows nothing yet.
    fn new(id: &NodeId, incarnation: Incarnation) -> Self;

    /// How far it is as a candidate.
    fn candidacy(&self) -> String;

    /// What a message says.
    fn describe(msg: &Message) -> String;
}

/// Servers that know nothing but elections.
pub(crate) struct Play<E> {
    now: Instant,
    nodes: BTreeMap<NodeId, E>,
    /// How often each server has started.
    lives: BTreeMap<NodeId, u64>,
    wires: Wires,
    output: String,
}

impl<E: Told> Play<E> {
    /// An empty stage.
    pub(crate) fn new() -> Self {
        Self {
            now: crate::start(),
            nodes: BTreeMap::new(),
            lives: BTreeMap::new(),
            wires: Wires::default(),
            output: String::new(),
        }
    }

    /// Lets `id` do something, and writes down what changed and what it sent.
    fn step(&mut self, id: &NodeId, act: impl FnOnce(&mut E, Instant, &Outbox)) {
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
            _ = writeln!(self.output, "{id} -> {to} {}", E::describe(&msg));
            self.wires.send(id, &to, msg);
        }
    }

    fn ring(&mut self, names: &[String]) {
        let ids: Vec<NodeId> = names.iter().map(|name| name.as_str().into()).collect();
        for id in &ids {
            if !self.nodes.contains_key(id) {
                let life = self.lives.entry(id.clone()).or_default();
                *life += 1;
                self.nodes.insert(id.clone(), E::new(id, Incarnation::new(id, *life, 0)));
            }
            self.step(id, |node, now, cm| {
                // As `ServerNode` does: who is not in the ring does not lead it.
                if node.leader().is_some_and(|leader| !ids.contains(&leader)) {
                    node.forget_leader();
                }
                node.members_changed(&ids, now, cm);
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
        self.lose(|flight| flight.from == id);
    }

    fn lose(&mut self, lost: impl Fn(&Flight) -> bool) {
        for Flight { from, to, msg } in self.wires.lose(lost) {
            self.write_lost(&from, &to, &msg);
        }
    }

    fn write_lost(&mut self, from: &NodeId, to: &NodeId, msg: &Message) {
        _ = writeln!(self.output, "{from} -> {to} {} is lost", E::describe(msg));
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

/// What stands behind the state: how far a candidate is, the term of the others.
fn details<E: Told>(node: &E) -> String {
    if node.state() == ServerState::ElectionInProgress {
        return node.candidacy();
    }
    let term = node.term().filter(|_| node.leader().is_some());
    term.map_or_else(String::new, |term| format!("term={term}"))
}

impl Told for ElectionModule {
    fn new(id: &NodeId, incarnation: Incarnation) -> Self {
        Self::new(id.clone(), incarnation, ElectionTiming::default())
    }

    fn candidacy(&self) -> String {
        let mut text = format!("round={} k={}", self.counter(), self.k());
        if self.reply_counter() > 0 {
            _ = write!(text, " replies={}", self.reply_counter());
        }
        text
    }

    fn describe(msg: &Message) -> String {
        let side = |toward: &Side| format!("{toward:?}").to_lowercase();
        match Self::parse_message(msg).expect("what servers send can be read") {
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
}

impl Told for BullyElection {
    fn new(id: &NodeId, incarnation: Incarnation) -> Self {
        Self::new(id.clone(), incarnation, format!("{id}:1"), ElectionTiming::default())
    }

    fn candidacy(&self) -> String {
        let stage = match self.stage() {
            Some(Stage::Asking(_)) => "asks",
            Some(Stage::Waiting(_)) => "waits",
            None => "",
        };
        format!("round={} {stage}", self.counter())
    }

    fn describe(msg: &Message) -> String {
        let kind = msg.message_type;
        match Self::parse_message(msg).expect("what servers send can be read") {
            BullyMessage::Question(question) => format!("{kind} round={}", question.counter),
            BullyMessage::Ok(ok) => format!("{kind} round={}", ok.counter),
            BullyMessage::Coordinator(news) => format!("{kind} term={}", news.term),
        }
    }
}

impl<E: Told> Runner for Play<E> {
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
            Verb::Lose(from, to) => {
                let (from, to) = (NodeId::from(from.as_str()), NodeId::from(to.as_str()));
                self.lose(|flight| flight.from == from && flight.to == to);
            }
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
