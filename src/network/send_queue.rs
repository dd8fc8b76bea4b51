//! The bytes that wait for one connection, in pieces that may belong to many.
//!
//! ```text
//!    pieces   [Shared block][Own 2 frames][Shared block][Own 1 frame]     to be sent in this order
//!                   │             │              │            │
//!                   ▼             └──────┬───────┼────────────┘
//!             one copy for all     own: [ACK][ACK][ACK]
//!             members of a room
//! ```
//!
//! A message to a hundred members is framed once; each of their queues holds a reference. What is for one connection
//! alone, as an ACK, is copied into a buffer of its own, which is reused from flush to flush. So queueing and sending
//! allocate nothing for each member.
//!
//! The queue knows where frames end, so that a closing connection can be cut between two of them. It does no I/O.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::sync::Arc;

use super::frames::Block;
use super::framing::Framing;

/// So many pieces go out with one call of the system. A busy member of a busy room has about ten waiting.
pub(super) const SLICES_MAX: usize = 32;

/// An own buffer larger than this is given back as soon as it is empty, in bytes.
const IDLE_BYTES_MAX: usize = 4 * 1024;

/// A list with room for more entries than this is given back as soon as it is empty.
const IDLE_ENTRIES_MAX: usize = 32;

/// Whole frames one after the other; of the first one a part may have left.
#[derive(Debug)]
enum Piece {
    /// A block that waits for other connections too.
    Shared(Arc<Block>),
    /// The next so many bytes of the own buffer.
    Own(usize),
}

/// What waits for one connection, in order.
#[derive(Debug, Default)]
pub(super) struct SendQueue {
    pieces: VecDeque<Piece>,
    /// How much of the first piece has left, if it is a shared one.
    shared_head: usize,
    /// The bytes of all own pieces are `own[own_head..]`; what is before was sent.
    own: Vec<u8>,
    own_head: usize,
    /// Where each frame ends in `own`, of those that end after `own_head`.
    own_ends: VecDeque<usize>,
    /// How much waits in all pieces, in bytes.
    bytes: usize,
    /// A part of the first frame has left.
    mid_frame: bool,
}

impl SendQueue {
    /// How much waits, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a copy of `frame`.
    pub(super) fn push(&mut self, frame: &[u8], framing: Framing) {
        let start = self.own.len();
        framing.put(frame, &mut self.own);
        let count = self.own.len() - start;
        self.own_ends.push_back(self.own.len());
        self.bytes += count;
        match self.pieces.back_mut() {
            Some(Piece::Own(bytes)) => *bytes += count,
            _ => self.pieces.push_back(Piece::Own(count)),
        }
    }

    /// Appends all frames of `block` without copying them.
    pub(super) fn push_block(&mut self, block: &Arc<Block>) {
        self.bytes += block.bytes.len();
        self.pieces.push_back(Piece::Shared(Arc::clone(block)));
    }

    /// Appends all of `later`, of which nothing may have been sent.
    pub(super) fn append(&mut self, mut later: Self) {
        let start = self.own.len();
        self.own.append(&mut later.own);
        self.own_ends.extend(later.own_ends.iter().map(|end| start + end));
        self.pieces.append(&mut later.pieces);
        self.bytes += later.bytes;
    }

