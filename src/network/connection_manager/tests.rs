use std::io::{Read, Write};

use crossbeam_channel::{Receiver, unbounded};

use std::ops::ControlFlow;

use super::*;
use crate::domain::MessageType;
use crate::network::Received;
use crate::network::bind_listener;

const LONG: Duration = Duration::from_secs(30);

/// A manager that listens, as a server does without its accept loop.
struct Server {
    manager: Arc<ConnectionManager>,
    listener: std::net::TcpListener,
}

impl Server {
    fn new(settings: ConnectionSettings) -> Self {
        let manager = ConnectionManager::new(settings, Threads::new("n1")).into();
        Self { manager, listener: bind_listener("127.0.0.1:0").unwrap() }
    }

    /// A new connection, and the plain socket at its other end.
    fn accept(&self) -> (Arc<TCPConnection>, TcpStream) {
        let far = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        far.set_read_timeout(Some(LONG)).unwrap();
        let (near, _) = self.listener.accept().unwrap();
        (self.manager.wrap_socket(near).unwrap(), far)
    }

    /// Reads `conn` on a thread of its own; what it tells comes out of the channel.
    fn listen(&self, conn: &Arc<TCPConnection>) -> Receiver<Received> {
        let (tell, told) = unbounded();
        let callback = move |received| {
            // Not every test keeps the other end.
            let _ = tell.send(received);
            ControlFlow::Continue(())
        };
        self.manager.listen_to_connection(conn, callback).unwrap();
        told
    }

    fn stop(&self) {
        self.manager.threads.stop();
        self.manager.close_all();
        assert!(self.manager.threads.join(LONG), "{:?}", self.manager.threads.running());
        assert!(self.manager.threads.panics().is_empty());
    }
}

fn server() -> Server {
    Server::new(ConnectionSettings::new("n1"))
}

fn status(message_id: &str) -> Message {
    Message::new(MessageType::Status, "n1").with_id(message_id)
}

/// The ids of the messages that come until the other side closes.
fn ids_until_the_end(mut socket: &TcpStream) -> Vec<String> {
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text.lines().map(|line| Message::deserialize(line).unwrap().message_id).collect()
}

fn reason(told: &Receiver<Received>) -> String {
    match told.recv_timeout(LONG).unwrap() {
        Received::Closed { reason } => reason,
        Received::Batch(batch) => panic!("not closed: {batch:?}"),
    }
}

#[test]
fn two_frames_in_one_read_are_one_batch_and_the_end_comes_last() {
    let server = server();
    let (conn, mut far) = server.accept();
    let told = server.listen(&conn);
    far.write_all(b"{\"type\":\"STATUS\"}\n{\"type\":\"SHOUT\"}\n").unwrap();
    let Received::Batch(batch) = told.recv_timeout(LONG).unwrap() else { panic!("closed") };
    assert_eq!(batch.len(), 2);
    let is_msg: Vec<bool> = batch.iter().map(|frame| frame.to_message().is_ok()).collect();
    assert_eq!(is_msg, [true, false]);
    drop(far);
    assert_eq!(reason(&told), "closed by the other side");
    assert!(told.recv_timeout(LONG).is_err(), "the callback is dropped");
    server.stop();
    assert_eq!(server.manager.count(), 0);
}

#[test]
fn managers_talk_to_each_other_by_node_id() {
    let (a, b) = (server(), server());
    let address = b.listener.local_addr().unwrap();
    let dialled = a.manager.connect_to("127.0.0.1", address.port()).unwrap();
    let (socket, _) = b.listener.accept().unwrap();
    let accepted = b.manager.wrap_socket(socket).unwrap();
    let told = b.listen(&accepted);

    a.manager.send_to_node(&"n2".into(), &status("lost"));
    a.manager.bind_peer(dialled.id(), &"n2".into());
    a.manager.send_to_node(&"n2".into(), &status("1"));
    a.manager.broadcast_to_all(&status("2"));
    a.manager.send_to_conn(dialled.id(), &status("3").to_frame());
    assert!(told.is_empty(), "sending only queues");
    a.manager.flush();
    let Received::Batch(batch) = told.recv_timeout(LONG).unwrap() else { panic!("closed") };
    let msgs: Vec<_> = batch.iter().map(|frame| frame.to_message()).collect();
    assert_eq!(msgs, ["1", "2", "3"].map(|id| Ok(status(id))));
    a.stop();
    b.stop();
}

