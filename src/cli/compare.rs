//! `roundtable compare`: [measures](crate::compare) the designs side by side.

use std::io::IsTerminal as _;

use super::args::{CompareArgs, Format};
use super::files::Prepared;
use super::output::{note, show};
use super::render::counted;
use super::stopping::Stopping;
use super::{Outcome, complain};
use crate::compare::figures::{Comparison, table};
use crate::compare::{self, CompareSettings, plot};
use crate::error::StartError;

/// Measures and prints; fails when something acknowledged was lost or shown twice, or when it was stopped.
pub fn run(args: &CompareArgs) -> Result<Outcome, StartError> {
    let settings = CompareSettings {
        designs: args.designs.clone(),
        servers: usize::from(args.nodes),
        clients: usize::from(args.clients),
        phase: args.phase,
        rounds: usize::from(args.rounds),
    };
    let stopping = Stopping::listen()?;
    let picture = args.svg.as_deref().map(Prepared::new).transpose()?;
    // A program that reads the figures does not want to read what goes on.
    let tells = std::io::stderr().is_terminal() || args.format == Format::Text;
    let measured = compare::run(&settings, stopping.signal(), &mut |design, phase| {
        if tells {
            note!("{:<10} {phase}", design.to_string());
        }
    })?;
    let Some(designs) = measured else {
        complain(&"stopped; nothing is left running");
        return Ok(Outcome::Failed);
    };
    let all = Comparison { servers: args.nodes, clients: args.clients, designs };
    let text = match args.format {
        Format::Text => format!("\n{}\n\n{}", title(&all), table(&all.designs)),
        // Serialising cannot fail: only string keys.
        Format::Json => serde_json::to_string(&all).unwrap_or_default() + "\n",
    };
    show!("{text}");
    if let Some(file) = picture {
        file.fill(plot::svg(&all.designs, &title(&all)))?;
    }
    let kept = all.designs.iter().all(|figures| figures.lost == 0 && figures.twice == 0);
    Ok(if kept { Outcome::Done } else { Outcome::Failed })
}

/// What was compared.
fn title(all: &Comparison) -> String {
    let servers = counted(u64::from(all.servers), "server");
    let clients = counted(u64::from(all.clients), "client");
    format!("{servers}, {clients} in one room, on one machine")
}
