//! `roundtable torture`: real processes, broken by a seed, judged by what people saw.
//!
//! ```text
//!   people ── TCP ──▶ n1 ◀── front ──▶ n2 ◀── front ──▶ n3        a fault at a time, the next one when all is well:
//!     │                 kill, pause, damage …   cut, slow down       begin ─ some time ─ end ─ agreed again
//!     ▼
//!   History ──▶ the simulator's checker ──▶ verdict
//! ```
//!
//! The simulator tries far more; this tries what it leaves out: the operating system, sockets, disks, and our threads. Both
//! have the same [checker](crate::sim::checker), which knows nothing but what people wrote, were acknowledged and were shown.
//!
//! Promise: the seed decides which faults come, in which order, where and for how long. It cannot decide when a
//! packet arrives, so a seed that finds something may not find it the next time; what it found is in the folder that stays.
//! Leaves out: two servers at a time, which no design of three promises to survive.
//!
//! Reading order: [`fault`] (what is done), [`fronts`] (the network), `people`, [`report`].

#![expect(clippy::disallowed_methods, reason = "torture takes place in real time")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::config::Design;
use crate::error::StartError;
use crate::local_cluster::{ClusterSettings, LocalCluster, ServerProcess};
use crate::sim::checker::{Order, Promise, check, check_answered, order_of};
use crate::sim::history::{Act, History, SessionHistory};

pub mod fault;
pub mod fronts;
mod people;
pub mod report;

use fault::Fault;
use fronts::Fronts;
use people::{Person, ROOMS};
use report::{Report, Suffered};

/// How long the servers may take to be one again after a fault: what the design promises, and generously more, since
/// the machine may be busy.
const REST_LIMIT: Duration = Duration::from_secs(40);
/// How long everything may take to be acknowledged and shown in the end.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a message that would be shown twice.
const AFTERMATH: Duration = Duration::from_millis(500);
/// How far a copy may be behind while people talk: a few messages are always under way.
const LEVEL: u64 = 200;
/// How often somebody leaves and comes back as a new session: after one fault in so many.
const NEWCOMER_EVERY: u64 = 3;

/// What `roundtable torture` was told.
#[derive(Clone, Debug)]
pub struct TortureSettings {
    /// What the servers run.
    pub design: Design,
    /// How many servers.
    pub servers: usize,
    /// How many people talk.
    pub people: usize,
    /// The time between two messages of one of them, on average.
    pub pause: Duration,
    /// How long faults go on.
    pub lasts: Duration,
    /// Which faults.
    pub faults: Vec<Fault>,
    /// Decides on the faults.
    pub seed: u64,
    /// More flags for the servers.
    pub flags: Vec<String>,
}

/// Something that happened, for whoever watches.
#[derive(Clone, Debug)]
pub enum Progress {
    /// The servers agree, and people talk.
    Started,
    /// A fault began: which, and what was done.
    Begun(Fault, String),
    /// It is over, and all is well again.
    Over(Suffered),
    /// Time passed: so many messages were acknowledged.
    Tick(usize),
    /// The faults are over; everything is waited for and read.
    Reading,
}

/// Tortures, and judges. `tell` hears what happens. `None` when `stop` was disconnected meanwhile; then nothing is left.
pub fn run(
    settings: &TortureSettings,
    stop: &Receiver<()>,
    tell: &mut dyn FnMut(Duration, Progress),
) -> Result<Option<Report>, StartError> {
    let mut torture = Torture::start(settings, stop.clone(), tell)?;
    let ended = torture.all_faults();
    let failure = match ended {
        Ok(true) => None,
        Ok(false) => return Ok(None),
        Err(failure) => Some(failure),
    };
    torture.finish(failure)
}

struct Torture<'a> {
    settings: &'a TortureSettings,
    tell: &'a mut dyn FnMut(Duration, Progress),
    cluster: LocalCluster,
    fronts: Fronts,
    name: String,
    people: Vec<Person>,
    /// What those did who left.
    left: Vec<SessionHistory>,
    suffered: Vec<Suffered>,
    rng: fastrand::Rng,
    newcomers: u64,
    /// Dropped when nobody is to write any more.
    writing: Option<Sender<()>>,
    over: Receiver<()>,
    epoch: Instant,
}

