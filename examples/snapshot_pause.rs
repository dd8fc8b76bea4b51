//! How long a server stands still while a snapshot is made: `cargo run --release --example snapshot_pause`.
//!
//! The state has 200,000 messages of 200 sessions in 20 rooms, or as many messages as the first argument says. What is done under
//! the node's lock is `freeze`, later a copy of each session that speaks, and at last to forget the entries that the snapshot
//! replaces. The bytes are made in another thread.

#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::time::{Duration, Instant};

use roundtable::domain::content::Registration;
use roundtable::domain::{Message, MessageType};
use roundtable::server::total_order::{Entry, EntryLog, ReplicatedStorage};

const SESSIONS: u64 = 200;
const ROOMS: u64 = 20;
/// So much of the log is not packed, as in a server.
const UNPACKED_BYTES: usize = 4 * 1024 * 1024;
/// Each figure is the middle one of so many.
const ROUNDS: usize = 5;

fn main() {
    let messages = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(200_000);
    let mut storage = ReplicatedStorage::new();
    let mut seq = 0;
    for number in 0..SESSIONS {
        seq += 1;
        let mut join = message(MessageType::ClientJoin, number, "join").saying(&Registration {
            since: 1,
            verifier: None,
            token_hash: None,
        });
        (join.seq, join.timestamp) = (Some(seq), Some(1));
        storage.apply(&join.into());
    }
    let mut log = EntryLog::new();
    log.reset_to(seq, None);
    for number in 0..messages {
        let entry: Entry = chat(&mut seq, number).into();
        log.insert(entry.clone());
        storage.apply(&entry);
        log.pack(seq, UNPACKED_BYTES);
    }
    let end = seq;
    let mut times: [Vec<Duration>; 5] = [(); 5].map(|()| Vec::new());
    let mut bytes = 0;
    for round in 0..ROUNDS as u64 {
        let begun = Instant::now();
        let frozen = storage.freeze();
        times[0].push(begun.elapsed());
        // Every session's first message after it.
        let chats: Vec<Entry> = (0..SESSIONS)
            .map(|number| chat(&mut seq, messages + round * SESSIONS + number).into())
            .collect();
        let begun = Instant::now();
        for chat in &chats {
            storage.apply(chat);
        }
        times[1].push(begun.elapsed() / u32::try_from(SESSIONS).unwrap_or(1));
        let begun = Instant::now();
        let written = frozen.to_bytes();
        times[2].push(begun.elapsed());
        bytes = written.len();
        let begun = Instant::now();
        let read = ReplicatedStorage::from_snapshot(written.reader());
        times[3].push(begun.elapsed());
        let mut old = log.clone();
        let begun = Instant::now();
        old.forget_up_to(end);
        times[4].push(begun.elapsed());
        assert!(
            read.is_ok_and(|read| read.digest() != storage.digest()),
            "it is the earlier state"
        );
    }
    let [freeze, first, make, read, forget] = times.map(|mut times| {
        times.sort();
        times[ROUNDS / 2]
    });
    println!("{messages} messages, {bytes} bytes");
    println!("freeze, under the lock              {freeze:>12.3?}");
    println!("first message of a session after    {first:>12.3?}");
    println!("forget the log, under the lock      {forget:>12.3?}");
    println!("make the bytes, beside the lock     {make:>12.3?}");
    println!("read them, at a start or an install {read:>12.3?}");
}

fn message(message_type: MessageType, number: u64, id: &str) -> Message {
    let session = format!("{:08x}", number % SESSIONS);
    let mut msg = Message::new(message_type, format!("user{}", number % SESSIONS))
        .with_id(format!("{session}-{id}"))
        .in_room(format!("room{}", number % ROOMS));
    msg.session = Some(session);
    msg
}

fn chat(seq: &mut u64, number: u64) -> Message {
    *seq += 1;
    let mut chat = message(MessageType::Chat, number, &(number / SESSIONS).to_string());
    chat.content = "a message of some sixty letters, as people write them in rooms".into();
    (chat.seq, chat.timestamp) = (Some(*seq), Some(1 + number));
    chat
}
