//! The lab: what several processes of a test share, and how time passes for them.

use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use duramen_core::ids::{Millis, Payload};
use duramen_core::lanes::{DEFAULT_PRIORITY, DEFAULT_QUEUE};
use duramen_core::run::Status;
use duramen_core::store::{
    Delivered, MessageKind, NewMessage, NewRun, RunDetail, Start, Store, WorkflowKey,
};
use duramen_engine::{Config, Engine, Env, HostQueue, TokioEnv};
use duramen_store_memory::MemoryStore;
use duramen_store_sqlite::{SqliteOptions, SqliteStore, Synchronous};

use crate::clocks::{Clocks, SetEnv};
use crate::faults::{Facts, Faults};
use crate::host::Host;
use crate::sim::{Sim, SimEnv};

/// What all processes of a test share.
pub struct Lab {
    pub sim: Option<Arc<Sim>>,
    /// Times of day that can be set, in some simulations.
    pub clocks: Option<Arc<Clocks>>,
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

    /// Virtual time, memory, and clocks that can be set: of the processes and of the store.
    pub fn clocks(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let clocks = Clocks::new(sim.clone());
        let env = Arc::new(SetEnv(clocks.clone()));
        let mut lab = Self::with(Some(sim), env, Arc::new(MemoryStore::new()), None, None);
        lab.clocks = Some(clocks);
        lab
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
            clocks: None,
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
        let store = Faults::new(
            self.store.clone(),
            self.env.clone(),
            self.clocks.clone(),
            self.facts.clone(),
        );
        let bell = self.bell.clone();
        let env = self.env.clone();
        let wake = move || {
            *bell.0.lock().unwrap() = true;
            bell.1.notify_all();
        };
        let queue = Arc::new(HostQueue::with_clock(Box::new(wake), move || env.moment()));
        let engine = Engine::new(store.clone(), self.env.clone(), queue, config);
        engine.register(vec![key("w")]);
        Host::new(engine, store, self.facts.clone())
    }

    /// Lets a process get its lease, so that it does not have to before the next start.
    pub fn register(&self, host: &mut Host) {
        let token = host.token();
        host.engine.take(token, "nobody".into(), None);
        self.until(1_000, &mut [&mut *host], |hosts| {
            hosts[0].replies.contains_key(&token)
        });
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
        let now = || {
            let sim = self.sim.as_ref();
            sim.map_or_else(|| self.env.now(), |sim| sim.now())
        };
        let end = now() + limit;
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
                if now() >= end {
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

    /// The instant of a request that reaches the store by another way than through an engine.
    pub fn instant(&self) -> Option<Millis> {
        let clocks = self.clocks.as_ref();
        clocks.map_or_else(
            || self.env.explicit_now(),
            |clocks| Some(clocks.store_now()),
        )
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
            encoding: 1,
            now: self.instant(),
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
            now: self.instant(),
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
        label: None,
        serves: Vec::new(),
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
        queue: DEFAULT_QUEUE.into(),
        priority: DEFAULT_PRIORITY,
        input: Payload::from(run_id.to_owned()),
        meta: None,
        entries: Vec::new(),
        started_at: None,
        start: Start::Queued { at: None },
        tags: Vec::new(),
        memo: None,
        timeout: None,
        seed: [7; 16],
        parent: None,
        root: None,
        origin: None,
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
