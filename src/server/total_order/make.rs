//! Which order a design keeps: the one place where that is chosen.

use super::{Ordered, TotalOrder};
use crate::domain::content::Member;
use crate::server::membership::MembershipManager;
use crate::server::ordering::{OrderingConfig, OrderingManager};
use crate::server::server_node::NodeConfig;

/// The order of the design that `config` names; `None` for a design without one.
pub(in crate::server) fn order_of(config: &NodeConfig) -> Option<Ordered> {
    let order: Box<dyn TotalOrder> = match config.design.as_str() {
        "sequencer" => Box::new(sequencer(config)),
        _ => return None,
    };
    Some(Ordered::new(order))
}

fn sequencer(config: &NodeConfig) -> OrderingManager {
    let mut rng = fastrand::Rng::with_seed(config.seed);
    let me = Member { address: config.address.clone(), disk_id: config.disk_id.clone() };
    let expected = config.bootstrap_expect;
    let membership = MembershipManager::new(config.server_id.clone(), me, expected, rng.fork());
    OrderingManager::new(OrderingConfig {
        incarnation: config.incarnation.clone(),
        timing: config.timing.ordering,
        ack_rule: config.ack,
        membership,
        rng,
    })
}
