//! `roundtable demo`: a leader dies while two people talk, for an audience, in half a minute.
//!
//! ```text
//!   start three servers ─ talk ─ kill the leader ─ election ─ talk ─ start it again ─ caught up ─ verdict
//! ```
//!
//! Everything is real: three processes with disks, two clients with sockets, SIGKILL. Beside the talk that is shown, one of
//! them counts aloud in a second room, fifty times a second, so that the longest wait for an acknowledgement
//! measures the silence. The servers write traces; from them come the steps of the election, and the diagram that is left
//! in the current folder.
//!
//! Reading order: this module (the play), [`verdict`] (the figures), `talker`, `screen`, `diagram`.

#![expect(clippy::disallowed_methods, reason = "a play has a clock")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Receiver;

use crate::cli::render::Style;
use crate::error::StartError;
use crate::local_cluster::{ClusterSettings, LocalCluster, ServerProcess};
use crate::threads::Threads;

mod diagram;
mod screen;
mod talker;
pub mod verdict;

use screen::{Kind, Screen};
use talker::Talker;
use verdict::Verdict;

/// Where the talk is that is shown.
const ROOM: &str = "lobby";
/// Where one counts aloud.
const COUNTING_ROOM: &str = "counting";
/// How often one counts.
const COUNT_EVERY: Duration = Duration::from_millis(20);
/// The time between two lines of the talk.
const LINE_EVERY: Duration = Duration::from_millis(700);
/// How long a new leader, a return or an acknowledgement is waited for.
const LIMIT: Duration = Duration::from_secs(15);

const BEFORE: [&str; 4] = [
    "Are you there, bob?",
    "I am. My server leads the cluster.",
    "Then let us see what happens when it dies.",
    "I shall not notice, I hope.",
];
const AFTER: [&str; 4] = [
    "Still there?",
    "Yes. My client found another server by itself.",
    "And nothing is missing here.",
    "Nor here. Shall we call the dead one back?",
];
const BACK: [&str; 2] = ["There it is again.", "With everything that we said while it was away."];

/// What `roundtable demo` was told.
#[derive(Clone, Debug)]
pub struct DemoSettings {
    /// `ring`, `sequencer` or `raft`.
    pub design: String,
    /// How it looks.
    pub style: Style,
}

/// Plays, and returns the figures. `None` when `stop` was disconnected meanwhile.
pub fn run(settings: &DemoSettings, stop: &Receiver<()>) -> Result<Option<Verdict>, StartError> {
    let mut play = Play::start(settings, stop.clone())?;
    let counting = play.count_aloud()?;
    let finished = play.acts()?;
    counting.stop();
    counting.join(LIMIT);
    if finished.is_none() {
        return Ok(None);
    }
    play.verdict().map(Some)
}

struct Play {
    screen: Screen,
    cluster: LocalCluster,
    leader: usize,
    alice: Arc<Talker>,
    bob: Talker,
    /// Where the two are, by place.
    seats: (usize, usize),
    /// Where the diagram goes.
    picture: PathBuf,
}

impl Play {
    fn start(settings: &DemoSettings, stop: Receiver<()>) -> Result<Self, StartError> {
        let screen = Screen::new(settings.style);
        screen.heading(&format!(
            "Three servers, design {}. Two people talk. The leader dies.\n",
            settings.design
        ));
        let common =
            ClusterSettings { servers: 3, design: settings.design.clone(), flags: Vec::new() };
        let cluster = LocalCluster::start(&common, stop, |place| {
            let mut flags = place.peers();
            flags.extend(["--trace".into(), place.trace_path().to_string_lossy().into_owned()]);
            flags
        })?;
        let servers: Vec<String> = cluster
            .servers()
            .iter()
            .map(|server| format!("{} on port {}", server.id(), server.address().port()))
            .collect();
        screen.tell(Kind::Cluster, &format!("{} found each other", servers.join(", ")));
        let nobody = || StartError::Other("the servers do not agree on a leader".into());
        let leader = cluster.agreed_leader().ok_or_else(nobody)?;
        let alice_at = (leader + 1) % 3;
        let at = |place: usize| cluster.servers()[place].address();
        let rooms = [ROOM, COUNTING_ROOM];
        let alice = Arc::new(Talker::start("alice", at(alice_at), &rooms)?);
        let bob = Talker::start("bob", at(leader), &rooms)?;
        let picture = PathBuf::from(format!("roundtable-demo-{}.html", settings.design));
        Ok(Self { screen, cluster, leader, alice, bob, seats: (alice_at, leader), picture })
    }

