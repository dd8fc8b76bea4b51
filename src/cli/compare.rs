//! `roundtable compare`: [measures](crate::compare) the designs side by side.

use std::fs;
use std::io::IsTerminal as _;

use super::Outcome;
use super::args::{CompareArgs, Format};
use super::complain;
use super::output::{note, show};
use super::stopping::Stopping;
use crate::compare::figures::table;
use crate::compare::{self, CompareSettings, plot};
use crate::error::StartError;

/// Measures and prints; fails when something acknowledged was lost or shown twice, or when it was stopped.
pub fn run(args: &CompareArgs) -> Result<Outcome, StartError> {
    let settings = CompareSettings {
        designs: args.designs.clone(),
        servers: usize::from(args.nodes),
        clients: usize::from(args.clients),
        phase: args.phase,
    };
    let stopping = Stopping::listen()?;
    // A program that reads the figures does not want to read what goes on.
    let tells = std::io::stderr().is_terminal() || args.format == Format::Text;
    let measured = compare::run(&settings, stopping.signal(), &mut |design, phase| {
        if tells {
            note!("{:<10} {phase}", design.to_string());
        }
    })?;
    let Some(all) = measured else {
        complain(&"stopped; nothing is left running");
        return Ok(Outcome::Failed);
    };
    let text = match args.format {
        Format::Text => format!(
            "\n{} servers, {} clients in one room, on one machine\n\n{}",
            settings.servers,
            settings.clients,
            table(&all)
        ),
        // Serialising cannot fail: only string keys.
        Format::Json => serde_json::to_string(&all).unwrap_or_default() + "\n",
    };
    show!("{text}");
    if let Some(path) = &args.svg {
        let cannot = |reason: String| {
            StartError::Other(format!("cannot write {}: {reason}", path.display()))
        };
        let picture = plot::svg(&all).map_err(cannot)?;
        fs::write(path, picture).map_err(|error| cannot(error.to_string()))?;
    }
    let kept = all.iter().all(|figures| figures.lost == 0 && figures.twice == 0);
    Ok(if kept { Outcome::Done } else { Outcome::Failed })
}
