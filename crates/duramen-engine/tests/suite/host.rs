//! The toy host: it drains events and drives runs, all on the test's thread, and the lab around it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::inbox::Slot;
use duramen_core::machine::{Ending, Turn};
use duramen_core::primitives::step::StepOutcome;
use duramen_core::run::Status;
use duramen_core::store::{
    Delivered, MessageKind, NewMessage, NewRun, RunDetail, Start, Store, StoreError, WorkflowKey,
};
use duramen_engine::{
    Config, Driven, Engine, Env, HostEvent, HostQueue, Reply, RunDriver, Ticket, Token, TokioEnv,
};
use duramen_store_memory::MemoryStore;
use duramen_store_sqlite::{SqliteOptions, SqliteStore, Synchronous};

use crate::faults::{Facts, Faults};
use crate::sim::{Sim, SimEnv};
use crate::toy::{Ctx, Flow, Job, Program, World};

/// What all processes of a test share.
pub struct Lab {
    pub sim: Option<Arc<Sim>>,
    pub env: Arc<dyn Env>,
    pub store: Arc<dyn Store>,
    pub sqlite: Option<Arc<SqliteStore>>,
    pub facts: Arc<Facts>,
    bell: Arc<(Mutex<bool>, Condvar)>,
    _runtime: Option<tokio::runtime::Runtime>,
    _dir: Option<tempfile::TempDir>,
}

impl Lab {
    /// Virtual time, memory.
    pub fn sim(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let env = Arc::new(SimEnv(sim.clone()));
        Self::with(Some(sim), env, Arc::new(MemoryStore::new()), None, None)
    }

    /// Real time, memory.
    pub fn memory() -> Self {
        let runtime = runtime();
        let env = Arc::new(TokioEnv::new(runtime.handle().clone()));
        let store = Arc::new(MemoryStore::new());
        Self::with(None, env, store, Some(runtime), None)
    }

    /// Real time, a file.
    pub fn sqlite() -> Self {
        let runtime = runtime();
        let env = Arc::new(TokioEnv::new(runtime.handle().clone()));
        let dir = tempfile::tempdir().unwrap();
        let options = SqliteOptions {
            synchronous: Synchronous::Normal,
            ..SqliteOptions::default()
        };
        let store = Arc::new(SqliteStore::open(&dir.path().join("runs.db"), options).unwrap());
        let mut lab = Self::with(None, env, store.clone(), Some(runtime), Some(dir));
        lab.sqlite = Some(store);
        lab
    }

    /// Every kind of world.
    pub fn all() -> Vec<Self> {
        vec![Self::sim(1), Self::sim(2), Self::memory(), Self::sqlite()]
    }

    fn with(
        sim: Option<Arc<Sim>>,
        env: Arc<dyn Env>,
        store: Arc<dyn Store>,
        runtime: Option<tokio::runtime::Runtime>,
        dir: Option<tempfile::TempDir>,
    ) -> Self {
        Self {
            sim,
            env,
            store,
            sqlite: None,
            facts: Arc::default(),
            bell: Arc::default(),
            _runtime: runtime,
            _dir: dir,
        }
    }

    pub fn clock(&self) -> &Arc<Sim> {
        self.sim.as_ref().expect("a simulated lab")
    }

    pub fn process(&self, owner: &str) -> Host {
        self.process_with(config(owner))
    }

    /// A process: an engine with a host and a store of its own that can fail.
    pub fn process_with(&self, config: Config) -> Host {
        let store = Faults::new(self.store.clone(), self.env.clone(), self.facts.clone());
        let bell = self.bell.clone();
        let env = self.env.clone();
        let wake = move || {
            *bell.0.lock().unwrap() = true;
            bell.1.notify_all();
        };
        let queue = Arc::new(HostQueue::with_clock(Box::new(wake), move || env.now()));
        let engine = Engine::new(store.clone(), self.env.clone(), queue, config);
        engine.register(vec![key("w")]);
        Host {
            engine,
            store,
            facts: self.facts.clone(),
            program: Rc::new(|ctx| Box::pin(async move { Ok(ctx.input()) })),
            runs: BTreeMap::new(),
            replies: BTreeMap::new(),
            slow: Vec::new(),
            ended: Vec::new(),
            evicted: Vec::new(),
            lost_errors: Vec::new(),
            resumed: 0,
            told: 0,
            driven: 0,
            stopped: false,
            mended: false,
            tokens: 0,
        }
    }

    /// Lets everybody work until the condition holds. Time passes; panics after `limit` of it.
    pub fn until(
        &self,
        limit: Millis,
        hosts: &mut [&mut Host],
        mut done: impl FnMut(&mut [&mut Host]) -> bool,
    ) {
        assert!(
            self.run(limit, hosts, &mut done),
            "it did not happen within {limit} ms"
        );
    }

