//! Finding a server without knowing any address.

#![expect(clippy::disallowed_methods, reason = "the shell reads the clock: asking has a deadline")]

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use log::debug;

use crate::domain::content::{DiscoveryContent, ServerAddress};
use crate::domain::{Message, MessageType};
use crate::network::UDPHandler;

/// How often the question is repeated: datagrams may be lost.
const ASK_INTERVAL: Duration = Duration::from_millis(400);

/// Asks on the discovery port `port` for servers of `cluster` and hands each answer (the live servers, the one that
/// answers first) to `callback`, until it breaks off or `limit` has passed.
pub fn discover(
    udp: &UDPHandler,
    cluster: &str,
    port: u16,
    limit: Duration,
    mut callback: impl FnMut(&[ServerAddress]) -> ControlFlow<()>,
) {
    let question = Message::new(MessageType::Discovery, "")
        .saying(&DiscoveryContent::Client { cluster: cluster.into() });
    let deadline = Instant::now() + limit;
    let mut ask_next = Instant::now();
    loop {
        let now = Instant::now();
        if now >= deadline {
            return;
        }
        if now >= ask_next {
            udp.broadcast(&question, port);
            ask_next = now + ASK_INTERVAL;
        }
        let wait = ask_next.min(deadline).saturating_duration_since(now);
        match udp.receive(wait) {
            Ok(Some((answer, _))) => {
                if let Some(servers) = found(&answer, cluster)
                    && callback(&servers).is_break()
                {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                debug!("no answers over UDP: {error}");
                return;
            }
        }
    }
}

/// The servers that `answer` names, if it is one about `cluster`.
fn found(answer: &Message, cluster: &str) -> Option<Vec<ServerAddress>> {
    match answer.content.parse() {
        Ok(DiscoveryContent::Found { cluster: name, servers, .. }) if name == cluster => {
            Some(servers)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_about_the_own_cluster_count() {
        let server = ServerAddress { id: "n1".into(), address: "h:1".into() };
        let content = DiscoveryContent::Found {
            cluster: "blue".into(),
            servers: vec![server.clone()],
            leader: None,
            rooms: Vec::new(),
        };
        let answer = Message::new(MessageType::Discovery, "n1").saying(&content);
        assert_eq!(found(&answer, "blue"), Some(vec![server]));
        assert_eq!(found(&answer, "red"), None);
        let question = DiscoveryContent::Client { cluster: "blue".into() };
        let question = Message::new(MessageType::Discovery, "").saying(&question);
        assert_eq!(found(&question, "blue"), None, "another client's question is no answer");
    }
}
