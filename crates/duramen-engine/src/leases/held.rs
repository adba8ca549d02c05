//! The runs that are leased to this process and in its hands.
//!
//! Nothing is pushed to the host and no store is called under the lock: both may run other people's
//! code, which may come back here.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::{RunRow, Seed};

use crate::clock::Until;
use crate::host::Ticket;

/// A run from its claim until it is out of these hands.
#[derive(Debug)]
pub(crate) struct Tenure {
    pub(crate) run_id: RunId,
    pub(crate) epoch: i64,
    /// Tells it from a later run of the same id.
    pub(crate) seed: Seed,
    /// A commit that releases the run is under way: its outcome alone says what became of it.
    pub(crate) leaving: Option<Leaving>,
    /// Until when the claim leased it for certain; heartbeats renew it.
    until: Until,
}

/// What a commit under way makes of a run that it releases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving {
    /// When it will be due.
    pub(crate) ready_at: Option<Millis>,
    /// It yields, and is due at once.
    pub(crate) yields: bool,
    /// It was told to yield, and must not be taken up again right here.
    pub(crate) leaves: bool,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Held {
    tenures: Mutex<Tenures>,
}

#[derive(Debug, Default)]
struct Tenures {
    /// The last ticket that was given.
    last: Ticket,
    by_ticket: BTreeMap<Ticket, Tenure>,
    by_run: BTreeMap<RunId, Ticket>,
}

impl Tenures {
    fn of(&self, run_id: &RunId) -> Option<&Tenure> {
        self.by_ticket.get(self.by_run.get(run_id)?)
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Tenures> {
        self.tenures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run of this process is taken up, under the ticket of its kept handler or a new one. Says
    /// which, and what it was held under before.
    pub(crate) fn enter(
        &self,
        row: &RunRow,
        kept: Option<Ticket>,
        until: Until,
    ) -> (Ticket, Option<(Ticket, Tenure)>) {
        let mut tenures = self.lock();
        let ticket = kept.unwrap_or_else(|| {
            tenures.last += 1;
            tenures.last
        });
        let former = tenures.by_run.insert(row.run_id.clone(), ticket);
        let former = former.and_then(|former| Some((former, tenures.by_ticket.remove(&former)?)));
        let tenure = Tenure {
            run_id: row.run_id.clone(),
            epoch: row.epoch,
            seed: row.seed,
            leaving: None,
            until,
        };
        tenures.by_ticket.insert(ticket, tenure);
        (ticket, former)
    }

    /// The run is out of these hands.
    pub(crate) fn leave(&self, ticket: Ticket) -> Option<Tenure> {
        let mut tenures = self.lock();
        let tenure = tenures.by_ticket.remove(&ticket)?;
        if tenures.by_run.get(&tenure.run_id) == Some(&ticket) {
            tenures.by_run.remove(&tenure.run_id);
        }
        Some(tenure)
    }

    /// A commit that releases the run is under way; none if it did not release it after all.
    pub(crate) fn set_leaving(&self, ticket: Ticket, leaving: Option<Leaving>) {
        if let Some(tenure) = self.lock().by_ticket.get_mut(&ticket) {
            tenure.leaving = leaving;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().by_ticket.len()
    }

    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.lock().by_ticket.keys().copied().collect()
    }

    pub(crate) fn has(&self, ticket: Ticket) -> bool {
        self.lock().by_ticket.contains_key(&ticket)
    }

    pub(crate) fn ticket_of(&self, run_id: &RunId) -> Option<Ticket> {
        self.lock().by_run.get(run_id).copied()
    }

    /// Whether that tenure of the run is in these hands.
    pub(crate) fn has_tenure(&self, run_id: &RunId, epoch: i64) -> bool {
        let tenures = self.lock();
        tenures.of(run_id).is_some_and(|held| held.epoch == epoch)
    }

    /// Whether a later claim of that run than this one is known: its answer was overtaken.
    pub(crate) fn is_overtaken(&self, row: &RunRow) -> bool {
        let tenures = self.lock();
        tenures
            .of(&row.run_id)
            .is_some_and(|held| held.epoch > row.epoch && held.seed == row.seed)
    }

    /// What is believed to be held, for comparison with the store.
    pub(super) fn believed(&self) -> Vec<(Ticket, RunId, i64)> {
        self.lock()
            .by_ticket
            .iter()
            .filter(|(_, tenure)| tenure.leaving.is_none())
            .map(|(ticket, tenure)| (*ticket, tenure.run_id.clone(), tenure.epoch))
            .collect()
    }

    /// Whether that is believed still.
    pub(super) fn believes(&self, ticket: Ticket, epoch: i64) -> bool {
        let tenures = self.lock();
        let tenure = tenures.by_ticket.get(&ticket);
        tenure.is_some_and(|held| held.epoch == epoch && held.leaving.is_none())
    }

    /// A heartbeat has found these to be held. A run whose claim was answered only since is not
    /// among them, whoever has it by now: the claim itself may be long over.
    pub(super) fn renew(&self, held: &[(RunId, i64)], until: Until) {
        let mut tenures = self.lock();
        for (run_id, epoch) in held {
            let Some(ticket) = tenures.by_run.get(run_id).copied() else {
                continue;
            };
            if let Some(tenure) = tenures.by_ticket.get_mut(&ticket)
                && tenure.epoch == *epoch
            {
                tenure.until = tenure.until.or_later(until);
            }
        }
    }

    pub(super) fn until(&self, ticket: Ticket) -> Option<Until> {
        self.lock().by_ticket.get(&ticket).map(|held| held.until)
    }
}
