//! Simulated clients connect and enter their rooms, and are shown what was said there.

use std::io;
use std::net::SocketAddr;

use hdrhistogram::Histogram;

use super::figures::new_histogram;
use super::links::Links;
use super::speech::{Heard, put_enter, put_joins};
use super::watch::{Halt, PATIENCE, Watch};
use crate::domain::Message;
use crate::domain::content::{ErrorContent, Joined};

/// So many clients are on their way into their room at a time.
const UNDERWAY_MAX: usize = 64;
/// How long nobody may get in before it is given up, in nanoseconds.
const STALL_LIMIT_NS: u64 = 20_000_000_000;

/// How long a room may take to be shown, in nanoseconds.
const READ_LIMIT_NS: u64 = 60_000_000_000;

/// A message: its sender and its number.
pub(super) type Key = (usize, u32);

/// A client, before it is connected.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// Its server.
    pub(super) address: SocketAddr,
    /// Its name, and its session's.
    pub(super) user: String,
    /// Its room.
    pub(super) room: String,
}

/// Clients for `rooms` with so many members each, spread over `addresses` in turn.
pub(super) fn seats(rooms: &[String], members: usize, addresses: &[SocketAddr]) -> Vec<Seat> {
    let people = rooms.iter().flat_map(|room| (0..members).map(move |member| (room, member)));
    let seat = |(place, (room, member)): (usize, (&String, usize))| Seat {
        address: addresses[place % addresses.len()],
        user: format!("{room}-u{member}"),
        room: room.clone(),
    };
    people.enumerate().map(seat).collect()
}

/// How they came in.
#[derive(Debug)]
pub(super) struct Gathered {
    /// From the first connection to the last client that is in its room.
    pub(super) seconds: f64,
    /// The same for each client, in nanoseconds.
    pub(super) each: Histogram<u64>,
}

struct Arrivals {
    opened_at: Vec<u64>,
    in_room: usize,
    last_at: u64,
    each: Histogram<u64>,
    failure: Option<(usize, String)>,
}

/// Connects all `seats`, the first at the first free place of `links`, and waits until each is in its room.
pub(super) fn gather(
    links: &mut Links,
    seats: &[Seat],
    watch: &mut Watch,
) -> Result<Gathered, Halt> {
    let (first, began) = (links.count(), links.now());
    let mut arrivals = Arrivals {
        opened_at: Vec::with_capacity(seats.len()),
        in_room: 0,
        last_at: began,
        each: new_histogram(),
        failure: None,
    };
    while arrivals.in_room < seats.len() {
        let opened = arrivals.opened_at.len();
        if opened < seats.len() && opened - arrivals.in_room < UNDERWAY_MAX {
            arrivals.opened_at.push(links.now());
            open(links, &seats[opened])?;
        } else {
            links.wait(PATIENCE, |place, now, heard| {
                arrivals.note(place - first, now, heard);
            })?;
        }
        let (inside, all) = (arrivals.in_room, seats.len());
        let stalled = links.now().saturating_sub(arrivals.last_at) > STALL_LIMIT_NS;
        if let Some((place, failure)) = arrivals.failure.take() {
            return Err(Halt::failed(format!(
                "{} {failure}, with {inside} of {all} clients in their rooms",
                seats[place].address
            )));
        }
        if stalled {
            return Err(Halt::failed(format!(
                "only {inside} of {all} clients got into their rooms"
            )));
        }
        watch.go_on(inside as f64 / all as f64, || format!("{inside} of {all} clients are in"))?;
    }
    let seconds = (arrivals.last_at - began) as f64 / 1e9;
    Ok(Gathered { seconds, each: arrivals.each })
}

fn open(links: &mut Links, seat: &Seat) -> Result<(), Halt> {
    let place = links.open(seat.address).map_err(|error| cannot_connect(seat, &error))?;
    links.say(place, |out| put_joins(&seat.user, &seat.room, 0, out));
    links.flush(place);
    Ok(())
}

fn cannot_connect(seat: &Seat, error: &io::Error) -> Halt {
    Halt::failed(format!("cannot connect to {}: {error}", seat.address))
}

