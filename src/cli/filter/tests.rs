//! The whole filter, in this process, against fake servers.

use std::io::{Cursor, Read};

use super::*;
use crate::client::ClientSettings;
use crate::client::fake_server::{FakeCluster, FakeServer};
use crate::domain::MessageType;

fn options() -> FilterOptions {
    FilterOptions {
        room: "lobby".into(),
        history: None,
        format: Format::Text,
        wait: Some(Duration::from_secs(20)),
        linger: None,
        expect: None,
        frame_bytes_max: 4096,
    }
}

fn client(server: &FakeServer) -> Arc<ChatClient> {
    let settings = ClientSettings { frame_bytes_max: 4096, ..ClientSettings::new("alice") };
    let client = ChatClient::new(settings).unwrap();
    client.start_any(std::slice::from_ref(&server.address)).unwrap();
    client.into()
}

/// What a filter printed, noted, and how it ended.
fn filter(server: &FakeServer, options: FilterOptions, input: &str) -> (String, String, Outcome) {
    let input = Cursor::new(input.as_bytes().to_vec());
    filter_of(server, options, input)
}

fn filter_of(
    server: &FakeServer,
    options: FilterOptions,
    input: impl BufRead + Send + 'static,
) -> (String, String, Outcome) {
    let (mut output, mut notes) = (Vec::new(), Vec::new());
    let threads = Threads::new("test");
    let client = client(server);
    let outcome =
        drive(client, options, input, &mut output, &mut notes, &threads, never()).unwrap();
    (String::from_utf8(output).unwrap(), String::from_utf8(notes).unwrap(), outcome)
}

/// An input that never ends.
struct Silence(Receiver<()>);

impl Read for Silence {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(0)
    }
}

#[test]
fn each_line_is_a_message_and_each_delivery_a_line() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let (output, notes, outcome) = filter(&server, options(), "one\n/quit\n\nlast");
    assert_eq!(
        output,
        "[lobby] alice: one\n[lobby] alice: /quit\n[lobby] alice: \n[lobby] alice: last\n"
    );
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(cluster.texts("lobby"), ["one", "/quit", "", "last"]);
    assert!(notes.contains("* you joined lobby"), "{notes}");
}

#[test]
fn the_past_is_printed_first_even_when_there_is_nothing_to_say() {
    let cluster = FakeCluster::new();
    for text in ["a", "b", "c"] {
        cluster.say("bob", text, "lobby");
    }
    let server = FakeServer::start(&cluster);
    let options = FilterOptions { history: Some(2), ..options() };
    let (output, _, outcome) = filter(&server, options, "");
    assert_eq!((output.as_str(), outcome), ("[lobby] bob: b\n[lobby] bob: c\n", Outcome::Done));
}

#[test]
fn json_lines_carry_what_a_program_needs() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let options = FilterOptions { format: Format::Json, ..options() };
    let (output, _, _) = filter(&server, options, "h\u{e9}\u{1b}llo\n");
    let line: serde_json::Value = serde_json::from_str(output.trim_end()).unwrap();
    assert_eq!(line["room_id"], "lobby");
    assert_eq!(line["sender_id"], "alice");
    assert_eq!(line["content"], "h\u{e9}\u{1b}llo");
    assert_eq!((&line["own"], &line["history"]), (&true.into(), &false.into()));
    assert_eq!((&line["position"], &line["timestamp"]), (&1.into(), &1_700_000_000_000_u64.into()));
    assert!(line["message_id"].as_str().unwrap().ends_with("-1"));
}

#[test]
fn what_is_not_acknowledged_in_time_is_named() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    *cluster.chats_answered.lock() = Some(1);
    let options = FilterOptions { wait: Some(Duration::from_millis(100)), ..options() };
    let (output, notes, outcome) = filter(&server, options, "heard\nlost\n");
    assert_eq!((output.as_str(), outcome), ("[lobby] alice: heard\n", Outcome::Failed));
    assert!(notes.contains("not acknowledged: ") && notes.contains("\"lost\""), "{notes}");
    assert!(!notes.contains("\"heard\""), "{notes}");
}

#[test]
fn without_waiting_the_messages_are_sent_all_the_same() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    *cluster.chats_answered.lock() = Some(0);
    let options = FilterOptions { wait: None, ..options() };
    let (_, notes, outcome) = filter(&server, options, "unheard\n");
    assert_eq!(outcome, Outcome::Done, "{notes}");
    let heard = cluster.heard.lock().iter().any(|msg| msg.content.text() == "unheard");
    assert!(heard);
}

#[test]
fn a_refused_message_is_told_and_fails_and_the_others_go_on() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    cluster.refuse_once(MessageType::Chat, "INVALID_FIELD", false);
    let (output, notes, outcome) = filter(&server, options(), "bad\ngood\n");
    assert_eq!((output.as_str(), outcome), ("[lobby] alice: good\n", Outcome::Failed));
    assert!(notes.contains("INVALID_FIELD for a test (INVALID_FIELD)"), "{notes}");
}

