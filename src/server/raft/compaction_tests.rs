//! Snapshots of one follower, whose leader and disk the tests play.

use std::sync::Arc;

use super::*;
use crate::domain::raft_content::{AppendEntries, HexBytes, InstallSnapshot, SnapshotHead};
use crate::network::transport::Outbox;
use crate::server::total_order::TotalOrder;
use crate::storage::snapshot::Contents;
use crate::storage::{LogEvent, MemoryLog, PackedBytes, Storage};
use crate::testing::start;

const ENTRIES_KEPT: u64 = 2;
const STATE: &[u8] = b"0123456789";

struct Follower {
    node: RaftNode,
    log: MemoryLog,
    /// What it has said since it was asked last.
    said: Vec<Message>,
    /// All snapshots that it has saved.
    files: Vec<Contents>,
    /// Up to where the disk has synced, when not everything.
    synced: Option<LogIndex>,
    /// What the disk says about a snapshot waits.
    is_slow: bool,
    waiting: Vec<LogEvent>,
    ms: u64,
}

impl Follower {
    /// One without anything.
    fn new() -> Self {
        Self::recover(None, &[]).unwrap()
    }

    /// One that finds this snapshot and these records.
    fn recover(file: Option<&Contents>, records: &[Message]) -> Result<Self, String> {
        let rng = fastrand::Rng::with_seed(1);
        let timing = RaftTiming::default();
        let node = RaftNode::new("n2".into(), "n2.1-0000".into(), "d2", rng, timing);
        let mut node = node.keeping_entries(ENTRIES_KEPT);
        let log = MemoryLog::new();
        if let Some(file) = file {
            node.recover_snapshot(file)?;
        }
        for record in records {
            log.append(record);
            node.recover(record.clone());
        }
        node.recovered()?;
        let files = file.cloned().into_iter().collect();
        let (said, waiting) = (Vec::new(), Vec::new());
        Ok(Self { node, log, said, files, synced: None, is_slow: false, waiting, ms: 0 })
    }

    /// The same server after a crash, with all that was synced.
    fn restart(&self) -> Self {
        let kept = self.log.records();
        let synced = self.synced.map_or(kept.len(), |index| usize::try_from(index).unwrap());
        Self::recover(self.files.last(), &kept[..synced]).unwrap()
    }

    fn step(&mut self, act: impl FnOnce(&mut RaftNode, &Step)) {
        let Self { node, log, .. } = self;
        let outbox = Outbox::new();
        let now = start() + Duration::from_millis(self.ms);
        let step = Step { now, wall_ms: 0, cm: &outbox, log };
        act(node, &step);
        node.settle(&step);
        let appended = log.append(&Message::new(MessageType::Status, ""));
        node.on_synced(self.synced.unwrap_or(appended));
        node.settle(&step);
        self.waiting.extend(log.take_events());
        if !self.is_slow {
            for event in self.waiting.drain(..) {
                if let LogEvent::SnapshotSaved(_) = event {
                    self.files.extend(log.snapshot().map(|(_, file)| file));
                }
                node.on_log_event(&event);
                node.settle(&step);
            }
            let appended = log.append(&Message::new(MessageType::Status, ""));
            node.on_synced(self.synced.unwrap_or(appended));
            node.settle(&step);
        }
        if let Some(first) = node.renew_journal(&step) {
            log.forget_before(first);
        }
        self.said.extend(outbox.take_to_nodes().into_iter().map(|(_, msg)| msg));
    }

    fn hear(&mut self, message_type: MessageType, content: &impl serde::Serialize) {
        let msg = Message::new(message_type, "n1").saying(content);
        self.step(|node, step| node.handle_message(&"n1".into(), &msg, step).unwrap());
    }

