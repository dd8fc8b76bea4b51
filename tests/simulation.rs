//! Whole clusters under faults, decided by seeds: see [`roundtable::sim`].

use std::collections::BTreeMap;

use roundtable::server::election::ElectionKind;
use roundtable::sim::trace::Detail;
use roundtable::sim::{Faults, Options, Report, run_seed};

/// Runs seeds on all cores, and says which broke a promise.
fn run_seeds(seeds: std::ops::Range<u64>, options: &Options) -> Vec<Report> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|core| {
                let mine = seeds.clone().filter(move |seed| seed % cores == core);
                scope.spawn(|| mine.map(|seed| run_seed(seed, options)).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no panic")).collect()
    });
    for report in &reports {
        if let Some(violation) = &report.violation {
            let (seed, election) = (report.seed, options.election);
            let nodes = options.nodes.map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
            panic!(
                "seed {seed} breaks {violation:?}; see it: roundtable sim --election {election}{nodes} \
                 --seed {seed} --seeds 1"
            );
        }
    }
    reports
}

#[test]
fn what_is_promised_holds_under_every_fault() {
    let reports = run_seeds(0..100, &Options::default());
    let mut happened: BTreeMap<&str, u64> = BTreeMap::new();
    for report in &reports {
        for (what, count) in &report.counters {
            *happened.entry(what).or_default() += count;
        }
    }
    for what in roundtable::sim::EXPECTED {
        assert!(happened.contains_key(what), "no {what} in 100 seeds: {happened:?}");
    }
    let busy = reports.iter().filter(|report| report.acked >= 100).count();
    assert!(busy >= 50, "only {busy} seeds had 100 messages acknowledged");
}

#[test]
fn it_holds_with_the_bully_too() {
    let options = Options { nodes: Some(5), election: ElectionKind::Bully, ..Options::default() };
    let reports = run_seeds(0..10, &options);
    let crashes: u64 = reports.iter().filter_map(|report| report.counters.get("crash")).sum();
    assert!(crashes > 2, "only {crashes} crashes");
}

#[test]
fn a_seed_is_one_run_byte_for_byte() {
    let options = Options { detail: Detail::Full, ..Options::default() };
    for seed in [3, 16] {
        let (one, other) = (run_seed(seed, &options), run_seed(seed, &options));
        assert!(one.trace.len() > 1000);
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}

#[test]
fn without_faults_nothing_is_sent_twice_and_nobody_moves() {
    let options = Options { faults: Faults::NONE, ..Options::default() };
    for report in run_seeds(0..20, &options) {
        assert_eq!(report.counters, BTreeMap::new(), "seed {}", report.seed);
    }
}

/// Seeds that once broke a promise, with what was wrong then.
#[test]
fn seeds_that_once_broke_a_promise_hold() {
    let table: &[(u64, &str)] = &[
        (12, "a silent end of a client held its name"),
        (16, "a connection that was given up replaced a later one"),
        (17, "a server that had been silent was never dialled again"),
        (38, "an acknowledgement overtook the message on a new connection"),
        (488, "a copy that had fallen behind was not compared again before a join"),
        (492, "the same, and the joining client wrote without its past"),
    ];
    for (seed, _) in table {
        run_seeds(*seed..seed + 1, &Options::default());
    }
}
