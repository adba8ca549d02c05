//! The table of open operations: what the handler asked for and has not been told yet.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::looks::Looks;
use crate::ids::{Millis, OpId, Payload};
use crate::inbox::Slot;
use crate::retry::RetryPolicy;

/// How a step's result is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// Durable before the next effect.
    Durable,
    /// With the next durable commit; the step may run again after a crash.
    Lazy,
    /// In a transaction of the user's own, which the step's function runs in.
    Sealed,
}

/// One open operation.
#[derive(Debug)]
pub struct Op {
    pub id: OpId,
    /// What must be durable before it takes effect.
    pub barrier: u64,
    pub kind: OpKind,
    /// When it fires, times out, or is tried again.
    pub(crate) deadline: Option<Millis>,
}

#[derive(Debug)]
pub enum OpKind {
    Step {
        retry: RetryPolicy,
        checkpoint: Checkpoint,
        /// Attempts that have failed so far.
        failed: u32,
        phase: StepPhase,
        /// Of a poll: when it looks.
        looks: Option<Looks>,
    },
    Timer,
    Event {
        key: Arc<str>,
    },
    Approval {
        key: Arc<str>,
        request: Payload,
    },
    /// The end of a child.
    Child {
        key: Arc<str>,
        /// Which life of that run's id is meant.
        life: String,
    },
    /// Takes the updates of a name, for as long as the handler runs.
    Updates {
        key: Arc<str>,
    },
    /// An update that was taken on and is being applied.
    Update {
        /// The id of the message that brought it.
        message: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepPhase {
    /// Asked for; starts when the barrier is reached.
    Requested,
    Running,
    /// An attempt failed; the next is due at the operation's deadline.
    Backoff,
    /// Its result has arrived and waits to be given its place in the journal.
    Arrived,
    /// It has failed for good, and the run is to be paused for it.
    Exhausted,
}

/// What stands in front of a step's id in the wait key of one that has failed for good.
pub const EXHAUSTED: &str = "exhausted:";

/// The wait key of every timer.
pub(crate) const TIMER_KEY: &str = "timer";

impl OpKind {
    /// The word for differences.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Step { .. } => "a step",
            Self::Timer => "a timer",
            Self::Event { .. } => "a wait for an event",
            Self::Approval { .. } => "an approval",
            Self::Child { .. } => "a child",
            Self::Updates { .. } => "updates by",
            Self::Update { .. } => "the end of an update",
        }
    }

    /// The key under which the store lists it as a wait; none for steps, and for updates that are applied.
    pub fn wait_key(&self) -> Option<&str> {
        match self {
            Self::Step { .. } | Self::Update { .. } => None,
            Self::Timer => Some(TIMER_KEY),
            Self::Event { .. }
            | Self::Approval { .. }
            | Self::Child { .. }
            | Self::Updates { .. } => self.message_key().map(|key| &**key),
        }
    }

    /// The key of the messages that end it, or that it takes; none if no message does.
    pub(crate) const fn message_key(&self) -> Option<&Arc<str>> {
        match self {
            Self::Step { .. } | Self::Timer | Self::Update { .. } => None,
            Self::Event { key }
            | Self::Approval { key, .. }
            | Self::Child { key, .. }
            | Self::Updates { key } => Some(key),
        }
    }
}

/// Open operations by slot and by id, and their deadlines in order.
///
/// Whatever a pause or a turn asks for is kept up to date operation by operation: no answer may
/// cost a walk over all that is open, or a run with many waits would be quadratic.
#[derive(Debug, Default)]
pub struct Ops {
    table: BTreeMap<Slot, Op>,
    by_id: BTreeMap<OpId, Slot>,
    deadlines: BTreeSet<(Millis, Slot)>,
    /// Waits that the journal does not show yet.
    unopened: BTreeSet<Slot>,
    /// How many waits of each key are open.
    keys: BTreeMap<Arc<str>, u32>,
    timers: u32,
    /// Steps between two attempts.
    retrying: BTreeSet<Slot>,
    /// Steps that have none left, for which the run is paused.
    exhausted: BTreeSet<Slot>,
    /// Steps that look until they find something.
    polls: BTreeSet<Slot>,
    next: Slot,
    /// How many operations were gone through in walks, so that tests can show that walks are rare.
    #[cfg(test)]
    pub(crate) walked: std::cell::Cell<u64>,
}

