//! Which message has this key? A hash table that holds places alone.
//!
//! ```text
//!   hash of (session, message id) ──▶ shard ──▶ bucket  │ tags  c7 1e 52 –  …  │ places  7  3  12  –  … │    64 bytes, 12 slots
//!                                                          └ one byte of the hash   └ its hash stands in the list of hashes, at 7
//! ```
//!
//! Most keys are not there, and the next thing is to enter them. Each look somewhere else in memory costs as much as to write the whole
//! message down; so there is one: a bucket is what the processor fetches at once, and without the tags each place in it would have
//! to be looked up in the list of hashes. A full bucket spills into the next one.
//!
//! 64 bytes for 12 slots of which at most 4 of 5 are taken: 7 to 10 bytes a message, besides the 8 bytes of its hash. A shard grows by
//! itself: with ten million messages that moves some 40,000 places, and not all of them.

use std::hint::black_box;
use std::{iter, mem};

/// The tag of a free slot.
const FREE: u8 = 0;
/// Above so many keys they are spread over [`SHARDS`]: a small room should not pay for them.
const UNSHARDED_MAX: usize = 16_384;
/// How many shards a large table has.
const SHARDS: usize = 256;
/// So many slots fit 64 bytes.
const BUCKET_SLOTS: usize = 12;

/// A hash table of places; see the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// One, or [`SHARDS`]; none while it is empty.
    shards: Vec<Shard>,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    buckets: Vec<Bucket>,
    taken: usize,
}

/// Slots that are filled from the first on.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Bucket {
    tags: [u8; BUCKET_SLOTS],
    places: [u32; BUCKET_SLOTS],
}

impl Bucket {
    fn is_full(&self) -> bool {
        self.tags[BUCKET_SLOTS - 1] != FREE
    }

    /// The places that are in it, with their tags.
    fn taken(&self) -> impl Iterator<Item = (u8, u32)> {
        let slots = self.tags.iter().copied().zip(self.places);
        slots.take_while(|(tag, _)| *tag != FREE)
    }
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
        let shard = self.shards.get(shard_of(hash, self.shards.len()))?;
        let (tag, mut at) = (tag_of(hash), shard.first_bucket(hash));
        loop {
            let bucket = shard.buckets.get(at)?;
            for (found, place) in bucket.taken() {
                let place = place as usize;
                if found == tag && hashes[place] == hash && is_it(place) {
                    return Some(place);
                }
            }
            if !bucket.is_full() {
                return None;
            }
            at = shard.next_bucket(at);
        }
    }

    /// Brings where [`find`](Self::find) looks for `hashes` into the processor's cache. In a large table each alone waits for the
    /// memory; asked for in one go, with nothing that depends on the answer, they come side by side.
    pub(crate) fn fetch(&self, hashes: impl Iterator<Item = u64>) {
        let tags = hashes.filter_map(|hash| {
            let shard = self.shards.get(shard_of(hash, self.shards.len()))?;
            shard.buckets.get(shard.first_bucket(hash)).map(|bucket| bucket.tags[0])
        });
        black_box(tags.fold(FREE, |all, tag| all ^ tag));
    }

    /// All places with `hash`, in no order.
    pub(crate) fn with_hash(&self, hash: u64, hashes: &[u64]) -> impl Iterator<Item = usize> {
        let shard = self.shards.get(shard_of(hash, self.shards.len()));
        let first = shard.map(|shard| (shard, shard.first_bucket(hash)));
        let buckets = iter::successors(first, |(shard, at)| {
            shard.buckets.get(*at).filter(|bucket| bucket.is_full())?;
            Some((*shard, shard.next_bucket(*at)))
        });
        let buckets = buckets.filter_map(|(shard, at)| shard.buckets.get(at));
        let tagged = buckets.flat_map(Bucket::taken).filter(move |(tag, _)| *tag == tag_of(hash));
        tagged.map(|(_, place)| place as usize).filter(move |place| hashes[*place] == hash)
    }

    /// Makes room for `count` places in an empty table.
    pub(crate) fn reserve(&mut self, count: usize) {
        if self.len == 0 && count > UNSHARDED_MAX {
            // Three of four slots: the shards are not filled evenly.
            let buckets = (count / SHARDS * 4 / 3).div_ceil(BUCKET_SLOTS) + 1;
            self.shards = (0..SHARDS).map(|_| Shard::of(buckets)).collect();
        }
    }

    /// Adds `place`, whose hash stands in `hashes`.
    pub(crate) fn insert(&mut self, place: u32, hashes: &[u64]) {
        if self.shards.is_empty() {
            self.shards = vec![Shard::default()];
        } else if self.len == UNSHARDED_MAX && self.shards.len() == 1 {
            let before = mem::replace(&mut self.shards, vec![Shard::default(); SHARDS]);
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
    fn of(buckets: usize) -> Self {
        Self { buckets: vec![Bucket::default(); buckets], taken: 0 }
    }

    fn slots(&self) -> usize {
        self.buckets.len() * BUCKET_SLOTS
    }

    fn first_bucket(&self, hash: u64) -> usize {
        // As if the low half were a fraction of the table: no division, and any size will do.
        ((u64::from(hash as u32) * self.buckets.len() as u64) >> u32::BITS) as usize
    }

    fn next_bucket(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }

    fn places(&self) -> impl Iterator<Item = u32> {
        self.buckets.iter().flat_map(|bucket| bucket.taken().map(|(_, place)| place))
    }

    fn insert(&mut self, place: u32, hashes: &[u64]) {
        if self.taken * 5 >= self.slots() * 4 {
            let larger = Self::of((self.buckets.len() * 3).div_ceil(2).max(1));
            let before = mem::replace(self, larger);
            // Two loops: the hashes stand all over the memory, and come side by side while nothing waits for them.
            let moved: Vec<_> =
                before.places().map(|place| (place, hashes[place as usize])).collect();
            for (place, hash) in moved {
                self.put(place, hash);
            }
        }
        self.put(place, hashes[place as usize]);
    }

    /// Takes the next free slot. There is one: at most 4 of 5 are taken.
    fn put(&mut self, place: u32, hash: u64) {
        let mut at = self.first_bucket(hash);
        while self.buckets[at].is_full() {
            at = self.next_bucket(at);
        }
        let bucket = &mut self.buckets[at];
        let slot = bucket.taken().count();
        (bucket.tags[slot], bucket.places[slot]) = (tag_of(hash), place);
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
        let slots: usize = keys.shards.iter().map(Shard::slots).sum();
        assert!(slots < 2 * hashes.len(), "{slots}");
    }

    #[test]
    fn room_that_was_made_before_is_enough() {
        let mut rng = fastrand::Rng::with_seed(2);
        let hashes: Vec<u64> = (0..100_000).map(|_| rng.u64(..)).collect();
        let mut keys = Keys::default();
        keys.reserve(hashes.len());
        let before = keys.shards[7].slots();
        (0..100_000).for_each(|place| keys.insert(place, &hashes));
        assert_eq!((keys.shards[7].slots(), keys.len()), (before, hashes.len()));
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
