//! What a cluster did, event by event: written down, put into one causal order, drawn.
//!
//! ```text
//!   n1 ──●──────────────●─────▶ n1.jsonl ─┐                              ┌─▶ merge: one order, vector clocks
//!         \ n1.1-cb0f:7 ↗ n2.1-c3cf:4     ├─▶ read ──▶ merge ──▶ diagram ┼─▶ page: one HTML file
//!   n2 ────●───●───────●──────▶ n2.jsonl ─┘                              ├─▶ svg: a slide
//!                                                                        └─▶ shiviz: a log for ShiViz
//! ```
//!
//! `--trace FILE` makes a server write one JSON object a line for each thing that it does: a message sent or received, a
//! message shown to a member, an acknowledgement, a change of its state, a timer that fired, a sync of its disk. The
//! simulator writes the same lines, in virtual time, with the faults that it made.
//!
//! # Who sent what is received here
//!
//! A frame that leaves a tracing server for another one gets a field more, `"trace":"n1.1-cb0f:7"`: the seventh frame of
//! this life of n1. The receiver writes that name down with its own event, and [`merge`] pairs the two. Clocks do not
//! travel: a number is smaller than a clock of sixteen entries, an event that is lost (a full disk) leaves a gap in the
//! pairs rather than a clock that counts what nobody can see, and all clocks follow from the pairs afterwards. So the trace's
//! own clock ticks at logged events only, and counts 1, 2, 3 … for each process without a gap. Servers that do not trace
//! ignore the field; it is never written to a log or sent on ([`Message::trace`](crate::domain::Message::trace)).
//!
//! # Promise and price
//!
//! Off, it costs one branch for a message and one for a step. On, a step copies what it did into a bounded channel; a
//! thread of its own puts it into words and writes it. A server never waits for its trace: when the channel or the disk is
//! full, events are lost, and a line says how many ([`writer`]).
//!
//! Leaves out: datagrams of discovery; the insides of clients, who appear as far as servers tell of them; passwords,
//! tokens and whatever else is not named in [`words`].
//!
//! Reading order: [`event`], [`entry`], [`tracer`], [`words`], [`writer`]; then [`read`], [`merge`], [`part`], [`diagram`], and one way to look at it
//! each: [`page`], [`svg`], [`shiviz`]. [`command`] is the command line.

pub mod event;

pub mod entry;

pub mod tracer;

pub mod network;

pub mod words;

pub mod writer;

pub mod read;

pub mod merge;

pub mod part;

pub mod diagram;

pub mod page;

pub mod svg;

pub mod shiviz;

pub mod command;

#[cfg(test)]
mod tests;

pub use event::{Kind, TraceEvent};
pub use tracer::{Standing, Tracer};
pub use writer::TraceFile;
