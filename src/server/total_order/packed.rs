//! Entries in large pieces of memory, packed: what they say is kept for ever, and seldom looked at.
//!
//! ```text
//!   Rows    ▸12 lobby alice 5f1c-1 hello│13 bob 77aa-9 hi│ … │▸44 lobby …│ …      ▸ every 32nd row says everything,
//!           └───────────────────────── 64 KiB ─────────────────────────┘        the others what is not as before
//!   seal()    ▼
//!   Block   the same, as it is     ── pack() ──▶     Block   compressed (LZ4), unpacked for who reads there
//! ```
//!
//! As an `Arc<Message>` a message of 64 letters takes seven pieces of memory, some 700 bytes. As a row it takes 100, and with words of a
//! language 60 when it is compressed; letters drawn by lot do not get shorter.
//!
//! A row is found by its place: from the last ▸ before it at most 31 rows are skipped. A CHAT, and what is left of one that
//! was deleted, has a form of its own; any other entry is kept as its JSON.
//!
//! A block never changes and is shared: a copy of a history copies a pointer for each. To read in a compressed one it is unpacked as
//! a whole, 64 KiB in 30 µs; a [`Reader`] keeps what it unpacked last, for whoever reads on.

use std::collections::VecDeque;
use std::sync::Arc;

pub(super) use rows::Row;
use rows::Rows;

use super::Seq;
use crate::domain::Message;

mod rows;

/// Rows are sealed when they are together so long, in bytes: as far back as LZ4 looks for repeats.
const BLOCK_BYTES: usize = 64 * 1024;

/// Rows that do not change any more; see the module.
#[derive(Debug)]
struct Block {
    /// The place of the last row.
    last: Seq,
    /// Where rows begin that say everything.
    restarts: Box<[u32]>,
    text: Text,
}

#[derive(Debug)]
enum Text {
    Plain(Box<[u8]>),
    Packed { bytes: Box<[u8]>, unpacked: usize },
}

impl Block {
    fn is_packed(&self) -> bool {
        matches!(self.text, Text::Packed { .. })
    }

    /// The same block, compressed; `None` when it is.
    fn pack(&self) -> Option<Self> {
        let Text::Plain(text) = &self.text else { return None };
        let bytes = lz4_flex::block::compress(text).into_boxed_slice();
        Some(Self {
            last: self.last,
            restarts: self.restarts.clone(),
            text: Text::Packed { bytes, unpacked: text.len() },
        })
    }
}

/// What was unpacked last.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader(Option<(Arc<Block>, Arc<[u8]>)>);

impl Reader {
    /// The rows of `block`, from the place `first` on.
    fn rows_from<'a>(
        &'a mut self,
        block: &'a Arc<Block>,
        first: Seq,
    ) -> impl Iterator<Item = Row<'a>> {
        rows::from(self.text_of(block), &block.restarts, first)
    }

    /// The row at `seq` of `block`.
    fn get<'a>(&'a mut self, block: &'a Arc<Block>, seq: Seq) -> Option<Row<'a>> {
        self.rows_from(block, seq).next().filter(|row| row.seq == seq)
    }

    fn text_of<'a>(&'a mut self, block: &'a Arc<Block>) -> &'a [u8] {
        let (packed, length) = match &block.text {
            Text::Plain(text) => return text,
            Text::Packed { bytes, unpacked } => (bytes, *unpacked),
        };
        if self.0.as_ref().is_none_or(|(here, _)| !Arc::ptr_eq(here, block)) {
            // It never left this memory since it was packed.
            let text = lz4_flex::block::decompress(packed, length).expect("a block unpacks");
            self.0 = Some((block.clone(), text.into()));
        }
        self.0.as_ref().map_or(&[], |(_, text)| text)
    }
}

/// Entries in the order of their places, which grow at the end and are forgotten from the front. A copy shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Packed {
    blocks: VecDeque<Arc<Block>>,
    /// What is not sealed yet. It is copied when a copy of it all is at large.
    tail: Arc<Rows>,
    /// Rows up to this place are forgotten. Some of them may be in the first block.
    forgotten: Seq,
}

