//! Rooms on several servers: who replicates them, what their members are shown.
//!
//! ```text
//!   replicas(room) = host, its right neighbour, every server with a member in it
//! ```
//!
//! The host is named by the leader in `room_locations`; the rest follows from what every server knows (the
//! ring, the presence), so replicas need no messages of their own to agree. A server that becomes a replica
//! makes an empty copy and asks another replica for what it lacks ([`super::sync`]).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::ServerNode;
use super::multicast::Delivery;
use super::planted::{Planted, is_planted};
use super::replication::{Asker, PendingAck, Settled};
use super::step::Step;
use super::time_sync::not_before;
use crate::domain::stamped_chat::{push_clock, push_delivered, push_text};
use crate::domain::{Chat, Frame, Message, MessageType, NodeId, Room, StampedChat, VectorClock};
use crate::network::{ConnId, Frames};

/// For a frame of this length there is room at once, in bytes; most are shorter.
const FRAME_BYTES: usize = 300;

impl ServerNode {
    /// The servers that keep the messages of `room_id`, as far as they are live.
    pub fn replicas_of(&self, room_id: &str) -> BTreeSet<NodeId> {
        if self.ordered.is_some() {
            return self.ring().into_iter().collect();
        }
        let mut replicas = self.presence.nodes_in(room_id);
        if let Some(host) = self.metadata_store.host(room_id) {
            replicas.insert(host.clone());
            replicas.extend(self.right_of(host));
        }
        if self.wanted_rooms.contains_key(room_id) {
            replicas.insert(self.server_id.clone());
        }
        replicas.retain(|id| {
            *id == self.server_id
                || self.servers.get(id).is_some_and(super::ring::ServerInfo::is_live)
        });
        replicas
    }

    /// The copy of `room_id` here, made empty when there is none.
    pub fn create_room(&mut self, room_id: &str) -> &mut Room {
        if !self.managed_rooms.contains_key(room_id) {
            self.managed_rooms.insert(room_id.into(), Room::new(room_id));
        }
        let host = self.metadata_store.host(room_id).cloned();
        // Inserted above when it was missing.
        let room = self.managed_rooms.get_mut(room_id).expect("just made");
        room.host = host;
        room
    }

    /// Brings one room in line with who replicates it now; makes a copy here when this server does.
    pub(super) fn reconcile_room(&mut self, room_id: &str, step: &Step) {
        if self.ordered.is_some() {
            return;
        }
        let replicas = self.replicas_of(room_id);
        let replicates = replicas.contains(&self.server_id);
        if !replicates && !self.managed_rooms.contains_key(room_id) {
            return;
        }
        self.create_room(room_id);
        if !replicates && is_planted(Planted::UnsharedRetired) {
            self.managed_rooms.swap_remove(room_id);
            self.causal_multicast_handler.drop_room(room_id);
            return;
        }
        let mut others = replicas;
        others.remove(&self.server_id);
        let replication = self.causal_multicast_handler.replication(room_id);
        let newcomers: Vec<NodeId> = others.difference(&replication.replicas).cloned().collect();
        replication.replicas = others;
        // A newcomer learns at once how far this copy is, and asks for what it lacks.
        for node_id in newcomers {
            self.send_clock(&node_id, room_id, step);
        }
        self.check_caught_up(room_id, step);
        if !replicates {
            // Nobody sends it what is new: whoever wants this copy again has to compare it first.
            let replication = self.causal_multicast_handler.replication(room_id);
            (replication.caught_up, replication.target) = (false, None);
        }
        self.causal_multicast_handler.touch(room_id);
    }

    /// Does so for every room: the ring changed.
    pub(super) fn reconcile_rooms(&mut self, step: &Step) {
        let located = self.metadata_store.room_locations().keys();
        let rooms: BTreeSet<String> = located.chain(self.managed_rooms.keys()).cloned().collect();
        for room_id in rooms {
            self.reconcile_room(&room_id, step);
        }
    }

    /// All rooms have to be settled: another number of servers is live.
    pub(super) fn touch_all_rooms(&mut self) {
        for room_id in self.managed_rooms.keys() {
            self.causal_multicast_handler.touch(room_id);
        }
    }

