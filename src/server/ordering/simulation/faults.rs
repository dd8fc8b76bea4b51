//! What goes wrong.

use std::collections::BTreeSet;

use super::*;
use crate::domain::content::MembersContent;

impl World {
    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let pause = self.rng.u64(1..=self.habits.fault_every_ms * 2);
        self.at(self.ms + pause, Event::Fault);
        let count = self.servers.len();
        let (node, other) = (self.rng.usize(0..count), self.rng.usize(0..count));
        let kind = if self.habits.stormy {
            // No power cuts, which end every entanglement, and no large partitions.
            [0, 0, 0, 3, 3, 3, 6, 11, 12, 12, 16, 16, 17, 17][self.rng.usize(0..14)]
        } else {
            self.rng.u8(0..16)
        };
        match kind {
            0..=2 => self.crash(node),
            3 | 4 => {
                let stands = |server: &Server| {
                    let role = server.manager.as_ref().map(|manager| &manager.role);
                    role.is_some_and(|role| !matches!(role, Role::Follower(_)))
                };
                self.crash(self.servers.iter().position(stands).unwrap_or(node));
            }
            5 => (0..count).for_each(|node| self.crash(node)),
            6..=8 if node != other => self.reset(node, other),
            9 | 10 => {
                let side: BTreeSet<usize> = (0..count).filter(|_| self.rng.bool()).collect();
                for a in 0..count {
                    for b in (a + 1..count).filter(|b| side.contains(&a) != side.contains(b)) {
                        self.cut_link(a, b)?;
                    }
                }
            }
            11 if node != other => self.cut_link(node, other)?,
            12 | 13 => self.mend_links(),
            14 | 15 => {
                self.wipe(node);
                if self.rng.bool() {
                    // Who has what the lost disk had is away, too.
                    let leads = |server: &Server| server.led_in.is_some();
                    if let Some(leader) = self.servers.iter().position(leads) {
                        self.crash(leader);
                    }
                }
            }
            16 => self.ambush()?,
            17 if node != other && self.up.is_none() => self.seesaw(node, other, 8)?,
            _ => {}
        }
        Ok(())
    }

    /// Two stand that do not hear each other, and the third one forgets what it promised the higher one, if it can.
    fn ambush(&mut self) -> Result<(), String> {
        let mut nodes: Vec<usize> = (0..self.voters).collect();
        self.rng.shuffle(&mut nodes);
        let (low, high) = (nodes[0].min(nodes[1]), nodes[0].max(nodes[1]));
        self.note("ambush");
        self.mend_links();
        self.cut_link(low, high)?;
        self.doomed = self.rng.bool().then_some((nodes[2], high));
        let later = self.rng.u64(0..=4 * self.habits.delay_ms + 2 * self.habits.sync_ms);
        self.at(self.ms, Event::Stand { node: low });
        self.at(self.ms + later, Event::Stand { node: high });
        let at = self.ms + self.rng.u64(300..1200);
        self.at(at, Event::Mend);
        Ok(())
    }

    /// One stands while the other is cut off; then the other way round.
    pub(super) fn seesaw(&mut self, up: usize, down: usize, left: u32) -> Result<(), String> {
        self.up = None;
        if self.calm {
            return Ok(());
        }
        self.mend_links();
        if left == 0 {
            return Ok(());
        }
        self.note("see-saw");
        for other in (0..self.servers.len()).filter(|other| *other != down) {
            self.cut_link(down, other)?;
        }
        self.restart(up)?;
        self.up = Some(up);
        let pause = self.rng.u64(1..=6 * self.habits.delay_ms + 4 * self.habits.sync_ms);
        self.at(self.ms + pause, Event::Seesaw { up: down, down: up, left: left - 1 });
        self.step(up, |manager, step| manager.stand(true, step))
    }

    /// Who is up on the see-saw is often cut off as it begins to lead, and crashes as it commits.
    pub(super) fn end_a_reign(
        &mut self,
        node: usize,
        elected: bool,
        commits: bool,
    ) -> Result<(), String> {
        if self.up != Some(node) || !(elected || commits) || self.rng.bool() {
            return Ok(());
        }
        self.up = None;
        if commits {
            self.note("short reign");
            // A power cut: whoever has more than it has synced loses that.
            for server in 0..self.servers.len() {
                self.crash_keeping(server, self.servers[server].synced, 150);
            }
            return Ok(());
        }
        for other in (0..self.servers.len()).filter(|other| *other != node) {
            self.cut_link(node, other)?;
        }
        Ok(())
    }

    /// The doomed server crashes with all that its disk has not synced, and does not hear the one that it promised something
    /// when it is back.
    pub(super) fn betray(&mut self, node: usize) -> Result<(), String> {
        let Some((_, to)) = self.doomed.take_if(|(doomed, _)| *doomed == node) else {
            return Ok(());
        };
        let server = &mut self.servers[node];
        if self.calm || server.synced == server.disk.written.get() {
            return Ok(());
        }
        self.note("promise lost");
        self.crash_keeping(node, self.servers[node].synced, 30);
        self.cut_link(node, to)
    }

    fn cut_link(&mut self, a: usize, b: usize) -> Result<(), String> {
        *self.epochs.entry(Self::pair(a, b)).or_default() += 1;
        self.cut.insert(Self::pair(a, b));
        if self.rng.bool() {
            let (id_a, id_b) = (self.servers[a].id.clone(), self.servers[b].id.clone());
            self.step(a, |manager, step| manager.node_failed(&id_b, step))?;
            self.step(b, |manager, step| manager.node_failed(&id_a, step))?;
        }
        Ok(())
    }

    pub(super) fn mend_links(&mut self) {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.reset(a, b);
        }
    }

    fn crash(&mut self, node: usize) {
        let server = &self.servers[node];
        if server.manager.is_none() {
            return;
        }
        let kept = self.rng.u64(server.synced..=server.disk.written.get());
        let down_ms = if self.habits.stormy && self.rng.u8(0..4) > 0 { 150 } else { 2500 };
        self.crash_keeping(node, kept, down_ms);
    }

    /// The server stops, its disk has the records up to `kept`, and it is back after `down_ms` at the latest.
    fn crash_keeping(&mut self, node: usize, kept: LogIndex, down_ms: u64) {
        let server = &mut self.servers[node];
        if server.manager.take().is_none() {
            return;
        }
        if self.reads_rng.bool() {
            server.disk.synced(kept);
        }
        server.disk = server.disk.left(kept);
        server.led_in = None;
        for other in (0..self.servers.len()).filter(|other| *other != node) {
            *self.epochs.entry(Self::pair(node, other)).or_default() += 1;
        }
        let at = self.ms + self.rng.u64(1..down_ms);
        self.at(at, Event::Restart { node });
        self.note("crash");
    }

    /// Whether the server never lost a disk, or has it on disk that the present one counts.
    fn counts_itself(&self, node: usize) -> bool {
        let server = &self.servers[node];
        let knows = |manager: &OrderingManager| {
            manager.membership.counts(&server.id, &self.disk_id(node))
                && server.synced == server.disk.written.get()
        };
        server.disk_number == 0 || server.manager.as_ref().is_some_and(knows)
    }

    /// A disk is lost for good. Only one at a time: the next one when everybody who took all counts its successor, which knows
    /// it, too.
    fn wipe(&mut self, node: usize) {
        let latest = self.agreed.iter().rev().find_map(|entry| {
            let valid = entry.message_type == MessageType::Members;
            valid.then(|| entry.content.parse().ok()).flatten()
        });
        let latest = match latest {
            Some(MembersContent::Valid { members }) => Some(members),
            _ => {
                self.servers.iter().find_map(|s| s.manager.as_ref()?.membership.members().cloned())
            }
        };
        let Some(latest) = latest else { return };
        let repaired = (0..self.servers.len()).all(|node| {
            let voter = latest.voters.get(&self.servers[node].id);
            voter
                .is_none_or(|voter| voter.disk_id == self.disk_id(node) && self.counts_itself(node))
        });
        // The members must be known for good: someone took an entry.
        if !self.habits.wipes || !repaired || self.agreed.is_empty() {
            return;
        }
        self.crash(node);
        let server = &mut self.servers[node];
        if server.manager.is_none() {
            server.disk = Disk::default();
            server.disk_number += 1;
            server.synced = 0;
            self.note("wipe");
        }
    }
}
