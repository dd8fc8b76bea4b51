//! Raft: one leader, one log, and a majority that remembers (Ongaro and Ousterhout, 2014).
//!
//! ```text
//!              times out: asks whether it would win         a majority would vote for it
//!  ┌──────────┐ ───────────▶ ┌───────────────┐ ───────────▶ ┌───────────┐  a majority   ┌────────┐
//!  │ Follower │              │ Pre-candidate │              │ Candidate │ ────────────▶ │ Leader │
//!  └──────────┘ ◀─────────── └───────────────┘              └───────────┘   voted       └────────┘
//!        ▲            a leader is heard, or a majority says no    │                         │
//!        └───────────────────────── a higher term ◀───────────────┴─────────────────────────┘
//!                                                     or no majority heard for an election timeout
//! ```
//!
//! Time is cut into *terms*, numbered. In each term every server votes at most once, so at most one leader has a
//! majority's votes. The leader alone places entries: it appends them to its log and sends them to the others, each
//! time with the place and term of the entry before. A follower that lacks that entry refuses, the leader steps back
//! until the logs agree, and overwrites what follows. An entry that is on a majority's disks is *committed*: whoever is
//! elected later has it, because a voter refuses a candidate whose log ends earlier than its own.
//!
//! ```text
//!  place      1    2    3    4    5          term of each entry; `│` = committed
//!  n1 leader  1    1    2    2 │  2          n1 has synced 5, n2 4, n3 2: two of three have 4
//!  n2         1    1    2    2 │             n2 gets 5 next
//!  n3         1    1    1    1               n3's 3 and 4 are from a leader that died: they are replaced
//! ```
//!
//! # Promise
//!
//! The five properties of Figure 3, which the simulation in `simulation` checks after every event. *Election safety*: at most one
//! leader in a term. *Leader append-only*. *Log matching*: logs with the same term at a place are the same up
//! to it. *Leader completeness*: what was committed is in every later leader's log. *State machine safety*: no two
//! servers apply different entries at a place. They hold whatever the network and the clocks do, and while disks keep
//! what they synced. Progress needs a majority that hears each other faster than the election timeout.
//!
//! # Price
//!
//! A committed entry costs one round trip and one sync on a majority, the leader's own sync in parallel with the others'
//! (thesis 10.2.1). Idle, a leader sends and gets one small message per server and heartbeat. When it dies the
//! cluster waits one to two election timeouts and two round trips; an eighth of one at the most, and the round trips, when
//! connections to it broke, as those of a process that was killed do.
//!
//! # Where to read what
//!
//! | file | rule | source |
//! |---|---|---|
//! | `order` | what arrives, and what the server above sees | |
//! | `election` | votes, pre-vote, check-quorum | 5.2, 5.4.1; thesis 6.2, 9.6 |
//! | `append`, `leader`, `progress` | replication and commitment | 5.3, 5.4.2; thesis 10.2.1 |
//! | `journal` | what waits for the disk | Figure 2, "persistent state" |
//! | `compaction`, `install`, `recovery` | snapshots | 7, Figure 13; thesis 5 |
//! | `membership`, `configuration` | servers come and go | thesis 4 |
//! | `reads` | reading without writing | 8; thesis 6.4 |
//! | `transfer` | handing over | thesis 3.10 |
//!
//! # What we add, and why
//!
//! * **Pre-vote.** A server that was cut off would come back with a high term and depose a leader that is well.
//!   It asks first, without raising its term, and is refused while others hear a leader. A refusal carries the
//!   term of the one who refuses: whichever of the two is behind, it catches up, and nobody is stuck in a term of its own.
//! * **A killed leader.** When the connection to a leader breaks that was heard a moment ago, its followers stand within an eighth of an
//!   election timeout, and after an election that decided nothing soon again, a few times, later each time. Pre-vote keeps a leader that only
//!   lost a connection; a server that would vote for another one lets it go first, and of two that ask each other the higher id goes on.
//! * **Check-quorum.** A leader that has not heard a majority for an election timeout steps down, so that its
//!   clients go elsewhere.
//! * **Disks have names.** A voter is an id and a disk id. The same id with another disk is a *wiped* voter: it forgot what it
//!   promised. It gets no vote that counts and its answers count for nothing; the leader replaces it in one entry by a
//!   learner of the same id, and makes that one a voter by another entry when it has caught up. An empty
//!   majority therefore never elects itself.
//! * **Two snapshots.** The disk keeps the newest two, and the log from the older one on; memory keeps some entries behind the
//!   newest. A server that cannot put together what it once had starts empty, under another disk name: as a wiped one.
//! * **Bootstrap.** The first configuration is entry 1 of term 0, the same on all first voters
//!   ([`RaftNode::set_first_members`]; thesis 4.4 gives it to one server only). The first leader commits it with its own
//!   NOOP.
//! * **Sleep.** A server whose own tick came late restarts its timers instead of accusing others.
//!
//! # What breaks it
//!
//! A disk that lies about `fdatasync`; a folder that is copied and started twice; servers that lie; a disk that is lost for good
//! while the members change, if without it nobody has both the newest log and the votes. And one thing that is
//! often got wrong: membership changes one at a time are safe only when a leader has committed an entry of its own
//! term before (Ongaro's note of 2015), so it refuses them until then.
//!
//! # Proof that the checks can fail
//!
//! Each of these faults is planted in a server, and the simulation has to notice. From nine seeds on, 500 apart: how many seeds it took,
//! in the middle and at the most, and what was noticed first, mostly
//! (`cargo test --release --lib every_planted -- --ignored --nocapture`).
//!
//! | fault | breaks | noticed as | seeds | at the most |
//! |---|---|---|---|---|
//! | `VoteTwice` | election safety | log matching, election safety | 3 | 16 |
//! | `VoteBeforeSync` | election safety | log matching | 25 | 66 |
//! | `AppendsWithoutMatch` | log matching | log matching | 2 | 3 |
//! | `VoteWithoutLogCheck` | leader completeness | leader completeness | 1 | 5 |
//! | `OldTermCommitted` (Figure 8) | leader completeness | leader completeness | 33 | 152 |
//! | `WipedVoterVotes` | leader completeness | leader completeness | 11 | 50 |
//! | `ChangeWhileUncommitted` | leader completeness | leader completeness, election safety | 48 | 155 |
//! | `CutWithoutConflict` | state machine safety | state machine safety | 2 | 6 |
//! | `AppendAckBeforeSync` | state machine safety | no agreement, leader completeness | 56 | 168 |
//! | `ReadUnconfirmed` | linearizable reads | stale read | 70 | 226 |
//! | `ReadFromFollower` | linearizable reads | stale read | 1 | 1 |
//!
//! Whole clusters with clients notice some of them, too, and others: see [`sim`](crate::sim). Figure 8 is played besides, to both of its
//! ends, in `tests/scripts/raft`.
//!
//! Left out: joint consensus (section 6), leases for reads, witnesses.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::step::Step;
use super::total_order::{COMPACT_AFTER, Entry, EntryLog, Seq};
use crate::domain::raft_content::Configuration;
use crate::domain::{Incarnation, Message, MessageType, NodeId, Term};
use crate::storage::LogIndex;

