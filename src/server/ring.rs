//! The ring: which servers are live, in order, and who stands beside whom.
//!
//! ```text
//!      n1 ── n2 ── n3 ── n5        ids in natural order; n4 is dead, so n3 and n5 are neighbours
//!      └──────────────────┘        the highest id's right neighbour is the lowest
//! ```
//!
//! Every server computes the ring from the servers that it finds alive itself. Views may differ for a
//! moment; elections carry terms and time out, so that they end once the views agree.

use std::time::Instant;

use super::ServerNode;
use super::dials::Dials;
use super::failure_detector::{DetectorEvent, TimerType};
use super::step::Step;
use crate::domain::content::{Hello, Liveness};
use crate::domain::{Incarnation, NodeId};
use crate::network::ConnId;

/// The server beside this one on the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingNeighbor {
    /// Its id.
    pub server_id: NodeId,
    /// Where it can be dialled, `host:port`.
    pub address: String,
}

/// What is known of another server: an entry of the diagram's `servers`.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Where it can be dialled, `host:port`.
    pub address: String,
    /// Which life of it was met last.
    pub incarnation: Option<Incarnation>,
    /// The random name of its data folder.
    pub disk_id: Option<String>,
    /// What the failure detector thinks of it. A server that was only heard of is dead until it is met.
    pub liveness: Liveness,
    /// The connection to it, while there is one.
    pub conn: Option<ConnId>,
}

impl ServerInfo {
    /// A server that was heard of and not met yet.
    pub fn heard_of(address: &str) -> Self {
        Self {
            address: address.into(),
            incarnation: None,
            disk_id: None,
            liveness: Liveness::Dead,
            conn: None,
        }
    }

    /// Whether it counts: alive, or suspected only.
    pub fn is_live(&self) -> bool {
        self.liveness != Liveness::Dead
    }
}

impl ServerNode {
    /// The ids of the live servers in the order of the ring, this one included.
    pub fn ring(&self) -> Vec<NodeId> {
        let mut ring: Vec<NodeId> = self.live_others().into_iter().collect();
        ring.push(self.server_id.clone());
        ring.sort();
        ring
    }

    /// How many servers live, this one included.
    pub fn live_servers(&self) -> usize {
        1 + self.servers.values().filter(|info| info.is_live()).count()
    }

    /// The left and right neighbours of `my_id` among the live servers; `None` when it is alone there.
    pub fn get_neighbors(&self, my_id: &NodeId) -> (Option<RingNeighbor>, Option<RingNeighbor>) {
        let ring = self.ring();
        let Some(at) = ring.iter().position(|id| id == my_id) else { return (None, None) };
        if ring.len() == 1 {
            return (None, None);
        }
        let left = &ring[(at + ring.len() - 1) % ring.len()];
        let right = &ring[(at + 1) % ring.len()];
        (Some(self.ring_neighbor(left)), Some(self.ring_neighbor(right)))
    }

    fn ring_neighbor(&self, server_id: &NodeId) -> RingNeighbor {
        let address =
            self.servers.get(server_id).map_or(&self.config.address, |info| &info.address);
        RingNeighbor { server_id: server_id.clone(), address: address.clone() }
    }

    /// The right neighbour of `node_id` on the ring: the second replica of the rooms that it hosts.
    pub(super) fn right_of(&self, node_id: &NodeId) -> Option<NodeId> {
        self.get_neighbors(node_id).1.map(|neighbor| neighbor.server_id)
    }

    /// Takes over what a server says of itself in its HELLO. The diagram's `update_neighbour_id(msg)`.
    pub fn update_neighbour_id(&mut self, hello: &Hello) -> &mut ServerInfo {
        let info = self
            .servers
            .entry(hello.id.clone())
            .or_insert_with(|| ServerInfo::heard_of(&hello.address));
        info.address.clone_from(&hello.address);
        info.incarnation = Some(hello.incarnation.clone());
        info.disk_id = Some(hello.disk_id.clone());
        info
    }

    /// Computes the neighbours anew after a server came or went; the election and the rooms follow.
    pub(super) fn recompute_ring(&mut self, step: &Step) {
        let (left, right) = self.get_neighbors(&self.server_id);
        let ids = |neighbor: &Option<RingNeighbor>| neighbor.as_ref().map(|n| n.server_id.clone());
        let (left_id, right_id) = (ids(&left), ids(&right));
        let changed = left_id != ids(&self.left_neighbor) || right_id != ids(&self.right_neighbor);
        self.left_neighbor = left;
        self.right_neighbor = right;
        if changed {
            let ring: Vec<String> = self.ring().iter().map(NodeId::to_string).collect();
            log::info!("ring: {}", ring.join(" -> "));
        }
        self.election_module.members_changed(&self.ring(), step.now, step.cm);
        self.watch_near_servers(step);
        self.recollect_rooms(step);
        self.reconcile_rooms(step);
        self.touch_all_rooms();
        self.anti_entropy_at = step.now;
        self.progress = true;
    }

