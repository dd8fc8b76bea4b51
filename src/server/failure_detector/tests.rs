//! Who is suspected and who failed, by what was heard when.

use super::*;
use crate::domain::Incarnation;
use crate::network::transport::{Outbox, Sent};
use crate::testing::start;

/// `n1` between `n2` and `n5`; `n9` leads, `n4` is far. Everyone was heard at the start.
fn detector() -> FailureDetector {
    let mut detector = FailureDetector::new("n1".into(), DetectorTiming::default());
    detector.start_monitoring(start());
    for id in ["n2", "n4", "n5", "n9"] {
        detector.heard_server(&id.into(), start());
    }
    near(&mut detector, &["n2", "n5"], Some("n9"), 0);
    detector
}

fn near(detector: &mut FailureDetector, neighbors: &[&str], leader: Option<&str>, ms: u64) {
    let neighbors = neighbors.iter().map(|id| NodeId::from(*id)).collect();
    detector.set_near(neighbors, leader.map(NodeId::from).as_ref(), at(ms));
}

fn at(ms: u64) -> Instant {
    start() + Duration::from_millis(ms)
}

/// Looks at the timers every 50 ms from `from` to `to`, and says what was noticed when. Whoever is in
/// `talking` is heard before each look.
fn watch(
    detector: &mut FailureDetector,
    (from, to): (u64, u64),
    talking: &[&str],
) -> Vec<(u64, DetectorEvent)> {
    let mut noticed = Vec::new();
    for ms in (from..=to).step_by(50) {
        for id in talking {
            let event = detector.heard_server(&NodeId::from(*id), at(ms));
            noticed.extend(event.map(|event| (ms, event)));
        }
        noticed.extend(detector.check_timeouts(at(ms)).into_iter().map(|event| (ms, event)));
    }
    noticed
}

fn suspected(ms: u64, id: &str) -> (u64, DetectorEvent) {
    (ms, DetectorEvent::Suspected(id.into()))
}

fn failed(ms: u64, id: &str) -> (u64, DetectorEvent) {
    (ms, DetectorEvent::Failed(id.into()))
}

/// To whom one heartbeat goes.
fn beat(detector: &mut FailureDetector) -> Vec<String> {
    let outbox = Outbox::new();
    detector.send_heartbeat(&outbox, &MetadataStore::new("n1".into()), None);
    let sent = outbox.take_to_nodes().into_iter();
    sent.map(|(to, _)| to.unwrap().to_string()).collect()
}

#[test]
fn silence_makes_neighbours_and_the_leader_suspect_and_then_dead() {
    let noticed = watch(&mut detector(), (0, 1000), &["n4", "n5"]);
    let expected =
        [suspected(450, "n2"), suspected(450, "n9"), failed(800, "n2"), failed(800, "n9")];
    assert_eq!(noticed, expected);
}

#[test]
fn far_servers_get_four_times_as_long() {
    let noticed = watch(&mut detector(), (0, 4000), &["n2", "n5", "n9"]);
    assert_eq!(noticed, [suspected(1650, "n4"), failed(3200, "n4")]);
}

#[test]
fn everyone_is_near_to_the_leader() {
    let mut n1 = detector();
    near(&mut n1, &["n2", "n5"], Some("n1"), 0);
    let noticed = watch(&mut n1, (0, 1000), &["n2", "n5", "n9"]);
    assert_eq!(noticed, [suspected(450, "n4"), failed(800, "n4")]);
}

#[test]
fn a_suspect_and_a_dead_server_recover_when_they_are_heard() {
    for (ms, was) in [(700, Liveness::Suspect), (900, Liveness::Dead)] {
        let mut n1 = detector();
        let id = NodeId::from("n2");
        watch(&mut n1, (0, ms), &["n4", "n5", "n9"]);
        assert_eq!(n1.liveness(&id), Some(was));
        assert_eq!(n1.live().any(|live| *live == id), was != Liveness::Dead);
        let event = n1.reset_timer("n2", TimerType::Server, at(ms));
        assert_eq!(event, Some(DetectorEvent::Recovered(id.clone())));
        assert_eq!(n1.liveness(&id), Some(Liveness::Alive));
        assert_eq!(n1.heard_server(&id, at(ms)), None, "that is no news any more");
    }
}

