//! `roundtable sim`: many seeds, and what to know about the first one that fails.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crossbeam_channel::{bounded, unbounded};

use super::checker::Violation;
use super::plan::Plan;
use super::trace::Detail;
use super::{Faults, Options, Report, run_plan, run_seed};
use crate::cli::Outcome;
use crate::config::Design;
use crate::error::StartError;
use crate::server::election::ElectionKind;
use crate::threads::Threads;

/// Lines of the trace that are printed for a failing seed.
const LAST_LINES: usize = 40;

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
    /// What may go wrong: all, none, or some of crash,sleep,wipe,cut,reset,udp,disk,client
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub faults: String,
    /// After so many events nothing more goes wrong; 0 leaves it to the seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub steps: u64,
    /// A fault in the servers, on purpose: see the documentation of `server::planted`
    #[cfg(feature = "planted-faults")]
    #[arg(long, value_name = "NAME")]
    pub plant: Option<String>,
    /// Print every event of the first seed
    #[arg(long)]
    pub trace: bool,
}

/// Runs the seeds; [`Outcome::Failed`] when a promise was broken.
pub fn run(args: &SimArgs) -> Result<Outcome, StartError> {
    let faults = Faults::parse(&args.faults).map_err(|word| {
        StartError::Usage(format!("--faults knows {}, all and none, not {word:?}", Faults::NAMES))
    })?;
    let design: Design = args.design.parse()?;
    let options = Options {
        design,
        nodes: args.nodes.map(usize::from),
        faults,
        steps: args.steps,
        election: args.election.unwrap_or(design.election()),
        #[cfg(feature = "planted-faults")]
        planted: planted(args)?,
        ..Options::default()
    };
    if args.trace {
        let options = Options { detail: Detail::Full, ..options };
        let report = run_seed(args.seed, &options);
        let mut out = std::io::stdout().lock();
        for line in &report.trace {
            // Whoever pipes it into `head` has seen enough.
            if writeln!(out, "{line}").is_err() {
                break;
            }
        }
        return Ok(outcome(report.violation.is_none()));
    }
    let totals = run_all(args, &options)?;
    totals.print();
    if let Some(seed) = totals.failed.first() {
        explain(*seed, args, &options);
    }
    Ok(outcome(totals.failed.is_empty()))
}

fn parse_election(name: &str) -> Result<ElectionKind, String> {
    ElectionKind::named(name).ok_or_else(|| "there are hs and bully".to_string())
}

/// What is planted by `--plant`.
#[cfg(feature = "planted-faults")]
fn planted(args: &SimArgs) -> Result<Option<crate::server::planted::Planted>, StartError> {
    let all = crate::server::planted::Planted::ALL;
    let Some(name) = &args.plant else { return Ok(None) };
    let found = all.into_iter().find(|fault| format!("{fault:?}") == *name);
    found.map(Some).ok_or_else(|| StartError::Usage(format!("--plant knows {all:?}, not {name:?}")))
}

fn outcome(all_held: bool) -> Outcome {
    if all_held { Outcome::Done } else { Outcome::Failed }
}

/// What came of all seeds.
#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    busy: u64,
    acked: u64,
    events: u64,
    virtual_s: u64,
    seconds: f64,
    counters: BTreeMap<&'static str, u64>,
    invariants: BTreeMap<String, Vec<u64>>,
    failed: Vec<u64>,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.busy += u64::from(report.acked >= 100);
        self.acked += report.acked;
        self.events += report.events;
        self.virtual_s += report.lasted / super::agenda::SECOND;
        for (what, count) in &report.counters {
            *self.counters.entry(what).or_default() += count;
        }
        if let Some(violation) = &report.violation {
            self.failed.push(report.seed);
            let seeds = self.invariants.entry(violation.invariant.into()).or_default();
            seeds.push(report.seed);
        }
    }

    fn print(&self) {
        let Self { seeds, busy, acked, events, virtual_s, seconds, .. } = self;
        println!(
            "{seeds} seeds in {seconds:.1} s ({:.1}/s): {events} events, {virtual_s} s of virtual time, \
             {acked} messages acknowledged, 100 or more in {busy} seeds",
            *seeds as f64 / seconds.max(0.001)
        );
        let told: Vec<String> =
            self.counters.iter().map(|(what, count)| format!("{what} {count}")).collect();
        println!("{}", told.join(", "));
        for (invariant, seeds) in &self.invariants {
            let mut seeds = seeds.clone();
            seeds.sort_unstable();
            let first: Vec<String> = seeds.iter().take(8).map(u64::to_string).collect();
            println!("BROKEN {invariant}: {} seeds, such as {}", seeds.len(), first.join(" "));
        }
    }
}

