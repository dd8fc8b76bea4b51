//! Commands that run servers of their own, and have to take them along when they end.

use std::process::{Child, Command};

use super::wait_until;

/// The processes of the three servers that `command` runs, once it does.
pub(crate) fn three_servers_of(command: &Child) -> Vec<u32> {
    wait_until("three servers run", || {
        let parent = command.id().to_string();
        let listed = Command::new("ps").args(["-o", "pid=", "--ppid", &parent]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let servers: Vec<u32> = listed.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        (servers.len() == 3).then_some(servers)
    })
}

/// Presses ctrl-c: `command` ends with exit code 1, and its `servers` have ended before.
pub(crate) fn interrupt(command: &mut Child, servers: &[u32]) {
    Command::new("kill").args(["-s", "INT", &command.id().to_string()]).status().unwrap();
    let status = wait_until("it ends", || command.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    for server in servers {
        let alive = Command::new("kill").args(["-0", &server.to_string()]).output().unwrap();
        assert!(!alive.status.success(), "server process {server} is left");
    }
}
