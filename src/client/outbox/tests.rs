use super::*;

fn said(number: u64) -> Said {
    Said { id: format!("s-{number}"), room: "lobby".into(), text: format!("text {number}") }
}

/// A folder that vanishes, and a file in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    (folder, path)
}

fn open(path: &Path) -> (Outbox, Restored) {
    Outbox::open(path, "s", "alice", "roundtable").unwrap()
}

#[test]
fn what_has_no_answer_is_there_again_in_order() {
    let (_folder, path) = place();
    let (mut outbox, restored) = open(&path);
    assert_eq!(restored, Restored { session: "s".into(), ..Restored::default() });
    let life = Life { connections: 3, since: Some(70), renewals: 1 };
    outbox.note(life).unwrap();
    for number in 1..=11 {
        outbox.said(said(number)).unwrap();
    }
    for id in ["s-2", "s-11", "t-1"] {
        outbox.done(id).unwrap();
    }
    drop(outbox);
    let (_outbox, restored) = Outbox::open(&path, "other", "alice", "roundtable").unwrap();
    let ids: Vec<&str> = restored.said.iter().map(|said| said.id.as_str()).collect();
    assert_eq!(ids, ["s-1", "s-3", "s-4", "s-5", "s-6", "s-7", "s-8", "s-9", "s-10"]);
    assert_eq!((restored.session.as_str(), restored.life, restored.last), ("s", life, 11));
}

#[test]
fn numbers_go_on_though_nothing_is_left() {
    let (_folder, path) = place();
    let (mut outbox, _) = open(&path);
    for number in 1..=3 {
        outbox.said(said(number)).unwrap();
        outbox.done(&format!("s-{number}")).unwrap();
    }
    drop(outbox);
    drop(open(&path));
    let (_outbox, restored) = open(&path);
    assert_eq!((restored.last, restored.said.len()), (3, 0));
}

#[test]
fn a_torn_last_line_is_cut_off_and_others_are_damage() {
    let (_folder, path) = place();
    let (mut outbox, _) = open(&path);
    outbox.said(said(1)).unwrap();
    drop(outbox);
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}{{\"said\":{{\"id\":\"s-2\"")).unwrap();
    let (mut outbox, restored) = open(&path);
    assert_eq!(restored.said, [said(1)]);
    outbox.said(said(2)).unwrap();
    drop(outbox);
    assert_eq!(open(&path).1.said, [said(1), said(2)]);
    std::fs::write(&path, whole.replace("\"said\"", "\"sa!d\"")).unwrap();
    let error = Outbox::open(&path, "s", "alice", "roundtable").unwrap_err().to_string();
    assert!(error.contains("line 3 of the outbox") && error.contains("is damaged"), "{error}");
}

#[test]
fn another_process_or_user_is_refused() {
    let (_folder, path) = place();
    let held = open(&path);
    let error = Outbox::open(&path, "t", "alice", "roundtable").unwrap_err().to_string();
    assert!(error.contains("is open in another process"), "{error}");
    drop(held);
    let error = Outbox::open(&path, "t", "bob", "roundtable").unwrap_err();
    assert!(matches!(error, StartError::Usage(_)), "{error}");
    assert!(error.to_string().contains("is alice's"), "{error}");
}

#[test]
fn a_long_file_begins_anew_when_nothing_is_left() {
    let (_folder, path) = place();
    let (mut outbox, _) = open(&path);
    let long = "x".repeat(10_000);
    for number in 1..=10 {
        outbox.said(Said { text: long.clone(), ..said(number) }).unwrap();
        outbox.done(&format!("s-{number}")).unwrap();
    }
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length < RESTART_BYTES + 11_000, "{length}");
    drop(outbox);
    assert_eq!(open(&path).1.last, 10);
}
