//! The bookkeeping of one client session, without a socket or a clock.
//!
//! ```text
//!            connected            Welcome              every room joined
//!   Offline ───────────▶ Greeting ──────────▶ Online ─────────────────────▶ Online, resumed
//!      ▲    CLIENT_JOIN           JOIN_ROOM (after …)   CHAT not yet acknowledged, in order
//!      └──────────────── lost, or told to move ──────────┘
//! ```
//!
//! A session outlives its connections. What it was shown (the *positions*), what it wants (the rooms)
//! and what it said without being acknowledged (the *outstanding* messages) are kept here, so that a new
//! connection, to whichever server, goes on where the last one ended: nothing twice, nothing left out.
//!
//! Promise: a message is sent again, under the same id, until it is acknowledged or refused for good; messages
//! into one room go out in the order written on every connection; a message is shown once.
//! Price: what is outstanding is kept in memory; a room's messages wait for its join.
//! Leaves out: sessions that outlive the program.
//!
//! Every input returns a [`Step`]: what to send, what to tell the user, and whether to stay. The caller
//! sends and tells in that order, and reports lost connections; see [`super::chat_client`].

mod answers;
pub mod outstanding;
pub mod room_view;
pub mod silence;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::addresses::Addresses;
use super::event::Event;
use crate::domain::content::ClientJoin;
use crate::domain::{Message, MessageType, VectorClock};
use outstanding::{Outstanding, Unacked};
use room_view::{Past, RoomView};
use silence::{Owed, Silence, Verdict};

/// How long another server may take to take us over before the user is told that the connection is lost.
const UNTOLD_MAX: Duration = Duration::from_secs(1);

/// What an input led to.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    /// To send on the present connection, in order.
    pub send: Vec<Message>,
    /// To tell the user, in order.
    pub events: Vec<Event>,
    /// What becomes of the connection.
    pub next: Next,
}

/// What becomes of the connection after a [`Step`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// It stays.
    #[default]
    Stay,
    /// Close it and connect to the next server. [`Session::lost`] was done.
    Move {
        /// Why, in a sentence without a full stop.
        reason: String,
    },
    /// Close it; the session is over.
    End {
        /// Why, in a sentence without a full stop.
        reason: String,
    },
}

/// How far the present connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Offline,
    /// CLIENT_JOIN is on its way to this address.
    Greeting(String),
    /// This address welcomed us.
    Online(String),
    Ended,
}

/// A request that awaits its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    Hello,
    Join(String, Past),
    Leave(String),
    /// CLIENT_LEAVE.
    Goodbye,
    Status,
    Rooms,
    Members(String),
    /// Asked only to hear whether the server is there.
    Probe,
}

/// A reconnect that is not complete yet.
#[derive(Debug, Default)]
struct Resume {
    waiting: BTreeSet<String>,
    resent: usize,
}

/// A connection that was lost and is not replaced yet.
#[derive(Debug)]
struct Gone {
    /// Why, naming the server.
    reason: String,
    /// When a tick first found it.
    since: Option<Instant>,
    /// Whether the user was told.
    told: bool,
}

/// One session: who, where, what is open.
#[derive(Debug)]
pub struct Session {
    id: String,
    username: String,
    phase: Phase,
    addresses: Addresses,
    /// How many connections it had.
    connections: u64,
    requests: BTreeMap<String, Request>,
    request_count: u64,
    rooms: BTreeMap<String, RoomView>,
    outstanding: Outstanding,
    /// Everything that any room's position counted; for display only (design `ring`).
    vector_clock: VectorClock,
    online_once: bool,
    gone: Option<Gone>,
    resume: Option<Resume>,
    /// Rooms that a server was behind in, and the addresses that cannot help. Empty when all is well.
    behind: BTreeSet<String>,
    tried: BTreeSet<String>,
    /// Addresses whose disk is full.
    full: BTreeSet<String>,
    /// Of the server of the present connection.
    silence: Option<Silence>,
    /// Whether a message was acknowledged on the present connection: it is worth something.
    pub progressed: bool,
}

impl Session {
    /// A session named `id` of the user `username` that knows no server yet.
    pub fn new(id: &str, username: &str) -> Self {
        Self {
            id: id.into(),
            username: username.into(),
            phase: Phase::Offline,
            addresses: Addresses::default(),
            connections: 0,
            requests: BTreeMap::new(),
            request_count: 0,
            rooms: BTreeMap::new(),
            outstanding: Outstanding::default(),
            vector_clock: VectorClock::new(),
            online_once: false,
            gone: None,
            resume: None,
            behind: BTreeSet::new(),
            tried: BTreeSet::new(),
            full: BTreeSet::new(),
            silence: None,
            progressed: false,
        }
    }

