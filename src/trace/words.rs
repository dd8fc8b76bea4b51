//! What a message says, in few words and without secrets.
//!
//! Only what is named here gets into a trace. A content that this module does not know appears by its type alone, so
//! that a password, a token or a hash cannot slip in with the next message type.

use serde_json::{Map, Value};

use crate::domain::{Content, Message, MessageType};

/// Characters of a text that are kept.
const TEXT_CHARS_MAX: usize = 120;
/// Chat messages that one event names.
const ABOUT_MAX: usize = 64;
/// A content longer than this is not taken apart, in bytes.
const CONTENT_BYTES_MAX: usize = 1024 * 1024;

/// Numbers, flags and names that say something. None of them is a secret.
const TOLD: [&str; 33] = [
    "kind",
    "k",
    "d",
    "hops",
    "toward",
    "side",
    "candidate",
    "leader",
    "id",
    "term",
    "asked",
    "round",
    "vote_granted",
    "pre_vote",
    "transfer",
    "handover",
    "committed",
    "leader_commit",
    "active",
    "prev_log_index",
    "match_index",
    "conflict_index",
    "last_log_index",
    "seq",
    "index",
    "offset",
    "reply",
    "more",
    "history",
    "after",
    "prev",
    "held",
    "synced",
];

/// A message, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// A short description.
    pub say: String,
    /// The chat messages that it is or carries, as `user/id`.
    pub about: Vec<String>,
}

/// Puts `msg` into words. `user` is the client that it comes from or goes to, if there is one.
pub fn words(msg: &Message, user: Option<&str>) -> Words {
    let mut words = Words::default();
    match (&msg.content, msg.message_type) {
        (Content::Text(text), _) => words.say = format!("“{}”", shortened(text)),
        (Content::Object(raw), MessageType::Error) => words.say = refusal(raw.get()),
        (Content::Object(raw), _) if raw.get().len() <= CONTENT_BYTES_MAX => {
            if let Ok(Value::Object(content)) = serde_json::from_str(raw.get()) {
                let mut said = Vec::new();
                tell(&content, &mut said, &mut words.about);
                words.say = said.join(", ");
            }
        }
        (Content::Object(raw), _) => words.say = format!("{} bytes", raw.get().len()),
        (Content::Empty, _) => {}
    }
    let author = match msg.message_type {
        MessageType::Chat if !msg.sender_id.is_empty() => Some(msg.sender_id.as_str()),
        MessageType::Chat | MessageType::Delete | MessageType::Ack | MessageType::Error => user,
        _ => None,
    };
    if let Some(author) = author.filter(|_| !msg.message_id.is_empty()) {
        words.about.push(format!("{author}/{}", msg.message_id));
    }
    words
}

/// What an ERROR says.
fn refusal(content: &str) -> String {
    let content: Value = serde_json::from_str(content).unwrap_or_default();
    let word = |key: &str| shortened(content[key].as_str().unwrap_or_default());
    format!("{}: {}", word("code"), word("reason"))
}

/// Tells what is known in `content`, and what chat messages it carries.
fn tell(content: &Map<String, Value>, said: &mut Vec<String>, about: &mut Vec<String>) {
    if let (1, Some((name, Value::Object(inner)))) = (content.len(), content.iter().next()) {
        // The name of a variant, as in `{"request": {…}}`.
        if !TOLD.contains(&name.as_str()) {
            said.push(shortened(name));
            tell(inner, said, about);
            return;
        }
    }
    // What kind of message it is comes first; the rest is sorted by name.
    let (kinds, others): (Vec<_>, Vec<_>) = content.iter().partition(|(key, _)| *key == "kind");
    for (key, value) in kinds.into_iter().chain(others) {
        match (key.as_str(), value) {
            ("entries" | "messages", Value::Array(messages)) => {
                said.push(format!("{} {key}", messages.len()));
                let chats = messages.iter().filter_map(chat_key);
                about.extend(chats.take(ABOUT_MAX.saturating_sub(about.len())));
            }
            ("rooms", Value::Object(rooms)) => tell_rooms(rooms, said, about),
            ("sessions", Value::Object(sessions)) => {
                said.push(format!("{} sessions", sessions.len()));
            }
            (known, value) if TOLD.contains(&known) => {
                if let Some(value) = scalar(value) {
                    said.push(if known == "kind" { value } else { format!("{known} {value}") });
                }
            }
            _ => {}
        }
    }
}

