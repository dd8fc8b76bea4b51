//! A stamped CHAT on its way into the log and to the members, written without making a [`Message`] of it.
//!
//! ```text
//!   log       {"message_id":…,"type":"CHAT","sender_id":…,"room_id":…,"content":… │,"origin":…,"vector_clock":…,"session":…,"timestamp":7}
//!             └──────────────── what members see: the same bytes ─────────────────┘
//!   members   {"message_id":…,"type":"CHAT","sender_id":…,"room_id":…,"content":… │,"timestamp":7,"position":{…}}
//! ```
//!
//! So a text is escaped once, for the log; what members see is copied from there. Both forms are those of [`Message`], written
//! by hand, since a busy server does little else: `cargo bench -- codec` times both ways.

use super::history::Outline;
use super::ids::Incarnation;
use super::message::{Content, Message};
use super::special::first_special;
use super::vector_clock::VectorClock;

/// A stamped CHAT of the design `ring`; its fields are those of [`Message`].
#[derive(Clone, Copy, Debug)]
pub struct StampedChat<'a> {
    /// Its id.
    pub message_id: &'a str,
    /// The user.
    pub sender_id: &'a str,
    /// The room.
    pub room_id: &'a str,
    /// What is said.
    pub content: Said<'a>,
    /// Who stamped it.
    pub origin: &'a Incarnation,
    /// Its number among those of `origin`, from 1.
    pub count: u64,
    /// The stamp.
    pub vector_clock: &'a VectorClock,
    /// The session that sent it.
    pub session: Option<&'a str>,
    /// When it was stamped, in milliseconds since 1970.
    pub timestamp: Option<u64>,
}

/// The content of a CHAT.
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// A text, as clients say it.
    Text(&'a str),
    /// What another server sent: a text as well, if all is well.
    Any(&'a Content),
}

/// A stamped CHAT as the log has it.
#[derive(Clone, Copy, Debug)]
pub struct WrittenChat<'a> {
    /// What the columns of a history keep of it.
    pub outline: Outline<'a>,
    /// Its JSON.
    pub json: &'a [u8],
    /// So many of these bytes are for members.
    pub shown_bytes: usize,
    /// When it was stamped, in milliseconds since 1970.
    pub timestamp: Option<u64>,
}

impl<'a> StampedChat<'a> {
    /// That of `msg`; `None` when it is not stamped.
    pub fn of(msg: &'a Message) -> Option<Self> {
        let (origin, count) = msg.stamp()?;
        Some(Self {
            message_id: &msg.message_id,
            sender_id: &msg.sender_id,
            room_id: &msg.room_id,
            content: Said::Any(&msg.content),
            origin,
            count,
            vector_clock: msg.vector_clock.as_ref()?,
            session: msg.session.as_deref(),
            timestamp: msg.timestamp,
        })
    }

    /// What the columns of a history keep of it.
    pub fn outline(&self) -> Outline<'a> {
        let key = self.session.map(|session| (session, self.message_id));
        Outline { origin: self.origin.as_str(), count: self.count, key }
    }

    /// Writes it as the log has it, into `json` alone.
    pub fn write<'b>(&self, json: &'b mut Vec<u8>) -> WrittenChat<'b>
    where
        'a: 'b,
    {
        json.clear();
        json.push(b'{');
        if !self.message_id.is_empty() {
            json.extend_from_slice(b"\"message_id\":");
            push_text(self.message_id, json);
            json.push(b',');
        }
        json.extend_from_slice(b"\"type\":\"CHAT\"");
        push_field(b",\"sender_id\":", self.sender_id, json);
        push_field(b",\"room_id\":", self.room_id, json);
        match self.content {
            Said::Text(text) => {
                json.extend_from_slice(b",\"content\":");
                push_text(text, json);
            }
            Said::Any(content) => push_content(content, json),
        }
        let shown_bytes = json.len();
        push_field(b",\"origin\":", self.origin.as_str(), json);
        json.extend_from_slice(b",\"vector_clock\":");
        push_clock(self.vector_clock, json);
        if let Some(session) = self.session {
            json.extend_from_slice(b",\"session\":");
            push_text(session, json);
        }
        push_timestamp(self.timestamp, json);
        json.push(b'}');
        WrittenChat { outline: self.outline(), json, shown_bytes, timestamp: self.timestamp }
    }
}

