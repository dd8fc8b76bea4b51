//! Packets on connections, dials, datagrams, cuts and resets.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::super::agenda::{Event, Host, MS, Micros, SECOND};
use super::super::links::{Packet, Read, conn_id, end_of};
use super::super::person::Line;
use super::super::plan::chance;
use super::World;
use crate::domain::{Frame, Message};
use crate::network::{Batch, ConnId};
use crate::server::Flow;
use crate::trace::event::Kind;

/// How long a dial may take, as in the shell.
const DIAL_TIMEOUT: Micros = SECOND;

impl World {
    /// How long something takes from `from` to `to` this time.
    pub(super) fn delay(&mut self, from: Host, to: Host) -> Micros {
        let weather = self.plan.weather;
        let hosts = self.plan.nodes * 2 + self.plan.clients;
        let rng = &mut self.routes[from * hosts + to];
        let late = if chance(rng, weather.late.0) { rng.u64(0..=weather.late.1) } else { 0 };
        weather.delay + rng.u64(0..=weather.jitter) + late
    }

    /// Where the machine `host` seems to be.
    fn socket_address(host: Host) -> SocketAddr {
        ([10, 0, 0, u8::try_from(host).unwrap_or(u8::MAX)], 7000).into()
    }

    /// A server sends `frame` on `conn`.
    pub(super) fn send(&mut self, conn: ConnId, frame: Frame) {
        let (link, side) = end_of(conn);
        let bytes = frame.len();
        if self.push(link, side, Packet::Frame(frame)) {
            let host = self.links.get(link).map(|link| link.ends[side].host);
            let running = host.and_then(|host| self.machines.get(host)?.running.as_ref());
            if let Some(running) = running {
                running.cm.sent(conn, bytes);
            }
        }
    }

    /// Sends a packet from the end `side` of `conn`. False when that end is closed.
    pub(super) fn push(&mut self, conn: u64, side: usize, packet: Packet) -> bool {
        let Some(link) = self.links.get(conn) else { return false };
        if !link.ends[side].open {
            return false;
        }
        let (from, to) = (link.ends[side].host, link.ends[1 - side].host);
        let at = self.agenda.now() + self.delay(from, to);
        let Some(link) = self.links.get(conn) else { return false };
        let end = &mut link.ends[1 - side];
        end.last_at = at.max(end.last_at);
        let at = end.last_at;
        end.flight.push_back((at, packet));
        self.agenda.at(at, Event::Deliver { conn, side: 1 - side });
        true
    }

    /// What has arrived at the end `side` of `conn` by now is read.
    pub(super) fn deliver(&mut self, conn: u64, side: usize) {
        let now = self.agenda.now();
        let Some(link) = self.links.get(conn) else { return };
        let (from, to) = (link.ends[1 - side].host, link.ends[side].host);
        if self.links.is_cut(from, to) {
            return;
        }
        let Some(link) = self.links.get(conn) else { return };
        let end = &mut link.ends[side];
        let mut batch = Vec::new();
        let mut ended = false;
        while let Some((at, _)) = end.flight.front() {
            if *at > now {
                break;
            }
            match end.flight.pop_front() {
                Some((_, Packet::Frame(frame))) => batch.push(frame),
                Some((_, Packet::End)) | None => ended = true,
            }
        }
        if batch.is_empty() && !ended {
            return;
        }
        if !end.open {
            if !ended && link.connected {
                self.send_reset(conn, 1 - side, "reset");
            }
            return;
        }
        if let Some(running) = self.machines.get(from).and_then(|m| m.running.as_ref()) {
            let bytes = batch.iter().map(|frame| frame.len()).sum();
            running.cm.arrived(conn_id(conn, 1 - side), bytes);
        }
        for frame in &batch {
            self.tell_frame(from, "->", to, frame);
        }
        if self.is_server(to) {
            let frames = batch.into_iter().map(Some);
            self.server_reads(conn, side, frames.chain(ended.then_some(None)).collect());
            return;
        }
        for frame in batch {
            self.person_reads(to, conn, &frame);
        }
        if ended {
            self.reset_end(conn, side, "closed by the other side");
        }
    }

