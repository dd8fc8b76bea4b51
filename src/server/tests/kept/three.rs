//! The same over three servers of the design `sequencer`.

use super::*;
use crate::domain::content::StorageStatus;

const IDS: [&str; 3] = ["n1", "n2", "n3"];

/// Three servers with a leader.
fn three() -> TestCluster {
    let mut cluster = TestCluster::default();
    for id in IDS {
        let mut config = config(id, &IDS, 1);
        config.design = "sequencer".into();
        cluster.start(config);
    }
    cluster.advance(4000);
    cluster
}

fn storages(cluster: &mut TestCluster) -> Vec<StorageStatus> {
    let ids: Vec<_> = cluster.nodes.keys().cloned().collect();
    let status = |id| cluster.step(id, |node, step| node.status(None, step)).storage.unwrap();
    ids.iter().map(status).collect()
}

#[test]
fn what_is_said_and_deleted_through_any_server_is_the_same_on_all() {
    let mut cluster = three();
    let (alice, bob) =
        (cluster.member("n1", "alice", "lobby"), cluster.member("n2", "bob", "lobby"));
    cluster.chat(&alice, "lobby", "a");
    cluster.chat(&bob, "lobby", "b");
    cluster.advance(300);
    delete(&mut cluster, &alice, "d", "a");
    delete(&mut cluster, &bob, "e", "a");
    cluster.advance(300);
    let told: Vec<String> =
        got(&mut cluster, &bob).into_iter().filter(|told| !told.starts_with("JOIN_ROOM")).collect();
    assert_eq!(told, ["CHAT a", "CHAT b", "ACK b", "DELETE", "ERROR NOT_FOUND"]);
    let storages = storages(&mut cluster);
    assert!(storages[0].applied > 0);
    assert!(storages.iter().all(|storage| *storage == storages[0]), "{storages:?}");
}

#[test]
fn a_token_is_taken_by_every_server_and_a_registration_survives_its_leader() {
    let mut cluster = three();
    let leader = cluster.node("n1").leader_id().unwrap();
    let others: Vec<&str> = IDS.into_iter().filter(|id| *id != leader.as_str()).collect();
    let join = ClientJoin { password: Some("sesame".into()), ..joining("s") };
    let greet = |cluster: &mut TestCluster, id: &str, join: &ClientJoin| {
        let client = cluster.connect(id);
        let msg = Message::new(MessageType::ClientJoin, "alice").with_id("hello").saying(join);
        cluster.say(&client, msg);
        cluster.advance(300);
        let told = cluster.take(&client);
        assert_eq!(codes(&told)[0], "ACK", "{told:?}");
        (client, told[0].content.parse::<Welcome>().unwrap())
    };
    let (_, welcome) = greet(&mut cluster, others[0], &join);
    let back = ClientJoin { token: welcome.token, since: welcome.log_time, ..joining("s") };
    let (alice, _) = greet(&mut cluster, others[1], &back);
    cluster.join(&alice, "lobby", JoinRoom::default());
    cluster.advance(300);
    cluster.take(&alice);
    // The leader dies with what was passed on to it.
    cluster.stall(leader.as_str(), others[0], true);
    cluster.stall(leader.as_str(), others[1], true);
    cluster.chat(&alice, "lobby", "a");
    cluster.crash(leader.as_str());
    cluster.advance(4000);
    assert_eq!(got(&mut cluster, &alice), ["CHAT a", "ACK a"]);
}
