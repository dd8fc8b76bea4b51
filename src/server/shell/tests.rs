//! A server with its threads, whose surroundings a test makes up.

use std::net::UdpSocket;
use std::path::Path;
use std::time::Instant;

use super::*;
use crate::client::{ChatClient, ClientSettings, Event, Password};
use crate::config::{AckRule, Retain};
use crate::domain::NodeId;
use crate::domain::content::{Status, TimeState};
use crate::network::listener::bind_listener;
use crate::server::election::ElectionKind;
use crate::server::failover::{Failover, HealthTiming};
use crate::server::ordering::{TAIL_BYTES, UNCOMMITTED_MAX};
use crate::server::ring::ServerInfo;
use crate::server::server_node::{NodeConfig, Timing};
use crate::server::tests::Alone;
use crate::server::time_sync::{TimeSync, TimeSyncTiming};
use crate::server::total_order::Ordered;
use crate::server::total_order::logins::Admission;
use crate::storage::FileLog;
use crate::storage::OnDamage;
use crate::storage::file_log::LogOptions;
use crate::trace::{Kind, TraceEvent};

/// For what should come: generous.
const LONG: Duration = Duration::from_secs(20);

/// A server `n1` alone, after `prepare` changed it, and the folder of its log.
fn server(prepare: impl FnOnce(&mut ServerNode)) -> (RunningServer, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (server_in(folder.path(), None, prepare), folder)
}

/// The same in `folder`, which may write a `trace`.
#[expect(clippy::disallowed_methods, reason = "a start reads the clock")]
fn server_in(
    folder: &Path,
    trace: Option<TraceFile>,
    prepare: impl FnOnce(&mut ServerNode),
) -> RunningServer {
    let listener = bind_listener("127.0.0.1:0").unwrap();
    let config = NodeConfig {
        server_id: "n1".into(),
        incarnation: "n1.1-0000".into(),
        disk_id: "disk".into(),
        address: listener.local_addr().unwrap().to_string(),
        cluster: "test".into(),
        design: "ring".into(),
        peers: vec![],
        rooms: vec![],
        discovery: false,
        admission: Admission::default(),
        timing: Timing::default(),
        election: ElectionKind::default(),
        bootstrap_expect: 1,
        ack: AckRule::default(),
        compact_after: 20_000,
        retain: Retain::Everything,
        log_tail_bytes: TAIL_BYTES,
        uncommitted_max: UNCOMMITTED_MAX,
        seed: 1,
    };
    let mut node = ServerNode::new(config, Instant::now());
    prepare(&mut node);
    let (log, _) =
        FileLog::open(&folder.join("log"), LogOptions::default(), OnDamage::Refuse, |_| {})
            .unwrap();
    let outside = Outside {
        listener,
        log,
        connections: ConnectionSettings::new("n1"),
        discovery_port: None,
        label: NodeLabel::new("n1"),
        trace,
    };
    node.start(outside).unwrap()
}

fn status(server: &RunningServer) -> Status {
    server.with_node(|node, step| node.status(None, step))
}