    /// Writes down what arrived: `->` on a connection, `~>` as a datagram.
    fn tell_frame(&mut self, from: Host, arrow: &str, to: Host, frame: &Frame) {
        if self.trace.is_on() {
            let text = String::from_utf8_lossy(frame);
            let line = format!("{} {arrow} {} {text}", self.name(from), self.name(to));
            self.tell(|| line);
        }
    }

    /// A server's reader has read `batch`: behind what waits, or at once.
    fn server_reads(&mut self, conn: u64, side: usize, batch: VecDeque<Read>) {
        let Some(link) = self.links.get(conn) else { return };
        if let Some(held) = &mut link.ends[side].held {
            held.extend(batch);
            return;
        }
        self.hand_over(conn, side, batch);
    }

    /// Hands frames to the server until one has to wait, like the shell's readers.
    fn hand_over(&mut self, conn: u64, side: usize, mut batch: VecDeque<Read>) {
        loop {
            let Some(link) = self.links.get(conn) else { return };
            if !link.ends[side].open {
                return;
            }
            let host = link.ends[side].host;
            let id = conn_id(conn, side);
            let mut frames = Batch::default();
            batch.iter().map_while(Option::as_ref).for_each(|frame| frames.decode(frame));
            let mut taken = 0;
            let flow = self.step(host, |node, step| {
                while taken < frames.len() {
                    let (count, flow) = node.process_next(id, &frames, taken, step);
                    if flow != Flow::Done {
                        return flow;
                    }
                    taken += count;
                }
                Flow::Done
            });
            batch.drain(..taken);
            match flow {
                None => return,
                Some(Flow::Done) => {
                    if !batch.is_empty() {
                        self.reset_end(conn, side, "closed by the other side");
                    }
                    return;
                }
                Some(Flow::Close) => {
                    self.reader_ended(conn, side);
                    self.close(id);
                    return;
                }
                Some(Flow::Wait) => {}
            }
            let Some(link) = self.links.get(conn) else { return };
            let end = &mut link.ends[side];
            if !std::mem::take(&mut end.token) {
                end.held = Some(batch);
                return;
            }
        }
    }

    /// A reader that waited looks again.
    pub(super) fn resume(&mut self, conn: u64, side: usize) {
        let Some(link) = self.links.get(conn) else { return };
        let end = &mut link.ends[side];
        let Some(batch) = end.held.take() else { return };
        end.token = false;
        self.hand_over(conn, side, batch);
    }

    /// The server closes its end: after what it has sent, the other side hears of it.
    pub(super) fn close(&mut self, conn: ConnId) {
        let (link, side) = end_of(conn);
        if self.push(link, side, Packet::End) {
            let Some(host) = self.links.get(link).map(|link| link.ends[side].host) else { return };
            self.shut(link, side);
            self.unbind(host, conn);
            let pause = self.rng.u64(1..200);
            self.agenda.after(pause, Event::Ended { conn: link, side });
        }
    }

    /// The reader of an end that its server closed tells the server so.
    pub(super) fn reader_ended(&mut self, conn: u64, side: usize) {
        let Some(link) = self.links.get(conn) else { return };
        let (host, life) = (link.ends[side].host, link.ends[side].life);
        let id = conn_id(conn, side);
        if self.is_server(host) && self.machines[host].life == life {
            self.unbind(host, id);
            self.step(host, |node, step| node.handle_closed(id, "closed by this side", step));
        }
        self.links.tidy(conn);
    }

    /// The end `side` stands no longer.
    pub(super) fn shut(&mut self, conn: u64, side: usize) {
        if let Some(link) = self.links.get(conn) {
            let end = &mut link.ends[side];
            (end.open, end.held) = (false, None);
        }
    }

    /// The other end tells the end `side` that it is gone; lost in a cut.
    pub(super) fn send_reset(&mut self, conn: u64, side: usize, why: &'static str) {
        let Some(link) = self.links.get(conn) else { return };
        let (from, to) = (link.ends[1 - side].host, link.ends[side].host);
        if !self.links.is_cut(from, to) {
            let pause = self.delay(from, to);
            self.agenda.after(pause, Event::Reset { conn, side, why });
        }
    }

