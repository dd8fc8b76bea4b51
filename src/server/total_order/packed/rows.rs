//! Rows of [packed](super) entries: how each is written and read.
//!
//! ```text
//!   form   place      [term]          [room]   time    length   session  message id  sender  text
//!   1 byte + to the   counter leader  text     + ms    of what ▸ text     text        text    the rest
//!          one before └ as before: absent ┘            follows            └ less the session and "-", where it begins so
//! ```
//!
//! Numbers are [LEB128](https://en.wikipedia.org/wiki/LEB128), a text stands behind its length in bytes.

use crate::domain::{Content, Message, MessageType, Term};
use crate::server::total_order::Seq;

/// Every so many rows one begins that says everything.
const RESTART_EVERY: usize = 32;

/// The message is its JSON.
const JSON: u8 = 1;
/// The term is not the one before.
const TERM: u8 = 2;
/// The room is not the one before.
const ROOM: u8 = 4;
/// The message id begins with the session and "-", which are left out.
const NUMBERED: u8 = 8;
/// The message was deleted: it has no text.
const GONE: u8 = 16;

/// Rows to which more are appended.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    len: usize,
    first: Seq,
    last: Seq,
    last_ms: u64,
    term: Option<Term>,
    room_id: String,
}

impl Rows {
    /// None yet, and memory for so many `bytes`.
    pub(super) fn with_room_for(bytes: usize) -> Self {
        // The last one may stand out.
        Self { bytes: Vec::with_capacity(bytes + 512), ..Self::default() }
    }

    /// How many bytes they are.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// All of them, as they are written.
    #[cfg(test)]
    pub(super) fn text(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the place `seq` is none before the first one.
    pub(super) fn is_from(&self, seq: Seq) -> bool {
        self.len > 0 && seq >= self.first
    }

    /// The place of the last one.
    pub(super) fn last(&self) -> Seq {
        self.last
    }

    /// Appends `msg`, whose place is behind all others, with the timestamp `ms` rather than its own.
    pub(super) fn push(&mut self, seq: Seq, msg: &Message, ms: Option<u64>) {
        if self.len.is_multiple_of(RESTART_EVERY) {
            // Blocks are sealed long before.
            self.restarts.push(self.bytes.len() as u32);
            (self.last, self.last_ms, self.term) = (0, 0, None);
            self.room_id.clear();
        }
        if self.len == 0 {
            self.first = seq;
        }
        self.len += 1;
        let form_at = self.bytes.len();
        self.bytes.push(0);
        put_number(&mut self.bytes, seq.wrapping_sub(self.last));
        self.last = seq;
        let form = match (&msg.session, ms) {
            (Some(session), Some(ms)) if self.fits(seq, msg) => self.push_chat(msg, session, ms),
            _ => self.push_json(seq, msg, ms),
        };
        self.bytes[form_at] = form;
    }

    /// Whether `msg` is one for which there is a form of its own.
    fn fits(&self, seq: Seq, msg: &Message) -> bool {
        let is_chat = match (msg.message_type, &msg.content) {
            (MessageType::Chat, Content::Text(_)) => true,
            (MessageType::Delete, content) => content.is_empty(),
            _ => false,
        };
        let has_more = msg.origin.is_some() || msg.vector_clock.is_some() || msg.position.is_some();
        let has_lost_its_term = msg.term.is_none() && self.term.is_some();
        is_chat && !has_more && !has_lost_its_term && msg.seq == Some(seq)
    }

    fn push_chat(&mut self, msg: &Message, session: &str, ms: u64) -> u8 {
        let mut form = 0;
        if msg.message_type == MessageType::Delete {
            form |= GONE;
        }
        if let Some(term) = msg.term.as_ref().filter(|term| self.term.as_ref() != Some(*term)) {
            form |= TERM;
            put_number(&mut self.bytes, term.counter);
            put_text(&mut self.bytes, term.leader.as_str());
            self.term = Some(term.clone());
        }
        if msg.room_id != self.room_id {
            form |= ROOM;
            put_text(&mut self.bytes, &msg.room_id);
            self.room_id.clone_from(&msg.room_id);
        }
        put_number(&mut self.bytes, ms.wrapping_sub(self.last_ms));
        self.last_ms = ms;
        let number = number_behind(session, &msg.message_id);
        form |= if number.is_some() { NUMBERED } else { 0 };
        let message_id = number.unwrap_or(&msg.message_id);
        let text = msg.content.text();
        let texts = [session, message_id, &msg.sender_id];
        let length = texts.map(length_of_text).iter().sum::<usize>() + text.len();
        put_number(&mut self.bytes, length as u64);
        for text in texts {
            put_text(&mut self.bytes, text);
        }
        self.bytes.extend_from_slice(text.as_bytes());
        form
    }

    fn push_json(&mut self, seq: Seq, msg: &Message, ms: Option<u64>) -> u8 {
        let json = if msg.timestamp == ms && msg.seq == Some(seq) {
            msg.serialize()
        } else {
            Message { timestamp: ms, seq: Some(seq), ..msg.clone() }.serialize()
        };
        let ms = ms.unwrap_or(self.last_ms);
        put_number(&mut self.bytes, ms.wrapping_sub(self.last_ms));
        self.last_ms = ms;
        put_text(&mut self.bytes, &json);
        JSON
    }

    /// Those from the place `first` on.
    pub(super) fn iter_from(&self, first: Seq) -> impl Iterator<Item = Row<'_>> {
        from(&self.bytes, &self.restarts, first)
    }

