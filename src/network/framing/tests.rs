//! Frames cut anywhere, of either framing, whole and broken.

use proptest::prelude::*;

use super::*;
use crate::domain::MessageType;

/// What a decoder makes of `bytes` in one piece: ids of messages, codes of errors.
fn decode(bytes: &[u8], bytes_max: usize) -> Vec<String> {
    decode_in_pieces(&[bytes], bytes_max)
}

fn decode_in_pieces(pieces: &[&[u8]], bytes_max: usize) -> Vec<String> {
    let mut decoder = Decoder::new(bytes_max);
    let mut items = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        while let Some(item) = decoder.next_message() {
            items.push(item.map_or_else(|error| error.code().into(), |msg| msg.message_id));
        }
    }
    items
}

fn chat(message_id: &str) -> String {
    format!(r#"{{"message_id":"{message_id}","type":"CHAT","content":"hü"}}"#)
}

fn prefixed(bodies: &[String]) -> Vec<u8> {
    let mut stream = Vec::new();
    for body in bodies {
        Framing::LengthPrefixed.put(body.as_bytes(), &mut stream);
    }
    stream
}

/// Decodes `stream` cut into two pieces at each place, and byte by byte.
fn check_every_cut(stream: &[u8], bytes_max: usize, expected: &[&str]) {
    assert_eq!(decode(stream, bytes_max), expected);
    for cut in 0..=stream.len() {
        let (left, right) = stream.split_at(cut);
        assert_eq!(decode_in_pieces(&[left, right], bytes_max), expected, "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(decode_in_pieces(&bytes, bytes_max), expected, "byte by byte");
}

#[test]
fn lines_come_out_the_same_however_the_stream_is_cut() {
    let shout = r#"{"message_id":"x","type":"SHOUT"}"#;
    let stream = format!("{}\n\r\n \n{}\r\n{shout}\n{}\n", chat("a"), chat("b"), chat("c"));
    check_every_cut(stream.as_bytes(), 100, &["a", "b", "UNKNOWN_TYPE", "c"]);
}

#[test]
fn prefixed_frames_come_out_the_same_however_the_stream_is_cut() {
    let stream = prefixed(&[chat("a"), r#"{"message_id":"x"}"#.into(), chat("b")]);
    check_every_cut(&stream, 100, &["a", "MISSING_FIELD", "b"]);
}

#[test]
fn nothing_is_understood_after_an_error_that_closes() {
    let lines = format!("{}\nnonsense\n{}\n", chat("a"), chat("b"));
    check_every_cut(lines.as_bytes(), 100, &["a", "INVALID_JSON"]);
    let frames = prefixed(&[chat("a"), String::new(), chat("b")]);
    check_every_cut(&frames, 100, &["a", "INVALID_JSON"]);
}

#[test]
fn the_first_byte_tells_the_framing() {
    let table: [(&[u8], &[&str]); 6] = [
        (b"GET / HTTP/1.1\r\n", &["INVALID_FRAMING"]),
        (b" {\"type\":\"STATUS\"}\n", &["INVALID_FRAMING"]),
        (b"\xff", &["INVALID_FRAMING"]),
        (b"{", &[]),
        // A line end as the very first byte is a length, here one of 168 million bytes.
        (b"\n\n\n\n", &["FRAME_TOO_LONG"]),
        (b"\0\0\0\x02{}", &["MISSING_FIELD"]),
    ];
    for (stream, expected) in table {
        check_every_cut(stream, 100, expected);
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_as_soon_as_its_length_is_known() {
    let body = chat("a");
    let mut line = body.clone().into_bytes();
    let mut frame = prefixed(std::slice::from_ref(&body));
    assert_eq!(decode(&frame, body.len()), ["a"], "a frame at the limit is taken");
    assert_eq!(decode(&frame[..4], body.len() - 1), ["FRAME_TOO_LONG"]);
    frame.truncate(3);
    assert!(decode(&frame, body.len() - 1).is_empty());

    assert_eq!(decode(&line, body.len() - 1), ["FRAME_TOO_LONG"], "without waiting for its end");
    line.extend_from_slice(b"\r\n");
    check_every_cut(&line, body.len(), &["a"]);
    check_every_cut(&line, body.len() - 1, &["FRAME_TOO_LONG"]);
}

#[test]
fn line_breaks_inside_a_body_do_not_end_its_line() {
    let body = "{\"type\":\"STATUS\",\n\"content\":{\n\"a\":\"b\\n\"}}";
    let mut stream = Vec::new();
    Framing::Lines.put(body.as_bytes(), &mut stream);
    assert_eq!(stream.len(), Framing::Lines.framed_bytes(body.len()));
    let mut decoder = Decoder::new(100);
    decoder.push(&stream);
    let msg = decoder.next_message().unwrap().unwrap();
    assert_eq!(msg.message_type, MessageType::Status);
    assert_eq!(msg.content.parse::<serde_json::Value>().unwrap()["a"], "b\n");
}

#[test]
fn the_buffer_grows_while_reads_fill_it_and_shrinks_when_they_do_not() {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let line = format!("{}\n", chat("a"));
    assert_eq!(decoder.space().len(), 1024);
    for expected in [4096, 16_384, 65_536, 65_536] {
        let room = decoder.space().len();
        // Whole lines as far as they fit, then blanks.
        let mut bytes = line.repeat(room / line.len()).into_bytes();
        bytes.resize(room, b'\n');
        decoder.space().copy_from_slice(&bytes);
        decoder.filled(room);
        while decoder.next_message().is_some() {}
        assert_eq!(decoder.space().len(), expected);
    }
    for _ in 0..SMALL_READS_MAX {
        decoder.push(line.as_bytes());
        assert!(decoder.next_message().unwrap().is_ok());
    }
    assert_eq!(decoder.space().len(), 1024);
    assert!(decoder.buffer.capacity() < 4096, "the memory was given back");
    decoder.push(line.as_bytes());
    assert!(decoder.next_message().unwrap().is_ok());
    assert!(decoder.is_at_rest());
    assert_eq!(decoder.buffer.capacity(), 0, "all of it");
}

#[test]
fn announcing_a_long_frame_costs_nothing_before_its_bytes_come() {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let text = "x".repeat(FRAME_BYTES_MAX - 100);
    let stream = prefixed(&[format!(r#"{{"type":"CHAT","content":"{text}"}}"#)]);
    decoder.push(&stream[..4]);
    assert!(decoder.next_message().is_none());
    assert!(decoder.space().len() <= 1024);
    decoder.push(&stream[4..]);
    assert_eq!(decoder.next_message().unwrap().unwrap().content.text(), text);
    assert!(decoder.space().len() <= WINDOW_BYTES_MAX);
    assert!(decoder.buffer.capacity() <= 2 * WINDOW_BYTES_MAX, "the memory was given back");
}

#[test]
fn raw_bytes_can_be_taken_past_the_framing() {
    let mut decoder = Decoder::new(100);
    decoder.push(b"abc{\"type\":\"STATUS\"}\n");
    assert_eq!(decoder.take_raw(100), None);
    assert_eq!(decoder.take_raw(3).unwrap(), b"abc");
    assert!(decoder.next_message().unwrap().is_ok());
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same_and_never_panic(
        first in prop_oneof![Just(b'{'), Just(0u8), any::<u8>()],
        rest in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(0u8), Just(b'{'), Just(b'}')], 0..300),
        piece in 1usize..50,
        bytes_max in 1usize..200,
    ) {
        let mut stream = vec![first];
        stream.extend(rest);
        let pieces: Vec<&[u8]> = stream.chunks(piece).collect();
        prop_assert_eq!(decode_in_pieces(&pieces, bytes_max), decode(&stream, bytes_max));
    }

    #[test]
    fn what_was_framed_comes_out_again(
        texts in prop::collection::vec("\\PC{0,200}", 1..10),
        lines in any::<bool>(),
        piece in 1usize..3000,
    ) {
        let framing = if lines { Framing::Lines } else { Framing::LengthPrefixed };
        let mut stream = Vec::new();
        for text in &texts {
            let mut msg = Message::new(MessageType::Chat, "alice");
            msg.content = text.as_str().into();
            framing.put(&msg.to_frame(), &mut stream);
        }
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let mut received = Vec::new();
        for piece in stream.chunks(piece) {
            decoder.push(piece);
            while let Some(item) = decoder.next_message() {
                received.push(item.unwrap().content.text().to_string());
            }
        }
        prop_assert_eq!(decoder.framing(), Some(framing));
        prop_assert_eq!(received, texts);
    }
}
