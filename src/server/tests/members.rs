//! MEMBER: an operator asks any server, the leader lets servers in and out, and who is out knows it.

use crate::domain::content::{ErrorContent, MemberContent, MemberList, MemberRole};
use crate::domain::{Message, MessageType, NodeId};
use crate::server::test_cluster::{TestCluster, config, got};

const IDS: [&str; 3] = ["n1", "n2", "n3"];

fn start(cluster: &mut TestCluster, design: &str, id: &str, peers: &[&str]) {
    let mut config = config(id, peers, 1);
    config.design = design.into();
    // Each has its own luck, or all stand at the same moment again and again.
    config.seed = id.bytes().map(u64::from).sum();
    cluster.start(config);
}

fn three(design: &str) -> TestCluster {
    let mut cluster = TestCluster::default();
    for id in IDS {
        start(&mut cluster, design, id, &IDS);
    }
    cluster.advance(4000);
    cluster
}

/// Three servers of the design `raft`, and a fourth that they let in as a learner.
fn with_a_learner() -> TestCluster {
    let mut cluster = three("raft");
    start(&mut cluster, "raft", "n4", &["n1", "n2", "n3"]);
    cluster.advance(2000);
    assert_eq!(roles(&list(&mut cluster, "n1"))[3], ("n4".into(), MemberRole::Learner));
    cluster
}

fn leader(cluster: &TestCluster) -> String {
    cluster.nodes.values().find_map(|it| it.node.leader_id()).expect("a leader").to_string()
}

/// A server that does not lead.
fn follower(cluster: &TestCluster) -> String {
    let leader = leader(cluster);
    IDS.into_iter().find(|id| *id != leader).unwrap().into()
}

fn add(id: &str) -> MemberContent {
    MemberContent::Add { id: id.into(), address: None }
}

fn remove(id: &str) -> MemberContent {
    MemberContent::Remove { id: id.into() }
}

/// Asks `id`, waits for `ms`, and takes the answer.
fn ask(cluster: &mut TestCluster, id: &str, request: &MemberContent, ms: u64) -> Option<Message> {
    let operator = cluster.connect(id);
    let msg = Message::new(MessageType::Member, "").with_id("m").saying(request);
    cluster.say(&operator, msg);
    cluster.advance(ms);
    let answers = cluster.take(&operator);
    let answer = answers.into_iter().find(|msg| msg.message_type != MessageType::Heartbeat);
    if let Some(answer) = &answer {
        assert_eq!((answer.message_id.as_str(), answer.sender_id.as_str()), ("m", id));
    }
    answer
}

fn list_of(answer: &Message) -> MemberList {
    match answer.content.parse() {
        Ok(MemberContent::Listed(list)) => list,
        _ => panic!("no list: {answer:?}"),
    }
}

fn list(cluster: &mut TestCluster, id: &str) -> MemberList {
    list_of(&ask(cluster, id, &MemberContent::List, 0).expect("an answer"))
}

fn refusal(cluster: &mut TestCluster, id: &str, request: &MemberContent) -> ErrorContent {
    ask(cluster, id, request, 6000).expect("an answer").content.parse().expect("an error")
}

fn roles(list: &MemberList) -> Vec<(String, MemberRole)> {
    list.members.iter().map(|member| (member.id.to_string(), member.role)).collect()
}

fn voters(list: &MemberList) -> Vec<String> {
    roles(list).into_iter().filter(|(_, role)| *role == MemberRole::Voter).map(|it| it.0).collect()
}

fn waits_for(cluster: &mut TestCluster, id: &str) -> String {
    let status = cluster.step(&id.into(), |node, step| node.status(None, step));
    status.order.and_then(|order| order.waits_for).unwrap_or_default()
}

#[test]
fn whoever_is_asked_the_leader_answers() {
    let mut cluster = three("raft");
    let leader = leader(&cluster);
    for id in IDS {
        let list = list(&mut cluster, id);
        assert_eq!((list.node.as_str(), list.leader.as_ref()), (&*leader, Some(&list.node)));
        assert!(list.settled && list.term > 0);
        assert_eq!(voters(&list), IDS);
        for member in &list.members {
            assert!(member.connected && member.behind == Some(0), "{member:?}");
            assert_eq!(member.address, Some(format!("{}:1", member.id)));
        }
    }
}

#[test]
fn a_learner_is_added_through_any_server() {
    let mut cluster = with_a_learner();
    let asked = follower(&cluster);
    let answer = ask(&mut cluster, &asked, &add("n4"), 0).expect("an answer");
    assert_eq!(answer.message_type, MessageType::Member);
    cluster.advance(1000);
    let list = list(&mut cluster, "n4");
    assert!(list.settled);
    assert_eq!(voters(&list), ["n1", "n2", "n3", "n4"]);
    let refusal = refusal(&mut cluster, &asked, &add("n4"));
    assert_eq!((refusal.code.as_str(), refusal.retryable), ("CHANGE_REFUSED", false));
    assert_eq!(refusal.reason, "n4 is a voter already");
    // It counts: with two of four gone nothing is decided, and who is left says so.
    let leader = leader(&cluster);
    let others: Vec<&str> = IDS.into_iter().filter(|id| *id != leader).collect();
    cluster.crash(others[0]);
    cluster.crash(others[1]);
    cluster.advance(4000);
    let missing = others.join(", ");
    let expected =
        format!("no majority: 2 of 4 voters can be reached, 3 are needed; missing: {missing}");
    assert_eq!(waits_for(&mut cluster, "n4"), expected);
    assert_eq!(waits_for(&mut cluster, &leader), expected);
}

