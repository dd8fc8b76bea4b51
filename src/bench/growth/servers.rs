//! Servers: one room whose members are spread over them, so that each has to get every message.

use std::time::Duration;

use super::table::{Column, Row, Table};
use super::{Axis, GrowthSettings, Notes, TEXT_BYTES, cpu_us};
use crate::bench::gather::{gather, seats};
use crate::bench::links::Links;
use crate::bench::load::{self, Finish, Outcome, Pace, Plan};
use crate::bench::target::Target;
use crate::bench::watch::{Halt, Watch};
use crate::torture::fronts::{Fronts, Traffic};

pub(super) const COLUMNS: [Column; 5] = [
    Column::plain("messages_per_second", "MESSAGES/S"),
    Column::plain("cpu_us_per_message", "CPU µs/MESSAGE"),
    Column::cost("cpu_us_per_message_and_server", "…/SERVER", "CPU of a message, each server, µs"),
    Column::cost("frames_per_message_and_other_server", "FRAMES/OTHER", ""),
    Column::cost(
        "bytes_per_message_and_other_server",
        "BYTES/OTHER",
        "bytes of a message, each other server",
    ),
];

/// How many members the room has, all of whom talk.
const MEMBERS: usize = 18;
/// How many messages of each are under way.
const WINDOW: u32 = 8;
/// What passes between servers is counted for so long at most.
const COUNTING_MAX: Duration = Duration::from_secs(2);

/// More and more servers.
pub(super) fn servers(
    settings: &GrowthSettings,
    notes: &mut Notes,
    watch: &mut Watch,
) -> Result<Table, Halt> {
    let mut rows = Vec::new();
    for at in Axis::Servers.steps(settings) {
        watch.about(&at.to_string());
        let count = at as usize;
        let mut target = Target::start(settings.design, count, |place| place.peers(), watch)?;
        let outcome = talk(&mut target, settings.lasts, watch)?;
        drop(target);
        notes.note(&outcome);
        let messages = outcome.count as f64 / MEMBERS as f64;
        let cpu = cpu_us(&outcome, messages);
        let traffic = if count > 1 { Some(traffic(settings, count, notes, watch)?) } else { None };
        let to_each = |figure: f64| figure / (count - 1) as f64;
        rows.push(Row {
            at,
            figures: vec![
                Some(messages / outcome.seconds),
                cpu,
                cpu.map(|cpu| cpu / count as f64),
                traffic.map(|(frames, _)| to_each(frames)),
                traffic.map(|(_, bytes)| to_each(bytes)),
            ],
        });
    }
    let load = format!(
        "Servers: a room of {MEMBERS} spread over them, all talk, {WINDOW} messages of each under way, {TEXT_BYTES} bytes each"
    );
    Ok(Table::new(Axis::Servers, load, rows))
}

/// The members enter the room and talk for so long.
fn talk(target: &mut Target, lasts: Duration, watch: &mut Watch) -> Result<Outcome, Halt> {
    let rooms = target.rooms(1);
    let seats = seats(&rooms, MEMBERS, &target.addresses);
    let gauge = target.gauge()?;
    let mut links = Links::new()?;
    watch.begin("clients join")?;
    gather(&mut links, &seats, watch)?;
    watch.begin("they talk")?;
    let plan = Plan {
        rooms: 1,
        groups: 1,
        members: MEMBERS,
        senders: MEMBERS,
        pace: Pace::Window(WINDOW),
        finish: Finish::Shown,
        acknowledged: true,
        text_bytes: TEXT_BYTES,
        lasts,
        messages_max: None,
    };
    load::run(&mut links, &rooms, plan, &gauge, watch)
}

/// How many frames and bytes so many servers send each other for a message, in all; heartbeats and acknowledgements included.
fn traffic(
    settings: &GrowthSettings,
    count: usize,
    notes: &mut Notes,
    watch: &mut Watch,
) -> Result<(f64, f64), Halt> {
    let fronts = Fronts::open(count)
        .map_err(|error| Halt::failed(format!("no port of 127.0.0.1 is free: {error}")))?;
    let flags_of = |place: crate::local_cluster::Place| {
        fronts.set_target(place.place, place.addresses[place.place]);
        fronts.flags(place.place)
    };
    let mut target = Target::start(settings.design, count, flags_of, watch)?;
    let before = fronts.traffic();
    let outcome = talk(&mut target, settings.lasts.min(COUNTING_MAX), watch)?;
    notes.note(&outcome);
    let Traffic { messages, bytes } = fronts.traffic();
    let said = outcome.said.max(1) as f64;
    Ok(((messages - before.messages) as f64 / said, (bytes - before.bytes) as f64 / said))
}
