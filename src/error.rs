//! Errors, sorted by what to do about them.
//!
//! A [`RequestError`] is the other side's to mend: it becomes an ERROR message. A [`StartError`] is the
//! operator's: it ends the program with a sentence. Neither is ever a panic.

use std::fmt;
use std::io;
use std::path::PathBuf;

pub use crate::domain::request_error::RequestError;

/// Why a server or a client cannot run. Each variant is one thing that the operator can do.
#[derive(Debug)]
pub enum StartError {
    /// A setting does not make sense. The program exits with 2.
    Usage(String),
    /// The address cannot be listened on: another program has it, or it is not of this machine.
    Listen {
        /// What was asked for.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The data folder or a file in it cannot be used.
    Data {
        /// Which file or folder.
        path: PathBuf,
        /// What was tried, such as `cannot write`.
        problem: String,
        /// Why not, when the operating system said so.
        source: Option<io::Error>,
    },
    /// A complete line of the log is damaged.
    DamagedLog {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The user name needs a password: ask for it, or give it.
    PasswordNeeded(String),
    /// Anything else, already in words.
    Other(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Other(text) => f.write_str(text),
            Self::PasswordNeeded(text) => {
                write!(f, "{text}: --password-file FILE, or ROUNDTABLE_PASSWORD")
            }
            Self::Listen { address, source } => write!(
                f,
                "cannot listen on {address}: {source}; choose another --listen, or stop who uses it"
            ),
            Self::Data { path, problem, source } => {
                write!(f, "{}: {problem}", path.display())?;
                source.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
            }
            Self::DamagedLog { path, line, reason } => write!(
                f,
                "{} line {line} is damaged: {reason}; start with --repair to set it aside \
                 and fetch what it held from the other servers",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::Data { source: Some(source), .. } => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_log_names_file_line_and_remedy() {
        let error = StartError::DamagedLog {
            path: "d/log/1.jsonl".into(),
            line: 7,
            reason: "checksum differs".into(),
        };
        let text = error.to_string();
        assert!(text.starts_with("d/log/1.jsonl line 7 is damaged"), "{text}");
        assert!(text.contains("--repair"), "{text}");
    }
}
