//! The shortest story of a failing seed: fewer faults, a shorter run, the same broken promise.
//!
//! ```text
//!   faults 0 1 2 3 4 5 6 7     drop a half, a quarter, …, one: whatever is not needed goes
//!          · · 2 · · 5 · ·     then let things go wrong for half as long, as often as it still breaks
//! ```
//!
//! A fault that is left out moves all that follows, so a smaller plan may break something else or nothing: it is only
//! taken when the same promise breaks. Price: some 20 to 40 runs. Leaves out: fewer users and calmer weather.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::agenda::{MS, SECOND};
use super::checker::Violation;
use super::plan::Plan;
use super::trace::Detail;
use super::{Options, Report, run_seed};

/// Things go wrong for no shorter than this.
const LASTS_MIN: u64 = SECOND;

/// What is left of a failing seed.
#[derive(Debug)]
pub struct Shrunk {
    /// With these the seed still breaks the same promise.
    pub options: Options,
    /// How many faults were planned.
    pub planned: usize,
    /// The plan that is left.
    pub plan: Plan,
    /// The run, with its trace.
    pub report: Report,
}

/// [`run_seed`]; a seed that makes the program panic has failed, too.
pub fn run_guarded(seed: u64, options: &Options) -> Report {
    catch_unwind(AssertUnwindSafe(|| run_seed(seed, options))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        let violation = Some(Violation::new("panic", text.into(), &[]));
        Report { seed, violation, ..Report::default() }
    })
}

/// Takes away from the failing `seed` what its failure does not need; `None` when it does not fail.
pub fn shrink(seed: u64, options: &Options) -> Option<Shrunk> {
    let mut least = Options { detail: Detail::Off, ..options.clone() };
    let broken = |options: &Options| {
        run_guarded(seed, options).violation.map(|violation| violation.invariant)
    };
    let invariant = broken(&least)?;
    let planned = Plan::draw(seed, &least).faults.len();
    let mut keep: Vec<usize> = least.keep.clone().unwrap_or_else(|| (0..planned).collect());
    let mut part = keep.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        while at < keep.len() {
            let mut fewer = keep.clone();
            fewer.drain(at..(at + part).min(keep.len()));
            let options = Options { keep: Some(fewer.clone()), ..least.clone() };
            if broken(&options) == Some(invariant) {
                (keep, least) = (fewer, options);
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    loop {
        // In whole milliseconds, as the command line takes it.
        let lasts = Plan::draw(seed, &least).lasts / 2 / MS * MS;
        let options = Options { lasts: Some(lasts), ..least.clone() };
        if lasts < LASTS_MIN || broken(&options) != Some(invariant) {
            break;
        }
        least = options;
    }
    least.detail = Detail::Full;
    let (plan, report) = (Plan::draw(seed, &least), run_guarded(seed, &least));
    Some(Shrunk { options: least, planned, plan, report })
}
