//! The leader's half of replication: what to send, and what is committed (5.3, 5.4.2).
//!
//! ```text
//!   match_index   n1 (itself: synced) 7   n2 7   n3 4   n4 6   n5 2
//!   sorted        7 7 6 4 2               the third of five: a majority has 6
//!                     ▲                   committed, if the entry at 6 is of this leader's own term
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::progress::{Flow, Progress};
use super::reads::Read;
use super::transfer::Transfer;
use super::{RaftNode, Role, Step};
use crate::domain::raft_content::{AppendEntries, Configuration};
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::server::planted::{Planted, is_planted};
use crate::server::total_order::{Seq, size_of_entry};

/// Entries that are placed and not committed, in bytes. Beyond that the leader takes no more: clients wait.
const UNCOMMITTED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What only a leader has (Figure 2, "Volatile state on leaders").
#[derive(Debug)]
pub(super) struct Leading {
    /// The first entry of the term: nothing is decided before it is committed.
    pub(super) first: Seq,
    /// The other servers of the configuration, and those that just left it.
    pub(super) progress: BTreeMap<NodeId, Progress>,
    /// Counts the times that everybody was asked whether this server still leads.
    pub(super) round: u64,
    /// Reads that wait.
    pub(super) reads: VecDeque<Read>,
    /// The handing over that is under way.
    pub(super) transfer: Option<Transfer>,
    /// Placed and not committed, in order: place and size in bytes.
    uncommitted: VecDeque<(Seq, usize)>,
    /// Their bytes together.
    uncommitted_bytes: usize,
}

impl Leading {
    /// A leader whose first entry will be `first`.
    pub(super) fn new(first: Seq) -> Self {
        Self {
            first,
            progress: BTreeMap::new(),
            round: 0,
            reads: VecDeque::new(),
            transfer: None,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
        }
    }

    /// An entry of `bytes` was placed at `seq`, behind all others.
    fn placed(&mut self, seq: Seq, bytes: usize) {
        self.uncommitted.push_back((seq, bytes));
        self.uncommitted_bytes += bytes;
    }

    /// Everything up to `seq` is committed.
    fn committed(&mut self, seq: Seq) {
        while let Some((place, bytes)) = self.uncommitted.front().copied()
            && place <= seq
        {
            self.uncommitted.pop_front();
            self.uncommitted_bytes -= bytes;
        }
    }

    /// Whether a proposal can be taken now. None while leadership is handed over (thesis 3.10).
    pub(super) fn takes_more(&self) -> bool {
        self.transfer.is_none() && self.uncommitted_bytes < UNCOMMITTED_BYTES_MAX
    }

    /// What was under way to `node_id` is lost.
    pub(super) fn link_up(&mut self, node_id: &NodeId, last: Seq) {
        if let Some(progress) = self.progress.get_mut(node_id) {
            let next_index = if progress.match_index > 0 { progress.match_index } else { last };
            progress.probe(next_index + 1);
        }
    }

    /// This server slept: that it heard nobody proves nothing.
    pub(super) fn forgive_silence(&mut self, now: Instant) {
        for progress in self.progress.values_mut() {
            progress.heard = now;
        }
    }

    /// Whether `node_id` answered within `timeout`.
    pub(super) fn hears(&self, node_id: &NodeId, timeout: Duration, now: Instant) -> bool {
        let progress = self.progress.get(node_id);
        progress.is_some_and(|progress| now.duration_since(progress.heard) < timeout)
    }

    /// The highest place that a majority has; `durable` is how far this server's own disk is.
    fn majority_match(&self, own: (&NodeId, Seq), configuration: &Configuration) -> Option<Seq> {
        let match_index = |node_id: &NodeId| match self.progress.get(node_id) {
            _ if node_id == own.0 => own.1,
            Some(progress) => progress.match_index,
            None => 0,
        };
        let mut all: Vec<Seq> = configuration.voters.keys().map(match_index).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.get(all.len() / 2).copied()
    }
}

impl RaftNode {
    /// Appends `msg` as the next entry of the own term. The disk writes while the others are sent it
    /// (thesis 10.2.1).
    pub(super) fn append_own(&mut self, msg: Message, step: &Step) -> Seq {
        let term = Term { counter: self.current_term, leader: self.incarnation.clone() };
        let entry = self.log.append(msg, term);
        self.wrote(&entry, step);
        if let Role::Leader(leading) = &mut self.role {
            leading.placed(self.log.last(), size_of_entry(&entry));
        }
        self.log.last()
    }

