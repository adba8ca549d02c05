//! Delivery of recorded entries, and the exact check that the code still fits them.
//!
//! A difference is an error here; what follows from it, the machine decides.

use crate::inbox::Slot;
use crate::journal::{BadEntry, Kind, Meta};
use crate::primitives::timer::RUN_TIMEOUT_OP;
use crate::progress::divergence::{Divergence, Handler, Recorded};
use crate::progress::history::Placed;
use crate::progress::naming::Holder;
use crate::progress::op::{OpKind, StepPhase};
use crate::progress::state::Progress;
use crate::progress::turn::Turn;

/// Goes through the next recorded entry. Called when nothing is runnable: whatever the handler
/// was going to ask for before this entry, it has asked for.
pub(super) fn turn(run: &mut Progress) -> Result<Option<Turn>, Divergence> {
    let Some(placed) = run.history.pop() else {
        return Ok(None);
    };
    match placed.entry.kind {
        Kind::StepCompleted | Kind::StepFailed => {
            return end(run, placed, |kind| matches!(kind, OpKind::Step { .. })).map(Some);
        }
        Kind::EventReceived => return event(run, placed).map(Some),
        Kind::ApprovalResolved => {
            return end(run, placed, |kind| matches!(kind, OpKind::Approval { .. })).map(Some);
        }
        Kind::ChildFinished => return child(run, placed).map(Some),
        Kind::TimerFired if &*placed.entry.op == RUN_TIMEOUT_OP => {
            run.ends.timed_out(placed.index);
            let at = run.clock.advance(placed.entry.at);
            return Ok(Some(Turn::TimeOut { at }));
        }
        Kind::TimerFired => {
            let is_timed = |kind: &OpKind| {
                matches!(
                    kind,
                    OpKind::Timer
                        | OpKind::Event { .. }
                        | OpKind::Approval { .. }
                        | OpKind::Step { looks: Some(_), .. }
                )
            };
            return end(run, placed, is_timed).map(Some);
        }
        Kind::CancelRequested => {
            run.ends.cancelled(placed.index);
            let at = run.clock.advance(placed.entry.at);
            let reason = placed.entry.payload;
            return Ok(Some(Turn::Cancel { reason, at }));
        }
        Kind::StepAttemptFailed | Kind::WaitOpened | Kind::ApprovalRequested => {
            note(run, &placed)?;
        }
        Kind::RunReopened => run.reopened(placed.entry.at),
        Kind::RunParked => {}
        Kind::PatchMarked => run.patches.marked(placed.entry.op),
        Kind::UpdateAccepted => return update(run, placed).map(Some),
        Kind::UpdateFinished => update_finished(run, &placed)?,
        Kind::ValueRecorded
        | Kind::RunCreated
        | Kind::RunFinished
        | Kind::RunFailed
        | Kind::RunCancelled
        | Kind::RunTerminated
        | Kind::ChildStarted
        | Kind::MessageSent
        | Kind::StreamWritten
        | Kind::StepProgress
        | Kind::Unknown(_) => return Err(not_asked(run, &placed)),
    }
    Ok(None)
}

/// An entry that ends an operation: it must be open, and of that kind.
fn end(
    run: &mut Progress,
    placed: Placed,
    fits: impl Fn(&OpKind) -> bool,
) -> Result<Turn, Divergence> {
    let slot = find_open(run, &placed, fits)?;
    let Some(op) = run.close(slot) else {
        return Err(not_asked(run, &placed));
    };
    let at = run.clock.advance(placed.entry.at);
    let outcome = run.recorded_outcome(placed, &op.kind);
    Ok(Turn::Deliver { slot, outcome, at })
}

fn event(run: &mut Progress, placed: Placed) -> Result<Turn, Divergence> {
    let recorded = match placed.entry.meta() {
        Ok(meta) => meta.wait,
        Err(error) => return Err(unreadable(run, &placed, error)),
    };
    let slot = find_open(run, &placed, |kind| matches!(kind, OpKind::Event { .. }))?;
    check_wait(run, &placed, slot, recorded.as_deref())?;
    end(run, placed, |_| true)
}

fn child(run: &mut Progress, placed: Placed) -> Result<Turn, Divergence> {
    if let Err(error) = placed.entry.meta() {
        return Err(unreadable(run, &placed, error));
    }
    end(run, placed, |kind| matches!(kind, OpKind::Child { .. }))
}

