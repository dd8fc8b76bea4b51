//! Who is still there: heartbeats, and timers that run out.
//!
//! ```text
//!            neighbour                every interval; dead after one timeout
//!   n1 ◀────────────────────▶ n2      The same between the leader and everyone.
//!    ◀ · · · · · · · · · · ▶ n4       The others: every 4th interval; dead after four timeouts.
//!
//!   heard ──▶ Alive ──half the timeout──▶ Suspect ──the whole──▶ Dead ──heard──▶ Alive
//! ```
//!
//! Promise: a server that stays silent is called dead by everyone within four timeouts, by its neighbours
//! and the leader within one; a server that is heard in time is never called dead, even by one that slept.
//! Price: less than `n * (n + 11) / 4` heartbeats an interval on average. Leaves out: agreement. Two
//! servers may think differently of a third for a while.
//!
//! Everything is first-hand: no accusation travels. One server with a bad link, or one that slept,
//! would otherwise throw a healthy server out for everybody; and a server that really died falls silent
//! for everybody anyhow.
//!
//! The detector judges; [`ServerNode`](crate::server) acts on the [`DetectorEvent`]s. That is why
//! `check_timeouts` and `on_failure_detected` need no `cm`, which the diagram gives them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::metadata::MetadataStore;
use super::planted::{Planted, is_planted};
use crate::domain::content::{Heartbeat, Liveness};
use crate::domain::{Message, MessageType, NodeId, Term};
use crate::network::Transport;

/// Far servers get every this-many-th heartbeat, and this many times the timeout.
const FAR: u32 = 4;

/// What a timer watches: the diagram's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerType {
    /// Another server; its timer's id is the node id.
    Server,
    /// A client; its timer's id is the session.
    Client,
}

/// How long silence may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectorTiming {
    /// From one [`send_heartbeat`](FailureDetector::send_heartbeat) to the next; the caller's ticker.
    pub heartbeat_interval: Duration,
    /// Silence after which a neighbour or the leader is dead; it is suspect after half of it.
    pub server_timeout: Duration,
    /// Silence after which a client is sent a HEARTBEAT.
    pub client_heartbeat_after: Duration,
    /// Silence after which a client is gone.
    pub client_timeout: Duration,
}

impl Default for DetectorTiming {
    /// Eight heartbeats may be lost before a server is called dead; a phone may sleep for 30 s.
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            server_timeout: Duration::from_millis(800),
            client_heartbeat_after: Duration::from_secs(10),
            client_timeout: Duration::from_secs(30),
        }
    }
}

/// What the detector noticed; the caller acts on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectorEvent {
    /// The server has been silent for half its timeout.
    Suspected(NodeId),
    /// The server has been silent for its whole timeout: close the ring without it.
    Failed(NodeId),
    /// A suspect or dead server was heard again.
    Recovered(NodeId),
    /// The client of this session has been silent for a while: send it a HEARTBEAT.
    ClientSilent(String),
    /// The client of this session did not answer it either: close its connection. Its timer is gone.
    ClientFailed(String),
}

#[derive(Debug)]
pub(super) struct ServerTimer {
    /// Silence counts from here: when it was heard, or when the timer was restarted.
    since: Instant,
    heard: Option<Instant>,
    state: Liveness,
}

#[derive(Debug)]
pub(super) struct ClientTimer {
    since: Instant,
    /// Whether `ClientSilent` was reported for this silence.
    asked: bool,
}

/// The diagram's `FailureDetector`: one timer for each server and for each client of this server.
#[derive(Debug)]
pub struct FailureDetector {
    /// The diagram's `Node`: this server; it is never watched.
    pub(super) node: NodeId,
    timing: DetectorTiming,
    pub(super) server_timers: BTreeMap<NodeId, ServerTimer>,
    pub(super) client_timers: BTreeMap<String, ClientTimer>,
    /// No client's silence is an event before this time; hearing one only makes it later. Looking at ten thousand of them at
    /// each check cost 5 % of a core.
    clients_due: Option<Instant>,
    neighbors: BTreeSet<NodeId>,
    leader: Option<NodeId>,
    /// Heartbeats sent so far: every [`FAR`]th goes to everyone.
    beats: u32,
    last_check: Option<Instant>,
}

