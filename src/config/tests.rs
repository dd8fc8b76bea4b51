//! Settings from flags and the file: which wins, and what is refused.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    settings: Settings,
}

/// The settings that `words` say on a command line, without the environment.
fn said(words: &str) -> Settings {
    Line::try_parse_from(std::iter::once("x").chain(words.split_whitespace())).unwrap().settings
}

fn refusal(words: &str) -> String {
    match said(words).resolve() {
        Err(StartError::Usage(text)) => text,
        other => panic!("{words}: {other:?}"),
    }
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.json");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

#[test]
fn an_id_is_enough() {
    let config = said("--id n1").resolve().unwrap();
    assert_eq!(config.id, NodeId::from("n1"));
    assert_eq!(config.advertised(config.listen.port()), "127.0.0.1:7001");
    assert_eq!(config.data, Path::new("data").join("n1"));
    assert_eq!((config.cluster.as_str(), config.design), ("roundtable", Design::Ring));
    assert_eq!(config.election, ElectionKind::HirschbergSinclair);
    assert_eq!((config.discovery_port, config.bootstrap_expect), (Some(5007), 1));
    assert!(config.peers.is_empty() && config.rooms.is_empty() && config.log.is_none());
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let (_dir, path) = file(
        r#"{"id": "n2", "listen": "127.0.0.1:9002", "peers": ["a:1", "b:2"], "no_discovery": true,
            "frame_bytes_max": 65536, "log": "debug", "election": "bully"}"#,
    );
    let config = said(&format!("--listen 127.0.0.1:9009 --config {}", path.display())).resolve();
    let config = config.unwrap();
    assert_eq!(config.id, NodeId::from("n2"));
    assert_eq!((config.listen.port(), config.election), (9009, ElectionKind::Bully));
    assert_eq!(config.peers, ["a:1", "b:2"]);
    assert_eq!((config.discovery_port, config.bootstrap_expect), (None, 3));
    assert_eq!((config.frame_bytes_max, config.log), (65536, Some(LevelFilter::Debug)));
    assert_eq!((config.segment_bytes, config.compact_after), (64 * 1024 * 1024, 20_000));
}

