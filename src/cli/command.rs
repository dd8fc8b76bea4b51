//! What a line typed at the terminal means.

/// A line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// An empty line.
    Nothing,
    /// Text for the current room.
    Say(String),
    /// `/rooms`
    Rooms,
    /// `/join ROOM`
    Join(String),
    /// `/leave [ROOM]`
    Leave(Option<String>),
    /// `/who [ROOM]`
    Who(Option<String>),
    /// `/history [N]`
    History(u32),
    /// `/status`
    Status,
    /// `/help`
    Help,
    /// `/quit`
    Quit,
    /// Not understood; what to say about it.
    Wrong(String),
}

/// The text of `/help`.
pub const HELP: &str = "\
/rooms          the rooms of the cluster
/join ROOM      enter a room, and talk there
/leave [ROOM]   leave a room, or this one
/who [ROOM]     who is in a room, or this one
/history [N]    the last N messages of this room (20)
/status         how the cluster is
/help           this text
/quit           leave; so do ctrl-c and ctrl-d
//TEXT          say /TEXT";

/// How many messages `/history` shows when it is not told.
const HISTORY: u32 = 20;

/// Understands `line`.
pub fn parse(line: &str) -> Command {
    let Some(rest) = line.strip_prefix('/') else {
        return if line.trim().is_empty() { Command::Nothing } else { Command::Say(line.into()) };
    };
    if rest.starts_with('/') {
        return Command::Say(rest.into());
    }
    // A room's name may hold spaces: all that follows is the name.
    let (word, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let argument = argument.trim();
    let room = (!argument.is_empty()).then(|| argument.to_string());
    match (word, room) {
        ("rooms", None) => Command::Rooms,
        ("join", Some(room)) => Command::Join(room),
        ("join", None) => Command::Wrong("which room? /join ROOM".into()),
        ("leave", room) => Command::Leave(room),
        ("who", room) => Command::Who(room),
        ("history", None) => Command::History(HISTORY),
        ("history", Some(count)) => match count.parse() {
            Ok(count) => Command::History(count),
            Err(_) => Command::Wrong(format!("{count:?} is no number; /history 20")),
        },
        ("status", None) => Command::Status,
        ("help" | "?", _) => Command::Help,
        ("quit" | "exit", None) => Command::Quit,
        ("rooms" | "status" | "quit" | "exit", Some(_)) => {
            Command::Wrong(format!("/{word} takes nothing after it"))
        }
        _ => Command::Wrong(format!(
            "there is no /{word}; /help lists the commands, // says text that starts with /"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_what_the_help_says() {
        let table = [
            ("hello /quit", Command::Say("hello /quit".into())),
            ("  indented", Command::Say("  indented".into())),
            ("  ", Command::Nothing),
            ("//quit", Command::Say("/quit".into())),
            ("/rooms", Command::Rooms),
            ("/join my room ", Command::Join("my room".into())),
            ("/leave", Command::Leave(None)),
            ("/leave lobby", Command::Leave(Some("lobby".into()))),
            ("/who", Command::Who(None)),
            ("/who lobby", Command::Who(Some("lobby".into()))),
            ("/history", Command::History(20)),
            ("/history 3", Command::History(3)),
            ("/status", Command::Status),
            ("/help", Command::Help),
            ("/quit", Command::Quit),
        ];
        for (line, command) in table {
            assert_eq!(parse(line), command, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_command_gets_a_hint() {
        for line in
            ["/join", "/history many", "/history -1", "/shout", "/", "/quit now", "/rooms x"]
        {
            assert!(matches!(parse(line), Command::Wrong(_)), "{line:?}");
        }
    }

    #[test]
    fn the_help_names_every_command() {
        for line in HELP.lines().filter(|line| !line.starts_with("//")) {
            let word = line.split_whitespace().next().unwrap();
            let typed = if word == "/join" { "/join lobby" } else { word };
            assert!(!matches!(parse(typed), Command::Wrong(_)), "{word}");
        }
    }
}
