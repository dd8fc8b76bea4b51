//! Elections on rings of any size and order of delivery: one leader, and the paper's bounds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::*;
use crate::network::transport::Outbox;
use crate::testing::start;

/// Servers on a ring, and links that keep order but not pace.
struct Ring {
    nodes: BTreeMap<NodeId, ElectionModule>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Message>>,
    rng: fastrand::Rng,
    now: Instant,
    /// Probes and replies, and announcements, sent so far.
    probes: u64,
    announcements: u64,
}

impl Ring {
    /// Servers that stand on the ring in the order of `ids`, each the right neighbour of the one before.
    fn of(ids: &[NodeId], seed: u64) -> Self {
        let module = |id: &NodeId| {
            let incarnation = Incarnation::new(id, 1, 0);
            ElectionModule::new(id.clone(), incarnation, ElectionTiming::default())
        };
        let mut ring = Self {
            nodes: ids.iter().map(|id| (id.clone(), module(id))).collect(),
            links: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(seed),
            now: start(),
            probes: 0,
            announcements: 0,
        };
        ring.close(ids);
        ring
    }

    /// Tells each of `ids` that this is its ring now.
    fn close(&mut self, ids: &[NodeId]) {
        for id in ids {
            self.step(id, |node, now, cm| node.members_changed(ids, now, cm));
        }
    }

    /// Lets one server take a step, and puts what it sends on the links.
    fn step(&mut self, id: &NodeId, act: impl FnOnce(&mut ElectionModule, Instant, &Outbox)) {
        let outbox = Outbox::new();
        let Some(node) = self.nodes.get_mut(id) else { return };
        act(node, self.now, &outbox);
        for (to, msg) in outbox.take_to_nodes() {
            match ElectionModule::parse_message(&msg).unwrap() {
                ElectionContent::Announcement { .. } => self.announcements += 1,
                _ => self.probes += 1,
            }
            let to = to.expect("an election speaks to neighbours");
            self.links.entry((id.clone(), to)).or_default().push_back(msg);
        }
    }

    fn start(&mut self, id: &NodeId) {
        self.step(id, |node, now, cm| node.start_election(now, cm));
    }

    /// Delivers the next message of some link; false when all links are empty.
    fn deliver_one(&mut self) -> bool {
        self.links.retain(|_, link| !link.is_empty());
        if self.links.is_empty() {
            return false;
        }
        let chosen = self.rng.usize(..self.links.len());
        let (link, queue) = self.links.iter_mut().nth(chosen).unwrap();
        let (to, msg) = (link.1.clone(), queue.pop_front().unwrap());
        self.step(&to, |node, now, cm| node.handle_message(&msg, now, cm));
        true
    }

    fn deliver_all(&mut self) {
        while self.deliver_one() {}
    }

    /// What `ServerNode` does: looks at the clock, and elects where no live server leads or a lower one does.
    fn settle(&mut self) {
        for _ in 0..50 {
            self.deliver_all();
            if self.leaders().len() == 1 && self.leaders().first() == self.nodes.keys().last() {
                return;
            }
            self.now += ElectionTiming::default().election_timeout;
            for id in self.nodes.keys().cloned().collect::<Vec<_>>() {
                self.step(&id, |node, now, cm| node.tick(now, cm));
                let leader = self.nodes[&id].leader();
                let due = !leader.is_some_and(|l| l >= id && self.nodes.contains_key(&l));
                if due && self.nodes[&id].state() != ServerState::ElectionInProgress {
                    self.start(&id);
                }
            }
            // Heartbeats carry terms.
            let terms: Vec<Term> = self.nodes.values().filter_map(|n| n.term().cloned()).collect();
            for node in self.nodes.values_mut() {
                for term in &terms {
                    node.observe_term(term);
                }
            }
        }
        panic!("no leader after 50 timeouts: {:?}", self.nodes);
    }

    /// Everyone's opinion of who leads; one entry when all agree.
    fn leaders(&self) -> BTreeSet<NodeId> {
        self.nodes.values().map(|node| node.leader().unwrap_or_else(|| "nobody".into())).collect()
    }

    fn terms(&self) -> BTreeSet<Option<&Term>> {
        self.nodes.values().map(Election::term).collect()
    }

    /// One leader, the highest id, and everyone in its term.
    fn assert_elected(&self, about: &str) {
        let highest = self.nodes.keys().last().unwrap();
        assert_eq!(self.leaders(), BTreeSet::from([highest.clone()]), "{about}");
        assert_eq!(self.terms().len(), 1, "{about}");
        for (id, node) in &self.nodes {
            let follows = if id == highest { ServerState::Leader } else { ServerState::Follower };
            assert_eq!(node.state(), follows, "{about}");
        }
    }
}

