//! What was said before, for clients of the designs with one order: on joining a room, since a time, in numbers.
//!
//! ```text
//!   JOIN_ROOM, last 3:      said 12   said 15   (16 is gone: not told)   said 21
//!   JOIN_ROOM, after 16:    deletion 20 of 16: told, 16 was shown   ·   said 21
//!   HISTORY since 10:30:    pages of what is kept
//!   after 8, kept from 12:  told so, then from 12 on
//! ```
//!
//! Who resumes from a position is told what was deleted since of what it has; who comes anew is shown what is left.

use super::Seq;
use super::packed::Reader;
use super::replicated::{Place, Room};
use crate::domain::content::{
    HistoryPage, HistoryRequest, HistoryStart, JoinRoom, Joined, Position, RoomStatistics,
};
use crate::domain::{Frame, Message, MessageType};
use crate::error::RequestError;
use crate::network::ConnId;
use crate::server::ServerNode;
use crate::server::clients::{HISTORY_DEFAULT, invalid};
use crate::server::connections::Hindrance;
use crate::server::peers::parse;
use crate::server::replay::Portion;
use crate::server::step::Step;

/// How long the messages of one page of history are together, in bytes: small beside a frame.
const PAGE_BYTES: usize = 128 * 1024;
/// What a message of a page takes besides its text, about, in bytes.
const PAGE_ENTRY_BYTES: usize = 200;

/// A session that is shown the past of a room.
#[derive(Clone, Debug)]
pub(in crate::server) struct OrderedReplay {
    /// Index of the next place.
    pub(super) next: usize,
    /// The session has been shown what stands up to here.
    after: Seq,
    /// What was applied when it was told how much follows.
    known: Seq,
    /// What was unpacked for it last.
    reader: Reader,
}

