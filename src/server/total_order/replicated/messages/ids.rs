//! Where the messages with an id stand: asked by a deletion, and by nobody else.
//!
//! ```text
//!   hash of the id ──▶ each segment's table ──▶ places with that hash: the ids there are compared by who asks
//! ```
//!
//! A segment is for a quarter of a million messages. So nothing grows by being copied as a whole, and to forget is to let the first
//! segment go. A look-up asks each: with ten million messages that are forty tables. Price: 16 to 20 bytes a message.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::domain::columns::ascending::Ascending;
use crate::domain::columns::keys::Keys;
use crate::server::total_order::Seq;

/// How many messages a segment is for.
const SEGMENT_MAX: usize = 1 << 18;

/// The places of message ids; see the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    segments: VecDeque<Segment>,
}

#[derive(Clone, Debug, Default)]
struct Segment {
    places: Ascending,
    /// The hash of the id at each place.
    hashes: Vec<u64>,
    /// Finds the index of a place by it.
    keys: Keys,
}

impl Ids {
    /// The message at `seq`, behind all others, has this id.
    pub(super) fn push(&mut self, message_id: &str, seq: Seq) {
        if self.segments.back().is_none_or(|segment| segment.places.len() >= SEGMENT_MAX) {
            self.segments.push_back(Segment::default());
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.places.push(seq);
            segment.hashes.push(hash_of(message_id));
            // A segment has fewer places than fit.
            segment.keys.insert((segment.hashes.len() - 1) as u32, &segment.hashes);
        }
    }

    /// Places where a message with this id may stand, in order. Some of them may be forgotten.
    pub(super) fn candidates(&self, message_id: &str) -> Vec<Seq> {
        let hash = hash_of(message_id);
        let found = self.segments.iter().flat_map(|segment| {
            let indexes = segment.keys.with_hash(hash, &segment.hashes);
            indexes.filter_map(|index| segment.places.get(index))
        });
        let mut found: Vec<Seq> = found.collect();
        found.sort_unstable();
        found
    }

    /// Forgets what stands up to the place `seq`, as far as whole segments do.
    pub(super) fn forget_up_to(&mut self, seq: Seq) {
        while self.segments.front().is_some_and(|segment| segment.places.last() <= Some(seq)) {
            self.segments.pop_front();
        }
    }
}

fn hash_of(message_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    message_id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_all_segments_until_their_segment_is_forgotten() {
        let mut ids = Ids::default();
        let last = 2 * SEGMENT_MAX as Seq + 10;
        for seq in 1..=last {
            let id = if seq % 100_000 == 0 { "often".into() } else { format!("id-{seq}") };
            ids.push(&id, 2 * seq);
        }
        assert_eq!(ids.segments.len(), 3);
        assert_eq!(ids.candidates("often"), [200_000, 400_000, 600_000, 800_000, 1_000_000]);
        assert_eq!(ids.candidates("id-7"), [14]);
        assert_eq!(ids.candidates("id-0"), [0; 0]);
        ids.forget_up_to(2 * SEGMENT_MAX as Seq);
        assert_eq!(ids.candidates("often"), [600_000, 800_000, 1_000_000]);
        assert_eq!(ids.candidates("id-7"), [0; 0]);
        ids.forget_up_to(2 * last);
        assert!(ids.segments.is_empty());
    }
}
