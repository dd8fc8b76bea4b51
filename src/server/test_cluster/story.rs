//! What happens among the servers, written down in order while somebody listens.

use std::collections::BTreeMap;

use super::{End, TestCluster};
use crate::domain::{Message, NodeId};

/// Something that a play tells ([`TestCluster::story`]).
pub(in crate::server) enum Event {
    /// The server delivered this message to its copy of the room: it holds it.
    Held(NodeId, Message),
    /// The server waits for what comes before this message.
    HeldBack(NodeId, Message),
    /// The message is on the server's disk.
    Synced(NodeId, Message),
    /// One server sent to another.
    Sent(NodeId, NodeId, Message),
    /// A server sent to a client.
    Told(End, Message),
    /// A server closed a client's connection.
    Closed(End),
}

/// Per room how many messages are held, and those held back.
pub(super) type Rooms = BTreeMap<String, (usize, Vec<Message>)>;

impl TestCluster {
    pub(super) fn note(&mut self, event: impl FnOnce() -> Event) {
        if let Some(story) = &mut self.story {
            story.push(event());
        }
    }

    /// What the rooms of `id` took in since they had `before` messages and held `waiting` back.
    pub(super) fn note_rooms(&mut self, id: &NodeId, before: &Rooms) {
        let Some(story) = &mut self.story else { return };
        for (room_id, room) in &self.nodes[id].node.managed_rooms {
            let (held, waiting) = before.get(room_id).cloned().unwrap_or_default();
            let history = &room.message_history;
            for msg in (held..history.len()).filter_map(|place| history.get(place)) {
                story.push(Event::Held(id.clone(), msg));
            }
            for msg in room.hold_back_queue.iter().filter(|msg| !waiting.contains(msg)) {
                story.push(Event::HeldBack(id.clone(), msg.clone()));
            }
        }
    }

    pub(super) fn rooms_of(&self, id: &NodeId) -> Rooms {
        if self.story.is_none() {
            return BTreeMap::new();
        }
        let rooms = self.nodes[id].node.managed_rooms.iter();
        rooms
            .map(|(room_id, room)| {
                let held_back = room.hold_back_queue.iter().cloned().collect();
                (room_id.clone(), (room.message_history.len(), held_back))
            })
            .collect()
    }
}
