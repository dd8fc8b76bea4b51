//! Whose port takes connections: the TCP health checks of the design `raft`.
//!
//! ```text
//!   every health_check_interval         n1 ──connect──▶ n2     taken: healthy, close without a word
//!   every other cluster node            n1 ──connect──▶ n3 ✗   refused, or nothing within the timeout: removed from
//!                                                              healthy_nodes until a later check reaches it
//! ```
//!
//! Promise: a node whose port takes no connections leaves [`healthy_nodes`](Failover::healthy_nodes) within one
//! interval and two timeouts, and is back within as long after it takes them again. Price: a connection to each node
//! and interval.
//! Leaves out: deciding anything. That a port takes connections says little: the operating system does that for a
//! process that hangs. Who leads is for the votes, and who is alive for the heartbeats; this tells people, and
//! whoever has to choose between servers.
//!
//! It is pure: `health-check`, a thread of the [shell](crate::server::shell), asks who is [`due`](Failover::due),
//! connects with [`are_nodes_alive`](crate::network::health_check::are_nodes_alive) while it holds no lock, and hands
//! in what came. That one thread begins all connections that are due at once and waits for them together, so that a
//! node that does not answer delays no other.
//!
//! | `Failover` in the document | here |
//! |---|---|
//! | `cluster_nodes` | [`cluster_nodes`](Failover::cluster_nodes), kept up to date by [`update_cluster_nodes`](Failover::update_cluster_nodes): servers come and go; the own one is not in it |
//! | `current_leader` | [`current_leader`](Failover::current_leader), kept up to date by [`leader_changed`](Failover::leader_changed) |
//! | `healthy_nodes` | [`healthy_nodes`](Failover::healthy_nodes); at first all, as there |
//! | `stop_event` | [`Threads::stopped`](crate::threads::Threads::stopped), the same for all threads |
//! | `monitor_thread` | the thread `health-check`, joined with the others by [`Threads::join`](crate::threads::Threads::join) |
//! | `health_check_interval` | [`HealthTiming::health_check_interval`]; its 3 s, and the 2 s of the connection, are [`HealthTiming::DOCUMENT`] |
//! | `_check_node_health()` | `Shell::check_node_health`: one round, from `due` to [`checked`](Failover::checked), which adds and removes |
//! | `_is_node_alive()` | [`Probe::is_node_alive`](crate::network::health_check::Probe::is_node_alive): one connection, not waited for |
//! | "with proper locking" | it lives in [`ServerNode`](crate::server::ServerNode), under the node's lock, which no check holds |
//!
//! Source: raft-messaging.txt, "Failover Logic".

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::domain::NodeId;

/// How often ports are tried, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthTiming {
    /// From one check of a node to the next.
    pub health_check_interval: Duration,
    /// How long a connection may take.
    pub health_check_timeout: Duration,
}

impl HealthTiming {
    /// What raft-messaging.txt has.
    pub const DOCUMENT: Self = Self {
        health_check_interval: Duration::from_secs(3),
        health_check_timeout: Duration::from_secs(2),
    };
    /// What is usual here. A connection to the other side of the earth takes 300 ms.
    pub const FAST: Self = Self {
        health_check_interval: Duration::from_secs(1),
        health_check_timeout: Duration::from_millis(500),
    };
}

/// What a check changed. Displays as a sentence for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthChange {
    /// The node takes connections again.
    Recovered {
        /// Which.
        node: NodeId,
    },
    /// The node takes no connections any more.
    Failed {
        /// Which.
        node: NodeId,
        /// Where it was tried, `host:port`.
        address: String,
        /// Whether it leads.
        leads: bool,
    },
}

impl fmt::Display for HealthChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovered { node } => write!(f, "health check: {node} takes connections again"),
            Self::Failed { node, address, leads } => {
                let leader = if *leads { ", the leader," } else { "" };
                write!(f, "health check: {node}{leader} takes no connections at {address}")
            }
        }
    }
}

/// A node of the cluster, as the health checks see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Where it is tried, `host:port`.
    pub address: String,
    /// When it is to be checked next; `None`: as soon as possible.
    due_at: Option<Instant>,
}

