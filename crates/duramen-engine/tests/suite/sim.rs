//! A simulated world: a virtual clock and an executor on the test's own thread, in seeded order.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use duramen_core::ids::Millis;
use duramen_engine::{Env, Moment, Task};

/// The instant at which every simulation begins.
pub const T0: Millis = 1_000_000;

pub struct Sim {
    state: Mutex<State>,
}

struct State {
    now: Millis,
    timers: BTreeMap<(Millis, u64), Waker>,
    ready: Vec<Arc<SimTask>>,
    numbers: u64,
    random: u64,
}

struct SimTask {
    future: Mutex<Option<Task>>,
    queued: AtomicBool,
    sim: Arc<Sim>,
}

impl Wake for SimTask {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let sim = self.sim.clone();
            sim.state.lock().unwrap().ready.push(self);
        }
    }
}

impl Sim {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                now: T0,
                timers: BTreeMap::new(),
                ready: Vec::new(),
                numbers: 0,
                random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            }),
        })
    }

    pub fn now(&self) -> Millis {
        self.state.lock().unwrap().now
    }

    pub fn random(&self, below: u64) -> u64 {
        self.state.lock().unwrap().random(below)
    }

    /// Polls one task that is ready; false when there is none.
    pub fn step(&self) -> bool {
        let task = {
            let mut state = self.state.lock().unwrap();
            if state.ready.is_empty() {
                return false;
            }
            let waiting = state.ready.len() as u64;
            let at = state.random(waiting);
            state.ready.swap_remove(usize::try_from(at).unwrap())
        };
        task.queued.store(false, Ordering::Release);
        let waker = Waker::from(task.clone());
        let mut slot = task.future.lock().unwrap();
        if let Some(future) = slot.as_mut()
            && future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
        {
            *slot = None;
        }
        true
    }

    /// Moves the clock to the next instant that someone waits for, but not beyond `limit`.
    pub fn advance(&self, limit: Millis) -> bool {
        let mut wakers = Vec::new();
        {
            let mut state = self.state.lock().unwrap();
            let Some(((at, _), _)) = state.timers.first_key_value() else {
                return false;
            };
            let at = (*at).max(state.now);
            if at > limit {
                state.now = state.now.max(limit);
                return false;
            }
            state.now = at;
            while let Some(entry) = state.timers.first_entry() {
                if entry.key().0 > at {
                    break;
                }
                wakers.push(entry.remove());
            }
        }
        wakers.into_iter().for_each(Waker::wake);
        true
    }

    /// Moves the clock on although nothing happens, as when a process is stopped.
    pub fn skip(&self, span: Millis) {
        self.state.lock().unwrap().now += span;
    }
}

impl State {
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below.max(1)
    }
}

struct Sleep {
    sim: Arc<Sim>,
    until: Millis,
    number: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.sim.state.lock().unwrap();
        if state.now >= self.until {
            return Poll::Ready(());
        }
        let key = (self.until, self.number);
        state.timers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let key = (self.until, self.number);
        self.sim.state.lock().unwrap().timers.remove(&key);
    }
}

/// The simulation as an engine's environment.
pub struct SimEnv(pub Arc<Sim>);

impl Env for SimEnv {
    fn now(&self) -> Millis {
        self.0.now()
    }

    fn moment(&self) -> Moment {
        Moment::at(self.0.now())
    }

    fn explicit_now(&self) -> Option<Millis> {
        Some(self.0.now())
    }

    fn sleep(&self, span: Duration) -> Task {
        let mut state = self.0.state.lock().unwrap();
        state.numbers += 1;
        Box::pin(Sleep {
            sim: self.0.clone(),
            until: state.now + Millis::try_from(span.as_millis()).unwrap(),
            number: state.numbers,
        })
    }

    fn spawn(&self, task: Task) {
        let task = Arc::new(SimTask {
            future: Mutex::new(Some(task)),
            queued: AtomicBool::new(false),
            sim: self.0.clone(),
        });
        task.wake();
    }
}
