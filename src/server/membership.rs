//! Who belongs to the cluster: first voters, later learners, and which disk each voter has.
//!
//! ```text
//!   n1          n2          n3       --bootstrap-expect 3
//!    │◀── JOIN ──│           │       everyone says who it is to everyone that it is connected to
//!    │◀──────── JOIN ────────│
//!    │─ MEMBERS proposed ───▶│       n1 has heard two others and has the lowest id: it draws a cluster id
//!    │◀─ MEMBERS taken ──────│       "on my disk", from all three: now it is valid
//!    │─ MEMBERS valid ──────▶│
//!    │           │           │◀── JOIN ── n4     later: n4 is a learner; ACK names members and leader
//! ```
//!
//! **First voters.** The lowest id heard proposes the members and a random cluster id. The proposal is valid when all
//! of them have it on disk, and only its proposer can find that out. So a server that took a proposal may take another
//! one only when that comes from the same or a lower id and has the first proposer among its voters: that one took it, too, hence gave
//! its own up. Two clusters of the same servers are impossible; the price is that all first voters must be up once,
//! together. With one voter it happens at once.
//!
//! **Later.** In the design `sequencer` the voters stay for good (in `raft` its own [configuration](super::raft) changes); a server that joins later gets every entry, but has no vote. Changes (a learner, a new address,
//! the disk of a voter) are MEMBERS entries of the one order, written by the leader, and hold from their
//! place in the log on: what a cut tail said is forgotten with it. A server that finds itself missing or described wrongly
//! sends JOIN again every second.
//!
//! **Wiped voters.** A voter whose disk id is not the recorded one has lost its promises. [`counts`](MembershipManager::counts) says
//! no to it; when it says yes again, and why, stands in [`ordering`](super::ordering).
//!
//! Leaves out: other voters than the first ones (`raft` has them), and a disk that comes back after its successor was recorded: throw
//! away what was replaced.
//!
//! Source: total-order-chat.txt, "Membership Manager". Its components and operations in the code:
//!
//! | document | here |
//! |---|---|
//! | `TransportLayer` | [`ConnectionManager`](crate::network::ConnectionManager), seen as [`Transport`] |
//! | `start_server()` | [`ServerNode::start`](super::ServerNode::start) |
//! | `connect()` | [`ConnectionManager::connect_to`](crate::network::ConnectionManager::connect_to), asked for with [`Network::dial`](crate::network::transport::Network::dial) |
//! | `send_to()` | [`Transport::send_to_node`] |
//! | `broadcast()` | [`Transport::broadcast_to_all`] |
//! | `MembershipManager` | [`MembershipManager`] |
//! | `node_id`, `peers` | [`MembershipManager::node_id`], [`MembershipManager::peers`] |
//! | `leader_id` | [`TotalOrder::leader`](super::total_order::TotalOrder::leader): one fact has one place |
//! | `seed_peers` | `--peers`, dialled by [`ServerNode`](super::ServerNode) |
//! | `add_peer()` | [`MembershipManager::add_peer`] |
//! | `get_higher_priority_peers()` | [`MembershipManager::get_higher_priority_peers`] |
//! | `bootstrap_join()` | [`MembershipManager::bootstrap_join`] |
//! | `FailureDetector` | the leader's HEARTBEAT and the timers of [`OrderingManager`](super::ordering::OrderingManager) |
//! | `ElectionManager` | an [`Election`](super::election::Election), which nominates |
//! | `OrderingManager` | [`OrderingManager`](super::ordering::OrderingManager) |
//! | on CHAT | [`TotalOrder::propose`](super::total_order::TotalOrder::propose) |
//! | on SEQ_CHAT, on CATCHUP_REQ | [`TotalOrder::handle_message`](super::total_order::TotalOrder::handle_message) |
//! | "Deliver message" | [`TotalOrder::take_committed`](super::total_order::TotalOrder::take_committed) |
//! | `StorageManager` | [`Storage`](crate::storage::Storage) and [`EntryLog`](super::total_order::EntryLog) |
//! | `append_message()` | [`Storage::append`](crate::storage::Storage::append) |
//! | `load_messages()` | [`TotalOrder::recover`](super::total_order::TotalOrder::recover), a record at a time |
//! | `get_messages_after(seq)` | [`EntryLog::between`](super::total_order::EntryLog::between) |

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::step::Step;
use super::total_order::Seq;
use crate::domain::content::ServerAddress;
use crate::domain::content::{Join, Member, Members, MembersContent, OrderingAck};
use crate::domain::{Message, MessageType, NodeId};
use crate::error::RequestError;
use crate::network::Transport;
use crate::server::planted::{Planted, is_planted};
use crate::storage::LogIndex;

