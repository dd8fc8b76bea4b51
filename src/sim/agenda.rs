//! What happens next: one heap of `(at, number, event)` and the virtual time.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::domain::Frame;
use crate::storage::LogIndex;

/// Virtual time, or a span of it, in microseconds since the simulation began.
pub type Micros = u64;

/// A millisecond of virtual time.
pub(super) const MS: Micros = 1_000;
/// A second of virtual time.
pub const SECOND: Micros = 1_000_000;

/// Names a machine: the servers first, then the clients, then the observers.
pub type Host = usize;

/// Something that will happen. `life` counts the starts of a server: what was meant for an earlier life is void.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// What travels on `conn` towards its end `side` arrives.
    Deliver { conn: u64, side: usize },
    /// The end `side` of `conn` learns that the other one is gone.
    Reset { conn: u64, side: usize, why: &'static str },
    /// The reader of an end that its own server closed ends.
    Ended { conn: u64, side: usize },
    /// An end that is cut off may give up.
    GaveUp { conn: u64, side: usize },
    /// A reader that was told to go on does.
    Resume { conn: u64, side: usize },
    /// The request for a connection arrives at the dialled machine.
    Dial { conn: u64 },
    /// The dialled server takes the connection from its system.
    Accept { conn: u64 },
    /// The dialling side's connection stands.
    Connected { conn: u64 },
    /// It does not.
    DialFailed { conn: u64, refused: bool },
    /// A datagram arrives.
    Datagram { host: Host, from: Host, frame: Frame },
    /// The heartbeat monitor ticks.
    Heartbeat { host: Host, life: u64 },
    /// The timeout checker ticks.
    Timeouts { host: Host, life: u64 },
    /// The disk has synced what was appended up to `index`.
    Synced { host: Host, life: u64, index: LogIndex },
    /// The disk answers what it was asked.
    LogSaid { host: Host, life: u64 },
    /// A server crashes.
    Crash { host: Host, life: u64 },
    /// A crashed server is started again.
    Restart { host: Host, life: u64 },
    /// A server that slept goes on.
    Wake { host: Host, life: u64 },
    /// A client's user does something.
    Act { host: Host },
    /// A client tries the next server.
    Attempt { host: Host, attempt: u64 },
    /// A client was not welcomed in time.
    WelcomeOverdue { host: Host, attempt: u64 },
    /// A client looks for silence.
    ClientTick { host: Host },
    /// A fault of the plan ends or, when it flaps, turns over.
    FaultTurns { fault: usize, turn: u32 },
    /// The next fault may be due; the cluster may have come to rest.
    Look,
    /// A connection is reset at random.
    RandomReset,
}

#[derive(Debug)]
struct Entry {
    at: Micros,
    number: u64,
    event: Event,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

/// The events to come, and the present moment.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    count: u64,
    now: Micros,
}

impl Agenda {
    /// The present moment.
    pub(super) fn now(&self) -> Micros {
        self.now
    }

    /// Lets `event` happen at `at`, or now when that is past. Of two at one moment the one planned first is first.
    pub(super) fn at(&mut self, at: Micros, event: Event) {
        self.count += 1;
        self.heap.push(Reverse(Entry { at: at.max(self.now), number: self.count, event }));
    }

    /// Lets `event` happen after `pause`.
    pub(super) fn after(&mut self, pause: Micros, event: Event) {
        self.at(self.now + pause, event);
    }

    /// Moves to the next event and takes it.
    pub(super) fn take_next(&mut self) -> Option<Event> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_planning() {
        let mut agenda = Agenda::default();
        agenda.at(5, Event::Act { host: 1 });
        agenda.at(5, Event::Act { host: 2 });
        agenda.at(3, Event::Act { host: 3 });
        let mut hosts = Vec::new();
        while let Some(Event::Act { host }) = agenda.take_next() {
            hosts.push((agenda.now(), host));
        }
        assert_eq!(hosts, [(3, 3), (5, 1), (5, 2)]);
    }
}
