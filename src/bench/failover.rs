//! The leader is killed while somebody writes at every server: how long until something is acknowledged again?
//!
//! ```text
//!   n1  w . w . w ✗ killed                          w: a write, every 10 ms
//!   n2  w . w . w . w . w . w . A . w                A: the first acknowledgement of a write that
//!   n3  w . w . w . w . w . w . w . A                   was said after the kill
//!                 ├──── next ───┤
//!                 ├──── everywhere ─┤
//! ```
//!
//! Writes that were under way at the kill do not count: their acknowledgement may have been on its way already. With
//! `ring` servers acknowledge what does not need the leader, so there *next* is short, and *everywhere* says more. The
//! writers have rooms of their own, since in that design it depends on the room who has to take part.
//! In the end everything that was acknowledged is read at every server.

use std::collections::BTreeSet;
use std::time::Duration;

use super::figures::{Figures, Times, new_histogram};
use super::gather::{Key, Seat, gather, read, reason};
use super::links::Links;
use super::speech::{Heard, Template};
use super::target::Target;
use super::watch::{Halt, PATIENCE, Watch};
use super::{BenchSettings, Workload};
use crate::local_cluster::LocalCluster;
use crate::torture::rest;

/// The time between two writes at a server, in nanoseconds.
const PAUSE_NS: u64 = 10_000_000;
/// How long is written before the leader is killed, at least.
const BEFORE_NS: u64 = 500_000_000;
/// How long anything may take, in nanoseconds.
const LIMIT_NS: u64 = 60_000_000_000;
/// How long the acknowledgements of what was said may take at the end of a round.
const REST_NS: u64 = 10_000_000_000;
/// How long the servers may take to be one again.
const REST_LIMIT: Duration = Duration::from_secs(60);

/// Kills leaders.
pub(super) fn failover(settings: &BenchSettings, watch: &mut Watch) -> Result<Figures, Halt> {
    let mut target = Target::prepare(settings, Workload::Failover, watch)?;
    let rooms = target.rooms(target.addresses.len());
    let mut figures = Figures::new(Workload::Failover, String::new(), &target);
    let servers = target.addresses.clone();
    let Some(cluster) = target.own.as_mut() else {
        return Err(Halt::failed("only servers that were started for it can be killed"));
    };
    let (mut next, mut everywhere) = (new_histogram(), new_histogram());
    let mut acknowledged = BTreeSet::new();
    for number in 0..settings.rounds {
        watch.begin(format!("round {} of {}", number + 1, settings.rounds))?;
        let leader = cluster.wait_until(REST_LIMIT, |cluster| cluster.agreed_leader());
        let leader = found(leader, cluster, "the servers do not agree on a leader")?;
        let mut round = Round::begin(number, &rooms, cluster, leader, settings.text_bytes, watch)?;
        let silence = round.run(cluster, watch)?;
        next.saturating_record(silence.next);
        everywhere.saturating_record(silence.everywhere);
        acknowledged.append(&mut round.acknowledged);
        drop(round);
        let again = cluster.server(leader).start();
        again.map_err(|error| Halt::failed(format!("cannot start a server again: {error}")))?;
        watch.begin("the servers become one again")?;
        // Nobody writes now: every disk has to hold all that it must, so that the next leader may be killed.
        if !rest::wait_for(cluster, REST_LIMIT, rest::unequal).map_err(Halt::failed)? {
            return Err(Halt::Stopped);
        }
    }
    watch.begin("what was acknowledged is read everywhere")?;
    for (server, address) in servers.iter().enumerate() {
        let mut seen = Vec::new();
        for room in &rooms {
            let user = format!("{room}-reader{server}");
            let seat = Seat { address: *address, user, room: room.clone() };
            seen.append(&mut read(&seat, u32::MAX, watch)?.seen);
        }
        let all: BTreeSet<Key> = seen.iter().copied().collect();
        figures.twice += (seen.len() - all.len()) as u64;
        figures.lost += acknowledged.difference(&all).count() as u64;
    }
    figures.shape = format!("{} killed leaders", settings.rounds);
    figures.count = settings.rounds as u64;
    figures.times = Times::of(&next);
    let Times { p50_us, max_us, .. } = Times::of(&everywhere);
    figures.notes.push(format!(
        "at every server again after {:.0} ms (median), {:.0} ms at most; {} acknowledged writes were read at each",
        p50_us / 1000.0,
        max_us / 1000.0,
        acknowledged.len()
    ));
    Ok(figures)
}

/// What was waited for; or why there is nothing.
fn found<T>(waited: Option<T>, cluster: &LocalCluster, failure: &str) -> Result<T, Halt> {
    match waited {
        Some(found) => Ok(found),
        None if !cluster.pause(Duration::ZERO) => Err(Halt::Stopped),
        None => Err(Halt::failed(failure)),
    }
}

/// From the kill, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Silence {
    /// To the first acknowledgement of a new write, at any server.
    next: u64,
    /// To the moment when every server that is left has acknowledged a new one.
    everywhere: u64,
}

/// Who writes at one server.
struct Writer {
    sender: usize,
    template: Template,
    /// By number.
    said_at: Vec<u64>,
    answers: usize,
    gone: bool,
    /// When it was acknowledged something that it said after the kill.
    again_at: Option<u64>,
}

