//! How a cluster grows with the number of servers: `cargo run --release --example scale`.
//!
//! *Elections*: one of each kind among n live servers, on the ring that a cluster makes, in the order of the ids. Every message
//! takes the same time, a delay; the time ends when all follow the highest id. The lowest id starts alone, or all start at
//! once. Announcements are counted. More than the theory allows makes the program panic.
//!
//! *Rest*: whole simulated servers that find each other over UDP, and nobody talks: the messages a second between them, from
//! the 8th second on, beside those that the theory says.
#![expect(clippy::disallowed_methods, reason = "one fixed start for virtual time")]

use std::time::Instant;

use roundtable::domain::{Incarnation, Message, NodeId};
use roundtable::network::transport::Outbox;
use roundtable::server::election::{BullyElection, Election, ElectionModule, ElectionTiming};
use roundtable::sim::plan::Plan;
use roundtable::sim::trace::Detail;
use roundtable::sim::{Faults, Options, SECOND, run_plan};

const SIZES: [usize; 5] = [3, 8, 16, 32, 64];
/// From when to when messages at rest are counted, in seconds: some rounds of everything that comes at intervals.
const REST: (u64, u64) = (8, 20);

fn main() {
    elections();
    println!();
    rest();
}

fn elections() {
    println!("             Hirschberg and Sinclair              Bully");
    println!("             one starts         all start         one starts         all start");
    println!(
        "   servers   delays  messages   delays  messages   delays  messages   delays  messages"
    );
    for n in SIZES {
        let hs = [1, n].map(|starters| elect(n, starters, hirschberg_sinclair));
        let bully = [1, n].map(|starters| elect(n, starters, bully));
        print!("   {n:7}");
        for (delays, messages) in hs.iter().chain(&bully) {
            print!("   {delays:6}  {messages:8}");
        }
        println!();
        let phases = n.next_power_of_two();
        assert!(hs[1].0 <= 2 * (phases - 1) + 2 * n, "phases of 2 * 2^k, then round twice");
        let log = phases.trailing_zeros() as usize;
        assert!(hs.iter().all(|(_, messages)| *messages <= 8 * n * (1 + log) + n), "n log n");
        // The highest announces itself when it is asked, or at once.
        assert_eq!(bully, [(2, n * n - 1), (1, n * n - 1)]);
    }
}

fn hirschberg_sinclair(id: &NodeId) -> Box<dyn Election> {
    let incarnation = Incarnation::new(id, 1, 0);
    Box::new(ElectionModule::new(id.clone(), incarnation, ElectionTiming::default()))
}

fn bully(id: &NodeId) -> Box<dyn Election> {
    let incarnation = Incarnation::new(id, 1, 0);
    Box::new(BullyElection::new(id.clone(), incarnation, String::new(), ElectionTiming::default()))
}

/// An election among `n` servers, of which the lowest `starters` stand at the same time: after how many delays all follow
/// the highest, and how many messages there were until nobody had anything to say.
fn elect(n: usize, starters: usize, make: impl Fn(&NodeId) -> Box<dyn Election>) -> (usize, usize) {
    let ids: Vec<NodeId> = (1..=n).map(|number| format!("n{number}").into()).collect();
    let mut nodes: Vec<Box<dyn Election>> = ids.iter().map(make).collect();
    let (outbox, now) = (Outbox::new(), Instant::now());
    for node in &mut nodes {
        node.members_changed(&ids, now, &outbox);
    }
    for node in &mut nodes[..starters] {
        node.start_election(now, &outbox);
    }
    let (mut delays, mut agreed, mut messages) = (0, None, 0);
    let mut under_way: Vec<(Option<NodeId>, Message)> = outbox.take_to_nodes();
    while !under_way.is_empty() {
        delays += 1;
        messages += under_way.len();
        for (to, msg) in under_way {
            let to = ids.iter().position(|id| Some(id) == to.as_ref()).expect("one receiver");
            nodes[to].handle_message(&msg, now, &outbox);
        }
        under_way = outbox.take_to_nodes();
        if nodes.iter().all(|node| node.leader().as_ref() == ids.last()) {
            agreed = agreed.or(Some(delays));
        }
    }
    (agreed.expect("they agree"), messages)
}

fn rest() {
    println!("             heartbeats a second       discoveries a second");
    println!("   servers     counted     theory     datagrams     theory");
    for n in SIZES {
        let [beats, datagrams] = rates_at_rest(n);
        // Of four intervals of 100 ms: to everyone in one; to neighbours, and from and to the leader, in three.
        let near = if n < 4 { n * (n - 1) } else { 4 * n - 6 };
        let expected = (n * (n - 1) + 3 * near) as f64 * 2.5;
        // Every 3 s, rounded up to a heartbeat: one broadcast to all, itself included.
        let discoveries = (n * n) as f64 / 3.0;
        println!("   {n:7}  {beats:10.0} {expected:10.0}    {datagrams:10.0} {discoveries:10.0}");
        assert!((beats / expected - 1.0).abs() < 0.1, "heartbeats as the theory says");
        assert!((datagrams / discoveries - 1.0).abs() < 0.3, "datagrams as the theory says");
    }
}

/// HEARTBEATs and DISCOVERY datagrams a second that arrive in a cluster of `n` servers in which nothing happens.
fn rates_at_rest(n: usize) -> [f64; 2] {
    let options = Options {
        nodes: Some(n),
        faults: Faults::NONE,
        detail: Detail::Full,
        ..Options::default()
    };
    let mut plan = Plan::draw(1, &options);
    (plan.clients, plan.known_peers, plan.discovery) = (0, 0, true);
    (plan.drift, plan.lasts) = (vec![0; n], REST.1 * SECOND);
    let report = run_plan(1, plan, &options);
    assert_eq!(report.violation, None);
    let mut counts = [0_u32; 2];
    for line in &report.trace {
        // Such as `  9.104711 n1 -> n2 {"type":"HEARTBEAT",…}`; with `~>` it is a datagram.
        let words: Vec<&str> = line.split_whitespace().take(5).collect();
        let &[at, from, arrow, to, text] = words.as_slice() else { continue };
        let second = at.split('.').next().and_then(|second| second.parse().ok()).unwrap_or(0);
        let of_servers = from.starts_with('n') && to.starts_with('n');
        if of_servers && (REST.0..REST.1).contains(&second) {
            counts[0] += u32::from(arrow == "->" && text.contains(r#""HEARTBEAT""#));
            counts[1] += u32::from(arrow == "~>" && text.contains(r#""DISCOVERY""#));
        }
    }
    counts.map(|count| f64::from(count) / (REST.1 - REST.0) as f64)
}
