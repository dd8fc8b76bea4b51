//! What clients ask: CLIENT_JOIN, JOIN_ROOM, LEAVE_ROOM, CHAT.
//!
//! A request that cannot be done yet (no leader, the room's past is not here) changes nothing and is handed
//! in again later; so each handler checks everything first and acts last.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ServerNode;
use super::connections::{Hindrance, LocalClient, Role};
use super::failure_detector::TimerType;
use super::peers::parse;
use super::step::Step;
use crate::domain::content::{ClientJoin, JoinRoom, Joined, Position, Welcome};
use crate::domain::ids::name_fault;
use crate::domain::{Chat, Message, MessageType, NodeId, VectorClock};
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
        let join: ClientJoin = parse(msg)?;
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
        let token = self.admit(conn, msg, &join, step)?;
        self.drop_session_away_under(user, session, step);
        let known = self.presence.get(session);
        if known.is_some_and(|info| info.user != user) {
            return Err(invalid(msg, "this session belongs to another user name").into());
        }
        if let Some(later) = known.filter(|info| info.is_after(join.connection)) {
            // Given up by the client long ago; this server slept, or the network was slow.
            return Err(RequestError::SessionMoved { node: later.node.to_string() }.into());
        }
        let epoch = known.map_or(1, |info| info.epoch + 1).max(join.connection.unwrap_or(0));
        // Rooms that it was in before are its own again only if it joins them soon.
        match known {
            Some(_) => drop(self.resumed.insert(session.into(), step.now)),
            None => drop(self.resumed.remove(session)),
        }
        if let Some(old) = self.clients.get(session).map(|client| client.conn) {
            self.move_session(session, old, "another connection", step);
        }
        self.presence.join(session, user, &self.server_id.clone(), epoch);
        log::info!("{user} connected");
        let client = LocalClient { conn, user: user.into(), gaps: BTreeMap::new() };
        self.clients.insert(session.into(), client);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.role = Role::Client(session.into());
        }
        step.cm.bind_client(conn, session);
        self.failure_detector.reset_timer(session, TimerType::Client, step.now);
        self.announce(MessageType::ClientJoin, session, "", step);
        let welcome = Welcome {
            cluster: self.config.cluster.clone(),
            design: self.config.design.clone(),
            servers: self.live_addresses(),
            log_time: self.note_welcome(session, join.since),
            token,
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
        session: &Arc<str>,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
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
            MessageType::Delete => self.handle_delete(session, msg, step)?,
            MessageType::History if self.ordered.is_none() => {
                return Err(self.unsupported(msg, "history since a time").into());
            }
            MessageType::History => self.answer_history(conn, msg, step)?,
            MessageType::Stats if self.ordered.is_none() => {
                return Err(self.unsupported(msg, "statistics").into());
            }
            MessageType::Stats => self.answer_stats(conn, msg, step),
            MessageType::Discovery => self.answer_discovery(conn, msg, step),
            // One without an id is an answer itself.
            MessageType::Heartbeat if msg.message_id.is_empty() => {}
            MessageType::Heartbeat => step.cm.send_to_conn(conn, &self.ack(msg).to_frame()),
            message_type => {
                let message_id = msg.message_id.clone();
                return Err(RequestError::UnexpectedType { message_id, message_type }.into());
            }
        }
        Ok(())
    }

    /// CHAT: checked, then stamped and spread.
    fn handle_chat(
        &mut self,
        session: &Arc<str>,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        let Some(chat) = Chat::of(msg) else {
            let field = if msg.message_id.is_empty() { "message_id" } else { "content" };
            return Err(missing(msg, field).into());
        };
        self.may_say(session, &chat, step)?;
        if self.ordered.is_some() {
            let client = self.clients.get(&**session);
            let Some(user) = client.map(|client| client.user.clone()) else { return Ok(()) };
            return self.publish_ordered(session, &user, msg, step);
        }
        self.publish(session, chat.room_id, std::iter::once(chat), step);
        Ok(())
    }

    /// Whether `session` may say something in the room of `chat` now, as `chat` or others.
    pub(super) fn may_say(
        &mut self,
        session: &Arc<str>,
        chat: &Chat,
        step: &Step,
    ) -> Result<(), Hindrance> {
        if self.is_replaying(session, chat.room_id) {
            self.past_must_be_shown(session, &chat.to_message())?;
        }
        if !self.is_member_here(session, chat.room_id) {
            check_name(&chat.to_message(), "room name", chat.room_id)?;
            let (message_id, room_id) = (chat.message_id.into(), chat.room_id.into());
            return Err(RequestError::NotAMember { message_id, room_id }.into());
        }
        if let Some(reason) = step.log.fault() {
            let message_id = chat.message_id.into();
            return Err(RequestError::StorageFull { message_id, reason }.into());
        }
        if self.causal_multicast_handler.owed_acks(chat.room_id) >= OUTSTANDING_MAX {
            let reason = "too many messages wait for their acknowledgement";
            return Err(self.not_ready(&chat.to_message(), reason));
        }
        Ok(())
    }

    /// DELETE: checked, then put into the order.
    fn handle_delete(
        &mut self,
        session: &str,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        if self.ordered.is_none() {
            return Err(self.unsupported(msg, "deletion of messages").into());
        }
        if msg.message_id.is_empty() {
            return Err(missing(msg, "message_id").into());
        }
        check_name(msg, "room name", &msg.room_id)?;
        self.past_must_be_shown(session, msg)?;
        if !self.is_member_here(session, &msg.room_id) {
            let (message_id, room_id) = (msg.message_id.clone(), msg.room_id.clone());
            return Err(RequestError::NotAMember { message_id, room_id }.into());
        }
        let Some(user) = self.clients.get(session).map(|client| client.user.clone()) else {
            return Ok(());
        };
        self.delete_ordered(session, &user, msg, step)
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
        let join: JoinRoom = parse(msg)?;
        let room_id = &msg.room_id;
        check_name(msg, "room name", room_id)?;
        if self.ordered.is_some() {
            return self.join_ordered_room(conn, session, msg, &join, step);
        }
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
        if gap.is_some() {
            self.open_gap(session, room_id, after);
        }
        let past = self.start_replay(session, room_id, limit, after);
        let joined = Joined {
            starts: None,
            history: u32::try_from(past).unwrap_or(u32::MAX),
            members: u32::try_from(self.presence.count_in(room_id)).unwrap_or(u32::MAX),
            gap: gap.map(Position::Clock),
        };
        let mut ack = self.ack(msg).in_room(room_id).saying(&joined);
        ack.position = self.position_of(session, room_id).map(Position::Clock);
        step.cm.send_to_conn(conn, &ack.to_frame());
        self.tell_joined(session, room_id, newly, entered, step);
        Ok(())
    }

    /// Tells the other servers that `session` is `newly` a member here, and the members here that it has `entered`.
    pub(super) fn tell_joined(
        &self,
        session: &str,
        room_id: &str,
        newly: bool,
        entered: bool,
        step: &Step,
    ) {
        if newly {
            self.announce(MessageType::JoinRoom, session, room_id, step);
        }
        if entered && let Some(client) = self.clients.get(session) {
            self.notify_members(MessageType::JoinRoom, room_id, &client.user, session, step);
        }
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
            // What was asked a moment ago may have been asked by a copy that nobody wanted.
            self.sync_requests.retain(|(_, asked), _| asked != room_id);
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

    pub(super) fn is_member_here(&self, session: &str, room_id: &str) -> bool {
        let room = self.managed_rooms.get(room_id);
        room.is_some_and(|room| room.has_client(session))
    }

    /// Waits until the client has been sent the past of the room that it is joining. It may take its time
    /// to read that.
    pub(super) fn past_must_be_shown(
        &mut self,
        session: &str,
        msg: &Message,
    ) -> Result<(), Hindrance> {
        if !self.is_replaying(session, &msg.room_id) {
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
        if let Some(client) = self.clients.get_mut(session) {
            client.gaps.remove(&msg.room_id);
        }
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

    pub(super) fn ack(&self, msg: &Message) -> Message {
        Message::new(MessageType::Ack, self.server_id.as_str()).with_id(&msg.message_id)
    }

    /// The design of this cluster does not have `what`.
    pub(super) fn unsupported(&self, msg: &Message, what: &'static str) -> RequestError {
        let (message_id, design) = (msg.message_id.clone(), self.config.design.clone());
        RequestError::Unsupported { message_id, what, design }
    }

    pub(super) fn not_ready(&self, msg: &Message, reason: &str) -> Hindrance {
        let waits_for =
            || self.ordered.as_ref().and_then(|ordered| ordered.order.status().waits_for);
        let leader = match self.leader_id() {
            Some(_) => String::new(),
            None => waits_for()
                .map_or_else(|| ", and no leader is elected".into(), |text| format!(": {text}")),
        };
        Hindrance::Wait(RequestError::NotReady {
            message_id: msg.message_id.clone(),
            reason: format!("{reason}{leader}"),
        })
    }
}

fn missing(msg: &Message, field: &'static str) -> RequestError {
    RequestError::MissingField { message_id: msg.message_id.clone(), field }
}

pub(super) fn invalid(msg: &Message, reason: &str) -> RequestError {
    RequestError::InvalidField { message_id: msg.message_id.clone(), reason: reason.into() }
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
