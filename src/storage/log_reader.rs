//! Reading old records back while the log goes on: for a server that catches up from far behind.
//!
//! ```text
//!   node ── request_read(7, from 13000) ──▶ queue ──▶ log-reader ──▶ Read { 7, from 13000, records } ──▶ node
//!                                                     places: segment 3 at 12300, skip 700 lines
//! ```
//!
//! The reader has its own thread and its own open files, so neither the node nor the writer waits for it. It
//! reads only what [`Places`](super::places) knows, hence what is durable. A segment that the writer
//! removes meanwhile stays readable for who has it open; who comes too late begins with the first one that is kept.
//!
//! The same thread makes the bytes of snapshots and hands them to the writer: it is the one for whom nobody waits with an
//! ACK in hand.
//!
//! A line that was sound at the start and is not now, or a disk that cannot be read, ends the node: the next start
//! finds the damage and treats it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Seek, SeekFrom};
use std::path::Path;

use crossbeam_channel::{Receiver, Sender, select, unbounded};

use super::places::Span;
use super::{FileLog, LogEvent, LogIndex, MakeSnapshot, Storage, record, segment};
use crate::domain::Message;

/// What the reader is asked for, in the order of asking.
pub(super) struct ReadQueue {
    requests: (Sender<Task>, Receiver<Task>),
}

enum Task {
    Read(Request),
    /// See [`Storage::request_records`].
    Records {
        token: u64,
        records: Vec<LogIndex>,
        bytes_max: usize,
    },
    /// See [`Storage::make_snapshot`].
    Make(u64, MakeSnapshot),
}

impl fmt::Debug for ReadQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadQueue").field("waiting", &self.requests.1.len()).finish()
    }
}

/// See [`Storage::request_read`].
#[derive(Clone, Copy, Debug)]
struct Request {
    token: u64,
    from: LogIndex,
    bytes_max: usize,
}

impl ReadQueue {
    pub(super) fn new() -> Self {
        Self { requests: unbounded() }
    }

    pub(super) fn push(&self, token: u64, from: LogIndex, bytes_max: usize) {
        // Unbounded, and `self` holds the other end: it neither waits nor fails.
        let _ = self.requests.0.send(Task::Read(Request { token, from, bytes_max }));
    }

    pub(super) fn push_records(&self, token: u64, records: Vec<LogIndex>, bytes_max: usize) {
        let _ = self.requests.0.send(Task::Records { token, records, bytes_max });
    }

    pub(super) fn push_make(&self, seq: u64, make: MakeSnapshot) {
        let _ = self.requests.0.send(Task::Make(seq, make));
    }
}

/// What was read so far for one request.
struct Reading {
    records: Vec<Message>,
    bytes_left: usize,
    is_full: bool,
}

impl FileLog {
    /// The body of the thread `log-reader`: reads what was asked for and reports to `on_event`, until `stop` is given
    /// (see [`Threads::stopped`](crate::threads::Threads::stopped)). An error is final, and the server must stop.
    pub fn run_reader(
        &self,
        stop: &Receiver<()>,
        mut on_event: impl FnMut(LogEvent),
    ) -> io::Result<()> {
        loop {
            select! {
                recv(stop) -> _ => return Ok(()),
                recv(self.reads.requests.1) -> task => match task {
                    Ok(Task::Read(request)) => on_event(self.answer(request)?),
                    Ok(Task::Records { token, records, bytes_max }) => {
                        let records = self.pick(&records, bytes_max)?;
                        on_event(LogEvent::ReadRecords { token, records });
                    }
                    Ok(Task::Make(seq, make)) => {
                        self.save_snapshot(seq, make());
                        self.wake();
                    }
                    Err(_) => return Ok(()),
                },
            }
        }
    }

