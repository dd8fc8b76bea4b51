//! `roundtable compare`: the same load and the same faults through the three designs.
//!
//! ```text
//!   quiet talk ─ full load ─┬─ the leader is cut off, and healed ─┬─┬─ the leader is killed, and returns ─┬─ counted
//!                           └───────────── some times ────────────┘ └───────────── some times ────────────┘
//! ```
//!
//! Real processes on this machine, one design after the other, each with the same clients. The servers reach each
//! other through [`Fronts`], which count what they say; that costs some of the throughput, the same for all.
//!
//! Each time a new crowd of clients is spread evenly over the servers: those of a dead leader have gone elsewhere, and would stay there.
//! Of what is measured several times the median counts.
//!
//! Reading order: this module (the phases), [`figures`] (what is measured), `plot`.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::config::Design;
use crate::error::StartError;
use crate::local_cluster::{ClusterSettings, LocalCluster, ServerProcess};
use crate::torture::fronts::{Fronts, Healing, Traffic};
use crate::torture::rest;

mod crowd;
pub mod figures;
pub mod plot;

use crowd::{Crowd, Load, Notes};
use figures::{Figures, Spread};

/// The time between two messages of a client in quiet talk.
const QUIET: Duration = Duration::from_millis(50);
/// How many messages a client leaves unacknowledged under full load.
const WINDOW: usize = 64;
/// How long people talk before something is done to a leader.
const PRELUDE: Duration = Duration::from_secs(1);
/// How long a server stays dead, and is cut off. A client that gets no answer is sent elsewhere after 5 s.
const AWAY: Duration = Duration::from_secs(4);
/// How long the servers may take to be one again.
const REST_LIMIT: Duration = Duration::from_secs(60);
/// How long what was said may take to be acknowledged.
const ACK_LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a message that would be shown twice.
const AFTERMATH: Duration = Duration::from_millis(500);

/// What `roundtable compare` was told.
#[derive(Clone, Debug)]
pub struct CompareSettings {
    /// Which designs, in order.
    pub designs: Vec<Design>,
    /// How many servers.
    pub servers: usize,
    /// How many clients.
    pub clients: usize,
    /// How long quiet talk and full load are measured, each.
    pub phase: Duration,
    /// How often the leader is killed, and how often it is cut off.
    pub rounds: usize,
}

/// Runs all designs. `tell` hears which design is at what. `None` when `stop` was disconnected meanwhile.
pub fn run(
    settings: &CompareSettings,
    stop: &Receiver<()>,
    tell: &mut dyn FnMut(Design, &str),
) -> Result<Option<Vec<Figures>>, StartError> {
    let mut all = Vec::new();
    for design in &settings.designs {
        let mut tell_phase = |phase: &str| tell(*design, phase);
        let Some(trial) = Trial::start(settings, *design, stop.clone())? else { return Ok(None) };
        let Some(figures) = trial.run(&mut tell_phase)? else { return Ok(None) };
        all.push(figures);
    }
    Ok(Some(all))
}

struct Trial<'a> {
    settings: &'a CompareSettings,
    design: Design,
    cluster: LocalCluster,
    fronts: Fronts,
    crowd: Crowd,
    /// How many crowds there were.
    crowds: usize,
    /// What became of the words of those that left.
    lost: usize,
    twice: usize,
}

/// What the servers did up to a moment.
struct Costs {
    traffic: Traffic,
    syncs: u64,
}

/// `None` when stopped.
type Measured<T> = Result<Option<T>, StartError>;

