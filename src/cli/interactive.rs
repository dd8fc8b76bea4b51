//! The client at a terminal: a line editor whose prompt survives what comes in.
//!
//! ```text
//!   this thread:     readline ──▶ command::parse ──▶ ChatClient
//!   printer thread:  events ──▶ render ──▶ ExternalPrinter, above the line that is being typed
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{never, select, tick};
use parking_lot::Mutex;
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};

use super::args::ClientArgs;
use super::command::{Command, HELP, Target, parse};
use super::explain::why;
use super::output::{say, show};
use super::render::{Style, counted, delivery_for_terminal, notice_for_terminal, visible};
use super::status::{rooms_table, statistics_table, table};
use super::{Outcome, complain};
use crate::client::{ChatClient, Event};
use crate::domain::ids::name_fault;
use crate::error::StartError;
use crate::threads::Threads;

/// After this time without an acknowledgement the user is told.
const SLOW: Duration = Duration::from_secs(2);
/// How long leaving waits for acknowledgements.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// How many of the user's messages can be named by their number.
const OWN_MAX: usize = 100;
/// Refusals of what was asked inside a room, which is still there.
const OF_QUESTIONS: [&str; 3] = ["UNSUPPORTED", "NOT_FOUND", "NOT_YOURS"];

/// Where lines for the user go.
type Screen = Box<dyn FnMut(String) + Send>;

/// What both threads need.
struct Desk {
    client: Arc<ChatClient>,
    style: Style,
    /// The rooms that the user is in; the last one is where it talks.
    rooms: Mutex<Vec<String>>,
    /// The user's last messages, oldest first: room and id.
    own: Mutex<VecDeque<(String, String)>>,
    over: AtomicBool,
}

