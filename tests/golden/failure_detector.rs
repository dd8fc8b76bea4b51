//! Plays silence: who suspects whom, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Instant;

use roundtable::domain::NodeId;
use roundtable::network::transport::Outbox;
use roundtable::server::failure_detector::{DetectorEvent, DetectorTiming};
use roundtable::server::{FailureDetector, MetadataStore};

use super::wire::{Letter, Wire, duration};
use crate::Shown;

/// What a script can say.
#[derive(goldenscript::Command)]
pub(crate) enum Command {
    /// Servers that form a ring in this order and have just heard each other: `servers n1 n2 n3`.
    Servers(Vec<String>),
    /// Everyone follows this leader.
    Lead(String),
    /// Time passes in steps of a heartbeat's interval: heartbeats are sent, heard, and missed.
    Tick(String),
    /// What is sent on this link waits: `stall n1 n2`.
    Stall(String, String),
    /// The link flows again, at the next step of time.
    Flow(String, String),
    /// A server does nothing at all any more; its mail waits.
    Sleep(String),
    /// It goes on: it looks at its timers first, and at its mail second.
    Wake(String),
    /// A server is gone.
    Crash(String),
    /// A client says something to its server: `client n1 alice`.
    Client(String, String),
    /// How many heartbeats a server has sent since it was last asked for.
    Heartbeats(String),
}

pub(crate) struct Runner {
    detectors: BTreeMap<NodeId, FailureDetector>,
    ring: Vec<NodeId>,
    asleep: BTreeMap<NodeId, Vec<Letter>>,
    heartbeats: BTreeMap<(NodeId, NodeId), u32>,
    wire: Wire,
    start: Instant,
    now: Instant,
}

impl Default for Runner {
    #[expect(clippy::disallowed_methods, reason = "one fixed start for virtual time")]
    fn default() -> Self {
        let (detectors, ring, asleep, heartbeats, wire) = <_>::default();
        let start = Instant::now();
        Self { detectors, ring, asleep, heartbeats, wire, start, now: start }
    }
}

impl Runner {
    fn detector(&mut self, id: &str) -> Result<&mut FailureDetector, String> {
        self.detectors.get_mut(&id.into()).ok_or_else(|| format!("there is no {id}"))
    }

    fn gather(&mut self, ids: &[String], now: Instant) {
        self.ring = ids.iter().map(|id| id.as_str().into()).collect();
        for id in &self.ring {
            let mut detector = FailureDetector::new(id.clone(), DetectorTiming::default());
            detector.start_monitoring(now);
            for other in &self.ring {
                detector.heard_server(other, now);
            }
            self.detectors.insert(id.clone(), detector);
        }
        self.follow(None);
    }

    fn follow(&mut self, leader: Option<&NodeId>) {
        let n = self.ring.len();
        for (at, id) in self.ring.iter().enumerate() {
            let neighbors = [&self.ring[(at + n - 1) % n], &self.ring[(at + 1) % n]];
            let neighbors = neighbors.into_iter().filter(|other| *other != id).cloned().collect();
            if let Some(detector) = self.detectors.get_mut(id) {
                detector.set_near(neighbors, leader, self.now);
            }
        }
    }

    fn awake(&self) -> Vec<NodeId> {
        self.detectors.keys().filter(|id| !self.asleep.contains_key(*id)).cloned().collect()
    }

    /// One interval: everyone who is awake sends, reads and looks.
    fn interval(&mut self, shown: &mut String) {
        self.now += DetectorTiming::default().heartbeat_interval;
        let everyone: BTreeSet<NodeId> = self.detectors.keys().cloned().collect();
        for id in self.awake() {
            let outbox = Outbox::new();
            if let Some(detector) = self.detectors.get_mut(&id) {
                detector.send_heartbeat(&outbox, &MetadataStore::new(id.clone()), None);
            }
            for to in self.wire.send(&id, &outbox, &everyone).into_iter().filter_map(|(to, _)| to) {
                *self.heartbeats.entry((id.clone(), to)).or_default() += 1;
            }
        }
        for letter in self.wire.arrive() {
            self.hear(letter, shown);
        }
        for id in self.awake() {
            self.look(&id, shown);
        }
    }

    fn hear(&mut self, letter: Letter, shown: &mut String) {
        if let Some(mail) = self.asleep.get_mut(&letter.to) {
            mail.push(letter);
        } else if let Some(detector) = self.detectors.get_mut(&letter.to) {
            let event = detector.heard_server(&letter.from, self.now);
            self.show(&letter.to, event, shown);
        }
    }

    fn look(&mut self, id: &NodeId, shown: &mut String) {
        let Some(detector) = self.detectors.get_mut(id) else { return };
        let events = detector.check_timeouts(self.now);
        self.show(id, events, shown);
    }

    fn show(
        &self,
        id: &NodeId,
        events: impl IntoIterator<Item = DetectorEvent>,
        shown: &mut String,
    ) {
        let since = self.now.duration_since(self.start);
        for event in events {
            let says = match event {
                DetectorEvent::Suspected(other) => format!("suspects {other}"),
                DetectorEvent::Failed(other) => format!("calls {other} dead"),
                DetectorEvent::Recovered(other) => format!("hears {other} again"),
                DetectorEvent::ClientSilent(session) => format!("sends {session} a heartbeat"),
                DetectorEvent::ClientFailed(session) => format!("gives {session} up"),
            };
            _ = writeln!(shown, "{since:?} {id} {says}");
        }
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &goldenscript::Context) -> Shown {
        let mut shown = String::new();
        match command {
            Command::Servers(ids) => self.gather(ids, self.now),
            Command::Lead(id) => self.follow(Some(&id.as_str().into())),
            Command::Tick(time) => {
                let until = self.now + duration(time)?;
                while self.now < until {
                    self.interval(&mut shown);
                }
            }
            Command::Stall(from, to) => self.wire.stall(from, to),
            Command::Flow(from, to) => self.wire.flow(from, to),
            Command::Sleep(id) => _ = self.asleep.insert(id.as_str().into(), Vec::new()),
            Command::Wake(id) => {
                let id = id.as_str().into();
                let mail = self.asleep.remove(&id).ok_or("it is awake")?;
                self.look(&id, &mut shown);
                for letter in mail {
                    self.hear(letter, &mut shown);
                }
            }
            Command::Crash(id) => {
                self.detectors.remove(&id.as_str().into()).ok_or("it is gone already")?;
            }
            Command::Client(id, session) => {
                let now = self.now;
                self.detector(id)?.heard_client(session, now);
            }
            Command::Heartbeats(id) => {
                let id = NodeId::from(id.as_str());
                let mut counts = std::mem::take(&mut self.heartbeats);
                counts.retain(|(from, to), count| {
                    if *from == id {
                        _ = writeln!(shown, "{id} -> {to} {count} heartbeats");
                    }
                    *from != id
                });
                self.heartbeats = counts;
            }
        }
        Ok(shown)
    }
}
