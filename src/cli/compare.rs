//! `roundtable compare`: [measures](crate::compare) the designs side by side.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

use super::args::{CompareArgs, Format};
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
    // Minutes later would be too late to hear that it cannot be written.
    let picture = args.svg.as_deref().map(prepared).transpose()?;
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
    if let (Some(file), Some(path)) = (picture, &args.svg) {
        draw(&all, file, path).map_err(|reason| cannot_write(path, &reason))?;
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

fn cannot_write(path: &Path, reason: &str) -> StartError {
    StartError::Other(format!("cannot write {}: {reason}", path.display()))
}

/// A file beside `path` that takes its place when it is whole, and vanishes when it never is.
fn prepared(path: &Path) -> Result<NamedTempFile, StartError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")));
    file.map_err(|error| cannot_write(path, &error.to_string()))
}

fn draw(all: &Comparison, mut file: NamedTempFile, path: &Path) -> Result<(), String> {
    let picture = plot::svg(&all.designs, &title(all))?;
    file.write_all(picture.as_bytes()).map_err(|error| error.to_string())?;
    readable(&file).map_err(|error| error.to_string())?;
    file.persist(path).map_err(|error| error.to_string())?;
    Ok(())
}

/// Lets others read `file`, as any file that is not temporary.
fn readable(file: &NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
}
