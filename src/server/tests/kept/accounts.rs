//! Passwords, tokens and names.

use super::*;
use crate::domain::content::ErrorContent;

fn with_password(session: &str, password: &str) -> ClientJoin {
    ClientJoin { password: Some(password.into()), ..joining(session) }
}

/// The token of the welcome that `client` got.
fn token(cluster: &mut TestCluster, client: &End) -> String {
    let told = cluster.take(client);
    assert_eq!(codes(&told), ["ACK"], "{told:?}");
    let welcome: Welcome = told[0].content.parse().unwrap();
    welcome.token.unwrap()
}

fn error(cluster: &mut TestCluster, client: &End) -> ErrorContent {
    let told = cluster.take(client);
    assert!(told.len() == 1 && cluster.is_closed(client), "{told:?}");
    told[0].content.parse().unwrap()
}

#[test]
fn the_first_password_registers_a_name_and_later_ones_must_match() {
    let (mut cluster, controls) = open();
    let alice = hello(&mut cluster, "alice", &with_password("s", "sesame"));
    assert!(token(&mut cluster, &alice).len() == 32);
    cluster.join(&alice, "lobby", JoinRoom::default());
    cluster.advance(100);
    cluster.chat(&alice, "lobby", "a");
    assert_eq!(got(&mut cluster, &alice), ["ACK", "CHAT a", "ACK a"]);
    cluster.hang_up(&alice);
    cluster.advance(5000);
    let eve = hello(&mut cluster, "alice", &with_password("t", "guess"));
    assert_eq!(error(&mut cluster, &eve).code, "WRONG_PASSWORD");
    let eve = hello(&mut cluster, "alice", &joining("t"));
    assert_eq!(error(&mut cluster, &eve).code, "PASSWORD_NEEDED");
    let alice = hello(&mut cluster, "alice", &with_password("u", "sesame"));
    token(&mut cluster, &alice);
    let entries = controls.lock().entries.iter().map(|entry| entry.serialize()).collect::<String>();
    assert!(entries.contains("$argon2id$") && !entries.contains("sesame"), "{entries}");
}

#[test]
fn a_password_may_wait_long_for_its_turn_and_then_for_the_others_anew() {
    let (mut cluster, _) = open();
    cluster.is_hashing_slow = true;
    let alice = hello(&mut cluster, "alice", &with_password("s", "sesame"));
    cluster.advance(20_000);
    assert!(codes(&cluster.take(&alice)).iter().all(|code| code == "HEARTBEAT"));
    cluster.is_hashing_slow = false;
    cluster.advance(100);
    token(&mut cluster, &alice);
    cluster.is_hashing_slow = true;
    let bob = hello(&mut cluster, "bob", &with_password("t", "sesame"));
    cluster.advance(31_000);
    let told = cluster.take(&bob);
    assert_eq!(codes(&told).last().unwrap(), "ERROR NOT_READY");
}

#[test]
fn a_password_that_waits_is_not_woken_by_what_others_say() {
    let (mut cluster, _) = open();
    cluster.is_hashing_slow = true;
    hello(&mut cluster, "alice", &with_password("s", "sesame"));
    let bob = hello(&mut cluster, "bob", &joining("t"));
    cluster.join(&bob, "lobby", JoinRoom::default());
    cluster.advance(100);
    let before = cluster.resumes;
    cluster.chat(&bob, "lobby", "a");
    assert_eq!(got(&mut cluster, &bob), ["ACK", "ACK", "CHAT a", "ACK a"]);
    assert_eq!(cluster.resumes, before);
}

#[test]
fn others_need_no_password_unless_the_server_wants_one() {
    let (mut cluster, _) = open();
    let bob = hello(&mut cluster, "bob", &joining("s"));
    assert_eq!(got(&mut cluster, &bob), ["ACK"]);
    let (mut cluster, _) = server(Admission { password_required: true, ..Admission::default() });
    let bob = hello(&mut cluster, "bob", &joining("s"));
    assert_eq!(error(&mut cluster, &bob).code, "PASSWORD_NEEDED");
    let bob = hello(&mut cluster, "bob", &with_password("s", "p"));
    token(&mut cluster, &bob);
}

