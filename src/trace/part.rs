//! A part of a merged trace: what happened around a moment, small enough to be drawn.
//!
//! ```text
//!   n1 ──●─────leads──┊──●────●──┊──●──     Only what stands between the bars is left. How each server stood there
//!   n2 ─────●──follows┊────●─────┊●────     is repeated at the beginning.
//! ```

use std::collections::BTreeMap;
use std::ops::Range;

use super::event::{Kind, TraceEvent};
use super::merge::Merged;

impl Merged {
    /// The first event at `time_us` or later, as an index of `events`.
    pub fn place_at(&self, time_us: u64) -> usize {
        self.times_us.partition_point(|time| *time < time_us)
    }

    /// The events in `range`, behind how each server stood before them.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        let standing = self.standing_before(range.start);
        let first_us = self.times_us.get(range.start).copied().unwrap_or_default();
        let (count, head) = (self.events.len(), standing.len());
        let repeated = standing.into_iter().map(|event| TraceEvent { time_us: first_us, ..event });
        let place = |at: usize| range.contains(&at).then(|| at - range.start + head);
        let pairs = self.pairs.iter().filter_map(|(from, to)| Some((place(*from)?, place(*to)?)));
        let mut part = Self {
            events: repeated.chain(self.events[range.clone()].iter().cloned()).collect(),
            times_us: vec![first_us; head],
            pairs: pairs.collect(),
            nodes: self.nodes.clone(),
            cluster: self.cluster.clone(),
            design: self.design.clone(),
            notes: self.notes.clone(),
        };
        part.times_us.extend_from_slice(&self.times_us[range.clone()]);
        if range.len() < count {
            part.notes.push(format!("a part of the traces: {} of {count} events", range.len()));
        }
        part
    }

    /// The last event of each server before `place` that says how it stands: its state, or that it is down.
    fn standing_before(&self, place: usize) -> Vec<TraceEvent> {
        let mut last: BTreeMap<&str, &TraceEvent> = BTreeMap::new();
        for event in &self.events[..place] {
            let tells = match event.kind {
                Kind::State | Kind::Start | Kind::Stop | Kind::Crash | Kind::Pause => true,
                // How it stood before it slept is further back; it is not known to stand anywhere.
                Kind::Wake => {
                    last.remove(event.node.as_str());
                    false
                }
                _ => false,
            };
            if tells {
                last.insert(&event.node, event);
            }
        }
        last.into_values().cloned().collect()
    }
}
