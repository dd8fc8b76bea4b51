//! A snapshot on its way from the leader to a follower (Figure 13).
//!
//! ```text
//!   leader ── chunk 0 ▶ ◀ 4096 here ── chunk 1 ▶ … ◀ all here, the checksum fits ── saved ── marker synced ▶ accepted
//!                                               └ it does not: 0 here, from the start once more
//! ```
//!
//! The follower goes on as it was until the snapshot is durable. Then it writes down that its log begins anew behind it, and takes
//! the state over. A new leader with the same snapshot goes on where the old one ended, and one with another
//! begins anew. A log that has the snapshot's last entry, with its term, has all before it (log matching): such a
//! follower needs no snapshot, only to be told that this much is committed.

use std::time::Duration;

use super::compaction::is_whole;
use super::progress::Flow;
use super::{RaftNode, Role, Snapshot, Step};
use crate::domain::raft_content::{HexBytes, InstallSnapshot, SnapshotHead};
use crate::domain::{MessageType, NodeId};
use crate::storage::PackedBytes;

/// A piece of a snapshot, in bytes: in hex digits half a megabyte, below the limit of a frame.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// How long a follower waits until it tries again to save a snapshot for which the disk had no room.
const SAVE_AGAIN: Duration = Duration::from_secs(5);

/// A snapshot of which not all is here yet, or that waits to be saved.
#[derive(Debug)]
pub(super) struct Incoming {
    head: SnapshotHead,
    state: PackedBytes,
}

impl Incoming {
    fn is_all_here(&self) -> bool {
        self.state.len() as u64 >= self.head.total
    }
}

impl RaftNode {
    /// Leader: the next chunk for `node_id`.
    pub(super) fn send_chunk(&mut self, node_id: &NodeId, step: &Step) {
        let Role::Leader(leading) = &self.role else { return };
        let Some(progress) = leading.progress.get(node_id) else { return };
        let Flow::Snapshot { snapshot, offset, .. } = &progress.flow else { return };
        let content = InstallSnapshot::Request {
            term: self.current_term,
            leader: self.incarnation.clone(),
            head: snapshot.head().clone(),
            offset: *offset as u64,
            data: HexBytes(snapshot.piece(*offset, self.chunk_bytes)),
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
                    self.take_chunk(head, offset, &data.0)
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
                let Some(progress) = self.answered(from, &disk, step.now) else { return };
                if let Flow::Snapshot { snapshot, offset: next, asked } = &mut progress.flow
                    && snapshot.seq() == last_included_index
                {
                    let here = usize::try_from(offset).unwrap_or(0);
                    // An answer that says nothing new is one to a repeated question: to go on for each of them would
                    // double what is sent with every repetition.
                    if here != *next {
                        *next = here;
                        // When it has all, its acknowledgement follows as soon as that is on its disk.
                        *asked = here == snapshot.state_len();
                    }
                }
            }
            // A record of a journal, which nobody sends.
            InstallSnapshot::Installed { .. } => {}
        }
    }

    /// Takes a chunk; returns how much of the snapshot is here now.
    fn take_chunk(&mut self, head: SnapshotHead, offset: u64, data: &[u8]) -> u64 {
        let (seq, total) = (head.last_included_index, head.total);
        if seq <= self.commit_index || self.has_last_of(&head) {
            self.commit_index = self.commit_index.max(seq);
            self.following.matched = self.following.matched.max(seq);
            self.following.answer_due = true;
            return total;
        }
        if self.saving.as_ref().is_some_and(|saving| saving.is_of(&head))
            || self.not_saved.as_ref().is_some_and(|snapshot| *snapshot.head() == head)
        {
            return total;
        }
        if self.incoming.as_ref().is_none_or(|incoming| incoming.head != head) {
            self.incoming = Some(Incoming { head, state: PackedBytes::default() });
        }
        let Some(incoming) = &mut self.incoming else { return 0 };
        let here = incoming.state.len() as u64;
        if incoming.is_all_here() && total > 0 {
            return total;
        }
        if offset == here {
            incoming.state.push(data);
        }
        if incoming.is_all_here() && !is_whole(&incoming.head, &incoming.state) {
            log::warn!("the leader's snapshot of entry {seq} arrived damaged: asking for it again");
            self.incoming = None;
            return 0;
        }
        incoming.state.len() as u64
    }

    /// Whether the log has the last entry that the snapshot replaces, hence all of them.
    fn has_last_of(&self, head: &SnapshotHead) -> bool {
        self.log.term_at(head.last_included_index) == Some(head.last_included_term.as_ref())
    }

    /// Saves the snapshot that has arrived, when no other one is on its way to the disk.
    pub(super) fn install_when_whole(&mut self, step: &Step) {
        if self.saving.is_some() || !self.incoming.as_ref().is_some_and(Incoming::is_all_here) {
            return;
        }
        let Some(Incoming { head, state }) = self.incoming.take() else { return };
        // Entries may have overtaken it.
        if head.last_included_index > self.commit_index {
            self.not_saved = None;
            self.save_installed(Snapshot::new(head, state), step);
        }
    }

    /// Tries again to save the leader's snapshot for which there was no room.
    pub(super) fn save_again(&mut self, step: &Step) {
        let is_due = self.save_again_at.is_some_and(|at| step.now >= at);
        if self.not_saved.is_none() || self.saving.is_some() {
            self.save_again_at = None;
        } else if !is_due {
            self.save_again_at.get_or_insert(step.now + SAVE_AGAIN);
        } else if let Some(snapshot) = self.not_saved.take_if(|s| s.seq() > self.commit_index) {
            self.save_installed(snapshot, step);
        } else {
            self.not_saved = None;
        }
    }

    /// The leader's `snapshot`, beyond what is committed here, is durable: it replaces the log, but for what follows it there.
    pub(super) fn install(&mut self, snapshot: &Snapshot, step: &Step) {
        let seq = snapshot.seq();
        if self.has_last_of(snapshot.head()) {
            self.commit_index = seq;
        } else {
            self.configurations.cut_after(self.commit_index);
            self.write_marker(snapshot.head(), step);
            self.log.reset_to(seq, snapshot.term().cloned());
            self.commit_index = seq;
            self.last_applied = seq;
            self.snapshot_due = true;
        }
        // It is committed, so it is in the log of whoever leads now.
        self.following.matched = self.following.matched.max(seq);
    }

    /// The records before this one do not lead to the entries behind it: a start must know that. The log is on disk up to the
    /// snapshot when this record is.
    fn write_marker(&mut self, head: &SnapshotHead, step: &Step) {
        let record = InstallSnapshot::Installed { head: head.clone() };
        let record = self.message(MessageType::InstallSnapshot, &record);
        let index = step.log.append(&record);
        self.journal.starts_anew(index, head.last_included_index, self.commit_index);
    }

    /// Writes the marker that a crash has prevented.
    pub(super) fn write_due_marker(&mut self, step: &Step) {
        if std::mem::take(&mut self.marker_due)
            && let Some(snapshot) = self.snapshot.clone()
        {
            self.write_marker(snapshot.head(), step);
        }
    }
}
