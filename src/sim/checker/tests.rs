//! Broken histories, each caught by its check.
//!
//! A history is written one act a line: `alice writes hi` (in the room `lobby`), `bob sees hi`.

use super::super::agenda::Micros;
use super::super::history::SessionHistory;
use super::*;

const STRICT: Promise =
    Promise { order: Order::Causal, shown_survives: true, whole: true, linearizable: false };
const LOOSE: Promise = Promise { shown_survives: false, whole: false, ..STRICT };
const TOTAL: Promise = Promise { order: Order::Total, ..STRICT };

/// A history of sessions that are named for their users; those that begin with `reader` read in the end.
fn history(script: &str) -> History {
    let mut sessions: BTreeMap<String, SessionHistory> = BTreeMap::new();
    let mut wrote: BTreeMap<String, String> = BTreeMap::new();
    for (at, line) in script.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        let (user, text) = (words[0], words.get(2).copied().unwrap_or_default().to_string());
        let room = "lobby".to_string();
        let sender = wrote.get(&text).cloned().unwrap_or_else(|| "nobody".into());
        let acts = match words[1] {
            "enters" => {
                vec![
                    Act::Entered { room: room.clone(), all: text == "all" },
                    Act::Joined { room, history: 0 },
                ]
            }
            "comes" => {
                let history = Some(text.parse().unwrap_or(u32::MAX));
                let all = text == "all";
                vec![Act::Entered { room: room.clone(), all }, Act::Asked { room, history }]
            }
            "resumes" => vec![Act::Asked { room, history: None }],
            "is-told" => vec![Act::Joined { room, history: text.parse().unwrap() }],
            "leaves" => vec![Act::Left { room }],
            "writes" => {
                wrote.insert(text.clone(), user.into());
                vec![Act::Wrote { room, text }]
            }
            "sees" => vec![
                Act::Got { room: room.clone(), text: text.clone() },
                Act::Shown { room, text, sender },
            ],
            "gets" => vec![Act::Got { room, text }],
            "hears" => vec![Act::Acked { text }],
            "misses" => vec![Act::Gap { room }],
            "is-refused" => vec![Act::Refused { text, code: "NOT_A_MEMBER".into() }],
            "ends" => vec![Act::Ended { reason: "no reason".into() }],
            "quits" => vec![Act::Quit],
            other => panic!("{other} is no act"),
        };
        let session = sessions.entry(user.into()).or_insert_with(|| SessionHistory {
            session: user.into(),
            user: user.into(),
            acts: Vec::new(),
        });
        session.acts.extend(acts.into_iter().map(|act| (at as Micros, act)));
    }
    let (readers, sessions) =
        sessions.into_values().partition(|session| session.user.starts_with("reader"));
    History { sessions, readers, ..History::default() }
}

/// Which check `script` fails, if any.
fn broken(script: &str, promise: Promise) -> Option<&'static str> {
    check(&history(script), promise).err().map(|violation| violation.invariant)
}

const GOOD: &str = "
    alice enters
    bob enters all
    alice writes a1
    alice sees a1
    alice hears a1
    bob sees a1
    bob writes b1
    bob sees b1
    alice sees b1
    bob hears b1
    reader1 enters all
    reader1 sees a1
    reader1 sees b1
    reader2 enters all
    reader2 sees a1
    reader2 sees b1";

#[test]
fn a_good_history_is_accepted() {
    assert_eq!(broken(GOOD, STRICT), None);
}

#[test]
fn each_broken_promise_is_named() {
    let table = [
        ("invented", "alice enters\n alice sees a1"),
        ("twice", "alice enters\n alice writes a1\n alice sees a1\n alice sees a1"),
        ("twice", "alice enters\n alice writes a1\n alice sees a1\n alice gets a1"),
        ("own words", "alice enters\n alice writes a1\n alice hears a1\n alice sees a1"),
        ("refused", "alice enters\n alice writes a1\n alice is-refused a1"),
        ("gap", "alice enters\n alice misses"),
        ("ended", "alice enters\n alice ends"),
        (
            "causal",
            "alice enters\n bob enters\n carol enters\n alice writes a1\n bob sees a1\n bob writes b1
             carol sees b1\n carol sees a1",
        ),
        (
            "causal",
            "alice enters\n bob enters\n carol enters\n alice writes a1\n bob sees a1\n bob writes b1
             carol sees b1",
        ),
        ("causal", "alice enters\n bob enters\n alice writes a1\n alice writes a2\n bob sees a2\n bob sees a1"),
        ("lost", "alice enters\n alice writes a1\n alice sees a1\n alice hears a1\n reader1 enters all"),
        ("unseen", "alice enters\n alice writes a1\n alice sees a1\n reader1 enters all"),
        (
            "equal",
            "alice enters\n alice writes a1\n alice sees a1\n reader1 enters all\n reader1 sees a1
             reader2 enters all",
        ),
        (
            "missing",
            "alice enters\n bob enters\n alice writes a1\n alice sees a1\n reader1 enters all\n reader1 sees a1",
        ),
    ];
    for (invariant, script) in table {
        assert_eq!(broken(script, STRICT), Some(invariant), "{script}");
    }
}

