//! Clients and their users: what they do, and what the keeper's thread does around a session.

use std::time::Duration;

use super::super::agenda::{Event, Host, MS, Micros, SECOND};
use super::super::history::{Act, History};
use super::super::links::Packet;
use super::super::person::{Line, Stay};
use super::super::plan::chance;
use super::{Stage, World, instant};
use crate::client::event::Event as Told;
use crate::client::keeper::{LASTED, TICK_INTERVAL, WELCOME_TIMEOUT};
use crate::client::session::{Next, Session, Step};
use crate::domain::content::JoinRoom;
use crate::domain::{Frame, Message, MessageType, NodeId};

/// Messages that a user writes ahead of their acknowledgements.
const AHEAD_MAX: usize = 20;
/// How long after everything works again the connections of those who read anew break.
const BREAK_ON: Micros = 10 * SECOND;
/// They bring fewer messages than this before they break.
const PAST_PART: u32 = 30;

impl World {
    /// Steps the session of `host`, and does what it asks for.
    fn session(&mut self, host: Host, body: impl FnOnce(&mut Session) -> Step) {
        let person = self.person(host);
        let was_online = person.session.is_online();
        let step = body(&mut person.session);
        let conn = person.conn();
        for msg in step.send {
            let Some(conn) = conn else { continue };
            if msg.message_type == MessageType::JoinRoom {
                self.asks(host, &msg);
            }
            let frame = msg.to_frame();
            if msg.message_type == MessageType::Chat && self.repeats(host) {
                self.count("message repeated");
                self.push(conn, 0, Packet::Frame(frame.clone()));
            }
            self.push(conn, 0, Packet::Frame(frame));
        }
        self.told(host, step.events);
        let now = self.agenda.now();
        let person = self.person(host);
        if !was_online && person.session.is_online() {
            person.online_since = Some(now);
        }
        match step.next {
            Next::Stay => {}
            Next::Move { reason } => {
                self.tell(|| format!("h{host} moves: {reason}"));
                self.count("client moved");
                self.hang_up(host);
                self.try_later(host);
            }
            Next::End { .. } => self.hang_up(host),
        }
    }

    /// What the session tells its user.
    fn told(&mut self, host: Host, events: Vec<Told>) {
        for event in events {
            match event {
                Told::Delivered(shown) => {
                    let (room, text, sender) = (shown.room, shown.text, shown.sender);
                    self.record(host, Act::Shown { room, text, sender });
                }
                Told::Acked { message_id } => {
                    if let Some((text, written)) = self.person(host).texts.remove(&message_id) {
                        if let Some(server) = self.server_of(host) {
                            self.check_majority(server, &text, written);
                        }
                        self.record(host, Act::Acked { text });
                    }
                }
                Told::Refused { message_id, code, .. } => {
                    if let Some((text, _)) = self.person(host).texts.remove(&message_id) {
                        self.record(host, Act::Refused { text, code });
                    }
                }
                Told::Joined { room, history, .. } => {
                    self.person(host).expects += history as usize;
                    self.reset_soon(host);
                    self.record(host, Act::Joined { room, history });
                }
                Told::HistoryStarts { room, after, .. } => {
                    self.count("history starts later");
                    self.record(host, Act::Starts { room, after });
                }
                Told::Gap { room, .. } => self.record(host, Act::Gap { room }),
                Told::Left { room } => {
                    let person = self.person(host);
                    if person.rooms.get(&room) == Some(&Stay::Leaving) {
                        person.rooms.remove(&room);
                    }
                    if let Some(history) = self.person(host).comes_back.remove(&room) {
                        self.enter(host, &room, history);
                    }
                }
                Told::Ended { reason } => {
                    if reason.contains("is in use") {
                        self.count("name in use");
                        // As the message says: choose another.
                        let person = self.person(host);
                        person.user = format!("{}'", person.user);
                    }
                    self.record(host, Act::Ended { reason });
                    self.hang_up(host);
                    self.next_session(host);
                }
                Told::Moved { resent, .. } | Told::Reconnected { resent, .. } => {
                    self.count("client resumed");
                    if resent > 0 {
                        self.count("message resent");
                    }
                }
                Told::Status(status) => {
                    let leader = status.leader.map(|leader| leader.to_string());
                    let ring = status.ring.iter().map(NodeId::to_string).collect();
                    self.person(host).status = Some((leader, ring));
                }
                _ => {}
            }
        }
    }

