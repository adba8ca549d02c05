//! When a commit is due: after each result that must not be lost, and when the run can only wait.

use super::commits::Commits;
use super::hooks::On;
use super::standing::{Phase, Standing};
use crate::ids::{Millis, Payload};
use crate::journal::{Entry, Kind, Meta};
use crate::progress::divergence::{Divergence, Handler, Recorded};
use crate::progress::ledger::Weight;
use crate::progress::op::OpKind;
use crate::progress::state::Progress;
use crate::store::{Next, RunCommit};

/// What to do when a turn was idle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing; something in flight will come in.
    Wait,
    /// Call [`Machine::turn`] again then at the latest: a step or a commit is in flight and a
    /// deadline runs beside it, or nothing is and a deadline is so near that the lease is kept.
    ///
    /// [`Machine::turn`]: crate::machine::Machine::turn
    Hold { until: Millis },
    /// Hand this to the store; report its outcome by [`Machine::committed`].
    ///
    /// [`Machine::committed`]: crate::machine::Machine::committed
    Commit(Box<RunCommit>),
}

impl Commits {
    /// Decides what the store must be told now.
    pub(super) fn next(
        &mut self,
        run: &mut Progress,
        standing: &mut Standing,
        wall: Millis,
        hold: Millis,
    ) -> Decision {
        if run.ledger.is_in_flight() {
            // When the driver has to come back even if nothing that is in flight comes in.
            return run
                .next_deadline()
                .filter(|_| standing.is_driving() && !self.starts_nothing(run))
                .map_or(Decision::Wait, |until| Decision::Hold { until });
        }
        if run.ledger.is_crowded() && !run.steps.is_transacting() && standing.phase != Phase::Gone {
            return Decision::Commit(self.build_part(run, wall));
        }
        if standing.is_driving() {
            match self.pause_or_save(run, standing, wall, hold) {
                Ok(decision) => return decision,
                Err(divergence) => standing.park(divergence, &run.facts.version),
            }
        }
        match &standing.phase {
            Phase::Driving | Phase::Gone | Phase::Paused | Phase::Releasing => Decision::Wait,
            Phase::Ended(next) => {
                let next = next.clone();
                self.commit(run, next, wall)
            }
            Phase::Parking { note, bare } => {
                let note = note.clone();
                if !bare && self.hooks.iter().any(|hook| hook.on == On::Stuck) {
                    let at = run.clock.at(wall);
                    let entry = Entry::new(Kind::RunParked, "".into(), Payload::new(), at);
                    run.ledger.append(entry, Weight::Hard);
                }
                self.commit(run, Next::Stuck { note }, wall)
            }
            Phase::Leaving { format, waits } => {
                let (format, waits) = (*format, waits.clone());
                let mut commit = self.release(run, standing, Some(wall), waits, wall);
                commit.format = Some(format);
                Decision::Commit(commit)
            }
        }
    }

    /// Of a run that is driven. An error if it can never go on.
    fn pause_or_save(
        &mut self,
        run: &mut Progress,
        standing: &mut Standing,
        wall: Millis,
        hold: Millis,
    ) -> Result<Decision, Divergence> {
        let due = run.next_deadline();
        if !self.is_quiescent(run) {
            let starts_nothing = self.starts_nothing(run);
            return Ok(self.save(run, wall, due.filter(|_| !starts_nothing)));
        }
        if let Some(note) = run.pause_note() {
            return Ok(self.hold_up(run, standing, note, wall));
        }
        if self.yielding {
            let ready_at = if has_fresh_work(run, wall) {
                Some(wall)
            } else {
                due
            };
            return Ok(self.pause(run, standing, ready_at, wall));
        }
        if run.inbox.has_match() {
            // A message came in since the last turn. To pause now would be to sleep over it.
            return Ok(self.save(run, wall, Some(wall)));
        }
        if run.ops.is_empty() {
            return Err(Divergence {
                index: run.ledger.journal_len(),
                recorded: Recorded::End,
                handler: Handler::Deadlocked,
            });
        }
        if let Some(until) = due
            && until.saturating_sub(wall) <= hold
        {
            return Ok(self.save(run, wall, Some(until)));
        }
        Ok(self.pause(run, standing, due, wall))
    }

    /// Nothing is in flight and nothing can start: only time or a message can bring the run on.
    fn is_quiescent(&self, run: &mut Progress) -> bool {
        let starts_nothing = self.starts_nothing(run);
        let startable = run.steps.next(&run.ops).is_some();
        run.steps.running() == 0
            && (run.inbox.is_whole() || self.yielding)
            && run.arrivals.is_empty()
            && !run.inbox.is_offering()
            && run.history.is_empty()
            && (!startable || starts_nothing)
    }

    /// Only what is in flight is brought to an end.
    fn starts_nothing(&self, run: &Progress) -> bool {
        self.yielding || run.is_pausing()
    }

