//! Servers for tests of clients: just enough of one to join, chat, fail over and misbehave on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::content::{
    ClientJoin, Deletion, ErrorContent, HistoryPage, HistoryRequest, JoinRoom, Joined, Position,
    RoomStatus, ServerAddress, Statistics, Status, Welcome,
};
use crate::domain::{Message, MessageType};
use crate::network::{ConnectionManager, ConnectionSettings, TCPConnection};
use crate::threads::Threads;

/// What all servers of a fake cluster share: every room's messages, as if replication took no time.
#[derive(Debug, Default)]
pub(crate) struct FakeCluster {
    rooms: Mutex<BTreeMap<String, Room>>,
    /// Addresses that a welcome names.
    pub(crate) addresses: Mutex<Vec<String>>,
    /// CHATs that are taken in before servers fall silent about them; `None`: all.
    pub(crate) chats_answered: Mutex<Option<usize>>,
    /// Answer this to what has the type, once for each entry.
    pub(crate) refusals: Mutex<Vec<(MessageType, ErrorContent)>>,
    /// Everything that clients sent, in order of arrival.
    pub(crate) heard: Mutex<Vec<Message>>,
}

#[derive(Debug, Default)]
struct Room {
    messages: Vec<Message>,
    seen: BTreeSet<(String, String)>,
    members: Vec<(String, Arc<TCPConnection>)>,
}

/// One server of a [`FakeCluster`].
#[derive(Debug)]
pub(crate) struct FakeServer {
    pub(crate) address: String,
    manager: Arc<ConnectionManager>,
    threads: Threads,
    local: SocketAddr,
}

impl FakeServer {
    pub(crate) fn start(cluster: &Arc<FakeCluster>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let threads = Threads::new("fake");
        let settings = ConnectionSettings::new("fake");
        let manager = Arc::new(ConnectionManager::new(settings, threads.clone()));
        let (cluster, accepting, spawner) =
            (Arc::clone(cluster), Arc::clone(&manager), threads.clone());
        cluster.addresses.lock().push(local.to_string());
        let accept = move || {
            while let Ok((socket, _)) = listener.accept() {
                if spawner.is_stopped() {
                    break;
                }
                let Ok(conn) = accepting.wrap_socket(socket) else { continue };
                let cluster = Arc::clone(&cluster);
                spawner.spawn("conn", move || serve(&cluster, &conn)).unwrap();
            }
        };
        threads.spawn("accept", accept).unwrap();
        Self { address: local.to_string(), manager, threads, local }
    }

    /// Breaks every connection and refuses new ones.
    pub(crate) fn kill(&self) {
        self.threads.stop();
        let _ = std::net::TcpStream::connect(self.local);
        self.manager.close_all();
        assert!(self.threads.join(Duration::from_secs(10)), "{:?}", self.threads.running());
    }

