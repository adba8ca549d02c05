//! A store written in Python, seen by the engine as any other.
//!
//! Its methods are coroutines that run on the host's loop: a request goes there through `drain`, its
//! answer comes back through `Engine.answer`. No user code runs on an engine thread. Arguments and
//! answers cross as plain dicts and lists, by the serde names of `duramen-core`'s types.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use duramen_core::ids::{Millis, RunId};
use duramen_core::journal::Entry;
use duramen_core::store::{
    Appended, Beat, Claim, Claimed, Claims, CommitOutcome, Created, Cursor, Delivered, DueAsk,
    DueSchedules, Filter, Heartbeat, InboxPage, Inboxes, Intervened, Intervention, Message,
    NewMessage, NewRun, NextDue, OpenRuns, OwnerRow, Page, Queries, Receipt, RunCommit, RunDetail,
    Runs, ScheduleAsk, ScheduleChange, ScheduleRow, Schedules, Schema, Standing, Store, StoreError,
    StoreFuture, StreamAppend, StreamAsk, StreamPage, Streams, Unsent, UnsentAsk,
};
use duramen_engine::HostQueue;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pythonize::{depythonize, pythonize};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::events::StoreRequest;
use crate::record::number;

type Convert = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyTuple>> + Send>;
type Resolve = Box<dyn for<'py> FnOnce(Result<&Bound<'py, PyAny>, StoreError>) + Send>;

/// A request on its way to Python.
pub(crate) struct Request {
    id: u64,
    method: &'static str,
    arguments: Convert,
}

impl Request {
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<StoreRequest> {
        Ok(StoreRequest {
            request: number(py, self.id),
            method: self.method,
            arguments: (self.arguments)(py)?.unbind(),
        })
    }
}

#[derive(Default)]
struct Traffic {
    next: u64,
    outgoing: Vec<Request>,
    waiting: BTreeMap<u64, Resolve>,
    closed: bool,
}

/// See the module's head.
pub(crate) struct PyStore {
    host: Arc<HostQueue>,
    traffic: Mutex<Traffic>,
}

impl std::fmt::Debug for PyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PyStore").finish_non_exhaustive()
    }
}

impl PyStore {
    pub(crate) fn new(host: Arc<HostQueue>) -> Self {
        Self {
            host,
            traffic: Mutex::default(),
        }
    }

