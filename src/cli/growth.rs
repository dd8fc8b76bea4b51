//! `roundtable bench growth`: [measures](crate::bench::growth) how cost grows, prints tables, and draws them.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::args::{Format, parse_time};
use super::bench::Show;
use super::files::Prepared;
use super::output::show;
use super::stopping::Stopping;
use super::{Outcome, complain};
use crate::bench::growth::table::Growth;
use crate::bench::growth::{self, Axis, GrowthSettings, plot};
use crate::config::Design;
use crate::error::StartError;

/// How long a row is measured.
const ROW: Duration = Duration::from_secs(3);
/// The same when it has to be quick.
const QUICK_ROW: Duration = Duration::from_secs(1);

/// What stands under the help.
pub(super) const EXAMPLES: &str = "\
Servers are started for each row, in a temporary folder (TMPDIR says where), and removed with it.
Use a release build, and a machine that has nothing else to do. Exit code 1 when a message was
lost or shown twice.

Examples:
  roundtable bench growth                                everything, for some five minutes
  roundtable bench growth --only servers --design raft
  roundtable bench growth --only history --history-max 10000000
  roundtable bench growth --quick --into /tmp
  roundtable bench growth --format json | jq '.axes[0].rows'";

/// The options of `roundtable bench growth`.
#[derive(Args, Clone, Debug)]
pub struct GrowthArgs {
    /// What grows: members, rooms, servers, size, history [default: each in turn]
    #[arg(long, value_name = "AXIS,…", value_enum, value_delimiter = ',')]
    #[arg(hide_possible_values = true)]
    pub only: Vec<Axis>,
    /// What the servers run: ring, sequencer or raft
    #[arg(long, env = "ROUNDTABLE_DESIGN", hide_env = true, default_value_t = Design::Ring)]
    pub design: Design,
    /// How long each row is measured [default: 3s; 1s with --quick]
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    pub lasts: Option<Duration>,
    /// The first rows of each axis alone, to see that it works
    #[arg(long)]
    pub quick: bool,
    /// The most messages on disk; every tenth as many is a row, down to 1,000
    #[arg(long, value_name = "COUNT", default_value_t = growth::HISTORY_MAX)]
    #[arg(value_parser = clap::value_parser!(u64).range(1000..=1_000_000_000))]
    pub history_max: u64,
    /// Write the tables to DIR/growth.txt and the picture to DIR/growth.svg, too: what was measured, and nothing else
    #[arg(long, value_name = "DIR")]
    pub into: Option<PathBuf>,
    /// How the figures are printed: text or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    pub format: Format,
}

/// Measures and prints; fails when a promise was broken, or when it was stopped.
pub(super) fn run(args: &GrowthArgs) -> Result<Outcome, StartError> {
    let settings = settings_of(args)?;
    let stopping = Stopping::listen()?;
    let files = match &args.into {
        None => None,
        Some(folder) => Some((
            Prepared::new(&folder.join("growth.txt"))?,
            Prepared::new(&folder.join("growth.svg"))?,
        )),
    };
    let terminal = std::io::stderr().is_terminal();
    let mut shown = Show::new(terminal, args.format == Format::Text);
    let measured = growth::run(&settings, stopping.signal(), &mut |progress| shown.tell(progress));
    shown.clear();
    let Some(growth) = measured? else {
        complain(&"stopped; nothing is left running");
        return Ok(Outcome::Failed);
    };
    match args.format {
        Format::Text => show!("{}{}", if terminal { "" } else { "\n" }, growth.text()),
        Format::Json => show!("{}\n", growth.json()),
    }
    if let Some(doubt) = growth.doubt() {
        complain(&doubt);
    }
    if !growth.is_kept() {
        let Growth { lost, twice, unanswered, .. } = growth;
        complain(&format!(
            "{lost} messages were lost, {twice} came twice, {unanswered} were not acknowledged"
        ));
        return Ok(Outcome::Failed);
    }
    if let Some((text, picture)) = files {
        text.fill(Ok(growth.text()))?;
        picture.fill(plot::svg(&growth, &title(&growth)))?;
    }
    Ok(Outcome::Done)
}

fn settings_of(args: &GrowthArgs) -> Result<GrowthSettings, StartError> {
    let mut axes = if args.only.is_empty() { Axis::ALL.to_vec() } else { args.only.clone() };
    axes.dedup();
    let lasts = args.lasts.unwrap_or(if args.quick { QUICK_ROW } else { ROW });
    if lasts.is_zero() {
        return Err(StartError::Usage("--for: nothing can be measured in no time".into()));
    }
    let (design, quick, history_max) = (args.design, args.quick, args.history_max);
    Ok(GrowthSettings { design, axes, lasts, quick, history_max })
}

/// What stands above the picture.
fn title(growth: &Growth) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = super::render::counted(cores as u64, "core");
    format!("What a unit costs: design {}, servers and clients share {cores}", growth.design)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Subcommand};
    use crate::cli::bench::BenchCommand;

    fn settings(words: &[&str]) -> Result<GrowthSettings, String> {
        let cli = Cli::try_parse_from(["roundtable", "bench", "growth"].iter().chain(words));
        match cli.map_err(|error| error.to_string())?.command {
            Subcommand::Bench(args) => match args.command {
                Some(BenchCommand::Growth(args)) => {
                    settings_of(&args).map_err(|error| error.to_string())
                }
                None => panic!("no growth"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_grows_unless_something_is_named() {
        let all = settings(&[]).unwrap();
        assert_eq!((all.axes, all.lasts, all.quick), (Axis::ALL.to_vec(), ROW, false));
        assert_eq!(all.history_max, 1_000_000);
        let some = settings(&["--only", "size,rooms", "--quick", "--design", "raft"]).unwrap();
        assert_eq!((some.axes, some.lasts), (vec![Axis::Size, Axis::Rooms], QUICK_ROW));
        assert_eq!(some.design, Design::Raft);
        assert_eq!(settings(&["--quick", "--for", "2s"]).unwrap().lasts, Duration::from_secs(2));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let table = [
            (&["--for", "0s"][..], "no time"),
            (&["--only", "hair"], "members"),
            (&["--history-max", "10"], "1000"),
            (&["fan-out"], "fan-out"),
        ];
        for (words, wanted) in table {
            let complaint = settings(words).unwrap_err();
            assert!(complaint.contains(wanted), "{words:?}: {complaint}");
        }
    }
}
