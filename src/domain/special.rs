//! Where a JSON string ends, or is more than its bytes.
//!
//! A text that is parsed or written without a copy has to be looked at byte by byte for three things: the quote that ends
//! it, the backslash of an escape, and control characters, which have to be escaped. Eight bytes are looked at in one step.

/// A one in each byte.
const ONES: u64 = u64::MAX / 0xff;

/// Where the first quote, backslash or control character (RFC 8259, section 7) stands in `text`.
pub(super) fn first_special(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(bytes) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let found = specials(u64::from_le_bytes(*bytes));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += bytes.len();
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    text[at..].iter().position(is_special).map(|behind| at + behind)
}

/// The highest bit of each of the eight `bytes` that [`first_special`] looks for. That of one behind the first may be wrong.
fn specials(bytes: u64) -> u64 {
    // A byte borrows from the one above it, and gets its highest bit, only when it is less than what is subtracted.
    let below = |bytes: u64, limit: u8| bytes.wrapping_sub(ONES * u64::from(limit)) & !bytes;
    let is_not = |byte: u8| bytes ^ (ONES * u64::from(byte));
    let found = below(bytes, b' ') | below(is_not(b'"'), 1) | below(is_not(b'\\'), 1);
    found & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_special_byte_is_found(
            text in proptest::collection::vec(
                prop_oneof![9 => 0x20u8..0x7f, 1 => any::<u8>(), 1 => Just(b'\\')], 0..40,
            ),
        ) {
            let wanted = text.iter().position(|byte| *byte < b' ' || b"\"\\".contains(byte));
            prop_assert_eq!(first_special(&text), wanted);
        }
    }
}
