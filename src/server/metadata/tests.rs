use super::*;
use crate::domain::Incarnation;
use crate::network::transport::Outbox;
use MetadataContent::{Collect, Report, Request, Update};

fn ids(names: &[&str]) -> BTreeSet<NodeId> {
    names.iter().copied().map(NodeId::from).collect()
}

fn term(counter: u64, leader: &str) -> Term {
    Term { counter, leader: Incarnation::new(&leader.into(), 1, 0) }
}

fn version(counter: u64, leader: &str, change: u64) -> MetadataVersion {
    MetadataVersion { term: term(counter, leader), counter: change }
}

fn rooms(pairs: &[(&str, &str)]) -> BTreeMap<String, NodeId> {
    pairs.iter().map(|(room_id, host)| ((*room_id).to_string(), (*host).into())).collect()
}

fn held(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(room_id, messages)| ((*room_id).to_string(), *messages)).collect()
}

fn from(sender: &str, content: &MetadataContent) -> Message {
    Message::new(MessageType::MetadataUpdate, sender).saying(content)
}

/// What was sent since the last look; `*` stands for everyone.
fn sent(outbox: &Outbox) -> Vec<(String, MetadataContent)> {
    let sent = outbox.take_to_nodes().into_iter();
    sent.map(|(to, msg)| (to.map_or("*".into(), |id| id.to_string()), msg.content.parse().unwrap()))
        .collect()
}

/// One store with what surrounds it.
struct Server {
    store: MetadataStore,
    live: BTreeSet<NodeId>,
    term: Option<Term>,
    held: BTreeMap<String, u64>,
    outbox: Outbox,
}

impl Server {
    fn new(id: &str, live: &[&str]) -> Self {
        Self {
            store: MetadataStore::new(id.into()),
            live: ids(live),
            term: None,
            held: BTreeMap::new(),
            outbox: Outbox::new(),
        }
    }

    /// The leader of round `counter`, with everyone's Report in.
    fn leader(id: &str, live: &[&str], counter: u64) -> Self {
        let mut server = Self::new(id, live);
        server.lead(term(counter, id));
        server.step(|store, view, cm| store.rehome(view, cm));
        sent(&server.outbox);
        server
    }

    fn lead(&mut self, term: Term) -> Vec<String> {
        self.term = Some(term.clone());
        self.step(|store, view, cm| store.become_leader(&term, view, cm))
    }

    fn step<T>(&mut self, act: impl FnOnce(&mut MetadataStore, View, &Outbox) -> T) -> T {
        let view = View { live: &self.live, term: self.term.as_ref(), held: &self.held };
        act(&mut self.store, view, &self.outbox)
    }

    fn hand(&mut self, sender: &str, content: &MetadataContent) -> Vec<String> {
        self.step(|store, view, cm| store.handle_message(&from(sender, content), view, cm))
    }

    fn sent(&self) -> Vec<(String, MetadataContent)> {
        sent(&self.outbox)
    }
}

#[test]
fn a_room_goes_to_the_server_with_the_fewest_rooms_and_only_the_change_is_told() {
    let mut n3 = Server::leader("n3", &["n1", "n2", "n3", "n10"], 1);
    for (room_id, host) in [("a", "n1"), ("b", "n2"), ("c", "n3"), ("d", "n10"), ("e", "n1")] {
        let before = n3.store.version().unwrap().clone();
        assert_eq!(n3.hand("n2", &Request { room_id: room_id.into() }), [room_id]);
        let after = MetadataVersion { counter: before.counter + 1, ..before.clone() };
        let room_locations = rooms(&[(room_id, host)]);
        let update = Update { version: after, base: Some(before), room_locations };
        assert_eq!(n3.sent(), [("*".to_string(), update)]);
    }
}

#[test]
fn a_room_is_given_once_and_who_asks_again_is_told() {
    let mut n2 = Server::leader("n2", &["n1", "n2"], 1);
    n2.hand("n1", &Request { room_id: "lobby".into() });
    let told = n2.store.version().cloned();
    n2.sent();
    // n1 missed the Update. It is asked for what it believes first, then gets the whole map.
    assert!(n2.hand("n1", &Request { room_id: "lobby".into() }).is_empty());
    assert_eq!(n2.sent(), [("n1".to_string(), Collect { term: term(1, "n2") })]);
    let report = Report { held: held(&[]), room_locations: rooms(&[]), version: None };
    assert!(n2.hand("n1", &report).is_empty());
    let room_locations = rooms(&[("lobby", "n1")]);
    let whole = Update { version: told.clone().unwrap(), base: None, room_locations };
    assert_eq!(n2.sent(), [("n1".to_string(), whole)]);
    assert_eq!(n2.store.version(), told.as_ref());
}

