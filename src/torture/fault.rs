//! The faults: which there are, which a design survives by its promise, and how each is done to real processes.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fronts::{Fronts, Healing};
use crate::local_cluster::LocalCluster;
use crate::trace::writer::old_file;

/// Something that is done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    /// A server is killed (SIGKILL), and started again.
    Kill,
    /// A server sleeps (SIGSTOP) and wakes, believing what it believed.
    Pause,
    /// Some servers do not reach the others, or not in one direction.
    Partition,
    /// Everything between servers takes longer.
    Delay,
    /// Connections between servers break, and what was under way on them is lost.
    Loss,
    /// A server is killed while it writes: its log ends in half a record.
    Truncate,
    /// A server is killed, and one bit of its log flips.
    Bitflip,
    /// A server is killed, and comes back with an empty data folder.
    Wipe,
    /// A server's disk is full for a while.
    Diskfull,
    /// A server's clock is ten minutes ahead or behind for a while.
    Clock,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Kill,
        Self::Pause,
        Self::Partition,
        Self::Delay,
        Self::Loss,
        Self::Truncate,
        Self::Bitflip,
        Self::Wipe,
        Self::Diskfull,
        Self::Clock,
    ];

    /// Its word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::Delay => "delay",
            Self::Loss => "loss",
            Self::Truncate => "truncate",
            Self::Bitflip => "bitflip",
            Self::Wipe => "wipe",
            Self::Diskfull => "diskfull",
            Self::Clock => "clock",
        }
    }

    /// Whether it is done to the network between servers.
    pub fn is_between_servers(self) -> bool {
        matches!(self, Self::Partition | Self::Delay | Self::Loss)
    }

    /// Whether it parts servers that run, so that each side of a ring goes on for itself.
    pub fn parts_servers(self) -> bool {
        self.is_between_servers() || self == Self::Pause
    }

    /// Whether what was on a disk is lost.
    pub fn loses_disk(self) -> bool {
        matches!(self, Self::Bitflip | Self::Wipe)
    }

    /// Why `servers` servers do not promise to survive it, if they do not.
    pub fn is_beyond(self, servers: usize) -> Option<&'static str> {
        (self.loses_disk() && servers < 3)
            .then_some("what was on that disk has to be on another one")
    }
}

/// A fault that is under way, and what ends it.
#[derive(Debug)]
pub(super) struct Underway {
    /// What is done, in words for the table of what happened.
    pub(super) what: String,
    /// How long it is to last.
    pub(super) lasts: Duration,
    end: End,
}

#[derive(Debug)]
enum End {
    /// Starts the server at this place, with these flags.
    Start(usize, &'static [&'static str]),
    Wake(usize),
    /// Kills the server, which runs under a limit, and starts it without.
    Restart(usize),
    Heal(Healing),
    SpeedUp,
    Nothing,
}

