//! Where each entry of the journal stands: staged, on its way, or durable.
//!
//! The durability barrier: an operation may take effect once every *hard* entry that stood in the
//! journal when it was requested is durable. *Light* entries (recorded values, lazily checkpointed
//! steps) are derived or may be repeated, so no effect waits for them: they ride along.

use crate::journal::Entry;
use crate::store::StreamWrite;

/// Entries, and what streams get with them.
pub type Staged = (Vec<Entry>, Vec<StreamWrite>);

/// The tail of one run's journal.
#[derive(Debug, Default)]
pub struct Ledger {
    staged: Vec<Entry>,
    /// What streams get with them.
    written: Vec<StreamWrite>,
    len: u64,
    durable: u64,
    barrier: u64,
    in_flight: Option<u64>,
}

/// What an entry costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Must be durable before the next effect.
    Hard,
    /// Rides along with the next commit.
    Light,
}

impl Ledger {
    /// A journal of which `len` entries are durable.
    pub fn new(len: u64) -> Self {
        Self {
            len,
            durable: len,
            barrier: len,
            ..Self::default()
        }
    }

    /// Gives an entry its place in the journal.
    pub fn append(&mut self, entry: Entry, weight: Weight) -> u64 {
        let index = self.len;
        self.staged.push(entry);
        self.len += 1;
        if weight == Weight::Hard {
            self.barrier = self.len;
        }
        index
    }

    /// An item of a stream goes out with the entry that was appended last.
    pub fn write(&mut self, item: StreamWrite) {
        self.written.push(item);
    }

    /// The index that the next entry will get.
    pub const fn journal_len(&self) -> u64 {
        self.len
    }

    /// How many entries are durable.
    pub const fn durable_len(&self) -> u64 {
        self.durable
    }

    /// What must be durable before an operation requested now takes effect: this many entries.
    pub const fn barrier(&self) -> u64 {
        self.barrier
    }

    /// Whether entries are staged that some effect or reader waits for.
    pub const fn has_hard(&self) -> bool {
        // A barrier beyond what is durable or on its way lies among the staged entries.
        let under_way = match self.in_flight {
            Some(upto) => upto,
            None => self.durable,
        };
        self.barrier > under_way
    }

    pub const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Takes what is staged for a commit, with the journal length that the commit expects.
    pub fn take(&mut self) -> (u64, Staged) {
        let expected = self.durable;
        self.in_flight = Some(self.len);
        let entries = std::mem::take(&mut self.staged);
        (expected, (entries, std::mem::take(&mut self.written)))
    }

    /// A copy of what is staged, with the length of the journal before it.
    pub fn not_durable(&self) -> (u64, Staged) {
        (self.durable, (self.staged.clone(), self.written.clone()))
    }

    /// What is in the journal and on no commit yet.
    #[cfg(test)]
    pub(crate) fn staged(&self) -> &[Entry] {
        &self.staged
    }

    /// The commit took place.
    pub const fn applied(&mut self) {
        if let Some(upto) = self.in_flight.take() {
            self.durable = upto;
        }
    }

    /// The commit was refused: the journal ends where it ended before.
    pub fn rolled_back(&mut self) {
        self.in_flight = None;
        self.staged.clear();
        self.written.clear();
        self.len = self.durable;
        self.barrier = self.durable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Payload;
    use crate::journal::Kind;

    fn entry() -> Entry {
        Entry::new(Kind::StepCompleted, "a".into(), Payload::new(), 0)
    }

    #[test]
    fn an_effect_waits_for_the_hard_entries_before_it_and_for_no_later_one() {
        let mut ledger = Ledger::new(1);
        ledger.append(entry(), Weight::Hard);
        let barrier = ledger.barrier();
        assert!(ledger.durable_len() < barrier);
        assert_eq!(ledger.take().0, 1);
        ledger.append(entry(), Weight::Hard);
        ledger.applied();
        assert!(ledger.durable_len() >= barrier);
        assert!(ledger.durable_len() < ledger.barrier());
        assert_eq!(ledger.take().0, 2);
    }

    #[test]
    fn a_light_entry_holds_nothing_up() {
        let mut ledger = Ledger::new(1);
        ledger.append(entry(), Weight::Light);
        assert!(ledger.durable_len() >= ledger.barrier());
        assert!(!ledger.has_hard());
        ledger.append(entry(), Weight::Hard);
        assert!(ledger.has_hard());
        assert_eq!(ledger.take().1.0.len(), 2);
        assert!(!ledger.has_hard());
        assert!(ledger.is_in_flight());
    }
}