#[test]
fn a_refused_room_ends_it() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    cluster.refuse_once(MessageType::JoinRoom, "INVALID_NAME", false);
    let (_, notes, outcome) = filter(&server, options(), "hello\n");
    assert_eq!(outcome, Outcome::Failed);
    assert!(notes.contains("INVALID_NAME for a test"), "{notes}");
}

#[test]
fn lines_that_cannot_be_sent_are_named_and_the_others_go_on() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let mut input = b"first\n".to_vec();
    input.extend([b'x'; 10_000]);
    input.extend(b"\n\xff\n");
    // Short as a line, too long on the wire: each byte takes six.
    input.extend([1; 1000]);
    input.extend(b"\nlast\n");
    let (output, notes, outcome) = filter_of(&server, options(), Cursor::new(input));
    assert_eq!(output, "[lobby] alice: first\n[lobby] alice: last\n");
    assert_eq!(outcome, Outcome::Failed);
    assert!(
        notes.contains("line 2 was not sent: it has 10000 bytes, the limit is 4096"),
        "{notes}"
    );
    assert!(notes.contains("line 3 was not sent: it is not UTF-8"), "{notes}");
    assert!(notes.contains("line 4 was not sent: the message would take"), "{notes}");
}

#[test]
fn it_stays_until_the_expected_number_was_printed() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    let threads = Threads::new("bob");
    let others = Arc::clone(&cluster);
    // Says more only after alice's message: she would be gone without `expect`.
    let talk = move || {
        while others.texts("lobby").is_empty() {
            std::thread::yield_now();
        }
        others.say("bob", "two", "lobby");
        others.say("bob", "three", "lobby");
    };
    threads.spawn("talk", talk).unwrap();
    let options = FilterOptions { expect: Some(3), ..options() };
    let (output, _, outcome) = filter(&server, options, "one\n");
    assert_eq!(output, "[lobby] alice: one\n[lobby] bob: two\n[lobby] bob: three\n");
    assert_eq!(outcome, Outcome::Done);
}

#[test]
fn fewer_than_expected_is_a_failure() {
    let server = FakeServer::start(&FakeCluster::new());
    let linger = Some(Duration::from_millis(50));
    let options = FilterOptions { expect: Some(3), linger, ..options() };
    let (_, notes, outcome) = filter(&server, options, "one\n");
    assert_eq!(outcome, Outcome::Failed);
    assert!(notes.contains("only 1 message came, 3 were expected"), "{notes}");
}

#[test]
fn lingering_is_no_failure() {
    let server = FakeServer::start(&FakeCluster::new());
    let options = FilterOptions { linger: Some(Duration::from_millis(50)), ..options() };
    let (_, notes, outcome) = filter(&server, options, "one\n");
    assert_eq!(outcome, Outcome::Done, "{notes}");
}

#[test]
fn a_session_that_ends_ends_the_filter_although_the_input_goes_on() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    cluster.refuse_once(MessageType::JoinRoom, "SESSION_MOVED", false);
    let (_keep, silence) = bounded(0);
    let input = BufReader::new(Silence(silence));
    let (_, notes, outcome) = filter_of(&server, options(), input);
    assert_eq!(outcome, Outcome::Failed);
    assert!(notes.contains("SESSION_MOVED for a test"), "{notes}");
}

#[test]
fn a_closed_standard_output_ends_it_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let server = FakeServer::start(&FakeCluster::new());
    let (threads, input) = (Threads::new("test"), Cursor::new(b"one\n".to_vec()));
    let mut notes = Vec::new();
    let outcome =
        drive(client(&server), options(), input, Closed, &mut notes, &threads, never()).unwrap();
    assert_eq!(outcome, Outcome::Done);
    assert!(!String::from_utf8(notes).unwrap().contains("roundtable:"));
}

#[test]
fn a_signal_ends_it_and_names_what_is_outstanding() {
    let cluster = FakeCluster::new();
    let server = FakeServer::start(&cluster);
    *cluster.chats_answered.lock() = Some(0);
    let threads = Threads::new("test");
    let (give, interrupted) = bounded(0);
    let watched = Arc::clone(&cluster);
    let interrupt = move || {
        while !watched.heard.lock().iter().any(|msg| msg.content.text() == "lost") {
            std::thread::yield_now();
        }
        drop(give);
    };
    threads.spawn("interrupt", interrupt).unwrap();
    let (_keep, silence) = bounded(0);
    let input = BufReader::new(Cursor::new(b"lost\n".to_vec()).chain(Silence(silence)));
    let mut notes = Vec::new();
    let client = client(&server);
    let outcome =
        drive(client, options(), input, io::sink(), &mut notes, &threads, interrupted).unwrap();
    assert_eq!(outcome, Outcome::Failed);
    assert!(String::from_utf8(notes).unwrap().contains("\"lost\""));
}
