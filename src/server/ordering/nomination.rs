//! From a nomination to the lead: promises, the longest log, the first entry of the own term.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::base::Gathering;
use super::leading::Leading;
use super::{Answer, COUNTER_MAX, OrderingManager, Role};
use crate::domain::content::{
    CatchupReq, Members, Place, PromiseContent, SeqChat, SeqChatKind, TimeoutNow,
};
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::server::membership::content_of;
use crate::server::planted::{Planted, is_planted};
use crate::server::step::Step;

/// Backing off doubles at most this many times.
const DOUBLINGS_MAX: u32 = 4;

/// A nominee that has not adopted the longest log yet.
#[derive(Debug)]
pub(super) struct Nomination {
    term: Term,
    /// No living leader is a reason to refuse: it asked for this, or it is this server.
    handover: bool,
    /// Where the logs of those end that promised and count.
    promises: BTreeMap<NodeId, Place>,
    refusals: BTreeSet<NodeId>,
    /// Whose log is being fetched, and its end.
    adopting: Option<(NodeId, Place)>,
    /// When to give up; later with each step forward.
    deadline: Instant,
    ask_at: Instant,
}

/// A promise that was given, until a higher one.
#[derive(Debug)]
pub(super) struct Grant {
    term: Term,
    end: Place,
}

impl OrderingManager {
    /// Stands in a term higher than any heard of.
    pub(super) fn stand(&mut self, handover: bool, step: &Step) {
        let stands = matches!(self.role, Role::Nominee(_));
        if stands || self.resigned || !self.membership.counts_itself() {
            return;
        }
        self.counter += 1;
        let term = Term { counter: self.counter, leader: self.incarnation.clone() };
        let end = self.journal.end();
        self.keep_promise(&term, end.clone(), Answer::Own { term: term.clone(), end }, step);
        self.role = Role::Nominee(Nomination {
            term,
            handover,
            promises: BTreeMap::new(),
            refusals: BTreeSet::new(),
            adopting: None,
            deadline: step.now + self.timing.election_timeout,
            ask_at: step.now,
        });
        self.tick_nominee(step);
    }

    /// Writes the promise down with the end of the log, as one record; `then` waits until it is on disk.
    fn keep_promise(&mut self, term: &Term, end: Place, then: Answer, step: &Step) {
        self.promised = Some(term.clone());
        let kept = PromiseContent::Kept { end };
        let index = step.log.append(&self.promise_message(term, &kept));
        let index = if is_planted(Planted::PromiseBeforeSync) { 0 } else { index };
        self.answers.push((index, then));
    }

    fn promise_message(&self, term: &Term, content: &PromiseContent) -> Message {
        let mut msg = self.message(MessageType::Promise).saying(content);
        msg.term = Some(term.clone());
        msg
    }

    /// Asks again, or gives up.
    pub(super) fn tick_nominee(&mut self, step: &Step) {
        let Role::Nominee(nomination) = &mut self.role else { return };
        if step.now >= nomination.deadline {
            self.give_up(step);
            return;
        }
        if step.now < nomination.ask_at {
            return;
        }
        // A voter that has yet to find out that the leader is gone refuses at first.
        nomination.ask_at = step.now + self.timing.heartbeat_interval / 2;
        if nomination.adopting.is_some() {
            self.fetch(step);
            return;
        }
        let content = PromiseContent::Request { handover: nomination.handover };
        let term = nomination.term.clone();
        let msg = self.promise_message(&term, &content);
        let Role::Nominee(nomination) = &self.role else { return };
        let Some(members) = self.membership.members() else { return };
        let silent = members.voters.keys().filter(|id| {
            *id != self.membership.node_id() && !nomination.promises.contains_key(*id)
        });
        silent.for_each(|id| step.cm.send_to_node(id, &msg));
    }

    /// No majority: stays silent for a while, longer each time, so that another one can try.
    fn give_up(&mut self, step: &Step) {
        self.role = Role::default();
        let base = self.timing.election_timeout / 2 * (1 << self.failures.min(DOUBLINGS_MAX));
        let extra = base * self.rng.u32(0..1000) / 1000;
        self.failures += 1;
        self.quiet_until = Some(step.now + base + extra);
    }

