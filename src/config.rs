//! The settings of a server: where they come from, what they may be.
//!
//! ```text
//!   flags ──▶ environment ──▶ settings file ──▶ defaults        the first that says something wins
//!   --listen  ROUNDTABLE_LISTEN  {"listen": …}  127.0.0.1:7001
//! ```
//!
//! [`Settings`] is what was said, [`ServerConfig`] what it means: complete, checked, nothing left to parse.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use clap::builder::BoolishValueParser;
use log::LevelFilter;
use serde::Deserialize;

use crate::domain::NodeId;
use crate::domain::ids::name_fault;
use crate::error::StartError;
use crate::server::election::ElectionKind;
use crate::server::failover::HealthTiming;
use crate::server::ordering::TAIL_BYTES;
use crate::server::total_order::COMPACT_AFTER;
use crate::server::total_order::logins::Admission;

mod addresses;
mod profile;

pub(crate) use addresses::check_address;
use addresses::{advertised_ip, check_advertise, resolve_listen};
pub use profile::Profile;

mod rehearsal;
mod retain;

pub use rehearsal::Rehearsal;
pub use retain::Retain;

/// The port that servers and clients find each other on, when nothing else is said.
pub const DISCOVERY_PORT: u16 = 5007;
/// The cluster's name, when nothing else is said.
pub const CLUSTER: &str = "roundtable";
/// The longest frame that is taken, in bytes, when nothing else is said.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Which of the three designs a cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// Hirschberg-Sinclair, causal rooms, anti-entropy.
    Ring,
    /// Bully, a sequencer, one order for all.
    Sequencer,
    /// Raft: votes, a replicated log, one order for all.
    Raft,
}

impl Design {
    /// Those that this version has.
    pub const ALL: [Self; 3] = [Self::Ring, Self::Sequencer, Self::Raft];

    /// The election that it holds when nothing else is said.
    pub fn election(self) -> ElectionKind {
        match self {
            // Raft votes by itself; nothing is said here.
            Self::Ring | Self::Raft => ElectionKind::HirschbergSinclair,
            Self::Sequencer => ElectionKind::Bully,
        }
    }

    /// Whether its servers agree on one order for all.
    pub fn has_one_order(self) -> bool {
        match self {
            Self::Ring => false,
            Self::Sequencer | Self::Raft => true,
        }
    }

    /// Whether its servers try each other's ports ([`Failover`](crate::server::Failover)).
    pub fn checks_health(self) -> bool {
        match self {
            Self::Ring | Self::Sequencer => false,
            Self::Raft => true,
        }
    }
}

impl fmt::Display for Design {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ring => "ring",
            Self::Sequencer => "sequencer",
            Self::Raft => "raft",
        })
    }
}

impl FromStr for Design {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        if let Some(design) = Self::ALL.into_iter().find(|design| design.to_string() == text) {
            return Ok(design);
        }
        let built = Self::ALL.map(|design| design.to_string()).join(", ");
        usage(format!("the design {text:?} does not exist; this version has: {built}"))
    }
}

/// When a message of the design `sequencer` counts as committed: it is shown and acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckRule {
    /// On the disks of a majority of the voters: it survives the death of any minority.
    #[default]
    Majority,
    /// On the leader's disk: total-order-chat.txt's own rule, for comparison. What the leader had not passed
    /// on when it dies is lost.
    Leader,
}

impl FromStr for AckRule {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        match text {
            "majority" => Ok(Self::Majority),
            "leader" => Ok(Self::Leader),
            _ => usage(format!("--ack {text:?} is neither majority nor leader")),
        }
    }
}

