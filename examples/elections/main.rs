//! Elections raced: Hirschberg and Sinclair, the Bully and Raft among 3 to 64 servers, in messages and in delays.
//!
//! `cargo run --release --example elections` prints the table; with `write` behind it (`make elections`) it renews the table and
//! the plot of the guide. Everything is drawn from fixed seeds, so that both are the same each time. What the theory says for sure
//! makes the program panic when it is not so.

mod plot;
mod race;

use std::fmt::Write as _;

use race::{Outcome, Ring};

const SIZES: [usize; 10] = [3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
/// Rings with ids anywhere, and Raft's draws of timeouts, for each figure that depends on luck.
const DRAWS: u64 = 25;
/// Election timeouts of Raft, in delays.
const TIMEOUTS: [u32; 3] = [10, 100, 1000];

/// What was measured among so many servers.
pub(crate) struct Row {
    pub(crate) servers: usize,
    /// Hirschberg and Sinclair: the highest stands alone, ids in order; all stand, ids in order; all stand, ids spread out.
    pub(crate) ring: [Outcome; 3],
    /// All stand, ids anywhere: the middle one by messages.
    pub(crate) ring_anywhere: Outcome,
    /// The highest stands alone; the lowest does.
    pub(crate) bully: [Outcome; 2],
    /// One stands; all stand at once, with a timeout of 1000 delays: the middle one by delays.
    pub(crate) raft: [Outcome; 2],
    /// How long nobody leads when timeouts fire as they were drawn: the middle and the longest, for each of [`TIMEOUTS`].
    pub(crate) waits: [(u64, u64); 3],
}

fn main() {
    let rows: Vec<Row> = SIZES.into_iter().map(measure).collect();
    let table = table(&rows);
    print!("{table}");
    if std::env::args().nth(1).is_some_and(|word| word == "write") {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide");
        let picture = plot::svg(&rows).expect("a plot of numbers");
        for (name, text) in [("elections.txt", &table), ("elections.svg", &picture)] {
            let path = format!("{folder}/{name}");
            std::fs::write(&path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    }
}

fn measure(n: usize) -> Row {
    let middle = |mut outcomes: Vec<Outcome>, key: fn(&Outcome) -> u64| {
        outcomes.sort_by_key(key);
        outcomes[outcomes.len() / 2]
    };
    let by_messages = |outcome: &Outcome| outcome.messages;
    let by_delays = |outcome: &Outcome| outcome.delays;
    let anywhere = (0..DRAWS).map(|seed| race::hirschberg_sinclair(n, &Ring::Drawn(seed), false));
    let row = Row {
        servers: n,
        ring: [(Ring::InOrder, true), (Ring::InOrder, false), (Ring::Spread, false)]
            .map(|(ring, alone)| race::hirschberg_sinclair(n, &ring, alone)),
        ring_anywhere: middle(anywhere.collect(), by_messages),
        bully: [n - 1, 0].map(|starter| race::bully(n, starter)),
        raft: [
            race::raft(n, 1000, Some(1), 0),
            middle((0..DRAWS).map(|seed| race::raft(n, 1000, Some(n), seed)).collect(), by_delays),
        ],
        waits: TIMEOUTS.map(|timeout| {
            let mut waits: Vec<u64> =
                (0..DRAWS).map(|seed| race::raft(n, timeout, None, seed).delays).collect();
            waits.sort_unstable();
            (waits[waits.len() / 2], waits[waits.len() - 1])
        }),
    };
    check(&row);
    row
}

/// The bound of Hirschberg and Sinclair on messages, with n for the announcement.
pub(crate) fn ring_bound(n: u64) -> u64 {
    8 * n * (1 + u64::from(n.next_power_of_two().trailing_zeros())) + n
}

/// What the theory says for sure.
fn check(row: &Row) {
    let n = row.servers as u64;
    let phases = n.next_power_of_two();
    for outcome in row.ring.iter().chain([&row.ring_anywhere]) {
        assert!(outcome.messages <= ring_bound(n), "{n}: {outcome:?}");
        assert!(outcome.delays <= 2 * (phases - 1) + 2 * n, "phases of 2 * 2^k, then round twice");
    }
    assert_eq!(row.bully[0], Outcome { messages: n - 1, delays: 1 });
    assert_eq!(row.bully[1], Outcome { messages: n * n - 1, delays: 2 });
    assert_eq!(row.raft[0], Outcome { messages: 5 * (n - 1), delays: 5 });
    // All ask all for a pre-vote; of two that ask each other the higher id goes on. The highest asks for votes, and announces.
    assert_eq!(row.raft[1], Outcome { messages: (2 * n + 3) * (n - 1), delays: 5 });
}

/// Two tables: what an election costs, and how long Raft's luck takes.
fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "messages  Hirschberg and Sinclair                       Bully            Raft
           best  in order  anywhere  spread   bound     best   worst     one    all
",
    );
    for row in rows {
        let [best, in_order, spread] = row.ring.map(|outcome| outcome.messages);
        let (anywhere, bound) = (row.ring_anywhere.messages, ring_bound(row.servers as u64));
        let [one, all] = row.raft.map(|outcome| outcome.messages);
        let [low, high] = row.bully.map(|outcome| outcome.messages);
        let n = row.servers;
        writeln!(
            text,
            "{n:7} {best:7} {in_order:9} {anywhere:9} {spread:7} {bound:7} {low:8} {high:7} {one:7} {all:6}"
        )
        .expect("a string");
    }
    text += "
delays    Hirschberg and Sinclair                       Bully            Raft
           best  in order  anywhere  spread   bound     best   worst     one    all
";
    for row in rows {
        let [best, in_order, spread] = row.ring.map(|outcome| outcome.delays);
        let (anywhere, n) = (row.ring_anywhere.delays, row.servers as u64);
        let bound = 2 * (n.next_power_of_two() - 1) + 2 * n;
        let [one, all] = row.raft.map(|outcome| outcome.delays);
        let [low, high] = row.bully.map(|outcome| outcome.delays);
        writeln!(
            text,
            "{n:7} {best:7} {in_order:9} {anywhere:9} {spread:7} {bound:7} {low:8} {high:7} {one:7} {all:6}"
        )
        .expect("a string");
    }
    let timeouts = TIMEOUTS.map(|timeout| format!("{:>19}", format!("timeout {timeout}"))).concat();
    writeln!(text, "\n{:25}{timeouts}", "delays without a leader").expect("a string");
    let columns = "    middle  longest".repeat(TIMEOUTS.len());
    writeln!(text, "{:25}{columns}", "of Raft, from the silence").expect("a string");
    for row in rows {
        let [short, usual, long] =
            row.waits.map(|(middle, longest)| format!("{middle:10} {longest:8}"));
        writeln!(text, "{:7}{:18}{short}{usual}{long}", row.servers, "").expect("a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../src/guide/elections.txt");
    const PICTURE: &str = include_str!("../../src/guide/elections.svg");

    /// The lines of the guide's table for so many servers, without spaces that only align.
    fn lines_of(table: &str, n: usize) -> Vec<Vec<String>> {
        let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
        let lines = table.lines().map(words);
        lines.filter(|words| words.first().is_some_and(|word| *word == n.to_string())).collect()
    }

    /// Large ones take longer without optimisation: `make elections` renews all.
    #[test]
    fn the_table_of_the_guide_is_what_the_program_measures() {
        for n in &SIZES[..5] {
            let now = table(&[measure(*n)]);
            assert_eq!(lines_of(TABLE, *n), lines_of(&now, *n), "run `make elections`");
        }
    }

    #[test]
    fn the_plot_has_every_size_of_the_table() {
        for n in SIZES {
            assert_eq!(lines_of(TABLE, n).len(), 3, "{n}");
            assert!(PICTURE.contains(&format!("\n{n}\n")), "{n} stands on an axis");
        }
        assert!(PICTURE.starts_with("<svg") && !PICTURE.contains("\n\n"), "one block of Markdown");
    }
}
