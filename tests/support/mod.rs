//! What the tests of real processes share.
//!
//! * [`cluster`] starts, stops, kills and pauses real servers,
//! * [`wire`] speaks to them byte by byte,
//! * [`chatter`] runs real `roundtable client` processes through pipes,
//! * [`talk`] lets clients of the library talk without a pause while servers die,
//! * [`disks`] fills and damages logs,
//! * [`faults`] kills leaders under them,
//! * [`interrupt`] presses ctrl-c where a command runs servers of its own,
//! * [`proxy`] cuts servers off from each other,
//! * [`history`] checks what all of them saw.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) mod chatter;
pub(crate) mod cluster;
pub(crate) mod disks;
pub(crate) mod faults;
pub(crate) mod history;
pub(crate) mod interrupt;
pub(crate) mod proxy;
pub(crate) mod talk;
pub(crate) mod wire;

/// How long anything may take that should take no time; generous, since the machine is shared.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_roundtable");

/// Waits until `probe` finds something; panics with `what` was waited for after [`DEADLINE`].
pub(crate) fn wait_until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, probe).unwrap_or_else(|| panic!("waited in vain until {what}"))
}

/// Waits until `probe` finds something, for `limit` at most.
pub(crate) fn wait_within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(POLL);
    }
}

/// The program under test with nothing of this process's environment that it would listen to.
pub(crate) fn program() -> std::process::Command {
    clean(std::process::Command::new(PROGRAM))
}

/// `command` without the variables that set the program's options.
pub(crate) fn clean(mut command: std::process::Command) -> std::process::Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("ROUNDTABLE_") || text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command
}
