//! Faults that are planted on purpose, to prove that the simulator's checks can fail.
//!
//! Only tests and builds with the feature `planted-faults` have them; elsewhere [`is_planted`] is the
//! constant `false`, and the compiler leaves the fault out. A fault is planted for one thread, so that tests do not
//! disturb each other.

/// A fault that can be planted, by the rule that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Messages are delivered without waiting for their causal past.
    NoHoldBack,
    /// Messages are acknowledged before they are on disks.
    AckBeforeSync,
    /// A server that starts again stamps as the same incarnation, from where its disk ends.
    SameIncarnation,
    /// A lower term is taken for news.
    StaleTerm,
    /// A message that was sent twice is stamped and shown twice.
    NoDuplicateCheck,
    /// SYNC leaves out the last message.
    ForgottenTail,
    /// A position counts every stamp of a message that was shown, and so what was not shown before that stamp.
    GreatestStamp,
    /// Of a message with two stamps only the first one is compared with a client's position.
    FirstStampOnly,
    /// A message that is here already is acknowledged at once.
    DuplicateAckedAtOnce,
    /// A server that slept accuses the others of its own silence.
    AccusesAfterSleep,
    /// A copy that is not wanted any more is dropped, whether others have what it holds or not.
    UnsharedRetired,
    /// An acknowledgement goes to the session's later connection, too.
    AckOnAnyConnection,
    /// A message is acknowledged when it is passed on to the leader.
    AckBeforeCommit,
    /// A leader takes what is passed on whether it is the next one or not.
    AnyForwardTaken,
    /// What has to be passed on again is passed on from the last message to the first.
    LatestForwardedFirst,
    /// A leader counts an entry of an earlier term as committed when a majority has it.
    CommitsEarlierTerm,
    /// A promise counts before it is on disk.
    PromiseBeforeSync,
    /// A follower cuts what stands after a batch, whether it conflicts or not.
    CutsByLength,
    /// A voter that lost its disk promises and counts as if nothing had happened.
    CountsWiped,
    /// Raft: a vote is answered before it is on disk.
    VoteBeforeSync,
    /// Raft: a server votes again in the same term.
    VoteTwice,
    /// Raft: entries of earlier terms are committed by counting.
    OldTermCommitted,
    /// Raft: a follower says that it has entries before they are on its disk.
    AppendAckBeforeSync,
    /// Raft: a vote goes to whoever asks, however old its log.
    VoteWithoutLogCheck,
    /// Raft: a follower cuts its log where the leader's entries begin, in conflict or not.
    CutWithoutConflict,
    /// Raft: a voter that lost its disk votes as if it had not.
    WipedVoterVotes,
    /// Raft: a membership change begins while another one is not committed.
    ChangeWhileUncommitted,
    /// Raft: a leader answers reads without asking whether it still leads.
    ReadUnconfirmed,
    /// Raft: a server that follows answers reads from what it has.
    ReadFromFollower,
    /// Raft: a follower takes entries without having the one before them.
    AppendsWithoutMatch,
}

impl Planted {
    /// Those of the design `ring`.
    pub const ALL: [Self; 12] = [
        Self::NoHoldBack,
        Self::AckBeforeSync,
        Self::SameIncarnation,
        Self::StaleTerm,
        Self::NoDuplicateCheck,
        Self::ForgottenTail,
        Self::GreatestStamp,
        Self::FirstStampOnly,
        Self::DuplicateAckedAtOnce,
        Self::AccusesAfterSleep,
        Self::UnsharedRetired,
        Self::AckOnAnyConnection,
    ];

    /// Those of the design `sequencer` that whole clusters show.
    pub const SEQUENCER: [Self; 6] = [
        Self::AckBeforeCommit,
        Self::AnyForwardTaken,
        Self::LatestForwardedFirst,
        Self::NoDuplicateCheck,
        Self::AckOnAnyConnection,
        Self::CutsByLength,
    ];

    /// Those of the one order alone, which the simulation of [`ordering`](super::ordering) catches.
    pub const ORDERING: [Self; 4] =
        [Self::CommitsEarlierTerm, Self::PromiseBeforeSync, Self::CutsByLength, Self::CountsWiped];

    /// Those of [`RaftNode`](super::raft::RaftNode), which its own simulation must catch.
    pub const RAFT: [Self; 11] = [
        Self::VoteBeforeSync,
        Self::VoteTwice,
        Self::OldTermCommitted,
        Self::AppendAckBeforeSync,
        Self::VoteWithoutLogCheck,
        Self::CutWithoutConflict,
        Self::WipedVoterVotes,
        Self::ChangeWhileUncommitted,
        Self::ReadUnconfirmed,
        Self::ReadFromFollower,
        Self::AppendsWithoutMatch,
    ];

    /// Those of the design `raft` that whole clusters show.
    pub const RAFT_CLUSTERS: [Self; 7] = [
        Self::AckBeforeCommit,
        Self::NoDuplicateCheck,
        Self::VoteTwice,
        Self::VoteWithoutLogCheck,
        Self::AppendsWithoutMatch,
        Self::ReadUnconfirmed,
        Self::ReadFromFollower,
    ];
}

#[cfg(any(test, feature = "planted-faults"))]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// Plants `fault` for this thread, or takes the last one out.
#[cfg(any(test, feature = "planted-faults"))]
pub fn plant(fault: Option<Planted>) {
    PLANTED.set(fault);
}

/// The fault of the whole process, for a real server.
#[cfg(any(test, feature = "planted-faults"))]
static EVERYWHERE: std::sync::OnceLock<Planted> = std::sync::OnceLock::new();

/// Plants the fault called `name` for all threads of this process, for good. False when there is none of that name.
#[cfg(any(test, feature = "planted-faults"))]
pub fn plant_everywhere(name: &str) -> bool {
    let lists: [&[Planted]; 4] =
        [&Planted::ALL, &Planted::SEQUENCER, &Planted::ORDERING, &Planted::RAFT];
    let found = lists.concat().into_iter().find(|fault| format!("{fault:?}") == name);
    found.is_some_and(|fault| EVERYWHERE.set(fault).is_ok())
}

/// Whether this thread's servers have `fault`.
#[cfg(any(test, feature = "planted-faults"))]
pub fn is_planted(fault: Planted) -> bool {
    PLANTED.get() == Some(fault) || EVERYWHERE.get() == Some(&fault)
}

/// Never: this build has no planted faults.
#[cfg(not(any(test, feature = "planted-faults")))]
pub const fn is_planted(_fault: Planted) -> bool {
    false
}
