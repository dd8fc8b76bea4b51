//! Starts that cannot work say why, and disks that are full or damaged lose nothing that was acknowledged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::fs;
use std::time::Duration;

use roundtable::domain::MessageType;
use roundtable::domain::content::ErrorContent;
use support::cluster::{Cluster, Server, free_address};
use support::wire::{End, RawClient};
use support::{wait_until, wait_within};

// ---------------------------------------------------------------- starts that cannot work

/// A server alone with a folder of its own, not started.
fn lone_server(folder: &std::path::Path, id: &str, args: &[&str]) -> Server {
    let flags = [&["--no-discovery", "--server-timeout-ms", "300"], args].concat();
    Server::new(folder, id, free_address(), &flags)
}

#[test]
fn a_port_in_use_is_named_with_the_remedy() {
    let cluster = Cluster::start(1, &[]);
    let mut second = lone_server(cluster.folder.path(), "n2", &[]);
    second.address = cluster.address(0);
    let (code, said) = second.start_in_vain();
    assert_eq!(code, Some(1), "{said}");
    let address = cluster.address(0);
    let wanted = format!("cannot listen on {address}: Address already in use");
    assert!(said.contains(&wanted), "{said}");
    assert!(said.contains("choose another --listen, or stop who uses it"), "{said}");
    cluster.assert_serves();
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let mut server = lone_server(folder.path(), "n1", &[]);
    server.data = file.join("data");
    let (code, said) = server.start_in_vain();
    assert_eq!(code, Some(1), "{said}");
    let wanted =
        format!("{}: cannot write to this data folder; make it writable", server.data.display());
    assert!(said.contains(&wanted), "{said}");
    assert!(said.contains("choose another --data"), "{said}");
}

#[test]
fn a_data_folder_of_another_node_or_of_a_running_one_is_refused() {
    let mut cluster = Cluster::start(1, &[]);
    let data = cluster.servers[0].data.clone();
    let mut twin = lone_server(cluster.folder.path(), "n1", &["--cluster", &cluster.name]);
    twin.data.clone_from(&data);
    let (code, said) = twin.start_in_vain();
    assert_eq!(code, Some(1), "{said}");
    let wanted = format!("{}: is already open in another process; stop it", data.display());
    assert!(said.contains(&wanted), "{said}");
    cluster.assert_serves();

    cluster.servers[0].kill();
    let mut stranger = lone_server(cluster.folder.path(), "n7", &["--cluster", &cluster.name]);
    stranger.data.clone_from(&data);
    let (code, said) = stranger.start_in_vain();
    assert_eq!(code, Some(1), "{said}");
    let wanted = "this folder belongs to node \"n1\", not \"n7\"; start with --id n1";
    assert!(said.contains(wanted), "{said}");

    let mut stranger = lone_server(cluster.folder.path(), "n1", &["--cluster", "another"]);
    stranger.data.clone_from(&data);
    let (code, said) = stranger.start_in_vain();
    assert_eq!(code, Some(1), "{said}");
    let (name, data) = (&cluster.name, data.display());
    let wanted = format!(
        "{data}: this folder belongs to cluster {name:?}, not \"another\"; \
         start with --cluster {name}, or choose another --data"
    );
    assert!(said.contains(&wanted), "{said}");
    cluster.restart(0);
    cluster.assert_serves();
}

#[test]
fn a_wrong_setting_is_named_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for (args, wanted) in [
        (vec!["--peers", "nonsense"], "--peers \"nonsense\" is not HOST:PORT"),
        (vec!["--design", "paxos"], "the design \"paxos\" does not exist"),
        (vec!["--rooms", "a\nb"], "has control characters"),
        (vec!["--frame-bytes-max", "17"], "--frame-bytes-max 17 is less than 4096"),
        (vec!["--retain", "5x"], "--retain \"5x\" is neither a size such as 1GiB"),
        (vec!["--no-such-flag"], "--no-such-flag"),
    ] {
        let (code, said) = lone_server(folder.path(), "n1", &args).start_in_vain();
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
    }
}

// ---------------------------------------------------------------- disks

