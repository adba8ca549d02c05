//! Faults that seeds have found, each as the smallest plan that shows it.

use std::rc::Rc;

use duramen_core::retry::{Backoff, RetryPolicy};
use duramen_core::store::MessageKind;
use duramen_sim::net::{Method, StoreFault};
use duramen_sim::plan::{Action, Mode, Plan, Plant, RunPlan, SlotPlan, StoreFaultPlan, Via, What};
use duramen_sim::play;
use duramen_sim::program::{Node, Program, Step};
use duramen_sim::world::T0;

fn step(id: &str, takes: i64) -> Rc<Node> {
    Rc::new(Node::Step(Step {
        id: id.into(),
        fails: 0,
        fatal: false,
        policy: RetryPolicy {
            attempts: 1,
            backoff: Backoff::Constant,
            base: 0,
            cap: 0,
            jitter: false,
            pauses_run: false,
        },
        lazy: false,
        takes,
    }))
}

fn worker() -> SlotPlan {
    SlotPlan {
        mode: Mode::Worker {
            concurrency: 10,
            poll_min: 1,
            poll_max: 100,
        },
        lease: 1_000,
        hold: 0,
        warm: 0,
        skew: 0,
        newer: false,
        named: false,
        latency: 0,
        lag: 0,
        faults: Vec::new(),
    }
}

fn create(at: i64, driven: bool) -> Action {
    Action {
        at: T0 + at,
        what: What::Create {
            run: 0,
            via: Via::Slot(0),
            driven,
        },
    }
}

fn stop(at: i64, down: i64) -> Action {
    Action {
        at: T0 + at,
        what: What::Stop { slot: 0, down },
    }
}

/// Runs in one slot; the same under many seeds of the scheduler.
fn check(slot: &SlotPlan, nodes: Vec<Rc<Node>>, actions: &[Action]) {
    let program = Program::new(Rc::new(Node::Seq(nodes)));
    let runs = actions.iter().filter_map(|action| match action.what {
        What::Create { run, .. } => Some(run + 1),
        _ => None,
    });
    let runs = runs.max().unwrap_or(0);
    for seed in 0..60 {
        let plan = Plan {
            seed,
            plant: Plant::None,
            slots: vec![slot.clone()],
            runs: vec![
                RunPlan {
                    program: program.clone(),
                    timeout: None,
                };
                runs
            ],
            actions: actions.to_vec(),
            outages: Vec::new(),
            calm_at: T0 + 8_000,
            family: false,
            disk: None,
        };
        let verdict = play(&plan, true);
        if let Some(violation) = verdict.violation {
            panic!("{plan}\n--\n{}\n{violation}", verdict.trace.join("\n"));
        }
    }
}

/// What was due by the host's clock was asked for without a pause until the store's clock had come
/// as far.
#[test]
fn a_worker_whose_clock_is_a_little_ahead_does_not_spin() {
    let slot = SlotPlan {
        skew: 15,
        ..worker()
    };
    let program = vec![step("a", 0), Rc::new(Node::Sleep(500))];
    check(&slot, program, &[create(0, false)]);
}

/// A run that was due by the store's clock was claimed, found to be early and let go, again and again
/// until the host's clock had come as far.
#[test]
fn a_run_that_is_due_for_the_store_is_not_let_go_by_a_clock_that_is_a_little_behind() {
    let slot = SlotPlan {
        mode: Mode::Worker {
            concurrency: 1,
            poll_min: 1,
            poll_max: 500,
        },
        skew: -15,
        ..worker()
    };
    let other = Action {
        at: T0,
        what: What::Create {
            run: 1,
            via: Via::Direct,
            driven: true,
        },
    };
    let program = vec![Rc::new(Node::Sleep(35))];
    check(&slot, program, &[create(0, true), other]);
}

/// The clock of the store was not looked at when a run was started, so that a process that was
/// stopped before its first heartbeat took its lease for valid.
#[test]
fn a_starter_whose_clock_is_far_off_starts_no_step_after_its_lease() {
    let slot = SlotPlan {
        mode: Mode::Starter,
        lease: 3_000,
        skew: -60_000,
        ..worker()
    };
    let program = vec![step("a", 900), step("b", 0)];
    check(&slot, program, &[create(0, true), stop(52, 4_000)]);
}

