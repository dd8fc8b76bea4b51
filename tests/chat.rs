//! Real servers, real clients: what people say reaches everyone once, in causal order, and is not lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::fs;

use roundtable::domain::MessageType;
use roundtable::sim::checker::Order;
use support::chatter::Chatter;
use support::cluster::Cluster;
use support::history::{MemberLog, Step, complaints};
use support::wire::{Framing, RawClient};
use support::{program, wait_until};

/// How far a chatter writes ahead of what it has been shown, so that messages depend on each other.
const AHEAD: usize = 20;

#[test]
fn ten_clients_over_three_servers_see_ten_thousand_messages_once_and_in_causal_order() {
    const MESSAGES: usize = 1000;
    let names: Vec<String> = (0..10).map(|n| format!("member-{n}")).collect();
    let cluster = Cluster::start(3, &[]);
    let members: Vec<Chatter> = (0..)
        .zip(&names)
        .map(|(n, name)| {
            let servers = cluster.connect_list(n % 3);
            Chatter::start(cluster.folder.path(), name, &["--connect", &servers])
        })
        .collect();
    cluster.wait_members("lobby", &names.iter().map(String::as_str).collect::<Vec<_>>());

    let talk = |mut member: Chatter| {
        for n in 0..MESSAGES {
            let own = format!("{} ", member.name);
            let is_own = |step: &&Step| matches!(step, Step::Shown(text) if text.starts_with(&own));
            if n >= AHEAD && n % AHEAD == 0 {
                member.wait("its own messages are shown", |steps| {
                    steps.iter().filter(is_own).count() > n - AHEAD
                });
            }
            member.write(&format!("{own}{n}"));
        }
        // Everyone stays until everyone has seen everything.
        member.wait_shown(names.len() * MESSAGES);
        member
    };
    let members: Vec<Chatter> = std::thread::scope(|scope| {
        let talks: Vec<_> =
            members.into_iter().map(|member| scope.spawn(|| talk(member))).collect();
        talks.into_iter().map(|talk| talk.join().unwrap()).collect()
    });

    let mut logs = Vec::new();
    for member in members {
        let (code, log, notes) = member.finish();
        assert_eq!(code, Some(0), "{}: {notes}", log.name);
        logs.push(log);
    }
    let shown = logs.iter().flat_map(|log| &log.steps).filter(|s| matches!(s, Step::Shown(_)));
    assert_eq!(shown.count(), 10 * 10 * MESSAGES);
    assert_eq!(complaints(&logs, Order::Causal), [""; 0]);
    assert_eq!(cluster.complaints(), [""; 0]);
}

#[test]
fn raw_clients_get_each_ack_after_their_own_delivery() {
    const MESSAGES: usize = 100;
    let cluster = Cluster::start(3, &[]);
    let mut members: Vec<RawClient> =
        (0..3).map(|n| RawClient::join(cluster.address(n), &format!("raw-{n}"))).collect();
    for member in &mut members {
        member.join_room("lobby", 0);
    }
    cluster.wait_members("lobby", &["raw-0", "raw-1", "raw-2"]);

    let talk = |member: &mut RawClient| {
        let name = member.name.clone();
        let (mut steps, mut shown, mut acked) = (Vec::new(), 0, 0);
        for n in 0..MESSAGES {
            let id = format!("{name} {n}");
            steps.push(Step::Wrote(id.clone()));
            member.chat("lobby", &id, &id);
            // One message is read for each that is written: what is written next depends on it.
            while shown + acked < 4 * MESSAGES && (n + 1 == MESSAGES || shown <= n) {
                let msg = member.expect("a CHAT or an ACK");
                match msg.message_type {
                    MessageType::Chat => {
                        shown += 1;
                        steps.push(Step::Shown(msg.message_id));
                    }
                    MessageType::Ack => {
                        acked += 1;
                        assert!(msg.position.is_some(), "an ACK tells the position");
                        steps.push(Step::Acked(msg.message_id));
                    }
                    MessageType::JoinRoom => {}
                    _ => panic!("{}", msg.serialize()),
                }
            }
        }
        member.expect_no_chat();
        MemberLog { name, steps }
    };
    let logs: Vec<MemberLog> = std::thread::scope(|scope| {
        let talks: Vec<_> = members.iter_mut().map(|member| scope.spawn(|| talk(member))).collect();
        talks.into_iter().map(|talk| talk.join().unwrap()).collect()
    });
    assert_eq!(complaints(&logs, Order::Causal), [""; 0]);
}

#[test]
fn one_server_alone_leads_itself_and_acknowledges_what_is_on_its_disk() {
    let mut cluster = Cluster::start(1, &[]);
    let status = cluster.servers[0].status().unwrap();
    assert_eq!((status.leader, status.state.as_str()), (Some("n1".into()), "LEADER"));

    let mut ann = RawClient::join(cluster.address(0), "ann");
    ann.join_room("lobby", 0);
    for n in 0..20 {
        ann.chat_acked("lobby", &format!("m{n}"), &format!("text {n}"));
    }
    let records = fs::read_to_string(cluster.servers[0].log_file()).unwrap();
    assert_eq!(records.matches("\"CHAT\"").count(), 20, "what is acknowledged is written");

    cluster.restart(0); // as after a crash
    let mut bob = RawClient::join(cluster.address(0), "bob");
    bob.join_room("lobby", 50);
    assert_eq!(bob.texts(20), (0..20).map(|n| format!("text {n}")).collect::<Vec<_>>());
    bob.chat_acked("lobby", "b1", "after the crash");
}

