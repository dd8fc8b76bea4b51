//! What was delivered in a room: all of it on disk, the end of it in memory, and of the rest as much as is asked all the time.
//!
//! ```text
//!   place        0    1    2    3   …                         n        the order of delivery
//!   JSON         –    –    –    –   …   –  ─[j][j][j][j][j]──┘         the end alone: the others are read back
//!   to show                                          [s][s]──┘         how much of the JSON, and when: until it is shown
//!   origin       n1   n2   n1   n1  …                                  2 bytes
//!   hash         of (session, message id): is it here already?         8 bytes, and 6 to 10 in a table of places
//!   record       where it stands in the log                            1 to 2 bytes
//!   by origin    n1 → 0 2 3 …   n2 → 1 …                               1 to 2 bytes
//! ```
//!
//! So a message costs about 20 bytes for ever, and its text only while it is among the last. These are kept as the log's JSON, in
//! large pieces of memory: as [`Message`]s, of seven small ones each, making and freeing them was the dearest thing in the
//! profile of a busy server. What members see is a part of that JSON. The count in a stamp needs no bytes: the nth message of an origin, in the order of delivery, has count n.
//!
//! **The same message?** Of messages in memory the keys are compared. Of the others the hashes alone: with ten million messages in
//! a room, a new message is taken for a repeat of an old one once in a million million times. Reading the old one from the disk first
//! would make each message that a client sends again wait for the disk.
//!
//! With ten million messages in one room (2.8 GB of log) a server takes 200 MiB, and is ready 4 s after its start: 6 s of two
//! processors' time.
//!
//! Leaves out: an index on disk. The columns are made anew at each start, from the whole log, since each checksum is looked
//! at: by all processors, but for the table of keys, which one thread fills. And they grow with the history. After a start no message is
//! in memory until one is said.
//! The designs `sequencer` and `raft` keep theirs in memory, packed: see
//! [`replicated::messages`](crate::server::total_order::replicated::messages).

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

pub use outlines::Outlines;
use texts::Texts;

use super::columns::ascending::Ascending;
use super::columns::keys::Keys;
use super::ids::Incarnation;
use super::message::Message;
use super::stamped_chat::WrittenChat;
use super::vector_clock::VectorClock;

mod outlines;
mod texts;

/// The hash of a message that has no key.
const NO_KEY: u64 = 0;
/// So many places are entered into the table of keys in one go: it fits the processor's cache.
const INDEX_AT_ONCE: usize = 1 << 18;
/// How many bits of the hash divide more of them into parts.
const INDEX_PART_BITS: u32 = 4;

/// The delivered messages of a room; see the module. Places count from 0.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Who stamped here; the columns name them by their number.
    names: Vec<Incarnation>,
    numbers: BTreeMap<Incarnation, u16>,
    /// Whose message stands at each place.
    origins: Vec<u16>,
    /// Where the messages of each origin stand.
    by_origin: Vec<Ascending>,
    /// Hash of the key of each message, [`NO_KEY`] when it has none.
    hashes: Vec<u64>,
    /// The places from here on have yet to be entered into `keys`.
    unindexed: usize,
    /// Finds the message that is shown by its key.
    keys: Keys,
    /// The record of each message, as far as it was told.
    records: Ascending,
    /// Places of messages that have repeats, each with all its places: its own, then the repeats'.
    repeated: BTreeMap<usize, Vec<usize>>,
    /// Which message a repeat repeats.
    repeats: BTreeMap<usize, usize>,
    /// The last messages, as JSON.
    tail: Texts,
    /// The last of these, which are shown soon.
    fresh: VecDeque<Fresh>,
}

/// What showing a message takes besides its JSON, so that it need not be read.
#[derive(Clone, Copy, Debug)]
struct Fresh {
    count: u64,
    timestamp: Option<u64>,
    shown_bytes: usize,
}

/// Says that no message with a key is here; see [`History::find`].
#[derive(Clone, Copy, Debug)]
pub struct Absent {
    hash: u64,
}

/// The hash of a key of duplicates; see [`History::hash_all`].
#[derive(Clone, Copy, Debug)]
pub struct KeyHash(u64);

/// What the columns keep of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline<'a> {
    /// Who stamped it.
    pub origin: &'a str,
    /// Its number among those of `origin`, from 1.
    pub count: u64,
    /// Its key of duplicates: the session, and the message id.
    pub key: Option<(&'a str, &'a str)>,
}

impl<'a> Outline<'a> {
    /// That of `msg`; `None` when it is not stamped.
    pub fn of(msg: &'a Message) -> Option<Self> {
        let (origin, count) = msg.stamp()?;
        Some(Self { origin: origin.as_str(), count, key: msg.duplicate_key() })
    }
}

