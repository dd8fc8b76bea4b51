//! The checker of histories is checked itself: it is content with what the promise allows, and complains about each
//! thing that the promise forbids.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use roundtable::sim::checker::Order;
use support::history::{MemberLog, Step, complaints};

/// `log("ann", "w:a1 s:a1 k:a1")`: she wrote it, was shown it, and it was acknowledged.
fn log(name: &str, steps: &str) -> MemberLog {
    let step = |word: &str| match word.split_once(':').unwrap() {
        ("w", id) => Step::Wrote(id.into()),
        ("s", id) => Step::Shown(id.into()),
        ("k", id) => Step::Acked(id.into()),
        _ => panic!("{word}"),
    };
    MemberLog { name: name.into(), steps: steps.split_whitespace().map(step).collect() }
}

/// The invariants that the logs of `members` break.
fn broken(members: &[MemberLog], order: Order) -> Vec<String> {
    let invariant = |told: String| told.split_once(':').unwrap().0.to_string();
    complaints(members, order).into_iter().map(invariant).collect()
}

#[track_caller]
fn expect(ann: &str, bob: &str, invariant: Option<&str>) {
    let found = broken(&[log("ann", ann), log("bob", bob)], Order::Causal);
    assert_eq!(found, Vec::from_iter(invariant));
}

#[test]
fn the_checker_is_content_with_a_conversation() {
    expect("w:a1 s:a1 k:a1 s:b1", "s:a1 w:b1 s:b1 k:b1", None);
}

#[test]
fn the_checker_lets_concurrent_messages_come_in_any_order() {
    expect("w:a1 s:a1 k:a1 s:b1", "w:b1 s:b1 k:b1 s:a1", None);
}

#[test]
fn the_checker_lets_a_message_be_sent_again() {
    expect("w:a1 w:a2 w:a1 w:a2 s:a1 s:a2 k:a1 k:a2 k:a1", "s:a1 s:a2", None);
}

#[test]
fn the_checker_finds_a_lost_message() {
    expect("w:a1 s:a1 k:a1", "", Some("equal"));
    expect("w:a1", "", Some("answered"));
}

#[test]
fn the_checker_finds_a_message_that_came_twice() {
    expect("w:a1 s:a1 k:a1", "s:a1 s:a1", Some("twice"));
}

#[test]
fn the_checker_finds_an_invented_message() {
    expect("w:a1 s:a1 k:a1", "s:a1 s:x", Some("invented"));
}

#[test]
fn the_checker_finds_a_message_without_ack() {
    expect("w:a1 w:a2 s:a1 k:a1 s:a2", "s:a1 s:a2", Some("answered"));
}

#[test]
fn the_checker_finds_an_ack_before_the_delivery() {
    expect("w:a1 k:a1 s:a1", "s:a1", Some("own words"));
}

#[test]
fn the_checker_finds_an_ack_for_nothing() {
    expect("w:a1 s:a1 k:a1", "s:a1 k:z", Some("lost"));
}

#[test]
fn the_checker_finds_a_session_out_of_order() {
    expect("w:a1 w:a2 s:a1 s:a2 k:a1 k:a2", "s:a2 s:a1", Some("causal"));
}

#[test]
fn the_checker_finds_an_answer_before_its_question() {
    // Ann asks, Bob answers, Cid sees the answer first.
    let members = [
        log("ann", "w:question s:question k:question s:answer"),
        log("bob", "s:question w:answer s:answer k:answer"),
        log("cid", "s:answer s:question"),
    ];
    assert_eq!(broken(&members, Order::Causal), ["causal"]);
}

#[test]
fn the_checker_finds_a_cause_that_is_several_messages_away() {
    // c1 follows b1 follows a1; Dora sees a1 last although nothing of Ann's came between.
    let members = [
        log("ann", "w:a1 s:a1 k:a1 s:b1 s:c1"),
        log("bob", "s:a1 w:b1 s:b1 k:b1 s:c1"),
        log("cid", "s:a1 s:b1 w:c1 s:c1 k:c1"),
        log("dora", "s:c1 s:a1 s:b1"),
    ];
    assert_eq!(broken(&members, Order::Causal), ["causal"]);
}

#[test]
fn the_checker_wants_one_order_where_it_is_promised() {
    let ann = log("ann", "w:a1 s:a1 k:a1 s:b1");
    let same = [ann.clone(), log("bob", "w:b1 s:a1 s:b1 k:b1")];
    assert_eq!(broken(&same, Order::Total), [""; 0]);
    let swapped = [ann, log("bob", "w:b1 s:b1 k:b1 s:a1")];
    assert_eq!(broken(&swapped, Order::Causal), [""; 0]);
    assert_eq!(broken(&swapped, Order::Total), ["order"]);
}
