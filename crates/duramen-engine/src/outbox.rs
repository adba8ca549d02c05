//! What has left runs that were driven here, or elsewhere by a process that died, and is to be carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duramen_core::ids::RunId;
use duramen_core::store::{RunCommit, Unsent};
use tokio::sync::Notify;

/// Which item of a run it is: its entry and its number.
type Place = (u64, u32);

#[derive(Debug, Default)]
struct State {
    /// In the order in which they left each run.
    items: BTreeMap<RunId, BTreeMap<Place, Unsent>>,
    /// What this build cannot carry out: passed over, and left to others.
    passed: BTreeSet<(RunId, Place)>,
    /// The store is to be asked for what others have left behind,
    look: bool,
    /// and for what has left these runs with changes that were made from here.
    look_at: BTreeSet<RunId>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Has one waiter, and a signal that comes before the wait is kept for it.
    pub(crate) bell: Arc<Notify>,
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.bell.notify_one();
    }
}

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That commit took place.
    pub(crate) fn committed(&self, commit: &RunCommit) {
        if commit.outgoing.is_empty() {
            return;
        }
        let items = commit.outgoing.iter().zip(0..);
        self.add(items.map(|(item, number)| Unsent {
            run_id: commit.run_id.clone(),
            entry: commit.expected_len,
            number,
            kind: item.kind,
            target: item.target.clone(),
            body: item.body.clone(),
            at: commit.at,
        }));
    }

    pub(crate) fn add(&self, items: impl IntoIterator<Item = Unsent>) {
        let mut state = self.state();
        for item in items {
            let place = (item.entry, item.number);
            if !state.passed.contains(&(item.run_id.clone(), place)) {
                let of_run = state.items.entry(item.run_id.clone()).or_default();
                of_run.entry(place).or_insert(item);
            }
        }
        drop(state);
        self.bell.notify_one();
    }

    /// Others may have left something behind.
    pub(crate) fn look(&self) {
        self.state().look = true;
        self.bell.notify_one();
    }

    /// Something has left that run; only the store knows its place.
    pub(crate) fn look_at(&self, run_id: &RunId) {
        self.state().look_at.insert(run_id.clone());
        self.bell.notify_one();
    }

    pub(crate) fn takes_look_at(&self) -> Option<RunId> {
        self.state().look_at.pop_first()
    }

    /// Whether something of that run is still to be carried out here.
    pub(crate) fn has(&self, run_id: &RunId) -> bool {
        self.state().items.contains_key(run_id)
    }

    pub(crate) fn takes_look(&self) -> bool {
        std::mem::take(&mut self.state().look)
    }

    /// The first items of each run but some, up to so many: of one run as many as are of one kind, each for another
    /// run. So they depend on each other in no way, and what goes to one run goes in its order.
    pub(crate) fn firsts(&self, most: usize, but: &BTreeSet<RunId>) -> Vec<Unsent> {
        let state = self.state();
        let mut firsts = Vec::new();
        for (run_id, of_run) in &state.items {
            if but.contains(run_id) {
                continue;
            }
            let mut targets = BTreeSet::new();
            let kind = of_run.values().next().map(|first| first.kind);
            for item in of_run.values() {
                if firsts.len() == most {
                    return firsts;
                }
                if Some(item.kind) != kind || !targets.insert(&item.target) {
                    break;
                }
                firsts.push(item.clone());
            }
        }
        firsts
    }

    /// An item is out, or not for this build.
    pub(crate) fn done(&self, item: &Unsent, passed: bool) {
        let mut state = self.state();
        let place = (item.entry, item.number);
        if let Some(of_run) = state.items.get_mut(&item.run_id) {
            of_run.remove(&place);
            if of_run.is_empty() {
                state.items.remove(&item.run_id);
            }
        }
        if passed {
            state.passed.insert((item.run_id.clone(), place));
        }
    }
}
