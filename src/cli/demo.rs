//! `roundtable demo`: [the play](crate::demo), until it is over or ctrl-c.

use super::Outcome;
use super::args::DemoArgs;
use super::render::Style;
use super::stopping::Stopping;
use crate::demo::{self, DemoSettings};
use crate::error::StartError;

/// Plays; fails when a promise was broken, or when it was stopped.
pub fn run(args: &DemoArgs) -> Result<Outcome, StartError> {
    let stopping = Stopping::listen()?;
    let settings = DemoSettings { design: args.design.to_string(), style: Style::of_output() };
    match demo::run(&settings, stopping.signal())? {
        Some(verdict) if verdict.is_good() => Ok(Outcome::Done),
        Some(_) | None => Ok(Outcome::Failed),
    }
}