    /// Lets everybody work for that time.
    pub fn pass(&self, span: Millis, hosts: &mut [&mut Host]) {
        self.run(span, hosts, &mut |_| false);
    }

    fn run(
        &self,
        limit: Millis,
        hosts: &mut [&mut Host],
        done: &mut dyn FnMut(&mut [&mut Host]) -> bool,
    ) -> bool {
        let begun = Instant::now();
        let end = self.env.now() + limit;
        loop {
            let mut moved = false;
            for host in hosts.iter_mut() {
                moved |= host.round();
            }
            if done(hosts) {
                // A store that answers at once is ahead of the host.
                for host in hosts.iter_mut() {
                    host.round();
                }
                return true;
            }
            let Some(sim) = &self.sim else {
                if moved {
                    continue;
                }
                if self.env.now() >= end {
                    return false;
                }
                let bell = self.bell.0.lock().unwrap();
                let (mut bell, _) = self
                    .bell
                    .1
                    .wait_timeout_while(bell, Duration::from_millis(5), |rung| !*rung)
                    .unwrap();
                *bell = false;
                continue;
            };
            assert!(begun.elapsed().as_secs() < 60, "busy without end");
            if !sim.step() && !moved && !sim.advance(end) {
                return false;
            }
        }
    }

    pub fn detail(&self, run_id: &str) -> Option<RunDetail> {
        now(self.store.get(vec![run_id.into()])).pop().flatten()
    }

    pub fn status(&self, run_id: &str) -> Option<Status> {
        Some(self.detail(run_id)?.row.status)
    }

    pub fn output(&self, run_id: &str) -> String {
        let end = self.detail(run_id).unwrap().end.unwrap();
        String::from_utf8(end.payload.to_vec()).unwrap()
    }

    pub fn is_final(&self, run_id: &str) -> bool {
        self.status(run_id).is_some_and(Status::is_final)
    }

    /// A message that reaches the store by another way than through an engine of this test.
    pub fn send(&self, run_id: &str, name: &str, payload: &str) -> Delivered {
        let message = self.message(run_id, name, payload);
        now(self.store.deliver(vec![message])).pop().unwrap()
    }

    pub fn message(&self, run_id: &str, name: &str, payload: &str) -> NewMessage {
        NewMessage {
            run_id: run_id.into(),
            message_id: format!("{name}-{payload}"),
            kind: MessageKind::Event,
            name: name.into(),
            payload: Payload::from(payload.to_owned()),
            fingerprint: None,
            now: self.env.explicit_now(),
        }
    }

    pub fn cancel(&self, run_id: &str) -> NewMessage {
        NewMessage {
            kind: MessageKind::Cancel,
            name: String::new(),
            ..self.message(run_id, "cancel", "enough")
        }
    }

    /// Runs in the store that nobody has been told of.
    pub fn enqueue(&self, run_ids: &[&str]) {
        let runs = run_ids.iter().map(|run_id| NewRun {
            now: self.env.explicit_now(),
            ..new_run(run_id)
        });
        now(self.store.create(runs.collect()));
    }

