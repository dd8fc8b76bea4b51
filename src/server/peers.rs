//! Links between servers: one connection per pair, whoever dialled.
//!
//! ```text
//!   n1 ── dials ──▶ HELLO ──────▶ n2      cluster, design, id and disk id are checked,
//!   n1 ◀─────────── HELLO ─────── n2      then both bind the connection and tell the other
//!                                         what it may have missed (presence, clocks, rooms)
//! ```
//!
//! When both dial at once there are two connections for a moment. Both sides keep the one that the lower
//! id dialled; between two that the same side dialled, the newer one. What was lost on the other is repaired
//! by what is told at each bind.

use super::ServerNode;
use super::connections::Role;
use super::election::ElectionKind;
use super::step::{Flow, Step};
use super::total_order::is_passed_on;
use crate::domain::content::{
    Coordinator, ErrorContent, Heartbeat, Held, Hello, Liveness, Presence, SyncContent,
};
use crate::domain::{Message, MessageType, NodeId};
use crate::error::RequestError;
use crate::network::ConnId;

impl ServerNode {
    /// The first frame to another server.
    pub(super) fn hello(&self) -> Message {
        Message::new(MessageType::Hello, self.server_id.as_str()).saying(&Hello {
            cluster: self.config.cluster.clone(),
            design: self.config.design.clone(),
            election: self.config.election.to_string(),
            id: self.server_id.clone(),
            disk_id: self.config.disk_id.clone(),
            incarnation: self.config.incarnation.clone(),
            address: self.config.address.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            term: self.election_module.term().cloned(),
            cluster_id: self.cluster_id().map(str::to_string),
        })
    }

    /// A HELLO: checks who it is, and binds the connection or refuses it.
    pub(super) fn handle_hello(
        &mut self,
        conn: ConnId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        let hello: Hello = parse(msg)?;
        let dialled = self.conns.get(&conn).and_then(|conn| conn.dialled.clone());
        self.check_cluster(&hello)?;
        if hello.incarnation == self.config.incarnation {
            self.met_oneself(conn, dialled, step);
            return Ok(());
        }
        self.check_identity(&hello)?;
        // Also when the other side dialled: an address from `--peers` needs no dialling then.
        self.dials.reached(&hello.address, &hello.id);
        if let Some(address) = &dialled {
            self.dials.reached(address, &hello.id);
        }
        // Who dialled here need not be dialled: where it listens has answered, too.
        self.dials.reached(&hello.address, &hello.id);
        if !self.wins(conn, dialled.is_some(), &hello) {
            self.close(conn, "another connection to the same server is kept", step);
            return Ok(());
        }
        if dialled.is_none() {
            step.cm.send_to_conn(conn, &self.hello().to_frame());
        }
        self.link_up(conn, &hello, step);
        Ok(())
    }

    pub(super) fn cluster_id(&self) -> Option<&str> {
        self.ordered.as_ref().and_then(|ordered| ordered.order.cluster_id())
    }

    fn check_cluster(&self, hello: &Hello) -> Result<(), RequestError> {
        let Hello { cluster, design, election, id, .. } = hello;
        let (my_cluster, my_design) = (&self.config.cluster, &self.config.design);
        let me = &self.server_id;
        if cluster != my_cluster {
            let reason = format!("{id} belongs to the cluster {cluster:?}, {me} to {my_cluster:?}");
            return Err(RequestError::WrongCluster { reason });
        }
        if design != my_design {
            let reason = format!("{id} runs the design {design:?}, {me} runs {my_design:?}");
            return Err(RequestError::WrongCluster { reason });
        }
        if let (Some(theirs), Some(mine)) = (&hello.cluster_id, self.cluster_id())
            && theirs != mine
        {
            let reason = format!(
                "{id} belongs to the cluster with id {theirs}, {me} to the one with id {mine}, although both are called \
                 {cluster:?}; give one of them another --data, or the addresses of its own cluster"
            );
            return Err(RequestError::WrongCluster { reason });
        }
        let my_election = self.config.election.to_string();
        if !election.is_empty() && *election != my_election {
            let reason = format!(
                "{id} holds elections by {election:?}, {me} by {my_election:?}; give both the same \
                 --election"
            );
            return Err(RequestError::WrongCluster { reason });
        }
        Ok(())
    }

    /// Refuses a second server under an id that is taken while its owner is connected.
    fn check_identity(&self, hello: &Hello) -> Result<(), RequestError> {
        let in_use = |address: &str| {
            Err(RequestError::NodeIdInUse { id: hello.id.to_string(), address: address.into() })
        };
        if hello.id == self.server_id {
            return in_use(&self.config.address);
        }
        match self.servers.get(&hello.id) {
            Some(info) if info.conn.is_some() && info.disk_id.as_ref() != Some(&hello.disk_id) => {
                in_use(&info.address)
            }
            _ => Ok(()),
        }
    }

