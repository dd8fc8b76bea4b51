//! What stands on the disks of servers: written, damaged, and read again.

use std::fs;

use super::cluster::Cluster;
use super::talk::ROOM;
use super::wait_until;
use super::wire::RawClient;

/// Writes `count` messages to the server at `index` and waits for their ACKs.
pub(crate) fn write_some(cluster: &Cluster, index: usize, name: &str, count: usize) {
    let mut writer = RawClient::join(cluster.address(index), name);
    writer.join_room(ROOM, 0);
    for number in 0..count {
        let id = format!("{name}-{number}");
        writer.chat_acked(ROOM, &id, &id);
    }
}

/// The room as the server at `index` shows it to a new member, once it lets one in.
pub(crate) fn room_on(cluster: &Cluster, index: usize) -> Vec<String> {
    let name = format!("reader {index}");
    wait_until("the server lets a reader in", || {
        let mut reader = RawClient::join(cluster.address(index), &name);
        let joined = reader.try_join_room(ROOM, u32::MAX)?;
        Some(reader.texts(joined.history as usize))
    })
}

/// Flips a bit in the middle of the log of the server at `index`, which does not run.
pub(crate) fn flip_a_bit(cluster: &Cluster, index: usize) {
    let path = cluster.servers[index].log_file();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
}
