//! Bad input gets a clear message, nothing is lost by it, and the server goes on serving others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::time::{Duration, Instant};

use roundtable::domain::MessageType;
use roundtable::domain::content::ErrorContent;
use support::cluster::Cluster;
use support::wire::{Framing, RawClient, framed};
use support::{DEADLINE, wait_until};

// ---------------------------------------------------------------- frames

#[test]
fn invalid_json_is_named_and_ends_the_connection_in_both_framings() {
    let cluster = Cluster::start(1, &[]);
    for framing in [Framing::Lines, Framing::Prefixed] {
        for body in
            ["{nonsense", "{\"type\":\"STATUS\"", "{\"type\":\"STATUS\"} {}", "{\"a\":\"\u{1}\"}"]
        {
            let mut client = RawClient::connect(cluster.address(0), framing);
            client.send_frame(body);
            let (_, error) = client.expect_error("INVALID_JSON");
            assert!(error.reason.starts_with("not a JSON message: "), "{}", error.reason);
            client.expect_closed();
        }
        // Not only as the first words of a connection.
        let mut client = RawClient::join_framed(cluster.address(0), "ann", framing);
        client.send_frame("[1, 2]");
        client.expect_error("INVALID_JSON");
        client.expect_closed();
    }
    cluster.assert_serves();
}

#[test]
fn bytes_that_are_not_utf_8_are_invalid_json() {
    let cluster = Cluster::start(1, &[]);
    for framing in [Framing::Lines, Framing::Prefixed] {
        let mut client = RawClient::connect(cluster.address(0), framing);
        client.send_bytes(&framed(framing, b"{\"type\":\"STATUS\",\"sender_id\":\"\xff\xfe\"}"));
        client.expect_error("INVALID_JSON");
        client.expect_closed();
    }
    cluster.assert_serves();
}

#[test]
fn bytes_that_are_neither_framing_are_named_with_the_two_that_are() {
    let cluster = Cluster::start(1, &[]);
    for (bytes, named) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "0x47"),
        (&b"hello\n"[..], "0x68"),
        (&b"\xff\xff\xff\xff"[..], "0xff"),
        (&b" {\"type\":\"STATUS\"}\n"[..], "0x20"),
    ] {
        let mut client = RawClient::connect(cluster.address(0), Framing::Lines);
        client.send_bytes(bytes);
        let (_, error) = client.expect_error("INVALID_FRAMING");
        let wanted = format!("the first byte {named} starts no known framing; send JSON lines");
        assert!(error.reason.starts_with(&wanted), "{}", error.reason);
        client.expect_closed();
    }
    cluster.assert_serves();
}

#[test]
fn a_frame_over_the_limit_is_refused_with_both_sizes() {
    let cluster = Cluster::start(1, &["--frame-bytes-max", "5000"]);
    let mut client = RawClient::connect(cluster.address(0), Framing::Prefixed);
    client.send_bytes(&6000_u32.to_be_bytes());
    let (_, error) = client.expect_error("FRAME_TOO_LONG");
    assert_eq!(error.reason, "frame of 6000 bytes exceeds the limit of 5000");
    client.expect_closed();

    // A line is refused as soon as it is too long, whether it ends or not, however much follows.
    for size in [6000, 400_000] {
        let mut client = RawClient::join(cluster.address(0), &format!("long {size}"));
        client.send_bytes(&vec![b'{'; size]);
        let (_, error) = client.expect_error("FRAME_TOO_LONG");
        assert!(error.reason.ends_with("exceeds the limit of 5000"), "{}", error.reason);
        client.end();
        client.expect_closed();
    }
    // What fits is taken.
    let mut client = RawClient::join(cluster.address(0), "ann");
    client.join_room("lobby", 0);
    client.chat_acked("lobby", "long", &"x".repeat(4000));
    cluster.assert_serves();
}

#[test]
fn a_frame_of_the_default_limit_is_taken_and_one_byte_more_is_not() {
    let cluster = Cluster::start(1, &[]);
    for framing in [Framing::Lines, Framing::Prefixed] {
        let mut client = RawClient::join_framed(cluster.address(0), "ann", framing);
        client.join_room("lobby", 0);
        let empty = client.chat_message("lobby", "long", "").serialize().len();
        let text = "x".repeat(1024 * 1024 - empty);
        client.chat_acked("lobby", "long", &text);
        client.chat("lobby", "long", &format!("{text}x"));
        let answer = client.wait_for("the ERROR", |msg| msg.message_type == MessageType::Error);
        let error: ErrorContent = answer.content.parse().unwrap();
        let wanted = "frame of 1048577 bytes exceeds the limit of 1048576";
        assert_eq!((error.code.as_str(), error.reason.as_str()), ("FRAME_TOO_LONG", wanted));
        client.expect_closed();
    }
    cluster.assert_serves();
}

