//! People who talk while their servers are tortured, and remember everything: the
//! [`History`](crate::sim::history::History) that the checker judges.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};
use parking_lot::Mutex;

use crate::client::{ChatClient, ClientSettings, Event};
use crate::error::StartError;
use crate::sim::history::{Act, SessionHistory};
use crate::threads::Threads;

/// Where they talk.
pub(super) const ROOMS: [&str; 2] = ["lobby", "kitchen"];
/// How long stopping a client waits for its threads.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What a session did and saw so far.
#[derive(Debug)]
struct Record {
    history: SessionHistory,
    /// What the messages say whose acknowledgement may come, by id.
    texts: BTreeMap<String, String>,
    /// Acknowledgements of messages whose id is not noted yet.
    early: Vec<(Duration, String)>,
    /// How many messages were shown.
    shown: u64,
    /// How many were acknowledged.
    acked: usize,
    /// How many rooms it was let into.
    joined: usize,
}

/// How somebody talks.
#[derive(Debug)]
pub(super) struct Manner {
    /// The time between two messages, on average.
    pub(super) pause: Duration,
    /// Disconnected when nobody is to say anything new for the rest of the run.
    pub(super) over: Receiver<()>,
    /// True while nobody is to say anything new. What was said is sent again, if it has to be.
    pub(super) hushed: Arc<AtomicBool>,
    /// Where to note how the traces name each message, by its text.
    pub(super) keys: Arc<Mutex<BTreeMap<String, String>>>,
    /// Decides on the rooms and the moments.
    pub(super) seed: u64,
}

/// One person with one session.
#[derive(Debug)]
pub(super) struct Person {
    user: String,
    client: Arc<ChatClient>,
    record: Arc<Mutex<Record>>,
    threads: Threads,
    /// When time began.
    epoch: Instant,
}

impl Person {
    /// Connects `user` to one of `servers`, the first that answers, and enters all rooms; with `all`, to be shown
    /// everything that was ever said there.
    pub(super) fn start(
        user: &str,
        cluster: &str,
        servers: &[SocketAddr],
        all: bool,
        epoch: Instant,
    ) -> Result<Self, StartError> {
        let mut settings = ClientSettings::new(user);
        settings.cluster = cluster.into();
        let client = Arc::new(ChatClient::new(settings)?);
        let history =
            SessionHistory { session: client.client_id(), user: user.into(), acts: Vec::new() };
        let record = Record {
            history,
            texts: BTreeMap::new(),
            early: Vec::new(),
            shown: 0,
            acked: 0,
            joined: 0,
        };
        let person = Self {
            user: user.into(),
            client,
            record: Arc::new(Mutex::new(record)),
            threads: Threads::new(user),
            epoch,
        };
        person.listen()?;
        let addresses: Vec<String> = servers.iter().map(ToString::to_string).collect();
        person.client.start_any(&addresses)?;
        for room in ROOMS {
            let history = Some(if all { u32::MAX } else { 0 });
            person.note(Act::Entered { room: room.into(), all });
            person.note(Act::Asked { room: room.into(), history });
            person.client.join_room_with_history(room, history);
        }
        Ok(person)
    }

    fn listen(&self) -> Result<(), StartError> {
        let (events, record) = (self.client.events().clone(), Arc::clone(&self.record));
        let (stopped, epoch) = (self.threads.stopped().clone(), self.epoch);
        let listen = move || loop {
            select! {
                recv(events) -> event => match event {
                    Ok(event) => record.lock().note_event(epoch.elapsed(), event),
                    Err(_) => return,
                },
                recv(stopped) -> _ => return,
            }
        };
        self.threads.spawn("listens", listen).map_err(no_thread)
    }

    /// Says something now and then, in one room or the other, until it has to quit.
    pub(super) fn talk(&self, manner: Manner) -> Result<(), StartError> {
        let (client, record, user) =
            (Arc::clone(&self.client), Arc::clone(&self.record), self.user.clone());
        let (stopped, epoch) = (self.threads.stopped().clone(), self.epoch);
        let Manner { pause, over, hushed, keys, seed } = manner;
        let mut rng = fastrand::Rng::with_seed(seed);
        let talk = move || {
            for number in 1_u64.. {
                let wait = pause.mul_f64(0.5 + rng.f64());
                select! {
                    recv(over) -> _ => return,
                    recv(stopped) -> _ => return,
                    default(wait) => {}
                }
                if hushed.load(Ordering::Relaxed) {
                    continue;
                }
                let room = ROOMS[rng.usize(..ROOMS.len())];
                let text = format!("{user}#{}-{number}", client.client_id());
                // Noted before: once it is sent it can be shown and acknowledged at any time.
                let said = Act::Wrote { room: room.into(), text: text.clone() };
                record.lock().note(epoch.elapsed(), said);
                match client.send_message(&text, room) {
                    Ok(id) => {
                        keys.lock().insert(text.clone(), format!("{user}/{id}"));
                        record.lock().name(id, text);
                    }
                    Err(_) => return,
                }
            }
        };
        self.threads.spawn("talks", talk).map_err(no_thread)
    }

