//! Who is online where, and in which rooms: every server knows it of all servers.
//!
//! Each server announces its own sessions (CLIENT_JOIN, JOIN_ROOM and their opposites) to all others, and
//! the whole list when a link comes up. A session that connects again, anywhere, gets a higher *epoch*,
//! so that the latest connection wins on every server. A session whose connection or server was lost is
//! *away* for a grace time before it is said to have left: a client that reconnects is not news.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::domain::NodeId;
use crate::domain::content::SessionPresence;

/// How long a lost session may take to come back before others are told that it left.
pub const GRACE: Duration = Duration::from_secs(4);

/// One user's session, wherever it is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The user's name.
    pub user: String,
    /// The server that it is, or was last, connected to.
    pub node: NodeId,
    /// Counts its connections.
    pub epoch: u64,
    /// The rooms that it is in, sorted. Here and in the index of names a set would take 280 bytes for its one entry.
    pub rooms: Vec<String>,
    /// Since when its connection is lost, if it is.
    pub away_since: Option<Instant>,
}

impl SessionInfo {
    /// Whether the session connected later than by its `connection`th connection. Of a session that does not
    /// count its connections nobody knows.
    pub fn is_after(&self, connection: Option<u64>) -> bool {
        connection.is_some_and(|connection| connection < self.epoch)
    }
}

/// The sessions of all servers, by session, name and room.
#[derive(Debug, Default)]
pub struct Presence {
    sessions: BTreeMap<String, SessionInfo>,
    /// User name to the sessions under it: more than one only while a clash is being settled.
    names: BTreeMap<String, Vec<String>>,
    /// Those that are away. Looking at everybody at each tick was half of the 16 % of a core that ten thousand idle clients
    /// took.
    away: BTreeSet<String>,
    /// Room to its sessions.
    rooms: BTreeMap<String, BTreeSet<String>>,
}

impl Presence {
    /// Nobody is online.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of `session`.
    pub fn get(&self, session: &str) -> Option<&SessionInfo> {
        self.sessions.get(session)
    }

    /// The other session, not away, that holds the name `user`.
    pub fn holder_of_name(&self, user: &str, except: &str) -> Option<(&str, &SessionInfo)> {
        let sessions = self.names.get(user)?.iter().filter(|session| *session != except);
        sessions
            .filter_map(|session| self.sessions.get_key_value(session))
            .map(|(session, info)| (session.as_str(), info))
            .find(|(_, info)| info.away_since.is_none())
    }

    /// `session` of `user` is connected to `node` now. False when a later connection of it is known; the
    /// rooms that it was in stay.
    pub fn join(&mut self, session: &str, user: &str, node: &NodeId, epoch: u64) -> bool {
        if let Some(info) = self.sessions.get_mut(session) {
            // Two servers that count the same epoch settle it alike everywhere: the lower id wins.
            if epoch < info.epoch || (epoch == info.epoch && *node > info.node) {
                return false;
            }
            info.node = node.clone();
            info.epoch = epoch;
            info.away_since = None;
            self.away.remove(session);
            return true;
        }
        let info = SessionInfo {
            user: user.into(),
            node: node.clone(),
            epoch,
            rooms: Vec::new(),
            away_since: None,
        };
        self.sessions.insert(session.into(), info);
        insert_sorted(self.names.entry(user.into()).or_default(), session);
        true
    }

    /// `session` enters `room_id`. False when it is in it already, or unknown.
    pub fn enter(&mut self, session: &str, room_id: &str) -> bool {
        let Some(info) = self.sessions.get_mut(session) else { return false };
        self.rooms.entry(room_id.into()).or_default().insert(session.into());
        insert_sorted(&mut info.rooms, room_id)
    }

    /// `session` leaves `room_id`. False when it was not in it.
    pub fn leave(&mut self, session: &str, room_id: &str) -> bool {
        let Some(info) = self.sessions.get_mut(session) else { return false };
        let left = remove_sorted(&mut info.rooms, room_id);
        self.leave_index(room_id, session);
        left
    }

