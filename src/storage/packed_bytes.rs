//! Many bytes in little memory: compressed as they are written, unpacked as they are read.
//!
//! ```text
//!   write ──▶ 64 KiB, full: compressed │ compressed │ … │ the last ones, as they are        read ◀── a piece at a time
//! ```
//!
//! A snapshot's state is such: at no time is all of it there unpacked. JSON lines of chats take a quarter to a seventh of the room that
//! way. Most of it is never read again: it is there for followers that need it.

use std::io::{self, BufRead, Read, Write};

/// How much is compressed together, in bytes: as far back as LZ4 looks for repeats.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes, compressed piece by piece; see the module. Writing to it never fails.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedBytes {
    /// All full.
    pieces: Vec<Box<[u8]>>,
    /// What is no full piece yet.
    last: Vec<u8>,
    crc: u32,
}

impl PackedBytes {
    /// The same `bytes`, compressed.
    pub fn new(bytes: &[u8]) -> Self {
        let mut packed = Self::default();
        packed.push(bytes);
        packed
    }

    /// Appends `bytes`.
    pub fn push(&mut self, mut bytes: &[u8]) {
        let mut crc = crc32fast::Hasher::new_with_initial(self.crc);
        crc.update(bytes);
        self.crc = crc.finalize();
        while let Some((now, later)) = bytes.split_at_checked(PIECE_BYTES - self.last.len()) {
            self.last.extend_from_slice(now);
            self.pieces.push(lz4_flex::block::compress(&self.last).into_boxed_slice());
            self.last.clear();
            bytes = later;
        }
        self.last.extend_from_slice(bytes);
    }

    /// How many bytes they are when they are unpacked.
    pub fn len(&self) -> usize {
        self.pieces.len() * PIECE_BYTES + self.last.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their CRC-32.
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// Those from `offset` on, `len` at most.
    pub fn get(&self, offset: usize, len: usize) -> Vec<u8> {
        let end = offset.saturating_add(len).min(self.len());
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset));
        let mut piece = Vec::new();
        for at in offset / PIECE_BYTES..end.div_ceil(PIECE_BYTES) {
            let first = at * PIECE_BYTES;
            let here = offset.saturating_sub(first)..(end - first).min(PIECE_BYTES);
            self.unpack(at, &mut piece);
            bytes.extend_from_slice(piece.get(here).unwrap_or_default());
        }
        bytes
    }

    /// All of them, in order.
    pub fn reader(&self) -> PackedReader<'_> {
        PackedReader { bytes: self, next: 0, piece: Vec::new(), read: 0 }
    }

    /// Makes `piece` the one at `at`; empty behind the last one.
    fn unpack(&self, at: usize, piece: &mut Vec<u8>) {
        let Some(packed) = self.pieces.get(at) else {
            piece.clear();
            if at == self.pieces.len() {
                piece.extend_from_slice(&self.last);
            }
            return;
        };
        piece.resize(PIECE_BYTES, 0);
        // It never left this memory since it was packed.
        lz4_flex::block::decompress_into(packed, piece).expect("a piece unpacks");
    }
}

impl Write for PackedBytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads [`PackedBytes`] and has one piece of them unpacked. Never fails.
#[derive(Debug)]
pub struct PackedReader<'a> {
    bytes: &'a PackedBytes,
    /// The piece to unpack next.
    next: usize,
    piece: Vec<u8>,
    /// How much of `piece` was read.
    read: usize,
}

impl BufRead for PackedReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.read >= self.piece.len() {
            self.bytes.unpack(self.next, &mut self.piece);
            (self.next, self.read) = (self.next + 1, 0);
        }
        Ok(self.piece.get(self.read..).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.read += amount;
    }
}

impl Read for PackedReader<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(to)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(count: u32) -> Vec<u8> {
        (0..count).flat_map(|n| (n / 7).to_le_bytes()).collect()
    }

    #[test]
    fn each_part_comes_out_as_it_was() {
        let bytes = some(200_000);
        let packed = PackedBytes::new(&bytes);
        assert_eq!((packed.len(), packed.crc()), (bytes.len(), crc32fast::hash(&bytes)));
        assert!(packed.pieces.iter().map(|piece| piece.len()).sum::<usize>() < bytes.len() / 2);
        for offset in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 300_000, bytes.len() - 1, bytes.len()] {
            for len in [0, 1, 2, PIECE_BYTES, 3 * PIECE_BYTES + 5, usize::MAX] {
                let end = offset.saturating_add(len).min(bytes.len());
                assert!(packed.get(offset, len) == bytes[offset..end], "{len} from {offset}");
            }
        }
        assert!(packed.get(bytes.len() + 1, 7).is_empty());
        assert!(PackedBytes::default().get(0, 7).is_empty());
    }

    #[test]
    fn however_it_is_written_it_is_the_same_and_is_read_in_order() {
        for count in [0, 1, PIECE_BYTES / 4, PIECE_BYTES / 4 + 1, 50_000] {
            let bytes = some(count as u32);
            let at_once = PackedBytes::new(&bytes);
            let mut bit_by_bit = PackedBytes::default();
            for part in bytes.chunks(777) {
                bit_by_bit.write_all(part).unwrap();
            }
            assert!(bit_by_bit == at_once, "{count}");
            let mut read = Vec::new();
            at_once.reader().read_to_end(&mut read).unwrap();
            assert!(read == bytes, "{count}");
            let by_lines = at_once.reader().split(0).map(|line| line.unwrap().len() + 1).sum();
            assert!((bytes.len()..=bytes.len() + 1).contains(&by_lines), "{count}");
        }
    }
}
