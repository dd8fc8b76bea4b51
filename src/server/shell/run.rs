//! From settings to a running server, and to its end: what `roundtable server` calls.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::Outside;
use crate::config::ServerConfig;
use crate::error::StartError;
use crate::logging::{self, NodeLabel};
use crate::network::listener::bind_listener;
use crate::network::tcp_connection::ConnectionSettings;
use crate::open_files;
use crate::server::failure_detector::DetectorTiming;
use crate::server::ordering::UNCOMMITTED_MAX;
use crate::server::server_node::{NodeConfig, Timing};
use crate::server::time_sync::TimeSyncTiming;
use crate::server::{Failover, ServerNode, TimeSync};
use crate::storage::{DataFolder, FileLog, LogOptions, OnDamage, snapshot};
use crate::threads::Threads;
use crate::trace::TraceFile;

/// Runs a server until ctrl-c or SIGTERM. Returns why it could not start, or why it had to end.
pub fn run(config: ServerConfig) -> Result<(), StartError> {
    let label = NodeLabel::new(&config.id);
    logging::init(config.log, label.clone());
    #[cfg(feature = "planted-faults")]
    if let Some(name) = &config.rehearsal.plant
        && !crate::server::planted::plant_everywhere(name)
    {
        return Err(StartError::Usage(format!("there is no fault {name:?} to be planted")));
    }
    open_files::raise_for_server()?;
    let signals = Threads::new("signals");
    let stop = stop_on_signals(&signals)?;
    let made = Made::new(&config, label)?;
    made.node.run(made.outside, &stop)
}

/// A node and its surroundings, ready to be started.
struct Made {
    node: ServerNode,
    outside: Outside,
    /// Keeps the data folder locked.
    _folder: DataFolder,
}

impl Made {
    /// Takes the port, opens the data folder and recovers the log.
    #[expect(clippy::disallowed_methods, reason = "a start draws chance and reads the clock")]
    fn new(config: &ServerConfig, label: NodeLabel) -> Result<Self, StartError> {
        let mut rng = fastrand::Rng::new();
        let listener = bind_listener(&config.listen.to_string())?;
        let port = listener.local_addr().map_or(config.listen.port(), |address| address.port());
        let design = config.design.to_string();
        let mut folder =
            DataFolder::open(&config.data, &config.id, &config.cluster, &design, &mut rng)?;
        let address = config.advertised(port);
        log::info!(
            "{} of cluster {}, design {design}, at {address}, data in {}",
            folder.incarnation(),
            config.cluster,
            config.data.display()
        );
        let make_node = |folder: &DataFolder| {
            let node_config = NodeConfig {
                server_id: config.id.clone(),
                incarnation: folder.incarnation().clone(),
                disk_id: folder.disk_id().into(),
                address: address.clone(),
                cluster: config.cluster.clone(),
                design: design.clone(),
                election: config.election,
                peers: config.peers.clone(),
                rooms: config.rooms.clone(),
                discovery: config.discovery_port.is_some(),
                admission: config.admission,
                timing: timing(config),
                bootstrap_expect: config.bootstrap_expect,
                ack: config.ack,
                compact_after: config.compact_after,
                retain: config.retain,
                log_tail_bytes: config.log_tail_bytes,
                uncommitted_max: UNCOMMITTED_MAX,
                seed: fastrand::Rng::new().get_seed(),
            };
            let mut node = ServerNode::new(node_config, std::time::Instant::now());
            node.time_sync = TimeSync::new(&config.ntp, TimeSyncTiming::default());
            node.time_sync.set_clock_error(config.rehearsal.clock_error_ms.unwrap_or(0));
            node.failover = config.design.checks_health().then(|| Failover::new(config.health));
            node
        };
        let options = LogOptions { segment_bytes: config.segment_bytes, ..LogOptions::default() };
        // Where a majority has whatever counts, a damaged log is fetched again; the ring's operator has to say so.
        let has_one_order = config.design.has_one_order();
        let repairs = config.repair || has_one_order;
        let on_damage = if repairs { OnDamage::SetAside } else { OnDamage::Refuse };
        let can_repair = config.bootstrap_expect > 1;
        let how = Opening { options, on_damage, can_repair, has_one_order };
        let (log, node) = how.open(&mut folder, &mut rng, make_node)?;
        let mut connections = ConnectionSettings::new(config.id.as_str());
        connections.frame_bytes_max = config.frame_bytes_max;
        connections.client_queue_bytes_max = config.client_queue_bytes;
        let discovery_port = config.discovery_port;
        let trace = config.trace.as_deref();
        let trace = trace.map(|path| TraceFile::open(path, config.trace_bytes_max)).transpose()?;
        let outside = Outside { listener, log, connections, discovery_port, label, trace };
        Ok(Self { node, outside, _folder: folder })
    }
}