mod bootstrap;

/// How often JOIN and proposals are sent again.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// Learners are refused beyond this, so that wrong configurations do not fill the list.
const LEARNERS_MAX: usize = 64;

/// The first members as someone proposed them.
#[derive(Debug)]
struct Proposal {
    proposer: NodeId,
    members: Members,
}

/// What to do when a record is on disk.
#[derive(Debug)]
enum WhenSynced {
    Answer(NodeId, String),
    CountOwn(String),
}

/// The document's `MembershipManager`, for the designs with voters.
#[derive(Debug)]
pub struct MembershipManager {
    node_id: NodeId,
    me: Member,
    bootstrap_expect: usize,
    rng: fastrand::Rng,
    peers: BTreeMap<NodeId, Member>,
    links: BTreeSet<NodeId>,
    proposal: Option<Proposal>,
    /// Who has the own proposal on disk.
    taken_by: BTreeSet<NodeId>,
    /// The members from a bootstrap or another server's answer.
    base: Option<Members>,
    /// The members that entries of the log name, by place.
    in_log: BTreeMap<Seq, Members>,
    /// Entries up to here are committed.
    committed: Seq,
    waiting: Vec<(LogIndex, WhenSynced)>,
    synced: LogIndex,
    join_at: Option<Instant>,
}

impl MembershipManager {
    /// The server `node_id`, which is to be told or to find out who else belongs to the cluster. `bootstrap_expect` is the
    /// number of first voters, at least 1.
    pub fn new(node_id: NodeId, me: Member, bootstrap_expect: usize, rng: fastrand::Rng) -> Self {
        Self {
            node_id,
            me,
            bootstrap_expect: bootstrap_expect.max(1),
            rng,
            peers: BTreeMap::new(),
            links: BTreeSet::new(),
            proposal: None,
            taken_by: BTreeSet::new(),
            base: None,
            in_log: BTreeMap::new(),
            committed: 0,
            waiting: Vec::new(),
            synced: 0,
            join_at: None,
        }
    }

    /// This server's id.
    pub fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    /// This server's address and disk.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// Every other server that ever said JOIN.
    pub fn peers(&self) -> &BTreeMap<NodeId, Member> {
        &self.peers
    }

    /// The servers that a connection stands to.
    pub fn links(&self) -> &BTreeSet<NodeId> {
        &self.links
    }

    /// The members that are in force: the latest that the log or a bootstrap names.
    pub fn members(&self) -> Option<&Members> {
        let all = self.base.iter().chain(self.in_log.values());
        all.max_by_key(|members| members.version)
    }

    /// What others may be told for good: the latest members that cannot be cut any more.
    fn committed_members(&self) -> Option<&Members> {
        let in_log = self.in_log.range(..=self.committed).map(|(_, members)| members);
        self.base.iter().chain(in_log).max_by_key(|members| members.version)
    }

    /// Entries up to `seq` are committed.
    pub fn note_committed(&mut self, seq: Seq) {
        self.committed = seq;
    }

    /// Whether `id` is a voter, counted or not.
    pub fn is_voter(&self, id: &NodeId) -> bool {
        self.members().is_some_and(|members| members.voters.contains_key(id))
    }

