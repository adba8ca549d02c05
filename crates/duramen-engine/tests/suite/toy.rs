//! A toy handler: a Rust future whose awaits are operations of the machine. One poll is one drain
//! of its loop.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use duramen_core::derive::ValueKind;
use duramen_core::family::Ended;
use duramen_core::ids::{Millis, OpId, Payload, RunId};
use duramen_core::inbox::Slot;
use duramen_core::machine::op::Checkpoint;
use duramen_core::machine::{Halt, Outcome, Requested};
use duramen_core::primitives::child::NewChild;
use duramen_core::primitives::timer::TimerStem;
use duramen_core::retry::RetryPolicy;
use duramen_engine::RunDriver;

/// What an await gives and a handler returns: text, or the text of a failure.
pub type Flow = Result<String, String>;
pub type Job = Pin<Box<dyn Future<Output = Flow>>>;
pub type Program = Rc<dyn Fn(Ctx) -> Job>;

/// What the handler and the host share.
pub struct World {
    pub driver: RunDriver,
    pub results: BTreeMap<Slot, Outcome>,
    /// What a live outcome brings, until it is delivered.
    pub fresh: BTreeMap<Slot, Payload>,
    pub cancelled: bool,
}

#[derive(Clone)]
pub struct Ctx(pub Rc<RefCell<World>>);

impl Ctx {
    pub fn input(&self) -> String {
        text(self.0.borrow().driver.machine.input())
    }

    /// Steps called "slow…" end when the test says so, "bad…" fail, all others end at once.
    pub async fn step(&self, id: &str) -> Flow {
        let asked = self.0.borrow_mut().driver.machine.request_step(
            id,
            RetryPolicy::NEVER,
            if id.starts_with("tx") {
                Checkpoint::Sealed
            } else {
                Checkpoint::Durable
            },
            false,
        );
        match asked {
            Ok(Requested::Ready { outcome, .. }) => flow(outcome),
            Ok(Requested::Pending(slot)) => self.wait(Ok(slot)).await,
            Err(halt) => self.wait(Err(halt)).await,
        }
    }

    pub async fn sleep(&self, span: Millis) -> Flow {
        let slot = {
            let machine = &mut self.0.borrow_mut().driver.machine;
            let until = machine.now() + span;
            machine.request_timer(TimerStem::Sleep, until)
        };
        self.wait(slot).await
    }

    pub async fn event(&self, name: &str, timeout: Option<Millis>) -> Flow {
        let slot = {
            let machine = &mut self.0.borrow_mut().driver.machine;
            let deadline = timeout.map(|span| machine.now() + span);
            machine.request_event(name, None, deadline)
        };
        self.wait(slot).await
    }

    /// Starts a child with that input, under a run id of its own or not, and waits for its end.
    pub async fn child(&self, run_id: Option<&str>, input: &str) -> Flow {
        let started = self.start(run_id, input);
        let slot = started.and_then(|(op, run_id)| {
            let machine = &mut self.0.borrow_mut().driver.machine;
            machine.request_child_end(&op, &run_id)
        });
        self.wait(slot).await
    }

    pub fn start(&self, run_id: Option<&str>, input: &str) -> Result<(OpId, RunId), Halt> {
        let child = NewChild {
            workflow: "w".into(),
            version: "1".into(),
            run_id: run_id.map(Into::into),
            input: Payload::from(input.to_owned()),
            tags: Vec::new(),
            memo: None,
            timeout: None,
        };
        self.0
            .borrow_mut()
            .driver
            .machine
            .request_child(None, child)
    }

    pub fn take_updates(&self, name: &str) {
        // A halted handler never goes on.
        let _ = self.0.borrow_mut().driver.machine.request_updates(name);
    }

    pub async fn value(&self, kind: ValueKind) -> Flow {
        let value = self.0.borrow_mut().driver.machine.request_value(kind);
        match value {
            Ok(value) => Ok(text(&value)),
            Err(halt) => self.wait(Err(halt)).await,
        }
    }

    /// A halted handler never goes on.
    async fn wait(&self, slot: Result<Slot, Halt>) -> Flow {
        let Ok(slot) = slot else {
            return std::future::pending().await;
        };
        let outcome = poll_fn(|_| {
            let mut world = self.0.borrow_mut();
            match world.results.remove(&slot) {
                Some(outcome) => Poll::Ready(Some(outcome)),
                None if world.cancelled => {
                    world.driver.machine.cancel_op(slot);
                    Poll::Ready(None)
                }
                None => Poll::Pending,
            }
        });
        outcome.await.map_or(Err("cancelled".into()), flow)
    }
}

fn flow(outcome: Outcome) -> Flow {
    match outcome {
        Outcome::StepCompleted(payload) | Outcome::Received(payload) => {
            Ok(text(&payload.expect("a delivered result has a payload")))
        }
        Outcome::StepFailed(error) => Err(text(&error)),
        Outcome::Fired => Ok("fired".into()),
        Outcome::TimedOut => Err("timed out".into()),
        Outcome::ChildEnded(end) if end.ended == Ended::Completed => Ok(text(&end.payload)),
        Outcome::ChildEnded(end) => Err(format!("{}: {}", end.ended.name(), text(&end.payload))),
    }
}

pub fn text(payload: &Payload) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}

/// Awaits all of them.
pub async fn join(mut jobs: Vec<Job>) -> Vec<Flow> {
    let mut done: Vec<Option<Flow>> = jobs.iter().map(|_| None).collect();
    poll_fn(|context: &mut Context<'_>| {
        for (job, done) in jobs.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(flow) = job.as_mut().poll(context)
            {
                *done = Some(flow);
            }
        }
        if done.iter().all(Option::is_some) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

impl Ctx {
    /// The host completes an operation.
    pub fn deliver(&self, slot: Slot, outcome: Outcome) {
        let mut world = self.0.borrow_mut();
        let fresh = world.fresh.remove(&slot);
        let outcome = match outcome {
            Outcome::StepCompleted(None) => Outcome::StepCompleted(fresh),
            Outcome::Received(None) => Outcome::Received(fresh),
            other => other,
        };
        world.results.insert(slot, outcome);
    }
}
