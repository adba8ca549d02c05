//! When a commit is due, what it says, and what follows from its outcome.

use super::divergence::{Handler, Recorded};
use super::ledger::Weight;
use super::op::{OpKind, StepPhase};
use super::{Machine, Phase, Sent};
use crate::ids::{Millis, Payload};
use crate::journal::{Entry, Kind, Meta};
use crate::store::{CommitOutcome, Next, RunCommit};

/// What to do when a turn was idle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing; something in flight will come in.
    Wait,
    /// Call [`Machine::turn`] again then at the latest: a step or a commit is in flight and a
    /// deadline runs beside it, or nothing is and a deadline is so near that the lease is kept.
    Hold { until: Millis },
    /// Hand this to the store; report its outcome by [`Machine::committed`].
    Commit(Box<RunCommit>),
}

/// What became of the run with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterCommit {
    /// There is more to do here; see [`Machine::committed`].
    Driving,
    /// Released by a pause; `due` if it is due again already.
    Paused { due: bool },
    /// It has reached a final status or was parked.
    Ended,
    /// Another owner has it: nothing was written, throw everything away.
    Lost,
}

impl Machine {
    /// Decides what the store must be told now. `hold` is how near a deadline must be for the
    /// lease to be kept instead of released.
    pub fn next_commit(&mut self, wall: Millis, hold: Millis) -> Decision {
        if self.is_sealed() {
            // Whatever is due waits for the outcome, so a deadline is no reason to come back.
            return Decision::Wait;
        }
        if self.ledger.is_in_flight() {
            return self
                .wake()
                .map_or(Decision::Wait, |until| Decision::Hold { until });
        }
        match &self.phase {
            Phase::Gone | Phase::Paused | Phase::Releasing => Decision::Wait,
            Phase::Ended(status) => {
                let status = *status;
                self.commit(Next::Finished { status }, wall)
            }
            Phase::Parking { note, .. } => {
                let note = note.clone();
                self.commit(Next::Stuck { note }, wall)
            }
            Phase::Leaving { format, waits } => {
                let (format, waits) = (*format, waits.clone());
                let ready_at = Some(wall);
                match self.commit(Next::Waiting { ready_at, waits }, wall) {
                    Decision::Commit(mut commit) => {
                        commit.format = Some(format);
                        Decision::Commit(commit)
                    }
                    other => other,
                }
            }
            Phase::Driving => self.pause_or_save(wall, hold),
        }
    }

    fn pause_or_save(&mut self, wall: Millis, hold: Millis) -> Decision {
        if !self.is_quiescent() {
            return self.save(wall, self.wake());
        }
        if !self.yielding && self.inbox.has_match() {
            // A message came in since the last turn. To pause now would be to sleep over it.
            return self.save(wall, Some(wall));
        }
        if self.yielding && self.has_fresh_work(wall) {
            return self.release(Some(wall), wall);
        }
        if self.ops.is_empty() {
            self.diverge(
                self.ledger.journal_len(),
                Recorded::End,
                Handler::Deadlocked,
            );
            return self.next_commit(wall, hold);
        }
        let ready_at = self.next_deadline();
        if let Some(until) = ready_at
            && !self.yielding
            && until.saturating_sub(wall) <= hold
        {
            return self.save(wall, Some(until));
        }
        self.release(ready_at, wall)
    }

    /// When the driver has to come back even if nothing that is in flight comes in.
    fn wake(&self) -> Option<Millis> {
        self.next_deadline()
            .filter(|_| self.phase == Phase::Driving && !self.yielding)
    }

    /// Whether a run that yields has something to do, so that the next sweep must take it at once.
    fn has_fresh_work(&self, wall: Millis) -> bool {
        self.ops.is_empty()
            || !self.startable.is_empty()
            || self.inbox.has_match()
            || self
                .next_deadline()
                .is_some_and(|until| until <= self.now.max(wall))
    }

    /// A commit that keeps the lease, if something is staged that must not be lost; else the
    /// lease is kept for what is in flight, or until `wake`.
    fn save(&mut self, wall: Millis, wake: Option<Millis>) -> Decision {
        if (self.ledger.has_hard() || self.inbox.has_read()) && !self.is_transacting() {
            return self.commit(Next::Running, wall);
        }
        wake.map_or(Decision::Wait, |until| Decision::Hold { until })
    }

    /// A commit that releases the lease.
    fn release(&mut self, ready_at: Option<Millis>, wall: Millis) -> Decision {
        self.record_waits(wall);
        let waits = self.ops.wait_keys();
        self.commit(Next::Waiting { ready_at, waits }, wall)
    }

