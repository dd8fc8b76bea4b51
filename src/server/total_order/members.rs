//! MEMBER: what an operator asks of any server, and its leader does.
//!
//! ```text
//!   roundtable member add n4       n2                               n1 leader
//!          │─ MEMBER add n4 ──────▶│─ MEMBER add n4 ───────────────▶│ is it connected? is the change allowed?
//!          │◀─ MEMBER listed ──────│◀─ MEMBER listed, or refused ───│ an entry of the log says: n4 learns
//!          │─ MEMBER list ────────▶│─ …                             │ when it has caught up, another says: n4 votes
//! ```
//!
//! The answer says that the change is under way. Who wants to see it done asks for the list until it is there. So no server
//! remembers an operator, and a change goes on when leaders change.

use super::Ordered;
use crate::domain::content::{MemberContent, MemberList, MemberRole, MemberStatus};
use crate::domain::{Message, MessageType, NodeId};
use crate::error::RequestError;
use crate::network::ConnId;
use crate::server::ServerNode;
use crate::server::clients::invalid;
use crate::server::connections::Hindrance;
use crate::server::failure_detector::TimerType;
use crate::server::peers::parse;
use crate::server::raft::ChangeRefused;
use crate::server::ring::ServerInfo;
use crate::server::step::Step;

/// A member as the order knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its id.
    pub id: NodeId,
    /// The random name of the data folder that counts.
    pub disk: String,
    /// Where it said that it can be dialled.
    pub address: Option<String>,
    /// What it may do.
    pub role: MemberRole,
    /// Entries that it lacks, on a leader.
    pub behind: Option<u64>,
}

/// A request that was passed on to the leader.
#[derive(Clone, Debug)]
pub(super) struct PassedOn {
    leader: NodeId,
    answer: Option<MemberContent>,
}

impl ServerNode {
    /// MEMBER on a connection that said nothing else: answered by the leader, wherever it is.
    pub(in crate::server) fn handle_member_request(
        &mut self,
        conn: ConnId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), Hindrance> {
        let asked: MemberContent = parse(msg)?;
        if matches!(asked, MemberContent::Listed(_) | MemberContent::Refused { .. }) {
            return Err(invalid(msg, "this is an answer, and nothing was asked").into());
        }
        let leader = self.leader_id();
        let me = self.server_id.clone();
        let Some(ordered) = &mut self.ordered else {
            return Err(self.unsupported(msg, "voters").into());
        };
        let answer = match leader {
            Some(leader) if leader != me => {
                ordered.answer_of_leader(conn, &leader, &asked, &me, step)
            }
            None if asked != MemberContent::List => None,
            _ => Some(self.do_member_request(&asked, step)),
        };
        let Some(answer) = answer else {
            let led = self.leader_id().is_some();
            let reason =
                if led { "the leader has not answered" } else { "nobody can change the members" };
            return Err(self.not_ready(msg, reason));
        };
        if let Some(ordered) = &mut self.ordered {
            ordered.passed_on.remove(&conn);
        }
        if let MemberContent::Refused { reason, retryable: later } = answer {
            let message_id = msg.message_id.clone();
            return Err(RequestError::ChangeRefused { message_id, reason, later }.into());
        }
        let answer =
            Message::new(MessageType::Member, me.as_str()).with_id(&msg.message_id).saying(&answer);
        step.cm.send_to_conn(conn, &answer.to_frame());
        Ok(())
    }

    /// A server that was removed hears of nothing any more: its clients go elsewhere.
    pub(super) fn part_when_removed(&mut self, step: &Step) {
        let is_removed = self.ordered.as_ref().is_some_and(|ordered| ordered.order.is_removed());
        if !is_removed || !std::mem::take(&mut self.ready) {
            return;
        }
        log::warn!("this server was removed from the cluster; its clients are sent to others");
        let conns: Vec<ConnId> = self.clients.values().map(|client| client.conn).collect();
        for conn in conns {
            let reason = "this server was removed from the cluster".to_string();
            let error = RequestError::NotReady { message_id: String::new(), reason };
            self.refuse(conn, &error, step);
        }
    }

    /// Whether the other server `id` was removed, with the disk that it had when it was met.
    pub(in crate::server) fn was_removed(&self, id: &NodeId, info: &ServerInfo) -> bool {
        let disk = info.disk_id.as_ref();
        let removed = |disk: &String| {
            self.ordered.as_ref().is_some_and(|ordered| ordered.order.has_removed(id, disk))
        };
        disk.is_some_and(removed)
    }

