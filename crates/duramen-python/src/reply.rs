//! Replies of the engine as Python values.

use duramen_core::ids::RunId;
use duramen_core::run::Status;
use duramen_core::store::{self, Appended, Delivery, Intervened, StoreError};
use duramen_engine::{Reply, SweepReport};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::events::ErrorPair;
use crate::record::record;
use crate::rows;

pub(crate) fn error_pair(error: &StoreError) -> ErrorPair {
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

record! {
    /// What became of a run that was to be driven here at once.
    Started {
        created: bool,
        /// The workflow of the run that is there.
        workflow: String,
        status: &'static str,
        /// None: it is not driven here by this call.
        ticket: Option<u64>,
    }
}

record! {
    /// What became of a run that was to be created. Of the status `blocked`: a transaction of somebody else's
    /// is about to create that id.
    #[allow(clippy::struct_field_names)] // `created` is its name in each answer
    Created { created: bool, workflow: String, status: &'static str }
}

impl Created {
    fn new(created: store::Created) -> Self {
        let (new, row) = match created {
            store::Created::Created { row } => (true, row),
            store::Created::Exists { row } => (false, row),
            store::Created::Blocked => {
                return Self {
                    created: false,
                    workflow: String::new(),
                    status: "blocked",
                };
            }
        };
        Self {
            created: new,
            workflow: row.workflow,
            status: row.status.name(),
        }
    }
}

record! {
    /// What became of a message.
    Delivered {
        result: &'static str,
        /// Of the first message of that id.
        fingerprint: Option<String>,
    }
}

record! {
    /// What became of a message that was waited for.
    Answer {
        /// `answered`, `refused` or `unanswered`.
        how: &'static str,
        /// What the run answered, if it did.
        reply: Option<Py<PyBytes>>,
        /// Why it was refused, or how the run stands that gives no answer; none: it is not there.
        why: Option<String>,
    }
}

fn answer(py: Python<'_>, answer: duramen_engine::Answer) -> Answer {
    let (how, reply, why) = match answer {
        duramen_engine::Answer::Answered { reply } => ("answered", reply, None),
        duramen_engine::Answer::Refused { reason } => ("refused", None, Some(reason)),
        duramen_engine::Answer::Unanswered { status } => {
            let status = status.map(|status| status.name().to_owned());
            ("unanswered", None, status)
        }
    };
    let reply = reply.map(|reply| PyBytes::new(py, &reply).unbind());
    Answer { how, reply, why }
}

record! {
    /// How far a store's schema is.
    Schema { found: u32, needed: u32, applied: Vec<String> }
}

record! {
    /// A run of a sweep, and how it left these hands.
    SweptRun { run_id: String, kind: &'static str }
}

record! {
    /// What a sweep did.
    Swept {
        recovered: Vec<Py<SweptRun>>,
        timers: Vec<Py<SweptRun>>,
        queued: Vec<Py<SweptRun>>,
        deadline_reached: bool,
        more: bool,
    }
}

pub(crate) fn to_python(py: Python<'_>, reply: Reply) -> PyResult<Py<PyAny>> {
    match reply {
        // A copy that was read is made where the engine is known.
        Reply::Done | Reply::Read(_) => Ok(py.None()),
        Reply::Started {
            new,
            workflow,
            status,
            ticket,
        } => Started {
            created: new,
            workflow,
            status: status.name(),
            ticket,
        }
        .into_py_any(py),
        Reply::Created(created) => created
            .into_iter()
            .map(Created::new)
            .collect::<Vec<_>>()
            .into_py_any(py),
        Reply::Delivered(delivered) => delivered
            .into_iter()
            .map(|one| Delivered {
                result: delivery(one.result),
                fingerprint: one.fingerprint,
            })
            .collect::<Vec<_>>()
            .into_py_any(py),
        Reply::Appended(appended) => appended
            .first()
            .map(|one| match one {
                Appended::Applied => ("applied", None),
                Appended::Fenced => ("fenced", None),
                Appended::Blocked => ("blocked", None),
                Appended::Rejected { reason } => ("rejected", Some(reason)),
            })
            .into_py_any(py),
        Reply::Intervened(done) => done
            .first()
            .map(|one| match one {
                Intervened::Done => "done",
                Intervened::NotFound => "not_found",
                Intervened::NotAllowed => "not_allowed",
                Intervened::Blocked => "blocked",
            })
            .into_py_any(py),
        Reply::Details(details) => rows::details(py, details)?.into_py_any(py),
        Reply::Entries(entries) => rows::entries(py, entries)?.into_py_any(py),
        Reply::Stream(page) => rows::stream_page(py, page)?.into_py_any(py),
        Reply::Page(page) => rows::page(py, page)?.into_py_any(py),
        Reply::Owners(found) => rows::owners(found).into_py_any(py),
        Reply::Census(found) => rows::census(found).into_py_any(py),
        Reply::Standings(found) => found
            .into_iter()
            .map(|one| one.map(|one| one.status.name()))
            .collect::<Vec<_>>()
            .into_py_any(py),
        Reply::Changed(changed) => changed.into_py_any(py),
        Reply::Schedules(found) => found
            .into_iter()
            .map(|row| row.map(|row| rows::ScheduleRow::new(py, row)))
            .collect::<Vec<_>>()
            .into_py_any(py),
        Reply::ScheduleList(found) => found
            .into_iter()
            .map(|row| rows::ScheduleRow::new(py, row))
            .collect::<Vec<_>>()
            .into_py_any(py),
        Reply::DueSchedules(due) => rows::due_schedules(py, due)?.into_py_any(py),
        Reply::Count(count) => count.into_py_any(py),
        Reply::Schema(schema) => Schema {
            found: schema.found,
            needed: schema.needed,
            applied: schema.applied,
        }
        .into_py_any(py),
        Reply::Identity(identity) => identity.into_py_any(py),
        Reply::Taken(taken) => taken.first().map(|(_, ticket)| *ticket).into_py_any(py),
        Reply::Ended(status) => status.map(Status::name).into_py_any(py),
        Reply::Answer(found) => answer(py, found).into_py_any(py),
        Reply::Swept(report) => swept(py, report)?.into_py_any(py),
    }
}

pub(crate) const fn delivery(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Delivered => "delivered",
        Delivery::Buffered => "buffered",
        Delivery::Duplicate => "duplicate",
        Delivery::NotFound => "not_found",
        Delivery::Finished => "finished",
        Delivery::Full => "full",
        Delivery::Blocked => "blocked",
    }
}

fn swept(py: Python<'_>, report: SweepReport) -> PyResult<Swept> {
    let runs = |runs: Vec<(RunId, &'static str)>| -> PyResult<Vec<Py<SweptRun>>> {
        runs.into_iter()
            .map(|(run_id, kind)| {
                let run_id = run_id.to_string();
                Py::new(py, SweptRun { run_id, kind })
            })
            .collect()
    };
    Ok(Swept {
        recovered: runs(report.recovered)?,
        timers: runs(report.timers)?,
        queued: runs(report.queued)?,
        deadline_reached: report.deadline_reached,
        more: report.more,
    })
}
