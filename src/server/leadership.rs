//! When to elect, and what follows from an election: who leads, where rooms live.
//!
//! An [`Election`](super::election::Election) only finds a winner. These rules say when to hold one, so that
//! in the end the highest live id leads: when no leader is known, when the leader is dead, and when this
//! server's id is higher than the leader's. A server that starts waits for others first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ServerNode;
use super::metadata::View;
use super::step::Step;
use crate::domain::{Message, NodeId};

/// How long a new leader waits for reports before it gives rooms without a host away.
const REPORT_PATIENCE: Duration = Duration::from_millis(300);
/// How often the leader is asked again for the same room.
const REQUEST_AGAIN: Duration = Duration::from_millis(200);

impl ServerNode {
    /// Holds an election when one is due.
    pub(super) fn check_leadership(&mut self, step: &Step) {
        if self.ordered.is_some() {
            self.check_order(step);
            return;
        }
        self.check_ready(step);
        if !self.may_elect(step) || self.election_module.is_under_way() {
            return;
        }
        let due = match self.leader_id() {
            None => true,
            Some(leader) if leader == self.server_id => false,
            Some(leader) => {
                let live = self.servers.get(&leader).is_some_and(super::ring::ServerInfo::is_live);
                !live || leader < self.server_id
            }
        };
        if due {
            log::info!("stands for election");
            self.election_module.start_election(step.now, step.cm);
        }
    }

    /// A server that starts lets the others answer first: one detection time, or until all of its
    /// `--peers` have.
    pub(super) fn may_elect(&self, step: &Step) -> bool {
        let waited = step.now >= self.started_at + self.config.timing.detector.server_timeout;
        waited
            || (self.dials.all_reached() && self.servers.values().all(|info| info.conn.is_some()))
    }

    /// Takes clients as soon as it may elect and knows a leader.
    pub(super) fn check_ready(&mut self, step: &Step) {
        // A client is told the log time: what it says later must not look older than the cluster.
        let knows_time =
            self.ordered.as_ref().is_none_or(|ordered| ordered.storage.log_time_ms() > 0);
        let is_out = self.ordered.as_ref().is_some_and(|ordered| ordered.order.is_removed());
        let may_serve = knows_time && !is_out && self.may_elect(step);
        if !self.ready && may_serve && self.leader_id().is_some() {
            self.ready = true;
            self.progress = true;
            log::info!("ready, takes clients at {}", self.config.address);
        }
        if self.ready && self.ordered.is_none() {
            for room_id in self.config.rooms.clone() {
                if !self.metadata_store.room_locations().contains_key(&room_id) {
                    self.request_room(&room_id, step);
                }
            }
        }
    }

    /// Follows the outcome of an election: near servers, metadata, waiting clients.
    pub(super) fn act_on_leader(&mut self, step: &Step) {
        let leader = self.leader_id();
        let now = (self.election_module.term().cloned(), leader.clone());
        if now == self.acted_term {
            return;
        }
        self.acted_term = now;
        self.pulse.follow(self.acted_term.0.as_ref(), leader.as_ref());
        self.watch_near_servers(step);
        let leads = leader.as_ref() == Some(&self.server_id);
        if let Some(leader) = &leader {
            let counter = self.election_module.term().map_or(0, |term| term.counter);
            let who = if leads { "this server".into() } else { leader.to_string() };
            log::info!("{who} leads in term {counter}");
        }
        if leads && let Some(term) = self.election_module.term().cloned() {
            let (live, held) = self.view();
            let view = View { live: &live, term: Some(&term), held: &held };
            let changed = self.metadata_store.become_leader(&term, view, step.cm);
            self.rehome_at = Some(step.now + REPORT_PATIENCE);
            self.rooms_moved(changed, step);
        } else {
            self.metadata_store.step_down();
            self.rehome_at = None;
        }
        self.check_ready(step);
        self.progress = true;
    }

