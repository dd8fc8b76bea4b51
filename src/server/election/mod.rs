//! Who leads: the trait that every election implements, and the elections.

use std::fmt::Debug;
use std::time::Instant;

use super::ServerState;
use crate::domain::{Message, NodeId, Term};
use crate::network::Transport;

pub mod hirschberg_sinclair;

pub use hirschberg_sinclair::ElectionModule;

/// An election algorithm as [`ServerNode`](crate::server::ServerNode) drives it.
///
/// It nominates; when to hold an election is the caller's decision. It keeps the last election's
/// outcome: the term, and with it the leader.
pub trait Election: Debug + Send {
    /// Steps with an ELECTION message. What cannot be read is ignored.
    fn handle_message(&mut self, msg: &Message, now: Instant, cm: &dyn Transport);

    /// Stands for election in a round higher than any heard of.
    fn start_election(&mut self, now: Instant, cm: &dyn Transport);

    /// The ring changed: these are the neighbours now (the same one twice in a ring of two, `None` alone).
    /// An election that was under way on the old ring is restarted in a higher round.
    fn ring_changed(
        &mut self,
        left: Option<&NodeId>,
        right: Option<&NodeId>,
        now: Instant,
        cm: &dyn Transport,
    );

    /// Restarts an own candidacy that got no answer in time.
    fn tick(&mut self, now: Instant, cm: &dyn Transport);

    /// Takes over the outcome `term`, heard from another server, when it is higher than the own one.
    /// True when it was.
    fn observe_term(&mut self, term: &Term) -> bool;

    /// The leader is gone: nobody is followed until the next outcome. The term stays.
    fn forget_leader(&mut self);

    /// Where this server stands.
    fn state(&self) -> ServerState;

    /// The last election that ended, as far as is known here.
    fn term(&self) -> Option<&Term>;

    /// Who leads under [`term`](Self::term), unless it was forgotten.
    fn leader(&self) -> Option<NodeId>;
}