    fn id(&self, place: usize) -> String {
        self.cluster.servers()[place].id().into()
    }

    /// `None` when stopped.
    fn acts(&mut self) -> Result<Option<()>, StartError> {
        let leads = self.term_of(self.leader);
        self.screen.tell(Kind::Leader, &format!("{} leads in term {leads}", self.id(self.leader)));
        let (alice, bob) = (self.id(self.seats.0), self.id(self.seats.1));
        self.screen
            .tell(Kind::Cluster, &format!("alice connects to {alice}, bob to {bob}, the leader"));
        if !self.talk(&BEFORE) {
            return Ok(None);
        }
        let dead = self.leader;
        let Some(()) = self.kill_leader()? else { return Ok(None) };
        self.tell_moves();
        if !self.talk(&AFTER) {
            return Ok(None);
        }
        let Some(()) = self.bring_back(dead)? else { return Ok(None) };
        Ok(self.talk(&BACK).then_some(()))
    }

    /// Alice and bob in turn. False when stopped.
    fn talk(&self, lines: &[&str]) -> bool {
        for (place, text) in lines.iter().enumerate() {
            let (name, talker) = match place % 2 {
                0 => ("alice", &*self.alice),
                _ => ("bob", &self.bob),
            };
            self.screen.tell(Kind::Talk, &format!("{name}: {text}"));
            talker.say(text, ROOM);
            if !self.cluster.pause(LINE_EVERY) {
                return false;
            }
        }
        true
    }

    /// Alice counts in the other room until it is stopped.
    fn count_aloud(&self) -> Result<Threads, StartError> {
        let threads = Threads::new("counting");
        let (alice, stopped) = (Arc::clone(&self.alice), threads.stopped().clone());
        let count = move || {
            for number in 1_u64.. {
                alice.say(&number.to_string(), COUNTING_ROOM);
                let stop = stopped.recv_timeout(COUNT_EVERY);
                if stop.is_err_and(|error| error.is_disconnected()) {
                    return;
                }
            }
        };
        let no_thread = |error| StartError::Other(format!("cannot start a thread: {error}"));
        threads.spawn("alice", count).map_err(no_thread)?;
        Ok(threads)
    }

    /// `None` when stopped.
    fn kill_leader(&mut self) -> Result<Option<()>, StartError> {
        let dead = self.leader;
        let (killed, killed_us) = (Instant::now(), wall_us());
        self.cluster.server(dead).kill();
        let id = self.id(dead);
        self.screen.tell(Kind::Fault, &format!("{id}, the leader, is killed (SIGKILL)"));
        let elected = self
            .cluster
            .wait_until(LIMIT, |cluster| cluster.agreed_leader().filter(|leader| *leader != dead));
        let Some(elected) = elected else {
            return self.gave_up("no new leader was elected in time");
        };
        self.leader = elected;
        let took = killed.elapsed();
        // The traces are written beside the servers' work, a moment later.
        if !self.cluster.pause(Duration::from_millis(200)) {
            return Ok(None);
        }
        for (at_us, step) in diagram::steps(&self.traces(), killed_us, wall_us())? {
            let at = killed + Duration::from_micros(at_us.saturating_sub(killed_us));
            self.screen.tell_at(at, Kind::Election, &step);
        }
        let term = self.term_of(elected);
        let text = format!(
            "{} leads in term {term}, at most {} ms after the kill",
            self.id(elected),
            took.as_millis()
        );
        self.screen.tell_at(killed + took, Kind::Leader, &text);
        Ok(Some(()))
    }

