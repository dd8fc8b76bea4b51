//! Which server hosts which room: a map that the leader keeps and the others copy.
//!
//! ```text
//!   n2 ── Request lobby ─▶ n3 (leader)      n3 gives it to whoever hosts the fewest rooms,
//!   n1 ◀─ Update 7→8 ───── n3 ─────▶ n2     and tells only what changed: from version 7 to 8.
//!   n1 ── Report v6 ─────▶ n3               n1 missed 6→7: it says what it has,
//!   n1 ◀─ Update →8 ────── n3               and gets the whole map.
//!
//!   new leader: Collect ─▶ all, Report ◀─ all. It starts (term, 1) from what everyone knows.
//! ```
//!
//! Promise: whoever has the same version has the same map; the version of the highest term wins; a room
//! that anyone still knows or holds gets a live host again. Price: one message to each server per new room.
//! Leaves out: agreement before use. Two sides of a partition may give a room two hosts; the
//! versions decide when they meet, and the room's messages are on disks, not here.
//!
//! A new leader must hear the others before it gives rooms away: the host should be a server that holds
//! the room's messages, the one with the most. So it waits for the Reports of all live servers, or until
//! the caller's patience ends ([`rehome`](MetadataStore::rehome)), or until a client wants the room now.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::content::{MetadataContent, MetadataVersion};
use crate::domain::ids::name_fault;
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::network::Transport;

/// What the rest of the server knows at the moment of a call.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The servers that are not dead, this one included.
    pub live: &'a BTreeSet<NodeId>,
    /// The last election's outcome.
    pub term: Option<&'a Term>,
    /// Rooms with messages on this server's disk, and how many.
    pub held: &'a BTreeMap<String, u64>,
}

/// The leader's side: what it was told and what it still waits for.
#[derive(Debug)]
struct Leading {
    term: Term,
    /// The version of the beliefs that the map was started from; a Report with a higher one knows better.
    inherited: Option<MetadataVersion>,
    /// Rooms that got their host in this term: no older belief touches them.
    decided: BTreeSet<String>,
    /// The last Report of each server: its rooms and how many messages it has of them.
    holders: BTreeMap<NodeId, BTreeMap<String, u64>>,
    /// Servers that were asked to report and have not.
    awaiting: BTreeSet<NodeId>,
}

/// The diagram's `MetadataStore`.
#[derive(Debug)]
pub struct MetadataStore {
    /// This server.
    node: NodeId,
    room_locations: BTreeMap<String, NodeId>,
    version: Option<MetadataVersion>,
    leading: Option<Leading>,
}

impl MetadataStore {
    /// An empty map for the server `node`.
    pub fn new(node: NodeId) -> Self {
        Self { node, room_locations: BTreeMap::new(), version: None, leading: None }
    }

    /// Every room that is known, with its host.
    pub fn room_locations(&self) -> &BTreeMap<String, NodeId> {
        &self.room_locations
    }

    /// The host of a room.
    pub fn host(&self, room_id: &str) -> Option<&NodeId> {
        self.room_locations.get(room_id)
    }

    /// The version of the map; `None` before the first.
    pub fn version(&self) -> Option<&MetadataVersion> {
        self.version.as_ref()
    }

    /// Whether the leader's heartbeat tells of a newer map: then [`sync_with_leader`](Self::sync_with_leader).
    pub fn is_behind(&self, leaders: Option<&MetadataVersion>) -> bool {
        self.leading.is_none() && leaders > self.version.as_ref()
    }

    /// This server was elected: asks everyone what they know, and starts version (`term`, 1) from it.
    /// Returns the rooms whose host changed, here and below.
    pub fn become_leader(&mut self, term: &Term, view: View, cm: &dyn Transport) -> Vec<String> {
        if self.leading.as_ref().is_some_and(|leading| leading.term == *term) {
            return Vec::new();
        }
        let version = MetadataVersion { term: term.clone(), counter: 1 };
        self.leading = Some(Leading {
            term: term.clone(),
            inherited: self.version.replace(version),
            decided: BTreeSet::new(),
            holders: BTreeMap::new(),
            awaiting: BTreeSet::new(),
        });
        self.collect(view, cm)
    }

