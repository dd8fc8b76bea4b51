use std::sync::Arc;

use super::*;
use crate::domain::{MessageType, StampedChat};

/// A CHAT `id` of session `s`, the `count`-th of `origin`.
fn chat(origin: &str, count: u64, id: &str) -> Arc<Message> {
    let mut chat = Message::new(MessageType::Chat, "alice").with_id(id).in_room("lobby");
    chat.session = Some("s".into());
    chat.origin = Some(origin.into());
    chat.vector_clock = Some(clock(&[(origin, count)]));
    chat.into()
}

fn clock(entries: &[(&str, u64)]) -> VectorClock {
    let mut clock = VectorClock::new();
    for (origin, count) in entries {
        clock.raise(&(*origin).into(), *count);
    }
    clock
}

fn push(history: &mut History, msg: Arc<Message>) -> Option<usize> {
    let mut json = Vec::new();
    history.push(&StampedChat::of(&msg)?.write(&mut json))
}

/// a1=1 b1=2 a2=3 b2=1 (a repeat) b3=4 a3=5, in records 10, 20, …
fn history() -> History {
    let mut history = History::default();
    let all =
        [("a", 1, "1"), ("b", 1, "2"), ("a", 2, "3"), ("b", 2, "1"), ("b", 3, "4"), ("a", 3, "5")];
    for (place, (origin, count, id)) in all.into_iter().enumerate() {
        assert_eq!(push(&mut history, chat(origin, count, id)), Some(place));
        history.wrote(10 * (place as u64 + 1));
    }
    history
}

#[test]
fn what_is_released_is_still_known() {
    let whole = history();
    for released in 0..6 {
        let mut history = whole.clone();
        history.release(released);
        assert_eq!((history.first_in_memory(), history.len()), (released + 1, 6));
        assert_eq!(history.get(released), None);
        assert_eq!(history.get(released + 1), whole.get(released + 1));
        for place in 0..6 {
            assert_eq!(history.stamp_at(place), whole.stamp_at(place));
            assert_eq!(history.is_repeat(place), place == 3);
            let record = history.record_of(place);
            assert_eq!(record, Some(10 * (place as u64 + 1)));
            assert_eq!(record.and_then(|record| history.place_of_record(record)), Some(place));
        }
        assert_eq!(history.place_of_record(15), None);
        let places = ["1", "2", "3", "4", "5", "6"].map(|id| history.place_of("s", id));
        assert_eq!(places, [Some(0), Some(1), Some(2), Some(4), Some(5), None]);
        assert_eq!(history.places_of_same(3).collect::<Vec<_>>(), [0, 3]);
        assert_eq!(history.places_of_same(4).collect::<Vec<_>>(), [4]);
        assert_eq!(history.shown_count(), 5);
        assert_eq!(push(&mut history, chat("a", 3, "x")), None, "not the next one");
        assert_eq!(push(&mut history, chat("b", 4, "5")), Some(6));
        assert!(history.is_repeat(6), "its first place is on disk or not");
    }
}

#[test]
fn keys_that_are_sought_together_are_found_as_each_alone() {
    let (history, ids) = (history(), ["6", "5", "1", "7", "2"]);
    let hashes = history.hash_all("s", ids.into_iter());
    let together = ids.iter().zip(hashes).map(|(id, hash)| history.find_hashed("s", id, hash).ok());
    assert_eq!(together.collect::<Vec<_>>(), [None, Some(5), Some(0), None, Some(1)]);
    assert!(ids.iter().all(|id| history.find("t", id).is_err()), "another session's");
}

