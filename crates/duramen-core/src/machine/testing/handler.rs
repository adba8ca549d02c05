//! A toy handler: a Rust future whose awaits are operations of the machine.
//!
//! It stands for the coroutine that a host drives. One poll is one drain of its loop; dropping an
//! operation's future is what cancelling the task that awaits it is in asyncio.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::derive::ValueKind;
use crate::family::Ended;
use crate::ids::{Millis, OpId, Payload, RunId};
use crate::inbox::Slot;
use crate::machine::op::Checkpoint;
use crate::machine::{Halt, Machine, Outcome, PollRule, Requested};
use crate::primitives::child::NewChild;
use crate::primitives::message::Sent;
use crate::primitives::timer::TimerStem;
use crate::retry::RetryPolicy;

/// What an await gives, and what a handler returns.
pub(crate) type Flow = Result<String, Fault>;

/// A piece of a handler.
pub(crate) type Job = Pin<Box<dyn Future<Output = Flow>>>;

/// What an await raises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    Failed {
        op: String,
        error: String,
    },
    TimedOut,
    Cancelled,
    Refused(String),
    Raised(String),
    /// Not for anyone to catch: the run goes on with this input.
    Continued(String),
}

/// What the handler and its driver share.
pub(crate) struct World {
    pub(crate) machine: Machine,
    /// Delivered outcomes that their futures have not taken yet.
    results: BTreeMap<Slot, Outcome>,
    pub(crate) labels: BTreeMap<Slot, String>,
    /// Length of the journal when each operation was requested.
    pub(crate) asked_at: BTreeMap<Slot, u64>,
    /// What a live outcome brings, until it is delivered.
    pub(crate) fresh: BTreeMap<Slot, Payload>,
    /// Steps in flight that the handler gave up.
    pub(crate) stopped: Vec<Slot>,
    /// Everything the handler learnt, in order.
    pub(crate) seen: Vec<String>,
    pub(crate) halt: Option<Halt>,
    /// The functions of the updates that the handler takes.
    pub(crate) takers: BTreeMap<Slot, Rc<dyn Fn(Ctx, String) -> Job>>,
    cancels: u32,
    pub(crate) crashed: bool,
}

/// The handler's access to durable operations.
#[derive(Clone)]
pub(crate) struct Ctx {
    world: Rc<RefCell<World>>,
    alone: bool,
}

impl Ctx {
    pub(crate) fn new(machine: Machine) -> Self {
        Self {
            world: Rc::new(RefCell::new(World {
                machine,
                results: BTreeMap::new(),
                labels: BTreeMap::new(),
                asked_at: BTreeMap::new(),
                fresh: BTreeMap::new(),
                stopped: Vec::new(),
                seen: Vec::new(),
                halt: None,
                takers: BTreeMap::new(),
                cancels: 0,
                crashed: false,
            })),
            alone: false,
        }
    }

    /// The same, for a stretch in which nothing else is runnable: recorded steps answer at once.
    pub(crate) fn alone(&self) -> Self {
        Self {
            world: self.world.clone(),
            alone: true,
        }
    }

    pub(crate) fn together(&self) -> Self {
        Self {
            world: self.world.clone(),
            alone: false,
        }
    }

    pub(crate) fn with<T>(&self, use_world: impl FnOnce(&mut World) -> T) -> T {
        use_world(&mut self.world.borrow_mut())
    }

    pub(crate) fn step(&self, id: &str) -> OpFuture {
        self.step_with(id, RetryPolicy::NEVER, Checkpoint::Durable)
    }

    pub(crate) fn sealed(&self, id: &str) -> OpFuture {
        self.step_with(id, RetryPolicy::NEVER, Checkpoint::Sealed)
    }

    pub(crate) fn lazy(&self, id: &str) -> OpFuture {
        self.step_with(id, RetryPolicy::NEVER, Checkpoint::Lazy)
    }

