//! The handler has returned or raised.

use crate::ids::{Millis, Payload};
use crate::journal::{Entry, Kind, Meta};
use crate::progress::divergence::{Divergence, Handler};
use crate::progress::ledger::Weight;
use crate::progress::state::Progress;
use crate::run::Status;

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
}

impl Ending {
    const fn how(&self) -> (Kind, Status, &'static str) {
        match self {
            Self::Completed(_) => (Kind::RunFinished, Status::Completed, "returned"),
            Self::Failed { .. } => (Kind::RunFailed, Status::Failed, "raised"),
            Self::Cancelled(_) => (Kind::RunCancelled, Status::Cancelled, "was cancelled"),
        }
    }
}

/// Records the end, with the entry that a reopening must take back: the failed step, the cancellation
/// or the time-out. On replay of a finished run it is checked against the journal instead, and there is
/// no status to be written.
pub(super) fn finish(
    run: &mut Progress,
    ending: Ending,
    wall: Millis,
) -> Result<Option<Status>, Divergence> {
    let (kind, status, how) = ending.how();
    run.pass_notes();
    if let Some(placed) = run.history.pop() {
        return if placed.entry.kind == kind && run.history.is_empty() {
            Ok(None)
        } else {
            Err(placed.parts_from(Handler::Ended { how }))
        };
    }
    let (payload, cause) = match ending {
        Ending::Completed(output) => (output, None),
        Ending::Cancelled(reason) => (reason, run.ends.cause_of_cancellation()),
        Ending::Failed { error, op } => (error, run.ends.cause_of_failure(op.as_deref())),
    };
    let meta = Meta {
        cause,
        undone: run.ends.undone && kind != Kind::RunFinished,
        ..Meta::default()
    };
    let at = run.clock.advance(wall);
    let entry = Entry::new(kind, "".into(), payload, at);
    run.ledger.append(entry.with_meta(&meta), Weight::Hard);
    for slot in run.ops.slots() {
        run.close(slot);
    }
    Ok(Some(status))
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
}
