//! A CHAT as a client says it: what is asked of it, borrowed; and a quick way to read one.
//!
//! ```text
//!   {"message_id":"a-1","type":"CHAT","sender_id":"alice","room_id":"lobby","content":"hello"}
//!    └ these five fields in any order, texts alone, nothing escaped, no space between: else the general parser reads it
//! ```
//!
//! Nearly all that a busy server reads is of this form. The general parser knows thirteen fields, looks at each content twice, and makes
//! a piece of memory of each text.

use super::message::{Content, Message, MessageType};
use super::special::first_special;

/// A CHAT of a client that has all that one needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chat<'a> {
    /// Its id; not empty.
    pub message_id: &'a str,
    /// The user, as the client says.
    pub sender_id: &'a str,
    /// The room.
    pub room_id: &'a str,
    /// What is said.
    pub text: &'a str,
}

/// The fields of a [`Message`] that a plain CHAT has.
const NAMES: [&[u8]; 5] = [b"message_id", b"type", b"sender_id", b"room_id", b"content"];

impl<'a> Chat<'a> {
    /// What `msg` says, if it is a CHAT with an id and a text.
    pub fn of(msg: &'a Message) -> Option<Self> {
        let Content::Text(text) = &msg.content else { return None };
        let is_chat = msg.message_type == MessageType::Chat && !msg.message_id.is_empty();
        is_chat.then_some(Self {
            message_id: &msg.message_id,
            sender_id: &msg.sender_id,
            room_id: &msg.room_id,
            text,
        })
    }

    /// It as a message.
    pub fn to_message(&self) -> Message {
        let mut msg = Message::new(MessageType::Chat, self.sender_id)
            .with_id(self.message_id)
            .in_room(self.room_id);
        msg.content = self.text.into();
        msg
    }

    /// The CHAT in `frame` if it is a plain one, as [`Message::decode`] would read it. `None` says nothing about what it is.
    pub fn decode(frame: &'a [u8]) -> Option<Self> {
        let mut values: [Option<&str>; NAMES.len()] = [None; NAMES.len()];
        let mut rest = frame.strip_prefix(b"{")?;
        loop {
            let name = take_text(&mut rest)?;
            let field = NAMES.iter().position(|known| *known == name)?;
            rest = rest.strip_prefix(b":")?;
            let value = std::str::from_utf8(take_text(&mut rest)?).ok()?;
            if values[field].replace(value).is_some() {
                return None;
            }
            match rest.split_first()? {
                (b',', others) => rest = others,
                (b'}', []) => break,
                _ => return None,
            }
        }
        let [message_id, message_type, sender_id, room_id, content] = values;
        let is_chat = message_type == Some(MessageType::Chat.as_str());
        let message_id = message_id.filter(|id| is_chat && !id.is_empty())?;
        let sender_id = sender_id.unwrap_or_default();
        Some(Self { message_id, sender_id, room_id: room_id?, text: content? })
    }
}

/// Takes a JSON string without escapes off `rest`, and gives what stands in it.
fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let inside = rest.strip_prefix(b"\"")?;
    let (text, after) = inside.split_at_checked(first_special(inside)?)?;
    *rest = after.strip_prefix(b"\"")?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_clients_send_is_plain() {
        let text = "A text of a usual length, with 0 special characters: ä, €, 🙂.";
        let mut msg = Message::new(MessageType::Chat, "alice").with_id("a-1").in_room("lobby");
        msg.content = text.into();
        let json = msg.serialize();
        let chat = Chat::decode(json.as_bytes()).unwrap();
        assert_eq!((chat.to_message(), Some(chat)), (msg.clone(), Chat::of(&msg)));
    }

    #[test]
    fn what_is_not_is_left_to_the_general_parser() {
        let all = r#""message_id":"a","room_id":"r","type":"CHAT""#;
        assert!(Chat::decode(format!("{{{all},\"content\":\"\"}}").as_bytes()).is_some());
        let others = [
            r#"{"type":"STATUS"}"#.to_string(),
            format!("{{ {all},\"content\":\"\"}}"),
            format!("{{{all},\"content\":\"\"}} "),
            format!("{{{all},\"content\":\"\",\"content\":\"\"}}"),
            format!("{{{all},\"content\":{{}}}}"),
            format!("{{{all},\"content\":\"\\n\"}}"),
            format!("{{{all},\"content\":\"\n\"}}"),
            format!("{{{all},\"content\":\"\",\"later\":\"\"}}"),
            format!("{{{all},\"content\":\"\""),
            format!("{{{all},\"content\":\""),
            format!("{{{all}}}"),
            r#"{"message_id":"","room_id":"r","type":"CHAT","content":""}"#.into(),
            r#"{"message_id":"a","type":"CHAT","content":""}"#.into(),
            String::new(),
        ];
        for frame in others {
            assert_eq!(Chat::decode(frame.as_bytes()), None, "{frame}");
        }
        let no_text = [format!("{{{all},\"content\":\"").as_bytes(), b"\xff\"}"].concat();
        assert_eq!(Chat::decode(&no_text), None);
    }

    proptest! {
        #[test]
        fn what_it_reads_the_general_parser_reads_alike(
            order in Just(NAMES.to_vec()).prop_shuffle(),
            count in 4..=NAMES.len(),
            texts in prop::collection::vec("[ -~é]{0,40}", NAMES.len()),
            cut in 0..200usize,
        ) {
            let field = |(name, text): (&&[u8], &String)| {
                let name = String::from_utf8_lossy(name);
                if name == "type" { r#""type":"CHAT""#.into() } else { format!("\"{name}\":\"{text}\"") }
            };
            let fields: Vec<String> = order.iter().zip(&texts).map(field).take(count).collect();
            let whole = format!("{{{}}}", fields.join(","));
            for frame in [whole.as_bytes(), &whole.as_bytes()[..cut.min(whole.len())]] {
                if let Some(chat) = Chat::decode(frame) {
                    let msg = Message::decode(frame).unwrap();
                    prop_assert_eq!(Chat::of(&msg), Some(chat));
                    prop_assert_eq!(chat.to_message(), msg);
                }
            }
        }
    }
}
