//! The packed history of rooms beside a plain one: what is asked of both is the same.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::Content;

fn chat(seq: Seq, room_id: &str, text: &str) -> Message {
    let mut msg = Message::new(MessageType::Chat, "alice").with_id(format!("s-{seq}"));
    msg.room_id = room_id.into();
    msg.content = text.into();
    (msg.session, msg.seq, msg.timestamp) = (Some("s".into()), Some(seq), Some(seq));
    msg
}

/// A room as a list of all that became of it.
#[derive(Default)]
struct Plain {
    places: Vec<Place>,
    texts: BTreeMap<Seq, String>,
}

impl Plain {
    fn delete(&mut self, of: Seq, by: Seq) -> bool {
        let Some(place) = self.places.iter_mut().find(|place| **place == Place::Said(of)) else {
            return false;
        };
        *place = Place::Gone { seq: of, by };
        self.places.push(Place::Deletion { seq: by, of });
        self.texts.insert(of, String::new());
        true
    }

    fn forget_up_to(&mut self, seq: Seq) {
        let about = |place: &Place| match place {
            Place::Deletion { of, .. } => *of,
            _ => place.seq(),
        };
        self.places.retain(|place| place.seq() > seq && about(place) > seq);
        self.texts.retain(|at, _| *at > seq);
    }

    fn said(&self) -> impl DoubleEndedIterator<Item = usize> {
        let places = self.places.iter().enumerate();
        places.filter(|(_, place)| matches!(place, Place::Said(_))).map(|(at, _)| at)
    }

    fn first_of_last(&self, limit: usize) -> usize {
        let others = limit.checked_sub(1);
        others.map_or(self.places.len(), |others| self.said().rev().nth(others).unwrap_or(0))
    }
}

fn check(storage: &MessageStorage, room: &Room, plain: &Plain) {
    assert_eq!(room.places().collect::<Vec<_>>(), plain.places);
    assert_eq!(room.len(), plain.places.len());
    for at in 0..=plain.places.len() {
        assert_eq!(room.place(at), plain.places.get(at).copied());
    }
    for limit in 0..plain.places.len() + 2 {
        assert_eq!(room.first_of_last(limit), plain.first_of_last(limit), "the last {limit}");
    }
    let last = plain.places.last().map_or(0, |place| place.seq());
    for seq in 0..=last + 1 {
        let first = plain.places.partition_point(|place| place.seq() <= seq);
        assert_eq!(room.first_after(seq), first);
        let text = plain.texts.get(&seq).map(String::as_str);
        assert_eq!(room.at(seq).as_ref().map(|msg| msg.content.text()), text);
        let found = room.with_id(&format!("s-{seq}"));
        assert_eq!(found.len(), usize::from(text.is_some()));
        let changes: BTreeSet<Seq> = room.changes_from(seq).map(Place::seq).collect();
        let is_change = |place: &&Place| place.seq() >= seq && !matches!(place, Place::Said(_));
        assert_eq!(
            changes,
            plain.places.iter().filter(is_change).map(|place| place.seq()).collect()
        );
        let mut behind = 0;
        room.visit_after(seq, |_| {
            behind += 1;
            true
        });
        assert_eq!(behind, plain.said().filter(|at| plain.places[*at].seq() > seq).count());
    }
    let left = plain.said().map(|at| plain.texts[&plain.places[at].seq()].len() as u64);
    let (messages, bytes) = left.fold((0, 0), |(count, bytes), text| (count + 1, bytes + text));
    let found = room.statistics("lobby");
    assert_eq!((found.messages, found.bytes, found.senders), (messages, bytes, messages.min(1)));
    assert_eq!(storage.len(), plain.texts.len() as u64);
}

