//! The shell: threads, sockets and files around one [`ServerNode`].
//!
//! ```text
//!   udp-listener ──┐
//!   tcp-accept ────┤ starts a reader per connection
//!   reader-<peer> ─┤                 ┌─ lock ── step ── settle ── unlock ─┐
//!   election ──────┼──▶ Shell::step ─┤                                    ├─▶ flush, wake, dial
//!   heartbeat-mon. ┤                 └────────────────────────────────────┘
//!   timeout-checker┤
//!   log-writer ────┤
//!   hasher-<n> ────┤  one a core
//!   log-reader ────┤
//!   time-sync ─────┤  with --ntp
//!   health-check ──┘  with the design raft
//!   flusher           under load: sends what the others queued, one write a connection (`network`)
//!   trace-writer      with --trace: writes what steps did (`tracing`)
//! ```
//!
//! Every thread waits, steps and lets go; nothing else. The node is the only lock that is held while others
//! are taken (the order is written in [`crate::server`]); while it is held nothing blocks, everything
//! is only queued. After it is gone the thread that stepped writes the bytes, wakes the log writer, starts
//! the dials. What takes long is done beside it: `log-reader` reads old records and makes the bytes of snapshots, a `hasher`
//! hashes passwords. Messages of an election go through a channel to their own thread, as the reference asks.
//!
//! **Stop.** A leader of one order hands over first, and waits a second at most for its successor; clients are told; the stop channel is closed; `tcp-accept` is woken by a connection; the sockets
//! are shut; all threads that step are joined, `log-reader` too; then the `log-writer`, which writes and syncs what is left; last the
//! `trace-writer`. A panic, a failed sync or an id that is taken stops the node in the same way, with an exit code.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use parking_lot::{Condvar, Mutex};

use super::server_node::ServerNode;
use super::step::{Flow, Step};
use crate::domain::{Message, MessageType};
use crate::error::StartError;
use crate::logging::NodeLabel;
use crate::network::Received;
use crate::network::listener::{accept_loop, wake_listener};
use crate::network::tcp_connection::ConnectionSettings;
use crate::network::{Batch, ConnId, ConnectionManager, Inbound, TCPConnection, UDPHandler};
use crate::storage::{FileLog, LogEvent};
use crate::threads::Threads;
use crate::trace::TraceFile;
use stepping::Crowd;
use tracing::Tracing;

mod hasher;
mod health_check;
mod past;
mod run;
mod stepping;
mod time_sync;
mod tracing;

#[cfg(test)]
mod tests;

pub use run::run;

/// How often timeouts are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Messages of an election that may wait. One that finds no room is lost; a higher term repairs it.
const ELECTION_QUEUE: usize = 1024;
/// How long the threads may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// What a server node needs from outside to run: everything that is not an algorithm.
#[derive(Debug)]
pub struct Outside {
    /// The socket that it accepts connections on.
    pub listener: TcpListener,
    /// The log, already recovered into the node.
    pub log: FileLog,
    /// Limits of connections.
    pub connections: ConnectionSettings,
    /// The UDP port of discovery, if it is used.
    pub discovery_port: Option<u16>,
    /// Who it is in the log of the process.
    pub label: NodeLabel,
    /// Where its trace goes, if it has one.
    pub trace: Option<TraceFile>,
}

/// A server that runs: the node with its connections, log and threads. The diagram's
/// `ServerNode *-- ConnectionManager` and `*-- UDPHandler` are this.
#[derive(Debug)]
pub struct RunningServer {
    shell: Arc<Shell>,
    threads: Threads,
    log_threads: Threads,
    trace_threads: Threads,
    address: SocketAddr,
}

/// What the threads share.
#[derive(Debug)]
struct Shell {
    /// Rank 1: taken before any other lock, never while one is held.
    node: Mutex<ServerNode>,
    /// Who settles what.
    crowd: Crowd,
    /// Told after each step: whoever waits for a state of the node looks again.
    stepped: Condvar,
    cm: Arc<ConnectionManager>,
    log: FileLog,
    udp: Option<(UDPHandler, u16)>,
    threads: Threads,
    elections: Sender<(ConnId, Message)>,
    /// Wakes a hasher. A full one loses nothing: then all of them are awake, and look again.
    hashers: Sender<()>,
    /// Wakes `past-sender`; nothing is lost when it is full.
    past: Sender<()>,
    /// Why the node has to end: the first reason counts.
    failures: (Sender<String>, Receiver<String>),
    label: NodeLabel,
    trace: Option<Tracing>,
}