/// A seed that makes the program panic has failed, too.
fn run_guarded(seed: u64, run: impl FnOnce() -> Report) -> Report {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        Report {
            seed,
            violation: Some(Violation::new("panic", text.into(), &[])),
            counters: BTreeMap::new(),
            acked: 0,
            events: 0,
            lasted: 0,
            trace: Vec::new(),
        }
    })
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
                let _ = tell.send(run_guarded(seed, || run_seed(seed, &options)));
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
        eprintln!();
    }
    totals.failed.sort_unstable();
    Ok(totals)
}

fn draw_bar(totals: &Totals, of: u64) {
    let filled = (totals.seeds * 30 / of.max(1)) as usize;
    let rate = totals.seeds as f64 / totals.seconds.max(0.001);
    let failed = totals.failed.len();
    eprint!(
        "\r[{:<30}] {}/{of} seeds, {rate:.1}/s, {failed} broken ",
        "#".repeat(filled),
        totals.seeds
    );
}

/// Shrinks the faults of a failing seed, and prints what broke and how to see it again.
fn explain(seed: u64, args: &SimArgs, options: &Options) {
    let plan = Plan::draw(seed, options);
    let planned = plan.faults.len();
    let (plan, report) = shrink(seed, plan, options);
    let Some(violation) = report.violation else { return };
    println!("\nseed {seed} breaks the promise {:?}: {}", violation.invariant, violation.detail);
    println!("{} of its {planned} faults are enough:", plan.faults.len());
    for fault in &plan.faults {
        println!("  {fault:?}");
    }
    let quoted: Vec<String> = violation.about.iter().map(|about| format!("\"{about}\"")).collect();
    let concerns = |line: &&String| {
        let is_idle = line.contains("HEARTBEAT") || line.contains("STATUS");
        quoted.iter().any(|about| line.contains(about)) || (quoted.is_empty() && !is_idle)
    };
    let lines: Vec<&String> = report.trace.iter().filter(concerns).collect();
    println!("the last events that concern it:");
    for line in lines.iter().skip(lines.len().saturating_sub(LAST_LINES)) {
        let cut: String = line.chars().take(400).collect();
        println!("  {cut}");
    }
    let nodes = args.nodes.map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
    let steps = if args.steps > 0 { format!(" --steps {}", args.steps) } else { String::new() };
    let SimArgs { design, faults, .. } = args;
    let election = options.election;
    println!(
        "all of it: roundtable sim --design {design} --election {election}{nodes} --seed {seed} --seeds 1 \
         --faults {faults}{steps} --trace"
    );
}

/// Drops one fault after the other while the same promise stays broken.
fn shrink(seed: u64, mut plan: Plan, options: &Options) -> (Plan, Report) {
    let full = Options { detail: Detail::Full, ..options.clone() };
    let run = |plan: &Plan| run_guarded(seed, || run_plan(seed, plan.clone(), &full));
    let mut report = run(&plan);
    let broken = report.violation.as_ref().map(|violation| violation.invariant);
    let mut at = 0;
    while at < plan.faults.len() {
        let mut fewer = plan.clone();
        fewer.faults.remove(at);
        let shorter = run(&fewer);
        if shorter.violation.as_ref().map(|violation| violation.invariant) == broken {
            (plan, report) = (fewer, shorter);
        } else {
            at += 1;
        }
    }
    (plan, report)
}
