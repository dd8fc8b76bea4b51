//! The plan's faults, and how a run ends: healing, rest, fresh readers, the verdict.

use std::collections::BTreeMap;

use super::super::agenda::{Event, Host, MS, Micros, SECOND};
use super::super::checker::{Order, Promise, Violation, check, check_answered, order_of};
use super::super::person::Stay;
use super::super::plan::{Class, Fault, FaultKind, Plan};
use super::{Stage, World};
use crate::config::Design;
use crate::domain::NodeId;
use crate::server::ServerNode;

/// How often it is looked whether the next fault is due, or all is at rest.
const LOOK: Micros = 100 * MS;
/// How long everyone must have been connected before the next server fails.
const REPAIR: Micros = 3 * SECOND;
/// How long users go on after everything works again.
const TALK_ON: Micros = 2 * SECOND;
/// Within how long a cluster that works has to be one again.
pub(super) const REST_LIMIT: Micros = 30 * SECOND;
/// How long fresh readers may take.
const READ_LIMIT: Micros = 120 * SECOND;
/// How long none of them may have read anything before all is read: what came while they were sent the past comes after it.
const READ_PAUSE: Micros = SECOND;
/// How long they read at least, so that late and second deliveries are seen.
const READ_AT_LEAST: Micros = 3 * SECOND;

/// Where the plan's faults stand.
#[derive(Debug)]
pub(super) struct Injector {
    next: usize,
    /// The fault that is not over, when they come one at a time.
    active: Option<usize>,
    /// Since when all servers are connected, or (partitions) since when the next fault is waited for.
    since: Option<Micros>,
    /// Which cuts are made at the moment.
    cut: Vec<bool>,
    /// Which faults are over.
    over: Vec<bool>,
}

impl Injector {
    pub(super) fn new(plan: &Plan) -> Self {
        let none = vec![false; plan.faults.len()];
        Self { next: 0, active: None, since: None, cut: none.clone(), over: none }
    }
}

impl World {
    /// Looks whether something is due.
    pub(super) fn look(&mut self) {
        let now = self.agenda.now();
        self.operate();
        match self.stage {
            Stage::Faults if now >= self.plan.lasts || self.events >= self.steps_max => {
                self.heal_all();
            }
            Stage::Faults => self.inject(),
            Stage::Healing(since) => self.await_rest(since),
            Stage::Reading(since) => self.await_readers(since),
        }
        if !self.over {
            self.agenda.after(LOOK, Event::Look);
        }
    }

    // ------------------------------------------------------------ faults

    fn inject(&mut self) {
        let now = self.agenda.now();
        let Some(fault) = self.plan.faults.get(self.injector.next).cloned() else { return };
        let calm = match self.plan.class {
            Class::Partitions => true,
            Class::OneAtATime => self.injector.active.is_none() && self.is_whole(),
        };
        if !calm {
            self.injector.since = None;
            return;
        }
        let since = *self.injector.since.get_or_insert(now);
        let repair = if self.plan.class == Class::OneAtATime { REPAIR } else { 0 };
        if now >= since + repair + fault.pause {
            self.injector.since = None;
            self.begin(self.injector.next, &fault);
            self.injector.next += 1;
        }
    }

    /// Whether every server runs, is ready, unless an operator took it out, and is connected to every other one.
    fn is_whole(&self) -> bool {
        self.machines.iter().enumerate().all(|(host, machine)| {
            let Some(running) = machine.running.as_ref().filter(|_| machine.asleep.is_none())
            else {
                return false;
            };
            let servers = &running.node.servers;
            let linked = servers.values().filter(|info| info.conn.is_some() && info.is_live());
            let serves = running.node.is_ready() || self.operator.has_out(host);
            serves && linked.count() + 1 == self.machines.len()
        })
    }

    fn begin(&mut self, number: usize, fault: &Fault) {
        self.injector.active = Some(number);
        match &fault.kind {
            FaultKind::Crash(host) => self.doom(*host),
            FaultKind::Wipe(host) => {
                self.crash(*host, self.operator.leaves_enough(self.machines.len()));
            }
            FaultKind::Sleep(host) => self.sleep(*host, fault.lasts),
            FaultKind::Cut { shape, pairs, flaps } => {
                self.tell(|| format!("{shape}: {pairs:?}"));
                self.count(shape);
                self.set_cut(number, pairs, true);
                if let Some((host, _)) = pairs.first().filter(|_| *shape == "isolation") {
                    self.shake_off_clients(*host);
                }
                if let Some(flaps) = flaps {
                    self.agenda.after(*flaps, Event::FaultTurns { fault: number, turn: 1 });
                }
            }
        }
        self.agenda.after(fault.lasts, Event::FaultTurns { fault: number, turn: 0 });
    }

