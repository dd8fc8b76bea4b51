//! The leader: sends its log to everyone, counts acknowledgements, hands over.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::{AckRule, BATCH_BYTES, Following, OrderingManager, Role, WINDOW_BYTES};
use crate::domain::content::{
    LeaderHeartbeat, Members, MembersContent, Place, SeqChat, SeqChatKind, TimeoutNow,
};
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::server::planted::{Planted, is_planted};
use crate::server::step::Step;
use crate::server::total_order::{Entry, Seq, size_of_entry};

/// A voter that lacks no more than this many entries is level with the leader: it gets them while it takes over.
const LEVEL: Seq = 64;

/// What a leader keeps in mind.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) term: Term,
    /// The place of the first entry of its term.
    pub(super) first: Seq,
    /// That entry is committed: it leads.
    pub(super) active: bool,
    pub(super) followers: BTreeMap<NodeId, Follower>,
    /// Who was asked to take over, and until when nothing is placed because of that.
    pub(super) handing_over: Option<(NodeId, Instant)>,
    handover_not_before: Option<Instant>,
}

/// What a leader knows of another server.
#[derive(Debug)]
pub(super) struct Follower {
    /// The next place to send.
    pub(super) next: Seq,
    /// Its log is the leader's up to here, on its disk.
    pub(super) matched: Seq,
    /// That disk.
    pub(super) disk_id: String,
    /// Batches sent and not acknowledged: the last place and the size in bytes.
    in_flight: VecDeque<(Seq, usize)>,
    in_flight_bytes: usize,
    /// The committed place that it was told.
    told: Seq,
    heard: Instant,
    level_since: Option<Instant>,
    /// Since when it refuses this leader's term.
    refuses_since: Option<Instant>,
    /// It lacks what is not kept any more, and asks for the base, a piece at a time.
    starts_anew: bool,
}

impl Follower {
    fn new(next: Seq, now: Instant) -> Self {
        Self {
            next,
            matched: 0,
            disk_id: String::new(),
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            told: 0,
            heard: now,
            level_since: None,
            refuses_since: None,
            starts_anew: false,
        }
    }

    /// What was on its way is lost, or not wanted: goes on from `next`.
    fn send_from(&mut self, next: Seq) {
        self.next = next;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.starts_anew = false;
    }

    fn acknowledge(&mut self, seq: Seq, disk_id: &str) {
        // What another disk of the same server had says nothing about this one.
        self.matched = if self.disk_id == disk_id { self.matched.max(seq) } else { seq };
        if self.disk_id != disk_id {
            self.disk_id = disk_id.into();
        }
        while let Some((last, bytes)) = self.in_flight.front().copied() {
            if last > seq {
                break;
            }
            self.in_flight_bytes -= bytes;
            self.in_flight.pop_front();
        }
        self.starts_anew &= seq + 1 < self.next;
        self.next = self.next.max(seq + 1);
    }
}

impl Leading {
    pub(super) fn new(term: Term, first: Seq) -> Self {
        let followers = BTreeMap::new();
        Self {
            term,
            first,
            active: false,
            followers,
            handing_over: None,
            handover_not_before: None,
        }
    }

    /// Remembers that `from` refused; all that do.
    pub(super) fn note_refusal(&mut self, from: &NodeId, now: Instant) -> BTreeSet<NodeId> {
        if let Some(follower) = self.followers.get_mut(from) {
            follower.refuses_since.get_or_insert(now);
        }
        let refuse = self.followers.iter().filter(|(_, known)| known.refuses_since.is_some());
        refuse.map(|(node_id, _)| node_id.clone()).collect()
    }

    /// Silence counts from now on: this server slept.
    pub(super) fn restart_timers(&mut self, now: Instant) {
        for follower in self.followers.values_mut() {
            follower.heard = now;
            follower.level_since = None;
        }
    }
}

impl OrderingManager {
    /// Gives every member an entry among the followers.
    pub(super) fn follow_members(&mut self, now: Instant) {
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(members) = self.membership.members() else { return };
        let next = self.journal.last() + 1;
        for (id, _) in members.all().filter(|(id, _)| *id != self.membership.node_id()) {
            leading.followers.entry(id.clone()).or_insert_with(|| Follower::new(next, now));
        }
    }

