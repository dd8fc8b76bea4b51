//! Linearizability of a room: reads and writes take effect at one moment each, between the question and the answer
//! (Herlihy and Wing, 1990, section 2).
//!
//! ```text
//!   the order:    m1  m2  m3  m4  m5        what fresh readers see in the end
//!   alice         m2 ├───┤ acknowledged
//!   bob                        JOIN_ROOM ├──────┤ shown m1 … m4: that read ends at 4
//!   carol                                          JOIN_ROOM ├──┤ has to end at 4 or beyond
//!   dora                                           m5 ├───┤ written now: has to stand after 4
//! ```
//!
//! A write is a CHAT, from the moment it was written to its acknowledgement. A read is a JOIN_ROOM, from the moment the
//! session sent it to the answer, also one that resumes from a position: together with what the session has, it is shown the
//! room up to some place, the read's *end*.
//!
//! # Why so little is enough
//!
//! To decide whether a history is linearizable means to search for an order in general. Here nothing has to be
//! searched for. Rooms can be judged one by one, since linearizability is local (their theorem 1). A room is only ever
//! appended to, each message has a text of its own, and in the end readers show all of it: that is the order of the writes,
//! and no other is possible. A read that shows the first `n` messages, without a hole ([`total`](super::total) checks that),
//! can only stand after the nth write and before the next one. What is left to check is that this order keeps the order of
//! real time, for each two operations of which one was over before the other began:
//!
//! | over before | begun after | so |
//! |---|---|---|
//! | a write was acknowledged | a write | the second stands later |
//! | a write was acknowledged | a read | it ends there or later |
//! | a read was answered | a read | it ends there or later |
//! | a read was answered | a write | it stands after the read's end |
//!
//! So there is one question: how far was the room *known* when something began? Known is what was acknowledged, what a
//! read ended with, and, more than Herlihy and Wing ask, what any member was shown. Writes that were never acknowledged may
//! have taken effect or not, and stand in the order or do not.
//!
//! Leaves out: deletions, which no simulated user asks for.

use std::collections::BTreeMap;

use super::super::agenda::{Micros, SECOND};
use super::super::history::{Act, History, SessionHistory};
use super::texts::Texts;
use super::view::View;
use super::{Checked, Violation};

/// A place in the order of a room, from 1; 0 stands before the first.
type Place = u32;

/// A JOIN_ROOM that was answered.
#[derive(Debug)]
struct Read<'a> {
    session: &'a str,
    asked: Micros,
    answered: Micros,
    /// What was shown reaches up to here.
    end: Place,
    /// Where it begins, with how many were wanted and how many came.
    part: Option<(Place, u32, u32)>,
}

/// Checks each room that a fresh reader has seen whole.
pub(super) fn check(history: &History, readers: &[View], texts: &Texts) -> Checked {
    let mut rooms: BTreeMap<&str, &View> = BTreeMap::new();
    for reader in readers {
        rooms.entry(reader.room).or_insert(reader);
    }
    for (room, order) in rooms {
        check_room(room, history, order, texts)?;
    }
    Ok(())
}

fn check_room(room: &str, history: &History, order: &View, texts: &Texts) -> Checked {
    let place = |text: &str| texts.number(text).and_then(|number| order.place_of(number));
    let sessions = || history.sessions.iter().chain(&history.readers);
    let reads: Vec<Read> = sessions().flat_map(|session| reads_of(session, room, place)).collect();
    let known = Known::of(sessions(), room, &reads, place);
    for read in &reads {
        check_read(read, room, &known, order, texts)?;
    }
    for (at, number) in order.shown.iter().enumerate() {
        let message = &texts[*number];
        if let Some(known) = known.before(message.at).filter(|known| *known as usize > at) {
            let (text, last) = (message.text, name_of(known, order, texts));
            let detail = format!(
                "{text} stands before {last} in {room}, which was known before it was written"
            );
            return Err(Violation::new("late", detail, &[text, last]));
        }
    }
    Ok(())
}

fn check_read(read: &Read, room: &str, known: &Known, order: &View, texts: &Texts) -> Checked {
    let Read { session, asked, end, .. } = *read;
    if let Some((begin, wanted, came)) =
        read.part.filter(|(begin, wanted, came)| *begin > 0 && came < wanted)
    {
        let detail = format!(
            "{session} asked for the last {wanted} messages of {room} and was shown {came}, though {begin} more stand before"
        );
        return Err(Violation::new("part", detail, &[session]));
    }
    let Some(known) = known.before(asked).filter(|known| *known > end) else { return Ok(()) };
    let text = name_of(known, order, texts);
    let detail = format!(
        "{session} asked for {room} at {:.3} s and was shown {end} messages of it; number {known}, {text}, was known \
         before",
        asked as f64 / SECOND as f64
    );
    Err(Violation::new("stale", detail, &[session, text]))
}

