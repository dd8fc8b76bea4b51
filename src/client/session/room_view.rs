//! One room as one session sees it: how far it has come, and what was shown already.

use std::collections::{BTreeMap, VecDeque};

use crate::domain::Message;
use crate::domain::content::{JoinRoom, Position};

/// How many shown messages of a room are remembered, against showing one twice. The server's part
/// (`content.after`) does not depend on it.
pub const SHOWN_MAX: usize = 10_000;

/// Who said it, and under which id: all that a client sees of the key of duplicates.
type ShownKey = (String, String);

/// A room that the user wants to be in.
#[derive(Debug, Default)]
pub struct RoomView {
    /// What the user asked for at first: how many messages of the past.
    history_wanted: Option<u32>,
    /// Whether the server of the present connection has said yes.
    pub joined: bool,
    /// Whether any server ever did.
    pub joined_once: bool,
    /// What the session has been shown; opaque, handed back as `content.after`.
    position: Option<Position>,
    /// How many messages of the past are still to come, and what they are.
    past: (u32, Past),
    /// What was shown, with its timestamp; the queue holds the same keys, the oldest first.
    shown: BTreeMap<ShownKey, Option<u64>>,
    shown_order: VecDeque<ShownKey>,
}

/// Why messages of the past are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Past {
    /// After the first join: shown as history.
    #[default]
    First,
    /// After a reconnect: what was missed. Shown like any message.
    Missed,
    /// Asked for by the user: shown even when shown before.
    Again,
}

impl RoomView {
    /// A room that was not joined yet; `history` is how many messages of the past to ask for.
    pub fn new(history: Option<u32>) -> Self {
        Self { history_wanted: history, ..Self::default() }
    }

    /// What to ask the server of a new connection for: the rest when something was seen, else what was
    /// asked for at first.
    pub fn join_content(&self, accept_gap: bool) -> JoinRoom {
        match &self.position {
            Some(position) => JoinRoom { history: None, after: Some(position.clone()), accept_gap },
            None => JoinRoom { history: self.history_wanted, ..JoinRoom::default() },
        }
    }

    /// The server said yes; `count` messages of the past follow.
    pub fn joined(&mut self, past: Past, count: u32, position: Option<&Position>) {
        (self.joined, self.joined_once) = (true, true);
        self.past = (count, past);
        if past != Past::Again {
            self.moved_to(position);
        }
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.joined = false;
        self.past.0 = 0;
    }

    /// What was shown by now, as the server says.
    pub fn moved_to(&mut self, position: Option<&Position>) {
        if let Some(position) = position {
            self.position = Some(position.clone());
        }
    }

    /// Takes in the DELETE of a message: it may stand among those of the past.
    pub fn deleted(&mut self, msg: &Message) {
        let (left, past) = self.past;
        self.past.0 = left.saturating_sub(1);
        if left == 0 || past != Past::Again {
            self.moved_to(msg.position.as_ref());
        }
    }

    /// Takes in a delivered CHAT: `Some(history)` when it is to be shown, `None` when it was shown before.
    pub fn deliver(&mut self, chat: &Message) -> Option<bool> {
        let (left, past) = self.past;
        let of_the_past = left > 0;
        self.past.0 = left.saturating_sub(1);
        if of_the_past && past == Past::Again {
            return Some(true);
        }
        self.moved_to(chat.position.as_ref());
        let key = (chat.sender_id.clone(), chat.message_id.clone());
        // A sloppy client may use an id again in its next session, so without a timestamp a key proves
        // a repeat only among messages that are sent because we may have missed them.
        let repeat = self.shown.get(&key).is_some_and(|at| of_the_past || *at == chat.timestamp);
        if repeat {
            return None;
        }
        if self.shown.insert(key.clone(), chat.timestamp).is_none() {
            self.shown_order.push_back(key);
        }
        if self.shown_order.len() > SHOWN_MAX
            && let Some(oldest) = self.shown_order.pop_front()
        {
            self.shown.remove(&oldest);
        }
        Some(of_the_past && past == Past::First)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    fn chat(id: &str, timestamp: u64, position: u64) -> Message {
        let mut chat = Message::new(MessageType::Chat, "bob").with_id(id).in_room("lobby");
        chat.timestamp = Some(timestamp);
        chat.position = Some(Position::Sequence(position));
        chat
    }

    #[test]
    fn the_past_is_history_and_what_follows_is_not() {
        let mut room = RoomView::new(None);
        room.joined(Past::First, 2, None);
        assert_eq!(room.deliver(&chat("1", 1, 1)), Some(true));
        assert_eq!(room.deliver(&chat("2", 2, 2)), Some(true));
        assert_eq!(room.deliver(&chat("3", 3, 3)), Some(false));
    }

    #[test]
    fn what_was_missed_is_shown_once_and_is_not_history() {
        let mut room = RoomView::new(Some(0));
        room.joined(Past::First, 0, None);
        room.deliver(&chat("1", 1, 1));
        room.lost();
        assert_eq!(room.join_content(false).after, Some(Position::Sequence(1)));
        room.joined(Past::Missed, 2, None);
        assert_eq!(room.deliver(&chat("1", 9, 1)), None, "the same under another stamp");
        assert_eq!(room.deliver(&chat("2", 2, 2)), Some(false));
    }

    #[test]
    fn an_id_used_again_in_a_later_session_is_shown_and_an_exact_repeat_is_not() {
        let mut room = RoomView::new(None);
        room.joined(Past::First, 0, None);
        assert_eq!(room.deliver(&chat("1", 1, 1)), Some(false));
        assert_eq!(room.deliver(&chat("1", 2, 2)), Some(false));
        assert_eq!(room.deliver(&chat("1", 2, 2)), None);
    }

    #[test]
    fn history_asked_for_again_is_shown_again_and_moves_nothing() {
        let mut room = RoomView::new(None);
        room.joined(Past::First, 0, None);
        room.deliver(&chat("1", 1, 1));
        room.deliver(&chat("2", 2, 2));
        room.joined(Past::Again, 1, None);
        assert_eq!(room.deliver(&chat("1", 1, 1)), Some(true));
        assert_eq!(room.join_content(false).after, Some(Position::Sequence(2)));
    }

    #[test]
    fn before_anything_was_seen_a_rejoin_asks_what_was_asked_first() {
        let mut room = RoomView::new(Some(7));
        room.joined(Past::First, 0, None);
        room.lost();
        let join = room.join_content(true);
        assert_eq!((join.history, join.after, join.accept_gap), (Some(7), None, false));
    }

    #[test]
    fn memory_of_what_was_shown_is_bounded() {
        let mut room = RoomView::new(None);
        room.joined(Past::First, 0, None);
        for n in 0..SHOWN_MAX as u64 + 5 {
            room.deliver(&chat(&n.to_string(), n, n));
        }
        assert_eq!(room.shown.len(), SHOWN_MAX);
        assert_eq!(room.shown_order.len(), SHOWN_MAX);
        assert_eq!(room.deliver(&chat("10", 10, 10)), None, "still remembered");
    }
}
