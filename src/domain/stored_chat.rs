//! What a server of the design `ring` must know of each CHAT in its log when it starts: all but its text.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::history::{Outline, Outlines};
use super::message::Message;

mod quick;

/// A CHAT of the log, read without making a [`Message`] of it: a start reads millions, and asks for no text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StoredChat<'a> {
    /// The room.
    #[serde(borrow)]
    pub room_id: Cow<'a, str>,
    /// When it was stamped, in milliseconds since 1970.
    pub timestamp: Option<u64>,
    #[serde(borrow)]
    message_id: Cow<'a, str>,
    #[serde(borrow)]
    session: Option<Text<'a>>,
    #[serde(borrow)]
    origin: Option<Text<'a>>,
    #[serde(borrow)]
    vector_clock: Stamp<'a>,
}

/// A text, copied only when the JSON has escapes in it. An `Option<Cow>` would always copy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The entries of a vector clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamp<'a> {
    /// Most stamps have one.
    first: Option<(Cow<'a, str>, u64)>,
    others: Vec<(Cow<'a, str>, u64)>,
}

impl Stamp<'_> {
    fn get(&self, origin: &str) -> Option<u64> {
        let mut entries = self.first.iter().chain(&self.others);
        entries.find(|(name, _)| name == origin).map(|(_, count)| *count)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Stamp<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Stamp<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a vector clock")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Stamp::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut stamp = Stamp::default();
                while let Some((Text(name), count)) = map.next_entry()? {
                    match stamp.first {
                        None => stamp.first = Some((name, count)),
                        Some(_) => stamp.others.push((name, count)),
                    }
                }
                Ok(stamp)
            }
        }
        deserializer.deserialize_any(Entries)
    }
}

impl<'a> StoredChat<'a> {
    /// Reads a record of the log. The error says what is wrong with it.
    pub fn decode(record: &'a [u8]) -> Result<Self, String> {
        match quick::read(record) {
            Some(chat) => Ok(chat),
            None => Self::decode_unusual(record),
        }
    }

    /// [`decode`](Self::decode) of any JSON.
    fn decode_unusual(record: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(record).map_err(|error| error.to_string())
    }

    /// What is wanted of `msg`.
    pub fn of(msg: &'a Message) -> Self {
        let entries = msg.vector_clock.iter().flat_map(|clock| &clock.timestamps);
        let text = |text: &'a str| Text(Cow::Borrowed(text));
        Self {
            room_id: Cow::Borrowed(&msg.room_id),
            timestamp: msg.timestamp,
            message_id: Cow::Borrowed(&msg.message_id),
            session: msg.session.as_deref().map(text),
            origin: msg.origin.as_ref().map(|origin| text(origin.as_str())),
            vector_clock: Stamp {
                first: None,
                others: entries.map(|(name, count)| (name.as_str().into(), *count)).collect(),
            },
        }
    }

    /// What the history keeps of it; `None` when it is not stamped.
    pub fn outline(&self) -> Option<Outline<'_>> {
        let origin: &str = &self.origin.as_ref()?.0;
        let count = self.vector_clock.get(origin).filter(|count| *count > 0)?;
        let key = self.session.as_ref().map(|session| (&*session.0, &*self.message_id));
        Some(Outline { origin, count, key })
    }
}

/// What the rooms' histories keep of the CHATs in a part of the log.
#[derive(Clone, Debug, Default)]
pub struct StoredChats {
    records: u32,
    rooms: BTreeMap<String, Outlines>,
}

impl StoredChats {
    /// Appends the next record of the part.
    pub fn push(&mut self, chat: &StoredChat) {
        self.records += 1;
        let room = match self.rooms.get_mut(&*chat.room_id) {
            Some(room) => room,
            None => self.rooms.entry(chat.room_id.to_string()).or_default(),
        };
        if let Some(outline) = chat.outline() {
            room.push(outline, chat.timestamp, self.records);
        }
    }

    /// How many records there are, those that are not stamped included.
    pub fn records(&self) -> u64 {
        self.records.into()
    }

