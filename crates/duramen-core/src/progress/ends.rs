//! What may end the run before its handler does, and where the journal has it: the cause that a
//! reopening must take back.

use std::collections::BTreeMap;

use super::facts::Facts;
use crate::ids::{Millis, OpId};

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Journal index of each delivered step failure, so that the one that ends the run is known.
    failures: BTreeMap<OpId, u64>,
    cancelled_at: Option<u64>,
    timed_out_at: Option<u64>,
    reopened_at: Option<Millis>,
    /// The handler has undone what it had done: there is nothing left that a reopening could go on with.
    pub(crate) undone: bool,
}

impl Ends {
    /// The handler was told of a step's failure.
    pub(crate) fn failed(&mut self, op: OpId, index: u64) {
        self.failures.insert(op, index);
    }

    /// The handler was told of a cancellation.
    pub(crate) const fn cancelled(&mut self, index: u64) {
        self.cancelled_at = Some(index);
    }

    /// The handler was told that the run's own time is over.
    pub(crate) const fn timed_out(&mut self, index: u64) {
        self.timed_out_at = Some(index);
    }

    /// Somebody reopened the run.
    pub(crate) const fn reopened(&mut self, at: Millis) {
        self.reopened_at = Some(at);
    }

    pub(crate) const fn was_cancelled(&self) -> bool {
        self.cancelled_at.is_some()
    }

    pub(crate) const fn was_timed_out(&self) -> bool {
        self.timed_out_at.is_some()
    }

    /// What a handler that was cancelled ended by.
    pub(crate) fn cause_of_cancellation(&self) -> Option<u64> {
        self.cancelled_at.or(self.timed_out_at)
    }

    /// What a handler that raised ended by, given the operation whose failure it raised.
    pub(crate) fn cause_of_failure(&self, op: Option<&str>) -> Option<u64> {
        op.and_then(|op| self.failures.get(op).copied())
            .or(self.timed_out_at)
    }

    /// When the run's own time is over. A run that was reopened after that gets its time again:
    /// it would fail at once otherwise, whatever was mended.
    pub(crate) fn limit(&self, facts: &Facts) -> Option<Millis> {
        let deadline = facts.deadline.filter(|_| self.timed_out_at.is_none())?;
        match (self.reopened_at, facts.timeout) {
            // As long again as it was given, wherever the first deadline was counted from.
            (Some(at), Some(timeout)) if at >= deadline => Some(at.saturating_add(timeout)),
            _ => Some(deadline),
        }
    }
}
