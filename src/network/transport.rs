//! What the algorithms see of the network: the `cm` of the class diagram as a trait.
//!
//! [`ConnectionManager`](super::ConnectionManager) implements it with sockets, an [`Outbox`] remembers
//! what was sent for a unit test, the simulator delivers from a queue. Nothing here blocks, fails or calls
//! back: a message for a node that is not connected is lost, and each [`MessageType`] says what repairs
//! that. Two messages to the same node arrive in the order in which they were sent, or the later one
//! and all after it are lost with the connection.
//!
//! [`MessageType`]: crate::domain::MessageType

use std::fmt;
use std::net::SocketAddr;

use parking_lot::Mutex;

use super::frames::Frames;
use crate::domain::{Frame, Message, NodeId};
use crate::trace::Tracer;

/// Messages to servers.
pub trait Transport {
    /// Queues `msg` for the server `node_id`; lost when no connection to it stands.
    fn send_to_node(&self, node_id: &NodeId, msg: &Message);

    /// [`send_to_node`](Self::send_to_node) of a message that is serialised already.
    fn send_frame_to_node(&self, node_id: &NodeId, frame: &Frame);

    /// Queues `msg` for every connected server.
    fn broadcast_to_all(&self, msg: &Message);
}

/// Names one connection of this process; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// Everything that [`ServerNode`](crate::server::ServerNode) asks of the outside besides its log.
pub trait Network: Transport {
    /// Queues one serialised message on a connection, whoever is at its other end.
    fn send_to_conn(&self, conn: ConnId, frame: &Frame);

    /// Queues `frames`, in this order, on each of `conns`.
    fn send_to_conns(&self, conns: &[ConnId], frames: Frames) {
        for frame in frames.iter() {
            let frame = frame.into();
            for conn in conns {
                self.send_to_conn(*conn, &frame);
            }
        }
    }

    /// Queues `frame` on each of `conns`: news that can wait a moment when there is a lot of it. What is queued there later
    /// stays behind it.
    fn send_news(&self, conns: &[ConnId], frame: &Frame) {
        for conn in conns {
            self.send_to_conn(*conn, frame);
        }
    }

    /// How many bytes can be queued on a connection now so that it stays well below its bound; 0 when it has
    /// enough to send, or is gone.
    fn spare_bytes(&self, conn: ConnId) -> usize;

    /// Sends what is queued, then closes. The end is reported like any other lost connection.
    fn close(&self, conn: ConnId);

    /// Lets the reader of a connection go on after [`Flow::Wait`](crate::server::Flow::Wait).
    fn resume(&self, conn: ConnId);

    /// Makes `conn` the way to `node_id`. An earlier connection to it, if any, is closed.
    fn bind_peer(&self, conn: ConnId, node_id: &NodeId);

    /// Makes `conn` the way to the session `session`. An earlier connection of it, if any, is closed.
    fn bind_client(&self, conn: ConnId, session: &str);

    /// Dials `address` (`host:port`) in the background; success is reported as a new connection.
    fn dial(&self, address: &str);

    /// Sends `msg` to `to` over UDP, or to everyone on the discovery port when `to` is `None`.
    fn send_udp(&self, msg: &Message, to: Option<SocketAddr>);

    /// Who writes down what happens, if anybody does.
    fn trace(&self) -> Option<&Tracer> {
        None
    }
}

/// A [`Network`] that only remembers: for unit tests and plays.
#[derive(Debug, Default)]
pub struct Outbox {
    sent: Mutex<Vec<Sent>>,
}

/// One thing that an [`Outbox`] was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    /// `send_to_node`.
    ToNode(NodeId, Message),
    /// `broadcast_to_all`.
    ToAll(Message),
    /// `send_to_conn`, decoded again.
    ToConn(ConnId, Message),
    /// `close`.
    Close(ConnId),
    /// `resume`.
    Resume(ConnId),
    /// `bind_peer`.
    BindPeer(ConnId, NodeId),
    /// `bind_client`.
    BindClient(ConnId, String),
    /// `dial`.
    Dial(String),
    /// `send_udp`.
    Udp(Message, Option<SocketAddr>),
}

impl Outbox {
    /// An empty outbox.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes out what was asked for since the last call, in order.
    pub fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.sent.lock())
    }

    /// [`take`](Self::take), only the messages to servers: `None` stands for all of them.
    pub fn take_to_nodes(&self) -> Vec<(Option<NodeId>, Message)> {
        let sent = self.take();
        sent.into_iter()
            .filter_map(|sent| match sent {
                Sent::ToNode(node_id, msg) => Some((Some(node_id), msg)),
                Sent::ToAll(msg) => Some((None, msg)),
                _ => None,
            })
            .collect()
    }

    fn push(&self, sent: Sent) {
        self.sent.lock().push(sent);
    }
}

impl Transport for Outbox {
    fn send_to_node(&self, node_id: &NodeId, msg: &Message) {
        self.push(Sent::ToNode(node_id.clone(), msg.clone()));
    }
    fn send_frame_to_node(&self, node_id: &NodeId, frame: &Frame) {
        // As for a connection.
        self.send_to_node(node_id, &Message::decode(frame).expect("a serialised message"));
    }
    fn broadcast_to_all(&self, msg: &Message) {
        self.push(Sent::ToAll(msg.clone()));
    }
}

impl Network for Outbox {
    fn send_to_conn(&self, conn: ConnId, frame: &Frame) {
        // What servers send is always a message; an Outbox exists in tests only.
        let msg = Message::decode(frame).expect("a serialised message");
        self.push(Sent::ToConn(conn, msg));
    }
    fn spare_bytes(&self, _conn: ConnId) -> usize {
        usize::MAX
    }
    fn close(&self, conn: ConnId) {
        self.push(Sent::Close(conn));
    }
    fn resume(&self, conn: ConnId) {
        self.push(Sent::Resume(conn));
    }
    fn bind_peer(&self, conn: ConnId, node_id: &NodeId) {
        self.push(Sent::BindPeer(conn, node_id.clone()));
    }
    fn bind_client(&self, conn: ConnId, session: &str) {
        self.push(Sent::BindClient(conn, session.into()));
    }
    fn dial(&self, address: &str) {
        self.push(Sent::Dial(address.into()));
    }
    fn send_udp(&self, msg: &Message, to: Option<SocketAddr>) {
        self.push(Sent::Udp(msg.clone(), to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MessageType;

    #[test]
    fn an_outbox_gives_back_what_was_sent_in_order_and_once() {
        let outbox = Outbox::new();
        let beat = Message::new(MessageType::Heartbeat, "n1");
        outbox.send_to_node(&"n2".into(), &beat);
        outbox.broadcast_to_all(&beat);
        outbox.close(ConnId(7));
        let expected =
            [Sent::ToNode("n2".into(), beat.clone()), Sent::ToAll(beat), Sent::Close(ConnId(7))];
        assert_eq!(outbox.take(), expected);
        assert_eq!(outbox.take(), []);
    }
}
