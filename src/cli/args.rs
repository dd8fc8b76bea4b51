//! The words of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};

use crate::config::{self, Settings, check_address, check_name, listed};
use crate::error::StartError;

const EXAMPLES: &str = "\
Examples:
  roundtable server --id n1                                a server that others find by itself
  roundtable client --name alice                           chat in the lobby
  roundtable status                                        how is the cluster?

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
  roundtable status --format json | jq .leader";

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
    /// Run whole clusters inside this process, with faults, and check what is promised
    Sim(crate::sim::command::SimArgs),
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
}
