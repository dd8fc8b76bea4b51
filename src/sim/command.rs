//! `roundtable sim`: many seeds, and what to know about the first one that fails.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crossbeam_channel::{bounded, unbounded};

use super::agenda::{MS, SECOND};
use super::checker::Violation;
use super::coverage::{BUSY, Coverage};
use super::shrink::{Shrunk, run_guarded, shrink};
use super::trace::Detail;
use super::{Faults, Options, Report, run_seed};
use crate::cli::Outcome;
use crate::cli::output::{note, note_down, say};
use crate::config::Design;
use crate::error::StartError;
use crate::server::election::ElectionKind;
use crate::threads::Threads;

/// Lines of the trace that are printed for a failing seed.
const LAST_LINES: usize = 40;
/// Characters of a line that are printed.
const LINE_CHARS_MAX: usize = 400;
/// From so many seeds on every fault has to have happened.
const SEEDS_COVER: u64 = 100;

/// The options of `roundtable sim`.
#[derive(clap::Args, Clone, Debug)]
pub struct SimArgs {
    /// The design
    #[arg(long, default_value = "ring")]
    pub design: String,
    /// How the servers find a leader: hs or bully [default: the design's]
    #[arg(long, value_name = "NAME", value_parser = parse_election)]
    pub election: Option<ElectionKind>,
    /// How many servers [default: drawn from the seed, 1 to 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: Option<u8>,
    /// How many seeds to run
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub seeds: u64,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// What may go wrong: all, none, or some of crash,sleep,wipe,cut,reset,udp,disk,client,member
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub faults: String,
    /// After so many events nothing more goes wrong; 0 leaves it to the seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub steps: u64,
    /// Only these faults of the plan, by number from 0, or none
    #[arg(long, value_name = "LIST")]
    pub keep: Option<String>,
    /// Things go wrong for so many milliseconds of virtual time at most
    #[arg(long, value_name = "N")]
    pub lasts_ms: Option<u64>,
    /// A fault in the servers, on purpose: see the documentation of `server::planted`
    #[cfg(feature = "planted-faults")]
    #[arg(long, value_name = "NAME")]
    pub plant: Option<String>,
    /// Print every event of the first seed; with FILE write what its servers trace, for `roundtable trace`
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub trace: Option<Option<PathBuf>>,
}

/// Runs the seeds; [`Outcome::Failed`] when a promise was broken, or when the run proves nothing.
pub fn run(args: &SimArgs) -> Result<Outcome, StartError> {
    let options = options(args)?;
    match &args.trace {
        None => {}
        Some(None) => return Ok(trace(args.seed, options)),
        Some(Some(file)) => return write_trace(file, args.seed, options),
    }
    let totals = run_all(args, &options)?;
    totals.print();
    if let Some(seed) = totals.failed.first() {
        explain(*seed, args, &options);
    }
    let complaint = complaint(&totals.coverage, &options);
    if let Some(complaint) = &complaint {
        say!("{complaint}");
    }
    Ok(outcome(totals.failed.is_empty() && complaint.is_none()))
}

fn options(args: &SimArgs) -> Result<Options, StartError> {
    let faults = Faults::parse(&args.faults).map_err(|word| {
        StartError::Usage(format!("--faults knows {}, all and none, not {word:?}", Faults::NAMES))
    })?;
    let keep = args.keep.as_deref().map(parse_keep).transpose().map_err(|word| {
        StartError::Usage(format!(
            "--keep takes numbers separated by commas, or none, not {word:?}"
        ))
    })?;
    let design: Design = args.design.parse()?;
    if design == Design::Raft && args.election.is_some() {
        let reason = "the design raft elects its leader by votes of its own; leave --election out";
        return Err(StartError::Usage(reason.into()));
    }
    Ok(Options {
        design,
        election: args.election.unwrap_or(design.election()),
        nodes: args.nodes.map(usize::from),
        faults,
        steps: args.steps,
        keep,
        lasts: args.lasts_ms.map(|lasts| lasts.saturating_mul(MS)),
        #[cfg(feature = "planted-faults")]
        planted: planted(args)?,
        ..Options::default()
    })
}

/// The numbers in `list`. The error is the word that is none.
fn parse_keep(list: &str) -> Result<Vec<usize>, String> {
    if list == "none" {
        return Ok(Vec::new());
    }
    list.split(',').map(|word| word.trim().parse().map_err(|_| word.to_string())).collect()
}