    /// The leader of `term` sends entries of these terms behind `prev`, and has committed up to `commit`.
    fn append(&mut self, term: u64, prev: (Seq, u64), terms: &[u64], commit: Seq) {
        let entries = (prev.0 + 1..).zip(terms).map(|(seq, counter)| {
            let mut entry =
                Message::new(MessageType::Chat, "alice").with_id(format!("{seq}@{counter}"));
            entry.seq = Some(seq);
            entry.term = Some(Term { counter: *counter, leader: leader(*counter) });
            Arc::new(entry)
        });
        let request = AppendEntries::Request {
            term,
            leader: leader(term),
            prev_log_index: prev.0,
            prev_log_term: prev.1,
            entries: entries.collect(),
            leader_commit: commit,
            round: 1,
        };
        self.hear(MessageType::AppendEntries, &request);
    }

    /// The leader of `term` sends a piece of a snapshot.
    fn chunk(&mut self, term: u64, head: &SnapshotHead, offset: usize, data: &[u8]) -> u64 {
        self.said.clear();
        let request = InstallSnapshot::Request {
            term,
            leader: leader(term),
            head: head.clone(),
            offset: offset as u64,
            data: HexBytes(data.to_vec()),
        };
        self.hear(MessageType::InstallSnapshot, &request);
        let mut answers =
            self.said.iter().filter(|m| m.message_type == MessageType::InstallSnapshot);
        match answers.next_back().unwrap().content.parse().unwrap() {
            InstallSnapshot::Answer { offset, .. } => offset,
            other => panic!("{other:?}"),
        }
    }

    /// How far it has said that its log is the leader's, and on its disk.
    fn accepted(&self) -> Option<Seq> {
        let said = self.said.iter().filter_map(|msg| msg.content.parse().ok());
        let matches = said.filter_map(|content| match content {
            AppendEntries::Accepted { match_index, .. } => Some(match_index),
            _ => None,
        });
        matches.max()
    }

    /// Applies what is committed, and begins a snapshot there.
    fn compact(&mut self) -> bool {
        self.node.take_snapshot();
        self.node.take_committed();
        let seq = self.node.last_applied;
        let mut did = false;
        self.step(|node, step| did = node.compact(seq, Box::new(|| PackedBytes::new(STATE)), step));
        did
    }

    /// The terms of the entries in memory, behind which place they begin.
    fn entries(&self) -> (Seq, Vec<u64>) {
        let log = self.node.log();
        let places = log.base() + 1..=log.last();
        (log.base(), places.map(|seq| self.node.term_number(seq).unwrap()).collect())
    }

    /// The places of the entries that are on the disk.
    fn on_disk(&self) -> Vec<Seq> {
        self.log.kept().iter().filter_map(|record| record.seq).collect()
    }
}

fn leader(term: u64) -> Incarnation {
    Incarnation::new(&"n1".into(), term, 0)
}

fn head(seq: Seq, term: u64) -> SnapshotHead {
    SnapshotHead {
        last_included_index: seq,
        last_included_term: Some(Term { counter: term, leader: leader(term) }),
        configuration: Configuration::default(),
        total: STATE.len() as u64,
        checksum: crc32fast::hash(STATE),
    }
}

/// With entries 1 to `last` of term 1, all committed.
fn filled(last: Seq) -> Follower {
    let mut follower = Follower::new();
    follower.append(1, (0, 0), &vec![1; usize::try_from(last).unwrap()], last);
    follower
}

#[test]
fn a_snapshot_replaces_the_log_in_memory_at_once_and_on_disk_when_there_are_two() {
    let mut follower = filled(10);
    assert!(follower.compact());
    assert_eq!(follower.entries(), (8, vec![1, 1]), "two entries stay behind it");
    assert_eq!(follower.on_disk().first(), Some(&1), "the only snapshot may be damaged");
    assert!(!follower.compact(), "nothing was applied since");
    follower.append(1, (10, 1), &[1; 10], 20);
    assert!(follower.compact());
    assert_eq!(follower.entries(), (18, vec![1, 1]));
    // From the entry on that tells the term of the place where the older snapshot ends.
    assert_eq!(follower.on_disk().first(), Some(&10));
}