    /// Puts `msg` at the end of the own log.
    pub(super) fn place(&mut self, msg: Message, step: &Step) -> Option<Seq> {
        let Role::Leader(leading) = &self.role else { return None };
        let entry = self.journal.append(msg, leading.term.clone(), step);
        self.membership.entry_added(&entry);
        if entry.message_type == MessageType::Members {
            self.follow_members(step.now);
        }
        entry.seq
    }

    /// Whether this server leads and takes messages.
    pub(super) fn takes_messages(&self) -> bool {
        let Role::Leader(leading) = &self.role else { return false };
        let room = self.journal.last() - self.committed < self.uncommitted_max;
        leading.active && leading.handing_over.is_none() && !self.resigned && room
    }

    /// Writes `members` into the log.
    pub(super) fn place_members(&mut self, members: Members, step: &Step) {
        let msg = self.message(MessageType::Members).saying(&MembersContent::Valid { members });
        self.place(msg, step);
    }

    /// ACK: `from` has the log up to `seq` on disk.
    pub(super) fn acknowledge(
        &mut self,
        from: &NodeId,
        term: Option<&Term>,
        seq: Seq,
        disk_id: &str,
        step: &Step,
    ) {
        self.note_disk(from, disk_id);
        let last = self.journal.last();
        let Role::Leader(leading) = &mut self.role else { return };
        if Some(&leading.term) != term || seq > last {
            return;
        }
        let Some(follower) = leading.followers.get_mut(from) else { return };
        follower.heard = step.now;
        follower.refuses_since = None;
        follower.acknowledge(seq, disk_id);
        if follower.matched + LEVEL >= last {
            follower.level_since.get_or_insert(step.now);
        } else {
            follower.level_since = None;
        }
        self.advance();
    }

    /// Finds the last place that a majority has on disk. Only an entry of the own term may be counted (Raft, Figure 8):
    /// what stands before it is committed with it.
    pub(super) fn advance(&mut self) {
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(members) = self.membership.members() else { return };
        let own = self.membership.node_id();
        let held = |id: &NodeId| {
            if id == own {
                return self.journal.durable();
            }
            let follower = leading.followers.get(id);
            let counted = follower.filter(|f| self.membership.counts(id, &f.disk_id));
            counted.map_or(0, |follower| follower.matched)
        };
        let mut held: Vec<Seq> = members.voters.keys().map(held).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        let Some(&everywhere) = held.get(members.majority() - 1) else { return };
        if everywhere >= leading.first {
            self.committed = self.committed.max(everywhere);
            if !leading.active {
                leading.active = true;
                self.active_term = Some(leading.term.clone());
                self.failures = 0;
            }
        } else if is_planted(Planted::CommitsEarlierTerm) {
            self.committed = self.committed.max(everywhere);
        }
        if leading.active && self.ack_rule == AckRule::Leader {
            self.committed = self.committed.max(self.journal.durable());
        }
    }

    /// Whether a majority was heard within the leader timeout.
    pub(super) fn hears_majority(&self, now: Instant) -> bool {
        let Role::Leader(leading) = &self.role else { return false };
        let Some(members) = self.membership.members() else { return false };
        let heard = members.voters.keys().filter(|id| {
            *id == self.membership.node_id()
                || leading.followers.get(*id).is_some_and(|follower| {
                    now < follower.heard + self.timing.leader_timeout
                        && follower.refuses_since.is_none()
                })
        });
        heard.count() >= members.majority()
    }

    pub(super) fn tick_leader(&mut self, step: &Step) {
        if !self.hears_majority(step.now) {
            self.step_down(step.now);
            return;
        }
        self.follow_members(step.now);
        let Role::Leader(leading) = &mut self.role else { return };
        if leading.handing_over.as_ref().is_some_and(|(_, until)| step.now >= *until) {
            leading.handing_over = None;
        }
        if !leading.active {
            return;
        }
        let patience = self.timing.heartbeat_interval * 3;
        let refused = leading
            .followers
            .values()
            .any(|follower| follower.refuses_since.is_some_and(|at| step.now >= at + patience));
        // A voter that promised a higher term to someone without a majority can only follow a still higher one.
        if refused {
            self.stand(true, step);
            return;
        }
        if self.readmit_wiped(step) {
            self.hand_over_to_higher(step);
        }
    }

