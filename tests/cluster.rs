//! Servers as processes: how they find each other, elect a leader, lose one, and end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roundtable::domain::content::{DiscoveryContent, ErrorContent, Hello, Liveness};
use roundtable::domain::{Message, MessageType};
use support::cluster::{Cluster, Server, free_address};
use support::wire::{Framing, RawClient, server_in};
use support::{DEADLINE, PROGRAM, program, wait_until, wait_within};

/// How long ctrl-c may take: it should take 2 s, on a machine that does nothing else.
const STOP_LIMIT: Duration = Duration::from_secs(5);

// ---------------------------------------------------------------- finding each other

#[test]
fn servers_that_start_at_once_agree_on_the_highest_id_in_natural_order() {
    let cluster = Cluster::start(10, &[]); // n10 outranks n9
    let mut terms = BTreeSet::new();
    for server in &cluster.servers {
        let status = server.status().unwrap();
        assert_eq!(status.leader, Some("n10".into()));
        assert_eq!(status.ring.len(), 10);
        assert!(status.servers.iter().all(|server| server.state == Liveness::Alive), "{status:?}");
        terms.insert(status.term);
        assert_eq!(status.state, if server.id == "n10" { "LEADER" } else { "FOLLOWER" });
    }
    assert_eq!(terms.len(), 1, "all are in the same term");
    cluster.assert_serves();
}

#[cfg(target_os = "linux")]
#[test]
fn servers_that_dial_each_other_at_once_end_with_one_connection_for_each_pair() {
    let cluster = Cluster::start(4, &[]);
    let once_each = || linux::links(&cluster).values().all(|count| *count == 1);
    wait_until("each pair has one connection", || {
        let links = linux::links(&cluster);
        (links.len() == 6 && links.values().all(|count| *count == 1)).then_some(())
    });
    // Nobody dials a server that is connected: it stays so.
    let changed = wait_within(Duration::from_secs(1), || (!once_each()).then_some(()));
    assert!(changed.is_none(), "{:?}", linux::links(&cluster));
    assert_eq!(cluster.complaints(), [""; 0]);
}

#[cfg(target_os = "linux")]
mod linux {
    use super::{BTreeSet, Cluster};
    use std::collections::BTreeMap;
    use std::fs;

    /// How many established connections each pair of servers has, by the kernel's own table.
    pub(super) fn links(cluster: &Cluster) -> BTreeMap<(String, String), usize> {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        // Each end of a connection is a line: local address, remote address, state, …, inode.
        let mut ends: BTreeMap<(String, String), String> = BTreeMap::new();
        for server in &cluster.servers {
            let sockets = sockets_of(server.pid());
            for line in table.lines().skip(1) {
                let words: Vec<&str> = line.split_whitespace().collect();
                if words[3] == "01" && sockets.contains(words[9]) {
                    ends.insert((words[1].into(), words[2].into()), server.id.clone());
                }
            }
        }
        let mut links = BTreeMap::new();
        for ((local, remote), owner) in &ends {
            if let Some(other) = ends.get(&(remote.clone(), local.clone()))
                && owner < other
            {
                *links.entry((owner.clone(), other.clone())).or_default() += 1;
            }
        }
        links
    }

    /// The inodes of the sockets that a process has open.
    fn sockets_of(pid: u32) -> BTreeSet<String> {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        targets
            .filter_map(|target| {
                let target = target.to_string_lossy();
                Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_string())
            })
            .collect()
    }
}

#[test]
fn servers_and_clients_find_each_other_by_udp_without_configuration() {
    let port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let cluster = Cluster::start_discovered(3, port);

    // As a client of another language would ask.
    let asker = UdpSocket::bind("0.0.0.0:0").unwrap();
    asker.set_broadcast(true).unwrap();
    asker.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let question = DiscoveryContent::Client { cluster: cluster.name.clone() };
    let question = Message::new(MessageType::Discovery, "ann").saying(&question).serialize();
    let answer = wait_until("a server answers", || {
        asker.send_to(question.as_bytes(), ("127.255.255.255", port)).unwrap();
        let mut buffer = vec![0; 65536];
        let (count, _) = asker.recv_from(&mut buffer).ok()?;
        Message::decode(&buffer[..count]).ok()
    });
    let Ok(DiscoveryContent::Found { servers, leader, cluster: name, .. }) = answer.content.parse()
    else {
        panic!("{}", answer.serialize())
    };
    assert_eq!((leader, &name), (Some("n3".into()), &cluster.name));
    let found: BTreeSet<String> = servers.iter().map(|server| server.address.clone()).collect();
    let expected = cluster.servers.iter().map(|server| server.address.to_string());
    assert_eq!(found, expected.collect());

    // And as our own does.
    let port = port.to_string();
    let find = ["--cluster", &cluster.name, "--discovery-port", &port];
    let output = program().args(["status", "--format", "json"]).args(find).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["leader"], "n3");
    cluster.assert_serves();
}

