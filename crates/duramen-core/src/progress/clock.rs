//! The logical clock of a run: when the last delivered entry was recorded. It never goes back.

use crate::ids::Millis;

/// See the module's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    now: Millis,
}

impl Clock {
    pub(crate) const fn new(now: Millis) -> Self {
        Self { now }
    }

    pub(crate) const fn now(self) -> Millis {
        self.now
    }

    /// What it would show if something were delivered now, by the host's clock.
    pub(crate) fn at(self, wall: Millis) -> Millis {
        self.now.max(wall)
    }

    /// Something is delivered.
    pub(crate) fn advance(&mut self, wall: Millis) -> Millis {
        self.now = self.at(wall);
        self.now
    }
}
