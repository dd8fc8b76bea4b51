//! What time it is, by servers that know.
//!
//! ```text
//!   --ntp a,b,c       a: · · ✗           one round: the servers in turn, from the one that answered last,
//!                     b:     ✓ · · · ·   until one answers
//!                     c:
//!   of its last 8 answers the best one ──▶ offset ──▶ wall_ms(system clock) = time of messages
//! ```
//!
//! The system clock is not touched: what is added to it makes the timestamps of messages. An answer may be wrong by
//! half the time that it was on the way, hence of the last [`SAMPLES`] answers of a server the one with the shortest
//! way counts (the clock filter of RFC 5905, section 10); as clocks drift apart, an old one counts as if it had been
//! longer on the way. When the system clock is set meanwhile, what was measured before no longer counts.
//!
//! Promise: timestamps are off by no more than half the delay and the server's own error, plus some milliseconds of
//! drift. As long as no server has answered, and an hour after the last one did, the system clock serves, and the
//! status says so.
//! Price: one datagram a minute. A server that says RATE is asked half as often, one that says DENY or RSTR never
//! again.
//! Leaves out: comparing servers with each other. One that lies with a straight face is believed, so name servers
//! that you trust; steering the clock's speed; and a system clock that is wrong by more than 68 years.
//!
//! It is pure: `time-sync`, a thread of the [shell](crate::server::shell), asks what to do next, does it with
//! [`sntp::query`](crate::network::sntp::query) while it holds no lock, and hands in what came.
//!
//! Source: raft-messaging.txt, "Time Synchronization"; RFC 5905, RFC 4330.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::domain::content::TimeState;
use crate::network::sntp::{Exchange, KissCode, SntpError};

/// Of how many answers of a server the best one counts.
pub const SAMPLES: usize = 8;
/// How long the last answer counts when no server answers any more.
pub const HOLDOVER: Duration = Duration::from_secs(3600);
/// The longest time from one question to the next, whatever a server asks for.
pub const POLL_INTERVAL_MAX: Duration = Duration::from_secs(1024);
/// By how much an ordinary clock drifts, in millionths: PHI of RFC 5905.
const DRIFT_PPM: u128 = 15;
/// When the two clocks of this machine differ by more since a measurement, the system clock was set: STEPT of RFC
/// 5905.
const STEP_NS: u128 = 128_000_000;
/// An offset that somebody should look at: PANICT of RFC 5905.
const OFFSET_STRANGE_NS: u64 = 1_000_000_000_000;

/// How often servers are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSyncTiming {
    /// From an answer to the next question. RFC 4330 forbids less than 15 s on servers of others.
    pub poll_interval: Duration,
    /// From a round without an answer to the next one; twice as long after each, up to `poll_interval`.
    pub retry_interval: Duration,
    /// How long an answer is waited for.
    pub answer_limit: Duration,
}

impl Default for TimeSyncTiming {
    /// As often as RFC 5905 does at first; an answer from the other side of the earth takes 300 ms.
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(64),
            retry_interval: Duration::from_secs(16),
            answer_limit: Duration::from_secs(1),
        }
    }
}

/// A question to be asked now, whose outcome goes to [`TimeSync::take`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whom to ask, `host:port`.
    pub server: String,
    /// A random number that only the answer can hold.
    pub nonce: u64,
    /// How long to wait for the answer.
    pub limit: Duration,
    index: usize,
}

/// What is to be done about time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask this.
    Ask(Question),
    /// Nothing for so long.
    Wait(Duration),
    /// Nothing any more: no server is named, or all of them refuse for good.
    Never,
}

/// One time server.
#[derive(Debug)]
struct Source {
    address: String,
    /// The last answers, the oldest first; at most [`SAMPLES`].
    samples: VecDeque<Exchange>,
    /// From an answer to the next question: longer after each RATE.
    poll_interval: Duration,
    /// It said RATE: not to be asked before this.
    not_before: Option<Instant>,
    /// It said DENY or RSTR.
    refuses: bool,
}

impl Source {
    fn may_be_asked(&self, now: Instant) -> bool {
        !self.refuses && self.not_before.is_none_or(|at| now >= at)
    }

    /// The sample whose offset is closest to the truth by what is known.
    fn best(&self, now: Instant) -> Option<&Exchange> {
        let error_ns = |sample: &&Exchange| {
            let age = now.saturating_duration_since(sample.at);
            u128::from(sample.delay_ns.unsigned_abs()) / 2 + age.as_nanos() * DRIFT_PPM / 1_000_000
        };
        self.samples.iter().min_by_key(error_ns)
    }
}

