//! Finding each other over UDP, without configuration.
//!
//! A server broadcasts that it exists: often while it is alone or starting, seldom afterwards. Who hears of
//! an unknown server dials it; everything else goes over TCP. A client broadcasts a question and is answered
//! by each server directly, to its own port.

use std::net::SocketAddr;
use std::time::Duration;

use super::ServerNode;
use super::ring::ServerInfo;
use super::step::Step;
use crate::domain::content::{DiscoveryContent, ServerAddress};
use crate::domain::{Message, MessageType, NodeId};
use crate::network::ConnId;

/// How often a server that is starting or alone says that it exists.
const EAGER: Duration = Duration::from_millis(250);
/// How often it does so when it is connected: for those that start later behind a lossy network.
const CALM: Duration = Duration::from_secs(3);
/// Rooms named in an answer over UDP, so that it fits a datagram. TCP answers name all.
const UDP_ROOMS_MAX: usize = 200;

impl ServerNode {
    /// Says over UDP that this server exists, when it is time. The diagram's
    /// `_broadcast_server_discovery`.
    pub(super) fn broadcast_server_discovery(&mut self, step: &Step) {
        let alone = self.servers.values().all(|info| info.conn.is_none());
        let pause = if alone || !self.ready { EAGER } else { CALM };
        let due = self.discovery_at.is_none_or(|at| step.now >= at + pause);
        if !self.config.discovery || !due {
            return;
        }
        self.discovery_at = Some(step.now);
        let content = DiscoveryContent::Server {
            cluster: self.config.cluster.clone(),
            design: self.config.design.clone(),
            incarnation: self.config.incarnation.clone(),
            address: self.config.address.clone(),
        };
        step.cm.send_udp(&self.discovery().saying(&content), None);
    }

    /// What others are told of a server that is connected here.
    pub(super) fn news_of(&self, info: &ServerInfo) -> Option<Message> {
        let content = DiscoveryContent::Server {
            cluster: self.config.cluster.clone(),
            design: self.config.design.clone(),
            incarnation: info.incarnation.clone()?,
            address: info.address.clone(),
        };
        Some(self.discovery().saying(&content))
    }

    fn discovery(&self) -> Message {
        Message::new(MessageType::Discovery, self.server_id.as_str())
    }

    /// Takes a datagram. The diagram's `_handle_udp_message`.
    pub fn handle_udp_message(&mut self, msg: &Message, from: SocketAddr, step: &Step) {
        if msg.message_type != MessageType::Discovery {
            return;
        }
        match msg.content.parse() {
            Ok(content @ DiscoveryContent::Server { .. }) => {
                self.handle_server_discovery(&content, true, step);
            }
            Ok(DiscoveryContent::Client { cluster }) => {
                self.handle_client_discovery(&cluster, msg, from, step);
            }
            Ok(DiscoveryContent::Found { .. }) => {}
            Err(error) => log::debug!("{from} sent a DISCOVERY that is ignored: {error}"),
        }
    }

    /// Another server exists: it says so itself (`first_hand`), or a connected one does. The diagram's
    /// `_handle_server_discovery`.
    pub(super) fn handle_server_discovery(
        &mut self,
        content: &DiscoveryContent,
        first_hand: bool,
        step: &Step,
    ) {
        let DiscoveryContent::Server { cluster, design, incarnation, address } = content else {
            return;
        };
        if *cluster != self.config.cluster || *incarnation == self.config.incarnation {
            return;
        }
        let id = incarnation.node_id();
        if *design != self.config.design {
            log::debug!("{id} at {address} runs the design {design}, it is left alone");
        } else if id == self.server_id {
            // Others may still know a former life of this server.
            if first_hand {
                self.met_namesake(address);
            }
        } else if self.hear_of_server(&id, address, step.now) {
            log::debug!("heard of {id} at {address}");
        }
    }

    /// Another server with this one's id exists. The one that is still starting gives way.
    fn met_namesake(&mut self, address: &str) {
        let id = &self.server_id;
        if self.ready {
            log::warn!("another server with the id {id} runs at {address}; it will be refused");
        } else if address != self.config.address {
            self.fatal = Some(format!(
                "another server with the id {id} runs at {address}; choose another --id"
            ));
        }
    }

    /// A client looks for servers. The diagram's `_handle_client_discovery`.
    pub(super) fn handle_client_discovery(
        &self,
        cluster: &str,
        msg: &Message,
        to: SocketAddr,
        step: &Step,
    ) {
        if cluster == self.config.cluster && self.ready {
            self.send_rooms_to_client(msg, to, step);
        }
    }

    /// Answers a client's question over UDP. The diagram's `_send_rooms_to_client(addr)`.
    pub(super) fn send_rooms_to_client(&self, msg: &Message, to: SocketAddr, step: &Step) {
        let content = self.found(UDP_ROOMS_MAX);
        let answer = self.discovery().with_id(&msg.message_id).saying(&content);
        step.cm.send_udp(&answer, Some(to));
    }

    /// Answers the same question over TCP.
    pub(super) fn answer_discovery(&self, conn: ConnId, msg: &Message, step: &Step) {
        let content = self.found(usize::MAX);
        let answer = self.discovery().with_id(&msg.message_id).saying(&content);
        step.cm.send_to_conn(conn, &answer.to_frame());
    }

    fn found(&self, rooms_max: usize) -> DiscoveryContent {
        DiscoveryContent::Found {
            cluster: self.config.cluster.clone(),
            servers: self.live_addresses(),
            leader: self.leader_id(),
            rooms: self.room_names().into_iter().take(rooms_max).collect(),
        }
    }

    /// The servers that a client can use, this one first.
    pub(super) fn live_addresses(&self) -> Vec<ServerAddress> {
        let me = ServerAddress { id: self.server_id.clone(), address: self.config.address.clone() };
        let takes_clients =
            |(id, info): &(&NodeId, &ServerInfo)| info.is_live() && !self.was_removed(id, info);
        let others = self.servers.iter().filter(takes_clients);
        let others = others
            .map(|(id, info)| ServerAddress { id: id.clone(), address: info.address.clone() });
        std::iter::once(me).chain(others).collect()
    }
}
