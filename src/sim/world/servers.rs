//! Servers: steps and what they ask for, ticks, disks, starts, crashes, sleep.

use std::time::Duration;

use super::super::agenda::{Event, Host, MS, Micros};
use super::super::checker::{Order, order_of};
use super::super::links::end_of;
use super::super::machine::{Disk, Effect, Running, Wires};
use super::super::plan::{Class, chance};
use super::{World, instant};
use crate::config::{AckRule, Design};
use crate::domain::NodeId;
use crate::network::ConnId;
use crate::server::server_node::{NodeConfig, Timing};
use crate::server::total_order::SnapshotCounts;
use crate::server::total_order::logins::Admission;
use crate::server::{ServerNode, ServerState, Step};
use crate::storage::{LogEvent, LogIndex};
use crate::trace::event::Kind;

/// How often timeouts are checked, as in the shell.
const CHECK_INTERVAL: Micros = 50 * MS;
/// For so long after it slept a server has no reason yet to call another one dead.
const ACCUSE_AFTER: Micros = 600 * MS;
/// 2024-01-01, so that timestamps look like some.
const WALL_START_MS: u64 = 1_704_067_200_000;

impl World {
    /// Steps the server of `host`, and does what it asks for. `None` when it does not run.
    pub(super) fn step<R>(
        &mut self,
        host: Host,
        body: impl FnOnce(&mut ServerNode, &Step) -> R,
    ) -> Option<R> {
        let now = self.agenda.now();
        let machine = &mut self.machines[host];
        let local = machine.clock(now);
        let running = machine.running.as_mut()?;
        let traced = running.tracer.as_ref().map(|tracer| {
            tracer.begin(now);
            tracer.around(&running.cm)
        });
        let step = Step {
            now: instant(local),
            wall_ms: WALL_START_MS + machine.wall_offset + local / MS,
            cm: traced.as_ref().map_or(&running.cm, |traced| traced),
            log: &machine.disk,
        };
        let result = body(&mut running.node, &step);
        running.node.settle(&step);
        while running.node.has_more_to_do() {
            running.node.settle(&step);
        }
        if let Some(tracer) = &running.tracer {
            tracer.end(&running.node.standing());
        }
        let effects = running.cm.take();
        let counts = running.node.snapshot_counts();
        let before = std::mem::replace(&mut running.snapshots, counts);
        let fatal = running.node.fatal().map(str::to_string);
        self.tell_snapshots(host, before, counts);
        self.tell_state(host);
        self.check_step(host);
        for effect in effects {
            self.apply(host, effect);
        }
        self.begin_sync(host);
        self.await_log(host);
        if let Some(reason) = fatal {
            let id = self.machines[host].id.to_string();
            self.violate("runs", format!("{id} ends itself: {reason}"), &[&id]);
        }
        Some(result)
    }

    /// What users cannot see, and must hold all the same: no server goes back to an earlier term; none that slept calls
    /// others dead for its own silence.
    fn check_step(&mut self, host: Host) {
        let now = self.agenda.now();
        let all = self.machines.len();
        let alone_asleep = self.plan.class == Class::OneAtATime;
        let machine = &mut self.machines[host];
        let Some(running) = &mut machine.running else { return };
        let term = running.node.term();
        if term != running.term.as_ref() {
            if term < running.term.as_ref() {
                let detail =
                    format!("{} goes back from {:?} to {term:?}", machine.id, running.term);
                self.violate("term", detail, &[]);
                return;
            }
            running.term = term.cloned();
        }
        let leads = running.node.state() == ServerState::Leader;
        if let Some(term) = term.filter(|_| leads && order_of(self.design) == Order::Total) {
            // Terms of a sequencer name their leader; those of Raft are numbers.
            let first = match self.design {
                Design::Raft => {
                    self.leaders.entry(term.counter).or_insert_with(|| machine.id.clone()).clone()
                }
                Design::Ring | Design::Sequencer => term.leader.node_id(),
            };
            if first != machine.id {
                let detail = format!("{} and {first} both lead in term {term}", machine.id);
                self.violate("one leader", detail, &[]);
                return;
            }
        }
        let just_woke = machine.woke_at.is_some_and(|at| now < at + ACCUSE_AFTER);
        if alone_asleep && just_woke && running.node.live_servers() < all {
            let detail = format!("{} slept and calls others dead", machine.id);
            self.violate("accuses", detail, &[]);
        }
    }