#[test]
fn a_restarted_cluster_has_all_its_history_on_every_server() {
    let mut cluster = Cluster::start(3, &[]);
    let mut written = Vec::new();
    for n in 0..3 {
        let mut client = RawClient::join(cluster.address(n), &format!("writer-{n}"));
        client.join_room("lobby", 0);
        for m in 0..10 {
            let text = format!("{n} says {m}");
            client.chat_acked("lobby", &format!("{m}"), &text);
            written.push(text);
        }
    }
    cluster.stop_all();
    cluster.restart_all();
    for n in 0..3 {
        let mut reader = RawClient::join(cluster.address(n), &format!("reader-{n}"));
        // Each wrote after having read nothing of the others, but one after the other: the order is known.
        assert_eq!(reader.join_room("lobby", 100).history, 30);
        let mut texts = reader.texts(30);
        reader.expect_no_chat();
        texts.sort();
        written.sort();
        assert_eq!(texts, written);
    }
}

#[test]
fn members_on_all_servers_are_one_room_and_hear_of_each_other() {
    let cluster = Cluster::start(3, &[]);
    let mut ann = RawClient::join(cluster.address(0), "ann");
    assert_eq!(ann.join_room("den", 0).members, 1);
    cluster.wait_members("den", &["ann"]);
    let mut bob = RawClient::join(cluster.address(1), "bob");
    bob.join_room("den", 0);
    cluster.wait_members("den", &["ann", "bob"]);

    let notice = ann.expect("the notice that bob came");
    assert_eq!((notice.message_type, notice.sender_id.as_str()), (MessageType::JoinRoom, "bob"));
    assert_eq!((notice.room_id.as_str(), notice.position), ("den", None));

    let mut eve = RawClient::join(cluster.address(2), "eve");
    assert_eq!(eve.join_room("den", 0).members, 3);
    for client in [&mut ann, &mut bob] {
        let came = client.expect("the notice that eve came");
        assert_eq!((came.message_type, came.sender_id.as_str()), (MessageType::JoinRoom, "eve"));
    }
    eve.send(&eve.message(MessageType::LeaveRoom, "bye").in_room("den"));
    eve.wait_ack("bye");
    bob.send(&bob.message(MessageType::ClientLeave, "gone"));
    bob.wait_for("the ACK of CLIENT_LEAVE", |msg| msg.message_id == "gone");
    bob.expect_closed();
    // The news come from two servers, in either order.
    let left = [ann.expect("the notice that one left"), ann.expect("that the other one left, too")];
    let mut names: Vec<_> = left.iter().map(|m| (m.message_type, m.sender_id.as_str())).collect();
    names.sort_unstable();
    assert_eq!(names, [(MessageType::LeaveRoom, "bob"), (MessageType::LeaveRoom, "eve")]);
    cluster.wait_members("den", &["ann"]);
    assert_eq!(ann.chat_acked("den", "alone", "anyone?").room_id, "den");
    assert_eq!(eve.next(std::time::Duration::from_millis(100)).ok(), None, "eve has left");
}

#[test]
fn a_client_says_how_much_of_the_past_it_wants() {
    let cluster = Cluster::start(2, &[]);
    let mut writer = RawClient::join(cluster.address(0), "writer");
    writer.join_room("lobby", 0);
    for n in 0..60 {
        writer.chat_acked("lobby", &n.to_string(), &n.to_string());
    }
    let last = |count: usize| (60 - count..60).map(|n| n.to_string()).collect::<Vec<_>>();
    for (wanted, found) in [(0, 0), (7, 7), (50, 50), (1000, 60)] {
        for server in 0..2 {
            let mut reader =
                RawClient::join(cluster.address(server), &format!("{wanted}-{server}"));
            let joined = reader.join_room("lobby", wanted);
            assert_eq!(joined.history as usize, found, "of {wanted} wanted");
            assert_eq!(reader.texts(found), last(found), "{wanted} wanted");
            reader.expect_no_chat();
        }
    }
    let mut reader = RawClient::join(cluster.address(1), "says nothing");
    reader.send(&reader.message(MessageType::JoinRoom, "join").in_room("lobby"));
    assert_eq!(reader.texts(50), last(50), "50 when left out");
    reader.expect_no_chat();
}

