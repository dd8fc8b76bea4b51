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
use std::time::{Duration, Instant};

use super::compaction::{NoSnapshotBefore, Owed, SnapshotCounts};
use super::forwarding::{Forwards, Intake, Outgoing};
use super::history::{OrderedReplay, deleted, shown};
use super::logins::Logins;
use super::members::PassedOn;
use super::replicated::{Applied, Refusal, ReplicatedStorage};
use super::retention::Retention;
use super::{Entry, Seq, TotalOrder};
use crate::domain::content::{Deletion, Position};
use crate::domain::{Content, Frame, Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::network::ConnId;
use crate::server::connections::{Hindrance, WAIT_MAX};
use crate::server::peers::parse;
use crate::server::planted::{Planted, is_planted};
use crate::server::step::Step;
use crate::server::{ServerNode, ServerState};

/// Messages of one session that may wait for their acknowledgement: as many as are remembered of it.
const WAITING_MAX: usize = super::replicated::SESSION_IDS_MAX / 2;

/// How often silent sessions are looked for.
const RENEW_INTERVAL: Duration = Duration::from_secs(60);

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
    /// Sessions that are still shown the past of a room.
    pub(in crate::server) replays: BTreeMap<(String, String), OrderedReplay>,
    /// Passwords that are being checked.
    pub(super) logins: Logins,
    /// Since when the sessions here speak; see [`ClientJoin::since`](crate::domain::content::ClientJoin::since).
    pub(super) since: BTreeMap<String, u64>,
    /// When silent sessions are looked for next.
    renew_at: Option<Instant>,
    /// The election's outcome that was acted upon last.
    nominated: Option<Term>,
    /// Joins that wait until it is known how far to read: (session, room) to the question and its answer.
    reads: BTreeMap<(String, String), (u64, Option<Seq>)>,
    last_token: u64,
    /// What operators asked that the leader has to answer, by the connection that brought it.
    pub(super) passed_on: BTreeMap<ConnId, PassedOn>,
    /// Since when it waits for something that its operator should know.
    waits_since: Option<Instant>,
    /// When that was logged last.
    wait_told: Option<Instant>,
    /// Answers to messages that their senders have yet to be shown.
    pub(super) owed: Vec<Owed>,
    /// The place that the log was compacted up to, or would have been.
    pub(super) compacted: Seq,
    /// How many messages there were then.
    pub(super) messages_then: u64,
    /// The place of the snapshot that is being made here, and how many messages are in it.
    pub(super) making: Option<(Seq, u64)>,
    /// The disk had no room for the last snapshot: not before this moment again.
    pub(super) no_snapshot_before: NoSnapshotBefore,
    /// How often snapshots were of use.
    pub(in crate::server) snapshots: SnapshotCounts,
    /// What is known of what was forgotten.
    pub(super) retention: Retention,
    /// Whether this life of the server has taken over what it recovered.
    pub(super) has_begun: bool,
}

/// What lasts shorter than this is no news: servers start one after the other.
const WAIT_TOLD_AFTER: Duration = Duration::from_secs(2);

/// How often it is told.
const WAIT_TOLD_EVERY: Duration = Duration::from_secs(5);

impl Ordered {
    /// A server that keeps the order `order`, with nothing applied.
    pub fn new(order: Box<dyn TotalOrder>) -> Self {
        Self {
            order,
            storage: ReplicatedStorage::new(),
            forwards: Forwards::default(),
            intake: Intake::default(),
            replays: BTreeMap::new(),
            logins: Logins::default(),
            since: BTreeMap::new(),
            renew_at: None,
            nominated: None,
            reads: BTreeMap::new(),
            last_token: 0,
            passed_on: BTreeMap::new(),
            owed: Vec::new(),
            compacted: 0,
            messages_then: 0,
            making: None,
            no_snapshot_before: NoSnapshotBefore::default(),
            snapshots: SnapshotCounts::default(),
            retention: Retention::default(),
            has_begun: false,
            waits_since: None,
            wait_told: None,
        }
    }

    /// Logs every few seconds what is missing, while something is.
    fn tell_what_is_missing(&mut self, now: Instant) {
        let Some(missing) = self.order.status().waits_for else {
            self.waits_since = None;
            if self.wait_told.take().is_some() {
                log::info!("what was missing is there");
            }
            return;
        };
        let since = *self.waits_since.get_or_insert(now);
        let told = self.wait_told.is_some_and(|at| now < at + WAIT_TOLD_EVERY);
        if now >= since + WAIT_TOLD_AFTER && !told {
            self.wait_told = Some(now);
            log::warn!("{missing}");
        }
    }