#[test]
fn a_server_of_another_cluster_is_refused_by_name() {
    let cluster = Cluster::start(2, &[]);
    let peers = cluster.connect_list(0);
    let args = ["--no-discovery", "--server-timeout-ms", "300", "--peers", &peers];
    let args = [&args[..], &["--cluster", "strangers"]].concat();
    let mut stranger = Server::new(cluster.folder.path(), "n9", free_address(), &args);
    stranger.start();
    let wanted = format!("n9 belongs to the cluster \"strangers\", n1 to {:?}", cluster.name);
    wait_until("both sides name the clusters", || {
        let told = stranger.log().contains(&wanted) && cluster.servers[0].log().contains(&wanted);
        told.then_some(())
    });
    // Each goes on without the other.
    wait_until("the stranger leads itself", || {
        (stranger.status()?.leader? == "n9".into()).then_some(())
    });
    assert_eq!(stranger.status().unwrap().ring, ["n9".into()]);
    assert!(cluster.agrees());
    cluster.assert_serves();
}

#[test]
fn a_hello_of_another_cluster_or_design_is_answered_with_an_error() {
    let cluster = Cluster::start(1, &[]);
    let right = Hello {
        cluster: cluster.name.clone(),
        design: "ring".into(),
        election: "hs".into(),
        id: "n9".into(),
        disk_id: "d".into(),
        incarnation: "n9.1-0000".into(),
        address: "127.0.0.1:1".into(),
        version: "0".into(),
        term: None,
        cluster_id: None,
    };
    let other = Hello { cluster: "other".into(), ..right.clone() };
    let raft = Hello { design: "raft".into(), ..right.clone() };
    let bully = Hello { election: "bully".into(), ..right.clone() };
    let same = Hello { id: "n1".into(), ..right.clone() };
    let name = &cluster.name;
    let address = cluster.address(0);
    for (hello, code, reason) in [
        (other, "WRONG_CLUSTER", format!("n9 belongs to the cluster \"other\", n1 to {name:?}")),
        (raft, "WRONG_CLUSTER", "n9 runs the design \"raft\", n1 runs \"ring\"".into()),
        (
            bully,
            "WRONG_CLUSTER",
            "n9 holds elections by \"bully\", n1 by \"hs\"; give both the same --election".into(),
        ),
        (
            same,
            "NODE_ID_IN_USE",
            format!("another server with the id n1 is connected ({address}); choose another --id"),
        ),
    ] {
        let mut peer = RawClient::connect(address, Framing::Prefixed);
        peer.send(&Message::new(MessageType::Hello, "n9").saying(&hello));
        let answer = peer.expect("an ERROR");
        let error: ErrorContent = answer.content.parse().unwrap();
        assert_eq!((error.code.as_str(), error.reason), (code, reason));
        peer.expect_closed();
    }
    cluster.assert_serves();
}

#[test]
fn a_second_server_under_the_same_id_gives_up_and_says_so() {
    let cluster = Cluster::start(3, &[]);
    let peers = cluster.connect_list(0);
    let args = ["--no-discovery", "--cluster", &cluster.name, "--peers", &peers];
    for id in ["n2", "n3"] {
        let mut double = Server::new(cluster.folder.path(), id, free_address(), &args);
        let (code, said) = double.start_in_vain();
        assert_eq!(code, Some(1), "{said}");
        let wanted = format!("roundtable: another server with the id {id} is connected (");
        assert!(said.contains(&wanted), "{said}");
        assert!(said.contains("choose another --id"), "{said}");
    }
    assert!(cluster.agrees(), "the owners of the ids stay");
    cluster.assert_serves();
}

