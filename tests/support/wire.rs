//! A client that sends any bytes in either framing, and reads frames with a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use roundtable::domain::content::{
    ClientJoin, ErrorContent, JoinRoom, Joined, Position, ServerStatus, Status,
};
use roundtable::domain::{Message, MessageType};
use socket2::{Domain, Socket, Type};

use super::DEADLINE;

/// How messages are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Lines,
    Prefixed,
}

/// Why there is no next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server closed the connection.
    Closed,
    /// Nothing came in time.
    Silent,
}

/// One connection to a server.
pub(crate) struct RawClient {
    stream: TcpStream,
    framing: Framing,
    /// Read, and not taken apart yet.
    bytes: Vec<u8>,
    /// The user name, once it was said.
    pub(crate) name: String,
}

impl RawClient {
    /// Connects and says nothing.
    pub(crate) fn connect(address: SocketAddr, framing: Framing) -> Self {
        Self::try_connect(address, framing).unwrap_or_else(|e| panic!("connect to {address}: {e}"))
    }

    pub(crate) fn try_connect(address: SocketAddr, framing: Framing) -> io::Result<Self> {
        Ok(Self::over(TcpStream::connect_timeout(&address, DEADLINE)?, framing))
    }

    /// Connects with a receive buffer of a few KiB, so that a server soon notices that nobody reads.
    pub(crate) fn connect_narrow(address: SocketAddr, framing: Framing) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::over(socket.into(), framing)
    }

    fn over(stream: TcpStream, framing: Framing) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { stream, framing, bytes: Vec::new(), name: String::new() }
    }

    /// Connects as `name` in a session of the same name, in JSON lines.
    pub(crate) fn join(address: SocketAddr, name: &str) -> Self {
        Self::join_framed(address, name, Framing::Lines)
    }

    pub(crate) fn join_framed(address: SocketAddr, name: &str, framing: Framing) -> Self {
        let mut client = Self::connect(address, framing);
        let answer = client.say_join(name, name);
        assert_eq!(answer.message_type, MessageType::Ack, "{name}: {}", answer.serialize());
        client
    }

    /// Says CLIENT_JOIN and returns the answer.
    pub(crate) fn say_join(&mut self, name: &str, session: &str) -> Message {
        let join = ClientJoin { session: session.into(), ..ClientJoin::default() };
        self.send(&Message::new(MessageType::ClientJoin, name).with_id("hello").saying(&join));
        self.name = name.into();
        self.expect("an answer to CLIENT_JOIN")
    }

    /// Enters `room` with the last `history` messages.
    pub(crate) fn join_room(&mut self, room: &str, history: u32) -> Joined {
        self.say_join_room(room, &JoinRoom { history: Some(history), ..JoinRoom::default() })
    }

    /// Enters `room` where `position` left off.
    pub(crate) fn resume_room(&mut self, room: &str, position: Position) -> Joined {
        self.say_join_room(room, &JoinRoom { after: Some(position), ..JoinRoom::default() })
    }

    /// The same, `None` when the server does not have the room's past yet.
    pub(crate) fn try_join_room(&mut self, room: &str, history: u32) -> Option<Joined> {
        let join = JoinRoom { history: Some(history), ..JoinRoom::default() };
        let answer = self.ask_join_room(room, &join);
        if answer.message_type == MessageType::Error {
            let error: ErrorContent = answer.content.parse().unwrap();
            assert_eq!(error.code, "NOT_READY", "{}", error.reason);
            return None;
        }
        Some(answer.content.parse().unwrap())
    }

    fn say_join_room(&mut self, room: &str, join: &JoinRoom) -> Joined {
        let ack = self.ask_join_room(room, join);
        assert_eq!(ack.message_type, MessageType::Ack, "{}", ack.serialize());
        ack.content.parse().unwrap()
    }

    fn ask_join_room(&mut self, room: &str, join: &JoinRoom) -> Message {
        let id = format!("join {room}");
        self.send(&self.message(MessageType::JoinRoom, &id).in_room(room).saying(join));
        self.wait_for("the answer to JOIN_ROOM", |msg| msg.message_id == id)
    }

    /// Says `text`, and does not wait.
    pub(crate) fn chat(&mut self, room: &str, id: &str, text: &str) {
        self.send(&self.chat_message(room, id, text));
    }

    pub(crate) fn chat_message(&self, room: &str, id: &str, text: &str) -> Message {
        let mut chat = self.message(MessageType::Chat, id).in_room(room);
        chat.content = text.into();
        chat
    }

    /// Says `text`, and waits for the ACK; what comes before it is dropped.
    pub(crate) fn chat_acked(&mut self, room: &str, id: &str, text: &str) -> Message {
        self.chat(room, id, text);
        self.wait_ack(id)
    }

    pub(crate) fn wait_ack(&mut self, id: &str) -> Message {
        let is_answer = |msg: &Message| {
            msg.message_id == id
                && matches!(msg.message_type, MessageType::Ack | MessageType::Error)
        };
        let answer = self.wait_for(&format!("the ACK of {id}"), is_answer);
        assert_eq!(answer.message_type, MessageType::Ack, "{}", answer.serialize());
        answer
    }

    /// The next `count` CHATs, whatever comes between.
    pub(crate) fn chats(&mut self, count: usize) -> Vec<Message> {
        let is_chat = |msg: &Message| msg.message_type == MessageType::Chat;
        (0..count).map(|n| self.wait_for(&format!("CHAT {n} of {count}"), is_chat)).collect()
    }

    /// What the next `count` CHATs say.
    pub(crate) fn texts(&mut self, count: usize) -> Vec<String> {
        self.chats(count).iter().map(|chat| chat.content.text().to_string()).collect()
    }

    /// Panics when a CHAT comes before the server has answered a question that is asked now.
    pub(crate) fn expect_no_chat(&mut self) {
        self.send(&self.message(MessageType::Status, "anything else?"));
        loop {
            let msg = self.expect("the answer to STATUS");
            assert_ne!(msg.message_type, MessageType::Chat, "too many: {}", msg.serialize());
            if msg.message_id == "anything else?" {
                return;
            }
        }
    }

    /// The next message, which has to be an ERROR with `code`.
    pub(crate) fn expect_error(&mut self, code: &str) -> (String, ErrorContent) {
        let msg = self.expect(&format!("ERROR {code}"));
        assert_eq!(msg.message_type, MessageType::Error, "{code}: {}", msg.serialize());
        let error: ErrorContent = msg.content.parse().unwrap();
        assert_eq!(error.code, code, "{}", error.reason);
        (msg.message_id, error)
    }

    /// Panics when the server does not close the connection.
    pub(crate) fn expect_closed(&mut self) {
        match self.next(DEADLINE) {
            Err(End::Closed) => {}
            Err(End::Silent) => panic!("the connection is still open"),
            Ok(msg) => panic!("something came instead of the end: {}", msg.serialize()),
        }
    }

    /// The cluster as the server sees it.
    pub(crate) fn status(&mut self) -> Status {
        self.send(&self.message(MessageType::Status, "status"));
        let answer = self.wait_for("STATUS", |msg| msg.message_type == MessageType::Status);
        answer.content.parse().unwrap()
    }

    pub(crate) fn message(&self, message_type: MessageType, id: &str) -> Message {
        Message::new(message_type, self.name.as_str()).with_id(id)
    }

    pub(crate) fn send(&mut self, msg: &Message) {
        self.try_send(msg).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    pub(crate) fn try_send(&mut self, msg: &Message) -> io::Result<()> {
        let bytes = framed(self.framing, msg.serialize().as_bytes());
        self.stream.write_all(&bytes)
    }

    /// Sends `bytes` as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends `body` in a frame.
    pub(crate) fn send_frame(&mut self, body: &str) {
        let bytes = framed(self.framing, body.as_bytes());
        self.send_bytes(&bytes);
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The next message; panics with `what` was expected when there is none in time.
    pub(crate) fn expect(&mut self, what: &str) -> Message {
        self.next(DEADLINE).unwrap_or_else(|end| panic!("{}: {end:?} instead of {what}", self.name))
    }

    /// The next message that `wanted` wants; the others are dropped.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Message) -> bool) -> Message {
        let deadline = Instant::now() + DEADLINE;
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left) {
                Ok(msg) if wanted(&msg) => return msg,
                Ok(msg) => last = Some(msg.serialize()),
                Err(end) => panic!("{}: {end:?} instead of {what}; last: {last:?}", self.name),
            }
        }
    }

    /// The next message within `limit`. HEARTBEATs are answered, and are no messages.
    pub(crate) fn next(&mut self, limit: Duration) -> Result<Message, End> {
        let deadline = Instant::now() + limit;
        loop {
            while let Some(frame) = self.take_frame() {
                let msg = Message::decode(&frame)
                    .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&frame)));
                if msg.message_type != MessageType::Heartbeat {
                    return Ok(msg);
                }
                let _ = self.try_send(&self.message(MessageType::Heartbeat, ""));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // Zero would mean for ever.
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Err(End::Silent),
                    ErrorKind::Interrupted => {}
                    _ => return Err(End::Closed),
                },
            }
        }
    }

    /// Takes a whole frame out of what was read.
    fn take_frame(&mut self) -> Option<Vec<u8>> {
        // A server that knows no framing yet answers in lines, whatever was meant.
        let lines = self.framing == Framing::Lines || self.bytes.first() == Some(&b'{');
        let (start, end, next) = if lines {
            let end = self.bytes.iter().position(|byte| *byte == b'\n')?;
            (0, end, end + 1)
        } else {
            let prefix = self.bytes.first_chunk::<4>()?;
            let end = 4 + u32::from_be_bytes(*prefix) as usize;
            (4, end, end)
        };
        let frame = self.bytes.get(start..end)?.to_vec();
        self.bytes.drain(..next);
        Some(frame)
    }
}

/// The bytes that carry `body`.
pub(crate) fn framed(framing: Framing, body: &[u8]) -> Vec<u8> {
    match framing {
        Framing::Lines => [body, b"\n"].concat(),
        Framing::Prefixed => {
            let length = u32::try_from(body.len()).unwrap().to_be_bytes();
            [&length, body].concat()
        }
    }
}

/// Asks the server at `address` how the cluster is; `None` while it does not answer.
pub(crate) fn ask_status(address: SocketAddr) -> Option<Status> {
    let mut client = RawClient::try_connect(address, Framing::Lines).ok()?;
    client.try_send(&Message::new(MessageType::Status, "").with_id("status")).ok()?;
    client.next(Duration::from_secs(2)).ok()?.content.parse().ok()
}

/// What `status` says of the server `id`.
pub(crate) fn server_in<'a>(status: &'a Status, id: &str) -> Option<&'a ServerStatus> {
    status.servers.iter().find(|server| server.id.as_str() == id)
}
