//! The real machine as a handler's [`Port`]: what Python's run host is to a coroutine.

use std::collections::BTreeMap;
use std::sync::Arc;

use duramen_core::derive::ValueKind;
use duramen_core::family::Ended;
use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::inbox::Slot;
use duramen_core::machine::op::Checkpoint;
use duramen_core::machine::{Halt, Machine, Outcome, Requested};
use duramen_core::primitives::child::NewChild;
use duramen_core::primitives::message::Sent;
use duramen_core::primitives::timer::TimerStem;
use duramen_engine::RunDriver;

use crate::facts::RunLife;
use crate::handler::{Ask, Port, Told};
use crate::newer::{VERSION, WORKFLOW};
use crate::oracles::{Seen, text};
use crate::program::Step;

/// Whom handlers tell things.
pub const LISTENER: &str = "r0";

/// Whoever has a machine: a driver of the engine, or a replay of its own.
pub trait HasMachine {
    fn machine(&mut self) -> &mut Machine;
}

impl HasMachine for RunDriver {
    fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }
}

impl HasMachine for Machine {
    fn machine(&mut self) -> &mut Machine {
        self
    }
}

/// A step that the handler asked for and that has not ended.
#[derive(Debug, Clone)]
pub struct Asked {
    pub op: Arc<str>,
    /// How far the journal went then, counting only what an effect has to wait for.
    pub asked_at: u64,
}

/// See the module's head.
pub struct Desk<M> {
    pub driver: M,
    pub run_id: RunId,
    /// What the handler learnt since somebody last looked.
    pub seen: Vec<Seen>,
    /// Steps asked for, by slot; also those that were answered long ago.
    pub asked: BTreeMap<Slot, Asked>,
    /// Steps that were asked for since somebody last looked; for a planted fault.
    pub fresh_requests: Vec<Slot>,
    /// What a live outcome brings, until it is delivered.
    pub fresh: BTreeMap<Slot, Payload>,
    /// Steps that the handler has given up.
    pub given_up: Vec<Slot>,
    answers: BTreeMap<Slot, Told>,
    hard: u64,
    lazy: BTreeMap<Slot, bool>,
    /// Ids of open operations.
    ops: BTreeMap<Slot, Arc<str>>,
}

impl<M> std::fmt::Debug for Desk<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk<RunDriver> {
    /// Which life of which run it is.
    pub fn life(&self) -> RunLife {
        (self.run_id.clone(), self.driver.machine.facts().seed)
    }
}

impl<M: HasMachine> Desk<M> {
    pub fn new(mut driver: M) -> Self {
        let run_id = driver.machine().facts().run_id.clone();
        Self {
            driver,
            run_id,
            seen: Vec::new(),
            asked: BTreeMap::new(),
            fresh_requests: Vec::new(),
            fresh: BTreeMap::new(),
            given_up: Vec::new(),
            answers: BTreeMap::new(),
            hard: 0,
            lazy: BTreeMap::new(),
            ops: BTreeMap::new(),
        }
    }

    /// Hands an outcome over. `before` is the journal's length before the turn that brought it: a
    /// live outcome has got its place since, a replayed one had it.
    pub fn deliver(&mut self, slot: Slot, outcome: Outcome, before: u64) {
        let fresh = self.fresh.remove(&slot);
        let outcome = match outcome {
            Outcome::StepCompleted(None) => Outcome::StepCompleted(fresh),
            Outcome::Received(None) => Outcome::Received(fresh),
            other => other,
        };
        let told = told(outcome);
        let light = self.lazy.remove(&slot).unwrap_or(false);
        let op = self.ops.remove(&slot);
        let op = op.as_deref().unwrap_or("nobody's");
        self.learn(before, light, &format!("{op} {told:?}"));
        self.answers.insert(slot, told);
    }

    /// A result as it arrives, before it has its place; only a planted fault does that.
    pub fn deliver_early(&mut self, slot: Slot, payload: &Payload) {
        self.answers.insert(slot, Told::Value(text(payload)));
    }

    /// The handler is told something that belongs to no operation.
    pub fn interrupt(&mut self, what: &str, before: u64) {
        self.learn(before, false, what);
    }

    fn learn(&mut self, before: u64, light: bool, what: &str) {
        let machine = self.driver.machine();
        let place = if machine.journal_len() > before {
            machine.journal_len() - 1
        } else {
            machine.replayed()
        };
        if !light {
            self.hard = place + 1;
        }
        self.seen.push(Seen {
            place,
            what: what.to_owned(),
        });
    }

    fn pending(&mut self, asked: Result<Slot, Halt>) -> Ask {
        let slot = match asked {
            Ok(slot) => slot,
            Err(halt) => return halted(halt),
        };
        let op = self.driver.machine().last_op().clone();
        self.ops.insert(slot, op);
        Ask::Pending(slot)
    }

    fn deadline(&mut self, span: Millis) -> Millis {
        self.driver.machine().now() + span
    }
}

