//! Views, and what can be checked of one while its session's acts are gone through.

use std::collections::BTreeMap;

use super::super::agenda::Micros;
use super::super::history::{Act, SessionHistory};
use super::texts::{Text, Texts, Written};
use super::{Checked, Promise, Violation};

/// One stay of one session in one room.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) session: &'a SessionHistory,
    pub(super) room: &'a str,
    /// Whether it asked for everything.
    all: bool,
    joined_at: Option<Micros>,
    /// Whether it lasted to the end.
    pub(super) open: bool,
    pub(super) gap: bool,
    /// It was told that nothing up to this place is kept.
    pub(super) starts: u64,
    /// What was shown, in order.
    pub(super) shown: Vec<Text>,
    /// For each message: as the how manyth it was shown, from 1; 0 for never.
    places: Vec<u32>,
    /// For each message: whether a server sent it.
    got: Vec<bool>,
}

impl View<'_> {
    /// The session.
    pub(super) fn name(&self) -> &str {
        &self.session.session
    }

    /// As the how manyth `text` was shown.
    pub(super) fn place_of(&self, text: Text) -> Option<u32> {
        Some(self.places[text]).filter(|place| *place > 0)
    }

    /// Whether the view has to contain `message`.
    pub(super) fn must_have(&self, message: &Written) -> bool {
        let came_before = self.joined_at.is_some_and(|joined| message.at > joined);
        (self.all || came_before) && !message.is_forgotten(self.starts)
    }
}

/// The views of one session, with what can be checked in passing.
pub(super) fn views_of<'a>(
    session: &'a SessionHistory,
    texts: &Texts,
    promise: Promise,
) -> Result<Vec<View<'a>>, Violation> {
    let mut views =
        Views { session, texts, done: Vec::new(), open: BTreeMap::new(), here: BTreeMap::new() };
    for (at, act) in &session.acts {
        match act {
            Act::Entered { room, all } => views.enter(room, *all),
            Act::Joined { room, .. } => {
                if let Some(view) = views.open.get_mut(room.as_str()) {
                    view.joined_at.get_or_insert(*at);
                }
            }
            Act::Left { room } => views.leave(room),
            Act::Wrote { room, text } => {
                if views.open.contains_key(room.as_str()) {
                    views.here.insert(text, room);
                }
            }
            Act::Got { room, text } => views.got(room, text)?,
            Act::Shown { room, text, sender } => views.shown(room, text, sender)?,
            Act::Acked { text } => views.acked(text)?,
            Act::Gap { room } => views.gap(room, promise)?,
            Act::Starts { room, after } => views.starts(room, *after),
            Act::Refused { text, code } => views.refused(text, code)?,
            Act::Ended { reason } => check_end(session, reason, promise)?,
            Act::Asked { .. } | Act::Quit => {}
        }
    }
    views.done.extend(views.open.into_values());
    Ok(views.done)
}

/// The views of one session, while its acts are gone through.
struct Views<'a, 't> {
    session: &'a SessionHistory,
    texts: &'t Texts<'t>,
    done: Vec<View<'a>>,
    open: BTreeMap<&'a str, View<'a>>,
    /// Which of the session's messages were written in a view that is still open, and where.
    here: BTreeMap<&'a str, &'a str>,
}

impl<'a> Views<'a, '_> {
    fn enter(&mut self, room: &'a str, all: bool) {
        let view = View {
            session: self.session,
            room,
            all,
            joined_at: None,
            open: self.session.stays(),
            gap: false,
            starts: 0,
            shown: Vec::new(),
            places: vec![0; self.texts.len()],
            got: vec![false; self.texts.len()],
        };
        self.open.insert(room, view);
    }

    fn leave(&mut self, room: &str) {
        self.here.retain(|_, of| *of != room);
        let left = self.open.remove(room);
        self.done.extend(left.map(|view| View { open: false, ..view }));
    }

    fn got(&mut self, room: &str, text: &str) -> Checked {
        let Some(view) = self.open.get_mut(room) else { return Ok(()) };
        let Some(number) = self.texts.number(text) else {
            return Err(invented(self.session, room, text, "somebody", None));
        };
        if !std::mem::replace(&mut view.got[number], true) || view.gap {
            return Ok(());
        }
        let name = &self.session.session;
        let detail = format!("{name} was sent {text} twice in {room}");
        Err(Violation::new("twice", detail, &[text, name]))
    }

    fn shown(&mut self, room: &str, text: &str, sender: &str) -> Checked {
        let Some(number) = self.texts.number(text) else {
            return Err(invented(self.session, room, text, sender, None));
        };
        let message = &self.texts[number];
        if message.room != room || message.user != sender {
            return Err(invented(self.session, room, text, sender, Some(message)));
        }
        let Some(view) = self.open.get_mut(room) else { return Ok(()) };
        view.shown.push(number);
        let place = u32::try_from(view.shown.len()).unwrap_or(u32::MAX);
        if std::mem::replace(&mut view.places[number], place) == 0 || view.gap {
            return Ok(());
        }
        let name = &self.session.session;
        let detail = format!("{name} was shown {text} twice in {room}");
        Err(Violation::new("twice", detail, &[text, name]))
    }

    fn acked(&self, text: &str) -> Checked {
        let view = self.here.get(text).and_then(|room| self.open.get(room));
        let number = self.texts.number(text);
        let is_shown = |view: &View| number.is_some_and(|number| view.place_of(number).is_some());
        if view.is_none_or(|view| view.gap || is_shown(view)) {
            return Ok(());
        }
        let name = &self.session.session;
        let detail = format!("{text} was acknowledged before {name} was shown it");
        Err(Violation::new("own words", detail, &[text, name]))
    }

    fn gap(&mut self, room: &str, promise: Promise) -> Checked {
        if promise.shown_survives {
            let name = &self.session.session;
            let detail = format!("{name} was asked to accept a gap in {room}");
            return Err(Violation::new("gap", detail, &[name]));
        }
        if let Some(view) = self.open.get_mut(room) {
            view.gap = true;
        }
        Ok(())
    }

    fn starts(&mut self, room: &str, after: u64) {
        let Some(view) = self.open.get_mut(room) else { return };
        view.starts = view.starts.max(after);
        // What was on the way may be among it, and is then acknowledged all the same.
        self.here.retain(|_, of| *of != room);
    }

    fn refused(&self, text: &str, code: &str) -> Checked {
        if !self.here.contains_key(text) {
            return Ok(());
        }
        let name = &self.session.session;
        let detail = format!("{text} of {name}, who is in the room, was refused: {code}");
        Err(Violation::new("refused", detail, &[text, name]))
    }
}

fn check_end(session: &SessionHistory, reason: &str, promise: Promise) -> Checked {
    // Of two sessions under one name, of which a server that slept knew only one, one has to go.
    if !promise.whole || reason.contains("is in use") {
        return Ok(());
    }
    let name = &session.session;
    Err(Violation::new("ended", format!("the cluster ended {name}: {reason}"), &[name]))
}

fn invented(
    session: &SessionHistory,
    room: &str,
    text: &str,
    sender: &str,
    known: Option<&Written>,
) -> Violation {
    let name = session.session.as_str();
    let detail = match known {
        None => format!("{name} was shown {text}, which nobody wrote"),
        Some(Written { user, room: other, .. }) => {
            format!("{name} was shown {text} of {sender} in {room}, but {user} wrote it in {other}")
        }
    };
    Violation::new("invented", detail, &[text, name])
}