    /// The session sends JOIN_ROOM. Those asked of a server that was replaced and does not know it are the ones that
    /// matter.
    fn asks(&mut self, host: Host, msg: &Message) {
        let Ok(join) = msg.content.parse::<JoinRoom>() else { return };
        let history = join.history.filter(|_| join.after.is_none());
        self.record(host, Act::Asked { room: msg.room_id.clone(), history });
        if self.server_of(host).is_some_and(|server| self.is_deposed(server)) {
            self.count("deposed leader asked");
        }
    }

    /// The server that the client of `host` is connected to.
    fn server_of(&mut self, host: Host) -> Option<Host> {
        let conn = self.person(host).conn()?;
        Some(self.links.get(conn)?.ends[1].host)
    }

    /// Whether the program sends a message twice at once.
    fn repeats(&mut self, host: Host) -> bool {
        let parts = self.plan.habits.repeats;
        parts > 0 && chance(&mut self.person(host).rng, parts)
    }

    /// The connection may break while the past of a room is sent.
    fn reset_soon(&mut self, host: Host) {
        let parts = self.plan.weather.join_resets;
        let person = self.person(host);
        let (breaks, pause) = (chance(&mut person.rng, parts), person.rng.u64(0..2 * SECOND));
        if let Some(conn) = person.conn().filter(|_| breaks && self.stage == Stage::Faults) {
            self.count("reset in the past");
            for side in [0, 1] {
                self.agenda.after(pause, Event::Reset { conn, side, why: "reset" });
            }
        }
    }

    fn record(&mut self, host: Host, act: Act) {
        let now = self.agenda.now();
        if self.trace.is_on() && !matches!(act, Act::Got { .. }) {
            let line = format!("{} {act:?}", self.name(host));
            self.tell(|| line);
        }
        self.person(host).record.acts.push((now, act));
    }

    /// The session is over; the user begins another one after a while.
    fn next_session(&mut self, host: Host) {
        let person = self.person(host);
        let record = person.begin_session();
        person.line = Line::Down;
        person.attempt += 1;
        let attempt = person.attempt;
        let pause = person.rng.u64(500..3000) * MS;
        self.history.sessions.push(record);
        self.agenda.after(pause, Event::Attempt { host, attempt });
    }

    /// Takes the records of the sessions that go on, at the end of the run.
    pub(super) fn collect_records(&mut self) {
        for person in &mut self.people {
            let record = std::mem::take(&mut person.record);
            let History { sessions, readers, .. } = &mut self.history;
            let of = if person.reads_only { readers } else { sessions };
            if !record.acts.is_empty() {
                of.push(record);
            }
        }
    }

    /// Asks how the cluster is.
    pub(super) fn ask_status(&mut self, host: Host) {
        self.session(host, Session::ask_status);
    }

    // ------------------------------------------------------------ the keeper

    /// Dials the next address.
    pub(super) fn attempt(&mut self, host: Host, attempt: u64) {
        let person = self.person(host);
        if person.attempt != attempt || person.line != Line::Down || person.session.is_ended() {
            return;
        }
        let Some(address) = person.session.addresses().take_turn() else { return };
        person.attempt += 1;
        person.line = Line::Dialling;
        let attempt = person.attempt;
        self.dial((host, attempt), &address);
        let limit = u64::try_from(WELCOME_TIMEOUT.as_micros()).unwrap_or(Micros::MAX);
        self.agenda.after(limit, Event::WelcomeOverdue { host, attempt });
    }

    fn try_later(&mut self, host: Host) {
        let now = self.agenda.now();
        let person = self.person(host);
        let since = person.online_since.take();
        let lasted = since.is_some_and(|since| Duration::from_micros(now - since) > LASTED);
        if since.is_some() && (person.session.progressed || lasted) {
            person.backoff.reset();
        }
        person.attempt += 1;
        let attempt = person.attempt;
        let pause = u64::try_from(person.backoff.next().as_micros()).unwrap_or(SECOND);
        self.agenda.after(pause, Event::Attempt { host, attempt });
    }

