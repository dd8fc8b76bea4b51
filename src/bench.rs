//! `roundtable bench`: how fast servers are, at what price, and how far that is from what the machine can do.
//!
//! ```text
//!   simulated clients, one thread ── TCP ──▶ servers: processes of their own        what is measured
//!   the same clients ─────────────── TCP ──▶ a bare loop, or fdatasync alone        what is possible
//! ```
//!
//! **The load side is cheap on purpose**, because it shares the machine: one thread with epoll for all clients, frames that are
//! looked at and not parsed. Its own CPU time is shown; near a whole core, it is the load side that is measured. So is the CPU time of other
//! programs: with more than a few percent the figures are not worth much.
//!
//! # Workloads
//!
//! | workload | what happens | what is counted | what is timed |
//! |---|---|---|---|
//! | `fan-out` | a room of 100; 10 of them talk, each with at most 64 messages that not everybody was shown | showings | from saying to each showing |
//! | `latency` | a room of 10, 1,000 messages a second in turn, come what may | showings of what was due in the time | from the moment when the message was due to each showing |
//! | `writes` | clients in rooms of their own, each with so many unacknowledged messages | acknowledgements | from saying to the acknowledgement |
//! | `idle` | 10,000 clients join rooms of 50 and stay | clients | from connecting to being in the room |
//! | `failover` | somebody writes at every server; the leader is killed | rounds | from the kill to the next acknowledgement of a write that was said after it |
//!
//! Each begins with servers of its own and an empty log, warms up for a second at most, is measured, and waits for what is
//! outstanding. `fan-out`, `latency` and `idle` have one server unless told otherwise, `writes` and `failover` three.
//!
//! # Figures
//!
//! * **p50 … p99.9, max**: of the times, exact to three digits (`hdrhistogram`).
//! * **of bare**: the share of what the machine does. Fan-out and joining: the rate, divided by that of a bare loop which passes
//!   frames of the same size on. Latency: the bare loop's median, divided by the servers'. Writes: syncs a second, divided by what as many
//!   threads as there are servers reach with `fdatasync` alone in the servers' folder (which `TMPDIR` chooses); a sync serves
//!   many writes.
//! * **CPU**: of all servers, in cores; **CPU s/M**: seconds for a million of what is counted. From `/proc`, so for servers on this
//!   machine alone, and in steps of 10 ms.
//! * **resident**: memory of all servers at the end. With idle connections also what each added.
//! * **syncs/s**: `fdatasync` of all servers together, as they say in STATUS.
//! * **bytes/s**: what came to clients, framing included, TCP and IP not.
//! * **lost, twice**: each client knows the number that must come next from each sender. After failover all that was acknowledged is
//!   read at every server. Anything but zero is a failure, and the exit code says so.
//! * **load CPU, others**: of the load side and of everything else on the machine, in cores.
//!
//! Leaves out: networks. All is loopback unless the servers that `--connect` names are elsewhere; then the bare figures are still of this
//! machine. In their logs the rooms `bench-…` stay.
//!
//! `roundtable bench growth` measures with the same clients what a unit costs as one thing grows: [`growth`].
//!
//! Reading order: [`speech`] (bytes), [`poller`], [`links`] (connections), [`gather`] (they join), [`load`] (they talk), [`chat`],
//! [`idle`], [`failover`], [`bare`], [`gauge`] (what it costs), [`figures`], [`growth`].

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use crossbeam_channel::Receiver;
use serde::Serialize;

use crate::config::Design;
use crate::error::StartError;

mod bare;
mod chat;
mod failover;
pub mod figures;
mod gather;
mod gauge;
pub mod growth;
mod idle;
mod links;
mod load;
mod poller;
mod speech;
mod target;
mod watch;
mod words;

use figures::Figures;
use watch::{Halt, Watch};

/// The shortest text: it says who said it, and which message it is. In bytes.
pub const TEXT_BYTES_MIN: usize = speech::TEXT_BYTES_MIN;
/// As many clients may talk at once.
pub const SENDERS_MAX: usize = speech::SENDERS_MAX;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Many messages to many members
    FanOut,
    /// A steady rate: how long does a message take?
    Latency,
    /// Writes, acknowledged when they are safe
    Writes,
    /// Connections that only are there
    Idle,
    /// Killed leaders
    Failover,
}

