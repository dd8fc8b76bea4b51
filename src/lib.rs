//! Roundtable is a chat cluster that keeps talking when a server dies.
//!
//! ```text
//!    alice ── TCP ──▶ n1 ═══════ n2 ◀── TCP ── bob        n1, n2, n3: one process each, with a log on disk
//!                      ║           ║                       a ring: each watches its neighbours
//!      carol ── TCP ──▶ n3 ════════╝                       n3 leads: the highest id that is alive
//! ```
//!
//! It is a reference, short enough to read in an evening, of how a class diagram becomes Rust with plain OS threads and
//! blocking sockets, and a server that three terminals can run. Start with [`guide`] to read the code (its designs are [`guide::ring`], [`guide::sequencer`] and [`guide::raft`]), with [`wire`] to
//! write a client, with [`cli`] to run it.
//!
//! # The class diagram
//!
//! Every class of `class-diagram.txt` is a Rust item of the same name; what is missing here fails `tests/class_diagram.rs`.
//!
//! | class | Rust | what it is |
//! |---|---|---|
//! | `Message` | [`Message`](domain::Message) | one JSON object, on the wire and in the log |
//! | `MessageType` | [`MessageType`](domain::MessageType) | the diagram's nine types and others |
//! | `VectorClock` | [`VectorClock`](domain::VectorClock) | causal time, counted by server incarnation |
//! | `Room` | [`Room`](domain::Room) | one server's copy of a room |
//! | `UDPHandler` | [`UDPHandler`](network::UDPHandler) | discovery |
//! | `TCPConnection` | [`TCPConnection`](network::TCPConnection) | messages in, messages out, never blocking to send |
//! | `ConnectionManager` | [`ConnectionManager`](network::ConnectionManager) | all connections of one program; implements [`Transport`](network::Transport), the diagram's `cm` |
//! | `ServerNode` | [`ServerNode`](server::ServerNode) | one server without its sockets, files and threads |
//! | `ServerState` | [`ServerState`](server::ServerState) | where it stands in an election |
//! | `RingNeighbor` | [`RingNeighbor`](server::RingNeighbor) | who stands beside it |
//! | `ElectionModule` | [`ElectionModule`](server::ElectionModule) | Hirschberg-Sinclair, behind the trait [`Election`](server::election::Election); [`BullyElection`](server::election::BullyElection) is the other one |
//! | `FailureDetector` | [`FailureDetector`](server::FailureDetector) | heartbeats and timers |
//! | `MetadataStore` | [`MetadataStore`](server::MetadataStore) | which server hosts which room |
//! | `CausalMulticastHandler` | [`CausalMulticastHandler`](server::CausalMulticastHandler) | stamps, hold-back queue, who holds what |
//! | `ChatClient` | [`ChatClient`](client::ChatClient) | a client as a library |
//!
//! # Its fields and methods
//!
//! Names are in Rust's casing; an underscore in front is a private method here. Where something is different, the reason stands beside it.
//! Algorithms are also handed the time, the connections and the log, as `now` or as a [`Step`](server::Step): they have none of their own.
//!
//! | diagram | Rust | different, because |
//! |---|---|---|
//! | `Message.message_id` | [`Message::message_id`](domain::Message::message_id) |  |
//! | `Message.content` | [`Message::content`](domain::Message::content) | a [`Content`](domain::Content): a text in CHAT, a typed object elsewhere |
//! | `Message.sender_id` | [`Message::sender_id`](domain::Message::sender_id) |  |
//! | `Message.room_id` | [`Message::room_id`](domain::Message::room_id) |  |
//! | `Message.serialize()` | [`Message::serialize`](domain::Message::serialize) |  |
//! | `Message.deserialize()` | [`Message::deserialize`](domain::Message::deserialize) | returns what is wrong instead of a message that is none |
//! | `MessageType.CLIENT_JOIN` | [`MessageType::ClientJoin`](domain::MessageType::ClientJoin) |  |
//! | `MessageType.JOIN_ROOM` | [`MessageType::JoinRoom`](domain::MessageType::JoinRoom) |  |
//! | `MessageType.LEAVE_ROOM` | [`MessageType::LeaveRoom`](domain::MessageType::LeaveRoom) |  |
//! | `MessageType.CHAT` | [`MessageType::Chat`](domain::MessageType::Chat) |  |
//! | `MessageType.DISCOVERY` | [`MessageType::Discovery`](domain::MessageType::Discovery) |  |
//! | `MessageType.ELECTION` | [`MessageType::Election`](domain::MessageType::Election) |  |
//! | `MessageType.HEARTBEAT` | [`MessageType::Heartbeat`](domain::MessageType::Heartbeat) |  |
//! | `MessageType.SYNC` | [`MessageType::Sync`](domain::MessageType::Sync) |  |
//! | `MessageType.METADATA_UPDATE` | [`MessageType::MetadataUpdate`](domain::MessageType::MetadataUpdate) |  |
//! | `VectorClock.timestamps` | [`VectorClock::timestamps`](domain::VectorClock::timestamps) |  |
//! | `VectorClock.copy()` | [`VectorClock::copy`](domain::VectorClock::copy) | it is `Clone` |
//! | `VectorClock.increment()` | [`VectorClock::increment`](domain::VectorClock::increment) |  |
//! | `VectorClock.merge()` | [`VectorClock::merge`](domain::VectorClock::merge) |  |
//! | `VectorClock.compare()` | [`VectorClock::compare`](domain::VectorClock::compare) | it is `PartialOrd`: an `Ordering`, or `None` when the clocks are concurrent, which no `int` says |
//! | `VectorClock.is_causally_ready()` | [`VectorClock::is_causally_ready`](domain::VectorClock::is_causally_ready) |  |
//! | `Room.room_id` | [`Room::room_id`](domain::Room::room_id) |  |
//! | `Room.client_ids` | [`Room::client_ids`](domain::Room::client_ids) | the sessions that are connected to this server |
//! | `Room.message_history` | [`Room::message_history`](domain::Room::message_history) | a [`History`](domain::History): the end in memory, all of it on disk |
//! | `Room.hold_back_queue` | [`Room::hold_back_queue`](domain::Room::hold_back_queue) | a [`HoldBackQueue`](domain::HoldBackQueue): found by what they wait for |
//! | `Room.host` | [`Room::host`](domain::Room::host) | a [`NodeId`](domain::NodeId): the host may be another server, which no reference here can be |
//! | `Room.copy()` | [`Room::copy`](domain::Room::copy) | it is `Clone` |
//! | `Room.add_client()` | [`Room::add_client`](domain::Room::add_client) |  |
//! | `Room.remove_client()` | [`Room::remove_client`](domain::Room::remove_client) |  |
//! | `Room.add_message()` | [`Room::add_message`](domain::Room::add_message) |  |
//! | `UDPHandler.socket` | [`UDPHandler::socket`](network::UDPHandler::socket) | private |
//! | `UDPHandler.broadcast()` | [`UDPHandler::broadcast`](network::UDPHandler::broadcast) |  |
//! | `UDPHandler.listen()` | [`UDPHandler::listen`](network::UDPHandler::listen) | the port is given to [`bind`](network::UDPHandler::bind); what ends it is an argument |
//! | `TCPConnection.socket` | [`TCPConnection::socket`](network::TCPConnection::socket) | a method: the socket is shared with the writer |
//! | `TCPConnection.send()` | [`TCPConnection::send`](network::TCPConnection::send) |  |
//! | `TCPConnection.receive()` | [`TCPConnection::receive`](network::TCPConnection::receive) | `None` at the end, an error for what is no message |
//! | `TCPConnection.close()` | [`TCPConnection::close`](network::TCPConnection::close) |  |
//! | `TCPConnection._recv_exact()` | [`TCPConnection::recv_exact`](network::TCPConnection::recv_exact) |  |
//! | `ConnectionManager.active_connections_peer_to_peer` | [`ConnectionManager::active_connections_peer_to_peer`](network::ConnectionManager::active_connections_peer_to_peer) | private, behind a lock; looked up by [`peer`](network::ConnectionManager::peer) |
//! | `ConnectionManager.active_connections_server_to_client` | [`ConnectionManager::active_connections_server_to_client`](network::ConnectionManager::active_connections_server_to_client) | private, behind a lock; looked up by [`client`](network::ConnectionManager::client) |
//! | `ConnectionManager.connect_to()` | [`ConnectionManager::connect_to`](network::ConnectionManager::connect_to) |  |
//! | `ConnectionManager.wrap_socket()` | [`ConnectionManager::wrap_socket`](network::ConnectionManager::wrap_socket) |  |
//! | `ConnectionManager.listen_to_connection()` | [`ConnectionManager::listen_to_connection`](network::ConnectionManager::listen_to_connection) | the callback gets whole batches of messages |
//! | `ConnectionManager.send_to_node()` | [`Transport::send_to_node`](network::Transport::send_to_node) | of the trait, so that the simulator can send too; it queues, `flush` writes |
//! | `ConnectionManager.broadcast_to_all()` | [`Transport::broadcast_to_all`](network::Transport::broadcast_to_all) | the same |
//! | `ServerNode.server_id` | [`ServerNode::server_id`](server::ServerNode::server_id) |  |
//! | `ServerNode.ip_address` | [`ServerNode::ip_address`](server::ServerNode::ip_address) |  |
//! | `ServerNode.port` | [`ServerNode::port`](server::ServerNode::port) |  |
//! | `ServerNode.leader_id` | [`ServerNode::leader_id`](server::ServerNode::leader_id) | a method: the election knows, and one fact has one place |
//! | `ServerNode.left_neighbor` | [`ServerNode::left_neighbor`](server::ServerNode::left_neighbor) | `None` when alone |
//! | `ServerNode.right_neighbor` | [`ServerNode::right_neighbor`](server::ServerNode::right_neighbor) | `None` when alone |
//! | `ServerNode.number_of_rooms` | [`ServerNode::number_of_rooms`](server::ServerNode::number_of_rooms) | a method: it follows from `room_locations` |
//! | `ServerNode.servers` | [`ServerNode::servers`](server::ServerNode::servers) | a map to [`ServerInfo`](server::ring::ServerInfo) |
//! | `ServerNode.managed_rooms` | [`ServerNode::managed_rooms`](server::ServerNode::managed_rooms) |  |
//! | `ServerNode.start()` | [`ServerNode::start`](server::ServerNode::start) | takes the sockets and the log, gives a [`RunningServer`](server::shell::RunningServer) |
//! | `ServerNode.StartFailureDetection()` | [`ServerNode::start_failure_detection`](server::ServerNode::start_failure_detection) |  |
//! | `ServerNode.run()` | [`ServerNode::run`](server::ServerNode::run) |  |
//! | `ServerNode.create_room()` | [`ServerNode::create_room`](server::ServerNode::create_room) |  |
//! | `ServerNode.handle_join()` | [`ServerNode::handle_join`](server::ServerNode::handle_join) | takes a [`ConnId`](network::ConnId): the socket stays in the shell |
//! | `ServerNode.process_message()` | [`ServerNode::process_message`](server::ServerNode::process_message) | says whether to go on, wait or close: [`Flow`](server::Flow) |
//! | `ServerNode._broadcast_server_discovery()` | [`ServerNode::broadcast_server_discovery`](server::ServerNode::broadcast_server_discovery) | private |
//! | `ServerNode._handle_udp_message()` | [`ServerNode::handle_udp_message`](server::ServerNode::handle_udp_message) |  |
//! | `ServerNode._handle_server_discovery()` | [`ServerNode::handle_server_discovery`](server::ServerNode::handle_server_discovery) | private |
//! | `ServerNode._handle_client_discovery()` | [`ServerNode::handle_client_discovery`](server::ServerNode::handle_client_discovery) | private |
//! | `ServerNode._send_rooms_to_client()` | [`ServerNode::send_rooms_to_client`](server::ServerNode::send_rooms_to_client) | private |
//! | `ServerNode._recompute_ring()` | [`ServerNode::recompute_ring`](server::ServerNode::recompute_ring) | private |
//! | `ServerNode._handle_join_room()` | [`ServerNode::handle_join_room`](server::ServerNode::handle_join_room) | private |
//! | `ServerNode.get_neighbors()` | [`ServerNode::get_neighbors`](server::ServerNode::get_neighbors) |  |
//! | `ServerNode.update_neighbour_id()` | [`ServerNode::update_neighbour_id`](server::ServerNode::update_neighbour_id) | takes the [`Hello`](domain::content::Hello) in the message |
//! | `ServerState.LOOKING` | [`ServerState::Looking`](server::ServerState::Looking) |  |
//! | `ServerState.FOLLOWER` | [`ServerState::Follower`](server::ServerState::Follower) |  |
//! | `ServerState.LEADER` | [`ServerState::Leader`](server::ServerState::Leader) |  |
//! | `ServerState.ELECTION_IN_PROGRESS` | [`ServerState::ElectionInProgress`](server::ServerState::ElectionInProgress) |  |
//! | `ElectionModule.Node` | [`ElectionModule::node`](server::ElectionModule::node) | private; the id: a part cannot own the whole |
//! | `ElectionModule.k` | [`ElectionModule::k`](server::ElectionModule::k) | a method |
//! | `ElectionModule.reply_counter` | [`ElectionModule::reply_counter`](server::ElectionModule::reply_counter) | a method |
//! | `ElectionModule.ConstructElectionMessage()` | [`ElectionModule::construct_election_message`](server::ElectionModule::construct_election_message) | also says which way it travels; the round is the module's |
//! | `ElectionModule.ConstructReplyMessage()` | [`ElectionModule::construct_reply_message`](server::ElectionModule::construct_reply_message) | the same, and its hops, so that none circles for ever |
//! | `ElectionModule.ConstructLeaderAnnoucementMessage()` | [`ElectionModule::construct_leader_announcement_message`](server::ElectionModule::construct_leader_announcement_message) | spelled `announcement`; carries the term |
//! | `ElectionModule.ParseMessage()` | [`ElectionModule::parse_message`](server::ElectionModule::parse_message) | typed [`ElectionContent`](domain::content::ElectionContent) |
//! | `ElectionModule.handle_message()` | [`Election::handle_message`](server::election::Election::handle_message) | of the trait; `now` is an argument |
//! | `ElectionModule.start_election()` | [`Election::start_election`](server::election::Election::start_election) | of the trait |
//! | `FailureDetector.Node` | [`FailureDetector::node`](server::FailureDetector::node) | private; the id |
//! | `FailureDetector.type` | [`TimerType`](server::failure_detector::TimerType) | of each timer rather than of the detector: one detector has both |
//! | `FailureDetector.timers` | [`FailureDetector::server_timers`](server::failure_detector::FailureDetector::server_timers) | private; two maps, `server_timers` and `client_timers` |
//! | `FailureDetector.send_heartbeat()` | [`FailureDetector::send_heartbeat`](server::FailureDetector::send_heartbeat) | every 4th goes to everyone, not to neighbours and leader alone, so that no server is unwatched |
//! | `FailureDetector.start_monitoring()` | [`FailureDetector::start_monitoring`](server::FailureDetector::start_monitoring) | takes `now`; the thread is the shell's |
//! | `FailureDetector.resetTimer()` | [`FailureDetector::reset_timer`](server::FailureDetector::reset_timer) |  |
//! | `FailureDetector.on_failure_detected()` | [`FailureDetector::on_failure_detected`](server::FailureDetector::on_failure_detected) | returns an event; the node acts on it |
//! | `FailureDetector.check_timeouts()` | [`FailureDetector::check_timeouts`](server::FailureDetector::check_timeouts) | returns [`DetectorEvent`](server::failure_detector::DetectorEvent)s, hence needs no `cm` |
//! | `MetadataStore.room_locations` | [`MetadataStore::room_locations`](server::MetadataStore::room_locations) | a method: only the store changes it |
//! | `MetadataStore.handle_message()` | [`MetadataStore::handle_message`](server::MetadataStore::handle_message) | returns the rooms whose host changed |
//! | `MetadataStore.update_metadata()` | [`MetadataStore::update_metadata`](server::MetadataStore::update_metadata) |  |
//! | `MetadataStore.sync_with_leader()` | [`MetadataStore::sync_with_leader`](server::MetadataStore::sync_with_leader) | names the leader by id and reports what this server holds |
//! | `CausalMulticastHandler.handle_chat_message()` | [`CausalMulticastHandler::handle_chat_message`](server::CausalMulticastHandler::handle_chat_message) |  |
//! | `CausalMulticastHandler.deliver_and_multicast()` | [`CausalMulticastHandler::deliver_and_multicast`](server::CausalMulticastHandler::deliver_and_multicast) | private |
//! | `CausalMulticastHandler.check_queue_recursively()` | [`CausalMulticastHandler::check_queue_recursively`](server::CausalMulticastHandler::check_queue_recursively) | private; a loop, since a peer chooses how deep it goes |
//! | `CausalMulticastHandler.multicast()` | [`CausalMulticastHandler::multicast`](server::CausalMulticastHandler::multicast) |  |
//! | `ChatClient.client_id` | [`ChatClient::client_id`](client::ChatClient::client_id) | a method: the session's random name, since a user name can clash |
//! | `ChatClient.username` | [`ChatClient::username`](client::ChatClient::username) | a method |
//! | `ChatClient.server_connection` | [`ChatClient::server_connection`](client::ChatClient::server_connection) | a method: it changes when the client moves |
//! | `ChatClient.start()` | [`ChatClient::start`](client::ChatClient::start) |  |
//! | `ChatClient.discover_server()` | [`ChatClient::discover_server`](client::ChatClient::discover_server) |  |
//! | `ChatClient.join_room()` | [`ChatClient::join_room`](client::ChatClient::join_room) |  |
//! | `ChatClient.send_message()` | [`ChatClient::send_message`](client::ChatClient::send_message) | waits while too many are outstanding |
//! | `ChatClient.receive_message()` | [`ChatClient::receive_message`](client::ChatClient::receive_message) |  |
//!
//! # Its relations
//!
//! | diagram | in the code |
//! |---|---|
//! | `Message *-- VectorClock` | [`Message::vector_clock`](domain::Message::vector_clock), the stamp of a CHAT |
//! | `Message *-- MessageType` | [`Message::message_type`](domain::Message::message_type), `type` on the wire |
//! | `Room *-- VectorClock` | [`Room::clock`](domain::Room::clock), what was delivered |
//! | `Room o-- Message` | [`Room::message_history`](domain::Room::message_history), its end in memory, read as messages |
//! | `ServerNode *-- ConnectionManager` | [`RunningServer::connection_manager`](server::shell::RunningServer::connection_manager): owned one floor up, so that the node runs without sockets |
//! | `ServerNode *-- ElectionModule` | [`ServerNode::election_module`](server::ServerNode::election_module), as a boxed [`Election`](server::election::Election), so that another one can take its place |
//! | `ServerNode *-- FailureDetector` | [`ServerNode::failure_detector`](server::ServerNode::failure_detector) |
//! | `ServerNode *-- MetadataStore` | [`ServerNode::metadata_store`](server::ServerNode::metadata_store) |
//! | `ServerNode *-- CausalMulticastHandler` | [`ServerNode::causal_multicast_handler`](server::ServerNode::causal_multicast_handler) |
//! | `ServerNode o-- Room` | [`ServerNode::managed_rooms`](server::ServerNode::managed_rooms): owned, since nothing else has a use for them |
//! | `ServerNode *-- UDPHandler` | [`RunningServer::udp_handler`](server::shell::RunningServer::udp_handler): like the connection manager; none with `--no-discovery` |
//! | `ServerNode o-- ServerState` | [`ServerNode::state`](server::ServerNode::state), which the election keeps |
//! | `ConnectionManager o-- TCPConnection` | [`ConnectionManager::connection`](network::ConnectionManager::connection), shared with the reader as `Arc` |
//! | `ChatClient *-- ConnectionManager` | [`ChatClient::connection_manager`](client::ChatClient::connection_manager) |
//! | `ChatClient *-- VectorClock` | [`ChatClient::vector_clock`](client::ChatClient::vector_clock) |
//! | `ChatClient *-- UDPHandler` | [`ChatClient::udp_handler`](client::ChatClient::udp_handler) |
//! | `CausalMulticastHandler ..> Room` | a `&mut Room` in [`CausalMulticastHandler::handle_chat_message`](server::CausalMulticastHandler::handle_chat_message): lent for one call |
//!
//! `*--` owns, `o--` refers, `..>` uses. In Rust an owned part is a field, what is shared is an `Arc`, what is only used is
//! lent as an argument. The diagram's parts point back to their `ServerNode`; a Rust part cannot, so the node hands in what
//! a call needs, and acts on what it returns.

// A closed pipe must not end a command with a panic: `cli::output` prints.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
pub mod cli;
pub mod client;
pub mod compare;
pub mod config;
pub mod demo;
pub mod domain;
pub mod error;
pub mod explain;
pub mod guide;
pub mod local_cluster;
pub mod logging;
pub mod network;
pub mod open_files;
pub mod server;
pub mod sim;
pub mod storage;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod torture;
pub mod trace;
pub mod wire;