impl ServerNode {
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
        let Some(ordered) = &mut self.ordered else { return Ok(()) };
        let applied = ordered.storage.applied();
        if ordered.order.leader().is_none() || !ordered.may_read(session, room_id, step) {
            return Err(self.not_ready(msg, "what was said last is not known here"));
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
        let starts = self.missed_start(room_id, limit, after, past);
        let joined = Joined {
            starts,
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

    /// Where the history of `room_id` starts, when who asks for the last `limit` messages, or for all `after` a place, and is shown
    /// `past` frames, misses something because of that.
    fn missed_start(
        &self,
        room_id: &str,
        limit: usize,
        after: Option<Seq>,
        past: usize,
    ) -> Option<HistoryStart> {
        let start = self.ordered.as_ref()?.history_start(room_id)?;
        let misses = after.map_or(past < limit, |after| after < start.after);
        misses.then_some(start)
    }

    /// Prepares the past of `room_id` for `session`: the last `limit` messages, or all that became of it after `after`.
    /// Returns how many frames that is.
    fn start_ordered_replay(
        &mut self,
        session: &str,
        room_id: &str,
        limit: usize,
        after: Option<Seq>,
    ) -> usize {
        self.create_room(room_id).remove_client(session);
        let Some(ordered) = &mut self.ordered else { return 0 };
        let room = ordered.storage.room(room_id);
        let next = room.map_or(0, |room| match after {
            Some(after) => room.first_after(after),
            None => room.first_of_last(limit),
        });
        let replay = OrderedReplay::new(next, after.unwrap_or(0), ordered.storage.applied());
        let count = room.map_or(0, |room| replay.count(room));
        ordered.replays.insert((session.into(), room_id.into()), replay);
        count
    }

    /// The members here of every room, who were shown all that was applied, up to `after`, are shown what came since as if
    /// they had come back with that position.
    pub(super) fn replay_to_members(&mut self, after: Seq) {
        let Some(ordered) = &mut self.ordered else { return };
        let known = ordered.storage.applied();
        for (room_id, room) in &mut self.managed_rooms {
            let Some(places) = ordered.storage.room(room_id) else { continue };
            let next = places.first_after(after);
            if next == places.len() {
                continue;
            }
            for session in std::mem::take(&mut room.client_ids) {
                let replay = OrderedReplay::new(next, after, known);
                ordered.replays.insert((session, room_id.clone()), replay);
            }
        }
    }

    /// The position of `session` before it is sent the past: just before the first place of it.
    fn place_before_replay(&self, session: &str, room_id: &str) -> Seq {
        let Some(ordered) = &self.ordered else { return 0 };
        let replay = ordered.replays.get(&(session.to_string(), room_id.to_string()));
        let first = replay.and_then(|replay| ordered.storage.room(room_id)?.place(replay.next));
        first.map_or(ordered.storage.applied(), |place| place.seq() - 1)
    }

    /// Sends sessions that are shown the past of a room as much of it as they can take, and fits into one step.
    pub(super) fn pump_ordered_replays(&mut self, step: &Step) {
        let count = self.ordered.as_ref().map_or(0, |ordered| ordered.replays.len());
        let mut portion = Portion::of_a_step();
        for _ in 0..count {
            if portion.is_used() {
                break;
            }
            let Some(ordered) = &mut self.ordered else { return };
            let taken = self.replay_turns.take(&mut ordered.replays);
            let Some(((session, room_id), mut replay)) = taken else { break };
            let Some(client) = self.clients.get(&session) else { continue };
            let room = ordered.storage.room(&room_id);
            let mut spare = step.cm.spare_bytes(client.conn);
            while spare > 0
                && !portion.is_used()
                && let Some((room, place)) = room.and_then(|r| Some((r, r.place(replay.next)?)))
            {
                replay.next += 1;
                portion.take_message();
                if !replay.tells(place) {
                    continue;
                }
                let Some(frame) = frame_of(place, room, &mut replay.reader) else { continue };
                spare = spare.saturating_sub(frame.len());
                portion.take_bytes(frame.len());
                step.cm.send_to_conn(client.conn, &frame);
            }
            if replay.next < room.map_or(0, Room::len) {
                ordered.replays.insert((session, room_id), replay);
                continue;
            }
            // The session's own messages may have waited for this.
            step.cm.resume(client.conn);
            self.create_room(&room_id).add_client(&session);
        }
        if let Some(ordered) = &self.ordered {
            self.replay_turns.end(&ordered.replays, &portion);
        }
    }

    /// HISTORY: a page of what was said in a room since a time.
    pub(in crate::server) fn answer_history(
        &self,
        conn: ConnId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        let asked: HistoryRequest = parse(msg)?;
        let Some(ordered) = &self.ordered else { return Ok(()) };
        let storage = ordered.storage.message_storage();
        let (mut page, mut bytes) = (HistoryPage::default(), 0);
        storage.visit_since(&msg.room_id, asked.since, asked.after.unwrap_or(0), |said| {
            if bytes >= PAGE_BYTES {
                // There is one more at least.
                page.next = page.messages.last().and_then(|last| last.seq);
                return false;
            }
            bytes += said.content.text().len() + PAGE_ENTRY_BYTES;
            // What is shown on request moves nobody's position.
            page.messages.push(Message { position: None, ..as_shown(&said) });
            true
        });
        let start = ordered.history_start(&msg.room_id);
        page.starts = start.filter(|start| asked.after.is_none() && start.until >= asked.since);
        let answer = Message::new(MessageType::History, self.server_id.as_str())
            .with_id(&msg.message_id)
            .in_room(&msg.room_id)
            .saying(&page);
        step.cm.send_to_conn(conn, &answer.to_frame());
        Ok(())
    }

    /// STATS: what is kept here.
    pub(in crate::server) fn answer_stats(&self, conn: ConnId, msg: &Message, step: &Step) {
        let Some(ordered) = &self.ordered else { return };
        let mut statistics = ordered.storage.statistics();
        for room_id in self.presence.rooms() {
            if !statistics.rooms.iter().any(|room| room.room_id == room_id) {
                let room = RoomStatistics { room_id, ..RoomStatistics::default() };
                statistics.rooms.push(room);
            }
        }
        statistics.rooms.sort_by(|a, b| a.room_id.cmp(&b.room_id));
        for room in &mut statistics.rooms {
            room.members = self.presence.count_in(&room.room_id) as u64;
        }
        let answer = Message::new(MessageType::Stats, self.server_id.as_str())
            .with_id(&msg.message_id)
            .saying(&statistics);
        step.cm.send_to_conn(conn, &answer.to_frame());
    }
}

impl OrderedReplay {
    fn new(next: usize, after: Seq, known: Seq) -> Self {
        Self { next, after, known, reader: Reader::default() }
    }

    /// Whether a session is told of `place`: of each message, and of each deletion of one that it may have.
    fn tells(&self, place: Place) -> bool {
        match place {
            Place::Said(_) => true,
            // It was announced as a message, and went before it was sent.
            Place::Gone { by, .. } => by > self.known,
            Place::Deletion { seq, of } => seq > self.known || of <= self.after,
        }
    }

    /// How many places of `room` it has yet to tell of.
    fn count(&self, room: &Room) -> usize {
        let Some(first) = room.place(self.next) else { return 0 };
        let untold = room.changes_from(first.seq()).filter(|place| !self.tells(*place));
        room.len() - self.next - untold.count()
    }
}

fn frame_of(place: Place, room: &Room, reader: &mut Reader) -> Option<Frame> {
    match place {
        Place::Said(seq) => room.read(seq, reader).map(|said| shown(&said)),
        Place::Gone { seq, .. } => room.read(seq, reader).map(|gone| deleted(&gone, Some(seq))),
        // Far from the messages around it.
        Place::Deletion { seq, of } => room.at(of).map(|gone| deleted(&gone, Some(seq))),
    }
}

/// A message as members see it: without the session and the term, with the position after it.
pub(super) fn shown(entry: &Message) -> Frame {
    as_shown(entry).to_frame()
}

fn as_shown(entry: &Message) -> Message {
    let mut shown = Message::new(MessageType::Chat, entry.sender_id.as_str())
        .with_id(entry.message_id.as_str())
        .in_room(entry.room_id.as_str());
    shown.content = entry.content.clone();
    shown.timestamp = entry.timestamp;
    shown.seq = entry.seq;
    shown.position = entry.seq.map(Position::Sequence);
    shown
}

/// The message `of` is gone: its id, who said it, its place, and the position after the deletion, which stands at `at`.
pub(super) fn deleted(of: &Message, at: Option<Seq>) -> Frame {
    let mut msg = Message::new(MessageType::Delete, of.sender_id.as_str())
        .with_id(of.message_id.as_str())
        .in_room(of.room_id.as_str());
    (msg.seq, msg.position) = (of.seq, at.map(Position::Sequence));
    msg.to_frame()
}
