//! What a start makes of the snapshot and the records that it finds.
//!
//! ```text
//!   snapshot of 80, records   76 77 78 79 80 81 vote 82 83     the log begins after 76; 81 to 83 wait to be committed again
//!   none is sound             76 77 78 …                        what came before is lost
//!   snapshot of 80            … 61  log begins anew at 120  121 122      120 is lost, and with it what it replaced
//! ```
//!
//! The journal begins at any record, since old ones are removed. Its first entry only tells the term at its place: whether the records
//! of the entries before it are there, nobody knows. As ever, an entry at the place of an earlier one replaces that one and all
//! after it.
//!
//! A server that has said that it holds something, and does not, must not count as the one that said so. It
//! has to start anew, as a *wiped* one: see [`RaftNode::recovered`].

use super::{RaftNode, Snapshot};
use crate::domain::raft_content::{InstallSnapshot, RequestVote, SnapshotHead};
use crate::domain::{Message, MessageType};
use crate::server::total_order::{Entry, Seq};
use crate::storage::snapshot::Contents;

impl RaftNode {
    /// Takes the newest sound snapshot, before any record. The error says why it cannot be read.
    pub fn recover_snapshot(&mut self, saved: &Contents) -> Result<(), String> {
        let snapshot = Snapshot::read(saved)?;
        self.snapshots_kept.1 = Some(snapshot.seq());
        self.snapshot = Some(snapshot);
        Ok(())
    }

    pub(super) fn recover_record(&mut self, record: Message) {
        self.journal.recovers_record();
        match record.message_type {
            MessageType::RequestVote => {
                if let Ok(RequestVote::Voted { term, voted_for }) = record.content.parse() {
                    (self.current_term, self.voted_for) = (term, voted_for);
                }
            }
            MessageType::InstallSnapshot => {
                if let Ok(InstallSnapshot::Installed { head }) = record.content.parse() {
                    self.recover_installed(head);
                }
            }
            _ => {
                if let Some(seq) = record.seq {
                    self.recover_entry(seq, record.into());
                }
            }
        }
        self.journal.recovered(self.log.last());
    }

    fn recover_entry(&mut self, seq: Seq, entry: Entry) {
        let replaced = self.snapshot.as_ref().map_or(0, Snapshot::seq);
        let (base, last) = (self.log.base(), self.log.last());
        if last == 0 && seq > 1 || seq > last + 1 {
            if seq == replaced + 1 {
                let term = self.snapshot.as_ref().and_then(|snapshot| snapshot.term().cloned());
                self.log.reset_to(replaced, term);
            } else {
                if last > 0 && seq > replaced {
                    self.lose(format!("the log has nothing between the entries {last} and {seq}"));
                }
                return self.begin_at(seq, &entry);
            }
        } else if seq <= base && base > 0 {
            return self.begin_at(seq, &entry);
        }
        if self.log.insert(entry.clone()) {
            self.configurations.cut_after(seq - 1);
            self.configurations.appended(&entry);
            self.journal.recovers_entry(seq);
            // What a snapshot replaces is soon forgotten, and the rest waits until it is committed again.
            self.log.pack(seq, self.unpacked_bytes);
        }
    }

    /// Nothing before `entry` is known, and nothing after it any more.
    fn begin_at(&mut self, seq: Seq, entry: &Entry) {
        self.log.reset_to(seq, entry.term.clone());
        self.configurations.cut_after(seq - 1);
        self.configurations.appended(entry);
        self.journal.recovers_entry(seq);
    }

    /// Here the leader's snapshot `head` replaced the log.
    fn recover_installed(&mut self, head: SnapshotHead) {
        let seq = head.last_included_index;
        if self.log.term_at(seq) != Some(head.last_included_term.as_ref()) {
            if self.snapshot.as_ref().is_none_or(|snapshot| snapshot.seq() < seq) {
                self.lose(format!(
                    "there is no snapshot of entry {seq}, which the log goes on from"
                ));
            }
            self.log.reset_to(seq, head.last_included_term);
            self.configurations.starts_at(seq, head.configuration);
            self.configurations.cut_after(seq);
            self.journal.recovers_entry(seq);
        }
    }

    fn lose(&mut self, what: String) {
        self.lost.get_or_insert(what);
    }

    /// After the last record: puts log and snapshot together. The error says what is missing of what this server
    /// once had; then it must not be started like this, but empty, with another disk id.
    pub fn recovered(&mut self) -> Result<(), String> {
        if let Some(snapshot) = self.snapshot.clone() {
            let seq = snapshot.seq();
            let begins_later = self.log.base() > seq;
            if begins_later {
                let base = self.log.base();
                self.lose(format!(
                    "the log begins after entry {base}, and the newest sound snapshot is of entry {seq}"
                ));
            } else if self.log.term_at(seq) != Some(snapshot.term()) {
                // It was durable, and the record that says so was not: a crash came between the two.
                self.log.reset_to(seq, snapshot.term().cloned());
                self.marker_due = true;
            }
            self.configurations.cut_after(self.log.last());
            self.configurations.starts_at(seq, snapshot.head().configuration.clone());
            self.commit_index = seq;
            self.last_applied = seq;
            self.snapshot_due = true;
            self.forget_entries();
        } else if self.log.base() > 0 {
            let base = self.log.base();
            self.lose(format!(
                "the log begins after entry {base}, and no snapshot of that is sound"
            ));
        }
        self.journal.recovered(if self.marker_due { 0 } else { self.log.last() });
        self.lost.clone().map_or(Ok(()), Err)
    }
}
