//! The network of a story: links that keep order, and that a script can hold, cut and let go.

use std::collections::BTreeSet;

use roundtable::domain::{Message, NodeId};

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    /// Who sent it.
    pub(crate) from: NodeId,
    /// Who gets it.
    pub(crate) to: NodeId,
    /// What it says.
    pub(crate) msg: Message,
}

/// Everything that is on its way, in the order in which it was sent.
#[derive(Debug, Default)]
pub(crate) struct Wires {
    flights: Vec<Flight>,
    held: BTreeSet<(NodeId, NodeId)>,
}

impl Wires {
    /// Takes a message.
    pub(crate) fn send(&mut self, from: &NodeId, to: &NodeId, msg: Message) {
        self.flights.push(Flight { from: from.clone(), to: to.clone(), msg });
    }

    /// Takes out one turn: all that is on its way now, except on held links.
    pub(crate) fn take(&mut self) -> Vec<Flight> {
        let held = &self.held;
        self.flights.extract_if(.., |f| !held.contains(&(f.from.clone(), f.to.clone()))).collect()
    }

    /// Messages on this link wait from now on.
    pub(crate) fn hold(&mut self, from: &str, to: &str) {
        self.held.insert((from.into(), to.into()));
    }

    /// They wait no longer.
    pub(crate) fn release(&mut self, from: &str, to: &str) {
        self.held.remove(&(from.into(), to.into()));
    }

    /// Loses what is on its way on links that `lost` names, held ones excepted; gives it back.
    pub(crate) fn lose(&mut self, lost: impl Fn(&Flight) -> bool) -> Vec<Flight> {
        let held = &self.held;
        let lost = |f: &mut Flight| !held.contains(&(f.from.clone(), f.to.clone())) && lost(f);
        self.flights.extract_if(.., lost).collect()
    }
}
