//! People who talk without a pause while their servers die: clients of the library, who find their way to another
//! server by themselves, and a log of all that happened to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use parking_lot::Mutex;
use roundtable::client::event::Event;
use roundtable::client::{ChatClient, ClientSettings};
use roundtable::sim::checker::Order;

use super::cluster::Cluster;
use super::history::{MemberLog, Step, complaints};
use super::wait_within;
use super::wire::RawClient;

/// The room in which they talk.
pub(crate) const ROOM: &str = "lobby";
/// How long everything may take to be shown everywhere once the servers are whole again.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// What happened to one of them.
#[derive(Default)]
struct Record {
    steps: Vec<Step>,
    /// What each message id that is not acknowledged says.
    texts: BTreeMap<String, String>,
    acked_at: Vec<Instant>,
    shown: usize,
    joined: bool,
    /// Moved, Disconnected, Reconnected, refused: what a person would have been told.
    news: Vec<String>,
}

struct Talker {
    name: String,
    client: Arc<ChatClient>,
    record: Arc<Mutex<Record>>,
    threads: Vec<JoinHandle<()>>,
}

/// Some people in one room.
pub(crate) struct Talk {
    talkers: Vec<Talker>,
    /// Dropped to end the writing.
    stop: Option<Sender<()>>,
    /// Dropped to end the listening.
    quit: Option<Sender<()>>,
    /// In which order they must be shown what is said.
    order: Order,
}

impl Talk {
    /// `count` people, spread over the servers of `cluster`, each of whom writes every `pause`.
    pub(crate) fn start(cluster: &Cluster, count: usize, pause: Duration) -> Self {
        let (stop, stopped) = bounded(0);
        let (quit, quitted) = bounded(0);
        let order = if cluster.has_one_order() { Order::Total } else { Order::Causal };
        let mut talk = Self { talkers: Vec::new(), stop: Some(stop), quit: Some(quit), order };
        for number in 0..count {
            let mut settings = ClientSettings::new(&format!("talker{number}"));
            settings.cluster.clone_from(&cluster.name);
            let client = Arc::new(ChatClient::new(settings).unwrap());
            let first = number % cluster.servers.len();
            let addresses: Vec<String> =
                cluster.connect_list(first).split(',').map(str::to_string).collect();
            client.start_any(&addresses).unwrap();
            client.join_room_with_history(ROOM, Some(0));
            talk.talkers.push(Talker::listen(format!("talker{number}"), client, quitted.clone()));
        }
        // Everyone hears everything: nobody writes before all are there.
        for talker in &talk.talkers {
            let there = wait_within(SETTLE_LIMIT, || talker.record.lock().joined.then_some(()));
            assert!(there.is_some(), "{} is in the room", talker.name);
        }
        for talker in &mut talk.talkers {
            talker.write(pause, stopped.clone());
        }
        talk
    }

    /// The longest time that one of them waited for an acknowledgement since `since`, which must be some time
    /// ago.
    pub(crate) fn longest_silence(&self, since: Instant) -> Duration {
        let silence = |talker: &Talker| {
            let acked_at = &talker.record.lock().acked_at;
            let mut last = since;
            let mut longest = Duration::ZERO;
            for at in acked_at.iter().filter(|at| **at >= since) {
                longest = longest.max(*at - last);
                last = *at;
            }
            longest.max(Instant::now().duration_since(last))
        };
        self.talkers.iter().map(silence).max().unwrap_or_default()
    }

    /// How many acknowledgements they have got.
    pub(crate) fn acked(&self) -> usize {
        self.acked_each().iter().sum()
    }

    /// How many acknowledgements each of them has got.
    pub(crate) fn acked_each(&self) -> Vec<usize> {
        self.talkers.iter().map(|talker| talker.record.lock().acked_at.len()).collect()
    }

    /// What people were told besides messages, each with the name in front.
    pub(crate) fn news(&self) -> Vec<String> {
        let tell = |talker: &Talker| {
            let news = talker.record.lock().news.clone();
            news.into_iter().map(|text| format!("{}: {text}", talker.name)).collect::<Vec<_>>()
        };
        self.talkers.iter().flat_map(tell).collect()
    }

    /// How many lines of news each of them was told.
    pub(crate) fn told_each(&self) -> Vec<usize> {
        self.talkers.iter().map(|talker| talker.record.lock().news.len()).collect()
    }

    /// Lets them finish, waits until all is acknowledged and shown, and returns what is wrong with that, and how
    /// many messages there were.
    pub(crate) fn finish(mut self) -> (Vec<String>, usize) {
        drop(self.stop.take());
        for talker in &self.talkers {
            talker.client.wait_acknowledged(Some(SETTLE_LIMIT));
        }
        let written: usize = self.talkers.iter().map(Talker::written).sum();
        let all_shown = || {
            let done = |talker: &Talker| talker.record.lock().shown >= written;
            self.talkers.iter().all(done).then_some(())
        };
        let _ = wait_within(SETTLE_LIMIT, all_shown);
        // Long enough for a message that would be shown twice.
        sleep(Duration::from_millis(500));
        drop(self.quit.take());
        let mut logs = Vec::new();
        for talker in self.talkers {
            talker.client.stop();
            for thread in talker.threads {
                thread.join().unwrap();
            }
            let steps = std::mem::take(&mut talker.record.lock().steps);
            logs.push(MemberLog { name: talker.name, steps });
        }
        (complaints(&logs, self.order), written)
    }
}

