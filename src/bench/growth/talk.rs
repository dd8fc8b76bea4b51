//! Members, rooms and texts: people who talk on one server.

use super::table::{Column, Row, Table};
use super::{Axis, GrowthSettings, Notes, TEXT_BYTES, cpu_us};
use crate::bench::chat::OTHER_FILES;
use crate::bench::gather::{enter, gather, seats};
use crate::bench::gauge::raise_open_files;
use crate::bench::links::Links;
use crate::bench::load::{self, Finish, Outcome, Pace, Plan};
use crate::bench::target::Target;
use crate::bench::watch::{Halt, Watch};
use crate::bench::words::grouped;

pub(super) const MEMBERS: [Column; 3] = [
    Column::plain("deliveries_per_second", "DELIVERIES/S"),
    Column::cost("cpu_us_per_delivery", "CPU µs/DELIVERY", "CPU of a delivery, µs"),
    Column::plain("cpu_us_per_message", "CPU µs/MESSAGE"),
];
pub(super) const ROOMS: [Column; 3] = [
    Column::plain("messages_per_second", "MESSAGES/S"),
    Column::cost("cpu_us_per_delivery", "CPU µs/DELIVERY", "CPU of a delivery, µs"),
    Column::cost("kib_per_room", "KiB/ROOM", "memory of a room, KiB"),
];
pub(super) const SIZES: [Column; 4] = [
    Column::plain("deliveries_per_second", "DELIVERIES/S"),
    Column::plain("mb_per_second", "MB/S"),
    Column {
        line: "CPU of a delivery, µs",
        ..Column::plain("cpu_us_per_delivery", "CPU µs/DELIVERY")
    },
    Column::cost("cpu_ns_per_byte", "CPU ns/BYTE", "CPU of a byte delivered, ns"),
];

/// At most so many groups share the rooms, on two connections each.
const GROUPS_MAX: usize = 10;
/// The members of a room where rooms grow.
const PAIR: usize = 2;
/// Members of the room in which texts grow.
const TEN: usize = 10;

/// Who talks, under one row.
struct Load {
    rooms: usize,
    groups: usize,
    members: usize,
    senders: usize,
    window: u32,
    text_bytes: usize,
}

/// What came of a row.
struct Talked {
    outcome: Outcome,
    messages: f64,
    /// What each room that the clients entered later added, in KiB.
    kib_per_room: Option<f64>,
}

/// One room that more and more are members of.
pub(super) fn members(
    settings: &GrowthSettings,
    notes: &mut Notes,
    watch: &mut Watch,
) -> Result<Table, Halt> {
    let measure = |at: u64, talked: &Talked| Row {
        at,
        figures: vec![
            Some(talked.outcome.count as f64 / talked.outcome.seconds),
            cpu_us(&talked.outcome, talked.outcome.count as f64),
            cpu_us(&talked.outcome, talked.messages),
        ],
    };
    let load = |at: u64| Load {
        rooms: 1,
        groups: 1,
        members: at as usize,
        senders: 1,
        window: 64,
        text_bytes: TEXT_BYTES,
    };
    let title = format!(
        "Members of a room: one of them talks, 64 messages under way, {TEXT_BYTES} bytes each"
    );
    let rows = rows_of(settings, Axis::Members, load, measure, notes, watch)?;
    Ok(Table::new(Axis::Members, title, rows))
}

/// More and more rooms with two members each.
pub(super) fn rooms(
    settings: &GrowthSettings,
    notes: &mut Notes,
    watch: &mut Watch,
) -> Result<Table, Halt> {
    let measure = |at: u64, talked: &Talked| Row {
        at,
        figures: vec![
            Some(talked.messages / talked.outcome.seconds),
            cpu_us(&talked.outcome, talked.outcome.count as f64),
            talked.kib_per_room,
        ],
    };
    let load = |at: u64| Load {
        rooms: at as usize,
        groups: (at as usize).min(GROUPS_MAX),
        members: PAIR,
        senders: 1,
        window: 1,
        text_bytes: TEXT_BYTES,
    };
    let title = format!(
        "Rooms: two members each, one of them talks, {GROUPS_MAX} pairs share the rooms, one message of a pair under way, {TEXT_BYTES} bytes each"
    );
    let rows = rows_of(settings, Axis::Rooms, load, measure, notes, watch)?;
    Ok(Table::new(Axis::Rooms, title, rows))
}