    /// Reads what `request` asks for, from as many segments as it takes.
    fn answer(&self, request: Request) -> io::Result<LogEvent> {
        let Request { token, from, bytes_max } = request;
        let mut first = from.max(1);
        let mut reading = Reading { records: Vec::new(), bytes_left: bytes_max, is_full: false };
        while !reading.is_full {
            let next = first + reading.records.len() as LogIndex;
            let Some(span) = self.find(next) else { break };
            if span.from > next {
                // Forgotten. What was read before it is an answer already.
                if !reading.records.is_empty() {
                    break;
                }
                first = span.from;
            }
            let path = self.folder.join(segment::file_name(span.number));
            match reading.read_span(&path, &span) {
                // Removed after it was found.
                Err(error)
                    if error.kind() == ErrorKind::NotFound && self.find(next) != Some(span) => {}
                result => result.map_err(|error| segment::explain("read", &path, &error))?,
            }
        }
        Ok(LogEvent::Read { token, from: first, records: reading.records })
    }

    /// Reads these `records`, which ascend, as far as they fit.
    fn pick(&self, records: &[LogIndex], bytes_max: usize) -> io::Result<Vec<(LogIndex, Message)>> {
        let mut found: Vec<(LogIndex, Message)> = Vec::new();
        let mut bytes_left = bytes_max;
        let mut picker: Option<Picker> = None;
        for index in records.iter().copied() {
            let Some(span) = self.find(index).filter(|span| span.from == index) else { continue };
            let path = self.folder.join(segment::file_name(span.number));
            let fault = |error| segment::explain("read", &path, &error);
            if !picker.as_ref().is_some_and(|picker| picker.is_near(&span)) {
                match Picker::open(&path, &span) {
                    // Removed after it was found.
                    Err(error)
                        if error.kind() == ErrorKind::NotFound
                            && self.find(index) != Some(span) =>
                    {
                        continue;
                    }
                    opened => picker = Some(opened.map_err(fault)?),
                }
            }
            let Some(picker) = &mut picker else { continue };
            let (message, bytes) = picker.read(&span).map_err(fault)?;
            if bytes > bytes_left && !found.is_empty() {
                break;
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            found.push((index, message));
        }
        Ok(found)
    }

    fn find(&self, index: LogIndex) -> Option<Span> {
        self.places.lock().find(index)
    }
}

/// A segment in which single records are read, further and further on.
struct Picker {
    file: BufReader<File>,
    number: u64,
    /// The record whose line is next.
    next: LogIndex,
    line: Vec<u8>,
}

impl Picker {
    /// Opens the segment of `span` where it says.
    fn open(path: &Path, span: &Span) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(span.place.offset))?;
        let file = BufReader::with_capacity(256 * 1024, file);
        Ok(Self { file, number: span.number, next: span.place.index, line: Vec::new() })
    }

    /// Whether the record of `span` is best reached from here.
    fn is_near(&self, span: &Span) -> bool {
        self.number == span.number && (span.place.index..=span.from).contains(&self.next)
    }

    /// Reads the record of `span`, and says how long its line is.
    fn read(&mut self, span: &Span) -> io::Result<(Message, usize)> {
        while self.next < span.from {
            self.file.skip_until(b'\n')?;
            self.next += 1;
        }
        self.line.clear();
        self.file.read_until(b'\n', &mut self.line)?;
        self.next += 1;
        Ok((decode_line(&self.line, span, span.from)?, self.line.len()))
    }
}

/// The message of `line`, which is the record `index` of the segment of `span`.
fn decode_line(line: &[u8], span: &Span, index: LogIndex) -> io::Result<Message> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    record::decode(text).map_err(|reason| {
        let number = index - span.first + 1;
        io::Error::new(ErrorKind::InvalidData, format!("line {number} is damaged: {reason}"))
    })
}

impl Reading {
    /// Reads the records of `span` as far as there is room for them.
    fn read_span(&mut self, path: &Path, span: &Span) -> io::Result<()> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(span.place.offset))?;
        let mut file = BufReader::with_capacity(256 * 1024, file);
        for _ in span.place.index..span.from {
            file.skip_until(b'\n')?;
        }
        let mut line = Vec::new();
        for index in span.from..span.end {
            line.clear();
            file.read_until(b'\n', &mut line)?;
            let message = decode_line(&line, span, index)?;
            if line.len() > self.bytes_left && !self.records.is_empty() {
                self.is_full = true;
                return Ok(());
            }
            self.bytes_left = self.bytes_left.saturating_sub(line.len());
            self.records.push(message);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "log_reader_tests.rs"]
mod tests;