    /// Another server leads: this one only copies from now on.
    pub fn step_down(&mut self) {
        self.leading = None;
    }

    /// Leader: a server died or came back. Asks who holds what; when all have answered, rooms of dead
    /// hosts get a live one.
    pub fn collect(&mut self, view: View, cm: &dyn Transport) -> Vec<String> {
        let Some(leading) = &mut self.leading else { return Vec::new() };
        leading.awaiting = view.live.iter().filter(|id| **id != self.node).cloned().collect();
        if !leading.awaiting.is_empty() {
            let collect = MetadataContent::Collect { term: leading.term.clone() };
            cm.broadcast_to_all(&self.message(&collect));
        }
        self.settle(view, cm)
    }

    /// Leader: gives every room without a live host a host now, whoever has not reported yet. A live
    /// holder if there is one (the most messages, then the lowest id), else the live server with the fewest
    /// rooms.
    pub fn rehome(&mut self, view: View, cm: &dyn Transport) -> Vec<String> {
        if let Some(leading) = &mut self.leading {
            leading.awaiting.clear();
        }
        self.settle(view, cm)
    }

    /// A client wants `room_id`: the leader finds a host, the others ask `leader`. Asking again does no harm.
    pub fn request(
        &mut self,
        room_id: &str,
        leader: &NodeId,
        view: View,
        cm: &dyn Transport,
    ) -> Vec<String> {
        if self.leading.is_some() {
            let host = self.find_host(room_id, view);
            return host.map_or_else(Vec::new, |host| self.update_metadata(room_id, &host, cm));
        }
        let request = MetadataContent::Request { room_id: room_id.into() };
        cm.send_to_node(leader, &self.message(&request));
        Vec::new()
    }

    /// Leader: `server` hosts `room_id` from now on. Tells everyone what changed; does nothing when nothing did.
    pub fn update_metadata(
        &mut self,
        room_id: &str,
        server: &NodeId,
        cm: &dyn Transport,
    ) -> Vec<String> {
        self.publish(BTreeMap::from([(room_id.to_string(), server.clone())]), None, cm)
    }

    /// Tells `leader` what this server holds and believes; the answer is the whole map, if it is another.
    pub fn sync_with_leader(
        &self,
        leader: &NodeId,
        held: &BTreeMap<String, u64>,
        cm: &dyn Transport,
    ) {
        let report = MetadataContent::Report {
            held: held.clone(),
            room_locations: self.room_locations.clone(),
            version: self.version.clone(),
        };
        cm.send_to_node(leader, &self.message(&report));
    }

    /// Steps with a METADATA_UPDATE message of a server. What cannot be read is ignored.
    pub fn handle_message(&mut self, msg: &Message, view: View, cm: &dyn Transport) -> Vec<String> {
        let from = NodeId::from(msg.sender_id.as_str());
        if msg.message_type != MessageType::MetadataUpdate || from == self.node {
            return Vec::new();
        }
        match msg.content.parse() {
            Ok(MetadataContent::Request { room_id }) => {
                self.handle_request(&room_id, &from, view, cm)
            }
            Ok(MetadataContent::Collect { term }) => {
                // An old leader that does not know it yet must not be fed: it would give rooms away.
                let led = self.leading.as_ref().map(|leading| &leading.term);
                if Some(&term) >= view.term && Some(&term) > led {
                    self.leading = None; // Its beliefs are wanted now, not after it heard of the election.
                    self.sync_with_leader(&from, view.held, cm);
                }
                Vec::new()
            }
            Ok(MetadataContent::Report { held, room_locations, version }) => {
                self.handle_report(&from, (held, room_locations, version), view, cm)
            }
            Ok(MetadataContent::Update { version, base, room_locations }) => {
                self.handle_update(&from, (version, base, room_locations), view, cm)
            }
            Err(_) => Vec::new(),
        }
    }