    /// No step ran again after its result was recorded.
    pub fn check(&self) {
        let again = self.facts.again.lock().unwrap();
        assert!(again.is_empty(), "recorded steps ran again: {again:?}");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap()
}

pub fn config(owner: &str) -> Config {
    Config {
        owner: owner.into(),
        lease: 3_000,
        hold: 0,
        warm: 16,
        shared_store: true,
    }
}

pub fn key(name: &str) -> WorkflowKey {
    WorkflowKey {
        name: name.into(),
        version: "1".into(),
    }
}

pub fn new_run(run_id: &str) -> NewRun {
    NewRun {
        run_id: run_id.into(),
        workflow: "w".into(),
        version: "1".into(),
        input: Payload::from(run_id.to_owned()),
        start: Start::Queued { at: None },
        tags: Vec::new(),
        memo: None,
        timeout: None,
        seed: [7; 16],
        now: None,
    }
}

/// The answer of a store that is not in anybody's way.
pub fn now<T>(mut future: duramen_core::store::StoreFuture<T>) -> T {
    loop {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(answer) = future.as_mut().poll(&mut context) {
            return answer.unwrap();
        }
        std::thread::yield_now();
    }
}

struct Toy {
    ctx: Ctx,
    handler: Option<Job>,
}

/// One process.
pub struct Host {
    pub engine: Arc<Engine>,
    pub store: Arc<Faults>,
    facts: Arc<Facts>,
    pub program: Program,
    runs: BTreeMap<Ticket, Toy>,
    pub replies: BTreeMap<Token, Result<Reply, StoreError>>,
    /// Steps in flight that wait for the test.
    slow: Vec<(Ticket, Slot, String)>,
    /// How runs left this host's hands.
    pub ended: Vec<(RunId, Driven)>,
    pub evicted: Vec<Ticket>,
    pub lost_errors: Vec<Option<StoreError>>,
    pub resumed: usize,
    /// How often messages were brought to a driver.
    pub told: usize,
    pub driven: usize,
    /// A loop that is blocked, or a process that was stopped.
    pub stopped: bool,
    /// Steps that are called bad succeed.
    pub mended: bool,
    tokens: Token,
}

impl Host {
    pub fn program<F>(&mut self, program: impl Fn(Ctx) -> F + 'static)
    where
        F: Future<Output = Flow> + 'static,
    {
        self.program = Rc::new(move |ctx| Box::pin(program(ctx)));
    }

    pub fn token(&mut self) -> Token {
        self.tokens += 1;
        self.tokens
    }

    pub fn start(&mut self, run_id: &str) -> Token {
        self.start_run(new_run(run_id))
    }

    pub fn start_run(&mut self, run: NewRun) -> Token {
        let token = self.token();
        self.engine.start(token, run);
        token
    }

    pub fn send(&mut self, message: NewMessage) -> Token {
        let token = self.token();
        self.engine.deliver(token, vec![message]);
        token
    }

    pub fn how(&self, run_id: &str) -> Vec<Driven> {
        let of_run = self.ended.iter().filter(|(run, _)| &**run == run_id);
        of_run.map(|(_, driven)| *driven).collect()
    }

    /// Handlers in memory, kept ones too.
    pub fn handlers(&self) -> usize {
        self.runs.len()
    }

    pub fn in_flight(&self) -> usize {
        self.slow.len()
    }

    pub fn is_in_flight(&self, op: &str) -> bool {
        self.slow.iter().any(|(_, _, name)| name == op)
    }

    /// A slow step ends.
    pub fn complete(&mut self, op: &str) {
        let at = self.slow.iter().position(|(_, _, name)| name == op);
        let (ticket, slot, op) = self.slow.remove(at.expect("the step is in flight"));
        self.end_step(ticket, slot, &op);
        self.advance(ticket);
        self.engine.pipeline().flush();
    }

    pub fn complete_all(&mut self) {
        while let Some((_, _, op)) = self.slow.first().cloned() {
            self.complete(&op);
        }
    }

    /// The handler of one run cannot be driven any more.
    pub fn abandon(&mut self, run_id: &str) {
        for toy in self.runs.values() {
            let mut world = toy.ctx.0.borrow_mut();
            if &*world.driver.machine.facts().run_id == run_id {
                world.driver.abandon();
            }
        }
    }

    /// Handles everything that waits; false if nothing did.
    pub fn round(&mut self) -> bool {
        if self.stopped || self.store.dead.load(Ordering::Acquire) {
            return false;
        }
        let events = self.engine.host().drain();
        let moved = !events.is_empty();
        for event in events {
            self.handle(event);
        }
        self.engine.pipeline().flush();
        moved
    }

    pub fn handle(&mut self, event: HostEvent) {
        match event {
            HostEvent::Drive { ticket, run, clock } => {
                self.driven += 1;
                let driver = RunDriver::new(self.engine.clone(), ticket, *run, clock);
                let ctx = Ctx(Rc::new(RefCell::new(World {
                    driver,
                    results: BTreeMap::new(),
                    fresh: BTreeMap::new(),
                    cancelled: false,
                })));
                let handler = (self.program)(ctx.clone());
                let handler = Some(handler);
                self.runs.insert(ticket, Toy { ctx, handler });
                self.poll(ticket);
                self.advance(ticket);
            }
            HostEvent::Resume {
                ticket,
                row,
                inbox,
                clock,
            } => {
                self.resumed += 1;
                let toy = self.runs.get(&ticket).expect("a warm run has a handler");
                toy.ctx.0.borrow_mut().driver.resume(&row, inbox, clock);
                self.advance(ticket);
            }
            HostEvent::Evict { ticket } => {
                self.evicted.push(ticket);
                self.drop_run(ticket);
            }
            HostEvent::Committed { ticket, outcome } => {
                let Some(toy) = self.runs.get(&ticket) else {
                    return;
                };
                let driven = toy.ctx.0.borrow_mut().driver.committed(&outcome);
                match driven {
                    None => self.advance(ticket),
                    Some(driven) => self.left(ticket, driven),
                }
            }
            HostEvent::Lost {
                ticket,
                epoch,
                error,
            } => {
                let Some(toy) = self.runs.get(&ticket) else {
                    return;
                };
                if toy.ctx.0.borrow_mut().driver.lost(epoch) {
                    self.lost_errors.push(error);
                    self.left(ticket, Driven::Lost);
                }
            }
            HostEvent::Messages { ticket, messages } => {
                self.told += 1;
                self.with(ticket, |driver| driver.machine.deliver(messages));
            }
            HostEvent::Tick { ticket } => self.with(ticket, RunDriver::ticked),
            HostEvent::Yield { ticket } => self.with(ticket, |driver| driver.machine.yield_now()),
            HostEvent::Reply { token, reply } => {
                self.replies.insert(token, reply);
            }
        }
    }

    fn left(&mut self, ticket: Ticket, driven: Driven) {
        let run_id = {
            let world = self.runs[&ticket].ctx.0.borrow();
            world.driver.machine.facts().run_id.clone()
        };
        self.ended.push((run_id, driven));
        if driven == Driven::Paused {
            self.slow.retain(|(other, ..)| *other != ticket);
        } else {
            self.drop_run(ticket);
        }
    }

    fn drop_run(&mut self, ticket: Ticket) {
        self.slow.retain(|(other, ..)| *other != ticket);
        self.runs.remove(&ticket);
    }

    fn with(&mut self, ticket: Ticket, act: impl FnOnce(&mut RunDriver)) {
        let Some(toy) = self.runs.get(&ticket) else {
            return;
        };
        {
            let driver = &mut toy.ctx.0.borrow_mut().driver;
            if !driver.machine.is_driving() {
                return;
            }
            act(driver);
        }
        self.advance(ticket);
    }

    /// Lets the handler run until nothing is runnable.
    fn poll(&mut self, ticket: Ticket) {
        let Some(toy) = self.runs.get_mut(&ticket) else {
            return;
        };
        if !toy.ctx.0.borrow().driver.machine.is_driving() {
            return;
        }
        let Some(handler) = &mut toy.handler else {
            return;
        };
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(flow) = handler.as_mut().poll(&mut context) {
            toy.handler = None;
            let driver = &mut toy.ctx.0.borrow_mut().driver;
            let ending = match flow {
                Ok(output) => Ending::Completed(Payload::from(output)),
                Err(_) if driver.machine.was_cancelled() => Ending::Cancelled(Payload::new()),
                Err(error) => Ending::Failed {
                    // A failed step says its own name: the failure that `retry` takes back.
                    op: error.strip_suffix('!').map(str::to_owned),
                    error: Payload::from(error),
                },
            };
            let wall = driver.wall();
            let _ = driver.machine.finish(ending, wall);
        }
    }

    fn advance(&mut self, ticket: Ticket) {
        loop {
            let Some(toy) = self.runs.get(&ticket) else {
                return;
            };
            let ctx = toy.ctx.clone();
            let mut turn = ctx.0.borrow_mut().driver.turn();
            if let Turn::Offer { slot, message } = turn {
                let mut world = ctx.0.borrow_mut();
                world.fresh.insert(slot, message.payload);
                turn = world.driver.accept();
            }
            match turn {
                Turn::Deliver { slot, outcome, .. } => {
                    ctx.deliver(slot, outcome);
                    self.poll(ticket);
                }
                Turn::Start { slot, op, .. } => {
                    let run_id = ctx.0.borrow().driver.machine.facts().run_id.clone();
                    self.facts.starts(&run_id, &op);
                    if op.starts_with("slow") {
                        self.slow.push((ticket, slot, op.to_string()));
                    } else {
                        self.end_step(ticket, slot, &op);
                    }
                }
                Turn::Cancel { .. } | Turn::TimeOut { .. } => {
                    ctx.0.borrow_mut().cancelled = true;
                    self.poll(ticket);
                }
                Turn::Offer { .. } => panic!("offered twice"),
                Turn::Idle => return,
            }
        }
    }

    fn end_step(&mut self, ticket: Ticket, slot: Slot, op: &str) {
        let Some(toy) = self.runs.get(&ticket) else {
            return;
        };
        let mut world = toy.ctx.0.borrow_mut();
        let result = Payload::from(format!("{op}!"));
        let outcome = if op.starts_with("bad") && !self.mended {
            StepOutcome::Failed {
                error: result,
                retryable: false,
            }
        } else {
            world.fresh.insert(slot, result.clone());
            StepOutcome::Succeeded(result)
        };
        world.driver.machine.step_done(slot, outcome);
    }
}
