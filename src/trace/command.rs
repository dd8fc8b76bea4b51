//! `roundtable trace`: merge traces, draw them.

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use super::diagram::Diagram;
use super::merge::{Merged, merge};
use super::page::{HIDDEN, page};
use super::read::read_files;
use super::shiviz::shiviz;
use super::svg::{Slide, svg};
use crate::cli::output::say;
use crate::cli::{Outcome, complain};
use crate::error::StartError;

const EXAMPLES: &str = "\
Examples:
  roundtable server --id n1 --trace n1.jsonl               one trace a server
  roundtable sim --nodes 3 --faults crash --trace run.jsonl
  roundtable trace draw n1.jsonl n2.jsonl n3.jsonl         writes trace.html; open it in a browser
  roundtable trace draw run.jsonl --format svg --from 4.2 --to 5.1
  roundtable trace merge n*.jsonl | jq -r '[.time_us, .node, .kind, .say] | @tsv'";

/// The options of `roundtable trace`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = true)]
pub struct TraceArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TraceCommand,
}

/// What can be done with traces.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum TraceCommand {
    /// Put the events of several servers into one causal order, with vector clocks
    Merge(MergeArgs),
    /// Draw a space-time diagram
    #[command(after_help = EXAMPLES)]
    Draw(DrawArgs),
}

/// The options of `roundtable trace merge`.
#[derive(clap::Args, Clone, Debug)]
pub struct MergeArgs {
    /// The traces of one run
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where to write the lines [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// The options of `roundtable trace draw`.
#[derive(clap::Args, Clone, Debug)]
pub struct DrawArgs {
    /// The traces of one run
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where to write the diagram [default: trace.html, trace.svg or trace.shiviz]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// As a page (html), for a slide (svg), or for ShiViz
    #[arg(long, value_enum, default_value_t)]
    pub format: DrawFormat,
    /// Message types that are left out, or none [default: heartbeats and timers; shiviz: none]. A page can show them
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    pub hide: Option<Vec<String>>,
    /// Where it begins, in seconds since the beginning [default: there; a slide shortly before a leader dies]
    #[arg(long, value_name = "SECONDS")]
    pub from: Option<f64>,
    /// Where it ends
    #[arg(long, value_name = "SECONDS")]
    pub to: Option<f64>,
}

/// How a diagram is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DrawFormat {
    /// A page for a browser.
    #[default]
    Html,
    /// A picture for a slide.
    Svg,
    /// A log for ShiViz.
    Shiviz,
}

impl DrawFormat {
    fn file(self) -> &'static str {
        match self {
            Self::Html => "trace.html",
            Self::Svg => "trace.svg",
            Self::Shiviz => "trace.shiviz",
        }
    }
}

/// Does what `args` say.
pub fn run(args: &TraceArgs) -> Result<Outcome, StartError> {
    match &args.command {
        TraceCommand::Merge(args) => merge_files(args),
        TraceCommand::Draw(args) => draw(args),
    }
}

/// Reads and merges, and says what people should know.
fn merged(files: &[PathBuf]) -> Result<Merged, StartError> {
    let merged = merge(read_files(files)?)?;
    for note in &merged.notes {
        complain(note);
    }
    Ok(merged)
}

fn merge_files(args: &MergeArgs) -> Result<Outcome, StartError> {
    let merged = merged(&args.files)?;
    let Some(path) = &args.out else {
        let mut out = BufWriter::new(std::io::stdout().lock());
        // Whoever pipes it into `head` has seen enough.
        merged.for_each_with_clock(|event| drop(writeln!(out, "{}", event.to_line())));
        return Ok(Outcome::Done);
    };
    let mut lines = String::new();
    merged.for_each_with_clock(|event| lines.push_str(&(event.to_line() + "\n")));
    write(path, &lines)?;
    Ok(Outcome::Done)
}

fn draw(args: &DrawArgs) -> Result<Outcome, StartError> {
    if args.format == DrawFormat::Html && args.hide.is_some() {
        return Err(StartError::Usage(
            "--hide is for --format svg and shiviz; a page has its own filter".into(),
        ));
    }
    let mut merged = merged(&args.files)?;
    if args.format != DrawFormat::Svg && (args.from.is_some() || args.to.is_some()) {
        merged = between(&merged, args.from, args.to).map_err(StartError::Usage)?;
    }
    let diagram = Diagram::new(&merged);
    let (text, what) = match args.format {
        DrawFormat::Html => (page(&diagram), format!("{} events", diagram.dots.len())),
        DrawFormat::Shiviz => {
            let hidden = args.hide.clone().unwrap_or_default().into_iter().collect();
            (shiviz(&diagram, &hidden), format!("{} events", diagram.dots.len()))
        }
        DrawFormat::Svg => {
            let usual = || HIDDEN.map(str::to_string).to_vec();
            let hidden: BTreeSet<String> =
                args.hide.clone().unwrap_or_else(usual).into_iter().collect();
            let slide = Slide { hidden, from_s: args.from, to_s: args.to };
            svg(&diagram, &slide).map_err(StartError::Usage)?
        }
    };
    let path = args.out.clone().unwrap_or_else(|| args.format.file().into());
    write(&path, &text)?;
    say!("{what} in {}", path.display());
    Ok(Outcome::Done)
}

/// What happened from `from` to `to`, in seconds since the beginning.
fn between(merged: &Merged, from: Option<f64>, to: Option<f64>) -> Result<Merged, String> {
    let first = merged.times_us.first().copied().unwrap_or_default();
    let place = |seconds: f64| {
        let since = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_micros();
        merged.place_at(first.saturating_add(u64::try_from(since).unwrap_or(u64::MAX)))
    };
    let (begin, end) = (from.map_or(0, place), to.map_or(merged.events.len(), place));
    if begin >= end {
        return Err("nothing happened there; give another --from and --to".into());
    }
    Ok(merged.part(begin..end))
}

fn write(path: &Path, text: &str) -> Result<(), StartError> {
    std::fs::write(path, text).map_err(|source| StartError::Data {
        path: path.into(),
        problem: "cannot be written".into(),
        source: Some(source),
    })
}
