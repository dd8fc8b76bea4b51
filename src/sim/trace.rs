//! What happened, one line per event.

use std::collections::VecDeque;

use super::agenda::Micros;

/// Lines that are kept when not all are.
const LAST: usize = 400;

/// How much of a run is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nothing: the fastest. A failing seed can be run again.
    #[default]
    Off,
    /// The last lines.
    Last,
    /// Every line.
    Full,
}

/// The lines of a run.
#[derive(Debug, Default)]
pub struct Trace {
    detail: Detail,
    lines: VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    pub fn new(detail: Detail) -> Self {
        Self { detail, lines: VecDeque::new() }
    }

    /// Whether lines are wanted at all.
    pub fn is_on(&self) -> bool {
        self.detail != Detail::Off
    }

    /// Writes down what happened at `now`.
    pub fn write(&mut self, now: Micros, line: impl FnOnce() -> String) {
        if !self.is_on() {
            return;
        }
        if self.detail == Detail::Last && self.lines.len() == LAST {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>3}.{:06} {}", now / 1_000_000, now % 1_000_000, line()));
    }

    /// The lines, in order.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
