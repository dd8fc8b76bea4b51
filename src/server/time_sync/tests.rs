//! Answers of time servers that a test makes up, in virtual time.

use super::*;
use crate::network::sntp::NtpTimestamp;
use crate::testing::start;

const MS: i64 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// A `TimeSync` in virtual time, whose answers a test makes up.
struct Play {
    sync: TimeSync,
    rng: fastrand::Rng,
    now: Instant,
    /// How far the system clock was set, in seconds.
    set_by: u64,
}

impl Play {
    fn of(servers: &[&str]) -> Self {
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        Self {
            sync: TimeSync::new(&servers, TimeSyncTiming::default()),
            rng: fastrand::Rng::with_seed(1),
            now: start(),
            set_by: 0,
        }
    }

    fn next(&mut self) -> Next {
        self.sync.next(self.now, &mut self.rng)
    }

    /// Waits as long as it says, and returns the question that follows and how long the wait was.
    fn question(&mut self) -> (Question, Duration) {
        let before = self.now;
        for _ in 0..10 {
            match self.next() {
                Next::Ask(question) => return (question, self.now - before),
                Next::Wait(wait) => self.now += wait,
                Next::Never => break,
            }
        }
        panic!("no question follows");
    }

    /// The next question has to be for `server` after a wait of `wait_s` and is answered with this offset and delay,
    /// in ms.
    fn answer(&mut self, server: &str, wait_s: u64, offset_ms: i64, delay_ms: i64) {
        let (question, waited) = self.question();
        assert_eq!((question.server.as_str(), waited.as_secs()), (server, wait_s));
        let uptime = self.now - start() + SECOND * u32::try_from(self.set_by).unwrap();
        let sample = Exchange {
            offset_ns: offset_ms * MS,
            delay_ns: delay_ms * MS,
            system: NtpTimestamp(3_900_000_000 << 32).plus(uptime),
            at: self.now,
        };
        self.sync.take(&question, Ok(sample), self.now);
    }

    /// The same, but it fails.
    fn fail(&mut self, server: &str, wait_s: u64, error: SntpError) {
        let (question, waited) = self.question();
        assert_eq!((question.server.as_str(), waited.as_secs()), (server, wait_s));
        self.sync.take(&question, Err(error), self.now);
    }

    fn state(&self) -> String {
        self.sync.state(self.now).unwrap().to_string()
    }

    /// What is added to the system clock, in ms.
    fn correction(&self) -> i64 {
        self.sync.wall_ms(1_000_000_000).cast_signed() - 1_000_000_000
    }
}

fn silence() -> SntpError {
    SntpError::NoAnswer { strays: 0 }
}

#[test]
fn without_servers_the_system_clock_serves_and_nothing_is_said() {
    let mut play = Play::of(&[]);
    assert_eq!(play.next(), Next::Never);
    assert_eq!(play.sync.state(play.now), None);
    assert_eq!(play.sync.wall_ms(1234), 1234);
    assert!(!TimeSync::default().is_used());
}

#[test]
fn an_answer_corrects_the_system_clock_and_the_status_says_so() {
    let mut play = Play::of(&["a:123"]);
    let unsynchronised = "not synchronised, the system clock serves: no server was asked yet";
    assert_eq!(play.state(), unsynchronised);
    assert_eq!(play.correction(), 0);
    play.answer("a:123", 0, 250, 8);
    assert_eq!(play.correction(), 250);
    play.now += Duration::from_millis(40);
    assert_eq!(play.state(), "a:123, offset +250.000 ms, delay 8.000 ms, heard 40 ms ago");
    play.now += SECOND * 30;
    assert!(play.state().ends_with("heard 30 s ago"), "{}", play.state());
    // The next poll is 64 s after the answer.
    play.now = start();
    play.answer("a:123", 64, -3, 2);
    assert_eq!(play.correction(), -3);
}

