//! Tests of the past in portions: no step is long, and everyone gets a turn.

use super::*;
use crate::domain::{MessageType, NodeId};
use crate::network::ConnId;
use crate::server::test_cluster::{TestCluster, codes};

const READERS: [&str; 2] = ["bob", "carol"];

/// A room where `count` messages of `bytes` bytes were said, and two clients that have not joined it yet.
fn play(count: usize, bytes: usize) -> (TestCluster, [(NodeId, ConnId); 2]) {
    let mut cluster = TestCluster::of(&["n1"]);
    let alice = cluster.member("n1", "alice", "lobby");
    for number in 0..count {
        let id = format!("m{number}");
        let mut chat = Message::new(MessageType::Chat, "").with_id(id).in_room("lobby");
        chat.content = "x".repeat(bytes).as_str().into();
        cluster.say(&alice, chat);
    }
    let readers = READERS.map(|name| cluster.client("n1", name));
    for reader in &readers {
        cluster.take(reader);
    }
    (cluster, readers)
}

/// How many messages each reader has yet to be shown.
fn left(node: &ServerNode) -> [usize; 2] {
    let shown = node.managed_rooms["lobby"].message_history.len();
    READERS.map(|session| {
        let replay = node.replays.get(&(session.into(), "lobby".into()));
        replay.map_or(0, |replay| shown - replay.next)
    })
}

/// Both join at once. Returns how many messages each settling sends to each of them, until there are no more.
fn join(cluster: &mut TestCluster) -> Vec<[usize; 2]> {
    cluster.step(&"n1".into(), |node, step| {
        for session in READERS {
            node.start_replay(session, "lobby", 5000, None);
        }
        let mut sent = Vec::new();
        let mut before = left(node);
        while before != [0, 0] {
            node.settle(step);
            let after = left(node);
            assert_eq!(node.has_more_to_do(), after != [0, 0], "{after:?}");
            sent.push([before[0] - after[0], before[1] - after[1]]);
            before = after;
        }
        sent
    })
}

#[test]
fn a_step_sends_a_portion_and_everyone_gets_a_turn() {
    let (mut cluster, readers) = play(1000, 10);
    let sent = join(&mut cluster);
    // bob, carol, bob, …: each has a full portion, and who ends leaves the rest to the other.
    let full = STEP_MESSAGES;
    assert_eq!(sent[..4], [[full, 0], [0, full], [full, 0], [0, full]]);
    assert!(sent.iter().all(|[bob, carol]| bob + carol <= full), "{sent:?}");
    assert_eq!(sent.len(), (2 * 1000_usize).div_ceil(full));
    let wanted: Vec<String> = (0..1000).map(|number| format!("CHAT m{number}")).collect();
    for reader in &readers {
        assert_eq!(codes(&cluster.take(reader)), wanted);
    }
}

#[test]
fn long_messages_make_a_portion_of_few() {
    let (mut cluster, _) = play(10, STEP_BYTES / 3);
    let sent = join(&mut cluster);
    assert_eq!(sent[..2], [[3, 0], [0, 3]]);
    assert!(sent.iter().all(|[bob, carol]| bob + carol <= 3), "{sent:?}");
}
