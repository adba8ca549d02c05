//! `Engine`: the calls of a Python runtime, and the drain of what came back.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::{Entry, Kind, Meta, Tick};
use duramen_core::lanes::{DEFAULT_PRIORITY, DEFAULT_QUEUE};
use duramen_core::run::Seed;
use duramen_core::store::{
    Cursor, Filter, MessageKind, NewMessage, NewRun, ScheduleAsk, ScheduleChange, ScheduleRow,
    Start, Store, StreamAsk, WorkflowKey,
};
use duramen_engine::{
    CLAIM_BYTES, Config, Driven, Engine as Core, Env, HostEvent, HostQueue, Moment, Reply,
    RunDriver, SweepOptions, TokioEnv,
};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use pythonize::depythonize;

use crate::clock::{Clock, VirtualEnv};
use crate::events::{Advance, Drive, Evict, Lost, Newer, Reply as ReplyEvent, Resume};
use crate::pystore::PyStore;
use crate::record::number;
use crate::reply;
use crate::run::Run;
use crate::storeobj::StoreObject;
use crate::stores;
use crate::stores::{Counts, Opened};
use crate::{wake, world};

/// `(run_id, workflow, version, input, start at, tags, memo, timeout)`
pub(crate) type NewRunTuple = (
    String,
    String,
    String,
    Vec<u8>,
    Option<Millis>,
    Vec<String>,
    Option<Vec<u8>>,
    Option<Millis>,
);
/// `(encoding, kind, operation, meta, payload, at)`
type BroughtTuple = (u8, String, String, Option<String>, Vec<u8>, Millis);
/// `(run_id, message_id, kind, name, payload, fingerprint)`
pub(crate) type MessageTuple = (String, String, String, String, Vec<u8>, Option<String>);

/// `(version, workflow, next at, definition, state)`
type ScheduleTuple = (i64, String, Option<Millis>, Vec<u8>, Vec<u8>);
/// `(id, expected version, what is to stand there)`
type ScheduleChangeTuple = (String, Option<i64>, Option<ScheduleTuple>);
/// `(run, schedule, fire time, previous fire time)`
type ScheduledRunTuple = (NewRunTuple, String, Millis, Option<Millis>);

