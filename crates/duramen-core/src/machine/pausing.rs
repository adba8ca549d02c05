//! Pause and resume: what is in flight is brought to an end, nothing new starts, and no wake-up is lost between
//! a pause and its end.

use super::op::Checkpoint;
use super::testing::program::RETRY;
use super::testing::{Rest, Sim, T0, failed, job, join};
use crate::primitives::timer::TimerStem;
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
