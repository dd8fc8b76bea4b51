//! The client in a pipe: lines in are messages, lines out are deliveries, everything else goes to standard error.
//!
//! ```text
//!   standard input ──▶ sender thread ──▶ ChatClient ──▶ events ──▶ this thread ──▶ standard output
//! ```
//!
//! It is over when the input has ended, the room was joined and its past printed, and every message is acknowledged;
//! with `--expect` or `--linger-ms` it stays for what others say.

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock: waiting has deadlines")]

use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, at, bounded, never, select};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Outcome;
use super::args::{FilterOptions, Format};
use super::lines::{Line, read_line};
use super::render::{counted, delivery_line, notice, visible};
use crate::client::{ChatClient, Delivery, Event, SendError};
use crate::error::StartError;
use crate::threads::Threads;

/// How long joining the room may take when nobody waits for acknowledgements.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// How many unacknowledged messages are named.
const NAMED_MAX: usize = 20;

/// Connects standard input and output with a room until the input ends or a signal comes.
pub fn run(client: Arc<ChatClient>, options: FilterOptions) -> Result<Outcome, StartError> {
    let threads = Threads::new("cli");
    let interrupted = interrupted(&threads)?;
    let input = BufReader::new(io::stdin());
    let output = BufWriter::new(io::stdout());
    drive(client, options, input, output, io::stderr(), &threads, interrupted)
}