    /// Whether the server of `host` leads in a term of Raft that another server has ended without its knowing.
    pub(super) fn is_deposed(&self, host: Host) -> bool {
        let Some(running) = &self.machines[host].running else { return false };
        let newest = self.leaders.last_key_value().map(|(term, _)| *term);
        let own = running.node.term().map(|term| term.counter);
        running.node.state() == ServerState::Leader && own < newest
    }

    /// Counts snapshots, and writes them down.
    fn tell_snapshots(&mut self, host: Host, before: SnapshotCounts, now: SnapshotCounts) {
        let kinds = [
            ("snapshot", now.made > before.made),
            ("snapshot recovered", now.recovered > before.recovered),
            ("snapshot installed", now.installed > before.installed),
            ("forgot", now.forgot > before.forgot),
        ];
        for (what, _) in kinds.into_iter().filter(|(_, happened)| *happened) {
            self.tell(|| format!("n{}: {what}", host + 1));
            self.count(what);
        }
    }

    /// What servers can know by now. Before every change of a cut or of a server's life, and before every use.
    pub(super) fn let_word_around(&mut self) {
        if order_of(self.design) != Order::Total {
            return;
        }
        let Self { machines, links, heard, .. } = self;
        let awake =
            |host: Host| machines[host].running.is_some() && machines[host].asleep.is_none();
        heard.advance(self.agenda.now(), awake, |from, to| links.is_cut(from, to));
    }

    /// The server of `host` acknowledged `text`, which was written at `written`: with one order only a majority can
    /// have given it its place since, and this server must have had word of that.
    pub(super) fn check_majority(&mut self, host: Host, text: &str, written: Micros) {
        if order_of(self.design) != Order::Total {
            return;
        }
        self.let_word_around();
        if !self.heard.of_majority(host, written) {
            let id = self.machines[host].id.to_string();
            let detail = format!(
                "{id} acknowledged {text}, and has had no word of a majority since it was written"
            );
            self.violate("majority", detail, &[text, &id]);
        }
    }

    /// Writes down a change of role.
    fn tell_state(&mut self, host: Host) {
        if !self.trace.is_on() {
            return;
        }
        let machine = &mut self.machines[host];
        let Some(running) = &mut machine.running else { return };
        let node = &running.node;
        let ring: Vec<String> = node.ring().iter().map(NodeId::to_string).collect();
        let leader = node.leader_id().map_or_else(|| "nobody".into(), |leader| leader.to_string());
        let ready = if node.is_ready() { "ready" } else { "starting" };
        let told = format!("{} {ready}, leader {leader}, ring {}", node.state(), ring.join(" "));
        if running.told != told {
            let line = format!("{} is {told}", machine.id);
            running.told = told;
            self.tell(|| line);
        }
    }

    fn apply(&mut self, host: Host, effect: Effect) {
        let Some(running) = &mut self.machines[host].running else { return };
        match effect {
            Effect::ToNode(id, frame) => {
                if let Some(conn) = running.peers.get(&id).copied() {
                    self.send(conn, frame);
                }
            }
            Effect::ToAll(frame) => {
                let conns: Vec<ConnId> = running.peers.values().copied().collect();
                for conn in conns {
                    self.send(conn, frame.clone());
                }
            }
            Effect::ToConn(conn, frame) => self.send(conn, frame),
            Effect::Close(conn) => self.close(conn),
            Effect::Resume(conn) => self.wake_reader(conn),
            Effect::BindPeer(conn, id) => {
                if let Some(former) = running.peers.insert(id, conn).filter(|old| *old != conn) {
                    self.close(former);
                }
            }
            Effect::BindClient(conn, session) => {
                let former = running.clients.insert(session, conn).filter(|old| *old != conn);
                if let Some(former) = former {
                    self.close(former);
                }
            }
            Effect::Dial(address) => self.dial_server(host, &address),
            Effect::Udp(frame, to) => {
                // Answers go to clients, of which none asks here.
                if to.is_none() {
                    self.broadcast(host, &frame);
                }
            }
        }
    }