#[test]
fn what_a_start_finds_behind_the_snapshot_is_packed_and_applied_in_parts() {
    const ENTRIES: u64 = 6000;
    let text = "x".repeat(1024);
    let records: Vec<Message> = (1..=ENTRIES)
        .map(|seq| {
            let mut entry = Message::new(MessageType::Chat, "alice").with_id(format!("{seq}"));
            entry.content = text.as_str().into();
            entry.seq = Some(seq);
            entry.term = Some(Term { counter: 1, leader: leader(1) });
            entry
        })
        .collect();
    let mut follower = Follower::recover(None, &records).unwrap();
    let released = follower.node.log().released();
    assert!(released > 1000 && !follower.node.has_committed(), "{released} are packed");
    follower.append(2, (ENTRIES, 1), &[2], ENTRIES + 1);
    let mut parts = Vec::new();
    while follower.node.has_committed() {
        parts.push(follower.node.take_committed());
    }
    assert!(parts.len() > 1 && parts.iter().all(|part| part.len() < 5000));
    let applied: Vec<Message> = parts.concat().iter().map(|entry| (**entry).clone()).collect();
    assert_eq!(applied[..records.len()], records);
    assert_eq!(applied.last().and_then(|entry| entry.seq), Some(ENTRIES + 1));
}

#[test]
fn either_snapshot_with_the_log_gives_everything() {
    let mut follower = filled(10);
    follower.compact();
    follower.append(1, (10, 1), &[1; 10], 20);
    follower.compact();
    follower.append(2, (20, 1), &[2], 20);
    let [older, newer] = [0, 1].map(|at| follower.files[at].clone());
    for (file, restored) in [(&newer, 20), (&older, 10)] {
        let mut again = Follower::recover(Some(file), &follower.log.kept()).unwrap();
        assert_eq!(again.node.take_snapshot().map(|snapshot| snapshot.seq()), Some(restored));
        assert_eq!(again.node.log().end(), follower.node.log().end());
        assert_eq!(again.entries().0, if restored == 20 { 18 } else { 10 });
        assert_eq!(again.node.current_term(), 2, "the vote was written again");
    }
    let lost = Follower::recover(None, &follower.log.kept()).err();
    assert_eq!(lost.unwrap(), "the log begins after entry 10, and no snapshot of that is sound");
}

#[test]
fn one_snapshot_and_the_whole_log_are_enough_without_the_snapshot() {
    let mut follower = filled(10);
    follower.compact();
    let again = Follower::recover(None, &follower.log.kept()).unwrap();
    assert_eq!(again.node.log().end(), follower.node.log().end());
    assert_eq!(again.entries().0, 0);
}

#[test]
fn nothing_is_forgotten_before_the_snapshot_is_durable() {
    let mut follower = filled(10);
    follower.is_slow = true;
    assert!(follower.compact());
    assert!(!follower.compact(), "one at a time");
    assert_eq!((follower.entries().0, follower.on_disk().len()), (0, 10));
    follower.append(1, (10, 1), &[1], 11);
    follower.is_slow = false;
    follower.step(|_, _| ());
    assert_eq!(follower.entries(), (8, vec![1, 1, 1]));
}

#[test]
fn a_snapshot_without_room_on_the_disk_costs_nothing() {
    let mut follower = filled(10);
    follower.is_slow = true;
    assert!(follower.compact());
    follower.waiting = vec![LogEvent::SnapshotNotSaved { seq: 10, reason: "full".into() }];
    follower.is_slow = false;
    follower.step(|_, _| ());
    assert_eq!((follower.entries().0, follower.on_disk().len()), (0, 10));
    assert!(follower.compact(), "it may be tried again");
    assert_eq!(follower.entries().0, 8);
}

#[test]
fn a_snapshot_is_made_while_entries_behind_it_are_not_synced() {
    let mut follower = filled(10);
    follower.node.take_committed();
    follower.synced = Some(follower.log.records().len() as LogIndex);
    follower.said.clear();
    follower.append(1, (10, 1), &[1, 1], 10);
    follower.compact();
    assert_eq!(follower.entries(), (8, vec![1; 4]));
    assert!(follower.accepted() < Some(11), "11 and 12 are not on the disk");
    let again = follower.restart();
    assert_eq!(again.node.log().last(), 10);
}