/// Appends to `out` what members see of a message: `shown`, the part of its JSON that is for them, when it was stamped, and the
/// `position` after it.
pub fn push_delivered(
    shown: &[u8],
    timestamp: Option<u64>,
    position: &VectorClock,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(shown);
    push_timestamp(timestamp, out);
    out.extend_from_slice(b",\"position\":");
    push_clock(position, out);
    out.push(b'}');
}

/// Appends `text` as a JSON string.
pub fn push_text(text: &str, out: &mut Vec<u8>) {
    if first_special(text.as_bytes()).is_none() {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        // A string always serialises, and a vector takes everything.
        serde_json::to_writer(out, text).expect("a text serialises");
    }
}

/// Appends the JSON object of `clock`.
pub fn push_clock(clock: &VectorClock, out: &mut Vec<u8>) {
    out.push(b'{');
    for (at, (name, count)) in clock.timestamps.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_text(name.as_str(), out);
        out.push(b':');
        push_number(*count, out);
    }
    out.push(b'}');
}

fn push_field(name: &[u8], text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        out.extend_from_slice(name);
        push_text(text, out);
    }
}

fn push_content(content: &Content, out: &mut Vec<u8>) {
    if content.is_empty() {
        return;
    }
    out.extend_from_slice(b",\"content\":");
    match content {
        Content::Text(text) => push_text(text, out),
        // Infallible, as in `Message::serialize`.
        _ => serde_json::to_writer(out, content).expect("a content serialises"),
    }
}

fn push_timestamp(timestamp: Option<u64>, out: &mut Vec<u8>) {
    if let Some(timestamp) = timestamp {
        out.extend_from_slice(b",\"timestamp\":");
        push_number(timestamp, out);
    }
}

fn push_number(number: u64, out: &mut Vec<u8>) {
    // A number always serialises, and a vector takes everything.
    serde_json::to_writer(out, &number).expect("a number serialises");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::content::Position;
    use crate::domain::{MessageType, StoredChat};

    prop_compose! {
        fn any_chat()(
            names in any::<[String; 3]>(),
            text in prop_oneof![Just(None), any::<String>().prop_map(Some)],
            clock in proptest::collection::btree_map("n[1-3].[1-9]-\"?[0-9a-f]{4}", 1u64.., 1..4),
            session in any::<Option<String>>(),
            timestamp in any::<Option<u64>>(),
        ) -> Message {
            let [message_id, sender_id, room_id] = names;
            let mut msg =
                Message::new(MessageType::Chat, sender_id).with_id(message_id).in_room(room_id);
            msg.content = text.map_or(Content::Empty, Content::Text);
            let timestamps = clock.into_iter().map(|(name, count)| (name.into(), count));
            let clock = VectorClock { timestamps: timestamps.collect() };
            msg.origin = clock.timestamps.keys().next_back().cloned();
            msg.vector_clock = Some(clock);
            (msg.session, msg.timestamp) = (session, timestamp);
            msg
        }
    }

    proptest! {
        #[test]
        fn it_is_written_as_a_message_is(msg in any_chat()) {
            let chat = StampedChat::of(&msg).unwrap();
            let mut json = b"something else".to_vec();
            let stored = chat.write(&mut json);
            prop_assert_eq!(std::str::from_utf8(stored.json).unwrap(), msg.serialize());
            prop_assert_eq!(Some(stored.outline), Outline::of(&msg));
            let outline = StoredChat::decode(stored.json).unwrap();
            prop_assert_eq!(outline.outline(), Some(stored.outline));
            prop_assert_eq!(outline.timestamp, msg.timestamp);
        }

        #[test]
        fn members_see_a_message_without_session_and_stamp(msg in any_chat(), more in 0..9u64) {
            let mut position = msg.vector_clock.clone().unwrap();
            position.raise(&"n9.1-0000".into(), more);
            let mut json = Vec::new();
            let stored = StampedChat::of(&msg).unwrap().write(&mut json);
            let mut delivered = Vec::new();
            push_delivered(&stored.json[..stored.shown_bytes], msg.timestamp, &position, &mut delivered);
            let seen = Message {
                session: None,
                origin: None,
                vector_clock: None,
                position: Some(Position::Clock(position)),
                ..msg
            };
            prop_assert_eq!(String::from_utf8(delivered).unwrap(), seen.serialize());
        }
    }
}