fn ids(count: usize) -> Vec<NodeId> {
    (1..=count).map(|n| format!("n{n}").into()).collect()
}

/// One server of the ring `n1 n2 n3`.
fn node(id: &str) -> ElectionModule {
    Ring::of(&ids(3), 0).nodes.remove(&id.into()).unwrap()
}

fn term(counter: u64, leader: &str) -> Term {
    Term { counter, leader: Incarnation::new(&leader.into(), 1, 0) }
}

fn from(sender: &str, content: &ElectionContent) -> Message {
    Message::new(MessageType::Election, sender).saying(content)
}

fn probe(id: &str, counter: u64, k: u32, d: u64) -> Message {
    from("n9", &ElectionContent::Probe { id: id.into(), counter, k, d, toward: Side::Right })
}

fn reply(id: &str, counter: u64, k: u32, toward: Side) -> Message {
    from("n9", &ElectionContent::Reply { id: id.into(), counter, k, d: 1, toward })
}

fn announcement(term: &Term) -> Message {
    let id = term.leader.node_id();
    from("n9", &ElectionContent::Announcement { id, term: term.clone() })
}

/// Hands `msg` over and returns what was sent, as (receiver, content).
fn hand(node: &mut ElectionModule, msg: &Message) -> Vec<(NodeId, ElectionContent)> {
    sent(node, |node, cm| node.handle_message(msg, start(), cm))
}

fn sent(
    node: &mut ElectionModule,
    act: impl FnOnce(&mut ElectionModule, &Outbox),
) -> Vec<(NodeId, ElectionContent)> {
    let outbox = Outbox::new();
    act(node, &outbox);
    let sent = outbox.take_to_nodes().into_iter();
    sent.map(|(to, msg)| (to.unwrap(), ElectionModule::parse_message(&msg).unwrap())).collect()
}

fn ceil_log2(n: u64) -> u64 {
    u64::from(n.next_power_of_two().trailing_zeros())
}

#[test]
fn the_highest_id_wins_on_rings_of_all_sizes_whoever_starts_and_within_the_bound() {
    for n in [1, 2, 3, 5, 8, 16, 64] {
        for seed in 0..30 {
            let mut order = ids(n);
            let mut ring = Ring::of(&order, seed);
            if seed % 2 == 1 {
                // The paper's ring: ids anywhere.
                ring.rng.shuffle(&mut order);
                ring.close(&order);
            }
            let mut starters = order.clone();
            ring.rng.shuffle(&mut starters);
            starters.truncate(match seed % 3 {
                0 => n,
                1 => 1,
                _ => ring.rng.usize(1..=n),
            });
            for id in &starters {
                // Someone who has heard of the election already does not start another.
                if ring.nodes[id].counter() == 0 {
                    ring.start(id);
                }
                for _ in 0..ring.rng.usize(..4) {
                    ring.deliver_one();
                }
            }
            ring.deliver_all();
            let about = format!("{n} servers, seed {seed}, {} start", starters.len());
            ring.assert_elected(&about);
            let n = n as u64;
            assert!(ring.probes <= 8 * n * (1 + ceil_log2(n)), "{about}: {} sent", ring.probes);
            assert!(ring.announcements <= n, "{about}: {} announcements", ring.announcements);
            assert_eq!(ring.nodes.values().map(ElectionModule::counter).max(), Some(1), "{about}");
        }
    }
}

#[test]
fn a_server_that_dies_at_any_point_of_an_election_does_not_stop_it() {
    let mut higher_rounds = 0;
    for seed in 0..400 {
        let mut order = ids(2 + seed as usize % 8);
        let mut ring = Ring::of(&order, seed);
        for id in &order {
            if ring.rng.bool() || *id == order[0] {
                ring.start(id);
            }
        }
        for _ in 0..ring.rng.usize(..60) {
            ring.deliver_one();
        }
        let victim = order.remove(ring.rng.usize(..order.len()));
        ring.nodes.remove(&victim);
        ring.links.retain(|(_, to), _| *to != victim); // What it sent may still arrive.
        ring.close(&order);
        ring.settle();
        ring.assert_elected(&format!("seed {seed}, {victim} died"));
        let round = ring.nodes.values().map(ElectionModule::counter).max();
        higher_rounds += u32::from(round > Some(1));
    }
    assert!(higher_rounds > 100, "elections were cut short: {higher_rounds}");
}

