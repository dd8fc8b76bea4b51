//! Servers that tell each other where rooms live, over links that lose and reorder.

use std::collections::VecDeque;

use super::*;
use crate::domain::Incarnation;
use crate::network::transport::Outbox;

mod loss;

/// Servers with their stores, and what is under way between them.
struct Cluster {
    stores: BTreeMap<NodeId, MetadataStore>,
    live: BTreeSet<NodeId>,
    held: BTreeMap<NodeId, BTreeMap<String, u64>>,
    /// What each server has heard of elections.
    terms: BTreeMap<NodeId, Term>,
    wire: VecDeque<(NodeId, Message)>,
}

impl Cluster {
    fn of(ids: &[&str]) -> Self {
        let live: BTreeSet<NodeId> = ids.iter().map(|id| NodeId::from(*id)).collect();
        Self {
            stores: live.iter().map(|id| (id.clone(), MetadataStore::new(id.clone()))).collect(),
            live,
            held: BTreeMap::new(),
            terms: BTreeMap::new(),
            wire: VecDeque::new(),
        }
    }

    /// Lets one server take a step, and returns the rooms that changed for it.
    fn step(
        &mut self,
        id: &str,
        act: impl FnOnce(&mut MetadataStore, View, &Outbox) -> Vec<String>,
    ) -> Vec<String> {
        let outbox = Outbox::new();
        let id = NodeId::from(id);
        let held = self.held.get(&id).cloned().unwrap_or_default();
        let view = View { live: &self.live, term: self.terms.get(&id), held: &held };
        let store = self.stores.get_mut(&id).expect("a server");
        let before = store.room_locations.clone();
        let mut changed = act(store, view, &outbox);
        let moved = |room_id: &&String| before.get(*room_id) != store.host(room_id);
        let mut expected: Vec<String> =
            before.keys().chain(store.room_locations.keys()).filter(moved).cloned().collect();
        expected.sort();
        expected.dedup();
        changed.sort();
        changed.dedup();
        assert_eq!(changed, expected, "{id} says what changed");
        for (to, msg) in outbox.take_to_nodes() {
            let all = self.live.iter().filter(|other| **other != id).cloned().collect();
            let receivers: Vec<NodeId> = to.map_or(all, |to| vec![to]);
            self.wire.extend(receivers.into_iter().map(|to| (to, msg.clone())));
        }
        changed
    }

    /// `leader` is elected, and everyone else has heard so.
    fn elect(&mut self, leader: &str, counter: u64) {
        let term = term(counter, leader);
        for id in self.live.clone() {
            self.terms.insert(id.clone(), term.clone());
            if id.as_str() != leader {
                self.step(id.as_str(), |store, _, _| {
                    store.step_down();
                    Vec::new()
                });
            }
        }
        self.step(leader, |store, view, cm| store.become_leader(&term, view, cm));
    }

    fn crash(&mut self, id: &str) {
        self.live.remove(&id.into());
        self.stores.remove(&id.into());
        self.wire.retain(|(to, _)| to.as_str() != id);
    }

    fn deliver_at(&mut self, at: usize) {
        let Some((to, msg)) = self.wire.remove(at) else { return };
        if self.live.contains(&to) {
            self.step(to.as_str(), |store, view, cm| store.handle_message(&msg, view, cm));
        }
    }

    fn deliver_all(&mut self) {
        let mut steps = 0;
        while !self.wire.is_empty() {
            self.deliver_at(0);
            steps += 1;
            assert!(steps < 10_000, "messages breed");
        }
    }

    fn request(&mut self, id: &str, leader: &str, room: &str) {
        let leader = leader.into();
        self.step(id, |store, view, cm| store.request(room, &leader, view, cm));
    }

    fn hand(&mut self, to: &str, from: &str, content: &MetadataContent) -> Vec<String> {
        let msg = Message::new(MessageType::MetadataUpdate, from).saying(content);
        self.step(to, |store, view, cm| store.handle_message(&msg, view, cm))
    }

    /// The leader's heartbeat: who is behind asks.
    fn heartbeat(&mut self, leader: &str) {
        let version = self.store(leader).version().cloned();
        for id in self.live.clone() {
            if self.stores[&id].is_behind(version.as_ref()) {
                self.step(id.as_str(), |store, view, cm| {
                    store.sync_with_leader(&leader.into(), view.held, cm);
                    Vec::new()
                });
            }
        }
    }

