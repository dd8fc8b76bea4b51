//! Events as lines of text.

use crate::client::{Delivery, Event};

/// Whether text may hold colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Nothing but characters.
    Plain,
    /// A terminal without `NO_COLOR`.
    Coloured,
}

impl Style {
    /// `text` in the colour of the code `ansi`, such as `2` for dim.
    pub(crate) fn paint(self, ansi: &str, text: &str) -> String {
        match self {
            Self::Plain => text.into(),
            Self::Coloured => format!("\x1b[{ansi}m{text}\x1b[0m"),
        }
    }
}

/// `text` with everything escaped that could move the cursor, end the line or turn the direction of writing: what a
/// stranger sends must look like what it is.
///
/// ```
/// use roundtable::cli::render::visible;
/// assert_eq!(visible("caf\u{e9}\tok"), "caf\u{e9}\tok");
/// assert_eq!(visible("a\u{1b}[2Jb\nc"), r"a\u{1b}[2Jb\nc");
/// ```
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match c {
            '\t' => shown.push(c),
            _ if c.is_control() || turns => shown.extend(c.escape_default()),
            _ => shown.push(c),
        }
    }
    shown
}

/// `[room] name: text`.
pub fn delivery_line(delivery: &Delivery) -> String {
    let Delivery { room, sender, text, .. } = delivery;
    format!("[{}] {}: {}", visible(room), visible(sender), visible(text))
}

/// A delivery for a person: with its time (UTC), dim when it is history.
pub fn delivery_for_terminal(delivery: &Delivery, style: Style) -> String {
    let time = delivery.timestamp.map(|ms| format!("{} ", clock(ms))).unwrap_or_default();
    if delivery.history {
        return style.paint("2", &format!("{time}{}", delivery_line(delivery)));
    }
    let Delivery { room, sender, text, .. } = delivery;
    let head = style.paint("2", &format!("{time}[{}]", visible(room)));
    format!("{head} {}: {}", style.paint("1", &visible(sender)), visible(text))
}

/// `14:05Z`.
fn clock(timestamp_ms: u64) -> String {
    let minutes = timestamp_ms / 60_000;
    format!("{:02}:{:02}Z", minutes / 60 % 24, minutes % 60)
}

/// `2026-11-21 14:05Z`.
fn date(timestamp_ms: u64) -> String {
    // Years that begin in March: the day that leap years add is their last one.
    let days = timestamp_ms / 86_400_000 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {}", clock(timestamp_ms))
}

/// What happened, in a line for a person; `None` for what has no line of its own.
pub fn notice(event: &Event) -> Option<String> {
    let text = match event {
        Event::Connected { server } => format!("connected to {server}"),
        Event::Disconnected { reason } => format!("disconnected: {reason}; looking for a server"),
        Event::Moved { server, reason, .. } => format!("moved to {server}: {reason}"),
        Event::Reconnected { server, rooms, resent } => {
            let rooms = if rooms.is_empty() { "no room".into() } else { rooms.join(", ") };
            let resent = match resent {
                0 => String::new(),
                n => format!(", {} sent again", counted(*n as u64, "message")),
            };
            format!("reconnected to {server}, in {rooms}{resent}")
        }
        Event::Ended { reason } => format!("the session is over: {reason}"),
        Event::Joined { room, members, .. } => {
            format!("you joined {room}, {}", counted(u64::from(*members), "member"))
        }
        Event::Gap { room, missing } => format!(
            "{room}: no server that is up has all that you saw before ({missing}); it may come back with its server"
        ),
        Event::HistoryStarts { room, until, missed, .. } => {
            let missed = if *missed { "; you were away for some of it" } else { "" };
            let until = date(*until);
            format!("{room}: what was said up to {until} is not kept any more{missed}")
        }
        Event::History { room, count } => {
            format!("the last {} of {room}:", counted(u64::from(*count), "message"))
        }
        Event::Since { room, count: 0, .. } => format!("nothing was said in {room} since then"),
        Event::Since { room, count, more } => {
            let more = if *more { ", and more" } else { "" };
            format!("{} of {room} since then{more}:", counted(*count as u64, "message"))
        }
        Event::Deleted { room, name, .. } => format!("{name} deleted a message in {room}"),
        Event::Left { room } => format!("you left {room}"),
        Event::MemberJoined { room, name } => format!("{name} joined {room}"),
        Event::MemberLeft { room, name } => format!("{name} left {room}"),
        Event::Refused { code, reason, .. } => format!("refused: {reason} ({code})"),
        Event::Members { room, names } if names.is_empty() => format!("nobody is in {room}"),
        Event::Members { room, names } => format!("in {room}: {}", names.join(", ")),
        Event::Rooms(rooms) if rooms.is_empty() => "there is no room yet; /join one".into(),
        Event::Delivered(_)
        | Event::Acked { .. }
        | Event::Status(_)
        | Event::Statistics(_)
        | Event::Rooms(_) => {
            return None;
        }
    };
    Some(format!("* {}", visible(&text)))
}

