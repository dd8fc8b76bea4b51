//! The beginning of the log: how it is forgotten, and what stands for it.
//!
//! ```text
//!   before   [1][2][3][4][5][6][7]             3 is applied, and on the disks of all that are connected
//!   forget(3, state)   { 3, term, state, members }[4][5][6][7]
//!                      └ the base, appended as records; then what stands before the record of 4 may go
//!
//!   n4 asks for what comes after 1:  piece 0 of the base ▶ ◀ and then?  piece 1 ▶ … all: n4 starts again after 3
//! ```
//!
//! The state is a text to the order: the layer above makes it and takes it over. All servers that forget up to the same place
//! have the same one. It is written, and sent, in pieces that fit a frame; a base counts when its last piece is there.
//!
//! **Never too much.** Forgotten is what is committed, applied and on this server's disk, and no more than every connected
//! member has: the leader's heartbeats say how far that is. A server that was away for longer is sent the base instead.
//!
//! **A crash in between** loses nothing: the base, the highest promise and the members are appended before the log is told what is
//! not needed any more, and that waits for them to be synced. Of a base that is not whole nothing is believed. An old base, found
//! behind entries that a newer one keeps, is one of those that are not believed either; nor is one found in front of a gap, at which
//! the records begin when the entries in between stood in front of it.

use std::sync::Arc;

use super::following::Following;
use super::{COUNTER_MAX, OrderingManager, Role};
use crate::domain::content::{
    CatchupReq, Members, Place, PromiseContent, SeqChat, SeqChatKind, StateHere, StatePiece,
};
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::server::step::Step;
use crate::server::total_order::Seq;
use crate::storage::LogIndex;

/// How long a piece of the state is at most, in bytes: with what JSON adds it fits a frame.
pub const PIECE_BYTES: usize = 256 << 10;

/// What stands for the entries up to a place.
#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    /// What they did, as the layer above wrote it.
    pub(super) state: Option<Arc<str>>,
    /// Who belonged to the cluster.
    members: Option<Members>,
    /// The layer above has yet to take it over.
    pub(super) due: bool,
}

/// A base of which not all is here yet.
#[derive(Debug)]
pub(super) struct Gathering {
    base: Place,
    pieces: u32,
    text: String,
}

impl Base {
    /// Cuts the state into pieces: the one with `number`, in a message.
    fn piece(&self, number: u32, piece_bytes: usize) -> Option<StatePiece> {
        let text = self.state.as_deref()?;
        let border = |number: u32| {
            let at = (number as usize).saturating_mul(piece_bytes).min(text.len());
            (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
        };
        let of = u32::try_from(text.len().div_ceil(piece_bytes).max(1)).unwrap_or(u32::MAX);
        let text = text[border(number)..border(number + 1)].into();
        Some(StatePiece { number, of, text })
    }
}

impl Gathering {
    /// Takes the next piece of what stands for the entries up to `base`. The whole, when it is here; what is not the next piece
    /// changes nothing.
    fn add(
        gathering: &mut Option<Self>,
        base: &Place,
        piece: Option<StatePiece>,
    ) -> Option<Arc<str>> {
        let StatePiece { number, of, text } = piece?;
        if number == 0 {
            *gathering = Some(Self { base: base.clone(), pieces: 0, text: String::new() });
        }
        let here = gathering.as_mut().filter(|it| it.base == *base && it.pieces == number)?;
        here.text += &text;
        here.pieces += 1;
        if here.pieces < of {
            return None;
        }
        gathering.take().map(|whole| whole.text.into())
    }

    pub(super) fn here(&self) -> StateHere {
        StateHere { base: self.base.clone(), pieces: self.pieces }
    }
}

impl OrderingManager {
    /// The last place that every connected member has on its disk, as far as this server knows.
    pub(super) fn held_by_all(&self) -> Seq {
        let Role::Leader(leading) = &self.role else { return self.held };
        let linked =
            leading.followers.iter().filter(|(id, _)| self.membership.links().contains(*id));
        linked.map(|(_, follower)| follower.matched).fold(self.journal.durable(), Seq::min)
    }

    /// The last place that may be forgotten.
    pub(super) fn forgettable(&self) -> Seq {
        self.taken.min(self.journal.durable()).min(self.held_by_all())
    }

    /// Forgets entries up to `seq`, or up to the last that may be: `state` stands for them from now on.
    pub(super) fn forget_entries(&mut self, seq: Seq, state: Arc<str>, step: &Step) -> bool {
        if seq > self.forgettable() || seq <= self.journal.log().base() {
            return false;
        }
        let Some(place) = self.journal.place_at(seq) else { return false };
        self.membership.forget_up_to(seq);
        let members = self.membership.base().cloned();
        self.base = Base { state: Some(state), members, due: false };
        let (said, _) = self.write_base(&place, false, step);
        if let Some(term) = self.promised.clone() {
            self.write_promise(&term, step);
        }
        self.membership.write_again(step);
        let needed = self.journal.forget_up_to(seq, said);
        step.log.forget_before(needed);
        true
    }

