//! What the machine says about processes: CPU time, memory, open files; and what servers say about their disks.
//!
//! From `/proc`, so of processes on this machine alone, and in steps of a clock tick (10 ms). Where something cannot be
//! read it is absent, not zero.

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use crate::client::query_status_of_room;
use crate::domain::content::Status;
use crate::error::StartError;
use crate::open_files;
use crate::threads::Threads;

/// A room that does not exist: STATUS about it is short.
const NO_ROOM: &str = "-";

/// CPU seconds of this thread so far.
pub(super) fn thread_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU seconds of the process `pid` so far, all threads, user and system.
fn cpu_of(pid: u32) -> Option<f64> {
    cpu_in_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn cpu_in_stat(stat: &str) -> Option<f64> {
    // The name, in brackets, may hold anything; user and system time are the 12th and 13th field after it.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some((ticks()? + ticks()?) as f64 / clock_ticks_per_second() as f64)
}

/// CPU seconds that the machine spent on anything so far, or that its host kept from it.
fn machine_cpu() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_ascii_whitespace().skip(1);
    let fields: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; the guests' time that follows is in user already.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|place| fields.get(*place)).sum::<u64>();
    Some(busy as f64 / clock_ticks_per_second() as f64)
}

/// How much of the process `pid` is in memory, in KiB.
fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The sum of what `of` says of each; absent when there is none, or one of them is gone.
fn sum<T: std::iter::Sum<T>>(pids: &[u32], of: fn(u32) -> Option<T>) -> Option<T> {
    if pids.is_empty() { None } else { pids.iter().map(|pid| of(*pid)).sum() }
}

/// How it stands at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// When the processes were looked at.
    at: Instant,
    servers_cpu: Option<f64>,
    own_cpu: Option<f64>,
    machine_cpu: Option<f64>,
    /// All servers together.
    pub(super) resident_kib: Option<u64>,
    /// When the servers had said how often they synced, and how often.
    syncs: Option<(Instant, u64)>,
    /// How often they followed another leader: the one that did most.
    leader_changes: Option<u64>,
    /// How late a heartbeat of theirs was at worst since they started, in milliseconds.
    heartbeat_late_ms: Option<u64>,
}

/// What was spent between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spent {
    /// CPU seconds of all servers.
    pub(super) servers_cpu: Option<f64>,
    /// CPU of all servers, in cores.
    pub(super) servers_cores: Option<f64>,
    /// CPU seconds of this process.
    pub(super) own_cpu: Option<f64>,
    /// CPU of everything but the servers and this process, in cores.
    pub(super) others_cores: Option<f64>,
    /// Syncs a second, all servers together.
    pub(super) syncs_per_second: Option<f64>,
    /// How often the leader changed.
    pub(super) leader_changes: Option<u64>,
    /// How late a heartbeat was at worst, before that too, in milliseconds.
    pub(super) heartbeat_late_ms: Option<u64>,
}

impl Reading {
    /// What was spent since `before`.
    pub(super) fn since(&self, before: &Self) -> Spent {
        let seconds = (self.at - before.at).as_secs_f64().max(1e-9);
        let less = |now: Option<f64>, then: Option<f64>| Some(now? - then?);
        let servers_cpu = less(self.servers_cpu, before.servers_cpu);
        let own = less(self.own_cpu, before.own_cpu);
        let others = less(self.machine_cpu, before.machine_cpu);
        let others = less(less(others, own), Some(servers_cpu.unwrap_or_default()));
        let syncs = self.syncs.zip(before.syncs).map(|((at, now), (since, then))| {
            now.saturating_sub(then) as f64 / (at - since).as_secs_f64().max(1e-9)
        });
        Spent {
            servers_cpu,
            servers_cores: servers_cpu.map(|cpu| cpu / seconds),
            own_cpu: own,
            others_cores: others.map(|cpu| (cpu / seconds).max(0.0)),
            syncs_per_second: syncs,
            leader_changes: self
                .leader_changes
                .zip(before.leader_changes)
                .map(|(now, then)| now.saturating_sub(then)),
            heartbeat_late_ms: self.heartbeat_late_ms,
        }
    }
}

/// Takes readings in a thread of its own, so that the load does not stop for them.
#[derive(Debug)]
pub(super) struct Gauge {
    ask: Sender<()>,
    readings: Receiver<Reading>,
    threads: Threads,
}

impl Gauge {
    /// Looks at the processes `pids` and asks the servers at `addresses`.
    pub(super) fn start(pids: Vec<u32>, addresses: Vec<SocketAddr>) -> Result<Self, StartError> {
        // One is asked for after the other.
        let (ask, asked) = bounded(1);
        let (answer, readings) = bounded(1);
        let threads = Threads::new("gauge");
        let measure = move || {
            while asked.recv().is_ok() {
                if answer.send(read(&pids, &addresses)).is_err() {
                    return;
                }
            }
        };
        threads
            .spawn("reads", measure)
            .map_err(|error| StartError::Other(format!("cannot start a thread: {error}")))?;
        Ok(Self { ask, readings, threads })
    }

