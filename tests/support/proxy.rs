//! Test clusters whose servers reach each other through [`Fronts`], which can cut them off.

#[allow(unused_imports, reason = "not every test heals")]
pub(crate) use roundtable::torture::fronts::{Fronts, Healing};

use super::cluster::Cluster;

/// As many servers as there are `fronts`, who reach each other through these only.
pub(crate) fn start_cluster(fronts: &Fronts, args: &[&str]) -> Cluster {
    Cluster::start_by(fronts.addresses().len(), args, |index, addresses| {
        fronts.set_target(index, addresses[index]);
        fronts.flags(index)
    })
}