#[test]
fn what_the_log_held_needs_no_message() {
    let whole = history();
    // Parts of the log end anywhere. What stands there twice is taken once.
    for cut in 0..6 {
        let mut history = History::default();
        let mut parts = [Outlines::default(), Outlines::default()];
        for (place, msg) in whole.iter().enumerate() {
            let (part, first) = if place < cut { (0, 0) } else { (1, cut) };
            let (outline, record) = (Outline::of(&msg).unwrap(), (place - first) as u32 * 10 + 10);
            parts[part].push(outline, Some(place as u64), record);
            parts[part].push(outline, Some(99), record + 1);
        }
        assert_eq!(history.push_outlines(&parts[0], 0), (cut as u64).saturating_sub(1));
        assert_eq!(history.push_outlines(&parts[1], cut as u64 * 10), 5);
        history.index();
        assert_eq!((history.len(), history.iter().count(), history.shown_count()), (6, 0, 5));
        for place in 0..6 {
            assert_eq!(history.stamp_at(place), whole.stamp_at(place));
            assert_eq!(history.record_of(place), whole.record_of(place));
            assert_eq!(history.is_repeat(place), place == 3);
        }
        assert_eq!(history.place_of("s", "4"), Some(4));
        assert_eq!((history.count_of(&"b".into()), history.count_of(&"c".into())), (3, 0));
        assert_eq!(push(&mut history, chat("a", 4, "6")), Some(6));
        assert_eq!(history.first_in_memory(), 6);
    }
}

#[test]
fn two_keys_of_one_hash_are_two_messages_while_one_of_them_is_in_memory() {
    let mut history = history();
    history.hashes[4] = hash_of("s", "y");
    history.keys = Keys::default();
    (0..6)
        .filter(|place| *place != 3)
        .for_each(|place| history.keys.insert(place, &history.hashes));
    assert_eq!(history.place_of("s", "y"), None);
    assert_eq!(push(&mut history, chat("a", 4, "y")), Some(6));
    assert_eq!(history.place_of("s", "y"), Some(6));
    history.release(4);
    let place = history.place_of("s", "y");
    assert!(place == Some(4) || place == Some(6), "{place:?}");
}

#[test]
fn clocks_and_places_belong_together() {
    let history = history();
    let clocks = [0, 1, 2, 4, 6].map(|place| history.clock_before(place));
    let wanted = [
        clock(&[]),
        clock(&[("a", 1)]),
        clock(&[("a", 1), ("b", 1)]),
        clock(&[("a", 2), ("b", 2)]),
        clock(&[("a", 3), ("b", 3)]),
    ];
    assert_eq!(clocks, wanted);
    let table = [
        (&[][..], 0),
        (&[("a", 1)], 1),
        (&[("a", 3)], 1),
        (&[("a", 2), ("b", 3)], 5),
        (&[("a", 9), ("b", 9), ("c", 9)], 6),
    ];
    for (after, place) in table {
        assert_eq!(history.first_beyond(&clock(after)), place, "{after:?}");
    }
}

#[test]
fn the_last_messages_are_counted_without_repeats() {
    let history = history();
    let firsts = [0, 1, 2, 3, 4, 5, 9].map(|limit| history.last_before(6, limit));
    assert_eq!(firsts, [6, 5, 4, 2, 1, 0, 0]);
    assert_eq!(history.last_before(4, 1), 2);
    assert_eq!(history.last_before(6, usize::MAX), 0);
}

#[test]
fn what_is_beyond_a_clock_is_counted_as_it_is_shown() {
    let history = history();
    let clocks = [
        clock(&[]),
        clock(&[("a", 1)]),
        clock(&[("b", 2)]),
        clock(&[("a", 2), ("b", 1)]),
        clock(&[("a", 3), ("b", 3)]),
    ];
    for after in clocks {
        for first in 0..=6 {
            for end in first..=6 {
                let is_covered = |place: usize| {
                    history.places_of_same(place).any(|place| {
                        let (origin, count) = history.stamp_at(place);
                        after.get(origin) >= count
                    })
                };
                let shown = (first..end).filter(|p| !history.is_repeat(*p) && !is_covered(*p));
                let counted = history.count_beyond(first, end, &after);
                assert_eq!(counted, shown.count(), "{first}..{end} after {after}");
            }
        }
    }
}
