//! `roundtable status`: how the cluster is, for people and for programs.

use std::fmt::Write as _;

use super::Outcome;
use super::args::{Check, Format, StatusArgs};
use super::connect::servers;
use super::output::{say, show};
use super::render::{counted, visible};
use crate::client::{query_status, query_status_of_room};
use crate::domain::NodeId;
use crate::domain::content::{Lateness, Liveness, OrderStatus, RoomStatus, Statistics, Status};
use crate::error::StartError;

/// A name that no room can have.
const NO_ROOM: &str = "\n";

/// Asks the servers in turn and prints the first answer.
pub fn run(args: &StatusArgs) -> Result<Outcome, StartError> {
    let addresses = servers(&args.connect)?;
    if let Some(wanted) = args.check {
        return check(wanted, &addresses);
    }
    let mut failures = Vec::new();
    for address in addresses {
        match query_status(&address) {
            Ok(status) => return Ok(print(&status, args.format)),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(StartError::Other(format!("no server answers ({})", failures.join("; "))))
}

/// Prints which of the servers is as `wanted`: the first. Otherwise says why none is.
fn check(wanted: Check, addresses: &[String]) -> Result<Outcome, StartError> {
    let mut failures = Vec::new();
    for address in addresses {
        // No room has this name: what is asked every few seconds should not list them all.
        match query_status_of_room(address, NO_ROOM).map(|status| as_wanted(&status, wanted)) {
            Ok(Ok(line)) => {
                say!("{line}");
                return Ok(Outcome::Done);
            }
            Ok(Err(why)) => failures.push(why),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    let what = match wanted {
        Check::Alive => "answers",
        Check::Ready => "takes clients",
    };
    Err(StartError::Other(format!("no server {what} ({})", failures.join("; "))))
}

/// The line that says so, or why not.
fn as_wanted(status: &Status, wanted: Check) -> Result<String, String> {
    let node = visible(status.node.as_str());
    match (wanted, &status.not_ready) {
        (Check::Alive, _) => Ok(format!("{node} answers")),
        (Check::Ready, None) => Ok(format!("{node} takes clients")),
        (Check::Ready, Some(why)) => Err(format!("{node}: {}", visible(why))),
    }
}

fn print(status: &Status, format: Format) -> Outcome {
    let text = match format {
        Format::Text => table(status),
        // Serialising cannot fail: only string keys.
        Format::Json => serde_json::to_string(status).unwrap_or_default() + "\n",
    };
    show!("{text}");
    Outcome::Done
}

/// The status as tables for people.
pub fn table(status: &Status) -> String {
    let leader = status.leader.as_ref().map_or("-", NodeId::as_str);
    let summary = [
        ("node", status.node.to_string()),
        ("state", status.state.clone()),
        ("leader", leader.into()),
        ("term", status.term.to_string()),
        ("design", status.design.clone()),
        ("cluster", status.cluster.clone()),
        ("ring", ring(&status.ring)),
    ];
    let storage = status.storage.as_ref();
    let storage =
        storage.map(|storage| ("applied", format!("{} ({})", storage.applied, storage.digest)));
    let mut text = String::new();
    for (name, value) in summary.into_iter().chain(storage) {
        let _ = writeln!(text, "{name:<8} {}", visible(&value));
    }
    if let Some(Lateness { last_minute_ms, since_start_ms }) = status.heartbeat_lateness {
        let since_start = format!("{since_start_ms} ms since the start");
        let _ = writeln!(
            text,
            "beats    {last_minute_ms} ms late at most in the last minute, {since_start}"
        );
    }
    if let Some(changes) = status.leader_changes {
        let _ = writeln!(text, "leaders  {} since the start", counted(changes, "change"));
    }
    if let Some(time) = &status.time {
        let _ = writeln!(text, "time     {}", visible(&time.to_string()));
    }
    if let Some(order) = &status.order {
        text.push_str(&order_lines(order));
    }
    text.push('\n');
    text.push_str(&servers_table(status));
    text.push('\n');
    text.push_str(&rooms_table(&status.rooms));
    text
}

/// How far the one order is, and who decides on it.
fn order_lines(order: &OrderStatus) -> String {
    let mut places = format!("committed up to {}, log up to {}", order.committed, order.last);
    if order.starts_after > 0 {
        let _ = write!(places, ", kept from {}", order.starts_after + 1);
    }
    let voters = if order.voters.is_empty() { "-".into() } else { names(&order.voters) };
    let mut text = format!("order    {places}\nvoters   {}\n", visible(&voters));
    for (what, ids) in [("learners", &order.learners), ("wiped", &order.wiped)] {
        if !ids.is_empty() {
            let _ = writeln!(text, "{what:<8} {}", visible(&names(ids)));
        }
    }
    if let Some(waits_for) = &order.waits_for {
        let _ = writeln!(text, "waits    {}", visible(waits_for));
    }
    text
}

/// `n1, n2`.
pub(super) fn names(ids: &[NodeId]) -> String {
    ids.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

/// The servers as a table; HEALTHY where health checks run.
fn servers_table(status: &Status) -> String {
    let checks_health = status.servers.iter().any(|server| server.healthy.is_some());
    let mut rows = vec![["SERVER", "ADDRESS", "STATE", "HEARD", "HEALTHY"].map(String::from)];
    for server in &status.servers {
        let liveness = match server.state {
            Liveness::Alive => "alive",
            Liveness::Suspect => "suspect",
            Liveness::Dead => "dead",
        };
        let heard = match server.last_heartbeat_ms {
            Some(_) if server.id == status.node => "-".into(),
            Some(ms) => format!("{ms} ms ago"),
            None => "never".into(),
        };
        let healthy = match server.healthy {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        let (id, address) = (server.id.to_string(), server.address.clone());
        rows.push([id, address, liveness.into(), heard, healthy.into()]);
    }
    if checks_health {
        return columns(&rows);
    }
    let without_health: Vec<[String; 4]> = rows
        .into_iter()
        .map(|[id, address, state, heard, _]| [id, address, state, heard])
        .collect();
    columns(&without_health)
}

/// The rooms as a table for people.
pub fn rooms_table(rooms: &[RoomStatus]) -> String {
    let titles = ["ROOM", "HOST", "REPLICAS", "MESSAGES", "MEMBERS"].map(String::from);
    let mut rows = vec![titles];
    for room in rooms {
        let replicas: Vec<&str> = room.replicas.iter().map(NodeId::as_str).collect();
        rows.push([
            room.room_id.clone(),
            room.host.as_ref().map_or("-", NodeId::as_str).into(),
            replicas.join(" "),
            room.messages.to_string(),
            members(&room.members),
        ]);
    }
    columns(&rows)
}

/// What is kept, as a table for people.
pub fn statistics_table(statistics: &Statistics) -> String {
    let Statistics { messages, bytes, deleted, sessions, accounts, rooms } = statistics;
    let titles = ["ROOM", "MESSAGES", "BYTES", "SENDERS", "MEMBERS"].map(String::from);
    let mut rows = vec![titles];
    rows.extend(rooms.iter().map(|room| {
        let numbers = [room.messages, room.bytes, room.senders, room.members];
        let [messages, bytes, senders, members] = numbers.map(|number| number.to_string());
        [room.room_id.clone(), messages, bytes, senders, members]
    }));
    let head = format!(
        "{} of {}, {deleted} deleted, {}, {}\n",
        counted(*messages, "message"),
        counted(*bytes, "byte"),
        counted(*sessions, "session"),
        counted(*accounts, "account")
    );
    head + &columns(&rows)
}

/// `n1 -> n2 -> n3 -> n1`.
fn ring(ids: &[NodeId]) -> String {
    let closed = ids.iter().chain(ids.first().filter(|_| ids.len() > 1));
    let names: Vec<&str> = closed.map(NodeId::as_str).collect();
    names.join(" -> ")
}

/// How many names a row shows.
const MEMBERS_SHOWN: usize = 8;

fn members(names: &[String]) -> String {
    let shown = names.iter().take(MEMBERS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MEMBERS_SHOWN) {
        0 => format!("{} {shown}", names.len()).trim_end().into(),
        more => format!("{} {shown} and {more} more", names.len()),
    }
}

/// Rows under each other, each column as wide as its widest cell.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| visible(cell))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::{RoomStatistics, ServerStatus, TimeState};

    #[test]
    fn a_status_is_a_head_and_two_aligned_tables() {
        let server = |id: &str, state, heard| ServerStatus {
            id: id.into(),
            address: format!("127.0.0.1:700{}", &id[1..]),
            state,
            last_heartbeat_ms: heard,
            healthy: None,
        };
        let status = Status {
            node: "n1".into(),
            state: "FOLLOWER".into(),
            leader: Some("n3".into()),
            term: 2,
            design: "ring".into(),
            cluster: "roundtable".into(),
            servers: vec![
                server("n1", Liveness::Alive, Some(0)),
                server("n2", Liveness::Dead, None),
                server("n3", Liveness::Suspect, Some(1400)),
            ],
            ring: vec!["n1".into(), "n3".into()],
            rooms: vec![RoomStatus {
                room_id: "lobby\u{7}".into(),
                host: Some("n1".into()),
                replicas: vec!["n1".into(), "n3".into()],
                members: vec!["alice".into(), "bob".into()],
                messages: 12,
                ..RoomStatus::default()
            }],
            storage: None,
            time: None,
            order: None,
            disk_fault: None,
            not_ready: None,
            syncs: 0,
            heartbeat_lateness: None,
            leader_changes: None,
        };
        let expected = r"node     n1
state    FOLLOWER
leader   n3
term     2
design   ring
cluster  roundtable
ring     n1 -> n3 -> n1

SERVER  ADDRESS         STATE    HEARD
n1      127.0.0.1:7001  alive    -
n2      127.0.0.1:7002  dead     never
n3      127.0.0.1:7003  suspect  1400 ms ago

ROOM         HOST  REPLICAS  MESSAGES  MEMBERS
lobby\u{7}  n1    n1 n3     12        2 alice, bob
";
        // The header is padded to the width of the escaped name.
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&table(&status)), squeezed(expected));
        let text = table(&status);
        let rows: Vec<&str> = text.lines().skip(8).take(4).collect();
        assert_eq!(rows, expected.lines().skip(8).take(4).collect::<Vec<_>>());
    }

    #[test]
    fn late_heartbeats_and_changes_of_the_leader_are_a_line_each() {
        let status: Status = serde_json::from_str(
            r#"{"node":"n1","state":"LEADER","leader":"n1","term":2,"design":"ring","cluster":"c","servers":[],"ring":[],
            "rooms":[],"heartbeat_lateness":{"last_minute_ms":3,"since_start_ms":41},"leader_changes":1}"#,
        )
        .unwrap();
        let text = table(&status);
        let wanted = "beats    3 ms late at most in the last minute, 41 ms since the start\n\
                      leaders  1 change since the start\n";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn statistics_are_a_line_and_a_table() {
        let room = RoomStatistics {
            room_id: "lobby".into(),
            messages: 3,
            bytes: 12,
            senders: 2,
            members: 1,
            last_ms: None,
        };
        let statistics = Statistics {
            messages: 3,
            bytes: 12,
            deleted: 1,
            sessions: 2,
            accounts: 0,
            rooms: vec![room],
        };
        let expected = "3 messages of 12 bytes, 1 deleted, 2 sessions, 0 accounts\n\
                        ROOM   MESSAGES  BYTES  SENDERS  MEMBERS\n\
                        lobby  3         12     2        1\n";
        assert_eq!(statistics_table(&statistics), expected);
    }

    #[test]
    fn time_and_health_are_shown_where_they_are_known() {
        let server = |id: &str, healthy| ServerStatus {
            id: id.into(),
            address: "h:1".into(),
            state: Liveness::Alive,
            last_heartbeat_ms: Some(7),
            healthy,
        };
        let mut status = Status {
            node: "n1".into(),
            state: "LEADER".into(),
            leader: Some("n1".into()),
            term: 1,
            design: "raft".into(),
            cluster: "roundtable".into(),
            servers: vec![server("n1", Some(true)), server("n2", Some(false)), server("n3", None)],
            ring: vec!["n1".into()],
            rooms: Vec::new(),
            storage: None,
            time: Some(TimeState::Synchronised {
                server: "t:123".into(),
                offset_ms: 1.2044,
                delay_ms: 0.31,
                age_ms: 12_400,
            }),
            order: None,
            disk_fault: None,
            not_ready: None,
            syncs: 0,
            heartbeat_lateness: None,
            leader_changes: None,
        };
        let text = table(&status);
        assert!(
            text.contains("\ntime     t:123, offset +1.204 ms, delay 0.310 ms, heard 12 s ago\n"),
            "{text}"
        );
        for row in [
            "SERVER  ADDRESS  STATE  HEARD     HEALTHY",
            "n1      h:1      alive  -         yes",
            "n2      h:1      alive  7 ms ago  no",
            "n3      h:1      alive  7 ms ago  -",
        ] {
            assert!(text.lines().any(|line| line == row), "{row} in\n{text}");
        }
        let reason = "t:123 does not answer".to_string();
        status.time = Some(TimeState::Unsynchronised { reason });
        let line = "time     not synchronised, the system clock serves: t:123 does not answer\n";
        assert!(table(&status).contains(line), "{}", table(&status));
    }

    #[test]
    fn an_order_tells_who_votes_who_learns_and_who_lost_its_disk() {
        let mut order = OrderStatus {
            committed: 7,
            last: 9,
            starts_after: 3,
            voters: vec!["n1".into(), "n2".into(), "n3".into()],
            ..OrderStatus::default()
        };
        let head = "order    committed up to 7, log up to 9, kept from 4\nvoters   n1, n2, n3\n";
        assert_eq!(order_lines(&order), head);
        (order.learners, order.wiped) = (vec!["n4".into(), "n5".into()], vec!["n3".into()]);
        order.waits_for = Some("no majority".into());
        let more = "learners n4, n5\nwiped    n3\nwaits    no majority\n";
        assert_eq!(order_lines(&order), format!("{head}{more}"));
    }

    #[test]
    fn a_ring_of_one_is_just_its_server() {
        assert_eq!(ring(&["n1".into()]), "n1");
        assert_eq!(ring(&[]), "");
    }

    #[test]
    fn long_lists_of_members_are_cut() {
        let names: Vec<String> = (0..20).map(|n| format!("u{n}")).collect();
        assert_eq!(members(&names), "20 u0, u1, u2, u3, u4, u5, u6, u7 and 12 more");
        assert_eq!(members(&[]), "0");
    }
}
