//! The 48 bytes that a client and a time server exchange, and what four timestamps say.
//!
//! ```text
//!    server  ──────── T2 ── T3 ────────▶     offset = ((T2 − T1) + (T3 − T4)) / 2
//!                    ↗        ↘              delay  = (T4 − T1) − (T3 − T2)
//!    client  ── T1 ────────────── T4 ──▶
//! ```
//!
//! An NTP timestamp counts seconds since 1900 in 32 bits and their fractions in 32 more. It starts at 0 again in
//! 2036. That needs no case of its own: the difference of two timestamps, taken as a signed number, is right whenever
//! their times are less than 68 years apart, on either side of 2036.
//!
//! Source: RFC 5905, sections 6 to 8 (formats, offset and delay) and 14 (SNTP); RFC 4330.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::SntpError;

/// Length of a packet without extensions, in bytes.
pub const PACKET_BYTES: usize = 48;

/// From 1900 to 1970, in seconds.
const UNIX_EPOCH_S: u64 = 2_208_988_800;

/// An answer whose time may be further than this from the truth is of no use: MAXDIST of RFC 5905.
const ROOT_DISTANCE_MAX_NS: i64 = 1_000_000_000;

/// How far below zero a delay may be, for the grain of two clocks.
const GRAIN_NS: i64 = 1_000_000;

/// A time as NTP writes it: seconds since 1900, modulo 2^32, and 32 bits of their fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtpTimestamp(pub u64);

impl NtpTimestamp {
    /// The timestamp of a time on the system clock; one before 1970 becomes 1970.
    pub fn of(time: SystemTime) -> Self {
        let unix = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let fraction = (u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000;
        // The shift drops the era.
        Self((unix.as_secs().wrapping_add(UNIX_EPOCH_S) << 32) | fraction)
    }

    /// How much later than `earlier` this is, in nanoseconds; negative when it is earlier. Right when the two are
    /// less than 68 years apart.
    pub fn since(self, earlier: Self) -> i64 {
        let fractions = i128::from(self.0.wrapping_sub(earlier.0).cast_signed());
        // At most 2^31 seconds: that fits.
        ((fractions * 1_000_000_000) >> 32) as i64
    }

    /// This and `span` more.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let fractions = (span.as_nanos() << 32) / 1_000_000_000;
        Self(self.0.wrapping_add(fractions as u64))
    }
}

/// Why a server does not serve, in four letters: the reference id of an answer with stratum 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KissCode(pub [u8; 4]);

impl KissCode {
    /// The client asks too often.
    pub const RATE: Self = Self(*b"RATE");
    /// The client may not ask at all.
    pub const DENY: Self = Self(*b"DENY");
    /// The same, by a rule of the server.
    pub const RSTR: Self = Self(*b"RSTR");
}

impl fmt::Display for KissCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{}", byte.escape_ascii()))
    }
}

/// The question. All fields are empty but the version (4), the mode (3, client) and, as the transmit timestamp,
/// `nonce`: a random number instead of the time. The server sends it back, and nobody else can guess it.
pub(super) fn question(nonce: u64) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    packet[0] = 4 << 3 | 3;
    packet[40..].copy_from_slice(&nonce.to_be_bytes());
    packet
}

/// What a checked answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When the question came: T2.
    pub receive: NtpTimestamp,
    /// When the answer went: T3.
    pub transmit: NtpTimestamp,
    /// How far the server itself may be from the truth, in nanoseconds: half its way to the reference clock and back,
    /// and the error on that way.
    pub root_distance_ns: i64,
}

/// Reads the answer to the question `nonce`. `None` when it answers another question, or none: whoever sent it, the
/// right answer may still come. Everything else that is wrong is the server's own word.
pub(super) fn answer(packet: &[u8], nonce: u64) -> Option<Result<Answer, SntpError>> {
    let packet = packet.first_chunk::<PACKET_BYTES>()?;
    let (leap, version, mode) = (packet[0] >> 6, packet[0] >> 3 & 7, packet[0] & 7);
    let is_answer = mode == 4 && (1..=4).contains(&version);
    if !is_answer || number(packet, 24) != nonce {
        return None;
    }
    Some(check(packet, leap))
}