    /// Servers that were removed and are gone are dialled, and shown, no more.
    pub(super) fn forget_removed(&mut self) {
        let is_gone = |id: &NodeId, info: &ServerInfo| {
            info.conn.is_none() && !info.is_live() && self.was_removed(id, info)
        };
        let gone = self.servers.iter().filter(|(id, info)| is_gone(id, info));
        let gone: Vec<(NodeId, String)> =
            gone.map(|(id, info)| (id.clone(), info.address.clone())).collect();
        for (id, address) in gone {
            log::info!("{id} was removed and is gone: it is forgotten");
            self.servers.remove(&id);
            self.failure_detector.forget(id.as_str(), TimerType::Server);
            self.dials.forget(&address);
        }
    }

    /// MEMBER from another server: a request that it passes on, or the answer to one.
    pub(in crate::server) fn handle_member(
        &mut self,
        from: &NodeId,
        msg: &Message,
        step: &Step,
    ) -> Result<(), RequestError> {
        let content: MemberContent = parse(msg)?;
        if matches!(content, MemberContent::Listed(_) | MemberContent::Refused { .. }) {
            let Some(ordered) = &mut self.ordered else { return Ok(()) };
            let waiting = ordered.passed_on.iter_mut();
            let meant = |conn: &ConnId, asked: &PassedOn| {
                conn.to_string() == msg.message_id && asked.leader == *from
            };
            if let Some((_, asked)) = { waiting }.find(|(conn, asked)| meant(conn, asked)) {
                asked.answer = Some(content);
                self.progress = true;
            }
            return Ok(());
        }
        let answer = self.do_member_request(&content, step);
        let answer = Message::new(MessageType::Member, self.server_id.as_str())
            .with_id(&msg.message_id)
            .saying(&answer);
        step.cm.send_to_node(from, &answer);
        Ok(())
    }

    /// Does what was asked, as the leader; anyone lists what it knows.
    pub(crate) fn do_member_request(
        &mut self,
        asked: &MemberContent,
        step: &Step,
    ) -> MemberContent {
        let done = match asked {
            MemberContent::List | MemberContent::Listed(_) | MemberContent::Refused { .. } => {
                Ok(())
            }
            _ if !self.changes_members() => Err(no(format!(
                "the design {:?} fixes its voters when the cluster is founded; with raft they can change",
                self.config.design
            ))),
            MemberContent::Add { id, address } => self.add_member(id, address.as_deref(), step),
            MemberContent::Remove { id } => self.remove_member(id, step).map_err(refused),
        };
        done.map_or_else(|refused| refused, |()| MemberContent::Listed(self.member_list()))
    }

    fn changes_members(&self) -> bool {
        self.ordered.as_ref().is_some_and(|ordered| ordered.order.changes_members())
    }

    fn add_member(
        &mut self,
        id: &NodeId,
        address: Option<&str>,
        step: &Step,
    ) -> Result<(), MemberContent> {
        let disk = self.disk_to_add(id, address, step)?;
        let Some(ordered) = &mut self.ordered else { return Ok(()) };
        let seq = ordered.order.add_member(id, &disk, step).map_err(refused)?;
        log::info!("an operator adds {id} (place {seq}): it votes when it has caught up");
        Ok(())
    }

    fn remove_member(&mut self, id: &NodeId, step: &Step) -> Result<(), ChangeRefused> {
        self.can_do_without(id)?;
        let Some(ordered) = &mut self.ordered else { return Ok(()) };
        let seq = ordered.order.remove_member(id, step)?;
        log::info!("an operator removes {id} (place {seq})");
        Ok(())
    }

    /// Whether the voters other than the voter `id` that are connected to this leader are a majority of them. The order only
    /// finds out when they have been silent for a while.
    fn can_do_without(&self, id: &NodeId) -> Result<(), ChangeRefused> {
        let list = self.member_list();
        let votes = |role| matches!(role, MemberRole::Voter | MemberRole::Wiped);
        let voters: Vec<&MemberStatus> =
            list.members.iter().filter(|member| votes(member.role)).collect();
        let leads = list.leader.as_ref() == Some(&self.server_id);
        if !leads || voters.len() < 2 || voters.iter().all(|voter| voter.id != *id) {
            return Ok(());
        }
        let left: Vec<&MemberStatus> =
            voters.into_iter().filter(|member| member.id != *id).collect();
        let counts = |member: &MemberStatus| member.connected && member.role == MemberRole::Voter;
        let missing: Vec<NodeId> =
            left.iter().filter(|member| !counts(member)).map(|member| member.id.clone()).collect();
        if (left.len() - missing.len()) * 2 > left.len() {
            return Ok(());
        }
        let left = left.into_iter().map(|member| member.id.clone()).collect();
        Err(ChangeRefused::NoMajority { left, missing })
    }

