//! What the messages of Raft say: the remote procedure calls of the paper, their answers, and records of the journal.
//!
//! Terms are plain numbers here, as in the paper; entries carry a whole [`Term`], with the incarnation of their
//! leader. All enums are tagged from outside (`{"request": {…}}`), so that entries stay as they came.
//!
//! Source: Ongaro and Ousterhout (2014, extended version), Figures 2 and 13; Ongaro (2014), sections 3.10, 4 and 6.4.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ids::{Incarnation, NodeId, Term};
use super::message::Message;

/// `REQUEST_VOTE` (Figure 2; pre-vote: thesis 9.6).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestVote {
    /// Vote for me.
    Request {
        /// The term in which the candidate stands, or with `pre_vote` would stand.
        term: u64,
        /// The place of its last entry.
        last_log_index: u64,
        /// The term of that entry.
        last_log_term: u64,
        /// The receiver's disk, as the candidate's configuration names it: a wiped voter sees that it is not meant.
        disk: String,
        /// Only a question: would you?
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pre_vote: bool,
        /// The leader itself asked the candidate to stand (thesis 3.10), so nobody need protect it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        transfer: bool,
    },
    /// Yes or no.
    Answer {
        /// The answering server's term.
        term: u64,
        /// The term that was asked about.
        asked: u64,
        /// Whether it has the vote.
        vote_granted: bool,
        /// Repeats the request's.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pre_vote: bool,
    },
    /// In the journal only: the term that this server is in, and whom it voted for there.
    Voted {
        /// `currentTerm` of Figure 2.
        term: u64,
        /// `votedFor` of Figure 2.
        voted_for: Option<NodeId>,
    },
}

/// `APPEND_ENTRIES` (Figure 2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppendEntries {
    /// From the leader: what comes next, or nothing, as its heartbeat.
    Request {
        /// The leader's term.
        term: u64,
        /// The leader.
        leader: Incarnation,
        /// The place before the first of `entries`.
        prev_log_index: u64,
        /// The term of the leader's entry there, 0 before the first entry.
        prev_log_term: u64,
        /// The entries, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        entries: Vec<Arc<Message>>,
        /// How far the leader has committed.
        leader_commit: u64,
        /// Counts the times that the leader asked everybody whether it still leads (thesis 6.4).
        round: u64,
    },
    /// The log is the leader's up to `match_index`, and that is on disk.
    Accepted {
        /// The answering server's term.
        term: u64,
        /// How far its log is known to be the leader's, and synced.
        match_index: u64,
        /// The highest round that it has seen of this leader.
        round: u64,
        /// Its disk: only the one that the configuration names counts.
        disk: String,
    },
    /// The entry before was not there, or the term is over.
    Rejected {
        /// The answering server's term.
        term: u64,
        /// Which request: its `prev_log_index`.
        prev_log_index: u64,
        /// The term that stands there instead; absent when the log is too short (5.3, last paragraphs).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        conflict_term: Option<u64>,
        /// The first place of that term, or the end of the log plus one.
        conflict_index: u64,
        /// The highest round that it has seen of this leader.
        round: u64,
        /// Its disk.
        disk: String,
    },
}

/// `INSTALL_SNAPSHOT` (section 7, Figure 13).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstallSnapshot {
    /// From the leader: a piece of its snapshot.
    Request {
        /// The leader's term.
        term: u64,
        /// The leader.
        leader: Incarnation,
        /// What the snapshot is.
        head: SnapshotHead,
        /// Where the piece begins, in bytes.
        offset: u64,
        /// The piece.
        data: HexBytes,
    },
    /// Send on from `offset`; the end of the snapshot when all of it is here.
    Answer {
        /// The answering server's term.
        term: u64,
        /// Which snapshot: its last place.
        last_included_index: u64,
        /// How much of it is here, in bytes.
        offset: u64,
        /// The answering server's disk.
        disk: String,
    },
    /// In the journal only: the log begins anew behind this snapshot, which the leader sent and is on disk.
    Installed {
        /// What the snapshot is.
        head: SnapshotHead,
    },
}

/// What a snapshot replaces, and how to know that it is whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// The place of the last entry that it replaces.
    pub last_included_index: u64,
    /// The term of that entry.
    pub last_included_term: Option<Term>,
    /// The configuration as of that entry (thesis 5).
    pub configuration: Configuration,
    /// Its length, in bytes.
    pub total: u64,
    /// CRC-32 (IEEE) of its bytes.
    pub checksum: u32,
}

/// `TIMEOUT_NOW` (thesis 3.10): stand for election at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimeoutNow {
    /// The term of the leader that hands over.
    pub term: u64,
}

/// `READ_INDEX` (thesis 6.4): how far must I be to read?
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadIndex {
    /// Asked of the leader.
    Request {
        /// Who asks: an answer to an earlier life must not pass for one to this.
        reader: Incarnation,
        /// Names the question among the reader's.
        token: u64,
    },
    /// The leader's answer.
    Answer {
        /// Who asked.
        reader: Incarnation,
        /// Which question.
        token: u64,
        /// Read when this place is applied.
        index: u64,
    },
}

/// MEMBERS as an entry of the log: who takes part, by node id. A server is its id *and* its disk: the same id with
/// another disk is another server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Who votes and counts, with the random name of its data folder.
    pub voters: BTreeMap<NodeId, String>,
    /// Who only gets the log (thesis 4.2.1).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub learners: BTreeMap<NodeId, Learner>,
    /// Who was removed, with the disk that it had: it is let in again only by an operator, or with another disk.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<NodeId, String>,
}

/// A server that gets the log and does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learner {
    /// The random name of its data folder.
    pub disk: String,
    /// Whether it becomes a voter as soon as it has caught up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub promote: bool,
}

impl Configuration {
    /// The disk of a voter or learner.
    pub fn disk_of(&self, node_id: &NodeId) -> Option<&str> {
        let learner = || self.learners.get(node_id).map(|learner| learner.disk.as_str());
        self.voters.get(node_id).map(String::as_str).or_else(learner)
    }

    /// Voters and learners.
    pub fn members(&self) -> impl Iterator<Item = &NodeId> {
        self.voters.keys().chain(self.learners.keys())
    }

    /// Whether the voters for whom `says_yes` holds are a majority. Without voters nobody is one.
    pub fn is_majority(&self, says_yes: impl Fn(&NodeId) -> bool) -> bool {
        let yes = self.voters.keys().filter(|node_id| says_yes(node_id)).count();
        2 * yes > self.voters.len()
    }
}

/// Bytes, as a text of two hex digits each: any bytes pass through JSON, and any piece of them does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HexBytes(pub Vec<u8>);

impl Serialize for HexBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
        let text: String =
            self.0.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
        let pair = |pair: &[u8]| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("not pairs of hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_travel_as_hex_digits() {
        let bytes = HexBytes(vec![0, 0x9f, 0xff]);
        assert_eq!(serde_json::to_string(&bytes).unwrap(), r#""009fff""#);
        assert_eq!(serde_json::from_str::<HexBytes>(r#""009fff""#).unwrap(), bytes);
        for wrong in [r#""0""#, r#""0g""#, r#""+1""#, "7"] {
            assert!(serde_json::from_str::<HexBytes>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_empty_configuration_has_no_majority() {
        assert!(!Configuration::default().is_majority(|_| true));
        let mut two = Configuration::default();
        two.voters.insert("n1".into(), "a".into());
        two.voters.insert("n2".into(), "b".into());
        assert!(!two.is_majority(|node_id| node_id.as_str() == "n1"));
        assert!(two.is_majority(|_| true));
    }
}