    /// Looks every `every` milliseconds, for `timeout` at the most.
    pub(crate) fn poll(&self, id: &str, retry: RetryPolicy, rule: PollRule) -> OpFuture {
        let alone = self.alone;
        let answer = self.with(|world| world.machine.request_poll(id, retry, rule, alone));
        self.requested(answer)
    }

    pub(crate) fn step_with(
        &self,
        id: &str,
        retry: RetryPolicy,
        checkpoint: Checkpoint,
    ) -> OpFuture {
        let alone = self.alone;
        let answer = self.with(|world| world.machine.request_step(id, retry, checkpoint, alone));
        self.requested(answer)
    }

    fn requested(&self, answer: Result<Requested, Halt>) -> OpFuture {
        match answer {
            Ok(Requested::Ready { outcome, .. }) => {
                let id = self.with(|world| {
                    let id = world.machine.last_op().to_string();
                    world.note(&id, &outcome);
                    id
                });
                self.op(Await::Ready(outcome, id))
            }
            Ok(Requested::Pending(slot)) => self.pending(slot),
            Err(halt) => self.halted(halt),
        }
    }

    pub(crate) fn sleep(&self, span: Millis) -> OpFuture {
        let deadline = self.with(|world| world.machine.now().saturating_add(span));
        self.sleep_until(TimerStem::Sleep, deadline)
    }

    pub(crate) fn sleep_until(&self, stem: TimerStem, deadline: Millis) -> OpFuture {
        match self.with(|world| world.machine.request_timer(stem, deadline)) {
            Ok(slot) => self.pending(slot),
            Err(halt) => self.halted(halt),
        }
    }

    pub(crate) fn event(&self, name: &str, timeout: Option<Millis>) -> OpFuture {
        let asked = self.with(|world| {
            let deadline = timeout.map(|span| world.machine.now().saturating_add(span));
            world.machine.request_event(name, None, deadline)
        });
        match asked {
            Ok(slot) => self.pending(slot),
            Err(halt) => self.halted(halt),
        }
    }

    pub(crate) fn approve(&self, id: Option<&str>, timeout: Option<Millis>) -> OpFuture {
        let asked = self.with(|world| {
            let deadline = timeout.map(|span| world.machine.now().saturating_add(span));
            let title = Payload::from_static(b"\"Ship it?\"");
            world.machine.request_approval(id, title, deadline)
        });
        match asked {
            Ok((slot, _)) => self.pending(slot),
            Err(halt) => self.halted(halt),
        }
    }

    /// Starts a child, by its operation's id and perhaps under a run id of its own.
    pub(crate) fn start(
        &self,
        id: Option<&str>,
        run_id: Option<&str>,
    ) -> Result<(OpId, RunId), Halt> {
        let child = NewChild {
            workflow: "child".into(),
            version: "1".into(),
            run_id: run_id.map(Into::into),
            input: Payload::from_static(b"1"),
            tags: Vec::new(),
            memo: None,
            timeout: None,
        };
        self.with(|world| world.machine.request_child(id, child))
    }

    /// Starts a child and waits for its end.
    pub(crate) fn child(&self, id: Option<&str>) -> OpFuture {
        match self.start(id, None) {
            Ok((op, run_id)) => self.end_of(&op, &run_id),
            Err(halt) => self.halted(halt),
        }
    }

    pub(crate) fn end_of(&self, op: &OpId, run_id: &RunId) -> OpFuture {
        match self.with(|world| world.machine.request_child_end(op, run_id)) {
            Ok(slot) => self.pending(slot),
            Err(halt) => self.halted(halt),
        }
    }

    /// Sends an event to another run.
    pub(crate) async fn send(&self, to: &str, name: &str) {
        let sent = Sent::Event {
            to: to.into(),
            name: name.into(),
            payload: Payload::from_static(b"7"),
        };
        if let Err(halt) = self.with(|world| world.machine.request_message(sent)) {
            self.stop::<()>(halt).await;
        }
    }

