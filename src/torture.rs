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
//! After a fault all has to be well again, as far as it can be while people talk: the next fault meets servers that are still
//! catching up. A lost disk is different. What was on it has to be on another one, so a second disk must not be lost
//! before the first is full again: that is the *time to repair between* that the designs ask for. So behind a fault that
//! loses a disk there is a pause: people say nothing new until no copy lacks anything. Then everything that was said so far
//! is read at every server, and judged. In front of such a fault there is a pause, too, if servers were parted since
//! the last one: each side may have acknowledged messages that the other has not fetched yet. A full disk and a torn last
//! record lose nothing that was synced, and a server that was killed comes back with its disk: they need no pause.
//!
//! Reading order: [`fault`] (what is done), [`fronts`] (the network), `people`, `rest` (when all is well), [`remains`], [`report`].

#![expect(clippy::disallowed_methods, reason = "torture takes place in real time")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use parking_lot::Mutex;

use crate::config::Design;
use crate::error::StartError;
use crate::local_cluster::{ClusterSettings, LocalCluster};
use crate::sim::checker::{Order, Promise, Violation, check, check_answered, order_of};
use crate::sim::history::{Act, History, SessionHistory};

pub mod fault;
pub mod fronts;
mod hello;
mod people;
pub mod remains;
pub mod report;
pub(crate) mod rest;
mod traffic;

use fault::Fault;
use fronts::Fronts;
use people::{Manner, Person, ROOMS};
use report::{Report, Suffered};

/// How long the servers may take to be one again after a fault: what the design promises, and generously more, since
/// the machine may be busy.
const REST_LIMIT: Duration = Duration::from_secs(40);
/// How long everything may take to be acknowledged and shown in the end.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Long enough for a message that would be shown twice.
const AFTERMATH: Duration = Duration::from_millis(500);
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
    let started = Torture::start(settings, stop.clone(), tell);
    if stop.try_recv() == Err(TryRecvError::Disconnected) {
        return Ok(None);
    }
    let mut torture = started?;
    let violation = match torture.all_faults().and_then(|done| Ok(done && torture.last_words()?)) {
        Ok(true) => None,
        Ok(false) => return Ok(None),
        Err(violation) => Some(violation),
    };
    if let (Some(_), Some(problem)) = (&violation, torture.cluster.lacks_room()) {
        // That is nothing that a design could help.
        return Err(StartError::Other(format!("{problem}; TMPDIR=FOLDER names another place")));
    }
    Ok(Some(torture.finish(violation)))
}

/// True when it is done, false when it was stopped, or a promise that was broken.
type Going = Result<bool, Violation>;

fn broken_rest(reason: String) -> Violation {
    Violation::new("rest", reason, &[])
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
    /// How many read everything.
    readers: u64,
    /// Servers were parted since all copies were equal.
    parted: bool,
    /// Nobody is to say anything new for the moment.
    hushed: Arc<AtomicBool>,
    /// How the traces name the messages, by their texts.
    keys: Arc<Mutex<BTreeMap<String, String>>>,
    /// Dropped when nobody is to write any more.
    writing: Option<Sender<()>>,
    over: Receiver<()>,
    epoch: Instant,
    /// The same moment as the servers' traces have it: microseconds since 1970.
    epoch_us: u64,
}