#[test]
fn a_candidate_whose_neighbour_dies_stands_again_in_a_higher_round() {
    let mut ring = Ring::of(&ids(3), 0);
    ring.start(&"n2".into());
    ring.deliver_one();
    ring.nodes.remove(&"n3".into());
    ring.links.clear();
    ring.close(&ids(2));
    assert_eq!(ring.nodes[&"n2".into()].counter(), 2);
    ring.deliver_all();
    ring.assert_elected("n3 died");
    assert_eq!(ring.terms(), BTreeSet::from([Some(&term(2, "n2"))]));
}

#[test]
fn many_elections_at_once_in_a_changing_ring_never_give_a_term_two_leaders() {
    let mut won_in_all = 0;
    for seed in 0..100 {
        let order = ids(6);
        let mut ring = Ring::of(&order, seed);
        let mut winners: BTreeMap<Term, NodeId> = BTreeMap::new();
        for _ in 0..200 {
            match ring.rng.u8(..10) {
                0 => {
                    let id = ring.rng.choice(&order).cloned().unwrap();
                    ring.start(&id);
                }
                1 => {
                    // Servers come and go in everyone's view, each in its own way.
                    let id = ring.rng.choice(&order).cloned().unwrap();
                    let mut view = order.clone();
                    ring.rng.shuffle(&mut view);
                    view.truncate(ring.rng.usize(0..4));
                    view.retain(|other| *other != id);
                    view.push(id.clone());
                    ring.step(&id, |node, now, cm| node.members_changed(&view, now, cm));
                }
                _ => _ = ring.deliver_one(),
            }
            for (id, node) in &ring.nodes {
                if node.state() == ServerState::Leader {
                    let won = winners.entry(node.term().unwrap().clone()).or_insert(id.clone());
                    assert_eq!(won, id, "seed {seed}");
                }
            }
        }
        won_in_all += winners.len();
        ring.links.clear();
        ring.close(&order);
        ring.settle();
        ring.assert_elected(&format!("seed {seed}"));
    }
    assert!(won_in_all > 100, "elections did end in between: {won_in_all}");
}

#[test]
fn messages_of_a_lower_round_are_ignored() {
    let mut n2 = node("n2");
    assert_eq!(hand(&mut n2, &probe("n3", 5, 0, 1)).len(), 1, "the last hop replies");
    assert_eq!(hand(&mut n2, &probe("n3", 4, 0, 1)), []);
    assert_eq!(hand(&mut n2, &probe("n1", 4, 0, 1)), []);
    assert_eq!(hand(&mut n2, &reply("n3", 4, 1, Side::Left)), []);
    assert_eq!(hand(&mut n2, &announcement(&term(4, "n3"))), []);
    assert_eq!((n2.counter(), n2.state(), n2.term()), (5, ServerState::Looking, None));
}

#[test]
fn a_round_is_over_for_whoever_knows_its_outcome() {
    let mut n2 = node("n2");
    assert!(n2.observe_term(&term(5, "n3")));
    assert_eq!(hand(&mut n2, &probe("n1", 5, 0, 1)), []);
    assert_eq!(n2.state(), ServerState::Follower);
    assert_eq!(hand(&mut n2, &announcement(&term(5, "n3"))), [], "it was passed on once");
    assert_eq!(hand(&mut n2, &probe("n1", 6, 0, 1)).len(), 2, "n2 outranks n1, and stands");
}

#[test]
fn a_late_announcement_of_an_older_round_neither_wins_nor_travels() {
    let mut n1 = node("n1");
    n1.observe_term(&term(7, "n2"));
    assert_eq!(hand(&mut n1, &announcement(&term(6, "n3"))), []);
    assert_eq!(n1.leader(), Some("n2".into()));
    assert!(!n1.observe_term(&term(6, "n3")));
    assert_eq!(n1.term(), Some(&term(7, "n2")));
}

#[test]
fn a_candidacy_goes_on_when_the_outcome_of_an_earlier_round_arrives() {
    let mut n2 = node("n2");
    sent(&mut n2, |n2, cm| n2.start_election(start(), cm));
    sent(&mut n2, |n2, cm| n2.start_election(start(), cm));
    assert!(n2.observe_term(&term(1, "n3")));
    assert_eq!((n2.state(), n2.counter()), (ServerState::ElectionInProgress, 2));
}