/// The answer to a claim came late, and the lease was counted from its arrival.
#[test]
fn a_process_that_was_stopped_while_it_claimed_starts_no_step_after_its_lease() {
    for skew in [-400, 0, 400] {
        let slot = SlotPlan {
            lease: 600,
            skew,
            latency: 5,
            ..worker()
        };
        for at in (960..985).step_by(3) {
            check(
                &slot,
                vec![step("a", 0)],
                &[create(962, false), stop(at, 700)],
            );
        }
    }
}

/// The answer to a creation came when the same process had long claimed the run again: the former
/// claim took the later one's place, and drove the run on its lease.
#[test]
fn an_answer_that_was_overtaken_by_a_later_claim_drives_nothing() {
    let slot = SlotPlan {
        faults: vec![StoreFaultPlan {
            life: 0,
            method: Method::Create,
            number: 0,
            fault: StoreFault::SlowBack(3_733),
        }],
        ..worker()
    };
    let both = vec![step("a", 0), step("b", 6_000)];
    let program = vec![Rc::new(Node::Group(both))];
    check(&slot, program, &[create(0, true), create(360, true)]);
}

/// A run whose driver's loop was blocked was taken up again by the same engine, set back, and then looked
/// at without a pause: it was due and still in the hands of the blocked host.
#[test]
fn a_run_that_was_set_back_under_a_blocked_host_is_not_looked_at_without_a_pause() {
    let slot = SlotPlan {
        mode: Mode::Sweeper {
            every: 300,
            limit: 50,
            most: [25, 0, 25],
            within: Some(800),
        },
        lease: 600,
        ..worker()
    };
    let block = Action {
        at: T0 + 830,
        what: What::Block {
            slot: 0,
            down: 4_000,
        },
    };
    check(&slot, vec![step("s1", 0)], &[block, create(1_472, true)]);
}

fn late_answer(slow: i64, lease: i64) -> SlotPlan {
    SlotPlan {
        mode: Mode::Worker {
            concurrency: 10,
            poll_min: 20,
            poll_max: 100,
        },
        lease,
        faults: vec![StoreFaultPlan {
            life: 0,
            method: Method::Create,
            number: 0,
            fault: StoreFault::SlowBack(slow),
        }],
        ..worker()
    }
}

/// The answer to a creation came when the audit had long let the run go, and the same process had taken it
/// up again and driven it to its end: it was driven once more. (Seed 2033.)
#[test]
fn a_creation_whose_answer_comes_after_the_end_of_its_run_drives_nothing() {
    let nodes = vec![step("a", 0)];
    check(&late_answer(3_963, 400), nodes, &[create(360, true)]);
}

/// The same when it was let go for a second call that asked for it. (Seed 1251.)
#[test]
fn a_creation_that_a_second_one_has_overtaken_drives_nothing() {
    let twice = [create(3_687, true), create(4_079, true)];
    check(&late_answer(2_139, 3_000), vec![step("a", 0)], &twice);
}

/// The answer to a creation was lost, and a message came before it was sent again: the run was driven as if
/// it had none, and slept over it. (Seed 21963.)
#[test]
fn a_message_that_overtakes_the_answer_to_a_creation_is_not_slept_over() {
    let slot = SlotPlan {
        lease: 600,
        faults: vec![StoreFaultPlan {
            life: 0,
            method: Method::Create,
            number: 0,
            fault: StoreFault::LostAfter,
        }],
        ..worker()
    };
    let cancel = Action {
        at: T0 + 656,
        what: What::Send {
            run: 0,
            id: "m".into(),
            kind: MessageKind::Cancel,
            name: String::new(),
            payload: "enough".into(),
            newer: false,
            via: Via::Slot(0),
        },
    };
    let event = Rc::new(Node::Event {
        name: "y",
        timeout: None,
    });
    check(&slot, vec![event], &[create(454, true), cancel]);
}

/// A run was deleted and created anew in the same process, which still had the former life in hand, and took
/// the new one for driven. (Seed 46539.)
#[test]
fn a_run_that_is_created_anew_under_its_driver_is_driven() {
    let slot = SlotPlan {
        faults: vec![StoreFaultPlan {
            life: 0,
            method: Method::Claim,
            number: 3,
            fault: StoreFault::LostAfter,
        }],
        ..worker()
    };
    let delete = Action {
        at: T0 + 925,
        what: What::Delete {
            run: 0,
            via: Via::Slot(0),
        },
    };
    let actions = [create(0, true), delete, create(926, true)];
    check(&slot, vec![step("a", 6_000)], &actions);
}
