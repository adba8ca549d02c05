//! Delivery of recorded entries, and the exact check that the code still fits them.

use super::divergence::{Handler, Recorded};
use super::history::Placed;
use super::op::{OpKind, StepPhase};
use super::{Machine, Outcome, Turn};
use crate::ids::Millis;
use crate::inbox::Slot;
use crate::journal::{BadEntry, Entry, Kind, Meta};
use crate::primitives::timer::RUN_TIMEOUT_OP;

impl Machine {
    /// Goes through the next recorded entry. Called when nothing is runnable: whatever the handler
    /// was going to ask for before this entry, it has asked for.
    pub(super) fn replay_turn(&mut self) -> Option<Turn> {
        let placed = self.history.pop()?;
        self.replayed += 1;
        match placed.entry.kind {
            Kind::StepCompleted | Kind::StepFailed => {
                self.replay_end(placed, |kind| matches!(kind, OpKind::Step { .. }))
            }
            Kind::EventReceived => self.replay_event(placed),
            Kind::ApprovalResolved => {
                self.replay_end(placed, |kind| matches!(kind, OpKind::Approval { .. }))
            }
            Kind::TimerFired if &*placed.entry.op == RUN_TIMEOUT_OP => {
                self.set_timed_out_at(placed.index);
                let at = self.advance(placed.entry.at);
                Some(Turn::TimeOut { at })
            }
            Kind::TimerFired => {
                self.replay_end(placed, |kind| !matches!(kind, OpKind::Step { .. }))
            }
            Kind::CancelRequested => {
                self.set_cancelled_at(placed.index);
                let at = self.advance(placed.entry.at);
                let reason = placed.entry.payload;
                Some(Turn::Cancel { reason, at })
            }
            Kind::StepAttemptFailed | Kind::WaitOpened | Kind::ApprovalRequested => {
                self.replay_note(&placed);
                None
            }
            Kind::RunReopened => {
                self.reopened(placed.entry.at);
                None
            }
            Kind::ValueRecorded
            | Kind::RunCreated
            | Kind::RunFinished
            | Kind::RunFailed
            | Kind::RunCancelled
            | Kind::RunTerminated
            | Kind::ChildStarted
            | Kind::ChildFinished
            | Kind::PatchMarked
            | Kind::Unknown(_) => {
                self.not_asked(&placed);
                None
            }
        }
    }

    /// An entry that ends an operation: it must be open, and of that kind.
    fn replay_end(&mut self, placed: Placed, fits: impl Fn(&OpKind) -> bool) -> Option<Turn> {
        let slot = self.find_open(&placed, fits)?;
        let op = self.close_op(slot)?;
        let at = self.advance(placed.entry.at);
        let outcome = self.recorded_outcome(placed.index, placed.entry, &op.kind);
        Some(Turn::Deliver { slot, outcome, at })
    }

    /// What a recorded entry tells the handler.
    pub(crate) fn recorded_outcome(&mut self, index: u64, entry: Entry, kind: &OpKind) -> Outcome {
        match entry.kind {
            Kind::StepCompleted => Outcome::StepCompleted(Some(entry.payload)),
            Kind::StepFailed => {
                self.note_failure(&entry.op, index);
                Outcome::StepFailed(entry.payload)
            }
            Kind::TimerFired if matches!(kind, OpKind::Timer) => Outcome::Fired,
            Kind::TimerFired => Outcome::TimedOut,
            _ => Outcome::Received(Some(entry.payload)),
        }
    }

    fn replay_event(&mut self, placed: Placed) -> Option<Turn> {
        let recorded = match placed.entry.meta() {
            Ok(meta) => meta.wait,
            Err(error) => {
                self.unreadable(&placed, error);
                return None;
            }
        };
        let slot = self.find_open(&placed, |kind| matches!(kind, OpKind::Event { .. }))?;
        if !self.is_same_wait(&placed, slot, recorded.as_deref()) {
            return None;
        }
        self.replay_end(placed, |_| true)
    }

    fn find_open(&mut self, placed: &Placed, fits: impl Fn(&OpKind) -> bool) -> Option<Slot> {
        let Some(slot) = self.ops.slot_of(&placed.entry.op) else {
            self.not_asked(placed);
            return None;
        };
        let asked = match self.ops.get(slot) {
            Some(op) if fits(&op.kind) => return Some(slot),
            Some(op) => op.kind.name(),
            None => "nothing",
        };
        self.diverge(placed.index, recorded(placed), Handler::OtherKind { asked });
        None
    }

