//! The simulator: a whole cluster and its clients inside one thread, in virtual time, decided by one seed.
//!
//! ```text
//!   seed ──▶ Plan: machines, weather, faults          Checker ◀── History: written, shown, acknowledged
//!              │                                                       ▲
//!              ▼                                                       │
//!   Agenda ──▶ World ──▶ ServerNode (the real one) ◀── Links ──▶ Session (the real one)
//!   (at, n, event)           │
//!                            └──▶ Disk that forgets what was not synced
//! ```
//!
//! The servers' logic and the clients' sessions are the very code that runs in production; what is simulated
//! is threads, sockets, disks, clocks and users. Every message is encoded and decoded on its way. First things go
//! wrong as the plan says; then everything is healed, and within 30 s of virtual time the cluster has to be one
//! again; at last a fresh reader at each server reads everything, and the [`checker`] judges what users saw.
//!
//! Promise: the same seed gives the same run, byte for byte. Price: a second of virtual time of five servers costs
//! about a millisecond. Leaves out: threads (races between them are for tests of real processes), full disks.
//!
//! # Proof that the checks can fail
//!
//! Each of these faults in the servers is caught within 500 seeds (`make planted`). The seed is one that shows it:
//! `cargo run --release --features planted-faults -- sim --plant NAME --nodes N --faults KINDS --seed SEED --seeds 1`.
//!
//! | fault | nodes | kinds | caught by | seed |
//! |---|---|---|---|---|
//! | `NoHoldBack` | 3 | `all` | causal | 1 |
//! | `AckBeforeSync` | 1 | `crash,disk` | lost | 1 |
//! | `SameIncarnation` | 1 | `crash,disk` | twice | 3 |
//! | `StaleTerm` | 2 | `crash,sleep` | term | 1 |
//! | `NoDuplicateCheck` | 2 | `reset,client` | twice | 3 |
//! | `ForgottenTail` | 3 | `cut,crash` | equal | 5 |
//! | `GreatestStamp` | 2 | `cut,reset,client` | causal | 107 |
//! | `FirstStampOnly` | 2 | `cut,reset,client` | twice | 7 |
//! | `DuplicateAckedAtOnce` | 2 | `client` | own words | 3 |
//! | `AccusesAfterSleep` | 2 | `sleep` | accuses | 5 |
//! | `UnsharedRetired` | 2 | `all` | lost | 5 |
//! | `AckOnAnyConnection` | 1 | `all` | own words | 2 |
//!
//! Those of the design `sequencer`, with `--design sequencer`:
//!
//! | fault | nodes | kinds | caught by | seed |
//! |---|---|---|---|---|
//! | `AckBeforeCommit` | 3 | `all` | majority | 1 |
//! | `AnyForwardTaken` | 5 | `all` | causal | 2 |
//! | `LatestForwardedFirst` | 3 | `all` | causal | 1 |
//! | `NoDuplicateCheck` | 3 | `cut,reset,client` | twice | 5 |
//! | `AckOnAnyConnection` | 1 | `all` | own words | 9 |
//! | `CutsByLength` | 3 | `cut,crash` | equal | 2 |
//!
//! `AnyForwardTaken` needs a leader that refuses and takes again while the rest of a batch is on its way: links keep their order, and
//! whatever changes passes all on again from the first message. Hence in two of three seeds a leader takes only a few messages before some
//! are committed.
//!
//! Those of the design `raft`, with `--design raft`; those of [`RaftNode`](crate::server::raft::RaftNode) alone are a table of
//! [its own](crate::server::raft):
//!
//! | fault | promise that it breaks | nodes | kinds | caught by | seed |
//! |---|---|---|---|---|---|
//! | `AckBeforeCommit` | acknowledged when committed | 3 | `all` | majority | 5 |
//! | `NoDuplicateCheck` | exactly once | 3 | `all` | twice | 5 |
//! | `VoteTwice` | election safety | 3 | `cut` | one leader | 67 |
//! | `VoteWithoutLogCheck` | leader completeness | 3 | `all` | state | 72 |
//! | `AppendsWithoutMatch` | log matching | 3 | `all` | state | 5 |
//! | `ReadUnconfirmed` | linearizable reads | 3 | `all` | stale | 95 |
//! | `ReadFromFollower` | linearizable reads | 3 | `all` | stale | 2 |
//!
//! Must not know: what is inside a server, except to find out whether it is time for the next fault.
//!
//! Reading order: [`plan`], [`agenda`], [`links`], [`heard`], [`machine`], [`person`], [`tracing`], [`world`], [`history`], [`checker`], [`coverage`],
//! [`shrink`].

mod agenda;

pub mod plan;

mod links;

mod heard;

mod machine;

mod person;

pub mod history;

pub mod checker;

pub mod trace;

mod tracing;

mod world;

pub mod coverage;

pub mod shrink;

pub mod command;

#[cfg(test)]
mod planted_tests;

use std::collections::BTreeMap;

pub use agenda::{Host, Micros, SECOND};
use checker::Violation;
use plan::Plan;
use trace::Detail;
use world::World;