#[test]
fn who_comes_late_need_not_see_what_was_written_before_unless_asking_for_all() {
    let late = |wants: &str| {
        format!(
            "alice enters\n alice writes a1\n alice sees a1\n bob enters {wants}
             reader1 enters all\n reader1 sees a1"
        )
    };
    assert_eq!(broken(&late("none"), STRICT), None);
    assert_eq!(broken(&late("all"), STRICT), Some("missing"));
}

#[test]
fn who_leaves_or_quits_need_not_see_the_rest() {
    for end in ["leaves", "quits"] {
        let script = format!(
            "alice enters\n bob enters\n bob {end}\n alice writes a1\n alice sees a1
             reader1 enters all\n reader1 sees a1"
        );
        assert_eq!(broken(&script, STRICT), None, "{end}");
    }
}

#[test]
fn who_comes_again_may_be_shown_everything_again() {
    let script = "alice enters\n alice writes a1\n alice sees a1\n alice leaves\n alice enters all\n alice sees a1";
    assert_eq!(broken(script, STRICT), None);
}

#[test]
fn a_server_that_was_alone_may_lose_what_it_showed_but_not_what_it_acknowledged() {
    let lost = "alice enters\n alice writes a1\n alice sees a1\n reader1 enters all";
    assert_eq!(broken(lost, LOOSE), None);
    let acked =
        "alice enters\n alice writes a1\n alice sees a1\n alice hears a1\n reader1 enters all";
    assert_eq!(broken(acked, LOOSE), Some("lost"));
}

/// Alice and Bob write without knowing of each other; then come `views`.
fn concurrent(views: &str) -> String {
    format!("alice enters\n bob enters\n carol enters\n alice writes a1\n bob writes b1\n {views}")
}

#[test]
fn concurrent_messages_may_come_in_any_order_unless_one_is_promised() {
    let script = concurrent(
        "alice sees a1\n alice sees b1\n bob sees b1\n bob sees a1\n carol sees a1\n carol sees b1
         reader1 enters all\n reader1 sees a1\n reader1 sees b1",
    );
    assert_eq!(broken(&script, STRICT), None);
    assert_eq!(broken(&script, TOTAL), Some("order"));
    assert_eq!(broken(GOOD, TOTAL), None);
}

#[test]
fn views_that_agree_by_twos_may_still_have_no_common_order() {
    let script = concurrent(
        "carol writes c1\n alice sees a1\n alice sees b1\n bob sees b1\n bob sees c1\n carol sees c1\n carol sees a1",
    );
    let violation = check(&history(&script), TOTAL).unwrap_err();
    let circle = "no one order of lobby: views show a1 before b1 before c1 before a1";
    assert_eq!((violation.invariant, violation.detail.as_str()), ("order", circle));
}

#[test]
fn a_view_may_begin_late_but_not_skip_anything() {
    let dora = |sees: &str| {
        concurrent(&format!(
            "alice writes a2\n alice sees a1\n alice sees b1\n alice sees a2\n bob sees a1\n bob sees b1\n bob sees a2
             carol sees a1\n carol sees b1\n carol sees a2\n dora enters\n {sees}
             reader1 enters all\n reader1 sees a1\n reader1 sees b1\n reader1 sees a2",
        ))
    };
    assert_eq!(broken(&dora("dora sees b1\n dora sees a2"), TOTAL), None);
    assert_eq!(broken(&dora("dora sees a1\n dora sees a2"), TOTAL), Some("order"));
    assert_eq!(broken(&dora("dora sees a1\n dora sees a2"), STRICT), None);
}

