//! `roundtable bench`: [measures](mod@crate::bench), shows how far it is, and prints the tables.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::{Format, parse_time};
use super::growth::GrowthArgs;
use super::stopping::Stopping;
use super::{Outcome, complain};
use crate::bench::figures::{Figures, table};
use crate::bench::{self, BenchSettings, Progress, Servers, Workload, Writes};
use crate::config::{Design, check_address, listed};
use crate::error::StartError;

/// How many characters wide the bar is.
const BAR: usize = 24;
/// A session remembers so many ids of messages.
const WINDOW_MAX: u32 = 1024;

/// What stands under the help.
pub(super) const EXAMPLES: &str = "\
Servers are started for each workload, in a temporary folder (TMPDIR says where), and removed with
it. Use a release build, and a machine that has nothing else to do. Exit code 1 when a message was
lost or shown twice.

Examples:
  roundtable bench                                         everything, for about a minute
  roundtable bench fan-out --members 1000 --senders 1
  roundtable bench writes --design raft --writes 1x1,16x1,64x1,256x1,1x256
  roundtable bench failover --design raft --nodes 5 --rounds 20
  roundtable bench latency --connect 10.0.0.1:7001,10.0.0.2:7001
  roundtable bench fan-out --format json | jq '.[].cpu_s_per_million'
  roundtable bench growth --help                           how cost grows, as tables and a picture";

/// What else `roundtable bench` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure how cost grows with members, rooms, servers, the size of a text, and the past: tables, and a picture
    #[command(after_help = super::growth::EXAMPLES)]
    Growth(GrowthArgs),
}

/// The options of `roundtable bench`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct BenchArgs {
    /// Something else than workloads.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// What is measured: fan-out, latency, writes, idle, failover [default: all, in turn]
    #[arg(value_name = "WORKLOAD", value_enum, hide_possible_values = true)]
    pub workloads: Vec<Workload>,
    /// What the servers run: ring, sequencer or raft
    #[arg(long, env = "ROUNDTABLE_DESIGN", hide_env = true, default_value_t = Design::Ring)]
    pub design: Design,
    /// How many servers [default: 1; 3 for writes and failover]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: Option<u8>,
    /// How long each workload is measured: 5s, 1m
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    pub lasts: Duration,
    /// Measure servers that run, whatever their design, and start none; failover is left out. The rooms bench-… stay there
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', conflicts_with = "nodes")]
    pub connect: Option<Vec<String>>,
    /// The processes of these servers, where they are on this machine: for CPU time and memory
    #[arg(long, value_name = "PID,…", value_delimiter = ',', requires = "connect")]
    pub pids: Vec<u32>,
    /// How the figures are printed: text or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: Format,
    /// How long a text is
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(bench::TEXT_BYTES_MIN as i64..=1 << 19))]
    pub text_bytes: u32,
    /// How many rooms
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    #[arg(help_heading = "Fan-out and latency")]
    pub rooms: u16,
    /// How many members each has [default: 100; 10 for latency]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    #[arg(help_heading = "Fan-out and latency")]
    pub members: Option<u16>,
    /// How many of them talk
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..))]
    #[arg(help_heading = "Fan-out and latency")]
    pub senders: u16,
    /// Fan-out: how many messages of a sender may be under way
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(WINDOW_MAX)))]
    #[arg(help_heading = "Fan-out and latency")]
    pub window: u32,
    /// Latency: how many messages are said a second, in all
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[arg(help_heading = "Fan-out and latency")]
    pub rate: u32,
    /// Writes: how many clients with how many unacknowledged messages each
    #[arg(
        long,
        value_name = "CLIENTSxWINDOW,…",
        value_delimiter = ',',
        default_value = "1x1,64x1,1x256"
    )]
    #[arg(value_parser = parse_writes, help_heading = "Other workloads")]
    pub writes: Vec<Writes>,
    /// Idle: how many connections
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[arg(help_heading = "Other workloads")]
    pub connections: u32,
    /// Failover: how many leaders are killed
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    #[arg(help_heading = "Other workloads")]
    pub rounds: u16,
}