    fn handle_request(
        &mut self,
        room_id: &str,
        from: &NodeId,
        view: View,
        cm: &dyn Transport,
    ) -> Vec<String> {
        if self.leading.is_none() || name_fault(room_id).is_some() {
            return Vec::new(); // The asker repeats it, to the leader that it knows by then.
        }
        if self.host(room_id).is_some_and(|host| view.live.contains(host)) {
            // The asker missed the Update. What it believes must be merged before it is replaced.
            if let Some(leading) = &self.leading {
                let collect = MetadataContent::Collect { term: leading.term.clone() };
                cm.send_to_node(from, &self.message(&collect));
            }
            return Vec::new();
        }
        let host = self.find_host(room_id, view);
        host.map_or_else(Vec::new, |host| self.update_metadata(room_id, &host, cm))
    }

    fn handle_report(
        &mut self,
        from: &NodeId,
        (held, mut believed, version): Report,
        view: View,
        cm: &dyn Transport,
    ) -> Vec<String> {
        let Some(leading) = &mut self.leading else { return Vec::new() };
        if version > self.version {
            return Vec::new(); // A later leader's map: this one is about to learn of it.
        }
        let is_current = version == self.version;
        // A version of this term is a past state of this very map: it knows nothing that is not here.
        let is_earlier_leaders = version.as_ref().is_some_and(|v| v.term < leading.term);
        let knows_better = is_earlier_leaders && version > leading.inherited;
        if knows_better {
            leading.inherited = version;
        }
        believed.retain(|room_id, host| {
            !is_faulty(room_id, host)
                && !leading.decided.contains(room_id)
                && (knows_better || !self.room_locations.contains_key(room_id))
        });
        let held = held.into_iter().filter(|(room_id, _)| name_fault(room_id).is_none());
        leading.holders.insert(from.clone(), held.collect());
        leading.awaiting.remove(from);

        let taken_over: BTreeSet<String> = believed.keys().cloned().collect();
        let mut changed = self.publish(believed, Some(from), cm);
        if let Some(leading) = &mut self.leading {
            // What was merely taken over is not decided: a Report of a higher version may still win.
            leading.decided.retain(|room_id| !taken_over.contains(room_id));
        }
        if changed.is_empty() && !is_current {
            self.send_whole(from, cm);
        }
        changed.extend(self.settle(view, cm));
        changed
    }

    fn handle_update(
        &mut self,
        from: &NodeId,
        (version, base, mut update): Update,
        view: View,
        cm: &dyn Transport,
    ) -> Vec<String> {
        // Stale: older than this map, or from a leader that was replaced.
        if self.version.as_ref() >= Some(&version) || view.term > Some(&version.term) {
            return Vec::new();
        }
        if base.is_some() && base != self.version {
            self.sync_with_leader(from, view.held, cm);
            return Vec::new();
        }
        self.leading = None; // Only a later leader's version can be higher than a leader's own.
        update.retain(|room_id, host| !is_faulty(room_id, host));
        let mut changed: Vec<String> = Vec::new();
        for (room_id, host) in &update {
            if self.host(room_id) != Some(host) {
                changed.push(room_id.clone());
            }
        }
        if base.is_none() {
            changed
                .extend(self.room_locations.keys().filter(|r| !update.contains_key(*r)).cloned());
            self.room_locations.clear();
        }
        self.room_locations.extend(update);
        self.version = Some(version);
        changed
    }

    /// Leader: hosts for all rooms without a live one, as soon as nobody's Report is awaited.
    fn settle(&mut self, view: View, cm: &dyn Transport) -> Vec<String> {
        let Some(leading) = &mut self.leading else { return Vec::new() };
        leading.awaiting.retain(|id| view.live.contains(id));
        if !leading.awaiting.is_empty() {
            return Vec::new();
        }
        let known = leading.holders.values().flat_map(BTreeMap::keys);
        let known = known.chain(view.held.keys()).chain(self.room_locations.keys());
        let orphans: BTreeSet<String> = known
            .filter(|room_id| {
                !self.room_locations.get(*room_id).is_some_and(|host| view.live.contains(host))
            })
            .cloned()
            .collect();
        let mut changes = BTreeMap::new();
        let mut load = self.load(view.live);
        for room_id in orphans {
            let host = self.best_holder(&room_id, view).or_else(|| least_loaded(&load));
            let Some(host) = host else { continue };
            *load.entry(host.clone()).or_default() += 1;
            changes.insert(room_id, host);
        }
        self.publish(changes, None, cm)
    }

