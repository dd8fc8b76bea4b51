//! Which message has this key? A hash table that holds places alone.
//!
//! ```text
//!   hash of (session, message id) ──▶ shard ──▶ slot  │ c7 · 7 │ – │ 1e · 3 │ 52 · 12 │ – │    at most 4 of 5 are taken
//!                                                           tag ┘    └ its hash stands in the list of hashes, at 3
//! ```
//!
//! A tag is one byte of the hash: without it each step of a search would look into the list of hashes, somewhere in memory. It took
//! 13 such steps for a key that is not there, and most are not; now it takes a fifth of one.
//!
//! 5 bytes a slot, so 6 to 10 bytes a message, besides the 8 bytes of its hash. A shard grows by itself: with ten million
//! messages that moves some 40,000 places, and not all of them.

use std::iter;

/// The tag of a free slot.
const FREE: u8 = 0;
/// Above so many keys they are spread over [`SHARDS`]: a small room should not pay for them.
const UNSHARDED_MAX: usize = 16_384;
/// How many shards a large table has.
const SHARDS: usize = 256;

/// A hash table of places; see the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// One, or [`SHARDS`]; none while it is empty.
    shards: Vec<Shard>,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    tags: Vec<u8>,
    places: Vec<u32>,
    taken: usize,
}

impl Keys {
    /// How many places it holds.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The place with `hash` that `is_it`; `hashes` tells the hash of each place.
    pub(crate) fn find(
        &self,
        hash: u64,
        hashes: &[u64],
        is_it: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.with_hash(hash, hashes).find(|place| is_it(*place))
    }

    /// All places with `hash`, in no order.
    pub(crate) fn with_hash(&self, hash: u64, hashes: &[u64]) -> impl Iterator<Item = usize> {
        let shard = self.shards.get(shard_of(hash, self.shards.len()));
        let (tag, mut at) = (tag_of(hash), shard.map_or(0, |shard| shard.first_slot(hash)));
        iter::from_fn(move || {
            let shard = shard?;
            loop {
                let found = *shard.tags.get(at).filter(|tag| **tag != FREE)?;
                let place = shard.places[at] as usize;
                at = shard.next_slot(at);
                if found == tag && hashes[place] == hash {
                    return Some(place);
                }
            }
        })
    }

    /// Makes room for `count` places in an empty table.
    pub(crate) fn reserve(&mut self, count: usize) {
        if self.len == 0 && count > UNSHARDED_MAX {
            // Three of four slots: the shards are not filled evenly.
            let slots = count / SHARDS * 4 / 3 + 8;
            self.shards = (0..SHARDS).map(|_| Shard::of(slots)).collect();
        }
    }

    /// Adds `place`, whose hash stands in `hashes`.
    pub(crate) fn insert(&mut self, place: u32, hashes: &[u64]) {
        if self.shards.is_empty() {
            self.shards = vec![Shard::default()];
        } else if self.len == UNSHARDED_MAX && self.shards.len() == 1 {
            let before = std::mem::replace(&mut self.shards, vec![Shard::default(); SHARDS]);
            for place in before.iter().flat_map(Shard::places) {
                self.shard(place, hashes).insert(place, hashes);
            }
        }
        self.shard(place, hashes).insert(place, hashes);
        self.len += 1;
    }

    fn shard(&mut self, place: u32, hashes: &[u64]) -> &mut Shard {
        let at = shard_of(hashes[place as usize], self.shards.len());
        &mut self.shards[at]
    }
}

/// The highest bits choose the shard, the lowest the slot.
fn shard_of(hash: u64, shards: usize) -> usize {
    if shards == SHARDS { (hash >> (u64::BITS - SHARDS.ilog2())) as usize } else { 0 }
}

/// The byte behind the shard's, and never that of a free slot.
fn tag_of(hash: u64) -> u8 {
    ((hash >> 48) as u8).max(FREE + 1)
}

impl Shard {
    fn of(slots: usize) -> Self {
        Self { tags: vec![FREE; slots], places: vec![0; slots], taken: 0 }
    }

    fn first_slot(&self, hash: u64) -> usize {
        // As if the low half were a fraction of the table: no division, and any size will do.
        ((u64::from(hash as u32) * self.tags.len() as u64) >> u32::BITS) as usize
    }

    fn next_slot(&self, at: usize) -> usize {
        if at + 1 == self.tags.len() { 0 } else { at + 1 }
    }

    fn places(&self) -> impl Iterator<Item = u32> {
        let slots = self.tags.iter().zip(&self.places);
        slots.filter(|(tag, _)| **tag != FREE).map(|(_, place)| *place)
    }

    fn insert(&mut self, place: u32, hashes: &[u64]) {
        if self.taken * 5 >= self.tags.len() * 4 {
            let larger = Self::of((self.tags.len() * 3 / 2).max(8));
            let before = std::mem::replace(self, larger);
            before.places().for_each(|place| self.put(place, hashes));
        }
        self.put(place, hashes);
    }

    /// Takes the next free slot. There is one: at most 4 of 5 are taken.
    fn put(&mut self, place: u32, hashes: &[u64]) {
        let hash = hashes[place as usize];
        let mut at = self.first_slot(hash);
        while self.tags[at] != FREE {
            at = self.next_slot(at);
        }
        (self.tags[at], self.places[at]) = (tag_of(hash), place);
        self.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_inserted_is_found_and_nothing_else() {
        let mut rng = fastrand::Rng::with_seed(1);
        let hashes: Vec<u64> = (0..50_000).map(|_| rng.u64(..)).collect();
        let mut keys = Keys::default();
        assert_eq!(keys.find(1, &hashes, |_| true), None);
        for place in 0..hashes.len() {
            assert_eq!(keys.find(hashes[place], &hashes, |_| true), None);
            keys.insert(place as u32, &hashes);
            assert_eq!(keys.len(), place + 1);
        }
        for (place, hash) in hashes.iter().enumerate() {
            assert_eq!(keys.find(*hash, &hashes, |_| true), Some(place));
        }
        let slots: usize = keys.shards.iter().map(|shard| shard.tags.len()).sum();
        assert!(slots < 2 * hashes.len(), "{slots}");
    }

    #[test]
    fn room_that_was_made_before_is_enough() {
        let mut rng = fastrand::Rng::with_seed(2);
        let hashes: Vec<u64> = (0..100_000).map(|_| rng.u64(..)).collect();
        let mut keys = Keys::default();
        keys.reserve(hashes.len());
        let before = keys.shards[7].tags.len();
        (0..100_000).for_each(|place| keys.insert(place, &hashes));
        assert_eq!((keys.shards[7].tags.len(), keys.len()), (before, hashes.len()));
        assert_eq!(keys.find(hashes[99_999], &hashes, |_| true), Some(99_999));
    }

    #[test]
    fn places_of_one_hash_are_told_apart_by_who_asks() {
        let hashes = [7, 7, 7 + (1 << 40)];
        let mut keys = Keys::default();
        (0..3).for_each(|place| keys.insert(place, &hashes));
        assert_eq!(keys.find(7, &hashes, |place| place == 1), Some(1));
        assert_eq!(keys.find(7, &hashes, |place| place == 2), None);
        assert_eq!(keys.with_hash(7, &hashes).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(keys.find(7 + (1 << 40), &hashes, |_| true), Some(2));
    }
}
