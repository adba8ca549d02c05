//! The simulated world: one clock, one timeline, and the tasks of every process, all on one thread
//! and in an order that the seed chooses.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use duramen_core::ids::Millis;
use duramen_core::inbox::Slot;
use duramen_engine::{Env, Moment, Task, Ticket};

use crate::plan::Deed;
use crate::rng::Rng;

/// The instant at which every simulation begins.
pub const T0: Millis = 1_000_000;

/// A process, numbered in the order of their starts; a restarted worker is another one.
pub type ProcessId = usize;

/// A request to the store that is under way.
pub trait Call: Send + Sync {
    fn process(&self) -> ProcessId;
    /// It reaches the store; says how long its answer takes.
    fn arrive(&self) -> Millis;
    /// Its answer reaches the process.
    fn answer(&self);
    /// Its process is gone: nobody waits for it.
    fn forget(&self);
}

/// A step's attempt that has ended.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub ticket: Ticket,
    pub slot: Slot,
    pub op: Arc<str>,
    pub number: u32,
    /// Tells this execution from every other one.
    pub execution: u64,
}

/// Something that happens at an instant.
#[allow(missing_debug_implementations)] // wakers and calls have nothing to show
pub enum Event {
    /// A pause of a process is over.
    Wake(Waker),
    Arrive(Arc<dyn Call>),
    Answer(Arc<dyn Call>),
    Step(ProcessId, Attempt),
    /// Something that the plan or the simulation itself does.
    Deed(Deed),
}

/// What a process can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    Running,
    /// Stopped as by a debugger, or with its machine: it will go on and notice nothing.
    Stopped,
    Dead,
}

struct Process {
    life: Life,
    ready: Vec<Arc<SimTask>>,
    tasks: Vec<Arc<SimTask>>,
    /// The host was woken and has not looked yet.
    awake: bool,
    /// What came in while it was stopped.
    held: Vec<Event>,
    calls: Vec<Arc<dyn Call>>,
    /// By how much its host's time of day differs from this world's clock.
    skew: Millis,
    /// What has befallen it so far.
    troubles: u64,
    /// Until when it, or its host, did nothing.
    idle_until: Millis,
    /// When the last thing befell it, and the one before that.
    troubled: (Millis, Millis),
}

struct State {
    now: Millis,
    /// By how much the store's clock is off.
    store: Millis,
    number: u64,
    timeline: BTreeMap<(Millis, u64), Event>,
    processes: Vec<Process>,
    rng: Rng,
    trace: Option<Vec<String>>,
}

/// See the module's head.
pub struct World {
    state: Mutex<State>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

/// A lock on one thread is never contended, and a panic elsewhere says so itself.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What can be run now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runnable {
    Task(ProcessId),
    Host(ProcessId),
}

impl World {
    pub fn new(rng: Rng, traced: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                now: T0,
                store: 0,
                number: 0,
                timeline: BTreeMap::new(),
                processes: Vec::new(),
                rng,
                trace: traced.then(Vec::new),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn now(&self) -> Millis {
        self.state().now
    }

    /// The store's time.
    pub fn store_now(&self) -> Millis {
        let state = self.state();
        state.now + state.store
    }

    /// The store's clock is set.
    pub fn set_store(&self, by: Millis) {
        self.state().store += by;
        self.trouble_all();
    }

    /// The time of day of a process's host.
    pub fn wall(&self, process: ProcessId) -> Millis {
        let state = self.state();
        state.now
            + state
                .processes
                .get(process)
                .map_or(0, |process| process.skew)
    }

    /// It is set.
    pub fn set_wall(&self, process: ProcessId, by: Millis) {
        if let Some(process) = self.state().processes.get_mut(process) {
            process.skew += by;
        }
        self.trouble(process);
    }

    /// Something befalls a process that may delay it.
    pub fn trouble(&self, process: ProcessId) {
        let mut state = self.state();
        let now = state.now;
        if let Some(process) = state.processes.get_mut(process) {
            process.troubles += 1;
            process.troubled = (now, process.troubled.0);
        }
    }

    /// Until when there was trouble before the last one, or an idle time.
    pub fn well_since(&self, process: ProcessId) -> Millis {
        let state = self.state();
        let process = state.processes.get(process);
        process.map_or(0, |process| process.idle_until.max(process.troubled.1))
    }

    /// Its host does nothing until then.
    pub fn idle(&self, process: ProcessId, until: Millis) {
        if let Some(process) = self.state().processes.get_mut(process) {
            process.troubles += 1;
            process.idle_until = until;
        }
    }

    pub fn trouble_all(&self) {
        for process in &mut self.state().processes {
            process.troubles += 1;
        }
    }

    pub fn troubles(&self, process: ProcessId) -> u64 {
        let state = self.state();
        state
            .processes
            .get(process)
            .map_or(0, |process| process.troubles)
    }

    /// Writes a line of the trace, if there is one.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let mut state = self.state();
        let at = state.now - T0;
        if let Some(trace) = &mut state.trace {
            trace.push(format!("{at:>7} {}", line()));
        }
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.state().trace.take().unwrap_or_default()
    }