#[test]
fn a_peer_whose_name_means_nothing_yet_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    // A label has 63 letters at most, so that no resolver of this machine has to be asked, and none can know it.
    let nobody = format!("{}:7001", "n".repeat(64));
    let args = ["--no-discovery", "--peers", &nobody, "--log", "debug"];
    let mut server = Server::new(folder.path(), "n1", free_address(), &args);
    server.start();
    let tried = format!("cannot reach {nobody}: ");
    wait_until("it tries again", || (server.log().matches(&tried).count() >= 4).then_some(()));
    // It does not wait for ever to be answered.
    let ready = (Some(0), "n1 takes clients\n".into());
    wait_until("it takes clients", || (check(&server, "ready") == ready).then_some(()));
    server.signal("TERM");
    assert!(server.wait_exit(STOP_LIMIT).is_some_and(|status| status.success()));
}

// ---------------------------------------------------------------- losing servers

#[test]
fn a_killed_leader_is_replaced_and_leads_again_with_all_messages_when_it_is_back() {
    let mut cluster = Cluster::start(3, &[]);
    let mut ann = RawClient::join(cluster.address(0), "ann");
    ann.join_room("lobby", 0);
    ann.chat_acked("lobby", "1", "before");
    let term = cluster.servers[0].status().unwrap().term;

    cluster.servers[2].kill();
    cluster.wait_ready(); // n2 leads
    for server in &cluster.servers[..2] {
        let status = server.status().unwrap();
        assert_eq!(server_in(&status, "n3").unwrap().state, Liveness::Dead);
        assert!(status.term > term, "a new leader has a new term");
    }
    let texts: Vec<String> = (0..20).map(|n| format!("meanwhile {n}")).collect();
    for text in &texts {
        ann.chat_acked("lobby", text, text);
    }
    cluster.servers[2].start();
    cluster.wait_ready(); // n3 leads
    let mut bob = RawClient::join(cluster.address(2), "bob");
    bob.join_room("lobby", 100);
    assert_eq!(bob.texts(1), ["before"]);
    assert_eq!(bob.texts(20), texts);
    ann.chat_acked("lobby", "3", "after");
    assert_eq!(bob.texts(1), ["after"]);
    cluster.assert_serves();
}

#[test]
fn an_acknowledged_message_survives_the_crash_of_each_server_in_turn() {
    let mut cluster = Cluster::start(3, &[]);
    let mut written = Vec::new();
    for victim in 0..3 {
        let speaker = (victim + 1) % 3;
        let name = format!("speaker {victim}");
        let mut client = RawClient::join(cluster.address(victim), &name);
        client.join_room("lobby", 0);
        let text = format!("told to the victim n{}", victim + 1);
        client.chat_acked("lobby", "1", &text);
        written.push(text);
        cluster.servers[victim].kill();
        cluster.wait_ready();
        let mut other = RawClient::join(cluster.address(speaker), &format!("other {victim}"));
        other.join_room("lobby", 100);
        assert_eq!(other.texts(written.len()), written);
        let text = format!("told without n{}", victim + 1);
        other.chat_acked("lobby", "1", &text);
        written.push(text);
        cluster.restart(victim);
        cluster.wait_ready();
    }
    for server in 0..3 {
        let mut reader = RawClient::join(cluster.address(server), &format!("reader {server}"));
        reader.join_room("lobby", 100);
        assert_eq!(reader.texts(written.len()), written);
        reader.expect_no_chat();
    }
}

#[test]
fn a_server_that_was_paused_is_called_dead_and_comes_back_without_accusing_others() {
    let cluster = Cluster::start(3, &[]);
    let mut ann = RawClient::join(cluster.address(0), "ann");
    ann.join_room("lobby", 0);
    cluster.servers[2].signal("STOP");
    wait_until("n2 leads the others", || {
        let leads = |server: &Server| Some(server.status()?.leader? == "n2".into());
        (leads(&cluster.servers[0])? && leads(&cluster.servers[1])?).then_some(())
    });
    ann.chat_acked("lobby", "1", "while n3 sleeps");
    cluster.servers[2].signal("CONT");
    cluster.wait_ready(); // n3 leads again, in a ring of three
    let woken = cluster.servers[2].log();
    assert!(!woken.contains("is dead: it is silent"), "who slept accuses nobody:\n{woken}");
    let mut bob = RawClient::join(cluster.address(2), "bob");
    bob.join_room("lobby", 10);
    assert_eq!(bob.texts(1), ["while n3 sleeps"]);
    cluster.assert_serves();
}