impl<'a> Torture<'a> {
    fn start(
        settings: &'a TortureSettings,
        stop: Receiver<()>,
        tell: &'a mut dyn FnMut(Duration, Progress),
    ) -> Result<Self, StartError> {
        let no_fronts = |error| StartError::Other(format!("cannot open a port: {error}"));
        let fronts = Fronts::open(settings.servers).map_err(no_fronts)?;
        let common = ClusterSettings {
            servers: settings.servers,
            design: settings.design.to_string(),
            flags: settings.flags.clone(),
        };
        let cluster = LocalCluster::start(&common, stop, |place| {
            fronts.set_target(place.place, place.addresses[place.place]);
            fronts.flags(place.place)
        })?;
        let (writing, over) = bounded(0);
        let name = cluster.name().to_string();
        let rng = fastrand::Rng::with_seed(settings.seed);
        let mut torture = Self {
            settings,
            tell,
            cluster,
            fronts,
            name,
            people: Vec::new(),
            left: Vec::new(),
            suffered: Vec::new(),
            rng,
            newcomers: 0,
            writing: Some(writing),
            over,
            epoch: Instant::now(),
        };
        for number in 0..settings.people {
            torture.welcome(&format!("p{number}"), number, false)?;
        }
        torture.say(Progress::Started);
        Ok(torture)
    }

    fn say(&mut self, progress: Progress) {
        (self.tell)(self.epoch.elapsed(), progress);
    }

    /// The servers, beginning with the one at `first`.
    fn addresses(&self, first: usize) -> Vec<SocketAddr> {
        let servers = self.cluster.servers();
        (0..servers.len()).map(|n| servers[(first + n) % servers.len()].address()).collect()
    }

    fn welcome(&mut self, user: &str, first: usize, all: bool) -> Result<(), StartError> {
        let person = Person::start(user, &self.name, &self.addresses(first), all, self.epoch)?;
        person.talk(self.settings.pause, self.over.clone(), self.rng.u64(..))?;
        self.people.push(person);
        Ok(())
    }

    /// One fault after the other until the time is over. False when stopped; an error is a promise that was broken.
    fn all_faults(&mut self) -> Result<bool, String> {
        let end = self.epoch + self.settings.lasts;
        while Instant::now() < end {
            let quiet = Duration::from_millis(self.rng.u64(300..1200));
            if !self.wait(quiet) {
                return Ok(false);
            }
            let fault = self.settings.faults[self.rng.usize(..self.settings.faults.len())];
            if !self.suffer(fault)? {
                return Ok(false);
            }
            if self.rng.u64(..NEWCOMER_EVERY) == 0 {
                self.replace_somebody()?;
            }
        }
        Ok(true)
    }

