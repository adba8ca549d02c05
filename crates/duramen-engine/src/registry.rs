//! The runs in this process: driven now, kept warm, or followed until they end.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use duramen_core::ids::{Millis, RunId};
use lru::LruCache;

use crate::host::Ticket;
use crate::sweep::Group;

/// A run that the host drives.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) run_id: RunId,
    pub(crate) epoch: i64,
    /// The sweep that took it up.
    pub(crate) group: Option<Arc<Group>>,
    /// When it will be due after the pause under way.
    pub(crate) ready_at: Option<Millis>,
}

#[derive(Debug)]
pub(crate) struct Registry {
    next: Ticket,
    active: BTreeMap<Ticket, Active>,
    by_run: BTreeMap<RunId, Ticket>,
    /// Paused runs whose handlers are kept, with the journal length they stand at.
    warm: Option<LruCache<RunId, (Ticket, u64)>>,
    /// Runs that were started here and are paused now, with the instant they are due.
    followed: BTreeMap<RunId, Option<Millis>>,
    /// Runs that were started here and are driven now.
    own: std::collections::BTreeSet<RunId>,
}

impl Registry {
    pub(crate) fn new(warm: usize) -> Self {
        Self {
            next: 1,
            active: BTreeMap::new(),
            by_run: BTreeMap::new(),
            warm: NonZeroUsize::new(warm).map(LruCache::new),
            followed: BTreeMap::new(),
            own: std::collections::BTreeSet::new(),
        }
    }

    /// A new ticket for a run; the ticket it had here before, if any, comes back.
    pub(crate) fn enter(
        &mut self,
        run_id: &RunId,
        epoch: i64,
        group: Option<Arc<Group>>,
        ticket: Option<Ticket>,
    ) -> (Ticket, Option<(Ticket, Active)>) {
        let ticket = ticket.unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        let former = self
            .by_run
            .insert(run_id.clone(), ticket)
            .and_then(|former| self.active.remove(&former).map(|active| (former, active)));
        self.active.insert(
            ticket,
            Active {
                run_id: run_id.clone(),
                epoch,
                group,
                ready_at: None,
            },
        );
        if self.followed.remove(run_id).is_some() {
            self.own.insert(run_id.clone());
        }
        (ticket, former)
    }

    pub(crate) fn own(&mut self, run_id: &RunId) {
        self.own.insert(run_id.clone());
    }

    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<Active> {
        let active = self.active.remove(&ticket)?;
        if self.by_run.get(&active.run_id) == Some(&ticket) {
            self.by_run.remove(&active.run_id);
        }
        Some(active)
    }

    /// The run was paused: whoever started it here goes on following it.
    pub(crate) fn follow_if_own(&mut self, run_id: &RunId, ready_at: Option<Millis>) {
        if self.own.remove(run_id) {
            self.followed.insert(run_id.clone(), ready_at);
        }
    }

    pub(crate) fn forget(&mut self, run_id: &RunId) {
        self.own.remove(run_id);
        self.followed.remove(run_id);
    }

    /// Notes that a followed run may be due now.
    pub(crate) fn due_now(&mut self, run_id: &RunId, now: Millis) {
        if let Some(ready_at) = self.followed.get_mut(run_id) {
            *ready_at = Some(now);
        }
    }

    /// The store says when a followed run is due.
    pub(crate) fn refollow(&mut self, run_id: &RunId, at: Option<Millis>) {
        if let Some(ready_at) = self.followed.get_mut(run_id) {
            *ready_at = at;
        }
    }

    pub(crate) fn followed(&self) -> &BTreeMap<RunId, Option<Millis>> {
        &self.followed
    }

    /// Keeps a paused run warm; the one that must make room for it, if any, comes back.
    pub(crate) fn keep_warm(
        &mut self,
        run_id: RunId,
        ticket: Ticket,
        journal_len: u64,
    ) -> Option<Ticket> {
        match &mut self.warm {
            None => Some(ticket),
            Some(warm) => warm
                .push(run_id, (ticket, journal_len))
                .map(|(_, (evicted, _))| evicted),
        }
    }

    pub(crate) fn take_warm(&mut self, run_id: &RunId) -> Option<(Ticket, u64)> {
        self.warm.as_mut()?.pop(run_id)
    }

    pub(crate) fn warm_runs(&self) -> Vec<(RunId, u64)> {
        self.warm.as_ref().map_or_else(Vec::new, |warm| {
            warm.iter()
                .map(|(run_id, (_, len))| (run_id.clone(), *len))
                .collect()
        })
    }

    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Active> {
        self.active.get_mut(&ticket)
    }

    pub(crate) fn ticket_of(&self, run_id: &RunId) -> Option<Ticket> {
        self.by_run.get(run_id).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.active.len()
    }

    /// What is believed to be held, for comparison with the store.
    pub(crate) fn held(&self) -> Vec<(Ticket, RunId, i64)> {
        self.active
            .iter()
            .map(|(ticket, active)| (*ticket, active.run_id.clone(), active.epoch))
            .collect()
    }

    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.active.keys().copied().collect()
    }
}
