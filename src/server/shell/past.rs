//! The thread `past-sender`: goes on where a step has left some of the past unsent, or not yet applied.
//!
//! A step sends a portion of it, however much is due (see `replay`), and after a start it applies a portion of what the log has. The
//! next portion follows at once, in a step of this thread: between two of them the lock is free, and the bytes of the first are written.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, select};

use super::Shell;

/// Starts it; each token of `wakes` is one more step.
pub(super) fn spawn(shell: &Arc<Shell>, wakes: Receiver<()>) -> io::Result<()> {
    let (shell, threads) = (Arc::clone(shell), shell.threads.clone());
    threads.spawn("past-sender", move || shell.send_past(&wakes))
}

impl Shell {
    /// The body of `past-sender`. A step whose portion is used up wakes it again.
    fn send_past(&self, wakes: &Receiver<()>) {
        loop {
            select! {
                recv(self.threads.stopped()) -> _ => break,
                recv(wakes) -> woken => {
                    if woken.is_err() {
                        break;
                    }
                    self.step(|_, _| ());
                }
            }
        }
    }
}