/// The document's `Failover`, without its thread: see the [module](self).
#[derive(Debug)]
pub struct Failover {
    /// The other servers of the cluster.
    pub cluster_nodes: BTreeMap<NodeId, ClusterNode>,
    /// Who leads, this server included.
    pub current_leader: Option<NodeId>,
    healthy_nodes: BTreeSet<NodeId>,
    timing: HealthTiming,
}

impl Failover {
    /// Knows nobody yet.
    pub fn new(timing: HealthTiming) -> Self {
        Self {
            cluster_nodes: BTreeMap::new(),
            current_leader: None,
            healthy_nodes: BTreeSet::new(),
            timing,
        }
    }

    /// The settings that it was made with.
    pub fn timing(&self) -> &HealthTiming {
        &self.timing
    }

    /// Takes over the other servers and where they are tried, `host:port`. A new one counts as healthy until a check
    /// says otherwise; so does one that moved, since it was not tried there.
    pub fn update_cluster_nodes<'a>(
        &mut self,
        nodes: impl IntoIterator<Item = (&'a NodeId, &'a str)>,
    ) {
        let mut before = std::mem::take(&mut self.cluster_nodes);
        for (id, address) in nodes {
            let known = before.remove(id).filter(|node| node.address == address);
            let node = known.unwrap_or_else(|| {
                self.healthy_nodes.insert(id.clone());
                ClusterNode { address: address.into(), due_at: None }
            });
            self.cluster_nodes.insert(id.clone(), node);
        }
        self.healthy_nodes.retain(|id| self.cluster_nodes.contains_key(id));
    }

    /// Takes over who leads. True when that is news.
    pub fn leader_changed(&mut self, leader: Option<NodeId>) -> bool {
        let changed = self.current_leader != leader;
        self.current_leader = leader;
        changed
    }

    /// The nodes that are to be checked now, and where. Each is due again one interval later, whatever comes of this
    /// check.
    pub fn due(&mut self, now: Instant) -> Vec<(NodeId, String)> {
        let is_due = |node: &ClusterNode| node.due_at.is_none_or(|at| now >= at);
        let due = self.cluster_nodes.iter_mut().filter(|(_, node)| is_due(node));
        due.map(|(id, node)| {
            node.due_at = Some(now + self.timing.health_check_interval);
            (id.clone(), node.address.clone())
        })
        .collect()
    }

    /// How long nobody is due; at most one interval, so that new nodes are not left out for long.
    pub fn next_due(&self, now: Instant) -> Duration {
        let waits = self
            .cluster_nodes
            .values()
            .map(|node| node.due_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)));
        waits.min().unwrap_or(self.timing.health_check_interval)
    }

    /// Takes what came of a check of `node` at `address`: whether the port took the connection. An answer about a
    /// node that left or moved meanwhile says nothing.
    pub fn checked(&mut self, node: &NodeId, address: &str, alive: bool) -> Option<HealthChange> {
        self.cluster_nodes.get(node).filter(|known| known.address == address)?;
        if alive {
            let changed = self.healthy_nodes.insert(node.clone());
            return changed.then(|| HealthChange::Recovered { node: node.clone() });
        }
        let changed = self.healthy_nodes.remove(node);
        changed.then(|| HealthChange::Failed {
            node: node.clone(),
            address: address.into(),
            leads: self.current_leader.as_ref() == Some(node),
        })
    }

    /// The other servers whose port took the last connection, or was not tried yet.
    pub fn healthy_nodes(&self) -> &BTreeSet<NodeId> {
        &self.healthy_nodes
    }

    /// Whether `node` is one of them.
    pub fn is_healthy(&self, node: &NodeId) -> bool {
        self.healthy_nodes.contains(node)
    }

    /// Whether the leader is another server, and one that takes no connections.
    pub fn is_leader_down(&self) -> bool {
        let leader = self.current_leader.as_ref();
        leader.is_some_and(|id| self.cluster_nodes.contains_key(id) && !self.is_healthy(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    const FAST: HealthTiming = HealthTiming::FAST;

    fn ids(nodes: &[(NodeId, String)]) -> Vec<&str> {
        nodes.iter().map(|(id, _)| id.as_str()).collect()
    }

    /// Knows n2 and n3.
    fn failover() -> Failover {
        let mut failover = Failover::new(FAST);
        failover.update_cluster_nodes([(&"n2".into(), "h:2"), (&"n3".into(), "h:3")]);
        failover
    }

    #[test]
    fn every_node_is_due_at_once_and_again_after_each_interval() {
        let mut failover = failover();
        assert_eq!(failover.next_due(start()), Duration::ZERO);
        assert_eq!(ids(&failover.due(start())), ["n2", "n3"]);
        let half = start() + FAST.health_check_interval / 2;
        assert!(failover.due(half).is_empty());
        assert_eq!(failover.next_due(half), FAST.health_check_interval / 2);
        // A new node does not wait for the others, nor they for it.
        let nodes = ["n2", "n3", "n4"].map(|id| (NodeId::from(id), format!("h:{}", &id[1..])));
        failover.update_cluster_nodes(nodes.iter().map(|(id, at)| (id, at.as_str())));
        assert_eq!(ids(&failover.due(half)), ["n4"]);
        assert_eq!(ids(&failover.due(start() + FAST.health_check_interval)), ["n2", "n3"]);
    }

    #[test]
    fn with_nobody_to_check_it_looks_again_after_an_interval() {
        let mut failover = Failover::new(HealthTiming::DOCUMENT);
        assert_eq!(failover.next_due(start()), Duration::from_secs(3));
        assert!(failover.due(start()).is_empty());
    }

    #[test]
    fn only_what_changes_is_told() {
        let mut failover = failover();
        let n2 = NodeId::from("n2");
        let failed = HealthChange::Failed { node: n2.clone(), address: "h:2".into(), leads: false };
        let recovered = HealthChange::Recovered { node: n2.clone() };
        for (alive, change, healthy) in [
            (true, None, vec!["n2", "n3"]),
            (false, Some(failed.clone()), vec!["n3"]),
            (false, None, vec!["n3"]),
            (true, Some(recovered), vec!["n2", "n3"]),
            (false, Some(failed), vec!["n3"]),
        ] {
            assert_eq!(failover.checked(&n2, "h:2", alive), change);
            let names: Vec<&str> = failover.healthy_nodes().iter().map(NodeId::as_str).collect();
            assert_eq!((names, failover.is_healthy(&n2)), (healthy, alive));
        }
    }

    #[test]
    fn an_answer_about_a_node_that_left_or_moved_meanwhile_says_nothing() {
        let mut failover = failover();
        let (n2, n3) = (NodeId::from("n2"), NodeId::from("n3"));
        failover.due(start());
        assert!(failover.checked(&n3, "h:3", false).is_some());
        failover.update_cluster_nodes([(&n3, "h:33")]);
        assert_eq!(failover.checked(&n2, "h:2", true), None);
        assert!(!failover.is_healthy(&n2), "it left");
        assert_eq!(failover.checked(&n3, "h:3", false), None);
        assert!(failover.is_healthy(&n3), "nobody tried its new address yet");
        assert_eq!(failover.due(start()), [(n3, "h:33".into())], "which is done at once");
    }

    #[test]
    fn the_leader_is_followed_and_named_when_it_fails() {
        let mut failover = failover();
        assert!(!failover.is_leader_down());
        assert!(failover.leader_changed(Some("n3".into())));
        assert!(!failover.leader_changed(Some("n3".into())));
        let told = failover.checked(&"n3".into(), "h:3", false).unwrap().to_string();
        assert_eq!(told, "health check: n3, the leader, takes no connections at h:3");
        assert!(failover.is_leader_down());
        assert!(failover.leader_changed(Some("n1".into())), "this server");
        assert!(!failover.is_leader_down());
        let told = failover.checked(&"n2".into(), "h:2", false).unwrap().to_string();
        assert_eq!(told, "health check: n2 takes no connections at h:2");
        let told = failover.checked(&"n2".into(), "h:2", true).unwrap().to_string();
        assert_eq!(told, "health check: n2 takes connections again");
    }
}
