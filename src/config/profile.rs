//! Times that belong together, under one name.
//!
//! # Why not shorter?
//!
//! A timeout is a bet on how long a server that is well may be silent. Too long, and people wait when a machine dies; too
//! short, and a leader that is well is replaced, for which everybody waits as well. What such a silence is made of is
//! measured: `roundtable status` shows how late a server's own heartbeats were (the thread was woken late, or waited for the
//! node's lock) and how often the leader changed, and `roundtable bench` says both of a cluster under load:
//!
//! ```text
//! roundtable bench writes --design raft --nodes 3 --writes 64x1 --for 10m
//! ```
//!
//! With the defaults seven heartbeats in a row may be late or lost. Most leaders that die do not need the timeout: a
//! process that is killed breaks its connections and refuses new ones, which the others notice at once. The timeout is
//! what it takes when a machine loses its power or its network. Where the worst lateness in `status` stays far below,
//! `--server-timeout-ms` may be shorter. The designs with one order have timeouts of their own for their leader
//! ([`OrderingTiming`](crate::server::ordering::OrderingTiming), [`RaftTiming`](crate::server::raft::RaftTiming)), which are no settings.

use std::str::FromStr;
use std::time::Duration;

use super::usage;
use crate::error::StartError;
use crate::server::failover::HealthTiming;

/// How patient servers are with each other, where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Ours: a dead server is noticed in less than a second.
    Fast,
    /// The times of the reference documents: heartbeats by total-order-chat.txt, health checks by raft-messaging.txt.
    Document,
}

impl FromStr for Profile {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        match text {
            "fast" => Ok(Self::Fast),
            "document" => Ok(Self::Document),
            _ => usage(format!("--profile {text:?} does not exist; choose fast or document")),
        }
    }
}

impl Profile {
    /// How often servers say that they are alive, in milliseconds.
    pub fn heartbeat_interval_ms(self) -> u64 {
        match self {
            Self::Fast => 100,
            Self::Document => 800,
        }
    }

    /// A server silent for so long is dead, in milliseconds.
    pub fn server_timeout_ms(self) -> u64 {
        match self {
            Self::Fast => 800,
            Self::Document => 2500,
        }
    }

    /// How ports are tried, unless the arguments, in milliseconds, say otherwise.
    pub fn health(
        self,
        interval_ms: Option<u64>,
        timeout_ms: Option<u64>,
    ) -> Result<HealthTiming, StartError> {
        let default = match self {
            Self::Fast => HealthTiming::FAST,
            Self::Document => HealthTiming::DOCUMENT,
        };
        let or = |ms: Option<u64>, default| ms.map_or(default, Duration::from_millis);
        let timing = HealthTiming {
            health_check_interval: or(interval_ms, default.health_check_interval),
            health_check_timeout: or(timeout_ms, default.health_check_timeout),
        };
        let (interval, timeout) = (timing.health_check_interval, timing.health_check_timeout);
        if timeout < Duration::from_millis(10) {
            return usage(format!(
                "--health-check-timeout-ms {} is less than 10, which no network keeps",
                timeout.as_millis()
            ));
        }
        if interval < timeout {
            return usage(format!(
                "--health-check-interval-ms {} is less than --health-check-timeout-ms {}; \
                 the next check would be due before the last one ends",
                interval.as_millis(),
                timeout.as_millis()
            ));
        }
        Ok(timing)
    }
}