    /// `session` is gone for good. Returns what was known of it.
    pub fn remove(&mut self, session: &str) -> Option<SessionInfo> {
        let info = self.sessions.remove(session)?;
        self.away.remove(session);
        if let Some(sessions) = self.names.get_mut(&info.user) {
            remove_sorted(sessions, session);
            if sessions.is_empty() {
                self.names.remove(&info.user);
            }
        }
        for room_id in &info.rooms {
            self.leave_index(room_id, session);
        }
        Some(info)
    }

    fn leave_index(&mut self, room_id: &str, session: &str) {
        if let Some(sessions) = self.rooms.get_mut(room_id) {
            sessions.remove(session);
            if sessions.is_empty() {
                self.rooms.remove(room_id);
            }
        }
    }

    /// The connection of `session` was lost at `now`.
    pub fn set_away(&mut self, session: &str, now: Instant) {
        if let Some(info) = self.sessions.get_mut(session) {
            info.away_since.get_or_insert(now);
            self.away.insert(session.into());
        }
    }

    /// `session` is not away, whatever was said before: what follows is for good.
    pub fn set_present(&mut self, session: &str) {
        if let Some(info) = self.sessions.get_mut(session) {
            info.away_since = None;
            self.away.remove(session);
        }
    }

    /// The server `node` was lost at `now`, and with it all its connections.
    pub fn set_node_away(&mut self, node: &NodeId, now: Instant) {
        for (session, info) in self.sessions.iter_mut().filter(|(_, info)| info.node == *node) {
            info.away_since.get_or_insert(now);
            self.away.insert(session.clone());
        }
    }

    /// The sessions that are away for longer than [`GRACE`].
    pub fn expired(&self, now: Instant) -> Vec<String> {
        let away = self.away.iter().filter_map(|session| self.sessions.get_key_value(session));
        let is_over = |info: &SessionInfo| info.away_since.is_some_and(|at| now >= at + GRACE);
        away.filter(|(_, info)| is_over(info)).map(|(session, _)| session.clone()).collect()
    }

    /// A session of `user` whose connection was lost, other than `except`.
    pub fn away_session_of(&self, user: &str, except: &str) -> Option<String> {
        let mut sessions = self.names.get(user)?.iter().filter(|session| *session != except);
        let is_away = |session: &&String| {
            self.sessions.get(*session).is_some_and(|info| info.away_since.is_some())
        };
        sessions.find(is_away).cloned()
    }

    /// The rooms that `session` is in.
    pub fn rooms_of(&self, session: &str) -> Vec<String> {
        self.sessions.get(session).map_or_else(Vec::new, |info| info.rooms.clone())
    }

    /// The sessions that are connected to `node`.
    pub fn connected_to(&self, node: &NodeId) -> Vec<String> {
        let there = |info: &SessionInfo| info.node == *node && info.away_since.is_none();
        let sessions = self.sessions.iter().filter(|(_, info)| there(info));
        sessions.map(|(session, _)| session.clone()).collect()
    }

    /// The sessions of `node`, as it tells them to others.
    pub fn of_node(&self, node: &NodeId) -> BTreeMap<String, SessionPresence> {
        let here = self.sessions.iter().filter(|(_, info)| info.node == *node);
        let connected = here.filter(|(_, info)| info.away_since.is_none());
        connected
            .map(|(session, info)| {
                let rooms = info.rooms.clone();
                let presence =
                    SessionPresence { user: info.user.clone(), epoch: info.epoch, rooms };
                (session.clone(), presence)
            })
            .collect()
    }

    /// The sessions in `room_id`, on all servers.
    pub fn sessions_in(&self, room_id: &str) -> impl Iterator<Item = (&str, &SessionInfo)> {
        let sessions = self.rooms.get(room_id).into_iter().flatten();
        sessions
            .filter_map(|session| self.sessions.get(session).map(|info| (session.as_str(), info)))
    }

    /// The names of the users in `room_id`, sorted, each once.
    pub fn users_in(&self, room_id: &str) -> Vec<String> {
        let users: BTreeSet<&str> =
            self.sessions_in(room_id).map(|(_, info)| info.user.as_str()).collect();
        users.into_iter().map(str::to_string).collect()
    }

    /// How many sessions are in `room_id`.
    pub fn count_in(&self, room_id: &str) -> usize {
        self.rooms.get(room_id).map_or(0, BTreeSet::len)
    }