impl History {
    /// How many messages were delivered, repeats included.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// How many messages people see: those delivered, repeats not counted.
    pub fn shown_count(&self) -> usize {
        self.keys.len()
    }

    /// The message at `place`, if it is in memory.
    pub fn get(&self, place: usize) -> Option<Message> {
        // If it could not be read, it would be sought on the disk.
        Message::decode(self.json_at(place)?).ok()
    }

    fn json_at(&self, place: usize) -> Option<&[u8]> {
        self.tail.get(place.checked_sub(self.first_in_memory())?)
    }

    fn fresh_at(&self, place: usize) -> Option<&Fresh> {
        let first = self.len() - self.fresh.len();
        self.fresh.get(place.checked_sub(first)?)
    }

    /// What members see of the message at `place`, and when it was stamped, if it was not [`shown`](Self::shown) yet: for
    /// [`push_delivered`](super::stamped_chat::push_delivered).
    pub fn to_show(&self, place: usize) -> Option<(&[u8], Option<u64>)> {
        let fresh = self.fresh_at(place)?;
        Some((self.json_at(place)?.get(..fresh.shown_bytes)?, fresh.timestamp))
    }

    /// The first place whose message is in memory, and so are all behind it.
    pub fn first_in_memory(&self) -> usize {
        self.len() - self.tail.len()
    }

