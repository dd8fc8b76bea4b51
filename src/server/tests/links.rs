//! Links, the ring, leaders ([`crate::server::peers`], `ring`, `leadership`, `discovery`).

use std::collections::BTreeMap;

use crate::domain::content::{
    Coordinator, DiscoveryContent, Liveness, MetadataContent, MetadataVersion,
};
use crate::domain::{Incarnation, Message, MessageType, NodeId, Term};
use crate::server::ServerState;
use crate::server::test_cluster::{TestCluster, config};

fn ids(names: &[&str]) -> Vec<NodeId> {
    names.iter().map(|name| NodeId::from(*name)).collect()
}

fn assert_whole(cluster: &TestCluster, ring: &[&str], leader: &str) {
    for (id, node) in &cluster.nodes {
        assert_eq!(node.node.ring(), ids(ring), "the ring of {id}");
        assert_eq!(node.node.leader_id(), Some(leader.into()), "the leader of {id}");
        assert!(node.node.is_ready(), "{id} takes clients");
    }
}

#[test]
fn three_servers_find_each_other_and_the_highest_id_leads() {
    let cluster = TestCluster::of(&["n1", "n2", "n10"]);
    assert_whole(&cluster, &["n1", "n2", "n10"], "n10");
    assert_eq!(cluster.node("n10").state(), ServerState::Leader);
    assert_eq!(cluster.node("n2").state(), ServerState::Follower);
}

#[test]
fn a_server_alone_leads_itself() {
    let cluster = TestCluster::of(&["n1"]);
    assert_whole(&cluster, &["n1"], "n1");
    assert_eq!(cluster.node("n1").get_neighbors(&"n1".into()), (None, None));
}

#[test]
fn both_ends_dialling_at_once_end_with_one_connection() {
    let cluster = TestCluster::of(&["n1", "n2"]);
    for id in ["n1", "n2"] {
        assert_eq!(cluster.node(id).conns.len(), 1, "connections of {id}");
    }
}

#[test]
fn a_dead_leader_is_replaced_and_leads_again_when_it_is_back() {
    let mut cluster = TestCluster::of(&["n1", "n2", "n3"]);
    let config = cluster.node("n3").config.clone();
    cluster.crash("n3");
    cluster.advance(2000);
    assert_whole(&cluster, &["n1", "n2"], "n2");
    let mut again = config;
    again.incarnation = Incarnation::new(&again.server_id, 2, 0);
    cluster.start(again);
    cluster.advance(2000);
    assert_whole(&cluster, &["n1", "n2", "n3"], "n3");
    let terms: Vec<u64> = cluster
        .nodes
        .values()
        .map(|node| node.node.election_module.term().unwrap().counter)
        .collect();
    assert!(terms.iter().all(|term| *term == terms[0] && *term >= 3), "{terms:?}");
}

#[test]
fn a_map_that_is_here_before_its_makers_announcement_tells_of_the_election() {
    let mut cluster = TestCluster::of(&["n1", "n2", "n3"]);
    let term = Term { counter: 9, leader: Incarnation::new(&"n3".into(), 1, 0) };
    let update = MetadataContent::Update {
        version: MetadataVersion { term: term.clone(), counter: 1 },
        base: None,
        room_locations: BTreeMap::new(),
    };
    let msg = Message::new(MessageType::MetadataUpdate, "n3").saying(&update);
    cluster.step(&"n1".into(), |node, step| node.handle_metadata(&msg, step));
    assert_eq!(cluster.node("n1").election_module.term(), Some(&term));
}

#[test]
fn a_leader_that_stops_is_replaced_without_waiting_for_its_silence() {
    let mut cluster = TestCluster::of(&["n1", "n2", "n3"]);
    cluster.step(&"n3".into(), super::super::server_node::ServerNode::stop);
    cluster.crash("n3");
    cluster.advance(50);
    assert_whole(&cluster, &["n1", "n2"], "n2");
}

#[test]
fn a_silent_server_is_suspected_then_dead_and_taken_in_again() {
    let mut cluster = TestCluster::of(&["n1", "n2", "n3"]);
    for to in ["n1", "n3"] {
        cluster.stall("n2", to, true);
    }
    cluster.advance(600);
    assert_eq!(cluster.node("n1").servers[&"n2".into()].liveness, Liveness::Suspect);
    assert_eq!(cluster.node("n1").ring().len(), 3, "a suspect still counts");
    cluster.advance(600);
    assert_eq!(cluster.node("n1").ring(), ids(&["n1", "n3"]));
    for to in ["n1", "n3"] {
        cluster.stall("n2", to, false);
    }
    cluster.advance(4000);
    assert_whole(&cluster, &["n1", "n2", "n3"], "n3");
}