/// Of one room what is said of it, of several how many they are.
fn tell_rooms(rooms: &Map<String, Value>, said: &mut Vec<String>, about: &mut Vec<String>) {
    match rooms.iter().next() {
        Some((name, Value::Object(content))) if rooms.len() == 1 => {
            said.push(shortened(name));
            tell(content, said, about);
        }
        _ => said.push(format!("{} rooms", rooms.len())),
    }
}

/// `user/id` of a chat message inside a batch.
fn chat_key(message: &Value) -> Option<String> {
    let word = |key: &str| message[key].as_str().filter(|word| !word.is_empty());
    let is_chat = word("type") == Some(MessageType::Chat.as_str());
    is_chat.then(|| Some(format!("{}/{}", word("sender_id")?, word("message_id")?))).flatten()
}

/// A value in a word: a place is its number, a term its counter and leader.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::String(text) => Some(shortened(text)),
        Value::Object(place) => match (place.get("seq"), place.get("counter")) {
            (Some(seq), _) => Some(seq.to_string()),
            (None, Some(counter)) => Some(counter.to_string()),
            (None, None) => None,
        },
        Value::Null | Value::Array(_) => None,
    }
}

/// The beginning of `text`, on one line.
pub fn shortened(text: &str) -> String {
    let mut short: String =
        text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::ClientJoin;

    fn message(json: &str) -> Message {
        Message::deserialize(json).unwrap()
    }

    #[test]
    fn a_chat_is_its_text_and_its_key() {
        let chat = message(
            r#"{"message_id":"3","type":"CHAT","sender_id":"alice","content":"hello\nworld"}"#,
        );
        let expected = Words { say: "“hello world”".into(), about: vec!["alice/3".into()] };
        assert_eq!(words(&chat, None), expected);
        let from_client = message(r#"{"message_id":"3","type":"CHAT","content":"x"}"#);
        assert_eq!(words(&from_client, Some("bob")).about, ["bob/3"]);
        let ack = message(r#"{"message_id":"3","type":"ACK","sender_id":"n1"}"#);
        assert_eq!(words(&ack, Some("bob")).about, ["bob/3"]);
        assert!(words(&ack, None).about.is_empty(), "an answer between servers");
    }

    #[test]
    fn a_batch_names_the_chats_that_it_carries() {
        let batch = message(
            r#"{"type":"APPEND_ENTRIES","sender_id":"n1","content":{"request":{"term":2,"leader":"n1.1-ab",
            "prev_log_index":6,"prev_log_term":2,"leader_commit":5,"round":9,"entries":[
            {"type":"NOOP"},{"type":"CHAT","sender_id":"alice","message_id":"4","content":"secret?"}]}}}"#,
        );
        let words = words(&batch, None);
        assert_eq!(words.about, ["alice/4"]);
        for part in ["request", "2 entries", "prev_log_index 6", "leader_commit 5"] {
            assert!(words.say.contains(part), "{part}: {}", words.say);
        }
        assert!(!words.say.contains("secret"), "{}", words.say);
    }

    #[test]
    fn a_confirmation_says_of_which_room_or_of_how_many() {
        let room = r#""lobby":{"held":3,"synced":2}"#;
        let table = [
            (room.to_string(), "lobby, held 3, synced 2"),
            (format!(r#"{room},"den":{{"held":1,"synced":1}}"#), "2 rooms"),
        ];
        for (rooms, expected) in table {
            let ack = message(&format!(
                r#"{{"type":"ACK","sender_id":"n1","content":{{"origin":"n2.1-ab","rooms":{{{rooms}}}}}}}"#
            ));
            assert_eq!(words(&ack, None).say, expected);
        }
    }

    #[test]
    fn no_password_and_no_token_is_told() {
        let join = ClientJoin {
            session: "s".into(),
            password: Some("open sesame".into()),
            token: Some("c2a5".into()),
            ..ClientJoin::default()
        };
        let msg = Message::new(MessageType::ClientJoin, "alice").saying(&join);
        let said = format!("{:?}", words(&msg, Some("alice")));
        assert!(!said.contains("sesame") && !said.contains("c2a5"), "{said}");
    }

    #[test]
    fn a_long_text_is_cut() {
        let mut chat = Message::new(MessageType::Chat, "alice");
        chat.content = "ü".repeat(500).as_str().into();
        assert_eq!(words(&chat, None).say.chars().count(), TEXT_CHARS_MAX + 3);
    }
}