#[test]
fn a_follower_asks_the_leader_for_a_room() {
    let mut n1 = Server::new("n1", &["n1", "n2"]);
    let changed = n1.step(|store, view, cm| store.request("lobby", &"n2".into(), view, cm));
    assert!(changed.is_empty());
    assert_eq!(n1.sent(), [("n2".to_string(), Request { room_id: "lobby".into() })]);
    // Asked in turn, by someone who is mistaken about the leader, it gives nothing away.
    assert!(n1.hand("n2", &Request { room_id: "lobby".into() }).is_empty());
    assert_eq!((n1.store.host("lobby"), n1.sent()), (None, vec![]));
}

#[test]
fn a_follower_applies_what_lies_on_its_version_and_ignores_what_is_old() {
    let mut n1 = Server::new("n1", &["n1", "n2"]);
    let whole = rooms(&[("a", "n1"), ("b", "n2")]);
    let whole = Update { version: version(3, "n2", 4), base: None, room_locations: whole };
    assert_eq!(n1.hand("n2", &whole), ["a", "b"]);
    let change = Update {
        version: version(3, "n2", 5),
        base: Some(version(3, "n2", 4)),
        room_locations: rooms(&[("a", "n2")]),
    };
    assert_eq!(n1.hand("n2", &change), ["a"]);
    assert_eq!(*n1.store.room_locations(), rooms(&[("a", "n2"), ("b", "n2")]));
    assert!(n1.hand("n2", &change).is_empty(), "the same once more");
    assert!(n1.hand("n2", &whole).is_empty(), "older");
    assert_eq!(n1.store.version(), Some(&version(3, "n2", 5)));
    assert_eq!(n1.sent(), []);
}

#[test]
fn a_follower_that_missed_a_change_reports_and_gets_the_whole_map() {
    let mut n1 = Server::new("n1", &["n1", "n2"]);
    n1.held = held(&[("a", 7)]);
    let change = Update {
        version: version(3, "n2", 5),
        base: Some(version(3, "n2", 4)),
        room_locations: rooms(&[("b", "n2")]),
    };
    assert!(n1.hand("n2", &change).is_empty());
    let report = Report { held: held(&[("a", 7)]), room_locations: rooms(&[]), version: None };
    assert_eq!(n1.sent(), [("n2".to_string(), report)]);
    assert_eq!(n1.store.version(), None);
}

#[test]
fn a_lost_update_shows_in_the_next_heartbeat() {
    let mut n1 = Server::new("n1", &["n1", "n2"]);
    assert!(!n1.store.is_behind(None));
    assert!(n1.store.is_behind(Some(&version(1, "n2", 1))));
    let whole = Update { version: version(1, "n2", 2), base: None, room_locations: rooms(&[]) };
    n1.hand("n2", &whole);
    assert!(!n1.store.is_behind(Some(&version(1, "n2", 2))));
    assert!(!n1.store.is_behind(Some(&version(1, "n2", 1))));
    assert!(n1.store.is_behind(Some(&version(1, "n2", 3))));
}

#[test]
fn a_replaced_leader_is_not_believed_and_not_told() {
    let mut n1 = Server::new("n1", &["n1", "n2", "n3"]);
    n1.term = Some(term(6, "n3"));
    let late =
        Update { version: version(5, "n2", 9), base: None, room_locations: rooms(&[("a", "n2")]) };
    assert!(n1.hand("n2", &late).is_empty());
    assert!(n1.hand("n2", &Collect { term: term(5, "n2") }).is_empty());
    assert_eq!((n1.store.host("a"), n1.sent()), (None, vec![]));
    n1.hand("n3", &Collect { term: term(6, "n3") });
    assert_eq!(n1.sent().len(), 1, "the leader is");
}

