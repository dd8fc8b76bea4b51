//! The last texts of a long row, in large pieces of memory.
//!
//! ```text
//!   released  [ – – t t t t ]  [ t t t t t ]  [ t t         ]
//!                              └ a piece of about 64 KiB     └ the next one goes here
//! ```
//!
//! A piece of memory for each text would be as long-lived, and be freed by another thread than the one that asked for it:
//! that is what the allocator is slowest at.

use std::collections::VecDeque;

/// A piece takes no further text when it is so long, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// Texts that are appended at one end and released at the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Texts {
    pieces: VecDeque<Piece>,
    /// How many there ever were, and how many of these are released.
    pushed: usize,
    released: usize,
}

#[derive(Clone, Debug, Default)]
struct Piece {
    /// Which of all that there ever were is its first text.
    first: usize,
    bytes: Vec<u8>,
    /// Where each text ends in `bytes`.
    ends: Vec<usize>,
}

impl Piece {
    fn get(&self, index: usize) -> Option<&[u8]> {
        let start =
            index.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.bytes.get(start..*self.ends.get(index)?)
    }
}

impl Texts {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pushed - self.released
    }

    /// Appends `text`.
    pub(super) fn push(&mut self, text: &[u8]) {
        if self.pieces.back().is_none_or(|piece| piece.bytes.len() >= PIECE_BYTES) {
            // What was needed before will be needed again; a room where little is said begins small.
            let is_first = self.pieces.is_empty();
            let capacity = if is_first { text.len() } else { PIECE_BYTES + text.len() };
            let bytes = Vec::with_capacity(capacity);
            self.pieces.push_back(Piece { first: self.pushed, bytes, ends: Vec::new() });
        }
        if let Some(piece) = self.pieces.back_mut() {
            piece.bytes.extend_from_slice(text);
            piece.ends.push(piece.bytes.len());
            self.pushed += 1;
        }
    }

    /// The text `index`, counted from the first that is not released.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let index = index + self.released;
        let after = match self.pieces.back() {
            // The newest are asked for all the time.
            Some(last) if last.first <= index => self.pieces.len(),
            _ => self.pieces.partition_point(|piece| piece.first <= index),
        };
        let piece = self.pieces.get(after.checked_sub(1)?)?;
        piece.get(index - piece.first)
    }

    /// Lets the first `count` go, or all.
    pub(super) fn release(&mut self, count: usize) {
        self.released += count.min(self.len());
        while let Some(piece) = self.pieces.front()
            && piece.first + piece.ends.len() <= self.released
        {
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_back_as_they_were_until_they_are_released() {
        let text =
            |number: usize| format!("{number:0width$}", width = number * 37 % 5000).into_bytes();
        let mut texts = Texts::default();
        for number in 0..200 {
            texts.push(&text(number));
        }
        assert!(texts.pieces.len() > 3);
        for released in [0, 1, 60, 0, 138, 9] {
            let first = 200 - texts.len() + released.min(texts.len());
            texts.release(released);
            assert_eq!(texts.len(), 200 - first);
            for number in first..200 {
                assert_eq!(texts.get(number - first), Some(&*text(number)));
            }
            assert_eq!(texts.get(200 - first), None);
        }
        assert!(texts.pieces.is_empty());
        texts.push(b"again");
        assert_eq!(texts.get(0), Some(&b"again"[..]));
    }
}