#[test]
fn a_server_that_hears_of_others_by_one_peer_meets_them_all() {
    let mut cluster = TestCluster::default();
    for (id, peers) in [("n1", &[][..]), ("n2", &["n1"][..]), ("n3", &["n2"][..])] {
        cluster.start(config(id, peers, 1));
    }
    cluster.advance(4000);
    assert_whole(&cluster, &["n1", "n2", "n3"], "n3");
}

#[test]
fn discovery_needs_no_peers() {
    let mut cluster = TestCluster::default();
    for id in ["n1", "n2", "n3"] {
        cluster.start(crate::server::server_node::NodeConfig {
            discovery: true,
            ..config(id, &[], 1)
        });
    }
    cluster.advance(2000);
    assert_whole(&cluster, &["n1", "n2", "n3"], "n3");
}

#[test]
fn another_cluster_and_another_design_stay_apart() {
    let mut cluster = TestCluster::default();
    cluster.start(config("n1", &[], 1));
    for (id, name, design) in [("n2", "other", "ring"), ("n3", "test", "raft")] {
        let mut config = config(id, &["n1"], 1);
        config.cluster = name.into();
        config.design = design.into();
        cluster.start(config);
    }
    cluster.advance(2000);
    assert_eq!(cluster.node("n1").ring(), ids(&["n1"]));
    assert_eq!(cluster.node("n2").ring(), ids(&["n2"]));
    assert_eq!(cluster.node("n3").fatal(), None);
}

#[test]
fn a_second_server_with_an_id_that_is_taken_gives_way() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    // The newcomer has n2's id and its own address and disk.
    let mut second = config("n9", &["n1"], 1);
    second.server_id = "n2".into();
    second.incarnation = Incarnation::new(&second.server_id, 1, 7);
    let hello = {
        let node = crate::server::ServerNode::new(second, cluster.now());
        node.hello()
    };
    let stranger = cluster.connect("n1");
    cluster.say(&stranger, hello);
    assert_eq!(crate::server::test_cluster::got(&mut cluster, &stranger), ["ERROR NODE_ID_IN_USE"]);
    assert!(cluster.is_closed(&stranger));
    cluster.advance(1000);
    assert_whole(&cluster, &["n1", "n2"], "n2");
}

#[test]
fn a_server_that_dials_itself_notices() {
    let mut cluster = TestCluster::of(&["n1"]);
    let mut again = config("n1", &["n1"], 1);
    // Known to others under another name than to itself.
    again.address = "elsewhere:1".into();
    cluster.crash("n1");
    cluster.start(again);
    cluster.advance(3000);
    assert_whole(&cluster, &["n1"], "n1");
    assert!(cluster.node("n1").conns.is_empty());
}

#[test]
fn a_client_is_told_servers_leader_and_rooms_over_udp() {
    let mut cluster = TestCluster::of(&["n1", "n2"]);
    let _alice = cluster.member("n1", "alice", "lobby");
    let ask = DiscoveryContent::Client { cluster: "test".into() };
    let ask = Message::new(MessageType::Discovery, "").with_id("q").saying(&ask);
    let to = ([127, 0, 0, 1], 4242).into();
    cluster.step(&"n1".into(), |node, step| node.handle_udp_message(&ask, to, step));
    let answer = cluster.take(&("n1".into(), crate::network::ConnId(0)));
    let Ok(DiscoveryContent::Found { servers, leader, rooms, .. }) = answer[0].content.parse()
    else {
        panic!("{answer:?}")
    };
    assert_eq!(servers.iter().map(|server| server.id.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    assert_eq!((leader, rooms), (Some("n2".into()), vec!["lobby".to_string()]));
}

#[test]
fn a_coordinator_that_was_not_met_is_dialled() {
    let mut cluster = TestCluster::default();
    let bully = |id, peers: &[&str]| crate::server::server_node::NodeConfig {
        election: crate::server::election::ElectionKind::Bully,
        ..config(id, peers, 1)
    };
    cluster.start(bully("n1", &[]));
    let hello = crate::server::ServerNode::new(bully("n2", &[]), cluster.now()).hello();
    let n2 = cluster.connect("n1");
    cluster.say(&n2, hello);
    // Nobody told n1 of n3, which leads.
    let term = Term { counter: 5, leader: Incarnation::new(&"n3".into(), 1, 0) };
    let news = Coordinator { term, address: "n3:1".into() };
    cluster.say(&n2, Message::new(MessageType::Coordinator, "n2").saying(&news));
    assert_eq!(cluster.node("n1").leader_id(), Some("n3".into()));
    cluster.start(bully("n3", &[]));
    cluster.advance(500);
    assert!(cluster.node("n1").ring().contains(&"n3".into()), "{:?}", cluster.node("n1").ring());
}
