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
    /// How many of the first piece are released.
    released: usize,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Piece {
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
        self.len
    }

    /// Appends `text`.
    pub(super) fn push(&mut self, text: &[u8]) {
        if self.pieces.back().is_none_or(|piece| piece.bytes.len() >= PIECE_BYTES) {
            // What was needed before will be needed again; a room where little is said begins small.
            let is_first = self.pieces.is_empty();
            let capacity = if is_first { text.len() } else { PIECE_BYTES + text.len() };
            self.pieces.push_back(Piece { bytes: Vec::with_capacity(capacity), ends: Vec::new() });
        }
        if let Some(piece) = self.pieces.back_mut() {
            piece.bytes.extend_from_slice(text);
            piece.ends.push(piece.bytes.len());
            self.len += 1;
        }
    }

    /// The text `index`, counted from the first that is not released.
    pub(super) fn get(&self, index: usize) -> Option<&[u8]> {
        let mut index = index + self.released;
        for piece in &self.pieces {
            if index < piece.ends.len() {
                return piece.get(index);
            }
            index -= piece.ends.len();
        }
        None
    }

    /// Lets the first `count` go, or all.
    pub(super) fn release(&mut self, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        self.released += count;
        while let Some(piece) = self.pieces.front().filter(|p| p.ends.len() <= self.released) {
            self.released -= piece.ends.len();
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
