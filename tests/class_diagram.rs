//! Every class, field, method and relation of the class diagram under its name: what is lost no longer compiles, or
//! is missing from the tables of the crate documentation. What is private is named in
//! `src/server/class_diagram_tests.rs`.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::sync::Arc;

use indexmap::IndexMap;
use roundtable::client::ChatClient;
use roundtable::domain::{
    Content, HoldBackQueue, Incarnation, Message, MessageType, NodeId, Room, StampedChat,
    VectorClock, content::Hello,
};
use roundtable::network::{
    ConnId, ConnectionManager, Received, TCPConnection, Transport, UDPHandler,
};
use roundtable::server::election::Election;
use roundtable::server::failure_detector::{DetectorEvent, TimerType};
use roundtable::server::ring::ServerInfo;
use roundtable::server::shell::RunningServer;
use roundtable::server::{
    CausalMulticastHandler, ElectionModule, FailureDetector, Flow, MetadataStore, RingNeighbor,
    ServerNode, ServerState, Step,
};

/// The class diagram: each class, and its members in the diagram's words.
const DIAGRAM: &[(&str, &str)] = &[
    ("Message", "message_id content sender_id room_id serialize() deserialize()"),
    (
        "MessageType",
        "CLIENT_JOIN JOIN_ROOM LEAVE_ROOM CHAT DISCOVERY ELECTION HEARTBEAT SYNC METADATA_UPDATE",
    ),
    ("VectorClock", "timestamps copy() increment() merge() compare() is_causally_ready()"),
    (
        "Room",
        "room_id client_ids message_history hold_back_queue host copy() add_client() remove_client() \
         add_message()",
    ),
    ("UDPHandler", "socket broadcast() listen()"),
    ("TCPConnection", "socket send() receive() close() _recv_exact()"),
    (
        "ConnectionManager",
        "active_connections_peer_to_peer active_connections_server_to_client connect_to() wrap_socket() \
         listen_to_connection() send_to_node() broadcast_to_all()",
    ),
    (
        "ServerNode",
        "server_id ip_address port leader_id left_neighbor right_neighbor number_of_rooms servers \
         managed_rooms start() StartFailureDetection() run() create_room() handle_join() \
         process_message() _broadcast_server_discovery() _handle_udp_message() \
         _handle_server_discovery() _handle_client_discovery() _send_rooms_to_client() \
         _recompute_ring() _handle_join_room() get_neighbors() update_neighbour_id()",
    ),
    ("RingNeighbor", ""),
    ("ServerState", "LOOKING FOLLOWER LEADER ELECTION_IN_PROGRESS"),
    (
        "ElectionModule",
        "Node k reply_counter ConstructElectionMessage() ConstructReplyMessage() \
         ConstructLeaderAnnoucementMessage() ParseMessage() handle_message() start_election()",
    ),
    (
        "FailureDetector",
        "Node type timers send_heartbeat() start_monitoring() resetTimer() on_failure_detected() \
         check_timeouts()",
    ),
    ("MetadataStore", "room_locations handle_message() update_metadata() sync_with_leader()"),
    (
        "CausalMulticastHandler",
        "handle_chat_message() deliver_and_multicast() check_queue_recursively() multicast()",
    ),
    (
        "ChatClient",
        "client_id username server_connection start() discover_server() join_room() send_message() \
         receive_message()",
    ),
];

/// The relations of the class diagram.
const RELATIONS: [&str; 17] = [
    "Message *-- VectorClock",
    "Message *-- MessageType",
    "Room *-- VectorClock",
    "Room o-- Message",
    "ServerNode *-- ConnectionManager",
    "ServerNode *-- ElectionModule",
    "ServerNode *-- FailureDetector",
    "ServerNode *-- MetadataStore",
    "ServerNode *-- CausalMulticastHandler",
    "ServerNode o-- Room",
    "ServerNode *-- UDPHandler",
    "ServerNode o-- ServerState",
    "ConnectionManager o-- TCPConnection",
    "ChatClient *-- ConnectionManager",
    "ChatClient *-- VectorClock",
    "ChatClient *-- UDPHandler",
    "CausalMulticastHandler ..> Room",
];

const LIB: &str = include_str!("../src/lib.rs");