    fn traffic(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that Python has not seen yet.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.traffic().outgoing)
    }

    pub(crate) fn answer(&self, request: u64, value: &Bound<'_, PyAny>, error: Option<StoreError>) {
        let waiting = self.traffic().waiting.remove(&request);
        if let Some(resolve) = waiting {
            resolve(error.map_or(Ok(value), Err));
        }
    }

    fn ask<A, T>(&self, method: &'static str, arguments: A) -> StoreFuture<T>
    where
        A: IntoArguments + Send + 'static,
        T: DeserializeOwned + Send + 'static,
    {
        let (send, receive) = oneshot::channel::<Result<T, StoreError>>();
        {
            let mut traffic = self.traffic();
            if traffic.closed {
                return Box::pin(async { Err(StoreError::Closed) });
            }
            let id = traffic.next;
            traffic.next += 1;
            traffic.outgoing.push(Request {
                id,
                method,
                arguments: Box::new(move |py| arguments.into_arguments(py)),
            });
            traffic.waiting.insert(
                id,
                Box::new(move |answer| {
                    let result = answer.and_then(|value| {
                        depythonize::<T>(value).map_err(|error| StoreError::Invalid {
                            reason: format!(
                                "the store's {method}() answered in a wrong form: {error}"
                            ),
                        })
                    });
                    drop(send.send(result));
                }),
            );
            traffic.closed = method == "close";
        }
        self.host.poke();
        Box::pin(async move { receive.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

impl PyStore {
    /// A batch, which is answered element by element.
    fn ask_each<A, T>(
        &self,
        method: &'static str,
        arguments: A,
        asked: usize,
    ) -> StoreFuture<Vec<T>>
    where
        A: IntoArguments + Send + 'static,
        T: DeserializeOwned + Send + 'static,
    {
        let answer = self.ask::<A, Vec<T>>(method, arguments);
        Box::pin(async move {
            let answers = answer.await?;
            let found = answers.len();
            if found != asked {
                let reason =
                    format!("the store's {method}() gave {found} answers to a batch of {asked}");
                return Err(StoreError::Invalid { reason });
            }
            Ok(answers)
        })
    }
}

/// Arguments of a store method as a tuple of plain values.
trait IntoArguments {
    fn into_arguments(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>>;
}

impl IntoArguments for () {
    fn into_arguments(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        Ok(PyTuple::empty(py))
    }
}

impl<A: Serialize> IntoArguments for (A,) {
    fn into_arguments(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(py, [pythonize(py, &self.0)?])
    }
}

impl<A: Serialize, B: Serialize> IntoArguments for (A, B) {
    fn into_arguments(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(py, [pythonize(py, &self.0)?, pythonize(py, &self.1)?])
    }
}

impl<A: Serialize, B: Serialize, C: Serialize> IntoArguments for (A, B, C) {
    fn into_arguments(self, py: Python<'_>) -> PyResult<Bound<'_, PyTuple>> {
        PyTuple::new(
            py,
            [
                pythonize(py, &self.0)?,
                pythonize(py, &self.1)?,
                pythonize(py, &self.2)?,
            ],
        )
    }
}

impl Runs for PyStore {
    fn create(&self, batch: Vec<NewRun>) -> StoreFuture<Vec<Created>> {
        let asked = batch.len();
        self.ask_each("create", (batch,), asked)
    }

    fn commit(&self, batch: Vec<RunCommit>) -> StoreFuture<Vec<CommitOutcome>> {
        self.ask("commit", (batch,))
    }

    fn intervene(&self, batch: Vec<Intervention>) -> StoreFuture<Vec<Intervened>> {
        let asked = batch.len();
        self.ask_each("intervene", (batch,), asked)
    }

    fn unsent(&self, ask: UnsentAsk) -> StoreFuture<Vec<Unsent>> {
        self.ask("unsent", (ask,))
    }

    fn sent(&self, items: Vec<Unsent>) -> StoreFuture<()> {
        self.ask("sent", (items,))
    }
}

impl Claims for PyStore {
    fn heartbeat(&self, beat: Heartbeat) -> StoreFuture<Beat> {
        self.ask("heartbeat", (beat,))
    }

    fn retire(&self, owner: String, now: Option<Millis>) -> StoreFuture<()> {
        self.ask("retire", (owner, now))
    }

    fn owners(&self) -> StoreFuture<Vec<OwnerRow>> {
        self.ask("owners", ())
    }

    fn held(
        &self,
        owner: String,
        after: Option<RunId>,
        limit: u32,
    ) -> StoreFuture<Vec<(RunId, i64)>> {
        self.ask("held", (owner, after, limit))
    }

    fn claim(&self, claim: Claim) -> StoreFuture<Claimed> {
        self.ask("claim", (claim,))
    }

    fn next_due(&self, ask: DueAsk) -> StoreFuture<NextDue> {
        self.ask("next_due", (ask,))
    }
}

impl Inboxes for PyStore {
    fn deliver(&self, batch: Vec<NewMessage>) -> StoreFuture<Vec<Delivered>> {
        let asked = batch.len();
        self.ask_each("deliver", (batch,), asked)
    }

    fn unread(&self, owner: String, told: Vec<(RunId, u64)>) -> StoreFuture<Vec<Message>> {
        self.ask("unread", (owner, told))
    }

    fn inbox(&self, run_id: RunId, behind: u64) -> StoreFuture<InboxPage> {
        self.ask("inbox", (run_id, behind))
    }

    fn receipts(&self, messages: Vec<(RunId, String)>) -> StoreFuture<Vec<Option<Receipt>>> {
        let asked = messages.len();
        self.ask_each("receipts", (messages,), asked)
    }
}

impl Streams for PyStore {
    fn append(&self, batch: Vec<StreamAppend>) -> StoreFuture<Vec<Appended>> {
        let asked = batch.len();
        self.ask_each("append", (batch,), asked)
    }

    fn stream(&self, ask: StreamAsk) -> StoreFuture<Option<StreamPage>> {
        self.ask("stream", (ask,))
    }
}

impl Queries for PyStore {
    fn get(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<RunDetail>>> {
        let asked = run_ids.len();
        self.ask_each("get", (run_ids,), asked)
    }

    fn standing(&self, run_ids: Vec<RunId>) -> StoreFuture<Vec<Option<Standing>>> {
        let asked = run_ids.len();
        self.ask_each("standing", (run_ids,), asked)
    }

    fn load(&self, run_id: RunId, from: u64, limit: u32) -> StoreFuture<Vec<Entry>> {
        self.ask("load", (run_id, from, limit))
    }

    fn list(&self, filter: Filter, limit: u32, cursor: Option<Cursor>) -> StoreFuture<Page> {
        self.ask("list", (filter, limit, cursor))
    }

    fn count(&self, filter: Filter) -> StoreFuture<u64> {
        self.ask("count", (filter,))
    }

    fn census(&self) -> StoreFuture<Vec<OpenRuns>> {
        self.ask("census", ())
    }
}

impl Schedules for PyStore {
    fn change_schedules(&self, batch: Vec<ScheduleChange>) -> StoreFuture<Vec<bool>> {
        let asked = batch.len();
        self.ask_each("change_schedules", (batch,), asked)
    }

    fn get_schedules(&self, ids: Vec<String>) -> StoreFuture<Vec<Option<ScheduleRow>>> {
        let asked = ids.len();
        self.ask_each("get_schedules", (ids,), asked)
    }

    fn list_schedules(&self, after: Option<String>, limit: u32) -> StoreFuture<Vec<ScheduleRow>> {
        self.ask("list_schedules", (after, limit))
    }

    fn due_schedules(&self, ask: ScheduleAsk) -> StoreFuture<DueSchedules> {
        self.ask("due_schedules", (ask,))
    }
}

impl Store for PyStore {
    fn migrate(&self) -> StoreFuture<Schema> {
        self.ask("migrate", ())
    }

    fn schema(&self) -> StoreFuture<Schema> {
        self.ask("schema", ())
    }

    fn close(&self) -> StoreFuture<()> {
        self.ask("close", ())
    }
}
