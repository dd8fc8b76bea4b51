//! People who talk: so many messages outstanding, or so many a second; and what becomes of each message.
//!
//! ```text
//!   window   a sender says the next message when an earlier one is finished    how much is possible?
//!   rate     message k is said at k / rate, come what may                       how long does it take?
//!
//!   begin ─ warm-up ─ from ═══ measured ═══ until ─ the rest comes in ─ end
//! ```
//!
//! With a rate, times count from the moment when a message *should* have been said: if the servers, or this program,
//! stand still for 100 ms, the hundred messages of that time are late, and are counted as late.
//!
//! People talk in groups. Mostly a group is a room; a group that has several rooms is in all of them, on the same connections, and
//! who talks does so in each of them in turn ([`book`]).
//!
//! Each member expects each sender's next number: a number that is skipped is a lost message, one that comes again is
//! shown twice. What has not come when nothing has come for [`DRAIN_LIMIT_NS`] is lost, too.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::gauge::{Gauge, Spent, thread_cpu};
use super::links::Links;
use super::speech::Template;
use super::watch::{Halt, PATIENCE, Watch};

mod book;

use book::Book;

/// How long nothing may come until what is missing counts as lost, in nanoseconds.
const DRAIN_LIMIT_NS: u64 = 10_000_000_000;
/// The longest warm-up; shorter measurements have a fifth of their time.
const WARM_UP_MAX: Duration = Duration::from_secs(1);
/// With a rate a sender leaves at most so many messages unfinished: servers remember 1,024 ids of a session.
const UNFINISHED_MAX: u32 = 512;
/// The shortest time between two looks at the clock with a rate.
const TICK_MIN: Duration = Duration::from_micros(50);

/// When the next message is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// When fewer than so many of its sender are unfinished.
    Window(u32),
    /// So many a second, over all senders in turn.
    Rate(u32),
}

/// When a message is finished, and what is counted and timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// When all members of its room were shown it; each showing counts.
    Shown,
    /// When it is acknowledged; each acknowledgement counts.
    Acknowledged,
}

/// Who talks how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How many rooms.
    pub(super) rooms: usize,
    /// How many groups of members; group `g` is in the rooms `g`, `g + groups`, … As many as rooms unless these are shared out.
    pub(super) groups: usize,
    /// How many members in each group, and so in each room.
    pub(super) members: usize,
    /// How many of these talk.
    pub(super) senders: usize,
    /// How fast.
    pub(super) pace: Pace,
    /// What is counted.
    pub(super) finish: Finish,
    /// Whether messages are acknowledged at all.
    pub(super) acknowledged: bool,
    /// How long each text is.
    pub(super) text_bytes: usize,
    /// How long is measured.
    pub(super) lasts: Duration,
    /// It ends earlier when so many messages were said, the warm-up's included.
    pub(super) messages_max: Option<u64>,
}

impl Plan {
    /// In how many rooms each group is.
    fn turns(&self) -> u32 {
        (self.rooms / self.groups) as u32
    }
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Outcome {
    /// For so long.
    pub(super) seconds: f64,
    /// Showings or acknowledgements in this time.
    pub(super) count: u64,
    /// From saying to each of them, in nanoseconds.
    pub(super) times: Histogram<u64>,
    /// Bytes that came in this time.
    pub(super) bytes: u64,
    /// Messages that a member was never shown, summed over the members.
    pub(super) lost: u64,
    /// Messages that a member was shown, or a sender was acknowledged, again.
    pub(super) twice: u64,
    /// Messages that were never acknowledged.
    pub(super) unanswered: u64,
    /// CPU of this thread, in cores.
    pub(super) own_cores: f64,
    /// CPU seconds of this thread.
    pub(super) own_cpu: f64,
    /// How long after its time a message was said, at worst, in nanoseconds; 0 with a window.
    pub(super) late_max: u64,
    /// What the servers spent meanwhile.
    pub(super) spent: Spent,
    /// What they have in memory at the end of it.
    pub(super) resident_kib: Option<u64>,
    /// How many messages were said, the warm-up's included.
    pub(super) said: u64,
    /// How long a message is as it is said.
    pub(super) said_bytes: usize,
}

/// Runs `plan` with the clients of `links`, which are in their rooms: first all members of the first group, then those of
/// the next; the first members of each talk.
pub(super) fn run(
    links: &mut Links,
    room_names: &[String],
    plan: Plan,
    gauge: &Gauge,
    watch: &mut Watch,
) -> Result<Outcome, Halt> {
    let mut talk = Talk::new(room_names, plan, links.now());
    if let Pace::Rate(rate) = plan.pace {
        links.tick((Duration::from_secs(1) / rate.max(1)).max(TICK_MIN))?;
    }
    talk.go_on_until(talk.book.from, "warms up", links, watch)?;
    gauge.ask();
    let (own_before, bytes_before) = (thread_cpu(), links.bytes_read());
    talk.go_on_until(talk.book.until, "", links, watch)?;
    talk.book.until = talk.book.until.min(links.now().max(talk.book.from + 1));
    let own_cpu = thread_cpu() - own_before;
    let bytes = links.bytes_read() - bytes_before;
    let before = gauge.take();
    gauge.ask();
    talk.drain(links, watch)?;
    let after = gauge.take();
    let seconds = (talk.book.until - talk.book.from) as f64 / 1e9;
    let spent = before.zip(after).map(|(before, after)| after.since(&before));
    let (lost, unanswered) = talk.book.missing(&talk.said);
    Ok(Outcome {
        seconds,
        count: talk.book.count,
        bytes,
        lost: talk.book.lost + lost,
        twice: talk.book.twice,
        unanswered,
        said: talk.said_in_all,
        own_cores: own_cpu / seconds,
        own_cpu,
        late_max: talk.late_max,
        spent: spent.unwrap_or_default(),
        resident_kib: after.and_then(|after| after.resident_kib),
        said_bytes: talk.templates.first().map_or(0, Template::frame_bytes),
        times: talk.book.times,
    })
}

struct Talk {
    book: Book,
    /// By voice.
    templates: Vec<Template>,
    /// By talker: how many messages were said.
    said: Vec<u32>,
    /// How many over all talkers.
    said_in_all: u64,
    begin: u64,
    late_max: u64,
}

impl Talk {
    fn new(room_names: &[String], plan: Plan, begin: u64) -> Self {
        let template =
            |voice: usize| Template::new(&room_names[voice / plan.senders], voice, plan.text_bytes);
        Self {
            book: Book::new(plan, begin),
            templates: (0..plan.rooms * plan.senders).map(template).collect(),
            said: vec![0; plan.groups * plan.senders],
            said_in_all: 0,
            begin,
            late_max: 0,
        }
    }