/// What counts at the moment.
#[derive(Clone, Debug)]
struct Chosen {
    server: String,
    offset_ns: i64,
    delay_ns: i64,
    answered_at: Instant,
}

/// The time servers of one server, and what they said.
#[derive(Debug)]
pub struct TimeSync {
    timing: TimeSyncTiming,
    sources: Vec<Source>,
    /// Who answered last, and is asked first.
    current: usize,
    /// How many were passed by in this round.
    passed: usize,
    /// How many rounds in a row brought no answer.
    rounds_in_vain: u32,
    next_at: Option<Instant>,
    chosen: Option<Chosen>,
    /// Why no time is known, in words.
    reason: String,
    /// What a rehearsal adds to the system clock, in milliseconds.
    clock_error_ms: i64,
}

impl Default for TimeSync {
    /// Without servers: the system clock serves.
    fn default() -> Self {
        Self::new(&[], TimeSyncTiming::default())
    }
}

impl TimeSync {
    /// Asks `servers` (`host:port`), the first one first, and at once.
    pub fn new(servers: &[String], timing: TimeSyncTiming) -> Self {
        let source = |address: &String| Source {
            address: address.clone(),
            samples: VecDeque::new(),
            poll_interval: timing.poll_interval,
            not_before: None,
            refuses: false,
        };
        Self {
            timing,
            sources: servers.iter().map(source).collect(),
            current: 0,
            passed: 0,
            rounds_in_vain: 0,
            next_at: None,
            chosen: None,
            reason: "no server was asked yet".into(),
            clock_error_ms: 0,
        }
    }

    /// Whether any time server is named.
    pub fn is_used(&self) -> bool {
        !self.sources.is_empty()
    }

    /// The time of messages when the system clock shows `system_wall_ms`, both in milliseconds since 1970.
    pub fn wall_ms(&self, system_wall_ms: u64) -> u64 {
        let offset_ns = self.chosen.as_ref().map_or(0, |chosen| chosen.offset_ns);
        // Rounded, so that a microsecond too few does not cost a whole millisecond.
        let offset_ms = (offset_ns + offset_ns.signum() * 500_000) / 1_000_000;
        system_wall_ms.saturating_add_signed(offset_ms + self.clock_error_ms)
    }

    /// From now on the system clock is taken to show `error_ms` milliseconds too much.
    pub fn set_clock_error(&mut self, error_ms: i64) {
        self.clock_error_ms = error_ms;
    }

    /// Where time comes from; `None` when no time server is named.
    pub fn state(&self, now: Instant) -> Option<TimeState> {
        if !self.is_used() {
            return None;
        }
        Some(match &self.chosen {
            None => TimeState::Unsynchronised { reason: self.reason.clone() },
            Some(chosen) => {
                let age = now.saturating_duration_since(chosen.answered_at);
                TimeState::Synchronised {
                    server: chosen.server.clone(),
                    offset_ms: in_ms(chosen.offset_ns),
                    delay_ms: in_ms(chosen.delay_ns),
                    age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
                }
            }
        })
    }

    /// What is to be done now. After [`Next::Ask`] the outcome is handed to [`take`](Self::take).
    pub fn next(&mut self, now: Instant, rng: &mut fastrand::Rng) -> Next {
        if let Some(wait) = self.next_at.and_then(|at| at.checked_duration_since(now))
            && !wait.is_zero()
        {
            return Next::Wait(wait);
        }
        if let Some(index) = self.pass_to_askable(now) {
            return Next::Ask(Question {
                server: self.sources[index].address.clone(),
                // Not 0, which is what an empty field holds.
                nonce: rng.u64(1..),
                limit: self.timing.answer_limit,
                index,
            });
        }
        // Nobody can be asked: those that said RATE are waited for, and the end of what is known.
        self.passed = 0;
        self.expire(now);
        let willing = self.sources.iter().filter(|source| !source.refuses);
        let allowed_at = willing.filter_map(|source| source.not_before).min();
        let ends_at = self.chosen.as_ref().map(|chosen| chosen.answered_at + HOLDOVER);
        let Some(at) = allowed_at.into_iter().chain(ends_at).min() else {
            return Next::Never;
        };
        self.next_at = Some(at);
        Next::Wait(at.saturating_duration_since(now))
    }

    /// Who is next in this round; `None` when it is over.
    fn pass_to_askable(&mut self, now: Instant) -> Option<usize> {
        let count = self.sources.len();
        while self.passed < count {
            let index = (self.current + self.passed) % count;
            if self.sources[index].may_be_asked(now) {
                return Some(index);
            }
            self.passed += 1;
        }
        None
    }

