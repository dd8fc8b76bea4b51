//! Messages as numbers: texts are looked up once, and compared as numbers from then on.

use std::collections::BTreeMap;
use std::ops::Index;

use super::super::agenda::Micros;
use super::super::history::{Act, History};

/// The number of a message, from 0.
pub(super) type Text = usize;

/// A message, by who wrote it where and when.
#[derive(Debug)]
pub(super) struct Written<'a> {
    pub(super) text: &'a str,
    pub(super) user: &'a str,
    pub(super) room: &'a str,
    pub(super) at: Micros,
    pub(super) acked_at: Option<Micros>,
    /// Its place in the one order, if anybody was told.
    pub(super) place: Option<u64>,
}

impl Written<'_> {
    /// Whether it stands in what is not kept any more, of which the last place is `starts`.
    pub(super) fn is_forgotten(&self, starts: u64) -> bool {
        self.place.is_some_and(|place| place <= starts)
    }
}

/// All messages of a history.
#[derive(Debug, Default)]
pub(super) struct Texts<'a> {
    numbers: BTreeMap<&'a str, Text>,
    all: Vec<Written<'a>>,
}

impl<'a> Texts<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let mut texts = Self::default();
        for session in &history.sessions {
            for (at, act) in &session.acts {
                if let Act::Wrote { room, text } = act {
                    let user = &session.user;
                    // What is sent again keeps the number and the moment of the first time.
                    let place = history.places.get(text).copied();
                    texts.numbers.entry(text).or_insert_with(|| {
                        let (at, acked_at) = (*at, None);
                        texts.all.push(Written { text, user, room, at, acked_at, place });
                        texts.all.len() - 1
                    });
                } else if let Act::Acked { text } = act
                    && let Some(number) = texts.number(text)
                {
                    texts.all[number].acked_at.get_or_insert(*at);
                }
            }
        }
        texts
    }

    /// The number of `text`, if anybody wrote it.
    pub(super) fn number(&self, text: &str) -> Option<Text> {
        self.numbers.get(text).copied()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }
}

impl<'a> Index<Text> for Texts<'a> {
    type Output = Written<'a>;

    fn index(&self, number: Text) -> &Written<'a> {
        &self.all[number]
    }
}