use crate::config::Design;
use crate::server::election::ElectionKind;
#[cfg(any(test, feature = "planted-faults"))]
use crate::server::planted::Planted;
use crate::trace::TraceEvent;

/// Which kinds of faults may happen.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Servers crash and are started again.
    pub crash: bool,
    /// Servers sleep.
    pub sleep: bool,
    /// Servers lose their disks.
    pub wipe: bool,
    /// The network is cut.
    pub cut: bool,
    /// Connections break for no reason.
    pub reset: bool,
    /// Datagrams are lost and doubled.
    pub udp: bool,
    /// Syncs are slow.
    pub disk: bool,
    /// Clients crash and leave.
    pub client: bool,
    /// An operator takes voters out and lets them in again (design `raft`).
    pub member: bool,
}

impl Faults {
    /// All of them.
    pub const ALL: Self = Self::each(true);
    /// None of them.
    pub const NONE: Self = Self::each(false);

    const fn each(on: bool) -> Self {
        Self {
            crash: on,
            sleep: on,
            wipe: on,
            cut: on,
            reset: on,
            udp: on,
            disk: on,
            client: on,
            member: on,
        }
    }

    /// The names of the kinds, as [`parse`](Self::parse) takes them.
    pub const NAMES: &str = "crash,sleep,wipe,cut,reset,udp,disk,client,member";

    /// The kinds in `list`, separated by commas; `all` and `none` are understood. The error is the word that is not.
    pub fn parse(list: &str) -> Result<Self, String> {
        let mut faults = Self::NONE;
        for word in list.split(',').map(str::trim) {
            match word {
                "all" => faults = Self::ALL,
                "none" | "" => {}
                "crash" => faults.crash = true,
                "sleep" => faults.sleep = true,
                "wipe" => faults.wipe = true,
                "cut" => faults.cut = true,
                "reset" => faults.reset = true,
                "udp" => faults.udp = true,
                "disk" => faults.disk = true,
                "client" => faults.client = true,
                "member" => faults.member = true,
                _ => return Err(word.into()),
            }
        }
        Ok(faults)
    }
}

/// What a run is told besides its seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which design the servers run.
    pub design: Design,
    /// How many servers; drawn from the seed when absent.
    pub nodes: Option<usize>,
    /// What may go wrong.
    pub faults: Faults,
    /// After so many events nothing more goes wrong; 0 leaves it to the plan.
    pub steps: u64,
    /// How the servers find a leader.
    pub election: ElectionKind,
    /// Which faults of the plan happen, by number from 0; all of them when absent.
    pub keep: Option<Vec<usize>>,
    /// How long things go wrong at most; the plan says when absent.
    pub lasts: Option<Micros>,
    /// How much is written down.
    pub detail: Detail,
    /// Whether servers trace what they do.
    pub traced: bool,
    /// What is wrong with the servers on purpose.
    #[cfg(any(test, feature = "planted-faults"))]
    pub planted: Option<Planted>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            design: Design::Ring,
            nodes: None,
            faults: Faults::ALL,
            steps: 0,
            election: ElectionKind::default(),
            keep: None,
            lasts: None,
            detail: Detail::Off,
            traced: false,
            #[cfg(any(test, feature = "planted-faults"))]
            planted: None,
        }
    }
}

/// What must have happened in a batch of seeds with [`Faults::ALL`], or it [proves nothing](coverage).
pub const EXPECTED: [&str; 20] = [
    "crash",
    "lost tail",
    "wipe",
    "sleep",
    "split",
    "isolation",
    "one-way cut",
    "flapping link",
    "reset",
    "reset in the past",
    "connection timed out",
    "datagram lost",
    "datagram doubled",
    "slow sync",
    "client crash",
    "client quit",
    "client resumed",
    "message resent",
    "message repeated",
    "past read anew",
];

/// What must have happened besides in a design that makes snapshots.
pub const EXPECTED_SNAPSHOTS: [&str; 4] =
    ["snapshot", "snapshot recovered", "snapshot installed", "snapshot damaged"];

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// Whether its design makes snapshots.
    pub makes_snapshots: bool,
    /// The first promise that was found broken.
    pub violation: Option<Violation>,
    /// How often each fault did happen, and other things that a run should have seen.
    pub counters: BTreeMap<&'static str, u64>,
    /// Messages that were acknowledged.
    pub acked: u64,
    /// Events, and how much virtual time they took.
    pub events: u64,
    /// The virtual time at the end.
    pub lasted: Micros,
    /// What was written down.
    pub trace: Vec<String>,
    /// What the servers traced, in the order of virtual time.
    pub traced: Vec<TraceEvent>,
}

/// Runs the plan of `seed`, as far as `options` leave it.
pub fn run_seed(seed: u64, options: &Options) -> Report {
    run_plan(seed, Plan::draw(seed, options), options)
}

/// Runs `plan` with the luck of `seed`.
pub fn run_plan(seed: u64, plan: Plan, options: &Options) -> Report {
    #[cfg(any(test, feature = "planted-faults"))]
    crate::server::planted::plant(options.planted);
    World::new(seed, plan, options).run()
}