/// An update was accepted: its function starts here again, as it did then.
fn update(run: &mut Progress, placed: Placed) -> Result<Turn, Divergence> {
    let meta = match placed.entry.meta() {
        Ok(meta) => meta,
        Err(error) => return Err(unreadable(run, &placed, error)),
    };
    let key = meta.wait.unwrap_or_default();
    let Some(taker) = run.updates.taker(&key) else {
        let taken = run.updates.keys();
        return Err(placed.parts_from(Handler::TakesNot { key, taken }));
    };
    let id = run.naming.automatic("update", Holder::Unnamed);
    if id != placed.entry.op {
        let asked = id.to_string();
        return Err(placed.parts_from(Handler::OtherValue { asked }));
    }
    let message = meta.message.unwrap_or_default();
    run.inbox.take_on(&message);
    let slot = run.open(id, OpKind::Update { message }, None);
    let at = run.clock.advance(placed.entry.at);
    Ok(Turn::Apply {
        taker,
        slot,
        payload: Some(placed.entry.payload),
        at,
    })
}

/// Its function had ended when this was recorded, so it must have ended now.
fn update_finished(run: &mut Progress, placed: &Placed) -> Result<(), Divergence> {
    let slot = find_open(run, placed, |kind| matches!(kind, OpKind::Update { .. }))?;
    if !run.updates.settle(slot) {
        return Err(placed.parts_from(Handler::StillApplies));
    }
    if let Some(OpKind::Update { message }) = run.close(slot).map(|op| op.kind) {
        run.inbox.was_answered(&message);
    }
    Ok(())
}

/// The handler has ended: what comes before its end in the journal and tells it nothing.
pub(super) fn pass_ended_updates(run: &mut Progress) {
    loop {
        run.pass_notes();
        let Some(placed) = run.history.front() else {
            return;
        };
        if placed.entry.kind != Kind::UpdateFinished {
            return;
        }
        let Some(slot) = run.ops.slot_of(&placed.entry.op) else {
            return;
        };
        if !run.updates.settle(slot) {
            return;
        }
        run.close(slot);
        run.history.pop();
    }
}

fn find_open(
    run: &Progress,
    placed: &Placed,
    fits: impl Fn(&OpKind) -> bool,
) -> Result<Slot, Divergence> {
    let Some(slot) = run.ops.slot_of(&placed.entry.op) else {
        return Err(not_asked(run, placed));
    };
    let asked = match run.ops.get(slot) {
        Some(op) if fits(&op.kind) => return Ok(slot),
        Some(op) => op.kind.name(),
        None => "nothing",
    };
    Err(placed.parts_from(Handler::OtherKind { asked }))
}

/// Whether the recorded wait is for what the handler waits for now.
fn check_wait(
    run: &Progress,
    placed: &Placed,
    slot: Slot,
    was: Option<&str>,
) -> Result<(), Divergence> {
    let asked = run.ops.get(slot).and_then(|op| op.kind.wait_key());
    match (was, asked) {
        (Some(was), Some(asked)) if was != asked => Err(placed.parts_from(Handler::OtherWait {
            was: was.to_owned(),
            asked: asked.to_owned(),
        })),
        _ => Ok(()),
    }
}

/// An entry that tells something of an open operation and delivers nothing.
fn note(run: &mut Progress, placed: &Placed) -> Result<(), Divergence> {
    let meta = match placed.entry.meta() {
        Ok(meta) => meta,
        Err(error) => return Err(unreadable(run, placed, error)),
    };
    match placed.entry.kind {
        Kind::StepAttemptFailed => attempt(run, placed, &meta),
        Kind::ApprovalRequested => wait(run, placed, &meta, |kind| {
            matches!(kind, OpKind::Approval { .. })
        }),
        _ => wait(run, placed, &meta, |kind| {
            matches!(
                kind,
                OpKind::Timer | OpKind::Event { .. } | OpKind::Child { .. }
            )
        }),
    }
}

