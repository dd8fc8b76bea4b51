//! Limits and refusals of one server; stories of several are in `tests/scripts/ordering`.

use std::time::Duration;

use super::*;
use crate::domain::Content;
use crate::domain::content::{
    CatchupReq, LeaderHeartbeat, Member, Members, MembersContent, OrderingAck, PromiseContent,
};
use crate::network::transport::Outbox;
use crate::storage::{LogEvent, MemoryLog, Storage};

/// n1 of three voters, with its network and disk. n2 and n3 are played by the test.
struct Stage {
    ms: u64,
    outbox: Outbox,
    log: MemoryLog,
    manager: OrderingManager,
}

impl Stage {
    fn new() -> Self {
        Self::with_tail(TAIL_BYTES)
    }

    /// Of the log's end it keeps `tail_bytes` in memory.
    fn with_tail(tail_bytes: usize) -> Self {
        let member =
            |id: &str| Member { address: format!("{id}:7000"), disk_id: format!("{id}-1") };
        let voters = ["n1", "n2", "n3"].map(|id| (id.into(), member(id)));
        let (cluster_id, learners) = ("c".into(), BTreeMap::new());
        let members = Members { cluster_id, version: 1, voters: voters.into(), learners };
        let rng = fastrand::Rng::with_seed(1);
        let membership = MembershipManager::new("n1".into(), member("n1"), 3, rng.clone());
        let mut manager = OrderingManager::new(OrderingConfig {
            incarnation: "n1.1-0000".into(),
            timing: OrderingTiming::default(),
            ack_rule: AckRule::Majority,
            membership,
            rng,
            tail_bytes,
            batch_bytes: BATCH_BYTES,
            uncommitted_max: UNCOMMITTED_MAX,
            piece_bytes: PIECE_BYTES,
        });
        let valid = MembersContent::Valid { members };
        let valid = Message::new(MessageType::Members, "").saying(&valid);
        let log = MemoryLog::new();
        log.append(&valid);
        manager.recover(valid);
        let mut stage = Self { ms: 0, outbox: Outbox::new(), log, manager };
        for id in ["n2", "n3"] {
            stage.step(|manager, step| manager.link_up(&id.into(), step));
        }
        stage.outbox.take();
        stage
    }

    /// n1 leads in term 1, and n2 and n3 have its first entry.
    fn leading() -> Self {
        Self::new().lead()
    }

    fn lead(mut self) -> Self {
        let stage = &mut self;
        stage.step(TotalOrder::nominate);
        let disk_id = "n2-1".into();
        let granted = PromiseContent::Granted { end: Place::default(), disk_id };
        stage.hear("n2", MessageType::Promise, 1, &granted);
        stage.acks(1);
        assert_eq!(stage.manager.state(), ServerState::Leader);
        self
    }

    fn step<T>(&mut self, act: impl FnOnce(&mut OrderingManager, &Step) -> T) -> T {
        let now = crate::testing::start() + Duration::from_millis(self.ms);
        let step = Step { now, wall_ms: self.ms, cm: &self.outbox, log: &self.log };
        let answer = act(&mut self.manager, &step);
        self.manager.on_synced(self.log.appended());
        self.manager.settle(&step);
        self.manager.on_synced(self.log.appended());
        self.manager.settle(&step);
        for event in self.log.take_events() {
            if let LogEvent::Read { token, from, records } = event {
                self.manager.on_read(token, from, records);
                self.manager.settle(&step);
            }
        }
        answer
    }

    fn hear<T: serde::Serialize>(&mut self, from: &str, kind: MessageType, counter: u64, said: &T) {
        let mut msg = Message::new(kind, from).saying(said);
        let leader = if counter == 1 { "n1.1-0000" } else { "n3.1-0000" };
        msg.term = (counter > 0).then(|| Term { counter, leader: leader.into() });
        let from = from.into();
        self.step(|manager, step| manager.handle_message(&from, &msg, step)).unwrap();
    }

    /// Nobody says anything, until it neither leads nor follows.
    fn is_left_alone(&mut self) {
        for _ in 0..20 {
            self.ms += 50;
            self.step(TotalOrder::tick);
        }
        assert_eq!(self.manager.leader(), None);
    }