    pub fn chance<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.state().rng)
    }

    pub fn process(&self, skew: Millis) -> ProcessId {
        let mut state = self.state();
        state.processes.push(Process {
            life: Life::Running,
            ready: Vec::new(),
            tasks: Vec::new(),
            awake: false,
            held: Vec::new(),
            calls: Vec::new(),
            skew,
            troubles: 0,
            idle_until: 0,
            troubled: (0, 0),
        });
        state.processes.len() - 1
    }

    pub fn life(&self, process: ProcessId) -> Life {
        let state = self.state();
        state
            .processes
            .get(process)
            .map_or(Life::Dead, |process| process.life)
    }

    pub fn stop(&self, process: ProcessId) {
        if let Some(process) = self.state().processes.get_mut(process)
            && process.life == Life::Running
        {
            process.life = Life::Stopped;
            process.troubles += 1;
        }
    }

    /// It goes on; what came in meanwhile is there at once.
    pub fn go_on(&self, process: ProcessId) {
        let mut state = self.state();
        let now = state.now;
        let Some(process) = state.processes.get_mut(process) else {
            return;
        };
        if process.life != Life::Stopped {
            return;
        }
        process.life = Life::Running;
        process.troubles += 1;
        process.idle_until = now;
        for event in std::mem::take(&mut process.held) {
            state.at(now, event);
        }
    }

    /// The process is gone at this moment. Its memory is freed by [`World::bury`].
    pub fn kill(&self, process: ProcessId) {
        if let Some(process) = self.state().processes.get_mut(process) {
            process.life = Life::Dead;
        }
    }

    /// Drops whatever a dead process left behind.
    pub fn bury(&self, process: ProcessId) {
        let Some(mut left) = self.state().processes.get_mut(process).map(|process| {
            let empty = Process {
                life: Life::Dead,
                ready: Vec::new(),
                tasks: Vec::new(),
                awake: false,
                held: Vec::new(),
                calls: Vec::new(),
                skew: 0,
                troubles: process.troubles + 1,
                idle_until: 0,
                troubled: (0, 0),
            };
            std::mem::replace(process, empty)
        }) else {
            return;
        };
        // Not under the lock: what is dropped here may come back to it.
        for call in left.calls.drain(..) {
            call.forget();
        }
        for task in left.tasks.drain(..) {
            let future = lock(&task.future).take();
            drop(future);
        }
    }

    /// Drops what is still to come.
    pub fn end(&self) {
        let timeline = std::mem::take(&mut self.state().timeline);
        drop(timeline);
    }

    /// Requests of dead processes that have not reached the store never do.
    pub fn forget_requests(&self) {
        let mut state = self.state();
        let dead: Vec<(Millis, u64)> = state
            .timeline
            .iter()
            .filter(|(_, event)| match event {
                Event::Arrive(call) => state
                    .processes
                    .get(call.process())
                    .is_none_or(|process| process.life == Life::Dead),
                _ => false,
            })
            .map(|(key, _)| *key)
            .collect();
        let events: Vec<Event> = dead
            .iter()
            .filter_map(|key| state.timeline.remove(key))
            .collect();
        drop(state);
        drop(events);
    }

    pub fn wake_host(&self, process: ProcessId) {
        if let Some(process) = self.state().processes.get_mut(process) {
            process.awake = true;
        }
    }

    pub fn at(&self, at: Millis, event: Event) {
        self.state().at(at, event);
    }

    /// Remembers a call that is under way, so that it is forgotten with its process.
    pub fn call(&self, call: &Arc<dyn Call>) {
        if let Some(process) = self.state().processes.get_mut(call.process()) {
            process.calls.push(Arc::clone(call));
        }
    }

    pub fn called(&self, call: &dyn Call) {
        if let Some(process) = self.state().processes.get_mut(call.process()) {
            let same = |other: &Arc<dyn Call>| std::ptr::addr_eq(Arc::as_ptr(other), call);
            process.calls.retain(|other| !same(other));
        }
    }

    /// Keeps an event of a stopped process until it goes on; one of a dead process is dropped.
    pub fn defer(&self, process: ProcessId, event: Event) -> Option<Event> {
        let mut state = self.state();
        let Some(process) = state.processes.get_mut(process) else {
            return Some(event);
        };
        match process.life {
            Life::Running => return Some(event),
            Life::Stopped => process.held.push(event),
            Life::Dead => {}
        }
        None
    }

    /// One of the things that can be run now, chosen by chance. `blocked` hosts do not run.
    pub fn choose(&self, blocked: impl Fn(ProcessId) -> bool) -> Option<Runnable> {
        let mut state = self.state();
        let mut choices = Vec::new();
        for (id, process) in state.processes.iter().enumerate() {
            if process.life != Life::Running {
                continue;
            }
            if !process.ready.is_empty() {
                choices.push(Runnable::Task(id));
            }
            if process.awake && !blocked(id) {
                choices.push(Runnable::Host(id));
            }
        }
        let at = state.rng.place(choices.len());
        let chosen = choices.get(at).copied()?;
        if let Runnable::Host(id) = chosen
            && let Some(process) = state.processes.get_mut(id)
        {
            process.awake = false;
        }
        Some(chosen)
    }

    /// Polls one of a process's ready tasks.
    pub fn run_task(&self, process: ProcessId) {
        let task = {
            let mut state = self.state();
            let ready = state.processes.get(process).map_or(0, |p| p.ready.len());
            let at = state.rng.place(ready);
            let Some(process) = state.processes.get_mut(process) else {
                return;
            };
            if at >= process.ready.len() {
                return;
            }
            process.ready.swap_remove(at)
        };
        task.queued.store(false, Ordering::Release);
        let future = lock(&task.future).take();
        let Some(mut future) = future else { return };
        let waker = Waker::from(Arc::clone(&task));
        if future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            *lock(&task.future) = Some(future);
        } else if let Some(process) = self.state().processes.get_mut(process) {
            process.tasks.retain(|other| !Arc::ptr_eq(other, &task));
        }
    }

    /// Moves the clock to the next event, unless that is beyond `limit`.
    pub fn next(&self, limit: Millis) -> Option<Event> {
        let mut state = self.state();
        let entry = state.timeline.first_entry()?;
        let at = entry.key().0;
        if at > limit {
            return None;
        }
        let event = entry.remove();
        state.now = state.now.max(at);
        Some(event)
    }

    /// The next event if it happens right now, as often as not: what is due may come before or
    /// after what is runnable.
    pub fn next_now(&self) -> Option<Event> {
        let mut state = self.state();
        let first = state.timeline.first_key_value();
        if first.is_none_or(|((at, _), _)| *at > state.now) || state.rng.one_in(2) {
            return None;
        }
        state.timeline.pop_first().map(|(_, event)| event)
    }

    fn forget_timer(&self, key: (Millis, u64)) {
        let event = self.state().timeline.remove(&key);
        drop(event);
    }
}

