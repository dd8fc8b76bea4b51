//! Snapshots of what the order drives: made when the log is long, taken over instead of the entries that they replace.
//!
//! ```text
//!   applied 900 ──to_snapshot──▶ order.compact(900, state)         the log begins after 900, on disk, too
//!
//!   applied 300, the leader sent the state after 900:
//!   a member was shown … 300 │ 301 … 900 from the room's history, as to one who comes back │ 901 … as they come
//!                              its own message 512 is acknowledged when it was shown ─┘
//! ```
//!
//! Promise: members see nothing twice and miss nothing when their server jumps. A room's history is part of the state, so
//! each member becomes a replay from the place that it was shown last. Acknowledgements wait for that: whoever is told that
//! its message is taken has seen it.
//!
//! Price: a snapshot is made under the node's lock, in time proportional to all that is kept. So it is made when as many
//! entries were applied as there are messages, but not before [`COMPACT_AFTER`](super::COMPACT_AFTER): over a life each message is
//! written about twice more. Leaves out: snapshots in pieces, or made beside the lock.
//!
//! Source: Ongaro and Ousterhout (2014), section 7; Ongaro (2014), section 5.1.3.

use super::replicated::{Applied, ReplicatedStorage};
use super::{Entry, Seq};
use crate::domain::content::Registration;
use crate::domain::{Message, MessageType};
use crate::network::ConnId;
use crate::server::ServerNode;
use crate::server::step::Step;

/// An answer to a message of a session that is still shown what stands before it.
#[derive(Clone, Debug)]
pub(super) struct Owed {
    /// Which connection brought the message.
    pub(super) conn: ConnId,
    /// The message.
    pub(super) entry: Entry,
    /// What it did.
    pub(super) applied: Applied,
}

/// How often snapshots were of use in this life of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotCounts {
    /// Made here.
    pub made: u64,
    /// Found on the disk at the start.
    pub recovered: u64,
    /// Sent by the leader.
    pub installed: u64,
}

impl ServerNode {
    /// How often snapshots were of use; all zero in designs without.
    pub fn snapshot_counts(&self) -> SnapshotCounts {
        self.ordered.as_ref().map(|ordered| ordered.snapshots).unwrap_or_default()
    }

    /// Takes over the state that the order has instead of entries, if it has one.
    pub(super) fn take_over_snapshot(&mut self) {
        let Some(ordered) = &mut self.ordered else { return };
        let recovers = !std::mem::replace(&mut ordered.has_begun, true);
        let Some((seq, state)) = ordered.order.take_snapshot() else { return };
        let shown = ordered.storage.applied();
        if seq <= shown {
            return;
        }
        match ReplicatedStorage::from_snapshot(&state) {
            Ok(storage) => ordered.storage = storage,
            Err(error) => {
                self.fatal = Some(format!(
                    "the snapshot of entry {seq} cannot be read: {error}; if this program is older than \
                     the one that wrote it, start the newer one, else an empty data folder"
                ));
                return;
            }
        }
        log::info!("goes on from a snapshot of {} bytes, after entry {seq}", state.len());
        ordered.compacted = seq;
        ordered.snapshots.recovered += u64::from(recovers);
        ordered.snapshots.installed += u64::from(!recovers);
        let rooms: Vec<String> = ordered.storage.rooms().cloned().collect();
        for room_id in rooms {
            self.create_room(&room_id);
        }
        self.replay_to_members(shown);
        self.owe_replaced();
        self.progress = true;
    }

    /// Messages of clients here that are among what the snapshot replaced are answered like any others. What
    /// else waits is passed on once more: what was refused among those entries is refused again.
    fn owe_replaced(&mut self) {
        let Some(ordered) = &mut self.ordered else { return };
        let storage = &ordered.storage;
        let done: Vec<Message> =
            ordered.forwards.messages().filter(|msg| is_applied(storage, msg)).cloned().collect();
        for msg in done {
            let Some((session, message_id)) = msg.duplicate_key() else { continue };
            let Some(outgoing) = ordered.forwards.done(session, message_id) else { continue };
            let applied = match msg.message_type {
                MessageType::ClientJoin => Applied::Registered,
                _ => Applied::Stored,
            };
            ordered.owed.push(Owed { conn: outgoing.conn, entry: msg.into(), applied });
        }
        ordered.forwards.restart();
    }

    /// The answer waits until the session was shown the room up to now.
    pub(super) fn owe(&mut self, owed: Owed) {
        if let Some(ordered) = &mut self.ordered {
            ordered.owed.push(owed);
        }
    }

    /// Gives the answers that need not wait any longer.
    pub(super) fn pay_owed(&mut self, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        for owed in std::mem::take(&mut ordered.owed) {
            let session = owed.entry.session.as_deref().unwrap_or_default();
            if self.is_replaying(session, &owed.entry.room_id) {
                self.owe(owed);
            } else {
                self.answer(owed.conn, &owed.entry, owed.applied, step);
            }
        }
    }

    /// Replaces the log by a snapshot when it is long.
    pub(super) fn compact_when_due(&mut self, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        let applied: Seq = ordered.storage.applied();
        let messages = ordered.storage.message_storage().all().len() as u64;
        let due = ordered.compacted + self.config.compact_after.max(messages);
        if applied < due || !ordered.order.takes_snapshots() {
            return;
        }
        ordered.compacted = applied;
        let state = ordered.storage.to_snapshot();
        log::info!("replaces the log up to entry {applied} by a snapshot of {} bytes", state.len());
        if ordered.order.compact(applied, state.into(), step) {
            ordered.snapshots.made += 1;
        }
    }
}

/// Whether `msg`, which was passed on, was applied for certain.
fn is_applied(storage: &ReplicatedStorage, msg: &Message) -> bool {
    let Some((id, message_id)) = msg.duplicate_key() else { return false };
    match msg.message_type {
        MessageType::Chat => storage.contains(id, message_id),
        MessageType::ClientJoin => {
            let token = msg.content.parse().map(|said: Registration| said.token_hash);
            let known = storage.session(id).filter(|known| known.user == msg.sender_id);
            known.is_some_and(|known| token.is_ok_and(|t| t.is_none() || t == known.token_hash))
        }
        _ => false,
    }
}
