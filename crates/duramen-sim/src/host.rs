//! One process: an engine, and a host that plays the role of Python's run host.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use duramen_core::ids::{Millis, Payload};
use duramen_core::inbox::Slot;
use duramen_core::machine::Turn;
use duramen_core::primitives::step::StepOutcome;
use duramen_core::store::StoreError;
use duramen_engine::{Driven, Engine, HostEvent, Reply, RunDriver, Ticket, Token};

use crate::desk::Desk;
use crate::facts::RunLife;
use crate::handler::{Handler, Port};
use crate::judge::Judge;
use crate::net::Net;
use crate::oracles::{self, Starting};
use crate::plan::Plant;
use crate::program::Program;
use crate::replay::ending;
use crate::world::{Attempt, Event, Life, ProcessId, World};

/// The program of each run.
pub type Programs = Rc<dyn Fn(&str) -> Option<Rc<Program>>>;

/// A run in this process.
struct Driving {
    desk: Rc<RefCell<Desk<RunDriver>>>,
    /// None once it has ended.
    handler: Option<Handler>,
    /// Results that the handler got before they had their places; for a planted fault.
    early: BTreeSet<Slot>,
    /// Outcomes of steps that started when they were asked for; for a planted fault.
    eager: BTreeSet<Slot>,
}

/// See the module's head.
pub struct Host {
    pub process: ProcessId,
    pub engine: Arc<Engine>,
    pub net: Arc<Net>,
    world: Arc<World>,
    judge: Arc<Judge>,
    plant: Plant,
    programs: Programs,
    runs: BTreeMap<Ticket, Driving>,
    /// Attempts that have ended and were not reported yet.
    arrived: Vec<Attempt>,
    pub replies: Vec<(Token, Result<Reply, StoreError>)>,
    pub blocked_until: Millis,
    pub lag: Millis,
    tokens: Token,
    /// When it last heard what became of a commit.
    heard: BTreeMap<RunLife, Millis>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

/// What a host is made of.
#[allow(missing_debug_implementations)] // taken apart at once
pub struct Parts {
    pub process: ProcessId,
    pub engine: Arc<Engine>,
    pub net: Arc<Net>,
    pub world: Arc<World>,
    pub judge: Arc<Judge>,
    pub plant: Plant,
    pub programs: Programs,
    pub lag: Millis,
}

impl Host {
    pub fn new(parts: Parts) -> Self {
        Self {
            process: parts.process,
            engine: parts.engine,
            net: parts.net,
            world: parts.world,
            judge: parts.judge,
            plant: parts.plant,
            programs: parts.programs,
            runs: BTreeMap::new(),
            arrived: Vec::new(),
            replies: Vec::new(),
            blocked_until: 0,
            lag: parts.lag,
            tokens: 0,
            heard: BTreeMap::new(),
        }
    }

    /// Whether a life of a run is driven here, and if so in which epoch.
    pub fn drives(&self, life: &RunLife) -> Option<i64> {
        self.runs.values().find_map(|driving| {
            let desk = driving.desk.borrow();
            let facts = desk.driver.machine.facts();
            (desk.life() == *life).then_some(facts.epoch)
        })
    }

    /// When it last heard what became of a commit of that life.
    pub fn heard_of(&self, life: &RunLife) -> Option<Millis> {
        self.heard.get(life).copied()
    }

    fn hears(&mut self, ticket: Ticket) {
        if let Some(driving) = self.runs.get(&ticket) {
            let life = driving.desk.borrow().life();
            self.heard.insert(life, self.world.now());
        }
    }

    pub fn token(&mut self) -> Token {
        self.tokens += 1;
        self.tokens
    }

    /// A step's attempt has ended; the host reports it when it comes round.
    pub fn attempt_ended(&mut self, attempt: Attempt) {
        self.arrived.push(attempt);
        self.world.wake_host(self.process);
    }

    fn is_alive(&self) -> bool {
        self.world.life(self.process) != Life::Dead
    }