#[test]
fn a_server_that_slept_accuses_nobody_and_gives_everyone_a_whole_timeout() {
    let mut n1 = detector();
    assert_eq!(watch(&mut n1, (0, 300), &[]), []);
    assert_eq!(n1.check_timeouts(at(60_000)), []);
    let noticed = watch(&mut n1, (60_050, 61_000), &["n4", "n5", "n9"]);
    assert_eq!(noticed, [suspected(60_450, "n2"), failed(60_800, "n2")]);
}

#[test]
fn a_nap_too_short_to_be_noticed_calls_nobody_dead() {
    let mut n1 = detector();
    let talking = ["n2", "n4", "n5", "n9"];
    watch(&mut n1, (0, 100), &talking);
    // Heartbeats come every 100 ms; the next ones wait unread for half a timeout.
    let events = n1.check_timeouts(at(200)).into_iter().chain(n1.check_timeouts(at(600)));
    assert!(events.into_iter().all(|event| matches!(event, DetectorEvent::Suspected(_))));
    assert_eq!(n1.live().count(), 4);
}

#[test]
fn the_first_look_only_starts_the_timers() {
    let mut n1 = FailureDetector::new("n1".into(), DetectorTiming::default());
    n1.watch(&"n2".into(), at(0));
    assert_eq!(n1.check_timeouts(at(5000)), []);
    assert_eq!(n1.liveness(&"n2".into()), Some(Liveness::Alive));
}

#[test]
fn a_server_that_becomes_near_starts_with_a_fresh_timer() {
    let mut n1 = detector();
    assert_eq!(watch(&mut n1, (0, 1000), &["n2", "n5", "n9"]), []);
    near(&mut n1, &["n2", "n4"], Some("n9"), 1000);
    // n2 was near before: it gets no second chance. n5 is far now.
    let noticed = watch(&mut n1, (1050, 1900), &["n9"]);
    assert_eq!(
        noticed,
        [suspected(1450, "n2"), suspected(1450, "n4"), failed(1800, "n2"), failed(1800, "n4")]
    );
}

#[test]
fn a_server_that_was_only_heard_of_is_watched_and_this_one_never_is() {
    let mut n1 = detector();
    n1.watch(&"n3".into(), at(0));
    n1.watch(&"n1".into(), at(0));
    assert_eq!(n1.heard_server(&"n1".into(), at(0)), None);
    assert_eq!(n1.liveness(&"n1".into()), None);
    assert_eq!(n1.last_heartbeat(&"n3".into(), at(9)), None);
    let noticed = watch(&mut n1, (0, 3500), &["n2", "n4", "n5", "n9"]);
    assert_eq!(noticed, [suspected(1650, "n3"), failed(3200, "n3")]);
    n1.watch(&"n3".into(), at(3500));
    assert_eq!(n1.liveness(&"n3".into()), Some(Liveness::Dead), "hearing of it again is no sign");
}

#[test]
fn when_a_server_was_last_heard_is_known_even_after_its_death() {
    let mut n1 = detector();
    n1.heard_server(&"n2".into(), at(200));
    watch(&mut n1, (200, 2000), &["n4", "n5", "n9"]);
    assert_eq!(n1.liveness(&"n2".into()), Some(Liveness::Dead));
    let silent = n1.last_heartbeat(&"n2".into(), at(2000));
    assert_eq!(silent, Some(Duration::from_millis(1800)));
}

#[test]
fn who_is_forgotten_is_not_missed() {
    let mut n1 = detector();
    n1.heard_client("s1", at(0));
    n1.forget("n2", TimerType::Server);
    n1.forget("s1", TimerType::Client);
    n1.forget("n7", TimerType::Server);
    assert_eq!(watch(&mut n1, (0, 40_000), &["n4", "n5", "n9"]), []);
    assert_eq!((n1.liveness(&"n2".into()), n1.live().count()), (None, 3));
}

