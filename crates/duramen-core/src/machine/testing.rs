//! A scripted driver: a toy handler, a fake store, a virtual clock, and the machine between them.
//!
//! [`Sim`] does what a host does, one thing at a time, so that a test can choose what happens when;
//! [`Sim::run`] does the obvious thing until the run rests.

pub(crate) mod handler;
pub(crate) mod program;
pub(crate) mod store;

use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{AfterCommit, Decision, Ending, Machine, Turn, UpdateOutcome};
use crate::ids::{Millis, Payload};
use crate::inbox::Slot;
use crate::primitives::step::StepOutcome;
use crate::run::Status;
use crate::store::{CommitOutcome, MessageKind, Next, RunCommit};

pub(crate) use handler::{Ctx, Fault, Flow, Job, job, join, race, text, within};
pub(crate) use store::{FakeStore, Journal};

/// The instant at which every test begins.
pub(crate) const T0: Millis = 1_000_000;

type Program = Rc<dyn Fn(Ctx) -> Job>;
type Rule = Box<dyn Fn(&str, u32) -> StepOutcome>;

/// Where a round of turns has led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Something in flight will come in.
    Waiting,
    Hold(Millis),
    /// A commit is on its way.
    Committing,
    /// Nobody drives the run here.
    Idle,
}

/// A run that is driven here.
struct Live {
    ctx: Ctx,
    handler: Option<Job>,
    /// The functions of updates that go on.
    updates: Vec<(Slot, Job)>,
    sent: Option<RunCommit>,
    sealed: Option<(Slot, RunCommit)>,
}

/// See the module's head.
pub(crate) struct Sim {
    pub(crate) store: FakeStore,
    pub(crate) clock: Millis,
    pub(crate) hold: Millis,
    /// Keep the machine of a paused run, and go on with it.
    pub(crate) warm: bool,
    program: Program,
    rule: Rule,
    live: Option<Live>,
    /// Attempts in flight.
    pub(crate) running: Vec<(Slot, String, u32)>,
    /// Every attempt that was started, as `op/attempt`.
    pub(crate) starts: Vec<String>,
    /// Attempts in flight that the handler gave up.
    pub(crate) stopped: Vec<String>,
    /// What the handler has learnt since its journal was last read.
    pub(crate) seen: Vec<String>,
    pub(crate) after: Option<AfterCommit>,
    /// Called before each start with the slot; for checks.
    pub(crate) check_start: Option<fn(&Sim, Slot, &str)>,
}

