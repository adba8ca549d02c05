//! Calls drivers back at the instants that they hold their runs for, and after pauses.
//!
//! One task and two ordered sets for all runs, one mark a run in each: a task for each instant would
//! outlive its run by as long as its deadline is away. An instant is one of the store's time and may come
//! sooner or later than was thought, when a clock is set; a pause is over when it is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use duramen_core::ids::Millis;
use tokio::sync::Notify;

use crate::common::Common;
use crate::env::{Moment, span};
use crate::host::{HostEvent, Ticket};

/// The longest sleep; the time of day may be set in the meantime.
const LONGEST: Millis = 5_000;

/// Marks of runs, one a run at the most.
#[derive(Debug)]
struct Marks<At> {
    by_run: BTreeMap<Ticket, At>,
    in_order: BTreeSet<(At, Ticket)>,
}

impl<At: Ord + Copy> Marks<At> {
    const fn new() -> Self {
        Self {
            by_run: BTreeMap::new(),
            in_order: BTreeSet::new(),
        }
    }

    /// True if no earlier one is waited for.
    fn set(&mut self, ticket: Ticket, at: At) -> bool {
        if let Some(before) = self.by_run.insert(ticket, at) {
            self.in_order.remove(&(before, ticket));
        }
        self.in_order.insert((at, ticket));
        self.in_order.first() == Some(&(at, ticket))
    }

    fn forget(&mut self, ticket: Ticket) {
        if let Some(at) = self.by_run.remove(&ticket) {
            self.in_order.remove(&(at, ticket));
        }
    }

    /// Takes those that have come, and says when the next one will.
    fn take(&mut self, now: At, due: &mut Vec<Ticket>) -> Option<At> {
        while let Some((at, ticket)) = self.in_order.first().copied() {
            if at > now {
                return Some(at);
            }
            self.forget(ticket);
            due.push(ticket);
        }
        None
    }
}

#[derive(Debug)]
struct State {
    instants: Marks<Millis>,
    pauses: Marks<Moment>,
}

/// See the module's head.
pub(crate) struct Ticks {
    common: Arc<Common>,
    state: Mutex<State>,
    /// Something is waited for that comes sooner than all else.
    sooner: Arc<Notify>,
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.sooner.notify_one();
    }
}

impl Ticks {
    pub(crate) fn new(common: Arc<Common>) -> Arc<Self> {
        let state = Mutex::new(State {
            instants: Marks::new(),
            pauses: Marks::new(),
        });
        let ticks = Arc::new(Self {
            common,
            state,
            sooner: Arc::default(),
        });
        let ticking = tick(Arc::downgrade(&ticks), Arc::clone(&ticks.sooner));
        ticks.common.env.spawn(Box::pin(ticking));
        ticks
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.sooner.notify_one();
    }

    /// Wakes the run's driver when the store has that time, unless the run is forgotten by then.
    pub(crate) fn at(&self, ticket: Ticket, instant: Millis) {
        if self.state().instants.set(ticket, instant) {
            self.sooner.notify_one();
        }
    }

    /// Wakes the run's driver after a pause, unless the run is forgotten by then.
    pub(crate) fn after(&self, ticket: Ticket, pause: Millis) {
        let over = self.common.clock.moment().after(pause);
        if self.state().pauses.set(ticket, over) {
            self.sooner.notify_one();
        }
    }

    pub(crate) fn forget(&self, ticket: Ticket) {
        let mut state = self.state();
        state.instants.forget(ticket);
        state.pauses.forget(ticket);
    }

    pub(crate) fn len(&self) -> usize {
        let state = self.state();
        state.instants.by_run.len() + state.pauses.by_run.len()
    }

    /// Takes what has come, and says how long the next may take at the least.
    fn take(&self) -> (Vec<Ticket>, Millis) {
        let (now, moment) = (self.common.clock.now(), self.common.clock.moment());
        let mut due = Vec::new();
        let mut state = self.state();
        let instant = state.instants.take(now, &mut due);
        let pause = state.pauses.take(moment, &mut due);
        let next = [
            instant.map(|at| at.saturating_sub(now)),
            pause.map(|at| at.since(moment)),
        ];
        let next = next.into_iter().flatten().min();
        (due, next.map_or(LONGEST, |span| span.min(LONGEST)))
    }
}

async fn tick(ticks: Weak<Ticks>, sooner: Arc<Notify>) {
    while let Some(ticks) = ticks.upgrade().filter(|ticks| !ticks.common.is_closing()) {
        let (due, pause) = ticks.take();
        let events = due.into_iter().map(|ticket| HostEvent::Tick { ticket });
        ticks.common.host.push_all(events);
        let sleep = ticks.common.env.sleep(span(pause));
        drop(ticks);
        tokio::select! {
            biased; // the order is not left to chance: a simulation must be able to repeat it
            () = sleep => {}
            () = sooner.notified() => {}
        }
    }
}
