//! Pause and resume: what is in flight is brought to an end, nothing new starts, and no wake-up is lost between
//! a pause and its end.

use super::op::Checkpoint;
use super::testing::program::RETRY;
use super::testing::{Rest, Sim, T0, failed, job, join, succeeded};
use crate::ids::Payload;
use crate::journal::Kind;
use crate::primitives::step::StepOutcome;
use crate::primitives::timer::TimerStem;
use crate::retry::RetryPolicy;
use crate::run::Status;
use crate::store::{MessageKind, Next};

fn two_steps() -> Sim {
    Sim::new(|ctx| async move {
        ctx.step("a").await?;
        ctx.step("b").await
    })
}

fn pause(sim: &mut Sim) {
    sim.message(MessageKind::Pause, "ops: the API is down", "");
}

fn resume(sim: &mut Sim) {
    sim.message(MessageKind::Resume, "", "");
}

#[test]
fn what_is_in_flight_ends_and_is_recorded_and_nothing_new_starts() {
    let mut sim = two_steps();
    sim.claim();
    sim.settle();
    pause(&mut sim);
    assert_eq!(sim.settle(), Rest::Waiting, "a is in flight");
    sim.complete("a");
    assert_eq!(sim.settle(), Rest::Committing);
    sim.apply();
    assert_eq!(sim.run(), Status::Paused);
    assert_eq!(sim.starts, ["a/1"]);
    assert_eq!(sim.store.row.note.as_deref(), Some("ops: the API is down"));
    assert_eq!(sim.store.story(), ["run_created", "step_completed a"]);
    resume(&mut sim);
    assert_eq!(sim.run(), Status::Completed);
    assert_eq!(sim.starts, ["a/1", "b/1"]);
    assert_eq!(sim.store.read, [(1, None), (2, None)]);
}

#[test]
fn a_resume_while_the_driver_winds_down_takes_the_pause_back() {
    let mut sim = two_steps();
    sim.claim();
    sim.settle();
    pause(&mut sim);
    sim.settle();
    resume(&mut sim);
    assert_eq!(sim.run(), Status::Completed);
    assert!(
        sim.store
            .commits
            .iter()
            .all(|commit| !matches!(commit.next, Next::Paused { .. }))
    );
}

#[test]
fn a_resume_that_comes_while_the_pause_is_on_its_way_is_not_slept_over() {
    let mut sim = two_steps();
    sim.claim();
    sim.settle();
    pause(&mut sim);
    sim.complete("a");
    assert_eq!(sim.settle(), Rest::Committing);
    assert!(matches!(sim.sent().unwrap().next, Next::Paused { .. }));
    // The store has it, the driver does not know of it.
    sim.store.deliver(MessageKind::Resume, "", "", sim.clock);
    sim.apply();
    assert_eq!(sim.store.row.status, Status::Waiting);
    assert_eq!(sim.run(), Status::Completed);
}

#[test]
fn an_event_that_comes_while_the_pause_is_on_its_way_does_not_end_it() {
    let mut sim = Sim::new(|ctx| async move { ctx.event("go", None).await });
    sim.claim();
    pause(&mut sim);
    assert_eq!(sim.settle(), Rest::Committing);
    sim.store.deliver(MessageKind::Event, "go", "1", sim.clock);
    sim.apply();
    assert_eq!(sim.run(), Status::Paused);
    assert!(!sim.store.story().contains(&"event_received event-1".into()));
    resume(&mut sim);
    assert_eq!(sim.run(), Status::Completed);
}

#[test]
fn pauses_of_a_kept_handler_and_of_one_that_is_replayed_are_the_same() {
    for warm in [false, true] {
        let mut sim = Sim::new(|ctx| async move {
            let jobs = vec![job(ctx.step("a")), job(ctx.event("go", None))];
            join(jobs).await.into_iter().collect()
        });
        sim.warm = warm;
        sim.claim();
        sim.settle();
        pause(&mut sim);
        sim.complete("a");
        assert_eq!(sim.run(), Status::Paused);
        sim.event("go", "1");
        assert_eq!(sim.run(), Status::Paused);
        resume(&mut sim);
        assert_eq!(sim.run(), Status::Completed, "warm: {warm}");
        assert_eq!(sim.starts, ["a/1"]);
    }
}

#[test]
fn time_goes_on_and_what_has_passed_is_due_when_it_is_resumed() {
    let mut sim = Sim::new(|ctx| async move {
        ctx.sleep_until(TimerStem::Sleep, T0 + 50).await?;
        Ok("slept".into())
    });
    assert_eq!(sim.run(), Status::Waiting);
    pause(&mut sim);
    sim.clock = T0 + 500;
    assert_eq!(sim.run(), Status::Paused);
    resume(&mut sim);
    assert_eq!(sim.run(), Status::Completed);
}

