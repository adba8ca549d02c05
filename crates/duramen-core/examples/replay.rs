//! Figures of the machine alone: `cargo run --release -p duramen-core --example replay [STEPS]`.
//!
//! Nanoseconds for one step of a run that is replayed (answered at once, or delivered by a turn) and of
//! one that is driven: asked for, started, reported, delivered, committed. The best of several rounds
//! is shown, so that figures can be compared on a noisy machine.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use duramen_core::ids::{Millis, Payload};
use duramen_core::journal::{Entry, Kind};
use duramen_core::lanes::{DEFAULT_PRIORITY, DEFAULT_QUEUE};
use duramen_core::machine::op::Checkpoint;
use duramen_core::machine::{Decision, Machine, Requested, Turn};
use duramen_core::primitives::step::StepOutcome;
use duramen_core::retry::RetryPolicy;
use duramen_core::run::Status;
use duramen_core::store::{ClaimedRun, CommitOutcome, NewRun, Start};

type Done<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 15;
const T0: Millis = 1_000_000;

fn main() -> Done<()> {
    let steps = match std::env::args().nth(1) {
        Some(steps) => steps.parse()?,
        None => 200_000,
    };
    for (name, round) in [
        (
            "replayed, answered at once",
            replayed_alone as fn(usize) -> Done<u128>,
        ),
        ("replayed, turn by turn", replayed_by_turns),
        ("driven", driven),
    ] {
        let mut best = u128::MAX;
        for _ in 0..ROUNDS {
            best = best.min(round(steps)?);
        }
        println!("{name:28} {:4} ns a step", best / steps.max(1) as u128);
    }
    Ok(())
}

/// A run of which this many steps are recorded.
fn claimed(steps: usize) -> ClaimedRun {
    let new = NewRun {
        run_id: "r".into(),
        workflow: "w".into(),
        version: "1".into(),
        queue: DEFAULT_QUEUE.into(),
        priority: DEFAULT_PRIORITY,
        input: Payload::new(),
        meta: None,
        entries: Vec::new(),
        started_at: None,
        start: Start::Leased { owner: "a".into() },
        tags: Vec::new(),
        memo: None,
        timeout: None,
        seed: [7; 16],
        parent: None,
        root: None,
        origin: None,
        now: None,
    };
    let mut journal = vec![new.first_entry(T0)];
    journal.extend((1..=steps).map(|n| {
        let op = if n == 1 {
            "s".into()
        } else {
            format!("s#{n}").into()
        };
        Entry::new(Kind::StepCompleted, op, Payload::from_static(b"1"), T0)
    }));
    let mut row = new.first_row(T0);
    row.journal_len = journal.len() as u64;
    ClaimedRun {
        row,
        was: Status::Running,
        journal: Some(journal),
        inbox: Vec::new(),
        inbox_more: false,
    }
}

fn replayed_alone(steps: usize) -> Done<u128> {
    let mut machine = Machine::new(claimed(steps), "a");
    let begin = Instant::now();
    for _ in 0..steps {
        let asked = machine.request_step("s", RetryPolicy::NEVER, Checkpoint::Durable, true)?;
        if !matches!(black_box(asked), Requested::Ready { .. }) {
            return Err("a recorded step was not answered".into());
        }
    }
    Ok(begin.elapsed().as_nanos())
}

fn replayed_by_turns(steps: usize) -> Done<u128> {
    let mut machine = Machine::new(claimed(steps), "a");
    let begin = Instant::now();
    for _ in 0..steps {
        black_box(machine.request_step("s", RetryPolicy::NEVER, Checkpoint::Durable, false)?);
        if !matches!(black_box(machine.turn(T0)), Turn::Deliver { .. }) {
            return Err("a recorded step was not delivered".into());
        }
    }
    Ok(begin.elapsed().as_nanos())
}

fn driven(steps: usize) -> Done<u128> {
    let mut machine = Machine::new(claimed(0), "a");
    let begin = Instant::now();
    machine.request_step("s", RetryPolicy::NEVER, Checkpoint::Durable, false)?;
    for _ in 0..steps {
        let Turn::Start { slot, .. } = machine.turn(T0) else {
            return Err("a step was not started".into());
        };
        machine.step_done(slot, StepOutcome::Succeeded(Payload::from_static(b"1")));
        black_box(machine.turn(T0));
        machine.request_step("s", RetryPolicy::NEVER, Checkpoint::Durable, false)?;
        let Decision::Commit(commit) = machine.next_commit(T0, 0) else {
            return Err("a result was not committed".into());
        };
        black_box(commit);
        machine.committed(&CommitOutcome::Applied { due: false });
    }
    Ok(begin.elapsed().as_nanos())
}
