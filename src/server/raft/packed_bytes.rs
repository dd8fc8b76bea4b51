//! A snapshot's state at hand, compressed: it is there for followers that need it, and most never do.
//!
//! JSON lines of chats take a quarter to a seventh of the room that way. A piece is unpacked when it is sent.

/// How much is compressed together, in bytes: as far back as LZ4 looks for repeats.
const PIECE_BYTES: usize = 64 * 1024;

/// Bytes, compressed piece by piece; see the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PackedBytes {
    pieces: Vec<Box<[u8]>>,
    len: usize,
}

impl PackedBytes {
    /// The same `bytes`, compressed.
    pub(super) fn new(bytes: &[u8]) -> Self {
        let pieces = bytes.chunks(PIECE_BYTES);
        let pieces = pieces.map(|piece| lz4_flex::block::compress(piece).into_boxed_slice());
        Self { pieces: pieces.collect(), len: bytes.len() }
    }

    /// How many bytes they are when they are unpacked.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Those from `offset` on, `len` at most.
    pub(super) fn get(&self, offset: usize, len: usize) -> Vec<u8> {
        let end = offset.saturating_add(len).min(self.len);
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset));
        for at in offset / PIECE_BYTES..end.div_ceil(PIECE_BYTES) {
            let first = at * PIECE_BYTES;
            let here = offset.saturating_sub(first)..(end - first).min(PIECE_BYTES);
            bytes.extend_from_slice(self.piece(at).get(here).unwrap_or_default());
        }
        bytes
    }

    fn piece(&self, at: usize) -> Vec<u8> {
        let Some(piece) = self.pieces.get(at) else { return Vec::new() };
        let len = PIECE_BYTES.min(self.len - at * PIECE_BYTES);
        // It never left this memory since it was packed.
        lz4_flex::block::decompress(piece, len).expect("a piece unpacks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_comes_out_as_it_was() {
        let bytes: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let packed = PackedBytes::new(&bytes);
        assert_eq!(packed.len(), bytes.len());
        assert!(packed.pieces.iter().map(|piece| piece.len()).sum::<usize>() < bytes.len() / 2);
        for offset in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, 300_000, bytes.len() - 1, bytes.len()] {
            for len in [0, 1, 2, PIECE_BYTES, 3 * PIECE_BYTES + 5, usize::MAX] {
                let end = offset.saturating_add(len).min(bytes.len());
                assert!(packed.get(offset, len) == bytes[offset..end], "{len} from {offset}");
            }
        }
        assert!(packed.get(bytes.len() + 1, 7).is_empty());
        assert!(PackedBytes::new(&[]).get(0, 7).is_empty());
    }
}
