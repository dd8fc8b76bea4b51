//! Small pieces that every message passes: the codec, the vector clock, the log, the state that the one order drives.
//!
//! `cargo bench` runs them all, `cargo bench -- clock` those with that name. What a whole server does is measured by
//! `roundtable bench`.

#![allow(missing_docs, reason = "made by criterion's macros")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "it measures, with threads of its own")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use roundtable::domain::content::{Position, Registration};
use roundtable::domain::stamped_chat::push_delivered;
use roundtable::domain::{
    Content, Incarnation, Message, MessageType, StampedChat, Term, VectorClock,
};
use roundtable::network::Batch;
use roundtable::network::framing::{Decoder, FRAME_BYTES_MAX, Framing};
use roundtable::server::total_order::{Entry, ReplicatedStorage};
use roundtable::storage::{FileLog, LogEvent, LogOptions, OnDamage, Storage, record};

/// As long as the texts of `roundtable bench`.
const TEXT_BYTES: usize = 100;
/// How many servers a clock counts.
const SERVERS: usize = 3;
/// How many records one sync of the log serves here.
const BATCH: usize = 64;

fn incarnation(number: usize) -> Incarnation {
    Incarnation::from(format!("n{number}.1-cb0f"))
}

fn clock(count: u64) -> VectorClock {
    let mut clock = VectorClock::new();
    (0..SERVERS).for_each(|number| clock.raise(&incarnation(number), count));
    clock
}

/// What a client says.
fn said() -> Message {
    let mut msg = Message::new(MessageType::Chat, "").with_id("0000002a").in_room("lobby");
    msg.content = Content::Text("x".repeat(TEXT_BYTES));
    msg
}

/// What its room's members are shown.
fn shown() -> Message {
    let mut msg = Message { sender_id: "alice".into(), ..said() };
    msg.timestamp = Some(1_795_236_122_952);
    msg.position = Some(Position::Clock(clock(1000)));
    msg
}

/// What the log keeps.
fn kept() -> Message {
    let mut msg = Message { sender_id: "alice".into(), ..said() };
    msg.timestamp = Some(1_795_236_122_952);
    msg.origin = Some(incarnation(0));
    msg.vector_clock = Some(clock(1000));
    msg.session = Some("5f1c0a9e".into());
    msg
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let body = said().serialize();
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse a CHAT", |b| {
        b.iter(|| Message::decode(black_box(body.as_bytes())).unwrap());
    });
    let msg = shown();
    group.bench_function("serialise a delivery", |b| b.iter(|| black_box(&msg).to_frame()));
    let (msg, mut json) = (kept(), Vec::new());
    group.bench_function("serialise a stamped CHAT", |b| {
        b.iter(|| {
            json.clear();
            black_box(&msg).serialize_to(&mut json);
        });
    });
    group.bench_function("write a stamped CHAT, and what members see of it", |b| {
        let (chat, position) = (StampedChat::of(&msg).unwrap(), clock(1000));
        let mut shown = Vec::new();
        b.iter(|| {
            let written = black_box(&chat).write(&mut json);
            shown.clear();
            let part = &written.json[..written.shown_bytes];
            push_delivered(part, written.timestamp, &position, &mut shown);
        });
    });
    let mut frames = Vec::new();
    for _ in 0..BATCH {
        Framing::LengthPrefixed.put(body.as_bytes(), &mut frames);
    }
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("frames of one read to messages", |b| {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        b.iter(|| {
            decoder.push(black_box(&frames));
            let mut count = 0;
            while let Some(msg) = decoder.next_message() {
                count += usize::from(msg.is_ok());
            }
            assert_eq!(count, BATCH);
        });
    });
    group.bench_function("frames of one read to a batch", |b| {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        b.iter(|| {
            decoder.push(black_box(&frames));
            let mut batch = Batch::default();
            while decoder.next_into(&mut batch) {}
            assert_eq!(batch.chats(0).count(), BATCH);
        });
    });
    group.finish();
}

fn vector_clock(c: &mut Criterion) {
    let mut group = c.benchmark_group("clock");
    let (here, node) = (clock(1000), incarnation(1));
    let mut next = here.clone();
    next.increment(&node);
    group.bench_function("is it ready?", |b| {
        b.iter(|| black_box(&here).is_causally_ready(black_box(&next), &node));
    });
    group.bench_function("count one more", |b| {
        let mut clock = here.clone();
        b.iter(|| black_box(&mut clock).increment(&node));
    });
    group.bench_function("merge", |b| {
        let mut clock = here.clone();
        b.iter(|| black_box(&mut clock).merge(black_box(&next)));
    });
    group.bench_function("compare", |b| b.iter(|| black_box(&here).compare(black_box(&next))));
    group.finish();
}

