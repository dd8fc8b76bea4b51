//! Sessions come and go: on this server, on others, from one to another.
//!
//! ```text
//!   connection lost ──▶ away ──┬── back within the grace time, anywhere ──▶ no news
//!                              └── not back ──▶ left: members are told
//!   CLIENT_LEAVE ───────────────────────────▶ left at once
//! ```
//!
//! What a server does with its sessions it announces to all others ([`super::presence`] keeps it).

use std::collections::BTreeMap;
use std::time::Duration;

use super::ServerNode;
use super::connections::WAIT_MAX;
use super::failure_detector::TimerType;
use super::presence::GRACE;
use super::step::Step;
use crate::domain::content::{Presence, SessionPresence};
use crate::domain::ids::name_fault;
use crate::domain::{Message, MessageType, NodeId};
use crate::error::RequestError;
use crate::network::ConnId;

/// How long a room is kept up here after a client last asked for it. Longer than a request waits: when it is looked at for
/// the last time the copy must be there still, or the client is told that it is not, instead of what it lacks.
const WANTED_MAX: Duration = WAIT_MAX.saturating_mul(2);

impl ServerNode {
    /// Tells the other servers what a session of this one does.
    pub(super) fn announce(
        &self,
        message_type: MessageType,
        session: &str,
        room_id: &str,
        step: &Step,
    ) {
        let Some(info) = self.presence.get(session) else { return };
        let away = info.away_since.is_some();
        let presence = Presence { session: session.into(), epoch: info.epoch, away };
        let msg = Message::new(message_type, info.user.as_str()).in_room(room_id).saying(&presence);
        step.cm.broadcast_to_all(&msg);
    }

    /// `session` is no longer in `room_id`, wherever it is: its members here are told.
    pub(super) fn left_room(&mut self, session: &str, room_id: &str, step: &Step) {
        let Some(user) = self.presence.get(session).map(|info| info.user.clone()) else { return };
        if self.presence.leave(session, room_id) {
            self.notify_members(MessageType::LeaveRoom, room_id, &user, session, step);
            self.reconcile_room(room_id, step);
        }
    }

    /// `session`, of this server or lost, has left for good: everyone is told.
    pub(super) fn session_left(&mut self, session: &str, step: &Step) {
        self.presence.set_present(session);
        self.announce(MessageType::ClientLeave, session, "", step);
        self.remove_session(session, step);
    }

    fn remove_session(&mut self, session: &str, step: &Step) {
        self.clients.swap_remove(session);
        self.end_replays(session, None);
        self.failure_detector.forget(session, TimerType::Client);
        let Some(info) = self.presence.remove(session) else { return };
        for room_id in &info.rooms {
            if let Some(room) = self.managed_rooms.get_mut(room_id) {
                room.remove_client(session);
            }
            self.notify_members(MessageType::LeaveRoom, room_id, &info.user, session, step);
            self.reconcile_room(room_id, step);
        }
    }

    /// The connection of a client ended. It may come back, here or elsewhere, before others are told.
    pub(super) fn client_gone(&mut self, session: &str, conn: ConnId, step: &Step) {
        if self.clients.get(session).is_none_or(|client| client.conn != conn) {
            return;
        }
        let Some(client) = self.clients.swap_remove(session) else { return };
        log::info!("{} disconnected", client.user);
        self.failure_detector.forget(session, TimerType::Client);
        self.presence.set_away(session, step.now);
        if let Some(ordered) = &mut self.ordered {
            ordered.forget_client(session);
        }
        self.announce(MessageType::ClientLeave, session, "", step);
        self.end_memberships(session);
    }

    /// `session` is a member of no room here any more; it may become one again.
    pub(super) fn end_memberships(&mut self, session: &str) {
        self.end_replays(session, None);
        let Some(info) = self.presence.get(session) else { return };
        for room_id in &info.rooms {
            if let Some(room) = self.managed_rooms.get_mut(room_id) {
                room.remove_client(session);
            }
        }
    }

    /// The session is connected elsewhere now: its connection here ends.
    pub(super) fn move_session(&mut self, session: &str, old: ConnId, node: &str, step: &Step) {
        self.end_memberships(session);
        self.clients.swap_remove(session);
        self.failure_detector.forget(session, TimerType::Client);
        self.refuse(old, &RequestError::SessionMoved { node: node.into() }, step);
    }

    /// A silent client is asked for a sign of life.
    pub(super) fn probe_client(&self, session: &str, step: &Step) {
        if let Some(client) = self.clients.get(session) {
            let beat = Message::new(MessageType::Heartbeat, self.server_id.as_str());
            step.cm.send_to_conn(client.conn, &beat.to_frame());
        }
    }

