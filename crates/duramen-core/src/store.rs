//! The contract of a store: batch-first, fenced, and the only way in which a run changes.
//!
//! Every method takes whole batches and answers each element by itself: a conflict or a bad row
//! fails its own element, never its neighbours. A returned future starts its work when the method
//! is called, not when it is first polled, and completes whether or not it is awaited.
//!
//! Time: each request that decides about leases or due times has `now`. `None` means the store's
//! own clock; `Some` is an explicit instant given by a test. One runtime never mixes the two.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{Millis, Payload, RunId};
use crate::journal::Entry;
use crate::run::{RunRow, Seed, Status};
use crate::script::{Change, Script};

/// What store methods return: owned, sendable, already under way.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'static>>;

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

/// A place that keeps runs. See the module's head for the rules that all methods share.
pub trait Store: Send + Sync + 'static {
    /// Applies missing migrations; safe to call from several processes at once.
    fn migrate(&self) -> StoreFuture<Schema>;

    /// Reads the schema version without changing anything.
    fn schema(&self) -> StoreFuture<Schema>;

    /// Creates runs, each with journal entry 0 (`run_created`, the input). An id that exists keeps
    /// its first input and is answered with its row.
    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>>;

    /// Leases due runs to an owner: raises their epoch, sets `started_at` once, and brings back
    /// rows, journals and unread messages in bulk.
    fn claim(&self, claim: Claim) -> StoreFuture<Claimed>;

    /// Applies run commits, each whole or not at all, fenced by owner, epoch and journal length.
    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>>;

    /// Moves the lease end of every run the owner holds, in one statement.
    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat>;

    /// Messages that runs held by `owner` have not seen yet; the cross-process wake-up of running runs.
    fn unread(&self, owner: String) -> StoreFuture<Vec<Message>>;

    /// Puts messages into inboxes and makes the runs that wait for them due, atomically each.
    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>>;

    /// Terminates, reopens or deletes runs, whoever holds them.
    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>>;

    /// Rows with what people ask of a run; `None` where there is no such run.
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>>;

    /// Journal entries of one run from an index on, in order. An unknown run has none.
    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>>;

    /// Rows, newest first, stable under inserts.
    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page>;

    /// How many runs a filter matches.
    fn count(&self, filter: Filter) -> StoreFuture<u64>;

    /// When the next claim could find something: the least `ready_at` of live runs of these
    /// workflows (leases included), and the store's time.
    fn next_due(&self, workflows: Vec<WorkflowKey>) -> StoreFuture<NextDue>;

    /// Calls `wake` from now on when other processes may have made something due, until the store is
    /// closed. Hints may be lost, late, coalesced and wrong: whoever gets them polls as well. After a
    /// time without them (a connection was lost) a store gives one, for what it may have missed.
    /// A store without any ignores this.
    fn watch(&self, _wake: Wake) {}

    /// A change as statements of the store's dialect, for a transaction that the caller holds in the
    /// store's database. Nothing is done. A store that cannot be written to from outside refuses.
    fn script(&self, change: &Change) -> Result<Script, StoreError> {
        let _ = change;
        Err(StoreError::Invalid {
            reason:
                "this store cannot take part in a transaction of yours; use one in Postgres or \
                     SQLite"
                    .to_owned(),
        })
    }

    /// A text that tells the store's database and schema from others, as the statements of
    /// [`Change::Identify`] find it there. None where nobody has to tell.
    fn identity(&self) -> StoreFuture<Option<String>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Ends background work and releases files. Later calls answer [`StoreError::Closed`].
    fn close(&self) -> StoreFuture<()>;
}

/// What a store knows of its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Number of the newest migration applied; 0 before the first.
    pub found: u32,
    /// Number of the newest migration this build ships.
    pub needed: u32,
    /// Names of the migrations this call applied.
    pub applied: Vec<String>,
}

/// A workflow as the store routes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkflowKey {
    pub name: String,
    pub version: String,
}

/// A run to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRun {
    pub run_id: RunId,
    pub workflow: String,
    pub version: String,
    pub input: Payload,
    pub start: Start,
    pub tags: Vec<String>,
    pub memo: Option<Payload>,
    /// How long the whole run may take, from its creation or its start time.
    pub timeout: Option<Millis>,
    pub seed: Seed,
    pub now: Option<Millis>,
}

impl NewRun {
    /// The row of the run when it is created at `now`: nobody has driven it yet.
    pub fn first_row(&self, now: Millis) -> RunRow {
        let (status, owner, epoch, started_at, ready_at, origin) = match &self.start {
            Start::Queued { at } => {
                let at = at.unwrap_or(now);
                (Status::Queued, None, 0, None, at, at)
            }
            Start::Leased { owner, lease } => (
                Status::Running,
                Some(owner.clone()),
                1,
                Some(now),
                now.saturating_add(*lease),
                now,
            ),
        };
        RunRow {
            run_id: self.run_id.clone(),
            workflow: self.workflow.clone(),
            version: self.version.clone(),
            status,
            created_at: now,
            started_at,
            updated_at: now,
            finished_at: None,
            ready_at: Some(ready_at),
            owner,
            epoch,
            journal_len: 1,
            inbox_len: 0,
            inbox_seen: 0,
            deadline: self.timeout.map(|timeout| origin.saturating_add(timeout)),
            waits: Vec::new(),
            tags: self.tags.clone(),
            seed: self.seed,
            note: None,
        }
    }
}

