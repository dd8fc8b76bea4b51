//! Both ends of real connections: what is sent arrives, what breaks is told.

use std::io::Write;
use std::net::TcpListener;

use crossbeam_channel::bounded;

use super::*;
use crate::domain::MessageType;

const LONG: Duration = Duration::from_secs(30);

/// A connection and the plain socket at its other end.
fn pair(framing: Option<Framing>) -> (Arc<TCPConnection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    far.set_read_timeout(Some(LONG)).unwrap();
    far.set_nodelay(true).unwrap();
    let (near, _) = listener.accept().unwrap();
    let settings = ConnectionSettings::new("n1");
    let threads = Threads::new("n1");
    let conn = TCPConnection::new(ConnId(1), near, framing, &settings, &threads).unwrap();
    (conn.into(), far)
}

fn status() -> Message {
    Message::new(MessageType::Status, "alice")
}

fn read_exactly(mut socket: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    socket.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn answers_are_framed_like_what_came() {
    let body = status().to_frame();
    for framing in [Framing::Lines, Framing::LengthPrefixed] {
        let (conn, mut far) = pair(None);
        let mut frame = Vec::new();
        framing.put(&body, &mut frame);
        far.write_all(&frame).unwrap();
        assert_eq!(conn.receive().unwrap(), Some(status()));
        conn.send(&status());
        assert_eq!(read_exactly(&far, frame.len()), frame);
    }
}

#[test]
fn a_side_that_dials_chooses_its_framing_and_keeps_it() {
    let (conn, mut far) = pair(Some(Framing::LengthPrefixed));
    far.write_all(b"{\"type\":\"STATUS\"}\n").unwrap();
    assert_eq!(conn.receive().unwrap().unwrap().message_type, MessageType::Status);
    conn.send(&status());
    let length = status().to_frame().len();
    assert_eq!(read_exactly(&far, 4), (length as u32).to_be_bytes());
}

#[test]
fn what_fits_no_framing_is_answered_as_a_json_line() {
    let (conn, mut far) = pair(None);
    far.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let Err(ReceiveError::Request(error)) = conn.receive() else { panic!("not refused") };
    assert_eq!(error, RequestError::InvalidFraming { first_byte: b'G' });
    conn.send(&error.to_message("n1"));
    conn.close_after_flush();
    let mut line = String::new();
    far.read_to_string(&mut line).unwrap();
    let answer = Message::deserialize(line.strip_suffix('\n').unwrap()).unwrap();
    assert_eq!(answer.message_type, MessageType::Error);
}

#[test]
fn the_end_of_the_stream_is_told_from_a_frame_that_is_cut() {
    let (conn, mut far) = pair(None);
    far.write_all(b"{\"type\":\"STATUS\"}\n").unwrap();
    drop(far);
    assert!(conn.receive().unwrap().is_some());
    assert_eq!(conn.receive().unwrap(), None);

    let (conn, mut far) = pair(None);
    far.write_all(b"{\"type\":").unwrap();
    drop(far);
    let Err(ReceiveError::Io(error)) = conn.receive() else { panic!("no error") };
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_receive_that_times_out_loses_nothing() {
    let (conn, mut far) = pair(None);
    conn.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    far.write_all(b"{\"type\":").unwrap();
    let Err(ReceiveError::Io(error)) = conn.receive() else { panic!("no error") };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    conn.set_read_timeout(Some(LONG)).unwrap();
    far.write_all(b"\"STATUS\"}\n").unwrap();
    assert!(conn.receive().unwrap().is_some());
}

#[test]
fn an_error_that_does_not_close_leaves_the_next_message_readable() {
    let (conn, mut far) = pair(None);
    far.write_all(b"{\"type\":\"SHOUT\"}\n{\"type\":\"STATUS\"}\n").unwrap();
    assert!(matches!(conn.receive(), Err(ReceiveError::Request(_))));
    assert!(conn.receive().unwrap().is_some());
}

#[test]
fn two_frames_in_one_read_are_one_batch() {
    let (conn, mut far) = pair(None);
    far.write_all(b"{\"type\":\"STATUS\"}\n{\"type\":\"SHOUT\"}\n{\"type\":").unwrap();
    assert_eq!(conn.receive_batch().unwrap().len(), 2);
    far.write_all(b"\"STATUS\"}\n").unwrap();
    let batch = conn.receive_batch().unwrap();
    let msgs: Vec<_> = batch.iter().map(|frame| frame.to_message()).collect();
    assert_eq!(msgs, [Ok(Message::new(MessageType::Status, ""))]);
    drop(far);
    assert!(conn.receive_batch().unwrap().is_empty());
}

#[test]
fn recv_exact_and_receive_read_through_the_same_buffer() {
    let (conn, mut far) = pair(Some(Framing::LengthPrefixed));
    let body = status().to_frame();
    let mut frame = Vec::new();
    Framing::LengthPrefixed.put(&body, &mut frame);
    far.write_all(&frame).unwrap();
    far.write_all(&frame).unwrap();
    let prefix = conn.recv_exact(4).unwrap();
    let length = u32::from_be_bytes(prefix.try_into().unwrap()) as usize;
    assert_eq!(*conn.recv_exact(length).unwrap(), *body);
    assert_eq!(conn.receive().unwrap(), Some(status()));
    drop(far);
    assert_eq!(conn.recv_exact(1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn close_wakes_a_blocked_reader() {
    let (conn, _far) = pair(None);
    let reader = Arc::clone(&conn);
    let (woken, wakes) = bounded(1);
    let read = move || woken.send(reader.receive_batch().map_or(0, |batch| batch.len())).unwrap();
    let thread = std::thread::Builder::new().spawn(read).unwrap();
    // Until the reader has taken the decoder it does not block yet.
    while conn.decoder.lock().is_some() {
        std::thread::yield_now();
    }
    assert!(conn.receive().is_err(), "a second reader is refused rather than made to wait");
    conn.close();
    assert_eq!(wakes.recv_timeout(LONG), Ok(0));
    thread.join().unwrap();
    assert!(conn.is_closing());
}

#[test]
fn a_resume_before_the_wait_is_not_lost() {
    let (conn, _far) = pair(None);
    conn.resume();
    conn.resume();
    conn.wait_resumed();
    let waiter = Arc::clone(&conn);
    let thread = std::thread::Builder::new().spawn(move || waiter.wait_resumed()).unwrap();
    std::thread::yield_now();
    assert!(!thread.is_finished(), "two resumes before a wait are one");
    conn.resume();
    thread.join().unwrap();
}

#[test]
fn closing_resumes_a_reader_that_waits() {
    let (conn, _far) = pair(None);
    conn.close();
    conn.wait_resumed();
    let (conn, _far) = pair(None);
    conn.close_after_flush();
    conn.wait_resumed();
}
