//! The servers that are measured: started for it, or somewhere already.

use std::net::{SocketAddr, ToSocketAddrs as _};

use super::gauge::Gauge;
use super::watch::{Halt, Watch};
use super::{BenchSettings, Servers, Workload};
use crate::client::query_status_of_room;
use crate::config::Design;
use crate::local_cluster::{ClusterSettings, LocalCluster, Place, ServerProcess};

/// A room that does not exist: STATUS about it is short.
pub(super) const NO_ROOM: &str = "-";

/// Some servers that agree on a leader.
#[derive(Debug)]
pub(super) struct Target {
    /// Where clients connect, in turn.
    pub(super) addresses: Vec<SocketAddr>,
    /// Their design.
    pub(super) design: String,
    /// Those that were started for this.
    pub(super) own: Option<LocalCluster>,
    /// The processes of the others, as far as they were named.
    pids: Vec<u32>,
    /// Makes names unique: in the servers' logs there may be other measurements.
    name: String,
    rooms_used: usize,
}

impl Target {
    /// Starts servers for `workload`, or asks those that were named.
    pub(super) fn prepare(
        settings: &BenchSettings,
        workload: Workload,
        watch: &mut Watch,
    ) -> Result<Self, Halt> {
        match &settings.servers {
            Servers::Own { design, nodes } => {
                let servers = nodes.unwrap_or(workload.nodes());
                Self::start(*design, servers, |place| place.peers(), watch)
            }
            Servers::Given { connect, pids } => {
                watch.begin("servers are asked")?;
                let addresses: Vec<SocketAddr> =
                    connect.iter().map(|name| resolve(name)).collect::<Result<_, _>>()?;
                let mut design = String::new();
                for (address, name) in addresses.iter().zip(connect) {
                    let status = query_status_of_room(&address.to_string(), NO_ROOM);
                    let no_answer =
                        |error| Halt::failed(format!("no server answers at {name}: {error}"));
                    let status = status.map_err(no_answer)?;
                    if let Some(reason) = status.not_ready {
                        return Err(Halt::failed(format!("{name} takes no clients now: {reason}")));
                    }
                    design = status.design;
                }
                Ok(Self::new(addresses, design, None, pids.clone()))
            }
        }
    }

    /// Starts so many servers that find each other by the flags that `flags_of` has for each.
    pub(super) fn start(
        design: Design,
        servers: usize,
        flags_of: impl Fn(Place) -> Vec<String>,
        watch: &mut Watch,
    ) -> Result<Self, Halt> {
        watch.begin("servers start")?;
        let flags = vec!["--log".into(), "warn".into()];
        let common = ClusterSettings { servers, design: design.to_string(), flags };
        let own = watch.unless_stopped(LocalCluster::start(&common, watch.stop(), flags_of))?;
        let addresses = own.servers().iter().map(ServerProcess::address).collect();
        Ok(Self::new(addresses, common.design, Some(own), Vec::new()))
    }

    fn new(
        addresses: Vec<SocketAddr>,
        design: String,
        own: Option<LocalCluster>,
        pids: Vec<u32>,
    ) -> Self {
        let name = format!("bench-{:08x}", fastrand::Rng::new().u32(..));
        Self { addresses, design, own, pids, name, rooms_used: 0 }
    }

    /// Looks at these servers, as they run now.
    pub(super) fn gauge(&self) -> Result<Gauge, Halt> {
        let pids = self.own.as_ref().map_or_else(
            || self.pids.clone(),
            |own| own.servers().iter().filter_map(ServerProcess::pid).collect(),
        );
        Ok(Gauge::start(pids, self.addresses.clone())?)
    }

    /// The names of so many rooms that nobody has used.
    pub(super) fn rooms(&mut self, count: usize) -> Vec<String> {
        self.rooms_used += count;
        let first = self.rooms_used - count;
        (first..self.rooms_used).map(|number| format!("{}-{number}", self.name)).collect()
    }

    /// Servers that do not exist.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self::new(Vec::new(), "ring".into(), None, Vec::new())
    }
}

fn resolve(name: &str) -> Result<SocketAddr, Halt> {
    let found = name.to_socket_addrs();
    let found = found.map_err(|error| Halt::failed(format!("{name}: {error}")))?.next();
    found.ok_or_else(|| Halt::failed(format!("{name}: no such host")))
}
