//! The handler has returned or raised.

use super::replay;
use crate::ids::{Millis, Payload};
use crate::journal::{Entry, Kind, Meta, Tick};
use crate::primitives::update;
use crate::progress::desk::Desk;
use crate::progress::divergence::{Divergence, Handler};
use crate::progress::ledger::Weight;
use crate::progress::state::Progress;
use crate::run::Status;
use crate::store::Next;

/// How the handler ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Completed(Payload),
    /// With the recorded form of its error, and the operation whose failure it was, if it was one.
    Failed {
        error: Payload,
        op: Option<String>,
    },
    /// After a cancellation was delivered to it.
    Cancelled(Payload),
    /// The run goes on with another input and a fresh journal, under that version.
    Continued {
        input: Payload,
        version: String,
    },
}

impl Ending {
    /// The entry that tells of it, and how a difference does. The entry of a continuation is the first of the next
    /// generation, so no journal has it behind what a handler did.
    const fn how(&self) -> (Option<Kind>, &'static str) {
        match self {
            Self::Completed(_) => (Some(Kind::RunFinished), "returned"),
            Self::Failed { .. } => (Some(Kind::RunFailed), "raised"),
            Self::Cancelled(_) => (Some(Kind::RunCancelled), "was cancelled"),
            Self::Continued { .. } => (None, "continued as new"),
        }
    }
}

