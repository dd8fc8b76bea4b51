//! Real servers: processes with data folders, logs and ports of their own. All are killed when the test ends;
//! their logs are printed when it fails.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use roundtable::domain::NodeId;
use roundtable::domain::content::Status;
use tempfile::TempDir;

use super::wire::{RawClient, ask_status};
use super::{DEADLINE, PROGRAM, clean, wait_until, wait_within};

/// How often a start is tried again when another program took a port meanwhile.
const STARTS_MAX: usize = 5;

/// A free port of this machine, as far as anyone can know, and not given to another test of this process.
pub(crate) fn free_address() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if GIVEN.lock().insert(address.port()) {
            return address;
        }
    }
}

/// One server process, or the place of one that does not run.
pub(crate) struct Server {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    pub(crate) data: PathBuf,
    /// Its flags besides the id, the address and the data folder.
    pub(crate) args: Vec<String>,
    /// The longest file that it may write, in KiB.
    pub(crate) file_kib_max: Option<u32>,
    /// Where the logs go, one for each start.
    folder: PathBuf,
    starts: u32,
    child: Option<Child>,
}

impl Server {
    /// A server `id` that is not started yet, with everything under `folder`.
    pub(crate) fn new(folder: &Path, id: &str, address: SocketAddr, args: &[&str]) -> Self {
        Self {
            id: id.into(),
            address,
            data: folder.join(format!("data-{id}-{}", address.port())),
            args: args.iter().map(ToString::to_string).collect(),
            file_kib_max: None,
            folder: folder.into(),
            starts: 0,
            child: None,
        }
    }

    /// Starts it, and does not wait for anything.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.id);
        self.starts += 1;
        let mut command = match self.file_kib_max {
            None => Command::new(PROGRAM),
            Some(kib) => {
                let mut shell = Command::new("bash");
                shell.args(["-c", &format!("ulimit -f {kib}; exec \"$0\" \"$@\""), PROGRAM]);
                shell
            }
        };
        command.args(["server", "--id", &self.id, "--listen", &self.address.to_string(), "--data"]);
        command.arg(&self.data).args(&self.args);
        let log = File::create(self.log_path()).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(clean(command).spawn().unwrap());
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join(format!("{}-{}.{}.log", self.id, self.address.port(), self.starts))
    }

    /// What it has logged since its last start.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.id)).id()
    }

    /// Sends the signal `name`, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success(), "kill -s {name} {pid}");
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits for its end; `None` when it still runs after `limit`.
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = wait_within(limit, || child.try_wait().unwrap())?;
        self.child = None;
        Some(status)
    }

    /// Starts it although it cannot run, and returns its exit code and what it said.
    pub(crate) fn start_in_vain(&mut self) -> (Option<i32>, String) {
        self.start();
        let status = self.wait_exit(DEADLINE);
        let log = self.log();
        let status = status.unwrap_or_else(|| panic!("{} runs:\n{log}", self.id));
        (status.code(), log)
    }

    /// Whether it ended because another program has its port.
    fn lost_its_port(&mut self) -> bool {
        let ended = self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some());
        if !ended || !self.log().contains("cannot listen on") {
            return false;
        }
        self.child = None;
        true
    }

    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) fn status(&self) -> Option<Status> {
        ask_status(self.address)
    }

    /// Where its log records are.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.data.join("log").join("00000001.jsonl")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            for start in 1..=self.starts {
                self.starts = start;
                eprintln!("---- log of {}, start {start}:\n{}", self.id, self.log());
            }
        }
    }
}

/// Some servers that form one cluster.
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) servers: Vec<Server>,
    /// Dropped last: the servers write into it.
    pub(crate) folder: TempDir,
}

impl Cluster {
    /// Servers `n1`, `n2`, … that know each other by `--peers`, once they take clients.
    pub(crate) fn start(count: usize, args: &[&str]) -> Self {
        Self::start_by(count, args, |_, addresses| {
            let peers: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            vec!["--no-discovery".into(), "--peers".into(), peers.join(",")]
        })
    }

    /// The same, found by UDP on the discovery port `port`.
    pub(crate) fn start_discovered(count: usize, port: u16) -> Self {
        Self::start_by(count, &[], |_, _| vec!["--discovery-port".into(), port.to_string()])
    }

    /// The same with the flags that `found` has for the server at an index, given where all of them listen.
    pub(crate) fn start_by(
        count: usize,
        args: &[&str],
        found: impl Fn(usize, &[SocketAddr]) -> Vec<String>,
    ) -> Self {
        for _ in 0..STARTS_MAX {
            let addresses: Vec<SocketAddr> = (0..count).map(|_| free_address()).collect();
            let mut cluster = Self::prepare(&addresses, args);
            for (index, server) in cluster.servers.iter_mut().enumerate() {
                server.args.extend(found(index, &addresses));
            }
            cluster.servers.iter_mut().for_each(Server::start);
            if cluster.become_ready() {
                return cluster;
            }
        }
        panic!("no ports that stay free");
    }

    /// The servers, none of them started. Each cluster has a name of its own, so that tests never mix.
    fn prepare(addresses: &[SocketAddr], args: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        // One server has nobody to wait for; several should not be called dead because the machine is busy.
        let timeout = if addresses.len() == 1 { "300" } else { "2000" };
        let mut flags = vec!["--cluster", &name];
        if !args.contains(&"--server-timeout-ms") {
            flags.extend(["--server-timeout-ms", timeout]);
        }
        flags.extend(args);
        let servers = (1..).zip(addresses).map(|(number, address)| {
            Server::new(folder.path(), &format!("n{number}"), *address, &flags)
        });
        Self { servers: servers.collect(), name, folder }
    }