/// How a log is opened.
struct Opening {
    options: LogOptions,
    on_damage: OnDamage,
    /// Whether other servers have what is missing here.
    can_repair: bool,
    /// Whether the server wants whole messages.
    has_one_order: bool,
}

impl Opening {
    /// Opens the log of `folder` and recovers it, behind the newest sound snapshot, into what `make` makes. When the two do not
    /// give what this server once had, it starts with an empty log, as a wiped one.
    fn open(
        &self,
        folder: &mut DataFolder,
        rng: &mut fastrand::Rng,
        make: impl Fn(&DataFolder) -> ServerNode,
    ) -> Result<(FileLog, ServerNode), StartError> {
        let (log, mut node) = self.open_once(folder, rng, &make)?;
        let Err(lost) = node.recovered() else { return Ok((log, node)) };
        drop((log, node));
        let path = folder.log_path();
        if !self.can_repair {
            let problem = format!(
                "{lost}, and no other server has it; restore this folder from a copy, or choose another --data \
                 to start empty"
            );
            return Err(StartError::Data { path, problem, source: None });
        }
        let aside = folder.set_log_aside(rng)?;
        log::warn!(
            "{lost}: this server counts as wiped and fetches everything from the others; what it had is set \
             aside in {}",
            aside.display()
        );
        let (log, mut node) = self.open_once(folder, rng, &make)?;
        let lost = node.recovered();
        lost.map_err(|problem| StartError::Data { path, problem, source: None })?;
        Ok((log, node))
    }

    fn open_once(
        &self,
        folder: &mut DataFolder,
        rng: &mut fastrand::Rng,
        make: &impl Fn(&DataFolder) -> ServerNode,
    ) -> Result<(FileLog, ServerNode), StartError> {
        let snapshot = snapshot::load(&folder.log_path())?.newest;
        let make = |folder: &DataFolder| {
            let mut node = make(folder);
            if let Some(found) = &snapshot {
                node.recover_snapshot(found.seq, &found.contents);
            }
            node
        };
        let (options, on_damage) = (&self.options, self.on_damage);
        let (log, node, recovery) = if self.has_one_order {
            folder.open_log(options, on_damage, rng, make, ServerNode::recover_messages)?
        } else {
            folder.open_log(options, on_damage, rng, make, ServerNode::recover_chats)?
        };
        log::info!("{recovery}");
        Ok((log, node))
    }
}

fn timing(config: &ServerConfig) -> Timing {
    let mut timing = Timing::default();
    timing.detector = DetectorTiming {
        heartbeat_interval: Duration::from_millis(config.heartbeat_interval_ms),
        server_timeout: Duration::from_millis(config.server_timeout_ms),
        ..timing.detector
    };
    timing
}

/// A channel that is disconnected when ctrl-c or SIGTERM comes. A second signal ends the process at once.
fn stop_on_signals(threads: &Threads) -> Result<Receiver<()>, StartError> {
    let failed = |error| StartError::Other(format!("cannot listen for signals: {error}"));
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let second = Arc::clone(&again);
        signal_hook::flag::register_conditional_shutdown(signal, 130, second).map_err(failed)?;
        signal_hook::flag::register(signal, Arc::clone(&again)).map_err(failed)?;
    }
    // A file over the size limit is an error to handle, not a reason to die.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (give, stop) = bounded::<()>(0);
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
            log::info!("{name}: stopping");
        }
        drop(give);
    };
    threads.spawn("signals", wait).map_err(failed)?;
    Ok(stop)
}
