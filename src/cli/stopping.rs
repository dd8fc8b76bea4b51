//! Ctrl-c for commands that run servers: what they started has to be ended.

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::error::StartError;
use crate::threads::Threads;

/// Listens for SIGINT and SIGTERM as long as it lives.
#[derive(Debug)]
pub(super) struct Stopping {
    handle: Handle,
    stop: Receiver<()>,
    _threads: Threads,
}

impl Stopping {
    /// Listens from now on.
    pub(super) fn listen() -> Result<Self, StartError> {
        let cannot = |error| StartError::Other(format!("cannot listen for ctrl-c: {error}"));
        let (alive, stop) = bounded::<()>(0);
        let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(cannot)?;
        let handle = signals.handle();
        let threads = Threads::new("signals");
        // Dropping its end of the channel is the signal for everyone.
        let wait = move || {
            let alive = alive;
            signals.forever().next();
            drop(alive);
        };
        threads.spawn("waits", wait).map_err(cannot)?;
        Ok(Self { handle, stop, _threads: threads })
    }

    /// Disconnected once a signal came.
    pub(super) fn signal(&self) -> &Receiver<()> {
        &self.stop
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        self.handle.close();
    }
}
