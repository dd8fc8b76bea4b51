//! Readers that are slow, or gone: who sends never waits for them.

use std::io::Read;
use std::net::TcpListener;

use super::*;
use crate::domain::Frame;
use crate::domain::content::ErrorContent;
use crate::domain::{Message, MessageType};
use crate::network::framing::{Decoder, FRAME_BYTES_MAX};

const LONG: Duration = Duration::from_secs(30);

/// A sending half with a bound of `bytes_max`, and the socket at its other end.
fn pair(bytes_max: usize, threads: &Threads) -> (Arc<Outgoing>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, peer) = listener.accept().unwrap();
    far.set_read_timeout(Some(LONG)).unwrap();
    let outgoing = Outgoing::new(near.into(), peer, bytes_max, "n1".into(), threads.clone());
    (Arc::new(outgoing), far)
}

/// The message with the number `number`, about `bytes` long.
fn numbered(number: usize, bytes: usize) -> Frame {
    let mut msg = Message::new(MessageType::Chat, "alice").with_id(number.to_string());
    msg.content = "x".repeat(bytes).as_str().into();
    msg.to_frame()
}

/// Reads messages until the end of the stream; fails when that is in the middle of one.
fn read_all(mut socket: &TcpStream) -> Vec<Message> {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut messages = Vec::new();
    loop {
        let count = socket.read(decoder.space()).unwrap();
        if count == 0 {
            assert_eq!(decoder.buffered(), 0, "the last frame is cut");
            return messages;
        }
        decoder.filled(count);
        messages.extend(std::iter::from_fn(|| decoder.next_message()).map(Result::unwrap));
    }
}

fn ids(messages: &[Message]) -> Vec<usize> {
    messages.iter().map(|msg| msg.message_id.parse().unwrap()).collect()
}

/// Queues and flushes until the writer thread holds something. Says how many messages that took.
fn fill_until_a_writer_runs(outgoing: &Arc<Outgoing>, bytes: usize) -> usize {
    for number in 0.. {
        outgoing.queue(&numbered(number, bytes), Framing::Lines);
        outgoing.flush();
        if outgoing.state.lock().in_hand.is_some() {
            return number + 1;
        }
    }
    unreachable!()
}

#[test]
fn what_the_socket_takes_at_once_needs_no_thread() {
    let threads = Threads::new("n1");
    let (outgoing, mut far) = pair(FRAME_BYTES_MAX, &threads);
    outgoing.queue(&numbered(0, 10), Framing::Lines);
    assert!(outgoing.waiting() > 0, "queueing alone sends nothing");
    outgoing.flush();
    assert_eq!(outgoing.waiting(), 0);
    assert_eq!(threads.running(), [""; 0]);
    let mut line = vec![0; numbered(0, 10).len() + 1];
    far.read_exact(&mut line).unwrap();
    assert_eq!(line.last(), Some(&b'\n'));
}

#[test]
fn a_thousand_messages_keep_their_order_when_the_writer_thread_takes_over_midway() {
    let threads = Threads::new("n1");
    let (outgoing, far) = pair(64 * FRAME_BYTES_MAX, &threads);
    let first = fill_until_a_writer_runs(&outgoing, 20_000);
    let reader = std::thread::Builder::new().spawn(move || read_all(&far)).unwrap();
    for number in first..first + 1000 {
        outgoing.queue(&numbered(number, 20_000), Framing::Lines);
        outgoing.flush();
    }
    outgoing.close_after_flush();
    let received = reader.join().unwrap();
    assert_eq!(ids(&received), (0..first + 1000).collect::<Vec<_>>());
    assert!(threads.join(LONG));
}

#[test]
fn a_writer_that_is_done_makes_room_for_direct_sends_and_for_the_next_writer() {
    let threads = Threads::new("n1");
    let (outgoing, far) = pair(64 * FRAME_BYTES_MAX, &threads);
    let reader = std::thread::Builder::new().spawn(move || read_all(&far)).unwrap();
    let mut sent = 0;
    for _ in 0..20 {
        for _ in 0..50 {
            outgoing.queue(&numbered(sent, 100_000), Framing::LengthPrefixed);
            sent += 1;
        }
        outgoing.flush();
        assert!(threads.join(LONG), "the writer ends when nothing waits");
        assert_eq!(outgoing.waiting(), 0);
    }
    outgoing.close_after_flush();
    assert_eq!(ids(&reader.join().unwrap()), (0..sent).collect::<Vec<_>>());
    assert!(threads.join(LONG));
    assert_eq!(outgoing.state.lock().queue.capacities().0, 0, "idle buffers are given back");
}

