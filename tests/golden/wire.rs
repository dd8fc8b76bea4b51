//! What is under way between the servers of a play: links that keep order and can be stalled.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use roundtable::domain::{Message, NodeId};
use roundtable::network::transport::Outbox;

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) msg: Message,
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    under_way: VecDeque<Letter>,
    stalled: BTreeSet<(NodeId, NodeId)>,
}

impl Wire {
    /// Sends what `from` queued in `outbox`; a broadcast goes to `everyone` else. Returns the messages, each
    /// with its one receiver or `None` for all.
    pub(crate) fn send(
        &mut self,
        from: &NodeId,
        outbox: &Outbox,
        everyone: &BTreeSet<NodeId>,
    ) -> Vec<(Option<NodeId>, Message)> {
        let sent = outbox.take_to_nodes();
        for (to, msg) in &sent {
            let receivers: Vec<&NodeId> = match to {
                Some(to) => vec![to],
                None => everyone.iter().filter(|id| *id != from).collect(),
            };
            for to in receivers.into_iter().filter(|to| everyone.contains(*to)) {
                let letter = Letter { from: from.clone(), to: to.clone(), msg: msg.clone() };
                self.under_way.push_back(letter);
            }
        }
        sent
    }

    /// Takes out what arrives in the next turn: everything under way, except on stalled links.
    pub(crate) fn arrive(&mut self) -> Vec<Letter> {
        let (stalled, arriving) = std::mem::take(&mut self.under_way)
            .into_iter()
            .partition(|letter| self.is_stalled(&letter.from, &letter.to));
        self.under_way = stalled;
        Vec::from(arriving)
    }

    fn is_stalled(&self, from: &NodeId, to: &NodeId) -> bool {
        self.stalled.contains(&(from.clone(), to.clone()))
    }

    /// What is sent from `from` to `to` waits on the link until it flows again.
    pub(crate) fn stall(&mut self, from: &str, to: &str) {
        self.stalled.insert((from.into(), to.into()));
    }

    /// Ends a stall.
    pub(crate) fn flow(&mut self, from: &str, to: &str) {
        self.stalled.remove(&(from.into(), to.into()));
    }

    /// Loses what is under way from `from` to `to`.
    pub(crate) fn lose(&mut self, from: &str, to: &str) {
        self.under_way.retain(|letter| letter.from.as_str() != from || letter.to.as_str() != to);
    }

    /// Loses what is under way to a server that is gone. What it sent may still arrive.
    pub(crate) fn crash(&mut self, id: &NodeId) {
        self.under_way.retain(|letter| letter.to != *id);
    }
}

/// Reads `100ms` or `10s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let of = |unit| text.strip_suffix(unit).and_then(|number| number.parse().ok());
    of("ms")
        .map(Duration::from_millis)
        .or_else(|| of("s").map(Duration::from_secs))
        .ok_or_else(|| format!("{text} is not a duration such as 100ms or 10s"))
}
