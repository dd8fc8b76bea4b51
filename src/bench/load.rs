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
//! Each member expects each sender's next number: a number that is skipped is a lost message, one that comes again is
//! shown twice. What has not come when nothing has come for [`DRAIN_LIMIT_NS`] is lost, too.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::figures::new_histogram;
use super::gather::reason;
use super::gauge::{Gauge, Spent, thread_cpu};
use super::links::Links;
use super::speech::{Heard, Template};
use super::watch::{Halt, PATIENCE, Watch};

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
    /// How many members in each.
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
    /// How long a message is as it is said.
    pub(super) said_bytes: usize,
}

/// Runs `plan` with the clients of `links`, which are in their rooms: first all members of the first room, then those of
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
    let own_cpu = thread_cpu() - own_before;
    let bytes = links.bytes_read() - bytes_before;
    let before = gauge.take();
    gauge.ask();
    talk.drain(links, watch)?;
    let after = gauge.take();
    let seconds = (talk.book.until - talk.book.from) as f64 / 1e9;
    let spent = before.zip(after).map(|(before, after)| after.since(&before));
    let (lost, unanswered) = talk.missing();
    Ok(Outcome {
        seconds,
        count: talk.book.count,
        bytes,
        lost: talk.book.lost + lost,
        twice: talk.book.twice,
        unanswered,
        own_cores: own_cpu / seconds,
        own_cpu,
        late_max: talk.late_max,
        spent: spent.unwrap_or_default(),
        resident_kib: after.and_then(|after| after.resident_kib),
        said_bytes: talk.templates.first().map_or(0, Template::frame_bytes),
        times: talk.book.times,
    })
}

/// What becomes of the messages.
struct Book {
    plan: Plan,
    /// `ring` of each sender's messages are told apart, by the last bits of their number.
    mask: u32,
    ring: usize,
    /// By message: when it was, or should have been, said.
    said_at: Vec<u64>,
    /// By message: how many members were shown it.
    showings: Vec<u32>,
    /// By sender: how many messages are finished, and acknowledged.
    finished: Vec<u32>,
    acknowledged: Vec<u32>,
    /// By member and sender of the room: the number that comes next.
    expected: Vec<u32>,
    /// By member: the first sender of its room.
    first_sender: Vec<usize>,
    /// What is measured lies between these.
    from: u64,
    until: u64,
    count: u64,
    times: Histogram<u64>,
    lost: u64,
    twice: u64,
    heard_at: u64,
    failure: Option<String>,
}

impl Book {
    fn new(plan: Plan, begin: u64) -> Self {
        let most = match plan.pace {
            Pace::Window(window) => window,
            Pace::Rate(_) => UNFINISHED_MAX,
        };
        let ring = (2 * most as usize).next_power_of_two();
        let (people, senders) = (plan.rooms * plan.members, plan.rooms * plan.senders);
        let from = begin + WARM_UP_MAX.min(plan.lasts / 5).as_nanos() as u64;
        Self {
            plan,
            mask: ring as u32 - 1,
            ring,
            said_at: vec![0; senders * ring],
            showings: vec![0; senders * ring],
            finished: vec![0; senders],
            acknowledged: vec![0; senders],
            expected: vec![0; people * plan.senders],
            first_sender: (0..people).map(|place| place / plan.members * plan.senders).collect(),
            from,
            until: from + plan.lasts.as_nanos() as u64,
            count: 0,
            times: new_histogram(),
            lost: 0,
            twice: 0,
            heard_at: begin,
            failure: None,
        }
    }

    fn slot(&self, sender: usize, number: u32) -> usize {
        sender * self.ring + (number & self.mask) as usize
    }

    #[inline]
    fn hear(&mut self, place: usize, now: u64, heard: Heard) {
        match heard {
            Heard::Delivery { sender, number } => self.shown(place, now, sender, number),
            Heard::Ack(number) => self.answered(place, now, number),
            Heard::Refused(body) => {
                self.failure = Some(format!("a server refuses: {}", reason(body)));
            }
            Heard::Gone => {
                self.failure.get_or_insert("a server closed a connection".into());
            }
            _ => return,
        }
        self.heard_at = now;
    }

    #[inline]
    fn shown(&mut self, place: usize, now: u64, sender: usize, number: u32) {
        let of_room = sender.wrapping_sub(self.first_sender[place]);
        if of_room >= self.plan.senders {
            self.failure = Some("a server shows what was said in another room".into());
            return;
        }
        let expected = &mut self.expected[place * self.plan.senders + of_room];
        if number < *expected {
            self.twice += 1;
            return;
        }
        self.lost += u64::from(number - *expected);
        *expected = number + 1;
        if self.plan.finish == Finish::Shown {
            let slot = self.slot(sender, number);
            self.count(now, slot);
            self.showings[slot] += 1;
            if self.showings[slot] as usize == self.plan.members {
                self.showings[slot] = 0;
                self.finished[sender] += 1;
            }
        }
    }

