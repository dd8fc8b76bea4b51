//! `roundtable explain`, and `/why` in the client: asks all servers at once and says what their answers mean.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::Outcome;
use super::args::{ExplainArgs, Format};
use super::connect::servers;
use super::output::show;
use super::render::{Style, counted, visible};
use crate::client::{ChatClient, query_status};
use crate::error::StartError;
use crate::explain::{Answer, Finding, Weight, explain, not_asked};
use crate::threads::Threads;

/// How long the answers may take together; each server has less.
const ANSWERS_LIMIT: Duration = Duration::from_secs(10);

/// Asks and prints. Fails when no server answers.
pub fn run(args: &ExplainArgs) -> Result<Outcome, StartError> {
    let addresses = servers(&args.connect)?;
    let answers = ask_everyone(addresses);
    let findings = explain(&answers);
    let text = match args.format {
        Format::Text => text_of(&findings, Style::of_output()),
        // Serialising cannot fail: only string keys.
        Format::Json => serde_json::to_string(&findings).unwrap_or_default() + "\n",
    };
    show!("{text}");
    let answered = answers.iter().any(|answer| answer.status.is_ok());
    Ok(if answered { Outcome::Done } else { Outcome::Failed })
}

/// Asks the servers at `addresses`, and then those that they name.
fn ask_everyone(addresses: Vec<String>) -> Vec<Answer> {
    let mut answers = ask(addresses);
    let more = not_asked(&answers);
    answers.extend(ask(more));
    answers
}

/// Asks the servers at `addresses`, all at once.
fn ask(addresses: Vec<String>) -> Vec<Answer> {
    let threads = Threads::new("explain");
    let (tell, told) = unbounded();
    let mut answers = Vec::new();
    let mut open = Vec::new();
    for address in addresses {
        let (asked, tell) = (address.clone(), tell.clone());
        let body = move || {
            let status = query_status(&asked).map_err(|error| error.to_string());
            let _ = tell.send(Answer { address: asked, status });
        };
        match threads.spawn("asks", body) {
            Ok(()) => open.push(address),
            Err(error) => answers.push(Answer { address, status: Err(error.to_string()) }),
        }
    }
    drop(tell);
    while let Ok(answer) = told.recv_timeout(ANSWERS_LIMIT) {
        open.retain(|address| *address != answer.address);
        answers.push(answer);
    }
    let late = |address| Answer { address, status: Err("it does not answer in time".into()) };
    answers.extend(open.into_iter().map(late));
    // In the order of the addresses, whoever was first.
    answers.sort_by(|a, b| a.address.cmp(&b.address));
    answers
}

/// What `/why` prints: how the client is, then how the cluster is.
pub fn why(client: &ChatClient, style: Style) -> String {
    let waiting = client.unacknowledged().len() as u64;
    let waiting = match waiting {
        0 => "nothing waits for an acknowledgement".into(),
        _ => format!("{} not acknowledged yet", counted(waiting, "message")),
    };
    let connected = client.server_connection().map(|conn| conn.peer());
    let mut text = match connected {
        Some(server) => format!("You are connected to {server}, {waiting}.\n"),
        None => {
            format!("You are not connected, {waiting}. The client tries its servers in turn.\n")
        }
    };
    let findings = explain(&ask_everyone(client.known_servers()));
    text.push_str(&text_of(&findings, style));
    text
}

/// The findings for a person: each a line, its remedy under it.
pub fn text_of(findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for (place, finding) in findings.iter().enumerate() {
        let (mark, colour) = match finding.weight {
            Weight::Fine => ("✓", "32"),
            Weight::Note => ("·", "33"),
            Weight::Trouble => ("!", "31"),
        };
        if place == 1 {
            text.push('\n');
        }
        let what = visible(&finding.what);
        let what = if place == 0 { style.paint("1", &what) } else { what };
        let _ = writeln!(text, "{} {what}", style.paint(colour, mark));
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "  {}", style.paint("2", &format!("→ {}", visible(remedy))));
        }
    }
    text
}

impl Style {
    /// Colours at a terminal, unless `NO_COLOR` is set.
    pub fn of_output() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stdout().is_terminal() && !refused { Self::Coloured } else { Self::Plain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_stands_alone_and_remedies_under_what_they_mend() {
        let finding = |weight, what: &str, remedy: Option<&str>| Finding {
            weight,
            what: what.into(),
            remedy: remedy.map(Into::into),
        };
        let findings = [
            finding(Weight::Fine, "You can write.", None),
            finding(Weight::Trouble, "n2 is dead.", Some("Start n2.")),
            finding(Weight::Note, "n3 lags\u{7}.", Some("Wait.")),
        ];
        let expected =
            "✓ You can write.\n\n! n2 is dead.\n  → Start n2.\n· n3 lags\\u{7}.\n  → Wait.\n";
        assert_eq!(text_of(&findings, Style::Plain), expected);
        assert!(text_of(&findings, Style::Coloured).contains("\u{1b}[31m!"));
    }

    #[test]
    fn servers_that_the_first_one_names_are_asked_too() {
        use crate::client::fake_server::{FakeCluster, FakeServer};
        let server = FakeServer::start(&FakeCluster::new());
        let answers = ask_everyone(vec![server.address.clone(), "127.0.0.1:1".into()]);
        assert_eq!(answers.len(), 2);
        assert!(answers[0].status.is_err(), "nobody listens on port 1");
        assert!(answers[1].status.is_ok());
    }
}
