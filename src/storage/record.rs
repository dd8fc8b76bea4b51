//! One line of the log: a message and its checksum.
//!
//! ```text
//!   {"crc":"89abcdef","message_id":"a-1","type":"CHAT","sender_id":"alice", … }\n
//!    └ prefix, 18 bytes┘└ the checksum covers this, up to but without the newline ┘
//! ```
//!
//! The line as a whole is a JSON object, so `jq` reads a log; the message is that object without `crc`.
//! The checksum is CRC-32 (IEEE) in 8 lower-case hex digits. It finds any single flipped bit, and any
//! burst of errors up to 32 bits; other damage slips through once in four thousand million times.

use crate::domain::{Message, StoredChat};

/// What stands before the checksum.
const BEFORE_CRC: &[u8] = br#"{"crc":""#;
/// Hex digits of the checksum.
const CRC_DIGITS: usize = 8;
/// What stands between the checksum and what it covers.
const AFTER_CRC: &[u8] = br#"","#;
/// Where the part begins that the checksum covers, in bytes.
const PREFIX_BYTES: usize = BEFORE_CRC.len() + CRC_DIGITS + AFTER_CRC.len();

/// Appends the line of `msg` to `out`, its newline included.
///
/// ```
/// use roundtable::domain::{Message, MessageType};
/// use roundtable::storage::record;
///
/// let message = Message::new(MessageType::Status, "n1");
/// let mut line = Vec::new();
/// record::encode(&message, &mut line);
/// assert_eq!(line, b"{\"crc\":\"afe11849\",\"type\":\"STATUS\",\"sender_id\":\"n1\"}\n");
/// assert_eq!(record::decode(&line[..line.len() - 1]), Ok(message));
/// ```
pub fn encode(msg: &Message, out: &mut Vec<u8>) {
    let start = begin(out);
    msg.serialize_to(out);
    finish(start, out);
}

/// [`encode`] of a message that is serialised already.
pub fn encode_json(json: &[u8], out: &mut Vec<u8>) {
    out.reserve(PREFIX_BYTES + json.len() + 1);
    let start = begin(out);
    out.extend_from_slice(json);
    finish(start, out);
}

/// Appends what stands before the object of a message, whose brace becomes a comma. Returns where the line starts.
fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(BEFORE_CRC);
    out.extend_from_slice(&[b'0'; CRC_DIGITS]);
    out.push(b'"');
    start
}

/// Makes a line of what was appended to `out` since `start`.
fn finish(start: usize, out: &mut Vec<u8>) {
    let brace = start + BEFORE_CRC.len() + CRC_DIGITS + 1;
    out[brace] = b',';
    // An object that came in a length-prefixed frame may hold line breaks between its tokens (never in
    // a text, where JSON escapes them). A line must not.
    for byte in &mut out[brace..] {
        // Written whether it changes or not: so the processor takes many at once.
        *byte = if *byte == b'\n' { b' ' } else { *byte };
    }
    let digits = hex(crc32fast::hash(&out[start + PREFIX_BYTES..]));
    out[start + BEFORE_CRC.len()..][..CRC_DIGITS].copy_from_slice(&digits);
    out.push(b'\n');
}

/// Reads a line, given without its newline. The error says what is wrong with it.
pub fn decode(line: &[u8]) -> Result<Message, String> {
    Line::check(line)?.message()
}

/// A line whose checksum is right, without its newline.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a>(&'a [u8]);

impl<'a> Line<'a> {
    /// Takes `line` when its checksum is right. The error says what is wrong with it.
    pub fn check(line: &'a [u8]) -> Result<Self, String> {
        check(line).map(|()| Self(line))
    }

    /// The message; `Err` when it is none.
    pub fn message(&self) -> Result<Message, String> {
        // `crc` is a field that a message does not know, and so ignores.
        Message::decode(self.0).map_err(|error| format!("its checksum is right, but it is {error}"))
    }

    /// What a server of the design `ring` wants to know of the message at its start.
    pub fn stored_chat(&self) -> Result<StoredChat<'a>, String> {
        StoredChat::decode(self.0)
            .map_err(|error| format!("its checksum is right, but it is {error}"))
    }
}

fn check(line: &[u8]) -> Result<(), String> {
    let written = line.strip_prefix(BEFORE_CRC).and_then(|rest| rest.split_at_checked(CRC_DIGITS));
    let Some((written, covered)) =
        written.and_then(|(crc, rest)| Some((crc, rest.strip_prefix(AFTER_CRC)?)))
    else {
        return Err("it does not start with a checksum".into());
    };
    let computed = hex(crc32fast::hash(covered));
    if written != computed {
        return Err(format!(
            "its checksum is {}, but its text gives {}",
            written.escape_ascii(),
            computed.escape_ascii()
        ));
    }
    Ok(())
}

