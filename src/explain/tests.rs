//! Every state that can be described, each by the sentence that a person would want to read.

use super::*;
use crate::domain::content::{
    HeldBack, Liveness, OrderStatus, RoomStatus, ServerStatus, StorageStatus, TimeState,
};

/// The address of the server `id`.
fn address(id: &str) -> String {
    format!("h:{}", &id[1..])
}

/// `node`'s status in a ring: everyone of `alive` is alive for it, everyone of `dead` dead for 12 s.
fn ring(node: &str, leader: &str, alive: &[&str], dead: &[&str]) -> Status {
    let server = |id: &&str, state, heard| ServerStatus {
        id: (**id).into(),
        address: address(id),
        state,
        last_heartbeat_ms: Some(heard),
        healthy: None,
    };
    let mut servers: Vec<ServerStatus> =
        alive.iter().map(|id| server(id, Liveness::Alive, 20)).collect();
    servers.extend(dead.iter().map(|id| server(id, Liveness::Dead, 12_000)));
    Status {
        node: node.into(),
        state: if leader == node { "LEADER" } else { "FOLLOWER" }.into(),
        leader: (!leader.is_empty()).then(|| leader.into()),
        term: 4,
        design: "ring".into(),
        cluster: "roundtable".into(),
        servers,
        ring: alive.iter().map(|id| (*id).into()).collect(),
        rooms: Vec::new(),
        storage: None,
        time: None,
        order: None,
        disk_fault: None,
        not_ready: None,
        syncs: 0,
        heartbeat_lateness: None,
        leader_changes: None,
    }
}

/// The same in a design with one order, of which n1, n2 and n3 are the voters.
fn ordered(node: &str, leader: &str, alive: &[&str], dead: &[&str], committed: u64) -> Status {
    let order = OrderStatus {
        committed,
        last: committed,
        voters: ["n1", "n2", "n3"].map(Into::into).into(),
        ..OrderStatus::default()
    };
    Status { design: "raft".into(), order: Some(order), ..ring(node, leader, alive, dead) }
}

fn answers(said: Vec<Status>) -> Vec<Answer> {
    let answer =
        |status: Status| Answer { address: address(status.node.as_str()), status: Ok(status) };
    said.into_iter().map(answer).collect()
}

/// What is said about `said`, as lines: a mark and the sentence.
fn lines(said: Vec<Status>) -> Vec<String> {
    lines_of(&answers(said))
}

fn lines_of(answers: &[Answer]) -> Vec<String> {
    let mark = |weight| match weight {
        Weight::Fine => '✓',
        Weight::Note => '·',
        Weight::Trouble => '!',
    };
    let findings = explain(answers);
    for finding in &findings {
        assert_eq!(finding.remedy.is_none(), finding.weight == Weight::Fine, "{}", finding.what);
        assert!(finding.what.ends_with(['.', ')']), "a sentence: {}", finding.what);
    }
    findings.iter().map(|finding| format!("{} {}", mark(finding.weight), finding.what)).collect()
}

const ALL: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn all_is_well() {
    let said = ALL.map(|id| ordered(id, "n2", &ALL, &[], 90)).into();
    assert_eq!(lines(said), ["✓ You can write: n2 leads in term 4, all 3 voters are here."]);
    let said = ALL.map(|id| ring(id, "n3", &ALL, &[])).into();
    assert_eq!(lines(said), ["✓ You can write: n3 leads in term 4, 3 servers are here."]);
    let alone = vec![ring("n1", "n1", &["n1"], &[])];
    assert_eq!(lines(alone), ["✓ You can write: n1 leads in term 4, one server is here."]);
}

#[test]
fn nobody_answers() {
    let silent = Answer { address: "h:1".into(), status: Err("connection refused".into()) };
    assert_eq!(lines_of(&[silent]), ["! No server answers (h:1: connection refused)."]);
    assert_eq!(lines_of(&[]), ["! No server is known."]);
}

#[test]
fn servers_that_do_not_belong_together() {
    let said = vec![ring("n1", "n1", &["n1"], &[]), ordered("n2", "n2", &["n2"], &[], 0)];
    let expected = "! These servers do not belong together (n2: cluster roundtable, design raft; \
                    n1: cluster roundtable, design ring).";
    assert_eq!(lines(said), [expected]);
}