struct Round {
    links: Links,
    writers: Vec<Writer>,
    leader: usize,
    killed_at: Option<u64>,
    next_at: u64,
    acknowledged: BTreeSet<Key>,
    failure: Option<String>,
}

impl Round {
    fn begin(
        number: usize,
        rooms: &[String],
        cluster: &LocalCluster,
        leader: usize,
        text_bytes: usize,
        watch: &mut Watch,
    ) -> Result<Self, Halt> {
        let servers = cluster.servers();
        // New names each time: a server remembers who was cut off for a while.
        let seat = |place: usize| Seat {
            address: servers[place].address(),
            user: format!("{}-{number}", rooms[place]),
            room: rooms[place].clone(),
        };
        let seats: Vec<Seat> = (0..servers.len()).map(seat).collect();
        let mut links = Links::new()?;
        gather(&mut links, &seats, watch)?;
        links.tick(Duration::from_nanos(PAUSE_NS))?;
        let writer = |place: usize| {
            let sender = number * servers.len() + place;
            let template = Template::new(&rooms[place], sender, text_bytes);
            Writer {
                sender,
                template,
                said_at: Vec::new(),
                answers: 0,
                gone: false,
                again_at: None,
            }
        };
        let writers = (0..servers.len()).map(writer).collect();
        let next_at = links.now();
        let (killed_at, acknowledged, failure) = (None, BTreeSet::new(), None);
        Ok(Self { links, writers, leader, killed_at, next_at, acknowledged, failure })
    }

    fn run(&mut self, cluster: &mut LocalCluster, watch: &mut Watch) -> Result<Silence, Halt> {
        let began = self.links.now();
        let all_write = |round: &Self| {
            round.links.now() - began > BEFORE_NS
                && round.writers.iter().all(|writer| writer.answers > 0)
        };
        self.write_until(all_write, "people write", watch)?;
        let killed_at = self.links.now();
        self.killed_at = Some(killed_at);
        cluster.server(self.leader).kill();
        let again = |round: &Self| round.survivors().all(|writer| writer.again_at.is_some());
        self.write_until(again, "the leader is killed", watch)?;
        let times = self.survivors().filter_map(|writer| writer.again_at);
        let times: Vec<u64> = times.map(|at| at - killed_at).collect();
        self.finish(watch)?;
        let (next, everywhere) = (times.iter().min().copied(), times.iter().max().copied());
        let none_left = || Halt::failed("no server was left");
        Ok(Silence {
            next: next.ok_or_else(none_left)?,
            everywhere: everywhere.unwrap_or_default(),
        })
    }

    fn survivors(&self) -> impl Iterator<Item = &Writer> {
        let writers = self.writers.iter().enumerate();
        writers.filter(|(place, _)| *place != self.leader).map(|(_, writer)| writer)
    }

    fn write_until(
        &mut self,
        enough: impl Fn(&Self) -> bool,
        what: &str,
        watch: &mut Watch,
    ) -> Result<(), Halt> {
        let began = self.links.now();
        while !enough(self) {
            let now = self.links.now();
            if now - began > LIMIT_NS {
                return Err(Halt::failed(format!(
                    "nothing was acknowledged for {} s: {what}",
                    LIMIT_NS / 1_000_000_000
                )));
            }
            if now >= self.next_at {
                self.next_at = now + PAUSE_NS;
                self.say(now);
            }
            self.listen()?;
            watch.go_on(0.5, || what.into())?;
        }
        Ok(())
    }

    /// Waits for the acknowledgements of what was said at servers that live.
    fn finish(&mut self, watch: &mut Watch) -> Result<(), Halt> {
        let end = self.links.now() + REST_NS;
        while self.links.now() < end
            && self.survivors().any(|writer| writer.answers < writer.said_at.len())
        {
            self.listen()?;
            watch.go_on(1.0, || "waits for the rest".into())?;
        }
        Ok(())
    }

    fn say(&mut self, now: u64) {
        for (place, writer) in
            self.writers.iter_mut().enumerate().filter(|(_, writer)| !writer.gone)
        {
            let number = writer.said_at.len() as u32;
            writer.said_at.push(now);
            self.links.say(place, |out| writer.template.put(number, number, out));
            self.links.flush(place);
        }
    }

    fn listen(&mut self) -> Result<(), Halt> {
        let Self { links, writers, leader, killed_at, acknowledged, failure, .. } = self;
        links.wait(PATIENCE, |place, now, heard| {
            let writer = &mut writers[place];
            match heard {
                Heard::Ack(number) => {
                    writer.answers += 1;
                    acknowledged.insert((writer.sender, number));
                    let said_at = writer.said_at.get(number as usize);
                    let new = said_at.zip(*killed_at).is_some_and(|(said, killed)| *said > killed);
                    if new && place != *leader {
                        writer.again_at.get_or_insert(now);
                    }
                }
                Heard::Gone if place == *leader && killed_at.is_some() => writer.gone = true,
                Heard::Gone => *failure = Some("a server that lives closed a connection".into()),
                Heard::Refused(body) => {
                    *failure = Some(format!("a server refuses: {}", reason(body)));
                }
                _ => {}
            }
        })?;
        failure.take().map_or(Ok(()), |failure| Err(Halt::failed(failure)))
    }
}
