//! Sockets and bytes: how messages get from one program to another.
//!
//! Must not know: rooms, elections, clocks. It moves frames and says which connection they came from.
//!
//! ```text
//!    algorithms ──▶ Transport / Network (traits) ──▶ ConnectionManager ──▶ TCPConnection ──▶ socket
//!    reader thread: socket ──▶ framing ──▶ Message ──▶ callback
//! ```
//!
//! Reading order: [`transport`] (what the algorithms see), [`framing`], [`frames`], [`batch`],
//! [`tcp_connection`],
//! [`send_queue`], [`outgoing`], [`flusher`], [`connection_manager`], [`readers`],
//! [`listener`], [`udp_handler`]; beside them [`sntp`]
//! and [`health_check`], which send no messages.

pub mod transport;

pub mod framing;

pub mod frames;

pub mod batch;

pub mod tcp_connection;

mod send_queue;

pub mod outgoing;

mod flusher;

pub mod connection_manager;

pub mod readers;

pub mod listener;

pub mod udp_handler;

pub mod sntp;

pub mod health_check;

pub use batch::{Batch, Inbound};
pub use connection_manager::ConnectionManager;
pub use frames::Frames;
pub use listener::{accept_loop, bind_listener, wake_listener};
pub use readers::Received;
pub use tcp_connection::{ConnectionSettings, TCPConnection};
pub use transport::{ConnId, Network, Transport};
pub use udp_handler::UDPHandler;
