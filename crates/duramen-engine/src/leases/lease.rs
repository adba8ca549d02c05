//! Under which name this process holds runs, which it holds, and until when for certain.

use std::sync::Arc;

use duramen_core::ids::Millis;
use tokio::sync::Notify;

use super::held::Held;
use crate::clock::{Asked, Until};
use crate::commits::Releases;
use crate::common::Common;
use crate::host::Ticket;

/// What those who drive runs are told by the keeper.
pub(crate) trait Listener: Send + Sync {
    /// The lease of that run is lost: nobody drives it here any more.
    fn lost(&self, ticket: Ticket);
    /// Runs that nobody drove here although they were leased to this process are free again.
    fn freed(&self);
}

/// See the module's head.
pub(crate) struct Leases {
    pub(super) common: Arc<Common>,
    pub(super) releases: Arc<Releases>,
    held: Held,
    /// Ends the keeper's pause, to close.
    pub(super) bell: Arc<Notify>,
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

impl Leases {
    pub(crate) fn new(common: Arc<Common>, releases: Arc<Releases>) -> Arc<Self> {
        Arc::new(Self {
            common,
            releases,
            held: Held::default(),
            bell: Arc::default(),
        })
    }

    pub(crate) fn close(&self) {
        self.bell.notify_one();
    }

    pub(crate) fn span(&self) -> Millis {
        self.common.config.lease
    }

    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// Until when a lease lasts for certain that the store gave after it was asked.
    pub(crate) fn from(&self, asked: Asked) -> Until {
        asked.until(self.span())
    }

    /// Whether a run is this process's for certain: known here as such, and its lease has not ended
    /// since it was claimed or renewed. A process that was stopped for longer than that has work on
    /// its hands that others may have taken up, and does not know it yet.
    pub(crate) fn holds(&self, ticket: Ticket) -> bool {
        let until = self.held.until(ticket);
        until.is_some_and(|until| self.common.clock.lasts(until))
    }
}