/// `1 member`, `2 members`.
pub fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// [`notice`], dim on a terminal with colours.
pub fn notice_for_terminal(event: &Event, style: Style) -> Option<String> {
    notice(event).map(|text| style.paint("2", &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(text: &str, history: bool) -> Delivery {
        Delivery {
            message_id: "b-1".into(),
            room: "lobby".into(),
            sender: "bob".into(),
            text: text.into(),
            timestamp: Some(51_900_000),
            position: None,
            history,
            own: false,
        }
    }

    #[test]
    fn a_delivery_is_room_name_and_text() {
        assert_eq!(delivery_line(&delivery("hi: there", false)), "[lobby] bob: hi: there");
    }

    #[test]
    fn a_strangers_escape_codes_do_not_reach_the_terminal() {
        let mut evil = delivery("\x1b]0;owned\x07 \u{9b}31m \u{202e}gnp", false);
        evil.sender = "bob\r\x1b[2K* alice".into();
        for line in [delivery_line(&evil), delivery_for_terminal(&evil, Style::Plain)] {
            assert!(!line.contains(char::is_control), "{line:?}");
            assert!(!line.contains('\u{202e}'), "{line:?}");
        }
        let name = "x\x1b[31m".to_string();
        let joined = Event::MemberJoined { room: "lobby".into(), name };
        assert_eq!(notice(&joined).unwrap(), r"* x\u{1b}[31m joined lobby");
    }

    #[test]
    fn a_terminal_shows_the_time_and_dims_the_past() {
        let line = delivery_for_terminal(&delivery("hi", false), Style::Plain);
        assert_eq!(line, "14:25Z [lobby] bob: hi");
        let line = delivery_for_terminal(&delivery("hi", true), Style::Coloured);
        assert_eq!(line, "\x1b[2m14:25Z [lobby] bob: hi\x1b[0m");
    }

    #[test]
    fn notices_are_sentences() {
        let rooms = vec!["a".to_string(), "b".to_string()];
        let starts = |until: u64, missed: bool| {
            let room = "a".to_string();
            Event::HistoryStarts { room, after: 7, until, missed }
        };
        let table = [
            (
                starts(1_709_164_799_000, false),
                "* a: what was said up to 2024-02-28 23:59Z is not kept any more",
            ),
            (
                starts(1_709_251_199_000, true),
                "* a: what was said up to 2024-02-29 23:59Z is not kept any more; you were away for some of it",
            ),
            (
                starts(1_709_251_200_000, false),
                "* a: what was said up to 2024-03-01 00:00Z is not kept any more",
            ),
            (
                starts(4_102_444_799_000, false),
                "* a: what was said up to 2099-12-31 23:59Z is not kept any more",
            ),
            (
                Event::Reconnected { server: "h:1".into(), rooms, resent: 1 },
                "* reconnected to h:1, in a, b, 1 message sent again",
            ),
            (
                Event::Moved {
                    server: "h:2".into(),
                    reason: "h:1 is stopping".into(),
                    rooms: vec!["a".into()],
                    resent: 1,
                },
                "* moved to h:2: h:1 is stopping",
            ),
            (
                Event::Joined { room: "a".into(), members: 2, history: 0 },
                "* you joined a, 2 members",
            ),
            (Event::Members { room: "a".into(), names: vec![] }, "* nobody is in a"),
        ];
        for (event, text) in table {
            assert_eq!(notice(&event).as_deref(), Some(text));
        }
        assert_eq!(notice(&Event::Acked { message_id: "x".into() }), None);
    }
}