    fn holds(&mut self, id: &str, room: &str, messages: u64) {
        self.held.entry(id.into()).or_default().insert(room.into(), messages);
    }

    fn store(&self, id: &str) -> &MetadataStore {
        &self.stores[&id.into()]
    }

    /// What is on the wire, read: (receiver, content).
    fn sent(&self) -> Vec<(&str, MetadataContent)> {
        let read = |(to, msg): &'_ (NodeId, Message)| msg.content.parse().map(|c| (to.clone(), c));
        let sent: Vec<(NodeId, MetadataContent)> =
            self.wire.iter().map(|sent| read(sent).unwrap()).collect();
        let name = |id: NodeId| self.live.get(&id).map_or("gone", NodeId::as_str);
        sent.into_iter().map(|(to, content)| (name(to), content)).collect()
    }

    /// Everyone has the same version of the same map; returns it as text.
    fn agreed(&self) -> String {
        let first = self.stores.values().next().expect("a server");
        for store in self.stores.values() {
            assert_eq!(store.version, first.version, "{} and {}", store.node, first.node);
            assert_eq!(store.room_locations, first.room_locations, "same version, same map");
        }
        map(&first.room_locations)
    }
}

fn map(rooms: &BTreeMap<String, NodeId>) -> String {
    rooms.iter().map(|(room, host)| format!("{room}={host}")).collect::<Vec<_>>().join(" ")
}

fn rooms(pairs: &[(&str, &str)]) -> BTreeMap<String, NodeId> {
    pairs.iter().map(|(room, host)| ((*room).to_string(), NodeId::from(*host))).collect()
}

fn term(counter: u64, leader: &str) -> Term {
    Term { counter, leader: Incarnation::new(&leader.into(), 1, 0) }
}

fn version(term: &Term, counter: u64) -> MetadataVersion {
    MetadataVersion { term: term.clone(), counter }
}

fn whole(version: MetadataVersion, pairs: &[(&str, &str)]) -> MetadataContent {
    MetadataContent::Update { version, base: None, room_locations: rooms(pairs) }
}

fn report(version: Option<MetadataVersion>, pairs: &[(&str, &str)]) -> MetadataContent {
    MetadataContent::Report { held: BTreeMap::new(), room_locations: rooms(pairs), version }
}

/// Three servers, `n3` leads, and everyone has its first map.
fn led_by_n3() -> Cluster {
    let mut cluster = Cluster::of(&["n1", "n2", "n3"]);
    cluster.elect("n3", 1);
    cluster.deliver_all();
    cluster
}

#[test]
fn the_first_request_gives_a_room_to_the_server_with_the_fewest_rooms() {
    let mut cluster = led_by_n3();
    for room in ["a", "b", "c", "d"] {
        cluster.request("n3", "n3", room);
    }
    cluster.deliver_all();
    assert_eq!(cluster.agreed(), "a=n1 b=n2 c=n3 d=n1");
}

#[test]
fn a_request_to_a_follower_goes_to_the_leader_and_asking_again_changes_nothing() {
    let mut cluster = led_by_n3();
    cluster.request("n1", "n3", "lobby");
    let asked = MetadataContent::Request { room_id: "lobby".into() };
    assert_eq!(cluster.sent(), [("n3", asked.clone())]);
    cluster.deliver_all();
    assert_eq!(cluster.agreed(), "lobby=n1");
    let before = cluster.store("n3").version().cloned();
    cluster.request("n3", "n3", "lobby");
    assert_eq!(cluster.sent(), [], "the leader knows its own map");
    cluster.hand("n3", "n2", &asked);
    assert_eq!(
        cluster.sent(),
        [("n2", MetadataContent::Collect { term: before.as_ref().unwrap().term.clone() })],
        "n2 must have missed it, and says what it has before it gets the map"
    );
    assert_eq!(cluster.store("n3").version(), before.as_ref());
    // A server that does not lead cannot help.
    cluster.wire.clear();
    cluster.hand("n1", "n2", &asked);
    assert_eq!(cluster.sent(), []);
}

#[test]
fn everyone_is_told_only_what_changed() {
    let mut cluster = led_by_n3();
    cluster.request("n3", "n3", "a");
    cluster.deliver_all();
    cluster.request("n3", "n3", "b");
    let update = MetadataContent::Update {
        version: version(&term(1, "n3"), 3),
        base: Some(version(&term(1, "n3"), 2)),
        room_locations: rooms(&[("b", "n2")]),
    };
    assert_eq!(cluster.sent(), [("n1", update.clone()), ("n2", update)]);
}