/// The rows of lib.rs that begin with `name` and go on with a link.
fn is_told(name: &str) -> bool {
    let row = format!("//! | `{name}` | ");
    LIB.lines().any(|line| line.strip_prefix(&row).is_some_and(|rest| rest.contains("`](")))
}

#[test]
fn the_crate_documentation_tells_where_each_class_and_member_is() {
    for (class, members) in DIAGRAM {
        assert!(is_told(class), "{class} is not in the table of classes");
        for member in members.split_whitespace() {
            let name = format!("{class}.{member}");
            assert!(is_told(&name), "{name} is not in the table of fields and methods");
        }
    }
}

#[test]
fn the_crate_documentation_tells_nothing_that_the_diagram_has_not() {
    let members = DIAGRAM.iter().flat_map(|(class, members)| {
        members.split_whitespace().map(move |member| format!("{class}.{member}"))
    });
    let classes = DIAGRAM.iter().map(|(class, _)| (*class).to_string());
    let relations = RELATIONS.iter().map(|relation| (*relation).to_string());
    let known: Vec<String> = classes.chain(members).chain(relations).collect();
    for row in LIB.lines().filter_map(|line| line.strip_prefix("//! | `")) {
        let name = row.split('`').next().unwrap_or_default();
        assert!(known.iter().any(|known| known == name), "the diagram has no {name}");
    }
}

#[test]
fn the_crate_documentation_tells_where_each_relation_is() {
    for relation in RELATIONS {
        assert!(is_told(relation), "{relation} is not in the table of relations");
    }
}

#[test]
fn the_domain_has_the_diagrams_fields_and_methods() {
    let _: fn(Message) -> [String; 3] = |msg| [msg.message_id, msg.sender_id, msg.room_id];
    let _: fn(Message) -> Content = |msg| msg.content;
    let _: fn(&Message) -> String = Message::serialize;
    let _: fn(&str) -> Result<Message, _> = Message::deserialize;

    let names = DIAGRAM[1].1.split_whitespace();
    let types = [
        MessageType::ClientJoin,
        MessageType::JoinRoom,
        MessageType::LeaveRoom,
        MessageType::Chat,
        MessageType::Discovery,
        MessageType::Election,
        MessageType::Heartbeat,
        MessageType::Sync,
        MessageType::MetadataUpdate,
    ];
    assert!(types.map(MessageType::as_str).into_iter().eq(names));

    let _: fn(VectorClock) -> BTreeMap<Incarnation, u64> = |clock| clock.timestamps;
    let _: fn(&VectorClock) -> VectorClock = VectorClock::copy;
    let _: fn(&mut VectorClock, &Incarnation) -> u64 = VectorClock::increment;
    let _: fn(&mut VectorClock, &VectorClock) = VectorClock::merge;
    let _: fn(&VectorClock, &VectorClock) -> Option<std::cmp::Ordering> = VectorClock::compare;
    let _: fn(&VectorClock, &VectorClock, &Incarnation) -> bool = VectorClock::is_causally_ready;

    let _: fn(Room) -> (String, Vec<String>) = |room| (room.room_id, room.client_ids);
    let _: fn(Room) -> roundtable::domain::History = |room| room.message_history;
    let _: fn(Room) -> HoldBackQueue = |room| room.hold_back_queue;
    let _: fn(Room) -> Option<NodeId> = |room| room.host;
    let _: fn(&Room) -> Room = Room::copy;
    let _: fn(&mut Room, &str) -> bool = Room::add_client;
    let _: fn(&mut Room, &str) -> bool = Room::remove_client;
    let _: fn(&mut Room, Arc<Message>) -> Option<usize> = Room::add_message;
}

