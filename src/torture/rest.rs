//! Whether a cluster is at rest, judged by what its servers say of themselves.
//!
//! ```text
//!   fault over ─▶ level: one leader for all, and copies that lack a few messages at most, since people talk
//!                   │ hush: nobody says anything new
//!                   ▼
//!                 equal: whoever has to hold something holds it, all of it ─▶ people talk again
//! ```
//!
//! Two pure functions of what all servers say, and [`wait_for`], which asks until one of them is content.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::NodeId;
use crate::domain::content::{RoomStatus, Status};
use crate::local_cluster::{LocalCluster, ServerProcess};

/// How far a copy may be behind while people talk: a few messages are always under way.
const LEVEL: u64 = 200;

/// Says why a cluster is not at rest; `None` when it is. It is given what all servers say.
pub(crate) type Judge = fn(&[Status]) -> Option<String>;

/// Waits until `judge` has nothing to say. False when stopped; an error says what is still wrong after `limit`.
pub(crate) fn wait_for(
    cluster: &mut LocalCluster,
    limit: Duration,
    judge: Judge,
) -> Result<bool, String> {
    let mut reason = String::new();
    let rested = cluster.wait_until(limit, |cluster| {
        if let Some(ended) = cluster.ended() {
            return Some(Err(ended));
        }
        match statuses_of(cluster).map_or_else(Some, |statuses| judge(&statuses)) {
            None => return Some(Ok(())),
            Some(why) => reason = why,
        }
        None
    });
    match rested {
        Some(rested) => rested.map(|()| true),
        None if !cluster.pause(Duration::ZERO) => Ok(false),
        None => Err(format!("{reason} after {} s", limit.as_secs())),
    }
}

/// What all servers say, or which one says nothing.
fn statuses_of(cluster: &LocalCluster) -> Result<Vec<Status>, String> {
    let said = |server: &ServerProcess| {
        server.status().ok_or_else(|| format!("{} does not answer", server.id()))
    };
    cluster.servers().iter().map(said).collect()
}

/// How many messages `server` says that people can read there; `None` when it does not answer.
pub(crate) fn messages_of(server: &ServerProcess) -> Option<u64> {
    server.status().map(|status| status.rooms.iter().map(|room| room.messages).sum())
}

/// Whether the servers are one again while people talk: a common leader, everybody in the ring, and no copy far behind.
pub(crate) fn unlevel(statuses: &[Status]) -> Option<String> {
    let fault = |status: &Status| {
        let fault = status.disk_fault.as_ref()?;
        Some(format!("{} cannot write its log: {fault}", status.node))
    };
    if let Some(fault) = statuses.iter().find_map(fault) {
        return Some(fault);
    }
    let leader = &statuses.first()?.leader;
    if leader.is_none() || statuses.iter().any(|status| status.leader != *leader) {
        return Some("the servers do not name the same leader".into());
    }
    let missing = statuses.iter().find(|status| status.ring.len() != statuses.len());
    if let Some(status) = missing {
        return Some(format!("a server is missing in the ring of {}", status.node));
    }
    let orders = || statuses.iter().filter_map(|status| Some((status, status.order.as_ref()?)));
    let ahead = orders().map(|(_, order)| order.committed).max();
    for (status, order) in orders() {
        let lags = order.committed + LEVEL < ahead.unwrap_or_default();
        let lags = lags.then(|| format!("{} has not caught up", status.node));
        if let Some(reason) = order.waits_for.clone().or(lags) {
            return Some(reason);
        }
    }
    let copies: Vec<(&Status, &RoomStatus)> =
        rooms_of(statuses).filter(|(status, room)| room.replicas.contains(&status.node)).collect();
    let behind = copies.iter().find(|(_, room)| {
        let mut of_room = copies.iter().filter(|(_, other)| other.room_id == room.room_id);
        of_room.any(|(_, other)| other.messages > room.messages + LEVEL)
    });
    behind.map(|(status, room)| format!("{} lacks messages of {}", status.node, room.room_id))
}

/// Whether every disk holds all that it has to, while nobody says anything new. Then any one of them may be lost.
pub(crate) fn unequal(statuses: &[Status]) -> Option<String> {
    unlevel(statuses).or_else(|| unequal_orders(statuses)).or_else(|| {
        let rooms: BTreeSet<&str> =
            rooms_of(statuses).map(|(_, room)| room.room_id.as_str()).collect();
        rooms.into_iter().find_map(|room_id| unequal_room(room_id, statuses))
    })
}

