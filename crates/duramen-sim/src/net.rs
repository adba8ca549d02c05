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
    Beat, Claim, Claimed, CommitOutcome, Created, Cursor, Delivered, Filter, Heartbeat, Intervened,
    Intervention, Message, NewMessage, NewRun, NextDue, Page, RunCommit, RunDetail, Schema, Store,
    StoreError, StoreFuture, WorkflowKey,
};

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
    Other,
}

impl Method {
    pub const FAULTY: [Self; 9] = [
        Self::Commit,
        Self::Claim,
        Self::Heartbeat,
        Self::Create,
        Self::Deliver,
        Self::Unread,
        Self::Load,
        Self::Get,
        Self::NextDue,
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
}

/// How long it takes until a lost call is noticed.
const LOSS: Millis = 400;

/// See the module's head. One for each process.
pub struct Net {
    inner: Arc<dyn Store>,
    world: Arc<World>,
    process: ProcessId,
    weather: Mutex<Weather>,
    calls: Mutex<BTreeMap<Method, u32>>,
    met: AtomicU64,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}

type Act<T> = Box<dyn FnOnce(&dyn Store) -> StoreFuture<T> + Send>;

struct Request<T> {
    process: ProcessId,
    world: Arc<World>,
    store: Arc<dyn Store>,
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
        let answer = act.map(|act| settled(act(&*self.store)));
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
        inner: Arc<dyn Store>,
        world: Arc<World>,
        process: ProcessId,
        weather: Weather,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner,
            world,
            process,
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
        act: impl FnOnce(&dyn Store) -> StoreFuture<T> + Send + 'static,
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
                |act| act(&*self.inner),
            );
        }
        let request = Arc::new(Request {
            process: self.process,
            world: Arc::clone(&self.world),
            store: Arc::clone(&self.inner),
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
}

impl Store for Net {
    fn migrate(&self) -> StoreFuture<Schema> {
        self.call(Method::Other, Store::migrate)
    }

    fn schema(&self) -> StoreFuture<Schema> {
        self.call(Method::Other, Store::schema)
    }

    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        self.call(Method::Create, |store| store.create(batch))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.call(Method::Claim, |store| store.claim(claim))
    }

    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        self.call(Method::Commit, |store| store.commit(batch))
    }

    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat> {
        self.call(Method::Heartbeat, |store| store.heartbeat(beat))
    }

    fn unread(&self, owner: String) -> StoreFuture<Vec<Message>> {
        self.call(Method::Unread, |store| store.unread(owner))
    }

    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        self.call(Method::Deliver, |store| store.deliver(batch))
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        self.call(Method::Other, |store| store.intervene(batch))
    }

    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        self.call(Method::Get, |store| store.get(run_ids))
    }

    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>> {
        self.call(Method::Load, move |store| store.load(run_id, from, limit))
    }

    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page> {
        self.call(Method::Other, move |store| {
            store.list(filter, limit, cursor)
        })
    }

    fn count(&self, filter: Filter) -> StoreFuture<u64> {
        self.call(Method::Other, move |store| store.count(filter))
    }

    fn next_due(&self, workflows: Vec<WorkflowKey>) -> StoreFuture<NextDue> {
        self.call(Method::NextDue, move |store| store.next_due(workflows))
    }

    fn close(&self) -> StoreFuture<()> {
        self.call(Method::Other, |store| store.close())
    }
}
