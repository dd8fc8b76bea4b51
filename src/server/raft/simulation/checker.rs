//! The properties of Figure 3, as they show from outside.

use super::machine::State;
use super::*;

/// Everything that was ever seen.
#[derive(Debug, Default)]
pub(super) struct Checker {
    /// Term to leader.
    leaders: BTreeMap<u64, Incarnation>,
    /// (place, term) to (the term before, the entry).
    entries: BTreeMap<(Seq, u64), (Option<u64>, Entry)>,
    /// Place to (term of the entry, term in which it was first seen committed).
    committed: BTreeMap<Seq, (u64, u64)>,
    /// Place to the state after it.
    states: BTreeMap<Seq, State>,
}

impl Checker {
    /// The last place that was ever committed.
    pub(super) fn committed(&self) -> Seq {
        self.committed.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Looks at `node` after a step; `before` is where its log ended and its commit index before. True when it was elected.
    pub(super) fn check(
        &mut self,
        node: &RaftNode,
        before: (Option<Term>, Seq, Seq),
    ) -> Result<bool, String> {
        if (node.log.last_term(), node.log.last()) != (before.0.as_ref(), before.1) {
            self.log_matching(node)?;
        }
        if node.commit_index > before.2 {
            self.commitment(node, before.2)?;
        }
        if node.is_leader() { self.election(node) } else { Ok(false) }
    }

    /// Log matching: an entry is the same wherever it stands, and so is the one before it.
    fn log_matching(&mut self, node: &RaftNode) -> Result<(), String> {
        for seq in node.log.base() + 1..=node.log.last() {
            let entry = node.log.read(seq).ok_or("a gap in a log")?;
            let term = node.term_number(seq).unwrap_or(0);
            let prev = node.term_number(seq - 1);
            let known = self.entries.entry((seq, term)).or_insert_with(|| (prev, entry.clone()));
            if known.0 != prev || known.1 != entry {
                return Err(format!("log matching: {seq} of term {term} on {}", node.id));
            }
        }
        Ok(())
    }

    fn commitment(&mut self, node: &RaftNode, from: Seq) -> Result<(), String> {
        if node.commit_index > node.log.last() {
            return Err(format!("state machine safety: {} commits what it does not have", node.id));
        }
        for seq in from.max(node.log.base()) + 1..=node.commit_index {
            let term = node.term_number(seq).unwrap_or(0);
            let known = self.committed.entry(seq).or_insert((term, node.current_term));
            if known.0 != term {
                return Err(format!(
                    "state machine safety: {seq} was committed with term {}, on {} with {term}",
                    known.0, node.id
                ));
            }
            known.1 = known.1.min(node.current_term);
        }
        Ok(())
    }

    /// Election safety, and leader completeness at the moment of the election.
    fn election(&mut self, node: &RaftNode) -> Result<bool, String> {
        let term = node.current_term;
        if let Some(known) = self.leaders.get(&term) {
            return if *known == node.incarnation {
                Ok(false)
            } else {
                Err(format!("election safety: {known} and {} lead in term {term}", node.id))
            };
        }
        self.leaders.insert(term, node.incarnation.clone());
        for (seq, (of_term, in_term)) in self.committed.range(node.log.base() + 1..) {
            if *in_term < term && node.term_number(*seq) != Some(*of_term) {
                return Err(format!(
                    "leader completeness: {} leads in term {term} without {seq} of term {of_term}",
                    node.id
                ));
            }
        }
        Ok(true)
    }

    /// State machine safety: the same state after the same place.
    pub(super) fn applied(&mut self, id: &NodeId, state: State) -> Result<(), String> {
        let known = self.states.entry(state.seq).or_insert(state);
        if *known == state {
            Ok(())
        } else {
            Err(format!("state machine safety: {id} is in another state after {}", state.seq))
        }
    }
}