    /// Whether a promise or an acknowledgement that `id` keeps on `disk_id` counts: it is a voter, and not a wiped one.
    pub fn counts(&self, id: &NodeId, disk_id: &str) -> bool {
        let voter = self.members().and_then(|members| members.voters.get(id));
        voter.is_some_and(|voter| voter.disk_id == disk_id || is_planted(Planted::CountsWiped))
    }

    /// Whether this server may promise and stand.
    pub fn counts_itself(&self) -> bool {
        self.counts(&self.node_id, &self.me.disk_id)
    }

    /// The document's `add_peer`: this is where `id` is and what it keeps.
    pub fn add_peer(&mut self, id: &NodeId, member: Member) {
        if *id != self.node_id {
            self.peers.insert(id.clone(), member);
        }
    }

    /// The document's `get_higher_priority_peers`: voters with a higher id, for the Bully.
    pub fn get_higher_priority_peers(&self) -> Vec<NodeId> {
        let Some(members) = self.members() else { return Vec::new() };
        let higher = members.voters.keys().filter(|id| **id > self.node_id);
        higher.cloned().collect()
    }

    /// The document's `bootstrap_join`: says JOIN to `to`, or to everyone that a connection stands to.
    pub fn bootstrap_join(&self, to: Option<&NodeId>, cm: &dyn Transport) {
        let cluster_id = self.members().map(|members| members.cluster_id.clone());
        let join = Join { member: self.me.clone(), cluster_id };
        let msg = self.message(MessageType::Join).saying(&join);
        let all = self.links.iter().filter(|id| to.is_none_or(|to| to == *id));
        all.for_each(|id| cm.send_to_node(id, &msg));
    }

    /// Takes a MEMBERS record of the journal that has no place in the order.
    pub fn recover(&mut self, record: &Message) {
        match record.content.parse() {
            Ok(MembersContent::Proposed { proposer, members }) => {
                self.taken_by.clear();
                if proposer == self.node_id {
                    self.taken_by.insert(proposer.clone());
                }
                self.proposal = Some(Proposal { proposer, members });
            }
            Ok(MembersContent::Valid { members }) => self.base = Some(members),
            Ok(MembersContent::Taken { .. }) | Err(_) => {}
        }
    }

    /// Appends again what is on disk without a place in the order: the first members, or their proposal.
    pub fn write_again(&self, step: &Step) {
        let valid = self.base.clone().map(|members| MembersContent::Valid { members });
        let proposed = self.proposal.as_ref().map(|Proposal { proposer, members }| {
            MembersContent::Proposed { proposer: proposer.clone(), members: members.clone() }
        });
        for content in proposed.into_iter().chain(valid) {
            step.log.append(&self.message(MessageType::Members).saying(&content));
        }
    }

    /// An entry was put into the log, here or at recovery.
    pub fn entry_added(&mut self, entry: &Message) {
        let Some(seq) = entry.seq else { return };
        self.in_log.split_off(&seq);
        if entry.message_type == MessageType::Members
            && let Ok(MembersContent::Valid { members }) = entry.content.parse()
        {
            self.in_log.insert(seq, members);
        }
    }

    /// Entries up to `seq` are forgotten: what they said about members stays.
    pub fn forget_up_to(&mut self, seq: Seq) {
        let later = self.in_log.split_off(&(seq + 1));
        let latest = std::mem::replace(&mut self.in_log, later).into_values();
        self.base =
            self.base.take().into_iter().chain(latest).max_by_key(|members| members.version);
    }

    /// The members that are kept beside the log.
    pub fn base(&self) -> Option<&Members> {
        self.base.as_ref()
    }

    /// The log begins after `seq`, with `members` in force; with `anew` it is empty.
    pub fn start_after(&mut self, seq: Seq, members: Option<Members>, anew: bool) {
        if anew {
            self.in_log.clear();
        } else {
            self.forget_up_to(seq);
        }
        self.base =
            self.base.take().into_iter().chain(members).max_by_key(|members| members.version);
    }

    /// A connection to `id` stands.
    pub fn link_up(&mut self, id: &NodeId, step: &Step) {
        self.links.insert(id.clone());
        if !self.is_settled() {
            self.bootstrap_join(Some(id), step.cm);
        }
    }

