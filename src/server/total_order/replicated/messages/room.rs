//! One room: its places, and what stands there.
//!
//! ```text
//!   places      12   15   16   20   21   ‥       ascending numbers, 1 to 2 bytes each
//!   deletions                  20 ⇒ 16            of the few that are no messages
//!   gone                  16 ⇒ 20                 of the few whose text is gone
//!   messages    [12   15   16 │ 21  ‥            packed, without the deletions
//! ```
//!
//! What kind of a place it is, how many there are, and where the last hundred messages begin, is told without unpacking any.

#[expect(
    clippy::disallowed_types,
    reason = "asked for one sender at a time, and for how many there are"
)]
use std::collections::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::ids::Ids;
use crate::domain::columns::ascending::Ascending;
use crate::domain::content::RoomStatistics;
use crate::domain::{Content, Message, MessageType};
use crate::server::total_order::Seq;
use crate::server::total_order::packed::{Packed, Reader, Row};

/// What stands at a place of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A message.
    Said(Seq),
    /// The tombstone of one: who said it when. Its type is DELETE, and it has no content.
    Gone {
        /// This place.
        seq: Seq,
        /// The place of the deletion.
        by: Seq,
    },
    /// The deletion of another place's message.
    Deletion {
        /// This place.
        seq: Seq,
        /// The place whose message is gone.
        of: Seq,
    },
}

impl Place {
    /// Which place it is.
    pub fn seq(self) -> Seq {
        match self {
            Self::Said(seq) | Self::Gone { seq, .. } | Self::Deletion { seq, .. } => seq,
        }
    }
}

/// One room; see the module.
#[derive(Clone, Debug, Default)]
#[expect(clippy::disallowed_types, reason = "as above")]
pub struct Room {
    places: Ascending,
    history: RoomHistory,
    ids: Ids,
    messages: u64,
    /// Of their texts.
    bytes: u64,
    /// Who said how many of them.
    senders: HashMap<Box<str>, u64>,
    last_ms: Option<u64>,
    /// Its last place that is not kept any more; 0 when all are.
    forgotten: Seq,
}

/// All that a snapshot has of a room's places. A copy shares it.
#[derive(Clone, Debug, Default)]
pub(in crate::server::total_order::replicated) struct RoomHistory {
    messages: Packed,
    /// Places of tombstones, and of their deletions.
    gone: Arc<BTreeMap<Seq, Seq>>,
    /// Places of deletions, and of what they deleted.
    deletions: Arc<BTreeMap<Seq, Seq>>,
}

impl RoomHistory {
    /// Shows `visit` each place, in order, with its message or tombstone.
    pub(in crate::server::total_order::replicated) fn visit(
        &self,
        mut visit: impl FnMut(Place, Option<Message>),
    ) {
        let mut deletions = self.deletions.iter().map(|(seq, of)| (*seq, *of)).peekable();
        self.messages.visit_from(0, |row| {
            while let Some((seq, of)) = deletions.next_if(|(seq, _)| *seq < row.seq) {
                visit(Place::Deletion { seq, of }, None);
            }
            visit(self.place_of_message(row.seq), row.to_message());
            true
        });
        deletions.for_each(|(seq, of)| visit(Place::Deletion { seq, of }, None));
    }

    fn place_of_message(&self, seq: Seq) -> Place {
        match self.gone.get(&seq) {
            Some(by) => Place::Gone { seq, by: *by },
            None => Place::Said(seq),
        }
    }

    fn place(&self, seq: Seq) -> Place {
        match self.deletions.get(&seq) {
            Some(of) => Place::Deletion { seq, of: *of },
            None => self.place_of_message(seq),
        }
    }
}

