//! What `roundtable sim` says of a failing seed, and of a run that proves nothing.

use clap::Parser;

use super::*;
use crate::server::planted::Planted;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: SimArgs,
}

fn args(line: &str) -> SimArgs {
    Line::parse_from(format!("sim {line}").split_whitespace()).args
}

#[test]
fn a_failing_seed_is_shrunk_to_the_faults_that_it_needs_and_can_be_replayed() {
    // What is acknowledged before it is on a disk is lost in one crash of a server that is alone.
    let planted = Some(Planted::AckBeforeSync);
    let all = Options { nodes: Some(1), planted, ..Options::default() };
    let lost = |seed: u64, options: &Options| {
        run_seed(seed, options).violation.is_some_and(|violation| violation.invariant == "lost")
    };
    let seed = (1..500).find(|seed| lost(*seed, &all)).expect("a seed that fails");
    let shrunk = shrink(seed, &all).expect("it fails");
    let violation = shrunk.report.violation.as_ref().expect("it fails still");
    assert_eq!(violation.invariant, "lost");
    assert!((1..=2).contains(&shrunk.plan.faults.len()), "{:?}", shrunk.plan.faults);
    assert!(shrunk.planned > shrunk.plan.faults.len());
    // Nothing more can go.
    let keep = shrunk.options.keep.clone().expect("faults were left out");
    for needed in &keep {
        let fewer = keep.iter().filter(|number| *number != needed).copied().collect();
        assert!(!lost(seed, &Options { keep: Some(fewer), ..shrunk.options.clone() }), "{needed}");
    }
    let lasts = Some(shrunk.plan.lasts / 2 / MS * MS);
    assert!(!lost(seed, &Options { lasts, ..shrunk.options.clone() }));

    let lines = relevant_lines(&shrunk.report.trace, violation);
    let text = &violation.about[0];
    let first = lines.first().expect("lines that concern it");
    assert!(lines.len() < shrunk.report.trace.len() / 10);
    assert!(first.contains("Wrote") && first.contains(text.as_str()), "{first}");

    let command = replay_command(seed, &args("--nodes 1"), &shrunk.options);
    let again = options(&args(command.strip_prefix("roundtable sim").unwrap())).unwrap();
    let again = run_seed(seed, &Options { planted, detail: Detail::Full, ..again });
    assert_eq!(again.trace, shrunk.report.trace, "{command}");
}

#[test]
fn a_run_with_every_fault_has_to_have_had_them() {
    let silent = Coverage { seeds: 100, ..Coverage::default() };
    let says =
        |line: &str, coverage: &Coverage| complaint(coverage, &options(&args(line)).unwrap());
    assert!(says("", &silent).unwrap().contains("never happened: crash"));
    assert_eq!(says("--faults crash", &silent), None);
    assert_eq!(says("--nodes 1", &silent), None);
    assert_eq!(says("", &Coverage { seeds: 99, ..silent.clone() }), None);
}

#[test]
fn wrong_words_are_named() {
    assert_eq!(options(&args("--keep 1,3")).unwrap().keep, Some(vec![1, 3]));
    assert_eq!(options(&args("--keep none")).unwrap().keep, Some(Vec::new()));
    assert!(options(&args("--keep 1,x")).unwrap_err().to_string().contains("\"x\""));
    assert!(options(&args("--faults fire")).unwrap_err().to_string().contains("\"fire\""));
}
