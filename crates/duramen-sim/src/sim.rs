//! Plays a plan: the real engines in their processes over the real store, one thing after the other.

mod clients;
mod ends;
mod lost;
mod machine;
mod processes;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use duramen_core::ids::Millis;
use duramen_engine::{Reply, SweepReport, Token};

use crate::host::{Host, Programs};
use crate::judge::Judge;
use crate::oracles::{self, Counts, Violation};
use crate::plan::{Deed, Plan, SlotPlan};
use crate::program::{Program, child};
use crate::rng::Rng;
use crate::watch::Watch;
use crate::world::{Event, ProcessId, Runnable, World};

/// How long runs may take to end once nothing goes wrong any more.
const REST: Millis = 900_000;
/// How many things may happen in one simulation.
const MOST_STEPS: u64 = 100_000;

/// How a simulation went.
#[derive(Debug)]
pub struct Verdict {
    pub violation: Option<Violation>,
    pub counts: Counts,
    pub trace: Vec<String>,
}

struct Slot {
    plan: SlotPlan,
    /// The process that is there now.
    host: Option<ProcessId>,
    lives: u32,
}

/// See the module's head.
struct Sim {
    plan: Plan,
    world: Arc<World>,
    judge: Arc<Judge>,
    programs: Programs,
    by_run: Vec<Rc<Program>>,
    slots: Vec<Slot>,
    hosts: BTreeMap<ProcessId, Host>,
    /// Requests that nobody has answered: by process and token, the action's number.
    asked: BTreeMap<(ProcessId, Token), usize>,
    sweeps: BTreeMap<(ProcessId, Token), (usize, [usize; 3])>,
    /// Actions that were answered, and how often each was tried.
    answered: Vec<bool>,
    tries: Vec<usize>,
    /// For a simulation over SQLite.
    machine: Option<machine::Machine>,
    calm: bool,
    done: bool,
    finales: u32,
    /// Answers that were lost and are to be followed up.
    watches: Vec<Watch>,
    /// Until when a stranger holds something.
    held_until: Millis,
    crashes: u64,
    zombies: u64,
    faults: u64,
    power_cuts: u64,
}

/// Plays a plan to its end, or until a rule is broken.
pub fn play(plan: &Plan, traced: bool) -> Verdict {
    let mut rng = Rng::new(plan.seed ^ 0x5eed);
    let world = World::new(rng.fork(), traced);
    let (store, machine) = match machine::Machine::boot(plan, rng.fork()) {
        Ok(booted) => booted,
        Err(what) => {
            let rule = oracles::NOTHING_LOST;
            return Verdict {
                violation: Some(Violation { rule, what }),
                counts: Counts::default(),
                trace: Vec::new(),
            };
        }
    };
    let judge = Judge::new(store, Arc::clone(&world), plan.plant);
    let by_run: Vec<Rc<Program>> = plan
        .runs
        .iter()
        .map(|run| Rc::new(run.program.clone()))
        .collect();
    let programs = {
        let by_run = by_run.clone();
        Rc::new(move |run_id: &str| {
            if run_id.contains('/') {
                return Some(child(run_id));
            }
            let number: usize = run_id.strip_prefix('r')?.parse().ok()?;
            by_run.get(number).cloned()
        })
    };
    let mut sim = Sim {
        slots: plan
            .slots
            .iter()
            .map(|slot| Slot {
                plan: slot.clone(),
                host: None,
                lives: 0,
            })
            .collect(),
        answered: vec![false; plan.actions.len()],
        tries: vec![0; plan.actions.len()],
        plan: plan.clone(),
        world,
        judge,
        programs,
        by_run,
        hosts: BTreeMap::new(),
        asked: BTreeMap::new(),
        sweeps: BTreeMap::new(),
        machine,
        calm: false,
        done: false,
        finales: 0,
        watches: Vec::new(),
        held_until: 0,
        crashes: 0,
        zombies: 0,
        faults: 0,
        power_cuts: 0,
    };
    sim.run();
    sim.verdict()
}