    /// Leader: who hosts `room_id`, or else who should.
    fn find_host(&self, room_id: &str, view: View) -> Option<NodeId> {
        let host = self.host(room_id).filter(|host| view.live.contains(*host)).cloned();
        host.or_else(|| self.best_holder(room_id, view))
            .or_else(|| least_loaded(&self.load(view.live)))
    }

    /// The live server with the most messages of a room; of several, the lowest id.
    fn best_holder(&self, room_id: &str, view: View) -> Option<NodeId> {
        let reported = self.leading.iter().flat_map(|leading| &leading.holders);
        let reported = reported.filter(|(id, _)| **id != self.node && view.live.contains(*id));
        let mut best: Option<(u64, &NodeId)> = None;
        for (id, held) in reported.chain([(&self.node, view.held)]) {
            let Some(messages) = held.get(room_id).copied() else { continue };
            if best.is_none_or(|(most, by)| messages > most || (messages == most && id < by)) {
                best = Some((messages, id));
            }
        }
        best.map(|(_, id)| id.clone())
    }

    /// How many rooms each live server hosts.
    fn load(&self, live: &BTreeSet<NodeId>) -> BTreeMap<NodeId, usize> {
        let mut load: BTreeMap<NodeId, usize> = live.iter().map(|id| (id.clone(), 0)).collect();
        for host in self.room_locations.values() {
            if let Some(rooms) = load.get_mut(host) {
                *rooms += 1;
            }
        }
        load
    }

    /// Leader: makes the next version with `update` and tells everyone. `reporter` has no base that they
    /// could be laid on; it gets the whole map first, after which the change is old news to it.
    fn publish(
        &mut self,
        mut update: BTreeMap<String, NodeId>,
        reporter: Option<&NodeId>,
        cm: &dyn Transport,
    ) -> Vec<String> {
        update.retain(|room_id, host| self.host(room_id) != Some(host));
        let (Some(leading), Some(version)) = (&mut self.leading, &mut self.version) else {
            return Vec::new();
        };
        if update.is_empty() {
            return Vec::new();
        }
        let base = version.clone();
        version.counter = version.counter.saturating_add(1);
        let changed: Vec<String> = update.keys().cloned().collect();
        leading.decided.extend(changed.iter().cloned());
        self.room_locations.extend(update.clone());
        let update = MetadataContent::Update {
            version: version.clone(),
            base: Some(base),
            room_locations: update,
        };
        if let Some(reporter) = reporter {
            self.send_whole(reporter, cm);
        }
        cm.broadcast_to_all(&self.message(&update));
        changed
    }

    fn send_whole(&self, to: &NodeId, cm: &dyn Transport) {
        let Some(version) = self.version.clone() else { return };
        let room_locations = self.room_locations.clone();
        let update = MetadataContent::Update { version, base: None, room_locations };
        cm.send_to_node(to, &self.message(&update));
    }

    fn message(&self, content: &MetadataContent) -> Message {
        Message::new(MessageType::MetadataUpdate, self.node.as_str()).saying(content)
    }
}

/// Held rooms, believed locations, and the version of that belief.
type Report = (BTreeMap<String, u64>, BTreeMap<String, NodeId>, Option<MetadataVersion>);
/// The version, its base, and the locations.
type Update = (MetadataVersion, Option<MetadataVersion>, BTreeMap<String, NodeId>);

/// The live server with the fewest rooms; of several, the lowest id.
fn least_loaded(load: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
    load.iter().min_by_key(|(_, rooms)| **rooms).map(|(id, _)| id.clone())
}

/// Names that no server of ours would send.
fn is_faulty(room_id: &str, host: &NodeId) -> bool {
    name_fault(room_id).or_else(|| name_fault(host.as_str())).is_some()
}

#[cfg(test)]
mod convergence_tests;
#[cfg(test)]
mod tests;
