//! What goes wrong, and how it is mended; what operators do meanwhile.

use super::*;

impl World {
    pub(super) fn fault(&mut self) -> Result<(), String> {
        let host = self.rng.usize(0..self.machines.len());
        let other = self.rng.usize(0..self.machines.len());
        match self.rng.u8(0..18) {
            0 | 1 => self.crash(host),
            2 => {
                let pause = self.rng.u64(50 * MS..800 * MS);
                self.machines[host].asleep_until = self.now + pause;
                self.count("sleep");
            }
            3 => self.wipe(host),
            4 | 5 => self.split(),
            6 => {
                self.cut.insert((host, other));
                self.plan(400 * MS, Event::Heal { everything: false });
                self.count("one-way cut");
            }
            7 => {
                self.connect_anew(host, other);
                self.count("reset");
            }
            8 | 9 => return self.compact(host),
            10 => return self.transfer(host, other),
            11 | 12 => self.doomed = Some(host),
            13 | 14 => return self.ambush(host, other),
            15 if host != other => return self.seesaw(host, other, 8),
            _ => {
                self.change(other)?;
                if self.rng.bool() {
                    // An operator who does not wait.
                    let third = self.rng.usize(0..self.machines.len());
                    return self.change(third);
                }
            }
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, host: usize) {
        let pause = if self.rng.bool() { 20 * MS } else { 1_000 * MS };
        self.crash_for(host, pause);
    }

    /// The server stops at once, and starts again after `down_max` at the latest.
    pub(super) fn crash_for(&mut self, host: usize, down_max: u64) {
        if self.machines[host].node.take().is_none() {
            return;
        }
        let lost = self.machines[host].disk.crash(&mut self.rng);
        for peer in (0..self.machines.len()).filter(|peer| *peer != host) {
            let (epoch, pause) = (self.epoch(peer, host), self.rng.u64(0..10 * MS));
            self.plan(pause, Event::LinkDown { host: peer, peer: host, epoch });
        }
        // Its timers end, and no answer reaches this life.
        self.machines[host].life += 1;
        self.count("crash");
        if lost > 0 {
            self.count("lost tail");
        }
        let pause = self.rng.u64(MS..down_max);
        self.plan(pause, Event::Restart { host });
    }

    /// Whether a majority of `configuration` is on the disks that it names, that of `except` not counted.
    pub(super) fn survives(&self, configuration: &Configuration, except: Option<usize>) -> bool {
        configuration.voters.is_empty()
            || configuration.is_majority(|node_id| {
                let mut machines = self.machines.iter().enumerate();
                machines.any(|(at, machine)| {
                    let disk = configuration.voters.get(node_id);
                    machine.id == *node_id && disk == Some(&machine.disk.name) && Some(at) != except
                })
            })
    }

    /// Whether Raft can bear that the machine loses its disk: it promises nothing when majorities are gone.
    pub(super) fn may_wipe(&self, host: usize) -> bool {
        let mut known = self.machines.iter().map(|machine| &machine.configuration);
        let broken = |configuration: &Configuration| {
            // A learner may become a voter before anybody finds out that its disk is gone.
            let mut later = configuration.clone();
            let learners = configuration.learners.iter();
            later.voters.extend(learners.map(|(id, learner)| (id.clone(), learner.disk.clone())));
            !self.survives(configuration, Some(host)) || !self.survives(&later, Some(host))
        };
        !known.any(broken) && self.can_elect_without(host)
    }

    /// Whether somebody can be elected without the machine `except`. While the members change, a majority of each
    /// configuration is not enough: a server that only a later one counts may hold more than those that do know that one.
    fn can_elect_without(&self, except: usize) -> bool {
        let left = || self.machines.iter().enumerate().filter(move |(at, _)| *at != except);
        left().any(|(_, one)| {
            let grants = |node_id: &NodeId| {
                let disk = one.configuration.voters.get(node_id);
                left().any(|(_, other)| {
                    other.id == *node_id && disk == Some(&other.disk.name) && other.end <= one.end
                })
            };
            grants(&one.id) && one.configuration.is_majority(grants)
        })
    }

    pub(super) fn wipe(&mut self, host: usize) {
        if self.may_wipe(host) {
            self.crash(host);
            self.forget_disk(host);
            self.count("wipe");
        }
    }

    pub(super) fn forget_disk(&mut self, host: usize) {
        let machine = &mut self.machines[host];
        machine.disk = Disk::new(format!("{}-{}", machine.id, machine.life));
        machine.configuration = Configuration::default();
        machine.end = (None, 0);
    }

    pub(super) fn split(&mut self) {
        let side = self.rng.u64(..);
        let of = |host: usize| side >> host & 1;
        for a in 0..self.machines.len() {
            for b in 0..self.machines.len() {
                if of(a) != of(b) {
                    self.cut.insert((a, b));
                }
            }
        }
        let pause = self.rng.u64(200 * MS..1_500 * MS);
        self.plan(pause, Event::Heal { everything: false });
        self.count("cut");
    }

    pub(super) fn heal(&mut self, everything: bool) -> Result<(), String> {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.connect_anew(a, b);
        }
        if everything {
            for host in 0..self.machines.len() {
                self.machines[host].asleep_until = 0;
                if self.machines[host].node.is_none() {
                    self.start(host)?;
                }
                for peer in host + 1..self.machines.len() {
                    self.connect_anew(host, peer);
                }
            }
        }
        Ok(())
    }

    pub(super) fn compact(&mut self, host: usize) -> Result<(), String> {
        // One that sleeps does nothing.
        if self.machines[host].asleep_until > self.now {
            return Ok(());
        }
        let state = self.machines[host].state;
        let mut did = false;
        let make = Box::new(move || state.to_bytes());
        self.step(host, |node, step| did = node.compact(state.seq, make, step))?;
        if did {
            self.count("compaction");
        }
        Ok(())
    }

    pub(super) fn transfer(&mut self, host: usize, to: usize) -> Result<(), String> {
        let to = self.machines[to].id.clone();
        let leads = |machine: &Machine| machine.node.as_ref().is_some_and(RaftNode::is_leader);
        if !self.machines.iter().any(leads) {
            return Ok(());
        }
        self.count("transfer");
        for host in 0..self.machines.len() {
            self.step(host, |node, step| _ = node.transfer_leadership(&to, step))?;
        }
        if self.rng.bool() {
            self.step(host, TotalOrder::resign)?;
        }
        Ok(())
    }

    pub(super) fn change(&mut self, other: usize) -> Result<(), String> {
        let (node_id, disk) =
            (self.machines[other].id.clone(), self.machines[other].disk.name.clone());
        for host in 0..self.machines.len() {
            let configuration = self.machines[host].configuration.clone();
            let (change, what) = if configuration.disk_of(&node_id).is_none() {
                let (node_id, disk) = (node_id.clone(), disk.clone());
                (MembershipChange::AddLearner { node_id, disk, promote: true }, "learner added")
            } else {
                let mut without = configuration;
                without.voters.remove(&node_id);
                // Nobody takes away what a wiped voter's majority still needs.
                if without.voters.len() < 2 || !self.survives(&without, None) {
                    continue;
                }
                (MembershipChange::Remove { node_id: node_id.clone() }, "server removed")
            };
            let mut did = false;
            self.step(host, |node, step| did = node.change_membership(&change, step).is_ok())?;
            if did {
                self.count(what);
            }
        }
        Ok(())
    }
}