impl Sim {
    fn run(&mut self) {
        for slot in 0..self.slots.len() {
            self.boot(slot);
        }
        for number in 0..self.plan.actions.len() {
            let at = self.plan.actions[number].at;
            self.world.at(at, Event::Deed(Deed::Action(number)));
        }
        self.world.at(self.plan.calm_at, Event::Deed(Deed::Calm));
        let limit = self.plan.calm_at + REST;
        let mut steps = 0_u64;
        while !self.done && !self.is_broken() {
            steps += 1;
            if steps > MOST_STEPS {
                let what = "something goes on without end".to_owned();
                self.judge.facts().judge(oracles::ENDS, Err(what));
            }
            if let Some(event) = self.world.next_now() {
                self.happen(event);
            } else if !self.run_something() {
                let Some(event) = self.world.next(limit) else {
                    break;
                };
                self.happen(event);
            }
            self.follow_up();
            self.bury_the_dead();
            self.survive_power_cuts();
        }
        if !self.done && !self.is_broken() {
            self.give_up();
        }
        if !self.is_broken() {
            self.check_ends();
        }
    }

    fn is_broken(&self) -> bool {
        self.judge.facts().violation.is_some()
    }

    fn run_something(&mut self) -> bool {
        let now = self.world.now();
        let hosts = &self.hosts;
        let blocked = |process| {
            hosts
                .get(&process)
                .is_none_or(|host| host.blocked_until > now)
        };
        match self.world.choose(blocked) {
            None => return false,
            Some(Runnable::Task(process)) => self.world.run_task(process),
            Some(Runnable::Host(process)) => self.round(process),
        }
        true
    }

    fn round(&mut self, process: ProcessId) {
        let Some(host) = self.hosts.get_mut(&process) else {
            return;
        };
        host.round();
        if host.blocked_until > self.world.now() {
            let nudge = Event::Deed(Deed::Nudge);
            self.world.at(host.blocked_until, nudge);
        }
        for (token, reply) in std::mem::take(&mut host.replies) {
            if let Some(number) = self.asked.remove(&(process, token))
                && reply.as_ref().is_ok_and(clients::answers)
            {
                self.answered[number] = true;
            }
            if let Some((limit, most)) = self.sweeps.remove(&(process, token))
                && let Ok(Reply::Swept(report)) = reply
            {
                self.swept(&report, limit, most);
            }
        }
    }

    fn swept(&mut self, report: &SweepReport, limit: usize, most: [usize; 3]) {
        let found = [
            report.recovered.len(),
            report.timers.len(),
            report.queued.len(),
        ];
        let mut facts = self.judge.facts();
        facts.counts.sweeps += 1;
        let kept = oracles::a_sweep_keeps_its_limits(found, most, limit);
        facts.judge(oracles::BUDGETS, kept);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Arrive(call) => {
                let back = call.arrive();
                self.world.at(self.world.now() + back, Event::Answer(call));
            }
            Event::Answer(call) => {
                let process = call.process();
                if let Some(Event::Answer(call)) = self.world.defer(process, Event::Answer(call)) {
                    call.answer();
                }
            }
            Event::Step(process, attempt) => {
                let event = self.world.defer(process, Event::Step(process, attempt));
                if let Some(Event::Step(process, attempt)) = event
                    && let Some(host) = self.hosts.get_mut(&process)
                {
                    host.attempt_ended(attempt);
                }
            }
            Event::Deed(deed) => self.act(deed),
        }
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Action(number) => self.action(number),
            Deed::Sweep(slot, process) => self.sweep(slot, process),
            Deed::GoOn(process) => {
                self.world.note(|| format!("p{process} goes on"));
                self.world.go_on(process);
            }
            Deed::Restart(slot) => self.boot(slot),
            Deed::Close(process) => self.close(process),
            Deed::Gone(process) => self.crash(process),
            Deed::Watch(number) => self.look_after(number),
            Deed::Calm => self.becalm(),
            Deed::Look => self.look(),
            Deed::Nudge => {}
        }
    }

    fn verdict(mut self) -> Verdict {
        // Whoever is left at the end has not crashed.
        let crashes = self.crashes;
        let left: Vec<ProcessId> = self.hosts.keys().copied().collect();
        let lost: u64 = self
            .hosts
            .values()
            .map(|host| host.engine.counters().lost.load(Ordering::Relaxed))
            .sum();
        self.world
            .note(|| format!("over; {lost} runs were lost to others"));
        let trace = self.world.take_trace();
        for process in left {
            self.crash(process);
        }
        self.world.end();
        if let Some(machine) = self.machine.take() {
            let (met, cuts) = machine.end();
            self.faults += met;
            self.power_cuts = cuts;
        }
        let facts = self.judge.facts();
        let mut counts = facts.counts;
        counts.crashes = crashes;
        counts.zombies = self.zombies;
        counts.faults = self.faults;
        counts.power_cuts = self.power_cuts;
        Verdict {
            violation: facts.violation.clone(),
            counts,
            trace,
        }
    }
}
