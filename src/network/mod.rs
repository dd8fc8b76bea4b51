//! Sockets and bytes: how messages get from one program to another.
//!
//! Must not know: rooms, elections, clocks. It moves frames and says which connection they came from.
//!
//! ```text
//!    algorithms ──▶ Transport / Network (traits) ──▶ ConnectionManager ──▶ Link ──▶ socket
//!    reader thread: socket ──▶ framing ──▶ Message ──▶ callback
//! ```
//!
//! Reading order: [`transport`] (what the algorithms see), [`framing`], [`tcp_connection`],
//! [`outgoing`], [`connection_manager`], [`udp_handler`].

pub mod transport;

pub mod framing;

pub mod tcp_connection;

pub mod outgoing;

pub mod connection_manager;

pub mod udp_handler;

pub use transport::{ConnId, Network, Transport};
