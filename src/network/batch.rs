//! What one read brings: frames, in order.
//!
//! ```text
//!   texts   a-1alicelobbyhello│a-2alicelobbyyou there?│          one piece of memory for all plain CHATs
//!   frames  [chat 0..18]       [chat 18..40]             [STATUS] [no JSON]
//! ```
//!
//! Under load one read brings dozens of CHATs. With a message of its own for each, and a piece of memory for each text in it,
//! asking for memory took as long as reading them.

use crate::domain::{Chat, Message};
use crate::error::RequestError;

/// The frames that a connection brought with one read.
#[derive(Debug, Default)]
pub struct Batch {
    /// The texts of the CHATs, one after the other.
    texts: String,
    frames: Vec<Frame>,
}

/// Where a frame of a batch stands, or what it is.
#[derive(Debug)]
enum Frame {
    /// Where the texts of a CHAT end in `texts`, in the order of the fields of [`Chat`]; and where the first begins.
    Chat {
        start: usize,
        ends: [usize; 4],
    },
    Message(Box<Message>),
    Fault(Box<RequestError>),
}

/// A frame that a connection brought.
#[derive(Debug)]
pub enum Inbound<'a> {
    /// A CHAT that has all that one needs.
    Chat(Chat<'a>),
    /// Any other message.
    Message(&'a Message),
    /// What is wrong with it.
    Fault(&'a RequestError),
}

impl Batch {
    /// How many frames it has.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Makes room for so many more frames, of so many bytes together.
    pub fn reserve(&mut self, frames: usize, bytes: usize) {
        self.frames.reserve(frames);
        self.texts.reserve(bytes);
    }

    /// The frame `index`.
    pub fn get(&self, index: usize) -> Option<Inbound<'_>> {
        Some(match self.frames.get(index)? {
            Frame::Chat { start, ends } => Inbound::Chat(self.chat(*start, ends)),
            Frame::Message(msg) => Inbound::Message(msg),
            Frame::Fault(error) => Inbound::Fault(error),
        })
    }

    fn chat(&self, mut start: usize, ends: &[usize; 4]) -> Chat<'_> {
        let mut next = |end| &self.texts[std::mem::replace(&mut start, end)..end];
        let [message_id, sender_id, room_id, text] = ends.map(&mut next);
        Chat { message_id, sender_id, room_id, text }
    }

    /// The frames, in order.
    pub fn iter(&self) -> impl Iterator<Item = Inbound<'_>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// The frames from `first` on that are CHATs, up to the first that is none.
    pub fn chats(&self, first: usize) -> impl Iterator<Item = Chat<'_>> + Clone {
        self.frames[first..].iter().map_while(|frame| match frame {
            Frame::Chat { start, ends } => Some(self.chat(*start, ends)),
            _ => None,
        })
    }

    /// Reads `frame`, one JSON object, and appends it.
    pub fn decode(&mut self, frame: &[u8]) {
        match Chat::decode(frame) {
            Some(chat) => self.push_chat(&chat),
            None => self.push(Message::decode(frame)),
        }
    }

    /// Appends a message, or what is wrong with one.
    pub fn push(&mut self, item: Result<Message, RequestError>) {
        match item {
            Ok(msg) => self.frames.push(Frame::Message(msg.into())),
            Err(error) => self.frames.push(Frame::Fault(error.into())),
        }
    }

    fn push_chat(&mut self, chat: &Chat) {
        let start = self.texts.len();
        let texts = [chat.message_id, chat.sender_id, chat.room_id, chat.text];
        // At once: most often this is the only frame, and nothing is there yet.
        self.texts.reserve(texts.iter().map(|text| text.len()).sum());
        let ends = texts.map(|text| {
            self.texts.push_str(text);
            self.texts.len()
        });
        self.frames.push(Frame::Chat { start, ends });
    }

    /// What was wrong with the last frame, if that ends the connection.
    pub fn closing_fault(&self) -> Option<&RequestError> {
        match self.frames.last() {
            Some(Frame::Fault(error)) => Some(&**error).filter(|error| error.closes()),
            _ => None,
        }
    }
}

impl Inbound<'_> {
    /// The message, copied; or what is wrong with it.
    pub fn to_message(&self) -> Result<Message, RequestError> {
        match self {
            Self::Chat(chat) => Ok(chat.to_message()),
            Self::Message(msg) => Ok((*msg).clone()),
            Self::Fault(error) => Err((*error).clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    fn chat(id: &str, text: &str) -> Message {
        let mut msg = Message::new(MessageType::Chat, "alice").with_id(id).in_room("lobby");
        msg.content = text.into();
        msg
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let msgs = [chat("a-1", "hello"), chat("a-2", ""), chat("a-3", "a\nb")];
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        for msg in &msgs {
            batch.decode(&msg.to_frame());
        }
        batch.decode(b"{\"type\":\"SHOUT\"}");
        assert!(batch.closing_fault().is_none());
        batch.decode(b"[");
        let seen: Vec<_> = batch.iter().map(|frame| frame.to_message()).collect();
        assert_eq!(seen[..3], msgs.map(Ok));
        assert!(seen[3].is_err() && seen[4].is_err() && batch.len() == 5);
        assert_eq!(batch.closing_fault().map(RequestError::code), Some("INVALID_JSON"));
        let texts = |first| batch.chats(first).map(|chat| chat.text).collect::<Vec<_>>();
        assert_eq!((texts(0), texts(1), texts(2)), (vec!["hello", ""], vec![""], vec![]));
        assert!(batch.get(5).is_none());
    }
}
