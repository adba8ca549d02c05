//! Updates: which the handler takes, and whose functions have ended.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::turn::UpdateOutcome;
use crate::inbox::Slot;

/// See the module's head. What is taken on and still applied is an open operation as any other.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    /// The operation that takes the updates of each key.
    takers: BTreeMap<Arc<str>, Slot>,
    /// Functions that have ended and have no place in the journal yet, in the order of their ends.
    ended: VecDeque<(Slot, UpdateOutcome)>,
}

impl Updates {
    pub(crate) fn taker(&self, key: &str) -> Option<Slot> {
        self.takers.get(key).copied()
    }

    pub(crate) fn take(&mut self, key: Arc<str>, slot: Slot) {
        self.takers.insert(key, slot);
    }

    pub(crate) fn stop_taking(&mut self, key: &str) {
        self.takers.remove(key);
    }

    /// The keys of all that are taken, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.takers.keys().map(ToString::to_string).collect()
    }

    pub(crate) fn ended(&mut self, slot: Slot, outcome: UpdateOutcome) {
        self.ended.push_back((slot, outcome));
    }

    /// The one that ended first.
    pub(crate) fn first_ended(&self) -> Option<Slot> {
        self.ended.front().map(|(slot, _)| *slot)
    }

    pub(crate) fn next_ended(&mut self) -> Option<(Slot, UpdateOutcome)> {
        self.ended.pop_front()
    }

    /// The journal has its end. False if its function goes on.
    pub(crate) fn settle(&mut self, slot: Slot) -> bool {
        let before = self.ended.len();
        self.ended.retain(|(other, _)| *other != slot);
        self.ended.len() < before
    }
}