    /// `conn` is no longer the way to anybody.
    pub(super) fn unbind(&mut self, host: Host, conn: ConnId) {
        if let Some(running) = &mut self.machines[host].running {
            running.peers.retain(|_, bound| *bound != conn);
            running.clients.retain(|_, bound| *bound != conn);
            running.cm.forget(conn);
        }
    }

    /// A reader that waits looks again soon; one that does not will not wait the next time.
    fn wake_reader(&mut self, conn: ConnId) {
        let (conn, side) = end_of(conn);
        let pause = self.rng.u64(1..100);
        let Some(link) = self.links.get(conn) else { return };
        let end = &mut link.ends[side];
        if end.held.is_some() && !end.token {
            self.agenda.after(pause, Event::Resume { conn, side });
        }
        end.token = true;
    }

    // ------------------------------------------------------------ ticks and disks

    pub(super) fn tick_heartbeat(&mut self, host: Host, life: u64) {
        if self.machines[host].life != life {
            return;
        }
        self.step(host, ServerNode::tick_heartbeat);
        let interval = Timing::default().detector.heartbeat_interval;
        let pause = self.machines[host].truly(micros(interval));
        self.agenda.after(pause, Event::Heartbeat { host, life });
    }

    pub(super) fn tick_timeouts(&mut self, host: Host, life: u64) {
        if self.machines[host].life != life {
            return;
        }
        self.step(host, ServerNode::tick_timeouts);
        let pause = self.machines[host].truly(CHECK_INTERVAL);
        self.agenda.after(pause, Event::Timeouts { host, life });
    }

    fn begin_sync(&mut self, host: Host) {
        let disks = self.plan.disks;
        let machine = &mut self.machines[host];
        let Some(index) = machine.disk.begin_sync() else { return };
        let late = chance(&mut machine.rng, disks.late);
        let takes = if late {
            machine.rng.u64(20..1000) * MS
        } else {
            machine.rng.u64(disks.sync.0..=disks.sync.1)
        };
        let life = machine.life;
        self.agenda.after(takes, Event::Synced { host, life, index });
        if std::mem::take(&mut machine.doomed) {
            machine.fated = true;
            let pause = machine.rng.u64(0..=takes);
            self.agenda.after(pause, Event::Crash { host, life });
        }
        if late {
            self.count("slow sync");
        }
    }

    pub(super) fn synced(&mut self, host: Host, life: u64, index: LogIndex) {
        if self.machines[host].life != life || self.machines[host].running.is_none() {
            return;
        }
        self.tell(|| format!("n{} has synced {index}", host + 1));
        self.machines[host].disk.end_sync(index);
        self.step(host, |node, step| {
            step.trace_log(&LogEvent::Synced(index));
            node.on_synced(index);
        });
    }

    /// What the disk has to say reaches the server soon, in a step of its own.
    fn await_log(&mut self, host: Host) {
        let machine = &mut self.machines[host];
        if machine.disk.has_events() {
            let (life, pause) = (machine.life, machine.rng.u64(1..2 * MS));
            self.agenda.after(pause, Event::LogSaid { host, life });
        }
    }

    /// The server of `host` is told what its disk has to say, in order.
    pub(super) fn hear_log(&mut self, host: Host, life: u64) {
        let machine = &self.machines[host];
        if machine.life != life || machine.running.is_none() {
            return;
        }
        for event in machine.disk.take_events() {
            if matches!(event, LogEvent::Read { .. } | LogEvent::ReadRecords { .. }) {
                self.count("read from the disk");
            }
            self.step(host, |node, _| node.on_log_event(event));
        }
    }