#[test]
fn a_leader_that_hears_of_its_successor_first_by_its_question_answers_and_steps_down() {
    let mut n2 = Server::leader("n2", &["n1", "n2", "n3"], 5);
    n2.hand("n1", &Request { room_id: "a".into() });
    n2.sent();
    n2.hand("n3", &Collect { term: term(6, "n3") });
    let report = Report {
        held: held(&[]),
        room_locations: rooms(&[("a", "n1")]),
        version: Some(version(5, "n2", 2)),
    };
    assert_eq!(n2.sent(), [("n3".to_string(), report)]);
    n2.hand("n1", &Request { room_id: "b".into() });
    assert_eq!((n2.store.host("b"), n2.sent()), (None, vec![]));
}

#[test]
fn a_new_leader_hears_everyone_before_it_names_a_host_and_the_longest_log_wins() {
    let mut n3 = Server::new("n3", &["n1", "n2", "n3"]);
    n3.held = held(&[("a", 5), ("b", 1)]);
    assert!(n3.lead(term(2, "n3")).is_empty());
    assert_eq!(n3.sent(), [("*".to_string(), Collect { term: term(2, "n3") })]);
    let report = |held| Report { held, room_locations: rooms(&[]), version: None };
    assert!(n3.hand("n1", &report(held(&[("a", 9), ("b", 1)]))).is_empty());
    assert_eq!(n3.hand("n2", &report(held(&[("a", 7)]))), ["a", "b"]);
    assert_eq!(*n3.store.room_locations(), rooms(&[("a", "n1"), ("b", "n1")]));
}

#[test]
fn a_new_leader_believes_the_highest_version_whoever_reports_first() {
    let older = Report {
        held: held(&[]),
        room_locations: rooms(&[("a", "n1"), ("old", "n1")]),
        version: Some(version(1, "n9", 3)),
    };
    let newer = Report {
        held: held(&[]),
        room_locations: rooms(&[("a", "n2")]),
        version: Some(version(1, "n9", 4)),
    };
    for (first, second) in [(&older, &newer), (&newer, &older)] {
        let mut n3 = Server::new("n3", &["n1", "n2", "n3"]);
        n3.lead(term(2, "n3"));
        n3.hand("n1", first);
        n3.hand("n2", second);
        // A room that only the older belief names is not lost.
        assert_eq!(*n3.store.room_locations(), rooms(&[("a", "n2"), ("old", "n1")]));
    }
}

#[test]
fn what_the_leader_decided_in_its_term_outlives_every_older_belief() {
    let mut n3 = Server::new("n3", &["n1", "n2", "n3"]);
    n3.lead(term(2, "n3"));
    n3.hand("n1", &Request { room_id: "a".into() });
    assert_eq!(n3.store.host("a"), Some(&"n1".into()));
    let report = Report {
        held: held(&[]),
        room_locations: rooms(&[("a", "n2")]),
        version: Some(version(1, "n9", 4)),
    };
    n3.hand("n2", &report);
    assert_eq!(n3.store.host("a"), Some(&"n1".into()));
}

#[test]
fn a_follower_of_the_same_term_that_lags_changes_nothing() {
    let mut n3 = Server::new("n3", &["n1", "n2", "n3"]);
    n3.lead(term(2, "n3"));
    let belief = |host, change| Report {
        held: held(&[]),
        room_locations: rooms(&[("a", host)]),
        version: Some(change),
    };
    n3.hand("n1", &belief("n1", version(1, "n9", 3)));
    n3.hand("n2", &belief("n2", version(1, "n9", 4))); // Knows better: a moves to n2.
    assert_eq!(n3.store.host("a"), Some(&"n2".into()));
    n3.sent();
    // n1 got the first map of this term and missed the second; its version is this term's all the same.
    assert!(n3.hand("n1", &belief("n1", version(2, "n3", 2))).is_empty());
    assert_eq!(n3.store.host("a"), Some(&"n2".into()));
    let whole = n3.sent();
    assert!(matches!(&whole[..], [(to, Update { base: None, .. })] if to == "n1"), "{whole:?}");
}

