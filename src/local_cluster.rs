//! A cluster of real processes on this machine: servers to start, kill and start again.
//!
//! ```text
//!   LocalCluster ── n1: process, data folder, log, trace      in one temporary folder,
//!               ├── n2: …                                     removed with the cluster
//!               └── n3: …
//! ```
//!
//! The servers run the program that runs this (`roundtable server …`), listen on loopback, and know each other by
//! `--peers`. Dropping the cluster kills what still runs.

#![expect(clippy::disallowed_methods, reason = "it waits for processes")]

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::client::query_status;
use crate::domain::content::Status;
use crate::error::StartError;

/// How often a start is tried again when another program took a port meanwhile.
const STARTS_MAX: usize = 5;
/// How long the servers may take to find each other.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How much room the disk has to have for the folder, in bytes.
const ROOM_MIN: u64 = 128 << 20;
/// What is left when it is full: less than that, and a server that cannot write has no other reason.
const ROOM_LEFT: u64 = 1 << 20;
/// How often a server is asked while it is waited for.
const ASK_EVERY: Duration = Duration::from_millis(25);

/// What the servers of a cluster have in common.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// How many servers.
    pub servers: usize,
    /// `ring`, `sequencer` or `raft`.
    pub design: String,
    /// More flags for each of them.
    pub flags: Vec<String>,
}

/// What is known of a server before it is started.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The how manieth it is, from 0.
    pub place: usize,
    /// Where all of them listen.
    pub addresses: &'a [SocketAddr],
    /// The folder of the cluster.
    pub folder: &'a Path,
}

impl Place<'_> {
    /// Its id: `n1` is the first.
    pub fn id(&self) -> String {
        format!("n{}", self.place + 1)
    }

    /// Where it writes its trace, if it is told to.
    pub fn trace_path(&self) -> PathBuf {
        self.folder.join(format!("{}.trace", self.id()))
    }

    /// The flags by which the servers know each other.
    pub fn peers(&self) -> Vec<String> {
        let peers: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        vec!["--no-discovery".into(), "--peers".into(), peers.join(",")]
    }
}

/// One server of the cluster, running or not.
#[derive(Debug)]
pub struct ServerProcess {
    id: String,
    address: SocketAddr,
    flags: Vec<String>,
    folder: PathBuf,
    child: Option<Child>,
}

impl ServerProcess {
    /// Its id, such as `n1`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it runs, as far as this process did not end it.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join(format!("data-{}", self.id))
    }

    /// What it prints, all starts in one file.
    pub fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.id))
    }

    /// Where it writes its trace, if it is told to.
    pub fn trace_path(&self) -> PathBuf {
        self.folder.join(format!("{}.trace", self.id))
    }

    /// Starts it, and waits for nothing.
    pub fn start(&mut self) -> io::Result<()> {
        self.start_with(&[], None)
    }

    /// Starts it with more flags, and with files of at most `file_kib_max` KiB, as on a disk that gets full.
    pub fn start_with(&mut self, flags: &[&str], file_kib_max: Option<u64>) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let program = std::env::current_exe()?;
        let mut command = match file_kib_max {
            None => Command::new(program),
            Some(kib) => {
                let mut shell = Command::new("bash");
                // The limit counts in KiB with bash alone.
                shell.args(["-c", &format!("ulimit -f {kib}; exec \"$0\" \"$@\"")]).arg(program);
                shell
            }
        };
        // What is set in the environment of this process is not meant for these servers.
        let own = std::env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| name.to_string_lossy().starts_with("ROUNDTABLE_")) {
            command.env_remove(name);
        }
        command.args(["server", "--id", &self.id, "--listen", &self.address.to_string(), "--data"]);
        command.arg(self.data()).args(&self.flags).args(flags);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Ends it as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it as an operator would (SIGTERM), and waits for that.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Stops it in its tracks (SIGSTOP), until it is woken or killed.
    pub fn put_to_sleep(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id().cast_signed()));
        if let Some(pid) = pid {
            // It has ended, if that fails: then it neither sleeps nor wakes.
            let _ = kill_process(pid, signal);
        }
    }

    /// How the cluster is, as it sees it; `None` while it does not answer.
    pub fn status(&self) -> Option<Status> {
        query_status(&self.address.to_string()).ok()
    }

    /// Whether it ended by itself.
    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// The last line that it printed, for a person who asks why it ended.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        log.lines().last().unwrap_or("it said nothing").into()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder that is removed in the end, on a disk that has room.
fn folder_with_room() -> io::Result<TempDir> {
    let parent = std::env::temp_dir();
    let problem = |problem: &str| {
        let parent = parent.display();
        io::Error::other(format!("{parent}: {problem}; TMPDIR=FOLDER names another place"))
    };
    let folder = tempfile::Builder::new().prefix("roundtable-").tempdir();
    let folder = folder.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => problem("there is no such folder"),
        _ => problem(&error.to_string()),
    })?;
    let free = free_bytes(folder.path())?;
    if free < ROOM_MIN {
        let (free, least) = (free >> 20, ROOM_MIN >> 20);
        return Err(problem(&format!("{free} MiB are free, the servers need {least} at least")));
    }
    Ok(folder)
}

