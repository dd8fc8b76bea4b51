//! What the page says is what the program does: each example is read and written again.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::content::{
    CatchupReq, Join, LeaderHeartbeat, MembersContent, OrderingAck, PromiseContent, SeqChat,
    TimeoutNow,
};
use crate::domain::content::{
    ClientJoin, Coordinator, Deletion, DiscoveryContent, ElectionContent, ElectionOk, ErrorContent,
    Heartbeat, Held, Hello, HistoryPage, HistoryRequest, JoinRoom, Joined, MemberContent,
    MetadataContent, Presence, Question, Registration, Statistics, Status, SyncContent, Welcome,
};
use crate::domain::{Content, Message, MessageType, raft_content};
use crate::error::RequestError;

const MESSAGES: &str = include_str!("messages.md");
const TRANSCRIPT: &str = include_str!("transcript.txt");
const CLIENT: &str = include_str!("client.py");

/// Each example with the type of its content, as the sentence before it names them.
fn examples() -> Vec<(&'static str, &'static str)> {
    let (mut content_type, mut found) = ("", Vec::new());
    for line in MESSAGES.lines() {
        if line.starts_with('{') {
            assert_ne!(content_type, "", "no type is named before {line}");
            found.push((content_type, line));
        } else if let Some((_, link)) = line.split_once("](crate::domain::") {
            let path = link.split_once(')').unwrap().0;
            content_type = path.strip_prefix("content::").unwrap_or(path);
        } else if line.contains("(no type)") {
            content_type = "no type";
        }
    }
    found
}

/// Reads `content` as a `T` and writes it again.
fn rewrite<T: Serialize + DeserializeOwned>(content: &Content) -> Content {
    Content::object(&content.parse::<T>().unwrap_or_else(|error| panic!("{error}: {content:?}")))
}

fn rewrite_as(content_type: &str, content: &Content) -> Content {
    match content_type {
        "ClientJoin" => rewrite::<ClientJoin>(content),
        "Welcome" => rewrite::<Welcome>(content),
        "JoinRoom" => rewrite::<JoinRoom>(content),
        "Joined" => rewrite::<Joined>(content),
        "ErrorContent" => rewrite::<ErrorContent>(content),
        "DiscoveryContent" => rewrite::<DiscoveryContent>(content),
        "Status" => rewrite::<Status>(content),
        "MemberContent" => rewrite::<MemberContent>(content),
        "Deletion" => rewrite::<Deletion>(content),
        "HistoryRequest" => rewrite::<HistoryRequest>(content),
        "HistoryPage" => rewrite::<HistoryPage>(content),
        "Statistics" => rewrite::<Statistics>(content),
        "Registration" => rewrite::<Registration>(content),
        "Hello" => rewrite::<Hello>(content),
        "Heartbeat" => rewrite::<Heartbeat>(content),
        "ElectionContent" => rewrite::<ElectionContent>(content),
        "Question" => rewrite::<Question>(content),
        "ElectionOk" => rewrite::<ElectionOk>(content),
        "Coordinator" => rewrite::<Coordinator>(content),
        "MetadataContent" => rewrite::<MetadataContent>(content),
        "Presence" => rewrite::<Presence>(content),
        "Held" => rewrite::<Held>(content),
        "SyncContent" => rewrite::<SyncContent>(content),
        "Join" => rewrite::<Join>(content),
        "OrderingAck" => rewrite::<OrderingAck>(content),
        "MembersContent" => rewrite::<MembersContent>(content),
        "PromiseContent" => rewrite::<PromiseContent>(content),
        "SeqChat" => rewrite::<SeqChat>(content),
        "LeaderHeartbeat" => rewrite::<LeaderHeartbeat>(content),
        "CatchupReq" => rewrite::<CatchupReq>(content),
        "TimeoutNow" => rewrite::<TimeoutNow>(content),
        "raft_content::RequestVote" => rewrite::<raft_content::RequestVote>(content),
        "raft_content::AppendEntries" => rewrite::<raft_content::AppendEntries>(content),
        "raft_content::InstallSnapshot" => rewrite::<raft_content::InstallSnapshot>(content),
        "raft_content::TimeoutNow" => rewrite::<raft_content::TimeoutNow>(content),
        "raft_content::ReadIndex" => rewrite::<raft_content::ReadIndex>(content),
        "raft_content::Configuration" => rewrite::<raft_content::Configuration>(content),
        other => panic!("{other} is no content"),
    }
}

