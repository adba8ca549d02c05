//! Results that become durable in a transaction of the user's own, together with the user's data.
//!
//! A function that ran inside of such a transaction has returned, and the transaction is still open.
//! The machine *seals* the result: all that is not durable yet and the result as its last entry
//! become one commit, which the driver does not send to the store but hands to whoever holds the
//! transaction. Until its outcome is known nothing else of the run is recorded or delivered: the
//! entry has its place in the journal if and only if the transaction takes place.
//!
//! The transaction may hold locks that a commit of the run's own would wait for (all of them, in a
//! database with one writer), and its end waits for the sealed commit. So that these two never wait
//! for each other, a run commits nothing by itself while a function of it runs in a transaction:
//! what other steps bring is delivered, and their next effects wait for the transaction's end.

use std::collections::VecDeque;

use crate::ids::{Millis, Payload};
use crate::inbox::Slot;
use crate::journal::{Entry, Kind, Meta};
use crate::progress::ledger::Weight;
use crate::progress::op::{OpKind, StepPhase};
use crate::progress::state::Progress;
use crate::progress::turn::{Outcome, Turn};
use crate::store::Next;

/// Results that wait to be sealed, and the one that is.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    waiting: VecDeque<(Slot, Payload)>,
    sealed: Option<Sealed>,
}

/// A commit in the hands of whoever holds the transaction.
#[derive(Debug)]
pub(super) struct Sealed {
    slot: Slot,
    entry: Entry,
    state: Option<Payload>,
}

impl Sealing {
    /// A result that is to be sealed. False if nobody waits for it any more.
    pub(super) fn add(&mut self, run: &Progress, slot: Slot, result: Payload) -> bool {
        let wanted = is_running(run, slot);
        if wanted {
            self.waiting.push_back((slot, result));
        }
        wanted
    }

    /// Whether a commit is in the hands of whoever holds the transaction.
    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// The next commit to hand over; the run's state goes with it.
    pub(super) fn next(
        &mut self,
        run: &Progress,
        state: &mut Option<Payload>,
        wall: Millis,
    ) -> Option<Turn> {
        if run.ledger.is_in_flight() {
            return None;
        }
        loop {
            let (slot, result) = self.waiting.pop_front()?;
            if !is_running(run, slot) {
                continue;
            }
            let op = run.ops.get(slot)?;
            let OpKind::Step { failed, .. } = &op.kind else {
                continue;
            };
            let attempt = failed.saturating_add(1);
            let meta = Meta {
                attempt: Some(attempt).filter(|attempt| *attempt > 1),
                ..Meta::default()
            };
            // The logical clock moves when the result is delivered: it may still come to nothing.
            let at = run.clock.at(wall);
            let entry = Entry::new(Kind::StepCompleted, op.id.clone(), result, at).with_meta(&meta);
            let mut staged = run.ledger.not_durable();
            staged.entries.push(entry.clone());
            let state = state.take();
            let mut commit = run.facts.commit(staged, Next::Running, at);
            commit.read = run.inbox.read().to_vec();
            commit.inbox_seen = run.inbox.news();
            commit.state.clone_from(&state);
            self.sealed = Some(Sealed { slot, entry, state });
            return Some(Turn::Seal { slot, commit });
        }
    }

    /// The outcome of the sealed commit is known.
    pub(super) const fn take(&mut self) -> Option<Sealed> {
        self.sealed.take()
    }

    /// The attempt in `slot` has failed after all and its transaction was rolled back: what was
    /// sealed with its result goes out with a later commit. The state that was is given back.
    pub(super) fn undo(&mut self, slot: Slot) -> Option<Payload> {
        self.waiting.retain(|(other, _)| *other != slot);
        self.sealed.take_if(|sealed| sealed.slot == slot)?.state
    }
}

impl Sealed {
    /// The transaction took place, and the sealed commit with it.
    pub(super) fn applied(self, run: &mut Progress) {
        let at = self.entry.at;
        run.ledger.append(self.entry, Weight::Hard);
        let taken = run.ledger.take();
        let raised = run.facts.raised_format(&taken.entries);
        run.facts.told_format(raised);
        run.ledger.applied();
        run.inbox.take_read();
        run.inbox.take_news();
        if is_running(run, self.slot) {
            run.ops.set_phase(self.slot, StepPhase::Arrived, None);
            run.steps.stop(self.slot);
        }
        run.arrivals.add_durable(self.slot, at);
    }
}