    /// The connection to `id` is gone.
    pub fn link_down(&mut self, id: &NodeId) {
        self.links.remove(id);
    }

    /// What is missing, in a sentence for the operator: servers to found the cluster, this server's log, or a majority.
    pub fn waits_for(&self, leader: Option<&NodeId>) -> Option<String> {
        let Some(members) = self.members() else {
            let mut here: Vec<&NodeId> = self.links.iter().chain([&self.node_id]).collect();
            here.sort();
            return Some(format!(
                "the cluster is not founded: {} of {} first voters are here ({}); start the others, or choose another \
                 --bootstrap-expect",
                here.len().min(self.bootstrap_expect),
                self.bootstrap_expect,
                names(&here)
            ));
        };
        if self.is_voter(&self.node_id) && !self.counts_itself() {
            return Some(LOST_ITS_LOG.into());
        }
        let reached = |id: &NodeId| *id == self.node_id || self.links.contains(id);
        leader.is_none().then(|| lacks_majority(members.voters.keys(), reached)).flatten()
    }

    /// Whether the members are known and describe this server as it is.
    pub fn is_settled(&self) -> bool {
        self.members().is_some_and(|members| members.get(&self.node_id) == Some(&self.me))
    }

    /// Says JOIN again, and proposes again, while that is needed: the members are not known, or describe this server wrongly, or
    /// there is no leader. `leader` is asked alone when there is one.
    pub fn tick(&mut self, leader: Option<&NodeId>, step: &Step) {
        // Without a leader nobody may know this server any more: what made it a learner can have been cut.
        let settled = self.is_settled() && leader.is_some();
        if settled || self.join_at.is_some_and(|at| step.now < at) {
            return;
        }
        self.join_at = Some(step.now + JOIN_AGAIN);
        self.bootstrap_join(leader, step.cm);
        self.propose(step);
        self.send_proposal(step);
    }

    /// JOIN from `from`: remembers it and answers with the members and the leader, and whether it was `removed`. Servers of
    /// another cluster are refused by its name.
    pub fn handle_join(
        &mut self,
        from: &NodeId,
        msg: &Message,
        leader: Option<ServerAddress>,
        removed: bool,
        step: &Step,
    ) -> Result<(), RequestError> {
        let join: Join = content_of(msg)?;
        if let Some(cluster_id) = &join.cluster_id {
            self.check_cluster(from, cluster_id)?;
        }
        self.add_peer(from, join.member);
        let members = self.committed_members().cloned();
        let joined = OrderingAck::Joined { members, leader, removed };
        let answer = self.message(MessageType::Ack).with_id(msg.message_id.clone());
        step.cm.send_to_node(from, &answer.saying(&joined));
        self.propose(step);
        Ok(())
    }

    /// The answer to an own JOIN.
    pub fn handle_joined(
        &mut self,
        from: &NodeId,
        members: Option<Members>,
        step: &Step,
    ) -> Result<(), RequestError> {
        members.map_or(Ok(()), |members| self.take_valid(from, members, step))
    }

    /// MEMBERS from `from`.
    pub fn handle_members(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        match content_of(msg)? {
            MembersContent::Proposed { proposer, members } if proposer == *from => {
                self.consider(proposer, members, step);
                Ok(())
            }
            MembersContent::Proposed { .. } => Ok(()),
            MembersContent::Taken { cluster_id } => {
                self.count_taken(from, &cluster_id, step);
                Ok(())
            }
            MembersContent::Valid { members } => self.take_valid(from, members, step),
        }
    }

    /// All records up to `index` are on disk.
    pub fn on_synced(&mut self, index: LogIndex) {
        self.synced = self.synced.max(index);
    }