#[test]
fn a_connection_that_says_something_and_then_nothing_is_closed_after_ten_seconds() {
    let cluster = Cluster::start(1, &[]);
    let begin = Instant::now();
    let mut asked = RawClient::connect(cluster.address(0), Framing::Lines);
    asked.status();
    let mut half_said = RawClient::connect(cluster.address(0), Framing::Lines);
    half_said.send_bytes(b"{\"type\":\"CLIENT_JO");
    let mut announced = RawClient::connect(cluster.address(0), Framing::Prefixed);
    announced.send_bytes(&[0, 0]);
    for client in [&mut asked, &mut half_said, &mut announced] {
        let (_, error) = client.expect_error("HELLO_TIMEOUT");
        let wanted = "said neither CLIENT_JOIN, as a client, nor HELLO, as a server, within 10 s";
        assert!(error.reason.contains(wanted), "{}", error.reason);
        client.expect_closed();
    }
    assert!(begin.elapsed() >= Duration::from_secs(10), "too early: {:?}", begin.elapsed());
    cluster.assert_serves();
}

#[test]
fn a_connection_that_closes_without_a_word_is_no_news() {
    let cluster = Cluster::start(1, &[]);
    let before = cluster.servers[0].log();
    for _ in 0..20 {
        drop(RawClient::connect(cluster.address(0), Framing::Lines));
    }
    assert_eq!(cluster.servers[0].log(), before, "a health check leaves no line in the log");
    cluster.assert_serves();
}

// ---------------------------------------------------------------- requests

/// Sends frames to one server after CLIENT_JOIN, or as first words of new connections.
struct Refusals {
    cluster: Cluster,
    joined: RawClient,
}

impl Refusals {
    fn new() -> Self {
        let cluster = Cluster::start(1, &[]);
        let mut joined = RawClient::join(cluster.address(0), "ann");
        joined.join_room("lobby", 0);
        Self { cluster, joined }
    }

    /// `frame` of a client that has joined is refused, and the connection goes on.
    fn of_client(&mut self, frame: &str, code: &str, reason: &str) {
        self.joined.send_frame(frame);
        let (id, error) = self.joined.expect_error(code);
        assert_eq!((id.as_str(), error.reason.as_str()), ("m", reason), "{frame}");
        self.joined.chat_acked("lobby", "good", "still here");
    }

    /// `frame` as the first words of a connection is refused, and CLIENT_JOIN can still be said.
    fn of_stranger(&mut self, frame: &str, code: &str, reason: &str) {
        let mut stranger = RawClient::connect(self.cluster.address(0), Framing::Lines);
        stranger.send_frame(frame);
        let (id, error) = stranger.expect_error(code);
        assert_eq!((id.as_str(), error.reason.as_str()), ("m", reason), "{frame}");
        let answer = stranger.say_join("eve", "eve's session");
        assert_eq!(answer.message_type, MessageType::Ack, "{}", answer.serialize());
    }
}

#[test]
fn an_unknown_type_is_named_and_the_connection_goes_on() {
    let mut refusals = Refusals::new();
    let frame = r#"{"message_id":"m","type":"SHOUT"}"#;
    refusals.of_client(frame, "UNKNOWN_TYPE", "unknown type \"SHOUT\"");
    refusals.of_stranger(frame, "UNKNOWN_TYPE", "unknown type \"SHOUT\"");
    let frame = r#"{"message_id":"m","type":["CHAT"]}"#;
    refusals.of_client(frame, "UNKNOWN_TYPE", "unknown type \"[\\\"CHAT\\\"]\"");
    refusals.cluster.assert_serves();
}