    pub(crate) async fn value(&self, kind: ValueKind) -> String {
        let asked = self.with(|world| world.machine.request_value(kind));
        match asked {
            Ok(value) => text(&value),
            Err(halt) => self.stop(halt).await,
        }
    }

    /// Takes the updates of a name.
    pub(crate) fn on_update<F>(&self, name: &str, apply: impl Fn(Ctx, String) -> F + 'static)
    where
        F: Future<Output = Flow> + 'static,
    {
        self.with(|world| match world.machine.request_updates(name) {
            Ok(slot) => {
                let apply = move |ctx, payload| job(apply(ctx, payload));
                world.takers.insert(slot, Rc::new(apply));
            }
            Err(halt) => world.halt = Some(halt),
        });
    }

    /// The handler may not go on.
    async fn stop<T>(&self, halt: Halt) -> T {
        self.with(|world| world.halt = Some(halt));
        std::future::pending().await
    }

    pub(crate) fn try_patched(&self, id: &str) -> Result<bool, Halt> {
        self.with(|world| world.machine.request_patch(id))
    }

    pub(crate) async fn patched(&self, id: &str) -> bool {
        match self.try_patched(id) {
            Ok(is_in_force) => is_in_force,
            Err(halt) => self.stop(halt).await,
        }
    }

    pub(crate) async fn write(&self, stream: &str, item: &str) {
        let item = Payload::from(item.to_owned());
        let asked = self.with(|world| world.machine.request_write(stream, None, item));
        if let Err(halt) = asked {
            self.stop::<()>(halt).await;
        }
    }

    /// The handler's logical clock.
    pub(crate) fn now(&self) -> Millis {
        self.with(|world| world.machine.now())
    }

    fn pending(&self, slot: Slot) -> OpFuture {
        self.with(|world| {
            let label = world.machine.last_op().to_string();
            world.labels.insert(slot, label);
            let len = world.machine.journal_len();
            world.asked_at.insert(slot, len);
        });
        self.op(Await::Pending(slot))
    }

    fn halted(&self, halt: Halt) -> OpFuture {
        if let Halt::InvalidId(error) = halt {
            return self.op(Await::Refused(error.to_string()));
        }
        self.with(|world| world.halt = Some(halt));
        self.op(Await::Never)
    }

    fn op(&self, state: Await) -> OpFuture {
        OpFuture {
            ctx: self.clone(),
            state,
            cancels: self.with(|world| world.cancels),
        }
    }
}

impl World {
    /// The driver completes an operation.
    pub(crate) fn deliver(&mut self, slot: Slot, outcome: Outcome) {
        let fresh = self.fresh.remove(&slot);
        let outcome = match outcome {
            Outcome::StepCompleted(None) => Outcome::StepCompleted(fresh),
            Outcome::Received(None) => Outcome::Received(fresh),
            other => other,
        };
        let label = self.labels.get(&slot).cloned().unwrap_or_default();
        self.note(&label, &outcome);
        self.results.insert(slot, outcome);
    }

    /// The driver cancels the handler: every await that is open now raises.
    pub(crate) fn cancel(&mut self, how: &str) {
        self.seen.push(how.to_owned());
        self.cancels += 1;
    }

