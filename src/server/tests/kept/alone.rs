//! A [`TotalOrder`] of one server that commits at once, or when the test says so.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::domain::{Message, MessageType, NodeId, Term};
use crate::error::RequestError;
use crate::server::total_order::{Entry, Seq, TotalOrder};
use crate::server::{ServerState, Step};
use crate::storage::LogIndex;

/// What the test sees and turns.
#[derive(Debug)]
pub(in crate::server) struct Controls {
    /// Whether what is placed is committed.
    pub(in crate::server) commits: bool,
    /// The term's number; 0 while nobody leads.
    pub(in crate::server) term: u64,
    /// Added to the time of every entry, in milliseconds.
    pub(in crate::server) ahead_ms: u64,
    /// Everything that was placed in this term or committed, in order.
    pub(in crate::server) entries: Vec<Entry>,
    taken: usize,
}

impl Controls {
    /// Another term begins: what is not committed is lost.
    pub(in crate::server) fn next_term(&mut self) {
        self.term += 1;
        self.entries.truncate(self.taken);
    }

    /// The types and ids of what stands in the order after the NOOP, from the `first` on, counted from 0.
    pub(in crate::server) fn tell(&self, first: usize) -> Vec<String> {
        let entries = self.entries.iter().skip(1 + first);
        let told = entries.map(|entry| format!("{} {}", entry.message_type, entry.message_id));
        told.map(|text| text.trim().to_string()).collect()
    }
}

#[derive(Debug)]
pub(in crate::server) struct Alone {
    me: NodeId,
    term: Option<Term>,
    controls: Arc<Mutex<Controls>>,
}

impl Alone {
    pub(in crate::server) fn new(me: &str) -> (Self, Arc<Mutex<Controls>>) {
        // As every leader's term does: with a NOOP, which has the first log time.
        let mut noop = Message::new(MessageType::Noop, me);
        (noop.seq, noop.timestamp) = (Some(1), Some(1));
        let entries = vec![noop.into()];
        let controls = Controls { commits: true, term: 1, ahead_ms: 0, entries, taken: 0 };
        let controls = Arc::new(Mutex::new(controls));
        let term = Some(Term { counter: 1, leader: "n1.1-0000".into() });
        (Self { me: me.into(), term, controls: Arc::clone(&controls) }, controls)
    }
}

impl TotalOrder for Alone {
    fn recover(&mut self, _record: Message) {}
    fn handle_message(&mut self, _: &NodeId, _: &Message, _: &Step) -> Result<(), RequestError> {
        Ok(())
    }
    fn tick(&mut self, _step: &Step) {
        let counter = self.controls.lock().term;
        self.term = Some(Term { counter, leader: "n1.1-0000".into() });
    }
    fn heartbeat(&mut self, _step: &Step) {}
    fn on_synced(&mut self, _index: LogIndex) {}
    fn link_up(&mut self, _node_id: &NodeId, _step: &Step) {}
    fn node_failed(&mut self, _node_id: &NodeId, _step: &Step) {}
    fn propose(&mut self, mut msg: Message, _step: &Step) -> Option<Seq> {
        let mut controls = self.controls.lock();
        let seq = controls.entries.len() as Seq + 1;
        msg.seq = Some(seq);
        msg.timestamp = msg.timestamp.map(|at| at + controls.ahead_ms);
        controls.entries.push(msg.into());
        Some(seq)
    }
    fn take_committed(&mut self) -> Vec<Entry> {
        let mut controls = self.controls.lock();
        if !controls.commits {
            return Vec::new();
        }
        let committed = controls.entries[controls.taken..].to_vec();
        controls.taken = controls.entries.len();
        committed
    }
    fn settle(&mut self, _step: &Step) {}
    fn wants_election(&self, _now: Instant) -> bool {
        false
    }
    fn resign(&mut self, _step: &Step) {}
    fn leader(&self) -> Option<NodeId> {
        (self.controls.lock().term > 0).then(|| self.me.clone())
    }
    fn term(&self) -> Option<&Term> {
        self.term.as_ref()
    }
    fn state(&self) -> ServerState {
        ServerState::Leader
    }
    fn committed(&self) -> Seq {
        self.controls.lock().taken as Seq
    }
    fn last(&self) -> Seq {
        self.controls.lock().entries.len() as Seq
    }
    fn is_voter(&self, _node_id: &NodeId) -> bool {
        true
    }
}
