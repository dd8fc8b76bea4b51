//! `roundtable compare`: the same load and the same faults through the three designs.
//!
//! ```text
//!   quiet talk ─ full load ─ the leader is killed, and returns ─ the leader is cut off, and healed ─ counted
//! ```
//!
//! Real processes on this machine, one design after the other, each with the same clients. The servers reach each
//! other through [`Fronts`], which count what they say; that costs some of the throughput, the same for all.
//!
//! Reading order: this module (the phases), [`figures`] (what is measured), `plot`.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::config::Design;
use crate::error::StartError;
use crate::local_cluster::{ClusterSettings, LocalCluster, ServerProcess};
use crate::torture::fronts::{Fronts, Healing, Traffic};
use crate::torture::rest;

mod crowd;
pub mod figures;
pub mod plot;

use crowd::{Crowd, Load};
use figures::{Figures, Spread};

/// The time between two messages of a client in quiet talk.
const QUIET: Duration = Duration::from_millis(50);
/// How many messages a client leaves unacknowledged under full load.
const WINDOW: usize = 64;
/// How long a server stays dead, and is cut off.
const AWAY: Duration = Duration::from_secs(4);
/// How long the servers may take to be one again.
const REST_LIMIT: Duration = Duration::from_secs(60);
/// How long what was said may take to be acknowledged.
const ACK_LIMIT: Duration = Duration::from_secs(60);

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
        match Trial::start(settings, *design, stop.clone())?.run(&mut tell_phase)? {
            Some(figures) => all.push(figures),
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

struct Trial<'a> {
    settings: &'a CompareSettings,
    design: Design,
    cluster: LocalCluster,
    fronts: Fronts,
    crowd: Crowd,
}

/// What the servers did up to a moment.
struct Costs {
    traffic: Traffic,
    syncs: u64,
}

impl<'a> Trial<'a> {
    fn start(
        settings: &'a CompareSettings,
        design: Design,
        stop: Receiver<()>,
    ) -> Result<Self, StartError> {
        let no_fronts = |error| StartError::Other(format!("cannot open a port: {error}"));
        let fronts = Fronts::open(settings.servers).map_err(no_fronts)?;
        let common = ClusterSettings {
            servers: settings.servers,
            design: design.to_string(),
            flags: vec!["--log".into(), "warn".into()],
        };
        let mut cluster = LocalCluster::start(&common, stop, |place| {
            fronts.set_target(place.place, place.addresses[place.place]);
            fronts.flags(place.place)
        })?;
        let servers: Vec<SocketAddr> =
            cluster.servers().iter().map(ServerProcess::address).collect();
        let crowd = Crowd::gather(settings.clients, cluster.name(), &servers)?;
        let there = cluster.wait_until(REST_LIMIT, |_| crowd.is_complete().then_some(()));
        there
            .ok_or_else(|| StartError::Other(format!("{design}: a client cannot join the room")))?;
        Ok(Self { settings, design, cluster, fronts, crowd })
    }

    /// `None` when stopped.
    fn run(mut self, tell: &mut dyn FnMut(&str)) -> Result<Option<Figures>, StartError> {
        let mut figures = Figures::new(self.design);
        tell("quiet talk");
        let Some(()) = self.quiet_talk(&mut figures)? else { return Ok(None) };
        tell("full load");
        let Some(()) = self.full_load(&mut figures)? else { return Ok(None) };
        tell("the leader is killed");
        let Some(()) = self.killed_leader(&mut figures)? else { return Ok(None) };
        tell("the leader is cut off");
        let Some(()) = self.cut_off_leader(&mut figures)? else { return Ok(None) };
        let (lost, twice) = self.crowd.lost_and_twice();
        (figures.lost, figures.twice) = (lost as u64, twice as u64);
        Ok(Some(figures))
    }

    fn costs(&self) -> Costs {
        let statuses = self.cluster.servers().iter().filter_map(ServerProcess::status);
        Costs { traffic: self.fronts.traffic(), syncs: statuses.map(|status| status.syncs).sum() }
    }