    /// Handles everything that waits.
    pub fn round(&mut self) {
        let events_first = self.world.chance(|rng| rng.one_in(2));
        if events_first {
            self.handle_all();
        }
        let arrived = std::mem::take(&mut self.arrived);
        if self.plant == Plant::ArrivalOrder {
            self.report_at_once(&arrived);
        }
        for attempt in arrived {
            self.report(&attempt);
            self.advance(attempt.ticket);
        }
        if !events_first {
            self.handle_all();
        }
        if self.is_alive() {
            self.engine.pipeline().flush();
        }
        if self.lag > 0 {
            let lag = self.world.chance(|rng| rng.span(0, self.lag));
            self.blocked_until = self.blocked_until.max(self.world.now() + lag);
        }
    }

    fn handle_all(&mut self) {
        for event in self.engine.host().drain() {
            if !self.is_alive() {
                return;
            }
            self.handle(event);
        }
    }

    fn handle(&mut self, event: HostEvent) {
        match event {
            HostEvent::Drive { ticket, run, clock } => {
                let Some(program) = (self.programs)(&run.row.run_id) else {
                    return;
                };
                let driver = RunDriver::new(Arc::clone(&self.engine), ticket, *run, clock);
                let desk = Rc::new(RefCell::new(Desk::new(driver)));
                let port = Rc::clone(&desk) as Rc<RefCell<dyn Port>>;
                let handler = Some(Handler::new(&program, port));
                let driving = Driving {
                    desk,
                    handler,
                    early: BTreeSet::new(),
                    eager: BTreeSet::new(),
                };
                self.runs.insert(ticket, driving);
                self.drain(ticket);
                self.advance(ticket);
            }
            HostEvent::Resume {
                ticket,
                row,
                inbox,
                inbox_more,
                clock,
            } => {
                let Some(driving) = self.runs.get(&ticket) else {
                    let what = format!("{} is resumed without a handler", row.run_id);
                    self.judge.facts().judge(oracles::ENDS, Err(what));
                    return;
                };
                let mut desk = driving.desk.borrow_mut();
                desk.driver.resume(&row, inbox, inbox_more, clock);
                drop(desk);
                self.advance(ticket);
            }
            HostEvent::Evict { ticket } => {
                self.runs.remove(&ticket);
            }
            // For people alone.
            HostEvent::Newer { .. } => {}
            HostEvent::Committed { ticket, outcome } => {
                self.hears(ticket);
                let Some(driving) = self.runs.get(&ticket) else {
                    return;
                };
                let driven = driving.desk.borrow_mut().driver.committed(&outcome);
                match driven {
                    None => self.advance(ticket),
                    Some(driven) => self.left(ticket, driven),
                }
            }
            HostEvent::Lost { ticket, epoch, .. } => {
                self.hears(ticket);
                let Some(driving) = self.runs.get(&ticket) else {
                    return;
                };
                if driving.desk.borrow_mut().driver.lost(epoch) {
                    self.left(ticket, Driven::Lost);
                }
            }
            HostEvent::Messages { ticket, messages } => {
                self.with(ticket, |driver| driver.deliver(messages));
            }
            HostEvent::Page {
                ticket,
                messages,
                more,
            } => self.with(ticket, |driver| driver.deliver_page(messages, more)),
            HostEvent::Tick { ticket } => self.with(ticket, RunDriver::ticked),
            HostEvent::Yield { ticket } => self.with(ticket, RunDriver::leave),
            HostEvent::Reply { token, reply } => self.replies.push((token, reply)),
        }
    }

    /// The run is out of these hands; a paused one may come back to its handler.
    fn left(&mut self, ticket: Ticket, driven: Driven) {
        if let Some(driving) = self.runs.get(&ticket) {
            let (process, run) = (self.process, driving.desk.borrow().run_id.clone());
            self.world
                .note(|| format!("p{process} is done with {run}: {}", driven.name()));
        }
        if driven != Driven::Paused {
            self.runs.remove(&ticket);
        }
    }

    fn with(&mut self, ticket: Ticket, act: impl FnOnce(&mut RunDriver)) {
        let Some(driving) = self.runs.get(&ticket) else {
            return;
        };
        {
            let driver = &mut driving.desk.borrow_mut().driver;
            if !driver.machine.is_driving() {
                return;
            }
            act(driver);
        }
        self.advance(ticket);
    }