/// How a new run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Start {
    /// Left for any sweep or worker, at once or at an instant.
    Queued { at: Option<Millis> },
    /// Leased to its creator from the beginning: epoch 1, `started_at` set.
    Leased { owner: String, lease: Millis },
}

/// The answer to a creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// False when the id existed; nothing was changed then.
    pub created: bool,
    pub row: RunRow,
}

/// Which due runs a claim takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// Running, but the lease has ended.
    Recovery,
    /// Waiting, and a deadline has passed or a message has arrived.
    Wake,
    /// Queued, and the start time has come.
    Queued,
    /// Any of the three.
    Any,
}

impl Due {
    /// The statuses of the runs that it means.
    pub const fn statuses(self) -> &'static [Status] {
        match self {
            Self::Recovery => &[Status::Running],
            Self::Wake => &[Status::Waiting],
            Self::Queued => &[Status::Queued],
            Self::Any => &[Status::Running, Status::Waiting, Status::Queued],
        }
    }
}

/// A request for runs to drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub owner: String,
    /// How long the lease lasts.
    pub lease: Millis,
    pub now: Option<Millis>,
    pub due: Due,
    pub limit: u32,
    /// Only runs of these workflows; an empty list claims nothing.
    pub workflows: Vec<WorkflowKey>,
    /// Only this run.
    pub run_id: Option<RunId>,
    /// Runs whose journal of that length the claimer still has: they come without it.
    pub warm: Vec<(RunId, u64)>,
    /// The line that comes first, see [`crate::lines`].
    #[serde(default)]
    pub turn: u64,
    /// Stop adding runs when their journals exceed this many payload bytes (at least one run comes).
    pub max_bytes: Option<u64>,
}

/// Claimed runs, in turn from each line ([`crate::lines`]), the earliest due of a line first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// The instant that the decision used.
    pub now: Millis,
    pub runs: Vec<ClaimedRun>,
    /// Whether a limit ended the claim, so that more may be due.
    pub more: bool,
}

/// A run with all that its driver needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedRun {
    /// The row after the claim.
    pub row: RunRow,
    /// The status before the claim.
    pub was: Status,
    /// The whole journal; none when the claim said that it is warm.
    pub journal: Option<Vec<Entry>>,
    /// Unread messages in order of arrival.
    pub inbox: Vec<Message>,
}

/// One atomic change of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCommit {
    pub run_id: RunId,
    pub owner: String,
    pub epoch: i64,
    pub expected_len: u64,
    pub entries: Vec<Entry>,
    /// Messages that were consumed or set aside.
    pub read: Vec<ReadMessage>,
    /// The highest message `seq` the driver has taken note of.
    pub inbox_seen: u64,
    pub next: Next,
    /// The run's state object, when it changed.
    pub state: Option<Payload>,
    /// The driver's time, for `updated_at` and `finished_at`.
    pub at: Millis,
}

/// What becomes of the run with a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Next {
    /// Keeps the lease.
    Running,
    /// Releases it. If the inbox holds messages beyond `inbox_seen`, the run is due at once.
    Waiting {
        ready_at: Option<Millis>,
        waits: Vec<String>,
    },
    /// Ends the run: completed, failed or cancelled.
    Finished { status: Status },
    /// Parks the run with a reason for people.
    Stuck { note: String },
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMessage {
    pub seq: u64,
    /// Why it was set aside; none when it was consumed.
    pub refused: Option<String>,
}

/// The answer to one run commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CommitOutcome {
    /// It took place. `due` when the run was released and is due at once because of unseen messages.
    Applied { due: bool },
    /// Owner, epoch, status or journal length differ: another driver has the run. Nothing was written.
    Fenced,
    /// Somebody else's transaction holds the run, for longer than others should wait for it. Nothing was
    /// written, and the same commit may be sent again.
    Blocked,
    /// The store could not keep this commit (too large, for example). Nothing was written.
    Rejected { reason: String },
}

/// A renewal of all leases of an owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub owner: String,
    pub lease: Millis,
    pub now: Option<Millis>,
}

/// What the owner still holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub now: Millis,
    /// Run ids with their epochs.
    pub held: Vec<(RunId, i64)>,
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// An event; `name` is the event's name. Wait key `event:NAME`.
    Event,
    /// A decision; `name` is the approval id. Wait key `approval:ID`.
    Approval,
    /// A cancellation; reaches the run whatever it waits for.
    Cancel,
}

