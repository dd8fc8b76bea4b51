//! What an incoming message means to a [`Session`].

use std::time::Instant;

use super::room_view::Past;
use super::{Gone, Phase, Request, Resume, Session, Step};
use crate::client::event::Event;
use crate::domain::content::{ErrorContent, HistoryStart, Joined, Position, Status, Welcome};
use crate::domain::{Message, MessageType};

impl Session {
    /// Takes in one message of the server. What makes no sense is ignored: a server of a later version may
    /// say more than we know.
    pub fn receive(&mut self, msg: &Message, now: Instant) -> Step {
        if let Some(silence) = &mut self.silence {
            silence.heard(now);
        }
        match msg.message_type {
            MessageType::Ack => self.on_ack(msg),
            MessageType::Error => self.on_error(msg),
            MessageType::Chat => self.on_chat(msg),
            MessageType::Delete => self.on_deleted(msg),
            MessageType::History => self.on_history(msg),
            MessageType::Stats => self.on_statistics(msg),
            MessageType::Status => self.on_status(msg),
            MessageType::Heartbeat => {
                let beat = Message::new(MessageType::Heartbeat, &self.username);
                Step { send: vec![beat], ..Step::default() }
            }
            MessageType::JoinRoom => {
                self.on_notice(msg, |room, name| Event::MemberJoined { room, name })
            }
            MessageType::LeaveRoom => {
                self.on_notice(msg, |room, name| Event::MemberLeft { room, name })
            }
            _ => Step::default(),
        }
    }

    fn on_notice(&self, msg: &Message, event: fn(String, String) -> Event) -> Step {
        let mut step = Step::default();
        if self.rooms.contains_key(&msg.room_id) {
            step.events.push(event(msg.room_id.clone(), msg.sender_id.clone()));
        }
        step
    }

    fn on_chat(&mut self, msg: &Message) -> Step {
        let mut step = Step::default();
        // A message that crossed our LEAVE_ROOM is for nobody.
        let Some(view) = self.rooms.get_mut(&msg.room_id) else { return step };
        let shown = view.deliver(msg);
        self.merge_clock(msg.position.as_ref());
        if let Some(history) = shown {
            step.events.push(Event::Delivered(self.delivery(msg, history)));
        }
        step
    }

    fn merge_clock(&mut self, position: Option<&Position>) {
        if let Some(Position::Clock(clock)) = position {
            self.vector_clock.merge(clock);
        }
    }

    fn on_ack(&mut self, msg: &Message) -> Step {
        if let Some(chat) = self.outstanding.settle(&msg.message_id) {
            self.progressed = true;
            self.full.clear();
            if let Some(view) = self.rooms.get_mut(&chat.room) {
                view.moved_to(msg.position.as_ref());
            }
            self.merge_clock(msg.position.as_ref());
            let event = Event::Acked { message_id: chat.message_id };
            return Step { events: vec![event], ..Step::default() };
        }
        let mut step = Step::default();
        match self.requests.remove(&msg.message_id) {
            Some(Request::Hello) => return self.on_welcome(msg),
            Some(Request::Join(room, past)) => return self.on_joined(&room, past, msg),
            Some(Request::Leave(room)) => step.events.push(Event::Left { room }),
            _ => {}
        }
        step
    }

    /// The server takes us: asks for every room again, and repeats what was asked and not answered.
    fn on_welcome(&mut self, msg: &Message) -> Step {
        let Phase::Greeting(address) = self.phase.clone() else { return Step::default() };
        let welcome: Welcome = msg.content.parse().unwrap_or_default();
        if self.identity.is_unproved_by(&welcome) {
            let design = &welcome.design;
            // Else the user would believe the name to be safe.
            return self.end(format!(
                "the design {design} of this cluster has no passwords; connect without one"
            ));
        }
        self.identity.welcomed(&welcome);
        self.addresses.learn(welcome.servers.iter().map(|server| server.address.as_str()));
        self.phase = Phase::Online(address.clone());
        let mut step = Step::default();
        if std::mem::replace(&mut self.online_once, true) {
            let waiting = self.rooms.keys().cloned().collect();
            self.resume = Some(Resume { waiting, resent: 0 });
        } else {
            step.events.push(Event::Connected { server: address });
        }
        let gaps_accepted = self.nobody_can_help();
        for room in self.rooms.keys().cloned().collect::<Vec<_>>() {
            let accept_gap = gaps_accepted && self.behind.contains(&room);
            step.send.extend(self.rejoin(&room, accept_gap));
        }
        for query in self.requests.values().cloned().collect::<Vec<_>>() {
            let repeats = !matches!(
                query,
                Request::Hello
                    | Request::Join(..)
                    | Request::Leave(_)
                    | Request::Goodbye
                    | Request::Probe
            );
            if repeats {
                self.requests.retain(|_, request| *request != query);
                step.send.push(self.query(query));
            }
        }
        self.flush(&mut step);
        self.finish_resume(&mut step);
        step
    }

