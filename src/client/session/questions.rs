//! What a session asks about what is kept: deletion, history since a time, statistics; and the answers.
//!
//! Each may be asked again after a reconnect: a deletion that was done is done, a page is read again.

use super::{Request, Session, Step};
use crate::client::event::{Delivery, Event};
use crate::domain::content::{Deletion, HistoryPage, HistoryRequest, HistoryStart, Statistics};
use crate::domain::{Message, MessageType};

impl Session {
    /// Deletes the message `target` of this user in `room`. Members are told, this one too.
    pub fn delete_message(&mut self, room: &str, target: &str) -> Step {
        self.ask(Request::Delete(room.into(), target.into()))
    }

    /// Asks for what was said in `room` since `since_ms`, in milliseconds since 1970.
    pub fn ask_history(&mut self, room: &str, since_ms: u64) -> Step {
        self.ask(Request::Since(room.into(), since_ms, None))
    }

    /// Asks what is kept.
    pub fn ask_statistics(&mut self) -> Step {
        self.ask(Request::Statistics)
    }

    /// The message that asks `request`, under a fresh id.
    pub(super) fn query(&mut self, request: Request) -> Message {
        match request.clone() {
            Request::Delete(room, target) => {
                // Left out, the session is this one; with a password any of the user's.
                let deletion = Deletion { target, session: None };
                self.request(MessageType::Delete, request).in_room(room).saying(&deletion)
            }
            Request::Since(room, since, after) => {
                let asked = HistoryRequest { since, after };
                self.request(MessageType::History, request).in_room(room).saying(&asked)
            }
            Request::Statistics => self.request(MessageType::Stats, request),
            Request::Members(room) => self.request(MessageType::Status, request).in_room(room),
            _ => self.request(MessageType::Status, request),
        }
    }

    /// A message of a room is gone.
    pub(super) fn on_deleted(&mut self, msg: &Message) -> Step {
        let mut step = Step::default();
        let Some(view) = self.rooms.get_mut(&msg.room_id) else { return step };
        view.deleted(msg);
        let (room, name) = (msg.room_id.clone(), msg.sender_id.clone());
        step.events.push(Event::Deleted { room, message_id: msg.message_id.clone(), name });
        step
    }

    pub(super) fn on_history(&mut self, msg: &Message) -> Step {
        let mut step = Step::default();
        let Some(Request::Since(room, since, _)) = self.requests.remove(&msg.message_id) else {
            return step;
        };
        let page: HistoryPage = msg.content.parse().unwrap_or_default();
        let (count, more) = (page.messages.len(), page.next.is_some());
        if let Some(HistoryStart { after, until }) = page.starts {
            let room = room.clone();
            step.events.push(Event::HistoryStarts { room, after, until, missed: false });
        }
        step.events.push(Event::Since { room: room.clone(), count, more });
        let told = page.messages.iter().map(|chat| Event::Delivered(self.delivery(chat, true)));
        step.events.extend(told);
        if let Some(next) = page.next {
            step.send.push(self.query(Request::Since(room, since, Some(next))));
        }
        step
    }

    pub(super) fn on_statistics(&mut self, msg: &Message) -> Step {
        let mut step = Step::default();
        if let Some(Request::Statistics) = self.requests.remove(&msg.message_id) {
            let statistics: Statistics = msg.content.parse().unwrap_or_default();
            step.events.push(Event::Statistics(Box::new(statistics)));
        }
        step
    }

    /// `msg`, a CHAT, as the user is told of it.
    pub(super) fn delivery(&self, msg: &Message, history: bool) -> Delivery {
        let own_id = msg.message_id.strip_prefix(&self.id);
        let own = own_id.is_some_and(|rest| rest.starts_with('-'));
        Delivery {
            message_id: msg.message_id.clone(),
            room: msg.room_id.clone(),
            sender: msg.sender_id.clone(),
            text: msg.content.text().into(),
            timestamp: msg.timestamp,
            position: msg.position.clone(),
            history,
            own: own && msg.sender_id == self.username,
        }
    }
}