/// Begins `fault` at a server and for a time that `rng` chooses.
pub(super) fn begin(
    fault: Fault,
    cluster: &mut LocalCluster,
    fronts: &Fronts,
    rng: &mut fastrand::Rng,
) -> io::Result<Underway> {
    let count = cluster.servers().len();
    // The leader more often than chance would have it: it has most to lose.
    let leader = cluster.agreed_leader().filter(|_| rng.bool());
    let place = leader.unwrap_or_else(|| rng.usize(..count));
    let id = cluster.servers()[place].id().to_string();
    let seconds = |rng: &mut fastrand::Rng, least: f64, most: f64| {
        Duration::from_secs_f64(least + rng.f64() * (most - least))
    };
    let data = cluster.servers()[place].data();
    let underway = |what: String, lasts, end| Underway { what, lasts, end };
    Ok(match fault {
        Fault::Kill => {
            let what = kill_perhaps_with_machine(cluster, fronts, place, rng)?;
            underway(what, seconds(rng, 0.2, 4.0), End::Start(place, &[]))
        }
        Fault::Pause => {
            cluster.servers()[place].put_to_sleep();
            underway(id, seconds(rng, 0.2, 8.0), End::Wake(place))
        }
        Fault::Partition => {
            let (what, lasts) = (cut(fronts, count, rng), seconds(rng, 1.0, 6.0));
            let healing = if rng.bool() { Healing::GoOn } else { Healing::Reset };
            underway(what, lasts, End::Heal(healing))
        }
        Fault::Delay => {
            let delay = Duration::from_millis(rng.u64(5..=80));
            fronts.slow_down(delay);
            underway(format!("{} ms", delay.as_millis()), seconds(rng, 1.0, 4.0), End::SpeedUp)
        }
        Fault::Loss => {
            fronts.break_lines(|| rng.bool());
            underway("some lines".into(), seconds(rng, 0.2, 1.0), End::Nothing)
        }
        Fault::Truncate => {
            kill(cluster, fronts, place)?;
            tear_last_record(&data, rng)?;
            underway(id, seconds(rng, 0.2, 2.0), End::Start(place, &[]))
        }
        Fault::Bitflip => {
            kill(cluster, fronts, place)?;
            let what = flip_a_bit(&data, rng)?;
            // The ring leaves it to its operator to say that what is damaged may be fetched from the others.
            underway(
                format!("{id}, {what}"),
                seconds(rng, 0.2, 2.0),
                End::Start(place, &["--repair"]),
            )
        }
        Fault::Wipe => {
            kill(cluster, fronts, place)?;
            fs::remove_dir_all(&data)?;
            underway(id, seconds(rng, 0.2, 2.0), End::Start(place, &[]))
        }
        Fault::Diskfull => {
            fill_disk(cluster, fronts, place, rng)?;
            underway(id, seconds(rng, 2.0, 5.0), End::Restart(place))
        }
        Fault::Clock => {
            kill(cluster, fronts, place)?;
            let (word, flag) = if rng.bool() {
                ("ahead", "--clock-error-ms=600000")
            } else {
                ("behind", "--clock-error-ms=-600000")
            };
            start(cluster, fronts, place, &[flag], None)?;
            underway(format!("{id} {word}"), seconds(rng, 2.0, 4.0), End::Restart(place))
        }
    })
}

/// Ends it.
pub(super) fn end(
    underway: &Underway,
    cluster: &mut LocalCluster,
    fronts: &Fronts,
) -> io::Result<()> {
    match underway.end {
        End::Start(place, flags) => start(cluster, fronts, place, flags, None)?,
        End::Wake(place) => cluster.server(place).wake(),
        End::Restart(place) => {
            kill(cluster, fronts, place)?;
            start(cluster, fronts, place, &[], None)?;
        }
        End::Heal(healing) => fronts.heal(healing),
        End::SpeedUp => fronts.slow_down(Duration::ZERO),
        End::Nothing => {}
    }
    Ok(())
}

/// Kills a server; its port refuses connections from then on.
fn kill(cluster: &mut LocalCluster, fronts: &Fronts, place: usize) -> io::Result<()> {
    cluster.server(place).kill();
    fronts.set_up(place, false)
}

/// The same; when its whole machine is gone nobody says that nobody listens there. Says what was done.
fn kill_perhaps_with_machine(
    cluster: &mut LocalCluster,
    fronts: &Fronts,
    place: usize,
    rng: &mut fastrand::Rng,
) -> io::Result<String> {
    let id = cluster.servers()[place].id().to_string();
    if rng.bool() {
        kill(cluster, fronts, place)?;
        return Ok(id);
    }
    cluster.server(place).kill();
    Ok(format!("{id} with its machine"))
}

/// Starts a server again, with files that may hardly grow.
fn fill_disk(
    cluster: &mut LocalCluster,
    fronts: &Fronts,
    place: usize,
    rng: &mut fastrand::Rng,
) -> io::Result<()> {
    kill(cluster, fronts, place)?;
    let server = &cluster.servers()[place];
    let kib = longest_log_file(&server.data())?.1 / 1024 + rng.u64(4..64);
    // The limit holds for the trace, too: a new file is short.
    let trace = server.trace_path();
    if trace.exists() {
        fs::rename(&trace, old_file(&trace))?;
    }
    start(cluster, fronts, place, &[], Some(kib))
}

fn start(
    cluster: &mut LocalCluster,
    fronts: &Fronts,
    place: usize,
    flags: &[&str],
    file_kib_max: Option<u64>,
) -> io::Result<()> {
    fronts.set_up(place, true)?;
    cluster.server(place).start_with(flags, file_kib_max)
}

