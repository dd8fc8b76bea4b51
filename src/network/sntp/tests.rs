#![expect(clippy::disallowed_methods, reason = "a server of time reads the clock")]

use crossbeam_channel::{Receiver, unbounded};

use super::*;
use crate::threads::Threads;

/// For what should come: generous.
const LONG: Duration = Duration::from_secs(20);
/// For what should not come.
const SHORT: Duration = Duration::from_millis(100);

/// A time server on the loopback that does to each question what a test says. Ends when it is dropped.
struct FakeServer {
    address: String,
    threads: Threads,
    questions: Receiver<u64>,
}

impl FakeServer {
    /// `reply` is handed the nonces of all questions so far, and returns the packets to answer the last one with.
    fn start(mut reply: impl FnMut(&[u64]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let threads = Threads::new("fake");
        let (asked, questions) = unbounded();
        let ending = threads.clone();
        let body = move || {
            let mut nonces = Vec::new();
            let mut buffer = [0; 100];
            while !ending.is_stopped() {
                let Ok((count, from)) = socket.recv_from(&mut buffer) else { continue };
                assert_eq!(count, PACKET_BYTES);
                nonces.push(u64::from_be_bytes(buffer[40..48].try_into().unwrap()));
                for packet in reply(&nonces) {
                    socket.send_to(&packet, from).unwrap();
                }
                let _ = asked.send(nonces[nonces.len() - 1]);
            }
        };
        threads.spawn("time-server", body).unwrap();
        Self { address, threads, questions }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.threads.stop();
        let ended = self.threads.join(LONG);
        if !std::thread::panicking() {
            assert!(ended && self.threads.panics().is_empty());
        }
    }
}

/// A good answer to the question `nonce` of a server that is `ahead` of this machine's clock.
fn good(nonce: u64, ahead: Duration) -> Vec<u8> {
    let now = NtpTimestamp::of(SystemTime::now()).plus(ahead).0.to_be_bytes();
    let mut packet = vec![0; PACKET_BYTES];
    packet[0] = 4 << 3 | 4;
    packet[1] = 3;
    packet[24..32].copy_from_slice(&nonce.to_be_bytes());
    packet[32..40].copy_from_slice(&now);
    packet[40..48].copy_from_slice(&now);
    packet
}

/// The answer of a server that does not serve.
fn kiss(nonce: u64, code: [u8; 4]) -> Vec<u8> {
    let mut packet = good(nonce, Duration::ZERO);
    packet[1] = 0;
    packet[12..16].copy_from_slice(&code);
    packet
}

fn last(nonces: &[u64]) -> u64 {
    nonces[nonces.len() - 1]
}

#[test]
fn a_server_tells_how_far_the_system_clock_is_off() {
    for ahead_s in [0, 5, 86_400] {
        let ahead = Duration::from_secs(ahead_s);
        let server = FakeServer::start(move |nonces| vec![good(last(nonces), ahead)]);
        let exchange = query(&server.address, 7, LONG).unwrap();
        assert_eq!(server.questions.recv_timeout(LONG), Ok(7));
        // Wrong by half the delay at most, and a microsecond of rounding; the clock may be slewed meanwhile.
        let error_ns = exchange.offset_ns - ahead.as_nanos() as i64;
        assert!(error_ns.abs() <= exchange.delay_ns / 2 + 1_000_000, "{exchange:?}");
    }
}

#[test]
fn a_liar_who_does_not_know_the_question_is_not_believed() {
    let day = Duration::from_secs(86_400);
    let server = FakeServer::start(move |nonces| {
        let nonce = last(nonces);
        vec![
            good(nonce ^ 1, day),
            good(0, day),
            kiss(nonce ^ 1, *b"DENY"),
            b"hello".to_vec(),
            good(nonce, Duration::ZERO),
        ]
    });
    let exchange = query(&server.address, 7, LONG).unwrap();
    assert!(exchange.offset_ns.abs() <= exchange.delay_ns / 2 + 1_000_000, "{exchange:?}");
}

#[test]
fn a_server_that_only_lies_has_not_answered() {
    let server = FakeServer::start(|nonces| vec![good(!last(nonces), Duration::ZERO); 2]);
    let error = query(&server.address, 7, SHORT).unwrap_err();
    // On a busy machine a lie can come too late to be counted.
    assert!(matches!(error, SntpError::NoAnswer { strays: 0..=2 }), "{error}");
    let expected = "does not answer, but sends what was not asked for (2 times)";
    assert_eq!(SntpError::NoAnswer { strays: 2 }.to_string(), expected);
}

#[test]
fn a_server_that_stalls_is_waited_for_no_longer_than_the_limit() {
    let server = FakeServer::start(|_| vec![]);
    let started = Instant::now();
    let error = query(&server.address, 7, SHORT).unwrap_err();
    assert_eq!(error.to_string(), "does not answer");
    assert!(started.elapsed() >= SHORT);
    assert_eq!(server.questions.recv_timeout(LONG), Ok(7), "it was asked");
}

#[test]
fn a_late_answer_to_an_earlier_question_is_not_taken() {
    let hour = Duration::from_secs(3600);
    // It keeps each answer until the next question, and sends it to where that came from.
    let server = FakeServer::start(move |nonces| match nonces {
        [.., earlier, _] => vec![good(*earlier, hour)],
        _ => vec![],
    });
    for nonce in [7, 8, 9] {
        let error = query(&server.address, nonce, SHORT).unwrap_err();
        assert!(matches!(error, SntpError::NoAnswer { .. }), "{error}");
    }
    // The same with the right answer behind it: this one counts.
    let server = FakeServer::start(move |nonces| match nonces {
        [.., earlier, now] => vec![good(*earlier, hour), good(*now, Duration::ZERO)],
        _ => vec![],
    });
    assert!(query(&server.address, 7, SHORT).is_err());
    let exchange = query(&server.address, 8, LONG).unwrap();
    assert!(exchange.offset_ns.abs() <= exchange.delay_ns / 2 + 1_000_000, "{exchange:?}");
}

#[test]
fn a_server_that_does_not_serve_says_why() {
    for (code, reason) in [
        (*b"RATE", "refuses, with the code RATE"),
        (*b"DENY", "refuses, with the code DENY"),
        ([0; 4], "is not synchronised itself"),
    ] {
        let server = FakeServer::start(move |nonces| vec![kiss(last(nonces), code)]);
        assert_eq!(query(&server.address, 7, LONG).unwrap_err().to_string(), reason);
    }
    let server = FakeServer::start(|nonces| {
        let mut unsynchronised = good(last(nonces), Duration::ZERO);
        unsynchronised[0] |= 3 << 6;
        vec![unsynchronised]
    });
    let error = query(&server.address, 7, LONG).unwrap_err();
    assert!(matches!(error, SntpError::Unsynchronised), "{error}");
}

#[test]
fn nobody_there_is_told_at_once() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = query(&free, 7, LONG).unwrap_err();
    assert!(error.to_string().starts_with("cannot be reached: "), "{error}");
    for nowhere in ["", "127.0.0.1", "127.0.0.1:x"] {
        assert!(matches!(query(nowhere, 7, LONG), Err(SntpError::Unreachable(_))), "{nowhere}");
    }
}