impl Sim {
    pub(crate) fn new<F>(program: impl Fn(Ctx) -> F + 'static) -> Self
    where
        F: Future<Output = Flow> + 'static,
    {
        Self::on(FakeStore::new("input", T0), program)
    }

    /// A run that was driven before and has this journal.
    pub(crate) fn replaying<F>(journal: Journal, program: impl Fn(Ctx) -> F + 'static) -> Self
    where
        F: Future<Output = Flow> + 'static,
    {
        Self::on(FakeStore::with_journal(journal.entries(), T0), program)
    }

    pub(crate) fn on<F>(store: FakeStore, program: impl Fn(Ctx) -> F + 'static) -> Self
    where
        F: Future<Output = Flow> + 'static,
    {
        Self {
            store,
            clock: T0,
            hold: 0,
            warm: false,
            program: Rc::new(move |ctx| Box::pin(program(ctx))),
            rule: Box::new(|op, _| succeeded(&format!("{op}!"))),
            live: None,
            running: Vec::new(),
            starts: Vec::new(),
            stopped: Vec::new(),
            seen: Vec::new(),
            after: None,
            check_start: None,
        }
    }

    /// How attempts end when the test does not say it.
    pub(crate) fn rule(mut self, rule: impl Fn(&str, u32) -> StepOutcome + 'static) -> Self {
        self.rule = Box::new(rule);
        self
    }

    /// Deploys other code.
    pub(crate) fn deploy<F>(&mut self, program: impl Fn(Ctx) -> F + 'static)
    where
        F: Future<Output = Flow> + 'static,
    {
        self.program = Rc::new(move |ctx| Box::pin(program(ctx)));
    }

    /// Takes the run up and lets the handler run for the first time.
    pub(crate) fn claim(&mut self) {
        let warm = self.warm && self.live.is_some();
        let claimed = self.store.claim(self.clock, warm);
        if warm && let Some(live) = &self.live {
            live.ctx
                .with(|world| world.machine.resume(&claimed.row, claimed.inbox, false));
            return;
        }
        self.crash();
        self.seen.clear();
        let ctx = Ctx::new(Machine::new(claimed, store::OWNER));
        let handler = (self.program)(ctx.clone());
        self.live = Some(Live {
            ctx,
            handler: Some(handler),
            updates: Vec::new(),
            sent: None,
            sealed: None,
        });
        self.drain();
    }

    /// The process is gone: nothing is told to anyone.
    pub(crate) fn crash(&mut self) {
        if let Some(live) = self.live.take() {
            live.ctx.with(|world| world.crashed = true);
        }
        self.running.clear();
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live
            .as_ref()
            .is_some_and(|live| live.ctx.with(|world| !world.machine.is_paused()))
    }

    pub(crate) fn is_committing(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.sent.is_some())
    }

    pub(crate) fn machine<T>(&self, use_machine: impl FnOnce(&mut Machine) -> T) -> T {
        self.ctx().with(|world| use_machine(&mut world.machine))
    }

    pub(crate) fn ctx(&self) -> Ctx {
        self.live.as_ref().unwrap().ctx.clone()
    }

    /// The commit on its way.
    pub(crate) fn sent(&self) -> Option<&RunCommit> {
        self.live.as_ref()?.sent.as_ref()
    }

    /// Lets the handler run until nothing is runnable.
    fn drain(&mut self) {
        let clock = self.clock;
        let Some(live) = &mut self.live else { return };
        let ctx = live.ctx.clone();
        live.poll_updates();
        if let Some(handler) = &mut live.handler
            && ctx.with(|world| world.halt.is_none() && world.machine.is_driving())
        {
            let mut cx = Context::from_waker(Waker::noop());
            if let Poll::Ready(flow) = handler.as_mut().poll(&mut cx) {
                live.handler = None;
                ctx.with(|world| {
                    let ending = ending(flow, &world.machine);
                    if let Err(halt) = world.machine.finish(ending, clock) {
                        world.halt = Some(halt);
                    }
                });
            }
        }
        let (seen, stopped) = ctx.with(|world| {
            (
                std::mem::take(&mut world.seen),
                std::mem::take(&mut world.stopped),
            )
        });
        self.seen.extend(seen);
        for slot in stopped {
            if let Some(at) = self.running.iter().position(|(other, ..)| *other == slot) {
                self.stopped.push(self.running.remove(at).1);
            }
        }
    }

    /// Does one turn; false when it was idle.
    pub(crate) fn turn(&mut self) -> bool {
        let Some(live) = &self.live else { return false };
        let ctx = live.ctx.clone();
        let clock = self.clock;
        let mut turn = ctx.with(|world| world.machine.turn(clock));
        if let Turn::Offer { slot, message } = turn {
            if message.payload.starts_with(b"bad") {
                ctx.with(|world| world.machine.refuse("does not fit".into()));
                return true;
            }
            turn = ctx.with(|world| {
                world.fresh.insert(slot, message.payload);
                world.machine.accept(clock)
            });
            if turn == Turn::Idle {
                return true;
            }
        }
        match turn {
            Turn::Deliver { slot, outcome, .. } => {
                ctx.with(|world| world.deliver(slot, outcome));
                self.drain();
            }
            Turn::Apply {
                taker,
                slot,
                payload,
                ..
            } => {
                let (apply, payload) = ctx.with(|world| {
                    let fresh = world.fresh.remove(&taker);
                    let payload = text(&payload.or(fresh).unwrap());
                    world.seen.push(format!("update {payload}"));
                    (Rc::clone(&world.takers[&taker]), payload)
                });
                let update = (*apply)(ctx, payload);
                self.live.as_mut().unwrap().updates.push((slot, update));
                self.drain();
            }
            Turn::Start { slot, op, attempt } => {
                if let Some(check) = self.check_start {
                    check(self, slot, &op);
                }
                self.starts.push(format!("{op}/{attempt}"));
                self.running.push((slot, op.to_string(), attempt));
            }
            Turn::Cancel { reason, .. } => {
                ctx.with(|world| world.cancel(&format!("cancel {}", text(&reason))));
                self.drain();
            }
            Turn::TimeOut { .. } => {
                ctx.with(|world| world.cancel("time-out"));
                self.drain();
            }
            Turn::Seal { slot, commit } => {
                let live = self.live.as_mut().unwrap();
                assert!(live.sent.is_none(), "sealed while a commit is on its way");
                let before = live.sealed.replace((slot, *commit));
                assert!(before.is_none(), "sealed twice");
            }
            Turn::Offer { .. } => panic!("offered twice"),
            Turn::Idle => return false,
        }
        true
    }

    /// Turns until there is nothing to do, then asks for a commit.
    pub(crate) fn settle(&mut self) -> Rest {
        if !self.is_live() {
            return Rest::Idle;
        }
        while self.turn() {}
        let (clock, hold) = (self.clock, self.hold);
        match self.machine(|machine| machine.next_commit(clock, hold)) {
            Decision::Wait | Decision::Hold { .. } if self.is_committing() => Rest::Committing,
            Decision::Wait => Rest::Waiting,
            Decision::Hold { until } => Rest::Hold(until),
            Decision::Commit(commit) => {
                assert!(!self.is_committing(), "a commit while one is on its way");
                let live = self.live.as_mut().unwrap();
                live.sent = Some(*commit);
                Rest::Committing
            }
        }
    }

    /// The commit on its way takes place, or is refused.
    pub(crate) fn apply(&mut self) -> AfterCommit {
        let live = self.live.as_mut().unwrap();
        let commit = live.sent.take().unwrap();
        let outcome = self.store.commit(&commit);
        let after = live.ctx.with(|world| world.machine.committed(&outcome));
        self.after = Some(after);
        match after {
            AfterCommit::Driving => {}
            AfterCommit::Paused { .. } if self.warm => {}
            AfterCommit::Paused { .. } | AfterCommit::Ended | AfterCommit::Lost => self.crash(),
        }
        after
    }

    /// The function of this step has returned inside of the user's transaction.
    pub(crate) fn seal(&mut self, op: &str) -> Slot {
        let at = self.running.iter().position(|(_, id, _)| id == op).unwrap();
        let (slot, op, _) = self.running.remove(at);
        self.seal_with(slot, Payload::from(format!("{op}!")));
        slot
    }

    fn seal_with(&self, slot: Slot, result: Payload) {
        self.ctx().with(|world| {
            world.fresh.insert(slot, result.clone());
            assert!(world.machine.seal(slot, result));
        });
    }

    /// The commit in the hands of whoever holds the transaction.
    pub(crate) fn sealed(&self) -> Option<&RunCommit> {
        self.live
            .as_ref()?
            .sealed
            .as_ref()
            .map(|(_, commit)| commit)
    }

    pub(crate) fn take_sealed(&mut self) -> (Slot, RunCommit) {
        self.live.as_mut().unwrap().sealed.take().unwrap()
    }

    /// The user's transaction is rolled back: its attempt has failed.
    pub(crate) fn roll_back(&mut self) {
        let (slot, _) = self.take_sealed();
        self.report(slot, failed("rolled back"));
    }

    /// The user's transaction takes place, if the fence lets it.
    pub(crate) fn apply_sealed(&mut self) -> AfterCommit {
        let (_, commit) = self.take_sealed();
        let outcome = self.store.commit(&commit);
        let after = self.machine(|machine| machine.committed(&outcome));
        if after == AfterCommit::Lost {
            self.crash();
        }
        after
    }

    /// The connection dies in COMMIT, and the driver is told nothing of what became of it.
    pub(crate) fn doubt(&mut self, took_place: bool) {
        let (_, commit) = self.take_sealed();
        if took_place {
            self.store.commit(&commit);
        }
        let after = self.machine(|machine| machine.committed(&CommitOutcome::Fenced));
        assert_eq!(after, AfterCommit::Lost);
        self.crash();
    }

    /// The first attempt in flight of this step ends by the rule.
    pub(crate) fn complete(&mut self, op: &str) {
        let at = self.running.iter().position(|(_, id, _)| id == op);
        self.complete_at(at.unwrap_or_else(|| panic!("{op} is not running")));
    }

    pub(crate) fn complete_at(&mut self, index: usize) {
        let (slot, op, attempt) = self.running.remove(index);
        let outcome = (self.rule)(&op, attempt);
        match outcome {
            StepOutcome::Succeeded(result) if op.starts_with('T') => self.seal_with(slot, result),
            outcome => self.report(slot, outcome),
        }
    }

    /// Reports an outcome, as a driver would that knows nothing else.
    pub(crate) fn report(&mut self, slot: Slot, outcome: StepOutcome) {
        self.ctx().with(|world| {
            if let StepOutcome::Succeeded(payload) = &outcome {
                world.fresh.insert(slot, payload.clone());
            }
            world.machine.step_done(slot, outcome);
        });
    }

    pub(crate) fn event(&mut self, name: &str, payload: &str) {
        self.message(MessageKind::Event, name, payload);
    }

    pub(crate) fn update(&mut self, name: &str, payload: &str) {
        self.message(MessageKind::Update, name, payload);
    }

    pub(crate) fn decide(&mut self, id: &str, payload: &str) {
        self.message(MessageKind::Approval, id, payload);
    }

    pub(crate) fn cancel(&mut self, reason: &str) {
        self.message(MessageKind::Cancel, "", reason);
    }

    /// A message with an id and a payload of its own.
    pub(crate) fn message_of(
        &mut self,
        kind: MessageKind,
        name: &str,
        payload: Payload,
        message_id: String,
    ) {
        self.store.deliver(kind, name, "", self.clock);
        let Some(message) = self.store.inbox.last_mut() else {
            return;
        };
        (message.payload, message.message_id) = (payload, message_id);
        let message = message.clone();
        if let Some(live) = &self.live {
            live.ctx.with(|world| world.machine.deliver(vec![message]));
        }
    }

    /// A message reaches the store, and the driver if there is one.
    pub(crate) fn message(&mut self, kind: MessageKind, name: &str, payload: &str) {
        let message = self.store.deliver(kind, name, payload, self.clock);
        if let Some(live) = &self.live {
            live.ctx
                .with(|world| world.machine.deliver(vec![message.clone()]));
        }
    }

    /// Takes the run up if nobody drives it, and drives it until it rests: it is over, or only
    /// a message or the clock can bring it on.
    pub(crate) fn run(&mut self) -> Status {
        for _ in 0..100_000 {
            if !self.is_live() {
                if !self.is_due() {
                    return self.store.row.status;
                }
                self.claim();
            }
            match self.settle() {
                Rest::Committing => {
                    self.apply();
                }
                _ if self.sealed().is_some() => {
                    self.apply_sealed();
                }
                _ if !self.running.is_empty() => self.complete_at(0),
                Rest::Hold(until) => self.clock = self.clock.max(until),
                Rest::Waiting | Rest::Idle => {
                    assert!(!self.is_live(), "nothing is in flight, yet it waits");
                }
            }
        }
        panic!("the run never rests");
    }

    /// The same, but sleeps over deadlines too.
    pub(crate) fn run_through(&mut self) -> Status {
        loop {
            let status = self.run();
            match self.store.row.ready_at {
                Some(ready_at) if status == Status::Waiting => {
                    self.clock = self.clock.max(ready_at);
                }
                _ => return status,
            }
        }
    }

    fn is_due(&self) -> bool {
        match self.store.row.status {
            Status::Running => true,
            Status::Queued | Status::Waiting => {
                self.store.row.ready_at.is_some_and(|at| at <= self.clock)
            }
            _ => false,
        }
    }

    /// How many commits kept the lease.
    pub(crate) fn saves(&self) -> usize {
        let saves = |commit: &&RunCommit| commit.next == Next::Running;
        self.store.commits.iter().filter(saves).count()
    }

    pub(crate) fn fence_next(&mut self) {
        self.store.refuse.push(CommitOutcome::Fenced);
    }

    pub(crate) fn reject_next(&mut self) {
        self.store.refuse.push(CommitOutcome::Rejected {
            reason: "too large".into(),
        });
    }
}

impl Live {
    /// Lets the functions of updates run, and reports those that have ended.
    fn poll_updates(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let ctx = self.ctx.clone();
        self.updates.retain_mut(|(slot, update)| {
            let Poll::Ready(flow) = update.as_mut().poll(&mut cx) else {
                return true;
            };
            let outcome = match flow {
                Ok(result) => UpdateOutcome::Succeeded(Payload::from(result)),
                Err(fault) => UpdateOutcome::Failed(Payload::from(format!("{fault:?}"))),
            };
            ctx.with(|world| world.machine.update_done(*slot, outcome));
            false
        });
    }
}

fn ending(flow: Flow, machine: &Machine) -> Ending {
    match flow {
        Ok(output) => Ending::Completed(Payload::from(output)),
        Err(Fault::Cancelled) if machine.was_cancelled() => Ending::Cancelled(Payload::new()),
        Err(Fault::Failed { op, error }) => Ending::Failed {
            error: Payload::from(error),
            op: Some(op),
        },
        Err(Fault::Continued(input)) => Ending::Continued {
            input: Payload::from(input),
            version: "2".into(),
        },
        Err(fault) => Ending::Failed {
            error: Payload::from(format!("{fault:?}")),
            op: None,
        },
    }
}

pub(crate) fn succeeded(result: &str) -> StepOutcome {
    StepOutcome::Succeeded(Payload::from(result.to_owned()))
}

pub(crate) fn failed(error: &str) -> StepOutcome {
    StepOutcome::Failed {
        error: Payload::from(error.to_owned()),
        retryable: true,
    }
}