#[pyclass(frozen, module = "duramen._native")]
pub(crate) struct Engine {
    core: Arc<Core>,
    runs: Mutex<HashMap<u64, Py<Run>>>,
    opened: Arc<Opened>,
    python_store: Option<Arc<PyStore>>,
    /// Virtual time, in tests.
    virtual_env: Option<Arc<VirtualEnv>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    fn runs(&self) -> MutexGuard<'_, HashMap<u64, Py<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_run(&self, py: Python<'_>, ticket: u64) -> Option<Py<Run>> {
        self.runs().get(&ticket).map(|run| run.clone_ref(py))
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.core.store()
    }

    pub(crate) fn new_run(&self, run: NewRunTuple) -> PyResult<NewRun> {
        Ok(NewRun {
            now: self.explicit_now(),
            ..new_run(run, self.virtual_env.as_deref())?
        })
    }

    pub(crate) fn explicit_now(&self) -> Option<Millis> {
        self.core.explicit_now()
    }

    /// One event for Python, or nothing if it concerns a run that has left these hands.
    fn translate(&self, py: Python<'_>, event: HostEvent) -> PyResult<Option<Py<PyAny>>> {
        Ok(Some(match event {
            HostEvent::Drive { ticket, run, clock } => {
                let tags = run.row.tags.clone();
                let driver = RunDriver::new(Arc::clone(&self.core), ticket, *run, clock);
                let run = Py::new(py, Run::new(driver, tags, ticket))?;
                self.runs().insert(ticket, run.clone_ref(py));
                let ticket = number(py, ticket);
                Py::new(py, Drive { ticket, run })?.into_any()
            }
            HostEvent::Resume {
                ticket,
                row,
                inbox,
                inbox_more,
                clock,
            } => {
                let Some(run) = self.get_run(py, ticket) else {
                    return Ok(None);
                };
                run.get().lock().resume(&row, inbox, inbox_more, clock);
                let ticket = number(py, ticket);
                Py::new(py, Resume { ticket })?.into_any()
            }
            HostEvent::Evict { ticket } => {
                self.runs().remove(&ticket);
                let ticket = number(py, ticket);
                Py::new(py, Evict { ticket })?.into_any()
            }
            HostEvent::Committed { ticket, outcome } => {
                let Some(run) = self.get_run(py, ticket) else {
                    return Ok(None);
                };
                let driven = run.get().lock().committed(&outcome);
                if driven.is_some_and(|driven| driven != Driven::Paused) {
                    self.runs().remove(&ticket);
                }
                advance(py, ticket, driven)?
            }
            HostEvent::Lost {
                ticket,
                epoch,
                error,
            } => {
                let Some(run) = self.get_run(py, ticket) else {
                    return Ok(None);
                };
                if !run.get().lock().lost(epoch) {
                    return Ok(None);
                }
                self.runs().remove(&ticket);
                let lost = Lost {
                    ticket: number(py, ticket),
                    error: error.as_ref().map(reply::error_pair),
                };
                Py::new(py, lost)?.into_any()
            }
            HostEvent::Messages { ticket, messages } => {
                return self.with_run(py, ticket, |driver| driver.deliver(messages));
            }
            HostEvent::Page {
                ticket,
                messages,
                more,
            } => {
                return self.with_run(py, ticket, |driver| driver.deliver_page(messages, more));
            }
            HostEvent::Tick { ticket } => {
                return self.with_run(py, ticket, RunDriver::ticked);
            }
            HostEvent::Yield { ticket } => {
                return self.with_run(py, ticket, RunDriver::leave);
            }
            HostEvent::Newer { reads } => Py::new(py, Newer { reads })?.into_any(),
            HostEvent::Reply { token, reply } => {
                let (value, error) = match reply {
                    Ok(Reply::Read(Some(run))) => {
                        let tags = run.row.tags.clone();
                        let driver = RunDriver::reading(Arc::clone(&self.core), *run);
                        (
                            Py::new(py, Run::new(driver, tags, 0))?.into_any(),
                            py.None(),
                        )
                    }
                    Ok(reply) => (reply::to_python(py, reply)?, py.None()),
                    Err(error) => (py.None(), reply::error_pair(&error).into_py_any(py)?),
                };
                let reply = ReplyEvent {
                    token: number(py, token),
                    value,
                    error,
                };
                Py::new(py, reply)?.into_any()
            }
        }))
    }

    fn with_run(
        &self,
        py: Python<'_>,
        ticket: u64,
        act: impl FnOnce(&mut RunDriver),
    ) -> PyResult<Option<Py<PyAny>>> {
        let Some(run) = self.get_run(py, ticket) else {
            return Ok(None);
        };
        {
            let mut driver = run.get().lock();
            if !driver.machine.is_driving() {
                return Ok(None);
            }
            act(&mut driver);
        }
        advance(py, ticket, None).map(Some)
    }
}

fn advance(py: Python<'_>, ticket: u64, driven: Option<Driven>) -> PyResult<Py<PyAny>> {
    let advance = Advance {
        ticket: number(py, ticket),
        driven: driven.map(Driven::name).into_py_any(py)?,
    };
    Ok(Py::new(py, advance)?.into_any())
}

/// A run's secret seed, from the operating system.
fn seed() -> PyResult<Seed> {
    let mut seed = Seed::default();
    getrandom::fill(&mut seed).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
    Ok(seed)
}

fn new_run(run: NewRunTuple, virtual_env: Option<&VirtualEnv>) -> PyResult<NewRun> {
    let (run_id, workflow, version, input, at, tags, memo, timeout) = run;
    let seed = virtual_env.map_or_else(seed, |env| Ok(env.timeline().run_seed(&run_id)))?;
    Ok(NewRun {
        run_id: run_id.into(),
        workflow,
        version,
        queue: DEFAULT_QUEUE.to_owned(),
        priority: DEFAULT_PRIORITY,
        input: input.into(),
        meta: None,
        entries: Vec::new(),
        started_at: None,
        start: Start::Queued { at },
        tags,
        memo: memo.map(Bytes::from),
        timeout,
        seed,
        parent: None,
        root: None,
        origin: None,
        now: None,
    })
}

