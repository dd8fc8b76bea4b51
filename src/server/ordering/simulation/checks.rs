//! What must hold after every event, and after healing.

use std::collections::BTreeSet;

use super::*;

impl World {
    /// Looks at what the server took and whether it leads.
    pub(super) fn check(&mut self, node: usize) -> Result<(), String> {
        let server = &mut self.servers[node];
        let Some(manager) = &mut server.manager else { return Ok(()) };
        if manager.committed() > manager.last() {
            return Err(format!("{} lacks {}, which is committed", server.id, manager.committed()));
        }
        let (snapshot, committed) = (manager.take_snapshot(), manager.take_committed());
        if let Some((seq, state)) = snapshot {
            let wanted = self.state_after(seq);
            let server = &mut self.servers[node];
            let state = state.get(0, usize::MAX);
            if state != wanted.as_bytes() {
                let state = String::from_utf8_lossy(&state);
                return Err(format!("{} starts after {state:?}, not {wanted:?}", server.id));
            }
            server.taken = seq;
            self.note("started from a base");
        }
        let server = &mut self.servers[node];
        let Some(manager) = &mut server.manager else { return Ok(()) };
        for entry in committed {
            let seq = entry.seq.unwrap_or_default() as usize;
            if seq as Seq != server.taken + 1 {
                return Err(format!("{} took {seq} after {}", server.id, server.taken));
            }
            server.taken += 1;
            match self.agreed.get(seq - 1) {
                Some(known) if *known == entry => {}
                Some(known) => {
                    let (id, mine, theirs) = (&server.id, &entry.message_id, &known.message_id);
                    let terms = (&entry.term, &known.term);
                    return Err(format!("{id} took {mine} as {seq}, {theirs} was: {terms:?}"));
                }
                None if self.agreed.len() + 1 == seq => self.agreed.push(entry),
                None => return Err(format!("{} skips to {seq}", server.id)),
            }
        }
        let Role::Leader(leading) = &manager.role else {
            server.led_in = None;
            return Ok(());
        };
        if !leading.active || server.led_in.as_ref() == Some(&leading.term) {
            return Ok(());
        }
        let term = leading.term.clone();
        server.led_in = Some(term.clone());
        let log = manager.journal.log();
        let lost = self
            .agreed
            .iter()
            .find(|entry| !log.matches(entry.seq.unwrap_or_default(), entry.term.as_ref()));
        if let Some(lost) = lost {
            return Err(format!("{} leads in {term} without {:?}", server.id, lost.seq));
        }
        if let Some(other) = self.leaders.insert(term.clone(), node).filter(|it| *it != node) {
            return Err(format!("{} and number {other} lead in {term}", server.id));
        }
        self.note("leader");
        Ok(())
    }

    /// One leader, everyone as far as it, every voter counts; and a chat of the calm time was taken by all.
    pub(super) fn check_healed(&mut self, say_why: bool) -> Result<(), String> {
        let quiet = || Err(String::new());
        let mut leaders = BTreeSet::new();
        let mut committed = BTreeSet::new();
        for node in 0..self.servers.len() {
            let disk_id = self.disk_id(node);
            let Some(manager) = &self.servers[node].manager else { return quiet() };
            leaders.insert(manager.leader());
            committed.insert(manager.committed());
            let own = self.servers.iter().filter_map(|server| server.manager.as_ref());
            let mut own = own.filter(|manager| manager.is_voter(&self.servers[node].id));
            if !own.all(|manager| manager.membership.counts(&self.servers[node].id, &disk_id)) {
                let id = &self.servers[node].id;
                let known = self.servers.iter().filter_map(|server| server.manager.as_ref());
                let known = known.map(|m| (m.state(), &m.foreign_disks, m.membership.members()));
                return if say_why {
                    Err(format!("{id} does not count: {:?}", known.collect::<Vec<_>>()))
                } else {
                    quiet()
                };
            }
        }
        let highest = self.servers[..].iter().rev().find_map(|server| {
            let manager = server.manager.as_ref()?;
            manager.is_voter(&server.id).then(|| Some(server.id.clone()))
        });
        let calm = self.agreed.last().and_then(|entry| entry.message_id.strip_prefix('c'));
        let recent =
            calm.and_then(|text| text.parse().ok()).is_some_and(|n: u64| n + 8 > self.chats);
        if leaders.len() == 1
            && leaders.first() == highest.as_ref()
            && committed.len() == 1
            && recent
        {
            return Ok(());
        }
        if !say_why {
            return quiet();
        }
        let states: Vec<_> = self
            .servers
            .iter()
            .map(|server| {
                let manager = server.manager.as_ref();
                manager.map(|m| {
                    (
                        m.state(),
                        m.promised.clone(),
                        m.committed,
                        m.last(),
                        m.wants_election(self.start + Duration::from_millis(self.ms)),
                    )
                })
            })
            .collect();
        Err(format!("not healed: leaders {leaders:?}, {committed:?}, {recent}, {states:?}"))
    }
}