#[test]
fn what_is_retained_is_everything_a_size_or_an_age() {
    let retain = |words: &str| said(words).resolve().unwrap().retain;
    assert_eq!(retain("--id n1"), Retain::Everything);
    assert_eq!(retain("--id n1 --design sequencer --retain 1GiB"), Retain::Bytes(1 << 30));
    assert_eq!(
        retain("--id n1 --design sequencer --retain 8KiB --segment-bytes 4096"),
        Retain::Bytes(8192)
    );
    for design in ["ring", "sequencer", "raft"] {
        let words = format!("--id n1 --design {design} --retain everything");
        assert_eq!(retain(&words), Retain::Everything);
    }
    let (_dir, path) = file(r#"{"design": "sequencer", "retain": "2d", "segment_bytes": 8192}"#);
    let config = said(&format!("--id n1 --config {}", path.display())).resolve().unwrap();
    let two_days = std::time::Duration::from_secs(2 * 86_400);
    assert_eq!((config.retain, config.segment_bytes), (Retain::Age(two_days), 8192));
}

#[test]
fn a_port_said_by_a_flag_outweighs_no_discovery_in_the_file() {
    let (_dir, path) = file(r#"{"no_discovery": true}"#);
    let config = said(&format!("--id n1 --discovery-port 6000 --config {}", path.display()));
    assert_eq!(config.resolve().unwrap().discovery_port, Some(6000));
}

#[test]
fn a_name_that_is_no_setting_is_refused_with_the_file_and_the_name() {
    for (text, named) in [
        (r#"{"lissten": "127.0.0.1:1"}"#, "`lissten`"),
        (r#"{"repair": true}"#, "`repair`"),
        (r#"{"peers": 7}"#, "sequence"),
        ("{", "EOF"),
    ] {
        let (_dir, path) = file(text);
        let refusal = refusal(&format!("--id n1 --config {}", path.display()));
        assert!(refusal.contains(named) && refusal.contains("settings.json"), "{refusal}");
    }
    assert!(refusal("--id n1 --config /nowhere/x.json").contains("/nowhere/x.json"));
}

#[test]
fn what_cannot_be_is_refused_with_the_flag_and_a_remedy() {
    for (words, said) in [
        ("", "give --id"),
        ("--id a/b", "such as n1"),
        ("--id ..", "such as n1"),
        ("--id n1 --listen nonsense", "such as 127.0.0.1:7001"),
        ("--id n1 --listen 127.0.0.1:70000", "such as 127.0.0.1:7001"),
        ("--id n1 --peers 127.0.0.1", "--peers \"127.0.0.1\" is not HOST:PORT"),
        ("--id n1 --peers a:0", "port 0"),
        ("--id n1 --advertise 0.0.0.0:7001", "that others can connect to"),
        ("--id n1 --advertise [::]:7001", "that others can connect to"),
        ("--id n1 --election dice", "\"dice\" does not exist; this version has: hs, bully"),
        ("--id n1 --design raft --election bully", "leave --election out"),
        ("--id n1 --design star", "\"star\" does not exist; this version has: ring"),
        ("--id n1 --heartbeat-interval-ms 1000 --server-timeout-ms 2000", "less than 3000"),
        ("--id n1 --frame-bytes-max 10", "less than 4096"),
        ("--id n1 --client-queue-bytes 5000", "--frame-bytes-max"),
        ("--id n1 --segment-bytes 100", "--segment-bytes 100 is less than 4096"),
        ("--id n1 --retain much", "--retain \"much\" is neither a size such as 1GiB"),
        ("--id n1 --retain 0d", "--retain \"0d\" keeps nothing"),
        ("--id n1 --retain 1d", "--retain 1d is for the design sequencer: ring keeps all messages"),
        ("--id n1 --design raft --retain 1GiB", "raft bounds its log by snapshots"),
        (
            "--id n1 --design sequencer --retain 1MiB",
            "--retain 1MiB is less than --segment-bytes 67108864",
        ),
        ("--id n1 --bootstrap-expect 0", "less than 1"),
        ("--id n1 --log loud", "none of error, warn"),
        ("--id n1 --ntp time.example", "--ntp \"time.example\" is not HOST:PORT"),
        ("--id n1 --ntp t:123,u:0", "--ntp u:0: port 0"),
        ("--id n1 --profile slow", "choose fast or document"),
        ("--id n1 --health-check-timeout-ms 2000", "less than --health-check-timeout-ms 2000"),
        ("--id n1 --health-check-timeout-ms 0", "less than 10"),
    ] {
        let refusal = refusal(words);
        assert!(refusal.contains(said), "{words}: {refusal}");
    }
    let mut settings = Settings { id: Some("n1".into()), ..Settings::default() };
    settings.rooms = Some(vec!["x".repeat(65)]);
    let refusal = settings.resolve().unwrap_err().to_string();
    assert!(refusal.contains("65 characters long, the limit is 64"), "{refusal}");
}

#[test]
fn the_own_address_and_empty_items_among_the_peers_are_ignored() {
    let words =
        "--id n1 --listen 127.0.0.1:9001 --advertise h1:1 --peers 127.0.0.1:9001,h1:1,,h2:2";
    let config = said(words).resolve().unwrap();
    assert_eq!((config.peers, config.bootstrap_expect), (vec!["h2:2".to_string()], 2));
}

#[test]
fn a_given_advertise_is_told_as_it_is_and_a_wildcard_never() {
    let config = said("--id n1 --listen 0.0.0.0:9001 --advertise chat.example:80").resolve();
    assert_eq!(config.unwrap().advertised(9001), "chat.example:80");
    // Without a route outward the refusal names the remedy; with one its address is told.
    match said("--id n1 --listen 0.0.0.0:9001").resolve() {
        Ok(config) => assert!(!config.advertise_ip.is_unspecified()),
        Err(refusal) => assert!(refusal.to_string().contains("--advertise"), "{refusal}"),
    }
}

#[test]
fn time_servers_come_from_repeated_flags_lists_and_the_file() {
    let config = said("--id n1 --ntp a:123 --ntp b:123,,c:124").resolve().unwrap();
    assert_eq!(config.ntp, ["a:123", "b:123", "c:124"]);
    let (_dir, path) = file(r#"{"ntp": ["a:1", "b:2"]}"#);
    let config = said(&format!("--id n1 --config {}", path.display())).resolve().unwrap();
    assert_eq!(config.ntp, ["a:1", "b:2"]);
    assert!(said("--id n1").resolve().unwrap().ntp.is_empty());
}

#[test]
fn a_profile_says_what_is_not_said_otherwise() {
    for (words, heartbeat, timeout, check_interval, check_timeout) in [
        ("", 100, 800, 1000, 500),
        ("--profile fast", 100, 800, 1000, 500),
        ("--profile document", 800, 2500, 3000, 2000),
        ("--profile document --heartbeat-interval-ms 50", 50, 2500, 3000, 2000),
        ("--profile document --health-check-timeout-ms 70", 800, 2500, 3000, 70),
        ("--health-check-interval-ms 700 --server-timeout-ms 900", 100, 900, 700, 500),
    ] {
        let config = said(&format!("--id n1 {words}")).resolve().unwrap();
        assert_eq!((config.heartbeat_interval_ms, config.server_timeout_ms), (heartbeat, timeout));
        let health = HealthTiming {
            health_check_interval: std::time::Duration::from_millis(check_interval),
            health_check_timeout: std::time::Duration::from_millis(check_timeout),
        };
        assert_eq!(config.health, health, "{words}");
    }
}