#[test]
fn offsets_are_rounded_and_never_wrap() {
    for (offset_ns, system, wall) in [
        (0, 1000, 1000),
        (499_999, 1000, 1000),
        (500_000, 1000, 1001),
        (-499_999, 1000, 1000),
        (-500_000, 1000, 999),
        (-5000 * MS, 1000, 0),
        (5000 * MS, u64::MAX, u64::MAX),
    ] {
        let mut sync = TimeSync::new(&["a:1".into()], TimeSyncTiming::default());
        let system_at = NtpTimestamp(1 << 40);
        let Next::Ask(question) = sync.next(start(), &mut fastrand::Rng::with_seed(1)) else {
            panic!("it asks at once");
        };
        let sample = Exchange { offset_ns, delay_ns: 0, system: system_at, at: start() };
        sync.take(&question, Ok(sample), start());
        assert_eq!(sync.wall_ms(system), wall, "{offset_ns}");
    }
}

#[test]
fn every_question_has_another_nonce_and_none_is_zero() {
    let mut play = Play::of(&["a:1"]);
    let mut nonces = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let (question, _) = play.question();
        assert_ne!(question.nonce, 0);
        nonces.insert(question.nonce);
        play.sync.take(&question, Err(silence()), play.now);
    }
    assert_eq!(nonces.len(), 100);
}

#[test]
fn of_the_last_eight_answers_the_one_with_the_shortest_way_counts() {
    let mut play = Play::of(&["a:1"]);
    for (count, (offset, delay, expected)) in [
        (100, 80, 100),
        (40, 20, 40),
        (90, 60, 40),
        (70, 30, 40),
        (20, 70, 40),
        (75, 90, 40),
        (60, 50, 40),
        (55, 55, 40),
        (30, 60, 40),
        // The good one is the ninth by now; what follows is the best of those that are left.
        (31, 60, 70),
        (32, 28, 32),
    ]
    .into_iter()
    .enumerate()
    {
        play.answer("a:1", if count == 0 { 0 } else { 64 }, offset, delay);
        assert_eq!(play.correction(), expected, "after answer {}", count + 1);
    }
}

#[test]
fn an_old_answer_counts_as_if_it_had_been_longer_on_the_way() {
    let mut play = Play::of(&["a:1"]);
    play.answer("a:1", 0, 10, 4);
    // 64 s of drift are about one millisecond: half of 5 ms of delay is still worse than 2 ms and that.
    play.answer("a:1", 64, 20, 7);
    assert_eq!(play.correction(), 10);
    // After 128 s the first one may be wrong by 2 ms more.
    play.answer("a:1", 64, 30, 7);
    assert_eq!(play.correction(), 30);
}

#[test]
fn servers_are_asked_in_turn_until_one_answers_and_it_is_kept() {
    let mut play = Play::of(&["a:1", "b:2", "c:3"]);
    play.fail("a:1", 0, silence());
    assert_eq!(play.state(), "not synchronised, the system clock serves: a:1 does not answer");
    play.fail("b:2", 0, SntpError::Unsynchronised);
    assert!(play.state().ends_with("b:2 is not synchronised itself"), "{}", play.state());
    play.answer("c:3", 0, 5, 1);
    assert!(play.state().starts_with("c:3, offset +5.000 ms"), "{}", play.state());
    play.answer("c:3", 64, 6, 1);
    // When it fails the first one has its turn again, with samples of its own.
    play.fail("c:3", 64, silence());
    play.answer("a:1", 0, 300, 90);
    assert!(play.state().starts_with("a:1, offset +300.000 ms"), "{}", play.state());
    play.answer("a:1", 64, 300, 90);
}

#[test]
fn a_round_in_vain_is_tried_again_soon_then_more_seldom() {
    let mut play = Play::of(&["a:1", "b:2"]);
    for wait in [0, 16, 32, 64, 64, 64] {
        play.fail("a:1", wait, silence());
        play.fail("b:2", 0, silence());
    }
    play.answer("a:1", 64, 1, 1);
    play.fail("a:1", 64, silence());
    play.fail("b:2", 0, silence());
    play.fail("a:1", 16, silence());
}