    /// Sends the answers that waited for the disk.
    pub fn settle(&mut self, step: &Step) {
        let synced = self.synced;
        let ready: Vec<_> = self.waiting.extract_if(.., |(index, _)| *index <= synced).collect();
        for (_, what) in ready {
            match what {
                WhenSynced::Answer(to, cluster_id) => {
                    let taken = MembersContent::Taken { cluster_id };
                    step.cm.send_to_node(&to, &self.message(MessageType::Members).saying(&taken));
                }
                WhenSynced::CountOwn(cluster_id) => {
                    self.count_taken(&self.node_id.clone(), &cluster_id, step);
                }
            }
        }
    }

    /// The members after `id` said that it is `member`; `None` when the list says so already, or when that is a voter on another
    /// disk, which must catch up first ([`with_disk`](Self::with_disk)).
    pub fn with_member(&self, id: &NodeId, member: &Member) -> Option<Members> {
        let mut members = self.members()?.clone();
        match members.voters.get_mut(id) {
            Some(voter) if voter.disk_id != member.disk_id || voter == member => return None,
            Some(voter) => voter.clone_from(member),
            None if members.learners.get(id) == Some(member) => return None,
            None if members.learners.len() >= LEARNERS_MAX => return None,
            None => _ = members.learners.insert(id.clone(), member.clone()),
        }
        members.version += 1;
        Some(members)
    }

    /// The members after the voter `id` has caught up on its new disk.
    pub fn with_disk(&self, id: &NodeId, disk_id: &str) -> Option<Members> {
        let mut members = self.members()?.clone();
        let voter = members.voters.get_mut(id)?;
        voter.disk_id = disk_id.into();
        if let Some(peer) = self.peers.get(id).filter(|peer| peer.disk_id == disk_id) {
            voter.address.clone_from(&peer.address);
        }
        members.version += 1;
        Some(members)
    }

    fn message(&self, message_type: MessageType) -> Message {
        Message::new(message_type, self.node_id.as_str())
    }

    fn check_cluster(&self, from: &NodeId, cluster_id: &str) -> Result<(), RequestError> {
        match self.members() {
            Some(members) if members.cluster_id != cluster_id => Err(RequestError::WrongCluster {
                reason: format!(
                    "{from} belongs to the cluster with id {cluster_id}, this one has {}; give it \
                     another data folder, or the addresses of its own cluster",
                    members.cluster_id
                ),
            }),
            _ => Ok(()),
        }
    }

    fn take_valid(
        &mut self,
        from: &NodeId,
        members: Members,
        step: &Step,
    ) -> Result<(), RequestError> {
        self.check_cluster(from, &members.cluster_id)?;
        if self.members().is_none_or(|known| known.version < members.version) {
            let valid = MembersContent::Valid { members: members.clone() };
            step.log.append(&self.message(MessageType::Members).saying(&valid));
            self.base = Some(members);
            self.proposal = None;
        }
        Ok(())
    }
}

/// What a voter with an empty disk waits for.
pub(super) const LOST_ITS_LOG: &str = "this server is a voter that lost its log: it promises and counts for nothing until \
                                       it has fetched the log from a leader";

/// Who of `voters` is missing for a majority, in a sentence; `None` when enough of them count.
pub(super) fn lacks_majority<'a>(
    voters: impl Iterator<Item = &'a NodeId>,
    counts: impl Fn(&NodeId) -> bool,
) -> Option<String> {
    let (here, away): (Vec<&NodeId>, Vec<&NodeId>) = voters.partition(|id| counts(id));
    let all = here.len() + away.len();
    let majority = all / 2 + 1;
    (here.len() < majority).then(|| {
        format!(
            "no majority: {} of {all} voters can be reached, {majority} are needed; missing: {}",
            here.len(),
            names(&away)
        )
    })
}

/// `n1, n2`.
fn names(ids: &[&NodeId]) -> String {
    ids.iter().map(|id| id.as_str()).collect::<Vec<_>>().join(", ")
}

/// The typed content of `msg`, or what is wrong with it.
pub(super) fn content_of<T: DeserializeOwned>(msg: &Message) -> Result<T, RequestError> {
    msg.content.parse().map_err(|error| RequestError::InvalidField {
        message_id: msg.message_id.clone(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
