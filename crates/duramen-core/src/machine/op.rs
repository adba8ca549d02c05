//! The table of open operations: what the handler asked for and has not been told yet.

use std::collections::{BTreeMap, BTreeSet};

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
}

/// One open operation.
#[derive(Debug)]
pub struct Op {
    pub id: OpId,
    /// What must be durable before it takes effect.
    pub barrier: u64,
    pub kind: OpKind,
}

#[derive(Debug)]
pub enum OpKind {
    Step {
        retry: RetryPolicy,
        checkpoint: Checkpoint,
        /// Attempts that have failed so far.
        failed: u32,
        phase: StepPhase,
    },
    Timer {
        deadline: Millis,
        opened: bool,
    },
    Event {
        key: String,
        deadline: Option<Millis>,
        opened: bool,
    },
    Approval {
        key: String,
        deadline: Option<Millis>,
        request: Payload,
        opened: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepPhase {
    /// Asked for; starts when the barrier is reached.
    Requested,
    Running,
    /// An attempt failed; the next is due then.
    Backoff {
        until: Millis,
    },
    /// Its result has arrived and waits to be given its place in the journal.
    Arrived,
}

impl OpKind {
    /// The word for differences.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Step { .. } => "a step",
            Self::Timer { .. } => "a timer",
            Self::Event { .. } => "a wait for an event",
            Self::Approval { .. } => "an approval",
        }
    }
}

/// Open operations by slot and by id, and their deadlines in order.
#[derive(Debug, Default)]
pub struct Ops {
    table: BTreeMap<Slot, Op>,
    by_id: BTreeMap<OpId, Slot>,
    deadlines: BTreeSet<(Millis, Slot)>,
    next: Slot,
}

impl Ops {
    pub fn open(&mut self, op: Op) -> Slot {
        let slot = self.next;
        self.next += 1;
        self.by_id.insert(op.id.clone(), slot);
        self.table.insert(slot, op);
        slot
    }

    pub fn get(&self, slot: Slot) -> Option<&Op> {
        self.table.get(&slot)
    }

    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Op> {
        self.table.get_mut(&slot)
    }

    pub fn slot_of(&self, id: &str) -> Option<Slot> {
        self.by_id.get(id).copied()
    }

    pub fn close(&mut self, slot: Slot) -> Option<Op> {
        let op = self.table.remove(&slot)?;
        self.by_id.remove(&op.id);
        let deadline = match &op.kind {
            OpKind::Timer { deadline, .. } => Some(*deadline),
            OpKind::Event { deadline, .. } | OpKind::Approval { deadline, .. } => *deadline,
            OpKind::Step {
                phase: StepPhase::Backoff { until },
                ..
            } => Some(*until),
            OpKind::Step { .. } => None,
        };
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, slot));
        }
        Some(op)
    }

    /// Moves the entry of `slot` in the order of deadlines.
    pub fn set_deadline(&mut self, slot: Slot, old: Option<Millis>, new: Option<Millis>) {
        if let Some(old) = old {
            self.deadlines.remove(&(old, slot));
        }
        if let Some(new) = new {
            self.deadlines.insert((new, slot));
        }
    }

    /// The earliest deadline; among equal ones the operation that was requested first.
    pub fn earliest(&self) -> Option<(Millis, Slot)> {
        self.deadlines.first().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut Op)> {
        self.table.iter_mut().map(|(slot, op)| (*slot, op))
    }

    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Op)> {
        self.table.iter().map(|(slot, op)| (*slot, op))
    }

    pub fn slots(&self) -> Vec<Slot> {
        self.table.keys().copied().collect()
    }
}
