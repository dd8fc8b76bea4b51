//! Voters that lost their disk, and how they come to count again.
//!
//! ```text
//!   n2, a voter on disk a, comes back on disk b
//!        │ JOIN or ACK {disk b}
//!        ▼
//!   leader of 5: n2 counts no more. Stands in 6 itself; a majority without n2 promises
//!        ▼
//!   leader of 6, active: sends n2 its log
//!        │ ACK {disk b, seq ≥ first entry of 6}
//!        ▼
//!   MEMBERS entry: n2 is on disk b. It counts for everyone who has the entry
//! ```
//!
//! Why a new term: n2 may have promised, on the lost disk, to follow nobody below some term 9 whose nominee is still about. A
//! majority that promises 6 without n2 has a member in common with every majority that n2's promise was part of; that member
//! would name term 9. So from then on no nominee can complete a lower majority, and all that was committed before stands before the
//! first entry of 6, which n2 must hold before it counts.
//!
//! The entry states a fact about a disk, so it need not be committed to hold: whoever has it in its log may count n2. n2 promises
//! nothing before it has the entry on its own disk. Until then the loss of another disk can be one too many.

use super::{OrderingManager, Role};
use crate::domain::{NodeId, Term};
use crate::server::step::Step;

/// A voter that was heard from on another disk than the recorded one.
#[derive(Debug)]
pub(super) struct ForeignDisk {
    disk_id: String,
    /// The highest term when it was first heard of. A leader of a higher one became active after the return.
    known_in: Option<Term>,
}

impl OrderingManager {
    /// `from` keeps its log on `disk_id`.
    pub(super) fn note_disk(&mut self, from: &NodeId, disk_id: &str) {
        if !self.membership.is_voter(from) || self.membership.counts(from, disk_id) {
            return;
        }
        let known = self.foreign_disks.get(from);
        if known.is_none_or(|known| known.disk_id != disk_id) {
            let known_in = self.promised.clone();
            let disk = ForeignDisk { disk_id: disk_id.into(), known_in };
            self.foreign_disks.insert(from.clone(), disk);
        }
    }

    /// Voters that do not count, since they came back on another disk.
    pub(super) fn wiped_voters(&self) -> impl Iterator<Item = &NodeId> {
        let all = self.foreign_disks.iter();
        let wiped = all.filter(|(id, foreign)| !self.membership.counts(id, &foreign.disk_id));
        wiped.map(|(id, _)| id)
    }

    /// Active leader: does what wiped voters wait for. False when it stands anew because of that.
    pub(super) fn readmit_wiped(&mut self, step: &Step) -> bool {
        let membership = &self.membership;
        self.foreign_disks.retain(|id, foreign| !membership.counts(id, &foreign.disk_id));
        let Role::Leader(leading) = &self.role else { return false };
        let mut caught_up = None;
        for (id, foreign) in &self.foreign_disks {
            if foreign.known_in.as_ref() >= Some(&leading.term) {
                self.stand(true, step);
                return false;
            }
            let follower = leading.followers.get(id);
            let level = follower.is_some_and(|follower| {
                follower.disk_id == foreign.disk_id && follower.matched >= leading.first
            });
            if level {
                caught_up = Some((id.clone(), foreign.disk_id.clone()));
                break;
            }
        }
        let Some((id, disk_id)) = caught_up else { return true };
        if let Some(members) = self.membership.with_disk(&id, &disk_id) {
            self.place_members(members, step);
        }
        true
    }
}
