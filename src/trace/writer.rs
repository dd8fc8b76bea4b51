//! The file of a server's trace, and the thread that writes it.
//!
//! ```text
//!   step ── put ──▶ bounded channel ──▶ trace-writer ──▶ words ──▶ write        (no sync: a trace is not a promise)
//!     full: lost += n                     disk full: missed += n
//!     next that fits: Lost(n) before it   next that can be written: {"kind":"lost","lost":n,…} before it
//! ```
//!
//! The file is appended to, so that it holds all lives of a server. One that was killed may have left half a line: the
//! next life begins on a line of its own, and [`read`](super::read) passes the half over.
//!
//! A trace that may not grow for ever is two files, FILE.old and FILE: when FILE is half of what is allowed it becomes FILE.old.
//! The new one begins with a line that says who goes on here, and where the server stands.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::entry::{Entry, Numbering, What};
use super::tracer::Sink;
use crate::domain::NodeId;
use crate::error::StartError;

/// Steps that may wait to be written. More are lost.
const STEPS_MAX: usize = 8192;
/// What they may hold, in bytes. More is lost.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// So many bytes are gathered for one write.
const WRITE_BYTES: usize = 64 * 1024;

/// A trace that is written to a file.
#[derive(Debug)]
pub struct TraceFile {
    sink: FileSink,
    writer: Writer<File>,
}

impl TraceFile {
    /// Opens `path` to append to it. With `bytes_max` it and the file before it hold about so much.
    pub fn open(path: &Path, bytes_max: Option<u64>) -> Result<Self, StartError> {
        let refuse = |source| StartError::Data {
            path: path.into(),
            problem: "cannot write the trace".into(),
            source: Some(source),
        };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let torn = file.as_mut().map_or(Ok(false), ends_inside_a_line).map_err(refuse)?;
        let file = file.map_err(refuse)?;
        let written = file.metadata().map_err(refuse)?.len();
        let (sink, mut writer) = channel(file);
        writer.torn = torn;
        writer.turn =
            bytes_max.map(|most| Turn { written, most: most / 2, next: next_file(path.into()) });
        Ok(Self { sink, writer })
    }

    /// The end that steps use, and the end for a thread.
    pub fn split(self) -> (FileSink, Writer<File>) {
        (self.sink, self.writer)
    }
}

/// A sink, and what writes to `out`.
fn channel<W: Write>(out: W) -> (FileSink, Writer<W>) {
    let (give, take) = bounded(STEPS_MAX);
    let shared = Arc::new(Shared::default());
    let sink = FileSink { give: Arc::new(Mutex::new(Some(give))), shared: shared.clone() };
    let writer = Writer {
        take,
        shared,
        out,
        numbering: Numbering::default(),
        missed: 0,
        start: None,
        last: None,
        torn: false,
        told: false,
        turn: None,
        begun: None,
        standing: None,
    };
    (sink, writer)
}

fn ends_inside_a_line(file: &mut File) -> std::io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[derive(Debug, Default)]
struct Shared {
    /// Events that found no room, since the last that did.
    lost: AtomicU64,
    /// What waits in the channel, in bytes.
    waiting: AtomicUsize,
}

/// Hands steps over to the [`Writer`]. Never blocks.
#[derive(Clone, Debug)]
pub struct FileSink {
    /// A leaf. `None` once the trace is over.
    give: Arc<Mutex<Option<Sender<Vec<Entry>>>>>,
    shared: Arc<Shared>,
}

impl FileSink {
    /// The trace is over: the writer ends when it has written what waits.
    pub fn close(&self) {
        self.give.lock().take();
    }
}

impl Sink for FileSink {
    fn put(&self, mut entries: Vec<Entry>) {
        let mut count = entries.len() as u64;
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        if let Some(first) = entries.first().filter(|_| lost > 0) {
            entries.insert(0, Entry { what: What::Lost(lost), ..first.clone() });
            count += lost;
        }
        let weight = weight(&entries);
        let before = self.shared.waiting.fetch_add(weight, Ordering::Relaxed);
        let has_room = before + weight <= BYTES_MAX;
        let give = self.give.lock();
        let given = has_room && give.as_ref().is_some_and(|give| give.try_send(entries).is_ok());
        if !given {
            self.shared.waiting.fetch_sub(weight, Ordering::Relaxed);
            self.shared.lost.fetch_add(count, Ordering::Relaxed);
        }
    }
}

