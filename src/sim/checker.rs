//! Judges a run by what its users saw. It knows nothing of servers.
//!
//! A *view* is one stay of one session in one room, across reconnects: from entering to leaving. The checks:
//!
//! * **invented**: whatever is shown was written, by that user, in that room;
//! * **twice**: in one view nothing is shown twice, nor sent twice by the servers (unless the view accepted a gap: what
//!   was shown, lost unacknowledged and written again comes again);
//! * **causal**: in one view nothing is shown before what its writer had been shown, or had written, before writing
//!   it (that contains the order of each session), nor without it;
//! * **own words**: what is acknowledged has been shown to its writer before;
//! * **lost**: what was acknowledged is in the end shown to every fresh reader;
//! * **unseen**: what was shown to anybody is, too (while servers fail one at a time);
//! * **equal**: in the end all fresh readers are shown the same set;
//! * **missing**: in the end each view contains all that was written since it began (since ever, if it asked for everything);
//! * **refused**, **gap**, **ended**: nobody in a room is refused there, asked to accept a gap, or thrown out.
//!
//! Resuming without gap or repeat, reading one's own writes and reading monotonically across a reconnect all follow from
//! *twice*, *causal*, *own words* and *missing*, since a view spans reconnects.

use std::collections::{BTreeMap, BTreeSet};

use super::agenda::Micros;
use super::history::{Act, History, SessionHistory};

/// Which of the checks hold for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Whether what was shown, even unacknowledged, is never lost, and so nobody has to accept a gap.
    pub shown_survives: bool,
    /// Whether the network was never cut.
    pub whole: bool,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which: one of the words of the [module's documentation](self), or of the simulator's.
    pub invariant: &'static str,
    /// What happened, in a sentence.
    pub detail: String,
    /// Texts that the trace's relevant lines contain.
    pub about: Vec<String>,
}

impl Violation {
    /// A broken promise, with what to look for in the trace.
    pub fn new(invariant: &'static str, detail: String, about: &[&str]) -> Self {
        Self { invariant, detail, about: about.iter().map(ToString::to_string).collect() }
    }
}

type Checked = Result<(), Violation>;

/// A message, by who wrote it where and when.
#[derive(Debug)]
struct Written<'a> {
    user: &'a str,
    room: &'a str,
    at: Micros,
    acked_at: Option<Micros>,
}

/// One stay of one session in one room.
#[derive(Debug)]
struct View<'a> {
    session: &'a SessionHistory,
    room: &'a str,
    /// Whether it asked for everything.
    all: bool,
    joined_at: Option<Micros>,
    /// Whether it lasted to the end.
    open: bool,
    gap: bool,
    /// What was shown, and as the how manyth.
    shown: BTreeMap<&'a str, usize>,
    got: BTreeSet<&'a str>,
}

impl View<'_> {
    /// As the how manyth `text` was shown.
    fn place_of<'t>(&self, text: &'t str) -> Option<(usize, &'t str)> {
        self.shown.get(text).map(|place| (*place, text))
    }

    /// Whether the view has to contain what was written at `at`.
    fn must_have(&self, at: Micros) -> bool {
        self.all || self.joined_at.is_some_and(|joined| at > joined)
    }
}

/// Checks everything that `promise` says.
pub fn check(history: &History, promise: Promise) -> Checked {
    let written = written(history);
    let mut views = Vec::new();
    for session in history.sessions.iter().chain(&history.readers) {
        views.extend(views_of(session, &written, promise)?);
    }
    for view in &views {
        check_causal_order(view, history, &written, promise)?;
    }
    let finals = final_sets(history, &views)?;
    check_nothing_lost(history, &finals, &written, promise)?;
    views
        .iter()
        .filter(|view| view.open)
        .try_for_each(|view| check_complete(view, &finals, &written))
}

fn written(history: &History) -> BTreeMap<&str, Written<'_>> {
    let mut written = BTreeMap::new();
    for session in &history.sessions {
        for (at, act) in &session.acts {
            if let Act::Wrote { room, text } = act {
                let message = Written { user: &session.user, room, at: *at, acked_at: None };
                written.insert(text.as_str(), message);
            } else if let Act::Acked { text } = act
                && let Some(message) = written.get_mut(text.as_str())
            {
                message.acked_at = Some(*at);
            }
        }
    }
    written
}

