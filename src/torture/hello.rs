//! Who dials: the first frame of a connection says it, if a server does.

use std::io::{self, Read};
use std::net::TcpStream;

use crate::domain::content::Hello;
use crate::domain::{Message, MessageType};

/// The longest first frame that is taken for a HELLO.
const HELLO_BYTES_MAX: u32 = 1 << 20;

/// Reads the first frame as it is, and the index of the server that says HELLO in it; a client says none.
pub(super) fn read_first(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Option<usize>)> {
    let mut bytes = vec![0; 1];
    stream.read_exact(&mut bytes)?;
    if bytes[0] >= b' ' {
        return Ok((bytes, None));
    }
    bytes.resize(4, 0);
    stream.read_exact(&mut bytes[1..])?;
    let length = bytes.first_chunk().map_or(0, |prefix| u32::from_be_bytes(*prefix));
    if length > HELLO_BYTES_MAX {
        return Ok((bytes, None));
    }
    let start = bytes.len();
    bytes.resize(start + length as usize, 0);
    stream.read_exact(&mut bytes[start..])?;
    let index = Message::decode(&bytes[start..]).ok().as_ref().and_then(dialler);
    Ok((bytes, index))
}

/// The index of the server that says HELLO in `msg`: 0 for `n1`.
fn dialler(msg: &Message) -> Option<usize> {
    if msg.message_type != MessageType::Hello {
        return None;
    }
    let hello: Hello = msg.content.parse().ok()?;
    let number: usize = hello.id.as_str().strip_prefix('n')?.parse().ok()?;
    number.checked_sub(1)
}
