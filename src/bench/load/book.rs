//! What becomes of the messages of simulated people: who was shown which, who was acknowledged what, and when.
//!
//! ```text
//!   group 0      talker 0: message 0 1 2 3 4 …       a talker speaks in its rooms in turn: message 4 of a talker
//!   rooms 0, 2    in room  0 2 0 2 0 …               with 2 rooms is number 2 of its *voice* in the first of them
//! ```
//!
//! A *voice* is a talker in one of its rooms: its messages have numbers of their own, so each member knows which one must come next.

use hdrhistogram::Histogram;

use super::{Finish, Pace, Plan, UNFINISHED_MAX, WARM_UP_MAX};
use crate::bench::figures::new_histogram;
use crate::bench::gather::reason;
use crate::bench::speech::Heard;

/// A talker in one of its rooms.
#[derive(Clone, Copy, Debug)]
struct Voice {
    /// Whose members hear it.
    group: u32,
    talker: u32,
    /// The how manieth room of its talker this is.
    turn: u32,
    /// Where the numbers begin that its room's first member expects.
    expected_at: u32,
}

/// A member: a connection.
#[derive(Clone, Copy, Debug)]
struct Listener {
    group: u32,
    /// Where its numbers begin among those of a room.
    expected_at: u32,
}

/// What becomes of the messages.
pub(super) struct Book {
    pub(super) plan: Plan,
    voices: Vec<Voice>,
    listeners: Vec<Listener>,
    /// `ring` of each voice's messages are told apart, by the last bits of their number.
    mask: u32,
    ring: usize,
    /// By message: when it was, or should have been, said.
    said_at: Vec<u64>,
    /// By message: how many members were shown it.
    showings: Vec<u32>,
    /// By voice: how many messages are finished, and acknowledged.
    finished_of_voice: Vec<u32>,
    acknowledged: Vec<u32>,
    /// By talker: how many messages are finished.
    pub(super) finished: Vec<u32>,
    /// By room, member and sender of the room: the number that comes next.
    expected: Vec<u32>,
    /// What is measured lies between these.
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) count: u64,
    pub(super) times: Histogram<u64>,
    pub(super) lost: u64,
    pub(super) twice: u64,
    pub(super) heard_at: u64,
    pub(super) failure: Option<String>,
}

impl Book {
    pub(super) fn new(plan: Plan, begin: u64) -> Self {
        let ring = (2 * unfinished_max(&plan) as usize).next_power_of_two();
        let (voices, talkers) = (plan.rooms * plan.senders, plan.groups * plan.senders);
        let of_room = plan.members * plan.senders;
        let voice = |voice: usize| {
            let (room, sender) = (voice / plan.senders, voice % plan.senders);
            let group = room % plan.groups;
            Voice {
                group: group as u32,
                talker: (group * plan.senders + sender) as u32,
                turn: (room / plan.groups) as u32,
                expected_at: (room * of_room + sender) as u32,
            }
        };
        let listener = |place: usize| Listener {
            group: (place / plan.members) as u32,
            expected_at: (place % plan.members * plan.senders) as u32,
        };
        let from = begin + WARM_UP_MAX.min(plan.lasts / 5).as_nanos() as u64;
        Self {
            plan,
            voices: (0..voices).map(voice).collect(),
            listeners: (0..plan.groups * plan.members).map(listener).collect(),
            mask: ring as u32 - 1,
            ring,
            said_at: vec![0; voices * ring],
            showings: vec![0; voices * ring],
            finished_of_voice: vec![0; voices],
            acknowledged: vec![0; voices],
            finished: vec![0; talkers],
            expected: vec![0; plan.rooms * of_room],
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

    /// The voice of message `id` of `talker`, and its number there.
    pub(super) fn voice_of(&self, talker: usize, id: u32) -> (usize, u32) {
        let turns = self.plan.turns();
        let (group, sender) = (talker / self.plan.senders, talker % self.plan.senders);
        let room = (id % turns) as usize * self.plan.groups + group;
        (room * self.plan.senders + sender, id / turns)
    }

    /// Whether message `id` of `talker` would be one too many in its room.
    pub(super) fn is_full(&self, talker: usize, id: u32) -> bool {
        let (voice, number) = self.voice_of(talker, id);
        number - self.finished_of_voice[voice] >= unfinished_max(&self.plan)
    }

    /// Message `number` of `voice` is said `at` this time.
    pub(super) fn note_said(&mut self, voice: usize, number: u32, at: u64) {
        let slot = self.slot(voice, number);
        self.said_at[slot] = at;
    }

    fn slot(&self, voice: usize, number: u32) -> usize {
        voice * self.ring + (number & self.mask) as usize
    }

    #[inline]
    pub(super) fn hear(&mut self, place: usize, now: u64, heard: Heard) {
        match heard {
            Heard::Delivery { sender, number } => self.shown(place, now, sender, number),
            Heard::Ack(id) => self.answered(place, now, id),
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
    fn shown(&mut self, place: usize, now: u64, voice: usize, number: u32) {
        let listener = self.listeners[place];
        let Some(Voice { talker, expected_at, .. }) =
            self.voices.get(voice).filter(|voice| voice.group == listener.group).copied()
        else {
            self.failure = Some("a server shows what was said in another room".into());
            return;
        };
        let expected = &mut self.expected[(expected_at + listener.expected_at) as usize];
        if number < *expected {
            self.twice += 1;
            return;
        }
        self.lost += u64::from(number - *expected);
        *expected = number + 1;
        if self.plan.finish == Finish::Shown {
            let slot = self.slot(voice, number);
            self.count(now, slot);
            self.showings[slot] += 1;
            if self.showings[slot] as usize == self.plan.members {
                self.showings[slot] = 0;
                self.finish(voice, talker as usize);
            }
        }
    }

    fn answered(&mut self, place: usize, now: u64, id: u32) {
        let (group, member) = (place / self.plan.members, place % self.plan.members);
        let talker = group * self.plan.senders + member;
        let (voice, number) = self.voice_of(talker, id);
        // Those of a room come in the order of its messages.
        if number < self.acknowledged[voice] {
            self.twice += 1;
            return;
        }
        self.acknowledged[voice] += 1;
        if self.plan.finish == Finish::Acknowledged {
            self.count(now, self.slot(voice, number));
            self.finish(voice, talker);
        }
    }

    fn finish(&mut self, voice: usize, talker: usize) {
        self.finished_of_voice[voice] += 1;
        self.finished[talker] += 1;
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

    /// What has not come yet of what each talker `said`: showings, and acknowledgements.
    pub(super) fn missing(&self, said: &[u32]) -> (u64, u64) {
        let plan = &self.plan;
        let (mut showings, mut answers) = (0, 0);
        for (number, voice) in self.voices.iter().enumerate() {
            // Of the messages 0 up to what was said those with this turn.
            let turns = plan.turns();
            let said = (said[voice.talker as usize] + turns - 1 - voice.turn) / turns;
            let first = voice.expected_at as usize;
            let heard = self.expected[first..].iter().step_by(plan.senders).take(plan.members);
            showings += heard.map(|next| u64::from(said.saturating_sub(*next))).sum::<u64>();
            answers += u64::from(said - self.acknowledged[number]);
        }
        (showings, if plan.acknowledged { answers } else { 0 })
    }
}

/// How many unfinished messages a talker has in a room at most.
fn unfinished_max(plan: &Plan) -> u32 {
    let of_talker = match plan.pace {
        Pace::Window(window) => window,
        Pace::Rate(_) => UNFINISHED_MAX,
    };
    of_talker.div_ceil(plan.turns())
}
