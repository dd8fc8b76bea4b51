use super::*;
use crate::bench::speech::Heard;

fn plan(pace: Pace, finish: Finish) -> Plan {
    let lasts = Duration::from_secs(1);
    Plan {
        rooms: 2,
        groups: 2,
        members: 3,
        senders: 2,
        pace,
        finish,
        acknowledged: true,
        text_bytes: 20,
        lasts,
        messages_max: None,
    }
}

fn talk(finish: Finish) -> Talk {
    let rooms = ["a".to_string(), "b".to_string()];
    Talk::new(&rooms, plan(Pace::Window(4), finish), 0)
}

#[test]
fn a_message_is_finished_when_all_members_were_shown_it() {
    let mut talk = talk(Finish::Shown);
    let from = talk.book.from;
    talk.said[2] = 1;
    talk.book.note_said(2, 0, from - 1000);
    assert_eq!(talk.book.missing(&talk.said), (3, 1));
    // Sender 2 is the first one of the second room, whose members have the places 3 to 5.
    for (place, finished) in [(3, 0), (4, 0), (5, 1)] {
        talk.book.hear(place, from, Heard::Delivery { sender: 2, number: 0 });
        assert_eq!(talk.book.finished[2], finished);
    }
    talk.book.hear(3, from, Heard::Ack(0));
    assert_eq!((talk.book.missing(&talk.said), talk.book.count), ((0, 0), 3));
    assert_eq!(talk.book.times.max(), 1000);
    assert_eq!((talk.book.lost, talk.book.twice), (0, 0));
}

#[test]
fn what_is_skipped_is_lost_and_what_comes_again_comes_twice() {
    let mut talk = talk(Finish::Shown);
    talk.said[0] = 5;
    for number in [0, 3, 3, 1, 4] {
        talk.book.hear(1, 0, Heard::Delivery { sender: 0, number });
    }
    assert_eq!((talk.book.lost, talk.book.twice), (2, 2));
    // The two others of the room were shown nothing.
    assert_eq!(talk.book.missing(&talk.said).0, 10);
}

#[test]
fn acknowledgements_count_where_they_are_measured() {
    let mut talk = talk(Finish::Acknowledged);
    let (from, until) = (talk.book.from, talk.book.until);
    talk.said[1] = 3;
    for (now, number) in [(from - 1, 0), (from, 1), (until, 2), (until, 2)] {
        talk.book.hear(1, now, Heard::Ack(number));
    }
    assert_eq!((talk.book.count, talk.book.finished[1], talk.book.twice), (1, 3, 1));
}

#[test]
fn with_a_rate_what_was_due_in_the_time_counts_however_late_it_comes() {
    let rooms = ["a".to_string(), "b".to_string()];
    let mut talk = Talk::new(&rooms, plan(Pace::Rate(10), Finish::Shown), 0);
    let (from, until) = (talk.book.from, talk.book.until);
    for (number, said_at, shown_at) in
        [(0, from - 1, from), (1, from, from), (2, until - 1, until + 5000)]
    {
        talk.book.note_said(0, number, said_at);
        talk.book.hear(0, shown_at, Heard::Delivery { sender: 0, number });
    }
    assert_eq!(talk.book.count, 2);
    assert!((5001..5010).contains(&talk.book.times.max()), "exact to three digits");
    // Ten a second from 0 on: the last one is due right before the end.
    assert_eq!(talk.next_due(10), Some(0));
    talk.said_in_all = until / 100_000_000;
    assert_eq!(talk.next_due(10), None);
}

#[test]
fn what_a_server_shows_in_the_wrong_room_is_a_failure() {
    let mut talk = talk(Finish::Shown);
    talk.book.hear(0, 0, Heard::Delivery { sender: 2, number: 0 });
    assert!(talk.book.failure.is_some());
}

#[test]
fn a_group_with_several_rooms_talks_in_each_in_turn() {
    let rooms: Vec<String> = ["a", "b", "c", "d"].map(String::from).into();
    // Rooms 0 and 2 are those of group 0, rooms 1 and 3 those of group 1; the second talker of group 1 is number 3.
    let plan = Plan { rooms: 4, ..plan(Pace::Window(3), Finish::Shown) };
    let mut talk = Talk::new(&rooms, plan, 0);
    let voices: Vec<(usize, u32)> = (0..4).map(|id| talk.book.voice_of(3, id)).collect();
    assert_eq!(voices, [(3, 0), (7, 0), (3, 1), (7, 1)]);
    assert_eq!(talk.place(3), 4);
    talk.said[3] = 3;
    // Two messages in room 1, one in room 3, to three members each.
    assert_eq!(talk.book.missing(&talk.said), (9, 3));
    assert!(!talk.may_say(3, 3), "its window is full");
    for place in 3..6 {
        talk.book.hear(place, 0, Heard::Delivery { sender: 7, number: 0 });
    }
    assert_eq!((talk.book.finished[3], talk.book.missing(&talk.said)), (1, (6, 3)));
    assert!(talk.may_say(3, 3));
    // Each room has an order of its own.
    for id in [1, 0, 2] {
        talk.book.hear(4, 0, Heard::Ack(id));
    }
    assert_eq!((talk.book.missing(&talk.said), talk.book.twice), ((6, 0), 0));
    talk.book.hear(0, 0, Heard::Delivery { sender: 3, number: 0 });
    assert!(talk.book.failure.is_some(), "group 0 is not in room 1");
}

#[test]
fn a_room_that_is_behind_is_waited_for_in_its_turn() {
    let rooms: Vec<String> = ["a", "b", "c", "d"].map(String::from).into();
    let plan = Plan { rooms: 4, ..plan(Pace::Window(4), Finish::Shown) };
    let mut talk = Talk::new(&rooms, plan, 0);
    talk.said[0] = 4;
    // Both messages of room 2 are finished, none of room 0, whose turn it is.
    for number in 0..2 {
        for place in 0..3 {
            talk.book.hear(place, 0, Heard::Delivery { sender: 4, number });
        }
    }
    assert_eq!(talk.book.finished[0], 2);
    assert!(!talk.may_say(0, 4));
}

#[test]
fn nobody_says_more_than_is_to_be_said() {
    let rooms = ["a".to_string(), "b".to_string()];
    let plan = Plan { messages_max: Some(2), ..plan(Pace::Window(4), Finish::Shown) };
    let mut talk = Talk::new(&rooms, plan, 0);
    assert!(talk.may_say(0, 4));
    talk.said_in_all = 2;
    assert!(!talk.may_say(0, 4) && talk.is_over());
}
