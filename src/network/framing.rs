//! Where one message ends and the next begins in a stream of bytes.
//!
//! The first byte of a connection tells which of two framings it speaks, so that `nc` and a library can use
//! the same port:
//!
//! ```text
//!    '{'           {"type":"STATUS"}\n{"type":…}\n          JSON lines
//!    below 0x20    00 00 00 11 {"type":"STATUS"} 00 …       4-byte big-endian length, then JSON
//!    other         INVALID_FRAMING, answered as a JSON line
//! ```
//!
//! A [`Decoder`] takes bytes as they come and gives messages. It is pure: whoever owns the socket reads into
//! [`Decoder::space`] and says how much with [`Decoder::filled`]. The buffer grows while reads fill it and for a frame
//! that needs it, never before the bytes of that frame are there. A decoder [at rest](Decoder::is_at_rest) has none.

use super::batch::Batch;
use crate::domain::Message;
use crate::error::RequestError;

/// Longest frame unless a setting says otherwise, in bytes of JSON.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// What a decoder of an idle connection offers for a read, in bytes.
const WINDOW_BYTES_MIN: usize = 1024;
/// How much is read at once for a decoder that [is at rest](Decoder::is_at_rest), in bytes.
pub const SMALL_READ_BYTES: usize = WINDOW_BYTES_MIN;
/// What a decoder of a busy connection offers for a read, in bytes; more brought nothing when measured.
const WINDOW_BYTES_MAX: usize = 64 * 1024;
/// The window shrinks to the least after so many reads in a row that a quarter of it would have held. It grows fast
/// again; a client that falls silent after much talk reads nothing but a HEARTBEAT every 10 s.
const SMALL_READS_MAX: u32 = 16;
/// Bytes of the length before a frame.
pub(super) const PREFIX_BYTES: usize = 4;

/// How messages are told apart on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON object a line; the line ends with `\n`, or `\r\n`.
    Lines,
    /// Four bytes of length, big-endian, then so many bytes of JSON.
    LengthPrefixed,
}

impl Framing {
    /// What a connection speaks whose first byte is `first_byte`.
    pub fn from_first_byte(first_byte: u8) -> Result<Self, RequestError> {
        match first_byte {
            b'{' => Ok(Self::Lines),
            0..0x20 => Ok(Self::LengthPrefixed),
            _ => Err(RequestError::InvalidFraming { first_byte }),
        }
    }

    /// How many bytes a frame with a `body_bytes` long body takes.
    pub fn framed_bytes(self, body_bytes: usize) -> usize {
        match self {
            Self::Lines => body_bytes + 1,
            Self::LengthPrefixed => PREFIX_BYTES + body_bytes,
        }
    }

    /// Appends the frame that holds `body`, one JSON object, to `out`.
    pub fn put(self, body: &[u8], out: &mut Vec<u8>) {
        out.reserve(self.framed_bytes(body.len()));
        match self {
            Self::Lines => {
                let start = out.len();
                out.extend_from_slice(body);
                // Contents pass through as their sender wrote them, with line breaks between tokens perhaps. Inside
                // a JSON string a line break is escaped, so a bare one means no more than a space.
                for byte in &mut out[start..] {
                    // Written whether it changes or not: so the processor takes many at once.
                    *byte = if *byte == b'\n' { b' ' } else { *byte };
                }
                out.push(b'\n');
            }
            Self::LengthPrefixed => {
                out.extend_from_slice(&Self::prefix(body.len()));
                out.extend_from_slice(body);
            }
        }
    }

    /// What stands before a body of `body_bytes` bytes in a length-prefixed frame.
    pub(super) fn prefix(body_bytes: usize) -> [u8; PREFIX_BYTES] {
        // A body of 4 GiB is far over every frame limit; it would be refused by its receiver.
        u32::try_from(body_bytes).unwrap_or(u32::MAX).to_be_bytes()
    }
}

/// Bytes in, messages out.
///
/// ```
/// use roundtable::network::framing::{Decoder, FRAME_BYTES_MAX};
///
/// let mut decoder = Decoder::new(FRAME_BYTES_MAX);
/// decoder.push(b"{\"type\":\"STATUS\"}\n{\"type\":\"CH");
/// assert_eq!(decoder.next_message().unwrap().unwrap().message_type.as_str(), "STATUS");
/// assert!(decoder.next_message().is_none(), "the second line is not whole yet");
/// ```
#[derive(Debug)]
pub struct Decoder {
    bytes_max: usize,
    /// `None` until the first byte.
    framing: Option<Framing>,
    /// What was read and not yet taken is `buffer[start..end]`; the rest is room.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// So many bytes from `start` are known to hold no line end.
    scanned: usize,
    /// How much room the next read is offered.
    window: usize,
    small_reads: u32,
    /// After an error that closes nothing more is understood.
    failed: bool,
}

