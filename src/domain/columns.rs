//! Columns of numbers for histories of millions of messages, of which each costs bytes rather than pieces of memory.
//!
//! What a [`History`](super::History) of the design `ring` and the rooms of the other two are made of.

pub(crate) mod ascending;
pub(crate) mod keys;
