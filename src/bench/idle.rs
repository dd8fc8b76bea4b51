//! Connections that only are there: how long they take to join, and what each costs.

use std::time::Duration;

use super::bare::Relay;
use super::chat::{OTHER_FILES, Share};
use super::figures::{Bare, Figures, Times};
use super::gather::{gather, seats};
use super::gauge::{raise_open_files, thread_cpu};
use super::links::Links;
use super::speech::Heard;
use super::target::Target;
use super::watch::{Halt, PATIENCE, Watch};
use super::{BenchSettings, Workload};
use crate::open_files;

/// How many share a room.
const MEMBERS: usize = 50;
/// How many join a bare loop.
const BARE_MAX: usize = 2000;
/// How long they are there at most.
const HOLD_MAX: Duration = Duration::from_secs(5);

/// Many clients join and stay.
pub(super) fn idle(settings: &BenchSettings, watch: &mut Watch) -> Result<Figures, Halt> {
    let count = settings.connections;
    raise_open_files(count as u64 + OTHER_FILES)?;
    let mut target = Target::prepare(settings, Workload::Idle, watch)?;
    let rooms = target.rooms(count.div_ceil(MEMBERS));
    let mut seats = seats(&rooms, MEMBERS, &target.addresses);
    seats.truncate(count);
    let gauge = target.gauge()?;
    let empty = gauge.read();
    let mut links = Links::new()?;
    watch.begin("clients join")?;
    let own_before = thread_cpu();
    let gathered = gather(&mut links, &seats, watch)?;
    let load_cores = (thread_cpu() - own_before) / gathered.seconds.max(1e-9);
    let joined = gauge.read();
    hold(&mut links, settings.lasts.min(HOLD_MAX), watch)?;
    let held = gauge.read();
    let mut figures = Figures {
        seconds: gathered.seconds,
        count: count as u64,
        per_second: Some(count as f64 / gathered.seconds),
        times: Times::of(&gathered.each),
        load_cores: Some(load_cores),
        resident_kib: held.and_then(|held| held.resident_kib),
        ..Figures::new(Workload::Idle, format!("{count} connections"), &target)
    };
    if let Some((empty, joined)) = empty.zip(joined) {
        let spent = joined.since(&empty);
        figures.servers_cores = spent.servers_cores;
        figures.cpu_s_per_million = spent.servers_cpu.map(|cpu| cpu * 1e6 / count as f64);
        figures.syncs_per_second = spent.syncs_per_second;
        figures.others_cores = spent.others_cores;
    }
    let kib =
        held.and_then(|held| held.resident_kib).zip(empty.and_then(|empty| empty.resident_kib));
    let each = kib.map(|(full, empty)| full.saturating_sub(empty) as f64 / count as f64);
    figures.resident_kib_per_connection = each;
    let each = each.map_or(String::new(), |kib| format!(", {kib:.1} KiB resident for each"));
    figures.notes.push(format!("all joined after {:.2} s{each}", gathered.seconds));
    let at_rest = joined.zip(held).and_then(|(joined, held)| held.since(&joined).servers_cores);
    if let Some(cores) = at_rest {
        figures
            .notes
            .push(format!("the servers use {:.1} % of a core when all are idle", cores * 100.0));
    }
    drop((links, target));
    figures.set_bare(bare(count, watch)?, Share::OfRate);
    Ok(figures)
}

/// They are there, and answer when asked. Fails when a server closes a connection.
fn hold(links: &mut Links, lasts: Duration, watch: &mut Watch) -> Result<(), Halt> {
    watch.begin("they are idle")?;
    let (began, lasts) = (links.now(), lasts.as_nanos() as u64);
    loop {
        let passed = links.now() - began;
        if passed >= lasts {
            return Ok(());
        }
        let mut gone = false;
        links.wait(PATIENCE, |_, _, heard| gone |= heard == Heard::Gone)?;
        if gone {
            return Err(Halt::failed("a server closed an idle connection"));
        }
        watch.go_on(passed as f64 / lasts as f64, || "nobody says anything".into())?;
    }
}

/// So many, or as many as fit, join a relay.
fn bare(count: usize, watch: &mut Watch) -> Result<Bare, Halt> {
    watch.begin("the same by a bare loop")?;
    // Both ends of each connection are here.
    let fit =
        usize::try_from(open_files::most().saturating_sub(OTHER_FILES) / 2).unwrap_or(BARE_MAX);
    let count = count.min(fit).min(BARE_MAX);
    raise_open_files(2 * count as u64 + OTHER_FILES)?;
    let relay = Relay::start()?;
    let rooms: Vec<String> = (0..count.div_ceil(MEMBERS)).map(|room| format!("r{room}")).collect();
    let mut seats = seats(&rooms, MEMBERS, &[relay.address()]);
    seats.truncate(count);
    let gathered = gather(&mut Links::new()?, &seats, watch)?;
    Ok(Bare {
        what: format!("bare loop, {count}"),
        per_second: count as f64 / gathered.seconds.max(1e-9),
        times: Times::of(&gathered.each),
        cpu_s_per_million: None,
    })
}