fn weight(entries: &[Entry]) -> usize {
    entries.iter().map(Entry::weight).sum()
}

/// Writes what steps did.
#[derive(Debug)]
pub struct Writer<W> {
    take: Receiver<Vec<Entry>>,
    shared: Arc<Shared>,
    out: W,
    numbering: Numbering,
    /// Events that could not be written, since the last that could.
    missed: u64,
    /// The start of this life, while it could not be written: without it the rest could not be read.
    start: Option<Entry>,
    /// Who wrote last, and when.
    last: Option<(NodeId, u64)>,
    /// The file ends inside a line.
    torn: bool,
    /// That it cannot be written was logged.
    told: bool,
    /// When the next file is begun, if ever.
    turn: Option<Turn<W>>,
    /// How this life began, and where the server stands: the next file begins with it.
    begun: Option<Entry>,
    standing: Option<Entry>,
}

/// The way to the next file.
struct Turn<W> {
    /// What is in this one, in bytes.
    written: u64,
    /// What may be.
    most: u64,
    next: Box<dyn FnMut() -> std::io::Result<W> + Send>,
}

impl<W> std::fmt::Debug for Turn<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn({} of {})", self.written, self.most)
    }
}

/// Sets `path` aside and opens it anew, each time.
fn next_file(path: PathBuf) -> Box<dyn FnMut() -> std::io::Result<File> + Send> {
    Box::new(move || {
        std::fs::rename(&path, old_file(&path))?;
        OpenOptions::new().append(true).create(true).open(&path)
    })
}

/// The file with what came before the trace `path`.
pub fn old_file(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

impl<W: Write> Writer<W> {
    /// The body of `trace-writer`: writes until the sink is closed.
    pub fn run(mut self) {
        while let Ok(mut entries) = self.take.recv() {
            let mut bytes = weight(&entries);
            while bytes < WRITE_BYTES
                && let Ok(more) = self.take.try_recv()
            {
                bytes += weight(&more);
                entries.extend(more);
            }
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.write(entries);
            self.turn_over();
        }
        self.missed += self.shared.lost.swap(0, Ordering::Relaxed);
        self.write(Vec::new());
    }

    /// Writes `entries`, behind a word about what could not be written before them.
    fn write(&mut self, entries: Vec<Entry>) {
        if let Some(last) = entries.last() {
            self.last = Some((last.node.clone(), last.time_us));
        }
        let first = entries.first().map(|first| (first.node.clone(), first.time_us));
        let missed = std::mem::take(&mut self.missed);
        let of_missed = (missed > 0).then(|| first.or(self.last.clone())).flatten();
        let of_missed =
            of_missed.map(|(node, time_us)| Entry { node, time_us, what: What::Lost(missed) });
        let start = self.start.take();
        let entries: Vec<Entry> = start.into_iter().chain(of_missed).chain(entries).collect();
        self.remember(&entries);
        let mut bytes = if self.torn { b"\n".to_vec() } else { Vec::new() };
        // Where each line ends, and the numbering before it.
        let mut lines = Vec::new();
        for entry in &entries {
            let before = self.numbering.clone();
            bytes.extend_from_slice(self.numbering.event(entry.clone()).to_line().as_bytes());
            bytes.push(b'\n');
            lines.push((bytes.len(), before));
        }
        let (written, problem) = write_some(&mut self.out, &bytes);
        if written > 0 {
            self.torn = bytes[written - 1] != b'\n';
        }
        if let Some(turn) = &mut self.turn {
            turn.written += written as u64;
        }
        let Some(problem) = problem else { return };
        let whole = lines.iter().take_while(|(end, _)| *end <= written).count();
        // The numbers of what was not written are used again: they count without a gap.
        if let Some((_, before)) = lines.into_iter().nth(whole) {
            self.numbering = before;
        }
        self.miss(&entries[whole..]);
        if !std::mem::replace(&mut self.told, true) {
            log::warn!(
                "cannot write the trace: {problem}; events are lost, and the trace will say how many"
            );
        }
    }

    fn remember(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry.what {
                What::Start(_) => self.begun = Some(entry.clone()),
                What::Stands(..) => self.standing = Some(entry.clone()),
                _ => {}
            }
        }
    }

    /// Begins the next file, when this one is full.
    fn turn_over(&mut self) {
        let whole = !self.torn && self.missed == 0 && self.start.is_none();
        let (Some(turn), Some(begun), true) = (&mut self.turn, &self.begun, whole) else { return };
        if turn.written < turn.most {
            return;
        }
        // When it cannot be begun now, this one goes on, until as much again was written.
        turn.written = 0;
        match (turn.next)() {
            Ok(out) => self.out = out,
            Err(problem) => return log::warn!("cannot begin another file of the trace: {problem}"),
        }
        let mut first = begun.clone();
        if let What::Start(run) = &mut first.what {
            run.continues = true;
        }
        let mut entries = vec![first];
        entries.extend(self.standing.clone());
        for entry in &mut entries {
            entry.time_us = self.last.as_ref().map_or(entry.time_us, |last| last.1);
        }
        self.write(entries);
    }

    fn miss(&mut self, entries: &[Entry]) {
        for entry in entries {
            match entry.what {
                What::Start(_) => self.start = Some(entry.clone()),
                What::Lost(lost) => self.missed += lost,
                _ => self.missed += 1,
            }
        }
    }
}