/// The views of one session, with what can be checked in passing.
fn views_of<'a>(
    session: &'a SessionHistory,
    written: &BTreeMap<&str, Written>,
    promise: Promise,
) -> Result<Vec<View<'a>>, Violation> {
    let mut views =
        Views { session, done: Vec::new(), open: BTreeMap::new(), here: BTreeMap::new() };
    for (at, act) in &session.acts {
        match act {
            Act::Entered { room, all } => views.enter(room, *all),
            Act::Joined { room } => {
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
            Act::Shown { room, text, sender } => {
                check_invented(session, room, text, sender, written)?;
                views.shown(room, text)?;
            }
            Act::Acked { text } => views.acked(text)?,
            Act::Gap { room } => views.gap(room, promise)?,
            Act::Refused { text, code } => views.refused(text, code)?,
            Act::Ended { reason } => check_end(session, reason, promise)?,
            Act::Quit => {}
        }
    }
    views.done.extend(views.open.into_values());
    Ok(views.done)
}

/// The views of one session, while its acts are gone through.
struct Views<'a> {
    session: &'a SessionHistory,
    done: Vec<View<'a>>,
    open: BTreeMap<&'a str, View<'a>>,
    /// Which of the session's messages were written in a view that is still open, and where.
    here: BTreeMap<&'a str, &'a str>,
}

impl<'a> Views<'a> {
    fn enter(&mut self, room: &'a str, all: bool) {
        let view = View {
            session: self.session,
            room,
            all,
            joined_at: None,
            open: self.session.stays(),
            gap: false,
            shown: BTreeMap::new(),
            got: BTreeSet::new(),
        };
        self.open.insert(room, view);
    }

    fn leave(&mut self, room: &str) {
        self.here.retain(|_, of| *of != room);
        let left = self.open.remove(room);
        self.done.extend(left.map(|view| View { open: false, ..view }));
    }

    fn got(&mut self, room: &str, text: &'a str) -> Checked {
        let Some(view) = self.open.get_mut(room) else { return Ok(()) };
        if view.got.insert(text) || view.gap {
            return Ok(());
        }
        let name = &self.session.session;
        let detail = format!("{name} was sent {text} twice in {room}");
        Err(Violation::new("twice", detail, &[text, name]))
    }

    fn shown(&mut self, room: &str, text: &'a str) -> Checked {
        let Some(view) = self.open.get_mut(room) else { return Ok(()) };
        let place = view.shown.len();
        if view.shown.insert(text, place).is_none() || view.gap {
            return Ok(());
        }
        let name = &self.session.session;
        let detail = format!("{name} was shown {text} twice in {room}");
        Err(Violation::new("twice", detail, &[text, name]))
    }

