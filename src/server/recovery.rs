//! What a server takes from its disk before it is started.
//!
//! ```text
//!   recover_snapshot ──▶ recover_line, recover_line, … in the order of the log ──▶ recovered: may it start?
//! ```

use std::sync::Arc;

use super::ServerNode;
use super::total_order::{Seq, snapshot_unreadable};
use crate::domain::{Message, Room, StoredChat};
use crate::storage::Line;

impl ServerNode {
    /// Takes a message that the log held, in the order of the log, before the server is started.
    pub fn recover(&mut self, msg: Message) {
        if let Some(ordered) = &mut self.ordered {
            ordered.order.recover(msg);
            return;
        }
        self.recover_chat(&StoredChat::of(&msg));
    }

    /// Takes a line of the log as [`recover`](Self::recover) takes its message.
    pub fn recover_line(&mut self, line: &Line) -> Result<(), String> {
        if self.ordered.is_some() {
            self.recover(line.message()?);
        } else {
            self.recover_chat(&line.stored_chat()?);
        }
        Ok(())
    }

    fn recover_chat(&mut self, chat: &StoredChat) {
        self.recovered += 1;
        let room_id = &*chat.room_id;
        if !self.managed_rooms.contains_key(room_id) {
            self.managed_rooms.insert(room_id.into(), Room::new(room_id));
        }
        if let (Some(room), Some(outline)) = (self.managed_rooms.get_mut(room_id), chat.outline()) {
            room.recover(outline, chat.timestamp, self.recovered);
        }
    }

    /// Takes the newest snapshot beside the log, as it was saved, before the log.
    pub fn recover_snapshot(&mut self, seq: Seq, file: &Arc<[u8]>) {
        let Some(ordered) = &mut self.ordered else { return };
        if let Err(reason) = ordered.order.recover_snapshot(file) {
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
