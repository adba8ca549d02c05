//! Replies of the engine as Python values.

use duramen_core::store::{Delivery, Intervened, StoreError};
use duramen_engine::{Reply, SweepReport};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use pythonize::pythonize;

/// `(kind, message)` of a store's error.
pub(crate) fn error_pair(error: &StoreError) -> (&'static str, String) {
    let kind = match error {
        StoreError::Unavailable { .. } => "unavailable",
        StoreError::Locked { .. } => "locked",
        StoreError::ReadOnly { .. } => "read_only",
        StoreError::Full { .. } => "full",
        StoreError::Corrupt { .. } => "corrupt",
        StoreError::Unmigrated { .. } => "unmigrated",
        StoreError::Newer { .. } => "newer",
        StoreError::Invalid { .. } => "invalid",
        StoreError::Closed => "closed",
        StoreError::Other { .. } => "other",
    };
    (kind, error.to_string())
}

pub(crate) fn error_from_pair(kind: &str, reason: String) -> StoreError {
    match kind {
        "unavailable" => StoreError::Unavailable { reason },
        "locked" => StoreError::Locked { reason },
        "read_only" => StoreError::ReadOnly { reason },
        "full" => StoreError::Full { reason },
        "corrupt" => StoreError::Corrupt { reason },
        "invalid" => StoreError::Invalid { reason },
        "closed" => StoreError::Closed,
        _ => StoreError::Other { reason },
    }
}

pub(crate) fn to_python(py: Python<'_>, reply: Reply) -> PyResult<Bound<'_, PyAny>> {
    Ok(match reply {
        Reply::Done => py.None().into_bound(py),
        Reply::Started { created, ticket } => (
            created.created,
            &created.row.workflow,
            created.row.status.name(),
            ticket,
        )
            .into_pyobject(py)?
            .into_any(),
        Reply::Created(created) => {
            let rows: Vec<_> = created
                .into_iter()
                .map(|one| (one.created, one.row.workflow, one.row.status.name()))
                .collect();
            rows.into_pyobject(py)?.into_any()
        }
        Reply::Delivered(delivered) => {
            let rows: Vec<_> = delivered
                .into_iter()
                .map(|one| (delivery(one.result), one.fingerprint))
                .collect();
            rows.into_pyobject(py)?.into_any()
        }
        Reply::Intervened(done) => done
            .first()
            .map(|one| match one {
                Intervened::Done => "done",
                Intervened::NotFound => "not_found",
                Intervened::NotAllowed => "not_allowed",
            })
            .into_pyobject(py)?
            .into_any(),
        Reply::Details(details) => pythonize(py, &details)?,
        Reply::Entries(entries) => {
            let list = PyList::empty(py);
            for entry in entries {
                list.append((
                    entry.kind.name(),
                    &*entry.op,
                    entry.meta,
                    PyBytes::new(py, &entry.payload),
                    entry.at,
                    entry.encoding,
                ))?;
            }
            list.into_any()
        }
        Reply::Page(page) => {
            let dict = PyDict::new(py);
            dict.set_item("rows", pythonize(py, &page.rows)?)?;
            dict.set_item(
                "next",
                page.next
                    .map(|cursor| (cursor.created_at, cursor.run_id.to_string())),
            )?;
            dict.into_any()
        }
        Reply::Count(count) => count.into_pyobject(py)?.into_any(),
        Reply::Schema(schema) => pythonize(py, &schema)?,
        Reply::Identity(identity) => identity.into_pyobject(py)?,
        Reply::Taken(taken) => taken
            .first()
            .map(|(_, ticket)| *ticket)
            .into_pyobject(py)?
            .into_any(),
        Reply::Swept(report) => swept(py, &report)?.into_any(),
    })
}

pub(crate) const fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Delivered => "delivered",
        Delivery::Buffered => "buffered",
        Delivery::Duplicate => "duplicate",
        Delivery::NotFound => "not_found",
        Delivery::Finished => "finished",
    }
}

fn swept<'py>(py: Python<'py>, report: &SweepReport) -> PyResult<Bound<'py, PyDict>> {
    let runs = |runs: &[(duramen_core::ids::RunId, &'static str)]| -> Vec<(String, &'static str)> {
        runs.iter()
            .map(|(run_id, kind)| (run_id.to_string(), *kind))
            .collect()
    };
    let dict = PyDict::new(py);
    dict.set_item("recovered", runs(&report.recovered))?;
    dict.set_item("timers", runs(&report.timers))?;
    dict.set_item("queued", runs(&report.queued))?;
    dict.set_item("deadline_reached", report.deadline_reached)?;
    dict.set_item("more", report.more)?;
    Ok(dict)
}
