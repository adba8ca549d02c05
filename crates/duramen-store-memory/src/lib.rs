//! A store in the process's memory: the reference implementation of the [`Store`] contract.
//!
//! It is written to be obviously right, not to be fast: one map of runs behind one mutex, every
//! method runs to its end before it returns. The other stores are compared with it, answer by
//! answer, so a rule that is unclear in the contract is decided here (see `state.rs`).

mod claim;
mod owners;
mod query;
mod schedules;
mod state;
mod streams;

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};

use duramen_core::check;
use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::store::{
    Appended, Beat, Claim, Claimed, Claims, CommitOutcome, Created, Cursor, Delivered, DueAsk,
    DueSchedules, Filter, Heartbeat, InboxPage, Inboxes, Intervened, Intervention, Message,
    NewMessage, NewRun, NextDue, OpenRuns, OwnerRow, Page, Queries, Receipt, RunCommit, RunDetail,
    Runs, ScheduleAsk, ScheduleChange, ScheduleRow, Schedules, Schema, Standing, Store, StoreError,
    StoreFuture, StreamAppend, StreamAsk, StreamPage, Streams, Unsent, UnsentAsk,
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

impl Runs for MemoryStore {
    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        self.with(|state| {
            batch.iter().try_for_each(check::new_run)?;
            Ok(batch.into_iter().map(|new| state.create(new)).collect())
        })
    }

    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        self.with(|state| Ok(batch.into_iter().map(|one| state.commit(one)).collect()))
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        self.with(|state| {
            batch.iter().try_for_each(check::intervention)?;
            Ok(batch.into_iter().map(|one| state.intervene(one)).collect())
        })
    }

    fn unsent(&self, ask: UnsentAsk) -> StoreFuture<Vec<Unsent>> {
        self.with(|state| Ok(state.unsent(&ask)))
    }

    fn sent(&self, items: Vec<Unsent>) -> StoreFuture<()> {
        self.with(|state| {
            state.sent(&items);
            Ok(())
        })
    }
}

impl Claims for MemoryStore {
    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat> {
        self.with(|state| {
            check::owner(&beat.owner)?;
            Ok(state.heartbeat(beat))
        })
    }

    fn retire(&self, owner: String, now: Option<Millis>) -> StoreFuture<()> {
        self.with(|state| {
            state.retire(&owner, now);
            Ok(())
        })
    }

    fn owners(&self) -> StoreFuture<Vec<OwnerRow>> {
        self.with(|state| Ok(state.owners()))
    }

    fn held(
        &self,
        owner: String,
        after: Option<RunId>,
        limit: u32,
    ) -> StoreFuture<Vec<(RunId, i64)>> {
        self.with(|state| Ok(state.held(&owner, after.as_ref(), limit)))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.with(|state| Ok(state.claim(&claim)))
    }

    fn next_due(&self, ask: DueAsk) -> StoreFuture<NextDue> {
        self.with(|state| Ok(state.next_due(&ask)))
    }
}

impl Inboxes for MemoryStore {
    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        self.with(|state| {
            batch.iter().try_for_each(check::new_message)?;
            Ok(batch.into_iter().map(|new| state.deliver(new)).collect())
        })
    }

    fn unread(&self, owner: String, told: Vec<(RunId, u64)>) -> StoreFuture<Vec<Message>> {
        self.with(|state| Ok(state.unread(&owner, &told)))
    }

    fn inbox(&self, run_id: RunId, behind: u64) -> StoreFuture<InboxPage> {
        self.with(|state| Ok(state.inbox(&run_id, behind)))
    }

    fn receipts(&self, messages: Vec<(RunId, String)>) -> StoreFuture<Vec<Option<Receipt>>> {
        self.with(|state| {
            let receipt =
                |(run_id, message_id): &(RunId, String)| state.receipt(run_id, message_id);
            Ok(messages.iter().map(receipt).collect())
        })
    }
}

impl Streams for MemoryStore {
    fn append(&self, batch: Vec<StreamAppend>) -> StoreFuture<Vec<Appended>> {
        self.with(|state| Ok(batch.iter().map(|one| state.append(one)).collect()))
    }

    fn stream(&self, ask: StreamAsk) -> StoreFuture<Option<StreamPage>> {
        self.with(|state| Ok(state.stream(&ask)))
    }
}

impl Queries for MemoryStore {
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        self.with(|state| Ok(run_ids.iter().map(|run_id| state.get(run_id)).collect()))
    }

    fn standing(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<Standing>>> {
        self.with(|state| {
            let standing = |run_id| state.standing(run_id);
            Ok(run_ids.iter().map(standing).collect())
        })
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

    fn census(&self) -> StoreFuture<Vec<OpenRuns>> {
        self.with(|state| Ok(state.census()))
    }
}

impl Schedules for MemoryStore {
    fn change_schedules(&self, batch: Vec<ScheduleChange>) -> StoreFuture<Vec<bool>> {
        self.with(|state| {
            batch.iter().try_for_each(check::schedule)?;
            let change = |one| state.change_schedule(one);
            Ok(batch.into_iter().map(change).collect())
        })
    }

    fn get_schedules(&self, ids: Vec<String>) -> StoreFuture<Vec<Option<ScheduleRow>>> {
        self.with(|state| {
            let row = |id: &String| state.schedules.get(id).cloned();
            Ok(ids.iter().map(row).collect())
        })
    }

    fn list_schedules(&self, after: Option<String>, limit: u32) -> StoreFuture<Vec<ScheduleRow>> {
        self.with(|state| Ok(state.list_schedules(after.as_deref(), limit)))
    }

    fn due_schedules(&self, ask: ScheduleAsk) -> StoreFuture<DueSchedules> {
        self.with(|state| Ok(state.due_schedules(&ask)))
    }
}

impl Store for MemoryStore {
    fn migrate(&self) -> StoreFuture<Schema> {
        self.with(|_| Ok(SCHEMA))
    }

    fn schema(&self) -> StoreFuture<Schema> {
        self.with(|_| Ok(SCHEMA))
    }

    fn close(&self) -> StoreFuture<()> {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Closed;
        Box::pin(ready(Ok(())))
    }
}