    /// Whether a read by `session` in `room_id` may be answered: all that was committed when it was asked for first is
    /// applied. Asks, and remembers, when that is not known.
    pub(super) fn may_read(&mut self, session: &str, room_id: &str, step: &Step) -> bool {
        let key = (session.to_string(), room_id.to_string());
        match self.reads.get(&key) {
            Some((_, Some(index))) if self.storage.applied() >= *index => {
                self.reads.remove(&key);
                true
            }
            Some(_) => false,
            None => {
                self.last_token += 1;
                let asked = self.order.read_index(self.last_token, step);
                if asked {
                    self.reads.insert(key, (self.last_token, None));
                }
                !asked
            }
        }
    }

    /// Ends replays, and joins that wait to read, but those that stay.
    pub(in crate::server) fn end_replays(&mut self, stays: impl Fn(&(String, String)) -> bool) {
        self.replays.retain(|key, _| stays(key));
        self.reads.retain(|key, _| stays(key));
    }

    /// Takes the answers to questions how far to read. True when there were some.
    fn take_reads(&mut self) -> bool {
        let answers: BTreeMap<u64, Seq> = self.order.take_reads().into_iter().collect();
        for (token, index) in self.reads.values_mut() {
            *index = index.or(answers.get(token).copied());
        }
        !answers.is_empty()
    }

    /// The connection of `session` is gone: it says again what it wants, elsewhere or here.
    pub(in crate::server) fn forget_client(&mut self, session: &str) {
        self.forwards.drop_session(session);
        self.since.remove(session);
    }

    /// Leader: places `msg`, which `from` passed on. False when the order cannot take it now.
    fn place(&mut self, from: &NodeId, msg: &Message, step: &Step) -> bool {
        let Some((session, message_id)) = msg.duplicate_key() else { return true };
        let is_chat = msg.message_type == MessageType::Chat;
        if (is_chat && self.storage.contains(session, message_id)) || !self.intake.place(msg) {
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
        if msg.message_type == MessageType::Member {
            return self.handle_member(from, msg, step);
        }
        let Some(ordered) = &mut self.ordered else { return Ok(()) };
        if is_passed_on(msg) {
            self.handle_forwarded(from, msg, step);
            return Ok(());
        }
        ordered.order.handle_message(from, msg, step)
    }

    /// What a client of `from` says, passed on to this server, the leader.
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
        self.register_before(session, user, conn, step);
        if let Some(ordered) = &mut self.ordered {
            ordered.forwards.push(session, Outgoing { conn, since: step.now, msg: placed });
        }
        if is_planted(Planted::AckBeforeCommit) {
            self.ack_chat(conn, session, &msg.message_id, &msg.room_id, step);
        }
        Ok(())
    }