mod append;
mod compaction;
mod configuration;
mod election;
mod install;
mod journal;
mod leader;
mod membership;
mod order;
mod progress;
mod reads;
mod recovery;
mod transfer;

#[cfg(test)]
mod commitment_tests;
#[cfg(test)]
mod compaction_tests;
#[cfg(test)]
mod simulation;

pub use compaction::Snapshot;
pub use membership::{ChangeRefused, MembershipChange};

use compaction::Saving;
use configuration::Configurations;
use election::Votes;
use install::Incoming;
use journal::Journal;
use leader::Leading;
use reads::Reads;

/// How patient a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftTiming {
    /// A follower stands for election after hearing no leader for this long, and up to as long again, at random. The
    /// paper asks for ten times what a message and a sync take; heartbeats should come five times as often.
    pub election_timeout: Duration,
}

impl Default for RaftTiming {
    fn default() -> Self {
        Self { election_timeout: Duration::from_secs(1) }
    }
}

/// What a server is at the moment (Figure 4).
#[derive(Debug)]
enum Role {
    /// Answers, and waits for a leader.
    Follower,
    /// Asks whether it would win (thesis 9.6).
    PreCandidate(Votes),
    /// Stands in `current_term`.
    Candidate(Votes),
    /// Leads in `current_term`.
    Leader(Box<Leading>),
}

