//! Merging, drawing and exporting, on traces made by hand and on those of simulated clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::diagram::Diagram;
use super::event::{FORMAT, Kind, Run, TraceEvent};
use super::merge::{Merged, merge};
use super::page::page;
use super::read::{Traces, read_files, read_trace};
use super::shiviz::{PARSER, shiviz};
use super::svg::{ROWS_MAX, Slide, svg};
use crate::config::Design;
use crate::sim::{Faults, Options, run_seed};

/// The beginning of a life of a node, such as `n1.1-ab`.
fn start(life: &str, time_us: u64) -> TraceEvent {
    let node = life.split('.').next().unwrap();
    let run = Run {
        format: FORMAT,
        life: life.into(),
        cluster: "test".into(),
        design: "ring".into(),
        ..Run::default()
    };
    TraceEvent { n: 1, run: Some(run), ..TraceEvent::new(time_us, node, Kind::Start) }
}

/// The `n`-th event of `node`; frames are named.
fn event(node: &str, n: u64, time_us: u64, kind: Kind, frame: &str) -> TraceEvent {
    let frame = (!frame.is_empty()).then(|| frame.to_string());
    let message_type = frame.is_some().then(|| "CHAT".to_string());
    TraceEvent { n, frame, message_type, ..TraceEvent::new(time_us, node, kind) }
}

fn text(events: &[TraceEvent]) -> String {
    events.iter().map(|event| event.to_line() + "\n").collect()
}

/// Reads and merges files with these texts. The error is what a user would see.
fn merged(files: &[(&str, String)]) -> Result<Merged, String> {
    let mut traces = Traces::default();
    for (name, text) in files {
        read_trace(Path::new(name), text, &mut traces)
            .map_err(|problem| format!("{name}: {problem}"))?;
    }
    merge(traces).map_err(|error| error.to_string())
}

fn order(merged: &Merged) -> Vec<String> {
    merged.events.iter().map(|event| format!("{}:{}", event.node, event.n)).collect()
}

