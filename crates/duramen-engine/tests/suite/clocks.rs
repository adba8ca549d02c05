//! Clocks that are set, on this machine and where the store is: nothing but what is due depends on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use duramen_core::ids::Millis;
use duramen_core::run::Status;
use duramen_engine::{Driven, Env, Moment, Reply, SweepOptions, Task};

use crate::faults::{Fault, unavailable};
use crate::host::Host;
use crate::lab::Lab;
use crate::sim::{Sim, SimEnv};

const LEASE: Millis = 3_000;
const POLL: Millis = 500;
const HOUR: Millis = 3_600_000;
const DAY: Millis = 24 * HOUR;

/// The times of day of the processes and of the store; the clock of the simulation is the one that nobody
/// can set.
pub struct Clocks {
    sim: Arc<Sim>,
    machine: AtomicI64,
    store: AtomicI64,
}

impl Clocks {
    pub fn new(sim: Arc<Sim>) -> Arc<Self> {
        Arc::new(Self {
            sim,
            machine: AtomicI64::new(100 * DAY),
            store: AtomicI64::new(100 * DAY),
        })
    }

    pub fn store_now(&self) -> Millis {
        self.sim.now() + self.store.load(Ordering::Relaxed)
    }

    fn set(&self, which: Which, by: Millis) {
        if which != Which::Store {
            self.machine.fetch_add(by, Ordering::Relaxed);
        }
        if which != Which::Machine {
            self.store.fetch_add(by, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// A server has a clock of its own.
    Machine,
    Store,
    /// A file is written by this machine's clock.
    Both,
}

pub struct SetEnv(pub Arc<Clocks>);

impl Env for SetEnv {
    fn now(&self) -> Millis {
        self.0.sim.now() + self.0.machine.load(Ordering::Relaxed)
    }

    fn moment(&self) -> Moment {
        Moment::at(self.0.sim.now())
    }

    fn explicit_now(&self) -> Option<Millis> {
        None
    }

    fn sleep(&self, span: Duration) -> Task {
        SimEnv(self.0.sim.clone()).sleep(span)
    }

    fn spawn(&self, task: Task) {
        SimEnv(self.0.sim.clone()).spawn(task);
    }
}

fn lab(seed: u64) -> (Lab, Arc<Clocks>) {
    let lab = Lab::clocks(seed);
    let clocks = lab.clocks.clone().unwrap();
    (lab, clocks)
}

fn looks(host: &Host) -> usize {
    host.store.calls_of("claim") + host.store.calls_of("next_due")
}

/// Each way in which clocks are set back, or forward.
fn steps() -> Vec<(Which, Millis)> {
    let spans = [-20_000, -DAY, 20_000, DAY];
    [Which::Machine, Which::Store, Which::Both]
        .into_iter()
        .flat_map(|which| spans.map(|by| (which, by)))
        .collect()
}

#[test]
fn an_idle_worker_claims_what_comes_within_a_poll_however_clocks_are_set() {
    for (which, by) in steps() {
        for seed in 1..4 {
            let (lab, clocks) = lab(seed);
            let mut a = lab.process("a");
            a.engine.work(10, 20, POLL);
            lab.pass(10 * POLL, &mut [&mut a]);
            clocks.set(which, by);
            for run_id in ["r1", "r2", "r3"] {
                let before = looks(&a);
                lab.enqueue(&[run_id]);
                lab.until(POLL + 20, &mut [&mut a], |_| lab.is_final(run_id));
                let spent = looks(&a) - before;
                assert!(spent <= 4, "{spent} looks after {which:?} was set by {by}");
                lab.pass(10 * POLL, &mut [&mut a]);
            }
        }
    }
}

#[test]
fn a_busy_worker_goes_on_claiming_however_clocks_are_set() {
    for (which, by) in steps() {
        let (lab, clocks) = lab(1);
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            if ctx.input() != "quick" {
                ctx.step("slow").await?;
            }
            ctx.step("after").await
        });
        a.engine.work(10, 20, POLL);
        lab.enqueue(&["long"]);
        lab.until(POLL, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        clocks.set(which, by);
        lab.enqueue(&["quick"]);
        // A lease that may be over must be renewed before a step starts.
        lab.until(LEASE / 3 + 100, &mut [&mut a], |_| lab.is_final("quick"));
        lab.pass(2 * LEASE, &mut [&mut a]);
        if which != Which::Machine && by > 0 {
            continue; // its lease is over by the store's time
        }
        a.complete("slow");
        lab.until(LEASE / 3 + 100, &mut [&mut a], |_| lab.is_final("long"));
        assert_eq!(a.how("long"), [Driven::Completed]);
        assert_eq!(lab.facts.times("long", "slow"), 1);
    }
}

#[test]
fn a_worker_whose_store_has_another_time_polls_and_claims_as_any_other() {
    for by in [-HOUR, HOUR] {
        let (lab, clocks) = lab(1);
        clocks.set(Which::Store, by);
        let mut a = lab.process("a");
        a.engine.work(10, 20, POLL);
        let mut spent = 0;
        for n in 0..10 {
            let run_id = format!("r{n}");
            lab.enqueue(&[&run_id]);
            let before = looks(&a);
            lab.until(POLL + 20, &mut [&mut a], |_| lab.is_final(&run_id));
            spent += looks(&a) - before;
            lab.pass(3 * POLL, &mut [&mut a]);
        }
        assert!(spent <= 40, "{spent} looks for ten runs");
        // And it does not ask more often for that.
        lab.pass(20 * POLL, &mut [&mut a]);
        let before = looks(&a);
        lab.pass(20 * POLL, &mut [&mut a]);
        assert!((19..=22).contains(&(looks(&a) - before)));
    }
}

#[test]
fn a_run_that_was_started_here_is_woken_by_the_stores_time_where_no_worker_is() {
    for by in [-20_000, -DAY] {
        let (lab, clocks) = lab(1);
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            ctx.sleep(2_000).await?;
            ctx.step("one").await
        });
        a.start("r");
        lab.until(100, &mut [&mut a], |hosts| {
            hosts[0].how("r") == [Driven::Paused]
        });
        clocks.set(Which::Machine, by);
        lab.pass(1_500, &mut [&mut a]);
        assert_eq!(lab.status("r"), Some(Status::Waiting));
        lab.until(1_200, &mut [&mut a], |_| lab.is_final("r"));
        assert!(
            a.store.calls_of("next_due") <= 2,
            "it asks once for the time"
        );
    }
}

