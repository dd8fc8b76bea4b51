//! Puts the traces of several servers into one causal order.
//!
//! ```text
//!   n1   1 ── 2 ─────── 3      Before each event: the one before it on its own line, and for a message that arrives
//!              ╲ n1.1-cb0f:1   the sending of it. Among those that may come next: the earliest by the clock.
//!   n2   1 ──── 2 ── 3         The trace's own clocks follow from the same lines and arrows.
//! ```
//!
//! Clocks of machines differ. Where messages seem to arrive before they were sent, each server's clock is moved so that the
//! fastest messages of both directions of a link take equally long (as NTP assumes), and what is still the wrong way round
//! is pulled straight. The times in the lines stay what the servers said.
//!
//! Promise: causal order, whatever the clocks say; the same files in any order give the same result. Leaves out: messages
//! whose sending was not traced, which are ordered by time alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use super::event::{Kind, TraceEvent};
use super::read::{Life, Traces};
use crate::domain::ids::natural_cmp;
use crate::domain::{Incarnation, NodeId};
use crate::error::StartError;

/// A server that says nothing for so long before the end of the others' traces was killed. Heartbeats are written down, too:
/// a live server is never silent for so long.
const SILENCE_US: u64 = 1_500_000;

/// The events of all servers in causal order.
#[derive(Clone, Debug, Default)]
pub struct Merged {
    /// The events.
    pub events: Vec<TraceEvent>,
    /// When each happened, in microseconds, by clocks that agree: nothing arrives before it was sent.
    pub times_us: Vec<u64>,
    /// `(sent, received)`: places in `events`.
    pub pairs: Vec<(usize, usize)>,
    /// The servers, in natural order.
    pub nodes: Vec<String>,
    /// Which cluster it was.
    pub cluster: String,
    /// Which design.
    pub design: String,
    /// What people should know: what was dropped, which clocks were moved.
    pub notes: Vec<String>,
}

/// Merges `traces`; refuses what is not of one run.
pub fn merge(traces: Traces) -> Result<Merged, StartError> {
    let Traces { mut lives, notes } = traces;
    lives.sort_by(|a, b| {
        let key = |life: &Life| (life.events[0].time_us, life.run.life.clone());
        natural_cmp(&a.node, &b.node).then_with(|| key(a).cmp(&key(b)))
    });
    check_one_run(&lives).map_err(StartError::Other)?;
    let mut merger = Merger::new(lives, notes);
    merger.agree_on_time();
    merger.infer_crashes();
    Ok(merger.order())
}

/// Whether all `lives` can be of one run. The error says why not.
fn check_one_run(lives: &[Life]) -> Result<(), String> {
    let Some(first) = lives.first() else { return Err("there is nothing to merge".into()) };
    let mut known: BTreeMap<&str, &Life> = BTreeMap::new();
    let mut cluster_id: Option<(&str, &Life)> = None;
    for life in lives {
        let (a, b) = (&first.run, &life.run);
        if (&a.cluster, &a.design) != (&b.cluster, &b.design) {
            return Err(format!(
                "traces of different runs: {} is of the cluster {:?} (design {}), {} of {:?} (design {})",
                first.file.display(),
                a.cluster,
                a.design,
                life.file.display(),
                b.cluster,
                b.design
            ));
        }
        if let Some(other) = known.insert(&life.run.life, life) {
            return Err(format!(
                "{} is in {} and in {}; name each trace once, and either a merged one or its parts",
                life.run.life,
                other.file.display(),
                life.file.display()
            ));
        }
        for id in
            life.events.iter().map(|event| event.cluster_id.as_str()).filter(|id| !id.is_empty())
        {
            let (one, from) = *cluster_id.get_or_insert((id, life));
            if one != id {
                return Err(format!(
                    "traces of different runs: the cluster of {} has the id {one}, that of {} has {id}",
                    from.file.display(),
                    life.file.display()
                ));
            }
        }
    }
    let nodes: BTreeSet<&str> = lives.iter().map(|life| life.node.as_str()).collect();
    for life in lives {
        for frame in life
            .events
            .iter()
            .filter(|event| event.kind == Kind::Receive)
            .filter_map(|event| event.frame.as_deref())
        {
            let Some((sender, _)) = frame.rsplit_once(':') else { continue };
            let node = Incarnation::from(sender).node_id();
            // The beginning of a trace that is bounded is not kept.
            let is_part =
                lives.iter().any(|other| other.node == node.as_str() && other.run.continues);
            if nodes.contains(node.as_str()) && !known.contains_key(sender) && !is_part {
                let theirs = lives.iter().find(|other| other.node == node.as_str());
                let file = theirs.map(|other| other.file.display().to_string()).unwrap_or_default();
                return Err(format!(
                    "traces of different runs: {} heard from {sender}, a life of {node} that is not in {file}",
                    life.file.display()
                ));
            }
        }
    }
    Ok(())
}