#[test]
fn a_second_connection_takes_the_name_over_and_the_first_is_closed_after_its_last_frame() {
    let server = server();
    let (first, far_first) = server.accept();
    let (second, far_second) = server.accept();
    server.listen(&first);
    server.listen(&second);
    let manager = &server.manager;
    manager.bind_client(first.id(), "s");
    manager.send_to_conn(manager.client("s").unwrap().id(), &status("1").to_frame());
    manager.bind_client(second.id(), "s");
    manager.send_to_conn(first.id(), &status("lost").to_frame());
    manager.send_to_conn(manager.client("s").unwrap().id(), &status("2").to_frame());
    manager.close(second.id());
    assert!(manager.client("s").is_none(), "a closed connection has no name");
    manager.flush();
    assert_eq!(ids_until_the_end(&far_first), ["1"]);
    assert_eq!(ids_until_the_end(&far_second), ["2"]);
    server.stop();
}

#[test]
fn the_end_of_a_replaced_connection_leaves_its_successor_bound() {
    let server = server();
    let (first, far_first) = server.accept();
    let (second, far_second) = server.accept();
    let manager = &server.manager;
    manager.bind_peer(first.id(), &"n2".into());
    manager.bind_peer(second.id(), &"n2".into());
    manager.forget(first.id());
    assert_eq!(manager.peer(&"n2".into()).unwrap().id(), second.id());
    manager.forget(second.id());
    assert!(manager.peer(&"n2".into()).is_none());
    manager.bind_peer(second.id(), &"n2".into());
    assert!(manager.peer(&"n2".into()).is_none(), "what is forgotten cannot be bound");
    drop((far_first, far_second));
}

#[test]
fn a_reader_that_never_reads_is_cut_off_while_another_keeps_receiving() {
    let mut settings = ConnectionSettings::new("n1");
    settings.client_queue_bytes_max = 256 * 1024;
    let server = Server::new(settings);
    let (slow, far_slow) = server.accept();
    let (quick, far_quick) = server.accept();
    server.listen(&slow);
    server.listen(&quick);
    let reader = std::thread::Builder::new().spawn(move || ids_until_the_end(&far_quick)).unwrap();
    let mut sent = 0;
    while !slow.is_closing() {
        // The quick one is given the time that it needs, so that the test does not depend on the machine.
        while quick.waiting() > 100_000 {
            std::thread::yield_now();
        }
        let mut msg = status(&sent.to_string());
        msg.content = "x".repeat(10_000).as_str().into();
        let frame = msg.to_frame();
        server.manager.send_to_conn(slow.id(), &frame);
        server.manager.send_to_conn(quick.id(), &frame);
        server.manager.flush();
        sent += 1;
    }
    server.manager.send_to_conn(quick.id(), &status("last").to_frame());
    server.manager.close(quick.id());
    server.manager.flush();
    let received = reader.join().unwrap();
    assert_eq!(received.len(), sent + 1, "the quick one got everything");

    let mut text = String::new();
    (&far_slow).read_to_string(&mut text).unwrap();
    let last = Message::deserialize(text.lines().last().unwrap()).unwrap();
    assert_eq!(last.message_type, MessageType::Error);
    assert!(last.content.parse::<serde_json::Value>().unwrap()["code"] == "SLOW_CONSUMER");
    for (number, line) in text.lines().take(text.lines().count() - 1).enumerate() {
        assert_eq!(Message::deserialize(line).unwrap().message_id, number.to_string());
    }
    server.stop();
}

#[test]
fn an_error_that_closes_is_answered_even_to_one_who_goes_on_writing() {
    let server = server();
    let (conn, mut far) = server.accept();
    let manager = Arc::clone(&server.manager);
    let id = conn.id();
    let callback = move |received| {
        if let Received::Batch(batch) = received {
            let error = batch.closing_fault().unwrap();
            manager.send_to_conn(id, &error.to_message("n1").with_id("refused").to_frame());
            manager.flush();
        }
        ControlFlow::Continue(())
    };
    server.manager.listen_to_connection(&conn, callback).unwrap();
    far.write_all(b"nonsense\n").unwrap();
    // More than fits the buffers on the way: it must be read, or this would block for ever.
    let junk = vec![b'x'; 1 << 20];
    for _ in 0..8 {
        if far.write_all(&junk).is_err() {
            break;
        }
    }
    assert_eq!(ids_until_the_end(&far), ["refused"]);
    drop(far);
    server.stop();
}

#[test]
fn a_callback_that_breaks_off_closes_the_connection() {
    let server = server();
    let (conn, mut far) = server.accept();
    let (tell, told) = unbounded();
    let callback = move |received| {
        tell.send(received).unwrap();
        ControlFlow::Break(())
    };
    server.manager.listen_to_connection(&conn, callback).unwrap();
    far.write_all(b"{\"type\":\"STATUS\"}\n{\"type\":\"STATUS\"}\n").unwrap();
    assert_eq!(ids_until_the_end(&far), [""; 0]);
    assert!(matches!(told.recv_timeout(LONG), Ok(Received::Batch(_))));
    assert_eq!(reason(&told), "closed by this side");
    drop(far);
    server.stop();
}

