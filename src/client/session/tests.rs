//! Plays a server by hand: what goes in, what must come out.
#![expect(clippy::disallowed_methods, reason = "any moment does as a start")]

mod identity;
mod loss;

use super::*;
use crate::client::event::Delivery;
use crate::domain::content::{
    ErrorContent, JoinRoom, Joined, Position, RoomStatus, ServerAddress, Status, Welcome,
};
use crate::error::RequestError;

/// A session and the hand that feeds it.
struct Play {
    session: Session,
    now: Instant,
}

impl Play {
    /// Knows the servers `a:1` and `b:1`.
    fn new() -> Self {
        let mut session = Session::new("s", "alice");
        session.addresses().learn(["a:1", "b:1"]);
        Self { session, now: Instant::now() }
    }

    /// Connected to `a:1` and in `lobby`, where the message at position 5 was shown.
    fn in_lobby() -> Self {
        let mut play = Self::new();
        play.online("a:1");
        let join = play.session.join_room("lobby", Some(0)).send.remove(0);
        play.ack_join(&join, 0);
        play.receive(&chat("bob", "b-1", 5));
        play
    }

    fn receive(&mut self, msg: &Message) -> Step {
        self.session.receive(msg, self.now)
    }

    /// Connects to `address` and is welcomed.
    fn online(&mut self, address: &str) -> Step {
        let hello = self.session.connected(address, self.now).send.remove(0);
        assert_eq!(hello.message_type, MessageType::ClientJoin);
        let server = ServerAddress { id: "n3".into(), address: "c:1".into() };
        let welcome = Welcome { servers: vec![server], ..Welcome::default() };
        self.receive(&ack(&hello.message_id).saying(&welcome))
    }

    fn ack_join(&mut self, join: &Message, history: u32) -> Step {
        assert_eq!(join.message_type, MessageType::JoinRoom);
        let joined = Joined { history, members: 2, ..Joined::default() };
        self.receive(&ack(&join.message_id).in_room(&join.room_id).saying(&joined))
    }

    fn refuse(&mut self, id: &str, code: &str, retryable: bool) -> Step {
        self.receive(&error(id, code, retryable))
    }

    fn say(&mut self, text: &str) -> (String, Step) {
        self.session.send_message(text, "lobby", self.now)
    }

    fn lose(&mut self) {
        assert_eq!(self.session.lost("cable cut"), []);
    }
}

/// What becomes of the connection, in a word.
fn fate(step: &Step) -> &'static str {
    match step.next {
        Next::Stay => "stay",
        Next::Move { .. } => "move",
        Next::End { .. } => "end",
    }
}

fn ack(id: &str) -> Message {
    Message::new(MessageType::Ack, "n1").with_id(id)
}

fn error(id: &str, code: &str, retryable: bool) -> Message {
    let content = ErrorContent { code: code.into(), reason: format!("{code}!"), retryable };
    Message::new(MessageType::Error, "n1").with_id(id).saying(&content)
}

fn chat(sender: &str, id: &str, position: u64) -> Message {
    let mut chat = Message::new(MessageType::Chat, sender).with_id(id).in_room("lobby");
    chat.content = "hi".into();
    chat.timestamp = Some(position);
    chat.position = Some(Position::Sequence(position));
    chat
}

fn shown(step: &Step) -> Vec<&Delivery> {
    let deliveries = step.events.iter().filter_map(|event| match event {
        Event::Delivered(delivery) => Some(delivery),
        _ => None,
    });
    deliveries.collect()
}

fn ids(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.message_id.as_str()).collect()
}

fn content(join: &Message) -> JoinRoom {
    join.content.parse().unwrap()
}

#[test]
fn a_session_says_who_it_is_and_the_welcome_teaches_it_addresses() {
    let mut play = Play::new();
    let step = play.online("a:1");
    assert_eq!(step.events, [Event::Connected { server: "a:1".into() }]);
    assert!(play.session.is_online());
    assert_eq!(play.session.addresses().iter().collect::<Vec<_>>(), ["a:1", "b:1", "c:1"]);
}

#[test]
fn a_join_wished_for_while_offline_goes_out_with_the_connection() {
    let mut play = Play::new();
    assert_eq!(play.session.join_room("lobby", Some(3)), Step::default());
    let step = play.online("a:1");
    assert_eq!(content(&step.send[0]).history, Some(3));
    let step = play.ack_join(&step.send[0], 3);
    let joined = Event::Joined { room: "lobby".into(), members: 2, history: 3 };
    assert_eq!(step.events, [joined]);
}

#[test]
fn messages_wait_for_their_room_and_follow_in_order() {
    let mut play = Play::new();
    play.online("a:1");
    let join = play.session.join_room("lobby", None).send.remove(0);
    assert_eq!(play.say("1").1, Step::default());
    assert_eq!(play.say("2").1, Step::default());
    let step = play.ack_join(&join, 0);
    assert_eq!(ids(&step.send), ["s-1", "s-2"]);
    assert_eq!(ids(&play.say("3").1.send), ["s-3"]);
}