#[test]
fn a_known_type_in_the_wrong_place_is_refused() {
    let mut refusals = Refusals::new();
    for name in ["HELLO", "ELECTION", "SYNC", "METADATA_UPDATE", "CLIENT_JOIN", "ACK", "ERROR"] {
        let frame = format!(r#"{{"message_id":"m","type":"{name}","content":{{}}}}"#);
        let reason = format!("{name} is not for clients to send");
        refusals.of_client(&frame, "UNEXPECTED_TYPE", &reason);
    }
    for name in ["CHAT", "JOIN_ROOM", "LEAVE_ROOM", "ELECTION", "SYNC", "ACK"] {
        let frame = format!(r#"{{"message_id":"m","type":"{name}"}}"#);
        let reason = format!("{name} before CLIENT_JOIN; say who you are first");
        refusals.of_stranger(&frame, "JOIN_FIRST", &reason);
    }
    refusals.cluster.assert_serves();
}

#[test]
fn a_missing_field_is_named() {
    let mut refusals = Refusals::new();
    let missing = |field: &str| format!("the field {field:?} is missing");
    for (frame, field) in [
        (r#"{"message_id":"m"}"#, "type"),
        (r#"{"message_id":"m","type":"CHAT","content":"x"}"#, "room_id"),
        (r#"{"message_id":"m","type":"CHAT","room_id":"lobby"}"#, "content"),
        (r#"{"message_id":"m","type":"JOIN_ROOM"}"#, "room_id"),
        (r#"{"message_id":"m","type":"LEAVE_ROOM"}"#, "room_id"),
    ] {
        refusals.of_client(frame, "MISSING_FIELD", &missing(field));
    }
    for (frame, field) in [
        (r#"{"message_id":"m"}"#, "type"),
        (r#"{"message_id":"m","type":"CLIENT_JOIN","content":{"session":"s"}}"#, "sender_id"),
        (r#"{"message_id":"m","type":"CLIENT_JOIN","sender_id":"eve"}"#, "session"),
        (r#"{"message_id":"m","type":"CLIENT_JOIN","sender_id":"eve","content":{}}"#, "session"),
    ] {
        refusals.of_stranger(frame, "MISSING_FIELD", &missing(field));
    }
    // Without the field that names the request the answer names none.
    refusals.joined.send_frame(r#"{"type":"CHAT","room_id":"lobby","content":"x"}"#);
    let (id, error) = refusals.joined.expect_error("MISSING_FIELD");
    assert_eq!((id, error.reason), (String::new(), missing("message_id")));
    refusals.cluster.assert_serves();
}

#[test]
fn a_field_of_the_wrong_kind_is_named() {
    let mut refusals = Refusals::new();
    for (frame, named) in [
        (r#"{"message_id":"m","type":"CHAT","room_id":7,"content":"x"}"#, "expected a string"),
        (r#"{"message_id":"m","type":"CHAT","room_id":"lobby","content":[1]}"#, "content must be"),
        (r#"{"message_id":"m","type":"JOIN_ROOM","room_id":"a","content":{"history":-1}}"#, "-1"),
        (
            r#"{"message_id":"m","type":"JOIN_ROOM","room_id":"a","content":{"after":"x"}}"#,
            "content",
        ),
        (r#"{"message_id":"m","type":"JOIN_ROOM","room_id":"a","content":{"after":3}}"#, "design"),
    ] {
        refusals.joined.send_frame(frame);
        let (id, error) = refusals.joined.expect_error("INVALID_FIELD");
        assert_eq!(id, "m");
        assert!(error.reason.starts_with("a field is not as it should be: "), "{}", error.reason);
        assert!(error.reason.contains(named), "{frame}: {}", error.reason);
        refusals.joined.chat_acked("lobby", "good", "still here");
    }
    refusals.cluster.assert_serves();
}

#[test]
fn names_with_control_characters_or_over_64_characters_are_refused() {
    let mut refusals = Refusals::new();
    let long = "ä".repeat(65);
    let too_long = "is 65 characters long, the limit is 64";
    for (name, fault) in [
        (r"a\nb", "has control characters"),
        (r"\u0007", "has control characters"),
        (r"a\u0085", "has control characters"),
        (long.as_str(), too_long),
    ] {
        for name_of in ["JOIN_ROOM", "LEAVE_ROOM", "CHAT"] {
            let frame = format!(
                r#"{{"message_id":"m","type":"{name_of}","room_id":"{name}","content":{}}}"#,
                if name_of == "CHAT" { r#""x""# } else { "{}" }
            );
            refusals.of_client(&frame, "INVALID_NAME", &format!("the room name {fault}"));
        }
        let join = |user: &str, session: &str| {
            format!(
                r#"{{"message_id":"m","type":"CLIENT_JOIN","sender_id":"{user}","content":{{"session":"{session}"}}}}"#
            )
        };
        let reason = format!("the user name {fault}");
        refusals.of_stranger(&join(name, "s"), "INVALID_NAME", &reason);
        refusals.of_stranger(&join("eve", name), "INVALID_NAME", &format!("the session {fault}"));
    }
    // 64 are enough for everyone.
    let name = "ä".repeat(64);
    let mut client = RawClient::join(refusals.cluster.address(0), &name);
    client.join_room(&name, 0);
    client.chat_acked(&name, "m", "fits");
    refusals.cluster.assert_serves();
}

#[test]
fn a_chat_into_a_room_that_was_not_joined_is_refused_and_not_delivered() {
    let mut refusals = Refusals::new();
    let mut other = RawClient::join(refusals.cluster.address(0), "other");
    other.join_room("den", 0);
    for room in ["den", "nowhere"] {
        let frame = format!(
            r#"{{"message_id":"m","type":"CHAT","room_id":"{room}","content":"let me in"}}"#
        );
        let reason = format!("not a member of {room:?}; join it first");
        refusals.of_client(&frame, "NOT_A_MEMBER", &reason);
        let frame = format!(r#"{{"message_id":"m","type":"LEAVE_ROOM","room_id":"{room}"}}"#);
        refusals.of_client(&frame, "NOT_A_MEMBER", &reason);
    }
    other.expect_no_chat();
    refusals.cluster.assert_serves();
}

#[test]
fn a_name_in_use_is_refused_on_every_server_and_is_free_again_when_its_owner_leaves() {
    let cluster = Cluster::start(3, &[]);
    let mut ann = RawClient::join(cluster.address(0), "ann");
    ann.join_room("lobby", 0);
    cluster.wait_members("lobby", &["ann"]);
    for server in 0..3 {
        let mut double = RawClient::connect(cluster.address(server), Framing::Lines);
        let answer = double.say_join("ann", "another session");
        let error: ErrorContent = answer.content.parse().unwrap();
        assert_eq!((answer.message_id.as_str(), error.code.as_str()), ("hello", "NAME_IN_USE"));
        assert_eq!(error.reason, "the name \"ann\" is in use on n1; choose another");
        double.expect_closed();
    }
    ann.chat_acked("lobby", "m", "I am the one");
    ann.send(&ann.message(MessageType::ClientLeave, "bye"));
    ann.wait_for("the ACK of CLIENT_LEAVE", |msg| msg.message_id == "bye");
    cluster.wait_members("lobby", &[]);
    for server in 0..3 {
        let heir = wait_until("the name is free", || {
            let mut heir = RawClient::connect(cluster.address(server), Framing::Lines);
            let answer = heir.say_join("ann", &format!("session {server}"));
            (answer.message_type == MessageType::Ack).then_some(heir)
        });
        let mut heir = heir;
        heir.send(&heir.message(MessageType::ClientLeave, "bye"));
        heir.expect("the ACK of CLIENT_LEAVE");
    }
    cluster.assert_serves();
}

// ---------------------------------------------------------------- clients that do not behave

#[test]
fn a_client_that_stops_reading_is_cut_off_and_nobody_waits_for_it() {
    let bounds = ["--frame-bytes-max", "65536", "--client-queue-bytes", "65536"];
    let cluster = Cluster::start(2, &bounds);
    let mut slow = RawClient::connect_narrow(cluster.address(0), Framing::Lines);
    slow.say_join("slow", "slow");
    slow.join_room("lobby", 0);
    let mut reader = RawClient::join(cluster.address(0), "reader");
    reader.join_room("lobby", 0);
    let mut writer = RawClient::join(cluster.address(1), "writer");
    writer.join_room("lobby", 0);
    cluster.wait_members("lobby", &["reader", "slow", "writer"]);

    let text = "x".repeat(20_000);
    let is_cut = || cluster.servers[0].log().contains("reads too slowly");
    let mut written = 0;
    while !is_cut() {
        assert!(written < 5000, "100 MB wait for a client that does not read");
        // Each is acknowledged, and read by the other one, while the slow one holds nobody up.
        writer.chat_acked("lobby", &written.to_string(), &text);
        assert_eq!(reader.chats(1)[0].message_id, written.to_string());
        written += 1;
    }
    let mut read = 0;
    let last = loop {
        match slow.next(DEADLINE) {
            Ok(msg) if msg.message_type == MessageType::Chat => {
                assert_eq!(msg.message_id, read.to_string(), "what is read has no gap");
                read += 1;
            }
            Ok(msg) if msg.message_type == MessageType::JoinRoom => {}
            Ok(msg) => break msg,
            Err(end) => panic!("{end:?} before the ERROR, after {read} of {written}"),
        }
    };
    let error: ErrorContent = last.content.parse().unwrap();
    assert_eq!((error.code.as_str(), error.retryable), ("SLOW_CONSUMER", true), "{}", error.reason);
    assert_eq!(error.reason, "more than 65536 bytes wait to be read; read faster");
    slow.expect_closed();
    assert!(read < written, "{read} of {written} were read");
    cluster.assert_serves();
}

#[test]
fn a_client_that_stops_reading_for_ever_is_closed_all_the_same() {
    let bounds = ["--frame-bytes-max", "65536", "--client-queue-bytes", "65536"];
    let cluster = Cluster::start(1, &bounds);
    let mut deaf = RawClient::connect_narrow(cluster.address(0), Framing::Lines);
    deaf.say_join("deaf", "deaf");
    deaf.join_room("lobby", 0);
    let mut writer = RawClient::join(cluster.address(0), "writer");
    writer.join_room("lobby", 0);
    let text = "x".repeat(20_000);
    let mut written = 0;
    while !cluster.servers[0].log().contains("reads too slowly") {
        writer.chat_acked("lobby", &written.to_string(), &text);
        written += 1;
    }
    // Nobody has left the room before the grace time of a lost connection is over; then it is news.
    writer.wait_for("the notice that it left", |msg| msg.message_type == MessageType::LeaveRoom);
    cluster.assert_serves();
}
