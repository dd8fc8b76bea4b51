//! A server falls silent, stops or is lost: when the session moves, and what it tells.

use super::*;

/// Ticks every half second until something is sent or the connection is given up.
fn tick_until_news(play: &mut Play) -> Step {
    for _ in 0..100 {
        play.now += Duration::from_millis(500);
        let step = play.session.tick(play.now);
        if step != Step::default() {
            return step;
        }
    }
    panic!("no news");
}

#[test]
fn a_silent_server_is_asked_and_then_given_up() {
    let mut play = Play::in_lobby();
    play.say("are you there?");
    let probe = tick_until_news(&mut play).send.remove(0);
    assert_eq!(probe.message_type, MessageType::Heartbeat);
    assert_eq!(play.receive(&ack(&probe.message_id)), Step::default());
    assert_eq!(tick_until_news(&mut play).send.len(), 1, "it is there, and silent again");
    let lost = tick_until_news(&mut play);
    assert_eq!(fate(&lost), "move");
    assert_eq!(lost.events, []);
}

#[test]
fn a_server_that_does_not_welcome_us_is_given_up_without_a_question() {
    let mut play = Play::new();
    play.session.connected("a:1", play.now);
    let lost = tick_until_news(&mut play);
    assert_eq!((fate(&lost), lost.send), ("move", vec![]));
}

/// Online at `address` and in the lobby again; what the user is told about that.
fn back(play: &mut Play, address: &str) -> Vec<Event> {
    let step = play.online(address);
    play.ack_join(&step.send[0], 0).events
}

#[test]
fn a_quick_move_is_told_in_one_event() {
    let rooms = vec!["lobby".to_string()];
    let moved = |reason: &str| {
        let (reason, rooms) = (reason.into(), rooms.clone());
        [Event::Moved { server: "b:1".into(), reason, rooms, resent: 0 }]
    };
    let mut play = Play::in_lobby();
    play.lose();
    assert_eq!(back(&mut play, "b:1"), moved("lost a:1 (cable cut)"));
    let mut play = Play::in_lobby();
    assert_eq!(play.receive(&RequestError::ServerStopping.to_message("n1")).events, []);
    // Lost again before it is in its room again: still one story.
    play.online("b:1");
    play.lose();
    assert_eq!(back(&mut play, "b:1"), moved("a:1 is stopping"));
    assert_eq!(play.session.tick(play.now), Step::default());
}

#[test]
fn a_loss_that_lasts_is_told_once_and_so_is_its_end() {
    let mut play = Play::in_lobby();
    play.lose();
    let reason = "lost a:1 (cable cut)".into();
    assert_eq!(tick_until_news(&mut play).events, [Event::Disconnected { reason }]);
    play.online("b:1");
    play.lose();
    for _ in 0..10 {
        play.now += Duration::from_millis(500);
        assert_eq!(play.session.tick(play.now), Step::default());
    }
    assert!(matches!(back(&mut play, "b:1")[..], [Event::Reconnected { .. }]));
}
