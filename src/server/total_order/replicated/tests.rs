//! What each entry does to the state, and that a snapshot is all of it.

use super::*;
use crate::domain::Message;

fn entry(seq: Seq, message_type: MessageType, session: &str, id: &str, at_ms: u64) -> Message {
    let user = format!("user of {session}");
    let mut msg = Message::new(message_type, user).with_id(id).in_room("lobby");
    (msg.seq, msg.session, msg.timestamp) = (Some(seq), Some(session.into()), Some(at_ms));
    msg
}

fn chat(seq: Seq, session: &str, id: &str, at_ms: u64) -> Entry {
    let mut msg = entry(seq, MessageType::Chat, session, id, at_ms);
    msg.content = format!("text of {id}").as_str().into();
    msg.into()
}

fn join(seq: Seq, session: &str, at_ms: u64, since: u64) -> Entry {
    let registration = Registration { since, ..Registration::default() };
    entry(seq, MessageType::ClientJoin, session, "", at_ms).saying(&registration).into()
}

fn delete(seq: Seq, session: &str, target: &str) -> Entry {
    let deletion = Deletion { target: target.into(), session: None };
    entry(seq, MessageType::Delete, session, "d", 0).saying(&deletion).into()
}

/// The sessions `s` and `t` are known, places 1 and 2.
fn storage() -> ReplicatedStorage {
    let mut storage = ReplicatedStorage::new();
    assert_eq!(storage.apply(&join(1, "s", 5, 5)), Applied::Registered);
    assert_eq!(storage.apply(&join(2, "t", 5, 5)), Applied::Registered);
    storage
}

#[test]
fn a_message_counts_once() {
    let mut storage = storage();
    assert_eq!(storage.apply(&chat(3, "s", "a", 5)), Applied::Stored);
    assert_eq!(storage.apply(&chat(4, "s", "a", 6)), Applied::Duplicate);
    assert_eq!(storage.apply(&chat(5, "t", "a", 6)), Applied::Stored, "another session's");
    assert_eq!(storage.apply(&chat(5, "t", "b", 6)), Applied::Nothing, "applied before");
    assert_eq!((storage.messages("lobby").len(), storage.applied()), (2, 5));
}

#[test]
fn a_session_that_nobody_knows_says_nothing() {
    let mut storage = storage();
    assert_eq!(storage.apply(&chat(3, "x", "a", 5)), Applied::Refused(Refusal::Expired));
    assert!(storage.messages("lobby").is_empty());
    storage.apply(&join(4, "x", 5, 5));
    assert_eq!(storage.apply(&chat(5, "x", "a", 5)), Applied::Stored);
}

#[test]
fn a_session_that_may_have_been_forgotten_is_not_taken_for_a_new_one() {
    let mut storage = ReplicatedStorage::new();
    storage.apply(&join(1, "s", 1000, 900));
    storage.apply(&chat(2, "s", "a", 1000));
    // A day later somebody else speaks, and s is forgotten.
    storage.apply(&join(3, "t", 1001 + SESSION_KEPT_MS, 1001));
    assert_eq!(storage.session("s"), None);
    let late = 1002 + SESSION_KEPT_MS;
    assert_eq!(storage.apply(&join(4, "s", late, 900)), Applied::Refused(Refusal::Expired));
    assert_eq!(storage.apply(&chat(5, "s", "a", late)), Applied::Refused(Refusal::Expired));
    // One that speaks since a time within the day was never here.
    assert_eq!(storage.apply(&join(6, "u", late, 1002)), Applied::Registered);
}

#[test]
fn after_a_quiet_week_a_new_session_is_taken() {
    let mut storage = ReplicatedStorage::new();
    storage.apply(&join(1, "s", 1000, 1000));
    let week = 7 * SESSION_KEPT_MS;
    assert_eq!(storage.apply(&join(2, "t", week, 1000)), Applied::Registered);
    assert_eq!(storage.apply(&chat(3, "t", "a", week)), Applied::Stored);
}

#[test]
fn sessions_are_forgotten_by_log_time_unless_they_go_on() {
    let mut storage = ReplicatedStorage::new();
    storage.apply(&join(1, "s", 1000, 1000));
    storage.apply(&join(2, "t", 1000, 1000));
    storage.apply(&chat(3, "s", "a", 1000));
    storage.apply(&join(4, "t", 1000 + SESSION_KEPT_MS, 1000));
    assert!(storage.contains("s", "a"));
    storage.apply(&chat(5, "t", "b", 1001 + SESSION_KEPT_MS));
    assert!(!storage.contains("s", "a") && storage.contains("t", "b"));
    let far = 1001 + 9 * SESSION_KEPT_MS;
    assert_eq!(
        storage.apply(&chat(6, "t", "c", far)),
        Applied::Stored,
        "still known when it speaks"
    );
}