#[test]
fn who_missed_an_update_says_what_it_has_and_gets_the_whole_map() {
    let mut cluster = led_by_n3();
    cluster.request("n3", "n3", "a");
    cluster.wire.retain(|(to, _)| to.as_str() != "n1");
    cluster.request("n3", "n3", "b");
    cluster.deliver_all();
    assert_eq!(cluster.agreed(), "a=n1 b=n2");
    // Without a second update the leader's heartbeat shows it.
    cluster.request("n3", "n3", "c");
    cluster.wire.clear();
    assert!(cluster.store("n2").is_behind(cluster.store("n3").version()));
    cluster.heartbeat("n3");
    cluster.deliver_all();
    assert_eq!(cluster.agreed(), "a=n1 b=n2 c=n3");
    assert!(!cluster.store("n2").is_behind(cluster.store("n3").version()));
}

#[test]
fn a_report_of_the_leaders_own_version_needs_no_answer() {
    let mut cluster = led_by_n3();
    let current = cluster.store("n3").version().cloned();
    cluster.hand("n3", "n1", &report(current, &[]));
    assert_eq!(cluster.sent(), []);
    cluster.hand("n3", "n1", &report(None, &[]));
    assert!(matches!(cluster.sent()[..], [("n1", MetadataContent::Update { base: None, .. })]));
}

#[test]
fn stale_versions_are_ignored() {
    let mut cluster = led_by_n3();
    let old = cluster.store("n1").version().cloned().unwrap();
    cluster.request("n3", "n3", "a");
    cluster.deliver_all();
    let current = cluster.store("n1").version().cloned().unwrap();
    for stale in [old, current, version(&term(0, "n9"), 99)] {
        assert_eq!(cluster.hand("n1", "n3", &whole(stale, &[("a", "n2")])), [""; 0]);
    }
    // Of a leader that was replaced, even when this server has not heard from the new one yet.
    cluster.terms.insert("n1".into(), term(2, "n2"));
    let late = whole(version(&term(1, "n3"), 50), &[("a", "n2")]);
    assert_eq!(cluster.hand("n1", "n3", &late), [""; 0]);
    assert_eq!(map(cluster.store("n1").room_locations()), "a=n1");
}

#[test]
fn a_whole_map_also_takes_rooms_away() {
    let mut cluster = led_by_n3();
    cluster.request("n3", "n3", "a");
    cluster.deliver_all();
    let changed = cluster.hand("n1", "n3", &whole(version(&term(1, "n3"), 9), &[("b", "n2")]));
    assert_eq!(changed, ["a", "b"]);
    assert_eq!(map(cluster.store("n1").room_locations()), "b=n2");
}

#[test]
fn a_new_leader_starts_from_what_everyone_believes_and_holds() {
    let mut cluster = Cluster::of(&["n1", "n2", "n3"]);
    let old = term(1, "n9");
    cluster.hand("n1", "n9", &whole(version(&old, 5), &[("a", "n1"), ("b", "n1")]));
    cluster.hand("n2", "n9", &whole(version(&old, 7), &[("a", "n2")]));
    cluster.hand("n3", "n9", &whole(version(&old, 6), &[("a", "n3"), ("c", "n3")]));
    cluster.holds("n2", "d", 4);
    cluster.elect("n3", 2);
    cluster.deliver_all();
    // a: n2 has the highest version. b and c: whoever knows them. d: who holds it.
    assert_eq!(cluster.agreed(), "a=n2 b=n1 c=n3 d=n2");
}

#[test]
fn reports_in_any_order_end_with_the_belief_of_the_highest_version() {
    for order in [["n1", "n2"], ["n2", "n1"]] {
        let mut cluster = Cluster::of(&["n1", "n2", "n3"]);
        cluster.elect("n3", 2);
        cluster.wire.clear();
        for id in order {
            let counter = if id == "n2" { 7 } else { 5 };
            cluster.hand("n3", id, &report(Some(version(&term(1, "n9"), counter)), &[("a", id)]));
        }
        assert_eq!(map(cluster.store("n3").room_locations()), "a=n2", "{order:?}");
    }
}