/// What a follower owes the leader of the term.
#[derive(Debug, Default)]
struct Following {
    /// The log is known to be the leader's up to here.
    matched: Seq,
    /// What was said of it last.
    answered: Seq,
    /// The highest round that the leader asked in.
    round: u64,
    /// Whether an answer is owed even when nothing new is on disk.
    answer_due: bool,
}

/// One server of a Raft cluster. Field names are those of Figure 2 where it has them.
#[derive(Debug)]
pub struct RaftNode {
    id: NodeId,
    incarnation: Incarnation,
    /// The random name of the data folder.
    disk: String,
    timing: RaftTiming,
    rng: fastrand::Rng,
    /// Bytes of entries in one request, and of a snapshot in one. Smaller in simulations.
    batch_bytes: usize,
    chunk_bytes: usize,
    /// How many entries stay behind a snapshot.
    entries_kept: u64,
    /// How many bytes of applied entries are not packed. Fewer in simulations.
    unpacked_bytes: usize,

    // Persistent: written to the journal, and told to others when it is synced.
    current_term: u64,
    voted_for: Option<NodeId>,
    log: EntryLog,
    snapshot: Option<Snapshot>,
    configurations: Configurations,
    journal: Journal,

    // Volatile.
    commit_index: Seq,
    last_applied: Seq,
    role: Role,
    /// Who leads in `current_term`, as far as is known.
    leader_id: Option<NodeId>,
    /// The last term in which a leader was heard.
    leader_term: Option<Term>,
    following: Following,
    /// When a leader was heard last.
    heard_leader: Option<Instant>,
    /// When to stand for election.
    election_deadline: Option<Instant>,
    /// How often it may stand again after a short wait, since the leader is gone.
    short_waits: u32,
    last_tick: Option<Instant>,
    /// A snapshot that comes in.
    incoming: Option<Incoming>,
    /// A snapshot on its way to the disk.
    saving: Option<Saving>,
    /// The leader's snapshot, for which the disk had no room, and when it is tried again.
    not_saved: Option<Snapshot>,
    save_again_at: Option<Instant>,
    /// The places of the snapshots on disk, the older one first.
    snapshots_kept: (Option<Seq>, Option<Seq>),
    /// Whether the snapshot has to be taken over above before entries are.
    snapshot_due: bool,
    /// The first record that is needed since a snapshot was saved, until [`renew_journal`](Self::renew_journal).
    forgettable: Option<LogIndex>,
    /// Whether the journal has yet to be told that the log begins with the snapshot.
    marker_due: bool,
    /// What is missing of what was on disk, while it is recovered.
    lost: Option<String>,
    reads: Reads,
}

impl RaftNode {
    /// A server without a log. Hand it its journal next ([`TotalOrder::recover`](super::total_order::TotalOrder::recover)); without one, or the log of a
    /// leader, or [`set_first_members`](Self::set_first_members), it knows of no members and stays a follower.
    ///
    /// `disk` is the random name of its data folder, `rng` draws its election timeouts.
    pub fn new(
        id: NodeId,
        incarnation: Incarnation,
        disk: impl Into<String>,
        rng: fastrand::Rng,
        timing: RaftTiming,
    ) -> Self {
        Self {
            id,
            incarnation,
            disk: disk.into(),
            timing,
            rng,
            batch_bytes: progress::BATCH_BYTES,
            chunk_bytes: install::CHUNK_BYTES,
            entries_kept: COMPACT_AFTER,
            unpacked_bytes: progress::UNPACKED_BYTES,
            current_term: 0,
            voted_for: None,
            log: EntryLog::new(),
            snapshot: None,
            configurations: Configurations::default(),
            journal: Journal::default(),
            commit_index: 0,
            last_applied: 0,
            role: Role::Follower,
            leader_id: None,
            leader_term: None,
            following: Following::default(),
            heard_leader: None,
            election_deadline: None,
            short_waits: 0,
            last_tick: None,
            incoming: None,
            saving: None,
            not_saved: None,
            save_again_at: None,
            snapshots_kept: (None, None),
            snapshot_due: false,
            forgettable: None,
            marker_due: false,
            lost: None,
            reads: Reads::default(),
        }
    }

