//! A store that fails: calls are refused, their answers lost or late, their process gone.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::store::{
    Appended, Beat, Claim, Claimed, Claims, CommitOutcome, Created, Cursor, Delivered, Delivery,
    DueAsk, DueSchedules, Filter, Heartbeat, Hint, InboxPage, Inboxes, Intervened, Intervention,
    Message, NewMessage, NewRun, NextDue, OpenRuns, OwnerRow, Page, Queries, Receipt, RunCommit,
    RunDetail, Runs, ScheduleAsk, ScheduleChange, ScheduleRow, Schedules, Schema, Standing, Store,
    StoreError, StoreFuture, StreamAppend, StreamAsk, StreamPage, Streams, Unsent, UnsentAsk, Wake,
};
use duramen_engine::Env;

use crate::clocks::Clocks;

/// What happens to a call.
#[derive(Debug, Clone)]
pub enum Fault {
    None,
    /// It does not take place; the caller is told.
    Refuse(StoreError),
    /// It takes place; the caller is told that it failed.
    Lose(StoreError),
    /// It takes place now; the answer comes later.
    Late(Millis),
    /// It takes place later.
    Delay(Millis),
    /// The process is gone before or after it took place: no answer, and nothing more happens.
    CrashBefore,
    CrashAfter,
}

pub fn unavailable() -> StoreError {
    StoreError::Unavailable {
        reason: "the cable is out".into(),
    }
}

pub fn broken() -> StoreError {
    StoreError::Corrupt {
        reason: "the disk is on fire".into(),
    }
}

/// A call that is about to be made.
pub struct Call {
    pub method: &'static str,
    /// How many calls of this method were made before.
    pub number: usize,
}

pub type Rule = Box<dyn Fn(&Call) -> Fault + Send>;

/// What is known of all processes together.
#[derive(Default)]
pub struct Facts {
    /// Step results that are in a journal.
    pub recorded: Mutex<BTreeSet<(RunId, String)>>,
    /// Steps that ran, each as often as it did.
    pub ran: Mutex<Vec<(RunId, String)>>,
    /// Steps that ran although their result was recorded.
    pub again: Mutex<Vec<(RunId, String)>>,
}

impl Facts {
    pub fn starts(&self, run_id: &RunId, op: &str) {
        let key = (run_id.clone(), op.to_owned());
        if self.recorded.lock().unwrap().contains(&key) {
            self.again.lock().unwrap().push(key.clone());
        }
        self.ran.lock().unwrap().push(key);
    }

    pub fn times(&self, run_id: &str, op: &str) -> usize {
        let ran = self.ran.lock().unwrap();
        ran.iter()
            .filter(|(run, name)| &**run == run_id && name == op)
            .count()
    }
}

