//! The past: more and more messages on disk, all of one room, before a server starts.
//!
//! ```text
//!   two fill the room ─ the server stops ─ it starts ═ ready? ═ newcomers read the last 50 ═ two talk on
//! ```
//!
//! The same is done without any past, and what that costs is taken off: a program needs some memory and some milliseconds anyway. A server is
//! *ready* later than it has *read* its log: it looks for other servers before it leads.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::time::{Duration, Instant};

use super::table::{Column, Row, Table};
use super::{Axis, GrowthSettings, Notes, TEXT_BYTES, cpu_us};
use crate::bench::gather::{Seat, gather, read, seats};
use crate::bench::links::Links;
use crate::bench::load::{self, Finish, Outcome, Pace, Plan};
use crate::bench::target::{NO_ROOM, Target};
use crate::bench::watch::{Halt, Watch};
use crate::bench::words::{duration, grouped, short};
use crate::client::query_status_of_room;

pub(super) const COLUMNS: [Column; 7] = [
    Column::plain("ready_ms", "READY ms"),
    Column::plain("read_ms", "READ ms"),
    Column::cost("read_us_per_message", "µs/MESSAGE", "reading a message at the start, µs"),
    Column::plain("resident_mib", "MiB"),
    Column::cost("resident_bytes_per_message", "BYTES/MESSAGE", "memory of a message, bytes"),
    Column::cost("join_ms", "JOIN ms", "a newcomer's last 50, ms"),
    Column::cost("cpu_us_per_new_message", "CPU µs/NEW", "CPU of a new message, µs"),
];

/// How many are in the room, and talk.
const PAIR: usize = 2;
/// How many messages of each are under way while the room is filled: servers remember 1,024 ids of a session.
const FILL_WINDOW: u32 = 512;
/// How many while it is measured what a new one costs.
const WINDOW: u32 = 64;
/// How long filling may take.
const FILL_MAX: Duration = Duration::from_secs(3600);
/// How many messages a newcomer is shown.
const SHOWN: u32 = 50;
/// How many newcomers come, one after the other: the median counts.
const NEWCOMERS: usize = 21;
/// How long a start may take.
const READY_LIMIT: Duration = Duration::from_secs(600);
/// How often a server that starts is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(2);

/// How long a start took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    /// Until the server answered at all: then it has read its log.
    read: Duration,
    /// Until it took clients: it looks for other servers before it leads.
    ready: Duration,
}

/// What was measured of a server that has so many messages of the past.
struct Loaded {
    start: Start,
    resident_kib: Option<u64>,
    join_ns: u64,
    cpu_us_per_new: Option<f64>,
}

/// A longer and longer past.
pub(super) fn history(
    settings: &GrowthSettings,
    notes: &mut Notes,
    watch: &mut Watch,
) -> Result<Table, Halt> {
    let empty = measure(settings, 0, notes, watch)?;
    let mut rows = Vec::new();
    for at in Axis::History.steps(settings) {
        let loaded = measure(settings, at, notes, watch)?;
        rows.push(row(at, &loaded, &empty));
    }
    let ready = duration(micros(empty.start.ready));
    let memory = empty.resident_kib;
    let memory = memory.map_or_else(|| "-".into(), |kib| short(kib as f64 / 1024.0));
    let load = format!(
        "Messages on disk: {TEXT_BYTES} bytes each, of one room, before the server starts; without any it is ready after {ready} with {memory} MiB"
    );
    Ok(Table::new(Axis::History, load, rows))
}

