//! The toy host: it drains events and drives runs, all on the test's thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use duramen_core::ids::{Payload, RunId};
use duramen_core::inbox::Slot;
use duramen_core::machine::{Ending, Turn, UpdateOutcome};
use duramen_core::primitives::step::StepOutcome;
use duramen_core::store::{NewMessage, NewRun, RunCommit, StoreError};
use duramen_engine::{Driven, Engine, HostEvent, Reply, RunDriver, Ticket, Token};

use crate::faults::{Facts, Faults};
use crate::lab::new_run;
use crate::toy::{Ctx, Flow, Job, Program, World, text};

struct Toy {
    ctx: Ctx,
    handler: Option<Job>,
}

/// One process.
pub struct Host {
    pub engine: Arc<Engine>,
    pub store: Arc<Faults>,
    facts: Arc<Facts>,
    pub program: Program,
    runs: BTreeMap<Ticket, Toy>,
    pub replies: BTreeMap<Token, Result<Reply, StoreError>>,
    /// Steps in flight that wait for the test.
    slow: Vec<(Ticket, Slot, String)>,
    /// Commits that a transaction of the user's has to carry out.
    pub sealed: Vec<(Ticket, RunCommit)>,
    /// How runs left this host's hands.
    pub ended: Vec<(RunId, Driven)>,
    pub evicted: Vec<Ticket>,
    pub lost_errors: Vec<Option<StoreError>>,
    pub resumed: usize,
    /// How often messages were brought to a driver.
    pub told: usize,
    /// How often it was told that runs wait for a newer build.
    pub newer: usize,
    /// Pages of long inboxes.
    pub pages: usize,
    pub driven: usize,
    /// A loop that is blocked, or a process that was stopped.
    pub stopped: bool,
    /// Steps that are called bad succeed.
    pub mended: bool,
    tokens: Token,
}

impl Host {
    pub fn new(engine: Arc<Engine>, store: Arc<Faults>, facts: Arc<Facts>) -> Self {
        Self {
            engine,
            store,
            facts,
            program: Rc::new(|ctx| Box::pin(async move { Ok(ctx.input()) })),
            runs: BTreeMap::new(),
            replies: BTreeMap::new(),
            slow: Vec::new(),
            sealed: Vec::new(),
            ended: Vec::new(),
            evicted: Vec::new(),
            lost_errors: Vec::new(),
            resumed: 0,
            told: 0,
            newer: 0,
            pages: 0,
            driven: 0,
            stopped: false,
            mended: false,
            tokens: 0,
        }
    }