    /// The rooms that they name, and what was stamped in them.
    pub fn rooms(&self) -> impl Iterator<Item = (&str, &Outlines)> {
        self.rooms.iter().map(|(room_id, outlines)| (room_id.as_str(), outlines))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{MessageType, VectorClock};

    fn chat(id: &str) -> Message {
        let mut chat = Message::new(MessageType::Chat, "alice").with_id(id).in_room("lob\"by");
        chat.content = "he\"llo".into();
        (chat.session, chat.origin) = (Some("s\n1".into()), Some("n1.1-00ff".into()));
        let mut clock = VectorClock::new();
        clock.raise(&"n1.1-00ff".into(), 7);
        clock.raise(&"n2.1-00ff".into(), 3);
        (chat.vector_clock, chat.timestamp) = (Some(clock), Some(9));
        chat
    }

    #[test]
    fn it_says_what_the_message_says() {
        let unstamped = Message::new(MessageType::Status, "n1");
        for msg in [chat("m1"), chat("m\\u0041\"2"), unstamped] {
            let line = msg.serialize();
            let stored = StoredChat::decode(line.as_bytes()).unwrap();
            assert_eq!((&*stored.room_id, stored.timestamp), (&*msg.room_id, msg.timestamp));
            assert_eq!(stored.outline(), Outline::of(&msg));
            assert_eq!(StoredChat::of(&msg).outline(), Outline::of(&msg));
        }
    }

    /// What `record` says, quickly read or not: the outline, the room and the time, or the fault.
    fn said(chat: Result<StoredChat, String>) -> Result<String, String> {
        chat.map(|chat| format!("{:?} {} {:?}", chat.outline(), chat.room_id, chat.timestamp))
    }

    #[test]
    fn a_record_as_it_is_written_is_read_quickly() {
        let mut plain = chat("m1");
        plain.room_id = "lobby".into();
        plain.session = Some("s".into());
        let line = plain.serialize().replacen('{', "{\"crc\":\"89abcdef\",", 1);
        let quick = quick::read(line.as_bytes());
        assert!(quick.is_some(), "{line}");
        assert_eq!(quick.and_then(|chat| chat.outline().map(|outline| outline.count)), Some(7));
        for (from, to) in [
            ("he\\\"llo", "he\\u006clo"),
            ("lobby", "lob\\u0062y"),
            ("\"room_id\":", "\"room_id\": "),
            ("\"timestamp\":9", "\"timestamp\":09"),
            ("\"timestamp\":9", "\"timestamp\":9.5"),
            ("\"timestamp\":9", "\"timestamp\":99999999999999999999"),
            ("\"timestamp\":9", "\"timestamp\":null"),
            ("\"timestamp\":9", "\"timestamp\":9,\"timestamp\":9"),
            ("\"timestamp\":9}", "\"timestamp\":9} "),
            ("\"timestamp\":9}", "\"timestamp\":9,}"),
            ("\"origin\"", "\"origins\""),
            ("{\"n1.1-00ff\":7", "{\"n1.1-00ff\":-7"),
        ] {
            let unusual = line.replacen(from, to, 1);
            assert_ne!(line, unusual);
            assert_eq!(quick::read(unusual.as_bytes()), None, "{unusual}");
        }
    }

    /// Fields as they are written.
    const USUAL: &[&str] = &[
        "\"message_id\":\"a-1\"",
        "\"type\":\"CHAT\"",
        "\"sender_id\":\"al\\\\ice\"",
        "\"room_id\":\"grün\"",
        "\"content\":\"a \\\"b\\\" \\n ç\"",
        "\"origin\":\"n1.1-00ff\"",
        "\"vector_clock\":{\"n2.1-00ff\":3,\"n1.1-00ff\":7,\"n1.1-00ff\":8}",
        "\"session\":\"s\"",
        "\"timestamp\":1750000000000",
    ];

    /// What the quick way has to leave alone, or to be careful with.
    const UNUSUAL: &[&str] = &[
        "",
        "\"ro\\u006fm_id\":\"x\"",
        "\"session\":null",
        "\"vector_clock\":{}",
        "\"vector_clock\":{\"n2.1-00ff\":3}",
        "\"vector_clock\":{\"n1.1-00ff\":-7}",
        "\"timestamp\":18446744073709551615",
        "\"timestamp\":00",
        "\"timestamp\":1e3",
        "\"content\":\"\\u00e4\"",
        "\"content\":\"\\u00\"",
        "\"content\":\"\\q\"",
        "\"content\":\"\t\"",
        "\"content\":{\"a\":[1]}",
        "\"seq\":1",
        "\"room_id\":\"lobby\"",
    ];

    proptest! {
        #[test]
        fn the_quick_way_finds_what_the_full_parser_finds(
            fields in proptest::sample::subsequence(USUAL, 0..=USUAL.len()),
            swapped in proptest::option::weighted(0.3, any::<[prop::sample::Index; 2]>()),
            unusual in proptest::option::weighted(0.3, (any::<prop::sample::Index>(), proptest::sample::select(UNUSUAL))),
            cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
            other in proptest::option::weighted(0.3, any::<(prop::sample::Index, u8)>()),
        ) {
            let mut fields = [&["\"crc\":\"89abcdef\""], &fields[..]].concat();
            if let Some([one, other]) = swapped {
                let count = fields.len();
                fields.swap(one.index(count), other.index(count));
            }
            if let Some((at, field)) = unusual {
                let count = fields.len();
                fields.insert(at.index(count + 1), field);
            }
            let mut record = format!("{{{}}}", fields.join(",")).into_bytes();
            if let Some(cut) = cut {
                record.truncate(cut.index(record.len()) + 1);
            }
            if let Some((at, byte)) = other {
                let at = at.index(record.len());
                record[at] = byte;
            }
            if let Some(quick) = quick::read(&record) {
                prop_assert_eq!(said(Ok(quick)), said(StoredChat::decode_unusual(&record)));
            }
        }
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        for line in ["", "[1]", "{\"room_id\":7}", "{\"vector_clock\":[1]}"] {
            assert!(StoredChat::decode(line.as_bytes()).is_err(), "{line}");
        }
    }
}
