//! What a connection brings: whose it is decides who takes it.
//!
//! ```text
//!   frames of one read   CHAT a │ CHAT a │ CHAT a │ JOIN_ROOM b │ CHAT b
//!                        └── taken together ──────┘ each alone
//! ```
//!
//! Under load one read brings dozens of CHATs for one room. What has to be asked of the client and of the room is asked once
//! for all of them, and no [`Message`] is made of any.

use super::ServerNode;
use super::connections::{Hindrance, Role};
use super::failure_detector::TimerType;
use super::step::{Flow, Step};
use crate::domain::{Chat, Message, MessageType};
use crate::error::RequestError;
use crate::network::{Batch, ConnId, Inbound};

impl ServerNode {
    /// Takes the frame `first` of those that `conn` brought, and with it the CHATs that follow it in the same room.
    ///
    /// Returns how many were taken. [`Flow::Wait`] leaves everything as it was: the same frames are handed in again later.
    pub fn process_next(
        &mut self,
        conn: ConnId,
        batch: &Batch,
        first: usize,
        step: &Step,
    ) -> (usize, Flow) {
        match batch.get(first) {
            None => (0, Flow::Done),
            Some(Inbound::Chat(chat)) => {
                // In one order each of them is passed on alone; who follows what happens wants to see each.
                let is_watched = step.cm.trace().is_some() || log::log_enabled!(log::Level::Debug);
                if is_watched || self.ordered.is_some() {
                    return (1, self.process_message(conn, &chat.to_message(), step));
                }
                let in_room = |other: &Chat| other.room_id == chat.room_id;
                self.take_chats(conn, batch.chats(first).take_while(in_room), step)
            }
            Some(Inbound::Message(msg)) => (1, self.process_message(conn, msg, step)),
            Some(Inbound::Fault(error)) => (1, self.refuse(conn, error, step)),
        }
    }

    /// Takes a message from `conn`. [`Flow::Wait`] leaves everything as it was: the same message is
    /// handed in again later.
    pub fn process_message(&mut self, conn: ConnId, msg: &Message, step: &Step) -> Flow {
        let Some(trace) = step.cm.trace() else { return self.take_message(conn, msg, step) };
        trace.received(conn, msg);
        let flow = self.take_message(conn, msg, step);
        trace.taken(conn, flow, &self.standing());
        flow
    }

    fn take_message(&mut self, conn: ConnId, msg: &Message, step: &Step) -> Flow {
        let Some(role) = self.hear(conn, step) else { return Flow::Close };
        log_message(conn, &role, msg);
        let done = match role {
            Role::New => self.process_first_message(conn, msg, step),
            Role::Client(session) => self.process_client_message(conn, &session, msg, step),
            Role::Peer(node_id) => {
                return self.process_peer_message(conn, &node_id, msg, step);
            }
        };
        self.conclude(conn, done, step)
    }

    /// Takes CHATs in one room. What hinders the first may not hinder the others: then it is taken alone, and each is told.
    fn take_chats<'a>(
        &mut self,
        conn: ConnId,
        chats: impl Iterator<Item = Chat<'a>> + Clone,
        step: &Step,
    ) -> (usize, Flow) {
        let role = self.hear(conn, step);
        let (Some(role), Some(first)) = (role, chats.clone().next()) else {
            return (0, Flow::Close);
        };
        let Role::Client(session) = role else {
            return (1, self.take_message(conn, &first.to_message(), step));
        };
        let done = self.may_say(&session, &first, step);
        let count = match &done {
            Ok(()) => self.publish(&session, first.room_id, chats, step),
            Err(_) => 1,
        };
        (count, self.conclude(conn, done, step))
    }

    /// Notes that `conn` has said something, and tells what it is.
    fn hear(&mut self, conn: ConnId, step: &Step) -> Option<Role> {
        let known = self.conns.get_mut(&conn)?;
        let role = known.role.clone();
        if known.heard_at.replace(step.now) != Some(step.now)
            && let Role::Client(session) = &role
        {
            self.failure_detector.reset_timer(session, TimerType::Client, step.now);
        }
        Some(role)
    }

    /// The first message of a connection tells what it is.
    fn process_first_message(
        &mut self,
        conn: ConnId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        match msg.message_type {
            MessageType::Hello => self.handle_hello(conn, msg, step)?,
            MessageType::ClientJoin => return self.handle_client_join(conn, msg, step),
            MessageType::Status => self.answer_status(conn, msg, step),
            MessageType::Member => return self.handle_member_request(conn, msg, step),
            MessageType::Discovery => self.answer_discovery(conn, msg, step),
            // The other side of a dialled connection says why it does not want it.
            MessageType::Error => self.handle_refusal(conn, msg, step),
            message_type => {
                let message_id = msg.message_id.clone();
                return Err(RequestError::JoinFirst { message_id, message_type }.into());
            }
        }
        Ok(())
    }
}

/// One line a message at debug; those that come all the time at trace.
fn log_message(conn: ConnId, role: &Role, msg: &Message) {
    let often = matches!(msg.message_type, MessageType::Heartbeat | MessageType::Ack);
    let level = if often { log::Level::Trace } else { log::Level::Debug };
    if !log::log_enabled!(level) {
        return;
    }
    let who = match role {
        Role::Peer(node_id) => node_id.to_string(),
        Role::New | Role::Client(_) => conn.to_string(),
    };
    log::log!(level, "{who}: {} {} {}", msg.message_type, msg.room_id, msg.message_id);
}