    fn traces(&self) -> Vec<PathBuf> {
        let servers = self.cluster.servers().iter();
        servers.map(ServerProcess::trace_path).collect()
    }

    fn tell_moves(&mut self) {
        let bob = &self.bob;
        let moved = self.cluster.wait_until(LIMIT, |_| bob.memory().moves.last().cloned());
        let Some(address) = moved else { return };
        let there =
            self.cluster.servers().iter().find(|server| server.address().to_string() == address);
        let there = there.map_or(address.clone(), |server| server.id().into());
        self.screen.tell(Kind::Cluster, &format!("bob is connected to {there} now"));
    }

    /// `None` when stopped.
    fn bring_back(&mut self, dead: usize) -> Result<Option<()>, StartError> {
        let id = self.id(dead);
        self.screen.tell(Kind::Cluster, &format!("{id} is started again, with its disk"));
        let started = self.cluster.server(dead).start();
        started.map_err(|error| StartError::Other(format!("cannot start {id}: {error}")))?;
        if self.cluster.wait_agreed().is_err() {
            return self.gave_up("the server that was dead did not come back in time");
        }
        if let Some(leader) = self.cluster.agreed_leader().filter(|leader| *leader != self.leader) {
            self.leader = leader;
            let text = format!("{} leads in term {}", self.id(leader), self.term_of(leader));
            self.screen.tell(Kind::Leader, &text);
        }
        Ok(Some(()))
    }

    /// A failure, unless it was stopped. What the servers wrote stays.
    fn gave_up(&mut self, why: &str) -> Result<Option<()>, StartError> {
        if !self.cluster.pause(Duration::ZERO) {
            return Ok(None);
        }
        let folder = self.cluster.keep_folder().display();
        Err(StartError::Other(format!("{why}; look at the logs in {folder}")))
    }

    fn term_of(&self, place: usize) -> u64 {
        self.cluster.servers()[place].status().map_or(0, |status| status.term)
    }

    /// Carol asks the server that was dead for everything, and all is counted.
    fn verdict(mut self) -> Result<Verdict, StartError> {
        let acknowledged = self.alice.wait_acknowledged(LIMIT) && self.bob.wait_acknowledged(LIMIT);
        let back = self.seats.1;
        let address = self.cluster.servers()[back].address();
        let carol = Talker::start("carol", address, &[ROOM, COUNTING_ROOM])?;
        let (alice, bob) = (Arc::clone(&self.alice), &self.bob);
        let all = self.cluster.wait_until(LIMIT, |_| {
            let verdict = Verdict::of(&[&alice.memory(), &bob.memory()], &carol.memory());
            (verdict.lost == 0).then_some(())
        });
        let verdict = Verdict::of(&[&alice.memory(), &bob.memory()], &carol.memory());
        let id = self.id(back);
        if all.is_some() {
            let text =
                format!("carol joins at {id}, and is shown all {} messages", verdict.acknowledged);
            self.screen.tell(Kind::Cluster, &text);
        }
        self.screen.heading("Verdict");
        let screen = &self.screen;
        let Verdict { said, acknowledged: acked, lost, twice, silence } = &verdict;
        screen.result(
            "acknowledged",
            &format!("{acked} of {said} messages"),
            acknowledged && acked == said,
        );
        screen.result("lost", &lost.to_string(), *lost == 0);
        screen.result("shown twice", &twice.to_string(), *twice == 0);
        let text = format!("{} ms, the longest wait for an acknowledgement", silence.as_millis());
        screen.result("silence", &text, true);
        // What they still have to write, they write when they stop.
        for place in 0..self.cluster.servers().len() {
            self.cluster.server(place).stop();
        }
        diagram::draw(&self.traces(), &self.picture)?;
        let text = format!("{}; open it in a browser", self.picture.display());
        self.screen.result("diagram", &text, true);
        Ok(verdict)
    }
}

/// The time of the wall clock, in microseconds since 1970.
fn wall_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