    /// The first configuration: who votes, each with the name of its data folder. All first voters are
    /// given the same one, which becomes entry 1 of term 0 of each log. False, and nothing happens, when there is a
    /// log already: then the others began without waiting.
    pub fn set_first_members(&mut self, voters: &BTreeMap<NodeId, String>, step: &Step) -> bool {
        if self.log.last() > 0 {
            return false;
        }
        let configuration = Configuration { voters: voters.clone(), ..Configuration::default() };
        let mut first = Message::new(MessageType::Members, "").saying(&configuration);
        first.seq = Some(1);
        self.insert(first.into(), step);
        true
    }

    /// Keeps so many entries behind each snapshot, for followers that are a little late. As many as are applied between two
    /// snapshots at least is a good number.
    #[must_use]
    pub fn keeping_entries(self, entries_kept: u64) -> Self {
        Self { entries_kept, ..self }
    }

    /// `currentTerm` of Figure 2: the highest term heard of.
    pub fn current_term(&self) -> u64 {
        self.current_term
    }

    /// Who takes part, as far as this log says, committed or not.
    pub fn configuration(&self) -> &Configuration {
        self.configurations.latest()
    }

    /// The log, for those who look on: plays and checks.
    pub fn log(&self) -> &EntryLog {
        &self.log
    }

    /// The term of the entry at `seq` as a number, 0 where none stands; `None` when it is not known.
    fn term_number(&self, seq: Seq) -> Option<u64> {
        self.log.term_at(seq).map(|term| term.map_or(0, |term| term.counter))
    }

    fn last_term_number(&self) -> u64 {
        self.log.last_term().map_or(0, |term| term.counter)
    }

    /// Journals an entry that was just put into the log.
    fn wrote(&mut self, entry: &Entry, step: &Step) {
        self.write_due_marker(step);
        self.journal.wrote_entry(step.log.append(entry), self.log.last());
        self.configurations.appended(entry);
    }

    /// Puts an entry of the leader at its place, and cuts the log there when it conflicts.
    fn insert(&mut self, entry: Entry, step: &Step) {
        let last = self.log.last();
        if self.log.insert(entry.clone()) {
            if self.log.last() <= last {
                self.journal.cut_after(self.log.last() - 1);
                self.configurations.cut_after(self.log.last() - 1);
            }
            self.wrote(&entry, step);
        }
    }

    fn message<T: serde::Serialize>(&self, message_type: MessageType, content: &T) -> Message {
        Message::new(message_type, self.id.as_str()).saying(content)
    }

    /// Rules for all servers (Figure 2): a higher term is adopted; whoever led or stood in the old one stops. Journalled.
    fn adopt_term(&mut self, term: u64, step: &Step) {
        self.current_term = term;
        self.voted_for = None;
        self.leader_id = None;
        self.following = Following::default();
        self.write_vote(step);
        self.become_follower(step.now);
    }

    /// Whether `term` is the present one, after adopting it if it is higher.
    fn is_current(&mut self, term: u64, step: &Step) -> bool {
        if term > self.current_term {
            self.adopt_term(term, step);
        }
        term == self.current_term
    }

    fn become_follower(&mut self, now: Instant) {
        if let Role::Leader(leading) = std::mem::replace(&mut self.role, Role::Follower) {
            self.reads.take_over(leading.into_own_reads());
            self.leader_id = None;
            self.reset_election_timer(now);
        }
    }

    fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }
}
