//! The runs in this process: driven now, kept warm, or followed until they end.
//!
//! Everything here is behind one lock of the engine. Nothing is pushed to the host and no store is
//! called under it: both may run other people's code, which may come back here.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::sync::Arc;

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::{RunRow, Seed};
use duramen_core::store::Message;
use lru::LruCache;

use crate::host::Ticket;
use crate::sweep::Group;

/// A run that the host drives.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) run_id: RunId,
    pub(crate) epoch: i64,
    /// Until when the claim leased it for certain, by this host's clock; heartbeats renew
    /// it.
    pub(crate) leased_until: Millis,
    /// The sweep that took it up.
    pub(crate) group: Option<Arc<Group>>,
    /// A commit that releases the run is under way: its outcome alone says what became of it.
    pub(crate) leaving: Option<Leaving>,
    /// A message came that the pause under way does not know of.
    pub(crate) woken: bool,
    /// The host has been told of the run: what is for it may follow.
    driven: bool,
    /// The highest message that the host has been given.
    told: u64,
    tick: Option<Millis>,
    seed: Seed,
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

/// A paused run whose handler is kept. The seed tells it from a later run of the same id.
#[derive(Debug, Clone, Copy)]
struct Warm {
    ticket: Ticket,
    journal_len: u64,
    seed: Seed,
}

/// What [`Registry::enter`] found and did.
pub(crate) struct Entered {
    pub(crate) ticket: Ticket,
    /// The handler is still here.
    pub(crate) warm: bool,
    /// A handler that was kept and cannot be used.
    pub(crate) stale: Option<Ticket>,
    /// The run was driven here already, in an earlier tenure.
    pub(crate) former: Option<(Ticket, Active)>,
    /// It is the only one now.
    pub(crate) first: bool,
}

#[derive(Debug)]
pub(crate) struct Registry {
    next: Ticket,
    active: BTreeMap<Ticket, Active>,
    by_run: BTreeMap<RunId, Ticket>,
    warm: Option<LruCache<RunId, Warm>>,
    /// Runs that were started here and are paused now, with the instant they are due.
    followed: BTreeMap<RunId, Option<Millis>>,
    /// The same by that instant: finding who is due must not walk over all that sleep.
    followed_due: BTreeSet<(Millis, RunId)>,
    /// Runs that were started here and are driven now.
    own: BTreeSet<RunId>,
    /// Instants at which drivers want to be called again: one a run at the most, gone with it.
    ticks: BTreeSet<(Millis, Ticket)>,
    /// The worker has no use for free places until no more than so many runs are active.
    room_at: Option<usize>,
}

impl Registry {
    pub(crate) fn new(warm: usize) -> Self {
        Self {
            next: 1,
            active: BTreeMap::new(),
            by_run: BTreeMap::new(),
            warm: NonZeroUsize::new(warm).map(LruCache::new),
            followed: BTreeMap::new(),
            followed_due: BTreeSet::new(),
            own: BTreeSet::new(),
            ticks: BTreeSet::new(),
            room_at: None,
        }
    }

    /// A run of this engine's owner is to be driven: under the ticket of its kept handler if the
    /// store left the journal out and it stands where the handler does, else under a new one.
    pub(crate) fn enter(
        &mut self,
        row: &RunRow,
        without_journal: bool,
        leased_until: Millis,
        group: Option<&Arc<Group>>,
    ) -> Entered {
        let run_id = &row.run_id;
        let kept = self.warm.as_mut().and_then(|warm| warm.pop(run_id));
        let usable = kept.filter(|kept| {
            without_journal && kept.journal_len == row.journal_len && kept.seed == row.seed
        });
        let ticket = usable.map_or_else(
            || {
                self.next += 1;
                self.next - 1
            },
            |kept| kept.ticket,
        );
        let former = self
            .by_run
            .get(run_id)
            .copied()
            .and_then(|former| Some((former, self.leave(former)?.0)));
        let first = self.active.is_empty();
        self.by_run.insert(run_id.clone(), ticket);
        self.active.insert(
            ticket,
            Active {
                run_id: run_id.clone(),
                epoch: row.epoch,
                leased_until,
                group: group.cloned(),
                leaving: None,
                woken: false,
                driven: false,
                told: row.inbox_len,
                tick: None,
                seed: row.seed,
            },
        );
        if self.unfollow(run_id) {
            self.own.insert(run_id.clone());
        }
        Entered {
            ticket,
            warm: usable.is_some(),
            stale: kept.filter(|_| usable.is_none()).map(|kept| kept.ticket),
            former,
            first,
        }
    }

