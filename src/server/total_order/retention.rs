//! Forgetting old history: `--retain` (design `sequencer`).
//!
//! ```text
//!   base                 target                        applied
//!    │ forgotten next      │ kept: --retain 1GiB or 30d    │
//!    └──────────────────────┴───────────────────────────────┘
//!   the state after base ──▶ 101 102 … are applied to it once more, read from the disk a batch at a time ──▶
//!   the state after target, without messages ──▶ order.forget(target, state); then rooms forget, too
//! ```
//!
//! What must be known of the entries that go (sessions and their last message ids, accounts) is the state after them.
//! It is kept beside the present one, and brought forward by applying each old entry a second time. So it is exact, whatever came
//! later, and the same on all servers that forget up to the same place: one that was away for longer is sent it.
//!
//! How old an entry is, is a matter of the log alone: the greatest timestamp in it, less its own. A cluster in which nobody says
//! anything forgets nothing.
//!
//! Price: every entry is read and applied twice in its life; the state is written once more whenever something is forgotten, which
//! waits until that is worth it: up to an eighth more is kept than was asked for, and whole files go.
//!
//! Leaves out: forgetting by room. Needs: that clients are told where the history of a room starts, see
//! [`history`](super::history).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::history::OrderedReplay;
use super::replicated::{MessageStorage, Place, ReplicatedStorage, Room};
use super::{Ordered, Seq};
use crate::config::Retain;
use crate::domain::content::HistoryStart;
use crate::error::RequestError;
use crate::server::ServerNode;
use crate::server::step::Step;

/// How often it is looked whether something is to be forgotten.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// About how long an entry is in the log, in bytes: a short message's.
const ENTRY_BYTES: u64 = 200;

/// What a server knows of what it has forgotten.
#[derive(Debug, Default)]
pub(super) struct Retention {
    /// The state after the entries that are forgotten, or further on while it is brought forward. It has no messages.
    below: ReplicatedStorage,
    /// How long that was as a text, in bytes.
    state_bytes: u64,
    /// The log time of the last entry that is forgotten, in milliseconds.
    until_ms: u64,
    /// What is to be forgotten next: `below` is on its way there.
    target: Option<Seq>,
    look_at: Option<Instant>,
    /// The order went on from a later place: the members here miss something.
    pub(super) skipped: bool,
}

impl Retention {
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.look_at.is_none_or(|at| now >= at);
        if due {
            self.look_at = Some(now + LOOK_INTERVAL);
        }
        due
    }
}

impl Ordered {
    /// `storage` is what the order has instead of the entries up to `seq`: it has no messages.
    pub(super) fn start_history(&mut self, seq: Seq) {
        self.storage.forget_up_to(seq);
        let below = self.storage.clone();
        let (until_ms, state_bytes) = (below.log_time_ms(), below.to_snapshot().len() as u64);
        self.retention = Retention { below, state_bytes, until_ms, ..Retention::default() };
    }

    /// Where the history of `room_id` starts, if not all of it is kept.
    pub(super) fn history_start(&self, room_id: &str) -> Option<HistoryStart> {
        let after = self.storage.message_storage().forgotten(room_id);
        (after > 0).then_some(HistoryStart { after, until: self.retention.until_ms })
    }

    /// Forgets what `retain` says, a step at a time.
    fn forget_old(&mut self, retain: Retain, step: &Step) {
        if let Some(target) = self.retention.target {
            self.bring_forward(target, step);
        } else if self.retention.is_due(step.now) {
            self.retention.target = self.target(retain, step);
        }
    }

    /// The last place that `retain` lets go, if it is worth it.
    fn target(&self, retain: Retain, step: &Step) -> Option<Seq> {
        let base = self.order.status().starts_after;
        let state_bytes = self.retention.state_bytes;
        let (target, slack) = match retain {
            Retain::Everything => return None,
            Retain::Bytes(bytes) => {
                let (kept, slack) = (bytes + state_bytes, (bytes / 8).max(4 * state_bytes));
                if self.order.may_forget_up_to(Some(kept + slack), step) <= base {
                    return None;
                }
                (self.order.may_forget_up_to(Some(kept), step), slack)
            }
            Retain::Age(age) => {
                let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                let since = self.storage.log_time_ms().saturating_sub(age_ms);
                let old = self.storage.message_storage().last_before(since);
                let all = ENTRY_BYTES * (self.order.last() - base);
                let target = self.order.may_forget_up_to(None, step).min(old);
                (target, (all / 8).max(4 * state_bytes))
            }
        };
        let gone = ENTRY_BYTES * target.saturating_sub(base);
        (gone > 0 && gone >= slack / 2).then_some(target.max(self.retention.below.applied()))
    }