    fn rejoin(&mut self, room: &str, accept_gap: bool) -> Option<Message> {
        let view = self.rooms.get(room)?;
        let content = view.join_content(accept_gap);
        let past = if view.joined_once { Past::Missed } else { Past::First };
        let join = self.request(MessageType::JoinRoom, Request::Join(room.into(), past));
        Some(join.in_room(room).saying(&content))
    }

    fn on_joined(&mut self, room: &str, past: Past, msg: &Message) -> Step {
        let mut step = Step::default();
        // Left again meanwhile.
        let Some(view) = self.rooms.get_mut(room) else { return step };
        let joined: Joined = msg.content.parse().unwrap_or_default();
        view.joined(past, joined.history, msg.position.as_ref());
        let room = room.to_string();
        if let Some(HistoryStart { after, until }) = joined.starts {
            let (room, missed) = (room.clone(), past == Past::Missed);
            step.events.push(Event::HistoryStarts { room, after, until, missed });
        }
        match past {
            Past::First => {
                let Joined { members, history, .. } = joined;
                step.events.push(Event::Joined { room: room.clone(), members, history });
            }
            Past::Again => {
                step.events.push(Event::History { room: room.clone(), count: joined.history });
            }
            Past::Missed => {
                if let Some(gap) = joined.gap {
                    let missing = describe(&gap);
                    step.events.push(Event::Gap { room: room.clone(), missing });
                }
            }
        }
        self.behind.remove(&room);
        if self.behind.is_empty() {
            self.tried.clear();
        }
        self.flush(&mut step);
        if let Some(resume) = &mut self.resume {
            resume.waiting.remove(&room);
        }
        self.finish_resume(&mut step);
        step
    }

    /// Tells the user about the reconnect once its last room is back: all in one, if nothing was told of the loss.
    fn finish_resume(&mut self, step: &mut Step) {
        let Some(resume) = self.resume.take_if(|resume| resume.waiting.is_empty()) else { return };
        let gone = self.gone.take();
        let Phase::Online(server) = &self.phase else { return };
        let (server, resent) = (server.clone(), resume.resent);
        let rooms = self.rooms.keys().cloned().collect();
        step.events.push(match gone.filter(|gone| !gone.told) {
            Some(Gone { reason, .. }) => Event::Moved { server, reason, rooms, resent },
            None => Event::Reconnected { server, rooms, resent },
        });
    }

    fn on_status(&mut self, msg: &Message) -> Step {
        let mut step = Step::default();
        let Some(request) = self.requests.remove(&msg.message_id) else { return step };
        let Ok(status) = msg.content.parse::<Status>() else { return step };
        match request {
            Request::Status => step.events.push(Event::Status(Box::new(status))),
            Request::Rooms => step.events.push(Event::Rooms(status.rooms)),
            Request::Members(room) => {
                let found = status.rooms.into_iter().find(|entry| entry.room_id == room);
                let names = found.map(|entry| entry.members).unwrap_or_default();
                step.events.push(Event::Members { room, names });
            }
            _ => {}
        }
        step
    }