#[test]
fn each_side_replies_once_and_only_in_the_phase_that_runs() {
    let mut n2 = node("n2");
    sent(&mut n2, |n2, cm| n2.start_election(start(), cm));
    for msg in [
        reply("n2", 1, 0, Side::Right),
        reply("n2", 1, 0, Side::Right),
        reply("n2", 1, 1, Side::Left),
    ] {
        assert_eq!(hand(&mut n2, &msg), []);
        assert_eq!((n2.k(), n2.reply_counter()), (0, 1));
    }
    assert_eq!(hand(&mut n2, &reply("n2", 1, 0, Side::Left)).len(), 2, "probes of phase 1");
    assert_eq!((n2.k(), n2.reply_counter()), (1, 0));
}

#[test]
fn the_probe_of_a_candidate_that_is_gone_circles_no_longer_than_its_phase() {
    let mut ring = Ring::of(&ids(2), 1);
    let link = ("n2".into(), "n1".into());
    ring.links.insert(link, VecDeque::from([probe("n9", 1, 10, 1)]));
    ring.deliver_all();
    // The rest of 2^10 hops onwards, and as many back for the reply.
    assert_eq!(ring.probes, 1023 + 1024);
    let no_ring_is_so_large = probe("n9", 2, PHASE_MAX + 1, 1);
    assert!(ElectionModule::parse_message(&no_ring_is_so_large).is_err());
}

#[test]
fn servers_that_disagree_about_the_ring_fall_silent_sooner_or_later() {
    // n5 is an end of n1's ring and of n4's, and not on those of n2 and n3: its probes circle on both
    // sides, replies come back, and each phase is twice as long as the one before.
    let mut ring = Ring::of(&ids(5), 1);
    let views: [(&str, &[&str]); 4] = [
        ("n1", &["n5", "n1", "n2"]),
        ("n2", &["n1", "n2"]),
        ("n3", &["n3", "n4"]),
        ("n4", &["n3", "n4", "n5"]),
    ];
    for (id, view) in views {
        let view: Vec<NodeId> = view.iter().map(|id| NodeId::from(*id)).collect();
        ring.step(&id.into(), |node, now, cm| node.members_changed(&view, now, cm));
    }
    ring.start(&"n5".into());
    let mut delivered = 0;
    while ring.deliver_one() {
        delivered += 1;
        assert!(delivered < 8 << PHASE_MAX);
    }
    assert!(delivered > 4 << PHASE_MAX, "the last phase was reached: {delivered}");
    ring.close(&ids(5));
    ring.settle();
    ring.assert_elected("once they agree");
}

#[test]
fn a_former_life_of_a_server_does_not_lead() {
    let mut n3 = node("n3");
    n3.incarnation = Incarnation::new(&"n3".into(), 2, 0);
    assert!(n3.observe_term(&term(5, "n3")));
    assert_eq!((n3.leader(), n3.state()), (None, ServerState::Looking));
    assert_eq!(hand(&mut n3, &announcement(&term(6, "n3"))), [], "it has been everywhere");
    assert_eq!((n3.leader(), n3.counter()), (None, 6));
    // A probe of the former life is no proof that nobody outranks this one.
    assert_eq!(hand(&mut n3, &probe("n3", 7, 2, 3)), []);
    assert_eq!(n3.state(), ServerState::Looking);
    sent(&mut n3, |n3, cm| n3.start_election(start(), cm));
    assert_eq!(n3.counter(), 8);
}

#[test]
fn a_lost_election_is_started_again_and_patience_grows() {
    let mut n2 = node("n2");
    let mut now = start();
    let mut waits = Vec::new();
    sent(&mut n2, |n2, cm| n2.start_election(now, cm));
    for round in 2..=7 {
        let started = now;
        while n2.counter() < round {
            now += Duration::from_millis(10);
            sent(&mut n2, |n2, cm| n2.tick(now, cm));
        }
        assert_eq!(n2.state(), ServerState::ElectionInProgress);
        waits.push(now.duration_since(started).as_millis());
    }
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!((500..=750 + 10).contains(&waits[0]), "{waits:?}");
    assert!((8000..=8250 + 10).contains(&waits[5]), "patience is bounded: {waits:?}");
    n2.observe_term(&term(9, "n3"));
    assert_eq!(sent(&mut n2, |n2, cm| n2.tick(now + Duration::from_secs(60), cm)), []);
    assert_eq!(n2.state(), ServerState::Follower, "no round is open");
}

