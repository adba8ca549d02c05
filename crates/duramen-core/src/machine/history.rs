//! The journal as a claim brings it, turned into what the handler must be given again.
//!
//! A reopened run (`retry`) keeps its journal whole: the `run_reopened` entry takes back everything
//! from its cause on. What was taken back is not lost: results of steps, events and approvals stay
//! as a memo by operation id and are recorded again when the handler asks for that operation, so
//! that no recorded step runs twice and no consumed event is missed.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::OpId;
use crate::journal::{BadEntry, Entry, Kind};

/// An entry with its place in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub index: u64,
    pub entry: Entry,
}

/// Entries still to be replayed, oldest first, and results that a reopening took back.
#[derive(Debug, Default)]
pub struct History {
    ahead: VecDeque<Placed>,
    memo: BTreeMap<OpId, Entry>,
}

impl History {
    /// Reads a journal from its entry 0 on.
    pub fn new(journal: Vec<Entry>) -> Result<Self, BadEntry> {
        let mut ahead: VecDeque<Placed> = VecDeque::with_capacity(journal.len());
        let mut memo = BTreeMap::new();
        for (index, entry) in (0..).zip(journal) {
            if entry.kind == Kind::RunReopened
                && let Some(cause) = entry.meta()?.cause
            {
                while ahead.back().is_some_and(|placed| placed.index >= cause) {
                    let Some(placed) = ahead.pop_back() else {
                        break;
                    };
                    if matches!(
                        placed.entry.kind,
                        Kind::StepCompleted | Kind::EventReceived | Kind::ApprovalResolved
                    ) {
                        // Going backwards, the newest result of an operation is met first.
                        memo.entry(placed.entry.op.clone()).or_insert(placed.entry);
                    }
                }
            }
            ahead.push_back(Placed { index, entry });
        }
        Ok(Self { ahead, memo })
    }

    pub fn is_empty(&self) -> bool {
        self.ahead.is_empty()
    }

    pub fn len(&self) -> usize {
        self.ahead.len()
    }

    pub fn front(&self) -> Option<&Placed> {
        self.ahead.front()
    }

    pub fn pop(&mut self) -> Option<Placed> {
        self.ahead.pop_front()
    }

    /// A result of this operation that a reopening took back, once.
    pub fn recall(&mut self, op: &str, kind: Kind) -> Option<Entry> {
        if self.memo.get(op)?.kind != kind {
            return None;
        }
        self.memo.remove(op)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Payload;
    use crate::journal::Meta;

    fn entry(kind: Kind, op: &str) -> Entry {
        Entry::new(kind, op.into(), Payload::new(), 0)
    }

    fn reopened(cause: u64) -> Entry {
        entry(Kind::RunReopened, "").with_meta(&Meta {
            cause: Some(cause),
            ..Meta::default()
        })
    }

    fn kinds(history: &History) -> Vec<(u64, Kind)> {
        history
            .ahead
            .iter()
            .map(|placed| (placed.index, placed.entry.kind))
            .collect()
    }

    #[test]
    fn a_reopening_takes_back_everything_from_its_cause_on_and_keeps_results_as_a_memo() {
        let mut history = History::new(vec![
            entry(Kind::RunCreated, ""),
            entry(Kind::StepCompleted, "a"),
            entry(Kind::StepFailed, "b"),
            entry(Kind::StepCompleted, "c"),
            entry(Kind::EventReceived, "event-1"),
            entry(Kind::RunFailed, ""),
            reopened(2),
            entry(Kind::StepCompleted, "b"),
        ])
        .unwrap();
        assert_eq!(
            kinds(&history),
            [
                (0, Kind::RunCreated),
                (1, Kind::StepCompleted),
                (6, Kind::RunReopened),
                (7, Kind::StepCompleted)
            ]
        );
        assert!(history.recall("c", Kind::StepCompleted).is_some());
        assert!(history.recall("c", Kind::StepCompleted).is_none());
        assert!(history.recall("event-1", Kind::StepCompleted).is_none());
        assert!(history.recall("event-1", Kind::EventReceived).is_some());
    }

    #[test]
    fn a_second_reopening_may_take_back_the_first() {
        let history = History::new(vec![
            entry(Kind::RunCreated, ""),
            entry(Kind::StepFailed, "a"),
            entry(Kind::RunFailed, ""),
            reopened(1),
            entry(Kind::StepFailed, "a"),
            entry(Kind::RunFailed, ""),
            reopened(4),
        ])
        .unwrap();
        assert_eq!(
            kinds(&history),
            [
                (0, Kind::RunCreated),
                (3, Kind::RunReopened),
                (6, Kind::RunReopened)
            ]
        );
    }
}
