//! Snapshots: the log does not grow for ever, and whoever is far behind gets the state instead of the history
//! (section 7, Figure 13; thesis 5).
//!
//! ```text
//!   in memory   1 … 100 101 … 119 120 │ 121           committed and applied up to 120, a snapshot of 80 on the disk
//!   compact(120): who makes the bytes has a copy of the state; the log goes on
//!        make ─▶ save ─▶ SnapshotSaved(120)            durable: only now is anything forgotten
//!   in memory   101 … 120 │ 121 122 …                 some entries behind it, for followers that are a little late
//!   on disk     snapshots of 80 and 120, and the log from 80 on
//! ```
//!
//! The state is bytes to Raft: the layer above makes them and takes them over. With them go the place, term and
//! configuration of the last entry that they replace.
//!
//! Promise: nothing is forgotten before the snapshot that replaces it survives a power cut. The disk has two snapshots, and
//! the log from the older one on: if one bit of the newer is wrong, the older and the log give the same
//! state. A full disk costs nothing but the space that the log takes until there is room for a snapshot.
//!
//! Price: the newest snapshot stays in memory, [compressed](crate::storage::packed_bytes), for followers that need it, beside the state itself.
//! Making the bytes takes time proportional to all that is kept, in a thread of its own (see
//! [`Storage::make_snapshot`](crate::storage::Storage::make_snapshot)); they are compressed as they are made, and unpacked a piece at a time
//! where they are saved, sent or taken over. So two snapshots are there at most, both compressed. One at a time goes to the
//! disk. The entries behind it are [packed](crate::server::total_order::EntryLog::pack) when they are applied.
//!
//! How a follower gets one is in `install`, what a start makes of it in `recovery`.

use std::sync::{Arc, OnceLock};

use super::{RaftNode, Step};
use crate::domain::Term;
use crate::domain::raft_content::SnapshotHead;
use crate::server::total_order::{MakeState, Seq};
use crate::storage::snapshot::Contents;
use crate::storage::{LogEvent, LogIndex, PackedBytes};

/// What stands for the log up to a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    head: SnapshotHead,
    state: Arc<PackedBytes>,
}

impl Snapshot {
    /// The `state` that `head` tells of.
    pub(super) fn new(head: SnapshotHead, state: PackedBytes) -> Self {
        Self { head, state: Arc::new(state) }
    }

    /// Reads what was saved. The error says what is wrong with it.
    pub(super) fn read(saved: &Contents) -> Result<Self, String> {
        let head = serde_json::from_slice(&saved.head).map_err(|error| error.to_string())?;
        if is_whole(&head, &saved.state) {
            Ok(Self { head, state: saved.state.clone() })
        } else {
            Err("its state is not the one that its first line tells of".into())
        }
    }

    /// The place of the last entry that it replaces.
    pub fn seq(&self) -> Seq {
        self.head.last_included_index
    }

    /// The term of that entry.
    pub fn term(&self) -> Option<&Term> {
        self.head.last_included_term.as_ref()
    }

    /// The state machine's state after that entry, as the layer above wrote it.
    pub fn state(&self) -> &Arc<PackedBytes> {
        &self.state
    }

    /// The part of it from `offset` on, `len` bytes at most.
    pub(super) fn piece(&self, offset: usize, len: usize) -> Vec<u8> {
        self.state.get(offset, len)
    }

    /// How long it is, in bytes.
    pub(super) fn state_len(&self) -> usize {
        self.state.len()
    }

    pub(super) fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// What is saved of it.
    fn contents(&self) -> Contents {
        let head = serde_json::to_vec(&self.head).expect("a head serialises");
        Contents { head, state: self.state.clone() }
    }
}

/// Whether `state` is all of the state that `head` tells of, unchanged.
pub(super) fn is_whole(head: &SnapshotHead, state: &PackedBytes) -> bool {
    state.len() as u64 == head.total && state.crc() == head.checksum
}

/// A snapshot on its way to the disk.
#[derive(Debug)]
pub(super) struct Saving {
    seq: Seq,
    /// There as soon as it is made: before it is saved.
    snapshot: Arc<OnceLock<Snapshot>>,
    /// Whether it came from the leader, and replaces the log when it is durable.
    pub(super) installs: bool,
    /// What became of it.
    saved: Option<bool>,
}

impl Saving {
    /// One that is here already.
    fn ready(snapshot: Snapshot) -> Self {
        let seq = snapshot.seq();
        let snapshot = Arc::new(OnceLock::from(snapshot));
        Self { seq, snapshot, installs: true, saved: None }
    }

    /// Whether it is the leader's snapshot `head`.
    pub(super) fn is_of(&self, head: &SnapshotHead) -> bool {
        self.installs && self.snapshot.get().is_some_and(|snapshot| snapshot.head == *head)
    }
}

