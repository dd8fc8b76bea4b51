//! What a server of the design `ring` must know of each CHAT in its log when it starts: all but its text.

use std::borrow::Cow;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::history::Outline;
use super::message::Message;

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

#[cfg(test)]
mod tests {
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

    #[test]
    fn what_is_not_a_message_is_refused() {
        for line in ["", "[1]", "{\"room_id\":7}", "{\"vector_clock\":[1]}"] {
            assert!(StoredChat::decode(line.as_bytes()).is_err(), "{line}");
        }
    }
}
