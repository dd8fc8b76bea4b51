//! What came of a workload, and how it is shown: two tables, how fast and at what price.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Workload;
use super::chat::Share;
use super::gauge::Spent;
use super::load::Outcome;
use super::target::Target;
use super::words::{aligned, bytes, duration, grouped, or_dash, percent};

/// The longest time that is told apart from longer ones: five minutes, in nanoseconds.
const TIME_MAX_NS: u64 = 300_000_000_000;
/// Times are exact to so many digits.
const DIGITS: u8 = 3;
/// The first columns of the tables are names.
const NAMES: usize = 2;
/// More CPU than this spent by others, in cores, and the figures cannot be trusted.
const OTHERS_CORES_MAX: f64 = 0.15;
/// A message that is said so much after its time is worth a word, in microseconds.
const LATE_MAX_US: f64 = 5000.0;
/// With more CPU than this, in cores, the load side may be what limits.
const LOAD_CORES_MAX: f64 = 0.9;

/// A histogram of nanoseconds.
pub(super) fn new_histogram() -> Histogram<u64> {
    // Only bounds that make no sense are refused, and these are constants.
    Histogram::new_with_bounds(1, TIME_MAX_NS, DIGITS).expect("the bounds make sense")
}

/// How long something takes, in microseconds. All zero when nothing was timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// Half of the times are at most this.
    pub p50_us: f64,
    /// 90 of 100.
    pub p90_us: f64,
    /// 99 of 100.
    pub p99_us: f64,
    /// 999 of 1,000.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Times {
    /// What `histogram`, of nanoseconds, says.
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1000.0,
        }
    }

    fn cells(&self) -> Vec<String> {
        [self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.max_us].map(duration).into()
    }
}

/// A sentence about elections that nobody needed, where there is more than one server.
fn calm(spent: &Spent, servers: usize) -> Option<String> {
    let (changes, late) = spent.leader_changes.zip(spent.heartbeat_late_ms)?;
    let leaders = match changes {
        0 => "no leader was replaced".into(),
        changes => format!("{changes} elections for nothing"),
    };
    (servers > 1).then(|| format!("{leaders}; heartbeats were {late} ms late at most"))
}

/// What the machine does at all, measured in the same run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bare {
    /// What was done.
    pub what: String,
    /// How many a second.
    pub per_second: f64,
    /// How long each took.
    pub times: Times,
    /// CPU seconds of the bare loop for a million.
    pub cpu_s_per_million: Option<f64>,
}

impl Bare {
    /// What a relay did.
    pub(super) fn of_outcome(what: &str, outcome: &Outcome) -> Self {
        Self {
            what: what.into(),
            per_second: outcome.count as f64 / outcome.seconds,
            times: Times::of(&outcome.times),
            cpu_s_per_million: per_million(outcome.spent.servers_cpu, outcome.count),
        }
    }
}

/// What came of one workload. What could not be measured is absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Which workload.
    pub workload: Workload,
    /// How many clients did what.
    pub shape: String,
    /// What the servers ran.
    pub design: String,
    /// How many servers.
    pub servers: usize,
    /// How long was measured.
    pub seconds: f64,
    /// What is counted, such as `deliveries`.
    pub unit: &'static str,
    /// How many were counted.
    pub count: u64,
    /// How many a second; absent where that says nothing.
    pub per_second: Option<f64>,
    /// How long each took.
    pub times: Times,
    /// The machine's own limit.
    pub bare: Option<Bare>,
    /// How much of that limit was reached.
    pub share: Option<f64>,
    /// Bytes that came to clients a second.
    pub bytes_per_second: Option<f64>,
    /// CPU seconds of all servers for a million of what is counted.
    pub cpu_s_per_million: Option<f64>,
    /// CPU of all servers, in cores.
    pub servers_cores: Option<f64>,
    /// Memory of all servers at the end, in KiB.
    pub resident_kib: Option<u64>,
    /// How much of it each connection added, in KiB (idle connections).
    pub resident_kib_per_connection: Option<f64>,
    /// How often the disks were synced a second, all servers together.
    pub syncs_per_second: Option<f64>,
    /// How often the leader changed while nobody was killed: elections for nothing.
    pub leader_changes: Option<u64>,
    /// How late a heartbeat of a server was at worst, in milliseconds.
    pub heartbeat_late_ms: Option<u64>,
    /// Messages that somebody was never shown.
    pub lost: u64,
    /// Messages that somebody was shown again.
    pub twice: u64,
    /// Messages that were never acknowledged.
    pub unanswered: u64,
    /// CPU of the load side, in cores.
    pub load_cores: Option<f64>,
    /// How long after its time a message was said at worst, in microseconds (latency).
    pub late_max_us: f64,
    /// CPU of everything else on the machine, in cores.
    pub others_cores: Option<f64>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