/// The events of one server, in its order.
#[derive(Debug, Default)]
struct Line {
    node: String,
    events: Vec<TraceEvent>,
    /// How far its clock is ahead, in microseconds.
    ahead_us: i64,
}

impl Line {
    fn time_us(&self, index: usize) -> i64 {
        i64::try_from(self.events[index].time_us).unwrap_or(i64::MAX) - self.ahead_us
    }
}

/// An event: the line, and the place in it.
type Spot = (usize, usize);

#[derive(Debug)]
struct Merger {
    lines: Vec<Line>,
    cluster: String,
    design: String,
    notes: Vec<String>,
}

impl Merger {
    fn new(lives: Vec<Life>, notes: Vec<String>) -> Self {
        let run = lives[0].run.clone();
        let mut lines: Vec<Line> = Vec::new();
        for life in lives {
            match lines.last_mut() {
                Some(line) if line.node == life.node => line.events.extend(life.events),
                _ => lines.push(Line { node: life.node, events: life.events, ahead_us: 0 }),
            }
        }
        Self { lines, cluster: run.cluster, design: run.design, notes }
    }

    /// Where each frame was sent.
    fn sent(&self) -> BTreeMap<&str, Spot> {
        let mut sent = BTreeMap::new();
        for (line, index, event) in self.all().filter(|(_, _, event)| event.kind == Kind::Send) {
            if let Some(frame) = &event.frame {
                sent.insert(frame.as_str(), (line, index));
            }
        }
        sent
    }

    fn all(&self) -> impl Iterator<Item = (usize, usize, &TraceEvent)> {
        self.lines.iter().enumerate().flat_map(|(line, of)| {
            of.events.iter().enumerate().map(move |(index, event)| (line, index, event))
        })
    }

    /// For each event the one that it received, if it received one.
    fn causes(&self) -> Vec<Vec<Option<Spot>>> {
        let sent = self.sent();
        let cause = |event: &TraceEvent| {
            let frame = event.frame.as_deref().filter(|_| event.kind == Kind::Receive)?;
            sent.get(frame).copied()
        };
        self.lines.iter().map(|line| line.events.iter().map(cause).collect()).collect()
    }