    /// Where the connection of `talker` is.
    fn place(&self, talker: usize) -> usize {
        let plan = &self.book.plan;
        talker / plan.senders * plan.members + talker % plan.senders
    }

    /// Whether all was said that is to be said at most.
    fn is_over(&self) -> bool {
        self.book.plan.messages_max.is_some_and(|most| self.said_in_all >= most)
    }

    fn go_on_until(
        &mut self,
        end: u64,
        step: &str,
        links: &mut Links,
        watch: &mut Watch,
    ) -> Result<(), Halt> {
        let began = links.now();
        loop {
            let now = links.now();
            if now >= end || self.is_over() {
                return Ok(());
            }
            match self.book.plan.pace {
                Pace::Window(window) => self.fill_windows(window, links),
                Pace::Rate(rate) => self.say_what_is_due(rate, links),
            }
            self.listen(Duration::from_nanos(end - now).min(PATIENCE), links)?;
            let of_time = (now - began) as f64 / (end - began).max(1) as f64;
            let most = self.book.plan.messages_max;
            let done = most.map_or(of_time, |most| self.said_in_all as f64 / most.max(1) as f64);
            watch.go_on(done, || self.progress(step, now))?;
        }
    }

    fn progress(&self, step: &str, now: u64) -> String {
        if !step.is_empty() {
            return step.into();
        }
        let seconds = now.saturating_sub(self.book.from) as f64 / 1e9;
        let what = match self.book.plan.finish {
            Finish::Shown => "deliveries",
            Finish::Acknowledged => "acknowledged",
        };
        format!("{:.0} {what} a second", self.book.count as f64 / seconds.max(0.001))
    }

    fn listen(&mut self, limit: Duration, links: &mut Links) -> Result<(), Halt> {
        links.wait(limit, |place, now, heard| self.book.hear(place, now, heard))?;
        self.book.failure.take().map_or(Ok(()), |failure| Err(Halt::failed(failure)))
    }

    fn fill_windows(&mut self, window: u32, links: &mut Links) {
        for talker in 0..self.said.len() {
            let place = self.place(talker);
            if self.may_say(talker, window) && !links.is_blocked(place) {
                let now = links.now();
                while self.may_say(talker, window) {
                    self.say(talker, now, links);
                }
                links.flush(place);
            }
        }
    }

    /// Whether `talker` has fewer than so many unfinished messages, and not too many of them in the room whose turn it is.
    fn may_say(&self, talker: usize, window: u32) -> bool {
        let said = self.said[talker];
        said - self.book.finished[talker] < window
            && !self.book.is_full(talker, said)
            && !self.is_over()
    }

    /// When the next message is due with a rate, as long as anything is to be said.
    fn next_due(&self, rate: u32) -> Option<u64> {
        let number = u128::from(self.said_in_all);
        let due = self.begin + (number * 1_000_000_000 / u128::from(rate.max(1))) as u64;
        (due < self.book.until).then_some(due)
    }

    fn say_what_is_due(&mut self, rate: u32, links: &mut Links) {
        while let Some(due) = self.next_due(rate) {
            let now = links.now();
            let talker = (self.said_in_all % self.said.len() as u64) as usize;
            // A server that lets so much wait is waited for; the messages meanwhile are late.
            if due > now || !self.may_say(talker, UNFINISHED_MAX) {
                return;
            }
            self.late_max = self.late_max.max(now - due);
            self.say(talker, due, links);
            links.flush(self.place(talker));
        }
    }

    fn say(&mut self, talker: usize, at: u64, links: &mut Links) {
        let id = self.said[talker];
        let (voice, number) = self.book.voice_of(talker, id);
        self.book.note_said(voice, number, at);
        self.said[talker] += 1;
        self.said_in_all += 1;
        let place = self.place(talker);
        links.say(place, |out| self.templates[voice].put(id, number, out));
    }

    /// Waits until all that was said has come, or nothing comes any more.
    fn drain(&mut self, links: &mut Links, watch: &mut Watch) -> Result<(), Halt> {
        self.book.heard_at = links.now();
        loop {
            let mut unsaid = false;
            if let Pace::Rate(rate) = self.book.plan.pace {
                self.say_what_is_due(rate, links);
                unsaid = self.next_due(rate).is_some();
            }
            let complete = !unsaid && self.book.missing(&self.said) == (0, 0);
            if complete || links.now().saturating_sub(self.book.heard_at) >= DRAIN_LIMIT_NS {
                return Ok(());
            }
            self.listen(PATIENCE, links)?;
            watch.go_on(1.0, || "waits for the rest".into())?;
        }
    }
}

#[cfg(test)]
mod tests;
