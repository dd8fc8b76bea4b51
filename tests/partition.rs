//! Servers are cut off from each other under people who talk. All sides go on; once the network is whole again all have
//! the same messages, and the highest id leads.
//!
//! One partition runs with all tests. The rest is for `make soak`; `ROUNDS=2 make soak` is shorter than its 5 rounds
//! of each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use roundtable::domain::NodeId;
use roundtable::domain::content::Liveness;
use support::cluster::Cluster;
use support::proxy::{Fronts, Healing, start_cluster};
use support::talk::{ROOM, Talk, assert_nothing_lost};
use support::wait_until;
use support::wire::server_in;

const COUNT: usize = 3;

/// How often each person writes.
const PAUSE: Duration = Duration::from_millis(10);

/// How long people talk between faults.
const QUIET: Duration = Duration::from_secs(1);

/// How long a cut lasts after the servers have noticed it.
const CUT: Duration = Duration::from_secs(2);

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

/// One of the two ways to heal, in turn.
fn healing(round: usize) -> Healing {
    if round.is_multiple_of(2) { Healing::GoOn } else { Healing::Reset }
}

/// Three servers that can be cut off from each other, and three people, each on a server of its own.
struct Play {
    talk: Talk,
    cluster: Cluster,
    network: Fronts,
}

impl Play {
    fn start() -> Self {
        let network = Fronts::open(COUNT).unwrap();
        // The timing that users have.
        let cluster = start_cluster(&network, &["--server-timeout-ms", "800", "--rooms", ROOM]);
        let talk = Talk::start(&cluster, COUNT, PAUSE);
        sleep(QUIET);
        Self { talk, cluster, network }
    }

    /// Cuts the network into `islands`, sees that each is a cluster that serves its people, and heals it.
    fn split(&self, islands: &[Vec<usize>], lasting: Duration, healing: Healing) {
        let since = Instant::now();
        self.network.split(islands);
        for island in islands {
            self.wait_island(island);
        }
        // From now on an acknowledgement is that of an island.
        let before = self.talk.acked_each();
        sleep(lasting);
        self.wait_acknowledged(&before);
        for island in islands {
            self.wait_island(island);
        }
        self.network.heal(healing);
        self.settle(&format!("{islands:?} apart"), healing, since);
    }

    /// Cuts `ways` (from, to) and no more, so that servers disagree on who is there, and heals them.
    fn cut(&self, ways: &[(usize, usize)], healing: Healing) {
        let since = Instant::now();
        for (from, to) in ways {
            self.network.cut_one_way(*from, *to);
        }
        for (from, to) in ways {
            self.wait_dead(*from, *to);
        }
        let before = self.talk.acked_each();
        sleep(CUT);
        self.wait_acknowledged(&before);
        self.network.heal(healing);
        self.settle(&format!("{ways:?} cut"), healing, since);
    }

    /// Waits until everyone has got more than `before` acknowledgements.
    fn wait_acknowledged(&self, before: &[usize]) {
        wait_until("everyone is acknowledged during the cut", || {
            let now = self.talk.acked_each();
            now.iter().zip(before).all(|(now, before)| now > before).then_some(())
        });
    }

    /// Waits until the server `at` calls `index` dead.
    fn wait_dead(&self, index: usize, at: usize) {
        let id = &self.cluster.servers[index].id;
        let at = &self.cluster.servers[at];
        wait_until(&format!("{} calls {id} dead", at.id), || {
            let status = at.status()?;
            (server_in(&status, id)?.state == Liveness::Dead).then_some(())
        });
    }

    /// Waits until the servers of `island` are a ring of their own that their highest leads.
    fn wait_island(&self, island: &[usize]) {
        let ids: Vec<&str> = island.iter().map(|i| self.cluster.servers[*i].id.as_str()).collect();
        let agrees = |index: usize| {
            self.cluster.servers[index].status().is_some_and(|status| {
                status.ring.iter().map(NodeId::as_str).eq(ids.iter().copied())
                    && status.leader.as_ref().map(NodeId::as_str) == ids.last().copied()
            })
        };
        wait_until(&format!("{ids:?} are on their own"), || {
            island.iter().all(|index| agrees(*index)).then_some(())
        });
    }

