//! One step of the node: lock, do it, settle what it owes, unlock, let go what was queued.
//!
//! ```text
//!   reader a   lock ─ CHAT ─ unlock                         b waits already: a leaves it to b to settle
//!   reader b          waiting ‥ lock ─ CHAT ─ unlock                         and b to c
//!   reader c                    waiting ‥‥‥‥ lock ─ CHAT ─ settle ─ unlock ─▶ flush, wake, dial
//! ```
//!
//! Settling costs more than most messages do: a request to each follower, a write to each member. When many clients with one
//! message each speak at once, their readers stand in line for the lock; then the last of them settles for all. No
//! thread sleeps for that: a reader that stands alone settles at once. Three servers of `raft` make 1.5 times as
//! many writes for 256 clients with one each, and a room of a hundred in which ten speak, one message each, takes a quarter less processor
//! time (on two cores).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Shell;
use crate::server::server_node::ServerNode;
use crate::server::step::Step;

/// How long a leader that stops waits until another one leads. Its clients would find no leader elsewhere before.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(1);
/// Messages that may be left to be settled: the first of them waits for the others. About a millisecond's worth where each comes
/// alone; where one read brings dozens, the next messages are read while the last are settled and sent.
const LEFT_MAX: usize = 128;

/// Who stands in line for the node, and what those before them left to be settled.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// Threads that are about to lock the node, each to settle or to leave it to one behind it.
    waiting: AtomicUsize,
    /// Messages that were taken since the last step that settled. Under the node's lock.
    left: AtomicUsize,
}

impl Crowd {
    /// Whether no thread stands in line.
    fn is_alone(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Whether the holder of the node's lock, which took so many messages, may leave it to another thread to settle.
    fn leaves(&self, messages: usize) -> bool {
        let left = self.left.load(Ordering::Relaxed) + messages;
        let leaves = left < LEFT_MAX && self.waiting.load(Ordering::Relaxed) > 0;
        self.left.store(if leaves { left } else { 0 }, Ordering::Relaxed);
        leaves
    }
}

impl Shell {
    /// Locks the node, lets `body` step it, settles what that owes, unlocks, and only then lets the queued
    /// bytes, dials and records go.
    pub(super) fn step<R>(&self, body: impl FnOnce(&mut ServerNode, &Step) -> R) -> R {
        self.step_and(|| false, body)
    }

    /// [`step`](Self::step) that takes so many messages at most, and is settled by the next thread where one waits for the node
    /// already.
    pub(super) fn step_in_crowd<R>(
        &self,
        messages: usize,
        body: impl FnOnce(&mut ServerNode, &Step) -> R,
    ) -> R {
        // A trace tells what each step led to.
        self.step_and(|| self.trace.is_none() && self.crowd.leaves(messages), body)
    }

    /// [`step`](Self::step); when `leaves` says so, under the lock, the rest is another thread's.
    #[expect(clippy::disallowed_methods, reason = "the shell reads the clocks for the algorithms")]
    fn step_and<R>(
        &self,
        leaves: impl FnOnce() -> bool,
        body: impl FnOnce(&mut ServerNode, &Step) -> R,
    ) -> R {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        self.crowd.waiting.fetch_add(1, Ordering::Relaxed);
        let mut node = self.node.lock();
        self.crowd.waiting.fetch_sub(1, Ordering::Relaxed);
        // Read under the lock: time never runs backwards from one step to the next.
        let now = Instant::now();
        let traced = self.trace.as_ref().map(|trace| trace.begin(&*self.cm, now));
        let step = Step {
            now,
            wall_ms: node.time_sync.wall_ms(wall_ms),
            cm: traced.as_ref().map_or(&*self.cm, |traced| traced),
            log: &self.log,
        };
        let result = body(&mut node, &step);
        if leaves() {
            return result;
        }
        // Before settling: what is logged there happens in the new role already.
        self.label.set(node.state(), node.term());
        node.settle(&step);
        if let Some(trace) = &self.trace {
            trace.end(&node);
        }
        let fatal = node.fatal().map(str::to_string);
        let hashes = node.has_hash_job();
        let has_more = node.has_more_to_do();
        drop(node);
        if hashes {
            let _ = self.hashers.try_send(());
        }
        if has_more {
            let _ = self.past.try_send(());
        }
        self.stepped.notify_all();
        if let Some(reason) = fatal {
            self.fail(reason);
        }
        self.let_go();
        result
    }

    /// A leader of one order asks another server to lead, and waits until it does.
    pub(super) fn hand_over(&self) {
        if !self.step(ServerNode::resign) {
            return;
        }
        let mut node = self.node.lock();
        let waits = |node: &mut ServerNode| node.hands_over();
        if self.stepped.wait_while_for(&mut node, waits, HAND_OVER_LIMIT).timed_out() {
            log::warn!("nobody took over within {HAND_OVER_LIMIT:?}");
        }
    }

    /// What a step queued goes out. No lock is held.
    fn let_go(&self) {
        self.cm.flush();
        // To wake a thread on a processor that sleeps takes 15 us. Who was just written to, and is to run on this processor, need not
        // wait for that as well: at 1,000 messages a second to ten on the same machine p50 falls from 98 to 50 us.
        if self.log.is_asleep() && self.crowd.is_alone() {
            std::thread::yield_now();
        }
        self.log.wake();
        for (msg, to) in self.cm.take_datagrams() {
            let Some((udp, port)) = &self.udp else { continue };
            match to {
                None => udp.broadcast(&msg, *port),
                Some(to) => {
                    if let Err(error) = udp.send_to(&msg, to) {
                        log::debug!("cannot answer {to}: {error}");
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_left_to_who_waits_until_it_is_much() {
        let crowd = Crowd::default();
        assert!(!crowd.leaves(1), "nobody is there to settle it");
        crowd.waiting.store(1, Ordering::Relaxed);
        let left = (0..2 * LEFT_MAX).take_while(|_| crowd.leaves(1)).count();
        assert_eq!(left, LEFT_MAX - 1);
        assert!(crowd.leaves(1), "it begins anew");
        assert!(!crowd.leaves(LEFT_MAX), "many at once");
    }
}
