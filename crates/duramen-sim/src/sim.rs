//! Plays a plan: the real engines in their processes over the real store, one thing after the other.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::run::Status;
use duramen_core::store::{Delivery, MessageKind, NewMessage, NewRun, Start, Store, WorkflowKey};
use duramen_engine::{Config, Engine, HostQueue, Reply, SweepOptions, SweepReport, Token};
use duramen_store_memory::MemoryStore;

use crate::host::{Host, Parts, Programs};
use crate::judge::Judge;
use crate::model;
use crate::net::{Net, Weather, settled};
use crate::oracles::{self, Counts, Violation};
use crate::plan::{Action, Deed, Mode, Plan, SlotPlan, Via, What};
use crate::program::Program;
use crate::replay::replay_equals_the_first_pass;
use crate::rng::Rng;
use crate::world::{Event, Life, ProcessEnv, ProcessId, Runnable, World};

/// After so long without an answer a client asks again.
const PATIENCE: Millis = 2_500;
/// How long runs may take to end once nothing goes wrong any more.
const REST: Millis = 900_000;
/// How many things may happen in one simulation.
const MOST_STEPS: u64 = 100_000;
const LOOK: Millis = 250;

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
    calm: bool,
    done: bool,
    finales: u32,
    crashes: u64,
    zombies: u64,
    faults: u64,
}