    /// Moves clocks where messages arrive before they are sent.
    fn agree_on_time(&mut self) {
        let mut fastest: BTreeMap<(usize, usize), i64> = BTreeMap::new();
        for (to, causes) in self.causes().iter().enumerate() {
            for (index, cause) in causes.iter().enumerate() {
                let Some((from, sent)) = *cause else { continue };
                let took = self.lines[to].time_us(index) - self.lines[from].time_us(sent);
                let entry = fastest.entry((from, to)).or_insert(took);
                *entry = took.min(*entry);
            }
        }
        if fastest.values().all(|took| *took >= 0) {
            return;
        }
        let mut placed: BTreeSet<usize> = BTreeSet::new();
        for root in 0..self.lines.len() {
            if !placed.insert(root) {
                continue;
            }
            let mut queue = VecDeque::from([root]);
            while let Some(from) = queue.pop_front() {
                for to in 0..self.lines.len() {
                    let (there, back) = (fastest.get(&(from, to)), fastest.get(&(to, from)));
                    let ahead = match (there, back) {
                        (Some(there), Some(back)) => (there - back) / 2,
                        // Only one direction is known: no more than is needed.
                        (Some(there), None) => (*there).min(0),
                        (None, Some(back)) => -(*back).min(0),
                        (None, None) => continue,
                    };
                    if placed.insert(to) {
                        self.lines[to].ahead_us = self.lines[from].ahead_us + ahead;
                        queue.push_back(to);
                    }
                }
            }
        }
        let first = self.lines[0].node.clone();
        for line in self.lines.iter().filter(|line| line.ahead_us.abs() >= 1000) {
            let ms = line.ahead_us.unsigned_abs() as f64 / 1000.0;
            let how = if line.ahead_us > 0 { "ahead of" } else { "behind" };
            self.notes.push(format!(
                "the clock of {} is {ms:.1} ms {how} that of {first}; its times are moved in the drawing",
                line.node
            ));
        }
    }

    /// A life that ends without a word was killed: adds the event.
    fn infer_crashes(&mut self) {
        let ends = |line: &Line| line.events.len().checked_sub(1).map(|last| line.time_us(last));
        let end = self.lines.iter().filter_map(ends).max().unwrap_or_default();
        for line in &mut self.lines {
            let mut events: Vec<TraceEvent> = Vec::with_capacity(line.events.len());
            for event in std::mem::take(&mut line.events) {
                if event.kind == Kind::Start
                    && let Some(last) = events.last().filter(|last| !is_end(last.kind))
                {
                    events.push(crash_after(last, "killed: it was started again later"));
                }
                events.push(event);
            }
            line.events = events;
            if let Some(last) = line.events.last().filter(|last| !is_end(last.kind)) {
                let at = line.time_us(line.events.len() - 1);
                if at.saturating_add_unsigned(SILENCE_US) < end {
                    let crash = crash_after(last, "killed, or it hangs: no more word of it");
                    line.events.push(crash);
                }
            }
        }
    }

    /// Orders everything.
    fn order(mut self) -> Merged {
        let causes = self.causes();
        let mut places: Vec<Vec<usize>> =
            self.lines.iter().map(|line| vec![usize::MAX; line.events.len()]).collect();
        let mut next = vec![0; self.lines.len()];
        let mut waiting: BTreeMap<Spot, Vec<usize>> = BTreeMap::new();
        let mut ready: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
        let mut order: Vec<Spot> = Vec::new();
        let mut ignored: BTreeSet<Spot> = BTreeSet::new();
        let mut arrived: VecDeque<usize> = (0..self.lines.len()).collect();
        loop {
            // A line whose next event may have become possible.
            while let Some(line) = arrived.pop_front() {
                let index = next[line];
                if index == places[line].len() {
                    continue;
                }
                let cause = causes[line][index].filter(|_| !ignored.contains(&(line, index)));
                match cause {
                    Some(cause) if places[cause.0][cause.1] == usize::MAX => {
                        waiting.entry(cause).or_default().push(line);
                    }
                    _ => ready.push(Reverse((self.lines[line].time_us(index), line))),
                }
            }
            let Some(Reverse((_, line))) = ready.pop() else {
                let Some(line) = self.earliest_blocked(&next) else { break };
                // Two frames under one name, or a line that was changed: nothing can come next.
                ignored.insert((line, next[line]));
                for lines in waiting.values_mut() {
                    lines.retain(|other| *other != line);
                }
                arrived.push_back(line);
                continue;
            };
            let spot = (line, next[line]);
            places[line][spot.1] = order.len();
            order.push(spot);
            next[line] += 1;
            arrived.push_back(line);
            arrived.extend(waiting.remove(&spot).unwrap_or_default());
        }
        if !ignored.is_empty() {
            self.notes.push(format!(
                "{} messages arrive before they are sent, whatever the clocks say; their arrows are left out",
                ignored.len()
            ));
        }
        self.collect(&order, &places, &causes, &ignored)
    }