#[test]
fn an_id_that_no_longer_fits_the_memory_is_refused_rather_than_applied_again() {
    let mut storage = storage();
    for n in 1..=SESSION_IDS_MAX as u64 + 1 {
        assert_eq!(storage.apply(&chat(n + 2, "s", &format!("s-{n}"), 5)), Applied::Stored);
    }
    let next = storage.applied() + 1;
    assert_eq!(storage.apply(&chat(next, "s", "s-1", 5)), Applied::Refused(Refusal::Expired));
    assert_eq!(storage.apply(&chat(next + 1, "s", "s-2", 5)), Applied::Duplicate);
}

#[test]
fn what_is_forgotten_leaves_sessions_and_accounts() {
    let mut storage = storage();
    for (seq, id) in [(3, "a"), (4, "b"), (5, "c")] {
        storage.apply(&chat(seq, "s", id, 5));
    }
    storage.apply(&delete(6, "s", "b"));
    storage.apply(&delete(7, "s", "c"));
    let digest = storage.digest();
    storage.forget_up_to(4);
    let places: Vec<Seq> = storage.room("lobby").unwrap().places().map(Place::seq).collect();
    assert_eq!(places, [5, 7], "the deletion of 4 is gone with it");
    assert_eq!(storage.message_storage().forgotten("lobby"), 4);
    assert_eq!((storage.message_storage().deleted(), storage.digest()), (1, digest));
    assert!(storage.contains("s", "a"));
    assert_eq!(storage.apply(&chat(8, "s", "a", 5)), Applied::Duplicate, "not said again");
    assert_eq!(storage.apply(&delete(9, "s", "a")), Applied::Refused(Refusal::NotFound));
    assert_eq!(storage.apply(&chat(10, "s", "d", 9)), Applied::Stored);
    assert_eq!(storage.message_storage().last_before(9), 5);
    // The same as bytes, and from them.
    let again = ReplicatedStorage::from_snapshot(&*storage.to_snapshot()).unwrap();
    assert_eq!(again.to_snapshot(), storage.to_snapshot());
    assert_eq!(again.message_storage().forgotten("lobby"), 4);
    assert_eq!(again.statistics(), storage.statistics());
    storage.forget_up_to(10);
    assert_eq!((storage.room("lobby").unwrap().len(), storage.statistics().messages), (0, 0));
    assert_eq!(storage.rooms().count(), 1, "the room is still there");
}

#[test]
fn what_is_known_without_messages_is_the_same_whenever_they_are_forgotten() {
    let entries = [
        join(1, "s", 5, 5),
        chat(2, "s", "a", 6),
        chat(3, "s", "b", 7),
        join(4, "t", 8, 8),
        chat(5, "t", "c", 9),
    ];
    let (mut at_once, mut late) = (ReplicatedStorage::new(), ReplicatedStorage::new());
    for entry in &entries {
        at_once.apply(entry);
        at_once.forget_up_to(at_once.applied());
        late.apply(entry);
    }
    late.forget_up_to(5);
    assert_eq!(at_once.to_snapshot(), late.to_snapshot());
}

#[test]
fn a_deleted_message_leaves_its_place() {
    let mut storage = storage();
    for (seq, id) in [(3, "a"), (4, "b")] {
        storage.apply(&chat(seq, "s", id, 5));
    }
    let before = storage.statistics();
    assert_eq!(storage.apply(&delete(5, "s", "a")), Applied::Deleted(3));
    let places: Vec<Seq> = storage.room("lobby").unwrap().places().map(Place::seq).collect();
    assert_eq!(places, [3, 4, 5]);
    assert_eq!(storage.messages("lobby").len(), 1);
    assert!(storage.message_storage().get("a").is_none());
    assert_eq!(storage.room("lobby").unwrap().at(3).unwrap().content, Content::Empty);
    let after = storage.statistics();
    assert_eq!((before.messages, after.messages, after.deleted), (2, 1, 1));
    assert_eq!(before.bytes - after.bytes, "text of a".len() as u64);
    assert_eq!(storage.apply(&delete(6, "s", "a")), Applied::Duplicate);
}

#[test]
fn only_who_said_a_message_deletes_it() {
    let mut storage = storage();
    storage.apply(&chat(3, "s", "a", 5));
    assert_eq!(storage.apply(&delete(4, "t", "a")), Applied::Refused(Refusal::NotYours));
    assert_eq!(storage.apply(&delete(5, "s", "x")), Applied::Refused(Refusal::NotFound));
    let mut elsewhere = (*delete(6, "s", "a")).clone();
    elsewhere.room_id = "kitchen".into();
    assert_eq!(storage.apply(&elsewhere.into()), Applied::Refused(Refusal::NotFound));
    storage.apply(&delete(7, "s", "a"));
    assert_eq!(storage.apply(&delete(8, "t", "a")), Applied::Refused(Refusal::NotFound), "gone");
}