    /// The session's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The user's name.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The servers that it knows.
    pub fn addresses(&mut self) -> &mut Addresses {
        &mut self.addresses
    }

    /// Everything that any room's position counted (design `ring`). For display.
    pub fn vector_clock(&self) -> &VectorClock {
        &self.vector_clock
    }

    /// Whether a server has welcomed the session and it was not lost since.
    pub fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online(_))
    }

    /// Whether a connection stands or is being greeted.
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Greeting(_) | Phase::Online(_))
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// The messages that were neither acknowledged nor refused.
    pub fn outstanding(&self) -> &Outstanding {
        &self.outstanding
    }

    /// The messages written more than `limit` ago and still outstanding; each is named once.
    pub fn overdue(&mut self, now: Instant, limit: Duration) -> Vec<String> {
        self.outstanding.overdue(now, limit)
    }

    /// A connection to `address` stands: says who we are.
    pub fn connected(&mut self, address: &str, now: Instant) -> Step {
        self.phase = Phase::Greeting(address.into());
        (self.silence, self.progressed) = (Some(Silence::new(now)), false);
        self.connections += 1;
        let join = ClientJoin {
            session: self.id.clone(),
            connection: Some(self.connections),
            ..ClientJoin::default()
        };
        let hello = self.request(MessageType::ClientJoin, Request::Hello).saying(&join);
        Step { send: vec![hello], ..Step::default() }
    }

    /// `address` could not be connected to.
    pub fn unreachable(&mut self, address: &str) {
        if !self.behind.is_empty() {
            self.tried.insert(address.into());
        }
    }

    /// The connection broke because of `reason`; the next one takes up from here. The user is told when that takes
    /// long ([`tick`](Self::tick)), or else with the news of the next connection.
    pub fn lost(&mut self, reason: &str) -> Vec<Event> {
        self.give_up(|address| format!("lost {address} ({reason})"))
    }

    /// Ends what is bound to the present connection. `reason` is given the server's address.
    fn give_up(&mut self, reason: impl FnOnce(&str) -> String) -> Vec<Event> {
        let mut events = Vec::new();
        match std::mem::replace(&mut self.phase, Phase::Offline) {
            Phase::Online(address) => {
                // Lost again before all rooms were back, it is the same story.
                let gone = || Gone { reason: reason(&address), since: None, told: false };
                self.gone.get_or_insert_with(gone);
            }
            Phase::Greeting(address) => self.unreachable(&address),
            Phase::Offline => {}
            Phase::Ended => self.phase = Phase::Ended,
        }
        self.resume = None;
        self.silence = None;
        self.outstanding.lost();
        self.rooms.values_mut().for_each(RoomView::lost);
        self.requests.retain(|_, request| match request {
            Request::Status | Request::Rooms | Request::Members(_) => true,
            Request::Leave(room) => {
                // The connection is gone, and with it the membership.
                events.push(Event::Left { room: room.clone() });
                false
            }
            Request::Hello | Request::Join(..) | Request::Goodbye | Request::Probe => false,
        });
        events
    }

    /// Time has passed: notices a server that has fallen silent, and tells of a connection that is lost for a while.
    pub fn tick(&mut self, now: Instant) -> Step {
        let owed = self.owed();
        let verdict = self.silence.as_mut().map_or(Verdict::Wait, |it| it.tick(now, owed));
        let mut step = match verdict {
            Verdict::Wait => Step::default(),
            Verdict::Ask => {
                let probe = self.request(MessageType::Heartbeat, Request::Probe);
                Step { send: vec![probe], ..Step::default() }
            }
            Verdict::Gone(silence) => {
                let silent = format!("said nothing for {} s", silence.as_secs());
                self.move_because(&format!("the server {silent}"), |it| format!("{it} {silent}"))
            }
        };
        if let Some(gone) = self.gone.as_mut().filter(|gone| !gone.told) {
            let since = *gone.since.get_or_insert(now);
            gone.told = now.duration_since(since) >= UNTOLD_MAX;
            if gone.told {
                step.events.push(Event::Disconnected { reason: gone.reason.clone() });
            }
        }
        step
    }

    /// What the server has yet to answer.
    fn owed(&self) -> Owed {
        let asked = self.requests.values().any(|request| *request != Request::Probe);
        if !asked && self.outstanding.is_empty() {
            return Owed::Nothing;
        }
        Owed::Answer { bytes: self.outstanding.bytes() }
    }

    /// Enters `room`, at first with `history` messages of its past (`None`: as many as the server
    /// chooses). In a room already, shows its past again.
    pub fn join_room(&mut self, room: &str, history: Option<u32>) -> Step {
        let past = if self.rooms.contains_key(room) { Past::Again } else { Past::First };
        if past == Past::First {
            self.rooms.insert(room.into(), RoomView::new(history));
        }
        let mut step = Step::default();
        let waiting = self.rooms.get(room).is_some_and(|view| past == Past::Again && !view.joined);
        if self.is_online() && !waiting {
            let content = crate::domain::content::JoinRoom { history, ..Default::default() };
            let request = Request::Join(room.into(), past);
            let join = self.request(MessageType::JoinRoom, request);
            step.send.push(join.in_room(room).saying(&content));
        }
        step
    }

    /// Leaves `room`.
    pub fn leave_room(&mut self, room: &str) -> Step {
        let mut step = Step::default();
        if self.rooms.remove(room).is_some() {
            if self.is_online() {
                let leave = self.request(MessageType::LeaveRoom, Request::Leave(room.into()));
                step.send.push(leave.in_room(room));
            } else {
                step.events.push(Event::Left { room: room.into() });
            }
        }
        step
    }

    /// Says `text` in `room`, now or when the next connection stands. Returns the message's id.
    pub fn send_message(&mut self, text: &str, room: &str, now: Instant) -> (String, Step) {
        let number = self.outstanding.add(&self.id, room, text, now);
        let mut step = Step::default();
        if self.is_ready(room)
            && let Some(chat) = self.outstanding.take(number)
        {
            step.send.push(chat_message(&self.username, chat));
        }
        let message_id = self.outstanding.get(number).map(|chat| chat.message_id.clone());
        (message_id.unwrap_or_default(), step)
    }

    /// Ends the session and says so: without a word the servers would keep its name and its place for a while, in
    /// case that it comes back.
    pub fn leave(&mut self) -> Step {
        let mut step = Step::default();
        if self.is_online() {
            step.send.push(self.request(MessageType::ClientLeave, Request::Goodbye));
        }
        self.phase = Phase::Ended;
        step
    }

    /// Asks how the cluster is.
    pub fn ask_status(&mut self) -> Step {
        self.ask(Request::Status)
    }

    /// Asks which rooms there are.
    pub fn ask_rooms(&mut self) -> Step {
        self.ask(Request::Rooms)
    }

    /// Asks who is in `room`, on all servers.
    pub fn ask_members(&mut self, room: &str) -> Step {
        self.ask(Request::Members(room.into()))
    }

    fn ask(&mut self, request: Request) -> Step {
        let ask = self.query(request);
        let mut step = Step::default();
        if self.is_online() {
            step.send.push(ask);
        }
        step
    }

    fn query(&mut self, request: Request) -> Message {
        let room = match &request {
            Request::Members(room) => room.clone(),
            _ => String::new(),
        };
        self.request(MessageType::Status, request).in_room(room)
    }

    /// Whether a message into `room` may go out now. One into a room that was never asked for may: the server says why not.
    fn is_ready(&self, room: &str) -> bool {
        self.is_online() && self.rooms.get(room).is_none_or(|view| view.joined)
    }

    /// Sends what is outstanding in rooms that are ready.
    fn flush(&mut self, step: &mut Step) {
        let (online, rooms) = (self.is_online(), &self.rooms);
        let ready = |room: &str| online && rooms.get(room).is_none_or(|view| view.joined);
        let (due, resent) = self.outstanding.take_unsent(ready);
        step.send.extend(due.iter().map(|chat| chat_message(&self.username, chat)));
        if let Some(resume) = &mut self.resume {
            resume.resent += resent;
        }
    }

    /// A message of `message_type` under a fresh id, remembered as `request`.
    fn request(&mut self, message_type: MessageType, request: Request) -> Message {
        self.request_count += 1;
        // The letter keeps these apart from the numbers of messages.
        let id = format!("{}-r{}", self.id, self.request_count);
        self.requests.insert(id.clone(), request);
        Message::new(message_type, &self.username).with_id(id)
    }

    /// Leaves this server for the next one.
    pub fn move_on(&mut self, reason: &str) -> Step {
        self.move_because(reason, |address| format!("left {address} ({reason})"))
    }

    /// Does so; the user is told what `told` makes of the server's address.
    fn move_because(&mut self, reason: &str, told: impl FnOnce(&str) -> String) -> Step {
        let events = self.give_up(told);
        Step { events, next: Next::Move { reason: reason.into() }, ..Step::default() }
    }

    /// Ends the session.
    fn end(&mut self, reason: String) -> Step {
        let _ = self.lost("");
        self.gone = None;
        self.phase = Phase::Ended;
        let events = vec![Event::Ended { reason: reason.clone() }];
        Step { events, next: Next::End { reason }, ..Step::default() }
    }
}

fn chat_message(username: &str, chat: &Unacked) -> Message {
    let mut message =
        Message::new(MessageType::Chat, username).with_id(&chat.message_id).in_room(&chat.room);
    message.content = chat.text.as_str().into();
    message
}

#[cfg(test)]
mod tests;
