//! `roundtable bench growth`: how cost grows with members, rooms, servers, the size of a text, and the past.
//!
//! ```text
//!   one thing grows:   1     10     100     1,000     5,000        everything else stays as it is
//!   a unit's cost:     ×?    ×?     ×?      ×?        ×?           against the row before
//! ```
//!
//! What is told is the cost of a *unit*: a delivery, a byte, a message and server, a message on disk. When it stays as it is, twice as much
//! costs twice as much. When it falls, what is paid once is shared by more. When it rises something grows faster than it should: such a
//! step is marked.
//!
//! # Axes
//!
//! | axis | what grows | the load, the same for all rows | what a unit costs |
//! |---|---|---|---|
//! | `members` | the members of a room | one of them talks, 64 messages under way | CPU of a delivery |
//! | `rooms` | rooms, with two members each | ten pairs, one message of each under way, in each of their rooms in turn: what leaves together does so in no row | CPU of a delivery, memory of a room |
//! | `servers` | servers | one room, 18 members spread over them, all talk, 8 messages under way each | on each server: CPU of a message; to each other server: messages and bytes of a message |
//! | `size` | the bytes of a text | a room of ten, all talk, 8 messages under way each | CPU of a byte that is delivered |
//! | `history` | the messages on disk, all of one room | none, then two talk | of a message on disk: the time in which a started server reads it, memory; CPU of a new message; a newcomer's wait for the last 50 |
//!
//! Each row has servers of its own and an empty log. Those who have several rooms are in all of them on one connection ([`load`](super::load)), so
//! that with more rooms nothing grows but the rooms. CPU time and memory come from `/proc`, of all servers together, so the figures hardly depend
//! on how fast the load side is. What passes between servers is counted in a run of its own, by the fronts of
//! [`torture`](crate::torture::fronts), since counting takes time too.
//!
//! Leaves out: machines. All servers and all clients share this one, so the *rate* of several servers says little; their cost does.
//!
//! Reading order: this module (what is measured), [`talk`], [`servers`], [`history`], [`table`] (how it is told), [`plot`].

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use crossbeam_channel::Receiver;
use serde::Serialize;

use super::Progress;
use super::load::Outcome;
use super::watch::{Halt, Watch};
use crate::config::Design;
use crate::error::StartError;

mod history;
pub mod plot;
mod servers;
pub mod table;
mod talk;

use table::{Column, Growth};

/// How long a text is where its size does not grow, in bytes.
const TEXT_BYTES: usize = 100;
/// The most messages on disk unless told otherwise.
pub const HISTORY_MAX: u64 = 1_000_000;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// The members of a room
    Members,
    /// Rooms
    Rooms,
    /// Servers
    Servers,
    /// The bytes of a text
    Size,
    /// The messages on disk
    History,
}

