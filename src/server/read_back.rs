//! Messages of the design `ring` that are on disk alone, read back when someone wants them.
//!
//! ```text
//!   a session is shown the past ──┐                                    ┌──▶ its replay goes on
//!   a replica lacks old messages ─┴─▶ request_records ─ log-reader ────┴──▶ they are sent to it
//!                                     a step ends here                  a later step goes on here
//! ```
//!
//! The node asks the log for some records and goes on with its work; what was read comes in a step of its own. Meanwhile
//! anything may have happened: so what was read is looked up by its place, used for what is wanted *now*, and dropped if nothing
//! is. A copy never waits for more than one reading for each session, and for each server and room.

use std::collections::{BTreeMap, VecDeque};

use super::ServerNode;
use super::step::Step;
use crate::domain::{History, Message, NodeId};
use crate::storage::LogIndex;

/// Messages in one reading for a session.
pub(super) const READ_MESSAGES: usize = 512;
/// How long the lines of one reading are together, in bytes.
pub(super) const READ_BYTES: usize = 512 * 1024;

/// Messages of one room that were read back, with their places, in order.
pub(super) type ReadMessages = VecDeque<(usize, Message)>;

/// For whom the log is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A session that is shown the past of a room.
    Session {
        /// The session.
        session: String,
        /// The room.
        room_id: String,
    },
    /// A server whose copy of a room lacks something.
    Server {
        /// The server.
        node_id: NodeId,
        /// The room.
        room_id: String,
    },
}

/// What was asked of the log, and what it has answered.
#[derive(Debug, Default)]
pub(super) struct ReadBack {
    last_token: u64,
    /// What is being read.
    asked: BTreeMap<u64, Reader>,
    /// What was read since the last step was settled.
    read: Vec<(u64, Vec<(LogIndex, Message)>)>,
}

impl ReadBack {
    /// Whether something is being read for `reader`.
    pub(super) fn is_reading(&self, reader: &Reader) -> bool {
        self.asked.values().any(|asked| asked == reader)
    }

    /// Asks for the messages at `places` of `history`, for `reader`, who has asked for nothing else.
    pub(super) fn ask(
        &mut self,
        reader: Reader,
        history: &History,
        places: impl Iterator<Item = usize>,
        step: &Step,
    ) {
        // What is not in memory was synced before, so it has a record.
        let records: Vec<LogIndex> = places.filter_map(|place| history.record_of(place)).collect();
        self.last_token += 1;
        self.asked.insert(self.last_token, reader);
        step.log.request_records(self.last_token, records, READ_BYTES);
    }

    /// The log has read something.
    pub(super) fn on_read(&mut self, token: u64, records: Vec<(LogIndex, Message)>) {
        self.read.push((token, records));
    }
}

impl ServerNode {
    /// Hands what was read to those for whom it was.
    pub(super) fn take_read_back(&mut self, step: &Step) {
        for (token, records) in std::mem::take(&mut self.read_back.read) {
            let Some(reader) = self.read_back.asked.remove(&token) else { continue };
            let (Reader::Session { room_id, .. } | Reader::Server { room_id, .. }) = &reader;
            if records.is_empty() {
                // Nothing is forgotten in this design, so the next start finds the log damaged.
                self.fatal = Some(format!("messages of {room_id} are not in the log any more"));
                return;
            }
            let Some(room) = self.managed_rooms.get(room_id) else { continue };
            let placed = records.into_iter().filter_map(|(record, msg)| {
                Some((room.message_history.place_of_record(record)?, msg))
            });
            let messages: ReadMessages = placed.collect();
            match reader {
                Reader::Session { session, room_id } => {
                    if let Some(replay) = self.replays.get_mut(&(session, room_id)) {
                        replay.read = messages;
                    }
                }
                Reader::Server { node_id, room_id } => {
                    self.send_batch(&node_id, &room_id, &messages, step);
                }
            }
        }
    }
}
