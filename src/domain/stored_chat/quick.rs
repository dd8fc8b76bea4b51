//! A CHAT of the log, read in one pass without a copy: as this program writes it.
//!
//! ```text
//!   {"crc":"89abcdef","message_id":"a-1","type":"CHAT", … ,"vector_clock":{"n1.1-00ff":7}, … ,"timestamp":9}
//!    └ skipped ─────┘               └ a slice ┘ └ skipped       the entry of `origin`, which came before
//! ```
//!
//! It knows some fields, each at its place or left out, without spaces, and no escapes in a text that is wanted. So a name of a
//! field is compared, not looked for.
//!
//! It never says what is wrong with a record: whatever it does not know is left to the full parser, which may know it, or
//! find the fault and name it. So it may accept only what that one accepts, and must find the same in it.

#![allow(
    clippy::option_option,
    reason = "what is unusual, and a field that is left out, are two things"
)]

use std::borrow::Cow;

use super::{Stamp, StoredChat, Text};
use crate::domain::special::first_special;

/// More digits may not fit.
const DIGITS_MAX: usize = 19;

/// Reads `record`; `None` when there is anything unusual about it.
pub(super) fn read(record: &[u8]) -> Option<StoredChat<'_>> {
    let mut rest = Rest(std::str::from_utf8(record).ok()?);
    rest.field("{\"crc\":", Rest::skip)??;
    let message_id = rest.field(",\"message_id\":", Rest::text)?;
    rest.field(",\"type\":", Rest::skip)?;
    rest.field(",\"sender_id\":", Rest::skip)?;
    let room_id = rest.field(",\"room_id\":", Rest::text)?;
    rest.field(",\"content\":", Rest::skip)?;
    let origin = rest.field(",\"origin\":", Rest::text)?;
    let clock = rest.field(",\"vector_clock\":", |rest| rest.entry_of(origin?))?;
    let session = rest.field(",\"session\":", Rest::text)?;
    let timestamp = rest.field(",\"timestamp\":", Rest::number)?;
    if rest.0 != "}" {
        return None;
    }
    let text = |text| Text(Cow::Borrowed(text));
    Some(StoredChat {
        room_id: Cow::Borrowed(room_id.unwrap_or_default()),
        timestamp,
        message_id: Cow::Borrowed(message_id.unwrap_or_default()),
        session: session.map(text),
        origin: origin.map(text),
        vector_clock: Stamp {
            first: clock.flatten().map(|(name, count)| (Cow::Borrowed(name), count)),
            others: Vec::new(),
        },
    })
}

/// What has yet to be read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// Reads a field if `key` is next. The outer `None` says that its value is unusual.
    fn field<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Option<T>> {
        if self.take(key).is_some() { read(self).map(Some) } else { Some(None) }
    }

    fn take(&mut self, text: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    /// A text without escapes.
    fn text(&mut self) -> Option<&'a str> {
        self.take("\"")?;
        let (text, rest) = self.0.split_at_checked(first_special(self.0.as_bytes())?)?;
        self.0 = rest;
        self.take("\"").map(|()| text)
    }

    /// Skips a text, which may have escapes.
    fn skip(&mut self) -> Option<()> {
        self.take("\"")?;
        loop {
            self.0 = self.0.get(first_special(self.0.as_bytes())?..)?;
            if self.take("\"").is_some() {
                return Some(());
            }
            // A control character is an error, and the digits of a `\u` would have to be looked at.
            self.take("\\")?;
            self.0 = self.0.strip_prefix(['"', '\\', '/', 'b', 'f', 'n', 'r', 't'])?;
        }
    }

    fn number(&mut self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        let is_plain = digits == 1 || !number.starts_with('0') && digits <= DIGITS_MAX;
        is_plain.then(|| number.parse().ok()).flatten()
    }

    /// Reads a clock, and keeps the first entry of `origin`, if it has one.
    fn entry_of(&mut self, origin: &str) -> Option<Option<(&'a str, u64)>> {
        self.take("{")?;
        let mut found = None;
        loop {
            let name = self.text()?;
            self.take(":")?;
            let count = self.number()?;
            if found.is_none() && name == origin {
                found = Some((name, count));
            }
            if self.take("}").is_some() {
                return Some(found);
            }
            self.take(",")?;
        }
    }
}