    fn acks(&mut self, seq: Seq) {
        for id in ["n2", "n3"] {
            let ack = OrderingAck::Synced { seq, disk_id: format!("{id}-1") };
            self.hear(id, MessageType::Ack, 1, &ack);
        }
    }

    fn chat(&mut self, text: String) -> Option<Seq> {
        let mut chat = Message::new(MessageType::Chat, "alice");
        chat.content = Content::Text(text);
        self.step(|manager, step| manager.propose(chat, step))
    }

    /// The batches that were sent to `id`: the places of their first and last entries.
    fn batches(&mut self, id: &str) -> Vec<(Seq, Seq)> {
        let sent = self.outbox.take_to_nodes();
        let to_id = sent.into_iter().filter(|(to, msg)| {
            to.as_ref() == Some(&id.into()) && msg.message_type == MessageType::SeqChat
        });
        let batches = to_id.map(|(_, msg)| msg.content.parse::<SeqChat>().unwrap());
        let ends = batches.map(|b| (b.prev.seq + 1, b.prev.seq + b.entries.len() as Seq));
        ends.collect()
    }

    /// n3 leads in term `counter`, and says so.
    fn beat(&mut self, counter: u64, prev: Place, active: bool) {
        let beat = LeaderHeartbeat { prev, committed: 0, active, held: 0 };
        self.hear("n3", MessageType::Heartbeat, counter, &beat);
    }
}

#[test]
fn a_batch_and_what_is_on_the_way_are_bounded() {
    let mut n1 = Stage::leading();
    n1.batches("n2");
    for _ in 0..40 {
        n1.chat("x".repeat(100_000)).unwrap();
    }
    let sent = n1.batches("n2");
    let last = sent.last().unwrap().1;
    assert!((11..14).contains(&last), "about 1 MiB in entries of 100 kB, not up to {last}");
    n1.acks(last);
    let sent = n1.batches("n2");
    assert!(sent.iter().all(|(first, last)| last - first < 3), "{sent:?}");
    assert!(sent.last().unwrap().1 > last + 8, "it goes on after an acknowledgement: {sent:?}");
}

#[test]
fn one_slow_follower_does_not_hold_up_the_others() {
    let mut n1 = Stage::leading();
    for _ in 0..40 {
        let seq = n1.chat("x".repeat(100_000)).unwrap();
        let ack = OrderingAck::Synced { seq, disk_id: "n3-1".into() };
        n1.hear("n3", MessageType::Ack, 1, &ack);
    }
    assert_eq!(n1.manager.committed(), 41);
}

#[test]
fn a_leader_takes_no_more_than_the_disks_can_follow() {
    let mut n1 = Stage::leading();
    let accepted = (0..UNCOMMITTED_MAX + 10).filter(|_| {
        // Without the outbox of a whole step: only the limit matters here.
        let now = crate::testing::start();
        let step = Step { now, wall_ms: 0, cm: &n1.outbox, log: &n1.log };
        n1.manager.propose(Message::new(MessageType::Chat, "alice"), &step).is_some()
    });
    assert_eq!(accepted.count() as Seq, UNCOMMITTED_MAX);
}

#[test]
fn entries_ahead_of_their_turn_are_kept_up_to_a_bound() {
    let mut n1 = Stage::new();
    let term = Some(Term { counter: 2, leader: "n3.1-0000".into() });
    let entries = (10..10 + BUFFER_MAX as Seq + 50).map(|seq| {
        let mut chat = Message::new(MessageType::Chat, "alice");
        (chat.seq, chat.term) = (Some(seq), term.clone());
        chat.into()
    });
    let batch = SeqChat {
        kind: SeqChatKind::Order,
        prev: Place { term: term.clone(), seq: 9 },
        entries: entries.collect(),
        committed: 0,
        active: true,
        history_starts: false,
        state: None,
        members: None,
    };
    n1.hear("n3", MessageType::SeqChat, 2, &batch);
    assert_eq!(n1.manager.buffered().len(), BUFFER_MAX);
    assert_eq!(n1.manager.last(), 0);
}