    /// A CHAT that another server stamped.
    pub(super) fn handle_peer_chat(&mut self, from: &NodeId, msg: &Message, step: &Step) {
        let Some(stamp) = msg.vector_clock.clone() else { return };
        self.create_room(&msg.room_id);
        let Some(room) = self.managed_rooms.get_mut(&msg.room_id) else { return };
        let handler = &mut self.causal_multicast_handler;
        let delivery = handler.handle_chat_message(msg.clone(), room, step);
        if delivery != Delivery::Ignored {
            // Who sent it has delivered it, and with it all that it names.
            handler.note_held(from, &msg.room_id, &stamp);
        }
        if delivery == Delivery::HeldBack {
            let mut missing = stamp.beyond(&room.clock);
            if let Some((origin, _)) = msg.stamp().filter(|(o, n)| *n == room.clock.get(o) + 1) {
                // It is its stamper's next one: what is missing is of others.
                missing.timestamps.remove(origin);
            }
            self.handle_gap(from, &msg.room_id, &missing, step);
        }
    }

    /// Stamps a member's new messages in `room_id` and spreads them; their ACKs follow when the promise holds. Returns how many
    /// they are.
    pub(super) fn publish<'a>(
        &mut self,
        session: &Arc<str>,
        room_id: &str,
        chats: impl Iterator<Item = Chat<'a>> + Clone,
        step: &Step,
    ) -> usize {
        let client = self.clients.get(&**session);
        let (Some(client), Some(room)) = (client, self.managed_rooms.get_mut(room_id)) else {
            return chats.count();
        };
        let handler = &mut self.causal_multicast_handler;
        let ids = chats.clone().map(|chat| chat.message_id);
        let hashes = room.message_history.hash_all(session, ids.clone());
        let asker = Arc::new(Asker::new(session, client.conn, ids));
        let (taken, mut id_start) = (hashes.len(), 0);
        let (mut acks, mut at_once) = (Vec::with_capacity(taken), Vec::new());
        for (chat, hash) in chats.zip(hashes) {
            let id = id_start..id_start + chat.message_id.len();
            id_start = id.end;
            let found = room.message_history.find_hashed(&asker.session, chat.message_id, hash);
            let (known, absent) = (found.ok(), found.err());
            let place = known.filter(|_| !is_planted(Planted::NoDuplicateCheck)).or_else(|| {
                // What its sender had seen must not look later than it.
                let timestamp = not_before(room.latest_timestamp_ms, step.wall_ms);
                let said = Chat { sender_id: &client.user, room_id, ..chat };
                handler.publish(&said, &asker.session, timestamp, absent, room, step)
            });
            let Some(place) = place else { continue };
            let (origin, count) = room.stamp_at(place);
            let due = if known.is_some() && is_planted(Planted::DuplicateAckedAtOnce) {
                &mut at_once
            } else {
                &mut acks
            };
            let asker = asker.clone();
            due.push(PendingAck { place, origin: origin.clone(), count, asker, id });
        }
        handler.owe_acks(room_id, acks);
        self.send_acks(&at_once, room_id, step);
        taken
    }

    /// Shows and acknowledges what became due in the rooms where something happened.
    pub(super) fn settle_rooms(&mut self, step: &Step) {
        let touched = self.causal_multicast_handler.take_touched();
        if touched.is_empty() || !self.ready {
            // Not ready: other servers may hold more; nobody is connected to be shown anything.
            for room_id in touched {
                self.causal_multicast_handler.touch(&room_id);
            }
            return;
        }
        let live = self.live_others();
        for room_id in touched {
            self.settle_room(&room_id, &live, step);
        }
    }

    fn settle_room(&mut self, room_id: &str, live: &BTreeSet<NodeId>, step: &Step) {
        let Some(room) = self.managed_rooms.get(room_id) else { return };
        let Settled { shown, before, acked } = self.causal_multicast_handler.settle(room, live);
        // Joins wait for what is shown, and for a copy that has caught up.
        self.progress |= !shown.is_empty() || self.wanted_rooms.contains_key(room_id);
        if !shown.is_empty() {
            self.show_settled(room_id, shown, before, step);
        }
        if acked.is_empty() {
            return;
        }
        let (kept, acked): (Vec<_>, Vec<_>) = if self.replays.is_empty() {
            (Vec::new(), acked)
        } else {
            acked.into_iter().partition(|ack| self.is_replaying(&ack.asker.session, room_id))
        };
        for ack in kept {
            self.causal_multicast_handler.keep_ack(room_id, ack);
        }
        self.send_acks(&acked, room_id, step);
    }

    /// Shows what stands at `places` of a room, of which members were shown what `before` counts.
    fn show_settled(
        &mut self,
        room_id: &str,
        places: Range<usize>,
        before: VectorClock,
        step: &Step,
    ) {
        let Some(room) = self.managed_rooms.get(room_id) else { return };
        let members = self.members_here(room);
        let has_gap = members.iter().any(|(_, gap)| gap.is_some());
        let is_here = places.start >= room.message_history.first_in_memory();
        if !members.is_empty() && is_here {
            show(room, places.clone(), before, &members, step);
        } else {
            self.show_as_past(room_id, places.start, &before);
        }
        if let Some(room) = self.managed_rooms.get_mut(room_id) {
            room.message_history.shown(places.end);
        }
        if has_gap {
            self.close_gaps(room_id);
        }
    }

    /// The members of `room` that are connected here, each with its gap if there is one.
    fn members_here(&self, room: &Room) -> Vec<(ConnId, Option<&VectorClock>)> {
        let clients = room.client_ids.iter().filter_map(|session| self.clients.get(session));
        clients.map(|client| (client.conn, client.gaps.get(&room.room_id))).collect()
    }

    /// Says that the messages of `acks` are on the disks that they have to be on.
    fn send_acks(&self, acks: &[PendingAck], room_id: &str, step: &Step) {
        // On a later connection the session may not have been shown the message yet.
        let any = is_planted(Planted::AckOnAnyConnection);
        let room = self.managed_rooms.get(room_id);
        let replication = self.causal_multicast_handler.replication_of(room_id);
        let mut acks: Vec<&PendingAck> = acks.iter().collect();
        // One client after the other, in the order of their messages: its ACKs leave in one piece.
        acks.sort_by_key(|ack| ack.asker.conn);
        let is_of_one = |a: &&PendingAck, b: &&PendingAck| {
            Arc::ptr_eq(&a.asker, &b.asker)
                || (a.asker.conn, &a.asker.session) == (b.asker.conn, &b.asker.session)
        };
        for acks in acks.chunk_by(is_of_one) {
            let Asker { session, conn, .. } = &*acks[0].asker;
            let client = self.clients.get(&**session);
            let Some(client) = client.filter(|client| any || client.conn == *conn) else {
                continue;
            };
            let is_member = room.is_some_and(|room| room.has_client(session));
            let shown = replication.filter(|_| is_member).map(|known| &known.shown_clock);
            let position = shown.map(|shown| with_gap(shown, client.gaps.get(room_id)));
            let rest = ack_after_id(self.server_id.as_str(), room_id, position.as_deref());
            let longest = acks.iter().map(|ack| ack.id.len()).max().unwrap_or_default();
            let mut frames = Frames::with_capacity(acks.len(), longest + rest.len() + 20);
            for ack in acks {
                frames.push(|out| {
                    out.extend_from_slice(b"{\"message_id\":");
                    push_text(ack.message_id(), out);
                    out.extend_from_slice(&rest);
                });
            }
            step.cm.send_to_conns(&[client.conn], frames);
        }
    }

    /// Tells the members of `room_id` here that `user` came or left.
    pub(super) fn notify_members(
        &self,
        message_type: MessageType,
        room_id: &str,
        user: &str,
        except: &str,
        step: &Step,
    ) {
        let Some(room) = self.managed_rooms.get(room_id) else { return };
        let frame = Message::new(message_type, user).in_room(room_id).to_frame();
        let others = room.client_ids.iter().filter(|session| *session != except);
        let conns =
            others.filter_map(|session| self.clients.get(session).map(|client| client.conn));
        step.cm.send_news(&conns.collect::<Vec<_>>(), &frame);
    }
}