/// See the module's head. One for each process.
pub struct Faults {
    inner: Arc<dyn Store>,
    env: Arc<dyn Env>,
    clocks: Option<Arc<Clocks>>,
    facts: Arc<Facts>,
    pub rule: Mutex<Rule>,
    /// Names of all calls with the time of each.
    pub calls: Mutex<Vec<(&'static str, Millis)>>,
    pub dead: AtomicBool,
    /// A run that somebody else's transaction holds: what changes it is blocked.
    pub held: Mutex<Option<RunId>>,
    /// Messages that looks for unread ones have brought.
    pub read: Arc<AtomicUsize>,
    /// Whoever wants hints; tests give them.
    pub watchers: Mutex<Vec<Wake>>,
}

impl Faults {
    pub fn new(
        inner: Arc<dyn Store>,
        env: Arc<dyn Env>,
        clocks: Option<Arc<Clocks>>,
        facts: Arc<Facts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner,
            env,
            clocks,
            facts,
            rule: Mutex::new(Box::new(|_| Fault::None)),
            calls: Mutex::default(),
            dead: AtomicBool::new(false),
            held: Mutex::default(),
            read: Arc::default(),
            watchers: Mutex::default(),
        })
    }

    pub fn hint(&self, hint: Hint) {
        for wake in &*self.watchers.lock().unwrap() {
            wake(hint);
        }
    }

    pub fn set(&self, rule: impl Fn(&Call) -> Fault + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    pub fn calls_of(&self, method: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|(name, _)| *name == method).count()
    }

    /// Its process is gone: no answer, and nothing more happens.
    pub fn die(&self) {
        self.dead.store(true, Ordering::Release);
    }

    pub fn total(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// What the store takes for the time: its own clock looks at it when the request arrives.
    fn time(&self) -> impl Fn(&mut Option<Millis>) + Send + 'static {
        let clocks = self.clocks.clone();
        move |now| {
            if let Some(clocks) = &clocks {
                now.get_or_insert(clocks.store_now());
            }
        }
    }

    /// Takes what is for a run that is held out of a batch, and says where it stood.
    fn take_blocked<Q>(&self, batch: &mut Vec<Q>, of: impl Fn(&Q) -> &RunId) -> Vec<bool> {
        let held = self.held.lock().unwrap().clone();
        let is_held = |item: &Q| Some(of(item)) == held.as_ref();
        let blocked = batch.iter().map(is_held).collect();
        batch.retain(|item| !is_held(item));
        blocked
    }

    fn call<T: Send + 'static>(
        &self,
        method: &'static str,
        act: impl FnOnce(&dyn Store) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        if self.dead.load(Ordering::Acquire) {
            return Box::pin(pending());
        }
        let number = self.calls_of(method);
        self.calls.lock().unwrap().push((method, self.env.now()));
        let call = Call { method, number };
        let fault = (self.rule.lock().unwrap())(&call);
        let sleep = |span: Millis| {
            self.env
                .sleep(Duration::from_millis(u64::try_from(span).unwrap()))
        };
        match fault {
            Fault::None => act(&*self.inner),
            Fault::Refuse(error) => Box::pin(async { Err(error) }),
            Fault::Lose(error) => {
                let under_way = act(&*self.inner);
                Box::pin(async {
                    under_way.await?;
                    Err(error)
                })
            }
            Fault::Late(span) => {
                let (under_way, sleep) = (act(&*self.inner), sleep(span));
                Box::pin(async {
                    let answer = under_way.await;
                    sleep.await;
                    answer
                })
            }
            Fault::Delay(span) => {
                let (inner, sleep) = (self.inner.clone(), sleep(span));
                Box::pin(async move {
                    sleep.await;
                    act(&*inner).await
                })
            }
            Fault::CrashBefore => {
                self.dead.store(true, Ordering::Release);
                Box::pin(pending())
            }
            Fault::CrashAfter => {
                self.dead.store(true, Ordering::Release);
                let under_way = act(&*self.inner);
                Box::pin(async {
                    let _ = under_way.await;
                    pending().await
                })
            }
        }
    }
}

impl Runs for Faults {
    fn create(&self, mut batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        let time = self.time();
        let blocked = self.take_blocked(&mut batch, |run| &run.run_id);
        self.call("create", move |store| {
            for run in &mut batch {
                time(&mut run.now);
            }
            answer_blocked(blocked, store.create(batch), || Created::Blocked)
        })
    }

    fn commit(&self, mut batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        let blocked = self.take_blocked(&mut batch, |commit| &commit.run_id);
        let results: Vec<Vec<(RunId, String)>> = batch
            .iter()
            .map(|commit| {
                let done = commit
                    .entries
                    .iter()
                    .filter(|entry| entry.kind == Kind::StepCompleted);
                done.map(|entry| (commit.run_id.clone(), entry.op.to_string()))
                    .collect()
            })
            .collect();
        let facts = self.facts.clone();
        self.call("commit", move |store| {
            let under_way = store.commit(batch);
            let recording: StoreFuture<_> = Box::pin(async move {
                let outcomes = under_way.await?;
                for (outcome, results) in outcomes.iter().zip(results) {
                    if matches!(outcome, CommitOutcome::Applied { .. }) {
                        facts.recorded.lock().unwrap().extend(results);
                    }
                }
                Ok(outcomes)
            });
            answer_blocked(blocked, recording, || CommitOutcome::Blocked)
        })
    }

    fn intervene(&self, mut batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        let blocked = self.take_blocked(&mut batch, Intervention::run_id);
        self.call("intervene", |store| {
            answer_blocked(blocked, store.intervene(batch), || Intervened::Blocked)
        })
    }

    fn unsent(&self, ask: UnsentAsk) -> StoreFuture<Vec<Unsent>> {
        self.call("unsent", |store| store.unsent(ask))
    }

    fn sent(&self, items: Vec<Unsent>) -> StoreFuture<()> {
        self.call("sent", |store| store.sent(items))
    }
}

impl Claims for Faults {
    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat> {
        let time = self.time();
        self.call("heartbeat", move |store| {
            let mut beat = beat;
            time(&mut beat.now);
            store.heartbeat(beat)
        })
    }

    fn retire(&self, owner: String, now: Option<Millis>) -> StoreFuture<()> {
        let time = self.time();
        self.call("retire", move |store| {
            let mut now = now;
            time(&mut now);
            store.retire(owner, now)
        })
    }

    fn owners(&self) -> StoreFuture<Vec<OwnerRow>> {
        self.call("owners", |store| store.owners())
    }