#[test]
fn a_claim_that_is_tried_again_waits_for_a_pause_and_not_for_a_time_of_day() {
    let (lab, clocks) = lab(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move { ctx.event("go", None).await });
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| {
        hosts[0].how("r") == [Driven::Paused]
    });
    a.store.set(|call| match call.method {
        "claim" => Fault::Refuse(unavailable()),
        _ => Fault::None,
    });
    lab.pass(1_000, &mut [&mut a]);
    lab.send("r", "go", "1");
    lab.until(1_000, &mut [&mut a], |hosts| {
        hosts[0].store.calls_of("claim") > 0
    });
    // Due for longer than the clock is set back.
    lab.pass(30_000, &mut [&mut a]);
    clocks.set(Which::Both, -20_000);
    a.store.set(|_| Fault::None);
    lab.until(300, &mut [&mut a], |_| lab.is_final("r"));
}

#[test]
fn a_step_that_waits_for_a_heartbeat_starts_after_it_however_the_clock_is_set() {
    for by in [-DAY, -20_000, HOUR] {
        let (lab, clocks) = lab(1);
        let mut a = lab.process("a");
        a.program(|ctx| async move {
            ctx.step("slow").await?;
            ctx.step("after").await
        });
        a.start("r");
        lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        lab.pass(LEASE / 3 - 200, &mut [&mut a]);
        // The process is stopped for longer than a lease.
        lab.clock().skip(LEASE);
        a.store.set(|call| match call.method {
            "heartbeat" => Fault::Late(300),
            _ => Fault::None,
        });
        a.complete("slow");
        lab.pass(100, &mut [&mut a]);
        assert_eq!(lab.facts.times("r", "after"), 0, "the lease may be over");
        clocks.set(Which::Machine, by);
        lab.until(2 * LEASE, &mut [&mut a], |_| lab.is_final("r"));
        assert_eq!(a.how("r"), [Driven::Completed]);
        lab.check();
    }
}