    /// The server crashes now, or at the worst moment: in the middle of its next write.
    fn doom(&mut self, host: Host) {
        let machine = &mut self.machines[host];
        if machine.rng.bool() {
            self.crash(host, false);
        } else if machine.running.is_some() {
            machine.doomed = true;
        }
    }

    /// Some clients lose their connection to a server that is being cut off, before it has acknowledged everything. What
    /// they send again elsewhere gets a second stamp.
    fn shake_off_clients(&mut self, host: Host) {
        for (conn, side) in self.links.ends_of(host) {
            let Some(other) = self.links.get(conn).map(|link| link.ends[1 - side].host) else {
                continue;
            };
            if !self.is_server(other) && self.rng.bool() {
                let pause = self.rng.u64(0..SECOND);
                for side in [0, 1] {
                    self.agenda.after(pause, Event::Reset { conn, side, why: "reset" });
                }
            }
        }
    }

    fn set_cut(&mut self, number: usize, pairs: &[(Host, Host)], on: bool) {
        if std::mem::replace(&mut self.injector.cut[number], on) == on {
            return;
        }
        for (from, to) in pairs {
            if on {
                self.cut(*from, *to);
            } else {
                self.heal(*from, *to);
            }
        }
    }

    /// A fault is over (`turn` 0), or its link flaps.
    pub(super) fn fault_turns(&mut self, number: usize, turn: u32) {
        let Some(fault) = self.plan.faults.get(number).cloned() else { return };
        // The end of a fault is turn 0; a flapping link stops with it.
        if std::mem::replace(&mut self.injector.over[number], turn == 0) {
            self.injector.over[number] = true;
            return;
        }
        if turn == 0 && self.injector.active == Some(number) {
            self.injector.active = None;
        }
        match &fault.kind {
            FaultKind::Crash(host) | FaultKind::Wipe(host) => {
                // Nothing was written meanwhile.
                (self.machines[*host].doomed, self.machines[*host].fated) = (false, false);
                let life = self.machines[*host].life;
                self.restart(*host, life);
            }
            FaultKind::Sleep(_) => {}
            FaultKind::Cut { pairs, flaps, .. } => {
                let on = turn > 0 && turn.is_multiple_of(2);
                self.tell(|| format!("{} {pairs:?}", if on { "cut again" } else { "healed" }));
                self.set_cut(number, pairs, on);
                if let Some(flaps) = flaps.filter(|_| turn > 0) {
                    self.agenda.after(flaps, Event::FaultTurns { fault: number, turn: turn + 1 });
                }
            }
        }
    }

    // ------------------------------------------------------------ the end

    /// From now on everything works.
    fn heal_all(&mut self) {
        self.tell(|| "everything works again".into());
        self.stage = Stage::Healing(self.agenda.now());
        for (number, fault) in self.plan.faults.clone().into_iter().enumerate() {
            self.injector.over[number] = true;
            if let FaultKind::Cut { pairs, .. } = &fault.kind {
                self.set_cut(number, pairs, false);
            }
        }
        for host in 0..self.machines.len() {
            (self.machines[host].doomed, self.machines[host].fated) = (false, false);
            let life = self.machines[host].life;
            self.wake(host, life);
            self.restart(host, life);
        }
        if self.plan.class == Class::Partitions && self.plan.weather.join_resets > 0 {
            self.read_anew();
        }
    }

