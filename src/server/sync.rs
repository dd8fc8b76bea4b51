//! Anti-entropy: replicas compare clocks and send what the other lacks.
//!
//! ```text
//!   n1 ── clocks {lobby: held, synced, want} ──▶ n2     n2 lacks nothing that n1 has, n1 lacks some
//!   n1 ◀──── messages [..256], more ───────────── n2     in n2's order of delivery: no causal gap
//!   n1 ── clocks {lobby: …, want} ─────────────▶ n2     the receiver asks for the next batch
//! ```
//!
//! It starts new replicas, heals restarts, partitions and lost frames, and answers a gap in the hold-back
//! queue at once. The receiver asks for each batch, so it is never flooded. When all clocks are known to be
//! equal nothing is sent.
//!
//! Source: the SYNC of class-diagram.txt; anti-entropy after Demers and others (1987).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ServerNode;
use super::multicast::Delivery;
use super::planted::{Planted, is_planted};
use super::read_back::{ReadMessages, Reader};
use super::step::Step;
use crate::domain::content::{RoomClock, SyncContent};
use crate::domain::{Message, MessageType, NodeId, VectorClock};

/// Messages in one batch.
pub(super) const SYNC_BATCH_MESSAGES: usize = 256;
/// Bytes of text in one batch, about; a batch has at least one message.
pub(super) const SYNC_BATCH_BYTES: usize = 256 * 1024;
/// How often replicas compare clocks that are not known to be equal.
const ANTI_ENTROPY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a question for missing messages stands before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

impl ServerNode {
    fn sync(&self, content: &SyncContent) -> Message {
        Message::new(MessageType::Sync, self.server_id.as_str()).saying(content)
    }

    /// How far this server is with `room_id`.
    fn room_clock(&self, room_id: &str) -> RoomClock {
        let held = self.managed_rooms.get(room_id).map(|room| room.clock.clone());
        let replication = self.causal_multicast_handler.replication_of(room_id);
        RoomClock {
            held: held.unwrap_or_default(),
            synced: replication.map(|replication| replication.synced.clone()).unwrap_or_default(),
            want: self.replicas_of(room_id).contains(&self.server_id),
            again: false,
        }
    }

    fn send_room_clocks(&self, to: &NodeId, rooms: BTreeSet<String>, reply: bool, step: &Step) {
        if rooms.is_empty() {
            return;
        }
        let rooms = rooms.into_iter().map(|room_id| {
            let clock = self.room_clock(&room_id);
            (room_id, clock)
        });
        let content = SyncContent::Clocks { rooms: rooms.collect(), reply };
        step.cm.send_to_node(to, &self.sync(&content));
    }

    /// Tells `to` how far this server is with every room: a link came up.
    pub(super) fn send_clocks(&self, to: &NodeId, step: &Step) {
        self.send_room_clocks(to, self.managed_rooms.keys().cloned().collect(), false, step);
    }

    /// Tells `to` how far this server is with one room, and wants to know the same.
    pub(super) fn send_clock(&self, to: &NodeId, room_id: &str, step: &Step) {
        self.send_room_clocks(to, BTreeSet::from([room_id.to_string()]), true, step);
    }

    /// Asks `from` for what is missing in `room_id`, unless it was asked a moment ago.
    pub(super) fn ask_for_missing(&mut self, from: &NodeId, room_id: &str, step: &Step) {
        let key = (from.clone(), room_id.to_string());
        let asked = self.sync_requests.get(&key);
        if asked.is_none_or(|at| step.now >= *at + ASK_AGAIN) {
            self.sync_requests.insert(key, step.now);
            self.send_clock(from, room_id, step);
        }
    }

    /// A message from `from` waits for `missing`. What its stamper is about to bring itself needs no question
    /// (links keep order, so it is on its way); the rest is asked for at once.
    pub(super) fn handle_gap(
        &mut self,
        from: &NodeId,
        room_id: &str,
        missing: &VectorClock,
        step: &Step,
    ) {
        self.holding.entry(room_id.into()).or_insert(step.now);
        if self.is_lost(from, missing) {
            self.ask_for_missing(from, room_id, step);
        }
    }