/// Delivers a result that is durable already.
pub(super) fn delivered(run: &mut Progress, slot: Slot, at: Millis) -> Option<Turn> {
    run.close(slot)?;
    let at = run.clock.advance(at);
    let outcome = Outcome::StepCompleted(None);
    Some(Turn::Deliver { slot, outcome, at })
}

fn is_running(run: &Progress, slot: Slot) -> bool {
    run.ops.phase(slot) == Some(StepPhase::Running)
}

#[cfg(test)]
mod tests {
    use crate::ids::Payload;
    use crate::machine::op::Checkpoint;
    use crate::machine::testing::program::RETRY;
    use crate::machine::testing::{Rest, Sim, T0, failed, job, join, succeeded};
    use crate::machine::{AfterCommit, Decision, Machine};
    use crate::run::Status;

    fn one() -> Sim {
        let mut sim = Sim::new(|ctx| async move { ctx.sealed("t").await });
        sim.claim();
        sim.settle();
        sim
    }

    /// A transaction and a step at once, both in flight.
    fn two() -> Sim {
        let mut sim = Sim::new(|ctx| async move {
            let jobs = vec![job(ctx.sealed("t")), job(ctx.sealed("a"))];
            join(jobs).await.into_iter().collect()
        });
        sim.claim();
        sim.settle();
        sim
    }

