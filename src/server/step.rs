//! What a step of the server is given from outside: the time, the network, the log.

use std::time::Instant;

use crate::network::Network;
use crate::storage::{LogEvent, Storage};

/// The outside world during one step. The shell makes one per lock of the node, the simulator one per event.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    /// The time of the step, for timers.
    pub now: Instant,
    /// The wall clock of the step in milliseconds since 1970, for timestamps that people see; corrected by
    /// [`TimeSync`](super::TimeSync).
    pub wall_ms: u64,
    /// Connections; every call only queues.
    pub cm: &'a dyn Network,
    /// The log; every call only queues.
    pub log: &'a dyn Storage,
}

impl Step<'_> {
    /// The log said so: the trace hears of what is on disk.
    pub fn trace_log(&self, event: &LogEvent) {
        if let (Some(trace), LogEvent::Synced(index)) = (self.cm.trace(), event) {
            trace.synced(*index);
        }
    }
}

/// What becomes of a frame that a connection brought, and of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The frame was taken; go on with the next.
    Done,
    /// The frame cannot be taken yet. Read no further; after
    /// [`Network::resume`] hand in the same frame again.
    Wait,
    /// The connection is over: drop what it brought besides.
    Close,
}