    /// PROMISE from `from`.
    pub(super) fn handle_promise(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        let Some(term) = &msg.term else {
            let message_id = msg.message_id.clone();
            return Err(RequestError::MissingField { message_id, field: "term" });
        };
        match content_of(msg)? {
            PromiseContent::Request { handover } => self.promise(from, term, handover, step),
            PromiseContent::Granted { end, disk_id } => {
                self.note_disk(from, &disk_id);
                self.count_promise(from, term, end, &disk_id, step);
            }
            PromiseContent::Refused { promised, led } => {
                self.handle_refused(from, term, &promised, led, step);
            }
            PromiseContent::Kept { .. } => {}
        }
        Ok(())
    }

    /// A nominee asks for a promise.
    fn promise(&mut self, from: &NodeId, term: &Term, handover: bool, step: &Step) {
        let asks_for_itself = term.leader.node_id() == *from && self.membership.is_voter(from);
        if !asks_for_itself || !self.membership.counts_itself() {
            return;
        }
        if self.promised.as_ref() == Some(term) {
            self.promise_again(from, term, step);
            return;
        }
        let led = self.is_led(step.now) && self.leader_id().as_ref() != Some(from);
        if self.is_stale(term) || led && !handover {
            self.refuse(from, term, step);
            return;
        }
        self.note_term(term);
        self.role = Role::default();
        self.heard_at = Some(step.now);
        let end = self.journal.end();
        self.granted = Some(Grant { term: term.clone(), end: end.clone() });
        let answer = Answer::Grant { to: from.clone(), term: term.clone(), end: end.clone() };
        self.keep_promise(term, end, answer, step);
    }

    /// Whom it promised last, while that counts.
    #[cfg(test)]
    pub(super) fn granted_to(&self) -> Option<NodeId> {
        let granted = self.granted.as_ref().map(|grant| &grant.term);
        granted
            .filter(|term| self.promised.as_ref() == Some(*term))
            .map(|term| term.leader.node_id())
    }

    /// The answer was lost, or waits for the disk: it is given again when the disk has all that was written.
    fn promise_again(&mut self, from: &NodeId, term: &Term, step: &Step) {
        let Some(grant) = self.granted.as_ref().filter(|grant| grant.term == *term) else { return };
        let waits = self.answers.iter().any(
            |(_, answer)| matches!(answer, Answer::Grant { term: waiting, .. } if waiting == term),
        );
        if !waits {
            let content = PromiseContent::Granted {
                end: grant.end.clone(),
                disk_id: self.membership.me().disk_id.clone(),
            };
            step.cm.send_to_node(from, &self.promise_message(term, &content));
        }
    }

    /// Tells `from` that `term` is too low, or that this server has a leader.
    pub(super) fn refuse(&mut self, from: &NodeId, term: &Term, step: &Step) {
        let Some(promised) = self.promised.clone() else { return };
        let content = PromiseContent::Refused { promised, led: self.is_led(step.now) };
        step.cm.send_to_node(from, &self.promise_message(term, &content));
    }

    /// What waited for the disk and has it now.
    pub(super) fn answer_synced(&mut self, step: &Step) {
        let synced = self.synced;
        let ready: Vec<_> = self.answers.extract_if(.., |(index, _)| *index <= synced).collect();
        for (_, answer) in ready {
            match answer {
                Answer::Own { term, end } => {
                    let (id, me) = (self.membership.node_id(), self.membership.me());
                    let (id, disk_id) = (id.clone(), me.disk_id.clone());
                    self.count_promise(&id, &term, end, &disk_id, step);
                }
                Answer::Grant { to, term, end } if self.promised.as_ref() == Some(&term) => {
                    let disk_id = self.membership.me().disk_id.clone();
                    let content = PromiseContent::Granted { end, disk_id };
                    step.cm.send_to_node(&to, &self.promise_message(&term, &content));
                }
                Answer::Grant { .. } => {}
            }
        }
    }

    fn count_promise(
        &mut self,
        from: &NodeId,
        term: &Term,
        end: Place,
        disk_id: &str,
        step: &Step,
    ) {
        let counts = self.membership.counts(from, disk_id);
        let needed = self.membership.members().map_or(usize::MAX, Members::majority);
        let Role::Nominee(nomination) = &mut self.role else { return };
        if nomination.term != *term || nomination.adopting.is_some() || !counts {
            return;
        }
        nomination.promises.insert(from.clone(), end);
        nomination.refusals.remove(from);
        // The own one is waited for: its log may be the longest.
        let own = nomination.promises.contains_key(self.membership.node_id());
        if nomination.promises.len() < needed || !own {
            return;
        }
        let longest = nomination.promises.iter().max_by_key(|(_, end)| *end);
        let Some((source, end)) = longest.map(|(id, end)| (id.clone(), end.clone())) else {
            return;
        };
        nomination.deadline = step.now + self.timing.election_timeout;
        nomination.ask_at = step.now + self.timing.heartbeat_interval * 2;
        nomination.adopting = Some((source, end));
        self.fetch(step);
    }

