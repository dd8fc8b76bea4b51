//! Fills a data folder for the design `ring`: `cargo run --release --example history -- FOLDER MESSAGES [ROOMS]`.
//!
//! The server `n1` has stamped all of them, of 100 sessions in turn, in `ROOMS` rooms in turn (1 when left out). Then
//! `roundtable server --id n1 --data FOLDER` shows how fast a server starts with so long a history, and how much memory that takes.

#![allow(clippy::disallowed_methods, reason = "it is a program, and no algorithm")]

use std::path::Path;
use std::thread;
use std::time::Duration;

use roundtable::domain::{Content, Message, MessageType, VectorClock};
use roundtable::error::StartError;
use roundtable::storage::{DataFolder, FileLog, LogOptions, OnDamage, Storage};

const SESSIONS: u64 = 100;
/// When the first one was said, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_750_000_000_000;
/// What may wait for the disk, in bytes.
const PENDING_BYTES: usize = 64 << 20;

fn main() -> Result<(), StartError> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok());
    let (Some(folder), Some(messages)) = (words.first(), number(1)) else {
        eprintln!("usage: history FOLDER MESSAGES [ROOMS]");
        return Ok(());
    };
    let rooms = number(2).unwrap_or(1).max(1);
    let rng = &mut fastrand::Rng::with_seed(messages);
    let folder = DataFolder::open(Path::new(folder), &"n1".into(), "roundtable", "ring", rng)?;
    let options = LogOptions::default();
    let (log, _) = FileLog::open(&folder.log_path(), options, OnDamage::Refuse, |_| {})?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| log.run_writer(|_| {}));
        for number in 0..messages {
            log.append(&chat(&folder, number, rooms));
            if number % 1024 == 0 {
                log.wake();
            }
            while log.pending_bytes() > PENDING_BYTES {
                thread::sleep(Duration::from_millis(1));
            }
        }
        log.close();
        writer.join().unwrap_or_else(|_| Err(std::io::Error::other("the writer panicked")))
    })
    .map_err(|error| StartError::Other(format!("cannot write the log: {error}")))
}

fn chat(folder: &DataFolder, number: u64, rooms: u64) -> Message {
    let session = number % SESSIONS;
    let mut chat = Message::new(MessageType::Chat, format!("user-{session}"))
        .with_id(format!("{session:08x}-{}", number / SESSIONS + 1))
        .in_room(format!("room-{}", number % rooms));
    chat.content =
        Content::Text(format!("{number:>10}: a message of some sixty-four bytes, as people say"));
    chat.session = Some(format!("{:016x}", session.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let mut clock = VectorClock::new();
    clock.raise(folder.incarnation(), number / rooms + 1);
    (chat.origin, chat.vector_clock) = (Some(folder.incarnation().clone()), Some(clock));
    chat.timestamp = Some(BEGIN_MS + number / 10);
    chat
}