/// Plays a plan to its end, or until a rule is broken.
pub fn play(plan: &Plan, traced: bool) -> Verdict {
    let mut rng = Rng::new(plan.seed ^ 0x5eed);
    let world = World::new(rng.fork(), traced);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let judge = Judge::new(store, Arc::clone(&world), plan.plant);
    let by_run: Vec<Rc<Program>> = plan
        .runs
        .iter()
        .map(|run| Rc::new(run.program.clone()))
        .collect();
    let programs = {
        let by_run = by_run.clone();
        Rc::new(move |run_id: &str| {
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
        calm: false,
        done: false,
        finales: 0,
        crashes: 0,
        zombies: 0,
        faults: 0,
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
            self.bury_the_dead();
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
                && reply.is_ok()
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
            Deed::Close(process) => self.crash(process),
            Deed::Calm => self.becalm(),
            Deed::Look => self.look(),
            Deed::Nudge => {}
        }
    }

    /// A new process in a slot, unless one is there.
    fn boot(&mut self, number: usize) {
        let Some(slot) = self.slots.get_mut(number) else {
            return;
        };
        if slot.host.is_some() {
            return;
        }
        let life = slot.lives;
        slot.lives += 1;
        let plan = slot.plan.clone();
        let mut weather = Weather {
            latency: plan.latency,
            ..Weather::default()
        };
        if !self.calm {
            weather.outages.clone_from(&self.plan.outages);
            for fault in plan.faults.iter().filter(|fault| fault.life == life) {
                let key = (fault.method, fault.number);
                weather.faults.insert(key, fault.fault);
            }
        }
        let process = self.world.process();
        slot.host = Some(process);
        self.world
            .note(|| format!("p{process} starts in slot {number}"));
        let net = Net::new(
            Arc::clone(&self.judge) as Arc<dyn Store>,
            Arc::clone(&self.world),
            process,
            weather,
        );
        let env = Arc::new(ProcessEnv {
            world: Arc::clone(&self.world),
            process,
            skew: plan.skew,
        });
        let (waker, clock) = (Arc::clone(&self.world), Arc::clone(&self.world));
        let queue = Arc::new(HostQueue::with_clock(
            Box::new(move || waker.wake_host(process)),
            move || clock.now() + plan.skew,
        ));
        let config = Config {
            owner: format!("p{process}"),
            lease: plan.lease,
            hold: plan.hold,
            warm: plan.warm,
            shared_store: true,
        };
        let engine = Engine::new(Arc::clone(&net) as Arc<dyn Store>, env, queue, config);
        engine.register(vec![WorkflowKey {
            name: "w".into(),
            version: "1".into(),
        }]);
        match plan.mode {
            Mode::Worker {
                concurrency,
                poll_min,
                poll_max,
            } => engine.work(concurrency, poll_min, poll_max),
            Mode::Sweeper { every, .. } => {
                let sweep = Event::Deed(Deed::Sweep(number, process));
                self.world.at(self.world.now() + every, sweep);
            }
            Mode::Starter => {}
        }
        let host = Host::new(Parts {
            process,
            engine,
            net,
            world: Arc::clone(&self.world),
            judge: Arc::clone(&self.judge),
            plant: self.plan.plant,
            programs: Rc::clone(&self.programs),
            lag: plan.lag,
        });
        self.hosts.insert(process, host);
    }

    fn sweep(&mut self, number: usize, process: ProcessId) {
        let Some(slot) = self.slots.get(number) else {
            return;
        };
        let Mode::Sweeper {
            every,
            limit,
            most,
            within,
        } = slot.plan.mode
        else {
            return;
        };
        if slot.host != Some(process) {
            return;
        }
        let again = Event::Deed(Deed::Sweep(number, process));
        self.world.at(self.world.now() + every, again);
        if self.world.life(process) != Life::Running {
            return;
        }
        let Some(host) = self.hosts.get_mut(&process) else {
            return;
        };
        let token = host.token();
        self.sweeps.insert((process, token), (limit, most));
        let options = SweepOptions {
            limit,
            max_recovered: most[0],
            max_timers: most[1],
            max_queued: most[2],
            deadline: within.map(|span| host.engine.now() + span),
            min_remaining: 1,
            now: None,
            max_bytes: None,
        };
        host.engine.sweep(token, options);
    }

    fn bury_the_dead(&mut self) {
        let dead: Vec<ProcessId> = self
            .hosts
            .keys()
            .copied()
            .filter(|process| self.world.life(*process) == Life::Dead)
            .collect();
        for process in dead {
            self.crash(process);
            // A fault of the store has killed it: somebody starts it again.
            if let Some(slot) = self.slots.iter().position(|slot| slot.host.is_none()) {
                let restart = Event::Deed(Deed::Restart(slot));
                self.world.at(self.world.now() + 200, restart);
            }
        }
    }

    /// Whatever a process had in memory is gone.
    fn crash(&mut self, process: ProcessId) {
        self.world.kill(process);
        if let Some(host) = self.hosts.remove(&process) {
            self.world.note(|| format!("p{process} is gone"));
            self.crashes += 1;
            self.faults += host.net.met();
            let engine = Arc::clone(&host.engine);
            drop(host);
            self.world.bury(process);
            drop(engine);
        }
        for slot in &mut self.slots {
            if slot.host == Some(process) {
                slot.host = None;
            }
        }
    }

    fn action(&mut self, number: usize) {
        let Some(Action { what, .. }) = self.plan.actions.get(number).cloned() else {
            return;
        };
        match what {
            What::Create { .. } | What::Send { .. } => self.request(number, &what),
            _ if self.calm => {}
            What::Crash { slot, down } => {
                if let Some(process) = self.host_of(slot) {
                    self.crash(process);
                    let restart = Event::Deed(Deed::Restart(slot));
                    self.world.at(self.world.now() + down, restart);
                }
            }
            What::Stop { slot, down } => {
                if let Some(process) = self.host_of(slot)
                    && self.world.life(process) == Life::Running
                {
                    self.world
                        .note(|| format!("p{process} is stopped for {down} ms"));
                    self.world.stop(process);
                    self.zombies += u64::from(down > self.slots[slot].plan.lease);
                    let go_on = Event::Deed(Deed::GoOn(process));
                    self.world.at(self.world.now() + down, go_on);
                }
            }
            What::Block { slot, down } => {
                if let Some(process) = self.host_of(slot)
                    && let Some(host) = self.hosts.get_mut(&process)
                {
                    self.world
                        .note(|| format!("p{process} blocks its loop for {down} ms"));
                    host.blocked_until = self.world.now() + down;
                    let nudge = Event::Deed(Deed::Nudge);
                    self.world.at(host.blocked_until, nudge);
                }
            }
            What::Yield { slot } => {
                if let Some(engine) = self.engine_of(slot) {
                    self.world.note(|| format!("slot {slot} yields"));
                    engine.yield_all();
                }
            }
            What::Leave { slot, down } => {
                if let Some(engine) = self.engine_of(slot)
                    && let Some(process) = self.host_of(slot)
                {
                    self.world.note(|| format!("p{process} is told to leave"));
                    engine.stop_work();
                    engine.yield_all();
                    let now = self.world.now();
                    self.world.at(now + down, Event::Deed(Deed::Close(process)));
                    self.world
                        .at(now + down + 1, Event::Deed(Deed::Restart(slot)));
                }
            }
        }
    }

    fn host_of(&self, slot: usize) -> Option<ProcessId> {
        self.slots.get(slot)?.host
    }

    /// The engine of a slot whose process runs now.
    fn engine_of(&self, slot: usize) -> Option<Arc<Engine>> {
        let process = self.host_of(slot)?;
        if self.world.life(process) != Life::Running {
            return None;
        }
        Some(Arc::clone(&self.hosts.get(&process)?.engine))
    }

    /// A client asks, and asks again until it is answered: ids make that safe.
    fn request(&mut self, number: usize, what: &What) {
        if self.answered[number] {
            return;
        }
        self.tries[number] += 1;
        let via = match what {
            What::Create { via, .. } | What::Send { via, .. } => *via,
            _ => Via::Direct,
        };
        let again = Event::Deed(Deed::Action(number));
        match via {
            Via::Slot(slot) if !self.calm => {
                // Another process each time.
                let slot = (slot + self.tries[number] - 1) % self.slots.len();
                self.world.at(self.world.now() + PATIENCE, again);
                if let Some(engine) = self.engine_of(slot)
                    && let Some(process) = self.host_of(slot)
                    && let Some(host) = self.hosts.get_mut(&process)
                {
                    let token = host.token();
                    self.asked.insert((process, token), number);
                    match what {
                        What::Create { run, driven, .. } if *driven => {
                            engine.start(token, self.new_run(*run));
                        }
                        What::Create { run, .. } => {
                            engine.create(token, vec![self.new_run(*run)]);
                        }
                        other => {
                            if let Some(message) = message(other) {
                                engine.deliver(token, vec![message]);
                            }
                        }
                    }
                }
            }
            Via::Slot(_) | Via::Direct => {
                self.answered[number] = true;
                match what {
                    What::Create { run, .. } => {
                        let run = self.new_run(*run);
                        // The judge sees the answer.
                        let _ = settled(self.judge.create(vec![run]));
                    }
                    other => {
                        if let Some(message) = message(other) {
                            let _ = settled(self.judge.deliver(vec![message]));
                        }
                    }
                }
            }
        }
    }

    fn new_run(&self, number: usize) -> NewRun {
        let plan = self.plan.runs.get(number);
        let byte = u8::try_from(number % 251).unwrap_or(0);
        NewRun {
            run_id: format!("r{number}").into(),
            workflow: "w".into(),
            version: "1".into(),
            input: Payload::from(format!("input {number}")),
            start: Start::Queued { at: None },
            tags: Vec::new(),
            memo: None,
            timeout: plan.and_then(|run| run.timeout),
            seed: [byte; 16],
            now: None,
        }
    }

    /// Nothing goes wrong any more: everybody who stopped goes on, who is gone comes back.
    fn becalm(&mut self) {
        self.calm = true;
        self.world.note(|| "calm".to_owned());
        for host in self.hosts.values_mut() {
            host.net.calm();
            host.lag = 0;
            self.world.go_on(host.process);
        }
        for number in 0..self.slots.len() {
            self.boot(number);
        }
        // One that takes whatever is due, for those that would not.
        self.slots.push(Slot {
            plan: SlotPlan {
                mode: Mode::Worker {
                    concurrency: 10,
                    poll_min: 20,
                    poll_max: 500,
                },
                lease: 1_000,
                hold: 0,
                warm: 4,
                skew: 0,
                latency: 0,
                lag: 0,
                faults: Vec::new(),
            },
            host: None,
            lives: 0,
        });
        self.boot(self.slots.len() - 1);
        for number in 0..self.plan.actions.len() {
            let what = &self.plan.actions[number].what;
            if matches!(what, What::Create { .. } | What::Send { .. }) {
                let again = Event::Deed(Deed::Action(number));
                self.world.at(self.world.now(), again);
            }
        }
        self.world
            .at(self.world.now() + LOOK, Event::Deed(Deed::Look));
    }

    fn run_ids(&self) -> Vec<RunId> {
        (0..self.plan.runs.len())
            .map(|number| RunId::from(format!("r{number}")))
            .collect()
    }

    /// Whether all runs have ended; those that legitimately wait get what they wait for.
    fn look(&mut self) {
        let mut ended = true;
        for run_id in self.run_ids() {
            let Some(row) = self.judge.row(&run_id) else {
                ended = false;
                continue;
            };
            if row.status.is_final() {
                continue;
            }
            ended = false;
            if row.status == Status::Waiting && row.ready_at.is_none() {
                let mut facts = self.judge.facts();
                let found = oracles::every_run_ends_or_waits(facts.run(&run_id), &row);
                facts.judge(oracles::ENDS, found);
                drop(facts);
                for wait in &row.waits {
                    self.finale(&run_id, wait);
                }
            }
        }
        self.done = ended;
        self.world
            .at(self.world.now() + LOOK, Event::Deed(Deed::Look));
    }

    fn finale(&mut self, run_id: &RunId, wait: &str) {
        let Some((kind, name)) = wait.split_once(':') else {
            return;
        };
        let kind = match kind {
            "event" => MessageKind::Event,
            "approval" => MessageKind::Approval,
            _ => return,
        };
        self.finales += 1;
        let number = self.finales;
        let message = NewMessage {
            run_id: run_id.clone(),
            message_id: format!("finale-{number}"),
            kind,
            name: name.to_owned(),
            payload: Payload::from(format!("finale {number}")),
            fingerprint: None,
            now: None,
        };
        let delivered = settled(self.judge.deliver(vec![message]));
        let result = delivered.ok().and_then(|all| Some(all.first()?.result));
        if result != Some(Delivery::Delivered) {
            let what = format!("{run_id} waits for {wait} and was not woken: {result:?}");
            self.judge.facts().judge(oracles::ENDS, Err(what));
        }
    }

    /// Time is over, and not every run has ended.
    fn give_up(&self) {
        for run_id in self.run_ids() {
            let row = self.judge.row(&run_id);
            let what = match row {
                Some(row) if row.status.is_final() => continue,
                Some(row) => format!(
                    "{run_id} is {} of {:?}, due {:?}, waiting for {:?}, long after all was well",
                    row.status.name(),
                    row.owner,
                    row.ready_at.map(|at| at - self.world.now()),
                    row.waits
                ),
                None => format!("{run_id} was never created"),
            };
            self.judge.facts().judge(oracles::ENDS, Err(what));
        }
    }

    /// What must be true of every run when all is over.
    fn check_ends(&self) {
        for (number, run_id) in self.run_ids().iter().enumerate() {
            let row = self.judge.row(run_id);
            let journal = self.judge.journal(run_id);
            let mut facts = self.judge.facts();
            let run = facts.run(run_id);
            let lost = oracles::nothing_acknowledged_is_lost(run, run_id, row.as_ref());
            let one = oracles::no_journal_has_two_histories(run, run_id, 0, &journal);
            let (Some(row), Some(program)) = (row, self.by_run.get(number)) else {
                facts.judge(oracles::NOTHING_LOST, lost);
                continue;
            };
            let legal = model::check(program, &row, &journal, run)
                .map_err(|error| format!("{run_id}: {error}"));
            let replay = replay_equals_the_first_pass(program, &row, run);
            let ends = oracles::every_run_ends_or_waits(run, &row);
            facts.judge(oracles::NOTHING_LOST, lost);
            facts.judge(oracles::ONE_HISTORY, one);
            facts.judge(oracles::ENDS, ends);
            facts.judge(oracles::LEGAL, legal);
            facts.counts.prefixes += replay.as_ref().copied().unwrap_or(0);
            facts.judge(oracles::REPLAY, replay.map(drop));
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
        let facts = self.judge.facts();
        let mut counts = facts.counts;
        counts.crashes = crashes;
        counts.zombies = self.zombies;
        counts.faults = self.faults;
        Verdict {
            violation: facts.violation.clone(),
            counts,
            trace,
        }
    }
}

fn message(what: &What) -> Option<NewMessage> {
    let What::Send {
        run,
        id,
        kind,
        name,
        payload,
        ..
    } = what
    else {
        return None;
    };
    Some(NewMessage {
        run_id: format!("r{run}").into(),
        message_id: id.clone(),
        kind: *kind,
        name: name.clone(),
        payload: Payload::from(payload.clone()),
        fingerprint: None,
        now: None,
    })
}