#[test]
fn a_past_state_of_the_leaders_own_map_does_not_come_back_with_a_report() {
    let mut cluster = Cluster::of(&["n1", "n2", "n3"]);
    cluster.elect("n3", 2);
    cluster.wire.clear();
    cluster.hand("n3", "n1", &report(Some(version(&term(1, "n9"), 5)), &[("a", "n1")]));
    let mut taken_over = cluster.store("n3").version().cloned();
    cluster.hand("n3", "n2", &report(Some(version(&term(1, "n9"), 7)), &[("a", "n2")]));
    // n1 has not heard of the second change.
    cluster.hand("n3", "n1", &report(taken_over.take(), &[("a", "n1")]));
    assert_eq!(map(cluster.store("n3").room_locations()), "a=n2");
}

#[test]
fn rooms_of_a_dead_host_move_to_the_live_holder_with_the_most_messages() {
    let mut cluster = Cluster::of(&["n1", "n2", "n3", "n4"]);
    cluster.elect("n4", 1);
    cluster.deliver_all();
    cluster.request("n4", "n4", "lobby");
    cluster.request("n4", "n4", "quiet");
    cluster.deliver_all();
    assert_eq!(cluster.agreed(), "lobby=n1 quiet=n2");
    for (id, messages) in [("n2", 3), ("n3", 8), ("n4", 8)] {
        cluster.holds(id, "lobby", messages);
    }
    cluster.crash("n1");
    cluster.step("n4", |store, view, cm| store.collect(view, cm));
    assert_eq!(
        map(cluster.store("n4").room_locations()),
        "lobby=n1 quiet=n2",
        "not before all told"
    );
    cluster.deliver_all();
    assert_eq!(cluster.agreed(), "lobby=n3 quiet=n2", "of equals the lowest id");
}

#[test]
fn a_room_without_a_holder_goes_to_the_server_with_the_fewest_rooms() {
    let mut cluster = led_by_n3();
    for room in ["a", "b", "c", "d"] {
        cluster.request("n3", "n3", room);
    }
    cluster.deliver_all();
    cluster.crash("n1");
    cluster.step("n3", |store, view, cm| store.collect(view, cm));
    cluster.deliver_all();
    assert_eq!(cluster.agreed(), "a=n2 b=n2 c=n3 d=n3", "each takes one");
}

#[test]
fn who_does_not_report_is_waited_for_no_longer_than_the_caller_likes() {
    let mut cluster = led_by_n3();
    cluster.request("n3", "n3", "a");
    cluster.deliver_all();
    cluster.holds("n2", "a", 9);
    cluster.crash("n1");
    cluster.step("n3", |store, view, cm| store.collect(view, cm));
    cluster.wire.clear();
    assert_eq!(cluster.step("n3", |store, view, cm| store.rehome(view, cm)), ["a"]);
    assert_eq!(map(cluster.store("n3").room_locations()), "a=n2", "n3 hosts none, and n2 is lower");
}

#[test]
fn a_client_that_wants_a_room_of_a_dead_host_does_not_wait_for_reports() {
    let mut cluster = led_by_n3();
    cluster.request("n3", "n3", "a");
    cluster.deliver_all();
    cluster.crash("n1");
    cluster.step("n3", |store, view, cm| store.collect(view, cm));
    cluster.request("n3", "n3", "a");
    assert_eq!(map(cluster.store("n3").room_locations()), "a=n2");
}

#[test]
fn a_server_that_dies_while_its_report_is_awaited_holds_nobody_up() {
    let mut cluster = led_by_n3();
    cluster.request("n3", "n3", "a");
    cluster.deliver_all();
    cluster.crash("n1");
    cluster.step("n3", |store, view, cm| store.collect(view, cm));
    cluster.crash("n2");
    assert_eq!(cluster.step("n3", |store, view, cm| store.collect(view, cm)), ["a"]);
    assert_eq!(map(cluster.store("n3").room_locations()), "a=n3");
}

#[test]
fn an_old_leader_is_not_told_and_a_later_ones_question_ends_its_leading() {
    let mut cluster = led_by_n3();
    cluster.holds("n3", "a", 2);
    cluster.terms.insert("n1".into(), term(2, "n2"));
    cluster.hand("n1", "n3", &MetadataContent::Collect { term: term(1, "n3") });
    assert_eq!(cluster.sent(), [], "n1 knows of a later one");
    cluster.hand("n3", "n2", &MetadataContent::Collect { term: term(1, "n2") });
    assert_eq!(cluster.sent(), [], "n3 is the later one");
    cluster.hand("n3", "n2", &MetadataContent::Collect { term: term(2, "n2") });
    assert!(matches!(cluster.sent()[..], [("n2", MetadataContent::Report { .. })]));
    cluster.wire.clear();
    cluster.request("n3", "n2", "b");
    assert!(matches!(cluster.sent()[..], [("n2", MetadataContent::Request { .. })]));
}

