//! What an operator and the servers say to each other about who takes part.
//!
//! Examples stand in [`crate::wire`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::domain::ids::NodeId;

/// MEMBER: a server is let in or out, or the members are listed. Asked by anyone before CLIENT_JOIN, of any server, which passes
/// it on to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MemberContent {
    /// Who takes part?
    List,
    /// This server is to be a voter: it learns first, and votes when it has caught up.
    Add {
        /// Which.
        id: NodeId,
        /// Where it can be dialled, `host:port`, when it is not connected yet.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<String>,
    },
    /// This server, a voter or a learner, is to take part no more.
    Remove {
        /// Which.
        id: NodeId,
    },
    /// The answer: the members, with what was asked for already in, if it changes them.
    Listed(MemberList),
    /// Between servers: the leader does not do it. The one that was asked answers ERROR.
    Refused {
        /// Why, and what to do.
        reason: String,
        /// Whether the same can succeed a moment later.
        retryable: bool,
    },
}

/// Who takes part, as one server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// Whose view it is: the leader's, or without one that of the server that was asked.
    pub node: NodeId,
    /// Who leads, if anyone does.
    pub leader: Option<NodeId>,
    /// In which term.
    pub term: u64,
    /// Whether the latest change is committed: no other one is taken before.
    pub settled: bool,
    /// The members, by id.
    pub members: Vec<MemberStatus>,
}

/// A member in [`MemberList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// Where it can be reached, `host:port`; absent when the one that answers never met it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What it may do.
    pub role: MemberRole,
    /// Whether the one that answers is connected to it, or is it.
    pub connected: bool,
    /// Entries that it lacks of the leader's log; `null` where that is not known.
    pub behind: Option<u64>,
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// It votes and counts.
    Voter,
    /// It gets the log and does not count.
    Learner,
    /// A learner that becomes a voter as soon as it has caught up.
    Joining,
    /// A voter that lost its disk: it counts for majorities and cannot say yes.
    Wiped,
}

impl fmt::Display for MemberRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Joining => "learner, will vote",
            Self::Wiped => "wiped",
        })
    }
}

impl MemberList {
    /// The member `id`.
    pub fn get(&self, id: &NodeId) -> Option<&MemberStatus> {
        self.members.iter().find(|member| member.id == *id)
    }
}
