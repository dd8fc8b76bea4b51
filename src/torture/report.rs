//! The verdict: what was done, what each fault cost, and whether a promise was broken.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::fault::Fault;
use super::remains::Remains;
use super::{TortureSettings, acked_in};
use crate::sim::checker::Violation;
use crate::sim::history::{Act, History};

/// A fault that was survived.
#[derive(Clone, Debug)]
pub struct Suffered {
    /// Which.
    pub fault: Fault,
    /// What was done, in words.
    pub what: String,
    /// The longest that anybody waited for an acknowledgement.
    pub silence: Duration,
    /// How long it took, once the fault was over, until all was well.
    pub back: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed of the faults.
    pub seed: u64,
    /// Faults, in order.
    pub suffered: Vec<Suffered>,
    /// Messages that were said.
    pub said: usize,
    /// Messages that were acknowledged.
    pub acknowledged: usize,
    /// Messages that were shown, to anybody.
    pub shown: usize,
    /// The first promise that was found broken, if any.
    pub violation: Option<String>,
    /// What stays after a violation.
    pub remains: Option<Remains>,
}

impl Report {
    pub(super) fn new(
        settings: &TortureSettings,
        suffered: Vec<Suffered>,
        history: &History,
        violation: Option<Violation>,
        remains: Option<Remains>,
    ) -> Self {
        let everybody = history.sessions.iter().chain(&history.readers);
        let acts = || everybody.clone().flat_map(|session| &session.acts);
        let said = acts().filter(|(_, act)| matches!(act, Act::Wrote { .. })).count();
        let shown = acts().filter(|(_, act)| matches!(act, Act::Shown { .. })).count();
        let seed = settings.seed;
        let violation =
            violation.map(|violation| format!("{}: {}", violation.invariant, violation.detail));
        Self { seed, suffered, said, acknowledged: acked_in(history), shown, violation, remains }
    }

    /// The faults and what each cost, as a table for people.
    pub fn table(&self) -> String {
        let mut by_fault: BTreeMap<Fault, Vec<&Suffered>> = BTreeMap::new();
        for suffered in &self.suffered {
            by_fault.entry(suffered.fault).or_default().push(suffered);
        }
        let mut text =
            "FAULT      TIMES     SILENCE: MEDIAN     WORST     WELL AGAIN: MEDIAN     WORST\n"
                .to_string();
        for (fault, all) in by_fault {
            let ms = |of: fn(&Suffered) -> Duration| {
                let mut times: Vec<u128> = all.iter().map(|one| of(one).as_millis()).collect();
                times.sort_unstable();
                (times[times.len() / 2], times[times.len() - 1])
            };
            let (silence, back) = (ms(|one| one.silence), ms(|one| one.back));
            let _ = writeln!(
                text,
                "{:<9}  {:>5}  {:>15} ms  {:>6} ms  {:>18} ms  {:>6} ms",
                fault.name(),
                all.len(),
                silence.0,
                silence.1,
                back.0,
                back.1
            );
        }
        text
    }
}