#[test]
fn closing_all_wakes_every_reader_and_what_comes_later_is_refused() {
    let server = server();
    let connections: Vec<_> = (0..20).map(|_| server.accept()).collect();
    let told: Vec<_> = connections.iter().map(|(conn, _)| server.listen(conn)).collect();
    server.stop();
    for told in told {
        assert_eq!(reason(&told), "closed by this side");
    }
    let _far = TcpStream::connect(server.listener.local_addr().unwrap()).unwrap();
    let (late, _) = server.listener.accept().unwrap();
    assert_eq!(server.manager.wrap_socket(late).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(server.manager.count(), 0);
}

#[test]
fn dials_and_datagrams_are_only_remembered() {
    let server = server();
    server.manager.dial("127.0.0.1:7002");
    server.manager.send_udp(&status("u"), None);
    assert_eq!(server.manager.take_dials(), ["127.0.0.1:7002"]);
    assert_eq!(server.manager.take_datagrams(), [(status("u"), None)]);
    assert_eq!(server.manager.take_dials(), [""; 0]);
    assert_eq!(server.manager.take_datagrams(), []);
}

#[test]
fn dialling_where_nobody_listens_fails() {
    let port = bind_listener("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let manager = ConnectionManager::new(ConnectionSettings::new("n1"), Threads::new("n1"));
    assert!(manager.connect_to("127.0.0.1", port).is_err());
    assert!(manager.connect_to_address(&format!("127.0.0.1:{port}")).is_err());
    assert!(manager.connect_to_address("no port").is_err());
    assert_eq!(manager.count(), 0);
}

#[test]
fn frames_queued_by_many_threads_are_all_flushed() {
    let server = server();
    let (conn, far) = server.accept();
    server.listen(&conn);
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (manager, id) = (Arc::clone(&server.manager), conn.id());
            let body = move || {
                for _ in 0..500 {
                    manager.send_to_conn(id, &status("m").to_frame());
                    manager.flush();
                }
            };
            std::thread::Builder::new().spawn(body).unwrap()
        })
        .collect();
    for sender in senders {
        sender.join().unwrap();
    }
    // Perhaps by the helper, a moment later.
    server.manager.close(conn.id());
    server.manager.flush();
    assert_eq!(ids_until_the_end(&far).len(), 2000);
    server.stop();
}

#[test]
fn much_news_waits_for_its_flush_and_nothing_overtakes_it() {
    let server = server();
    let (busy, _far_busy) = server.accept();
    let (conn, far) = server.accept();
    let manager = &server.manager;
    for _ in 0..PROMPT_NEWS {
        manager.send_news(&[busy.id()], &status("often").to_frame());
    }
    manager.send_news(&[conn.id()], &status("1").to_frame());
    manager.flush();
    assert_eq!(busy.waiting(), 0, "a little news goes at once");
    assert!(conn.waiting() > 0, "more than that waits");
    manager.flush_news();
    assert_eq!(conn.waiting(), 0);

    for _ in 0..PROMPT_NEWS {
        manager.send_news(&[busy.id()], &status("often").to_frame());
    }
    manager.send_news(&[conn.id()], &status("2").to_frame());
    manager.send_to_conn(conn.id(), &status("3").to_frame());
    manager.flush();
    assert_eq!(conn.waiting(), 0);
    manager.close_all();
    assert_eq!(ids_until_the_end(&far), ["1", "2", "3"]);
    server.stop();
}

#[test]
fn a_connection_at_rest_is_read_on_by_another_thread_and_nothing_is_lost() {
    let server = server();
    let (conn, mut far) = server.accept();
    let (tell, told) = unbounded();
    let callback = move |received| {
        let _ = tell.send((std::thread::current().id(), received));
        ControlFlow::Continue(())
    };
    server.manager.listen_to_connection(&conn, callback).unwrap();
    let first_thread = |bytes: &[u8], far: &mut TcpStream| {
        far.write_all(bytes).unwrap();
        let (thread, received) = told.recv_timeout(LONG).unwrap();
        assert!(matches!(received, Received::Batch(batch) if batch.len() == 1));
        thread
    };
    let greeted = first_thread(b"{\"type\":\"STATUS\"}\n{\"type\":", &mut far);
    // The timeout goes with the first thread.
    while conn.socket().read_timeout().unwrap().is_some() {
        std::thread::yield_now();
    }
    let rested = first_thread(b"\"STATUS\"}\n", &mut far);
    assert_ne!(greeted, rested);
    assert_eq!(first_thread(b"{\"type\":\"STATUS\"}\n", &mut far), rested);
    drop(far);
    let (thread, received) = told.recv_timeout(LONG).unwrap();
    assert!(matches!(received, Received::Closed { .. }) && thread == rested);
    server.stop();
}