fn attempt(run: &mut Progress, placed: &Placed, meta: &Meta) -> Result<(), Divergence> {
    let slot = find_open(run, placed, |kind| matches!(kind, OpKind::Step { .. }))?;
    if let Some(OpKind::Step { failed, .. }) = run.ops.get_mut(slot).map(|op| &mut op.kind) {
        *failed = meta.attempt.unwrap_or(1);
    }
    if meta.exhausted {
        run.ops.set_phase(slot, StepPhase::Exhausted, None);
        return Ok(());
    }
    let until = meta.retry_at.unwrap_or(placed.entry.at);
    run.ops.set_phase(slot, StepPhase::Backoff, Some(until));
    Ok(())
}

/// A wait's deadline was fixed when it was first reached, whatever the code says now.
fn wait(
    run: &mut Progress,
    placed: &Placed,
    meta: &Meta,
    fits: impl Fn(&OpKind) -> bool,
) -> Result<(), Divergence> {
    let slot = find_open(run, placed, fits)?;
    check_wait(run, placed, slot, meta.wait.as_deref())?;
    run.ops.mark_opened(slot);
    // Only a timer cannot do without one.
    let is_timer = run
        .ops
        .get(slot)
        .is_some_and(|op| matches!(op.kind, OpKind::Timer));
    if meta.deadline.is_some() || !is_timer {
        run.ops.set_deadline(slot, meta.deadline);
    }
    Ok(())
}

/// The handler was given what is recorded of this operation, and cannot make use of it.
pub(super) fn cannot_read(run: &Progress, op: &str, why: String) -> Divergence {
    let (index, recorded) = match run.history.last() {
        Some((index, kind)) => (
            index,
            Recorded::Entry {
                kind,
                op: op.to_owned(),
            },
        ),
        None => (run.history.replayed(), Recorded::End),
    };
    Divergence {
        index,
        recorded,
        handler: Handler::CannotRead { why },
    }
}

fn not_asked(run: &Progress, placed: &Placed) -> Divergence {
    let open = run.open_operations();
    placed.parts_from(Handler::Waiting { open })
}

fn unreadable(run: &Progress, placed: &Placed, error: BadEntry) -> Divergence {
    Divergence {
        index: placed.index,
        recorded: Recorded::Unreadable(error),
        handler: Handler::Waiting {
            open: run.open_operations(),
        },
    }
}

#[cfg(test)]
mod tests {
    use crate::derive::ValueKind;
    use crate::journal::Kind;
    use crate::machine::op::Checkpoint;
    use crate::machine::testing::program::RETRY;
    use crate::machine::testing::{Journal, Sim, T0, failed, job, join, race, succeeded};
    use crate::run::Status;

