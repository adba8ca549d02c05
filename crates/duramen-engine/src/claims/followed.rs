//! Runs that were started here: whoever started them goes on with them until they end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use duramen_core::ids::{Millis, RunId};

use crate::env::Moment;

/// The pause after a first try in vain, and how often it is doubled: to six seconds.
const SOONEST: Millis = 100;
const DOUBLINGS: u32 = 6;

/// A run that is paused now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Paused {
    /// When it is due, by the store's time.
    at: Option<Millis>,
    /// It was tried in vain, and is not tried again before.
    rests_until: Option<Moment>,
    /// How often in a row it was tried in vain.
    vain: u32,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Followed {
    paused: BTreeMap<RunId, Paused>,
    /// The same by their instants, except those that rest: finding who is due must not walk over all
    /// that sleep.
    due: BTreeSet<(Millis, RunId)>,
    resting: BTreeSet<(Moment, RunId)>,
    /// Runs that are driven now.
    driven: BTreeSet<RunId>,
    /// Runs that these have started, and that are not there yet.
    coming: BTreeSet<RunId>,
}

impl Followed {
    /// The run was started here and is driven.
    pub(super) fn own(&mut self, run_id: &RunId) {
        self.driven.insert(run_id.clone());
    }

    /// It is to be gone on with here, although it was not driven here before. An instant that is known
    /// stays.
    pub(super) fn adopt(&mut self, run_id: &RunId, at: Option<Millis>) {
        if !self.driven.contains(run_id) && !self.paused.contains_key(run_id) {
            self.put(run_id, Paused::default(), at, None);
        }
    }

    /// The run is driven again.
    pub(super) fn wakes(&mut self, run_id: &RunId) {
        if self.remove(run_id) {
            self.driven.insert(run_id.clone());
        }
    }

    /// The run is not driven any more. True if it is followed, as the only one.
    pub(super) fn pauses(&mut self, run_id: &RunId, at: Option<Millis>) -> bool {
        if !self.driven.remove(run_id) {
            return false;
        }
        let first = self.paused.is_empty();
        self.put(run_id, Paused::default(), at, None);
        first
    }

    /// A run has started these. They are followed as it is, as soon as they are there.
    pub(super) fn starts(&mut self, parent: &RunId, run_ids: Vec<RunId>) {
        if self.knows(parent) {
            let unknown = run_ids.into_iter().filter(|run_id| !self.knows(run_id));
            let unknown: Vec<_> = unknown.collect();
            self.coming.extend(unknown);
        }
    }

    /// One of them is there. True if it is to be followed.
    pub(super) fn started(&mut self, by: &RunId, run_id: &RunId) -> bool {
        self.coming.remove(run_id) || self.knows(by)
    }

    /// Whether the run is gone on with here.
    fn knows(&self, run_id: &RunId) -> bool {
        self.driven.contains(run_id) || self.paused.contains_key(run_id)
    }

    pub(super) fn forget(&mut self, run_id: &RunId) {
        self.driven.remove(run_id);
        self.remove(run_id);
    }

    fn remove(&mut self, run_id: &RunId) -> bool {
        let Some(paused) = self.paused.remove(run_id) else {
            return false;
        };
        self.unlist(run_id, paused);
        true
    }

    fn unlist(&mut self, run_id: &RunId, paused: Paused) {
        if let Some(until) = paused.rests_until {
            self.resting.remove(&(until, run_id.clone()));
        } else if let Some(at) = paused.at {
            self.due.remove(&(at, run_id.clone()));
        }
    }

    fn put(&mut self, run_id: &RunId, before: Paused, at: Option<Millis>, rests: Option<Moment>) {
        self.unlist(run_id, before);
        let paused = Paused {
            at,
            rests_until: rests,
            vain: before.vain,
        };
        if let Some(until) = rests {
            self.resting.insert((until, run_id.clone()));
        } else if let Some(at) = at {
            self.due.insert((at, run_id.clone()));
        }
        self.paused.insert(run_id.clone(), paused);
    }

    /// When a paused run is due. True if that was not known.
    pub(super) fn due_at(&mut self, run_id: &RunId, at: Option<Millis>) -> bool {
        let Some(before) = self.paused.get(run_id).copied() else {
            return false;
        };
        if before.at == at {
            return false;
        }
        let afresh = Paused { vain: 0, ..before };
        self.put(run_id, afresh, at, None);
        true
    }

    /// The same, if nothing was known at all.
    pub(super) fn due_at_first(&mut self, run_id: &RunId, at: Millis) -> bool {
        let unknown = self.paused.get(run_id).is_some_and(|it| it.at.is_none());
        unknown && self.due_at(run_id, Some(at))
    }

    /// It is not tried before that moment, whenever it is due.
    pub(super) fn rests(&mut self, run_id: &RunId, until: Moment) {
        if let Some(before) = self.paused.get(run_id).copied() {
            self.put(run_id, before, before.at, Some(until));
        }
    }

    /// It is due, and was not to be had: tried again after a pause that grows for as long as it is due then, for it
    /// may be one that only others can take.
    pub(super) fn tried_in_vain(&mut self, run_id: &RunId, now: Moment) {
        if let Some(mut before) = self.paused.get(run_id).copied() {
            let pause = SOONEST << before.vain.min(DOUBLINGS);
            self.unlist(run_id, before);
            before.rests_until = None;
            before.vain += 1;
            self.put(run_id, before, before.at, Some(now.after(pause)));
        }
    }

    /// Runs that are due, and if there are not so many: when the next one will be, and when the next
    /// has rested.
    pub(super) fn take_due(
        &mut self,
        now: Millis,
        moment: Moment,
        most: usize,
    ) -> (Vec<RunId>, Option<Millis>, Option<Moment>) {
        let mut rested = None;
        while let Some((until, run_id)) = self.resting.first().cloned() {
            if until > moment {
                rested = Some(until);
                break;
            }
            let before = self.paused.get(&run_id).copied().unwrap_or_default();
            self.resting.pop_first();
            self.put(&run_id, before, before.at, None);
        }
        let mut due = Vec::new();
        for (at, run_id) in &self.due {
            if *at > now {
                return (due, Some(*at), rested);
            }
            if due.len() == most {
                break;
            }
            due.push(run_id.clone());
        }
        (due, None, rested)
    }

    /// Up to `most` paused runs behind `from`, in order.
    pub(super) fn after(&self, from: Option<&RunId>, most: usize) -> Vec<RunId> {
        let from = from.map_or(Bound::Unbounded, Bound::Excluded);
        self.paused
            .range::<RunId, _>((from, Bound::Unbounded))
            .take(most)
            .map(|(run_id, _)| run_id.clone())
            .collect()
    }

    /// Those that are paused.
    pub(super) fn len(&self) -> usize {
        self.paused.len()
    }

    /// All that are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.paused.len() + self.driven.len()
    }
}