#[test]
fn rooms_of_a_dead_host_go_to_the_best_live_holder_or_else_where_there_is_room() {
    let mut n4 = Server::leader("n4", &["n1", "n2", "n3", "n4"], 1);
    for room_id in ["a", "b", "c"] {
        n4.step(|store, _, cm| store.update_metadata(room_id, &"n3".into(), cm));
    }
    n4.step(|store, _, cm| store.update_metadata("x", &"n1".into(), cm));
    n4.live = ids(&["n1", "n2", "n4"]);
    n4.held = held(&[("a", 2)]);
    n4.sent();
    assert!(
        n4.step(|store, view, cm| store.collect(view, cm)).is_empty(),
        "others hold them, maybe"
    );
    let report = |held| Report { held, room_locations: rooms(&[]), version: None };
    n4.hand("n1", &report(held(&[("a", 4), ("b", 4)])));
    assert_eq!(n4.hand("n2", &report(held(&[("a", 4), ("b", 5)]))), ["a", "b", "c"]);
    // a: n1 and n2 hold the most, n1 is lower. c: nobody holds it, n4 has no room yet.
    let expected = rooms(&[("a", "n1"), ("b", "n2"), ("c", "n4"), ("x", "n1")]);
    assert_eq!(*n4.store.room_locations(), expected);
}

#[test]
fn the_leader_waits_neither_for_the_dead_nor_longer_than_its_caller() {
    let mut n3 = Server::new("n3", &["n1", "n2", "n3"]);
    n3.held = held(&[("a", 1)]);
    n3.lead(term(1, "n3"));
    assert!(n3.store.room_locations().is_empty());
    let mut other = Server::new("n3", &["n1", "n2", "n3"]);
    other.held = held(&[("a", 1)]);
    other.lead(term(1, "n3"));

    assert_eq!(n3.step(|store, view, cm| store.rehome(view, cm)), ["a"]);
    other.live = ids(&["n1", "n3"]); // n2 died before it could report.
    let report = Report { held: held(&[]), room_locations: rooms(&[]), version: None };
    assert_eq!(other.hand("n1", &report), ["a"]);
}

#[test]
fn a_room_that_a_client_wants_now_gets_its_holder_at_once() {
    let mut n3 = Server::new("n3", &["n1", "n2", "n3"]);
    n3.held = held(&[("a", 1)]);
    n3.lead(term(1, "n3"));
    assert_eq!(n3.step(|store, view, cm| store.request("a", &"n3".into(), view, cm)), ["a"]);
    assert_eq!(n3.store.host("a"), Some(&"n3".into()));
}

#[test]
fn alone_a_leader_hosts_what_it_holds_and_asks_nobody() {
    let mut n1 = Server::new("n1", &["n1"]);
    n1.held = held(&[("a", 1)]);
    assert_eq!(n1.lead(term(1, "n1")), ["a"]);
    assert!(n1.lead(term(1, "n1")).is_empty(), "elected once, not twice");
    assert_eq!(n1.store.version(), Some(&version(1, "n1", 2)));
}

#[test]
fn names_that_nobody_could_have_chosen_are_dropped() {
    let bad = "x".repeat(65);
    let mut n2 = Server::leader("n2", &["n1", "n2"], 1);
    n2.hand("n1", &Request { room_id: "a\nb".into() });
    let report = Report {
        held: held(&[(&bad, 3), ("ok", 1)]),
        room_locations: rooms(&[(&bad, "n1"), ("fine", "n\u{7}")]),
        version: None,
    };
    n2.hand("n1", &report);
    assert_eq!(*n2.store.room_locations(), rooms(&[("ok", "n1")]));
    let mut n1 = Server::new("n1", &["n1", "n2"]);
    let room_locations = rooms(&[("", "n2"), ("ok", "n1")]);
    n1.hand("n2", &Update { version: version(1, "n2", 2), base: None, room_locations });
    assert_eq!(*n1.store.room_locations(), rooms(&[("ok", "n1")]));
}

#[test]
fn what_cannot_be_read_or_is_not_meant_for_it_is_ignored() {
    let mut n1 = Server::new("n1", &["n1", "n2"]);
    let whole = Update { version: version(1, "n2", 2), base: None, room_locations: rooms(&[]) };
    let mut text = from("n2", &whole);
    text.content = "hello".into();
    let mut wrong = from("n2", &whole);
    wrong.message_type = MessageType::Heartbeat;
    for msg in [text, wrong, from("n1", &whole)] {
        assert!(n1.step(|store, view, cm| store.handle_message(&msg, view, cm)).is_empty());
    }
    assert_eq!((n1.store.version(), n1.sent()), (None, vec![]));
}

