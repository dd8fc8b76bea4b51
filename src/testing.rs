//! What unit tests share.

use std::sync::OnceLock;
use std::time::Instant;

/// An instant to count from. Tests of algorithms add to it and never look at the clock again.
#[expect(clippy::disallowed_methods, reason = "one fixed start for virtual time")]
pub(crate) fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}
