//! What servers say to each other, counted.

/// What went from server to server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames, each a message.
    pub messages: u64,
    /// Bytes, lengths included.
    pub bytes: u64,
}

/// Counts frames in a stream of bytes that arrives in pieces: four bytes of length, then as many of content.
#[derive(Debug, Default)]
pub(super) struct FrameCounter {
    /// How many bytes of the present frame are still to come.
    rest: u64,
    /// The bytes of a length so far.
    length: Vec<u8>,
}

impl FrameCounter {
    /// How many frames begin in `bytes`.
    pub(super) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut frames = 0;
        while !bytes.is_empty() {
            let skipped = self.rest.min(bytes.len() as u64);
            self.rest -= skipped;
            bytes = &bytes[skipped as usize..];
            let taken = bytes.len().min(4 - self.length.len());
            self.length.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let Some(length) = self.length.first_chunk::<4>() {
                self.rest = u64::from(u32::from_be_bytes(*length));
                self.length.clear();
                frames += 1;
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let mut stream = Vec::new();
        for length in [0_u32, 1, 5, 300] {
            stream.extend(length.to_be_bytes());
            stream.extend(vec![7; length as usize]);
        }
        for piece in [1, 3, 4, 7, 1000] {
            let mut counter = FrameCounter::default();
            let frames: u64 = stream.chunks(piece).map(|bytes| counter.count(bytes)).sum();
            assert_eq!((frames, counter.rest), (4, 0), "in pieces of {piece}");
        }
    }
}
