//! What simulated clients say and hear, as bytes.
//!
//! ```text
//!   said    {"message_id":"0000002a","type":"CHAT","room_id":"…","content":"~0003 0000002a xxxx…"}
//!   heard   {"message_id":"0000002a","type":"CHAT",…,"content":"~0003 0000002a xxxx…",…}
//!                                                              └ sender, number (without the spaces)
//! ```
//!
//! The load side shares its machine with the servers, so a frame is looked at and not parsed: one with a `~` is a
//! delivery, since neither names nor positions have one, and where the `~` stood last time it mostly stands again.
//! All digits are hexadecimal and of a fixed number, so a message is a template in which two places change.

use crate::network::framing::Framing;

/// Bytes of the length before a frame.
pub(super) const PREFIX_BYTES: usize = 4;
/// Digits of a sender, and of a message's number.
const SENDER_DIGITS: usize = 4;
const NUMBER_DIGITS: usize = 8;
/// A text holds at least the mark, the sender and the number.
pub(super) const TEXT_BYTES_MIN: usize = 1 + SENDER_DIGITS + NUMBER_DIGITS;
/// As many senders have numbers of their own.
pub(super) const SENDERS_MAX: usize = 1 << (4 * SENDER_DIGITS);
/// Begins each text, and stands nowhere else.
const MARK: u8 = b'~';

/// The `message_id` of CLIENT_JOIN and of JOIN_ROOM.
const HELLO: &[u8] = b"hello";
const ENTER: &[u8] = b"enter";

/// Puts CLIENT_JOIN of `user` and JOIN_ROOM into `room` with so much `history` into `out`.
pub(super) fn put_joins(user: &str, room: &str, history: u32, out: &mut Vec<u8>) {
    put(
        &format!(
            r#"{{"message_id":"hello","type":"CLIENT_JOIN","sender_id":"{user}","content":{{"session":"{user}"}}}}"#
        ),
        out,
    );
    put_enter(room, history, out);
}

/// Puts JOIN_ROOM into `room` with so much `history` into `out`.
pub(super) fn put_enter(room: &str, history: u32, out: &mut Vec<u8>) {
    put(
        &format!(
            r#"{{"message_id":"enter","type":"JOIN_ROOM","room_id":"{room}","content":{{"history":{history}}}}}"#
        ),
        out,
    );
}

/// Puts the answer to a server that asks whether anyone is there into `out`.
pub(super) fn put_heartbeat(out: &mut Vec<u8>) {
    put(r#"{"type":"HEARTBEAT"}"#, out);
}

fn put(body: &str, out: &mut Vec<u8>) {
    Framing::LengthPrefixed.put(body.as_bytes(), out);
}

/// The messages of one sender: all bytes but the number.
#[derive(Clone, Debug)]
pub(super) struct Template {
    frame: Vec<u8>,
    id_at: usize,
    number_at: usize,
}

impl Template {
    /// What `sender` says in `room`, in texts of `text_bytes` (at least [`TEXT_BYTES_MIN`]).
    pub(super) fn new(room: &str, sender: usize, text_bytes: usize) -> Self {
        let padding = "x".repeat(text_bytes.saturating_sub(TEXT_BYTES_MIN));
        let number = "0".repeat(NUMBER_DIGITS);
        let before = format!(
            r#"{{"message_id":"{number}","type":"CHAT","room_id":"{room}","content":"~{sender:04x}"#
        );
        let mut frame = Vec::new();
        put(&format!(r#"{before}{number}{padding}"}}"#), &mut frame);
        let id_at = PREFIX_BYTES + br#"{"message_id":""#.len();
        Self { frame, id_at, number_at: PREFIX_BYTES + before.len() }
    }

    /// Puts message `number` into `out`, as message `id` of its connection: the same unless that has several rooms.
    pub(super) fn put(&self, id: u32, number: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        for (at, value) in [(self.id_at, id), (self.number_at, number)] {
            out[start + at..][..NUMBER_DIGITS].copy_from_slice(&hex(value));
        }
    }

    /// How long each frame is.
    pub(super) fn frame_bytes(&self) -> usize {
        self.frame.len()
    }
}

/// What a frame says to a simulated client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// A message of `sender` is shown.
    Delivery {
        /// Who said it.
        sender: usize,
        /// Which of that sender's messages it is.
        number: u32,
    },
    /// The client's own message of this number is acknowledged.
    Ack(u32),
    /// The client is in its room; the whole body.
    Entered(&'a [u8]),
    /// The server asks whether the client is there.
    Asked,
    /// The server says no; the whole body.
    Refused(&'a [u8]),
    /// The connection is closed.
    Gone,
    /// Something that does not matter here.
    Other,
}

/// Looks at frames, and remembers where it found something: frames of one kind resemble each other.
#[derive(Debug, Default)]
pub(super) struct Ear {
    mark: usize,
    id: usize,
    kind: usize,
}

impl Ear {
    /// What `body` says.
    #[inline]
    pub(super) fn hear<'a>(&mut self, body: &'a [u8]) -> Heard<'a> {
        if body.get(self.mark) != Some(&MARK) {
            match body.iter().position(|byte| *byte == MARK) {
                Some(at) => self.mark = at,
                None => return self.hear_other(body),
            }
        }
        let text = &body[self.mark + 1..];
        let parts = text.split_at_checked(SENDER_DIGITS);
        let parts = parts.and_then(|(sender, rest)| Some((sender, rest.get(..NUMBER_DIGITS)?)));
        let read = parts.and_then(|(sender, number)| Some((unhex(sender)?, unhex(number)?)));
        read.map_or(Heard::Other, |(sender, number)| Heard::Delivery {
            sender: sender as usize,
            number,
        })
    }

    fn hear_other<'a>(&mut self, body: &'a [u8]) -> Heard<'a> {
        let id = value(body, br#""message_id":""#, &mut self.id);
        match value(body, br#""type":""#, &mut self.kind) {
            Some(b"ACK") => match id {
                Some(ENTER) => Heard::Entered(body),
                Some(id) if id != HELLO => unhex(id).map_or(Heard::Other, Heard::Ack),
                _ => Heard::Other,
            },
            Some(b"HEARTBEAT") => Heard::Asked,
            Some(b"ERROR") => Heard::Refused(body),
            _ => Heard::Other,
        }
    }
}

/// The text after `key` in `body`, up to the next quotation mark: first where it was found last time.
fn value<'a>(body: &'a [u8], key: &[u8], at: &mut usize) -> Option<&'a [u8]> {
    if !body.get(*at..).is_some_and(|rest| rest.starts_with(key)) {
        *at = body.windows(key.len()).position(|window| window == key)?;
    }
    let rest = &body[*at + key.len()..];
    Some(&rest[..rest.iter().position(|byte| *byte == b'"')?])
}