    /// The end `side` learns that the connection is over. What was on its way is lost.
    pub(super) fn reset_end(&mut self, conn: u64, side: usize, why: &'static str) {
        let Some(link) = self.links.get(conn) else { return };
        let end = &mut link.ends[side];
        if !end.open {
            self.links.tidy(conn);
            return;
        }
        end.flight.clear();
        let ended = end.host;
        if self.trace.is_on() {
            let line = format!("#{conn} of {} ends: {why}", self.name(ended));
            self.tell(|| line);
        }
        let Some(link) = self.links.get(conn) else { return };
        let end = &mut link.ends[side];
        let (host, id) = (end.host, conn_id(conn, side));
        self.shut(conn, side);
        if self.is_server(host) {
            self.unbind(host, id);
            self.step(host, |node, step| node.handle_closed(id, why, step));
        } else {
            self.person_lost(host, conn, why);
        }
        self.links.tidy(conn);
    }

    // ------------------------------------------------------------ dials

    /// A server dials another one.
    pub(super) fn dial_server(&mut self, host: Host, address: &str) {
        let life = self.machines[host].life;
        self.dial((host, life), address);
    }

    /// The machine `from` dials `address`.
    pub(super) fn dial(&mut self, from: (Host, u64), address: &str) -> u64 {
        let to = self.machines.iter().position(|machine| machine.address == address);
        // Every address that is ever told is that of a machine.
        let to = to.expect("an address of a machine");
        let life = self.machines[to].life;
        let conn = self.links.dial(from, (to, life), address);
        if self.trace.is_on() {
            let line = format!("{} dials {address} #{conn}", self.name(from.0));
            self.tell(|| line);
        }
        let pause = self.delay(from.0, to);
        self.agenda.after(pause, Event::Dial { conn });
        conn
    }

    /// The dial reaches the other machine, whose system accepts while the server runs, asleep or not.
    pub(super) fn dial_arrives(&mut self, conn: u64) {
        let Some(link) = self.links.get(conn) else { return };
        let (from, to) = (link.ends[0].host, link.ends[1].host);
        if self.links.is_cut(from, to) || self.links.is_cut(to, from) {
            self.agenda.after(DIAL_TIMEOUT, Event::DialFailed { conn, refused: false });
            return;
        }
        let back = self.delay(to, from);
        if self.machines[to].running.is_none() {
            self.agenda.after(back, Event::DialFailed { conn, refused: true });
            return;
        }
        let life = self.machines[to].life;
        if let Some(link) = self.links.get(conn) {
            let end = &mut link.ends[1];
            (end.open, end.life) = (true, life);
        }
        self.agenda.after(back, Event::Connected { conn });
        if let Some(link) = self.links.get(conn) {
            // Until the server knows of the connection nobody reads from it.
            link.ends[1].held = Some(VecDeque::new());
        }
        self.happen(Event::Accept { conn });
    }

    /// The dialled server takes the connection, and what was sent on it meanwhile.
    pub(super) fn accept(&mut self, conn: u64) {
        let Some(link) = self.links.get(conn) else { return };
        let (from, to) = (link.ends[0].host, link.ends[1].host);
        let Some(batch) = link.ends[1].held.take().filter(|_| link.ends[1].open) else { return };
        let (id, addr) = (conn_id(conn, 1), Self::socket_address(from));
        self.step(to, |node, step| node.handle_join(id, addr, None, step));
        self.hand_over(conn, 1, batch);
    }

    /// The dialling side's connection stands.
    pub(super) fn connected(&mut self, conn: u64) {
        let Some(link) = self.links.get(conn) else { return };
        let (host, life) = (link.ends[0].host, link.ends[0].life);
        let address = link.address.clone();
        let is_wanted = if let Some(machine) = self.machines.get(host) {
            machine.running.is_some() && machine.life == life
        } else {
            let person = self.person(host);
            person.attempt == life && person.line == Line::Dialling
        };
        let Some(link) = self.links.get(conn) else { return };
        link.connected = true;
        if !is_wanted {
            self.send_reset(conn, 1, "reset");
            return;
        }
        link.ends[0].open = true;
        let (lost, to) = (!link.ends[1].open, link.ends[1].host);
        if self.is_server(host) {
            let addr = Self::socket_address(to);
            let id = conn_id(conn, 0);
            self.step(host, |node, step| node.handle_join(id, addr, Some(address), step));
        } else {
            self.person_connected(host, conn, &address);
        }
        if lost {
            self.send_reset(conn, 0, "reset");
        }
    }