// ---------------------------------------------------------------- ending

#[test]
fn ctrl_c_on_a_busy_cluster_ends_every_process_soon_and_loses_no_acknowledged_message() {
    let mut cluster = Cluster::start(3, &[]);
    let mut writers: Vec<RawClient> = (0..6)
        .map(|n| {
            let mut writer = RawClient::join(cluster.address(n % 3), &format!("writer-{n}"));
            writer.join_room("lobby", 0);
            writer
        })
        .collect();
    let busy = AtomicBool::new(true);
    let (acked, reasons) = std::thread::scope(|scope| {
        let talks: Vec<_> = writers
            .iter_mut()
            .map(|writer| scope.spawn(|| write_until_cut(writer, &busy)))
            .collect();
        wait_until("the cluster is busy", || {
            let held = cluster.servers[0].status()?.rooms.first()?.messages;
            (held > 500).then_some(())
        });
        cluster.interrupt_all();
        for server in &mut cluster.servers {
            let status = server.wait_exit(STOP_LIMIT);
            let code = status.unwrap_or_else(|| panic!("{} still runs", server.id)).code();
            assert_eq!(code, Some(0), "{}", server.id);
        }
        busy.store(false, Ordering::Relaxed);
        let ends = talks.into_iter().map(|talk| talk.join().unwrap());
        ends.unzip::<Vec<String>, Option<String>, Vec<_>, Vec<_>>()
    });
    assert_eq!(cluster.complaints(), [""; 0], "the logs are clean");
    assert_eq!(reasons, vec![Some("SERVER_STOPPING".to_string()); 6]);
    let acked: Vec<String> = acked.into_iter().flatten().collect();
    assert!(acked.len() > 100, "only {} messages were acknowledged", acked.len());

    cluster.restart_all();
    for server in 0..3 {
        let mut reader = RawClient::join(cluster.address(server), &format!("reader-{server}"));
        let count = reader.join_room("lobby", 1_000_000).history as usize;
        let found = reader.texts(count);
        let distinct: BTreeSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), count, "each message once");
        let lost: Vec<_> = acked.iter().filter(|text| !distinct.contains(text)).collect();
        assert!(lost.is_empty(), "n{} lost {lost:?}", server + 1);
    }
}