/// What was said about a server, by flags, the environment or a file. The file is a JSON object with the
/// same names in `snake_case`; a name that is not one of these is refused.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The server's name, unique in its cluster
    #[arg(long, env = "ROUNDTABLE_ID", hide_env = true)]
    pub id: Option<String>,
    /// Where to listen, for servers and clients [default: 127.0.0.1:7001]
    #[arg(long, env = "ROUNDTABLE_LISTEN", hide_env = true, value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// What others are told instead of the listening address
    #[arg(long, env = "ROUNDTABLE_ADVERTISE", hide_env = true, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Which design to run: ring, sequencer or raft [default: ring]
    #[arg(long, env = "ROUNDTABLE_DESIGN", hide_env = true)]
    pub design: Option<String>,
    /// How the servers find a leader: hs (Hirschberg-Sinclair), bully; not with the design raft [default: hs]
    #[arg(long, env = "ROUNDTABLE_ELECTION", hide_env = true, value_name = "NAME")]
    pub election: Option<String>,
    /// Servers of other clusters are refused [default: roundtable]
    #[arg(long, env = "ROUNDTABLE_CLUSTER", hide_env = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Some other servers, where broadcast does not reach
    #[arg(
        long,
        env = "ROUNDTABLE_PEERS",
        hide_env = true,
        value_name = "HOST:PORT,…",
        value_delimiter = ','
    )]
    pub peers: Option<Vec<String>>,
    /// The UDP port of discovery [default: 5007]
    #[arg(long, env = "ROUNDTABLE_DISCOVERY_PORT", hide_env = true, value_name = "PORT")]
    pub discovery_port: Option<u16>,
    /// Find others through --peers alone
    #[arg(long, env = "ROUNDTABLE_NO_DISCOVERY", hide_env = true, value_parser = BoolishValueParser::new())]
    #[arg(conflicts_with = "discovery_port")]
    pub no_discovery: bool,
    /// The data folder [default: data/ID]
    #[arg(long, env = "ROUNDTABLE_DATA", hide_env = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Set a damaged log aside and fetch what it held from the others
    #[arg(long)]
    #[serde(skip)]
    pub repair: bool,
    /// Whether clients need a password: optional, required (designs sequencer and raft) [default: optional]
    #[arg(long, env = "ROUNDTABLE_AUTH", hide_env = true, value_name = "WHEN")]
    pub auth: Option<String>,
    /// Whether a new name with a password is taken: open, closed (designs sequencer and raft) [default: open]
    #[arg(long, env = "ROUNDTABLE_REGISTRATION", hide_env = true, value_name = "HOW")]
    pub registration: Option<String>,
    /// Rooms that exist from the start
    #[arg(
        long,
        env = "ROUNDTABLE_ROOMS",
        hide_env = true,
        value_name = "ROOM,…",
        value_delimiter = ','
    )]
    pub rooms: Option<Vec<String>>,
    /// How many servers found the cluster (designs sequencer and raft) [default: 1 and the other --peers]
    #[arg(long, env = "ROUNDTABLE_BOOTSTRAP_EXPECT", hide_env = true, value_name = "N")]
    pub bootstrap_expect: Option<usize>,
    /// Whose disk an acknowledgement stands on: majority or leader (design sequencer) [default: majority]
    #[arg(long, env = "ROUNDTABLE_ACK", hide_env = true, value_name = "RULE")]
    pub ack: Option<String>,
    /// A JSON file with settings, for what no flag and no variable says
    #[arg(long, env = "ROUNDTABLE_CONFIG", hide_env = true, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Servers that know the time (NTP), asked in turn until one answers
    #[arg(
        long,
        env = "ROUNDTABLE_NTP",
        hide_env = true,
        value_name = "HOST:PORT,…",
        value_delimiter = ','
    )]
    pub ntp: Option<Vec<String>>,
    /// What the four times below are when they are not said: fast or document [default: fast]
    #[arg(long, env = "ROUNDTABLE_PROFILE", hide_env = true, help_heading = "Tuning")]
    pub profile: Option<String>,
    /// How often servers say that they are alive [default: 100; document: 800]
    #[arg(
        long,
        env = "ROUNDTABLE_HEARTBEAT_INTERVAL_MS",
        hide_env = true,
        value_name = "MS",
        help_heading = "Tuning"
    )]
    pub heartbeat_interval_ms: Option<u64>,
    /// A server silent for so long is dead [default: 800; document: 2500]
    #[arg(
        long,
        env = "ROUNDTABLE_SERVER_TIMEOUT_MS",
        hide_env = true,
        value_name = "MS",
        help_heading = "Tuning"
    )]
    pub server_timeout_ms: Option<u64>,
    /// How often each port is tried, where health checks run (design raft) [default: 1000; document: 3000]
    #[arg(
        long,
        env = "ROUNDTABLE_HEALTH_CHECK_INTERVAL_MS",
        hide_env = true,
        value_name = "MS",
        help_heading = "Tuning"
    )]
    pub health_check_interval_ms: Option<u64>,
    /// How long such a connection may take [default: 500; document: 2000]
    #[arg(
        long,
        env = "ROUNDTABLE_HEALTH_CHECK_TIMEOUT_MS",
        hide_env = true,
        value_name = "MS",
        help_heading = "Tuning"
    )]
    pub health_check_timeout_ms: Option<u64>,
    /// The longest frame that is taken [default: 1048576]
    #[arg(
        long,
        env = "ROUNDTABLE_FRAME_BYTES_MAX",
        hide_env = true,
        value_name = "BYTES",
        help_heading = "Tuning"
    )]
    pub frame_bytes_max: Option<usize>,
    /// A client with more than this unread is disconnected [default: 8388608]
    #[arg(
        long,
        env = "ROUNDTABLE_CLIENT_QUEUE_BYTES",
        hide_env = true,
        value_name = "BYTES",
        help_heading = "Tuning"
    )]
    pub client_queue_bytes: Option<usize>,
    /// A log file longer than this is followed by a new one [default: 67108864]
    #[arg(
        long,
        env = "ROUNDTABLE_SEGMENT_BYTES",
        hide_env = true,
        value_name = "BYTES",
        help_heading = "Tuning"
    )]
    pub segment_bytes: Option<u64>,
    /// A snapshot replaces the log when so many entries were applied since the last one, and as many as there were messages then
    /// (design raft) [default: 20000]
    #[arg(
        long,
        env = "ROUNDTABLE_COMPACT_AFTER",
        hide_env = true,
        value_name = "ENTRIES",
        help_heading = "Tuning"
    )]
    pub compact_after: Option<u64>,
    /// How much of the log's end stays in memory, for who joins and for servers that fall behind a little (designs ring and sequencer)
    /// [default: 33554432]
    #[arg(
        long,
        env = "ROUNDTABLE_LOG_TAIL_BYTES",
        hide_env = true,
        value_name = "BYTES",
        help_heading = "Tuning"
    )]
    pub log_tail_bytes: Option<usize>,
    /// How much of the past is kept: a size (1GiB), an age (30d) or everything (design sequencer; raft keeps all messages and
    /// bounds its log by snapshots, ring keeps everything) [default: everything]
    #[arg(
        long,
        env = "ROUNDTABLE_RETAIN",
        hide_env = true,
        value_name = "HOW_MUCH",
        help_heading = "Tuning"
    )]
    pub retain: Option<String>,
    /// Write what the server does to FILE, one JSON object a line, for `roundtable trace`
    #[arg(long, env = "ROUNDTABLE_TRACE", hide_env = true, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Keep about so much of the trace: FILE, and FILE.old with what came before [default: everything]
    #[arg(
        long,
        env = "ROUNDTABLE_TRACE_BYTES_MAX",
        hide_env = true,
        value_name = "BYTES",
        help_heading = "Tuning"
    )]
    pub trace_bytes_max: Option<u64>,
    /// How much to log: error, warn, info, debug, trace, off [default: `RUST_LOG`, or info]
    #[arg(
        long,
        env = "ROUNDTABLE_LOG",
        hide_env = true,
        value_name = "LEVEL",
        help_heading = "Tuning"
    )]
    pub log: Option<String>,
    /// Faults on purpose.
    #[command(flatten)]
    #[serde(skip)]
    pub rehearsal: Rehearsal,
}

