//! What a seed draws.

use duramen_core::ids::Millis;
use duramen_core::store::MessageKind;

use super::{
    Action, DiskFaultPlan, Mode, Plan, Plant, RunPlan, SlotPlan, StoreFaultPlan, Via, What,
};
use crate::disk::DiskFault;
use crate::net::{Method, StoreFault};
use crate::program::{EVENTS, Program};
use crate::rng::Rng;
use crate::world::T0;

impl Plan {
    pub fn generate(seed: u64, plant: Plant) -> Self {
        let mut rng = Rng::new(seed);
        let span = rng.span(1_000, 10_000);
        let (mut slots, mut runs) = (Vec::new(), Vec::new());
        for _ in 0..rng.span(1, 4) {
            slots.push(slot(&mut rng.fork()));
        }
        // Versions side by side: some of the processes are newer than the others.
        let mixed = rng.one_in(3);
        for slot in &mut slots {
            slot.newer = mixed && rng.one_in(2);
        }
        for _ in 0..rng.span(1, 4) {
            let mut own = rng.fork();
            runs.push(RunPlan {
                program: Program::generate(&mut own),
                timeout: own.one_in(8).then(|| own.span(50, 8_000)),
            });
        }
        let mut actions = Vec::new();
        for run in 0..runs.len() {
            requests(&mut rng.fork(), run, &slots, mixed, span, &mut actions);
        }
        people(&mut rng.fork(), runs.len(), slots.len(), span, &mut actions);
        trouble(&mut rng.fork(), slots.len(), span, &mut actions);
        actions.sort_by_key(|action| action.at);
        let mut outages = Vec::new();
        if rng.one_in(5) {
            let from = T0 + rng.span(0, span);
            outages.push((from, from + rng.span(50, 4_000)));
        }
        Self {
            seed,
            plant,
            slots,
            runs,
            actions,
            outages,
            calm_at: T0 + span,
            family: rng.one_in(3),
            disk: None,
        }
    }

    /// The same on a file of the real SQLite store, on a disk that fails.
    pub fn generate_on_disk(seed: u64, plant: Plant) -> Self {
        let mut rng = Rng::new(seed ^ 0xd15c);
        let mut faults = Vec::new();
        for number in 0..rng.span(1, 7) {
            let fault = match rng.below(6) {
                0 => DiskFault::ShortWrite,
                1 => DiskFault::Full,
                2 => DiskFault::SyncFails,
                _ => DiskFault::PowerCut,
            };
            // Opening a new file takes some thirty, a commit about three.
            faults.push(DiskFaultPlan {
                boot: u32::try_from(rng.below(u64::from(number > 1) * 3 + 1)).unwrap_or(0),
                operation: rng.below(rng_most(number)),
                fault,
            });
        }
        Self {
            disk: Some(faults),
            ..Self::generate(seed, plant)
        }
    }
}

fn slot(rng: &mut Rng) -> SlotPlan {
    let mode = match rng.below(8) {
        0..=4 => Mode::Worker {
            concurrency: rng.pick(&[1, 2, 10], 10),
            poll_min: rng.pick(&[1, 20, 50], 20),
            poll_max: rng.pick(&[100, 500, 2_000], 500),
        },
        5 | 6 => Mode::Sweeper {
            every: rng.pick(&[100, 300, 1_000], 300),
            limit: rng.pick(&[1, 2, 50], 50),
            most: [0; 3].map(|_| rng.pick(&[0, 1, 25, 25], 25)),
            within: rng.one_in(2).then(|| rng.span(20, 2_000)),
        },
        _ => Mode::Starter,
    };
    let mut faults = Vec::new();
    if !rng.one_in(4) {
        for _ in 0..rng.span(0, 6) {
            let method = if rng.one_in(2) {
                Method::Commit
            } else {
                rng.pick(&Method::FAULTY, Method::Commit)
            };
            faults.push(StoreFaultPlan {
                life: u32::try_from(rng.below(3)).unwrap_or(0),
                method,
                number: u32::try_from(rng.below(rng_bound(method))).unwrap_or(0),
                fault: store_fault(rng),
            });
        }
    }
    // Answers that are lost among the first calls, which are made for certain.
    if rng.one_in(2) {
        for _ in 0..rng.span(1, 4) {
            let method = rng.pick(&LOSABLE, Method::Commit);
            faults.push(StoreFaultPlan {
                life: u32::try_from(rng.below(2)).unwrap_or(0),
                method,
                number: u32::try_from(rng.below(rng_bound(method).min(5))).unwrap_or(0),
                fault: StoreFault::LostAfter,
            });
        }
    }
    SlotPlan {
        mode,
        lease: rng.pick(&[400, 600, 1_000, 3_000], 1_000),
        hold: rng.pick(&[0, 0, 50, 400], 0),
        warm: rng.pick(&[0, 1, 16], 16),
        skew: rng.pick(&[0, 0, 0, 15, -15, 400, -400, 60_000, -60_000], 0),
        newer: false,
        named: rng.one_in(3),
        latency: rng.pick(&[0, 0, 1, 5, 40, 250], 0),
        lag: rng.pick(&[0, 0, 0, 2, 30], 0),
        faults,
    }
}

