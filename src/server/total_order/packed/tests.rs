//! What was packed comes out as it was, however it is cut, forgotten or replaced.

use proptest::prelude::*;

use super::*;
use crate::domain::content::Deletion;
use crate::domain::{Content, MessageType, Term};

fn chat(seq: Seq, session: &str, id: &str, text: &str) -> Message {
    let mut msg = Message::new(MessageType::Chat, format!("user of {session}")).with_id(id);
    msg.room_id = "lobby".into();
    msg.content = text.into();
    (msg.session, msg.seq, msg.timestamp) = (Some(session.into()), Some(seq), Some(1000 + seq));
    msg
}

fn all(packed: &Packed) -> Vec<Message> {
    let mut found = Vec::new();
    packed.visit_from(0, |row| {
        found.push(row.to_message().unwrap());
        true
    });
    found
}

/// Of all that may stand in an order: what has a form of its own, and what has not.
fn arbitrary() -> impl Strategy<Value = Message> {
    let texts = prop::sample::select(vec!["", "s", "s-1", "s-", "Grüße\n\"", "s--1", "t-99"]);
    let (id, sender, text, room) = (texts.clone(), texts.clone(), texts.clone(), texts.clone());
    let term = prop::option::weighted(0.9, (1..3u64, prop::sample::select(vec!["n1.1", "n2.4"])));
    let ms = prop::option::weighted(0.9, 0..u64::MAX);
    let more = (0..12u8, prop::option::weighted(0.9, texts), 1..1000u64);
    (id, sender, text, room, term, ms, more).prop_map(
        |(id, sender, text, room, term, ms, (kind, session, gap))| {
            let mut msg = Message::new(MessageType::Chat, sender).with_id(id).in_room(room);
            msg.content = text.into();
            msg.session = session.map(str::to_string);
            msg.term = term.map(|(counter, leader)| Term { counter, leader: leader.into() });
            (msg.timestamp, msg.seq) = (ms, Some(gap));
            match kind {
                0 => (msg.message_type, msg.content) = (MessageType::Delete, Content::Empty),
                1 => msg.message_type = MessageType::Noop,
                2 => msg.content = Content::object(&Deletion::default()),
                3 => msg.origin = Some("n1.1-00ff".into()),
                4 => msg.content = Content::Empty,
                _ => {}
            }
            msg
        },
    )
}

proptest! {
    #[test]
    fn what_was_packed_comes_out_as_it_was(
        messages in proptest::collection::vec(arbitrary(), 1..150),
        sealed in proptest::bool::ANY,
    ) {
        let (mut packed, mut seq) = (Packed::default(), 0);
        let mut messages = messages;
        for msg in &mut messages {
            seq += msg.seq.unwrap();
            msg.seq = Some(seq);
            packed.push(seq, msg, msg.timestamp);
        }
        if sealed {
            let block = std::mem::take(Arc::make_mut(&mut packed.tail)).seal();
            packed.blocks.push_back(Arc::new(block.pack().unwrap()));
        }
        prop_assert_eq!(&all(&packed), &messages);
        let mut reader = Reader::default();
        for msg in &messages {
            let seq = msg.seq.unwrap();
            let found = packed.get(seq, &mut reader).unwrap().to_message();
            prop_assert_eq!(found.as_ref(), Some(msg));
            let before = packed.get(seq - 1, &mut reader).map(|row| row.seq);
            prop_assert_eq!(before.is_some(), messages.iter().any(|msg| msg.seq == Some(seq - 1)));
        }
        prop_assert!(packed.get(seq + 1, &mut reader).is_none());
    }
}

/// Five blocks and more, places 2, 4, 6 …
fn long() -> (Packed, Vec<Message>) {
    let mut packed = Packed::default();
    let messages: Vec<Message> = (1..=4000)
        .map(|n| chat(2 * n, "s", &format!("s-{n}"), &format!("said {n}: {}", "words ".repeat(10))))
        .collect();
    for msg in &messages {
        packed.push(msg.seq.unwrap(), msg, msg.timestamp);
    }
    assert!(packed.blocks.len() >= 5);
    (packed, messages)
}

