//! Lines of input, however long and of whatever bytes, in bounded memory.

use std::io::{self, BufRead, Read};

/// One line of input, without its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Text.
    Text(String),
    /// Longer than the limit; it was skipped. So many bytes it had.
    TooLong(u64),
    /// Not UTF-8; it was skipped.
    NotText,
    /// There are no more lines.
    End,
}

/// Reads one line of at most `bytes_max` bytes.
pub fn read_line(input: &mut impl BufRead, bytes_max: usize) -> io::Result<Line> {
    let mut bytes = Vec::new();
    // Two more: the end of the line does not count.
    let limit = bytes_max as u64 + 2;
    if input.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(Line::End);
    }
    let ended = bytes.last() == Some(&b'\n');
    if !ended && bytes.len() as u64 == limit {
        return Ok(Line::TooLong(bytes.len() as u64 + skip_line(input)?));
    }
    if ended {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.len() > bytes_max {
        return Ok(Line::TooLong(bytes.len() as u64));
    }
    Ok(String::from_utf8(bytes).map_or(Line::NotText, Line::Text))
}

/// Skips the rest of a line. Says how many bytes it had.
fn skip_line(input: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let count = end.unwrap_or(buffer.len());
        let done = end.is_some() || buffer.is_empty();
        skipped += count as u64;
        input.consume(count + usize::from(end.is_some()));
        if done {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], bytes_max: usize) -> Vec<Line> {
        let mut input = io::BufReader::with_capacity(3, input);
        let next = || read_line(&mut input, bytes_max).ok().filter(|line| *line != Line::End);
        std::iter::from_fn(next).collect()
    }

    fn text(text: &str) -> Line {
        Line::Text(text.into())
    }

    #[test]
    fn lines_come_verbatim_without_their_ends() {
        let lines = all("/quit\n\n  a b \r\nlast, unended \u{e9}".as_bytes(), 100);
        let expected = [text("/quit"), text(""), text("  a b "), text("last, unended \u{e9}")];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_and_the_next_one_is_read() {
        let lines = all(b"12345\n123456\n1234567890\n\xff\xfe\nok\n", 5);
        let expected =
            [text("12345"), Line::TooLong(6), Line::TooLong(10), Line::NotText, text("ok")];
        assert_eq!(lines, expected);
        assert_eq!(all(b"1234567890", 5), [Line::TooLong(10)]);
    }
}