impl Workload {
    /// All of them, in the order of measuring.
    pub const ALL: [Self; 5] =
        [Self::FanOut, Self::Latency, Self::Writes, Self::Idle, Self::Failover];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FanOut => "fan-out",
            Self::Latency => "latency",
            Self::Writes => "writes",
            Self::Idle => "idle",
            Self::Failover => "failover",
        }
    }

    /// How many servers it has unless told otherwise.
    pub fn nodes(self) -> usize {
        match self {
            Self::FanOut | Self::Latency | Self::Idle => 1,
            Self::Writes | Self::Failover => 3,
        }
    }

    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Self::FanOut | Self::Latency => "deliveries",
            Self::Writes => "writes",
            Self::Idle => "joins",
            Self::Failover => "rounds",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which servers are measured.
#[derive(Clone, Debug)]
pub enum Servers {
    /// Some that are started for each workload.
    Own {
        /// What they run.
        design: Design,
        /// How many; `None`: as the workload has it.
        nodes: Option<usize>,
    },
    /// Some that run.
    Given {
        /// Where: `HOST:PORT` each. Clients connect to them in turn.
        connect: Vec<String>,
        /// Their processes, where they are on this machine: for CPU time and memory.
        pids: Vec<u32>,
    },
}

/// Durable writes by so many clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writes {
    /// How many clients.
    pub clients: usize,
    /// How many unacknowledged messages each.
    pub window: u32,
}

/// What `roundtable bench` was told.
#[derive(Clone, Debug)]
pub struct BenchSettings {
    /// What is measured, in order.
    pub workloads: Vec<Workload>,
    /// Which servers.
    pub servers: Servers,
    /// How long each is measured, beside warming up and waiting.
    pub lasts: Duration,
    /// Fan-out and latency: how many rooms.
    pub rooms: usize,
    /// How many members each; `None`: 100, and 10 for latency.
    pub members: Option<usize>,
    /// How many of them talk, at most.
    pub senders: usize,
    /// Fan-out: how many unfinished messages each of these has.
    pub window: u32,
    /// Latency: how many messages a second in all.
    pub rate: u32,
    /// How long a text is, at least [`TEXT_BYTES_MIN`].
    pub text_bytes: usize,
    /// Durable writes: a row for each.
    pub writes: Vec<Writes>,
    /// Idle connections.
    pub connections: usize,
    /// Failover: how many leaders are killed.
    pub rounds: usize,
}

/// How far it is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is measured, in a word.
    pub what: &'static str,
    /// What is done for that.
    pub step: String,
    /// How much of the step is done, from 0 to 1.
    pub done: f64,
    /// More about it, perhaps.
    pub text: String,
}

/// Measures all workloads, one after the other. `tell` hears how far it is. `None` when `stop` was disconnected meanwhile; then
/// nothing is left running.
pub fn run(
    settings: &BenchSettings,
    stop: &Receiver<()>,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Option<Vec<Figures>>, StartError> {
    let mut all = Vec::new();
    for workload in &settings.workloads {
        match measure(*workload, settings, &mut Watch::new(workload.name(), stop, tell)) {
            Ok(rows) => all.extend(rows),
            Err(Halt::Stopped) => return Ok(None),
            Err(Halt::Failed(StartError::Other(reason))) => {
                return Err(StartError::Other(format!("{workload}: {reason}")));
            }
            Err(Halt::Failed(error)) => return Err(error),
        }
    }
    Ok(Some(all))
}

fn measure(
    workload: Workload,
    settings: &BenchSettings,
    watch: &mut Watch,
) -> Result<Vec<Figures>, Halt> {
    Ok(match workload {
        Workload::FanOut => vec![chat::fan_out(settings, watch)?],
        Workload::Latency => vec![chat::latency(settings, watch)?],
        Workload::Writes => chat::writes(settings, watch)?,
        Workload::Idle => vec![idle::idle(settings, watch)?],
        Workload::Failover => vec![failover::failover(settings, watch)?],
    })
}
