//! The client: [`ChatClient`], a library, and the parts that it is made of.
//!
//! Must not know: elections, replicas, the terminal. The line interface stands on top, in [`crate::cli`].
//!
//! ```text
//!   user ──▶ ChatClient ──▶ Session (pure) ──▶ what to send ──▶ ConnectionManager
//!   user ◀── events ◀────── Session        ◀── messages ◀────── its reader thread
//! ```
//!
//! Reading order: [`event`], [`session`], [`addresses`], [`chat_client`].

pub mod event;

pub mod session;

pub mod addresses;
