//! What is queued leaves, whoever flushes and whenever others queue.

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::domain::Frame;
use crate::network::framing::Framing;
use crate::network::{ConnId, ConnectionSettings};

const LONG: Duration = Duration::from_secs(30);

/// A connection whose other end is a plain socket.
fn pair(threads: &Threads) -> (Arc<TCPConnection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(LONG)).unwrap();
    let (near, _) = listener.accept().unwrap();
    let settings = ConnectionSettings::new("n1");
    let conn =
        TCPConnection::new(ConnId(1), near, Some(Framing::Lines), &settings, threads).unwrap();
    (conn.into(), far)
}

fn frame(text: &str) -> Frame {
    text.as_bytes().into()
}

/// Waits until `is_so`.
fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn stop(threads: &Threads) {
    threads.stop();
    assert!(threads.join(LONG), "{:?}", threads.running());
    assert!(threads.panics().is_empty());
}

#[test]
fn a_thread_flushes_what_it_queued_and_needs_no_other() {
    let threads = Threads::new("n1");
    let flusher = Flusher::new(threads.clone());
    let (conn, _far) = pair(&threads);
    conn.queue(&frame("{}"));
    flusher.mark_all([&conn, &conn].into_iter());
    assert_eq!(flusher.lists.lock().dirty.len(), 1);
    assert!(conn.waiting() > 0);
    flusher.flush();
    assert_eq!(conn.waiting(), 0);
    assert_eq!(threads.running(), [""; 0]);
}

#[test]
fn what_is_queued_while_another_flushes_is_left_to_it_and_then_to_the_helper() {
    let threads = Threads::new("n1");
    let flusher = Flusher::new(threads.clone());
    let (conn, _far) = pair(&threads);
    for _ in 0..3 {
        // This test is the thread that flushes.
        flusher.busy.store(true, Ordering::Release);
        conn.queue(&frame("{}"));
        flusher.mark(&conn);
        flusher.flush();
        assert!(conn.waiting() > 0, "flush returned at once");
        assert!(flusher.hand_over());
        wait_until(|| conn.waiting() == 0 && !flusher.busy.load(Ordering::Acquire));
    }
    assert_eq!(threads.running(), ["n1:flusher"], "one helper serves for ever");
    stop(&threads);
}

#[test]
fn after_the_stop_signal_everyone_flushes() {
    let threads = Threads::new("n1");
    let flusher = Flusher::new(threads.clone());
    let (conn, _far) = pair(&threads);
    flusher.busy.store(true, Ordering::Release);
    conn.queue(&frame("{}"));
    flusher.mark(&conn);
    stop(&threads);
    flusher.flush();
    assert_eq!(conn.waiting(), 0);
}

#[test]
fn a_helper_that_is_woken_as_it_is_stopped_still_does_its_work() {
    for _ in 0..200 {
        let threads = Threads::new("n1");
        let flusher = Flusher::new(threads.clone());
        let (conn, _far) = pair(&threads);
        conn.queue(&frame("{}"));
        flusher.mark(&conn);
        flusher.busy.store(true, Ordering::Release);
        let stopper = threads.clone();
        let stopping = std::thread::Builder::new().spawn(move || stopper.stop()).unwrap();
        let is_handed_over = flusher.hand_over();
        stopping.join().unwrap();
        stop(&threads);
        assert!(conn.waiting() == 0 || !is_handed_over);
    }
}

#[test]
fn whatever_many_threads_queue_is_sent_without_a_later_flush() {
    const FRAMES: usize = 300;
    let threads = Threads::new("n1");
    let flusher = Flusher::new(threads.clone());
    let (conns, far): (Vec<_>, Vec<_>) = (0..8).map(|_| pair(&threads)).unzip();
    for round in 0..10 {
        std::thread::scope(|scope| {
            for sender in 0..6 {
                let (flusher, conns) = (&flusher, &conns);
                let body = move || {
                    for number in 0..FRAMES {
                        // Not all to all: connections are marked and unmarked at different times.
                        let some = conns.iter().skip(number % 3).step_by(1 + sender % 3);
                        flusher.mark_all(some.inspect(|conn| conn.queue(&frame("{}"))));
                        flusher.flush();
                    }
                };
                std::thread::Builder::new().spawn_scoped(scope, body).unwrap();
            }
        });
        wait_until(|| conns.iter().all(|conn| conn.waiting() == 0));
        wait_until(|| !flusher.busy.load(Ordering::Acquire));
        assert!(!flusher.is_dirty(), "round {round}");
    }
    let expected = |at: usize| {
        let hit = |sender: usize, number: usize| {
            at >= number % 3 && (at - number % 3).is_multiple_of(1 + sender % 3)
        };
        (0..6)
            .map(|sender| (0..FRAMES).filter(|number| hit(sender, *number)).count())
            .sum::<usize>()
    };
    for (at, (conn, mut far)) in conns.iter().zip(far).enumerate() {
        conn.close_after_flush();
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 10 * expected(at));
    }
    stop(&threads);
}
