//! What members of a room did and saw at real clients, brought before the simulator's [`checker`]: the rules stand there, once.
//!
//! Each member keeps a log in the order in which things happened to it. All are there from the first message to the last,
//! so that each of them must have been shown everything, like a reader who comes in the end.

use std::collections::BTreeMap;

use roundtable::sim::Micros;
use roundtable::sim::checker::{Order, Promise, check, check_answered};
use roundtable::sim::history::{Act, History, SessionHistory};

/// The room that all are in.
const ROOM: &str = "the room";

/// One thing that happened to a member. Messages are named by a text that is used once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It wrote a message; a second time means that it sent it again.
    Wrote(String),
    /// It was shown a message.
    Shown(String),
    /// Its message was acknowledged.
    Acked(String),
}

/// What happened to one member, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberLog {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

/// What is wrong with what `members` saw; empty when the promise was kept, with messages in `order`.
pub(crate) fn complaints(members: &[MemberLog], order: Order) -> Vec<String> {
    let history = history_of(members);
    let promise = Promise { order, shown_survives: true, whole: true, linearizable: false };
    let broken = [check(&history, promise).err(), check_answered(&history).err()];
    let tell = |broken: roundtable::sim::checker::Violation| {
        format!("{}: {}", broken.invariant, broken.detail)
    };
    broken.into_iter().flatten().map(tell).collect()
}

fn history_of(members: &[MemberLog]) -> History {
    let mut writers: BTreeMap<&str, &str> = BTreeMap::new();
    for MemberLog { name, steps } in members {
        for step in steps {
            if let Step::Wrote(text) = step {
                writers.insert(text, name);
            }
        }
    }
    let mut history = History::default();
    for MemberLog { name, steps } in members {
        let mut member = Scribe::new(name, &writers);
        let mut reader = Scribe::new(&format!("{name}, who reads"), &writers);
        for step in steps {
            member.note(step);
            if matches!(step, Step::Shown(_)) {
                reader.note(step);
            }
        }
        history.sessions.push(member.record);
        history.readers.push(reader.record);
    }
    history
}

/// Writes down a log as the checker reads it. The number of an act is its time.
struct Scribe<'a> {
    record: SessionHistory,
    writers: &'a BTreeMap<&'a str, &'a str>,
}

impl<'a> Scribe<'a> {
    /// Of someone who comes in before anything is said.
    fn new(name: &str, writers: &'a BTreeMap<&str, &str>) -> Self {
        let record = SessionHistory { session: name.into(), user: name.into(), acts: Vec::new() };
        let mut scribe = Self { record, writers };
        scribe.write(Act::Entered { room: ROOM.into(), all: true });
        scribe.write(Act::Joined { room: ROOM.into(), history: 0 });
        scribe
    }

    fn write(&mut self, act: Act) {
        self.record.acts.push((self.record.acts.len() as Micros, act));
    }

    fn note(&mut self, step: &Step) {
        let room = ROOM.to_string();
        match step.clone() {
            Step::Wrote(text) => self.write(Act::Wrote { room, text }),
            Step::Acked(text) => self.write(Act::Acked { text }),
            Step::Shown(text) => {
                let sender = self.writers.get(text.as_str()).copied().unwrap_or("nobody").into();
                self.write(Act::Got { room: room.clone(), text: text.clone() });
                self.write(Act::Shown { room, text, sender });
            }
        }
    }
}
