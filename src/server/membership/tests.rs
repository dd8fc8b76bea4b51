//! Bootstraps, joins and refusals of single servers; whole clusters are in the golden scripts and the simulation.

use super::*;
use crate::network::transport::Outbox;
use crate::storage::MemoryLog;

/// A server with its network and disk.
struct Stage {
    outbox: Outbox,
    log: MemoryLog,
    manager: MembershipManager,
}

impl Stage {
    fn new(id: &str, expect: usize) -> Self {
        let rng = fastrand::Rng::with_seed(7);
        let manager = MembershipManager::new(id.into(), member(id, 1), expect, rng);
        Self { outbox: Outbox::new(), log: MemoryLog::new(), manager }
    }

    fn step<T>(&mut self, act: impl FnOnce(&mut MembershipManager, &Step) -> T) -> T {
        let now = crate::testing::start();
        act(&mut self.manager, &Step { now, wall_ms: 0, cm: &self.outbox, log: &self.log })
    }

    fn hear(&mut self, from: &str, msg: &Message) -> Result<(), RequestError> {
        let from = from.into();
        self.step(|manager, step| match msg.message_type {
            MessageType::Join => manager.handle_join(&from, msg, None, false, step),
            _ => manager.handle_members(&from, msg, step),
        })
    }

    /// The disk takes all; what was sent since the last time.
    fn sync(&mut self) -> Vec<(NodeId, MembersContent)> {
        let index = self.log.records().len() as LogIndex;
        self.step(|manager, step| {
            manager.on_synced(index);
            manager.settle(step);
        });
        let sent = self.outbox.take_to_nodes().into_iter();
        sent.filter_map(|(to, msg)| Some((to?, msg.content.parse().ok()?))).collect()
    }
}

fn member(id: &str, disk: u32) -> Member {
    Member { address: format!("{id}:7000"), disk_id: format!("{id}-{disk}") }
}

fn join(id: &str, disk: u32, cluster_id: Option<&str>) -> Message {
    let cluster_id = cluster_id.map(str::to_string);
    Message::new(MessageType::Join, id).saying(&Join { member: member(id, disk), cluster_id })
}

fn members(cluster_id: &str, voters: &[&str]) -> Members {
    let voters = voters.iter().map(|id| ((*id).into(), member(id, 1)));
    let cluster_id = cluster_id.into();
    Members { cluster_id, version: 1, voters: voters.collect(), learners: BTreeMap::new() }
}

fn proposed(proposer: &str, cluster_id: &str, voters: &[&str]) -> Message {
    let members = members(cluster_id, voters);
    Message::new(MessageType::Members, proposer)
        .saying(&MembersContent::Proposed { proposer: proposer.into(), members })
}

fn valid(cluster_id: &str, voters: &[&str]) -> Message {
    let members = members(cluster_id, voters);
    Message::new(MessageType::Members, "").saying(&MembersContent::Valid { members })
}

#[test]
fn the_lowest_id_proposes_when_all_were_heard_and_waits_for_every_disk() {
    let mut n1 = Stage::new("n1", 3);
    n1.hear("n10", &join("n10", 1, None)).unwrap();
    assert!(n1.sync().is_empty(), "one is missing");
    n1.hear("n2", &join("n2", 1, None)).unwrap();
    let sent = n1.sync();
    let to: Vec<&str> = sent.iter().map(|(to, _)| to.as_str()).collect();
    assert_eq!(to, ["n2", "n10"]);
    let Some((_, MembersContent::Proposed { members, .. })) = sent.first() else {
        panic!("{sent:?}")
    };
    let cluster_id = members.cluster_id.clone();
    let taken = MembersContent::Taken { cluster_id };
    let taken = Message::new(MessageType::Members, "").saying(&taken);
    n1.hear("n2", &taken).unwrap();
    assert_eq!(n1.manager.members(), None, "n10 has not said that it has it");
    n1.hear("n10", &taken).unwrap();
    assert_eq!(n1.manager.members().map(Members::majority), Some(2));
    assert!(n1.manager.counts_itself() && n1.manager.is_settled());
}

#[test]
fn a_higher_id_does_not_propose() {
    let mut n2 = Stage::new("n2", 2);
    n2.hear("n1", &join("n1", 1, None)).unwrap();
    assert!(n2.sync().is_empty());
    assert_eq!(n2.log.records(), []);
}

#[test]
fn the_own_disk_must_have_the_proposal_too() {
    let mut n1 = Stage::new("n1", 1);
    n1.step(|manager, step| manager.tick(None, step));
    assert_eq!(n1.manager.members(), None);
    n1.sync();
    assert_eq!(n1.manager.members().map(|members| members.voters.len()), Some(1));
}

#[test]
fn another_proposal_is_taken_only_when_the_first_proposer_had_to_give_its_own_up() {
    let mut n3 = Stage::new("n3", 3);
    n3.hear("n1", &proposed("n1", "a", &["n1", "n2", "n3"])).unwrap();
    assert_eq!(n3.sync().len(), 1);
    // n1 may have found `a` valid without n0 ever knowing.
    n3.hear("n0", &proposed("n0", "b", &["n0", "n2", "n3"])).unwrap();
    assert_eq!(n3.sync(), []);
    // A higher one never, or two would go back and forth.
    n3.hear("n2", &proposed("n2", "c", &["n1", "n2", "n3"])).unwrap();
    assert_eq!(n3.sync(), []);
    n3.hear("n0", &proposed("n0", "d", &["n0", "n1", "n3"])).unwrap();
    assert_eq!(n3.sync(), [("n0".into(), MembersContent::Taken { cluster_id: "d".into() })]);
}