    #[test]
    fn outcomes_come_in_the_order_of_the_journal_whatever_the_order_of_request() {
        let journal = Journal::new("", T0)
            .entry(Kind::StepCompleted, "b", "2")
            .entry(Kind::StepCompleted, "a", "1");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            let steps = ["a", "b"].map(|id| job(ctx.step(id)));
            let (winner, _) = race(steps.into_iter().collect()).await;
            assert_eq!(winner, 1);
            ctx.step("c").await
        });
        // The winner of the race cancels the other: its recorded result has nobody to go to.
        assert_eq!(sim.run(), Status::Stuck);
        let journal = Journal::new("", T0)
            .entry(Kind::StepCompleted, "b", "2")
            .entry(Kind::StepCompleted, "a", "1");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            join(["a", "b"].map(|id| job(ctx.step(id))).into()).await;
            Ok(String::new())
        });
        sim.run();
        assert_eq!(sim.seen, ["b=2", "a=1"]);
    }

    #[test]
    fn a_retry_runs_the_failed_step_again_with_fresh_attempts_and_no_other() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("before").await?;
            let jobs = vec![
                job(ctx.step_with("bad", RETRY, Checkpoint::Durable)),
                job(ctx.step("beside")),
                job(ctx.event("x", None)),
            ];
            join(jobs).await.into_iter().collect()
        })
        .rule(|op, _| {
            if op == "bad" {
                failed("boom")
            } else {
                succeeded("1")
            }
        });
        sim.event("x", "7");
        assert_eq!(sim.run_through(), Status::Failed);
        sim.starts.clear();
        sim = sim.rule(|_, attempt| {
            if attempt < 3 {
                failed("boom")
            } else {
                succeeded("2")
            }
        });
        sim.store.retry(sim.clock);
        assert_eq!(sim.run_through(), Status::Completed);
        assert_eq!(sim.starts, ["bad/1", "bad/2", "bad/3"]);
        assert_eq!(sim.store.read, [(1, None)]);
    }

    /// A run whose step `bad` failed at entry 1, and `other` succeeded after it.
    fn failed_beside_a_result() -> Journal {
        let cause = crate::journal::Meta {
            cause: Some(1),
            ..crate::journal::Meta::default()
        };
        Journal::new("", T0)
            .entry(Kind::StepFailed, "bad", "boom")
            .entry(Kind::StepCompleted, "other", "recorded")
            .with(Kind::RunFailed, "", "boom", &cause)
            .with(Kind::RunReopened, "", "", &cause)
    }

    #[test]
    fn a_result_that_was_taken_back_serves_whenever_it_is_asked_for_again() {
        // Asked for at once, and behind a value that the journal has after the reopening.
        for value in [false, true] {
            let mut journal = failed_beside_a_result().entry(Kind::StepCompleted, "bad", "1");
            if value {
                journal = journal.entry(Kind::ValueRecorded, "uuid-1", "\"u\"");
            }
            let mut sim = Sim::replaying(journal, move |ctx| async move {
                ctx.step("bad").await?;
                let other = ctx.step("other");
                if value {
                    ctx.value(ValueKind::Uuid).await;
                }
                other.await
            });
            assert_eq!(sim.run(), Status::Completed);
            assert!(sim.starts.is_empty(), "value: {value}");
            assert_eq!(&sim.store.journal.last().unwrap().payload[..], b"recorded");
        }
    }

    #[test]
    fn a_result_that_was_recorded_again_already_is_not_recorded_twice() {
        let journal = failed_beside_a_result().entry(Kind::StepCompleted, "other", "recorded");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            let steps = ["bad", "other"].map(|id| job(ctx.step(id)));
            join(steps.into()).await.into_iter().collect()
        });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["bad/1"]);
        let again = sim.store.story();
        let again = again
            .iter()
            .filter(|entry| *entry == "step_completed other");
        assert_eq!(again.count(), 2);
    }

    #[test]
    fn new_code_may_ask_for_a_value_right_after_the_reopening() {
        let journal = Journal::new("", T0)
            .entry(Kind::StepCompleted, "a", "1")
            .entry(Kind::RunFailed, "", "boom");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            ctx.step("a").await?;
            Ok(ctx.value(ValueKind::Uuid).await)
        });
        sim.store.retry(T0);
        assert_eq!(sim.run(), Status::Completed, "{:?}", sim.store.row.note);
    }

    #[test]
    fn an_event_that_was_taken_back_is_not_given_to_a_wait_for_another() {
        let mut sim = Sim::new(|ctx| async move {
            let jobs = vec![job(ctx.step("bad")), job(ctx.event("x", None))];
            join(jobs).await.into_iter().collect()
        })
        .rule(|_, _| failed("boom"));
        sim.event("x", "7");
        sim.claim();
        sim.settle();
        sim.complete("bad");
        while sim.is_live() {
            sim.settle();
            if sim.is_committing() {
                sim.apply();
            }
        }
        // `bad` failed first or the event came first; take both back.
        assert_eq!(sim.store.row.status, Status::Failed);
        sim.store.retry(sim.clock);
        let last = sim.store.journal.len() - 1;
        sim.store.journal[last].meta = Some(r#"{"cause":1}"#.into());
        sim.deploy(|ctx| async move { ctx.event("y", None).await });
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(sim.store.row.waits, ["event:y"]);
    }

    #[test]
    fn a_recorded_step_answers_at_once_where_nothing_else_is_runnable() {
        let journal = Journal::new("", T0)
            .entry(Kind::StepCompleted, "a", "1")
            .entry(Kind::StepFailed, "a#2", "boom");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            let ctx = ctx.alone();
            ctx.step("a").await?;
            ctx.step("a").await
        });
        sim.claim();
        // No turn was needed: both answers came while the handler ran for the first time.
        assert_eq!(sim.seen, ["a=1", "a#2 failed: boom"]);
        assert_eq!(sim.machine(|machine| machine.replayed()), 2);
        sim.settle();
        sim.apply();
        assert_eq!(sim.store.row.status, Status::Failed);
        assert_eq!(sim.store.journal[3].meta().unwrap().cause, Some(2));
    }
}
