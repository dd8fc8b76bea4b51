//! How long the sequencer waits for what.

use std::time::Duration;

/// Durations of the design `sequencer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderingTiming {
    /// From one HEARTBEAT of the leader to the next; the caller's ticker.
    pub heartbeat_interval: Duration,
    /// Silence after which a follower has no leader, and after which a leader without a majority's answers leads no more.
    pub leader_timeout: Duration,
    /// A nomination without progress is given up after this long, and so is handing over. Backing off starts with half of it and
    /// doubles up to eight times that.
    pub election_timeout: Duration,
    /// How long a higher id must have been level with the leader before it is handed the lead.
    pub handover_after: Duration,
}

impl Default for OrderingTiming {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            leader_timeout: Duration::from_millis(600),
            election_timeout: Duration::from_millis(1000),
            handover_after: Duration::from_millis(1000),
        }
    }
}

impl OrderingTiming {
    /// The intervals of total-order-chat.txt: heartbeats every 800 ms, a leader is missed after 2.5 s.
    pub fn document() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(800),
            leader_timeout: Duration::from_millis(2500),
            election_timeout: Duration::from_millis(2500),
            handover_after: Duration::from_millis(5000),
        }
    }

    /// Between two ticks: more than this means that this server slept.
    pub(super) fn asleep_after(&self) -> Duration {
        self.leader_timeout / 2
    }

    /// A leader that was heard this recently is not thrown out. Shorter than the timeout, since followers hear the last
    /// heartbeat of a dead leader at different times.
    pub(super) fn loyalty(&self) -> Duration {
        self.leader_timeout * 2 / 3
    }
}
