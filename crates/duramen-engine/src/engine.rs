//! The engine of one process and one store: it claims runs, hands them to the host, keeps their
//! leases and takes their commits. It sees `dyn Store`, and knows nothing of Python.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use duramen_core::ids::{Millis, RunId};
use duramen_core::store::{
    Delivery, Hint, NewMessage, NewRun, Start, Store, StoreError, WorkflowKey,
};
use tokio::sync::Notify;

use crate::env::Env;
use crate::host::{HostEvent, HostQueue, Reply, Token};
use crate::inline::on_completion;
use crate::pending::Pending;
use crate::pipeline::Pipeline;
use crate::registry::Registry;

/// Clocks of one machine may differ by rounding; beyond this the store's clock is followed.
const CLOCK_TOLERANCE: Millis = 20;

/// How long a closing engine waits for what it has asked the store before.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// Journals of one claim may hold this many bytes together, unless the caller says otherwise.
pub const CLAIM_BYTES: u64 = 64 << 20;

/// What an engine is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Unique to this engine: exclusion rests on it.
    pub owner: String,
    pub lease: Millis,
    /// How near a deadline must be for the lease to be kept meanwhile.
    pub hold: Millis,
    /// How many paused runs are kept warm.
    pub warm: usize,
    /// Others use the store too: closing the engine leaves it open.
    pub shared_store: bool,
}

/// How the worker loop runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Working {
    pub(crate) concurrency: usize,
    pub(crate) poll_min: Millis,
    pub(crate) poll_max: Millis,
}

/// Counters, for tests and for people.
#[derive(Debug, Default)]
pub struct Counters {
    pub claims: AtomicU64,
    pub claimed: AtomicU64,
    /// Driven to their ends here, or parked.
    pub ended: AtomicU64,
    pub lost: AtomicU64,
    pub heartbeats: AtomicU64,
    /// Runs that were leased to this engine although nobody drove them here, and were let go.
    pub orphans: AtomicU64,
}

/// What the background tasks wait for besides time. They hold the engine only while they work, so
/// that dropping it ends them.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) work: Notify,
    pub(crate) unread: Notify,
    pub(crate) ticks: Notify,
    pub(crate) beats: Notify,
}

impl Signals {
    /// Each has one waiter, and a signal that comes before the wait is kept for it.
    fn all(&self) {
        for signal in [&self.work, &self.unread, &self.ticks, &self.beats] {
            signal.notify_one();
        }
    }
}

/// What was the case when a request was sent to the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    at: Millis,
    pub(crate) yields: u64,
}

/// See the module's head.
pub struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) host: Arc<HostQueue>,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    pub(crate) signals: Arc<Signals>,
    pub(crate) pending: Arc<Pending>,
    /// Something may be due that the worker does not know of.
    look: AtomicBool,
    /// The store gives hints, and has given one since the worker looked.
    watching: AtomicBool,
    hinted: AtomicBool,
    hinted_unread: AtomicBool,
    /// The earliest instant at which something that was paused here is due.
    hint: AtomicI64,
    /// Until when the worker sleeps.
    pub(crate) resting_until: AtomicI64,
    /// Whether unread messages are being asked for, and whether they must be asked for again.
    pub(crate) fetching: AtomicU8,
    pipeline: Arc<Pipeline>,
    registry: Mutex<Registry>,
    workflows: Mutex<Vec<WorkflowKey>>,
    working: Mutex<Option<Working>>,
    clock_offset: AtomicI64,
    /// How often everybody was told to yield.
    yields: AtomicU64,
    /// Everybody was told to yield, and nobody has asked for anything to be driven since: paused
    /// runs that were started here are left to others.
    resting: AtomicBool,
    closing: AtomicBool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.signals.all();
    }
}

