//! A part of a diagram as a picture for a slide.
//!
//! ```text
//!    4.210 s   n1 ●── CHAT ──╮      Each event has a row of its own, so no two labels can meet: the distance of rows is
//!    4.211     n2            ●      order, not time. The times stand at the left.
//! ```
//!
//! A slide holds [`ROWS_MAX`] events. More are thinned out by leaving out the most frequent kinds of messages, or, when
//! somebody said what to hide, cut at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use super::diagram::{Diagram, Dot, Moment};
use super::event::Kind;
use super::page::{HIDDEN, escaped};

/// Events that a slide holds.
pub const ROWS_MAX: usize = 40;

const WIDTH: f64 = 1280.0;
const HEIGHT: f64 = 720.0;
const LEFT: f64 = 100.0;
const TOP: f64 = 86.0;
const BOTTOM: f64 = 24.0;
const ROW_MAX: f64 = 30.0;
/// About the width of a character of a label, in pixels.
const CHAR: f64 = 6.4;
/// How much is shown before a leader dies and after the next one leads, in microseconds.
const AROUND_US: u64 = 150_000;

/// What elections are made of.
const VOTES: [&str; 6] =
    ["ELECTION", "ELECTION_OK", "COORDINATOR", "REQUEST_VOTE", "PROMISE", "TIMEOUT_NOW"];

const STYLE: &str = "\
text{font:11px system-ui,sans-serif;fill:#1c2430}\
.title{font-size:18px;font-weight:600}.name{font-size:14px;font-weight:600;text-anchor:middle}\
.time{text-anchor:end;fill:#5b6675}.label{paint-order:stroke;stroke:#fff;stroke-width:3px}\
.line{stroke:#9aa5b1;stroke-width:2}.LEADER{stroke:#1a7f37;stroke-width:6}\
.ELECTION_IN_PROGRESS{stroke:#c77700;stroke-width:4;stroke-dasharray:5 3}\
.DOWN{stroke:#cf222e;stroke-width:2;stroke-dasharray:1 6}.ASLEEP{stroke:#8250df;stroke-dasharray:3 5}\
.arrow{stroke:#3b6fb5;stroke-width:1.3;marker-end:url(#head)}.dot{fill:#3b6fb5}\
.cross{stroke:#cf222e;stroke-width:4}.bad{fill:#cf222e;font-weight:600}.good{fill:#1a7f37;font-weight:600}\
.stir{fill:#a35f00;font-weight:600}";

/// What is drawn.
#[derive(Clone, Debug, Default)]
pub struct Slide {
    /// Labels that are left out.
    pub hidden: BTreeSet<String>,
    /// The beginning, in seconds since the diagram's.
    pub from_s: Option<f64>,
    /// The end.
    pub to_s: Option<f64>,
}

/// The picture, and in words what is in it. The error is what is wrong with the wish.
pub fn svg(diagram: &Diagram, slide: &Slide) -> Result<(String, String), String> {
    let (from, to) = window(diagram, slide)?;
    let in_sight = |dot: &&Dot| dot.time_us >= from && dot.time_us <= to;
    let mut hidden = slide.hidden.clone();
    let count = |hidden: &BTreeSet<String>| {
        diagram.dots.iter().filter(in_sight).filter(|dot| !hidden.contains(&dot.label)).count()
    };
    let is_usual = hidden == HIDDEN.map(str::to_string).into();
    while is_usual && count(&hidden) > ROWS_MAX {
        let Some(label) = most_frequent(diagram.dots.iter().filter(in_sight), &hidden) else {
            break;
        };
        hidden.insert(label);
    }
    let all = count(&hidden);
    let shown = diagram.dots.iter().enumerate().filter(|(_, dot)| in_sight(dot));
    let shown = shown.filter(|(_, dot)| !hidden.contains(&dot.label)).take(ROWS_MAX);
    let rows: Vec<usize> = shown.map(|(at, _)| at).collect();
    if rows.is_empty() {
        return Err(
            "there is nothing to draw there; give another --from and --to, or --hide none".into()
        );
    }
    let since = |us: u64| (us - diagram.span_us.0) as f64 / 1e6;
    let mut what = format!("{} events, {:.3} s to {:.3} s,", rows.len(), since(from), since(to));
    let more: Vec<&str> = hidden.difference(&slide.hidden).map(String::as_str).collect();
    if !more.is_empty() {
        let _ = write!(what, " without {},", more.join(", "));
    }
    if all > rows.len() {
        let _ = write!(what, " of {all} (a slide holds {ROWS_MAX}: give --from, --to or --hide),");
    }
    Ok((Picture::new(diagram, rows).draw(), what))
}