#[test]
fn a_client_resumes_on_another_server_without_a_gap_or_a_repeat() {
    let cluster = Cluster::start(3, &[]);
    let mut writer = RawClient::join(cluster.address(0), "writer");
    writer.join_room("lobby", 0);
    let mut reader = RawClient::join(cluster.address(1), "reader");
    reader.join_room("lobby", 0);
    for n in 0..10 {
        writer.chat_acked("lobby", &n.to_string(), &n.to_string());
    }
    let seen = reader.chats(6);
    let position = seen[5].position.clone().expect("a delivered CHAT tells the position");
    drop(reader);
    for n in 10..15 {
        writer.chat_acked("lobby", &n.to_string(), &n.to_string());
    }
    let mut reader = RawClient::join(cluster.address(2), "reader");
    reader.resume_room("lobby", position);
    writer.chat_acked("lobby", "live", "live");
    let mut expected: Vec<String> = (6..15).map(|n| n.to_string()).collect();
    expected.push("live".into());
    assert_eq!(reader.texts(10), expected);
    reader.expect_no_chat();
}

#[test]
fn a_repeated_message_is_acknowledged_again_and_shown_once_through_another_server_too() {
    let cluster = Cluster::start(3, &[]);
    let mut reader = RawClient::join(cluster.address(1), "reader");
    reader.join_room("lobby", 0);
    let mut writer = RawClient::join(cluster.address(0), "writer");
    writer.join_room("lobby", 0);
    for _ in 0..3 {
        writer.chat_acked("lobby", "m1", "once");
    }
    // The same session goes on through another server, which heard of the message from the first one only.
    let mut moved = RawClient::join(cluster.address(2), "writer");
    moved.join_room("lobby", 0);
    moved.chat_acked("lobby", "m1", "once");
    moved.chat_acked("lobby", "m2", "twice");
    assert_eq!(reader.texts(2), ["once", "twice"]);
    reader.expect_no_chat();
    assert_eq!(writer.wait_for("the end", |m| m.message_type == MessageType::Error).message_id, "");

    let mut late = RawClient::join(cluster.address(0), "late");
    late.join_room("lobby", 50);
    assert_eq!(late.texts(2), ["once", "twice"]);
    late.expect_no_chat();
}

#[test]
fn both_framings_talk_side_by_side() {
    let cluster = Cluster::start(1, &[]);
    let mut lines = RawClient::join_framed(cluster.address(0), "lines", Framing::Lines);
    let mut prefixed = RawClient::join_framed(cluster.address(0), "prefixed", Framing::Prefixed);
    lines.join_room("lobby", 0);
    prefixed.join_room("lobby", 0);
    // A line break inside the text, and one between the tokens, which a frame of known length may have.
    lines.chat_acked("lobby", "l1", "line\nbreak");
    let pretty = "{\n\"type\": \"CHAT\",\n\"message_id\": \"p1\", \"room_id\": \"lobby\",\n\"content\": \"π\"}";
    prefixed.send_frame(pretty);
    prefixed.wait_ack("p1");
    let mut third = RawClient::join_framed(cluster.address(0), "third", Framing::Lines);
    third.join_room("lobby", 50);
    assert_eq!(third.texts(2), ["line\nbreak", "π"]);
    assert_eq!(lines.texts(1), ["π"]);
}

#[test]
fn a_room_named_on_several_servers_is_one_room() {
    let cluster = Cluster::start(3, &["--rooms", "hall,den"]);
    let rooms = wait_until("the rooms are known everywhere", || {
        let mut seen: Vec<Vec<(String, Option<String>)>> = Vec::new();
        for server in &cluster.servers {
            let rooms = server.status()?.rooms;
            let host = |host: Option<roundtable::domain::NodeId>| host.map(|id| id.to_string());
            seen.push(rooms.into_iter().map(|room| (room.room_id, host(room.host))).collect());
        }
        let same = seen.iter().all(|rooms| *rooms == seen[0]);
        (same && seen[0].len() == 2).then(|| seen.remove(0))
    });
    assert_eq!((rooms[0].0.as_str(), rooms[1].0.as_str()), ("den", "hall"));
    assert!(rooms.iter().all(|(_, host)| host.is_some()), "{rooms:?}");
    let mut ann = RawClient::join(cluster.address(0), "ann");
    ann.join_room("hall", 0);
    let mut bob = RawClient::join(cluster.address(2), "bob");
    bob.join_room("hall", 0);
    ann.chat_acked("hall", "a1", "one hall");
    assert_eq!(bob.texts(1), ["one hall"]);
}

#[test]
fn the_client_is_a_filter_that_prints_deliveries_and_waits_for_acknowledgements() {
    let cluster = Cluster::start(2, &[]);
    let mut writer = Chatter::start(
        cluster.folder.path(),
        "ann",
        &["--connect", &cluster.connect_list(0), "--room", "den"],
    );
    writer.write("hello");
    writer.write("/quit is no command in a pipe");
    let (code, log, notes) = writer.finish();
    assert_eq!(code, Some(0), "{notes}");
    assert_eq!(complaints(&[log], Order::Causal), [""; 0]);

    let connect = cluster.address(1).to_string();
    let reader = program()
        .args(["client", "--name", "bob", "--room", "den", "--connect", &connect])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(reader.status.code(), Some(0), "{}", String::from_utf8_lossy(&reader.stderr));
    let printed = String::from_utf8(reader.stdout).unwrap();
    assert_eq!(printed, "[den] ann: hello\n[den] ann: /quit is no command in a pipe\n");
}