fn free_bytes(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Servers `n1`, `n2`, … in a folder of their own.
#[derive(Debug)]
pub struct LocalCluster {
    name: String,
    servers: Vec<ServerProcess>,
    stop: Receiver<()>,
    /// Dropped last: the servers write into it.
    folder: TempDir,
}

impl LocalCluster {
    /// Starts the servers and waits until they agree on a leader. Everything that waits ends early when `stop` is
    /// disconnected. `flags_of` has the flags for each server: [`Place::peers`] at least, or others by which they
    /// find each other.
    pub fn start(
        settings: &ClusterSettings,
        stop: Receiver<()>,
        flags_of: impl Fn(Place) -> Vec<String>,
    ) -> Result<Self, StartError> {
        let mut failure = String::new();
        for _ in 0..STARTS_MAX {
            let mut cluster = Self::prepare(settings, stop.clone(), &flags_of)
                .map_err(|error| StartError::Other(format!("cannot prepare a cluster: {error}")))?;
            let started = cluster.servers.iter_mut().try_for_each(ServerProcess::start);
            started
                .map_err(|error| StartError::Other(format!("cannot start a server: {error}")))?;
            match cluster.wait_agreed() {
                Ok(()) => return Ok(cluster),
                // Another program may have taken a port in the meantime; others will be free.
                Err(reason) if reason.contains("cannot listen on") => failure = reason,
                Err(reason) => return Err(StartError::Other(reason)),
            }
        }
        Err(StartError::Other(failure))
    }

    fn prepare(
        settings: &ClusterSettings,
        stop: Receiver<()>,
        flags_of: impl Fn(Place) -> Vec<String>,
    ) -> io::Result<Self> {
        let folder = folder_with_room()?;
        // All are bound before the first is freed, so that no two are the same.
        let listeners = (0..settings.servers).map(|_| TcpListener::bind("127.0.0.1:0"));
        let listeners = listeners.collect::<io::Result<Vec<_>>>();
        let listeners = listeners
            .map_err(|error| io::Error::other(format!("no port of 127.0.0.1 is free: {error}")))?;
        let addresses: Vec<SocketAddr> =
            listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let cluster = folder.path().file_name().unwrap_or_default().to_string_lossy().to_string();
        let servers = addresses.iter().enumerate().map(|(place, address)| {
            let place = Place { place, addresses: &addresses, folder: folder.path() };
            let common = ["--design", &settings.design, "--cluster", &cluster];
            let mut flags: Vec<String> = common.map(String::from).into();
            flags.extend(settings.flags.iter().cloned());
            flags.extend(flags_of(place));
            let folder = folder.path().into();
            ServerProcess { id: place.id(), address: *address, flags, folder, child: None }
        });
        let servers = servers.collect();
        Ok(Self { name: cluster, servers, stop, folder })
    }

    /// The servers, from `n1`.
    pub fn servers(&self) -> &[ServerProcess] {
        &self.servers
    }

    /// The name of the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A server that should run and has ended by itself, with its last words.
    pub fn ended(&mut self) -> Option<String> {
        let ended =
            self.servers.iter_mut().find_map(|server| server.has_ended().then_some(&*server))?;
        Some(format!("{} ended: {}", ended.id, ended.last_words()))
    }

    /// The server at `place`, from 0, to be killed or started.
    pub fn server(&mut self, place: usize) -> &mut ServerProcess {
        &mut self.servers[place]
    }

    /// Ends all servers as an operator would, awake or asleep; those that take longer than `limit`, as a crash would.
    pub fn stop_all(&mut self, limit: Duration) {
        for server in &self.servers {
            server.wake();
            server.signal(Signal::TERM);
        }
        let end = Instant::now() + limit;
        for server in &mut self.servers {
            while server.is_running() && !server.has_ended() && Instant::now() < end {
                std::thread::sleep(ASK_EVERY);
            }
            server.kill();
        }
    }

    /// Says that the disk with the folder is full, if it is.
    pub fn lacks_room(&self) -> Option<String> {
        let full = free_bytes(self.folder.path()).is_ok_and(|free| free < ROOM_LEFT);
        full.then(|| format!("{}: the disk is full", self.folder.path().display()))
    }

    /// The folder of the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder stays when the cluster is gone.
    pub fn keep_folder(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// Waits until all servers that run name the same leader, which is one of them. Fails with a reason.
    pub fn wait_agreed(&mut self) -> Result<(), String> {
        let mut why = "they do not agree on a leader in time".to_string();
        let agreed = self.wait_until(READY_LIMIT, |cluster| {
            if let Some(ended) = cluster.ended() {
                why = ended;
                return Some(false);
            }
            cluster.agreed_leader().map(|_| true)
        });
        if agreed == Some(true) { Ok(()) } else { Err(why) }
    }

    /// The place of the leader that all running servers name, if they do.
    pub fn agreed_leader(&self) -> Option<usize> {
        let mut leader = None;
        for server in self.servers.iter().filter(|server| server.is_running()) {
            let named = server.status()?.leader?;
            if leader.get_or_insert(named.clone()) != &named {
                return None;
            }
        }
        let leader = leader?;
        let place = self.servers.iter().position(|server| server.id == leader.as_str())?;
        self.servers[place].is_running().then_some(place)
    }

    /// Asks `done` again and again until it has an answer. `None` after `limit`, or when stopped.
    pub fn wait_until<T>(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let end = Instant::now() + limit;
        loop {
            if let Some(answer) = done(self) {
                return Some(answer);
            }
            if Instant::now() >= end || !self.pause(ASK_EVERY) {
                return None;
            }
        }
    }

    /// Waits for `time`. False when stopped meanwhile.
    pub fn pause(&self, time: Duration) -> bool {
        use crossbeam_channel::RecvTimeoutError::Timeout;
        matches!(self.stop.recv_timeout(time), Err(Timeout))
    }
}
