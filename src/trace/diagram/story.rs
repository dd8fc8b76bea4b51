//! What happened, in short: the moments of a run. Many servers that do the same at once are one moment.

use std::collections::BTreeSet;

use super::{Drawer, Moment, Stretch, milliseconds};
use crate::domain::ids::natural_cmp;
use crate::trace::event::{Kind, TraceEvent};

/// Servers that do the same within so long, and nothing else happened between, are told of together.
const CROWD_US: u64 = 1_000_000;
/// So many of them by name.
const NAMES_MAX: usize = 4;

impl Drawer<'_> {
    /// Adds what anybody should know of an event.
    pub(super) fn tell(&mut self, event: &TraceEvent, time_us: u64, process: usize) {
        let name = &event.node;
        let was = self.diagram.processes[process].stretches.last();
        let led = was.is_some_and(|stretch| stretch.state == "LEADER");
        let as_leader = if led { ", the leader," } else { "" };
        let (what, text) = match event.kind {
            Kind::Crash => ("crash", format!("{name}{as_leader} {}", ended(&event.say))),
            Kind::Stop => ("stop", format!("{name}{as_leader} stops")),
            Kind::Pause => ("pause", format!("{name}{as_leader} {}", event.say)),
            Kind::Wake => ("pause", format!("{name} {}", event.say)),
            Kind::Start => ("start", format!("{name} {}", event.say)),
            Kind::Lost => ("lost", format!("{} events of {name} are missing", event.lost)),
            Kind::Cut | Kind::Heal => return self.tell_cut(event, time_us, process),
            Kind::State if event.state == "ELECTION_IN_PROGRESS" && was_not(was, &event.state) => {
                ("election", format!("{name} stands for election"))
            }
            Kind::State if event.state == "LEADER" && was_not(was, &event.state) => {
                let since = self.leaderless.take().map_or_else(String::new, |(at, who)| {
                    format!(", {} after {who}", milliseconds(time_us.saturating_sub(at)))
                });
                ("leader", format!("{name} leads in term {}{since}", event.term))
            }
            _ => return,
        };
        if led && matches!(event.kind, Kind::Crash | Kind::Stop | Kind::Pause) {
            let how = match event.kind {
                Kind::Crash => "died",
                Kind::Stop => "stopped",
                _ => "fell asleep",
            };
            self.leaderless = Some((time_us, format!("{name} {how}")));
        }
        if matches!(what, "start" | "election") && self.join_crowd(name, time_us, what) {
            return;
        }
        self.diagram.moments.push(Moment { time_us, process, what, text });
    }

    /// Many servers that start, or stand for election, are one moment: `n1, n2 and n3 start`.
    fn join_crowd(&mut self, name: &str, time_us: u64, what: &str) -> bool {
        let last = self.diagram.moments.last_mut();
        let last = last
            .filter(|last| last.what == what && time_us.saturating_sub(last.time_us) < CROWD_US);
        let Some(last) = last else {
            self.crowd = BTreeSet::from([name.to_string()]);
            return false;
        };
        self.crowd.insert(name.to_string());
        if self.crowd.len() > 1 {
            let verb = if what == "start" { "start" } else { "stand for election" };
            last.text = format!("{} {verb}", several(&self.crowd));
        }
        true
    }

    /// Cuts of one moment are one moment.
    fn tell_cut(&mut self, event: &TraceEvent, time_us: u64, process: usize) {
        let way = format!("{} → {}", event.node, event.peers.join(" "));
        let verb = if event.kind == Kind::Cut { "cut" } else { "whole again" };
        if let Some(moment) = self.cuts.and_then(|at| self.diagram.moments.get_mut(at))
            && moment.time_us == time_us
            && moment.text.starts_with(verb)
        {
            if moment.text.len() < 80 {
                moment.text = format!("{}, {way}", moment.text);
            } else if !moment.text.ends_with('…') {
                moment.text.push_str(", …");
            }
            return;
        }
        self.cuts = Some(self.diagram.moments.len());
        let text = format!("{verb}: {way}");
        self.diagram.moments.push(Moment { time_us, process, what: "cut", text });
    }
}

fn was_not(stretch: Option<&Stretch>, state: &str) -> bool {
    stretch.is_none_or(|stretch| stretch.state != state)
}

/// How a life ended, after the name; by what it is known stands at the event itself.
fn ended(say: &str) -> String {
    if say.starts_with("crashes") {
        return say.into();
    }
    format!("is {}", say.split(':').next().unwrap_or_default())
}

/// Few names, or how many there are.
fn several(names: &BTreeSet<String>) -> String {
    if names.len() > NAMES_MAX {
        return format!("{} servers", names.len());
    }
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_by(|a, b| natural_cmp(a, b));
    let last = names.pop().unwrap_or_default();
    format!("{} and {last}", names.join(", "))
}