    /// The run was started here.
    pub(crate) fn own(&mut self, run_id: &RunId) {
        self.own.insert(run_id.clone());
    }

    /// The host has been given the run.
    pub(crate) fn driven(&mut self, tickets: impl IntoIterator<Item = Ticket>) {
        for ticket in tickets {
            if let Some(active) = self.active.get_mut(&ticket) {
                active.driven = true;
            }
        }
    }

    /// The run is not driven any more. Also says whether the worker waits for that.
    pub(crate) fn leave(&mut self, ticket: Ticket) -> Option<(Active, bool)> {
        let active = self.active.remove(&ticket)?;
        if let Some(tick) = active.tick {
            self.ticks.remove(&(tick, ticket));
        }
        if self.by_run.get(&active.run_id) == Some(&ticket) {
            self.by_run.remove(&active.run_id);
        }
        let room = self.room_at.is_some_and(|most| self.active.len() <= most);
        if room {
            self.room_at = None;
        }
        Some((active, room))
    }

    /// Whoever started the run here goes on following it after it has left the host's hands. True
    /// if it is the only one that is followed.
    pub(crate) fn follow_if_own(&mut self, run_id: &RunId, ready_at: Option<Millis>) -> bool {
        if !self.own.remove(run_id) {
            return false;
        }
        let first = self.followed.is_empty();
        self.followed.insert(run_id.clone(), ready_at);
        if let Some(at) = ready_at {
            self.followed_due.insert((at, run_id.clone()));
        }
        first
    }

    fn unfollow(&mut self, run_id: &RunId) -> bool {
        let Some(ready_at) = self.followed.remove(run_id) else {
            return false;
        };
        if let Some(at) = ready_at {
            self.followed_due.remove(&(at, run_id.clone()));
        }
        true
    }

    pub(crate) fn forget(&mut self, run_id: &RunId) {
        self.own.remove(run_id);
        self.unfollow(run_id);
    }

    /// A message has made a run due that was waiting.
    pub(crate) fn woken(&mut self, run_id: &RunId, now: Millis) {
        self.refollow(run_id, Some(now));
        if let Some(active) = self.active_of(run_id) {
            // Its pause has taken place in the store and the host does not know it yet.
            active.woken = true;
        }
    }

    /// The store says when a followed run is due. True if that was not known.
    pub(crate) fn refollow(&mut self, run_id: &RunId, at: Option<Millis>) -> bool {
        let Some(ready_at) = self.followed.get_mut(run_id) else {
            return false;
        };
        let before = std::mem::replace(ready_at, at);
        if before == at {
            return false;
        }
        if let Some(before) = before {
            self.followed_due.remove(&(before, run_id.clone()));
        }
        if let Some(at) = at {
            self.followed_due.insert((at, run_id.clone()));
        }
        true
    }

    /// Followed runs that are due, and when the next one will be.
    pub(crate) fn follow_due(&self, now: Millis, most: usize) -> (Vec<RunId>, Option<Millis>) {
        let mut due = Vec::new();
        for (at, run_id) in &self.followed_due {
            if *at > now {
                return (due, Some(*at));
            }
            if due.len() == most {
                break;
            }
            due.push(run_id.clone());
        }
        (due, None)
    }

    /// Up to `most` followed runs behind `from`, in order.
    pub(crate) fn followed_after(&self, from: Option<&RunId>, most: usize) -> Vec<RunId> {
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        self.followed
            .range::<RunId, _>((from, Bound::Unbounded))
            .take(most)
            .map(|(run_id, _)| run_id.clone())
            .collect()
    }

    pub(crate) fn followed(&self) -> usize {
        self.followed.len()
    }

    /// Runs that were started here and are remembered for it.
    pub(crate) fn remembered(&self) -> usize {
        self.followed.len() + self.own.len()
    }

    /// Keeps a paused run warm; the one that must make room for it, if any, comes back.
    pub(crate) fn keep_warm(
        &mut self,
        active: &Active,
        ticket: Ticket,
        journal_len: u64,
    ) -> Option<Ticket> {
        let kept = Warm {
            ticket,
            journal_len,
            seed: active.seed,
        };
        match &mut self.warm {
            None => Some(ticket),
            Some(warm) => warm
                .push(active.run_id.clone(), kept)
                .map(|(_, evicted)| evicted.ticket),
        }
    }