/// Cuts some servers off, one way or both; says which.
fn cut(fronts: &Fronts, count: usize, rng: &mut fastrand::Rng) -> String {
    let mut places: Vec<usize> = (0..count).collect();
    rng.shuffle(&mut places);
    let id = |place: &usize| format!("n{}", place + 1);
    if rng.u8(..4) == 0 && count > 1 {
        fronts.cut_one_way(places[0], places[1]);
        return format!("{} not to {}", id(&places[0]), id(&places[1]));
    }
    // Fewer than half: where a majority is needed, the others go on.
    let most = ((count - 1) / 2).max(1);
    let (cut_off, others) = places.split_at(rng.usize(1..=most));
    fronts.split(&[cut_off.to_vec(), others.to_vec()]);
    let names: Vec<String> = cut_off.iter().map(id).collect();
    format!("{} from the others", names.join(" "))
}

/// The file of the log in which records are appended now: the last one, and its length in bytes.
fn last_log_file(data: &Path) -> io::Result<PathBuf> {
    let mut files = log_files(data)?;
    files.sort();
    files.pop().ok_or_else(|| io::Error::other("the server has no log"))
}

fn longest_log_file(data: &Path) -> io::Result<(PathBuf, u64)> {
    let files = log_files(data)?;
    let sized = files.into_iter().map(|path| Ok((fs::metadata(&path)?.len(), path)));
    let sized = sized.collect::<io::Result<Vec<_>>>()?;
    let longest =
        sized.into_iter().max().ok_or_else(|| io::Error::other("the server has no log"))?;
    Ok((longest.1, longest.0))
}

fn log_files(data: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(data.join("log"))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "jsonl");
    Ok(paths.into_iter().filter(is_log).collect())
}

/// Half a copy of the last record, as a power cut leaves it: nobody was told that it is there.
fn tear_last_record(data: &Path, rng: &mut fastrand::Rng) -> io::Result<()> {
    let path = last_log_file(data)?;
    let text = fs::read(&path)?;
    let last = text.strip_suffix(b"\n").unwrap_or(&text).rsplit(|byte| *byte == b'\n').next();
    let last = last.unwrap_or_default();
    let torn = &last[..rng.usize(..last.len().max(1)).min(last.len())];
    OpenOptions::new().append(true).open(path)?.write_all(torn)
}

/// Flips one bit of a log file; says which.
fn flip_a_bit(data: &Path, rng: &mut fastrand::Rng) -> io::Result<String> {
    let (path, length) = longest_log_file(data)?;
    if length == 0 {
        return Ok("an empty log".into());
    }
    let at = rng.u64(..length);
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    byte[0] ^= 1 << rng.u8(..8);
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&byte)?;
    file.sync_all()?;
    Ok(format!("byte {at} of {length}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_with(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        fs::write(folder.path().join("log/00000001.jsonl"), text).unwrap();
        folder
    }

    fn text_of(data: &Path) -> String {
        String::from_utf8_lossy(&fs::read(data.join("log/00000001.jsonl")).unwrap()).into_owned()
    }

    #[test]
    fn a_torn_record_follows_the_whole_ones() {
        let data = data_with("{\"a\":1}\n{\"b\":22}\n");
        tear_last_record(data.path(), &mut fastrand::Rng::with_seed(4)).unwrap();
        let text = text_of(data.path());
        let torn = text.strip_prefix("{\"a\":1}\n{\"b\":22}\n").unwrap();
        assert!("{\"b\":22}".starts_with(torn) && torn.len() < 8, "{torn}");
    }

    #[test]
    fn exactly_one_bit_flips() {
        let before = "{\"a\":1}\n{\"b\":22}\n";
        let data = data_with(before);
        flip_a_bit(data.path(), &mut fastrand::Rng::with_seed(9)).unwrap();
        let after = fs::read(data.path().join("log/00000001.jsonl")).unwrap();
        let bits: u32 = before.bytes().zip(&after).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((bits, after.len()), (1, before.len()));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        use clap::ValueEnum;
        for fault in Fault::ALL {
            assert_eq!(fault.to_possible_value().unwrap().get_name(), fault.name());
        }
    }
}