#[test]
fn one_of_three_is_dead() {
    let said = ["n1", "n2"].map(|id| ordered(id, "n2", &["n1", "n2"], &["n3"], 5)).into();
    assert_eq!(
        lines(said),
        [
            "✓ You can write: n2 leads in term 4, 2 of 3 voters are here (n1 and n2).",
            "! n3 (h:3) is dead for n1 and n2: last heard 12 s ago.",
        ]
    );
}

#[test]
fn no_majority() {
    let said = vec![ordered("n1", "", &["n1"], &["n2", "n3"], 5)];
    let findings = explain(&answers(said));
    assert_eq!(
        findings[0].what,
        "Nobody can write: there is no majority. 1 of 3 voters is here (n1), 2 are needed; missing: n2 and n3."
    );
    assert_eq!(
        findings[0].remedy.as_deref(),
        Some("Start 1 of n2 and n3 again, with their data folders, or mend the network to them.")
    );
    assert_eq!(findings.len(), 3);
}

#[test]
fn an_old_leader_without_a_majority_is_not_believed() {
    let said = vec![ordered("n1", "n1", &["n1"], &["n2", "n3"], 5)];
    assert!(lines(said)[0].starts_with("! Nobody can write: there is no majority."));
}

#[test]
fn an_election_is_under_way() {
    let said = ALL.map(|id| ordered(id, "", &ALL, &[], 5)).into();
    let expected = "! Nobody can write at this moment: no leader is known after term 4, though all 3 voters are here.";
    assert_eq!(lines(said), [expected]);
    let said = ALL.map(|id| ring(id, "", &ALL, &[])).into();
    let expected =
        "· You can write in rooms that exist. No leader is known, so no room can be made.";
    assert_eq!(lines(said), [expected]);
}

#[test]
fn the_cluster_is_not_founded() {
    let mut status = ordered("n1", "", &["n1"], &[], 0);
    let waits_for =
        Some("the cluster is not founded: 1 of 3 first voters are here (n1)".to_string());
    status.order = Some(OrderStatus { waits_for, ..OrderStatus::default() });
    let expected =
        "! Nobody can write yet: the cluster is not founded: 1 of 3 first voters are here (n1).";
    assert_eq!(lines(vec![status]), [expected]);
}

#[test]
fn a_voter_that_lost_its_log() {
    let mut said: Vec<Status> = ALL.map(|id| ordered(id, "n2", &ALL, &[], 90)).into();
    let waits_for = Some("this server is a voter that lost its log".to_string());
    said[0].order.as_mut().unwrap().waits_for = waits_for;
    assert_eq!(lines(said)[1..], ["· n1: this server is a voter that lost its log."]);
}

#[test]
fn a_server_lags() {
    let said = vec![
        ordered("n1", "n2", &ALL, &[], 200),
        ordered("n2", "n2", &ALL, &[], 1404),
        ordered("n3", "n2", &ALL, &[], 1400),
    ];
    assert_eq!(lines(said)[1..], ["· n1 lags 1204 entries behind n2 (200 of 1404)."]);
}

#[test]
fn one_still_follows_an_old_leader_and_one_knows_none() {
    let old = Status { term: 3, ..ordered("n1", "n3", &ALL, &[], 5) };
    let said = vec![old, ordered("n2", "n2", &ALL, &[], 5), ordered("n3", "", &ALL, &[], 5)];
    assert_eq!(
        lines(said)[1..],
        [
            "· n1 still takes n3 for the leader (term 3), though n2 leads in term 4.",
            "· n3 knows no leader, though n2 leads in term 4: its clients wait.",
        ]
    );
}

#[test]
fn a_ring_in_two_parts() {
    let said = vec![
        ring("n1", "n2", &["n1", "n2"], &["n3"]),
        ring("n2", "n2", &["n1", "n2"], &["n3"]),
        ring("n3", "n3", &["n3"], &["n1", "n2"]),
    ];
    assert_eq!(
        lines(said),
        [
            "! You can write, but the cluster is in 2 parts: n1 and n2 with leader n2; n3 with leader n3. \
             Each part talks on for itself.",
            "! n1 does not hear n3, which answers here: the way between them is cut.",
            "! n2 does not hear n3, which answers here: the way between them is cut.",
            "! n3 does not hear n1 and n2, which answer here: the way between them is cut.",
            "· n3 is alone: what it acknowledges now is on its disk only, and out of reach while it is down.",
        ]
    );
}