    /// What a claim says of kept handlers: of one run, or of all.
    pub(crate) fn warm_runs(&self, only: Option<&RunId>) -> Vec<(RunId, u64)> {
        let Some(warm) = &self.warm else {
            return Vec::new();
        };
        match only {
            Some(run_id) => warm
                .peek(run_id)
                .map(|kept| (run_id.clone(), kept.journal_len))
                .into_iter()
                .collect(),
            None => warm
                .iter()
                .map(|(run_id, kept)| (run_id.clone(), kept.journal_len))
                .collect(),
        }
    }

    pub(crate) fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Active> {
        self.active.get_mut(&ticket)
    }

    fn active_of(&mut self, run_id: &RunId) -> Option<&mut Active> {
        self.active.get_mut(self.by_run.get(run_id)?)
    }

    pub(crate) fn is_active(&self, run_id: &RunId) -> bool {
        self.by_run.contains_key(run_id)
    }

    /// Whether a tenure of this engine's owner is known here.
    pub(crate) fn drives(&self, run_id: &RunId, epoch: i64) -> bool {
        self.by_run
            .get(run_id)
            .and_then(|ticket| self.active.get(ticket))
            .is_some_and(|active| active.epoch == epoch)
    }

    /// The driver's ticket if this message is news to it.
    pub(crate) fn tell(&mut self, message: &Message) -> Option<Ticket> {
        let ticket = *self.by_run.get(&message.run_id)?;
        let active = self.active.get_mut(&ticket)?;
        if !active.driven || message.seq <= active.told {
            return None;
        }
        active.told = message.seq;
        Some(ticket)
    }

    pub(crate) fn len(&self) -> usize {
        self.active.len()
    }

    /// How many places are free. If there are fewer than `least`, the next call of
    /// [`Registry::leave`] that makes them as many says so.
    pub(crate) fn room(&mut self, places: usize, least: usize) -> usize {
        let free = places.saturating_sub(self.active.len());
        self.room_at = (free < least).then(|| places.saturating_sub(least));
        free
    }

    /// A heartbeat has found these to be held. A run whose claim was answered only since is not
    /// among them, whoever has it by now: the claim itself may be long over.
    pub(crate) fn renewed(&mut self, held: &[(RunId, i64)], until: Millis) {
        for (run_id, epoch) in held {
            if let Some(active) = self.active_of(run_id)
                && active.epoch == *epoch
            {
                active.leased_until = active.leased_until.max(until);
            }
        }
    }

    /// Whether a later claim of that run than this one is known here: its answer was overtaken.
    pub(crate) fn is_overtaken(&self, row: &RunRow) -> bool {
        self.by_run
            .get(&row.run_id)
            .and_then(|ticket| self.active.get(ticket))
            .is_some_and(|active| active.epoch > row.epoch && active.seed == row.seed)
    }

    /// What is believed to be held, for comparison with the store.
    pub(crate) fn held(&self) -> Vec<(Ticket, RunId, i64)> {
        self.active
            .iter()
            .filter(|(_, active)| active.leaving.is_none())
            .map(|(ticket, active)| (*ticket, active.run_id.clone(), active.epoch))
            .collect()
    }

    pub(crate) fn tickets(&self) -> Vec<Ticket> {
        self.active.keys().copied().collect()
    }

    /// A driver wants to be called again at that instant. True if no earlier tick is waited for.
    pub(crate) fn set_tick(&mut self, ticket: Ticket, at: Millis) -> bool {
        let Some(active) = self.active.get_mut(&ticket) else {
            return false;
        };
        if let Some(before) = active.tick.replace(at) {
            self.ticks.remove(&(before, ticket));
        }
        self.ticks.insert((at, ticket));
        self.ticks.first() == Some(&(at, ticket))
    }

    /// Takes the ticks that are due, and says when the next one is.
    pub(crate) fn due_ticks(&mut self, now: Millis) -> (Vec<Ticket>, Option<Millis>) {
        let mut due = Vec::new();
        while let Some((at, ticket)) = self.ticks.first().copied() {
            if at > now {
                return (due, Some(at));
            }
            self.ticks.pop_first();
            if let Some(active) = self.active.get_mut(&ticket) {
                active.tick = None;
            }
            due.push(ticket);
        }
        (due, None)
    }

    /// How many ticks are waited for.
    pub(crate) fn ticks(&self) -> usize {
        self.ticks.len()
    }
}
