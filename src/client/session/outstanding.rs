//! Messages that were sent and not acknowledged yet, in the order in which the user wrote them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A message of this session that awaits its ACK.
#[derive(Clone, Debug, PartialEq)]
pub struct Unacked {
    /// Its id, `<session>-<n>`.
    pub message_id: String,
    /// Where it goes.
    pub room: String,
    /// What it says.
    pub text: String,
    /// When the user wrote it.
    written: Instant,
    /// Whether it went out on the present connection.
    sent: bool,
    /// Whether it went out on an earlier connection: then it may have been taken without our hearing of it.
    doubtful: bool,
    /// Whether the user was told that it takes long.
    told: bool,
}

/// The messages by their number `n`: its order is the order of writing.
#[derive(Debug, Default)]
pub struct Outstanding {
    last: u64,
    chats: BTreeMap<u64, Unacked>,
    /// Texts in `chats`, in bytes.
    bytes: usize,
}

impl Outstanding {
    /// Numbers and keeps a message; it is not sent yet. Returns its number.
    pub fn add(&mut self, session: &str, room: &str, text: &str, now: Instant) -> u64 {
        self.last += 1;
        self.bytes += text.len();
        let chat = Unacked {
            message_id: format!("{session}-{}", self.last),
            room: room.into(),
            text: text.into(),
            written: now,
            sent: false,
            doubtful: false,
            told: false,
        };
        self.chats.insert(self.last, chat);
        self.last
    }

    /// The number of the last message.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Numbers go on after `last`.
    pub fn go_on_after(&mut self, last: u64) {
        self.last = self.last.max(last);
    }

    /// Takes a message of an earlier life of the program: it may have gone out.
    pub fn restore(&mut self, message_id: &str, room: &str, text: &str, now: Instant) {
        let number = message_id.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
        let Some(number) = number else { return };
        self.go_on_after(number);
        self.bytes += text.len();
        let chat = Unacked {
            message_id: message_id.into(),
            room: room.into(),
            text: text.into(),
            written: now,
            sent: false,
            doubtful: true,
            told: false,
        };
        self.chats.insert(number, chat);
    }

    /// Takes out the messages that may have been taken on an earlier connection.
    pub fn take_doubtful(&mut self) -> Vec<Unacked> {
        let (doubtful, others) =
            std::mem::take(&mut self.chats).into_iter().partition(|(_, chat)| chat.doubtful);
        let doubtful: BTreeMap<u64, Unacked> = doubtful;
        self.chats = others;
        self.bytes = self.chats.values().map(|chat| chat.text.len()).sum();
        doubtful.into_values().collect()
    }

    /// The message numbered `number`.
    pub fn get(&self, number: u64) -> Option<&Unacked> {
        self.chats.get(&number)
    }

    /// Marks the message numbered `number` as sent, and returns it.
    pub fn take(&mut self, number: u64) -> Option<&Unacked> {
        let chat = self.chats.get_mut(&number)?;
        chat.sent = true;
        Some(chat)
    }

    /// Forgets a message: it was acknowledged or refused. `None` when it was none of ours, or done before.
    pub fn settle(&mut self, message_id: &str) -> Option<Unacked> {
        let number = message_id.rsplit_once('-')?.1.parse().ok()?;
        if self.chats.get(&number)?.message_id != message_id {
            return None;
        }
        let chat = self.chats.remove(&number)?;
        self.bytes -= chat.text.len();
        Some(chat)
    }

    /// Marks as sent, and returns, the messages that have not gone out on this connection and whose room is
    /// `ready`. Also says how many of them went out on an earlier one.
    pub fn take_unsent(&mut self, ready: impl Fn(&str) -> bool) -> (Vec<Unacked>, usize) {
        let mut resent = 0;
        let mut due = Vec::new();
        for chat in self.chats.values_mut().filter(|chat| !chat.sent && ready(&chat.room)) {
            resent += usize::from(chat.doubtful);
            chat.sent = true;
            due.push(chat.clone());
        }
        (due, resent)
    }

    /// The connection is gone: everything has to go out again.
    pub fn lost(&mut self) {
        for chat in self.chats.values_mut() {
            chat.doubtful |= chat.sent;
            chat.sent = false;
        }
    }