    /// The rooms that somebody is in.
    pub fn rooms(&self) -> BTreeSet<String> {
        self.rooms.keys().cloned().collect()
    }

    /// The servers that have a member of `room_id` connected.
    pub fn nodes_in(&self, room_id: &str) -> BTreeSet<NodeId> {
        let present = self.sessions_in(room_id).filter(|(_, info)| info.away_since.is_none());
        let mut nodes = BTreeSet::new();
        for (_, info) in present {
            // `collect` would copy the id of each member's server and sort them, with a buffer of 4 KiB on the stack: one
            // page more for each reader thread that took a join.
            if !nodes.contains(&info.node) {
                nodes.insert(info.node.clone());
            }
        }
        nodes
    }
}

/// Adds `name` to a sorted list; false when it is there already.
fn insert_sorted(names: &mut Vec<String>, name: &str) -> bool {
    let place = names.binary_search_by(|known| known.as_str().cmp(name));
    if let Err(place) = place {
        names.reserve_exact(1);
        names.insert(place, name.into());
    }
    place.is_err()
}

/// Takes `name` from a sorted list; false when it is not there.
fn remove_sorted(names: &mut Vec<String>, name: &str) -> bool {
    let place = names.binary_search_by(|known| known.as_str().cmp(name));
    place.map(|place| names.remove(place)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn presence() -> Presence {
        let mut presence = Presence::new();
        assert!(presence.join("s1", "alice", &"n1".into(), 1));
        assert!(presence.join("s2", "bob", &"n2".into(), 1));
        presence
    }

    #[test]
    fn the_latest_connection_of_a_session_wins_and_keeps_its_rooms() {
        let mut presence = presence();
        assert!(presence.enter("s1", "lobby"));
        assert!(presence.join("s1", "alice", &"n2".into(), 2));
        assert!(!presence.join("s1", "alice", &"n1".into(), 1), "an old announcement arrives late");
        assert_eq!(presence.get("s1").unwrap().node, "n2".into());
        assert_eq!(presence.users_in("lobby"), ["alice"]);
    }

    #[test]
    fn a_tie_of_two_connections_is_settled_alike_everywhere() {
        let (mut one, mut two) = (presence(), presence());
        one.join("s1", "alice", &"n3".into(), 5);
        one.join("s1", "alice", &"n2".into(), 5);
        two.join("s1", "alice", &"n2".into(), 5);
        two.join("s1", "alice", &"n3".into(), 5);
        assert_eq!(one.get("s1"), two.get("s1"));
        assert_eq!(one.get("s1").unwrap().node, "n2".into());
    }

    #[test]
    fn a_name_is_held_by_a_session_that_is_not_away() {
        let mut presence = presence();
        assert!(presence.holder_of_name("alice", "s1").is_none(), "one's own name is free");
        assert!(presence.holder_of_name("alice", "s9").is_some());
        presence.set_away("s1", start());
        assert!(presence.holder_of_name("alice", "s9").is_none());
    }

    #[test]
    fn a_lost_session_leaves_after_the_grace_time_unless_it_came_back() {
        let mut presence = presence();
        presence.enter("s1", "lobby");
        presence.enter("s2", "lobby");
        presence.set_node_away(&"n1".into(), start());
        presence.set_away("s2", start());
        assert!(presence.nodes_in("lobby").is_empty());
        presence.join("s2", "bob", &"n1".into(), 2);
        assert!(presence.expired(start() + GRACE / 2).is_empty());
        assert_eq!(presence.expired(start() + GRACE), ["s1"]);
        assert_eq!(presence.remove("s1").unwrap().rooms.len(), 1);
        assert_eq!(presence.users_in("lobby"), ["bob"]);
        assert_eq!(presence.count_in("lobby"), 1);
    }

    #[test]
    fn a_server_tells_only_its_own_connected_sessions() {
        let mut presence = presence();
        presence.enter("s1", "lobby");
        let told = presence.of_node(&"n1".into());
        assert_eq!(told.keys().collect::<Vec<_>>(), ["s1"]);
        assert_eq!(told["s1"].rooms, ["lobby"]);
        presence.set_away("s1", start());
        assert!(presence.of_node(&"n1".into()).is_empty());
    }
}