    pub(super) fn person_connected(&mut self, host: Host, conn: u64, address: &str) {
        self.person(host).line = Line::Up(conn);
        let now = instant(self.agenda.now());
        self.session(host, |session| session.connected(address, now));
    }

    pub(super) fn person_unreachable(&mut self, host: Host, attempt: u64, address: &str) {
        let person = self.person(host);
        if person.attempt != attempt || person.line != Line::Dialling {
            return;
        }
        person.line = Line::Down;
        person.session.unreachable(address);
        self.try_later(host);
    }

    pub(super) fn welcome_overdue(&mut self, host: Host, attempt: u64) {
        let person = self.person(host);
        if person.attempt == attempt && !person.session.is_online() && person.conn().is_some() {
            self.session(host, |session| session.move_on("no answer to CLIENT_JOIN"));
        }
    }

    pub(super) fn client_tick(&mut self, host: Host) {
        let now = instant(self.agenda.now());
        self.session(host, |session| session.tick(now));
        let pause = u64::try_from(TICK_INTERVAL.as_micros()).unwrap_or(SECOND);
        self.agenda.after(pause, Event::ClientTick { host });
    }

    /// A frame of a server.
    pub(super) fn person_reads(&mut self, host: Host, conn: u64, frame: &Frame) {
        if self.person(host).conn() != Some(conn) {
            return;
        }
        let Ok(msg) = Message::decode(frame) else {
            let detail = format!("a client cannot read {}", String::from_utf8_lossy(frame));
            self.violate("wire", detail, &[]);
            return;
        };
        let (room, text) = (msg.room_id.clone(), msg.content.text().to_string());
        if let Some(place) = msg.seq.filter(|_| msg.message_type == MessageType::Chat) {
            self.history.places.insert(text.clone(), place);
        }
        if msg.message_type == MessageType::Chat && self.person(host).rooms.contains_key(&room) {
            self.record(host, Act::Got { room, text });
            self.breaks_in_the_middle(host, conn);
        }
        let now = instant(self.agenda.now());
        self.session(host, |session| session.receive(&msg, now));
    }

    /// The connection is gone.
    pub(super) fn person_lost(&mut self, host: Host, conn: u64, why: &str) {
        let person = self.person(host);
        if person.conn() != Some(conn) {
            return;
        }
        person.line = Line::Down;
        let events = person.session.lost(why);
        self.told(host, events);
        self.try_later(host);
    }

    /// Closes the connection from this side.
    fn hang_up(&mut self, host: Host) {
        let Some(conn) = self.person(host).conn() else { return };
        self.person(host).line = Line::Down;
        self.push(conn, 0, Packet::End);
        self.shut(conn, 0);
        self.links.tidy(conn);
    }

    // ------------------------------------------------------------ the user

    /// The user does something, now and then.
    pub(super) fn act(&mut self, host: Host) {
        if matches!(self.stage, Stage::Reading(_)) || self.is_quiet() {
            return;
        }
        let habits = self.plan.habits;
        let person = self.person(host);
        let pause = person.rng.u64(0..2 * habits.pause);
        let (quits, wanders) =
            (chance(&mut person.rng, habits.quit), chance(&mut person.rng, habits.wander));
        let is_in = person.rooms.values().any(|stay| *stay == Stay::In);
        let reads = habits.reads > 0 && chance(&mut person.rng, habits.reads);
        if quits && self.stage == Stage::Faults {
            self.quit(host);
        } else if reads && is_in {
            self.read_again(host);
        } else if wanders || !is_in {
            self.wander(host);
        } else {
            self.write(host);
        }
        self.agenda.after(pause, Event::Act { host });
    }

    /// Goes into a room, or leaves one.
    fn wander(&mut self, host: Host) {
        let rooms = self.plan.rooms.clone();
        let person = self.person(host);
        let room = rooms[person.rng.usize(0..rooms.len())].clone();
        match person.rooms.get(&room) {
            None => {
                let (all, few) = (person.rng.bool(), person.rng.u32(0..10));
                self.enter(host, &room, if all { u32::MAX } else { few });
            }
            Some(Stay::In) => {
                // Who leaves with messages on the way has them refused, and that is right.
                let waits = person.session.outstanding().iter().any(|chat| chat.room == room);
                if !waits {
                    self.leave_room(host, &room);
                }
            }
            Some(Stay::Leaving) => {}
        }
    }

