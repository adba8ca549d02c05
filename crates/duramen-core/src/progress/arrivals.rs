//! What came in and has no place in the journal yet: it gets one at the moment it is delivered.

use std::collections::VecDeque;

use super::turn::StepOutcome;
use crate::ids::Millis;
use crate::inbox::Slot;
use crate::journal::Entry;

#[derive(Debug)]
pub(crate) enum Arrived {
    Step(StepOutcome),
    /// A result that a reopening took back.
    Recalled(Entry),
    /// A result that a transaction of the user's own has made durable.
    Durable {
        at: Millis,
    },
}

/// In the order in which it came.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    queue: VecDeque<(Slot, Arrived)>,
}

impl Arrivals {
    pub(crate) fn add(&mut self, slot: Slot, arrived: Arrived) {
        self.queue.push_back((slot, arrived));
    }

    /// A result that stands in the journal already: before all that came in meanwhile.
    pub(crate) fn add_durable(&mut self, slot: Slot, at: Millis) {
        self.queue.push_front((slot, Arrived::Durable { at }));
    }

    pub(crate) fn next(&mut self) -> Option<(Slot, Arrived)> {
        self.queue.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}
