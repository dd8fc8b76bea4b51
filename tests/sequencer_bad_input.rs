//! The design `sequencer` and what does not belong to it: servers under one id, of another cluster or design, logs of others,
//! terms from the future. Each is refused with a sentence that says what to do, and the cluster goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::fs;

use roundtable::domain::content::{
    Hello, LeaderHeartbeat, Place, PromiseContent, SeqChat, SeqChatKind,
};
use roundtable::domain::{Message, MessageType, Term};
use support::cluster::{Cluster, Server, free_address};
use support::wait_until;
use support::wire::{Framing, RawClient};

const FLAGS: [&str; 4] = ["--design", "sequencer", "--server-timeout-ms", "800"];

/// A server that is not one of `cluster`, but knows its addresses.
fn stranger(cluster: &Cluster, id: &str, args: &[&str]) -> Server {
    let peers = cluster.connect_list(0);
    let known = ["--no-discovery", "--peers", &peers];
    Server::new(cluster.folder.path(), id, free_address(), &[&known, args].concat())
}

#[test]
fn a_second_server_under_the_same_id_is_refused_by_name() {
    let cluster = Cluster::start(3, &FLAGS);
    for id in ["n1", "n3"] {
        let args = [&FLAGS[..], &["--cluster", &cluster.name]].concat();
        let mut double = stranger(&cluster, id, &args);
        let (code, said) = double.start_in_vain();
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&format!("another server with the id {id} is connected (")),
            "{said}"
        );
        assert!(said.contains("choose another --id"), "{said}");
    }
    assert!(cluster.agrees(), "the owners of the ids stay");
    cluster.assert_serves();
}

#[test]
fn servers_of_another_design_or_cluster_are_refused_and_told_why() {
    let cluster = Cluster::start(3, &FLAGS);
    let name = cluster.name.as_str();
    let ring = ["--design", "ring", "--cluster", name, "--server-timeout-ms", "800"];
    let other = [&FLAGS[..], &["--cluster", "other"]].concat();
    for (id, args, wanted) in [
        ("n8", &ring[..], "runs the design \"sequencer\", n8 runs \"ring\""),
        ("n9", &other[..], "belongs to the cluster"),
    ] {
        let mut server = stranger(&cluster, id, args);
        server.start();
        wait_until("it is told why", || {
            let log = server.log();
            let told = log.lines().any(|line| line.contains("refuses") || line.contains("refused"));
            (told && (log.contains(wanted) || log.contains("WRONG_CLUSTER"))).then_some(())
        });
        let known = cluster.servers[0].status().unwrap();
        assert!(known.servers.iter().all(|server| server.id.as_str() != id), "{id} is no server");
    }
    assert!(cluster.agrees());
    cluster.assert_serves();
}

#[test]
fn a_cluster_founded_apart_is_refused_although_it_has_the_same_name() {
    let cluster = Cluster::start(3, &FLAGS);
    // Founded alone under the same name, and only then shown the others.
    let mut args = [&FLAGS[..], &["--cluster", &cluster.name, "--no-discovery"]].concat();
    let mut loner = Server::new(cluster.folder.path(), "n9", free_address(), &args);
    loner.start();
    wait_until("n9 founds its own cluster", || {
        (loner.status()?.leader?.as_str() == "n9").then_some(())
    });
    loner.kill();
    let peers = cluster.connect_list(0);
    args.extend(["--peers", &peers]);
    loner.args = args.iter().map(ToString::to_string).collect();
    loner.start();
    wait_until("it is told why", || {
        loner.log().contains("belongs to the cluster with id").then_some(())
    });
    wait_until("the remedy is named", || {
        loner.log().contains("give one of them another --data").then_some(())
    });
    let voters = cluster.servers[0].status().unwrap().order.unwrap().voters;
    assert_eq!(voters.len(), 3);
    cluster.assert_serves();
}

#[test]
fn a_log_of_another_cluster_or_design_is_refused_with_the_remedy() {
    let mut cluster = Cluster::start(1, &FLAGS);
    cluster.servers[0].kill();
    let data = cluster.servers[0].data.clone();
    let name = cluster.name.clone();
    for (args, wanted) in [
        (
            ["--design", "ring", "--cluster", &name],
            "belongs to design \"sequencer\", not \"ring\"; start with --design sequencer",
        ),
        (["--design", "sequencer", "--cluster", "other"], "not \"other\"; start with --cluster"),
    ] {
        let args = [&args[..], &["--no-discovery"]].concat();
        let mut server = Server::new(cluster.folder.path(), "n1", free_address(), &args);
        server.data.clone_from(&data);
        let (code, said) = server.start_in_vain();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(wanted) && said.contains("choose another --data"), "{said}");
    }
    cluster.restart(0);
    cluster.assert_serves();
}