impl Figures {
    /// Nothing is measured yet.
    pub(super) fn new(workload: Workload, shape: String, target: &Target) -> Self {
        Self {
            workload,
            shape,
            design: target.design.clone(),
            servers: target.addresses.len(),
            seconds: 0.0,
            unit: workload.unit(),
            count: 0,
            per_second: None,
            times: Times::default(),
            bare: None,
            share: None,
            bytes_per_second: None,
            cpu_s_per_million: None,
            servers_cores: None,
            resident_kib: None,
            resident_kib_per_connection: None,
            syncs_per_second: None,
            leader_changes: None,
            heartbeat_late_ms: None,
            lost: 0,
            twice: 0,
            unanswered: 0,
            load_cores: None,
            late_max_us: 0.0,
            others_cores: None,
            notes: Vec::new(),
        }
    }

    /// What people who talked measured.
    pub(super) fn of_outcome(
        workload: Workload,
        shape: String,
        target: &Target,
        outcome: &Outcome,
    ) -> Self {
        Self {
            seconds: outcome.seconds,
            count: outcome.count,
            per_second: Some(outcome.count as f64 / outcome.seconds),
            times: Times::of(&outcome.times),
            bytes_per_second: Some(outcome.bytes as f64 / outcome.seconds),
            cpu_s_per_million: per_million(outcome.spent.servers_cpu, outcome.count),
            servers_cores: outcome.spent.servers_cores,
            resident_kib: outcome.resident_kib,
            syncs_per_second: outcome.spent.syncs_per_second,
            leader_changes: outcome.spent.leader_changes,
            heartbeat_late_ms: outcome.spent.heartbeat_late_ms,
            notes: calm(&outcome.spent, target.addresses.len()).into_iter().collect(),
            lost: outcome.lost,
            twice: outcome.twice,
            unanswered: outcome.unanswered,
            load_cores: Some(outcome.own_cores),
            late_max_us: outcome.late_max as f64 / 1000.0,
            others_cores: outcome.spent.others_cores,
            ..Self::new(workload, shape, target)
        }
    }

    /// What the machine does at all, and what of that is the limit.
    pub(super) fn set_bare(&mut self, bare: Bare, limit: Share) {
        self.share = match limit {
            Share::OfRate => self.per_second.map(|rate| ratio(rate, bare.per_second)),
            Share::OfTime => Some(ratio(bare.times.p50_us, self.times.p50_us)),
        };
        self.bare = Some(bare);
    }

    /// Whether every promise was kept.
    pub fn is_kept(&self) -> bool {
        (self.lost, self.twice, self.unanswered) == (0, 0, 0)
    }

    /// What a reader has to know before believing the figures.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(load) = self.load_cores.filter(|cores| *cores > LOAD_CORES_MAX) {
            let load = percent(load);
            warnings
                .push(format!("the load side used {load} of a core: the servers may be faster"));
        }
        if self.late_max_us > LATE_MAX_US {
            let late = duration(self.late_max_us);
            warnings
                .push(format!("the load side said a message {late} late, which its times contain"));
        }
        if self.unanswered > 0 {
            warnings.push(format!("{} messages were never acknowledged", self.unanswered));
        }
        warnings
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn per_million(cpu: Option<f64>, count: u64) -> Option<f64> {
    cpu.filter(|_| count > 0).map(|cpu| cpu * 1e6 / count as f64)
}

/// The figures as tables for people.
pub fn table(all: &[Figures]) -> String {
    let mut speed = vec![
        ["WORKLOAD", "SHAPE", "PER SECOND", "P50", "P90", "P99", "P99.9", "MAX", "OF BARE"]
            .map(String::from)
            .to_vec(),
    ];
    let mut price = vec![
        [
            "WORKLOAD", "SHAPE", "SERVERS", "CPU", "CPU S/M", "RESIDENT", "SYNCS/S", "BYTES/S",
            "LOST", "TWICE", "LOAD CPU", "OTHERS",
        ]
        .map(String::from)
        .to_vec(),
    ];
    for figures in all {
        speed.push(speed_cells(figures));
        speed.extend(figures.bare.as_ref().map(|bare| bare_cells(bare, figures.workload)));
        price.push(price_cells(figures));
    }
    let mut text = format!("{}\n{}", aligned(&speed, NAMES), aligned(&price, NAMES));
    for figures in all {
        for note in figures.notes.iter().chain(&figures.warnings()) {
            let _ = writeln!(text, "{} {}: {note}", figures.workload, figures.shape);
        }
    }
    let others = all.iter().filter_map(|figures| figures.others_cores).fold(0.0, f64::max);
    if others > OTHERS_CORES_MAX {
        let others = percent(others);
        let _ = writeln!(
            text,
            "Other programs used up to {others} of a core meanwhile: measure again."
        );
    }
    text
}