/// Longer and longer texts.
pub(super) fn sizes(
    settings: &GrowthSettings,
    notes: &mut Notes,
    watch: &mut Watch,
) -> Result<Table, Halt> {
    let measure = |at: u64, talked: &Talked| {
        let Talked { outcome, .. } = talked;
        let text_bytes = outcome.count as f64 * at as f64;
        Row {
            at,
            figures: vec![
                Some(outcome.count as f64 / outcome.seconds),
                Some(text_bytes / 1e6 / outcome.seconds),
                cpu_us(outcome, outcome.count as f64),
                cpu_us(outcome, text_bytes).map(|micros| micros * 1e3),
            ],
        }
    };
    let load = |at: u64| Load {
        rooms: 1,
        groups: 1,
        members: TEN,
        senders: TEN,
        window: 8,
        text_bytes: at as usize,
    };
    let title = format!("Bytes of a text: a room of {TEN}, all talk, 8 messages of each under way");
    let rows = rows_of(settings, Axis::Size, load, measure, notes, watch)?;
    Ok(Table::new(Axis::Size, title, rows))
}

fn rows_of(
    settings: &GrowthSettings,
    axis: Axis,
    load_of: impl Fn(u64) -> Load,
    measure: impl Fn(u64, &Talked) -> Row,
    notes: &mut Notes,
    watch: &mut Watch,
) -> Result<Vec<Row>, Halt> {
    let row = |at: u64| {
        watch.about(&grouped(at as f64));
        let talked = talk(settings, &load_of(at), watch)?;
        notes.note(&talked.outcome);
        Ok(measure(at, &talked))
    };
    axis.steps(settings).into_iter().map(row).collect()
}

fn talk(settings: &GrowthSettings, load: &Load, watch: &mut Watch) -> Result<Talked, Halt> {
    raise_open_files((load.groups * load.members) as u64 + OTHER_FILES)?;
    let mut target = Target::start(settings.design, 1, |place| place.peers(), watch)?;
    let rooms = target.rooms(load.rooms);
    let seats = seats(&rooms[..load.groups], load.members, &target.addresses);
    let gauge = target.gauge()?;
    let mut links = Links::new()?;
    watch.begin("clients join")?;
    gather(&mut links, &seats, watch)?;
    let before = gauge.read().and_then(|reading| reading.resident_kib);
    enter(&mut links, &more_rooms(&rooms, load), watch)?;
    let after = gauge.read().and_then(|reading| reading.resident_kib);
    let added = (load.rooms - load.groups) as f64;
    let kib_per_room = before.zip(after).filter(|_| added > 0.0);
    watch.begin("they talk")?;
    let plan = Plan {
        rooms: load.rooms,
        groups: load.groups,
        members: load.members,
        senders: load.senders,
        pace: Pace::Window(load.window),
        finish: Finish::Shown,
        acknowledged: true,
        text_bytes: load.text_bytes,
        lasts: settings.lasts,
        messages_max: None,
    };
    let outcome = load::run(&mut links, &rooms, plan, &gauge, watch)?;
    Ok(Talked {
        messages: outcome.count as f64 / load.members as f64,
        kib_per_room: kib_per_room.map(|(before, after)| (after as f64 - before as f64) / added),
        outcome,
    })
}

/// The rooms beyond one of each group, and the place of each of their members.
fn more_rooms<'a>(rooms: &'a [String], load: &Load) -> Vec<(usize, &'a str)> {
    let beyond = rooms.iter().enumerate().skip(load.groups);
    let members = |(number, room): (usize, &'a String)| {
        let first = number % load.groups * load.members;
        (first..first + load.members).map(move |place| (place, room.as_str()))
    };
    beyond.flat_map(members).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_enter_the_rooms_beyond_their_first_in_turn() {
        let rooms: Vec<String> = (0..5).map(|number| format!("r{number}")).collect();
        let load = Load { rooms: 5, groups: 2, members: 2, senders: 1, window: 1, text_bytes: 16 };
        let more = more_rooms(&rooms, &load);
        assert_eq!(more, [(0, "r2"), (1, "r2"), (2, "r3"), (3, "r3"), (0, "r4"), (1, "r4")]);
        assert_eq!(more_rooms(&rooms[..2], &load), []);
    }
}
