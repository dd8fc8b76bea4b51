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
    /// `/history since TIME`
    Since(Since),
    /// `/delete [N or ID]`
    Delete(Target),
    /// `/stats`
    Stats,
    /// `/status`
    Status,
    /// `/why`
    Why,
    /// `/help`
    Help,
    /// `/quit`
    Quit,
    /// Not understood; what to say about it.
    Wrong(String),
}

/// Since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// `15m`: so long ago, in milliseconds.
    Ago(u64),
    /// `10:30`: the last time that it was so late (UTC), in milliseconds since midnight.
    Clock(u64),
}

impl Since {
    /// The time that is meant at `now_ms`, both in milliseconds since 1970.
    pub fn at(self, now_ms: u64) -> u64 {
        match self {
            Self::Ago(ms) => now_ms.saturating_sub(ms),
            Self::Clock(ms) => {
                let today = now_ms - now_ms % DAY_MS + ms;
                if today > now_ms { today.saturating_sub(DAY_MS) } else { today }
            }
        }
    }

    /// Reads `15m`, `90s`, `2h`, `1d` or `10:30`.
    fn parse(text: &str) -> Option<Self> {
        if let Some((hours, minutes)) = text.split_once(':') {
            let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
            let minute = hours * 60 + minutes;
            return (hours < 24 && minutes < 60).then_some(Self::Clock(minute * 60_000));
        }
        let unit = text.chars().last()?;
        let count: u64 = text[..text.len() - unit.len_utf8()].parse().ok()?;
        let unit_ms = match unit {
            's' => 1000,
            'm' => 60_000,
            'h' => 60 * 60_000,
            'd' => DAY_MS,
            _ => return None,
        };
        count.checked_mul(unit_ms).map(Self::Ago)
    }
}

const DAY_MS: u64 = 24 * 60 * 60_000;

/// Which of one's own messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The last one, the one before it, …: counted from 1.
    Last(usize),
    /// The one with this id.
    Id(String),
}

/// The text of `/help`.
pub const HELP: &str = "\
/rooms                 the rooms of the cluster
/join ROOM             enter a room, and talk there
/leave [ROOM]          leave a room, or this one
/who [ROOM]            who is in a room, or this one
/history [N]           the last N messages of this room (20)
/history since TIME    what was said here since 10:30 (UTC), or since 15m, 2h, 1d ago
/delete [N]            delete your last message here, or the Nth last, or that with an id
/stats                 what is kept
/status                how the cluster is
/why                   why you cannot write, or that you can, in sentences
/help                  this text
/quit                  leave; so do ctrl-c and ctrl-d
//TEXT                 say /TEXT";

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
        ("history", Some(text)) if text.split_whitespace().next() == Some("since") => {
            // All that follows, so that a word too many is no time either.
            let time = text["since".len()..].trim();
            let wrong = || {
                let what = if time.is_empty() {
                    "since when?".into()
                } else {
                    format!("{time:?} is no time;")
                };
                Command::Wrong(format!("{what} /history since 10:30, or since 15m"))
            };
            Since::parse(time).map_or_else(wrong, Command::Since)
        }
        ("delete", None) => Command::Delete(Target::Last(1)),
        ("delete", Some(which)) => Command::Delete(match which.parse() {
            Ok(0) => return Command::Wrong("your last message is 1".into()),
            Ok(count) => Target::Last(count),
            Err(_) => Target::Id(which),
        }),
        ("stats", None) => Command::Stats,
        ("history", Some(count)) => match count.parse() {
            Ok(count) => Command::History(count),
            Err(_) => Command::Wrong(format!("{count:?} is no number; /history 20")),
        },
        ("status", None) => Command::Status,
        ("why", None) => Command::Why,
        ("help" | "?", _) => Command::Help,
        ("quit" | "exit", None) => Command::Quit,
        ("rooms" | "status" | "why" | "stats" | "quit" | "exit", Some(_)) => {
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
            ("/history since 10:30", Command::Since(Since::Clock(630 * 60_000))),
            ("/history since 15m", Command::Since(Since::Ago(15 * 60_000))),
            ("/delete", Command::Delete(Target::Last(1))),
            ("/delete 3", Command::Delete(Target::Last(3))),
            ("/delete 5f1c-7", Command::Delete(Target::Id("5f1c-7".into()))),
            ("/stats", Command::Stats),
            ("/status", Command::Status),
            ("/why", Command::Why),
            ("/help", Command::Help),
            ("/quit", Command::Quit),
        ];
        for (line, command) in table {
            assert_eq!(parse(line), command, "{line:?}");
        }
    }

    #[test]
    fn a_time_is_the_last_one_that_fits() {
        let noon = 20_000 * DAY_MS + DAY_MS / 2;
        assert_eq!(Since::parse("10:30").unwrap().at(noon), noon - 90 * 60_000);
        assert_eq!(
            Since::parse("12:30").unwrap().at(noon),
            noon + 30 * 60_000 - DAY_MS,
            "yesterday"
        );
        assert_eq!(Since::parse("2h").unwrap().at(noon), noon - 2 * 60 * 60_000);
        assert_eq!(Since::parse("1d").unwrap().at(5), 0);
        for wrong in ["", "m", "24:00", "10:60", "10:30:1", "1w", "-1m", "99999999999999999d", "5é"]
        {
            assert_eq!(Since::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_command_gets_a_hint() {
        for line in [
            "/join",
            "/history many",
            "/history -1",
            "/history since",
            "/history since noon",
            "/history since 15m lobby",
            "/delete 0",
            "/stats x",
            "/shout",
            "/",
            "/quit now",
            "/rooms x",
        ] {
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
