//! What `Run.turn` gives: one object for each thing that a run's handler is to be told or asked.

use bytes::Bytes;
use duramen_core::machine::{Outcome, Turn};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyInt};

use crate::outside::Change;
use crate::record::{number, record};

record! { ordered
    /// What the handler waits for in a slot is there.
    Deliver { slot: Py<PyInt>, outcome: Py<PyAny>, at: Py<PyInt> }
}

record! { ordered
    /// A message: decode it, then `accept` or `refuse`.
    Offer { slot: Py<PyInt>, payload: Py<PyBytes> }
}

record! { ordered
    /// An update was accepted: apply it by the function that takes it, then call `update_done`.
    Apply {
        taker: Py<PyInt>,
        slot: Py<PyInt>,
        /// None: the value just accepted.
        payload: Py<PyAny>,
        at: Py<PyInt>,
    }
}

record! { ordered
    /// Begin an attempt of a step.
    Start { slot: Py<PyInt>, attempt: Py<PyInt> }
}

record! { ordered
    /// The result given to `seal` is sealed: carry the change out, then call `sealed`.
    Seal { slot: Py<PyInt>, change: Py<Change> }
}

record! { ordered
    /// The run is to be cancelled.
    Cancel { reason: Py<PyBytes>, at: Py<PyInt> }
}

record! { ordered
    /// The run's own time is over.
    TimeOut { at: Py<PyInt> }
}

record! { ordered
    /// A step's result. None: the live value, which the host has in memory.
    Completed { payload: Py<PyAny> }
}

record! { ordered
    /// A step's recorded error.
    Failed { error: Py<PyBytes> }
}

record! { ordered
    /// A timer has fired.
    Fired {}
}

record! { ordered
    /// A message. None: the value just accepted.
    Received { payload: Py<PyAny> }
}

record! { ordered
    /// A wait's deadline has passed.
    TimedOut {}
}

record! { ordered
    /// A child has ended.
    ChildEnded { how: Py<PyAny>, payload: Py<PyBytes> }
}

/// An outcome without facts of its own is made once.
type Once<T> = PyOnceLock<Py<T>>;

static COMPLETED: Once<Completed> = PyOnceLock::new();
static FIRED: Once<Fired> = PyOnceLock::new();
static RECEIVED: Once<Received> = PyOnceLock::new();
static TIMED_OUT: Once<TimedOut> = PyOnceLock::new();

fn once<T>(py: Python<'_>, cell: &'static Once<T>, make: impl FnOnce() -> T) -> PyResult<Py<PyAny>>
where
    T: pyo3::PyClass + Into<PyClassInitializer<T>>,
{
    let found = cell.get_or_try_init(py, || Py::new(py, make()))?;
    Ok(found.clone_ref(py).into_any())
}

fn bytes(py: Python<'_>, payload: &Bytes) -> Py<PyAny> {
    PyBytes::new(py, payload).into_any().unbind()
}

fn outcome(py: Python<'_>, outcome: Outcome) -> PyResult<Py<PyAny>> {
    match outcome {
        Outcome::StepCompleted(None) => once(py, &COMPLETED, || Completed { payload: py.None() }),
        Outcome::StepCompleted(Some(payload)) => {
            let payload = bytes(py, &payload);
            Ok(Py::new(py, Completed { payload })?.into_any())
        }
        Outcome::StepFailed(error) => {
            let error = PyBytes::new(py, &error).unbind();
            Ok(Py::new(py, Failed { error })?.into_any())
        }
        Outcome::Fired => once(py, &FIRED, || Fired {}),
        Outcome::Received(None) => once(py, &RECEIVED, || Received { payload: py.None() }),
        Outcome::Received(Some(payload)) => {
            let payload = bytes(py, &payload);
            Ok(Py::new(py, Received { payload })?.into_any())
        }
        Outcome::TimedOut => once(py, &TIMED_OUT, || TimedOut {}),
        Outcome::ChildEnded(end) => {
            let how = end.ended.name().into_py_any(py)?;
            let payload = PyBytes::new(py, &end.payload).unbind();
            Ok(Py::new(py, ChildEnded { how, payload })?.into_any())
        }
    }
}

/// None: nothing is left to do until something comes in.
pub(crate) fn turn(py: Python<'_>, turn: Turn) -> PyResult<Option<Py<PyAny>>> {
    Ok(Some(match turn {
        Turn::Deliver {
            slot,
            outcome: found,
            at,
        } => {
            let deliver = Deliver {
                slot: number(py, slot),
                outcome: outcome(py, found)?,
                at: number(py, at),
            };
            Py::new(py, deliver)?.into_any()
        }
        Turn::Offer { slot, message } => {
            let offer = Offer {
                slot: number(py, slot),
                payload: PyBytes::new(py, &message.payload).unbind(),
            };
            Py::new(py, offer)?.into_any()
        }
        Turn::Apply {
            taker,
            slot,
            payload,
            at,
        } => {
            let apply = Apply {
                taker: number(py, taker),
                slot: number(py, slot),
                payload: payload.map_or_else(|| py.None(), |payload| bytes(py, &payload)),
                at: number(py, at),
            };
            Py::new(py, apply)?.into_any()
        }
        // The host knows the operation by its slot.
        Turn::Start { slot, attempt, .. } => {
            let start = Start {
                slot: number(py, slot),
                attempt: number(py, attempt),
            };
            Py::new(py, start)?.into_any()
        }
        Turn::Seal { slot, commit } => {
            let seal = Seal {
                slot: number(py, slot),
                change: Py::new(py, Change::commit(commit))?,
            };
            Py::new(py, seal)?.into_any()
        }
        Turn::Cancel { reason, at } => {
            let cancel = Cancel {
                reason: PyBytes::new(py, &reason).unbind(),
                at: number(py, at),
            };
            Py::new(py, cancel)?.into_any()
        }
        Turn::TimeOut { at } => Py::new(py, TimeOut { at: number(py, at) })?.into_any(),
        Turn::Idle => return Ok(None),
    }))
}
