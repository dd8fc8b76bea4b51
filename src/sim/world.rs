//! The loop: takes the next event and lets it happen.
//!
//! The methods that concern one matter stand together: [`servers`](self) (steps, ticks, disks, lives), `network`
//! (packets, dials, datagrams, cuts), `people` (clients and their users), `operator` (who takes part), `faults` (the plan, and the end).

mod faults;
mod network;
mod operator;
mod people;
mod servers;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::agenda::{Agenda, Event, Host, MS, Micros};
use super::checker::Violation;
use super::heard::Heard;
use super::history::{Act, History};
use super::links::Links;
use super::machine::{Disk, Machine};
use super::person::Person;
use super::plan::{Plan, stream};
use super::trace::Trace;
use super::tracing::Tracing;
use super::{Options, Report};
use crate::config::Design;
use crate::domain::NodeId;
use crate::server::election::ElectionKind;

/// What stage a run has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Things go wrong.
    Faults,
    /// Everything works again since then; users go on for a moment.
    Healing(Micros),
    /// Fresh readers read since then.
    Reading(Micros),
}

/// A cluster, its clients and its weather.
#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    plan: Plan,
    agenda: Agenda,
    links: Links,
    /// What each server can know of the others, in a design whose acknowledgements need a majority.
    heard: Heard,
    machines: Vec<Machine>,
    /// Clients, then readers: the machine of the first has the number of servers.
    people: Vec<Person>,
    history: History,
    trace: Trace,
    tracing: Option<Tracing>,
    counters: BTreeMap<&'static str, u64>,
    violation: Option<Violation>,
    stage: Stage,
    design: Design,
    /// Who led in each term of Raft, whose terms are numbers.
    leaders: BTreeMap<u64, NodeId>,
    injector: faults::Injector,
    operator: operator::Operator,
    /// The luck of messages, per direction.
    routes: Vec<fastrand::Rng>,
    /// The luck of what concerns no single machine.
    rng: fastrand::Rng,
    events: u64,
    steps_max: u64,
    election: ElectionKind,
    over: bool,
}

/// An instant to count virtual time from. Only differences matter.
#[expect(clippy::disallowed_methods, reason = "one fixed start for virtual time")]
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The instant at virtual time `at`.
fn instant(at: Micros) -> Instant {
    origin() + Duration::from_micros(at)
}