    /// Takes what became of `question`.
    pub fn take(
        &mut self,
        question: &Question,
        outcome: Result<Exchange, SntpError>,
        now: Instant,
    ) {
        match outcome {
            Ok(sample) => self.answered(question.index, sample, now),
            Err(error) => self.failed(question.index, &error, now),
        }
    }

    fn answered(&mut self, index: usize, sample: Exchange, now: Instant) {
        self.forget_before_step(&sample);
        let source = &mut self.sources[index];
        source.samples.retain(|old| now.saturating_duration_since(old.at) < HOLDOVER);
        if source.samples.len() == SAMPLES {
            source.samples.pop_front();
        }
        source.samples.push_back(sample);
        let best = source.best(now).unwrap_or(&sample);
        let chosen = Chosen {
            server: source.address.clone(),
            offset_ns: best.offset_ns,
            delay_ns: best.delay_ns,
            answered_at: sample.at,
        };
        self.next_at = Some(now + source.poll_interval);
        self.current = index;
        self.passed = 0;
        self.rounds_in_vain = 0;
        if self.chosen.as_ref().is_none_or(|before| before.server != chosen.server) {
            tell_server(&chosen);
        }
        self.chosen = Some(chosen);
    }

    /// When the system clock was set since a sample, that sample says nothing about it any more.
    fn forget_before_step(&mut self, new: &Exchange) {
        let mut forgotten = 0;
        for source in &mut self.sources {
            let before = source.samples.len();
            source.samples.retain(|old| {
                let by_system = i128::from(new.system.since(old.system));
                let by_timer = new.at.saturating_duration_since(old.at).as_nanos().cast_signed();
                (by_system - by_timer).unsigned_abs() <= STEP_NS
            });
            forgotten += before - source.samples.len();
        }
        if forgotten > 0 {
            log::info!("the system clock was set: {forgotten} measurements of it count no more");
        }
    }

    fn failed(&mut self, index: usize, error: &SntpError, now: Instant) {
        let source = &mut self.sources[index];
        self.reason = format!("{} {error}", source.address);
        log::debug!("time server {}", self.reason);
        match error {
            SntpError::Kiss(KissCode::RATE) => {
                source.poll_interval = (source.poll_interval * 2).min(POLL_INTERVAL_MAX);
                source.not_before = Some(now + source.poll_interval);
            }
            SntpError::Kiss(code @ (KissCode::DENY | KissCode::RSTR)) => {
                source.refuses = true;
                log::warn!("time server {} says {code}: it is asked no more", source.address);
            }
            _ => {}
        }
        self.passed += 1;
        if self.pass_to_askable(now).is_some() {
            self.next_at = Some(now);
            return;
        }
        self.passed = 0;
        self.expire(now);
        let again = self.timing.retry_interval * 2_u32.saturating_pow(self.rounds_in_vain);
        self.next_at = Some(now + again.min(self.timing.poll_interval));
        // More would only make the power overflow.
        self.rounds_in_vain = (self.rounds_in_vain + 1).min(10);
    }

    /// Gives up what was known when nobody has answered for too long.
    fn expire(&mut self, now: Instant) {
        let is_old =
            |chosen: &Chosen| now.saturating_duration_since(chosen.answered_at) >= HOLDOVER;
        if self.chosen.as_ref().is_some_and(is_old) {
            self.chosen = None;
            log::warn!("no time server answers any more, the system clock serves: {}", self.reason);
        }
    }
}

fn tell_server(chosen: &Chosen) {
    let (server, offset_ms) = (&chosen.server, in_ms(chosen.offset_ns));
    log::info!("time comes from {server}: the system clock and {offset_ms:+.3} ms");
    if chosen.offset_ns.unsigned_abs() > OFFSET_STRANGE_NS {
        log::warn!("the system clock is wrong by {:.0} s, or {server} is", offset_ms / 1000.0);
    }
}

fn in_ms(ns: i64) -> f64 {
    ns as f64 / 1e6
}

/// The timestamp of a room's next message, so that timestamps never run backwards in it: `corrected_ms`, the time by
/// [`TimeSync::wall_ms`], or `previous_ms`, the latest one in the room, when that is later. Milliseconds since 1970.
/// The price: one server whose clock is fast pulls the others along, in the rooms that it writes to.
pub fn not_before(previous_ms: u64, corrected_ms: u64) -> u64 {
    previous_ms.max(corrected_ms)
}

#[cfg(test)]
mod tests;
