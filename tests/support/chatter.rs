//! A real `roundtable client --format json` process whose lines go in and out through pipes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::history::{MemberLog, Step};
use super::{DEADLINE, program, wait_within};

/// One person with a client.
pub(crate) struct Chatter {
    pub(crate) name: String,
    child: Child,
    input: Option<ChildStdin>,
    seen: Arc<Seen>,
    reader: Option<JoinHandle<()>>,
    notes: PathBuf,
}

/// What happened at the pipes, in order, and a signal that something did.
#[derive(Default)]
struct Seen {
    steps: Mutex<Vec<Step>>,
    changed: Condvar,
}

impl Chatter {
    /// Starts `roundtable client --name NAME` with more `args`; what it has to say besides goes to a file in `folder`.
    pub(crate) fn start(folder: &Path, name: &str, args: &[&str]) -> Self {
        let notes = folder.join(format!("client-{name}.log"));
        let mut child = program()
            .args(["client", "--name", name, "--format", "json"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&notes).unwrap())
            .spawn()
            .unwrap();
        let seen = Arc::new(Seen::default());
        let (output, pipes) = (child.stdout.take().unwrap(), Arc::clone(&seen));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let shown: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
                let text = shown["content"].as_str().expect("a text").to_string();
                pipes.steps.lock().push(Step::Shown(text));
                pipes.changed.notify_all();
            }
        });
        let (input, reader) = (child.stdin.take(), Some(reader));
        Self { name: name.into(), child, input, seen, reader, notes }
    }

    /// Types `text`. What was printed before is noted as known to its writer.
    pub(crate) fn write(&mut self, text: &str) {
        self.seen.steps.lock().push(Step::Wrote(text.into()));
        let input = self.input.as_mut().expect("the input is open");
        writeln!(input, "{text}").unwrap_or_else(|error| {
            panic!("{}: {error}; {}", self.name, fs::read_to_string(&self.notes).unwrap())
        });
    }

    /// Waits until `enough` says so of all that was noted.
    pub(crate) fn wait(&self, what: &str, enough: impl Fn(&[Step]) -> bool) {
        let deadline = Instant::now() + 3 * DEADLINE;
        let mut steps = self.seen.steps.lock();
        while !enough(&steps) {
            let late = self.seen.changed.wait_until(&mut steps, deadline).timed_out();
            assert!(!late, "{}: waited in vain until {what}; {} steps", self.name, steps.len());
        }
    }

    /// Waits until `count` messages were printed.
    pub(crate) fn wait_shown(&self, count: usize) {
        let is_shown = |step: &&Step| matches!(step, Step::Shown(_));
        self.wait(&format!("{count} messages are shown"), |steps| {
            steps.iter().filter(is_shown).count() >= count
        });
    }

    /// Ends the input and waits for the end of the process. An exit code of 0 says that everything was
    /// acknowledged, which is noted.
    pub(crate) fn finish(mut self) -> (Option<i32>, MemberLog, String) {
        drop(self.input.take());
        let status = wait_within(2 * DEADLINE, || self.child.try_wait().unwrap());
        let status = status.unwrap_or_else(|| panic!("{} does not end", self.name));
        self.reader.take().unwrap().join().unwrap();
        let mut steps = std::mem::take(&mut *self.seen.steps.lock());
        if status.success() {
            let wrote = |step: &Step| match step {
                Step::Wrote(id) => Some(Step::Acked(id.clone())),
                _ => None,
            };
            let acked: Vec<Step> = steps.iter().filter_map(wrote).collect();
            steps.extend(acked);
        }
        let notes = fs::read_to_string(&self.notes).unwrap();
        (status.code(), MemberLog { name: self.name.clone(), steps }, notes)
    }
}

impl Drop for Chatter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let notes = fs::read_to_string(&self.notes).unwrap_or_default();
            eprintln!("---- what the client {} said:\n{notes}", self.name);
        }
    }
}