    /// They do not change any more.
    pub(super) fn seal(self) -> super::Block {
        super::Block {
            last: self.last,
            restarts: self.restarts.into_boxed_slice(),
            text: super::Text::Plain(self.bytes.into_boxed_slice()),
        }
    }
}

/// The message id without the session and the "-" that it begins with.
fn number_behind<'a>(session: &str, message_id: &'a str) -> Option<&'a str> {
    message_id.strip_prefix(session)?.strip_prefix('-')
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(in crate::server::total_order) struct Row<'a> {
    /// The place.
    pub(in crate::server::total_order) seq: Seq,
    /// The timestamp; of an entry without one that of the row before.
    pub(in crate::server::total_order) ms: u64,
    form: u8,
    term: Option<(u64, &'a str)>,
    room_id: &'a str,
    body: &'a [u8],
}

/// What is counted of a message, and what finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::total_order) struct Said<'a> {
    session: &'a str,
    number: Option<&'a str>,
    message_id: &'a str,
    /// Who said it.
    pub(in crate::server::total_order) sender_id: &'a str,
    /// What; nothing once it is deleted.
    pub(in crate::server::total_order) text: &'a str,
}

impl Said<'_> {
    /// Whether this is its message id.
    pub(in crate::server::total_order) fn has_id(&self, message_id: &str) -> bool {
        match self.number {
            Some(number) => number_behind(self.session, message_id) == Some(number),
            None => self.message_id == message_id,
        }
    }
}

impl<'a> Row<'a> {
    /// What a row in the form of a CHAT says; `None` for one that is JSON.
    pub(in crate::server::total_order) fn said(&self) -> Option<Said<'a>> {
        if self.form & JSON != 0 {
            return None;
        }
        let mut body = self.body;
        let mut next = || text(take_text(&mut body)?);
        let (session, message_id, sender_id) = (next()?, next()?, next()?);
        let number = (self.form & NUMBERED != 0).then_some(message_id);
        Some(Said { session, number, message_id, sender_id, text: text(body)? })
    }

    /// The message.
    pub(in crate::server::total_order) fn to_message(self) -> Option<Message> {
        let Some(said) = self.said() else { return Message::decode(self.body).ok() };
        let is_gone = self.form & GONE != 0;
        let message_type = if is_gone { MessageType::Delete } else { MessageType::Chat };
        let mut msg = Message::new(message_type, said.sender_id).in_room(self.room_id);
        msg.message_id = match said.number {
            Some(number) => [said.session, "-", number].concat(),
            None => said.message_id.into(),
        };
        if !is_gone {
            msg.content = said.text.into();
        }
        msg.session = Some(said.session.into());
        msg.seq = Some(self.seq);
        msg.term = self.term.map(|(counter, leader)| Term { counter, leader: leader.into() });
        msg.timestamp = Some(self.ms);
        Some(msg)
    }
}

/// The rows of `bytes` from the place `first` on.
pub(super) fn from<'a>(
    bytes: &'a [u8],
    restarts: &'a [u32],
    first: Seq,
) -> impl Iterator<Item = Row<'a>> {
    let begin_at = |restart: u32| bytes.get(restart as usize..).unwrap_or_default();
    let is_before = |restart: &u32| {
        let mut rest = begin_at(*restart);
        rest.split_off_first().is_some() && take_number(&mut rest).is_some_and(|seq| seq <= first)
    };
    let restart = restarts.partition_point(is_before).saturating_sub(1);
    let rest = restarts.get(restart).map_or(&[][..], |at| begin_at(*at));
    let before = Row { seq: 0, ms: 0, form: 0, term: None, room_id: "", body: &[] };
    let all = All { rest, rows: restart * RESTART_EVERY, before };
    all.skip_while(move |row| row.seq < first)
}

struct All<'a> {
    rest: &'a [u8],
    /// How many stand before `rest`.
    rows: usize,
    before: Row<'a>,
}

impl<'a> Iterator for All<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        let (form, rest) = self.rest.split_first()?;
        self.rest = rest;
        let rest = &mut self.rest;
        let restarts = self.rows.is_multiple_of(RESTART_EVERY);
        self.rows += 1;
        if restarts {
            (self.before.seq, self.before.ms) = (0, 0);
            (self.before.term, self.before.room_id) = (None, "");
        }
        let mut row = Row { form: *form, ..self.before };
        row.seq = row.seq.wrapping_add(take_number(rest)?);
        if form & TERM != 0 {
            let counter = take_number(rest)?;
            row.term = Some((counter, text(take_text(rest)?)?));
        }
        if form & ROOM != 0 {
            row.room_id = text(take_text(rest)?)?;
        }
        row.ms = row.ms.wrapping_add(take_number(rest)?);
        row.body = take_text(rest)?;
        self.before = row;
        Some(row)
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok()
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >> 7 > 0 {
        bytes.push(number as u8 | 1 << 7);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// How long a text is with its length.
fn length_of_text(text: &str) -> usize {
    let bits = (usize::BITS - text.len().leading_zeros()).max(1);
    bits.div_ceil(7) as usize + text.len()
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = *bytes.split_off_first()?;
        number |= u64::from(byte & !(1 << 7)).checked_shl(shift)?;
        if byte >> 7 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

/// Takes what stands behind its length.
fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_number(bytes)?).ok()?;
    bytes.split_off(..length)
}