impl Room {
    /// How many places it has that are kept.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.places.len() == 0
    }

    /// How many messages it has, deleted ones not counted.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Its last place that is not kept any more; 0 when all are.
    pub fn forgotten(&self) -> Seq {
        self.forgotten
    }

    /// The place with this index, from 0.
    pub fn place(&self, index: usize) -> Option<Place> {
        self.places.get(index).map(|seq| self.history.place(seq))
    }

    /// All places, in order.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.places.iter_from(0).map(|seq| self.history.place(seq))
    }

    /// The index of the first place behind `seq`.
    pub fn first_after(&self, seq: Seq) -> usize {
        self.places.rank(seq.saturating_add(1))
    }

    /// The index of the place from which on `limit` messages stand; 0 when there are fewer.
    pub fn first_of_last(&self, limit: usize) -> usize {
        let mut first = self.len().saturating_sub(limit);
        // What is no message from `counted` on is counted already: each step looks at what is new.
        let (mut others, mut counted) = (0, Seq::MAX);
        while let Some(seq) = self.places.get(first) {
            others += self.changes_in(seq..counted).count();
            counted = seq;
            let wanted = self.len().saturating_sub(limit.saturating_add(others));
            if wanted == first {
                break;
            }
            first = wanted;
        }
        first
    }

    /// The places from `seq` on that are no messages: tombstones, then deletions.
    pub fn changes_from(&self, seq: Seq) -> impl Iterator<Item = Place> {
        self.changes_in(seq..Seq::MAX)
    }

    fn changes_in(&self, places: Range<Seq>) -> impl Iterator<Item = Place> {
        let gone = self.history.gone.range(places.clone());
        let gone = gone.map(|(seq, by)| Place::Gone { seq: *seq, by: *by });
        let deletions = self.history.deletions.range(places);
        gone.chain(deletions.map(|(seq, of)| Place::Deletion { seq: *seq, of: *of }))
    }

    /// Whether a deletion at `seq` or behind it is of a message at `target` or before.
    pub(in crate::server::total_order) fn deletes_later(&self, seq: Seq, target: Seq) -> bool {
        self.history.deletions.range(seq..).any(|(_, of)| *of <= target)
    }

    /// The message at the place `seq`, or its tombstone.
    pub fn at(&self, seq: Seq) -> Option<Message> {
        self.read(seq, &mut Reader::default())
    }

    /// The same, with what was unpacked for the message before.
    pub(in crate::server::total_order) fn read(
        &self,
        seq: Seq,
        reader: &mut Reader,
    ) -> Option<Message> {
        self.history.messages.get(seq, reader)?.to_message()
    }

    /// The messages with this id, and tombstones of such.
    pub fn with_id(&self, message_id: &str) -> Vec<Message> {
        let mut reader = Reader::default();
        let candidates = self.ids.candidates(message_id).into_iter();
        let read = candidates.filter_map(|seq| {
            let row = self.history.messages.get(seq, &mut reader)?;
            let may_have_it = row.said().is_none_or(|said| said.has_id(message_id));
            row.to_message().filter(|msg| may_have_it && msg.message_id == message_id)
        });
        read.collect()
    }

    /// Shows `visit` the messages behind the place `after`, in order, as long as it says so.
    pub fn visit_after(&self, after: Seq, mut visit: impl FnMut(Message) -> bool) {
        self.history.messages.visit_from(after.saturating_add(1), |row| {
            let is_gone = self.history.gone.contains_key(&row.seq);
            is_gone || row.to_message().is_none_or(&mut visit)
        });
    }

    /// Keeps `msg`, a CHAT, as the last one, with the timestamp `ms` rather than its own.
    pub(super) fn store(&mut self, seq: Seq, msg: &Message, ms: Option<u64>) {
        self.messages += 1;
        self.bytes += msg.content.text().len() as u64;
        match self.senders.get_mut(msg.sender_id.as_str()) {
            Some(count) => *count += 1,
            None => {
                self.senders.insert(msg.sender_id.as_str().into(), 1);
            }
        }
        self.append(seq, msg, ms);
    }

    fn append(&mut self, seq: Seq, msg: &Message, ms: Option<u64>) {
        self.last_ms = ms;
        self.places.push(seq);
        self.ids.push(&msg.message_id, seq);
        self.history.messages.push(seq, msg, ms);
    }

    /// The same for a tombstone of a snapshot.
    pub(super) fn restore_gone(&mut self, seq: Seq, by: Seq, tombstone: &Message) {
        Arc::make_mut(&mut self.history.gone).insert(seq, by);
        self.append(seq, tombstone, tombstone.timestamp);
    }

    /// The deletion of `of` stands at `seq`, behind all others.
    pub(super) fn restore_deletion(&mut self, seq: Seq, of: Seq) {
        Arc::make_mut(&mut self.history.deletions).insert(seq, of);
        self.places.push(seq);
    }

    /// Deletes the message at `place`; the deletion stands at `seq`. False when there is none, or it is gone already.
    ///
    /// The block that has the text is written anew without it, at once: that takes a third of a millisecond, people delete
    /// seldom, and nobody has to remember later what must not be shown.
    pub(super) fn delete(&mut self, place: Seq, seq: Seq) -> bool {
        let Some(mut msg) = self.at(place).filter(|msg| msg.message_type == MessageType::Chat)
        else {
            return false;
        };
        self.uncount(&msg.sender_id, msg.content.text().len());
        (msg.message_type, msg.content) = (MessageType::Delete, Content::Empty);
        self.history.messages.replace(place, &msg);
        Arc::make_mut(&mut self.history.gone).insert(place, seq);
        self.restore_deletion(seq, place);
        true
    }

    /// A message of this sender with a text of so many bytes is not counted any more.
    fn uncount(&mut self, sender_id: &str, bytes: usize) {
        self.messages -= 1;
        self.bytes -= bytes as u64;
        if let Some(count) = self.senders.get_mut(sender_id) {
            *count -= 1;
            if *count == 0 {
                self.senders.remove(sender_id);
            }
        }
    }

    /// Forgets the places up to `seq`, and later deletions of what stood there. Returns how many messages and tombstones that
    /// were.
    pub(super) fn forget_up_to(&mut self, seq: Seq) -> (u64, u64) {
        let Some(last) = self.first_after(seq).checked_sub(1) else { return (0, 0) };
        let forgotten = self.uncount_up_to(seq);
        self.forgotten = self.places.get(last).unwrap_or(self.forgotten);
        let history = &mut self.history;
        history.messages.forget_up_to(self.forgotten);
        self.ids.forget_up_to(seq);
        if history.gone.range(..=seq).next().is_some() {
            let gone = Arc::make_mut(&mut history.gone);
            *gone = gone.split_off(&(seq + 1));
        }
        // A deletion goes with what it deleted.
        let undone: BTreeSet<Seq> =
            history.deletions.iter().filter(|(_, of)| **of <= seq).map(|(at, _)| *at).collect();
        self.places.retain(|at| at > seq && !undone.contains(&at));
        if !undone.is_empty() {
            Arc::make_mut(&mut history.deletions).retain(|at, _| !undone.contains(at));
        }
        forgotten
    }

    /// The messages up to `seq` are not counted any more. Returns how many they are, and how many tombstones there are.
    fn uncount_up_to(&mut self, seq: Seq) -> (u64, u64) {
        let (mut messages, mut tombstones) = (0, 0);
        let (history, gone) = (self.history.messages.clone(), self.history.gone.clone());
        history.visit_from(0, |row| {
            let is_due = row.seq <= seq;
            if is_due && gone.contains_key(&row.seq) {
                tombstones += 1;
            } else if is_due {
                messages += 1;
                self.uncount_row(row);
            }
            is_due
        });
        (messages, tombstones)
    }

    fn uncount_row(&mut self, row: Row) {
        if let Some(said) = row.said() {
            self.uncount(said.sender_id, said.text.len());
        } else if let Some(msg) = row.to_message() {
            self.uncount(&msg.sender_id, msg.content.text().len());
        }
    }

    /// Takes from a snapshot that the places up to `seq` are not kept any more.
    pub(super) fn restore_forgotten(&mut self, seq: Seq) {
        self.forgotten = seq;
    }

    /// Its last place that is kept; 0 when none is.
    pub(super) fn last(&self) -> Seq {
        self.places.last().unwrap_or(0)
    }

    /// What a snapshot has of it.
    pub(in crate::server::total_order::replicated) fn history(&self) -> &RoomHistory {
        &self.history
    }

    /// The room `room_id` in numbers.
    pub(super) fn statistics(&self, room_id: &str) -> RoomStatistics {
        RoomStatistics {
            room_id: room_id.into(),
            messages: self.messages,
            bytes: self.bytes,
            senders: self.senders.len() as u64,
            members: 0,
            last_ms: self.last_ms,
        }
    }
}