#[test]
fn a_slow_client_gets_whole_frames_then_slow_consumer_then_the_end() {
    // Bounds above and below what the writer thread holds, so that the cut falls at different places.
    for bytes_max in [1000, 150_000, FRAME_BYTES_MAX] {
        for frame_bytes in [100, 70_000] {
            let threads = Threads::new("n1");
            let (outgoing, far) = pair(bytes_max, &threads);
            let mut queued = 0;
            while !outgoing.is_closing() {
                outgoing.queue(&numbered(queued, frame_bytes), Framing::LengthPrefixed);
                outgoing.flush();
                queued += 1;
            }
            outgoing.queue(&numbered(queued, 0), Framing::LengthPrefixed);
            let mut received = read_all(&far);
            let error: ErrorContent = received.pop().unwrap().content.parse().unwrap();
            assert_eq!(error.code, "SLOW_CONSUMER");
            assert!(error.reason.contains(&bytes_max.to_string()), "{}", error.reason);
            assert_eq!(ids(&received), (0..received.len()).collect::<Vec<_>>());
            assert!(received.len() < queued, "something was dropped");
            drop(far);
            assert!(threads.join(LONG));
        }
    }
}

#[test]
fn a_burst_that_the_socket_takes_is_not_taken_for_slowness() {
    let threads = Threads::new("n1");
    let (outgoing, far) = pair(10_000, &threads);
    for number in 0..20 {
        outgoing.queue(&numbered(number, 2000), Framing::Lines);
    }
    outgoing.close_after_flush();
    assert_eq!(ids(&read_all(&far)), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_slow_server_is_reset_and_its_queue_forgotten() {
    let threads = Threads::new("n1");
    let (outgoing, far) = pair(FRAME_BYTES_MAX, &threads);
    outgoing.set_bound(FRAME_BYTES_MAX, Overflow::Reset);
    let mut number = 0;
    while !outgoing.is_closing() {
        outgoing.queue(&numbered(number, 10_000), Framing::Lines);
        outgoing.flush();
        number += 1;
    }
    assert!(threads.join(LONG), "the blocked writer wakes up");
    assert_eq!(outgoing.waiting(), 0);
    drop(far);
}

#[test]
fn a_connection_that_is_closed_with_nothing_waiting_ends_after_its_last_frame() {
    let threads = Threads::new("n1");
    let (outgoing, far) = pair(FRAME_BYTES_MAX, &threads);
    outgoing.queue(&numbered(0, 10), Framing::Lines);
    outgoing.close_after_flush();
    outgoing.queue(&numbered(1, 10), Framing::Lines);
    outgoing.flush();
    assert_eq!(ids(&read_all(&far)), [0]);
    outgoing.reader_ended();
    outgoing.wait_closed();
    assert!(threads.join(LONG));
}

#[test]
fn a_client_that_never_reads_holds_its_closing_up_for_a_limited_time_only() {
    let threads = Threads::new("n1");
    let (outgoing, far) = pair(64 * FRAME_BYTES_MAX, &threads);
    fill_until_a_writer_runs(&outgoing, 20_000);
    outgoing.close_after_flush();
    assert!(threads.join(LONG), "the writer gives up");
    outgoing.wait_closed();
    drop(far);
}

#[test]
fn what_is_queued_while_another_thread_sends_follows_and_is_cut_like_the_rest() {
    for frame_bytes in [100, 70_000] {
        let threads = Threads::new("n1");
        let (outgoing, far) = pair(FRAME_BYTES_MAX, &threads);
        let is_done = std::sync::atomic::AtomicBool::new(false);
        let received = std::thread::scope(|scope| {
            for _ in 0..2 {
                let body = || {
                    while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                        outgoing.flush();
                    }
                };
                std::thread::Builder::new().spawn_scoped(scope, body).unwrap();
            }
            let mut queued = 0;
            while !outgoing.is_closing() {
                outgoing.queue(&numbered(queued, frame_bytes), Framing::Lines);
                queued += 1;
            }
            let received = read_all(&far);
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
            received
        });
        let (error, received) = received.split_last().unwrap();
        assert_eq!(error.message_type, MessageType::Error);
        assert_eq!(ids(received), (0..received.len()).collect::<Vec<_>>());
        drop(far);
        assert!(threads.join(LONG));
    }
}