impl ServerNode {
    /// Starts the threads. The diagram's `start()`.
    pub fn start(self, outside: Outside) -> Result<RunningServer, StartError> {
        let address = local_address(&outside.listener)?;
        let udp = match outside.discovery_port {
            None => None,
            Some(port) => Some((open_discovery(port)?, port)),
        };
        let threads = Threads::new(self.server_id.as_str());
        let log_threads = Threads::new(self.server_id.as_str());
        let (elections, election_queue) = bounded(ELECTION_QUEUE);
        let (hashers, hash_wakes) = bounded(hasher::count());
        let (past, past_wakes) = bounded(1);
        let heartbeat_interval = self.config.timing.detector.heartbeat_interval;
        let trace_threads = Threads::new(self.server_id.as_str());
        let trace = outside.trace.map(|file| Tracing::start(&self.config, file, &trace_threads));
        let trace = trace.transpose().map_err(|error| no_thread(&error))?;
        let shell = Arc::new(Shell {
            node: Mutex::new(self),
            crowd: Crowd::default(),
            stepped: Condvar::new(),
            cm: ConnectionManager::new(outside.connections, threads.clone()).into(),
            log: outside.log,
            udp,
            threads: threads.clone(),
            elections,
            hashers,
            past,
            failures: bounded(1),
            label: outside.label,
            trace,
        });
        let running = RunningServer { shell, threads, log_threads, trace_threads, address };
        let started = running
            .spawn_threads(outside.listener, election_queue, heartbeat_interval)
            .and_then(|()| hasher::spawn(&running.shell, &hash_wakes))
            .and_then(|()| past::spawn(&running.shell, past_wakes));
        if let Err(error) = started {
            running.stop();
            return Err(no_thread(&error));
        }
        Ok(running)
    }

    /// [`start`](Self::start), then serves until `stop` says so or something fails. The diagram's `run()`.
    pub fn run(self, outside: Outside, stop: &Receiver<()>) -> Result<(), StartError> {
        let running = self.start(outside)?;
        let failure = running.wait(stop);
        running.stop();
        failure.map_or(Ok(()), |reason| Err(StartError::Other(reason)))
    }
}

impl RunningServer {
    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All its connections: the diagram's `ServerNode *-- ConnectionManager`.
    pub fn connection_manager(&self) -> &ConnectionManager {
        &self.shell.cm
    }

    /// Its discovery socket, if it has one: the diagram's `ServerNode *-- UDPHandler`.
    pub fn udp_handler(&self) -> Option<&UDPHandler> {
        self.shell.udp.as_ref().map(|(udp, _)| udp)
    }

    /// Looks at the node, or steps it, under its lock.
    pub fn with_node<R>(&self, look: impl FnOnce(&mut ServerNode, &Step) -> R) -> R {
        self.shell.step(look)
    }

    /// Waits until `stop` is given (`None`), or until the node has to end (the reason).
    pub fn wait(&self, stop: &Receiver<()>) -> Option<String> {
        select! {
            recv(stop) -> _ => None,
            recv(self.shell.failures.1) -> reason => reason.ok(),
            recv(self.threads.panics()) -> report => report.ok(),
            recv(self.log_threads.panics()) -> report => report.ok(),
            recv(self.trace_threads.panics()) -> report => report.ok(),
        }
    }

    /// Stops everything in order; see the module's documentation.
    pub fn stop(self) {
        let Self { shell, threads, log_threads, trace_threads, address } = self;
        shell.hand_over();
        shell.step(ServerNode::stop);
        threads.stop();
        wake_listener(address);
        shell.cm.close_all();
        if !threads.join(STOP_LIMIT) {
            log::warn!("threads that do not end: {}", threads.running().join(", "));
        }
        shell.log.close();
        log_threads.stop();
        if !log_threads.join(STOP_LIMIT) {
            log::warn!("the log writer does not end; what it had not synced may be lost");
        }
        // Last: what the log writer syncs at its end is a part of the story.
        if let Some(trace) = &shell.trace {
            trace.stop();
        }
        trace_threads.stop();
        if !trace_threads.join(STOP_LIMIT) {
            log::warn!("the trace writer does not end; the end of the trace may be missing");
        }
        log::info!("stopped");
    }

