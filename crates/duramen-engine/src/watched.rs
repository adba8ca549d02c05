//! The one place that tells people how the store is: a line when trouble begins, few while it lasts, one
//! when it is over.
//!
//! Whoever calls the store goes on trying in its own way, many times a second and from many places; what
//! each of them meets is a detail. So all of the engine's calls pass through here, and only the answers
//! are looked at.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::store::{
    Appended, Beat, Claim, Claimed, Claims, CommitOutcome, Created, Cursor, Delivered, DueAsk,
    DueSchedules, Filter, Heartbeat, InboxPage, Inboxes, Intervened, Intervention, Message,
    NewMessage, NewRun, NextDue, OpenRuns, OwnerRow, Page, Queries, Receipt, RunCommit, RunDetail,
    Runs, ScheduleAsk, ScheduleChange, ScheduleRow, Schedules, Schema, Standing, Store, StoreError,
    StoreFuture, StreamAppend, StreamAsk, StreamPage, Streams, Transactions, Unsent, UnsentAsk,
    Wake,
};

use crate::env::{Env, Moment};

/// Under which the store's health is told, whatever store it is.
const TARGET: &str = "duramen_store";

/// The pauses between two lines about trouble that lasts, or comes again and again, in milliseconds.
const FIRST_PAUSE: Millis = 2_000;
const LONGEST_PAUSE: Millis = 300_000;

/// What a call does: a file that another program has locked can still be read, so an answer to a reader
/// says nothing of writers, nor does one to a claim, which writes only if it finds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Reads,
    Claims,
    Writes,
}

/// The store, with an eye on its answers.
pub(crate) struct Watched {
    store: Arc<dyn Store>,
    health: Arc<Health>,
}

impl Watched {
    pub(crate) fn new(store: Arc<dyn Store>, env: Arc<dyn Env>) -> Self {
        let health = Arc::new(Health {
            env,
            failures: AtomicU64::new(0),
            trouble: Mutex::default(),
        });
        Self { store, health }
    }

    fn look<T: Send + 'static>(&self, kind: Kind, call: StoreFuture<T>) -> StoreFuture<T> {
        let health = Arc::clone(&self.health);
        let before = health.failures.load(Ordering::Acquire);
        Box::pin(async move {
            let answer = call.await;
            match &answer {
                Ok(_) => health.answered(kind, before),
                // One is about the request, the other comes of closing the store.
                Err(StoreError::Invalid { .. } | StoreError::Closed) => {}
                Err(error) => health.failed(kind, error),
            }
            answer
        })
    }

    fn reads<T: Send + 'static>(&self, call: StoreFuture<T>) -> StoreFuture<T> {
        self.look(Kind::Reads, call)
    }

    fn writes<T: Send + 'static>(&self, call: StoreFuture<T>) -> StoreFuture<T> {
        self.look(Kind::Writes, call)
    }
}

struct Health {
    env: Arc<dyn Env>,
    /// How many calls have failed since the last trouble was over; 0: there is none. Read by each call.
    failures: AtomicU64,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    since: Option<Moment>,
    /// Which kinds of calls have failed, and not been answered since.
    failing: BTreeSet<Kind>,
    told: bool,
    latest: Option<Moment>,
    /// Nothing is told before.
    next: Option<Moment>,
    pause: Millis,
}

impl Health {
    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, kind: Kind, error: &StoreError) {
        let now = self.env.moment();
        let mut trouble = self.trouble();
        let failures = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
        let since = *trouble.since.get_or_insert(now);
        trouble.failing.insert(kind);
        let quiet = trouble.latest.map_or(0, |latest| now.since(latest));
        if quiet > trouble.pause {
            (trouble.pause, trouble.next) = (0, None);
        }
        trouble.latest = Some(now);
        if trouble.next.is_some_and(|next| now < next) {
            return;
        }
        trouble.pause = (2 * trouble.pause).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        trouble.next = Some(now.after(trouble.pause));
        let goes_on = std::mem::replace(&mut trouble.told, true);
        // Told under the lock, so that the lines come in the order of what they tell.
        if goes_on {
            let lasted = seconds(now.since(since));
            tracing::warn!(target: TARGET, %error, "the store has been in trouble for {lasted} s ({failures} calls have failed); it is tried on");
        } else {
            tracing::warn!(target: TARGET, %error, "the store is in trouble; it is tried again until it answers");
        }
    }

    /// A call was answered that was made after `before` calls had failed.
    fn answered(&self, kind: Kind, before: u64) {
        if self.failures.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut trouble = self.trouble();
        let failures = self.failures.load(Ordering::Acquire);
        if failures != before {
            return; // others failed meanwhile: the answer may be from before the trouble
        }
        // Who can write can do the others, too.
        trouble
            .failing
            .retain(|other| kind != Kind::Writes && *other != kind);
        if !trouble.failing.is_empty() {
            return;
        }
        self.failures.store(0, Ordering::Release);
        let since = trouble.since.take();
        if std::mem::take(&mut trouble.told) {
            let now = self.env.moment();
            let lasted = seconds(since.map_or(0, |since| now.since(since)));
            tracing::warn!(target: TARGET, "the store answers again after {lasted} s ({failures} calls had failed)");
        }
    }
}

