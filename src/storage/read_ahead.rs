//! The blocks of a log, read ahead by as many threads as there are processors, and handed out in order.
//!
//! ```text
//!   plan ──▶ block 9 ─┐                           ┌─ worker: read, check, parse ─▶ a part ─┐
//!            block 8 ─┼─▶ jobs ── who is free ────┤                                        ├─▶ 5, 6, 7, … in order,
//!            block 7 ─┘                           └─ worker: read, check, parse ─▶ a part ─┘   by the caller's thread
//! ```
//!
//! A start has to look at each line of the log: nine tenths of that work need no line before. Only what the parts are
//! put together to does, and stays with one thread. Some blocks ahead of it are read and no more, so memory is bounded however
//! long the log is.
//!
//! With one processor there are no workers: a block is read when it is asked for.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::{self, Builder};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::block::{self, Scan};
use super::{Part, segment};

/// How much of a segment is read in one go, in bytes: it fits the processor's cache, and there are enough of them for many
/// threads even in a short log.
const BLOCK_BYTES: u64 = 1 << 20;
/// More workers than this read faster than one thread puts together what they read.
const WORKERS_MAX: usize = 8;
/// How many blocks are read ahead for each worker: those that are dear to read do not hold up the others.
const AHEAD_PER_WORKER: usize = 4;

/// How a log is read at a start.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// How many threads read ahead; with 0 the caller's thread reads.
    pub workers: usize,
    /// How long a block is, in bytes.
    pub block_bytes: u64,
}

impl Reading {
    /// As fits this machine.
    pub fn here() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let workers = if processors > 1 { processors.min(WORKERS_MAX) } else { 0 };
        Self { workers, block_bytes: BLOCK_BYTES }
    }

    /// Reads segments `numbers` of `folder`, of which `take` takes the blocks that it wants.
    pub fn ahead<P: Part, T>(
        self,
        folder: &Path,
        numbers: &[u64],
        take: impl FnOnce(&mut Blocks<P>) -> T,
    ) -> T {
        thread::scope(|scope| {
            let (give, jobs) = unbounded::<Job<P>>();
            let start = |_: &usize| {
                let jobs = jobs.clone();
                let work = move || jobs.iter().fold(Vec::new(), Job::work);
                Builder::new().name("log-recovery".into()).spawn_scoped(scope, work).is_ok()
            };
            // One that the system has no room for is done without.
            let workers = (0..self.workers).filter(start).count();
            // Only they hold it, so that nobody waits for one that panicked.
            drop(jobs);
            let plan = Plan::new(folder, numbers, self.block_bytes);
            let mut blocks =
                Blocks { plan, workers, give, asked: VecDeque::new(), buffer: Vec::new() };
            // The workers end when nobody can give them anything, hence when `blocks` is dropped.
            let taken = take(&mut blocks);
            drop(blocks);
            taken
        })
    }
}

/// A part of a segment.
#[derive(Clone, Debug)]
struct Block {
    path: PathBuf,
    start: u64,
    end: u64,
    is_last: bool,
}

impl Block {
    fn read<P: Part>(&self, buffer: &mut Vec<u8>) -> io::Result<Scan<P>> {
        block::read(&self.path, self.start, self.end, buffer)
    }
}

/// Cuts the segments of a log into blocks; each segment has one at least.
struct Plan {
    folder: PathBuf,
    numbers: VecDeque<u64>,
    block_bytes: u64,
    /// What is left of the segment that is being cut.
    rest: Option<Block>,
}

impl Plan {
    fn new(folder: &Path, numbers: &[u64], block_bytes: u64) -> Self {
        let numbers = numbers.iter().copied().collect();
        Self { folder: folder.into(), numbers, block_bytes, rest: None }
    }

    /// What is left of the present segment, or all of the next one.
    fn next_rest(&mut self) -> Option<io::Result<Block>> {
        if let Some(rest) = self.rest.take() {
            return Some(Ok(rest));
        }
        let path = self.folder.join(segment::file_name(self.numbers.pop_front()?));
        let whole = |found: std::fs::Metadata| Block {
            path: path.clone(),
            start: 0,
            end: found.len(),
            is_last: true,
        };
        Some(std::fs::metadata(&path).map(whole))
    }
}

impl Iterator for Plan {
    type Item = io::Result<Block>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut block = match self.next_rest()? {
            Ok(block) => block,
            Err(error) => return Some(Err(error)),
        };
        let cut = block.start + self.block_bytes;
        if cut < block.end {
            self.rest = Some(Block { start: cut, ..block.clone() });
            (block.end, block.is_last) = (cut, false);
        }
        Some(Ok(block))
    }
}

/// A block to be read, and where what was read is waited for.
struct Job<P> {
    block: Block,
    done: Sender<io::Result<Scan<P>>>,
}

impl<P: Part> Job<P> {
    /// Reads the block into `buffer`, which is for the next one then.
    fn work(mut buffer: Vec<u8>, job: Self) -> Vec<u8> {
        let scan = job.block.read(&mut buffer);
        // Nobody waits for it when there was a fault before.
        let _ = job.done.send(scan);
        buffer
    }
}

/// A block that a worker reads, or could not be cut.
struct Asked<P> {
    is_last: bool,
    done: Receiver<io::Result<Scan<P>>>,
}

/// The blocks of a log, in order.
pub struct Blocks<P> {
    plan: Plan,
    workers: usize,
    give: Sender<Job<P>>,
    asked: VecDeque<Asked<P>>,
    /// For the caller's own reading.
    buffer: Vec<u8>,
}

impl<P: Part> Blocks<P> {
    /// What the next block holds, and whether it is the last one of its segment; `None` after the last one of all.
    pub fn take_next(&mut self) -> Option<(bool, io::Result<Scan<P>>)> {
        if self.workers == 0 {
            let block = match self.plan.next()? {
                Ok(block) => block,
                Err(error) => return Some((true, Err(error))),
            };
            return Some((block.is_last, block.read(&mut self.buffer)));
        }
        self.ask_ahead();
        let asked = self.asked.pop_front()?;
        let lost = |_| Err(io::Error::other("a thread that read the log has panicked"));
        Some((asked.is_last, asked.done.recv().unwrap_or_else(lost)))
    }

    /// Gives the workers something to do.
    fn ask_ahead(&mut self) {
        while self.asked.len() < AHEAD_PER_WORKER * self.workers {
            let Some(block) = self.plan.next() else { return };
            let (give, done) = bounded(1);
            let is_last = block.as_ref().map_or(true, |block| block.is_last);
            // There is room for one, and both channels have their other ends here or with the workers.
            let _ = match block {
                Ok(block) => self.give.send(Job { block, done: give }).is_ok(),
                Err(error) => give.send(Err(error)).is_ok(),
            };
            self.asked.push_back(Asked { is_last, done });
        }
    }
}

#[cfg(test)]
#[path = "read_ahead_tests.rs"]
mod tests;