#[test]
fn what_was_known_holds_for_an_hour_after_the_last_answer() {
    let mut play = Play::of(&["a:1"]);
    play.answer("a:1", 0, 700, 1);
    let mut waited = 0;
    while play.correction() == 700 {
        let (question, wait) = play.question();
        waited += wait.as_secs();
        assert!(waited < 4000, "it holds for ever");
        play.sync.take(&question, Err(silence()), play.now);
    }
    assert!(waited >= HOLDOVER.as_secs(), "given up after {waited} s");
    assert_eq!(play.correction(), 0);
    assert_eq!(play.state(), "not synchronised, the system clock serves: a:1 does not answer");
    play.answer("a:1", 64, 700, 1);
    assert_eq!(play.correction(), 700);
}

#[test]
fn rate_doubles_the_time_between_questions_to_that_server_alone() {
    let rate = || SntpError::Kiss(KissCode::RATE);
    let mut play = Play::of(&["a:1"]);
    for wait in [0, 128, 256, 512, 1024, 1024] {
        play.fail("a:1", wait, rate());
    }
    assert!(play.state().ends_with("a:1 refuses, with the code RATE"), "{}", play.state());
    play.answer("a:1", 1024, 1, 1);
    // It is asked as seldom from now on.
    play.answer("a:1", 1024, 1, 1);

    let mut play = Play::of(&["a:1", "b:2"]);
    play.fail("a:1", 0, rate());
    play.answer("b:2", 0, 1, 1);
    play.answer("b:2", 64, 1, 1);
    play.fail("b:2", 64, silence());
    // 128 s are over: a is asked again, and at once.
    play.answer("a:1", 0, 1, 1);
    play.answer("a:1", 128, 1, 1);
    play.fail("a:1", 128, rate());
    play.answer("b:2", 0, 1, 1);
}

#[test]
fn deny_and_rstr_drop_a_server_for_good() {
    let mut play = Play::of(&["a:1", "b:2", "c:3"]);
    play.fail("a:1", 0, SntpError::Kiss(KissCode::DENY));
    play.fail("b:2", 0, SntpError::Kiss(KissCode::RSTR));
    play.fail("c:3", 0, silence());
    play.fail("c:3", 16, silence());
    play.answer("c:3", 32, 1, 1);
    play.fail("c:3", 64, SntpError::Kiss(KissCode::DENY));
    // Nobody is left; what was known holds for its hour all the same.
    assert!(matches!(play.next(), Next::Wait(_)));
    assert_eq!(play.correction(), 1);
    play.now += HOLDOVER;
    assert_eq!(play.next(), Next::Never);
    assert_eq!(play.correction(), 0);
    assert!(play.state().ends_with("c:3 refuses, with the code DENY"), "{}", play.state());
}

#[test]
fn other_kiss_codes_are_failures_like_others() {
    let mut play = Play::of(&["a:1"]);
    play.fail("a:1", 0, SntpError::Kiss(KissCode(*b"INIT")));
    play.answer("a:1", 16, 1, 1);
}

#[test]
fn when_the_system_clock_was_set_earlier_answers_no_longer_count() {
    let mut play = Play::of(&["a:1", "b:2"]);
    play.answer("a:1", 0, 60_000, 1);
    play.answer("a:1", 64, 60_000, 50);
    assert_eq!(play.correction(), 60_000);
    // Somebody sets it right. The best sample of before would add a minute to it.
    play.set_by = 60;
    play.answer("a:1", 64, 5, 90);
    assert_eq!(play.correction(), 5);
    // A small difference of the two clocks is none.
    play.answer("a:1", 64, 7, 90);
    play.answer("a:1", 64, 9, 1);
    assert_eq!(play.correction(), 9);
}

#[test]
fn the_next_message_of_a_room_is_never_stamped_before_the_last() {
    let mut latest = 0;
    let stamps = [1000, 1005, 990, 990, 1006].map(|corrected| {
        latest = not_before(latest, corrected);
        latest
    });
    assert_eq!(stamps, [1000, 1005, 1005, 1005, 1006]);
}
