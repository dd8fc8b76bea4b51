//! Where the user's password comes from: a file, the environment, or a prompt; never the command line, which everyone
//! on the machine can read.

use std::borrow::Cow;
use std::path::Path;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, Editor, Helper};

use crate::client::Password;
use crate::error::StartError;

/// The variable that may hold it.
const VARIABLE: &str = "ROUNDTABLE_PASSWORD";

/// The password in the first line of `file`, or in the environment; `None` when neither is given.
pub(super) fn given(file: Option<&Path>) -> Result<Option<Password>, StartError> {
    let Some(path) = file else {
        let set = std::env::var(VARIABLE).ok().filter(|password| !password.is_empty());
        return Ok(set.map(Password::new));
    };
    let refuse = |reason: &dyn std::fmt::Display| {
        StartError::Usage(format!("the password file {}: {reason}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(&error))?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Some(Password::new(line))),
        None => Err(refuse(&"its first line is empty; write the password there")),
    }
}

/// Asks at the terminal. What is typed is not shown.
pub(super) fn asked(name: &str) -> Result<Password, StartError> {
    let failed = |error: ReadlineError| match error {
        ReadlineError::Interrupted | ReadlineError::Eof => {
            StartError::Other("no password was given".into())
        }
        error => StartError::Other(format!("cannot use the terminal: {error}")),
    };
    // These show what is typed whatever they are told.
    let terminal = std::env::var("TERM").unwrap_or_default();
    if ["", "dumb", "cons25", "emacs"].contains(&terminal.as_str()) {
        let reason = "this terminal cannot hide what is typed; give --password-file".to_string();
        return Err(StartError::Usage(reason));
    }
    // Without colours nothing would be replaced by nothing.
    let config = rustyline::Config::builder().color_mode(ColorMode::Forced).build();
    let mut editor: Editor<Hidden, DefaultHistory> = Editor::with_config(config).map_err(failed)?;
    editor.set_helper(Some(Hidden));
    editor.readline(&format!("password of {name}: ")).map(Password::new).map_err(failed)
}

/// Shows nothing of a line.
struct Hidden;

impl Highlighter for Hidden {
    fn highlight<'l>(&self, _line: &'l str, _pos: usize) -> Cow<'l, str> {
        Cow::Borrowed("")
    }
    fn highlight_char(&self, _line: &str, _pos: usize, _kind: CmdKind) -> bool {
        true
    }
}

impl Completer for Hidden {
    type Candidate = String;
}

impl Hinter for Hidden {
    type Hint = String;
}

impl Validator for Hidden {}

impl Helper for Hidden {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_the_file_is_the_password() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "open sesame\r\nmore\n").unwrap();
        assert_eq!(given(Some(&path)).unwrap(), Some(Password::new("open sesame")));
        std::fs::write(&path, "\n").unwrap();
        let error = given(Some(&path)).unwrap_err().to_string();
        assert!(error.ends_with("its first line is empty; write the password there"), "{error}");
        let missing = given(Some(&folder.path().join("none"))).unwrap_err().to_string();
        assert!(missing.contains("none"), "{missing}");
    }
}
