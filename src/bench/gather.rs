//! Simulated clients connect and enter their rooms.

use std::net::SocketAddr;

use hdrhistogram::Histogram;

use super::figures::new_histogram;
use super::links::Links;
use super::speech::{Heard, put_joins};
use super::watch::{Halt, PATIENCE, Watch};
use crate::domain::Message;
use crate::domain::content::ErrorContent;

/// So many clients are on their way into their room at a time.
const UNDERWAY_MAX: usize = 64;
/// How long nobody may get in before it is given up, in nanoseconds.
const STALL_LIMIT_NS: u64 = 20_000_000_000;

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
    let cannot = |error| Halt::failed(format!("cannot connect to {}: {error}", seat.address));
    let place = links.open(seat.address).map_err(cannot)?;
    links.say(place, |out| put_joins(&seat.user, &seat.room, 0, out));
    links.flush(place);
    Ok(())
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