#[test]
fn two_leaders_meet_and_the_later_ones_map_wins_with_what_the_other_knew() {
    let mut cluster = Cluster::of(&["n1", "n2", "n3", "n4"]);
    let everyone = cluster.live.clone();
    for (side, leader, room) in [(["n1", "n2"], "n2", "left"), (["n3", "n4"], "n4", "right")] {
        cluster.live = side.iter().map(|id| NodeId::from(*id)).collect();
        cluster.elect(leader, 1);
        cluster.deliver_all();
        cluster.request(leader, leader, room);
        cluster.request(leader, leader, "both");
        cluster.deliver_all();
    }
    cluster.live = everyone;
    let changed = cluster.step("n4", |store, view, cm| store.collect(view, cm));
    assert_eq!(changed, [""; 0]);
    cluster.deliver_all();
    assert_eq!(cluster.agreed(), "both=n4 left=n1 right=n3");
}

#[test]
fn a_leader_ignores_a_map_that_is_later_than_its_own_until_it_hears_of_the_election() {
    let mut cluster = led_by_n3();
    let later = report(Some(version(&term(2, "n1"), 1)), &[("a", "n2")]);
    assert_eq!(cluster.hand("n3", "n2", &later), [""; 0]);
    assert_eq!(cluster.sent(), []);
    // The later leader's own update ends its leading.
    cluster.hand("n3", "n1", &whole(version(&term(2, "n1"), 2), &[("a", "n2")]));
    assert!(cluster.store("n3").is_behind(Some(&version(&term(2, "n1"), 3))));
}

#[test]
fn becoming_leader_twice_in_a_term_does_nothing() {
    let mut cluster = led_by_n3();
    cluster.request("n3", "n3", "a");
    cluster.deliver_all();
    let before = cluster.store("n3").version().cloned();
    cluster.step("n3", |store, view, cm| store.become_leader(&term(1, "n3"), view, cm));
    assert_eq!(cluster.sent(), []);
    assert_eq!(cluster.store("n3").version().cloned(), before);
}

#[test]
fn malformed_names_are_refused() {
    let long = "x".repeat(65);
    for bad in ["", "a\nb", long.as_str()] {
        let mut cluster = led_by_n3();
        cluster.hand("n3", "n1", &MetadataContent::Request { room_id: bad.into() });
        let held = BTreeMap::from([(bad.to_string(), 5)]);
        let room_locations = rooms(&[(bad, "n1"), ("a", bad), ("b", "n1")]);
        cluster.hand("n3", "n1", &MetadataContent::Report { held, room_locations, version: None });
        assert_eq!(map(cluster.store("n3").room_locations()), "b=n1", "{bad:?}");
        let update = whole(version(&term(1, "n3"), 9), &[(bad, "n1"), ("a", bad), ("b", "n2")]);
        cluster.hand("n1", "n3", &update);
        assert_eq!(map(cluster.store("n1").room_locations()), "b=n2", "{bad:?}");
    }
}

#[test]
fn what_cannot_be_read_or_came_from_oneself_is_ignored() {
    let mut cluster = led_by_n3();
    for raw in [
        r#"{"type":"METADATA_UPDATE","sender_id":"n1"}"#,
        r#"{"type":"METADATA_UPDATE","sender_id":"n1","content":"text"}"#,
        r#"{"type":"METADATA_UPDATE","sender_id":"n1","content":{"kind":"request"}}"#,
        r#"{"type":"METADATA_UPDATE","sender_id":"n3","content":{"kind":"request","room_id":"a"}}"#,
        r#"{"type":"CHAT","sender_id":"n1","content":{"kind":"request","room_id":"a"}}"#,
    ] {
        let msg = Message::deserialize(raw).unwrap();
        cluster.step("n3", |store, view, cm| store.handle_message(&msg, view, cm));
    }
    assert_eq!(cluster.sent(), []);
    assert_eq!(map(cluster.store("n3").room_locations()), "");
}
