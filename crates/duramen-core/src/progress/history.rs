//! The journal as a claim brings it, turned into what the handler must be given again.
//!
//! A reopened run (`retry`) keeps its journal whole: the `run_reopened` entry takes back everything
//! from its cause on. What was taken back is not lost: results of steps, events and approvals stay
//! as a memo by operation id and are recorded again when the handler asks for that operation, so
//! that no recorded step runs twice and no consumed event is missed.
//!
//! What steps told of their progress is for their next attempts alone. It is taken out here, so nothing
//! that the handler does depends on it, or on whether it still asks for that step.

use std::collections::{BTreeMap, VecDeque};

use super::divergence::{Divergence, Handler, Recorded};
use crate::ids::{OpId, Payload};
use crate::inbox::Slot;
use crate::journal::{BadEntry, Entry, Kind};

/// An entry with its place in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub index: u64,
    pub entry: Entry,
}

impl Placed {
    /// The journal's side of a difference.
    pub fn recorded(&self) -> Recorded {
        Recorded::Entry {
            kind: self.entry.kind,
            op: self.entry.op.to_string(),
        }
    }

    /// Here the code and the journal part.
    pub fn parts_from(&self, handler: Handler) -> Divergence {
        Divergence {
            index: self.index,
            recorded: self.recorded(),
            handler,
        }
    }
}

/// Entries still to be replayed, oldest first, and results that a reopening took back.
#[derive(Debug, Default)]
pub struct History {
    ahead: VecDeque<Placed>,
    /// Place and kind of the entry that was taken last.
    last: Option<(u64, Kind)>,
    memo: BTreeMap<OpId, Entry>,
    /// The last that each step told of its progress.
    told: BTreeMap<OpId, Payload>,
    /// Updates that a reopening took back, in the order in which they were accepted.
    updates: Vec<Entry>,
    /// The run was reopened before.
    was_reopened: bool,
    /// How many entries behind the first were gone through.
    replayed: u64,
    /// That all of them were has been taken note of.
    over: bool,
}

impl History {
    /// Reads a journal from its entry 0 on; an entry that cannot be read is named by its index.
    pub fn new(journal: Vec<Entry>) -> Result<Self, (u64, BadEntry)> {
        let mut ahead: VecDeque<Placed> = VecDeque::with_capacity(journal.len());
        let mut memo = BTreeMap::new();
        let mut told = BTreeMap::new();
        let mut updates = Vec::new();
        let mut was_reopened = false;
        for (index, entry) in (0..).zip(journal) {
            entry.check_readable().map_err(|error| (index, error))?;
            if entry.kind == Kind::StepProgress {
                told.insert(entry.op, entry.payload);
                continue;
            }
            if entry.kind == Kind::RunReopened {
                was_reopened = true;
                let meta = entry.meta().map_err(|error| (index, error))?;
                let cause = meta.cause.unwrap_or(index);
                take_back(&mut ahead, &mut memo, &mut updates, cause);
            }
            if entry.kind == Kind::UpdateAccepted && !updates.is_empty() {
                // It was applied again already.
                forget_update(&mut updates, &entry);
            }
            ahead.push_back(Placed { index, entry });
        }
        Ok(Self {
            ahead,
            memo,
            told,
            updates,
            was_reopened,
            ..Self::default()
        })
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

    /// Takes the first entry, which brings the input and tells the handler nothing.
    pub fn begin(&mut self) -> Option<Placed> {
        let placed = self.ahead.pop_front()?;
        self.last = Some((placed.index, placed.entry.kind));
        Some(placed)
    }

    /// Goes on by one entry.
    pub fn pop(&mut self) -> Option<Placed> {
        let placed = self.begin()?;
        self.replayed += 1;
        Some(placed)
    }

    /// Whether somebody has reopened the run.
    pub const fn was_reopened(&self) -> bool {
        self.was_reopened
    }

    /// How many entries were gone through, not counting the first.
    pub const fn replayed(&self) -> u64 {
        self.replayed
    }

    /// All entries were gone through; true when this is called first.
    pub const fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.over, true)
    }

    /// Place and kind of the entry that was taken last.
    pub const fn last(&self) -> Option<(u64, Kind)> {
        self.last
    }

    /// Whether what is still to be replayed, or was taken back, has an entry of this operation that fits.
    pub fn mentions(&self, op: &str, fits: impl Fn(Kind) -> bool) -> bool {
        let ahead = self.ahead.iter().map(|placed| &placed.entry);
        ahead
            .chain(self.memo.values())
            .any(|entry| *entry.op == *op && fits(entry.kind))
    }

    /// The last that a step told of its progress, in whichever attempt.
    pub fn told(&self, op: &str) -> Option<&Payload> {
        self.told.get(op)
    }

    /// A step tells of its progress.
    pub fn tell(&mut self, op: OpId, progress: Payload) {
        self.told.insert(op, progress);
    }

    /// Whether there are results that a reopening took back.
    pub fn has_memo(&self) -> bool {
        !self.memo.is_empty()
    }

    /// A result of this operation that a reopening took back, once, if it fits.
    pub fn recall(&mut self, op: &str, fits: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        if !fits(self.memo.get(op)?) {
            return None;
        }
        self.memo.remove(op)
    }

    /// The first update that a reopening took back, once, of those that `taker` has somebody for.
    pub fn recall_update(
        &mut self,
        taker: impl Fn(&Entry) -> Option<Slot>,
    ) -> Option<(Slot, Entry)> {
        let (at, slot) = self
            .updates
            .iter()
            .enumerate()
            .find_map(|(at, entry)| Some((at, taker(entry)?)))?;
        Some((slot, self.updates.remove(at)))
    }
}

