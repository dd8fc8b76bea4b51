//! Who can have heard from whom, at the best: as far as cuts and lives of servers let word through.
//!
//! ```text
//!   n3 is cut off at 5 s; it is 9 s:         of n1    of n2    of n3
//!                                     n1      9 s      9 s      5 s
//!                                     n2      9 s      9 s      5 s
//!                                     n3      5 s      5 s      9 s
//! ```
//!
//! What was written at 6 s can have been committed by n1 and n2, and n3 cannot know. Should it acknowledge that
//! message, it has not waited for a majority. Word goes from server to server at once and by any way that is not
//! cut, so a server knows as much as is written here at the most: whoever is accused is guilty. Leaves out: clients, who
//! carry messages from one side to the other, but no acknowledgements.

use super::agenda::{Host, Micros};

/// How new each server's word of each other one can be.
#[derive(Debug)]
pub(super) struct Heard {
    servers: usize,
    /// The latest word that `at` can have of `from`: `at * servers + from`.
    word: Vec<Micros>,
}

impl Heard {
    /// `servers` servers at time 0.
    pub(super) fn new(servers: usize) -> Self {
        Self { servers, word: vec![0; servers * servers] }
    }

    /// Lets word go around until `now`. `awake` and `is_cut` have been as they are since the last time. A server that is
    /// not awake says and hears nothing new; what it said before may still arrive.
    pub(super) fn advance(
        &mut self,
        now: Micros,
        awake: impl Fn(Host) -> bool,
        is_cut: impl Fn(Host, Host) -> bool,
    ) {
        let n = self.servers;
        for at in (0..n).filter(|at| awake(*at)) {
            self.word[at * n + at] = now;
        }
        // The longest way has n - 1 legs.
        for _ in 1..n {
            for at in (0..n).filter(|at| awake(*at)) {
                for from in (0..n).filter(|from| !is_cut(*from, at)) {
                    for of in 0..n {
                        let told = self.word[from * n + of];
                        self.word[at * n + of] = told.max(self.word[at * n + of]);
                    }
                }
            }
        }
    }

    /// Whether `at` can know what a majority, itself perhaps among it, did at `since` or later.
    pub(super) fn of_majority(&self, at: Host, since: Micros) -> bool {
        let words = &self.word[at * self.servers..(at + 1) * self.servers];
        words.iter().filter(|word| **word >= since).count() > self.servers / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_cut_off_knows_only_what_was_before() {
        let mut heard = Heard::new(3);
        heard.advance(5, |_| true, |_, _| false);
        heard.advance(9, |_| true, |from, to| (from == 2) != (to == 2));
        assert!(heard.of_majority(2, 5) && !heard.of_majority(2, 6));
        assert!(heard.of_majority(0, 9) && heard.of_majority(1, 9));
        heard.advance(9, |_| true, |_, _| false);
        assert!(heard.of_majority(2, 9), "it is whole again");
    }

    #[test]
    fn word_goes_by_other_servers_and_one_way() {
        let mut heard = Heard::new(3);
        // Only 0 -> 1 -> 2.
        heard.advance(7, |_| true, |from, to| to != from + 1);
        assert!(heard.of_majority(2, 7) && heard.of_majority(1, 7) && !heard.of_majority(0, 1));
    }

    #[test]
    fn who_sleeps_hears_nothing_and_says_nothing_new() {
        let mut heard = Heard::new(3);
        heard.advance(5, |_| true, |_, _| false);
        heard.advance(9, |host| host == 0, |_, _| false);
        assert!(heard.of_majority(0, 5) && !heard.of_majority(0, 6));
        assert!(!heard.of_majority(1, 6));
    }
}