    /// A client did not give one.
    pub(super) fn client_failed(&mut self, session: &str, step: &Step) {
        let seconds = self.config.timing.detector.client_timeout.as_secs();
        if let Some(client) = self.clients.get(session) {
            self.refuse(client.conn, &RequestError::ClientTimeout { seconds }, step);
        }
    }

    /// Sessions that were away for too long have left; rooms that a resumed session did not enter again
    /// are not its own any more.
    pub(super) fn expire_presence(&mut self, step: &Step) {
        for session in self.presence.expired(step.now) {
            self.remove_session(&session, step);
        }
        let over = self.resumed.iter().filter(|(_, since)| step.now >= **since + GRACE);
        let over: Vec<String> = over.map(|(session, _)| session.clone()).collect();
        for session in over {
            self.resumed.remove(&session);
            if !self.clients.contains_key(&session) {
                continue;
            }
            for room_id in self.presence.rooms_of(&session) {
                let joins = self.is_replaying(&session, &room_id);
                if !joins && !self.is_member_here(&session, &room_id) {
                    self.announce(MessageType::LeaveRoom, &session, &room_id, step);
                    self.left_room(&session, &room_id, step);
                }
            }
        }
        let now = step.now;
        let over = self.wanted_rooms.iter().filter(|(_, at)| now >= **at + WANTED_MAX);
        let over: Vec<String> = over.map(|(room_id, _)| room_id.clone()).collect();
        for room_id in over {
            self.wanted_rooms.remove(&room_id);
            self.reconcile_room(&room_id, step);
        }
    }

    /// CLIENT_JOIN, CLIENT_LEAVE, JOIN_ROOM or LEAVE_ROOM of a session of `from`.
    pub(super) fn handle_presence(
        &mut self,
        from: &NodeId,
        msg: &Message,
        presence: &Presence,
        step: &Step,
    ) {
        let Presence { session, epoch, away } = presence;
        match msg.message_type {
            MessageType::ClientJoin => {
                self.joined_elsewhere(from, session, &msg.sender_id, *epoch, step);
            }
            MessageType::ClientLeave => {
                let known = self.presence.get(session);
                let stale = known.is_none_or(|info| info.epoch > *epoch);
                if stale || self.clients.contains_key(session) {
                    return;
                }
                if *away {
                    self.presence.set_away(session, step.now);
                } else {
                    self.remove_session(session, step);
                }
            }
            _ if self.presence.get(session).is_none_or(|info| info.node != *from) => {}
            MessageType::JoinRoom => self.entered_elsewhere(session, &msg.room_id, step),
            _ => self.left_room(session, &msg.room_id, step),
        }
    }

    /// A session is connected to `node` now: it is not here any more, and it may clash with a name here.
    fn joined_elsewhere(
        &mut self,
        node: &NodeId,
        session: &str,
        user: &str,
        epoch: u64,
        step: &Step,
    ) {
        if !self.presence.join(session, user, node, epoch) {
            return;
        }
        if let Some(client) = self.clients.get(session) {
            self.move_session(session, client.conn, node.as_str(), step);
        }
        let holder = self.presence.holder_of_name(user, session);
        let clash = holder.filter(|(_, info)| info.node == self.server_id);
        // The session on the server with the lower id keeps the name.
        if let Some((mine, _)) = clash.filter(|_| *node < self.server_id) {
            let mine = mine.to_string();
            if let Some(client) = self.clients.get(&mine) {
                let (message_id, name) = (String::new(), user.to_string());
                let error = RequestError::NameInUse { message_id, name, node: node.to_string() };
                let conn = client.conn;
                self.session_left(&mine, step);
                self.refuse(conn, &error, step);
            }
        }
    }

    fn entered_elsewhere(&mut self, session: &str, room_id: &str, step: &Step) {
        if name_fault(room_id).is_some() {
            return;
        }
        if self.presence.enter(session, room_id)
            && let Some(info) = self.presence.get(session)
        {
            let user = info.user.clone();
            self.notify_members(MessageType::JoinRoom, room_id, &user, session, step);
        }
        self.reconcile_room(room_id, step);
    }

    /// Everyone who is online at `from`: replaces what was known.
    pub(super) fn handle_presence_snapshot(
        &mut self,
        from: &NodeId,
        sessions: BTreeMap<String, SessionPresence>,
        step: &Step,
    ) {
        for session in self.presence.connected_to(from) {
            if !sessions.contains_key(&session) {
                self.presence.set_away(&session, step.now);
            }
        }
        for (session, told) in sessions {
            self.joined_elsewhere(from, &session, &told.user, told.epoch, step);
            if self.presence.get(&session).is_some_and(|info| info.node == *from) {
                for room_id in &told.rooms {
                    self.entered_elsewhere(&session, room_id, step);
                }
            }
        }
    }
}