#[test]
fn an_acknowledged_message_is_told_once_and_moves_the_position() {
    let mut play = Play::in_lobby();
    let (id, _) = play.say("hello");
    let mut yes = ack(&id).in_room("lobby");
    yes.position = Some(Position::Sequence(6));
    assert_eq!(play.receive(&yes).events, [Event::Acked { message_id: id }]);
    assert_eq!(play.receive(&yes), Step::default(), "a second ACK says nothing new");
    assert_eq!(play.session.outstanding().len(), 0);
    play.lose();
    let step = play.online("b:1");
    assert_eq!(content(&step.send[0]).after, Some(Position::Sequence(6)));
}

#[test]
fn own_messages_are_marked_as_own() {
    let mut play = Play::in_lobby();
    for (sender, id, own) in
        [("alice", "s-1", true), ("bob", "s-2", false), ("alice", "sx-1", false)]
    {
        let step = play.receive(&chat(sender, id, 7));
        assert_eq!(shown(&step)[0].own, own, "{sender} {id}");
    }
}

#[test]
fn a_reconnect_resumes_rooms_first_and_then_repeats_what_was_not_acknowledged() {
    let mut play = Play::in_lobby();
    let (first, _) = play.say("one");
    play.say("two");
    play.receive(&ack(&first));
    play.lose();
    assert_eq!(play.say("three").1, Step::default(), "kept for later");
    let step = play.online("b:1");
    assert_eq!(step.events, []);
    assert_eq!(step.send.len(), 1, "messages wait for their room: {:?}", step.send);
    let join = content(&step.send[0]);
    assert_eq!((join.after, join.history), (Some(Position::Sequence(5)), None));
    let step = play.ack_join(&step.send[0], 1);
    assert_eq!(ids(&step.send), ["s-2", "s-3"]);
    let rooms = vec!["lobby".to_string()];
    assert_eq!(
        step.events,
        [Event::Moved {
            server: "b:1".into(),
            reason: "lost a:1 (cable cut)".into(),
            rooms,
            resent: 1
        }],
        "`three` was never sent before"
    );
}

#[test]
fn what_was_shown_before_a_reconnect_is_not_shown_again() {
    let mut play = Play::in_lobby();
    play.lose();
    let step = play.online("b:1");
    play.ack_join(&step.send[0], 2);
    assert!(shown(&play.receive(&chat("bob", "b-1", 5))).is_empty());
    let step = play.receive(&chat("bob", "b-2", 6));
    assert!(!shown(&step)[0].history, "what was missed is news");
}

#[test]
fn a_heartbeat_is_answered_by_one() {
    let mut play = Play::in_lobby();
    let step = play.receive(&Message::new(MessageType::Heartbeat, "n1"));
    assert_eq!(step.send, [Message::new(MessageType::Heartbeat, "alice")]);
}

#[test]
fn members_come_and_go() {
    let mut play = Play::in_lobby();
    let bob = |kind| Message::new(kind, "bob").in_room("lobby");
    let (room, name) = ("lobby".to_string(), "bob".to_string());
    let step = play.receive(&bob(MessageType::JoinRoom));
    assert_eq!(step.events, [Event::MemberJoined { room: room.clone(), name: name.clone() }]);
    let step = play.receive(&bob(MessageType::LeaveRoom));
    assert_eq!(step.events, [Event::MemberLeft { room, name }]);
    assert_eq!(play.receive(&bob(MessageType::JoinRoom).in_room("elsewhere")), Step::default());
}

#[test]
fn a_stopping_server_is_left_and_a_taken_name_ends_the_session() {
    for (refusal, next) in [
        (RequestError::ServerStopping, "move"),
        (RequestError::SlowConsumer { bytes_max: 1 }, "move"),
        (RequestError::HelloTimeout { seconds: 10, dialled: None }, "move"),
        (RequestError::SessionMoved { node: "n2".into() }, "end"),
        (RequestError::WrongCluster { reason: "other".into() }, "end"),
    ] {
        let mut play = Play::in_lobby();
        let step = play.receive(&refusal.to_message("n1"));
        assert_eq!(fate(&step), next, "{refusal}");
        let reason = refusal.to_string();
        let event = match next {
            "end" => Event::Ended { reason },
            // There is time to tell where the session went.
            _ => continue,
        };
        assert_eq!(step.events, [event]);
    }
}

