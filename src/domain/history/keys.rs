//! Which message has this key? A hash table that holds places alone.
//!
//! ```text
//!   hash of (session, message id) ──▶ shard ──▶ slot  │ 7 │ – │ 3 │ 12 │ – │      places, at most 4 of 5 slots taken
//!                                                           └ its hash stands in the list of hashes, at 3
//! ```
//!
//! 4 bytes a slot, so 5 to 8 bytes a message, besides the 8 bytes of its hash. A shard grows by itself: with ten million
//! messages that moves some 40,000 places, and not all of them.

/// A free slot; a room has fewer messages.
const FREE: u32 = u32::MAX;
/// Above so many keys they are spread over [`SHARDS`]: a small room should not pay for them.
const UNSHARDED_MAX: usize = 16_384;
/// How many shards a large table has.
const SHARDS: usize = 256;

/// A hash table of places; see the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    /// One, or [`SHARDS`]; none while it is empty.
    shards: Vec<Shard>,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Shard {
    slots: Vec<u32>,
    taken: usize,
}

impl Keys {
    /// How many places it holds.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The place with `hash` that `is_it`; `hashes` tells the hash of each place.
    pub(super) fn find(
        &self,
        hash: u64,
        hashes: &[u64],
        is_it: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let shard = self.shards.get(shard_of(hash, self.shards.len()))?;
        let mut at = shard.first_slot(hash);
        loop {
            match *shard.slots.get(at)? {
                FREE => return None,
                place if hashes[place as usize] == hash && is_it(place as usize) => {
                    return Some(place as usize);
                }
                _ => at = shard.next_slot(at),
            }
        }
    }

    /// Adds `place`, whose hash stands in `hashes`.
    pub(super) fn insert(&mut self, place: u32, hashes: &[u64]) {
        if self.shards.is_empty() {
            self.shards = vec![Shard::default()];
        } else if self.len == UNSHARDED_MAX {
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

impl Shard {
    fn first_slot(&self, hash: u64) -> usize {
        // As if the low half were a fraction of the table: no division, and any size will do.
        ((u64::from(hash as u32) * self.slots.len() as u64) >> u32::BITS) as usize
    }

    fn next_slot(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    fn places(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().copied().filter(|place| *place != FREE)
    }

    fn insert(&mut self, place: u32, hashes: &[u64]) {
        if self.taken * 5 >= self.slots.len() * 4 {
            let size = (self.slots.len() * 3 / 2).max(8);
            let before = std::mem::replace(&mut self.slots, vec![FREE; size]);
            for place in before.into_iter().filter(|place| *place != FREE) {
                self.put(place, hashes);
            }
        }
        self.put(place, hashes);
        self.taken += 1;
    }

    /// Takes the next free slot. There is one: at most 4 of 5 are taken.
    fn put(&mut self, place: u32, hashes: &[u64]) {
        let mut at = self.first_slot(hashes[place as usize]);
        while self.slots[at] != FREE {
            at = self.next_slot(at);
        }
        self.slots[at] = place;
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
        let slots: usize = keys.shards.iter().map(|shard| shard.slots.len()).sum();
        assert!(slots < 2 * hashes.len(), "{slots}");
    }

    #[test]
    fn places_of_one_hash_are_told_apart_by_who_asks() {
        let hashes = [7, 7, 7 + (1 << 40)];
        let mut keys = Keys::default();
        (0..3).for_each(|place| keys.insert(place, &hashes));
        assert_eq!(keys.find(7, &hashes, |place| place == 1), Some(1));
        assert_eq!(keys.find(7, &hashes, |place| place == 2), None);
        assert_eq!(keys.find(7 + (1 << 40), &hashes, |_| true), Some(2));
    }
}