#[test]
fn who_knows_the_members_answers_a_proposal_with_them() {
    let mut n2 = Stage::new("n2", 2);
    n2.hear("n1", &valid("a", &["n1", "n2"])).unwrap();
    n2.hear("n1", &proposed("n1", "b", &["n1", "n2"])).unwrap();
    assert!(
        matches!(&n2.sync()[..], [(_, MembersContent::Valid { members })] if members.cluster_id == "a")
    );
}

#[test]
fn a_proposal_with_the_disk_that_was_lost_is_not_taken() {
    let mut n2 = Stage::new("n2", 2);
    n2.manager.me = member("n2", 2);
    n2.hear("n1", &proposed("n1", "a", &["n1", "n2"])).unwrap();
    assert_eq!(n2.sync(), []);
}

#[test]
fn a_proposer_proposes_again_when_a_voter_has_another_disk() {
    let mut n1 = Stage::new("n1", 2);
    n1.hear("n2", &join("n2", 1, None)).unwrap();
    assert_eq!(n1.sync().len(), 1);
    n1.hear("n2", &join("n2", 2, None)).unwrap();
    let sent = n1.sync();
    let [(_, MembersContent::Proposed { members, .. })] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(members.voters.get(&"n2".into()), Some(&member("n2", 2)));
}

#[test]
fn a_server_of_another_cluster_is_refused_by_its_name() {
    let mut n2 = Stage::new("n2", 2);
    n2.hear("n1", &valid("a", &["n1", "n2"])).unwrap();
    n2.hear("n1", &join("n1", 1, Some("a"))).unwrap();
    let error = n2.hear("n7", &join("n7", 1, Some("b"))).unwrap_err();
    assert_eq!(error.code(), "WRONG_CLUSTER");
    assert!(error.to_string().contains("n7 belongs to the cluster with id b"), "{error}");
    let error = n2.hear("n7", &valid("b", &["n2", "n7"])).unwrap_err();
    assert_eq!(error.code(), "WRONG_CLUSTER");
}

#[test]
fn what_a_cut_tail_said_is_forgotten() {
    let mut n2 = Stage::new("n2", 2);
    n2.hear("n1", &valid("a", &["n1", "n2"])).unwrap();
    let later = n2.manager.with_disk(&"n1".into(), "n1-2").unwrap();
    let mut entry =
        Message::new(MessageType::Members, "").saying(&MembersContent::Valid { members: later });
    entry.seq = Some(5);
    n2.manager.entry_added(&entry);
    assert!(n2.manager.counts(&"n1".into(), "n1-2") && !n2.manager.counts(&"n1".into(), "n1-1"));
    let mut other = Message::new(MessageType::Chat, "alice");
    other.seq = Some(4);
    n2.manager.entry_added(&other);
    assert!(n2.manager.counts(&"n1".into(), "n1-1"));
}

#[test]
fn what_was_recovered_is_what_was_known() {
    let mut n3 = Stage::new("n3", 3);
    n3.hear("n1", &proposed("n1", "a", &["n1", "n2", "n3"])).unwrap();
    let mut again = Stage::new("n3", 3);
    n3.log.records().iter().for_each(|record| again.manager.recover(record));
    again.hear("n0", &proposed("n0", "b", &["n0", "n2", "n3"])).unwrap();
    assert_eq!(again.sync(), [], "it has taken a");
    n3.hear("n1", &valid("a", &["n1", "n2", "n3"])).unwrap();
    let mut again = Stage::new("n3", 3);
    n3.log.records().iter().for_each(|record| again.manager.recover(record));
    assert_eq!(again.manager.members(), n3.manager.members());
}

#[test]
fn a_list_changes_for_learners_and_addresses_but_not_for_wiped_voters() {
    let mut n1 = Stage::new("n1", 2);
    n1.hear("n2", &valid("a", &["n1", "n2"])).unwrap();
    let manager = &n1.manager;
    assert_eq!(manager.with_member(&"n2".into(), &member("n2", 1)), None);
    assert_eq!(manager.with_member(&"n2".into(), &member("n2", 2)), None);
    let moved = Member { address: "n2:8000".into(), ..member("n2", 1) };
    let changed = manager.with_member(&"n2".into(), &moved).unwrap();
    assert_eq!((changed.voters.get(&"n2".into()), changed.version), (Some(&moved), 2));
    let learner = manager.with_member(&"n4".into(), &member("n4", 1)).unwrap();
    assert_eq!((learner.learners.len(), learner.voters.len()), (1, 2));
    assert_eq!(manager.get_higher_priority_peers(), [NodeId::from("n2")]);
}

#[test]
fn two_proposals_that_block_each_other_are_followed_by_one_that_does_not() {
    // n1 has not heard n2, which proposed before; n3 has taken that.
    let mut n1 = Stage::new("n1", 2);
    n1.hear("n3", &join("n3", 1, None)).unwrap();
    assert_eq!(n1.sync().len(), 1);
    let mut n3 = Stage::new("n3", 2);
    n3.hear("n2", &proposed("n2", "a", &["n2", "n3"])).unwrap();
    n3.hear("n1", &proposed("n1", "b", &["n1", "n3"])).unwrap();
    assert_eq!(n3.sync().len(), 1, "n2 may have found its own valid");
    n1.hear("n2", &join("n2", 1, None)).unwrap();
    let sent = n1.sync();
    let [(_, MembersContent::Proposed { members, .. })] = &sent[..] else { panic!("{sent:?}") };
    assert!(members.voters.contains_key(&"n2".into()), "n2 gives its own up: {members:?}");
}
