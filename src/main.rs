//! The command line.
use clap::Parser;
#[derive(Parser)]
struct Cli { #[command(flatten)] settings: roundtable::config::Settings }
fn main() {
    let cli = Cli::parse();
    if let Err(error) = cli.settings.resolve().and_then(roundtable::server::shell::run) { eprintln!("roundtable: {error}"); std::process::exit(1); }
}
