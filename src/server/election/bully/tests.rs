//! Elections among servers that all know each other, some of them dead: the highest one leads.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;
use crate::network::transport::Outbox;
use crate::testing::start;

/// Servers that all know each other, and links that keep order but not pace.
struct Cluster {
    nodes: BTreeMap<NodeId, BullyElection>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Message>>,
    rng: fastrand::Rng,
    now: Instant,
    sent: BTreeMap<MessageType, u64>,
}

impl Cluster {
    fn of(ids: &[NodeId], seed: u64) -> Self {
        let mut cluster = Self {
            nodes: ids.iter().map(|id| (id.clone(), module(id))).collect(),
            links: BTreeMap::new(),
            rng: fastrand::Rng::with_seed(seed),
            now: start(),
            sent: BTreeMap::new(),
        };
        cluster.meet(ids);
        cluster
    }

    /// Tells each of `ids` that these are alive now.
    fn meet(&mut self, ids: &[NodeId]) {
        for id in ids {
            self.step(id, |node, now, cm| node.members_changed(ids, now, cm));
        }
    }

    /// Lets one server take a step, and puts what it sends on the links.
    fn step(&mut self, id: &NodeId, act: impl FnOnce(&mut BullyElection, Instant, &Outbox)) {
        let outbox = Outbox::new();
        let Some(node) = self.nodes.get_mut(id) else { return };
        act(node, self.now, &outbox);
        for (to, msg) in outbox.take_to_nodes() {
            *self.sent.entry(msg.message_type).or_default() += 1;
            let to = to.expect("each message has one receiver");
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
            if self.is_elected() {
                return;
            }
            self.now += Duration::from_millis(250);
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
        panic!("no leader after a long time: {:?}", self.nodes);
    }

    /// One leader, the highest id, and everyone in its term.
    fn is_elected(&self) -> bool {
        let (highest, winner) = self.nodes.last_key_value().unwrap();
        self.nodes.iter().all(|(id, node)| {
            let follows = if id == highest { ServerState::Leader } else { ServerState::Follower };
            node.leader().as_ref() == Some(highest)
                && node.state() == follows
                && node.term() == winner.term()
        })
    }

    fn assert_elected(&self, about: &str) {
        assert!(self.is_elected(), "{about}: {:?}", self.nodes);
    }

    fn sent(&self) -> u64 {
        self.sent.values().sum()
    }
}

fn module(id: &NodeId) -> BullyElection {
    let incarnation = Incarnation::new(id, 1, 0);
    BullyElection::new(id.clone(), incarnation, format!("{id}:1"), ElectionTiming::default())
}

fn ids(count: usize) -> Vec<NodeId> {
    (1..=count).map(|n| format!("n{n}").into()).collect()
}

/// One server of the cluster `n1 n2 n3`.
fn node(id: &str) -> BullyElection {
    Cluster::of(&ids(3), 0).nodes.remove(&id.into()).unwrap()
}

fn term(counter: u64, leader: &str) -> Term {
    Term { counter, leader: Incarnation::new(&leader.into(), 1, 0) }
}

fn question(candidate: &str, counter: u64) -> Message {
    let question = Question { candidate: candidate.into(), counter };
    Message::new(MessageType::Election, candidate).saying(&question)
}

fn ok(id: &str, counter: u64) -> Message {
    Message::new(MessageType::ElectionOk, id).saying(&ElectionOk { id: id.into(), counter })
}

fn coordinator(counter: u64, leader: &str) -> Message {
    let news = Coordinator { term: term(counter, leader), address: format!("{leader}:1") };
    Message::new(MessageType::Coordinator, leader).saying(&news)
}

/// Lets `node` act after so many ms, and returns what was sent, as `n3 ELECTION`.
fn sent(
    node: &mut BullyElection,
    ms: u64,
    act: impl FnOnce(&mut BullyElection, Instant, &Outbox),
) -> Vec<String> {
    let outbox = Outbox::new();
    act(node, start() + Duration::from_millis(ms), &outbox);
    let sent = outbox.take_to_nodes().into_iter();
    sent.map(|(to, msg)| format!("{} {}", to.unwrap(), msg.message_type)).collect()
}

fn hand(node: &mut BullyElection, msg: &Message) -> Vec<String> {
    sent(node, 0, |node, now, cm| node.handle_message(msg, now, cm))
}

fn elect(node: &mut BullyElection) -> Vec<String> {
    sent(node, 0, |node, now, cm| node.start_election(now, cm))
}

fn tick(node: &mut BullyElection, ms: u64) -> Vec<String> {
    sent(node, ms, |node, now, cm| node.tick(now, cm))
}

#[test]
fn the_highest_id_wins_whoever_starts_and_within_the_bounds() {
    for n in [1, 2, 3, 5, 8, 16, 32] {
        for seed in 0..30 {
            let order = ids(n);
            let mut cluster = Cluster::of(&order, seed);
            let mut starters = order.clone();
            cluster.rng.shuffle(&mut starters);
            starters.truncate(match seed % 3 {
                0 => n,
                1 => 1,
                _ => cluster.rng.usize(1..=n),
            });
            for id in &starters {
                // Someone who has heard of the election already does not start another.
                if cluster.nodes[id].counter() == 0 {
                    cluster.start(id);
                }
                for _ in 0..cluster.rng.usize(..4) {
                    cluster.deliver_one();
                }
            }
            cluster.deliver_all();
            let about = format!("{n} servers, seed {seed}, {} start", starters.len());
            cluster.assert_elected(&about);
            assert!(cluster.nodes.values().all(|node| node.counter() == 1), "{about}");
            let n = n as u64;
            let sent = cluster.sent();
            assert!((n - 1..n * n).contains(&sent), "{about}: {sent} sent");
        }
    }
}

#[test]
fn the_counts_of_the_paper() {
    for n in [2_u64, 3, 10] {
        let order = ids(n as usize);
        let mut best = Cluster::of(&order, 0);
        best.start(&order[n as usize - 1]);
        best.deliver_all();
        assert_eq!(best.sent(), n - 1);
        let mut worst = Cluster::of(&order, 0);
        for id in &order {
            worst.start(id); // At the same time: the questions cross.
        }
        worst.deliver_all();
        assert_eq!(worst.sent[&MessageType::Election], n * (n - 1) / 2);
        assert_eq!(worst.sent[&MessageType::ElectionOk], n * (n - 1) / 2);
        assert_eq!(worst.sent(), n * n - 1);
    }
}

#[test]
fn a_server_that_dies_at_any_point_of_an_election_does_not_stop_it() {
    let mut higher_rounds = 0;
    for seed in 0..400 {
        let mut order = ids(2 + seed as usize % 8);
        let mut cluster = Cluster::of(&order, seed);
        for id in &order {
            if cluster.rng.bool() || *id == order[0] {
                cluster.start(id);
            }
        }
        for _ in 0..cluster.rng.usize(..60) {
            cluster.deliver_one();
        }
        let victim = order.remove(cluster.rng.usize(..order.len()));
        cluster.nodes.remove(&victim);
        cluster.links.retain(|(_, to), _| *to != victim); // What it sent may still arrive.
        if cluster.rng.bool() {
            cluster.meet(&order); // Else nobody finds out, and timeouts have to do.
        }
        cluster.settle();
        cluster.assert_elected(&format!("seed {seed}, {victim} died"));
        let round = cluster.nodes.values().map(BullyElection::counter).max();
        higher_rounds += u32::from(round > Some(1));
    }
    assert!(higher_rounds > 100, "elections were cut short: {higher_rounds}");
}

#[test]
fn whatever_is_lost_and_whoever_comes_and_goes_no_term_has_two_leaders_and_peace_ends_it() {
    let (mut won_in_all, mut lost_in_all) = (0, 0);
    for seed in 0..200 {
        // n10 is above n9, but not by bytes.
        let order: Vec<NodeId> = ids(11).split_off(5);
        let mut cluster = Cluster::of(&order, seed);
        let mut winners: BTreeMap<Term, NodeId> = BTreeMap::new();
        for _ in 0..300 {
            let id = cluster.rng.choice(&order).cloned().unwrap();
            match cluster.rng.u8(..20) {
                0 => cluster.start(&id),
                1 => {
                    // Servers come and go in everyone's view, each in its own way.
                    let mut view = order.clone();
                    view.retain(|other| *other == id || cluster.rng.bool());
                    cluster.step(&id, |node, now, cm| node.members_changed(&view, now, cm));
                }
                2..5 => {
                    cluster.now += Duration::from_millis(100);
                    for id in &order {
                        cluster.step(id, |node, now, cm| node.tick(now, cm));
                    }
                }
                5 => {
                    let lost = cluster.links.remove(&(order[0].clone(), id));
                    lost_in_all += lost.map_or(0, |link| link.len());
                }
                6 => {
                    let heard = cluster.rng.choice(&order).cloned().unwrap();
                    if let Some(term) = cluster.nodes[&heard].term().cloned() {
                        cluster.step(&id, |node, _, _| _ = node.observe_term(&term));
                    }
                }
                _ => _ = cluster.deliver_one(),
            }
            for (id, node) in &cluster.nodes {
                if node.leader().as_ref() == Some(id) {
                    let won = winners.entry(node.term().unwrap().clone()).or_insert(id.clone());
                    assert_eq!(won, id, "seed {seed}");
                }
            }
        }
        won_in_all += winners.len();
        cluster.links.clear();
        cluster.meet(&order);
        cluster.settle();
        cluster.assert_elected(&format!("seed {seed}"));
    }
    assert!(won_in_all > 1000, "elections did end in between: {won_in_all}");
    assert!(lost_in_all > 100, "messages were lost: {lost_in_all}");
}

#[test]
fn a_candidate_asks_the_higher_ids_only() {
    assert_eq!(elect(&mut node("n1")), ["n2 ELECTION", "n3 ELECTION"]);
    assert_eq!(elect(&mut node("n2")), ["n3 ELECTION"]);
    assert_eq!(elect(&mut node("n3")), ["n1 COORDINATOR", "n2 COORDINATOR"]);
}

#[test]
fn who_is_asked_by_a_lower_id_answers_and_stands_once_in_a_round() {
    let mut n2 = node("n2");
    assert_eq!(hand(&mut n2, &question("n1", 4)), ["n1 ELECTION_OK", "n3 ELECTION"]);
    assert_eq!(n2.counter(), 4);
    assert_eq!(hand(&mut n2, &question("n1", 4)), ["n1 ELECTION_OK"], "it stands already");
    assert_eq!(hand(&mut n2, &question("n1", 3)), ["n1 ELECTION_OK"], "in a later round");
    assert_eq!(hand(&mut n2, &question("n1", 5)), ["n1 ELECTION_OK", "n3 ELECTION"]);
    assert_eq!(hand(&mut n2, &question("n3", 6)), [""; 0], "a higher id has no reason to ask");
    assert_eq!(hand(&mut n2, &question("n2", 6)), [""; 0], "nor has it itself");
    assert_eq!(n2.counter(), 5);
}

#[test]
fn a_round_that_is_over_is_not_held_again() {
    let mut n2 = node("n2");
    n2.observe_term(&term(5, "n3"));
    assert_eq!(hand(&mut n2, &question("n1", 5)), ["n1 ELECTION_OK"]);
    assert_eq!(n2.state(), ServerState::Follower);
    // Nobody leads any more: the asker has missed a round, and the next one is due.
    n2.forget_leader();
    assert_eq!(hand(&mut n2, &question("n1", 5)), ["n1 ELECTION_OK", "n3 ELECTION"]);
    assert_eq!(n2.counter(), 6);
    let mut n3 = node("n3");
    elect(&mut n3);
    elect(&mut n3);
    assert_eq!(hand(&mut n3, &question("n1", 1)), ["n1 ELECTION_OK", "n1 COORDINATOR"]);
    assert_eq!(hand(&mut n3, &question("n1", 2)), ["n1 ELECTION_OK"], "it is on its way");
    assert_eq!(n3.counter(), 2);
}

#[test]
fn without_an_answer_it_leads_and_with_one_it_waits_and_asks_again() {
    let mut n2 = node("n2");
    elect(&mut n2);
    assert_eq!(tick(&mut n2, 499), [""; 0]);
    assert_eq!(tick(&mut n2, 751), ["n1 COORDINATOR", "n3 COORDINATOR"]);
    assert_eq!((n2.state(), n2.term()), (ServerState::Leader, Some(&term(1, "n2"))));

    let mut n2 = node("n2");
    elect(&mut n2);
    assert_eq!(hand(&mut n2, &ok("n3", 1)), [""; 0]);
    assert_eq!(tick(&mut n2, 999), [""; 0]);
    assert_eq!(n2.state(), ServerState::ElectionInProgress);
    assert_eq!(tick(&mut n2, 1501), ["n3 ELECTION"], "the outcome did not come");
    assert_eq!(n2.counter(), 2);
    assert_eq!(tick(&mut n2, 1501 + 999), [""; 0], "its patience has doubled");
    assert_eq!(tick(&mut n2, 1501 + 1251), ["n1 COORDINATOR", "n3 COORDINATOR"]);
    assert_eq!(n2.term(), Some(&term(2, "n2")));
}

#[test]
fn answers_of_an_older_round_of_lower_ids_and_without_a_question_mean_nothing() {
    let mut n2 = node("n2");
    assert_eq!(hand(&mut n2, &ok("n3", 1)), [""; 0]);
    assert_eq!(n2.stage(), None);
    elect(&mut n2);
    elect(&mut n2);
    for (id, counter) in [("n3", 1), ("n1", 2), ("n2", 2)] {
        hand(&mut n2, &ok(id, counter));
        assert!(matches!(n2.stage(), Some(Stage::Asking(_))), "{id} {counter}");
    }
    hand(&mut n2, &ok("n3", 7));
    assert!(matches!(n2.stage(), Some(Stage::Waiting(_))));
    assert_eq!(n2.counter(), 7, "the next round is above any heard of");
}

#[test]
fn an_outcome_ends_a_candidacy_unless_it_is_older_or_of_a_lower_id() {
    for (counter, leader, state) in [
        (2, "n3", ServerState::Follower),
        (3, "n3", ServerState::Follower),
        (1, "n3", ServerState::ElectionInProgress),
        (2, "n1", ServerState::ElectionInProgress),
        (3, "n1", ServerState::ElectionInProgress),
    ] {
        let mut n2 = node("n2");
        elect(&mut n2);
        elect(&mut n2);
        hand(&mut n2, &coordinator(counter, leader));
        assert_eq!(n2.state(), state, "{leader} in {counter}");
        assert_eq!(n2.leader(), Some(leader.into()), "followed meanwhile");
        tick(&mut n2, 60_000);
        assert_eq!(n2.leader() == Some("n2".into()), state == ServerState::ElectionInProgress);
        assert!(n2.term() >= Some(&term(counter, leader)), "no term is given up for a lower one");
    }
}

#[test]
fn a_stale_coordinator_is_ignored() {
    let mut n1 = node("n1");
    hand(&mut n1, &coordinator(7, "n2"));
    hand(&mut n1, &coordinator(6, "n3"));
    assert_eq!((n1.leader(), n1.term()), (Some("n2".into()), Some(&term(7, "n2"))));
    n1.forget_leader();
    hand(&mut n1, &coordinator(7, "n2"));
    assert_eq!(n1.leader(), None, "a late copy does not bring a dead leader back");
}

#[test]
fn other_live_servers_restart_an_election_and_the_same_ones_do_not() {
    let mut n1 = node("n1");
    let members = |n1: &mut BullyElection, members: &[NodeId]| {
        sent(n1, 0, |n1, now, cm| n1.members_changed(members, now, cm))
    };
    assert_eq!(members(&mut n1, &ids(2)), [""; 0], "no election is under way");
    elect(&mut n1);
    assert_eq!(members(&mut n1, &ids(2)), [""; 0]);
    assert_eq!(n1.counter(), 1);
    assert_eq!(members(&mut n1, &ids(3)), ["n2 ELECTION", "n3 ELECTION"]);
    assert_eq!(members(&mut n1, &ids(1)), [""; 0]);
    assert_eq!((n1.state(), n1.term()), (ServerState::Leader, Some(&term(3, "n1"))));
}

#[test]
fn a_former_life_of_a_server_does_not_lead() {
    let mut n3 = node("n3");
    n3.incarnation = Incarnation::new(&"n3".into(), 2, 0);
    assert!(n3.observe_term(&term(5, "n3")));
    assert_eq!((n3.leader(), n3.state()), (None, ServerState::Looking));
    // A question of the round that its former life won: nobody leads, so it stands in the next one.
    hand(&mut n3, &question("n1", 5));
    assert_eq!((n3.state(), n3.counter()), (ServerState::Leader, 6));
}

#[test]
fn malformed_contents_are_ignored() {
    for (good, old, new) in [
        (question("n1", 1), "\"candidate\"", "\"id\""),
        (question("n1", 1), "\"candidate\":\"n1\"", "\"candidate\":\"\""),
        (question("n1", 1), "\"counter\":1", "\"counter\":0"),
        (question("n1", 1), "\"counter\":1", "\"counter\":-1"),
        (question("n1", 1), "\"counter\":1", "\"counter\":9007199254740993"),
        (question("n1", 1), "\"ELECTION\"", "\"CHAT\""),
        (ok("n3", 1), "\"id\":\"n3\"", "\"id\":\"n\\n3\""),
        (ok("n3", 1), "\"counter\":1", "\"counter\":9007199254740993"),
        (coordinator(1, "n3"), "\"counter\":1", "\"counter\":0"),
        (coordinator(1, "n3"), "\"leader\":\"n3.1-0000\"", "\"leader\":\"\""),
        (coordinator(1, "n3"), "\"address\"", "\"at\""),
    ] {
        let good = good.serialize();
        let bad = good.replacen(old, new, 1);
        assert_ne!(bad, good, "{old} is in it");
        let mut n2 = node("n2");
        let bad = Message::deserialize(&bad).unwrap();
        assert!(BullyElection::parse_message(&bad).is_err(), "{new}");
        assert_eq!(hand(&mut n2, &bad), [""; 0], "{new}");
        assert_eq!((n2.counter(), n2.state()), (0, ServerState::Looking), "{new}");
    }
    assert_eq!(hand(&mut node("n2"), &Message::new(MessageType::ElectionOk, "n9")), [""; 0]);
}

#[test]
fn the_elections_do_not_take_each_others_messages() {
    use crate::domain::content::{ElectionContent, Side};
    use crate::server::ElectionModule;
    let probe =
        ElectionContent::Probe { id: "n3".into(), counter: 1, k: 0, d: 1, toward: Side::Left };
    let probe = Message::new(MessageType::Election, "n3").saying(&probe);
    assert!(ElectionModule::parse_message(&probe).is_ok());
    assert!(BullyElection::parse_message(&probe).is_err());
    assert!(ElectionModule::parse_message(&question("n3", 1)).is_err());
}

#[test]
fn the_last_round_can_be_won_once_and_none_comes_after_it() {
    let mut n3 = node("n3");
    assert!(!n3.observe_term(&term(COUNTER_MAX + 1, "n9")));
    assert!(n3.observe_term(&term(COUNTER_MAX - 1, "n2")));
    elect(&mut n3);
    assert_eq!(n3.term(), Some(&term(COUNTER_MAX, "n3")));
    n3.forget_leader();
    elect(&mut n3);
    assert_eq!((n3.state(), n3.counter()), (ServerState::Looking, COUNTER_MAX));
    // A question of the last round does not win it again.
    assert_eq!(hand(&mut n3, &question("n1", COUNTER_MAX)), ["n1 ELECTION_OK"]);
    assert_eq!(n3.leader(), None);
    let mut n2 = node("n2");
    n2.observe_term(&term(COUNTER_MAX - 1, "n3"));
    elect(&mut n2);
    hand(&mut n2, &coordinator(COUNTER_MAX, "n1"));
    assert_eq!(tick(&mut n2, 60_000), [""; 0], "n1 has won it");
    assert_eq!(n2.state(), ServerState::Follower);
}