    fn held(
        &self,
        owner: String,
        after: Option<RunId>,
        limit: u32,
    ) -> StoreFuture<Vec<(RunId, i64)>> {
        self.call("held", move |store| store.held(owner, after, limit))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        let time = self.time();
        self.call("claim", move |store| {
            let mut claim = claim;
            time(&mut claim.now);
            store.claim(claim)
        })
    }

    fn next_due(&self, ask: DueAsk) -> StoreFuture<NextDue> {
        let time = self.time();
        self.call("next_due", move |store| {
            let mut ask = ask;
            time(&mut ask.now);
            store.next_due(ask)
        })
    }
}

impl Inboxes for Faults {
    fn deliver(&self, mut batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        let time = self.time();
        let blocked = self.take_blocked(&mut batch, |message| &message.run_id);
        self.call("deliver", move |store| {
            for message in &mut batch {
                time(&mut message.now);
            }
            answer_blocked(blocked, store.deliver(batch), || Delivered {
                result: Delivery::Blocked,
                fingerprint: None,
                owner: None,
            })
        })
    }

    fn unread(&self, owner: String, told: Vec<(RunId, u64)>) -> StoreFuture<Vec<Message>> {
        let read = self.read.clone();
        self.call("unread", move |store| {
            let unread = store.unread(owner, told);
            Box::pin(async move {
                let unread = unread.await?;
                read.fetch_add(unread.len(), Ordering::Relaxed);
                Ok(unread)
            })
        })
    }

    fn inbox(&self, run_id: RunId, behind: u64) -> StoreFuture<InboxPage> {
        self.call("inbox", move |store| store.inbox(run_id, behind))
    }

    fn receipts(&self, messages: Vec<(RunId, String)>) -> StoreFuture<Vec<Option<Receipt>>> {
        self.call("receipts", |store| store.receipts(messages))
    }
}

impl Streams for Faults {
    fn append(&self, batch: Vec<StreamAppend>) -> StoreFuture<Vec<Appended>> {
        self.call("append", |store| store.append(batch))
    }

    fn stream(&self, ask: StreamAsk) -> StoreFuture<Option<StreamPage>> {
        self.call("stream", |store| store.stream(ask))
    }
}

impl Queries for Faults {
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        self.call("get", |store| store.get(run_ids))
    }

    fn standing(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<Standing>>> {
        self.call("standing", |store| store.standing(run_ids))
    }

    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>> {
        self.call("load", move |store| store.load(run_id, from, limit))
    }

    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page> {
        self.call("list", move |store| store.list(filter, limit, cursor))
    }

    fn count(&self, filter: Filter) -> StoreFuture<u64> {
        self.call("count", |store| store.count(filter))
    }

    fn census(&self) -> StoreFuture<Vec<OpenRuns>> {
        self.call("census", |store| store.census())
    }
}

impl Schedules for Faults {
    fn change_schedules(&self, batch: Vec<ScheduleChange>) -> StoreFuture<Vec<bool>> {
        self.call("change_schedules", |store| store.change_schedules(batch))
    }

    fn get_schedules(&self, ids: Vec<String>) -> StoreFuture<Vec<Option<ScheduleRow>>> {
        self.call("get_schedules", |store| store.get_schedules(ids))
    }

    fn list_schedules(&self, after: Option<String>, limit: u32) -> StoreFuture<Vec<ScheduleRow>> {
        self.call("list_schedules", move |store| {
            store.list_schedules(after, limit)
        })
    }

    fn due_schedules(&self, ask: ScheduleAsk) -> StoreFuture<DueSchedules> {
        self.call("due_schedules", |store| store.due_schedules(ask))
    }
}

impl Store for Faults {
    fn migrate(&self) -> StoreFuture<Schema> {
        self.call("migrate", |store| store.migrate())
    }

    fn schema(&self) -> StoreFuture<Schema> {
        self.call("schema", |store| store.schema())
    }

    fn watch(&self, wake: Wake) {
        self.watchers.lock().unwrap().push(wake);
    }

    fn close(&self) -> StoreFuture<()> {
        self.call("close", |store| store.close())
    }
}

/// Answers with those of the blocked elements put in where they belong.
fn answer_blocked<T: Send + 'static>(
    blocked: Vec<bool>,
    answers: StoreFuture<Vec<T>>,
    answer: impl Fn() -> T + Send + 'static,
) -> StoreFuture<Vec<T>> {
    Box::pin(async move {
        let mut answers = answers.await?.into_iter();
        let each = blocked.iter().filter_map(|blocked| {
            if *blocked {
                Some(answer())
            } else {
                answers.next()
            }
        });
        Ok(each.collect())
    })
}
