//! Whom to dial, and when: seeds for ever, others while they are wanted, with growing pauses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::domain::NodeId;

/// The pause after the first failed dial; it doubles up to [`DIAL_PAUSE_MAX`].
const DIAL_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two dials of an address.
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long an address that somebody typed is dialled: it may be wrong.
const TRY_OUT: Duration = Duration::from_secs(60);
/// How much later the higher id of a pair dials, so that both seldom dial at once.
const DIAL_STAGGER: Duration = Duration::from_millis(200);

/// The addresses to dial, and when.
#[derive(Debug, Default)]
pub struct Dials {
    wanted: BTreeMap<String, Dial>,
    /// Addresses from `--peers`: they are tried for ever.
    seeds: BTreeSet<String>,
    /// Which server answered at an address; this server itself for its own.
    known: BTreeMap<String, NodeId>,
    /// This server's own addresses, found out by dialling them.
    own: BTreeSet<String>,
}

#[derive(Debug)]
struct Dial {
    at: Instant,
    pause: Duration,
    under_way: bool,
    /// When it is given up.
    until: Option<Instant>,
}

impl Dials {
    /// Dials `seeds` from `now` on, and never `own`.
    pub fn new(seeds: &[String], own: &str, now: Instant) -> Self {
        let mut dials = Self { seeds: seeds.iter().cloned().collect(), ..Self::default() };
        dials.own.insert(own.into());
        for seed in seeds {
            dials.want(seed, now);
        }
        dials
    }

    /// Whose turn it is first between `me` and `other`: the lower id's.
    pub fn stagger(me: &NodeId, other: &NodeId) -> Duration {
        if me < other { Duration::ZERO } else { DIAL_STAGGER }
    }

    /// Dials `address` from now on until it is connected.
    pub fn want(&mut self, address: &str, now: Instant) {
        self.want_after(address, Duration::ZERO, now);
    }

    /// The same, not before `pause` has passed.
    pub fn want_after(&mut self, address: &str, pause: Duration, now: Instant) {
        if !self.own.contains(address) && !self.wanted.contains_key(address) {
            let dial = Dial { at: now + pause, pause: DIAL_PAUSE, under_way: false, until: None };
            self.wanted.insert(address.into(), dial);
        }
    }

    /// Dials `address`, which somebody typed, for a minute.
    pub fn try_out(&mut self, address: &str, now: Instant) {
        self.want(address, now);
        if let Some(dial) = self.wanted.get_mut(address)
            && !self.known.contains_key(address)
        {
            dial.until = Some(now + TRY_OUT);
        }
    }

    /// The addresses to dial now. One that led to a server among `connected` is left alone.
    pub fn due(&mut self, now: Instant, connected: &[&NodeId]) -> Vec<String> {
        let Self { wanted, known, own, seeds } = self;
        wanted.retain(|address, dial| {
            let reached = known.get(address).is_some_and(|id| connected.contains(&id));
            let is_seed = seeds.contains(address);
            let is_over = !is_seed && dial.until.is_some_and(|until| now >= until);
            dial.under_way || (!own.contains(address) && (!reached || is_seed) && !is_over)
        });
        let mut due = Vec::new();
        for (address, dial) in wanted {
            let reached = known.get(address).is_some_and(|id| connected.contains(&id));
            if !dial.under_way && !reached && dial.at <= now {
                dial.under_way = true;
                due.push(address.clone());
            }
        }
        due
    }

    /// A dial of `address` did not work, or the connection ended: again after a pause.
    pub fn failed(&mut self, address: &str, now: Instant) {
        if let Some(dial) = self.wanted.get_mut(address) {
            dial.under_way = false;
            dial.at = now + dial.pause;
            dial.pause = (dial.pause * 2).min(DIAL_PAUSE_MAX);
        }
    }

    /// `id` answered at `address`.
    pub fn reached(&mut self, address: &str, id: &NodeId) {
        self.known.insert(address.into(), id.clone());
        if let Some(dial) = self.wanted.get_mut(address) {
            (dial.pause, dial.until) = (DIAL_PAUSE, None);
        }
    }

    /// Whether every seed has answered once; false when there are none.
    pub fn all_reached(&self) -> bool {
        let is_reached = |seed| self.known.contains_key(seed) || self.own.contains(seed);
        !self.seeds.is_empty() && self.seeds.iter().all(is_reached)
    }

    /// `address` is dialled no more, unless it is a seed.
    pub fn forget(&mut self, address: &str) {
        if !self.seeds.contains(address) {
            self.wanted.remove(address);
        }
    }

    /// `address` is this server's own.
    pub fn is_own(&mut self, address: &str) {
        self.own.insert(address.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    #[test]
    fn an_address_is_dialled_once_at_a_time_and_again_after_a_growing_pause() {
        let now = start();
        let mut dials = Dials::new(&["a:1".into(), "own:1".into()], "own:1", now);
        assert_eq!(dials.due(now, &[]), ["a:1"]);
        assert!(dials.due(now, &[]).is_empty(), "under way");
        dials.failed("a:1", now);
        assert!(dials.due(now, &[]).is_empty(), "pausing");
        assert_eq!(dials.due(now + DIAL_PAUSE, &[]), ["a:1"]);
        dials.failed("a:1", now + DIAL_PAUSE);
        assert!(dials.due(now + DIAL_PAUSE * 2, &[]).is_empty(), "the pause has doubled");
        assert_eq!(dials.due(now + DIAL_PAUSE * 3, &[]), ["a:1"]);
    }

    #[test]
    fn a_connected_server_is_left_alone_and_a_lost_seed_is_dialled_again() {
        let now = start();
        let n2 = NodeId::from("n2");
        let mut dials = Dials::new(&["a:1".into()], "own:1", now);
        dials.due(now, &[]);
        dials.reached("a:1", &n2);
        dials.failed("a:1", now); // the dialled connection ended; another one to n2 stands
        let later = now + DIAL_PAUSE_MAX;
        assert!(dials.due(later, &[&n2]).is_empty());
        assert_eq!(dials.due(later, &[]), ["a:1"]);
    }

    #[test]
    fn an_address_that_somebody_typed_is_given_up() {
        let now = start();
        let mut dials = Dials::new(&[], "own:1", now);
        dials.try_out("a:1", now);
        assert_eq!(dials.due(now, &[]), ["a:1"]);
        dials.failed("a:1", now);
        assert_eq!(dials.due(now + DIAL_PAUSE_MAX, &[]), ["a:1"]);
        dials.failed("a:1", now + DIAL_PAUSE_MAX);
        assert!(dials.due(now + TRY_OUT, &[]).is_empty());
        // One that answered is a server like others.
        dials.try_out("b:1", now);
        dials.due(now, &[]);
        dials.reached("b:1", &"n2".into());
        dials.failed("b:1", now);
        assert_eq!(dials.due(now + TRY_OUT, &[]), ["b:1"]);
    }

    #[test]
    fn the_lower_id_of_a_pair_dials_first() {
        let (n2, n10) = (NodeId::from("n2"), NodeId::from("n10"));
        assert!(Dials::stagger(&n2, &n10) < Dials::stagger(&n10, &n2));
    }
}
