//! Cost that grows with the length of a run and no faster, shown by counting.

use super::testing::{Rest, Sim, T0, job, join};
use super::{Machine, Turn};
use crate::ids::Payload;
use crate::journal::{Entry, Kind};
use crate::primitives::timer::TimerStem;
use crate::run::Status;

/// How many operations the machine went through in walks over its table.
fn walked(sim: &Sim) -> u64 {
    sim.machine(|machine| machine.run.ops.walked.get())
}

#[test]
fn a_hundred_thousand_entries_are_replayed_without_a_walk() {
    const N: usize = 100_000;
    let mut sim = Sim::new(|ctx| async move {
        for _ in 0..N {
            ctx.step("s").await?;
        }
        ctx.event("x", None).await
    });
    let entry = |n: usize| {
        let op = if n == 0 {
            "s".into()
        } else {
            format!("s#{}", n + 1).into()
        };
        Entry::new(Kind::StepCompleted, op, Payload::from_static(b"1"), T0)
    };
    sim.store.journal.extend((0..N).map(entry));
    sim.store.row.journal_len += N as u64;
    sim.store.row.started_at = Some(T0);
    sim.claim();
    let mut turns = 0;
    while sim.turn() {
        turns += 1;
    }
    assert_eq!(turns, N);
    assert_eq!(sim.seen.len(), N);
    assert_eq!(walked(&sim), 0);
}

#[test]
fn ten_thousand_messages_of_one_name_are_consumed_one_by_one() {
    const N: usize = 10_000;
    let mut sim = Sim::new(|ctx| async move {
        for _ in 0..N {
            ctx.event("x", None).await?;
        }
        Ok(String::new())
    });
    sim.warm = true;
    sim.claim();
    for _ in 0..N {
        sim.event("x", "1");
    }
    let mut turns = 0;
    while sim.turn() {
        turns += 1;
    }
    assert_eq!(turns, N);
    assert_eq!(walked(&sim), 0);
    assert_eq!(sim.run(), Status::Completed);
    assert_eq!(sim.store.commits.len(), 1);
}

#[test]
fn ten_thousand_waits_for_one_name_end_one_by_one_with_a_pause_between_each() {
    const N: u64 = 10_000;
    let mut sim = Sim::new(|ctx| async move {
        let waits: Vec<_> = (0..N).map(|_| ctx.event("x", None)).collect();
        for wait in waits {
            wait.await?;
        }
        Ok(String::new())
    });
    sim.warm = true;
    sim.run();
    let shown = sim.store.journal.len();
    let opened = walked(&sim);
    let mut listed = 0;
    for n in 0..N - 1 {
        sim.event("x", "1");
        sim.claim();
        assert_eq!(sim.settle(), Rest::Committing, "message {n}");
        sim.apply();
        listed += sim.store.row.waits.len();
        // What the fake store goes through at each claim.
        sim.store.inbox.clear();
    }
    assert_eq!(listed as u64, N - 1);
    assert_eq!(walked(&sim) - opened, N - 1, "one key a pause");
    assert_eq!(sim.store.journal.len() - shown, 9_999);
}

#[test]
fn ten_thousand_timers_fire_one_by_one_with_a_pause_between_each() {
    const N: i64 = 10_000;
    let mut sim = Sim::new(|ctx| async move {
        let sleeps: Vec<_> = (0..N)
            .map(|n| ctx.sleep_until(TimerStem::Timer, T0 + 1 + n))
            .collect();
        for sleep in sleeps {
            sleep.await?;
        }
        Ok(String::new())
    });
    sim.warm = true;
    sim.run();
    let opened = walked(&sim);
    for _ in 0..N - 1 {
        sim.clock += 1;
        sim.claim();
        assert_eq!(sim.settle(), Rest::Committing);
        sim.apply();
    }
    assert_eq!(walked(&sim) - opened, 9_999, "one key a pause");
}

#[test]
fn ten_thousand_parallel_steps_are_started_and_recorded_without_a_walk() {
    const N: usize = 10_000;
    let mut sim = Sim::new(|ctx| async move {
        // One by one: a join would poll all of them after each result.
        let steps: Vec<_> = (0..N).map(|n| ctx.step(&format!("s{n}"))).collect();
        for step in steps {
            step.await?;
        }
        Ok(String::new())
    });
    sim.claim();
    assert_eq!(sim.settle(), Rest::Waiting);
    let running = std::mem::take(&mut sim.running);
    for (slot, ..) in running {
        sim.report(slot, super::testing::succeeded("1"));
    }
    while sim.turn() {}
    assert_eq!(walked(&sim), 0);
    assert_eq!(sim.run(), Status::Completed);
    assert_eq!(sim.store.commits.len(), 1);
}

#[test]
fn a_turn_with_nothing_to_do_looks_at_nothing() {
    let mut sim = Sim::new(|ctx| async move {
        let waits = (0..100).map(|_| job(ctx.event("x", None)));
        join(waits.collect()).await.into_iter().collect()
    });
    sim.claim();
    for _ in 0..100 {
        assert_eq!(
            sim.machine(|machine| Machine::turn(machine, T0)),
            Turn::Idle
        );
    }
    assert_eq!(walked(&sim), 0);
}