    #[test]
    fn a_sealed_result_is_delivered_when_the_transaction_has_taken_place() {
        let mut sim = one();
        sim.seal("t");
        assert_eq!(sim.settle(), Rest::Waiting);
        assert_eq!(sim.sealed().unwrap().expected_len, 1);
        assert!(sim.seen.is_empty());
        assert_eq!(sim.apply_sealed(), AfterCommit::Driving);
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["t=t!"]);
        assert_eq!(
            sim.store.story(),
            ["run_created", "step_completed t", "run_finished"]
        );
    }

    #[test]
    fn while_a_commit_is_in_other_hands_nothing_is_delivered_recorded_or_committed() {
        let mut sim = two();
        sim.seal("t");
        sim.settle();
        sim.seal("a");
        sim.clock += 5;
        assert_eq!(sim.settle(), Rest::Waiting);
        assert!(sim.seen.is_empty());
        assert_eq!(sim.sent(), None);
        sim.apply_sealed();
        sim.settle();
        assert_eq!(sim.seen, ["t=t!"]);
        sim.apply_sealed();
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["t=t!", "a=a!"]);
    }

    #[test]
    fn while_a_function_runs_in_a_transaction_the_run_commits_nothing_by_itself() {
        let mut sim = Sim::new(|ctx| async move {
            let transaction = {
                let ctx = ctx.clone();
                async move {
                    ctx.step("first").await?;
                    ctx.sealed("t").await
                }
            };
            let jobs = vec![job(ctx.step("a")), job(ctx.step("b")), job(transaction)];
            join(jobs).await.into_iter().collect()
        });
        sim.claim();
        sim.settle();
        sim.complete("first");
        assert_eq!(sim.settle(), Rest::Committing);
        sim.complete("a");
        sim.apply();
        assert_eq!(sim.settle(), Rest::Waiting);
        assert_eq!(sim.starts, ["a/1", "b/1", "first/1", "t/1"]);
        sim.complete("b");
        assert_eq!(sim.settle(), Rest::Waiting);
        assert_eq!(sim.seen, ["first=first!", "a=a!", "b=b!"]);
        sim.seal("t");
        sim.settle();
        // It goes with the result, in its order.
        let sealed = sim.sealed().unwrap();
        assert_eq!(sealed.expected_len, 2);
        let ops: Vec<_> = sealed.entries.iter().map(|entry| &*entry.op).collect();
        assert_eq!(ops, ["a", "b", "t"]);
        sim.apply_sealed();
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.store.story().len(), 6);
    }

    #[test]
    fn a_transaction_does_not_start_while_a_commit_is_on_its_way() {
        let mut sim = Sim::new(|ctx| async move {
            let jobs = vec![
                job(ctx.step_with("t", RETRY, Checkpoint::Sealed)),
                job(ctx.step("a")),
                job(ctx.step("b")),
            ];
            join(jobs).await.into_iter().collect()
        })
        .rule(|op, _| match op {
            "t" => failed("boom"),
            _ => succeeded("1"),
        });
        sim.claim();
        sim.settle();
        sim.complete("t");
        sim.settle();
        sim.apply();
        sim.settle();
        sim.complete("a");
        assert_eq!(sim.settle(), Rest::Committing);
        sim.clock += 100;
        sim.settle();
        assert_eq!(sim.starts, ["t/1", "a/1", "b/1"]);
        sim.apply();
        sim.settle();
        assert_eq!(sim.starts, ["t/1", "a/1", "b/1", "t/2"]);
    }

    #[test]
    fn two_results_are_sealed_one_after_the_other() {
        let mut sim = two();
        sim.seal("a");
        sim.seal("t");
        sim.settle();
        assert_eq!(&*sim.sealed().unwrap().entries[0].op, "a");
        sim.apply_sealed();
        sim.settle();
        assert_eq!(&*sim.sealed().unwrap().entries[0].op, "t");
        sim.apply_sealed();
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["a=a!", "t=t!"]);
    }

    #[test]
    fn a_transaction_that_could_not_commit_is_a_failed_attempt_and_loses_nothing_else() {
        let mut sim = Sim::new(|ctx| async move {
            let jobs = vec![
                job(ctx.step_with("t", RETRY, Checkpoint::Sealed)),
                job(ctx.lazy("a")),
            ];
            join(jobs).await.into_iter().collect()
        });
        sim.claim();
        sim.settle();
        sim.complete("a");
        sim.settle();
        sim.machine(|machine| machine.set_state(Payload::from_static(b"{}")));
        sim.seal("t");
        sim.settle();
        assert_eq!(sim.sealed().unwrap().entries.len(), 2);
        sim.roll_back();
        assert_eq!(sim.settle(), Rest::Committing);
        let sent = sim.sent().unwrap();
        assert_eq!(sent.entries.len(), 2);
        assert_eq!(sent.state, Some(Payload::from_static(b"{}")));
        sim.apply();
        sim.clock += 60;
        assert_eq!(sim.run_through(), Status::Completed);
        assert_eq!(sim.starts, ["t/1", "a/1", "t/2"]);
        assert_eq!(
            sim.store.story(),
            [
                "run_created",
                "step_completed a",
                "step_attempt_failed t",
                "step_completed t",
                "run_finished"
            ]
        );
    }

    #[test]
    fn a_result_of_an_attempt_that_was_given_up_is_not_sealed() {
        let sim = one();
        let slot = sim.running[0].0;
        sim.machine(|machine| machine.cancel_op(slot));
        assert!(!sim.machine(|machine| machine.seal(slot, Payload::new())));
    }

    #[test]
    fn a_refused_commit_loses_the_run_here() {
        let mut sim = one();
        sim.seal("t");
        sim.settle();
        sim.fence_next();
        assert_eq!(sim.apply_sealed(), AfterCommit::Lost);
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.starts, ["t/1", "t/1"]);
    }

    #[test]
    fn after_an_unknown_outcome_that_was_a_success_the_function_does_not_run_again() {
        for took_place in [true, false] {
            let mut sim = one();
            sim.seal("t");
            sim.settle();
            sim.doubt(took_place);
            assert_eq!(sim.run(), Status::Completed);
            assert_eq!(sim.starts.len(), if took_place { 1 } else { 2 });
            assert_eq!(sim.seen, ["t=t!"]);
        }
    }

    #[test]
    fn a_deadline_beside_a_sealed_commit_waits_for_its_outcome_and_keeps_nobody_busy() {
        let mut sim = Sim::new(|ctx| async move {
            let jobs = vec![job(ctx.sealed("t")), job(ctx.sleep(30))];
            join(jobs).await.into_iter().collect()
        });
        sim.claim();
        sim.settle();
        sim.seal("t");
        sim.settle();
        sim.clock = T0 + 40;
        assert_eq!(sim.settle(), Rest::Waiting);
        let decision = sim.machine(|machine: &mut Machine| machine.next_commit(T0 + 40, 0));
        assert_eq!(decision, Decision::Wait);
        sim.apply_sealed();
        assert_eq!(sim.run(), Status::Completed);
        assert_eq!(sim.seen, ["t=t!", "sleep-1 fired"]);
    }
}