fn check(packet: &[u8; PACKET_BYTES], leap: u8) -> Result<Answer, SntpError> {
    let stratum = packet[1];
    let code = [packet[12], packet[13], packet[14], packet[15]];
    if stratum == 0 && code.iter().all(u8::is_ascii_uppercase) {
        return Err(SntpError::Kiss(KissCode(code)));
    }
    if leap == 3 || stratum == 0 || stratum > 15 {
        return Err(SntpError::Unsynchronised);
    }
    let (receive, transmit) = (number(packet, 32), number(packet, 40));
    if receive == 0 || transmit == 0 {
        return Err(SntpError::Absurd("a timestamp is zero"));
    }
    let root_distance_ns = short_ns(packet, 4) / 2 + short_ns(packet, 8);
    if root_distance_ns > ROOT_DISTANCE_MAX_NS {
        return Err(SntpError::Absurd("by its own word it may be wrong by more than a second"));
    }
    let (receive, transmit) = (NtpTimestamp(receive), NtpTimestamp(transmit));
    if transmit.since(receive) < 0 {
        return Err(SntpError::Absurd("the answer was sent before the question came"));
    }
    Ok(Answer { receive, transmit, root_distance_ns })
}

/// The eight bytes from `at` on.
fn number(packet: &[u8; PACKET_BYTES], at: usize) -> u64 {
    packet[at..at + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The four bytes from `at` on, a time of 16 bits of seconds and 16 of their fraction, in nanoseconds.
fn short_ns(packet: &[u8; PACKET_BYTES], at: usize) -> i64 {
    let short = (number(packet, at) >> 32).cast_signed();
    (short * 1_000_000_000) >> 16
}

/// A question that was answered: what it says about the system clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What to add to the system clock, in nanoseconds.
    pub offset_ns: i64,
    /// The time on the way, there and back, in nanoseconds. The offset is wrong by no more than half of it and the
    /// server's own error.
    pub delay_ns: i64,
    /// When the answer came: T4, on the system clock.
    pub system: NtpTimestamp,
    /// The same moment for timers.
    pub at: Instant,
}

impl Exchange {
    /// Calculates both from the answer and the times at which the question went (`t1`) and the answer came (`t4`, and
    /// `at`).
    pub fn new(
        answer: Answer,
        t1: NtpTimestamp,
        t4: NtpTimestamp,
        at: Instant,
    ) -> Result<Self, SntpError> {
        let (t2, t3) = (answer.receive, answer.transmit);
        // Each half is less than 2^61 ns: the sum fits.
        let offset_ns = i64::midpoint(t2.since(t1), t3.since(t4));
        let delay_ns = t4.since(t1) - t3.since(t2);
        if delay_ns < -GRAIN_NS {
            return Err(SntpError::Absurd("it says that it took longer than the whole exchange"));
        }
        let delay_ns = delay_ns.max(0);
        if delay_ns / 2 + answer.root_distance_ns > ROOT_DISTANCE_MAX_NS {
            return Err(SntpError::Absurd("the way to it takes too long"));
        }
        Ok(Self { offset_ns, delay_ns, system: t4, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const NONCE: u64 = 0x0123_4567_89ab_cdef;
    const SECOND: u64 = 1 << 32;
    const MS: i64 = 1_000_000;

    /// A good answer to `NONCE`: stratum 2, received at 1000 s and sent 1 s later.
    fn good() -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        packet[0] = 4 << 3 | 4;
        packet[1] = 2;
        packet[24..32].copy_from_slice(&NONCE.to_be_bytes());
        packet[32..40].copy_from_slice(&(1000 * SECOND).to_be_bytes());
        packet[40..48].copy_from_slice(&(1001 * SECOND).to_be_bytes());
        packet
    }

    /// `good` with `bytes` from `at` on.
    fn with(at: usize, bytes: &[u8]) -> [u8; PACKET_BYTES] {
        let mut packet = good();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    }

    #[test]
    fn a_question_says_version_4_and_client_and_hides_the_time_behind_the_nonce() {
        let question = question(NONCE);
        assert_eq!(question[0], 0x23);
        assert!(question[1..40].iter().all(|byte| *byte == 0));
        assert_eq!(question[40..], NONCE.to_be_bytes());
    }

    #[test]
    fn what_does_not_answer_this_question_is_passed_over() {
        for (name, packet) in [
            ("too short", good()[..47].to_vec()),
            ("empty", vec![]),
            ("another origin", with(24, &[0; 8]).to_vec()),
            ("the question itself", question(NONCE).to_vec()),
            ("mode client", with(0, &[4 << 3 | 3]).to_vec()),
            ("mode broadcast", with(0, &[4 << 3 | 5]).to_vec()),
            ("version 0", with(0, &[4]).to_vec()),
            ("version 5", with(0, &[5 << 3 | 4]).to_vec()),
            // A kiss of death that anybody could have sent.
            ("kiss without the origin", {
                let mut packet = with(1, &[0]);
                packet[12..16].copy_from_slice(b"DENY");
                packet[24..32].copy_from_slice(&[0; 8]);
                packet.to_vec()
            }),
        ] {
            assert!(answer(&packet, NONCE).is_none(), "{name}");
        }
    }

    #[test]
    fn a_bad_answer_is_refused_with_its_reason() {
        let kiss = |code: &[u8]| {
            let mut packet = with(1, &[0]);
            packet[12..16].copy_from_slice(code);
            packet
        };
        for (packet, reason) in [
            (kiss(b"RATE"), "refuses, with the code RATE"),
            (kiss(b"DENY"), "refuses, with the code DENY"),
            (kiss(b"INIT"), "refuses, with the code INIT"),
            (kiss(&[0; 4]), "is not synchronised itself"),
            (kiss(&[127, 0, 0, 1]), "is not synchronised itself"),
            (with(0, &[3 << 6 | 4 << 3 | 4]), "is not synchronised itself"),
            (with(1, &[16]), "is not synchronised itself"),
            (with(32, &[0; 8]), "a timestamp is zero"),
            (with(40, &[0; 8]), "a timestamp is zero"),
            (with(4, &[0, 3, 0, 0]), "wrong by more than a second"),
            (with(8, &[0, 1, 0, 1]), "wrong by more than a second"),
            (with(40, &(999 * SECOND).to_be_bytes()), "before the question came"),
        ] {
            let error = answer(&packet, NONCE).unwrap().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}, expected {reason}");
        }
    }

    #[test]
    fn a_good_answer_is_taken_whatever_follows_it() {
        let mut long = with(8, &[0, 0, 0x80, 0]).to_vec();
        long.extend([7; 20]);
        let answer = answer(&long, NONCE).unwrap().unwrap();
        assert_eq!(answer.receive, NtpTimestamp(1000 * SECOND));
        assert_eq!(answer.transmit, NtpTimestamp(1001 * SECOND));
        assert_eq!(answer.root_distance_ns, 500 * MS);
    }

    /// T1 to T4 in milliseconds since an NTP second `base`; offset and delay in milliseconds.
    #[test]
    fn offset_and_delay_follow_from_four_timestamps() {
        let exchange = |base: u64, times: [u64; 4], root_distance_ns| {
            let [t1, t2, t3, t4] =
                times.map(|ms| NtpTimestamp(base << 32).plus(Duration::from_millis(ms)));
            let answer = Answer { receive: t2, transmit: t3, root_distance_ns };
            Exchange::new(answer, t1, t4, start())
        };
        // Far from the end of an era, just before it, and across it.
        for base in [1000, u64::from(u32::MAX), u64::from(u32::MAX) - 2, 4_000_000_000] {
            for (times, offset, delay) in [
                ([0, 0, 0, 0], 0, 0),
                ([0, 50, 60, 110], 0, 100),
                ([0, 5050, 5060, 110], 5000, 100),
                ([5000, 50, 60, 5110], -5000, 100),
                // All of the delay on one way: wrong by half of it, as promised.
                ([0, 100, 100, 100], 50, 100),
                // The grain of two clocks.
                ([0, 10, 11, 0], 10, 0),
            ] {
                let found = exchange(base, times, 0).unwrap();
                assert!((found.offset_ns - offset * MS).abs() <= MS / 2 + 5, "{times:?} {found:?}");
                assert!((found.delay_ns - delay * MS).abs() <= 5, "{times:?} {found:?}");
            }
        }
        for (times, root_distance_ns, reason) in [
            ([0, 0, 100, 50], 0, "longer than the whole exchange"),
            ([0, 1000, 1000, 2100], 0, "takes too long"),
            ([0, 100, 100, 200], 950 * MS, "takes too long"),
        ] {
            let error = exchange(1000, times, root_distance_ns).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn the_era_that_begins_in_2036_is_told_by_the_difference() {
        let at = |unix_s: u64| NtpTimestamp::of(UNIX_EPOCH + Duration::from_secs(unix_s));
        let rollover = (1 << 32) - UNIX_EPOCH_S;
        assert_eq!(at(0).0 >> 32, UNIX_EPOCH_S);
        assert_eq!(at(rollover - 1).0 >> 32, u64::from(u32::MAX));
        assert_eq!(at(rollover).0, 0, "the second in which NTP counts from 0 again");
        assert_eq!(at(rollover + 5).since(at(rollover - 5)), 10_000 * MS);
        assert_eq!(at(rollover - 5).since(at(rollover + 5)), -10_000 * MS);
        // A machine without a battery wakes in 1970.
        let year_2030 = 1_893_456_000;
        assert_eq!(at(year_2030).since(at(0)) / 1_000_000_000, 1_893_456_000);
        assert_eq!(at(0).plus(Duration::from_millis(1500)).since(at(1)), 500 * MS);
    }

    #[test]
    fn a_kiss_code_is_printed_whatever_it_holds() {
        assert_eq!(KissCode::RATE.to_string(), "RATE");
        assert_eq!(KissCode([7, b'A', 0xff, b'"']).to_string(), "\\x07A\\xff\\\"");
    }
}