    /// Brings the list of servers to send to in line with the configuration. Who left it is sent on until that is
    /// committed, so that it learns of it (thesis 4.2.2).
    pub(super) fn follow_configuration(&mut self, now: Instant) {
        let (configuration, last) = (self.configurations.latest(), self.log.last());
        let committed = self.configurations.latest_seq() <= self.commit_index;
        let Role::Leader(leading) = &mut self.role else { return };
        for node_id in configuration.members().filter(|node_id| **node_id != self.id) {
            let disk = configuration.disk_of(node_id).unwrap_or_default();
            if leading.progress.get(node_id).is_none_or(|known| known.disk != disk) {
                leading.progress.insert(node_id.clone(), Progress::new(disk, last, now));
            }
        }
        if committed {
            leading.progress.retain(|node_id, _| configuration.disk_of(node_id).is_some());
        }
    }

    /// The tick of a leader: check-quorum (thesis 6.2), and transfers that take too long.
    pub(super) fn lead_on(&mut self, now: Instant) {
        let timeout = self.timing.election_timeout;
        let configuration = self.configurations.latest();
        let Role::Leader(leading) = &mut self.role else { return };
        leading.give_up_transfer(now);
        let hears = |node_id: &NodeId| *node_id == self.id || leading.hears(node_id, timeout, now);
        if !configuration.is_majority(hears) {
            self.become_follower(now);
        }
    }

    /// 5.3 and 5.4.2: an entry of the own term is committed when a majority has it, and with it all before it. One of
    /// an earlier term is never committed by counting (Figure 8).
    pub(super) fn advance_commit_index(&mut self) {
        let Role::Leader(leading) = &self.role else { return };
        let own = (&self.id, self.journal.durable());
        let Some(seq) = leading.majority_match(own, self.configurations.latest()) else { return };
        let of_own_term = self.term_number(seq) == Some(self.current_term);
        if seq > self.commit_index && (of_own_term || is_planted(Planted::OldTermCommitted)) {
            self.commit_index = seq;
            let Role::Leader(leading) = &mut self.role else { return };
            leading.committed(seq);
        }
    }

    /// Asks everybody in a new round: the heartbeat, and the proof of leadership for reads.
    pub(super) fn send_round(&mut self, step: &Step) {
        let Role::Leader(leading) = &mut self.role else { return };
        leading.round += 1;
        for node_id in leading.progress.keys().cloned().collect::<Vec<_>>() {
            self.send_to(&node_id, true, step);
        }
    }

    /// Sends everybody what is new.
    pub(super) fn send_entries(&mut self, step: &Step) {
        let Role::Leader(leading) = &self.role else { return };
        for node_id in leading.progress.keys().cloned().collect::<Vec<_>>() {
            self.send_to(&node_id, false, step);
        }
    }

    /// Sends `node_id` what it can take now; with `anyway` one request at least.
    fn send_to(&mut self, node_id: &NodeId, anyway: bool, step: &Step) {
        let base = self.log.base();
        let (commit_index, snapshot) = (self.commit_index, self.snapshot.as_ref());
        let Role::Leader(leading) = &mut self.role else { return };
        let Some(progress) = leading.progress.get_mut(node_id) else { return };
        let goes_on =
            |flow: &Flow| matches!(flow, Flow::Snapshot { snapshot, .. } if snapshot.seq() >= base);
        if progress.next_index <= base
            && let Some(snapshot) = snapshot
            && !goes_on(&progress.flow)
        {
            progress.flow = Flow::Snapshot { snapshot: snapshot.clone(), offset: 0, asked: false };
        }
        match &mut progress.flow {
            Flow::Probe { asked, .. } => {
                if !std::mem::replace(asked, true) || anyway {
                    self.send_append(node_id, progress_prev(&self.role, node_id), true, step);
                }
            }
            Flow::Replicate => {
                let mut sent = false;
                while self.has_more_for(node_id) {
                    let prev = progress_prev(&self.role, node_id);
                    self.send_append(node_id, prev, true, step);
                    sent = true;
                }
                let Role::Leader(leading) = &self.role else { return };
                let known = leading.progress.get(node_id).map_or(0, |known| known.sent_commit);
                if !sent && (anyway || known < commit_index) {
                    self.send_append(node_id, progress_prev(&self.role, node_id), false, step);
                }
            }
            Flow::Snapshot { asked, .. } => {
                if !std::mem::replace(asked, true) || anyway {
                    self.send_chunk(node_id, step);
                }
                if anyway {
                    // Place 0 is in every log: this is a heartbeat and nothing more.
                    self.send_append(node_id, 0, false, step);
                }
            }
        }
    }

