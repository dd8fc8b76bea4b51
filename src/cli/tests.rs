use super::*;
use crate::config::Settings;
use clap::CommandFactory;

fn cli(words: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words.split_whitespace())
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_client_needs_a_name_and_has_defaults() {
    let Subcommand::Client(args) = cli("roundtable client --name alice").unwrap().command else {
        panic!("a client was asked for")
    };
    assert!(args.connect.addresses().unwrap().is_empty());
    let options = args.filter_options();
    assert_eq!((args.room.as_str(), options.history), ("lobby", None));
    assert_eq!(options.wait, Some(std::time::Duration::from_secs(30)));
    assert!(cli("roundtable client").is_err());
}

#[test]
fn bad_names_and_addresses_are_wrong_usage() {
    for (words, said) in [
        ("roundtable client --name x --room ", "is empty"),
        ("roundtable client --name x --connect localhost", "is not HOST:PORT"),
    ] {
        let mut parsed: Vec<&str> = words.split(' ').collect();
        parsed.retain(|word| !word.is_empty() || words.ends_with(' '));
        let Subcommand::Client(args) = Cli::try_parse_from(parsed).unwrap().command else {
            panic!("a client was asked for")
        };
        let refused = args.check().and_then(|()| args.connect.addresses().map(drop));
        let Err(StartError::Usage(text)) = refused else { panic!("{words}: {refused:?}") };
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn a_server_takes_its_settings_from_flags() {
    let words = "roundtable server --id n1 --peers a:1,b:2 --no-discovery --repair";
    let Subcommand::Server(settings) = cli(words).unwrap().command else {
        panic!("a server was asked for")
    };
    let Settings { id, peers, no_discovery, repair, .. } = *settings;
    assert_eq!((id.as_deref(), no_discovery, repair), (Some("n1"), true, true));
    assert_eq!(peers.unwrap(), ["a:1", "b:2"]);
}

#[test]
fn unknown_words_are_wrong_usage() {
    for words in [
        "roundtable",
        "roundtable sing",
        "roundtable client --nmae x",
        "roundtable server --discovery-port 7 --no-discovery",
        "roundtable status --check well",
        "roundtable status --check ready --format json",
    ] {
        let error = cli(words).unwrap_err();
        assert_eq!(explain_usage(&error), Outcome::WrongUsage, "{words}");
    }
    let help = cli("roundtable --help").unwrap_err();
    assert_eq!(explain_usage(&help), Outcome::Done);
}