    /// Whether some of what is `missing` here, and which `from` has, is not on its way from its stamper.
    fn is_lost(&self, from: &NodeId, missing: &VectorClock) -> bool {
        missing.timestamps.keys().any(|origin| {
            let stamper = self.servers.get(&origin.node_id());
            let is_coming = stamper.is_some_and(|info| {
                info.conn.is_some() && info.incarnation.as_ref() == Some(origin)
            });
            // Its own former message should have come before it on the same link.
            !is_coming || origin.node_id() == *from
        })
    }

    /// Asks everyone, once a second, about rooms that hold messages back for longer than a link takes to bring
    /// the rest: also for what they sent before, since this server may have had no room for it.
    fn ask_about_gaps(&mut self, step: &Step) {
        let rooms = &self.managed_rooms;
        self.holding.retain(|room_id, _| {
            rooms.get(room_id).is_some_and(|room| !room.hold_back_queue.is_empty())
        });
        let holding = self
            .holding
            .iter_mut()
            .filter(|(_, since)| step.now >= **since + ANTI_ENTROPY_INTERVAL);
        let overdue: Vec<String> = holding
            .map(|(room_id, since)| {
                *since = step.now;
                room_id.clone()
            })
            .collect();
        for room_id in overdue {
            let clock = RoomClock { again: true, ..self.room_clock(&room_id) };
            let rooms = BTreeMap::from([(room_id.clone(), clock)]);
            let msg = self.sync(&SyncContent::Clocks { rooms, reply: true });
            for node_id in &self.causal_multicast_handler.replication(&room_id).replicas {
                step.cm.send_to_node(node_id, &msg);
            }
        }
    }

    /// A SYNC from another server.
    pub(super) fn handle_sync(
        &mut self,
        from: &NodeId,
        content: SyncContent,
        room_id: &str,
        step: &Step,
    ) {
        match content {
            SyncContent::Clocks { rooms, reply } => self.handle_clocks(from, rooms, reply, step),
            SyncContent::Messages { messages, clock, more } => {
                self.handle_messages(from, room_id, messages, &clock, more, step);
            }
            SyncContent::Presence { sessions } => {
                self.handle_presence_snapshot(from, sessions, step);
            }
        }
    }

    /// `from` says how far it is: it is sent what it lacks, and asked for what is lacking here.
    fn handle_clocks(
        &mut self,
        from: &NodeId,
        rooms: BTreeMap<String, RoomClock>,
        reply: bool,
        step: &Step,
    ) {
        let mut answer = BTreeSet::new();
        for (room_id, theirs) in rooms {
            let mine = self.room_clock(&room_id);
            let replicates = mine.want || self.managed_rooms.contains_key(&room_id);
            if replicates {
                let replication = self.causal_multicast_handler.replication(&room_id);
                replication.sent.entry(from.clone()).or_default().merge(&theirs.held);
                replication.held.insert(from.clone(), theirs.held.clone());
                replication.synced_by.insert(from.clone(), theirs.synced.clone());
                self.causal_multicast_handler.touch(&room_id);
            }
            if replicates {
                self.set_target(from, &room_id, &theirs.held);
            }
            if theirs.want && !theirs.held.covers(&mine.held) {
                self.send_missing(from, &room_id, &theirs, step);
            }
            // While everybody talks something is always on its way from a third server: asked for here too, it came twice.
            let behind = mine.want && self.is_lost(from, &theirs.held.beyond(&mine.held));
            if reply || behind {
                answer.insert(room_id);
            }
        }
        self.send_room_clocks(from, answer, false, step);
    }