    /// Whether users have fallen silent.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.stage, Stage::Healing(since) if self.agenda.now() > since + TALK_ON)
    }

    fn await_rest(&mut self, since: Micros) {
        let now = self.agenda.now();
        if now <= since + TALK_ON + SECOND {
            return;
        }
        if let Some(unrest) = self.unrest() {
            if now > since + REST_LIMIT {
                self.violate("rest", format!("30 s after the last fault {unrest}"), &[]);
            }
            return;
        }
        self.stage = Stage::Reading(now);
        let servers = self.machines.len();
        for reader in servers + self.plan.clients..servers * 2 + self.plan.clients {
            for room in self.plan.rooms.clone() {
                self.enter(reader, &room, u32::MAX);
            }
            self.agenda.after(0, Event::Attempt { host: reader, attempt: 0 });
            self.agenda.after(0, Event::ClientTick { host: reader });
        }
    }

    /// Who should lead when nothing goes wrong: the highest id, or with `raft` anyone that all agree on.
    fn rightful_leader(&self) -> Option<NodeId> {
        match self.design {
            Design::Ring | Design::Sequencer => self.machines.last().map(|last| last.id.clone()),
            Design::Raft => self.machines.first()?.running.as_ref()?.node.leader_id(),
        }
    }

    /// What is not as it should be when nothing goes wrong, if anything.
    fn unrest(&self) -> Option<String> {
        let all: Vec<NodeId> = self.machines.iter().map(|machine| machine.id.clone()).collect();
        for machine in &self.machines {
            let Some(running) = &machine.running else {
                return Some(format!("{} does not run", machine.id));
            };
            let node = &running.node;
            if node.ring() != all {
                let ring: Vec<String> = node.ring().iter().map(NodeId::to_string).collect();
                return Some(format!("{} sees the ring {}", machine.id, ring.join(" ")));
            }
            if node.leader_id().is_none() || node.leader_id() != self.rightful_leader() {
                return Some(format!("{} follows {:?}", machine.id, node.leader_id()));
            }
            if !node.is_ready() {
                return Some(format!("{} takes no clients", machine.id));
            }
        }
        for person in self.people.iter().filter(|person| !person.reads_only) {
            if let Some(chat) = person.session.outstanding().iter().next() {
                return Some(format!("{} of {} is not acknowledged", chat.text, person.user));
            }
            if !person.session.is_online() {
                return Some(format!("{} is not connected", person.user));
            }
            if person.rooms.values().any(|stay| *stay == Stay::Leaving) {
                return Some(format!("{} cannot leave", person.user));
            }
        }
        None
    }

    fn await_readers(&mut self, since: Micros) {
        let now = self.agenda.now();
        let readers = self.people.iter().filter(|person| person.reads_only);
        let hosts: Vec<Host> = readers.clone().map(|reader| reader.host).collect();
        let rooms = self.plan.rooms.len();
        let reading = readers.clone().find(|reader| {
            let count = |what: &dyn Fn(&super::Act) -> bool| {
                reader.record.acts.iter().filter(|(_, act)| what(act)).count()
            };
            let joined = count(&|act| matches!(act, super::Act::Joined { .. }));
            // Not what it was shown: what it was sent twice is the checker's matter.
            let got = count(&|act| matches!(act, super::Act::Got { .. }));
            let reads_on = reader.record.acts.last().is_some_and(|(at, _)| now < at + READ_PAUSE);
            joined < rooms || reads_on || got < reader.expects || reader.status.is_none()
        });
        let reading = reading.map(|reader| reader.user.clone());
        if let Some(user) = reading {
            if now > since + READ_LIMIT {
                self.violate(
                    "rest",
                    format!("{user} cannot read everything within 120 s"),
                    &[&user],
                );
            }
            for host in hosts {
                let person = self.person(host);
                if person.session.is_online() && person.status.is_none() {
                    self.ask_status(host);
                }
            }
        } else if now > since + READ_AT_LEAST {
            self.over = true;
        }
    }

    /// Servers that applied the same know the same, but for messages that some have forgotten.
    fn compare_states(&mut self) {
        let mut known: BTreeMap<u64, (NodeId, Vec<u8>)> = BTreeMap::new();
        for machine in &self.machines {
            let node = machine.running.as_ref().map(|running| &running.node);
            let Some((applied, state)) = node.and_then(ServerNode::state_without_messages) else {
                continue;
            };
            let (first, same) =
                known.entry(applied).or_insert_with(|| (machine.id.clone(), state.clone()));
            if *same != state {
                let detail = format!("{first} and {} applied {applied} and differ", machine.id);
                self.violation = Some(Violation::new("state", detail, &[]));
                return;
            }
        }
    }

    /// Judges what users saw.
    pub(super) fn judge(&mut self) {
        let all: Vec<String> = self.machines.iter().map(|machine| machine.id.to_string()).collect();
        let leader = self.rightful_leader().map(|leader| leader.to_string());
        for reader in 0..self.machines.len() {
            let person = &self.people[self.plan.clients + reader];
            let status = person.status.clone();
            let one = status == Some((leader.clone(), all.clone()));
            if !one {
                let detail = format!("n{} says of leader and ring: {status:?}", reader + 1);
                self.violate("one ring", detail, &[]);
                return;
            }
        }
        self.compare_states();
        if self.violation.is_some() {
            return;
        }
        let order = order_of(self.design);
        let one_at_a_time = self.plan.class == Class::OneAtATime && self.plan.nodes > 1;
        let strict = one_at_a_time || order == Order::Total;
        let whole = self.plan.class == Class::OneAtATime;
        let linearizable = self.design == Design::Raft;
        let promise = Promise { order, shown_survives: strict, whole, linearizable };
        let judged = check(&self.history, promise).and_then(|()| check_answered(&self.history));
        self.violation = judged.err();
    }
}