#[test]
fn the_network_has_the_diagrams_fields_and_methods() {
    type Listen = fn(&Arc<ConnectionManager>, &Arc<TCPConnection>, Callback) -> Started;
    type Callback = fn(Received) -> ControlFlow<()>;
    type Started = std::io::Result<()>;
    type Connected = std::io::Result<Arc<TCPConnection>>;

    let _: fn(&UDPHandler, &Message, u16) = UDPHandler::broadcast;
    let _ = |udp: &UDPHandler, stop: &crossbeam_channel::Receiver<()>| {
        udp.listen(stop, |_msg, _from| ControlFlow::Break(()));
    };

    let _: fn(&TCPConnection) -> &TcpStream = TCPConnection::socket;
    let _: fn(&TCPConnection, &Message) = TCPConnection::send;
    let _: fn(&TCPConnection) -> Result<Option<Message>, _> = TCPConnection::receive;
    let _: fn(&TCPConnection) = TCPConnection::close;
    let _: fn(&TCPConnection, usize) -> std::io::Result<Vec<u8>> = TCPConnection::recv_exact;

    let _: fn(&ConnectionManager, &NodeId) -> Option<Arc<TCPConnection>> = ConnectionManager::peer;
    let _: fn(&ConnectionManager, &str) -> Option<Arc<TCPConnection>> = ConnectionManager::client;
    let _: fn(&ConnectionManager, &str, u16) -> Connected = ConnectionManager::connect_to;
    let _: fn(&ConnectionManager, TcpStream) -> Connected = ConnectionManager::wrap_socket;
    let _: Listen = ConnectionManager::listen_to_connection;
    let _: fn(&ConnectionManager, &NodeId, &Message) = ConnectionManager::send_to_node;
    let _: fn(&ConnectionManager, &Message) = ConnectionManager::broadcast_to_all;
}