#[test]
fn a_session_that_comes_back_shows_its_token() {
    let (mut cluster, controls) = open();
    let alice = hello(&mut cluster, "alice", &with_password("s", "sesame"));
    let given = token(&mut cluster, &alice);
    let placed = controls.lock().entries.len();
    cluster.hang_up(&alice);
    let back = ClientJoin { token: Some(given.clone()), ..joining("s") };
    let alice = hello(&mut cluster, "alice", &back);
    assert_eq!(token(&mut cluster, &alice), given);
    assert_eq!(controls.lock().entries.len(), placed, "nothing had to be placed for it");
    cluster.hang_up(&alice);
    for wrong in [
        ClientJoin { token: Some("guess".into()), ..joining("s") },
        // Another session cannot use it, even of the same user.
        ClientJoin { token: Some(given.clone()), ..joining("t") },
    ] {
        let eve = hello(&mut cluster, "alice", &wrong);
        cluster.advance(6000);
        let told = cluster.take(&eve);
        assert_eq!(codes(&told).last().unwrap(), "ERROR WRONG_TOKEN", "{told:?}");
    }
    let eve = hello(&mut cluster, "eve", &back);
    assert_eq!(error(&mut cluster, &eve).code, "WRONG_TOKEN", "of another name");
    let wrong = ClientJoin { token: Some("old".into()), ..with_password("s", "sesame") };
    let alice = hello(&mut cluster, "alice", &wrong);
    token(&mut cluster, &alice);
}

#[test]
fn closed_registration_answers_unknown_names_and_wrong_passwords_alike() {
    let (mut cluster, controls) = open();
    let alice = hello(&mut cluster, "alice", &with_password("s", "sesame"));
    token(&mut cluster, &alice);
    cluster.hang_up(&alice);
    cluster.step(&"n1".into(), |node, _| node.config.admission.registration_closed = true);
    let placed = controls.lock().entries.len();
    let wrong = hello(&mut cluster, "alice", &with_password("t", "guess"));
    let wrong = error(&mut cluster, &wrong);
    let unknown = hello(&mut cluster, "mallory", &with_password("t", "guess"));
    let unknown = error(&mut cluster, &unknown);
    assert_eq!(wrong, unknown);
    assert_eq!(wrong.reason, "the user name or the password is wrong");
    for name in ["alice", "mallory"] {
        let without = hello(&mut cluster, name, &joining("t"));
        assert_eq!(error(&mut cluster, &without).code, "PASSWORD_NEEDED", "{name}");
    }
    assert_eq!(controls.lock().entries.len(), placed, "nobody got an account");
    let alice = hello(&mut cluster, "alice", &with_password("u", "sesame"));
    token(&mut cluster, &alice);
}

#[test]
fn of_two_who_register_a_name_at_once_one_wins_and_the_other_is_checked_against_it() {
    let (mut cluster, controls) = open();
    controls.lock().commits = false;
    let first = hello(&mut cluster, "alice", &with_password("s", "one"));
    let second = hello(&mut cluster, "alice", &with_password("t", "two"));
    assert_eq!(got(&mut cluster, &first), [""; 0], "not before it is committed");
    controls.lock().commits = true;
    cluster.advance(200);
    token(&mut cluster, &first);
    let code = error(&mut cluster, &second).code;
    assert!(["WRONG_PASSWORD", "NAME_IN_USE"].contains(&code.as_str()), "{code}");
    let storage = &cluster.node("n1").ordered.as_ref().unwrap().storage;
    assert!(storage.session("t").is_none());
}

#[test]
fn a_session_from_before_the_account_speaks_no_more_under_the_name() {
    let (mut cluster, _) = open();
    let early = cluster.member("n1", "alice", "lobby");
    cluster.chat(&early, "lobby", "a");
    cluster.take(&early);
    // Registered where the name's holder is not known of, as on another server.
    cluster.step(&"n1".into(), |node, step| {
        let registration = crate::domain::content::Registration {
            since: 0,
            verifier: Some("v".into()),
            token_hash: Some("h".into()),
        };
        let mut msg = Message::new(MessageType::ClientJoin, "alice").saying(&registration);
        msg.session = Some("elsewhere".into());
        node.ordered.as_mut().unwrap().order.propose(msg, step);
    });
    cluster.chat(&early, "lobby", "b");
    assert_eq!(got(&mut cluster, &early), ["ERROR PASSWORD_NEEDED"]);
    assert!(cluster.is_closed(&early));
}

#[test]
fn a_client_that_leaves_while_its_password_is_checked_leaves_nothing_behind() {
    let (mut cluster, controls) = open();
    controls.lock().commits = false;
    let alice = hello(&mut cluster, "alice", &with_password("s", "sesame"));
    cluster.hang_up(&alice);
    controls.lock().next_term();
    cluster.advance(100);
    assert_eq!(controls.lock().tell(0), [""; 0], "not passed on to the next leader");
}
