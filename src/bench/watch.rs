//! Whoever watches a measurement: hears how far it is, and may stop it.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use super::Progress;
use crate::error::StartError;

/// How long anything waits before it looks whether it was stopped.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);
/// How often is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Why a measurement ended before its end.
#[derive(Debug)]
pub(super) enum Halt {
    /// It was stopped.
    Stopped,
    /// It cannot go on.
    Failed(StartError),
}

impl Halt {
    /// It cannot go on, because of that.
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed(StartError::Other(reason.into()))
    }
}

impl From<StartError> for Halt {
    fn from(error: StartError) -> Self {
        Self::Failed(error)
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::failed(format!("cannot measure: {error}"))
    }
}

/// Who watches one workload, or one axis of growth.
pub(super) struct Watch<'a> {
    what: &'static str,
    about: String,
    step: String,
    stop: &'a Receiver<()>,
    tell: &'a mut dyn FnMut(&Progress),
    told: Option<Instant>,
}

impl<'a> Watch<'a> {
    /// `tell` hears of `what`; disconnecting `stop` stops it.
    pub(super) fn new(
        what: &'static str,
        stop: &'a Receiver<()>,
        tell: &'a mut dyn FnMut(&Progress),
    ) -> Self {
        Self { what, about: String::new(), step: String::new(), stop, tell, told: None }
    }

    /// The steps that follow are about that: `64 × window 1: they talk`.
    pub(super) fn about(&mut self, part: &str) {
        self.about = format!("{part}: ");
    }

    /// Another step begins.
    pub(super) fn begin(&mut self, step: impl AsRef<str>) -> Result<(), Halt> {
        self.step = format!("{}{}", self.about, step.as_ref());
        self.told = None;
        self.go_on(0.0, String::new)
    }

    /// So much of the step is done, from 0 to 1; `text` says more. Fails when it was stopped.
    pub(super) fn go_on(&mut self, done: f64, text: impl FnOnce() -> String) -> Result<(), Halt> {
        if self.stop.try_recv() == Err(TryRecvError::Disconnected) {
            return Err(Halt::Stopped);
        }
        let now = Instant::now();
        if self.told.is_none_or(|told| now - told >= TELL_EVERY) {
            self.told = Some(now);
            let (what, step) = (self.what, self.step.clone());
            (self.tell)(&Progress { what, step, done: done.clamp(0.0, 1.0), text: text() });
        }
        Ok(())
    }

    /// What `result` is, unless the reason of its failure is that it was stopped.
    pub(super) fn unless_stopped<T>(&self, result: Result<T, StartError>) -> Result<T, Halt> {
        let stopped = self.stop.try_recv() == Err(TryRecvError::Disconnected);
        result.map_err(|error| if stopped { Halt::Stopped } else { Halt::Failed(error) })
    }

    /// The stop signal.
    pub(super) fn stop(&self) -> Receiver<()> {
        self.stop.clone()
    }
}