/// By how much clocks are set.
const JUMPS: [Millis; 5] = [50, 700, 3_000, 20_000, 200_000];

/// Among how many first operations a fault may strike: the first is likely to be met.
const fn rng_most(number: i64) -> u64 {
    match number {
        0 => 90,
        1 => 250,
        _ => 60,
    }
}

/// Calls whose answers are lost on purpose.
const LOSABLE: [Method; 10] = [
    Method::Commit,
    Method::Commit,
    Method::Commit,
    Method::Create,
    Method::Create,
    Method::Claim,
    Method::Deliver,
    Method::Heartbeat,
    Method::Intervene,
    Method::Retire,
];

/// Among how many first calls of a method a fault may strike.
const fn rng_bound(method: Method) -> u64 {
    match method {
        Method::Commit => 25,
        Method::Create | Method::Load | Method::Deliver => 3,
        Method::Intervene | Method::Retire => 1,
        _ => 12,
    }
}

fn store_fault(rng: &mut Rng) -> StoreFault {
    match rng.below(12) {
        0 => StoreFault::Locked,
        1 => StoreFault::Broken,
        2 | 3 => StoreFault::LostBefore,
        4 | 5 => StoreFault::LostAfter,
        6 => StoreFault::SlowThere(rng.span(20, 4_000)),
        7 => StoreFault::SlowBack(rng.span(20, 4_000)),
        8 | 9 => StoreFault::CrashBefore,
        _ => StoreFault::CrashAfter,
    }
}

/// A run's creation, and the messages that are sent to it.
fn requests(
    rng: &mut Rng,
    run: usize,
    slots: &[SlotPlan],
    mixed: bool,
    span: Millis,
    actions: &mut Vec<Action>,
) {
    let via = |rng: &mut Rng| via(rng, slots.len());
    let begin = if rng.one_in(2) {
        0
    } else {
        rng.span(0, span / 2)
    };
    let driven = rng.one_in(2);
    for again in 0..=u64::from(rng.one_in(5)) {
        actions.push(Action {
            at: T0 + begin + i64::try_from(again).unwrap_or(0) * rng.span(0, 500),
            what: What::Create {
                run,
                via: via(rng),
                driven,
            },
        });
    }
    for number in 0..rng.span(0, 8) {
        let (kind, name) = match rng.below(12) {
            0 => (MessageKind::Cancel, String::new()),
            1..=3 => {
                let id = format!("approval-{}", rng.span(1, 2));
                (MessageKind::Approval, id)
            }
            _ => (MessageKind::Event, rng.pick(&EVENTS, EVENTS[0]).to_owned()),
        };
        let unfit = kind == MessageKind::Event && rng.one_in(6);
        let newer = mixed && kind == MessageKind::Event && rng.one_in(5);
        let at = T0 + rng.span(0, span);
        for again in 0..=u64::from(rng.one_in(4)) {
            actions.push(Action {
                at: at + i64::try_from(again).unwrap_or(0) * rng.span(0, 1_000),
                what: What::Send {
                    run,
                    id: format!("m{number}"),
                    kind,
                    name: name.clone(),
                    payload: format!("{}{number}", if unfit { "bad " } else { "" }),
                    newer,
                    via: via(rng),
                },
            });
        }
    }
    // From what was drawn already, so that the stories of seeds that are kept stay what they were.
    let mut own = Rng::new(begin.unsigned_abs() ^ (span.unsigned_abs() << 20) ^ (run as u64) << 40);
    pauses(&mut own, run, slots.len(), span, actions);
}