#[test]
fn a_round_whose_candidate_is_lost_ends_with_nobody_followed() {
    let mut n2 = node("n2");
    n2.observe_term(&term(1, "n3"));
    hand(&mut n2, &probe("n3", 2, 0, 1));
    assert_eq!(n2.state(), ServerState::Follower, "until the round is given up");
    sent(&mut n2, |n2, cm| n2.tick(start() + Duration::from_secs(1), cm));
    assert_eq!((n2.state(), n2.term()), (ServerState::Looking, Some(&term(1, "n3"))));
}

/// The sixteen servers of a ring kept cutting each other's rounds short: each looked for a leader more often than a
/// message of a slow link arrives.
#[test]
fn servers_that_look_for_a_leader_all_the_time_do_not_cut_each_other_short() {
    for seed in 0..5 {
        let ids = ids(16);
        let mut ring = Ring::of(&ids, seed);
        for _ in 0..10_000 {
            for id in &ids {
                let looks = ring.nodes[id].leader().is_none() && !ring.nodes[id].is_under_way();
                if looks && ring.rng.u8(..50) == 0 {
                    ring.start(id);
                }
            }
            ring.now += Duration::from_millis(1);
            ring.deliver_one();
        }
        let leaders: BTreeSet<_> = ids.iter().map(|id| ring.nodes[id].leader()).collect();
        assert_eq!(leaders, [Some(ids[15].clone())].into(), "seed {seed}");
        assert!(ring.nodes[&ids[0]].counter < 10, "seed {seed}: {}", ring.nodes[&ids[0]].counter);
    }
}

#[test]
fn two_sides_of_a_partition_elect_and_the_higher_term_wins_when_they_meet() {
    let order = ids(5);
    let mut ring = Ring::of(&order, 3);
    ring.close(&order[..2]);
    ring.close(&order[2..]);
    ring.start(&"n1".into());
    ring.start(&"n3".into());
    ring.deliver_all();
    let (low, high) = (term(1, "n2"), term(1, "n5"));
    assert_eq!(ring.terms(), BTreeSet::from([Some(&low), Some(&high)]), "same round, two terms");
    ring.close(&order);
    for node in ring.nodes.values_mut() {
        node.observe_term(&low);
        node.observe_term(&high);
    }
    ring.assert_elected("the sides have met");
}

#[test]
fn malformed_contents_are_ignored() {
    let good = probe("n3", 1, 0, 1).serialize();
    for (old, new) in [
        ("\"kind\":\"probe\"", "\"kind\":\"vote\""),
        ("\"d\":1", "\"d\":0"),
        ("\"d\":1", "\"d\":2"),
        ("\"d\":1", "\"d\":-1"),
        ("\"k\":0", "\"k\":64"),
        ("\"k\":0", "\"k\":4294967295"),
        ("\"counter\":1", "\"counter\":0"),
        ("\"counter\":1", "\"counter\":9007199254740993"),
        ("\"toward\":\"right\"", "\"toward\":\"up\""),
        ("\"id\":\"n3\"", "\"id\":\"\""),
        ("\"id\":\"n3\"", "\"id\":\"n\\n3\""),
        ("ELECTION", "CHAT"),
    ] {
        let bad = good.replacen(old, new, 1);
        assert_ne!(bad, good, "{old} is in a probe");
        let mut n2 = node("n2");
        let bad = Message::deserialize(&bad).unwrap();
        assert!(ElectionModule::parse_message(&bad).is_err(), "{new}");
        assert_eq!(hand(&mut n2, &bad), [], "{new}");
        assert_eq!((n2.counter(), n2.state()), (0, ServerState::Looking), "{new}");
    }
    let of_another = ElectionContent::Announcement { id: "n2".into(), term: term(1, "n3") };
    assert!(ElectionModule::parse_message(&from("n2", &of_another)).is_err());
    assert_eq!(hand(&mut node("n2"), &Message::new(MessageType::Election, "n9")), []);
}

#[test]
fn the_last_round_can_be_won_once_and_none_comes_after_it() {
    let mut n3 = node("n3");
    assert!(!n3.observe_term(&term(COUNTER_MAX + 1, "n9")));
    assert!(n3.observe_term(&term(COUNTER_MAX - 1, "n2")));
    sent(&mut n3, |n3, cm| n3.members_changed(&["n3".into()], start(), cm));
    sent(&mut n3, |n3, cm| n3.start_election(start(), cm));
    assert_eq!(n3.term(), Some(&term(COUNTER_MAX, "n3")));
    n3.forget_leader();
    sent(&mut n3, |n3, cm| n3.start_election(start(), cm));
    assert_eq!((n3.state(), n3.counter()), (ServerState::Looking, COUNTER_MAX));
}