    /// The line whose next event is the earliest, of those that are not done.
    fn earliest_blocked(&self, next: &[usize]) -> Option<usize> {
        let blocked =
            (0..self.lines.len()).filter(|line| next[*line] < self.lines[*line].events.len());
        blocked.min_by_key(|line| (self.lines[*line].time_us(next[*line]), *line))
    }

    fn collect(
        mut self,
        order: &[Spot],
        places: &[Vec<usize>],
        causes: &[Vec<Option<Spot>>],
        ignored: &BTreeSet<Spot>,
    ) -> Merged {
        let mut merged = Merged {
            nodes: self.lines.iter().map(|line| line.node.clone()).collect(),
            cluster: self.cluster,
            design: self.design,
            notes: self.notes,
            ..Merged::default()
        };
        let mut last = vec![i64::MIN; self.lines.len()];
        let times = order.iter().map(|(line, index)| self.lines[*line].time_us(*index));
        let times: Vec<i64> = times.collect();
        for (at, (line, index)) in order.iter().enumerate() {
            let cause = causes[*line][*index].filter(|_| !ignored.contains(&(*line, *index)));
            let sent = cause.map(|(line, index)| places[line][index]);
            let after = sent.map_or(0, |sent| merged.times_us[sent]);
            let time =
                times[at].max(last[*line]).max(i64::try_from(after).unwrap_or(i64::MAX)).max(0);
            last[*line] = time;
            merged.times_us.push(time.unsigned_abs());
            merged.pairs.extend(sent.map(|sent| (sent, at)));
            let blank = TraceEvent::new(0, "", Kind::Lost);
            merged.events.push(std::mem::replace(&mut self.lines[*line].events[*index], blank));
        }
        merged
    }
}

fn is_end(kind: Kind) -> bool {
    matches!(kind, Kind::Stop | Kind::Crash)
}

fn crash_after(last: &TraceEvent, say: &str) -> TraceEvent {
    let mut crash = TraceEvent::new(last.time_us, &last.node, Kind::Crash);
    (crash.n, crash.say) = (last.n + 1, say.into());
    crash
}

impl Merged {
    /// Hands each event to `take`, with the trace's own clock in it, in order.
    pub fn for_each_with_clock(&self, mut take: impl FnMut(&TraceEvent)) {
        let mut clocks: BTreeMap<NodeId, BTreeMap<String, u64>> = BTreeMap::new();
        let mut sent: BTreeMap<usize, BTreeMap<String, u64>> = BTreeMap::new();
        let mut receivers: BTreeMap<usize, usize> = BTreeMap::new();
        for (from, _) in &self.pairs {
            *receivers.entry(*from).or_default() += 1;
        }
        let cause: BTreeMap<usize, usize> =
            self.pairs.iter().map(|(from, to)| (*to, *from)).collect();
        for (at, event) in self.events.iter().enumerate() {
            let clock = clocks.entry(event.node.as_str().into()).or_default();
            if let Some(from) = cause.get(&at)
                && let Some(theirs) = sent.get(from)
            {
                for (node, count) in theirs {
                    let entry = clock.entry(node.clone()).or_default();
                    *entry = (*entry).max(*count);
                }
                let left = receivers.entry(*from).and_modify(|left| *left -= 1).or_default();
                if *left == 0 {
                    sent.remove(from);
                }
            }
            *clock.entry(event.node.clone()).or_default() += 1;
            let clock = clock.clone();
            if receivers.contains_key(&at) {
                sent.insert(at, clock.clone());
            }
            take(&TraceEvent { clock, ..event.clone() });
        }
    }
}