    /// Whether the recorded wait is for what the handler waits for now.
    fn is_same_wait(&mut self, placed: &Placed, slot: Slot, was: Option<&str>) -> bool {
        let asked = self.ops.get(slot).and_then(|op| op.kind.wait_key());
        let (Some(was), Some(asked)) = (was, asked) else {
            return true;
        };
        if was == asked {
            return true;
        }
        let handler = Handler::OtherWait {
            was: was.to_owned(),
            asked: asked.to_owned(),
        };
        self.diverge(placed.index, recorded(placed), handler);
        false
    }

    fn not_asked(&mut self, placed: &Placed) {
        let open = self.open_operations();
        self.diverge(placed.index, recorded(placed), Handler::Waiting { open });
    }

    /// An entry that tells something of an open operation and delivers nothing.
    fn replay_note(&mut self, placed: &Placed) {
        let meta = match placed.entry.meta() {
            Ok(meta) => meta,
            Err(error) => return self.unreadable(placed, error),
        };
        match placed.entry.kind {
            Kind::StepAttemptFailed => self.replay_attempt(placed, &meta),
            Kind::ApprovalRequested => {
                self.replay_wait(placed, &meta, |kind| {
                    matches!(kind, OpKind::Approval { .. })
                });
            }
            _ => self.replay_wait(placed, &meta, |kind| {
                matches!(kind, OpKind::Timer | OpKind::Event { .. })
            }),
        }
    }

    fn replay_attempt(&mut self, placed: &Placed, meta: &Meta) {
        let found = self.find_open(placed, |kind| matches!(kind, OpKind::Step { .. }));
        let Some(slot) = found else { return };
        if let Some(OpKind::Step { failed, .. }) = self.ops.get_mut(slot).map(|op| &mut op.kind) {
            *failed = meta.attempt.unwrap_or(1);
        }
        let until = meta.retry_at.unwrap_or(placed.entry.at);
        self.ops.set_phase(slot, StepPhase::Backoff, Some(until));
    }

    /// A wait's deadline was fixed when it was first reached, whatever the code says now.
    fn replay_wait(&mut self, placed: &Placed, meta: &Meta, fits: impl Fn(&OpKind) -> bool) {
        let Some(slot) = self.find_open(placed, fits) else {
            return;
        };
        if self.is_same_wait(placed, slot, meta.wait.as_deref()) {
            self.ops.mark_opened(slot);
            // Only a timer cannot do without one.
            let is_timer = self
                .ops
                .get(slot)
                .is_some_and(|op| matches!(op.kind, OpKind::Timer));
            if meta.deadline.is_some() || !is_timer {
                self.ops.set_deadline(slot, meta.deadline);
            }
        }
    }

    /// The handler cannot make use of the recorded payload that it was just given: its types have
    /// changed under the run.
    pub fn cannot_read(&mut self, op: &str, why: String) {
        if self.check_driving().is_err() {
            return;
        }
        let (index, recorded) = match self.history.last() {
            Some((index, kind)) => (
                index,
                Recorded::Entry {
                    kind,
                    op: op.to_owned(),
                },
            ),
            None => (self.replayed, Recorded::End),
        };
        self.diverge(index, recorded, Handler::CannotRead { why });
    }

    fn unreadable(&mut self, placed: &Placed, error: BadEntry) {
        let open = self.open_operations();
        self.diverge(
            placed.index,
            Recorded::Unreadable(error),
            Handler::Waiting { open },
        );
    }

    /// Goes through reopenings that come next. They tell the handler nothing, so what it asks for
    /// is compared with the entry behind them.
    pub(crate) fn pass_reopenings(&mut self) {
        while let Some(placed) = self.history.front()
            && placed.entry.kind == Kind::RunReopened
        {
            let at = placed.entry.at;
            self.history.pop();
            self.replayed += 1;
            self.reopened(at);
        }
    }

    /// `retry` reopened the run here: open steps get fresh attempts.
    fn reopened(&mut self, at: Millis) {
        self.reopened_at = Some(at);
        for slot in self.ops.slots() {
            let Some(OpKind::Step { failed, phase, .. }) =
                self.ops.get_mut(slot).map(|op| &mut op.kind)
            else {
                continue;
            };
            *failed = 0;
            if *phase == StepPhase::Backoff {
                self.ops.set_phase(slot, StepPhase::Requested, None);
                self.startable.push_back(slot);
            }
        }
    }
}

pub(crate) fn recorded(placed: &Placed) -> Recorded {
    Recorded::Entry {
        kind: placed.entry.kind,
        op: placed.entry.op.to_string(),
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