/// A channel that is disconnected when ctrl-c or SIGTERM comes.
fn interrupted(threads: &Threads) -> Result<Receiver<()>, StartError> {
    let failed = |error| StartError::Other(format!("cannot listen for signals: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (give, interrupted) = bounded(0);
    let wait = move || {
        let _ = signals.forever().next();
        drop(give);
    };
    threads.spawn("signals", wait).map_err(failed)?;
    Ok(interrupted)
}

/// What the thread that reads the input reports.
#[derive(Debug)]
enum Input {
    /// A line was not sent; a sentence about it.
    Skipped(String),
    /// The input has ended; so many lines were sent.
    Done(u64),
}

/// [`run`] with everything from outside as an argument.
pub(crate) fn drive(
    client: Arc<ChatClient>,
    options: FilterOptions,
    input: impl BufRead + Send + 'static,
    output: impl Write,
    notes: impl Write,
    threads: &Threads,
    interrupted: Receiver<()>,
) -> Result<Outcome, StartError> {
    client.join_room_with_history(&options.room, options.history);
    let (report, inputs) = bounded(1);
    let (sender, room, bytes_max) =
        (Arc::clone(&client), options.room.clone(), options.frame_bytes_max);
    let send = move || send_lines(&sender, &room, input, bytes_max, &report);
    let failed = |error| StartError::Other(format!("cannot start a thread: {error}"));
    threads.spawn("sender", send).map_err(failed)?;
    let mut filter = Filter {
        client: &client,
        options,
        output,
        notes,
        joined: false,
        history_left: 0,
        sent: None,
        settled: 0,
        printed: 0,
        failed: false,
        quiet_since: Instant::now(),
    };
    let outcome = filter.run(&inputs, &interrupted);
    client.stop();
    match outcome {
        // Whoever reads standard output has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Outcome::Done),
        Err(error) => Err(StartError::Other(format!("cannot write to standard output: {error}"))),
        Ok(outcome) => Ok(outcome),
    }
}

/// Sends each line of `input` to `room`.
fn send_lines(
    client: &ChatClient,
    room: &str,
    mut input: impl BufRead,
    bytes_max: usize,
    report: &Sender<Input>,
) {
    let mut sent = 0;
    for number in 1_u64.. {
        let line = read_line(&mut input, bytes_max);
        let skipped = match line {
            Ok(Line::Text(text)) => match client.send_message(&text, room) {
                Ok(_) => {
                    sent += 1;
                    continue;
                }
                // Told as an event.
                Err(SendError::Ended { .. }) => return,
                Err(error @ SendError::TooLong { .. }) => error.to_string(),
            },
            Ok(Line::TooLong(bytes)) => {
                format!("it has {bytes} bytes, the limit is {bytes_max}; send it in parts")
            }
            Ok(Line::NotText) => "it is not UTF-8".into(),
            Ok(Line::End) => break,
            Err(error) => {
                let _ = report.send(Input::Skipped(format!("cannot read the input: {error}")));
                break;
            }
        };
        if report.send(Input::Skipped(format!("line {number} was not sent: {skipped}"))).is_err() {
            return;
        }
    }
    let _ = report.send(Input::Done(sent));
}

struct Filter<'a, O, N> {
    client: &'a ChatClient,
    options: FilterOptions,
    output: O,
    notes: N,
    joined: bool,
    /// How many messages of the past are still to come.
    history_left: u32,
    /// How many messages the input had, once it has ended.
    sent: Option<u64>,
    /// How many were acknowledged or refused.
    settled: u64,
    printed: u64,
    failed: bool,
    /// When the input ended or, if that was later, the last message was settled.
    quiet_since: Instant,
}

impl<O: Write, N: Write> Filter<'_, O, N> {
    fn run(&mut self, inputs: &Receiver<Input>, interrupted: &Receiver<()>) -> io::Result<Outcome> {
        let mut inputs = inputs.clone();
        loop {
            let deadline = self.deadline();
            let too_late = deadline.map_or_else(never, at);
            select! {
                recv(self.client.events()) -> event => {
                    let Ok(event) = event else { return Ok(Outcome::Failed) };
                    if self.take_in_all(event)?.is_break() {
                        self.name_unacknowledged();
                        return Ok(Outcome::Failed);
                    }
                }
                recv(inputs) -> input => match input {
                    Ok(Input::Skipped(reason)) => self.fail(&reason),
                    Ok(Input::Done(sent)) => {
                        self.sent = Some(sent);
                        self.quiet_since = Instant::now();
                    }
                    // The session is over, and the event that says so is on its way.
                    Err(_) => inputs = never(),
                },
                recv(self.client.panics()) -> report => {
                    self.fail(&report.unwrap_or_default());
                    return Ok(Outcome::Failed);
                }
                recv(interrupted) -> _ => {
                    self.name_unacknowledged();
                    return Ok(self.outcome());
                }
                recv(too_late) -> _ => return Ok(self.give_up()),
            }
            if self.is_settled() && self.is_enough() {
                return Ok(self.outcome());
            }
        }
    }

    /// Whether the room was joined, its past printed, all input sent and, unless nobody waits for it, acknowledged.
    fn is_settled(&self) -> bool {
        let acknowledged =
            self.sent.is_some_and(|sent| self.options.wait.is_none() || self.settled >= sent);
        self.joined && self.history_left == 0 && acknowledged
    }

    /// Whether nothing more that others say is waited for.
    fn is_enough(&self) -> bool {
        match self.options.expect {
            Some(expect) => self.printed >= expect,
            None => self.options.linger.is_none(),
        }
    }

    /// When to give up, if ever.
    fn deadline(&self) -> Option<Instant> {
        self.sent?;
        let limit = if self.is_settled() {
            self.options.linger.or(self.options.wait)
        } else {
            Some(self.options.wait.unwrap_or(JOIN_LIMIT))
        };
        Some(self.quiet_since + limit.unwrap_or_default())
    }

    fn give_up(&mut self) -> Outcome {
        if self.is_settled() {
            if let Some(expect) = self.options.expect {
                let printed = counted(self.printed, "message");
                self.fail(&format!("only {printed} came, {expect} were expected"));
            }
        } else {
            if !self.joined {
                self.fail(&format!("{:?} was not joined in time", self.options.room));
            }
            self.name_unacknowledged();
        }
        self.outcome()
    }

    fn outcome(&self) -> Outcome {
        if self.failed { Outcome::Failed } else { Outcome::Done }
    }

    /// Takes in `event` and all that wait behind it, then flushes what was printed. Break when the session is over.
    fn take_in_all(&mut self, event: Event) -> io::Result<std::ops::ControlFlow<()>> {
        let mut next = Some(event);
        let mut over = false;
        while let Some(event) = next {
            over |= matches!(event, Event::Ended { .. });
            self.take_in(event)?;
            next = self.client.events().try_recv().ok();
        }
        self.output.flush()?;
        Ok(if over {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        })
    }

    fn take_in(&mut self, event: Event) -> io::Result<()> {
        match &event {
            Event::Delivered(delivery) => return self.print(delivery),
            Event::Acked { .. } => self.settle(),
            Event::Refused { message_id, code, reason, .. } => {
                self.fail(&format!("{message_id} was refused: {reason} ({code})"));
                if self.client.is_message_id(message_id) {
                    self.settle();
                } else if !self.joined {
                    // Without its room there is nothing to do.
                    (self.joined, self.sent) = (true, Some(0));
                }
            }
            Event::Joined { history, .. } => (self.joined, self.history_left) = (true, *history),
            // What was left of the past comes as news.
            Event::Moved { .. } | Event::Reconnected { .. } => self.history_left = 0,
            Event::Ended { .. } => self.failed = true,
            _ => {}
        }
        if let Some(text) = notice(&event).filter(|_| !matches!(event, Event::Refused { .. })) {
            self.note(&text);
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.settled += 1;
        self.quiet_since = Instant::now();
    }

    fn print(&mut self, delivery: &Delivery) -> io::Result<()> {
        self.printed += 1;
        self.history_left = self.history_left.saturating_sub(u32::from(delivery.history));
        let line = match self.options.format {
            Format::Text => delivery_line(delivery),
            Format::Json => serde_json::to_string(delivery)?,
        };
        writeln!(self.output, "{line}")
    }

    /// Says on standard error what did not work; the exit code will say it too.
    fn fail(&mut self, problem: &str) {
        self.failed = true;
        self.note(&format!("roundtable: {}", visible(problem)));
    }

    fn note(&mut self, text: &str) {
        // Without a standard error there is nobody to tell.
        let _ = writeln!(self.notes, "{text}");
    }

    fn name_unacknowledged(&mut self) {
        let left = self.client.unacknowledged();
        for chat in left.iter().take(NAMED_MAX) {
            let text: String = chat.text.chars().take(60).collect();
            self.fail(&format!("not acknowledged: {} {text:?}", chat.message_id));
        }
        if let Some(more) = left.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            self.fail(&format!("not acknowledged: {more} more"));
        }
    }
}

#[cfg(test)]
mod tests;