/// Servers that lose messages, change leaders and lose members, for as long as `seed` says; then the network
/// is whole, and everyone has the leader's map, with a live host for each room that was ever given.
fn converges(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let names = ["n1", "n2", "n3", "n4"];
    let mut servers: Vec<Server> = names.iter().map(|id| Server::new(id, &names)).collect();
    let mut links: BTreeMap<(usize, usize), Vec<Message>> = BTreeMap::new();
    let mut leader = 0;
    let mut given: BTreeSet<String> = BTreeSet::new();
    servers[0].lead(term(1, "n1"));
    for round in 0..200u64 {
        let healed = round >= 120;
        let at = rng.usize(..names.len());
        match rng.u32(..if healed { 6 } else { 9 }) {
            0..=5 => {}
            6 => {
                let room_id = format!("r{}", rng.u32(..12));
                let to = names[leader].into();
                servers[at].step(|store, view, cm| store.request(&room_id, &to, view, cm));
            }
            7 => {
                // The others hear of the election when they hear from its winner.
                leader = at;
                servers[at].lead(term(round + 2, names[at]));
            }
            _ => {
                let room_id = format!("r{}", rng.u32(..12));
                *servers[at].held.entry(room_id).or_default() += 1;
            }
        }
        if healed || rng.u32(..4) == 0 {
            let (term, newest) =
                (servers[leader].term.clone(), servers[leader].store.version().cloned());
            for (_, server) in servers.iter_mut().enumerate().filter(|(at, _)| *at != leader) {
                if server.term != term && rng.bool() {
                    server.term.clone_from(&term);
                    server.store.step_down();
                }
                if server.term == term && server.store.is_behind(newest.as_ref()) {
                    let to = names[leader].into();
                    server.step(|store, view, cm| store.sync_with_leader(&to, view.held, cm));
                }
            }
        }
        deliver(&mut servers, &mut links, &mut rng, healed);
        given.extend(servers[leader].store.room_locations().keys().cloned());
        if round == 170 {
            servers[leader].step(|store, view, cm| store.collect(view, cm));
        }
    }
    servers[leader].step(|store, view, cm| store.rehome(view, cm));
    deliver(&mut servers, &mut links, &mut rng, true);
    let expected = &servers[leader].store;
    for server in &servers {
        assert_eq!(server.store.version(), expected.version(), "seed {seed}");
        assert_eq!(server.store.room_locations(), expected.room_locations(), "seed {seed}");
        for room_id in server.held.keys() {
            assert!(expected.host(room_id).is_some(), "seed {seed}: {room_id} is held");
        }
    }
    for room_id in given {
        assert!(expected.host(&room_id).is_some(), "seed {seed}: {room_id} was given");
    }
}

/// Takes what the servers sent onto the links, and some or (`all`) everything off them. Unless `all`, one
/// message in eight is lost.
fn deliver(
    servers: &mut [Server],
    links: &mut BTreeMap<(usize, usize), Vec<Message>>,
    rng: &mut fastrand::Rng,
    all: bool,
) {
    loop {
        for at in 0..servers.len() {
            for (to, msg) in servers[at].outbox.take_to_nodes() {
                for other in (0..servers.len()).filter(|other| *other != at) {
                    let addressed = to.as_ref().is_none_or(|to| *to == servers[other].store.node);
                    if addressed && (all || rng.u32(..8) > 0) {
                        links.entry((at, other)).or_default().push(msg.clone());
                    }
                }
            }
        }
        links.retain(|_, queue| !queue.is_empty());
        let Some(link) = rng.choice(links.keys().copied().collect::<Vec<_>>()) else { return };
        let msg = links.get_mut(&link).unwrap().remove(0);
        servers[link.1].step(|store, view, cm| store.handle_message(&msg, view, cm));
        if !all && rng.u32(..3) == 0 {
            return;
        }
    }
}

#[test]
fn maps_converge_after_any_losses_and_changes_of_leader() {
    for seed in 0..300 {
        converges(seed);
    }
}
