//! `roundtable member` with real processes: servers of the design `raft` come and go while people talk, and what an operator
//! gets wrong is refused with a sentence that says what to do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod support;

use std::thread::sleep;

use roundtable::domain::content::{MemberList, MemberRole};
use support::cluster::{Cluster, Server, free_address};
use support::faults::{PAUSE, QUIET};
use support::talk::{ROOM, Talk, assert_nothing_lost};
use support::{program, wait_until};

const FLAGS: [&str; 6] = ["--design", "raft", "--server-timeout-ms", "800", "--rooms", ROOM];

/// What `roundtable member` said when asked at the server at `index`: the exit code, standard output, standard error.
fn member(cluster: &Cluster, index: usize, words: &[&str]) -> (Option<i32>, String, String) {
    let address = cluster.address(index).to_string();
    let output =
        program().arg("member").args(words).args(["--connect", &address]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The same, which must be done.
fn done(cluster: &Cluster, index: usize, words: &[&str]) -> String {
    let (code, out, err) = member(cluster, index, words);
    assert_eq!(code, Some(0), "{words:?}: {out}{err}");
    out
}

/// The same, which must fail at once with this code; what was said.
fn refused(cluster: &Cluster, index: usize, code: i32, words: &[&str]) -> String {
    let now = [words, &["--wait-ms", "0"]].concat();
    let (ended, out, err) = member(cluster, index, &now);
    assert_eq!((ended, out.as_str()), (Some(code), ""), "{words:?}: {err}");
    err
}

fn list(cluster: &Cluster, index: usize) -> MemberList {
    serde_json::from_str(&done(cluster, index, &["list", "--format", "json"])).unwrap()
}

fn voters(list: &MemberList) -> Vec<&str> {
    let voters = list.members.iter().filter(|member| member.role == MemberRole::Voter);
    voters.map(|member| member.id.as_str()).collect()
}

/// Starts `n4` with an empty folder, which knows the others.
fn start_fourth(cluster: &mut Cluster) {
    let peers = cluster.connect_list(0);
    let known = ["--no-discovery", "--peers", &peers, "--cluster", &cluster.name];
    let args = [&FLAGS[..], &known].concat();
    let mut fourth = Server::new(cluster.folder.path(), "n4", free_address(), &args);
    fourth.start();
    cluster.servers.push(fourth);
    cluster.wait_ready();
}

fn wait_more(talk: &Talk, what: &str) {
    let before = talk.acked();
    wait_until(what, || (talk.acked() > before + 10).then_some(()));
}

#[test]
fn a_server_is_replaced_by_another_while_people_talk() {
    let mut cluster = Cluster::start(3, &FLAGS);
    let talk = Talk::start(&cluster, 3, PAUSE);
    sleep(QUIET);
    start_fourth(&mut cluster);
    let asked = (cluster.leader_index() + 1) % 3;
    let learns = list(&cluster, asked);
    assert_eq!(learns.get(&"n4".into()).unwrap().role, MemberRole::Learner);
    let said = done(&cluster, asked, &["add", "n4"]);
    assert_eq!(said, "n4 is a voter; the voters are n1, n2, n3, n4\n");
    // The leader goes, which is the hardest case: it is asked itself.
    let out = cluster.leader_index();
    let id = cluster.servers[out].id.clone();
    let said = done(&cluster, out, &["remove", &id]);
    assert!(said.starts_with(&format!("{id} is no member any more; the voters are ")), "{said}");
    cluster.servers[out].signal("INT");
    let status = cluster.servers[out].wait_exit(support::DEADLINE);
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    cluster.servers.remove(out);
    wait_more(&talk, "the others go on");
    let changed = list(&cluster, 2);
    let left: Vec<String> = cluster.servers.iter().map(|server| server.id.clone()).collect();
    assert_eq!(voters(&changed), left);
    // Three vote. One of the old ones dies: two are a majority by the new one's vote.
    cluster.servers[0].kill();
    wait_more(&talk, "two of three acknowledge");
    cluster.restart(0);
    cluster.wait_ready();
    // Everybody starts again, and still knows who votes.
    cluster.stop_all();
    cluster.restart_all();
    assert_eq!(voters(&list(&cluster, 0)), left);
    wait_more(&talk, "people talk after the restart");
    assert_nothing_lost(&cluster, talk);
    let known = cluster.servers[0].status().unwrap().servers;
    assert!(known.iter().all(|server| server.id.as_str() != id), "{known:?}");
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let mut cluster = Cluster::start(3, &FLAGS);
    let leader = cluster.leader_index();
    let follower = (leader + 1) % 3;
    let table = done(&cluster, follower, &["list"]);
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!((rows.len(), rows[0].split_whitespace().next()), (4, Some("MEMBER")), "{table}");
    assert!(rows[leader + 1].contains("voter, leads"), "{table}");
    for (words, said) in [
        (&["add", "n2"][..], "n2 is a voter already"),
        (&["add", "n9"], "n9 is not connected to the leader"),
        (&["remove", "n9"], "n9 is no member; member list shows who is"),
    ] {
        let told = refused(&cluster, follower, 1, words);
        assert!(told.starts_with("roundtable: ") && told.contains(said), "{words:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    // Nobody listens there: it is dialled, and does not answer.
    let nobody = free_address().to_string();
    let told = refused(&cluster, follower, 1, &["add", "n9", &nobody]);
    assert!(told.contains(&format!("{nobody} is dialled now")), "{told}");
    for words in
        [&["add"][..], &["remove"], &["add", "n9", "nowhere"], &["add", ""], &["grow"], &[]]
    {
        let output = program().arg("member").args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}");
    }
    // With one dead the other has to stay.
    let third = (leader + 2) % 3;
    cluster.servers[third].kill();
    let (gone, stays) = (cluster.servers[third].id.clone(), cluster.servers[follower].id.clone());
    wait_until("the leader has lost it", || {
        list(&cluster, leader).members.iter().any(|member| !member.connected).then_some(())
    });
    let told = refused(&cluster, leader, 1, &["remove", &stays]);
    assert!(told.contains(&format!("missing: {gone}")), "{told}");
    // With two dead nobody leads, and who is left says who is missing.
    cluster.servers[leader].kill();
    let missing = wait_until("nobody leads", || {
        let status = cluster.servers[follower].status()?;
        status.leader.is_none().then_some(status.order?.waits_for?)
    });
    assert!(missing.starts_with("no majority: 1 of 3 voters"), "{missing}");
    let told = refused(&cluster, follower, 1, &["remove", &gone]);
    assert!(told.contains("no majority: 1 of 3 voters can be reached"), "{told}");
    let table = done(&cluster, follower, &["list"]);
    assert!(table.contains("No leader is known"), "{table}");
}

#[test]
fn a_server_of_another_cluster_is_not_let_in() {
    let cluster = Cluster::start(3, &FLAGS);
    // Founded alone under the same name.
    let args = [&FLAGS[..], &["--cluster", &cluster.name, "--no-discovery"]].concat();
    let mut loner = Server::new(cluster.folder.path(), "n9", free_address(), &args);
    loner.start();
    wait_until("n9 founds its own cluster", || {
        (loner.status()?.leader?.as_str() == "n9").then_some(())
    });
    let address = loner.address.to_string();
    let (code, _, err) = member(&cluster, 0, &["add", "n9", &address, "--wait-ms", "1500"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("n9 is not connected") && err.contains("--cluster"), "{err}");
    let told = cluster.servers.iter().map(Server::log).chain([loner.log()]).collect::<String>();
    assert!(told.contains("belongs to the cluster with id"), "{told}");
    assert_eq!(voters(&list(&cluster, 0)), ["n1", "n2", "n3"]);
}

#[test]
fn other_designs_say_what_they_lack() {
    for (design, code, said) in [
        ("sequencer", 1, "fixes its voters when the cluster is founded"),
        ("ring", 1, "has no voters"),
    ] {
        let cluster = Cluster::start(1, &["--design", design]);
        let told = refused(&cluster, 0, code, &["remove", "n1"]);
        assert!(told.contains(said), "{told}");
    }
    let nobody = free_address().to_string();
    let output = program().args(["member", "list", "--connect", &nobody]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("roundtable: no server answers ("), "{said}");
    let raft = ["server", "--id", "n1", "--design", "raft", "--election", "bully"];
    let output = program().args(raft).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("leave --election out"), "{said}");
}
