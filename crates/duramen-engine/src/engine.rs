//! The engine of one process and one store: it claims runs, hands them to the host, keeps their
//! leases and takes their commits. It sees `dyn Store`, and knows nothing of Python.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::Status;
use duramen_core::store::{
    Claim, Claimed, ClaimedRun, Created, Due, Message, NewRun, Start, Store, StoreError,
    WorkflowKey,
};
use tokio::sync::Notify;

use crate::driver::Driven;
use crate::env::Env;
use crate::host::{HostEvent, HostQueue, Reply, Ticket, Token};
use crate::inline::on_completion;
use crate::pipeline::Pipeline;
use crate::registry::Registry;
use crate::sweep::Group;

/// Clocks of one machine may differ by rounding; beyond this the store's clock is followed.
const CLOCK_TOLERANCE: Millis = 20;
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
    pub lost: AtomicU64,
    pub heartbeats: AtomicU64,
}

/// See the module's head.
pub struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) host: Arc<HostQueue>,
    pub(crate) config: Config,
    pub(crate) counters: Counters,
    /// Something may be due, or something has changed for the keeper.
    pub(crate) nudged: Notify,
    pipeline: Arc<Pipeline>,
    registry: Mutex<Registry>,
    workflows: Mutex<Vec<WorkflowKey>>,
    working: Mutex<Option<Working>>,
    clock_offset: AtomicI64,
    closing: AtomicBool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts the keeper (heartbeats, wake-ups, claims) as a task of `env`.
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
            nudged: Notify::new(),
            pipeline,
            workflows: Mutex::default(),
            working: Mutex::default(),
            clock_offset: AtomicI64::new(0),
            closing: AtomicBool::new(false),
        });
        engine
            .env
            .spawn(Box::pin(crate::keeper::keep(Arc::downgrade(&engine))));
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

    /// Learns from an answer of the store what time it has there.
    pub(crate) fn learn_clock(&self, store_now: Millis) {
        if self.env.explicit_now().is_none() {
            let offset = store_now - self.env.now();
            let offset = if offset.abs() < CLOCK_TOLERANCE {
                0
            } else {
                offset
            };
            self.clock_offset.store(offset, Ordering::Relaxed);
        }
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

    /// Claims due runs of registered workflows from now on, in the background.
    pub fn work(&self, concurrency: usize, poll_min: Millis, poll_max: Millis) {
        self.set_working(Some(Working {
            concurrency: concurrency.max(1),
            poll_min: poll_min.max(1),
            poll_max: poll_max.max(1),
        }));
    }

    /// Claims nothing more; runs in flight go on.
    pub fn stop_work(&self) {
        self.set_working(None);
    }

    fn set_working(&self, working: Option<Working>) {
        *self.working.lock().unwrap_or_else(PoisonError::into_inner) = working;
        self.nudge();
    }

    pub(crate) fn working(&self) -> Option<Working> {
        *self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something may be due: look now.
    pub fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Every active run starts nothing fresh and is released as soon as it can be.
    pub fn yield_all(&self) {
        let tickets = self.registry().tickets();
        self.host.push_all(
            tickets
                .into_iter()
                .map(|ticket| HostEvent::Yield { ticket }),
        );
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Stops the keeper and closes the store, unless others use it too.
    pub fn close(self: &Arc<Self>, token: Token) {
        self.closing.store(true, Ordering::Release);
        self.nudge();
        if self.config.shared_store {
            self.host.push(HostEvent::Reply {
                token,
                reply: Ok(Reply::Done),
            });
        } else {
            self.call(token, self.store.close(), |()| Reply::Done);
        }
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
        run.start = Start::Leased {
            owner: self.config.owner.clone(),
            lease: self.config.lease,
        };
        run.now = self.env.explicit_now();
        let (engine, input) = (Arc::clone(self), run.input.clone());
        on_completion(self.store.create(vec![run]), move |result| {
            let reply = result.and_then(|created| {
                let created = created.into_iter().next().ok_or(StoreError::Closed)?;
                let ticket = created.created.then(|| engine.drive_new(&created, input));
                Ok(Reply::Started { created, ticket })
            });
            engine.host.push(HostEvent::Reply { token, reply });
        });
    }

    fn drive_new(&self, created: &Created, input: duramen_core::ids::Payload) -> Ticket {
        let row = created.row.clone();
        let entry = Entry::new(Kind::RunCreated, "".into(), input, row.created_at);
        let (ticket, _) = {
            let mut registry = self.registry();
            registry.own(&row.run_id);
            registry.enter(&row.run_id, row.epoch, None, None)
        };
        self.host.push(HostEvent::Drive {
            ticket,
            run: Box::new(ClaimedRun {
                row,
                was: Status::Queued,
                journal: Some(vec![entry]),
                inbox: Vec::new(),
            }),
            clock: None,
        });
        ticket
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
    pub fn deliver(
        self: &Arc<Self>,
        token: Token,
        mut messages: Vec<duramen_core::store::NewMessage>,
    ) {
        for message in &mut messages {
            message.now = self.env.explicit_now();
        }
        let run_ids: Vec<RunId> = messages
            .iter()
            .map(|message| message.run_id.clone())
            .collect();
        let engine = Arc::clone(self);
        self.call(token, self.store.deliver(messages), move |delivered| {
            let mut mine = false;
            {
                let now = engine.now();
                let mut registry = engine.registry();
                for (run_id, delivered) in run_ids.iter().zip(&delivered) {
                    mine |= delivered.owner.as_ref() == Some(&engine.config.owner);
                    registry.due_now(run_id, now);
                }
            }
            if mine {
                engine.fetch_unread();
            }
            engine.nudge();
            Reply::Delivered(delivered)
        });
    }

    /// Brings messages that arrived meanwhile to the runs that are driven here.
    pub(crate) fn fetch_unread(self: &Arc<Self>) {
        let engine = Arc::clone(self);
        on_completion(
            self.store.unread(self.config.owner.clone()),
            move |result| match result {
                Ok(messages) => engine.hand_over(messages),
                Err(error) => tracing::debug!(%error, "unread messages could not be read"),
            },
        );
    }

    fn hand_over(&self, messages: Vec<Message>) {
        let mut by_ticket: BTreeMap<Ticket, Vec<Message>> = BTreeMap::new();
        {
            let registry = self.registry();
            for message in messages {
                if let Some(ticket) = registry.ticket_of(&message.run_id) {
                    by_ticket.entry(ticket).or_default().push(message);
                }
            }
        }
        self.host.push_all(
            by_ticket
                .into_iter()
                .map(|(ticket, messages)| HostEvent::Messages { ticket, messages }),
        );
    }

    /// A claim of due runs with everything an engine always says.
    pub(crate) fn claim_request(&self, due: Due, limit: usize) -> Claim {
        Claim {
            owner: self.config.owner.clone(),
            lease: self.config.lease,
            now: self.env.explicit_now(),
            due,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            workflows: self.workflows(),
            run_id: None,
            warm: self.registry().warm_runs(),
            max_bytes: Some(CLAIM_BYTES),
        }
    }

    /// Claims one run if it is due, and drives it.
    pub fn take(self: &Arc<Self>, token: Token, run_id: RunId, now: Option<Millis>) {
        let claim = Claim {
            run_id: Some(run_id),
            now: now.or_else(|| self.env.explicit_now()),
            ..self.claim_request(Due::Any, 1)
        };
        let engine = Arc::clone(self);
        self.call(token, self.store.claim(claim), move |claimed| {
            Reply::Taken(engine.take_up(claimed, None, now))
        });
    }

    /// Hands claimed runs to the host.
    pub(crate) fn take_up(
        self: &Arc<Self>,
        claimed: Claimed,
        group: Option<&Arc<Group>>,
        clock: Option<Millis>,
    ) -> Vec<(RunId, Ticket)> {
        self.counters.claims.fetch_add(1, Ordering::Relaxed);
        self.counters
            .claimed
            .fetch_add(claimed.runs.len() as u64, Ordering::Relaxed);
        if clock.is_none() {
            self.learn_clock(claimed.now);
        }
        let mut taken = Vec::with_capacity(claimed.runs.len());
        let mut events = Vec::with_capacity(claimed.runs.len());
        for run in claimed.runs {
            let run_id = run.row.run_id.clone();
            let mut registry = self.registry();
            let warm = registry.take_warm(&run_id);
            let resumable =
                warm.filter(|(_, len)| run.journal.is_none() && *len == run.row.journal_len);
            let (ticket, former) = registry.enter(
                &run_id,
                run.row.epoch,
                group.cloned(),
                resumable.map(|(ticket, _)| ticket),
            );
            drop(registry);
            if let Some((former, active)) = former {
                events.push(HostEvent::Lost {
                    ticket: former,
                    epoch: active.epoch,
                    error: None,
                });
                self.note_end(&active, former, Driven::Lost);
            }
            if let (Some((stale, _)), None) = (warm, resumable) {
                events.push(HostEvent::Evict { ticket: stale });
            }
            if let Some(group) = group {
                group.took(ticket, run_id.clone());
            }
            if resumable.is_some() {
                events.push(HostEvent::Resume {
                    ticket,
                    row: Box::new(run.row),
                    inbox: run.inbox,
                    clock,
                });
            } else if run.journal.is_some() {
                events.push(HostEvent::Drive {
                    ticket,
                    run: Box::new(run),
                    clock,
                });
            } else {
                self.load_and_drive(ticket, run, clock);
            }
            taken.push((run_id, ticket));
        }
        self.host.push_all(events);
        taken
    }

    /// The claim left the journal out because the run was warm, but it is not any more.
    fn load_and_drive(
        self: &Arc<Self>,
        ticket: Ticket,
        mut run: ClaimedRun,
        clock: Option<Millis>,
    ) {
        let engine = Arc::clone(self);
        on_completion(
            self.store.load(run.row.run_id.clone(), 0, u32::MAX),
            move |result| {
                let epoch = run.row.epoch;
                engine.host.push(match result {
                    Ok(journal) => {
                        run.journal = Some(journal);
                        HostEvent::Drive {
                            ticket,
                            run: Box::new(run),
                            clock,
                        }
                    }
                    Err(error) => HostEvent::Lost {
                        ticket,
                        epoch,
                        error: Some(error),
                    },
                });
            },
        );
    }

    /// A pause is under way: notes when the run will be due.
    pub(crate) fn expect_pause(&self, ticket: Ticket, ready_at: Option<Millis>) {
        if let Some(active) = self.registry().get_mut(ticket) {
            active.ready_at = ready_at;
        }
    }

    /// A run was released by a pause.
    pub(crate) fn paused(&self, ticket: Ticket, journal_len: u64, due: bool) {
        let now = self.now();
        let mut registry = self.registry();
        let Some(active) = registry.leave(ticket) else {
            return;
        };
        let ready_at = if due { Some(now) } else { active.ready_at };
        registry.follow_if_own(&active.run_id, ready_at);
        let evicted = registry.keep_warm(active.run_id.clone(), ticket, journal_len);
        drop(registry);
        if let Some(ticket) = evicted {
            self.host.push(HostEvent::Evict { ticket });
        }
        self.note_end(&active, ticket, Driven::Paused);
        // The keeper sleeps until something is due: an earlier deadline must reach it.
        self.nudge();
    }

    /// A run is out of the host's hands for good.
    pub(crate) fn ended(&self, ticket: Ticket, driven: Driven) {
        let mut registry = self.registry();
        let Some(active) = registry.leave(ticket) else {
            return;
        };
        registry.forget(&active.run_id);
        drop(registry);
        self.note_end(&active, ticket, driven);
        if self.working().is_some() {
            self.nudge();
        }
    }

    fn note_end(&self, active: &crate::registry::Active, ticket: Ticket, driven: Driven) {
        if driven == Driven::Lost {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(group) = &active.group {
            group.ended(ticket, driven);
        }
    }

    /// Wakes the run's driver at an instant, unless it is out of its hands by then.
    pub(crate) fn tick_at(&self, ticket: Ticket, until: Millis) {
        let span = Duration::from_millis(u64::try_from(until - self.now()).unwrap_or(0));
        let (host, sleep) = (Arc::clone(&self.host), self.env.sleep(span));
        self.env.spawn(Box::pin(async move {
            sleep.await;
            host.push(HostEvent::Tick { ticket });
        }));
    }
}