    // ------------------------------------------------------------ lives

    /// Starts the server of `host` from its disk.
    pub(super) fn restart(&mut self, host: Host, life: u64) {
        if self.machines[host].life != life || self.machines[host].running.is_some() {
            return;
        }
        self.let_word_around();
        let (nodes, window) = (self.plan.nodes, self.plan.weather.client_window);
        let peers: Vec<String> =
            self.machines.iter().take(self.plan.known_peers).map(|m| m.address.clone()).collect();
        let now = self.agenda.now();
        let machine = &mut self.machines[host];
        machine.life += 1;
        let life = machine.life;
        let incarnation = machine.disk.start(&machine.id, &mut machine.rng);
        let config = NodeConfig {
            server_id: machine.id.clone(),
            incarnation: incarnation.clone(),
            disk_id: machine.disk.id.clone(),
            address: machine.address.clone(),
            cluster: "sim".into(),
            design: self.design.to_string(),
            election: self.election,
            peers,
            rooms: self.plan.rooms.iter().take(usize::from(nodes > 2)).cloned().collect(),
            discovery: self.plan.discovery,
            admission: Admission::default(),
            timing: Timing::default(),
            bootstrap_expect: nodes,
            ack: AckRule::default(),
            compact_after: self.plan.compact_after,
            retain: self.plan.retain,
            log_tail_bytes: self.plan.log_tail_bytes,
            uncommitted_max: self.plan.uncommitted_max,
            seed: machine.rng.u64(..),
        };
        let begun = instant(machine.clock(now));
        let mut node = ServerNode::new(config.clone(), begun);
        let mut damaged = usize::from(machine.disk.is_newest_damaged(&mut machine.rng));
        let mut lost = machine.disk.recover(&mut node, damaged).err();
        if lost.is_some() && damaged > 0 {
            // The leader's snapshot replaced what the older one needs. Nothing is asked of a server that finds that out here:
            // it would count as wiped, and too many at once may be.
            damaged = 0;
            node = ServerNode::new(config, begun);
            lost = machine.disk.recover(&mut node, damaged).err();
        }
        machine.disk.set_aside(damaged);
        let recovered = machine.disk.kept();
        let running = Running {
            node,
            cm: Wires::new(window),
            peers: std::collections::BTreeMap::new(),
            clients: std::collections::BTreeMap::new(),
            term: None,
            told: String::new(),
            snapshots: SnapshotCounts::default(),
            tracer: self
                .tracing
                .as_ref()
                .map(|tracing| tracing.start(&machine.id, &incarnation, now)),
        };
        machine.running = Some(Box::new(running));
        let ticks = [machine.rng.u64(0..100 * MS), machine.rng.u64(0..50 * MS)];
        self.tell(|| format!("n{} starts as {incarnation} with {recovered} records", host + 1));
        if damaged > 0 {
            self.count("snapshot damaged");
        }
        if let Some(lost) = lost {
            let id = self.machines[host].id.to_string();
            self.violate("runs", format!("{id} has lost something: {lost}"), &[&id]);
        }
        self.step(host, ServerNode::start_failure_detection);
        self.agenda.after(ticks[0], Event::Heartbeat { host, life });
        self.agenda.after(ticks[1], Event::Timeouts { host, life });
    }

    /// The machine of `host` stops, if it still lives that life.
    pub(super) fn crash_life(&mut self, host: Host, life: u64) {
        let machine = &mut self.machines[host];
        if machine.life == life && std::mem::take(&mut machine.fated) {
            self.crash(host, false);
        }
    }