impl Talker {
    /// Starts to keep a record of what `client` is told, until `quitted`.
    fn listen(name: String, client: Arc<ChatClient>, quitted: Receiver<()>) -> Self {
        let record: Arc<Mutex<Record>> = Arc::default();
        let events = client.events().clone();
        let kept = record.clone();
        let thread = spawn(move || {
            loop {
                select! {
                    recv(quitted) -> _ => return,
                    recv(events) -> event => match event {
                        Ok(event) => kept.lock().note(event),
                        Err(_) => return,
                    },
                }
            }
        });
        Self { name, client, record, threads: vec![thread] }
    }

    /// Starts to write every `pause` until `stopped`.
    fn write(&mut self, pause: Duration, stopped: Receiver<()>) {
        let (client, record, name) = (self.client.clone(), self.record.clone(), self.name.clone());
        self.threads.push(spawn(move || {
            for number in 0_u64.. {
                let text = format!("{name}-{number}");
                // Under the lock: the record has the message before its acknowledgement can be noted.
                let mut kept = record.lock();
                kept.steps.push(Step::Wrote(text.clone()));
                let sent = client.send_message(&text, ROOM);
                let Ok(message_id) = sent else {
                    kept.steps.pop();
                    return;
                };
                kept.texts.insert(message_id, text);
                drop(kept);
                if stopped.recv_timeout(pause)
                    == Err(crossbeam_channel::RecvTimeoutError::Disconnected)
                {
                    return;
                }
            }
        }));
    }

    fn written(&self) -> usize {
        let wrote = |step: &&Step| matches!(step, Step::Wrote(_));
        self.record.lock().steps.iter().filter(wrote).count()
    }
}

impl Record {
    #[expect(clippy::disallowed_methods, reason = "silence is measured in real time")]
    fn note(&mut self, event: Event) {
        match event {
            Event::Delivered(delivery) => {
                self.shown += 1;
                self.steps.push(Step::Shown(delivery.text));
            }
            Event::Acked { message_id } => {
                self.acked_at.push(Instant::now());
                // A repeated acknowledgement is no news.
                if let Some(text) = self.texts.remove(&message_id) {
                    self.steps.push(Step::Acked(text));
                }
            }
            Event::Joined { .. } => self.joined = true,
            Event::Disconnected { reason } => self.news.push(format!("disconnected: {reason}")),
            Event::Moved { reason, resent, .. } => {
                self.news.push(format!("moved: {reason}, {resent} messages sent again"));
            }
            Event::Reconnected { resent, .. } => {
                self.news.push(format!("reconnected, {resent} messages sent again"));
            }
            Event::Refused { code, reason, .. } => self.news.push(format!("{code}: {reason}")),
            Event::Ended { reason } => self.news.push(format!("ended: {reason}")),
            Event::Gap { missing, .. } => self.news.push(format!("gap: {missing}")),
            _ => {}
        }
    }
}

/// Panics unless a reader on each server is told the same messages, `written` of them, in the same order where
/// that is promised.
fn assert_equal_rooms(cluster: &Cluster, written: usize) {
    let mut orders = Vec::new();
    for server in &cluster.servers {
        let name = format!("reader of {}", server.id);
        // A server that was out of it fetches what it missed first.
        let joined = wait_within(SETTLE_LIMIT, || {
            let mut reader = RawClient::join(server.address, &name);
            reader.try_join_room(ROOM, u32::MAX).map(|joined| (reader, joined))
        });
        let (mut reader, joined) = joined.unwrap_or_else(|| panic!("{name} gets into the room"));
        assert_eq!(joined.history as usize, written, "messages on {}", server.id);
        let order = reader.texts(written);
        let texts: BTreeSet<&String> = order.iter().collect();
        assert_eq!(texts.len(), written, "each once on {}", server.id);
        orders.push(order);
    }
    if cluster.has_one_order() {
        assert!(orders.iter().all(|order| *order == orders[0]), "one order on all servers");
    }
}

/// Ends the talk and checks everything.
pub(crate) fn assert_nothing_lost(cluster: &Cluster, talk: Talk) {
    cluster.wait_ready();
    let news = talk.news();
    let (complaints, written) = talk.finish();
    assert!(complaints.is_empty(), "{complaints:#?}\n{news:#?}");
    assert_equal_rooms(cluster, written);
    println!("{written} messages, all acknowledged, none lost, none twice");
}
