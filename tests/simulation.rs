//! Whole clusters under faults, decided by seeds: see [`roundtable::sim`].

use std::collections::BTreeMap;

use roundtable::config::Design;
use roundtable::server::election::ElectionKind;
use roundtable::sim::coverage::Coverage;
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
            let (seed, design) = (report.seed, options.design);
            let election = match design {
                Design::Raft => String::new(),
                Design::Ring | Design::Sequencer => format!(" --election {}", options.election),
            };
            let nodes = options.nodes.map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
            panic!(
                "seed {seed} breaks {violation:?}; see it: roundtable sim --design {design}{election}{nodes} \
                 --seed {seed} --seeds 1"
            );
        }
    }
    reports
}

#[test]
fn what_is_promised_holds_under_every_fault_and_every_fault_happened() {
    let mut coverage = Coverage::default();
    for report in &run_seeds(0..100, &Options::default()) {
        coverage.add(report);
    }
    assert_eq!(coverage.complaint(), None);
}

#[test]
fn one_order_holds_under_every_fault_and_every_fault_happened() {
    let mut coverage = Coverage::default();
    for report in &run_seeds(0..100, &sequencer()) {
        coverage.add(report);
    }
    assert_eq!(coverage.complaint(), None);
}

#[test]
fn one_order_holds_with_raft() {
    let options = Options { design: Design::Raft, nodes: Some(5), ..Options::default() };
    let mut coverage = Coverage::default();
    for report in &run_seeds(0..100, &options) {
        coverage.add(report);
    }
    assert_eq!(coverage.complaint(), None);
    // That reads are linearizable says something when those who must not answer were asked.
    for what in ["room read again", "room read elsewhere", "deposed leader asked"] {
        assert!(coverage.counters.contains_key(what), "never happened: {what}");
    }
    for what in ["voter removed", "leader removed", "voter added"] {
        assert!(coverage.counters.contains_key(what), "no {what}: {:?}", coverage.counters);
    }
}

#[test]
fn one_order_holds_with_hirschberg_and_sinclair_too() {
    let options = Options { election: ElectionKind::HirschbergSinclair, ..sequencer() };
    let reports = run_seeds(0..10, &options);
    let crashes: u64 = reports.iter().filter_map(|report| report.counters.get("crash")).sum();
    assert!(crashes > 2, "only {crashes} crashes");
}

fn sequencer() -> Options {
    let design = Design::Sequencer;
    // Of two voters neither may lose its disk: five bear every fault.
    Options { design, election: design.election(), nodes: Some(5), ..Options::default() }
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
    let mut coverage = Coverage::default();
    // As many seeds as it takes until every fault has happened in one of them.
    for seed in 0..100 {
        let one = run_seed(seed, &options);
        let before = coverage.missing().len();
        coverage.add(&one);
        if coverage.missing().len() == before {
            continue;
        }
        let other = run_seed(seed, &options);
        assert!(one.trace.len() > 1000);
        assert!(one.trace == other.trace, "seed {seed} ran twice in two ways");
        if coverage.missing().is_empty() {
            break;
        }
    }
    assert_eq!(coverage.missing(), [""; 0]);
}

#[test]
fn without_faults_nothing_is_sent_twice_and_nobody_moves() {
    let options = Options { faults: Faults::NONE, ..Options::default() };
    for mut report in run_seeds(0..20, &options) {
        // Old messages come from there at any time.
        report.counters.remove("read from the disk");
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
    let of_five: &[(u64, &str)] = &[
        (476, "a copy was given up under a waiting client, who was told NOT_READY, not BEHIND"),
        (1262, "a run ended before its readers had read everything"),
    ];
    for (seed, _) in of_five {
        run_seeds(*seed..seed + 1, &Options { nodes: Some(5), ..Options::default() });
    }
    let raft_of_five: &[(u64, Option<Vec<usize>>, &str)] = &[
        (1276, None, "an operator believed a leader of long ago, and let nobody in again"),
        (1276, Some(vec![0, 1, 3]), "the same"),
    ];
    for (seed, keep, _) in raft_of_five {
        let (design, nodes, keep) = (Design::Raft, Some(5), keep.clone());
        run_seeds(*seed..seed + 1, &Options { design, nodes, keep, ..Options::default() });
    }
}