impl<'a> Torture<'a> {
    fn start(
        settings: &'a TortureSettings,
        stop: Receiver<()>,
        tell: &'a mut dyn FnMut(Duration, Progress),
    ) -> Result<Self, StartError> {
        let no_fronts = |error| StartError::Other(format!("no port of 127.0.0.1 is free: {error}"));
        let fronts = Fronts::open(settings.servers).map_err(no_fronts)?;
        let common = ClusterSettings {
            servers: settings.servers,
            design: settings.design.to_string(),
            flags: settings.flags.clone(),
        };
        let cluster = LocalCluster::start(&common, stop, |place| {
            fronts.set_target(place.place, place.addresses[place.place]);
            [fronts.flags(place.place), remains::flags(&place)].concat()
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
            readers: 0,
            parted: false,
            hushed: Arc::default(),
            keys: Arc::default(),
            writing: Some(writing),
            over,
            epoch: Instant::now(),
            epoch_us: wall_us(),
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
        let manner = Manner {
            pause: self.settings.pause,
            over: self.over.clone(),
            hushed: Arc::clone(&self.hushed),
            keys: Arc::clone(&self.keys),
            seed: self.rng.u64(..),
        };
        person.talk(manner)?;
        self.people.push(person);
        Ok(())
    }

    /// One fault after the other until the time is over.
    fn all_faults(&mut self) -> Going {
        let end = self.epoch + self.settings.lasts;
        while Instant::now() < end {
            let quiet = Duration::from_millis(self.rng.u64(300..1200));
            if !self.wait(quiet) {
                return Ok(false);
            }
            let fault = self.settings.faults[self.rng.usize(..self.settings.faults.len())];
            if fault.loses_disk() && self.parted {
                let equal = self.hush()?;
                self.hushed.store(false, Ordering::Relaxed);
                if !equal {
                    return Ok(false);
                }
            }
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

    fn suffer(&mut self, fault: Fault) -> Going {
        let since = self.epoch.elapsed();
        let Self { cluster, fronts, rng, .. } = self;
        let failed =
            |error| broken_rest(format!("the fault {} could not be done: {error}", fault.name()));
        let underway = fault::begin(fault, cluster, fronts, rng).map_err(failed)?;
        self.say(Progress::Begun(fault, underway.what.clone()));
        if !self.wait(underway.lasts) {
            return Ok(false);
        }
        fault::end(&underway, &mut self.cluster, &self.fronts).map_err(failed)?;
        self.parted |= fault.parts_servers();
        let ended = self.epoch.elapsed();
        if !rest::wait_for(&mut self.cluster, REST_LIMIT, rest::unlevel).map_err(broken_rest)?
            || fault.loses_disk() && !self.hush()?
        {
            return Ok(false);
        }
        let back = self.epoch.elapsed().saturating_sub(ended);
        // What was said during the fault has its answer soon now.
        let silence = self.people.iter().map(|person| person.longest_wait_since(since)).max();
        let silence = silence.unwrap_or_default();
        let suffered = Suffered { fault, what: underway.what, silence, back };
        self.suffered.push(suffered.clone());
        self.say(Progress::Over(suffered));
        let going = !fault.loses_disk() || self.judge()?;
        self.hushed.store(false, Ordering::Relaxed);
        Ok(going)
    }

    /// Nobody says anything new from now on; waits until no copy lacks anything.
    fn hush(&mut self) -> Going {
        self.hushed.store(true, Ordering::Relaxed);
        let equal = rest::wait_for(&mut self.cluster, REST_LIMIT, rest::unequal);
        self.parted = false;
        equal.map_err(broken_rest)
    }

    /// Somebody leaves; somebody new reads everything.
    fn replace_somebody(&mut self) -> Result<(), Violation> {
        let place = self.rng.usize(..self.people.len());
        self.left.push(self.people.swap_remove(place).finish(true));
        self.newcomers += 1;
        let (user, first) =
            (format!("new{}", self.newcomers), self.rng.usize(..self.settings.servers));
        self.welcome(&user, first, true)
            .map_err(|error| broken_rest(format!("{user} cannot join: {error}")))
    }

    /// When the faults are over: everything is answered, equal, read and judged.
    fn last_words(&mut self) -> Going {
        self.say(Progress::Reading);
        drop(self.writing.take());
        Ok(self.hush()? && self.judge()?)
    }

    /// While nobody says anything new: waits for all answers, reads everything at every server, and judges what was said so far.
    fn judge(&mut self) -> Going {
        let people = &self.people;
        let answered = self.cluster.wait_until(SETTLE_LIMIT, |_| {
            let answered = |person: &Person| person.wait_acknowledged(Duration::ZERO);
            people.iter().all(answered).then_some(())
        });
        if answered.is_none() {
            let seconds = SETTLE_LIMIT.as_secs();
            let reason = format!("something was not acknowledged {seconds} s after a fault");
            return if self.cluster.pause(Duration::ZERO) {
                Err(broken_rest(reason))
            } else {
                Ok(false)
            };
        }
        let Some(readers) = self.read_everything()? else { return Ok(false) };
        let history = History { readers, ..self.history() };
        check(&history, self.promise()).and_then(|()| check_answered(&history))?;
        Ok(true)
    }

    /// What everybody did and saw so far.
    fn history(&self) -> History {
        let present = self.people.iter().map(Person::history);
        let sessions = self.left.iter().cloned().chain(present).collect();
        History { sessions, ..History::default() }
    }

    fn promise(&self) -> Promise {
        let whole = !self.settings.faults.iter().any(|fault| fault.parts_servers());
        let order = order_of(self.settings.design);
        let shown_survives = whole || order == Order::Total;
        Promise { order, shown_survives, whole, linearizable: self.settings.design == Design::Raft }
    }

    /// A fresh reader at each server, once it was shown all that the server says it has. `None` when stopped.
    fn read_everything(&mut self) -> Result<Option<Vec<SessionHistory>>, Violation> {
        let mut readers = Vec::new();
        for place in 0..self.settings.servers {
            // That one and no other: its copy is to be read.
            let here = &self.addresses(place)[..1];
            let user = format!("r{}", self.readers);
            self.readers += 1;
            let reader = Person::start(&user, &self.name, here, true, self.epoch);
            let reader =
                reader.map_err(|error| broken_rest(format!("{user} cannot read: {error}")))?;
            readers.push(reader);
        }
        let everybody = || self.people.iter().chain(&readers);
        let mut last = (0, Instant::now());
        let quiet = self.cluster.wait_until(SETTLE_LIMIT, |cluster| {
            // As long as something comes there may be more.
            let shown = everybody().map(Person::shown).sum::<u64>();
            if shown != last.0 {
                last = (shown, Instant::now());
            }
            let is_quiet = readers.iter().all(|reader| reader.is_in(ROOMS.len()))
                && last.1.elapsed() > AFTERMATH;
            // A busy server may pause in the middle.
            let mut servers = cluster.servers().iter();
            let knows_all = |reader: &Person| {
                let messages = servers.next().and_then(rest::messages_of);
                messages.is_some_and(|messages| reader.shown() >= messages)
            };
            (is_quiet && readers.iter().all(knows_all)).then_some(())
        });
        if quiet.is_none() && !self.cluster.pause(Duration::ZERO) {
            return Ok(None);
        }
        // What was not shown within the limit is missing, as the check will say.
        Ok(Some(readers.into_iter().map(|reader| reader.finish(false)).collect()))
    }

    /// Sends everybody home, and says what came of it.
    fn finish(mut self, violation: Option<Violation>) -> Report {
        self.left.extend(self.people.drain(..).map(|person| person.finish(false)));
        let history = self.history();
        let remains = violation.as_ref().map(|violation| {
            let keys = self.keys.lock();
            let about = violation.about.iter().filter_map(|text| keys.get(text).cloned());
            let moment = violation.about.iter().filter_map(|text| wrote_at(&history, text)).min();
            let moment_us = moment.map(|moment| self.epoch_us + moment);
            remains::keep(&mut self.cluster, moment_us, about.collect())
        });
        Report::new(self.settings, self.suffered, &history, violation, remains)
    }
}

/// When somebody wrote `text`, in microseconds since the beginning.
fn wrote_at(history: &History, text: &str) -> Option<u64> {
    let wrote = |act: &Act| matches!(act, Act::Wrote { text: wrote, .. } if wrote == text);
    let mut acts = history.sessions.iter().flat_map(|session| &session.acts);
    acts.find(|(_, act)| wrote(act)).map(|(at, _)| *at)
}

/// Microseconds since 1970.
fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// How many messages of `history` were acknowledged.
fn acked_in(history: &History) -> usize {
    let acts = history.sessions.iter().flat_map(|session| &session.acts);
    acts.filter(|(_, act)| matches!(act, Act::Acked { .. })).count()
}