    /// Applies old entries once more to what is known of those before them; when all are, they are forgotten.
    fn bring_forward(&mut self, target: Seq, step: &Step) {
        let below = &mut self.retention.below;
        for entry in self.order.take_recalled() {
            let next = below.applied() + 1;
            if entry.seq == Some(next) && next <= target {
                below.apply(&entry);
            }
        }
        below.forget_up_to(below.applied());
        let here = below.applied();
        if here < target {
            self.order.recall(here + 1, step);
        } else if self.retention.is_due(step.now) && !self.is_shown(target) {
            self.forget_up_to(target, step);
        }
    }

    /// Whether somebody is still shown something of what stands up to `target`.
    fn is_shown(&self, target: Seq) -> bool {
        let storage = self.storage.message_storage();
        self.replays.iter().any(|((_, room_id), replay)| replay.needs(target, room_id, storage))
    }

    fn forget_up_to(&mut self, target: Seq, step: &Step) {
        // The state is JSON.
        let state = String::from_utf8(self.retention.below.to_snapshot()).unwrap_or_default();
        let state_bytes = state.len() as u64;
        if !self.order.forget(target, Arc::from(state), step) {
            // A member is connected that does not have it yet: again, later.
            return;
        }
        log::info!("forgets what stands up to {target}, but for a state of {state_bytes} bytes");
        let storage = &self.storage;
        let places_of = |room: &str| storage.room(room).map_or(0, Room::len);
        let lefts = self.replays.iter().map(|((_, room), replay)| places_of(room) - replay.next);
        let lefts: Vec<usize> = lefts.collect();
        self.storage.forget_up_to(target);
        for (((_, room), replay), left) in self.replays.iter_mut().zip(lefts) {
            // What it has yet to be shown stands there as before.
            replay.next = self.storage.room(room).map_or(0, Room::len) - left;
        }
        let retention = &mut self.retention;
        (retention.state_bytes, retention.target) = (state_bytes, None);
        retention.until_ms = retention.below.log_time_ms();
        self.snapshots.forgot += 1;
    }
}

impl OrderedReplay {
    /// Whether a place up to `target` is still to be told, or what became of one.
    fn needs(&self, target: Seq, room_id: &str, storage: &MessageStorage) -> bool {
        let Some(room) = storage.room(room_id) else { return false };
        let next = room.place(self.next).map(Place::seq);
        next.is_some_and(|next| next <= target || room.deletes_later(next, target))
    }
}

impl ServerNode {
    /// How far this server has applied the one order, and what it knows but for messages. Equal where the same was applied,
    /// whatever is forgotten.
    pub(crate) fn state_without_messages(&self) -> Option<(Seq, Vec<u8>)> {
        let mut storage = self.ordered.as_ref()?.storage.clone();
        storage.forget_up_to(storage.applied());
        Some((storage.applied(), storage.to_snapshot()))
    }

    /// Forgets what `--retain` says.
    pub(super) fn forget_old(&mut self, step: &Step) {
        let retain = self.config.retain;
        if let Some(ordered) = self.ordered.as_mut().filter(|_| retain != Retain::Everything) {
            ordered.forget_old(retain, step);
        }
    }

    /// This server was away for so long that nobody keeps what it lacks: its members were not shown that. They come again, and
    /// are told from where the history is kept.
    pub(super) fn move_members_after_skip(&mut self, step: &Step) {
        let Some(ordered) = &mut self.ordered else { return };
        if !std::mem::take(&mut ordered.retention.skipped) {
            return;
        }
        let conns: Vec<_> = self.clients.values().map(|client| client.conn).collect();
        for conn in conns {
            let reason = "this server was away for longer than history is kept".to_string();
            let error = RequestError::NotReady { message_id: String::new(), reason };
            self.refuse(conn, &error, step);
        }
    }
}
