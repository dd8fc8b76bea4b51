//! Which order a design keeps: the one place where that is chosen.

use super::raft_order::RaftOrder;
use super::{Ordered, TotalOrder};
use crate::domain::content::Member;
use crate::server::membership::MembershipManager;
use crate::server::ordering::{BATCH_BYTES, OrderingConfig, OrderingManager, PIECE_BYTES};
use crate::server::raft::RaftNode;
use crate::server::server_node::NodeConfig;

/// The order of the design that `config` names; `None` for a design without one.
pub(in crate::server) fn order_of(config: &NodeConfig) -> Option<Ordered> {
    let order: Box<dyn TotalOrder> = match config.design.as_str() {
        "sequencer" => Box::new(sequencer(config)),
        "raft" => Box::new(raft(config)),
        _ => return None,
    };
    Some(Ordered::new(order))
}

fn sequencer(config: &NodeConfig) -> OrderingManager {
    let mut rng = fastrand::Rng::with_seed(config.seed);
    OrderingManager::new(OrderingConfig {
        incarnation: config.incarnation.clone(),
        timing: config.timing.ordering,
        ack_rule: config.ack,
        membership: membership(config, &mut rng),
        rng,
        tail_bytes: config.log_tail_bytes,
        piece_bytes: PIECE_BYTES,
        batch_bytes: BATCH_BYTES,
        uncommitted_max: config.uncommitted_max,
    })
}

fn raft(config: &NodeConfig) -> RaftOrder {
    let mut rng = fastrand::Rng::with_seed(config.seed);
    let membership = membership(config, &mut rng);
    let (id, incarnation) = (config.server_id.clone(), config.incarnation.clone());
    let node = RaftNode::new(id, incarnation, config.disk_id.as_str(), rng, config.timing.raft)
        .keeping_entries(config.compact_after);
    RaftOrder::new(node, membership)
}

/// Who this server is, and how many are to found the cluster.
fn membership(config: &NodeConfig, rng: &mut fastrand::Rng) -> MembershipManager {
    let me = Member { address: config.address.clone(), disk_id: config.disk_id.clone() };
    MembershipManager::new(config.server_id.clone(), me, config.bootstrap_expect, rng.fork())
}
