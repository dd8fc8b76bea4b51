//! The command line: `roundtable server | client | status | explain | …`.
//!
//! Must not know: how chatting works. It parses, calls, prints, and turns how it went into an exit code: 0 done,
//! 1 failed while running, 2 wrong usage. Whatever went wrong is one line on standard error, `roundtable: <sentence>`.
//!
//! Reading order: [`args`], [`filter`], [`interactive`] with [`command`] and [`render`], [`status`], [`member`], [`explain`], [`demo`], [`torture`], [`compare`], [`mod@bench`], [`growth`].

pub mod args;

pub mod render;

pub mod status;

pub mod explain;

pub mod demo;

pub mod torture;

pub mod compare;

pub mod bench;

pub mod growth;

mod files;

mod stopping;

pub(crate) mod output;

pub mod member;

pub mod lines;

pub mod filter;

pub mod command;

pub mod interactive;

mod connect;
mod password;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::error::StartError;
use crate::logging;
use args::{Cli, ClientArgs, Subcommand};
use output::note;

/// How a command ended: the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: done.
    Done = 0,
    /// 1: failed while running. The reason was printed.
    Failed = 1,
    /// 2: the usage was wrong. The reason was printed.
    WrongUsage = 2,
}

/// Parses `words` (the program's name first), does what they say, and returns the exit code.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = match Cli::try_parse_from(words) {
        Ok(cli) => dispatch(cli.command).unwrap_or_else(|error| {
            complain(&error);
            match error {
                StartError::Usage(_) => Outcome::WrongUsage,
                _ => Outcome::Failed,
            }
        }),
        Err(error) => explain_usage(&error),
    };
    ExitCode::from(outcome as u8)
}

/// Prints what went wrong, the way every command does.
pub fn complain(problem: &dyn std::fmt::Display) {
    note!("roundtable: {problem}");
}

/// Prints help where it was asked for, or the problem.
fn explain_usage(error: &clap::Error) -> Outcome {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            Outcome::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Outcome::WrongUsage
        }
        _ => {
            let text = error.render().to_string();
            complain(&text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            Outcome::WrongUsage
        }
    }
}

fn dispatch(command: Subcommand) -> Result<Outcome, StartError> {
    match command {
        Subcommand::Server(settings) => {
            crate::server::shell::run(settings.resolve()?).map(|()| Outcome::Done)
        }
        Subcommand::Client(args) => client(&args),
        Subcommand::Status(args) => status::run(&args),
        Subcommand::Explain(args) => explain::run(&args),
        Subcommand::Demo(args) => demo::run(&args),
        Subcommand::Torture(args) => torture::run(&args),
        Subcommand::Member { what } => member::run(&what),
        Subcommand::Compare(args) => compare::run(&args),
        Subcommand::Bench(args) => bench::run(&args),
        Subcommand::Sim(args) => crate::sim::command::run(&args),
        Subcommand::Trace(args) => crate::trace::command::run(&args),
    }
}

fn client(args: &ClientArgs) -> Result<Outcome, StartError> {
    args.check()?;
    logging::init_quiet();
    let client = connect::client(args)?;
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        interactive::run(client.into(), args)
    } else {
        filter::run(client.into(), args.filter_options())
    }
}

#[cfg(test)]
mod tests;