    fn quiet_talk(&mut self, figures: &mut Figures) -> Result<Option<()>, StartError> {
        let before = self.costs();
        let load = self.crowd.talk(Load::Every(QUIET))?;
        if !self.cluster.pause(self.settings.phase) {
            return Ok(None);
        }
        load.end();
        self.crowd.wait_acknowledged(ACK_LIMIT);
        let after = self.costs();
        let notes = self.crowd.take_notes();
        figures.ack = Spread::of(&notes.acks);
        figures.delivery = Spread::of(&notes.deliveries);
        let messages = notes.acks.len().max(1) as f64;
        let per_message = |before: u64, after: u64| after.saturating_sub(before) as f64 / messages;
        figures.server_messages = per_message(before.traffic.messages, after.traffic.messages);
        figures.server_bytes = per_message(before.traffic.bytes, after.traffic.bytes);
        figures.syncs = per_message(before.syncs, after.syncs);
        Ok(Some(()))
    }

    fn full_load(&mut self, figures: &mut Figures) -> Result<Option<()>, StartError> {
        let before = self.costs();
        let began = Instant::now();
        let load = self.crowd.talk(Load::Window(WINDOW))?;
        if !self.cluster.pause(self.settings.phase) {
            return Ok(None);
        }
        load.end();
        self.crowd.wait_acknowledged(ACK_LIMIT);
        let seconds = began.elapsed().as_secs_f64();
        let after = self.costs();
        let notes = self.crowd.take_notes();
        let messages = notes.acks.len().max(1) as f64;
        figures.throughput = messages / seconds;
        figures.loaded_ack = Spread::of(&notes.acks);
        figures.loaded_syncs = after.syncs.saturating_sub(before.syncs) as f64 / messages;
        Ok(Some(()))
    }

    fn killed_leader(&mut self, figures: &mut Figures) -> Result<Option<()>, StartError> {
        let load = self.crowd.talk(Load::Every(QUIET))?;
        if !self.cluster.pause(Duration::from_secs(1)) {
            return Ok(None);
        }
        self.crowd.take_notes();
        let leader = self.leader()?;
        self.cluster.server(leader).kill();
        if !self.cluster.pause(AWAY) {
            return Ok(None);
        }
        figures.silence_ms = longest(&self.crowd.take_notes().acks);
        let failed = |error| StartError::Other(format!("cannot start a server again: {error}"));
        load.end();
        self.cluster.server(leader).start().map_err(failed)?;
        let Some(back) = self.rest()? else { return Ok(None) };
        figures.return_ms = back;
        self.crowd.wait_acknowledged(ACK_LIMIT);
        Ok(Some(()))
    }

    fn cut_off_leader(&mut self, figures: &mut Figures) -> Result<Option<()>, StartError> {
        let load = self.crowd.talk(Load::Every(QUIET))?;
        if !self.cluster.pause(Duration::from_secs(1)) {
            return Ok(None);
        }
        let leader = self.leader()?;
        let others = (0..self.settings.servers).filter(|place| *place != leader).collect();
        self.fronts.split(&[vec![leader], others]);
        let cut_at = self.crowd.now();
        self.crowd.take_notes();
        if !self.cluster.pause(AWAY) {
            return Ok(None);
        }
        let notes = self.crowd.take_notes();
        let port = self.cluster.servers()[leader].address().port();
        let during = || notes.acked_at.iter().filter(|(at, _)| *at > cut_at);
        figures.cut_off_acks = during().filter(|(_, from)| *from == port).count() as u64;
        figures.majority_acks = during().filter(|(_, from)| *from != port).count() as u64;
        load.end();
        self.fronts.heal(Healing::Reset);
        let Some(back) = self.rest()? else { return Ok(None) };
        figures.heal_ms = back;
        self.crowd.wait_acknowledged(ACK_LIMIT);
        // Long enough for a message that would be shown twice.
        Ok(self.cluster.pause(Duration::from_millis(500)).then_some(()))
    }

    fn leader(&mut self) -> Result<usize, StartError> {
        let leader = self.cluster.wait_until(REST_LIMIT, |cluster| cluster.agreed_leader());
        leader.ok_or_else(|| StartError::Other(format!("{}: no leader is agreed on", self.design)))
    }

    /// How long it takes until no copy lacks anything, in milliseconds; nobody may talk meanwhile. `None` when stopped.
    fn rest(&mut self) -> Result<Option<u64>, StartError> {
        let since = Instant::now();
        let rested = rest::wait_for(&mut self.cluster, REST_LIMIT, rest::unequal);
        let failed = |reason| StartError::Other(format!("{}: {reason}", self.design));
        Ok(rested.map_err(failed)?.then(|| since.elapsed().as_millis() as u64))
    }
}

/// The longest of `times`, in milliseconds.
fn longest(times: &[Duration]) -> u64 {
    times.iter().max().map_or(0, |time| time.as_millis() as u64)
}
