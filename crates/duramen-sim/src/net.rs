//! The way from a process to the store and back: slow, lossy, and the end of some processes.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::store::{
    Appended, Beat, Claim, Claimed, Claims, CommitOutcome, Created, Cursor, Delivered, DueAsk,
    DueSchedules, Filter, Heartbeat, InboxPage, Inboxes, Intervened, Intervention, Message,
    NewMessage, NewRun, NextDue, OpenRuns, OwnerRow, Page, Queries, Receipt, RunCommit, RunDetail,
    Runs, ScheduleAsk, ScheduleChange, ScheduleRow, Schedules, Schema, Standing, Start, Store,
    StoreError, StoreFuture, StreamAppend, StreamAsk, StreamPage, Streams, Unsent, UnsentAsk,
};

use crate::judge::Judge;
use crate::letters;
use crate::newer::{self, NEWER};
use crate::watch::{Lost, Watch};
use crate::world::{Call, Event, Life, ProcessId, World, lock};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// The store is busy: the call does not take place, and the caller is told at once.
    Locked,
    /// It fails for good, and does not take place.
    Broken,
    /// Lost on its way: it never takes place, and the caller is told after a while.
    LostBefore,
    /// It takes place; the answer is lost, and the caller is told so after a while.
    LostAfter,
    /// It takes place late.
    SlowThere(Millis),
    /// It takes place at once, and the answer comes late.
    SlowBack(Millis),
    /// The process is gone right before it is sent.
    CrashBefore,
    /// The process is gone right after it was sent.
    CrashAfter,
}

/// Methods that faults are aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    Create,
    Claim,
    Commit,
    Heartbeat,
    Unread,
    Deliver,
    Get,
    Load,
    NextDue,
    Intervene,
    Retire,
    Held,
    Standing,
    Unsent,
    Sent,
    Other,
}

impl Method {
    pub const FAULTY: [Self; 15] = [
        Self::Commit,
        Self::Claim,
        Self::Heartbeat,
        Self::Create,
        Self::Deliver,
        Self::Unread,
        Self::Load,
        Self::Get,
        Self::NextDue,
        Self::Intervene,
        Self::Retire,
        Self::Held,
        Self::Standing,
        Self::Unsent,
        Self::Sent,
    ];
}

/// How the way is for one process.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Each way takes up to so long.
    pub latency: Millis,
    /// Faults by method and number of the call (from 0).
    pub faults: BTreeMap<(Method, u32), StoreFault>,
    /// From when to when the store cannot be reached.
    pub outages: Vec<(Millis, Millis)>,
    /// The process is of a newer build.
    pub newer: bool,
    /// Among how many runs commits send messages; 0 if they do not.
    pub family: usize,
}

/// How long it takes until a lost call is noticed.
pub(crate) const LOSS: Millis = 400;

/// See the module's head. One for each process.
pub struct Net {
    judge: Arc<Judge>,
    world: Arc<World>,
    process: ProcessId,
    newer: bool,
    family: usize,
    weather: Mutex<Weather>,
    calls: Mutex<BTreeMap<Method, u32>>,
    met: AtomicU64,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}

type Act<T> = Box<dyn FnOnce(&Judge) -> StoreFuture<T> + Send>;

struct Request<T> {
    process: ProcessId,
    world: Arc<World>,
    judge: Arc<Judge>,
    letter: Mutex<Letter<T>>,
}

struct Letter<T> {
    act: Option<Act<T>>,
    /// The answer that the caller gets whatever the store says.
    instead: Option<StoreError>,
    back: Millis,
    answer: Option<Result<T, StoreError>>,
    arrived: bool,
    waker: Option<Waker>,
}

/// The answer of a store that is in nobody's way.
pub(crate) fn settled<T>(mut future: StoreFuture<T>) -> Result<T, StoreError> {
    loop {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return answer;
        }
        std::thread::yield_now();
    }
}

