//! One order for all: what the designs `sequencer` and `raft` have in common.
//!
//! ```text
//!   CHAT ─▶ any server ─▶ leader: propose ─▶ entry 42 ─▶ journals of a majority ─▶ committed
//!                                                              │
//!            every server: take_committed ─▶ 40 41 42 in order ┘─▶ shown to members, acknowledged
//! ```
//!
//! Both designs keep a log of *entries* that all servers agree on: an entry is a [`Message`] with its place
//! (`seq`, from 1) and the `term` of the leader that placed it. They differ in how a leader is found and
//! how it brings the others in line.
//! What stands above, rooms, sessions, clients, sees only the trait [`TotalOrder`].
//!
//! **Journal.** Entries are appended to the node's log ([`Storage`](crate::storage::Storage)) when they are
//! accepted, with other records (promises, votes, members) between them. Nothing is rewritten: a record
//! with the place of an earlier one replaces it and all that came after it. [`EntryLog`] reads it back so.
//!
//! Source: total-order-chat.txt, "Ordering Manager" and "Storage Manager"; Ongaro and Ousterhout (2014), section 5.3.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use super::ServerState;
use super::raft::ChangeRefused;
use super::step::Step;
use crate::domain::content::OrderStatus;
use crate::domain::{Message, NodeId, Term};
use crate::error::RequestError;
use crate::storage::snapshot::Contents;
use crate::storage::{LogEvent, LogIndex, PackedBytes};

mod packed;

mod entry_log;

pub mod record_index;

pub mod replicated;

pub mod forwarding;

pub mod password;

pub mod logins;

mod history;

mod glue;

mod members;

mod make;

mod raft_order;

mod compaction;

mod retention;

pub use compaction::SnapshotCounts;
pub(super) use compaction::snapshot_unreadable;
pub use entry_log::{EntryLog, size_of_entry};
pub use glue::Ordered;
pub(in crate::server) use glue::is_passed_on;
pub(super) use make::order_of;
pub use members::MemberView;
pub use record_index::RecordIndex;
pub use replicated::ReplicatedStorage;

/// Entries that are applied before a snapshot replaces them. A restart reads so many at most beyond the state, which takes a
/// fraction of a second; and a follower that was away for a moment still finds what it lacks in the log.
pub const COMPACT_AFTER: u64 = 20_000;

/// Makes the bytes of a state, of which it owns a copy, where nobody waits for it.
pub type MakeState = Box<dyn FnOnce() -> PackedBytes + Send>;

/// A place in the one order, from 1; 0 stands before the first.
pub type Seq = u64;

/// What is replicated: a message with `seq` and `term`.
pub type Entry = Arc<Message>;

/// The part that puts messages into one order and makes it durable on a majority.
///
/// Every method only queues what it sends ([`Step::cm`]) and writes ([`Step::log`]). It is called under
/// the node's lock, by one thread at a time.
pub trait TotalOrder: Debug + Send {
    /// Takes a record of the journal, in the order of writing, before the server is started. All of them are synced.
    fn recover(&mut self, record: Message);

    /// Takes the newest sound snapshot that the disk has, before the first record. The error says why it cannot be read.
    fn recover_snapshot(&mut self, _saved: &Contents) -> Result<(), String> {
        Ok(())
    }