impl Arrivals {
    fn note(&mut self, place: usize, now: u64, heard: Heard) {
        match heard {
            Heard::Entered(_) => {
                self.in_room += 1;
                self.last_at = now;
                self.each.saturating_record(now.saturating_sub(self.opened_at[place]));
            }
            Heard::Refused(body) => {
                self.failure = Some((place, format!("refuses: {}", reason(body))));
            }
            Heard::Gone => {
                let text = "closed a connection; is its limit of open files too low?";
                self.failure.get_or_insert((place, text.into()));
            }
            _ => {}
        }
    }
}

/// Why a server said no.
pub(super) fn reason(body: &[u8]) -> String {
    let content = Message::decode(body).ok().and_then(|msg| msg.content.parse().ok());
    content.map_or_else(
        || String::from_utf8_lossy(body).into(),
        |content: ErrorContent| format!("{} ({})", content.reason, content.code),
    )
}

/// Lets clients that are in their rooms enter others: the place of each, and a room. Waits until all are in.
pub(super) fn enter(
    links: &mut Links,
    more: &[(usize, &str)],
    watch: &mut Watch,
) -> Result<(), Halt> {
    let (mut asked, mut inside, mut last_at, mut failure) = (0, 0, links.now(), None);
    while inside < more.len() {
        while asked < more.len() && asked - inside < UNDERWAY_MAX {
            let (place, room) = more[asked];
            links.say(place, |out| put_enter(room, 0, out));
            links.flush(place);
            asked += 1;
        }
        links.wait(PATIENCE, |_, now, heard| match heard {
            Heard::Entered(_) => (inside, last_at) = (inside + 1, now),
            Heard::Refused(body) => failure = Some(format!("a server refuses: {}", reason(body))),
            Heard::Gone => failure = Some("a server closed a connection".into()),
            _ => {}
        })?;
        if let Some(failure) = failure.take() {
            return Err(Halt::failed(failure));
        }
        let all = more.len();
        if links.now().saturating_sub(last_at) > STALL_LIMIT_NS {
            return Err(Halt::failed(format!(
                "clients were let into {inside} of {all} more rooms"
            )));
        }
        watch.go_on(inside as f64 / all as f64, || format!("{inside} of {all} more rooms"))?;
    }
    Ok(())
}

/// What a newcomer was shown of a room's past.
#[derive(Debug)]
pub(super) struct Past {
    /// Which messages, in order.
    pub(super) seen: Vec<Key>,
    /// From connecting to the last of them, in nanoseconds.
    pub(super) took: u64,
}

/// The last `history` messages of the room of `seat`, as its server shows them to a newcomer.
pub(super) fn read(seat: &Seat, history: u32, watch: &mut Watch) -> Result<Past, Halt> {
    let mut links = Links::new()?;
    let began = links.now();
    let place = links.open(seat.address).map_err(|error| cannot_connect(seat, &error))?;
    links.say(place, |out| put_joins(&seat.user, &seat.room, history, out));
    links.flush(place);
    let (mut seen, mut announced, mut failure) = (Vec::new(), None, None);
    while announced.is_none_or(|count| seen.len() < count) {
        if links.now() - began > READ_LIMIT_NS {
            return Err(Halt::failed(format!("{} does not show what was said", seat.address)));
        }
        links.wait(PATIENCE, |_, _, heard| match heard {
            Heard::Delivery { sender, number } => seen.push((sender, number)),
            Heard::Entered(body) => {
                let content = Message::decode(body).ok().and_then(|msg| msg.content.parse().ok());
                announced = content.map(|joined: Joined| joined.history as usize);
            }
            Heard::Refused(body) => failure = Some(reason(body)),
            Heard::Gone => failure = Some("it closed the connection".into()),
            _ => {}
        })?;
        if let Some(failure) = failure.take() {
            return Err(Halt::failed(format!(
                "{} does not show what was said: {failure}",
                seat.address
            )));
        }
        watch.go_on(1.0, String::new)?;
    }
    Ok(Past { seen, took: links.now() - began })
}
