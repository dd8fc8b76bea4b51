//! Clients that put a measured load on a cluster, and note how long everything took.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select, tick};
use parking_lot::Mutex;

use crate::client::{ChatClient, ClientSettings, Event};
use crate::error::StartError;
use crate::threads::Threads;

/// Where everybody is.
const ROOM: &str = "lobby";
/// How long stopping a client waits for its threads.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Permits of a window that may wait to be taken.
const PERMITS_MAX: usize = 4096;

/// How a client talks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// A message every so often.
    Every(Duration),
    /// As fast as it can with so many messages unacknowledged.
    Window(usize),
}

/// What was noted of one phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    /// From saying to the acknowledgement, for each message.
    pub(super) acks: Vec<Duration>,
    /// From saying to showing, for each message and member.
    pub(super) deliveries: Vec<Duration>,
    /// Where each acknowledgement came from: the port of the server.
    pub(super) acked_by: Vec<u16>,
}

#[derive(Debug, Default)]
struct Record {
    notes: Notes,
    said: BTreeMap<String, Instant>,
    /// Acknowledgements of messages whose id is not noted yet.
    early: BTreeMap<String, Instant>,
    acked: BTreeSet<String>,
    shown: BTreeMap<String, u32>,
    joined: bool,
}

#[derive(Debug)]
struct Member {
    client: Arc<ChatClient>,
    record: Arc<Mutex<Record>>,
    permits: (Sender<()>, Receiver<()>),
    threads: Threads,
}

/// Some clients in one room.
#[derive(Debug)]
pub(super) struct Crowd {
    members: Vec<Member>,
    epoch: Instant,
}

/// A load that goes on until it is ended.
#[derive(Debug)]
pub(super) struct Running {
    threads: Threads,
}

impl Running {
    /// Ends it; what was said may still be acknowledged.
    pub(super) fn end(self) {
        self.threads.stop();
        self.threads.join(STOP_LIMIT);
    }
}

/// Nobody.
impl Default for Crowd {
    fn default() -> Self {
        Self { members: Vec::new(), epoch: Instant::now() }
    }
}

impl Crowd {
    /// `count` clients, numbered from `first_number`, spread over `servers`, on their way into the room.
    pub(super) fn gather(
        first_number: usize,
        count: usize,
        cluster: &str,
        servers: &[SocketAddr],
    ) -> Result<Self, StartError> {
        let mut crowd = Self { members: Vec::new(), epoch: Instant::now() };
        for number in first_number..first_number + count {
            let mut settings = ClientSettings::new(&format!("c{number}"));
            settings.cluster = cluster.into();
            let client = Arc::new(ChatClient::new(settings)?);
            let first = number % servers.len();
            let addresses: Vec<String> =
                servers[first..].iter().chain(&servers[..first]).map(ToString::to_string).collect();
            client.start_any(&addresses)?;
            let member = Member {
                client,
                record: Arc::default(),
                permits: bounded(PERMITS_MAX),
                threads: Threads::new(&format!("c{number}")),
            };
            member.listen(crowd.epoch)?;
            member.client.join_room_with_history(ROOM, Some(0));
            crowd.members.push(member);
        }
        Ok(crowd)
    }

    /// Whether all of them are in the room.
    pub(super) fn is_complete(&self) -> bool {
        self.members.iter().all(|member| member.record.lock().joined)
    }

    /// All of them begin to talk.
    pub(super) fn talk(&self, load: Load) -> Result<Running, StartError> {
        let threads = Threads::new("load");
        let epoch = self.epoch;
        for member in &self.members {
            let (client, record) = (Arc::clone(&member.client), Arc::clone(&member.record));
            let (permits, stopped) = (member.permits.1.clone(), threads.stopped().clone());
            while permits.try_recv().is_ok() {}
            let talk = move || {
                let mut open = 0;
                let ticker = match load {
                    Load::Every(pause) => tick(pause),
                    Load::Window(_) => crossbeam_channel::never(),
                };
                loop {
                    let waits = match load {
                        Load::Every(_) => true,
                        Load::Window(most) => open >= most,
                    };
                    if waits {
                        select! {
                            recv(ticker) -> _ => {}
                            recv(permits) -> _ => { open -= usize::from(open > 0); continue }
                            recv(stopped) -> _ => return,
                        }
                    } else if !stopped.is_empty()
                        || stopped.try_recv().is_err_and(|e| e.is_disconnected())
                    {
                        return;
                    }
                    let now = Instant::now();
                    let text = (now - epoch).as_micros().to_string();
                    let Ok(id) = client.send_message(&text, ROOM) else { return };
                    record.lock().note_said(id, now);
                    open += 1;
                }
            };
            threads.spawn("talks", talk).map_err(no_thread)?;
        }
        Ok(Running { threads })
    }