/// From when to when, in microseconds: what was asked for, or a change of leaders.
fn window(diagram: &Diagram, slide: &Slide) -> Result<(u64, u64), String> {
    let (first, last) = diagram.span_us;
    let at = |seconds: f64| {
        let since = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_micros();
        first.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    };
    let (mut from, mut to) = (first, last);
    if slide.from_s.is_none() && slide.to_s.is_none() {
        let named = |what: &'static str| move |moment: &&Moment| moment.what == what;
        let mut moments = diagram.moments.iter();
        let fallen = moments.find(|moment| {
            matches!(moment.what, "crash" | "stop") && moment.text.contains("the leader")
        });
        let leader = match fallen {
            Some(_) => moments.find(named("leader")),
            None => diagram.moments.iter().find(named("leader")),
        };
        if let Some(leader) = leader {
            let begin = fallen.map_or(leader.time_us, |fallen| fallen.time_us);
            (from, to) = (
                begin.saturating_sub(AROUND_US).max(first),
                (leader.time_us + AROUND_US).min(last),
            );
        }
    }
    let from = slide.from_s.map_or(from, at);
    let to = slide.to_s.map_or(to, at);
    if from < to {
        return Ok((from, to));
    }
    Err(format!(
        "the slide would begin at {} s and end at {} s; the run lasts {:.1} s",
        (from - first) as f64 / 1e6,
        (to - first) as f64 / 1e6,
        (last - first) as f64 / 1e6
    ))
}

/// The most frequent kind of messages that is not hidden yet; those of elections come last. Changes of state are always shown.
fn most_frequent<'a>(
    dots: impl Iterator<Item = &'a Dot>,
    hidden: &BTreeSet<String>,
) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for dot in dots.filter(|dot| !hidden.contains(&dot.label)) {
        *counts.entry(&dot.label).or_default() += 1;
    }
    counts.retain(|label, _| !matches!(*label, "state" | "life"));
    let last = |label: &str| VOTES.contains(&label);
    let most = counts.into_iter().max_by_key(|(label, count)| (!last(label), *count));
    most.map(|(label, _)| label.to_string())
}

struct Picture<'a> {
    diagram: &'a Diagram,
    /// The dots, one a row.
    rows: Vec<usize>,
    /// The place of each process that is drawn.
    columns: BTreeMap<usize, f64>,
    row: f64,
    out: String,
}

impl<'a> Picture<'a> {
    fn new(diagram: &'a Diagram, rows: Vec<usize>) -> Self {
        let used: BTreeSet<usize> = rows.iter().map(|at| diagram.dots[*at].process).collect();
        let drawn: Vec<usize> = (0..diagram.processes.len())
            .filter(|process| !diagram.processes[*process].is_client || used.contains(process))
            .collect();
        let width = (WIDTH - LEFT - 20.0) / drawn.len() as f64;
        let place =
            |(index, process): (usize, usize)| (process, LEFT + width * (index as f64 + 0.5));
        let columns = drawn.into_iter().enumerate().map(place).collect();
        let row = ((HEIGHT - TOP - BOTTOM) / rows.len() as f64).min(ROW_MAX);
        Self { diagram, rows, columns, row, out: String::new() }
    }

    fn y(&self, row: f64) -> f64 {
        TOP + (row + 0.5) * self.row
    }

    /// Where the time `time_us` is: before the first event that is not earlier.
    fn y_at(&self, time_us: u64) -> f64 {
        let row = self.rows.partition_point(|at| self.diagram.dots[*at].time_us < time_us);
        self.y(row as f64)
    }

    // Writing to a string cannot fail.
    fn draw(mut self) -> String {
        let height = self.y(self.rows.len() as f64) + BOTTOM;
        let _ = writeln!(
            self.out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\
             <style>{STYLE}</style><defs><marker id=\"head\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" \
             markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#3b6fb5\"/>\
             </marker></defs><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
             <text class=\"title\" x=\"20\" y=\"32\">{}</text>",
            escaped(&self.diagram.title)
        );
        self.draw_lines();
        self.draw_arrows();
        for row in 0..self.rows.len() {
            self.draw_row(row);
        }
        self.out + "</svg>\n"
    }