#[test]
fn a_server_that_nobody_knows_is_refused_or_dialled() {
    let mut cluster = three("raft");
    let (asked, leader) = (follower(&cluster), leader(&cluster));
    let refused = refusal(&mut cluster, &asked, &add("n4"));
    assert!(!refused.retryable);
    assert_eq!(
        refused.reason,
        format!(
            "n4 is not connected to the leader {leader}: start it with --peers {leader}:1, or name its address: member \
             add n4 HOST:PORT"
        )
    );
    // It runs, and knows nobody; it does not found a cluster of its own, because it waits for others.
    let mut config = config("n4", &[], 1);
    (config.design, config.bootstrap_expect) = ("raft".into(), 3);
    cluster.start(config);
    cluster.advance(500);
    let request = MemberContent::Add { id: "n4".into(), address: Some("n4:1".into()) };
    let answer = ask(&mut cluster, &asked, &request, 0).expect("an answer");
    let refused: ErrorContent = answer.content.parse().expect("an error");
    assert!(refused.retryable && refused.reason.contains("n4:1 is dialled now"), "{refused:?}");
    cluster.advance(1000);
    assert_eq!(
        ask(&mut cluster, &asked, &request, 0).expect("an answer").message_type,
        MessageType::Member
    );
    cluster.advance(1000);
    assert_eq!(voters(&list(&mut cluster, &asked)), ["n1", "n2", "n3", "n4"]);
    let elsewhere = MemberContent::Add { id: "n4".into(), address: Some("n9:1".into()) };
    assert!(
        refusal(&mut cluster, &asked, &elsewhere).reason.contains("n4 is at n4:1, not at n9:1")
    );
}

#[test]
fn a_removed_server_knows_it_and_sends_its_clients_away() {
    let mut cluster = with_a_learner();
    let out = follower(&cluster);
    let alice = cluster.member(&out, "alice", "lobby");
    ask(&mut cluster, &out, &remove(&out), 0).expect("an answer");
    cluster.advance(1500);
    assert_eq!(got(&mut cluster, &alice), ["ERROR NOT_READY"]);
    assert!(cluster.is_closed(&alice));
    assert!(waits_for(&mut cluster, &out).starts_with("this server was removed from the cluster"));
    assert!(!cluster.node(&out).is_ready());
    // It does not come back by itself, nor after a restart. Who forgot nothing tells it.
    let left: Vec<&str> = IDS.into_iter().filter(|id| *id != out).collect();
    cluster.restart(&out);
    cluster.advance(6000);
    assert_eq!(voters(&list(&mut cluster, "n4")), left);
    assert_eq!(roles(&list(&mut cluster, "n4")).len(), 3, "two voters and a learner");
    assert!(waits_for(&mut cluster, &out).starts_with("this server was removed from the cluster"));
    // An operator lets it in again, with what it has.
    ask(&mut cluster, "n4", &add(&out), 2000).expect("an answer");
    assert_eq!(voters(&list(&mut cluster, &out)), IDS);
    assert!(cluster.node(&out).is_ready());
    assert_eq!(waits_for(&mut cluster, &out), "");
}

#[test]
fn a_server_that_was_away_when_it_was_removed_is_told() {
    let mut cluster = with_a_learner();
    let (out, leader) = (follower(&cluster), leader(&cluster));
    let records = cluster.crash(&out);
    cluster.advance(3000);
    ask(&mut cluster, "n4", &remove(&out), 1000).expect("an answer");
    assert_eq!(voters(&list(&mut cluster, "n4")).len(), 2);
    assert!(!cluster.node(&leader).servers.contains_key(&NodeId::from(&*out)), "it is forgotten");
    let mut config = config(&out, &IDS, 7);
    config.design = "raft".into();
    cluster.start_with_log(config, records);
    cluster.advance(6000);
    assert!(waits_for(&mut cluster, &out).starts_with("this server was removed from the cluster"));
    assert_eq!(roles(&list(&mut cluster, "n4")).len(), 3, "it is not even a learner");
    assert_eq!(
        cluster.node(&leader).leader_id(),
        Some(NodeId::from(&*leader)),
        "nobody is deposed"
    );
}

#[test]
fn the_leader_is_removed_through_itself() {
    let mut cluster = with_a_learner();
    let out = leader(&cluster);
    ask(&mut cluster, &out, &add("n4"), 1000).expect("an answer");
    let answer = ask(&mut cluster, &out, &remove(&out), 0).expect("an answer");
    assert!(list_of(&answer).get(&NodeId::from(&*out)).is_none());
    cluster.advance(2000);
    let list = list(&mut cluster, "n4");
    assert!(list.settled && list.leader.as_ref().is_some_and(|leader| leader.as_str() != out));
    assert_eq!(voters(&list).len(), 3);
    assert!(!cluster.node(&out).is_ready());
}

