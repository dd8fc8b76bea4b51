//! Proof that the checks can fail: each planted fault is caught, by the check that its documentation names.

use super::{Faults, Options, run_seed};
use crate::config::Design;
use crate::server::planted::Planted;

/// A fault is caught within so many seeds.
const SEEDS_MAX: u64 = 500;

/// The invariant that catches it; how many servers and which faults make it likely; a seed at which to begin, at or
/// before one that shows it.
fn how_it_is_caught(design: Design, fault: Planted) -> (&'static str, usize, &'static str, u64) {
    match (design, fault) {
        (Design::Sequencer, Planted::AckBeforeCommit) => ("majority", 3, "all", 1),
        (Design::Sequencer, Planted::AnyForwardTaken) => ("causal", 5, "all", 230),
        (Design::Sequencer, Planted::LatestForwardedFirst) => ("causal", 3, "all", 348),
        (Design::Sequencer, Planted::NoDuplicateCheck) => ("twice", 3, "cut,reset,client", 5),
        (Design::Sequencer, Planted::AckOnAnyConnection) => ("own words", 1, "all", 51),
        (Design::Sequencer, Planted::CutsByLength) => ("equal", 3, "cut,crash", 2),
        (Design::Sequencer, _) => panic!("{fault:?} is caught in `server::ordering`"),
        (Design::Raft, Planted::AckBeforeCommit) => ("majority", 3, "all", 5),
        (Design::Raft, Planted::NoDuplicateCheck) => ("twice", 3, "all", 6),
        (Design::Raft, Planted::VoteTwice) => ("one leader", 3, "all", 82),
        (Design::Raft, Planted::VoteWithoutLogCheck) => ("causal", 3, "all", 7),
        (Design::Raft, Planted::AppendsWithoutMatch) => ("causal", 3, "all", 5),
        (Design::Raft, Planted::ReadUnconfirmed) => ("stale", 3, "all", 21),
        (Design::Raft, Planted::ReadFromFollower) => ("stale", 3, "all", 5),
        (Design::Raft, _) => panic!("{fault:?} is caught in `server::raft`"),
        (Design::Ring, fault) => how_ring_catches(fault),
    }
}

fn how_ring_catches(fault: Planted) -> (&'static str, usize, &'static str, u64) {
    match fault {
        Planted::NoHoldBack => ("causal", 3, "all", 1),
        Planted::AckBeforeSync => ("lost", 1, "crash,disk", 1),
        Planted::SameIncarnation => ("twice", 1, "crash,disk", 16),
        Planted::StaleTerm => ("term", 2, "crash,sleep", 1),
        Planted::NoDuplicateCheck => ("twice", 2, "reset,client", 3),
        Planted::ForgottenTail => ("equal", 3, "cut,crash", 5),
        Planted::GreatestStamp => ("causal", 2, "cut,reset,client", 7),
        Planted::FirstStampOnly => ("twice", 2, "cut,reset,client", 7),
        Planted::DuplicateAckedAtOnce => ("own words", 2, "client", 3),
        Planted::AccusesAfterSleep => ("accuses", 2, "sleep", 7),
        Planted::UnsharedRetired => ("lost", 2, "all", 5),
        Planted::AckOnAnyConnection => ("own words", 1, "all", 2),
        other => panic!("{other:?} is caught beside its algorithm"),
    }
}

/// The first seed that shows `fault` by the check that should.
fn caught_at(design: Design, fault: Planted) -> Option<u64> {
    let (invariant, nodes, faults, first) = how_it_is_caught(design, fault);
    let faults = Faults::parse(faults).expect("known kinds");
    let options =
        Options { design, nodes: Some(nodes), faults, planted: Some(fault), ..Options::default() };
    (first..first + SEEDS_MAX).find(|seed| {
        let violation = run_seed(*seed, &options).violation;
        violation.is_some_and(|violation| violation.invariant == invariant)
    })
}

#[test]
#[ignore = "in release only: make planted"]
fn each_planted_fault_is_caught_within_500_seeds() {
    let ring = Planted::ALL.map(|fault| (Design::Ring, fault));
    let sequencer = Planted::SEQUENCER.map(|fault| (Design::Sequencer, fault));
    let raft = Planted::RAFT_CLUSTERS.map(|fault| (Design::Raft, fault));
    let all: Vec<(Design, Planted)> = ring.into_iter().chain(sequencer).chain(raft).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let all = &all;
        for core in 0..cores {
            scope.spawn(move || {
                for (design, fault) in all.iter().copied().skip(core).step_by(cores) {
                    let seed = caught_at(design, fault);
                    assert!(seed.is_some(), "{design} with {fault:?} is not caught");
                    println!(
                        "{design} {fault:?}: {:?}, seed {seed:?}",
                        how_it_is_caught(design, fault)
                    );
                }
            });
        }
    });
}
