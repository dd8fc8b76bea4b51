//! Snapshots: the log does not grow for ever, and whoever is far behind gets the state instead of the history
//! (section 7, Figure 13; thesis 5).
//!
//! ```text
//!   before   [1][2][3][4][5][6][7]        committed up to 6, applied up to 5
//!   compact(5, state)   [ state after 5 ][6][7]
//!   to a follower that needs 3:  chunk 0 ▶ ◀ go on  chunk 1 ▶ ◀ go on … whole, checksum fits: installed
//! ```
//!
//! The state is bytes to Raft: the layer above makes them and takes them over. With them go the place, term and
//! configuration of the last entry that they replace. Nothing is forgotten before the snapshot that replaces it is whole.

use std::sync::Arc;

use super::progress::Flow;
use super::{RaftNode, Role, Step};
use crate::domain::raft_content::{HexBytes, InstallSnapshot, SnapshotHead};
use crate::domain::{MessageType, NodeId, Term};
use crate::server::total_order::Seq;
use crate::storage::LogIndex;

/// A piece of a snapshot, in bytes: in hex digits half a megabyte, below the limit of a frame.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// What stands for the log up to a place.
#[derive(Clone, Debug)]
pub struct Snapshot {
    head: SnapshotHead,
    bytes: Arc<[u8]>,
}

impl Snapshot {
    /// The place of the last entry that it replaces.
    pub fn seq(&self) -> Seq {
        self.head.last_included_index
    }

    /// The state machine's state after that entry, as the layer above wrote it.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.head.total
            && crc32fast::hash(&self.bytes) == self.head.checksum
    }
}

/// A snapshot of which not all is here yet.
#[derive(Debug)]
pub(super) struct Incoming {
    head: SnapshotHead,
    bytes: Vec<u8>,
}

impl RaftNode {
    /// Forgets the log up to `seq`, for which `state` stands from now on. False, and nothing happens, when that
    /// was not applied yet ([`take_committed`](crate::server::total_order::TotalOrder::take_committed)), or was
    /// forgotten before.
    pub fn compact(&mut self, seq: Seq, state: Arc<[u8]>, step: &Step) -> bool {
        if seq > self.last_applied || seq <= self.log.base() || self.snapshot_due {
            return false;
        }
        let Some(last_included_term) = self.log.term_at(seq).map(Option::<&Term>::cloned) else {
            return false;
        };
        let head = SnapshotHead {
            last_included_index: seq,
            last_included_term,
            configuration: self.configurations.at(seq).clone(),
            total: state.len() as u64,
            checksum: crc32fast::hash(&state),
        };
        self.save_snapshot(Snapshot { head, bytes: state }, step);
        true
    }

    /// The state that the layer above has to take over before it takes committed entries, with the place and
    /// term of its last entry: after a start from a snapshot, and when the leader's was installed.
    pub fn take_snapshot(&mut self) -> Option<(Seq, Option<Term>, Arc<[u8]>)> {
        if !std::mem::take(&mut self.snapshot_due) {
            return None;
        }
        let Snapshot { head, bytes } = self.snapshot.as_ref()?;
        Some((head.last_included_index, head.last_included_term.clone(), bytes.clone()))
    }

    /// The one place where a snapshot goes to the disk: a record of the journal. What it replaces can be deleted
    /// there when the record is synced, but for the last record of term and vote and the entries after it.
    fn save_snapshot(&mut self, snapshot: Snapshot, step: &Step) {
        let record = InstallSnapshot::Saved {
            head: snapshot.head.clone(),
            data: HexBytes(snapshot.bytes.to_vec()),
        };
        let record = self.message(MessageType::InstallSnapshot, &record);
        let index = step.log.append(&record);
        self.forgettable = Some(index);
        self.start_from(snapshot);
        self.journal.wrote_entry(index, self.log.base());
    }

    /// After a snapshot was saved, once: appends fresh copies of what else must survive, which is the last record of term and
    /// vote and the entries after the snapshot. Returns the record of the snapshot: none before it is needed any more.
    pub fn renew_journal(&mut self, step: &Step) -> Option<LogIndex> {
        let snapshot = self.forgettable.take()?;
        // What waits for the first copy of a record goes on waiting for that one: it is there until these are synced.
        step.log.append(&self.vote_record());
        for seq in self.log.base() + 1..=self.log.last() {
            if let Some(entry) = self.log.get(seq) {
                step.log.append(entry);
            }
        }
        Some(snapshot)
    }

