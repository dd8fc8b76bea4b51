//! The threads that hash passwords: one a core and at most [`HASHERS_MAX`], so that at most so many hashes run at a time, each
//! in memory that its thread keeps.
//!
//! A hash takes tens of milliseconds and 19 MiB. None runs under the node's lock, or on a thread that serves anything
//! else: a crowd that logs in delays only itself. Jobs wait in the node, one a connection at most.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, select};

use super::Shell;
use crate::server::ServerNode;
use crate::server::total_order::password::{HashMemory, Random};

/// More hashers would take 19 MiB each, for the moments in which a crowd logs in.
const HASHERS_MAX: usize = 8;

/// How many hashers there are.
pub(super) fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(HASHERS_MAX)
}

/// Starts the hashers; each token of `wakes` wakes one. A design without passwords needs none.
pub(super) fn spawn(shell: &Arc<Shell>, wakes: &Receiver<()>) -> io::Result<()> {
    if shell.node.lock().ordered.is_none() {
        return Ok(());
    }
    for number in 1..=count() {
        let (shell, wakes) = (Arc::clone(shell), wakes.clone());
        let threads = shell.threads.clone();
        threads.spawn(&format!("hasher-{number}"), move || shell.hash_passwords(&wakes))?;
    }
    Ok(())
}

impl Shell {
    /// The body of a `hasher`.
    fn hash_passwords(self: &Arc<Self>, wakes: &Receiver<()>) {
        let mut memory = HashMemory::default();
        loop {
            select! {
                recv(self.threads.stopped()) -> _ => break,
                recv(wakes) -> woken => {
                    if woken.is_err() {
                        break;
                    }
                }
            }
            while !self.threads.is_stopped() {
                let Some(job) = self.step(|node, _| node.next_hash_job()) else { break };
                let (salt, token) = match (random(), random()) {
                    (Ok(salt), Ok(token)) => (salt, token),
                    (Err(error), _) | (_, Err(error)) => {
                        self.fail(format!("the system gives no random bytes: {error}"));
                        return;
                    }
                };
                let hashed = job.run(&salt, &token, &mut memory);
                self.step(|node: &mut ServerNode, step| node.hashed(hashed, step));
            }
        }
    }
}

/// The operating system's randomness.
fn random() -> Result<Random, impl std::fmt::Display> {
    argon2::password_hash::try_generate_salt()
}
