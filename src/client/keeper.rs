//! The thread that keeps a client connected.
//!
//! ```text
//!   take the next address ──▶ connect ──▶ CLIENT_JOIN ──▶ welcome ──▶ watch until it is lost
//!        ▲                       │ fails       │ refused for now                  │
//!        └─────── back-off ◀─────┴─────────────┴──────────────────────────────────┘
//! ```

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock: waiting has deadlines")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, after, select, tick};
use log::debug;

use super::shared::Inner;
use super::status_query::split_address;
use crate::error::StartError;

/// The first wait before trying again; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest wait before trying again.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// A connection that lasted so long was worth something: the next wait is short again.
pub(crate) const LASTED: Duration = Duration::from_secs(5);
/// How long a server may take to welcome us. It may hold the answer back for 5 s.
pub(crate) const WELCOME_TIMEOUT: Duration = Duration::from_secs(8);
/// How long servers that say "not yet" are asked again before the start is given up.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often silence is looked for, also that of a server that has not welcomed us yet.
pub(crate) const TICK_INTERVAL: Duration = Duration::from_millis(500);

/// Waits that double, with a random part so that the clients of a dead server do not all come at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    wait: Duration,
    rng: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { wait: BACKOFF_MIN, rng: fastrand::Rng::with_seed(seed) }
    }

    pub(crate) fn reset(&mut self) {
        self.wait = BACKOFF_MIN;
    }

    /// Between half of the present wait and all of it; the next one is twice as long.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.wait.mul_f64(0.5 + self.rng.f64() / 2.0);
        self.wait = (self.wait * 2).min(BACKOFF_MAX);
        wait
    }
}

/// How an attempt ended.
#[derive(Debug, PartialEq)]
enum Attempt {
    /// Welcomed.
    Online,
    /// Nobody answered there.
    Unreachable(String),
    /// Somebody answered and let us go: another time, perhaps.
    NotNow(String),
    /// Refused for good, or stopped.
    Over(String),
}

/// Connects, says on `started` how that went, and keeps the client connected until it ends.
pub(super) fn run(inner: &Arc<Inner>, started: &Sender<Result<(), StartError>>) {
    // The session's name is random already.
    let seed = u64::from_str_radix(inner.state.lock().session.id(), 16).unwrap_or_default();
    let mut backoff = Backoff::new(seed);
    let first = start(inner, &mut backoff);
    let welcome = first.is_ok();
    let _ = started.send(first);
    if welcome {
        while watch(inner, &mut backoff) && reconnect(inner, &mut backoff) {}
    }
    inner.notify_settled();
}

/// Tries every address, again while one says "not now".
fn start(inner: &Arc<Inner>, backoff: &mut Backoff) -> Result<(), StartError> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let mut failures = Vec::new();
        let mut later = false;
        let count = inner.state.lock().session.addresses().len();
        for _ in 0..count {
            let Some(address) = inner.state.lock().session.addresses().take_turn() else { break };
            match attempt(inner, &address) {
                Attempt::Online => return Ok(()),
                Attempt::Over(reason) => return Err(StartError::Other(reason)),
                Attempt::Unreachable(reason) => failures.push(format!("{address}: {reason}")),
                Attempt::NotNow(reason) => {
                    later = true;
                    failures.push(format!("{address}: {reason}"));
                }
            }
        }
        if !later || Instant::now() > deadline || !pause(inner, backoff) {
            let tried = if failures.is_empty() { "no address".into() } else { failures.join("; ") };
            return Err(StartError::Other(format!(
                "no server takes us ({tried}); is one running there?"
            )));
        }
    }
}

/// Tries the addresses in turn until one welcomes us. False when the session is over.
fn reconnect(inner: &Arc<Inner>, backoff: &mut Backoff) -> bool {
    loop {
        if !pause(inner, backoff) {
            return false;
        }
        let Some(address) = inner.state.lock().session.addresses().take_turn() else {
            return false;
        };
        match attempt(inner, &address) {
            Attempt::Online => return true,
            Attempt::Over(_) => return false,
            Attempt::Unreachable(reason) | Attempt::NotNow(reason) => {
                debug!("{address}: {reason}");
            }
        }
    }
}

/// Waits a moment. False when the client is stopped meanwhile.
fn pause(inner: &Inner, backoff: &mut Backoff) -> bool {
    let (over, ticker) = (after(backoff.next()), tick(TICK_INTERVAL));
    inner.tick();
    loop {
        select! {
            recv(over) -> _ => return !inner.threads.is_stopped(),
            recv(ticker) -> _ => inner.tick(),
            recv(inner.threads.stopped()) -> _ => return false,
        }
    }
}

/// Connects to `address` and waits for the welcome.
fn attempt(inner: &Arc<Inner>, address: &str) -> Attempt {
    let connected =
        split_address(address).and_then(|(host, port)| inner.manager.connect_to(host, port));
    let conn = match connected {
        Ok(conn) => conn,
        Err(error) => {
            inner.state.lock().session.unreachable(address);
            return Attempt::Unreachable(error.to_string());
        }
    };
    inner.adopt(conn, address);
    let deadline = Instant::now() + WELCOME_TIMEOUT;
    let ticker = tick(TICK_INTERVAL);
    loop {
        let state = inner.state.lock();
        let (online, over) = (state.session.is_online(), state.session.is_ended());
        let gone = !state.reading && state.server_connection.is_none();
        let reason = state.last_reason.clone();
        drop(state);
        if over || inner.threads.is_stopped() {
            return Attempt::Over(reason);
        }
        if online {
            return Attempt::Online;
        }
        if gone {
            return Attempt::NotNow(reason);
        }
        select! {
            recv(inner.wake.1) -> _ => {}
            recv(ticker) -> _ => inner.tick(),
            recv(inner.threads.stopped()) -> _ => {}
            default(deadline.saturating_duration_since(Instant::now())) => {
                let limit = WELCOME_TIMEOUT.as_secs();
                let reason = format!("no answer to CLIENT_JOIN within {limit} s");
                inner.step(|session| session.move_on(&reason));
            }
        }
    }
}

/// Waits until the connection is lost and its reader has ended. False when the session is over.
fn watch(inner: &Inner, backoff: &mut Backoff) -> bool {
    let ticker = tick(TICK_INTERVAL);
    let since = Instant::now();
    loop {
        let state = inner.state.lock();
        let (over, progressed) = (state.session.is_ended(), state.session.progressed);
        let gone = !state.reading && state.server_connection.is_none();
        drop(state);
        if over || inner.threads.is_stopped() {
            return false;
        }
        if gone {
            if progressed || since.elapsed() > LASTED {
                backoff.reset();
            }
            return true;
        }
        select! {
            recv(inner.wake.1) -> _ => {}
            recv(ticker) -> _ => inner.tick(),
            recv(inner.threads.stopped()) -> _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_small_again() {
        let mut backoff = Backoff::new(7);
        let waits: Vec<Duration> = (0..10).map(|_| backoff.next()).collect();
        assert!(waits[0] >= BACKOFF_MIN / 2 && waits[0] <= BACKOFF_MIN);
        assert!(waits[9] >= BACKOFF_MAX / 2 && waits[9] <= BACKOFF_MAX);
        for pair in waits[..6].windows(2) {
            assert!(pair[1] >= pair[0], "{waits:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= BACKOFF_MIN);
    }

    #[test]
    fn two_clients_do_not_come_at_the_same_moments() {
        let (mut one, mut other) = (Backoff::new(1), Backoff::new(2));
        let differ = (0..5).filter(|_| one.next() != other.next()).count();
        assert!(differ > 0);
    }
}
