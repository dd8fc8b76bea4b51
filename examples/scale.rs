//! How a cluster grows with the number of servers: `cargo run --release --example scale`.
//!
//! Whole simulated servers that find each other over UDP, and nobody talks: the messages a second between them, from
//! the 8th second on, beside those that the theory says.

use roundtable::sim::plan::Plan;
use roundtable::sim::trace::Detail;
use roundtable::sim::{Faults, Options, SECOND, run_plan};

const SIZES: [usize; 5] = [3, 8, 16, 32, 64];
/// From when to when messages at rest are counted, in seconds: some rounds of everything that comes at intervals.
const REST: (u64, u64) = (8, 20);

fn main() {
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
