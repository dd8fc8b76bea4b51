//! Someone who talks and remembers what was shown.

#![expect(clippy::disallowed_methods, reason = "it measures how long an acknowledgement takes")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::client::{ChatClient, ClientSettings, Event};
use crate::error::StartError;
use crate::threads::Threads;

/// One of a person's own messages.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Own {
    /// When it was said.
    pub(super) said: Option<Instant>,
    /// When it was acknowledged; that can be noted first.
    pub(super) acked: Option<Instant>,
}

/// What happened to a person so far.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// How often each message was shown, by id.
    pub(super) shown: BTreeMap<String, u32>,
    /// Its own messages, by id.
    pub(super) own: BTreeMap<String, Own>,
    /// Where it went when its server was gone.
    pub(super) moves: Vec<String>,
}

/// A client and what it was shown.
#[derive(Debug)]
pub(super) struct Talker {
    client: Arc<ChatClient>,
    memory: Arc<Mutex<Memory>>,
    threads: Threads,
}

impl Talker {
    /// Connects to the server at `first`; it learns the others from there. In each of `rooms` it is shown the whole past.
    pub(super) fn start(name: &str, first: SocketAddr, rooms: &[&str]) -> Result<Self, StartError> {
        let client = Arc::new(ChatClient::new(ClientSettings::new(name))?);
        client.start(&first.ip().to_string(), first.port())?;
        let memory = Arc::new(Mutex::new(Memory::default()));
        let threads = Threads::new(name);
        let (events, notes, stopped) =
            (client.events().clone(), Arc::clone(&memory), threads.stopped().clone());
        let listen = move || loop {
            crossbeam_channel::select! {
                recv(events) -> event => match event {
                    Ok(event) => notes.lock().note(event),
                    Err(_) => return,
                },
                recv(stopped) -> _ => return,
            }
        };
        let no_thread = |error| StartError::Other(format!("cannot start a thread: {error}"));
        threads.spawn("listens", listen).map_err(no_thread)?;
        for room in rooms {
            client.join_room_with_history(room, Some(u32::MAX));
        }
        Ok(Self { client, memory, threads })
    }

    /// Says `text` in `room`; returns the message's id.
    pub(super) fn say(&self, text: &str, room: &str) -> Option<String> {
        let now = Instant::now();
        let id = self.client.send_message(text, room).ok()?;
        self.memory.lock().own.entry(id.clone()).or_default().said = Some(now);
        Some(id)
    }

    /// What it remembers.
    pub(super) fn memory(&self) -> parking_lot::MutexGuard<'_, Memory> {
        self.memory.lock()
    }

    /// Waits until all that it said is acknowledged. False when `limit` has passed.
    pub(super) fn wait_acknowledged(&self, limit: Duration) -> bool {
        self.client.wait_acknowledged(Some(limit))
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.client.stop();
        self.threads.stop();
        self.threads.join(Duration::from_secs(2));
    }
}

impl Memory {
    fn note(&mut self, event: Event) {
        match event {
            Event::Delivered(delivery) => {
                *self.shown.entry(delivery.message_id).or_default() += 1;
            }
            Event::Acked { message_id } => {
                self.own.entry(message_id).or_default().acked = Some(Instant::now());
            }
            Event::Reconnected { server, .. } | Event::Moved { server, .. } => {
                self.moves.push(server);
            }
            _ => {}
        }
    }
}