impl State {
    fn at(&mut self, at: Millis, event: Event) -> (Millis, u64) {
        self.number += 1;
        let key = (at.max(self.now), self.number);
        self.timeline.insert(key, event);
        key
    }
}

struct SimTask {
    process: ProcessId,
    future: Mutex<Option<Task>>,
    queued: AtomicBool,
    world: Arc<World>,
}

impl Wake for SimTask {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let world = Arc::clone(&self.world);
            let mut state = world.state();
            if let Some(process) = state.processes.get_mut(self.process)
                && process.life != Life::Dead
            {
                process.ready.push(self);
            }
        }
    }
}

struct Sleep {
    world: Arc<World>,
    until: Millis,
    key: Option<(Millis, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let world = Arc::clone(&self.world);
        let mut state = world.state();
        match self.key {
            // Even a pause of no length lets others run.
            Some(_) if state.now >= self.until => return Poll::Ready(()),
            Some(key) if state.timeline.contains_key(&key) => {}
            _ => {
                let wake = Event::Wake(context.waker().clone());
                self.key = Some(state.at(self.until, wake));
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.world.forget_timer(key);
        }
    }
}

/// The world as one process sees it, through a clock of its own.
#[derive(Debug)]
pub struct ProcessEnv {
    pub world: Arc<World>,
    pub process: ProcessId,
}

impl Env for ProcessEnv {
    fn now(&self) -> Millis {
        self.world.wall(self.process)
    }

    fn moment(&self) -> Moment {
        // However far its time of day is off.
        Moment::at(self.world.now())
    }

    fn explicit_now(&self) -> Option<Millis> {
        None
    }

    fn sleep(&self, span: Duration) -> Task {
        let span = Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX / 4);
        Box::pin(Sleep {
            world: Arc::clone(&self.world),
            until: self.world.now().saturating_add(span),
            key: None,
        })
    }

    fn spawn(&self, task: Task) {
        let task = Arc::new(SimTask {
            process: self.process,
            future: Mutex::new(Some(task)),
            queued: AtomicBool::new(false),
            world: Arc::clone(&self.world),
        });
        if let Some(process) = self.world.state().processes.get_mut(self.process)
            && process.life != Life::Dead
        {
            process.tasks.push(Arc::clone(&task));
        }
        task.wake();
    }
}