    fn on_error(&mut self, msg: &Message) -> Step {
        let error: ErrorContent = msg.content.parse().unwrap_or_else(|_| ErrorContent {
            code: "UNKNOWN".into(),
            reason: "the server refused without a reason".into(),
            retryable: false,
        });
        let request = self.requests.remove(&msg.message_id);
        match (error.code.as_str(), request) {
            ("BEHIND", Some(Request::Join(room, _))) => self.on_behind(&room, &error),
            ("STORAGE_FULL", request) => self.on_full(request, &msg.message_id, error),
            ("SERVER_STOPPING", _) => {
                self.move_because(&error.reason, |address| format!("{address} is stopping"))
            }
            ("SESSION_EXPIRED", _) => self.expired(&error),
            ("WRONG_TOKEN", Some(Request::Hello)) if self.identity.forget_token() => {
                self.move_on(&error.reason)
            }
            ("HELLO_TIMEOUT", _) => self.move_on(&error.reason),
            (_, Some(Request::Probe)) => Step::default(),
            _ if error.retryable => self.move_on(&error.reason),
            (code, Some(Request::Hello)) => {
                self.identity.password_wanted = code == "PASSWORD_NEEDED";
                self.end(error.reason)
            }
            (_, Some(request)) => self.on_request_refused(request, &msg.message_id, error),
            _ if self.outstanding.settle(&msg.message_id).is_some() => {
                Step { events: vec![refused(&msg.message_id, error)], ..Step::default() }
            }
            ("FRAME_TOO_LONG", None) => self.on_frame_too_long(error),
            // It answers something that we did not ask, or asked before a reconnect.
            (_, None) if !msg.message_id.is_empty() => Step::default(),
            _ => self.end(error.reason),
        }
    }

    /// This server lacks what we have seen: another may have it. When none does, goes on without.
    fn on_behind(&mut self, room: &str, error: &ErrorContent) -> Step {
        let Phase::Online(address) = self.phase.clone() else { return Step::default() };
        self.behind.insert(room.into());
        self.tried.insert(address);
        if !self.nobody_can_help() {
            return self.move_on(&error.reason);
        }
        Step { send: self.rejoin(room, true).into_iter().collect(), ..Step::default() }
    }

    /// Whether every server was asked, or is unreachable, since one was behind.
    fn nobody_can_help(&self) -> bool {
        !self.behind.is_empty() && self.addresses.iter().all(|address| self.tried.contains(address))
    }

    /// The server's disk is full: others may have room. When all are full, the request is refused.
    fn on_full(&mut self, request: Option<Request>, id: &str, error: ErrorContent) -> Step {
        if let Phase::Online(address) = &self.phase {
            self.full.insert(address.clone());
        }
        if self.addresses.iter().any(|address| !self.full.contains(address)) {
            return self.move_on(&error.reason);
        }
        if let Some(request) = request {
            return self.on_request_refused(request, id, error);
        }
        let _ = self.outstanding.settle(id);
        Step { events: vec![refused(id, error)], ..Step::default() }
    }

    fn on_request_refused(&mut self, request: Request, id: &str, error: ErrorContent) -> Step {
        let mut step = Step::default();
        match request {
            Request::Leave(room) => step.events.push(Event::Left { room }),
            Request::Join(room, past) if past != Past::Again => {
                self.rooms.remove(&room);
                step.events.push(refused(id, error.clone()));
                // They waited for the room, and would wait for ever.
                let waiting = self.outstanding.iter().filter(|chat| chat.room == room);
                for chat in waiting.cloned().collect::<Vec<_>>() {
                    let _ = self.outstanding.settle(&chat.message_id);
                    step.events.push(refused(&chat.message_id, error.clone()));
                }
                if let Some(resume) = &mut self.resume {
                    resume.waiting.remove(&room);
                }
                self.finish_resume(&mut step);
            }
            _ => step.events.push(refused(id, error)),
        }
        step
    }

    /// The server does not say which frame was too long and closes. Without the longest message the
    /// others can pass.
    fn on_frame_too_long(&mut self, error: ErrorContent) -> Step {
        let Some(id) = self.outstanding.longest_sent().map(|chat| chat.message_id.clone()) else {
            return self.end(error.reason);
        };
        let _ = self.outstanding.settle(&id);
        let mut step = self.move_on(&error.reason);
        step.events.insert(0, refused(&id, error));
        step
    }
}

fn refused(message_id: &str, error: ErrorContent) -> Event {
    let ErrorContent { code, reason, retryable } = error;
    Event::Refused { message_id: message_id.into(), code, reason, retryable }
}

fn describe(position: &Position) -> String {
    match position {
        Position::Clock(clock) => clock.to_string(),
        Position::Sequence(seq) => format!("up to {seq}"),
    }
}