/// n1 sends to n2, which answers; the clock of n2 is `ahead_us` fast.
fn two_servers(ahead_us: i64) -> [(&'static str, String); 2] {
    let n2 = |at: u64| at.saturating_add_signed(ahead_us);
    [
        (
            "n1.jsonl",
            text(&[
                start("n1.1-aa", 9_000_000),
                event("n1", 2, 9_000_100, Kind::Send, "n1.1-aa:1"),
                event("n1", 3, 9_000_300, Kind::Receive, "n2.1-bb:1"),
                event("n1", 4, 9_900_000, Kind::Stop, ""),
            ]),
        ),
        (
            "n2.jsonl",
            text(&[
                start("n2.1-bb", n2(9_000_010)),
                event("n2", 2, n2(9_000_200), Kind::Receive, "n1.1-aa:1"),
                event("n2", 3, n2(9_000_200), Kind::Send, "n2.1-bb:1"),
                event("n2", 4, n2(9_900_001), Kind::Stop, ""),
            ]),
        ),
    ]
}

#[test]
fn causes_come_first_whatever_the_clocks_say() {
    let expected = ["n1:1", "n2:1", "n1:2", "n2:2", "n2:3", "n1:3", "n1:4", "n2:4"];
    for ahead_us in [0, 5_000_000, -5_000_000] {
        let merged = merged(&two_servers(ahead_us)).unwrap();
        assert_eq!(order(&merged), expected, "{ahead_us}");
        assert_eq!(merged.pairs, [(2, 3), (4, 5)]);
        assert!(merged.times_us.is_sorted(), "{:?}", merged.times_us);
        let took = merged.times_us[3] - merged.times_us[2];
        assert!((99..=101).contains(&took), "both ways take equally long: {took}");
        let skew = format!(
            "the clock of n2 is 5000.0 ms {} that of n1",
            if ahead_us > 0 { "ahead of" } else { "behind" }
        );
        assert_eq!(merged.notes.iter().any(|note| note.starts_with(&skew)), ahead_us != 0);
    }
}

#[test]
fn the_order_of_the_files_does_not_matter() {
    let [one, two] = two_servers(700);
    let there = merged(&[one.clone(), two.clone()]).unwrap();
    let back = merged(&[two, one]).unwrap();
    assert_eq!(there.events, back.events);
    assert_eq!(there.times_us, back.times_us);
}

#[test]
fn clocks_count_what_happened_before() {
    let mut clocks = Vec::new();
    merged(&two_servers(0)).unwrap().for_each_with_clock(|event| clocks.push(event.clock.clone()));
    let clock = |n1, n2| {
        let entries = [("n1".to_string(), n1), ("n2".to_string(), n2)];
        entries.into_iter().filter(|(_, count)| *count > 0).collect::<BTreeMap<String, u64>>()
    };
    let expected = [(1, 0), (0, 1), (2, 0), (2, 2), (2, 3), (3, 3), (4, 3), (2, 4)];
    assert_eq!(clocks, expected.map(|(n1, n2)| clock(n1, n2)));
}

#[test]
fn a_part_begins_with_how_the_servers_stand() {
    let state = |node: &str, n: u64, time_us: u64, state: &str| TraceEvent {
        state: state.into(),
        ..event(node, n, time_us, Kind::State, "")
    };
    let n1 = [
        start("n1.1-aa", 1_000),
        state("n1", 2, 1_100, "LEADER"),
        event("n1", 3, 2_000, Kind::Send, "n1.1-aa:1"),
        event("n1", 4, 3_000, Kind::Send, "n1.1-aa:2"),
    ];
    let n2 = [
        start("n2.1-bb", 1_000),
        state("n2", 2, 1_200, "FOLLOWER"),
        event("n2", 3, 2_500, Kind::Receive, "n1.1-aa:1"),
        event("n2", 4, 3_500, Kind::Receive, "n1.1-aa:2"),
        event("n2", 5, 4_500, Kind::Timer, ""),
    ];
    let whole = merged(&[("n1.jsonl", text(&n1)), ("n2.jsonl", text(&n2))]).unwrap();
    let part = whole.part(whole.place_at(2_300)..whole.place_at(4_000));
    assert_eq!(order(&part), ["n1:2", "n2:2", "n2:3", "n1:4", "n2:4"]);
    assert_eq!(part.times_us, [2_500, 2_500, 2_500, 3_000, 3_500]);
    assert_eq!(part.pairs, [(3, 4)], "what was sent before has no arrow");
    assert_eq!(part.notes, ["a part of the traces: 3 of 9 events"]);
    let diagram = Diagram::new(&part);
    assert_eq!(diagram.processes[0].stretches[0].state, "LEADER");
    let all = whole.part(0..whole.events.len());
    assert_eq!((order(&all), all.pairs, all.notes), (order(&whole), whole.pairs.clone(), vec![]));
}

#[test]
fn lives_whose_beginning_is_not_kept_may_have_been_heard() {
    let go_on = |continues: bool| {
        let mut n1 = start("n1.2-cc", 5_000_000);
        n1.run.as_mut().unwrap().continues = continues;
        n1.n = if continues { 70 } else { 1 };
        let n2 = [start("n2.1-bb", 1_000), event("n2", 2, 2_000, Kind::Receive, "n1.1-aa:1")];
        merged(&[("n1.jsonl", text(&[n1])), ("n2.jsonl", text(&n2))])
    };
    assert_eq!(go_on(true).unwrap().events.len(), 4, "with n2, which was killed");
    let error = go_on(false).unwrap_err();
    assert!(error.contains("n2.jsonl heard from n1.1-aa, a life of n1 that is not in"), "{error}");
}

#[test]
fn a_merged_trace_can_be_merged_again() {
    let once = merged(&two_servers(0)).unwrap();
    let mut lines = String::new();
    once.for_each_with_clock(|event| lines.push_str(&(event.to_line() + "\n")));
    let twice = merged(&[("all.jsonl", lines)]).unwrap();
    assert_eq!((order(&twice), twice.pairs), (order(&once), once.pairs));
}

#[test]
fn a_life_that_ends_without_a_word_was_killed() {
    let n2 = text(&[
        start("n2.1-bb", 1_000),
        event("n2", 2, 2_000, Kind::Timer, ""),
        start("n2.2-cc", 3_000_000),
        event("n2", 2, 3_100_000, Kind::Timer, ""),
    ]);
    let n1 = text(&[start("n1.1-aa", 500), event("n1", 2, 9_000_000, Kind::Stop, "")]);
    let merged = merged(&[("n1", n1), ("n2", n2)]).unwrap();
    let crashes: Vec<(u64, u64)> = (merged.events.iter().filter(|event| event.kind == Kind::Crash))
        .map(|event| (event.n, event.time_us))
        .collect();
    assert_eq!(crashes, [(3, 2_000), (3, 3_100_000)]);
    let diagram = Diagram::new(&merged);
    let states: Vec<&str> =
        diagram.processes[1].stretches.iter().map(|stretch| stretch.state.as_str()).collect();
    assert_eq!(states, ["LOOKING", "DOWN", "LOOKING", "DOWN"]);
}

#[test]
fn a_server_that_wrote_until_the_end_was_not_killed() {
    let n1 = text(&[start("n1.1-aa", 0), event("n1", 2, 1_000_000, Kind::Timer, "")]);
    let n2 = text(&[start("n2.1-bb", 0), event("n2", 2, 1_900_000, Kind::Timer, "")]);
    let merged = merged(&[("n1", n1), ("n2", n2)]).unwrap();
    assert!(merged.events.iter().all(|event| event.kind != Kind::Crash));
}

#[test]
fn a_contradiction_is_told_and_does_not_hang() {
    // Each receives from the other before it sends.
    let n1 = [
        start("n1.1-aa", 0),
        event("n1", 2, 10, Kind::Receive, "n2.1-bb:1"),
        event("n1", 3, 20, Kind::Send, "n1.1-aa:1"),
    ];
    let n2 = [
        start("n2.1-bb", 0),
        event("n2", 2, 10, Kind::Receive, "n1.1-aa:1"),
        event("n2", 3, 20, Kind::Send, "n2.1-bb:1"),
    ];
    let merged = merged(&[("a", text(&n1)), ("b", text(&n2))]).unwrap();
    assert_eq!(merged.events.len(), 6);
    assert!(merged.notes.iter().any(|note| note.contains("before they are sent")));
}

#[test]
fn a_last_line_that_is_cut_short_is_dropped_and_told() {
    let [(name, whole), two] = two_servers(0);
    let cut = whole[..whole.len() - 20].to_string();
    let merged = merged(&[(name, cut), two]).unwrap();
    assert_eq!(merged.events.iter().filter(|event| event.node == "n1").count(), 3);
    assert!(
        merged.notes.contains(&"n1.jsonl: the last line, 4, is cut short and was dropped".into()),
        "{:?}",
        merged.notes
    );
}

#[test]
fn a_line_that_a_killed_server_left_is_passed_over() {
    let first = text(&[start("n1.1-aa", 0)]) + "{\"time_us\":5,\"no\n";
    let merged = merged(&[("n1.jsonl", first + &text(&[start("n1.2-bb", 9)]))]).unwrap();
    assert!(
        merged.notes[0].contains("line 2 is cut short by the end of a life"),
        "{:?}",
        merged.notes
    );
}

#[test]
fn bad_input_is_refused_in_a_sentence() {
    let [one, two] = two_servers(0);
    let other = |life: &str, cluster: &str| {
        let mut first = start(life, 0);
        if let Some(run) = &mut first.run {
            run.cluster = cluster.into();
        }
        text(&[first])
    };
    let mut newer = start("n1.1-aa", 0);
    if let Some(run) = &mut newer.run {
        run.format = 9;
    }
    let lines: Vec<&str> = one.1.lines().collect();
    let gap = [lines[0], lines[2], ""].join("\n");
    let damaged = [lines[0], "{oops}", lines[1], ""].join("\n");
    let with_id = |life: &str, id: &str| {
        let stands = TraceEvent {
            n: 2,
            cluster_id: id.into(),
            ..TraceEvent::new(1, &life[..2], Kind::State)
        };
        text(&[start(life, 0), stands])
    };
    let table = [
        (vec![("a", String::new())], "a: is empty"),
        (vec![("a", "hello\nworld\n".into())], "a: is no trace"),
        (vec![("a", "hello".into())], "a: is no trace"),
        (vec![("a", "{\"level\":\"info\"}\n{}\n".into())], "a: is no trace"),
        (vec![("a", lines[1..].join("\n") + "\n")], "a: line 1: an event of n1 stands before"),
        (vec![("a", gap)], "a: line 2: event 3 of n1 follows 1: lines are missing"),
        (vec![("a", damaged)], "a: line 2 is damaged"),
        (
            vec![("a", text(&[newer]))],
            "a: line 1: the trace has format 9, this program reads format 1",
        ),
        (vec![one.clone(), one.clone()], "n1.1-aa is in n1.jsonl and in n1.jsonl"),
        (
            vec![one.clone(), ("x", other("n9.1-cc", "another"))],
            "traces of different runs: n1.jsonl is of the cluster \"test\" (design ring), x of \"another\"",
        ),
        (
            vec![one.clone(), ("n2-of-monday.jsonl", other("n2.1-99", "test"))],
            "traces of different runs: n1.jsonl heard from n2.1-bb, a life of n2 that is not in n2-of-monday.jsonl",
        ),
        (
            vec![("a", with_id("n1.1-aa", "17")), ("b", with_id("n2.1-aa", "18"))],
            "traces of different runs: the cluster of a has the id 17, that of b has 18",
        ),
    ];
    for (files, expected) in table {
        let problem = merged(&files).unwrap_err();
        assert!(problem.starts_with(expected), "{problem}\n expected: {expected}");
    }
    assert!(merged(&[one, two]).is_ok());
    let problem = read_files(&["/no/such/trace.jsonl".into()]).unwrap_err().to_string();
    assert!(problem.contains("/no/such/trace.jsonl: cannot read the trace"), "{problem}");
}

// ---------------------------------------------------------------- simulated clusters

fn options(design: Design) -> Options {
    let election = design.election();
    let faults = Faults { crash: true, cut: true, ..Faults::NONE };
    let lasts = Some(crate::sim::SECOND * 12);
    Options { design, election, nodes: Some(3), faults, lasts, traced: true, ..Options::default() }
}

/// The merged trace of a cluster that lost servers and messages.
fn simulated(design: Design) -> Merged {
    let report = run_seed(6, &options(design));
    assert_eq!(report.violation, None);
    merged(&[("sim", text(&report.traced))]).unwrap()
}

#[test]
fn a_seed_gives_one_trace_and_tracing_changes_nothing() {
    for design in Design::ALL {
        let (one, two) = (run_seed(4, &options(design)), run_seed(4, &options(design)));
        assert!(one.traced.len() > 500 && one.traced == two.traced, "{design}");
        let plain = run_seed(4, &Options { traced: false, ..options(design) });
        assert!(plain.traced.is_empty());
        assert_eq!((plain.events, plain.acked, plain.lasted), (one.events, one.acked, one.lasted));
        assert_eq!(plain.counters, one.counters);
    }
}

#[test]
fn what_arrives_was_sent_and_by_whom_the_line_says() {
    for design in Design::ALL {
        let merged = simulated(design);
        let received = merged.events.iter().filter(|event| event.kind == Kind::Receive);
        let named = received.filter(|event| event.frame.is_some()).count();
        assert_eq!(merged.pairs.len(), named, "{design}: every frame that arrived has its sending");
        assert!(named > 100, "{design}: {named}");
        for (sent, arrived) in &merged.pairs {
            let (from, to) = (&merged.events[*sent], &merged.events[*arrived]);
            assert!(sent < arrived && merged.times_us[*sent] <= merged.times_us[*arrived]);
            assert_eq!(to.peers, std::slice::from_ref(&from.node));
            assert_eq!((&from.message_type, &from.say), (&to.message_type, &to.say));
            assert!(from.peers.is_empty() || from.peers.contains(&to.node));
        }
        let kinds: BTreeSet<Kind> = merged.events.iter().map(|event| event.kind).collect();
        for kind in [
            Kind::Start,
            Kind::Send,
            Kind::Receive,
            Kind::Deliver,
            Kind::Ack,
            Kind::State,
            Kind::Timer,
            Kind::Sync,
            Kind::Crash,
        ] {
            assert!(kinds.contains(&kind), "{design}: no {kind:?}");
        }
    }
}

#[test]
fn an_acknowledged_message_can_be_followed_to_its_readers() {
    for design in Design::ALL {
        let merged = simulated(design);
        let diagram = Diagram::new(&merged);
        let at_clients = |kind, label: &str| -> BTreeSet<usize> {
            let there = |dot: &&super::diagram::Dot| {
                diagram.processes[dot.process].is_client && dot.kind == kind && dot.label == label
            };
            diagram.dots.iter().filter(there).flat_map(|dot| dot.about.clone()).collect()
        };
        let (written, shown) = (at_clients(Kind::Send, "CHAT"), at_clients(Kind::Receive, "CHAT"));
        let acked: BTreeSet<usize> =
            at_clients(Kind::Receive, "ACK").intersection(&written).copied().collect();
        assert!(acked.len() > 5, "{design}: {}", acked.len());
        assert!(
            acked.is_subset(&shown),
            "{design}: own words are shown before they are acknowledged"
        );
        assert!(diagram.dots.is_sorted_by_key(|dot| dot.time_us), "{design}");
        assert!(diagram.arrows.iter().all(|(from, to)| from < to), "{design}");
        assert!(diagram.moments.iter().any(|moment| moment.what == "crash"), "{design}");
        assert!(diagram.moments.iter().any(|moment| moment.what == "leader"), "{design}");
    }
}

#[test]
fn the_story_tells_once_of_many_who_do_the_same() {
    let story = |count: u64| -> Vec<String> {
        let events = (1..=count).map(|number| {
            let node = format!("n{number}");
            let mut stands = event(&node, 2, 500 + number, Kind::State, "");
            (stands.state, stands.say) =
                ("ELECTION_IN_PROGRESS".into(), "stands for election".into());
            let last = event(&node, 3, 9_000_000, Kind::Stop, "");
            let mut begins = start(&format!("{node}.1-aa"), number);
            begins.say = format!("starts as {node}.1-aa");
            (node.clone(), text(&[begins, stands, last]))
        });
        let files: Vec<(String, String)> = events.collect();
        let files: Vec<(&str, String)> =
            files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
        let diagram = Diagram::new(&merged(&files).unwrap());
        diagram.moments.into_iter().map(|moment| moment.text).collect()
    };
    assert_eq!(story(1)[..2], ["n1 starts as n1.1-aa", "n1 stands for election"]);
    assert_eq!(story(3)[..2], ["n1, n2 and n3 start", "n1, n2 and n3 stand for election"]);
    assert_eq!(story(10)[..2], ["10 servers start", "10 servers stand for election"]);
    assert_eq!(story(10).len(), 12, "each of them stops for itself");
}

/// Checks a log as ShiViz does. Returns how many events it has.
fn check_shiviz(log: &str) -> usize {
    let mut lines = log.lines();
    assert_eq!(lines.next(), Some(PARSER));
    assert_eq!(lines.next(), Some(""));
    let rest: Vec<&str> = lines.collect();
    assert!(rest.len().is_multiple_of(2));
    let mut own: BTreeMap<String, u64> = BTreeMap::new();
    let mut clocks: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for pair in rest.chunks(2) {
        assert!(!pair[0].trim().is_empty(), "an event without words");
        let (host, clock) = pair[1].split_once(' ').expect("a host, a space, a clock");
        let clock: BTreeMap<String, u64> = serde_json::from_str(clock).unwrap();
        let count = own.entry(host.into()).or_default();
        *count += 1;
        assert_eq!(clock[host], *count, "the own entry of {host} counts 1, 2, 3, …");
        let before = clocks.entry(host.into()).or_default();
        assert!(before.iter().all(|(other, n)| clock[other] >= *n), "a clock never goes back");
        // Nobody knows of events that are not in the log yet.
        assert!(clock.iter().all(|(other, n)| *n <= own[other]));
        *before = clock;
    }
    rest.len() / 2
}

#[test]
fn shiviz_reads_the_log() {
    for design in Design::ALL {
        let diagram = Diagram::new(&simulated(design));
        assert_eq!(check_shiviz(&shiviz(&diagram, &BTreeSet::new())), diagram.dots.len());
        let hidden = BTreeSet::from(["HEARTBEAT".to_string(), "timer".to_string()]);
        let shown = diagram.dots.iter().filter(|dot| !hidden.contains(&dot.label)).count();
        assert!(shown < diagram.dots.len());
        assert_eq!(check_shiviz(&shiviz(&diagram, &hidden)), shown);
    }
}

#[test]
fn names_with_spaces_are_hosts_without() {
    let mut join = event("n1", 2, 5, Kind::Receive, "");
    (join.clients, join.message_type) = (vec!["old n1".into()], Some("CHAT".into()));
    let merged = merged(&[("a", text(&[start("n1.1-aa", 0), join]))]).unwrap();
    let log = shiviz(&Diagram::new(&merged), &BTreeSet::new());
    assert_eq!(check_shiviz(&log), 3);
    assert!(log.contains("\nold_n1 {"), "{log}");
}

// ---------------------------------------------------------------- pictures

/// A message whose text would break out of a page that does not take care.
fn hostile() -> Diagram {
    let mut chat = event("n1", 2, 5, Kind::Receive, "");
    chat.clients = vec!["<b>eve</b>".into()];
    (chat.message_type, chat.say) =
        (Some("CHAT".into()), "</script><img src=x onerror=alert(1)>{{script}}".into());
    Diagram::new(&merged(&[("a", text(&[start("n1.1-aa", 0), chat]))]).unwrap())
}

#[test]
fn a_page_is_one_file_and_texts_of_users_are_no_markup() {
    let page = page(&hostile());
    assert!(!page.contains("<img") && !page.contains("<b>"), "markup of a user");
    assert_eq!(page.matches("</script>").count(), 2, "the data and the script");
    assert!(page.contains("\\u003c/script>\\u003cimg"), "it is there all the same");
    for fetched in ["http://", "https://", "src=\"", "href=\"", "@import", "url("] {
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(fetched), "{fetched}");
    }
}

#[test]
fn a_slide_is_bounded_and_has_a_row_for_each_event() {
    for design in Design::ALL {
        let diagram = Diagram::new(&simulated(design));
        let hidden = super::page::HIDDEN.map(str::to_string).into();
        let (picture, what) = svg(&diagram, &Slide { hidden, ..Slide::default() }).unwrap();
        let rows = picture.matches("class=\"time\"").count();
        assert!((5..=ROWS_MAX).contains(&rows), "{design}: {what}");
        let ys: BTreeSet<&str> = picture
            .split("class=\"time\"")
            .skip(1)
            .filter_map(|part| part.split("y=\"").nth(1)?.split('"').next())
            .collect();
        assert_eq!(ys.len(), rows, "no two labels share a row");
    }
    let (picture, _) = svg(&hostile(), &Slide::default()).unwrap();
    assert!(!picture.contains("<img") && picture.contains("&lt;img"), "{picture}");
    let wrong = Slide { from_s: Some(5.0), to_s: Some(1.0), ..Slide::default() };
    assert!(svg(&hostile(), &wrong).unwrap_err().contains("begin at 5 s and end at 1 s"));
}
