//! The thread `health-check`: tries the ports that [`Failover`](crate::server::Failover) names.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

use super::Shell;
use crate::network::health_check::are_nodes_alive;
use crate::server::failover::HealthChange;

impl Shell {
    /// The body of `health-check`: the document's `monitor_thread`.
    pub(super) fn monitor_nodes(self: &Arc<Self>) {
        while let Some(wait) = self.check_node_health() {
            let waited = self.threads.stopped().recv_timeout(wait);
            if waited != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
    }

    /// One round of checks: the document's `_check_node_health`. Returns how long to wait for the next one; `None`
    /// when no health checks run.
    fn check_node_health(self: &Arc<Self>) -> Option<Duration> {
        let (nodes, timeout) = self.step(|node, step| {
            let leader = node.leader_id();
            let failover = node.failover.as_mut()?;
            failover.update_cluster_nodes(
                node.servers.iter().map(|(id, info)| (id, info.address.as_str())),
            );
            if failover.leader_changed(leader) && failover.is_leader_down() {
                log::warn!("health check: the new leader takes no connections");
            }
            Some((failover.due(step.now), failover.timing().health_check_timeout))
        })?;
        let checked = are_nodes_alive(nodes, timeout, self.threads.stopped());
        self.step(|node, step| {
            let failover = node.failover.as_mut()?;
            for (id, address, outcome) in checked {
                if let Err(error) = &outcome {
                    log::debug!("health check of {id} at {address}: {error}");
                }
                match failover.checked(&id, &address, outcome.is_ok()) {
                    Some(change @ HealthChange::Failed { .. }) => log::warn!("{change}"),
                    Some(change) => log::info!("{change}"),
                    None => {}
                }
            }
            Some(failover.next_due(step.now))
        })
    }
}