    fn answered(&mut self, place: usize, now: u64, number: u32) {
        let sender = self.first_sender[place] + place % self.plan.members;
        // They come in the order of the messages.
        if number < self.acknowledged[sender] {
            self.twice += 1;
            return;
        }
        self.acknowledged[sender] += 1;
        if self.plan.finish == Finish::Acknowledged {
            self.count(now, self.slot(sender, number));
            self.finished[sender] += 1;
        }
    }

    #[inline]
    fn count(&mut self, now: u64, slot: usize) {
        let said_at = self.said_at[slot];
        // With a rate all that was due in the time counts, also what comes after it: else a standstill at its end would
        // be hidden. With a window it is the rate that is asked for.
        let at = match self.plan.pace {
            Pace::Window(_) => now,
            Pace::Rate(_) => said_at,
        };
        if at >= self.from && at < self.until {
            self.count += 1;
            self.times.saturating_record(now.saturating_sub(said_at));
        }
    }
}

struct Talk {
    book: Book,
    templates: Vec<Template>,
    /// By sender: how many messages were said.
    said: Vec<u32>,
    /// With a rate: how many over all senders.
    said_in_all: u64,
    begin: u64,
    late_max: u64,
}

impl Talk {
    fn new(room_names: &[String], plan: Plan, begin: u64) -> Self {
        let senders = plan.rooms * plan.senders;
        let template = |sender: usize| {
            Template::new(&room_names[sender / plan.senders], sender, plan.text_bytes)
        };
        Self {
            book: Book::new(plan, begin),
            templates: (0..senders).map(template).collect(),
            said: vec![0; senders],
            said_in_all: 0,
            begin,
            late_max: 0,
        }
    }

    /// Where the connection of `sender` is.
    fn place(&self, sender: usize) -> usize {
        let plan = &self.book.plan;
        sender / plan.senders * plan.members + sender % plan.senders
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
            if now >= end {
                return Ok(());
            }
            match self.book.plan.pace {
                Pace::Window(window) => self.fill_windows(window, links),
                Pace::Rate(rate) => self.say_what_is_due(rate, links),
            }
            self.listen(Duration::from_nanos(end - now).min(PATIENCE), links)?;
            let done = (now - began) as f64 / (end - began).max(1) as f64;
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
        for sender in 0..self.said.len() {
            let place = self.place(sender);
            if self.said[sender] - self.book.finished[sender] < window && !links.is_blocked(place) {
                let now = links.now();
                while self.said[sender] - self.book.finished[sender] < window {
                    self.say(sender, now, links);
                }
                links.flush(place);
            }
        }
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
            let sender = (self.said_in_all % self.said.len() as u64) as usize;
            // A server that lets so much wait is waited for; the messages meanwhile are late.
            let too_many = self.said[sender] - self.book.finished[sender] >= UNFINISHED_MAX;
            if due > now || too_many {
                return;
            }
            self.late_max = self.late_max.max(now - due);
            self.said_in_all += 1;
            self.say(sender, due, links);
            links.flush(self.place(sender));
        }
    }

    fn say(&mut self, sender: usize, at: u64, links: &mut Links) {
        let number = self.said[sender];
        let slot = self.book.slot(sender, number);
        self.book.said_at[slot] = at;
        self.said[sender] += 1;
        let place = self.place(sender);
        links.say(place, |out| self.templates[sender].put(number, out));
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
            let complete = !unsaid && self.missing() == (0, 0);
            if complete || links.now().saturating_sub(self.book.heard_at) >= DRAIN_LIMIT_NS {
                return Ok(());
            }
            self.listen(PATIENCE, links)?;
            watch.go_on(1.0, || "waits for the rest".into())?;
        }
    }

    /// What has not come yet: showings, and acknowledgements.
    fn missing(&self) -> (u64, u64) {
        let plan = &self.book.plan;
        let showings = self.book.expected.iter().enumerate().map(|(place, next)| {
            let sender = self.book.first_sender[place / plan.senders] + place % plan.senders;
            u64::from(self.said[sender].saturating_sub(*next))
        });
        let answers = self.said.iter().zip(&self.book.acknowledged);
        let answers: u64 = answers.map(|(said, answered)| u64::from(said - answered)).sum();
        (showings.sum(), if plan.acknowledged { answers } else { 0 })
    }
}

#[cfg(test)]
mod tests;
