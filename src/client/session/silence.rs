//! Which silence proves that a server is gone.
//!
//! ```text
//!   heard ──── 2 s ────▶ HEARTBEAT, "are you there?" ──── 1.5 s ────▶ gone         something is outstanding
//!   heard ──── 5 s ────▶ HEARTBEAT, "are you there?" ──── 3 s ──────▶ gone         nothing is
//!                           └──────── anything is heard ────▶ it is there: all over again
//! ```
//!
//! A server that hangs, sleeps or is cut off closes no connection: its silence is all that tells. But a server may be
//! silent for good reasons: an ACK waits for other servers' disks, nobody says anything. So silence alone
//! proves nothing; an unanswered question does. A server answers a HEARTBEAT with an id at once, whatever our messages
//! wait for. Only while it reads no further from us, because a request of ours waits, it cannot read the question; then it
//! says HEARTBEAT by itself, twice a second. Either way something is heard well within the 1.5 s.
//!
//! Promise: a client whose server stops without a word is on its way to another 2 s after it wrote something (the
//! question goes out at once when the silence was there before) and in any case 8 s after the last word.
//! Price: a question every 5 s from a client in a quiet room. A network that takes longer than 1.5 s
//! for a word and its answer makes its clients move for nothing; nothing is lost or shown twice by that.
//! What one sends oneself delays the question, so long messages on their way lengthen the wait.
//! Leaves out: a server that answers but does no work.
//!
//! A client that slept itself must not accuse: a tick that comes late begins all over again.

use std::time::{Duration, Instant};

/// A server that owes something and says nothing for so long is asked whether it is there.
pub const PROBE_AFTER: Duration = Duration::from_secs(2);
/// One that owes nothing is asked after this time.
pub const PROBE_AFTER_IDLE: Duration = Duration::from_secs(5);
/// How long a server that owes something may take to say anything once it was asked.
pub const ANSWER_MAX: Duration = Duration::from_millis(1500);
/// One that owes nothing has more time: nobody waits for it.
pub const ANSWER_MAX_IDLE: Duration = Duration::from_secs(3);
/// A tick so long after the one before says that this program slept, or waited for its user.
const TICK_LATE: Duration = Duration::from_secs(1);
/// The slowest line on which long messages do not make a client move, in bytes per second.
const LINE_BYTES_PER_SECOND: usize = 64 * 1024;
/// No more is granted for them: who has megabytes to say has to get away from a dead server, too.
const LINE_MAX: Duration = Duration::from_secs(10);

/// What the server owes us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Nothing: every request was answered.
    Nothing,
    /// An answer; so many bytes of our messages may still be on their way.
    Answer {
        /// The length of what is unacknowledged.
        bytes: usize,
    },
}

/// What follows from the silence so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Wait,
    /// Ask now.
    Ask,
    /// The server is gone; it said nothing for so long.
    Gone(Duration),
}

/// The silence of the server of one connection.
#[derive(Clone, Debug)]
pub struct Silence {
    heard: Instant,
    /// When it was asked, since it was heard last.
    asked: Option<Instant>,
    ticked: Instant,
}

impl Silence {
    /// A connection begins with a question, CLIENT_JOIN.
    pub fn new(now: Instant) -> Self {
        Self { heard: now, asked: Some(now), ticked: now }
    }

    /// The server said something.
    pub fn heard(&mut self, now: Instant) {
        (self.heard, self.asked) = (now, None);
    }

    /// Time has passed. The caller asks when it is told to.
    pub fn tick(&mut self, now: Instant, owed: Owed) -> Verdict {
        let ticked = std::mem::replace(&mut self.ticked, now);
        if now.duration_since(ticked) > TICK_LATE {
            // What the server said meanwhile may still be unread.
            self.heard(now);
            if owed != Owed::Nothing {
                self.asked = Some(now);
                return Verdict::Ask;
            }
        }
        let (probe_after, answer_max) = match owed {
            Owed::Nothing => (PROBE_AFTER_IDLE, ANSWER_MAX_IDLE),
            Owed::Answer { bytes } => (PROBE_AFTER, ANSWER_MAX + on_the_line(bytes)),
        };
        let silence = now.duration_since(self.heard);
        match self.asked {
            None if silence >= probe_after => {
                self.asked = Some(now);
                Verdict::Ask
            }
            Some(asked) if now.duration_since(asked) >= answer_max => Verdict::Gone(silence),
            _ => Verdict::Wait,
        }
    }
}

/// How long `bytes` may take on a slow line.
fn on_the_line(bytes: usize) -> Duration {
    Duration::from_secs((bytes / LINE_BYTES_PER_SECOND) as u64).min(LINE_MAX)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any moment does as a start")]
mod tests {
    use super::*;

    const OWED: Owed = Owed::Answer { bytes: 10 };
    const TICK: Duration = Duration::from_millis(500);

    /// Ticks every half second until the server is given up. When it was asked and given up, in milliseconds.
    fn course(mut silence: Silence, start: Instant, owed: Owed) -> (Vec<u128>, u128) {
        let mut asked = Vec::new();
        for n in 1..1000 {
            let now = start + TICK * n;
            let ms = (now - start).as_millis();
            match silence.tick(now, owed) {
                Verdict::Wait => {}
                Verdict::Ask => asked.push(ms),
                Verdict::Gone(silent) => {
                    assert_eq!(silent.as_millis(), ms);
                    return (asked, ms);
                }
            }
        }
        panic!("never given up");
    }

    fn heard() -> (Silence, Instant) {
        let now = Instant::now();
        let mut silence = Silence::new(now);
        silence.heard(now);
        (silence, now)
    }

    #[test]
    fn a_server_that_owes_something_is_asked_once_and_soon_given_up() {
        let (silence, start) = heard();
        assert_eq!(course(silence, start, OWED), (vec![2000], 3500));
    }

    #[test]
    fn a_quiet_room_is_no_silence_to_hurry_about() {
        let (silence, start) = heard();
        assert_eq!(course(silence, start, Owed::Nothing), (vec![5000], 8000));
    }

    #[test]
    fn a_new_connection_is_a_question_already() {
        let start = Instant::now();
        assert_eq!(course(Silence::new(start), start, OWED), (vec![], 1500));
    }

    #[test]
    fn long_messages_take_their_time() {
        for (seconds, gone) in [(4, 7500), (1000, 13_500)] {
            let (silence, start) = heard();
            let owed = Owed::Answer { bytes: seconds * LINE_BYTES_PER_SECOND };
            assert_eq!(course(silence, start, owed), (vec![2000], gone));
        }
    }

    #[test]
    fn any_word_is_an_answer() {
        let (mut silence, start) = heard();
        let verdicts = (1..=6).map(|n| silence.tick(start + TICK * n, OWED));
        assert_eq!(verdicts.filter(|verdict| *verdict == Verdict::Ask).count(), 1);
        silence.heard(start + TICK * 6);
        for n in 7..10 {
            assert_eq!(silence.tick(start + TICK * n, OWED), Verdict::Wait);
        }
        assert_eq!(silence.tick(start + TICK * 10, OWED), Verdict::Ask);
    }

    #[test]
    fn who_slept_asks_before_it_accuses() {
        let (mut silence, start) = heard();
        for minutes in 1..3 {
            let woken = start + Duration::from_secs(60 * minutes);
            assert_eq!(silence.tick(woken, OWED), Verdict::Ask);
            assert_eq!(silence.tick(woken + TICK, OWED), Verdict::Wait);
        }
    }
}