impl RaftNode {
    /// Whether [`compact`](Self::compact) can begin: no snapshot is on its way to the disk, or to the layer above.
    pub fn may_compact(&self) -> bool {
        self.saving.is_none() && !self.snapshot_due
    }

    /// Begins to replace the log up to `seq` by a snapshot. `make` makes the bytes of the state after the entry at `seq`, later and
    /// elsewhere. False, and nothing happens, when that entry was not applied yet
    /// ([`take_committed`](crate::server::total_order::TotalOrder::take_committed)), when a snapshot replaces it already, or
    /// another is on its way.
    pub fn compact(&mut self, seq: Seq, make: MakeState, step: &Step) -> bool {
        let replaced = self.snapshot.as_ref().map_or(0, Snapshot::seq);
        if seq > self.last_applied || seq <= replaced || !self.may_compact() {
            return false;
        }
        let Some(last_included_term) = self.log.term_at(seq).map(Option::<&Term>::cloned) else {
            return false;
        };
        let configuration = self.configurations.at(seq).clone();
        let snapshot = Arc::new(OnceLock::new());
        let made = snapshot.clone();
        let make = move || {
            let state = make();
            let head = SnapshotHead {
                last_included_index: seq,
                last_included_term,
                configuration,
                total: state.len() as u64,
                checksum: state.crc(),
            };
            made.get_or_init(|| Snapshot::new(head, state)).contents()
        };
        step.log.make_snapshot(seq, Box::new(make));
        self.saving = Some(Saving { seq, snapshot, installs: false, saved: None });
        true
    }

    /// Saves `snapshot`, which the leader sent. It replaces the log when it is durable.
    pub(super) fn save_installed(&mut self, snapshot: Snapshot, step: &Step) {
        step.log.save_snapshot(snapshot.seq(), snapshot.contents());
        self.saving = Some(Saving::ready(snapshot));
    }

    /// The state that the layer above has to take over before it takes committed entries: after a start from a snapshot, and
    /// when the leader's was installed.
    pub fn take_snapshot(&mut self) -> Option<Snapshot> {
        if std::mem::take(&mut self.snapshot_due) { self.snapshot.clone() } else { None }
    }

    /// Takes note of what the log says about snapshots. What follows from it is done by the next
    /// [`settle`](crate::server::total_order::TotalOrder::settle).
    pub(super) fn note_log_event(&mut self, event: &LogEvent) {
        let (seq, saved) = match event {
            LogEvent::SnapshotSaved(seq) => (*seq, true),
            LogEvent::SnapshotNotSaved { seq, .. } => (*seq, false),
            _ => return,
        };
        if let Some(saving) = self.saving.as_mut().filter(|saving| saving.seq == seq) {
            saving.saved = Some(saved);
        }
    }

    /// Acts on what became of the snapshot that was on its way to the disk.
    pub(super) fn finish_saving(&mut self, step: &Step) {
        if let Some(saving) = self.saving.take_if(|saving| saving.saved.is_some()) {
            let snapshot = saving.snapshot.get().cloned();
            match snapshot {
                Some(snapshot) if saving.saved == Some(true) => self.saved(snapshot, step),
                // The leader waits for it: it is tried again. One of our own is asked for again from above.
                Some(snapshot) if saving.installs => self.not_saved = Some(snapshot),
                _ => {}
            }
        }
        self.install_when_whole(step);
    }

    /// `snapshot` is durable: it may replace what came before it.
    fn saved(&mut self, snapshot: Snapshot, step: &Step) {
        if snapshot.seq() > self.commit_index {
            self.install(&snapshot, step);
        }
        let seq = snapshot.seq();
        self.configurations.starts_at(seq, snapshot.head.configuration.clone());
        self.snapshots_kept.0 = self.snapshots_kept.1.replace(seq);
        self.snapshot = Some(snapshot);
        self.forget_entries();
        // With one snapshot there is nothing to fall back on but the whole log.
        if let Some(older) = self.snapshots_kept.0 {
            let first = older.min(self.log.base());
            self.forgettable = self.journal.record_of(first);
            self.journal.forget_entries_before(first);
        }
    }

    /// Forgets in memory what the snapshot replaces, but for what a follower may lack that is a little late.
    pub(super) fn forget_entries(&mut self) {
        let replaced = self.snapshot.as_ref().map_or(0, Snapshot::seq);
        let up_to = replaced.saturating_sub(self.entries_kept).min(self.last_applied);
        self.log.forget_up_to(up_to);
    }

    /// After a snapshot was saved, once: appends a fresh copy of what else must survive, the record of term and vote. Returns
    /// the first record of the journal that is needed, which holds the last entry before what is kept.
    pub fn renew_journal(&mut self, step: &Step) -> Option<LogIndex> {
        let first = self.forgettable.take()?;
        // What waits for the first copy of a record goes on waiting for that one: it is there until these are synced.
        step.log.append(&self.vote_record());
        Some(first)
    }
}