fn name_of<'a>(place: Place, order: &View, texts: &Texts<'a>) -> &'a str {
    order.shown.get(place as usize - 1).map_or("nothing", |number| texts[*number].text)
}

/// How far a room was known, and since when.
#[derive(Debug)]
struct Known(Vec<(Micros, Place)>);

impl Known {
    fn of<'a>(
        sessions: impl Iterator<Item = &'a SessionHistory>,
        room: &str,
        reads: &[Read],
        place: impl Fn(&str) -> Option<Place>,
    ) -> Self {
        let mut facts: Vec<(Micros, Place)> =
            reads.iter().map(|read| (read.answered, read.end)).collect();
        for (at, act) in sessions.flat_map(|session| &session.acts) {
            match act {
                Act::Got { room: of, text } if of == room => {
                    facts.extend(place(text).map(|place| (*at, place)));
                }
                // A text of another room has no place in this one.
                Act::Acked { text } => facts.extend(place(text).map(|place| (*at, place))),
                _ => {}
            }
        }
        facts.sort_unstable();
        let mut most = 0;
        facts.retain(|(_, place)| {
            let is_news = *place > most;
            most = most.max(*place);
            is_news
        });
        Self(facts)
    }

    /// The last place that was known before `at`.
    fn before(&self, at: Micros) -> Option<Place> {
        let later = self.0.partition_point(|(since, _)| *since < at);
        Some(self.0[later.checked_sub(1)?].1)
    }
}

/// A session in a room.
#[derive(Default)]
struct Stay {
    /// When it asked last, and for how many messages, if it did not resume.
    asked: Option<(Micros, Option<u32>)>,
    /// The place of what a server sent last.
    last: Option<Place>,
    /// Answers to reads after which nothing was sent yet: what comes first tells where they began.
    open: Vec<(Micros, Micros, Option<u32>, u32)>,
}

impl Stay {
    fn answered<'a>(&mut self, session: &'a str, at: Micros, came: u32) -> Option<Read<'a>> {
        let (asked, wanted) = self.asked.take()?;
        let nothing = wanted.is_some_and(|wanted| wanted > 0) && came == 0;
        if self.last.is_none() && !nothing {
            self.open.push((asked, at, wanted, came));
        }
        // Who is shown nothing of what it wants is told that there is nothing.
        let from_the_start = nothing || wanted == Some(u32::MAX);
        let begin = self.last.or(from_the_start.then_some(0));
        begin.map(|begin| Read { session, asked, answered: at, end: begin + came, part: None })
    }

    /// The first message after some answers stands at `place`.
    fn begins<'a>(&mut self, session: &'a str, place: Place) -> impl Iterator<Item = Read<'a>> {
        let begin = place - 1;
        std::mem::take(&mut self.open).into_iter().map(move |(asked, answered, wanted, came)| {
            let part = wanted.map(|wanted| (begin, wanted, came));
            Read { session, asked, answered, end: begin + came, part }
        })
    }
}

/// The reads of one session in one room, as far as it is clear where they ended.
fn reads_of<'a>(
    session: &'a SessionHistory,
    room: &str,
    place: impl Fn(&str) -> Option<Place>,
) -> Vec<Read<'a>> {
    let name = session.session.as_str();
    let (mut reads, mut stay) = (Vec::new(), None::<Stay>);
    for (at, act) in &session.acts {
        match act {
            Act::Entered { room: of, .. } if of == room => stay = Some(Stay::default()),
            Act::Left { room: of } | Act::Gap { room: of } if of == room => stay = None,
            Act::Asked { room: of, history } if of == room => {
                if let Some(stay) = &mut stay {
                    stay.asked = Some((*at, *history));
                }
            }
            Act::Joined { room: of, history } if of == room => {
                reads.extend(stay.as_mut().and_then(|stay| stay.answered(name, *at, *history)));
            }
            Act::Got { room: of, text } if of == room => match (place(text), &mut stay) {
                (Some(place), Some(stay)) => {
                    stay.last = Some(place);
                    reads.extend(stay.begins(name, place));
                }
                // Lost in the end: another check's matter.
                _ => stay = None,
            },
            _ => {}
        }
    }
    reads
}