impl World {
    /// The world of `plan`, before anything happened.
    pub(super) fn new(seed: u64, plan: Plan, options: &Options) -> Self {
        let nodes = plan.nodes;
        let hosts = nodes * 2 + plan.clients;
        let addresses: Vec<String> = (1..=nodes).map(|n| format!("n{n}:7000")).collect();
        let machines = (0..nodes).map(|host| machine(seed, &plan, host, &addresses[host]));
        let machines = machines.collect();
        let mut people = Vec::new();
        for number in 0..plan.clients {
            let mut rng = stream(seed, "person", number as u64);
            let mut turned = addresses.clone();
            turned.rotate_left(rng.usize(0..nodes));
            let user = format!("c{}", number + 1);
            people.push(Person::new(nodes + number, &user, turned, rng));
        }
        for (number, address) in addresses.iter().enumerate() {
            let rng = stream(seed, "reader", number as u64);
            let host = nodes + plan.clients + number;
            let user = format!("reader{}", number + 1);
            let mut reader = Person::new(host, &user, vec![address.clone()], rng);
            reader.reads_only = true;
            people.push(reader);
        }
        let routes = (0..hosts * hosts).map(|route| stream(seed, "route", route as u64)).collect();
        Self {
            seed,
            agenda: Agenda::default(),
            links: Links::new(hosts),
            heard: Heard::new(nodes),
            machines,
            people,
            history: History::default(),
            trace: Trace::new(options.detail),
            tracing: options.traced.then(|| {
                let (design, election) = (options.design.to_string(), options.election.to_string());
                Tracing::new(seed, &design, election)
            }),
            counters: BTreeMap::new(),
            violation: None,
            stage: Stage::Faults,
            design: options.design,
            leaders: BTreeMap::new(),
            injector: faults::Injector::new(&plan),
            operator: operator::Operator::new(seed, options.design, nodes, options.faults.member),
            routes,
            rng: stream(seed, "world", 0),
            events: 0,
            steps_max: if options.steps == 0 { u64::MAX } else { options.steps },
            election: options.election,
            over: false,
            plan,
        }
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Report {
        self.start_all();
        while self.goes_on() {}
        self.report()
    }

    /// Plans what happens first.
    fn start_all(&mut self) {
        self.trace.write(0, || format!("seed {}: {:?}", self.seed, self.plan));
        for host in 0..self.machines.len() {
            let at = self.machines[host].rng.u64(0..300 * MS);
            self.agenda.at(at, Event::Restart { host, life: 0 });
        }
        for person in 0..self.plan.clients {
            let at = self.people[person].rng.u64(0..2000 * MS);
            let host = self.people[person].host;
            self.agenda.at(at, Event::Attempt { host, attempt: 0 });
            self.agenda.at(at, Event::Act { host });
            self.agenda.at(at, Event::ClientTick { host });
        }
        self.agenda.at(0, Event::Look);
        self.plan_random_reset();
    }

    /// Lets the next event happen; false when the run is over.
    fn goes_on(&mut self) -> bool {
        if self.over || self.violation.is_some() {
            return false;
        }
        let Some(event) = self.agenda.take_next() else { return false };
        self.events += 1;
        self.happen(event);
        true
    }

    fn report(mut self) -> Report {
        let acked = |record: &super::history::SessionHistory| {
            record.acts.iter().filter(|(_, act)| matches!(act, Act::Acked { .. })).count() as u64
        };
        if self.violation.is_none() {
            self.collect_records();
            self.judge();
        } else {
            self.collect_records();
        }
        let now = self.agenda.now();
        if let Some(violation) = &self.violation {
            self.trace
                .write(now, || format!("VIOLATION {}: {}", violation.invariant, violation.detail));
        }
        Report {
            seed: self.seed,
            makes_snapshots: self.design == Design::Raft,
            acked: self.history.sessions.iter().map(acked).sum(),
            violation: self.violation,
            counters: self.counters,
            events: self.events,
            lasted: now,
            trace: self.trace.into_lines(),
            traced: self.tracing.map(Tracing::into_events).unwrap_or_default(),
        }
    }

    /// Lets one event happen, or puts it aside while its server sleeps.
    fn happen(&mut self, event: Event) {
        if let Some(host) = self.sleeper_of(&event) {
            self.put_aside(host, event);
            return;
        }
        match event {
            Event::Deliver { conn, side } => self.deliver(conn, side),
            Event::Reset { conn, side, why } => self.reset_end(conn, side, why),
            Event::Ended { conn, side } => self.reader_ended(conn, side),
            Event::Resume { conn, side } => self.resume(conn, side),
            Event::Dial { conn } => self.dial_arrives(conn),
            Event::GaveUp { conn, side } => self.gave_up(conn, side),
            Event::Accept { conn } => self.accept(conn),
            Event::Connected { conn } => self.connected(conn),
            Event::DialFailed { conn, refused } => self.dial_failed(conn, refused),
            Event::Datagram { host, from, frame } => self.datagram(host, from, &frame),
            Event::Heartbeat { host, life } => self.tick_heartbeat(host, life),
            Event::Timeouts { host, life } => self.tick_timeouts(host, life),
            Event::Synced { host, life, index } => self.synced(host, life, index),
            Event::LogSaid { host, life } => self.hear_log(host, life),
            Event::Crash { host, life } => self.crash_life(host, life),
            Event::Restart { host, life } => self.restart(host, life),
            Event::Wake { host, life } => self.wake(host, life),
            Event::Act { host } => self.act(host),
            Event::Attempt { host, attempt } => self.attempt(host, attempt),
            Event::WelcomeOverdue { host, attempt } => self.welcome_overdue(host, attempt),
            Event::ClientTick { host } => self.client_tick(host),
            Event::FaultTurns { fault, turn } => self.fault_turns(fault, turn),
            Event::Look => self.look(),
            Event::RandomReset => self.random_reset(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counters.entry(what).or_default() += 1;
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        self.trace.write(self.agenda.now(), line);
    }

    fn violate(&mut self, invariant: &'static str, detail: String, about: &[&str]) {
        if self.violation.is_none() {
            self.violation = Some(Violation::new(invariant, detail, about));
        }
    }

    fn is_server(&self, host: Host) -> bool {
        host < self.machines.len()
    }

    fn person(&mut self, host: Host) -> &mut Person {
        let servers = self.machines.len();
        &mut self.people[host - servers]
    }

    fn name(&self, host: Host) -> &str {
        match self.machines.get(host) {
            Some(machine) => machine.id.as_str(),
            None => &self.people[host - self.machines.len()].user,
        }
    }
}

fn machine(seed: u64, plan: &Plan, host: Host, address: &str) -> Machine {
    let mut rng = stream(seed, "machine", host as u64);
    let id = format!("n{}", host + 1);
    Machine {
        id: NodeId::from(id.as_str()),
        address: address.into(),
        running: None,
        disk: Disk::new(&mut rng),
        life: 0,
        woke_at: None,
        asleep: None,
        doomed: false,
        fated: false,
        drift: plan.drift[host],
        wall_offset: rng.u64(0..10_000),
        rng,
    }
}