/// What a past of `at` messages costs beyond what none does. What lies in the noise is absent.
fn row(at: u64, loaded: &Loaded, empty: &Loaded) -> Row {
    let each = |more: f64| (more > 0.0).then_some(more / at as f64);
    let kib = loaded.resident_kib.zip(empty.resident_kib);
    Row {
        at,
        figures: vec![
            Some(micros(loaded.start.ready) / 1e3),
            Some(micros(loaded.start.read) / 1e3),
            each(micros(loaded.start.read) - micros(empty.start.read)),
            loaded.resident_kib.map(|kib| kib as f64 / 1024.0),
            kib.and_then(|(full, empty)| each((full as f64 - empty as f64) * 1024.0)),
            Some(loaded.join_ns as f64 / 1e6),
            loaded.cpu_us_per_new,
        ],
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn measure(
    settings: &GrowthSettings,
    messages: u64,
    notes: &mut Notes,
    watch: &mut Watch,
) -> Result<Loaded, Halt> {
    watch.about(&grouped(messages as f64));
    let mut target = Target::start(settings.design, 1, |place| place.peers(), watch)?;
    let rooms = target.rooms(1);
    watch.begin("the room is filled")?;
    if messages > 0 {
        let filled = talk(&target, &rooms, "filler", Some(messages), FILL_MAX, watch)?;
        (notes.lost, notes.twice) = (notes.lost + filled.lost, notes.twice + filled.twice);
        notes.unanswered += filled.unanswered;
    }
    watch.begin("the server starts again")?;
    let start = start_again(&mut target)?;
    let resident_kib = target.gauge()?.read().and_then(|reading| reading.resident_kib);
    watch.begin("newcomers come")?;
    let mut joins = Vec::new();
    for number in 0..NEWCOMERS {
        let (address, room) = (target.addresses[0], rooms[0].clone());
        let seat = Seat { address, user: format!("{room}-newcomer{number}"), room };
        joins.push(read(&seat, SHOWN, watch)?.took);
    }
    joins.sort_unstable();
    watch.begin("they talk on")?;
    let outcome = talk(&target, &rooms, "talker", None, settings.lasts, watch)?;
    notes.note(&outcome);
    let new = outcome.count as f64 / PAIR as f64;
    let (join_ns, cpu_us_per_new) = (joins[NEWCOMERS / 2], cpu_us(&outcome, new));
    Ok(Loaded { start, resident_kib, join_ns, cpu_us_per_new })
}

/// Two of this name enter the room and talk, until so many messages are said or for so long.
fn talk(
    target: &Target,
    rooms: &[String],
    name: &str,
    messages_max: Option<u64>,
    lasts: Duration,
    watch: &mut Watch,
) -> Result<Outcome, Halt> {
    let mut seats = seats(rooms, PAIR, &target.addresses);
    for (number, seat) in seats.iter_mut().enumerate() {
        // Sessions of their own: servers know the ids of messages that former ones said.
        seat.user = format!("{}-{name}{number}", seat.room);
    }
    let gauge = target.gauge()?;
    let mut links = Links::new()?;
    gather(&mut links, &seats, watch)?;
    let fills = messages_max.is_some();
    let plan = Plan {
        rooms: 1,
        groups: 1,
        members: PAIR,
        senders: PAIR,
        pace: Pace::Window(if fills { FILL_WINDOW } else { WINDOW }),
        finish: if fills { Finish::Acknowledged } else { Finish::Shown },
        acknowledged: true,
        text_bytes: TEXT_BYTES,
        lasts,
        messages_max,
    };
    load::run(&mut links, rooms, plan, &gauge, watch)
}

/// Stops the server as an operator would, starts it, and says how long that takes.
fn start_again(target: &mut Target) -> Result<Start, Halt> {
    let address = target.addresses[0].to_string();
    let Some(cluster) = target.own.as_mut() else {
        return Err(Halt::failed("only a server that was started for it can be started again"));
    };
    cluster.server(0).stop();
    let began = Instant::now();
    let cannot = |error| Halt::failed(format!("cannot start a server again: {error}"));
    cluster.server(0).start().map_err(cannot)?;
    let mut read = None;
    loop {
        if let Ok(status) = query_status_of_room(&address, NO_ROOM) {
            let read = *read.get_or_insert(began.elapsed());
            if status.not_ready.is_none() {
                return Ok(Start { read, ready: began.elapsed() });
            }
        }
        if let Some(ended) = cluster.ended() {
            return Err(Halt::failed(ended));
        }
        if began.elapsed() > READY_LIMIT {
            let seconds = READY_LIMIT.as_secs();
            return Err(Halt::failed(format!("the server is not ready after {seconds} s")));
        }
        if !cluster.pause(ASK_EVERY) {
            return Err(Halt::Stopped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_costs_without_a_past_is_taken_off() {
        let loaded = |ms: u64, kib: u64| Loaded {
            start: Start { read: Duration::from_millis(ms), ready: Duration::from_millis(900) },
            resident_kib: Some(kib),
            join_ns: 1_500_000,
            cpu_us_per_new: Some(7.0),
        };
        let empty = loaded(20, 5 * 1024);
        let figures = row(1000, &loaded(30, 6 * 1024), &empty).figures;
        assert_eq!(
            figures,
            [Some(900.0), Some(30.0), Some(10.0), Some(6.0), Some(1048.576), Some(1.5), Some(7.0)]
        );
        let figures = row(1000, &loaded(19, 4 * 1024), &empty).figures;
        assert_eq!((figures[2], figures[4]), (None, None), "less than nothing is noise");
    }
}
