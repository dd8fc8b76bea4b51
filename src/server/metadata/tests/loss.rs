//! Maps stay together whatever gets lost.

use super::*;

/// Loss, reordering, requests, a death and two elections, drawn from `seed`; returns how many were lost.
fn play(seed: u64) -> u32 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let ids = ["n1", "n2", "n3", "n4", "n5"];
    let mut cluster = Cluster::of(&ids);
    let mut leader = "n5";
    cluster.elect(leader, 1);
    let mut lost = 0;
    let deaths = [rng.usize(..150), rng.usize(..150)];
    for turn in 0..150 {
        if turn == deaths[0] {
            cluster.crash("n5"); // Rooms of its own die with it.
            leader = "n4";
            cluster.elect(leader, 2);
        }
        if turn == deaths[1] {
            cluster.crash("n1");
            cluster.step(leader, |store, view, cm| store.collect(view, cm));
        }
        let id = ids[rng.usize(..5)];
        let room = format!("r{}", rng.u8(..8));
        match rng.u8(..10) {
            0 | 1 if cluster.live.contains(&id.into()) => cluster.request(id, leader, &room),
            2 => cluster.holds(id, &room, rng.u64(..20)),
            3 => cluster.heartbeat(leader),
            4 if !cluster.wire.is_empty() => {
                cluster.wire.remove(rng.usize(..cluster.wire.len()));
                lost += 1;
            }
            5 => _ = cluster.step(leader, |store, view, cm| store.rehome(view, cm)),
            _ if !cluster.wire.is_empty() => cluster.deliver_at(rng.usize(..cluster.wire.len())),
            _ => {}
        }
        assert_same_version_same_map(&cluster, seed);
    }
    cluster.wire.clear();
    cluster.step(leader, |store, view, cm| store.rehome(view, cm));
    cluster.wire.clear();
    cluster.heartbeat(leader);
    cluster.deliver_all();
    cluster.agreed();
    for (room, host) in cluster.store(leader).room_locations() {
        assert!(cluster.live.contains(host), "seed {seed}: {room} is hosted by {host}, dead");
    }
    lost
}

fn assert_same_version_same_map(cluster: &Cluster, seed: u64) {
    let mut maps: BTreeMap<&MetadataVersion, &MetadataStore> = BTreeMap::new();
    for store in cluster.stores.values() {
        let Some(version) = store.version() else { continue };
        let other = maps.entry(version).or_insert(store);
        assert_eq!(store.room_locations, other.room_locations, "seed {seed}, {version:?}");
    }
}

#[test]
fn after_any_loss_and_reordering_one_round_of_heartbeats_makes_all_maps_equal() {
    let lost: u32 = (0..150).map(play).sum();
    assert!(lost > 500, "messages were lost: {lost}");
}
