//! What elections say: Hirschberg and Sinclair's messages, and those of the Bully.

use serde::{Deserialize, Serialize};

use crate::domain::{NodeId, Term};

/// ELECTION: Hirschberg and Sinclair's three messages. `counter` is the round that they belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ElectionContent {
    /// A candidate asks `2^k` servers on one side whether anyone outranks it.
    Probe {
        /// The candidate.
        id: NodeId,
        /// The election's round.
        counter: u64,
        /// The phase, from 0.
        k: u32,
        /// How many hops it has travelled, from 1.
        d: u64,
        /// Which way it travels.
        toward: Side,
    },
    /// Nobody within `2^k` hops on this side outranks the candidate.
    Reply {
        /// The candidate that asked.
        id: NodeId,
        /// The election's round.
        counter: u64,
        /// The phase that it answers.
        k: u32,
        /// How many hops it has travelled, from 1: no more than the probe did. Without a bound it would
        /// circle for ever where two servers see different rings.
        d: u64,
        /// Which way it travels, back to the candidate.
        toward: Side,
    },
    /// The winner, once round the ring.
    Announcement {
        /// The winner.
        id: NodeId,
        /// The election's round with the winner's incarnation.
        term: Term,
    },
}

/// A direction on the ring. Ids grow to the right; the highest one's right neighbour is the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Towards lower ids.
    Left,
    /// Towards higher ids.
    Right,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn opposite(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// ELECTION of the Bully, to each higher id: are you alive? Whoever is answers, and stands itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Who stands. Not called `id`, so that it is never taken for a probe.
    pub candidate: NodeId,
    /// The election's round.
    pub counter: u64,
}

/// ELECTION_OK of the Bully: I am alive, my id is higher, wait for the outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionOk {
    /// Who answers.
    pub id: NodeId,
    /// The highest round that it has heard of.
    pub counter: u64,
}

/// COORDINATOR of the Bully, from the winner to everyone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// The election's round with the winner's incarnation.
    pub term: Term,
    /// Where the winner can be dialled, `host:port`.
    pub address: String,
}