fn rooms_of(statuses: &[Status]) -> impl Iterator<Item = (&Status, &RoomStatus)> {
    statuses.iter().flat_map(|status| status.rooms.iter().map(move |room| (status, room)))
}

/// In the designs with one order: who has not all of it, or does not count.
fn unequal_orders(statuses: &[Status]) -> Option<String> {
    let place = |status: &Status| {
        let order = status.order.as_ref();
        (order.map(|order| order.committed), status.storage.clone())
    };
    let first = statuses.first()?;
    for status in statuses {
        if place(status) != place(first) {
            return Some(format!("{} and {} hold different orders", first.node, status.node));
        }
        let Some(order) = &status.order else { continue };
        if let Some(server) = order.wiped.first().or(order.learners.first()) {
            return Some(format!("{server} does not count yet for {}", status.node));
        }
    }
    None
}

/// What is wrong with the copies of one room.
fn unequal_room(room_id: &str, statuses: &[Status]) -> Option<String> {
    let mut copies: Vec<(&Status, &RoomStatus)> = Vec::new();
    for status in statuses {
        match status.rooms.iter().find(|room| room.room_id == room_id) {
            Some(room) => copies.push((status, room)),
            None => return Some(format!("{} does not know {room_id}", status.node)),
        }
    }
    let (first, known) = copies.first()?;
    if let Some((other, _)) = copies.iter().find(|(_, room)| room.host != known.host) {
        let (one, other) = (&first.node, &other.node);
        return Some(format!("{one} and {other} name different hosts of {room_id}"));
    }
    let mut replicas: BTreeSet<&NodeId> = copies.iter().flat_map(|copy| &copy.1.replicas).collect();
    // Whoever hosts a room shares it with the next one in the ring.
    let host = known.host.as_ref();
    let place = first.ring.iter().position(|id| Some(id) == host);
    replicas.extend(host);
    replicas.extend(place.map(|place| &first.ring[(place + 1) % first.ring.len()]));
    // A copy that nobody counts on may be old. It may not hold what the others lack.
    let most = copies.iter().map(|(_, room)| room.messages).max().unwrap_or_default();
    for (status, room) in copies.iter().filter(|(status, _)| replicas.contains(&status.node)) {
        let node = &status.node;
        if !room.replicas.contains(node) {
            return Some(format!("{node} is no replica of {room_id} yet"));
        }
        if room.messages != most || !room.held_back.is_empty() {
            let (has, waits) = (room.messages, room.held_back.len());
            let waits = if waits > 0 { " and some that wait" } else { "" };
            return Some(format!("{node} holds {has}{waits} of {most} messages of {room_id}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::{HeldBack, OrderStatus, StorageStatus};

    const ROOM: &str = "lobby";

    fn ids(names: &[&str]) -> Vec<NodeId> {
        names.iter().map(|name| NodeId::from(*name)).collect()
    }

    /// Three servers of a ring; n1 hosts the room, n2 is next to it, n3 has nobody in it.
    fn ring() -> [Status; 3] {
        ["n1", "n2", "n3"].map(|node| {
            let json = serde_json::json!({
                "node": node, "state": "FOLLOWER", "leader": "n3", "term": 1, "design": "ring", "cluster": "c",
                "servers": [], "ring": ["n1", "n2", "n3"],
                "rooms": [{
                    "room_id": ROOM, "host": "n1", "replicas": ["n1", "n2"], "members": [],
                    "messages": if node == "n3" { 0 } else { 70 }
                }]
            });
            serde_json::from_value(json).unwrap()
        })
    }

    /// Three servers with one order.
    fn orders() -> [Status; 3] {
        ring().map(|mut status| {
            status.rooms[0].host = None;
            status.rooms[0].replicas = ids(&["n1", "n2", "n3"]);
            status.rooms[0].messages = 70;
            status.storage = Some(StorageStatus { applied: 80, digest: "aa".into() });
            status.order = Some(OrderStatus { committed: 80, ..OrderStatus::default() });
            status
        })
    }

    /// Checks what both judges say of `statuses` once `change` has been made.
    fn check(mut statuses: [Status; 3], change: impl Fn(&mut [Status; 3]), expected: [&str; 2]) {
        change(&mut statuses);
        let said = [unlevel(&statuses), unequal(&statuses)].map(Option::unwrap_or_default);
        assert_eq!(said, expected);
    }

    #[test]
    fn a_whole_cluster_is_at_rest() {
        check(ring(), |_| (), ["", ""]);
        check(orders(), |_| (), ["", ""]);
    }

    #[test]
    fn who_is_not_one_is_not_at_rest() {
        let leader = "the servers do not name the same leader";
        check(ring(), |all| all[1].leader = None, [leader; 2]);
        check(ring(), |all| all.iter_mut().for_each(|one| one.leader = None), [leader; 2]);
        let missing = "a server is missing in the ring of n2";
        check(ring(), |all| all[1].ring = ids(&["n1", "n2"]), [missing; 2]);
        let full = |all: &mut [Status; 3]| all[2].disk_fault = Some("no space".into());
        check(ring(), full, ["n3 cannot write its log: no space"; 2]);
        let waits = |all: &mut [Status; 3]| {
            all[2].order.as_mut().unwrap().waits_for = Some("n1 is wiped".into());
        };
        check(orders(), waits, ["n1 is wiped"; 2]);
    }

    #[test]
    fn a_few_messages_are_nothing_to_people_who_talk_and_everything_before_a_disk_is_lost() {
        let few = |all: &mut [Status; 3]| all[1].rooms[0].messages = 69;
        check(ring(), few, ["", "n2 holds 69 of 70 messages of lobby"]);
        let many = |all: &mut [Status; 3]| all[0].rooms[0].messages = 70 + LEVEL + 1;
        check(ring(), many, ["n2 lacks messages of lobby"; 2]);
        let lags = |all: &mut [Status; 3]| all[1].order.as_mut().unwrap().committed = 79;
        check(orders(), lags, ["", "n1 and n2 hold different orders"]);
        let far = |all: &mut [Status; 3]| all[0].order.as_mut().unwrap().committed = 81 + LEVEL;
        check(orders(), far, ["n2 has not caught up"; 2]);
        let digest = |all: &mut [Status; 3]| all[2].storage.as_mut().unwrap().digest = "bb".into();
        check(orders(), digest, ["", "n1 and n3 hold different orders"]);
        let count = |all: &mut [Status; 3]| all[2].rooms[0].messages = 71;
        check(orders(), count, ["", "n1 holds 70 of 71 messages of lobby"]);
    }

    #[test]
    fn who_has_to_be_a_replica_has_to_say_so_itself() {
        // The others count on n2, which was wiped and knows nothing of it yet.
        let wiped = |all: &mut [Status; 3]| {
            all[1].rooms[0].replicas = ids(&["n1"]);
            all[1].rooms[0].messages = 0;
        };
        check(ring(), wiped, ["", "n2 is no replica of lobby yet"]);
        // Nobody says that it is one, and its place in the ring says that it has to be.
        let nobody = |all: &mut [Status; 3]| {
            wiped(all);
            all[0].rooms[0].replicas = ids(&["n1"]);
            all[2].rooms[0].replicas = ids(&["n1"]);
        };
        check(ring(), nobody, ["", "n2 is no replica of lobby yet"]);
        check(ring(), |all| all[1].rooms.clear(), ["", "n2 does not know lobby"]);
        let host = |all: &mut [Status; 3]| all[2].rooms[0].host = Some("n2".into());
        check(ring(), host, ["", "n1 and n3 name different hosts of lobby"]);
    }

    #[test]
    fn what_is_held_where_nobody_looks_for_it_is_lacked_by_the_others() {
        let spare = |all: &mut [Status; 3]| all[2].rooms[0].messages = 60;
        check(ring(), spare, ["", ""]);
        let only = |all: &mut [Status; 3]| all[2].rooms[0].messages = 71;
        check(ring(), only, ["", "n1 holds 70 of 71 messages of lobby"]);
    }

    #[test]
    fn a_message_that_waits_for_another_one_is_not_held_yet() {
        let waits = |all: &mut [Status; 3]| {
            all[0].rooms[0].held_back = vec![HeldBack {
                sender: "alice".into(),
                origin: "n3.1-aaaa".into(),
                count: 2,
                awaited: "n3.1-aaaa".into(),
                awaited_count: 1,
                here: 0,
            }];
        };
        check(ring(), waits, ["", "n1 holds 70 and some that wait of 70 messages of lobby"]);
    }

    #[test]
    fn a_voter_that_cannot_say_yes_is_no_copy_to_count_on() {
        let wiped = |all: &mut [Status; 3]| {
            all[0].order.as_mut().unwrap().wiped = ids(&["n2"]);
        };
        check(orders(), wiped, ["", "n2 does not count yet for n1"]);
        let learner = |all: &mut [Status; 3]| {
            all[0].order.as_mut().unwrap().learners = ids(&["n3"]);
        };
        check(orders(), learner, ["", "n3 does not count yet for n1"]);
    }
}
