//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use crate::config::{self, Design, Settings, check_address, check_name, listed};
use crate::error::StartError;
use crate::torture::fault::Fault;

const EXAMPLES: &str = "\
Examples:
  roundtable server --id n1                                a server that others find by itself
  roundtable client --name alice                           chat in the lobby
  roundtable status                                        how is the cluster?
  roundtable explain                                       why can I not write?

Every option can also be set in the environment: --listen is ROUNDTABLE_LISTEN.
Exit codes: 0 done, 1 failed while running, 2 wrong usage.";

const SERVER_EXAMPLES: &str = "\
Examples:
  roundtable server --id n1 --listen 127.0.0.1:7001
  roundtable server --id n2 --listen 127.0.0.1:7002 --peers 127.0.0.1:7001 --no-discovery
  roundtable server --config n3.json                       {\"id\": \"n3\", \"listen\": \"0.0.0.0:7001\"}

Flags win over the environment (ROUNDTABLE_LISTEN, …), that over the file, that over the defaults.";

const CLIENT_EXAMPLES: &str = "\
With a terminal: type to talk, /help lists the commands.
With a pipe: each line in is a message (also one that starts with /), each line out a delivered
message; everything else goes to standard error. At the end of input it waits for the
acknowledgements.

Examples:
  roundtable client --name alice --room lobby
  date | roundtable client --name clock --connect 127.0.0.1:7001,127.0.0.1:7002
  roundtable client --name log --format json --expect 100 --linger-ms 60000 </dev/null";

const STATUS_EXAMPLES: &str = "\
Examples:
  roundtable status --connect 127.0.0.1:7001
  roundtable status --format json | jq .leader
  roundtable status --check ready --connect 127.0.0.1:7001 for scripts and the probes of containers";

const EXPLAIN_EXAMPLES: &str = "\
Asks every server that it knows or hears of. Exit code 1 when none answers.

Examples:
  roundtable explain --connect 127.0.0.1:7001
  roundtable explain --format json | jq '.[0].what'";

const DEMO_EXAMPLES: &str = "\
The servers keep everything in a temporary folder, which is removed at the end. Exit code 1 when a
promise was broken, or when it was stopped.

Examples:
  roundtable demo
  roundtable demo --design raft";

const TORTURE_EXAMPLES: &str = "\
One fault at a time; the next one comes when the servers are one again. Everything happens on this
machine, in a temporary folder that is removed at the end. After a violation the folder stays, and
the exit code is 1.

Examples:
  roundtable torture --design raft --for 5m
  roundtable torture --faults kill,pause --seed 7 --nodes 5";

const MEMBER_EXAMPLES: &str = "\
Examples, with any server of the cluster for --connect:
  roundtable member list --connect 127.0.0.1:7001
  roundtable member add n4                  n4 runs, and is connected to the others
  roundtable member add n4 10.0.0.4:7001    n4 runs there, and nobody knows it yet
  roundtable member remove n1               then stop n1

A server that is added gets the log first, and votes when it has caught up. Only the design raft
can change its voters; with sequencer they can be listed.";

const COMPARE_EXAMPLES: &str = "\
Real servers on this machine, one design after the other, for about 40 s each. Use a release build.

Examples:
  roundtable compare
  roundtable compare --designs sequencer,raft --nodes 5 --svg figures.svg
  roundtable compare --format json | jq '.[].throughput'";

/// A fault-tolerant distributed chat.
#[derive(Debug, Parser)]
#[command(name = "roundtable", version, about, after_help = EXAMPLES)]
#[command(
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Subcommand,
}

/// What the program can do.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Run one server of a cluster
    #[command(after_help = SERVER_EXAMPLES)]
    Server(Box<Settings>),
    /// Chat, or pipe messages in and out
    #[command(after_help = CLIENT_EXAMPLES)]
    Client(ClientArgs),
    /// Show how the cluster is
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Say in sentences how the cluster is, and why one cannot write
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Watch a leader die while two people talk: three real servers, half a minute, no typing
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Break real servers under people who talk, and judge what these saw
    #[command(after_help = TORTURE_EXAMPLES)]
    Torture(TortureArgs),
    /// List the members of the cluster, let a server in or out
    #[command(after_help = MEMBER_EXAMPLES)]
    #[command(subcommand_required = true, disable_help_subcommand = true)]
    Member {
        /// Which of these.
        #[command(subcommand)]
        what: MemberCommand,
    },
    /// Measure the designs side by side, under the same load and the same faults
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(CompareArgs),
    /// Run whole clusters inside this process, with faults, and check what is promised
    Sim(crate::sim::command::SimArgs),
    /// Put together and draw what servers wrote down with --trace
    Trace(crate::trace::command::TraceArgs),
}

