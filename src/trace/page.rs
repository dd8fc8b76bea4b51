//! A diagram as one HTML page that needs nothing else: style, script and data are in it, and it may fetch nothing.
//!
//! The script (`page/model.js`, `drawing.js`, `page.js`) draws on a canvas, only what is in sight. The data is columns of numbers with indices into
//! lists of words, so that 100,000 events are about ten megabytes.
//!
//! Texts of users are in it. They go into the page inside one JSON text in which every `<` is written `\u003c`, and from
//! there only into texts of elements, never into markup.

use std::collections::BTreeMap;

use serde::Serialize;

use super::diagram::{Diagram, EMPTY_APPEND, Moment, Process};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
/// One script in three rooms, in the order in which they are read.
const SCRIPT: &str = concat!(
    include_str!("page/model.js"),
    include_str!("page/drawing.js"),
    include_str!("page/page.js"),
);
/// Marks of places in the page, in the order in which they stand there.
const PLACES: [&str; 4] = ["{{title}}", "{{style}}", "{{data}}", "{{script}}"];

/// What is hidden until somebody asks for it.
pub const HIDDEN: [&str; 3] = ["HEARTBEAT", EMPTY_APPEND, "timer"];

/// What the script is given. Times are microseconds since `start_us`.
#[derive(Serialize)]
struct Data<'a> {
    title: &'a str,
    notes: &'a [String],
    start_us: u64,
    end: u64,
    hidden: [&'a str; 3],
    processes: Vec<Line<'a>>,
    labels: Vec<&'a str>,
    kinds: Vec<String>,
    keys: &'a [String],
    events: Columns<'a>,
    /// Sent and received, in pairs.
    arrows: Vec<usize>,
    /// Sent, and the line where it never arrived, in pairs.
    lost: Vec<usize>,
    story: Vec<Told<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    client: bool,
    stretches: Vec<(u64, u64, &'a str)>,
}

#[derive(Default, Serialize)]
struct Columns<'a> {
    time: Vec<u64>,
    process: Vec<usize>,
    kind: Vec<usize>,
    label: Vec<usize>,
    others: Vec<&'a str>,
    say: Vec<&'a str>,
    details: Vec<&'a str>,
    about: BTreeMap<usize, &'a [usize]>,
}

#[derive(Serialize)]
struct Told<'a> {
    time: u64,
    process: usize,
    what: &'a str,
    text: &'a str,
}

/// The page of `diagram`.
pub fn page(diagram: &Diagram) -> String {
    let title = format!("{} - Roundtable", diagram.title);
    let texts = [escaped(&title), STYLE.to_string(), data(diagram), SCRIPT.to_string()];
    let mut page = String::new();
    let mut rest = PAGE;
    for (place, text) in PLACES.iter().zip(texts) {
        // Each stands in the page once, in this order; a test makes a page.
        let (before, after) = rest.split_once(place).expect("a place in the page");
        page.push_str(before);
        page.push_str(&text);
        rest = after;
    }
    page + rest
}

/// `text`, fit for the text of an element.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn data(diagram: &Diagram) -> String {
    let start_us = diagram.span_us.0;
    let mut labels: Vec<&str> = Vec::new();
    let mut kinds: Vec<String> = Vec::new();
    let mut events = Columns::default();
    for (index, dot) in diagram.dots.iter().enumerate() {
        events.time.push(dot.time_us - start_us);
        events.process.push(dot.process);
        events.kind.push(place_in(&mut kinds, format!("{:?}", dot.kind).to_lowercase()));
        events.label.push(place_in(&mut labels, dot.label.as_str()));
        events.others.push(&dot.others);
        events.say.push(&dot.say);
        events.details.push(&dot.details);
        if !dot.about.is_empty() {
            events.about.insert(index, &dot.about);
        }
    }
    let line = |process: &'_ Process| -> Vec<(u64, u64, String)> {
        let shifted = process.stretches.iter().map(|stretch| {
            (stretch.from_us - start_us, stretch.to_us - start_us, stretch.state.clone())
        });
        shifted.collect()
    };
    let stretches: Vec<Vec<(u64, u64, String)>> = diagram.processes.iter().map(line).collect();
    let processes = diagram.processes.iter().zip(&stretches).map(|(process, stretches)| Line {
        name: &process.name,
        client: process.is_client,
        stretches: stretches.iter().map(|(from, to, state)| (*from, *to, state.as_str())).collect(),
    });
    let story = diagram.moments.iter().map(|moment: &Moment| Told {
        time: moment.time_us - start_us,
        process: moment.process,
        what: moment.what,
        text: &moment.text,
    });
    let data = Data {
        title: &diagram.title,
        notes: &diagram.notes,
        start_us,
        end: diagram.span_us.1 - start_us,
        hidden: HIDDEN,
        processes: processes.collect(),
        labels,
        kinds,
        keys: &diagram.keys,
        events,
        arrows: diagram.arrows.iter().flat_map(|(from, to)| [*from, *to]).collect(),
        lost: diagram.lost.iter().flat_map(|(from, to)| [*from, *to]).collect(),
        story: story.collect(),
    };
    // Strings and numbers only.
    serde_json::to_string(&data).expect("a diagram serialises").replace('<', "\\u003c")
}

/// Where `word` is in `words`, behind them if it is new.
fn place_in<T: PartialEq>(words: &mut Vec<T>, word: T) -> usize {
    words.iter().position(|known| *known == word).unwrap_or_else(|| {
        words.push(word);
        words.len() - 1
    })
}