    /// It does not.
    pub(super) fn dial_failed(&mut self, conn: u64, refused: bool) {
        let Some(link) = self.links.get(conn) else { return };
        let (host, life) = (link.ends[0].host, link.ends[0].life);
        let address = link.address.clone();
        self.links.remove(conn);
        self.tell(|| {
            format!("#{conn} to {address} is {}", if refused { "refused" } else { "silent" })
        });
        match self.machines.get(host).map(|machine| machine.life == life) {
            Some(true) => {
                self.step(host, |node, step| node.dial_failed(&address, refused, step));
            }
            Some(false) => {}
            None => self.person_unreachable(host, life, &address),
        }
    }

    // ------------------------------------------------------------ datagrams

    /// A server broadcasts; it hears itself, too.
    pub(super) fn broadcast(&mut self, from: Host, frame: &Frame) {
        let weather = self.plan.weather;
        for to in 0..self.machines.len() {
            if self.links.is_cut(from, to) {
                continue;
            }
            if chance(&mut self.rng, weather.udp_lost) {
                self.count("datagram lost");
                continue;
            }
            let mut copies = 1;
            if chance(&mut self.rng, weather.udp_twice) {
                self.count("datagram doubled");
                copies = 2;
            }
            for _ in 0..copies {
                let pause = self.delay(from, to) + self.rng.u64(0..20 * MS);
                self.agenda.after(pause, Event::Datagram { host: to, from, frame: frame.clone() });
            }
        }
    }

    pub(super) fn datagram(&mut self, host: Host, from: Host, frame: &Frame) {
        let Ok(msg) = Message::decode(frame) else { return };
        self.tell_frame(from, "~>", host, frame);
        let from = Self::socket_address(from);
        self.step(host, |node, step| node.handle_udp_message(&msg, from, step));
    }

    // ------------------------------------------------------------ faults of the network

    /// Nothing gets from `from` to `to`. Connections give up after a while.
    pub(super) fn cut(&mut self, from: Host, to: Host) {
        self.let_word_around();
        self.note(from, Kind::Cut, Some(to), || format!("nothing gets to n{} any more", to + 1));
        self.links.cut(from, to);
        for (conn, side) in self.links.between(from, to) {
            let patience = self.rng.u64(2..20) * SECOND;
            self.agenda.after(patience, Event::GaveUp { conn, side });
        }
    }

    /// A sender that was cut off for long gives its connection up, if it is cut off still.
    pub(super) fn gave_up(&mut self, conn: u64, side: usize) {
        let Some(link) = self.links.get(conn) else { return };
        let (from, to) = (link.ends[side].host, link.ends[1 - side].host);
        if self.links.is_cut(from, to) {
            self.count("connection timed out");
            self.reset_end(conn, side, "timed out");
        }
    }

    /// Takes a cut back. What waited is sent again.
    pub(super) fn heal(&mut self, from: Host, to: Host) {
        self.let_word_around();
        if !self.links.heal(from, to) {
            return;
        }
        self.note(from, Kind::Heal, Some(to), || format!("everything gets to n{} again", to + 1));
        for (conn, side) in self.links.in_flight(from, to) {
            // A sender tries again after a pause that has grown meanwhile.
            let pause = self.delay(from, to) + self.rng.u64(0..300 * MS);
            let at = self.agenda.now() + pause;
            if let Some(link) = self.links.get(conn) {
                let end = &mut link.ends[side];
                end.last_at = end.last_at.max(at);
                for (arrives, _) in &mut end.flight {
                    *arrives = at.max(*arrives);
                }
            }
            self.agenda.at(at, Event::Deliver { conn, side });
        }
    }

    pub(super) fn plan_random_reset(&mut self) {
        let mean = self.plan.weather.resets;
        if mean > 0 {
            let pause = self.rng.u64(0..2 * mean);
            self.agenda.after(pause, Event::RandomReset);
        }
    }

    /// A connection breaks for no reason: both ends hear of it, what is on its way is lost.
    pub(super) fn random_reset(&mut self) {
        if self.stage != super::Stage::Faults {
            return;
        }
        let standing = self.links.standing();
        if !standing.is_empty() {
            let conn = standing[self.rng.usize(0..standing.len())];
            self.count("reset");
            for side in [0, 1] {
                let pause = self.rng.u64(0..5 * MS);
                self.agenda.after(pause, Event::Reset { conn, side, why: "reset" });
            }
        }
        self.plan_random_reset();
    }
}