    fn note(&self, act: Act) {
        self.record.lock().note(self.epoch.elapsed(), act);
    }

    /// Waits until all that it said is acknowledged. False when `limit` has passed.
    pub(super) fn wait_acknowledged(&self, limit: Duration) -> bool {
        self.client.wait_acknowledged(Some(limit))
    }

    /// What it did and saw so far.
    pub(super) fn history(&self) -> SessionHistory {
        self.record.lock().history.clone()
    }

    /// How many messages it was shown.
    pub(super) fn shown(&self) -> u64 {
        self.record.lock().shown
    }

    /// How many of its messages were acknowledged.
    pub(super) fn acked(&self) -> usize {
        self.record.lock().acked
    }

    /// Whether the cluster let it into `count` rooms.
    pub(super) fn is_in(&self, count: usize) -> bool {
        self.record.lock().joined >= count
    }

    /// The longest wait for the acknowledgement of a message that was said at `since` or later; what still waits counts
    /// with the time so far.
    pub(super) fn longest_wait_since(&self, since: Duration) -> Duration {
        let record = self.record.lock();
        let mut open: BTreeMap<&str, Duration> = BTreeMap::new();
        let mut longest = Duration::ZERO;
        let acts = record.history.acts.iter().map(|(at, act)| (Duration::from_micros(*at), act));
        for (at, act) in acts.skip_while(|(at, _)| *at < since) {
            match act {
                Act::Wrote { text, .. } => drop(open.insert(text, at)),
                Act::Acked { text } => {
                    if let Some(said) = open.remove(text.as_str()) {
                        longest = longest.max(at.saturating_sub(said));
                    }
                }
                _ => {}
            }
        }
        let now = self.epoch.elapsed();
        open.values().map(|said| now.saturating_sub(*said)).fold(longest, Duration::max)
    }

    /// Ends the session; `quits` when the person leaves before the end of the run.
    pub(super) fn finish(self, quits: bool) -> SessionHistory {
        if quits {
            self.note(Act::Quit);
        }
        self.threads.stop();
        self.client.stop();
        self.threads.join(STOP_LIMIT);
        let mut record = self.record.lock();
        std::mem::take(&mut record.history)
    }
}

impl Record {
    fn note(&mut self, at: Duration, act: Act) {
        let at = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        // Two threads write here; time does not run backwards for that.
        self.acked += usize::from(matches!(act, Act::Acked { .. }));
        self.joined += usize::from(matches!(act, Act::Joined { .. }));
        let at = at.max(self.history.acts.last().map_or(0, |(last, _)| *last));
        self.history.acts.push((at, act));
    }

    /// The message `id` says `text`.
    fn name(&mut self, id: String, text: String) {
        if let Some(place) = self.early.iter().position(|(_, early)| *early == id) {
            let (at, _) = self.early.swap_remove(place);
            self.note(at, Act::Acked { text });
        } else {
            self.texts.insert(id, text);
        }
    }

    fn note_event(&mut self, at: Duration, event: Event) {
        let act = match event {
            Event::Delivered(delivery) => {
                self.shown += 1;
                Act::Shown { room: delivery.room, text: delivery.text, sender: delivery.sender }
            }
            Event::Acked { message_id } => match self.texts.remove(&message_id) {
                Some(text) => Act::Acked { text },
                None => return self.early.push((at, message_id)),
            },
            Event::Refused { message_id, code, .. } => match self.texts.remove(&message_id) {
                Some(text) => Act::Refused { text, code },
                None => return,
            },
            Event::Joined { room, history, .. } => Act::Joined { room, history },
            Event::Gap { room, .. } => Act::Gap { room },
            Event::Ended { reason } => Act::Ended { reason },
            _ => return,
        };
        self.note(at, act);
    }
}

fn no_thread(error: std::io::Error) -> StartError {
    StartError::Other(format!("cannot start a thread: {error}"))
}
