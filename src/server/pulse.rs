//! How regular this server is and how calm its cluster: the figures by which timeouts are chosen.
//!
//! A heartbeat that comes late looks to others like a server that is gone, so `status` tells how late they were. The
//! lateness of a heartbeat is what the pause before it was longer than the interval: what the others see of it, whether the
//! thread was woken late or waited for the node's lock. And it counts how often another election was followed. Nobody
//! died and the count went up: an election for nothing, and the timeouts are too short for this machine.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::domain::content::Lateness;
use crate::domain::{NodeId, Term};

/// The last minute is remembered in parts of this length.
const PART: Duration = Duration::from_secs(10);
/// So many parts are a minute.
const PARTS: usize = 6;

/// What is known of this server's heartbeats and of who led.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    last_beat: Option<Instant>,
    /// The worst of each part of the last minute, and when the part began.
    parts: VecDeque<(Instant, Duration)>,
    worst: Duration,
    followed: Option<(Term, NodeId)>,
    /// How often another leader, or the same in another term, was followed after the first.
    pub(super) leader_changes: u64,
}

impl Pulse {
    /// A heartbeat is sent at `now`, and one is due every `interval`.
    pub(super) fn beat(&mut self, now: Instant, interval: Duration) {
        let late = self.last_beat.replace(now).map_or(Duration::ZERO, |last| {
            now.saturating_duration_since(last).saturating_sub(interval)
        });
        self.worst = self.worst.max(late);
        match self.parts.back_mut() {
            Some((began, worst)) if now < *began + PART => *worst = late.max(*worst),
            _ => self.parts.push_back((now, late)),
        }
        if self.parts.len() > PARTS {
            self.parts.pop_front();
        }
    }

    /// How late heartbeats were.
    pub(super) fn lateness(&self, now: Instant) -> Lateness {
        let recent = self.parts.iter().filter(|(began, _)| now < *began + PART * PARTS as u32);
        let recent = recent.map(|(_, worst)| *worst).max().unwrap_or_default();
        let ms = |late: Duration| u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
        Lateness { last_minute_ms: ms(recent), since_start_ms: ms(self.worst) }
    }

    /// `leader` is followed in `term`.
    pub(super) fn follow(&mut self, term: Option<&Term>, leader: Option<&NodeId>) {
        let Some(now) = term.cloned().zip(leader.cloned()) else { return };
        let former = self.followed.replace(now);
        self.leader_changes += u64::from(former.is_some() && former != self.followed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Instant {
        start() + Duration::from_millis(ms)
    }

    fn late(pulse: &Pulse, ms: u64) -> (u64, u64) {
        let Lateness { last_minute_ms, since_start_ms } = pulse.lateness(at(ms));
        (last_minute_ms, since_start_ms)
    }

    #[test]
    fn a_late_heartbeat_counts_for_a_minute_and_in_the_worst_for_ever() {
        let mut pulse = Pulse::default();
        assert_eq!(late(&pulse, 0), (0, 0));
        for ms in [0, 100, 230, 300] {
            pulse.beat(at(ms), INTERVAL);
        }
        assert_eq!(late(&pulse, 300), (30, 30), "one that is early again does not undo it");
        for ms in (400..=61_000).step_by(100) {
            pulse.beat(at(ms), INTERVAL);
        }
        assert_eq!(late(&pulse, 61_000), (0, 30));
        pulse.beat(at(61_107), INTERVAL);
        assert_eq!(late(&pulse, 61_200), (7, 30));
        assert!(pulse.parts.len() <= PARTS);
    }

    #[test]
    fn the_first_leader_is_no_change_and_the_same_in_another_term_is_one() {
        let mut pulse = Pulse::default();
        let term = |counter| Term { counter, leader: "n3.1-0000".into() };
        pulse.follow(Some(&term(1)), None);
        pulse.follow(Some(&term(1)), Some(&"n3".into()));
        pulse.follow(Some(&term(1)), None);
        pulse.follow(Some(&term(1)), Some(&"n3".into()));
        assert_eq!(pulse.leader_changes, 0);
        pulse.follow(Some(&term(2)), Some(&"n3".into()));
        assert_eq!(pulse.leader_changes, 1);
    }
}