impl MessageKind {
    /// The number that stores keep; append-only.
    pub const fn code(self) -> i64 {
        match self {
            Self::Event => 0,
            Self::Approval => 1,
            Self::Cancel => 2,
        }
    }

    /// The inverse of [`MessageKind::code`].
    pub const fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Event,
            1 => Self::Approval,
            2 => Self::Cancel,
            _ => return None,
        })
    }

    /// The key of a wait that a message of this kind and name ends; none when it ends any.
    pub fn wait_key(self, name: &str) -> Option<String> {
        match self {
            Self::Event => Some(format!("event:{name}")),
            Self::Approval => Some(format!("approval:{name}")),
            Self::Cancel => None,
        }
    }
}

/// A message to put into a run's inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    pub run_id: RunId,
    /// The dedupe key within the run: a second message with it is a duplicate, for ever.
    pub message_id: String,
    pub kind: MessageKind,
    pub name: String,
    pub payload: Payload,
    /// A short text that is kept with the message and given back to a duplicate's sender, so that
    /// a contradicting second approval can be told from a repeated one.
    pub fingerprint: Option<String>,
    pub now: Option<Millis>,
}

/// A message in an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub run_id: RunId,
    /// 1 for the run's first message, then 2, 3 …
    pub seq: u64,
    pub message_id: String,
    pub kind: MessageKind,
    pub name: String,
    pub payload: Payload,
    pub at: Millis,
}

/// What became of a message that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub result: Delivery,
    /// Of the first message with that id, for duplicates.
    pub fingerprint: Option<String>,
    /// The holder of the run's lease, if any, so that a driver in the same process can be told.
    pub owner: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Kept, and the run was waiting for it: it is due now.
    Delivered,
    /// Kept until the run asks for it.
    Buffered,
    /// A message with that id was there already; nothing changed.
    Duplicate,
    NotFound,
    /// The run has ended; nothing was kept.
    Finished,
}

/// A change of a run from outside its driver. It raises the epoch, so that a driver is fenced off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Intervention {
    /// Ends a live or stuck run as terminated and appends `entry`.
    Terminate { run_id: RunId, entry: Entry },
    /// Makes a failed, cancelled, terminated or stuck run queued and due now, appending `entries`.
    Reopen {
        run_id: RunId,
        expected_len: u64,
        entries: Vec<Entry>,
        now: Option<Millis>,
    },
    /// Removes a run and all that belongs to it; a live one only if `force`.
    Delete { run_id: RunId, force: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intervened {
    Done,
    NotFound,
    /// The run's status (or its journal length, when reopening) does not allow it.
    NotAllowed,
}

/// A run as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDetail {
    pub row: RunRow,
    pub input: Payload,
    /// The newest journal entry when the run is final: its output, error or reason.
    pub end: Option<Entry>,
    pub state: Option<Payload>,
    pub memo: Option<Payload>,
    /// Messages that were set aside, newest last, with the reason.
    pub refused: Vec<(Message, String)>,
}

/// Which runs to list or count; absent fields match all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    pub workflow: Option<String>,
    pub version: Option<String>,
    /// Empty: any.
    pub status: Vec<Status>,
    pub tag: Option<String>,
    /// A wait key, such as `event:payment-received`.
    pub waiting_for: Option<String>,
    pub created_after: Option<Millis>,
    pub created_before: Option<Millis>,
    pub id_prefix: Option<String>,
}

/// The place after a page's last row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    pub created_at: Millis,
    pub run_id: RunId,
}

/// One page of rows, by `created_at` descending, then `run_id` descending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    pub rows: Vec<RunRow>,
    /// Where the next page begins; none on the last.
    pub next: Option<Cursor>,
}

/// When something may be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextDue {
    pub now: Millis,
    pub ready_at: Option<Millis>,
}

/// Why a store could not do what it was asked. Each message says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StoreError {
    #[error("the store cannot be reached: {reason}")]
    Unavailable { reason: String },
    #[error("the store is locked by another process: {reason}")]
    Locked { reason: String },
    #[error("the store is read-only: {reason}")]
    ReadOnly { reason: String },
    #[error("the store is full: {reason}")]
    Full { reason: String },
    #[error("the store is damaged: {reason}")]
    Corrupt { reason: String },
    #[error(
        "the store's schema is at version {found}, this build needs {needed}; run `duramen migrate` first"
    )]
    Unmigrated { found: u32, needed: u32 },
    #[error(
        "the store's schema is at version {found}, newer than this build's {needed}; upgrade duramen"
    )]
    Newer { found: u32, needed: u32 },
    #[error("the store refused the request: {reason}")]
    Invalid { reason: String },
    #[error("the store is closed")]
    Closed,
    #[error("the store failed: {reason}")]
    Other { reason: String },
}

impl StoreError {
    /// Whether the same call may succeed later without anyone changing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Locked { .. } | Self::Full { .. }
        )
    }
}
