//! Messages that came before their causal past.
//!
//! ```text
//!   m = {n1:4, n2:7}  while n1:3 and n2:5 are here   ──▶ kept under (n2, 7), what it waits for
//!   n2's 7th message is delivered                    ──▶ m is looked at again
//! ```
//!
//! Each message is kept under the one message that it waits for. Looking through all of them at each
//! delivery took seconds when a replica that was far behind was sent what it lacked.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::Incarnation;
use super::message::Message;
use super::vector_clock::VectorClock;

/// The messages of one room that wait for others.
#[derive(Clone, Debug, Default)]
pub struct HoldBackQueue {
    /// By the stamp of the message that they wait for.
    waiting: BTreeMap<(Incarnation, u64), Vec<Message>>,
    /// Their own stamps.
    stamps: BTreeSet<(Incarnation, u64)>,
}

impl HoldBackQueue {
    /// Keeps `msg`, which is not ready at `clock`, until what it waits for is delivered. False when it is
    /// kept already, is not stamped, or waits for nothing.
    pub fn push(&mut self, msg: Message, clock: &VectorClock) -> bool {
        let Some((origin, count)) = msg.stamp() else { return false };
        let stamp = (origin.clone(), count);
        let Some(awaited) = awaited_by(&msg, clock) else { return false };
        if !self.stamps.insert(stamp) {
            return false;
        }
        self.waiting.entry(awaited).or_default().push(msg);
        true
    }

    /// Takes out what waited for the `count`-th message of `origin`, which was just delivered.
    pub fn release(&mut self, origin: &Incarnation, count: u64) -> Vec<Message> {
        let released = self.waiting.remove(&(origin.clone(), count)).unwrap_or_default();
        for (origin, count) in released.iter().filter_map(Message::stamp) {
            self.stamps.remove(&(origin.clone(), count));
        }
        released
    }

    /// What the messages wait for, and which wait for it.
    pub fn awaited(&self) -> impl Iterator<Item = (&Incarnation, u64, &[Message])> {
        self.waiting.iter().map(|((origin, count), waiting)| (origin, *count, waiting.as_slice()))
    }

    /// The messages that wait, in the order of what they wait for.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.waiting.values().flatten()
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.stamps.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.stamps.is_empty()
    }
}

/// A message that `msg` cannot be delivered before, and that is not here at `clock`: the one before it of
/// its own origin, or one that its sender had seen.
fn awaited_by(msg: &Message, clock: &VectorClock) -> Option<(Incarnation, u64)> {
    let (origin, count) = msg.stamp()?;
    if clock.get(origin) + 1 < count {
        return Some((origin.clone(), count - 1));
    }
    let seen = msg.vector_clock.as_ref()?.timestamps.iter().filter(|(other, _)| *other != origin);
    seen.filter(|(other, count)| clock.get(other) < **count)
        .map(|(other, count)| (other.clone(), *count))
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    /// A CHAT stamped `a3 b1`: the third of `a`, who had seen the first of `b`.
    fn stamped(stamp: &str) -> Message {
        let mut msg = Message::new(MessageType::Chat, "alice");
        msg.vector_clock = Some(clock(stamp));
        msg.origin = Some(stamp[..1].into());
        msg
    }

    fn clock(text: &str) -> VectorClock {
        let mut clock = VectorClock::new();
        for word in text.split_whitespace() {
            clock.raise(&word[..1].into(), word[1..].parse().unwrap());
        }
        clock
    }

    #[test]
    fn a_message_comes_out_when_what_it_waits_for_is_delivered() {
        let mut queue = HoldBackQueue::default();
        assert!(queue.push(stamped("a1 b2"), &clock("b1")));
        assert!(queue.release(&"b".into(), 1).is_empty());
        assert_eq!(queue.release(&"b".into(), 2), [stamped("a1 b2")]);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_former_message_of_the_same_origin_is_waited_for_first() {
        let mut queue = HoldBackQueue::default();
        assert!(queue.push(stamped("a3 b2"), &clock("a1")));
        assert_eq!(queue.release(&"a".into(), 2).len(), 1);
    }

    #[test]
    fn a_message_is_kept_once_and_a_ready_one_not_at_all() {
        let mut queue = HoldBackQueue::default();
        assert!(queue.push(stamped("a2"), &clock("")));
        assert!(!queue.push(stamped("a2"), &clock("")));
        assert!(!queue.push(stamped("a1"), &clock("")));
        assert_eq!(queue.len(), 1);
    }
}