impl<T: Send + 'static> Call for Request<T> {
    fn process(&self) -> ProcessId {
        self.process
    }

    fn arrive(&self) -> Millis {
        let act = lock(&self.letter).act.take();
        let answer = act.map(|act| settled(act(&self.judge)));
        let mut letter = lock(&self.letter);
        let instead = letter.instead.take().map(Err);
        letter.answer = instead.or(answer);
        letter.back
    }

    fn answer(&self) {
        let waker = {
            let mut letter = lock(&self.letter);
            letter.arrived = true;
            letter.waker.take()
        };
        self.world.called(self);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn forget(&self) {
        let waker = lock(&self.letter).waker.take();
        drop(waker);
    }
}

struct Answer<T>(Arc<Request<T>>);

impl<T> Future for Answer<T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut letter = lock(&self.0.letter);
        if letter.arrived
            && let Some(answer) = letter.answer.take()
        {
            return Poll::Ready(answer);
        }
        letter.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable {
        reason: "the line is dead".into(),
    }
}

impl Net {
    pub fn new(
        judge: Arc<Judge>,
        world: Arc<World>,
        process: ProcessId,
        weather: Weather,
    ) -> Arc<Self> {
        Arc::new(Self {
            judge,
            world,
            process,
            newer: weather.newer,
            family: weather.family,
            weather: Mutex::new(weather),
            calls: Mutex::default(),
            met: AtomicU64::new(0),
        })
    }

    /// No faults from now on.
    pub fn calm(&self) {
        let mut weather = lock(&self.weather);
        weather.faults.clear();
        weather.outages.clear();
        weather.latency = weather.latency.min(20);
    }

    /// How many faults struck.
    pub fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    /// The fault that strikes this call, and how long each way takes.
    fn fate(&self, method: Method) -> (Option<StoreFault>, Millis, Millis) {
        let number = {
            let mut calls = lock(&self.calls);
            let number = calls.entry(method).or_insert(0);
            *number += 1;
            *number - 1
        };
        let now = self.world.now();
        let weather = lock(&self.weather);
        let down = weather
            .outages
            .iter()
            .any(|(from, to)| (*from..*to).contains(&now));
        let fault = weather.faults.get(&(method, number)).copied();
        let fault = fault.or(down.then_some(StoreFault::LostBefore));
        let latency = weather.latency;
        drop(weather);
        if fault.is_some() {
            self.met.fetch_add(1, Ordering::Relaxed);
            let process = self.process;
            self.world.trouble(process);
            self.world
                .note(|| format!("p{process} {method:?} {number}: {fault:?}"));
        }
        let (there, back) = self
            .world
            .chance(|rng| (rng.span(0, latency), rng.span(0, latency)));
        (fault, there, back)
    }

