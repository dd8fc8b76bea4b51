//! The store under loss, changes of leader and random orders; and what a Request must not cost.

use super::*;
use crate::domain::Incarnation;
use crate::network::transport::Outbox;

fn ids(names: &[&str]) -> BTreeSet<NodeId> {
    names.iter().copied().map(NodeId::from).collect()
}

fn term(counter: u64, leader: &str) -> Term {
    Term { counter, leader: Incarnation::new(&leader.into(), 1, 0) }
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

    fn lead(&mut self, term: Term) -> Vec<String> {
        self.term = Some(term.clone());
        self.step(|store, view, cm| store.become_leader(&term, view, cm))
    }

    fn step<T>(&mut self, act: impl FnOnce(&mut MetadataStore, View, &Outbox) -> T) -> T {
        let view = View { live: &self.live, term: self.term.as_ref(), held: &self.held };
        act(&mut self.store, view, &self.outbox)
    }
}

#[test]
fn who_asks_for_a_room_that_has_a_host_is_heard_before_its_beliefs_are_replaced() {
    let mut n2 = Server::new("n2", &["n1", "n2"]);
    n2.lead(term(2, "n2"));
    n2.step(|store, _, cm| store.update_metadata("lobby", &"n2".into(), cm));
    n2.outbox.take();
    // n1 reported nothing yet, and knows a room of an earlier leader that nobody else does.
    let mut n1 = Server::new("n1", &["n1", "n2"]);
    n1.lead(term(1, "n1"));
    n1.step(|store, _, cm| store.update_metadata("garden", &"n1".into(), cm));
    n1.store.step_down();
    n1.outbox.take();
    n1.step(|store, view, cm| store.request("lobby", &"n2".into(), view, cm));
    let (mut servers, mut links) = ([n1, n2], BTreeMap::new());
    deliver(&mut servers, &mut links, &mut fastrand::Rng::with_seed(1), true);
    for server in &servers {
        assert_eq!(server.store.host("garden"), Some(&"n1".into()));
        assert_eq!(server.store.host("lobby"), Some(&"n2".into()));
    }
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