    fn has_more_for(&self, node_id: &NodeId) -> bool {
        let Role::Leader(leading) = &self.role else { return false };
        let progress = leading.progress.get(node_id);
        progress.is_some_and(|to| to.next_index <= self.log.last() && to.has_room())
    }

    /// One `APPEND_ENTRIES`: what follows `prev`, or with `full` unset nothing.
    fn send_append(&mut self, node_id: &NodeId, prev: Seq, full: bool, step: &Step) {
        let Some(prev_log_term) = self.term_number(prev).or((prev == 0).then_some(0)) else {
            return;
        };
        let entries =
            if full { self.log.between(prev + 1, Seq::MAX, self.batch_bytes) } else { Vec::new() };
        let commit_index = self.commit_index;
        let Role::Leader(leading) = &mut self.role else { return };
        let round = leading.round;
        let Some(progress) = leading.progress.get_mut(node_id) else { return };
        progress.sent_commit = commit_index;
        let end = prev + entries.len() as Seq;
        match &mut progress.flow {
            Flow::Probe { up_to, .. } => *up_to = end,
            Flow::Replicate if !entries.is_empty() => {
                progress.sent(end, entries.iter().map(|entry| size_of_entry(entry)).sum());
            }
            Flow::Replicate | Flow::Snapshot { .. } => {}
        }
        let content = AppendEntries::Request {
            term: self.current_term,
            leader: self.incarnation.clone(),
            prev_log_index: prev,
            prev_log_term,
            entries,
            leader_commit: commit_index,
            round,
        };
        step.cm.send_to_node(node_id, &self.message(MessageType::AppendEntries, &content));
    }

    /// An answer of `node_id`, which says that it lives, in this term. `None` when it comes from a disk that the
    /// configuration does not name, and so does not count.
    pub(super) fn answered(
        &mut self,
        node_id: &NodeId,
        disk: &str,
        now: Instant,
    ) -> Option<&mut Progress> {
        let Role::Leader(leading) = &mut self.role else { return None };
        let progress = leading.progress.get_mut(node_id)?;
        if progress.disk != disk {
            progress.other_disk = Some(disk.into());
            return None;
        }
        progress.heard = now;
        Some(progress)
    }

    pub(super) fn handle_accepted(
        &mut self,
        from: &NodeId,
        (match_index, round): (Seq, u64),
        disk: &str,
        step: &Step,
    ) {
        let (base, last) = (self.log.base(), self.log.last());
        let timeout = self.timing.election_timeout;
        let Some(progress) = self.answered(from, disk, step.now) else { return };
        progress.round = progress.round.max(round);
        progress.accepted(match_index.min(last), base);
        progress.judge_catch_up(last, timeout, step.now);
    }

    /// 5.3, last paragraphs: go back by whole terms rather than by entries.
    pub(super) fn handle_rejected(
        &mut self,
        from: &NodeId,
        (prev_log_index, round): (Seq, u64),
        (conflict_term, conflict_index): (Option<u64>, Seq),
        disk: &str,
        step: &Step,
    ) {
        let last_of = |term: u64| {
            let mut places = (self.log.base() + 1..=prev_log_index.min(self.log.last())).rev();
            places.find(|seq| self.term_number(*seq).is_some_and(|here| here <= term))
        };
        // If this log has the term that stands there, the logs agree at most up to its end here.
        let shared = conflict_term.and_then(|term| {
            last_of(term).filter(|seq| self.term_number(*seq) == Some(term)).map(|seq| seq + 1)
        });
        let next_index = shared.unwrap_or(conflict_index).max(1);
        let Some(progress) = self.answered(from, disk, step.now) else { return };
        progress.round = progress.round.max(round);
        progress.rejected(prev_log_index, next_index);
    }
}

/// The place before the next one to send.
fn progress_prev(role: &Role, node_id: &NodeId) -> Seq {
    let Role::Leader(leading) = role else { return 0 };
    leading.progress.get(node_id).map_or(0, |progress| progress.next_index - 1)
}
