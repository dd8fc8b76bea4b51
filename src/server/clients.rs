//! What clients ask: CLIENT_JOIN, JOIN_ROOM, LEAVE_ROOM, CHAT, and the ends of their connections.
//!
//! A request that cannot be done yet (no leader, the room's past is not here) changes nothing and is handed
//! in again later; so each handler checks everything first and acts last.

use std::collections::BTreeMap;

use super::ServerNode;
use super::failure_detector::TimerType;
use super::presence::GRACE;
use super::server_node::{Hindrance, LocalClient, Role};
use super::step::Step;
use crate::domain::content::{
    ClientJoin, JoinRoom, Joined, Position, Presence, SessionPresence, Welcome,
};
use crate::domain::ids::name_fault;
use crate::domain::{Content, Message, MessageType, NodeId, VectorClock};
use crate::error::RequestError;
use crate::network::ConnId;

/// Messages that a joining client is sent when it does not say how many.
pub(super) const HISTORY_DEFAULT: u32 = 50;
/// Unacknowledged messages of one room here; above it clients are read no further.
pub(super) const OUTSTANDING_MAX: usize = 100_000;

impl ServerNode {
    /// CLIENT_JOIN on a new connection.
    pub(super) fn handle_client_join(
        &mut self,
        conn: ConnId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        let join: ClientJoin = content_of(msg, "session")?;
        check_name(msg, "user name", &msg.sender_id)?;
        check_name(msg, "session", &join.session)?;
        if !self.ready {
            return Err(self.not_ready(msg, "the server is starting"));
        }
        let (session, user) = (join.session.as_str(), msg.sender_id.as_str());
        if let Some((_, info)) = self.presence.holder_of_name(user, session) {
            return Err(Hindrance::Refuse(RequestError::NameInUse {
                message_id: msg.message_id.clone(),
                name: user.into(),
                node: info.node.to_string(),
            }));
        }
        self.drop_session_away_under(user, session, step);
        let known = self.presence.get(session);
        if known.is_some_and(|info| info.user != user) {
            return Err(invalid(msg, "this session belongs to another user name").into());
        }
        let epoch = known.map_or(1, |info| info.epoch + 1);
        let resuming = known.is_some();
        if let Some(old) = self.clients.get(session).map(|client| client.conn) {
            self.move_session(session, old, "another connection", step);
        }
        self.presence.join(session, user, &self.server_id.clone(), epoch);
        let client = LocalClient { conn, user: user.into(), since: step.now, resuming };
        self.clients.insert(session.into(), client);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.role = Role::Client(session.into());
        }
        step.cm.bind_client(conn, session);
        self.failure_detector.reset_timer(session, TimerType::Client, step.now);
        self.announce(MessageType::ClientJoin, session, "", step);
        log::info!("{user} connected");
        let welcome = Welcome {
            cluster: self.config.cluster.clone(),
            design: self.config.design.clone(),
            servers: self.live_addresses(),
        };
        step.cm.send_to_conn(conn, &self.ack(msg).saying(&welcome).to_frame());
        Ok(())
    }

    /// Another session of the same user whose connection was lost makes way for the new one.
    fn drop_session_away_under(&mut self, user: &str, session: &str, step: &Step) {
        while let Some(away) = self.presence.away_session_of(user, session) {
            self.session_left(&away, step);
        }
    }

    /// A message of a client that has joined.
    pub(super) fn process_client_message(
        &mut self,
        conn: ConnId,
        session: &str,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        self.failure_detector.reset_timer(session, TimerType::Client, step.now);
        match msg.message_type {
            MessageType::Chat => self.handle_chat(session, msg, step)?,
            MessageType::JoinRoom => self.handle_join_room(conn, session, msg, step)?,
            MessageType::LeaveRoom => self.handle_leave_room(conn, session, msg, step)?,
            MessageType::ClientLeave => {
                step.cm.send_to_conn(conn, &self.ack(msg).to_frame());
                self.session_left(session, step);
                self.close(conn, "the client left", step);
            }
            MessageType::Status => self.answer_status(conn, msg, step),
            MessageType::Discovery => self.answer_discovery(conn, msg, step),
            MessageType::Heartbeat => {}
            message_type => {
                let message_id = msg.message_id.clone();
                return Err(RequestError::UnexpectedType { message_id, message_type }.into());
            }
        }
        Ok(())
    }

    /// CHAT: checked, then stamped and spread.
    fn handle_chat(&mut self, session: &str, msg: &Message, step: &Step) -> Result<(), Hindrance> {
        if msg.message_id.is_empty() {
            return Err(missing(msg, "message_id").into());
        }
        if !matches!(msg.content, Content::Text(_)) {
            return Err(missing(msg, "content").into());
        }
        check_name(msg, "room name", &msg.room_id)?;
        self.past_must_be_shown(session, msg)?;
        if !self.is_member_here(session, &msg.room_id) {
            let (message_id, room_id) = (msg.message_id.clone(), msg.room_id.clone());
            return Err(RequestError::NotAMember { message_id, room_id }.into());
        }
        if let Some(reason) = step.log.fault() {
            let message_id = msg.message_id.clone();
            return Err(RequestError::StorageFull { message_id, reason }.into());
        }
        if self.causal_multicast_handler.owed_acks(&msg.room_id) >= OUTSTANDING_MAX {
            return Err(self.not_ready(msg, "too many messages wait for their acknowledgement"));
        }
        let Some(user) = self.clients.get(session).map(|client| client.user.clone()) else {
            return Ok(());
        };
        self.publish(session, &user, msg, step);
        Ok(())
    }

    /// JOIN_ROOM: waits until the room has a host and its past is here, then the client is a member, is
    /// told so, and is sent what it wants of the past.
    pub(super) fn handle_join_room(
        &mut self,
        conn: ConnId,
        session: &str,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        let join: JoinRoom = content_of(msg, "content")?;
        let room_id = &msg.room_id;
        check_name(msg, "room name", room_id)?;
        self.room_must_be_here(msg, step)?;
        self.past_must_be_shown(session, msg)?;
        let after = match &join.after {
            None => None,
            Some(Position::Clock(clock)) => Some(clock),
            Some(Position::Sequence(_)) => {
                return Err(invalid(msg, "content.after is of another design").into());
            }
        };
        let gap = self.gap_to(msg, after, join.accept_gap, step)?;

        self.wanted_rooms.remove(room_id);
        let newly = !self.is_member_here(session, room_id);
        let entered = self.presence.enter(session, room_id);
        self.reconcile_room(room_id, step);
        let limit = match after {
            Some(_) => usize::MAX,
            None => join.history.unwrap_or(HISTORY_DEFAULT) as usize,
        };
        let past = self.start_replay(session, room_id, limit, after);
        let joined = Joined {
            history: u32::try_from(past).unwrap_or(u32::MAX),
            members: u32::try_from(self.presence.count_in(room_id)).unwrap_or(u32::MAX),
            gap: gap.map(Position::Clock),
        };
        let mut ack = self.ack(msg).in_room(room_id).saying(&joined);
        ack.position = self.position_of(session, room_id).map(Position::Clock);
        step.cm.send_to_conn(conn, &ack.to_frame());
        if newly {
            self.announce(MessageType::JoinRoom, session, room_id, step);
        }
        if entered && let Some(client) = self.clients.get(session) {
            let user = client.user.clone();
            self.notify_members(MessageType::JoinRoom, room_id, &user, session, step);
        }
        Ok(())
    }

    /// Waits until `msg.room_id` has a live host and this server's copy was compared with another's.
    fn room_must_be_here(&mut self, msg: &Message, step: &Step) -> Result<(), Hindrance> {
        let room_id = &msg.room_id;
        let host = self.metadata_store.host(room_id).cloned();
        let hosted = host.as_ref().is_some_and(|host| {
            *host == self.server_id
                || self.servers.get(host).is_some_and(super::ring::ServerInfo::is_live)
        });
        if !hosted {
            self.request_room(room_id, step);
            if self.metadata_store.host(room_id).is_none() {
                return Err(self.not_ready(msg, "the room has no host yet"));
            }
        }
        if self.wanted_rooms.insert(room_id.clone(), step.now).is_none() {
            self.reconcile_room(room_id, step);
        }
        self.check_caught_up(room_id, step);
        let replication = self.causal_multicast_handler.replication(room_id);
        if replication.caught_up {
            return Ok(());
        }
        let others: Vec<NodeId> = replication.replicas.iter().cloned().collect();
        for node_id in others {
            self.ask_for_missing(&node_id, room_id, step);
        }
        Err(self.not_ready(msg, "the room's messages are not here yet"))
    }

    fn is_member_here(&self, session: &str, room_id: &str) -> bool {
        let room = self.managed_rooms.get(room_id);
        room.is_some_and(|room| room.client_ids.iter().any(|id| id == session))
    }

    /// Waits until the client has been sent the past of the room that it is joining. It may take its time
    /// to read that.
    fn past_must_be_shown(&mut self, session: &str, msg: &Message) -> Result<(), Hindrance> {
        if self.replays.is_empty() || !self.is_replaying(session, &msg.room_id) {
            return Ok(());
        }
        let conn = self.clients.get(session).map(|client| client.conn);
        if let Some(conn) = conn.and_then(|conn| self.conns.get_mut(&conn)) {
            conn.waiting = None;
        }
        Err(self.not_ready(msg, "the room's past is still being sent"))
    }

    /// Waits until everything that the client has seen can be shown here. With `accept_gap` it returns
    /// what cannot instead.
    fn gap_to(
        &mut self,
        msg: &Message,
        after: Option<&VectorClock>,
        accept_gap: bool,
        step: &Step,
    ) -> Result<Option<VectorClock>, Hindrance> {
        let Some(after) = after else { return Ok(None) };
        let live = self.live_others();
        let replication = self.causal_multicast_handler.replication(&msg.room_id);
        let missing = after.beyond(&replication.shown_clock);
        if missing.is_empty() {
            return Ok(None);
        }
        if accept_gap {
            return Ok(Some(missing));
        }
        for node_id in live {
            self.ask_for_missing(&node_id, &msg.room_id, step);
        }
        let message_id = msg.message_id.clone();
        Err(Hindrance::Wait(RequestError::Behind { message_id, missing: missing.to_string() }))
    }

    /// LEAVE_ROOM.
    fn handle_leave_room(
        &mut self,
        conn: ConnId,
        session: &str,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        check_name(msg, "room name", &msg.room_id)?;
        let replayed = self.is_replaying(session, &msg.room_id);
        self.end_replays(session, Some(&msg.room_id));
        let room = self.managed_rooms.get_mut(&msg.room_id);
        if !room.is_some_and(|room| room.remove_client(session)) && !replayed {
            let (message_id, room_id) = (msg.message_id.clone(), msg.room_id.clone());
            return Err(RequestError::NotAMember { message_id, room_id }.into());
        }
        step.cm.send_to_conn(conn, &self.ack(msg).in_room(&msg.room_id).to_frame());
        self.announce(MessageType::LeaveRoom, session, &msg.room_id, step);
        self.left_room(session, &msg.room_id, step);
        Ok(())
    }

    fn ack(&self, msg: &Message) -> Message {
        Message::new(MessageType::Ack, self.server_id.as_str()).with_id(&msg.message_id)
    }

    fn not_ready(&self, msg: &Message, reason: &str) -> Hindrance {
        let leader = match self.leader_id() {
            Some(_) => "",
            None => ", and no leader is elected",
        };
        Hindrance::Wait(RequestError::NotReady {
            message_id: msg.message_id.clone(),
            reason: format!("{reason}{leader}"),
        })
    }

    // ------------------------------------------------------------ comings and goings

    /// Tells the other servers what a session of this one does.
    fn announce(&self, message_type: MessageType, session: &str, room_id: &str, step: &Step) {
        let Some(info) = self.presence.get(session) else { return };
        let away = info.away_since.is_some();
        let presence = Presence { session: session.into(), epoch: info.epoch, away };
        let msg = Message::new(message_type, info.user.as_str()).in_room(room_id).saying(&presence);
        step.cm.broadcast_to_all(&msg);
    }

    /// `session` is no longer in `room_id`, wherever it is: its members here are told.
    fn left_room(&mut self, session: &str, room_id: &str, step: &Step) {
        let Some(user) = self.presence.get(session).map(|info| info.user.clone()) else { return };
        if self.presence.leave(session, room_id) {
            self.notify_members(MessageType::LeaveRoom, room_id, &user, session, step);
            self.reconcile_room(room_id, step);
        }
    }

    /// `session`, of this server or lost, has left for good: everyone is told.
    fn session_left(&mut self, session: &str, step: &Step) {
        self.presence.set_present(session);
        self.announce(MessageType::ClientLeave, session, "", step);
        self.remove_session(session, step);
    }

    fn remove_session(&mut self, session: &str, step: &Step) {
        self.clients.remove(session);
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
        let Some(client) = self.clients.remove(session) else { return };
        log::info!("{} disconnected", client.user);
        self.failure_detector.forget(session, TimerType::Client);
        self.presence.set_away(session, step.now);
        self.announce(MessageType::ClientLeave, session, "", step);
        self.end_memberships(session);
    }

    /// `session` is a member of no room here any more; it may become one again.
    fn end_memberships(&mut self, session: &str) {
        self.end_replays(session, None);
        let Some(info) = self.presence.get(session) else { return };
        for room_id in &info.rooms {
            if let Some(room) = self.managed_rooms.get_mut(room_id) {
                room.remove_client(session);
            }
        }
    }

    /// The session is connected elsewhere now: its connection here ends.
    fn move_session(&mut self, session: &str, old: ConnId, node: &str, step: &Step) {
        self.end_memberships(session);
        self.clients.remove(session);
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
        let resumed = self.clients.iter_mut().filter(|(_, client)| client.resuming);
        let over = resumed.filter(|(_, client)| step.now >= client.since + GRACE);
        let over: Vec<String> = over
            .map(|(session, client)| {
                client.resuming = false;
                session.clone()
            })
            .collect();
        for session in over {
            for room_id in self.presence.rooms_of(&session) {
                let joins = self.is_replaying(&session, &room_id);
                if !joins && !self.is_member_here(&session, &room_id) {
                    self.announce(MessageType::LeaveRoom, &session, &room_id, step);
                    self.left_room(&session, &room_id, step);
                }
            }
        }
        let now = step.now;
        self.wanted_rooms.retain(|_, at| now < *at + super::server_node::WAIT_MAX);
    }

    // ------------------------------------------------------------ other servers' sessions

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
                if known.is_none_or(|info| info.epoch > *epoch || info.node == self.server_id) {
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

fn missing(msg: &Message, field: &'static str) -> RequestError {
    RequestError::MissingField { message_id: msg.message_id.clone(), field }
}

fn invalid(msg: &Message, reason: &str) -> RequestError {
    RequestError::InvalidField { message_id: msg.message_id.clone(), reason: reason.into() }
}

/// The typed content of a request; `field` is what an empty one lacks.
fn content_of<T: serde::de::DeserializeOwned>(
    msg: &Message,
    field: &'static str,
) -> Result<T, RequestError> {
    super::peers::parse(msg).map_err(|error| match msg.content {
        Content::Empty => missing(msg, field),
        _ => error,
    })
}

fn check_name(msg: &Message, what: &'static str, name: &str) -> Result<(), RequestError> {
    if name.is_empty() {
        let field = match what {
            "user name" => "sender_id",
            "room name" => "room_id",
            _ => "session",
        };
        return Err(missing(msg, field));
    }
    name_fault(name).map_or(Ok(()), |fault| {
        let message_id = msg.message_id.clone();
        Err(RequestError::InvalidName { message_id, what, fault })
    })
}