#[test]
fn a_silent_client_is_asked_once_and_then_given_up() {
    let mut n1 = detector();
    n1.heard_client("s1", at(0));
    let noticed = watch(&mut n1, (0, 40_000), &["n2", "n4", "n5", "n9"]);
    let expected = [
        (10_000, DetectorEvent::ClientSilent("s1".into())),
        (30_000, DetectorEvent::ClientFailed("s1".into())),
    ];
    assert_eq!(noticed, expected);
}

#[test]
fn a_client_that_answers_is_asked_again_at_its_next_silence() {
    let mut n1 = detector();
    n1.heard_client("s1", at(0));
    let all = ["n2", "n4", "n5", "n9"];
    let mut asked = watch(&mut n1, (0, 12_000), &all);
    assert_eq!(n1.reset_timer("s1", TimerType::Client, at(12_000)), None);
    asked.extend(watch(&mut n1, (12_050, 25_000), &all));
    let silent = DetectorEvent::ClientSilent("s1".into());
    assert_eq!(asked, [(10_000, silent.clone()), (22_000, silent)]);
}

#[test]
fn near_servers_get_every_heartbeat_and_the_others_every_fourth() {
    let mut n1 = detector();
    for _ in 0..3 {
        assert_eq!(beat(&mut n1), ["n2", "n4", "n5", "n9"]);
        for _ in 0..3 {
            assert_eq!(beat(&mut n1), ["n2", "n5", "n9"]);
        }
    }
}

#[test]
fn the_dead_get_every_fourth_heartbeat_so_that_both_ends_notice_a_network_that_is_whole_again() {
    let mut n1 = detector();
    watch(&mut n1, (0, 1000), &["n4", "n5", "n9"]);
    assert_eq!(beat(&mut n1), ["n2", "n4", "n5", "n9"]);
    assert_eq!(beat(&mut n1), ["n5", "n9"]);
}

#[test]
fn a_heartbeat_carries_the_term_and_the_version_of_the_map() {
    let term = Term { counter: 3, leader: Incarnation::new(&"n9".into(), 1, 0) };
    let outbox = Outbox::new();
    detector().send_heartbeat(&outbox, &MetadataStore::new("n1".into()), Some(&term));
    for sent in outbox.take() {
        let Sent::ToNode(_, msg) = sent else { panic!("{sent:?}") };
        assert_eq!((msg.message_type, msg.sender_id.as_str()), (MessageType::Heartbeat, "n1"));
        let expected = Heartbeat { term: Some(term.clone()), metadata: None };
        assert_eq!(msg.content.parse::<Heartbeat>().unwrap(), expected);
    }
}

#[test]
fn heartbeats_cost_what_the_module_says() {
    for n in [2, 3, 10, 30_usize] {
        let ids: Vec<NodeId> = (0..n).map(|at| format!("n{at}").into()).collect();
        let mut sent = 0;
        for (at, id) in ids.iter().enumerate() {
            let mut detector = FailureDetector::new(id.clone(), DetectorTiming::default());
            for other in &ids {
                detector.watch(other, start());
            }
            let neighbors = [ids[(at + n - 1) % n].clone(), ids[(at + 1) % n].clone()];
            detector.set_near(neighbors.into(), ids.last(), start());
            sent += (0..FAR).map(|_| beat(&mut detector).len()).sum::<usize>();
        }
        assert!(sent < n * (n + 11), "{n} servers send {sent} in four intervals");
        assert!(sent >= n * (n - 1), "{n} servers send {sent} in four intervals");
    }
}

#[test]
fn both_ends_of_a_pair_agree_how_often_they_write() {
    let ids: Vec<NodeId> = (0..6).map(|at| format!("n{at}").into()).collect();
    let detectors: Vec<FailureDetector> = (0..6)
        .map(|at| {
            let mut detector = FailureDetector::new(ids[at].clone(), DetectorTiming::default());
            let neighbors = [ids[(at + 5) % 6].clone(), ids[(at + 1) % 6].clone()];
            detector.set_near(neighbors.into(), Some(&ids[5]), start());
            detector
        })
        .collect();
    for (a, b) in (0..6).flat_map(|a| (0..a).map(move |b| (a, b))) {
        assert_eq!(detectors[a].is_near(&ids[b]), detectors[b].is_near(&ids[a]), "n{a} and n{b}");
    }
}
