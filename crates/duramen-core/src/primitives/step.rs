//! Steps: run by the driver, recorded with their result, retried by a durable rule.

use crate::ids::{InvalidId, Millis, Payload};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind, Meta};
use crate::progress::desk::Desk;
use crate::progress::ledger::Weight;
use crate::progress::looks::Looks;
use crate::progress::naming::Holder;
use crate::progress::op::{Checkpoint, OpKind, StepPhase};
use crate::progress::turn::{Outcome, Requested, Turn};
use crate::retry::RetryPolicy;

pub use crate::progress::turn::StepOutcome;

/// The handler asks for a step; see [`Machine::request_step`].
///
/// [`Machine::request_step`]: crate::machine::Machine::request_step
pub(crate) fn request(
    desk: Desk<'_>,
    id: &str,
    retry: RetryPolicy,
    checkpoint: Checkpoint,
    alone: bool,
) -> Result<Requested, InvalidId> {
    begin(desk, id, retry, checkpoint, None, alone)
}

/// The same for a poll, which has looks.
pub(super) fn begin(
    mut desk: Desk<'_>,
    id: &str,
    retry: RetryPolicy,
    checkpoint: Checkpoint,
    looks: Option<Looks>,
    alone: bool,
) -> Result<Requested, InvalidId> {
    let id = desk.named(id, Holder::Step)?;
    let kind = OpKind::Step {
        retry,
        checkpoint,
        failed: 0,
        phase: StepPhase::Requested,
        looks,
    };
    if alone
        && let Some(placed) = desk.next_recorded()
        && placed.entry.op == id
        && matches!(placed.entry.kind, Kind::StepCompleted | Kind::StepFailed)
        && let Some((outcome, at)) = desk.answer(&kind)
    {
        return Ok(Requested::Ready { outcome, at });
    }
    let slot = desk.open(id, kind, None);
    if !desk.is_served(slot) {
        desk.startable(slot);
    }
    Ok(Requested::Pending(slot))
}

/// Starts the next step that may start: its barrier is reached and nothing is left to replay.
pub(crate) fn next_start(mut desk: Desk<'_>) -> Option<Turn> {
    let slot = desk.next_step()?;
    let (durable, committing) = (desk.durable_len(), desk.is_committing());
    let op = desk.op_mut(slot)?;
    let OpKind::Step {
        phase,
        failed,
        checkpoint,
        ..
    } = &mut op.kind
    else {
        return None;
    };
    let sealed = *checkpoint == Checkpoint::Sealed;
    // A transaction may hold locks that a commit on its way waits for: see `seal.rs`.
    if op.barrier > durable || (sealed && committing) {
        return None;
    }
    *phase = StepPhase::Running;
    let turn = Turn::Start {
        slot,
        op: op.id.clone(),
        attempt: failed.saturating_add(1),
    };
    desk.start(sealed);
    Some(turn)
}

/// The driver reports how an attempt ended.
pub(crate) fn done(mut desk: Desk<'_>, slot: Slot, outcome: StepOutcome) {
    if let Some(op) = desk.op_mut(slot)
        && let OpKind::Step { phase, .. } = &mut op.kind
        && *phase == StepPhase::Running
    {
        *phase = StepPhase::Arrived;
        desk.arrived(slot, outcome);
    }
}

/// An attempt that is under way tells of its progress: recorded for the next one. False if nobody waits for
/// it any more.
pub(crate) fn told(mut desk: Desk<'_>, slot: Slot, progress: Payload, wall: Millis) -> bool {
    let Some(op) = desk.op(slot) else {
        return false;
    };
    let OpKind::Step {
        failed,
        phase: StepPhase::Running,
        ..
    } = op.kind
    else {
        return false;
    };
    let id = op.id.clone();
    let meta = Meta {
        attempt: Some(failed.saturating_add(1)).filter(|attempt| *attempt > 1),
        ..Meta::default()
    };
    let entry = Entry::new(
        Kind::StepProgress,
        id.clone(),
        progress.clone(),
        desk.at(wall),
    );
    desk.record(entry.with_meta(&meta), Weight::Hard);
    desk.tell(id, progress);
    true
}

