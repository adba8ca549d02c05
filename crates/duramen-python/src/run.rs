//! `Run`: one run in the hands of a Python event loop.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use duramen_core::derive::ValueKind;
use duramen_core::ids::Millis;
use duramen_core::machine::op::Checkpoint;
use duramen_core::machine::{Ending, Halt, Hook, On, Outcome, PollRule, Requested, UpdateOutcome};
use duramen_core::primitives::child::NewChild;
use duramen_core::primitives::message::Sent;
use duramen_core::primitives::step::StepOutcome;
use duramen_core::primitives::timer::TimerStem;
use duramen_core::retry::{Backoff, RetryPolicy};
use duramen_core::store::StreamWrite;
use duramen_engine::RunDriver;
use pyo3::IntoPyObjectExt;
use pyo3::create_exception;
use pyo3::exceptions::{PyBaseException, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::record::number;
use crate::turns;

create_exception!(duramen._native, Halted, PyBaseException);
create_exception!(duramen._native, InvalidIdError, PyValueError);

/// Added to a step's checkpoint: if it fails for good, its run is paused.
const PAUSES_RUN: u8 = 4;

/// `(attempts, backoff, base, cap, jitter)`
type Retry = (u32, u8, Millis, Millis, bool);

/// `(run_id, workflow, version, input, tags, memo, timeout)`
type ChildTuple = (
    Option<String>,
    String,
    String,
    Vec<u8>,
    Vec<String>,
    Option<Vec<u8>>,
    Option<Millis>,
);

/// `(stream, writer, index, attempt, keep, payload, at)`
type WriteTuple = (String, String, u64, u32, Option<u64>, Vec<u8>, Millis);

#[pyclass(frozen, module = "duramen._native")]
#[derive(Debug)]
#[allow(clippy::struct_field_names)] // `run_id` is its name in Python
pub(crate) struct Run {
    pub(crate) driver: Mutex<RunDriver>,
    #[pyo3(get)]
    run_id: String,
    #[pyo3(get)]
    workflow: String,
    #[pyo3(get)]
    version: String,
    #[pyo3(get)]
    created_at: Millis,
    #[pyo3(get)]
    started_at: Millis,
    #[pyo3(get)]
    deadline: Option<Millis>,
    #[pyo3(get)]
    generation: u64,
    /// What no other run and no other generation of it has before the ids of its operations.
    #[pyo3(get)]
    scope: String,
    #[pyo3(get)]
    tags: Vec<String>,
    #[pyo3(get)]
    ticket: u64,
}

impl Run {
    pub(crate) fn new(driver: RunDriver, tags: Vec<String>, ticket: u64) -> Self {
        let facts = driver.machine.facts().clone();
        Self {
            driver: Mutex::new(driver),
            run_id: facts.run_id.to_string(),
            generation: facts.generation,
            scope: facts.in_generation(&facts.run_id).into_owned(),
            workflow: facts.workflow,
            version: facts.version,
            created_at: facts.created_at,
            started_at: facts.started_at,
            deadline: facts.deadline,
            tags,
            ticket,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, RunDriver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn halted(halt: Halt) -> PyErr {
    match halt {
        Halt::InvalidId(error) => InvalidIdError::new_err(error.to_string()),
        Halt::Diverged(_) | Halt::Gone => Halted::new_err(halt.to_string()),
    }
}

impl Run {
    fn send(&self, sent: Sent) -> PyResult<()> {
        self.lock().machine.request_message(sent).map_err(halted)
    }
}

fn new_child(child: ChildTuple) -> NewChild {
    let (run_id, workflow, version, input, tags, memo, timeout) = child;
    NewChild {
        workflow,
        version,
        run_id: run_id.map(Into::into),
        input: input.into(),
        tags,
        memo: memo.map(Bytes::from),
        timeout,
    }
}

fn bytes_of(payload: &[u8]) -> Bytes {
    Bytes::copy_from_slice(payload)
}

/// What a step is asked for with.
fn rules(retry: Option<Retry>, checkpoint: u8) -> (RetryPolicy, Checkpoint) {
    let pauses_run = checkpoint & PAUSES_RUN != 0;
    let retry = retry.map_or(
        RetryPolicy {
            pauses_run,
            ..RetryPolicy::NEVER
        },
        |(attempts, backoff, base, cap, jitter)| RetryPolicy {
            attempts,
            backoff: match backoff {
                0 => Backoff::Constant,
                1 => Backoff::Linear,
                _ => Backoff::Exponential,
            },
            base,
            cap,
            jitter,
            pauses_run,
        },
    );
    let checkpoint = match checkpoint & !PAUSES_RUN {
        0 => Checkpoint::Durable,
        1 => Checkpoint::Lazy,
        _ => Checkpoint::Sealed,
    };
    (retry, checkpoint)
}

fn answer(py: Python<'_>, requested: Requested) -> PyResult<Py<PyAny>> {
    match requested {
        Requested::Pending(slot) => Ok(number(py, slot).into_any()),
        // The one tuple that is left of what every run passes: an object cost 1.5 % more
        // instructions and 1.0 % more time per replayed step, which does little else.
        Requested::Ready { outcome, at } => {
            let (ok, payload) = match outcome {
                Outcome::StepCompleted(payload) => (true, payload.unwrap_or_default()),
                Outcome::StepFailed(payload) => (false, payload),
                Outcome::Fired
                | Outcome::Received(_)
                | Outcome::TimedOut
                | Outcome::ChildEnded(_) => (false, Bytes::new()),
            };
            (ok, PyBytes::new(py, &payload), at).into_py_any(py)
        }
    }
}

#[pymethods]
impl Run {
    #[getter]
    fn input<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.lock().machine.input())
    }

    /// `(schedule, fire time, previous fire time)`, if a schedule started it.
    #[getter]
    fn tick(&self) -> Option<(String, Millis, Option<Millis>)> {
        let driver = self.lock();
        let tick = driver.machine.tick()?;
        Some((tick.schedule.clone(), tick.at, tick.previous))
    }

    /// What the run's secrets are derived from.
    #[getter]
    fn seed<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.lock().machine.facts().seed)
    }

    #[getter]
    fn epoch(&self) -> i64 {
        self.lock().machine.facts().epoch
    }

    /// The call of the sweep that took it up.
    #[getter]
    fn sweep(&self) -> Option<u64> {
        self.lock().sweep()
    }

    #[pyo3(signature = (id, retry, checkpoint, alone))]
    fn step(
        &self,
        py: Python<'_>,
        id: &str,
        retry: Option<Retry>,
        checkpoint: u8,
        alone: bool,
    ) -> PyResult<Py<PyAny>> {
        let (retry, checkpoint) = rules(retry, checkpoint);
        let requested = self
            .lock()
            .machine
            .request_step(id, retry, checkpoint, alone)
            .map_err(halted)?;
        answer(py, requested)
    }

    /// `(every, growth in thousandths, cap, timeout)`
    #[pyo3(signature = (id, retry, checkpoint, rule, alone))]
    fn poll(
        &self,
        py: Python<'_>,
        id: &str,
        retry: Option<Retry>,
        checkpoint: u8,
        rule: (Millis, u32, Millis, Option<Millis>),
        alone: bool,
    ) -> PyResult<Py<PyAny>> {
        let (retry, _) = rules(retry, checkpoint);
        let (every, growth, cap, timeout) = rule;
        let rule = PollRule {
            every,
            growth,
            cap,
            timeout,
        };
        let requested = self
            .lock()
            .machine
            .request_poll(id, retry, rule, alone)
            .map_err(halted)?;
        answer(py, requested)
    }

    fn timer(&self, stem: u8, deadline: Millis) -> PyResult<u32> {
        let stem = if stem == 0 {
            TimerStem::Sleep
        } else {
            TimerStem::Timer
        };
        self.lock()
            .machine
            .request_timer(stem, deadline)
            .map_err(halted)
    }

    #[pyo3(signature = (name, id, deadline))]
    fn event(&self, name: &str, id: Option<&str>, deadline: Option<Millis>) -> PyResult<u32> {
        self.lock()
            .machine
            .request_event(name, id, deadline)
            .map_err(halted)
    }

    #[pyo3(signature = (id, request, deadline))]
    fn approval(
        &self,
        id: Option<&str>,
        request: &[u8],
        deadline: Option<Millis>,
    ) -> PyResult<(u32, String)> {
        self.lock()
            .machine
            .request_approval(id, bytes_of(request), deadline)
            .map(|(slot, id)| (slot, id.to_string()))
            .map_err(halted)
    }

    #[pyo3(signature = (id, deadline))]
    fn token(&self, id: Option<&str>, deadline: Option<Millis>) -> PyResult<(u32, String)> {
        self.lock()
            .machine
            .request_token(id, deadline)
            .map(|(slot, id)| (slot, id.to_string()))
            .map_err(halted)
    }

    fn value<'py>(&self, py: Python<'py>, kind: u8) -> PyResult<Bound<'py, PyBytes>> {
        let kind = match kind {
            0 => ValueKind::Now,
            1 => ValueKind::Uuid,
            _ => ValueKind::Random,
        };
        let value = self.lock().machine.request_value(kind).map_err(halted)?;
        Ok(PyBytes::new(py, &value))
    }

    fn updates(&self, name: &str) -> PyResult<u32> {
        self.lock().machine.request_updates(name).map_err(halted)
    }

    fn update_done(&self, slot: u32, ok: bool, payload: &[u8]) {
        let payload = bytes_of(payload);
        let outcome = if ok {
            UpdateOutcome::Succeeded(payload)
        } else {
            UpdateOutcome::Failed(payload)
        };
        self.lock().machine.update_done(slot, outcome);
    }

    fn patched(&self, id: &str) -> PyResult<bool> {
        self.lock().machine.request_patch(id).map_err(halted)
    }

    /// Starts a child: its operation and its run's id.
    fn start_child(&self, id: Option<&str>, child: ChildTuple) -> PyResult<(String, String)> {
        self.lock()
            .machine
            .request_child(id, new_child(child))
            .map(|(op, run_id)| (op.to_string(), run_id.to_string()))
            .map_err(halted)
    }

    /// What is started if the run completes (0), fails (1) or is parked (2) next.
    fn set_hook(&self, on: u8, run: ChildTuple) {
        let on = match on {
            0 => On::Completed,
            1 => On::Failed,
            _ => On::Stuck,
        };
        let run = new_child(run);
        self.lock().machine.set_hook(Hook { on, run });
    }

    fn child_end(&self, op: &str, run_id: &str) -> PyResult<u32> {
        self.lock()
            .machine
            .request_child_end(&op.into(), &run_id.into())
            .map_err(halted)
    }

    /// Sends an event to another run.
    fn send_event(&self, to: &str, name: &str, payload: &[u8]) -> PyResult<()> {
        self.send(Sent::Event {
            to: to.into(),
            name: name.to_owned(),
            payload: bytes_of(payload),
        })
    }

    fn send_cancel(&self, to: &str, reason: &[u8]) -> PyResult<()> {
        self.send(Sent::Cancel {
            to: to.into(),
            reason: bytes_of(reason),
        })
    }

    #[pyo3(signature = (stream, keep, item))]
    fn write(&self, stream: &str, keep: Option<u64>, item: &[u8]) -> PyResult<()> {
        self.lock()
            .machine
            .request_write(stream, keep, bytes_of(item))
            .map_err(halted)
    }

    /// The name under which the step of that id writes to streams.
    fn writer(&self, op: &str) -> String {
        self.lock().machine.writer(op)
    }

    /// Sends what a step has written. The reply is (applied, fenced, blocked or rejected; the reason).
    fn append(&self, token: u64, items: Vec<WriteTuple>) {
        let items = items
            .into_iter()
            .map(
                |(stream, writer, index, attempt, keep, payload, at)| StreamWrite {
                    stream,
                    writer,
                    index,
                    attempt,
                    keep,
                    payload: payload.into(),
                    at,
                },
            );
        self.lock().append(token, items.collect());
    }

    fn last_op(&self) -> String {
        self.lock().machine.last_op().to_string()
    }

    fn cancel_op(&self, slot: u32) -> bool {
        self.lock().machine.cancel_op(slot)
    }

    fn turn(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let turn = self.lock().turn();
        turns::turn(py, turn)
    }

    fn accept(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let turn = self.lock().accept();
        turns::turn(py, turn)
    }

    fn refuse(&self, reason: String) {
        self.lock().machine.refuse(reason);
    }

    fn step_ok(&self, slot: u32, payload: &[u8]) {
        self.lock()
            .machine
            .step_done(slot, StepOutcome::Succeeded(bytes_of(payload)));
    }

    fn step_not_yet(&self, slot: u32) {
        self.lock().machine.step_done(slot, StepOutcome::NotYet);
    }

    /// Gives the milliseconds until the next attempt, if there is to be one.
    fn step_failed(&self, slot: u32, error: &[u8], retryable: bool) -> Option<Millis> {
        let error = bytes_of(error);
        let machine = &mut self.lock().machine;
        let pause = machine.pause_after_failure(slot);
        machine.step_done(slot, StepOutcome::Failed { error, retryable });
        pause.filter(|_| retryable)
    }

    /// An attempt tells of its progress. False if it is not recorded, now or at all.
    fn step_progress(&self, slot: u32, progress: &[u8]) -> bool {
        let mut driver = self.lock();
        let wall = driver.wall();
        driver.machine.step_progress(slot, bytes_of(progress), wall)
    }

    /// The last that a step told of its progress, in whichever attempt.
    fn progress<'py>(&self, py: Python<'py>, slot: u32) -> Option<Bound<'py, PyBytes>> {
        let progress = self.lock().machine.progress_of(slot)?;
        Some(PyBytes::new(py, &progress))
    }

    fn seal(&self, slot: u32, payload: &[u8]) -> bool {
        self.lock().machine.seal(slot, bytes_of(payload))
    }

    fn sealed(&self, applied: bool) {
        self.lock().sealed(applied);
    }

    fn undone(&self) {
        self.lock().machine.undone();
    }

    /// The word is the operation of a failure, or the version of a continuation.
    #[pyo3(signature = (kind, payload, word))]
    fn finish(&self, kind: u8, payload: &[u8], word: Option<String>) -> PyResult<()> {
        let payload = bytes_of(payload);
        let ending = match kind {
            0 => Ending::Completed(payload),
            1 => Ending::Failed {
                error: payload,
                op: word,
            },
            2 => Ending::Cancelled(payload),
            _ => Ending::Continued {
                input: payload,
                version: word.unwrap_or_default(),
            },
        };
        let mut driver = self.lock();
        let wall = driver.wall();
        driver.machine.finish(ending, wall).map_err(halted)
    }

    fn cannot_read(&self, op: &str, why: String) {
        self.lock().machine.cannot_read(op, why);
    }

    fn set_state(&self, state: &[u8]) {
        self.lock().machine.set_state(bytes_of(state));
    }

    fn yield_now(&self) {
        self.lock().machine.yield_now();
    }

    fn abandon(&self) {
        self.lock().abandon();
    }

    fn holds_lease(&self) -> bool {
        self.lock().holds_lease()
    }

    fn now(&self) -> Millis {
        self.lock().machine.now()
    }

    fn wall(&self) -> Millis {
        self.lock().wall()
    }

    fn durable_len(&self) -> u64 {
        self.lock().machine.durable_len()
    }

    fn journal_len(&self) -> u64 {
        self.lock().machine.journal_len()
    }

    #[getter]
    fn replaying(&self) -> bool {
        self.lock().is_replaying()
    }

    #[getter]
    fn driving(&self) -> bool {
        self.lock().machine.is_driving()
    }

    #[getter]
    fn cancelled(&self) -> bool {
        self.lock().machine.was_cancelled()
    }

    #[getter]
    fn timed_out(&self) -> bool {
        self.lock().machine.was_timed_out()
    }

    fn divergence(&self) -> Option<String> {
        self.lock()
            .machine
            .divergence()
            .map(std::string::ToString::to_string)
    }

    /// The journal index at which the code and the journal part.
    fn divergence_index(&self) -> Option<u64> {
        self.lock()
            .machine
            .divergence()
            .map(|divergence| divergence.index)
    }
}