    /// The log begins after `snapshot`; what follows there stays if it fits.
    fn start_from(&mut self, snapshot: Snapshot) {
        let seq = snapshot.seq();
        if self.log.term_at(seq) != Some(snapshot.head.last_included_term.as_ref()) {
            // What is on disk beyond the commit index belongs to a log that is given up.
            self.journal.cut_after(self.commit_index);
            self.configurations.cut_after(self.commit_index);
        }
        self.log.reset_to(seq, snapshot.head.last_included_term.clone());
        self.configurations.starts_at(seq, snapshot.head.configuration.clone());
        self.commit_index = self.commit_index.max(seq);
        self.snapshot = Some(snapshot);
    }

    pub(super) fn recover_snapshot(&mut self, head: SnapshotHead, bytes: Vec<u8>) {
        let snapshot = Snapshot { head, bytes: bytes.into() };
        if snapshot.is_whole() && snapshot.seq() > self.log.base() {
            self.last_applied = snapshot.seq();
            self.start_from(snapshot);
            self.snapshot_due = true;
        }
    }

    /// Leader: the next chunk for `node_id`.
    pub(super) fn send_chunk(&mut self, node_id: &NodeId, step: &Step) {
        let (Role::Leader(leading), Some(snapshot)) = (&self.role, &self.snapshot) else { return };
        let Some(progress) = leading.progress.get(node_id) else { return };
        let Flow::Snapshot { offset, .. } = progress.flow else { return };
        let rest = snapshot.bytes.get(offset..).unwrap_or_default();
        let content = InstallSnapshot::Request {
            term: self.current_term,
            leader: self.incarnation.clone(),
            head: snapshot.head.clone(),
            offset: offset as u64,
            data: HexBytes(rest[..rest.len().min(self.chunk_bytes)].to_vec()),
        };
        step.cm.send_to_node(node_id, &self.message(MessageType::InstallSnapshot, &content));
    }

    pub(super) fn handle_install_snapshot(
        &mut self,
        from: &NodeId,
        content: InstallSnapshot,
        step: &Step,
    ) {
        match content {
            InstallSnapshot::Request { term, leader, head, offset, data } => {
                let last_included_index = head.last_included_index;
                let here = if self.hear_leader(from, term, &leader, step) {
                    self.take_chunk(head, offset, &data.0, step)
                } else {
                    0
                };
                let content = InstallSnapshot::Answer {
                    term: self.current_term,
                    last_included_index,
                    offset: here,
                    disk: self.disk.clone(),
                };
                let msg = self.message(MessageType::InstallSnapshot, &content);
                self.journal.say_when_durable(from, msg);
            }
            InstallSnapshot::Answer { term, last_included_index, offset, disk } => {
                if !self.is_current(term, step) {
                    return;
                }
                let total = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.head.total);
                let Some(progress) = self.answered(from, &disk, step.now) else { return };
                if let Flow::Snapshot { seq, offset: next, asked } = &mut progress.flow
                    && *seq == last_included_index
                {
                    // When it has all, the acknowledgement of `seq` follows as soon as it is on its disk.
                    *next = usize::try_from(offset).unwrap_or(0);
                    *asked = offset == total;
                }
            }
            // A record of a journal, which nobody sends.
            InstallSnapshot::Saved { .. } => {}
        }
    }

    /// Takes a chunk; returns how much of the snapshot is here now.
    fn take_chunk(&mut self, head: SnapshotHead, offset: u64, data: &[u8], step: &Step) -> u64 {
        let (seq, total) = (head.last_included_index, head.total);
        if seq <= self.commit_index {
            self.following.matched = self.following.matched.max(seq);
            self.following.answer_due = true;
            return total;
        }
        if offset == 0 || self.incoming.as_ref().is_none_or(|incoming| incoming.head != head) {
            self.incoming = Some(Incoming { head, bytes: Vec::new() });
        }
        let Some(incoming) = &mut self.incoming else { return 0 };
        if offset == incoming.bytes.len() as u64 {
            incoming.bytes.extend_from_slice(data);
        }
        let here = incoming.bytes.len() as u64;
        if here < total {
            return here;
        }
        let Some(Incoming { head, bytes }) = self.incoming.take() else { return 0 };
        let snapshot = Snapshot { head, bytes: bytes.into() };
        if !snapshot.is_whole() {
            return 0;
        }
        self.save_snapshot(snapshot, step);
        self.last_applied = seq;
        self.snapshot_due = true;
        self.following.matched = self.following.matched.max(seq);
        total
    }
}