    /// The messages written more than `limit` ago that were not reported by this before.
    pub fn overdue(&mut self, now: Instant, limit: Duration) -> Vec<String> {
        // Written in order, so the first young one ends the search.
        let old =
            self.chats.values_mut().take_while(|chat| now.duration_since(chat.written) > limit);
        let mut news = Vec::new();
        for chat in old.filter(|chat| !chat.told) {
            chat.told = true;
            news.push(chat.message_id.clone());
        }
        news
    }

    /// The longest message that has gone out on this connection.
    pub fn longest_sent(&self) -> Option<&Unacked> {
        self.chats.values().filter(|chat| chat.sent).max_by_key(|chat| chat.text.len())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Unacked> {
        self.chats.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.chats.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chats.is_empty()
    }

    /// Whether one more would be too many, or too much. Counted from the oldest: servers remember so many numbers of a
    /// session, and one that waits for its room must not fall out of their memory.
    pub fn is_full(&self, count_max: usize, bytes_max: usize) -> bool {
        let oldest = self.chats.keys().next();
        let span = oldest.map_or(0, |oldest| self.last + 1 - oldest);
        span >= count_max as u64 || self.bytes >= bytes_max
    }

    /// How long their texts are together, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any moment does as a start")]
mod tests {
    use super::*;

    fn three() -> (Outstanding, Instant) {
        let mut outstanding = Outstanding::default();
        let now = Instant::now();
        for (room, text) in [("a", "1"), ("b", "22"), ("a", "3")] {
            outstanding.add("s", room, text, now);
        }
        (outstanding, now)
    }

    fn ids(chats: &[Unacked]) -> Vec<&str> {
        chats.iter().map(|chat| chat.message_id.as_str()).collect()
    }

    #[test]
    fn messages_go_out_once_a_connection_in_order_when_their_room_is_ready() {
        let (mut outstanding, _) = three();
        let (due, resent) = outstanding.take_unsent(|room| room == "a");
        assert_eq!((ids(&due), resent), (vec!["s-1", "s-3"], 0));
        assert!(outstanding.take_unsent(|room| room == "a").0.is_empty());
        outstanding.lost();
        let (due, resent) = outstanding.take_unsent(|_| true);
        assert_eq!((ids(&due), resent), (vec!["s-1", "s-2", "s-3"], 2));
    }

    #[test]
    fn only_own_ids_settle_and_only_once() {
        let (mut outstanding, _) = three();
        for strange in ["", "s", "t-1", "s-9", "s-x", "s-01"] {
            assert_eq!(outstanding.settle(strange), None, "{strange:?}");
        }
        assert_eq!(outstanding.settle("s-2").unwrap().text, "22");
        assert_eq!(outstanding.settle("s-2"), None);
        assert_eq!((outstanding.len(), outstanding.bytes()), (2, 2));
    }

    #[test]
    fn numbers_after_the_oldest_count_though_they_are_done() {
        let (mut outstanding, _) = three();
        assert!(!outstanding.is_full(4, 100) && outstanding.is_full(3, 100));
        outstanding.settle("s-2");
        assert!(outstanding.is_full(3, 100));
        outstanding.settle("s-1");
        assert!(!outstanding.is_full(3, 100));
    }

    #[test]
    fn what_went_out_on_an_earlier_connection_is_doubtful() {
        let (mut outstanding, now) = three();
        outstanding.take_unsent(|room| room == "a");
        outstanding.lost();
        outstanding.restore("s-7", "b", "7777", now);
        outstanding.take_unsent(|_| true);
        assert_eq!(ids(&outstanding.take_doubtful()), ["s-1", "s-3", "s-7"]);
        assert_eq!((outstanding.len(), outstanding.bytes(), outstanding.last()), (1, 2, 7));
    }

    #[test]
    fn a_slow_message_is_reported_once() {
        let (mut outstanding, start) = three();
        let limit = Duration::from_secs(2);
        assert!(outstanding.overdue(start + limit, limit).is_empty());
        let late = start + limit + Duration::from_millis(1);
        assert_eq!(outstanding.overdue(late, limit), ["s-1", "s-2", "s-3"]);
        assert!(outstanding.overdue(late, limit).is_empty());
    }
}