    /// Waits for `time`, and says how things are meanwhile. False when stopped.
    fn wait(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let rest = end.saturating_duration_since(Instant::now());
            if !self.cluster.pause(rest.min(Duration::from_millis(200))) {
                return false;
            }
            let acked = self.acked();
            self.say(Progress::Tick(acked));
            if rest.is_zero() {
                return true;
            }
        }
    }

    fn acked(&self) -> usize {
        self.people.iter().map(Person::acked).sum()
    }

    fn suffer(&mut self, fault: Fault) -> Result<bool, String> {
        let since = self.epoch.elapsed();
        let Self { cluster, fronts, rng, .. } = self;
        let failed = |error| format!("the fault {} could not be done: {error}", fault.name());
        let underway = fault::begin(fault, cluster, fronts, rng).map_err(failed)?;
        self.say(Progress::Begun(fault, underway.what.clone()));
        if !self.wait(underway.lasts) {
            return Ok(false);
        }
        fault::end(&underway, &mut self.cluster, &self.fronts).map_err(failed)?;
        let ended = self.epoch.elapsed();
        if !self.rest()? {
            return Ok(false);
        }
        let back = self.epoch.elapsed().saturating_sub(ended);
        // What was said during the fault has its answer soon now.
        let silence = self.people.iter().map(|person| person.longest_wait_since(since)).max();
        let silence = silence.unwrap_or_default();
        let suffered = Suffered { fault, what: underway.what, silence, back };
        self.suffered.push(suffered.clone());
        self.say(Progress::Over(suffered));
        Ok(true)
    }

    /// Waits until the servers are one again, and each has what it must have. False when stopped.
    fn rest(&mut self) -> Result<bool, String> {
        let mut reason = String::new();
        let rested = self.cluster.wait_until(REST_LIMIT, |cluster| match unrest(cluster) {
            None => Some(()),
            Some(why) => {
                reason = why;
                None
            }
        });
        match rested {
            Some(()) => Ok(true),
            None if !self.cluster.pause(Duration::ZERO) => Ok(false),
            None => Err(format!(
                "the servers are not one again after {} s: {reason}",
                REST_LIMIT.as_secs()
            )),
        }
    }

    /// Somebody leaves; somebody new reads everything.
    fn replace_somebody(&mut self) -> Result<(), String> {
        let place = self.rng.usize(..self.people.len());
        self.left.push(self.people.swap_remove(place).finish(true));
        self.newcomers += 1;
        let (user, first) =
            (format!("new{}", self.newcomers), self.rng.usize(..self.settings.servers));
        self.welcome(&user, first, true).map_err(|error| format!("{user} cannot join: {error}"))
    }

    /// Lets people finish, reads everything at every server, and judges.
    fn finish(mut self, failure: Option<String>) -> Result<Option<Report>, StartError> {
        self.say(Progress::Reading);
        drop(self.writing.take());
        let mut failure = failure;
        if failure.is_none()
            && !self.people.iter().all(|person| person.wait_acknowledged(SETTLE_LIMIT))
        {
            let seconds = SETTLE_LIMIT.as_secs();
            failure = Some(format!(
                "something was not acknowledged within {seconds} s after the last fault"
            ));
        }
        let mut readers = Vec::new();
        if failure.is_none() {
            match self.read_everything()? {
                Some(all) => readers = all,
                None => return Ok(None),
            }
        }
        let mut history = History { sessions: self.left, readers, ..History::default() };
        history.sessions.extend(self.people.into_iter().map(|person| person.finish(false)));
        let faults = &self.settings.faults;
        let design = self.settings.design;
        let whole = !faults.iter().any(|fault| fault.parts_servers());
        let order = order_of(design);
        let shown_survives = whole || order == Order::Total;
        let linearizable = design == Design::Raft;
        let promise = Promise { order, shown_survives, whole, linearizable };
        let violation = match failure {
            Some(failure) => Some(format!("rest: {failure}")),
            None => check(&history, promise)
                .and_then(|()| check_answered(&history))
                .err()
                .map(|violation| format!("{}: {}", violation.invariant, violation.detail)),
        };
        let folder = violation.as_ref().map(|_| PathBuf::from(self.cluster.keep_folder()));
        let report = Report::new(self.settings, self.suffered, &history, violation, folder);
        Ok(Some(report))
    }

    /// A fresh reader at each server, once it was shown all. `None` when stopped.
    fn read_everything(&mut self) -> Result<Option<Vec<SessionHistory>>, StartError> {
        let mut readers = Vec::new();
        for place in 0..self.settings.servers {
            // That one and no other: its copy is to be read.
            let here = &self.addresses(place)[..1];
            readers.push(Person::start(&format!("r{place}"), &self.name, here, true, self.epoch)?);
        }
        let mut last = (0, Instant::now());
        let quiet = self.cluster.wait_until(SETTLE_LIMIT, |_| {
            // As long as something comes there may be more.
            let shown = readers.iter().map(Person::shown).sum::<u64>();
            if shown != last.0 {
                last = (shown, Instant::now());
            }
            (readers.iter().all(|reader| reader.is_in(ROOMS.len())) && last.1.elapsed() > AFTERMATH)
                .then_some(())
        });
        if quiet.is_none() && !self.cluster.pause(Duration::ZERO) {
            return Ok(None);
        }
        Ok(Some(readers.into_iter().map(|reader| reader.finish(false)).collect()))
    }
}

/// Why `cluster` is not whole, if so: no common leader, a server that has ended, or one whose copies are far behind.
pub(crate) fn unrest(cluster: &mut LocalCluster) -> Option<String> {
    if let Some(ended) = cluster.ended() {
        return Some(ended);
    }
    let statuses: Option<Vec<_>> = cluster.servers().iter().map(ServerProcess::status).collect();
    let Some(statuses) = statuses else { return Some("a server does not answer".into()) };
    let leader = &statuses[0].leader;
    if leader.is_none() || statuses.iter().any(|status| status.leader != *leader) {
        return Some("they do not name the same leader".into());
    }
    if statuses.iter().any(|status| status.ring.len() != statuses.len()) {
        return Some("a server is missing in the ring".into());
    }
    let ahead = statuses.iter().filter_map(|status| Some(status.order.as_ref()?.committed)).max();
    for status in &statuses {
        if let Some(order) = &status.order {
            let waits = order.waits_for.clone();
            let lags = order.committed + LEVEL < ahead.unwrap_or_default();
            let lags = lags.then(|| format!("{} has not caught up", status.node));
            if let Some(reason) = waits.or(lags) {
                return Some(reason);
            }
        }
    }
    let rooms =
        statuses.iter().flat_map(|status| status.rooms.iter().map(move |room| (status, room)));
    let copies: Vec<_> =
        rooms.filter(|(status, room)| room.replicas.contains(&status.node)).collect();
    let behind = copies.iter().find(|(_, room)| {
        copies.iter().any(|(_, other)| {
            other.room_id == room.room_id && other.messages > room.messages + LEVEL
        })
    });
    behind.map(|(status, room)| format!("{} lacks messages of {}", status.node, room.room_id))
}

/// How many messages of `history` were acknowledged.
fn acked_in(history: &History) -> usize {
    let acts = history.sessions.iter().flat_map(|session| &session.acts);
    acts.filter(|(_, act)| matches!(act, Act::Acked { .. })).count()
}