#[test]
fn a_step_between_two_attempts_stays_so() {
    let mut sim =
        Sim::new(|ctx| async move { ctx.step_with("a", RETRY, Checkpoint::Durable).await })
            .rule(|_, _| failed("boom"));
    sim.claim();
    sim.settle();
    pause(&mut sim);
    assert_eq!(sim.run(), Status::Paused);
    assert_eq!(sim.store.row.waits, ["retry:a"]);
    assert_eq!(sim.starts, ["a/1"]);
    resume(&mut sim);
    assert_eq!(sim.run_through(), Status::Failed);
    assert_eq!(sim.starts, ["a/1", "a/2", "a/3"]);
}

#[test]
fn a_cancellation_frees_the_run_and_its_clean_up_may_start_steps() {
    let mut sim = Sim::new(|ctx| async move {
        let waited = ctx.event("go", None).await;
        ctx.step("clean").await?;
        waited
    });
    assert_eq!(sim.run(), Status::Waiting);
    pause(&mut sim);
    assert_eq!(sim.store.row.status, Status::Paused);
    sim.cancel("enough");
    assert_eq!(sim.run(), Status::Cancelled);
    assert_eq!(sim.starts, ["clean/1"]);
    assert_eq!(sim.store.read, [(1, None), (2, None)]);
}

#[test]
fn a_pause_behind_a_cancellation_holds_the_clean_up() {
    let mut sim = Sim::new(|ctx| async move {
        let waited = ctx.event("go", None).await;
        ctx.step("clean").await?;
        waited
    });
    sim.claim();
    sim.cancel("enough");
    pause(&mut sim);
    assert_eq!(sim.run(), Status::Paused);
    assert!(sim.starts.is_empty());
    assert_eq!(sim.store.story().last().unwrap(), "cancel_requested");
    resume(&mut sim);
    assert_eq!(sim.run(), Status::Cancelled);
}

#[test]
fn a_handler_that_ends_while_it_is_to_be_paused_has_ended() {
    let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
    sim.claim();
    sim.settle();
    pause(&mut sim);
    assert_eq!(sim.run(), Status::Completed);
}

#[test]
fn a_resume_that_overtakes_its_pause_ends_it_all_the_same() {
    let mut sim = two_steps();
    sim.claim();
    sim.settle();
    let first = sim.store.deliver(MessageKind::Pause, "", "", sim.clock);
    resume(&mut sim);
    sim.machine(|machine| machine.deliver(vec![first.clone()]));
    assert_eq!(sim.run(), Status::Completed);
    assert_eq!(sim.starts, ["a/1", "b/1"]);
}

#[test]
fn a_second_pause_needs_no_second_resume() {
    let mut sim = two_steps();
    sim.claim();
    sim.settle();
    pause(&mut sim);
    pause(&mut sim);
    assert_eq!(sim.run(), Status::Paused);
    resume(&mut sim);
    assert_eq!(sim.run(), Status::Completed);
    assert_eq!(sim.store.read.len(), 3);
}

const PARKS: RetryPolicy = RetryPolicy {
    pauses_run: true,
    ..RETRY
};

/// A run whose step `bad` fails until it is told otherwise, beside another step and a wait.
fn exhausting() -> Sim {
    Sim::new(|ctx| async move {
        let jobs = vec![
            job(ctx.step_with("bad", PARKS, Checkpoint::Durable)),
            job(ctx.step("beside")),
        ];
        let both: Vec<String> = join(jobs).await.into_iter().collect::<Result<_, _>>()?;
        ctx.step("after").await?;
        Ok(both.join(","))
    })
    .rule(|op, _| {
        if op == "bad" {
            failed("boom")
        } else {
            succeeded(op)
        }
    })
}

