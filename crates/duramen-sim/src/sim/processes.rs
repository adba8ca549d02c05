//! Processes: how they begin, what befalls them, and how they end.

use std::rc::Rc;
use std::sync::Arc;

use duramen_core::ids::Millis;
use duramen_core::store::{Store, WorkflowKey};
use duramen_engine::{Config, Engine, HostQueue, Moment, SweepOptions, Token};

use super::Sim;
use super::clients::run_id;
use crate::host::{Host, Parts};
use crate::net::{Net, Weather};
use crate::newer::{VERSION, WORKFLOW};
use crate::plan::{Action, Deed, Mode, What};
use crate::world::{Event, Life, ProcessEnv, ProcessId};

/// A process that closes its engine is gone after so long: what it says in the end has arrived, or it is
/// killed.
const CLOSING: Millis = 2_500;

impl Sim {
    /// A new process in a slot, unless one is there.
    pub(super) fn boot(&mut self, number: usize) {
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
            newer: plan.newer,
            family: if self.plan.family {
                self.plan.runs.len()
            } else {
                0
            },
            ..Weather::default()
        };
        if !self.calm {
            weather.outages.clone_from(&self.plan.outages);
            for fault in plan.faults.iter().filter(|fault| fault.life == life) {
                let key = (fault.method, fault.number);
                weather.faults.insert(key, fault.fault);
            }
        }
        let process = self.world.process(plan.skew);
        slot.host = Some(process);
        self.world
            .note(|| format!("p{process} starts in slot {number}"));
        let net = Net::new(
            Arc::clone(&self.judge),
            Arc::clone(&self.world),
            process,
            weather,
        );
        let env = Arc::new(ProcessEnv {
            world: Arc::clone(&self.world),
            process,
        });
        let (waker, clock) = (Arc::clone(&self.world), Arc::clone(&self.world));
        let queue = Arc::new(HostQueue::with_clock(
            Box::new(move || waker.wake_host(process)),
            move || Moment::at(clock.now()),
        ));
        let owner = if plan.named {
            format!("s{number}")
        } else {
            format!("p{process}")
        };
        if self.judge.facts().owners.get(&owner).is_some() {
            self.judge.facts().counts.renamed += 1;
        }
        let config = Config {
            owner,
            label: None,
            serves: Vec::new(),
            lease: plan.lease,
            hold: plan.hold,
            warm: plan.warm,
            shared_store: true,
        };
        let engine = Engine::new(Arc::clone(&net) as Arc<dyn Store>, env, queue, config);
        engine.register(vec![WorkflowKey {
            name: WORKFLOW.into(),
            version: VERSION.into(),
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

    pub(super) fn sweep(&mut self, number: usize, process: ProcessId) {
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

    pub(super) fn bury_the_dead(&mut self) {
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
    pub(super) fn crash(&mut self, process: ProcessId) {
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

    pub(super) fn action(&mut self, number: usize) {
        let Some(Action { what, .. }) = self.plan.actions.get(number).cloned() else {
            return;
        };
        match what {
            What::Create { .. } | What::Send { .. } => self.request(number, &what),
            _ if self.calm => {}
            What::Terminate { .. } | What::Retry { .. } | What::Delete { .. } => {
                self.intervene(&what);
            }
            What::Hold { run, span } => {
                let run_id = run_id(run);
                self.world
                    .note(|| format!("somebody holds {run_id} for {span} ms"));
                let until = self.world.now() + span;
                self.held_until = self.held_until.max(until);
                self.world.trouble_all();
                self.judge.hold(&run_id, until);
            }
            What::SetClock { slot, by } => {
                if let Some(process) = self.host_of(slot) {
                    self.world
                        .note(|| format!("the clock of p{process} is set by {by} ms"));
                    self.world.set_wall(process, by);
                    self.judge.facts().counts.jumps += 1;
                }
            }
            What::SetStore { by } => {
                self.world
                    .note(|| format!("the clock of the store is set by {by} ms"));
                self.world.set_store(by);
                self.judge.facts().counts.store_jumps += 1;
            }
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
                    self.world.idle(process, host.blocked_until);
                    let nudge = Event::Deed(Deed::Nudge);
                    self.world.at(host.blocked_until, nudge);
                }
            }
            What::Yield { slot } => {
                if let Some(engine) = self.engine_of(slot) {
                    self.world.note(|| format!("slot {slot} yields"));
                    engine.yield_all();
                    self.world.trouble_all();
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
                    self.world.trouble(process);
                    self.world.at(now + down, Event::Deed(Deed::Close(process)));
                    let gone = now + down + CLOSING;
                    self.world.at(gone, Event::Deed(Deed::Gone(process)));
                    self.world.at(gone + 1, Event::Deed(Deed::Restart(slot)));
                }
            }
        }
    }

    /// A process that was told to leave lets go of all that it has, and ends its owner.
    pub(super) fn close(&mut self, process: ProcessId) {
        if let Some(host) = self.hosts.get_mut(&process)
            && self.world.life(process) == Life::Running
        {
            let token = host.token();
            self.world.trouble(process);
            host.engine.close(token);
        }
    }

    /// The engine of a slot whose process runs now, and a token for a call.
    pub(super) fn caller(&mut self, slot: usize) -> Option<(Arc<Engine>, Token)> {
        let engine = self.engine_of(slot)?;
        let process = self.host_of(slot)?;
        let token = self.hosts.get_mut(&process)?.token();
        Some((engine, token))
    }

    pub(super) fn host_of(&self, slot: usize) -> Option<ProcessId> {
        self.slots.get(slot)?.host
    }

    /// The engine of a slot whose process runs now.
    pub(super) fn engine_of(&self, slot: usize) -> Option<Arc<Engine>> {
        let process = self.host_of(slot)?;
        if self.world.life(process) != Life::Running {
            return None;
        }
        Some(Arc::clone(&self.hosts.get(&process)?.engine))
    }
}