    /// Asks for the next part of the longest log; leads when it is here.
    fn fetch(&mut self, step: &Step) {
        let Role::Nominee(nomination) = &self.role else { return };
        let Some((source, end)) = &nomination.adopting else { return };
        if self.journal.end() >= *end {
            let term = nomination.term.clone();
            self.start_leading(term, step);
            return;
        }
        let (source, term) = (source.clone(), nomination.term.clone());
        let after = self.ask_after.take().unwrap_or_else(|| self.journal.end());
        self.ask_for(&source, Some(term), after, step);
    }

    /// SEQ_CHAT with the end of the longest log.
    pub(super) fn adopt(
        &mut self,
        from: &NodeId,
        term: Option<&Term>,
        batch: SeqChat,
        step: &Step,
    ) {
        let Role::Nominee(nomination) = &self.role else { return };
        let expected = nomination.adopting.as_ref().is_some_and(|(source, _)| source == from);
        if Some(&nomination.term) != term || !expected {
            return;
        }
        debug_assert_eq!(batch.kind, SeqChatKind::Adoption);
        if self.journal.holds(&batch.prev) {
            self.insert_all(&batch.prev, batch.entries, step);
            self.fetch_on(step);
        } else {
            self.ask_after = self.lower_place(&batch.prev);
            self.fetch(step);
        }
    }

    /// A part of what it adopts has come: there is time for the next one.
    pub(super) fn fetch_on(&mut self, step: &Step) {
        let deadline = step.now + self.timing.election_timeout;
        if let Role::Nominee(nomination) = &mut self.role {
            nomination.deadline = deadline;
        }
        self.fetch(step);
    }

    fn start_leading(&mut self, term: Term, step: &Step) {
        let first = self.journal.last() + 1;
        self.role = Role::Leader(Leading::new(term, first));
        self.follow_members(step.now);
        let mut noop = self.message(MessageType::Noop);
        // The first log time of a cluster is its first leader's.
        noop.timestamp = Some(step.wall_ms);
        self.place(noop, step);
        self.advance();
    }

    fn handle_refused(
        &mut self,
        from: &NodeId,
        term: &Term,
        promised: &Term,
        led: bool,
        step: &Step,
    ) {
        if promised.counter > COUNTER_MAX || !self.membership.is_voter(from) {
            return;
        }
        self.note_term(promised);
        let mut refuse = match &mut self.role {
            Role::Nominee(nomination) if nomination.term == *term => {
                nomination.refusals.insert(from.clone());
                if led {
                    self.heard_at = Some(step.now);
                }
                nomination.refusals.clone()
            }
            Role::Leader(leading) if leading.term == *term => leading.note_refusal(from, step.now),
            _ => return,
        };
        // Who lost its disk says yes to nobody.
        refuse.extend(self.wiped_voters().cloned());
        let voters = self.membership.members().map_or(0, |members| members.voters.len());
        if refuse.len() > (voters - 1) / 2 {
            match self.role {
                Role::Nominee(_) => self.give_up(step),
                _ => self.step_down(step.now),
            }
        }
    }

    /// TIMEOUT_NOW: the leader hands over to this server.
    pub(super) fn handle_timeout_now(&mut self, from: &NodeId, msg: &Message, step: &Step) {
        if msg.content.parse::<TimeoutNow>().is_ok()
            && msg.term == self.promised
            && self.leader_id().as_ref() == Some(from)
        {
            self.stand(true, step);
        }
    }

    /// CATCHUP_REQ to `to`. The same one is not repeated within a heartbeat interval.
    pub(super) fn ask_for(&mut self, to: &NodeId, term: Option<Term>, after: Place, step: &Step) {
        let again = self.timing.heartbeat_interval;
        let state = self.gathering.as_ref().map(Gathering::here);
        let wanted = CatchupReq { after, state };
        let asked = self.asked.as_ref();
        if asked.is_some_and(|(last, at)| *last == wanted && step.now < *at + again) {
            return;
        }
        self.asked = Some((wanted.clone(), step.now));
        let mut msg = self.message(MessageType::CatchupReq).saying(&wanted);
        msg.term = term;
        step.cm.send_to_node(to, &msg);
    }
}