#[test]
fn a_follower_takes_a_snapshot_in_pieces_and_acknowledges_it_when_it_is_durable() {
    let mut follower = filled(2);
    let head = head(9, 2);
    assert_eq!(follower.chunk(2, &head, 0, &STATE[..4]), 4);
    assert_eq!(follower.chunk(2, &head, 8, &STATE[8..]), 4, "a piece is missing");
    assert_eq!(follower.chunk(2, &head, 0, &STATE[..4]), 4, "that one it has");
    follower.is_slow = true;
    assert_eq!(follower.chunk(2, &head, 4, &STATE[4..]), 10);
    assert_eq!(follower.accepted(), None);
    assert_eq!(follower.node.take_snapshot(), None);
    assert_eq!(follower.entries().1.len(), 2, "until then the log stays");
    assert_eq!(
        follower.chunk(2, &head, 10, &[]),
        10,
        "a leader that repeats itself hears the same"
    );
    follower.is_slow = false;
    follower.step(|_, _| ());
    assert_eq!(follower.accepted(), Some(9));
    let restored = follower.node.take_snapshot().unwrap();
    assert_eq!((restored.seq(), restored.state().get(0, 99)), (9, STATE.to_vec()));
    follower.append(2, (9, 2), &[2], 10);
    assert_eq!(follower.node.take_committed().len(), 1);
    let mut again = follower.restart();
    assert_eq!(again.entries(), (9, vec![2]));
    assert_eq!(again.node.take_snapshot().map(|snapshot| snapshot.seq()), Some(9));
}

#[test]
fn a_snapshot_that_arrives_damaged_or_too_long_is_asked_for_from_the_start() {
    let mut follower = filled(2);
    let head = head(9, 2);
    for wrong in [b"0123x56789".as_slice(), b"01234567890"] {
        assert_eq!(follower.chunk(2, &head, 0, &wrong[..4]), 4);
        assert_eq!(follower.chunk(2, &head, 4, &wrong[4..]), 0);
    }
    assert_eq!(follower.chunk(2, &head, 0, STATE), 10);
    assert_eq!(follower.node.take_snapshot().map(|snapshot| snapshot.seq()), Some(9));
}

#[test]
fn a_new_leader_goes_on_with_the_same_snapshot_and_begins_anew_with_another() {
    let mut follower = filled(2);
    assert_eq!(follower.chunk(2, &head(9, 2), 0, &STATE[..4]), 4);
    assert_eq!(follower.chunk(3, &head(9, 2), 0, &STATE[..4]), 4);
    assert_eq!(follower.chunk(3, &head(9, 2), 4, &STATE[4..6]), 6);
    assert_eq!(follower.chunk(2, &head(9, 2), 6, &STATE[6..]), 0, "the old one is not heard");
    assert_eq!(follower.chunk(4, &head(12, 3), 0, &STATE[..4]), 4);
    assert_eq!(follower.chunk(4, &head(12, 3), 4, &STATE[4..]), 10);
    assert_eq!(follower.node.take_snapshot().map(|snapshot| snapshot.seq()), Some(12));
}

#[test]
fn a_snapshot_of_what_the_log_has_changes_nothing() {
    let mut follower = filled(5);
    follower.node.take_committed();
    follower.append(1, (5, 1), &[1, 1], 5);
    follower.said.clear();
    assert_eq!(follower.chunk(1, &head(3, 1), 0, &STATE[..1]), 10, "it is stale");
    assert_eq!(follower.node.committed(), 5);
    assert_eq!(follower.chunk(1, &head(6, 1), 0, &STATE[..1]), 10, "entry 6 is here");
    assert_eq!(follower.node.committed(), 6, "and is known to be committed now");
    assert_eq!(follower.entries(), (0, vec![1; 7]));
    assert_eq!(follower.node.take_snapshot(), None);
    assert!(follower.files.is_empty());
}

