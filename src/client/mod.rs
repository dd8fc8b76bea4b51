//! The client: [`ChatClient`], a library, and the parts that it is made of.
//!
//! Must not know: elections, replicas, the terminal. The line interface stands on top, in [`crate::cli`].
//!
//! ```text
//!   user ──▶ ChatClient ──▶ Session (pure) ──▶ what to send ──▶ ConnectionManager
//!   user ◀── events ◀────── Session        ◀── messages ◀────── its reader thread
//! ```
//!
//! Reading order: [`event`], [`session`], [`addresses`], [`outbox`], [`chat_client`], [`shared`], [`keeper`],
//! [`discovery`], [`status_query`].

pub mod event;

pub mod session;

pub mod addresses;

pub mod outbox;

pub mod chat_client;

mod shared;

pub(crate) mod keeper;

pub mod discovery;

pub mod status_query;

#[cfg(test)]
pub(crate) mod fake_server;

pub use chat_client::{ChatClient, ClientSettings, SendError};
pub use event::{Delivery, Event};
pub use session::identity::Password;
pub use status_query::{AskError, ask_members, query_status, query_status_of_room};