/// Whether the message at `place` repeats one that was shown.
pub(super) fn is_hidden(room: &Room, place: usize) -> bool {
    room.is_repeat(place) && !is_planted(Planted::NoDuplicateCheck)
}

/// Shows the messages at `places` to `members`, who stand at `position` before. One with a gap stands further, and may have
/// been shown some elsewhere.
fn show(
    room: &Room,
    places: Range<usize>,
    mut position: VectorClock,
    members: &[(ConnId, Option<&VectorClock>)],
    step: &Step,
) {
    // Made once, for all: with a hundred members everything else costs less.
    let mut frames = Frames::with_capacity(places.len(), FRAME_BYTES);
    for place in places {
        count_shown(room, place, &mut position);
        if is_hidden(room, place) {
            continue;
        }
        let Some((shown, timestamp)) = room.message_history.to_show(place) else { continue };
        frames.push(|out| push_delivered(shown, timestamp, &position, out));
        for (conn, gap) in members {
            let Some(gap) = gap.filter(|gap| !is_covered(room, place, Some(gap))) else { continue };
            let mut frame = Vec::new();
            push_delivered(shown, timestamp, &with_gap(&position, Some(gap)), &mut frame);
            step.cm.send_to_conn(*conn, &frame.into());
        }
    }
    let level = members.iter().filter(|(_, gap)| gap.is_none()).map(|(conn, _)| *conn);
    step.cm.send_to_conns(&level.collect::<Vec<_>>(), frames);
}