    /// DELETE of a member: on to the leader. Whether the message is its own is decided where the order says.
    pub(in crate::server) fn delete_ordered(
        &mut self,
        session: &str,
        user: &str,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        let deletion: Deletion = parse(msg)?;
        let Some(conn) = self.clients.get(session).map(|client| client.conn) else { return Ok(()) };
        let Some(ordered) = &mut self.ordered else { return Ok(()) };
        if ordered.order.leader().is_none() {
            return Err(self.not_ready(msg, "nobody can give the deletion its place"));
        }
        if ordered.forwards.waiting_of(session) >= WAITING_MAX {
            return Err(self.not_ready(msg, "too many messages wait for their acknowledgement"));
        }
        let mut placed = Message::new(MessageType::Delete, user)
            .with_id(&msg.message_id)
            .in_room(&msg.room_id)
            .saying(&deletion);
        placed.session = Some(session.into());
        ordered.forwards.push(session, Outgoing { conn, since: step.now, msg: placed });
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

    /// What a batch of steps owes: the order's own messages, what is committed, what waits for the leader.
    pub(in crate::server) fn settle_ordered(&mut self, step: &Step) {
        self.nominate_when_elected(step);
        self.pass_on(step);
        let Some(ordered) = &mut self.ordered else { return };
        ordered.order.settle(step);
        self.take_over_snapshot();
        self.move_members_after_skip(step);
        let Some(ordered) = &mut self.ordered else { return };
        let committed = ordered.order.take_committed();
        self.progress |= !committed.is_empty() | ordered.take_reads();
        for entry in committed {
            self.apply_entry(&entry, step);
        }
        self.pump_ordered_replays(step);
        self.pay_owed(step);
        self.compact_when_due(step);
        self.forget_old(step);
        self.follow_order(step);
    }

    /// One committed entry: shown to the members here, then acknowledged.
    fn apply_entry(&mut self, entry: &Entry, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        let applied = ordered.storage.apply(entry);
        let Some((session, message_id)) = entry.duplicate_key() else { return };
        ordered.intake.done(session, message_id);
        let outgoing = ordered.forwards.done(session, message_id);
        let frame = match applied {
            Applied::Stored => Some(shown(entry)),
            Applied::Deleted(place) => {
                let of = ordered.storage.room(&entry.room_id).and_then(|room| room.at(place));
                of.map(|of| deleted(&of, entry.seq))
            }
            _ => None,
        };
        if let Some(frame) = frame {
            self.create_room(&entry.room_id);
            self.show(&entry.room_id, &frame, step);
        }
        let Some(outgoing) = outgoing else { return };
        if self.is_replaying(session, &entry.room_id) {
            self.owe(Owed { conn: outgoing.conn, entry: entry.clone(), applied });
        } else {
            self.answer(outgoing.conn, entry, applied, step);
        }
    }

    fn show(&self, room_id: &str, frame: &Frame, step: &Step) {
        let Some(room) = self.managed_rooms.get(room_id) else { return };
        for client in room.client_ids.iter().filter_map(|id| self.clients.get(id)) {
            step.cm.send_to_conn(client.conn, frame);
        }
    }

    /// What was passed on for `conn` was applied: its client is told, if it is still there.
    pub(super) fn answer(&mut self, conn: ConnId, entry: &Entry, applied: Applied, step: &Step) {
        let Some((session, message_id)) = entry.duplicate_key() else { return };
        let is_registration = entry.message_type == MessageType::ClientJoin;
        if is_registration && self.login_applied(conn, entry, applied) {
            return;
        }
        let client = self.clients.get(session).map(|client| client.conn);
        if client != Some(conn) && !is_planted(Planted::AckOnAnyConnection) {
            return;
        }
        let conn = client.unwrap_or(conn);
        if let Applied::Refused(refusal) = applied {
            // A registration answers nothing that the client asked.
            let message_id = if is_registration { "" } else { message_id };
            let error = refused(refusal, message_id, entry);
            self.refuse(conn, &error, step);
        } else if !is_registration {
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

    /// Holds an election when the order wants one.
    pub(in crate::server) fn check_order(&mut self, step: &Step) {
        self.check_ready(step);
        self.part_when_removed(step);
        self.forget_removed();
        let may_elect = self.may_elect(step);
        let Some(ordered) = &mut self.ordered else { return };
        ordered.order.tick(step);
        let renews = ordered.renew_at.is_none_or(|at| step.now >= at);
        if renews {
            ordered.renew_at = Some(step.now + RENEW_INTERVAL);
        }
        ordered.tell_what_is_missing(step.now);
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
        if renews {
            self.renew_sessions(step);
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
        self.pulse.follow(now.0.as_ref(), now.1.as_ref());
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

/// Whether a message between servers is on its way to its place in the order, for a client.
pub(in crate::server) fn is_passed_on(msg: &Message) -> bool {
    use MessageType::{Chat, ClientJoin, Delete};
    // What servers tell each other about sessions has no place.
    msg.session.is_some()
        && msg.seq.is_some()
        && matches!(msg.message_type, Chat | Delete | ClientJoin)
}

fn refused(refusal: Refusal, message_id: &str, entry: &Message) -> RequestError {
    let message_id = message_id.to_string();
    let target = || entry.content.parse::<Deletion>().unwrap_or_default().target;
    match refusal {
        Refusal::Expired => RequestError::SessionExpired { message_id },
        Refusal::NotAuthenticated => {
            RequestError::PasswordNeeded { message_id, name: entry.sender_id.clone() }
        }
        Refusal::NotFound => RequestError::NotFound { message_id, target: target() },
        Refusal::NotYours => RequestError::NotYours { message_id, target: target() },
    }
}
