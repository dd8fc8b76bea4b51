//! The servers that are measured: started for it, or somewhere already.

use std::net::{SocketAddr, ToSocketAddrs as _};

use super::gauge::Gauge;
use super::watch::{Halt, Watch};
use super::{BenchSettings, Servers, Workload};
use crate::client::query_status_of_room;
use crate::local_cluster::{ClusterSettings, LocalCluster, Place, ServerProcess};

/// A room that does not exist: STATUS about it is short.
const NO_ROOM: &str = "-";

/// Some servers that agree on a leader.
#[derive(Debug)]
pub(super) struct Target {
    /// Where clients connect, in turn.
    pub(super) addresses: Vec<SocketAddr>,
    /// Their design.
    pub(super) design: String,
    /// Those that were started for this.
    pub(super) own: Option<LocalCluster>,
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
        let name = format!("bench-{:08x}", fastrand::Rng::new().u32(..));
        match &settings.servers {
            Servers::Own { design, nodes } => {
                watch.begin("servers start")?;
                let common = ClusterSettings {
                    servers: nodes.unwrap_or(workload.nodes()),
                    design: design.to_string(),
                    flags: vec!["--log".into(), "warn".into()],
                };
                let started =
                    LocalCluster::start(&common, watch.stop(), |place: Place| place.peers());
                let own = watch.unless_stopped(started)?;
                let addresses = own.servers().iter().map(ServerProcess::address).collect();
                let pids = own.servers().iter().filter_map(ServerProcess::pid).collect();
                Ok(Self {
                    addresses,
                    design: common.design,
                    own: Some(own),
                    pids,
                    name,
                    rooms_used: 0,
                })
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
                Ok(Self { addresses, design, own: None, pids: pids.clone(), name, rooms_used: 0 })
            }
        }
    }

    /// Looks at these servers.
    pub(super) fn gauge(&self) -> Result<Gauge, Halt> {
        Ok(Gauge::start(self.pids.clone(), self.addresses.clone())?)
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
        let (design, name) = ("ring".into(), "bench".into());
        Self { addresses: Vec::new(), design, own: None, pids: Vec::new(), name, rooms_used: 0 }
    }
}

fn resolve(name: &str) -> Result<SocketAddr, Halt> {
    let found = name.to_socket_addrs();
    let found = found.map_err(|error| Halt::failed(format!("{name}: {error}")))?.next();
    found.ok_or_else(|| Halt::failed(format!("{name}: no such host")))
}