#[test]
fn a_server_that_others_hear_and_we_do_not() {
    let said = ["n1", "n2"].map(|id| ring(id, "n2", &ALL, &[])).into();
    let expected = "· n3 (h:3) does not answer here, but others hear it: last heard 20 ms ago.";
    assert_eq!(lines(said)[1..], [expected]);
}

#[test]
fn an_address_where_nobody_is() {
    let mut answers = answers(vec![ring("n1", "n1", &["n1"], &[])]);
    answers.push(Answer { address: "h:9".into(), status: Err("connection refused".into()) });
    assert_eq!(lines_of(&answers)[1..], ["· h:9 does not answer: connection refused."]);
}

#[test]
fn a_disk_is_full() {
    let mut said: Vec<Status> = ALL.map(|id| ordered(id, "n2", &ALL, &[], 90)).into();
    said[1].disk_fault = Some("No space left on device (os error 28)".into());
    let expected = "! n2 cannot write its log (No space left on device (os error 28)): it acknowledges nothing.";
    assert_eq!(lines(said)[1..], [expected]);
}

#[test]
fn messages_wait() {
    let held = HeldBack {
        sender: "bob".into(),
        origin: "n1.3-9f2c".into(),
        count: 7,
        awaited: "n3.1-77aa".into(),
        awaited_count: 4,
        here: 3,
    };
    let room = RoomStatus {
        room_id: "lobby".into(),
        held_back: vec![held.clone(), held],
        unacknowledged: Some(2),
        ..RoomStatus::default()
    };
    let mut status = ring("n2", "n2", &["n2"], &[]);
    status.rooms = vec![room];
    assert_eq!(
        lines(vec![status])[1..],
        [
            "· In room lobby on n2, message 7 of n1.3-9f2c (from bob) waits for message 4 of n3.1-77aa; 3 are \
             here; others wait, too.",
            "· In room lobby, 2 messages wait on n2 for the acknowledgement.",
        ]
    );
}

#[test]
fn a_replica_of_a_room_lags() {
    let room = |messages| RoomStatus {
        room_id: "lobby".into(),
        replicas: vec!["n1".into(), "n2".into()],
        messages,
        ..RoomStatus::default()
    };
    let mut said: Vec<Status> = ["n1", "n2", "n3"].map(|id| ring(id, "n3", &ALL, &[])).into();
    for (status, messages) in said.iter_mut().zip([900, 1000, 0]) {
        status.rooms = vec![room(messages)];
    }
    assert_eq!(lines(said)[1..], ["· In room lobby, n1 has 900 of the 1000 messages of n2."]);
}

#[test]
fn two_states_differ() {
    let mut said: Vec<Status> = ALL.map(|id| ordered(id, "n2", &ALL, &[], 90)).into();
    for (status, digest) in said.iter_mut().zip(["aa", "bb", "aa"]) {
        status.storage = Some(StorageStatus { applied: 90, digest: digest.into() });
    }
    assert_eq!(
        lines(said)[1..],
        ["! The state after entry 90 differs: aa on n1 and n3, bb on n2."]
    );
}

#[test]
fn a_port_takes_no_connection_and_a_clock_stands_alone() {
    let mut said: Vec<Status> = ALL.map(|id| ordered(id, "n2", &ALL, &[], 90)).into();
    said[0].servers[2].healthy = Some(false);
    let reason = "t:123 does not answer".to_string();
    said[1].time = Some(TimeState::Unsynchronised { reason });
    assert_eq!(
        lines(said)[1..],
        [
            "· The port of n3 takes no new connection from n1.",
            "· n2 has the time of its own clock only: t:123 does not answer.",
        ]
    );
}

#[test]
fn whoever_is_named_and_was_not_asked_is_asked_next() {
    let status = ring("n1", "n2", &["n1", "n2"], &["n3"]);
    let asked = vec![
        Answer { address: "other-name:1".into(), status: Ok(status) },
        Answer { address: "h:3".into(), status: Err("connection refused".into()) },
    ];
    assert_eq!(not_asked(&asked), ["h:2"]);
}