fn schedule_change(change: ScheduleChangeTuple) -> ScheduleChange {
    let (id, expected, row) = change;
    ScheduleChange {
        row: row.map(
            |(version, workflow, next_at, definition, state)| ScheduleRow {
                id: id.clone(),
                version,
                workflow,
                next_at,
                definition: definition.into(),
                state: state.into(),
            },
        ),
        id,
        expected,
    }
}

fn brought(entry: BroughtTuple) -> PyResult<Entry> {
    let (encoding, kind, op, meta, payload, at) = entry;
    let known = Kind::ALL.into_iter().find(|each| each.name() == kind);
    let kind = known.ok_or_else(|| PyValueError::new_err(format!("unknown kind {kind:?}")))?;
    Ok(Entry {
        encoding,
        kind,
        op: op.into(),
        meta,
        payload: payload.into(),
        at,
    })
}

pub(crate) fn new_message(message: MessageTuple) -> PyResult<NewMessage> {
    let (run_id, message_id, kind, name, payload, fingerprint) = message;
    let kind = match kind.as_str() {
        "event" => MessageKind::Event,
        "approval" => MessageKind::Approval,
        "cancel" => MessageKind::Cancel,
        "child" => MessageKind::Child,
        "update" => MessageKind::Update,
        "pause" => MessageKind::Pause,
        "resume" => MessageKind::Resume,
        other => {
            return Err(PyValueError::new_err(format!(
                "unknown message kind {other:?}"
            )));
        }
    };
    Ok(NewMessage {
        run_id: run_id.into(),
        message_id,
        kind,
        name,
        payload: payload.into(),
        fingerprint,
        encoding: 1,
        now: None,
    })
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (scheme, location, *, owner, lease, hold, warm, wake_fd, wake, options, label = None, serves = Vec::new(), store = None, clock = None))]
    #[allow(clippy::too_many_arguments)] // keyword arguments of one constructor
    fn new(
        py: Python<'_>,
        scheme: &str,
        location: &str,
        owner: String,
        lease: Millis,
        hold: Millis,
        warm: usize,
        wake_fd: Option<i32>,
        wake: Option<Py<PyAny>>,
        options: &Bound<'_, PyDict>,
        label: Option<String>,
        serves: Vec<String>,
        store: Option<&Bound<'_, PyAny>>,
        clock: Option<&Bound<'_, Clock>>,
    ) -> PyResult<Self> {
        let waker = match (wake_fd, wake) {
            (Some(fd), _) => wake::by_descriptor(fd)?,
            (None, Some(callable)) => wake::by_callable(callable),
            (None, None) => {
                return Err(PyValueError::new_err("wake_fd or wake must be given"));
            }
        };
        let timeline = clock.map(|clock| Arc::clone(&clock.get().0));
        let host = Arc::new(match timeline.clone() {
            None => HostQueue::new(waker),
            Some(timeline) => HostQueue::with_clock(waker, move || Moment::at(timeline.now())),
        });
        let virtual_env =
            timeline.map(|timeline| Arc::new(VirtualEnv::new(timeline, Arc::clone(&host))));
        let env: Arc<dyn Env> = match &virtual_env {
            None => Arc::new(TokioEnv::new(world::handle()?)),
            Some(env) => Arc::clone(env) as Arc<dyn Env>,
        };
        let native = store.and_then(|store| store.cast::<StoreObject>().ok());
        let (opened, python_store) = match (native, store) {
            (Some(native), _) => (native.get().opened(), None),
            (None, Some(_)) => {
                let adapter = Arc::new(PyStore::new(Arc::clone(&host)));
                let opened = Opened {
                    store: Arc::clone(&adapter) as Arc<dyn Store>,
                    counts: Counts::None,
                    applied: Vec::new(),
                    shared: false,
                };
                (Arc::new(opened), Some(adapter))
            }
            (None, None) => {
                let opened = stores::open(py, scheme, location, options)?
                    .map_err(|error| StoreFailed::new_err(reply::error_pair(&error)))?;
                (Arc::new(opened), None)
            }
        };
        let config = Config {
            owner,
            label,
            serves,
            lease,
            hold,
            warm,
            shared_store: opened.shared,
        };
        let core = Core::new(Arc::clone(&opened.store), env, host, config);
        Ok(Self {
            core,
            runs: Mutex::default(),
            opened,
            python_store,
            virtual_env,
        })
    }

    /// Names of the migrations that opening the store applied.
    fn applied_on_open(&self) -> Vec<String> {
        self.opened.applied.clone()
    }

    fn register(&self, workflows: Vec<(String, String)>) {
        self.core.register(
            workflows
                .into_iter()
                .map(|(name, version)| WorkflowKey { name, version })
                .collect(),
        );
    }

    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        if let Some(env) = &self.virtual_env {
            env.run_ready();
        }
        for event in self.core.host().drain() {
            if let Some(event) = self.translate(py, event)? {
                list.append(event)?;
            }
        }
        if let Some(store) = &self.python_store {
            for request in store.requests() {
                list.append(Py::new(py, request.into_python(py)?)?)?;
            }
        }
        Ok(list)
    }

    fn flush(&self) {
        self.core.pipeline().flush();
    }

    fn now(&self) -> Millis {
        self.core.now()
    }

    fn owner(&self) -> String {
        self.core.owner().to_string()
    }

    fn active(&self) -> usize {
        self.core.active()
    }

    fn stats(&self) -> HashMap<&'static str, u64> {
        let counters = self.core.counters();
        let mut stats = HashMap::from([
            ("claims", counters.claims.load(Ordering::Relaxed)),
            ("claimed", counters.claimed.load(Ordering::Relaxed)),
            ("active", self.core.active() as u64),
            ("ended", counters.ended.load(Ordering::Relaxed)),
            ("lost", counters.lost.load(Ordering::Relaxed)),
            ("heartbeats", counters.heartbeats.load(Ordering::Relaxed)),
            ("commits", self.core.pipeline().commits()),
            ("batches", self.core.pipeline().batches()),
            ("refused", self.core.pipeline().refused()),
        ]);
        stats.extend(self.opened.counts.read());
        stats
    }

    fn migrate(&self, token: u64) {
        self.core.call(token, self.store().migrate(), Reply::Schema);
    }

    fn identity(&self, token: u64) {
        let identity = match self.store().transactions() {
            Some(transactions) => transactions.identity(),
            None => Box::pin(std::future::ready(Ok(None))),
        };
        self.core.call(token, identity, Reply::Identity);
    }

    fn schema(&self, token: u64) {
        self.core.call(token, self.store().schema(), Reply::Schema);
    }

    #[pyo3(signature = (token, run_id, workflow, version, input, tags, memo, timeout))]
    #[allow(clippy::too_many_arguments)] // the columns of one new run
    fn start(
        &self,
        token: u64,
        run_id: String,
        workflow: String,
        version: String,
        input: Vec<u8>,
        tags: Vec<String>,
        memo: Option<Vec<u8>>,
        timeout: Option<Millis>,
    ) -> PyResult<()> {
        let run = (run_id, workflow, version, input, None, tags, memo, timeout);
        let run = new_run(run, self.virtual_env.as_deref())?;
        self.core.start(token, run);
        Ok(())
    }

    fn create(&self, token: u64, runs: Vec<NewRunTuple>) -> PyResult<()> {
        let runs = runs
            .into_iter()
            .map(|run| new_run(run, self.virtual_env.as_deref()))
            .collect::<PyResult<_>>()?;
        self.core.create(token, runs);
        Ok(())
    }

    /// Names of the statuses of runs, at little cost.
    fn statuses(&self, token: u64, run_ids: Vec<String>) {
        let run_ids = run_ids.into_iter().map(RunId::from).collect();
        let found = self.store().standing(run_ids);
        self.core.call(token, found, Reply::Standings);
    }

    /// Creates runs in the name of schedules.
    fn create_scheduled(&self, token: u64, runs: Vec<ScheduledRunTuple>) -> PyResult<()> {
        let runs = runs
            .into_iter()
            .map(|(run, schedule, at, previous)| {
                let tick = Tick {
                    schedule: schedule.clone(),
                    at,
                    previous,
                };
                let meta = Meta {
                    tick: Some(tick),
                    ..Meta::default()
                };
                Ok(NewRun {
                    meta: meta.text(),
                    origin: Some(format!("schedule:{schedule}")),
                    ..new_run(run, self.virtual_env.as_deref())?
                })
            })
            .collect::<PyResult<_>>()?;
        self.core.create(token, runs);
        Ok(())
    }

    fn change_schedules(&self, token: u64, changes: Vec<ScheduleChangeTuple>) {
        let batch = changes.into_iter().map(schedule_change).collect();
        let done = self.store().change_schedules(batch);
        self.core.call(token, done, Reply::Changed);
    }

    fn get_schedules(&self, token: u64, ids: Vec<String>) {
        let found = self.store().get_schedules(ids);
        self.core.call(token, found, Reply::Schedules);
    }

    #[pyo3(signature = (token, after, limit))]
    fn list_schedules(&self, token: u64, after: Option<String>, limit: u32) {
        let found = self.store().list_schedules(after, limit);
        self.core.call(token, found, Reply::ScheduleList);
    }

    #[pyo3(signature = (token, workflows, after, limit, now))]
    fn due_schedules(
        &self,
        token: u64,
        workflows: Vec<String>,
        after: Option<(Millis, String)>,
        limit: u32,
        now: Option<Millis>,
    ) {
        let ask = ScheduleAsk {
            workflows,
            after,
            limit,
            now: now.or_else(|| self.explicit_now()),
        };
        let found = self.store().due_schedules(ask);
        self.core.call(token, found, Reply::DueSchedules);
    }

    /// A run that brings the beginning of another's journal.
    #[pyo3(signature = (token, run, queue, priority, origin, entries, started_at))]
    #[allow(clippy::too_many_arguments)] // the columns of one new run
    fn fork(
        &self,
        token: u64,
        run: NewRunTuple,
        queue: String,
        priority: u8,
        origin: String,
        entries: Vec<BroughtTuple>,
        started_at: Option<Millis>,
    ) -> PyResult<()> {
        let entries = entries.into_iter().map(brought).collect::<PyResult<_>>()?;
        let run = NewRun {
            queue,
            priority,
            origin: Some(origin),
            entries,
            started_at,
            ..new_run(run, self.virtual_env.as_deref())?
        };
        self.core.create(token, vec![run]);
        Ok(())
    }

    #[pyo3(signature = (token, run_id, now))]
    fn take(&self, token: u64, run_id: String, now: Option<Millis>) {
        self.core.take(token, run_id.into(), now);
    }

    fn adopt(&self, token: u64, run_id: String) {
        self.core.adopt(token, run_id.into());
    }

    /// Replies when the run has ended or is stuck; one look at the store serves all that wait.
    fn watch_end(&self, token: u64, run_id: String) {
        self.core.watch_end(token, run_id.into());
    }

    /// Nobody waits for that reply any more.
    fn unwatch_end(&self, token: u64) {
        self.core.unwatch_end(token);
    }

    /// Replies when a message has been answered or refused, or will not be.
    fn watch_answer(&self, token: u64, run_id: String, message_id: String) {
        self.core.watch_answer(token, run_id.into(), message_id);
    }

    /// Replies with what has become of a message by now.
    fn receipt(&self, token: u64, run_id: String, message_id: String) {
        self.core.receipt(token, run_id.into(), message_id);
    }

    /// Nobody waits for that reply any more.
    fn unwatch_answer(&self, token: u64) {
        self.core.unwatch_answer(token);
    }

    /// Replies with a copy of the run that only reads along, or None.
    fn read(&self, token: u64, run_id: String) {
        self.core.read(token, run_id.into());
    }

    fn deliver(&self, token: u64, messages: Vec<MessageTuple>) -> PyResult<()> {
        let messages = messages
            .into_iter()
            .map(new_message)
            .collect::<PyResult<_>>()?;
        self.core.deliver(token, messages);
        Ok(())
    }

    fn terminate(&self, token: u64, run_id: String, reason: Vec<u8>) {
        let entry = Entry::new(
            Kind::RunTerminated,
            "".into(),
            reason.into(),
            self.core.now(),
        );
        self.core.terminate(token, run_id.into(), entry);
    }

    #[pyo3(signature = (token, run_id, version))]
    fn reopen(&self, token: u64, run_id: String, version: Option<String>) {
        self.core.reopen(token, run_id.into(), version);
    }

    fn skip(&self, token: u64, run_id: String, op: String, result: Vec<u8>) {
        self.core.skip(token, run_id.into(), op, result.into());
    }

    fn delete(&self, token: u64, run_id: String, force: bool) {
        self.core.delete(token, run_id.into(), force);
    }

    fn get(&self, token: u64, run_ids: Vec<String>) {
        let run_ids: Vec<RunId> = run_ids.into_iter().map(RunId::from).collect();
        self.core
            .call(token, self.store().get(run_ids), Reply::Details);
    }

    fn load(&self, token: u64, run_id: String, start: u64, limit: u32) {
        self.core.call(
            token,
            self.store().load(run_id.into(), start, limit),
            Reply::Entries,
        );
    }

    /// A page of a stream; None where there is no such run.
    fn stream(&self, token: u64, run_id: String, stream: String, start: u64, limit: u32) {
        let ask = StreamAsk {
            run_id: run_id.into(),
            stream,
            start,
            limit,
        };
        self.core
            .call(token, self.store().stream(ask), Reply::Stream);
    }

    fn owners(&self, token: u64) {
        self.core.call(token, self.store().owners(), Reply::Owners);
    }

    fn census(&self, token: u64) {
        self.core.call(token, self.store().census(), Reply::Census);
    }

    #[pyo3(signature = (token, filter, limit, cursor))]
    fn list(
        &self,
        token: u64,
        filter: &Bound<'_, PyAny>,
        limit: u32,
        cursor: Option<(Millis, String)>,
    ) -> PyResult<()> {
        let filter: Filter = depythonize(filter)?;
        let cursor = cursor.map(|(created_at, run_id)| Cursor {
            created_at,
            run_id: run_id.into(),
        });
        self.core
            .call(token, self.store().list(filter, limit, cursor), Reply::Page);
        Ok(())
    }

    fn count(&self, token: u64, filter: &Bound<'_, PyAny>) -> PyResult<()> {
        let filter: Filter = depythonize(filter)?;
        self.core
            .call(token, self.store().count(filter), Reply::Count);
        Ok(())
    }

    fn sweep(&self, token: u64, options: &Bound<'_, PyDict>) -> PyResult<()> {
        let number = |name: &str| -> PyResult<Option<i64>> {
            options
                .get_item(name)?
                .filter(|value| !value.is_none())
                .map(|value| value.extract())
                .transpose()
        };
        let most = |name: &str, otherwise: usize| -> PyResult<usize> {
            Ok(number(name)?.map_or(otherwise, |most| usize::try_from(most).unwrap_or(0)))
        };
        self.core.sweep(
            token,
            SweepOptions {
                limit: most("limit", usize::MAX)?,
                max_recovered: most("max_recovered", 25)?,
                max_timers: most("max_timers", 25)?,
                max_queued: most("max_queued", 25)?,
                deadline: number("deadline")?,
                min_remaining: number("min_remaining")?.unwrap_or(1_000),
                now: number("now")?,
                max_bytes: number("max_bytes")?
                    .map_or(Some(CLAIM_BYTES), |most| u64::try_from(most).ok()),
            },
        );
        Ok(())
    }

    fn work(&self, concurrency: usize, poll_min: Millis, poll_max: Millis) {
        self.core.work(concurrency, poll_min, poll_max);
    }

    fn stop_work(&self) {
        self.core.stop_work();
    }

    fn yield_all(&self) {
        self.core.yield_all();
    }

    fn nudge(&self) {
        self.core.nudge();
    }

    fn close(&self, token: u64) {
        self.core.close(token);
    }

    /// The answer of a store written in Python to the request that `drain` brought.
    #[pyo3(signature = (request, value, error))]
    fn answer(
        &self,
        request: u64,
        value: &Bound<'_, PyAny>,
        error: Option<(String, String)>,
    ) -> PyResult<()> {
        let store = self
            .python_store
            .as_ref()
            .ok_or_else(|| PyValueError::new_err("this engine's store is not written in Python"))?;
        store.answer(
            request,
            value,
            error.map(|(kind, reason)| reply::error_from_pair(&kind, reason)),
        );
        Ok(())
    }
}

pyo3::create_exception!(duramen._native, StoreFailed, pyo3::exceptions::PyException);