    fn draw_lines(&mut self) {
        let (first, last) = (self.y(-1.4), self.y(self.rows.len() as f64 - 0.4));
        let width = self.columns.values().zip(self.columns.values().skip(1)).map(|(a, b)| b - a);
        let width = width.fold(WIDTH, f64::min);
        let mut out = String::new();
        for (process, x) in &self.columns {
            let process = &self.diagram.processes[*process];
            let name = fitting(&process.name, width);
            let _ = writeln!(
                out,
                "<text class=\"name\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                TOP - 22.0,
                escaped(&name)
            );
            for stretch in
                process.stretches.iter().filter(|stretch| stretch.to_us >= self.first_us())
            {
                let y1 = self.y_at(stretch.from_us).max(first);
                let y2 =
                    if stretch.to_us >= self.last_us() { last } else { self.y_at(stretch.to_us) };
                let y1 = if stretch.from_us < self.first_us() { first } else { y1 };
                if y2 > y1 {
                    let state = escaped(&stretch.state);
                    let _ = writeln!(
                        out,
                        "<line class=\"line {state}\" x1=\"{x:.1}\" y1=\"{y1:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>",
                        y2.min(last)
                    );
                }
            }
        }
        self.out += &out;
    }

    fn first_us(&self) -> u64 {
        self.rows.first().map_or(0, |at| self.diagram.dots[*at].time_us)
    }

    fn last_us(&self) -> u64 {
        self.rows.last().map_or(0, |at| self.diagram.dots[*at].time_us)
    }

    fn draw_arrows(&mut self) {
        let place: BTreeMap<usize, usize> =
            self.rows.iter().enumerate().map(|(row, at)| (*at, row)).collect();
        let mut out = String::new();
        for (from, to) in &self.diagram.arrows {
            let (Some(sent), Some(arrived)) = (place.get(from), place.get(to)) else { continue };
            let x1 = self.columns[&self.diagram.dots[*from].process];
            let x2 = self.columns[&self.diagram.dots[*to].process];
            let (y1, y2) = (self.y(*sent as f64), self.y(*arrived as f64));
            // The head ends at the edge of the dot.
            let end = x2 - 4.0 * (x2 - x1).signum();
            let _ = writeln!(
                out,
                "<line class=\"arrow\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{end:.1}\" y2=\"{y2:.1}\"/>"
            );
        }
        self.out += &out;
    }

    fn draw_row(&mut self, row: usize) {
        let dot = &self.diagram.dots[self.rows[row]];
        let (x, y) = (self.columns[&dot.process], self.y(row as f64));
        let seconds = (dot.time_us - self.diagram.span_us.0) as f64 / 1e6;
        let _ = writeln!(
            self.out,
            "<text class=\"time\" x=\"{}\" y=\"{:.1}\">{seconds:.6} s</text>",
            LEFT - 20.0,
            y + 4.0
        );
        if dot.kind == Kind::Crash {
            let _ = writeln!(
                self.out,
                "<path class=\"cross\" d=\"M{:.1} {:.1}l16 16m0 -16l-16 16\"/>",
                x - 8.0,
                y - 8.0
            );
        } else {
            let _ =
                writeln!(self.out, "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
        let (class, text) = label(dot);
        if text.is_empty() {
            return;
        }
        // To the right, or where there is more room.
        let (right, left) = (WIDTH - x - 24.0, x - LEFT - 12.0);
        let fits_right = text.chars().count() as f64 * CHAR < right || right >= left;
        let (at, anchor, room) =
            if fits_right { (x + 12.0, "start", right) } else { (x - 12.0, "end", left) };
        let _ = writeln!(
            self.out,
            "<text class=\"label {class}\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
            y - 1.0,
            escaped(&fitting(&text, room))
        );
    }
}

/// What stands beside an event. An arrival is told by the arrow's beginning.
fn label(dot: &Dot) -> (&'static str, String) {
    match dot.kind {
        Kind::Receive => ("", String::new()),
        Kind::Crash => ("bad", dot.say.clone()),
        Kind::State if dot.say.starts_with("leads") => ("good", dot.say.clone()),
        Kind::State if dot.say.starts_with("stands") => ("stir", dot.say.clone()),
        Kind::Send | Kind::Deliver | Kind::Ack if dot.say.is_empty() => ("", dot.label.clone()),
        Kind::Send | Kind::Deliver | Kind::Ack => ("", format!("{} {}", dot.label, dot.say)),
        _ => ("", dot.sentence()),
    }
}

/// As much of `text` as `room` pixels hold.
#[expect(clippy::cast_sign_loss, reason = "at least 2")]
fn fitting(text: &str, room: f64) -> String {
    let most = (room / CHAR).max(2.0) as usize;
    if text.chars().count() <= most {
        return text.into();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}