/// Now and then somebody pauses the run, and mostly lets it go on again. (What is not resumed is so when all is well.)
fn pauses(rng: &mut Rng, run: usize, slots: usize, span: Millis, actions: &mut Vec<Action>) {
    if !rng.one_in(4) {
        return;
    }
    for number in 0..rng.span(1, 3) {
        let mut at = T0 + rng.span(0, span);
        for kind in [MessageKind::Pause, MessageKind::Resume] {
            if kind == MessageKind::Resume && rng.one_in(4) {
                break;
            }
            let what = What::Send {
                run,
                id: format!("{kind:?}{number}"),
                kind,
                name: String::new(),
                payload: String::new(),
                newer: false,
                via: via(rng, slots),
            };
            actions.push(Action { at, what });
            at += rng.pick(&[0, 1, 5, 50, 700, 5_000], 0);
        }
    }
}

fn via(rng: &mut Rng, slots: usize) -> Via {
    if rng.one_in(3) {
        Via::Direct
    } else {
        Via::Slot(rng.place(slots))
    }
}

/// What people do to runs, and what strangers hold.
fn people(rng: &mut Rng, runs: usize, slots: usize, span: Millis, actions: &mut Vec<Action>) {
    if rng.one_in(2) {
        return;
    }
    for _ in 0..rng.span(1, 3) {
        let (run, at) = (rng.place(runs), T0 + rng.span(0, span));
        let mut act = |at, what| actions.push(Action { at, what });
        match rng.below(8) {
            0 | 1 => {
                let via = via(rng, slots);
                act(at, What::Terminate { run, via });
                if rng.one_in(2) {
                    let slot = rng.place(slots);
                    act(at + rng.span(0, 1_000), What::Retry { run, slot });
                }
            }
            2 => {
                let slot = rng.place(slots);
                act(at, What::Retry { run, slot });
            }
            3..=5 => {
                let by = via(rng, slots);
                act(at, What::Delete { run, via: by });
                if !rng.one_in(4) {
                    let (via, driven) = (via(rng, slots), rng.one_in(2));
                    let at = at + rng.pick(&[0, 0, 1, 20, 300], 0);
                    act(at, What::Create { run, via, driven });
                }
            }
            _ => {
                let span = rng.pick(&[50, 400, 2_000, 6_000], 400);
                act(at, What::Hold { run, span });
            }
        }
    }
}

/// What goes wrong with the processes themselves.
fn trouble(rng: &mut Rng, slots: usize, span: Millis, actions: &mut Vec<Action>) {
    for _ in 0..rng.span(0, 8) {
        let slot = rng.place(slots);
        let by = rng.pick(&JUMPS, 0) * if rng.one_in(2) { -1 } else { 1 };
        let what = match rng.below(14) {
            10..=12 => What::SetClock { slot, by },
            // Whatever sleeps would sleep for as much longer.
            13 => What::SetStore {
                by: by.max(-60_000),
            },
            0..=2 => What::Crash {
                slot,
                down: rng.pick(&[0, 100, 2_000], 100),
            },
            3..=6 => What::Stop {
                slot,
                down: rng.pick(&[50, 700, 1_500, 4_000, 8_000], 1_500),
            },
            7 => What::Block {
                slot,
                down: rng.pick(&[100, 700, 4_000], 700),
            },
            8 => What::Yield { slot },
            _ => What::Leave {
                slot,
                down: rng.pick(&[100, 2_000], 100),
            },
        };
        actions.push(Action {
            at: T0 + rng.span(0, span),
            what,
        });
    }
}
