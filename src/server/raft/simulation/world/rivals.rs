//! Elections at the worst moments: rivals that do not hear each other, leaders that are gone before they have done
//! anything, and storms, which bring about Figure 8. In some storms operators change the members at every turn.
//!
//! ```text
//!   a turn      s1 stands, all vote    s1 leads, s2 and s3 hear it    s1 crashes: as it commits, or when s5's turn comes
//! ```

use super::*;

/// A leader of a storm, and who hears it.
#[derive(Debug)]
pub(super) struct Turn {
    leader: usize,
    hearers: BTreeSet<usize>,
}

impl World {
    /// Stands without asking first, as if the leader had told it to.
    pub(super) fn stand(&mut self, host: usize) -> Result<(), String> {
        self.step(host, |node, step| {
            if node.is_own_voter() && !node.is_leader() {
                node.stand(true, step);
            }
        })
    }

    /// Two stand that do not hear each other, at once or one after the other, while a voter crashes as it writes.
    pub(super) fn ambush(&mut self, host: usize, other: usize) -> Result<(), String> {
        self.count("rivals");
        self.cut.extend([(host, other), (other, host)]);
        self.plan(400 * MS, Event::Heal { everything: false });
        let voter = self.rng.usize(0..self.machines.len());
        self.doomed = Some(voter).filter(|voter| *voter != host && *voter != other);
        let pause = self.rng.u64(0..=2 * self.weather.delay_max + 20 * MS);
        self.plan(pause, Event::Stand { host: other });
        self.stand(host)
    }

    /// Two candidates in turn, each with everybody but the other, and hardly time to do anything: Figure 8.
    pub(super) fn seesaw(&mut self, up: usize, down: usize, left: u32) -> Result<(), String> {
        if left == 0 || self.now >= FAULTS_END {
            return self.heal(false);
        }
        self.count("see-saw");
        self.cut.clear();
        for other in 0..self.machines.len() {
            self.connect_anew(up, other);
            if other != down {
                self.connect_anew(down, other);
                self.cut.extend([(down, other), (other, down)]);
            }
        }
        let pause = self.rng.u64(0..=6 * self.weather.delay_max + 2 * self.weather.sync_max);
        self.plan(pause + MS, Event::Seesaw { up: down, down: up, left: left - 1 });
        self.stand(up)
    }

    pub(super) fn cut_off(&mut self, host: usize) {
        for other in (0..self.machines.len()).filter(|other| *other != host) {
            self.cut.extend([(host, other), (other, host)]);
        }
        let pause = self.rng.u64(200 * MS..900 * MS);
        self.plan(pause, Event::Heal { everything: false });
        self.count("short reign");
    }

    /// A storm: one of two rivals, or now and then anyone, stands while everybody hears everybody. Whoever led before is
    /// cut off from then on, or crashes.
    pub(super) fn next_turn(&mut self) -> Result<(), String> {
        if self.now >= FAULTS_END {
            self.turn = None;
            return Ok(());
        }
        self.count("turn");
        let pause = self.rng.u64(0..=8 * self.weather.delay_max + 4 * self.weather.sync_max);
        self.plan(pause + 2 * MS, Event::Turn);
        for (a, b) in std::mem::take(&mut self.cut) {
            self.connect_anew(a, b);
        }
        if let Some(last) = self.turn.take().filter(|_| self.rng.bool()) {
            self.crash_for(last.leader, 20 * MS);
        }
        let leader =
            if self.rng.u8(0..4) == 0 { self.rng.usize(0..5) } else { 4 * self.rng.usize(0..2) };
        if self.machines[leader].node.is_none() {
            self.start(leader)?;
        }
        let hearers = (0..self.rng.usize(0..=2)).map(|_| self.rng.usize(0..5)).collect();
        self.turn = Some(Turn { leader, hearers });
        self.stand(leader)
    }

    /// The leader of the turn was elected: from now on only its hearers hear it. What the others say still arrives.
    pub(super) fn few_hear(&mut self, host: usize) {
        let on = self.now < FAULTS_END;
        let Some(turn) = self.turn.as_ref().filter(|turn| on && turn.leader == host) else {
            return;
        };
        let others = (0..self.machines.len()).filter(|other| !turn.hearers.contains(other));
        self.cut.extend(others.map(|other| (host, other)));
        if self.weather.meddlers {
            let pause = self.rng.u64(0..=self.weather.delay_max);
            self.plan(pause, Event::Meddle);
        }
    }

    /// Operators take two servers out, or let them in again, at whoever leads, and wait for nothing.
    pub(super) fn meddle(&mut self) -> Result<(), String> {
        self.count("meddlers");
        for _ in 0..2 {
            let other = self.rng.usize(0..self.machines.len());
            self.change(other)?;
        }
        Ok(())
    }

    /// Whether the leader of the turn, which has just committed something, dies of it before it tells anybody.
    pub(super) fn ends_a_turn(&mut self, host: usize) -> bool {
        let leads = self.turn.as_ref().is_some_and(|turn| turn.leader == host);
        leads && self.now < FAULTS_END && self.rng.bool()
    }
}
