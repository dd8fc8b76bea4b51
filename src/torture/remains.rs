//! What stays after a broken promise: the servers' folder with their traces, and a diagram of the time when it happened.
//!
//! Everything that eight people say is some thousand events a second. So the servers keep the last part of their traces only
//! ([`TRACE_BYTES_MAX`]), and the diagram shows a part of that: from shortly before the message was written that the
//! checker complains of, or the end when it names none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::StartError;
use crate::local_cluster::{LocalCluster, Place, ServerProcess};
use crate::trace::diagram::Diagram;
use crate::trace::merge::{Merged, merge};
use crate::trace::page::page;
use crate::trace::read::read_files;

/// How much each server keeps of its trace.
const TRACE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How many events are drawn. A browser shows more, slowly.
const EVENTS_MAX: usize = 60_000;
/// What is drawn of the time before.
const BEFORE: Duration = Duration::from_secs(1);
/// How long the servers may take to stop: they write down what waits.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What stays.
#[derive(Clone, Debug)]
pub struct Remains {
    /// The folder with logs, data and traces.
    pub folder: PathBuf,
    /// The diagram and in words what is in it, or why there is none.
    pub diagram: Result<(PathBuf, String), String>,
    /// The messages that the violation is about, as the diagram names them: `user/id`.
    pub about: Vec<String>,
}

/// The flags by which a server writes a trace.
pub(super) fn flags(place: &Place) -> Vec<String> {
    let trace = place.trace_path().display().to_string();
    vec!["--trace".into(), trace, "--trace-bytes-max".into(), TRACE_BYTES_MAX.to_string()]
}

/// Keeps the folder of `cluster`, whose servers end, and draws the time from `moment_us` on, or the end.
pub(super) fn keep(
    cluster: &mut LocalCluster,
    moment_us: Option<u64>,
    about: Vec<String>,
) -> Remains {
    cluster.stop_all(STOP_LIMIT);
    let traces: Vec<PathBuf> = cluster.servers().iter().map(ServerProcess::trace_path).collect();
    let folder = cluster.keep_folder().to_path_buf();
    let diagram = draw(&traces, moment_us, &folder).map_err(|error| error.to_string());
    Remains { folder, diagram, about }
}

fn draw(
    traces: &[PathBuf],
    moment_us: Option<u64>,
    folder: &Path,
) -> Result<(PathBuf, String), StartError> {
    let merged = merge(read_files(traces)?)?;
    let part = part_of(&merged, moment_us, EVENTS_MAX);
    let first = merged.times_us.first().copied().unwrap_or_default();
    let since = |time: Option<&u64>| time.map_or(0.0, |time| (time - first) as f64 / 1e6);
    let what = format!(
        "{} of {} events, {:.1} s to {:.1} s of {:.1} s that were kept",
        part.events.len(),
        merged.events.len(),
        since(part.times_us.first()),
        since(part.times_us.last()),
        since(merged.times_us.last())
    );
    let path = folder.join("diagram.html");
    std::fs::write(&path, page(&Diagram::new(&part)))
        .map_err(|error| StartError::Other(format!("{}: {error}", path.display())))?;
    Ok((path, what))
}

/// At most `most` events: from shortly before `moment_us` on, or the last ones.
fn part_of(merged: &Merged, moment_us: Option<u64>, most: usize) -> Merged {
    let before = u64::try_from(BEFORE.as_micros()).unwrap_or(u64::MAX);
    let last = merged.events.len().saturating_sub(most);
    let begin = moment_us.map_or(last, |at| merged.place_at(at.saturating_sub(before)).min(last));
    merged.part(begin..merged.events.len().min(begin + most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::event::{Kind, TraceEvent};

    #[test]
    fn the_part_that_is_drawn_begins_shortly_before_the_moment_and_is_not_shorter_than_it_may_be() {
        let second = |at: u64| at * 1_000_000;
        let event = |at| TraceEvent { n: at + 1, ..TraceEvent::new(second(at), "n1", Kind::Timer) };
        let whole = Merged {
            events: (0..100).map(event).collect(),
            times_us: (0..100).map(second).collect(),
            ..Merged::default()
        };
        let drawn = |moment: Option<u64>, most| {
            let part = part_of(&whole, moment.map(second), most);
            (part.times_us[0] / 1_000_000, part.times_us[part.times_us.len() - 1] / 1_000_000)
        };
        assert_eq!(drawn(Some(40), 20), (39, 58));
        assert_eq!(drawn(Some(95), 20), (80, 99));
        assert_eq!(drawn(None, 20), (80, 99));
        assert_eq!(drawn(Some(40), 1000), (0, 99));
    }
}
