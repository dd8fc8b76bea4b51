//! The thread `time-sync`: asks the time servers that [`TimeSync`](crate::server::TimeSync) names.

use std::sync::Arc;

use crossbeam_channel::RecvTimeoutError;

use super::Shell;
use crate::network::sntp;
use crate::server::time_sync::Next;

impl Shell {
    /// The body of `time-sync`. The node is locked to learn what to do and to hand in what came, not in between.
    pub(super) fn sync_time(self: &Arc<Self>) {
        let mut rng = fastrand::Rng::new();
        while !self.threads.is_stopped() {
            match self.step(|node, step| node.time_sync.next(step.now, &mut rng)) {
                Next::Ask(question) => {
                    let outcome = sntp::query(&question.server, question.nonce, question.limit);
                    self.step(|node, step| node.time_sync.take(&question, outcome, step.now));
                }
                Next::Wait(wait) => {
                    let waited = self.threads.stopped().recv_timeout(wait);
                    if waited != Err(RecvTimeoutError::Timeout) {
                        break;
                    }
                }
                Next::Never => {
                    log::warn!("no time server is left to ask; the system clock serves");
                    break;
                }
            }
        }
    }
}