#[test]
fn the_same_catchup_is_not_asked_for_twice_within_an_interval() {
    let mut n1 = Stage::new();
    let prev = Place { term: Some(Term { counter: 2, leader: "n3.1-0000".into() }), seq: 9 };
    let asked = |n1: &mut Stage| {
        let sent = n1.outbox.take_to_nodes();
        sent.iter().filter(|(_, msg)| msg.message_type == MessageType::CatchupReq).count()
    };
    n1.ms = 1000;
    n1.beat(2, prev.clone(), true);
    n1.beat(2, prev.clone(), true);
    assert_eq!(asked(&mut n1), 1);
    n1.ms += 100;
    n1.beat(2, prev, true);
    assert_eq!(asked(&mut n1), 1);
}

#[test]
fn an_acknowledgement_beyond_the_log_is_not_believed() {
    let mut n1 = Stage::leading();
    n1.acks(99);
    assert_eq!((n1.manager.committed(), n1.manager.last()), (1, 1));
}

#[test]
fn a_term_without_its_leader_or_beyond_the_limit_is_refused() {
    let mut n1 = Stage::new();
    let mut msg = Message::new(MessageType::Promise, "n3");
    msg.term = Some(Term { counter: COUNTER_MAX + 1, leader: "n3.1-0000".into() });
    let error = n1.step(|manager, step| manager.handle_message(&"n3".into(), &msg, step));
    assert_eq!(error.unwrap_err().code(), "INVALID_FIELD");
    // n2 cannot lead in n3's term, nor ask in its name.
    let beat = LeaderHeartbeat { prev: Place::default(), committed: 0, active: true, held: 0 };
    n1.hear("n2", MessageType::Heartbeat, 2, &beat);
    n1.hear("n2", MessageType::Promise, 2, &PromiseContent::Request { handover: false });
    assert_eq!((n1.manager.leader(), n1.manager.promised()), (None, None));
}

#[test]
fn entries_that_do_not_follow_each_other_are_refused() {
    let mut n1 = Stage::new();
    let mut chat = Message::new(MessageType::Chat, "alice");
    let term = Term { counter: 2, leader: "n3.1-0000".into() };
    (chat.seq, chat.term) = (Some(2), Some(term.clone()));
    let batch = SeqChat {
        kind: SeqChatKind::Order,
        prev: Place::default(),
        entries: vec![chat.into()],
        committed: 2,
        active: true,
        history_starts: false,
        state: None,
        members: None,
    };
    let mut msg = Message::new(MessageType::SeqChat, "n3").saying(&batch);
    msg.term = Some(term);
    let error = n1.step(|manager, step| manager.handle_message(&"n3".into(), &msg, step));
    assert_eq!(error.unwrap_err().code(), "INVALID_FIELD");
    assert_eq!(n1.manager.last(), 0);
}

