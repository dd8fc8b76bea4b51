//! STATUS: the cluster as this server sees it, for people, scripts and tests.

use std::collections::BTreeSet;

use super::ServerNode;
use super::step::Step;
use crate::domain::content::{Liveness, RoomStatus, ServerStatus, Status, StorageStatus};
use crate::domain::{Message, MessageType, Room};
use crate::network::ConnId;

impl ServerNode {
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
        RoomStatus {
            room_id: room_id.into(),
            host: self.metadata_store.room_locations().get(room_id).cloned(),
            replicas: self.replicas_of(room_id).into_iter().collect(),
            members: self.presence.users_in(room_id),
            messages: match &self.ordered {
                Some(ordered) => ordered.storage.message_storage().count(room_id),
                None => self.managed_rooms.get(room_id).map_or(0, Room::message_count),
            },
        }
    }
}