impl<M: HasMachine> Port for Desk<M> {
    fn step(&mut self, step: &Step, alone: bool) -> Ask {
        let checkpoint = if step.lazy {
            Checkpoint::Lazy
        } else {
            Checkpoint::Durable
        };
        let machine = self.driver.machine();
        let before = machine.journal_len();
        match machine.request_step(&step.id, step.policy, checkpoint, alone) {
            Ok(Requested::Ready { outcome, .. }) => {
                let told = told(outcome);
                let op = machine.last_op().clone();
                self.learn(before, step.lazy, &format!("{op} {told:?}"));
                Ask::Ready(told)
            }
            Ok(Requested::Pending(slot)) => {
                let op = machine.last_op().clone();
                let asked_at = self.hard;
                self.ops.insert(slot, op.clone());
                self.asked.insert(slot, Asked { op, asked_at });
                self.fresh_requests.push(slot);
                self.lazy.insert(slot, step.lazy);
                Ask::Pending(slot)
            }
            Err(halt) => halted(halt),
        }
    }

    fn timer(&mut self, stem: TimerStem, span: Millis) -> Ask {
        let deadline = self.deadline(span);
        let asked = self.driver.machine().request_timer(stem, deadline);
        self.pending(asked)
    }

    fn event(&mut self, name: &str, timeout: Option<Millis>) -> Ask {
        let deadline = timeout.map(|span| self.deadline(span));
        let asked = self.driver.machine().request_event(name, None, deadline);
        self.pending(asked)
    }

    fn approval(&mut self, timeout: Option<Millis>) -> Ask {
        let deadline = timeout.map(|span| self.deadline(span));
        let machine = self.driver.machine();
        let asked = machine.request_approval(None, Payload::from_static(b"?"), deadline);
        self.pending(asked.map(|(slot, _)| slot))
    }

    fn value(&mut self, kind: ValueKind) -> Ask {
        let machine = self.driver.machine();
        let before = machine.journal_len();
        match machine.request_value(kind) {
            Ok(value) => {
                let value = text(&value);
                self.learn(before, true, &format!("value {value}"));
                Ask::Ready(Told::Value(value))
            }
            Err(halt) => halted(halt),
        }
    }

    fn patched(&mut self, id: &str) -> Ask {
        let machine = self.driver.machine();
        match machine.request_patch(id) {
            // Not learnt with an entry: a mark may be gone through before it is asked for. What the handler is told shows
            // in its digest, and where the mark stands is the model's concern.
            Ok(is_in_force) => Ask::Ready(Told::Value(is_in_force.to_string())),
            Err(halt) => halted(halt),
        }
    }

    fn write(&mut self, stream: &str) -> Ask {
        let machine = self.driver.machine();
        let before = machine.journal_len();
        match machine.request_write(stream, None, Payload::from_static(b"item")) {
            Ok(()) => {
                self.learn(before, false, &format!("write {stream}"));
                Ask::Ready(Told::Fired)
            }
            Err(halt) => halted(halt),
        }
    }

    fn child(&mut self) -> Ask {
        let machine = self.driver.machine();
        let before = machine.journal_len();
        let child = NewChild {
            workflow: WORKFLOW.into(),
            version: VERSION.into(),
            run_id: None,
            input: Payload::from_static(b"child"),
            tags: Vec::new(),
            memo: None,
            timeout: None,
        };
        let (op, run_id) = match machine.request_child(None, child) {
            Ok(started) => started,
            Err(halt) => return halted(halt),
        };
        self.learn(before, false, &format!("{op} starts {run_id}"));
        let asked = self.driver.machine().request_child_end(&op, &run_id);
        self.pending(asked)
    }

    fn tell(&mut self, name: &str) -> Ask {
        let machine = self.driver.machine();
        let before = machine.journal_len();
        let sent = Sent::Event {
            to: LISTENER.into(),
            name: name.to_owned(),
            payload: Payload::from_static(b"told"),
        };
        match machine.request_message(sent) {
            Ok(()) => {
                self.learn(before, false, &format!("tells {name}"));
                Ask::Ready(Told::Value("told".to_owned()))
            }
            Err(halt) => halted(halt),
        }
    }

    fn take(&mut self, slot: Slot) -> Option<Told> {
        self.answers.remove(&slot)
    }

    fn give_up(&mut self, slot: Slot) {
        if self.driver.machine().cancel_op(slot) {
            self.given_up.push(slot);
        }
    }
}

/// The reason is kept by the machine, which parks the run with it.
fn halted(_: Halt) -> Ask {
    Ask::Halted
}

fn told(outcome: Outcome) -> Told {
    match outcome {
        Outcome::StepCompleted(payload) | Outcome::Received(payload) => {
            Told::Value(payload.as_ref().map_or_else(String::new, text))
        }
        Outcome::StepFailed(error) => Told::Failed(text(&error)),
        Outcome::Fired => Told::Fired,
        Outcome::TimedOut => Told::TimedOut,
        Outcome::ChildEnded(end) if end.ended == Ended::Completed => {
            Told::Value(text(&end.payload))
        }
        Outcome::ChildEnded(end) => Told::Failed(text(&end.payload)),
    }
}
