//! Times that belong together, under one name.

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