    /// Waits until all servers are one cluster again, which the highest id leads, and lets it be one for a while. Prints
    /// how long it took, and the longest wait for an acknowledgement since `since`.
    fn settle(&self, what: &str, healing: Healing, since: Instant) {
        let healed = Instant::now();
        self.cluster.wait_ready();
        let whole = healed.elapsed().as_millis();
        sleep(QUIET);
        let silence = self.talk.longest_silence(since).as_millis();
        println!(
            "{what}, {healing:?}: longest wait for an ACK {silence} ms; whole again in {whole} ms"
        );
    }

    fn finish(self) {
        let Self { talk, cluster, network } = self;
        assert_nothing_lost(&cluster, talk);
        drop(cluster);
        drop(network);
    }
}

#[test]
fn both_sides_of_a_partition_talk_on_and_come_together_again() {
    let play = Play::start();
    play.split(&[vec![0], vec![1, 2]], CUT, Healing::Reset);
    play.finish();
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_cut_off_each_server_in_turn() {
    let play = Play::start();
    for round in 0..rounds() * COUNT {
        let (alone, others): (Vec<usize>, _) =
            (0..COUNT).partition(|index| *index == round % COUNT);
        play.split(&[alone, others], CUT, healing(round));
    }
    play.finish();
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_cut_off_the_leader() {
    let play = Play::start();
    for round in 0..rounds() {
        play.split(&[vec![2], vec![0, 1]], CUT, healing(round));
    }
    play.finish();
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_cut_for_long() {
    let play = Play::start();
    // Longer than anything waits for an answer: dials, HELLOs and requests are given up.
    let long = Duration::from_secs(12);
    for round in 0..rounds() {
        let (alone, others): (Vec<usize>, _) =
            (0..COUNT).partition(|index| *index == round % COUNT);
        play.split(&[alone, others], long, healing(round / COUNT));
    }
    play.finish();
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_cut_all_off_from_each_other() {
    let play = Play::start();
    for round in 0..rounds() {
        play.split(&[vec![0], vec![1], vec![2]], CUT, healing(round));
    }
    play.finish();
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_kill_a_server_in_a_cut() {
    let mut play = Play::start();
    for round in 0..rounds() * COUNT {
        let (alone, killed, left) = (round % COUNT, (round + 1) % COUNT, (round + 2) % COUNT);
        let since = Instant::now();
        let mut pair = vec![killed, left];
        pair.sort_unstable();
        play.network.split(&[vec![alone], pair.clone()]);
        play.wait_island(&[alone]);
        play.wait_island(&pair);
        sleep(CUT / 2);
        // Its people find the server that has all that they were shown, not the one that is alone.
        play.cluster.servers[killed].kill();
        play.wait_island(&[left]);
        let before = play.talk.acked_each();
        sleep(CUT / 2);
        play.wait_acknowledged(&before);
        play.network.heal(healing(round));
        sleep(QUIET);
        play.cluster.restart(killed);
        let what = format!("{alone} alone, {killed} killed");
        play.settle(&what, healing(round), since);
    }
    play.finish();
}

/// Every ordered pair of servers.
fn ordered_pairs() -> Vec<(usize, usize)> {
    let others = |from| (0..COUNT).filter(move |to| *to != from).map(move |to| (from, to));
    (0..COUNT).flat_map(others).collect()
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_cut_one_way() {
    let play = Play::start();
    for round in 0..rounds() {
        for (from, to) in ordered_pairs() {
            play.cut(&[(from, to)], healing(round));
        }
    }
    play.finish();
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_cut_one_pair() {
    let play = Play::start();
    for round in 0..rounds() {
        for (one, other) in ordered_pairs().into_iter().filter(|(one, other)| one < other) {
            play.cut(&[(one, other), (other, one)], healing(round));
        }
    }
    play.finish();
}

#[test]
#[ignore = "minutes: make soak"]
fn soak_flapping_cut() {
    let play = Play::start();
    for round in 0..rounds() {
        let since = Instant::now();
        // Around the time that it takes to call a server dead.
        for ms in [200, 700, 900, 1100, 1500] {
            play.network
                .split(&[vec![round % COUNT], vec![(round + 1) % COUNT, (round + 2) % COUNT]]);
            sleep(Duration::from_millis(ms));
            play.network.heal(healing(round));
            sleep(Duration::from_millis(300));
        }
        play.settle(&format!("{} flapping", round % COUNT), healing(round), since);
    }
    play.finish();
}