    /// A commit that keeps the lease, if something is staged that must not be lost; else the
    /// lease is kept for what is in flight, or until `wake`.
    fn save(&mut self, run: &mut Progress, wall: Millis, wake: Option<Millis>) -> Decision {
        if (run.ledger.has_hard() || run.inbox.has_read()) && !run.steps.is_transacting() {
            return self.commit(run, Next::Running, wall);
        }
        wake.map_or(Decision::Wait, |until| Decision::Hold { until })
    }

    /// A commit that shows what the run waits for and releases the lease.
    fn pause(
        &mut self,
        run: &mut Progress,
        standing: &mut Standing,
        ready_at: Option<Millis>,
        wall: Millis,
    ) -> Decision {
        record_waits(run, wall);
        let waits = run.ops.wait_keys();
        Decision::Commit(self.release(run, standing, ready_at, waits, wall))
    }

    /// A commit that releases the run as paused.
    fn hold_up(
        &mut self,
        run: &mut Progress,
        standing: &mut Standing,
        note: String,
        wall: Millis,
    ) -> Decision {
        record_waits(run, wall);
        let next = Next::Paused {
            ready_at: run.next_deadline(),
            waits: run.ops.wait_keys(),
            note,
        };
        standing.phase = Phase::Releasing;
        self.commit(run, next, wall)
    }

    /// A commit that releases the lease.
    fn release(
        &mut self,
        run: &mut Progress,
        standing: &mut Standing,
        ready_at: Option<Millis>,
        waits: Vec<String>,
        wall: Millis,
    ) -> Box<RunCommit> {
        standing.phase = Phase::Releasing;
        self.build(run, Next::Waiting { ready_at, waits }, wall)
    }

    fn commit(&mut self, run: &mut Progress, next: Next, wall: Millis) -> Decision {
        Decision::Commit(self.build(run, next, wall))
    }
}

/// Whether a run that yields has something to do, so that the next sweep must take it at once.
fn has_fresh_work(run: &mut Progress, wall: Millis) -> bool {
    run.ops.is_empty()
        || run.steps.next(&run.ops).is_some()
        || run.inbox.has_match()
        || run
            .next_deadline()
            .is_some_and(|until| until <= run.clock.at(wall))
}

/// Records each wait that was not recorded yet, with its deadline.
fn record_waits(run: &mut Progress, wall: Millis) {
    let at = run.clock.at(wall);
    for slot in run.ops.take_unopened() {
        let Some(op) = run.ops.get(slot) else {
            continue;
        };
        let (kind, payload) = match &op.kind {
            OpKind::Approval { request, .. } => (Kind::ApprovalRequested, request.clone()),
            _ => (Kind::WaitOpened, Payload::new()),
        };
        let meta = Meta {
            wait: op.kind.wait_key().map(str::to_owned),
            deadline: op.deadline,
            ..Meta::default()
        };
        let entry = Entry::new(kind, op.id.clone(), payload, at).with_meta(&meta);
        run.ledger.append(entry, Weight::Hard);
    }
}

#[cfg(test)]
mod tests {
    use crate::machine::op::Checkpoint;
    use crate::machine::testing::program::RETRY;
    use crate::machine::testing::{Rest, Sim, T0, failed, job, join, succeeded};
    use crate::machine::{AfterCommit, Machine};
    use crate::run::Status;
    use crate::store::Next;

    /// A step that fails once, two sleeps, an event and an approval at once.
    fn many_waits() -> Sim {
        Sim::new(|ctx| async move {
            let jobs = vec![
                job(ctx.sleep(900)),
                job(ctx.event("x", Some(700))),
                job(ctx.approve(Some("ship"), None)),
                job(ctx.step_with("a", RETRY, Checkpoint::Durable)),
                job(ctx.sleep(800)),
            ];
            join(jobs).await.into_iter().collect()
        })
        .rule(|op, attempt| {
            if attempt == 1 {
                failed("boom")
            } else {
                succeeded(&format!("{op}!"))
            }
        })
    }

    #[test]
    fn a_pause_names_every_wait_and_is_due_at_the_earliest_deadline() {
        let mut sim = many_waits();
        assert_eq!(sim.run(), Status::Waiting);
        assert_eq!(
            sim.store.row.waits,
            ["approval:ship", "event:x", "retry:a", "timer"]
        );
        let due = sim.store.row.ready_at.unwrap();
        assert!((T0 + 25..=T0 + 50).contains(&due));
        assert_eq!(
            sim.store.story()[2..],
            [
                "wait_opened sleep-1",
                "wait_opened event-1",
                "approval_requested ship",
                "wait_opened sleep-2"
            ]
        );
    }

    #[test]
    fn a_wait_is_recorded_once_over_all_pauses_warm_or_cold() {
        for warm in [false, true] {
            let mut sim = many_waits();
            sim.warm = warm;
            sim.run();
            sim.clock += 100;
            assert_eq!(sim.run(), Status::Waiting);
            assert_eq!(sim.store.row.waits, ["approval:ship", "event:x", "timer"]);
            let opened = sim.store.story();
            let opened = opened
                .iter()
                .filter(|entry| entry.starts_with("wait_opened"));
            assert_eq!(opened.count(), 3);
        }
    }