    /// Asks for a reading of now.
    pub(super) fn ask(&self) {
        let _ = self.ask.try_send(());
    }

    /// The reading that was asked for; waits until the servers have answered.
    pub(super) fn take(&self) -> Option<Reading> {
        self.readings.recv().ok()
    }

    /// A reading of now.
    pub(super) fn read(&self) -> Option<Reading> {
        self.ask();
        self.take()
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        self.threads.stop();
    }
}

fn read(pids: &[u32], addresses: &[SocketAddr]) -> Reading {
    let mut reading = Reading {
        at: Instant::now(),
        servers_cpu: sum(pids, cpu_of),
        own_cpu: cpu_of(std::process::id()),
        machine_cpu: machine_cpu(),
        resident_kib: sum(pids, resident_kib),
        syncs: None,
        leader_changes: None,
        heartbeat_late_ms: None,
    };
    let ask = |address: &SocketAddr| query_status_of_room(&address.to_string(), NO_ROOM).ok();
    let answers: Option<Vec<Status>> = addresses.iter().map(ask).collect();
    if let Some(answers) = answers.filter(|answers| !answers.is_empty()) {
        let late = |status: &Status| Some(status.heartbeat_lateness?.since_start_ms);
        reading.syncs = Some((Instant::now(), answers.iter().map(|status| status.syncs).sum()));
        reading.leader_changes = answers.iter().filter_map(|status| status.leader_changes).max();
        reading.heartbeat_late_ms = answers.iter().filter_map(late).max();
    }
    reading
}

/// Lets this process, and those that it starts, open `wanted` files at once.
pub(super) fn raise_open_files(wanted: u64) -> Result<(), StartError> {
    let most = open_files::most();
    if most < wanted {
        return Err(StartError::Other(format!(
            "this takes {wanted} open files, and the limit is {most}; raise it (as root: ulimit -Hn {wanted}), or \
             take fewer --connections or --members"
        )));
    }
    open_files::raise().map(drop).map_err(|error| {
        StartError::Other(format!("cannot raise the limit of open files to {most}: {error}"))
    })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_cpu_time_of_a_process_stands_after_its_name() {
        let ticks = clock_ticks_per_second() as f64;
        let stat = "12 (a) b (c) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 1 2 3";
        assert_eq!(cpu_in_stat(stat), Some(300.0 / ticks));
        assert_eq!(cpu_in_stat("12 (a) S 1"), None);
        assert_eq!(cpu_in_stat(""), None);
    }

    #[test]
    fn this_process_can_be_read_and_one_that_is_gone_cannot() {
        let own = std::process::id();
        let reading = read(&[own], &[]);
        assert!(reading.resident_kib.is_some_and(|kib| kib > 100));
        assert!(reading.servers_cpu.is_some() && reading.machine_cpu.is_some());
        assert_eq!(read(&[own, u32::MAX], &[]).resident_kib, None);
        assert_eq!(read(&[], &[]).servers_cpu, None);
    }

    #[test]
    fn what_is_spent_is_the_difference() {
        let before = Reading {
            at: Instant::now(),
            servers_cpu: Some(1.0),
            own_cpu: Some(2.0),
            machine_cpu: Some(10.0),
            resident_kib: None,
            syncs: None,
            leader_changes: Some(1),
            heartbeat_late_ms: None,
        };
        let at = before.at + Duration::from_secs(2);
        let after = Reading {
            at,
            servers_cpu: Some(2.0),
            own_cpu: Some(2.5),
            machine_cpu: Some(12.0),
            syncs: Some((at, 10)),
            ..before
        };
        let spent = after.since(&before);
        assert_eq!((spent.servers_cpu, spent.servers_cores), (Some(1.0), Some(0.5)));
        assert_eq!((spent.others_cores, spent.syncs_per_second), (Some(0.25), None));
        let later = Reading {
            at: at + Duration::from_secs(4),
            syncs: Some((at + Duration::from_secs(4), 30)),
            ..after
        };
        assert_eq!(later.since(&after).syncs_per_second, Some(5.0));
    }

    #[test]
    fn more_files_than_the_system_allows_are_refused_with_what_to_do() {
        raise_open_files(16).unwrap();
        if open_files::most() < u64::MAX {
            let refused = raise_open_files(u64::MAX).unwrap_err().to_string();
            assert!(refused.contains("ulimit -Hn"), "{refused}");
        }
    }
}
