use super::*;

fn plan(pace: Pace, finish: Finish) -> Plan {
    let lasts = Duration::from_secs(1);
    Plan {
        rooms: 2,
        members: 3,
        senders: 2,
        pace,
        finish,
        acknowledged: true,
        text_bytes: 20,
        lasts,
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
    talk.book.said_at[2 * talk.book.ring] = from - 1000;
    assert_eq!(talk.missing(), (3, 1));
    // Sender 2 is the first one of the second room, whose members have the places 3 to 5.
    for (place, finished) in [(3, 0), (4, 0), (5, 1)] {
        talk.book.hear(place, from, Heard::Delivery { sender: 2, number: 0 });
        assert_eq!(talk.book.finished[2], finished);
    }
    talk.book.hear(3, from, Heard::Ack(0));
    assert_eq!((talk.missing(), talk.book.count), ((0, 0), 3));
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
    assert_eq!(talk.missing().0, 10);
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
        talk.book.said_at[number as usize] = said_at;
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
