//! Clients' messages on their way to the leader, in order and without loss.
//!
//! ```text
//!   n1 (has the clients)                     n3 (leads in term 7)
//!   queue: m1 m2 m3 ── CHAT term 7, seq 1 2 3 ──▶ takes 1, 2, 3; refuses anything that is not next
//!      ▲                                          │ placed, committed
//!      └────── committed: m1 leaves the queue ◀───┘
//! ```
//!
//! The server that holds a client's connection keeps its messages until they are committed, and passes them on again
//! from the first one after any change of leader, term or link. Forwards are numbered from 1 each time, and the
//! leader takes only the next number: so a later message never overtakes an earlier one of its session, whatever
//! was lost or refused. What arrives twice is a duplicate by (session, `message_id`).
//!
//! Source: design rule "messages of one session appear in a room in the order sent, across reconnects".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::domain::{Message, MessageType, NodeId, Term};
use crate::network::ConnId;
use crate::server::planted::{Planted, is_planted};

/// A client's message that is not committed yet.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The connection that brought it: its acknowledgement goes there or nowhere.
    pub conn: ConnId,
    /// Since when it waits.
    pub since: Instant,
    /// The message, as it is to be placed: with its session and user.
    pub msg: Message,
}

/// Whose turn it is: the leader and the term in which it leads.
pub type Target = (NodeId, Term);

/// The messages of this server's clients that are not committed yet.
#[derive(Debug, Default)]
pub struct Forwards {
    /// By number, in the order in which they came.
    queue: BTreeMap<u64, Outgoing>,
    by_key: BTreeMap<(String, String), u64>,
    /// How many of each session wait.
    waiting: BTreeMap<String, usize>,
    last_number: u64,
    target: Option<Target>,
    /// The number of the last one that was passed on to the target.
    passed_on: u64,
    /// How many were passed on since the last beginning.
    count: u64,
}

impl Forwards {
    /// Takes a message. One that waits already gets the later connection, and false.
    pub fn push(&mut self, session: &str, outgoing: Outgoing) -> bool {
        let key = (session.to_string(), outgoing.msg.message_id.clone());
        if let Some(known) = self.by_key.get(&key).and_then(|number| self.queue.get_mut(number)) {
            known.conn = outgoing.conn;
            return false;
        }
        self.last_number += 1;
        self.by_key.insert(key, self.last_number);
        *self.waiting.entry(session.into()).or_default() += 1;
        self.queue.insert(self.last_number, outgoing);
        true
    }

    /// The message was committed: it waits no longer.
    pub fn done(&mut self, session: &str, message_id: &str) -> Option<Outgoing> {
        if self.by_key.is_empty() {
            return None;
        }
        let number = self.by_key.remove(&(session.to_string(), message_id.to_string()))?;
        if let Some(waiting) = self.waiting.get_mut(session) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting.remove(session);
            }
        }
        self.queue.remove(&number)
    }

    /// The session's connection is gone: it sends again what it wants, elsewhere or here.
    pub fn drop_session(&mut self, session: &str) {
        if self.waiting.remove(session).is_none() {
            return;
        }
        let of_session = |msg: &Message| msg.session.as_deref() == Some(session);
        self.queue.retain(|_, outgoing| !of_session(&outgoing.msg));
        self.by_key.retain(|(owner, _), _| owner != session);
    }

    /// How many messages of `session` wait.
    pub fn waiting_of(&self, session: &str) -> usize {
        self.waiting.get(session).copied().unwrap_or_default()
    }

    /// The connections whose oldest message has waited since before `since`.
    pub fn waiting_since(&self, since: Instant) -> BTreeSet<ConnId> {
        let old = self.queue.values().take_while(|outgoing| outgoing.since <= since);
        old.map(|outgoing| outgoing.conn).collect()
    }

    /// What waits, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.queue.values().map(|outgoing| &outgoing.msg)
    }

    /// Follows the leader: another one, or another term, begins with the first message again.
    pub fn aim(&mut self, target: Option<Target>) {
        if self.target != target {
            self.target = target;
            self.restart();
        }
    }

    /// Begins with the first message again: the link was lost, or the leader refused one.
    pub fn restart(&mut self) {
        (self.passed_on, self.count) = (0, 0);
    }

    /// Takes what is to be passed on now, to whom, with the leader's term and the numbers of this beginning.
    pub fn due(&mut self) -> Option<(NodeId, Vec<Message>)> {
        let (leader, term) = self.target.clone()?;
        let fresh = self.queue.range(self.passed_on + 1..);
        let mut fresh: Vec<(&u64, &Outgoing)> = fresh.collect();
        if is_planted(Planted::LatestForwardedFirst) {
            // Registrations stay ahead: a message of an unknown session would be refused, and nothing put in a wrong order.
            let is_chat = |msg: &Message| msg.message_type == MessageType::Chat;
            fresh.reverse();
            fresh.sort_by_key(|(number, outgoing)| {
                let chat = is_chat(&outgoing.msg);
                (chat, if chat { 0 } else { **number })
            });
        }
        let mut messages = Vec::new();
        for (number, outgoing) in fresh {
            self.passed_on = self.passed_on.max(*number);
            self.count += 1;
            let mut msg = outgoing.msg.clone();
            (msg.seq, msg.term) = (Some(self.count), Some(term.clone()));
            messages.push(msg);
        }
        (!messages.is_empty()).then_some((leader, messages))
    }
}