/// Prints every event of `seed`.
fn trace(seed: u64, options: Options) -> Outcome {
    let report = run_seed(seed, &Options { detail: Detail::Full, ..options });
    let mut out = std::io::stdout().lock();
    for line in &report.trace {
        // Whoever pipes it into `head` has seen enough.
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    outcome(report.violation.is_none())
}

/// Writes to `file` what the servers of `seed` trace.
fn write_trace(file: &Path, seed: u64, options: Options) -> Result<Outcome, StartError> {
    let report = run_seed(seed, &Options { traced: true, ..options });
    let lines: String = report.traced.iter().map(|event| event.to_line() + "\n").collect();
    std::fs::write(file, lines).map_err(|source| StartError::Data {
        path: file.into(),
        problem: "cannot write the trace".into(),
        source: Some(source),
    })?;
    let (count, seconds) = (report.traced.len(), report.lasted as f64 / SECOND as f64);
    say!("{count} events of {seconds:.1} s of virtual time in {}", file.display());
    if let Some(violation) = &report.violation {
        say!("seed {seed} breaks the promise {:?}: {}", violation.invariant, violation.detail);
    }
    Ok(outcome(report.violation.is_none()))
}

/// Why a run with every fault proves nothing, if so. A few seeds, or a part of the faults, need not prove anything, and
/// a server alone cannot be cut off.
fn complaint(coverage: &Coverage, options: &Options) -> Option<String> {
    let everything = options.faults == Faults::ALL
        && options.steps == 0
        && options.keep.is_none()
        && options.lasts.is_none()
        && options.nodes != Some(1);
    coverage.complaint().filter(|_| everything && coverage.seeds >= SEEDS_COVER)
}

fn parse_election(name: &str) -> Result<ElectionKind, String> {
    ElectionKind::named(name).ok_or_else(|| "there are hs and bully".to_string())
}

/// What is planted by `--plant`.
#[cfg(feature = "planted-faults")]
fn planted(args: &SimArgs) -> Result<Option<crate::server::planted::Planted>, StartError> {
    use crate::server::planted::Planted;
    let Some(name) = &args.plant else { return Ok(None) };
    let all = [&Planted::ALL[..], &Planted::SEQUENCER, &Planted::ORDERING, &Planted::RAFT].concat();
    let found = all.iter().find(|fault| format!("{fault:?}") == *name);
    let usage = || StartError::Usage(format!("--plant knows {all:?}, not {name:?}"));
    Ok(Some(*found.ok_or_else(usage)?))
}

fn outcome(all_held: bool) -> Outcome {
    if all_held { Outcome::Done } else { Outcome::Failed }
}

/// What came of all seeds.
#[derive(Debug, Default)]
struct Totals {
    coverage: Coverage,
    acked: u64,
    events: u64,
    virtual_s: u64,
    seconds: f64,
    invariants: BTreeMap<String, Vec<u64>>,
    failed: Vec<u64>,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.coverage.add(report);
        self.acked += report.acked;
        self.events += report.events;
        self.virtual_s += report.lasted / SECOND;
        if let Some(violation) = &report.violation {
            self.failed.push(report.seed);
            let seeds = self.invariants.entry(violation.invariant.into()).or_default();
            seeds.push(report.seed);
        }
    }

    fn print(&self) {
        let Self { acked, events, virtual_s, seconds, .. } = self;
        let Coverage { seeds, busy, counters, .. } = &self.coverage;
        say!(
            "{seeds} seeds in {seconds:.1} s ({:.1}/s): {events} events, {virtual_s} s of virtual time, \
             {acked} messages acknowledged, {BUSY} or more in {busy} seeds",
            *seeds as f64 / seconds.max(0.001)
        );
        let told: Vec<String> =
            counters.iter().map(|(what, count)| format!("{what} {count}")).collect();
        say!("{}", told.join(", "));
        for (invariant, seeds) in &self.invariants {
            let mut seeds = seeds.clone();
            seeds.sort_unstable();
            let first: Vec<String> = seeds.iter().take(8).map(u64::to_string).collect();
            say!("BROKEN {invariant}: {} seeds, such as {}", seeds.len(), first.join(" "));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the speed is told in real seconds")]
fn run_all(args: &SimArgs, options: &Options) -> Result<Totals, StartError> {
    let threads = Threads::new("sim");
    let (give, seeds) = bounded::<u64>(64);
    let (tell, reports) = unbounded();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    for worker in 0..workers {
        let (seeds, tell, options) = (seeds.clone(), tell.clone(), options.clone());
        let body = move || {
            for seed in seeds {
                let _ = tell.send(run_guarded(seed, &options));
            }
        };
        threads
            .spawn(&format!("worker-{worker}"), body)
            .map_err(|error| StartError::Other(format!("cannot start a thread: {error}")))?;
    }
    drop((seeds, tell));
    let range = args.seed..args.seed.saturating_add(args.seeds);
    let feeder = move || range.into_iter().try_for_each(|seed| give.send(seed)).unwrap_or_default();
    threads
        .spawn("seeds", feeder)
        .map_err(|error| StartError::Other(format!("cannot start a thread: {error}")))?;
    let begun = Instant::now();
    let bar = std::io::stderr().is_terminal();
    let mut totals = Totals::default();
    for report in reports {
        totals.add(&report);
        totals.seconds = begun.elapsed().as_secs_f64();
        if bar {
            draw_bar(&totals, args.seeds);
        }
    }
    if bar {
        note!("");
    }
    totals.failed.sort_unstable();
    Ok(totals)
}

fn draw_bar(totals: &Totals, of: u64) {
    let filled = (totals.coverage.seeds * 30 / of.max(1)) as usize;
    let rate = totals.coverage.seeds as f64 / totals.seconds.max(0.001);
    let failed = totals.failed.len();
    note_down(format_args!(
        "\r[{:<30}] {}/{of} seeds, {rate:.1}/s, {failed} broken ",
        "#".repeat(filled),
        totals.coverage.seeds
    ));
}

/// Shrinks a failing seed, and prints what broke and how to see it again.
fn explain(seed: u64, args: &SimArgs, options: &Options) {
    let Some(shrunk) = shrink(seed, options) else { return };
    let Some(violation) = &shrunk.report.violation else { return };
    say!("\nseed {seed} breaks the promise {:?}: {}", violation.invariant, violation.detail);
    let Shrunk { planned, plan, .. } = &shrunk;
    say!(
        "{} of its {planned} faults are enough, and {} s of trouble:",
        plan.faults.len(),
        plan.lasts as f64 / SECOND as f64
    );
    for fault in &plan.faults {
        say!("  {fault:?}");
    }
    say!("the last events that concern it:");
    let lines = relevant_lines(&shrunk.report.trace, violation);
    for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
        let cut: String = line.chars().take(LINE_CHARS_MAX).collect();
        say!("  {cut}");
    }
    say!("all of it: {}", replay_command(seed, args, &shrunk.options));
}

/// The lines of `trace` that concern `violation`.
fn relevant_lines<'a>(trace: &'a [String], violation: &Violation) -> Vec<&'a str> {
    let is_idle = |line: &str| line.contains("HEARTBEAT") || line.contains("STATUS");
    let concerns = |line: &&str| match violation.about.as_slice() {
        [] => !is_idle(line),
        about => about.iter().any(|about| line.contains(&format!("\"{about}\""))),
    };
    trace.iter().map(String::as_str).filter(concerns).collect()
}

/// The command that runs `seed` with `options` and prints every event.
fn replay_command(seed: u64, args: &SimArgs, options: &Options) -> String {
    let SimArgs { design, faults, steps, .. } = args;
    let mut words =
        vec![format!("roundtable sim --design {design} --seed {seed} --faults {faults}")];
    if let Some(election) = args.election {
        words.push(format!("--election {election}"));
    }
    if let Some(nodes) = args.nodes {
        words.push(format!("--nodes {nodes}"));
    }
    if *steps > 0 {
        words.push(format!("--steps {steps}"));
    }
    if let Some(keep) = &options.keep {
        let numbers: Vec<String> = keep.iter().map(usize::to_string).collect();
        let list = if numbers.is_empty() { "none".into() } else { numbers.join(",") };
        words.push(format!("--keep {list}"));
    }
    if let Some(lasts) = options.lasts {
        words.push(format!("--lasts-ms {}", lasts.div_ceil(MS)));
    }
    #[cfg(feature = "planted-faults")]
    if let Some(plant) = &args.plant {
        words.push(format!("--plant {plant}"));
    }
    words.push("--trace".into());
    words.join(" ")
}

#[cfg(test)]
mod tests;