    /// The disk of the server `id` that is to be added, which is connected; if not, it is dialled where that is known.
    fn disk_to_add(
        &mut self,
        id: &NodeId,
        address: Option<&str>,
        step: &Step,
    ) -> Result<String, MemberContent> {
        if *id == self.server_id {
            return Ok(self.config.disk_id.clone());
        }
        let info = self.servers.get(id);
        let disk = info.filter(|info| info.conn.is_some()).and_then(|info| info.disk_id.clone());
        let known = info.map(|info| info.address.clone());
        match (disk, address) {
            (Some(_), Some(address)) if known.as_deref() != Some(address) => {
                let known = known.unwrap_or_default();
                Err(no(format!("{id} is at {known}, not at {address}; leave the address out")))
            }
            (Some(disk), _) => Ok(disk),
            (None, Some(address)) => {
                self.dials.try_out(address, step.now);
                self.dial_servers(step);
                Err(MemberContent::Refused {
                    reason: format!(
                        "{id} is not connected; {address} is dialled now: see whether {id} runs there, with the same \
                         --cluster and --design, and say it again"
                    ),
                    retryable: true,
                })
            }
            (None, None) => Err(no(format!(
                "{id} is not connected to the leader {}: start it with --peers {}, or name its address: member add {id} \
                 HOST:PORT",
                self.server_id, self.config.address
            ))),
        }
    }

    /// Who takes part, as this server sees it.
    fn member_list(&self) -> MemberList {
        let (members, settled) =
            self.ordered.as_ref().map(|ordered| ordered.order.members()).unwrap_or_default();
        MemberList {
            node: self.server_id.clone(),
            leader: self.leader_id(),
            term: self.term().map_or(0, |term| term.counter),
            settled,
            members: members.into_iter().map(|member| self.member_status(member)).collect(),
        }
    }

    fn member_status(&self, member: MemberView) -> MemberStatus {
        let MemberView { id, disk, address, role, behind } = member;
        let (own, info) = (id == self.server_id, self.servers.get(&id));
        let linked = info.filter(|info| info.conn.is_some());
        let found = if own {
            Some(&self.config.disk_id)
        } else {
            linked.and_then(|it| it.disk_id.as_ref())
        };
        let is_wiped = role == MemberRole::Voter && found.is_some_and(|found| *found != disk);
        MemberStatus {
            address: info.map(|info| info.address.clone()).or(address),
            role: if is_wiped { MemberRole::Wiped } else { role },
            connected: own || linked.is_some(),
            behind,
            id,
        }
    }
}

impl Ordered {
    /// The connection `conn` is gone.
    pub(in crate::server) fn forget_operator(&mut self, conn: ConnId) {
        self.passed_on.remove(&conn);
    }

    /// What the leader answered; asks it when it was not asked yet. A list is asked for again when the leader changes; whether a
    /// former leader made a change nobody knows.
    fn answer_of_leader(
        &mut self,
        conn: ConnId,
        leader: &NodeId,
        asked: &MemberContent,
        me: &NodeId,
        step: &Step,
    ) -> Option<MemberContent> {
        let former = self.passed_on.get(&conn);
        if let Some(answer) = former.and_then(|passed_on| passed_on.answer.clone()) {
            return Some(answer);
        }
        if former.is_some_and(|former| former.leader == *leader) {
            return None;
        }
        if former.is_some() && *asked != MemberContent::List {
            return Some(MemberContent::Refused {
                reason: "the leader changed before it answered; member list shows what came of it"
                    .into(),
                retryable: true,
            });
        }
        self.passed_on.insert(conn, PassedOn { leader: leader.clone(), answer: None });
        let request = Message::new(MessageType::Member, me.as_str()).with_id(conn.to_string());
        step.cm.send_to_node(leader, &request.saying(asked));
        None
    }
}

/// What the order does not do, in words for an operator.
fn refused(why: ChangeRefused) -> MemberContent {
    MemberContent::Refused { reason: why.to_string(), retryable: why.passes() }
}

/// What waiting does not change.
fn no(reason: String) -> MemberContent {
    MemberContent::Refused { reason, retryable: false }
}