/// Alice has written a1 and a2, and was told that they are taken; in the end all read `a1 a2 b1`.
fn read(then: &str) -> Option<&'static str> {
    let script = format!(
        "alice enters\n alice writes a1\n alice sees a1\n alice hears a1\n alice writes a2\n alice sees a2\n alice hears a2
         bob comes all\n bob is-told 2\n bob sees a1\n bob sees a2
         {then}
         bob writes b1\n bob sees b1\n alice sees b1\n bob hears b1
         reader1 enters all\n reader1 sees a1\n reader1 sees a2\n reader1 sees b1"
    );
    not_linear(&script)
}

/// How `script` is not linearizable, whatever else is wrong with it.
fn not_linear(script: &str) -> Option<&'static str> {
    let history = history(script);
    let texts = Texts::of(&history);
    let readers = history.readers.iter().map(|reader| views_of(reader, &texts, TOTAL).unwrap());
    let readers: Vec<View> = readers.flatten().collect();
    linear::check(&history, &readers, &texts).err().map(|violation| violation.invariant)
}

#[test]
fn a_read_shows_what_was_acknowledged_shown_or_read_before() {
    let table = [
        ("carol comes all\n carol is-told 2\n carol sees a1\n carol sees a2\n carol leaves", None),
        ("carol comes all\n carol is-told 1\n carol sees a1\n carol leaves", Some("stale")),
        ("carol comes all\n carol is-told 0\n carol leaves", Some("stale")),
        // The answer alone convicts: the connection broke before anything came.
        ("carol comes all\n carol is-told 1\n carol leaves", Some("stale")),
        ("carol comes 1\n carol is-told 1\n carol sees a2\n carol leaves", None),
        ("carol comes 1\n carol is-told 1\n carol sees a1\n carol leaves", Some("stale")),
        ("carol comes 2\n carol is-told 1\n carol sees a2\n carol leaves", Some("part")),
        ("carol comes all\n carol is-told 1\n carol sees a2\n carol leaves", Some("stale")),
        // Nothing was asked for, and nothing can be said before something comes.
        ("carol comes 0\n carol is-told 0\n carol leaves", None),
    ];
    for (then, verdict) in table {
        assert_eq!(read(then), verdict, "{then}");
    }
}

#[test]
fn who_resumes_reads_on() {
    let carol = "carol comes all\n carol is-told 2\n carol sees a1";
    assert_eq!(read(&format!("{carol}\n carol resumes\n carol is-told 1\n carol leaves")), None);
    let stale = format!("{carol}\n carol resumes\n carol is-told 0\n carol leaves");
    assert_eq!(read(&stale), Some("stale"));
}

#[test]
fn what_was_known_stands_before_what_is_written_later() {
    let script = "alice enters\n bob enters\n alice writes a1\n alice sees a1\n alice hears a1\n bob writes b1\n bob sees b1
         reader1 enters all\n reader1 sees b1\n reader1 sees a1";
    assert_eq!(not_linear(script), Some("late"));
    // The same two at the same time may stand either way.
    let script = "alice enters\n bob enters\n alice writes a1\n bob writes b1\n alice sees a1\n alice hears a1\n bob sees b1
         reader1 enters all\n reader1 sees b1\n reader1 sees a1";
    assert_eq!(not_linear(script), None);
}

#[test]
fn reads_are_judged_where_they_are_linearizable() {
    let script = "alice enters\n alice writes a1\n alice sees a1\n alice hears a1
         bob comes 9\n bob is-told 0\n bob quits\n reader1 enters all\n reader1 sees a1";
    assert_eq!(broken(script, TOTAL), None);
    assert_eq!(broken(script, Promise { linearizable: true, ..TOTAL }), Some("stale"));
}

#[test]
fn who_stays_has_an_answer_to_each_message() {
    let answered =
        |script: &str| check_answered(&history(script)).err().map(|violation| violation.invariant);
    assert_eq!(answered(GOOD), None);
    assert_eq!(answered("alice writes a1\n alice writes a2\n alice hears a2"), Some("answered"));
    assert_eq!(answered("alice writes a1\n alice is-refused a1"), None);
    assert_eq!(answered("alice writes a1\n alice quits"), None);
}

#[test]
fn what_is_sent_again_keeps_its_place() {
    let script = "
        alice enters all
        alice writes a1
        alice writes a2
        alice writes a1
        alice sees a1
        alice sees a2
        reader enters all
        reader sees a1
        reader sees a2";
    assert_eq!(broken(script, STRICT), None);
}
