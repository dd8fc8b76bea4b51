//! Who leads: the trait that every election implements, and the elections.
//!
//! | `--election` | module | speaks to | messages among n servers |
//! |---|---|---|---|
//! | `hs` | [`hirschberg_sinclair`] | its neighbours on the ring | at most `8n(1 + ceil(log2 n)) + n` |
//! | `bully` | [`bully`] | everyone | `n - 1` to `n^2 - 1` |
//!
//! Both find the highest id. They do not understand each other, so HELLO refuses a mixed cluster.

use std::fmt;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use super::ServerState;
use crate::domain::{Incarnation, Message, NodeId, Term};
use crate::network::Transport;

pub mod hirschberg_sinclair;

pub mod bully;

pub use bully::BullyElection;
pub use hirschberg_sinclair::ElectionModule;

/// Rounds above this are refused: a damaged number must not use up all that come after it.
/// 2^53 is also where JSON readers of other languages lose count.
const COUNTER_MAX: u64 = 1 << 53;

/// Patience doubles at most this many times.
const DOUBLINGS_MAX: u32 = 4;

/// An election algorithm as [`ServerNode`](crate::server::ServerNode) drives it.
///
/// It nominates; when to hold an election is the caller's decision. It keeps the last election's
/// outcome: the term, and with it the leader.
pub trait Election: Debug + Send {
    /// Steps with a message of the election. What cannot be read is ignored.
    fn handle_message(&mut self, msg: &Message, now: Instant, cm: &dyn Transport);

    /// Stands for election in a round higher than any heard of.
    fn start_election(&mut self, now: Instant, cm: &dyn Transport);

    /// These servers are alive now, this one among them, in the order of the ring: the next one is a server's
    /// right neighbour, and after the last comes the first. An election that was under way and that the change
    /// concerns is restarted in a higher round.
    fn members_changed(&mut self, members: &[NodeId], now: Instant, cm: &dyn Transport);

    /// Acts on what did not come in time.
    fn tick(&mut self, now: Instant, cm: &dyn Transport);

    /// Takes over the outcome `term`, heard from another server, when it is higher than the own one.
    /// True when it was.
    fn observe_term(&mut self, term: &Term) -> bool;

    /// The leader is gone: nobody is followed until the next outcome. The term stays.
    fn forget_leader(&mut self);

    /// Where this server stands.
    fn state(&self) -> ServerState;

    /// Whether an election is under way that this server has a part in, as a candidate or by passing on what others
    /// say, and whose outcome may still come in time. Another one would only cut it short.
    fn is_under_way(&self) -> bool {
        self.state() == ServerState::ElectionInProgress
    }

    /// The last election that ended, as far as is known here.
    fn term(&self) -> Option<&Term>;

    /// Who leads under [`term`](Self::term), unless it was forgotten.
    fn leader(&self) -> Option<NodeId>;
}

/// Which election a cluster holds: `--election`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ElectionKind {
    /// Hirschberg and Sinclair's, on the ring.
    #[default]
    HirschbergSinclair,
    /// The Bully.
    Bully,
}

impl ElectionKind {
    /// Those that this version has.
    pub const ALL: [Self; 2] = [Self::HirschbergSinclair, Self::Bully];

    /// The election called `name` on the command line, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_string() == name)
    }

    /// The part of the server `node`, in this life of it, which can be dialled at `address` (`host:port`).
    pub fn make(
        self,
        node: NodeId,
        incarnation: Incarnation,
        address: String,
        timing: ElectionTiming,
    ) -> Box<dyn Election> {
        match self {
            Self::HirschbergSinclair => Box::new(ElectionModule::new(node, incarnation, timing)),
            Self::Bully => Box::new(BullyElection::new(node, incarnation, address, timing)),
        }
    }
}

impl fmt::Display for ElectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HirschbergSinclair => "hs",
            Self::Bully => "bully",
        })
    }
}

/// How long an election may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectionTiming {
    /// How long to wait for what should follow: the outcome of a round with Hirschberg and Sinclair, answers with
    /// the Bully, which waits twice as long for an outcome. Up to half of it is added by server, and it
    /// doubles with each round that is given up.
    pub election_timeout: Duration,
}

impl Default for ElectionTiming {
    fn default() -> Self {
        Self { election_timeout: Duration::from_millis(500) }
    }
}

impl ElectionTiming {
    /// How long `node` waits after it has given up so many rounds in turn. It differs from server to server,
    /// so that not all give up at once.
    fn patience(self, node: &NodeId, given_up: u32) -> Duration {
        let timeout = self.election_timeout;
        // FNV-1a: the same on every machine and in every run, which a play relies on.
        let hash = node.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        let stagger = timeout / 2 * ((hash >> 32) as u32 % 64) / 64;
        timeout * (1 << given_up.min(DOUBLINGS_MAX)) + stagger
    }
}
