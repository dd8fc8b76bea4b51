//! The command line: see [`roundtable::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    roundtable::cli::main(std::env::args_os())
}