impl Ops {
    pub fn open(&mut self, id: OpId, barrier: u64, kind: OpKind, deadline: Option<Millis>) -> Slot {
        let slot = self.next;
        self.next += 1;
        match &kind {
            OpKind::Step { looks, .. } => {
                if looks.is_some() {
                    self.polls.insert(slot);
                }
            }
            OpKind::Update { .. } => {}
            OpKind::Timer => self.timers += 1,
            OpKind::Event { key }
            | OpKind::Approval { key, .. }
            | OpKind::Child { key, .. }
            | OpKind::Updates { key } => {
                *self.keys.entry(key.clone()).or_insert(0) += 1;
            }
        }
        // That updates are taken has no place in the journal: it has neither a deadline nor an end.
        if kind.wait_key().is_some() && !matches!(kind, OpKind::Updates { .. }) {
            self.unopened.insert(slot);
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, slot));
        }
        self.by_id.insert(id.clone(), slot);
        self.table.insert(
            slot,
            Op {
                id,
                barrier,
                kind,
                deadline,
            },
        );
        slot
    }

    pub fn get(&self, slot: Slot) -> Option<&Op> {
        self.table.get(&slot)
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Op> {
        self.table.get_mut(&slot)
    }

    /// Where a step is; none for what is no step or not open.
    pub fn phase(&self, slot: Slot) -> Option<StepPhase> {
        match self.table.get(&slot)?.kind {
            OpKind::Step { phase, .. } => Some(phase),
            _ => None,
        }
    }

    pub fn slot_of(&self, id: &str) -> Option<Slot> {
        self.by_id.get(id).copied()
    }

    pub fn close(&mut self, slot: Slot) -> Option<Op> {
        let op = self.table.remove(&slot)?;
        self.by_id.remove(&op.id);
        if let Some(deadline) = op.deadline {
            self.deadlines.remove(&(deadline, slot));
        }
        match &op.kind {
            OpKind::Step { .. } => {
                self.retrying.remove(&slot);
                self.exhausted.remove(&slot);
                self.polls.remove(&slot);
                return Some(op);
            }
            OpKind::Update { .. } => return Some(op),
            OpKind::Timer => self.timers -= 1,
            OpKind::Event { key }
            | OpKind::Approval { key, .. }
            | OpKind::Child { key, .. }
            | OpKind::Updates { key } => {
                if let Some(count) = self.keys.get_mut(key) {
                    *count -= 1;
                    if *count == 0 {
                        self.keys.remove(key);
                    }
                }
            }
        }
        self.unopened.remove(&slot);
        Some(op)
    }

    /// Moves an operation in the order of deadlines.
    pub fn set_deadline(&mut self, slot: Slot, new: Option<Millis>) {
        let Some(op) = self.table.get_mut(&slot) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut op.deadline, new) {
            self.deadlines.remove(&(old, slot));
        }
        if let Some(new) = new {
            self.deadlines.insert((new, slot));
        }
    }

    /// Moves a step to another phase; only a pause between attempts has a deadline.
    pub fn set_phase(&mut self, slot: Slot, new: StepPhase, deadline: Option<Millis>) {
        let Some(op) = self.table.get_mut(&slot) else {
            return;
        };
        let OpKind::Step { phase, .. } = &mut op.kind else {
            return;
        };
        let old = std::mem::replace(phase, new);
        // Starting and ending an attempt is the hot path: it touches no index.
        if old == StepPhase::Backoff || new == StepPhase::Backoff {
            if new == StepPhase::Backoff {
                self.retrying.insert(slot);
            } else {
                self.retrying.remove(&slot);
            }
            self.set_deadline(slot, deadline);
        }
        if new == StepPhase::Exhausted {
            self.exhausted.insert(slot);
        } else if old == StepPhase::Exhausted {
            self.exhausted.remove(&slot);
        }
    }

    /// Open polls, in order of request.
    pub fn polls(&self) -> Vec<Slot> {
        self.polls.iter().copied().collect()
    }

    /// The first step that has failed for good, for which the run is to be paused.
    pub fn exhausted(&self) -> Option<&Op> {
        self.table.get(self.exhausted.first()?)
    }

    /// The earliest deadline; among equal ones the operation that was requested first.
    pub fn earliest(&self) -> Option<(Millis, Slot)> {
        self.deadlines.first().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Waits that the journal does not show yet, in order of request; they count as shown now.
    pub fn take_unopened(&mut self) -> BTreeSet<Slot> {
        std::mem::take(&mut self.unopened)
    }

    /// The journal shows this wait.
    pub fn mark_opened(&mut self, slot: Slot) {
        self.unopened.remove(&slot);
    }

    /// The keys of all waits, each once, in order.
    pub fn wait_keys(&self) -> Vec<String> {
        let events = self.keys.keys().map(ToString::to_string);
        let timer = (self.timers > 0).then(|| TIMER_KEY.to_owned());
        let retries = self.retrying.iter().filter_map(|slot| {
            let op = self.table.get(slot)?;
            let why = match op.kind {
                OpKind::Step {
                    looks: Some(_),
                    failed: 0,
                    ..
                } => "poll",
                _ => "retry",
            };
            Some(format!("{why}:{}", op.id))
        });
        let exhausted = self.exhausted.iter().filter_map(|slot| {
            let op = self.table.get(slot)?;
            Some(format!("{EXHAUSTED}{}", op.id))
        });
        let mut keys: Vec<String> = events
            .chain(retries)
            .chain(exhausted)
            .chain(timer)
            .collect();
        self.walk(keys.len());
        keys.sort_unstable();
        keys
    }

    /// All of them in order of request; for rare occasions.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Op)> {
        self.table.iter().map(|(slot, op)| {
            self.walk(1);
            (*slot, op)
        })
    }

    /// All slots in order of request; for rare occasions.
    pub fn slots(&self) -> Vec<Slot> {
        self.walk(self.table.len());
        self.table.keys().copied().collect()
    }

    #[cfg(test)]
    fn walk(&self, steps: usize) {
        self.walked.set(self.walked.get() + steps as u64);
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)] // the counter is there in tests only
    const fn walk(&self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> OpKind {
        OpKind::Step {
            retry: RetryPolicy::NEVER,
            checkpoint: Checkpoint::Durable,
            failed: 0,
            phase: StepPhase::Requested,
            looks: None,
        }
    }

    fn event(key: &str) -> OpKind {
        OpKind::Event { key: key.into() }
    }

    #[test]
    fn deadlines_come_in_order_and_leave_with_their_operation() {
        let mut ops = Ops::default();
        let late = ops.open("a".into(), 0, OpKind::Timer, Some(30));
        let soon = ops.open("b".into(), 0, event("event:b"), Some(20));
        let same = ops.open("c".into(), 0, OpKind::Timer, Some(20));
        assert_eq!(ops.earliest(), Some((20, soon)));
        ops.close(soon);
        assert_eq!(ops.earliest(), Some((20, same)));
        ops.set_deadline(same, Some(40));
        assert_eq!(ops.earliest(), Some((30, late)));
        ops.close(late);
        ops.close(same);
        assert_eq!(ops.earliest(), None);
        assert!(ops.is_empty());
        assert_eq!(ops.slot_of("a"), None);
    }

    #[test]
    fn a_step_has_a_deadline_only_between_attempts() {
        let mut ops = Ops::default();
        let slot = ops.open("a".into(), 0, step(), None);
        ops.set_phase(slot, StepPhase::Running, None);
        ops.set_phase(slot, StepPhase::Backoff, Some(50));
        assert_eq!(ops.earliest(), Some((50, slot)));
        assert_eq!(ops.wait_keys(), ["retry:a"]);
        ops.set_phase(slot, StepPhase::Arrived, None);
        assert_eq!(ops.earliest(), None);
        assert!(ops.wait_keys().is_empty());
    }

    #[test]
    fn wait_keys_are_named_once_each_and_in_order() {
        let mut ops = Ops::default();
        let first = ops.open("event-1".into(), 0, event("event:x"), None);
        ops.open("event-2".into(), 0, event("event:x"), None);
        ops.open("sleep-1".into(), 0, OpKind::Timer, Some(1));
        let slot = ops.open("sleep-2".into(), 0, OpKind::Timer, Some(1));
        ops.open("a".into(), 0, step(), None);
        assert_eq!(ops.wait_keys(), ["event:x", "timer"]);
        ops.close(first);
        ops.close(slot);
        assert_eq!(ops.wait_keys(), ["event:x", "timer"]);
        assert_eq!(ops.take_unopened().len(), 2);
        assert!(ops.take_unopened().is_empty());
    }
}