    pub fn program<F>(&mut self, program: impl Fn(Ctx) -> F + 'static)
    where
        F: Future<Output = Flow> + 'static,
    {
        self.program = Rc::new(move |ctx| Box::pin(program(ctx)));
    }

    pub fn token(&mut self) -> Token {
        self.tokens += 1;
        self.tokens
    }

    pub fn start(&mut self, run_id: &str) -> Token {
        self.start_run(new_run(run_id))
    }

    pub fn start_run(&mut self, run: NewRun) -> Token {
        let token = self.token();
        self.engine.start(token, run);
        token
    }

    pub fn send(&mut self, message: NewMessage) -> Token {
        let token = self.token();
        self.engine.deliver(token, vec![message]);
        token
    }

    pub fn how(&self, run_id: &str) -> Vec<Driven> {
        let of_run = self.ended.iter().filter(|(run, _)| &**run == run_id);
        of_run.map(|(_, driven)| *driven).collect()
    }

    /// Handlers in memory, kept ones too.
    pub fn handlers(&self) -> usize {
        self.runs.len()
    }

    pub fn in_flight(&self) -> usize {
        self.slow.len()
    }

    pub fn is_in_flight(&self, op: &str) -> bool {
        self.slow.iter().any(|(_, _, name)| name == op)
    }

    /// The sweep that a run of this process was taken up by.
    pub fn sweep_of(&self, run_id: &str) -> Option<Token> {
        self.runs.values().find_map(|toy| {
            let driver = &toy.ctx.0.borrow().driver;
            let same = &*driver.machine.facts().run_id == run_id;
            same.then(|| driver.sweep()).flatten()
        })
    }

    /// A transaction has ended, or nobody knows how.
    pub fn sealed(&self, ticket: Ticket, applied: bool) {
        self.runs[&ticket].ctx.0.borrow_mut().driver.sealed(applied);
    }

    /// A slow step ends.
    pub fn complete(&mut self, op: &str) {
        let at = self.slow.iter().position(|(_, _, name)| name == op);
        let (ticket, slot, op) = self.slow.remove(at.expect("the step is in flight"));
        self.end_step(ticket, slot, &op);
        self.advance(ticket);
        self.engine.pipeline().flush();
    }

    pub fn complete_all(&mut self) {
        while let Some((_, _, op)) = self.slow.first().cloned() {
            self.complete(&op);
        }
    }

    /// The handler of one run cannot be driven any more.
    pub fn abandon(&mut self, run_id: &str) {
        for toy in self.runs.values() {
            let mut world = toy.ctx.0.borrow_mut();
            if &*world.driver.machine.facts().run_id == run_id {
                world.driver.abandon();
            }
        }
    }

    /// Handles everything that waits; false if nothing did.
    pub fn round(&mut self) -> bool {
        if self.stopped || self.store.dead.load(Ordering::Acquire) {
            return false;
        }
        let events = self.engine.host().drain();
        let moved = !events.is_empty();
        for event in events {
            self.handle(event);
        }
        self.engine.pipeline().flush();
        moved
    }

    pub fn handle(&mut self, event: HostEvent) {
        match event {
            HostEvent::Drive { ticket, run, clock } => {
                self.driven += 1;
                let driver = RunDriver::new(self.engine.clone(), ticket, *run, clock);
                let ctx = Ctx(Rc::new(RefCell::new(World {
                    driver,
                    results: BTreeMap::new(),
                    fresh: BTreeMap::new(),
                    cancelled: false,
                })));
                let handler = (self.program)(ctx.clone());
                let handler = Some(handler);
                self.runs.insert(ticket, Toy { ctx, handler });
                self.poll(ticket);
                self.advance(ticket);
            }
            HostEvent::Resume {
                ticket,
                row,
                inbox,
                inbox_more,
                clock,
            } => {
                self.resumed += 1;
                let toy = self.runs.get(&ticket).expect("a warm run has a handler");
                toy.ctx
                    .0
                    .borrow_mut()
                    .driver
                    .resume(&row, inbox, inbox_more, clock);
                self.advance(ticket);
            }
            HostEvent::Evict { ticket } => {
                self.evicted.push(ticket);
                self.drop_run(ticket);
            }
            HostEvent::Committed { ticket, outcome } => {
                let Some(toy) = self.runs.get(&ticket) else {
                    return;
                };
                let driven = toy.ctx.0.borrow_mut().driver.committed(&outcome);
                match driven {
                    None => self.advance(ticket),
                    Some(driven) => self.left(ticket, driven),
                }
            }
            HostEvent::Lost {
                ticket,
                epoch,
                error,
            } => {
                let Some(toy) = self.runs.get(&ticket) else {
                    return;
                };
                if toy.ctx.0.borrow_mut().driver.lost(epoch) {
                    self.lost_errors.push(error);
                    self.left(ticket, Driven::Lost);
                }
            }
            HostEvent::Messages { ticket, messages } => {
                self.told += 1;
                self.with(ticket, |driver| driver.deliver(messages));
            }
            HostEvent::Page {
                ticket,
                messages,
                more,
            } => {
                self.pages += 1;
                self.with(ticket, |driver| driver.deliver_page(messages, more));
            }
            HostEvent::Tick { ticket } => self.with(ticket, RunDriver::ticked),
            HostEvent::Yield { ticket } => self.with(ticket, duramen_engine::RunDriver::leave),
            HostEvent::Newer { .. } => self.newer += 1,
            HostEvent::Reply { token, reply } => {
                self.replies.insert(token, reply);
            }
        }
    }

    fn left(&mut self, ticket: Ticket, driven: Driven) {
        let run_id = {
            let world = self.runs[&ticket].ctx.0.borrow();
            world.driver.machine.facts().run_id.clone()
        };
        self.ended.push((run_id, driven));
        if driven == Driven::Paused {
            self.slow.retain(|(other, ..)| *other != ticket);
        } else {
            self.drop_run(ticket);
        }
    }

    fn drop_run(&mut self, ticket: Ticket) {
        self.slow.retain(|(other, ..)| *other != ticket);
        self.runs.remove(&ticket);
    }

    fn with(&mut self, ticket: Ticket, act: impl FnOnce(&mut RunDriver)) {
        let Some(toy) = self.runs.get(&ticket) else {
            return;
        };
        {
            let driver = &mut toy.ctx.0.borrow_mut().driver;
            if !driver.machine.is_driving() {
                return;
            }
            act(driver);
        }
        self.advance(ticket);
    }

    /// Lets the handler run until nothing is runnable.
    fn poll(&mut self, ticket: Ticket) {
        let Some(toy) = self.runs.get_mut(&ticket) else {
            return;
        };
        if !toy.ctx.0.borrow().driver.machine.is_driving() {
            return;
        }
        let Some(handler) = &mut toy.handler else {
            return;
        };
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(flow) = handler.as_mut().poll(&mut context) {
            toy.handler = None;
            let driver = &mut toy.ctx.0.borrow_mut().driver;
            let ending = match flow {
                Ok(output) => Ending::Completed(Payload::from(output)),
                Err(_) if driver.machine.was_cancelled() => Ending::Cancelled(Payload::new()),
                Err(error) => Ending::Failed {
                    // A failed step says its own name, and a run of these has one child: the failure that
                    // `retry` takes back.
                    op: match error.strip_prefix("failed: ") {
                        Some(_) => Some("child-1".to_owned()),
                        None => error.strip_suffix('!').map(str::to_owned),
                    },
                    error: Payload::from(error),
                },
            };
            let wall = driver.wall();
            let _ = driver.machine.finish(ending, wall);
        }
    }

    fn advance(&mut self, ticket: Ticket) {
        loop {
            let Some(toy) = self.runs.get(&ticket) else {
                return;
            };
            let ctx = toy.ctx.clone();
            let mut turn = ctx.0.borrow_mut().driver.turn();
            if let Turn::Offer { slot, message } = turn {
                let mut world = ctx.0.borrow_mut();
                world.fresh.insert(slot, message.payload);
                turn = world.driver.accept();
            }
            match turn {
                Turn::Deliver { slot, outcome, .. } => {
                    ctx.deliver(slot, outcome);
                    self.poll(ticket);
                }
                Turn::Start { slot, op, .. } => {
                    let run_id = ctx.0.borrow().driver.machine.facts().run_id.clone();
                    self.facts.starts(&run_id, &op);
                    if op.starts_with("tx") {
                        let result = Payload::from(format!("{op}!"));
                        let mut world = ctx.0.borrow_mut();
                        world.fresh.insert(slot, result.clone());
                        assert!(world.driver.machine.seal(slot, result));
                    } else if op.starts_with("slow") {
                        self.slow.push((ticket, slot, op.to_string()));
                    } else {
                        self.end_step(ticket, slot, &op);
                    }
                }
                Turn::Cancel { .. } | Turn::TimeOut { .. } => {
                    ctx.0.borrow_mut().cancelled = true;
                    self.poll(ticket);
                }
                Turn::Seal { commit, .. } => self.sealed.push((ticket, *commit)),
                Turn::Offer { .. } => panic!("offered twice"),
                // A toy answers with what it was given, and louder.
                Turn::Apply {
                    taker,
                    slot,
                    payload,
                    ..
                } => {
                    let mut world = ctx.0.borrow_mut();
                    let given = payload.or_else(|| world.fresh.remove(&taker));
                    let answer = format!("{}!", text(&given.unwrap_or_default()));
                    let outcome = UpdateOutcome::Succeeded(Payload::from(answer));
                    world.driver.machine.update_done(slot, outcome);
                }
                Turn::Idle => return,
            }
        }
    }

    fn end_step(&mut self, ticket: Ticket, slot: Slot, op: &str) {
        let Some(toy) = self.runs.get(&ticket) else {
            return;
        };
        let mut world = toy.ctx.0.borrow_mut();
        let result = Payload::from(format!("{op}!"));
        let outcome = if op.starts_with("bad") && !self.mended {
            StepOutcome::Failed {
                error: result,
                retryable: false,
            }
        } else {
            world.fresh.insert(slot, result.clone());
            StepOutcome::Succeeded(result)
        };
        world.driver.machine.step_done(slot, outcome);
    }
}