    fn acked(&self, text: &str) -> Checked {
        let view = self.here.get(text).and_then(|room| self.open.get(room));
        if view.is_none_or(|view| view.gap || view.shown.contains_key(text)) {
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

fn check_invented(
    session: &SessionHistory,
    room: &str,
    text: &str,
    sender: &str,
    written: &BTreeMap<&str, Written>,
) -> Checked {
    let known = written.get(text);
    if known.is_some_and(|known| known.room == room && known.user == sender) {
        return Ok(());
    }
    let name = session.session.as_str();
    let detail = match known {
        None => format!("{name} was shown {text}, which nobody wrote"),
        Some(Written { user, room: other, .. }) => {
            format!("{name} was shown {text} of {sender} in {room}, but {user} wrote it in {other}")
        }
    };
    Err(Violation::new("invented", detail, &[text, name]))
}

/// In `view`, every message comes after all that its writer knew of the room when writing it.
fn check_causal_order(
    view: &View,
    history: &History,
    written: &BTreeMap<&str, Written>,
    promise: Promise,
) -> Checked {
    let has_gap = |writer: &SessionHistory| {
        writer.acts.iter().any(|(_, act)| matches!(act, Act::Gap { room } if room == view.room))
    };
    // Who accepted a gap had been shown what was lost, and may have come again later.
    for writer in history.sessions.iter().filter(|writer| !has_gap(writer)) {
        let mut past = Past::default();
        for (at, act) in &writer.acts {
            match act {
                // A position is forgotten with the view. While the network is whole the next server has it all the same.
                Act::Entered { room, .. } if room == view.room && !promise.whole => {
                    past = Past::default();
                }
                Act::Shown { room, text, .. } if room == view.room => past.fresh.push(text),
                Act::Wrote { room, text } if room == view.room => {
                    past.take_fresh(view, written, |message| {
                        // What one server alone had shown may be lost and come again until it is on its disk.
                        promise.shown_survives || message.acked_at.is_some_and(|acked| acked < *at)
                    });
                    past.check(view, text)?;
                    past.latest = past.latest.max(view.place_of(text));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What one writer knew of one room, compared with a view of it.
#[derive(Default)]
struct Past<'a> {
    /// Shown, and not compared yet.
    fresh: Vec<&'a str>,
    /// What of it stands last in the view.
    latest: Option<(usize, &'a str)>,
    /// Something of it that the view should have and has not.
    lacking: Option<&'a str>,
}

impl Past<'_> {
    /// Compares what was shown since the last time, as far as it `counts`.
    fn take_fresh(
        &mut self,
        view: &View,
        written: &BTreeMap<&str, Written>,
        counts: impl Fn(&Written) -> bool,
    ) {
        let fresh = std::mem::take(&mut self.fresh);
        for text in fresh {
            let Some(message) = written.get(text) else { continue };
            if !counts(message) {
                self.fresh.push(text);
                continue;
            }
            match view.place_of(text) {
                Some(place) => self.latest = self.latest.max(Some(place)),
                None if !view.gap && view.must_have(message.at) => {
                    self.lacking = self.lacking.or(Some(text));
                }
                None => {}
            }
        }
    }

    /// `text` is written now: in the view it has to stand behind all that.
    fn check(&self, view: &View, text: &str) -> Checked {
        let Some((place, _)) = view.place_of(text) else { return Ok(()) };
        if let Some((_, past)) = self.latest.filter(|(past, _)| *past > place) {
            return Err(out_of_order(view, text, past));
        }
        self.lacking.map_or(Ok(()), |past| Err(without_past(view, text, past)))
    }
}

fn out_of_order(view: &View, text: &str, past: &str) -> Violation {
    let name = view.session.session.as_str();
    let room = view.room;
    let detail =
        format!("{name} was shown {text} before {past} in {room}; its writer knew {past} first");
    Violation::new("causal", detail, &[text, past])
}

fn without_past(view: &View, text: &str, past: &str) -> Violation {
    let name = view.session.session.as_str();
    let room = view.room;
    let detail =
        format!("{name} was shown {text} and never {past} in {room}; its writer knew {past}");
    Violation::new("causal", detail, &[text, past])
}

/// What each room holds in the end, as all readers see it.
fn final_sets<'a>(
    history: &History,
    views: &[View<'a>],
) -> Result<BTreeMap<&'a str, BTreeSet<&'a str>>, Violation> {
    let mut sets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let names: BTreeSet<&str> =
        history.readers.iter().map(|reader| reader.session.as_str()).collect();
    for view in views.iter().filter(|view| names.contains(view.session.session.as_str())) {
        let set: BTreeSet<&str> = view.shown.keys().copied().collect();
        let Some(first) = sets.get(view.room) else {
            sets.insert(view.room, set);
            continue;
        };
        if let Some(text) = first.symmetric_difference(&set).next() {
            let (room, reader) = (view.room, view.session.session.as_str());
            let has = if set.contains(text) { "has" } else { "lacks" };
            let detail = format!("{reader} {has} {text} of {room}, unlike another reader");
            return Err(Violation::new("equal", detail, &[text]));
        }
    }
    Ok(sets)
}

fn check_nothing_lost(
    history: &History,
    finals: &BTreeMap<&str, BTreeSet<&str>>,
    written: &BTreeMap<&str, Written>,
    promise: Promise,
) -> Checked {
    if history.readers.is_empty() {
        return Ok(());
    }
    let kept = |text: &str| {
        let set = written.get(text).and_then(|written| finals.get(written.room));
        set.is_some_and(|set| set.contains(text))
    };
    let acts = || {
        let sessions = history.sessions.iter();
        sessions.flat_map(|session| session.acts.iter().map(move |(_, act)| (session, act)))
    };
    for (session, act) in acts() {
        if let Act::Acked { text } = act
            && !kept(text)
        {
            let detail = format!("{text} was acknowledged to {} and is gone", session.session);
            return Err(Violation::new("lost", detail, &[text]));
        }
    }
    for (session, act) in acts().filter(|_| promise.shown_survives) {
        if let Act::Shown { text, .. } = act
            && !kept(text)
        {
            let detail = format!("{text} was shown to {} and is gone", session.session);
            return Err(Violation::new("unseen", detail, &[text]));
        }
    }
    Ok(())
}

/// A view that lasts has all that it must have.
fn check_complete(
    view: &View,
    finals: &BTreeMap<&str, BTreeSet<&str>>,
    written: &BTreeMap<&str, Written>,
) -> Checked {
    for text in finals.get(view.room).into_iter().flatten() {
        let at = written.get(text).map_or(0, |written| written.at);
        if view.must_have(at) && !view.shown.contains_key(text) {
            let name = view.session.session.as_str();
            let detail = format!("{name} is in {} and was never shown {text}", view.room);
            return Err(Violation::new("missing", detail, &[text, name]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
