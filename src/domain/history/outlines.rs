//! What the columns will keep of messages of one room, as a part of the log is read: by a thread that has no history, and
//! does not know what comes before.
//!
//! ```text
//!   a part of the log ──▶ rows  │ origin · record · count · hash · timestamp │ …  32 bytes each, no text
//!                                                                             └──▶ appended to the columns, part after part
//! ```

use super::{Outline, hash_of_key};
use crate::domain::Incarnation;

/// Outlines of messages of one room, in the order of the log.
#[derive(Clone, Debug, Default)]
pub struct Outlines {
    /// Who stamped these; the rows name them by their number.
    pub(super) origins: Vec<Incarnation>,
    pub(super) rows: Vec<Row>,
}

/// What is kept of one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) origin: u32,
    /// Which record of the part it is, from 1.
    pub(super) record: u32,
    pub(super) count: u64,
    /// Of its key.
    pub(super) hash: u64,
    /// In milliseconds since 1970; 0 when it has none.
    pub(super) timestamp_ms: u64,
}

impl Outlines {
    /// Appends that of the message that is record `record` of the part, from 1.
    pub fn push(&mut self, outline: Outline, timestamp_ms: Option<u64>, record: u32) {
        let row = Row {
            origin: self.number_of(outline.origin),
            record,
            count: outline.count,
            hash: hash_of_key(outline.key),
            timestamp_ms: timestamp_ms.unwrap_or_default(),
        };
        self.rows.push(row);
    }

    /// Who stamped these.
    pub fn origins(&self) -> &[Incarnation] {
        &self.origins
    }

    /// The number of `origin`, a new one if need be. There are few: a search beats a map.
    fn number_of(&mut self, origin: &str) -> u32 {
        let last = self.rows.last().map(|row| row.origin);
        let is_it = |number: &u32| self.origins[*number as usize].as_str() == origin;
        if let Some(last) = last.filter(is_it) {
            return last;
        }
        let known = self.origins.iter().position(|known| known.as_str() == origin);
        let number = known.unwrap_or_else(|| {
            self.origins.push(origin.into());
            self.origins.len() - 1
        });
        number as u32
    }
}