    /// Breaks every connection, and takes new ones.
    pub(crate) fn drop_connections(&self) {
        self.manager.close_all();
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl FakeCluster {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn refuse_once(&self, message_type: MessageType, code: &str, retryable: bool) {
        let reason = format!("{code} for a test");
        let error = ErrorContent { code: code.into(), reason, retryable };
        self.refusals.lock().push((message_type, error));
    }

    /// The texts in `room`, in order.
    pub(crate) fn texts(&self, room: &str) -> Vec<String> {
        let rooms = self.rooms.lock();
        let messages = rooms.get(room).map(|room| room.messages.as_slice()).unwrap_or_default();
        messages.iter().map(|msg| msg.content.text().to_string()).collect()
    }

    /// Says `text` as `sender`, as if through another server.
    pub(crate) fn say(&self, sender: &str, text: &str, room: &str) {
        let mut rooms = self.rooms.lock();
        let id = format!("{sender}-{}", rooms.entry(room.into()).or_default().messages.len());
        let mut chat = Message::new(MessageType::Chat, sender).with_id(id).in_room(room);
        chat.content = text.into();
        rooms.entry(room.into()).or_default().deliver(chat);
    }

    fn status(&self, node: &str) -> Status {
        let rooms = self.rooms.lock();
        let rooms = rooms.iter().map(|(name, room)| RoomStatus {
            room_id: name.clone(),
            host: Some("n1".into()),
            replicas: vec!["n1".into(), "n2".into()],
            members: room.members.iter().map(|(user, _)| user.clone()).collect(),
            messages: room.messages.len() as u64,
            ..RoomStatus::default()
        });
        Status {
            node: node.into(),
            state: "LEADER".into(),
            leader: Some("n1".into()),
            term: 3,
            design: "ring".into(),
            cluster: "roundtable".into(),
            servers: Vec::new(),
            ring: vec!["n1".into(), "n2".into()],
            rooms: rooms.collect(),
            storage: None,
            time: None,
            order: None,
            disk_fault: None,
            not_ready: None,
            syncs: 0,
            heartbeat_lateness: None,
            leader_changes: None,
        }
    }
}

impl Room {
    fn deliver(&mut self, mut chat: Message) -> Position {
        let position = Position::Sequence(self.messages.len() as u64 + 1);
        chat.timestamp = Some(1_700_000_000_000 + self.messages.len() as u64);
        chat.position = Some(position.clone());
        self.messages.push(chat.clone());
        for (_, conn) in &self.members {
            conn.send(&chat);
        }
        position
    }
}

/// Answers one connection until it ends.
fn serve(cluster: &FakeCluster, conn: &Arc<TCPConnection>) {
    let mut join = (String::new(), String::new());
    while let Ok(Some(msg)) = conn.receive() {
        cluster.heard.lock().push(msg.clone());
        let mut refusals = cluster.refusals.lock();
        let place = refusals.iter().position(|(kind, _)| *kind == msg.message_type);
        let refusal = place.map(|place| refusals.remove(place).1);
        drop(refusals);
        if msg.message_type == MessageType::ClientLeave {
            break;
        }
        if let Some(error) = refusal {
            // What is about the connection answers no message.
            let id = if error.code == "SESSION_MOVED" { "" } else { &msg.message_id };
            let closes = error.code == "SESSION_EXPIRED"
                || error.retryable && error.code != "BEHIND" && error.code != "STORAGE_FULL";
            conn.send(&Message::new(MessageType::Error, "n1").with_id(id).saying(&error));
            if closes {
                break;
            }
            continue;
        }
        answer(cluster, conn, &msg, &mut join);
    }
    for room in cluster.rooms.lock().values_mut() {
        room.members.retain(|(_, member)| member.id() != conn.id() || member.peer() != conn.peer());
    }
    conn.close_after_flush();
}

fn answer(
    cluster: &FakeCluster,
    conn: &Arc<TCPConnection>,
    msg: &Message,
    (user, session): &mut (String, String),
) {
    let ack = Message::new(MessageType::Ack, "n1").with_id(&msg.message_id).in_room(&msg.room_id);
    let mut rooms = cluster.rooms.lock();
    match msg.message_type {
        MessageType::ClientJoin => {
            user.clone_from(&msg.sender_id);
            *session = msg.content.parse::<ClientJoin>().unwrap().session;
            let addresses = cluster.addresses.lock().clone();
            let named = addresses
                .into_iter()
                .map(|address| ServerAddress { id: "n1".into(), address })
                .collect();
            let design = "ring".to_string();
            let cluster = "roundtable".into();
            let welcome = Welcome { cluster, design, servers: named, ..Welcome::default() };
            conn.send(&ack.saying(&welcome));
        }
        MessageType::JoinRoom => {
            let asked: JoinRoom = msg.content.parse().unwrap();
            let room = rooms.entry(msg.room_id.clone()).or_default();
            if !room.members.iter().any(|(_, member)| Arc::ptr_eq(member, conn)) {
                room.members.push((user.clone(), Arc::clone(conn)));
            }
            let start = match asked.after {
                Some(Position::Sequence(seq)) => seq as usize,
                _ => room.messages.len().saturating_sub(asked.history.unwrap_or(50) as usize),
            };
            let past = &room.messages[start..];
            let members = room.members.len() as u32;
            let gap = asked.accept_gap.then_some(Position::Sequence(99));
            conn.send(&ack.saying(&Joined {
                history: past.len() as u32,
                members,
                gap,
                starts: None,
            }));
            for chat in past {
                conn.send(chat);
            }
        }
        MessageType::LeaveRoom => {
            let room = rooms.entry(msg.room_id.clone()).or_default();
            room.members.retain(|(_, member)| !Arc::ptr_eq(member, conn));
            conn.send(&ack);
        }
        MessageType::Chat => {
            let mut left = cluster.chats_answered.lock();
            match &mut *left {
                Some(0) => return,
                Some(left) => *left -= 1,
                None => {}
            }
            drop(left);
            let room = rooms.entry(msg.room_id.clone()).or_default();
            let mut ack = ack;
            if room.seen.insert((session.clone(), msg.message_id.clone())) {
                ack.position = Some(room.deliver(msg.clone()));
            }
            conn.send(&ack);
        }
        MessageType::Status => {
            drop(rooms);
            let status = cluster.status("n1");
            conn.send(
                &Message::new(MessageType::Status, "n1").with_id(&msg.message_id).saying(&status),
            );
        }
        _ => answer_kept(&mut rooms, conn, msg, &ack),
    }
}

/// Deletion, history since a time, statistics.
fn answer_kept(
    rooms: &mut BTreeMap<String, Room>,
    conn: &Arc<TCPConnection>,
    msg: &Message,
    ack: &Message,
) {
    match msg.message_type {
        MessageType::Delete => {
            let target = msg.content.parse::<Deletion>().unwrap().target;
            let room = rooms.entry(msg.room_id.clone()).or_default();
            let place = room.messages.iter().position(|chat| chat.message_id == target);
            let Some(place) = place else {
                let code = "NOT_FOUND".to_string();
                let error = ErrorContent { reason: code.clone(), code, retryable: false };
                let refusal = Message::new(MessageType::Error, "n1").with_id(&msg.message_id);
                conn.send(&refusal.saying(&error));
                return;
            };
            let gone = room.messages.remove(place);
            let gone = Message::new(MessageType::Delete, &gone.sender_id)
                .with_id(&gone.message_id)
                .in_room(&gone.room_id);
            room.members.iter().for_each(|(_, member)| member.send(&gone));
            conn.send(ack);
        }
        MessageType::History => {
            let asked: HistoryRequest = msg.content.parse().unwrap();
            let room = rooms.entry(msg.room_id.clone()).or_default();
            let since = |chat: &&Message| chat.timestamp >= Some(asked.since);
            // Two at a time, by how many were told before.
            let (told, past) = (asked.after.unwrap_or(0), room.messages.iter().filter(since));
            let rest: Vec<Message> = past.skip(told as usize).cloned().collect();
            let next = (rest.len() > 2).then_some(told + 2);
            let page =
                HistoryPage { messages: rest.into_iter().take(2).collect(), next, starts: None };
            let answer = Message::new(MessageType::History, "n1").with_id(&msg.message_id);
            conn.send(&answer.in_room(&msg.room_id).saying(&page));
        }
        MessageType::Stats => {
            let messages = rooms.values().map(|room| room.messages.len() as u64).sum();
            let statistics = Statistics { messages, ..Statistics::default() };
            let answer = Message::new(MessageType::Stats, "n1").with_id(&msg.message_id);
            conn.send(&answer.saying(&statistics));
        }
        _ => {}
    }
}
