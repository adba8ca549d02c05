//! Steps that may start, and steps in flight.

use std::collections::{BTreeSet, VecDeque};

use super::op::{Ops, StepPhase};
use crate::inbox::Slot;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// In the order of their requests; may have some that were given up or answered meanwhile.
    startable: VecDeque<Slot>,
    running: u32,
    /// Steps in flight whose functions run in transactions of the user's own.
    transacting: BTreeSet<Slot>,
}

impl Steps {
    /// A step may start when its barrier is reached.
    pub(crate) fn add(&mut self, slot: Slot) {
        self.startable.push_back(slot);
    }

    /// The step that starts next.
    pub(crate) fn next(&mut self, ops: &Ops) -> Option<Slot> {
        loop {
            let slot = *self.startable.front()?;
            if ops.phase(slot) == Some(StepPhase::Requested) {
                return Some(slot);
            }
            self.startable.pop_front();
        }
    }

    /// The next step starts.
    pub(crate) fn start(&mut self, transacting: bool) {
        if let Some(slot) = self.startable.pop_front() {
            self.running += 1;
            if transacting {
                self.transacting.insert(slot);
            }
        }
    }

    /// A step in flight has ended, or nobody waits for it any more.
    pub(crate) fn stop(&mut self, slot: Slot) {
        self.running -= 1;
        self.transacting.remove(&slot);
    }

    /// How many are in flight.
    pub(crate) const fn running(&self) -> u32 {
        self.running
    }

    /// Whether a function of the run is in a transaction of the user's own.
    pub(crate) fn is_transacting(&self) -> bool {
        !self.transacting.is_empty()
    }
}