#[test]
fn what_no_server_sends_never_panics() {
    let texts =
        [r"{}", r#"{"kind":"request"}"#, r#"{"after":{"term":null,"seq":18446744073709551615}}"#];
    for text in texts {
        for kind in MessageType::ALL {
            let mut n1 = Stage::leading();
            let line = format!(r#"{{"type":"{kind}","sender_id":"n2","content":{text}}}"#);
            let msg = Message::deserialize(&line).unwrap();
            _ = n1.step(|manager, step| manager.handle_message(&"n2".into(), &msg, step));
            n1.chat("still here".into()).unwrap();
        }
    }
}

#[test]
fn a_server_that_slept_accuses_nobody() {
    let mut n1 = Stage::new();
    n1.step(TotalOrder::tick);
    n1.beat(2, Place::default(), true);
    n1.ms = 60_000;
    n1.step(TotalOrder::tick);
    assert_eq!(n1.manager.leader(), Some("n3".into()));
    for _ in 0..14 {
        n1.ms += 50;
        n1.step(TotalOrder::tick);
    }
    assert_eq!(n1.manager.leader(), None);
}

#[test]
fn a_leader_that_slept_is_heard_by_nobody_but_waits_for_answers() {
    let mut n1 = Stage::leading();
    n1.step(TotalOrder::tick);
    n1.ms = 60_000;
    n1.step(TotalOrder::tick);
    assert_eq!(n1.manager.state(), ServerState::Leader);
    let seq = n1.chat("asleep".into()).unwrap();
    assert!(n1.manager.committed() < seq, "nobody has confirmed it");
    n1.beat(2, Place::default(), true);
    assert_eq!(n1.manager.leader(), Some("n3".into()));
}

#[test]
fn catching_up_finds_where_two_logs_part_in_a_few_steps() {
    let mut n1 = Stage::leading();
    for n in 0..30 {
        n1.chat(format!("{n}")).unwrap();
    }
    n1.outbox.take();
    // n2 has 20 entries of another term where this log has its own.
    let term = Some(Term { counter: 0, leader: "n2.1-0000".into() });
    let after = Place { term, seq: 20 };
    n1.hear("n2", MessageType::CatchupReq, 1, &CatchupReq { after, state: None });
    assert_eq!(n1.batches("n2"), [(1, 31)], "all of it is of one term, so it starts before that");
}

/// n1 leads, and 5,000 entries are committed, of which 1,000 bytes are in memory; n3 said nothing since the first.
fn with_old_entries() -> Stage {
    let mut n1 = Stage::with_tail(1000).lead();
    n1.step(|manager, step| manager.node_failed(&"n3".into(), step));
    for seq in 2..=5000 {
        assert_eq!(n1.chat("x".repeat(500)), Some(seq));
        let ack = OrderingAck::Synced { seq, disk_id: "n2-1".into() };
        n1.hear("n2", MessageType::Ack, 1, &ack);
        assert_eq!(n1.manager.take_committed().last().and_then(|entry| entry.seq), Some(seq));
    }
    n1.step(|_, _| ());
    let log = n1.manager.journal.log();
    assert!(log.released() > 4990 && log.get(4990).is_none(), "{}", log.released());
    n1.outbox.take();
    n1
}

/// The entries in the batches that were sent to `id`, each batch in its place, and how long they are on the wire.
fn sent_to(n1: &Stage, id: &str) -> (Vec<Entry>, usize) {
    let sent = n1.outbox.take_to_nodes().into_iter();
    let mut bytes = 0;
    let entries = sent.filter(|(to, msg)| {
        to.as_ref() == Some(&id.into()) && msg.message_type == MessageType::SeqChat
    });
    let entries = entries.flat_map(|(_, msg)| {
        bytes += msg.to_frame().len();
        msg.content.parse::<SeqChat>().unwrap().entries
    });
    (entries.collect(), bytes)
}

#[test]
fn a_follower_that_was_away_is_caught_up_from_the_disk_a_window_at_a_time() {
    let mut n1 = with_old_entries();
    n1.step(|manager, step| manager.link_up(&"n3".into(), step));
    let mut here = 1;
    let mut turns = 0;
    while here < 5000 {
        // Reads follow each other as long as there is room on the way; then an acknowledgement makes room.
        let (mut entries, mut bytes) = (Vec::new(), 0);
        loop {
            n1.step(|_, _| ());
            let (more, long) = sent_to(&n1, "n3");
            if more.is_empty() {
                break;
            }
            entries.extend(more);
            bytes += long;
        }
        assert!(bytes < WINDOW_BYTES + 2 * BATCH_BYTES, "{bytes}");
        let places: Vec<Seq> = entries.iter().filter_map(|entry| entry.seq).collect();
        let wanted: Vec<Seq> = (here + 1..=here + places.len() as Seq).collect();
        let ends = (places.first(), places.last());
        assert!(!places.is_empty() && places == wanted, "{ends:?} after {here}");
        here += places.len() as Seq;
        turns += 1;
        let ack = OrderingAck::Synced { seq: here, disk_id: "n3-1".into() };
        n1.hear("n3", MessageType::Ack, 1, &ack);
        // Meanwhile it goes on.
        n1.chat("meanwhile".into()).unwrap();
        let (entries, _) = sent_to(&n1, "n3");
        here += entries.len() as Seq;
    }
    assert!(turns >= 3, "2.5 MB through a window of 1 MiB in {turns} turns");
}

#[test]
fn a_server_without_a_leader_is_sent_committed_entries_from_the_disk_and_no_others() {
    let mut n1 = with_old_entries();
    // It does not lead any more, and has an entry that is not committed.
    n1.chat("not committed".into()).unwrap();
    n1.is_left_alone();
    n1.outbox.take();
    let mut here = 0;
    while here < 5000 {
        let after = Place { seq: here, term: n1.manager.journal.place_at(here).unwrap().term };
        n1.hear("n3", MessageType::CatchupReq, 0, &CatchupReq { after, state: None });
        let (entries, bytes) = sent_to(&n1, "n3");
        assert!(bytes < 2 * BATCH_BYTES, "one batch: {bytes}");
        for entry in entries {
            here += 1;
            assert_eq!(entry.seq, Some(here));
        }
    }
    let after = n1.manager.journal.place_at(here).unwrap();
    n1.hear("n3", MessageType::CatchupReq, 0, &CatchupReq { after, state: None });
    assert!(sent_to(&n1, "n3").0.is_empty(), "the last one may still be cut");
}

#[test]
fn what_is_read_back_are_the_entries_that_stand() {
    let mut n1 = Stage::with_tail(0);
    let term = |counter| Some(Term { counter, leader: "n3.1-0000".into() });
    let entry = |seq, counter, text: &str| {
        let mut entry = Message::new(MessageType::Chat, "alice").with_id(text);
        (entry.seq, entry.term) = (Some(seq), term(counter));
        Entry::from(entry)
    };
    let batch = |prev: Place, entries, committed| SeqChat {
        kind: SeqChatKind::Order,
        prev,
        entries,
        committed,
        active: true,
        history_starts: false,
        state: None,
        members: None,
    };
    // 2 and 3 of term 1 are cut by those of term 2, and a promise stands between.
    let first = vec![entry(1, 1, "a"), entry(2, 1, "cut"), entry(3, 1, "cut, too")];
    n1.hear("n3", MessageType::SeqChat, 9, &batch(Place::default(), first, 0));
    let then = vec![entry(2, 2, "b"), entry(3, 2, "c")];
    n1.hear("n3", MessageType::SeqChat, 10, &batch(Place { seq: 1, term: term(1) }, then, 3));
    assert_eq!(n1.manager.take_committed().len(), 3);
    n1.step(|_, _| ());
    assert_eq!(n1.manager.journal.log().released(), 3);
    n1.is_left_alone();
    n1.outbox.take();
    n1.hear("n2", MessageType::CatchupReq, 0, &CatchupReq::default());
    let (entries, _) = sent_to(&n1, "n2");
    let ids: Vec<&str> = entries.iter().map(|entry| entry.message_id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    // After a restart, too.
    let mut again = Stage::with_tail(0);
    let records = n1.log.records().into_iter().skip(1);
    for record in records {
        again.log.append(&record);
        again.manager.recover(record);
    }
    for seq in 1..=3 {
        let record = again.manager.journal.record_of(seq).unwrap();
        assert_eq!(again.log.records()[record as usize - 1], *entries[seq as usize - 1]);
    }
}

#[test]
fn a_promise_outlives_a_restart() {
    let mut n1 = Stage::new();
    n1.hear("n3", MessageType::Promise, 7, &PromiseContent::Request { handover: false });
    let mut again = Stage::new();
    n1.log.records().into_iter().for_each(|record| again.manager.recover(record));
    assert_eq!(again.manager.promised().map(|term| term.counter), Some(7));
    again.outbox.take();
    again.beat(2, Place::default(), true);
    assert_eq!(again.manager.leader(), None, "2 is stale");
    let sent = again.outbox.take_to_nodes();
    let refused = |msg: &Message| matches!(msg.content.parse(), Ok(PromiseContent::Refused { promised, .. }) if promised.counter == 7);
    assert!(sent.iter().any(|(_, msg)| refused(msg)), "{sent:?}");
}

#[test]
fn profiles_of_time_keep_their_proportions() {
    for timing in [OrderingTiming::default(), OrderingTiming::document()] {
        assert!(timing.heartbeat_interval * 3 <= timing.leader_timeout);
        assert!(timing.loyalty() < timing.leader_timeout);
        assert!(timing.leader_timeout <= timing.election_timeout);
    }
}