    /// No majority answers: leads no more.
    pub(super) fn step_down(&mut self, now: Instant) {
        self.role = Role::Follower(Following::default());
        self.heard_at = Some(now);
    }

    /// Hands over to the highest id above the own one that has been level for long enough.
    fn hand_over_to_higher(&mut self, step: &Step) {
        let Role::Leader(leading) = &self.role else { return };
        let waits = leading.handover_not_before.is_some_and(|at| step.now < at);
        if leading.handing_over.is_some() || waits {
            return;
        }
        let long_enough = |follower: &Follower| {
            follower.level_since.is_some_and(|at| step.now >= at + self.timing.handover_after)
                && step.now < follower.heard + self.timing.leader_timeout / 2
        };
        let higher = self
            .successors()
            .rev()
            .find(|(id, follower)| *id > self.membership.node_id() && long_enough(follower));
        if let Some(to) = higher.map(|(id, _)| id.clone()) {
            self.hand_over(to, step);
        }
    }

    /// Voters that count and are connected, by id.
    fn successors(&self) -> impl DoubleEndedIterator<Item = (&NodeId, &Follower)> {
        let followers = match &self.role {
            Role::Leader(leading) => Some(leading.followers.iter()),
            Role::Follower(_) | Role::Nominee(_) => None,
        };
        followers.into_iter().flatten().filter(|(id, follower)| {
            self.membership.links().contains(*id) && self.membership.counts(id, &follower.disk_id)
        })
    }

    fn hand_over(&mut self, to: NodeId, step: &Step) {
        let until = step.now + self.timing.election_timeout;
        let Role::Leader(leading) = &mut self.role else { return };
        // One attempt may fail for good reasons; many of them would stop the chat again and again.
        leading.handover_not_before = Some(until + self.timing.election_timeout * 10);
        leading.handing_over = Some((to.clone(), until));
        let mut msg = Message::new(MessageType::TimeoutNow, self.membership.node_id().as_str());
        msg.term = Some(leading.term.clone());
        self.pump(step);
        step.cm.send_to_node(&to, &msg.saying(&TimeoutNow {}));
    }

    /// Hands over before a clean stop: to the server that has most, the highest id among equals.
    pub(super) fn hand_over_to_best(&mut self, step: &Step) {
        let best = self.successors().max_by_key(|(id, follower)| (follower.matched, *id));
        if let Some(to) = best.map(|(id, _)| id.clone()) {
            log::info!("stops, and asks {to} to lead");
            self.hand_over(to.clone(), step);
            self.heir = Some(to);
        }
        self.resigned = true;
    }

    /// The way to `id` is new: what was sent on the old one may be lost.
    pub(super) fn resend(&mut self, id: &NodeId, step: &Step) {
        let last = self.journal.last();
        let Role::Leader(leading) = &mut self.role else { return };
        if let Some(follower) = leading.followers.get_mut(id) {
            // Without any word from it nothing is known; its CATCHUP_REQ will say where to start.
            let known = if follower.matched > 0 { follower.matched } else { last };
            follower.send_from(known + 1);
            follower.told = 0;
            // It may be another life of the server: it has to be level for a while again.
            follower.level_since = None;
            self.beat(id, step);
        }
    }

    /// CATCHUP_REQ from a follower: its log goes on after `after`, or after something before that.
    pub(super) fn resume(&mut self, from: &NodeId, after: &Place) {
        let start = self.common_place(after).seq + 1;
        // What is not kept any more is settled when the next batch is due.
        if let Role::Leader(leading) = &mut self.role
            && let Some(follower) = leading.followers.get_mut(from)
        {
            follower.send_from(start);
        }
    }

