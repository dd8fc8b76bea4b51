//! Whether a batch of seeds proves anything: a fault that never happened was not survived, and neither were faults that
//! nobody noticed because nobody talked.

use std::collections::BTreeMap;

use super::{EXPECTED, EXPECTED_SNAPSHOTS, Report};

/// A run in which so many messages were acknowledged is busy; half of all have to be.
pub const BUSY: u64 = 100;

/// What happened in a batch of runs.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Runs.
    pub seeds: u64,
    /// Runs with [`BUSY`] acknowledged messages or more.
    pub busy: u64,
    /// Whether the design of the runs makes snapshots.
    pub makes_snapshots: bool,
    /// How often each fault happened, and other things.
    pub counters: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Counts `report`.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.busy += u64::from(report.acked >= BUSY);
        self.makes_snapshots |= report.makes_snapshots;
        for (what, count) in &report.counters {
            *self.counters.entry(what).or_default() += count;
        }
    }

    /// Which of the things that have to happen did not.
    pub fn missing(&self) -> Vec<&'static str> {
        let snapshots = EXPECTED_SNAPSHOTS.into_iter().filter(|_| self.makes_snapshots);
        let all = EXPECTED.into_iter().chain(snapshots);
        all.filter(|what| !self.counters.contains_key(what)).collect()
    }

    /// Why the batch, run with every fault, proves nothing; `None` when it does prove something.
    pub fn complaint(&self) -> Option<String> {
        let Self { seeds, busy, .. } = self;
        let missing = self.missing();
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Some(format!("{seeds} seeds prove nothing: never happened: {missing}"));
        }
        (busy * 2 < *seeds).then(|| {
            format!("{seeds} seeds prove nothing: only {busy} had {BUSY} messages acknowledged")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_that_did_not_happen_and_silent_runs_prove_nothing() {
        let mut coverage =
            Coverage { seeds: 4, busy: 1, makes_snapshots: true, ..Coverage::default() };
        for what in EXPECTED.into_iter().chain(EXPECTED_SNAPSHOTS) {
            let complaint = coverage.complaint().unwrap();
            assert!(
                complaint.contains("never happened") && complaint.contains(what),
                "{complaint}"
            );
            coverage.counters.insert(what, 1);
        }
        assert_eq!(
            coverage.complaint().unwrap(),
            "4 seeds prove nothing: only 1 had 100 messages acknowledged"
        );
        coverage.busy = 2;
        assert_eq!(coverage.complaint(), None);
    }
}