#[test]
fn a_refused_greeting_ends_the_session_unless_it_can_be_tried_elsewhere() {
    for (code, retryable, next) in
        [("NAME_IN_USE", false, "end"), ("INVALID_NAME", false, "end"), ("NOT_READY", true, "move")]
    {
        let mut play = Play::new();
        let hello = play.session.connected("a:1", play.now).send.remove(0);
        let step = play.refuse(&hello.message_id, code, retryable);
        assert_eq!(fate(&step), next, "{code}");
        assert_eq!(play.session.is_ended(), next == "end");
    }
}

#[test]
fn a_message_refused_for_good_is_told_and_not_sent_again() {
    let mut play = Play::in_lobby();
    let (id, _) = play.say("hello");
    let step = play.refuse(&id, "NOT_A_MEMBER", false);
    let Event::Refused { message_id, code, retryable, .. } = &step.events[0] else {
        panic!("{step:?}")
    };
    assert_eq!((message_id, code.as_str(), *retryable), (&id, "NOT_A_MEMBER", false));
    assert_eq!(fate(&step), "stay");
    assert_eq!(play.session.outstanding().len(), 0);
}

#[test]
fn a_message_refused_for_now_is_taken_elsewhere() {
    let mut play = Play::in_lobby();
    let (id, _) = play.say("hello");
    assert_eq!(fate(&play.refuse(&id, "NOT_READY", true)), "move");
    let step = play.online("b:1");
    let step = play.ack_join(&step.send[0], 0);
    assert_eq!(ids(&step.send), [id.as_str()]);
}

