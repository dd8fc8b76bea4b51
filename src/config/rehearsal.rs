//! What is done to a server on purpose, to see what becomes of it. Not listed by `--help`.

use clap::Args;

/// Faults that a server is started with.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsal {
    /// The system clock is taken to be wrong by so many milliseconds.
    #[arg(long, hide = true, value_name = "MS", allow_negative_numbers = true)]
    pub clock_error_ms: Option<i64>,
    /// A fault in the server's code, by its name in `server::planted`.
    #[cfg(feature = "planted-faults")]
    #[arg(long, hide = true, value_name = "FAULT")]
    pub plant: Option<String>,
}