/// The message at `place` is shown, or was under another stamp: `position` counts it.
pub(super) fn count_shown(room: &Room, place: usize, position: &mut VectorClock) {
    let (origin, count) = room.stamp_at(place);
    position.raise(origin, count);
    if is_planted(Planted::GreatestStamp) {
        for place in room.message_history.places_of_same(place) {
            let (origin, count) = room.stamp_at(place);
            position.raise(origin, count);
        }
    }
}

/// Whether any stamp of the message at `place`, a repeat's included, is covered by `after`.
pub(super) fn is_covered(room: &Room, place: usize, after: Option<&VectorClock>) -> bool {
    let Some(after) = after else { return false };
    let stamps = if is_planted(Planted::FirstStampOnly) { 1 } else { usize::MAX };
    room.message_history.places_of_same(place).take(stamps).any(|place| {
        let (origin, count) = room.stamp_at(place);
        after.get(origin) >= count
    })
}

/// `position`, and what `gap` counts beyond it.
fn with_gap<'a>(position: &'a VectorClock, gap: Option<&VectorClock>) -> Cow<'a, VectorClock> {
    let mut position = Cow::Borrowed(position);
    if let Some(gap) = gap {
        position.to_mut().merge(gap);
    }
    position
}

/// A message as members see it: without the session and the stamp, with the position after it.
pub(super) fn delivered(msg: &Message, position: &VectorClock) -> Frame {
    let (mut json, mut frame) = (Vec::new(), Vec::new());
    if let Some(chat) = StampedChat::of(msg) {
        let written = chat.write(&mut json);
        push_delivered(&written.json[..written.shown_bytes], msg.timestamp, position, &mut frame);
    }
    frame.into()
}

/// What follows the message id in an acknowledgement: the same for all of a session.
fn ack_after_id(server_id: &str, room_id: &str, position: Option<&VectorClock>) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_BYTES);
    out.extend_from_slice(b",\"type\":\"ACK\",\"sender_id\":");
    push_text(server_id, &mut out);
    out.extend_from_slice(b",\"room_id\":");
    push_text(room_id, &mut out);
    if let Some(position) = position {
        out.extend_from_slice(b",\"position\":");
        push_clock(position, &mut out);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Position;

    #[test]
    fn an_acknowledgement_is_written_as_a_message_is() {
        let mut position = VectorClock::new();
        position.raise(&"n1.1-0000".into(), 3);
        for position in [None, Some(position)] {
            let mut ack = Message::new(MessageType::Ack, "n\"1").with_id("a-1").in_room("lob\nby");
            ack.position = position.clone().map(Position::Clock);
            let rest = ack_after_id("n\"1", "lob\nby", position.as_ref());
            let json = [&b"{\"message_id\":\"a-1\""[..], &rest].concat();
            assert_eq!(String::from_utf8(json).unwrap(), ack.serialize());
        }
    }
}