    /// The other end is this server: its own address stood among the peers, or discovery gave it back.
    fn met_oneself(&mut self, conn: ConnId, dialled: Option<String>, step: &Step) {
        if let Some(address) = dialled {
            self.dials.is_own(&address);
            self.close(conn, "this is the server's own address", step);
        } else {
            // The dialling end has to read who answered, to know the address as its own.
            step.cm.send_to_conn(conn, &self.hello().to_frame());
        }
    }

    /// Whether `conn` is kept rather than the connection to the same server that stands already.
    fn wins(&self, conn: ConnId, dialled_here: bool, hello: &Hello) -> bool {
        let Some(info) = self.servers.get(&hello.id) else { return true };
        let Some(old) = info.conn.filter(|old| *old != conn) else { return true };
        if info.incarnation.as_ref() != Some(&hello.incarnation) {
            return true;
        }
        let old_dialled_here = self.conns.get(&old).is_some_and(|old| old.dialled.is_some());
        let kept_if_dialled_here = self.server_id < hello.id;
        dialled_here == old_dialled_here || dialled_here == kept_if_dialled_here
    }

    /// The connection to a server stands: it counts as alive, and is told what it may have missed.
    fn link_up(&mut self, conn: ConnId, hello: &Hello, step: &Step) {
        let node_id = hello.id.clone();
        let info = self.update_neighbour_id(hello);
        let was_live = info.is_live();
        info.liveness = Liveness::Alive;
        let old = info.conn.replace(conn).filter(|old| *old != conn);
        if let Some(old) = old {
            self.close(old, "replaced by a newer connection", step);
        }
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.role = Role::Peer(node_id.clone());
        }
        step.cm.bind_peer(conn, &node_id);
        self.causal_multicast_handler.forget_node(&node_id);
        self.failure_detector.heard_server(&node_id, step.now);
        log::info!("connected to {node_id} at {} (version {})", hello.address, hello.version);
        self.introduce(&node_id, step);
        if let Some(term) = &hello.term {
            self.election_module.observe_term(term);
        }
        let sessions = self.presence.of_node(&self.server_id);
        let presence = SyncContent::Presence { sessions };
        let me = self.server_id.as_str();
        step.cm.send_to_node(&node_id, &Message::new(MessageType::Sync, me).saying(&presence));
        self.doubt_copies(&node_id);
        if was_live {
            self.reconcile_rooms(step);
        } else {
            self.recompute_ring(step);
        }
        if let Some(ordered) = &mut self.ordered {
            ordered.order.link_up(&node_id, step);
            // What was passed on over the former connection may be lost.
            ordered.forwards.restart();
        } else {
            self.send_clocks(&node_id, step);
        }
        self.progress = true;
    }

    /// Tells a server that is new here of the others, and the others of it.
    fn introduce(&self, newcomer: &NodeId, step: &Step) {
        for (id, info) in self.servers.iter().filter(|(_, info)| info.conn.is_some()) {
            let Some(msg) = self.news_of(info) else { continue };
            if id == newcomer {
                step.cm.broadcast_to_all(&msg);
            } else {
                step.cm.send_to_node(newcomer, &msg);
            }
        }
    }

    /// The connection `conn` to a server was lost. It is suspect until it is dialled again or times out.
    pub(super) fn link_down(&mut self, node_id: &NodeId, conn: ConnId, reason: &str, step: &Step) {
        let Some(info) = self.servers.get_mut(node_id) else { return };
        if info.conn != Some(conn) {
            return;
        }
        info.conn = None;
        if info.is_live() {
            info.liveness = Liveness::Suspect;
            log::info!("lost the connection to {node_id}: {reason}");
        }
        let address = info.address.clone();
        // Dial at once, whoever dialled before: a refusal tells at once that the server is gone.
        self.dials.want(&address, step.now);
        self.dial_servers(step);
    }

    /// A message from another server, on the connection that stands to it.
    pub(super) fn process_peer_message(
        &mut self,
        conn: ConnId,
        node_id: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Flow {
        if self.servers.get(node_id).and_then(|info| info.conn) != Some(conn) {
            return Flow::Close;
        }
        let recovered = self.failure_detector.heard_server(node_id, step.now);
        if recovered.is_some() {
            self.servers.entry(node_id.clone()).and_modify(|info| info.liveness = Liveness::Alive);
        }
        if let Err(error) = self.dispatch_peer_message(node_id, msg, step) {
            log::warn!("{node_id} sent a {} that is ignored: {error}", msg.message_type);
        }
        if self.conns.contains_key(&conn) { Flow::Done } else { Flow::Close }
    }

    fn dispatch_peer_message(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        match msg.message_type {
            message_type
                if self.ordered.is_some() && (is_of_order(message_type) || is_passed_on(msg)) =>
            {
                self.handle_ordered(from, msg, step)?;
            }
            // That of the leader, which names its term.
            MessageType::Heartbeat if self.ordered.is_some() && msg.term.is_some() => {
                self.handle_ordered(from, msg, step)?;
            }
            MessageType::Heartbeat => self.handle_heartbeat(from, &parse(msg)?, step),
            MessageType::Election if !self.may_answer_election(step) => {}
            MessageType::Election | MessageType::ElectionOk => {
                self.election_module.handle_message(msg, step.now, step.cm);
            }
            MessageType::Coordinator => self.handle_coordinator(msg, &parse(msg)?, step),
            MessageType::MetadataUpdate => self.handle_metadata(msg, step),
            MessageType::Chat => self.handle_peer_chat(from, msg, step),
            MessageType::Sync => self.handle_sync(from, parse(msg)?, &msg.room_id, step),
            MessageType::Ack => {
                self.causal_multicast_handler.handle_held(from, &parse::<Held>(msg)?);
            }
            MessageType::ClientJoin
            | MessageType::ClientLeave
            | MessageType::JoinRoom
            | MessageType::LeaveRoom => {
                let presence: Presence = parse(msg)?;
                self.handle_presence(from, msg, &presence, step);
            }
            MessageType::Error => {
                let error: ErrorContent = parse(msg)?;
                if error.code == RequestError::ServerStopping.code() {
                    self.server_failed(from, "it stopped", step);
                    return Ok(());
                }
                // What is temporary is tried again, and no news: a leader that hands over, a full queue.
                let level = if error.retryable { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "{from} answers {}: {}", error.code, error.reason);
                if error.retryable {
                    self.forward_again();
                }
                self.check_id_taken(&error);
            }
            MessageType::Discovery => self.handle_server_discovery(&parse(msg)?, false, step),
            // Of another life of the same connection, of another design, or a question that needs no answer here.
            _ => {}
        }
        Ok(())
    }

    /// Whether this server says that it is there to a lower id that stands. One that found no majority is silent.
    fn may_answer_election(&self, step: &Step) -> bool {
        // Hirschberg and Sinclair's messages have to pass, whoever they find.
        self.config.election != ElectionKind::Bully
            || self
                .ordered
                .as_ref()
                .is_none_or(|ordered| ordered.order.may_answer_election(step.now))
    }

    /// An outcome. The leader may be a server that this one has not met.
    fn handle_coordinator(&mut self, msg: &Message, news: &Coordinator, step: &Step) {
        self.hear_of_server(&news.term.leader.node_id(), &news.address, step.now);
        self.election_module.handle_message(msg, step.now, step.cm);
    }

    fn handle_heartbeat(&mut self, from: &NodeId, heartbeat: &Heartbeat, step: &Step) {
        if let Some(term) = &heartbeat.term {
            self.election_module.observe_term(term);
        }
        let behind = self.metadata_store.is_behind(heartbeat.metadata.as_ref());
        if behind && self.leader_id().as_ref() == Some(from) {
            self.sync_metadata(from, step);
        }
    }

    /// The other end of a dialled connection does not want it.
    pub(super) fn handle_refusal(&mut self, conn: ConnId, msg: &Message, step: &Step) {
        let dialled = self.conns.get(&conn).and_then(|conn| conn.dialled.clone());
        if let (Ok(error), Some(address)) = (msg.content.parse::<ErrorContent>(), dialled) {
            log::warn!("{address} refuses this server: {} ({})", error.reason, error.code);
            self.check_id_taken(&error);
        }
        self.close(conn, "refused by the other side", step);
    }

    /// Of two servers with one id the one that is still starting gives way.
    fn check_id_taken(&mut self, error: &ErrorContent) {
        if error.code == "NODE_ID_IN_USE" && !self.ready {
            self.fatal = Some(error.reason.clone());
        }
    }
}

/// Whether a message between servers is the business of the order, in the designs that have one.
fn is_of_order(message_type: MessageType) -> bool {
    matches!(
        message_type,
        MessageType::Chat
            | MessageType::Ack
            | MessageType::Join
            | MessageType::Members
            | MessageType::Promise
            | MessageType::SeqChat
            | MessageType::CatchupReq
            | MessageType::Noop
            | MessageType::RequestVote
            | MessageType::AppendEntries
            | MessageType::InstallSnapshot
            | MessageType::TimeoutNow
            | MessageType::ReadIndex
            | MessageType::Delete
            | MessageType::Member
    )
}

/// The typed content of `msg`.
pub(super) fn parse<T: serde::de::DeserializeOwned>(msg: &Message) -> Result<T, RequestError> {
    msg.content.parse().map_err(|error| RequestError::InvalidField {
        message_id: msg.message_id.clone(),
        reason: format!("content of {}: {error}", msg.message_type),
    })
}