    fn call<T: Send + 'static>(
        &self,
        method: Method,
        act: impl FnOnce(&Judge) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        self.call_for(method, Lost::Nothing, act)
    }

    /// The same for what must go on soon if its answer is lost.
    fn call_for<T: Send + 'static>(
        &self,
        method: Method,
        lost: Lost,
        act: impl FnOnce(&Judge) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        if self.world.life(self.process) == Life::Dead {
            return Box::pin(pending());
        }
        let (fault, mut there, mut back) = self.fate(method);
        let mut act: Option<Act<T>> = Some(Box::new(act));
        let mut instead = None;
        match fault {
            None => {}
            Some(StoreFault::Locked) => {
                let reason = "another has it".into();
                return Box::pin(async { Err(StoreError::Locked { reason }) });
            }
            Some(StoreFault::Broken) => {
                let reason = "the disk is on fire".into();
                return Box::pin(async { Err(StoreError::Other { reason }) });
            }
            Some(StoreFault::LostBefore) => {
                act = None;
                back += LOSS;
                instead = Some(unavailable());
            }
            Some(StoreFault::LostAfter) => {
                self.answer_is_lost(method, lost);
                back += LOSS;
                instead = Some(unavailable());
            }
            Some(StoreFault::SlowThere(span)) => there += span,
            Some(StoreFault::SlowBack(span)) => back += span,
            Some(StoreFault::CrashBefore) => {
                self.world.kill(self.process);
                return Box::pin(pending());
            }
            Some(StoreFault::CrashAfter) => self.world.kill(self.process),
        }
        if there == 0 && back == 0 && fault.is_none() {
            // As a store in memory does: the answer is there before the call returns.
            return act.map_or_else(
                || Box::pin(pending()) as StoreFuture<T>,
                |act| act(&self.judge),
            );
        }
        let request = Arc::new(Request {
            process: self.process,
            world: Arc::clone(&self.world),
            judge: Arc::clone(&self.judge),
            letter: Mutex::new(Letter {
                act,
                instead,
                back,
                answer: None,
                arrived: false,
                waker: None,
            }),
        });
        let call: Arc<dyn Call> = Arc::clone(&request) as Arc<dyn Call>;
        self.world.call(&call);
        self.world.at(self.world.now() + there, Event::Arrive(call));
        Box::pin(Answer(request))
    }

    /// A call takes effect and its answer is lost: its runs are looked at soon.
    fn answer_is_lost(&self, method: Method, lost: Lost) {
        let process = self.process;
        let watch = Watch {
            process,
            since: self.world.now(),
            troubles: self.world.troubles(process),
            lost,
        };
        let mut facts = self.judge.facts();
        let counts = &mut facts.counts;
        *match method {
            Method::Commit => &mut counts.lost_commits,
            Method::Create => &mut counts.lost_creations,
            Method::Claim => &mut counts.lost_claims,
            Method::Deliver => &mut counts.lost_deliveries,
            Method::Heartbeat => &mut counts.lost_heartbeats,
            Method::Intervene => &mut counts.lost_interventions,
            Method::Retire => &mut counts.lost_retirements,
            _ => &mut counts.lost_others,
        } += 1;
        drop(facts);
        self.judge.watch(watch);
    }

    /// An answer as the build behind the screen knows it.
    fn screened<T: Send + 'static>(
        &self,
        answer: StoreFuture<T>,
        screen: impl FnOnce(&mut T) + Send + 'static,
    ) -> StoreFuture<T> {
        if !self.newer {
            return answer;
        }
        Box::pin(async move {
            let mut answer = answer.await?;
            screen(&mut answer);
            Ok(answer)
        })
    }
}

impl Runs for Net {
    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        let leased = batch
            .iter()
            .find(|run| matches!(run.start, Start::Leased { .. }));
        let lost = leased.map_or(Lost::Nothing, |run| Lost::Creation {
            run_id: run.run_id.clone(),
            seed: run.seed,
        });
        let created = self.call_for(Method::Create, lost, |judge| judge.create(batch));
        self.screened(created, |created| newer::created(created))
    }

    fn commit(&self, mut batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        if self.newer {
            for commit in &mut batch {
                if self.world.chance(|rng| rng.one_in(6)) {
                    newer::raise(commit);
                }
            }
        }
        for commit in &mut batch {
            letters::enclose(commit, self.family);
        }
        let lost = batch.iter().map(|commit| {
            let life = (commit.run_id.clone(), commit.seed);
            (life, commit.epoch)
        });
        let lost = Lost::Commits(lost.collect());
        self.call_for(Method::Commit, lost, |judge| judge.commit(batch))
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        self.call(Method::Intervene, |judge| judge.intervene(batch))
    }

    fn unsent(&self, ask: UnsentAsk) -> StoreFuture<Vec<Unsent>> {
        self.call(Method::Unsent, |judge| judge.unsent(ask))
    }

    fn sent(&self, items: Vec<Unsent>) -> StoreFuture<()> {
        self.call(Method::Sent, |judge| judge.sent(items))
    }
}

impl Claims for Net {
    fn heartbeat(&self, mut beat: Heartbeat) -> StoreFuture<Beat> {
        if self.newer {
            beat.format = NEWER;
        }
        self.call(Method::Heartbeat, |judge| judge.heartbeat(beat))
    }

    fn retire(&self, owner: String, now: Option<Millis>) -> StoreFuture<()> {
        self.call(Method::Retire, move |judge| judge.retire(owner, now))
    }

    fn owners(&self) -> StoreFuture<Vec<OwnerRow>> {
        self.call(Method::Other, |judge| judge.owners())
    }

