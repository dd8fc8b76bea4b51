//! The messages: who lags, what is held back, what waits for its acknowledgement, whose copies differ.

use std::collections::BTreeMap;

use super::{Finding, names};
use crate::domain::NodeId;
use crate::domain::content::{RoomStatus, Status};

/// So many messages behind are told: a few are always under way.
const LAG: u64 = 50;

/// What is odd about the copies.
pub(super) fn findings(said: &[&Status]) -> Vec<Finding> {
    let mut all = lags_of_order(said);
    all.extend(lags_of_rooms(said));
    all.extend(differing_states(said));
    for status in said {
        for room in &status.rooms {
            all.extend(held_back(&status.node, room));
            all.extend(unacknowledged(&status.node, room));
        }
    }
    all
}

fn lags_of_order(said: &[&Status]) -> Vec<Finding> {
    let committed = |status: &Status| Some(status.order.as_ref()?.committed);
    let ahead = said.iter().filter_map(|status| Some((committed(status)?, &status.node)));
    let Some((most, ahead)) = ahead.max_by_key(|(committed, _)| *committed) else {
        return Vec::new();
    };
    let lagging = said.iter().filter_map(|status| {
        let here = committed(status).filter(|here| here + LAG <= most)?;
        let (node, behind) = (&status.node, most - here);
        Some(Finding::note(
            format!("{node} lags {behind} entries behind {ahead} ({here} of {most})."),
            "It catches up by itself; ask again in a moment to see it move.",
        ))
    });
    lagging.collect()
}

fn lags_of_rooms(said: &[&Status]) -> Vec<Finding> {
    let mut rooms: BTreeMap<&str, Vec<(u64, &NodeId)>> = BTreeMap::new();
    for status in said.iter().filter(|status| status.order.is_none()) {
        for room in &status.rooms {
            if room.replicas.contains(&status.node) {
                rooms.entry(&room.room_id).or_default().push((room.messages, &status.node));
            }
        }
    }
    let mut all = Vec::new();
    for (room, copies) in rooms {
        let Some((most, ahead)) = copies.iter().max_by_key(|(messages, _)| *messages) else {
            continue;
        };
        for (here, node) in copies.iter().filter(|(here, _)| here + LAG <= *most) {
            all.push(Finding::note(
                format!("In room {room}, {node} has {here} of the {most} messages of {ahead}."),
                "They compare their copies and send what lacks by themselves.",
            ));
        }
    }
    all
}

/// The same place and another state: the one thing that must never be.
fn differing_states(said: &[&Status]) -> Vec<Finding> {
    let mut digests: BTreeMap<u64, BTreeMap<&str, Vec<&NodeId>>> = BTreeMap::new();
    for status in said {
        if let Some(storage) = &status.storage {
            let at = digests.entry(storage.applied).or_default();
            at.entry(&storage.digest).or_default().push(&status.node);
        }
    }
    let differing = digests.into_iter().filter(|(_, states)| states.len() > 1);
    differing
        .map(|(applied, states)| {
            let parts: Vec<String> = states
                .into_iter()
                .map(|(digest, nodes)| format!("{digest} on {}", names(nodes)))
                .collect();
            Finding::trouble(
                format!("The state after entry {applied} differs: {}.", parts.join(", ")),
                "This is a bug, or a disk that lies. Keep the data folders, report it, and start the odd one with an \
                 empty folder.",
            )
        })
        .collect()
}

fn held_back(node: &NodeId, room: &RoomStatus) -> Option<Finding> {
    let first = room.held_back.first()?;
    let more = match room.held_back.len() {
        1 => "",
        _ => "; others wait, too",
    };
    let stamper = first.awaited.node_id();
    Some(Finding::note(
        format!(
            "In room {} on {node}, message {} of {} (from {}) waits for message {} of {}; {} are here{more}.",
            room.room_id,
            first.count,
            first.origin,
            first.sender,
            first.awaited_count,
            first.awaited,
            first.here
        ),
        &format!(
            "{node} asks the other replicas for it by itself. If this stays, only {stamper} has it: start {stamper} again."
        ),
    ))
}

fn unacknowledged(node: &NodeId, room: &RoomStatus) -> Option<Finding> {
    let count = room.unacknowledged?;
    let messages = if count == 1 { "message waits" } else { "messages wait" };
    Some(Finding::note(
        format!("In room {}, {count} {messages} on {node} for the acknowledgement.", room.room_id),
        "A moment of that is usual. If the number stays, the cause stands above.",
    ))
}