impl Engine {
    /// Starts the background tasks (heartbeats, messages, claims, ticks) in `env`.
    pub fn new(
        store: Arc<dyn Store>,
        env: Arc<dyn Env>,
        host: Arc<HostQueue>,
        config: Config,
    ) -> Arc<Self> {
        let pipeline = Arc::new(Pipeline::new(
            Arc::clone(&store),
            Arc::clone(&host),
            Arc::clone(&env),
            config.lease,
        ));
        let engine = Arc::new(Self {
            registry: Mutex::new(Registry::new(config.warm)),
            store,
            env,
            host,
            config,
            counters: Counters::default(),
            signals: Arc::default(),
            pending: Arc::default(),
            look: AtomicBool::new(false),
            watching: AtomicBool::new(false),
            hinted: AtomicBool::new(false),
            hinted_unread: AtomicBool::new(false),
            hint: AtomicI64::new(Millis::MAX),
            resting_until: AtomicI64::new(0),
            fetching: AtomicU8::new(0),
            pipeline,
            workflows: Mutex::default(),
            working: Mutex::default(),
            clock_offset: AtomicI64::new(0),
            yields: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        // One task each: a claim that waits for a locked store must not hold up a heartbeat.
        let signals = || Arc::clone(&engine.signals);
        let weak = || Arc::downgrade(&engine);
        let env = &engine.env;
        env.spawn(Box::pin(crate::keeper::keep(weak(), signals())));
        env.spawn(Box::pin(crate::unread::poll(weak(), signals())));
        env.spawn(Box::pin(crate::ticks::tick(weak(), signals())));
        env.spawn(Box::pin(crate::worker::work(weak(), signals())));
        engine
    }

    pub fn owner(&self) -> &str {
        &self.config.owner
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub fn host(&self) -> &HostQueue {
        &self.host
    }

    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    pub const fn hold(&self) -> Millis {
        self.config.hold
    }

    pub const fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// The store's time, as far as this process knows it.
    pub fn now(&self) -> Millis {
        self.env.now() + self.clock_offset.load(Ordering::Relaxed)
    }

    /// The instant that requests must name, when it is not the store's own.
    pub fn explicit_now(&self) -> Option<Millis> {
        self.env.explicit_now()
    }

    /// To be noted before a request is sent.
    pub(crate) fn asking(&self) -> Asked {
        Asked {
            at: self.env.now(),
            yields: self.yields.load(Ordering::Acquire),
        }
    }

    /// Learns from an answer of the store what time it has there. The store looked at its clock at
    /// some moment between question and answer: only what no such moment explains is an offset,
    /// or every slow answer would set this clock back, and forget what a quicker one has shown.
    pub(crate) fn learn_clock(&self, asked: Asked, store_now: Millis) {
        if self.env.explicit_now().is_some() {
            return;
        }
        let (least, most) = (store_now - self.env.now(), store_now - asked.at);
        if least > most {
            return; // this host's clock was set back meanwhile
        }
        let known = self.clock_offset.load(Ordering::Relaxed);
        let offset = if (least..=most).contains(&known) {
            known
        } else if least - CLOCK_TOLERANCE <= 0 && most + CLOCK_TOLERANCE >= 0 {
            0
        } else {
            known.clamp(least, most)
        };
        self.clock_offset.store(offset, Ordering::Relaxed);
    }

    /// Until when a lease lasts for certain, by this host's clock alone: the store gave it after it
    /// was asked, however long its answer took and whatever time it has there.
    pub(crate) fn leased_from(&self, asked: Asked) -> Millis {
        asked.at.saturating_add(self.config.lease)
    }

    /// Whether a run is this engine's for certain: known here as such, and its lease has not ended
    /// since it was claimed or renewed. A process that was stopped for longer than that has work on
    /// its hands that others may have taken up, and does not know it yet.
    pub(crate) fn holds(&self, ticket: crate::host::Ticket) -> bool {
        let now = self.env.now();
        self.registry()
            .get_mut(ticket)
            .is_some_and(|active| now < active.leased_until)
    }

    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workflows whose runs may be claimed here.
    pub fn register(&self, workflows: Vec<WorkflowKey>) {
        *self
            .workflows
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = workflows;
        self.nudge();
    }

    pub(crate) fn workflows(&self) -> Vec<WorkflowKey> {
        self.workflows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Runs driven here now.
    pub fn active(&self) -> usize {
        self.registry().len()
    }

    /// Instants that are waited for on behalf of runs that are driven here: one a run at the most.
    pub fn ticks(&self) -> usize {
        self.registry().ticks()
    }

    /// Runs that were started here and have not been seen to end.
    pub fn followed(&self) -> usize {
        self.registry().remembered()
    }

    /// Claims due runs of registered workflows from now on, in the background.
    pub fn work(self: &Arc<Self>, concurrency: usize, poll_min: Millis, poll_max: Millis) {
        // Who never works needs no hints, and a store may need a connection for them.
        if !self.watching.swap(true, Ordering::AcqRel) {
            let weak = Arc::downgrade(self);
            self.store.watch(Arc::new(move |hint| {
                if let Some(engine) = weak.upgrade() {
                    engine.hinted(hint);
                }
            }));
        }
        let poll_min = poll_min.max(1);
        self.set_working(Some(Working {
            concurrency: concurrency.max(1),
            poll_min,
            poll_max: poll_max.max(poll_min),
        }));
    }

    /// Claims nothing more; runs in flight go on.
    pub fn stop_work(&self) {
        self.set_working(None);
    }

    fn set_working(&self, working: Option<Working>) {
        if working.is_some() {
            self.rest(false);
        }
        *self.working.lock().unwrap_or_else(PoisonError::into_inner) = working;
        self.nudge();
    }

    pub(crate) fn working(&self) -> Option<Working> {
        *self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may be due: look now.
    pub fn nudge(&self) {
        self.look.store(true, Ordering::Release);
        self.signals.work.notify_one();
    }

    /// The store says that another process may have changed something. A hint is not a nudge: there
    /// may be thousands a second, and they are answered only so often.
    fn hinted(&self, hint: Hint) {
        let (flag, signal) = match hint {
            Hint::Due => (&self.hinted, &self.signals.work),
            Hint::Unread => (&self.hinted_unread, &self.signals.unread),
        };
        if !flag.swap(true, Ordering::AcqRel) {
            signal.notify_one();
        }
    }

    /// Whether the store has given that hint since the last call.
    pub(crate) fn take_hinted(&self, hint: Hint) -> bool {
        let flag = match hint {
            Hint::Due => &self.hinted,
            Hint::Unread => &self.hinted_unread,
        };
        flag.swap(false, Ordering::AcqRel)
    }

    /// Whether someone asked for a look since the last call.
    pub(crate) fn take_look(&self) -> bool {
        self.look.swap(false, Ordering::AcqRel)
    }

    /// Something is due at that instant: a worker that means to sleep longer is told.
    pub(crate) fn due_at(&self, at: Millis) {
        self.hint.fetch_min(at, Ordering::AcqRel);
        if at < self.resting_until.load(Ordering::Acquire) {
            self.signals.work.notify_one();
        }
    }

    pub(crate) fn take_hint(&self) -> Millis {
        self.hint.swap(Millis::MAX, Ordering::AcqRel)
    }

    /// Every active run starts nothing fresh and is released as soon as it can be. So is every run
    /// whose claim or creation is under way. Paused runs that were started here are left alone
    /// until something is to be driven here again.
    pub fn yield_all(&self) {
        self.rest(true);
        self.yields.fetch_add(1, Ordering::AcqRel);
        let tickets = self.registry().tickets();
        self.host.push_all(
            tickets
                .into_iter()
                .map(|ticket| HostEvent::Yield { ticket }),
        );
    }

    pub(crate) fn rest(&self, rest: bool) {
        if self.resting.swap(rest, Ordering::AcqRel) && !rest {
            self.nudge();
        }
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.resting.load(Ordering::Acquire)
    }

    /// Whether everybody was told to yield since a request was sent.
    pub(crate) fn yielded_since(&self, asked: Asked) -> bool {
        self.yields.load(Ordering::Acquire) != asked.yields
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Stops the background tasks and closes the store, unless others use it too. Runs that are
    /// still driven here lose their leases in time; runs whose claim is under way are let go.
    pub fn close(self: &Arc<Self>, token: Token) {
        self.closing.store(true, Ordering::Release);
        self.signals.all();
        if self.config.shared_store {
            self.host.push(HostEvent::Reply {
                token,
                reply: Ok(Reply::Done),
            });
        } else if self.pending.is_empty() {
            self.close_store(token);
        } else {
            // What is let go now must still reach the store.
            let engine = Arc::clone(self);
            self.env.spawn(Box::pin(async move {
                tokio::select! {
                    biased; // the order is not left to chance: a simulation must be able to repeat it
                    () = engine.pending.over() => {}
                    () = engine.env.sleep(PATIENCE) => {}
                }
                engine.close_store(token);
            }));
        }
    }

    fn close_store(&self, token: Token) {
        self.call(token, self.store.close(), |()| Reply::Done);
    }

    /// Sends a store's answer to the host as a reply.
    pub fn call<T: Send + 'static>(
        &self,
        token: Token,
        future: duramen_core::store::StoreFuture<T>,
        into: impl FnOnce(T) -> Reply + Send + 'static,
    ) {
        let host = Arc::clone(&self.host);
        on_completion(future, move |result| {
            host.push(HostEvent::Reply {
                token,
                reply: result.map(into),
            });
        });
    }

    /// Creates a run that is leased to this engine from the beginning, and drives it.
    pub fn start(self: &Arc<Self>, token: Token, mut run: NewRun) {
        self.rest(false);
        run.start = Start::Leased {
            owner: self.config.owner.clone(),
            lease: self.config.lease,
        };
        run.now = self.env.explicit_now();
        let (engine, input, asked) = (Arc::clone(self), run.input.clone(), self.asking());
        let under_way = self.pending.begin();
        on_completion(self.store.create(vec![run]), move |result| {
            let reply = result.and_then(|created| {
                let created = created.into_iter().next().ok_or(StoreError::Closed)?;
                let ticket = if created.created {
                    // The lease is one of the store's clock, and it may be the first that is seen of it.
                    engine.learn_clock(asked, created.row.created_at);
                    engine.drive_new(&created.row, input, asked)
                } else {
                    None
                };
                Ok(Reply::Started { created, ticket })
            });
            engine.host.push(HostEvent::Reply { token, reply });
            drop(under_way);
        });
    }

    /// Creates runs for whoever takes them.
    pub fn create(self: &Arc<Self>, token: Token, mut runs: Vec<NewRun>) {
        for run in &mut runs {
            run.now = self.env.explicit_now();
        }
        let engine = Arc::clone(self);
        self.call(token, self.store.create(runs), move |created| {
            engine.nudge();
            Reply::Created(created)
        });
    }

    /// Sends messages; drivers and followers in this process are told at once.
    pub fn deliver(self: &Arc<Self>, token: Token, mut messages: Vec<NewMessage>) {
        for message in &mut messages {
            message.now = self.env.explicit_now();
        }
        let run_ids: Vec<RunId> = messages
            .iter()
            .map(|message| message.run_id.clone())
            .collect();
        let engine = Arc::clone(self);
        self.call(token, self.store.deliver(messages), move |delivered| {
            let (mut mine, mut due) = (false, false);
            {
                let now = engine.now();
                let mut registry = engine.registry();
                for (run_id, delivered) in run_ids.iter().zip(&delivered) {
                    mine |= delivered.owner.as_ref() == Some(&engine.config.owner);
                    if delivered.owner.is_none() && delivered.result == Delivery::Delivered {
                        due = true;
                        registry.woken(run_id, now);
                    }
                }
            }
            if mine {
                engine.fetch_unread();
            }
            if due {
                engine.nudge();
            }
            Reply::Delivered(delivered)
        });
    }
}
