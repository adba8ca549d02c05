//! The contract of a store: batch-first, fenced, and the only way in which a run changes.
//!
//! Every method takes whole batches and answers each element by itself: a conflict, a bad row or a
//! stranger's lock fails its own element, never its neighbours. A returned future starts its work when
//! the method is called, not when it is first polled, and completes whether or not it is awaited.
//!
//! **Time.** Each request that decides about leases or due times has `now`. `None` means the store's
//! own clock; `Some` is an explicit instant given by a test. One runtime never mixes the two.
//!
//! **Leases belong to owners.** An owner is one incarnation of one process; it has one row with the end
//! of its lease ([`Claims::heartbeat`]). A running run has an owner and an epoch, and no time of its own.
//! An owner whose lease has ended is never renewed: it has *ended* for good, and its runs are anybody's.
//!
//! **The fence.** A run changes only by a commit that names its life (the seed), its owner, its epoch and
//! the length of its journal. Each claim and each intervention raises the epoch.
//!
//! **Errors.** An error of the whole call ([`StoreError`]) says by [`StoreError::is_of_the_place`] whether
//! the place is in trouble (wait, try again) or the request is wrong. An answer to one element that is
//! about the element alone (`Rejected`, `Full`) is never given for trouble of the place.

mod claims;
mod commits;
mod error;
mod family;
mod inbox;
mod interventions;
mod outgoing;
mod owners;
mod queries;
mod runs;
mod schedules;
mod schema;
mod streams;
mod transactions;

use std::sync::Arc;

use crate::ids::{Millis, RunId};
use crate::journal::Entry;

pub use claims::{Claim, Claimed, ClaimedRun, Due, DueAsk, NextDue};
pub use commits::{CommitOutcome, Next, ReadMessage, RunCommit};
pub use error::{StoreError, StoreFuture};
pub use family::{Inquiry, end_of_child, inquiries, place_of_end};
pub use inbox::{
    Delivered, Delivery, INBOX_PAGE, INBOX_PAGE_BYTES, InboxPage, MAX_UNREAD, MAX_UNREAD_BYTES,
    Message, MessageKind, NewMessage, Receipt,
};
pub use interventions::{Intervened, Intervention};
pub use outgoing::{BadItem, Errand, Outgoing, OutgoingKind, Unsent, UnsentAsk};
pub use owners::{Beat, ENDED_OWNERS_KEPT, Heartbeat, OwnerRow};
pub use queries::{Cursor, Filter, OpenRuns, Page, RunDetail, Standing};
pub use runs::{Created, NewRun, Start};
pub use schedules::{DueSchedules, ScheduleAsk, ScheduleChange, ScheduleRow};
pub use schema::{Schema, WorkflowKey};
pub use streams::{
    Appended, MOST_PRUNED, STREAM_PAGE_BYTES, StreamAppend, StreamAsk, StreamItem, StreamPage,
    StreamWrite,
};
pub use transactions::{Change, Expect, Script, Statement, Transactions, Value};

/// What another process may have changed. A store that cannot tell calls with both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// A run may have become due.
    Due,
    /// A message may have come for a run that is being driven.
    Unread,
}

/// How a store passes hints on. Cheap, does not block, and may be called from any thread.
pub type Wake = Arc<dyn Fn(Hint) + Send + Sync>;

/// Runs: how they begin, change and are changed from outside.
pub trait Runs: Send + Sync + 'static {
    /// Creates runs, each with journal entry 0 (`run_created`, the input) and what it brings of a
    /// journal. An id that exists keeps its first input and is answered with its row.
    ///
    /// A run that is to be leased to an owner without a live lease is created queued instead.
    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>>;

    /// Applies run commits, each whole or not at all, fenced by life, owner, epoch and journal length.
    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>>;

    /// Terminates, reopens or deletes runs, whoever holds them.
    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>>;

    /// What commits left to be carried out and nobody has reported as sent, oldest first.
    fn unsent(&self, ask: UnsentAsk) -> StoreFuture<Vec<Unsent>>;

    /// Takes items out that were carried out. Whoever is late takes out nothing.
    fn sent(&self, items: Vec<Unsent>) -> StoreFuture<()>;
}

