//! The runs that one sweep has taken up, and what became of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use duramen_core::ids::RunId;
use tokio::sync::Notify;

use crate::host::{Driven, SweepReport, Ticket, Token};

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Group {
    /// The call of the sweep: what it may use is its own, and no other sweep's.
    pub(super) token: Token,
    pub(super) changed: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    class: usize,
    pending: BTreeMap<Ticket, (usize, RunId)>,
    done: [Vec<(RunId, &'static str)>; 3],
    /// A run left its hands and is due again.
    due: bool,
}

impl Group {
    pub(super) fn new(token: Token) -> Self {
        Self {
            token,
            changed: Notify::new(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is taken up from now on belongs to that class.
    pub(super) fn begins(&self, class: usize) {
        self.state().class = class;
    }

    pub(super) fn took(&self, ticket: Ticket, run_id: RunId) {
        let mut state = self.state();
        let class = state.class;
        state.pending.insert(ticket, (class, run_id));
    }

    /// It was claimed, and something else was decided than to drive it.
    pub(super) fn settled(&self, run_id: RunId, driven: Driven) {
        let mut state = self.state();
        let class = state.class;
        state.done[class].push((run_id, driven.name()));
    }

    pub(super) fn ended(&self, ticket: Ticket, driven: Driven, due: bool) {
        let mut state = self.state();
        state.due |= due;
        if let Some((class, run_id)) = state.pending.remove(&ticket) {
            state.done[class].push((run_id, driven.name()));
        }
        let empty = state.pending.is_empty();
        drop(state);
        if empty {
            self.changed.notify_one();
        }
    }

    /// Runs that are in its hands still.
    pub(super) fn pending(&self) -> Vec<Ticket> {
        self.state().pending.keys().copied().collect()
    }

    /// Adds what became of the runs; what is in its hands still is left there.
    pub(super) fn report(&self, report: &mut SweepReport) {
        let mut state = self.state();
        report.more |= state.due;
        for (class, run_id) in std::mem::take(&mut state.pending).into_values() {
            state.done[class].push((run_id, "running"));
            report.more = true;
        }
        let done = std::mem::take(&mut state.done);
        drop(state);
        let lost = Driven::Lost.name();
        report.more |= done.iter().flatten().any(|(_, kind)| *kind == lost);
        [report.recovered, report.timers, report.queued] = done;
    }
}
