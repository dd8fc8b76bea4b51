//! What a message waits for in a hold-back queue, as STATUS tells it.

use serde::{Deserialize, Serialize};

use crate::domain::ids::Incarnation;

/// A message that came before its causal past (design `ring`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// Who said it.
    pub sender: String,
    /// The incarnation that stamped it.
    pub origin: Incarnation,
    /// The how manieth of that incarnation it is, from 1.
    pub count: u64,
    /// The clock entry that it waits for: the incarnation…
    pub awaited: Incarnation,
    /// … and the value that the entry must reach.
    pub awaited_count: u64,
    /// What the entry stands at.
    pub here: u64,
}
