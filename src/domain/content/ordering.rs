//! What servers say to each other about the one order, and about who is a member.
//!
//! The design `sequencer` uses all of it; `raft` shares [`Join`], [`MembersContent`] and [`Members`].
//! Examples of each stand in [`crate::wire`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ServerAddress;
use crate::domain::ids::{NodeId, Term};
use crate::domain::message::Message;

/// A place in the one order, with the term of the entry there. Place 0 stands before the first entry and has no term.
/// The greater one is the end of the longer log: terms count first.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The term of the entry, `null` for place 0.
    pub term: Option<Term>,
    /// From 1; 0 before the first.
    pub seq: u64,
}

/// PROMISE: a nominee asks, and the answers. The nominee's term is the message's `term`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PromiseContent {
    /// Will you follow nobody of a lower term any more?
    Request {
        /// The leader itself asked the sender to stand, or is the sender: a living leader is no reason to refuse.
        handover: bool,
    },
    /// Yes; the promise is on disk, and so is the log up to `end`.
    Granted {
        /// Where the log ended when the promise was given.
        end: Place,
        /// The disk that keeps both.
        disk_id: String,
    },
    /// No. Also the answer to a leader whose term is too low.
    Refused {
        /// The highest term that the sender promised to follow.
        promised: Term,
        /// Whether the sender follows an active leader.
        led: bool,
    },
    /// As a record of the log: what was promised to the message's `term`.
    Kept {
        /// Where the log ended.
        end: Place,
    },
}

/// What the entries of a [`SeqChat`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeqChatKind {
    /// From the leader of the message's `term`: its log.
    Order,
    /// To the nominee of the message's `term`, from the server with the longest log: the end of that log.
    Adoption,
    /// From anyone, when no leader is there: committed entries only.
    Committed,
    /// What stands up to `prev` is not kept any more, but for the state and the members after it. Also a record of the log.
    Base,
}

/// SEQ_CHAT: entries in order, and what stands before them. A struct rather than a tagged enum, so that the
/// contents of the entries stay raw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeqChat {
    /// What the entries are.
    pub kind: SeqChatKind,
    /// What stands before the first entry in the sender's log.
    pub prev: Place,
    /// The entries after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Arc<Message>>,
    /// The last committed place that the sender knows.
    pub committed: u64,
    /// Whether the sender leads actively: an entry of its term is committed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub active: bool,
    /// With [`SeqChatKind::Base`]: whatever the log held, it starts anew after `prev`. Else it goes on, only its beginning is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub history_starts: bool,
    /// With [`SeqChatKind::Base`]: a piece of the state after `prev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StatePiece>,
    /// With [`SeqChatKind::Base`]: the members after `prev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
}

/// A piece of what the entries up to a place did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePiece {
    /// Which one, from 0.
    pub number: u32,
    /// How many there are.
    pub of: u32,
    /// One after the other they are the state.
    pub text: String,
}

/// HEARTBEAT from the leader of the message's `term`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderHeartbeat {
    /// The last place that was sent to the receiver.
    pub prev: Place,
    /// The last committed place.
    pub committed: u64,
    /// Whether the sender leads actively.
    pub active: bool,
    /// Every member that the sender is connected to has the log up to here: so far it may be forgotten.
    #[serde(default)]
    pub held: u64,
}

/// CATCHUP_REQ: send me what comes after `after`. The `term` is the leader's, or the asking nominee's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchupReq {
    /// A place in the sender's log.
    pub after: Place,
    /// How much it has of the state that stands for what is not kept any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateHere>,
}

/// The first pieces of a state that are here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateHere {
    /// After which place.
    pub base: Place,
    /// How many.
    pub pieces: u32,
}

/// ACK between servers with one order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum OrderingAck {
    /// To the leader of the message's `term`: my log is yours up to `seq`, and on my disk.
    Synced {
        /// The last such place.
        seq: u64,
        /// The disk.
        disk_id: String,
    },
    /// To a JOIN: who belongs to the cluster, and who leads.
    Joined {
        /// The members, when the cluster exists.
        members: Option<Members>,
        /// The active leader, if one is known.
        leader: Option<ServerAddress>,
        /// Whether the receiver, with the disk that it has, was removed (design `raft`).
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        removed: bool,
    },
}

/// How far the one order is on a server, in [`Status`](super::Status).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderStatus {
    /// The last place that is known to be committed.
    pub committed: u64,
    /// The last place in this server's log, committed or not.
    pub last: u64,
    /// The place after which the entries begin that are kept here; 0 when all are.
    pub starts_after: u64,
    /// Who counts for majorities. None before the cluster is founded.
    pub voters: Vec<NodeId>,
    /// Who gets the log and does not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<NodeId>,
    /// Voters that lost their disks: they count for majorities and cannot say yes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wiped: Vec<NodeId>,
    /// What this server, or the cluster, waits for, in a sentence for its operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
}

/// TIMEOUT_NOW: stand at once. The `term` is the leader's that hands over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutNow {}

/// A server as the members' list keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where it can be dialled, `host:port`.
    pub address: String,
    /// The random name of its data folder. A voter with another one is wiped: it does not count.
    pub disk_id: String,
}

/// Who belongs to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Random, drawn when the cluster was made. Servers of another one are refused.
    pub cluster_id: String,
    /// Counts changes, from 1.
    pub version: u64,
    /// Those that count for majorities.
    pub voters: BTreeMap<NodeId, Member>,
    /// Those that only get what was ordered.
    pub learners: BTreeMap<NodeId, Member>,
}

impl Members {
    /// The voter or learner `id`.
    pub fn get(&self, id: &NodeId) -> Option<&Member> {
        self.voters.get(id).or_else(|| self.learners.get(id))
    }

    /// Every member, voters first.
    pub fn all(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.voters.iter().chain(&self.learners)
    }

    /// How many voters are more than half of them.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}

/// JOIN: a server says who it is and asks for the members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Its address and disk.
    pub member: Member,
    /// The cluster that it belongs to, when it does already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
}

/// MEMBERS, as a message, a record and an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MembersContent {
    /// These should be the first members; also the record of having taken that.
    Proposed {
        /// Who proposes.
        proposer: NodeId,
        /// What.
        members: Members,
    },
    /// To the proposer: your proposal is on my disk.
    Taken {
        /// The proposal's cluster id.
        cluster_id: String,
    },
    /// These are the members. As an entry of the log it holds from its place on.
    Valid {
        /// Which.
        members: Members,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    #[test]
    fn the_longer_log_ends_in_the_higher_term() {
        let place = |counter: u64, seq| {
            let term = (counter > 0).then(|| Term { counter, leader: "n1.1-0000".into() });
            Place { term, seq }
        };
        assert!(place(2, 1) > place(1, 9));
        assert!(place(2, 3) > place(2, 2));
        assert!(place(1, 1) > place(0, 0));
    }

    #[test]
    fn entries_keep_their_contents_raw() {
        let inner = Message::new(MessageType::Members, "n1").saying(&CatchupReq::default());
        let batch = SeqChat {
            kind: SeqChatKind::Order,
            prev: Place::default(),
            entries: vec![Arc::new(inner)],
            committed: 3,
            active: true,
            history_starts: false,
            state: None,
            members: None,
        };
        let message = Message::new(MessageType::SeqChat, "n1").saying(&batch);
        let read = Message::deserialize(&message.serialize()).unwrap();
        assert_eq!(read.content.parse::<SeqChat>().unwrap(), batch);
    }
}