/// CLIENT_JOIN of `alice` with a password that was right.
fn login(seq: Seq, session: &str, verifier: Option<&str>) -> Entry {
    let registration = Registration {
        since: 5,
        verifier: verifier.map(str::to_string),
        token_hash: Some(format!("hash of {session}'s")),
    };
    let mut msg = entry(seq, MessageType::ClientJoin, session, "", 5).saying(&registration);
    msg.sender_id = "alice".into();
    msg.into()
}

fn by_alice(entry: Entry) -> Entry {
    let mut entry = (*entry).clone();
    entry.sender_id = "alice".into();
    entry.into()
}

#[test]
fn the_first_password_of_a_name_counts_and_without_it_nobody_speaks_under_the_name() {
    let mut storage = ReplicatedStorage::new();
    storage.apply(&by_alice(join(1, "early", 5, 5)));
    assert_eq!(storage.apply(&login(2, "s", Some("v1"))), Applied::Registered);
    let refused = Applied::Refused(Refusal::NotAuthenticated);
    assert_eq!(storage.apply(&login(3, "t", Some("v2"))), refused, "another was first");
    assert_eq!(storage.account("alice").unwrap().verifier, "v1");
    assert_eq!(storage.apply(&login(4, "t", None)), Applied::Registered);
    assert_eq!(storage.apply(&by_alice(join(5, "u", 5, 5))), refused);
    assert_eq!(storage.apply(&by_alice(chat(6, "early", "x", 5))), refused);
    assert_eq!(storage.apply(&by_alice(chat(7, "t", "x", 5))), Applied::Stored);
    assert_eq!(
        storage.apply(&by_alice(delete(8, "s", "x"))),
        Applied::Deleted(7),
        "the user's own"
    );
    assert_eq!(storage.apply(&by_alice(join(9, "t", 6, 5))), Applied::Registered, "goes on");
    assert_eq!(storage.session("t").unwrap().token_hash.as_deref(), Some("hash of t's"));
}

#[test]
fn who_only_knows_a_session_deletes_nothing_of_it() {
    let mut storage = ReplicatedStorage::new();
    storage.apply(&login(1, "s", Some("v1")));
    storage.apply(&by_alice(chat(2, "s", "x", 5)));
    // As another user, over a server that does not know better.
    assert_eq!(storage.apply(&delete(3, "s", "x")), Applied::Refused(Refusal::NotYours));
    storage.apply(&join(4, "t", 5, 5));
    let refused = Applied::Refused(Refusal::NotYours);
    assert_eq!(storage.apply(&by_alice(delete(5, "t", "x"))), refused, "without the password");
    assert_eq!(storage.apply(&by_alice(delete(6, "s", "x"))), Applied::Deleted(2));
}

#[test]
fn what_was_said_under_a_name_before_it_had_a_password_is_not_the_accounts() {
    let mut storage = ReplicatedStorage::new();
    storage.apply(&by_alice(join(1, "other", 5, 5)));
    storage.apply(&by_alice(chat(2, "other", "x", 5)));
    storage.apply(&login(3, "s", Some("v1")));
    assert_eq!(storage.apply(&by_alice(delete(4, "s", "x"))), Applied::Refused(Refusal::NotYours));
}

#[test]
fn the_history_since_a_time_starts_there_and_time_does_not_run_backwards() {
    let mut storage = storage();
    for (seq, at_ms) in [(3, 100), (4, 200), (5, 150), (6, 300)] {
        storage.apply(&chat(seq, "s", &format!("m{seq}"), at_ms));
    }
    let since = |ms, after| {
        let mut found = Vec::new();
        storage.message_storage().visit_since("lobby", ms, after, |msg| {
            found.push(msg.seq.unwrap());
            true
        });
        found
    };
    assert_eq!(since(200, 0), [4, 5, 6]);
    assert_eq!(since(201, 0), [6]);
    assert_eq!(since(0, 4), [5, 6]);
    assert_eq!(since(301, 0), [0; 0]);
}

#[test]
fn the_digest_tells_orders_apart() {
    let of = |ids: [&str; 2]| {
        let mut storage = storage();
        for (seq, id) in (3..).zip(ids) {
            storage.apply(&chat(seq, "s", id, 0));
        }
        storage.digest()
    };
    assert_eq!(of(["a", "b"]), of(["a", "b"]));
    assert_ne!(of(["a", "b"]), of(["b", "a"]));
}