    fn spawn_threads(
        &self,
        listener: TcpListener,
        elections: Receiver<(ConnId, Message)>,
        heartbeat_interval: Duration,
    ) -> std::io::Result<()> {
        let (threads, shell) = (&self.threads, &self.shell);
        let log_shell = shell.clone();
        self.log_threads.spawn("log-writer", move || log_shell.write_log())?;
        #[cfg(feature = "deadlock-detection")]
        threads.spawn("deadlock-watch", {
            let stop = threads.stopped().clone();
            move || watch_for_deadlocks(&stop)
        })?;
        let reading = shell.clone();
        threads.spawn("log-reader", move || reading.read_log())?;
        let accepting = shell.clone();
        threads.spawn("tcp-accept", move || {
            let stop = accepting.threads.stopped().clone();
            accept_loop(&listener, &stop, |socket| accepting.accept(socket));
        })?;
        if shell.udp.is_some() {
            let listening = shell.clone();
            threads.spawn("udp-listener", move || listening.listen_udp())?;
        }
        let electing = shell.clone();
        threads.spawn("election", move || electing.run_elections(&elections))?;
        shell.step(ServerNode::start_failure_detection);
        shell.spawn_ticker("heartbeat-monitor", heartbeat_interval, ServerNode::tick_heartbeat)?;
        shell.spawn_ticker("timeout-checker", CHECK_INTERVAL, ServerNode::tick_timeouts)?;
        self.spawn_watchers()
    }

    /// Starts the threads that only some servers have.
    fn spawn_watchers(&self) -> std::io::Result<()> {
        let (syncs_time, checks_health) =
            self.shell.step(|node, _| (node.time_sync.is_used(), node.failover.is_some()));
        if syncs_time {
            let shell = self.shell.clone();
            self.threads.spawn("time-sync", move || shell.sync_time())?;
        }
        if checks_health {
            let shell = self.shell.clone();
            self.threads.spawn("health-check", move || shell.monitor_nodes())?;
        }
        Ok(())
    }
}

impl Shell {
    /// Ends the node; the first reason counts.
    fn fail(&self, reason: String) {
        let _ = self.failures.0.try_send(reason);
    }

    fn accept(self: &Arc<Self>, socket: TcpStream) {
        match self.cm.wrap_socket(socket) {
            Ok(conn) => {
                let (id, addr) = (conn.id(), conn.peer());
                self.step(|node, step| node.handle_join(id, addr, None, step));
                let shell = self.clone();
                let reader = conn.clone();
                let callback = move |received| shell.received(&reader, received);
                if let Err(error) = self.cm.listen_to_connection(&conn, callback) {
                    log::warn!(
                        "cannot serve {addr}: no thread for it: {error} (limits of the system: ulimit -u, pids.max of \
                         a container, and vm.max_map_count, of which each thread takes 4)"
                    );
                    self.step(|node, step| node.handle_closed(id, "no thread for it", step));
                }
            }
            Err(error) => log::debug!("cannot serve a connection: {error}"),
        }
    }

    /// Starts the dials that the last steps asked for. Each runs on a thread of its own, which becomes the
    /// connection's reader.
    fn start_dials(self: &Arc<Self>) {
        for address in self.cm.take_dials() {
            let (shell, to) = (self.clone(), address.clone());
            let dialled = self.threads.spawn(&format!("reader-{address}"), move || shell.dial(&to));
            if dialled.is_err() {
                self.step(|node, step| node.dial_failed(&address, false, step));
            }
        }
    }

    fn dial(self: &Arc<Self>, address: &str) {
        match self.cm.connect_to_address(address) {
            Ok(conn) => {
                let (id, addr) = (conn.id(), conn.peer());
                let dialled = Some(address.to_string());
                self.step(|node, step| node.handle_join(id, addr, dialled, step));
                self.cm.read_connection(&conn, |received| self.received(&conn, received));
            }
            Err(error) => {
                log::debug!("cannot reach {address}: {error}");
                let refused = error.kind() == ErrorKind::ConnectionRefused;
                self.step(|node, step| node.dial_failed(address, refused, step));
            }
        }
        self.start_dials();
    }

    /// What a reader thread brings: a batch of frames, or the end.
    fn received(
        self: &Arc<Self>,
        conn: &Arc<TCPConnection>,
        received: Received,
    ) -> ControlFlow<()> {
        let flow = match received {
            Received::Batch(batch) => self.take_batch(conn, &batch),
            Received::Closed { reason } => {
                self.step(|node, step| node.handle_closed(conn.id(), &reason, step));
                ControlFlow::Break(())
            }
        };
        self.start_dials();
        flow
    }

    /// Hands the frames of one read to the node under one lock. A frame that has to wait stops the reader
    /// here, without the lock, until the node resumes it.
    fn take_batch(&self, conn: &TCPConnection, batch: &Batch) -> ControlFlow<()> {
        let mut taken = 0;
        loop {
            let flow = self.step_in_crowd(batch.len() - taken, |node, step| {
                while let Some(frame) = batch.get(taken) {
                    if self.pass_to_election(node, conn.id(), &frame) {
                        taken += 1;
                        continue;
                    }
                    let (count, flow) = node.process_next(conn.id(), batch, taken, step);
                    if flow != Flow::Done {
                        return flow;
                    }
                    taken += count;
                }
                Flow::Done
            });
            match flow {
                Flow::Done => return ControlFlow::Continue(()),
                Flow::Close => return ControlFlow::Break(()),
                Flow::Wait => {
                    // When the node stops, the connection is closed, which ends this wait too.
                    conn.wait_resumed();
                    if self.threads.is_stopped() {
                        return ControlFlow::Break(());
                    }
                }
            }
        }
    }

