//! Messages and entries of the one order in a few words.

use std::collections::BTreeMap;

use roundtable::domain::content::{
    CatchupReq, LeaderHeartbeat, Member, Members, MembersContent, OrderingAck, Place,
    PromiseContent, SeqChat, SeqChatKind,
};
use roundtable::domain::{Message, MessageType, NodeId};

/// An entry in a few letters: the counter of its term, and what it is.
pub(crate) fn name(entry: &Message) -> String {
    let counter = entry.term.as_ref().map_or(0, |term| term.counter);
    match entry.message_type {
        MessageType::Chat => format!("{counter}:{}", entry.message_id),
        other => format!("{counter}:{other}"),
    }
}

fn place(place: &Place) -> String {
    let counter = place.term.as_ref().map_or(0, |term| term.counter);
    if place.seq == 0 { "0".into() } else { format!("{}({counter})", place.seq) }
}

/// Heartbeats and their answers, and empty batches.
pub(crate) fn is_routine(msg: &Message) -> bool {
    matches!(msg.message_type, MessageType::Heartbeat | MessageType::Ack | MessageType::Join)
}

pub(crate) fn describe(msg: &Message) -> String {
    let term = msg.term.as_ref().map_or_else(String::new, |term| format!(" {term}"));
    let what = match msg.message_type {
        MessageType::Promise => match msg.content.parse().unwrap() {
            PromiseContent::Request { handover: true } => "asks, handed over".into(),
            PromiseContent::Request { handover: false } => "asks".into(),
            PromiseContent::Granted { end, .. } => format!("granted, log ends at {}", place(&end)),
            PromiseContent::Refused { promised, led } => {
                format!("refused, promised {promised}{}", if led { ", led" } else { "" })
            }
            PromiseContent::Kept { .. } => "kept".into(),
        },
        MessageType::SeqChat => {
            let batch: SeqChat = msg.content.parse().unwrap();
            let names: Vec<String> = batch.entries.iter().map(|entry| name(entry)).collect();
            let kind = match batch.kind {
                SeqChatKind::Order => "",
                SeqChatKind::Adoption => " for adoption",
                SeqChatKind::Committed => " committed ones",
                SeqChatKind::Base => " base",
            };
            let piece = batch.state.map(|piece| {
                format!(", piece {} of {}: {:?}", piece.number + 1, piece.of, piece.text)
            });
            let starts = piece.unwrap_or_default();
            let prev = place(&batch.prev);
            format!("prev={prev} [{}] committed={}{kind}{starts}", names.join(" "), batch.committed)
        }
        MessageType::Heartbeat => {
            let beat: LeaderHeartbeat = msg.content.parse().unwrap();
            format!("prev={} committed={}", place(&beat.prev), beat.committed)
        }
        MessageType::CatchupReq => {
            let CatchupReq { after, state } = msg.content.parse().unwrap();
            let here =
                state.map(|here| format!(", {} of the base {}", here.pieces, place(&here.base)));
            format!("after {}{}", place(&after), here.unwrap_or_default())
        }
        MessageType::Ack => match msg.content.parse().unwrap() {
            OrderingAck::Synced { seq, disk_id } if disk_id == "disk1" => format!("synced={seq}"),
            OrderingAck::Synced { seq, disk_id } => format!("synced={seq} on {disk_id}"),
            OrderingAck::Joined { members, leader, .. } => {
                let leader = leader.map_or("nobody".into(), |leader| leader.id.to_string());
                format!("{}, {leader} leads", list(members.as_ref()))
            }
        },
        MessageType::Members => match msg.content.parse().unwrap() {
            MembersContent::Proposed { members, .. } => {
                format!("proposed {}", list(Some(&members)))
            }
            MembersContent::Taken { .. } => "taken".into(),
            MembersContent::Valid { members } => format!("valid {}", list(Some(&members))),
        },
        _ => String::new(),
    };
    format!("{}{term} {what}", msg.message_type).trim_end().into()
}

fn list(members: Option<&Members>) -> String {
    let Some(members) = members else { return "no members yet".into() };
    let names = |map: &BTreeMap<NodeId, Member>| {
        map.keys().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
    };
    format!("voters [{}] learners [{}]", names(&members.voters), names(&members.learners))
}