/// Owners and what they drive.
pub trait Claims: Send + Sync + 'static {
    /// Registers an owner or renews its lease, and moves to it what an ended incarnation still holds.
    /// One row is written, however many runs are driven.
    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat>;

    /// Ends an owner: its runs are anybody's at once.
    fn retire(&self, owner: String, now: Option<Millis>) -> StoreFuture<()>;

    /// Owners that have not ended, and those that have ended within the last day, by name.
    fn owners(&self) -> StoreFuture<Vec<OwnerRow>>;

    /// What an owner holds, run ids with their epochs, in the order of the run ids, behind `after`.
    fn held(
        &self,
        owner: String,
        after: Option<RunId>,
        limit: u32,
    ) -> StoreFuture<Vec<(RunId, i64)>>;

    /// Gives due runs to an owner whose lease lasts: raises their epoch, sets `started_at` once, and
    /// brings back rows, journals and unread messages in bulk. Locks nothing but what it takes.
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed>;

    /// When the next claim could find something, and the store's time.
    fn next_due(&self, ask: DueAsk) -> StoreFuture<NextDue>;
}

/// Messages to runs.
pub trait Inboxes: Send + Sync + 'static {
    /// Puts messages into inboxes and makes the runs that wait for them due, atomically each.
    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>>;

    /// Messages that runs held by `owner` have not seen yet (behind `inbox_seen`): the cross-process wake-up
    /// of running runs. Of a run that stands in `told` only those behind that number as well; of each run
    /// a page at the most.
    fn unread(&self, owner: String, told: Vec<(RunId, u64)>) -> StoreFuture<Vec<Message>>;

    /// A page of a run's unread messages, seen or not, behind a number: what a claim has left behind.
    fn inbox(&self, run_id: RunId, behind: u64) -> StoreFuture<InboxPage>;

    /// What became of messages, with the replies to them. `None` where there is no such message.
    fn receipts(&self, messages: Vec<(RunId, String)>) -> StoreFuture<Vec<Option<Receipt>>>;
}

/// Streams of runs; see [`StreamWrite`]. (What a handler writes comes with [`Runs::commit`].)
pub trait Streams: Send + Sync + 'static {
    /// Appends what steps have written, each whole or not at all, fenced by life, owner and epoch of a running run.
    fn append(&self, batch: Vec<StreamAppend>) -> StoreFuture<Vec<Appended>>;

    /// Items of one stream, in order. None where there is no such run. Nothing is locked.
    fn stream(&self, ask: StreamAsk) -> StoreFuture<Option<StreamPage>>;
}

/// What people and drivers ask without changing anything.
pub trait Queries: Send + Sync + 'static {
    /// Rows with what people ask of a run; `None` where there is no such run.
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>>;

    /// Where runs stand right now, read at little cost; `None` where there is no such run.
    fn standing(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<Standing>>>;

    /// Journal entries of one run from an index on, in order, so many places of it. There are none of an
    /// unknown run, and none from an index that belongs to a former generation.
    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>>;

    /// Rows, newest first, stable under inserts.
    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page>;

    /// How many runs a filter matches.
    fn count(&self, filter: Filter) -> StoreFuture<u64>;

    /// Counts the runs that have not ended by lane and status, sorted; those that have ended cost nothing.
    fn census(&self) -> StoreFuture<Vec<OpenRuns>>;
}

/// What starts runs at their times.
pub trait Schedules: Send + Sync + 'static {
    /// Writes or removes schedules, each only if it has the version that is expected. False: it has not, or
    /// somebody else's transaction holds it.
    fn change_schedules(&self, batch: Vec<ScheduleChange>) -> StoreFuture<Vec<bool>>;

    /// Looks schedules up; `None` where there is no such schedule.
    fn get_schedules(&self, ids: Vec<String>) -> StoreFuture<Vec<Option<ScheduleRow>>>;

    /// All schedules by id, behind `after`.
    fn list_schedules(&self, after: Option<String>, limit: u32) -> StoreFuture<Vec<ScheduleRow>>;

    /// Those that somebody has to look at now. If there are none, it costs one probe of an index for each
    /// workflow, however many schedules there are.
    fn due_schedules(&self, ask: ScheduleAsk) -> StoreFuture<DueSchedules>;
}

/// A place that keeps runs. See the module's head for the rules that all methods share.
pub trait Store: Runs + Claims + Inboxes + Streams + Queries + Schedules {
    /// Applies missing migrations; safe to call from several processes at once.
    fn migrate(&self) -> StoreFuture<Schema>;

    /// Reads the schema version without changing anything.
    fn schema(&self) -> StoreFuture<Schema>;

    /// Calls `wake` from now on when other processes may have made something due, until the store is
    /// closed. Hints may be lost, late, coalesced and wrong: whoever gets them polls as well. After a
    /// time without them (a connection was lost) a store gives one, for what it may have missed.
    /// A store without any ignores this.
    fn watch(&self, _wake: Wake) {}

    /// How to take part in a transaction that the caller holds in the store's database. None where
    /// that cannot be done.
    fn transactions(&self) -> Option<&dyn Transactions> {
        None
    }

    /// Ends background work and releases files. Later calls answer [`StoreError::Closed`].
    fn close(&self) -> StoreFuture<()>;
}
