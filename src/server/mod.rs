//! The server: [`ServerNode`] and its parts.
//!
//! Must not know (outside [`shell`]): sockets, files, clocks, threads. A part is handed `now`, a message or
//! a tick, and speaks through [`Transport`](crate::network::Transport),
//! [`Network`](crate::network::Network) and [`Storage`](crate::storage::Storage).
//!
//! # Lock order
//!
//! 1. the node (`Shell::node`): taken first, held for one batch of steps, never across a blocking call;
//! 2. leaves, one at a time, for a moment: the maps of `ConnectionManager`, the queue of each
//!    connection, the buffer and the places of `FileLog`, the handles of `Threads`, the label of the log, the step of a
//!    [`Tracer`](crate::trace::Tracer) and the end of its channel.
//!
//! Nothing is locked while a leaf is held. Channels are sent to with `try_send` while the node is held.

pub mod step;

pub mod election;

pub mod failure_detector;

pub mod metadata;

pub mod multicast;

pub mod replication;

pub mod presence;
/// How late heartbeats are, and how often the leader changed.
mod pulse;

pub mod time_sync;

pub mod failover;

pub mod server_node;

mod clients;
mod connections;
pub mod dials;
mod discovery;
mod inbound;
mod leadership;
pub mod peers;
mod read_back;
mod recovery;
mod replay;
pub mod ring;
mod rooms;
mod sessions;
mod snapshot;
mod sync;
mod tail;

pub mod shell;

pub mod planted;

pub mod total_order;

pub mod membership;

pub mod ordering;

pub mod raft;

#[cfg(test)]
mod class_diagram_tests;
#[cfg(test)]
mod test_cluster;
#[cfg(test)]
mod tests;

pub use election::ElectionModule;
pub use failover::Failover;
pub use failure_detector::FailureDetector;
pub use metadata::MetadataStore;
pub use multicast::CausalMulticastHandler;
pub use ring::RingNeighbor;
pub use server_node::ServerNode;
pub use step::{Flow, Step};
pub use time_sync::TimeSync;

use std::fmt;

/// Where a server stands in the election of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// No leader is known, and no election of its own runs.
    Looking,
    /// Another server leads.
    Follower,
    /// This server leads.
    Leader,
    /// This server stands for election.
    ElectionInProgress,
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Looking => "LOOKING",
            Self::Follower => "FOLLOWER",
            Self::Leader => "LEADER",
            Self::ElectionInProgress => "ELECTION_IN_PROGRESS",
        })
    }
}