#[test]
fn a_voters_folder_with_the_log_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start(3, &FLAGS);
    let mut other = Cluster::start(1, &FLAGS);
    cluster.servers[0].kill();
    other.servers[0].kill();
    fs::remove_dir_all(cluster.servers[0].data.join("log")).unwrap();
    fs::rename(other.servers[0].data.join("log"), cluster.servers[0].data.join("log")).unwrap();
    cluster.servers[0].start();
    wait_until("n1 is told why", || {
        cluster.servers[0].log().contains("belongs to the cluster with id").then_some(())
    });
    // The two others are a majority and go on.
    let mut client = RawClient::join(cluster.address(2), "ann");
    client.join_room("lobby", 0);
    client.chat_acked("lobby", "1", "still here");
}

#[test]
fn a_term_from_the_future_does_not_stick() {
    let cluster = Cluster::start(3, &FLAGS);
    let hello = Hello {
        cluster: cluster.name.clone(),
        design: "sequencer".into(),
        election: "bully".into(),
        id: "n9".into(),
        disk_id: "d".into(),
        incarnation: "n9.1-0000".into(),
        address: "127.0.0.1:1".into(),
        version: "0".into(),
        term: Some(term(1 << 60)),
        cluster_id: None,
    };
    let place = Place { term: Some(term(1 << 60)), seq: 7 };
    let mut entry = Message::new(MessageType::Chat, "n9").with_id("x").in_room("lobby");
    (entry.seq, entry.term, entry.session) = (Some(8), Some(term(1 << 60)), Some("s".into()));
    let batch = |kind, prev| SeqChat {
        kind,
        prev,
        entries: vec![entry.clone().into()],
        committed: 8,
        active: true,
        history_starts: true,
        state: None,
        members: None,
    };
    let beat = LeaderHeartbeat { prev: place.clone(), committed: 7, active: true, held: 7 };
    let mut peer = RawClient::connect(cluster.address(0), Framing::Prefixed);
    peer.send(&Message::new(MessageType::Hello, "n9").saying(&hello));
    for (message_type, content) in [
        (MessageType::Heartbeat, Message::new(MessageType::Heartbeat, "n9").saying(&beat).content),
        (MessageType::Promise, promise(&place)),
        (MessageType::SeqChat, seq_chat(&batch(SeqChatKind::Order, place.clone()))),
        (MessageType::SeqChat, seq_chat(&batch(SeqChatKind::Committed, place.clone()))),
    ] {
        for claimed in [Some(term(1 << 60)), None] {
            let mut msg = Message::new(message_type, "n9").with_id("future");
            msg.term = claimed;
            msg.content = content.clone();
            peer.send(&msg);
        }
    }
    wait_until("n1 says what is wrong", || {
        let log = cluster.servers[0].log();
        (log.contains("terms count up to") && log.contains("name no possible term")).then_some(())
    });
    drop(peer);
    wait_until("the cluster agrees", || cluster.agrees().then_some(()));
    cluster.assert_serves();
    for server in &cluster.servers {
        let status = server.status().unwrap();
        assert!(status.term < 100, "{} is in term {}", server.id, status.term);
        let order = status.order.unwrap();
        assert!(order.committed < 1000 && order.starts_after == 0, "{order:?}");
    }
}

fn term(counter: u64) -> Term {
    Term { counter, leader: "n9.1-0000".into() }
}

fn seq_chat(batch: &SeqChat) -> roundtable::domain::Content {
    Message::new(MessageType::SeqChat, "n9").saying(batch).content
}

fn promise(end: &Place) -> roundtable::domain::Content {
    let kept = PromiseContent::Kept { end: end.clone() };
    Message::new(MessageType::Promise, "n9").saying(&kept).content
}

#[test]
fn a_wrong_setting_is_named_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for (args, wanted) in [
        (["--ack", "nonsense"], "--ack"),
        (["--bootstrap-expect", "0"], "--bootstrap-expect 0 is less than 1"),
    ] {
        let args = [&FLAGS[..], &["--no-discovery"], &args].concat();
        let mut server = Server::new(folder.path(), "n1", free_address(), &args);
        let (code, said) = server.start_in_vain();
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
        assert!(!said.contains("nonsense") || said.contains("majority"), "the choices: {said}");
    }
}
