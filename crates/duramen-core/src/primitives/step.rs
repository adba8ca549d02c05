//! Steps: run by the driver, recorded with their result, retried by a durable rule.

use crate::ids::{Millis, Payload, check_op_id};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind, Meta};
use crate::machine::ledger::Weight;
use crate::machine::op::{Checkpoint, OpKind, StepPhase};
use crate::machine::{Halt, Machine, Outcome, Requested, Turn};
use crate::retry::RetryPolicy;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    Succeeded(Payload),
    Failed {
        error: Payload,
        /// False when the user's rules forbid another attempt.
        retryable: bool,
    },
}

impl Machine {
    /// The handler asks for a step. With `alone` (nothing else is runnable in its loop) a result
    /// that is the next entry is answered at once: it is what a turn would deliver next anyway.
    pub fn request_step(
        &mut self,
        id: &str,
        retry: RetryPolicy,
        checkpoint: Checkpoint,
        alone: bool,
    ) -> Result<Requested, Halt> {
        self.check_driving()?;
        check_op_id(id)?;
        let id = self.naming.explicit(id);
        let kind = OpKind::Step {
            retry,
            checkpoint,
            failed: 0,
            phase: StepPhase::Requested,
        };
        if alone && !self.history.is_empty() {
            self.pass_reopenings();
            if let Some(placed) = self.history.front()
                && placed.entry.op == id
                && matches!(placed.entry.kind, Kind::StepCompleted | Kind::StepFailed)
                && let Some(placed) = self.history.pop()
            {
                self.replayed += 1;
                self.last_op = id;
                let at = self.advance(placed.entry.at);
                let outcome = self.recorded_outcome(placed.index, placed.entry, &kind);
                return Ok(Requested::Ready { outcome, at });
            }
        }
        let slot = self.open_op(id, kind, None);
        if !(self.recalls() && self.recall(slot)) {
            self.startable.push_back(slot);
        }
        Ok(Requested::Pending(slot))
    }

    /// Starts the next step that may start: its barrier is reached and nothing is left to replay.
    pub(crate) fn next_start(&mut self) -> Option<Turn> {
        loop {
            let slot = *self.startable.front()?;
            if !self.is_requested(slot) {
                self.startable.pop_front();
                continue;
            }
            let op = self.ops.get_mut(slot)?;
            if !self.ledger.reached(op.barrier) {
                return None;
            }
            if let OpKind::Step {
                phase,
                failed,
                checkpoint,
                ..
            } = &mut op.kind
            {
                if *checkpoint == Checkpoint::Sealed {
                    if self.ledger.is_in_flight() {
                        return None; // see `Machine::transacting`
                    }
                    self.transacting.insert(slot);
                }
                self.startable.pop_front();
                *phase = StepPhase::Running;
                self.running += 1;
                return Some(Turn::Start {
                    slot,
                    op: op.id.clone(),
                    attempt: failed.saturating_add(1),
                });
            }
        }
    }

    /// The driver reports how an attempt ended. A report for a step that the handler has given up
    /// meanwhile is dropped: the journal never shows it.
    pub fn step_done(&mut self, slot: Slot, outcome: StepOutcome) {
        self.unseal(slot);
        let Some(op) = self.ops.get_mut(slot) else {
            return;
        };
        if let OpKind::Step { phase, .. } = &mut op.kind
            && *phase == StepPhase::Running
        {
            *phase = StepPhase::Arrived;
            self.running -= 1;
            self.transacting.remove(&slot);
            self.arrive(slot, outcome);
        }
    }

    /// Gives an attempt's outcome its place in the journal.
    pub(crate) fn step_ended(
        &mut self,
        slot: Slot,
        outcome: StepOutcome,
        wall: Millis,
    ) -> Option<Turn> {
        let op = self.ops.get_mut(slot)?;
        let OpKind::Step {
            retry,
            checkpoint,
            failed,
            ..
        } = &mut op.kind
        else {
            return None;
        };
        let attempt = failed.saturating_add(1);
        let id = op.id.clone();
        let weight = match checkpoint {
            Checkpoint::Durable | Checkpoint::Sealed => Weight::Hard,
            Checkpoint::Lazy => Weight::Light,
        };
        let mut meta = Meta {
            attempt: Some(attempt).filter(|attempt| *attempt > 1),
            ..Meta::default()
        };
        match outcome {
            StepOutcome::Succeeded(result) => {
                self.close_op(slot);
                let at = self.advance(wall);
                self.ledger.append(
                    Entry::new(Kind::StepCompleted, id, result, at).with_meta(&meta),
                    weight,
                );
                Some(Turn::Deliver {
                    slot,
                    outcome: Outcome::StepCompleted(None),
                    at,
                })
            }
            StepOutcome::Failed { error, retryable } => {
                let pause = retry
                    .pause_after(attempt, &self.facts.seed, &id)
                    .filter(|_| retryable);
                if let Some(pause) = pause {
                    // The record tells the handler nothing, so its clock stays where it is.
                    let at = self.now.max(wall);
                    let until = at.saturating_add(pause);
                    *failed = attempt;
                    meta.attempt = Some(attempt);
                    meta.retry_at = Some(until);
                    self.ledger.append(
                        Entry::new(Kind::StepAttemptFailed, id, error, at).with_meta(&meta),
                        Weight::Hard,
                    );
                    // The barrier of the next attempt is this record: attempts survive crashes.
                    op.barrier = self.ledger.barrier();
                    self.ops.set_phase(slot, StepPhase::Backoff, Some(until));
                    return None;
                }
                self.close_op(slot);
                let at = self.advance(wall);
                let index = self.ledger.append(
                    Entry::new(Kind::StepFailed, id.clone(), error.clone(), at).with_meta(&meta),
                    weight,
                );
                self.note_failure(&id, index);
                Some(Turn::Deliver {
                    slot,
                    outcome: Outcome::StepFailed(error),
                    at,
                })
            }
        }
    }

    /// The pause between two attempts is over.
    pub(crate) fn backoff_over(&mut self, slot: Slot) {
        self.ops.set_phase(slot, StepPhase::Requested, None);
        self.startable.push_back(slot);
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
