//! Judges a run by what its users saw. It knows nothing of servers, so that runs of real processes are judged here, too: the
//! tests of processes write down what their clients saw as a [`History`].
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
//! * **order** (designs with one order): all views of a room show parts of one sequence, without a hole;
//! * **stale**, **late**, **part** (where reads are linearizable): a read ends no earlier than the room was known when it
//!   was asked, a message stands after what was known when it was written, nobody is shown less than asked for without need;
//! * **refused**, **gap**, **ended**: nobody in a room is refused there, asked to accept a gap, or thrown out;
//! * **answered**: whoever stays to the end has an answer to each message ([`check_answered`]).
//!
//! A design may forget the beginning of a room's history. Then whoever asks for it is told up to which place, and all of
//! this holds from there on.
//!
//! Resuming without gap or repeat, reading one's own writes and reading monotonically across a reconnect all follow from
//! *twice*, *causal*, *own words* and *missing*, since a view spans reconnects.
//!
//! Reading order: [`texts`] (messages as numbers), [`view`], [`causal`], [`total`], [`linear`]; the rest is here.

mod causal;
mod linear;
mod texts;
mod total;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Act, History, SessionHistory};
use crate::config::Design;
use texts::{Text, Texts};
use view::{View, views_of};

/// The order in which a design shows the messages of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Causes before effects; concurrent messages may come in any order (`ring`).
    Causal,
    /// One order for all (`sequencer`, `raft`).
    Total,
}

/// The order that `design` promises.
pub fn order_of(design: Design) -> Order {
    match design {
        Design::Ring => Order::Causal,
        Design::Sequencer | Design::Raft => Order::Total,
    }
}

/// Which of the checks hold for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// In which order messages are shown.
    pub order: Order,
    /// Whether what was shown, even unacknowledged, is never lost, and so nobody has to accept a gap.
    pub shown_survives: bool,
    /// Whether the network was never cut.
    pub whole: bool,
    /// Whether a JOIN_ROOM shows all that was known anywhere when it was asked.
    pub linearizable: bool,
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

/// What a room holds in the end.
#[derive(Debug)]
struct Final<'a> {
    /// The one who was shown most.
    reader: &'a str,
    set: BTreeSet<Text>,
    /// Up to this place nothing is kept.
    starts: u64,
}

/// That of each room.
type Finals<'a> = BTreeMap<&'a str, Final<'a>>;

/// Checks everything that `promise` says.
pub fn check(history: &History, promise: Promise) -> Checked {
    let texts = Texts::of(history);
    let mut views = Vec::new();
    for session in &history.sessions {
        views.extend(views_of(session, &texts, promise)?);
    }
    let first_reader = views.len();
    for session in &history.readers {
        views.extend(views_of(session, &texts, promise)?);
    }
    causal::check(&views, history, &texts, promise)?;
    let readers = &views[first_reader..];
    let finals = final_sets(readers, &texts)?;
    check_nothing_lost(history, &finals, &texts, promise)?;
    for view in views.iter().filter(|view| view.open) {
        check_complete(view, &finals, &texts)?;
    }
    if promise.order == Order::Total {
        total::check(&views, readers, &texts)?;
    }
    if promise.linearizable {
        linear::check(history, readers, &texts)?;
    }
    Ok(())
}

/// Checks that whoever stayed to the end has an answer to each message. For runs that end when everything has come to rest.
pub fn check_answered(history: &History) -> Checked {
    for session in history.sessions.iter().filter(|session| session.stays()) {
        let mut open = BTreeSet::new();
        for (_, act) in &session.acts {
            match act {
                Act::Wrote { text, .. } => drop(open.insert(text)),
                Act::Acked { text } | Act::Refused { text, .. } => drop(open.remove(text)),
                _ => {}
            }
        }
        if let Some(text) = open.first() {
            let detail = format!("{text} of {} was never answered", session.session);
            return Err(Violation::new("answered", detail, &[text]));
        }
    }
    Ok(())
}

/// What each room holds in the end, as all readers see it, from where the history starts that each of them was shown.
fn final_sets<'a>(readers: &'a [View<'a>], texts: &Texts) -> Result<Finals<'a>, Violation> {
    let mut sets = Finals::new();
    for view in readers {
        let set: BTreeSet<Text> = view.shown.iter().copied().collect();
        let this = Final { reader: view.name(), set, starts: view.starts };
        let Some(other) = sets.get(view.room) else {
            sets.insert(view.room, this);
            continue;
        };
        let starts = this.starts.max(other.starts);
        let mut differ = this.set.symmetric_difference(&other.set);
        if let Some(text) = differ.find(|text| !texts[**text].is_forgotten(starts)) {
            let has = if this.set.contains(text) { "has" } else { "lacks" };
            let (room, reader, text) = (view.room, view.name(), texts[*text].text);
            let detail = format!("{reader} {has} {text} of {room}, unlike {}", other.reader);
            return Err(Violation::new("equal", detail, &[text]));
        }
        if this.starts < other.starts {
            sets.insert(view.room, this);
        }
    }
    Ok(sets)
}

/// Whether `session` was told, after it had written `text`, that the history of the room starts later: the message may have been
/// committed, and forgotten, while it was away.
fn may_be_forgotten(session: &SessionHistory, text: &str) -> bool {
    let wrote =
        |(_, act): &(_, Act)| matches!(act, Act::Wrote { text: wrote, .. } if wrote == text);
    let told = |(_, act): &(_, Act)| matches!(act, Act::Starts { .. });
    session.acts.iter().skip_while(|act| !wrote(act)).any(told)
}

fn check_nothing_lost(
    history: &History,
    finals: &Finals,
    texts: &Texts,
    promise: Promise,
) -> Checked {
    if history.readers.is_empty() {
        return Ok(());
    }
    let kept = |text: &str| {
        texts.number(text).is_some_and(|number| {
            let room = finals.get(texts[number].room);
            room.is_some_and(|room| {
                room.set.contains(&number) || texts[number].is_forgotten(room.starts)
            })
        })
    };
    let has_place =
        |text: &str| texts.number(text).is_some_and(|number| texts[number].place.is_some());
    let acts = || {
        let sessions = history.sessions.iter();
        sessions.flat_map(|session| session.acts.iter().map(move |(_, act)| (session, act)))
    };
    for (session, act) in acts() {
        if let Act::Acked { text } = act
            && !kept(text)
            && (has_place(text) || !may_be_forgotten(session, text))
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
fn check_complete(view: &View, finals: &Finals, texts: &Texts) -> Checked {
    for number in finals.get(view.room).iter().flat_map(|room| &room.set) {
        let message = &texts[*number];
        if view.must_have(message) && view.place_of(*number).is_none() {
            let (name, text) = (view.name(), message.text);
            let detail = format!("{name} is in {} and was never shown {text}", view.room);
            return Err(Violation::new("missing", detail, &[text, name]));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
