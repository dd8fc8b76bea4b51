//! What a server takes from its disk before it is started.
//!
//! ```text
//!   recover_snapshot ──▶ recover_chats or recover_messages, part after part of the log ──▶ recovered: may it start?
//! ```

use super::ServerNode;
use super::total_order::{Seq, snapshot_unreadable};
use crate::domain::{Message, Room, StoredChat, StoredChats};
use crate::storage::snapshot::Contents;
use crate::storage::{Line, Part};

/// What the design `ring` wants of a part of the log.
impl Part for StoredChats {
    fn read(&mut self, line: &Line) -> Result<(), String> {
        line.stored_chat().map(|chat| self.push(&chat))
    }
}

impl ServerNode {
    /// Takes a message that the log held, in the order of the log, before the server is started.
    pub fn recover(&mut self, msg: Message) {
        if let Some(ordered) = &mut self.ordered {
            ordered.order.recover(msg);
            return;
        }
        let mut chats = StoredChats::default();
        chats.push(&StoredChat::of(&msg));
        self.recover_chats(chats);
    }

    /// Takes the messages of a part of the log as [`recover`](Self::recover) takes each.
    pub fn recover_messages(&mut self, part: Vec<Message>) {
        for msg in part {
            self.recover(msg);
        }
    }

    /// [`recover_messages`](Self::recover_messages) in the design `ring`, which wants no texts.
    pub fn recover_chats(&mut self, part: StoredChats) {
        for (room_id, outlines) in part.rooms() {
            if !self.managed_rooms.contains_key(room_id) {
                self.managed_rooms.insert(room_id.into(), Room::new(room_id));
            }
            if let Some(room) = self.managed_rooms.get_mut(room_id) {
                room.recover(outlines, self.recovered);
            }
        }
        self.recovered += part.records();
    }

    /// Takes the newest snapshot beside the log, as it was saved, before the log.
    pub fn recover_snapshot(&mut self, seq: Seq, saved: &Contents) {
        let Some(ordered) = &mut self.ordered else { return };
        if let Err(reason) = ordered.order.recover_snapshot(saved) {
            self.fatal = Some(snapshot_unreadable(seq, &reason));
        }
    }

    /// The log was taken. The error says what is missing of what this server has told others that it holds: it may
    /// not be started so, but only empty and with another disk id, as a wiped one.
    pub fn recovered(&mut self) -> Result<(), String> {
        self.causal_multicast_handler.recovered(&mut self.managed_rooms);
        self.ordered.as_mut().map_or(Ok(()), |ordered| ordered.order.recovered())
    }
}