fn speed_cells(figures: &Figures) -> Vec<String> {
    let rate = figures.per_second.map(|rate| format!("{} {}", grouped(rate), figures.unit));
    let mut cells = vec![figures.workload.to_string(), figures.shape.clone(), or_dash(rate)];
    cells.extend(figures.times.cells());
    cells.push(or_dash(figures.share.map(percent)));
    cells
}

fn bare_cells(bare: &Bare, workload: Workload) -> Vec<String> {
    let unit = if workload == Workload::Writes { "syncs" } else { workload.unit() };
    let rate = format!("{} {unit}", grouped(bare.per_second));
    let mut cells = vec![String::new(), bare.what.clone(), rate];
    cells.extend(bare.times.cells());
    cells.push(String::new());
    cells
}

fn price_cells(figures: &Figures) -> Vec<String> {
    vec![
        figures.workload.to_string(),
        figures.shape.clone(),
        format!("{} {}", figures.servers, figures.design),
        or_dash(figures.servers_cores.map(percent)),
        or_dash(figures.cpu_s_per_million.map(|cpu| format!("{cpu:.3}"))),
        or_dash(figures.resident_kib.map(|kib| bytes(kib as f64 * 1024.0))),
        or_dash(figures.syncs_per_second.map(grouped)),
        or_dash(figures.bytes_per_second.map(bytes)),
        figures.lost.to_string(),
        figures.twice.to_string(),
        or_dash(figures.load_cores.map(percent)),
        or_dash(figures.others_cores.map(percent)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(workload: Workload) -> Figures {
        let target = Target::nowhere();
        let bare = Bare {
            what: "bare loop".into(),
            per_second: 2_000_000.0,
            times: Times { p50_us: 60.0, ..Times::default() },
            cpu_s_per_million: None,
        };
        let mut figures = Figures {
            per_second: Some(1_000_000.0),
            times: Times { p50_us: 90.0, max_us: 1_234_567.0, ..Times::default() },
            ..Figures::new(workload, "1 × 100".into(), &target)
        };
        figures.set_bare(bare, Share::OfRate);
        figures
    }

    #[test]
    fn times_are_those_of_the_histogram() {
        let mut histogram = new_histogram();
        (1..=1000).for_each(|micros| histogram.saturating_record(micros * 1000));
        let times = Times::of(&histogram);
        let close = |time: f64, wanted: f64| (time / wanted - 1.0).abs() < 0.01;
        assert!(close(times.p50_us, 500.0) && close(times.p90_us, 900.0), "{times:?}");
        assert!(close(times.p99_us, 990.0) && close(times.p999_us, 999.0), "{times:?}");
        assert!(close(times.max_us, 1000.0), "{times:?}");
        histogram.saturating_record(u64::MAX);
        assert!(close(Times::of(&histogram).max_us, TIME_MAX_NS as f64 / 1000.0));
        assert_eq!(Times::of(&new_histogram()), Times::default());
    }

    #[test]
    fn the_share_is_that_of_the_rate_or_of_the_time() {
        let mut figures = figures(Workload::FanOut);
        assert_eq!(figures.share, Some(0.5));
        let bare = figures.bare.clone().unwrap();
        figures.set_bare(bare, Share::OfTime);
        assert_eq!(figures.share.map(percent).as_deref(), Some("67 %"));
    }

    #[test]
    fn the_columns_of_both_tables_are_aligned() {
        let all = [figures(Workload::FanOut), figures(Workload::Writes)];
        let text = table(&all);
        let (speed, price) = text.split_once("\n\n").unwrap();
        for table in [speed, price] {
            let lines: Vec<Vec<char>> = table.lines().map(|line| line.chars().collect()).collect();
            let shape = lines[0].iter().collect::<String>().find("SHAPE").unwrap();
            assert!(
                lines.iter().all(|line| line[shape] != ' ' && line[shape - 1] == ' '),
                "{text}"
            );
        }
        assert!(
            speed.contains("1,000,000 deliveries") && speed.contains("2,000,000 syncs"),
            "{text}"
        );
        assert!(speed.contains("50 %") && speed.contains("1.23 s"), "{text}");
    }

    #[test]
    fn what_makes_the_figures_doubtful_is_said() {
        let mut figures = figures(Workload::FanOut);
        assert_eq!(figures.warnings(), Vec::<String>::new());
        assert!(figures.is_kept());
        figures.late_max_us = 7500.0;
        (figures.others_cores, figures.load_cores, figures.unanswered) = (Some(0.3), Some(0.95), 2);
        assert!(!figures.is_kept());
        let text = table(&[figures]);
        for wanted in
            ["used up to 30 % of a core", "used 95 % of a core", "7.50 ms late", "2 messages were"]
        {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
    }
}