/// Writes as much of `bytes` as can be written: how much, and what was wrong then.
fn write_some(out: &mut impl Write, bytes: &[u8]) -> (usize, Option<std::io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match out.write(&bytes[written..]) {
            Ok(0) => return (written, Some(std::io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, out.flush().err())
}

/// Keeps everything, in order, for the simulator and for tests.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<Vec<Entry>>>);

impl Kept {
    /// Takes out what was put in.
    pub fn take(&self) -> Vec<Entry> {
        std::mem::take(&mut self.0.lock())
    }

    /// Puts in what was done to a server from outside.
    pub fn note(&self, node: &NodeId, time_us: u64, what: What) {
        self.0.lock().push(Entry { node: node.clone(), time_us, what });
    }
}

impl Sink for Kept {
    fn put(&self, entries: Vec<Entry>) {
        self.0.lock().extend(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::event::{FORMAT, Kind, Run, TraceEvent};
    use crate::trace::read::read_files;

    fn entry(time_us: u64) -> Entry {
        Entry { node: "n1".into(), time_us, what: What::Timer(format!("t{time_us}")) }
    }

    fn start() -> Entry {
        Entry { node: "n1".into(), time_us: 0, what: What::Start(Run::default()) }
    }

    fn events(bytes: &[u8]) -> Vec<TraceEvent> {
        let text = std::str::from_utf8(bytes).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// A disk with room for so many bytes.
    struct Small<'a>(&'a mut Vec<u8>, &'a std::cell::Cell<usize>);

    impl Write for Small<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let room = self.1.get().min(bytes.len());
            self.1.set(self.1.get() - room);
            self.0.extend_from_slice(&bytes[..room]);
            if room == 0 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(room) }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_channel_loses_events_and_the_trace_says_how_many() {
        let mut bytes = Vec::new();
        let (sink, writer) = channel(&mut bytes);
        sink.put(vec![start()]);
        for time in 1..=STEPS_MAX as u64 + 40 {
            sink.put(vec![entry(time)]);
        }
        sink.close();
        writer.run();
        let events = events(&bytes);
        let lost: u64 = events.iter().map(|event| event.lost).sum();
        assert_eq!(lost, 41, "one place was the start's");
        assert_eq!(events.len(), STEPS_MAX + 1);
        assert_eq!((events[0].kind, events[STEPS_MAX].kind), (Kind::Start, Kind::Lost));
        assert!(events.iter().enumerate().all(|(i, event)| event.n == i as u64 + 1));
    }

    #[test]
    fn more_than_memory_allows_is_lost_too() {
        let (sink, _writer) = channel(Vec::new());
        let frame = vec![b'x'; BYTES_MAX / 2].into();
        let what = What::Sent { to: vec![], name: None, frame };
        let big = Entry { node: "n1".into(), time_us: 1, what };
        sink.put(vec![big.clone()]);
        assert_eq!(sink.shared.lost.load(Ordering::Relaxed), 0);
        sink.put(vec![big]);
        assert_eq!(sink.shared.lost.load(Ordering::Relaxed), 1);
        assert!(sink.shared.waiting.load(Ordering::Relaxed) <= BYTES_MAX);
    }

    #[test]
    fn a_full_disk_loses_events_and_numbers_go_on_without_a_gap() {
        let (mut bytes, room) = (Vec::new(), std::cell::Cell::new(400));
        let (_sink, mut writer) = channel(Small(&mut bytes, &room));
        let times: Vec<Entry> = (1..=20).map(entry).collect();
        writer.write([vec![start()], times].concat());
        writer.write(vec![entry(21)]);
        room.set(10_000);
        writer.write(vec![entry(22)]);
        drop(writer);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let events = events(&bytes);
        assert_eq!(text.lines().count(), events.len() + 1, "one line is torn: {text}");
        assert!(events.iter().enumerate().all(|(i, event)| event.n == i as u64 + 1), "{text}");
        let lost = events.iter().find(|event| event.kind == Kind::Lost).unwrap();
        assert_eq!(lost.lost as usize + events.len() - 1, 23, "{text}");
        assert_eq!(events.last().unwrap().say, "t22");
    }

    #[test]
    fn a_disk_that_is_full_at_the_start_does_not_cost_the_whole_trace() {
        let (mut bytes, room) = (Vec::new(), std::cell::Cell::new(50));
        let (_sink, mut writer) = channel(Small(&mut bytes, &room));
        writer.write(vec![start()]);
        writer.write(vec![entry(1)]);
        room.set(10_000);
        writer.write(vec![entry(2)]);
        drop(writer);
        let events = events(&bytes);
        let kinds: Vec<Kind> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [Kind::Start, Kind::Lost, Kind::Timer]);
        assert_eq!((events[1].lost, events[2].n), (1, 3));
    }

    #[test]
    fn a_new_life_begins_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1.jsonl");
        std::fs::write(&path, "{\"time_us\":1,\"no").unwrap();
        let (sink, writer) = TraceFile::open(&path, None).unwrap().split();
        sink.put(vec![start()]);
        sink.close();
        writer.run();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(events(text.as_bytes())[0].kind, Kind::Start);
    }

    #[test]
    fn a_bounded_trace_is_two_files_that_are_read_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1.jsonl");
        let standing = || What::Stands(super::super::Standing::default(), "stands".into());
        let live = |life: &str, times: std::ops::Range<u64>| {
            let (_sink, mut writer) = TraceFile::open(&path, Some(20_000)).unwrap().split();
            let run = Run { format: FORMAT, life: life.into(), ..Run::default() };
            let first = [What::Start(run), standing()];
            let begins = |what| Entry { node: "n1".into(), time_us: times.start, what };
            writer.write(first.map(begins).into());
            for time in times {
                writer.write(vec![entry(time)]);
                writer.turn_over();
            }
        };
        live("n1.1-aa", 1..40);
        live("n1.2-bb", 100..1000);
        let sizes = [&path, &old_file(&path)].map(|path| std::fs::metadata(path).unwrap().len());
        assert!(sizes.iter().sum::<u64>() < 22_000, "{sizes:?}");
        let traces = read_files(std::slice::from_ref(&path)).unwrap();
        let [life] = &traces.lives[..] else { panic!("{} lives", traces.lives.len()) };
        assert_eq!((&*life.run.life, life.run.continues), ("n1.2-bb", true));
        assert!(traces.notes.is_empty(), "{:?}", traces.notes);
        assert_eq!(life.events[1].say, "stands", "where it stands follows at once");
        let (first, last) = (life.events[0].n, life.events.last().unwrap());
        assert_eq!(last.say, "t999");
        assert_eq!(life.events.len() as u64, last.n - first + 1, "nothing is missing between");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused_at_once() {
        let error =
            TraceFile::open(Path::new("/no/such/folder/n1.jsonl"), None).unwrap_err().to_string();
        assert!(error.contains("/no/such/folder/n1.jsonl: cannot write the trace"), "{error}");
    }
}
