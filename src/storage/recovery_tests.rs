//! Tests of the recovery: what a log holds after crashes and damage.

use super::*;
use crate::storage::file_log::tests::{
    chat, chats, contents, fill, filled, reopen, segment_path, small,
};
use crate::storage::{LogOptions, Storage};

fn refusal(folder: &Path) -> (String, u64, String) {
    match reopen(folder, OnDamage::Refuse).map(|_| ()).unwrap_err() {
        StartError::DamagedLog { path, line, reason } => {
            (path.file_name().unwrap().to_str().unwrap().into(), line, reason)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn everything_that_was_appended_is_there_after_a_restart_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for life in 0..4 {
        let options = LogOptions { segment_bytes: 5000, batch_bytes: 700, ..small() };
        fill(folder.path(), options, &chats(life * 100..(life + 1) * 100));
    }
    assert!(segment::list(folder.path()).unwrap().len() > 5);
    assert_eq!(contents(folder.path()), chats(0..400));
}

#[test]
fn segments_keep_to_their_size_unless_one_batch_exceeds_it() {
    let folder = filled();
    for number in segment::list(folder.path()).unwrap() {
        assert!(fs::metadata(segment_path(folder.path(), number)).unwrap().len() <= 500);
    }
    let mut long = chat(11);
    long.content = "x".repeat(1000).as_str().into();
    fill(folder.path(), small(), &[long.clone(), chat(12)]);
    assert_eq!(segment::list(folder.path()).unwrap(), [1, 2, 3, 4, 5]);
    assert_eq!(contents(folder.path())[10..], [long, chat(12)]);
}

#[test]
fn indices_continue_after_what_was_recovered() {
    let folder = filled();
    let (log, _, recovery) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    assert_eq!((recovery.records, recovery.segments), (10, 3));
    assert_eq!(log.synced(), 10);
    assert_eq!(log.append(&chat(11)), 11);
}

#[test]
fn a_person_can_read_every_line() {
    let folder = filled();
    let mut lines = 0;
    for number in segment::list(folder.path()).unwrap() {
        for line in fs::read_to_string(segment_path(folder.path(), number)).unwrap().lines() {
            lines += 1;
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["type"], "CHAT");
            assert_eq!(value["message_id"], format!("a-{lines}"));
            assert_eq!(value["content"], "hello");
        }
    }
    assert_eq!(lines, 10);
}

#[test]
fn a_torn_tail_of_any_length_is_cut_off_and_the_log_goes_on() {
    let folder = filled();
    let tail = segment_path(folder.path(), 3);
    let whole = fs::read(&tail).unwrap();
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for length in last_line + 1..whole.len() {
        fs::write(&tail, &whole[..length]).unwrap();
        let (_, read, recovery) = reopen(folder.path(), OnDamage::Refuse).unwrap();
        assert_eq!(read, chats(1..=9));
        assert_eq!(recovery.torn_bytes, (length - last_line) as u64);
        assert_eq!(fs::read(&tail).unwrap(), whole[..last_line]);
    }
    fill(folder.path(), small(), &[chat(77)]);
    assert_eq!(contents(folder.path()).last(), Some(&chat(77)));
}

#[test]
fn an_empty_last_segment_is_what_a_crash_during_rotation_leaves() {
    let folder = filled();
    fs::write(segment_path(folder.path(), 4), "").unwrap();
    let (_, read, recovery) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    assert_eq!((read, recovery.torn_bytes), (chats(1..=10), 0));
}

/// Changes a digit in line `line` of segment `number`.
fn damage(folder: &Path, number: u64, line: usize) {
    let path = segment_path(folder, number);
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    lines[line - 1] = lines[line - 1].replace("hello", "hallo");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn a_damaged_line_is_refused_by_file_and_line_wherever_it_stands() {
    for (number, line) in [(1, 1), (2, 2), (3, 1), (3, 2)] {
        let folder = filled();
        damage(folder.path(), number, line);
        let (file, at, reason) = refusal(folder.path());
        assert_eq!((file, at), (segment::file_name(number), line as u64));
        assert!(reason.contains("checksum"), "{reason}");
    }
}

#[test]
fn an_unfinished_line_before_the_last_segment_is_damage() {
    let folder = filled();
    let path = segment_path(folder.path(), 1);
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() - 5]).unwrap();
    let (file, line, reason) = refusal(folder.path());
    assert_eq!((file.as_str(), line), ("00000001.jsonl", 4));
    assert!(reason.contains("later segment"), "{reason}");
    assert_eq!(fs::read(&path).unwrap(), text[..text.len() - 5], "a refusal changes nothing");
}

#[test]
fn a_missing_segment_is_damage() {
    let folder = filled();
    fs::remove_file(segment_path(folder.path(), 2)).unwrap();
    assert_eq!(refusal(folder.path()), ("00000002.jsonl".into(), 1, "the file is missing".into()));
    let (_, read, recovery) = reopen(folder.path(), OnDamage::SetAside).unwrap();
    assert_eq!(read, chats(1..=4));
    assert_eq!(recovery.set_aside, [folder.path().join("00000003.jsonl.damaged-1")]);
    assert_eq!(contents(folder.path()), chats(1..=4));
}

