//! The sequencer: one leader gives every message its place, and no place is ever given away twice.
//!
//! ```text
//!   election                this module                                            followers
//!   ────────▶ nominate ──▶ PROMISE to all voters ──────────────────────────▶ promise + end of log, synced
//!                             majority ◀────────────────────────────────────────── granted
//!                          longest log of them: CATCHUP_REQ, SEQ_CHAT (adoption)
//!                          NOOP, the first entry of the own term ── SEQ_CHAT ──▶ synced
//!                             majority ◀──────────────────────────────────────────── ACK
//!                          active: leader() is this server
//!   CHAT ───▶ propose ───▶ 42 ───────────────────────── SEQ_CHAT {prev 41, 42} ─▶ synced
//!                             majority ◀──────────────────────────────────────────── ACK 42
//!                          committed ─────────── SEQ_CHAT or HEARTBEAT {committed 42} ─▶ taken
//! ```
//!
//! Promise: all servers take the same entries in the same order, and what was committed is lost only with a majority of
//! disks. Price: two message delays and two syncs from the leader's log to its acknowledgement. Needs: disks that keep what they synced, terms
//! that are never used twice (they carry the nominee's incarnation). Messages may be lost, doubled and overtaken.
//!
//! **Nominate and activate.** An election ([`Election`](super::election::Election), Bully or another) can name two winners, or one who lacks what was
//! committed. So it only nominates. The nominee draws a higher term and asks the voters to promise that they follow no
//! lower one. Each writes the promise and the end of its log as one record, and answers when that is on disk. From a majority's
//! answers the nominee takes the longest log, by (last term, place): whatever was committed is in it, since a majority has
//! that. Then it writes a NOOP, and leads when a majority has that on disk. Nothing is committed, taken or acknowledged before. The
//! adopted tail keeps its terms.
//!
//! **Figure 8.** An entry of an earlier term is never committed because a majority has it: a longer log of a
//! term in between could still replace it. It is committed together with the first entry of the leader's own term, which no
//! log without it can beat.
//!
//! **Followers.** Batches name the place and term before them. Where that fits, entries that are here already change
//! nothing, and one of another term cuts the tail. An ACK of n in term t says: my log up to n is that of the leader of t, and on my disk. Batches
//! that come ahead are kept ([`BUFFER_MAX`]) and asked for at once with CATCHUP_REQ. It names the end of the own log, or the start of the
//! entries that differ; the answer may lie lower still, so a few steps find where two logs part. The leader sends up to
//! [`WINDOW_BYTES`] ahead of the acknowledgements, to each follower at its own pace. Without a leader anyone is asked, and sends committed
//! entries only: others may still be cut.
//!
//! **Loyalty.** Who hears an active leader promises nothing to others, and a leader that hears a majority stays. So a
//! higher id that is back does not throw it out; when that one is level for [`OrderingTiming::handover_after`], the leader stops placing and tells it to stand (TIMEOUT_NOW), whose requests
//! say so. A leader that hears no majority for [`OrderingTiming::leader_timeout`] steps down. One whose term a voter refuses (it promised a
//! higher one to someone who found no majority) stands again itself, in a higher term.
//!
//! **Backing off.** A nominee without a majority is silent for a random while, longer each time. Meanwhile
//! [`may_answer_election`](TotalOrder::may_answer_election) is false: a lower id that can reach a majority gets its turn.
//!
//! **Wiped voters** stand in [`wiped`]. **`--ack leader`** ([`AckRule::Leader`]) takes the leader's disk for enough, as the document does. It is
//! faster by a round and loses what only a dead leader had.
//!
//! **Old entries** are on disk alone, but for the last [`TAIL_BYTES`]. For a server that was away they are read back a batch at a time, one
//! read under way for each ([`catchup`]); the log's reader does that in its own thread, so neither the order nor its disk waits for it.
//!
//! Leaves out: other voters than the first ones; a leader that reads, which it need not, since every server shows what is
//! committed.
//!
//! Source: total-order-chat.txt, "Ordering Manager", whose holes ("may be lost", "split-brain possible in theory") are closed with Ongaro
//! and Ousterhout (2014), sections 5.3 and 5.4, and Lamport's promises (1998).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::ServerState;
use super::membership::MembershipManager;
use super::step::Step;
use super::total_order::{Entry, MemberView, Seq, TotalOrder};
use crate::domain::content::{CatchupReq, OrderStatus, Place, SeqChat, SeqChatKind};
use crate::domain::{Incarnation, Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::storage::{LogIndex, PackedBytes};

mod base;
mod catchup;
mod following;
mod journal;
mod leading;
mod nomination;
mod standing;
mod timing;
mod wiped;

pub use crate::config::AckRule;
pub use timing::OrderingTiming;

pub use base::PIECE_BYTES;

use base::{Base, Gathering};
use catchup::Catchup;
use following::Following;
use journal::Journal;
use leading::Leading;
use nomination::{Grant, Nomination};
use wiped::ForeignDisk;

/// A batch of entries has about this many bytes at most, well below a frame's limit.
pub const BATCH_BYTES: usize = 256 << 10;

/// This many bytes are on their way to a follower at most; what is beyond waits in the log.
pub const WINDOW_BYTES: usize = 1 << 20;

/// Entries that are committed, applied and on disk stay in memory while all are about this long, in bytes: who was away for a
/// moment is caught up without the disk.
pub const TAIL_BYTES: usize = 32 << 20;

/// Entries that are kept though they came ahead of their turn. What is beyond is asked for again.
pub const BUFFER_MAX: usize = 1024;

/// A leader takes no more messages while this many are not committed: the disks are behind.
pub const UNCOMMITTED_MAX: Seq = 65_536;

/// Terms above this are refused: a damaged number must not use up all that come after it.
/// 2^53 is also where JSON readers of other languages lose count.
const COUNTER_MAX: u64 = 1 << 53;

/// What waits for a promise to be on disk.
#[derive(Debug)]
enum Answer {
    /// The own nomination counts it.
    Own { term: Term, end: Place },
    /// A nominee is told.
    Grant { to: NodeId, term: Term, end: Place },
}

#[derive(Debug)]
enum Role {
    /// Follows the leader of the highest term promised, or waits for one.
    Follower(Following),
    /// Gathers promises, then the longest log.
    Nominee(Nomination),
    /// Sends its log; leads when it is active.
    Leader(Leading),
}

impl Default for Role {
    fn default() -> Self {
        Self::Follower(Following::default())
    }
}

/// What an [`OrderingManager`] is made of.
#[derive(Debug)]
pub struct OrderingConfig {
    /// This life of the server.
    pub incarnation: Incarnation,
    /// How long to wait for what.
    pub timing: OrderingTiming,
    /// When an entry is committed.
    pub ack_rule: AckRule,
    /// Who belongs to the cluster.
    pub membership: MembershipManager,
    /// For the lengths of backing off.
    pub rng: fastrand::Rng,
    /// How much of the log's end stays in memory: [`TAIL_BYTES`].
    pub tail_bytes: usize,
    /// How long a piece of a state is at most: [`PIECE_BYTES`].
    pub piece_bytes: usize,
    /// How long the entries of a batch are at most, unless one alone is longer: [`BATCH_BYTES`].
    pub batch_bytes: usize,
    /// A leader takes no more messages while this many are not committed: [`UNCOMMITTED_MAX`].
    pub uncommitted_max: Seq,
}

/// The document's `OrderingManager`: leader and follower of the one order.
#[derive(Debug)]
pub struct OrderingManager {
    membership: MembershipManager,
    incarnation: Incarnation,
    timing: OrderingTiming,
    ack_rule: AckRule,
    rng: fastrand::Rng,
    journal: Journal,
    tail_bytes: usize,
    piece_bytes: usize,
    batch_bytes: usize,
    uncommitted_max: Seq,
    /// What stands for the entries that are not kept any more.
    base: Base,
    /// A base that is being received.
    gathering: Option<Gathering>,
    /// One that is being read from the records, at the start.
    recovering: Option<Gathering>,
    /// What every member has that the leader is connected to, as it said last.
    held: Seq,
    /// What servers ask for and the disk reads for them.
    catchup: Catchup,
    /// Records of the journal that were read at the start.
    recovered: LogIndex,
    role: Role,
    /// Lower terms are stale: promised to a nominee, or seen of a leader.
    promised: Option<Term>,
    /// The highest counter of a term heard of.
    counter: u64,
    active_term: Option<Term>,
    committed: Seq,
    taken: Seq,
    /// When a leader, or a nominee with a promise, was last heard.
    heard_at: Option<Instant>,
    /// Backs off until then.
    quiet_until: Option<Instant>,
    /// Nominations in a row that failed.
    failures: u32,
    granted: Option<Grant>,
    answers: Vec<(LogIndex, Answer)>,
    synced: LogIndex,
    /// The last CATCHUP_REQ.
    asked: Option<(CatchupReq, Instant)>,
    /// Adopting: where to ask next, since the last answer did not fit.
    ask_after: Option<Place>,
    foreign_disks: BTreeMap<NodeId, ForeignDisk>,
    last_tick: Option<Instant>,
    /// It stops: it neither stands nor places any more.
    resigned: bool,
    /// Who was asked to take over because of that.
    heir: Option<NodeId>,
}

impl OrderingManager {
    /// A server that knows what `config` says; its journal follows with [`recover`](TotalOrder::recover).
    pub fn new(config: OrderingConfig) -> Self {
        Self {
            membership: config.membership,
            incarnation: config.incarnation,
            timing: config.timing,
            ack_rule: config.ack_rule,
            rng: config.rng,
            journal: Journal::default(),
            tail_bytes: config.tail_bytes,
            piece_bytes: config.piece_bytes,
            batch_bytes: config.batch_bytes,
            uncommitted_max: config.uncommitted_max,
            base: Base::default(),
            gathering: None,
            recovering: None,
            held: 0,
            catchup: Catchup::default(),
            recovered: 0,
            role: Role::default(),
            promised: None,
            counter: 0,
            active_term: None,
            committed: 0,
            taken: 0,
            heard_at: None,
            quiet_until: None,
            failures: 0,
            granted: None,
            answers: Vec::new(),
            synced: 0,
            asked: None,
            ask_after: None,
            foreign_disks: BTreeMap::new(),
            last_tick: None,
            resigned: false,
            heir: None,
        }
    }

    /// Who belongs to the cluster.
    pub fn membership(&self) -> &MembershipManager {
        &self.membership
    }

    /// The highest term that was promised or seen.
    pub fn promised(&self) -> Option<&Term> {
        self.promised.as_ref()
    }

    /// The place after which the entries begin that are kept here: 0 when all are.
    pub fn history_starts_at(&self) -> Seq {
        self.journal.log().base()
    }

    /// Places of entries that came ahead of their turn and wait for those before them.
    pub fn buffered(&self) -> Vec<Seq> {
        match &self.role {
            Role::Follower(following) => following.buffer.keys().copied().collect(),
            Role::Nominee(_) | Role::Leader(_) => Vec::new(),
        }
    }

    fn message(&self, message_type: MessageType) -> Message {
        Message::new(message_type, self.membership.node_id().as_str())
    }
}

impl TotalOrder for OrderingManager {
    fn recover(&mut self, record: Message) {
        self.recovered += 1;
        if let Some(term) = &record.term {
            self.note_term(term);
            self.promised = self.promised.take().max(Some(term.clone()));
        }
        match record.message_type {
            _ if record.seq.is_some() => {
                let entry = record.clone();
                if self.journal.recover(record, self.recovered) {
                    self.membership.entry_added(&entry);
                }
            }
            MessageType::Members => self.membership.recover(&record),
            MessageType::SeqChat => {
                if let Ok(said @ SeqChat { kind: SeqChatKind::Base, .. }) = record.content.parse() {
                    self.recover_base(said);
                }
            }
            _ => {}
        }
        // Only what is committed is forgotten.
        self.committed = self.journal.log().base();
        self.taken = self.committed;
    }

    fn handle_message(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        if let Some(term) = msg.term.as_ref().filter(|term| term.counter > COUNTER_MAX) {
            let reason = format!("terms count up to {COUNTER_MAX}, not {}", term.counter);
            return Err(RequestError::InvalidField { message_id: msg.message_id.clone(), reason });
        }
        match msg.message_type {
            MessageType::Promise => self.handle_promise(from, msg, step),
            MessageType::SeqChat => self.handle_seq_chat(from, msg, step),
            MessageType::Heartbeat => self.handle_heartbeat(from, msg, step),
            MessageType::CatchupReq => self.handle_catchup(from, msg, step),
            MessageType::Ack => self.handle_ack(from, msg, step),
            MessageType::TimeoutNow => {
                self.handle_timeout_now(from, msg, step);
                Ok(())
            }
            MessageType::Join => self.handle_join(from, msg, step),
            MessageType::Members => self.membership.handle_members(from, msg, step),
            _ => Ok(()),
        }
    }

    fn tick(&mut self, step: &Step) {
        self.notice_sleep(step.now);
        match &self.role {
            Role::Follower(_) => self.tick_follower(step),
            Role::Nominee(_) => self.tick_nominee(step),
            Role::Leader(_) => self.tick_leader(step),
        }
        let leader = self.leader_id();
        self.membership.tick(leader.as_ref(), step);
    }

    fn heartbeat(&mut self, step: &Step) {
        self.beat_all(step);
    }

    fn on_synced(&mut self, index: LogIndex) {
        self.synced = self.synced.max(index);
        self.journal.on_synced(index);
        self.membership.on_synced(index);
        self.advance();
    }

    fn link_up(&mut self, node_id: &NodeId, step: &Step) {
        self.membership.link_up(node_id, step);
        match &self.role {
            Role::Leader(_) => self.resend(node_id, step),
            Role::Nominee(_) => self.tick_nominee(step),
            Role::Follower(_) if self.leader_id().is_none() => {
                self.ask_for(node_id, None, self.journal.end(), step);
            }
            Role::Follower(_) => {}
        }
    }

    fn node_failed(&mut self, node_id: &NodeId, _step: &Step) {
        self.membership.link_down(node_id);
        self.catchup.forget(node_id);
        if self.leader_id().as_ref() == Some(node_id)
            && let Role::Follower(following) = &mut self.role
        {
            following.active = false;
            self.heard_at = None;
        }
    }

    fn propose(&mut self, msg: Message, step: &Step) -> Option<Seq> {
        if self.takes_messages() { self.place(msg, step) } else { None }
    }

    fn take_committed(&mut self) -> Vec<Entry> {
        let entries =
            (self.taken + 1..=self.committed).map_while(|seq| self.journal.log().get(seq));
        let entries: Vec<Entry> = entries.cloned().collect();
        self.taken += entries.len() as Seq;
        entries
    }

    fn on_read(&mut self, token: u64, from: LogIndex, records: Vec<Message>) {
        let read = self.journal.on_read(token, from, records);
        self.catchup.read.extend(read);
    }

    fn forgets(&self) -> bool {
        true
    }

    fn may_forget_up_to(&self, bytes: Option<u64>, step: &Step) -> Seq {
        let kept = bytes.map(|bytes| self.journal.last_before(step.log.first_within(bytes)));
        self.forgettable().min(kept.unwrap_or(Seq::MAX))
    }

    fn forget(&mut self, seq: Seq, state: Arc<str>, step: &Step) -> bool {
        self.forget_entries(seq, state, step)
    }

    fn recall(&mut self, first: Seq, step: &Step) {
        self.recall_entries(first, step);
    }

    fn take_recalled(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.catchup.recalled)
    }

    fn take_snapshot(&mut self) -> Option<(Seq, Arc<PackedBytes>)> {
        let due = std::mem::take(&mut self.base.due);
        let state = self.base.state.as_ref().filter(|_| due)?;
        Some((self.journal.log().base(), Arc::new(PackedBytes::new(state.as_bytes()))))
    }

    fn settle(&mut self, step: &Step) {
        self.journal.release(self.taken, self.tail_bytes);
        self.answer_synced(step);
        self.advance();
        self.membership.note_committed(self.committed);
        self.membership.settle(step);
        self.send_what_was_read(step);
        self.pump(step);
        self.acknowledge_leader(step);
    }

    fn wants_election(&self, now: Instant) -> bool {
        let alone = self.membership.members().is_some_and(|members| members.voters.len() == 1);
        let silent = self.heard_at.is_none_or(|at| now >= at + self.timing.leader_timeout);
        let looking = matches!(&self.role, Role::Follower(following) if !following.active);
        looking && (silent || alone) && self.may_answer_election(now)
    }

    fn may_answer_election(&self, now: Instant) -> bool {
        let backs_off = self.quiet_until.is_some_and(|until| now < until);
        self.membership.counts_itself() && !backs_off && !self.resigned
    }

    fn nominate(&mut self, step: &Step) {
        // A running leader is not thrown out, and one that stands already goes on.
        if self.leader_id().is_none() && self.may_answer_election(step.now) {
            self.stand(false, step);
        }
    }

    fn resign(&mut self, step: &Step) {
        self.hand_over_to_best(step);
    }

    fn hands_over(&self) -> bool {
        let linked = |heir| self.membership.links().contains(heir);
        let leader = self.leader_id();
        self.heir.as_ref().is_some_and(linked)
            && leader.is_none_or(|leader| leader == *self.membership.node_id())
    }

    fn leader(&self) -> Option<NodeId> {
        self.leader_id()
    }

    fn term(&self) -> Option<&Term> {
        self.active_term.as_ref()
    }

    fn state(&self) -> ServerState {
        match &self.role {
            Role::Leader(leading) if leading.active => ServerState::Leader,
            Role::Leader(_) | Role::Nominee(_) => ServerState::ElectionInProgress,
            Role::Follower(following) if following.active => ServerState::Follower,
            Role::Follower(_) => ServerState::Looking,
        }
    }

    fn committed(&self) -> Seq {
        self.committed
    }

    fn last(&self) -> Seq {
        self.journal.last()
    }

    fn is_voter(&self, node_id: &NodeId) -> bool {
        self.membership.is_voter(node_id)
    }

    fn cluster_id(&self) -> Option<&str> {
        self.membership.members().map(|members| members.cluster_id.as_str())
    }

    fn members(&self) -> (Vec<MemberView>, bool) {
        (self.member_views(), true)
    }

    fn status(&self) -> OrderStatus {
        let members = self.membership.members();
        let voters = members.map(|members| members.voters.keys().cloned().collect());
        let learners = members.map(|members| members.learners.keys().cloned().collect());
        OrderStatus {
            committed: self.committed,
            last: self.journal.last(),
            starts_after: self.history_starts_at(),
            voters: voters.unwrap_or_default(),
            learners: learners.unwrap_or_default(),
            wiped: Vec::new(),
            waits_for: self.membership.waits_for(self.leader_id().as_ref()),
        }
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