/// The body of the first whole frame in `bytes`; what follows it begins [`PREFIX_BYTES`] and the body's length later.
#[inline]
pub(super) fn first_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX_BYTES>()?;
    rest.get(..u32::from_be_bytes(*prefix) as usize)
}

fn hex(number: u32) -> [u8; NUMBER_DIGITS] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|place| DIGITS[(number >> (28 - 4 * place)) as usize & 15])
}

fn unhex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u32::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::{ClientJoin, Position};
    use crate::domain::{Content, Message, MessageType};

    fn bodies(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut bodies = Vec::new();
        while let Some(body) = first_frame(bytes) {
            bodies.push(body);
            bytes = &bytes[PREFIX_BYTES + body.len()..];
        }
        assert_eq!(bytes, b"", "something is left");
        bodies
    }

    #[test]
    fn what_is_said_is_what_servers_read() {
        let mut said = Vec::new();
        put_joins("b1", "bench", 0, &mut said);
        Template::new("bench", 0x2b, 40).put(0x1f, 0x1f, &mut said);
        put_heartbeat(&mut said);
        let msgs: Vec<Message> =
            bodies(&said).into_iter().map(|body| Message::decode(body).unwrap()).collect();
        assert_eq!(msgs[0].message_type, MessageType::ClientJoin);
        assert_eq!(msgs[0].content.parse::<ClientJoin>().unwrap().session, "b1");
        assert_eq!(
            (msgs[1].message_type, msgs[1].room_id.as_str()),
            (MessageType::JoinRoom, "bench")
        );
        assert_eq!(
            (msgs[2].message_type, msgs[2].message_id.as_str()),
            (MessageType::Chat, "0000001f")
        );
        assert_eq!(msgs[2].content.text(), ("~002b0000001fxxxxxxxxxxxxxxxxxxxxxxxxxxx"));
        assert_eq!(msgs[3].message_type, MessageType::Heartbeat);
    }

    #[test]
    fn a_delivery_is_heard_whatever_stands_around_it() {
        let mut ear = Ear::default();
        for before in ["", "1", "", "12345"] {
            let mut msg = Message::new(MessageType::Chat, "alice").in_room("bench").with_id(before);
            msg.content = Content::Text("~00ff0000000axxx".into());
            msg.timestamp = Some(1);
            msg.position = Some(Position::Sequence(17));
            let body = msg.serialize();
            assert_eq!(ear.hear(body.as_bytes()), Heard::Delivery { sender: 255, number: 10 });
        }
        for text in ["~", "~00ff", "~00fg0000000a", "~00ff0000"] {
            let body = format!(r#"{{"type":"CHAT","content":"{text}"}}"#);
            assert_eq!(Ear::default().hear(body.as_bytes()), Heard::Other, "{text}");
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let mut ear = Ear::default();
        let ack =
            |id: &str| Message::new(MessageType::Ack, "n1").with_id(id).serialize().into_bytes();
        let error =
            Message::new(MessageType::Error, "n1").with_id("enter").serialize().into_bytes();
        let others =
            Message::new(MessageType::JoinRoom, "bob").in_room("bench").serialize().into_bytes();
        let asked = Message::new(MessageType::Heartbeat, "n1").serialize().into_bytes();
        for _ in 0..2 {
            assert_eq!(ear.hear(&ack("0000002a")), Heard::Ack(42));
            assert_eq!(ear.hear(&ack("hello")), Heard::Other);
            assert_eq!(ear.hear(&ack("enter")), Heard::Entered(&ack("enter")));
            assert_eq!(ear.hear(&error), Heard::Refused(&error));
            assert_eq!(ear.hear(&others), Heard::Other);
            assert_eq!(ear.hear(&asked), Heard::Asked);
            assert_eq!(ear.hear(b"{}"), Heard::Other);
        }
    }

    #[test]
    fn a_frame_is_whole_or_none() {
        let mut bytes = Vec::new();
        put_heartbeat(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(first_frame(&bytes[..cut]), None);
        }
        assert_eq!(first_frame(&bytes), Some(&br#"{"type":"HEARTBEAT"}"#[..]));
    }

    #[test]
    fn numbers_are_read_as_they_were_written() {
        for number in [0, 1, 15, 16, 0xdead_beef, u32::MAX] {
            assert_eq!(unhex(&hex(number)), Some(number));
        }
        assert_eq!(unhex(b"0000000A"), None);
    }
}