/// `crc` in lower-case hex digits.
fn hex(crc: u32) -> [u8; CRC_DIGITS] {
    let digit = |at: usize| b"0123456789abcdef"[(crc >> (28 - 4 * at) & 0xf) as usize];
    std::array::from_fn(digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::content::{ErrorContent, Position};
    use crate::domain::{Content, MessageType, Term, VectorClock};

    fn line_of(message: &Message) -> Vec<u8> {
        let mut line = Vec::new();
        encode(message, &mut line);
        line
    }

    fn any_content() -> impl Strategy<Value = Content> {
        prop_oneof![
            Just(Content::Empty),
            any::<String>().prop_map(Content::Text),
            (any::<String>(), any::<String>(), any::<bool>()).prop_map(
                |(code, reason, retryable)| {
                    Content::object(&ErrorContent { code, reason, retryable })
                }
            ),
        ]
    }

    fn any_clock() -> impl Strategy<Value = VectorClock> {
        let entries = proptest::collection::btree_map("n[0-9].[1-9]-[0-9a-f]{4}", 1u64.., 0..4);
        entries.prop_map(|entries| {
            let mut clock = VectorClock::new();
            for (name, count) in entries {
                clock.raise(&name.into(), count);
            }
            clock
        })
    }

    prop_compose! {
        fn any_message()(
            message_type in proptest::sample::select(&MessageType::ALL[..]),
            names in any::<[String; 3]>(),
            content in any_content(),
            clock in proptest::option::of(any_clock()),
            session in any::<Option<String>>(),
            numbers in any::<[Option<u64>; 3]>(),
        ) -> Message {
            let [message_id, sender_id, room_id] = names;
            let [seq, term, timestamp] = numbers;
            let mut message = Message::new(message_type, sender_id).with_id(message_id).in_room(room_id);
            message.content = content;
            message.origin = clock.is_some().then(|| "n1.1-00ff".into());
            message.position = clock.clone().map(Position::Clock);
            message.vector_clock = clock;
            message.session = session;
            message.seq = seq;
            message.term = term.map(|counter| Term { counter, leader: "n3.1-0001".into() });
            message.timestamp = timestamp;
            message
        }
    }

    proptest! {
        #[test]
        fn what_was_written_reads_back_the_same(message in any_message()) {
            let line = line_of(&message);
            let (end, line) = line.split_last().unwrap();
            prop_assert_eq!(*end, b'\n');
            prop_assert!(!line.contains(&b'\n'), "one message is one line");
            prop_assert_eq!(decode(line), Ok(message));
        }

        #[test]
        fn any_flipped_bit_is_found(message in any_message(), at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut line = line_of(&message);
            let at = at.index(line.len());
            line[at] ^= 1u8 << bit;
            if let Some((b'\n', text)) = line.split_last() {
                for text in text.split(|byte| *byte == b'\n') {
                    prop_assert!(decode(text).is_err());
                }
            } else {
                prop_assert_eq!(at, line.len() - 1, "only a flip in the newline leaves the line open");
            }
        }

        #[test]
        fn decoding_never_panics(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(decode(&line).is_err());
        }
    }

    #[test]
    fn a_person_can_read_a_line() {
        let mut chat = Message::new(MessageType::Chat, "alice").with_id("a-1").in_room("lobby");
        chat.content = "grüß\ngott".into();
        let value: serde_json::Value = serde_json::from_slice(&line_of(&chat)).unwrap();
        assert_eq!(value["type"], "CHAT");
        assert_eq!(value["sender_id"], "alice");
        assert_eq!(value["room_id"], "lobby");
        assert_eq!(value["content"], "grüß\ngott");
        assert_eq!(value["crc"].as_str().map(str::len), Some(8));
    }

    #[test]
    fn a_content_with_line_breaks_between_its_tokens_stays_on_one_line() {
        let text = "{\"type\":\"SYNC\",\"content\":{\n  \"a\": \"b\\nc\"\n}}";
        let message = Message::deserialize(text).unwrap();
        let line = line_of(&message);
        let read = decode(&line[..line.len() - 1]).unwrap();
        let content: serde_json::Value = read.content.parse().unwrap();
        assert_eq!(content, serde_json::json!({"a": "b\nc"}));
        assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
    }

    #[test]
    fn the_reason_tells_kinds_of_damage_apart() {
        let line = line_of(&Message::new(MessageType::Status, "n1"));
        let line = &line[..line.len() - 1];
        assert_eq!(decode(b"").unwrap_err(), "it does not start with a checksum");
        let mut upper = line.to_ascii_uppercase();
        upper[..BEFORE_CRC.len()].copy_from_slice(BEFORE_CRC);
        let reason = decode(&upper).unwrap_err();
        assert!(reason.starts_with("its checksum is AFE11849, but its text gives"), "{reason}");
        let mut foreign = line[..PREFIX_BYTES].to_vec();
        foreign.extend_from_slice(b"\"type\":\"SHOUT\"}");
        let digits = hex(crc32fast::hash(&foreign[PREFIX_BYTES..]));
        foreign[BEFORE_CRC.len()..][..CRC_DIGITS].copy_from_slice(&digits);
        let reason = decode(&foreign).unwrap_err();
        assert_eq!(reason, "its checksum is right, but it is unknown type \"SHOUT\"");
    }
}