/// What `roundtable client` was told about the pipe.
#[derive(Clone, Debug)]
pub struct FilterOptions {
    /// Where the lines go.
    pub room: String,
    /// How many messages of the past to print; `None`: as many as the server chooses.
    pub history: Option<u32>,
    /// How deliveries are printed.
    pub format: Format,
    /// How long to wait for acknowledgements after the end of input; `None`: not at all.
    pub wait: Option<Duration>,
    /// How long to stay after the last acknowledgement.
    pub linger: Option<Duration>,
    /// Leave when so many deliveries were printed.
    pub expect: Option<u64>,
    /// The longest message on the wire, in bytes; a longer line is not kept.
    pub frame_bytes_max: usize,
}

/// How output looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Where the servers are.
#[derive(Args, Clone, Debug, Default)]
pub struct ConnectArgs {
    /// Servers to try in turn [default: find one by UDP]
    #[arg(long, env = "ROUNDTABLE_CONNECT", hide_env = true, value_name = "HOST:PORT,…")]
    #[arg(value_delimiter = ',')]
    pub connect: Option<Vec<String>>,
    /// Which cluster to look for
    #[arg(long, env = "ROUNDTABLE_CLUSTER", hide_env = true, value_name = "NAME")]
    #[arg(default_value = config::CLUSTER)]
    pub cluster: String,
    /// The UDP port of discovery
    #[arg(long, env = "ROUNDTABLE_DISCOVERY_PORT", hide_env = true, value_name = "PORT")]
    #[arg(default_value_t = config::DISCOVERY_PORT)]
    pub discovery_port: u16,
}

impl ConnectArgs {
    /// The addresses that were named; empty means that one is to be found.
    pub fn addresses(&self) -> Result<Vec<String>, StartError> {
        let addresses = listed(self.connect.clone());
        addresses.iter().try_for_each(|address| check_address("--connect", address).map(drop))?;
        Ok(addresses)
    }
}

/// The options of `roundtable client`.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// Where the servers are.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Your name, unique in the cluster
    #[arg(long, env = "ROUNDTABLE_NAME", hide_env = true)]
    pub name: String,
    /// The room to talk in
    #[arg(long, env = "ROUNDTABLE_ROOM", hide_env = true, default_value = "lobby")]
    pub room: String,
    /// How many messages of the past to show first [default: 50]
    #[arg(long, value_name = "N")]
    pub history: Option<u32>,
    /// Read your password from the first line of FILE, or set `ROUNDTABLE_PASSWORD`; at a terminal you are asked when one
    /// is needed (designs sequencer and raft)
    #[arg(long, env = "ROUNDTABLE_PASSWORD_FILE", hide_env = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Keep what is not acknowledged in FILE, and send it when you start again with it
    #[arg(long, env = "ROUNDTABLE_OUTBOX", hide_env = true, value_name = "FILE")]
    pub outbox: Option<PathBuf>,
    /// The longest message that is sent, as the servers' setting of the same name
    #[arg(long, env = "ROUNDTABLE_FRAME_BYTES_MAX", hide_env = true, value_name = "BYTES")]
    #[arg(default_value_t = config::FRAME_BYTES_MAX)]
    pub frame_bytes_max: usize,
    /// How delivered messages are printed: text, or json for one object a line
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    #[arg(help_heading = "With a pipe")]
    pub format: Format,
    /// Wait so long for acknowledgements after the end of input; 0: not at all
    #[arg(long, value_name = "MS", default_value_t = 30_000, help_heading = "With a pipe")]
    pub wait_ms: u64,
    /// Print others' messages for so long after the last acknowledgement
    #[arg(long, value_name = "MS", help_heading = "With a pipe")]
    pub linger_ms: Option<u64>,
    /// Leave when so many messages were printed, history and own ones included. Waits for them for
    /// --linger-ms, or --wait-ms, and fails when fewer came
    #[arg(long, value_name = "COUNT", help_heading = "With a pipe")]
    pub expect: Option<u64>,
}