#[test]
fn every_example_reads_and_writes_back_the_same() {
    for (content_type, line) in examples() {
        let message = Message::deserialize(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message.serialize(), line);
        match (content_type, &message.content) {
            ("no type", Content::Empty | Content::Text(_)) => {}
            (content_type, content) => {
                assert_eq!(rewrite_as(content_type, content), *content, "{line}");
            }
        }
    }
}

/// The types in the table of what the ring does without, which stand there instead of in an example.
fn types_of_other_designs() -> BTreeSet<&'static str> {
    let rows = MESSAGES.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let is_type = |name: &&str| name.bytes().all(|c| c.is_ascii_uppercase() || c == b'_');
    rows.map(|(name, _)| name).filter(is_type).collect()
}

#[test]
fn every_type_has_an_example_or_belongs_to_another_design() {
    let shown: BTreeSet<&str> = examples()
        .iter()
        .map(|(_, line)| Message::deserialize(line).unwrap().message_type.as_str())
        .collect();
    let others = types_of_other_designs();
    assert_eq!(shown.intersection(&others).count(), 0, "both an example and a row");
    let named: BTreeSet<&str> = shown.union(&others).copied().collect();
    assert_eq!(named, MessageType::ALL.iter().map(|kind| kind.as_str()).collect());
}

#[test]
fn every_kind_of_content_has_an_example() {
    let shown: BTreeSet<&str> = examples().iter().map(|(content_type, _)| *content_type).collect();
    let sources = [
        include_str!("../domain/content.rs"),
        include_str!("../domain/content/election.rs"),
        include_str!("../domain/content/chat_store.rs"),
        include_str!("../domain/content/member.rs"),
        include_str!("../domain/content/ordering.rs"),
    ];
    let parts = [
        "OrderStatus",
        "Position",
        "ServerAddress",
        "ServerStatus",
        "Liveness",
        "RoomStatus",
        "Side",
    ];
    let more =
        ["HeldCount", "Lateness", "MetadataVersion", "RoomClock", "SessionPresence", "TimeState"];
    let ordering = ["Place", "SeqChatKind", "Member", "Members", "StateHere", "StatePiece"];
    let kept = [
        "HistoryStart",
        "RoomStatistics",
        "StorageStatus",
        "MemberList",
        "MemberStatus",
        "MemberRole",
    ];
    let parts = [&parts[..], &more, &ordering, &kept].concat();
    let names = sources.iter().flat_map(|source| source.lines()).filter_map(|line| {
        let rest = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))?;
        rest.split([' ', '(']).next()
    });
    for name in names.filter(|name| !parts.contains(name)) {
        assert!(shown.contains(name), "{name} has no example");
    }
    let raft = include_str!("../domain/raft_content.rs").lines().filter_map(|line| {
        let rest = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))?;
        rest.split([' ', '(']).next()
    });
    for name in raft.filter(|name| !["SnapshotHead", "Learner", "HexBytes"].contains(name)) {
        assert!(shown.contains(&*format!("raft_content::{name}")), "{name} has no example");
    }
}

