//! What is measured of a design, and how it is shown as a table.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::config::Design;

/// Times, as the one below which half of them are, and 99 of 100. In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The median.
    pub p50_ms: f64,
    /// The 99th of 100.
    pub p99_ms: f64,
}

impl Spread {
    /// The spread of `times`; zeros for none.
    pub fn of(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |of_100: usize| {
            let place = sorted.len() * of_100 / 100;
            let time = sorted.get(place.min(sorted.len().saturating_sub(1)));
            time.map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        Self { p50_ms: at(50), p99_ms: at(99) }
    }
}

/// What came of all designs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// How many servers.
    pub servers: u8,
    /// How many clients.
    pub clients: u16,
    /// The designs, in the order in which they were named.
    pub designs: Vec<Figures>,
}

/// What came of one design.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Which.
    pub design: String,
    /// Acknowledged messages a second under full load.
    pub throughput: f64,
    /// From saying to the acknowledgement in quiet talk.
    pub ack: Spread,
    /// The same under full load.
    pub loaded_ack: Spread,
    /// From saying to showing, over all members, in quiet talk.
    pub delivery: Spread,
    /// Messages between servers for each chat message in quiet talk, heartbeats included.
    pub server_messages: f64,
    /// Bytes between servers for each.
    pub server_bytes: f64,
    /// Syncs of all disks together for each.
    pub syncs: f64,
    /// The same under full load.
    pub loaded_syncs: f64,
    /// The longest wait for an acknowledgement when the leader is killed, in milliseconds.
    pub silence_ms: u64,
    /// From its start to the moment when no copy lacks anything, in milliseconds. Nobody talks meanwhile.
    pub return_ms: u64,
    /// Acknowledgements by the leader while it is cut off, for 4 s.
    pub cut_off_acks: u64,
    /// Acknowledgements by the others meanwhile.
    pub majority_acks: u64,
    /// From the healing to the moment when no copy lacks anything, in milliseconds. Nobody talks meanwhile.
    pub heal_ms: u64,
    /// Acknowledged messages that a member was never shown.
    pub lost: u64,
    /// Messages that a member was shown twice.
    pub twice: u64,
}

impl Figures {
    /// Nothing is measured yet.
    pub fn new(design: Design) -> Self {
        let (ack, none) = (Spread::default(), 0.0);
        Self {
            design: design.to_string(),
            throughput: none,
            ack,
            loaded_ack: ack,
            delivery: ack,
            server_messages: none,
            server_bytes: none,
            syncs: none,
            loaded_syncs: none,
            silence_ms: 0,
            return_ms: 0,
            cut_off_acks: 0,
            majority_acks: 0,
            heal_ms: 0,
            lost: 0,
            twice: 0,
        }
    }
}

/// A row of the table: what is measured, and each design's figure as text.
type Row = (&'static str, fn(&Figures) -> String);

const ROWS: [Row; 15] = [
    ("full load: acknowledged a second", |f| format!("{:.0}", f.throughput)),
    ("… ACK, p50 / p99", |f| spread(f.loaded_ack)),
    ("… syncs a message", |f| format!("{:.3}", f.loaded_syncs)),
    ("quiet talk: ACK, p50 / p99", |f| spread(f.ack)),
    ("… delivery, p50 / p99", |f| spread(f.delivery)),
    ("… server messages a message", |f| format!("{:.1}", f.server_messages)),
    ("… server bytes a message", |f| format!("{:.0}", f.server_bytes)),
    ("… syncs a message", |f| format!("{:.2}", f.syncs)),
    ("leader killed: silence", |f| format!("{} ms", f.silence_ms)),
    ("… started again: equal after", |f| format!("{} ms", f.return_ms)),
    ("leader cut off: it acknowledges", |f| f.cut_off_acks.to_string()),
    ("… the others acknowledge", |f| f.majority_acks.to_string()),
    ("… healed: equal after", |f| format!("{} ms", f.heal_ms)),
    ("acknowledged and lost", |f| f.lost.to_string()),
    ("shown twice", |f| f.twice.to_string()),
];

fn spread(spread: Spread) -> String {
    format!("{:.1} / {:.1} ms", spread.p50_ms, spread.p99_ms)
}

/// The figures as a table for people.
pub fn table(all: &[Figures]) -> String {
    let mut text = format!("{:<33}", "");
    for figures in all {
        let _ = write!(text, "{:>18}", figures.design);
    }
    text.push('\n');
    for (name, value) in ROWS {
        let _ = write!(text, "{name:<33}");
        for figures in all {
            let _ = write!(text, "{:>18}", value(figures));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_and_the_99th() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(Spread::of(&times), Spread { p50_ms: 101.0, p99_ms: 199.0 });
        assert_eq!(Spread::of(&times[..1]), Spread { p50_ms: 200.0, p99_ms: 200.0 });
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    #[test]
    fn the_columns_of_a_table_are_aligned() {
        let all = [Figures::new(Design::Ring), Figures::new(Design::Raft)];
        let text = table(&all);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }
}