impl Decoder {
    /// From now on refuses frames whose body is longer than `bytes_max` bytes.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// A decoder that refuses frames whose body is longer than `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            framing: None,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            scanned: 0,
            window: WINDOW_BYTES_MIN,
            small_reads: 0,
            failed: false,
        }
    }

    /// What the connection speaks; `None` before its first byte, and when that byte fits neither framing.
    pub fn framing(&self) -> Option<Framing> {
        self.framing
    }

    /// Like [`framing`](Self::framing), and looks at the first byte when it is here but was not looked at yet.
    pub(super) fn sniff(&self) -> Option<Framing> {
        let first_byte = self.buffer[self.start..self.end].first();
        self.framing.or_else(|| Framing::from_first_byte(*first_byte?).ok())
    }

    /// How many bytes wait here for the rest of their frame.
    pub fn buffered(&self) -> usize {
        self.end - self.start
    }

    /// The room that the next read may fill. Never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // A frame longer than the window: double what is there, so that the cost of copying stays in proportion
        // and nobody gets a megabyte for announcing one.
        let room = self.window.max(self.end);
        let wanted = self.end + room;
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        } else if self.end == 0 && self.buffer.len() > room {
            self.buffer.truncate(room);
            self.buffer.shrink_to_fit();
        }
        let end = self.end + room;
        &mut self.buffer[self.end..end]
    }

    /// Whether nothing is here and little came lately. Then it has no buffer, and it is best to read up to
    /// [`SMALL_READ_BYTES`] elsewhere, for [`push`](Self::push).
    pub fn is_at_rest(&self) -> bool {
        self.buffer.is_empty() && self.window == WINDOW_BYTES_MIN
    }

    /// Says that a read put `count` bytes at the beginning of [`space`](Self::space).
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
        if count >= self.window {
            self.window = (self.window * 4).min(WINDOW_BYTES_MAX);
            self.small_reads = 0;
        } else if count > self.window / 4 {
            self.small_reads = 0;
        } else {
            self.small_reads += 1;
            if self.small_reads >= SMALL_READS_MAX {
                self.window = WINDOW_BYTES_MIN;
                self.small_reads = 0;
            }
        }
    }

    /// Takes in `bytes` from elsewhere than a socket.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if self.is_at_rest() {
            let count = bytes.len().min(SMALL_READ_BYTES);
            // No longer than that: what is freed stays with its thread, for the next one of that size.
            self.buffer = bytes[..count].to_vec();
            self.filled(count);
            bytes = &bytes[count..];
        }
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filled(count);
            bytes = &bytes[count..];
        }
    }

    /// Takes `count` bytes as they are, past the framing; `None` while fewer are here.
    pub fn take_raw(&mut self, count: usize) -> Option<Vec<u8>> {
        let bytes = self.buffer[self.start..self.end].get(..count)?.to_vec();
        self.consume(count);
        Some(bytes)
    }

    /// The next message, or what is wrong with it; `None` until more bytes come. After an error that
    /// [closes](RequestError::closes) it is always `None`.
    pub fn next_message(&mut self) -> Option<Result<Message, RequestError>> {
        let item = self.next_frame(Message::decode)?.and_then(|decoded| decoded);
        self.failed = item.as_ref().is_err_and(RequestError::closes);
        Some(item)
    }

    /// [`next_message`](Self::next_message), appended to `batch`. False when there is none.
    pub fn next_into(&mut self, batch: &mut Batch) -> bool {
        match self.next_frame(|frame| batch.decode(frame)) {
            None => return false,
            Some(Ok(())) => {}
            Some(Err(error)) => batch.push(Err(error)),
        }
        self.failed = batch.closing_fault().is_some();
        true
    }

    /// What `decode` makes of the next frame, or why there will be none.
    fn next_frame<T>(
        &mut self,
        decode: impl FnOnce(&[u8]) -> T,
    ) -> Option<Result<T, RequestError>> {
        if self.failed {
            self.consume(self.buffered());
            return None;
        }
        let first_byte = *self.buffer[self.start..self.end].first()?;
        let framing = match self.framing.map_or_else(|| Framing::from_first_byte(first_byte), Ok) {
            Ok(framing) => framing,
            Err(error) => return Some(Err(error)),
        };
        self.framing = Some(framing);
        match framing {
            Framing::Lines => self.next_line(decode),
            Framing::LengthPrefixed => self.next_prefixed(decode),
        }
    }

    fn next_line<T>(&mut self, decode: impl FnOnce(&[u8]) -> T) -> Option<Result<T, RequestError>> {
        if self.scanned == 0 {
            let pending = &self.buffer[self.start..self.end];
            let blank = pending.iter().take_while(|c| c.is_ascii_whitespace()).count();
            self.consume(blank);
        }
        let pending = &self.buffer[self.start..self.end];
        let found = pending[self.scanned..].iter().position(|c| *c == b'\n');
        let line = &pending[..found.map_or(pending.len(), |at| self.scanned + at)];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.bytes_max {
            return Some(Err(self.too_long(line.len())));
        }
        let Some(at) = found else {
            self.scanned = pending.len();
            return None;
        };
        let item = decode(line);
        self.consume(self.scanned + at + 1);
        Some(Ok(item))
    }

    fn next_prefixed<T>(
        &mut self,
        decode: impl FnOnce(&[u8]) -> T,
    ) -> Option<Result<T, RequestError>> {
        let (prefix, rest) =
            self.buffer[self.start..self.end].split_first_chunk::<PREFIX_BYTES>()?;
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > self.bytes_max {
            return Some(Err(self.too_long(length)));
        }
        let item = decode(rest.get(..length)?);
        self.consume(PREFIX_BYTES + length);
        Some(Ok(item))
    }

    fn too_long(&self, bytes: usize) -> RequestError {
        RequestError::FrameTooLong { bytes, bytes_max: self.bytes_max }
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.scanned = 0;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.window == WINDOW_BYTES_MIN {
                self.buffer = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests;