#[test]
fn the_server_node_has_the_diagrams_fields_and_methods() {
    type Neighbor = Option<RingNeighbor>;
    type HandleJoin = fn(&mut ServerNode, ConnId, std::net::SocketAddr, Option<String>, &Step<'_>);

    let _: fn(ServerNode) -> (NodeId, String, u16) =
        |node| (node.server_id, node.ip_address, node.port);
    let _: fn(&ServerNode) -> Option<NodeId> = ServerNode::leader_id;
    let _: fn(ServerNode) -> [Neighbor; 2] = |node| [node.left_neighbor, node.right_neighbor];
    let _: fn(&ServerNode) -> usize = ServerNode::number_of_rooms;
    let _: fn(ServerNode) -> BTreeMap<NodeId, ServerInfo> = |node| node.servers;
    let _: fn(ServerNode) -> IndexMap<String, Room> = |node| node.managed_rooms;

    let _: fn(ServerNode, _) -> Result<RunningServer, _> = ServerNode::start;
    let _: fn(&mut ServerNode, &Step<'_>) = ServerNode::start_failure_detection;
    let _: fn(ServerNode, _, &crossbeam_channel::Receiver<()>) -> Result<(), _> = ServerNode::run;
    let _: for<'a> fn(&'a mut ServerNode, &str) -> &'a mut Room = ServerNode::create_room;
    let _: HandleJoin = ServerNode::handle_join;
    let _: fn(&mut ServerNode, ConnId, &Message, &Step<'_>) -> Flow = ServerNode::process_message;
    let _: fn(&mut ServerNode, &Message, std::net::SocketAddr, &Step<'_>) =
        ServerNode::handle_udp_message;
    let _: fn(&ServerNode, &NodeId) -> (Neighbor, Neighbor) = ServerNode::get_neighbors;
    let _: for<'a> fn(&'a mut ServerNode, &Hello) -> &'a mut ServerInfo =
        ServerNode::update_neighbour_id;

    let names = ["LOOKING", "FOLLOWER", "LEADER", "ELECTION_IN_PROGRESS"];
    let states = [
        ServerState::Looking,
        ServerState::Follower,
        ServerState::Leader,
        ServerState::ElectionInProgress,
    ];
    assert_eq!(states.map(|state| state.to_string()), names);
}

#[test]
fn the_parts_of_the_server_have_the_diagrams_fields_and_methods() {
    let _: fn(&ElectionModule) -> u32 = ElectionModule::k;
    let _: fn(&ElectionModule) -> u32 = ElectionModule::reply_counter;
    let _: fn(&ElectionModule, &NodeId, u32, u64, _) -> Message =
        ElectionModule::construct_election_message;
    let _: fn(&ElectionModule, &NodeId, u32, u64, _) -> Message =
        ElectionModule::construct_reply_message;
    let _: fn(&ElectionModule, &NodeId, _) -> Message =
        ElectionModule::construct_leader_announcement_message;
    let _: fn(&Message) -> Result<_, _> = ElectionModule::parse_message;
    let _: fn(&mut ElectionModule, &Message, _, &dyn Transport) = Election::handle_message;
    let _: fn(&mut ElectionModule, _, &dyn Transport) = Election::start_election;

    let _: [TimerType; 2] = [TimerType::Server, TimerType::Client];
    let _: fn(&mut FailureDetector, &dyn Transport, &MetadataStore, _) =
        FailureDetector::send_heartbeat;
    let _: fn(&mut FailureDetector, _) = FailureDetector::start_monitoring;
    let _: fn(&mut FailureDetector, &str, TimerType, _) -> Option<DetectorEvent> =
        FailureDetector::reset_timer;
    let _: fn(&mut FailureDetector, &str, TimerType) -> DetectorEvent =
        FailureDetector::on_failure_detected;
    let _: fn(&mut FailureDetector, _) -> Vec<DetectorEvent> = FailureDetector::check_timeouts;

    let _: fn(&MetadataStore) -> &BTreeMap<String, NodeId> = MetadataStore::room_locations;
    let _: fn(&mut MetadataStore, &Message, _, &dyn Transport) -> Vec<String> =
        MetadataStore::handle_message;
    let _: fn(&mut MetadataStore, &str, &NodeId, &dyn Transport) -> Vec<String> =
        MetadataStore::update_metadata;
    let _: fn(&MetadataStore, &NodeId, &BTreeMap<String, u64>, &dyn Transport) =
        MetadataStore::sync_with_leader;

    let _: fn(&mut CausalMulticastHandler, Message, &mut Room, &Step<'_>) -> _ =
        CausalMulticastHandler::handle_chat_message;
    let _: fn(&mut CausalMulticastHandler, &StampedChat, &[u8], &dyn Transport) =
        CausalMulticastHandler::multicast;
}

#[test]
fn the_client_has_the_diagrams_fields_and_methods() {
    let _: fn(&ChatClient) -> String = ChatClient::client_id;
    let _: fn(&ChatClient) -> &str = ChatClient::username;
    let _: fn(&ChatClient) -> Option<Arc<TCPConnection>> = ChatClient::server_connection;
    let _: fn(&ChatClient, &str, u16) -> Result<(), _> = ChatClient::start;
    let _ = |client: &ChatClient| client.discover_server(5007, |_| ControlFlow::Break(()));
    let _: fn(&ChatClient, &str) = ChatClient::join_room;
    let _: fn(&ChatClient, &str, &str) -> Result<String, _> = ChatClient::send_message;
    let _: fn(&ChatClient, &Message) = ChatClient::receive_message;
}

#[test]
fn each_whole_of_the_diagram_leads_to_its_part() {
    let _: fn(&Message) -> Option<&VectorClock> = |msg| msg.vector_clock.as_ref();
    let _: fn(&Message) -> &MessageType = |msg| &msg.message_type;
    let _: fn(&Room) -> &VectorClock = |room| &room.clock;
    let _: fn(&Room) -> Option<Message> = |room| room.message_history.get(0);
    let _: fn(&RunningServer) -> &ConnectionManager = RunningServer::connection_manager;
    let _: fn(&ServerNode) -> &dyn Election = |node| &*node.election_module;
    let _: fn(&ServerNode) -> &FailureDetector = |node| &node.failure_detector;
    let _: fn(&ServerNode) -> &MetadataStore = |node| &node.metadata_store;
    let _: fn(&ServerNode) -> &CausalMulticastHandler = |node| &node.causal_multicast_handler;
    let _: fn(&ServerNode) -> Option<&Room> = |node| node.managed_rooms.values().next();
    let _: fn(&RunningServer) -> Option<&UDPHandler> = RunningServer::udp_handler;
    let _: fn(&ServerNode) -> ServerState = ServerNode::state;
    let _: fn(&ConnectionManager, ConnId) -> Option<Arc<TCPConnection>> =
        ConnectionManager::connection;
    let _: fn(&ChatClient) -> &ConnectionManager = ChatClient::connection_manager;
    let _: fn(&ChatClient) -> VectorClock = ChatClient::vector_clock;
    let _: fn(&ChatClient) -> &UDPHandler = ChatClient::udp_handler;
    // `..>` is a loan: the handler takes the room for one call, as it does above.
    let _: fn(&mut CausalMulticastHandler, Message, &mut Room, &Step<'_>) -> _ =
        CausalMulticastHandler::handle_chat_message;
}
