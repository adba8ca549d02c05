//! Virtual time for tests: a clock that Python moves, and an executor on the host's own thread.
//!
//! With it an engine starts no thread and reads no wall clock: its tasks run while the host drains
//! it, in the order in which they were woken, so that a test takes the same course each time.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use duramen_core::ids::Millis;
use duramen_core::run::Seed;
use duramen_engine::{Env, HostQueue, Moment, Task};
use pyo3::prelude::*;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A clock that stands still until it is moved. Engines may share it.
#[pyclass(frozen, module = "duramen._native")]
#[derive(Debug)]
pub(crate) struct Clock(pub(crate) Arc<Timeline>);

#[pymethods]
impl Clock {
    #[new]
    fn new(now: Millis, seed: u64) -> Self {
        Self(Arc::new(Timeline {
            seed,
            state: Mutex::new(State {
                now,
                timers: BTreeMap::new(),
                numbers: 0,
            }),
        }))
    }

    fn now(&self) -> Millis {
        self.0.now()
    }

    /// The next instant that an engine waits for.
    fn next(&self) -> Option<Millis> {
        let state = lock(&self.0.state);
        state.timers.keys().next().map(|(at, _)| *at)
    }

    fn advance(&self, to: Millis) {
        self.0.advance(to);
    }
}

/// What a [`Clock`] and the engines under it share.
#[derive(Debug)]
pub(crate) struct Timeline {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now: Millis,
    timers: BTreeMap<(Millis, u64), Waker>,
    numbers: u64,
}

impl Timeline {
    pub(crate) fn now(&self) -> Millis {
        lock(&self.state).now
    }

    /// Moves on, never back, and wakes whoever waited for an instant up to there, in their order.
    fn advance(&self, to: Millis) {
        let mut wakers = Vec::new();
        {
            let mut state = lock(&self.state);
            state.now = state.now.max(to);
            while let Some(entry) = state.timers.first_entry() {
                if entry.key().0 > to {
                    break;
                }
                wakers.push(entry.remove());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// A run's seed: the same for the same run id in each repetition of a test.
    pub(crate) fn run_seed(&self, run_id: &str) -> Seed {
        // FNV-1a, then the mixing steps of SplitMix64. Runs of tests have nothing to hide.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ self.seed;
        for byte in run_id.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut seed = Seed::default();
        for half in seed.chunks_mut(8) {
            hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = hash;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            half.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
        }
        seed
    }
}

/// A pause until an instant of a timeline.
struct Pause {
    timeline: Arc<Timeline>,
    until: Millis,
    number: u64,
}

impl Future for Pause {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.timeline.state);
        if state.now >= self.until {
            return Poll::Ready(());
        }
        let key = (self.until, self.number);
        let former = state.timers.insert(key, context.waker().clone());
        drop(state);
        drop(former);
        Poll::Pending
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let key = (self.until, self.number);
        // A waker may be the last to hold a task, and tasks hold pauses: not to be dropped under the lock.
        let waker = lock(&self.timeline.state).timers.remove(&key);
        drop(waker);
    }
}

/// The world of one engine under a clock.
#[derive(Debug)]
pub(crate) struct VirtualEnv {
    timeline: Arc<Timeline>,
    executor: Arc<Executor>,
}

impl VirtualEnv {
    pub(crate) fn new(timeline: Arc<Timeline>, host: Arc<HostQueue>) -> Self {
        Self {
            timeline,
            executor: Arc::new(Executor {
                host,
                lines: Mutex::default(),
            }),
        }
    }

    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Runs tasks until none is ready.
    pub(crate) fn run_ready(&self) {
        self.executor.run_ready();
    }
}

impl Env for VirtualEnv {
    fn now(&self) -> Millis {
        self.timeline.now()
    }

    fn moment(&self) -> Moment {
        // A timeline only goes forward, and nothing but its own pauses makes time pass.
        Moment::at(self.timeline.now())
    }

    fn explicit_now(&self) -> Option<Millis> {
        Some(self.timeline.now())
    }

    fn sleep(&self, span: Duration) -> Task {
        let mut state = lock(&self.timeline.state);
        state.numbers += 1;
        let span = Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX);
        Box::pin(Pause {
            timeline: Arc::clone(&self.timeline),
            until: state.now.saturating_add(span),
            number: state.numbers,
        })
    }

    fn spawn(&self, task: Task) {
        let number = {
            let mut lines = lock(&self.executor.lines);
            lines.numbers += 1;
            lines.numbers
        };
        let job = Arc::new(Job {
            number,
            future: Mutex::new(Some(task)),
            queued: AtomicBool::new(false),
            executor: Arc::downgrade(&self.executor),
        });
        lock(&self.executor.lines)
            .jobs
            .insert(number, Arc::clone(&job));
        job.wake();
    }
}

struct Executor {
    host: Arc<HostQueue>,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    ready: VecDeque<Arc<Job>>,
    /// All that have not ended, so that they end with the executor.
    jobs: BTreeMap<u64, Arc<Job>>,
    numbers: u64,
}

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").finish_non_exhaustive()
    }
}

impl Executor {
    fn run_ready(&self) {
        loop {
            let next = lock(&self.lines).ready.pop_front();
            let Some(job) = next else {
                return;
            };
            job.queued.store(false, Ordering::Release);
            let waker = Waker::from(Arc::clone(&job));
            let mut slot = lock(&job.future);
            if let Some(future) = slot.as_mut()
                && future
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_ready()
            {
                *slot = None;
                lock(&self.lines).jobs.remove(&job.number);
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut *lock(&self.lines));
        for job in lines.jobs.into_values() {
            // Timers hold jobs and jobs hold timers: without this they would keep each other.
            let future = lock(&job.future).take();
            drop(future);
        }
    }
}

struct Job {
    number: u64,
    future: Mutex<Option<Task>>,
    queued: AtomicBool,
    executor: Weak<Executor>,
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        let Some(executor) = self.executor.upgrade() else {
            return;
        };
        if !self.queued.swap(true, Ordering::AcqRel) {
            lock(&executor.lines).ready.push_back(self);
            executor.host.poke();
        }
    }
}
