//! Tests of the data folder: whose it is, and what a start makes of a damaged log in it.

use super::super::file_log::tests::{chats, fill, small};
use super::*;
use crate::domain::Message;

fn open(path: &Path, node: &str, cluster: &str, design: &str) -> Result<DataFolder, String> {
    let mut rng = fastrand::Rng::with_seed(7);
    DataFolder::open(path, &node.into(), cluster, design, &mut rng)
        .map_err(|error| error.to_string())
}

#[test]
fn each_start_is_another_incarnation_on_the_same_disk() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("deep/data");
    let mut rng = fastrand::Rng::with_seed(7);
    let mut incarnations = Vec::new();
    let mut disk_ids = Vec::new();
    for start in 1..=3 {
        let folder = DataFolder::open(&path, &"n1".into(), "c", "ring", &mut rng).unwrap();
        assert_eq!(folder.starts(), start);
        assert!(folder.incarnation().as_str().starts_with(&format!("n1.{start}-")));
        incarnations.push(folder.incarnation().clone());
        disk_ids.push(folder.disk_id().to_string());
    }
    incarnations.dedup();
    assert_eq!(incarnations.len(), 3);
    assert_eq!(disk_ids[0].len(), 16);
    assert!(disk_ids.iter().all(|id| *id == disk_ids[0]));
    let text = fs::read_to_string(path.join("node.json")).unwrap();
    assert!(text.contains("\n  \"starts\": 3\n"), "{text}");
}

#[test]
fn a_second_process_is_refused_while_the_first_one_lives() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), "n1", "c", "ring").unwrap();
    let refusal = open(folder.path(), "n1", "c", "ring").unwrap_err();
    let wanted = "is already open in another process; stop it, or use another --data";
    assert_eq!(refusal, format!("{}: {wanted}", folder.path().display()));
    drop(first);
    assert_eq!(open(folder.path(), "n1", "c", "ring").unwrap().starts(), 2);
}

#[test]
fn a_folder_of_another_node_cluster_or_design_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), "n1", "c", "ring").unwrap());
    let table = [
        (["n2", "c", "ring"], "belongs to node \"n1\", not \"n2\"; start with --id n1, or"),
        (["n1", "d", "ring"], "to cluster \"c\", not \"d\"; start with --cluster c, or"),
        (["n1", "c", "raft"], "to design \"ring\", not \"raft\"; start with --design ring, or"),
    ];
    for ([node, cluster, design], wanted) in table {
        let refusal = open(folder.path(), node, cluster, design).unwrap_err();
        assert!(refusal.contains(wanted), "{refusal}");
        assert!(refusal.starts_with(&folder.path().display().to_string()), "{refusal}");
    }
    let starts = open(folder.path(), "n1", "c", "ring").unwrap().starts();
    assert_eq!(starts, 2, "a refused start does not count");
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_remedy() {
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let refusal = open(&file.join("data"), "n1", "c", "ring").unwrap_err();
    assert!(refusal.contains("file/data: cannot write to this data folder"), "{refusal}");
    assert!(refusal.contains("choose another --data"), "{refusal}");
}

#[test]
fn a_repaired_disk_has_another_name() {
    let path = tempfile::tempdir().unwrap();
    let mut folder = open(path.path(), "n1", "c", "ring").unwrap();
    let before = folder.disk_id().to_string();
    folder.new_disk_id(&mut fastrand::Rng::with_seed(8)).unwrap();
    let after = folder.disk_id().to_string();
    assert_ne!(before, after);
    drop(folder);
    assert_eq!(open(path.path(), "n1", "c", "ring").unwrap().disk_id(), after);
}

#[test]
fn a_lost_or_broken_node_file_is_refused_rather_than_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.json");
    drop(open(folder.path(), "n1", "c", "ring").unwrap());
    fs::write(&file, "{\"node_id\":").unwrap();
    let refusal = open(folder.path(), "n1", "c", "ring").unwrap_err();
    assert!(refusal.contains("node.json: says no longer whose folder this is"), "{refusal}");
    fs::remove_file(&file).unwrap();
    fs::create_dir(folder.path().join("log")).unwrap();
    let refusal = open(folder.path(), "n1", "c", "ring").unwrap_err();
    assert!(refusal.contains("node.json: is missing beside a log"), "{refusal}");
}

#[test]
fn a_cluster_id_is_set_once_and_stays() {
    let path = tempfile::tempdir().unwrap();
    let mut folder = open(path.path(), "n1", "c", "raft").unwrap();
    assert_eq!(folder.cluster_id(), None);
    folder.set_cluster_id("0123abcd").unwrap();
    drop(folder);
    let mut folder = open(path.path(), "n1", "c", "raft").unwrap();
    assert_eq!(folder.cluster_id(), Some("0123abcd"));
    folder.set_cluster_id("0123abcd").unwrap();
    for (id, wanted) in [
        ("0123abce", "belongs to a cluster with id 0123abcd, not 0123abce; connect it"),
        ("0123ABCD", "not of lower-case hex digits"),
        ("", "not of lower-case hex digits"),
    ] {
        let refusal = folder.set_cluster_id(id).unwrap_err().to_string();
        assert!(refusal.contains(wanted), "{refusal}");
        assert_eq!(folder.cluster_id(), Some("0123abcd"));
    }
    folder.new_disk_id(&mut fastrand::Rng::with_seed(8)).unwrap();
    assert_eq!(folder.cluster_id(), Some("0123abcd"), "a wiped server is of the same cluster");
}