    /// Waits until all that was said is acknowledged. False after `limit`.
    pub(super) fn wait_acknowledged(&self, limit: Duration) -> bool {
        self.members.iter().all(|member| member.client.wait_acknowledged(Some(limit)))
    }

    /// What was noted since the last call.
    pub(super) fn take_notes(&self) -> Notes {
        let mut all = Notes::default();
        for member in &self.members {
            let notes = std::mem::take(&mut member.record.lock().notes);
            all.acks.extend(notes.acks);
            all.deliveries.extend(notes.deliveries);
            all.acked_by.extend(notes.acked_by);
        }
        all
    }

    /// Acknowledged messages that a member was never shown, and messages that one was shown twice.
    pub(super) fn lost_and_twice(&self) -> (usize, usize) {
        let (mut acked, mut lost, mut twice) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for member in &self.members {
            acked.extend(member.record.lock().acked.iter().cloned());
        }
        for member in &self.members {
            let record = member.record.lock();
            lost.extend(acked.iter().filter(|id| !record.shown.contains_key(*id)).cloned());
            twice.extend(
                record.shown.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id.clone()),
            );
        }
        (lost.len(), twice.len())
    }
}

impl Member {
    fn listen(&self, epoch: Instant) -> Result<(), StartError> {
        let (events, record, client) =
            (self.client.events().clone(), Arc::clone(&self.record), Arc::clone(&self.client));
        let (permits, stopped) = (self.permits.0.clone(), self.threads.stopped().clone());
        let listen = move || loop {
            select! {
                recv(events) -> event => {
                    let Ok(event) = event else { return };
                    let acked = matches!(event, Event::Acked { .. });
                    let port = acked.then(|| client.server_connection().map_or(0, |conn| conn.peer().port()));
                    record.lock().note(event, port.unwrap_or(0), epoch);
                    if acked {
                        // Nobody takes them when the load has no window.
                        let _ = permits.try_send(());
                    }
                }
                recv(stopped) -> _ => return,
            }
        };
        self.threads.spawn("listens", listen).map_err(no_thread)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for member in &self.members {
            member.threads.stop();
            member.client.stop();
        }
        for member in &self.members {
            member.threads.join(STOP_LIMIT);
        }
    }
}

impl Record {
    fn note_said(&mut self, id: String, at: Instant) {
        match self.early.remove(&id) {
            Some(acked) => self.notes.acks.push(acked.saturating_duration_since(at)),
            None => drop(self.said.insert(id, at)),
        }
    }

    fn note(&mut self, event: Event, port: u16, epoch: Instant) {
        let now = Instant::now();
        match event {
            Event::Delivered(delivery) => {
                *self.shown.entry(delivery.message_id).or_default() += 1;
                if let Ok(micros) = delivery.text.parse() {
                    let said = Duration::from_micros(micros);
                    self.notes.deliveries.push((now - epoch).saturating_sub(said));
                }
            }
            Event::Acked { message_id } => {
                self.notes.acked_by.push(port);
                match self.said.remove(&message_id) {
                    Some(said) => self.notes.acks.push(now - said),
                    None => drop(self.early.insert(message_id.clone(), now)),
                }
                self.acked.insert(message_id);
            }
            Event::Joined { .. } => self.joined = true,
            _ => {}
        }
    }
}

fn no_thread(error: std::io::Error) -> StartError {
    StartError::Other(format!("cannot start a thread: {error}"))
}