/// The pause before the next attempt, should the one that is under way fail and there be another.
pub(crate) fn pause_after_failure(desk: &Desk<'_>, slot: Slot) -> Option<Millis> {
    let op = desk.op(slot)?;
    let OpKind::Step { retry, failed, .. } = op.kind else {
        return None;
    };
    retry.pause_after(failed.saturating_add(1), desk.seed(), &op.id)
}

/// Gives an attempt's outcome its place in the journal.
pub(crate) fn ended(
    mut desk: Desk<'_>,
    slot: Slot,
    outcome: StepOutcome,
    wall: Millis,
) -> Option<Turn> {
    let OpKind::Step {
        retry,
        checkpoint,
        failed,
        looks,
        ..
    } = desk.op(slot)?.kind
    else {
        return None;
    };
    let attempt = failed.saturating_add(1);
    let weight = match checkpoint {
        Checkpoint::Durable | Checkpoint::Sealed => Weight::Hard,
        Checkpoint::Lazy => Weight::Light,
    };
    let meta = Meta {
        attempt: Some(attempt).filter(|attempt| *attempt > 1),
        ..Meta::default()
    };
    let outcome = match outcome {
        StepOutcome::Succeeded(result) => {
            let id = desk.close(slot)?.id;
            let at = desk.advance(wall);
            let entry = Entry::new(Kind::StepCompleted, id, result, at);
            desk.record(entry.with_meta(&meta), weight);
            Outcome::StepCompleted(None)
        }
        // Of polls alone.
        StepOutcome::NotYet => return None,
        StepOutcome::Failed { error, retryable } => {
            let over = looks
                .and_then(|looks| looks.end())
                .is_some_and(|end| end <= desk.at(wall));
            let pause = retry
                .pause_after(attempt, desk.seed(), &desk.op(slot)?.id)
                .filter(|_| retryable && !over);
            if pause.is_some() || retry.pauses_run {
                attempt_failed(desk, slot, attempt, error, pause, wall);
                return None;
            }
            let id = desk.close(slot)?.id;
            let at = desk.advance(wall);
            let entry = Entry::new(Kind::StepFailed, id.clone(), error.clone(), at);
            let index = desk.record(entry.with_meta(&meta), weight);
            desk.failed(id, index);
            Outcome::StepFailed(error)
        }
    };
    let at = desk.now();
    Some(Turn::Deliver { slot, outcome, at })
}

/// Another attempt follows after a pause; without one, when people say so.
fn attempt_failed(
    mut desk: Desk<'_>,
    slot: Slot,
    attempt: u32,
    error: Payload,
    pause: Option<Millis>,
    wall: Millis,
) {
    // The record tells the handler nothing, so its clock stays where it is.
    let at = desk.at(wall);
    let until = pause.map(|pause| at.saturating_add(pause));
    let Some(op) = desk.op_mut(slot) else { return };
    if let OpKind::Step { failed, .. } = &mut op.kind {
        *failed = attempt;
    }
    let meta = Meta {
        attempt: Some(attempt),
        retry_at: until,
        exhausted: until.is_none(),
        ..Meta::default()
    };
    let entry = Entry::new(Kind::StepAttemptFailed, op.id.clone(), error, at);
    desk.record(entry.with_meta(&meta), Weight::Hard);
    // The barrier of the next attempt is this record: attempts survive crashes.
    match until {
        Some(until) => desk.back_off(slot, until),
        None => desk.exhausted(slot),
    }
}

#[cfg(test)]
mod tests {
    use super::StepOutcome;
    use crate::ids::Payload;
    use crate::journal::{Kind, Meta};
    use crate::machine::op::Checkpoint;
    use crate::machine::testing::program::RETRY;
    use crate::machine::testing::{
        Fault, Journal, Rest, Sim, T0, failed, job, join, race, succeeded, within,
    };
    use crate::retry::RetryPolicy;
    use crate::run::Status;