    /// Waits until all servers agree. False when one lost its port to another program.
    fn become_ready(&mut self) -> bool {
        let ready = wait_within(DEADLINE, || {
            if self.servers.iter_mut().any(Server::lost_its_port) {
                return Some(false);
            }
            self.agrees().then_some(true)
        });
        ready.unwrap_or_else(|| panic!("the servers do not agree in time"))
    }

    /// Waits until all servers that run name the same leader and the same full ring, and take clients.
    pub(crate) fn wait_ready(&self) {
        wait_until("the servers agree", || self.agrees().then_some(()));
    }

    /// Whether all servers that run name the same leader, and a ring of them all. The leader is the highest of them,
    /// but with `raft`, where anyone of them may lead.
    pub(crate) fn agrees(&self) -> bool {
        let running: Vec<&Server> = self.servers.iter().filter(|server| server.runs()).collect();
        let ring: Vec<&str> = running.iter().map(|server| server.id.as_str()).collect();
        let mut leaders = BTreeSet::new();
        let all_ready = running.iter().all(|server| {
            server.log().contains("ready, takes clients")
                && server.status().is_some_and(|status| {
                    leaders.insert(status.leader);
                    status.ring.iter().map(NodeId::as_str).eq(ring.iter().copied())
                })
        });
        let Some(Some(leader)) = leaders.pop_last() else { return false };
        let may_lead = if self.has_design("raft") {
            ring.contains(&leader.as_str())
        } else {
            ring.last() == Some(&leader.as_str())
        };
        all_ready && leaders.is_empty() && may_lead
    }

    /// The index of the server that leads, as the first that runs sees it.
    pub(crate) fn leader_index(&self) -> usize {
        wait_until("a leader is known", || {
            let running = self.servers.iter().find(|server| server.runs())?;
            let leader = running.status()?.leader?;
            self.servers.iter().position(|server| server.id == leader.as_str())
        })
    }

    fn has_design(&self, design: &str) -> bool {
        self.servers[0].args.iter().any(|arg| arg == design)
    }

    /// Whether the cluster's design promises one order for all.
    pub(crate) fn has_one_order(&self) -> bool {
        self.has_design("sequencer") || self.has_design("raft")
    }

    /// The address of the server at `index`, from 0.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.servers[index].address
    }

    /// The addresses of all servers for `--connect`, the one at `first` first.
    pub(crate) fn connect_list(&self, first: usize) -> String {
        let count = self.servers.len();
        let from_first = (0..count).map(|n| self.address((first + n) % count).to_string());
        from_first.collect::<Vec<_>>().join(",")
    }

    /// Sends all servers the signal of ctrl-c.
    pub(crate) fn interrupt_all(&self) {
        self.servers.iter().for_each(|server| server.signal("INT"));
    }

    /// Ends all servers as ctrl-c does, and panics when one takes too long or fails.
    pub(crate) fn stop_all(&mut self) {
        self.interrupt_all();
        for server in &mut self.servers {
            let status = server.wait_exit(DEADLINE);
            assert!(status.is_some_and(|status| status.success()), "{}: {status:?}", server.id);
        }
    }

    /// Starts the server at `index` again on its data folder. Whoever took its port meanwhile is waited for.
    pub(crate) fn restart(&mut self, index: usize) {
        let server = &mut self.servers[index];
        server.kill();
        server.start();
        wait_until("a restarted server listens", || {
            if server.lost_its_port() {
                server.start();
            }
            server.log().contains("ready, takes clients").then_some(())
        });
    }

    /// Starts all servers again that do not run, and waits until they agree.
    pub(crate) fn restart_all(&mut self) {
        for server in self.servers.iter_mut().filter(|server| !server.runs()) {
            server.start();
        }
        wait_until("the restarted servers agree", || {
            for server in &mut self.servers {
                if server.lost_its_port() {
                    server.start();
                }
            }
            self.agrees().then_some(())
        });
    }

    /// Panics unless each server takes a new client and acknowledges what it says.
    pub(crate) fn assert_serves(&self) {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        for server in self.servers.iter().filter(|server| server.runs()) {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let mut client = RawClient::join(server.address, &format!("witness {number}"));
            client.join_room("witnesses", 0);
            client.chat_acked("witnesses", &format!("w{number}"), "still there");
        }
    }

    /// Waits until every running server knows `members` in `room`.
    pub(crate) fn wait_members(&self, room: &str, members: &[&str]) {
        let has_members = |server: &Server| {
            let status = server.status()?;
            let found = status.rooms.into_iter().find(|status| status.room_id == room)?;
            (found.members == members).then_some(())
        };
        for server in self.servers.iter().filter(|server| server.runs()) {
            wait_until(&format!("{} knows the members of {room}", server.id), || {
                has_members(server)
            });
        }
    }

    /// The lines of all logs at WARN or above, or of a panic.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let is_complaint = |line: &&str| {
            let level = line.split_whitespace().nth(1);
            matches!(level, Some("WARN" | "ERROR")) || line.contains("panicked")
        };
        let logs = self.servers.iter().map(Server::log);
        logs.flat_map(|log| {
            log.lines().filter(is_complaint).map(str::to_string).collect::<Vec<_>>()
        })
        .collect()
    }
}
