//! The private names of class-diagram.txt: what is lost here no longer compiles. `tests/class_diagram.rs` names
//! the public ones, since it sees the crate as others do.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use parking_lot::Mutex;

use super::connections::Hindrance;
use super::election::ElectionModule;
use super::failure_detector::{ClientTimer, ServerTimer};
use super::multicast::CausalMulticastHandler;
use super::{FailureDetector, ServerNode, Step};
use crate::domain::content::DiscoveryContent;
use crate::domain::{Incarnation, Message, NodeId, Room};
use crate::network::{ConnId, ConnectionManager, TCPConnection, UDPHandler};

type Connections<K> = Mutex<BTreeMap<K, Arc<TCPConnection>>>;
type HandleJoinRoom =
    fn(&mut ServerNode, ConnId, &str, &Message, &Step<'_>) -> Result<(), Hindrance>;
type ServerDiscovery = fn(&mut ServerNode, &DiscoveryContent, bool, &Step<'_>);
type ClientDiscovery = fn(&ServerNode, &str, &Message, SocketAddr, &Step<'_>);

#[test]
fn every_private_method_of_the_class_diagram_has_a_method_of_its_name() {
    let _: fn(&mut ServerNode, &Step<'_>) = ServerNode::broadcast_server_discovery;
    let _: ServerDiscovery = ServerNode::handle_server_discovery;
    let _: ClientDiscovery = ServerNode::handle_client_discovery;
    let _: fn(&ServerNode, &Message, SocketAddr, &Step<'_>) = ServerNode::send_rooms_to_client;
    let _: fn(&mut ServerNode, &Step<'_>) = ServerNode::recompute_ring;
    let _: HandleJoinRoom = ServerNode::handle_join_room;
    let _: fn(&mut CausalMulticastHandler, &Message, &mut Room, &Step<'_>) =
        CausalMulticastHandler::deliver_and_multicast;
    let _: fn(&mut CausalMulticastHandler, &mut Room, (Incarnation, u64), &Step<'_>) =
        CausalMulticastHandler::check_queue_recursively;
}

#[test]
fn every_field_of_the_class_diagram_that_is_private_here_has_its_type() {
    let _: fn(&ElectionModule) -> &NodeId = |module| &module.node;
    let _: fn(&FailureDetector) -> &NodeId = |detector| &detector.node;
    let _: fn(&FailureDetector) -> &BTreeMap<NodeId, ServerTimer> = |d| &d.server_timers;
    let _: fn(&FailureDetector) -> &BTreeMap<String, ClientTimer> = |d| &d.client_timers;
    let _: fn(&UDPHandler) -> &UdpSocket = |udp| &udp.socket;
    let _: fn(&ConnectionManager) -> &Connections<NodeId> =
        |manager| &manager.active_connections_peer_to_peer;
    let _: fn(&ConnectionManager) -> &Connections<String> =
        |manager| &manager.active_connections_server_to_client;
}
