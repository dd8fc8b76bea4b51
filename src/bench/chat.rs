//! Fan-out, latency and durable writes: people who talk, in three shapes.

use std::time::Duration;

use super::bare::{Relay, Syncs, syncs};
use super::figures::{Bare, Figures, Times};
use super::gather::{gather, seats};
use super::gauge::{Gauge, raise_open_files};
use super::links::Links;
use super::load::{self, Finish, Outcome, Pace, Plan};
use super::target::Target;
use super::watch::{Halt, Watch};
use super::{BenchSettings, Workload, Writes};

/// The bare loop is measured for so long at most.
const BARE_MAX: Duration = Duration::from_secs(2);
/// Files that are open beside the connections.
pub(super) const OTHER_FILES: u64 = 64;

/// Many messages to many members.
pub(super) fn fan_out(settings: &BenchSettings, watch: &mut Watch) -> Result<Figures, Halt> {
    let plan = Plan {
        rooms: settings.rooms,
        groups: settings.rooms,
        members: settings.members.unwrap_or(100),
        senders: settings.senders,
        pace: Pace::Window(settings.window),
        finish: Finish::Shown,
        acknowledged: true,
        text_bytes: settings.text_bytes,
        lasts: settings.lasts,
        messages_max: None,
    };
    let shape = format!(
        "{} × {}, {} talk, window {}",
        plan.rooms, plan.members, plan.senders, settings.window
    );
    talk(settings, Workload::FanOut, plan, shape, watch)
}

/// A steady rate, and how long each message takes.
pub(super) fn latency(settings: &BenchSettings, watch: &mut Watch) -> Result<Figures, Halt> {
    let members = settings.members.unwrap_or(10);
    let plan = Plan {
        rooms: settings.rooms,
        groups: settings.rooms,
        members,
        senders: settings.senders,
        pace: Pace::Rate(settings.rate),
        finish: Finish::Shown,
        acknowledged: true,
        text_bytes: settings.text_bytes,
        lasts: settings.lasts,
        messages_max: None,
    };
    let shape = format!("{} × {members}, {} a second", plan.rooms, settings.rate);
    talk(settings, Workload::Latency, plan, shape, watch)
}

fn talk(
    settings: &BenchSettings,
    workload: Workload,
    plan: Plan,
    shape: String,
    watch: &mut Watch,
) -> Result<Figures, Halt> {
    // Nobody can talk who is not there.
    let plan = Plan { senders: plan.senders.min(plan.members), ..plan };
    // The bare loop has both ends of each connection here.
    raise_open_files(2 * (plan.rooms * plan.members) as u64 + OTHER_FILES)?;
    let mut target = Target::prepare(settings, workload, watch)?;
    let outcome = measure(&mut target, plan, watch)?;
    let mut figures = Figures::of_outcome(workload, shape, &target, &outcome);
    drop(target);
    // As many bytes for each delivery as the servers needed, acknowledgements included.
    let delivered = outcome.bytes.checked_div(outcome.count).unwrap_or_default() as usize;
    let longer = delivered.saturating_sub(outcome.said_bytes);
    let bare = bare(plan, longer, watch)?;
    figures.set_bare(
        Bare::of_outcome("bare loop", &bare),
        match plan.pace {
            Pace::Window(_) => Share::OfRate,
            Pace::Rate(_) => Share::OfTime,
        },
    );
    Ok(figures)
}

/// What of the bare figures is the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// How many a second.
    OfRate,
    /// The median time.
    OfTime,
}

fn measure(target: &mut Target, plan: Plan, watch: &mut Watch) -> Result<Outcome, Halt> {
    let rooms = target.rooms(plan.rooms);
    let seats = seats(&rooms, plan.members, &target.addresses);
    let gauge = target.gauge()?;
    let mut links = Links::new()?;
    watch.begin("clients join")?;
    gather(&mut links, &seats, watch)?;
    watch.begin("they talk")?;
    load::run(&mut links, &rooms, plan, &gauge, watch)
}

/// The same by a relay, with texts that are `longer` by so many bytes.
fn bare(plan: Plan, longer: usize, watch: &mut Watch) -> Result<Outcome, Halt> {
    let plan = Plan {
        lasts: plan.lasts.min(BARE_MAX),
        acknowledged: false,
        text_bytes: plan.text_bytes + longer,
        ..plan
    };
    watch.begin("the same by a bare loop")?;
    let relay = Relay::start()?;
    let rooms: Vec<String> = (0..plan.rooms).map(|number| format!("r{number}")).collect();
    let seats = seats(&rooms, plan.members, &[relay.address()]);
    let mut links = Links::new()?;
    gather(&mut links, &seats, watch)?;
    let gauge = Gauge::start(Vec::new(), Vec::new())?;
    let mut outcome = load::run(&mut links, &rooms, plan, &gauge, watch)?;
    // The relay is a thread of this process.
    outcome.spent.servers_cpu = outcome.spent.own_cpu.map(|own| (own - outcome.own_cpu).max(0.0));
    Ok(outcome)
}

/// Writes that are acknowledged when they are safe: one row for each number of clients.
pub(super) fn writes(settings: &BenchSettings, watch: &mut Watch) -> Result<Vec<Figures>, Halt> {
    let most = settings.writes.iter().map(|writes| writes.clients).max().unwrap_or_default();
    raise_open_files(most as u64 + OTHER_FILES)?;
    let mut target = Target::prepare(settings, Workload::Writes, watch)?;
    let disk = match &target.own {
        None => None,
        Some(own) => {
            watch.begin("bare fdatasync")?;
            let lasts = settings.lasts.min(BARE_MAX) / 2;
            let (folder, files) = (own.folder(), target.addresses.len());
            let cannot =
                |error| Halt::failed(format!("cannot sync in {}: {error}", folder.display()));
            Some(syncs(folder, files, lasts).map_err(cannot)?)
        }
    };
    let mut rows = Vec::new();
    for writes in &settings.writes {
        let mut figures = write(settings, *writes, &mut target, watch)?;
        if let Some(Syncs { per_second, times }) = &disk {
            let files = match target.addresses.len() {
                1 => "1 file".into(),
                count => format!("{count} files"),
            };
            let what = format!("bare fdatasync, {files}");
            figures.set_bare(
                Bare {
                    what,
                    per_second: *per_second,
                    times: Times::of(times),
                    cpu_s_per_million: None,
                },
                Share::OfRate,
            );
            // A sync serves many writes, so the disk's share is that of syncs.
            figures.share = figures.syncs_per_second.map(|syncs| syncs / per_second.max(1e-9));
        }
        rows.push(figures);
    }
    Ok(rows)
}

fn write(
    settings: &BenchSettings,
    Writes { clients, window }: Writes,
    target: &mut Target,
    watch: &mut Watch,
) -> Result<Figures, Halt> {
    let plan = Plan {
        rooms: clients,
        groups: clients,
        members: 1,
        senders: 1,
        pace: Pace::Window(window),
        finish: Finish::Acknowledged,
        acknowledged: true,
        text_bytes: settings.text_bytes,
        lasts: settings.lasts,
        messages_max: None,
    };
    let shape = format!("{clients} × window {window}");
    watch.about(&shape);
    let outcome = measure(target, plan, watch)?;
    Ok(Figures::of_outcome(Workload::Writes, shape, target, &outcome))
}
