//! The network during a traced step: everything that is sent is written down on its way.

use std::net::SocketAddr;

use super::entry::Who;
use super::tracer::Tracer;
use crate::domain::{Frame, Message, NodeId};
use crate::network::{ConnId, Network, Transport};

/// A [`Network`] in front of another one. Frames for servers get a name, frames for clients stay as they are.
#[derive(Clone, Copy)]
pub struct Traced<'a> {
    pub(super) tracer: &'a Tracer,
    pub(super) cm: &'a dyn Network,
}

impl Transport for Traced<'_> {
    fn send_to_node(&self, node_id: &NodeId, msg: &Message) {
        self.send_frame_to_node(node_id, &msg.to_frame());
    }

    fn send_frame_to_node(&self, node_id: &NodeId, frame: &Frame) {
        // Without a connection the message is lost; it was not sent.
        let Some(conn) = self.tracer.link_to(node_id) else {
            return self.cm.send_frame_to_node(node_id, frame);
        };
        let frame = self.tracer.named(vec![Who::Server(node_id.clone())], frame);
        self.cm.send_to_conn(conn, &frame);
    }

    fn broadcast_to_all(&self, msg: &Message) {
        let links = self.tracer.links();
        if links.is_empty() {
            return self.cm.broadcast_to_all(msg);
        }
        let to = links.iter().map(|(node_id, _)| Who::Server(node_id.clone())).collect();
        let frame = self.tracer.named(to, &msg.to_frame());
        for (_, conn) in links {
            self.cm.send_to_conn(conn, &frame);
        }
    }
}

impl Network for Traced<'_> {
    fn trace(&self) -> Option<&Tracer> {
        Some(self.tracer)
    }

    fn send_to_conn(&self, conn: ConnId, frame: &Frame) {
        match self.tracer.who(conn) {
            client @ Who::Client(..) => {
                self.tracer.shown(client, frame);
                self.cm.send_to_conn(conn, frame);
            }
            other => self.cm.send_to_conn(conn, &self.tracer.named(vec![other], frame)),
        }
    }

    fn spare_bytes(&self, conn: ConnId) -> usize {
        self.cm.spare_bytes(conn)
    }

    fn close(&self, conn: ConnId) {
        self.tracer.closed(conn);
        self.cm.close(conn);
    }

    fn resume(&self, conn: ConnId) {
        self.cm.resume(conn);
    }

    fn bind_peer(&self, conn: ConnId, node_id: &NodeId) {
        self.tracer.bound_peer(conn, node_id);
        self.cm.bind_peer(conn, node_id);
    }

    fn bind_client(&self, conn: ConnId, session: &str) {
        self.tracer.bound_client(conn, session);
        self.cm.bind_client(conn, session);
    }

    fn dial(&self, address: &str) {
        self.cm.dial(address);
    }

    fn send_udp(&self, msg: &Message, to: Option<SocketAddr>) {
        self.cm.send_udp(msg, to);
    }
}
