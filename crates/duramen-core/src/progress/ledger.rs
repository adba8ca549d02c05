//! Where each entry of the journal stands: staged, on its way, or durable.
//!
//! The durability barrier: an operation may take effect once every *hard* entry that stood in the
//! journal when it was requested is durable. *Light* entries (recorded values, lazily checkpointed
//! steps) are derived or may be repeated, so no effect waits for them: they ride along.

use crate::journal::Entry;
use crate::store::{Outgoing, StreamWrite};

/// The tail of one run's journal.
#[derive(Debug, Default)]
pub struct Ledger {
    staged: Vec<Entry>,
    /// What leaves the run with staged entries, each with the index of its own.
    leaving: Vec<(u64, Outgoing)>,
    /// What streams get with them, likewise.
    written: Vec<(u64, StreamWrite)>,
    len: u64,
    durable: u64,
    barrier: u64,
    in_flight: Option<u64>,
}

/// What a commit takes from here.
#[derive(Debug)]
pub struct Taken {
    /// The length of the journal before it.
    pub expected: u64,
    pub entries: Vec<Entry>,
    pub outgoing: Vec<Outgoing>,
    pub written: Vec<StreamWrite>,
}

/// So many items leave a run, or go to its streams, with one commit: a parent of thousands is no single huge one.
const MOST_LEAVING: usize = 1_000;

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

    /// The same for an entry with which something leaves the run: as soon as it is durable, and never before.
    pub fn append_sending(&mut self, entry: Entry, item: Outgoing) -> u64 {
        let index = self.append(entry, Weight::Hard);
        self.leaving.push((index, item));
        index
    }

    /// An item of a stream goes out with the entry that was appended last.
    pub fn write(&mut self, item: StreamWrite) {
        self.written.push((self.len.saturating_sub(1), item));
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

    /// Takes what is staged for a commit.
    pub fn take(&mut self) -> Taken {
        self.take_until(self.len)
    }

    /// Whether more goes out with entries than one commit should have.
    pub const fn is_crowded(&self) -> bool {
        self.leaving.len() > MOST_LEAVING || self.written.len() > MOST_LEAVING
    }

    /// Takes as much as one commit should have; the rest stays staged.
    pub fn take_part(&mut self) -> Taken {
        let leaving = self.leaving.get(MOST_LEAVING).map(|(index, _)| *index);
        let written = self.written.get(MOST_LEAVING).map(|(index, _)| *index);
        let first_left = leaving.into_iter().chain(written).min();
        self.take_until(first_left.unwrap_or(self.len))
    }

    fn take_until(&mut self, end: u64) -> Taken {
        let expected = self.durable;
        self.in_flight = Some(end);
        let count = usize::try_from(end.saturating_sub(expected)).unwrap_or(usize::MAX);
        let left = self.staged.split_off(count.min(self.staged.len()));
        Taken {
            expected,
            entries: std::mem::replace(&mut self.staged, left),
            outgoing: before(&mut self.leaving, end),
            written: before(&mut self.written, end),
        }
    }

    /// A copy of what is staged.
    pub fn not_durable(&self) -> Taken {
        Taken {
            expected: self.durable,
            entries: self.staged.clone(),
            outgoing: self.leaving.iter().map(|(_, item)| item.clone()).collect(),
            written: self.written.iter().map(|(_, item)| item.clone()).collect(),
        }
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
        self.leaving.clear();
        self.written.clear();
        self.len = self.durable;
        self.barrier = self.durable;
    }
}

/// What goes out with the entries before `end`.
fn before<T>(items: &mut Vec<(u64, T)>, end: u64) -> Vec<T> {
    let later = items.split_off(items.partition_point(|(index, _)| *index < end));
    let taken = std::mem::replace(items, later);
    taken.into_iter().map(|(_, item)| item).collect()
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
        assert_eq!(ledger.take().expected, 1);
        ledger.append(entry(), Weight::Hard);
        ledger.applied();
        assert!(ledger.durable_len() >= barrier);
        assert!(ledger.durable_len() < ledger.barrier());
        assert_eq!(ledger.take().expected, 2);
    }

    #[test]
    fn a_light_entry_holds_nothing_up() {
        let mut ledger = Ledger::new(1);
        ledger.append(entry(), Weight::Light);
        assert!(ledger.durable_len() >= ledger.barrier());
        assert!(!ledger.has_hard());
        ledger.append(entry(), Weight::Hard);
        assert!(ledger.has_hard());
        assert_eq!(ledger.take().entries.len(), 2);
        assert!(!ledger.has_hard());
        assert!(ledger.is_in_flight());
    }

    fn item() -> Outgoing {
        Outgoing {
            kind: crate::store::OutgoingKind::Start,
            target: "child".into(),
            body: Payload::new(),
        }
    }

    #[test]
    fn what_leaves_goes_with_its_entry_and_in_parts_when_it_is_much() {
        let mut ledger = Ledger::new(1);
        ledger.append(entry(), Weight::Hard);
        for _ in 0..=MOST_LEAVING {
            ledger.append_sending(entry(), item());
        }
        ledger.append(entry(), Weight::Hard);
        assert!(ledger.is_crowded());
        let first = ledger.take_part();
        let sizes = (first.entries.len(), first.outgoing.len());
        assert_eq!(sizes, (1 + MOST_LEAVING, MOST_LEAVING));
        assert!(ledger.has_hard() && ledger.is_in_flight());
        ledger.applied();
        assert!(!ledger.is_crowded());
        let rest = ledger.take_part();
        assert_eq!((rest.entries.len(), rest.outgoing.len()), (2, 1));
        assert_eq!(rest.expected, 2 + MOST_LEAVING as u64);
        assert!(!ledger.has_hard());
    }

    #[test]
    fn what_was_to_leave_with_a_refused_commit_does_not() {
        let mut ledger = Ledger::new(1);
        ledger.append_sending(entry(), item());
        assert_eq!(ledger.not_durable().outgoing.len(), 1);
        ledger.rolled_back();
        ledger.append(entry(), Weight::Hard);
        assert!(ledger.take().outgoing.is_empty());
    }
}