#[test]
fn a_machine_that_has_slept_starts_no_step_before_a_heartbeat() {
    let (lab, clocks) = lab(1);
    let mut a = lab.process("a");
    a.program(|ctx| async move {
        ctx.step("slow").await?;
        ctx.step("after").await
    });
    a.start("r");
    lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
    // The clock that nobody can set has stood still meanwhile.
    clocks.set(Which::Both, HOUR);
    a.complete("slow");
    lab.pass(LEASE / 3 - 200, &mut [&mut a]);
    assert_eq!(lab.facts.times("r", "after"), 0);
    lab.until(300, &mut [&mut a], |_| lab.is_final("r"));
}

#[test]
fn a_store_that_fails_is_given_up_after_a_lease_however_the_clock_is_set() {
    for by in [-DAY, DAY] {
        let (lab, clocks) = lab(1);
        let mut a = lab.process("a");
        a.program(|ctx| async move { ctx.step("slow").await });
        a.start("r");
        lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        a.store.set(|call| match call.method {
            "commit" => Fault::Refuse(unavailable()),
            _ => Fault::None,
        });
        a.complete("slow");
        lab.pass(100, &mut [&mut a]);
        clocks.set(Which::Machine, by);
        lab.pass(LEASE - 300, &mut [&mut a]);
        assert!(a.ended.is_empty(), "it is tried for as long as a lease");
        lab.until(2_000, &mut [&mut a], |hosts| {
            hosts[0].how("r") == [Driven::Lost]
        });
    }
}

#[test]
fn a_sweep_takes_its_time_however_the_clock_is_set() {
    for by in [-DAY, 1_500, DAY] {
        let (lab, clocks) = lab(1);
        let mut a = lab.process("a");
        a.program(|ctx| async move { ctx.step("slow").await });
        lab.enqueue(&["r"]);
        let token = a.token();
        let options = SweepOptions {
            limit: 10,
            max_recovered: 10,
            max_timers: 10,
            max_queued: 10,
            deadline: Some(a.engine.now() + 2_000),
            min_remaining: 500,
            now: None,
            max_bytes: None,
        };
        a.engine.sweep(token, options);
        lab.until(100, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        clocks.set(Which::Machine, by);
        lab.pass(1_800, &mut [&mut a]);
        assert!(!a.replies.contains_key(&token), "set by {by}");
        lab.pass(200, &mut [&mut a]);
        let Some(Ok(Reply::Swept(report))) = a.replies.remove(&token) else {
            panic!("the sweep goes on, set by {by}");
        };
        assert!(report.deadline_reached && report.more);
    }
}

#[test]
fn a_blocked_host_is_noticed_and_an_idle_one_not_taken_for_one_however_the_clock_is_set() {
    for by in [-DAY, DAY] {
        let (lab, clocks) = lab(1);
        let mut a = lab.process("a");
        a.program(|ctx| async move { ctx.step("slow").await });
        a.engine.work(10, 20, POLL);
        lab.enqueue(&["r"]);
        lab.until(POLL, &mut [&mut a], |hosts| hosts[0].in_flight() == 1);
        a.stopped = true;
        lab.pass(LEASE / 3, &mut [&mut a]);
        clocks.set(Which::Machine, by);
        assert!(a.engine.host().blocked_for() < LEASE);
        lab.pass(3 * LEASE, &mut [&mut a]);
        assert!(a.engine.host().blocked_for() > LEASE);
        let beats = a.store.calls_of("heartbeat");
        lab.pass(LEASE, &mut [&mut a]);
        assert_eq!(a.store.calls_of("heartbeat"), beats);
    }
}