impl Packed {
    /// Appends `msg`, whose place is behind all others, with the timestamp `ms` rather than its own.
    ///
    /// The newest block stays as it is, for those who are shown what was said last: the one before it is compressed.
    pub(super) fn push(&mut self, seq: Seq, msg: &Message, ms: Option<u64>) {
        let tail = Arc::make_mut(&mut self.tail);
        tail.push(seq, msg, ms);
        if tail.bytes() < BLOCK_BYTES {
            return;
        }
        // What was needed before will be needed again.
        let full = std::mem::replace(tail, Rows::with_room_for(BLOCK_BYTES));
        if let Some(before) = self.blocks.back_mut()
            && let Some(packed) = before.pack()
        {
            *before = Arc::new(packed);
        }
        self.blocks.push_back(Arc::new(full.seal()));
    }

    /// The row at `seq`.
    pub(super) fn get<'a>(&'a self, seq: Seq, reader: &'a mut Reader) -> Option<Row<'a>> {
        if seq <= self.forgotten {
            return None;
        }
        if self.tail.is_from(seq) {
            return self.tail.iter_from(seq).next().filter(|row| row.seq == seq);
        }
        reader.get(self.blocks.get(self.block_of(seq))?, seq)
    }

    /// Which block has the place `seq`, or else the first one behind it.
    fn block_of(&self, seq: Seq) -> usize {
        self.blocks.partition_point(|block| block.last < seq)
    }

    /// Shows `visit` the rows from the place `first` on, in order, as long as it says so.
    pub(super) fn visit_from(&self, first: Seq, mut visit: impl FnMut(Row) -> bool) {
        let first = first.max(self.forgotten + 1);
        let mut reader = Reader::default();
        for block in self.blocks.range(self.block_of(first)..) {
            if !reader.rows_from(block, first).all(&mut visit) {
                return;
            }
        }
        self.tail.iter_from(first).all(visit);
    }

    /// Puts `msg` in the place of the row at `seq`. What stood there is nowhere in memory then, but in copies that are at large.
    pub(super) fn replace(&mut self, seq: Seq, msg: &Message) {
        if self.tail.is_from(seq) {
            let anew = written_anew(self.tail.iter_from(0), seq, msg);
            self.tail = Arc::new(anew);
        } else if let at = self.block_of(seq)
            && let Some(block) = self.blocks.get_mut(at)
        {
            let anew = written_anew(Reader::default().rows_from(block, 0), seq, msg).seal();
            let packed = if block.is_packed() { anew.pack() } else { None };
            *block = Arc::new(packed.unwrap_or(anew));
        }
    }

    /// Forgets the rows behind the place `seq`.
    pub(super) fn cut_after(&mut self, seq: Seq) {
        if self.tail.is_from(seq + 1) {
            let kept = self.tail.iter_from(0).take_while(|row| row.seq <= seq);
            self.tail = Arc::new(copy_of(kept));
            return;
        }
        self.blocks.truncate(self.block_of(seq + 1) + 1);
        if self.blocks.back().is_some_and(|block| block.last > seq)
            && let Some(cut) = self.blocks.pop_back()
        {
            let mut reader = Reader::default();
            let kept = reader.rows_from(&cut, 0).take_while(|row| row.seq <= seq);
            self.tail = Arc::new(copy_of(kept));
        }
    }

    /// Forgets the rows up to the place `seq`.
    pub(super) fn forget_up_to(&mut self, seq: Seq) {
        self.forgotten = self.forgotten.max(seq);
        while self.blocks.front().is_some_and(|block| block.last <= seq) {
            self.blocks.pop_front();
        }
        if self.tail.last() <= seq && !self.tail.is_empty() {
            self.tail = Arc::default();
        }
    }
}

/// The same `rows`, but for the one at `seq`, which is `msg` now.
fn written_anew<'a>(rows: impl Iterator<Item = Row<'a>>, seq: Seq, msg: &Message) -> Rows {
    let mut anew = Rows::default();
    for row in rows {
        if row.seq == seq {
            anew.push(seq, msg, msg.timestamp);
        } else if let Some(other) = row.to_message() {
            anew.push(row.seq, &other, other.timestamp);
        }
    }
    anew
}

fn copy_of<'a>(rows: impl Iterator<Item = Row<'a>>) -> Rows {
    let mut copy = Rows::default();
    for row in rows {
        if let Some(msg) = row.to_message() {
            copy.push(row.seq, &msg, msg.timestamp);
        }
    }
    copy
}

#[cfg(test)]
mod tests;
