//! Who takes part, as the log says it: every MEMBERS entry counts from the moment it is appended (thesis 4.1).

use crate::domain::raft_content::Configuration;
use crate::domain::{Message, MessageType};
use crate::server::total_order::Seq;

/// The configurations of the log, each with the place of its entry.
#[derive(Debug, Default)]
pub(super) struct Configurations {
    history: Vec<(Seq, Configuration)>,
    none: Configuration,
}

impl Configurations {
    /// The latest one, committed or not; empty before the first.
    pub(super) fn latest(&self) -> &Configuration {
        self.history.last().map_or(&self.none, |(_, configuration)| configuration)
    }

    /// Where the latest one stands; 0 before the first.
    pub(super) fn latest_seq(&self) -> Seq {
        self.history.last().map_or(0, |(seq, _)| *seq)
    }

    /// Those that may hold when everything up to `commit_index` is committed: the latest, and while that one is not
    /// committed the one before it.
    pub(super) fn possible(&self, commit_index: Seq) -> impl Iterator<Item = &Configuration> {
        let open = if self.latest_seq() > commit_index { 2 } else { 1 };
        self.history.iter().rev().take(open).map(|(_, configuration)| configuration)
    }

    /// The one that holds at `seq`.
    pub(super) fn at(&self, seq: Seq) -> &Configuration {
        let before = self.history.iter().rev().find(|(place, _)| *place <= seq);
        before.map_or(&self.none, |(_, configuration)| configuration)
    }

    /// Takes note of an entry. One that cannot be read changes nothing, on any server.
    pub(super) fn appended(&mut self, entry: &Message) {
        if entry.message_type != MessageType::Members {
            return;
        }
        if let (Some(seq), Ok(configuration)) = (entry.seq, entry.content.parse()) {
            self.history.push((seq, configuration));
        }
    }

    /// Entries after `seq` are gone.
    pub(super) fn cut_after(&mut self, seq: Seq) {
        self.history.retain(|(place, _)| *place <= seq);
    }

    /// Entries up to `seq` were forgotten, where `configuration` held.
    pub(super) fn starts_at(&mut self, seq: Seq, configuration: Configuration) {
        self.history.retain(|(place, _)| *place > seq);
        self.history.insert(0, (seq, configuration));
    }
}
