//! Proof that the checks can fail: each planted fault is caught, by the check that its documentation names.

use super::{Faults, Options, run_seed};
use crate::server::planted::Planted;

/// A fault is caught within so many seeds.
const SEEDS_MAX: u64 = 500;

/// The invariant that catches it; how many servers and which faults make it likely; a seed at which to begin, at or
/// before one that shows it.
fn how_it_is_caught(fault: Planted) -> (&'static str, usize, &'static str, u64) {
    match fault {
        Planted::NoHoldBack => ("causal", 3, "all", 1),
        Planted::AckBeforeSync => ("lost", 1, "crash,disk", 1),
        Planted::SameIncarnation => ("twice", 1, "crash,disk", 16),
        Planted::StaleTerm => ("term", 2, "crash,sleep", 1),
        Planted::NoDuplicateCheck => ("twice", 2, "reset,client", 3),
        Planted::ForgottenTail => ("equal", 2, "cut,crash", 1),
        Planted::GreatestStamp => ("causal", 2, "cut,reset,client", 7),
        Planted::FirstStampOnly => ("twice", 2, "cut,reset,client", 7),
        Planted::DuplicateAckedAtOnce => ("own words", 2, "client", 3),
        Planted::AccusesAfterSleep => ("accuses", 2, "sleep", 7),
        Planted::UnsharedRetired => ("lost", 2, "all", 5),
        Planted::AckOnAnyConnection => ("own words", 1, "all", 2),
        Planted::CommitsEarlierTerm
        | Planted::PromiseBeforeSync
        | Planted::CutsByLength
        | Planted::CountsWiped => panic!("{fault:?} is caught in `server::ordering`"),
        Planted::VoteBeforeSync
        | Planted::VoteTwice
        | Planted::OldTermCommitted
        | Planted::AppendAckBeforeSync
        | Planted::VoteWithoutLogCheck
        | Planted::CutWithoutConflict
        | Planted::WipedVoterVotes
        | Planted::ChangeWhileUncommitted
        | Planted::ReadUnconfirmed => panic!("{fault:?} is caught in `server::raft`"),
    }
}

/// The first seed that shows `fault` by the check that should.
fn caught_at(fault: Planted) -> Option<u64> {
    let (invariant, nodes, faults, first) = how_it_is_caught(fault);
    let faults = Faults::parse(faults).expect("known kinds");
    let options =
        Options { nodes: Some(nodes), faults, planted: Some(fault), ..Options::default() };
    (first..first + SEEDS_MAX).find(|seed| {
        let violation = run_seed(*seed, &options).violation;
        violation.is_some_and(|violation| violation.invariant == invariant)
    })
}

#[test]
fn each_planted_fault_is_caught_within_500_seeds() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for core in 0..cores {
            scope.spawn(move || {
                for fault in Planted::ALL.into_iter().skip(core).step_by(cores) {
                    let seed = caught_at(fault);
                    assert!(seed.is_some(), "{fault:?} is not caught");
                    println!("{fault:?}: {:?}, seed {seed:?}", how_it_is_caught(fault));
                }
            });
        }
    });
}
