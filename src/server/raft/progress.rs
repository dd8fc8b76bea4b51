//! What a leader knows of one other server: `nextIndex` and `matchIndex` of Figure 2, and how to send.
//!
//! ```text
//!              accepted                     next place is before the log's base
//!   Probe ───────────────▶ Replicate              ┌────────────▶ Snapshot
//!     ▲  one request at a    │   as many as fit   │                  │ chunk by chunk
//!     └────── rejected ──────┘   the window       └── has it all ◀───┘
//! ```
//!
//! A new leader does not know where the logs agree, so it asks with one request at a time. Once it knows, it sends
//! on without waiting (pipelining, thesis 10.2.1), at most [`WINDOW_BYTES`] ahead.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Snapshot;
use crate::server::total_order::Seq;

/// Entries in one request, in bytes: small enough to leave room for heartbeats of other servers on a slow link.
pub(super) const BATCH_BYTES: usize = 256 * 1024;

/// Entries under way to one server, in bytes: what a link of 1 Gbit/s holds for 16 ms. More waits in the log.
pub(super) const WINDOW_BYTES: usize = 2 * 1024 * 1024;

/// Applied entries that are at hand as they are, in bytes: what is under way to servers that keep up. Older ones are
/// [packed](crate::server::total_order::EntryLog::pack).
pub(super) const UNPACKED_BYTES: usize = 2 * WINDOW_BYTES;

/// How the leader sends.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Flow {
    /// It looks for the place where the logs agree; `asked` while an answer is awaited, to a request with entries up to
    /// `up_to`.
    Probe { asked: bool, up_to: Seq },
    /// It knows, and sends ahead.
    Replicate,
    /// What comes next is in the log no longer: it sends this snapshot, now from `offset`. A newer one does not take its
    /// place as long as the log goes on from it.
    Snapshot { snapshot: Snapshot, offset: usize, asked: bool },
}

/// One other server.
#[derive(Debug)]
pub(super) struct Progress {
    /// The disk that the configuration names: answers of another one do not count.
    pub(super) disk: String,
    /// Another disk that answered: the server was wiped.
    pub(super) other_disk: Option<String>,
    /// What to send next.
    pub(super) next_index: Seq,
    /// How far its log is known to be the leader's, and on its disk.
    pub(super) match_index: Seq,
    /// How to send.
    pub(super) flow: Flow,
    /// Under way: last place and bytes of each request.
    in_flight: VecDeque<(Seq, usize)>,
    /// When it answered last.
    pub(super) heard: Instant,
    /// The highest round that it answered.
    pub(super) round: u64,
    /// The commit index that was sent last.
    pub(super) sent_commit: Seq,
    /// A round of catching up (thesis 4.2.1): where it ends, and when it began.
    catch_up: (Seq, Instant),
    /// Whether such a round was short.
    pub(super) caught_up: bool,
}

impl Progress {
    /// A server of which nothing is known, on `disk`, in front of a log that ends at `last`.
    pub(super) fn new(disk: &str, last: Seq, now: Instant) -> Self {
        Self {
            disk: disk.into(),
            other_disk: None,
            next_index: last + 1,
            match_index: 0,
            flow: Flow::Probe { asked: false, up_to: 0 },
            in_flight: VecDeque::new(),
            heard: now,
            round: 0,
            sent_commit: 0,
            catch_up: (last, now),
            caught_up: false,
        }
    }

    /// What was under way may be lost: ask where it stands.
    pub(super) fn probe(&mut self, next_index: Seq) {
        self.next_index = next_index.max(self.match_index + 1);
        self.flow = Flow::Probe { asked: false, up_to: 0 };
        self.in_flight.clear();
    }