    /// Lets the handler run until nothing is runnable.
    fn drain(&mut self, ticket: Ticket) {
        let Some(driving) = self.runs.get_mut(&ticket) else {
            return;
        };
        let Some(handler) = &mut driving.handler else {
            return;
        };
        if !driving.desk.borrow().driver.machine.is_driving() {
            return;
        }
        if let Some(flow) = handler.drain() {
            driving.handler = None;
            let driver = &mut driving.desk.borrow_mut().driver;
            let wall = driver.wall();
            // A halt parks the run; the oracles see that.
            let ending = ending(&flow, &driver.machine);
            let _ = driver.machine.finish(ending, wall);
        }
        self.tell(ticket);
        if self.plant == Plant::BarrierOff {
            self.start_early(ticket);
        }
    }

    /// Tells the oracles what the handler has learnt.
    fn tell(&self, ticket: Ticket) {
        let Some(driving) = self.runs.get(&ticket) else {
            return;
        };
        let mut desk = driving.desk.borrow_mut();
        let epoch = desk.driver.machine.facts().epoch;
        let mut facts = self.judge.facts();
        for seen in std::mem::take(&mut desk.seen) {
            facts.saw(desk.life(), epoch, seen);
        }
    }

    fn advance(&mut self, ticket: Ticket) {
        while self.is_alive() {
            let Some(desk) = self.runs.get(&ticket).map(|run| Rc::clone(&run.desk)) else {
                return;
            };
            let before = desk.borrow().driver.machine.journal_len();
            let turn = self.next_turn(&desk);
            let Some(driving) = self.runs.get_mut(&ticket) else {
                return;
            };
            match turn {
                Turn::Deliver { slot, outcome, .. } => {
                    if driving.early.remove(&slot) {
                        continue; // the planted fault has delivered it long ago
                    }
                    desk.borrow_mut().deliver(slot, outcome, before);
                    self.drain(ticket);
                }
                Turn::Start { slot, op, attempt } => {
                    // The planted fault has started it long ago.
                    if !driving.eager.remove(&slot) {
                        self.start(ticket, slot, &op, attempt);
                    }
                    self.perform(ticket, slot, &op, attempt);
                }
                Turn::Cancel { .. } | Turn::TimeOut { .. } => {
                    let what = match turn {
                        Turn::Cancel { .. } => "cancelled",
                        _ => "timed out",
                    };
                    desk.borrow_mut().interrupt(what, before);
                    if let Some(handler) = &driving.handler {
                        handler.cancel();
                    }
                    self.drain(ticket);
                }
                // Nothing is sealed or applied here: the simulated handlers have no transactions of their own,
                // and take no updates.
                Turn::Offer { .. } | Turn::Apply { .. } | Turn::Seal { .. } => {}
                Turn::Idle => return,
            }
        }
    }

    /// The next thing to do. A message is accepted, or set aside if it does not fit.
    fn next_turn(&self, desk: &Rc<RefCell<Desk<RunDriver>>>) -> Turn {
        let mut desk = desk.borrow_mut();
        let turn = if self.plant == Plant::LeaseIgnored {
            let wall = desk.driver.wall();
            match desk.driver.machine.turn(wall) {
                Turn::Idle => desk.driver.turn(),
                turn => turn,
            }
        } else {
            desk.driver.turn()
        };
        let Turn::Offer { slot, message } = turn else {
            return turn;
        };
        if oracles::is_unfit(&oracles::text(&message.payload)) {
            desk.driver.machine.refuse("it does not fit".into());
            return Turn::Offer { slot, message };
        }
        desk.fresh.insert(slot, message.payload);
        desk.driver.accept()
    }

    /// A step's effect begins: the oracles look whether it may.
    fn start(&self, ticket: Ticket, slot: Slot, op: &str, number: u32) {
        let Some(driving) = self.runs.get(&ticket) else {
            return;
        };
        let desk = driving.desk.borrow();
        let (run_id, epoch) = (desk.run_id.clone(), desk.driver.machine.facts().epoch);
        let life = desk.life();
        let asked_at = desk.asked.get(&slot).map_or(0, |asked| asked.asked_at);
        let (process, now) = (self.process, self.world.now());
        self.world.note(|| {
            format!("p{process} starts {op} of {run_id}, attempt {number}, epoch {epoch}")
        });
        let starting = Starting {
            epoch,
            op: op.to_owned(),
            attempt: number,
            asked_at,
            now,
        };
        let mut facts = self.judge.facts();
        let facts = &mut *facts;
        let run = facts.lives.entry(life).or_default();
        let once = oracles::an_effect_completes_once(run, &starting);
        let barrier = oracles::an_effect_waits_for_what_came_before(run, &starting);
        let lease = oracles::no_step_starts_after_its_lease(run, &facts.owners, &starting);
        facts.judge(oracles::EFFECTS_ONCE, once);
        facts.judge(oracles::BARRIER, barrier);
        facts.judge(oracles::LEASE, lease);
    }

