//! Changes that go out in a transaction of the user's own, and connections to a SQLite file that
//! such a transaction can run on.

// "SQLite" is a name here, not a piece of code.
#![allow(clippy::doc_markdown)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use duramen_core::store::{
    Change as Inner, CommitOutcome, Created, Expect, RunCommit, StoreError, Value,
};
use duramen_store_sqlite::{
    OutsideConnection, SqlError, Synchronous, Value as SqlValue, Values as SqlValues,
};
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::engine::{Engine, MessageTuple, NewRunTuple, StoreFailed, new_message};
use crate::reply;

create_exception!(duramen._native, SqlFailed, PyException);

/// A change on its way into a transaction of the user's.
#[pyclass(frozen, module = "duramen._native")]
#[derive(Debug)]
pub(crate) struct Change(Inner);

impl Change {
    pub(crate) const fn commit(commit: Box<RunCommit>) -> Self {
        Self(Inner::Commit(commit))
    }
}

#[pymethods]
impl Change {
    #[staticmethod]
    fn create(engine: &Engine, run: NewRunTuple) -> PyResult<Self> {
        Ok(Self(Inner::Create(Box::new(engine.new_run(run)?))))
    }

    #[staticmethod]
    fn deliver(engine: &Engine, message: MessageTuple) -> PyResult<Self> {
        let mut message = new_message(message)?;
        message.now = engine.explicit_now();
        Ok(Self(Inner::Deliver(Box::new(message))))
    }

    #[staticmethod]
    const fn identify() -> Self {
        Self(Inner::Identify)
    }

    /// `[(sql, values, expect)]` in the dialect of the engine's store.
    fn script<'py>(&self, py: Python<'py>, engine: &Engine) -> PyResult<Bound<'py, PyList>> {
        let store = engine.store();
        let transactions = store.transactions().ok_or_else(|| {
            failed(&StoreError::Invalid {
                reason: "this store cannot take part in a transaction of yours; use one in \
                         Postgres or SQLite"
                    .to_owned(),
            })
        })?;
        let script = transactions
            .script(&self.0)
            .map_err(|error| failed(&error))?;
        let list = PyList::empty(py);
        for statement in script.statements {
            let values = PyList::empty(py);
            for value in statement.values {
                match value {
                    Value::Null => values.append(py.None())?,
                    Value::Integer(number) => values.append(number)?,
                    Value::Text(text) => values.append(text)?,
                    Value::Bytes(bytes) => values.append(PyBytes::new(py, &bytes))?,
                }
            }
            let expect = match statement.expect {
                Expect::Nothing => 0,
                Expect::Must => 1,
                Expect::Answer => 2,
            };
            list.append((statement.sql, values, expect))?;
        }
        Ok(list)
    }
}

fn failed(error: &StoreError) -> PyErr {
    StoreFailed::new_err(reply::error_pair(error))
}

#[allow(clippy::needless_pass_by_value)] // the form that `map_err` wants
fn sql_failed(error: SqlError) -> PyErr {
    SqlFailed::new_err((error.code, error.message))
}

/// A connection to a SQLite file through the SQLite of this extension.
#[pyclass(frozen, module = "duramen._native")]
#[derive(Debug)]
pub(crate) struct SqliteConnection {
    inner: Arc<OutsideConnection>,
}

#[pymethods]
impl SqliteConnection {
    #[new]
    fn new(py: Python<'_>, path: &str, synchronous: &str, busy_timeout: u64) -> PyResult<Self> {
        let synchronous = match synchronous {
            "normal" => Synchronous::Normal,
            _ => Synchronous::Full,
        };
        let timeout = Duration::from_millis(busy_timeout);
        let opened = py.detach(|| OutsideConnection::open(Path::new(path), synchronous, timeout));
        Ok(Self {
            inner: Arc::new(opened.map_err(|error| failed(&error))?),
        })
    }

    #[getter]
    fn in_transaction(&self, py: Python<'_>) -> bool {
        py.detach(|| self.inner.in_transaction())
    }

    #[getter]
    fn closed(&self, py: Python<'_>) -> bool {
        py.detach(|| self.inner.is_closed())
    }

    fn begin(&self, py: Python<'_>, wait: bool, managed: bool) -> PyResult<bool> {
        py.detach(|| self.inner.begin(wait, managed))
            .map_err(sql_failed)
    }

    fn end(&self, py: Python<'_>, commit: bool, managed: bool) -> PyResult<bool> {
        py.detach(|| self.inner.end(commit, managed))
            .map_err(sql_failed)
    }