    /// All records were taken. The error says what is missing of what this server has told others that it holds: it may not be
    /// started so, but only empty and as a wiped one.
    fn recovered(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// A message of another server that is not the caller's business: elections, entries, votes.
    /// Stale terms are dropped here, before any handler sees them.
    fn handle_message(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError>;

    /// The tick of the timeout checker: elections, retries.
    fn tick(&mut self, step: &Step);

    /// The tick of the heartbeat monitor: a leader says that it leads.
    fn heartbeat(&mut self, step: &Step);

    /// All records up to `index` are on this server's disk. What waited for that is sent by the next
    /// [`settle`](Self::settle).
    fn on_synced(&mut self, index: LogIndex);

    /// What else the log has to say. What follows from it is done by the next [`settle`](Self::settle).
    fn on_log_event(&mut self, _event: &LogEvent) {}
    /// The answer to [`request_read`](crate::storage::Storage::request_read), if the order asked for one. What waited for that
    /// is sent by the next [`settle`](Self::settle).
    fn on_read(&mut self, _token: u64, _from: LogIndex, _records: Vec<Message>) {}

    /// A connection to `node_id` stands: what was under way to it before is lost.
    fn link_up(&mut self, node_id: &NodeId, step: &Step);

    /// `node_id` is dead for the failure detector, or said goodbye.
    fn node_failed(&mut self, node_id: &NodeId, step: &Step);

    /// Leader: places `msg` next. `None` when this server does not lead actively, or cannot take more for now.
    fn propose(&mut self, msg: Message, step: &Step) -> Option<Seq>;

    /// Entries that were committed since the last call, in order, without a gap. After a start it begins at the
    /// first one that is kept, and repeats what was committed before the start. When they are many, some of them:
    /// [`has_committed`](Self::has_committed) tells whether there are more.
    fn take_committed(&mut self) -> Vec<Entry>;

    /// Whether [`take_committed`](Self::take_committed) has more to give at once.
    fn has_committed(&self) -> bool {
        false
    }

    /// Whether the log can be [compacted](Self::compact) now.
    fn may_compact(&self) -> bool {
        false
    }

    /// Begins to replace the log up to `seq`, in memory and on disk, by the state above after the entry at `seq`, which has been
    /// taken. `make` makes the bytes of that state, later and elsewhere; when they are durable, the log says
    /// [`SnapshotSaved`](LogEvent::SnapshotSaved). False, and nothing happens, where that is not done.
    fn compact(&mut self, _seq: Seq, _make: MakeState, _step: &Step) -> bool {
        false
    }

    /// The state that has to be taken over above before committed entries are, with the place of its last entry: after a
    /// start from a snapshot, and when the leader sent one.
    fn take_snapshot(&mut self) -> Option<(Seq, Arc<PackedBytes>)> {
        None
    }

    /// Whether old entries are [forgotten](Self::forget) for good. Then a state that it hands out has no messages.
    fn forgets(&self) -> bool {
        false
    }

    /// The last place that this server may [forget](Self::forget): applied, on its disk and on those of all members that are
    /// connected; with `bytes` so that about so many of the log's last bytes are kept. 0 where nothing can be forgotten.
    fn may_forget_up_to(&self, _bytes: Option<u64>, _step: &Step) -> Seq {
        0
    }

    /// Forgets the log up to `seq`, in memory and on disk: `state` stands for it from now on, the state above after the entry at
    /// `seq`, without messages. It is handed out by [`take_snapshot`](Self::take_snapshot) after a restart, and to servers that need more
    /// than is kept. False, and nothing happens, when `seq` may not be forgotten.
    fn forget(&mut self, _seq: Seq, _state: Arc<str>, _step: &Step) -> bool {
        false
    }

    /// Asks for committed entries from `first` on once more, unless it was asked already; a part of them is handed out by
    /// [`take_recalled`](Self::take_recalled) some time later.
    fn recall(&mut self, _first: Seq, _step: &Step) {}

    /// Entries that were asked for with [`recall`](Self::recall), in order.
    fn take_recalled(&mut self) -> Vec<Entry> {
        Vec::new()
    }

    /// Sends what the steps since the last call gathered, in as few messages as possible. Once a batch.
    fn settle(&mut self, step: &Step);

    /// Whether an election is due: nobody leads, as far as is known here, and this server may stand. Always false
    /// where elections are part of the order itself (`raft`).
    fn wants_election(&self, _now: Instant) -> bool {
        false
    }

    /// Whether this server answers an ELECTION of a lower id: it could stand itself. Silence lets the lower one win.
    fn may_answer_election(&self, _now: Instant) -> bool {
        true
    }

    /// An election nominated this server: it asks for promises, and leads when it has a majority's.
    fn nominate(&mut self, _step: &Step) {}

    /// Asks how far this server must have applied the order to answer a read that begins now. `token` names the
    /// question; [`take_reads`](Self::take_reads) brings the answer. False where reads need not ask: every server
    /// shows what it knows to be committed.
    fn read_index(&mut self, _token: u64, _step: &Step) -> bool {
        false
    }

    /// The answers since the last call: a question's token, and the place that has to be applied first.
    fn take_reads(&mut self) -> Vec<(u64, Seq)> {
        Vec::new()
    }

    /// Hands leadership over before a clean stop, if it leads and somebody can take it.
    fn resign(&mut self, step: &Step);

    /// Whether it resigned as leader and the one that it asked has not taken over yet, but still can.
    fn hands_over(&self) -> bool {
        false
    }

    /// Who leads actively, this server included: it may place entries. `None` while nobody is known to.
    fn leader(&self) -> Option<NodeId>;

    /// The highest term that was heard of with an active leader.
    fn term(&self) -> Option<&Term>;

    /// Where this server stands.
    fn state(&self) -> ServerState;

    /// The last place that is known to be committed.
    fn committed(&self) -> Seq;

    /// The last place in this server's log, committed or not.
    fn last(&self) -> Seq;

    /// Whether `node_id` counts for majorities.
    fn is_voter(&self, node_id: &NodeId) -> bool;

    /// Whether voters come and go: [`add_member`](Self::add_member), [`remove_member`](Self::remove_member).
    fn changes_members(&self) -> bool {
        false
    }

    /// Leader: lets `node_id`, which keeps its log on `disk`, in as a voter, when it has caught up. Returns the place of
    /// the change.
    fn add_member(
        &mut self,
        _node_id: &NodeId,
        _disk: &str,
        _step: &Step,
    ) -> Result<Seq, ChangeRefused> {
        Err(ChangeRefused::NotLeader)
    }

    /// Leader: `node_id` takes part no more. Returns the place of the change.
    fn remove_member(&mut self, _node_id: &NodeId, _step: &Step) -> Result<Seq, ChangeRefused> {
        Err(ChangeRefused::NotLeader)
    }

    /// Who takes part, as far as this server knows, and whether that is committed.
    fn members(&self) -> (Vec<MemberView>, bool) {
        (Vec::new(), true)
    }

    /// Whether `node_id`, with this disk, was removed, for all that is committed.
    fn has_removed(&self, _node_id: &NodeId, _disk: &str) -> bool {
        false
    }

    /// Whether this server was removed from the cluster: it will hear of nothing any more.
    fn is_removed(&self) -> bool {
        false
    }

    /// The random id of the cluster that this server is a member of, once that is known: servers of another one are no peers,
    /// whatever it is called.
    fn cluster_id(&self) -> Option<&str> {
        None
    }

    /// How far it is, for `roundtable status`.
    fn status(&self) -> OrderStatus {
        OrderStatus { committed: self.committed(), last: self.last(), ..OrderStatus::default() }
    }
}