#[test]
fn a_room_that_is_refused_takes_its_waiting_messages_with_it() {
    let mut play = Play::new();
    play.online("a:1");
    let join = play.session.join_room("lobby", None).send.remove(0);
    let (id, _) = play.say("hello");
    let step = play.refuse(&join.message_id, "INVALID_NAME", false);
    let refused: Vec<_> = step
        .events
        .iter()
        .map(|event| match event {
            Event::Refused { message_id, .. } => message_id.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(refused, [join.message_id.as_str(), id.as_str()]);
    assert_eq!(play.session.outstanding().len(), 0);
}

#[test]
fn a_server_that_is_behind_is_left_and_the_gap_accepted_when_nobody_has_more() {
    let mut play = Play::in_lobby();
    play.lose();
    let step = play.online("b:1");
    assert_eq!(fate(&play.refuse(&step.send[0].message_id, "BEHIND", true)), "move");
    play.session.unreachable("a:1");
    let step = play.online("c:1");
    assert!(!content(&step.send[0]).accept_gap, "the last one may have it");
    let step = play.refuse(&step.send[0].message_id, "BEHIND", true);
    assert_eq!(fate(&step), "stay");
    assert!(content(&step.send[0]).accept_gap, "nobody else is left to ask");
    let gap = Some(Position::Sequence(5));
    let joined = Joined { members: 1, gap, ..Joined::default() };
    let step = play.receive(&ack(&step.send[0].message_id).saying(&joined));
    assert_eq!(step.events[0], Event::Gap { room: "lobby".into(), missing: "up to 5".into() });
    assert!(matches!(step.events[1], Event::Moved { .. }));
    play.lose();
    assert!(!content(&play.online("a:1").send[0]).accept_gap, "the next time counts anew");
}

#[test]
fn when_all_others_went_away_the_one_that_is_behind_is_taken_with_the_gap() {
    let mut play = Play::in_lobby();
    play.lose();
    let step = play.online("b:1");
    play.refuse(&step.send[0].message_id, "BEHIND", true);
    for address in ["a:1", "c:1"] {
        play.session.unreachable(address);
    }
    assert!(content(&play.online("b:1").send[0]).accept_gap);
}

#[test]
fn a_full_disk_is_avoided_until_every_disk_is_full() {
    let mut play = Play::in_lobby();
    let (id, _) = play.say("hello");
    for address in ["b:1", "c:1"] {
        assert_eq!(fate(&play.refuse(&id, "STORAGE_FULL", true)), "move");
        let step = play.online(address);
        let step = play.ack_join(&step.send[0], 0);
        assert_eq!(ids(&step.send), [id.as_str()]);
    }
    let step = play.refuse(&id, "STORAGE_FULL", true);
    assert_eq!(fate(&step), "stay");
    assert!(matches!(&step.events[..], [Event::Refused { code, .. }] if code == "STORAGE_FULL"));
}

#[test]
fn the_longest_message_is_given_up_when_a_frame_was_too_long() {
    let mut play = Play::in_lobby();
    for text in ["a", "long one", "bb"] {
        play.say(text);
    }
    let step = play.refuse("", "FRAME_TOO_LONG", false);
    assert!(matches!(&step.events[0], Event::Refused { message_id, .. } if message_id == "s-2"));
    assert_eq!(fate(&step), "move");
    let step = play.online("a:1");
    let step = play.ack_join(&step.send[0], 0);
    assert_eq!(ids(&step.send), ["s-1", "s-3"]);
}

#[test]
fn questions_are_answered_and_survive_a_reconnect() {
    let mut play = Play::in_lobby();
    play.session.ask_members("lobby");
    play.lose();
    let step = play.online("b:1");
    let asked = step.send.iter().find(|msg| msg.message_type == MessageType::Status).unwrap();
    assert_eq!(asked.room_id, "lobby");
    let room = RoomStatus {
        room_id: "lobby".into(),
        host: None,
        replicas: Vec::new(),
        members: vec!["alice".into(), "bob".into()],
        messages: 1,
        ..RoomStatus::default()
    };
    let status = Status {
        node: "n1".into(),
        state: "LEADER".into(),
        leader: None,
        term: 1,
        design: "ring".into(),
        cluster: "roundtable".into(),
        servers: Vec::new(),
        ring: Vec::new(),
        rooms: vec![room],
        storage: None,
        time: None,
        order: None,
        disk_fault: None,
        not_ready: None,
        syncs: 0,
        heartbeat_lateness: None,
        leader_changes: None,
    };
    let answer = Message::new(MessageType::Status, "n1").with_id(&asked.message_id).saying(&status);
    let names = vec!["alice".to_string(), "bob".to_string()];
    let members = Event::Members { room: "lobby".into(), names };
    assert_eq!(play.receive(&answer).events, [members]);
    assert_eq!(play.receive(&answer), Step::default());
}

#[test]
fn leaving_is_told_whether_or_not_a_server_answers() {
    let mut play = Play::in_lobby();
    let leave = play.session.leave_room("lobby").send.remove(0);
    assert_eq!(leave.message_type, MessageType::LeaveRoom);
    let crossed = play.receive(&chat("bob", "b-9", 9));
    assert!(crossed.events.is_empty(), "a message that crossed the LEAVE_ROOM is for nobody");
    let left = Event::Left { room: "lobby".into() };
    assert_eq!(play.receive(&ack(&leave.message_id)).events, std::slice::from_ref(&left));

    let mut play = Play::in_lobby();
    play.session.leave_room("lobby");
    let events = play.session.lost("cable cut");
    assert!(events.contains(&left), "{events:?}");
    assert!(play.online("b:1").send.is_empty(), "and it is not joined again");
}

#[test]
fn a_session_that_leaves_says_so_once_and_is_over() {
    let mut play = Play::in_lobby();
    let step = play.session.leave();
    assert_eq!(step.send[0].message_type, MessageType::ClientLeave);
    assert!(play.session.is_ended());
    assert_eq!(play.session.leave(), Step::default());
}

#[test]
fn history_asked_for_again_is_shown_again() {
    let mut play = Play::in_lobby();
    let join = play.session.join_room("lobby", Some(1)).send.remove(0);
    assert_eq!(content(&join).history, Some(1));
    let step = play.ack_join(&join, 1);
    assert_eq!(step.events, [Event::History { room: "lobby".into(), count: 1 }]);
    assert!(shown(&play.receive(&chat("bob", "b-1", 5)))[0].history);
}

#[test]
fn a_clock_position_is_merged_for_display() {
    let mut play = Play::in_lobby();
    let mut clock = VectorClock::new();
    clock.raise(&"n1.1-0000".into(), 4);
    let mut msg = chat("bob", "b-2", 6);
    msg.position = Some(Position::Clock(clock.clone()));
    play.receive(&msg);
    assert_eq!(play.session.vector_clock(), &clock);
}

proptest::proptest! {
    /// Whatever a server answers, in whatever order: no panic, and what is not settled stays outstanding.
    #[test]
    fn no_answer_loses_a_message(inputs in proptest::collection::vec((0..9u8, 0..6u64), 0..60)) {
        let mut play = Play::new();
        let mut settled = 0;
        let mut said = 0;
        for (kind, n) in inputs {
            let id = format!("s-{n}");
            let step = match kind {
                0 => { said += 1; play.say("x").1 }
                1 => { play.session.lost("cut"); play.online("a:1") }
                2 => play.receive(&ack(&id)),
                3 => play.refuse(&id, "NOT_A_MEMBER", false),
                4 => play.refuse(&id, "NOT_READY", true),
                5 => play.receive(&chat("bob", &id, n)),
                6 => play.session.join_room("lobby", None),
                7 => play.receive(&ack(&format!("s-r{n}"))),
                _ => play.refuse(&format!("s-r{n}"), "BEHIND", true),
            };
            settled += step.events.iter().filter(|event| {
                matches!(event, Event::Acked { .. } | Event::Refused { .. })
            }).count();
        }
        // Refused joins count too; they are none of the messages.
        proptest::prop_assert!(play.session.outstanding().len() + settled >= said);
        proptest::prop_assert!(play.session.outstanding().len() <= said);
    }
}
