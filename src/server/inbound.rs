//! What a connection brings: whose it is decides who takes it.
//!
//! ```text
//!   frames of one read   CHAT a │ CHAT a │ CHAT a │ JOIN_ROOM b │ CHAT b
//!                        └── taken together ──────┘ each alone
//! ```
//!
//! Under load one read brings dozens of CHATs for one room. What has to be asked of the client and of the room is asked once
//! for all of them.

use super::ServerNode;
use super::connections::{Hindrance, Role};
use super::failure_detector::TimerType;
use super::step::{Flow, Inbound, Step};
use crate::domain::{Content, Message, MessageType};
use crate::error::RequestError;
use crate::network::ConnId;

impl ServerNode {
    /// Takes the first of the frames that `conn` brought, and with it the CHATs that follow it in the same room. Of what is taken
    /// the texts may be gone afterwards: they need not be copied then.
    ///
    /// Returns how many were taken. [`Flow::Wait`] leaves everything as it was: the same frames are handed in again later.
    pub fn process_next(
        &mut self,
        conn: ConnId,
        frames: &mut [Inbound],
        step: &Step,
    ) -> (usize, Flow) {
        let others = self.others_like_first(frames, step);
        let Some((first, rest)) = frames.split_first_mut() else { return (0, Flow::Done) };
        match first {
            Ok(msg) => self.process_texts(conn, msg, &mut rest[..others], step),
            Err(error) => (1, self.refuse(conn, error, step)),
        }
    }

    /// How many CHATs follow the first one of `frames`, in the same room, which nothing but their texts tells apart.
    fn others_like_first(&self, frames: &[Inbound], step: &Step) -> usize {
        let Some(Ok(first)) = frames.first() else { return 0 };
        // In one order each of them is passed on alone; who follows what happens wants to see each.
        let is_watched = step.cm.trace().is_some() || log::log_enabled!(log::Level::Debug);
        if first.message_type != MessageType::Chat || self.ordered.is_some() || is_watched {
            return 0;
        }
        let is_like_first = |frame: &&Inbound| {
            frame.as_ref().is_ok_and(|msg| {
                msg.message_type == MessageType::Chat
                    && msg.room_id == first.room_id
                    && !msg.message_id.is_empty()
                    && matches!(msg.content, Content::Text(_))
            })
        };
        frames[1..].iter().take_while(is_like_first).count()
    }

    /// Takes a message from `conn`. [`Flow::Wait`] leaves everything as it was: the same message is
    /// handed in again later.
    pub fn process_message(&mut self, conn: ConnId, msg: &Message, step: &Step) -> Flow {
        self.process_texts(conn, &mut msg.clone(), &mut [], step).1
    }

    fn process_texts(
        &mut self,
        conn: ConnId,
        msg: &mut Message,
        others: &mut [Inbound],
        step: &Step,
    ) -> (usize, Flow) {
        let Some(trace) = step.cm.trace() else {
            return self.take_message(conn, msg, others, step);
        };
        trace.received(conn, msg);
        let (count, flow) = self.take_message(conn, msg, others, step);
        trace.taken(conn, flow, &self.standing());
        (count, flow)
    }

    fn take_message(
        &mut self,
        conn: ConnId,
        msg: &mut Message,
        others: &mut [Inbound],
        step: &Step,
    ) -> (usize, Flow) {
        let Some(known) = self.conns.get_mut(&conn) else { return (0, Flow::Close) };
        let role = known.role.clone();
        let is_first_of_step = known.heard_at.replace(step.now) != Some(step.now);
        log_message(conn, &role, msg);
        let done = match role {
            Role::New => self.process_first_message(conn, msg, step),
            Role::Client(session) => {
                if is_first_of_step {
                    let timers = &mut self.failure_detector;
                    timers.reset_timer(&session, TimerType::Client, step.now);
                }
                self.process_client_message(conn, &session, msg, others, step)
            }
            Role::Peer(node_id) => {
                return (1, self.process_peer_message(conn, &node_id, msg, step));
            }
        };
        // What hinders the first may not hinder the others: each is told.
        let count = if done.is_ok() { 1 + others.len() } else { 1 };
        (count, self.conclude(conn, done, step))
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
