//! The runs that are leased to this process and in its hands, under its present name.
//!
//! Nothing is pushed to the host and no store is called under the lock: both may run other people's
//! code, which may come back here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duramen_core::ids::{Millis, RunId};
use duramen_core::run::{RunRow, Seed};

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

/// What a run was held under before.
pub(crate) type Former = Option<(Ticket, Tenure)>;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Held {
    tenures: Mutex<Tenures>,
}

/// A life and an epoch of a run that was let go here.
#[derive(Debug)]
struct Forgone {
    seed: Seed,
    epoch: i64,
    number: u64,
}

/// So many of them are remembered at the most: of older ones no answer is under way any more.
const MOST_FORGONE: usize = 10_000;

#[derive(Debug)]
struct Tenures {
    /// The name that holds them.
    owner: Arc<str>,
    /// What that name has taken over from the one before and was not in hand then: the answer to its claim
    /// may still come.
    unclaimed: BTreeMap<RunId, i64>,
    /// What was let go because nobody here knew of it: an answer that comes later is too late, also when the
    /// run was taken up again and has left these hands since.
    forgone: BTreeMap<RunId, Forgone>,
    /// How many that were.
    forgoings: u64,
    /// The last ticket that was given.
    last: Ticket,
    by_ticket: BTreeMap<Ticket, Tenure>,
    by_run: BTreeMap<RunId, Ticket>,
}

impl Tenures {
    fn of(&self, run_id: &RunId) -> Option<&Tenure> {
        self.by_ticket.get(self.by_run.get(run_id)?)
    }

    /// Whether a claimed run may be taken up: it is this process's still, and no later claim of it is known.
    fn admits(&self, row: &RunRow) -> bool {
        let owned = row.owner.as_deref() == Some(&*self.owner)
            || self.unclaimed.get(&row.run_id) == Some(&row.epoch);
        let overtaken = self
            .of(&row.run_id)
            .is_some_and(|held| held.epoch > row.epoch && held.seed == row.seed);
        let forgone = self
            .forgone
            .get(&row.run_id)
            .is_some_and(|forgone| forgone.seed == row.seed && forgone.epoch >= row.epoch);
        owned && !overtaken && !forgone
    }
}

impl Held {
    pub(super) const fn new(owner: Arc<str>) -> Self {
        Self {
            tenures: Mutex::new(Tenures {
                owner,
                unclaimed: BTreeMap::new(),
                forgone: BTreeMap::new(),
                forgoings: 0,
                last: 0,
                by_ticket: BTreeMap::new(),
                by_run: BTreeMap::new(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tenures> {
        self.tenures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run of this process is taken up, under the ticket of its kept handler or a new one. Says
    /// which, and what it was held under before. None if it is not this process's any more.
    pub(crate) fn enter(&self, row: &RunRow, kept: Option<Ticket>) -> Option<(Ticket, Former)> {
        let mut tenures = self.lock();
        if !tenures.admits(row) {
            return None;
        }
        tenures.unclaimed.remove(&row.run_id);
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
        };
        tenures.by_ticket.insert(ticket, tenure);
        Some((ticket, former))
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

    /// The same, if it is this life of the run that is in hand: one of the same id may have been deleted
    /// under its driver, which has not noticed yet.
    pub(crate) fn ticket_of_life(&self, row: &RunRow) -> Option<Ticket> {
        let tenures = self.lock();
        let held = tenures.of(&row.run_id)?;
        let same = held.seed == row.seed;
        same.then(|| tenures.by_run.get(&row.run_id).copied())?
    }

    /// Whether that tenure of the run is in these hands.
    pub(crate) fn has_tenure(&self, run_id: &RunId, epoch: i64) -> bool {
        let tenures = self.lock();
        tenures.of(run_id).is_some_and(|held| held.epoch == epoch)
    }

    /// Whether a claimed run may be taken up.
    pub(crate) fn admits(&self, row: &RunRow) -> bool {
        self.lock().admits(row)
    }

    /// What is believed to be held of the runs behind one, for comparison with the store.
    pub(super) fn believed(&self, after: Option<&RunId>) -> Vec<(Ticket, RunId, i64)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tenures = self.lock();
        tenures
            .by_run
            .range::<RunId, _>((after, Bound::Unbounded))
            .filter_map(|(run_id, ticket)| {
                let tenure = tenures.by_ticket.get(ticket)?;
                let stays = tenure.leaving.is_none();
                stays.then(|| (*ticket, run_id.clone(), tenure.epoch))
            })
            .collect()
    }

    /// Whether that is believed still.
    pub(super) fn believes(&self, ticket: Ticket, epoch: i64) -> bool {
        let tenures = self.lock();
        let tenure = tenures.by_ticket.get(&ticket);
        tenure.is_some_and(|held| held.epoch == epoch && held.leaving.is_none())
    }

    /// Another name holds these runs from now on. Says which of those in hand are not among them. What a
    /// commit is releasing is left to the outcome of that.
    pub(super) fn pass_on(&self, owner: Arc<str>, held: &[(RunId, i64)]) -> Vec<(Ticket, i64)> {
        let passed: BTreeSet<(&RunId, i64)> = held.iter().map(|(id, epoch)| (id, *epoch)).collect();
        let mut tenures = self.lock();
        tenures.owner = owner;
        tenures.unclaimed = held
            .iter()
            .filter(|(run_id, epoch)| tenures.of(run_id).is_none_or(|held| held.epoch != *epoch))
            .cloned()
            .collect();
        tenures
            .by_ticket
            .iter()
            .filter(|(_, held)| held.leaving.is_none())
            .filter(|(_, held)| !passed.contains(&(&held.run_id, held.epoch)))
            .map(|(ticket, held)| (*ticket, held.epoch))
            .collect()
    }

    /// A run that the store says is held and that nobody drives here is to be let go. False if somebody does.
    /// From now on no answer to a claim from before can bring it.
    pub(crate) fn forgo(&self, row: &RunRow) -> bool {
        let mut tenures = self.lock();
        if tenures
            .of(&row.run_id)
            .is_some_and(|held| held.epoch == row.epoch)
        {
            return false;
        }
        tenures.unclaimed.remove(&row.run_id);
        tenures.forgoings += 1;
        let number = tenures.forgoings;
        let forgone = Forgone {
            seed: row.seed,
            epoch: row.epoch,
            number,
        };
        tenures.forgone.insert(row.run_id.clone(), forgone);
        if tenures.forgone.len() > MOST_FORGONE {
            let recent = number.saturating_sub(MOST_FORGONE as u64 / 2);
            tenures.forgone.retain(|_, forgone| forgone.number > recent);
        }
        true
    }

    /// What was taken over and is not in hand.
    pub(super) fn unclaimed(&self) -> Vec<(RunId, i64)> {
        let tenures = self.lock();
        let entries = tenures.unclaimed.iter();
        entries.map(|(id, epoch)| (id.clone(), *epoch)).collect()
    }
}