    /// The messages in memory, in the order of delivery.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Message> {
        (self.first_in_memory()..self.len()).filter_map(|place| self.get(place))
    }

    /// Appends `chat`. Returns its place; `None` when it is not the next one of its origin.
    pub fn push(&mut self, chat: &WrittenChat) -> Option<usize> {
        self.index();
        match chat.outline.key.map(|(session, message_id)| self.find(session, message_id)) {
            Some(Ok(first)) => {
                let hash = self.hashes[first];
                self.push_found(chat, hash, Some(first))
            }
            Some(Err(absent)) => self.push_absent(chat, absent),
            None => self.push_found(chat, NO_KEY, None),
        }
    }

    /// [`push`](Self::push) of a message whose key is not here, as [`find`](Self::find) has said since the last one came.
    pub fn push_absent(&mut self, chat: &WrittenChat, absent: Absent) -> Option<usize> {
        self.push_found(chat, absent.hash, None)
    }

    fn push_found(&mut self, chat: &WrittenChat, hash: u64, first: Option<usize>) -> Option<usize> {
        self.index();
        let number = self.number_of(chat.outline.origin)?;
        let place = self.append(number, chat.outline.count, hash)?;
        self.enter(place, first);
        self.tail.push(chat.json);
        let (count, timestamp, shown_bytes) =
            (chat.outline.count, chat.timestamp, chat.shown_bytes);
        self.fresh.push_back(Fresh { count, timestamp, shown_bytes });
        Some(place)
    }

    /// Appends messages of the log that are to be read back when they are wanted; their part of the log stands behind `before`
    /// records. What is not the next one of its origin is left out. They are found by their keys after [`index`](Self::index).
    /// Returns the latest timestamp of those that were taken, in milliseconds since 1970; 0 when there is none.
    pub fn push_outlines(&mut self, outlines: &Outlines, before: u64) -> u64 {
        self.tail.release(self.tail.len());
        self.fresh.clear();
        let numbers: Vec<Option<u16>> =
            outlines.origins.iter().map(|origin| self.number_of(origin.as_str())).collect();
        let mut latest_ms = 0;
        for row in &outlines.rows {
            let Some(number) = numbers[row.origin as usize] else { continue };
            if self.append(number, row.count, row.hash).is_some() {
                self.wrote(before + u64::from(row.record));
                latest_ms = row.timestamp_ms.max(latest_ms);
            }
        }
        latest_ms
    }

    /// Enters what was pushed without a message into the table of keys. All at once: a table that has its size at once, and
    /// is filled one part after the other, takes a fifth of the time.
    pub fn index(&mut self) {
        let places = self.unindexed..self.len();
        if places.is_empty() {
            return;
        }
        self.keys.reserve(self.len());
        let is_small = places.len() < INDEX_AT_ONCE;
        for part in 0..if is_small { 1 } else { 1 << INDEX_PART_BITS } {
            for place in places.clone() {
                let hash = self.hashes[place];
                // The highest bits, since these choose a shard of the table.
                let is_due = is_small || hash >> (u64::BITS - INDEX_PART_BITS) == part;
                if is_due && hash != NO_KEY {
                    let first = self.keys.find(hash, &self.hashes, |_| true);
                    self.enter(place, first);
                }
            }
        }
        self.unindexed = places.end;
    }

    /// The message at `place` repeats the one at `first`, or is the first with its key.
    fn enter(&mut self, place: usize, first: Option<usize>) {
        if let Some(first) = first {
            self.repeated.entry(first).or_insert_with(|| vec![first]).push(place);
            self.repeats.insert(place, first);
        } else if self.hashes[place] != NO_KEY {
            // `append` has refused what does not fit.
            self.keys.insert(place as u32, &self.hashes);
        }
        self.unindexed = place + 1;
    }

    /// Appends the `count`-th message of the origin with this number to the columns.
    fn append(&mut self, number: u16, count: u64, hash: u64) -> Option<usize> {
        let place = self.len();
        let places = self.by_origin.get_mut(usize::from(number))?;
        // A place that fits no slot of the table would need a terabyte of log before.
        if count != places.len() as u64 + 1 || u32::try_from(place).is_err() {
            return None;
        }
        places.push(place as u64);
        self.origins.push(number);
        self.hashes.push(hash);
        Some(place)
    }

    /// How many messages of `origin` were delivered.
    pub fn count_of(&self, origin: &Incarnation) -> u64 {
        let number = self.numbers.get(origin);
        number.map_or(0, |number| self.by_origin[usize::from(*number)].len() as u64)
    }

    /// The number of `origin`, a new one if need be. `None` when there are too many: a clock with so many entries would fit no
    /// frame long before.
    fn number_of(&mut self, origin: &str) -> Option<u16> {
        let last = self.origins.last().copied();
        if let Some(last) = last.filter(|last| self.names[usize::from(*last)].as_str() == origin) {
            return Some(last);
        }
        if let Some(number) = self.numbers.get(origin) {
            return Some(*number);
        }
        let number = u16::try_from(self.names.len()).ok()?;
        self.names.push(origin.into());
        self.numbers.insert(origin.into(), number);
        self.by_origin.push(Ascending::default());
        Some(number)
    }

    /// The message that was appended last is the record `record` of the log, or of what the log held at the start.
    pub fn wrote(&mut self, record: u64) {
        if self.records.len() < self.len() {
            self.records.push(record);
        }
    }

    /// The record of the message at `place`.
    pub fn record_of(&self, place: usize) -> Option<u64> {
        self.records.get(place)
    }

    /// The place of the message that is the record `record`.
    pub fn place_of_record(&self, record: u64) -> Option<usize> {
        let place = self.records.rank(record);
        (self.records.get(place) == Some(record)).then_some(place)
    }

    /// The messages before `place` were shown: they are not wanted soon any more.
    pub fn shown(&mut self, place: usize) {
        let wanted = self.len().saturating_sub(place);
        self.fresh.drain(..self.fresh.len().saturating_sub(wanted));
    }

    /// Lets go of the message at `place`, and of all before it; they must be on disk.
    pub fn release(&mut self, place: usize) {
        let count = (place + 1).saturating_sub(self.first_in_memory()).min(self.tail.len());
        self.tail.release(count);
        self.fresh.drain(..self.fresh.len().saturating_sub(self.tail.len()));
    }

    /// The stamp of the message at `place`, which must be one of the history.
    pub fn stamp_at(&self, place: usize) -> (&Incarnation, u64) {
        let number = usize::from(self.origins[place]);
        let count = match self.fresh_at(place) {
            Some(fresh) => fresh.count,
            None => self.by_origin[number].rank(place as u64) as u64 + 1,
        };
        (&self.names[number], count)
    }

    /// The last stamp of each origin at `places`.
    pub fn last_stamps(&self, places: Range<usize>) -> Vec<(&Incarnation, u64)> {
        let mut numbers: Vec<u16> = Vec::new();
        let mut stamps = Vec::new();
        for place in places.rev() {
            let number = self.origins[place];
            if !numbers.contains(&number) {
                numbers.push(number);
                stamps.push(self.stamp_at(place));
            }
        }
        stamps
    }

    /// Where the message of `origin` with `count` stands.
    pub fn place_of_stamp(&self, origin: &Incarnation, count: u64) -> Option<usize> {
        let places = &self.by_origin[usize::from(*self.numbers.get(origin)?)];
        let place = places.get(usize::try_from(count.checked_sub(1)?).ok()?)?;
        usize::try_from(place).ok()
    }

    /// The first place that `have` does not count; the end when it counts all.
    pub fn first_beyond(&self, have: &VectorClock) -> usize {
        let next = self
            .names
            .iter()
            .filter_map(|origin| self.place_of_stamp(origin, have.get(origin).saturating_add(1)));
        next.min().unwrap_or(self.len())
    }

    /// What the messages before `place` count.
    pub fn clock_before(&self, place: usize) -> VectorClock {
        let mut clock = VectorClock::new();
        for (origin, places) in self.names.iter().zip(&self.by_origin) {
            clock.raise(origin, places.rank(place as u64) as u64);
        }
        clock
    }

    /// The places of at most `limit` messages that someone at `have` lacks, in the order of delivery.
    pub fn lacking(&self, have: &VectorClock, limit: usize) -> Vec<usize> {
        let mut places: Vec<usize> = Vec::new();
        for (origin, known) in self.names.iter().zip(&self.by_origin) {
            let seen = usize::try_from(have.get(origin)).unwrap_or(usize::MAX);
            // `limit` of each are enough: no more are returned in all.
            places.extend(known.iter_from(seen).take(limit).map(|place| place as usize));
        }
        places.sort_unstable();
        places.truncate(limit);
        places
    }

    /// The place that is shown of the message with this key.
    pub fn place_of(&self, session: &str, message_id: &str) -> Option<usize> {
        self.find(session, message_id).ok()
    }

    /// [`place_of`](Self::place_of), for who appends the message when it is not here.
    pub fn find(&self, session: &str, message_id: &str) -> Result<usize, Absent> {
        self.find_hashed(session, message_id, KeyHash(hash_of(session, message_id)))
    }

    /// For who seeks several keys of one session: the hash of each, and that they are found sooner. With a million messages in
    /// a room a seventh of a busy server's time, all of it under the node's lock, was to wait for the memory that a key is sought in.
    pub fn hash_all<'a>(
        &self,
        session: &str,
        message_ids: impl Iterator<Item = &'a str>,
    ) -> Vec<KeyHash> {
        let hashes: Vec<_> = message_ids.map(|id| KeyHash(hash_of(session, id))).collect();
        if hashes.len() > 1 {
            self.keys.fetch(hashes.iter().map(|hash| hash.0));
        }
        hashes
    }

    /// [`find`](Self::find) of a key with this hash.
    pub fn find_hashed(
        &self,
        session: &str,
        message_id: &str,
        KeyHash(hash): KeyHash,
    ) -> Result<usize, Absent> {
        let found = self.keys.find(hash, &self.hashes, |place| {
            self.get(place).is_none_or(|msg| msg.duplicate_key() == Some((session, message_id)))
        });
        found.ok_or(Absent { hash })
    }

    /// All places of the message at `place`: the one that is shown, then its repeats.
    pub fn places_of_same(&self, place: usize) -> impl Iterator<Item = usize> {
        let first = self.repeats.get(&place).copied().unwrap_or(place);
        let repeats = self.repeated.get(&first).map(|places| &places[1..]);
        std::iter::once(first).chain(repeats.into_iter().flatten().copied())
    }

    /// Whether the message at `place` repeats an earlier one under another stamp.
    pub fn is_repeat(&self, place: usize) -> bool {
        self.repeats.contains_key(&place)
    }

    /// The place from which on `limit` messages, repeats not counted, stand before `end`; 0 when there are fewer.
    pub fn last_before(&self, end: usize, limit: usize) -> usize {
        let mut first = end.saturating_sub(limit);
        loop {
            let repeats = self.repeats.range(first..end).count();
            let wanted = end.saturating_sub(limit.saturating_add(repeats));
            if wanted == first {
                return first;
            }
            first = wanted;
        }
    }

    /// How many messages from `first` on and before `end` are to be shown to someone who was shown all that `after` counts.
    pub fn count_beyond(&self, first: usize, end: usize, after: &VectorClock) -> usize {
        let mut count = 0;
        for (origin, places) in self.names.iter().zip(&self.by_origin) {
            let seen = usize::try_from(after.get(origin)).unwrap_or(usize::MAX);
            let begin = places.rank(first as u64).max(seen);
            count += places.rank(end as u64).saturating_sub(begin);
        }
        let is_covered = |place: usize| {
            let (origin, count) = self.stamp_at(place);
            after.get(origin) >= count
        };
        // Counted by its own stamp, and yet not shown: a repeat, and what was shown under another stamp.
        let wrongly = self.repeated.values().map(|places| {
            let seen = places.iter().any(|place| is_covered(*place));
            let counted = |place: &&usize| (first..end).contains(place) && !is_covered(**place);
            let hidden = places.iter().skip(usize::from(!seen)).filter(counted);
            hidden.count()
        });
        count - wrongly.sum::<usize>()
    }
}

fn hash_of_key(key: Option<(&str, &str)>) -> u64 {
    key.map_or(NO_KEY, |(session, message_id)| hash_of(session, message_id))
}

fn hash_of(session: &str, message_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (session, message_id).hash(&mut hasher);
    hasher.finish().max(NO_KEY + 1)
}

#[cfg(test)]
#[path = "history/tests.rs"]
mod tests;