    /// Tells the failure detector who is near.
    pub(super) fn watch_near_servers(&mut self, step: &Step) {
        let neighbors = [&self.left_neighbor, &self.right_neighbor];
        let neighbors =
            neighbors.into_iter().flatten().map(|neighbor| neighbor.server_id.clone()).collect();
        self.failure_detector.set_near(neighbors, self.leader_id().as_ref(), step.now);
    }

    /// What the metadata store is told of the rest of the server: the live servers, and the rooms with
    /// messages here.
    fn view(&self) -> (BTreeSet<NodeId>, BTreeMap<String, u64>) {
        let mut live = self.live_others();
        live.insert(self.server_id.clone());
        let held = self.managed_rooms.iter().filter(|(_, room)| !room.message_history.is_empty());
        let held = held.map(|(room_id, room)| (room_id.clone(), room.message_history.len() as u64));
        (live, held.collect())
    }

    /// A METADATA_UPDATE from another server.
    pub(super) fn handle_metadata(&mut self, msg: &Message, step: &Step) {
        let (live, held) = self.view();
        let term = self.election_module.term().cloned();
        let view = View { live: &live, term: term.as_ref(), held: &held };
        let changed = self.metadata_store.handle_message(msg, view, step.cm);
        // A map can be here before the announcement of its maker. Forgetting that election would let this
        // server win an earlier term, whose maps nobody takes.
        if let Some(version) = self.metadata_store.version() {
            self.election_module.observe_term(&version.term);
        }
        self.rooms_moved(changed, step);
    }

    /// Tells the leader what this server holds and believes, and gets its map.
    pub(super) fn sync_metadata(&mut self, leader: &NodeId, step: &Step) {
        let (_, held) = self.view();
        self.metadata_store.sync_with_leader(leader, &held, step.cm);
    }

    /// Asks for a host for `room_id`: of the leader, or of oneself. Not more often than every 200 ms.
    pub(super) fn request_room(&mut self, room_id: &str, step: &Step) {
        let asked = self.room_requests.get(room_id);
        if asked.is_some_and(|at| step.now < *at + REQUEST_AGAIN) {
            return;
        }
        let Some(leader) = self.leader_id() else { return };
        self.room_requests.insert(room_id.into(), step.now);
        let (live, held) = self.view();
        let term = self.election_module.term().cloned();
        let view = View { live: &live, term: term.as_ref(), held: &held };
        let changed = self.metadata_store.request(room_id, &leader, view, step.cm);
        self.rooms_moved(changed, step);
    }

    /// Leader: a server came or went, so who holds what is asked anew.
    pub(super) fn recollect_rooms(&mut self, step: &Step) {
        if self.ordered.is_some() || self.leader_id().as_ref() != Some(&self.server_id) {
            return;
        }
        let (live, held) = self.view();
        let term = self.election_module.term().cloned();
        let view = View { live: &live, term: term.as_ref(), held: &held };
        let changed = self.metadata_store.collect(view, step.cm);
        self.rehome_at = Some(step.now + REPORT_PATIENCE);
        self.rooms_moved(changed, step);
    }

    /// Leader: those that did not report in time are waited for no longer.
    pub(super) fn rehome_when_due(&mut self, step: &Step) {
        if self.rehome_at.is_some_and(|at| step.now >= at) {
            self.rehome_at = None;
            let (live, held) = self.view();
            let term = self.election_module.term().cloned();
            let view = View { live: &live, term: term.as_ref(), held: &held };
            let changed = self.metadata_store.rehome(view, step.cm);
            self.rooms_moved(changed, step);
        }
    }

    /// These rooms have another host.
    fn rooms_moved(&mut self, changed: Vec<String>, step: &Step) {
        for room_id in &changed {
            let host = self.metadata_store.host(room_id).map(NodeId::to_string);
            log::debug!("room {room_id} is hosted by {}", host.as_deref().unwrap_or("nobody"));
            self.reconcile_room(room_id, step);
        }
        self.progress |= !changed.is_empty();
    }
}