    /// What a server says about an election goes to the election thread. A full queue loses it.
    fn pass_to_election(&self, node: &ServerNode, conn: ConnId, frame: &Inbound) -> bool {
        match frame {
            Inbound::Message(msg) if is_of_election(msg.message_type) && node.is_peer(conn) => {
                let _ = self.elections.try_send((conn, (*msg).clone()));
                true
            }
            _ => false,
        }
    }

    /// The body of `election`.
    fn run_elections(self: &Arc<Self>, queue: &Receiver<(ConnId, Message)>) {
        loop {
            select! {
                recv(self.threads.stopped()) -> _ => break,
                recv(queue) -> received => {
                    let Ok((conn, msg)) = received else { break };
                    self.step(|node, step| node.process_message(conn, &msg, step));
                    self.start_dials();
                }
            }
        }
    }

    /// Starts a thread that calls `tick` every `interval`.
    fn spawn_ticker(
        self: &Arc<Self>,
        name: &str,
        interval: Duration,
        tick: fn(&mut ServerNode, &Step),
    ) -> std::io::Result<()> {
        let shell = self.clone();
        self.threads.spawn(name, move || {
            let ticker = crossbeam_channel::tick(interval);
            loop {
                select! {
                    recv(shell.threads.stopped()) -> _ => break,
                    recv(ticker) -> _ => {
                        shell.step(tick);
                        shell.cm.flush_news();
                        shell.start_dials();
                    }
                }
            }
        })
    }

    /// The body of `udp-listener`.
    fn listen_udp(self: &Arc<Self>) {
        let Some((udp, _)) = &self.udp else { return };
        udp.listen(self.threads.stopped(), |msg, from| {
            self.step(|node, step| node.handle_udp_message(&msg, from, step));
            self.start_dials();
            ControlFlow::Continue(())
        });
    }

    /// The body of `log-writer`.
    fn write_log(&self) {
        let written = self.log.run_writer(|event| {
            match &event {
                LogEvent::Full(reason) => {
                    log::error!(
                        "cannot write the log: {reason}; new messages are refused meanwhile"
                    );
                }
                LogEvent::Writable => log::info!("the log can be written again"),
                _ => {}
            }
            self.step(|node, step| {
                step.trace_log(&event);
                node.on_log_event(event);
            });
        });
        if let Err(error) = written {
            // A failed sync may have lost data that a second one would report as safe: never retried.
            self.fail(format!("cannot write the log, so the node stops: {error}"));
        }
    }

    /// The body of `log-reader`.
    fn read_log(self: &Arc<Self>) {
        let stop = self.threads.stopped().clone();
        let read = self.log.run_reader(&stop, |event| {
            self.step(|node, _| node.on_log_event(event));
            self.start_dials();
        });
        if let Err(error) = read {
            self.fail(format!("cannot read the log, so the node stops: {error}"));
        }
    }
}

/// Panics, which ends the node with a report, when threads wait for each other in a circle.
#[cfg(feature = "deadlock-detection")]
fn watch_for_deadlocks(stop: &Receiver<()>) {
    use crossbeam_channel::RecvTimeoutError::Timeout;
    while stop.recv_timeout(Duration::from_secs(1)) == Err(Timeout) {
        let circles = parking_lot::deadlock::check_deadlock();
        let threads = circles.iter().flatten();
        let report: Vec<String> =
            threads.map(|thread| format!("{:?}", thread.backtrace())).collect();
        assert!(report.is_empty(), "deadlock of {} threads: {}", report.len(), report.join("\n"));
    }
}

fn no_thread(error: &std::io::Error) -> StartError {
    StartError::Other(format!("cannot start a thread: {error}"))
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|source| StartError::Listen { address: "the given address".into(), source })
}

fn open_discovery(port: u16) -> Result<UDPHandler, StartError> {
    UDPHandler::bind(port).map_err(|error| {
        StartError::Other(format!(
            "cannot open the UDP port {port} for discovery: {error}; \
             choose another --discovery-port, or --no-discovery with --peers"
        ))
    })
}

/// Whether messages of this type are the `election` thread's. All of them are, so that they keep their order.
fn is_of_election(message_type: MessageType) -> bool {
    matches!(
        message_type,
        MessageType::Election | MessageType::ElectionOk | MessageType::Coordinator
    )
}