#[test]
fn a_step_without_attempts_left_pauses_its_run_and_tells_the_handler_nothing() {
    let mut sim = exhausting();
    assert_eq!(sim.run_through(), Status::Paused);
    assert_eq!(sim.store.row.waits, ["exhausted:bad"]);
    assert_eq!(sim.store.row.ready_at, None);
    let note = sim.store.row.note.clone().unwrap();
    assert!(
        note.starts_with("step \"bad\" has failed for good after 3 attempts"),
        "{note}"
    );
    assert_eq!(sim.seen, ["beside=beside"]);
    let last = sim.store.journal.last().unwrap();
    assert_eq!(last.kind, Kind::StepAttemptFailed);
    assert_eq!(
        last.meta.as_deref(),
        Some(r#"{"attempt":3,"exhausted":true}"#)
    );
}

#[test]
fn what_is_in_flight_beside_it_ends_and_is_recorded() {
    let once = RetryPolicy {
        attempts: 1,
        ..PARKS
    };
    let mut sim = Sim::new(move |ctx| async move {
        let jobs = vec![
            job(ctx.step_with("bad", once, Checkpoint::Durable)),
            job(ctx.step("beside")),
        ];
        join(jobs).await.into_iter().collect()
    })
    .rule(|op, _| {
        if op == "bad" {
            failed("boom")
        } else {
            succeeded(op)
        }
    });
    sim.claim();
    sim.settle();
    sim.complete("bad");
    assert_eq!(sim.settle(), Rest::Committing);
    sim.apply();
    assert_eq!(sim.settle(), Rest::Waiting, "the other is in flight");
    sim.complete("beside");
    assert_eq!(sim.run(), Status::Paused);
    assert_eq!(
        sim.store.story()[1..],
        ["step_attempt_failed bad", "step_completed beside"]
    );
}

#[test]
fn retry_gives_it_fresh_attempts_and_runs_no_other_again() {
    let mut sim = exhausting();
    sim.run_through();
    sim.starts.clear();
    sim.store.retry(sim.clock);
    assert_eq!(sim.run_through(), Status::Paused, "it fails again");
    assert_eq!(sim.starts, ["bad/1", "bad/2", "bad/3"]);
    sim.starts.clear();
    sim = sim.rule(|op, _| succeeded(op));
    sim.store.retry(sim.clock);
    assert_eq!(sim.run_through(), Status::Completed);
    assert_eq!(sim.starts, ["bad/1", "after/1"]);
}

#[test]
fn skip_is_a_result_as_if_the_step_had_returned_it() {
    for crash in [false, true] {
        let mut sim = exhausting();
        sim.run_through();
        sim.starts.clear();
        sim.store.skip("bad", "given", sim.clock);
        if crash {
            sim.claim();
            sim.settle();
            sim.crash();
        }
        assert_eq!(sim.run_through(), Status::Completed);
        let end = &sim.store.journal.last().unwrap().payload;
        assert_eq!(&end[..], b"given,beside");
        assert!(!sim.starts.iter().any(|start| start.starts_with("bad")));
    }
}

#[test]
fn a_failure_that_must_not_be_retried_pauses_it_at_once() {
    let mut sim = Sim::new(
        |ctx| async move { ctx.step_with("bad", PARKS, Checkpoint::Durable).await },
    )
    .rule(|_, _| StepOutcome::Failed {
        error: Payload::from_static(b"fatal"),
        retryable: false,
    });
    assert_eq!(sim.run(), Status::Paused);
    assert_eq!(sim.starts, ["bad/1"]);
    let note = sim.store.row.note.clone().unwrap();
    assert!(
        note.starts_with("step \"bad\" has failed for good: "),
        "{note}"
    );
}

#[test]
fn a_run_that_is_paused_for_a_step_survives_a_crash_at_any_commit() {
    for commits in 0..4 {
        let mut sim = exhausting();
        sim.claim();
        for _ in 0..commits {
            while sim.settle() != Rest::Committing && !sim.running.is_empty() {
                sim.complete_at(0);
            }
            if sim.is_committing() {
                sim.apply();
            }
            if !sim.is_live() {
                break;
            }
        }
        sim.crash();
        assert_eq!(sim.run_through(), Status::Paused, "after {commits}");
        sim.store.skip("bad", "given", sim.clock);
        assert_eq!(sim.run_through(), Status::Completed, "after {commits}");
    }
}

#[test]
fn a_cancellation_reaches_a_run_that_is_paused_for_a_step() {
    let mut sim = exhausting();
    sim.run_through();
    sim.cancel("enough");
    assert_eq!(sim.run(), Status::Cancelled);
}

#[test]
fn a_resume_does_not_help_a_step_that_has_no_attempt_left() {
    let mut sim = exhausting();
    sim.run_through();
    sim.starts.clear();
    resume(&mut sim);
    assert_eq!(sim.run(), Status::Paused);
    assert!(sim.starts.is_empty());
    assert_eq!(sim.store.row.waits, ["exhausted:bad"]);
}

#[test]
fn people_may_pause_a_run_that_is_given_fresh_attempts() {
    let mut sim = exhausting();
    sim.claim();
    sim.settle();
    pause(&mut sim);
    while sim.run_through() == Status::Paused && sim.store.row.waits != ["exhausted:bad"] {
        resume(&mut sim);
    }
    sim.store.retry(sim.clock);
    sim.starts.clear();
    sim.store.deliver(MessageKind::Pause, "ops", "", sim.clock);
    assert_eq!(sim.run_through(), Status::Paused);
    assert!(sim.starts.is_empty());
    assert_eq!(sim.store.row.note.as_deref(), Some("ops"));
}