fn log(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    let msg = kept();
    group.throughput(Throughput::Elements(1));
    group.bench_function("encode a record", |b| {
        b.iter_batched(
            Vec::new,
            |mut line| {
                record::encode(black_box(&msg), &mut line);
                line
            },
            BatchSize::SmallInput,
        );
    });
    let mut line = Vec::new();
    record::encode(&msg, &mut line);
    group.bench_function("decode a record", |b| {
        b.iter(|| record::decode(black_box(&line[..line.len() - 1])).unwrap());
    });
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("append 64 records and sync them", |b| {
        b.iter_custom(|rounds| append_and_sync(&msg, rounds));
    });
    group.finish();
}

/// How long it takes to append [`BATCH`] records and to hear that they are synced, so many times.
fn append_and_sync(msg: &Message, rounds: u64) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let opened =
        FileLog::open(folder.path(), LogOptions::default(), OnDamage::Refuse, |_| {}).unwrap();
    let log = Arc::new(opened.0);
    let (tell, synced) = sync_channel(16);
    let writer = Arc::clone(&log);
    let writing = thread::spawn(move || {
        writer.run_writer(|event| {
            if let LogEvent::Synced(index) = event {
                let _ = tell.send(index);
            }
        })
    });
    let began = Instant::now();
    for _ in 0..rounds {
        let last = (0..BATCH).fold(0, |_, _| log.append(msg));
        log.wake();
        while synced.recv().unwrap() < last {}
    }
    let took = began.elapsed();
    log.close();
    writing.join().unwrap().unwrap();
    took
}

/// How many sessions say something, one after the other.
const SESSIONS: u64 = 256;
/// How many entries are made before the clock runs: fewer than fill the processor's cache.
const ENTRIES: u64 = 512;
/// When it all begins, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_795_236_122_952;

fn entry(message_type: MessageType, seq: u64) -> Message {
    let session = format!("{:08x}", (seq % SESSIONS).wrapping_mul(0x9e37_79b9));
    let mut msg = Message::new(message_type, format!("user{}", seq % SESSIONS))
        .with_id(format!("{session}-{}", seq / SESSIONS))
        .in_room("lobby");
    msg.session = Some(session);
    msg.term = Some(Term { counter: 3, leader: incarnation(0) });
    (msg.seq, msg.timestamp) = (Some(seq), Some(BEGIN_MS + seq / 20));
    msg
}

fn order(c: &mut Criterion) {
    let mut group = c.benchmark_group("order");
    let (mut storage, mut seq) = (ReplicatedStorage::new(), 0);
    let registration = Registration { since: BEGIN_MS, ..Registration::default() };
    for _ in 0..SESSIONS {
        seq += 1;
        storage.apply(&entry(MessageType::ClientJoin, seq).saying(&registration).into());
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("apply a CHAT of 256 sessions", |b| {
        b.iter_custom(|rounds| {
            let mut took = Duration::ZERO;
            for round in (0..rounds).step_by(ENTRIES as usize) {
                let chats = (0..ENTRIES.min(rounds - round)).map(|_| {
                    seq += 1;
                    let mut chat = entry(MessageType::Chat, seq);
                    chat.content = Content::Text(words(seq));
                    chat.into()
                });
                let chats: Vec<Entry> = chats.collect();
                let began = Instant::now();
                for chat in &chats {
                    black_box(storage.apply(chat));
                }
                took += began.elapsed();
            }
            took
        });
    });
    assert_eq!(storage.statistics().messages, seq - SESSIONS, "each is a new one");
    group.finish();
}

/// Some 64 letters as people write them.
fn words(number: u64) -> String {
    let words =
        ["maybe", "we", "meet", "at", "the", "station", "tomorrow", "before", "lunch", "or"];
    let mut rng = fastrand::Rng::with_seed(number);
    let mut text = String::new();
    while text.len() < 64 {
        text += words[rng.usize(..words.len())];
        text.push(' ');
    }
    text
}

criterion_group!(micro, codec, vector_clock, log, order);
criterion_main!(micro);
