//! Passwords and tokens, sessions that nobody remembers, deletions.

use super::super::identity::Password;
use super::*;
use crate::domain::content::ClientJoin;

/// Connects to `address`; what CLIENT_JOIN said, and what the welcome led to.
fn greeted(play: &mut Play, address: &str, welcome: &Welcome) -> (ClientJoin, Step) {
    let hello = play.session.connected(address, play.now).send.remove(0);
    let join = hello.content.parse().unwrap();
    (join, play.receive(&ack(&hello.message_id).saying(welcome)))
}

#[test]
fn after_a_password_the_token_is_said_and_since_when_the_session_is() {
    let mut play = Play::new();
    play.session.set_password(Some(Password::new("sesame")));
    let token = |token: &str, at| Welcome {
        token: Some(token.into()),
        log_time: Some(at),
        ..Welcome::default()
    };
    let (first, _) = greeted(&mut play, "a:1", &token("t1", 70));
    assert_eq!((first.password.as_deref(), first.token, first.since), (Some("sesame"), None, None));
    play.session.lost("cut");
    let (second, _) = greeted(&mut play, "b:1", &token("t1", 90));
    assert_eq!(
        (second.password, second.token.as_deref(), second.since),
        (None, Some("t1"), Some(70))
    );
    play.session.lost("cut");
    // A server that does not know it: the password again.
    let hello = play.session.connected("a:1", play.now).send.remove(0);
    let step = play.refuse(&hello.message_id, "WRONG_TOKEN", false);
    assert!(matches!(step.next, Next::Move { .. }));
    let (third, _) = greeted(&mut play, "b:1", &token("t2", 95));
    assert_eq!(
        (third.password.as_deref(), third.token, third.since),
        (Some("sesame"), None, Some(70))
    );
    assert!(!format!("{:?}", play.session).contains("sesame"));
}

#[test]
fn a_password_that_is_wanted_or_wrong_ends_the_session() {
    let mut play = Play::new();
    let hello = play.session.connected("a:1", play.now).send.remove(0);
    let step = play.refuse(&hello.message_id, "PASSWORD_NEEDED", false);
    assert!(matches!(step.next, Next::End { .. }) && play.session.wants_password());
    let mut play = Play::new();
    let hello = play.session.connected("a:1", play.now).send.remove(0);
    let step = play.refuse(&hello.message_id, "WRONG_PASSWORD", false);
    assert!(matches!(step.next, Next::End { .. }) && !play.session.wants_password());
}

#[test]
fn when_nobody_remembers_the_session_what_may_have_been_said_is_given_up_and_the_rest_goes_out() {
    let mut play = Play::in_lobby();
    let (doubtful, _) = play.say("before");
    play.session.lost("cut");
    let (unsent, _) = play.say("while away");
    let join = play.online("b:1").send.remove(0);
    let sent = play.ack_join(&join, 0).send;
    assert_eq!(sent.len(), 2);
    let step = play.refuse(&doubtful, "SESSION_EXPIRED", false);
    assert!(matches!(step.next, Next::Move { .. }));
    let refused = |event: &Event| matches!(event, Event::Refused { message_id, .. } if *message_id == doubtful);
    assert!(step.events.iter().any(refused), "{:?}", step.events);
    let hello = play.session.connected("b:1", play.now).send.remove(0);
    let renewed: ClientJoin = hello.content.parse().unwrap();
    assert_eq!((renewed.session.as_str(), renewed.since), ("s.1", None));
    let join = play.receive(&ack(&hello.message_id).saying(&Welcome::default())).send.remove(0);
    let again: Vec<String> =
        play.ack_join(&join, 0).send.into_iter().map(|msg| msg.message_id).collect();
    assert_eq!(again, [unsent]);
}

#[test]
fn a_deletion_among_what_was_missed_is_told_and_counted() {
    let mut play = Play::in_lobby();
    play.session.lost("cut");
    let join = play.online("b:1").send.remove(0);
    play.ack_join(&join, 2);
    let mut gone = Message::new(MessageType::Delete, "bob").with_id("b-1").in_room("lobby");
    (gone.seq, gone.position) = (Some(5), Some(Position::Sequence(8)));
    let told = play.receive(&gone).events;
    let (room, message_id, name) = ("lobby".into(), "b-1".into(), "bob".into());
    assert_eq!(told, [Event::Deleted { room, message_id, name }]);
    play.receive(&chat("bob", "b-2", 9));
    play.session.lost("cut");
    let join = play.online("b:1").send.remove(0);
    let content: JoinRoom = join.content.parse().unwrap();
    assert_eq!(content.after, Some(Position::Sequence(9)));
}

#[test]
fn a_deletion_that_was_not_answered_is_asked_again_and_a_refusal_is_told() {
    let mut play = Play::in_lobby();
    let first = play.session.delete_message("lobby", "s-1").send.remove(0);
    assert_eq!(first.message_type, MessageType::Delete);
    play.session.lost("cut");
    let again = play.online("b:1").send.pop().unwrap();
    assert_eq!((again.message_type, &again.content), (MessageType::Delete, &first.content));
    let told = play.refuse(&again.message_id, "NOT_YOURS", false).events;
    assert!(matches!(&told[..], [Event::Refused { code, .. }] if code == "NOT_YOURS"));
}

#[test]
fn a_password_that_nobody_looked_at_ends_the_session() {
    let mut play = Play::new();
    play.session.set_password(Some(Password::new("sesame")));
    let welcome = Welcome { design: "ring".into(), ..Welcome::default() };
    let (_, step) = greeted(&mut play, "a:1", &welcome);
    let reason =
        "the design ring of this cluster has no passwords; connect without one".to_string();
    assert_eq!(step.events, [Event::Ended { reason }]);
}
