//! Three servers of the design `raft`: what waits for disks, and what for the log.

use super::*;
use crate::domain::content::Joined;

const IDS: [&str; 3] = ["n1", "n2", "n3"];

/// Three servers, with who leads and who follows.
fn three() -> (TestCluster, &'static str, [&'static str; 2]) {
    let mut cluster = TestCluster::default();
    for (seed, id) in (1..).zip(IDS) {
        let mut config = config(id, &IDS, 1);
        // Of one luck all would stand at once, again and again.
        (config.design, config.seed) = ("raft".into(), seed);
        cluster.start(config);
    }
    cluster.advance(4000);
    let leader = cluster.node("n1").leader_id().unwrap();
    let (leads, follows): (Vec<_>, Vec<_>) = IDS.into_iter().partition(|id| *id == leader.as_str());
    (cluster, leads[0], [follows[0], follows[1]])
}

#[test]
fn nothing_is_acknowledged_or_shown_before_a_majority_has_synced_it() {
    for (first, second) in [(0, 1), (1, 0), (1, 2), (2, 1), (2, 0)] {
        let (mut cluster, leader, [one, other]) = three();
        let disks = [leader, one, other];
        let alice = cluster.member(one, "alice", "lobby");
        cluster.chat(&alice, "lobby", "a");
        cluster.advance(100);
        assert_eq!(got(&mut cluster, &alice), ["CHAT a", "ACK a"]);
        for id in &disks {
            cluster.set_syncing(id, false);
        }
        cluster.chat(&alice, "lobby", "b");
        cluster.advance(200);
        assert_eq!(got(&mut cluster, &alice), [""; 0], "no disk has it");
        cluster.set_syncing(disks[first], true);
        cluster.advance(200);
        assert_eq!(got(&mut cluster, &alice), [""; 0], "only {}'s disk has it", disks[first]);
        cluster.set_syncing(disks[second], true);
        cluster.advance(200);
        assert_eq!(got(&mut cluster, &alice), ["CHAT b", "ACK b"], "{first} and {second}");
    }
}

#[test]
fn a_read_waits_until_a_restarted_server_has_all_that_was_committed() {
    let (mut cluster, leader, [behind, _]) = three();
    let alice = cluster.member(leader, "alice", "lobby");
    // What was said before is on its disk, what comes now is not.
    cluster.chat(&alice, "lobby", "a");
    cluster.advance(100);
    cluster.set_syncing(behind, false);
    cluster.chat(&alice, "lobby", "b");
    cluster.chat(&alice, "lobby", "c");
    cluster.advance(100);
    assert_eq!(got(&mut cluster, &alice).len(), 6, "two of three are a majority");
    // It hears the leader, and the leader does not hear what it lacks.
    cluster.stall(behind, leader, true);
    cluster.restart(behind);
    let bob = cluster.connect(behind);
    let hello = Message::new(MessageType::ClientJoin, "bob").with_id("hello");
    cluster.say(&bob, hello.saying(&joining("bob")));
    cluster.join(&bob, "lobby", JoinRoom { history: Some(9), ..JoinRoom::default() });
    cluster.advance(600);
    let told = got(&mut cluster, &bob);
    assert!(!told.iter().any(|told| told.starts_with("CHAT")), "{told:?}");
    cluster.stall(behind, leader, false);
    cluster.advance(2000);
    let told = cluster.take(&bob);
    let texts: Vec<&str> = told.iter().map(|msg| msg.content.text()).collect();
    let joined = told.iter().filter_map(|msg| msg.content.parse::<Joined>().ok());
    assert!(joined.map(|joined| joined.history).any(|history| history == 3), "{told:?}");
    let said = told.iter().filter(|msg| msg.message_type == MessageType::Chat);
    assert_eq!(
        said.map(|msg| msg.message_id.as_str()).collect::<Vec<_>>(),
        ["a", "b", "c"],
        "{texts:?}"
    );
}