impl FailureDetector {
    /// A detector for the server `node` that watches nobody yet.
    pub fn new(node: NodeId, timing: DetectorTiming) -> Self {
        Self {
            node,
            timing,
            server_timers: BTreeMap::new(),
            client_timers: BTreeMap::new(),
            clients_due: None,
            neighbors: BTreeSet::new(),
            leader: None,
            beats: 0,
            last_check: None,
        }
    }

    /// The settings that it was made with.
    pub fn timing(&self) -> &DetectorTiming {
        &self.timing
    }

    /// Lets every timer start anew: silence counts from `now` on. The states stay.
    pub fn start_monitoring(&mut self, now: Instant) {
        self.last_check = Some(now);
        for timer in self.server_timers.values_mut() {
            timer.since = now;
        }
        for timer in self.client_timers.values_mut() {
            timer.since = now;
        }
    }

    /// Starts to watch a server that was only heard *of*; does nothing when it is watched already.
    pub fn watch(&mut self, id: &NodeId, now: Instant) {
        if *id != self.node && !self.server_timers.contains_key(id) {
            let timer = ServerTimer { since: now, heard: None, state: Liveness::Alive };
            self.server_timers.insert(id.clone(), timer);
        }
    }

    /// Takes over who is near. A server that becomes near starts with a fresh timer, since it was not
    /// asked to send that often until now.
    pub fn set_near(&mut self, neighbors: BTreeSet<NodeId>, leader: Option<&NodeId>, now: Instant) {
        let far: Vec<NodeId> =
            self.server_timers.keys().filter(|id| !self.is_near(id)).cloned().collect();
        self.neighbors = neighbors;
        self.leader = leader.cloned();
        for id in far {
            let near = self.is_near(&id);
            if let Some(timer) = self.server_timers.get_mut(&id).filter(|_| near) {
                timer.since = now;
            }
        }
    }

    /// Whether silence of `id` counts against the short timeout. To the leader everyone is near, as it is
    /// to everyone; both ends of a pair therefore agree how often they write.
    fn is_near(&self, id: &NodeId) -> bool {
        self.neighbors.contains(id)
            || self.leader.as_ref().is_some_and(|leader| leader == id || *leader == self.node)
    }

    /// One heartbeat: to those near on each call, to the others on every 4th. The dead get it like the
    /// others, so that both ends notice when the network is whole again.
    pub fn send_heartbeat(&mut self, cm: &dyn Transport, ms: &MetadataStore, term: Option<&Term>) {
        let beat = Heartbeat { term: term.cloned(), metadata: ms.version().cloned() };
        let msg = Message::new(MessageType::Heartbeat, self.node.as_str()).saying(&beat);
        let everyone = self.beats.is_multiple_of(FAR);
        self.beats = self.beats.wrapping_add(1);
        for (id, timer) in &self.server_timers {
            if everyone || (self.is_near(id) && timer.state != Liveness::Dead) {
                cm.send_to_node(id, &msg);
            }
        }
    }

    /// The diagram's `resetTimer`: `id` was heard at `now`. Starts to watch it when it was not watched.
    pub fn reset_timer(
        &mut self,
        id: &str,
        timer_type: TimerType,
        now: Instant,
    ) -> Option<DetectorEvent> {
        match timer_type {
            TimerType::Server => self.heard_server(&NodeId::from(id), now),
            TimerType::Client => {
                self.heard_client(id, now);
                None
            }
        }
    }

    /// [`reset_timer`](Self::reset_timer) of a server. `Recovered` when it was suspect or dead.
    pub fn heard_server(&mut self, id: &NodeId, now: Instant) -> Option<DetectorEvent> {
        self.watch(id, now);
        let timer = self.server_timers.get_mut(id)?;
        timer.since = now;
        timer.heard = Some(now);
        let before = std::mem::replace(&mut timer.state, Liveness::Alive);
        (before != Liveness::Alive).then(|| DetectorEvent::Recovered(id.clone()))
    }

    /// [`reset_timer`](Self::reset_timer) of a client.
    pub fn heard_client(&mut self, session: &str, now: Instant) {
        let timer = ClientTimer { since: now, asked: false };
        match self.client_timers.get_mut(session) {
            Some(known) => *known = timer,
            None => _ = self.client_timers.insert(session.into(), timer),
        }
    }