/// Goes on with what was measured, or ends because somebody said so.
macro_rules! unless_stopped {
    ($measured:expr) => {
        match $measured? {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

impl<'a> Trial<'a> {
    fn start(settings: &'a CompareSettings, design: Design, stop: Receiver<()>) -> Measured<Self> {
        let no_fronts = |error| StartError::Other(format!("no port of 127.0.0.1 is free: {error}"));
        let fronts = Fronts::open(settings.servers).map_err(no_fronts)?;
        let common = ClusterSettings {
            servers: settings.servers,
            design: design.to_string(),
            flags: vec!["--log".into(), "warn".into()],
        };
        let cluster = LocalCluster::start(&common, stop.clone(), |place| {
            fronts.set_target(place.place, place.addresses[place.place]);
            fronts.flags(place.place)
        });
        if stop.try_recv() == Err(TryRecvError::Disconnected) {
            return Ok(None);
        }
        let (crowd, crowds) = (Crowd::default(), 0);
        let (cluster, lost, twice) = (cluster?, 0, 0);
        Ok(Some(Self { settings, design, cluster, fronts, crowd, crowds, lost, twice }))
    }

    fn run(mut self, tell: &mut dyn FnMut(&str)) -> Measured<Figures> {
        let mut figures = Figures::new(self.design);
        tell("quiet talk");
        unless_stopped!(self.new_crowd());
        unless_stopped!(self.quiet_talk(&mut figures));
        tell("full load");
        unless_stopped!(self.full_load(&mut figures));
        unless_stopped!(self.partitions(&mut figures, tell));
        unless_stopped!(self.crashes(&mut figures, tell));
        unless_stopped!(self.farewell());
        (figures.lost, figures.twice) = (self.lost as u64, self.twice as u64);
        Ok(Some(figures))
    }

    /// Counts what the crowd was shown, and lets another one in.
    fn new_crowd(&mut self) -> Measured<()> {
        unless_stopped!(self.farewell());
        let servers: Vec<SocketAddr> =
            self.cluster.servers().iter().map(ServerProcess::address).collect();
        self.crowd = Crowd::default();
        let first = self.crowds * self.settings.clients;
        self.crowds += 1;
        self.crowd = Crowd::gather(first, self.settings.clients, self.cluster.name(), &servers)?;
        let crowd = &self.crowd;
        let there = self.cluster.wait_until(REST_LIMIT, |_| crowd.is_complete().then_some(()));
        self.unless_late(there, "a client cannot join the room")
    }

    /// Waits until everybody was shown everything, and counts what is missing.
    fn farewell(&mut self) -> Measured<()> {
        unless_stopped!(self.all_acknowledged());
        if !self.cluster.pause(AFTERMATH) {
            return Ok(None);
        }
        let (lost, twice) = self.crowd.lost_and_twice();
        (self.lost, self.twice) = (self.lost + lost, self.twice + twice);
        Ok(Some(()))
    }

    fn all_acknowledged(&mut self) -> Measured<()> {
        let crowd = &self.crowd;
        let all = self
            .cluster
            .wait_until(ACK_LIMIT, |_| crowd.wait_acknowledged(Duration::ZERO).then_some(()));
        self.unless_late(all, "something that was said is not acknowledged")
    }

    /// `done`, which was waited for: it is there, or that was stopped, or something is wrong.
    fn unless_late<T>(&self, done: Option<T>, problem: &str) -> Measured<T> {
        if done.is_none() && self.cluster.pause(Duration::ZERO) {
            return Err(StartError::Other(format!("{}: {problem} after a minute", self.design)));
        }
        Ok(done)
    }

    fn costs(&self) -> Costs {
        let statuses = self.cluster.servers().iter().filter_map(ServerProcess::status);
        Costs { traffic: self.fronts.traffic(), syncs: statuses.map(|status| status.syncs).sum() }
    }

    /// Everybody talks for `time`, until all is acknowledged.
    fn talk(&mut self, load: Load, time: Duration) -> Measured<Notes> {
        let load = self.crowd.talk(load)?;
        if !self.cluster.pause(time) {
            return Ok(None);
        }
        load.end();
        unless_stopped!(self.all_acknowledged());
        Ok(Some(self.crowd.take_notes()))
    }

    fn quiet_talk(&mut self, figures: &mut Figures) -> Measured<()> {
        let before = self.costs();
        let notes = unless_stopped!(self.talk(Load::Every(QUIET), self.settings.phase));
        let after = self.costs();
        figures.ack = Spread::of(&notes.acks);
        figures.delivery = Spread::of(&notes.deliveries);
        let messages = notes.acks.len().max(1) as f64;
        let per_message = |before: u64, after: u64| after.saturating_sub(before) as f64 / messages;
        figures.server_messages = per_message(before.traffic.messages, after.traffic.messages);
        figures.server_bytes = per_message(before.traffic.bytes, after.traffic.bytes);
        figures.syncs = per_message(before.syncs, after.syncs);
        Ok(Some(()))
    }

    fn full_load(&mut self, figures: &mut Figures) -> Measured<()> {
        let (before, began) = (self.costs(), Instant::now());
        let notes = unless_stopped!(self.talk(Load::Window(WINDOW), self.settings.phase));
        let (seconds, after) = (began.elapsed().as_secs_f64(), self.costs());
        let messages = notes.acks.len().max(1) as f64;
        figures.throughput = messages / seconds;
        figures.loaded_ack = Spread::of(&notes.acks);
        figures.loaded_syncs = after.syncs.saturating_sub(before.syncs) as f64 / messages;
        Ok(Some(()))
    }

    fn partitions(&mut self, figures: &mut Figures, tell: &mut dyn FnMut(&str)) -> Measured<()> {
        let (mut inside, mut outside, mut heal) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=self.settings.rounds {
            tell(&format!("the leader is cut off, {round} of {}", self.settings.rounds));
            unless_stopped!(self.new_crowd());
            let (acks, healed) = unless_stopped!(self.cut_off_leader());
            inside.push(acks.0);
            outside.push(acks.1);
            heal.push(healed);
        }
        figures.cut_off_acks = median(inside);
        figures.majority_acks = median(outside);
        figures.heal_ms = median(heal);
        Ok(Some(()))
    }

    fn crashes(&mut self, figures: &mut Figures, tell: &mut dyn FnMut(&str)) -> Measured<()> {
        let (mut silence, mut back) = (Vec::new(), Vec::new());
        for round in 1..=self.settings.rounds {
            tell(&format!("the leader is killed, {round} of {}", self.settings.rounds));
            unless_stopped!(self.new_crowd());
            let (longest, equal) = unless_stopped!(self.killed_leader());
            silence.push(longest);
            back.push(equal);
        }
        (figures.silence_ms, figures.return_ms) = (median(silence), median(back));
        Ok(Some(()))
    }

    /// How many messages the leader acknowledged while it was cut off, and the others; and how long they took to be equal when
    /// the network was whole again and nobody said anything new, in milliseconds.
    fn cut_off_leader(&mut self) -> Measured<((u64, u64), u64)> {
        let load = self.crowd.talk(Load::Every(QUIET))?;
        if !self.cluster.pause(PRELUDE) {
            return Ok(None);
        }
        let leader = unless_stopped!(self.leader());
        let others = (0..self.settings.servers).filter(|place| *place != leader).collect();
        self.fronts.split(&[vec![leader], others]);
        self.crowd.take_notes();
        if !self.cluster.pause(AWAY) {
            return Ok(None);
        }
        let notes = self.crowd.take_notes();
        let port = self.cluster.servers()[leader].address().port();
        let inside = notes.acked_by.iter().filter(|by| **by == port).count();
        let outside = notes.acked_by.len() - inside;
        load.end();
        self.fronts.heal(Healing::Reset);
        let equal = unless_stopped!(self.rest());
        Ok(Some(((inside as u64, outside as u64), equal)))
    }

    /// The longest that anybody waited for an acknowledgement; and how long the servers took to be equal from the start of the one that
    /// was killed, while nobody said anything new. Both in milliseconds.
    fn killed_leader(&mut self) -> Measured<(u64, u64)> {
        let load = self.crowd.talk(Load::Every(QUIET))?;
        if !self.cluster.pause(PRELUDE) {
            return Ok(None);
        }
        self.crowd.take_notes();
        let leader = unless_stopped!(self.leader());
        let failed = |error| StartError::Other(format!("cannot start a server again: {error}"));
        self.cluster.server(leader).kill();
        self.fronts.set_up(leader, false).map_err(failed)?;
        if !self.cluster.pause(AWAY) {
            return Ok(None);
        }
        load.end();
        self.fronts.set_up(leader, true).map_err(failed)?;
        self.cluster.server(leader).start().map_err(failed)?;
        let equal = unless_stopped!(self.rest());
        unless_stopped!(self.all_acknowledged());
        let longest = self.crowd.take_notes().acks.into_iter().max().unwrap_or_default();
        Ok(Some((longest.as_millis() as u64, equal)))
    }

    fn leader(&mut self) -> Measured<usize> {
        let leader = self.cluster.wait_until(REST_LIMIT, |cluster| cluster.agreed_leader());
        self.unless_late(leader, "no leader is agreed on")
    }

    /// How long it takes until no copy lacks anything, in milliseconds; nobody may talk meanwhile.
    fn rest(&mut self) -> Measured<u64> {
        let since = Instant::now();
        let rested = rest::wait_for(&mut self.cluster, REST_LIMIT, rest::unequal);
        let failed = |reason| StartError::Other(format!("{}: {reason}", self.design));
        Ok(rested.map_err(failed)?.then(|| since.elapsed().as_millis() as u64))
    }
}

/// The middle one of `figures`, of two the greater.
fn median(mut figures: Vec<u64>) -> u64 {
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