impl Axis {
    /// All of them, in the order of measuring.
    pub const ALL: [Self; 5] =
        [Self::Members, Self::Rooms, Self::Servers, Self::Size, Self::History];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Members => "members",
            Self::Rooms => "rooms",
            Self::Servers => "servers",
            Self::Size => "size",
            Self::History => "history",
        }
    }

    /// What grows, and what is measured: the heads of the table.
    fn shape(self) -> (&'static str, &'static [Column]) {
        match self {
            Self::Members => ("MEMBERS", &talk::MEMBERS),
            Self::Rooms => ("ROOMS", &talk::ROOMS),
            Self::Servers => ("SERVERS", &servers::COLUMNS),
            Self::Size => ("BYTES", &talk::SIZES),
            Self::History => ("MESSAGES", &history::COLUMNS),
        }
    }

    /// How much of it each row has.
    fn steps(self, settings: &GrowthSettings) -> Vec<u64> {
        let all: &[u64] = match self {
            Self::Members => &[1, 10, 100, 1000, 5000],
            Self::Rooms => &[1, 10, 100, 1000, 10_000],
            Self::Servers => &[1, 3, 5, 7, 9],
            Self::Size => &[16, 64, 256, 1024, 4096, 16_384, 65_536],
            Self::History => {
                let powers = (3..=18).map(|power| 10_u64.pow(power));
                let most = if settings.quick { 10_000 } else { settings.history_max };
                return powers.take_while(|step| *step <= most).collect();
            }
        };
        let quick = if self == Self::Servers { 2 } else { 3 };
        all[..if settings.quick { quick } else { all.len() }].to_vec()
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What `roundtable bench growth` was told.
#[derive(Clone, Debug)]
pub struct GrowthSettings {
    /// What the servers run.
    pub design: Design,
    /// What grows, in order.
    pub axes: Vec<Axis>,
    /// How long each row is measured, beside starting, warming up and waiting.
    pub lasts: Duration,
    /// The first rows of each axis alone.
    pub quick: bool,
    /// The most messages on disk.
    pub history_max: u64,
}

/// What is not for one row to tell.
#[derive(Clone, Copy, Debug, Default)]
struct Notes {
    lost: u64,
    twice: u64,
    unanswered: u64,
    others_cores: f64,
}

impl Notes {
    fn note(&mut self, outcome: &Outcome) {
        self.lost += outcome.lost;
        self.twice += outcome.twice;
        self.unanswered += outcome.unanswered;
        self.others_cores = self.others_cores.max(outcome.spent.others_cores.unwrap_or_default());
    }
}

/// Measures all axes, one after the other. `tell` hears how far it is. `None` when `stop` was disconnected meanwhile; then nothing is left
/// running.
pub fn run(
    settings: &GrowthSettings,
    stop: &Receiver<()>,
    tell: &mut dyn FnMut(&Progress),
) -> Result<Option<Growth>, StartError> {
    let (mut notes, mut tables) = (Notes::default(), Vec::new());
    for axis in &settings.axes {
        let mut watch = Watch::new(axis.name(), stop, tell);
        let measured = match axis {
            Axis::Members => talk::members(settings, &mut notes, &mut watch),
            Axis::Rooms => talk::rooms(settings, &mut notes, &mut watch),
            Axis::Servers => servers::servers(settings, &mut notes, &mut watch),
            Axis::Size => talk::sizes(settings, &mut notes, &mut watch),
            Axis::History => history::history(settings, &mut notes, &mut watch),
        };
        match measured {
            Ok(table) => tables.push(table),
            Err(Halt::Stopped) => return Ok(None),
            Err(Halt::Failed(StartError::Other(reason))) => {
                return Err(StartError::Other(format!("{axis}: {reason}")));
            }
            Err(Halt::Failed(error)) => return Err(error),
        }
    }
    let Notes { lost, twice, unanswered, others_cores } = notes;
    let design = settings.design.to_string();
    Ok(Some(Growth { design, tables, lost, twice, unanswered, others_cores }))
}

/// CPU of the servers for each of `count`, in microseconds.
fn cpu_us(outcome: &Outcome, count: f64) -> Option<f64> {
    outcome.spent.servers_cpu.filter(|_| count > 0.0).map(|cpu| cpu * 1e6 / count)
}

#[cfg(test)]
mod tests {
    use super::table::{Row, Table};
    use super::*;

    /// What the guide shows: `make growth` renews it.
    const TABLES: &str = include_str!("../guide/growth.txt");
    const PICTURE: &str = include_str!("../guide/growth.svg");

    #[test]
    fn the_guide_shows_all_rows_and_columns_of_each_axis() {
        let settings = GrowthSettings {
            design: Design::Ring,
            axes: Axis::ALL.to_vec(),
            lasts: Duration::from_secs(1),
            quick: false,
            history_max: HISTORY_MAX,
        };
        let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let mut lines = TABLES.lines().map(words);
        for axis in Axis::ALL {
            let row = |at| Row { at, figures: vec![None; axis.shape().1.len()] };
            let rows = axis.steps(&settings).into_iter().map(row).collect();
            let wanted = Table::new(axis, String::new(), rows).text();
            let mut wanted = wanted.lines().skip(2).map(words);
            let heads = wanted.next().unwrap();
            assert!(lines.any(|line| line == heads), "{heads:?}: run `make growth`");
            for step in wanted {
                let line = lines.next().unwrap();
                assert_eq!(line[0], step[0], "{axis}: run `make growth`");
            }
            assert!(PICTURE.contains(&format!("\n{}\n", plot::title_of(axis))), "{axis}");
        }
    }

    #[test]
    fn rows_are_fewer_when_it_is_quick_and_history_ends_where_it_is_told() {
        let all = Axis::ALL.to_vec();
        let (design, lasts) = (Design::Ring, Duration::from_secs(1));
        let mut settings =
            GrowthSettings { design, axes: all, lasts, quick: false, history_max: 99_999 };
        assert_eq!(Axis::Servers.steps(&settings), [1, 3, 5, 7, 9]);
        assert_eq!(Axis::History.steps(&settings), [1000, 10_000]);
        settings.history_max = HISTORY_MAX;
        assert_eq!(Axis::History.steps(&settings).len(), 4);
        settings.quick = true;
        assert_eq!(Axis::Servers.steps(&settings), [1, 3]);
        assert_eq!(Axis::Rooms.steps(&settings), [1, 10, 100]);
        assert_eq!(Axis::History.steps(&settings), [1000, 10_000]);
    }
}