    /// Starts the failure detector for every server that is connected: the diagram's
    /// `StartFailureDetection`.
    pub fn start_failure_detection(&mut self, step: &Step) {
        self.failure_detector.start_monitoring(step.now);
    }

    /// Acts on what the failure detector finds.
    pub(super) fn check_silence(&mut self, step: &Step) {
        for event in self.failure_detector.check_timeouts(step.now) {
            match event {
                DetectorEvent::Suspected(node_id) => self.set_liveness(&node_id, Liveness::Suspect),
                DetectorEvent::Recovered(node_id) => self.set_liveness(&node_id, Liveness::Alive),
                DetectorEvent::Failed(node_id) => {
                    self.server_failed(&node_id, "it is silent", step);
                }
                DetectorEvent::ClientSilent(session) => self.probe_client(&session, step),
                DetectorEvent::ClientFailed(session) => self.client_failed(&session, step),
            }
        }
    }

    fn set_liveness(&mut self, node_id: &NodeId, liveness: Liveness) {
        if let Some(info) = self.servers.get_mut(node_id)
            && info.liveness != liveness
            && info.is_live()
        {
            info.liveness = liveness;
            log::debug!("{node_id} is {liveness:?}");
        }
    }

    /// A server is gone: the ring closes over it, and its clients are away.
    pub(super) fn server_failed(&mut self, node_id: &NodeId, why: &str, step: &Step) {
        let Some(info) = self.servers.get_mut(node_id) else { return };
        if !info.is_live() {
            return;
        }
        info.liveness = Liveness::Dead;
        log::info!("{node_id} is dead: {why}");
        if let Some(conn) = info.conn.take() {
            // The dial that led to it is over, too; else this server would never dial that one again.
            if let Some(address) = self.conns.remove(&conn).and_then(|ended| ended.dialled) {
                self.dials.failed(&address, step.now);
            }
            step.cm.close(conn);
        }
        self.failure_detector.on_failure_detected(node_id.as_str(), TimerType::Server);
        if let Some(ordered) = &mut self.ordered {
            ordered.order.node_failed(node_id, step);
        }
        self.presence.set_node_away(node_id, step.now);
        self.causal_multicast_handler.forget_node(node_id);
        if self.leader_id().as_ref() == Some(node_id) {
            self.election_module.forget_leader();
        }
        self.recompute_ring(step);
        self.check_leadership(step);
    }

    /// Dials the servers that should be connected and are not.
    pub(super) fn dial_servers(&mut self, step: &Step) {
        let connected = |info: &ServerInfo| info.conn.is_some();
        let missing: Vec<String> = self
            .servers
            .values()
            .filter(|info| !connected(info))
            .map(|info| info.address.clone())
            .collect();
        for address in &missing {
            self.dials.want(address, step.now);
        }
        let connected_ids: Vec<&NodeId> =
            self.servers.iter().filter(|(_, info)| connected(info)).map(|(id, _)| id).collect();
        for address in self.dials.due(step.now, &connected_ids) {
            step.cm.dial(&address);
        }
    }

    /// Dialling `address` did not work; `refused` says that nobody listens there.
    pub fn dial_failed(&mut self, address: &str, refused: bool, step: &Step) {
        self.dials.failed(address, step.now);
        let gone = self
            .servers
            .iter()
            .find(|(_, info)| info.address == address && info.conn.is_none() && info.is_live());
        // A refusal is proof that the program is gone; silence would take the whole timeout.
        if let Some((node_id, _)) = gone
            && refused
        {
            let node_id = node_id.clone();
            self.server_failed(&node_id, "it refuses connections", step);
        }
    }

    /// Remembers a server that was heard of, to be dialled. True when it is new.
    pub(super) fn hear_of_server(&mut self, id: &NodeId, address: &str, now: Instant) -> bool {
        if *id == self.server_id {
            return false;
        }
        let new = !self.servers.contains_key(id);
        let info = self.servers.entry(id.clone()).or_insert_with(|| ServerInfo::heard_of(address));
        if info.conn.is_none() {
            // It may have come back under another address.
            info.address = address.into();
            self.dials.want_after(address, Dials::stagger(&self.server_id, id), now);
        }
        new
    }
}