/// Waits until the status is as it should be, and returns what was found in it.
#[expect(clippy::disallowed_methods, reason = "a test waits in real time")]
fn wait_until<T>(server: &RunningServer, what: &str, found: impl Fn(&Status) -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        let status = status(server);
        if let Some(found) = found(&status) {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}: {status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn healthy(status: &Status, id: &str) -> Option<bool> {
    status.servers.iter().find(|server| server.id == id.into())?.healthy
}

/// Two nodes that are nothing but ports: one that takes connections, one that does not.
#[test]
fn health_checks_find_who_takes_connections_and_who_does_again() {
    let open = bind_listener("127.0.0.1:0").unwrap();
    let open_address = open.local_addr().unwrap().to_string();
    let closed_address = {
        let closed = bind_listener("127.0.0.1:0").unwrap();
        closed.local_addr().unwrap().to_string()
    };
    let (server, _folder) = server(|node| {
        node.failover = Some(Failover::new(HealthTiming {
            health_check_interval: Duration::from_millis(20),
            health_check_timeout: LONG,
        }));
        node.servers.insert("n2".into(), ServerInfo::heard_of(&open_address));
        node.servers.insert("n3".into(), ServerInfo::heard_of(&closed_address));
    });
    assert!(server.threads.running().contains(&"n1:health-check".to_string()));
    // It was reached, not only assumed to be healthy.
    open.accept().unwrap();
    open.accept().unwrap();
    wait_until(&server, "n3 is out", |status| (!healthy(status, "n3")?).then_some(()));
    assert_eq!(healthy(&status(&server), "n1"), Some(true), "the one that answers");
    assert_eq!(healthy(&status(&server), "n2"), Some(true));
    drop(open);
    wait_until(&server, "n2 is out", |status| (!healthy(status, "n2")?).then_some(()));
    let nobody = server.with_node(|node, _| {
        node.failover.as_ref().map(|failover| failover.healthy_nodes().is_empty())
    });
    assert_eq!(nobody, Some(true));
    // Another program can have taken the port meanwhile: then n2 looks as if it were back, too.
    let _open = bind_listener(&open_address);
    wait_until(&server, "n2 is back", |status| healthy(status, "n2")?.then_some(()));
    server.stop();
}

#[test]
fn health_checks_follow_who_leads() {
    let (server, _folder) = server(|node| node.failover = Some(Failover::new(HealthTiming::FAST)));
    let leader =
        |node: &mut ServerNode| node.failover.as_ref().and_then(|f| f.current_leader.clone());
    wait_until(&server, "n1 leads", |status| status.leader.clone());
    wait_until(&server, "that is known", |_| server.with_node(|node, _| leader(node)));
    assert_eq!(server.with_node(|node, _| leader(node)), Some(NodeId::from("n1")));
    server.stop();
}

#[test]
fn without_health_checks_and_time_servers_there_are_no_threads_for_them() {
    let (server, _folder) = server(|_| {});
    let names = server.threads.running();
    assert!(names.contains(&"n1:timeout-checker".to_string()), "{names:?}");
    assert!(
        !names.iter().any(|name| name.ends_with("health-check") || name.ends_with("time-sync"))
    );
    let status = status(&server);
    assert_eq!((healthy(&status, "n1"), status.time), (None, None));
    server.stop();
}

#[test]
fn nobody_waits_for_the_node_while_a_time_server_is_asked() {
    // It hears the question and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_read_timeout(Some(LONG)).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (server, _folder) = server(|node| {
        let timing = TimeSyncTiming { answer_limit: LONG, ..TimeSyncTiming::default() };
        node.time_sync = TimeSync::new(&[address], timing);
    });
    let mut packet = [0; 48];
    let (_, from) = silent.recv_from(&mut packet).unwrap();
    // Were the lock held, this would last as long as the answer is waited for, and there would be a reason then.
    let reason = "no server was asked yet".to_string();
    assert_eq!(status(&server).time, Some(TimeState::Unsynchronised { reason }));
    // The answer: not synchronised. Only now is there something to tell, and nothing to wait for at the stop.
    packet.copy_within(40..48, 24);
    packet[0] = 3 << 6 | 4 << 3 | 4;
    silent.send_to(&packet, from).unwrap();
    wait_until(&server, "the answer is known", |status| {
        let text = status.time.as_ref()?.to_string();
        text.ends_with("is not synchronised itself").then_some(())
    });
    server.stop();
}

/// A client of `server` with a password; connected, or why not.
fn chatter(
    server: &RunningServer,
    name: &str,
    password: Option<&str>,
) -> Result<ChatClient, StartError> {
    let password = password.map(Password::new);
    let client = ChatClient::new(ClientSettings { password, ..ClientSettings::new(name) })?;
    client.start_any(&[server.address().to_string()]).map(|()| client)
}

#[test]
fn passwords_are_checked_by_threads_of_their_own() {
    let (order, _) = Alone::new("n1");
    let (server, _folder) = server(|node| node.ordered = Some(Ordered::new(Box::new(order))));
    let alice = chatter(&server, "alice", Some("sesame")).unwrap();
    alice.join_room("lobby");
    let id = alice.send_message("hello", "lobby").unwrap();
    assert!(alice.wait_acknowledged(Some(LONG)));
    alice.delete_message(&id, "lobby");
    while !matches!(alice.events().recv_timeout(LONG).unwrap(), Event::Deleted { .. }) {}
    // The connection breaks: the session comes back with its token.
    server.connection_manager().client(&alice.client_id()).unwrap().close();
    alice.send_message("again", "lobby").unwrap();
    assert!(alice.wait_acknowledged(Some(LONG)));
    alice.stop();
    let wrong = chatter(&server, "alice", Some("guess")).unwrap_err();
    assert_eq!(wrong.to_string(), "the user name or the password is wrong");
    let none = chatter(&server, "alice", None).unwrap_err();
    assert!(matches!(none, StartError::PasswordNeeded(_)), "{none}");
    // As many at once as there are hashers, and more.
    let crowd: Vec<String> = (0..3 * hasher::count()).map(|n| format!("user {n}")).collect();
    std::thread::scope(|scope| {
        for name in &crowd {
            scope.spawn(|| drop(chatter(&server, name, Some("their own")).unwrap()));
        }
    });
    let statistics =
        server.with_node(|node, _| node.ordered.as_ref().unwrap().storage.statistics());
    assert_eq!(statistics.accounts, 1 + crowd.len() as u64);
    server.stop();
}

#[test]
fn a_trace_ends_with_the_stop_whatever_the_log_has_yet_to_sync() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.jsonl");
    let server = server_in(folder.path(), Some(TraceFile::open(&path, None).unwrap()), |_| {});
    let json = format!(r#"{{"message_id":"{}"}}"#, "a".repeat(4_000));
    // So much that everything else has ended before it is on disk.
    server.with_node(|_, step| {
        for _ in 0..8_000 {
            step.log.append_json(json.as_bytes());
        }
    });
    server.stop();
    let text = std::fs::read_to_string(&path).unwrap();
    let kinds: Vec<Kind> =
        text.lines().map(|line| serde_json::from_str::<TraceEvent>(line).unwrap().kind).collect();
    assert_eq!(kinds.last(), Some(&Kind::Stop));
    assert!(kinds.contains(&Kind::Sync) && !kinds.contains(&Kind::Lost), "{kinds:?}");
}