    /// Nothing is in flight and nothing can start: only time or a message can bring the run on.
    fn is_quiescent(&mut self) -> bool {
        while let Some(slot) = self.startable.front() {
            if self.is_requested(*slot) {
                break;
            }
            self.startable.pop_front();
        }
        self.running == 0
            && (self.inbox.is_whole() || self.yielding)
            && self.arrived.is_empty()
            && self.offered.is_none()
            && self.history.is_empty()
            && (self.startable.is_empty() || self.yielding)
    }

    pub(crate) fn is_requested(&self, slot: crate::inbox::Slot) -> bool {
        matches!(
            self.ops.get(slot).map(|op| &op.kind),
            Some(OpKind::Step {
                phase: StepPhase::Requested,
                ..
            })
        )
    }

    /// Records each wait that was not recorded yet, with its deadline.
    fn record_waits(&mut self, wall: Millis) {
        let at = self.now.max(wall);
        for slot in self.ops.take_unopened() {
            let Some(op) = self.ops.get(slot) else {
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
            self.ledger.append(entry, Weight::Hard);
        }
    }

    fn commit(&mut self, next: Next, wall: Millis) -> Decision {
        self.sent = Some(match &next {
            Next::Running => Sent::Save,
            Next::Waiting { .. } => {
                self.phase = Phase::Releasing;
                Sent::Release
            }
            Next::Finished { .. } | Next::Stuck { .. } | Next::Continued { .. } => Sent::End,
        });
        let (expected_len, entries) = self.ledger.take();
        let format = self.raised_format(&entries);
        self.facts.format = format.unwrap_or(self.facts.format);
        Decision::Commit(Box::new(RunCommit {
            run_id: self.facts.run_id.clone(),
            seed: self.facts.seed,
            owner: self.facts.owner.clone(),
            epoch: self.facts.epoch,
            expected_len: self.facts.journal_start + expected_len,
            entries,
            read: self.inbox.take_read(),
            inbox_seen: self.inbox.take_news(),
            next,
            state: self.state.take(),
            outgoing: Vec::new(),
            format,
            at: self.now.max(wall),
        }))
    }

    /// Takes in the outcome of the commit in flight. After [`AfterCommit::Driving`] the driver goes
    /// on with [`Machine::turn`] and [`Machine::next_commit`] even if the handler may not be run
    /// any more ([`Machine::is_driving`]): its end, or the reason it is parked for, is still to be
    /// written.
    pub fn committed(&mut self, outcome: &CommitOutcome) -> AfterCommit {
        let sent = self.sent.take();
        if self.phase == Phase::Gone {
            return AfterCommit::Lost;
        }
        let sealed = self.sealed.take();
        match outcome {
            CommitOutcome::Applied { due } => {
                if let Some(sealed) = sealed {
                    return self.seal_applied(sealed);
                }
                self.ledger.applied();
                match sent {
                    Some(Sent::Save) | None => AfterCommit::Driving,
                    Some(Sent::Release) => {
                        self.phase = Phase::Paused;
                        AfterCommit::Paused { due: *due }
                    }
                    Some(Sent::End) => {
                        self.phase = Phase::Gone;
                        AfterCommit::Ended
                    }
                }
            }
            // Who sends commits sends a blocked one again; to be told of it is to be told to give up.
            CommitOutcome::Fenced | CommitOutcome::Blocked => {
                self.phase = Phase::Gone;
                AfterCommit::Lost
            }
            CommitOutcome::Rejected { reason } => self.rejected(reason),
        }
    }

    /// The store cannot keep what it was told. Whatever was staged since stands on it and falls
    /// with it: only the note that parks the run is written.
    fn rejected(&mut self, reason: &str) -> AfterCommit {
        self.ledger.rolled_back();
        self.inbox.forget_read();
        self.state = None;
        let note = match std::mem::replace(&mut self.phase, Phase::Gone) {
            // Even the bare note was refused: give up and leave the run to a later recovery.
            Phase::Parking { bare: true, .. } => return AfterCommit::Lost,
            Phase::Parking { note, .. } => note,
            _ => format!(
                "the store refused to record this run's progress: {reason}. What was recorded \
                 before is whole; mend the cause, then `retry` the run"
            ),
        };
        self.phase = Phase::Parking { note, bare: true };
        AfterCommit::Driving
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::Payload;
    use crate::journal::{Entry, Kind};
    use crate::machine::ledger::Weight;
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
    fn a_driver_that_was_fenced_off_writes_nothing_more() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.store.row.epoch += 1;
        assert_eq!(sim.apply(), AfterCommit::Lost);
        assert_eq!(sim.store.story(), ["run_created"]);
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_driver_that_gave_the_run_up_is_lost_whatever_the_store_says() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.machine(Machine::abandon);
        assert_eq!(sim.apply(), AfterCommit::Lost);
    }

    fn assert_parked(sim: &mut Sim) {
        assert_eq!(sim.run(), Status::Stuck);
        assert_eq!(
            sim.store.row.note.as_deref(),
            Some(
                "the store refused to record this run's progress: too large. What was recorded \
                 before is whole; mend the cause, then `retry` the run"
            )
        );
        let last = sim.store.commits.last().unwrap();
        assert!(last.entries.is_empty() && last.read.is_empty() && last.state.is_none());
    }

    #[test]
    fn progress_that_the_store_cannot_keep_parks_the_run_whatever_it_was_doing() {
        let program = |ctx: crate::machine::testing::Ctx| async move {
            let jobs = vec![job(ctx.step("a")), job(ctx.event("x", None))];
            join(jobs).await.into_iter().collect()
        };
        // A commit that keeps the lease, with more that came in since.
        let mut sim = Sim::new(move |ctx| async move {
            let jobs = vec![job(program(ctx.clone())), job(ctx.step("b"))];
            join(jobs).await.into_iter().collect()
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        sim.event("x", "1");
        sim.complete("b");
        sim.machine(|machine| machine.set_state(Payload::from_static(b"{}")));
        sim.settle();
        sim.reject_next();
        assert_eq!(sim.apply(), AfterCommit::Driving);
        assert_parked(&mut sim);
        assert!(sim.store.read.is_empty(), "the message is still there");
        // A pause.
        let mut sim = Sim::new(program);
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.reject_next();
        sim.apply();
        assert_parked(&mut sim);
        // The end.
        let mut sim = Sim::new(|_| async { Ok("huge".into()) });
        sim.claim();
        sim.settle();
        sim.reject_next();
        sim.apply();
        assert_parked(&mut sim);
        // And it can be retried.
        sim.store.retry(sim.clock);
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn a_run_that_is_being_parked_is_parked_without_what_the_store_cannot_keep() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            std::future::pending().await
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert!(matches!(sim.sent().unwrap().next, Next::Stuck { .. }));
        sim.reject_next();
        assert_eq!(sim.apply(), AfterCommit::Driving);
        assert_eq!(sim.run(), Status::Stuck);
        assert_eq!(sim.store.story(), ["run_created"]);
        // A store that refuses even that keeps the run as it is.
        let mut sim = Sim::new(|_| std::future::pending());
        sim.claim();
        sim.settle();
        sim.reject_next();
        sim.apply();
        sim.settle();
        sim.reject_next();
        assert_eq!(sim.apply(), AfterCommit::Lost);
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
    fn the_first_commit_with_entries_of_a_higher_encoding_says_so() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.step("b").await
        });
        sim.claim();
        sim.settle();
        sim.machine(|machine| {
            let mut entry = Entry::new(Kind::PatchMarked, "p".into(), Payload::new(), T0);
            entry.encoding = 9;
            machine.ledger.append(entry, Weight::Light);
        });
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert_eq!(sim.sent().unwrap().format, Some(9));
        assert!(!sim.sent().unwrap().only_appends());
        sim.apply();
        sim.settle();
        sim.complete("b");
        sim.settle();
        assert_eq!(sim.sent().unwrap().format, None);
    }

    #[test]
    fn a_step_of_a_run_without_messages_only_appends() {
        let mut sim = Sim::new(|ctx| async move {
            ctx.step("a").await?;
            ctx.step("b").await
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        assert!(sim.sent().unwrap().only_appends());
    }

    #[test]
    fn a_run_does_not_pause_before_it_knows_the_messages_that_its_claim_left_behind() {
        let mut sim = Sim::new(|ctx| async move { ctx.event("x", None).await });
        sim.claim();
        sim.machine(|machine| machine.inbox.expect(0, 1));
        assert_eq!(sim.settle(), Rest::Waiting);
        sim.event("x", "1");
        assert_eq!(sim.run(), Status::Completed);
    }

    #[test]
    fn the_runs_state_goes_out_with_the_next_commit() {
        let mut sim = Sim::new(|ctx| async move { ctx.step("a").await });
        sim.claim();
        sim.machine(|machine| machine.set_state(Payload::from_static(b"{}")));
        assert_eq!(sim.settle(), Rest::Waiting);
        sim.run();
        let state = sim.store.commits[0].state.clone();
        assert_eq!(state, Some(Payload::from_static(b"{}")));
    }
}
