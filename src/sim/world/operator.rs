//! An operator of the design `raft`: takes a voter out, the leader, too, and lets it in again, at random.
//!
//! One voter at a time, and only of an odd number: the majority of those that are left is then as large as that of all, as
//! the check of who can have [heard](super::super::heard) whom takes it.
//!
//! It goes by the list, and looks at it again before it does anything else: a leader that has just woken up, and that others
//! have replaced, shows the members of long ago for a moment.

use super::super::agenda::{Host, MS, Micros, SECOND};
use super::super::plan::stream;
use super::{Stage, World};
use crate::config::Design;
use crate::domain::content::{MemberContent, MemberList, MemberRole};
use crate::server::ServerState;

/// What the operator is at.
#[derive(Debug)]
pub(super) struct Operator {
    rng: fastrand::Rng,
    /// When it does something next; never where the voters stay.
    next_at: Option<Micros>,
    /// The usual time between two things that it does.
    pause: Micros,
    /// Whom it took out.
    out: Option<Host>,
}

impl Operator {
    /// The operator of a cluster of `nodes` servers; one that does nothing where `may_change` is unset, and in every third.
    pub(super) fn new(seed: u64, design: Design, nodes: usize, may_change: bool) -> Self {
        let mut rng = stream(seed, "operator", 0);
        let acts = may_change && design == Design::Raft && nodes >= 3 && nodes % 2 == 1;
        let acts = acts && rng.u32(0..3) > 0;
        let pause = rng.u64(500..8_000) * MS;
        let next_at = acts.then(|| rng.u64(3 * SECOND..15 * SECOND));
        Self { rng, next_at, pause, out: None }
    }

    /// Whether the server of `host` need take no clients.
    pub(super) fn has_out(&self, host: Host) -> bool {
        self.out == Some(host)
    }

    /// Whether a majority of those that vote is left when one of them loses its disk: not of two.
    pub(super) fn leaves_enough(&self, nodes: usize) -> bool {
        self.out.is_none() || nodes > 3
    }

    fn rest(&mut self, now: Micros) {
        self.next_at = Some(now + self.rng.u64(0..=2 * self.pause));
    }
}

impl World {
    /// Lets the operator do what is due. Whatever is refused is tried again at the next look.
    pub(super) fn operate(&mut self) {
        let Some(next_at) = self.operator.next_at else { return };
        let (calm, due) = (self.stage != Stage::Faults, self.agenda.now() >= next_at);
        if !calm && !due {
            return;
        }
        let Some(leader) = self.present_leader() else { return };
        let Some(list) = self.ask_leader(leader, &MemberContent::List) else { return };
        if self.operator.out.is_none() {
            self.operator.out = self.missing(&list);
        }
        match self.operator.out {
            Some(host) => self.let_in(leader, host, &list),
            None if !calm => self.take_out(leader, &list),
            None => {}
        }
    }

    /// A server that neither votes nor is about to.
    fn missing(&self, list: &MemberList) -> Option<Host> {
        let is_missing = |host: &Host| {
            let member = list.get(&self.machines[*host].id);
            member.is_none_or(|member| member.role == MemberRole::Learner)
        };
        (0..self.machines.len()).find(is_missing)
    }

    /// The server that leads in the highest term.
    fn present_leader(&self) -> Option<Host> {
        let leads = |host: &Host| {
            let machine = &self.machines[*host];
            let node = &machine.running.as_ref().filter(|_| machine.asleep.is_none())?.node;
            (node.state() == ServerState::Leader).then(|| (node.term().cloned(), *host))
        };
        (0..self.machines.len()).filter_map(|host| leads(&host)).max().map(|(_, host)| host)
    }

    /// Asks the leader; `None` when it refuses.
    fn ask_leader(&mut self, leader: Host, request: &MemberContent) -> Option<MemberList> {
        match self.step(leader, |node, step| node.do_member_request(request, step))? {
            MemberContent::Listed(list) => Some(list),
            MemberContent::Refused { reason, .. } => {
                self.tell(|| format!("n{} refuses the operator: {reason}", leader + 1));
                None
            }
            _ => None,
        }
    }

    /// Takes somebody out, if all vote.
    fn take_out(&mut self, leader: Host, list: &MemberList) {
        let all = self.machines.len();
        let votes = |host: Host| {
            let member = list.get(&self.machines[host].id);
            member.is_some_and(|member| member.role == MemberRole::Voter)
        };
        if !list.settled || !(0..all).all(votes) {
            return;
        }
        let takes_leader = self.operator.rng.u32(0..3) == 0;
        let host = if takes_leader { leader } else { self.operator.rng.usize(0..all) };
        let id = self.machines[host].id.clone();
        if self.ask_leader(leader, &MemberContent::Remove { id }).is_none() {
            return;
        }
        self.tell(|| format!("an operator removes n{} at n{}", host + 1, leader + 1));
        self.count(if host == leader { "leader removed" } else { "voter removed" });
        self.operator.out = Some(host);
        let now = self.agenda.now();
        self.operator.rest(now);
    }

    /// Lets it in again. If the removal was lost with its leader it never was out, which the list shows.
    fn let_in(&mut self, leader: Host, host: Host, list: &MemberList) {
        let id = self.machines[host].id.clone();
        match list.get(&id).map(|member| member.role) {
            Some(MemberRole::Voter) if list.settled => {
                self.tell(|| format!("n{} votes again", host + 1));
                self.operator.out = None;
                let now = self.agenda.now();
                self.operator.rest(now);
            }
            Some(MemberRole::Voter | MemberRole::Joining | MemberRole::Wiped) => {}
            Some(MemberRole::Learner) | None => {
                let request = MemberContent::Add { id, address: None };
                if self.ask_leader(leader, &request).is_some() {
                    self.count("voter added");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::Plan;
    use super::super::super::{Faults, Options};
    use super::*;

    #[test]
    fn who_is_out_without_the_operators_knowledge_is_let_in() {
        let faults = Faults { member: true, ..Faults::NONE };
        let nodes = Some(3);
        let options = Options { design: Design::Raft, nodes, faults, ..Options::default() };
        let acts = |seed: &u64| Operator::new(*seed, Design::Raft, 3, true).next_at.is_some();
        let seed = (1..100).find(acts).expect("an operator who acts");
        let mut world = World::new(seed, Plan::draw(seed, &options), &options);
        world.start_all();
        let request = MemberContent::Remove { id: world.machines[0].id.clone() };
        loop {
            assert!(world.goes_on());
            let leader = world.present_leader();
            if leader.is_some_and(|leader| world.ask_leader(leader, &request).is_some()) {
                break;
            }
        }
        assert_eq!(world.operator.out, None);
        while world.goes_on() {}
        assert!(world.violation.is_none(), "{:?}", world.violation);
        assert!(world.counters.contains_key("voter added"));
    }
}
