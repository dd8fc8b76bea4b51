//! The lines of the demo: when, what, and a sentence, in columns.

#![expect(clippy::disallowed_methods, reason = "it shows the time")]

use std::time::Instant;

use crate::cli::output::say;
use crate::cli::render::{Style, visible};

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Cluster,
    Talk,
    Fault,
    Election,
    Leader,
}

impl Kind {
    /// Its word, and its colour as an ANSI code.
    fn look(self) -> (&'static str, &'static str) {
        match self {
            Self::Cluster => ("cluster", "36"),
            Self::Talk => ("talk", "2"),
            Self::Fault => ("fault", "1;31"),
            Self::Election => ("election", "33"),
            Self::Leader => ("leader", "1;32"),
        }
    }
}

/// Where the demo is shown.
#[derive(Debug)]
pub(super) struct Screen {
    style: Style,
    start: Instant,
}

impl Screen {
    pub(super) fn new(style: Style) -> Self {
        Self { style, start: Instant::now() }
    }

    /// A line of what happens now.
    pub(super) fn tell(&self, kind: Kind, text: &str) {
        self.tell_at(Instant::now(), kind, text);
    }

    /// A line of what happened at `when`.
    pub(super) fn tell_at(&self, when: Instant, kind: Kind, text: &str) {
        let seconds = when.saturating_duration_since(self.start).as_secs_f64();
        say!("{}", line(self.style, seconds, kind, text));
    }

    /// A heading, after an empty line.
    pub(super) fn heading(&self, text: &str) {
        say!("\n{}", self.style.paint("1", text));
    }

    /// A line of the verdict: a name and what is said of it, good or bad.
    pub(super) fn result(&self, name: &str, text: &str, good: bool) {
        let mark =
            if good { self.style.paint("32", "✓") } else { self.style.paint("1;31", "✗") };
        say!("  {mark} {name:<14}{text}");
    }
}

fn line(style: Style, seconds: f64, kind: Kind, text: &str) -> String {
    let (word, colour) = kind.look();
    let time = style.paint("2", &format!("{seconds:6.2} s"));
    let shown = visible(text);
    let shown = match kind {
        Kind::Fault | Kind::Leader => style.paint("1", &shown),
        _ => shown,
    };
    format!("{time}  {}  {shown}", style.paint(colour, &format!("{word:<8}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_columns_with_or_without_colours() {
        assert_eq!(
            line(Style::Plain, 3.456, Kind::Leader, "n3 leads in term 2"),
            "  3.46 s  leader    n3 leads in term 2"
        );
        let coloured = line(Style::Coloured, 3.456, Kind::Talk, "alice: hi");
        assert!(coloured.contains("\u{1b}[2m") && coloured.ends_with("alice: hi"), "{coloured}");
    }
}