#[test]
fn a_log_that_conflicts_with_the_snapshot_is_given_up() {
    let mut follower = filled(2);
    // Never committed: of a leader that died.
    follower.append(1, (2, 1), &[1; 10], 2);
    assert_eq!(follower.chunk(3, &head(9, 2), 0, STATE), 10);
    assert_eq!(follower.entries(), (9, vec![]));
    follower.append(3, (9, 2), &[3], 9);
    let again = follower.restart();
    assert_eq!(again.entries(), (9, vec![3]), "also after a restart: 10 to 12 are gone");
    // The disk is given up to the same place in memory, and no further than two snapshots allow.
    let without = Follower::recover(None, &follower.log.kept()).err();
    let lost = "there is no snapshot of entry 9, which the log goes on from";
    assert_eq!(
        without.as_deref(),
        Some(lost),
        "entries 3 to 9 of the records are another leader's"
    );
}

#[test]
fn entries_that_conflict_behind_a_snapshot_are_replaced() {
    let mut follower = filled(10);
    follower.compact();
    follower.append(1, (10, 1), &[1, 1, 1], 10);
    follower.append(2, (11, 1), &[2], 10);
    assert_eq!(follower.entries(), (8, vec![1, 1, 1, 2]));
    assert_eq!(follower.restart().entries(), (8, vec![1, 1, 1, 2]));
}

#[test]
fn a_crash_between_a_snapshot_and_the_record_that_tells_of_it_does_no_harm() {
    let mut follower = filled(2);
    follower.append(1, (2, 1), &[1; 10], 2);
    follower.append(3, (0, 0), &[], 0);
    // From here on no record reaches the disk.
    follower.synced = Some(follower.log.records().len() as LogIndex);
    follower.chunk(3, &head(9, 2), 0, STATE);
    assert_eq!(follower.files.len(), 1);
    assert!(follower.accepted() < Some(9));
    let mut again = follower.restart();
    assert_eq!(again.entries(), (9, vec![]));
    again.append(3, (9, 2), &[3], 9);
    assert_eq!(again.accepted(), Some(10));
    assert_eq!(again.restart().entries(), (9, vec![3]));
    assert!(Follower::recover(None, &again.log.kept()).is_err(), "it was acknowledged");
}

#[test]
fn the_leaders_snapshot_is_tried_again_when_the_disk_was_full() {
    let mut follower = filled(2);
    follower.is_slow = true;
    assert_eq!(follower.chunk(2, &head(9, 2), 0, STATE), 10);
    follower.waiting = vec![LogEvent::SnapshotNotSaved { seq: 9, reason: "full".into() }];
    follower.is_slow = false;
    follower.step(|_, _| ());
    assert_eq!(follower.chunk(2, &head(9, 2), 10, &[]), 10, "it need not be sent again");
    assert_eq!(follower.accepted(), None);
    follower.step(RaftNode::tick);
    follower.ms += 6_000;
    follower.step(RaftNode::tick);
    assert_eq!(follower.node.take_snapshot().map(|snapshot| snapshot.seq()), Some(9));
    assert_eq!(follower.accepted(), Some(9));
}

#[test]
fn a_snapshot_that_arrives_while_one_is_written_waits_for_it() {
    let mut follower = filled(4);
    follower.is_slow = true;
    assert!(follower.compact());
    assert_eq!(follower.chunk(2, &head(9, 2), 0, STATE), 10);
    follower.is_slow = false;
    follower.step(|_, _| ());
    follower.step(|_, _| ());
    assert_eq!(follower.files.len(), 2);
    assert_eq!(follower.node.take_snapshot().map(|snapshot| snapshot.seq()), Some(9));
}

#[test]
fn any_piece_of_a_log_that_begins_late_is_read_or_missed() {
    let mut follower = filled(10);
    follower.compact();
    follower.append(1, (10, 1), &[1, 1, 1], 10);
    follower.append(2, (11, 1), &[2, 2], 13);
    let (records, end) = (follower.log.records(), follower.node.log().end());
    for first in 0..records.len() {
        let entries = records[first..].iter().filter_map(|record| record.seq);
        let begins = entries.clone().next();
        match Follower::recover(follower.files.last(), &records[first..]) {
            Ok(again) if again.node.log().end() == end => {}
            // What stood between the snapshot and the first record is not there.
            Ok(again) => assert_eq!((begins, again.node.log().last()), (None, 10)),
            Err(lost) => assert!(begins > Some(11), "{first}: {lost}"),
        }
    }
}