#[test]
fn a_repair_keeps_what_stands_before_the_damage_and_sets_the_rest_aside() {
    let folder = filled();
    damage(folder.path(), 2, 2);
    let before: Vec<_> =
        [2, 3].map(|number| fs::read(segment_path(folder.path(), number)).unwrap()).into();
    let (log, read, recovery) = reopen(folder.path(), OnDamage::SetAside).unwrap();
    assert_eq!(read, chats(1..=5));
    assert!(recovery.damage.as_ref().unwrap().contains("00000002.jsonl line 2"));
    let names = ["00000002.jsonl.damaged-1", "00000003.jsonl.damaged-1"];
    assert_eq!(recovery.set_aside, names.map(|name| folder.path().join(name)));
    let aside: Vec<_> = recovery.set_aside.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(aside, before);

    log.append(&chat(50));
    log.close();
    log.run_writer(|_| ()).unwrap();
    assert_eq!(contents(folder.path()), chats([1, 2, 3, 4, 5, 50]));
}

#[test]
fn a_second_repair_overwrites_nothing() {
    let folder = filled();
    for _ in 0..2 {
        damage(folder.path(), 1, 2);
        reopen(folder.path(), OnDamage::SetAside).unwrap();
        fill(folder.path(), small(), &chats(20..30));
    }
    for name in ["00000001.jsonl.damaged-1", "00000001.jsonl.damaged-2"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
}

#[test]
fn a_repair_that_crashed_is_asked_for_again() {
    // Each state that the repair of line 2 of segment 1 passes through, up to its last step.
    let crashes: [fn(&Path); 4] = [
        |folder| drop(segment::link_aside(&segment_path(folder, 3)).unwrap()),
        |folder| fs::remove_file(segment_path(folder, 3)).unwrap(),
        |folder| {
            fs::remove_file(segment_path(folder, 3)).unwrap();
            fs::remove_file(segment_path(folder, 2)).unwrap();
        },
        |folder| {
            fs::write(folder.join("00000001.repaired"), "{").unwrap();
            segment::link_aside(&segment_path(folder, 1)).unwrap();
        },
    ];
    for crash in crashes {
        let folder = filled();
        damage(folder.path(), 1, 2);
        crash(folder.path());
        assert_eq!(refusal(folder.path()).1, 2);
        reopen(folder.path(), OnDamage::SetAside).unwrap();
        assert_eq!(contents(folder.path()), chats([1]));
    }
}

#[test]
fn a_repair_of_a_sound_log_changes_nothing() {
    let folder = filled();
    let (_, read, recovery) = reopen(folder.path(), OnDamage::SetAside).unwrap();
    assert_eq!(read, chats(1..=10));
    assert_eq!((recovery.damage, recovery.set_aside), (None, vec![]));
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = reopen(&file.join("log"), OnDamage::Refuse).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with(&file.display().to_string()), "{error}");
}

#[test]
fn a_log_that_was_said_to_begin_later_does() {
    let folder = filled();
    fs::remove_file(segment_path(folder.path(), 1)).unwrap();
    assert_eq!(refusal(folder.path()).0, "00000001.jsonl", "nobody said so");
    fs::write(folder.path().join(segment::first_name(2)), "").unwrap();
    let (log, read, recovery) = reopen(folder.path(), OnDamage::Refuse).unwrap();
    assert_eq!(read, chats(5..=10));
    assert_eq!((recovery.records, recovery.segments, recovery.first_segment), (6, 2, 2));
    assert_eq!(log.append(&chat(11)), 7, "what is found is numbered anew");
    log.close();
    log.run_writer(|_| ()).unwrap();
    assert_eq!(contents(folder.path()), chats(5..=11));
}

#[test]
fn what_a_crash_left_of_the_forgotten_is_removed() {
    let folder = filled();
    for number in [2, 3] {
        fs::write(folder.path().join(segment::first_name(number)), "").unwrap();
    }
    fs::remove_file(segment_path(folder.path(), 1)).unwrap();
    assert_eq!(contents(folder.path()), chats(9..=10));
    assert_eq!(segment::list(folder.path()).unwrap(), [3]);
    assert_eq!(segment::list_firsts(folder.path()).unwrap(), [3]);
}

#[test]
fn the_first_segment_cannot_be_lost_unseen() {
    let folder = filled();
    fs::write(folder.path().join(segment::first_name(3)), "").unwrap();
    fs::remove_file(segment_path(folder.path(), 3)).unwrap();
    assert_eq!(refusal(folder.path()), ("00000003.jsonl".into(), 1, "the file is missing".into()));
    let (log, read, recovery) = reopen(folder.path(), OnDamage::SetAside).unwrap();
    assert_eq!((read, recovery.set_aside), (vec![], vec![]));
    assert!(recovery.damage.is_some());
    log.append(&chat(1));
    log.close();
    log.run_writer(|_| ()).unwrap();
    assert_eq!(contents(folder.path()), chats([1]));
}