#[test]
fn without_a_leader_the_members_are_listed_and_not_changed() {
    let mut cluster = three("raft");
    cluster.crash("n1");
    cluster.crash("n2");
    cluster.advance(4000);
    let list = list(&mut cluster, "n3");
    assert_eq!((list.node.as_str(), list.leader.as_ref()), ("n3", None));
    assert_eq!(voters(&list), IDS);
    let connected: Vec<bool> = list.members.iter().map(|member| member.connected).collect();
    assert_eq!(connected, [false, false, true]);
    let refused = refusal(&mut cluster, "n3", &remove("n1"));
    assert_eq!((refused.code.as_str(), refused.retryable), ("NOT_READY", true));
    assert!(refused.reason.contains("missing: n1, n2"), "{}", refused.reason);
}

#[test]
fn a_leader_that_dies_with_the_question_is_not_waited_for() {
    let mut cluster = three("raft");
    let (asked, leader) = (follower(&cluster), leader(&cluster));
    cluster.stall(&asked, &leader, true);
    let operator = cluster.connect(&asked);
    let msg = Message::new(MessageType::Member, "").with_id("m").saying(&remove(&leader));
    cluster.say(&operator, msg);
    cluster.crash(&leader);
    cluster.advance(4000);
    let mut told = cluster.take(&operator);
    told.retain(|msg| msg.message_type != MessageType::Heartbeat);
    let refused: ErrorContent = told[0].content.parse().unwrap();
    assert_eq!((refused.code.as_str(), refused.retryable), ("CHANGE_REFUSED", true));
    assert!(refused.reason.starts_with("the leader changed"), "{}", refused.reason);
    assert_eq!(voters(&list(&mut cluster, &asked)), IDS);
}

#[test]
fn a_wiped_voter_is_shown_until_it_votes_again() {
    let mut cluster = three("raft");
    let (wiped, leader) = (follower(&cluster), leader(&cluster));
    let third = IDS.into_iter().find(|id| *id != wiped && *id != leader).unwrap();
    cluster.crash(&leader);
    cluster.crash(&wiped);
    cluster.advance(4000);
    let mut config = config(&wiped, &IDS, 9);
    (config.design, config.disk_id) = ("raft".into(), "another".into());
    cluster.start(config);
    cluster.advance(4000);
    // Alone with it the third decides nothing.
    let status = cluster.step(&third.into(), |node, step| node.status(None, step)).order.unwrap();
    assert_eq!(status.wiped, [NodeId::from(&*wiped)]);
    assert!(status.waits_for.unwrap().starts_with("no majority: 1 of 3 voters"));
    let list = list(&mut cluster, third);
    assert!(roles(&list).contains(&(wiped, MemberRole::Wiped)));
}

#[test]
fn designs_with_fixed_voters_say_so() {
    let mut cluster = three("sequencer");
    let list = list(&mut cluster, "n1");
    assert_eq!((voters(&list), list.settled), (IDS.map(String::from).to_vec(), true));
    assert_eq!(list.get(&"n3".into()).and_then(|member| member.behind), Some(0));
    let refused = refusal(&mut cluster, "n1", &remove("n2"));
    assert_eq!((refused.code.as_str(), refused.retryable), ("CHANGE_REFUSED", false));
    assert_eq!(
        refused.reason,
        "the design \"sequencer\" fixes its voters when the cluster is founded; with raft they can change"
    );
    let mut ring = TestCluster::of(&["n1"]);
    let refused = refusal(&mut ring, "n1", &MemberContent::List);
    assert_eq!(refused.code, "UNSUPPORTED");
    assert_eq!(refused.reason, "the design \"ring\" of this cluster has no voters");
}

#[test]
fn what_is_no_request_is_refused() {
    let mut cluster = three("raft");
    let operator = cluster.connect("n1");
    let mut say = |text: &str| {
        let msg = Message::deserialize(text).unwrap();
        cluster.say(&operator, msg);
        got(&mut cluster, &operator)
    };
    for content in [r#"{"kind":"promote","id":"n4"}"#, r#"{"kind":"add"}"#, r#""n4""#] {
        let text = format!(r#"{{"message_id":"m","type":"MEMBER","content":{content}}}"#);
        assert_eq!(say(&text), ["ERROR INVALID_FIELD"], "{content}");
    }
    // An answer is no question.
    let refused = r#"{"type":"MEMBER","content":{"kind":"refused","reason":"","retryable":true}}"#;
    assert_eq!(say(refused), ["ERROR INVALID_FIELD"]);
    // Nor is it for clients that are in.
    let alice = cluster.member("n1", "alice", "lobby");
    cluster.say(&alice, Message::new(MessageType::Member, "").saying(&MemberContent::List));
    assert_eq!(got(&mut cluster, &alice), ["ERROR UNEXPECTED_TYPE"]);
}