/// What a start with the log of `folder` finds: its records, its disk id, and whether it was repaired.
fn start(
    folder: &Path,
    on_damage: OnDamage,
) -> Result<(Vec<Message>, String, Recovery), StartError> {
    let mut rng = fastrand::Rng::new();
    let mut folder = DataFolder::open(folder, &"n1".into(), "c", "raft", &mut rng)?;
    let make = |folder: &DataFolder| (Vec::new(), folder.disk_id().to_string());
    let take = |made: &mut (Vec<Message>, String), mut part: Vec<Message>| made.0.append(&mut part);
    let (_, (read, disk_id), recovery) =
        folder.open_log(&small(), on_damage, &mut rng, make, take)?;
    assert_eq!(disk_id, folder.disk_id(), "what was made knows the disk id that holds");
    Ok((read, disk_id, recovery))
}

/// A data folder that was started once, with messages 1 to 10 in segments of 4, 4 and 2 lines.
fn started() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let (read, disk_id, _) = start(folder.path(), OnDamage::Refuse).unwrap();
    assert_eq!(read, []);
    fill(&folder.path().join("log"), small(), &chats(1..=10));
    (folder, disk_id)
}

#[test]
fn a_sound_log_is_opened_under_the_same_disk_id() {
    let (folder, disk_id) = started();
    for on_damage in [OnDamage::Refuse, OnDamage::SetAside] {
        let (read, same, recovery) = start(folder.path(), on_damage).unwrap();
        assert_eq!((read, same, recovery.damage), (chats(1..=10), disk_id.clone(), None));
    }
}

#[test]
fn a_damaged_log_is_refused_or_starts_as_a_wiped_servers() {
    let (folder, disk_id) = started();
    let file = folder.path().join("log/00000002.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("hello", "hallo", 2).replacen("hallo", "hello", 1)).unwrap();
    let refusal = start(folder.path(), OnDamage::Refuse).unwrap_err().to_string();
    assert!(refusal.contains("00000002.jsonl line 2 is damaged"), "{refusal}");

    let (read, wiped, recovery) = start(folder.path(), OnDamage::SetAside).unwrap();
    assert_eq!(read, chats(1..=5));
    assert_ne!(wiped, disk_id);
    assert!(recovery.damage.unwrap().contains("00000002.jsonl line 2: its checksum"));
    assert_eq!(recovery.set_aside.len(), 2);
    let (read, same, recovery) = start(folder.path(), OnDamage::SetAside).unwrap();
    assert_eq!((read, same, recovery.damage), (chats(1..=5), wiped, None));
}

#[test]
fn a_log_that_is_gone_makes_a_wiped_server() {
    let (folder, disk_id) = started();
    fs::remove_dir_all(folder.path().join("log")).unwrap();
    let (read, wiped, _) = start(folder.path(), OnDamage::Refuse).unwrap();
    assert_eq!(read, []);
    assert_ne!(wiped, disk_id);
    assert_eq!(start(folder.path(), OnDamage::Refuse).unwrap().1, wiped);
}

#[test]
fn a_log_that_is_set_aside_makes_a_wiped_server() {
    let (folder, disk_id) = started();
    let mut open = open(folder.path(), "n1", "c", "raft").unwrap();
    let aside = open.set_log_aside(&mut fastrand::Rng::with_seed(8)).unwrap();
    assert_ne!(open.disk_id(), disk_id, "drawn first");
    assert_eq!(aside, folder.path().join("log.incomplete-2"));
    assert!(aside.join("00000001.jsonl").exists() && !open.log_path().exists());
    drop(open);
    let (read, wiped, _) = start(folder.path(), OnDamage::Refuse).unwrap();
    assert_eq!(read, []);
    assert_ne!(wiped, disk_id);
}

#[test]
fn a_log_that_cannot_be_read_is_not_damage() {
    let (folder, disk_id) = started();
    let file = folder.path().join("log/00000002.jsonl");
    let aside = folder.path().join("00000002.jsonl");
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    let refusal = start(folder.path(), OnDamage::SetAside).unwrap_err().to_string();
    assert!(refusal.contains("00000002.jsonl: cannot read it; check its owner"), "{refusal}");
    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    let (read, same, _) = start(folder.path(), OnDamage::SetAside).unwrap();
    assert_eq!((read, same), (chats(1..=10), disk_id));
}