    /// HEARTBEAT to `id`.
    pub(super) fn beat(&self, id: &NodeId, step: &Step) {
        let Role::Leader(leading) = &self.role else { return };
        let Some(follower) = leading.followers.get(id) else { return };
        let prev = self.journal.place_at(follower.next - 1).unwrap_or_else(|| self.journal.end());
        let (committed, held) = (self.committed, self.held_by_all());
        let beat = LeaderHeartbeat { prev, committed, active: leading.active, held };
        let mut msg = self.message(MessageType::Heartbeat).saying(&beat);
        msg.term = Some(leading.term.clone());
        step.cm.send_to_node(id, &msg);
    }

    /// HEARTBEAT to everyone.
    pub(super) fn beat_all(&self, step: &Step) {
        let Role::Leader(leading) = &self.role else { return };
        let linked = leading.followers.keys().filter(|id| self.membership.links().contains(*id));
        linked.for_each(|id| self.beat(id, step));
    }

    /// Sends followers what they lack, as far as their windows allow, and what is committed.
    pub(super) fn pump(&mut self, step: &Step) {
        let Role::Leader(leading) = &self.role else { return };
        let linked = leading.followers.keys().filter(|id| self.membership.links().contains(*id));
        let linked: Vec<NodeId> = linked.cloned().collect();
        for id in &linked {
            while self.send_batch(id, step) {}
        }
    }

    /// Sends the next batch to `id`; false when there is none, no room for it on the way, or it has to be read first.
    fn send_batch(&mut self, id: &NodeId, step: &Step) -> bool {
        let (last, base, committed) =
            (self.journal.last(), self.journal.log().base(), self.committed);
        let Role::Leader(leading) = &mut self.role else { return false };
        let Some(follower) = leading.followers.get_mut(id) else { return false };
        if follower.next <= base {
            // Heartbeats name the base; it does not have that, and asks.
            follower.send_from(base + 1);
            follower.starts_anew = true;
        }
        let next = follower.next;
        let more = next <= last && follower.in_flight_bytes < WINDOW_BYTES;
        let news = follower.told < committed && next > last;
        if follower.starts_anew || !more && !news {
            return false;
        }
        if more && self.journal.is_released(next) {
            self.journal.request_read(id, next, BATCH_BYTES, step);
            return false;
        }
        let entries = if more { self.entries_from(next, self.batch_bytes) } else { Vec::new() };
        self.send_entries(id, next, entries, step)
    }

    /// `entries` were read for `id`. When it wants others by now, the next read brings those.
    pub(super) fn send_read(&mut self, id: &NodeId, entries: Vec<Entry>, step: &Step) {
        let Role::Leader(leading) = &self.role else { return };
        let Some(follower) = leading.followers.get(id) else { return };
        let next = follower.next;
        let waits = self.membership.links().contains(id) && !follower.starts_anew;
        if waits && entries.first().is_some_and(|entry| entry.seq == Some(next)) {
            self.send_entries(id, next, entries, step);
        }
    }

    /// Sends `entries`, which begin at `next`, to `id`. False when there are none: then only what is committed is said.
    fn send_entries(&mut self, id: &NodeId, next: Seq, entries: Vec<Entry>, step: &Step) -> bool {
        let (committed, prev) = (self.committed, self.journal.place_at(next - 1));
        let (Role::Leader(leading), Some(prev)) = (&self.role, prev) else { return false };
        let bytes = entries.iter().map(|entry| size_of_entry(entry)).sum();
        let sent = entries.last().and_then(|entry| entry.seq);
        let kind = SeqChatKind::Order;
        let active = leading.active;
        let batch = SeqChat {
            kind,
            prev,
            entries,
            committed,
            active,
            history_starts: false,
            state: None,
            members: None,
        };
        let mut msg = self.message(MessageType::SeqChat).saying(&batch);
        msg.term = Some(leading.term.clone());
        step.cm.send_to_node(id, &msg);
        let Role::Leader(leading) = &mut self.role else { return false };
        let Some(follower) = leading.followers.get_mut(id) else { return false };
        follower.told = committed;
        follower.next = sent.map_or(next, |seq| seq + 1);
        if let Some(seq) = sent {
            follower.in_flight.push_back((seq, bytes));
            follower.in_flight_bytes += bytes;
        }
        sent.is_some()
    }
}