/// What a leader takes from the others.
#[derive(Debug, Default)]
pub struct Intake {
    /// The number that is next from each server; none after a refusal, until it begins again.
    next: BTreeMap<NodeId, u64>,
    /// What was placed in this term and is not committed yet.
    placed: BTreeSet<(String, String)>,
    term: Option<Term>,
}

impl Intake {
    /// This server leads in `term`, or nobody it takes messages for.
    pub fn lead(&mut self, term: Option<Term>) {
        if self.term != term {
            *self = Self { term, ..Self::default() };
        }
    }

    /// Whether the message with this term and number is the next one of `from`.
    pub fn takes(&mut self, from: &NodeId, msg: &Message) -> bool {
        let Some(number) = msg.seq.filter(|_| self.term.is_some() && msg.term == self.term) else {
            return false;
        };
        let next = self.next.get(from).copied();
        let is_next = number == 1 || next == Some(number);
        if !is_next && !is_planted(Planted::AnyForwardTaken) {
            return false;
        }
        self.next.insert(from.clone(), number + 1);
        true
    }

    /// A message of `from` could not be placed: nothing more until it begins again.
    pub fn refused(&mut self, from: &NodeId) {
        self.next.remove(from);
    }

    /// Remembers that the message was placed. False when it was before.
    pub fn place(&mut self, msg: &Message) -> bool {
        let Some((session, message_id)) = msg.duplicate_key() else { return false };
        self.placed.insert((session.into(), message_id.into()))
    }

    /// The message was committed.
    pub fn done(&mut self, session: &str, message_id: &str) {
        if !self.placed.is_empty() {
            self.placed.remove(&(session.to_string(), message_id.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn outgoing(session: &str, id: &str) -> Outgoing {
        let mut msg = Message::new(MessageType::Chat, "u").with_id(id).in_room("lobby");
        msg.session = Some(session.into());
        Outgoing { conn: ConnId(1), since: start(), msg }
    }

    fn target(counter: u64) -> Target {
        ("n3".into(), Term { counter, leader: "n3.1-0000".into() })
    }

    fn ids(due: Option<(NodeId, Vec<Message>)>) -> Vec<(String, u64)> {
        let messages = due.map(|(_, messages)| messages).unwrap_or_default();
        messages.into_iter().map(|msg| (msg.message_id, msg.seq.unwrap())).collect()
    }

    fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
        expected.iter().map(|(id, number)| ((*id).to_string(), *number)).collect()
    }

    #[test]
    fn nothing_is_passed_on_twice_to_one_leader_and_all_of_it_to_the_next() {
        let mut forwards = Forwards::default();
        forwards.push("s", outgoing("s", "a"));
        assert_eq!(forwards.due(), None, "nobody leads");
        forwards.aim(Some(target(1)));
        assert_eq!(ids(forwards.due()), pairs(&[("a", 1)]));
        forwards.push("s", outgoing("s", "b"));
        assert_eq!(ids(forwards.due()), pairs(&[("b", 2)]));
        forwards.done("s", "a");
        forwards.push("s", outgoing("s", "c"));
        forwards.aim(Some(target(2)));
        assert_eq!(ids(forwards.due()), pairs(&[("b", 1), ("c", 2)]));
    }

    #[test]
    fn a_message_waits_once_and_a_session_can_be_dropped() {
        let mut forwards = Forwards::default();
        assert!(forwards.push("s", outgoing("s", "a")));
        assert!(!forwards.push("s", outgoing("s", "a")));
        forwards.push("t", outgoing("t", "a"));
        assert_eq!(forwards.waiting_of("s"), 1);
        forwards.drop_session("s");
        assert_eq!((forwards.waiting_of("s"), forwards.waiting_of("t")), (0, 1));
        forwards.aim(Some(target(1)));
        assert_eq!(ids(forwards.due()), pairs(&[("a", 1)]));
        assert!(forwards.done("s", "a").is_none());
        assert!(forwards.done("t", "a").is_some());
    }

    #[test]
    fn a_leader_takes_only_the_next_one() {
        let n1 = NodeId::from("n1");
        let (_, term) = target(1);
        let numbered = |number, counter| {
            let mut msg = outgoing("s", "a").msg;
            (msg.seq, msg.term) = (Some(number), Some(target(counter).1));
            msg
        };
        let mut intake = Intake::default();
        assert!(!intake.takes(&n1, &numbered(1, 1)), "it does not lead");
        intake.lead(Some(term));
        assert!(!intake.takes(&n1, &numbered(2, 1)), "the first was lost");
        assert!(intake.takes(&n1, &numbered(1, 1)));
        assert!(intake.takes(&n1, &numbered(2, 1)));
        assert!(!intake.takes(&n1, &numbered(3, 2)), "of another term");
        intake.refused(&n1);
        assert!(!intake.takes(&n1, &numbered(3, 1)));
        assert!(intake.takes(&n1, &numbered(1, 1)), "it began again");
    }
}