    /// Puts the first pieces into `slices`, in order, and says how many.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut shared_head = self.shared_head;
        let mut own_head = self.own_head;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            let bytes = match piece {
                // Only the first piece has a part that was sent.
                Piece::Shared(block) => &block.bytes[mem::take(&mut shared_head)..],
                Piece::Own(bytes) => {
                    let start = own_head;
                    own_head += bytes;
                    &self.own[start..own_head]
                }
            };
            *slice = IoSlice::new(bytes);
        }
        self.pieces.len().min(SLICES_MAX)
    }

    /// Notes that the first `count` bytes have left.
    pub(super) fn advance(&mut self, mut count: usize) {
        if count >= self.bytes {
            return self.clear();
        }
        self.bytes -= count;
        while count > 0 {
            let Some(piece) = self.pieces.front_mut() else { break };
            let (taken, is_empty) = match piece {
                Piece::Shared(block) => {
                    let taken = count.min(block.bytes.len() - self.shared_head);
                    self.shared_head += taken;
                    self.mid_frame = block.ends.binary_search(&self.shared_head).is_err();
                    (taken, self.shared_head == block.bytes.len())
                }
                Piece::Own(bytes) => {
                    let taken = count.min(*bytes);
                    *bytes -= taken;
                    let is_empty = *bytes == 0;
                    self.advance_own(taken);
                    (taken, is_empty)
                }
            };
            if is_empty {
                self.pieces.pop_front();
                self.shared_head = 0;
            }
            count -= taken;
        }
    }

    fn advance_own(&mut self, count: usize) {
        self.own_head += count;
        // A frame that ends exactly here is done; with one more before it we stand between two.
        let mut last_end = None;
        while self.own_ends.front().is_some_and(|end| *end <= self.own_head) {
            last_end = self.own_ends.pop_front();
        }
        self.mid_frame = last_end != Some(self.own_head);
    }

    /// Moves whole frames of about `bytes_max` bytes into `chunk`, at least one; of the first, what has not left.
    pub(super) fn take_frames(&mut self, chunk: &mut Vec<u8>, bytes_max: usize) {
        while let Some((frames, rest)) = self.first_frames(bytes_max.saturating_sub(chunk.len())) {
            if !chunk.is_empty() && chunk.len() + frames > bytes_max {
                break;
            }
            chunk.extend_from_slice(&rest[..frames]);
            self.advance(frames);
        }
        self.compact();
    }

    /// How long the whole frames at the beginning of the first piece are that fit `bytes_max`, or the first one if none
    /// does; and the piece.
    fn first_frames(&self, bytes_max: usize) -> Option<(usize, &[u8])> {
        match self.pieces.front()? {
            Piece::Shared(block) => {
                let head = self.shared_head;
                let first = block.ends.partition_point(|end| *end <= head);
                let fitting = block.ends.partition_point(|end| *end <= head + bytes_max);
                let end = block.ends.get(first.max(fitting.saturating_sub(1)))?;
                Some((end - head, &block.bytes[head..]))
            }
            Piece::Own(bytes) => {
                let limit = self.own_head + bytes_max.min(*bytes);
                let fitting = self.own_ends.partition_point(|end| *end <= limit);
                let end = self.own_ends.get(fitting.saturating_sub(1))?;
                Some((end - self.own_head, &self.own[self.own_head..]))
            }
        }
    }

    /// Gives sent bytes of the own buffer back once they are half of it, so that each byte is moved at most once on
    /// average.
    pub(super) fn compact(&mut self) {
        if self.own_head > self.own.len() / 2 {
            let head = mem::take(&mut self.own_head);
            self.own.drain(..head);
            self.own_ends.iter_mut().for_each(|end| *end -= head);
            self.own.shrink_to(2 * self.own.len());
        }
    }

    /// Drops what has not begun to leave.
    pub(super) fn cut(&mut self) {
        let rest = match self.first_frames(0) {
            Some((frame, rest)) if self.mid_frame => rest[..frame].to_vec(),
            _ => Vec::new(),
        };
        self.clear();
        if !rest.is_empty() {
            self.mid_frame = true;
            self.bytes = rest.len();
            self.pieces.push_back(Piece::Own(rest.len()));
            self.own_ends.push_back(rest.len());
            self.own = rest;
        }
    }

    /// Forgets everything that waits, and gives large buffers back.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.own.clear();
        self.own_ends.clear();
        (self.shared_head, self.own_head, self.bytes, self.mid_frame) = (0, 0, 0, false);
        if self.pieces.capacity() > IDLE_ENTRIES_MAX {
            self.pieces = VecDeque::new();
        }
        if self.own.capacity() > IDLE_BYTES_MAX {
            self.own = Vec::new();
        }
        if self.own_ends.capacity() > IDLE_ENTRIES_MAX {
            self.own_ends = VecDeque::new();
        }
    }

    /// How much room it holds when nothing waits, in bytes and entries.
    #[cfg(test)]
    pub(super) fn capacities(&self) -> (usize, usize) {
        (self.own.capacity(), self.pieces.capacity().max(self.own_ends.capacity()))
    }
}

#[cfg(test)]
mod tests;
