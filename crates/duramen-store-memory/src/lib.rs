//! A store in the process's memory: the reference implementation of the [`Store`] contract.
//!
//! It is written to be obviously right, not to be fast: one map of runs behind one mutex, every
//! method runs to its end before it returns. The other stores are compared with it, answer by
//! answer, so a rule that is unclear in the contract is decided here (see `state.rs`).

mod claim;
mod query;
mod state;

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use duramen_core::check;
use duramen_core::ids::RunId;
use duramen_core::journal::Entry;
use duramen_core::store::{
    Beat, Claim, Claimed, CommitOutcome, Created, Cursor, Delivered, Filter, Heartbeat, Intervened,
    Intervention, Message, NewMessage, NewRun, NextDue, Page, RunCommit, RunDetail, Schema, Store,
    StoreError, StoreFuture, WorkflowKey,
};

use state::State;

/// Runs in memory; gone when the last clone is dropped. Clones share their runs.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<Slot>>,
}

/// The runs, or nothing once the store is closed.
#[derive(Debug)]
enum Slot {
    Open(State),
    Closed,
}

impl Default for Slot {
    fn default() -> Self {
        Self::Open(State::default())
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` on the state at once and hands the answer out as a finished future.
    fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> StoreFuture<T> {
        // A panic inside a method would be a bug here; the state stays readable for the others.
        let mut slot = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match &mut *slot {
            Slot::Open(state) => work(state),
            Slot::Closed => Err(StoreError::Closed),
        };
        drop(slot);
        Box::pin(ready(answer))
    }
}

/// Memory has no schema: nothing is needed and nothing is found.
const SCHEMA: Schema = Schema {
    found: 0,
    needed: 0,
    applied: Vec::new(),
};

impl Store for MemoryStore {
    fn migrate(&self) -> StoreFuture<Schema> {
        self.with(|_| Ok(SCHEMA))
    }

    fn schema(&self) -> StoreFuture<Schema> {
        self.with(|_| Ok(SCHEMA))
    }

    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        self.with(|state| {
            batch.iter().try_for_each(check::new_run)?;
            Ok(batch.into_iter().map(|new| state.create(new)).collect())
        })
    }

    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.with(|state| Ok(state.claim(&claim)))
    }

    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        self.with(|state| Ok(batch.into_iter().map(|one| state.commit(one)).collect()))
    }

    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat> {
        self.with(|state| Ok(state.heartbeat(&beat)))
    }

    fn unread(&self, owner: String) -> StoreFuture<Vec<Message>> {
        self.with(|state| Ok(state.unread(&owner)))
    }

    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        self.with(|state| {
            batch.iter().try_for_each(check::new_message)?;
            Ok(batch.into_iter().map(|new| state.deliver(new)).collect())
        })
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        self.with(|state| Ok(batch.into_iter().map(|one| state.intervene(one)).collect()))
    }

    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        self.with(|state| Ok(run_ids.iter().map(|run_id| state.get(run_id)).collect()))
    }

    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>> {
        self.with(|state| Ok(state.load(&run_id, from, limit)))
    }

    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page> {
        self.with(|state| Ok(state.list(&filter, limit, cursor.as_ref())))
    }

    fn count(&self, filter: Filter) -> StoreFuture<u64> {
        self.with(|state| Ok(state.count(&filter)))
    }

    fn next_due(&self, workflows: Vec<WorkflowKey>) -> StoreFuture<NextDue> {
        self.with(|state| Ok(state.next_due(&workflows)))
    }

    fn close(&self) -> StoreFuture<()> {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Closed;
        Box::pin(ready(Ok(())))
    }
}
