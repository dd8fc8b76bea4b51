//! Who writes what was queued: one thread at a time.
//!
//! ```text
//!    reader A   step, queue ─▶ flush: two rounds ─────────▶ more waits: hand over ─▶ reads on
//!    reader B   step, queue ─▶ flush: A is at it ─▶ reads on                │
//!    flusher                                                                └──▶ rounds until nothing waits
//! ```
//!
//! When ten members of a room speak at once, and each thread writes its one message to all hundred, that is a thousand
//! calls of the system. Here the first thread writes; what the others queue meanwhile goes out together in its next
//! round, with one call for each member.
//!
//! Promise: what was queued before a call of [`Flusher::flush`] is sent without a further call, and nobody is kept
//! flushing for others for long: after [`ROUNDS_MAX`] a thread hands over to one that does nothing else. In a quiet
//! server a message goes out at once, from the thread that queued it.
//!
//! Price: when `flush` returns, the bytes may not have left yet.
//!
//! # Why nothing is left
//!
//! A thread adds to the list before it tries to set `busy`, a flusher takes `busy` away before it looks at the list
//! again; both use the list under its lock. Say that adding comes first under that lock: then the flusher sees it in
//! its look. Otherwise `busy` was false before the adding thread tries to set it, and either that thread flushes
//! itself, or it finds `busy` set by a later flusher, for whom the same holds.
//!
//! A connection that is on the list already is not added again. It is unmarked before it is flushed, so whoever finds
//! the mark knows that a flush of it is still to come: by whoever has the list, or by the thread that marked it, which
//! will call `flush`.

#![expect(
    clippy::disallowed_methods,
    reason = "the shell reads the clock: waiting for others has a limit"
)]

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use log::warn;
use parking_lot::Mutex;

use super::tcp_connection::TCPConnection;
use crate::threads::Threads;

/// So many rounds a thread does on behalf of all before it hands over: its own client waits too. With one, the helper
/// is woken so often that a busy room takes a tenth more of the processor.
const ROUNDS_MAX: usize = 2;

/// How often others get a turn before a round that follows another, so that what they are about to queue joins it.
const YIELDS: usize = 4;

/// No more turns after so long: then the processors are busy with something else, which would get them.
const YIELD_LIMIT: Duration = Duration::from_micros(100);

/// The connections with something to send, and the right to send it.
#[derive(Debug)]
pub(super) struct Flusher {
    /// Queues of connections may be locked under it, never the other way round.
    lists: Mutex<Lists>,
    /// A thread is flushing.
    busy: AtomicBool,
    /// Wakes the helper, which then has `busy`. `None` until it is needed. A leaf.
    helper: Mutex<Option<Sender<()>>>,
    threads: Threads,
}

#[derive(Debug, Default)]
struct Lists {
    /// Those with something to flush, each once.
    dirty: Vec<Arc<TCPConnection>>,
    /// An empty list that takes its place, so that lists need not grow anew in each round.
    spare: Vec<Arc<TCPConnection>>,
}

impl Flusher {
    /// Nothing to flush. The helper will be among `threads`.
    pub(super) fn new(threads: Threads) -> Arc<Self> {
        let (lists, busy, helper) = (Mutex::default(), AtomicBool::new(false), Mutex::default());
        Arc::new(Self { lists, busy, helper, threads })
    }

    /// Notes that something was queued on `conn`.
    pub(super) fn mark(&self, conn: &Arc<TCPConnection>) {
        if conn.mark_dirty() {
            self.lists.lock().dirty.push(Arc::clone(conn));
        }
    }

    /// [`mark`](Self::mark) for each that `conns` yields, with one lock for all.
    pub(super) fn mark_all<'a>(&self, conns: impl Iterator<Item = &'a Arc<TCPConnection>>) {
        // Under load most are on the list already, and the lock is not needed at all.
        let mut lists = None;
        for conn in conns.filter(|conn| conn.mark_dirty()) {
            lists.get_or_insert_with(|| self.lists.lock()).dirty.push(Arc::clone(conn));
        }
    }

    /// Sees to it that what was queued is sent: by this thread, or by the one that is at it. Never blocks.
    pub(super) fn flush(self: &Arc<Self>) {
        let mut rounds = 0;
        while self.is_dirty() {
            if self.busy.swap(true, Ordering::AcqRel) {
                // Nobody may rely on another thread any more when threads are ending.
                if self.threads.is_stopped() {
                    self.round();
                }
                return;
            }
            if rounds == ROUNDS_MAX && self.hand_over() {
                return;
            }
            if rounds > 0 {
                let_others_queue();
            }
            self.round();
            self.busy.store(false, Ordering::Release);
            rounds += 1;
        }
    }

    fn is_dirty(&self) -> bool {
        !self.lists.lock().dirty.is_empty()
    }

    /// Writes what was queued so far: one write per connection.
    fn round(&self) {
        let mut lists = self.lists.lock();
        let spare = mem::take(&mut lists.spare);
        let mut conns = mem::replace(&mut lists.dirty, spare);
        drop(lists);
        for conn in conns.drain(..) {
            conn.unmark_dirty();
            conn.flush();
        }
        self.lists.lock().spare = conns;
    }

    /// Leaves `busy` and the rest of the work to the helper. False when there is none and none can be started, or when
    /// it may have ended.
    fn hand_over(self: &Arc<Self>) -> bool {
        let mut helper = self.helper.lock();
        if helper.is_none() {
            // One is enough: only who has `busy` wakes the helper.
            let (wake, woken) = bounded(1);
            let flusher = Arc::clone(self);
            if let Err(error) = self.threads.spawn("flusher", move || flusher.help(&woken)) {
                warn!("cannot start a thread that flushes: {error}");
                return false;
            }
            *helper = Some(wake);
        }
        let is_woken = helper.as_ref().is_some_and(|wake| wake.try_send(()).is_ok());
        // The helper looks once more after the stop signal. If the signal came before this look, that may be over.
        is_woken && !self.threads.is_stopped()
    }

    /// The helper thread.
    fn help(&self, woken: &Receiver<()>) {
        loop {
            select! {
                recv(self.threads.stopped()) -> _ => break,
                recv(woken) -> _ => self.help_once(),
            }
        }
        if woken.try_recv().is_ok() {
            self.help_once();
        }
    }

    /// Has `busy` at first, and goes on until nothing is to be flushed or another thread does it.
    fn help_once(&self) {
        loop {
            while self.is_dirty() {
                let_others_queue();
                self.round();
            }
            self.busy.store(false, Ordering::Release);
            if !self.is_dirty() || self.busy.swap(true, Ordering::AcqRel) {
                break;
            }
        }
    }
}

fn let_others_queue() {
    let began = Instant::now();
    for _ in 0..YIELDS {
        std::thread::yield_now();
        if began.elapsed() >= YIELD_LIMIT {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
