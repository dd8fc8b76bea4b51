//! Causes before effects: in a view every message comes after all that its writer knew of the room when writing it.

use std::collections::{BTreeMap, BTreeSet};

use super::super::agenda::Micros;
use super::super::history::{Act, History, SessionHistory};
use super::texts::{Text, Texts, Written};
use super::view::View;
use super::{Checked, Promise, Violation};

/// What matters of a writer's act in one room.
#[derive(Clone, Copy, Debug)]
enum Knew {
    /// It was shown a message.
    Shown(Text),
    /// It wrote one.
    Wrote(Text, Micros),
    /// It came in anew, without the position of its last stay.
    Entered,
}

/// Checks all views against all writers.
pub(super) fn check(views: &[View], history: &History, texts: &Texts, promise: Promise) -> Checked {
    let mut writers: BTreeMap<&str, Vec<Vec<Knew>>> = BTreeMap::new();
    for session in &history.sessions {
        for (room, knew) in writings(session, texts, promise) {
            writers.entry(room).or_default().push(knew);
        }
    }
    for view in views {
        for writer in writers.get(view.room).into_iter().flatten() {
            check_writer(view, writer, texts, promise)?;
        }
    }
    Ok(())
}

/// What a session knew and wrote, by room; only rooms in which it wrote something.
fn writings<'a>(
    session: &'a SessionHistory,
    texts: &Texts,
    promise: Promise,
) -> BTreeMap<&'a str, Vec<Knew>> {
    let mut rooms: BTreeMap<&str, Vec<Knew>> = BTreeMap::new();
    // What is written once more keeps the moment of the first time.
    let mut wrote = BTreeSet::new();
    for (at, act) in &session.acts {
        let (room, knew) = match act {
            // A position is forgotten with the view. While the network is whole the next server has it all the same.
            Act::Entered { room, .. } if !promise.whole => (room, Some(Knew::Entered)),
            Act::Shown { room, text, .. } => (room, texts.number(text).map(Knew::Shown)),
            Act::Wrote { room, text } if wrote.insert(text) => {
                (room, texts.number(text).map(|number| Knew::Wrote(number, *at)))
            }
            _ => continue,
        };
        rooms.entry(room).or_default().extend(knew);
    }
    rooms.retain(|_, knew| knew.iter().any(|knew| matches!(knew, Knew::Wrote(..))));
    for (_, act) in &session.acts {
        if let Act::Gap { room } = act {
            // Who accepted a gap had been shown what was lost, and may have come again later.
            rooms.remove(room.as_str());
        }
    }
    rooms
}

fn check_writer(view: &View, writer: &[Knew], texts: &Texts, promise: Promise) -> Checked {
    let mut past = Past::default();
    for knew in writer {
        match *knew {
            Knew::Entered => past = Past::default(),
            Knew::Shown(text) => past.fresh.push(text),
            Knew::Wrote(text, at) => {
                past.take_fresh(view, texts, |message| {
                    // What one server alone had shown may be lost and come again until it is on its disk.
                    promise.shown_survives || message.acked_at.is_some_and(|acked| acked < at)
                });
                past.check(view, text, texts)?;
                past.latest = past.latest.max(view.place_of(text).map(|place| (place, text)));
            }
        }
    }
    Ok(())
}

/// What one writer knew of one room, compared with a view of it.
#[derive(Default)]
struct Past {
    /// Shown, and not compared yet.
    fresh: Vec<Text>,
    /// What of it stands last in the view, and where.
    latest: Option<(u32, Text)>,
    /// Something of it that the view should have and has not.
    lacking: Option<Text>,
}

impl Past {
    /// Compares what was shown since the last time, as far as it `counts`.
    fn take_fresh(&mut self, view: &View, texts: &Texts, counts: impl Fn(&Written) -> bool) {
        let Self { fresh, latest, lacking } = self;
        fresh.retain(|text| {
            let message = &texts[*text];
            if !counts(message) {
                return true;
            }
            match view.place_of(*text) {
                Some(place) => *latest = (*latest).max(Some((place, *text))),
                None if !view.gap && view.must_have(message) => {
                    *lacking = lacking.or(Some(*text));
                }
                None => {}
            }
            false
        });
    }

    /// `text` is written now: in the view it has to stand behind all that.
    fn check(&self, view: &View, text: Text, texts: &Texts) -> Checked {
        let Some(place) = view.place_of(text) else { return Ok(()) };
        let (name, room, text) = (view.name(), view.room, texts[text].text);
        if let Some((_, past)) = self.latest.filter(|(past, _)| *past > place) {
            let past = texts[past].text;
            let detail = format!(
                "{name} was shown {text} before {past} in {room}; its writer knew {past} first"
            );
            return Err(Violation::new("causal", detail, &[text, past]));
        }
        let Some(past) = self.lacking else { return Ok(()) };
        let past = texts[past].text;
        let detail =
            format!("{name} was shown {text} and never {past} in {room}; its writer knew {past}");
        Err(Violation::new("causal", detail, &[text, past]))
    }
}