/// Records the end, with the entry that a reopening must take back: the failed step, the cancellation
/// or the time-out. On replay of a finished run it is checked against the journal instead, and there is
/// nothing to be made of the run. What a schedule started the run for, each generation is told.
pub(super) fn finish(
    run: &mut Progress,
    ending: Ending,
    tick: Option<&Tick>,
    wall: Millis,
) -> Result<Option<Next>, Divergence> {
    let (kind, how) = ending.how();
    replay::pass_ended_updates(run);
    if let Some(placed) = run.history.pop() {
        return if Some(placed.entry.kind) == kind && run.history.is_empty() {
            Ok(None)
        } else {
            Err(placed.parts_from(Handler::Ended { how }))
        };
    }
    update::settle(Desk::of(run), wall, true);
    let at = run.clock.advance(wall);
    let finished = |status| Next::Finished { status };
    let (payload, cause, next) = match ending {
        Ending::Completed(output) => (output, None, finished(Status::Completed)),
        Ending::Cancelled(reason) => {
            let cause = run.ends.cause_of_cancellation();
            (reason, cause, finished(Status::Cancelled))
        }
        Ending::Failed { error, op } => {
            let cause = run.ends.cause_of_failure(op.as_deref());
            (error, cause, finished(Status::Failed))
        }
        Ending::Continued { input, version } => {
            let ready_at = at;
            (input, None, Next::Continued { ready_at, version })
        }
    };
    let meta = Meta {
        cause,
        tick: tick.filter(|_| kind.is_none()).cloned(),
        undone: run.ends.undone && matches!(kind, Some(Kind::RunFailed | Kind::RunCancelled)),
        ..Meta::default()
    };
    let entry = Entry::new(kind.unwrap_or(Kind::RunCreated), "".into(), payload, at);
    run.ledger.append(entry.with_meta(&meta), Weight::Hard);
    for slot in run.ops.slots() {
        run.close(slot);
    }
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use crate::journal::Kind;
    use crate::machine::AfterCommit;
    use crate::machine::testing::{Fault, Journal, Rest, Sim, T0, failed, job, race};
    use crate::run::Status;

    #[test]
    fn a_run_without_any_operation_costs_one_commit() {
        let mut sim = Sim::new(|_| async { Ok("1".into()) });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.store.commits.len(), 1);
        assert_eq!(sim.store.story(), ["run_created", "run_finished"]);
    }

    #[test]
    fn an_end_that_comes_while_a_commit_is_on_its_way_is_written_after_it() {
        let mut sim = Sim::new(|ctx| async move {
            let steps = ["a", "b", "c"].map(|id| job(ctx.step(id)));
            crate::machine::testing::join(steps.into()).await;
            Ok("done".into())
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        sim.complete("b");
        sim.complete("c");
        sim.settle();
        assert_eq!(sim.apply(), AfterCommit::Driving);
        assert_eq!(sim.settle(), Rest::Committing);
        assert_eq!(sim.apply(), AfterCommit::Ended);
        assert_eq!(sim.store.row.status, Status::Completed);
    }

    #[test]
    fn steps_that_the_handler_left_behind_are_forgotten() {
        let mut sim = Sim::new(|ctx| async move {
            let leaked = ctx.step("leaked");
            ctx.step("a").await?;
            std::mem::forget(leaked);
            Ok("done".into())
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        let leaked = sim.running[0].0;
        sim.report(leaked, failed("late"));
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(
            sim.store.story(),
            ["run_created", "step_completed a", "run_finished"]
        );
    }

    #[test]
    fn a_finished_run_replays_to_its_end_and_writes_nothing() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        sim.run();
        let mut again = Sim::replaying(
            Journal::new("", T0),
            |ctx| async move { ctx.step("a").await },
        );
        again.store.journal = sim.store.journal;
        again.store.row.journal_len = 3;
        again.claim();
        assert_eq!(again.settle(), Rest::Waiting);
        assert!(again.machine(|machine| machine.divergence().is_none()));
        assert!(!again.machine(|machine| machine.is_driving()));
        assert!(again.starts.is_empty());
    }

    #[test]
    fn the_cause_of_a_failure_is_the_step_that_was_not_caught() {
        let mut sim = Sim::new(|ctx| async move {
            let _ = ctx.step("caught").await;
            ctx.step("ok").await?;
            ctx.step("fatal").await
        })
        .rule(|op, _| match op {
            "ok" => crate::machine::testing::succeeded("1"),
            _ => failed("boom"),
        });
        assert_eq!(sim.run(), Status::Failed);
        assert_eq!(sim.store.journal[4].meta().unwrap().cause, Some(3));
    }

    #[test]
    fn a_retry_of_a_run_that_fails_by_itself_fails_again_and_is_not_parked() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            Err(Fault::Raised("still broken".into()))
        });
        assert_eq!(sim.run(), Status::Failed);
        for _ in 0..2 {
            sim.store.retry(sim.clock);
            assert_eq!(sim.run(), Status::Failed, "{:?}", sim.store.row.note);
        }
        assert_eq!(sim.starts, ["a/1"]);
        sim.deploy(|ctx| async move { ctx.step("a").await });
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Completed);
        let ends = |kind| {
            sim.store
                .journal
                .iter()
                .filter(|entry| entry.kind == kind)
                .count()
        };
        assert_eq!((ends(Kind::RunFailed), ends(Kind::RunFinished)), (3, 1));
    }

    #[test]
    fn what_runs_after_the_end_is_refused() {
        let mut sim = Sim::new(|ctx| async move {
            let (_, flow) = race(vec![job(ctx.step("a")), job(ctx.sleep(10))]).await;
            flow
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.turn();
        let late = sim.machine(|machine| machine.request_event("x", None, None));
        assert_eq!(late, Err(crate::machine::Halt::Gone));
    }
    #[test]
    fn a_run_that_continues_begins_anew_with_a_fresh_journal_under_the_version_it_asked_for() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            Err(Fault::Continued("next".into()))
        });
        sim.event("x", "1");
        sim.claim();
        sim.settle();
        sim.complete("a");
        while sim.store.row.generation == 0 {
            if sim.settle() == Rest::Committing {
                sim.apply();
            }
        }
        assert_eq!(sim.after, Some(AfterCommit::Ended));
        assert_eq!(sim.store.story(), ["run_created"]);
        assert_eq!(&sim.store.journal[0].payload[..], b"next");
        let row = &sim.store.row;
        assert_eq!((row.status, row.ready_at), (Status::Queued, Some(T0)));
        assert_eq!((row.journal_start, row.journal_len), (2, 3));
        assert_eq!(row.version, "2");
        // The message that nobody has read goes on, and so does the numbering of the journal.
        sim.deploy(|ctx| async move {
            ctx.event("x", None).await?;
            ctx.step("a").await
        });
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["event-1=1", "a=a!"]);
        assert_eq!(
            sim.store.commits.last().map(|last| last.expected_len),
            Some(4)
        );
        assert_eq!(sim.store.row.journal_len, 6);
    }

    #[test]
    fn what_was_not_durable_yet_goes_with_the_generation_and_what_was_in_flight_is_forgotten() {
        let mut sim = Sim::new(|ctx| async move {
            let leaked = ctx.step("leaked");
            ctx.step("a").await?;
            std::mem::forget(leaked);
            std::mem::forget(ctx.sleep(5));
            Err(Fault::Continued("next".into()))
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        let leaked = sim.running[0].0;
        sim.report(leaked, failed("late"));
        assert_eq!(sim.apply(), AfterCommit::Ended);
        assert_eq!(sim.store.commits.len(), 1);
        assert_eq!(sim.store.story(), ["run_created"]);
    }

    #[test]
    fn each_generation_has_its_own_time_values_and_approvals() {
        let mut sim = Sim::new(|ctx| async move {
            let uuid = ctx.value(crate::derive::ValueKind::Uuid).await;
            ctx.sleep(100).await?;
            ctx.approve(Some("ship"), None).await?;
            Err(Fault::Continued(uuid))
        });
        let mut drawn = Vec::new();
        for (generation, id) in ["ship", "ship@1", "ship@2"].into_iter().enumerate() {
            // It is not taken up at once, and the first one was.
            sim.clock += if generation > 0 { 30 } else { 0 };
            sim.run();
            // Not since the run began: since this generation did.
            let began = sim.store.journal[0].at;
            assert_eq!(sim.store.row.ready_at, Some(began + 100));
            sim.clock = began + 100;
            sim.run();
            assert_eq!(sim.store.row.waits, [format!("approval:{id}")]);
            if generation > 0 {
                // One about the former generation's is none about this.
                sim.decide("ship", "true");
                assert_eq!(sim.run(), Status::Waiting);
            }
            sim.decide(id, "true");
            sim.claim();
            while sim.is_live() {
                sim.settle();
                if sim.is_committing() {
                    sim.apply();
                }
            }
            drawn.push(sim.store.journal[0].payload.clone());
        }
        drawn.dedup();
        assert_eq!(drawn.len(), 3);
    }

    #[test]
    fn a_journal_that_goes_on_where_the_code_continues_is_other_code() {
        let journal = Journal::new("", T0)
            .entry(Kind::StepCompleted, "a", "1")
            .entry(Kind::StepCompleted, "b", "2");
        let mut sim = Sim::replaying(journal, |ctx| async move {
            ctx.step("a").await?;
            Err(Fault::Continued(String::new()))
        });
        assert_eq!(sim.run(), Status::Stuck);
        let note = sim.store.row.note.clone().unwrap();
        assert!(note.contains("continued as new"), "{note}");
    }

    #[test]
    fn a_continuation_that_the_store_cannot_keep_parks_the_run() {
        let mut sim = Sim::new(|_| async { Err(Fault::Continued("huge".into())) });
        sim.claim();
        sim.settle();
        sim.reject_next();
        sim.apply();
        assert_eq!(sim.run(), Status::Stuck);
        sim.store.retry(sim.clock);
        sim.claim();
        sim.settle();
        assert_eq!(sim.apply(), AfterCommit::Ended);
        assert_eq!(sim.store.row.generation, 1);
    }
}
