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
        if alone
            && let Some(placed) = self.history.front()
            && placed.entry.op == id
            && matches!(placed.entry.kind, Kind::StepCompleted | Kind::StepFailed)
            && let Some(placed) = self.history.pop()
        {
            self.replayed += 1;
            let at = self.advance(placed.entry.at);
            let outcome = if placed.entry.kind == Kind::StepCompleted {
                Outcome::StepCompleted(Some(placed.entry.payload))
            } else {
                self.note_failure(&placed.entry.op, placed.index);
                Outcome::StepFailed(placed.entry.payload)
            };
            return Ok(Requested::Ready { outcome, at });
        }
        let slot = self.open_op(
            id,
            OpKind::Step {
                retry,
                checkpoint,
                failed: 0,
                phase: StepPhase::Requested,
            },
        );
        if !(self.history.is_empty() && self.recall(slot)) {
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
            self.startable.pop_front();
            if let OpKind::Step { phase, failed, .. } = &mut op.kind {
                *phase = StepPhase::Running;
                self.running += 1;
                return Some(Turn::Start {
                    slot,
                    op: op.id.clone(),
                    attempt: *failed + 1,
                });
            }
        }
    }

    /// The driver reports how an attempt ended. A report for a step that the handler has given up
    /// meanwhile is dropped: the journal never shows it.
    pub fn step_done(&mut self, slot: Slot, outcome: StepOutcome) {
        let Some(op) = self.ops.get_mut(slot) else {
            return;
        };
        if let OpKind::Step { phase, .. } = &mut op.kind
            && *phase == StepPhase::Running
        {
            *phase = StepPhase::Arrived;
            self.running -= 1;
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
            phase,
        } = &mut op.kind
        else {
            return None;
        };
        let attempt = *failed + 1;
        let id = op.id.clone();
        let weight = match checkpoint {
            Checkpoint::Durable => Weight::Hard,
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
                    let until = self.now.max(wall).saturating_add(pause);
                    *failed = attempt;
                    *phase = StepPhase::Backoff { until };
                    // The barrier of the next attempt is this record: attempts survive crashes.
                    self.ops.set_deadline(slot, None, Some(until));
                    meta.attempt = Some(attempt);
                    meta.retry_at = Some(until);
                    let at = self.now.max(wall);
                    self.ledger.append(
                        Entry::new(Kind::StepAttemptFailed, id, error, at).with_meta(&meta),
                        Weight::Hard,
                    );
                    let barrier = self.ledger.barrier();
                    if let Some(op) = self.ops.get_mut(slot) {
                        op.barrier = barrier;
                    }
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
    pub(crate) fn backoff_over(&mut self, slot: Slot, until: Millis) {
        self.ops.set_deadline(slot, Some(until), None);
        if let Some(OpKind::Step { phase, .. }) = self.ops.get_mut(slot).map(|op| &mut op.kind) {
            *phase = StepPhase::Requested;
            self.startable.push_back(slot);
        }
    }
}
