//! Servers that ask what time it is: made-up time servers, and a real one where it is installed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::fs;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use roundtable::domain::content::TimeState;
use roundtable::network::sntp::{self, NtpTimestamp, PACKET_BYTES};
use support::cluster::{Cluster, Server};
use support::wire::RawClient;
use support::{DEADLINE, program, wait_until};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_secs(3600);
/// How long ctrl-c may take: it should take 2 s, on a machine that does nothing else.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Starts a time server that is `ahead` of this machine's clock, on a thread that ends with the test's process.
fn time_server(ahead: Duration) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut question = [0; 100];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let now = NtpTimestamp::of(SystemTime::now()).plus(ahead).0.to_be_bytes();
            let mut answer = [0; PACKET_BYTES];
            answer[0] = 4 << 3 | 4; // version 4, mode server
            answer[1] = 1; // stratum
            answer[24..32].copy_from_slice(&question[40..48]);
            answer[32..40].copy_from_slice(&now);
            answer[40..48].copy_from_slice(&now);
            let _ = socket.send_to(&answer, from);
        }
    });
    address
}

/// One server process that asks `servers`.
fn server_with(servers: &str) -> Cluster {
    Cluster::start(1, &["--ntp", servers])
}

fn wait_synchronised(server: &Server) -> TimeState {
    wait_until("the server knows the time", || {
        let time = server.status()?.time?;
        matches!(time, TimeState::Synchronised { .. }).then_some(time)
    })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

#[test]
fn messages_are_stamped_with_the_time_of_the_time_server() {
    let cluster = server_with(&time_server(HOUR));
    wait_synchronised(&cluster.servers[0]);
    let mut alice = RawClient::join(cluster.address(0), "alice");
    alice.join_room("lobby", 0);
    let before = unix_ms();
    alice.chat("lobby", "1", "what time is it?");
    let stamped = alice.chats(1)[0].timestamp.unwrap();
    let hour = u64::try_from(HOUR.as_millis()).unwrap();
    // Half of the delay on the loopback, and a millisecond of rounding; a second is plenty.
    let limits = before + hour - 1000..=unix_ms() + hour + 1000;
    assert!(limits.contains(&stamped), "{stamped} is not in {limits:?}");
}

#[test]
fn the_first_server_that_answers_serves_and_the_status_shows_it() {
    // The first one is open and silent, the second one closed.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let good = time_server(HOUR);
    let cluster = server_with(&format!("{silent},{closed},{good}"));
    let time = wait_synchronised(&cluster.servers[0]);
    let TimeState::Synchronised { server, offset_ms, delay_ms, .. } = time else {
        panic!("{time}");
    };
    assert_eq!(server, good);
    // Wrong by half of the delay at most; a millisecond for the grain of the clocks.
    let error_ms = (offset_ms - 3_600_000.0).abs();
    assert!(error_ms <= delay_ms / 2.0 + 1.0, "offset {offset_ms} ms, delay {delay_ms} ms");
    let text = status_text(&cluster);
    let line = text.lines().find(|line| line.starts_with("time ")).unwrap_or_default();
    assert!(line.starts_with(&format!("time     {good}, offset +")), "{text}");
}

#[test]
fn without_an_answer_the_system_clock_serves_and_the_status_says_so() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let mut cluster = server_with(&address);
    let expected =
        format!("time     not synchronised, the system clock serves: {address} does not answer");
    wait_until("the status says so", || status_text(&cluster).contains(&expected).then_some(()));
    let mut alice = RawClient::join(cluster.address(0), "alice");
    alice.join_room("lobby", 0);
    let before = unix_ms();
    alice.chat("lobby", "1", "what time is it?");
    let stamped = alice.chats(1)[0].timestamp.unwrap();
    assert!((before..=unix_ms()).contains(&stamped), "{stamped}, asked at {before}");
    // It waits for nobody when it is told to stop.
    cluster.interrupt_all();
    let status = cluster.servers[0].wait_exit(STOP_LIMIT);
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[test]
fn without_time_servers_the_status_says_nothing_about_time() {
    let cluster = Cluster::start(1, &[]);
    assert_eq!(cluster.servers[0].status().unwrap().time, None);
    assert!(!status_text(&cluster).lines().any(|line| line.starts_with("time")));
}

fn status_text(cluster: &Cluster) -> String {
    let mut command = program();
    command.args(["status", "--connect", &cluster.address(0).to_string()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

// ---------------------------------------------------------------- a real time server

/// A `chronyd` that serves this machine's clock on the loopback and leaves the clock alone.
struct Chrony {
    child: Child,
    address: String,
    folder: TempDir,
}

impl Chrony {
    /// `None`, and a line that says so, where it is not installed.
    fn start() -> Option<Self> {
        let found = ["/usr/sbin/chronyd", "/usr/bin/chronyd", "/usr/local/sbin/chronyd"];
        let Some(program) = found.into_iter().find(|path| fs::exists(path).unwrap_or(false)) else {
            eprintln!("SKIPPED: chronyd is not installed (Debian: apt-get install chrony)");
            return None;
        };
        let user = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap();
        // Another program can take the port between the choice and the start.
        (0..5).find_map(|_| Self::start_once(program, user.trim())).or_else(|| {
            panic!("chronyd does not serve");
        })
    }

    fn start_once(program: &str, user: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = folder.path().join("chrony.conf");
        let pid = folder.path().join("pid");
        let settings = format!(
            "port {}\nbindaddress 127.0.0.1\nallow 127.0.0.1\nlocal stratum 8\n\
             cmdport 0\nbindcmdaddress /\npidfile {}\n",
            free.port(),
            pid.display()
        );
        fs::write(&config, settings).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        // -x: the clock is left alone; -d: in the foreground; -U: it need not be root.
        let child = Command::new(program)
            .args(["-x", "-d", "-U", "-u", user, "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut chrony = Self { child, address: free.to_string(), folder };
        let serves = wait_until("chronyd serves or ends", || {
            if chrony.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            sntp::query(&chrony.address, 1, Duration::from_millis(200)).is_ok().then_some(true)
        });
        serves.then_some(chrony)
    }
}

impl Drop for Chrony {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("---- log of chronyd:\n{log}");
        }
    }
}

#[test]
fn a_real_time_server_is_understood() {
    let Some(chrony) = Chrony::start() else { return };
    for nonce in [0x1234_5678_9abc_def0, u64::MAX] {
        let exchange = sntp::query(&chrony.address, nonce, DEADLINE).unwrap();
        // Both read the same clock: the offset is the error, half of the delay at most, and the grain of chronyd's
        // own time.
        let error_max_ns = exchange.delay_ns / 2 + 50_000_000;
        assert!(exchange.offset_ns.abs() <= error_max_ns, "{exchange:?}");
    }
}

#[test]
fn a_server_synchronises_with_a_real_time_server() {
    let Some(chrony) = Chrony::start() else { return };
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut cluster = server_with(&format!("{closed},{}", chrony.address));
    let time = wait_synchronised(&cluster.servers[0]);
    let TimeState::Synchronised { server, offset_ms, delay_ms, .. } = time else {
        panic!("{time}");
    };
    assert_eq!(server, chrony.address);
    assert!(offset_ms.abs() <= delay_ms / 2.0 + 50.0, "offset {offset_ms} ms, delay {delay_ms} ms");
    assert_eq!(cluster.complaints(), [""; 0]);
    cluster.stop_all();
}
