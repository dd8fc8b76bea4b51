//! The servers that a client knows, and which one is tried next.

/// Most addresses that are remembered; a cluster that names more is believed up to here.
const ADDRESSES_MAX: usize = 64;

/// Addresses (`host:port`) tried in turn, round and round. Never forgets one: a server that is gone may return.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    list: Vec<String>,
    /// Index of the one that is tried next.
    next: usize,
}

impl Addresses {
    /// Adds those of `more` that are new, behind the others. Beyond the limit they are ignored.
    pub fn learn<'a>(&mut self, more: impl IntoIterator<Item = &'a str>) {
        for address in more {
            let known = self.list.iter().any(|old| old == address);
            if !known && !address.is_empty() && self.list.len() < ADDRESSES_MAX {
                self.list.push(address.into());
            }
        }
    }

    /// The next one to try, and the turn passes on; `None` when none is known.
    pub fn take_turn(&mut self) -> Option<String> {
        let index = self.next % self.list.len().max(1);
        let address = self.list.get(index)?.clone();
        // Not wrapped yet: who is learned before the next turn comes before those tried already.
        self.next = index + 1;
        Some(address)
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All that are known, in the order learned.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_turn_and_newcomers_are_included() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.take_turn(), None);
        addresses.learn(["a", "b", "a", ""]);
        assert_eq!(addresses.take_turn().as_deref(), Some("a"));
        addresses.learn(["c"]);
        let turns: Vec<_> = (0..4).filter_map(|_| addresses.take_turn()).collect();
        assert_eq!(turns, ["b", "c", "a", "b"]);
        assert_eq!(addresses.len(), 3);
    }

    #[test]
    fn a_newcomer_comes_before_the_only_one_that_was_tried() {
        let mut addresses = Addresses::default();
        addresses.learn(["a"]);
        addresses.take_turn();
        addresses.learn(["b"]);
        assert_eq!(addresses.take_turn().as_deref(), Some("b"));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded() {
        let mut addresses = Addresses::default();
        let flood: Vec<String> = (0..1000).map(|n| format!("h:{n}")).collect();
        addresses.learn(flood.iter().map(String::as_str));
        assert_eq!(addresses.len(), ADDRESSES_MAX);
    }
}