#[test]
fn a_full_disk_refuses_writes_and_serves_reads_and_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::start(1, &[]);
    cluster.servers[0].kill();
    cluster.servers[0].file_kib_max = Some(128);
    cluster.restart(0);
    let mut writer = RawClient::join(cluster.address(0), "writer");
    writer.join_room("lobby", 0);
    let text = |n: usize| format!("{n} {}", "x".repeat(4000));
    let mut acked = 0;
    let refusal = loop {
        assert!(acked < 100, "400 KB in a file of 128 KiB");
        let id = acked.to_string();
        writer.chat("lobby", &id, &text(acked));
        // The one that does not fit is not acknowledged; the next one is refused.
        let is_answer = |msg: &roundtable::domain::Message| {
            matches!(msg.message_type, MessageType::Ack | MessageType::Error)
        };
        let answer = wait_within(Duration::from_secs(10), || {
            match writer.next(Duration::from_millis(200)) {
                Ok(msg) if is_answer(&msg) => Some(msg),
                Ok(_) => None,
                Err(End::Closed) => panic!("closed by a full disk"),
                Err(End::Silent) => {
                    writer.chat("lobby", "one more", "does it fit?");
                    None
                }
            }
        });
        let answer = answer.expect("an ACK or an ERROR");
        if answer.message_type == MessageType::Error {
            break answer;
        }
        assert_eq!(answer.message_id, id);
        acked += 1;
    };
    let error: ErrorContent = refusal.content.parse().unwrap();
    assert_eq!((error.code.as_str(), error.retryable), ("STORAGE_FULL", true));
    assert!(error.reason.starts_with("this server cannot store messages ("), "{}", error.reason);
    assert!(error.reason.ends_with("free space there, or use another server"), "{}", error.reason);
    assert!(acked >= 20, "only {acked} fit into 128 KiB");

    // Reads go on: the past of the room, the members, the status.
    let mut reader = RawClient::join(cluster.address(0), "reader");
    reader.join_room("lobby", 1000);
    let read = reader.texts(acked);
    assert_eq!(read, (0..acked).map(text).collect::<Vec<_>>());
    let status = reader.status();
    assert_eq!(status.rooms[0].members, ["reader", "writer"]);
    // Who looks for a server to use is told to look elsewhere.
    let told = status.not_ready.expect("a reason");
    assert!(told.starts_with("its log cannot be written: "), "{told}");

    // With room on the disk again the server has what it acknowledged, and goes on.
    cluster.servers[0].kill();
    cluster.servers[0].file_kib_max = None;
    cluster.restart(0);
    let mut reader = RawClient::join(cluster.address(0), "reader");
    let found = reader.join_room("lobby", 1000).history as usize;
    assert!(found >= acked, "{found} of {acked}");
    assert_eq!(reader.texts(acked), (0..acked).map(text).collect::<Vec<_>>());
    cluster.assert_serves();
}

#[test]
fn a_damaged_log_names_file_line_and_remedy_and_is_refilled_from_the_others() {
    let mut cluster = Cluster::start(3, &[]);
    let mut writer = RawClient::join(cluster.address(2), "writer");
    writer.join_room("lobby", 0);
    let mut reader = RawClient::join(cluster.address(0), "reader");
    reader.join_room("lobby", 0);
    cluster.wait_members("lobby", &["reader", "writer"]);
    for n in 0..10 {
        writer.chat_acked("lobby", &n.to_string(), &format!("text {n}"));
    }
    // An ACK says two disks; n1 may be the one that is still writing.
    assert_eq!(reader.chats(10).len(), 10);
    let file = cluster.servers[0].log_file();
    wait_until("n1 has written all", || {
        let records = fs::read_to_string(&file).ok()?;
        (records.matches("\"CHAT\"").count() == 10).then_some(())
    });
    cluster.servers[0].kill();

    let records = fs::read_to_string(&file).unwrap();
    fs::write(&file, records.replace("text 4", "text !")).unwrap();
    let line = 1 + records.lines().position(|line| line.contains("text 4")).unwrap();
    let (code, said) = cluster.servers[0].start_in_vain();
    assert_eq!(code, Some(1), "{said}");
    let wanted = format!("{} line {line} is damaged: its checksum is ", file.display());
    assert!(said.contains(&wanted), "{said}");
    assert!(said.contains("start with --repair to set it aside"), "{said}");
    let after = fs::read_to_string(&file).unwrap();
    assert!(
        after.contains("text !") && after.contains("text 9"),
        "a refused start changes nothing"
    );

    cluster.servers[0].args.push("--repair".into());
    cluster.restart(0);
    cluster.wait_ready();
    let mut reader = RawClient::join(cluster.address(0), "reader");
    assert_eq!(reader.join_room("lobby", 50).history, 10);
    assert_eq!(reader.texts(10), (0..10).map(|n| format!("text {n}")).collect::<Vec<_>>());
    let aside = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = aside.filter(|path| !path.ends_with("00000001.jsonl")).collect();
    assert!(
        aside.iter().any(|path| fs::read_to_string(path).unwrap().contains("text !")),
        "{aside:?}"
    );

    // The refilled log is sound: it starts without --repair, and alone has everything.
    let records = wait_until("the log is refilled", || {
        let records = fs::read_to_string(&file).ok()?;
        (records.matches("\"CHAT\"").count() == 10).then_some(records)
    });
    assert!(records.contains("text 4"), "{records}");
    cluster.servers[0].args.pop();
    cluster.restart(0);
    cluster.assert_serves();
}

#[test]
fn a_log_whose_last_line_has_no_end_starts_without_it() {
    let mut cluster = Cluster::start(1, &[]);
    let mut writer = RawClient::join(cluster.address(0), "writer");
    writer.join_room("lobby", 0);
    writer.chat_acked("lobby", "1", "whole");
    cluster.servers[0].kill();
    let file = cluster.servers[0].log_file();
    let mut records = fs::read_to_string(&file).unwrap();
    records.push_str("{\"crc\":\"0123");
    fs::write(&file, records).unwrap();
    cluster.restart(0);
    let mut reader = RawClient::join(cluster.address(0), "reader");
    reader.join_room("lobby", 50);
    assert_eq!(reader.texts(1), ["whole"]);
    reader.chat_acked("lobby", "2", "more");
    cluster.restart(0);
    let mut reader = RawClient::join(cluster.address(0), "reader");
    reader.join_room("lobby", 50);
    assert_eq!(reader.texts(2), ["whole", "more"]);
}