    /// Rolls a managed transaction back from any thread.
    fn abort(&self, py: Python<'_>) {
        py.detach(|| self.inner.abort());
    }

    fn execute<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        values: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let values = sql_values(values)?;
        let found = py
            .detach(|| self.inner.execute(sql, &values))
            .map_err(sql_failed)?;
        let rows = PyList::empty(py);
        for row in found.rows {
            let row: Vec<Bound<'py, PyAny>> = row
                .into_iter()
                .map(|value| to_python(py, value))
                .collect::<PyResult<_>>()?;
            rows.append(PyTuple::new(py, row)?)?;
        }
        (found.columns, rows, found.changes, found.last_id).into_pyobject(py)
    }

    fn execute_script(&self, py: Python<'_>, sql: &str) -> PyResult<()> {
        py.detach(|| self.inner.execute_script(sql))
            .map_err(sql_failed)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner.close());
    }

    /// Carries a change out in the open transaction. None: refused, roll back.
    fn apply<'py>(
        &self,
        py: Python<'py>,
        change: &Change,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let inner = &self.inner;
        Ok(match &change.0 {
            Inner::Commit(commit) => match py.detach(|| inner.commit_run(commit)) {
                Ok(CommitOutcome::Applied { .. }) => Some(PyTuple::empty(py)),
                Ok(CommitOutcome::Fenced | CommitOutcome::Blocked) => None,
                Ok(CommitOutcome::Rejected { reason }) => {
                    return Err(failed(&StoreError::Invalid { reason }));
                }
                Err(error) => return Err(failed(&error)),
            },
            Inner::Create(run) => {
                let created = py
                    .detach(|| inner.create(run))
                    .map_err(|error| failed(&error))?;
                let (new, row) = match created {
                    Created::Created { row } => (true, row),
                    Created::Exists { row } => (false, row),
                    // This connection has the file's only lock.
                    Created::Blocked => return Ok(None),
                };
                Some((new, row.workflow).into_pyobject(py)?)
            }
            Inner::Deliver(message) => {
                let delivered = py
                    .detach(|| inner.deliver(message))
                    .map_err(|error| failed(&error))?;
                let result = reply::delivery(delivered.result);
                Some((result, delivered.fingerprint).into_pyobject(py)?)
            }
            Inner::Identify => Some(PyTuple::empty(py)),
        })
    }
}

fn sql_values(values: &Bound<'_, PyAny>) -> PyResult<SqlValues> {
    if let Ok(named) = values.cast::<PyDict>() {
        let mut found = BTreeMap::new();
        for (name, value) in named.iter() {
            found.insert(name.extract()?, sql_value(&value)?);
        }
        return Ok(SqlValues::Named(found));
    }
    let mut found = Vec::new();
    for value in values.try_iter()? {
        found.push(sql_value(&value?)?);
    }
    Ok(SqlValues::InOrder(found))
}

fn sql_value(value: &Bound<'_, PyAny>) -> PyResult<SqlValue> {
    if value.is_none() {
        return Ok(SqlValue::Null);
    }
    if value.is_instance_of::<PyInt>() {
        return value.extract().map(SqlValue::Integer).map_err(|_| {
            PyOverflowError::new_err("an integer is too large for SQLite: it keeps 64 bits")
        });
    }
    if value.is_instance_of::<PyFloat>() {
        return value.extract().map(SqlValue::Real);
    }
    if value.is_instance_of::<PyString>() {
        return value.extract().map(SqlValue::Text);
    }
    if let Ok(bytes) = value.extract::<Vec<u8>>()
        && value.hasattr("__buffer__").unwrap_or(false) | value.is_instance_of::<PyBytes>()
    {
        return Ok(SqlValue::Blob(bytes));
    }
    Err(PyTypeError::new_err(format!(
        "a value of type {} cannot be stored: give None, int, float, str or bytes",
        value.get_type().name()?
    )))
}

fn to_python(py: Python<'_>, value: SqlValue) -> PyResult<Bound<'_, PyAny>> {
    Ok(match value {
        SqlValue::Null => py.None().into_bound(py),
        SqlValue::Integer(number) => number.into_pyobject(py)?.into_any(),
        SqlValue::Real(number) => number.into_pyobject(py)?.into_any(),
        SqlValue::Text(text) => text.into_pyobject(py)?.into_any(),
        SqlValue::Blob(bytes) => PyBytes::new(py, &bytes).into_any(),
    })
}