    /// Whether more may be sent ahead.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.iter().map(|(_, bytes)| bytes).sum::<usize>() < WINDOW_BYTES
    }

    /// Entries up to `last` were sent ahead.
    pub(super) fn sent(&mut self, last: Seq, bytes: usize) {
        self.next_index = last + 1;
        self.in_flight.push_back((last, bytes));
    }

    /// It has everything up to `match_index`, of a log that ends at `last`.
    pub(super) fn accepted(&mut self, match_index: Seq, base: Seq) {
        self.match_index = self.match_index.max(match_index);
        self.in_flight.retain(|(last, _)| *last > match_index);
        let agreed = match self.flow {
            Flow::Probe { .. } => self.match_index + 1 >= self.next_index,
            Flow::Replicate => true,
            Flow::Snapshot { .. } => self.match_index >= base,
        };
        if agreed {
            let asked_up_to = match self.flow {
                Flow::Probe { up_to, .. } => up_to,
                Flow::Replicate | Flow::Snapshot { .. } => 0,
            };
            self.next_index = self.next_index.max(self.match_index + 1).max(asked_up_to + 1);
            self.flow = Flow::Replicate;
        }
    }

    /// It refused what follows `prev_log_index`; try `next_index`. False when the answer is old, or takes back what was
    /// acknowledged, as after a disk that lied: then the next heartbeat asks again. To ask at once would be to ask without end.
    pub(super) fn rejected(&mut self, prev_log_index: Seq, next_index: Seq) -> bool {
        let asked = match self.flow {
            Flow::Probe { .. } => prev_log_index + 1 == self.next_index,
            Flow::Replicate => true,
            Flow::Snapshot { .. } => false,
        };
        let meant = asked && prev_log_index > self.match_index;
        if meant {
            self.probe(next_index.min(prev_log_index));
        }
        meant
    }

    /// Catching up is judged from here on.
    pub(super) fn begin_catch_up(&mut self, last: Seq, now: Instant) {
        (self.caught_up, self.catch_up) = (false, (last, now));
    }

    /// Thesis 4.2.1: a learner is let in when it took what came during one round in less than an election
    /// timeout, since it then delays no commit for longer than an election would.
    pub(super) fn judge_catch_up(&mut self, last: Seq, timeout: Duration, now: Instant) {
        if !self.caught_up && self.match_index >= self.catch_up.0 {
            self.caught_up = now.duration_since(self.catch_up.1) < timeout;
            self.catch_up = (last, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn a_probe_goes_back_once_for_each_answer() {
        let mut progress = Progress::new("d", 10, start());
        assert!(progress.rejected(10, 5));
        assert_eq!(progress.next_index, 5);
        assert!(!progress.rejected(10, 3), "the answer to an older request");
        progress.accepted(4, 0);
        assert_eq!((&progress.flow, progress.next_index), (&Flow::Replicate, 5));
        assert!(!progress.rejected(3, 2), "it is known to have place 4");
    }

    #[test]
    fn who_takes_back_what_it_acknowledged_is_not_asked_without_end() {
        let mut progress = Progress::new("d", 10, start());
        progress.accepted(10, 0);
        progress.probe(11);
        progress.flow = Flow::Probe { asked: true, up_to: 10 };
        assert!(!progress.rejected(10, 5));
        assert_eq!(progress.flow, Flow::Probe { asked: true, up_to: 10 }, "a heartbeat asks again");
    }

    #[test]
    fn the_window_fills_and_empties() {
        let mut progress = Progress::new("d", 0, start());
        progress.accepted(0, 0);
        progress.sent(1, WINDOW_BYTES - 1);
        assert!(progress.has_room());
        progress.sent(2, 1);
        assert!(!progress.has_room());
        progress.accepted(1, 0);
        assert!(progress.has_room());
    }

    #[test]
    fn a_slow_round_of_catching_up_is_followed_by_another() {
        let (timeout, now) = (Duration::from_millis(500), start());
        let mut progress = Progress::new("d", 10, now);
        progress.accepted(10, 0);
        progress.judge_catch_up(30, timeout, now + timeout);
        assert!(!progress.caught_up);
        progress.judge_catch_up(30, timeout, now + timeout);
        assert!(!progress.caught_up, "places 11 to 30 are the next round");
        progress.accepted(30, 0);
        progress.judge_catch_up(30, timeout, now + timeout * 3 / 2);
        assert!(progress.caught_up);
    }
}
