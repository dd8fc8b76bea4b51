//! Asking one server without joining it: how the cluster is, and who takes part.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::domain::content::{ErrorContent, MemberContent, MemberList, Status};
use crate::domain::{Message, MessageType};
use crate::network::tcp_connection::ReceiveError;
use crate::network::{ConnectionManager, ConnectionSettings};
use crate::threads::Threads;

/// How long a server may be silent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a question has no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody answers there, or nothing that can be understood.
    Io(io::Error),
    /// The server says no.
    Refused(ErrorContent),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(refusal) => write!(f, "{}", refusal.reason),
        }
    }
}

impl std::error::Error for AskError {}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Asks the server at `address` (`host:port`) how the cluster is. Blocks for a few seconds at most.
pub fn query_status(address: &str) -> Result<Status, AskError> {
    query_status_of_room(address, "")
}

/// The same about `room_id` alone: the answer is short however many rooms there are. Empty: about all.
pub fn query_status_of_room(address: &str, room_id: &str) -> Result<Status, AskError> {
    let question = Message::new(MessageType::Status, "").with_id("status").in_room(room_id);
    let answer = ask(address, &question)?;
    Ok(answer.content.parse().map_err(io::Error::other)?)
}

/// Asks the server at `address` for the members, or to let one in or out. It answers with the members as they are then. Blocks
/// for some seconds at most.
pub fn ask_members(address: &str, request: &MemberContent) -> Result<MemberList, AskError> {
    let question = Message::new(MessageType::Member, "").with_id("member").saying(request);
    match ask(address, &question)?.content.parse() {
        Ok(MemberContent::Listed(list)) => Ok(list),
        Ok(_) => Err(io::Error::other("it answered what was not asked").into()),
        Err(error) => Err(io::Error::other(error).into()),
    }
}

/// Sends `question` on a connection of its own, and waits for an answer of its type.
fn ask(address: &str, question: &Message) -> Result<Message, AskError> {
    let (host, port) = split_address(address)?;
    let threads = Threads::new("ask");
    let manager = ConnectionManager::new(ConnectionSettings::new("ask"), threads.clone());
    let conn = manager.connect_to(host, port)?;
    conn.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    conn.send(question);
    let answer = loop {
        match conn.receive() {
            Ok(Some(msg)) if msg.message_type == question.message_type => break Ok(msg),
            Ok(Some(msg)) if msg.message_type == MessageType::Error => {
                break Err(msg.content.parse().map_or_else(
                    |error| AskError::Io(io::Error::other(error)),
                    AskError::Refused,
                ));
            }
            // A server that waits for something says that it is there.
            Ok(Some(_)) => {}
            Ok(None) => {
                break Err(io::Error::other("it closed the connection without an answer").into());
            }
            Err(ReceiveError::Io(error)) => break Err(error.into()),
            Err(ReceiveError::Request(error)) => break Err(io::Error::other(error).into()),
        }
    };
    conn.close();
    manager.forget(conn.id());
    threads.stop();
    answer
}

/// Splits `host:port`; an IPv6 address stands in brackets.
pub(super) fn split_address(address: &str) -> io::Result<(&str, u16)> {
    let split = address.rsplit_once(':');
    let parts = split.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "not HOST:PORT, such as 127.0.0.1:7001")
    })?;
    Ok((host.trim_matches(['[', ']']), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_at_the_last_colon() {
        assert_eq!(split_address("h:1").unwrap(), ("h", 1));
        assert_eq!(split_address("[::1]:7001").unwrap(), ("::1", 7001));
        for bad in ["h", "h:", "h:x", "h:70000", ""] {
            assert!(split_address(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_status_comes_back_from_a_server_that_answers_in_any_framing() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let threads = Threads::new("fake");
        let serve = move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut prefix = [0; 4];
            socket.read_exact(&mut prefix).unwrap();
            let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
            socket.read_exact(&mut body).unwrap();
            let asked = Message::decode(&body).unwrap();
            assert_eq!(asked.message_type, MessageType::Status);
            let status = r#"{"message_id":"status","type":"STATUS","content":{"node":"n1",
                "state":"LEADER","leader":"n1","term":4,"design":"ring","cluster":"c",
                "servers":[],"ring":["n1"],"rooms":[]}}"#;
            socket.write_all(status.replace('\n', "").as_bytes()).unwrap();
            socket.write_all(b"\n").unwrap();
        };
        threads.spawn("server", serve).unwrap();
        let status = query_status(&address).unwrap();
        assert_eq!((status.node.as_str(), status.term), ("n1", 4));
        assert!(threads.join(Duration::from_secs(10)));
    }

    #[test]
    fn a_port_where_nobody_listens_is_an_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(query_status(&address).is_err());
    }
}