/// One error of each kind.
fn every_error() -> Vec<RequestError> {
    let (message_id, reason) = (String::new, String::new);
    let message_type = MessageType::Chat;
    vec![
        RequestError::InvalidJson { reason: reason() },
        RequestError::InvalidFraming { first_byte: b'G' },
        RequestError::FrameTooLong { bytes: 2, bytes_max: 1 },
        RequestError::UnknownType { message_id: message_id(), name: String::new() },
        RequestError::MissingField { message_id: message_id(), field: "type" },
        RequestError::InvalidField { message_id: message_id(), reason: reason() },
        RequestError::InvalidName { message_id: message_id(), what: "", fault: String::new() },
        RequestError::JoinFirst { message_id: message_id(), message_type },
        RequestError::UnexpectedType { message_id: message_id(), message_type },
        RequestError::HelloTimeout { seconds: 10, dialled: None },
        RequestError::ClientTimeout { seconds: 30 },
        RequestError::NameInUse { message_id: message_id(), name: String::new(), node: reason() },
        RequestError::SessionMoved { node: String::new() },
        RequestError::NotAMember { message_id: message_id(), room_id: String::new() },
        RequestError::NotFound { message_id: message_id(), target: String::new() },
        RequestError::NotYours { message_id: message_id(), target: String::new() },
        RequestError::Unsupported { message_id: message_id(), what: "", design: String::new() },
        RequestError::ChangeRefused { message_id: message_id(), reason: reason(), later: false },
        RequestError::SessionExpired { message_id: message_id() },
        RequestError::PasswordNeeded { message_id: message_id(), name: String::new() },
        RequestError::WrongPassword { message_id: message_id() },
        RequestError::WrongToken { message_id: message_id() },
        RequestError::NotReady { message_id: message_id(), reason: reason() },
        RequestError::Behind { message_id: message_id(), missing: String::new() },
        RequestError::StorageFull { message_id: message_id(), reason: reason() },
        RequestError::SlowConsumer { bytes_max: 1 },
        RequestError::ServerStopping,
        RequestError::WrongCluster { reason: reason() },
        RequestError::NodeIdInUse { id: String::new(), address: String::new() },
    ]
}

/// `code`, `retryable` and `closes` of each row of the table of errors.
fn rows_of_errors() -> BTreeSet<(&'static str, bool, bool)> {
    let rows = MESSAGES.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (code, rest) = row.split_once("` | ").unwrap();
        let cells: Vec<&str> = rest.trim_end_matches(" |").split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        (code, cells[1] == "yes", cells[2] == "yes")
    })
    .collect()
}

#[test]
fn the_table_of_errors_is_the_errors() {
    let errors = every_error();
    let expected: BTreeSet<_> =
        errors.iter().map(|error| (error.code(), error.retryable(), error.closes())).collect();
    assert_eq!(rows_of_errors(), expected);
}

#[test]
fn no_error_is_missing_from_the_list_above() {
    // The codes stand once each in `RequestError::code`; the list must name them all.
    let source = include_str!("../domain/request_error.rs");
    let codes = source.lines().filter_map(|line| {
        let (variant, code) = line.trim().strip_prefix("Self::")?.split_once(" => \"")?;
        variant.chars().next()?.is_uppercase().then(|| code.trim_end_matches("\","))
    });
    let codes: BTreeSet<&str> = codes.filter(|code| !code.contains(' ')).collect();
    let listed: BTreeSet<&str> = every_error().iter().map(RequestError::code).collect();
    assert_eq!(codes, listed);
}

#[test]
fn the_transcript_is_made_of_messages() {
    let mut counts = (0, 0);
    for line in TRANSCRIPT.lines().skip(1) {
        let (mark, text) = line.split_at(2);
        let message = Message::deserialize(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        match mark {
            "> " => counts.0 += 1,
            // What a server printed is written as a server writes it.
            "< " => {
                counts.1 += 1;
                assert_eq!(message.serialize(), text);
            }
            _ => panic!("{line}"),
        }
    }
    assert!(counts.0 > 5 && counts.1 > 5, "{counts:?}");
}

#[test]
fn the_client_in_python_sends_types_that_exist() {
    let types: Vec<&str> =
        CLIENT.split("type=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect();
    assert!(types.len() > 3);
    for name in types {
        assert!(MessageType::ALL.iter().any(|known| known.as_str() == name), "{name}");
    }
}