    fn held(
        &self,
        owner: String,
        after: Option<RunId>,
        limit: u32,
    ) -> StoreFuture<Vec<(RunId, i64)>> {
        self.call(Method::Held, move |judge| judge.held(owner, after, limit))
    }

    fn claim(&self, mut claim: Claim) -> StoreFuture<Claimed> {
        if self.newer {
            claim.lanes.push(newer::newer_lane());
        }
        let claimed = self.call_for(Method::Claim, Lost::Claim, |judge| judge.claim(claim));
        self.screened(claimed, newer::claimed)
    }

    fn next_due(&self, mut ask: DueAsk) -> StoreFuture<NextDue> {
        if self.newer {
            ask.lanes.push(newer::newer_lane());
        }
        self.call(Method::NextDue, |judge| judge.next_due(ask))
    }
}

impl Inboxes for Net {
    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        self.call(Method::Deliver, |judge| judge.deliver(batch))
    }

    fn unread(&self, owner: String, told: Vec<(RunId, u64)>) -> StoreFuture<Vec<Message>> {
        let unread = self.call(Method::Unread, |judge| judge.unread(owner, told));
        self.screened(unread, |unread| newer::messages(unread))
    }

    fn inbox(&self, run_id: RunId, behind: u64) -> StoreFuture<InboxPage> {
        let page = self.call(Method::Unread, move |judge| judge.inbox(run_id, behind));
        self.screened(page, |page| newer::messages(&mut page.messages))
    }

    fn receipts(&self, messages: Vec<(RunId, String)>) -> StoreFuture<Vec<Option<Receipt>>> {
        self.call(Method::Other, |judge| judge.receipts(messages))
    }
}

impl Streams for Net {
    fn append(&self, batch: Vec<StreamAppend>) -> StoreFuture<Vec<Appended>> {
        self.call(Method::Other, |judge| judge.append(batch))
    }

    fn stream(&self, ask: StreamAsk) -> StoreFuture<Option<StreamPage>> {
        self.call(Method::Other, |judge| judge.stream(ask))
    }
}

impl Queries for Net {
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        let details = self.call(Method::Get, |judge| judge.get(run_ids));
        self.screened(details, |details| newer::details(details))
    }

    fn standing(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<Standing>>> {
        self.call(Method::Standing, |judge| judge.standing(run_ids))
    }

    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>> {
        let entries = self.call(Method::Load, move |judge| judge.load(run_id, from, limit));
        self.screened(entries, |entries| entries.iter_mut().for_each(newer::known))
    }

    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page> {
        self.call(Method::Other, move |judge| {
            judge.list(filter, limit, cursor)
        })
    }

    fn count(&self, filter: Filter) -> StoreFuture<u64> {
        self.call(Method::Other, move |judge| judge.count(filter))
    }

    fn census(&self) -> StoreFuture<Vec<OpenRuns>> {
        self.call(Method::Other, |judge| judge.census())
    }
}

impl Schedules for Net {
    fn change_schedules(&self, batch: Vec<ScheduleChange>) -> StoreFuture<Vec<bool>> {
        self.call(Method::Other, |judge| judge.change_schedules(batch))
    }

    fn get_schedules(&self, ids: Vec<String>) -> StoreFuture<Vec<Option<ScheduleRow>>> {
        self.call(Method::Other, |judge| judge.get_schedules(ids))
    }

    fn list_schedules(&self, after: Option<String>, limit: u32) -> StoreFuture<Vec<ScheduleRow>> {
        self.call(Method::Other, move |judge| {
            judge.list_schedules(after, limit)
        })
    }

    fn due_schedules(&self, ask: ScheduleAsk) -> StoreFuture<DueSchedules> {
        self.call(Method::Other, |judge| judge.due_schedules(ask))
    }
}

impl Store for Net {
    fn migrate(&self) -> StoreFuture<Schema> {
        self.call(Method::Other, |judge| judge.migrate())
    }

    fn schema(&self) -> StoreFuture<Schema> {
        self.call(Method::Other, |judge| judge.schema())
    }

    fn close(&self) -> StoreFuture<()> {
        self.call(Method::Other, |judge| judge.close())
    }
}