/// `12.3`
fn seconds(millis: Millis) -> String {
    format!("{}.{}", millis / 1000, millis % 1000 / 100)
}

impl Runs for Watched {
    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        self.writes(self.store.create(batch))
    }

    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        self.writes(self.store.commit(batch))
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        self.writes(self.store.intervene(batch))
    }

    fn unsent(&self, ask: UnsentAsk) -> StoreFuture<Vec<Unsent>> {
        self.reads(self.store.unsent(ask))
    }

    fn sent(&self, items: Vec<Unsent>) -> StoreFuture<()> {
        self.writes(self.store.sent(items))
    }
}

impl Claims for Watched {
    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat> {
        self.writes(self.store.heartbeat(beat))
    }

    fn retire(&self, owner: String, now: Option<Millis>) -> StoreFuture<()> {
        self.writes(self.store.retire(owner, now))
    }

    fn owners(&self) -> StoreFuture<Vec<OwnerRow>> {
        self.reads(self.store.owners())
    }

    fn held(
        &self,
        owner: String,
        after: Option<RunId>,
        limit: u32,
    ) -> StoreFuture<Vec<(RunId, i64)>> {
        self.reads(self.store.held(owner, after, limit))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.look(Kind::Claims, self.store.claim(claim))
    }

    fn next_due(&self, ask: DueAsk) -> StoreFuture<NextDue> {
        self.reads(self.store.next_due(ask))
    }
}

impl Inboxes for Watched {
    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        self.writes(self.store.deliver(batch))
    }

    fn unread(&self, owner: String, told: Vec<(RunId, u64)>) -> StoreFuture<Vec<Message>> {
        self.reads(self.store.unread(owner, told))
    }

    fn inbox(&self, run_id: RunId, behind: u64) -> StoreFuture<InboxPage> {
        self.reads(self.store.inbox(run_id, behind))
    }

    fn receipts(&self, messages: Vec<(RunId, String)>) -> StoreFuture<Vec<Option<Receipt>>> {
        self.reads(self.store.receipts(messages))
    }
}

impl Streams for Watched {
    fn append(&self, batch: Vec<StreamAppend>) -> StoreFuture<Vec<Appended>> {
        self.writes(self.store.append(batch))
    }

    fn stream(&self, ask: StreamAsk) -> StoreFuture<Option<StreamPage>> {
        self.reads(self.store.stream(ask))
    }
}

impl Queries for Watched {
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        self.reads(self.store.get(run_ids))
    }

    fn standing(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<Standing>>> {
        self.reads(self.store.standing(run_ids))
    }

    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>> {
        self.reads(self.store.load(run_id, from, limit))
    }

    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page> {
        self.reads(self.store.list(filter, limit, cursor))
    }

    fn count(&self, filter: Filter) -> StoreFuture<u64> {
        self.reads(self.store.count(filter))
    }

    fn census(&self) -> StoreFuture<Vec<OpenRuns>> {
        self.reads(self.store.census())
    }
}

impl Schedules for Watched {
    fn change_schedules(&self, batch: Vec<ScheduleChange>) -> StoreFuture<Vec<bool>> {
        self.writes(self.store.change_schedules(batch))
    }

    fn get_schedules(&self, ids: Vec<String>) -> StoreFuture<Vec<Option<ScheduleRow>>> {
        self.reads(self.store.get_schedules(ids))
    }

    fn list_schedules(&self, after: Option<String>, limit: u32) -> StoreFuture<Vec<ScheduleRow>> {
        self.reads(self.store.list_schedules(after, limit))
    }

    fn due_schedules(&self, ask: ScheduleAsk) -> StoreFuture<DueSchedules> {
        self.reads(self.store.due_schedules(ask))
    }
}

impl Store for Watched {
    fn migrate(&self) -> StoreFuture<Schema> {
        self.store.migrate()
    }

    fn schema(&self) -> StoreFuture<Schema> {
        self.store.schema()
    }

    fn watch(&self, wake: Wake) {
        self.store.watch(wake);
    }

    fn transactions(&self) -> Option<&dyn Transactions> {
        self.store.transactions()
    }

    fn close(&self) -> StoreFuture<()> {
        self.store.close()
    }
}