    /// It goes on until it ends.
    fn perform(&mut self, ticket: Ticket, slot: Slot, op: &str, number: u32) {
        let Some(driving) = self.runs.get(&ticket) else {
            return;
        };
        let run_id = driving.desk.borrow().run_id.clone();
        let takes = (self.programs)(&run_id)
            .and_then(|program| program.step(op).map(|step| step.takes))
            .unwrap_or(0);
        let execution = {
            let mut facts = self.judge.facts();
            facts.counts.steps += 1;
            facts.counts.steps
        };
        let attempt = Attempt {
            ticket,
            slot,
            op: op.into(),
            number,
            execution,
        };
        if takes == 0 {
            // It ends before the host does anything else.
            self.report(&attempt);
        } else {
            let end = Event::Step(self.process, attempt);
            self.world.at(self.world.now() + takes, end);
        }
    }

    /// Tells the machine how an attempt ended.
    fn report(&mut self, attempt: &Attempt) {
        let Some(driving) = self.runs.get(&attempt.ticket) else {
            return;
        };
        let mut desk = driving.desk.borrow_mut();
        let Some((outcome, text)) = self.outcome(&desk.run_id, attempt) else {
            return;
        };
        let op = &attempt.op;
        self.judge
            .facts()
            .life(desk.life())
            .came_out(op, attempt.number, &text);
        if let StepOutcome::Succeeded(result) = &outcome {
            desk.fresh.insert(attempt.slot, result.clone());
        }
        desk.driver.machine.step_done(attempt.slot, outcome);
    }

    fn outcome(&self, run_id: &str, attempt: &Attempt) -> Option<(StepOutcome, String)> {
        let program = (self.programs)(run_id)?;
        let step = program.step(&attempt.op)?;
        let (op, number, execution) = (&attempt.op, attempt.number, attempt.execution);
        Some(if number <= step.fails {
            let text = format!("{op}/{number} failed in execution {execution}");
            let outcome = StepOutcome::Failed {
                error: Payload::from(text.clone()),
                retryable: !step.fatal,
            };
            (outcome, text)
        } else {
            let text = format!("{op} done in execution {execution}");
            (StepOutcome::Succeeded(Payload::from(text.clone())), text)
        })
    }

    /// Planted: every handler gets all that has arrived for it in one drain.
    fn report_at_once(&mut self, arrived: &[Attempt]) {
        let mut touched = BTreeSet::new();
        for attempt in arrived {
            let Some(driving) = self.runs.get(&attempt.ticket) else {
                continue;
            };
            let run_id = driving.desk.borrow().run_id.clone();
            if let Some((StepOutcome::Succeeded(result), _)) = self.outcome(&run_id, attempt)
                && let Some(driving) = self.runs.get_mut(&attempt.ticket)
            {
                driving
                    .desk
                    .borrow_mut()
                    .deliver_early(attempt.slot, &result);
                driving.early.insert(attempt.slot);
                touched.insert(attempt.ticket);
            }
        }
        // Their places come first, so that the machine still knows the operations.
        for attempt in arrived {
            self.report(attempt);
        }
        for ticket in touched {
            self.drain(ticket);
        }
    }

    /// Planted: what the handler has just asked for starts, whatever is durable.
    fn start_early(&mut self, ticket: Ticket) {
        let Some(driving) = self.runs.get_mut(&ticket) else {
            return;
        };
        let mut desk = driving.desk.borrow_mut();
        let fresh = std::mem::take(&mut desk.fresh_requests);
        if desk.driver.machine.is_replaying() || !desk.driver.machine.is_driving() {
            return;
        }
        let steps: Vec<_> = fresh
            .into_iter()
            .filter_map(|slot| Some((slot, desk.asked.get(&slot)?.op.clone())))
            .collect();
        drop(desk);
        for (slot, op) in steps {
            self.start(ticket, slot, &op, 1);
            if let Some(driving) = self.runs.get_mut(&ticket) {
                driving.eager.insert(slot);
            }
        }
    }
}