/// Everything that a server needs to know before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerConfig {
    /// Its name.
    pub id: NodeId,
    /// Where it listens; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// What others are told, `host:port`; see [`advertised`](Self::advertised).
    pub advertise: Option<String>,
    /// The address of this machine that others are told when no `advertise` is given.
    pub advertise_ip: IpAddr,
    /// What it runs.
    pub design: Design,
    /// How it finds a leader.
    pub election: ElectionKind,
    /// The cluster's name.
    pub cluster: String,
    /// Some other servers, `host:port`, its own address not among them.
    pub peers: Vec<String>,
    /// The UDP port of discovery; `None` when there is none.
    pub discovery_port: Option<u16>,
    /// The data folder. It need not exist.
    pub data: PathBuf,
    /// Whether a damaged log is set aside.
    pub repair: bool,
    /// Faults on purpose.
    pub rehearsal: Rehearsal,
    /// Whom it lets in.
    pub admission: Admission,
    /// Rooms that exist from the start.
    pub rooms: Vec<String>,
    /// How many servers found the cluster (designs `sequencer` and `raft`).
    pub bootstrap_expect: usize,
    /// Whose disk an acknowledgement stands on (design `sequencer`).
    pub ack: AckRule,
    /// How often servers say that they are alive, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// A server silent for so long is dead, in milliseconds.
    pub server_timeout_ms: u64,
    /// Time servers, `host:port`.
    pub ntp: Vec<String>,
    /// How ports are tried, where the design does that.
    pub health: HealthTiming,
    /// The longest frame that is taken, in bytes.
    pub frame_bytes_max: usize,
    /// How much may wait for a client to read it, in bytes.
    pub client_queue_bytes: usize,
    /// A log file longer than this is followed by a new one, in bytes.
    pub segment_bytes: u64,
    /// A snapshot replaces the log when so many entries were applied, at least (design `raft`).
    pub compact_after: u64,
    /// How much of the log's end stays in memory, in bytes (designs `ring` and `sequencer`).
    pub log_tail_bytes: usize,
    /// How much of the past is kept (design `sequencer`).
    pub retain: Retain,
    /// Where its trace goes, if anywhere.
    pub trace: Option<PathBuf>,
    /// How much of it is kept, in bytes; everything when it is left out.
    pub trace_bytes_max: Option<u64>,
    /// How much to log; `None` leaves it to `RUST_LOG`, or info.
    pub log: Option<LevelFilter>,
}