impl ClientArgs {
    /// Refuses names that no server would take.
    pub fn check(&self) -> Result<(), StartError> {
        check_name("--name", &self.name)?;
        check_name("--room", &self.room)?;
        check_name("--cluster", &self.connect.cluster)
    }

    /// What the pipe needs to know.
    pub fn filter_options(&self) -> FilterOptions {
        let some_ms = |ms: u64| (ms > 0).then_some(Duration::from_millis(ms));
        FilterOptions {
            room: self.room.clone(),
            history: self.history,
            format: self.format,
            wait: some_ms(self.wait_ms),
            linger: self.linger_ms.and_then(some_ms),
            expect: self.expect,
            frame_bytes_max: self.frame_bytes_max,
        }
    }
}

/// The options of `roundtable status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Where the servers are.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// How it is printed: text or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: Format,
    /// Print one line, and exit with 0 when a server answers (alive) or takes clients (ready), else with 1
    #[arg(long, value_enum, value_name = "WHAT", hide_possible_values = true)]
    #[arg(conflicts_with = "format")]
    pub check: Option<Check>,
}

/// What `roundtable status --check` wants of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// It answers. One that waits for a majority does, too: starting it again would not help.
    Alive,
    /// It takes clients.
    Ready,
}

/// The options of `roundtable explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// Where the servers are.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// How it is printed: text or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: Format,
}

/// The options of `roundtable demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// What the servers run: ring, sequencer or raft
    #[arg(long, env = "ROUNDTABLE_DESIGN", hide_env = true, default_value_t = Design::Ring)]
    pub design: Design,
}

/// The options of `roundtable torture`.
#[derive(Args, Clone, Debug)]
pub struct TortureArgs {
    /// What the servers run: ring, sequencer or raft
    #[arg(long, env = "ROUNDTABLE_DESIGN", hide_env = true, default_value_t = Design::Ring)]
    pub design: Design,
    /// How long faults go on: 90s, 5m
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub lasts: Duration,
    /// How many servers
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// How many people talk
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub clients: u16,
    /// The time between two messages of one of them, on average
    #[arg(long, value_name = "MS", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..))]
    pub pause_ms: u64,
    /// Which faults [default: all that the design promises to survive]
    #[arg(long, value_name = "FAULT,…", value_enum, value_delimiter = ',')]
    pub faults: Option<Vec<Fault>>,
    /// Decides on the faults [default: a random one, which is printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// A fault in the servers' code, on purpose: see the documentation of `server::planted`
    #[cfg(feature = "planted-faults")]
    #[arg(long)]
    pub plant: Option<String>,
}

/// The options of `roundtable compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Which designs
    #[arg(long, value_name = "DESIGN,…", value_delimiter = ',', default_values_t = Design::ALL)]
    pub designs: Vec<Design>,
    /// How many servers
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    pub nodes: u8,
    /// How many clients
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub clients: u16,
    /// How long quiet talk and full load are measured, each
    #[arg(long = "for", value_name = "TIME", default_value = "8s", value_parser = parse_time)]
    pub phase: Duration,
    /// How often the leader is killed, and how often it is cut off: the median counts
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub rounds: u8,
    /// Draw the figures into FILE, too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// How the figures are printed: text or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: Format,
}

/// Reads `90s`, `5m` or `1h`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time, such as 90s or 5m");
    let (number, unit) =
        text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = number.parse().map_err(|_| wrong())?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// What `roundtable member` can do.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum MemberCommand {
    /// Make a server a voter, when it has caught up
    Add {
        /// The server's id
        id: String,
        /// Where it can be dialled, when the others are not connected to it
        #[arg(value_name = "HOST:PORT")]
        address: Option<String>,
        /// What all have.
        #[command(flatten)]
        args: MemberArgs,
    },
    /// Take a voter or learner out of the cluster; the leader, too
    Remove {
        /// The server's id
        id: String,
        /// What all have.
        #[command(flatten)]
        args: MemberArgs,
    },
    /// Show who votes, who learns, and how far each is behind
    List {
        /// What all have.
        #[command(flatten)]
        args: MemberArgs,
    },
}

/// The options of `roundtable member`.
#[derive(Args, Clone, Debug)]
pub struct MemberArgs {
    /// Where the servers are.
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// How long to wait until a change is done; 0: say it once, and do not wait
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub wait_ms: u64,
    /// How the members are printed: text or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: Format,
}
