//! What the demo showed, in figures: computed from what the clients were told, not from what the servers think.

use std::collections::BTreeSet;
use std::time::Duration;

use super::talker::Memory;

/// The figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages said.
    pub said: usize,
    /// Messages acknowledged.
    pub acknowledged: usize,
    /// Acknowledged messages that the late reader was not shown.
    pub lost: usize,
    /// Messages that someone was shown twice.
    pub twice: usize,
    /// The longest wait for an acknowledgement.
    pub silence: Duration,
}

impl Verdict {
    /// The figures of the `talkers`; `reader` came last, and was shown the whole past by the server that had been dead.
    pub(super) fn of(talkers: &[&Memory], reader: &Memory) -> Self {
        let own = || talkers.iter().flat_map(|memory| &memory.own);
        let acked: BTreeSet<&String> =
            own().filter(|(_, own)| own.acked.is_some()).map(|(id, _)| id).collect();
        let waits =
            own().filter_map(|(_, own)| Some(own.acked?.saturating_duration_since(own.said?)));
        let everyone = talkers.iter().copied().chain([reader]);
        let twice: BTreeSet<&String> = everyone
            .flat_map(|memory| memory.shown.iter().filter(|(_, times)| **times > 1))
            .map(|(id, _)| id)
            .collect();
        Self {
            said: own().count(),
            acknowledged: acked.len(),
            lost: acked.iter().filter(|id| !reader.shown.contains_key(**id)).count(),
            twice: twice.len(),
            silence: waits.max().unwrap_or_default(),
        }
    }

    /// Whether everything that was promised was kept.
    pub fn is_good(&self) -> bool {
        self.said > 0 && self.acknowledged == self.said && self.lost == 0 && self.twice == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::talker::Own;

    /// Someone who said `said`, of which `acked` after 5 ms each, and was shown `shown`.
    #[expect(clippy::disallowed_methods, reason = "any time will do")]
    fn memory(said: &[&str], acked: &[&str], shown: &[(&str, u32)]) -> Memory {
        let now = std::time::Instant::now();
        let own = said.iter().map(|id| {
            let acked = acked.contains(id).then(|| now + Duration::from_millis(5));
            ((*id).to_string(), Own { said: Some(now), acked })
        });
        let shown = shown.iter().map(|(id, times)| ((*id).to_string(), *times));
        Memory { own: own.collect(), shown: shown.collect(), moves: Vec::new() }
    }

    #[test]
    fn all_is_counted() {
        let alice = memory(&["a1", "a2", "a3"], &["a1", "a2"], &[("a1", 1), ("b1", 2)]);
        let bob = memory(&["b1"], &["b1"], &[("a1", 1)]);
        let reader = memory(&[], &[], &[("a1", 1), ("b1", 1), ("a3", 1)]);
        let verdict = Verdict::of(&[&alice, &bob], &reader);
        let silence = Duration::from_millis(5);
        assert_eq!(verdict, Verdict { said: 4, acknowledged: 3, lost: 1, twice: 1, silence });
        assert!(!verdict.is_good());
    }

    #[test]
    fn a_talk_without_a_word_proves_nothing() {
        assert!(!Verdict::default().is_good());
        let alice = memory(&["a1"], &["a1"], &[("a1", 1)]);
        let reader = memory(&[], &[], &[("a1", 1)]);
        assert!(Verdict::of(&[&alice], &reader).is_good());
    }
}