proptest! {
    #[test]
    fn a_room_is_what_a_list_of_its_places_would_be(
        steps in proptest::collection::vec((0..20u8, 1..4u64, 0..60u64), 1..60),
    ) {
        let (mut storage, mut plain, mut seq) = (MessageStorage::default(), Plain::default(), 0);
        storage.store(1, &chat(1, "lobby", "one"), 1);
        plain.places.push(Place::Said(1));
        plain.texts.insert(1, "one".into());
        for (what, gap, about) in steps {
            seq = seq.max(1) + gap;
            match what {
                0 => {
                    storage.forget_up_to(about);
                    plain.forget_up_to(about);
                }
                1..8 => prop_assert_eq!(storage.delete("lobby", about, seq), plain.delete(about, seq)),
                _ => {
                    let text = "x".repeat(about as usize);
                    storage.store(seq, &chat(seq, "lobby", &text), seq);
                    plain.places.push(Place::Said(seq));
                    plain.texts.insert(seq, text);
                }
            }
        }
        check(&storage, storage.room("lobby").unwrap(), &plain);
    }
}

#[test]
fn a_long_room_is_read_deleted_in_and_forgotten_block_by_block() {
    let (mut storage, mut plain) = (MessageStorage::default(), Plain::default());
    for seq in 1..=6000 {
        let text = format!("text {seq} {}", "words ".repeat(6));
        storage.store(seq, &chat(seq, "lobby", &text), seq);
        plain.places.push(Place::Said(seq));
        plain.texts.insert(seq, text);
    }
    for (of, by) in [(3, 6001), (4000, 6002), (5999, 6003), (3, 6004)] {
        assert_eq!(storage.delete("lobby", of, by), plain.delete(of, by));
    }
    let texts = |storage: &MessageStorage| -> Vec<String> {
        storage.all().iter().map(|msg| msg.content.text().to_string()).collect()
    };
    assert!(texts(&storage).iter().eq(plain.texts.values()));
    assert_eq!(storage.last_before(2000), 1999);
    storage.forget_up_to(4500);
    plain.forget_up_to(4500);
    assert!(texts(&storage).iter().eq(plain.texts.values()));
    let room = storage.room("lobby").unwrap();
    assert_eq!(room.places().collect::<Vec<_>>(), plain.places);
    assert_eq!((room.messages(), storage.deleted(), room.forgotten()), (1499, 1, 4500));
    assert!(room.with_id("s-4500").is_empty() && room.with_id("s-4501").len() == 1);
}

#[test]
fn an_id_of_two_sessions_is_found_twice_and_one_that_only_looks_alike_is_not() {
    let mut storage = MessageStorage::default();
    for (seq, session, id) in [(1, "s", "x"), (2, "t", "x"), (3, "s-1", "s-1-2"), (4, "s", "s-1-2")]
    {
        let mut msg = chat(seq, "lobby", "text").with_id(id);
        msg.session = Some(session.into());
        storage.store(seq, &msg, seq);
    }
    let room = storage.room("lobby").unwrap();
    let places = |id: &str| room.with_id(id).iter().filter_map(|msg| msg.seq).collect::<Vec<_>>();
    assert_eq!(places("x"), [1, 2]);
    assert_eq!(places("s-1-2"), [3, 4]);
    assert_eq!((places("s-1"), places("2")), (vec![], vec![]));
    assert_eq!(storage.get("x").unwrap().seq, Some(1));
}

#[test]
fn places_of_a_snapshot_that_do_not_ascend_are_refused() {
    let mut storage = MessageStorage::default();
    let msg = chat(7, "lobby", "text");
    assert_eq!(storage.restore("lobby", Place::Said(7), Some(&msg)), Ok(()));
    let again = storage.restore("lobby", Place::Said(7), Some(&msg)).unwrap_err();
    assert_eq!(again, "the place 7 of lobby stands behind 7");
    assert!(storage.restore("lobby", Place::Said(8), None).is_err());
    let mut gone = msg.clone();
    (gone.message_type, gone.content) = (MessageType::Delete, Content::Empty);
    let place = Place::Gone { seq: 9, by: 10 };
    assert_eq!(storage.restore("lobby", place, Some(&Message { seq: Some(9), ..gone })), Ok(()));
    assert_eq!((storage.len(), storage.deleted(), storage.count("lobby")), (2, 1, 1));
}