/// Writes with a few messages on the way until the server ends the connection. Returns what was acknowledged and
/// the code of the last ERROR.
fn write_until_cut(writer: &mut RawClient, busy: &AtomicBool) -> (Vec<String>, Option<String>) {
    const ON_THE_WAY: usize = 10;
    let (mut acked, mut written, mut reason) = (Vec::new(), 0, None);
    while busy.load(Ordering::Relaxed) {
        while written < acked.len() + ON_THE_WAY && reason.is_none() {
            let text = format!("{} {written}", writer.name);
            if writer.try_send(&writer.chat_message("lobby", &text, &text)).is_err() {
                break;
            }
            written += 1;
        }
        match writer.next(DEADLINE) {
            Ok(msg) if msg.message_type == MessageType::Ack => acked.push(msg.message_id),
            Ok(msg) if msg.message_type == MessageType::Error => {
                reason = msg.content.parse::<ErrorContent>().ok().map(|error| error.code);
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    (acked, reason)
}

#[test]
fn a_quiet_cluster_is_quiet_in_its_logs() {
    let cluster = Cluster::start(3, &[]);
    let lines = || cluster.servers.iter().map(Server::log).collect::<Vec<_>>();
    // What the start had to say has been said when the logs stay as they are for a while.
    let mut before = lines();
    wait_until("the logs stay as they are for a second", || {
        let news = wait_within(Duration::from_secs(1), || (lines() != before).then_some(()));
        before = lines();
        news.is_none().then_some(())
    });
    assert_eq!(cluster.complaints(), [""; 0]);
    for log in before {
        assert!(log.lines().count() < 30, "so much for a start:\n{log}");
        for line in log.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(words.len() > 5, "{line}");
            assert!(words[0].ends_with('Z') && words[0].contains('T'), "the time: {line}");
            assert!(words[2].starts_with('n'), "the node: {line}");
            let roles = ["LOOKING", "FOLLOWER", "LEADER", "ELECTION_IN_PROGRESS"];
            assert!(roles.contains(&words[3]), "the role: {line}");
            assert!(words[4] == "-" || words[4].contains("@n"), "the term: {line}");
        }
    }
}

// ---------------------------------------------------------------- telling

#[test]
fn the_status_in_json_has_exactly_the_documented_keys() {
    let cluster = Cluster::start(2, &["--rooms", "lobby"]);
    let mut ann = RawClient::join(cluster.address(0), "ann");
    ann.join_room("lobby", 0);
    ann.chat_acked("lobby", "1", "hello");
    let connect = cluster.address(0).to_string();
    let status = ["status", "--connect", &connect];
    let output = program().args(status).args(["--format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

    let keys = |value: &serde_json::Value| {
        value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>()
    };
    let set = |names: &str| names.split(' ').map(str::to_string).collect::<BTreeSet<String>>();
    assert_eq!(
        keys(&status),
        set(
            "node state leader term design cluster servers ring rooms syncs leader_changes heartbeat_lateness"
        )
    );
    assert_eq!(keys(&status["servers"][0]), set("id address state last_heartbeat_ms"));
    assert_eq!(keys(&status["rooms"][0]), set("room_id host replicas members messages"));

    assert_eq!((&status["node"], &status["leader"]), (&"n1".into(), &"n2".into()));
    assert_eq!((&status["state"], &status["design"]), (&"FOLLOWER".into(), &"ring".into()));
    assert!(status["term"].as_u64() > Some(0), "{status}");
    assert_eq!(status["ring"], serde_json::json!(["n1", "n2"]));
    assert_eq!(status["servers"][1]["address"], cluster.address(1).to_string());
    assert_eq!(status["servers"][1]["state"], "alive");
    assert!(status["servers"][1]["last_heartbeat_ms"].is_u64(), "{status}");
    let lobby = &status["rooms"][0];
    assert_eq!((&lobby["room_id"], &lobby["messages"]), (&"lobby".into(), &1.into()));
    assert_eq!(lobby["members"], serde_json::json!(["ann"]));
    assert!(lobby["host"].is_string(), "{status}");

    let output = program().args(["status", "--connect", &connect]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    for word in ["FOLLOWER", "n1 -> n2", "lobby", "ann", "alive"] {
        assert!(table.contains(word), "{word} in\n{table}");
    }
}

/// The exit code of `roundtable status --check WHAT` at `server`, and what it says.
fn check(server: &Server, what: &str) -> (Option<i32>, String) {
    let connect = server.address.to_string();
    let output = program().args(["status", "--check", what, "--connect", &connect]).output();
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_check_is_an_exit_code_and_a_line() {
    let mut cluster = Cluster::start(3, &["--design", "sequencer"]);
    let n1 = "n1 takes clients\n";
    assert_eq!(check(&cluster.servers[0], "ready"), (Some(0), n1.into()));
    // One of them is enough, as for everyone who connects.
    cluster.servers[2].kill();
    let all = cluster.connect_list(2);
    wait_until("the others have a leader", || {
        let output = program().args(["status", "--check", "ready", "--connect", &all]).output();
        let output = output.unwrap();
        (output.stdout == n1.as_bytes()).then(|| assert_eq!(output.status.code(), Some(0)))
    });
    // A minority answers, and takes no clients: to start it again would not help.
    cluster.servers[1].kill();
    let missing = "n1: no majority: 1 of 3 voters can be reached, 2 are needed; missing: n2, n3";
    let said = format!("roundtable: no server takes clients ({missing})\n");
    wait_until("n1 is alone", || (check(&cluster.servers[0], "ready").1 == said).then_some(()));
    assert_eq!(check(&cluster.servers[0], "ready").0, Some(1));
    assert_eq!(check(&cluster.servers[0], "alive"), (Some(0), "n1 answers\n".into()));
    cluster.servers[0].kill();
    let (code, said) = check(&cluster.servers[0], "alive");
    assert_eq!(code, Some(1));
    assert!(said.starts_with("roundtable: no server answers ("), "{said}");
}

#[test]
fn a_status_of_nobody_fails_with_a_sentence() {
    let connect = free_address().to_string();
    let output = program().args(["status", "--connect", &connect]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&connect), "{PROGRAM} names whom it asked: {said}");
}