/// Reads `64x1`.
fn parse_writes(text: &str) -> Result<Writes, String> {
    let wrong = || {
        format!("{text:?} is not CLIENTSxWINDOW, such as 64x1, with at most {WINDOW_MAX} as window")
    };
    let (clients, window) = text.split_once(['x', '×']).ok_or_else(wrong)?;
    let (clients, window) = (clients.parse::<u16>(), window.parse::<u32>());
    match (clients, window) {
        (Ok(clients @ 1..), Ok(window @ 1..=WINDOW_MAX)) => {
            Ok(Writes { clients: clients.into(), window })
        }
        _ => Err(wrong()),
    }
}

/// Measures and prints; fails when a promise was broken, or when it was stopped.
pub fn run(args: &BenchArgs) -> Result<Outcome, StartError> {
    if let Some(BenchCommand::Growth(args)) = &args.command {
        return super::growth::run(args);
    }
    let settings = settings_of(args)?;
    let stopping = Stopping::listen()?;
    let terminal = std::io::stderr().is_terminal();
    let mut show = Show::new(terminal, args.format == Format::Text);
    let measured = bench::run(&settings, stopping.signal(), &mut |progress| show.tell(progress));
    show.clear();
    let Some(all) = measured? else {
        complain(&"stopped; nothing is left running");
        return Ok(Outcome::Failed);
    };
    let text = match args.format {
        Format::Text => format!("{}{}", if terminal { "" } else { "\n" }, table(&all)),
        // Serialising cannot fail: only string keys.
        Format::Json => serde_json::to_string(&all).unwrap_or_default() + "\n",
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    let broken = all.iter().find(|figures| !figures.is_kept());
    Ok(match broken {
        None => Outcome::Done,
        Some(Figures { workload, lost, twice, unanswered, .. }) => {
            complain(&format!(
                "{workload}: {lost} messages were lost, {twice} came twice, {unanswered} were not acknowledged"
            ));
            Outcome::Failed
        }
    })
}

fn settings_of(args: &BenchArgs) -> Result<BenchSettings, StartError> {
    let connect = listed(args.connect.clone());
    connect.iter().try_for_each(|address| check_address("--connect", address).map(drop))?;
    let servers = if connect.is_empty() {
        Servers::Own { design: args.design, nodes: args.nodes.map(usize::from) }
    } else {
        Servers::Given { connect, pids: args.pids.clone() }
    };
    let all = args.workloads.is_empty();
    let mut workloads = if all { Workload::ALL.to_vec() } else { args.workloads.clone() };
    workloads.dedup();
    if let Some(why) = no_failover(&servers)
        && workloads.contains(&Workload::Failover)
    {
        if !all {
            return Err(StartError::Usage(why));
        }
        workloads.retain(|workload| *workload != Workload::Failover);
        complain(&format!("without failover: {why}"));
    }
    if usize::from(args.rooms) * usize::from(args.senders) > bench::SENDERS_MAX {
        return Err(StartError::Usage(format!(
            "at most {} clients can talk at once: fewer --rooms or --senders",
            bench::SENDERS_MAX
        )));
    }
    if args.lasts.is_zero() {
        return Err(StartError::Usage("--for: nothing can be measured in no time".into()));
    }
    Ok(BenchSettings {
        workloads,
        servers,
        lasts: args.lasts,
        rooms: args.rooms.into(),
        members: args.members.map(usize::from),
        senders: args.senders.into(),
        window: args.window,
        rate: args.rate,
        text_bytes: args.text_bytes as usize,
        writes: args.writes.clone(),
        connections: args.connections as usize,
        rounds: args.rounds.into(),
    })
}

/// Why no leader can be killed.
fn no_failover(servers: &Servers) -> Option<String> {
    match servers {
        Servers::Given { .. } => Some("servers that were not started for it are not killed".into()),
        Servers::Own { design, nodes } => {
            let least = if *design == Design::Ring { 2 } else { 3 };
            let too_few = nodes.is_some_and(|nodes| nodes < least);
            too_few.then(|| {
                format!("with {design} it takes {least} servers to lose one: more --nodes")
            })
        }
    }
}

/// How far it is: a bar on a terminal, else a line for each step.
pub(super) struct Show {
    bar: bool,
    lines: bool,
    last: String,
}

impl Show {
    /// A bar on a terminal. Elsewhere lines, if it is people who read: a program that reads the figures does not want to read what goes on.
    pub(super) fn new(terminal: bool, people: bool) -> Self {
        Self { bar: terminal, lines: people, last: String::new() }
    }

    /// So far it is.
    pub(super) fn tell(&mut self, progress: &Progress) {
        let Progress { what, step, done, text } = progress;
        let mut out = std::io::stderr();
        if self.bar {
            let bar =
                (1..=BAR).map(|part| if part as f64 <= done * BAR as f64 { '█' } else { '·' });
            let bar: String = bar.collect();
            let _ = write!(out, "\r\x1b[K{what:<9} {bar}  {step}");
            let _ = if text.is_empty() { Ok(()) } else { write!(out, ": {text}") };
            let _ = out.flush();
        } else if self.lines {
            let line = format!("{what:<9} {step}");
            if line != self.last {
                let _ = writeln!(out, "{line}");
                self.last = line;
            }
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        if self.bar {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Subcommand};

    fn settings(words: &[&str]) -> Result<BenchSettings, String> {
        let cli = Cli::try_parse_from(["roundtable", "bench"].iter().chain(words));
        match cli.map_err(|error| error.to_string())?.command {
            Subcommand::Bench(args) => settings_of(&args).map_err(|error| error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_is_measured_unless_something_is_named() {
        let all = settings(&[]).unwrap();
        assert_eq!(all.workloads, Workload::ALL);
        assert!(matches!(all.servers, Servers::Own { design: Design::Ring, nodes: None }));
        assert_eq!((all.lasts, all.window, all.rate), (Duration::from_secs(5), 64, 1000));
        assert_eq!(all.writes[1], Writes { clients: 64, window: 1 });
        let some = settings(&["writes", "fan-out", "--writes", "2x3"]).unwrap();
        assert_eq!(some.workloads, [Workload::Writes, Workload::FanOut]);
        assert_eq!(some.writes, [Writes { clients: 2, window: 3 }]);
    }

    #[test]
    fn servers_that_run_are_not_killed() {
        let given = settings(&["--connect", "h:1,h:2", "--pids", "7"]).unwrap();
        assert!(!given.workloads.contains(&Workload::Failover));
        assert!(matches!(given.servers, Servers::Given { pids, .. } if pids == [7]));
        let alone = settings(&["--nodes", "2", "--design", "raft"]).unwrap();
        assert!(!alone.workloads.contains(&Workload::Failover));
        assert!(settings(&["--nodes", "2"]).unwrap().workloads.contains(&Workload::Failover));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let table = [
            (&["failover", "--connect", "h:1"][..], "are not killed"),
            (&["failover", "--nodes", "2", "--design", "raft"], "it takes 3 servers"),
            (&["--pids", "1"], "--connect"),
            (&["--connect", "h:1", "--nodes", "1"], "cannot be used with"),
            (&["--connect", "nowhere"], "nowhere"),
            (&["--for", "0s"], "no time"),
            (&["--writes", "1"], "is not CLIENTSxWINDOW"),
            (&["--writes", "0x1"], "is not CLIENTSxWINDOW"),
            (&["--writes", "1x2000"], "at most 1024"),
            (&["--rooms", "60000", "--senders", "2"], "at most 65536"),
            (&["--text-bytes", "3"], "is not in 13"),
            (&["dance"], "dance"),
        ];
        for (words, wanted) in table {
            let complaint = settings(words).unwrap_err();
            assert!(complaint.contains(wanted), "{words:?}: {complaint}");
        }
    }
}
