//! A server with one order for all: [`ServerNode`] above a [`TotalOrder`].
//!
//! ```text
//!   client ─CHAT─▶ Forwards ─▶ leader: Intake ─▶ TotalOrder::propose
//!   client ◀─CHAT─ members ◀── ReplicatedStorage ◀── TotalOrder::take_committed
//!   client ◀─ACK── whose message it was, on the connection that brought it
//! ```
//!
//! Every server has all rooms. A member is shown what is committed, in order, and its position is the place of the
//! last message that it was shown. Elections only nominate; the order says who leads.

use std::collections::BTreeMap;

use super::forwarding::{Forwards, Intake, Outgoing};
use super::replicated::{Applied, ReplicatedStorage};
use super::{Entry, Seq, TotalOrder};
use crate::domain::content::{JoinRoom, Joined, Position};
use crate::domain::{Content, Frame, Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::network::ConnId;
use crate::server::clients::{HISTORY_DEFAULT, invalid};
use crate::server::connections::{Hindrance, WAIT_MAX};
use crate::server::planted::{Planted, is_planted};
use crate::server::step::Step;
use crate::server::{ServerNode, ServerState};

/// Messages of one session that may wait for their acknowledgement: as many as are remembered of it.
const WAITING_MAX: usize = super::replicated::SESSION_IDS_MAX / 2;

/// What a server of the designs with one order has besides the parts of every server.
#[derive(Debug)]
pub struct Ordered {
    /// How messages get their places.
    pub order: Box<dyn TotalOrder>,
    /// What they say.
    pub storage: ReplicatedStorage,
    /// This server's clients' messages that are not committed yet.
    pub(in crate::server) forwards: Forwards,
    /// Leader: what the servers pass on.
    intake: Intake,
    /// Sessions that are still shown the past of a room: the next place of its history.
    pub(in crate::server) replays: BTreeMap<(String, String), usize>,
    /// The election's outcome that was acted upon last.
    nominated: Option<Term>,
}

impl Ordered {
    /// A server that keeps the order `order`, with nothing applied.
    pub fn new(order: Box<dyn TotalOrder>) -> Self {
        Self {
            order,
            storage: ReplicatedStorage::new(),
            forwards: Forwards::default(),
            intake: Intake::default(),
            replays: BTreeMap::new(),
            nominated: None,
        }
    }

    /// Leader: places `msg`, which `from` passed on. False when the order cannot take it now.
    fn place(&mut self, from: &NodeId, msg: &Message, step: &Step) -> bool {
        let Some((session, message_id)) = msg.duplicate_key() else { return true };
        if self.storage.contains(session, message_id) || !self.intake.place(msg) {
            return true;
        }
        let mut entry = msg.clone();
        (entry.seq, entry.term) = (None, None);
        entry.timestamp = Some(step.wall_ms.max(self.storage.log_time_ms()));
        if self.order.propose(entry, step).is_some() {
            return true;
        }
        self.intake.done(session, message_id);
        self.intake.refused(from);
        false
    }
}

impl ServerNode {
    /// A message between servers that is the business of the order, or of clients' messages on their way.
    pub(in crate::server) fn handle_ordered(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        let Some(ordered) = &mut self.ordered else { return Ok(()) };
        match msg.message_type {
            MessageType::Chat => self.handle_forwarded(from, msg, step),
            _ => return ordered.order.handle_message(from, msg, step),
        }
        Ok(())
    }

    /// A CHAT that `from` passes on to this server, the leader.
    fn handle_forwarded(&mut self, from: &NodeId, msg: &Message, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        if ordered.intake.takes(from, msg) && !ordered.place(from, msg, step) {
            let reason = "the leader cannot take more now".to_string();
            let error = RequestError::NotReady { message_id: msg.message_id.clone(), reason };
            step.cm.send_to_node(from, &error.to_message(self.server_id.as_str()));
        }
    }

    /// The leader could not place a message of this server's clients: all that wait are passed on again.
    pub(in crate::server) fn forward_again(&mut self) {
        if let Some(ordered) = &mut self.ordered {
            ordered.forwards.restart();
        }
    }

    /// A client's CHAT, checked: on to the leader. What was committed before is acknowledged at once.
    pub(in crate::server) fn publish_ordered(
        &mut self,
        session: &str,
        user: &str,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        let Some(conn) = self.clients.get(session).map(|client| client.conn) else { return Ok(()) };
        let Some(ordered) = &mut self.ordered else { return Ok(()) };
        if ordered.storage.contains(session, &msg.message_id) {
            self.ack_chat(conn, session, &msg.message_id, &msg.room_id, step);
            return Ok(());
        }
        if ordered.order.leader().is_none() {
            return Err(self.not_ready(msg, "nobody can give the message its place"));
        }
        if ordered.forwards.waiting_of(session) >= WAITING_MAX {
            return Err(self.not_ready(msg, "too many messages wait for their acknowledgement"));
        }
        let mut placed =
            Message::new(MessageType::Chat, user).with_id(&msg.message_id).in_room(&msg.room_id);
        placed.content = Content::Text(msg.content.text().into());
        placed.session = Some(session.into());
        ordered.forwards.push(session, Outgoing { conn, since: step.now, msg: placed });
        if is_planted(Planted::AckBeforeCommit) {
            self.ack_chat(conn, session, &msg.message_id, &msg.room_id, step);
        }
        Ok(())
    }

    /// The message is committed, and its sender was shown it, if it is a member.
    fn ack_chat(&self, conn: ConnId, session: &str, message_id: &str, room_id: &str, step: &Step) {
        let Some(ordered) = &self.ordered else { return };
        let mut ack = Message::new(MessageType::Ack, self.server_id.as_str())
            .with_id(message_id)
            .in_room(room_id);
        if self.is_member_here(session, room_id) {
            ack.position = Some(Position::Sequence(ordered.storage.applied()));
        }
        step.cm.send_to_conn(conn, &ack.to_frame());
    }

    /// JOIN_ROOM: waits until everything that the client has seen is committed here, too; then the client is a
    /// member, is told so, and is sent what it wants of the past.
    pub(in crate::server) fn join_ordered_room(
        &mut self,
        conn: ConnId,
        session: &str,
        msg: &Message,
        join: &JoinRoom,
        step: &Step,
    ) -> Result<(), Hindrance> {
        let room_id = &msg.room_id;
        self.past_must_be_shown(session, msg)?;
        let after = match join.after {
            None => None,
            Some(Position::Sequence(seq)) => Some(seq),
            Some(Position::Clock(_)) => {
                return Err(invalid(msg, "content.after is of another design").into());
            }
        };
        let Some(ordered) = &self.ordered else { return Ok(()) };
        let applied = ordered.storage.applied();
        if ordered.order.leader().is_none() {
            return Err(self.not_ready(msg, "what was said last cannot be known"));
        }
        let gap = after.filter(|after| *after > applied);
        if let Some(after) = gap.filter(|_| !join.accept_gap) {
            let missing = format!("{} to {after}", applied + 1);
            let message_id = msg.message_id.clone();
            return Err(Hindrance::Wait(RequestError::Behind { message_id, missing }));
        }
        let limit = join.history.unwrap_or(HISTORY_DEFAULT) as usize;
        let past = self.start_ordered_replay(session, room_id, limit, after);
        let newly = !self.is_member_here(session, room_id);
        let entered = self.presence.enter(session, room_id);
        let joined = Joined {
            history: u32::try_from(past).unwrap_or(u32::MAX),
            members: u32::try_from(self.presence.count_in(room_id)).unwrap_or(u32::MAX),
            gap: gap.map(Position::Sequence),
        };
        let mut ack = self.ack(msg).in_room(room_id).saying(&joined);
        ack.position = Some(Position::Sequence(self.place_before_replay(session, room_id)));
        step.cm.send_to_conn(conn, &ack.to_frame());
        self.tell_joined(session, room_id, newly, entered, step);
        Ok(())
    }

    /// Prepares the past of `room_id` for `session`: the last `limit` messages, or all after `after`. Returns how many.
    fn start_ordered_replay(
        &mut self,
        session: &str,
        room_id: &str,
        limit: usize,
        after: Option<Seq>,
    ) -> usize {
        self.create_room(room_id).remove_client(session);
        let Some(ordered) = &mut self.ordered else { return 0 };
        let past = ordered.storage.messages(room_id);
        let first = match after {
            Some(after) => past.partition_point(|entry| entry.seq <= Some(after)),
            None => past.len().saturating_sub(limit),
        };
        let count = past.len() - first;
        ordered.replays.insert((session.into(), room_id.into()), first);
        count
    }

    /// The position of `session` before it is sent the past: just before the first message of it.
    fn place_before_replay(&self, session: &str, room_id: &str) -> Seq {
        let Some(ordered) = &self.ordered else { return 0 };
        let next = ordered.replays.get(&(session.to_string(), room_id.to_string()));
        let first = next.and_then(|next| ordered.storage.messages(room_id).get(*next));
        match first.and_then(|entry| entry.seq) {
            Some(seq) => seq - 1,
            None => ordered.storage.applied(),
        }
    }

    /// What a batch of steps owes: the order's own messages, what is committed, what waits for the leader.
    pub(in crate::server) fn settle_ordered(&mut self, step: &Step) {
        self.nominate_when_elected(step);
        self.pass_on(step);
        let Some(ordered) = &mut self.ordered else { return };
        ordered.order.settle(step);
        let committed = ordered.order.take_committed();
        self.progress |= !committed.is_empty();
        for entry in committed {
            self.apply_entry(&entry, step);
        }
        self.pump_ordered_replays(step);
        self.follow_order(step);
    }

    /// One committed entry: shown to the members here, then acknowledged.
    fn apply_entry(&mut self, entry: &Entry, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        let applied = ordered.storage.apply(entry);
        let Some((session, message_id)) = entry.duplicate_key() else { return };
        ordered.intake.done(session, message_id);
        let outgoing = ordered.forwards.done(session, message_id);
        if applied == Applied::Stored {
            self.create_room(&entry.room_id);
            if let Some(room) = self.managed_rooms.get(&entry.room_id) {
                let members = room.client_ids.iter();
                let mut members = members.filter_map(|id| self.clients.get(id)).peekable();
                if members.peek().is_some() {
                    let frame = shown(entry);
                    for client in members {
                        step.cm.send_to_conn(client.conn, &frame);
                    }
                }
            }
        }
        let client = self.clients.get(session).map(|client| client.conn);
        if let Some(outgoing) = outgoing
            && (client == Some(outgoing.conn) || is_planted(Planted::AckOnAnyConnection))
        {
            let conn = client.unwrap_or(outgoing.conn);
            self.ack_chat(conn, session, message_id, &entry.room_id, step);
        }
    }

    /// Passes clients' messages on to the leader, itself perhaps.
    fn pass_on(&mut self, step: &Step) {
        let me = self.server_id.clone();
        let Some(ordered) = &mut self.ordered else { return };
        let term = ordered.order.term().cloned();
        let leader = ordered.order.leader();
        ordered.intake.lead(term.clone().filter(|_| leader.as_ref() == Some(&me)));
        ordered.forwards.aim(leader.zip(term));
        let Some((leader, messages)) = ordered.forwards.due() else { return };
        for msg in messages {
            if leader != me {
                step.cm.send_to_node(&leader, &msg);
            } else if ordered.intake.takes(&me, &msg) && !ordered.place(&me, &msg, step) {
                ordered.forwards.restart();
                break;
            }
        }
    }

    fn pump_ordered_replays(&mut self, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        for ((session, room_id), next) in std::mem::take(&mut ordered.replays) {
            let Some(client) = self.clients.get(&session) else { continue };
            let Some(ordered) = &mut self.ordered else { return };
            let past = ordered.storage.messages(&room_id);
            let mut spare = step.cm.spare_bytes(client.conn);
            let mut next = next;
            while next < past.len() && spare > 0 {
                let frame = shown(&past[next]);
                spare = spare.saturating_sub(frame.len());
                step.cm.send_to_conn(client.conn, &frame);
                next += 1;
            }
            if next < past.len() {
                ordered.replays.insert((session, room_id), next);
                continue;
            }
            // The session's own messages may have waited for this.
            step.cm.resume(client.conn);
            self.create_room(&room_id).add_client(&session);
        }
    }

    /// Holds an election when the order wants one.
    pub(in crate::server) fn check_order(&mut self, step: &Step) {
        self.check_ready(step);
        let may_elect = self.may_elect(step);
        let Some(ordered) = &mut self.ordered else { return };
        ordered.order.tick(step);
        let late: Vec<ConnId> = step
            .now
            .checked_sub(WAIT_MAX)
            .map(|since| ordered.forwards.waiting_since(since).into_iter().collect())
            .unwrap_or_default();
        let due = may_elect
            && ordered.order.wants_election(step.now)
            && self.election_module.state() != ServerState::ElectionInProgress;
        if due {
            log::info!("stands for election");
            self.election_module.start_election(step.now, step.cm);
        }
        for conn in late {
            let reason = "the message has no place yet: no majority can be reached".to_string();
            let error = RequestError::NotReady { message_id: String::new(), reason };
            self.refuse(conn, &error, step);
        }
    }

    /// An election that this server won is a nomination: the order asks for promises.
    fn nominate_when_elected(&mut self, step: &Step) {
        let outcome = self.election_module.term().cloned();
        let won = self.election_module.leader().as_ref() == Some(&self.server_id);
        let Some(ordered) = &mut self.ordered else { return };
        if outcome != ordered.nominated {
            ordered.nominated = outcome;
            if won && ordered.order.wants_election(step.now) {
                ordered.order.nominate(step);
            }
        }
    }

    /// Tells whoever waits that another leader is followed.
    fn follow_order(&mut self, step: &Step) {
        let Some(ordered) = &self.ordered else { return };
        let now = (ordered.order.term().cloned(), ordered.order.leader());
        if now == self.acted_term {
            return;
        }
        if let (Some(term), Some(leader)) = &now {
            let who = if *leader == self.server_id { "this server" } else { leader.as_str() };
            log::info!("{who} leads in term {}", term.counter);
        }
        self.acted_term = now;
        self.watch_near_servers(step);
        self.check_ready(step);
        self.progress = true;
        // Messages that waited for a leader.
        self.pass_on(step);
        if let Some(ordered) = &mut self.ordered {
            ordered.order.settle(step);
        }
    }
}

/// A message as members see it: without the session and the term, with the position after it.
fn shown(entry: &Message) -> Frame {
    let mut shown = Message::new(MessageType::Chat, entry.sender_id.as_str())
        .with_id(entry.message_id.as_str())
        .in_room(entry.room_id.as_str());
    shown.content = entry.content.clone();
    shown.timestamp = entry.timestamp;
    shown.seq = entry.seq;
    shown.position = entry.seq.map(Position::Sequence);
    shown.to_frame()
}