/// Chats until the user leaves.
pub fn run(client: Arc<ChatClient>, args: &ClientArgs) -> Result<Outcome, StartError> {
    let broken = |error| StartError::Other(format!("cannot use the terminal: {error}"));
    let mut editor = DefaultEditor::new().map_err(broken)?;
    let style = Style::of_output();
    let (rooms, own) = (Mutex::default(), Mutex::default());
    let desk = Arc::new(Desk { client, style, rooms, own, over: AtomicBool::new(false) });
    let threads = Threads::new("cli");
    let (printing, screen, stop) = (Arc::clone(&desk), screen(&mut editor), threads.clone());
    let print = move || printing.print_events(screen, &stop);
    let failed = |error| StartError::Other(format!("cannot start a thread: {error}"));
    threads.spawn("printer", print).map_err(failed)?;
    say!("/help lists the commands; ctrl-d leaves.");
    desk.enter(&args.room, args.history);
    for room in desk.client.restored_rooms() {
        desk.enter(&room, Some(0));
        desk.enter(&args.room, None);
    }
    while !desk.over.load(Ordering::Relaxed) {
        match editor.readline(&desk.prompt()) {
            Ok(line) => {
                let _ = editor.add_history_entry(&line);
                if !desk.obey(&line) {
                    break;
                }
            }
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => break,
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(desk.leave(&threads))
}

/// Prints above the line that is being typed; plainly where the terminal cannot do that.
fn screen(editor: &mut DefaultEditor) -> Screen {
    match editor.create_external_printer() {
        Ok(mut printer) => Box::new(move |text| drop(printer.print(text))),
        Err(_) => Box::new(|text| show!("{text}")),
    }
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the user means a time of the clock")]
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Desk {
    fn prompt(&self) -> String {
        match self.room() {
            Some(room) => format!("[{}] {}> ", visible(&room), self.client.username()),
            None => format!("{}> ", self.client.username()),
        }
    }

    /// Where the user talks.
    fn room(&self) -> Option<String> {
        self.rooms.lock().last().cloned()
    }

    fn enter(&self, room: &str, history: Option<u32>) {
        let mut rooms = self.rooms.lock();
        let known = rooms.iter().any(|name| name == room);
        rooms.retain(|name| name != room);
        rooms.push(room.into());
        drop(rooms);
        if !known {
            self.client.join_room_with_history(room, history);
        }
    }

    fn forget(&self, room: &str) {
        self.rooms.lock().retain(|name| name != room);
    }

    /// Does what `line` says. False when it says to leave.
    fn obey(&self, line: &str) -> bool {
        let in_room = |room: Option<String>, act: &dyn Fn(&str)| match room.or_else(|| self.room())
        {
            Some(room) => act(&room),
            None => say!("* you are in no room; /join ROOM"),
        };
        match parse(line) {
            Command::Nothing => {}
            Command::Say(text) => in_room(None, &|room| self.say(&text, room)),
            Command::Rooms => self.client.ask_rooms(),
            Command::Join(room) => match name_fault(&room) {
                Some(fault) => say!("* the room name {fault}; choose another"),
                None => self.enter(&room, None),
            },
            Command::Leave(room) => in_room(room, &|room| {
                self.forget(room);
                self.client.leave_room(room);
            }),
            Command::Who(room) => in_room(room, &|room| self.client.ask_members(room)),
            Command::History(count) => in_room(None, &|room| {
                self.client.join_room_with_history(room, Some(count));
            }),
            Command::Since(since) => in_room(None, &|room| {
                self.client.ask_history(room, since.at(now_ms()));
            }),
            Command::Delete(target) => {
                in_room(None, &|room| self.delete(room, &target));
            }
            Command::Stats => self.client.ask_statistics(),
            Command::Status => self.client.ask_status(),
            // It asks servers one by one; what comes in meanwhile is printed by the other thread.
            Command::Why => show!("{}", why(&self.client, self.style)),
            Command::Help => say!("{HELP}"),
            Command::Quit => return false,
            Command::Wrong(hint) => say!("* {}", visible(&hint)),
        }
        true
    }

    fn delete(&self, room: &str, target: &Target) {
        match self.own_message(room, target) {
            Some(id) => self.client.delete_message(&id, room),
            None => say!("* you said nothing here that could be deleted"),
        }
    }

    /// The id of the user's message `target` in `room`.
    fn own_message(&self, room: &str, target: &Target) -> Option<String> {
        match target {
            Target::Id(id) => Some(id.clone()),
            Target::Last(count) => {
                let own = self.own.lock();
                let mut here = own.iter().rev().filter(|(of, _)| of == room);
                here.nth(count - 1).map(|(_, id)| id.clone())
            }
        }
    }

    fn note_own(&self, room: &str, message_id: &str) {
        let mut own = self.own.lock();
        if own.iter().all(|(_, id)| id != message_id) {
            own.push_back((room.into(), message_id.into()));
        }
        if own.len() > OWN_MAX {
            own.pop_front();
        }
    }

    fn say(&self, text: &str, room: &str) {
        if let Err(error) = self.client.send_message(text, room) {
            say!("* not sent: {error}");
        }
    }

    /// The printer thread.
    fn print_events(&self, mut screen: Screen, threads: &Threads) {
        let ticker = tick(Duration::from_millis(500));
        let mut panics = self.client.panics().clone();
        loop {
            select! {
                recv(self.client.events()) -> event => {
                    let Ok(event) = event else { return };
                    let mut text = self.lines_of(&event);
                    // One refresh of the prompt for all that wait.
                    while let Ok(event) = self.client.events().try_recv() {
                        text.push_str(&self.lines_of(&event));
                    }
                    if !text.is_empty() {
                        screen(text);
                    }
                }
                recv(ticker) -> _ => {
                    let slow = self.client.overdue(SLOW).len() as u64;
                    if slow > 0 {
                        let slow = counted(slow, "message");
                        let text = format!("* {slow} not acknowledged yet; still trying\n");
                        screen(text);
                    }
                }
                recv(panics) -> report => {
                    self.over.store(true, Ordering::Relaxed);
                    screen(format!("roundtable: {}; press enter\n", report.unwrap_or_default()));
                    panics = never();
                }
                recv(threads.stopped()) -> _ => return,
            }
        }
    }

    /// What to print about `event`, with line ends; empty for nothing.
    fn lines_of(&self, event: &Event) -> String {
        match event {
            Event::Delivered(delivery) if delivery.own => {
                self.note_own(&delivery.room, &delivery.message_id);
            }
            Event::Deleted { message_id, .. } => {
                self.own.lock().retain(|(_, id)| id != message_id);
            }
            _ => {}
        }
        match event {
            // What was typed here stands on the screen already.
            Event::Delivered(delivery) if delivery.own && !delivery.history => String::new(),
            Event::Delivered(delivery) => delivery_for_terminal(delivery, self.style) + "\n",
            Event::Status(status) => table(status),
            Event::Rooms(rooms) if !rooms.is_empty() => rooms_table(rooms),
            Event::Statistics(statistics) => statistics_table(statistics),
            Event::Refused { message_id, code, .. }
                if !self.client.is_message_id(message_id)
                    && !OF_QUESTIONS.contains(&code.as_str()) =>
            {
                // A room that cannot be joined is not where the user talks.
                if let Some(room) = self.room() {
                    self.forget(&room);
                }
                self.notice(event)
            }
            Event::Ended { .. } => {
                self.over.store(true, Ordering::Relaxed);
                self.notice(event) + "* press enter to leave\n"
            }
            _ => self.notice(event),
        }
    }

    fn notice(&self, event: &Event) -> String {
        notice_for_terminal(event, self.style).map(|text| text + "\n").unwrap_or_default()
    }

    /// Waits a little for acknowledgements, and says what is missing.
    fn leave(&self, threads: &Threads) -> Outcome {
        let complete = self.client.wait_acknowledged(Some(LEAVE_LIMIT));
        for chat in self.client.unacknowledged() {
            let text: String = chat.text.chars().take(60).collect();
            complain(&format!("not acknowledged: {text:?}"));
        }
        threads.stop();
        self.client.stop();
        let well = complete && !self.over.load(Ordering::Relaxed);
        if well { Outcome::Done } else { Outcome::Failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fake_server::{FakeCluster, FakeServer};
    use crate::client::{ClientSettings, Delivery};

    fn desk(server: &FakeServer) -> Desk {
        let client = ChatClient::new(ClientSettings::new("alice")).unwrap();
        client.start_any(std::slice::from_ref(&server.address)).unwrap();
        Desk {
            client: client.into(),
            style: Style::Plain,
            rooms: Mutex::default(),
            own: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// Prints what happens until `wanted` was printed.
    fn printed_until(desk: &Desk, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            let event = desk.client.events().recv_timeout(Duration::from_secs(20));
            text += &desk.lines_of(&event.unwrap_or_else(|_| panic!("only {text}")));
        }
        text
    }

    #[test]
    fn the_room_joined_last_is_where_the_user_talks() {
        let cluster = FakeCluster::new();
        let server = FakeServer::start(&cluster);
        let desk = desk(&server);
        assert_eq!(desk.prompt(), "alice> ");
        desk.enter("lobby", None);
        assert!(desk.obey("/join kitchen"));
        assert_eq!(desk.prompt(), "[kitchen] alice> ");
        desk.obey("tea?");
        assert!(desk.client.wait_acknowledged(Some(Duration::from_secs(20))));
        assert_eq!(cluster.texts("kitchen"), ["tea?"]);
        desk.obey("/leave");
        assert_eq!(desk.prompt(), "[lobby] alice> ");
        printed_until(&desk, "* you left kitchen");
        desk.obey("//quit");
        assert!(desk.client.wait_acknowledged(Some(Duration::from_secs(20))));
        assert_eq!(cluster.texts("lobby"), ["/quit"]);
        assert!(!desk.obey("/quit"));
    }

    #[test]
    fn questions_are_answered_in_tables_and_notices() {
        let cluster = FakeCluster::new();
        cluster.say("bob", "old news", "lobby");
        let server = FakeServer::start(&cluster);
        let desk = desk(&server);
        desk.enter("lobby", Some(0));
        printed_until(&desk, "* you joined lobby, 1 member");
        desk.obey("/who");
        printed_until(&desk, "* in lobby: alice");
        desk.obey("/rooms");
        let text = printed_until(&desk, "lobby");
        assert!(text.starts_with("ROOM "), "{text}");
        desk.obey("/status");
        printed_until(&desk, "design   ring");
        desk.obey("/history 5");
        let text = printed_until(&desk, "old news");
        assert!(text.contains("* the last 1 message of lobby:"), "{text}");
    }

    #[test]
    fn ones_own_messages_are_deleted_by_number_or_id_and_the_past_is_found_by_time() {
        let cluster = FakeCluster::new();
        let server = FakeServer::start(&cluster);
        let desk = desk(&server);
        desk.enter("lobby", None);
        assert!(desk.own_message("lobby", &Target::Last(1)).is_none());
        for text in ["one", "two", "three"] {
            desk.obey(text);
        }
        assert!(desk.client.wait_acknowledged(Some(Duration::from_secs(20))));
        while desk.own_message("lobby", &Target::Last(3)).is_none() {
            let event = desk.client.events().recv_timeout(Duration::from_secs(20)).unwrap();
            desk.lines_of(&event);
        }
        desk.obey("/delete 2");
        printed_until(&desk, "* alice deleted a message in lobby");
        assert_eq!(cluster.texts("lobby"), ["one", "three"]);
        desk.obey("/delete");
        printed_until(&desk, "* alice deleted a message in lobby");
        assert_eq!(cluster.texts("lobby"), ["one"]);
        desk.obey("/delete nothing");
        printed_until(&desk, "(NOT_FOUND)");
        assert_eq!(desk.room().as_deref(), Some("lobby"), "the user still talks there");
        desk.obey("/history since 99999d");
        let text = printed_until(&desk, "alice: one");
        assert!(text.contains("* 1 message of lobby since then:"), "{text}");
        desk.obey("/stats");
        printed_until(&desk, "1 message of 0 bytes");
    }

    #[test]
    fn what_was_typed_here_is_not_printed_a_second_time() {
        let server = FakeServer::start(&FakeCluster::new());
        let desk = desk(&server);
        let mut delivery = Delivery {
            message_id: "s-1".into(),
            room: "lobby".into(),
            sender: "alice".into(),
            text: "hi".into(),
            timestamp: None,
            position: None,
            history: false,
            own: true,
        };
        assert_eq!(desk.lines_of(&Event::Delivered(delivery.clone())), "");
        delivery.own = false;
        assert_eq!(desk.lines_of(&Event::Delivered(delivery)), "[lobby] alice: hi\n");
    }
}
