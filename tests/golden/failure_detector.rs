//! Plays what one server, n1, makes of the silence around it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use goldenscript::{Command, Context, Runner};
use roundtable::domain::NodeId;
use roundtable::domain::content::Liveness;
use roundtable::network::transport::Outbox;
use roundtable::server::failure_detector::{
    DetectorEvent, DetectorTiming, FailureDetector, TimerType,
};
use roundtable::server::metadata::MetadataStore;

/// How often n1 looks at its timers, in ms.
const TICK: u64 = 50;

/// What can happen to n1.
#[derive(Command)]
pub(crate) enum Verb {
    /// It learns of these servers.
    Watch(Vec<String>),
    /// These are its neighbours now, and who leads.
    Near {
        /// On both sides.
        neighbors: Vec<String>,
        /// If anyone does.
        #[arg(key)]
        leader: Option<String>,
    },
    /// It hears these servers.
    Heard(Vec<String>),
    /// It hears this client.
    HeardClient(String),
    /// It sends heartbeats so many times.
    Beat(u32),
    /// So many ms pass, and it looks at its timers.
    Wait {
        /// ms.
        ms: u64,
        /// Who is heard all the time.
        #[arg(key)]
        but_for: Option<String>,
    },
    /// So many ms pass, and it does nothing at all; then it goes on.
    Sleep(u64),
}

/// n1 and its detector.
pub(crate) struct Play {
    now: Instant,
    detector: FailureDetector,
    states: BTreeMap<NodeId, Liveness>,
    beats: u32,
    output: String,
}

impl Play {
    /// n1, which knows nobody.
    pub(crate) fn new() -> Self {
        let now = crate::start();
        let mut detector = FailureDetector::new("n1".into(), DetectorTiming::default());
        detector.start_monitoring(now);
        Self { now, detector, states: BTreeMap::new(), beats: 0, output: String::new() }
    }

    fn note(&mut self, events: impl IntoIterator<Item = DetectorEvent>) {
        for event in events {
            let (id, state) = match event {
                DetectorEvent::Suspected(id) => (id, Liveness::Suspect),
                DetectorEvent::Failed(id) => (id, Liveness::Dead),
                DetectorEvent::Recovered(id) => (id, Liveness::Alive),
                DetectorEvent::ClientSilent(session) => {
                    _ = writeln!(self.output, "n1 -> {session} heartbeat");
                    continue;
                }
                DetectorEvent::ClientFailed(session) => {
                    _ = writeln!(self.output, "{session} is gone");
                    continue;
                }
            };
            assert_eq!(self.detector.liveness(&id), Some(state), "the event says what is");
            let before = self.states.insert(id.clone(), state).unwrap_or(Liveness::Alive);
            let line = format!("{id} {before:?} => {state:?}\n");
            self.output += &line.to_lowercase();
        }
    }

    fn hear(&mut self, name: &str) {
        let event = self.detector.reset_timer(name, TimerType::Server, self.now);
        self.note(event);
    }

    fn check(&mut self) {
        let events = self.detector.check_timeouts(self.now);
        self.note(events);
    }

    fn beat(&mut self) {
        self.beats += 1;
        let outbox = Outbox::new();
        self.detector.send_heartbeat(&outbox, &MetadataStore::new("n1".into()), None);
        let to: Vec<String> = outbox
            .take_to_nodes()
            .into_iter()
            .filter_map(|(to, _)| Some(to?.to_string()))
            .collect();
        let to = if to.is_empty() { "nobody".into() } else { to.join(" ") };
        _ = writeln!(self.output, "{}: n1 -> {to} heartbeat", self.beats);
    }
}

impl Runner for Play {
    type Command = Verb;

    fn run(&mut self, verb: &Verb, _: &Context) -> Result<String, Box<dyn Error>> {
        match verb {
            Verb::Watch(names) => {
                for name in names {
                    self.detector.watch(&name.as_str().into(), self.now);
                }
            }
            Verb::Near { neighbors, leader } => {
                let neighbors = neighbors.iter().map(|name| name.as_str().into()).collect();
                let leader = leader.as_deref().map(NodeId::from);
                self.detector.set_near(neighbors, leader.as_ref(), self.now);
            }
            Verb::Heard(names) => names.iter().for_each(|name| self.hear(name)),
            Verb::HeardClient(name) => {
                let event = self.detector.reset_timer(name, TimerType::Client, self.now);
                self.note(event);
            }
            Verb::Beat(times) => (0..*times).for_each(|_| self.beat()),
            Verb::Wait { ms, but_for } => {
                for _ in 0..ms / TICK {
                    self.now += Duration::from_millis(TICK);
                    but_for.iter().flat_map(|names| names.split(',')).for_each(|name| {
                        self.hear(name);
                    });
                    self.check();
                }
            }
            Verb::Sleep(ms) => {
                self.now += Duration::from_millis(*ms);
                self.check();
            }
        }
        Ok(std::mem::take(&mut self.output))
    }
}