    /// Appends the base as records, and returns the first and the last of them.
    fn write_base(&self, place: &Place, starts_anew: bool, step: &Step) -> (LogIndex, LogIndex) {
        let (mut first, mut number) = (None, 0);
        loop {
            let record = self.base_message(place, number, starts_anew);
            let last = step.log.append(&record.0);
            number += 1;
            let first = *first.get_or_insert(last);
            if number >= record.1 {
                return (first, last);
            }
        }
    }

    /// The base with one piece of its state, and how many pieces there are.
    fn base_message(&self, place: &Place, number: u32, starts_anew: bool) -> (Message, u32) {
        let state = self.base.piece(number, self.piece_bytes);
        let of = state.as_ref().map_or(1, |piece| piece.of);
        let base = SeqChat {
            kind: SeqChatKind::Base,
            prev: place.clone(),
            entries: Vec::new(),
            committed: place.seq,
            active: false,
            history_starts: starts_anew,
            state,
            members: self.base.members.clone(),
        };
        let mut msg = self.message(MessageType::SeqChat).saying(&base);
        // Whoever has the base follows no lower term: its entries would have said so.
        msg.term.clone_from(&place.term);
        (msg, of)
    }

    /// Writes down that `term` is promised.
    pub(super) fn write_promise(&self, term: &Term, step: &Step) {
        let kept = PromiseContent::Kept { end: self.journal.end() };
        let mut record = self.message(MessageType::Promise).saying(&kept);
        record.term = Some(term.clone());
        step.log.append(&record);
    }

    /// A base among the records, at a start.
    pub(super) fn recover_base(&mut self, said: SeqChat) {
        let SeqChat { prev, history_starts, state, members, .. } = said;
        let Some(state) = Gathering::add(&mut self.recovering, &prev, state) else { return };
        let seq = prev.seq;
        if self.journal.recover_base(prev, history_starts) {
            self.membership.start_after(seq, members.clone(), history_starts);
            self.base = Base { state: Some(state), members, due: true };
        }
    }

    /// CATCHUP_REQ from someone who needs what is not kept any more: the next piece of the base.
    pub(super) fn send_base(
        &self,
        to: &NodeId,
        asked: &CatchupReq,
        term: Option<Term>,
        step: &Step,
    ) {
        let Some(place) = self.journal.place_at(self.journal.log().base()) else { return };
        let here = asked.state.as_ref().filter(|here| here.base == place);
        let (mut msg, _) = self.base_message(&place, here.map_or(0, |here| here.pieces), true);
        msg.term = term;
        step.cm.send_to_node(to, &msg);
    }

    /// A piece of the base of `from`, which keeps no more of what this server lacks.
    pub(super) fn handle_base(
        &mut self,
        from: &NodeId,
        term: Option<&Term>,
        said: SeqChat,
        step: &Step,
    ) {
        let SeqChat { prev, state, members, .. } = said;
        let is_possible = prev.term.as_ref().is_some_and(|term| term.counter <= COUNTER_MAX);
        let holds = prev.seq <= self.journal.last() && self.journal.holds(&prev);
        let leads = matches!(self.role, Role::Leader(_));
        if !is_possible || prev.seq <= self.committed || holds || leads {
            self.gathering = None;
            return;
        }
        let whole = Gathering::add(&mut self.gathering, &prev, state);
        if let Some(state) = whole {
            self.start_after(prev, Base { state: Some(state), members, due: true }, step);
        }
        if matches!(self.role, Role::Nominee(_)) {
            self.fetch_on(step);
        } else {
            self.ask_for(from, term.cloned(), self.journal.end(), step);
        }
    }

    /// Nobody whom this server can ask keeps what stands before `place`: its log starts anew after that.
    fn start_after(&mut self, place: Place, base: Base, step: &Step) {
        log::info!("the log starts after {}: what stood before is not kept any more", place.seq);
        if let Some(term) = place.term.clone().filter(|term| self.promised.as_ref() < Some(term)) {
            // The base, once on disk, says the same as a record of the promise.
            self.note_term(&term);
            self.promised = Some(term);
            self.role = Role::Follower(Following::default());
        }
        self.base = base;
        let (_, said) = self.write_base(&place, true, step);
        self.membership.start_after(place.seq, self.base.members.clone(), true);
        self.committed = self.committed.max(place.seq);
        self.taken = self.taken.max(place.seq);
        self.journal.restart_after(place, said);
    }
}