impl ServerConfig {
    /// What others are told, `host:port`, once the server listens on `port`.
    pub fn advertised(&self, port: u16) -> String {
        let chosen = || SocketAddr::new(self.advertise_ip, port).to_string();
        self.advertise.clone().unwrap_or_else(chosen)
    }
}

impl Settings {
    /// Reads the settings file if one is named, fills in what is missing and checks it all.
    pub fn resolve(self) -> Result<ServerConfig, StartError> {
        match self.config.clone() {
            Some(path) => self.or(Self::from_file(&path)?).check(),
            None => self.check(),
        }
    }

    /// The settings in the JSON file at `path`.
    pub fn from_file(path: &Path) -> Result<Self, StartError> {
        let refuse = |reason: &dyn fmt::Display| {
            StartError::Usage(format!("the settings file {}: {reason}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
        serde_json::from_str(&text).map_err(|error| refuse(&error))
    }

    /// These settings, and `other`'s where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            id: self.id.or(other.id),
            listen: self.listen.or(other.listen),
            advertise: self.advertise.or(other.advertise),
            design: self.design.or(other.design),
            election: self.election.or(other.election),
            cluster: self.cluster.or(other.cluster),
            peers: self.peers.or(other.peers),
            // One setting in two words: a port said here outweighs a "no" said there.
            no_discovery: self.no_discovery
                || (other.no_discovery && self.discovery_port.is_none()),
            discovery_port: self.discovery_port.or(other.discovery_port),
            data: self.data.or(other.data),
            repair: self.repair || other.repair,
            rehearsal: self.rehearsal,
            auth: self.auth.or(other.auth),
            registration: self.registration.or(other.registration),
            rooms: self.rooms.or(other.rooms),
            bootstrap_expect: self.bootstrap_expect.or(other.bootstrap_expect),
            ack: self.ack.or(other.ack),
            config: self.config.or(other.config),
            heartbeat_interval_ms: self.heartbeat_interval_ms.or(other.heartbeat_interval_ms),
            server_timeout_ms: self.server_timeout_ms.or(other.server_timeout_ms),
            ntp: self.ntp.or(other.ntp),
            profile: self.profile.or(other.profile),
            health_check_interval_ms: self
                .health_check_interval_ms
                .or(other.health_check_interval_ms),
            health_check_timeout_ms: self.health_check_timeout_ms.or(other.health_check_timeout_ms),
            frame_bytes_max: self.frame_bytes_max.or(other.frame_bytes_max),
            client_queue_bytes: self.client_queue_bytes.or(other.client_queue_bytes),
            segment_bytes: self.segment_bytes.or(other.segment_bytes),
            compact_after: self.compact_after.or(other.compact_after),
            log_tail_bytes: self.log_tail_bytes.or(other.log_tail_bytes),
            retain: self.retain.or(other.retain),
            trace: self.trace.or(other.trace),
            trace_bytes_max: self.trace_bytes_max.or(other.trace_bytes_max),
            log: self.log.or(other.log),
        }
    }

    fn check(self) -> Result<ServerConfig, StartError> {
        let Some(id) = self.id else {
            return usage("the server needs a name: give --id, or set ROUNDTABLE_ID".into());
        };
        check_node_id(&id)?;
        let listen_text = self.listen.unwrap_or_else(|| "127.0.0.1:7001".into());
        let listen = resolve_listen(&listen_text)?;
        let cluster = self.cluster.unwrap_or_else(|| CLUSTER.into());
        check_name("--cluster", &cluster)?;
        let rooms = listed(self.rooms);
        rooms.iter().try_for_each(|room| check_name("--rooms", room))?;
        let mut peers = listed_addresses("--peers", self.peers)?;
        if let Some(advertise) = &self.advertise {
            check_advertise(advertise)?;
        }
        let ntp = listed_addresses("--ntp", self.ntp)?;
        let profile: Profile = self.profile.as_deref().unwrap_or("fast").parse()?;
        let health = profile.health(self.health_check_interval_ms, self.health_check_timeout_ms)?;
        let own = [Some(listen_text), Some(listen.to_string()), self.advertise.clone()];
        peers.retain(|peer| !own.contains(&Some(peer.clone())));
        let design: Design = self.design.as_deref().unwrap_or("ring").parse()?;
        let admission = Admission {
            password_required: one_of("--auth", self.auth, "optional", "required")?,
            registration_closed: one_of("--registration", self.registration, "open", "closed")?,
        };
        if design == Design::Ring && admission != Admission::default() {
            return usage(
                "the design ring has no passwords; --auth and --registration are for others".into(),
            );
        }
        if design == Design::Raft && self.election.is_some() {
            return usage(
                "the design raft elects its leader by votes of its own; leave --election out (and ROUNDTABLE_ELECTION)".into(),
            );
        }
        let config = ServerConfig {
            data: self.data.unwrap_or_else(|| Path::new("data").join(&id)),
            id: id.into(),
            listen,
            advertise_ip: advertised_ip(listen.ip(), self.advertise.is_some())?,
            advertise: self.advertise,
            election: self.election.map_or(Ok(design.election()), |name| parse_election(&name))?,
            design,
            cluster,
            bootstrap_expect: self.bootstrap_expect.unwrap_or(1 + peers.len()),
            ack: self.ack.map_or(Ok(AckRule::default()), |rule| rule.parse())?,
            peers,
            discovery_port: (!self.no_discovery)
                .then_some(self.discovery_port.unwrap_or(DISCOVERY_PORT)),
            repair: self.repair,
            rehearsal: self.rehearsal,
            admission,
            rooms,
            heartbeat_interval_ms: self
                .heartbeat_interval_ms
                .unwrap_or(profile.heartbeat_interval_ms()),
            server_timeout_ms: self.server_timeout_ms.unwrap_or(profile.server_timeout_ms()),
            ntp,
            health,
            frame_bytes_max: self.frame_bytes_max.unwrap_or(FRAME_BYTES_MAX),
            client_queue_bytes: self.client_queue_bytes.unwrap_or(8 * 1024 * 1024),
            segment_bytes: self.segment_bytes.unwrap_or(64 * 1024 * 1024),
            compact_after: self.compact_after.unwrap_or(COMPACT_AFTER),
            log_tail_bytes: self.log_tail_bytes.unwrap_or(TAIL_BYTES),
            retain: self.retain.map(|text| parse_retain(&text)).transpose()?.unwrap_or_default(),
            trace: self.trace,
            trace_bytes_max: self.trace_bytes_max,
            log: self.log.map(|level| parse_level(&level)).transpose()?,
        };
        check_numbers(&config)?;
        Ok(config)
    }
}

fn usage<T>(text: String) -> Result<T, StartError> {
    Err(StartError::Usage(text))
}

/// Whether the setting `name` says `other` rather than `usual`, which it is when it says nothing.
fn one_of(name: &str, value: Option<String>, usual: &str, other: &str) -> Result<bool, StartError> {
    match value {
        Some(value) if value == other => Ok(true),
        Some(value) if value != usual => {
            usage(format!("{name} {value:?} is neither {usual} nor {other}"))
        }
        _ => Ok(false),
    }
}

/// What was said, each a `host:port`.
fn listed_addresses(name: &str, said: Option<Vec<String>>) -> Result<Vec<String>, StartError> {
    let addresses = listed(said);
    addresses.iter().try_for_each(|address| check_address(name, address).map(drop))?;
    Ok(addresses)
}

fn parse_election(name: &str) -> Result<ElectionKind, StartError> {
    let known = || ElectionKind::ALL.map(|kind| kind.to_string()).join(", ");
    ElectionKind::named(name).map_or_else(
        || usage(format!("the election {name:?} does not exist; this version has: {}", known())),
        Ok,
    )
}

/// The items of a list that is allowed to have empty ones, as a trailing comma or an empty variable makes.
pub(crate) fn listed(items: Option<Vec<String>>) -> Vec<String> {
    let items = items.unwrap_or_default();
    items.iter().map(|item| item.trim().to_string()).filter(|item| !item.is_empty()).collect()
}

fn check_numbers(config: &ServerConfig) -> Result<(), StartError> {
    let least = |name: &str, value: u64, least: u64, why: &str| {
        if value < least {
            return usage(format!("--{name} {value} is less than {least}, {why}"));
        }
        Ok(())
    };
    let interval = config.heartbeat_interval_ms;
    least("heartbeat-interval-ms", interval, 10, "which would be all that the network does")?;
    least(
        "server-timeout-ms",
        config.server_timeout_ms,
        3 * interval,
        "three times --heartbeat-interval-ms; one late heartbeat would kill a server",
    )?;
    least(
        "frame-bytes-max",
        config.frame_bytes_max as u64,
        4096,
        "too small for the servers' own",
    )?;
    least(
        "client-queue-bytes",
        config.client_queue_bytes as u64,
        config.frame_bytes_max as u64,
        "--frame-bytes-max; not one long message would fit",
    )?;
    least("segment-bytes", config.segment_bytes, 4096, "a file for every few messages")?;
    least("compact-after", config.compact_after, 1, "a snapshot for every entry")?;
    let forgets_nothing = match config.design {
        Design::Sequencer => None,
        Design::Raft => Some("raft bounds its log by snapshots, and keeps all messages in them"),
        Design::Ring => Some("ring keeps all messages: a server may come back that lacks them"),
    };
    if let Some(reason) = forgets_nothing.filter(|_| config.retain != Retain::Everything) {
        let retain = config.retain;
        return usage(format!(
            "--retain {retain} is for the design sequencer: {reason}; leave it out, or say everything"
        ));
    }
    if let Retain::Bytes(bytes) = config.retain
        && bytes < config.segment_bytes
    {
        return usage(format!(
            "--retain {} is less than --segment-bytes {}, and the newest file is never removed; \
             give more, or smaller files",
            config.retain, config.segment_bytes
        ));
    }
    least("bootstrap-expect", config.bootstrap_expect as u64, 1, "and somebody has to begin")
}

/// Says why `name` cannot be what `flag` gives.
pub(crate) fn check_name(flag: &str, name: &str) -> Result<(), StartError> {
    match name_fault(name) {
        Some(fault) => usage(format!("{flag} {name:?} {fault}; choose another name")),
        None => Ok(()),
    }
}

fn check_node_id(id: &str) -> Result<(), StartError> {
    check_name("--id", id)?;
    // Log lines are split at spaces, and the data folder is named for the id.
    if id.contains(|c: char| c.is_whitespace() || c == '/' || c == '\\') || id.starts_with('.') {
        return usage(format!(
            "--id {id:?} has a space or a slash or starts with a dot; use a plain name such as n1"
        ));
    }
    Ok(())
}

fn parse_retain(text: &str) -> Result<Retain, StartError> {
    text.parse().or_else(|problem: String| usage(format!("--retain {text:?} {problem}")))
}

fn parse_level(level: &str) -> Result<LevelFilter, StartError> {
    level.parse().or_else(|_| {
        usage(format!("--log {level:?} is none of error, warn, info, debug, trace, off"))
    })
}

#[cfg(test)]
mod tests;