    fn note(&mut self, label: &str, outcome: &Outcome) {
        let what = match outcome {
            Outcome::StepCompleted(Some(payload)) | Outcome::Received(Some(payload)) => {
                format!("{label}={}", text(payload))
            }
            Outcome::StepFailed(error) => format!("{label} failed: {}", text(error)),
            Outcome::ChildEnded(end) => {
                format!("{label} {}: {}", end.ended.name(), text(&end.payload))
            }
            Outcome::Fired => format!("{label} fired"),
            Outcome::TimedOut => format!("{label} timed out"),
            Outcome::StepCompleted(None) | Outcome::Received(None) => {
                panic!("{label} was delivered without a payload")
            }
        };
        self.seen.push(what);
    }
}

enum Await {
    Ready(Outcome, String),
    Pending(Slot),
    Refused(String),
    /// The machine has halted the handler: it never runs again.
    Never,
    Done,
}

/// One durable operation, awaited.
pub(crate) struct OpFuture {
    ctx: Ctx,
    state: Await,
    cancels: u32,
}

impl Future for OpFuture {
    type Output = Flow;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Flow> {
        let (outcome, label) = match std::mem::replace(&mut self.state, Await::Done) {
            Await::Ready(outcome, label) => (outcome, label),
            Await::Refused(why) => return Poll::Ready(Err(Fault::Refused(why))),
            Await::Never => {
                self.state = Await::Never;
                return Poll::Pending;
            }
            Await::Done => panic!("polled after its end"),
            Await::Pending(slot) => {
                let cancels = self.cancels;
                let ctx = self.ctx.clone();
                let got = ctx.with(|world| {
                    if world.cancels > cancels {
                        world.give_up(slot);
                        return Some(Err(Fault::Cancelled));
                    }
                    let outcome = world.results.remove(&slot)?;
                    let label = world.labels.get(&slot).cloned().unwrap_or_default();
                    Some(Ok((outcome, label)))
                });
                match got {
                    None => {
                        self.state = Await::Pending(slot);
                        return Poll::Pending;
                    }
                    Some(Err(fault)) => return Poll::Ready(Err(fault)),
                    Some(Ok(got)) => got,
                }
            }
        };
        Poll::Ready(match outcome {
            Outcome::StepCompleted(payload) | Outcome::Received(payload) => {
                Ok(text(&payload.unwrap_or_default()))
            }
            Outcome::StepFailed(error) => Err(Fault::Failed {
                op: label,
                error: text(&error),
            }),
            Outcome::ChildEnded(end) if end.ended == Ended::Completed => Ok(text(&end.payload)),
            Outcome::ChildEnded(end) => Err(Fault::Failed {
                op: label,
                error: text(&end.payload),
            }),
            Outcome::Fired => Ok("fired".into()),
            Outcome::TimedOut => Err(Fault::TimedOut),
        })
    }
}

impl World {
    fn give_up(&mut self, slot: Slot) {
        if self.machine.cancel_op(slot) {
            self.stopped.push(slot);
        }
    }
}

impl Drop for OpFuture {
    fn drop(&mut self) {
        if let Await::Pending(slot) = self.state {
            self.ctx.with(|world| {
                // A crash cancels nothing: the process is simply gone.
                if !world.crashed {
                    world.give_up(slot);
                }
            });
        }
    }
}

pub(crate) fn text(payload: &Payload) -> String {
    String::from_utf8_lossy(payload).into_owned()
}

/// Boxes a piece of a handler.
pub(crate) fn job(future: impl Future<Output = Flow> + 'static) -> Job {
    Box::pin(future)
}

/// `asyncio.gather(..., return_exceptions=True)`: the results in order of the jobs.
pub(crate) async fn join(mut jobs: Vec<Job>) -> Vec<Flow> {
    let mut results: Vec<Option<Flow>> = jobs.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (job, result) in jobs.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(flow) = job.as_mut().poll(cx)
            {
                *result = Some(flow);
            }
        }
        if results.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

/// The first job to end wins; the others are cancelled.
pub(crate) async fn race(mut jobs: Vec<Job>) -> (usize, Flow) {
    std::future::poll_fn(move |cx| {
        for index in 0..jobs.len() {
            if let Poll::Ready(flow) = jobs[index].as_mut().poll(cx) {
                jobs.clear();
                return Poll::Ready((index, flow));
            }
        }
        Poll::Pending
    })
    .await
}

/// `asyncio.timeout(span)`.
pub(crate) async fn within(ctx: &Ctx, span: Millis, inner: Job) -> Flow {
    let deadline = ctx.now().saturating_add(span);
    let timer = ctx.sleep_until(TimerStem::Timer, deadline);
    match race(vec![inner, job(timer)]).await {
        (0, flow) => flow,
        (_, Err(fault)) => Err(fault),
        (_, Ok(_)) => Err(Fault::TimedOut),
    }
}
