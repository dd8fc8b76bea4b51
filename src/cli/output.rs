//! What commands print. Whoever pipes a command into `head` closes the pipe when it has seen enough: `println!` would
//! panic then. Here what nobody reads is dropped, the command goes on, and its verdict still becomes the exit code.

use std::fmt::Arguments;
use std::io::Write;

/// [`println!`] for a standard output that may be closed.
macro_rules! say {
    ($($words:tt)*) => { $crate::cli::output::print(format_args!("{}\n", format_args!($($words)*))) };
}

/// [`print!`] for a standard output that may be closed.
macro_rules! show {
    ($($words:tt)*) => { $crate::cli::output::print(format_args!($($words)*)) };
}

/// [`eprintln!`] for a standard error that may be closed.
macro_rules! note {
    ($($words:tt)*) => { $crate::cli::output::note_down(format_args!("{}\n", format_args!($($words)*))) };
}

pub(crate) use {note, say, show};

/// Writes `words` to standard output, at once.
pub(crate) fn print(words: Arguments) {
    write(&mut std::io::stdout().lock(), words);
}

/// Writes `words` to standard error.
pub(crate) fn note_down(words: Arguments) {
    write(&mut std::io::stderr().lock(), words);
}

/// Whatever cannot be written has no reader.
fn write(out: &mut impl Write, words: Arguments) {
    let _ = out.write_fmt(words).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};

    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(ErrorKind::BrokenPipe.into())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_reason_to_panic() {
        write(&mut Closed, format_args!("nobody reads {}", "this"));
    }

    #[test]
    fn what_is_read_arrives() {
        let mut out = Vec::new();
        write(&mut out, format_args!("{} of {}\n", 1, 2));
        assert_eq!(out, b"1 of 2\n");
    }
}
