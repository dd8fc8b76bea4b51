//! Threads that are named, joined, and whose panic is not lost.
//!
//! [`Threads::spawn`] is the only way in which this crate starts a thread that outlives the call; those of
//! [`read_ahead`](crate::storage::read_ahead) do not. A panic is caught and reported with the thread's name; the owner
//! then stops everything and exits non-zero, rather than going on as half a program. The stop signal is a channel on which nothing is ever sent: dropping its sender is
//! the signal, and every blocking wait selects on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

/// Stack of a connection's reader or writer, in bytes: there may be ten thousand of them.
///
/// This is address space. Memory is what a thread has touched: 12 KiB in a reader that took a client's join, of which
/// the thread itself takes the first 5. A smaller stack would save none of it, and a client may send JSON that is
/// 128 levels deep. (So a reader at rest is [replaced](crate::network::ConnectionManager::listen_to_connection).)
pub const SMALL_STACK_BYTES: usize = 256 * 1024;

/// So many threads may have ended before the first look for them.
const PRUNE_FIRST: usize = 64;

/// The threads of one server or client.
#[derive(Clone, Debug)]
pub struct Threads {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Goes before each name: `n1` makes `n1:tcp-accept`.
    owner: String,
    handles: Mutex<Handles>,
    /// Dropped by [`Threads::stop`].
    stop: Mutex<Option<Sender<()>>>,
    stopped: Receiver<()>,
    panics: (Sender<String>, Receiver<String>),
}

/// The threads that were started and not joined yet.
#[derive(Debug, Default)]
struct Handles {
    all: Vec<JoinHandle<()>>,
    /// How many there may be before those that have ended are dropped.
    prune_at: usize,
}

impl Handles {
    /// Connections come and go; their finished threads must not pile up: each keeps a part of its stack until its handle goes. Looking
    /// at all of them for each new one took a third of the server's time when ten thousand clients came; now one in seventeen may
    /// have ended.
    fn add(&mut self, handle: JoinHandle<()>) {
        if self.all.len() >= self.prune_at.max(PRUNE_FIRST) {
            self.all.retain(|handle| !handle.is_finished());
            self.prune_at = self.all.len() + self.all.len() / 16;
        }
        self.all.push(handle);
    }
}

impl Threads {
    /// No threads yet; their names will start with `owner`.
    pub fn new(owner: &str) -> Self {
        let (stop, stopped) = bounded(0);
        let inner = Inner {
            owner: owner.into(),
            handles: Mutex::default(),
            stop: Mutex::new(Some(stop)),
            stopped,
            // One is enough: the first panic stops the program.
            panics: bounded(1),
        };
        Self { inner: inner.into() }
    }

    /// Starts a thread named `owner:name` with a small stack. Fails when the system has no room for it.
    pub fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let name = format!("{}:{name}", self.inner.owner);
        let panics = self.inner.panics.0.clone();
        let run = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                let text = panic
                    .downcast_ref::<&str>()
                    .map(ToString::to_string)
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                let thread = std::thread::current();
                let name = thread.name().unwrap_or("?");
                let _ = panics.try_send(format!("thread {name} panicked: {text}"));
            }
        };
        let handle = Builder::new().name(name).stack_size(SMALL_STACK_BYTES).spawn(run)?;
        self.inner.handles.lock().add(handle);
        Ok(())
    }

    /// The stop signal: disconnected once [`stop`](Self::stop) was called. Nothing is ever sent on it.
    pub fn stopped(&self) -> &Receiver<()> {
        &self.inner.stopped
    }

    /// Whether [`stop`](Self::stop) was called.
    pub fn is_stopped(&self) -> bool {
        self.inner.stop.lock().is_none()
    }

    /// Gives the stop signal.
    pub fn stop(&self) {
        self.inner.stop.lock().take();
    }

    /// Receives the report of the first thread that panicked.
    pub fn panics(&self) -> &Receiver<String> {
        &self.inner.panics.1
    }

    /// Waits for every thread to end, those included that are started meanwhile. False when some still
    /// run after `limit`; they are left alone.
    #[expect(clippy::disallowed_methods, reason = "joining threads is the shell's business")]
    pub fn join(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let handles = std::mem::take(&mut self.inner.handles.lock().all);
            let (done, running): (Vec<_>, Vec<_>) =
                handles.into_iter().partition(JoinHandle::is_finished);
            for handle in done {
                let _ = handle.join();
            }
            if running.is_empty() {
                return true;
            }
            self.inner.handles.lock().all.extend(running);
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The names of the threads that still run.
    pub fn running(&self) -> Vec<String> {
        let handles = self.inner.handles.lock();
        let running = handles.all.iter().filter(|handle| !handle.is_finished());
        running.map(|handle| handle.thread().name().unwrap_or("?").to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_ends_a_waiting_thread_and_join_waits_for_it() {
        let threads = Threads::new("n1");
        let stopped = threads.stopped().clone();
        threads.spawn("waiter", move || assert!(stopped.recv().is_err())).unwrap();
        assert!(!threads.join(Duration::from_millis(20)), "nobody has said stop yet");
        assert_eq!(threads.running(), ["n1:waiter"]);
        threads.stop();
        assert!(threads.join(Duration::from_secs(10)));
        assert!(threads.is_stopped());
        assert!(threads.panics().is_empty());
    }

    #[test]
    fn threads_that_ended_do_not_pile_up() {
        let threads = Threads::new("n1");
        for _ in 0..10 * PRUNE_FIRST {
            threads.spawn("short", || {}).unwrap();
            while !threads.running().is_empty() {
                std::thread::yield_now();
            }
        }
        assert!(threads.inner.handles.lock().all.len() <= PRUNE_FIRST);
        assert!(threads.join(Duration::from_secs(10)));
    }

    #[test]
    fn a_panic_is_reported_with_the_name_of_its_thread() {
        let threads = Threads::new("n1");
        threads.spawn("fragile", || panic!("glass")).unwrap();
        let report = threads.panics().recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(report, "thread n1:fragile panicked: glass");
    }
}