    #[test]
    fn going_on_warm_is_the_same_as_replaying_cold() {
        let [warm, cold] = [true, false].map(|warm| {
            let mut sim = many_waits();
            sim.warm = warm;
            sim.run();
            sim.event("x", "1");
            sim.run();
            sim.clock += 100;
            sim.run();
            sim.decide("ship", "true");
            assert_eq!(sim.run_through(), Status::Completed);
            sim
        });
        assert_eq!(warm.store.journal, cold.store.journal);
        assert_eq!(warm.seen, cold.seen);
        assert_eq!(warm.starts, cold.starts);
    }

    #[test]
    fn a_message_between_the_last_turn_and_the_pause_is_not_slept_over() {
        let mut sim = Sim::new(|ctx| async move { ctx.event("x", None).await });
        sim.warm = true;
        sim.claim();
        assert!(!sim.turn());
        sim.event("x", "1");
        let decision = sim.machine(|machine| machine.next_commit(T0, 0));
        assert_eq!(decision, super::Decision::Hold { until: T0 });
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_message_that_comes_while_the_pause_is_written_makes_the_run_due_at_once() {
        for warm in [false, true] {
            let mut sim = Sim::new(|ctx| async move { ctx.event("x", None).await });
            sim.warm = warm;
            sim.claim();
            assert_eq!(sim.settle(), Rest::Committing);
            sim.event("x", "1");
            assert_eq!(sim.apply(), AfterCommit::Paused { due: true });
            assert_eq!(sim.run(), Status::Completed);
        }
    }

    #[test]
    fn yielding_starts_nothing_records_what_is_in_flight_and_is_due_at_once() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.step("b").await
        });
        sim.claim();
        sim.settle();
        sim.machine(Machine::yield_now);
        assert_eq!(sim.settle(), Rest::Waiting);
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert!(matches!(
            sim.sent().unwrap().next,
            Next::Waiting {
                ready_at: Some(T0),
                ..
            }
        ));
        sim.apply();
        assert_eq!(sim.starts, ["a/1"]);
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["a/1", "b/1"]);
    }

    #[test]
    fn a_run_that_only_waits_is_not_due_at_once_because_it_was_told_to_yield() {
        let mut sim = Sim::new(|ctx| async move { ctx.event("x", Some(700)).await });
        sim.claim();
        sim.machine(Machine::yield_now);
        assert_eq!(sim.settle(), Rest::Committing);
        sim.apply();
        assert_eq!(sim.store.row.ready_at, Some(T0 + 700));
        // With an event there, it has something to do.
        sim.event("x", "1");
        sim.claim();
        sim.machine(Machine::yield_now);
        assert_eq!(sim.settle(), Rest::Committing);
        sim.apply();
        assert_eq!(sim.store.row.ready_at, Some(T0));
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_divergence_that_comes_while_a_commit_is_on_its_way_is_written_after_it() {
        let mut sim = Sim::new(|ctx| async move {
            let jobs = vec![job(ctx.step("a")), job(ctx.step("b"))];
            join(jobs).await;
            std::future::pending().await
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        sim.complete("b");
        sim.settle();
        assert_eq!(sim.apply(), AfterCommit::Driving);
        assert_eq!(sim.run(), Status::Stuck);
        assert_eq!(sim.store.story().len(), 3);
    }

    #[test]
    fn a_deadline_is_kept_even_while_the_store_takes_its_time() {
        let mut sim = Sim::new(|ctx| async move {
            let jobs = vec![job(ctx.step("a")), job(ctx.step("b")), job(ctx.sleep(30))];
            join(jobs).await.into_iter().collect()
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        let decision = sim.machine(|machine| machine.next_commit(T0, 0));
        assert_eq!(decision, super::Decision::Hold { until: T0 + 30 });
        sim.clock += 30;
        sim.settle();
        assert_eq!(sim.seen, ["a=a!", "sleep-1 fired"]);
        sim.apply();
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_host_whose_clock_is_behind_yields_a_run_that_is_due_by_its_own_clock() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.step("b").await
        });
        sim.claim();
        sim.settle();
        sim.clock += 5_000;
        sim.complete("a");
        sim.settle();
        sim.apply();
        sim.crash();
        sim.clock -= 4_000;
        sim.claim();
        sim.machine(Machine::yield_now);
        sim.settle();
        sim.apply();
        assert_eq!(sim.store.row.ready_at, Some(T0 + 1_000));
    }

    #[test]
    fn a_run_does_not_pause_before_it_knows_the_messages_that_its_claim_left_behind() {
        let mut sim = Sim::new(|ctx| async move { ctx.event("x", None).await });
        sim.claim();
        sim.machine(|machine| machine.run.inbox.expect(0, 1));
        assert_eq!(sim.settle(), Rest::Waiting);
        sim.event("x", "1");
        assert_eq!(sim.run(), Status::Completed);
    }
}