    /// Sends `to` the next batch of what it lacks, what is on its way already left out.
    fn send_missing(&mut self, to: &NodeId, room_id: &str, theirs: &RoomClock, step: &Step) {
        if !self.managed_rooms.contains_key(room_id) {
            return;
        }
        let replication = self.causal_multicast_handler.replication(room_id);
        let sent = replication.sent.entry(to.clone()).or_default();
        if theirs.again {
            sent.clone_from(&theirs.held);
        }
        let reader = Reader::Server { node_id: to.clone(), room_id: room_id.into() };
        if !self.read_back.is_reading(&reader) {
            self.send_batch(to, room_id, &ReadMessages::new(), step);
        }
    }

    /// Sends `to` the next batch, as far as it is in memory or was `read` back; else it is read first.
    pub(super) fn send_batch(
        &mut self,
        to: &NodeId,
        room_id: &str,
        read: &ReadMessages,
        step: &Step,
    ) {
        let Some(room) = self.managed_rooms.get(room_id) else { return };
        let history = &room.message_history;
        let replication = self.causal_multicast_handler.replication(room_id);
        // Gone with the link, while the log was read: whoever comes back says how far it is.
        let Some(sent) = replication.sent.get(to) else { return };
        let mut places = room.lacking(sent, SYNC_BATCH_MESSAGES + 1);
        if is_planted(Planted::ForgottenTail) {
            places.pop();
        }
        let mut messages = Vec::new();
        let mut bytes = 0;
        let was_read = |place: usize| {
            let at = read.binary_search_by_key(&place, |(place, _)| *place).ok()?;
            Some(read[at].1.clone())
        };
        for place in &places {
            let Some(msg) = history.get(*place).or_else(|| was_read(*place)) else { break };
            bytes += msg.content.text().len();
            if messages.len() == SYNC_BATCH_MESSAGES
                || (bytes > SYNC_BATCH_BYTES && !messages.is_empty())
            {
                break;
            }
            let (origin, count) = room.stamp_at(*place);
            replication.note_sent(to, origin, count);
            messages.push(msg);
        }
        if messages.is_empty() {
            let released = places.into_iter().filter(|place| history.get(*place).is_none());
            let mut released = released.peekable();
            if released.peek().is_some() {
                let reader = Reader::Server { node_id: to.clone(), room_id: room_id.into() };
                self.read_back.ask(reader, history, released, step);
            }
            return;
        }
        let more = messages.len() < places.len();
        log::debug!("sending {to} {} messages of {room_id}, more: {more}", messages.len());
        let content = SyncContent::Messages { messages, clock: room.clock.clone(), more };
        step.cm.send_to_node(to, &self.sync(&content).in_room(room_id));
    }

    /// A batch of what was lacking here.
    fn handle_messages(
        &mut self,
        from: &NodeId,
        room_id: &str,
        messages: Vec<Message>,
        clock: &VectorClock,
        more: bool,
        step: &Step,
    ) {
        self.create_room(room_id);
        let Some(room) = self.managed_rooms.get_mut(room_id) else { return };
        let handler = &mut self.causal_multicast_handler;
        for msg in messages {
            if handler.handle_chat_message(msg, room, step) == Delivery::HeldBack {
                self.holding.entry(room_id.into()).or_insert(step.now);
            }
        }
        handler.note_held(from, room_id, clock);
        self.sync_requests.remove(&(from.clone(), room_id.to_string()));
        self.sync_sources.insert((room_id.to_string(), from.clone()), room.clock.clone());
        self.set_target(from, room_id, clock);
        if more {
            self.ask_for_missing(from, room_id, step);
        }
    }

    /// `with` holds `clock`: this copy has caught up when it has reached what it is compared with first. A
    /// moving target would never be reached in a busy room.
    fn set_target(&mut self, with: &NodeId, room_id: &str, clock: &VectorClock) {
        let host = self.metadata_store.host(room_id);
        // The host's copy counts; the host itself compares with any other replica.
        if host != Some(with) && host != Some(&self.server_id) {
            return;
        }
        // A copy that is not kept up would reach the target when it is long out of date.
        if !self.replicas_of(room_id).contains(&self.server_id) {
            return;
        }
        let replication = self.causal_multicast_handler.replication(room_id);
        if !replication.caught_up && replication.target.is_none() {
            replication.target = Some(clock.clone());
            self.causal_multicast_handler.touch(room_id);
        }
    }