    /// Three attempts, 50 ms apart.
    const THRICE: RetryPolicy = RetryPolicy {
        jitter: false,
        ..RETRY
    };

    #[test]
    fn sequential_steps_cost_a_commit_each_and_the_end_rides_in_the_last() {
        let mut sim = Sim::new(|ctx| async move {
            for n in 0..10 {
                ctx.step(&format!("s{n}")).await?;
            }
            Ok("done".into())
        });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.store.commits.len(), 10);
        let last = sim.store.commits.last().unwrap();
        assert_eq!(last.entries.len(), 2);
        assert_eq!(last.entries[1].kind, Kind::RunFinished);
    }

    #[test]
    fn parallel_steps_share_commits() {
        let mut sim = Sim::new(|ctx| async move {
            let steps = (0..200).map(|n| job(ctx.step(&format!("s{n}"))));
            join(steps.collect()).await.into_iter().collect()
        });
        sim.claim();
        assert_eq!(sim.settle(), Rest::Waiting);
        assert_eq!(sim.running.len(), 200);
        sim.complete("s7");
        assert_eq!(sim.settle(), Rest::Committing);
        // While one commit is on its way, the others gather.
        while !sim.running.is_empty() {
            sim.complete_at(0);
            sim.settle();
        }
        sim.apply();
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.store.commits.len(), 2);
    }

    #[test]
    fn a_step_does_not_start_before_what_stood_before_it_is_durable() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.step("b").await
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert_eq!(sim.starts, ["a/1"]);
        sim.apply();
        sim.settle();
        assert_eq!(sim.starts, ["a/1", "b/1"]);
    }

    #[test]
    fn a_lazy_result_rides_along_and_holds_nothing_up() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.lazy("a").await?;
            ctx.lazy("b").await?;
            ctx.step("c").await
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Waiting);
        assert_eq!(sim.starts, ["a/1", "b/1"]);
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.store.commits.len(), 1);
    }

    #[test]
    fn attempts_survive_a_crash_and_the_pause_between_them_holds_no_worker() {
        let mut sim =
            Sim::new(|ctx| async move { ctx.step_with("a", THRICE, Checkpoint::Durable).await })
                .rule(|_, attempt| {
                    if attempt < 3 {
                        failed("boom")
                    } else {
                        succeeded("1")
                    }
                });
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.waits, ["retry:a"]);
        assert_eq!(sim.store.row.ready_at, Some(T0 + 50));
        sim.clock = T0 + 60;
        sim.claim();
        sim.settle();
        assert_eq!(sim.starts, ["a/1", "a/2"]);
        sim.complete("a");
        sim.settle();
        sim.apply();
        sim.clock += 50;
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["a/1", "a/2", "a/3"]);
        let meta: Vec<_> = sim
            .store
            .journal
            .iter()
            .map(|entry| entry.meta.clone())
            .collect();
        assert_eq!(
            meta[1].as_deref(),
            Some(r#"{"attempt":1,"retry_at":1000050}"#)
        );
        assert_eq!(
            meta[2].as_deref(),
            Some(r#"{"attempt":2,"retry_at":1000110}"#)
        );
        assert_eq!(meta[3].as_deref(), Some(r#"{"attempt":3}"#));
    }

    #[test]
    fn what_an_attempt_tells_of_its_progress_is_there_for_the_next_one_and_for_nobody_else() {
        let mut sim =
            Sim::new(|ctx| async move { ctx.step_with("a", THRICE, Checkpoint::Durable).await });
        sim.claim();
        sim.settle();
        let slot = sim.running[0].0;
        let told = |sim: &mut Sim, text: &'static str| {
            let (progress, wall) = (Payload::from_static(text.as_bytes()), sim.clock);
            sim.machine(|machine| machine.step_progress(slot, progress, wall))
        };
        assert_eq!(sim.machine(|machine| machine.progress_of(slot)), None);
        assert!(told(&mut sim, "1"));
        assert_eq!(sim.settle(), Rest::Committing);
        sim.apply();
        assert!(told(&mut sim, "2"));
        sim.settle();
        sim.apply();
        assert_eq!(
            sim.store.story()[1..],
            ["step_progress a", "step_progress a"]
        );
        assert_eq!(sim.store.row.status, Status::Running);
        // Another process: the step runs again, in the same attempt, and can go on from there.
        sim.claim();
        sim.settle();
        assert_eq!(sim.starts, ["a/1", "a/1"]);
        let slot = sim.running[0].0;
        let found = sim.machine(|machine| machine.progress_of(slot));
        assert_eq!(found.as_deref(), Some(&b"2"[..]));
        sim.complete("a");
        assert!(!told(&mut sim, "3"), "it is over");
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn code_that_does_not_ask_for_a_step_any_more_is_not_held_to_its_progress() {
        let journal = Journal::new("", T0).entry(Kind::StepProgress, "a", "1");
        let mut sim = Sim::replaying(journal, |ctx| async move { ctx.step("b").await });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["b/1"]);
    }

    #[test]
    fn the_next_attempt_waits_until_the_failed_one_is_recorded() {
        let once_more = RetryPolicy { base: 0, ..THRICE };
        let mut sim =
            Sim::new(
                move |ctx| async move { ctx.step_with("a", once_more, Checkpoint::Durable).await },
            )
            .rule(|_, _| failed("boom"));
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert_eq!(sim.starts, ["a/1"]);
        sim.apply();
        sim.settle();
        assert_eq!(sim.starts, ["a/1", "a/2"]);
    }

    #[test]
    fn the_last_attempt_fails_the_step_and_the_run_says_which_entry_it_was() {
        let mut sim =
            Sim::new(|ctx| async move { ctx.step_with("a", THRICE, Checkpoint::Durable).await })
                .rule(|_, _| failed("boom"));
        assert_eq!(sim.run_through(), Status::Failed);
        assert_eq!(sim.starts, ["a/1", "a/2", "a/3"]);
        assert_eq!(sim.seen, ["a failed: boom"]);
        let end = sim.store.journal.last().unwrap();
        assert_eq!(end.meta.as_deref(), Some(r#"{"cause":3}"#));
    }

    #[test]
    fn a_failure_that_must_not_be_retried_ends_the_step_at_once() {
        let mut sim =
            Sim::new(|ctx| async move { ctx.step_with("a", THRICE, Checkpoint::Durable).await })
                .rule(|_, _| StepOutcome::Failed {
                    error: Payload::from_static(b"fatal"),
                    retryable: false,
                });
        assert_eq!(sim.run(), Status::Failed);
        assert_eq!(sim.starts, ["a/1"]);
    }

    #[test]
    fn a_failure_that_was_caught_is_not_run_again_on_replay() {
        let mut sim = Sim::new(|ctx| async move {
            assert!(ctx.step("a").await.is_err());
            ctx.event("go", None).await
        })
        .rule(|_, _| failed("boom"));
        assert_eq!(sim.run(), Status::Waiting);
        sim.event("go", "1");
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["a/1"]);
    }

    #[test]
    fn the_late_result_of_a_cancelled_step_never_reaches_the_journal() {
        let mut sim = Sim::new(|ctx| async move {
            let (winner, _) = race(vec![job(ctx.step("slow")), job(ctx.step("fast"))]).await;
            assert_eq!(winner, 1);
            ctx.step("next").await
        });
        sim.claim();
        sim.settle();
        let slow = sim.running[0].0;
        sim.complete("fast");
        sim.settle();
        assert_eq!(sim.stopped, ["slow"]);
        sim.report(slow, succeeded("too late"));
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(
            sim.store.story(),
            [
                "run_created",
                "step_completed fast",
                "step_completed next",
                "run_finished"
            ]
        );
    }

    #[test]
    fn a_result_that_arrived_is_dropped_if_the_handler_gives_the_step_up_first() {
        let mut sim = Sim::new(|ctx| async move {
            let (winner, _) = race(vec![job(ctx.step("slow")), job(ctx.step("fast"))]).await;
            assert_eq!(winner, 1);
            Ok("done".into())
        });
        sim.claim();
        sim.settle();
        sim.complete("fast");
        sim.complete("slow");
        assert_eq!(sim.run(), Status::Completed);
        assert!(!sim.store.story().contains(&"step_completed slow".into()));
    }

    #[test]
    fn an_attempt_that_is_reported_twice_counts_once() {
        let mut sim =
            Sim::new(|ctx| async move { ctx.step_with("a", THRICE, Checkpoint::Durable).await });
        sim.claim();
        sim.settle();
        let slot = sim.running[0].0;
        sim.report(slot, failed("boom"));
        sim.report(slot, failed("boom"));
        sim.settle();
        assert_eq!(sim.machine(|machine| machine.steps_running()), 0);
        let sent = &sim.sent().unwrap().entries;
        assert_eq!(sent[0].kind, Kind::StepAttemptFailed);
        assert_eq!(sent.len(), 1);
    }

    #[test]
    fn a_damaged_count_of_attempts_neither_overflows_nor_starts_again_at_one() {
        let meta = Meta {
            attempt: Some(u32::MAX),
            retry_at: Some(T0),
            ..Meta::default()
        };
        let journal = Journal::new("", T0).with(Kind::StepAttemptFailed, "a", "boom", &meta);
        let mut sim = Sim::replaying(journal, |ctx| async move {
            ctx.step_with("a", THRICE, Checkpoint::Durable).await
        })
        .rule(|_, _| failed("boom"));
        assert_eq!(sim.run(), Status::Failed);
        assert_eq!(sim.starts, [format!("a/{}", u32::MAX)]);
    }

    #[test]
    fn repeated_ids_are_numbered_by_order_of_request() {
        let mut sim = Sim::new(|ctx| async move {
            for _ in 0..3 {
                ctx.step("a").await?;
            }
            Ok(String::new())
        });
        sim.run();
        assert_eq!(sim.starts, ["a/1", "a#2/1", "a#3/1"]);
    }

    #[test]
    fn an_id_that_an_approval_has_is_raised_in_the_handler_now_and_on_replay() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.approve(Some("ship"), None).await?;
            assert!(matches!(ctx.step("ship").await, Err(Fault::Refused(_))));
            // A repeat of the approval: it is not the step's, whatever the journal says of it.
            ctx.approve(Some("ship"), None).await?;
            ctx.step("ship-it").await
        });
        assert_eq!(sim.run(), Status::Waiting);
        sim.decide("ship", "true");
        assert_eq!(sim.run(), Status::Waiting);
        sim.decide("ship#2", "true");
        assert_eq!(sim.run_through(), Status::Completed);
        assert_eq!(sim.starts, ["ship-it/1"]);
    }

    #[test]
    fn a_journal_with_one_id_for_an_approval_and_a_step_is_replayed_and_goes_on() {
        let journal = Journal::new("", T0)
            .entry(Kind::ApprovalResolved, "ship", "true")
            .entry(Kind::StepCompleted, "ship#2", "1");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            ctx.approve(Some("ship"), None).await?;
            ctx.step("ship").await?;
            ctx.step("ship").await
        });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["ship#3/1"]);
    }

    #[test]
    fn a_bad_id_is_raised_in_the_handler_and_counts_nothing() {
        let mut sim = Sim::new(|ctx| async move {
            for bad in ["", "a#2", "a\0"] {
                assert!(matches!(ctx.step(bad).await, Err(Fault::Refused(_))));
            }
            ctx.step("a").await
        });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["a/1"]);
    }

    #[test]
    fn a_time_out_ends_a_step_that_is_in_flight() {
        let mut sim = Sim::new(|ctx| async move { within(&ctx, 100, job(ctx.step("slow"))).await });
        sim.claim();
        // The driver must be told to come back, although a step is in flight.
        assert_eq!(sim.settle(), Rest::Hold(T0 + 100));
        sim.clock += 100;
        sim.settle();
        assert_eq!(sim.stopped, ["slow"]);
        assert_eq!(sim.run(), Status::Failed);
    }
}
