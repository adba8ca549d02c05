//! `Store`: one of our stores as a Python object, for the tests that every store has to pass.
//!
//! Arguments and answers are the plain dicts and lists that a store written in Python gets and gives.
//! A method blocks its thread until the answer is there, with the interpreter free for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use duramen_core::ids::RunId;
use duramen_core::store::{Cursor, Filter, Store, StoreError, StoreFuture};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pythonize::{depythonize, pythonize};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::engine::StoreFailed;
use crate::stores::Opened;
use crate::{reply, stores, world};

#[pyclass(frozen, module = "duramen._native", name = "Store")]
pub(crate) struct StoreObject {
    opened: Arc<Opened>,
    world: Handle,
    closed: AtomicBool,
}

impl StoreObject {
    /// The store for an engine, which goes on with it.
    pub(crate) fn opened(&self) -> Arc<Opened> {
        Arc::clone(&self.opened)
    }
}

impl std::fmt::Debug for StoreObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

fn failed(error: &StoreError) -> PyErr {
    StoreFailed::new_err(reply::error_pair(error))
}

fn argument<T: DeserializeOwned>(method: &str, value: &Bound<'_, PyAny>) -> PyResult<T> {
    depythonize(value).map_err(|error| {
        PyTypeError::new_err(format!(
            "the argument of {method}() has a wrong form: {error}"
        ))
    })
}

impl StoreObject {
    fn wait<'py, T: Serialize + Send + 'static>(
        &self,
        py: Python<'py>,
        ask: impl FnOnce(&dyn Store) -> StoreFuture<T>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if self.closed.load(Ordering::Acquire) {
            return Err(failed(&StoreError::Closed));
        }
        // A fork may lie between the construction and this call.
        world::handle()?;
        let future = ask(&*self.opened.store);
        let answer = py
            .detach(|| self.world.block_on(future))
            .map_err(|error| failed(&error))?;
        Ok(pythonize(py, &answer)?)
    }
}

#[pymethods]
impl StoreObject {
    #[new]
    fn new(
        py: Python<'_>,
        scheme: &str,
        location: &str,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let world = world::handle()?;
        let opened =
            stores::open(py, scheme, location, options)?.map_err(|error| failed(&error))?;
        Ok(Self {
            opened: Arc::new(opened),
            world,
            closed: AtomicBool::new(false),
        })
    }

    fn migrate<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |store| store.migrate())
    }

    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |store| store.schema())
    }

    fn create<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch = argument("create", batch)?;
        self.wait(py, |store| store.create(batch))
    }

    fn commit<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch = argument("commit", batch)?;
        self.wait(py, |store| store.commit(batch))
    }

    fn intervene<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch = argument("intervene", batch)?;
        self.wait(py, |store| store.intervene(batch))
    }

    fn unsent<'py>(&self, py: Python<'py>, ask: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let ask = argument("unsent", ask)?;
        self.wait(py, |store| store.unsent(ask))
    }

    fn sent<'py>(&self, py: Python<'py>, items: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let items = argument("sent", items)?;
        self.wait(py, |store| store.sent(items))
    }

    fn heartbeat<'py>(
        &self,
        py: Python<'py>,
        beat: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let beat = argument("heartbeat", beat)?;
        self.wait(py, |store| store.heartbeat(beat))
    }

    fn retire<'py>(
        &self,
        py: Python<'py>,
        owner: String,
        now: Option<i64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |store| store.retire(owner, now))
    }

    fn owners<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |store| store.owners())
    }

    fn held<'py>(
        &self,
        py: Python<'py>,
        owner: String,
        after: Option<String>,
        limit: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let after = after.map(RunId::from);
        self.wait(py, |store| store.held(owner, after, limit))
    }

    fn claim<'py>(
        &self,
        py: Python<'py>,
        claim: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let claim = argument("claim", claim)?;
        self.wait(py, |store| store.claim(claim))
    }

    fn next_due<'py>(
        &self,
        py: Python<'py>,
        ask: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ask = argument("next_due", ask)?;
        self.wait(py, |store| store.next_due(ask))
    }

    fn deliver<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch = argument("deliver", batch)?;
        self.wait(py, |store| store.deliver(batch))
    }

    fn unread<'py>(
        &self,
        py: Python<'py>,
        owner: String,
        told: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let told = argument("unread", told)?;
        self.wait(py, |store| store.unread(owner, told))
    }

    fn inbox<'py>(
        &self,
        py: Python<'py>,
        run_id: String,
        behind: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |store| store.inbox(run_id.into(), behind))
    }

    fn receipts<'py>(
        &self,
        py: Python<'py>,
        messages: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let messages = argument("receipts", messages)?;
        self.wait(py, |store| store.receipts(messages))
    }

    fn append<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch = argument("append", batch)?;
        self.wait(py, |store| store.append(batch))
    }

    fn stream<'py>(&self, py: Python<'py>, ask: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let ask = argument("stream", ask)?;
        self.wait(py, |store| store.stream(ask))
    }

    fn get<'py>(&self, py: Python<'py>, run_ids: Vec<String>) -> PyResult<Bound<'py, PyAny>> {
        let run_ids = run_ids.into_iter().map(RunId::from).collect();
        self.wait(py, |store| store.get(run_ids))
    }

    fn standing<'py>(&self, py: Python<'py>, run_ids: Vec<String>) -> PyResult<Bound<'py, PyAny>> {
        let run_ids = run_ids.into_iter().map(RunId::from).collect();
        self.wait(py, |store| store.standing(run_ids))
    }

    fn load<'py>(
        &self,
        py: Python<'py>,
        run_id: String,
        start: u64,
        limit: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |store| store.load(run_id.into(), start, limit))
    }

    fn list<'py>(
        &self,
        py: Python<'py>,
        filter: &Bound<'py, PyAny>,
        limit: u32,
        cursor: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let filter: Filter = argument("list", filter)?;
        let cursor: Option<Cursor> = argument("list", cursor)?;
        self.wait(py, |store| store.list(filter, limit, cursor))
    }

    fn count<'py>(
        &self,
        py: Python<'py>,
        filter: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let filter: Filter = argument("count", filter)?;
        self.wait(py, |store| store.count(filter))
    }

    fn census<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |store| store.census())
    }

    fn change_schedules<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batch = argument("change_schedules", batch)?;
        self.wait(py, |store| store.change_schedules(batch))
    }

    fn get_schedules<'py>(&self, py: Python<'py>, ids: Vec<String>) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |store| store.get_schedules(ids))
    }

    fn list_schedules<'py>(
        &self,
        py: Python<'py>,
        after: Option<String>,
        limit: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.wait(py, |store| store.list_schedules(after, limit))
    }

    fn due_schedules<'py>(
        &self,
        py: Python<'py>,
        ask: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ask = argument("due_schedules", ask)?;
        self.wait(py, |store| store.due_schedules(ask))
    }

    fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // Others use the store too: this object alone is closed.
        if self.opened.shared {
            self.closed.store(true, Ordering::Release);
            return Ok(py.None().into_bound(py));
        }
        self.wait(py, |store| store.close())
    }
}
