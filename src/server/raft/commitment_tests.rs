//! Figure 8: a majority has an entry of an earlier term, and still it is not committed.

use super::*;
use crate::domain::raft_content::{AppendEntries, RequestVote};
use crate::network::transport::Outbox;
use crate::server::planted::{Planted, plant};
use crate::server::total_order::TotalOrder;
use crate::storage::{MemoryLog, Storage};
use crate::testing::start;

/// What `s1` has committed in (c) of the figure, when `s2` has its entry of term 2, and when it has the noop of term 4.
fn committed_in_c() -> (Seq, Seq) {
    let (outbox, log) = (Outbox::new(), MemoryLog::new());
    let step = Step { now: start(), wall_ms: 0, cm: &outbox, log: &log };
    let rng = fastrand::Rng::with_seed(1);
    let mut s1 = RaftNode::new("s1".into(), "s1.2-0000".into(), "d1", rng, RaftTiming::default());
    let voters = [("s1", "d1"), ("s2", "d2"), ("s3", "d3")];
    let voters: BTreeMap<NodeId, String> =
        voters.iter().map(|(id, disk)| (NodeId::from(*id), (*disk).to_string())).collect();
    let mut first = Message::new(MessageType::Members, "")
        .saying(&Configuration { voters, ..Configuration::default() });
    first.seq = Some(1);
    s1.recover(first);
    let mut old = Message::new(MessageType::Chat, "alice");
    (old.seq, old.term) = (Some(2), Some(Term { counter: 2, leader: "s1.1-0000".into() }));
    s1.recover(old);
    // s3 led in term 3.
    s1.recover(
        Message::new(MessageType::RequestVote, "s1")
            .saying(&RequestVote::Voted { term: 3, voted_for: None }),
    );

    let sync = |s1: &mut RaftNode| {
        s1.settle(&step);
        s1.on_synced(log.append(&Message::new(MessageType::Status, "")));
        s1.settle(&step);
    };
    let s2 = NodeId::from("s2");
    s1.campaign(&step);
    for (term, asked, pre_vote) in [(1, 4, true), (4, 4, false)] {
        let answer = RequestVote::Answer { term, asked, vote_granted: true, pre_vote };
        let msg = Message::new(MessageType::RequestVote, "s2").saying(&answer);
        s1.handle_message(&s2, &msg, &step).unwrap();
        sync(&mut s1);
    }
    assert!(s1.is_leader(), "{s1:?}");
    let mut committed = [2, 3].map(|match_index| {
        let accepted =
            AppendEntries::Accepted { term: 4, match_index, round: 1, disk: "d2".into() };
        let msg = Message::new(MessageType::AppendEntries, "s2").saying(&accepted);
        s1.handle_message(&s2, &msg, &step).unwrap();
        s1.settle(&step);
        s1.committed()
    });
    committed.sort_unstable();
    (committed[0], committed[1])
}

#[test]
fn an_entry_of_an_earlier_term_is_not_committed_by_counting() {
    assert_eq!(committed_in_c(), (0, 3));
}

#[test]
fn counting_it_all_the_same_would_show() {
    plant(Some(Planted::OldTermCommitted));
    let committed = committed_in_c();
    plant(None);
    assert_eq!(committed, (2, 3));
}