#[test]
fn a_damaged_snapshot_is_refused_by_its_line() {
    let mut storage = storage();
    storage.apply(&chat(3, "s", "a", 5));
    let whole = storage.to_snapshot();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    assert_eq!(ReplicatedStorage::from_snapshot(&whole[..whole.len() - 1]).unwrap_err().line, 4);
    assert_eq!(ReplicatedStorage::from_snapshot(&*lines[..3].concat()).unwrap_err().line, 1);
    assert_eq!(ReplicatedStorage::from_snapshot(&b""[..]).unwrap_err().line, 1);
    let later = String::from_utf8(whole.clone()).unwrap().replace("\"version\":1", "\"version\":2");
    let error = ReplicatedStorage::from_snapshot(later.as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 1 of the snapshot: version 2; this program reads 1; fetch it again"
    );
}

/// What may stand in an order, few enough names that they meet.
fn arbitrary_entry() -> impl proptest::strategy::Strategy<Value = Message> {
    use proptest::prelude::*;
    let session = prop::sample::select(vec!["s", "t", "u"]);
    let id = (0..40u64).prop_map(|n| format!("s-{n}"));
    let room = prop::sample::select(vec!["lobby", "kitchen"]);
    let step_ms = prop_oneof![8 => 0..5u64, 1 => Just(SESSION_KEPT_MS / 2)];
    (0..10u8, session, id, room, step_ms).prop_map(|(kind, session, id, room, step_ms)| {
        let message_type = match kind {
            0..6 => MessageType::Chat,
            6..8 => MessageType::Delete,
            _ => MessageType::ClientJoin,
        };
        // The step of time; the test adds them up.
        let mut msg = entry(0, message_type, session, &id, step_ms).in_room(room);
        msg.content = match (message_type, kind) {
            (MessageType::Chat, _) => id.as_str().into(),
            (MessageType::Delete, _) => Content::object(&Deletion { target: id, session: None }),
            (_, kind) => {
                let right = kind == 9;
                let verifier = (right && step_ms == 0).then(|| "v".to_string());
                let token_hash = right.then(|| format!("h{step_ms}"));
                Content::object(&Registration { since: 0, verifier, token_hash })
            }
        };
        msg
    })
}

proptest::proptest! {
    #[test]
    fn a_snapshot_is_the_whole_state(
        entries in proptest::collection::vec(arbitrary_entry(), 0..200),
        cut in 0..200usize,
    ) {
        let (mut original, mut at_ms) = (ReplicatedStorage::new(), 0);
        let mut copy = None;
        for (place, mut msg) in entries.into_iter().enumerate() {
            at_ms += msg.timestamp.unwrap();
            (msg.seq, msg.timestamp) = (Some(place as Seq + 1), Some(at_ms));
            if place == cut {
                copy = Some(ReplicatedStorage::from_snapshot(&*original.to_snapshot()).unwrap());
            }
            let entry: Entry = msg.into();
            let applied = original.apply(&entry);
            if let Some(copy) = &mut copy {
                proptest::prop_assert_eq!(copy.apply(&entry), applied);
            }
        }
        let copy = match copy {
            Some(copy) => copy,
            None => ReplicatedStorage::from_snapshot(&*original.to_snapshot()).unwrap(),
        };
        proptest::prop_assert_eq!(copy.digest(), original.digest());
        proptest::prop_assert_eq!(copy.statistics(), original.statistics());
        proptest::prop_assert_eq!(copy.message_storage().all(), original.message_storage().all());
        proptest::prop_assert_eq!(copy.to_snapshot(), original.to_snapshot());
    }
}

#[test]
fn numbers_may_begin_with_zero() {
    let mut storage = storage();
    assert_eq!(storage.apply(&chat(3, "s", "s-0", 5)), Applied::Stored);
    assert_eq!(storage.apply(&chat(4, "s", "s-0", 5)), Applied::Duplicate);
    for number in 1..=SESSION_IDS_MAX as u64 {
        storage.apply(&chat(4 + number, "s", &format!("s-{number}"), 5));
    }
    let seq = storage.applied() + 1;
    let again = storage.apply(&chat(seq, "s", "s-0", 5));
    assert_eq!(again, Applied::Refused(Refusal::Expired), "it is forgotten, not new");
}

#[test]
fn a_frozen_state_does_not_change_with_the_one_that_goes_on() {
    let mut storage = storage();
    storage.apply(&chat(3, "s", "s-1", 5));
    let (frozen, before) = (storage.freeze(), storage.to_snapshot());
    storage.apply(&chat(4, "s", "s-2", 6));
    let mut deletion = (*chat(5, "s", "s-3", 6)).clone();
    deletion.message_type = MessageType::Delete;
    let target = Deletion { target: "s-1".into(), session: None };
    storage.apply(&deletion.saying(&target).into());
    assert_ne!(storage.to_snapshot(), before);
    assert_eq!(frozen.to_bytes().get(0, usize::MAX), before);
}
