//! Simulated TCP connections and cuts, as data: what is on its way where.
//!
//! ```text
//!   side 0 (dialled) ──flight towards 1──▶ side 1 (accepted)
//!                    ◀─flight towards 0──
//! ```
//!
//! Each direction keeps its order. While a direction is cut nothing arrives, and nothing is lost: like the segments
//! of TCP, it comes when the network is whole again, if both ends still stand.

use std::collections::{BTreeMap, VecDeque};

use super::agenda::{Host, Micros};
use crate::domain::Frame;
use crate::network::ConnId;

/// What travels on a connection.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    /// A message.
    Frame(Frame),
    /// The sender has closed its end, after everything before.
    End,
}

/// What a reader has read: a frame, or (`None`) the end.
pub(super) type Read = Option<Frame>;

/// One end of a connection.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Whose it is.
    pub(super) host: Host,
    /// Which life of a server, or which attempt of a client.
    pub(super) life: u64,
    /// Whether it stands: accepted or connected, and not closed.
    pub(super) open: bool,
    /// What is on its way to it, with the time of arrival.
    pub(super) flight: VecDeque<(Micros, Packet)>,
    /// When the last of that arrives: nothing later may come earlier.
    pub(super) last_at: Micros,
    /// What its reader has read and not handed over, the first of which has to wait.
    pub(super) held: Option<VecDeque<Read>>,
    /// It was told to go on while it was not waiting.
    pub(super) token: bool,
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The dialling end, then the accepting one.
    pub(super) ends: [End; 2],
    /// The address that was dialled.
    pub(super) address: String,
    /// Whether the dialling end has stood, and so both have.
    pub(super) connected: bool,
}

/// All connections and all cuts.
#[derive(Debug)]
pub(super) struct Links {
    hosts: usize,
    all: BTreeMap<u64, Link>,
    count: u64,
    /// How many faults cut each direction: `from * hosts + to`.
    cuts: Vec<u16>,
}

/// The name of an end for its server.
pub(super) fn conn_id(conn: u64, side: usize) -> ConnId {
    ConnId(conn * 2 + side as u64)
}

/// The connection and the side that a server means.
pub(super) fn end_of(conn: ConnId) -> (u64, usize) {
    (conn.0 / 2, usize::from(conn.0 % 2 == 1))
}

impl Links {
    /// No connection among `hosts` machines.
    pub(super) fn new(hosts: usize) -> Self {
        Self { hosts, all: BTreeMap::new(), count: 0, cuts: vec![0; hosts * hosts] }
    }

    /// A connection that is being dialled.
    pub(super) fn dial(&mut self, from: (Host, u64), to: (Host, u64), address: &str) -> u64 {
        self.count += 1;
        let end = |(host, life)| End { host, life, ..End::default() };
        let ends = [end(from), end(to)];
        self.all.insert(self.count, Link { ends, address: address.into(), connected: false });
        self.count
    }

    /// The connection `conn`, unless it is over.
    pub(super) fn get(&mut self, conn: u64) -> Option<&mut Link> {
        self.all.get_mut(&conn)
    }

    /// Forgets `conn` when neither end stands.
    pub(super) fn tidy(&mut self, conn: u64) {
        let is_over = |link: &Link| link.connected && !link.ends[0].open && !link.ends[1].open;
        if self.all.get(&conn).is_some_and(is_over) {
            self.all.remove(&conn);
        }
    }

    /// Forgets `conn`.
    pub(super) fn remove(&mut self, conn: u64) {
        self.all.remove(&conn);
    }

    /// The open ends of `host`.
    pub(super) fn ends_of(&self, host: Host) -> Vec<(u64, usize)> {
        let ends = self.all.iter().flat_map(|(conn, link)| {
            link.ends.iter().enumerate().map(move |(side, end)| (*conn, side, end))
        });
        ends.filter(|(_, _, end)| end.host == host && end.open)
            .map(|(conn, side, _)| (conn, side))
            .collect()
    }

    /// The connections whose both ends stand.
    pub(super) fn standing(&self) -> Vec<u64> {
        let links = self.all.iter().filter(|(_, link)| link.ends[0].open && link.ends[1].open);
        links.map(|(conn, _)| *conn).collect()
    }

    /// Whether nothing gets from `from` to `to`.
    pub(super) fn is_cut(&self, from: Host, to: Host) -> bool {
        self.cuts[from * self.hosts + to] > 0
    }

    /// Cuts the direction from `from` to `to` once more.
    pub(super) fn cut(&mut self, from: Host, to: Host) {
        self.cuts[from * self.hosts + to] += 1;
    }

    /// Takes one cut back. True when the direction is whole.
    pub(super) fn heal(&mut self, from: Host, to: Host) -> bool {
        let cuts = &mut self.cuts[from * self.hosts + to];
        *cuts = cuts.saturating_sub(1);
        *cuts == 0
    }

    /// The ends with something on its way that goes from `from` to `to`.
    pub(super) fn in_flight(&self, from: Host, to: Host) -> Vec<(u64, usize)> {
        let mut ends = Vec::new();
        for (conn, link) in &self.all {
            for side in [0, 1] {
                let (end, other) = (&link.ends[side], &link.ends[1 - side]);
                if end.host == to && other.host == from && !end.flight.is_empty() {
                    ends.push((*conn, side));
                }
            }
        }
        ends
    }

    /// The ends at which a connection between two machines stands.
    pub(super) fn between(&self, from: Host, to: Host) -> Vec<(u64, usize)> {
        let mut ends = Vec::new();
        for (conn, link) in &self.all {
            for side in [0, 1] {
                if link.ends[side].host == from
                    && link.ends[1 - side].host == to
                    && link.ends[side].open
                {
                    ends.push((*conn, side));
                }
            }
        }
        ends
    }
}
