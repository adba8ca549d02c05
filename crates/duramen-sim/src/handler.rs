//! Runs a generated program as a handler: its awaits are operations of a [`Port`]. One poll is one
//! drain of its loop: it runs until nothing in it is runnable.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use duramen_core::derive::ValueKind;
use duramen_core::ids::Millis;
use duramen_core::inbox::Slot;
use duramen_core::primitives::timer::TimerStem;

use crate::program::{Node, Program, Step};

/// What a handler asks of whoever drives it.
pub trait Port {
    /// With `alone`, nothing else is runnable in the handler.
    fn step(&mut self, step: &Step, alone: bool) -> Ask;
    fn timer(&mut self, stem: TimerStem, span: Millis) -> Ask;
    fn event(&mut self, name: &str, timeout: Option<Millis>) -> Ask;
    fn approval(&mut self, timeout: Option<Millis>) -> Ask;
    fn value(&mut self, kind: ValueKind) -> Ask;
    /// The generated code never changes, so that every patch is in force.
    fn patched(&mut self, id: &str) -> Ask;
    fn write(&mut self, stream: &str) -> Ask;
    fn child(&mut self) -> Ask;
    fn tell(&mut self, name: &str) -> Ask;
    /// What the operation was answered, if it was.
    fn take(&mut self, slot: Slot) -> Option<Told>;
    /// The handler does not wait for it any more.
    fn give_up(&mut self, slot: Slot);
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Ready(Told),
    Pending(Slot),
    /// The handler may not go on.
    Halted,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A result, an event's payload, a decision, a value.
    Value(String),
    Failed(String),
    Fired,
    TimedOut,
}

/// Why a part of a handler did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The text of a step's failure, which begins with its id.
    Failed(String),
    TimedOut,
    Cancelled,
}

/// A digest of everything that was learnt on the way, or a fault.
pub type Flow = Result<u64, Fault>;

type Job = Pin<Box<dyn Future<Output = Flow>>>;

/// A cancellation that waits to be raised at the next await of one task.
type Task = Rc<Cell<bool>>;

#[derive(Clone)]
struct Ctx {
    port: Rc<RefCell<dyn Port>>,
    program: Rc<Program>,
    task: Task,
    alone: bool,
}

/// A handler under way.
pub struct Handler {
    job: Job,
    root: Task,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

impl Handler {
    pub fn new(program: &Rc<Program>, port: Rc<RefCell<dyn Port>>) -> Self {
        let root = Task::default();
        let ctx = Ctx {
            port,
            program: Rc::clone(program),
            task: Rc::clone(&root),
            alone: true,
        };
        Self {
            job: run(Rc::clone(&program.root), ctx),
            root,
        }
    }

    /// Cancels the handler at its awaits, with the next drain.
    pub fn cancel(&self) {
        self.root.set(true);
    }

    /// Lets it run until nothing is runnable; its end, if that is reached.
    pub fn drain(&mut self) -> Option<Flow> {
        match self
            .job
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(flow) => Some(flow),
            Poll::Pending => None,
        }
    }
}

impl Ctx {
    fn branch(&self, task: &Task) -> Self {
        Self {
            task: Rc::clone(task),
            alone: false,
            ..self.clone()
        }
    }

    /// Waits for an answer, or to be cancelled.
    async fn wait(&self, ask: Ask) -> Result<Told, Fault> {
        let slot = match ask {
            Ask::Ready(told) => return Ok(told),
            Ask::Pending(slot) => slot,
            Ask::Halted => return std::future::pending().await,
        };
        poll_fn(|_| {
            let mut port = self.port.borrow_mut();
            if let Some(told) = port.take(slot) {
                Poll::Ready(Ok(told))
            } else if self.task.take() {
                port.give_up(slot);
                Poll::Ready(Err(Fault::Cancelled))
            } else {
                Poll::Pending
            }
        })
        .await
    }
}

/// Mixes what was learnt into a digest; the order counts.
fn mix(seed: u64, parts: &[u64]) -> u64 {
    parts
        .iter()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, part| {
            (hash ^ part)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(23)
                .wrapping_add(*part)
        })
}

fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn fault_digest(fault: &Fault) -> u64 {
    match fault {
        Fault::Failed(text) => digest(text),
        Fault::TimedOut => 2,
        Fault::Cancelled => 3,
    }
}

fn flow_of(told: Told) -> Flow {
    match told {
        Told::Value(text) => Ok(digest(&text)),
        Told::Failed(text) => Err(Fault::Failed(text)),
        Told::Fired => Ok(1),
        Told::TimedOut => Err(Fault::TimedOut),
    }
}