    /// The machine of `host` stops at once. Its connections are reset, as far as the network lets that through.
    pub(super) fn crash(&mut self, host: Host, wipe: bool) {
        self.let_word_around();
        self.note(host, Kind::Crash, None, || {
            if wipe { "crashes and loses its disk" } else { "crashes" }.into()
        });
        let machine = &mut self.machines[host];
        if machine.running.take().is_none() {
            return;
        }
        (machine.asleep, machine.woke_at, machine.doomed) = (None, None, false);
        machine.life += 1;
        let lost = machine.disk.crash(&mut machine.rng);
        if wipe {
            machine.disk = Disk::new(&mut machine.rng);
        }
        let how = if wipe { "loses its disk" } else { "crashes" };
        self.tell(|| format!("n{} {how}; {lost} records were not synced and are lost", host + 1));
        self.count(if wipe { "wipe" } else { "crash" });
        if lost > 0 {
            self.count("lost tail");
        }
        for (conn, side) in self.links.ends_of(host) {
            self.shut(conn, side);
            self.send_reset(conn, 1 - side, "reset");
        }
    }

    /// The server of `host` does nothing for a while.
    pub(super) fn sleep(&mut self, host: Host, lasts: Micros) {
        self.let_word_around();
        let machine = &mut self.machines[host];
        if machine.running.is_none() || machine.asleep.is_some() {
            return;
        }
        machine.asleep = Some(Vec::new());
        let life = machine.life;
        self.note(host, Kind::Pause, None, || format!("sleeps for {} ms", lasts / MS));
        self.tell(|| format!("n{} falls asleep for {} ms", host + 1, lasts / MS));
        self.count("sleep");
        self.agenda.after(lasts, Event::Wake { host, life });
    }

    /// The server that `event` is for, if it sleeps.
    pub(super) fn sleeper_of(&mut self, event: &Event) -> Option<Host> {
        let host = match event {
            Event::Deliver { conn, side }
            | Event::Reset { conn, side, .. }
            | Event::Ended { conn, side }
            | Event::GaveUp { conn, side }
            | Event::Resume { conn, side } => self.links.get(*conn)?.ends[*side].host,
            Event::Connected { conn } | Event::DialFailed { conn, .. } => {
                self.links.get(*conn)?.ends[0].host
            }
            Event::Accept { conn } => self.links.get(*conn)?.ends[1].host,
            Event::Datagram { host, .. }
            | Event::Heartbeat { host, .. }
            | Event::Timeouts { host, .. }
            | Event::Synced { host, .. }
            | Event::LogSaid { host, .. } => *host,
            _ => return None,
        };
        self.machines.get(host)?.asleep.as_ref().map(|_| host)
    }

    pub(super) fn put_aside(&mut self, host: Host, event: Event) {
        if let Some(aside) = &mut self.machines[host].asleep {
            aside.push(event);
        }
    }

    /// The server of `host` goes on. Its threads are scheduled in any order: only what is in order on a
    /// connection stays so.
    pub(super) fn wake(&mut self, host: Host, life: u64) {
        self.let_word_around();
        let now = self.agenda.now();
        let machine = &mut self.machines[host];
        if machine.life != life {
            return;
        }
        let Some(aside) = machine.asleep.take() else { return };
        machine.woke_at = Some(now);
        for event in aside {
            let pause = machine.rng.u64(0..3 * MS);
            self.agenda.after(pause, event);
        }
        self.tell(|| format!("n{} wakes", host + 1));
        self.note(host, Kind::Wake, None, || "wakes".into());
    }

    /// The trace of `host` hears what was done to it, or to the way from it to `to`.
    pub(super) fn note(
        &self,
        host: Host,
        kind: Kind,
        to: Option<Host>,
        say: impl FnOnce() -> String,
    ) {
        let (Some(tracing), Some(machine)) = (&self.tracing, self.machines.get(host)) else {
            return;
        };
        let peer = to.and_then(|to| self.machines.get(to)).map(|machine| &machine.id);
        if to.is_none() || peer.is_some() {
            tracing.note(machine, self.agenda.now(), kind, peer, say);
        }
    }
}

fn micros(span: Duration) -> Micros {
    u64::try_from(span.as_micros()).unwrap_or(Micros::MAX)
}