    fn leave_room(&mut self, host: Host, room: &str) {
        self.person(host).rooms.insert(room.into(), Stay::Leaving);
        self.record(host, Act::Left { room: room.into() });
        self.session(host, |session| session.leave_room(room));
    }

    /// Goes into `room`, asking for `history` messages of its past.
    pub(super) fn enter(&mut self, host: Host, room: &str, history: u32) {
        self.person(host).rooms.insert(room.into(), Stay::In);
        self.record(host, Act::Entered { room: room.into(), all: history == u32::MAX });
        self.session(host, |session| session.join_room(room, Some(history)));
    }

    /// Leaves a room and comes back at once to read its past; or begins anew at another server and reads it there.
    fn read_again(&mut self, host: Host) {
        let goes_wrong = self.stage == Stage::Faults;
        let person = self.person(host);
        let moves = person.rng.u32(0..4) == 0 && goes_wrong;
        let history = if person.rng.bool() { u32::MAX } else { person.rng.u32(0..10) };
        let room = person.some_room();
        if moves {
            person.addresses.rotate_left(1);
            self.count("room read elsewhere");
            self.quit(host);
            self.enter(host, &room, history);
        } else if !person.session.outstanding().iter().any(|chat| chat.room == room) {
            person.comes_back.insert(room.clone(), history);
            self.count("room read again");
            self.leave_room(host, &room);
        }
    }

    fn write(&mut self, host: Host) {
        let written = self.agenda.now();
        let now = instant(written);
        let person = self.person(host);
        if person.session.outstanding().len() >= AHEAD_MAX {
            return;
        }
        let room = person.some_room();
        person.wrote += 1;
        let text = format!("{}-{}", person.user, person.wrote);
        self.record(host, Act::Wrote { room: room.clone(), text: text.clone() });
        self.session(host, |session| session.send_message(&text, &room, now).1);
        // Its id is known now; it cannot be acknowledged before the next event.
        let person = self.person(host);
        let id = person.session.outstanding().iter().find(|chat| chat.text == text);
        if let Some(id) = id.map(|chat| chat.message_id.clone()) {
            person.texts.insert(id, (text, written));
        }
    }

    /// After a partition half of the users begin anew and ask for everything that was ever said. Their connections break
    /// again and again while it is sent: the positions in the middle of a past, with second stamps in it, are put to use.
    pub(super) fn read_anew(&mut self) {
        for host in self.machines.len()..self.machines.len() + self.plan.clients {
            if !self.person(host).rng.bool() {
                continue;
            }
            self.count("past read anew");
            if let Some(conn) = self.person(host).conn() {
                self.shut(conn, 0);
                self.send_reset(conn, 1, "reset");
            }
            self.record(host, Act::Quit);
            self.next_session(host);
            for room in self.plan.rooms.clone() {
                self.enter(host, &room, u32::MAX);
            }
            let person = self.person(host);
            person.breaks_after = Some(person.rng.u32(1..PAST_PART));
        }
    }

    /// The connection breaks when it has brought so many messages; for a while the next one does, too.
    fn breaks_in_the_middle(&mut self, host: Host, conn: u64) {
        let now = self.agenda.now();
        let still = matches!(self.stage, Stage::Healing(since) if now < since + BREAK_ON);
        let person = self.person(host);
        let Some(left) = person.breaks_after.filter(|_| still) else { return };
        if left > 1 {
            person.breaks_after = Some(left - 1);
            return;
        }
        person.breaks_after = Some(person.rng.u32(1..PAST_PART));
        self.count("reset in the past");
        for side in [0, 1] {
            self.agenda.after(0, Event::Reset { conn, side, why: "reset" });
        }
    }

    /// The user ends the session, or its program or machine crashes.
    fn quit(&mut self, host: Host) {
        let how = self.person(host).rng.u32(0..3);
        if how == 0 {
            self.count("client quit");
            self.session(host, Session::leave);
            self.hang_up(host);
        } else if let Some(conn) = self.person(host).conn() {
            self.count("client crash");
            self.shut(conn, 0);
            if how == 1 {
                self.send_reset(conn, 1, "reset");
            }
        }
        self.record(host, Act::Quit);
        self.next_session(host);
    }
}
