//! Frames for many connections, in one piece of memory.
//!
//! ```text
//!   Frames  [len|{…}][len|{…}][len|{…}]   made length-prefixed: so it is sent as it is ──▶ one Block for all who speak that
//!                └──── {…}\n {…}\n {…}\n   made when the first connection asks for lines ──▶ one Block for those
//! ```
//!
//! A busy step shows hundreds of messages to the same members: a piece of memory for each took more time than to fill it.

use std::sync::Arc;

use super::framing::{Framing, PREFIX_BYTES};

/// JSON objects one after the other, each to be a frame.
#[derive(Debug, Default)]
pub struct Frames {
    prefixed: Block,
}

/// Frames one after the other, as they go over a connection. All connections that wait for them share it.
#[derive(Debug, Default)]
pub struct Block {
    /// The bytes of all of them.
    pub bytes: Vec<u8>,
    /// Where each of them ends in `bytes`.
    pub ends: Vec<usize>,
}

/// [`Frames`] to be sent, in each framing that is asked for.
#[derive(Debug)]
pub struct Blocks {
    prefixed: Arc<Block>,
    lines: Option<Arc<Block>>,
}

impl Frames {
    /// None; there is room for `count` of them, each `bytes` long.
    pub fn with_capacity(count: usize, bytes: usize) -> Self {
        let bytes = Vec::with_capacity(count * (PREFIX_BYTES + bytes));
        Self { prefixed: Block { bytes, ends: Vec::with_capacity(count) } }
    }

    /// Appends the frame that `write` appends to what it is given: one JSON object.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let Block { bytes, ends } = &mut self.prefixed;
        let start = bytes.len();
        bytes.extend_from_slice(&[0; PREFIX_BYTES]);
        write(bytes);
        let length = Framing::prefix(bytes.len() - start - PREFIX_BYTES);
        bytes[start..start + PREFIX_BYTES].copy_from_slice(&length);
        ends.push(bytes.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.prefixed.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.prefixed.ends.is_empty()
    }

    /// Their JSON objects.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.prefixed.bodies()
    }
}

impl Block {
    /// What stands in each frame, if they are length-prefixed.
    fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start + PREFIX_BYTES..*end])
    }
}

impl Blocks {
    /// Those of `frames`.
    pub fn of(frames: Frames) -> Self {
        Self { prefixed: frames.prefixed.into(), lines: None }
    }

    /// What stands in each frame.
    pub fn bodies(&self) -> impl Iterator<Item = &[u8]> {
        self.prefixed.bodies()
    }

    /// All of them in `framing`.
    pub fn framed(&mut self, framing: Framing) -> &Arc<Block> {
        match framing {
            Framing::LengthPrefixed => &self.prefixed,
            Framing::Lines => self.lines.get_or_insert_with(|| lines_of(&self.prefixed).into()),
        }
    }
}

fn lines_of(prefixed: &Block) -> Block {
    let mut lines = Block {
        bytes: Vec::with_capacity(prefixed.bytes.len()),
        ends: Vec::with_capacity(prefixed.ends.len()),
    };
    for body in prefixed.bodies() {
        Framing::Lines.put(body, &mut lines.bytes);
        lines.ends.push(lines.bytes.len());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_framings_hold_the_same_frames() {
        let bodies: [&[u8]; 3] = [b"{\"a\":1}", b"{}", b"{\"b\":\n2}"];
        let mut frames = Frames::with_capacity(1, 2);
        assert!(frames.is_empty());
        for body in bodies {
            frames.push(|out| out.extend_from_slice(body));
        }
        assert!(frames.len() == 3 && frames.iter().eq(bodies));
        let mut blocks = Blocks::of(frames);
        assert!(blocks.bodies().eq(bodies));
        for framing in [Framing::Lines, Framing::LengthPrefixed] {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for body in bodies {
                framing.put(body, &mut bytes);
                ends.push(bytes.len());
            }
            let block = blocks.framed(framing);
            assert_eq!((&block.bytes, &block.ends), (&bytes, &ends));
            assert!(Arc::ptr_eq(&block.clone(), blocks.framed(framing)), "made once");
        }
    }
}