fn run(node: Rc<Node>, ctx: Ctx) -> Job {
    Box::pin(async move {
        let ask = match &*node {
            Node::Seq(nodes) => {
                let mut out = 10;
                for node in nodes {
                    out = mix(out, &[run(Rc::clone(node), ctx.clone()).await?]);
                }
                return Ok(out);
            }
            Node::Loop(times, body) => {
                let mut out = 11;
                for _ in 0..*times {
                    out = mix(out, &[run(Rc::clone(body), ctx.clone()).await?]);
                }
                return Ok(out);
            }
            Node::All(nodes) => {
                let flows = tasks(nodes, &ctx, |_, _| false).await?;
                return Ok(flows.iter().fold(12, |out, flow| {
                    mix(out, &[flow.as_ref().map_or_else(fault_digest, |out| *out)])
                }));
            }
            Node::Group(nodes) => {
                let mut first = None;
                let flows = tasks(nodes, &ctx, |at, flow| {
                    let failed = flow.is_err();
                    if failed && first.is_none() {
                        first = Some(at);
                    }
                    failed
                })
                .await?;
                let failed = first.and_then(|at| flows.get(at).cloned());
                if let Some(Err(fault)) = failed {
                    return Err(fault);
                }
                let outs: Vec<u64> = flows.into_iter().flatten().collect();
                return Ok(mix(13, &outs));
            }
            Node::Race(nodes) => {
                let mut winner = None;
                let flows = tasks(nodes, &ctx, |at, _| {
                    winner.get_or_insert(at);
                    true
                })
                .await?;
                let at = winner.unwrap_or(0);
                let out = flows.into_iter().nth(at).unwrap_or(Ok(0))?;
                return Ok(mix(14, &[at as u64, out]));
            }
            Node::Within(span, body) => return within(*span, body, &ctx).await,
            Node::Catch(body) => {
                return match run(Rc::clone(body), ctx.clone()).await {
                    Err(Fault::Cancelled) => Err(Fault::Cancelled),
                    Err(fault) => Ok(mix(15, &[fault_digest(&fault)])),
                    Ok(out) => Ok(out),
                };
            }
            Node::Guard { body, cleanup } => {
                let flow = run(Rc::clone(body), ctx.clone()).await;
                if flow == Err(Fault::Cancelled) {
                    // Its own failure does not hide that the task was cancelled.
                    let _ = run(Rc::clone(cleanup), ctx.clone()).await;
                }
                return flow;
            }
            Node::Step(step) => {
                let step = ctx.program.step(&step.id).unwrap_or(step);
                ctx.port.borrow_mut().step(step, ctx.alone)
            }
            Node::Sleep(span) => ctx.port.borrow_mut().timer(TimerStem::Sleep, *span),
            Node::Event { name, timeout } => ctx.port.borrow_mut().event(name, *timeout),
            Node::Approval { timeout } => ctx.port.borrow_mut().approval(*timeout),
            Node::Value(kind) => ctx.port.borrow_mut().value(*kind),
            Node::Patched(id) => ctx.port.borrow_mut().patched(id),
            Node::Write(stream) => ctx.port.borrow_mut().write(stream),
            Node::Child => ctx.port.borrow_mut().child(),
            Node::Tell(name) => ctx.port.borrow_mut().tell(name),
        };
        flow_of(ctx.wait(ask).await?)
    })
}

/// Runs them side by side until all have ended. `ended` sees each end in its turn and says whether
/// the others are to be cancelled; so they are when the whole is.
async fn tasks(
    nodes: &[Rc<Node>],
    ctx: &Ctx,
    mut ended: impl FnMut(usize, &Flow) -> bool,
) -> Result<Vec<Flow>, Fault> {
    let tokens: Vec<Task> = nodes.iter().map(|_| Task::default()).collect();
    let mut jobs: Vec<Job> = nodes
        .iter()
        .zip(&tokens)
        .map(|(node, task)| run(Rc::clone(node), ctx.branch(task)))
        .collect();
    let mut flows: Vec<Option<Flow>> = nodes.iter().map(|_| None).collect();
    let (mut cancelled, mut stopped) = (false, false);
    poll_fn(|context| {
        let mut stop = ctx.task.take();
        cancelled |= stop;
        stopped |= stop;
        loop {
            if stop {
                for (task, flow) in tokens.iter().zip(&flows) {
                    task.set(flow.is_none());
                }
                stop = false;
            }
            let mut ends = false;
            for (at, job) in jobs.iter_mut().enumerate() {
                if flows[at].is_none()
                    && let Poll::Ready(flow) = job.as_mut().poll(context)
                {
                    ends |= ended(at, &flow);
                    flows[at] = Some(flow);
                }
            }
            if flows.iter().all(Option::is_some) {
                return Poll::Ready(());
            }
            if !ends || std::mem::replace(&mut stopped, true) {
                return Poll::Pending;
            }
            stop = true;
        }
    })
    .await;
    if cancelled {
        return Err(Fault::Cancelled);
    }
    Ok(flows.into_iter().flatten().collect())
}

async fn within(span: Millis, body: &Rc<Node>, ctx: &Ctx) -> Flow {
    let timer = ctx.port.borrow_mut().timer(TimerStem::Timer, span);
    let Ask::Pending(timer) = timer else {
        return std::future::pending().await;
    };
    let task = Task::default();
    let mut job = run(Rc::clone(body), ctx.branch(&task));
    let (mut fired, mut cancelled) = (false, false);
    let flow = poll_fn(|context| {
        if !fired && ctx.port.borrow_mut().take(timer).is_some() {
            fired = true;
            task.set(true);
        }
        if ctx.task.take() {
            cancelled = true;
            task.set(true);
        }
        job.as_mut().poll(context)
    })
    .await;
    if !fired {
        ctx.port.borrow_mut().give_up(timer);
    }
    match flow {
        Err(Fault::Cancelled) if !cancelled => Err(Fault::TimedOut),
        Ok(_) if cancelled => Err(Fault::Cancelled),
        flow => flow,
    }
}