    /// A link to `with` came up: what was said while it was down is not here, as when this server slept. Copies that are
    /// compared with that server have to be compared again before a joining client is shown their past.
    pub(super) fn doubt_copies(&mut self, with: &NodeId) {
        for room_id in self.managed_rooms.keys() {
            let host = self.metadata_store.host(room_id);
            if host == Some(with) || host == Some(&self.server_id) {
                let replication = self.causal_multicast_handler.replication(room_id);
                (replication.caught_up, replication.target) = (false, None);
            }
        }
    }

    /// A copy that nobody else can complete is as complete as it gets.
    pub(super) fn check_caught_up(&mut self, room_id: &str, step: &Step) {
        let started = step.now >= self.started_at + self.config.timing.detector.server_timeout;
        let replication = self.causal_multicast_handler.replication(room_id);
        if replication.replicas.is_empty() && started && !replication.caught_up {
            replication.caught_up = true;
            self.progress = true;
        }
    }

    /// Tells those that sent a batch when all of it is on this server's disk: an acknowledgement may wait for
    /// that, and whoever stamped the messages may be gone.
    pub(super) fn confirm_batches(&mut self, step: &Step) {
        for ((room_id, from), taken) in std::mem::take(&mut self.sync_sources) {
            let replication = self.causal_multicast_handler.replication_of(&room_id);
            if replication.is_none_or(|replication| replication.synced.covers(&taken)) {
                // A confirmation and no question: answered with messages, it would be answered by another one, and so on.
                let clock = RoomClock { want: false, ..self.room_clock(&room_id) };
                let rooms = BTreeMap::from([(room_id, clock)]);
                let content = SyncContent::Clocks { rooms, reply: false };
                step.cm.send_to_node(&from, &self.sync(&content));
            } else {
                self.sync_sources.insert((room_id, from), taken);
            }
        }
    }

    /// Compares clocks with the replicas that are not known to be equal: once a second, and soon after a
    /// server came or went.
    pub(super) fn anti_entropy(&mut self, step: &Step) {
        self.ask_about_gaps(step);
        if step.now < self.anti_entropy_at {
            return;
        }
        self.anti_entropy_at = step.now + ANTI_ENTROPY_INTERVAL;
        let mut questions: BTreeMap<NodeId, BTreeSet<String>> = BTreeMap::new();
        for (room_id, room) in &self.managed_rooms {
            let Some(replication) = self.causal_multicast_handler.replication_of(room_id) else {
                continue;
            };
            let replicates = self.replicas_of(room_id).contains(&self.server_id);
            for node_id in &replication.replicas {
                let equal = replication.held.get(node_id) == Some(&room.clock)
                    && replication.synced_by.get(node_id) == Some(&room.clock);
                // A client waits until this copy was compared with the host's, which may be its equal.
                let waits = !replication.caught_up && self.wanted_rooms.contains_key(room_id);
                // A copy that is kept up no longer only has to hand on what others lack.
                if (waits || !equal) && (replicates || !replication.is_covered_by(node_id, room)) {
                    questions.entry(node_id.clone()).or_default().insert(room_id.clone());
                }
            }
        }
        for (node_id, rooms) in questions {
            self.send_room_clocks(&node_id, rooms, true, step);
        }
        for room_id in self.managed_rooms.keys().cloned().collect::<Vec<_>>() {
            self.check_caught_up(&room_id, step);
        }
        let now = step.now;
        self.sync_requests.retain(|_, at| now < *at + ASK_AGAIN);
        self.room_requests.retain(|_, at| now < *at + ASK_AGAIN);
    }
}