#[test]
fn old_blocks_are_compressed_and_the_newest_is_not() {
    let (packed, messages) = long();
    let is_packed: Vec<bool> = packed.blocks.iter().map(|block| block.is_packed()).collect();
    let (newest, old) = is_packed.split_last().unwrap();
    assert!(!newest && old.iter().all(|packed| *packed));
    let size = |block: &Block| match &block.text {
        Text::Plain(bytes) | Text::Packed { bytes, .. } => bytes.len(),
    };
    assert!(size(&packed.blocks[0]) < BLOCK_BYTES / 3);
    assert!(all(&packed) == messages);
}

#[test]
fn what_is_replaced_is_nowhere_in_memory_and_a_copy_stays_as_it_was() {
    let (mut packed, mut messages) = long();
    let before = packed.clone();
    // In the first block, in the newest one and in the tail.
    for at in [5, 3400, 3998] {
        let mut gone = messages[at].clone();
        (gone.message_type, gone.content) = (MessageType::Delete, Content::Empty);
        packed.replace(gone.seq.unwrap(), &gone);
        messages[at] = gone;
    }
    assert!(all(&packed) == messages);
    assert_ne!(all(&before), messages);
    let text_of = |number: usize| format!("said {number}:").into_bytes();
    let is_in = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
    let is_anywhere = |number: usize| {
        let mut reader = Reader::default();
        let text = text_of(number);
        let in_blocks = packed.blocks.iter().any(|block| is_in(reader.text_of(block), &text));
        in_blocks || is_in(packed.tail.text(), &text)
    };
    assert_eq!([6, 3401, 3999].map(is_anywhere), [false; 3]);
    assert_eq!([7, 3402, 4000].map(is_anywhere), [true; 3]);
    assert!(packed.blocks[0].is_packed());
}

#[test]
fn what_is_forgotten_is_not_there_and_its_blocks_go() {
    let (mut packed, messages) = long();
    let blocks = packed.blocks.len();
    packed.forget_up_to(1501);
    assert!(all(&packed) == messages[750..]);
    assert!(packed.blocks.len() < blocks);
    let mut reader = Reader::default();
    assert!(packed.get(1500, &mut reader).is_none());
    assert_eq!(packed.get(1502, &mut reader).unwrap().seq, 1502);
    packed.forget_up_to(7999);
    assert!(packed.blocks.is_empty() && all(&packed) == messages[3999..]);
    packed.forget_up_to(8000);
    assert!(all(&packed).is_empty() && packed.tail.is_empty());
    packed.push(9000, &chat(9000, "s", "x", "again"), Some(7));
    assert_eq!(all(&packed)[0].timestamp, Some(7));
}

#[test]
fn a_reader_notices_that_a_block_was_written_anew() {
    let (mut packed, messages) = long();
    let mut reader = Reader::default();
    assert_eq!(packed.get(4, &mut reader).unwrap().to_message().unwrap(), messages[1]);
    let mut gone = messages[1].clone();
    gone.content = "new".into();
    packed.replace(4, &gone);
    assert_eq!(packed.get(4, &mut reader).unwrap().to_message().unwrap(), gone);
    assert_eq!(packed.get(6, &mut reader).unwrap().to_message().unwrap(), messages[2]);
}

#[test]
fn what_is_cut_off_is_gone_and_others_take_its_place() {
    let (long, messages) = long();
    for seq in [8000, 7999, 7990, 6001, 2000, 3, 2, 0] {
        let mut cut = long.clone();
        cut.cut_after(seq);
        let kept = usize::try_from(seq / 2).unwrap();
        assert!(all(&cut) == messages[..kept], "cut after {seq}");
        let next = chat(seq + 1, "t", "x", "another");
        cut.push(seq + 1, &next, next.timestamp);
        let found = cut.get(seq + 1, &mut Reader::default()).unwrap().to_message();
        assert_eq!((found, all(&cut).len()), (Some(next), kept + 1));
    }
}
