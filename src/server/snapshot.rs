//! STATUS: the cluster as this server sees it, for people, scripts and tests.

use std::collections::BTreeSet;

use super::ServerNode;
use super::step::Step;
use crate::domain::content::{HeldBack, Liveness, RoomStatus, ServerStatus, Status, StorageStatus};
use crate::domain::{Message, MessageType, Room};
use crate::network::ConnId;
use crate::trace::Standing;

impl ServerNode {
    /// Where this server stands, for its trace.
    pub fn standing(&self) -> Standing {
        let live = self.servers.iter().filter(|(_, info)| info.is_live());
        Standing {
            state: self.state(),
            leader: self.leader_id(),
            term: self.term().cloned(),
            ready: self.is_ready(),
            live: live.map(|(node_id, _)| node_id.clone()).collect(),
            cluster_id: self.cluster_id().map(str::to_string),
        }
    }

    /// Answers STATUS; with a `room_id` only that room is told.
    pub(super) fn answer_status(&self, conn: ConnId, msg: &Message, step: &Step) {
        let room_id = (!msg.room_id.is_empty()).then_some(msg.room_id.as_str());
        let answer = Message::new(MessageType::Status, self.server_id.as_str())
            .with_id(&msg.message_id)
            .in_room(&msg.room_id)
            .saying(&self.status(room_id, step));
        step.cm.send_to_conn(conn, &answer.to_frame());
    }

    /// The snapshot, with all rooms or one.
    pub fn status(&self, room_id: Option<&str>, step: &Step) -> Status {
        let mut rooms = self.room_names();
        rooms.retain(|name| room_id.is_none_or(|room_id| room_id == name));
        Status {
            node: self.server_id.clone(),
            state: self.state().to_string(),
            leader: self.leader_id(),
            term: self.term().map_or(0, |term| term.counter),
            design: self.config.design.clone(),
            cluster: self.config.cluster.clone(),
            servers: self.server_statuses(step),
            ring: self.ring(),
            rooms: rooms.iter().map(|room_id| self.room_status(room_id)).collect(),
            storage: self.ordered.as_ref().map(|ordered| StorageStatus {
                applied: ordered.storage.applied(),
                digest: format!("{:08x}", ordered.storage.digest()),
            }),
            time: self.time_sync.state(step.now),
            order: self.ordered.as_ref().map(|ordered| ordered.order.status()),
            disk_fault: step.log.fault(),
            syncs: step.log.syncs(),
            heartbeat_lateness: Some(self.pulse.lateness(step.now)),
            leader_changes: Some(self.pulse.leader_changes),
            not_ready: self.takes_no_clients(step),
        }
    }

    /// Why a client would have to wait here, `None` when it would not. What asks regularly whether this server is of
    /// use (a load balancer, the probe of a container) goes by it.
    fn takes_no_clients(&self, step: &Step) -> Option<String> {
        if let Some(fault) = step.log.fault() {
            return Some(format!("its log cannot be written: {fault}"));
        }
        let waits_for = || self.ordered.as_ref()?.order.status().waits_for;
        match self.leader_id() {
            Some(_) if self.ready => None,
            Some(_) => Some("it is starting".into()),
            None => Some(waits_for().unwrap_or_else(|| "no leader is elected".into())),
        }
    }

    /// The rooms that exist.
    pub(super) fn room_names(&self) -> BTreeSet<String> {
        let Some(ordered) = &self.ordered else {
            return self.metadata_store.room_locations().keys().cloned().collect();
        };
        let mut rooms = self.presence.rooms();
        rooms.extend(ordered.storage.rooms().chain(&self.config.rooms).cloned());
        rooms
    }

    fn server_statuses(&self, step: &Step) -> Vec<ServerStatus> {
        let me = ServerStatus {
            id: self.server_id.clone(),
            address: self.config.address.clone(),
            state: Liveness::Alive,
            last_heartbeat_ms: Some(0),
            // That it answers shows it.
            healthy: self.failover.as_ref().map(|_| true),
        };
        let others = self.servers.iter().map(|(id, info)| ServerStatus {
            id: id.clone(),
            address: info.address.clone(),
            state: info.liveness,
            last_heartbeat_ms: self
                .failure_detector
                .last_heartbeat(id, step.now)
                .and_then(|silence| u64::try_from(silence.as_millis()).ok()),
            healthy: self.failover.as_ref().map(|failover| failover.is_healthy(id)),
        });
        let mut servers: Vec<ServerStatus> = std::iter::once(me).chain(others).collect();
        servers.sort_by(|a, b| a.id.cmp(&b.id));
        servers
    }

    fn room_status(&self, room_id: &str) -> RoomStatus {
        let owed = match &self.ordered {
            Some(ordered) => {
                ordered.forwards.messages().filter(|msg| msg.room_id == room_id).count()
            }
            None => self.causal_multicast_handler.owed_acks(room_id),
        };
        RoomStatus {
            room_id: room_id.into(),
            host: self.metadata_store.room_locations().get(room_id).cloned(),
            replicas: self.replicas_of(room_id).into_iter().collect(),
            members: self.presence.users_in(room_id),
            messages: match &self.ordered {
                Some(ordered) => ordered.storage.message_storage().count(room_id),
                None => self.managed_rooms.get(room_id).map_or(0, Room::message_count),
            },
            held_back: self.managed_rooms.get(room_id).map(held_back).unwrap_or_default(),
            unacknowledged: Some(owed as u64).filter(|owed| *owed > 0),
        }
    }
}

/// How many messages that wait for others a status tells of.
const HELD_BACK_TOLD: usize = 5;

fn held_back(room: &Room) -> Vec<HeldBack> {
    let waiting = room.hold_back_queue.awaited().flat_map(|(awaited, awaited_count, messages)| {
        messages.iter().filter_map(move |msg| {
            let (origin, count) = msg.stamp()?;
            Some(HeldBack {
                sender: msg.sender_id.clone(),
                origin: origin.clone(),
                count,
                awaited: awaited.clone(),
                awaited_count,
                here: room.clock.get(awaited),
            })
        })
    });
    waiting.take(HELD_BACK_TOLD).collect()
}
