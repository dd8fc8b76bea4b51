//! The trace of a server that runs: its clock, its file, its thread.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::network::Network;
use crate::server::ServerNode;
use crate::server::server_node::NodeConfig;
use crate::threads::Threads;
use crate::trace::event::{FORMAT, Run};
use crate::trace::network::Traced;
use crate::trace::writer::FileSink;
use crate::trace::{TraceFile, Tracer};

/// Writes down what one server does. Times are the system clock's at the start, and go on from there: they never
/// jump.
#[derive(Debug)]
pub(super) struct Tracing {
    tracer: Tracer,
    sink: FileSink,
    started: Instant,
    started_us: u64,
}

impl Tracing {
    /// Begins the trace of the server that `config` describes, and starts the thread that writes it.
    #[expect(clippy::disallowed_methods, reason = "the shell reads the clocks for the trace")]
    pub(super) fn start(
        config: &NodeConfig,
        file: TraceFile,
        threads: &Threads,
    ) -> std::io::Result<Self> {
        let (sink, writer) = file.split();
        threads.spawn("trace-writer", move || writer.run())?;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_us = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        let run = Run {
            format: FORMAT,
            life: config.incarnation.to_string(),
            cluster: config.cluster.clone(),
            design: config.design.clone(),
            election: votes_apart(config),
            version: env!("CARGO_PKG_VERSION").into(),
            continues: false,
        };
        let (id, life) = (&config.server_id, &config.incarnation);
        let tracer = Tracer::new(id, life, run, started_us, Box::new(sink.clone()));
        Ok(Self { tracer, sink, started: Instant::now(), started_us })
    }

    /// A step begins at `now`: the network that it uses.
    pub(super) fn begin<'a>(&'a self, cm: &'a dyn Network, now: Instant) -> Traced<'a> {
        self.tracer.begin(self.time_us(now));
        self.tracer.around(cm)
    }

    /// The step is over.
    pub(super) fn end(&self, node: &ServerNode) {
        self.tracer.end(&node.standing());
    }

    /// The server has stopped: its last line.
    #[expect(clippy::disallowed_methods, reason = "the shell reads the clock for the trace")]
    pub(super) fn stop(&self) {
        self.tracer.stopped(self.time_us(Instant::now()));
        self.sink.close();
    }

    fn time_us(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started).as_micros();
        self.started_us.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// How the server finds a leader, where that is not said by the design.
fn votes_apart(config: &NodeConfig) -> String {
    if config.design == "raft" { String::new() } else { config.election.to_string() }
}