/// Takes back the entries from `cause` on, and in any case the end of the run itself: with it no
/// code could ever go on. The newest result of an operation is the one that is kept as memo.
fn take_back(
    ahead: &mut VecDeque<Placed>,
    memo: &mut BTreeMap<OpId, Entry>,
    updates: &mut Vec<Entry>,
    cause: u64,
) {
    // Entry 0 is the run's input: there is nothing before it to go back to.
    let mut from = ahead.partition_point(|placed| placed.index < cause.max(1));
    while from > 1
        && matches!(
            ahead[from - 1].entry.kind,
            Kind::RunFailed | Kind::RunCancelled | Kind::RunTerminated
        )
    {
        from -= 1;
    }
    for placed in ahead.drain(from.min(ahead.len())..) {
        let is_result = match placed.entry.kind {
            Kind::UpdateAccepted => {
                updates.push(placed.entry);
                continue;
            }
            Kind::StepCompleted | Kind::EventReceived | Kind::ApprovalResolved => true,
            // What has failed is asked for again.
            Kind::ChildFinished => placed.entry.meta().is_ok_and(|meta| meta.ended.is_none()),
            _ => false,
        };
        if is_result {
            memo.insert(placed.entry.op.clone(), placed.entry);
        }
    }
}

/// The same update, by the message that brought it.
fn forget_update(updates: &mut Vec<Entry>, entry: &Entry) {
    let message = |entry: &Entry| entry.meta().ok().and_then(|meta| meta.message);
    let again = message(entry);
    updates.retain(|update| message(update) != again);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Payload;
    use crate::journal::{ENCODING, Meta};

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
        assert!(history.recall("c", |_| true).is_some());
        assert!(history.recall("c", |_| true).is_none());
        assert!(history.recall("event-1", |_| false).is_none());
        assert!(history.recall("event-1", |_| true).is_some());
        assert!(!history.has_memo());
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

    #[test]
    fn the_newest_result_of_an_operation_is_the_one_that_is_kept() {
        let result = |text: &'static str| {
            Entry::new(
                Kind::StepCompleted,
                "c".into(),
                Payload::from_static(text.as_bytes()),
                0,
            )
        };
        let mut history = History::new(vec![
            entry(Kind::RunCreated, ""),
            entry(Kind::StepFailed, "a"),
            result("old"),
            entry(Kind::RunFailed, ""),
            reopened(1),
            entry(Kind::StepFailed, "a"),
            result("new"),
            entry(Kind::RunFailed, ""),
            reopened(5),
        ])
        .unwrap();
        let memo = history.recall("c", |_| true).unwrap();
        assert_eq!(memo.payload, Payload::from_static(b"new"));
    }

    #[test]
    fn a_reopening_without_a_cause_takes_back_the_end_alone_and_never_the_input() {
        let history = History::new(vec![
            entry(Kind::RunCreated, ""),
            entry(Kind::StepCompleted, "a"),
            entry(Kind::RunTerminated, ""),
            entry(Kind::RunReopened, ""),
        ])
        .unwrap();
        assert_eq!(
            kinds(&history),
            [
                (0, Kind::RunCreated),
                (1, Kind::StepCompleted),
                (3, Kind::RunReopened)
            ]
        );
        let history = History::new(vec![entry(Kind::RunCreated, ""), reopened(0)]).unwrap();
        assert_eq!(
            kinds(&history),
            [(0, Kind::RunCreated), (1, Kind::RunReopened)]
        );
    }

    #[test]
    fn an_entry_of_a_newer_build_is_named_by_its_place() {
        let mut newer = entry(Kind::StepCompleted, "a");
        newer.encoding = ENCODING + 1;
        let read = History::new(vec![entry(Kind::RunCreated, ""), newer]);
        assert_eq!(
            read.unwrap_err(),
            (
                1,
                BadEntry::Newer {
                    found: ENCODING + 1
                }
            )
        );
    }
}
