//! Plays elections of Hirschberg and Sinclair.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Instant;

use roundtable::domain::content::{ElectionContent, Side};
use roundtable::domain::{Incarnation, Message, NodeId};
use roundtable::network::transport::Outbox;
use roundtable::server::ServerState;
use roundtable::server::election::hirschberg_sinclair::ElectionTiming;
use roundtable::server::election::{Election, ElectionModule};

use super::wire::{Wire, duration};
use crate::Shown;

/// What a script can say.
#[derive(goldenscript::Command)]
pub(crate) enum Command {
    /// These servers agree on this ring, in this order: `ring n1 n2 n3`. New ones are made.
    Ring(Vec<String>),
    /// These stand for election, in this order: `start n1 n2`.
    Start(Vec<String>),
    /// What is under way arrives, in the order in which it was sent; with `all` until nothing is.
    Deliver(Option<String>),
    /// A server is gone, with what is under way to it.
    Crash(String),
    /// Time passes, and every server looks at the clock: `tick 500ms`.
    Tick(String),
    /// What is sent on this link waits: `stall n1 n2`.
    Stall(String, String),
    /// The link flows again.
    Flow(String, String),
    /// What is under way on this link is lost.
    Lose(String, String),
    /// A server hears the term of another one in a heartbeat: `hear n1 n3`.
    Hear(String, String),
}

pub(crate) struct Runner {
    nodes: BTreeMap<NodeId, ElectionModule>,
    live: BTreeSet<NodeId>,
    wire: Wire,
    now: Instant,
}

impl Default for Runner {
    #[expect(clippy::disallowed_methods, reason = "one fixed start for virtual time")]
    fn default() -> Self {
        let (nodes, live, wire) = <_>::default();
        Self { nodes, live, wire, now: Instant::now() }
    }
}

impl Runner {
    /// Lets `id` take a step; writes down what changed and what it sent.
    fn step(
        &mut self,
        id: &NodeId,
        shown: &mut String,
        act: impl FnOnce(&mut ElectionModule, Instant, &Outbox),
    ) -> Result<(), String> {
        let node = self.nodes.get_mut(id).ok_or_else(|| format!("there is no {id}"))?;
        let outbox = Outbox::new();
        let before = Card::of(node);
        act(node, self.now, &outbox);
        shown.push_str(&Card::of(node).changes_since(&before, id));
        for (to, msg) in self.wire.send(id, &outbox, &self.live) {
            let to = to.expect("an election speaks to neighbours");
            _ = writeln!(shown, "{id} -> {to} {}", text(&msg));
        }
        Ok(())
    }

    fn close_ring(&mut self, ids: &[NodeId], shown: &mut String) -> Result<(), String> {
        for id in ids {
            self.nodes.entry(id.clone()).or_insert_with(|| {
                self.live.insert(id.clone());
                let incarnation = Incarnation::new(id, 1, 0);
                ElectionModule::new(id.clone(), incarnation, ElectionTiming::default())
            });
        }
        for (at, id) in ids.iter().enumerate() {
            let beside = |at: usize| (ids.len() > 1).then(|| &ids[at % ids.len()]);
            let (left, right) = (beside(at + ids.len() - 1), beside(at + 1));
            self.step(id, shown, |node, now, cm| node.ring_changed(left, right, now, cm))?;
        }
        Ok(())
    }

    /// One turn; false when nothing arrived.
    fn deliver(&mut self, shown: &mut String) -> Result<bool, String> {
        let letters = self.wire.arrive();
        for letter in &letters {
            let mut seen = String::new();
            self.step(&letter.to, &mut seen, |node, now, cm| {
                node.handle_message(&letter.msg, now, cm);
            })?;
            if seen.is_empty() {
                _ = writeln!(seen, "{} drops {}", letter.to, text(&letter.msg));
            }
            shown.push_str(&seen);
        }
        Ok(!letters.is_empty())
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &goldenscript::Context) -> Shown {
        let mut shown = String::new();
        match command {
            Command::Ring(ids) => {
                let ids: Vec<NodeId> = ids.iter().map(|id| id.as_str().into()).collect();
                self.close_ring(&ids, &mut shown)?;
            }
            Command::Start(ids) => {
                for id in ids {
                    let id = id.as_str().into();
                    self.step(&id, &mut shown, |node, now, cm| node.start_election(now, cm))?;
                }
            }
            Command::Deliver(None) => _ = self.deliver(&mut shown)?,
            Command::Deliver(Some(all)) if all == "all" => while self.deliver(&mut shown)? {},
            Command::Deliver(Some(other)) => return Err(format!("deliver {other}?").into()),
            Command::Crash(id) => {
                let id = id.as_str().into();
                self.nodes.remove(&id).ok_or("it is gone already")?;
                self.live.remove(&id);
                self.wire.crash(&id);
            }
            Command::Tick(time) => {
                self.now += duration(time)?;
                for id in self.live.clone() {
                    self.step(&id, &mut shown, |node, now, cm| node.tick(now, cm))?;
                }
            }
            Command::Stall(from, to) => self.wire.stall(from, to),
            Command::Flow(from, to) => self.wire.flow(from, to),
            Command::Lose(from, to) => self.wire.lose(from, to),
            Command::Hear(id, other) => {
                let other = self.nodes.get(&other.as_str().into()).ok_or("nobody to hear")?;
                let term = other.term().cloned().ok_or("it knows of no election")?;
                self.step(&id.as_str().into(), &mut shown, |node, _, _| {
                    node.observe_term(&term);
                })?;
            }
        }
        Ok(shown)
    }
}

/// What a reader wants to know of a server.
struct Card {
    state: ServerState,
    fields: [(&'static str, String); 5],
}

impl Card {
    fn of(node: &ElectionModule) -> Self {
        let standing = node.state() == ServerState::ElectionInProgress;
        let phase = if standing { node.k().to_string() } else { String::new() };
        let replies = if node.reply_counter() > 0 { "1".into() } else { String::new() };
        let fields = [
            ("round", node.counter().to_string()),
            ("k", phase),
            ("replies", replies),
            ("leader", node.leader().map_or_else(String::new, |id| id.to_string())),
            ("term", node.term().map_or_else(String::new, ToString::to_string)),
        ];
        Self { state: node.state(), fields }
    }

    /// A line, or nothing.
    fn changes_since(&self, before: &Self, id: &NodeId) -> String {
        let mut line = String::new();
        if self.state != before.state {
            _ = write!(line, " {} => {}", before.state, self.state);
        }
        for ((name, value), (_, old)) in self.fields.iter().zip(&before.fields) {
            if value != old && !value.is_empty() {
                _ = write!(line, " {name}={value}");
            }
        }
        if line.is_empty() { line } else { format!("{id}{line}\n") }
    }
}

fn text(msg: &Message) -> String {
    let side = |side: &Side| if *side == Side::Left { "left" } else { "right" };
    match ElectionModule::parse_message(msg).expect("an ELECTION message of ours") {
        ElectionContent::Probe { id, counter, k, d, toward } => {
            format!("probe id={id} round={counter} k={k} d={d} {}", side(&toward))
        }
        ElectionContent::Reply { id, counter, k, d, toward } => {
            format!("reply id={id} round={counter} k={k} d={d} {}", side(&toward))
        }
        ElectionContent::Announcement { id, term } => format!("announcement id={id} term={term}"),
    }
}
