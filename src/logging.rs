//! Log lines that say who speaks, in which role, in which term.
//!
//! ```text
//! 2026-11-21T03:46:01.123Z INFO  n1 FOLLOWER 3@n3 n3 leads
//! └ time (UTC)             └ level  │  │     └ term: the third election, won by n3; `-` before the first
//!                                   │  └ role
//!                                   └ node
//! ```
//!
//! Lines go to standard error. State changes are logged at info, messages at debug, frames at trace.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use env_logger::{Builder, Env};
use log::LevelFilter;
use parking_lot::Mutex;

use crate::domain::Term;
use crate::server::ServerState;

/// Who a process is in its log: set by the server at each change of state, read by each log line. Clones
/// share it.
#[derive(Clone, Debug)]
pub struct NodeLabel {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node_id: String,
    /// A leaf lock: nothing is locked under it.
    standing: Mutex<(ServerState, Option<Term>)>,
}

impl NodeLabel {
    /// The label of the server `node_id`, which starts as `LOOKING` before any term.
    pub fn new(node_id: impl fmt::Display) -> Self {
        let standing = Mutex::new((ServerState::Looking, None));
        Self { inner: Inner { node_id: node_id.to_string(), standing }.into() }
    }

    /// From now on the server is a `role` in `term` (`None` before the first election).
    pub fn set(&self, role: ServerState, term: Option<&Term>) {
        *self.inner.standing.lock() = (role, term.cloned());
    }
}

/// `n1 FOLLOWER 3@n3`.
impl fmt::Display for NodeLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (role, term) = self.inner.standing.lock().clone();
        write!(f, "{} {role} ", self.inner.node_id)?;
        match term {
            Some(term) => write!(f, "{term}"),
            None => f.write_str("-"),
        }
    }
}

/// Starts logging to standard error, once a process; a second call changes nothing. `level` wins over
/// `RUST_LOG`, which wins over info. Colours appear on a terminal without `NO_COLOR`.
pub fn init(level: Option<LevelFilter>, label: NodeLabel) {
    let mut builder = match level {
        Some(level) => {
            let mut builder = Builder::new();
            builder.filter_level(level);
            builder
        }
        None => Builder::from_env(Env::default().default_filter_or("info")),
    };
    builder.format(move |buf, record| {
        let (time, style) = (buf.timestamp_millis(), buf.default_level_style(record.level()));
        let level = record.level();
        writeln!(buf, "{time} {style}{level:<5}{style:#} {label} {}", record.args())
    });
    let _ = builder.try_init();
}

/// Starts logging for a program that talks to people: nothing, unless `RUST_LOG` says otherwise.
pub fn init_quiet() {
    let _ = Builder::from_env(Env::default().default_filter_or("off")).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_shows_node_role_and_term_and_its_clones_follow() {
        let label = NodeLabel::new("n1");
        let clone = label.clone();
        assert_eq!(clone.to_string(), "n1 LOOKING -");
        let term = Term { counter: 3, leader: "n3.1-00ff".into() };
        label.set(ServerState::Follower, Some(&term));
        assert_eq!(clone.to_string(), "n1 FOLLOWER 3@n3");
    }
}