    /// Looks at every timer; call it a few times in each half of the server timeout. When it was not called
    /// for longer than that half, this server slept: its mail waits unread, so the silence is
    /// its own, and all timers start anew.
    pub fn check_timeouts(&mut self, now: Instant) -> Vec<DetectorEvent> {
        let last = self.last_check.replace(now);
        let gap = last.map_or(Duration::MAX, |last| now.saturating_duration_since(last));
        if gap > self.timing.server_timeout / 2 && !is_planted(Planted::AccusesAfterSleep) {
            self.start_monitoring(now);
            return Vec::new();
        }
        let mut events = Vec::new();
        let mut failed: Vec<(TimerType, String)> = Vec::new();
        for (id, timer) in &self.server_timers {
            let timeout = self.timing.server_timeout * if self.is_near(id) { 1 } else { FAR };
            let silence = now.saturating_duration_since(timer.since);
            if timer.state != Liveness::Dead && silence >= timeout {
                failed.push((TimerType::Server, id.to_string()));
            } else if timer.state == Liveness::Alive && silence > timeout / 2 {
                events.push(DetectorEvent::Suspected(id.clone()));
            }
        }
        for event in &events {
            if let DetectorEvent::Suspected(id) = event
                && let Some(timer) = self.server_timers.get_mut(id)
            {
                timer.state = Liveness::Suspect;
            }
        }
        if self.clients_due.is_none_or(|due| now >= due) {
            self.check_clients(now, &mut events, &mut failed);
        }
        events.extend(failed.iter().map(|(kind, id)| self.on_failure_detected(id, *kind)));
        events
    }

    /// [`check_timeouts`](Self::check_timeouts) of the clients.
    fn check_clients(
        &mut self,
        now: Instant,
        events: &mut Vec<DetectorEvent>,
        failed: &mut Vec<(TimerType, String)>,
    ) {
        // A client that comes later is not due earlier.
        let asked_after = self.timing.client_heartbeat_after;
        let mut due = now + asked_after.min(self.timing.client_timeout);
        for (session, timer) in &mut self.client_timers {
            let silence = now.saturating_duration_since(timer.since);
            if silence >= self.timing.client_timeout {
                failed.push((TimerType::Client, session.clone()));
            } else if !timer.asked && silence >= self.timing.client_heartbeat_after {
                timer.asked = true;
                events.push(DetectorEvent::ClientSilent(session.clone()));
            }
            let next = if timer.asked { self.timing.client_timeout } else { asked_after };
            due = due.min(timer.since + next.min(self.timing.client_timeout));
        }
        self.clients_due = Some(due);
    }

    /// A timer ran out: a server is dead until it is heard again, a client is no longer watched.
    pub fn on_failure_detected(&mut self, id: &str, timer_type: TimerType) -> DetectorEvent {
        match timer_type {
            TimerType::Server => {
                let id = NodeId::from(id);
                if let Some(timer) = self.server_timers.get_mut(&id) {
                    timer.state = Liveness::Dead;
                }
                DetectorEvent::Failed(id)
            }
            TimerType::Client => {
                self.client_timers.remove(id);
                DetectorEvent::ClientFailed(id.into())
            }
        }
    }

    /// What is thought of a server; `None` when it is not watched.
    pub fn liveness(&self, id: &NodeId) -> Option<Liveness> {
        self.server_timers.get(id).map(|timer| timer.state)
    }

    /// How long ago a server was last heard; `None` when it never was.
    pub fn last_heartbeat(&self, id: &NodeId, now: Instant) -> Option<Duration> {
        let heard = self.server_timers.get(id)?.heard?;
        Some(now.saturating_duration_since(heard))
    }

    /// Every watched server that is not dead.
    pub fn live(&self) -> impl Iterator<Item = &NodeId> {
        self.server_timers.iter().filter(|(_, t)| t.state != Liveness::Dead).map(|(id, _)| id)
    }

    /// Stops to watch `id`: a server that left for good, a client whose connection ended.
    pub fn forget(&mut self, id: &str, timer_type: TimerType) {
        match timer_type {
            TimerType::Server => _ = self.server_timers.remove(&NodeId::from(id)),
            TimerType::Client => _ = self.client_timers.remove(id),
        }
    }
}

#[cfg(test)]
mod tests;
