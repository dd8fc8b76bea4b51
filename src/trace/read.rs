//! Reads traces back, and says clearly what is wrong with them.

use std::fs;
use std::path::{Path, PathBuf};

use super::event::{FORMAT, Kind, Run, TraceEvent};
use super::writer::old_file;
use crate::error::StartError;

/// One life of one server, as a file has it.
#[derive(Clone, Debug)]
pub struct Life {
    /// Which.
    pub run: Run,
    /// Whose.
    pub node: String,
    /// The file.
    pub file: PathBuf,
    /// What it did, the start first.
    pub events: Vec<TraceEvent>,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// The lives of all servers, in the order of the files.
    pub lives: Vec<Life>,
    /// What was passed over, for people.
    pub notes: Vec<String>,
}

/// Reads all of `files`, each with what came before it.
pub fn read_files(files: &[PathBuf]) -> Result<Traces, StartError> {
    let mut traces = Traces::default();
    for file in files {
        let bytes = fs::read(file).map_err(|source| StartError::Data {
            path: file.clone(),
            problem: "cannot read the trace".into(),
            source: Some(source),
        })?;
        let first = traces.lives.len();
        let old = old_file(file);
        let refuse = |file: &Path, problem: String| {
            StartError::Other(format!("{}: {problem}", file.display()))
        };
        // A line cut in the middle of a character is damaged like any other.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Ok(before) = fs::read(&old) {
            read_part(&old, &text(&before), &mut traces, first)
                .map_err(|problem| refuse(&old, problem))?;
            if bytes.is_empty() {
                // The server was killed before it wrote the first line of the next file.
                continue;
            }
        }
        read_part(file, &text(&bytes), &mut traces, first)
            .map_err(|problem| refuse(file, problem))?;
    }
    Ok(traces)
}

/// Reads the lines of one file. The error is what is wrong with it.
pub fn read_trace(file: &Path, text: &str, traces: &mut Traces) -> Result<(), String> {
    let first = traces.lives.len();
    read_part(file, text, traces, first)
}

/// Reads the lines of one file of a trace whose lives are those from `first` on.
fn read_part(file: &Path, text: &str, traces: &mut Traces, first: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty: nothing was traced into it".into());
    }
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        let number = index + 1;
        match serde_json::from_str::<TraceEvent>(line) {
            Ok(event) => take(file, event, &mut traces.lives, first)
                .map_err(|problem| format!("line {number}: {problem}"))?,
            Err(error) => match excuse(number, lines.get(number).copied(), text.ends_with('\n')) {
                Some(note) => traces.notes.push(format!("{}: {note}", file.display())),
                None if index == 0 => {
                    return Err("is no trace: it does not begin with an event".into());
                }
                None => return Err(format!("line {number} is damaged: {error}")),
            },
        }
    }
    if traces.lives.len() == first {
        return Err("is no trace: it has not one whole event".into());
    }
    Ok(())
}

/// Why line `number` may be passed over: the server was killed while it wrote it, or its disk was full.
fn excuse(number: usize, next: Option<&str>, ended: bool) -> Option<String> {
    let Some(next) = next else {
        return (!ended).then(|| format!("the last line, {number}, is cut short and was dropped"));
    };
    let next: TraceEvent = serde_json::from_str(next).ok()?;
    match next.kind {
        Kind::Start => {
            Some(format!("line {number} is cut short by the end of a life and was dropped"))
        }
        Kind::Lost => Some(format!("line {number} is cut short by a full disk and was dropped")),
        _ => None,
    }
}

/// Adds `event` to the life that it belongs to. Lives before `first` are of other files.
fn take(file: &Path, event: TraceEvent, lives: &mut Vec<Life>, first: usize) -> Result<(), String> {
    if let Some(run) = event.run.clone().filter(|_| event.kind == Kind::Start) {
        if run.format != FORMAT {
            return Err(format!(
                "the trace has format {}, this program reads format {FORMAT}; use the version that wrote it",
                run.format
            ));
        }
        let known = lives[first..].iter().rev().find(|life| life.run.life == run.life);
        let last = known.and_then(|life| life.events.last()).map(|last| last.n);
        if run.continues && last == Some(event.n) {
            // Nothing is missing: the file before this one ends there.
            return Ok(());
        }
        let (node, file) = (event.node.clone(), file.to_path_buf());
        lives.push(Life { run, node, file, events: vec![event] });
        return Ok(());
    }
    let life = lives[first..].iter_mut().rev().find(|life| life.node == event.node);
    let Some(life) = life else {
        return Err(format!(
            "an event of {} stands before the line that says which run this is; the beginning is missing",
            event.node
        ));
    };
    let last = life.events.last().map_or(0, |last| last.n);
    if event.n != last + 1 {
        return Err(format!(
            "event {} of {} follows {last}: lines are missing",
            event.n, event.node
        ));
    }
    life.events.push(event);
    Ok(())
}
