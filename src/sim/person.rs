//! One simulated client program with its user: the real [`Session`], and what the keeper's thread does around it.

use std::collections::BTreeMap;

use super::agenda::{Host, Micros};
use super::history::SessionHistory;
use crate::client::keeper::Backoff;
use crate::client::session::Session;

/// A room, as the user wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// To be in it.
    In,
    /// To be out; the cluster has not said so yet.
    Leaving,
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It is not; it will try again.
    Down,
    /// It is dialling.
    Dialling,
    /// By this connection.
    Up(u64),
}

/// A client and its user.
#[derive(Debug)]
pub(super) struct Person {
    /// The machine.
    pub(super) host: Host,
    /// The user's name.
    pub(super) user: String,
    /// The addresses that it starts with.
    pub(super) addresses: Vec<String>,
    /// The session; the next one begins when it is over.
    pub(super) session: Session,
    /// What the present session did and saw.
    pub(super) record: SessionHistory,
    /// The rooms.
    pub(super) rooms: BTreeMap<String, Stay>,
    /// Rooms that the user leaves only to come back, and of how many messages of the past it wants to read then.
    pub(super) comes_back: BTreeMap<String, u32>,
    /// The connection.
    pub(super) line: Line,
    /// Counts attempts to connect: what was meant for an earlier one is void.
    pub(super) attempt: u64,
    /// Since when it is welcomed.
    pub(super) online_since: Option<Micros>,
    /// How long to wait before the next attempt.
    pub(super) backoff: Backoff,
    /// How many sessions it had.
    pub(super) sessions: u64,
    /// How many messages it wrote, over all sessions.
    pub(super) wrote: u64,
    /// The texts of messages by id, and when they were written.
    pub(super) texts: BTreeMap<String, (String, Micros)>,
    /// After how many messages more the connection breaks.
    pub(super) breaks_after: Option<u32>,
    /// A reader does nothing but read.
    pub(super) reads_only: bool,
    /// What a reader was told by STATUS: the leader and the ring.
    pub(super) status: Option<(Option<String>, Vec<String>)>,
    /// How many messages a reader was told to expect.
    pub(super) expects: usize,
    /// Its luck.
    pub(super) rng: fastrand::Rng,
}

impl Person {
    /// A client that is not started yet. It tries `addresses` in turn.
    pub(super) fn new(host: Host, user: &str, addresses: Vec<String>, rng: fastrand::Rng) -> Self {
        let mut person = Self {
            host,
            user: user.into(),
            addresses,
            session: Session::new("", ""),
            record: SessionHistory::default(),
            rooms: BTreeMap::new(),
            comes_back: BTreeMap::new(),
            line: Line::Down,
            attempt: 0,
            online_since: None,
            backoff: Backoff::new(0),
            sessions: 0,
            wrote: 0,
            texts: BTreeMap::new(),
            breaks_after: None,
            reads_only: false,
            status: None,
            expects: 0,
            rng,
        };
        person.begin_session();
        person
    }

    /// Begins the next session. Returns the record of the last one.
    pub(super) fn begin_session(&mut self) -> SessionHistory {
        self.sessions += 1;
        let id = format!("{}s{}", self.user, self.sessions);
        self.session = Session::new(&id, &self.user);
        self.session.addresses().learn(self.addresses.iter().map(String::as_str));
        self.backoff = Backoff::new(self.rng.u64(..));
        self.rooms.clear();
        self.comes_back.clear();
        self.texts.clear();
        self.online_since = None;
        let record = SessionHistory { session: id, user: self.user.clone(), acts: Vec::new() };
        std::mem::replace(&mut self.record, record)
    }

    /// One of the rooms that the user is in; it is in one.
    pub(super) fn some_room(&mut self) -> String {
        let rooms: Vec<&String> = self
            .rooms
            .iter()
            .filter(|(_, stay)| **stay == Stay::In)
            .map(|(room, _)| room)
            .collect();
        rooms[self.rng.usize(0..rooms.len())].clone()
    }

    /// The connection, when there is one.
    pub(super) fn conn(&self) -> Option<u64> {
        match self.line {
            Line::Up(conn) => Some(conn),
            Line::Down | Line::Dialling => None,
        }
    }
}
